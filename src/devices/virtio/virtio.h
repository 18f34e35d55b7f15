/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A virtio 1.2 device without its transport: features, status machine, queues, configuration,
 * interrupts.
 *
 * A transport (front.h) turns register accesses into these calls and shows the values; a device
 * model (blk.c) says what it is and serves the queues. Everything is called by the control
 * thread alone; the queues belong to the model's own threads between its start and the return of
 * its stop.
 */
#ifndef DEVICES_VIRTIO_H
#define DEVICES_VIRTIO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <insula/proto.h>

#include "virtqueue.h"

struct virtio;

struct virtio_model {
	uint32_t device_id;
	uint64_t features; /* of the device; the transport-independent ones are added */
	unsigned nqueues;  /* up to VIRTIO_MAX_QUEUES */
	/* Another program serves the queues: `features` are all that there are, and nothing here
	 * begins a queue. */
	bool foreign;
	/* With what the driver has accepted: bit i: somebody else serves queue i of a device of our
	 * own. It is checked, and not begun: its vq[i].num stays 0. NULL: there is none. */
	uint32_t (*lent)(const void *dev);
	const void *config;
	size_t config_len;
	/* DRIVER_OK: serve the queues whose num is not 0. Must not fail. */
	void (*start)(void *dev);
	/* Returns when nothing is in flight and no thread touches a queue or guest memory. */
	void (*stop)(void *dev);
	/* The driver has reset the device, which is quiet and as it was in the beginning: forget
	 * what the driver has set. May be NULL. Called again after a restart in its middle. */
	void (*reset)(void *dev);
	/* The driver writes 1, 2, 4 or 8 bytes at `off` of the configuration, which may be beyond
	 * its end. NULL: it cannot. */
	void (*configure)(void *dev, uint32_t off, uint32_t size, uint64_t val);
	/* The driver has chosen another vector for queue i, which runs. NULL: who signals it looks
	 * each time. */
	void (*vector)(void *dev, unsigned i);
};

/* What outlives the process; in the device page. */
struct virtio_state {
	uint32_t status; /* 2.1, written last or first where the order matters to a successor */
	uint32_t isr;    /* the configuration bit (2) alone; the ring bit is not kept */
	uint32_t device_sel, driver_sel, queue_sel;
	uint32_t config_gen;
	uint64_t driver_features;
	struct vq_state q[VIRTIO_MAX_QUEUES];
};

/* What of a queue's registers is not 0 before the driver writes them. */
struct virtio_fresh_queue {
	uint32_t num, vector;
};

struct virtio {
	struct virtio_state *st;
	const struct guestmem *gm;
	const struct virtio_model *model;
	void *dev;
	bool running; /* the model's threads own the queues */
	struct virtqueue vq[VIRTIO_MAX_QUEUES];
	/* The transport: show the registers' values; then the interrupt of the configuration, and
	 * if `all` those of the queues that are ready. */
	void (*show)(struct virtio *v);
	void (*irq)(struct virtio *v, bool all);
	void *transport;
	uint64_t features; /* that it adds to those of a device of our own */
	struct virtio_fresh_queue fresh;
};

#define VIRTIO_ISR_RING 1u
#define VIRTIO_ISR_CONFIG 2u

/* Set up from `st`: fresh (all of it is initialised) or as an earlier process left it, checked. The
 * queues do not run before virtio_resume(). Fill in what is the transport's before. */
void virtio_init(struct virtio *v, struct virtio_state *st, bool resumed, const struct guestmem *gm,
		 const struct virtio_model *model, void *dev);
/* Carry on after a restart, when accesses that were left pending are executed (one of them may be a
 * reset): if the driver is there, serve again what was in flight. */
void virtio_resume(struct virtio *v);

void virtio_select_device_features(struct virtio *v, uint32_t half);
void virtio_select_driver_features(struct virtio *v, uint32_t half);
/* The halves that were chosen; 0 where there is none. */
uint32_t virtio_device_features(const struct virtio *v);
uint32_t virtio_driver_features(const struct virtio *v);
void virtio_set_driver_features(struct virtio *v, uint32_t half);
void virtio_set_status(struct virtio *v,
		       uint32_t val); /* 0: reset; returns when the device is quiet */
uint32_t virtio_isr(const struct virtio *v);
void virtio_ack(struct virtio *v, uint32_t bits);

void virtio_select_queue(struct virtio *v, uint32_t i);
/* The queue that was chosen; NULL: there is none. Writing does nothing then; nor, but for its
 * vector, while it is ready. */
const struct vq_state *virtio_queue(const struct virtio *v);
void virtio_queue_set_num(struct virtio *v, uint32_t num);
enum virtio_area { VIRTIO_DESC, VIRTIO_DRIVER, VIRTIO_DEVICE };
void virtio_queue_set_addr(struct virtio *v, enum virtio_area a, bool high, uint32_t half);
void virtio_queue_set_ready(struct virtio *v, uint32_t ready);
void virtio_queue_set_vector(struct virtio *v, uint32_t vector);
/* If VIRTIO_F_RING_RESET was negotiated: back to its beginning (2.6.1), from where it may be made
 * ready again while the others run. */
void virtio_queue_reset(struct virtio *v);

/* The guest made a mistake, or accesses were lost: DEVICE_NEEDS_RESET. Stops the queues. */
void virtio_fail(struct virtio *v, const char *why);
/* The configuration space has changed, as the driver can see already. */
void virtio_config_interrupt(struct virtio *v);

#endif
