/* SPDX-License-Identifier: BSD-2-Clause */
/* The log of a VM. See vmlog.h. */
#include "vmlog.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <insula/base.h>

#define SECOND_NS 1000000000ull
#define PARTIAL_NS SECOND_NS      /* so long a line may take to its end */
#define QUEUE_NS (SECOND_NS / 10) /* between two attempts to write what waits */
#define RECORD_MAX (VMLOG_PREFIX + VMLOG_LINE + 1)

/* ---- files ---- */

static uint64_t wall_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* The number grows also if the clock is set back, or two files are full within a millisecond. */
static void begin_file(struct vmlog *v)
{
	uint64_t now = wall_ms();
	char line[sizeof(VMLOG_MAGIC) + 24];

	v->number = now > v->number ? now : v->number + 1;
	if (vmlog_os_begin(v->fd[v->at]))
		return;
	snprintf(line, sizeof(line), VMLOG_MAGIC "%" PRIu64 "\n", v->number);
	(void)write_full(v->fd[v->at], line, strlen(line));
}

/* A log that cannot be written has nowhere to complain. */
static void write_records(struct vmlog *v, const char *text, size_t len)
{
	uint64_t size = 0;

	if (!len)
		return;
	if (file_size(v->fd[v->at], &size) || size + len > v->max) {
		v->at ^= 1;
		begin_file(v);
	}
	(void)write_full(v->fd[v->at], text, len);
}

/* ---- the queue ---- */

/* The oldest records go, half of the queue: it is not moved for each. */
static void make_room(struct vmlog *v)
{
	const char *end = memchr(v->queue + v->nqueue / 2, '\n', v->nqueue - v->nqueue / 2);
	size_t n = end ? (size_t)(end - v->queue) + 1 : v->nqueue;

	v->lost += n;
	v->nqueue -= n;
	memmove(v->queue, v->queue + n, v->nqueue);
}

/* A guest may end a line with each byte: the time is made into text once for all that come at once.
 */
static void stamp(struct vmlog *v)
{
	snprintf(v->stamp, sizeof(v->stamp), "%013" PRIu64 " ", wall_ms() % 10000000000000u);
}

static void put_record(struct vmlog *v, enum vmlog_stream s, bool more, const char *text,
		       size_t len)
{
	char *out;

	if (v->nqueue + RECORD_MAX > VMLOG_QUEUE)
		make_room(v);
	out = v->queue + v->nqueue;
	memcpy(out, v->stamp, sizeof(v->stamp) - 1);
	out[14] = vmlog_letters[s];
	out[15] = more ? '+' : '-';
	out[16] = ' ';
	memcpy(out + VMLOG_PREFIX, text, len);
	out[VMLOG_PREFIX + len] = '\n';
	v->nqueue += VMLOG_PREFIX + len + 1;
}

static void put_line(struct vmlog *v, enum vmlog_stream s, bool more)
{
	size_t n = v->line[s].n;

	if (!more && n && v->line[s].text[n - 1] == '\r')
		n--; /* a terminal's line end */
	put_record(v, s, more, v->line[s].text, n);
	v->line[s].n = 0;
	v->line[s].since_ns = 0;
}

void vmlog_add(struct vmlog *v, enum vmlog_stream s, const void *text, size_t len)
{
	const char *p = text, *end = p + len;

	stamp(v);
	while (v->queue && p < end) {
		const char *eol = memchr(p, '\n', (size_t)(end - p));
		size_t n = (size_t)((eol ? eol : end) - p), room = VMLOG_LINE - v->line[s].n;

		if (n > room) {
			n = room;
			eol = NULL;
		}
		memcpy(v->line[s].text + v->line[s].n, p, n);
		v->line[s].n += n;
		p += n + (eol != NULL);
		if (eol || v->line[s].n == VMLOG_LINE)
			put_line(v, s, !eol);
		else if (!v->line[s].since_ns)
			v->line[s].since_ns = clock_ns();
	}
}

/* ---- time ---- */

