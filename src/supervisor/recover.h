/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Deaths and restarts of device processes: restart.h decides, this does it.
 * What belongs to the system is behind device_start(), device_quiet(), device_set_bits(),
 * child_shoot(), child_kill() and vm_tell(). Thread: the supervisor's; nothing here waits, but
 * child_kill() for the end of a process that could not be told what to do.
 */
#ifndef SUPERVISOR_RECOVER_H
#define SUPERVISOR_RECOVER_H

#include <stdint.h>

#include <json-c/json.h>

#include <insula/err.h>

#include "child_state.h"

struct device;
struct vm;

/* The process of `d` is ready and verified. */
void vm_helper_ready(struct vm *vm, struct device *d);
/* It has died, and was in the state `before`; `how` follows its name in a line. */
void vm_helper_died(struct vm *vm, struct device *d, enum child_state before, const char *how);
/* insula-vmm says that the device of this index does not answer. */
void vm_helper_stuck(struct vm *vm, uint32_t index);
/* insula-vmm says that it waits for this device no more. */
void vm_device_down(struct vm *vm, uint32_t index);
/* In each turn of the loop: start what is due, end what does not become ready. */
void vm_restart_due(struct vm *vm);
/* When vm_restart_due() has something to do, CLOCK_MONOTONIC in ns; 0: never by itself. */
uint64_t vm_restart_next(const struct vm *vm);
/* The user wants the process of this device to be another one, now. -ENOENT: there is no such
 * device; -EBUSY: the guest does not run. */
int vm_device_restart(struct vm *vm, const char *name, struct err *e);
/* [{name, state, restarts, next_try_ms}]; the caller's. next_try_ms while a restart waits alone. */
json_object *vm_devices(const struct vm *vm);

#endif
