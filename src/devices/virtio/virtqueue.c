/* SPDX-License-Identifier: BSD-2-Clause */
/* Split virtqueues. See virtqueue.h. Offsets: virtio 1.2, 2.7.5, 2.7.6, 2.7.8. */
#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <string.h>

#include "virtqueue.h"

/* Both rings: u16 flags, u16 idx, then the entries. */
#define AVAIL_RING 4u
#define USED_RING 4u
#define USED_ELEM 8u
#define DESC_SIZE 16u

_Static_assert(sizeof(struct vring_desc) == DESC_SIZE, "layout of the specification");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "rings are little endian");

static uint64_t avail_bytes(uint32_t num)
{
	return AVAIL_RING + 2u * (uint64_t)num +
	       2u; /* used_event is there whether it is used or not */
}

static uint64_t used_bytes(uint32_t num)
{
	return USED_RING + USED_ELEM * (uint64_t)num + 2u;
}

/* ---- one access each, never repeated by the compiler ---- */

static uint16_t load16(const uint8_t *p)
{
	return __atomic_load_n((const uint16_t *)(const void *)p, __ATOMIC_ACQUIRE);
}

static void store16(uint8_t *p, uint16_t v)
{
	__atomic_store_n((uint16_t *)(void *)p, v, __ATOMIC_RELEASE);
}

static struct vring_desc read_desc(const uint8_t *table, uint32_t i)
{
	struct vring_desc d;

	/* Indirect tables have no alignment. The barrier makes the copy final. */
	memcpy(&d, table + (size_t)i * DESC_SIZE, sizeof(d));
	__asm__ volatile("" : : : "memory");
	return d;
}

static uint8_t *used_event(const struct virtqueue *q)
{
	return q->avail + AVAIL_RING + 2u * q->num;
}

static uint8_t *avail_event(const struct virtqueue *q)
{
	return q->used + USED_RING + USED_ELEM * q->num;
}

/* ---- set-up ---- */

static bool in_memory(const struct guestmem *gm, gpa_t gpa, uint64_t len, uint64_t align)
{
	return gpa % align == 0 && gm_ptr(gm, gpa, len);
}

int vq_check(const struct vq_state *st, const struct guestmem *gm, struct err *e)
{
	uint32_t num = st->num;

	if (num == 0 || num > VQ_MAX_NUM || (num & (num - 1)))
		return err_set(e, -EINVAL, "queue size %u", num);
	if (!in_memory(gm, st->desc, (uint64_t)num * DESC_SIZE, VRING_DESC_ALIGN_SIZE))
		return err_set(e, -EINVAL, "descriptor table at %#llx",
			       (unsigned long long)st->desc);
	if (!in_memory(gm, st->driver, avail_bytes(num), VRING_AVAIL_ALIGN_SIZE))
		return err_set(e, -EINVAL, "driver area at %#llx", (unsigned long long)st->driver);
	if (!in_memory(gm, st->device, used_bytes(num), VRING_USED_ALIGN_SIZE))
		return err_set(e, -EINVAL, "device area at %#llx", (unsigned long long)st->device);
	return 0;
}

/* The helper died between used.idx and the last store of a batch: finish it. */
static int finish_batch(struct virtqueue *q, struct err *e)
{
	uint16_t idx = load16(q->used + 2);
	uint16_t done = (uint16_t)(idx - q->st->used_idx);
	uint16_t head = q->st->last_batch;

	if (done > q->num)
		return err_set(e, -EINVAL, "used.idx %u, at least %u expected", idx,
			       q->st->used_idx);
	for (; done; done--) {
		struct vq_slot *s = &q->st->slot[head % q->num];

		s->busy = 0;
		head = s->next;
	}
	q->st->used_idx = idx;
	return 0;
}

/* Sort the busy heads by the order in which they were taken; there are few, and it happens once. */
static void collect_busy(struct virtqueue *q)
{
	const struct vq_slot *slot = q->st->slot;

	for (uint16_t head = 0; head < q->num; head++) {
		uint16_t i = q->nresume;

		if (!slot[head].busy)
			continue;
		for (; i && slot[q->resume[i - 1]].order > slot[head].order; i--)
			q->resume[i] = q->resume[i - 1];
		q->resume[i] = head;
		q->nresume++;
	}
	if (q->nresume)
		q->order = slot[q->resume[q->nresume - 1]].order + 1;
}

