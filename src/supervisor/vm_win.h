/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One VM on Windows: open everything, make insula-vmm and the helpers, watch over them, end. The
 * stages are those of vm.h; commands, networks, shares and insulad's door are not there yet,
 * and are refused.
 */
#ifndef SUPERVISOR_VM_WIN_H
#define SUPERVISOR_VM_WIN_H

#include "config.h"
#include "device_win.h"
#include "ending.h"

/* One wait takes 64 handles: three of each child, the user's interrupt, the next client of vsock.
 */
#define MAX_DEVICES 19
#define OTHER_DEVICES 3 /* than disks: console, random numbers, vsock */
#define MAX_SLOTS (2 + 3 * (1 + MAX_DEVICES))
_Static_assert(MAX_SLOTS <= MAXIMUM_WAIT_OBJECTS, "one wait for all of them");

struct vm {
	const struct vm_config *conf;
	struct ending *end;
	int kernel, initrd, mem, ack; /* owned; -1: none */
	char cmdline[MSG_CMDLINE_MAX];
	struct terminal terminal;
	struct disk disk[MAX_DEVICES];
	unsigned ndisks;
	struct vsock vsock;
	struct device *vsock_device; /* NULL: none */
	struct device device[MAX_DEVICES];
	unsigned ndevices;
	struct child vmm;
	HANDLE interrupt;
	uint64_t started_ns;
	bool running, ended, have_exit;
	struct msg_vm_exit exit;
};

/* Run to the end. `check_only`: open and check, start nothing. end->status is insula-run's, why has
 * the line for people. Once in a process. */
void vm_win_run(const struct vm_config *c, bool check_only, bool verbose, struct ending *end);

#endif
