/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One request of a virtio-blk device: parsed, done in as many steps as it takes, answered.
 *
 * The header and the ranges are copied out of guest memory once. The data is not looked at.
 */
#include <errno.h>
#include <string.h>

#include <insula/base.h>

#include "blk.h"
#include "devices/iov.h"

_Static_assert(offsetof(struct blk_req, io) == 0, "a request is found from its blk_io");

/* ---- one step to the disk ---- */

/* r->io.off is where the guest means. */
static void submit_to(struct blk_req *r, bool base)
{
	const struct blk_overlay *o = &r->lane->b->overlay;

	r->io.base = base;
	if (base)
		r->io.fd = o->base_fd;
	else if (o->on)
		r->io.off += o->at.data_off;
	r->lane->b->ops->submit(r->lane->engine, &r->io);
}

static void submit(struct blk_req *r)
{
	submit_to(r, false);
}

/* May what is left be written now? With copy on write, where the base still has some of it, the
 * blocks have to be held, and completed. */
static bool may_write(struct blk_req *r)
{
	struct blk_overlay *o = &r->lane->b->overlay;
	size_t index = (size_t)(r - r->lane->pool);

	r->filling = false;
	if (!o->on || (!r->hold.queued && blk_overlay_has(o, r->off, r->len)))
		return true;
	if (!blk_overlay_hold(r))
		return false;
	r->filling = blk_overlay_gap(r, r->lane->gaps + index * OVERLAY_BLOCK, &r->gap_iov);
	if (r->filling)
		submit_to(r, r->io.op == BLK_OP_READ);
	return !r->filling;
}

/* The first n bytes of what is left, and no more. */
static void cut_short(struct blk_req *r, uint64_t n)
{
	unsigned k = 0;

	for (; r->iov[k].iov_len < n; k++)
		n -= r->iov[k].iov_len;
	r->cut = r->iov[k].iov_len;
	r->iov[k].iov_len = (size_t)n;
	r->io.niov = k + 1;
}

static void undo_cut(struct blk_req *r)
{
	if (r->cut)
		r->iov[r->io.niov - 1].iov_len = r->cut;
	r->cut = 0;
}

/* Direct I/O wants memory and lengths aligned to the logical block. */
static bool needs_bounce(const struct blk_req *r)
{
	uint64_t mask = r->lane->b->conf.logical - 1;

	if (!(r->lane->b->conf.flags & BLK_DIRECT))
		return false;
	for (unsigned i = 0; i < r->niov; i++) {
		if (((uintptr_t)r->iov[i].iov_base | r->iov[i].iov_len) & mask)
			return true;
	}
	return false;
}

static void wait_for_bounce(struct blk_req *r)
{
	r->next = NULL;
	*r->lane->waiting_end = r;
	r->lane->waiting_end = &r->next;
}

static void drop_bounce(struct blk_req *r)
{
	struct blk_lane *l = r->lane;
	struct blk_req *w = l->waiting;

	if (!r->bounce)
		return;
	l->bounce[l->nbounce++] = r->bounce;
	r->bounce = NULL;
	if (!w)
		return;
	l->waiting = w->next;
	if (!l->waiting)
		l->waiting_end = &l->waiting;
	blk_proceed(w);
}

/* Up to `max` bytes. */
static void transfer_bounced(struct blk_req *r, uint64_t max, bool base)
{
	struct iovec *one = &r->bounce_iov;
	size_t n = max < BLK_BOUNCE_SIZE ? (size_t)max : BLK_BOUNCE_SIZE;

	if (!r->bounce) {
		if (!r->lane->nbounce) {
			wait_for_bounce(r);
			return;
		}
		r->bounce = r->lane->bounce[--r->lane->nbounce];
		r->lane->l->stat[STAT_BLK_BOUNCED]++;
	}
	if (r->type == VIRTIO_BLK_T_OUT)
		iov_get(r->iov, r->niov, 0, r->bounce, n);
	*one = (struct iovec){.iov_base = r->bounce, .iov_len = n};
	r->io.iov = one;
	r->io.niov = 1;
	submit_to(r, base);
}

