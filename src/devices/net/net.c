/* SPDX-License-Identifier: BSD-2-Clause */
/* The control thread's part of a virtio-net device. See net.h. */
#include <errno.h>
#include <linux/virtio_ids.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <insula/base.h>

#include "net.h"

#define BIT(n) (UINT64_C(1) << (n))

/* ---- what the device is ---- */

static unsigned nqueues(const struct msg_start_net *m)
{
	return 2 * m->npairs + 1;
}

int net_check_conf(const struct msg_start_net *m, struct err *e)
{
	if (!net_backing_find(m->kind))
		return err_set(e, -EINVAL, "unknown backing %u", m->kind);
	if (m->npairs == 0 || m->npairs > NET_MAX_PAIRS || (m->kind != NET_TAP && m->npairs > 1))
		return err_set(e, -EINVAL, "%u queue pairs", m->npairs);
	if (m->nthreads == 0 || m->nthreads > m->npairs)
		return err_set(e, -EINVAL, "%u threads for %u pairs", m->nthreads, m->npairs);
	if (m->kind != NET_TAP && m->tun_offloads)
		return err_set(e, -EINVAL, "offloads %#x of a stream", m->tun_offloads);
	if (m->flags & ~(NET_METADATA | NET_POLICED |
			 (m->kind == NET_TAP ? (unsigned)NET_VHOST : NET_AWAY | NET_NO_LOOPBACK)))
		return err_set(e, -EINVAL, "flags %#x", m->flags);
	if ((m->flags & NET_VHOST) && ((m->flags & (NET_METADATA | NET_POLICED)) ||
				       m->nthreads > 1 || m->limit.rate || m->limit.ops))
		return err_set(e, -EINVAL, "more than the kernel does for a card: flags %#x",
			       m->flags);
	if (m->mtu && (m->mtu < NET_MIN_MTU || m->mtu > NET_MAX_MTU))
		return err_set(e, -EINVAL, "MTU %u", m->mtu);
	if (m->mac[0] & 1)
		return err_set(e, -EINVAL, "a multicast MAC address");
	if (m->limit.rate > LIMIT_MOST || m->limit.ops > LIMIT_MOST)
		return err_set(e, -EINVAL, "limit of %llu bytes and %llu frames a second",
			       (unsigned long long)m->limit.rate, (unsigned long long)m->limit.ops);
	return 0;
}

uint64_t net_features(const struct msg_start_net *m)
{
	uint64_t f = BIT(VIRTIO_NET_F_MAC) | BIT(VIRTIO_NET_F_STATUS) |
		     BIT(VIRTIO_NET_F_MRG_RXBUF) | BIT(VIRTIO_NET_F_CTRL_VQ) |
		     BIT(VIRTIO_NET_F_CTRL_RX) | BIT(VIRTIO_NET_F_CTRL_MAC_ADDR) |
		     net_tap_features(m->tun_offloads);

	if (m->mtu)
		f |= BIT(VIRTIO_NET_F_MTU);
	if (m->npairs > 1)
		f |= BIT(VIRTIO_NET_F_MQ);
	if (f & BIT(VIRTIO_NET_F_GUEST_CSUM))
		f |= BIT(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS);
	return f;
}

static void fill_config(struct net *n)
{
	n->config = (struct virtio_net_config){
		.status = atomic_load(&n->link_down) ? 0 : VIRTIO_NET_S_LINK_UP,
		.max_virtqueue_pairs = (uint16_t)n->conf.npairs,
		.mtu = (uint16_t)n->conf.mtu,
	};
	memcpy(n->config.mac, n->st->valid ? n->st->mac : n->conf.mac, sizeof(n->config.mac));
}

/* ---- between the threads ---- */

static void model_reset(void *dev)
{
	struct net *n = dev;

	memset(n->st, 0, sizeof(*n->st));
	fill_config(n);
	front_config_changed(&n->w.front, false);
}

static void net_event(void *dev)
{
	struct net *n = dev;
	uint32_t news = atomic_exchange(&n->told, 0);

	worker_helper_ops.event(dev);
	if (!news)
		return;
	net_guard_say(n, news);
	news &= NET_NEWS_MAC | NET_NEWS_LINK | NET_NEWS_LOST;
	if (!news)
		return;
	fill_config(n);
	if ((news & NET_NEWS_LINK) && n->conf.kind == NET_TAP)
		log_warn("the TAP interface has been removed: the link is down");
	front_config_changed(&n->w.front, news & NET_NEWS_LINK);
	if (news & NET_NEWS_LOST) {
		n->lost = true;
		/* If it cannot be said, the supervisor is gone, and the loop sees that. */
		(void)msg_send(n->w.h->channel, MSG_NET_LOST, NULL, 0, NULL, 0);
	}
}

static int next_stream(struct net *n, size_t len, const int *fds, unsigned nfds)
{
	if (len || nfds != 1 || !n->lost) {
		for (unsigned i = 0; i < nfds; i++)
			close(fds[i]);
		return -EPROTO;
	}
	n->lost = false;
	atomic_store(&n->next, fds[0] + 1);
	lane_wake(n->lane[0].l);
	return 0;
}

