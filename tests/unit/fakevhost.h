/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The kernel's side of rings that vhost serves (devices/kvhost.h): what it was asked for, in which
 * order, and what it refuses. fake.fd is the device's descriptor. Included once in a test.
 */
#ifndef TESTS_FAKEVHOST_H
#define TESTS_FAKEVHOST_H

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <linux/vhost.h>
#include <stdarg.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <devices/kvhost.h>

#include "fakedrv.h"

#define FAKE_RINGS 2
#define FAKE_DEVS NET_MAX_PAIRS
#define FAKE_WAIT_MS 20000

static struct fake_dev {
	int fd; /* of /dev/vhost-..., so to say */
	bool owned;
	uint64_t can, features;
	unsigned nregions;
	struct vhost_memory_region region[MEMMAP_MAX];
	struct fake_ring {
		unsigned num, base;
		struct vhost_vring_addr addr;
		int call, kick, err, backend;
		unsigned starts;
	} ring[FAKE_RINGS];
	unsigned long fails; /* this request is refused */
	bool late;           /* errors come just before a ring is let go */
	uint64_t offloads;   /* TUNSETOFFLOAD, of any other descriptor */
} fakes[FAKE_DEVS];
#define fake fakes[0]

static int refused(int code)
{
	errno = code;
	return -1;
}

/* -1: it is let go. */
static int fake_backend(struct fake_dev *v, struct fake_ring *r, int fd)
{
	ck_assert_msg(fd < 0 || r->addr.desc_user_addr, "a backend before the rings");
	r->starts += fd >= 0;
	if (v->late && fd < 0)
		event_signal(r->err);
	r->backend = fd;
	return 0;
}

static int fake_file(struct fake_dev *v, unsigned long request, const struct vhost_vring_file *f)
{
	struct fake_ring *r = &v->ring[f->index];

	switch (request) {
	case VHOST_SET_VRING_CALL:
		r->call = f->fd;
		return 0;
	case VHOST_SET_VRING_ERR:
		r->err = f->fd;
		return 0;
	case VHOST_SET_VRING_KICK:
		/* One that is heard before there is a backend is lost. */
		ck_assert_msg(f->fd < 0 || r->backend >= 0, "a doorbell before the backend");
		r->kick = f->fd;
		return 0;
	default:
		return fake_backend(v, r, f->fd);
	}
}

/* vhost-vsock: both rings or none. */
static int fake_running(struct fake_dev *v, int on)
{
	for (unsigned i = 0; i < FAKE_RINGS; i++)
		(void)fake_backend(v, &v->ring[i], on ? v->fd : -1);
	return 0;
}

static int fake_state(struct fake_dev *v, unsigned long request, const struct vhost_vring_state *s)
{
	struct fake_ring *r = &v->ring[s->index];

	if (r->backend >= 0)
		return refused(EBUSY);
	if (request == VHOST_SET_VRING_NUM)
		r->num = s->num;
	else
		r->base = s->num;
	return 0;
}

static int fake_memory(struct fake_dev *v, const struct vhost_memory *m)
{
	v->nregions = m->nregions;
	ck_assert_uint_le(m->nregions, MEMMAP_MAX);
	memcpy(v->region, m->regions, m->nregions * sizeof(v->region[0]));
	return 0;
}

/* What stops a ring cannot fail. */
static bool takes_back(unsigned long request, const void *arg)
{
	if (request == VHOST_VSOCK_SET_RUNNING)
		return !*(const int *)arg;
	return (request == VHOST_NET_SET_BACKEND || request == VHOST_SET_VRING_KICK) &&
	       ((const struct vhost_vring_file *)arg)->fd < 0;
}

static int fake_vhost(struct fake_dev *v, unsigned long request, void *arg)
{
	if (request == v->fails && !takes_back(request, arg))
		return refused(EFAULT);
	if (request != VHOST_SET_OWNER && !v->owned)
		return refused(EPERM);
	switch (request) {
	case VHOST_SET_OWNER:
		if (v->owned)
			return refused(EBUSY);
		v->owned = true;
		return 0;
	case VHOST_GET_FEATURES:
		memcpy(arg, &v->can, sizeof(v->can));
		return 0;
	case VHOST_SET_FEATURES:
		memcpy(&v->features, arg, sizeof(v->features));
		return v->features & ~v->can ? refused(EOPNOTSUPP) : 0;
	case VHOST_SET_MEM_TABLE:
		return fake_memory(v, arg);
	case VHOST_SET_VRING_NUM:
	case VHOST_SET_VRING_BASE:
		return fake_state(v, request, arg);
	case VHOST_VSOCK_SET_RUNNING:
		return fake_running(v, *(const int *)arg);
	case VHOST_SET_VRING_ADDR:
		v->ring[((struct vhost_vring_addr *)arg)->index].addr =
			*(struct vhost_vring_addr *)arg;
		return 0;
	default:
		return fake_file(v, request, arg);
	}
}

/* The queues of a TAP, by their descriptors: as the kernel has them. */
static struct fake_queue {
	int fd;
	bool out;
	unsigned changes;
} fake_queues[FAKE_DEVS];

