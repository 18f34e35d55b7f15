/* SPDX-License-Identifier: BSD-2-Clause */
/* What both fronts have in common. See front.h. */
#include <string.h>

#include <insula/base.h>

#include "front.h"

_Static_assert(DEVICE_MAX_VECTORS <= 32, "a bit for each vector");

/* ---- the shadow page ---- */

uint64_t front_get(const struct virtio_front *f, uint32_t off, uint32_t size)
{
	const void *at = f->shadow + off;

	switch (size) {
	case 1:
		return __atomic_load_n((const uint8_t *)at, __ATOMIC_RELAXED);
	case 2:
		return __atomic_load_n((const uint16_t *)at, __ATOMIC_RELAXED);
	case 4:
		return __atomic_load_n((const uint32_t *)at, __ATOMIC_RELAXED);
	default:
		return __atomic_load_n((const uint64_t *)at, __ATOMIC_RELAXED);
	}
}

void front_put(struct virtio_front *f, uint32_t off, uint32_t size, uint64_t val)
{
	void *at = f->shadow + off;

	if (front_get(f, off, size) == val)
		return;
	switch (size) {
	case 1:
		__atomic_store_n((uint8_t *)at, (uint8_t)val, __ATOMIC_RELEASE);
		return;
	case 2:
		__atomic_store_n((uint16_t *)at, (uint16_t)val, __ATOMIC_RELEASE);
		return;
	case 4:
		__atomic_store_n((uint32_t *)at, (uint32_t)val, __ATOMIC_RELEASE);
		return;
	default:
		__atomic_store_n((uint64_t *)at, val, __ATOMIC_RELEASE);
	}
}

void front_show(struct virtio_front *f)
{
	f->layout->show(f);
}

static void show_config(struct virtio_front *f)
{
	const struct virtio_model *model = f->v.model;
	uint8_t config[DP_SHADOW_SIZE - FRONT_CONFIG] = {0};

	if (model->config_len)
		memcpy(config, model->config, model->config_len);
	for (uint32_t i = 0; i < f->layout->config_end - FRONT_CONFIG; i += 4) {
		uint32_t word;

		memcpy(&word, config + i, 4);
		front_put(f, FRONT_CONFIG + i, 4, word);
	}
}

void front_config_changed(struct virtio_front *f, bool tell)
{
	/* 4.2.2.2: on both sides of the content. A driver that reads the generation before the
	 * change and one that reads it in the middle find another one afterwards. */
	f->v.st->config_gen++;
	front_show(f);
	show_config(f);
	f->v.st->config_gen++;
	front_show(f);
	if (tell)
		virtio_config_interrupt(&f->v);
}

/* ---- accesses ---- */

void front_write(struct virtio_front *f, uint32_t off, uint32_t size, uint64_t val)
{
	const struct virtio_model *model = f->v.model;

	if (off < FRONT_CONFIG)
		f->layout->write(f, off, size, val);
	else if (off < f->layout->config_end && model->configure)
		model->configure(f->v.dev, off - FRONT_CONFIG, size, val);
}

uint64_t front_read(struct virtio_front *f, uint32_t off, uint32_t size)
{
	if (off % size || off > DP_SHADOW_SIZE - size)
		return UINT64_MAX;
	return f->layout->read(f, off, size);
}

/* ---- interrupts ---- */

int front_event(const struct virtio_front *f, uint32_t vector)
{
	return vector < f->h->nirqs ? f->h->irq_fd[vector] : -1;
}

static uint32_t vector_bit(const struct virtio_front *f, uint32_t vector)
{
	return vector < f->h->nirqs ? 1u << vector : 0;
}

uint32_t front_vector(const struct virtio_front *f, unsigned i)
{
	return vector_bit(f, atomic_load_explicit(&f->v.st->q[i].vector, memory_order_relaxed));
}

static void raise_all(struct virtio_front *f, uint32_t due)
{
	for (; due; due &= due - 1)
		helper_irq(f->h, (unsigned)__builtin_ctz(due));
}

static uint32_t queue_vectors(const struct virtio_front *f)
{
	uint32_t due = 0;

	for (unsigned i = 0; i < f->v.model->nqueues; i++) {
		if (f->v.st->q[i].ready)
			due |= front_vector(f, i);
	}
	return due;
}

void front_irq_queues(struct virtio_front *f)
{
	raise_all(f, queue_vectors(f));
}

static void irq(struct virtio *v, bool all)
{
	struct virtio_front *f = v->transport;
	uint32_t due = vector_bit(f, f->layout->config_vector(f));

	raise_all(f, all ? due | queue_vectors(f) : due);
}

/* ---- start ---- */

static void show(struct virtio *v)
{
	front_show(v->transport);
}

void front_init(struct virtio_front *f, struct helper *h, const struct guestmem *gm,
		const struct virtio_model *model, void *dev)
{
	struct virtio_state *st = h->port.dev_state;

	memset(f, 0, sizeof(*f));
	f->h = h;
	f->layout = h->msix ? &layout_pci : &layout_mmio;
	f->shadow = h->port.shadow;
	f->v.show = show;
	f->v.irq = irq;
	f->v.transport = f;
	f->v.features = f->layout->features;
	f->v.fresh = f->layout->fresh;
	virtio_init(&f->v, st, h->port.resumed, gm, model, dev);
	/* The other process may have died between the two steps of a change. */
	st->config_gen += h->port.resumed;
	f->layout->begin(f, h->port.resumed);
	show_config(f);
	front_show(f);
}
