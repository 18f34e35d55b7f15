/* SPDX-License-Identifier: BSD-2-Clause */
/* Streams of this client on Windows: pipes that it makes, and the console window. */
#ifndef CTL_STREAM_WIN_H
#define CTL_STREAM_WIN_H

#include "os/win/win.h"

#include "ctl.h"

/* A pipe of one instance for insulad's supervisor to open, whose name is added to `names`. `access`
 * as with pipe_offer(). The event of `ov` is set when it has been opened. Our end, or a negative
 * errno. */
int stream_make(struct conn *c, DWORD access, json_object *names, OVERLAPPED *ov, struct err *e);
/* Read or write some of it; blocks, until `stop` is set if that is not NULL. Any thread. */
int stream_transfer(int fd, bool write, void *buf, size_t len, HANDLE stop);

/* The console window gives each key as it is typed, and draws what a terminal's programs write.
 * False: standard input is none. */
struct stream_window {
	DWORD in, out; /* its modes, to be restored */
};
bool stream_raw(struct stream_window *w);
void stream_cooked(const struct stream_window *w);

#endif
