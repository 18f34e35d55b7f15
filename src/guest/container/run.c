/* SPDX-License-Identifier: BSD-2-Clause */
/* insula-container: the commands `run` and `exec`: their files, then launch.c. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "container.h"

/* From here on a signal waits until there is a process to pass it on to. */
static void hold_signals(void)
{
	sigset_t all;

	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
	signal(SIGPIPE, SIG_DFL); /* the process's */
}

/* Something that comes before launch(), which tells it otherwise. */
static int not_started(const char *id, const char *status_file, const struct err *why)
{
	char line[CT_STATUS_MAX];
	struct err e;

	snprintf(line, sizeof line, "failed %d %s", EXIT_FAILED, why->text);
	if (status_write(id, status_file, line, &e)) {
		complain(why);
		complain(&e);
	}
	return EXIT_FAILED;
}

static int read_container(const char *id, struct buffer *b, struct config *c, struct buffer *filter,
			  struct err *e)
{
	char path[CT_PATH_MAX];
	int r = share_path(path, id, "config", e);

	if (!r)
		r = records_read(CONFIG_CONTAINER, path, b, c, e);
	if (!r && strcmp(c->container.id, id) != 0)
		r = err_set(e, -EINVAL, "%s: id=%s: expected %s", path, c->container.id, id);
	if (!r)
		r = seccomp_read(id, &c->container.process, filter, e);
	return r;
}

int command_run(char **argv)
{
	struct launch l = {.id = argv[0], .status_file = "status"};
	struct buffer b;
	struct config c;
	struct err e;
	int status;

	hold_signals();
	if (read_container(l.id, &b, &c, &l.filter, &e))
		return not_started(l.id, l.status_file, &e);
	mkdir("/run/insula", 0755);
	mkdir(CT_ROOT, 0755); /* each container mounts its own above it */
	if (functions_find("/sys", &c.container, &e) || cgroup_make(&c.container, &e))
		return not_started(l.id, l.status_file, &e);
	l.container = &c.container;
	l.process = &c.container.process;
	status = launch(&l);
	if (!l.started) /* nobody deletes what has never been */
		cgroup_remove(l.id, NULL);
	return status;
}

/* exec-N of the host; what it is called is its own choice, but it is none of the other files. */
static int read_process(const char *id, const char *name, struct buffer *b, struct config *c,
			struct buffer *filter, struct err *e)
{
	char path[CT_PATH_MAX];
	int r = share_path(path, id, name, e);

	if (!r)
		r = records_read(CONFIG_PROCESS, path, b, c, e);
	return r ? r : seccomp_read(id, &c->container.process, filter, e);
}

int command_exec(char **argv)
{
	struct launch l = {.id = argv[0]};
	char status_file[CT_ID_MAX + 16];
	struct buffer b;
	struct config c;
	struct err e;

	hold_signals();
	snprintf(status_file, sizeof status_file, "%.*s.status", (int)CT_ID_MAX, argv[1]);
	l.status_file = status_file;
	if (read_process(l.id, argv[1], &b, &c, &l.filter, &e) ||
	    state_open(l.id, &l.joined, &l.first, &e))
		return not_started(l.id, l.status_file, &e);
	l.process = &c.container.process;
	return launch(&l);
}
