/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The log of a VM under insulad: what its console and its command said, and the supervisor's own
 * lines, each with its time and its stream.
 *
 * The supervisor writes it, insulad reads it (daemon/logs.c). There are two files. One is written
 * until it is full; then the other one is emptied and written. So the log has the last lines, and
 * at most twice `max` bytes. At the start of the VM the older one is emptied, so the end of the run
 * before it is still there.
 *
 *   insula-log 1 NUMBER                 the first line of a file; the larger number is the newer
 *   MILLISECONDS S- text                a line: since 1970, in 13 digits; the stream's letter
 *   MILLISECONDS S+ text                one that goes on in the next record of this stream
 *
 * A text has any bytes but line ends, so no guest can write a record of another stream. A line that
 * is no record comes from the supervisor's standard error, which is the newer file.
 *
 * A guest that writes too much loses old lines here, never its time: VMLOG_BURST bytes at once,
 * VMLOG_RATE in a second; what waits beyond that is in memory, and the oldest of it is dropped and
 * counted. Not more than that is asked of the disk. One thread: the supervisor's.
 */
#ifndef SUPERVISOR_VMLOG_H
#define SUPERVISOR_VMLOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VMLOG_MIN (64u << 10) /* of one file */
#define VMLOG_LINE 4096       /* a text that is longer goes on in another record */
#define VMLOG_QUEUE (256u << 10)
#define VMLOG_RATE (1u << 20)
#define VMLOG_BURST (4u << 20)
#define VMLOG_PREFIX 17

enum vmlog_stream { VMLOG_CONSOLE, VMLOG_STDOUT, VMLOG_STDERR, VMLOG_INSULA, VMLOG_STREAMS };
extern const char *const vmlog_names[VMLOG_STREAMS];

/* ---- records (vmlog_record.c) ---- */

#define VMLOG_MAGIC "insula-log 1 "
extern const char vmlog_letters[]; /* by stream */

struct vmlog_record {
	int64_t time_ms; /* -1: none */
	enum vmlog_stream stream;
	bool more;        /* the line goes on */
	const char *text; /* in the line that was parsed */
	size_t len;
};

/* One line of a file, without its end. */
void vmlog_parse(const char *line, size_t len, struct vmlog_record *out);
/* The number of a file that begins with this; 0: it has none. *len is the first line with its end.
 */
uint64_t vmlog_number(const char *text, size_t size, size_t *len);

/* ---- writing ---- */

struct vmlog {
	int fd[2]; /* owned; -1: there is no log */
	unsigned at;
	uint64_t number, max;
	struct {
		char text[VMLOG_LINE];
		size_t n;
		uint64_t since_ns; /* of its first byte */
	} line[VMLOG_STREAMS];
	char stamp[15]; /* the time of what is taken now, as text */
	char *queue;    /* whole records */
	size_t nqueue;
	uint64_t lost;                /* bytes of them that were dropped and not told yet */
	uint64_t tokens, refilled_ns; /* bytes that may be written now */
};

/* Nothing is logged; vmlog_close() does no harm. */
void vmlog_init(struct vmlog *v);
/* Takes the descriptors over, and begins the older file. 0 or -ENOMEM. */
int vmlog_open(struct vmlog *v, const int fd[2], uint64_t max);
/* What a stream said. */
void vmlog_add(struct vmlog *v, enum vmlog_stream s, const void *text, size_t len);
/* Write what may be written now. A line that has not ended for a second is written too. */
void vmlog_serve(struct vmlog *v, uint64_t now_ns);
/* When vmlog_serve() wants to be called at the latest, 0: not at all. */
uint64_t vmlog_deadline(const struct vmlog *v, uint64_t now_ns);
/* Write everything. */
void vmlog_finish(struct vmlog *v);
void vmlog_close(struct vmlog *v);

/* control_linux.c, control_win.c: empty the file; and make it standard error. */
int vmlog_os_begin(int fd);

#endif
