/* SPDX-License-Identifier: BSD-2-Clause */
/* The driver hears that its connections are gone (virtio 1.2, 5.10.6.7): the I/O thread's part of
 * the event queue. See vsock.h. */
#include "devices/iov.h"
#include "vsock.h"

static void set_reset(struct vsockdev *d, enum vsock_reset to)
{
	d->reset = to;
	d->conns.cut = to != VSOCK_RESET_NONE;
}

/* A driver that has never offered a buffer for events cannot be told; one that has just begun need
 * not be. */
static bool hears_events(const struct virtqueue *q)
{
	return q->num && (vq_offered(q) || q->used_idx);
}

/* What the last process has sent may open a connection in the guest. If the driver saw that after
 * the event, the connection would stay. */
static bool has_looked(const struct vsockdev *d)
{
	const struct virtqueue *rx = d->rx;

	return !rx->num || vq_seen(rx) || d->conns.now >= d->tell_by;
}

static void tell_reset(struct vsockdev *d)
{
	const struct virtio_vsock_event ev = {.id = VIRTIO_VSOCK_EVENT_TRANSPORT_RESET};
	struct virtqueue *q = &d->w.front.v.vq[VSOCK_EVENT];
	struct vq_chain c = {.iov = d->iov};
	int rc = vq_next(q, &c);

	if (rc == 0)
		return;
	if (rc < 0 || c.nread || c.write_len < sizeof(ev)) {
		lane_fault(d->w.lane,
			   rc < 0 ? q->why : "an event buffer without room for an event");
		return;
	}
	iov_put(c.iov, c.nwrite, 0, &ev, sizeof(ev));
	vq_push(q, c.head, sizeof(ev));
	d->told_at = vq_offered(q); /* before the event is published */
	set_reset(d, VSOCK_RESET_TOLD);
}

void vsock_event_begin(struct vsockdev *d, const struct virtqueue *rx)
{
	d->rx = rx;
	d->tell_by = d->conns.now + VSOCK_LOOK_NS;
	/* Before the first packet: nobody is to be told, so none of them goes unanswered. */
	if (d->reset == VSOCK_RESET_OWED && !hears_events(&d->w.front.v.vq[VSOCK_EVENT]))
		d->reset = VSOCK_RESET_NONE;
	set_reset(d, d->reset);
}

void vsock_event_serve(struct vsockdev *d)
{
	struct virtqueue *q = &d->w.front.v.vq[VSOCK_EVENT];

	if (d->reset == VSOCK_RESET_OWED && !hears_events(q))
		set_reset(d, VSOCK_RESET_NONE);
	else if (d->reset == VSOCK_RESET_OWED && has_looked(d))
		tell_reset(d);
	else if (d->reset == VSOCK_RESET_TOLD && vq_offered(q) != d->told_at)
		set_reset(d, VSOCK_RESET_NONE);
}

bool vsock_event_arm(struct vsockdev *d)
{
	struct virtqueue *q = &d->w.front.v.vq[VSOCK_EVENT];

	if (d->reset == VSOCK_RESET_TOLD)
		return vq_arm_past(q, d->told_at);
	return d->reset == VSOCK_RESET_OWED && has_looked(d) && lane_arm(d->w.lane, VSOCK_EVENT);
}

int vsock_event_ms(const struct vsockdev *d, int ms)
{
	return d->reset == VSOCK_RESET_OWED && !has_looked(d) ? VSOCK_LOOK_MS : ms;
}