static void transfer(struct blk_req *r)
{
	const struct blk_overlay *o = &r->lane->b->overlay;
	bool in = r->type == VIRTIO_BLK_T_IN, over = true;
	uint64_t n = r->len;

	if (in && o->on)
		n = blk_overlay_run(o, r->off, r->len, &over);
	else if (!in && !may_write(r))
		return;
	r->io.op = in ? BLK_OP_READ : BLK_OP_WRITE;
	r->io.off = r->off;
	if (r->bounce || needs_bounce(r)) {
		transfer_bounced(r, n, !over);
		return;
	}
	r->io.iov = r->iov;
	r->io.niov = r->niov;
	if (n < r->len)
		cut_short(r, n);
	submit_to(r, !over);
}

/* ---- the end of what changed the disk ---- */

static void blk_req_settle(struct blk_req *r)
{
	if (!r->lane->b->writethrough || r->type == VIRTIO_BLK_T_IN) {
		blk_finish(r, VIRTIO_BLK_S_OK);
		return;
	}
	r->settling = true;
	blk_sync_begin(r);
}

/* ---- discard and write zeroes ---- */

static void write_zeros(struct blk_req *r)
{
	uint64_t left = r->len;
	unsigned n = 0;

	for (; n < BLK_ZERO_IOVS && left; n++) {
		size_t k = left < BLK_ZERO_SIZE ? (size_t)left : BLK_ZERO_SIZE;

		r->vec[n] = (struct iovec){.iov_base = (void *)(uintptr_t)r->lane->b->zeros,
					   .iov_len = k};
		left -= k;
	}
	r->io.op = BLK_OP_WRITE;
	r->io.iov = r->vec;
	r->io.niov = n;
	r->io.off = r->off;
	blk_limit_charge(&r->lane->b->limit, r->len - left);
	submit(r);
}

static void change_range(struct blk_req *r)
{
	const struct blk_range *g = &r->range[r->irange];
	bool over;

	if (r->type == VIRTIO_BLK_T_WRITE_ZEROES && !may_write(r))
		return;
	if (r->fallback) {
		write_zeros(r);
		return;
	}
	if (r->type == VIRTIO_BLK_T_DISCARD)
		r->io.op = r->lane->b->conf.flags & BLK_DEVICE ? BLK_OP_DISCARD : BLK_OP_PUNCH;
	else
		r->io.op = g->unmap && !r->keep ? BLK_OP_PUNCH : BLK_OP_ZERO;
	r->io.off = r->off;
	r->io.len = r->len;
	if (r->lane->b->overlay.on && r->type == VIRTIO_BLK_T_DISCARD)
		r->io.len = blk_overlay_run(&r->lane->b->overlay, r->off, r->len, &over);
	submit(r);
}

/* A discard leaves alone what is the base's: there is no space to be given back. */
static void skip_base(struct blk_req *r)
{
	const struct blk_overlay *o = &r->lane->b->overlay;
	uint64_t n = 0;
	bool over = true;

	if (o->on && r->type == VIRTIO_BLK_T_DISCARD && r->len)
		n = blk_overlay_run(o, r->off, r->len, &over);
	if (over)
		return;
	r->off += n;
	r->len -= n;
}

/* The next range that is not empty, or the end of the request. */
static void next_range(struct blk_req *r)
{
	skip_base(r);
	while (r->len == 0) {
		if (++r->irange >= r->nranges) {
			blk_req_settle(r);
			return;
		}
		r->off = r->range[r->irange].off;
		r->len = r->range[r->irange].len;
		skip_base(r);
	}
	change_range(r);
}

/* ---- the state machine ---- */

static bool has_ranges(const struct blk_req *r)
{
	return r->type == VIRTIO_BLK_T_DISCARD || r->type == VIRTIO_BLK_T_WRITE_ZEROES;
}

void blk_proceed(struct blk_req *r)
{
	if (r->type == VIRTIO_BLK_T_FLUSH || r->settling)
		blk_sync_begin(r);
	else if (has_ranges(r))
		next_range(r);
	else if (r->len)
		transfer(r);
	else
		blk_req_settle(r);
}

bool blk_again(struct blk_req *r, int code)
{
	return code == -EINTR || (code == -EAGAIN && r->tries++ < BLK_TRIES);
}

