/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A vsock device whose streams are the kernel's (VSOCK_VHOST): vhost-vsock takes packets out of the
 * two rings for them and gives them to sockets of the host (AF_VSOCK), and the other way round. The
 * supervisor has told it the CID. This process answers registers and has the event queue. See
 * devices/kvhost.h.
 *
 * The kernel answers a packet of a connection that it does not know with a reset, and the streams
 * of the last process are such: it may begin only when the driver knows that they are gone. So the
 * I/O thread says when the rings are due, and the control thread hands them over.
 */
#include <errno.h>
#include <linux/vhost.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <poll.h>
#include <sys/ioctl.h>

#include <insula/base.h>

#include "vsock.h"

#define BIT(n) (UINT64_C(1) << (n))
#define RING_FEATURES \
	(BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_RING_F_INDIRECT_DESC) | BIT(VIRTIO_RING_F_EVENT_IDX))
#define RINGS 2u /* VSOCK_RX, VSOCK_TX */

/* ---- I/O thread ---- */

/* The driver has taken the queues away. The streams are the kernel's, and live on. */
static void vhost_be_quiet(struct vsockdev *d)
{
	if (!lane_commanded(d->w.lane))
		return;
	if (d->reset != VSOCK_RESET_NONE)
		d->reset = VSOCK_RESET_OWED;
	lane_calm(d->w.lane);
}

static void vhost_begin(struct vsockdev *d)
{
	const struct virtio *v = &d->w.front.v;

	d->started = d->w.lane->seen;
	d->due_said = false;
	vq_watch(&d->lent_rx, &v->st->q[VSOCK_RX], v->gm, v->st->driver_features);
	vsock_event_begin(d, &d->lent_rx);
}

static void vhost_turn(struct vsockdev *d)
{
	d->conns.now = clock_ns();
	if (!lane_runs(d->w.lane)) {
		vhost_be_quiet(d);
		return;
	}
	if (d->started != d->w.lane->seen)
		vhost_begin(d);
	vsock_event_serve(d);
	lane_publish(d->w.lane);
	if (d->reset != VSOCK_RESET_NONE || d->due_said || d->w.lane->broken)
		return;
	d->due_said = true;
	atomic_store(&d->due, d->started);
	event_signal(d->w.h->event_fd);
}

static void vhost_rest(struct vsockdev *d)
{
	struct pollfd p[1];
	int ms = -1;

	if (lane_runs(d->w.lane)) {
		/* A start that has come since the turn, or something for it. */
		if (d->started != d->w.lane->seen || vsock_event_arm(d))
			return;
		ms = vsock_event_ms(d, -1);
	} else if (lane_commanded(d->w.lane)) {
		return;
	}
	kvhost_wait(&d->vhost, 1, d->w.lane, p, 0, ms);
}

static void *vsock_vhost_main(void *arg)
{
	struct vsockdev *d = arg;

	lane_born(d->w.lane);
	for (;;) {
		vhost_turn(d);
		lane_freeze(d->w.lane);
		vhost_rest(d);
	}
	return NULL;
}

/* ---- control thread ---- */

static int set_running(const struct vsockdev *d, int on)
{
	return ioctl(d->vhost.fd, VHOST_VSOCK_SET_RUNNING, &on) ? -errno : 0;
}

static int hand_over(const struct vsockdev *d, const char **what)
{
	int rc = kvhost_features(&d->vhost, what);

	for (unsigned i = 0; i < RINGS && !rc; i++)
		rc = kvhost_ring(&d->vhost, i, what);
	if (!rc) {
		*what = "VSOCK_SET_RUNNING";
		rc = set_running(d, 1);
	}
	for (unsigned i = 0; i < RINGS && !rc; i++)
		rc = kvhost_kick(&d->vhost, i, what);
	return rc;
}

static void vsock_vhost_event(void *dev)
{
	struct vsockdev *d = dev;
	uint32_t due = atomic_exchange(&d->due, 0);
	const char *what;
	int rc;

	worker_helper_ops.event(dev);
	/* Of a start that is over by now: another one comes. */
	if (!due || due != atomic_load(&d->w.want) || !d->w.front.v.running)
		return;
	/* The kernel serves both or none. */
	if (!kvhost_is_ready(&d->vhost, VSOCK_RX) || !kvhost_is_ready(&d->vhost, VSOCK_TX))
		return;
	rc = hand_over(d, &what);
	if (rc)
		kvhost_failed(&d->vhost, what, rc);
}

static uint32_t model_lent(const void *dev)
{
	(void)dev;
	return 1u << VSOCK_RX | 1u << VSOCK_TX;
}

static void model_stop_vhost(void *dev)
{
	struct vsockdev *d = dev;

	/* Returns when the worker has let go of the rings. */
	kvhost_stopped(&d->vhost, set_running(d, 0));
	worker_stop(dev);
}

static void model_vector_vhost(void *dev, unsigned i)
{
	const struct vsockdev *d = dev;

	kvhost_vector(&d->vhost, i);
}

/* ---- start ---- */

int vsock_vhost_open(struct vsockdev *d, int fd, const char **step, struct err *e)
{
	int rc;

	*step = "vhost-vsock";
	rc = kvhost_open(&d->vhost, "vhost-vsock", &d->w, fd, VSOCK_RX, RINGS, RING_FEATURES, e);
	if (rc)
		return rc;
	d->w.lane->queues = 1u << VSOCK_EVENT;
	*step = "thread";
	rc = worker_begin(&d->w, vsock_vhost_main, &(void *){d}, e);
	if (rc)
		return rc;
	vsock_describe(d);
	d->w.model.lent = model_lent;
	d->w.model.stop = model_stop_vhost;
	d->w.model.vector = model_vector_vhost;
	d->ops = worker_helper_ops;
	d->ops.event = vsock_vhost_event;
	return 0;
}

void vsock_vhost_rules(const struct vsockdev *d, struct rule_list *l)
{
	worker_rules(&d->w, l, true);
	kvhost_rules(&d->vhost, l);
	rule_ioctl(l, d->vhost.fd, VHOST_VSOCK_SET_RUNNING, "begin to serve both rings, or stop");
}
