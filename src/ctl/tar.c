/* SPDX-License-Identifier: BSD-2-Clause */
/* Archives, in and out. See tar.h. */
#include "tar.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>

#define PAX_MAX 16384 /* of one extended header */
#define BEFORE_MAX 16 /* extended headers before one entry */
#define SIZE_LIMIT (UINT64_C(1) << 53)

/* POSIX.1-2017, pax, "ustar Interchange Format"; GNU tar has "ustar  " for magic and version, and
 * no prefix. */
struct tar_block {
	char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], sum[8], type, link[100];
	char magic[6], version[2], uname[32], gname[32], major[8], minor[8], prefix[155], rest[12];
};
_Static_assert(sizeof(struct tar_block) == TAR_BLOCK, "a block");

/* ---- reading ---- */

/* All of it. 0: there is nothing any more; -EPROTO: not enough. */
static int64_t tar_fill(struct tar_reader *t, void *buf, size_t len, struct err *e)
{
	size_t at = 0;

	while (at < len) {
		int64_t n = t->read(t->ctx, (char *)buf + at, len - at, e);

		if (n < 0)
			return n;
		if (!n && !at)
			return 0;
		if (!n)
			return err_set(e, -EPROTO, "the archive ends in the middle");
		at += (size_t)n;
	}
	return (int64_t)at;
}

static int tar_pass(struct tar_reader *t, uint64_t n, struct err *e)
{
	char buf[4096];

	while (n) {
		size_t len = n < sizeof(buf) ? (size_t)n : sizeof(buf);
		int64_t got = tar_fill(t, buf, len, e);

		if (got <= 0)
			return got ? (int)got
				   : err_set(e, -EPROTO, "the archive ends in the middle");
		n -= len;
	}
	return 0;
}

/* Octal digits between blanks, ended by a blank or NUL; or base 256, if the first bit is set. */
static bool tar_number(const char *field, size_t size, uint64_t *out)
{
	const unsigned char *p = (const unsigned char *)field;
	size_t i = 0;

	*out = 0;
	if (p[0] & 0x80) {
		if (p[0] != 0x80)
			return false; /* negative, or beyond all sense */
		for (i = 1; i < size; i++) {
			if (*out >> 55)
				return false;
			*out = *out << 8 | p[i];
		}
		return true;
	}
	while (i < size && p[i] == ' ')
		i++;
	for (; i < size && p[i] >= '0' && p[i] <= '7'; i++)
		*out = *out << 3 | (p[i] - '0');
	for (; i < size; i++) {
		if (p[i] && p[i] != ' ')
			return false;
	}
	return true; /* of 11 digits at most */
}

static unsigned tar_sum(const struct tar_block *b)
{
	const unsigned char *p = (const unsigned char *)b;
	unsigned sum = 0;

	for (size_t i = 0; i < sizeof(*b); i++)
		sum += i >= offsetof(struct tar_block, sum) && i < offsetof(struct tar_block, type)
			       ? ' '
			       : p[i];
	return sum;
}

/* A field that ends at its NUL, or has none. */
static void tar_text(char *out, const char *field, size_t size)
{
	size_t n = strnlen(field, size);

	memcpy(out, field, n);
	out[n] = 0;
}

static int take_block(const struct tar_block *b, struct tar_entry *n, struct err *e)
{
	uint64_t sum, mode, mtime;
	char name[sizeof(b->name) + 1];
	size_t at = 0;

	if (memcmp(b->magic, "ustar", 5) != 0 || !tar_number(b->sum, sizeof(b->sum), &sum) ||
	    sum != tar_sum(b))
		return err_set(e, -EPROTO, "not a header of an archive");
	if (!tar_number(b->mode, sizeof(b->mode), &mode) ||
	    !tar_number(b->size, sizeof(b->size), &n->size) || n->size > SIZE_LIMIT ||
	    !tar_number(b->mtime, sizeof(b->mtime), &mtime) || mtime > SIZE_LIMIT)
		return err_set(e, -EPROTO, "a number in a header of the archive is none");
	n->type = b->type ? b->type : TAR_FILE;
	n->mode = (unsigned)mode & 07777;
	n->mtime = (int64_t)mtime;
	tar_text(name, b->name, sizeof(b->name));
	if (!b->magic[5] && b->prefix[0]) {
		tar_text(n->name, b->prefix, sizeof(b->prefix));
		at = strlen(n->name);
		n->name[at++] = '/';
	}
	strcpy(n->name + at, name);
	tar_text(n->link, b->link, sizeof(b->link));
	return 0;
}

/* What stands before an entry and is about it. */
struct before {
	bool has_name, has_link, has_size;
	char name[TAR_NAME_MAX], link[TAR_NAME_MAX];
	uint64_t size;
};

