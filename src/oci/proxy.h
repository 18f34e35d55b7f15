/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The process of the host that stands for one of a container: the pid of the pid file. It is forked
 * by the command, which orders it step by step, and stays when that ends:
 *
 *   command                              proxy
 *     fork ----------------------------->  in its control group by the command's doing
 *     "enter" -------------------------->  namespaces of the host (ns.h), oom_score_adj
 *     hooks
 *     "vm" or "join" ------------------->  an owner: network, VM, until its guest runs; others connect
 *     "leave" -------------------------->  (a container) its root, no capabilities
 *     ...
 *     `start` on the socket "proxy", or, of an exec, the order "start"
 *       -------------------------------->  CT_PROGRAM run in the guest, until its status file says so
 *
 * Then it passes signals and the terminal's size on, and ends with the status of the guest's process.
 * An owner ends the VM before. If the command is gone before "leave", or the start of an exec is not
 * over, the proxy undoes what it did. Nothing is lost by SIGKILL: the supervisor sees its connection
 * end.
 *
 * One thread, one poll loop.
 */
#ifndef OCI_PROXY_H
#define OCI_PROXY_H

#include "conf.h"
#include "state.h"
#include "talk.h"
#include "tty.h"

struct proxy_job {
	const struct container *c;
	struct bundle *bundle;         /* of a container; NULL: an exec. The proxy drops its copy */
	const struct oci_conf *conf;   /* of an owner */
	const struct vm_size *size;    /* the same */
	const char *root;              /* --root */
	const char *exec;              /* "exec-N"; NULL: the first process */
	json_object *linux_, *process; /* borrowed */
	bool host_net;                 /* the configuration has no network namespace */
	struct stdio io;               /* the proxy's; closed by the caller in its own process */
};

struct proxy_child {
	struct proc process;
	int channel; /* owned; -1 */
};

int proxy_fork(const struct proxy_job *j, struct proxy_child *p, struct err *e);
/* Wait for its answer, an object without "error"; the caller's, NULL allowed. */
int proxy_order(struct proxy_child *p, const char *order, json_object **answer, struct err *e);
/* Give it up: it ends, and what it made with it. */
void proxy_abandon(struct proxy_child *p);

/* An exec in this very process: to its end; its status. */
int proxy_here(const struct proxy_job *j, struct err *e);

/* `start`, from another process. */
int proxy_start(const struct container *c, struct err *e);

#endif
