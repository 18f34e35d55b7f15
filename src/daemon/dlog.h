/* SPDX-License-Identifier: BSD-2-Clause */
/* The daemon's own log (log.c, log_*.c). */
#ifndef DAEMON_DLOG_H
#define DAEMON_DLOG_H

#include <stdbool.h>

struct conf;
struct machine;

/* log.c: one line, as text or as JSON; with fields where the journal listens. */
void dlog_setup(const struct conf *c);
/* The first time. From here on a thread writes the lines: log_queue_start(). */
int dlog_start(const struct conf *c);
void dlog(int level, const struct machine *m, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* log_*.c: the system's own log. */
void journal_open(void);
/* False: there is none. */
bool journal_write(int level, const struct machine *m, const char *text);

#endif
