/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * insulad: the door and the registry. No guest memory, no device.
 *
 *   client.c    clients: lines in, lines out, limits
 *   foreign.c   descriptors that others have made
 *   closer_*.c  closing those, in other threads
 *   listen_*.c  where they come in, and who they are
 *   link_*.c    a connection: a socket, or a named pipe
 *   http_linux.c  the metrics socket
 *   rpc.c       JSON-RPC 2.0: a line becomes requests, answers become lines
 *   methods.c   the table of methods; schemas and documents of it: discover.c
 *   method.c    what they have in common; what they do: daemon_methods.c, vm_start.c, vm_methods.c
 *   exec.c      the methods that run commands in a VM
 *   logs.c      the method that reads a VM's log
 *   machine*.c  one VM: its record, its start, its end, after a restart of the daemon
 *   pool*.c     VMs that stand until somebody wants one
 *   talk.c      the socket of a supervisor
 *   spawn_*.c   starting one
 *   process_*.c its process: whether it lives, its end
 *   state_*.c   the state directory
 *   event.c     who is told what
 *   cgroup_*.c  the control group of a VM
 *   host_*.c    what else the system has of its own
 *
 * One thread, one loop. Nothing here blocks but fsync of a record, and start-up. What clients and
 * supervisors have sent is closed in other threads, and the log is written in one; for root, the
 * groups of a user are looked up in one of libuv's.
 */
#ifndef DAEMON_DAEMON_H
#define DAEMON_DAEMON_H

#include <json-c/json.h>
#include <uv.h>

#include "cgroup.h"
#include "conf.h"
#include "discover.h"

struct client;
struct closer;
struct door;
struct logs_job;
struct machine;
struct pool;
struct timer;
struct user;

struct daemon {
	uv_loop_t loop;
	struct conf conf;
	const char *conf_path;
	json_object *flags; /* settings of the command line; owned */
	struct schemas schemas;
	struct cgroups cgroups;
	int state, pool_state, state_lock, supervisor;
	struct door *door;
	struct closer *closer;
	struct user *users; /* who have descriptors here */
	unsigned foreign;   /* all of those */
	bool held_back;     /* somebody waits until there are fewer */
	struct timer *watchdog;
	struct client *clients;
	unsigned nclients;
	struct machine *machines;
	unsigned nmachines;
	struct pool *pools;
	struct logs_job *logs; /* reading of logs that is under way */
	unsigned nlogs;
	char boot_id[37];
	struct rlimit_pair {
		uint64_t soft, hard;
	} nofile; /* as it was, for supervisors */
	bool quitting;
	uint64_t started_ns;
	struct {
		uint64_t requests, refusals, bad_lines, clients, refused_clients,
			dropped_subscribers;
		uint64_t created, started, ended, deleted, adopted, restarts;
	} n;
};

int64_t now_ms(void); /* since 1970 */

#endif
