/* SPDX-License-Identifier: BSD-2-Clause */
/* The terminal of a process: a pty whose master goes to the caller. It is raw: the terminal that the
 * process sees is the guest's, and does what terminals do. */
#ifndef OCI_TTY_H
#define OCI_TTY_H

#include <stdbool.h>
#include <stdint.h>

#include "oci.h"

/* What a process is given: three descriptors, owned. */
struct stdio {
	int fd[3];
	bool tty;     /* all of them are one terminal */
	bool session; /* which becomes the proxy's own: it is told of its size */
};

/* process.terminal and --console-socket have to fit: checked before anything is made. `detached`:
 * nobody waits at our own terminal. */
int tty_check(json_object *process, const char *socket, bool detached, struct err *e);
/* Our own streams, or, with a socket, the slave of a new pty of process.consoleSize whose master was
 * sent there. */
int tty_open(struct stdio *s, json_object *process, const char *socket, struct err *e);
void tty_close(struct stdio *s);

/* Size of it; false: it is none. */
bool tty_size(int fd, uint16_t *rows, uint16_t *cols);

#endif
