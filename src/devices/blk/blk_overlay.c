/* SPDX-License-Identifier: BSD-2-Clause */
/* Copy on write: the index, and who may change it. See blk_overlay.h. */
#include <errno.h>
#include <string.h>

#include <insula/base.h>

#include "blk.h"

/* In flags[], of a page of the index. One byte, so that one store leads from one to the other. */
#define OVERLAY_DIRTY 1u   /* it has bits that are not stable */
#define OVERLAY_WRITING 2u /* it has, and they are frozen */

#define OVERLAY_WORD 64u                  /* blocks of a word of the index */
#define OVERLAY_WORDS (OVERLAY_PAGE / 8u) /* of a page */
#define OVERLAY_BITS (OVERLAY_PAGE * 8u)  /* blocks of a page */
#define OVERLAY_WRITE (UINT64_C(1) << 20) /* bytes of the index in one write, at most */

/* ---- bits ---- */

static uint64_t overlay_word(const struct blk_overlay *o, uint64_t block)
{
	return atomic_load_explicit(&o->live[block / OVERLAY_WORD], memory_order_acquire);
}

static bool overlay_bit(const struct blk_overlay *o, uint64_t block)
{
	return overlay_word(o, block) >> block % OVERLAY_WORD & 1;
}

/* The first block from `b` on, and before `end`, that is elsewhere; `end` if none is. */
static uint64_t same_until(const struct blk_overlay *o, uint64_t b, uint64_t end, bool over)
{
	while (b < end) {
		uint64_t w = overlay_word(o, b);

		w = (over ? ~w : w) & ~UINT64_C(0) << b % OVERLAY_WORD;
		b -= b % OVERLAY_WORD;
		if (w)
			b += (unsigned)__builtin_ctzll(w);
		else
			b += OVERLAY_WORD;
		if (w)
			break;
	}
	return b < end ? b : end;
}

uint64_t blk_overlay_run(const struct blk_overlay *o, uint64_t off, uint64_t len, bool *over)
{
	uint64_t first = off / OVERLAY_BLOCK, end = overlay_up(off + len, OVERLAY_BLOCK), n;

	*over = overlay_bit(o, first);
	n = same_until(o, first, end / OVERLAY_BLOCK, *over) * OVERLAY_BLOCK - off;
	return n < len ? n : len;
}

bool blk_overlay_has(const struct blk_overlay *o, uint64_t off, uint64_t len)
{
	bool over;

	return blk_overlay_run(o, off, len, &over) == len && over;
}

/* Under the lock. Before a bit is set, its page is known to be dirty: there is no instruction after
 * which a bit would be forgotten. */
static void set_bits(struct blk_overlay *o, uint64_t first, uint64_t end)
{
	if (!o->thrown_away) {
		for (uint64_t p = first / OVERLAY_BITS; p * OVERLAY_BITS < end; p++)
			atomic_fetch_or(&o->flags[p], OVERLAY_DIRTY);
		o->dirty = true;
	}
	for (uint64_t b = first; b < end;) {
		uint64_t n = OVERLAY_WORD - b % OVERLAY_WORD, bits;

		if (n > end - b)
			n = end - b;
		bits = n == OVERLAY_WORD ? ~UINT64_C(0) : (UINT64_C(1) << n) - 1;
		atomic_fetch_or_explicit(&o->live[b / OVERLAY_WORD], bits << b % OVERLAY_WORD,
					 memory_order_release);
		b += n;
	}
}

/* ---- who holds which blocks ---- */

static bool overlap(const struct blk_req *a, const struct blk_req *b)
{
	return a->hold.first < b->hold.end && b->hold.first < a->hold.end;
}

/* Has another one that came before it a block of it? */
static bool behind_another(const struct blk_overlay *o, const struct blk_req *r)
{
	const struct blk_req *q = o->queue;

	while (q != r && !overlap(q, r))
		q = q->hold.next;
	return q != r;
}

/* It holds now: nobody else sets a bit of these blocks. */
static void plan_gaps(const struct blk_overlay *o, struct blk_req *r)
{
	struct overlay_hold *h = &r->hold;
	uint64_t end = r->off + r->len, last = h->end * OVERLAY_BLOCK;

	h->holds = true;
	h->igap = 0;
	h->done = 0;
	h->loaded = false;
	h->gap[0] = h->gap[1] = (struct overlay_gap){0};
	if (last > o->capacity)
		last = o->capacity;
	if (!overlay_bit(o, h->first))
		h->gap[0] = (struct overlay_gap){h->first * OVERLAY_BLOCK,
						 (uint32_t)(r->off % OVERLAY_BLOCK)};
	if (!overlay_bit(o, h->end - 1))
		h->gap[1] = (struct overlay_gap){end, (uint32_t)(last - end)};
}

