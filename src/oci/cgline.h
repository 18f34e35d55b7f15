/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * linux.resources (runtime-spec, config-linux.md "Control groups") as lines for files of cgroup v2.
 * Pure. Which side has what:
 *
 *   memory, pids      the guest's group has the container's limits. The host's has the memory of
 *                     the whole VM, which is more; and no limit of pids, for the VM's own
 *                     processes are not the container's
 *   cpu               both: the host's group is what the machine is protected by, the guest's is
 *                     what containers of one VM are protected from each other by
 *   cpuset, io, hugetlb    the host's: they name what only the host has
 *
 * Not of version 2, or of a device that a VM has not got, and left out: kernel, kernelTCP,
 * swappiness, disableOOMKiller, useHierarchy, network, rdma, realtimeRuntime, realtimePeriod,
 * leafWeight.
 */
#ifndef OCI_CGLINE_H
#define OCI_CGLINE_H

#include "oci.h"

#define CGLINE_MAX 96u
#define CGLINE_VM 2u /* more, of cgline_vm() */
#define CGLINE_FILE 64
#define CGLINE_VALUE 192

enum cgline_side { CGLINE_HOST = 1, CGLINE_GUEST = 2 };

struct cgline {
	char file[CGLINE_FILE];
	char value[CGLINE_VALUE];
};

struct cglines {
	struct cgline
		line[CGLINE_MAX + CGLINE_VM]; /* in the order in which they are to be written */
	unsigned n;
	/* Of the container, bytes: UINT64_MAX: none, or "unlimited". */
	uint64_t memory;
	bool lifted; /* "unlimited" */
};

/* -EINVAL: a value that is none. `resources` may be NULL. */
int cgline_make(json_object *resources, enum cgline_side side, struct cglines *l, struct err *e);
/* The host's memory.max of a VM, and memory.oom.group, in front of all others. */
void cgline_vm(struct cglines *l, uint64_t overhead);
/* cpu.weight of cpu.shares, io.weight of blkio.weight. */
unsigned cgline_cpu_weight(uint64_t shares);
unsigned cgline_io_weight(unsigned weight);

#endif
