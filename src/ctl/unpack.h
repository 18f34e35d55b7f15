/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Unpacking what a guest has sent. Linux.
 *
 * The archive may be an attack: on files beside the directory, through its names, through links
 * that it has made before or that were there, by devices, by set-uid bits. So:
 *
 * - A name is taken apart into components. ".." is refused; the first one must be what was asked
 *   for, and is replaced by what the user wants it to be called.
 * - Each component is opened from the one before, and never by way of a symbolic link, also one of
 *   the user's own.
 * - A file is written under a name of its own, and renamed when it is whole: what another name
 *   shares with it is never written to. It gets permission bits alone, and belongs to the caller.
 * - A symbolic link must not lead out of what was copied: its target is relative, and goes up only
 *   at its beginning, and not beyond the root of the copy. As long as that holds for each link, it
 *   holds for each path through them.
 * - A hard link is made to a regular file of the copy, or not at all.
 * - Anything else is left out, and named.
 *
 * What is left out makes the copy incomplete, not impossible; a full disk ends it. One thread.
 */
#ifndef CTL_UNPACK_H
#define CTL_UNPACK_H

#include <stdbool.h>

#include <insula/err.h>

#include "tar.h"

struct unpack {
	int top;                        /* the directory into which it goes; borrowed */
	const char *base;               /* the first component of each name; NULL: there is none */
	const char *target;             /* what stands instead of it below `top`; "": nothing */
	bool need_directory, need_file; /* the first entry must be one */
	void (*left_out)(void *ctx, const char *line);
	void *ctx;

	/* unpack_all()'s */
	unsigned skipped, entries;
	struct unpack_mode *modes; /* of directories that we could not write to; owned */
	size_t nmodes;
};

/* All of an archive. 0, also if something was left out (u->skipped); a negative errno and a line:
 * what came before is there. */
int unpack_all(struct unpack *u, struct tar_reader *t, struct err *e);

#endif
