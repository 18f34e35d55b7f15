/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * main() of a storage module, and its control thread. See module_dev.h.
 *
 * Its stages are those of every helper (program.h), with one more: behind jail_seal(), and before
 * MSG_READY, the module says what its disk is. For that it may have to speak to a server, and no
 * server is heard before the jail is closed. A process that follows another one takes the disk from
 * the device page, so that it can serve without a server, too.
 */
#include <errno.h>
#include <malloc.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <insula/base.h>

#include "devices/program.h"
#include "module_dev.h"

/* ---- configuration ---- */

struct module_said {
	struct module_conf conf; /* first */
	const struct module *m;
};

/* Behind the target, one text after the other. */
static const char *module_setting(const struct module_conf *c, const char *key)
{
	const struct module_said *s = (const struct module_said *)(const void *)c;
	const char *p = s->m->start.text, *end = p + s->m->start.text_len;
	size_t n = strlen(key);

	for (p += strlen(p) + 1; p < end; p += strlen(p) + 1) {
		if (!strncmp(p, key, n) && p[n] == '=')
			return p + n + 1;
	}
	return NULL;
}

static const char *module_file(const struct module_conf *c, const char *key, size_t *len)
{
	const struct module *m = ((const struct module_said *)(const void *)c)->m;
	const char *value = module_setting(c, key);
	unsigned long long at = 0, n = 0;

	if (!value || !m->files || sscanf(value, "%llu:%llu", &at, &n) != 2 || at >= m->files_len ||
	    n >= m->files_len - at)
		return NULL;
	*len = (size_t)n;
	return m->files + at;
}

