/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One device on Windows: its page and events, which outlive helpers, what is behind it, and the
 * helper that serves it now. The supervisor maps the page once, when it is new and nobody's.
 */
#ifndef SUPERVISOR_DEVICE_WIN_H
#define SUPERVISOR_DEVICE_WIN_H

#include "child_win.h"
#include "spec/config.h"
#include "restart.h"
#include "stats.h"
#include "vsock_win.h"

/* What is behind a disk: a file, open once and for all helpers. The handle keeps other VMs away. */
struct disk {
	int fd; /* owned */
	struct msg_start_blk start;
};

/* The console's ends: pipes or files. */
struct terminal {
	int in, out;               /* owned; -1: no input */
	uint64_t limit;            /* how long a file at `out` may get; 0: it is none */
	bool escape;               /* a person types */
	void *pump;                /* as of std_open() */
	DWORD saved_in, saved_out; /* the console window's modes, to be restored if `raw` */
	bool raw;
};

enum device_type { DEVICE_UART, DEVICE_BLK, DEVICE_RNG, DEVICE_VSOCK };

struct device {
	enum device_type type;
	struct msg_device msg;
	int page, call, irq, answer, kick[VIRTIO_MAX_QUEUES]; /* owned */
	struct child child;
	const struct disk *disk;
	const struct terminal *terminal;
	struct vsock *vsock;
	uint64_t rate;          /* of random bytes */
	struct msg_stats stats; /* of all helpers that stopped in order */
	struct restart restart;
};

/* `nth`: the window (virtio-mmio). Set disk, terminal, vsock, rate after it. */
int device_init(struct device *d, enum device_type type, unsigned index, unsigned nth,
		const char *name, unsigned nqueues, struct err *e);
void device_free(struct device *d);
/* Descriptors that insula-vmm gets for it, in the order of MSG_DEVICE; how many. */
unsigned device_vmm_fds(const struct device *d, int ack, int fds[MSG_MAX_FDS]);
/* Make its helper and send it what it needs. */
int device_start(struct device *d, int mem, const struct memmap *map, struct err *e);
/* What its counters are called. */
const struct stat_names *device_stats(const struct device *d);
/* May another process start? 1, 0 (not yet) or a negative errno (not now). */
int device_quiet(const struct device *d);
/* Set bits of the 32-bit register at `reg` of the page that the guest reads; *before: what was
 * there. For a device without a helper: nobody else writes them. */
int device_set_bits(const struct device *d, unsigned reg, uint32_t bits, uint32_t *before,
		    struct err *e);

/* ---- ends_win.c ---- */
int file_open(const char *path, const char *what, struct err *e); /* to read; a descriptor */
int disk_open(struct disk *d, const struct disk_config *c, struct err *e);
int terminal_open(struct terminal *t, const struct vm_config *c, struct err *e);
/* The console window gives each key as it is typed, and draws what a terminal's programs write. */
void terminal_raw(struct terminal *t);
/* Undo terminal_raw() and close everything. */
void terminal_close(struct terminal *t);
/* A standard stream (STD_INPUT_HANDLE ...) as a helper may have it: a descriptor with no more
 * rights than it needs, of what was given, of NUL if nothing was, or, for a console window, of a
 * pipe to or from a thread of ours, which *pump is then (the caller's; NULL otherwise). */
int std_open(DWORD which, int *fd, void **pump, struct err *e);
/* Another handle for a stream of insulad's, which a child can inherit; -1: none. */
int stream_copy(int fd);
/* After the last descriptor of an output was closed: its thread writes out what it has. */
void std_drain(void **pump);
/* Is it a console window? */
bool std_is_window(DWORD which);

#endif
