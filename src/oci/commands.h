/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The commands: each returns what the program exits with, or a negative errno with a line in `e`
 * (which becomes status 1). And what several of them do.
 */
#ifndef OCI_COMMANDS_H
#define OCI_COMMANDS_H

#include "flags.h"
#include "oci.h"
#include "state.h"

int create_command(const struct flags *f, struct err *e);
int run_command(const struct flags *f, struct err *e);
int start_command(const struct flags *f, struct err *e);
int state_command(const struct flags *f, struct err *e);
int kill_command(const struct flags *f, struct err *e);
int delete_command(const struct flags *f, struct err *e);
int exec_command(const struct flags *f, struct err *e);
int ps_command(const struct flags *f, struct err *e);
int pause_command(const struct flags *f, struct err *e);
int resume_command(const struct flags *f, struct err *e);
int update_command(const struct flags *f, struct err *e);
int features_command(const struct flags *f, struct err *e);
int list_command(const struct flags *f, struct err *e);
int spec_command(const struct flags *f, struct err *e);
int events_command(const struct flags *f, struct err *e);
int template_command(const struct flags *f, struct err *e);
int check_command(const struct flags *f, struct err *e);

/* ---- create.c ---- */

/* A new file with a number, replaced as a whole. */
int write_pid_file(const char *path, pid_t pid, struct err *e);
/* --preserve-fds: what cannot be done is refused. */
int check_preserve_fds(const struct flags *f, struct err *e);
/* Of the state directory's filter: into a file of the share. */
int copy_filter(const struct container *c, int share, const char *name, struct err *e);

/* ---- delete.c ---- */

/* Take away all that the container has: its process, its VM, network, group, share, files. What
 * cannot be is said in the log and the rest goes on; the first error is returned. Closes `c` if its
 * directory is gone. */
int destroy(struct container *c, const char *root, struct err *e);

/* ---- kill.c ---- */

/* "9", "KILL", "SIGKILL", "RTMIN+1"; a negative errno. */
int signal_number(const char *text, struct err *e);

/* CT_PROGRAM VERB ID ARGS in the container's VM, within `ms`: its status, or a negative errno. */
int ask_guest(const struct container *c, const char *root, const char *verb, const char *arg1,
	      const char *arg2, int ms, char **out, struct err *e);
/* What ask_guest() has returned, for a caller: a status becomes -EIO, and the guest's words follow
 * those of `what`. */
int guest_says(int rc, const char *what, struct err *e);

#endif