static void refill(struct vmlog *v, uint64_t now_ns)
{
	uint64_t ns = now_ns - v->refilled_ns;

	v->refilled_ns = now_ns;
	if (ns > SECOND_NS * (VMLOG_BURST / VMLOG_RATE))
		v->tokens = VMLOG_BURST;
	else
		v->tokens += ns * VMLOG_RATE / SECOND_NS;
	if (v->tokens > VMLOG_BURST)
		v->tokens = VMLOG_BURST;
}

/* Of the first `most` bytes that wait, those that are whole records. */
static size_t whole_records(const struct vmlog *v, uint64_t most)
{
	size_t n = most < v->nqueue ? (size_t)most : v->nqueue;

	while (n && v->queue[n - 1] != '\n')
		n--;
	return n;
}

static void tell_lost(struct vmlog *v)
{
	char line[160];

	if (!v->lost)
		return;
	snprintf(line, sizeof(line),
		 "%013" PRIu64 " i- insula-run: %" PRIu64
		 " bytes are missing here: they came faster than the log takes them\n",
		 wall_ms() % 10000000000000u, v->lost);
	v->lost = 0;
	write_records(v, line, strlen(line));
}

/* In pieces, so that a file gets no longer than it may. */
static void write_queue(struct vmlog *v, uint64_t most)
{
	size_t n = whole_records(v, most), done = 0;

	if (n)
		tell_lost(v);
	while (done < n) {
		size_t piece = n - done < VMLOG_MIN / 2 ? n - done : VMLOG_MIN / 2;

		while (v->queue[done + piece - 1] != '\n')
			piece--;
		write_records(v, v->queue + done, piece);
		done += piece;
	}
	v->nqueue -= n;
	memmove(v->queue, v->queue + n, v->nqueue);
	v->tokens -= n < v->tokens ? n : v->tokens;
}

void vmlog_serve(struct vmlog *v, uint64_t now_ns)
{
	if (!v->queue)
		return;
	stamp(v);
	for (enum vmlog_stream s = 0; s < VMLOG_STREAMS; s++) {
		if (v->line[s].since_ns && now_ns >= v->line[s].since_ns + PARTIAL_NS)
			put_line(v, s, true);
	}
	refill(v, now_ns);
	write_queue(v, v->tokens);
}

uint64_t vmlog_deadline(const struct vmlog *v, uint64_t now_ns)
{
	uint64_t first = v->nqueue ? now_ns + QUEUE_NS : 0;

	for (unsigned s = 0; s < VMLOG_STREAMS; s++) {
		uint64_t limit = v->line[s].since_ns ? v->line[s].since_ns + PARTIAL_NS : 0;

		if (limit && (!first || limit < first))
			first = limit;
	}
	return first;
}

/* ---- begin and end ---- */

void vmlog_init(struct vmlog *v)
{
	memset(v, 0, sizeof(*v));
	v->fd[0] = v->fd[1] = -1;
}

static uint64_t number_of(int fd)
{
	char head[64];
	uint64_t size = 0;
	size_t n, len;

	if (file_size(fd, &size))
		return 0;
	n = size < sizeof(head) ? (size_t)size : sizeof(head);
	return read_full(fd, head, n, 0) ? 0 : vmlog_number(head, n, &len);
}

int vmlog_open(struct vmlog *v, const int fd[2], uint64_t max)
{
	vmlog_init(v);
	memcpy(v->fd, fd, sizeof(v->fd));
	v->max = max < VMLOG_MIN ? VMLOG_MIN : max;
	v->tokens = VMLOG_BURST;
	v->refilled_ns = clock_ns();
	v->queue = malloc(VMLOG_QUEUE);
	if (!v->queue)
		return -ENOMEM;
	v->number = number_of(fd[0]);
	if (v->number > number_of(fd[1]))
		v->at = 1;
	else
		v->number = number_of(fd[1]);
	begin_file(v);
	return 0;
}

void vmlog_finish(struct vmlog *v)
{
	stamp(v);
	for (enum vmlog_stream s = 0; v->queue && s < VMLOG_STREAMS; s++) {
		if (v->line[s].n)
			put_line(v, s, false);
	}
	if (v->queue)
		write_queue(v, v->nqueue);
}

void vmlog_close(struct vmlog *v)
{
	free(v->queue);
	v->queue = NULL;
	fd_close(&v->fd[0]);
	fd_close(&v->fd[1]);
}
