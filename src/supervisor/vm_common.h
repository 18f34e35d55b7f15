/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What exec.c, command.c, ctlexec.c and control.c need of the VM that they run in, on every system.
 * vm_common.c has them, and vm_run.c what ends it. Thread: the supervisor's; none of them blocks.
 */
#ifndef SUPERVISOR_VM_COMMON_H
#define SUPERVISOR_VM_COMMON_H

#include <stdbool.h>
#include <stdint.h>

#include <json-c/json.h>

#include <insula/err.h>
#include <insula/proto.h>

struct child;
struct command;
struct control;
struct device;
struct exec_proc;
struct execs;
struct loop;
struct vm;
struct vm_config;

const struct vm_config *vm_conf(const struct vm *vm);
struct loop *vm_loop(struct vm *vm);
struct execs *vm_execs(const struct vm *vm);
struct command *vm_command(const struct vm *vm);
/* insulad's door; NULL: without. */
struct control *vm_control(const struct vm *vm);
/* Has the guest begun to run, and is nobody ending the VM? */
bool vm_is_running(const struct vm *vm);
bool vm_has_ended(const struct vm *vm);
uint64_t vm_started_ns(const struct vm *vm); /* clock_ns() */
const char *vm_why(const struct vm *vm); /* one line for people; "" if there is nothing to say */
/* Does the guest run insula-init's server for commands, once it is up? Then exec_start() works. */
bool vm_has_agent(const struct vm *vm);
/* "this VM ...": why it has none. */
const char *vm_no_agent(const struct vm *vm);
bool vm_has_vsock(const struct vm *vm);
/* A message to insula-vmm; vm_order(): one without a body. */
int vm_tell(struct vm *vm, enum msg_type t, const void *body, size_t len);
int vm_order(struct vm *vm, enum msg_type t);
/* How it ended and what it cost, as one object; the caller's. */
json_object *result_json(const struct vm *vm);

/* Processors that come and go. `max` 0: they stay. */
struct vm_cpus {
	unsigned requested, actual, max; /* `requested` 0: insula-vmm has not said yet */
};
const struct vm_cpus *vm_cpus(const struct vm *vm);
/* 1 to max. insula-vmm says what has come of it. */
int vm_want_cpus(struct vm *vm, unsigned n);

/* NONE: there is no such device. DEAD: it has failed, see restart.h, and may come back. AWAY: a
 * process of it is starting, or about to. */
enum vm_vsock { VM_VSOCK_NONE, VM_VSOCK_DEAD, VM_VSOCK_AWAY, VM_VSOCK_SERVES };
/* *generation: of the process that serves, or of the last one; 0 is the first. */
enum vm_vsock vm_vsock_state(const struct vm *vm, unsigned *generation);
/* Has its process died, seen by us or not? */
bool vm_vsock_died(const struct vm *vm);

/* The VM shall end, with this status and line. The first reason counts; what fails on the way down
 * is its consequence. */
void vm_end(struct vm *vm, int status, const char *fmt, ...) INSULA_PRINTF(3, 4);
/* End it from outside: `reason` is a static string, `hard` loses what the helpers hold. The first
 * reason counts. */
void vm_stop(struct vm *vm, const char *reason, int status, bool hard);
/* The user typed the escape: end as an interrupt would. */
void vm_quit(struct vm *vm);

/* The start message of insula-vmm and its descriptors, which stay the VM's; how many. `hypervisor`:
 * its device, -1: the system has none. */
unsigned vm_word_start(const struct vm *vm, int hypervisor, struct msg_start_vmm *m,
		       int fds[MSG_MAX_FDS]);
/* The vsock device, the balloon, the memory that can be resized; NULL: there is none. */
struct device *vm_vsock(const struct vm *vm);
struct device *vm_balloon(const struct vm *vm);
struct device *vm_added(const struct vm *vm);
/* By its name; NULL: there is no such one. */
struct device *vm_device_named(struct vm *vm, const char *name);
#endif
