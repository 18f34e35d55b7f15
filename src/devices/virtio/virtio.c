/* SPDX-License-Identifier: BSD-2-Clause */
/* A virtio 1.2 device without its transport. See virtio.h. */
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <stddef.h>
#include <string.h>

#include <insula/log.h>

#include "virtio.h"

#define BIT(n) (UINT64_C(1) << (n))
#define COMMON_FEATURES \
	(BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_RING_F_EVENT_IDX) | BIT(VIRTIO_RING_F_INDIRECT_DESC))
#define FOUND (VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER)
#define DRIVER_BITS                                                                           \
	(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK | \
	 VIRTIO_CONFIG_S_DRIVER_OK | VIRTIO_CONFIG_S_FAILED)

static uint64_t offered(const struct virtio *v)
{
	return v->model->features | (v->model->foreign ? 0 : COMMON_FEATURES | v->features);
}

static bool negotiated(const struct virtio *v, unsigned feature)
{
	return v->st->driver_features >> feature & 1;
}

static bool has(const struct virtio *v, uint32_t status_bits)
{
	return (v->st->status & status_bits) == status_bits;
}

/* ---- queues as a whole ---- */

static void stop_queues(struct virtio *v)
{
	if (!v->running)
		return;
	v->model->stop(v->dev);
	v->running = false;
}

static bool start_queue(struct virtio *v, unsigned i, bool resume, struct err *e)
{
	struct vq_state *st = &v->st->q[i];

	memset(&v->vq[i], 0, sizeof(v->vq[i]));
	if (i >= v->model->nqueues || !st->ready)
		return true;
	if (v->model->foreign || (v->model->lent && (v->model->lent(v->dev) >> i & 1)))
		return vq_check(st, v->gm, e) == 0;
	return vq_start(&v->vq[i], st, v->gm, v->st->driver_features, resume, e) == 0;
}

#define NO_QUEUE VIRTIO_MAX_QUEUES

/* `fresh`: of those that are resumed this one begins, or NO_QUEUE. */
static void start_queues(struct virtio *v, bool resume, unsigned fresh)
{
	struct err e;

	for (unsigned i = 0; i < VIRTIO_MAX_QUEUES; i++) {
		if (!start_queue(v, i, resume && i != fresh, &e)) {
			virtio_fail(v, e.text);
			return;
		}
	}
	v->running = true;
	/* The guest may look at the registers as soon as the first interrupt comes. */
	v->show(v);
	v->model->start(v->dev);
}

/* ---- features and status ---- */

void virtio_select_device_features(struct virtio *v, uint32_t half)
{
	v->st->device_sel = half;
}

void virtio_select_driver_features(struct virtio *v, uint32_t half)
{
	v->st->driver_sel = half;
}

uint32_t virtio_device_features(const struct virtio *v)
{
	uint32_t sel = v->st->device_sel;

	return sel < 2 ? (uint32_t)(offered(v) >> (32 * sel)) : 0;
}

uint32_t virtio_driver_features(const struct virtio *v)
{
	uint32_t sel = v->st->driver_sel;

	return sel < 2 ? (uint32_t)(v->st->driver_features >> (32 * sel)) : 0;
}

void virtio_set_driver_features(struct virtio *v, uint32_t half)
{
	uint32_t sel = v->st->driver_sel;
	uint64_t mask;

	/* 2.2.1: they do not change after FEATURES_OK. */
	if (sel >= 2 || has(v, VIRTIO_CONFIG_S_FEATURES_OK))
		return;
	mask = UINT64_C(0xffffffff) << (32 * sel);
	v->st->driver_features = (v->st->driver_features & ~mask) | ((uint64_t)half << (32 * sel));
}

static bool features_ok(const struct virtio *v)
{
	uint64_t f = v->st->driver_features;

	return (f & ~offered(v)) == 0 && (f & BIT(VIRTIO_F_VERSION_1));
}

