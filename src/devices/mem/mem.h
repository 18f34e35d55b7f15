/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * virtio-mem (virtio 1.2, 5.15): memory that the guest gets while it runs, and gives back.
 *
 * The region with MEMMAP_ADDED is cut into blocks. The guest's driver plugs and unplugs them, as
 * many as the host asks for (requested_size) and no more. A block that is unplugged is cut out of
 * the file that guest memory is, before the driver hears that it is: the pages leave every process
 * that maps it, and the control group that they were counted in.
 *
 *   control thread   registers, requested_size and plugged_size in the configuration, messages
 *   I/O thread       the queue: one request at a time, a block at a time, and then it looks for a
 *                    command. So the longest request keeps neither a reset nor the end waiting
 *
 * A driver may look at plugged_size as soon as it has its answer. So a request that has changed it
 * is answered when the control thread has shown it (VMEM_SHOWS).
 *
 * What outlives the process is a bit for each block, and the request that is being worked on
 * (struct vmem_request). A request that was not answered comes again, to the next helper, which
 * finds it half done: it is the one that is written down, so it is done from its beginning, and
 * what was decided about it holds. A reset forgets it; the blocks are as they are: a reset of the
 * device plugs and unplugs nothing (5.15.5).
 *
 * VIRTIO_MEM_F_UNPLUGGED_INACCESSIBLE is offered: a driver that takes it leaves what is unplugged
 * alone. One that does not may: it finds zeros. Nothing stops either from writing there, as the
 * whole region is mapped; that memory counts as the VM's, in its control group, and is gone when
 * the block is unplugged the next time.
 */
#ifndef DEVICES_MEM_H
#define DEVICES_MEM_H

#include <linux/virtio_mem.h>

#include "devices/worker.h"
#include "mem_start.h"

#define VMEM_TAG 0x314d4d56u /* "VMM1" */
#define VMEM_BUDGET 32u      /* steps of one turn */

/* A request as it was read, and what it will be answered. */
struct vmem_request {
	uint16_t type; /* VIRTIO_MEM_REQ_* */
	uint16_t n;    /* blocks */
	uint16_t answer;
	uint16_t busy; /* it has not been answered yet */
	uint64_t addr;
};

struct vmem_state {
	uint64_t nblocks, block;
	struct vmem_request now;
	uint64_t map[MEMMAP_MAX_BLOCKS / 64]; /* bit i: block i is plugged */
};

struct vmem_page {
	struct virtio_state virtio;
	struct vmem_state mem;
};
_Static_assert(sizeof(struct vmem_page) <= PORT_DEV_STATE_SIZE, "the state fits the page");

/* Of the I/O thread. */
enum vmem_phase {
	VMEM_IDLE,  /* no request is here */
	VMEM_WORKS, /* blocks from `at` on */
	VMEM_SHOWS, /* until plugged_size is shown */
};

struct vmem {
	struct worker w; /* first: the dev of the model is the worker */
	struct helper_ops ops;
	struct virtio_mem_config config; /* control thread's */
	struct vmem_state *st;
	uint64_t region, block; /* bytes */
	uint32_t nblocks;
	gpa_t gpa;
	uint8_t *host;

	/* the I/O thread's */
	enum vmem_phase phase;
	struct vq_chain chain;
	uint32_t at, to; /* blocks that are left to do */
	uint64_t before; /* bytes that were plugged when it began */
	uint16_t answer; /* VIRTIO_MEM_RESP_* */
	uint16_t found;  /* VIRTIO_MEM_STATE_* */
	struct iovec iov[VQ_MAX_NUM];

	/* between the threads */
	_Atomic uint64_t requested; /* control -> I/O: bytes */
	_Atomic uint64_t plugged;   /* I/O -> control: bytes */
	_Atomic uint32_t changes;   /* I/O -> control: counts them; h->event_fd tells */
	_Atomic uint32_t shown;     /* control -> I/O: as far as they are shown */

	/* the control thread's */
	bool owing; /* MSG_MEM_STATE, when it is not `known` */
	uint64_t known;
};

/* Is this a message that can be obeyed? -EINVAL says what is not. */
int vmem_check_conf(const struct msg_start_mem *m, struct err *e);
/* The descriptors of its start message are taken over. *step is what failed. helper_attach() with
 * &b->ops. */
int vmem_open(struct vmem *b, struct helper *h, const struct msg_start_mem *m,
	      const struct start_fds *f, const char **step, struct err *e);
/* What vmem_open() does after the memory is mapped and before threads: for tests without. -EPROTO:
 * what an earlier helper left is of another region. */
int vmem_describe(struct vmem *b, const struct msg_start_mem *m, struct err *e);
void vmem_rules(const struct vmem *b, struct rule_list *l);
/* The event of the helper's own: the control thread shows what has changed. */
void vmem_event(void *dev);

/* ---- mem_io.c ---- */
void *vmem_io_main(void *arg);
/* The driver is there and no I/O runs. */
void vmem_prepare(struct vmem *b);
/* One turn of the I/O thread. True: there is more to do at once. */
bool vmem_turn(struct vmem *b);
/* Blocks of [from, to) that are plugged. */
uint32_t vmem_count(const struct vmem_state *st, uint32_t from, uint32_t to);

/* ---- mem_linux.c ---- */
/* Give back these bytes of guest memory, whole pages. 0 or a negative errno: they are as they were.
 */
int vmem_cut(void *at, uint64_t len);

#endif
