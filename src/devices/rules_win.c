/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The lists of system calls stay empty on Windows: it has no filter that takes them. What a helper
 * may do there is decided by its container alone (src/jail/contain_win.c).
 */
#include "devices/blk/blk_disk.h"
#include "devices/console/ends.h"
#include "exec/exec.h"
#include "devices/rng/rng.h"
#include "devices/vsock/vsock.h"

void helper_rules(const struct helper *h, struct rule_list *l)
{
	(void)h;
	(void)l;
}

void worker_rules(const struct worker *w, struct rule_list *l, bool poll)
{
	(void)w;
	(void)l;
	(void)poll;
}

void blk_disk_rules(const struct blk_engine_conf *c, struct rule_list *l)
{
	(void)c;
	(void)l;
}

void blk_event_rules(const int *event, unsigned n, struct rule_list *l)
{
	(void)event;
	(void)n;
	(void)l;
}

void ends_rules(const struct ends *c, struct rule_list *l)
{
	(void)c;
	(void)l;
}

void vsock_rules(const struct vsockdev *d, struct rule_list *l)
{
	(void)d;
	(void)l;
}

void rng_rules(const struct rng *r, struct rule_list *l)
{
	(void)r;
	(void)l;
}

void exec_rules(const struct exec *x, struct rule_list *l)
{
	(void)x;
	(void)l;
}
