/* SPDX-License-Identifier: BSD-2-Clause */
/* The state directory (state_*.c). */
#ifndef DAEMON_STATE_H
#define DAEMON_STATE_H

#include <stdbool.h>
#include <stddef.h>

#include <insula/err.h>

struct daemon;

/* A directory of this mode, unless there is one; 0 or a negative errno. Linux. */
int make_dir(const char *path, unsigned mode);
/* Create it, and lock it as long as the descriptor is open. -EBUSY: another insulad has it. */
int state_lock(const char *path, struct err *e);
/* The descriptor of STATE/NAME, created if it is not there; the state is locked. */
int state_open(const char *path, const char *name, struct err *e);
int state_make(int dir, const char *id, struct err *e);
/* The directory of one VM. */
int state_enter(int dir, const char *id);
/* Replace a file: a temporary one, fsync if `durable`, rename. */
int state_write(int dir, const char *id, const char *name, const char *text, bool durable,
		struct err *e);
/* A whole file of at most `max` bytes; the caller's, with a NUL behind it. */
int state_read(int dir, const char *id, const char *name, size_t max, char **text, size_t *len);
/* A file of a VM to read, which another process may write: a descriptor, or a negative errno. */
int state_file_open(int dir, const char *id, const char *name);
/* Its record first, and if that cannot be removed, nothing. */
void state_remove(int dir, const char *id);
/* Call `fn` with each id that has a directory. */
int state_list(int dir, void (*fn)(struct daemon *d, const char *id), struct daemon *d,
	       struct err *e);

#endif