/* GNU's L and K: the name, with a NUL. */
static int take_long(struct tar_reader *t, char out[TAR_NAME_MAX], struct err *e)
{
	uint64_t len = t->left;
	int64_t n;

	if (!len || len > TAR_NAME_MAX)
		return err_set(e, -EPROTO, "a name of %llu bytes; expected at most %d",
			       (unsigned long long)len, TAR_NAME_MAX - 1);
	n = tar_data(t, out, (size_t)len, e);
	while (n > 0 && (uint64_t)n < len) {
		int64_t more = tar_data(t, out + n, (size_t)len - (size_t)n, e);

		n = more > 0 ? n + more : more;
	}
	if (n < 0)
		return (int)n;
	if (!memchr(out, 0, (size_t)len))
		return err_set(e, -EPROTO, "a name in the archive has no end");
	return 0;
}

/* "LEN KEY=VALUE\n", of which LEN counts all. */
static int take_record(struct before *x, const char *key, size_t nkey, const char *value,
		       size_t len, struct err *e)
{
	char number[24];
	char *out = NULL, *end;

	if (nkey == 4 && !memcmp(key, "path", 4))
		out = x->name, x->has_name = true;
	else if (nkey == 8 && !memcmp(key, "linkpath", 8))
		out = x->link, x->has_link = true;
	if (out) {
		if (len >= TAR_NAME_MAX || memchr(value, 0, len))
			return err_set(e, -EPROTO,
				       "a name in the archive is too long or has a NUL");
		memcpy(out, value, len);
		out[len] = 0;
		return 0;
	}
	if (nkey > 11 && !memcmp(key, "GNU.sparse.", 11))
		return err_set(e, -EPROTO, "a sparse file in the archive; expected a plain one");
	if (nkey != 4 || memcmp(key, "size", 4) != 0)
		return 0;
	if (!len || len >= sizeof(number))
		return err_set(e, -EPROTO, "a size in the archive is none");
	memcpy(number, value, len);
	number[len] = 0;
	errno = 0;
	x->size = strtoull(number, &end, 10);
	x->has_size = true;
	if (*end || errno || number[0] < '0' || number[0] > '9' || x->size > SIZE_LIMIT)
		return err_set(e, -EPROTO, "a size in the archive is none");
	return 0;
}

static int take_pax(struct tar_reader *t, struct before *x, struct err *e)
{
	char text[PAX_MAX + 1];
	size_t len = 0, at = 0;
	int64_t n = 0;

	if (t->left > PAX_MAX)
		return err_set(e, -EPROTO, "an extended header of more than %d bytes", PAX_MAX);
	while (t->left && (n = tar_data(t, text + len, sizeof(text) - 1 - len, e)) > 0)
		len += (size_t)n;
	if (n < 0)
		return (int)n;
	text[len] = 0;
	while (at < len) {
		char *end;
		unsigned long all = strtoul(text + at, &end, 10);
		const char *key = end + 1, *stop, *equals;
		int rc;

		if (text[at] < '1' || text[at] > '9' || *end != ' ' || all > len - at)
			return err_set(e, -EPROTO, "an extended header that is none");
		stop = text + at + all;
		if (stop <= key || stop[-1] != '\n' ||
		    !(equals = memchr(key, '=', (size_t)(stop - key))))
			return err_set(e, -EPROTO, "an extended header that is none");
		rc = take_record(x, key, (size_t)(equals - key), equals + 1,
				 (size_t)(stop - 1 - (equals + 1)), e);
		if (rc)
			return rc;
		at += all;
	}
	return 0;
}

/* 1: it was about an entry that is still to come. */
static int take_before(struct tar_reader *t, const struct tar_entry *n, struct before *x,
		       struct err *e)
{
	int rc;

	switch (n->type) {
	case 'L':
		rc = take_long(t, x->name, e);
		x->has_name = true;
		break;
	case 'K':
		rc = take_long(t, x->link, e);
		x->has_link = true;
		break;
	case 'x':
		rc = take_pax(t, x, e);
		break;
	case 'g':
		rc = 0; /* about all: comments */
		break;
	default:
		return 0;
	}
	return rc ? rc : 1;
}

static int settle(struct tar_entry *n, const struct before *x, struct err *e)
{
	bool link = n->type == TAR_LINK || n->type == TAR_HARD_LINK;

	if (x->has_name)
		strcpy(n->name, x->name);
	if (x->has_link)
		strcpy(n->link, x->link);
	if (x->has_size)
		n->size = x->size;
	if (n->type == '7')
		n->type = TAR_FILE; /* contiguous, where that means something */
	if (!n->name[0] || (link && !n->link[0]))
		return err_set(e, -EPROTO, "an entry of the archive without a name");
	return 0;
}