bool blk_overlay_hold(struct blk_req *r)
{
	struct blk_overlay *o = &r->lane->b->overlay;
	struct overlay_hold *h = &r->hold;
	bool holds;

	if (h->queued)
		return h->holds;
	h->first = r->off / OVERLAY_BLOCK;
	h->end = overlay_up(r->off + r->len, OVERLAY_BLOCK) / OVERLAY_BLOCK;
	h->next = NULL;
	h->holds = false;
	h->queued = true;
	pthread_mutex_lock(&o->lock);
	if (o->queue)
		o->end->hold.next = r;
	else
		o->queue = r;
	o->end = r;
	holds = !behind_another(o, r);
	if (holds)
		plan_gaps(o, r);
	pthread_mutex_unlock(&o->lock);
	return holds; /* not h->holds: another lane may grant it at this moment, and then tells */
}

/* Under the lock. */
static void unlink_hold(struct blk_overlay *o, struct blk_req *r)
{
	struct blk_req **at = &o->queue, *before = NULL;

	while (*at != r) {
		before = *at;
		at = &before->hold.next;
	}
	*at = r->hold.next;
	if (o->end == r)
		o->end = before;
}

/* Under the lock: those that waited for it alone. Which lanes have one. */
static unsigned grant(struct blk_overlay *o, const struct blk_req *r)
{
	unsigned lanes = 0;

	for (struct blk_req *w = r->hold.next; w; w = w->hold.next) {
		struct blk_lane *l = w->lane;

		if (w->hold.holds || !overlap(w, r) || behind_another(o, w))
			continue;
		plan_gaps(o, w);
		w->hold.granted = atomic_load_explicit(&l->granted, memory_order_relaxed);
		atomic_store_explicit(&l->granted, w, memory_order_release);
		lanes |= 1u << l->l->index;
	}
	return lanes;
}

void blk_overlay_release(struct blk_req *r, bool whole)
{
	struct blk *b = r->lane->b;
	struct blk_overlay *o = &b->overlay;
	unsigned lanes;

	if (!r->hold.queued)
		return;
	pthread_mutex_lock(&o->lock);
	if (whole)
		set_bits(o, r->hold.first, r->hold.end);
	unlink_hold(o, r);
	lanes = grant(o, r);
	pthread_mutex_unlock(&o->lock);
	r->hold.queued = r->hold.holds = false;
	for (unsigned i = 0; i < b->conf.nqueues; i++) {
		if (lanes >> i & 1)
			lane_wake(b->lane[i].l);
	}
}

void blk_overlay_take(struct blk_lane *l)
{
	struct blk_overlay *o = &l->b->overlay;
	struct blk_req *r, *next;

	if (!atomic_load_explicit(&l->granted, memory_order_acquire))
		return;
	pthread_mutex_lock(&o->lock);
	r = atomic_exchange(&l->granted, NULL);
	pthread_mutex_unlock(&o->lock);
	for (; r; r = next) {
		next = r->hold.granted;
		blk_proceed(r);
	}
}

/* ---- what a block needs of the base ---- */

bool blk_overlay_gap(struct blk_req *r, uint8_t *buffer, struct iovec *iov)
{
	struct overlay_hold *h = &r->hold;
	const struct overlay_gap *g;
	uint64_t off;

	while (h->igap < ARRAY_LEN(h->gap) && !h->gap[h->igap].len)
		h->igap++;
	if (h->igap == ARRAY_LEN(h->gap))
		return false;
	g = &h->gap[h->igap];
	off = g->off + h->done;
	*iov = (struct iovec){.iov_base = buffer + off % OVERLAY_BLOCK,
			      .iov_len = g->len - h->done};
	r->io.op = h->loaded ? BLK_OP_WRITE : BLK_OP_READ;
	r->io.off = off;
	r->io.iov = iov;
	r->io.niov = 1;
	return true;
}

void blk_overlay_gap_moved(struct blk_req *r, uint64_t n)
{
	struct overlay_hold *h = &r->hold;

	h->done += (uint32_t)n;
	if (h->done < h->gap[h->igap].len)
		return;
	h->done = 0;
	h->igap += h->loaded;
	h->loaded = !h->loaded;
}

/* ---- what is stable ---- */

