/* SPDX-License-Identifier: BSD-2-Clause */
/* Unpacking. See source.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <zlib.h>
#include <zstd.h>

#include <insula/base.h>

#include "source.h"

#define IN_SIZE (256u << 10)
#define OUT_SIZE (256u << 10)
#define WINDOW_LOG 27 /* 128 MiB: what zstd itself takes unless it is told otherwise */
#define MAGIC_LEN 4

/* Moves from `in` to `out`. 0, 1: a member has ended, -EINVAL, -ENOMEM. */
struct packing {
	const char *name, *magic;
	size_t len;
	void *(*begin)(void);
	int (*step)(struct source *s);
	void (*end)(void *state);
};

/* ---- gzip ---- */

static void *gzip_begin(void)
{
	z_stream *z = calloc(1, sizeof(*z));

	if (z && inflateInit2(z, 16 + MAX_WBITS) != Z_OK) {
		free(z);
		return NULL;
	}
	return z;
}

static int gzip_step(struct source *s)
{
	z_stream *z = s->state;
	int rc;

	z->next_in = s->in + s->in_at;
	z->avail_in = (uInt)(s->in_n - s->in_at);
	z->next_out = s->out + s->out_n;
	z->avail_out = (uInt)(OUT_SIZE - s->out_n);
	rc = inflate(z, Z_NO_FLUSH);
	s->in_at = s->in_n - z->avail_in;
	s->out_n = OUT_SIZE - z->avail_out;
	if (rc == Z_STREAM_END)
		return inflateReset(z) == Z_OK ? 1 : -EINVAL;
	return rc == Z_OK || rc == Z_BUF_ERROR ? 0 : rc == Z_MEM_ERROR ? -ENOMEM : -EINVAL;
}

static void gzip_end(void *state)
{
	inflateEnd(state);
	free(state);
}

/* ---- zstd ---- */

static void *zstd_begin(void)
{
	ZSTD_DCtx *z = ZSTD_createDCtx();

	if (z && ZSTD_isError(ZSTD_DCtx_setParameter(z, ZSTD_d_windowLogMax, WINDOW_LOG))) {
		ZSTD_freeDCtx(z);
		return NULL;
	}
	return z;
}

static int zstd_step(struct source *s)
{
	ZSTD_inBuffer in = {s->in, s->in_n, s->in_at};
	ZSTD_outBuffer out = {s->out, OUT_SIZE, s->out_n};
	size_t rc = ZSTD_decompressStream(s->state, &out, &in);

	s->in_at = in.pos;
	s->out_n = out.pos;
	if (ZSTD_isError(rc))
		return -EINVAL;
	return rc == 0;
}

static void zstd_end(void *state)
{
	ZSTD_freeDCtx(state);
}

/* ---- neither ---- */

static void *plain_begin(void)
{
	return calloc(1, 1);
}

static int plain_step(struct source *s)
{
	size_t n = s->in_n - s->in_at;

	if (n > OUT_SIZE - s->out_n)
		n = OUT_SIZE - s->out_n;
	memcpy(s->out + s->out_n, s->in + s->in_at, n);
	s->in_at += n;
	s->out_n += n;
	return 1; /* it may end anywhere */
}

static const struct packing packings[] = {
	{"gzip", "\x1f\x8b", 2, gzip_begin, gzip_step, gzip_end},
	{"zstd", "\x28\xb5\x2f\xfd", 4, zstd_begin, zstd_step, zstd_end},
	{"plain", "", 0, plain_begin, plain_step, free}, /* the last: it fits all */
};

/* ---- the stream ---- */

int source_open(struct source *s, long (*fetch)(void *ctx, void *buf, size_t len), void *ctx,
		struct err *e)
{
	*s = (struct source){.fetch = fetch, .ctx = ctx};
	sha256_init(&s->sum);
	s->in = malloc(IN_SIZE);
	s->out = malloc(OUT_SIZE);
	if (s->in && s->out)
		return 0;
	source_close(s);
	return err_set(e, -ENOMEM, "out of memory");
}

