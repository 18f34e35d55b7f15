/* SPDX-License-Identifier: BSD-2-Clause */
/* Reading a VM's log. See logread.h. */
#include "logread.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>
#include <insula/err.h>

#include "spec/json.h"
#include "spec/logrecord.h"

#define BLOCK (64u << 10)
#define HEAD 64
#define PIECE 4096       /* of a line that has no end */
#define LINE_COST 70     /* of the JSON around a text */
#define CHANGES 8        /* of the files under our eyes, in one answer */
#define WORK (16u << 20) /* bytes that are looked at for one answer */
#define STEP_WORK 4096   /* a step counts for as many at least */

/* ---- the files ---- */

struct file {
	int fd;
	uint64_t number, begin, size;
};

static bool logread_look(int fd, struct file *f)
{
	char head[HEAD];
	size_t n, len;

	f->fd = fd;
	if (fd < 0 || file_size(fd, &f->size) || !f->size)
		return false;
	n = f->size < HEAD ? (size_t)f->size : HEAD;
	if (read_full(fd, head, n, 0))
		return false;
	f->number = vmlog_number(head, n, &len);
	f->begin = len;
	return true;
}

/* The older one first; how many there are. */
static unsigned look_at_both(const struct logread *l, struct file f[2])
{
	unsigned n = logread_look(l->fd[0], &f[0]);

	n += logread_look(l->fd[1], &f[n]);
	if (n == 2 && f[0].number > f[1].number) {
		struct file swap = f[0];

		f[0] = f[1];
		f[1] = swap;
	}
	return n;
}

static void go_to(struct logread *l, const struct file *f, uint64_t offset)
{
	l->number = f->number;
	l->offset = offset;
	l->placed = true;
}

/* ---- the last lines ---- */

/* Count line ends backwards from the file's end (not that of the last line) until `left` is 0: the
 * place after that one. In a file that is longer than `most`, which its user may have made of
 * nothing but a hole, no further back than that. False: there are not so many. */
static bool count_back(const struct file *f, uint64_t most, char *buf, int64_t *left,
		       uint64_t *place)
{
	const uint64_t first = f->size - f->begin > most ? f->size - most : f->begin;

	*place = f->size;
	for (uint64_t at = f->size; at > first;) {
		size_t n = at - first < BLOCK ? (size_t)(at - first) : BLOCK;

		at -= n;
		if (read_full(f->fd, buf, n, at))
			return false;
		for (size_t i = n; i-- > 0;) {
			if (buf[i] != '\n' || at + i + 1 == f->size)
				continue;
			*place = at + i + 1;
			if (!--*left)
				return true;
		}
	}
	if (first > f->begin)
		return true;
	*place = f->begin;
	return f->size > f->begin && !--*left;
}

static void find_tail(struct logread *l, const struct file *f, unsigned n, char *buf)
{
	int64_t left = l->tail;
	uint64_t place;

	if (!left) {
		go_to(l, &f[n - 1], f[n - 1].size);
		return;
	}
	for (unsigned i = n; i-- > 0;) {
		if (count_back(&f[i], l->file_max, buf, &left, &place)) {
			go_to(l, &f[i], place);
			return;
		}
	}
	go_to(l, &f[0], f[0].begin);
}

/* ---- texts ---- */

