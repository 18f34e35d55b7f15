/* SPDX-License-Identifier: BSD-2-Clause */
/* Groups of system calls that the manifest of a module may ask for: what is in them stands in
 * src/devices/module/module_calls.c. */
#ifndef INSULA_MODULE_CALLS_H
#define INSULA_MODULE_CALLS_H

enum module_calls {
	MODULE_CALLS_MEMORY = 1,  /* malloc() while it serves */
	MODULE_CALLS_SOCKET = 2,  /* its connections: send, receive, close */
	MODULE_CALLS_THREADS = 4, /* threads of a library: names, sleep, their end */
	MODULE_CALLS_EVENTS = 8,  /* epoll and eventfd of a library */
};

#endif