int vq_start(struct virtqueue *q, struct vq_state *st, const struct guestmem *gm, uint64_t features,
	     bool resume, struct err *e)
{
	int rc;

	memset(q, 0, sizeof(*q));
	rc = vq_check(st, gm, e);
	if (rc)
		return rc;
	q->st = st;
	q->gm = gm;
	q->num = (uint16_t)st->num;
	q->desc = gm_ptr(gm, st->desc, (uint64_t)q->num * DESC_SIZE);
	q->avail = gm_ptr(gm, st->driver, avail_bytes(q->num));
	q->used = gm_ptr(gm, st->device, used_bytes(q->num));
	q->event_idx = features >> VIRTIO_RING_F_EVENT_IDX & 1;
	q->indirect = features >> VIRTIO_RING_F_INDIRECT_DESC & 1;
	if (!resume)
		return 0;
	rc = finish_batch(q, e);
	if (rc) {
		q->num = 0;
		return rc;
	}
	collect_busy(q);
	q->used_idx = st->used_idx;
	q->last_avail = (uint16_t)(q->used_idx + q->nresume);
	return 0;
}

void vq_watch(struct virtqueue *q, struct vq_state *st, const struct guestmem *gm,
	      uint64_t features)
{
	struct err e;

	memset(q, 0, sizeof(*q));
	if (st->ready && !vq_start(q, st, gm, features, false, &e))
		q->used_idx = load16(q->used + 2);
}

unsigned vq_resumed(const struct virtqueue *q)
{
	return q->nresume;
}

/* ---- kicks ---- */

/* While we look anyway. With event indexes nothing has to be done: the driver kicks when it passes
 * avail_event, once. */
static void disarm(struct virtqueue *q)
{
	if (q->armed && !q->event_idx)
		store16(q->used, VRING_USED_F_NO_NOTIFY);
	q->armed = false;
}

unsigned vq_pending(const struct virtqueue *q)
{
	return (unsigned)(q->nresume - q->iresume) +
	       (uint16_t)(load16(q->avail + 2) - q->last_avail);
}

bool vq_waiting(const struct virtqueue *q)
{
	return vq_pending(q) != 0;
}

/*
 * Each side stores one word and then looks at the other's: the driver avail.idx and then our wish,
 * we the wish and then avail.idx. Processors may let the look go first, also x86. So each side has
 * a full barrier between the two, and then at least one of them sees the other's store: the driver
 * kicks, or we find its chain. Acquire and release would not do. A wish that stands already was
 * made with its barrier, and nothing was taken since. vq_publish() is the same the other way round:
 * used.idx, barrier, used_event.
 */
bool vq_arm(struct virtqueue *q)
{
	if (!q->armed) {
		if (q->event_idx)
			store16(avail_event(q), q->last_avail);
		else
			store16(q->used, 0);
		q->armed = true;
		atomic_thread_fence(memory_order_seq_cst);
	}
	return vq_waiting(q);
}

uint16_t vq_offered(const struct virtqueue *q)
{
	return load16(q->avail + 2);
}

bool vq_arm_past(struct virtqueue *q, uint16_t idx)
{
	if (q->event_idx)
		store16(avail_event(q), idx);
	else
		store16(q->used, 0);
	q->armed = !q->event_idx; /* vq_arm() asks for another index */
	atomic_thread_fence(memory_order_seq_cst);
	return vq_offered(q) != idx;
}

bool vq_seen(const struct virtqueue *q)
{
	return !q->event_idx || load16(used_event(q)) == q->used_idx;
}

/* ---- chains ---- */

static int mistake(struct virtqueue *q, const char *why)
{
	q->why = why;
	return -EINVAL;
}

static int add_segment(struct virtqueue *q, struct vq_chain *c, const struct vring_desc *d)
{
	bool writable = d->flags & VRING_DESC_F_WRITE;
	uint64_t *total = writable ? &c->write_len : &c->read_len;
	void *p = gm_ptr(q->gm, d->addr, d->len);

	if (!p)
		return mistake(q, "a buffer is empty or not in memory");
	if (!writable && c->nwrite)
		return mistake(q, "a readable buffer behind a writable one");
	c->iov[c->nread + c->nwrite] = (struct iovec){.iov_base = p, .iov_len = d->len};
	*total += d->len;
	if (writable)
		c->nwrite++;
	else
		c->nread++;
	/* 2.7.5.2: the chain is at most 2^32 bytes long. */
	if (c->read_len + c->write_len > UINT64_C(1) << 32)
		return mistake(q, "a chain of more than 4 GiB");
	return 0;
}

struct table { /* where the walk is: the queue's table or an indirect one */
	const uint8_t *desc;
	uint32_t num;
	bool indirect;
};