void source_close(struct source *s)
{
	if (s->state)
		s->packing->end(s->state);
	free(s->in);
	free(s->out);
	s->in = s->out = NULL;
	s->state = NULL;
}

static int refill(struct source *s, struct err *e)
{
	long n;

	memmove(s->in, s->in + s->in_at, s->in_n - s->in_at);
	s->in_n -= s->in_at;
	s->in_at = 0;
	n = s->in_n < IN_SIZE ? s->fetch(s->ctx, s->in + s->in_n, IN_SIZE - s->in_n) : 0;
	if (n < 0)
		return err_sys(e, (int)n, "read");
	s->in_end |= n == 0 && s->in_n < IN_SIZE;
	s->in_n += (size_t)n;
	return 0;
}

static int recognise(struct source *s, struct err *e)
{
	int rc = 0;

	while (!rc && s->in_n < MAGIC_LEN && !s->in_end)
		rc = refill(s, e);
	s->packing = packings;
	while (s->in_n < s->packing->len || memcmp(s->in, s->packing->magic, s->packing->len) != 0)
		s->packing++;
	s->state = rc ? NULL : s->packing->begin();
	s->begun = s->between = true;
	return rc ? rc : s->state ? 0 : err_set(e, -ENOMEM, "out of memory");
}

static int unpack_failed(const struct source *s, int rc, struct err *e)
{
	if (rc == -ENOMEM)
		return err_set(e, rc, "out of memory");
	return err_set(e, -EINVAL, "not valid %s, after %llu bytes of content", s->packing->name,
		       (unsigned long long)s->total);
}

/* Fill `out`, which is empty; it stays so at the end. */
static int produce(struct source *s, struct err *e)
{
	int rc = s->begun ? 0 : recognise(s, e);

	s->out_at = s->out_n = 0;
	while (!rc && !s->out_n) {
		size_t before;

		if (s->in_at == s->in_n && !s->in_end)
			rc = refill(s, e);
		if (rc || (s->in_at == s->in_n && s->in_end && s->between))
			break;
		before = s->in_at;
		rc = s->packing->step(s);
		if (rc < 0)
			return unpack_failed(s, rc, e);
		/* What it still has to give comes out before it takes more. */
		if (!s->out_n && s->in_at == before && !rc && (s->in_at < s->in_n || s->in_end))
			return err_set(e, -EINVAL, "%s that ends too early", s->packing->name);
		if (s->in_at != before || s->out_n)
			s->between = rc == 1;
		rc = 0;
	}
	if (rc)
		return rc;
	sha256_add(&s->sum, s->out, s->out_n);
	s->total += s->out_n;
	return s->total <= SOURCE_MAX
		       ? 0
		       : err_set(e, -EINVAL, "more than %llu GiB when it is unpacked",
				 (unsigned long long)(SOURCE_MAX >> 30));
}

long source_some(struct source *s, size_t len, const uint8_t **at, struct err *e)
{
	int rc = s->out_at == s->out_n ? produce(s, e) : 0;

	if (rc)
		return rc;
	if (len > s->out_n - s->out_at)
		len = s->out_n - s->out_at;
	*at = s->out + s->out_at;
	s->out_at += len;
	return (long)len;
}

int source_read(struct source *s, void *buf, size_t len, struct err *e)
{
	uint8_t *to = buf;
	size_t got = 0;

	while (got < len) {
		const uint8_t *at;
		long n = source_some(s, len - got, &at, e);

		if (n < 0)
			return (int)n;
		if (!n)
			return got ? err_set(e, -EINVAL, "it ends too early") : 0;
		/* NOLINTNEXTLINE(clang-analyzer-core.CallAndMessage) */
		memcpy(to + got, at, (size_t)n);
		got += (size_t)n;
	}
	return 1;
}

int source_drain(struct source *s, struct err *e)
{
	const uint8_t *at;
	long n;

	do
		n = source_some(s, SIZE_MAX, &at, e);
	while (n > 0);
	return (int)n;
}
