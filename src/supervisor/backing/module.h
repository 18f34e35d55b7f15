/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What is behind the disk of a storage module, as the supervisor holds it: the program, found and
 * checked; what the user said of it; and the connections, which are made here, because a module has
 * no network.
 *
 * The first process of a module gets a connection with its start. Later its lanes ask for one
 * (MSG_MODULE_NEED), and get it when there is one: at first at once, in the end every
 * MODULE_PATIENCE_MS.
 *
 * A copy of each connection stays here. When the process that used it has died, or has given it up,
 * the server may still have requests of it that it has not executed, and a write that is executed
 * late could destroy a later one. So the copy is shut for writing, and no other connection is
 * handed out until the server has closed its side: then it has read all, and (all servers but
 * qemu-nbd: see docs/modules.md) has executed it. MODULE_FENCE_NS is the end of that patience.
 *
 * Thread: the supervisor's. Nothing here blocks but module_open() before the VM runs.
 */
#ifndef SUPERVISOR_BACKING_MODULE_H
#define SUPERVISOR_BACKING_MODULE_H

#include <sys/socket.h>

#include <insula/proto.h>
#include <insula/uri.h>

#include "devices/module/module_start.h"
#include "spec/config.h"
#include "spec/manifest.h"

#define MODULE_ADDRESSES 16
#define MODULE_PATIENCE_MS 2000u
#define MODULE_CONNECT_MS 5000 /* for each address, at the start */
#define MODULE_FENCE_NS 5000000000ull
#define MODULE_SILENCE_NS 50000000ull
#define MODULE_READ_MS 10000 /* a file, or what a name is resolved to */

struct served;

struct module_address {
	struct sockaddr_storage at;
	socklen_t len;
};

struct module_addresses {
	unsigned n;
	struct module_address at[MODULE_ADDRESSES];
};

/* One lane's connection. */
struct module_slot {
	int had;           /* owned, or -1: a copy of what its lane uses, or used */
	bool wants;        /* its lane has asked for another one */
	bool shut;         /* had: for writing */
	uint64_t since_ns; /* had: what came last, or when the fence began; 0: no fence */
	uint64_t fence_ns; /* when the fence began */
	uint64_t due_ns, given_ns;
	unsigned backoff_ms;
};

struct module_back {
	const struct disk_config *conf; /* borrowed */
	char name[CONFIG_MODULE_MAX + 1];
	char says[512]; /* for messages: what the user said, without a query */
	char dir[4352]; /* where modules are */
	struct manifest manifest;
	int exec_fd; /* owned */
	struct served
		*served; /* owned: it is of the second kind, and has no lanes and no `files` */
	char text[MODULE_TEXT_MAX]; /* struct msg_start_module.text; of the second kind values */
	unsigned text_len;
	int files; /* owned, or -1: what the files of its settings hold, a sealed memory */
	bool connects;
	bool late; /* MODULE_LATER */
	struct uri uri;
	/* What is connected to; of the second kind, what is tried before its program starts. */
	struct module_addresses to;
	unsigned turn; /* the one that is tried next */
	int first;     /* owned, or -1: connected, and not handed out yet */
	bool same;     /* the server has lived through the death of the last process */
	struct module_slot slot[BLK_MAX_QUEUES];
};

enum module_when {
	MODULE_CHECK, /* all that was said, and do not connect */
	MODULE_NOW,   /* look up names, and connect: blocks, with deadlines */
	MODULE_LATER, /* the VM runs, and nothing may block: addresses alone, and module_connected() */
};

/* Find the module, check all that was said, and connect. A line that names what is wrong. *out is
 * NULL on errors. */
int module_open(struct module_back **out, const struct disk_config *conf, const char *libexec,
		enum module_when when, struct err *e);
/* After MODULE_LATER: 1, 0 (not yet) or why not. 1 too if the module needs no connection. */
int module_connected(struct module_back *b, struct err *e);
void module_close(struct module_back *b);

/* Of module_open(): what comes from `fd` until its end, at most `size` bytes. The count, or a negative
 * errno: -ETIMEDOUT after MODULE_READ_MS. */
ssize_t module_read(int fd, char *out, size_t size);
/* Of module_open(): the addresses of a host, added to `to`. */
int module_find(struct module_addresses *to, const char *host, uint16_t port, enum module_when when,
		struct err *e);
/* Of module_open(): the files that settings in text[*len] name are read, and the text says where
 * they are in b->files then. */
int module_take_files(struct module_back *b, struct err *e);

/* The connection for a process that starts, the caller's; -1: it has to ask. */
int module_hand_out(struct module_back *b);
/* Has the server let go of what the last process had? 1 or 0. */
int module_quiet(struct module_back *b);
/* A lane asks. False: there is no such lane. */
bool module_asks(struct module_back *b, uint32_t lane);
/* When module_retry() wants to be called, clock_ns(); 0: not now. */
uint64_t module_due(const struct module_back *b);
/* A connection for a lane that waits for one: the caller's, and which. -EAGAIN: none is due; else
 * why not: it will be tried again. */
int module_retry(struct module_back *b, uint32_t *lane, struct err *e);

#endif
