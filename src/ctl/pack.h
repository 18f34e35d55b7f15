/* SPDX-License-Identifier: BSD-2-Clause */
/* Files and directories of this host as an archive. Linux. One thread. */
#ifndef CTL_PACK_H
#define CTL_PACK_H

#include <stdbool.h>
#include <stddef.h>

#include <insula/err.h>

struct pack {
	/* All of it: 0 or a negative errno with a line. */
	int (*write)(void *ctx, const void *buf, size_t len, struct err *e);
	void *stream; /* its ctx */
	void (*left_out)(void *ctx, const char *line);
	void *ctx;
	bool follow; /* symbolic links below `path`, and `path` itself: what they lead to */
	unsigned skipped;
};

/* `path` and what is below it, called `name`; with its end. Files, directories and symbolic links:
 * anything else, and what cannot be read, is left out and named. A negative errno and a line: it
 * is not there, or nothing can be written. */
int pack_all(struct pack *p, const char *path, const char *name, struct err *e);

#endif
