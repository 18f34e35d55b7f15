/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One device: what it looks like on the bus, its page and events, which outlive helpers, what is
 * behind it, and the helper that serves it now.
 *
 * Each kind of device is one row: a struct device_class in dev_KIND.c, the same on every system. A
 * class describes the device (insula/device.h), says what its helper may have, and words the start
 * message. What differs between systems is below it: how a page is written and a process is made
 * (device_linux.c, device_win.c), and how the backing is opened (disk.h, terminal.h, vsock.h, nic.h
 * or ends_win.h, vsock_win.h).
 *
 *   device_init()      description, page, events         once, before anything runs
 *   device_announce()  the description to insula-vmm     once
 *   device_start()     a helper, and its start message   at the start and at each restart
 *   device_free()
 *
 * Thread: the supervisor's. It maps guest memory nowhere.
 */
#ifndef SUPERVISOR_DEVICE_H
#define SUPERVISOR_DEVICE_H

#include <insula/proto.h>

#include "supervisor/restart.h"
#include "supervisor/control/stats.h"
#include "supervisor/child.h"
#ifdef _WIN32
#include "supervisor/backing/ends_win.h"
#else
#include "supervisor/backing/disk.h"
#include "supervisor/backing/terminal.h"
#endif

#define DEVICE_MAX_START 4096 /* bytes of a start message */

struct balloon_back;
struct device;
struct device_class;
struct held;
struct nic;
struct plug;
struct vfio_back;
struct vhost_back;
struct vm;
struct vsock;

/* What a virtio device is on. A serial line is on ports. */
enum device_bus { DEVICE_BUS_MMIO, DEVICE_BUS_PCI };

/* A start message in the making. Its head is filled in when the class has worded the rest. */
struct device_start {
	struct start_head head;
	size_t len;
	_Alignas(8) uint8_t body[DEVICE_MAX_START];
	int fds[MSG_MAX_FDS]; /* borrowed */
	unsigned nfds;
	bool no_memory; /* this time it has no business in guest memory */
	/* Those of fds that are closed when the message is sent; -1: none. */
	int once[NET_MAX_PAIRS];
};

/* What is particular to a kind of device: one table each, in dev_KIND.c. */
struct device_class {
	const char *program; /* "insula-blk"; NULL: a module's, see device_module_init() */
	const char *kind;    /* "disk": what users call it */
	uint32_t tag;        /* of its start message */
	bool memory;         /* it works in guest memory */
	/* A function of the host: always on PCI, interrupts do not go through its helper. */
	bool assigned;
	bool virtio;              /* it can be told that it needs a reset (recover.c) */
	unsigned threads, nofile; /* limits of the helper; see struct jail_plan */
	unsigned queue_threads;   /* more for each queue after the first */
	unsigned virtio_id;       /* on PCI its function says so; 0: see identify() */
	/* Where the nth one of the board is, on that bus and with so many queues: the whole
	 * description. */
	void (*describe)(const struct device_class *class, struct device_desc *d,
			 enum device_bus bus, unsigned nth, unsigned nqueues);
	/* What is behind it says what it is. NULL: that is known. */
	void (*identify)(const struct device *d, struct device_desc *desc);
	/* How long it may make a regular file. NULL: it writes none. */
	uint64_t (*fsize)(const struct device *d);
	/* Word the start message. */
	int (*start)(struct device *d, struct device_start *s, struct err *e);
	/* May a new helper start? 1, 0 (not yet) or a negative errno (never). NULL: at once. */
	int (*quiet)(const struct device *d);
	/* A message that only this kind sends. False: it breaks the protocol. NULL: there is none.
	 * `fds` are closed by the caller. */
	bool (*message)(struct vm *vm, struct device *d, enum msg_type t, const void *body,
			size_t len);
	/* "io_uring", "threads" ...: how it is served, for the metrics; NULL: one way only. The
	 * text outlives the VM. */
	const char *(*engine)(const struct device *d);
	/* How much it may do in a second, to be read and changed: the next helper gets it with its
	 * start, one that serves by MSG_LIMIT. NULL, or its answer: it has no limits. */
	struct msg_limit *(*limit)(const struct device *d);
	const char *limited; /* with `limit`: what users call its msg_limit.ops */
	/* When tend() wants to be called, clock_ns(); 0: not now. NULL: never. */
	uint64_t (*due)(const struct device *d);
	/* Do what is due, without blocking. */
	void (*tend)(struct device *d);
	/* Its helper serves now, or does not any more. NULL: nobody waits for that. */
	void (*serves)(struct device *d, struct loop *l, bool serves);
	/* A program of the host that belongs to it (passt), for its log and its end; NULL: none. */
	struct child *(*peer)(const struct device *d);
	/* It has ended, and this knows what that means; false: nobody does. NULL: the latter. */
	bool (*peer_over)(struct device *d, const struct child_end *end);
	/* Is it the first one? */
	bool (*peer_began)(const struct device *d);
	/* Why it cannot be part of a snapshot; NULL: it can. */
	const char *unsaved;
	/* It can as long as no driver has it: then its page is all that there is; or if its back
	 * end can say what it holds (held.h). */
	bool idle_saved;
	/* The same, as this one is set up. NULL: all of them can. */
	const char *(*unsaved_so)(const struct device *d);
	/* A program that is none of ours is behind it, maps guest memory, and is another one after
	 * a restore. */
	bool back_end;
	const struct stat_names *stats;
};

