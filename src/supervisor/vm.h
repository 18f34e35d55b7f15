/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One VM: open everything, start insula-vmm and the helpers, watch over them, end.
 *
 * vm_open() checks and opens what the user named; nothing is started. vm_run() starts all children
 * at once and waits until each is jailed and verified; then the guest runs. Helpers that die are
 * started again (restart.h), commands come and go (exec.h), insulad asks (control.h). The first
 * reason to end counts: vm_end(). Then insula-vmm stops the guest, the helpers write out what they
 * have, and everything goes. All of it is one thread with one loop (loop.h): children, control,
 * signals register with it, and deadlines are its timers. No wait is without a deadline but that
 * for the guest's own end.
 *
 *   vm.c           open and close
 *   vm_run.c       start, turns of the loop with their deadlines, end
 *   vm_children.c  what children say and how they end; what that means for the VM
 *   vm_common.c    questions that the rest of the room asks of a VM: vm_common.h
 */
#ifndef SUPERVISOR_VM_H
#define SUPERVISOR_VM_H

#include "supervisor/backing/added.h"
#include "supervisor/backing/balloon.h"
#include "supervisor/backing/boot.h"
#include "supervisor/backing/metadata.h"
#include "child.h"
#include "supervisor/command/command.h"
#include "spec/config.h"
#include "spec/ending.h"
#include "supervisor/command/exec.h"
#include "supervisor/backing/paths.h"
#include "signals.h"
#include "supervisor/snapshot/standing.h"
#include "vm_common.h"

#ifdef _WIN32
#include "supervisor/os/open_win.h"
#else
#include "supervisor/os/open_linux.h"
#endif

enum vm_deadlines {
	VM_TIMEOUT, /* --timeout */
	VM_START,   /* by then the guest runs */
	VM_COMMAND,
	VM_EXEC,
	VM_RESTART,
	VM_DEVICES, /* one wants to be tended */
	VM_CONTROL,
	VM_SAVE,
	VM_PAGER,
	VM_PLUG,
	VM_METADATA,
	VM_DEADLINES
};

struct vm_deadline {
	struct timer timer;
	struct vm *vm;
	enum vm_deadlines kind;
};

struct vm {
	const struct vm_config *conf; /* borrowed */
	struct loop loop;
	struct vm_deadline deadline[VM_DEADLINES];
	struct signals signals;
	struct paths paths;
	struct boot boot;
	struct terminal terminal;
	struct opened opened;
	struct vsock vsock;
	struct balloon_back balloon;
	struct added_back added;
	struct device device[VM_MAX_DEVICES];
	unsigned ndevices, nmmio, npci; /* the latter two of virtio, on their bus */
	unsigned nassigned;             /* the host's functions */
	struct plug *plug;              /* places, the last of the devices; owned */
	unsigned nplugs;
	struct metadata_service *metadata; /* owned; NULL: none */
	struct execs execs;
	struct child exec[VM_EXEC_PLACES]; /* their processes */
	struct command command;
	struct child vmm;
	struct vm_cpus cpus;
	int kvm, mem;          /* owned */
	int epc_fd;            /* owned: where `epc` comes from; -1: this VM has none */
	struct memmap memmap;  /* of mem: what every process is told */
	struct mem_region epc; /* memory for enclaves, which insula-vmm alone is told */

	uint64_t started_ns, start_limit_ns;
	uint64_t went_on_ns; /* the guest, for the first time or after a pause */
	bool running;        /* MSG_GO was sent */
	bool have_exit;
	struct msg_vm_exit exit;
	struct ending end; /* of insula-run; valid once ended */
	bool ended;
	bool hard;             /* do not wait for helpers at the end */
	const char *reason;    /* stable name of the end, if MSG_VM_EXIT does not tell it; static */
	struct faults *faults; /* of those who map mem; NULL: none */
	struct standing standing;
	struct save *save;       /* the snapshot that is made, or the last one; NULL: none yet */
	struct control *control; /* insulad's door; NULL without (borrowed) */
};
/* Open and check. `vm` is all zero: of its 600 KiB, only what this VM has is ever touched, and costs
 * memory. On error nothing is left open, and vm->end.status tells whose fault it is:
 * RUN_BAD_INPUT or RUN_FAILED. */
int vm_open(struct vm *vm, const struct vm_config *c, bool check_only, bool verbose, struct err *e);
/* Run to the end; the status of insula-run. vm->end.why has the reason. */
int vm_run(struct vm *vm);
void vm_close(struct vm *vm);
/* The first helper of each device; vm_run() does it, or the restore when the memory is there. */
void vm_start_helpers(struct vm *vm);

/* ---- vm_children.c ---- */

/* insula-vmm, commands and devices are the VM's, from their next process on. */
void vm_own_children(struct vm *vm);
void vm_own_device(struct vm *vm, struct device *d);
/* The guest runs if everything is ready. */
void vm_go(struct vm *vm);

/* ---- result.c ---- */

/* Turn the guest's end into a status and a line. */
void result_from_exit(struct vm *vm);
/* Write the metrics if the guest has run; a failure is logged. */
void metrics_write(const struct vm *vm);

#endif
