/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The pair of a card that the kernel's vhost-net serves (NET_VHOST): from the start of the driver to
 * its end a worker of the kernel's takes frames out of the rings and gives them to the TAP, and the
 * other way round. This process answers registers and commands.
 *
 * Before the jail is sealed it says whose memory the worker sees (its own: guest memory, as it is
 * mapped here). After that it can say of the rings what the driver has said of them, and which
 * events are their doorbells and interrupts.
 *
 * vhost-net answers in order, and has answered all that it has taken when it is stopped, or closed
 * by our death: a descriptor is nobody else's, so it is closed before the next process starts. So a
 * ring goes on at used.idx, and the page needs no record of what is in flight.
 */
#include <errno.h>
#include <linux/if_tun.h>
#include <linux/vhost.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

#include <insula/base.h>

#include "net.h"

#define BIT(n) (UINT64_C(1) << (n))
/* What of the features is the worker's; the others are the TAP's and ours. */
#define RING_FEATURES                                                 \
	(BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_RING_F_INDIRECT_DESC) | \
	 BIT(VIRTIO_RING_F_EVENT_IDX) | BIT(VIRTIO_NET_F_MRG_RXBUF))
#define USED_IDX 2u /* virtio 1.2, 2.7.8 */
#define NQUEUES 2u

/* ---- before the jail is sealed ---- */

static int net_vhost_memory(const struct net *n, struct err *e)
{
	_Alignas(struct vhost_memory)
		uint8_t room[sizeof(struct vhost_memory) +
			     MEMMAP_MAX * sizeof(struct vhost_memory_region)] = {0};
	struct vhost_memory *m = (struct vhost_memory *)(void *)room;
	const struct guestmem *gm = &n->w.gm;

	m->nregions = gm->nregions;
	for (unsigned i = 0; i < gm->nregions; i++) {
		m->regions[i].guest_phys_addr = gm->region[i].gpa;
		m->regions[i].memory_size = gm->region[i].size;
		m->regions[i].userspace_addr = (uintptr_t)gm->region[i].host;
	}
	return ioctl(n->vhost.fd, VHOST_SET_MEM_TABLE, m)
		       ? err_sys(e, -errno, "vhost-net: SET_MEM_TABLE")
		       : 0;
}

static int net_vhost_errors(const struct net *n, struct err *e)
{
	for (unsigned i = 0; i < NQUEUES; i++) {
		struct vhost_vring_file f = {i, n->vhost.err_fd};

		if (ioctl(n->vhost.fd, VHOST_SET_VRING_ERR, &f))
			return err_sys(e, -errno, "vhost-net: SET_VRING_ERR");
	}
	return 0;
}

int net_vhost_open(struct net *n, int fd, struct err *e)
{
	uint64_t can = 0;
	int rc;

	n->vhost.fd = fd;
	n->vhost.err_fd = event_create();
	if (n->vhost.err_fd < 0)
		return err_set(e, -EMFILE, "eventfd");
	/* From here on there is a worker, in our control group. */
	if (ioctl(fd, VHOST_SET_OWNER))
		return err_sys(e, -errno, "vhost-net: SET_OWNER");
	if (ioctl(fd, VHOST_GET_FEATURES, &can))
		return err_sys(e, -errno, "vhost-net: GET_FEATURES");
	if (RING_FEATURES & ~can)
		return err_set(e, -EOPNOTSUPP,
			       "vhost-net: features %#llx; expected %#llx among them",
			       (unsigned long long)can, (unsigned long long)RING_FEATURES);
	rc = net_vhost_memory(n, e);
	return rc ? rc : net_vhost_errors(n, e);
}

void net_vhost_rules(const struct net *n, struct rule_list *l)
{
	const struct net_vhost *v = &n->vhost;

	rule_ioctl(l, n->backing[0].fd, TUNSETOFFLOAD, "what kinds of frames the guest can take");
	rule_ioctl(l, v->fd, VHOST_SET_FEATURES, "what of the rings the driver has agreed to");
	rule_ioctl(l, v->fd, VHOST_SET_VRING_NUM, "a ring: how long it is,");
	rule_ioctl(l, v->fd, VHOST_SET_VRING_BASE, "where it goes on,");
	rule_ioctl(l, v->fd, VHOST_SET_VRING_ADDR, "where it lies,");
	rule_ioctl(l, v->fd, VHOST_SET_VRING_CALL, "its interrupt,");
	rule_ioctl(l, v->fd, VHOST_SET_VRING_KICK, "its doorbell, or none");
	rule_ioctl(l, v->fd, VHOST_NET_SET_BACKEND, "begin to serve it for the TAP, or stop");
	rule_fd(l, SYS_read, v->err_fd, "the kernel says: a ring cannot be");
}

/* ---- the control thread, sealed ---- */

