/* SPDX-License-Identifier: BSD-2-Clause */
/* The process of a supervisor: whether it lives, its end (process_*.c). */
#ifndef DAEMON_PROCESS_H
#define DAEMON_PROCESS_H

#include <stddef.h>
#include <stdint.h>

#include <insula/err.h>

struct machine;
struct record;

/* When it started, in its own units; 0: there is no such process, or it cannot be looked at. */
uint64_t process_start_time(int pid);
/* That very process: pidfd or handle, as far as we may. -ESRCH: it is no more. Other errors: it
 * cannot be seen, for want of rights or, just now, of descriptors or memory. */
int process_open(const struct record *r);
/* Kill it. Negative: it cannot be, or is no more. */
int process_shoot(int process);
/* One that we have just made: end it and wait for that. */
void process_undo(const struct machine *m);
/* It has ended: how, -1: nobody knows. */
int64_t process_reap(const struct machine *m);
/* And without a result: `reason` (of 32 bytes) and a line. */
void process_loss(int64_t how, char *reason, char *text, size_t size);
/* What tells one run of the system from the next, "": nothing does. */
int process_boot_id(char *out, size_t size, struct err *e);

#endif
