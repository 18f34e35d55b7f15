/* SPDX-License-Identifier: BSD-2-Clause */
/* virtio over MMIO. See virtio_mmio.h. */
#include <linux/virtio_mmio.h>
#include <string.h>

#include <insula/base.h>

#include "virtio_mmio.h"

#define MMIO_MAGIC 0x74726976u /* "virt" */
#define MMIO_VERSION 2u

static void virtio_mmio_put(struct virtio_mmio *m, uint32_t off, uint32_t val)
{
	if (m->shadow[off / 4] != val)
		__atomic_store_n(&m->shadow[off / 4], val, __ATOMIC_RELEASE);
}

void vmmio_show(struct virtio_mmio *m)
{
	const struct virtio *v = &m->v;

	virtio_mmio_put(m, VIRTIO_MMIO_DEVICE_FEATURES, virtio_device_features(v));
	virtio_mmio_put(m, VIRTIO_MMIO_QUEUE_NUM_MAX, virtio_queue_max(v));
	virtio_mmio_put(m, VIRTIO_MMIO_QUEUE_READY, virtio_queue_ready(v));
	virtio_mmio_put(m, VIRTIO_MMIO_INTERRUPT_STATUS, virtio_isr(v));
	virtio_mmio_put(m, VIRTIO_MMIO_STATUS, v->st->status);
	virtio_mmio_put(m, VIRTIO_MMIO_CONFIG_GENERATION, v->st->config_gen);
}

static void show_config(struct virtio_mmio *m)
{
	const struct virtio_model *model = m->v.model;
	uint8_t config[DP_SHADOW_SIZE - VIRTIO_MMIO_CONFIG] = {0};

	if (model->config_len)
		memcpy(config, model->config, model->config_len);
	for (uint32_t i = 0; i < sizeof(config); i += 4) {
		uint32_t word;

		memcpy(&word, config + i, 4);
		virtio_mmio_put(m, VIRTIO_MMIO_CONFIG + i, word);
	}
}

void vmmio_config_changed(struct virtio_mmio *m, bool tell)
{
	/* 4.2.2.2: on both sides of the content. A driver that reads the generation before the
	 * change and one that reads it in the middle find another one afterwards. */
	m->v.st->config_gen++;
	vmmio_show(m);
	show_config(m);
	m->v.st->config_gen++;
	vmmio_show(m);
	if (tell)
		virtio_config_interrupt(&m->v);
}

/* ---- one function per register that can be written ---- */

static void w_device_sel(struct virtio *v, uint32_t val)
{
	v->st->device_sel = val;
}

static void w_driver_sel(struct virtio *v, uint32_t val)
{
	v->st->driver_sel = val;
}

static void w_queue_sel(struct virtio *v, uint32_t val)
{
	v->st->queue_sel = val;
}

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
	{VIRTIO_MMIO_DEVICE_FEATURES_SEL, w_device_sel},
	{VIRTIO_MMIO_DRIVER_FEATURES, virtio_set_driver_features},
	{VIRTIO_MMIO_DRIVER_FEATURES_SEL, w_driver_sel},
	{VIRTIO_MMIO_QUEUE_SEL, w_queue_sel},
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

void vmmio_write(struct virtio_mmio *m, uint32_t off, uint32_t size, uint64_t val)
{
	const struct virtio_model *model = m->v.model;

	/* 4.2.2.2: registers are written with 32 bits, and so are the fields of the configuration
	 * of which a driver may write any. Everything else is ignored. */
	if (size != 4)
		return;
	if (off >= VIRTIO_MMIO_CONFIG && model->configure && off % 4 == 0)
		model->configure(m->v.dev, off - VIRTIO_MMIO_CONFIG, (uint32_t)val);
	for (size_t i = 0; i < ARRAY_LEN(regs); i++) {
		if (regs[i].off == off) {
			regs[i].write(&m->v, (uint32_t)val);
			return;
		}
	}
}

uint64_t vmmio_read(const struct virtio_mmio *m, uint32_t off, uint32_t size)
{
	if (size != 4 || off % 4 || off >= DP_SHADOW_SIZE)
		return UINT64_MAX;
	return m->shadow[off / 4];
}

static void show(struct virtio *v)
{
	vmmio_show(v->transport);
}

static void irq(struct virtio *v)
{
	struct virtio_mmio *m = v->transport;

	helper_irq(m->h);
}

void vmmio_init(struct virtio_mmio *m, struct helper *h, uint32_t *shadow, struct virtio_state *st,
		bool resumed, const struct guestmem *gm, const struct virtio_model *model,
		void *dev)
{
	memset(m, 0, sizeof(*m));
	m->h = h;
	m->shadow = shadow;
	virtio_init(&m->v, st, resumed, gm, model, dev);
	/* The other process may have died between the two steps of a change. */
	st->config_gen += resumed;
	m->v.show = show;
	m->v.irq = irq;
	m->v.transport = m;
	virtio_mmio_put(m, VIRTIO_MMIO_MAGIC_VALUE, MMIO_MAGIC);
	virtio_mmio_put(m, VIRTIO_MMIO_VERSION, MMIO_VERSION);
	virtio_mmio_put(m, VIRTIO_MMIO_DEVICE_ID, model->device_id);
	virtio_mmio_put(m, VIRTIO_MMIO_VENDOR_ID, VIRTIO_MMIO_VENDOR);
	/* 4.2.2: no shared memory region has the length and the address -1. */
	virtio_mmio_put(m, VIRTIO_MMIO_SHM_LEN_LOW, UINT32_MAX);
	virtio_mmio_put(m, VIRTIO_MMIO_SHM_LEN_HIGH, UINT32_MAX);
	virtio_mmio_put(m, VIRTIO_MMIO_SHM_BASE_LOW, UINT32_MAX);
	virtio_mmio_put(m, VIRTIO_MMIO_SHM_BASE_HIGH, UINT32_MAX);
	show_config(m);
	vmmio_show(m);
}
