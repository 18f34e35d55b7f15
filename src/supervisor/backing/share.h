/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A live share: a directory of the host, and the virtiofsd that serves it to the guest.
 *
 * virtiofsd is the distribution's, in C or in Rust. The supervisor starts it in namespaces of its
 * own (virtiofsd.c) with a listening socket that nobody else can reach, connects to that, and the
 * connected end is insula-vhost's (vhost.h). virtiofsd ends when its connection does, so each
 * connection has a virtiofsd of its own: back.connect() makes both.
 *
 * Thread: the supervisor's. Linux only.
 */
#ifndef SUPERVISOR_SHARE_H
#define SUPERVISOR_SHARE_H

#include <stdbool.h>

#include <insula/err.h>

#include "spec/config.h"
#include "supervisor/child.h"
#include "vhost.h"

/* Which command line it has. */
enum virtiofsd_kind { VIRTIOFSD_C, VIRTIOFSD_RUST };

struct share {
	const struct share_config *conf; /* borrowed */
	int dir;                         /* O_PATH: looked up once; owned */
	const char *program;             /* static */
	enum virtiofsd_kind kind;
	/* It has no channel; its log lines and its death are the supervisor's. */
	struct child virtiofsd;
	struct vhost_back back; /* with the tag by which the guest mounts it: "insula0" */
};

/* Look the nth live share up: the directory and the program. Nothing is started. -ENOTDIR, -ENOENT
 * ...: the text names the setting, or the package that is missing. On error nothing is left. */
int share_open(struct share *s, const struct share_config *conf, unsigned nth, struct err *e);
/* Ends virtiofsd. */
void share_close(struct share *s);

/* ---- virtiofsd.c ---- */

/* Look for the program; *kind is which. NULL: none of the known places has it. */
const char *virtiofsd_find(enum virtiofsd_kind *kind);
/* Start it on `listener`, which stays the caller's. */
int virtiofsd_spawn(struct share *s, int listener, struct err *e);

#endif
