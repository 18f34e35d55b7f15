/* SPDX-License-Identifier: BSD-2-Clause */
/* The control thread's part of a virtio-vsock device, and its start. See vsock.h. */
#include <errno.h>
#include <linux/virtio_ids.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <insula/base.h>

#include "vsock.h"

#define FIXED_FDS 4 /* memory, page, call, irq; then the listening socket, the kicks */

/* ---- mail ---- */

static void deliver(struct vsockdev *d, const struct vsock_mail *m)
{
	if (vsock_box_put(&d->in, m))
		event_signal(d->mail_fd);
	else if (m->fd >= 0)
		close(m->fd);
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
	/* The rest of the box is for answers. */
	if (atomic_load(&d->in.n) < VSOCK_MAX_STREAMS)
		deliver(d, &m);
	else
		close(m.fd);
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
	else if (type == MSG_VSOCK_CONNECTED)
		rc = on_connected(dev, body, len, fds, nfds);
	for (unsigned i = 0; rc && i < nfds; i++)
		close(fds[i]);
	return rc;
}

static void event(void *dev)
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

	ops.event = event;
	ops.message = message;
	return ops;
}

/* ---- start ---- */

int vsock_check_conf(const struct msg_start_vsock *m, struct err *e)
{
	if (m->guest_cid < VSOCK_MIN_CID || m->guest_cid > VSOCK_MAX_CID)
		return err_set(e, -EINVAL, "guest CID %u", m->guest_cid);
	if (m->max_conns == 0 || m->max_conns > VSOCK_MAX_CONNS)
		return err_set(e, -EINVAL, "%u connections", m->max_conns);
	if (m->flags & ~(uint32_t)VSOCK_LISTENS)
		return err_set(e, -EINVAL, "flags %#x", m->flags);
	if (m->log_level > LOG_LVL_DEBUG)
		return err_set(e, -EINVAL, "log level %u", m->log_level);
	return 0;
}

static int open_table(struct vsockdev *d, struct err *e)
{
	struct vconns *t = &d->conns;

	t->ops = &vsock_host_ops;
	t->ctx = d;
	t->guest_cid = d->conf.guest_cid;
	t->max = d->conf.max_conns;
	t->reachable = d->conf.flags & VSOCK_LISTENS;
	/* All rings at once, so that nothing is allocated later; a page that no ring has needed
	 * costs nothing. */
	t->rings = mmap(NULL, VCONN_RINGS_SIZE, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (t->rings == MAP_FAILED)
		return err_sys(e, -errno, "memory for streams");
	vconn_init(t);
	return 0;
}

static int open_events(struct vsockdev *d, struct err *e)
{
	int rc = 0;

	vsock_box_init(&d->in);
	vsock_box_init(&d->out);
	d->ep_fd = epoll_create1(EPOLL_CLOEXEC);
	d->mail_fd = event_create();
	if (d->ep_fd < 0 || d->mail_fd < 0)
		return err_set(e, -EMFILE, "epoll, eventfd");
	for (unsigned i = 0; i < VSOCK_QUEUES && !rc; i++)
		rc = vsock_poll_add(d, VSOCK_ON_KICK, d->w.kick_fd[i]);
	if (!rc)
		rc = vsock_poll_add(d, VSOCK_ON_CTL, d->w.ctl_fd);
	if (!rc)
		rc = vsock_poll_add(d, VSOCK_ON_MAIL, d->mail_fd);
	if (!rc && d->listen_fd >= 0)
		rc = vsock_poll_add(d, VSOCK_ON_CLIENT, d->listen_fd);
	return rc ? err_sys(e, rc, "epoll") : 0;
}

int vsockdev_open(struct vsockdev *d, struct helper *h, const struct msg_start_vsock *m,
		  const int *fds, const char **step, struct err *e)
{
	bool listens = m->flags & VSOCK_LISTENS;
	int rc;

	d->conf = *m;
	d->listen_fd = listens ? fds[FIXED_FDS] : -1;
	d->config.guest_cid = m->guest_cid;
	d->ops = make_ops();
	rc = worker_open(&d->w, h, fds[0], m->mem_size, fds[1], fds[2], fds[3],
			 &fds[FIXED_FDS + listens], VSOCK_QUEUES, VSOCK_TAG, step, e);
	if (rc)
		return rc;
	*step = "streams";
	rc = open_table(d, e);
	if (!rc)
		rc = open_events(d, e);
	if (rc)
		return rc;
	*step = "thread";
	rc = worker_begin(&d->w, vsock_io_main, d, e);
	if (rc)
		return rc;
	worker_describe(&d->w, VIRTIO_ID_VSOCK, 0, VSOCK_QUEUES, &d->config, sizeof(d->config));
	d->resumed = h->port.resumed && (d->w.mmio.v.st->status & VIRTIO_CONFIG_S_DRIVER_OK);
	return 0;
}

void vsock_rules(const struct vsockdev *d, struct rule_list *l)
{
	worker_rules(&d->w, l, false);
	rule_fd(l, SYS_write, d->mail_fd, "mail for the I/O thread");
	rule_fd(l, SYS_epoll_wait, d->ep_fd, "I/O thread: kicks, commands, mail, streams");
	rule_fd(l, SYS_epoll_pwait, d->ep_fd, "the same, as some C libraries call it");
	rule_fd(l, SYS_epoll_ctl, d->ep_fd, "streams that come and go");
	rule_any(l, SYS_readv, "what the host's ends say; carries no descriptors");
	rule_any(l, SYS_writev, "what the guest says; carries no descriptors");
	rule_any(l, SYS_shutdown, "one direction of a stream");
	rule_any(l, SYS_close, "streams that have ended");
	rule_any(l, SYS_madvise, "give back the memory of their rings");
	if (d->listen_fd >= 0)
		rule_fd(l, SYS_accept4, d->listen_fd, "clients of the host");
}