static int enter_indirect(struct virtqueue *q, struct table *t, const struct vring_desc *d)
{
	if (!q->indirect)
		return mistake(q, "an indirect descriptor, which was not negotiated");
	if (t->indirect || (d->flags & VRING_DESC_F_NEXT))
		return mistake(q, "an indirect descriptor inside a table or with a next one");
	if (d->len % DESC_SIZE || d->len > VQ_MAX_NUM * DESC_SIZE)
		return mistake(q, "an indirect table of a wrong size");
	t->desc = gm_ptr(q->gm, d->addr, d->len);
	if (!t->desc)
		return mistake(q, "an indirect table that is empty or not in memory");
	t->num = d->len / DESC_SIZE;
	t->indirect = true;
	return 0;
}

static int walk(struct virtqueue *q, struct vq_chain *c, uint16_t head)
{
	struct table t = {.desc = q->desc, .num = q->num};
	uint32_t i = head;

	*c = (struct vq_chain){.head = head, .iov = c->iov};
	/* Each round adds a segment or enters the one indirect table: a cycle ends at the limit.
	 * 2.7.5.3.1: no chain is longer than the queue. But Linux goes by seg_max alone when it
	 * fills an indirect table, so there the limit is the longest chain of any queue. */
	for (;;) {
		struct vring_desc d = read_desc(t.desc, i);
		int rc;

		if (d.flags & VRING_DESC_F_INDIRECT) {
			rc = enter_indirect(q, &t, &d);
			i = 0;
			if (rc)
				return rc;
			continue;
		}
		if (!t.indirect && c->nread + c->nwrite >= q->num)
			return mistake(q, "a chain longer than the queue");
		if (c->nread + c->nwrite >= VQ_MAX_NUM)
			return mistake(q, "a chain longer than any queue");
		rc = add_segment(q, c, &d);
		if (rc)
			return rc;
		if (!(d.flags & VRING_DESC_F_NEXT))
			return 1;
		i = d.next;
		if (i >= t.num)
			return mistake(q, "a next descriptor outside its table");
	}
}

int vq_next(struct virtqueue *q, struct vq_chain *c)
{
	uint16_t head, waiting;
	struct vq_slot *s;

	if (q->iresume < q->nresume)
		return walk(q, c, q->resume[q->iresume++]);
	waiting = (uint16_t)(load16(q->avail + 2) - q->last_avail);
	if (waiting == 0)
		return 0;
	disarm(q);
	if (waiting > q->num)
		return mistake(q, "avail.idx is further ahead than the queue is long");
	head = load16(q->avail + AVAIL_RING + 2u * (q->last_avail % q->num));
	if (head >= q->num)
		return mistake(q, "a head outside the descriptor table");
	s = &q->st->slot[head];
	if (s->busy)
		return mistake(q, "a head that is in flight already");
	s->order = q->order++;
	atomic_store_explicit(&s->busy, 1, memory_order_release);
	q->last_avail++;
	return walk(q, c, head);
}

/* ---- giving back ---- */

void vq_push(struct virtqueue *q, uint16_t head, uint32_t len)
{
	uint16_t at = (uint16_t)(q->used_idx + q->batch) % q->num;
	uint16_t last = atomic_load_explicit(&q->st->last_batch, memory_order_relaxed);
	uint32_t elem[2] = {head, len};

	memcpy(q->used + USED_RING + (size_t)at * USED_ELEM, elem, sizeof(elem));
	/* Nobody follows the list beyond the batch, so the first of it is the last of the list. */
	if (q->batch)
		atomic_store_explicit(&q->st->slot[head].next, last, memory_order_relaxed);
	atomic_store_explicit(&q->st->last_batch, head, memory_order_release);
	q->batch++;
}

static void clear_batch(struct virtqueue *q)
{
	uint16_t head = q->st->last_batch;

	for (; q->batch; q->batch--) {
		struct vq_slot *s = &q->st->slot[head % q->num];

		head = s->next;
		atomic_store_explicit(&s->busy, 0, memory_order_release);
	}
}

static bool wants_irq(const struct virtqueue *q, uint16_t old)
{
	if (!q->event_idx)
		return !(load16(q->avail) & VRING_AVAIL_F_NO_INTERRUPT);
	return vring_need_event(load16(used_event(q)), q->used_idx, old);
}

bool vq_publish(struct virtqueue *q)
{
	uint16_t old = q->used_idx;

	if (!q->batch)
		return false;
	q->used_idx = (uint16_t)(old + q->batch);
	store16(q->used + 2, q->used_idx);
	clear_batch(q);
	atomic_store_explicit(&q->st->used_idx, q->used_idx, memory_order_release);
	atomic_thread_fence(memory_order_seq_cst);
	return wants_irq(q, old);
}