/* The length of the UTF-8 character here; 0: it is none. */
static size_t character(const unsigned char *p, size_t n)
{
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
	size_t len = p[0] < 0x80       ? 1
		     : p[0] >> 5 == 6  ? 2
		     : p[0] >> 4 == 14 ? 3
		     : p[0] >> 3 == 30 ? 4
				       : 0;
	uint32_t c = len > 1 ? p[0] & (0x7fu >> len) : p[0];

	if (!len || len > n)
		return 0;
	for (size_t i = 1; i < len; i++) {
		if ((p[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | (p[i] & 0x3f);
	}
	return c < least[len] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff) ? 0 : len;
}

/* JSON has no bytes: what is no UTF-8 becomes U+FFFD. The cost is that of its JSON. */
static json_object *logread_to_json(const char *text, size_t len, size_t *cost)
{
	char *copy = malloc(3 * len + 1);
	size_t n = 0;
	json_object *o;

	if (!copy)
		panic("out of memory");
	for (size_t i = 0; i < len;) {
		size_t k = character((const unsigned char *)text + i, len - i);

		memcpy(copy + n, k ? text + i : "\xef\xbf\xbd", k ? k : 3);
		*cost += (unsigned char)text[i] < 0x20 ? 6 : k ? k + 1 : 3;
		n += k ? k : 3;
		i += k ? k : 1;
	}
	o = json_object_new_string_len(copy, (int)n);
	free(copy);
	return o;
}

/* What the supervisor and its children word has no control characters. */
static json_object *own_text(const char *text, size_t len, size_t *cost)
{
	char *copy = malloc(len + 1);
	json_object *o;

	if (!copy)
		panic("out of memory");
	for (size_t i = 0; i < len; i++)
		copy[i] = text[i];
	copy[len] = 0;
	err_clean(copy);
	o = logread_to_json(copy, strlen(copy), cost);
	free(copy);
	return o;
}

/* ---- lines ---- */

static void logread_add(struct logread *l, const char *line, size_t len, bool whole, size_t *cost)
{
	struct vmlog_record r;
	json_object *o, *text;

	vmlog_parse(line, len, &r);
	if (r.time_ms < 0)
		r.time_ms = l->last_ms;
	l->last_ms = r.time_ms;
	if (r.time_ms < l->since_ms)
		return;
	text = r.stream == VMLOG_INSULA ? own_text(r.text, r.len, cost)
					: logread_to_json(r.text, r.len, cost);
	o = json_object_new_object();
	if (r.time_ms)
		j_int(o, "time_ms", r.time_ms);
	j_str(o, "stream", vmlog_names[r.stream]);
	j_obj(o, "text", text);
	if (r.more || !whole)
		j_bool(o, "partial", true);
	json_object_array_add(l->lines, o);
	*cost += LINE_COST;
}

/* Take lines from a block. `last`: nothing comes behind it. How many bytes were taken. */
static size_t logread_take(struct logread *l, const char *buf, size_t n, bool last, size_t *cost)
{
	size_t at = 0;

	while (at < n && *cost < l->limit) {
		const char *end = memchr(buf + at, '\n', n - at);
		size_t len = end ? (size_t)(end - buf) - at : n - at;

		if (!end && !last && n - at < BLOCK)
			break;
		if (!end && len > PIECE)
			len = PIECE;
		logread_add(l, buf + at, len, end || (last && at + len == n), cost);
		at += len + (end != NULL);
	}
	return at;
}

/* ---- reading on ---- */

/* The file that is read, or the next one if that is done. NULL: there is nothing now. */
static const struct file *current(struct logread *l, const struct file *f, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		if (f[i].number != l->number)
			continue;
		if (l->offset < f[i].size)
			return &f[i];
		if (l->offset > f[i].size)
			break;
		if (i + 1 == n)
			return NULL;
		go_to(l, &f[i + 1], f[i + 1].begin);
		return l->offset < f[i + 1].size ? &f[i + 1] : NULL;
	}
	l->missed = true; /* it has been emptied */
	go_to(l, &f[0], f[0].begin);
	return l->offset < f[0].size ? &f[0] : NULL;
}

/* On one answer. */
struct spent {
	size_t cost, work;
	unsigned changes;
};

/* One block. False: no more now. */
static bool step(struct logread *l, char *buf, bool ended, struct spent *s)
{
	struct file f[2], again;
	unsigned n = look_at_both(l, f);
	const struct file *now;
	size_t len, used;
	bool last;

	if (!n)
		return false;
	if (!l->placed && l->tail >= 0)
		find_tail(l, f, n, buf);
	else if (!l->placed)
		go_to(l, &f[0], f[0].begin);
	now = current(l, f, n);
	if (!now)
		return false;
	len = now->size - l->offset < BLOCK ? (size_t)(now->size - l->offset) : BLOCK;
	/* It may have been emptied meanwhile: then this is another's text. */
	if (read_full(now->fd, buf, len, l->offset) || !logread_look(now->fd, &again) ||
	    again.number != now->number)
		return ++s->changes < CHANGES;
	last = l->offset + len == now->size && (ended || now != &f[n - 1]);
	used = logread_take(l, buf, len, last, &s->cost);
	l->offset += used;
	s->work += used < STEP_WORK ? STEP_WORK : used;
	return used > 0;
}

void logread_next(struct logread *l, bool ended)
{
	char *buf = malloc(BLOCK);
	struct spent s = {0};

	l->lines = json_object_new_array();
	l->missed = l->more = false;
	if (!buf || !l->lines)
		panic("out of memory");
	while (s.cost < l->limit && s.work < WORK && step(l, buf, ended, &s))
		;
	l->more = s.cost >= l->limit || s.work >= WORK;
	free(buf);
}

void logread_cursor(const struct logread *l, char out[LOGREAD_CURSOR])
{
	snprintf(out, LOGREAD_CURSOR, "%" PRIu64 ".%" PRIu64, l->number, l->offset);
}

bool logread_place(struct logread *l, const char *cursor)
{
	char again[LOGREAD_CURSOR];

	if (strlen(cursor) >= LOGREAD_CURSOR ||
	    sscanf(cursor, "%" SCNu64 ".%" SCNu64, &l->number, &l->offset) != 2)
		return false;
	logread_cursor(l, again);
	l->placed = l->number || l->offset;
	return !strcmp(again, cursor);
}