static void expect_data(struct tar_reader *t, uint64_t size)
{
	t->left = size;
	t->pad = (unsigned)(-size & (TAR_BLOCK - 1));
}

int tar_next(struct tar_reader *t, struct tar_entry *n, struct err *e)
{
	struct before x = {.size = 0};

	for (int i = 0; i < BEFORE_MAX; i++) {
		struct tar_block b;
		int64_t got;
		int rc = tar_pass(t, t->left + t->pad, e);

		t->left = t->pad = 0;
		if (rc)
			return rc;
		got = tar_fill(t, &b, sizeof(b), e);
		if (got < 0)
			return (int)got;
		if (!got)
			return err_set(e, -EPROTO, "the archive has no end");
		if (mem_is_zero(&b, sizeof(b)))
			return 0;
		rc = take_block(&b, n, e);
		if (rc)
			return rc;
		expect_data(t, n->size);
		rc = take_before(t, n, &x, e);
		if (rc < 0)
			return rc;
		if (rc)
			continue;
		rc = settle(n, &x, e);
		/* Links and directories have no bytes, whatever their size says; what we do not
		 * know has those that it says. */
		if (n->type == TAR_LINK || n->type == TAR_HARD_LINK || n->type == TAR_DIRECTORY)
			n->size = 0;
		expect_data(t, n->size);
		return rc ? rc : 1;
	}
	return err_set(e, -EPROTO, "too many extended headers before one entry");
}

int64_t tar_data(struct tar_reader *t, void *buf, size_t len, struct err *e)
{
	int64_t n;

	if (!t->left)
		return 0;
	n = t->read(t->ctx, buf, len < t->left ? len : (size_t)t->left, e);
	if (!n)
		return err_set(e, -EPROTO, "the archive ends in the middle");
	if (n > 0)
		t->left -= (uint64_t)n;
	return n;
}

/* ---- writing ---- */

static void put_octal(char *field, size_t size, uint64_t v)
{
	for (size_t i = size - 1; i-- > 0; v >>= 3)
		field[i] = (char)('0' + (v & 7));
	field[size - 1] = 0;
}

static void put_number(char *field, size_t size, uint64_t v)
{
	if (v >> (3 * (size - 1)) == 0) {
		put_octal(field, size, v);
		return;
	}
	for (size_t i = size; i-- > 1; v >>= 8)
		field[i] = (char)(v & 0xff);
	field[0] = (char)0x80;
}

/* The owner is 0 and has no name: what comes into a guest belongs to its root. */
static size_t put_block(uint8_t *out, const struct tar_entry *n, const char *name, const char *link,
			uint64_t size)
{
	struct tar_block b = {.type = n->type};
	size_t len = strlen(name), nlink = strlen(link);

	memcpy(b.name, name, len < sizeof(b.name) ? len : sizeof(b.name));
	memcpy(b.link, link, nlink < sizeof(b.link) ? nlink : sizeof(b.link));
	put_octal(b.mode, sizeof(b.mode), n->mode & 07777);
	put_octal(b.uid, sizeof(b.uid), 0);
	put_octal(b.gid, sizeof(b.gid), 0);
	put_number(b.size, sizeof(b.size), size);
	put_number(b.mtime, sizeof(b.mtime), n->mtime < 0 ? 0 : (uint64_t)n->mtime);
	memcpy(b.magic, "ustar ", 6);
	memcpy(b.version, " ", 2);
	put_octal(b.sum, sizeof(b.sum) - 1, tar_sum(&b));
	b.sum[7] = ' ';
	memcpy(out, &b, sizeof(b));
	return sizeof(b);
}

/* GNU's L or K before it, if it does not fit. */
static size_t put_long(uint8_t *out, char type, const char *text)
{
	const struct tar_entry n = {.type = type, .mode = 0644};
	size_t len = strlen(text) + 1, all = (len + TAR_BLOCK - 1) / TAR_BLOCK * TAR_BLOCK;

	if (len <= sizeof(((struct tar_block *)0)->name))
		return 0;
	put_block(out, &n, "././@LongLink", "", len);
	memset(out + TAR_BLOCK, 0, all);
	memcpy(out + TAR_BLOCK, text, len);
	return TAR_BLOCK + all;
}

size_t tar_header(const struct tar_entry *n, uint8_t out[TAR_HEADER_MAX])
{
	size_t at = put_long(out, 'K', n->link);

	at += put_long(out + at, 'L', n->name);
	return at + put_block(out + at, n, n->name, n->link, n->size);
}
