/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a command says: --log FILE and --log-format, as runc's callers read them. A line is
 *
 *   {"level":"error","msg":"...","time":"2026-11-29T07:00:00Z"}      json
 *   time="2026-11-29T07:00:00Z" level=error msg="..."                text
 *
 * Without --log it goes to standard error in the same format. With it an error's text is there too,
 * as it is, for people: callers show that.
 */
#ifndef OCI_REPORT_H
#define OCI_REPORT_H

#include <stdbool.h>

#include <insula/err.h>

/* Before the first line. path NULL or "": standard error. */
int report_open(const char *path, bool json, bool debug, struct err *e);
/* A process that goes on alone: standard error is not ours any more, the file alone is. */
void report_to_file_only(void);
/* The file's descriptor, which stays open in children; -1: none. */
int report_fd(void);

void report_error(const char *fmt, ...) INSULA_PRINTF(1, 2);
void report_warn(const char *fmt, ...) INSULA_PRINTF(1, 2);
void report_debug(const char *fmt, ...) INSULA_PRINTF(1, 2);

#endif
