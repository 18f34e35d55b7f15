/* SPDX-License-Identifier: BSD-2-Clause */
/* Control groups, v2. See cgroup.h and the kernel's admin-guide/cgroup-v2. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include <linux/magic.h>

#include <insula/base.h>

#include "cgroup.h"

#define MOUNT "/sys/fs/cgroup"
#define PERIOD_US 100000u
#define STAT_TEXT 8192 /* memory.stat has some 2 KiB */

static int cgroup_put(int dir, const char *file, const char *text)
{
	int fd = openat(dir, file, O_WRONLY | O_CLOEXEC), rc;

	if (fd < 0)
		return -errno;
	rc = write(fd, text, strlen(text)) == (ssize_t)strlen(text) ? 0 : -errno;
	close(fd);
	return rc;
}

static ssize_t get(int dir, const char *file, char *out, size_t size)
{
	int fd = openat(dir, file, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return -errno;
	n = read(fd, out, size - 1);
	close(fd);
	if (n >= 0)
		out[n] = 0;
	return n;
}

/* The line of version 2 in /proc/self/cgroup: "0::/path". */
static int own_path(char *out, size_t size, struct err *e)
{
	char line[CGROUP_PATH_MAX];
	FILE *f = fopen("/proc/self/cgroup", "re");
	bool found = false;

	if (!f)
		return err_sys(e, -errno, "/proc/self/cgroup");
	while (!found && fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = 0;
		found = !strncmp(line, "0::/", 4);
	}
	fclose(f);
	if (!found)
		return err_set(e, -ENOENT, "no control groups of version 2");
	if (strlen(line + 3) >= size)
		return err_set(e, -ENAMETOOLONG, "the path of the control group is too long");
	strcpy(out, line + 3);
	return 0;
}

/* The daemon's own group. With processes in it, it cannot have limits for its children: so the
 * daemon moves into a leaf. */
static int own_place(struct cgroups *g, struct err *e)
{
	char own[CGROUP_PATH_MAX - 64] = "", leaf[CGROUP_PATH_MAX], pid[16];
	int rc = own_path(own, sizeof(own), e), dir;

	if (rc)
		return rc;
	/* Restarted inside the leaf that an earlier daemon made. */
	if (strlen(own) > 7 && !strcmp(own + strlen(own) - 7, "/daemon"))
		own[strlen(own) - 7] = 0;
	if (!own[0] || !strcmp(own, "/"))
		return err_set(e, -EBUSY, MOUNT ": the group of all processes");
	snprintf(g->path, sizeof(g->path), MOUNT "%s", own);
	snprintf(leaf, sizeof(leaf), MOUNT "%s/daemon", own);
	if (mkdir(leaf, 0755) && errno != EEXIST)
		return err_sys(e, -errno, "%s", leaf);
	dir = open(leaf, O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return err_sys(e, -errno, "%s", leaf);
	snprintf(pid, sizeof(pid), "%d", (int)getpid());
	rc = cgroup_put(dir, "cgroup.procs", pid);
	close(dir);
	return rc ? err_sys(e, rc, "%s/cgroup.procs", leaf) : 0;
}

static int enable(struct cgroups *g, struct err *e)
{
	static const char *const wanted[] = {"memory", "cpu", "pids", "io"};
	char have[256], word[16];
	ssize_t n = get(g->dir, "cgroup.controllers", have, sizeof(have));
	int rc = 0;

	if (n < 0)
		return err_sys(e, (int)n, "%s/cgroup.controllers", g->path);
	for (size_t i = 0; i < ARRAY_LEN(wanted) && !rc; i++) {
		/* Without the first three there is nothing to promise; io is a bonus. */
		snprintf(word, sizeof(word), "+%s", wanted[i]);
		if (strstr(have, wanted[i]))
			rc = cgroup_put(g->dir, "cgroup.subtree_control", word);
		else if (i < 3)
			return err_set(e, -ENOENT, "%s: no %s controller", g->path, wanted[i]);
	}
	return rc ? err_sys(e, rc, "%s/cgroup.subtree_control", g->path) : 0;
}

/* Make it, if it is not there, and have limits below it. */
static int open_path(struct cgroups *g, struct err *e)
{
	bool made = !mkdir(g->path, 0755);
	int rc;

	if (!made && errno != EEXIST)
		return err_sys(e, -errno, "%s", g->path);
	g->dir = open(g->path, O_DIRECTORY | O_CLOEXEC);
	rc = g->dir < 0 ? err_sys(e, -errno, "%s", g->path) : enable(g, e);
	if (rc) {
		fd_close(&g->dir);
		if (made)
			rmdir(g->path);
	}
	return rc;
}

/* One below the root, as long as it is ours to make: not below the daemon's own group, where a
 * service manager could not start the next daemon while VMs run, for it puts that into a group that
 * has limits for its children. */
static int top_place(struct cgroups *g, struct err *e)
{
	int up = open(MOUNT, O_DIRECTORY | O_CLOEXEC);

	if (up < 0 || faccessat(up, "cgroup.subtree_control", W_OK, AT_EACCESS)) {
		fd_close(&up);
		return err_set(e, -EACCES, MOUNT ": may not be changed");
	}
	(void)cgroup_put(up, "cgroup.subtree_control", "+memory +cpu +pids");
	(void)cgroup_put(up, "cgroup.subtree_control", "+io");
	fd_close(&up);
	strcpy(g->path, MOUNT "/insula");
	return open_path(g, e);
}

static int open_place(struct cgroups *g, const char *how, struct err *e)
{
	struct statfs fs;
	int rc;

	if (how[0] == '/') {
		snprintf(g->path, sizeof(g->path), "%s", how);
		return open_path(g, e);
	}
	if (statfs(MOUNT, &fs) || fs.f_type != CGROUP2_SUPER_MAGIC)
		return err_set(e, -ENOENT, MOUNT " is not cgroup2");
	if (!top_place(g, e))
		return 0;
	rc = own_place(g, e);
	return rc ? rc : open_path(g, e);
}

void cgroups_open(struct cgroups *g, const char *how, struct err *e)
{
	*g = (struct cgroups){.dir = -1};
	if (!strcmp(how, "off")) {
		err_set(e, -ENOENT, "switched off by the configuration");
		return;
	}
	if (open_place(g, how, e)) {
		cgroups_close(g);
		return;
	}
	g->on = true;
}

void cgroups_close(struct cgroups *g)
{
	fd_close(&g->dir);
	g->on = false;
}

static int set_cpu(int dir, unsigned percent)
{
	char text[64];

	snprintf(text, sizeof(text), "%u %u", percent * (PERIOD_US / 100), PERIOD_US);
	return cgroup_put(dir, "cpu.max", text);
}

static int set_limits(int dir, const struct cgroup_limits *l, struct err *e)
{
	char text[64];
	int rc;

	snprintf(text, sizeof(text), "%llu", (unsigned long long)l->memory);
	rc = cgroup_put(dir, "memory.max", text);
	if (!rc)
		(void)cgroup_put(dir, "memory.swap.max", "0");
	/* One killed process would leave half a VM: all or none. */
	if (!rc)
		rc = cgroup_put(dir, "memory.oom.group", "1");
	if (!rc)
		rc = set_cpu(dir, l->cpu_percent);
	snprintf(text, sizeof(text), "%u", l->pids);
	if (!rc)
		rc = cgroup_put(dir, "pids.max", text);
	if (!rc && l->io_max[0])
		rc = cgroup_put(dir, "io.max", l->io_max);
	return rc ? err_sys(e, rc, "limits of the control group") : 0;
}

int cgroup_make(const struct cgroups *g, const char *name, const struct cgroup_limits *l,
		struct err *e)
{
	int dir, rc, procs = -1;

	if (mkdirat(g->dir, name, 0755))
		return err_sys(e, -errno, "%s/%s", g->path, name);
	dir = openat(g->dir, name, O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return err_sys(e, -errno, "%s/%s", g->path, name);
	rc = set_limits(dir, l, e);
	if (!rc) {
		procs = openat(dir, "cgroup.procs", O_WRONLY | O_CLOEXEC);
		rc = procs < 0 ? err_sys(e, -errno, "%s/%s/cgroup.procs", g->path, name) : procs;
	}
	close(dir);
	if (rc < 0)
		unlinkat(g->dir, name, AT_REMOVEDIR);
	return rc;
}

int cgroup_cpu(const struct cgroups *g, const char *name, unsigned percent)
{
	int dir = openat(g->dir, name, O_DIRECTORY | O_CLOEXEC), rc;

	if (dir < 0)
		return -errno;
	rc = set_cpu(dir, percent);
	close(dir);
	return rc;
}

int cgroup_set_memory(const struct cgroups *g, const char *name, uint64_t memory, struct err *e)
{
	char file[96], text[32];
	int rc;

	snprintf(file, sizeof(file), "%s/memory.max", name);
	snprintf(text, sizeof(text), "%llu", (unsigned long long)memory);
	rc = cgroup_put(g->dir, file, text);
	return rc ? err_sys(e, rc, "%s/%s", g->path, file) : 0;
}

void cgroup_kill(const struct cgroups *g, const char *name)
{
	int dir = openat(g->dir, name, O_DIRECTORY | O_CLOEXEC);

	if (dir < 0)
		return;
	(void)cgroup_put(dir, "cgroup.kill", "1");
	close(dir);
}

bool cgroup_remove(const struct cgroups *g, const char *name)
{
	return !unlinkat(g->dir, name, AT_REMOVEDIR) || errno != EBUSY;
}

uint64_t cgroup_number(const char *text, const char *key)
{
	const char *line = text;
	size_t n = strlen(key);

	/* NOLINTNEXTLINE(clang-analyzer-core.UndefinedBinaryOperatorResult) */
	while (line && (strncmp(line, key, n) != 0 || line[n] != ' ')) {
		line = strchr(line, '\n');
		line = line ? line + 1 : NULL;
	}
	return line ? strtoull(line + n, NULL, 10) : 0;
}

uint64_t cgroup_oom_kills(const char *events)
{
	return cgroup_number(events, "oom_kill");
}

bool cgroup_had_oom(const struct cgroups *g, const char *name)
{
	char file[64], text[512];

	snprintf(file, sizeof(file), "%s/memory.events", name);
	return get(g->dir, file, text, sizeof(text)) > 0 && cgroup_oom_kills(text) > 0;
}

/* A file of the group `name`, as text. */
static bool get_of(const struct cgroups *g, const char *name, const char *file, char *text,
		   size_t size)
{
	char path[96];

	snprintf(path, sizeof(path), "%s/%s", name, file);
	return get(g->dir, path, text, size) > 0;
}

bool cgroup_usage(const struct cgroups *g, const char *name, struct cgroup_usage *u)
{
	char text[STAT_TEXT];
	uint64_t drop;

	*u = (struct cgroup_usage){0};
	if (!g->on || !get_of(g, name, "cpu.stat", text, sizeof(text)))
		return false;
	u->cpu_ns = cgroup_number(text, "usage_usec") * 1000;
	if (!get_of(g, name, "memory.stat", text, sizeof(text)))
		return false;
	drop = cgroup_number(text, "inactive_file");
	if (!get_of(g, name, "memory.current", text, sizeof(text)))
		return false;
	u->mem = strtoull(text, NULL, 10);
	u->mem -= drop < u->mem ? drop : u->mem;
	if (get_of(g, name, "memory.max", text, sizeof(text)))
		u->mem_max = strtoull(text, NULL, 10); /* "max": 0 */
	if (get_of(g, name, "pids.current", text, sizeof(text)))
		u->pids = strtoull(text, NULL, 10);
	return true;
}
