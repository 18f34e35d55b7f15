/* SPDX-License-Identifier: BSD-2-Clause */
/* Headers and login texts. See filter.h. */
#include <stdlib.h>
#include <string.h>

#include "filter.h"

#define OP_LOGIN 0x23
#define OP_R2T 0x31
#define MIN_OF(a, b) ((a) < (b) ? (a) : (b))

void filter_begin(struct filter *f)
{
	*f = (struct filter){.have = 0};
}

void filter_turn(struct filter *f)
{
	f->asks = 0;
}

static uint32_t big32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static bool wrong(struct filter *f, const char *why)
{
	f->why = why;
	return false;
}

static bool is_login(const struct filter *f)
{
	return (f->header[0] & 0x3f) == OP_LOGIN;
}

static bool header_fits(struct filter *f)
{
	uint32_t len = big32(f->header + 4) & 0xffffff;

	if (is_login(f) && len > FILTER_TEXT)
		return wrong(f, "a login answer of more than 8192 bytes");
	if ((f->header[0] & 0x3f) == OP_R2T) {
		uint32_t want = big32(f->header + 44);

		if (!want || want > FILTER_BURST)
			return wrong(f, "it asks for more at once than MaxBurstLength, or nothing");
		if (++f->asks > FILTER_ASKS)
			return wrong(f, "it asks for data more often than there are commands");
	}
	f->data = (len + 3) & ~3u;
	f->len = 0;
	return true;
}

static bool key_fits(struct filter *f, const char *item)
{
	static const char segment[] = "MaxRecvDataSegmentLength=";
	static const char digest[] = "HeaderDigest=";

	if (!strncmp(item, segment, strlen(segment)) &&
	    strtol(item + strlen(segment), NULL, 10) < FILTER_SEGMENT)
		return wrong(f, "its MaxRecvDataSegmentLength is less than 4096");
	if (!strncmp(item, digest, strlen(digest)) && strcmp(item + strlen(digest), "None") != 0)
		return wrong(f, "it wants a HeaderDigest that was not offered");
	return true;
}

/* The text of a login answer, whole. */
static bool text_fits(struct filter *f)
{
	f->text[f->len] = 0;
	for (uint32_t at = 0; at < f->len; at += (uint32_t)strlen(f->text + at) + 1) {
		if (!key_fits(f, f->text + at))
			return false;
	}
	return true;
}

static size_t take_header(struct filter *f, const uint8_t *p, size_t n)
{
	n = MIN_OF(n, FILTER_HEADER - f->have);
	memcpy(f->header + f->have, p, n);
	f->have += n;
	return n;
}

static size_t take_data(struct filter *f, const uint8_t *p, size_t n)
{
	n = MIN_OF(n, f->data);
	if (is_login(f) && p) {
		size_t room = FILTER_TEXT - f->len;

		memcpy(f->text + f->len, p, MIN_OF(n, room));
		f->len += (uint32_t)MIN_OF(n, room);
	}
	f->data -= (uint32_t)n;
	return n;
}

bool filter_bytes(void *filter, const void *p, size_t n)
{
	struct filter *f = filter;
	const uint8_t *at = p;

	while (n) {
		size_t took;

		if (f->have < FILTER_HEADER) {
			if (!at)
				return wrong(f, "a header among data");
			took = take_header(f, at, n);
			if (f->have == FILTER_HEADER && !header_fits(f))
				return false;
		} else {
			took = take_data(f, at, n);
		}
		if (f->have == FILTER_HEADER && !f->data) {
			if (is_login(f) && !text_fits(f))
				return false;
			f->have = 0;
		}
		n -= took;
		at = at ? at + took : NULL;
	}
	return true;
}
