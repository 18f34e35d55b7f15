/* SPDX-License-Identifier: BSD-2-Clause */
/* Rings that the kernel serves. See kvhost.h. */
#include <errno.h>
#include <linux/vhost.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

#include <insula/base.h>

#include "kvhost.h"

#define USED_IDX 2u /* virtio 1.2, 2.7.8 */

/* ---- before the jail is sealed ---- */

static int kvhost_memory(const struct kvhost *k, struct err *e)
{
	_Alignas(struct vhost_memory)
		uint8_t room[sizeof(struct vhost_memory) +
			     MEMMAP_MAX * sizeof(struct vhost_memory_region)] = {0};
	struct vhost_memory *m = (struct vhost_memory *)(void *)room;
	const struct guestmem *gm = &k->w->gm;

	m->nregions = gm->nregions;
	for (unsigned i = 0; i < gm->nregions; i++) {
		m->regions[i].guest_phys_addr = gm->region[i].gpa;
		m->regions[i].memory_size = gm->region[i].size;
		m->regions[i].userspace_addr = (uintptr_t)gm->region[i].host;
	}
	return ioctl(k->fd, VHOST_SET_MEM_TABLE, m)
		       ? err_sys(e, -errno, "%s: SET_MEM_TABLE", k->name)
		       : 0;
}

static int kvhost_errors(const struct kvhost *k, struct err *e)
{
	int rc = 0;

	for (unsigned i = 0; i < k->nrings && !rc; i++)
		rc = kvhost_file(k, VHOST_SET_VRING_ERR, i, k->err_fd);
	return rc ? err_sys(e, rc, "%s: SET_VRING_ERR", k->name) : 0;
}

int kvhost_open(struct kvhost *k, const char *name, struct worker *w, int fd, unsigned first,
		unsigned nrings, uint64_t features, struct err *e)
{
	uint64_t can = 0;
	int rc;

	*k = (struct kvhost){.name = name,
			     .w = w,
			     .first = first,
			     .nrings = nrings,
			     .features = features,
			     .fd = fd,
			     .err_fd = event_create()};
	if (k->err_fd < 0)
		return err_set(e, -EMFILE, "eventfd");
	/* From here on there is a worker, in our control group. */
	if (ioctl(fd, VHOST_SET_OWNER))
		return err_sys(e, -errno, "%s: SET_OWNER", name);
	if (ioctl(fd, VHOST_GET_FEATURES, &can))
		return err_sys(e, -errno, "%s: GET_FEATURES", name);
	if (features & ~can)
		return err_set(e, -EOPNOTSUPP, "%s: features %#llx; expected %#llx among them",
			       name, (unsigned long long)can, (unsigned long long)features);
	rc = kvhost_memory(k, e);
	return rc ? rc : kvhost_errors(k, e);
}

void kvhost_rules(const struct kvhost *k, struct rule_list *l)
{
	rule_ioctl(l, k->fd, VHOST_SET_FEATURES, "what of the rings the driver has agreed to");
	rule_ioctl(l, k->fd, VHOST_SET_VRING_NUM, "a ring: how long it is,");
	rule_ioctl(l, k->fd, VHOST_SET_VRING_BASE, "where it goes on,");
	rule_ioctl(l, k->fd, VHOST_SET_VRING_ADDR, "where it lies,");
	rule_ioctl(l, k->fd, VHOST_SET_VRING_CALL, "its interrupt,");
	rule_ioctl(l, k->fd, VHOST_SET_VRING_KICK, "its doorbell, or none");
	rule_fd(l, SYS_read, k->err_fd, "the kernel says: a ring cannot be");
}

/* ---- the control thread, sealed ---- */

static int vring_number(const struct kvhost *k, unsigned long request, unsigned i, unsigned number)
{
	struct vhost_vring_state s = {i, number};

	return ioctl(k->fd, request, &s) ? -errno : 0;
}

int kvhost_file(const struct kvhost *k, unsigned long request, unsigned i, int fd)
{
	struct vhost_vring_file f = {i, fd};

	return ioctl(k->fd, request, &f) ? -errno : 0;
}

