/* SPDX-License-Identifier: BSD-2-Clause */
/* vm.resume with set_clock: the guest of a VM is told that it goes on. Thread: the supervisor's. */
#ifndef SUPERVISOR_CTLRENEW_H
#define SUPERVISOR_CTLRENEW_H

#include <stdint.h>

struct control;
struct vm;

/* It shall be told, as the VM `name`: as soon as it has heard of the last time. */
void ctlrenew_want(struct control *k, const char *name);
/* In each turn of the loop. */
void ctlrenew_serve(struct control *k, struct vm *vm, uint64_t now);

#endif
