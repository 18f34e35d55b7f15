/* SPDX-License-Identifier: BSD-2-Clause */
/* insula-container: the commands about a container that is there: kill, pause, resume, ps, stats,
 * update, delete. They need nothing of the container's own. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "container.h"

static int kill_first(const char *id, int signo, struct err *e)
{
	int pidfd, r;
	pid_t pid;

	r = state_open(id, &pidfd, &pid, e);
	if (r)
		return r;
	if (syscall(SYS_pidfd_send_signal, pidfd, signo, NULL, 0u) < 0)
		r = errno == ESRCH ? err_set(e, -ESRCH, "container %s is not running", id)
				   : err_sys(e, -errno, "signal %d to %s", signo, id);
	close(pidfd);
	return r;
}

static int kill_one(void *ctx, pid_t pid)
{
	return kill(pid, *(int *)ctx) < 0 && errno != ESRCH ? -errno : 0;
}

static int kill_group(const char *id, int signo, struct err *e)
{
	int r = cgroup_exists(id, e);

	if (r)
		return r;
	if (signo == SIGKILL)
		return cgroup_write(id, "cgroup.kill", "1", e);
	return cgroup_each(id, kill_one, &signo, e);
}

int command_kill(char **argv)
{
	const char *id = argv[0];
	struct err e;
	uint64_t signo;
	int r;

	if (num_u64(argv[1], 10, 64, &signo) || signo == 0)
		r = err_set(&e, -EINVAL, "signal \"%.20s\": expected 1 to 64", argv[1]);
	else if (argv[2] && strcmp(argv[2], "all") != 0)
		r = err_set(&e, -EINVAL, "\"%.20s\": expected all", argv[2]);
	else if (argv[2])
		r = kill_group(id, (int)signo, &e);
	else
		r = kill_first(id, (int)signo, &e);
	return r ? complain(&e) : 0;
}

static int freeze(const char *id, bool on)
{
	struct err e;
	int r = cgroup_exists(id, &e);

	if (!r)
		r = cgroup_freeze(id, on, &e);
	return r ? complain(&e) : 0;
}

int command_pause(char **argv)
{
	return freeze(argv[0], true);
}

int command_resume(char **argv)
{
	return freeze(argv[0], false);
}

static int print_pid(void *ctx, pid_t pid)
{
	bool *first = ctx;

	printf("%s%d", *first ? "" : ", ", pid);
	*first = false;
	return 0;
}

/* Nothing half written is taken for the whole. */
static int flush(struct err *e)
{
	return fflush(stdout) ? err_sys(e, -errno, "standard output") : 0;
}

int command_ps(char **argv)
{
	bool first = true;
	struct err e;
	int r = cgroup_exists(argv[0], &e);

	if (!r) {
		printf("{\"pids\": [");
		r = cgroup_each(argv[0], print_pid, &first, &e);
	}
	if (!r) {
		printf("]}\n");
		r = flush(&e);
	}
	return r ? complain(&e) : 0;
}

static const struct number {
	const char *name, *file, *key;
} numbers[] = {
	{"memory", "memory.current", NULL},
	{"memory_max", "memory.max", NULL},
	{"memory_swap", "memory.swap.current", NULL},
	{"memory_inactive_file", "memory.stat", "inactive_file"},
	{"cpu_usec", "cpu.stat", "usage_usec"},
	{"cpu_user_usec", "cpu.stat", "user_usec"},
	{"cpu_system_usec", "cpu.stat", "system_usec"},
	{"cpu_periods", "cpu.stat", "nr_periods"},
	{"cpu_throttled", "cpu.stat", "nr_throttled"},
	{"cpu_throttled_usec", "cpu.stat", "throttled_usec"},
	{"pids", "pids.current", NULL},
	{"pids_max", "pids.max", NULL},
	{"oom", "memory.events", "oom"},
	{"oom_kill", "memory.events", "oom_kill"},
};

int command_stats(char **argv)
{
	struct err e;
	int r = cgroup_exists(argv[0], &e);

	if (r)
		return complain(&e);
	for (size_t i = 0; i < COUNT(numbers); i++) {
		const struct number *n = &numbers[i];

		printf("%s\"%s\": %lld", i ? ", " : "{", n->name,
		       (long long)cgroup_number(argv[0], n->file, n->key));
	}
	printf("}\n");
	return flush(&e) ? complain(&e) : 0;
}

int command_update(char **argv)
{
	char path[CT_PATH_MAX];
	struct buffer b;
	struct config c;
	struct err e;
	int r = cgroup_exists(argv[0], &e);

	if (!r)
		r = share_path(path, argv[0], argv[1], &e);
	if (!r) {
		r = records_read(CONFIG_UPDATE, path, &b, &c, &e);
		if (!r)
			r = cgroup_apply(argv[0], c.container.cgroup.v, &e);
		records_free(&c);
		free(b.data);
	}
	return r ? complain(&e) : 0;
}

int command_delete(char **argv)
{
	const char *id = argv[0];
	struct err e;
	int r = cgroup_exists(id, &e);

	if (r == -ENOENT) /* it has never begun, or this is the second time */
		return 0;
	if (!r)
		r = cgroup_kill(id, &e);
	if (!r)
		r = cgroup_remove(id, &e);
	if (!r)
		state_remove(id);
	return r ? complain(&e) : 0;
}