/* vq_check() has seen that all of it is in guest memory. */
static uintptr_t vring_host(const struct kvhost *k, gpa_t gpa)
{
	return (uintptr_t)gm_ptr(&k->w->gm, gpa, 4);
}

static const struct vq_state *vring_state(const struct kvhost *k, unsigned i)
{
	return &k->w->front.v.st->q[k->first + i];
}

static int vring_addr(const struct kvhost *k, unsigned i)
{
	const struct vq_state *q = vring_state(k, i);
	struct vhost_vring_addr a = {.index = i,
				     .desc_user_addr = vring_host(k, q->desc),
				     .avail_user_addr = vring_host(k, q->driver),
				     .used_user_addr = vring_host(k, q->device)};

	return ioctl(k->fd, VHOST_SET_VRING_ADDR, &a) ? -errno : 0;
}

static uint16_t vring_answered(const struct kvhost *k, unsigned i)
{
	const uint8_t *used = (const uint8_t *)vring_host(k, vring_state(k, i)->device);

	return __atomic_load_n((const uint16_t *)(const void *)(used + USED_IDX), __ATOMIC_ACQUIRE);
}

static int vring_call(const struct kvhost *k, unsigned i)
{
	return kvhost_file(k, VHOST_SET_VRING_CALL, i,
			   front_event(&k->w->front, vring_state(k, i)->vector));
}

int kvhost_features(const struct kvhost *k, const char **what)
{
	uint64_t features = k->w->front.v.st->driver_features & k->features;

	*what = "SET_FEATURES";
	return ioctl(k->fd, VHOST_SET_FEATURES, &features) ? -errno : 0;
}

bool kvhost_is_ready(const struct kvhost *k, unsigned i)
{
	return vring_state(k, i)->ready;
}

int kvhost_ring(const struct kvhost *k, unsigned i, const char **what)
{
	int rc;

	*what = "SET_VRING_NUM";
	rc = vring_number(k, VHOST_SET_VRING_NUM, i, vring_state(k, i)->num);
	if (rc)
		return rc;
	*what = "SET_VRING_BASE";
	rc = vring_number(k, VHOST_SET_VRING_BASE, i, vring_answered(k, i));
	if (rc)
		return rc;
	*what = "SET_VRING_ADDR";
	rc = vring_addr(k, i);
	if (rc)
		return rc;
	*what = "SET_VRING_CALL";
	return vring_call(k, i);
}

int kvhost_kick(const struct kvhost *k, unsigned i, const char **what)
{
	*what = "SET_VRING_KICK";
	return kvhost_file(k, VHOST_SET_VRING_KICK, i, k->w->kick_fd[k->first + i]);
}

void kvhost_failed(const struct kvhost *k, const char *what, int rc)
{
	log_error("%s: %s: %s", k->name, what, strerror(-rc));
	virtio_fail(&k->w->front.v, "the kernel does not serve its rings");
}

void kvhost_stopped(const struct kvhost *k, int rc)
{
	for (unsigned i = 0; i < k->nrings && !rc; i++)
		rc = kvhost_file(k, VHOST_SET_VRING_KICK, i, -1);
	if (rc)
		panic("%s: the rings cannot be stopped: error %d", k->name, -rc);
	event_drain(k->err_fd); /* of these rings */
}

void kvhost_vector(const struct kvhost *k, unsigned queue)
{
	bool ours = queue >= k->first && queue < k->first + k->nrings;
	int rc = ours ? vring_call(k, queue - k->first) : 0;

	if (rc)
		log_error("%s: SET_VRING_CALL: %s", k->name, strerror(-rc));
}

/* ---- the I/O thread ---- */

unsigned kvhost_wait(const struct kvhost *k, unsigned n, struct lane *l, struct pollfd *p,
		     unsigned nextra, int timeout)
{
	unsigned kicked;

	for (unsigned i = 0; i < n; i++)
		p[nextra + i] = (struct pollfd){.fd = k[i].err_fd, .events = POLLIN};
	kicked = lane_wait(l, p, nextra + n, timeout);
	for (unsigned i = 0; i < n; i++) {
		if (!p[nextra + i].revents)
			continue;
		event_drain(k[i].err_fd);
		lane_fault(l, "a ring that the kernel cannot serve");
	}
	return kicked;
}
