/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Connections for a program of the host (served.h). Its network namespace is empty; it asks, with
 * devices/module/module_connect.h, and the supervisor makes a TCP connection in its own network
 * namespace and hands it over, if what it asks for is among the destinations that the user has
 * named. So the program, which a guest may have taken over, never holds a socket that is not
 * connected to one of them, or was.
 *
 * Nothing here waits: sockets do not block, a request is 20 bytes of a pipe, one is served in each
 * turn of the loop, and no more than ASKS_RATE a second after the first ASKS_BURST; a program that
 * wants more waits. One that does not take its answer is ended.
 *
 * Thread: the supervisor's. Linux only.
 */
#ifndef SUPERVISOR_BACKING_ASKS_H
#define SUPERVISOR_BACKING_ASKS_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

#include <insula/err.h>

#include "devices/module/module_connect.h"
#include "supervisor/loop.h"

#define ASKS_PLACES 64
#define ASKS_BURST 256u
#define ASKS_RATE 64u /* what ends is remembered for 60 s by its port: far from all ports */

/* Addresses whose first `bits` are those of `addr`, and these ports. */
struct ask_place {
	uint16_t family; /* AF_INET or AF_INET6 */
	uint16_t first, last;
	uint8_t bits;
	uint8_t addr[16];
};

struct asks {
	const char *name; /* for messages; borrowed */
	unsigned nplaces;
	struct ask_place place[ASKS_PLACES];
	void (*broken)(void *ctx); /* it does not keep to the rules: end it */
	void *ctx;
	/* asks.c's: */
	int ask, answer; /* owned, or -1 */
	bool warned;     /* said once, of each VM: a program can ask as often as it likes */
	unsigned tokens;
	uint64_t token_ns; /* when tokens were counted */
	struct watch watch;
	struct timer timer;
};

void asks_init(struct asks *a, const char *name, void (*broken)(void *ctx), void *ctx);
/* -ENOSPC: there are ASKS_PLACES already. */
int asks_add(struct asks *a, const struct ask_place *p);
/* Are the first `bits` of both the same? */
bool asks_same_bits(const uint8_t *a, const uint8_t *b, unsigned bits);
/* May it be reached? */
bool asks_allows(const struct asks *a, const struct connect_request *r);
/* A stream socket that is connected or about to be, and does not block, or a negative errno. Of TCP
 * with keep-alive, and without delay. */
int asks_connect(const struct sockaddr_storage *to, socklen_t len);
/* For a program that starts: *ask and *answer are its ends, the caller's. What the one before had
 * is closed. */
int asks_begin(struct asks *a, struct loop *loop, int *ask, int *answer, struct err *e);
/* No more; no-op if there is nothing. */
void asks_end(struct asks *a);

#endif
