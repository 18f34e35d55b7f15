/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The bytes of a layer, unpacked: gzip (RFC 1952), zstd (RFC 8878) or neither, told by what it
 * begins with. It counts and hashes what comes out.
 */
#ifndef LAYER_SOURCE_H
#define LAYER_SOURCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <insula/err.h>
#include <insula/sha256.h>

/* What one layer may become. The largest ones that people use have some 10 GiB. */
#define SOURCE_MAX (64ull << 30)

struct packing;

struct source {
	/* Up to `len` bytes of the layer as it is; 0: the end; negative: an errno. */
	long (*fetch)(void *ctx, void *buf, size_t len);
	void *ctx;
	const struct packing *packing;
	void *state; /* of the unpacker */
	uint8_t *in, *out;
	size_t in_at, in_n, out_at, out_n;
	bool in_end, begun;
	bool between;   /* a member has ended; another one may follow */
	uint64_t total; /* bytes that came out */
	struct sha256 sum;
};

int source_open(struct source *s, long (*fetch)(void *ctx, void *buf, size_t len), void *ctx,
		struct err *e);
void source_close(struct source *s);
/* Some bytes, up to `len`: *at points to them until the next call. 0: the end; negative errno. */
long source_some(struct source *s, size_t len, const uint8_t **at, struct err *e);
/* Exactly so many: 1; 0: the end came before the first one; -EINVAL: it came after it. */
int source_read(struct source *s, void *buf, size_t len, struct err *e);
/* Over the rest. */
int source_drain(struct source *s, struct err *e);

#endif
