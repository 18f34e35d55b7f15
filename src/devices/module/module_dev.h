/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The library of storage modules (insula/module.h): the device of insula-blk, with an engine whose
 * requests are the module's.
 *
 *   module.c         main(): start message, jail, what the disk is; messages of the control thread
 *   module_engine.c  the lane's thread: requests, connections, what a flush is worth
 *   module_calls.c   the groups of system calls that a manifest may name
 *
 * Between the threads: `incoming` (a connection for a lane), `needs` (it wants one), `grown` (the
 * disk has become larger); all atomic, each with a wake-up behind it.
 */
#ifndef DEVICES_MODULE_DEV_H
#define DEVICES_MODULE_DEV_H

#include <stdatomic.h>

#include <insula/module.h>

#include "devices/blk/blk.h"
#include "module_start.h"

#define MODULE_STACK (256u << 10) /* of a lane's thread: libraries run on it */

/* In the device page: what the next process goes on from. */
struct module_page {
	struct blk_page blk;
	uint32_t described;
	_Atomic uint32_t
		lost; /* a connection has ended with something not flushed: a flush fails */
	struct module_disk disk;
	/* Changes of the disk that were answered and are not stable by themselves: how many, and up
	 * to which of them a flush has covered them. */
	_Atomic uint64_t written, flushed;
};
_Static_assert(sizeof(struct module_page) <= PORT_DEV_STATE_SIZE, "the state fits the page");

struct module_lane {
	struct module *m;
	struct blk_engine_conf conf;
	struct blk_lane *blk;
	void *own; /* the module's; set before the queues run */
	bool open;
	_Atomic int incoming; /* a connection that the lane has not taken yet; -1: none */
	_Atomic bool needs;
	unsigned out; /* requests that the module has, and has not answered */
	struct blk_aside aside;
	bool asked; /* for a connection that has not come yet; the lane's thread */
	struct module_req *pool, *free;
	struct module_req *finished, **finished_end; /* answered, and blk_req.c does not know yet */
};

struct module {
	struct blk blk; /* first: the engine finds the module from it */
	const struct module_ops *ops;
	void *own;
	struct module_page *page;
	struct msg_start_module start;
	int conn;          /* of the start message; -1: none */
	const char *files; /* what its settings' files hold; NULL: nothing */
	size_t files_len;
	bool described; /* it is describe()'s */
	struct helper_ops helper_ops;
	_Atomic uint64_t grown; /* bytes; 0: nothing new */
	struct module_lane lane[BLK_MAX_QUEUES];
};

extern const struct blk_engine_ops module_engine;

/* The books, for tests too. A flush is asked for: 1: it has to be done; 0: it is right as it is;
 * -EIO: what it is about may be lost. Then its answer. */
int module_flush_begins(struct module_page *p, uint64_t *written);
int module_flush_done(struct module_page *p, uint64_t written, int res);
/* A connection has ended. */
void module_page_lost(struct module_page *p);

void module_calls_rules(uint32_t calls, struct rule_list *l);

#endif
