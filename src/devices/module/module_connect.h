/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How a program of the host asks the supervisor for a connection: src/modules/connect/connect.c,
 * which is loaded into it, and supervisor/backing/asks.h.
 *
 * The program writes a request into a pipe. The answer is one message on a socket, on which the
 * program can only receive: struct connect_answer, and with code 0 a TCP socket that is connected,
 * or about to be, and does not block. One request is answered before the next one is read.
 *
 * A pipe, because nothing but bytes goes through it: a descriptor that a hostile program sent would
 * be closed by the supervisor, and a close() may wait.
 */
#ifndef DEVICES_MODULE_CONNECT_H
#define DEVICES_MODULE_CONNECT_H

#include <stdint.h>

/* Where the program finds them. */
#define CONNECT_ASK_FD 5
#define CONNECT_ANSWER_FD 6

/* In the environment: the program's connections do not come back, so it ends with the first that
 * ends, or cannot be made, and is started again. */
#define CONNECT_ENDS "INSULA_CONNECT_ENDS"

struct connect_request {
	uint16_t family;  /* AF_INET or AF_INET6 */
	uint16_t port;    /* of this machine's byte order */
	uint8_t addr[16]; /* of AF_INET the first four */
};

struct connect_answer {
	int32_t code; /* 0, or errno */
};

_Static_assert(sizeof(struct connect_request) == 20, "as it travels");

#endif
