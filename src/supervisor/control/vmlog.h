/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Writing the log of a VM under insulad; spec/logrecord.h says what is in it.
 *
 * There are two files. One is written
 * until it is full; then the other one is emptied and written. So the log has the last lines, and
 * at most twice `max` bytes. At the start of the VM the older one is emptied, so the end of the run
 * before it is still there.
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

#include "spec/logrecord.h"

#define VMLOG_LINE 4096 /* a text that is longer goes on in another record */
#define VMLOG_QUEUE (256u << 10)
#define VMLOG_RATE (1u << 20)
#define VMLOG_BURST (4u << 20)

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
