/* SPDX-License-Identifier: BSD-2-Clause */
/* A vhost-user device: the start message of insula-vhost, and its connections. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/log.h>

#include "dev_virtio.h"
#include "supervisor/backing/vhost.h"
#include "supervisor/snapshot/held.h"

static int vhost_start(struct device *d, struct device_start *s, struct err *e)
{
	struct vhost_back *b = d->back.vhost;
	struct msg_start_vhost m = {
		.device_id = b->device_id, .nqueues = b->nqueues, .config_len = b->config_len};
	bool had;

	memcpy(m.tag, b->tag, strnlen(b->tag, sizeof(m.tag)));
	memcpy(m.mac, b->mac, sizeof(m.mac));
	d->child.os.gives = true;
	m.flags = (b->always_flushes ? VHOST_NO_WCE : 0u) |
		  (b->keeps_account ? VHOST_KEEPS_ACCOUNT : 0u);
	b->ready_by_ns = 0;
	b->loads = held_is_to_load(d);
	s->once[0] = vhost_stream(b, &had, e);
	if (s->once[0] < 0)
		return s->once[0];
	if (b->away)
		m.flags |= had ? VHOST_AWAY | VHOST_HAD : VHOST_AWAY;
	if (b->away && !had)
		log_warn("%s: nobody is at %s: it waits for a back end", d->desc.name, b->where);
	if (b->inflight >= 0) {
		m.flags |= VHOST_INFLIGHT;
		m.inflight = b->region;
	}
	if (b->loads) {
		m.flags |= VHOST_LOAD;
		m.held = d->held->len;
	}
	device_word(s, &m, sizeof(m));
	device_add(s, s->once[0]);
	if (b->inflight >= 0)
		device_add(s, b->inflight);
	if (b->loads)
		device_add(s, d->held->fd);
	return 0;
}

/* The back end has got what it goes on from. */
static void vhost_serves(struct device *d, struct loop *l, bool serves)
{
	(void)l;
	if (!serves || !d->back.vhost->loads)
		return;
	d->back.vhost->loads = false;
	held_free(d);
}

/* Its memory for what the back end holds. */
static uint64_t vhost_fsize(const struct device *d)
{
	(void)d;
	return VHOST_HELD_MAX;
}

/* The helper has lost its back end, and lives on. */
static bool vhost_has_lost(struct device *d)
{
	if (!vhost_lost(d->back.vhost))
		return false;
	log_warn("%s: the connection to %s has ended: the guest's requests wait", d->desc.name,
		 d->back.vhost->where);
	return true;
}

static bool vhost_message(struct vm *vm, struct device *d, enum msg_type t, const void *body,
			  size_t len)
{
	struct vhost_inflight region;
	int fd = d->child.os.came;

	(void)vm;
	if (t == MSG_VHOST_LOST && !len && fd < 0)
		return vhost_has_lost(d);
	if (t != MSG_VHOST_INFLIGHT || len != sizeof(region))
		return false;
	memcpy(&region, body, sizeof(region));
	d->child.os.came = -1;
	return vhost_keep(d->back.vhost, &region, fd);
}

static uint64_t vhost_device_due(const struct device *d)
{
	const struct vhost_back *b = d->back.vhost;
	/* A new helper gets its connection with the start, or waits for it. */
	bool hears = d->child.state == CHILD_STARTING || d->child.state == CHILD_READY;
	uint64_t due = hears ? vhost_due(b) : 0;

	return d->child.state == CHILD_STARTING ? loop_sooner(due, b->ready_by_ns) : due;
}

/* It would wait as long as its server is silent, and the VM with it. */
static bool vhost_waits_in_vain(struct vhost_back *b)
{
	if (!b->ready_by_ns || clock_ns() < b->ready_by_ns)
		return false;
	b->ready_by_ns = 0;
	snprintf(b->peer->last, sizeof(b->peer->last), "it has no answer from its server in time");
	child_shoot(b->peer);
	return true;
}

static void vhost_tend(struct device *d)
{
	struct vhost_back *b = d->back.vhost;
	struct err e;
	int fd;

	if (d->child.state == CHILD_STARTING && vhost_waits_in_vain(b))
		return;
	fd = vhost_retry(b, &e);
	if (fd < 0) {
		log_debug("%s: %s", d->desc.name, e.text);
		return;
	}
	/* A helper that has just died does not get it; its successor gets one of its own. One that
	 * lives and whose channel does not take it gets the next one. */
	if (child_send(&d->child, MSG_VHOST_PEER, NULL, 0, &fd, 1))
		(void)vhost_lost(b);
	else
		log_info("%s: connected to %s", d->desc.name, b->where);
	close(fd);
}

static void vhost_identify(const struct device *d, struct device_desc *desc)
{
	describe_virtio_id(desc, d->back.vhost->device_id);
}

static struct child *vhost_peer(const struct device *d)
{
	return d->back.vhost->peer;
}

static bool vhost_peer_began(const struct device *d)
{
	return d->back.vhost->peers == 1;
}

const struct device_class device_vhost = {
	.program = "insula-vhost",
	.kind = "device",
	.tag = VHOST_START,
	.memory = true,
	.virtio = true,
	.threads = 2, /* control */
	.nofile = 64,
	.describe = dev_virtio_describe,
	.identify = vhost_identify,
	.start = vhost_start,
	.message = vhost_message,
	.due = vhost_device_due,
	.tend = vhost_tend,
	.peer = vhost_peer,
	.peer_began = vhost_peer_began,
	.serves = vhost_serves,
	.fsize = vhost_fsize,
	.unsaved = "what its back end holds cannot be part of a snapshot; expected one that can "
		   "say it (DEVICE_STATE, which virtiofsd of Debian 13 has)",
	.idle_saved = true,
	.back_end = true,
	.stats = &stats_vhost,
};
