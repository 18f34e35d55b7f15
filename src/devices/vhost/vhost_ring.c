/* SPDX-License-Identifier: BSD-2-Clause */
/* What is undone of a split ring. See vhost_ring.h. */
#include <errno.h>
#include <poll.h>
#include <string.h>

#include "vhost_ring.h"

/* Offsets: virtio 1.2, 2.7.6 and 2.7.8. Both rings: u16 flags, u16 idx, then the entries. */
#define RING_IDX 2u
#define RING_ENTRIES 4u
#define AVAIL_ENTRY 2u
#define USED_ENTRY 8u

#define REST_MS 1     /* the driver is not in the middle of offering something */
#define REST_TRIES 50 /* it can offer so much only until the ring is full */

struct vring_view {
	uint8_t *avail, *used;           /* the guest's memory */
	uint16_t num, offered, answered; /* avail.idx, used.idx */
	uint16_t first;                  /* where the counting begins */
	uint16_t head[VQ_MAX_NUM];       /* the entries of `avail` */
	uint16_t done[VQ_MAX_NUM];       /* of `used`; what cannot be a head is `num` */
	uint8_t undone[VQ_MAX_NUM];      /* of each head: offered once more than answered */
};

/* Of each head: how far from where one looks; -1: not there. */
struct vring_places {
	int offer[VQ_MAX_NUM], answer[VQ_MAX_NUM];
};

static uint16_t vring_load16(const uint8_t *p)
{
	return __atomic_load_n((const uint16_t *)(const void *)p, __ATOMIC_ACQUIRE);
}

static void vring_view(struct vring_view *v, const struct vq_state *q, const struct guestmem *gm)
{
	uint64_t num = q->num ? q->num : 1; /* vq_check() has seen that it is not 0 */

	memset(v, 0, sizeof(*v));
	v->num = (uint16_t)num;
	v->avail = gm_ptr(gm, q->driver, RING_ENTRIES + AVAIL_ENTRY * num);
	v->used = gm_ptr(gm, q->device, RING_ENTRIES + USED_ENTRY * num);
	v->answered = vring_load16(v->used + RING_IDX);
}

static uint8_t *vring_avail_at(const struct vring_view *v, uint16_t at)
{
	return v->avail + RING_ENTRIES + AVAIL_ENTRY * (at % v->num);
}

static uint16_t vring_head(const struct vring_view *v, uint16_t at)
{
	return v->head[at % v->num];
}

static void vring_copy(struct vring_view *v)
{
	v->offered = vring_load16(v->avail + RING_IDX);
	for (uint16_t i = 0; i < v->num; i++)
		v->head[i] = vring_load16(vring_avail_at(v, i));
}

/* The guest goes on offering while there is no back end. What it offers goes where the oldest
 * entries are, and it writes the entry before the index. */
static bool vring_rests(struct vring_view *v)
{
	uint16_t before[VQ_MAX_NUM], offered;

	vring_copy(v);
	for (unsigned i = 0; i < REST_TRIES; i++) {
		offered = v->offered;
		memcpy(before, v->head, sizeof(before));
		(void)poll(NULL, 0, REST_MS);
		vring_copy(v);
		if (offered == v->offered && !memcmp(before, v->head, sizeof(before)))
			return true;
	}
	return false;
}

/* Nobody answers now. */
static void vring_copy_used(struct vring_view *v)
{
	for (uint16_t i = 0; i < v->num; i++) {
		const uint8_t *p = v->used + RING_ENTRIES + USED_ENTRY * i;
		uint32_t head =
			__atomic_load_n((const uint32_t *)(const void *)p, __ATOMIC_ACQUIRE);

		v->done[i] = head < v->num ? (uint16_t)head : v->num;
	}
}

static uint16_t vring_done(const struct vring_view *v, uint16_t at)
{
	return v->done[at % v->num];
}

/* Offered less answered. False: a head that cannot be, or that was answered more often. */
static bool vring_count(const struct vring_view *v, uint16_t from, uint8_t undone[VQ_MAX_NUM])
{
	int16_t n[VQ_MAX_NUM] = {0};

	for (uint16_t at = from; at != v->offered; at++) {
		if (vring_head(v, at) >= v->num)
			return false;
		n[vring_head(v, at)]++;
	}
	for (uint16_t at = from; at != v->answered; at++) {
		if (vring_done(v, at) >= v->num)
			return false;
		n[vring_done(v, at)]--;
	}
	for (uint16_t head = 0; head < v->num; head++) {
		if (n[head] < 0 || n[head] > 1)
			return false;
		undone[head] = (uint8_t)n[head];
	}
	return true;
}

/* ---- when a turn of the ring has hidden where the counting should begin ---- */

static bool vring_in_order(const struct vring_view *v, uint16_t from)
{
	for (uint16_t at = from; at != v->answered; at++) {
		if (vring_done(v, at) != vring_head(v, at))
			return false;
	}
	return true;
}

