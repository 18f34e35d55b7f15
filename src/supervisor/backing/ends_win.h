/* SPDX-License-Identifier: BSD-2-Clause */
/* What the user named, as the supervisor holds it on Windows: kernel, disks, the console's ends. */
#ifndef SUPERVISOR_ENDS_WIN_H
#define SUPERVISOR_ENDS_WIN_H

#include "os/win/win.h"

#include <insula/proto.h>

#include "devices/blk/blk_start.h"
#include "spec/config.h"

/* What is behind a disk: a file, open once and for all helpers. The handle keeps other VMs away. */
struct disk {
	const struct disk_config *conf; /* borrowed */
	int fd;                         /* owned */
	struct msg_limit limit;         /* as in disk.h */
	struct msg_start_blk start;
};

/* The console's ends: pipes or files. */
struct terminal {
	int in, out;               /* owned; -1: no input */
	uint64_t limit;            /* how long a file at `out` may get; 0: it is none */
	bool escape;               /* a person types */
	bool stream;               /* false: what reads of a terminal's end has no such flag */
	void *pump;                /* as of std_open() */
	DWORD saved_in, saved_out; /* the console window's modes, to be restored if `raw` */
	bool raw, raw_wanted;
};

int file_open(const char *path, const char *what, struct err *e); /* to read; a descriptor */
#define DISK_FDS 1
#define DISK_ONCE 1

int disk_open(struct disk *d, const struct disk_config *c, bool check_only, struct err *e);
/* As in disk.h. */
int disk_hand_out(const struct disk *d, bool again, struct msg_start_blk *m, int fds[DISK_FDS],
		  unsigned *n, int once[DISK_ONCE], struct err *e);
int disk_quiet(const struct disk *d);
int terminal_open(struct terminal *t, const struct vm_config *c, struct err *e);
/* The console window gives each key as it is typed, and draws what a terminal's programs write. */
void terminal_raw(struct terminal *t);
/* `stream` is nothing here; `raw`: a window's keys are a command's. */
void terminal_modes(struct terminal *t, bool stream, bool raw);
void terminal_tell(const struct terminal *t); /* there is nothing to tell */
/* Undo terminal_raw() and close everything. */
void terminal_close(struct terminal *t);
/* A standard stream (STD_INPUT_HANDLE ...) as a helper may have it: a descriptor with no more
 * rights than it needs, of what was given, of NUL if nothing was, or, for a console window, of a
 * pipe to or from a thread of ours, which *pump is then (the caller's; NULL otherwise). */
int std_open(DWORD which, int *fd, void **pump, struct err *e);
/* Another handle for a stream of insulad's, which a child can inherit; -1: none. */
int stream_copy(int fd);
/* After the last descriptor of an output was closed: its thread writes out what it has. */
void std_drain(void **pump);
/* Is it a console window? */
bool std_is_window(DWORD which);

#endif
