/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Storage modules: what a program that serves a disk of a VM is made of.
 *
 * A module is an executable LIBEXEC/modules/NAME with a manifest NAME.json beside it
 * (docs/modules.md). For each disk of the form NAME:... one process of it is started, in a jail as
 * tight as that of any helper. libinsula-module.a does the device: registers, virtqueues,
 * virtio-blk, interrupts, restart. The module does what is behind it, in the functions of struct
 * module_ops:
 *
 *   control thread   open()       before the jail is closed: no word of a server has been read
 *                    describe()   behind it: how large is the disk, what can it do
 *   lane threads     lane_open() ... : one for each queue; each lane is a world of its own. A
 *                    library with callbacks and a descriptor to poll fits in there without a lock
 *
 * Connections are the supervisor's: a module has no network. It gets sockets by lane_connection(),
 * says module_lost() for one that has ended, and gets the next one when there is one.
 *
 * What is written is one of three things: answered, made stable by a flush, or lost with a server.
 * The library keeps the books (across restarts of the module, too): when a connection that was used
 * to write has ended and something had been answered and not flushed, the next flush fails, once.
 * See docs/modules.md, "What a flush is worth".
 *
 * Link with `pkg-config --libs insula-module`.
 */
#ifndef INSULA_MODULE_H
#define INSULA_MODULE_H

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include <insula/err.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MODULE_API 1
#define MODULE_MAX_QUEUES 8
#define MODULE_MAX_POLL 8 /* descriptors that a lane may wait for */

struct module;      /* the library's: one disk */
struct module_lane; /* the library's: one queue and its thread */

/* What the disk is. A disk that the guest has seen once may only grow. */
struct module_disk {
	uint64_t size;     /* bytes, a multiple of 512 */
	uint32_t logical;  /* bytes of a block, 512 to 4096; 0: 512 */
	uint32_t physical; /* bytes that are best written at once, a power of two; 0: 4096 */
	uint32_t queues;   /* that can be served side by side; 0: as many as the VM wants */
	uint32_t flags;    /* MODULE_DISK_* */
	uint64_t own;      /* the module's: resume() gets it back */
};
enum module_disk_flags {
	MODULE_DISK_RO = 1, /* cannot be written; if the user did not say ro: describe() refuses */
	MODULE_DISK_FLUSH = 2,   /* MODULE_FLUSH is understood; else what is answered is stable */
	MODULE_DISK_FUA = 4,     /* module_req.fua is obeyed */
	MODULE_DISK_DISCARD = 8, /* MODULE_DISCARD, and `unmap` */
	MODULE_DISK_ZEROES = 16, /* MODULE_ZEROES; else zeros are written */
};

enum module_op {
	MODULE_READ,
	MODULE_WRITE,
	MODULE_FLUSH,   /* all that was answered before is stable, on all lanes */
	MODULE_DISCARD, /* the range is not needed any more */
	MODULE_ZEROES,  /* the range reads as zeros */
};

struct module_req {
	enum module_op op;
	bool fua;   /* write, zeroes: stable when it is answered. The module may set it */
	bool unmap; /* zeroes: its space may be given back */
	/* Bytes; 0 of a flush. Of a read or write submit() may lower `len` to another multiple of
	 * 512: the rest comes again. */
	uint64_t off, len;
	const struct iovec *iov; /* of read and write: the guest's memory, `len` bytes */
	unsigned niov;
	uint64_t born_ns; /* CLOCK_MONOTONIC */
	/* The module's, from submit() to module_done(). All zeros in the beginning. */
	struct module_req *next;
	void *own[4];
	/* The library's. */
	void *io;
	uint64_t written;
};

/* What the user has said. Borrowed until open() returns. */
struct module_conf {
	const char *target; /* what follows NAME: */
	bool ro;
	unsigned queues; /* that the VM wants */
	/* The value of a setting of the manifest: what the user said, or its default; NULL:
	 * neither. */
	const char *(*setting)(const struct module_conf *c, const char *key);
	/* What the file of a setting held when the VM was started, with a NUL behind its *len
	 * bytes; NULL: none was named. It stays for the life of the process: passwords and keys. */
	const char *(*file)(const struct module_conf *c, const char *key, size_t *len);
};

struct module_ops {
	const char *name;
	/* Read the configuration. *own is given to the other functions. Memory, threads:
	 * only here, and only as the manifest allows. 0 or a negative errno with a line for the
	 * user. */
	int (*open)(struct module *m, const struct module_conf *c, void **own, struct err *e);
	/* Fill in *d. `fd`: a connected, non-blocking socket, the module's from now on; -1: the
	 * manifest asks for none. It may take its time, with a deadline. An error is the end of the
	 * VM that starts. */
	int (*describe)(void *own, int fd, struct module_disk *d, struct err *e);
	/* Instead of describe(), after a restart: this is the disk that the guest knows.
	 * Connections will come when lanes ask for them. May be NULL: describe() is called, and
	 * must say the same or more. */
	void (*resume)(void *own, const struct module_disk *d);

	/* ---- the lane's thread ---- */
	/* Called for each lane, before anything is submitted. *lane is given to the others. */
	int (*lane_open)(void *own, struct module_lane *l, unsigned index, void **lane,
			 struct err *e);
	/* Take the request; answer it with module_done(), now or later, in any order. */
	void (*submit)(void *lane, struct module_req *r);
	/* What to wait for: fill in p[], lower *timeout (ms; -1: for ever). May be NULL. */
	unsigned (*poll)(void *lane, struct pollfd p[MODULE_MAX_POLL], int *timeout);
	/* Something of it is ready, or time has passed, or a turn begins: p is poll()'s, with
	 * revents (all zeros: nobody has looked). Must not block. May be NULL. */
	void (*ready)(void *lane, const struct pollfd *p, unsigned n);
	/* The next connection: a socket, not blocking, perhaps still connecting. The module's from
	 * now on. NULL: it has none. */
	void (*lane_connection)(void *lane, int fd);
	/* The guest resets the device, or the VM ends, and waits: what waits for a connection is
	 * answered now, with an error. May be NULL. */
	void (*abort)(void *lane);
	/* Has something come that ready() would deal with? The lane asks again and again for some
	 * microseconds before it sleeps, and calls ready() without poll() then: p is NULL, n 0. One
	 * system call at most. May be NULL: nobody looks. */
	bool (*look)(void *lane);
};

/* main() of a module: return it. */
int module_main(const struct module_ops *ops);

/* ---- lane's thread ---- */

/* `res`: 0, or a negative errno. -EOPNOTSUPP of MODULE_ZEROES: zeros are written instead. `r` is
 * the library's again. It may be called inside submit(). */
void module_done(struct module_lane *l, struct module_req *r, int res);
/* The lane needs a connection: it never had one, or it has ended. Asking twice does no harm. */
void module_need(struct module_lane *l);
/* A connection through which something may have been written has ended. Call it before what was in
 * flight is sent again. Any thread. */
void module_lost(struct module_lane *l);
/* The disk is larger now: the guest is told. False: it is smaller than the guest knows; nothing has
 * changed. Any thread. */
bool module_resize(struct module_lane *l, uint64_t size);

/* One line of the log, behind the name of the module and the disk. Any thread. */
void module_log(const char *fmt, ...) INSULA_PRINTF(1, 2);
/* CLOCK_MONOTONIC. */
uint64_t module_now(void);

#ifdef __cplusplus
}
#endif

#endif