static void failed(struct blk_req *r, int code)
{
	if (blk_again(r, code)) {
		blk_proceed(r);
		return;
	}
	if (r->type == VIRTIO_BLK_T_WRITE_ZEROES && code == -EOPNOTSUPP && !r->fallback) {
		/* First without giving the space back, then without help. */
		if (r->io.op == BLK_OP_PUNCH)
			r->keep = true;
		else
			r->fallback = true;
		blk_proceed(r);
		return;
	}
	drop_bounce(r);
	blk_overlay_release(r, false);
	blk_finish(r, r->type == VIRTIO_BLK_T_DISCARD && code == -EOPNOTSUPP ? VIRTIO_BLK_S_UNSUPP
									     : VIRTIO_BLK_S_IOERR);
}

/* `n` bytes were moved; never more than were asked for. */
static void moved(struct blk_req *r, uint64_t n)
{
	if (r->bounce && r->type == VIRTIO_BLK_T_IN)
		iov_put(r->iov, r->niov, 0, r->bounce, n);
	if (!has_ranges(r)) {
		iov_skip(&r->iov, &r->niov, n);
		r->lane->l->stat[r->type == VIRTIO_BLK_T_IN ? STAT_BLK_READ_BYTES
							    : STAT_BLK_WRITTEN_BYTES] += n;
	}
	r->tries = 0;
	r->off += n;
	r->len -= n;
	if (r->len == 0) {
		drop_bounce(r);
		blk_overlay_release(r, true);
	}
	blk_proceed(r);
}

static void filled(struct blk_req *r, uint64_t n)
{
	r->tries = 0;
	blk_overlay_gap_moved(r, n);
	blk_proceed(r);
}

void blk_io_done(void *ctx, struct blk_io *io, int res)
{
	struct blk_req *r = (struct blk_req *)(void *)io;
	struct blk_lane *l = ctx;

	if (r == &l->sync) {
		blk_sync_done(l, res);
		return;
	}
	undo_cut(r);
	if (res < 0)
		failed(r, res);
	else if (io->op == BLK_OP_PUNCH || io->op == BLK_OP_ZERO || io->op == BLK_OP_DISCARD)
		moved(r, io->len);
	else if (res == 0)
		failed(r, -EIO); /* the file has become shorter */
	else if (r->filling)
		filled(r, (uint64_t)res);
	else
		moved(r, (uint64_t)res);
}

/* ---- a new request ---- */

static bool in_capacity(const struct blk *b, uint64_t sector, uint64_t nsect)
{
	uint64_t cap = b->conf.capacity / BLK_SECTOR;

	return sector <= cap && nsect <= cap - sector;
}

static uint8_t begin_transfer(struct blk_req *r, uint64_t sector)
{
	const struct blk *b = r->lane->b;
	bool direct = b->conf.flags & BLK_DIRECT;

	if (r->type == VIRTIO_BLK_T_OUT && (b->conf.flags & BLK_RO))
		return VIRTIO_BLK_S_IOERR;
	if (r->len % BLK_SECTOR || r->len > BLK_MAX_DATA ||
	    !in_capacity(b, sector, r->len / BLK_SECTOR))
		return VIRTIO_BLK_S_IOERR;
	r->off = sector * BLK_SECTOR;
	if (direct && ((r->off | r->len) & (b->conf.logical - 1)))
		return VIRTIO_BLK_S_IOERR;
	if (r->type == VIRTIO_BLK_T_IN)
		r->used_len += (uint32_t)r->len;
	blk_proceed(r);
	return VIRTIO_BLK_S_OK;
}

/* One element of the list of ranges, already copied. */
static uint8_t check_range(struct blk_req *r, const struct virtio_blk_discard_write_zeroes *d,
			   struct blk_range *out)
{
	bool discard = r->type == VIRTIO_BLK_T_DISCARD;
	uint32_t known = discard ? 0 : VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;

	if (d->flags & ~known)
		return VIRTIO_BLK_S_UNSUPP;
	if (d->num_sectors > (discard ? BLK_DISCARD_SECTORS : BLK_ZEROES_SECTORS) ||
	    !in_capacity(r->lane->b, d->sector, d->num_sectors))
		return VIRTIO_BLK_S_IOERR;
	*out = (struct blk_range){
		.off = d->sector * BLK_SECTOR,
		.len = (uint64_t)d->num_sectors * BLK_SECTOR,
		.unmap = d->flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP &&
			 r->lane->b->conf.discard_align,
	};
	return VIRTIO_BLK_S_OK;
}

