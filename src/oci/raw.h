/* SPDX-License-Identifier: BSD-2-Clause */
/* Our own terminal, while the process of a container is at it. */
#ifndef OCI_RAW_H
#define OCI_RAW_H

#include <stdbool.h>
#include <termios.h>

/* If standard input is a terminal: every key is the process's. False: it is none. */
bool raw_enter(struct termios *before);
void raw_leave(const struct termios *before);

#endif
