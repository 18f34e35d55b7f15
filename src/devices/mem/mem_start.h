/* SPDX-License-Identifier: BSD-2-Clause */
/* What insula-mem is told: insula/start.h, and this; what it says; and the same while it runs. One
 * kick. Its memory map has one region with MEMMAP_ADDED. */
#ifndef DEVICES_MEM_START_H
#define DEVICES_MEM_START_H

#include <insula/proto.h>

#define VMEM_START START_TAG('m', 'e', 'm', '1')
#define VMEM_QUEUES 1

struct msg_start_mem {
	struct start_head head;
	uint64_t requested; /* bytes that the guest may plug, in whole blocks */
};

/* MSG_MEM: the guest may have so much; and say so as soon as it has something else than `known`.
 * Answered with MSG_MEM_TAKEN at once, and with at most one MSG_MEM_STATE. What is asked for is
 * what the next start message says, too. */
struct msg_mem {
	uint64_t requested; /* bytes, in whole blocks */
	uint64_t known;
};

/* MSG_MEM_STATE */
struct msg_mem_state {
	uint64_t plugged; /* bytes */
};
_Static_assert(sizeof(struct msg_mem) == 16 && sizeof(struct msg_mem_state) == 8, "wire size");

#endif
