/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the user tells insula-run by its terminal or by kill(1): Linux's signal numbers on every
 * system. On Windows these are Ctrl-C and a change of the console window's size, which is looked at
 * once a second. signals_linux.c, signals_win.c; one of them in a process.
 */
#ifndef SUPERVISOR_SIGNALS_H
#define SUPERVISOR_SIGNALS_H

#include "loop.h"

#define SIGNALS_RESIZED 28 /* Linux's SIGWINCH */

struct signals {
	int handle; /* owned; -1: none */
	struct watch watch;
	struct timer look;   /* Windows: at the size of the window */
	uint16_t rows, cols; /* Windows: when it was last looked at; 0: not yet */
	void (*fn)(void *ctx, int signo);
	void *ctx;
};

/* Call `fn` for those that end a VM. `command`: also for those that are a command's alone. */
int signals_catch(struct signals *s, struct loop *l, bool command, void (*fn)(void *ctx, int signo),
		  void *ctx);
void signals_close(struct signals *s);

#endif
