/* SPDX-License-Identifier: BSD-2-Clause */
/* The system's part of struct child (child.h, which includes this): a container, two pipes. */
#ifndef SUPERVISOR_CHILD_WIN_H
#define SUPERVISOR_CHILD_WIN_H

#include "os/win/win.h"
#include "jail/contain.h"

struct child;

struct child_os {
	enum contain_kind kind;
	struct contained box;
	HANDLE pipe; /* our end of the channel; owned */
	struct channel channel;
	struct watch watch; /* of its channel until that has ended, then of its process: one handle
			     * for each child */
	HANDLE log;         /* our end of its standard error; owned; NULL: it has none any more */
	OVERLAPPED log_ov;
	bool log_busy; /* the system writes into log_buf */
	DWORD log_error, log_n;
	char log_buf[1024];
	struct timer log_due; /* it has written */
};

void child_init_contained(struct child *c, const char *program, const char *device,
			  enum contain_kind kind);
/* A handle of its own for what `h` stands for, with `access`; its value, which means nothing in
 * this process, or a negative errno. `h` is closed in any case. */
int child_give(struct child *c, HANDLE h, DWORD access);

#endif
