/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The host's ends of vsock connections for tests: streams in memory behind struct vconn_ops, and a
 * check that whatever happened left the connection table whole.
 */
#ifndef TESTS_FAKEHOST_H
#define TESTS_FAKEHOST_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <devices/vsock/vsock_table.h>

#define FH_ENDS 8192
#define FH_BYTES 4096u /* of one direction of an end that are kept */

struct fh_end { /* fd i is end i */
	bool open, watched, eof, no_write, shut_rd, shut_wr;
	int read_error, write_error; /* negative errno */
	size_t room;                 /* bytes it takes before -EAGAIN; SIZE_MAX: all */
	size_t nin, at, nout;        /* in: for the device to read; out: what it wrote (counted) */
	uint8_t in[FH_BYTES], out[FH_BYTES];
};

struct fh {
	struct vconns *t;
	struct fh_end *end;
	unsigned nends, nopen, nasked, nforgotten;
	bool open_fails;
	uint32_t asked_id[64], asked_port[64]; /* the last ones, by nasked % 64 */
};

static inline void fh_must(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "broken: %s\n", what);
	abort();
}

static inline struct fh_end *fh_of(struct fh *h, const struct vconn *c)
{
	fh_must(c->fd >= 0 && (unsigned)c->fd < h->nends && h->end[c->fd].open,
		"a call for a host's end that is closed");
	return &h->end[c->fd];
}

static inline int fh_op_open(void *ctx, struct vconn *c)
{
	struct fh *h = ctx;

	fh_of(h, c);
	return h->open_fails ? -ENOSPC : 0;
}

static inline ssize_t fh_op_read(void *ctx, struct vconn *c, const struct iovec *iov, unsigned niov)
{
	struct fh_end *e = fh_of(ctx, c);
	size_t n = 0;

	fh_must(niov > 0 && niov <= VCONN_MAX_IOVS, "segments of a read");
	for (unsigned i = 0; i < niov; i++) {
		size_t k = e->nin - e->at < iov[i].iov_len ? e->nin - e->at : iov[i].iov_len;

		fh_must(iov[i].iov_len > 0, "an empty segment");
		memcpy(iov[i].iov_base, e->in + e->at, k);
		e->at += k;
		n += k;
	}
	if (n)
		return (ssize_t)n;
	return e->read_error ? e->read_error : e->eof ? 0 : -EAGAIN;
}

static inline ssize_t fh_op_write(void *ctx, struct vconn *c, const struct iovec *iov,
				  unsigned niov)
{
	struct fh_end *e = fh_of(ctx, c);
	size_t n = 0;

	fh_must(niov > 0 && niov <= VCONN_MAX_IOVS && !e->shut_wr, "a write");
	if (e->write_error)
		return e->write_error;
	for (unsigned i = 0; i < niov; i++) {
		size_t k = iov[i].iov_len < e->room ? iov[i].iov_len : e->room;

		for (size_t j = 0; j < k; j++, e->nout++)
			e->out[e->nout % FH_BYTES] = ((const uint8_t *)iov[i].iov_base)[j];
		if (e->room != SIZE_MAX)
			e->room -= k;
		n += k;
	}
	return n ? (ssize_t)n : -EAGAIN;
}

static inline void fh_op_shut(void *ctx, struct vconn *c, enum vconn_shut how)
{
	struct fh_end *e = fh_of(ctx, c);
	bool *what = how == VCONN_SHUT_WRITE ? &e->shut_wr : &e->shut_rd;

	fh_must(how == VCONN_SHUT_WRITE || how == VCONN_SHUT_READ, "a shutdown of what");
	fh_must(!*what, "a shutdown twice");
	*what = true;
}

static inline void fh_op_close(void *ctx, struct vconn *c)
{
	struct fh *h = ctx;

	fh_of(h, c)->open = false;
	h->nopen--;
}

static inline void fh_op_watch(void *ctx, struct vconn *c, bool on)
{
	struct fh_end *e = fh_of(ctx, c);

	fh_must(e->watched != on, "a watch that is there, or not there, already");
	e->watched = on;
}

