/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Records of a VM's log: what its console and its command said, and the supervisor's own lines,
 * each with its time and its stream. The supervisor writes them
 * (supervisor/control/vmlog.h), insulad reads them (daemon/logread.h), possibly those of another
 * release.
 *
 *   insula-log 1 NUMBER                 the first line of a file; the larger number is the newer
 *   MILLISECONDS S- text                a line: since 1970, in 13 digits; the stream's letter
 *   MILLISECONDS S+ text                one that goes on in the next record of this stream
 *
 * A text has any bytes but line ends, so no guest can write a record of another stream. A line that
 * is no record comes from the supervisor's standard error, which is the newer file.
 */
#ifndef SPEC_LOGRECORD_H
#define SPEC_LOGRECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VMLOG_MIN (64u << 10) /* of one file */
#define VMLOG_PREFIX 17
#define VMLOG_MAGIC "insula-log 1 "

enum vmlog_stream { VMLOG_CONSOLE, VMLOG_STDOUT, VMLOG_STDERR, VMLOG_INSULA, VMLOG_STREAMS };
extern const char *const vmlog_names[VMLOG_STREAMS];
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

#endif
