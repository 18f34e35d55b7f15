/* SPDX-License-Identifier: BSD-2-Clause */
/* Reading the two files of a VM's log, which its supervisor goes on writing: see
 * supervisor/control/vmlog.h. Blocks on the disk; any thread. What the files say is the VM's
 * user's: nothing is believed, and one answer is a bounded amount of work whatever they are. */
#ifndef DAEMON_LOGREAD_H
#define DAEMON_LOGREAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <json-c/json.h>

#define LOGREAD_CURSOR 48

struct logread {
	int fd[2]; /* -1: there is none */
	/* Where to read on: a file's number and a place in it. Number 0: not known yet. */
	uint64_t number, offset;
	bool placed;       /* they are */
	int64_t tail;      /* until then: only so many of the last lines; -1: all */
	int64_t since_ms;  /* only lines that are not older */
	int64_t last_ms;   /* of the last line: one without a time has this */
	size_t limit;      /* of the JSON text of one answer, about */
	uint64_t file_max; /* bytes: for `tail`, no file is looked at further back */

	/* The answer. */
	json_object *lines; /* an array; the caller's */
	bool missed;        /* some are gone that were to come here */
	bool more;          /* the limit was reached, or it was enough work for one answer */
};

/* Read on. `ended`: nobody writes any more. */
void logread_next(struct logread *l, bool ended);
/* "NUMBER.OFFSET", for people an opaque word. */
void logread_cursor(const struct logread *l, char out[LOGREAD_CURSOR]);
bool logread_place(struct logread *l, const char *cursor);

#endif
