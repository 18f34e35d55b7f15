/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The command line: one table of flags, in flags.c, with the commands that take each. It makes the
 * parser and --help. Flags are as runc's callers write them: --flag VALUE, --flag=VALUE, -f VALUE, a
 * switch also --flag=true. In `exec` what follows the ID is the command's.
 */
#ifndef OCI_FLAGS_H
#define OCI_FLAGS_H

#include <stdbool.h>
#include <stddef.h>

#include <insula/err.h>

enum command {
	CMD_NONE,
	CMD_CREATE,
	CMD_START,
	CMD_STATE,
	CMD_KILL,
	CMD_DELETE,
	CMD_EXEC,
	CMD_PS,
	CMD_PAUSE,
	CMD_RESUME,
	CMD_UPDATE,
	CMD_FEATURES,
	CMD_LIST,
	CMD_SPEC,
	CMD_RUN,
	CMD_EVENTS,
	CMD_TEMPLATE,
	CMD_CHECK,
	COMMANDS
};

#define FLAG_REPEATS 256
struct flag_list {
	const char *at[FLAG_REPEATS];
	unsigned n;
};

/* Texts are borrowed from argv; NULL: not given. */
struct flags {
	/* global */
	const char *root, *log, *log_format, *cgroup_manager, *rootless, *config;
	bool debug, systemd_cgroup, version, help;
	/* of commands */
	const char *bundle, *console_socket, *pid_file, *preserve_fds, *process, *cwd, *user,
		*format, *resources, *interval, *process_label, *apparmor;
	const char *memory, *memory_swap, *memory_reservation, *cpu_quota, *cpu_period, *cpu_share,
		*cpuset_cpus, *cpuset_mems, *pids_limit, *blkio_weight, *cpus, *cards;
	struct flag_list env, caps, gids;
	bool no_pivot, no_new_keyring, no_subreaper, force, all, detach, tty, no_new_privs, quiet,
		stats, keep, ignore_paused;
	bool config_named; /* main.c: `config` is not the default */
	/* what is left */
	enum command command;
	const char *name;  /* the command's */
	char *const *args; /* behind the ID; NULL-terminated */
	unsigned nargs;
	const char *id; /* NULL: the command takes none */
};

/* -EINVAL: the line says what was expected. */
int flags_parse(struct flags *f, int argc, char **argv, struct err *e);
/* To standard output. */
void flags_help(const struct flags *f);

#endif
