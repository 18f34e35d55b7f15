/* SPDX-License-Identifier: BSD-2-Clause */
/* Runs a program (a decompressor, busybox, mke2fs) to its end. */
#ifndef IMAGE_SPAWN_H
#define IMAGE_SPAWN_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <insula/err.h>

#define SPAWN_FD 3 /* where `extra` is in the child */

struct spawn {
	const char *const *
		argv; /* argv[0] is looked for in PATH, /usr/sbin and /sbin unless it has a slash */
	const char *package; /* of Debian, named when the program is missing */
	int in;              /* its stdin, or -1: /dev/null */
	int out;             /* its stdout, or -1: /dev/null */
	int extra;           /* its descriptor SPAWN_FD, or -1 */
	const char *bare;    /* a directory that it must see without anything mounted below, or NULL
				(needs CAP_SYS_ADMIN) */
	bool own_env;        /* it has our environment: credentials, proxies */
	uint64_t fsize;      /* how long it may make a file; 0: as long as we */
	/* Called about 4 times a second while it runs, or NULL. Not 0: the program is killed, and
	 * this is what spawn_run() returns. */
	int (*tick)(void *ctx, struct err *e);
	void *ctx;
};

/* 0 if it ends with status 0; otherwise -EIO with the last line of its stderr, -ENOENT if it is not
 * installed. It dies with the caller. */
int spawn_run(const struct spawn *s, struct err *e);

/* The same without waiting for it, and without `tick`. */
struct spawned {
	pid_t pid;     /* 0: there is none */
	int errors;    /* owned: its stderr */
	char name[32]; /* of the program */
};
int spawn_begin(const struct spawn *s, struct spawned *p, struct err *e);
/* -EAGAIN while it runs; else as spawn_run(), once. Does not block. */
int spawn_look(struct spawned *p, struct err *e);
/* Kill it, and wait for that. No-op if there is none. */
void spawn_kill(struct spawned *p);

#endif
