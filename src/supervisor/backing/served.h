/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What is behind the disk of a module of the second kind: a program of the host that serves it over
 * vhost-user (manifest.h). The supervisor opens the files, locks them, looks at what the manifest
 * says of them, and starts the program in a jail (confine.h) with a listening socket that nobody
 * else can reach. The connected end is insula-vhost's (vhost.h).
 *
 * Each connection has a process of its own. The one before is ended first, and has ended when the
 * next one starts: so nothing that it had begun is still under way in the kernel.
 *
 * Thread: the supervisor's. Linux only.
 */
#ifndef SUPERVISOR_BACKING_SERVED_H
#define SUPERVISOR_BACKING_SERVED_H

#include "asks.h"
#include "confine.h"
#include "module.h"
#include "vhost.h"

#define SERVED_ROOM 16384 /* bytes of arguments */
#define SERVED_HOSTS 4096

struct served {
	struct module_back *module; /* whose this is */
	unsigned nfiles;
	struct confine_file file[CONFINE_FILES]; /* owned descriptors */
	uint64_t memory;                         /* of the guest, which it maps */
	bool has_network;
	struct asks asks;
	char hosts[SERVED_HOSTS], library[4400]; /* its /etc/hosts; the path of CONFINE_CONNECT */
	struct child program;
	uint64_t end_ns; /* served_quiet(): of its patience; 0: it was not told to end */
	struct vhost_back back;
	const char *argv[MANIFEST_ARGUMENTS + 2];
	char room[SERVED_ROOM];
};

/* Check all that was said, open and lock the files. Nothing is started. *out is NULL on errors. */
int served_open(struct served **out, struct module_back *b, enum module_when when, struct err *e);
/* Of served_open(), served_reach.c: what it may connect to, and its /etc/hosts. */
int served_reach(struct served *s, const struct manifest_values *v, enum module_when when,
		 struct err *e);
/* A line of its /etc/hosts. */
int served_add_host(char hosts[SERVED_HOSTS], const struct module_address *a, const char *name,
		    struct err *e);
/* Before the first start: what is known only now. */
int served_size(struct served *s, unsigned nqueues, uint64_t memory, struct err *e);
/* The disk is taken away: tell the program to end, and kill it later if it does not. True: it has
 * ended. Does not block. */
bool served_quiet(struct served *s);
/* Ends the program in order, with a deadline; NULL: there is none. */
void served_close(struct served *s);

#endif
