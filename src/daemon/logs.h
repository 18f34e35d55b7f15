/* SPDX-License-Identifier: BSD-2-Clause */
/* Reading the logs of VMs (logs.c): a thread of libuv's reads, the loop answers. */
#ifndef DAEMON_LOGS_H
#define DAEMON_LOGS_H

struct daemon;
struct machine;

/* The VM has ended: who follows its log gets the rest and no more. `m` may go afterwards. */
void logs_ended(struct machine *m);
/* The loop ends. After clients_close(). */
void logs_close(struct daemon *d);

#endif