static int vring_number(const struct net *n, unsigned long request, unsigned i, unsigned number)
{
	struct vhost_vring_state s = {i, number};

	return ioctl(n->vhost.fd, request, &s) ? -errno : 0;
}

/* -1: none. */
static int vring_file(const struct net *n, unsigned long request, unsigned i, int fd)
{
	struct vhost_vring_file f = {i, fd};

	return ioctl(n->vhost.fd, request, &f) ? -errno : 0;
}

/* vq_check() has seen that all of it is in guest memory. */
static uintptr_t vring_host(const struct net *n, gpa_t gpa)
{
	return (uintptr_t)gm_ptr(&n->w.gm, gpa, 4);
}

static int vring_addr(const struct net *n, unsigned i)
{
	const struct vq_state *q = &n->w.front.v.st->q[i];
	struct vhost_vring_addr a = {.index = i,
				     .desc_user_addr = vring_host(n, q->desc),
				     .avail_user_addr = vring_host(n, q->driver),
				     .used_user_addr = vring_host(n, q->device)};

	return ioctl(n->vhost.fd, VHOST_SET_VRING_ADDR, &a) ? -errno : 0;
}

static uint16_t vring_answered(const struct net *n, unsigned i)
{
	const uint8_t *used = (const uint8_t *)vring_host(n, n->w.front.v.st->q[i].device);

	return __atomic_load_n((const uint16_t *)(const void *)(used + USED_IDX), __ATOMIC_ACQUIRE);
}

static int vring_call(const struct net *n, unsigned i)
{
	const struct virtio_front *f = &n->w.front;

	return vring_file(n, VHOST_SET_VRING_CALL, i, front_event(f, f->v.st->q[i].vector));
}

/* The doorbell comes last, when there is a worker that hears it: what was rung before is heard then,
 * because nobody drains it. *what is the step. */
static int start_vring(const struct net *n, unsigned i, const char **what)
{
	const struct vq_state *q = &n->w.front.v.st->q[i];
	int rc;

	*what = "SET_VRING_NUM";
	rc = vring_number(n, VHOST_SET_VRING_NUM, i, q->num);
	if (rc)
		return rc;
	*what = "SET_VRING_BASE";
	rc = vring_number(n, VHOST_SET_VRING_BASE, i, vring_answered(n, i));
	if (rc)
		return rc;
	*what = "SET_VRING_ADDR";
	rc = vring_addr(n, i);
	if (rc)
		return rc;
	*what = "SET_VRING_CALL";
	rc = vring_call(n, i);
	if (rc)
		return rc;
	*what = "NET_SET_BACKEND";
	rc = vring_file(n, VHOST_NET_SET_BACKEND, i, n->backing[0].fd);
	if (rc)
		return rc;
	*what = "SET_VRING_KICK";
	return vring_file(n, VHOST_SET_VRING_KICK, i, n->w.kick_fd[i]);
}

static bool tap_is_gone(const struct net *n)
{
	struct pollfd p = {.fd = n->backing[0].fd};

	return poll(&p, 1, 0) > 0 && (p.revents & POLLERR);
}

static int net_vhost_run(struct net *n, const char **what)
{
	uint64_t features = n->features & RING_FEATURES;
	int rc;

	*what = "TUNSETOFFLOAD";
	rc = n->backing[0].ops->offload(&n->backing[0], n->st->offloads);
	if (rc)
		return rc;
	*what = "SET_FEATURES";
	rc = ioctl(n->vhost.fd, VHOST_SET_FEATURES, &features) ? -errno : 0;
	for (unsigned i = 0; i < NQUEUES && !rc; i++) {
		if (n->w.front.v.st->q[i].ready)
			rc = start_vring(n, i, what);
	}
	return rc;
}

void net_vhost_start(struct net *n)
{
	const char *what;
	int rc;

	if (n->backing[0].dead)
		return;
	if (tap_is_gone(n)) {
		net_lost(n, &n->backing[0], -EPIPE);
		return;
	}
	rc = net_vhost_run(n, &what);
	if (!rc)
		return;
	log_error("vhost-net: %s: %s", what, strerror(-rc));
	virtio_fail(&n->w.front.v, "the kernel does not serve its rings");
}

void net_vhost_stop(const struct net *n)
{
	for (unsigned i = 0; i < NQUEUES; i++) {
		/* Returns when the worker has let go of the ring. */
		int rc = vring_file(n, VHOST_NET_SET_BACKEND, i, -1);

		if (!rc)
			rc = vring_file(n, VHOST_SET_VRING_KICK, i, -1);
		if (rc)
			panic("vhost-net: ring %u cannot be stopped: error %d", i, -rc);
	}
	event_drain(n->vhost.err_fd); /* of these rings */
}

void net_vhost_vector(const struct net *n, unsigned i)
{
	int rc = vring_call(n, i);

	if (rc)
		log_error("vhost-net: SET_VRING_CALL: %s", strerror(-rc));
}