/* The first or the last place of each head. */
static void vring_places(const struct vring_view *v, uint16_t from, bool last,
			 struct vring_places *p)
{
	for (uint16_t head = 0; head < v->num; head++)
		p->offer[head] = p->answer[head] = -1;
	for (uint16_t at = from; at != v->offered; at++) {
		uint16_t head = vring_head(v, at);

		if (head < v->num && (last || p->offer[head] < 0))
			p->offer[head] = (uint16_t)(at - from);
	}
	for (uint16_t at = from; at != v->answered; at++) {
		uint16_t head = vring_done(v, at);

		if (head < v->num && (last || p->answer[head] < 0))
			p->answer[head] = (uint16_t)(at - from);
	}
}

/* A request that was under way at `from` is answered behind it before its head is offered again,
 * and the driver has by then offered more than was answered: so the answer's place is the lower
 * one. No head is like that: nothing offered before `from` was answered behind it. */
static bool vring_begins_clean(const struct vring_view *v, uint16_t from)
{
	struct vring_places p;

	vring_places(v, from, false, &p);
	for (uint16_t head = 0; head < v->num; head++) {
		if (p.answer[head] >= 0 && (p.offer[head] < 0 || p.offer[head] > p.answer[head]))
			return false;
	}
	return true;
}

/* False: a head cannot be undone, because its last answer came after its last offer, for the same
 * reason; or it was offered so near to `from` that it rather was answered before it. */
static bool vring_can_be(const struct vring_view *v, uint16_t from,
			 const uint8_t undone[VQ_MAX_NUM])
{
	struct vring_places p;

	vring_places(v, from, true, &p);
	for (uint16_t head = 0; head < v->num; head++) {
		if (undone[head] && (p.offer[head] < v->num / 4 || p.answer[head] >= p.offer[head]))
			return false;
	}
	return true;
}

/* Whoever counts from a later point, and can, comes to the same. */
static bool vring_agrees(const struct vring_view *v, uint16_t end)
{
	uint8_t other[VQ_MAX_NUM];

	for (uint16_t at = v->first; at != end; at++) {
		if (vring_count(v, at, other) && memcmp(other, v->undone, v->num) != 0)
			return false;
	}
	return true;
}

/* v->first is as far back as the rings reach. */
static bool vring_guess(struct vring_view *v)
{
	uint16_t half = (uint16_t)(v->answered - v->first), end;

	end = (uint16_t)(v->first + (half < v->num / 2 ? half : v->num / 2));
	if (vring_in_order(v, v->first))
		return vring_count(v, v->first, v->undone);
	for (uint16_t at = v->first; at != end; at++) {
		if (!vring_begins_clean(v, at))
			continue;
		if (vring_count(v, at, v->undone) && vring_can_be(v, at, v->undone)) {
			v->first = at;
			return true;
		}
		break;
	}
	return vring_count(v, v->first, v->undone) && vring_can_be(v, v->first, v->undone) &&
	       vring_agrees(v, end);
}

/* Fill in v->undone, and v->first for vring_sort(). After 65536 requests an old `since` looks new
 * again; then less is looked at. */
static bool vring_find(struct vring_view *v, uint16_t since)
{
	uint16_t undone = (uint16_t)(v->offered - v->answered);
	uint16_t age = (uint16_t)(v->offered - since);

	vring_copy_used(v);
	v->first = (uint16_t)(v->offered - v->num);
	if (undone > age || age > v->num)
		return vring_guess(v);
	v->first = since;
	return vring_count(v, since, v->undone);
}

/* The undone heads, oldest first; each where it was offered last. How many there are. */
static unsigned vring_sort(const struct vring_view *v, uint16_t list[VQ_MAX_NUM])
{
	bool seen[VQ_MAX_NUM] = {false};
	unsigned n = 0;

	for (uint16_t at = v->offered; at != v->first; at--) {
		uint16_t head = vring_head(v, (uint16_t)(at - 1));

		if (head >= v->num || seen[head])
			continue;
		seen[head] = true;
		if (v->undone[head])
			list[n++] = head;
	}
	for (unsigned i = 0; i < n / 2; i++) {
		uint16_t other = list[n - 1 - i];

		list[n - 1 - i] = list[i];
		list[i] = other;
	}
	return n;
}

uint16_t vring_used(const struct vq_state *q, const struct guestmem *gm)
{
	struct vring_view v;

	vring_view(&v, q, gm);
	return v.answered;
}

int vring_mend(const struct vq_state *q, const struct guestmem *gm, uint16_t *since, struct err *e)
{
	uint16_t list[VQ_MAX_NUM], undone;
	struct vring_view v;

	vring_view(&v, q, gm);
	if (!vring_rests(&v))
		return err_set(e, -EAGAIN, "the driver offers requests without a pause");
	undone = (uint16_t)(v.offered - v.answered);
	if (undone > v.num)
		return err_set(e, -EINVAL, "%u requests were offered and %u answered", v.offered,
			       v.answered);
	if (undone && (!vring_find(&v, *since) || vring_sort(&v, list) != undone))
		return err_set(e, -EINVAL,
			       "which requests the back end has not answered cannot be told");
	for (uint16_t i = 0; i < undone; i++)
		__atomic_store_n((uint16_t *)(void *)vring_avail_at(&v, (uint16_t)(v.answered + i)),
				 list[i], __ATOMIC_RELEASE);
	*since = v.answered;
	return undone;
}
