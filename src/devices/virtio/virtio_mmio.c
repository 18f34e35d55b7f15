/* SPDX-License-Identifier: BSD-2-Clause */
/* virtio over MMIO, version 2 (virtio 1.2, 4.2.2): offsets, and nothing else. No register is read
 * with a side effect. See front.h. */
#include <linux/virtio_mmio.h>

#include <insula/base.h>

#include "front.h"

#define MMIO_MAGIC 0x74726976u  /* "virt" */
#define MMIO_VENDOR 0x414c5349u /* "ISLA" */
#define MMIO_VERSION 2u

_Static_assert(VIRTIO_MMIO_CONFIG == FRONT_CONFIG, "layout of the specification");

static void mmio_put(struct virtio_front *f, uint32_t off, uint32_t val)
{
	front_put(f, off, 4, val);
}

static void mmio_show(struct virtio_front *f)
{
	const struct virtio *v = &f->v;
	const struct vq_state *q = virtio_queue(v);

	mmio_put(f, VIRTIO_MMIO_DEVICE_FEATURES, virtio_device_features(v));
	mmio_put(f, VIRTIO_MMIO_QUEUE_NUM_MAX, q ? VQ_MAX_NUM : 0);
	mmio_put(f, VIRTIO_MMIO_QUEUE_READY, q ? q->ready : 0);
	mmio_put(f, VIRTIO_MMIO_INTERRUPT_STATUS, virtio_isr(v));
	mmio_put(f, VIRTIO_MMIO_STATUS, v->st->status);
	mmio_put(f, VIRTIO_MMIO_CONFIG_GENERATION, v->st->config_gen);
}

static void mmio_begin(struct virtio_front *f, bool resumed)
{
	(void)resumed;
	mmio_put(f, VIRTIO_MMIO_MAGIC_VALUE, MMIO_MAGIC);
	mmio_put(f, VIRTIO_MMIO_VERSION, MMIO_VERSION);
	mmio_put(f, VIRTIO_MMIO_DEVICE_ID, f->v.model->device_id);
	mmio_put(f, VIRTIO_MMIO_VENDOR_ID, MMIO_VENDOR);
	/* 4.2.2: no shared memory region has the length and the address -1. */
	mmio_put(f, VIRTIO_MMIO_SHM_LEN_LOW, UINT32_MAX);
	mmio_put(f, VIRTIO_MMIO_SHM_LEN_HIGH, UINT32_MAX);
	mmio_put(f, VIRTIO_MMIO_SHM_BASE_LOW, UINT32_MAX);
	mmio_put(f, VIRTIO_MMIO_SHM_BASE_HIGH, UINT32_MAX);
}

/* ---- registers that can be written ---- */

static void w_desc_low(struct virtio *v, uint32_t val)
{
	virtio_queue_set_addr(v, VIRTIO_DESC, false, val);
}

static void w_desc_high(struct virtio *v, uint32_t val)
{
	virtio_queue_set_addr(v, VIRTIO_DESC, true, val);
}

static void w_driver_low(struct virtio *v, uint32_t val)
{
	virtio_queue_set_addr(v, VIRTIO_DRIVER, false, val);
}

static void w_driver_high(struct virtio *v, uint32_t val)
{
	virtio_queue_set_addr(v, VIRTIO_DRIVER, true, val);
}

static void w_device_low(struct virtio *v, uint32_t val)
{
	virtio_queue_set_addr(v, VIRTIO_DEVICE, false, val);
}

static void w_device_high(struct virtio *v, uint32_t val)
{
	virtio_queue_set_addr(v, VIRTIO_DEVICE, true, val);
}

static const struct {
	uint32_t off;
	void (*write)(struct virtio *v, uint32_t val);
} regs[] = {
	{VIRTIO_MMIO_DEVICE_FEATURES_SEL, virtio_select_device_features},
	{VIRTIO_MMIO_DRIVER_FEATURES, virtio_set_driver_features},
	{VIRTIO_MMIO_DRIVER_FEATURES_SEL, virtio_select_driver_features},
	{VIRTIO_MMIO_QUEUE_SEL, virtio_select_queue},
	{VIRTIO_MMIO_QUEUE_NUM, virtio_queue_set_num},
	{VIRTIO_MMIO_QUEUE_READY, virtio_queue_set_ready},
	{VIRTIO_MMIO_INTERRUPT_ACK, virtio_ack},
	{VIRTIO_MMIO_STATUS, virtio_set_status},
	{VIRTIO_MMIO_QUEUE_DESC_LOW, w_desc_low},
	{VIRTIO_MMIO_QUEUE_DESC_HIGH, w_desc_high},
	{VIRTIO_MMIO_QUEUE_AVAIL_LOW, w_driver_low},
	{VIRTIO_MMIO_QUEUE_AVAIL_HIGH, w_driver_high},
	{VIRTIO_MMIO_QUEUE_USED_LOW, w_device_low},
	{VIRTIO_MMIO_QUEUE_USED_HIGH, w_device_high},
};

/* 4.2.2.2: registers are written with 32 bits. Everything else is ignored. */
static void mmio_write(struct virtio_front *f, uint32_t off, uint32_t size, uint64_t val)
{
	for (size_t i = 0; i < ARRAY_LEN(regs); i++) {
		if (regs[i].off == off && size == 4) {
			regs[i].write(&f->v, (uint32_t)val);
			return;
		}
	}
}

static uint64_t mmio_read(struct virtio_front *f, uint32_t off, uint32_t size)
{
	return size == 4 ? front_get(f, off, size) : UINT64_MAX;
}

static uint32_t mmio_config_vector(const struct virtio_front *f)
{
	(void)f;
	return 0;
}

const struct virtio_layout layout_mmio = {
	.config_end = DP_SHADOW_SIZE,
	.begin = mmio_begin,
	.show = mmio_show,
	.write = mmio_write,
	.read = mmio_read,
	.config_vector = mmio_config_vector,
};
