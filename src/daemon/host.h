/* SPDX-License-Identifier: BSD-2-Clause */
/* What else the system has of its own (host_*.c). */
#ifndef DAEMON_HOST_H
#define DAEMON_HOST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <insula/err.h>

struct daemon;
struct owner;

void host_prepare(struct daemon *d); /* limits, signals; before everything */
/* Where the supervisors' program is: d->supervisor. */
int host_supervisor(struct daemon *d, struct err *e);
uint64_t host_memory(void); /* bytes */
/* Fill in the groups that the system gives who->uid today, and its first one; a user whom nobody
 * knows has none. May take long, and is called from other threads. -E2BIG: more than MAX_GROUPS;
 * other errors: they cannot be known. Windows: there is nothing to look up. */
int host_groups(struct owner *who);
/* Whose the daemon is. 0: root, who may become anybody; Windows: always. */
uint32_t host_uid(void);
/* Clients name their streams, because no descriptor can travel. */
extern const bool host_names_streams;
/* A client's descriptor that can be a console. */
bool host_is_stream(int fd);
/* What ends the daemon, and what makes it read its configuration again (0: nothing). */
extern const int host_signals[];
extern const size_t host_nsignals;
extern const int host_reload_signal;
/* Arguments in UTF-8. */
char **host_arguments(int *argc, char **argv);

#endif
