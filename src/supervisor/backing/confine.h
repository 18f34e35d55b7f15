/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A program of the host that serves a vhost-user device, started in a jail that is made for it:
 * virtiofsd (share.h), and the programs of storage modules (served.h). docs/jail.md has the jail.
 *
 * Thread: the supervisor's. Linux only. Does not block, but for newuidmap.
 */
#ifndef SUPERVISOR_BACKING_CONFINE_H
#define SUPERVISOR_BACKING_CONFINE_H

#include <stdbool.h>
#include <stdint.h>

#include <insula/err.h>

#include "devices/module/module_connect.h"
#include "supervisor/child.h"

#define CONFINE_LISTENER 3 /* the descriptor on which the program finds its socket */
#define CONFINE_FILES 20
#define CONFINE_CONNECT "connect.so" /* file of a plan with a network: its connect() */
#define CONFINE_NAME 32
#define CONFINE_AT 64

/* How its ids are mapped. */
enum confine_ids {
	CONFINE_ALL,   /* root: each to itself */
	CONFINE_RANGE, /* a user with newuidmap and a range: root is the user, 1 ... are the range */
	CONFINE_ONE    /* a user alone; setgroups() is switched off */
};

struct confine_file {
	char name[CONFINE_NAME]; /* it is /files/NAME there, */
	char at[CONFINE_AT];     /* or this, if it is not "" */
	const char *path;        /* absolute */
	int fd;                  /* the file that is meant */
	bool write;
	bool exec; /* it is a library */
};

/* A program that asks for connections (asks.h). */
struct confine_network {
	int ask, answer;   /* become CONNECT_ASK_FD and CONNECT_ANSWER_FD */
	const char *hosts; /* what /etc/hosts says */
	bool ends;         /* CONNECT_ENDS */
};

/* All of it is borrowed. */
struct confine_plan {
	const char *name;    /* for messages: "virtiofsd" */
	const char *program; /* its path; NULL: */
	int exec_fd;         /* the program, open */
	const char *const *argv;
	int listener; /* becomes CONFINE_LISTENER */
	int dir;      /* becomes /share, and /usr and /proc/self are there; -1: there is none */
	bool ro;      /* dir */
	const struct confine_file *file;
	unsigned nfiles;
	const struct confine_network *network; /* NULL: none */
	bool range;            /* a user's range of ids is mapped, if there is one */
	uint64_t keep;         /* capabilities, a bit for each */
	const uint16_t *calls; /* that it may make; NULL: it has a list of its own */
	unsigned ncalls;
	unsigned nproc, nofile;
	uint64_t as; /* RLIMIT_AS; 0: none */
};

/* A connected end, the caller's, to a program that `spawn` starts with the other one, in place of
 * what `c` is: that has lost its connection. */
int confine_replace(struct child *c, int (*spawn)(void *ctx, int listener, struct err *e),
		    void *ctx, struct err *e);
/* Start it as `c`. */
int confine_spawn(const struct confine_plan *p, struct child *c, enum confine_ids *ids,
		  struct err *e);

#endif
