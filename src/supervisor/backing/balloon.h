/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the host wants of a guest's balloon, and what the guest says about its memory.
 *
 * The target is the memory that the guest is left with. It is kept here: a helper that is started
 * again begins with it. The guest's words are numbers to show and nothing else.
 *
 * Thread: the supervisor's; nothing blocks.
 */
#ifndef SUPERVISOR_BALLOON_H
#define SUPERVISOR_BALLOON_H

#include <stdbool.h>
#include <stdint.h>

#include <json-c/json.h>

#include <insula/err.h>

#include "devices/balloon/balloon_start.h"
#include "spec/config.h"

#include "balloon_idle.h"

struct device;
struct loop;

struct balloon_back {
	const struct vm_config *conf; /* borrowed */
	uint64_t target;              /* bytes */
	uint32_t sent;                /* pages that the helper was told last */
	bool telling;                 /* and it has not taken that yet */
	bool asked;                   /* the helper has not answered yet */
	uint64_t next_ns;             /* the next question, with stats=SECONDS */
	uint64_t answers;             /* of the guest's statistics, by whichever helper */
	struct balloon_idle idle;     /* with idle=SECONDS */
	struct msg_balloon_state said;
	uint64_t said_ns; /* 0: never */
};

void balloon_init(struct balloon_back *b, const struct vm_config *conf);
/* The pages that the balloon shall have now. */
uint32_t balloon_pages(const struct balloon_back *b);
/* Leave the guest so much. -ERANGE: below CONFIG_MIN_TARGET, or more than it has. */
int balloon_set(struct device *d, uint64_t target, struct err *e);
/* Ask the guest for new statistics; control_balloon() when they are there. False: nobody is there to
 * ask. */
bool balloon_ask(struct device *d);
/* The helper's answers. False: it cannot be one. */
bool balloon_taken(struct device *d, size_t len);
bool balloon_said(struct device *d, const void *body, size_t len);
/* {target, actual, age_ms, stats}; the caller's. */
json_object *balloon_json(const struct device *d);

/* For the row of the table of devices. */
void balloon_serves(struct device *d, struct loop *l, bool serves);
uint64_t balloon_due(const struct device *d);
void balloon_tend(struct device *d);

#endif