static void clear_queue(const struct virtio *v, struct vq_state *q)
{
	memset(q, 0, sizeof(*q));
	q->num = v->fresh.num;
	q->vector = v->fresh.vector;
}

/* Of the queues, those that the device has: the page of memory that nobody touches costs nothing.
 */
static void clear_state(struct virtio *v)
{
	memset(v->st, 0, offsetof(struct virtio_state, q));
	for (unsigned i = 0; i < v->model->nqueues; i++)
		clear_queue(v, &v->st->q[i]);
}

static void reset(struct virtio *v)
{
	/* First quiet, then clear: the guest may set up the device again as soon as it hears the
	 * answer. A kill in between leaves a device without DRIVER_OK, and the reset is asked for
	 * again. */
	stop_queues(v);
	*(volatile uint32_t *)&v->st->status = 0;
	atomic_signal_fence(memory_order_seq_cst);
	uint32_t gen = v->st->config_gen;
	clear_state(v);
	v->st->config_gen = gen;
	memset(v->vq, 0, sizeof(v->vq));
	if (v->model->reset)
		v->model->reset(v->dev);
}

void virtio_set_status(struct virtio *v, uint32_t val)
{
	uint32_t add = val & DRIVER_BITS & ~v->st->status; /* only a reset clears bits */

	if (val == 0) {
		reset(v);
		return;
	}
	/* 3.1.1: the steps in their order; a step that is refused does not show. A driver whose
	 * accesses got lost behind a reset lacks the first ones, and hears of it here. */
	if ((add & VIRTIO_CONFIG_S_FEATURES_OK) &&
	    (!features_ok(v) || ((v->st->status | add) & FOUND) != FOUND))
		add &= ~(uint32_t)VIRTIO_CONFIG_S_FEATURES_OK;
	if (!((v->st->status | add) & VIRTIO_CONFIG_S_FEATURES_OK))
		add &= ~(uint32_t)VIRTIO_CONFIG_S_DRIVER_OK;
	v->st->status |= add;
	if (!(add & VIRTIO_CONFIG_S_DRIVER_OK))
		return;
	if (has(v, VIRTIO_CONFIG_S_NEEDS_RESET))
		virtio_config_interrupt(v); /* before DRIVER_OK there was none */
	else
		start_queues(v, false, NO_QUEUE);
}

/* ---- interrupts ---- */

/* The ring bit is set as long as the driver is there: looking at the rings once too often does no
 * harm, and the guest's acknowledgement of it never has to reach anybody. The configuration bit is
 * exact. */
uint32_t virtio_isr(const struct virtio *v)
{
	return v->st->isr | (has(v, VIRTIO_CONFIG_S_DRIVER_OK) ? VIRTIO_ISR_RING : 0);
}

void virtio_ack(struct virtio *v, uint32_t bits)
{
	v->st->isr &= ~(bits & VIRTIO_ISR_CONFIG);
}

void virtio_config_interrupt(struct virtio *v)
{
	if (has(v, VIRTIO_CONFIG_S_DRIVER_OK))
		v->st->isr |= VIRTIO_ISR_CONFIG;
	v->show(v);
	if (has(v, VIRTIO_CONFIG_S_DRIVER_OK))
		v->irq(v, false);
}

void virtio_fail(struct virtio *v, const char *why)
{
	stop_queues(v);
	if (has(v, VIRTIO_CONFIG_S_NEEDS_RESET))
		return;
	log_warn("device needs a reset: %s", why);
	v->st->status |= VIRTIO_CONFIG_S_NEEDS_RESET;
	virtio_config_interrupt(v);
}

/* ---- one queue ---- */

void virtio_select_queue(struct virtio *v, uint32_t i)
{
	v->st->queue_sel = i;
}

static struct vq_state *selected(const struct virtio *v)
{
	uint32_t i = v->st->queue_sel;

	return i < v->model->nqueues ? &v->st->q[i] : NULL;
}

/* The registers of a queue are writable until it is ready, and while the driver runs only if it may
 * reset queues. */
