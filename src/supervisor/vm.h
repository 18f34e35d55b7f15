/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One VM: open everything, spawn insula-vmm and the helpers, watch over them, end.
 *
 * Stages of vm_open(): check and open what the user named; nothing is started. vm_run(): spawn all
 * children at once, wait until each is jailed and verified, let the guest run, restart helpers that
 * die, end. One thread, one poll loop, no wait without a deadline but the guest's own life.
 */
#ifndef SUPERVISOR_VM_H
#define SUPERVISOR_VM_H

#include "boot.h"
#include "child.h"
#include "command.h"
#include "spec/config.h"
#include "control_linux.h"
#include "device.h"
#include "disk.h"
#include "spec/ending.h"
#include "exec.h"
#include "nic.h"
#include "paths.h"
#include "terminal.h"
#include "vm_common.h"
#include "vsock.h"

struct vm {
	const struct vm_config *conf; /* borrowed */
	struct paths paths;
	struct boot boot;
	struct terminal terminal;
	struct disk disk[BOARD_MAX_VIRTIO];
	unsigned ndisks;
	struct nic nic[CONFIG_MAX_NETS];
	unsigned nnics;
	struct disk_config root_disk, share_disk[CONFIG_MAX_SHARES];
	struct vsock vsock;
	struct device device[VM_MAX_DEVICES];
	unsigned ndevices;
	struct execs execs;
	int exec_program;                  /* insula-exec; owned */
	struct child exec[VM_EXEC_PLACES]; /* their processes */
	struct command command;
	struct child vmm;
	int kvm, mem, signals; /* owned */
	struct memmap memmap;  /* of mem: what every process is told */

	uint64_t started_ns, deadline_ns; /* --timeout; 0: none */
	bool running;                     /* MSG_GO was sent */
	bool have_exit;
	struct msg_vm_exit exit;
	int status; /* of insula-run; valid once ended */
	bool ended;
	bool hard;          /* do not wait for helpers at the end */
	const char *reason; /* stable name of the end, if MSG_VM_EXIT does not tell it; static */
	struct control *control; /* insulad's door; NULL without (borrowed) */
	char why[ENDING_LINE];   /* one line for people; "" if there is nothing to say */
};

/* Open and check. On error nothing is left open, and vm->status tells whose fault it is:
 * RUN_BAD_INPUT or RUN_FAILED. */
int vm_open(struct vm *vm, const struct vm_config *c, bool check_only, bool verbose, struct err *e);
/* Run to the end; the status of insula-run. vm->why has the reason. */
int vm_run(struct vm *vm);
void vm_close(struct vm *vm);

/* result_linux.c */
/* Turn the guest's end into a status and a line. */
void result_from_exit(struct vm *vm);
/* Write the metrics if the guest has run; a failure is logged. */
void metrics_write(const struct vm *vm);

#endif
