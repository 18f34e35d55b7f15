/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * insula-pager, in two parts: pager_main.c, which is the same on every system, and what needs page
 * faults of other processes, pager_faults.c (Linux) or pager_win.c (there are none).
 */
#ifndef PAGER_PAGER_H
#define PAGER_PAGER_H

#include <insula/proto.h>

#include "devices/program.h"
#include "live.h"
#include "ram.h"
#include "serve.h"

struct pager {
	struct ram ram;
	struct serve serve; /* PAGER_SERVE */
	struct live live;   /* PAGER_SAVE and PAGER_LIVE */
	uint32_t job, flags;
	bool done;
};

/* Its own system calls (struct helper_program). */
void pager_rules(const void *dev, struct rule_list *l);
/* For its job and flags, before the jail is closed. -EOPNOTSUPP: not on this system. */
int pager_faults_open(struct pager *p, int order, struct err *e);
/* A descriptor of somebody's faults: taken over. */
int pager_faults(struct pager *p, const struct msg_faults *m, int fd, struct err *e);
/* PAGER_LIVE: the VM may go on, and is told so; what follows is pager_faults_turn(). */
int pager_freeze(struct pager *p, struct err *e);
/* What was asked for is done, and only syncs may follow: whatever keeps a snapshot from getting its
 * name is closed. */
void pager_let_go(struct pager *p);
/* PAGER_SERVE: from now on; and everything, now. */
void pager_serve(struct pager *p);
void pager_fill(struct pager *p);
/* The guest has stopped: what it asked for is written down. */
void pager_stop(struct pager *p);
/* Is there anybody who may wait for a page? Then, in turns: wait for one, or for the channel, which
 * *heard says; *whole: all is there, or saved. */
bool pager_has_faults(const struct pager *p);
int pager_faults_turn(struct pager *p, bool *heard, bool *whole, struct err *e);
/* It ends, because of `rc`; may not return. */
void pager_faults_end(const struct pager *p, int rc);

#endif
