/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A small virtio driver for payloads: virtio-mmio v2 and virtio over PCI, split virtqueues, polling;
 * and virtio-blk on top of it. Virtio 1.2, 2.7 (split virtqueues), 4.1 (PCI), 4.2.2 (MMIO
 * registers), 5.2 (block device).
 *
 * A device is the address of its registers, on PCI that of its BAR. Registers have the names that
 * they have on MMIO; what the same register of a PCI function is, is in vpci.h.
 *
 * Nothing is hidden: hostile payloads fill descriptors and rings themselves. Every wait has a
 * deadline.
 */
#ifndef PAYLOAD_VIRTIO_H
#define PAYLOAD_VIRTIO_H

#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>

#include "vpci.h"

#define VQ_MAX 256 /* descriptors */
#define VQ_COUNT 8
#define VIRTIO_WAIT_MS 5000

/* ---- registers ---- */

static inline uint64_t vdev_base(unsigned index)
{
	return BOARD_VIRTIO_MMIO + (uint64_t)index * BOARD_PAGE;
}
PAYLOAD_FN uint32_t vget(uint64_t dev, unsigned reg)
{
	const struct vpci *p = vpci_of(dev);

	return p ? vpci_get(p, reg) : read32(dev + reg);
}
PAYLOAD_FN void vset(uint64_t dev, unsigned reg, uint32_t v)
{
	const struct vpci *p = vpci_of(dev);

	if (p)
		vpci_set(p, reg, v);
	else
		write32(dev + reg, v);
}
PAYLOAD_FN bool vdev_is(uint64_t dev, uint32_t id)
{
	return vget(dev, VIRTIO_MMIO_MAGIC_VALUE) == VIRTIO_MAGIC &&
	       vget(dev, VIRTIO_MMIO_DEVICE_ID) == id;
}

