/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * insula-container: makes containers inside the guest. include/insula/container.h is the contract:
 * the host has translated the OCI configuration into records; this program knows system calls.
 *
 * `run` is a tree of four processes:
 *
 *     run              started by insula-init for the host, with the container's streams. Makes
 *      │               the control group, writes maps of ids, waits, passes signals on, ends as
 *      │               the process does
 *      ├─ stage        enters the namespaces of other containers, makes new ones, and ends. Only
 *      │               its child is in a new pid namespace; with CLONE_PARENT that is run's child
 *      ├─ process      waits until it is in its group; then cgroup namespace, names, sysctls,
 *      │               root, hooks, limits, identity, filter, exec
 *      └─ watcher      in a session of its own; waits for the end of run and kills what it left
 *
 * They talk through one pair of sockets. Its last end on the other side closes with exec: then, if
 * the process has said that it was ready, it runs, and run writes "started PID". Anything else is a
 * failure: one line with step, object and reason in the status file, and status 125, 126 or 127.
 * `exec` is the same with a stage that enters all namespaces of the container's first process.
 *
 * What must hold at each moment: nothing of an image is executed or interpreted before the process
 * is in its group, its namespaces and its root (path.c resolves names in it). From the first
 * program of the container on (a hook), nothing of this program reads a file of its root but the
 * list of users. A process that is being set up is not dumpable, so a neighbour in a shared pid
 * namespace cannot look into it, and it runs from a sealed copy of the program (self.c), so that
 * nobody can write to that through /proc/PID/exe. If run is killed at any time, the process dies with it, and the
 * watcher kills the group.
 *
 * The other commands find the container by its group (cgroup.c) and by the pid and time of birth of
 * its first process (status.c).
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "container.h"

static const struct command {
	const char *name, *usage;
	int args, more; /* at least, and how many beyond that */
	bool inside;    /* a process of it gets into a container */
	int (*run)(char **argv);
} commands[] = {
	{"sandbox", "", 0, 0, false, command_sandbox},
	{"run", "ID", 1, 0, true, command_run},
	{"exec", "ID NAME", 2, 0, true, command_exec},
	{"kill", "ID SIGNAL [all]", 2, 1, false, command_kill},
	{"pause", "ID", 1, 0, false, command_pause},
	{"resume", "ID", 1, 0, false, command_resume},
	{"ps", "ID", 1, 0, false, command_ps},
	{"stats", "ID", 1, 0, false, command_stats},
	{"update", "ID NAME", 2, 0, false, command_update},
	{"delete", "ID", 1, 0, false, command_delete},
	{"connect", "PORT", 1, 0, false, command_connect},
	{"names", "ADDRESS", 1, 0, false, command_names},
};

int complain(const struct err *e)
{
	dprintf(STDERR_FILENO, NAME ": %s\n", e->text);
	return EXIT_FAILED;
}

static int run_command(const struct command *c, char **argv)
{
	struct err e;

	if (c->inside && self_seal(argv, &e))
		return complain(&e);
	return c->run(argv + 2);
}

int main(int argc, char **argv)
{
	signal(SIGPIPE, SIG_IGN);
	for (size_t i = 0; i < COUNT(commands) && argc > 1; i++) {
		const struct command *c = &commands[i];

		if (strcmp(c->name, argv[1]) != 0)
			continue;
		if (argc - 2 >= c->args && argc - 2 <= c->args + c->more)
			return run_command(c, argv);
		dprintf(STDERR_FILENO, NAME ": usage: %s %s\n", c->name, c->usage);
		return EXIT_FAILED;
	}
	dprintf(STDERR_FILENO, NAME ": unknown command \"%.60s\"\n", argc > 1 ? argv[1] : "");
	return EXIT_FAILED;
}