static uint8_t flags_of(const struct blk_overlay *o, uint64_t page)
{
	return atomic_load_explicit(&o->flags[page], memory_order_relaxed);
}

static void freeze_page(struct blk_overlay *o, uint64_t page)
{
	uint64_t first = page * OVERLAY_WORDS;

	atomic_store(&o->flags[page], OVERLAY_WRITING);
	for (uint64_t i = first; i < first + OVERLAY_WORDS; i++)
		o->frozen[i] = atomic_load_explicit(&o->live[i], memory_order_relaxed);
	if (o->first_page == o->end_page)
		o->first_page = page;
	o->end_page = page + 1;
}

void blk_overlay_freeze(struct blk_overlay *o)
{
	o->step = OVERLAY_DATA;
	o->first_page = o->end_page = o->page = 0;
	if (!o->on)
		return;
	pthread_mutex_lock(&o->lock);
	for (uint64_t p = 0; o->dirty && p < o->at.pages; p++) {
		if (flags_of(o, p) & OVERLAY_DIRTY)
			freeze_page(o, p);
	}
	o->dirty = false;
	pthread_mutex_unlock(&o->lock);
	o->page = o->first_page;
}

/* The next frozen pages in a row. False: there are none. */
static bool next_pages(struct blk_overlay *o, struct blk_io *io)
{
	uint64_t p = o->page, end;

	while (p < o->end_page && !(flags_of(o, p) & OVERLAY_WRITING))
		p++;
	end = p;
	while (end < o->end_page && (flags_of(o, end) & OVERLAY_WRITING) &&
	       (end - p) * OVERLAY_PAGE < OVERLAY_WRITE)
		end++;
	o->page = end;
	o->iov = (struct iovec){.iov_base = o->frozen + p * OVERLAY_WORDS,
				.iov_len = (end - p) * OVERLAY_PAGE};
	io->op = BLK_OP_WRITE;
	io->iov = &o->iov;
	io->niov = 1;
	io->off = o->at.index_off + p * OVERLAY_PAGE;
	return p < end;
}

bool blk_overlay_sync_next(struct blk_overlay *o, struct blk_io *io, int res)
{
	if (o->step == OVERLAY_LAST || o->first_page == o->end_page)
		return false;
	if (o->step == OVERLAY_INDEX && (size_t)res < o->iov.iov_len) {
		o->iov.iov_base = (uint8_t *)o->iov.iov_base + res;
		o->iov.iov_len -= (size_t)res;
		io->off += (uint64_t)res;
		return true;
	}
	o->step = OVERLAY_INDEX;
	if (next_pages(o, io))
		return true;
	o->step = OVERLAY_LAST;
	io->op = BLK_OP_SYNC;
	return true;
}

void blk_overlay_thaw(struct blk_overlay *o, bool stable)
{
	if (o->first_page == o->end_page)
		return;
	pthread_mutex_lock(&o->lock);
	for (uint64_t p = o->first_page; p < o->end_page; p++) {
		if (!(flags_of(o, p) & OVERLAY_WRITING))
			continue;
		if (!stable)
			atomic_fetch_or(&o->flags[p], OVERLAY_DIRTY);
		atomic_fetch_and(&o->flags[p], (uint8_t)~OVERLAY_WRITING);
		o->dirty |= !stable;
	}
	pthread_mutex_unlock(&o->lock);
	o->first_page = o->end_page = 0;
}

/* ---- start ---- */

int blk_overlay_init(struct blk_overlay *o, uint64_t capacity, bool thrown_away, void *memory,
		     struct err *e)
{
	uint8_t *at = memory;

	*o = (struct blk_overlay){.on = true,
				  .thrown_away = thrown_away,
				  .fd = -1,
				  .base_fd = -1,
				  .at = overlay_layout(capacity),
				  .capacity = capacity};
	pthread_mutex_init(&o->lock, NULL);
	o->flags = (_Atomic uint8_t *)(at + o->at.flags_off);
	o->live = (_Atomic uint64_t *)(void *)(at + o->at.live_off);
	if (thrown_away)
		return 0;
	/* Touched page by page, as they are needed. */
	o->frozen = reserve_memory(o->at.index_len, true);
	if (!o->frozen)
		return err_set(e, -ENOMEM, "out of memory");
	/* A helper before this one may have died anywhere: what it was writing is not stable. */
	for (uint64_t p = 0; p < o->at.pages; p++) {
		if (flags_of(o, p))
			atomic_store(&o->flags[p], OVERLAY_DIRTY);
		o->dirty |= flags_of(o, p) != 0;
	}
	return 0;
}