static int take_files(struct module *m, int fd, struct err *e)
{
	uint64_t size = 0;
	int rc = file_size(fd, &size);
	void *at = NULL;

	if (!rc && size)
		at = mmap(NULL, (size_t)size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (!rc && (!size || at == MAP_FAILED))
		rc = size ? -errno : -EINVAL;
	close(fd);
	if (rc)
		return err_sys(e, rc, "what its files hold");
	m->files = at;
	m->files_len = (size_t)size;
	return 0;
}

static int module_check(const void *start, const struct start_fds *f, struct err *e)
{
	const struct msg_start_module *m = start;
	int rc = start_expect(f, START_KICK, m->nqueues, e);

	if (!m->nqueues || m->nqueues > BLK_MAX_QUEUES)
		return err_set(e, -EINVAL, "%u queues", m->nqueues);
	if (!m->text_len || m->text_len > sizeof(m->text) || m->text[m->text_len - 1])
		return err_set(e, -EINVAL, "a text of %u bytes", m->text_len);
	return rc ? rc
		  : start_expect(f, START_OWN,
				 (m->flags & MODULE_START_CONN ? 1 : 0) +
					 (m->flags & MODULE_START_FILES ? 1 : 0),
				 e);
}

/* ---- before the jail is closed ---- */

static int module_open(void *dev, struct helper *h, const void *start, const struct start_fds *f,
		       const char **step, struct err *e)
{
	struct module *m = dev;
	const struct module_ops *ops = m->ops;
	struct msg_start_blk blk = {.logical = BLK_SECTOR, .physical = 4096};
	struct module_said said = {.m = m};
	int rc = 0;

	memcpy(&m->start, start, sizeof(m->start));
	m->conn = m->start.flags & MODULE_START_CONN ? f->fd[START_OWN][0] : -1;
	said.conf = (struct module_conf){.target = m->start.text,
					 .ro = m->start.flags & MODULE_START_RO,
					 .queues = m->start.nqueues,
					 .setting = module_setting,
					 .file = module_file};
	*step = ops->name;
	if (m->start.flags & MODULE_START_FILES)
		rc = take_files(m, f->fd[START_OWN][f->n[START_OWN] - 1], e);
	if (rc)
		return rc;
	rc = ops->open(m, &said.conf, &m->own, e);
	if (rc)
		return rc;
	blk.head = m->start.head;
	blk.nqueues = m->start.nqueues;
	blk.limit = m->start.limit;
	memcpy(blk.serial, m->start.serial, sizeof(blk.serial));
	rc = blk_begin_disk(&m->blk, h, &blk, f, &module_engine, step, e);
	if (rc)
		return rc;
	m->page = h->port.dev_state;
	return 0;
}

static void module_rules(const void *dev, struct rule_list *l)
{
	const struct module *m = dev;

	blk_rules(&m->blk, l);
	module_calls_rules(m->start.calls, l);
}

/* ---- what the disk is ---- */

static int module_check_disk(struct module *m, struct module_disk *d, struct err *e)
{
	if (!d->size || d->size % BLK_SECTOR || d->size > INT64_MAX)
		return err_set(e, -EINVAL, "size: %llu bytes; expected a multiple of %u, and not 0",
			       (unsigned long long)d->size, BLK_SECTOR);
	if ((d->flags & MODULE_DISK_RO) && !(m->start.flags & MODULE_START_RO))
		return err_set(e, -EROFS, "it can only be read; expected ro with this disk");
	if (m->start.flags & MODULE_START_RO)
		d->flags |= MODULE_DISK_RO;
	if (!d->logical)
		d->logical = BLK_SECTOR;
	if (!d->physical)
		d->physical = d->logical > 4096 ? d->logical : 4096;
	if (!d->queues || d->queues > m->start.nqueues)
		d->queues = m->start.nqueues;
	return 0;
}

static void fill_in(struct module *m)
{
	const struct module_disk *d = &m->page->disk;
	struct msg_start_blk *c = &m->blk.conf;

	c->capacity = d->size;
	c->nqueues = d->queues;
	c->flags = BLK_DEVICE | (d->flags & MODULE_DISK_RO ? BLK_RO : 0);
	c->logical = d->logical;
	c->physical = d->physical;
	c->discard_align = d->flags & MODULE_DISK_DISCARD ? d->logical : 0;
}

/* The first process. Nothing is in the page before all is known. */
static int module_describe(struct module *m, struct err *e)
{
	struct module_disk d = {0};
	int rc;

	m->described = true;
	rc = m->ops->describe(m->own, m->conn, &d, e);
	if (!rc)
		rc = module_check_disk(m, &d, e);
	if (rc)
		return rc;
	m->page->disk = d;
	atomic_store(&m->page->lost, 0);
	atomic_store(&m->page->written, 0);
	atomic_store(&m->page->flushed, 0);
	__atomic_store_n(&m->page->described, 1, __ATOMIC_RELEASE);
	return 0;
}

/* One that follows another. */
static int module_go_on(struct module *m, struct err *e)
{
	struct module_disk d = {0};
	int rc;

	if (!(m->start.flags & MODULE_START_SAME))
		module_page_lost(m->page);
	if (m->ops->resume) {
		m->ops->resume(m->own, &m->page->disk);
		return 0;
	}
	m->described = true;
	rc = m->ops->describe(m->own, m->conn, &d, e);
	if (!rc)
		rc = module_check_disk(m, &d, e);
	if (!rc && (d.size < m->page->disk.size || d.queues < m->page->disk.queues))
		rc = err_set(e, -EINVAL, "size: %llu bytes and %u queues; it had %llu and %u",
			     (unsigned long long)d.size, d.queues,
			     (unsigned long long)m->page->disk.size, m->page->disk.queues);
	if (!rc)
		m->page->disk.size = d.size;
	return rc;
}

/* ---- control thread ---- */

static void tell_size(struct module *m, uint64_t size)
{
	m->page->disk.size = size;
	m->blk.config.capacity = size / BLK_SECTOR;
	__atomic_store_n(&m->blk.conf.capacity, size, __ATOMIC_RELAXED);
	front_config_changed(&m->blk.w.front, true);
}

static void module_event(void *dev)
{
	struct module *m = dev;
	uint64_t size = atomic_exchange(&m->grown, 0);

	worker_helper_ops.event(dev);
	if (size > m->page->disk.size)
		tell_size(m, size);
	for (unsigned i = 0; i < m->page->disk.queues; i++) {
		const struct msg_module_lane msg = {i};

		/* A full channel: the supervisor is not itself, and the lane asks again. */
		if (atomic_exchange(&m->lane[i].needs, false))
			(void)msg_send(m->blk.w.h->channel, MSG_MODULE_NEED, &msg, sizeof(msg),
				       NULL, 0);
	}
}

static int module_message(void *dev, enum msg_type type, const void *body, size_t len,
			  const int *fds, unsigned nfds)
{
	struct module *m = dev;
	struct msg_module_lane msg = {UINT32_MAX};
	int old;

	if (type == MSG_LIMIT)
		return blk_message(&m->blk, type, body, len, fds, nfds);
	if (len == sizeof(msg))
		memcpy(&msg, body, sizeof(msg));
	if (type != MSG_MODULE_PEER || nfds != 1 || msg.lane >= m->page->disk.queues ||
	    !m->ops->lane_connection) {
		for (unsigned i = 0; i < nfds; i++)
			fd_close(&(int){fds[i]});
		return -EPROTO;
	}
	old = atomic_exchange(&m->lane[msg.lane].incoming, fds[0]);
	fd_close(&old);
	lane_wake(m->lane[msg.lane].blk->l);
	return 0;
}

void module_need(struct module_lane *l)
{
	if (l->asked)
		return;
	l->asked = true;
	atomic_store(&l->needs, true);
	event_signal(l->m->blk.w.h->event_fd);
}

bool module_resize(struct module_lane *l, uint64_t size)
{
	uint64_t now = __atomic_load_n(&l->m->blk.conf.capacity, __ATOMIC_RELAXED);

	if (size < now || size % BLK_SECTOR || size > INT64_MAX)
		return false;
	if (size == now)
		return true;
	atomic_store(&l->m->grown, size);
	event_signal(l->m->blk.w.h->event_fd);
	return true;
}

void module_log(const char *fmt, ...)
{
	char text[252];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	err_clean(text);
	log_warn("%s", text);
}

uint64_t module_now(void)
{
	return clock_ns();
}

/* ---- start ---- */

static int open_own_lanes(struct module *m, struct err *e)
{
	int rc = 0;

	/* describe() has had it, or a process that goes on has it for its first lane. */
	if (!m->described && m->conn >= 0) {
		m->lane[0].incoming = m->conn;
		m->lane[0].asked = true;
	}
	for (unsigned i = 0; i < m->page->disk.queues && !rc; i++) {
		rc = m->ops->lane_open(m->own, &m->lane[i], i, &m->lane[i].own, e);
		__atomic_store_n(&m->lane[i].open, !rc, __ATOMIC_RELEASE);
	}
	return rc;
}

static int module_attach(void *dev, struct helper *h, struct err *e)
{
	struct module *m = dev;
	bool follows = h->port.resumed && m->page->described;
	int rc = follows ? module_go_on(m, e) : module_describe(m, e);

	if (!rc)
		rc = open_own_lanes(m, e);
	if (rc)
		return rc;
	fill_in(m);
	rc = blk_check_disk(&m->blk.conf, e);
	if (rc)
		return rc;
	blk_describe(&m->blk);
	m->helper_ops = worker_helper_ops;
	m->helper_ops.event = module_event;
	m->helper_ops.message = module_message;
	return helper_attach(h, &m->helper_ops, &m->blk.w, e);
}

int module_main(const struct module_ops *ops)
{
	static struct module module;

	/* Not one for each thread: a limit of memory is one of addresses. */
	(void)mallopt(M_ARENA_MAX, 1);
	module.ops = ops;
	helper_main(&(struct helper_program){
		.tag = MODULE_START,
		.memory = true,
		.start_size = sizeof(struct msg_start_module),
		.dev = &module,
		.check = module_check,
		.open = module_open,
		.rules = module_rules,
		.attach = module_attach,
		.attach_step = ops->name,
	});
}