static int fake_queue(int fd, short flag)
{
	for (unsigned i = 0; i < FAKE_DEVS; i++) {
		struct fake_queue *q = &fake_queues[i];

		if (fd != q->fd)
			continue;
		if (q->out == (flag == IFF_DETACH_QUEUE))
			return refused(EINVAL);
		q->out = !q->out;
		q->changes++;
		return 0;
	}
	return refused(EBADF);
}

/* Instead of the C library's. */
int ioctl(int fd, unsigned long request, ...)
{
	va_list list;
	void *arg;

	va_start(list, request);
	arg = va_arg(list, void *);
	va_end(list);
	for (unsigned i = 0; i < FAKE_DEVS; i++) {
		if (fd == fakes[i].fd)
			return fake_vhost(&fakes[i], request, arg);
	}
	if (request == TUNSETQUEUE)
		return fake_queue(fd, ((struct ifreq *)arg)->ifr_flags);
	if (request != TUNSETOFFLOAD)
		return (int)syscall(SYS_ioctl, fd, request, arg);
	fake.offloads = (uintptr_t)arg;
	return 0;
}

/* As a descriptor is that nobody has used. */
static void fake_fresh(uint64_t can)
{
	memset(fakes, 0, sizeof(fakes));
	for (unsigned d = 0; d < FAKE_DEVS; d++) {
		struct fake_dev *v = &fakes[d];

		v->can = can | DRV_F(VHOST_F_LOG_ALL);
		for (unsigned i = 0; i < FAKE_RINGS; i++)
			v->ring[i].call = v->ring[i].kick = v->ring[i].err = v->ring[i].backend =
				-1;
		v->fd = open("/dev/null", O_RDWR | O_CLOEXEC);
		ck_assert_int_ge(v->fd, 0);
	}
}

static void fake_expect_stopped(void)
{
	for (unsigned i = 0; i < FAKE_DEVS * FAKE_RINGS; i++) {
		const struct fake_ring *r = &fakes[i / FAKE_RINGS].ring[i % FAKE_RINGS];

		ck_assert_int_eq(r->backend, -1);
		ck_assert_int_eq(r->kick, -1);
	}
}

/* What the kernel is told before the jail is sealed: the memory of the process, as it has it. */
static void fake_expect_memory(const struct guestmem *own)
{
	ck_assert_uint_eq(fake.nregions, own->nregions);
	for (unsigned i = 0; i < own->nregions; i++) {
		ck_assert_uint_eq(fake.region[i].guest_phys_addr, own->region[i].gpa);
		ck_assert_uint_eq(fake.region[i].memory_size, own->region[i].size);
		ck_assert_uint_eq(fake.region[i].userspace_addr, (uintptr_t)own->region[i].host);
		ck_assert_uint_eq(fake.region[i].flags_padding, 0);
	}
}

/* Ring i of it lies at this place of `gm`, and is served. */
static void fake_expect_ring(const struct fake_dev *v, unsigned i, const struct kvhost *k, gpa_t at,
			     unsigned num, unsigned base)
{
	const struct guestmem *own = &k->w->gm;
	const struct fake_ring *r = &v->ring[i];

	ck_assert_uint_eq(r->num, num);
	ck_assert_uint_eq(r->base, base);
	ck_assert_ptr_eq((void *)(uintptr_t)r->addr.desc_user_addr, gm_ptr(own, at, 16));
	ck_assert_ptr_eq((void *)(uintptr_t)r->addr.avail_user_addr, gm_ptr(own, at + 0x1000, 16));
	ck_assert_ptr_eq((void *)(uintptr_t)r->addr.used_user_addr, gm_ptr(own, at + 0x2000, 16));
	ck_assert_uint_eq(r->addr.flags, 0);
	ck_assert_int_ge(r->backend, 0);
	ck_assert_int_eq(r->kick, k->w->kick_fd[k->first + i]);
	ck_assert_int_eq(r->err, k->err_fd);
}

/* Of the rules: each of `running` once, and none with which a helper could choose whose memory is
 * used, or another address. */
static void fake_expect_rules(const struct rule_list *l, const unsigned long *running, size_t n)
{
	static const unsigned long never[] = {VHOST_SET_OWNER,     VHOST_RESET_OWNER,
					      VHOST_SET_MEM_TABLE, VHOST_SET_LOG_BASE,
					      VHOST_SET_LOG_FD,    VHOST_VSOCK_SET_GUEST_CID};
	size_t found = 0;

	for (size_t i = 0; i < l->n; i++) {
		const struct jail_arg *a = l->rule[i].arg;

		ck_assert_int_ne(l->rule[i].nr, SYS_readv);
		ck_assert_int_ne(l->rule[i].nr, SYS_writev);
		if (l->rule[i].nr != SYS_ioctl || a[0].value != (uint64_t)(unsigned)fake.fd)
			continue;
		for (unsigned k = 0; k < ARRAY_LEN(never); k++)
			ck_assert_uint_ne(a[1].value, never[k]);
		for (size_t k = 0; k < n; k++)
			found += a[1].value == running[k];
	}
	ck_assert_uint_eq(found, n);
}

static bool until(bool (*fn)(void))
{
	for (unsigned i = 0; i < FAKE_WAIT_MS && !fn(); i++)
		usleep(1000);
	return fn();
}

#endif
