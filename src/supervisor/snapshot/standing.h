/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A VM that is restored and stands (the setting "paused"): its processes are ready, its memory can be
 * asked for, and no vCPU has been in the guest. It is as one that is paused, until its first resume:
 * then its time begins to count, and the guest is told that it goes on, with the time and the random
 * numbers of then. Commands wait for that.
 *
 * Thread: the supervisor's.
 */
#ifndef SUPERVISOR_STANDING_H
#define SUPERVISOR_STANDING_H

#include <stdbool.h>
#include <stdint.h>

struct vm;

struct standing { /* of a VM */
	bool stands;
	uint64_t since_ns; /* its first resume; 0: it has not stood, or does */
	unsigned timeout;  /* in the place of its configuration's, in seconds; 0: that one */
	char name[128];    /* INSULA_VM of its hooks */
};

/* It will stand. Before anything is started. */
void standing_begin(struct vm *vm);
bool standing_is(const struct vm *vm);
/* Somebody has it: what the guest is to be told, and how many seconds it has from now on (0: as its
 * configuration says). Before its first resume. */
void standing_take(struct vm *vm, const char *name, unsigned timeout);
/* Its vCPUs go on; does nothing the second time. */
void standing_goes_on(struct vm *vm);
/* Seconds that the VM may run (0: no limit), and the end of them, clock_ns() (0: none). Of any VM. */
unsigned standing_timeout(const struct vm *vm);
uint64_t standing_timeout_due(const struct vm *vm);

#endif