static inline void fh_op_ask(void *ctx, uint32_t id, uint32_t port)
{
	struct fh *h = ctx;

	h->asked_id[h->nasked % 64] = id;
	h->asked_port[h->nasked++ % 64] = port;
}

static inline void fh_op_forget(void *ctx, void *ring, size_t size)
{
	struct fh *h = ctx;

	h->nforgotten++;
	memset(ring, 0xee, size < 64 ? size : 64);
}

static const struct vconn_ops fh_ops = {
	.open = fh_op_open,
	.read = fh_op_read,
	.write = fh_op_write,
	.shut = fh_op_shut,
	.close = fh_op_close,
	.watch = fh_op_watch,
	.ask = fh_op_ask,
	.forget = fh_op_forget,
};

/* A new end; its number is its descriptor. */
static inline int fh_new(struct fh *h)
{
	struct fh_end *e = &h->end[h->nends];

	fh_must(h->nends < FH_ENDS, "enough ends for this test");
	memset(e, 0, sizeof(*e));
	e->open = true;
	e->room = SIZE_MAX;
	h->nopen++;
	return (int)h->nends++;
}

/* An end that no connection took. */
static inline void fh_lose(struct fh *h, int fd)
{
	h->end[fd].open = false;
	h->nopen--;
}

static inline void fh_say(struct fh *h, int fd, const void *data, size_t len)
{
	struct fh_end *e = &h->end[fd];

	fh_must(len <= FH_BYTES - e->nin, "room for what the test says");
	memcpy(e->in + e->nin, data, len);
	e->nin += len;
}

/* What must hold between any two calls. */
static inline void fh_check(const struct fh *h)
{
	struct vconns *t = h->t;
	unsigned used = 0, timed = 0, fds = 0, listed[VCONN_LISTS] = {0};

	for (unsigned i = 0; i < t->nfresh; i++) {
		const struct vconn *c = &t->conn[i];

		if (c->state == VCONN_FREE)
			continue;
		used++;
		timed += c->deadline != 0;
		fh_must(c->state == VCONN_HELLO || c->state == VCONN_LINGER ||
				vtab_find(t, c->guest_port, c->host_port) == c,
			"a connection that packets do not find");
		listed[c->listed]++;
		fds += c->fd >= 0;
		fh_must(c->received - c->fwd <= vtab_ring_size(t, c), "a ring that is too full");
		fh_must(c->fwd - c->told_fwd <= vtab_ring_size(t, c), "credit that nobody gave");
		fh_must(c->fwd == c->received || (c->fd >= 0 && h->end[c->fd].watched),
			"bytes in a ring that nobody waits for");
		fh_must(c->fd < 0 || c->fwd != c->received || !h->end[c->fd].watched,
			"a watch for nothing");
		fh_must(!c->owes || c->listed == VCONN_RUN, "a debt that is not listed");
		fh_must(!(vtab_reads(c) && vtab_credit(c)) || c->listed == VCONN_RUN,
			"data that is not listed");
		fh_must(c->state == VCONN_OPEN || c->state == VCONN_GONE ||
				c->state == VCONN_DEAD || c->deadline,
			"a wait without a deadline");
	}
	fh_must(used == t->used && used <= t->max && timed == t->timed, "the counts");
	fh_must(fds == h->nopen, "a host's end that got lost");
	for (unsigned l = VCONN_RUN; l < VCONN_LISTS; l++) {
		uint16_t prev = VCONN_NONE;
		unsigned n = 0;

		for (uint16_t s = t->list[l].first; s != VCONN_NONE; s = t->conn[s].next) {
			fh_must(t->conn[s].prev == prev && t->conn[s].listed == l, "a list");
			prev = s;
			fh_must(++n <= used, "a list with a loop");
		}
		fh_must(n == listed[l] && t->list[l].last == prev, "a list's length");
	}
}

#endif
