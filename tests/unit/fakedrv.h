/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A virtio driver for tests: negotiation over MMIO or PCI, and split virtqueues in a memfd that plays
 * guest memory. The device is behind a struct fakecore.
 */
#ifndef TESTS_FAKEDRV_H
#define TESTS_FAKEDRV_H

#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>

#include <insula/guestmem.h>

#include <devices/virtio/virtio_pci.h>

#include <insula/start.h>

#include "boardmem.h"
#include "fakecore.h"

#define DRV_F(n) (UINT64_C(1) << (n))
#define DRV_COMMON                                                    \
	(DRV_F(VIRTIO_F_VERSION_1) | DRV_F(VIRTIO_RING_F_EVENT_IDX) | \
	 DRV_F(VIRTIO_RING_F_INDIRECT_DESC))
#define DRV_MAX_NUM 256
#define DRV_QUEUE_BYTES 0x4000u /* guest memory of one queue's rings */

struct drvq {
	uint16_t num;
	gpa_t base;
	struct vring_desc *desc;
	uint8_t *avail, *used;
	uint16_t avail_idx, used_idx;
	uint16_t nfree, free[DRV_MAX_NUM]; /* stack */
	uint16_t chain_len[DRV_MAX_NUM];   /* by head; 0: not in flight */
	void *cookie[DRV_MAX_NUM];
	bool event_idx;
	int kick_fd;
};

static inline uint16_t drv_load16(const uint8_t *p)
{
	return __atomic_load_n((const uint16_t *)(const void *)p, __ATOMIC_ACQUIRE);
}

static inline void drv_store16(uint8_t *p, uint16_t v)
{
	__atomic_store_n((uint16_t *)(void *)p, v, __ATOMIC_RELEASE);
}

/* Rings at gpa `base`: table, driver area at + 0x1000, device area at + 0x2000. */
static inline void drvq_init(struct drvq *q, const struct guestmem *gm, gpa_t base, uint16_t num,
			     bool event_idx, int kick_fd)
{
	memset(q, 0, sizeof(*q));
	q->num = num;
	q->base = base;
	q->desc = gm_ptr(gm, base, 0x1000);
	q->avail = gm_ptr(gm, base + 0x1000, 0x1000);
	q->used = gm_ptr(gm, base + 0x2000, 0x1000);
	memset(q->desc, 0, DRV_QUEUE_BYTES);
	q->event_idx = event_idx;
	q->kick_fd = kick_fd;
	while (q->nfree < num) {
		q->free[q->nfree] = (uint16_t)(num - 1 - q->nfree);
		q->nfree++;
	}
}

static inline struct vring_desc drv_desc(gpa_t addr, uint32_t len, bool write)
{
	return (struct vring_desc){
		.addr = addr, .len = len, .flags = write ? VRING_DESC_F_WRITE : 0};
}

/* Put a chain of n descriptors into the table and offer it. The head. */
static inline uint16_t drvq_add(struct drvq *q, const struct vring_desc *d, unsigned n,
				void *cookie)
{
	uint16_t head = 0, prev = 0;

	if (q->nfree < n)
		fc_die("out of descriptors");
	for (unsigned i = 0; i < n; i++) {
		uint16_t at = q->free[--q->nfree];

		q->desc[at] = d[i];
		if (i == 0)
			head = at;
		else {
			q->desc[prev].flags |= VRING_DESC_F_NEXT;
			q->desc[prev].next = at;
		}
		prev = at;
	}
	q->chain_len[head] = (uint16_t)n;
	q->cookie[head] = cookie;
	drv_store16(q->avail + 4 + 2 * (q->avail_idx % q->num), head);
	drv_store16(q->avail + 2, ++q->avail_idx);
	return head;
}

/* Kick if the device wants it since the avail index `old`. */
static inline bool drvq_kick(struct drvq *q, uint16_t old)
{
	bool want;

	atomic_thread_fence(memory_order_seq_cst);
	if (q->event_idx)
		want = vring_need_event(drv_load16(q->used + 4 + 8 * q->num), q->avail_idx, old);
	else
		want = !(drv_load16(q->used) & VRING_USED_F_NO_NOTIFY);
	if (want && q->kick_fd >= 0)
		event_signal(q->kick_fd);
	return want;
}

/* Ask for an interrupt at the next used entry. True: there is one already. */
static inline bool drvq_arm(struct drvq *q)
{
	if (q->event_idx)
		drv_store16(q->avail + 4 + 2 * q->num, q->used_idx);
	atomic_thread_fence(memory_order_seq_cst);
	return drv_load16(q->used + 2) != q->used_idx;
}

/* Take one used entry: false if there is none, and then an interrupt was asked for. A head that was
 * not in flight is fatal: answered twice. */
static inline bool drvq_get(struct drvq *q, uint16_t *head, uint32_t *len, void **cookie)
{
	uint32_t elem[2];
	uint16_t i;

	if (drv_load16(q->used + 2) == q->used_idx && !drvq_arm(q))
		return false;
	memcpy(elem, q->used + 4 + 8 * (size_t)(q->used_idx % q->num), sizeof(elem));
	q->used_idx++;
	if (elem[0] >= q->num || !q->chain_len[elem[0]])
		fc_die("a used entry for a head that is not in flight");
	i = (uint16_t)elem[0];
	*head = i;
	*len = elem[1];
	*cookie = q->cookie[i];
	q->chain_len[*head] = 0;
	for (;;) {
		q->free[q->nfree++] = i;
		if (!(q->desc[i].flags & VRING_DESC_F_NEXT))
			break;
		i = q->desc[i].next;
	}
	return true;
}