static struct vq_state *writable(const struct virtio *v)
{
	struct vq_state *q = selected(v);

	if (has(v, VIRTIO_CONFIG_S_DRIVER_OK) && !negotiated(v, VIRTIO_F_RING_RESET))
		return NULL;
	return q && !q->ready ? q : NULL;
}

const struct vq_state *virtio_queue(const struct virtio *v)
{
	return selected(v);
}

void virtio_queue_set_num(struct virtio *v, uint32_t num)
{
	struct vq_state *q = writable(v);

	if (q)
		q->num = num;
}

void virtio_queue_set_addr(struct virtio *v, enum virtio_area a, bool high, uint32_t half)
{
	struct vq_state *q = writable(v);
	unsigned shift = high ? 32 : 0;
	gpa_t *p;

	if (!q)
		return;
	p = a == VIRTIO_DESC ? &q->desc : a == VIRTIO_DRIVER ? &q->driver : &q->device;
	*p = (*p & ~(UINT64_C(0xffffffff) << shift)) | ((gpa_t)half << shift);
}

/* A driver takes a queue away (Linux does when it lets go of a device): nothing may touch it any
 * more. */
static void disable(struct virtio *v, struct vq_state *q)
{
	bool was = v->running;

	stop_queues(v);
	clear_queue(v, q);
	/* The other queues go on where they stopped: nothing of theirs is in flight. */
	if (was)
		start_queues(v, true, NO_QUEUE);
}

static void enable(struct virtio *v, struct vq_state *q)
{
	bool was = v->running;

	stop_queues(v);
	q->ready = 1;
	if (was)
		start_queues(v, true, v->st->queue_sel);
}

void virtio_queue_set_ready(struct virtio *v, uint32_t ready)
{
	struct vq_state *q = selected(v);
	struct err e;

	if (q && q->ready && !(ready & 1))
		disable(v, q);
	q = writable(v);
	if (!q || !(ready & 1))
		return;
	if (vq_check(q, v->gm, &e))
		virtio_fail(v, e.text);
	else
		enable(v, q);
}

void virtio_queue_reset(struct virtio *v)
{
	struct vq_state *q = selected(v);

	if (q && negotiated(v, VIRTIO_F_RING_RESET))
		disable(v, q);
}

void virtio_queue_set_vector(struct virtio *v, uint32_t vector)
{
	struct vq_state *q = selected(v);

	if (!q || q->vector == vector)
		return;
	q->vector = vector;
	if (!v->running || !q->ready)
		return;
	if (v->model->vector)
		v->model->vector(v->dev, v->st->queue_sel);
	/* Whoever signals may have looked before, and the old one may be masked by now. One too
	 * many does no harm. */
	v->irq(v, true);
}

/* ---- start and restart ---- */

void virtio_init(struct virtio *v, struct virtio_state *st, bool resumed, const struct guestmem *gm,
		 const struct virtio_model *model, void *dev)
{
	v->st = st;
	v->gm = gm;
	v->model = model;
	v->dev = dev;
	v->running = false;
	memset(v->vq, 0, sizeof(v->vq));
	if (!resumed)
		clear_state(v);
	st->status &= DRIVER_BITS | VIRTIO_CONFIG_S_NEEDS_RESET;
	st->isr &= VIRTIO_ISR_CONFIG;
}

void virtio_resume(struct virtio *v)
{
	if (!has(v, VIRTIO_CONFIG_S_DRIVER_OK))
		return;
	/* Another binary or another disk behind the same driver: it must not find out by accident.
	 */
	if (!features_ok(v))
		virtio_fail(v, "the features that were negotiated are not offered any more");
	else if (!v->running && !has(v, VIRTIO_CONFIG_S_NEEDS_RESET))
		start_queues(v, true, NO_QUEUE);
	/* The other process may have died just before an interrupt. One too many does no harm. */
	v->show(v);
	v->irq(v, true);
}
