/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A remote device: the core's side of a device page (insula/devpage.h), as its description
 * (insula/device.h) says. Nothing here knows a register.
 *
 * Reads are answered from the shadow registers, writes are posted, and what is left is a
 * synchronous call with a deadline, which is one for all accesses of an exit. A device whose helper
 * misses the deadline or breaks the protocol is failed: reads that exit give all ones, writes are
 * lost (and the page says so) until the call that was given up is answered after all, or
 * remote_up().
 */
#ifndef VMM_REMOTE_H
#define VMM_REMOTE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <insula/device.h>
#include <insula/devpage.h>
#include <insula/hv.h>
#include <insula/proto.h>

#include "bus.h"

struct remote;

/* What the bus knows of a device: one of its windows. */
struct remote_window {
	struct remote *dev;
	const struct device_window *w;
};

struct remote {
	struct device_desc desc; /* checked */
	struct remote_window window[DEVICE_MAX_WINDOWS];
	int slot[DEVICE_MAX_SLOTS]; /* owned; the page's is -1 when it is mapped */

	void *direct[DEVICE_MAX_WINDOWS]; /* what DEVICE_DIRECT windows show */
	/* Of a place: BOARD_PCI_PORT_SIZE bytes of address space for those of what comes; NULL: it
	 * may have none. */
	uint8_t *room;
	uint8_t *shadow; /* the core maps the first DP_CORE_SIZE bytes of the page here */
	struct dp_ctrl *ctrl;
	struct dp_post *ring;

	int call_event, answer_event; /* of `slot` */
	int wake_event;               /* borrowed: tells the main thread that `stuck` is set */
	const atomic_bool *ending;    /* borrowed: the VM ends, do not wait any longer */
	bool may_spin;

	pthread_mutex_t lock; /* head, seq, metrics.call_ns_max; held while a call is under way */
	uint32_t head, seq;   /* our own copies: never read back from the page */
	atomic_bool failed, stuck, gone; /* gone: do not wait any longer */
	_Atomic uint64_t shadow_reads, doorbells;
	struct vm_dev_metrics metrics;
};

/* `self` is a struct remote_window. */
extern const struct bus_ops remote_bus_ops;

/* Check the description of a MSG_DEVICE (device_check()), take over its descriptors and map its
 * page: a device, or a place with nothing in it. On error everything is closed. */
int remote_init(struct remote *d, const struct device_desc *desc, int *fds, unsigned nfds,
		struct err *e);
/* A device comes into a place, or goes: the page stays, and everything else is the device's. Nobody
 * is in an access to it, nor can be. remote_plug() takes over the descriptors; on error they are
 * closed, and nothing has changed: -EINVAL: it is not one for this place; or device_check(). */
int remote_plug(struct remote *d, const struct device_desc *desc, int *fds, unsigned nfds,
		struct err *e);
void remote_unplug(struct remote *d, const struct device_desc *place);
/* Until remote_plug(): whoever waits for an answer waits no longer. Any thread. */
void remote_give_up(struct remote *d);
/* A write that is no loss when there is no helper: it waits for the next one, if the ring has room.
 */
void remote_call_or_wait(struct remote_window *win, uint64_t off, unsigned size, uint64_t value,
			 struct bus_patience *w);
/* The helper is back. Any thread. */
void remote_up(struct remote *d);
/* There is none, and no call waits for one until there is. Any thread; waits for a call that is
 * under way. */
void remote_down(struct remote *d);
/* Doorbell i as the hypervisor is told of it; `base`: where the BAR is that its address is in. */
struct hv_doorbell remote_doorbell(const struct remote *d, unsigned i, uint64_t base);
void remote_metrics(struct remote *d, struct vm_dev_metrics *out);

#endif