static int message(void *dev, enum msg_type type, const void *body, size_t len, const int *fds,
		   unsigned nfds)
{
	struct net *n = dev;

	if (type == MSG_NET_PEER)
		return next_stream(n, len, fds, nfds);
	for (unsigned i = 0; i < nfds; i++)
		close(fds[i]);
	if (nfds || net_is_vhost(n))
		return -EPROTO;
	if (type == MSG_NET_POLICY && len == sizeof(struct net_policy))
		return net_guard_set(n, body);
	if (type != MSG_LIMIT || len != sizeof(struct msg_limit))
		return -EPROTO;
	net_limits_set(n, body);
	return 0;
}

/* ---- start ---- */

/* Anonymous memory costs nothing until it is touched. */
static void *reserve(size_t len)
{
	void *p = mmap(NULL, len, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

static int get_memory(struct net *n, struct err *e)
{
	n->rx = reserve(n->conf.npairs * sizeof(*n->rx));
	n->tx = reserve(n->conf.npairs * sizeof(*n->tx));
	if (!n->rx || !n->tx)
		return err_set(e, -ENOMEM, "out of memory");
	return 0;
}

static int open_backing(struct net *n, const int *fds, struct err *e)
{
	bool stream = n->conf.kind == NET_STREAM;

	n->lost = n->conf.flags & NET_AWAY;
	atomic_store(&n->link_down, n->lost);
	n->nbackings = n->conf.npairs;
	n->metadata = NULL;
	if (n->conf.flags & NET_METADATA) {
		n->metadata = &n->backing[n->nbackings];
		*n->metadata = (struct net_backing){.ops = &net_metadata, .fd = fds[n->nbackings]};
		n->nbackings++;
	}
	for (unsigned i = 0; i < n->conf.npairs; i++) {
		struct net_backing *b = &n->backing[i];

		*b = (struct net_backing){.ops = net_backing_find(n->conf.kind),
					  .fd = fds[i],
					  .dead = n->conf.flags & NET_AWAY,
					  .no_loopback = n->conf.flags & NET_NO_LOOPBACK};
		if (!stream)
			continue;
		b->in = reserve(NET_STREAM_IN);
		b->out = reserve(NET_STREAM_OUT);
		if (!b->in || !b->out)
			return err_set(e, -ENOMEM, "out of memory");
	}
	return 0;
}

/* The driver is there, and no lane runs. */
static void model_start(void *dev)
{
	net_prepare(dev);
	worker_start(dev);
}

static void model_start_vhost(void *dev)
{
	struct net *n = dev;
	int rc;

	net_prepare(n);
	rc = net_vhost_queues(n, n->st->npairs);
	worker_start(dev);
	net_vhost_start(n, rc);
}

static void model_stop_vhost(void *dev)
{
	net_vhost_stop(dev);
	worker_stop(dev);
}

static void model_vector_vhost(void *dev, unsigned i)
{
	const struct net *n = dev;

	for (unsigned p = 0; p < n->npairs; p++)
		kvhost_vector(&n->vhost[p], i);
}

static void net_describe(struct net *n)
{
	struct net_page *page = n->w.h->port.dev_state;

	n->st = &page->net;
	if (!n->w.h->port.resumed)
		memset(n->st, 0, sizeof(*n->st));
	fill_config(n);
	worker_describe(&n->w, VIRTIO_ID_NET, net_features(&n->conf), nqueues(&n->conf), &n->config,
			sizeof(n->config));
	n->w.model.start = model_start;
	n->w.model.reset = model_reset;
	if (net_is_vhost(n)) {
		n->w.model.lent = net_vhost_lent;
		n->w.model.start = model_start_vhost;
		n->w.model.stop = model_stop_vhost;
		n->w.model.vector = model_vector_vhost;
	}
	n->ops = worker_helper_ops;
	n->ops.event = net_event;
	n->ops.message = message;
}

static int open_lanes(struct net *n, struct err *e)
{
	void *arg[NET_MAX_PAIRS];
	int rc = worker_lanes(&n->w, n->nlanes, e);

	for (unsigned i = 0; i < n->nlanes; i++) {
		net_lane_init(n, i);
		arg[i] = &n->lane[i];
	}
	return rc ? rc : worker_begin(&n->w, net_io_main, arg, e);
}

int net_open(struct net *n, struct helper *h, const struct msg_start_net *m,
	     const struct start_fds *f, const char **step, struct err *e)
{
	int rc;

	memset(n, 0, sizeof(*n));
	n->conf = *m;
	n->nlanes = m->nthreads;
	net_limits_init(n);
	net_guard_init(n);
	rc = worker_open(&n->w, h, &m->head.mem, f, NET_TAG, step, e);
	if (rc)
		return rc;
	*step = "memory";
	rc = get_memory(n, e);
	if (!rc)
		rc = open_backing(n, f->fd[START_OWN], e);
	if (rc)
		return rc;
	if (net_is_vhost(n)) {
		*step = "vhost-net";
		rc = net_vhost_open(n, &f->fd[START_OWN][n->nbackings], e);
		if (rc)
			return rc;
	}
	net_describe(n);
	*step = "thread";
	return open_lanes(n, e);
}

void net_rules(const struct net *n, struct rule_list *l)
{
	worker_rules(&n->w, l, true);
	if (net_is_vhost(n)) {
		net_vhost_rules(n, l);
		return;
	}
	for (unsigned i = 0; i < n->nbackings; i++)
		n->backing[i].ops->rules(&n->backing[i], l);
}
