/* SPDX-License-Identifier: BSD-2-Clause */
/* The control socket of a supervisor (talk.c). */
#ifndef DAEMON_TALK_H
#define DAEMON_TALK_H

#include <stdbool.h>

#include <json-c/json.h>

#include <insula/err.h>

#include "machine.h"

/* Connect to its supervisor and say hello. */
int talk_open(struct machine *m, struct err *e);
/* The same over a connection that there is already; takes `fd` over. */
int talk_begin(struct machine *m, int fd, struct err *e);
/* The same, now and at longer and longer intervals until it works: a supervisor may be busy. One
 * whose process cannot be watched, and whose socket is no more, has ended: `m` may be freed. */
void talk_find(struct machine *m);
/* The supervisor is dead: what it said before is heard, the answers to requests too. */
void talk_drain(struct machine *m);
void talk_close(struct machine *m);
/* Ask the supervisor; `done` is called exactly once, with a result or an error. Takes `params`
 * over. `fd` descriptors of `r` go along when `with_fds`. */
void talk_ask(struct machine *m, const char *op, json_object *params, reply_fn *done,
	      struct request *r, bool with_fds);
/* The same within `ms`, with all descriptors of `r`, which stay its own. */
void talk_lend(struct machine *m, const char *op, json_object *params, reply_fn *done,
	       struct request *r, uint64_t ms);
/* The same for what may take so many ms. */
void talk_ask_long(struct machine *m, const char *op, json_object *params, reply_fn *done,
		   struct request *r, uint64_t ms);

#endif
