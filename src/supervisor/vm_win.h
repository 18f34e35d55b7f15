/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One VM on Windows: open everything, make insula-vmm and the helpers, watch over them, end. The
 * stages are those of vm.h; networks and shares are not there yet, and are refused. Commands are
 * exec.h's, as on Linux.
 */
#ifndef SUPERVISOR_VM_WIN_H
#define SUPERVISOR_VM_WIN_H

#include "boot.h"
#include "child_win.h"
#include "command.h"
#include "spec/config.h"
#include "control_win.h"
#include "device.h"
#include "vsock_win.h"
#include "spec/ending.h"
#include "exec.h"
#include "paths.h"
#include "vm_common.h"

/* One wait takes 64 handles: one of each child, insulad's door, the user's interrupt, the next
 * client of vsock. */
#define OTHER_DEVICES 3 /* than disks: console, random numbers, vsock */
#define MAX_DEVICES (CONFIG_MAX_DISKS + 1 + OTHER_DEVICES) /* 1: the root */
#define MAX_SLOTS (2 + CONTROL_SLOTS + 1 + MAX_DEVICES + VM_EXEC_PLACES)
_Static_assert(MAX_SLOTS <= MAXIMUM_WAIT_OBJECTS, "one wait for all of them");
/* insula-vmm inherits the page, call, interrupt, acknowledge and answer of each, and its kicks. */
_Static_assert(MAX_DEVICES *(5 + BLK_MAX_QUEUES) + 8 <= CONTAIN_MAX_HANDLES, "one list for all");

struct vm {
	const struct vm_config *conf;
	struct ending *end;
	int mem;              /* owned; -1: none */
	struct memmap memmap; /* of mem: what every process is told */
	struct paths paths;
	struct boot boot;
	struct terminal terminal;
	struct disk disk[MAX_DEVICES];
	unsigned ndisks;
	struct disk_config root_disk;
	struct vsock vsock;
	struct device *vsock_device; /* NULL: none */
	struct device device[MAX_DEVICES];
	unsigned ndevices;
	struct child vmm;
	struct execs execs;
	struct child exec[VM_EXEC_PLACES]; /* their processes */
	struct command command;
	uint16_t rows, cols; /* of the console window, when it was last looked at; 0: not yet */
	HANDLE interrupt;
	uint64_t started_ns;
	bool running, ended, have_exit;
	struct msg_vm_exit exit;
	bool hard;          /* do not wait for helpers at the end */
	const char *reason; /* stable name of the end, if MSG_VM_EXIT does not tell it; static */
	struct control *control; /* insulad's door; NULL without */
};

/* Run to the end. `check_only`: open and check, start nothing. end->status is insula-run's, why has
 * the line for people. Once in a process. `control`: taken over; NULL: without. */
void vm_win_run(const struct vm_config *c, struct control *control, bool check_only, bool verbose,
		struct ending *end);
/* It could not even be tried: tell insulad. */
void vm_win_refused(struct control *control, struct ending *end);

#endif
