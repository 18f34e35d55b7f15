/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One device: its page and events, which outlive helpers, and the helper that serves it now.
 * The supervisor maps neither the page nor guest memory.
 */
#ifndef SUPERVISOR_DEVICE_H
#define SUPERVISOR_DEVICE_H

#include <insula/proto.h>

#include "child.h"
#include "stats.h"
#include "disk.h"
#include "restart.h"
#include "terminal.h"

struct device;
struct nic;
struct vm;
struct vsock;

/* What is particular to a kind of device: one table each, in dev_KIND.c. */
struct device_class {
	const char *program; /* "insula-blk" */
	enum dev_kind kind;
	unsigned threads, nofile; /* limits of the helper; see struct jail_plan */
	unsigned queue_threads;   /* more for each queue after the first */
	/* How long it may make a regular file. NULL: it writes none. */
	uint64_t (*fsize)(const struct device *d);
	/* Send the start message to the helper that was just spawned. */
	int (*start)(struct device *d, int mem, const struct memmap *map, struct err *e);
	/* May a new helper start? 1, 0 (not yet) or a negative errno (never). NULL: at once. */
	int (*quiet)(const struct device *d);
	/* A message that only this kind sends. False: it breaks the protocol. NULL: there is none.
	 * `fds` are closed by the caller. */
	bool (*message)(struct vm *vm, struct device *d, enum msg_type t, const void *body,
			size_t len);
	/* "io_uring", "threads" ...: how it is served, for the metrics; NULL: one way only. */
	const char *(*engine)(const struct device *d);
	/* When tend() wants to be called, clock_ns(); 0: not now. NULL: never. */
	uint64_t (*due)(const struct device *d);
	/* Do what is due, without blocking. */
	void (*tend)(struct device *d);
	/* A program of the host that belongs to it (passt), for its log and its end; NULL: none. */
	struct child *(*peer)(const struct device *d);
	/* Is it the first one? */
	bool (*peer_began)(const struct device *d);
	const struct stat_names *stats;
};

struct device {
	const struct device_class *class;
	struct msg_device msg;
	int page, call, irq, kick[VIRTIO_MAX_QUEUES]; /* owned */
	struct child child;
	union { /* what is behind it, borrowed */
		struct disk *disk;
		struct terminal *terminal;
		struct vsock *vsock;
		struct nic *nic;
		const void *conf;
	} back;

	struct restart restart;
	enum blk_engine engine; /* of the last start, for a disk */
	struct msg_stats stats; /* of all helpers that stopped in order */
};

extern const struct device_class device_uart, device_blk, device_net, device_rng, device_vsock;

/* Make page and events. `libexec` as in child_init(); `name` as the guest calls it; `nth`: the
 * window (virtio-mmio); `nqueues`: doorbells. Set d->back after it. */
int device_init(struct device *d, const struct device_class *class, unsigned index, unsigned nth,
		const char *name, unsigned nqueues, const char *libexec, struct err *e);
/* "vda" ... "vdz", "vdaa" ...: as Linux names the nth disk. */
void device_disk_name(unsigned nth, char name[DEV_NAME_LEN]);
/* The descriptors that every virtio helper begins with: memory, page, call, irq; then `extra` (-1:
 * none), then the kicks. Sends the message. */
int device_send_start(struct device *d, enum msg_type t, const void *body, size_t len, int mem,
		      int extra, struct err *e);
void device_free(struct device *d);

/* Tell insula-vmm about it. `ack` is the event that takes acknowledges. */
int device_announce(const struct device *d, int vmm_channel, int ack, struct err *e);
/* Spawn its helper and send it what it needs. */
int device_start(struct device *d, int mem, const struct memmap *map, struct err *e);
/* May another process start? 1, 0 (not yet) or a negative errno (not now). */
int device_quiet(const struct device *d);
/* Set bits of the 32-bit register at `reg` of the page that the guest reads; *before: what was
 * there. For a device without a helper: nobody else writes them. */
int device_set_bits(const struct device *d, unsigned reg, uint32_t bits, uint32_t *before,
		    struct err *e);

#endif
