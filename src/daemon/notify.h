/* SPDX-License-Identifier: BSD-2-Clause */
/* systemd (notify_*.c, host_win.c). */
#ifndef DAEMON_NOTIFY_H
#define DAEMON_NOTIFY_H

#include <stdint.h>

/* notify_*.c: what systemd wants to know, and the sockets that it hands over. */
int notify_sockets(int *out, unsigned max); /* number of descriptors */
void notify_send(const char *text);
uint64_t notify_watchdog_ms(void); /* 0: none */

#endif
