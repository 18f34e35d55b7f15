/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Clients (client.c): lines in, lines out, and the limits of both. A client is freed when nothing
 * in the call stack uses it.
 */
#ifndef DAEMON_CLIENT_H
#define DAEMON_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "record.h"
#include "request.h"

struct daemon;
struct link;
struct timer;

struct chunk;
struct client {
	struct client *next;
	struct daemon *d;
	struct link *link; /* owned; NULL: a test's */
	struct owner who;
	void (*serve)(struct client *c); /* what it sends is not JSON-RPC; NULL: it is */
	struct timer *idle;              /* looks whether it is: idle_timeout */
	uint64_t active_ns;              /* when it last was */
	bool closing;                    /* when everything is written */
	bool eof;                        /* it will not send more; it may still read */
	struct timer *again;             /* lines are left in the buffer */
	bool gone;                       /* freed when nothing in the call stack uses it */
	char *in;
	size_t nin, in_size;
	int got[REQUEST_FDS]; /* descriptors for the next line */
	unsigned ngot;
	bool got_more; /* than REQUEST_FDS: they are given up already */
	struct chunk *out, **out_end;
	size_t queued;
	unsigned nfds; /* in there */
	struct request *requests;
	unsigned nrequests;
	bool subscribed;
	char filter[ID_LEN + 1]; /* events of this VM only; "": all */
	uint64_t seq;
};

void clients_close(struct daemon *d);
/* Somebody has come in. Takes `l` over. */
void client_take(struct daemon *d, struct link *l, const struct owner *who,
		 void (*serve)(struct client *c));
/* Queue bytes as they are. */
void client_write(struct client *c, const char *text, size_t len);
/* Queue one line (its end is added); takes `fd` over, which foreign_took() has counted; -1: none.
 */
void client_send(struct client *c, const char *text, int fd);
void client_close(struct client *c);
/* After a request has been answered: read on, or close. */
void client_settle(struct client *c);
/* For tests and fuzzers: a client without a connection; what it is sent stays in its queue. */
struct client *client_make(struct daemon *d, const struct owner *who);
const char *client_first_line(const struct client *c);
void client_free_line(struct client *c);

/* May one more descriptor wait until it reads? */
bool client_has_room(struct client *c);
/* Those that had to wait are read from again. */
void clients_go_on(struct daemon *d);

#endif
