/* SPDX-License-Identifier: BSD-2-Clause */
/* The control thread's part of a virtio-vsock device, and its start. See vsock.h. */
#include <errno.h>
#include <linux/virtio_ids.h>
#include <string.h>

#include <insula/base.h>

#include "vsock.h"

/* ---- mail ---- */

static void deliver(struct vsockdev *d, struct vsock_mail *m)
{
	if (vsock_box_put(&d->in, m))
		event_signal(d->mail_fd);
	else
		fd_close(&m->fd);
}

/* The rest of the box is for answers. */
static void deliver_stream(struct vsockdev *d, struct vsock_mail *m)
{
	if (atomic_load(&d->in.n) < VSOCK_MAX_STREAMS)
		deliver(d, m);
	else
		fd_close(&m->fd);
}

static int on_stream(struct vsockdev *d, const void *body, size_t len, const int *fds,
		     unsigned nfds)
{
	struct msg_vsock_stream s;
	struct vsock_mail m = {.type = MSG_VSOCK_STREAM};

	if (len != sizeof(s) || nfds != 1)
		return -EPROTO;
	memcpy(&s, body, sizeof(s));
	m.port = s.port;
	m.fd = fds[0];
	deliver_stream(d, &m);
	return 0;
}

static int vsock_on_client(struct vsockdev *d, const void *body, size_t len, const int *fds,
			   unsigned nfds)
{
	struct vsock_mail m = {.type = MSG_VSOCK_CLIENT};

	(void)body;
	if (len || nfds != 1)
		return -EPROTO;
	m.fd = fds[0];
	deliver_stream(d, &m);
	return 0;
}

static int on_connected(struct vsockdev *d, const void *body, size_t len, const int *fds,
			unsigned nfds)
{
	struct msg_vsock_connected a;
	struct vsock_mail m = {.type = MSG_VSOCK_CONNECTED, .fd = -1};

	if (len != sizeof(a))
		return -EPROTO;
	memcpy(&a, body, sizeof(a));
	if (a.error > 0 || nfds != (a.error ? 0u : 1u))
		return -EPROTO;
	m.id = a.id;
	m.error = a.error;
	if (nfds)
		m.fd = fds[0];
	deliver(d, &m);
	return 0;
}

static int message(void *dev, enum msg_type type, const void *body, size_t len, const int *fds,
		   unsigned nfds)
{
	int rc = -EPROTO;

	if (type == MSG_VSOCK_STREAM)
		rc = on_stream(dev, body, len, fds, nfds);
	else if (type == MSG_VSOCK_CLIENT)
		rc = vsock_on_client(dev, body, len, fds, nfds);
	else if (type == MSG_VSOCK_CONNECTED)
		rc = on_connected(dev, body, len, fds, nfds);
	for (unsigned i = 0; rc && i < nfds; i++) {
		int fd = fds[i];

		fd_close(&fd);
	}
	return rc;
}

static void vsock_event(void *dev)
{
	struct vsockdev *d = dev;
	struct vsock_mail m;

	while (vsock_box_get(&d->out, &m)) {
		const struct msg_vsock_connect q = {.id = m.id, .port = m.port};

		/* Whoever does not read it has ended; the loop is about to see that. */
		(void)msg_send(d->w.h->channel, MSG_VSOCK_CONNECT, &q, sizeof(q), NULL, 0);
	}
	worker_helper_ops.event(dev);
}

/* What all devices with an I/O thread do, with the two functions above. */
static struct helper_ops make_ops(void)
{
	struct helper_ops ops = worker_helper_ops;

	ops.event = vsock_event;
	ops.message = message;
	return ops;
}

/* The driver has reset the device, and knows that its connections are gone. The I/O thread is
 * quiet.
 */
static void model_reset(void *dev)
{
	struct vsockdev *d = dev;

	d->reset = VSOCK_RESET_NONE;
}

/* ---- start ---- */

int vsock_check_conf(const struct msg_start_vsock *m, struct err *e)
{
	if (m->guest_cid < VSOCK_MIN_CID || m->guest_cid > VSOCK_MAX_CID)
		return err_set(e, -EINVAL, "guest CID %u", m->guest_cid);
	if (m->max_conns == 0 || m->max_conns > VSOCK_MAX_CONNS)
		return err_set(e, -EINVAL, "%u connections", m->max_conns);
	if (m->flags & ~(uint32_t)(VSOCK_LISTENS | VSOCK_REACHES) && m->flags != VSOCK_VHOST)
		return err_set(e, -EINVAL, "flags %#x", m->flags);
	return 0;
}

static int open_table(struct vsockdev *d, struct err *e)
{
	struct vconns *t = &d->conns;
	uint32_t port;

	t->ops = &vsock_host_ops;
	t->ctx = d;
	t->guest_cid = d->conf.guest_cid;
	t->max = d->conf.max_conns;
	t->reachable = d->conf.flags & (VSOCK_LISTENS | VSOCK_REACHES);
	/* All rings at once, so that nothing is allocated later; a page that no ring has needed
	 * costs nothing. */
	t->rings = reserve_memory(vconn_rings_size(t->max), true);
	if (!t->rings)
		return err_set(e, -ENOMEM, "memory for streams");
	vconn_init(t);
	/* Not where the last process began: the driver knows a socket by its ports until its
	 * program has closed it, and that may be long after it was told of the reset. */
	random_bytes(&port, sizeof(port));
	t->next_port = VCONN_FIRST_PORT + port % (VCONN_LAST_PORT - VCONN_FIRST_PORT);
	return 0;
}

static int open_events(struct vsockdev *d, struct err *e)
{
	vsock_box_init(&d->in);
	vsock_box_init(&d->out);
	d->mail_fd = event_create();
	return d->mail_fd < 0 ? err_sys(e, d->mail_fd, "event") : vsock_host_open(d, e);
}

void vsock_describe(struct vsockdev *d)
{
	worker_describe(&d->w, VIRTIO_ID_VSOCK, 0, VSOCK_QUEUES, &d->config, sizeof(d->config));
	d->w.model.reset = model_reset;
	if (d->w.h->port.resumed && (d->w.front.v.st->status & VIRTIO_CONFIG_S_DRIVER_OK))
		d->reset = VSOCK_RESET_OWED;
}

int vsockdev_open(struct vsockdev *d, struct helper *h, const struct msg_start_vsock *m,
		  const struct start_fds *f, const char **step, struct err *e)
{
	bool listens = m->flags & VSOCK_LISTENS;
	int rc;

	d->conf = *m;
	d->listen_fd = listens ? f->fd[START_OWN][0] : -1;
	d->config.guest_cid = m->guest_cid;
	d->ops = make_ops();
	rc = worker_open(&d->w, h, &m->head.mem, f, VSOCK_TAG, step, e);
	if (rc)
		return rc;
	if (m->flags & VSOCK_VHOST)
		return vsock_vhost_open(d, f->fd[START_OWN][0], step, e);
	*step = "streams";
	rc = open_table(d, e);
	if (!rc)
		rc = open_events(d, e);
	if (rc)
		return rc;
	*step = "thread";
	rc = worker_begin(&d->w, vsock_io_main, &(void *){d}, e);
	if (rc)
		return rc;
	vsock_describe(d);
	return 0;
}
