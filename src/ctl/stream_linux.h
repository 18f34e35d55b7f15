/* SPDX-License-Identifier: BSD-2-Clause */
/* Terminal and signals of this client on Linux. */
#ifndef CTL_STREAM_LINUX_H
#define CTL_STREAM_LINUX_H

#include <signal.h>
#include <stdbool.h>
#include <termios.h>

/* Standard input gives each key as it is typed. False: it is no terminal. */
bool stream_raw(struct termios *saved);
void stream_cooked(const struct termios *saved);
/* These signals come by a descriptor from now on; *old is the mask before. A negative errno. */
int stream_signals(const int *signo, size_t n, sigset_t *old);

#endif