struct device {
	struct vm *vm;     /* that it is in; set by vm_own_children() */
	struct plug *plug; /* it is in a place of this (plug.h), where it came later, or where
			    * nothing is; NULL: it is there from the start */
	const struct device_class *class;
	struct device_desc desc;
	struct device_desc place;   /* with `plug`: of the place */
	int slot[DEVICE_MAX_SLOTS]; /* its page and events, as desc has them; owned */
	unsigned nqueues;           /* the first doorbells are their kicks */
	struct child child;
	bool restored; /* its first helper carries on from a snapshot */
	/* While a snapshot is made or goes on: what its back end holds (held.h). Owned; NULL:
	 * nothing. */
	struct held *held;
	union { /* what is behind it, borrowed */
		struct disk *disk;
		struct terminal *terminal;
		struct vsock *vsock;
		struct nic *nic;
		struct vhost_back *vhost;
		struct vfio_back *vfio;
		struct balloon_back *balloon;
		struct added_back *added;
		const void *conf;
	} back;

	struct restart restart;
	enum blk_engine engine; /* of the last start, for a disk */
	struct msg_stats stats; /* of all helpers that stopped in order */
	/* For who asks while it runs: what helpers that are gone had counted, as far as is known,
	 * and what the one that serves now has; it was asked for more and has not answered yet. */
	struct msg_stats past, live;
	bool counting;
};

extern const struct device_class device_uart, device_blk, device_net, device_rng, device_vcon,
	device_vsock, device_balloon, device_mem, device_vhost,
	device_vfio,  /* the last two on Linux alone */
	device_place; /* where nothing is yet */

extern const struct device_class device_module; /* Linux alone */
/* After device_init() of a device_module: which program, and what is behind it. `memory`: of the
 * guest, which it maps. */
int device_module_init(struct device *d, struct disk *disk, uint64_t memory, struct err *e);

/* Make page and events. `libexec` as in child_init() (Windows: NULL); `name` as the guest calls it;
 * `nth`: of its place on the bus (PCI: at most BOARD_MAX_PCI of them). Set d->back after it. */
int device_init(struct device *d, const struct device_class *class, enum device_bus bus,
		unsigned index, unsigned nth, const char *name, unsigned nqueues,
		const char *libexec, struct err *e);
/* "vda" ... "vdz", "vdaa" ...: as Linux names the nth disk. */
void device_disk_name(unsigned nth, char name[DEV_NAME_LEN]);
void device_free(struct device *d);

/* A place for a device that comes later, with its page, and its port at device `number` of the PCI
 * bus. */
int device_init_place(struct device *d, unsigned index, unsigned nth, unsigned number,
		      struct err *e);
/* Is nothing there? */
bool device_is_empty(const struct device *d);
/* Something comes there: its description and events, and its page as new; no process has it. On
 * error nothing has come. Set d->back after it. */
int device_plug(struct device *d, const struct device_class *class, const char *name,
		unsigned nqueues, const char *libexec, struct err *e);
/* Tell insula-vmm that it is there: MSG_PLUG. A negative errno. */
int device_tell(const struct device *d, struct child *vmm);
/* It goes: there is no process of it any more. */
void device_unplug(struct device *d);

/* Tell insula-vmm about it. */
int device_announce(const struct device *d, struct child *vmm, struct err *e);
/* Spawn its helper and send it what it needs. `map` describes `mem`. */
int device_start(struct device *d, int mem, const struct memmap *map, struct err *e);
/* May another process start? 1, 0 (not yet) or a negative errno (not now). */
int device_quiet(const struct device *d);

/* Ask its helper to count; what it has counted until now is in *out. */
void device_count(struct device *d, struct msg_stats *out);
/* It has; false: nobody has asked. */
bool device_counted(struct device *d, const struct msg_stats *s);
/* Its helper is gone, with these counters if it stopped in order; else NULL, and what it said last
 * counts. */
void device_count_end(struct device *d, const struct msg_stats *s);

/* ---- for dev_*.c ---- */
/* The message's body; a struct start_head is its first member, and is filled in later. */
void device_word(struct device_start *s, const void *body, size_t len);
/* A descriptor of what is behind it: START_OWN. Borrowed. */
void device_add(struct device_start *s, int fd);

/* ---- its page ---- */
/* A new one. Returns the descriptor or a negative errno. */
int device_page(struct err *e);
/* What a new one begins with. */
int device_page_head(int page, struct err *e);
/* Set bits of the 32-bit register at `reg` of the page that the guest reads; *before: what was
 * there. For a device without a helper: nobody else writes them. */
int device_set_bits(const struct device *d, unsigned reg, uint32_t bits, uint32_t *before,
		    struct err *e);

/* ---- device_linux.c, device_win.c ---- */
/* The page as a new one. */
int device_page_renew(int page, struct err *e);
int device_child_init(struct device *d, const char *libexec, struct err *e);
/* Make the helper, and send it the message. */
int device_spawn(struct device *d, const struct device_start *s, struct err *e);

#endif