/* ---- registers ---- */

static inline void drv_reg(struct fakecore *f, uint32_t off, uint32_t v)
{
	fc_write(f, off, 4, v);
}

/* On PCI if the core has vectors. */
static inline void drv_set(struct fakecore *f, uint32_t mmio, uint32_t pci, uint32_t size,
			   uint32_t v)
{
	if (f->nvectors)
		fc_write(f, pci, size, v);
	else
		drv_reg(f, mmio, v);
}

/* On MMIO it is one that is posted. */
static inline void drv_post(struct fakecore *f, uint32_t mmio, uint32_t pci, uint32_t size,
			    uint32_t v)
{
	if (f->nvectors)
		fc_write(f, pci, size, v);
	else
		fc_post(f, mmio, 4, v);
}

static inline uint32_t drv_status(const struct fakecore *f)
{
	return f->nvectors ? fc_shadow8(f, VPCI_STATUS) : fc_shadow32(f, VIRTIO_MMIO_STATUS);
}

static inline void drv_set_status(struct fakecore *f, uint32_t v)
{
	drv_set(f, VIRTIO_MMIO_STATUS, VPCI_STATUS, 1, v);
}

static inline uint64_t drv_features(struct fakecore *f)
{
	const uint32_t at = f->nvectors ? VPCI_DEVICE_FEATURE : VIRTIO_MMIO_DEVICE_FEATURES;
	uint64_t v = 0;

	for (unsigned i = 0; i < 2; i++) {
		drv_set(f, VIRTIO_MMIO_DEVICE_FEATURES_SEL, VPCI_DEVICE_FEATURE_SELECT, 4, i);
		v |= (uint64_t)fc_shadow32(f, at) << (32 * i);
	}
	return v;
}

/* Reset, then up to FEATURES_OK. False: refused. */
static inline bool drv_negotiate(struct fakecore *f, uint64_t features)
{
	uint32_t st = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER;

	drv_set_status(f, 0);
	drv_set_status(f, VIRTIO_CONFIG_S_ACKNOWLEDGE);
	drv_set_status(f, st);
	for (unsigned i = 0; i < 2; i++) {
		drv_post(f, VIRTIO_MMIO_DRIVER_FEATURES_SEL, VPCI_DRIVER_FEATURE_SELECT, 4, i);
		drv_post(f, VIRTIO_MMIO_DRIVER_FEATURES, VPCI_DRIVER_FEATURE, 4,
			 (uint32_t)(features >> (32 * i)));
	}
	drv_set_status(f, st | VIRTIO_CONFIG_S_FEATURES_OK);
	if (f->nvectors)
		fc_write(f, VPCI_CONFIG_VECTOR, 2, 0);
	return drv_status(f) & VIRTIO_CONFIG_S_FEATURES_OK;
}

static inline void drv_addr(struct fakecore *f, uint32_t mmio, uint32_t pci, gpa_t at)
{
	drv_post(f, mmio, pci, 4, (uint32_t)at);
	drv_post(f, mmio + 4, pci + 4, 4, (uint32_t)(at >> 32));
}

static inline bool drv_queue_addr(struct fakecore *f, unsigned i, uint32_t num, gpa_t desc,
				  gpa_t driver, gpa_t device)
{
	drv_set(f, VIRTIO_MMIO_QUEUE_SEL, VPCI_QUEUE_SELECT, 2, i);
	drv_post(f, VIRTIO_MMIO_QUEUE_NUM, VPCI_QUEUE_SIZE, 2, num);
	if (f->nvectors)
		fc_write(f, VPCI_QUEUE_VECTOR, 2, (1 + i) % f->nvectors);
	drv_addr(f, VIRTIO_MMIO_QUEUE_DESC_LOW, VPCI_QUEUE_DESC, desc);
	drv_addr(f, VIRTIO_MMIO_QUEUE_AVAIL_LOW, VPCI_QUEUE_DRIVER, driver);
	drv_addr(f, VIRTIO_MMIO_QUEUE_USED_LOW, VPCI_QUEUE_DEVICE, device);
	drv_set(f, VIRTIO_MMIO_QUEUE_READY, VPCI_QUEUE_ENABLE, 2, 1);
	return f->nvectors ? fc_shadow16(f, VPCI_QUEUE_ENABLE)
			   : fc_shadow32(f, VIRTIO_MMIO_QUEUE_READY);
}

static inline bool drv_queue(struct fakecore *f, unsigned i, const struct drvq *q)
{
	return drv_queue_addr(f, i, q->num, q->base, q->base + 0x1000, q->base + 0x2000);
}

static inline void drv_ok(struct fakecore *f)
{
	drv_set_status(f, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER |
				  VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK);
}

/* What a virtio helper gets in any case. */
static inline struct start_fds drv_start_fds(const struct fakecore *f, int mem_fd)
{
	struct start_fds s = fc_start_fds(f, fd_copy(f->page_fd));

	start_add(&s, START_MEMORY, fd_copy(mem_fd));
	return s;
}

/* Guest memory: a sealed memfd, mapped. */
static inline int drv_memory(struct guestmem *gm, uint64_t size)
{
	struct err e = {0};
	int fd = shm_create("guest", size, &e);

	if (fd < 0 || board_gm_map(gm, fd, size, &e))
		fc_die(e.text);
	return fd;
}

#endif
