/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Memory that a guest gets while it runs, and gives back: what the host wants, and how far the
 * guest is (insula-mem, virtio-mem).
 *
 * Both are kept here, in bytes beyond what the guest began with: a helper that is started again
 * begins with what is wanted. The helper has its word about each change once it was asked for the
 * next one, and that is done at most ADDED_PAUSE_NS after the last: a guest that plugs and unplugs
 * all the time wakes nobody more often.
 *
 * Thread: the supervisor's; nothing blocks.
 */
#ifndef SUPERVISOR_ADDED_H
#define SUPERVISOR_ADDED_H

#include <stdbool.h>
#include <stdint.h>

#include <json-c/json.h>

#include <insula/err.h>
#include <insula/memmap.h>

#include "devices/mem/mem_start.h"
#include "spec/config.h"

#define ADDED_PAUSE_NS 20000000ull

struct device;
struct loop;

struct added_back {
	const struct vm_config *conf; /* borrowed */
	uint64_t region, block;       /* bytes */
	uint64_t requested, plugged;  /* bytes */
	uint64_t sent;                /* requested, as the helper was told last */
	bool telling;                 /* it has not taken that yet */
	bool asked;                   /* and will say so when it is not `plugged` */
	bool older;                   /* may have said so before it took that */
	uint64_t again_ns;            /* when it is asked again; 0: it need not be */
};

void added_init(struct added_back *b, const struct vm_config *conf, const struct memmap *map);
/* Of a snapshot: what was wanted and what there was, both with what the guest began with. -EPROTO:
 * that cannot be. */
int added_restore(struct added_back *b, uint64_t requested, uint64_t actual, struct err *e);
/* May the guest have `size` bytes in all? -ERANGE, and a line, if not. */
int added_check(const struct device *d, uint64_t size, struct err *e);
/* It may from now on. */
void added_set(struct device *d, uint64_t size);
/* In all, what is wanted and what there is. */
uint64_t added_requested(const struct added_back *b);
uint64_t added_actual(const struct added_back *b);
/* The helper's answers. False: it cannot be one. */
bool added_taken(struct device *d, size_t len);
bool added_said(struct device *d, const void *body, size_t len);
/* {requested, actual, max}; the caller's. */
json_object *added_json(const struct added_back *b);

/* For the row of the table of devices. */
void added_serves(struct device *d, struct loop *l, bool serves);
uint64_t added_due(const struct device *d);
void added_tend(struct device *d);

#endif
