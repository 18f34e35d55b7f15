/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * An interrupt line: a line of the hypervisor (hv.h) with one event. What decides (a pin of the
 * IOAPIC, an entry of an MSI-X table) says whether the line delivers, and which message.
 *
 * While it delivers the event is bound, so that an interrupt never passes through this program.
 * While it does not, the event is unbound and keeps what comes: it is delivered when it is bound
 * again. Nothing is asked of the hypervisor if nothing changes, and a line is routed only when it
 * delivers: kernels write the same several times while they boot.
 *
 * Thread: the owner has a lock.
 */
#ifndef VMM_LINE_H
#define VMM_LINE_H

#include <stdbool.h>
#include <stdint.h>

#include <insula/err.h>
#include <insula/hv.h>

/* hv_irq_route, hv_irq_bind, hv_irq_unbind; a test has its own. Called under the owner's lock, from
 * the thread that calls. */
struct line_ops {
	int (*route)(struct hv_vm *vm, unsigned line, uint64_t addr, uint32_t data, struct err *e);
	int (*bind)(struct hv_vm *vm, unsigned line, hv_event event, struct err *e);
	int (*unbind)(struct hv_vm *vm, unsigned line, hv_event event, struct err *e);
};

struct line {
	const struct line_ops *ops;
	struct hv_vm *vm;
	unsigned number;
	hv_event event; /* borrowed; -1: none */
	bool bound;
	bool routed; /* the hypervisor's line has the message below */
	uint64_t addr;
	uint32_t data;
};

/* Deliver what has come and what will, as this message. The line keeps its event while the message
 * changes: that is the hypervisor's promise, so no edge is lost. 0 or what the hypervisor said. */
int line_deliver(struct line *l, uint64_t addr, uint32_t data, struct err *e);
/* Keep what comes. */
int line_hold(struct line *l, struct err *e);

#endif