/* Status 0 is the answer that the reset is complete. */
PAYLOAD_FN bool vdev_reset(uint64_t dev)
{
	uint64_t end = deadline_ms(VIRTIO_WAIT_MS);

	vset(dev, VIRTIO_MMIO_STATUS, 0);
	while (vget(dev, VIRTIO_MMIO_STATUS) != 0)
		if (rdtsc() > end)
			return false;
	return true;
}
PAYLOAD_FN void vdev_add_status(uint64_t dev, uint32_t bits)
{
	vset(dev, VIRTIO_MMIO_STATUS, vget(dev, VIRTIO_MMIO_STATUS) | bits);
}
PAYLOAD_FN uint64_t vdev_offered(uint64_t dev)
{
	uint64_t high;

	vset(dev, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 1);
	high = vget(dev, VIRTIO_MMIO_DEVICE_FEATURES);
	vset(dev, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 0);
	return high << 32 | vget(dev, VIRTIO_MMIO_DEVICE_FEATURES);
}
PAYLOAD_FN void vdev_accept(uint64_t dev, uint64_t features)
{
	vset(dev, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
	vset(dev, VIRTIO_MMIO_DRIVER_FEATURES, (uint32_t)features);
	vset(dev, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
	vset(dev, VIRTIO_MMIO_DRIVER_FEATURES, (uint32_t)(features >> 32));
}
/* Reset, then up to FEATURES_OK with exactly these features. False: the device refuses them. */
PAYLOAD_FN bool vdev_negotiate(uint64_t dev, uint64_t features)
{
	if (!vdev_reset(dev))
		return false;
	vdev_add_status(dev, VIRTIO_CONFIG_S_ACKNOWLEDGE);
	vdev_add_status(dev, VIRTIO_CONFIG_S_DRIVER);
	vdev_accept(dev, features);
	vdev_add_status(dev, VIRTIO_CONFIG_S_FEATURES_OK);
	return vget(dev, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_FEATURES_OK;
}
#define VFEATURE(bit) (1ull << (bit))

/* ---- split virtqueues ---- */

struct vq {
	uint64_t dev;
	unsigned index;
	uint16_t size, next, seen; /* next: avail.idx as we count it; seen: used entries taken */
	struct vring_desc *desc;
	struct vring_avail *avail;
	struct vring_used *used;
	uint64_t doorbell; /* on PCI, of a queue that vq_start() has started; 0: by vset() */
};

struct vq_memory {
	struct vring_desc desc[VQ_MAX];
	_Alignas(8) uint8_t avail[sizeof(struct vring_avail) + 2 * VQ_MAX + 2];
	_Alignas(8) uint8_t
		used[sizeof(struct vring_used) + sizeof(struct vring_used_elem) * VQ_MAX + 2];
};

#define barrier() __asm__ volatile("" : : : "memory")

PAYLOAD_FN void vq_set_address(uint64_t dev, unsigned low_reg, uint64_t addr)
{
	vset(dev, low_reg, (uint32_t)addr);
	vset(dev, low_reg + 4, (uint32_t)(addr >> 32));
}
/* Memory for queue `index` of one device, empty. */
PAYLOAD_FN void vq_clear(struct vq *q, uint64_t dev, unsigned index, uint16_t size)
{
	static _Alignas(BOARD_PAGE) struct vq_memory memory[VQ_COUNT];
	struct vq_memory *m = &memory[index % VQ_COUNT];

	memset(m, 0, sizeof(*m));
	*q = (struct vq){.dev = dev, .index = index, .size = size};
	q->desc = m->desc;
	q->avail = (struct vring_avail *)m->avail;
	q->used = (struct vring_used *)m->used;
	q->avail->flags = VRING_AVAIL_F_NO_INTERRUPT;
}
PAYLOAD_FN void vq_tell(const struct vq *q, bool ready)
{
	vset(q->dev, VIRTIO_MMIO_QUEUE_SEL, q->index);
	vset(q->dev, VIRTIO_MMIO_QUEUE_NUM, q->size);
	vq_set_address(q->dev, VIRTIO_MMIO_QUEUE_DESC_LOW, (uintptr_t)q->desc);
	vq_set_address(q->dev, VIRTIO_MMIO_QUEUE_AVAIL_LOW, (uintptr_t)q->avail);
	vq_set_address(q->dev, VIRTIO_MMIO_QUEUE_USED_LOW, (uintptr_t)q->used);
	if (ready)
		vset(q->dev, VIRTIO_MMIO_QUEUE_READY, 1);
}
/* False: there is no such queue, or the device does not take it. */
PAYLOAD_FN bool vq_start(struct vq *q, uint64_t dev, unsigned index, uint16_t size)
{
	uint32_t max;

	vset(dev, VIRTIO_MMIO_QUEUE_SEL, index);
	max = vget(dev, VIRTIO_MMIO_QUEUE_NUM_MAX);
	if (max == 0 || index >= VQ_COUNT)
		return false;
	if (size > max)
		size = (uint16_t)max;
	vq_clear(q, dev, index, size);
	q->doorbell = vpci_of(dev) ? vpci_doorbell(vpci_of(dev), index) : 0;
	vq_tell(q, true);
	return vget(dev, VIRTIO_MMIO_QUEUE_READY) == 1;
}
PAYLOAD_FN void vq_desc(struct vq *q, unsigned i, uint64_t addr, uint32_t len, uint16_t flags,
			uint16_t next)
{
	q->desc[i] = (struct vring_desc){.addr = addr, .len = len, .flags = flags, .next = next};
}
PAYLOAD_FN void vq_push(struct vq *q, uint16_t head)
{
	q->avail->ring[q->next++ % q->size] = head;
	barrier();
	*(volatile uint16_t *)&q->avail->idx = q->next;
	barrier();
}
PAYLOAD_FN void vq_kick(const struct vq *q)
{
	if (q->doorbell)
		write16(q->doorbell, (uint16_t)q->index);
	else
		vset(q->dev, VIRTIO_MMIO_QUEUE_NOTIFY, q->index);
}
PAYLOAD_FN bool vq_pop(struct vq *q, struct vring_used_elem *out, uint32_t ms)
{
	uint64_t end = deadline_ms(ms);

	while (*(volatile uint16_t *)&q->used->idx == q->seen) {
		if (rdtsc() > end)
			return false;
		__asm__ volatile("pause");
	}
	barrier();
	*out = q->used->ring[q->seen++ % q->size];
	return true;
}

/* The first device of this kind, on MMIO or else on PCI; 0: none. */
PAYLOAD_FN uint64_t vdev_find(uint32_t id)
{
	for (unsigned i = 0; i < BOARD_MAX_VIRTIO; i++) {
		if (vdev_is(vdev_base(i), id))
			return vdev_base(i);
	}
	for (unsigned i = 1; i <= BOARD_MAX_PCI; i++) {
		const struct vpci *p = vpci_find(i);

		if (p && p->id == id)
			return p->bar;
	}
	return 0;
}

/* ---- block device ---- */

#define SECTOR 512u
#define BLK_NO_ANSWER (-1)
#define BLK_WRONG_ANSWER (-2) /* another chain's id, or more bytes than were writable */
#define BLK_STATUS_POISON 0xaa

struct blk {
	uint64_t dev, offered, features, capacity;
	struct vq q;
	uint32_t used_len;
	bool writable;
};

/* The first block device of the board. */
PAYLOAD_FN bool blk_find(struct blk *b)
{
	b->dev = vdev_find(VIRTIO_ID_BLOCK);
	return b->dev != 0;
}
/* Reset and bring it up with `wanted` as far as offered, queue 0 with `size` entries. */
PAYLOAD_FN bool blk_start(struct blk *b, uint64_t wanted, uint16_t size)
{
	if (!vdev_reset(b->dev))
		return false;
	b->offered = vdev_offered(b->dev);
	b->features =
		b->offered & (wanted | VFEATURE(VIRTIO_F_VERSION_1) | VFEATURE(VIRTIO_BLK_F_RO));
	b->writable = !(b->features & VFEATURE(VIRTIO_BLK_F_RO));
	if (!vdev_negotiate(b->dev, b->features) || !vq_start(&b->q, b->dev, 0, size))
		return false;
	b->capacity = read64(b->dev + VIRTIO_MMIO_CONFIG);
	vdev_add_status(b->dev, VIRTIO_CONFIG_S_DRIVER_OK);
	return vget(b->dev, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_DRIVER_OK;
}

/* Bring it up with `wanted` as far as offered, on all queues that it has, of `size` entries each. How
 * many they are; 0: it did not come up. */
PAYLOAD_FN unsigned blk_start_all(struct blk *b, uint64_t wanted, struct vq q[VQ_COUNT],
				  uint16_t size)
{
	uint64_t offered = vdev_offered(b->dev);
	unsigned n = 1;

	if (!vdev_negotiate(b->dev, offered & (wanted | VFEATURE(VIRTIO_F_VERSION_1) |
					       VFEATURE(VIRTIO_BLK_F_MQ))))
		return 0;
	if (offered & VFEATURE(VIRTIO_BLK_F_MQ))
		n = read16(b->dev + VIRTIO_MMIO_CONFIG +
			   offsetof(struct virtio_blk_config, num_queues));
	for (unsigned i = 0; i < n; i++) {
		if (!vq_start(&q[i], b->dev, i, size))
			return 0;
	}
	b->capacity = read64(b->dev + VIRTIO_MMIO_CONFIG);
	vdev_add_status(b->dev, VIRTIO_CONFIG_S_DRIVER_OK);
	return vget(b->dev, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_DRIVER_OK ? n : 0;
}

struct blk_slot { /* what a request needs besides its data */
	struct virtio_blk_outhdr hdr;
	volatile uint8_t status;
};

PAYLOAD_FN bool blk_reads(uint32_t type)
{
	return type == VIRTIO_BLK_T_IN || type == VIRTIO_BLK_T_GET_ID;
}
/* Three descriptors from `first` on: header, data (unless len is 0), status. */
PAYLOAD_FN void blk_fill(struct vq *q, uint16_t first, struct blk_slot *s, uint32_t type,
			 uint64_t sector, void *data, uint32_t len)
{
	uint16_t data_flags = VRING_DESC_F_NEXT | (blk_reads(type) ? VRING_DESC_F_WRITE : 0);

	s->hdr = (struct virtio_blk_outhdr){.type = type, .sector = sector};
	s->status = BLK_STATUS_POISON;
	vq_desc(q, first, (uintptr_t)&s->hdr, sizeof(s->hdr), VRING_DESC_F_NEXT,
		(uint16_t)(first + (len ? 1 : 2)));
	if (len)
		vq_desc(q, first + 1u, (uintptr_t)data, len, data_flags, (uint16_t)(first + 2));
	vq_desc(q, first + 2u, (uintptr_t)&s->status, 1, VRING_DESC_F_WRITE, 0);
}
/* How long a request may take. Who waits for a server that comes back sets more. */
__attribute__((unused)) static uint32_t blk_patience_ms = VIRTIO_WAIT_MS;
/* One request, alone in queue `q`, from start to end: its status byte or BLK_*. */
PAYLOAD_FN int blk_request(struct blk *b, struct vq *q, uint32_t type, uint64_t sector, void *data,
			   uint32_t len)
{
	static struct blk_slot one;
	struct vring_used_elem u;

	blk_fill(q, 0, &one, type, sector, data, len);
	vq_push(q, 0);
	vq_kick(q);
	if (!vq_pop(q, &u, blk_patience_ms))
		return BLK_NO_ANSWER;
	b->used_len = u.len;
	if (u.id != 0 || u.len > (blk_reads(type) ? len : 0) + 1)
		return BLK_WRONG_ANSWER;
	return one.status;
}
PAYLOAD_FN int blk_io(struct blk *b, uint32_t type, uint64_t sector, void *data, uint32_t len)
{
	return blk_request(b, &b->q, type, sector, data, len);
}

PAYLOAD_FN void fill_pattern(uint8_t *p, uint32_t len, uint64_t seed)
{
	uint64_t s = seed * 2 + 1;

	for (uint32_t i = 0; i < len; i += 8) {
		uint64_t v = xorshift(&s);

		memcpy(p + i, &v, len - i < 8 ? len - i : 8);
	}
}

#endif
