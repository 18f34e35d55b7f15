/* SPDX-License-Identifier: BSD-2-Clause */
/* Descriptors that others have made (foreign.c): counted by user, closed in other threads. */
#ifndef DAEMON_FOREIGN_H
#define DAEMON_FOREIGN_H

#include <stdbool.h>
#include <stdint.h>

#include <insula/err.h>

struct daemon;
struct link;

#define FOREIGN_MIN_NOFILE 2048
int foreign_open(struct daemon *d, struct err *e);
/* `n` of them have come from `uid`. */
void foreign_took(struct daemon *d, uint32_t uid, unsigned n);
/* One is needed no longer. -1: nothing to do; is -1 then. */
void foreign_close(struct daemon *d, uint32_t uid, int *fd);
/* link_free() of a connection to `uid`. NULL is fine. */
void foreign_hang_up(struct daemon *d, uint32_t uid, struct link *l);
/* May nothing be received from this user, because that may bring more? Whoever asks will be asked
 * again (clients_go_on(), machines_go_on()). */
bool foreign_full(struct daemon *d, uint32_t uid);
/* The process has no descriptors left for one more connection or VM of this user. */
bool foreign_table_full(const struct daemon *d, uint32_t uid);
/* There are fewer. */
void foreign_go_on(struct daemon *d);

#endif
