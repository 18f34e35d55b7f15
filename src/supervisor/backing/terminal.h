/* SPDX-License-Identifier: BSD-2-Clause */
/* The console's two ends on the host: standard streams, a pty, a file, or nothing. */
#ifndef SUPERVISOR_TERMINAL_H
#define SUPERVISOR_TERMINAL_H

#include <stdbool.h>
#include <termios.h>

#include "spec/config.h"

struct terminal {
	int in, out;    /* for the helper; -1: no input. Owned. */
	uint64_t limit; /* how long a file at `out` may get: 0 for one that is none, all that there
			   is for one that the user has opened */
	bool stream;    /* the input is a stream with an end, not a terminal: UART_STREAM. Set by
			   vm_open(). */
	bool escape;    /* a person types: the escape key works */
	int slave;      /* our end of a pty, kept open so that the master never hangs up */
	char slave_name[64];
	bool raw_wanted; /* standard input is a terminal that shall be raw: the console's or the
			    command's; set by vm_open() */
	bool raw;        /* standard input was made raw and must be restored */
	struct termios saved;
};

/* Open the ends. Nothing is changed on the terminal yet. */
int terminal_open(struct terminal *t, const struct vm_config *c, struct err *e);
/* May this process read from standard input? A background job may not, what is typed is the
 * shell's. */
bool terminal_may_read(void);
/* `stream`: its input is for whoever says when they want it; `raw`: a terminal's keys are a
 * command's. */
void terminal_modes(struct terminal *t, bool stream, bool raw);
/* Log where others find it, if the user has to be told. */
void terminal_tell(const struct terminal *t);
/* Make a terminal on standard input raw, if that is wanted. */
void terminal_raw(struct terminal *t);
/* Undo terminal_raw() and close everything. May be called twice. */
void terminal_close(struct terminal *t);

#endif
