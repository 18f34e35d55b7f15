/* SPDX-License-Identifier: BSD-2-Clause */
/* virtio over PCI: the registers of virtio_pci.h. See front.h. virtio 1.2, 4.1.4.3 and 4.1.4.5. */
#include <linux/virtio_config.h>

#include <insula/base.h>

#include "front.h"
#include "virtio_pci.h"

_Static_assert(VPCI_CONFIG == FRONT_CONFIG, "where both fronts have it");
_Static_assert(VPCI_NOTIFY_PLACE + VIRTIO_MAX_QUEUES * VPCI_NOTIFY_EACH <= VPCI_CONFIG,
	       "a doorbell for each queue");

static void vpci_show_queue(struct virtio_front *f, const struct vq_state *q)
{
	front_put(f, VPCI_QUEUE_SIZE, 2, q ? q->num : 0);
	front_put(f, VPCI_QUEUE_VECTOR, 2, q ? q->vector : VPCI_NO_VECTOR);
	front_put(f, VPCI_QUEUE_ENABLE, 2, q ? q->ready : 0);
	front_put(f, VPCI_QUEUE_NOTIFY, 2, q ? f->v.st->queue_sel : 0);
	front_put(f, VPCI_QUEUE_DESC, 8, q ? q->desc : 0);
	front_put(f, VPCI_QUEUE_DRIVER, 8, q ? q->driver : 0);
	front_put(f, VPCI_QUEUE_DEVICE, 8, q ? q->device : 0);
}

/* Of 16 and 8 bits are what a hostile predecessor has left in more. */
static void vpci_show(struct virtio_front *f)
{
	const struct virtio_state *st = f->v.st;

	front_put(f, VPCI_DEVICE_FEATURE_SELECT, 4, st->device_sel);
	front_put(f, VPCI_DEVICE_FEATURE, 4, virtio_device_features(&f->v));
	front_put(f, VPCI_DRIVER_FEATURE_SELECT, 4, st->driver_sel);
	front_put(f, VPCI_DRIVER_FEATURE, 4, virtio_driver_features(&f->v));
	front_put(f, VPCI_QUEUE_SELECT, 2, st->queue_sel);
	vpci_show_queue(f, virtio_queue(&f->v));
	front_put(f, VPCI_ISR_PLACE, 1, st->isr);
	front_put(f, VPCI_STATUS, 1, st->status);
	front_put(f, VPCI_GENERATION, 1, st->config_gen);
}

static void vpci_begin(struct virtio_front *f, bool resumed)
{
	front_put(f, VPCI_NUM_QUEUES, 2, f->v.model->nqueues);
	if (!resumed)
		front_put(f, VPCI_CONFIG_VECTOR, 2, VPCI_NO_VECTOR);
}

static uint32_t vpci_config_vector(const struct virtio_front *f)
{
	return (uint32_t)front_get(f, VPCI_CONFIG_VECTOR, 2);
}

/* ---- one function per register that can be written ---- */

/* 4.1.5.1.2: a vector that there is not cannot be had, and the driver reads that. */
static uint32_t vector_or_none(const struct virtio_front *f, uint32_t val)
{
	return val < f->h->nirqs ? val : VPCI_NO_VECTOR;
}

static void vpci_w_config_vector(struct virtio *v, uint32_t val)
{
	struct virtio_front *f = v->transport;

	front_put(f, VPCI_CONFIG_VECTOR, 2, vector_or_none(f, val));
}

static void vpci_w_queue_vector(struct virtio *v, uint32_t val)
{
	virtio_queue_set_vector(v, vector_or_none(v->transport, val));
}

static void vpci_w_status(struct virtio *v, uint32_t val)
{
	virtio_set_status(v, val);
	if (!val)
		vpci_w_config_vector(v, VPCI_NO_VECTOR);
}

/* 4.1.4.3.2: queues are not disabled so. */
static void vpci_w_queue_enable(struct virtio *v, uint32_t val)
{
	if (val == 1)
		virtio_queue_set_ready(v, 1);
}

static void vpci_w_queue_reset(struct virtio *v, uint32_t val)
{
	if (val == 1)
		virtio_queue_reset(v);
}

static const struct {
	uint32_t off, size;
	void (*write)(struct virtio *v, uint32_t val);
} vpci_regs[] = {
	{VPCI_DEVICE_FEATURE_SELECT, 4, virtio_select_device_features},
	{VPCI_DRIVER_FEATURE_SELECT, 4, virtio_select_driver_features},
	{VPCI_DRIVER_FEATURE, 4, virtio_set_driver_features},
	{VPCI_CONFIG_VECTOR, 2, vpci_w_config_vector},
	{VPCI_STATUS, 1, vpci_w_status},
	{VPCI_QUEUE_SELECT, 2, virtio_select_queue},
	{VPCI_QUEUE_SIZE, 2, virtio_queue_set_num},
	{VPCI_QUEUE_VECTOR, 2, vpci_w_queue_vector},
	{VPCI_QUEUE_ENABLE, 2, vpci_w_queue_enable},
	{VPCI_QUEUE_RESET, 2, vpci_w_queue_reset},
};

/* One of the three addresses, or a half of it. */
static void vpci_write_addr(struct virtio *v, uint32_t off, uint32_t size, uint64_t val)
{
	enum virtio_area a = (off - VPCI_QUEUE_DESC) / 8;

	if (off % size || size < 4)
		return;
	if (size == 8)
		virtio_queue_set_addr(v, a, true, (uint32_t)(val >> 32));
	virtio_queue_set_addr(v, a, size == 4 && off % 8, (uint32_t)val);
}

/* 4.1.3.1: each field with its own size. Everything else is ignored. */
static void vpci_write(struct virtio_front *f, uint32_t off, uint32_t size, uint64_t val)
{
	if (off >= VPCI_QUEUE_DESC && off < VPCI_QUEUE_DEVICE + 8) {
		vpci_write_addr(&f->v, off, size, val);
		return;
	}
	for (size_t i = 0; i < ARRAY_LEN(vpci_regs); i++) {
		if (vpci_regs[i].off == off && vpci_regs[i].size == size) {
			vpci_regs[i].write(&f->v,
					   (uint32_t)(val & (UINT64_MAX >> (64 - 8 * size))));
			return;
		}
	}
}

/* 4.1.4.5: reading it clears it. There is no pin, so the ring bit means nothing. */
static uint64_t vpci_read(struct virtio_front *f, uint32_t off, uint32_t size)
{
	uint32_t isr = f->v.st->isr;

	if (off != VPCI_ISR_PLACE)
		return front_get(f, off, size);
	virtio_ack(&f->v, isr);
	return isr;
}

const struct virtio_layout layout_pci = {
	.config_end = VPCI_CONFIG_END,
	.features = UINT64_C(1) << VIRTIO_F_RING_RESET,
	.fresh = {.num = VQ_MAX_NUM, .vector = VPCI_NO_VECTOR},
	.begin = vpci_begin,
	.show = vpci_show,
	.write = vpci_write,
	.read = vpci_read,
	.config_vector = vpci_config_vector,
};