static uint8_t begin_ranges(struct blk_req *r)
{
	struct virtio_blk_discard_write_zeroes list[BLK_RANGES] = {0};
	const struct blk *b = r->lane->b;
	uint8_t st = VIRTIO_BLK_S_OK;

	if (r->type == VIRTIO_BLK_T_DISCARD && !b->conf.discard_align)
		return VIRTIO_BLK_S_UNSUPP;
	if ((b->conf.flags & BLK_RO) || r->len == 0 || r->len % sizeof(list[0]) ||
	    r->len > sizeof(list))
		return VIRTIO_BLK_S_IOERR;
	iov_get(r->iov, r->niov, 0, list, (size_t)r->len);
	r->nranges = (unsigned)(r->len / sizeof(list[0]));
	for (unsigned i = 0; i < r->nranges && st == VIRTIO_BLK_S_OK; i++)
		st = check_range(r, &list[i], &r->range[i]);
	if (st != VIRTIO_BLK_S_OK)
		return st;
	r->irange = 0;
	r->off = r->range[0].off;
	r->len = r->range[0].len;
	blk_proceed(r);
	return VIRTIO_BLK_S_OK;
}

static void give_id(struct blk_req *r)
{
	uint32_t n = r->len < VIRTIO_BLK_ID_BYTES ? (uint32_t)r->len : VIRTIO_BLK_ID_BYTES;

	iov_put(r->iov, r->niov, 0, r->lane->b->conf.serial, n);
	r->used_len += n;
	blk_finish(r, VIRTIO_BLK_S_OK);
}

static void dispatch(struct blk_req *r, uint64_t sector)
{
	uint8_t st = VIRTIO_BLK_S_OK;

	switch (r->type) {
	case VIRTIO_BLK_T_IN:
	case VIRTIO_BLK_T_OUT:
		st = begin_transfer(r, sector);
		break;
	case VIRTIO_BLK_T_DISCARD:
	case VIRTIO_BLK_T_WRITE_ZEROES:
		st = begin_ranges(r);
		break;
	case VIRTIO_BLK_T_FLUSH:
		blk_proceed(r);
		break;
	case VIRTIO_BLK_T_GET_ID:
		give_id(r);
		break;
	default:
		st = VIRTIO_BLK_S_UNSUPP;
	}
	if (st != VIRTIO_BLK_S_OK)
		blk_finish(r, st);
}

/* The status is the last writable byte, wherever the driver has put it (2.7.4.2: no layout is
 * assumed). */
static void split_status(struct blk_req *r, const struct vq_chain *c, unsigned *nwrite)
{
	struct iovec *last = &r->vec[c->nread + c->nwrite - 1];

	last->iov_len--;
	r->status = (uint8_t *)last->iov_base + last->iov_len;
	*nwrite = last->iov_len ? c->nwrite : c->nwrite - 1u;
}

int blk_begin(struct blk_req *r, const struct vq_chain *c, const char **why)
{
	struct virtio_blk_outhdr hdr = {0};
	unsigned nwrite;

	if (c->read_len < sizeof(hdr) || c->write_len < 1) {
		*why = "a request without a header or without a status byte";
		return -EINVAL;
	}
	r->head = c->head;
	r->tries = 0;
	r->keep = false;
	r->fallback = false;
	r->settling = false;
	r->bounce = NULL;
	r->filling = false;
	r->hold.queued = false;
	r->cut = 0;
	r->used_len = 1;
	split_status(r, c, &nwrite);
	iov_get(r->vec, c->nread, 0, &hdr, sizeof(hdr));
	r->type = hdr.type;
	if (hdr.type == VIRTIO_BLK_T_IN || hdr.type == VIRTIO_BLK_T_GET_ID) {
		r->iov = &r->vec[c->nread];
		r->niov = nwrite;
		r->len = c->write_len - 1;
	} else {
		r->iov = r->vec;
		r->niov = c->nread;
		iov_skip(&r->iov, &r->niov, sizeof(hdr));
		r->len = c->read_len - sizeof(hdr);
	}
	dispatch(r, hdr.sector);
	return 0;
}
