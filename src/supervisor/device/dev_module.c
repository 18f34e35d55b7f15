/* SPDX-License-Identifier: BSD-2-Clause */
/* A disk that a storage module serves: its program, its start message, its connections. */
#include <string.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/log.h>

#include "dev_virtio.h"
#include "supervisor/backing/module.h"

_Static_assert(sizeof(struct msg_start_module) <= DEVICE_MAX_START, "it fits");

#define MODULE_OWN_NOFILE 64 /* page, events, memory, and what the C library has open */
#define MODULE_THREADS 3     /* control */

int device_module_init(struct device *d, struct disk *disk, uint64_t memory, struct err *e)
{
	const struct module_back *b = disk->module;
	const struct manifest *m = &b->manifest;
	int rc = child_init_open(&d->child, b->exec_fd, b->name, d->desc.name,
				 MODULE_THREADS + d->nqueues + m->threads,
				 MODULE_OWN_NOFILE + 2 * d->nqueues + m->descriptors, e);

	d->back.disk = disk;
#ifdef INSULA_SANITIZE
	(void)memory; /* its shadow needs terabytes of addresses */
#else
	d->child.os.as = m->memory + memory;
#endif
	return rc;
}

static int module_start(struct device *d, struct device_start *s, struct err *e)
{
	struct disk *disk = d->back.disk;
	struct module_back *b = disk->module;
	struct msg_start_module m = {.nqueues = d->nqueues,
				     .calls = b->manifest.calls,
				     .text_len = b->text_len,
				     .limit = disk->limit,
				     .flags = (disk->conf->ro ? MODULE_START_RO : 0) |
					      (b->connects ? MODULE_START_CONNECTS : 0)};

	(void)e;
	memcpy(m.serial, disk->conf->serial, sizeof(m.serial));
	memcpy(m.text, b->text, b->text_len);
	s->once[0] = module_hand_out(b);
	if (s->once[0] >= 0)
		m.flags |= MODULE_START_CONN;
	if (b->same)
		m.flags |= MODULE_START_SAME;
	if (b->files >= 0)
		m.flags |= MODULE_START_FILES;
	log_info("%s: module %s, %s", d->desc.name, b->name, disk->conf->path);
	device_word(s, &m, sizeof(m));
	if (s->once[0] >= 0)
		device_add(s, s->once[0]);
	if (b->files >= 0)
		device_add(s, b->files);
	return 0;
}

static int module_is_quiet(const struct device *d)
{
	return module_quiet(d->back.disk->module);
}

static bool module_message(struct vm *vm, struct device *d, enum msg_type t, const void *body,
			   size_t len)
{
	struct msg_module_lane m;

	(void)vm;
	if (t != MSG_MODULE_NEED || len != sizeof(m))
		return false;
	memcpy(&m, body, sizeof(m));
	return m.lane < d->nqueues && module_asks(d->back.disk->module, m.lane);
}

static uint64_t module_device_due(const struct device *d)
{
	return d->child.state == CHILD_READY ? module_due(d->back.disk->module) : 0;
}

static void module_tend(struct device *d)
{
	struct module_back *b = d->back.disk->module;
	struct msg_module_lane m;
	struct err e;
	int fd = module_retry(b, &m.lane, &e);

	if (fd < 0) {
		log_debug("%s: %s", d->desc.name, e.text);
		return;
	}
	/* One that has just died does not get it; its successor asks for one of its own. */
	if (child_send(&d->child, MSG_MODULE_PEER, &m, sizeof(m), &fd, 1))
		(void)module_asks(b, m.lane);
	close(fd);
}

/* For the metrics, which are written when what is behind the disk is closed already. */
static const char *module_engine_name(const struct device *d)
{
	(void)d;
	return "module";
}

static struct msg_limit *module_limit(const struct device *d)
{
	return &d->back.disk->limit;
}

const struct device_class device_module = {
	.kind = "disk",
	.tag = MODULE_START,
	.memory = true,
	.virtio = true,
	.virtio_id = VIRTIO_ID_BLOCK,
	.describe = dev_virtio_describe,
	.start = module_start,
	.quiet = module_is_quiet,
	.message = module_message,
	.engine = module_engine_name,
	.limit = module_limit,
	.limited = "iops",
	.due = module_device_due,
	.tend = module_tend,
	.unsaved = "what its server holds cannot be part of a snapshot",
	.stats = &stats_blk,
};
