/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The file of a copy-on-write disk, as the supervisor opens it: --disk BASE,overlay=FILE|discard.
 * What is in it is insula-blk's business (devices/blk/blk_overlay.h); who may have it, whether it
 * is one, and whether it belongs to this base, is decided here.
 */
#ifndef SUPERVISOR_OVERLAY_H
#define SUPERVISOR_OVERLAY_H

#include <stdbool.h>
#include <stdint.h>

#include <insula/err.h>

struct overlay_of {
	const char *base; /* its path, for messages */
	int base_fd;
	uint64_t capacity;
};

/* Open it to be read and written, locked for this VM, made if it is not there or empty: a
 * descriptor. `check_only`: nothing is made, and if it would have to be, *fd is -1. 0 or a negative
 * errno. */
int overlay_open(const char *path, const struct overlay_of *of, bool check_only, int *fd,
		 struct err *e);
/* A file without a name, in $TMPDIR or else /var/tmp. As above. */
int overlay_throwaway(uint64_t capacity, bool check_only, int *fd, struct err *e);

#endif
