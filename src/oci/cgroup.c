/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Control groups of the host. See cgroup.h, cgline.h (what is written into them) and the kernel's
 * admin-guide/cgroup-v2.
 *
 * Two drivers. By default the directory is made here, below the mount, with the controllers of its
 * limits switched on on the way down. With --systemd-cgroup systemd makes it: it is asked over its
 * bus, by busctl, for a transient scope with our process in it, and the limits are written
 * afterwards by ourselves, for the scope is delegated. systemd removes a scope that is empty.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <time.h>
#include <unistd.h>

#include <linux/magic.h>

#include <insula/base.h>
#include <insula/log.h>

#include "cgline.h"
#include "cgsystemd.h"
#include "oci/cgroup.h"
#include "spec/json.h"

#define MOUNT "/sys/fs/cgroup"
#define FILE_MAX 8192u
#define GONE_MS 10000u /* until all of a group is dead */
#define FREEZE_MS 2000u
#define STEP_MS 5u
#define DEPTH_MAX 16u /* of groups below one */

static int group_write(int dir, const char *file, const char *text)
{
	int fd = openat(dir, file, O_WRONLY | O_CLOEXEC | O_NOFOLLOW), rc;

	if (fd < 0)
		return -errno;
	rc = write(fd, text, strlen(text)) == (ssize_t)strlen(text) ? 0 : -errno;
	close(fd);
	return rc;
}

ssize_t cgroup_text(int dir, const char *file, char *out, size_t size)
{
	int fd = openat(dir, file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	ssize_t n;

	if (fd < 0)
		return -errno;
	n = read(fd, out, size - 1);
	if (n < 0)
		n = -errno;
	close(fd);
	if (n >= 0)
		out[n] = 0;
	return n;
}

static void sleep_ms(unsigned ms)
{
	struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};

	nanosleep(&t, NULL);
}

static bool no_group(const struct cgroup *g)
{
	return !g->path[0];
}

static int group_open(const struct cgroup *g, struct err *e)
{
	int dir = open(g->path, O_DIRECTORY | O_CLOEXEC);

	return dir < 0 ? err_sys(e, -errno, "control group %.160s", g->path) : dir;
}

/* Somebody has removed it. */
static bool is_gone(ssize_t rc)
{
	return rc == -ENOENT || rc == -ENODEV;
}

/* A group that is gone has nobody in it, and is not frozen. */
static bool event_is(int dir, const char *key, bool on)
{
	char text[256], want[32];
	ssize_t n = cgroup_text(dir, "cgroup.events", text, sizeof(text));

	if (n < 0)
		return !on && is_gone(n);
	snprintf(want, sizeof(want), "%s %d\n", key, on);
	return strstr(text, want) != NULL;
}

/* ---- names ---- */

static int check_host(struct err *e)
{
	struct statfs fs;

	if (statfs(MOUNT, &fs))
		return err_sys(e, -errno, MOUNT);
	if (fs.f_type == CGROUP2_SUPER_MAGIC)
		return 0;
	return err_set(e, -ENOTSUP,
		       MOUNT ": %s; expected control groups of version 2 alone "
			     "(systemd.unified_cgroup_hierarchy=1 on the kernel's command line)",
		       fs.f_type == TMPFS_MAGIC ? "version 1, or both versions" : "no cgroup2");
}

/* No part of it leads upward, and the last one is a name. */
static bool is_group_path(const char *path)
{
	const char *p = path;

	if (strlen(path) >= PATH_MAX - 64 || !strcmp(path, "/"))
		return false;
	while (*p) {
		size_t n = strcspn(p, "/");

		if ((n == 1 && p[0] == '.') || (n == 2 && p[0] == '.' && p[1] == '.'))
			return false;
		p += n + (p[n] == '/');
	}
	return true;
}

static int group_by_path(struct cgroup *g, const char *path, const char *id, struct err *e)
{
	char standard[CT_ID_MAX + 16];

	snprintf(standard, sizeof(standard), "/insula-oci/%s", id);
	path = path && path[0] ? path : standard;
	if (!is_group_path(path))
		return err_set(e, -EINVAL,
			       "linux.cgroupsPath: %.100s; expected a path without . and ..", path);
	/* Relative: config-linux.md leaves to the runtime what to; below the mount, as runc does. */
	snprintf(g->path, sizeof(g->path), MOUNT "%s%s", path[0] == '/' ? "" : "/", path);
	return 0;
}

int cgroup_name(struct cgroup *g, const char *cgroups_path, bool systemd, const char *id,
		struct err *e)
{
	int rc = check_host(e);

	*g = (struct cgroup){0};
	if (rc)
		return rc;
	if (systemd)
		return cgsystemd_name(cgroups_path, id, g->unit, sizeof(g->unit), g->path,
				      sizeof(g->path), e);
	return group_by_path(g, cgroups_path, id, e);
}

/* ---- making ---- */

/* As far as the kernel will: what a limit needs and is not there is told when it is written. */
static void enable_all(int dir)
{
	static const char *const wanted[] = {"cpuset", "cpu", "io", "memory", "hugetlb", "pids"};
	char have[512], word[16];

	if (cgroup_text(dir, "cgroup.controllers", have, sizeof(have)) < 0)
		return;
	for (size_t i = 0; i < ARRAY_LEN(wanted); i++) {
		snprintf(word, sizeof(word), "+%s", wanted[i]);
		if (strstr(have, wanted[i]))
			(void)group_write(dir, "cgroup.subtree_control", word);
	}
}

/* One level down; *made: it was not there. */
static int descend(int dir, const char *name, bool *made)
{
	int next;

	enable_all(dir);
	*made = !mkdirat(dir, name, 0755);
	if (!*made && errno != EEXIST)
		return -errno;
	next = openat(dir, name, O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return next < 0 ? -errno : next;
}

static int populated(const struct cgroup *g, struct err *e)
{
	return err_set(e, -EBUSY,
		       "linux.cgroupsPath: control group %.160s: there are processes in it; "
		       "expected a new or an empty one",
		       g->path);
}

int container_group_check(const struct cgroup *g, struct err *e)
{
	int dir = no_group(g) ? -1 : open(g->path, O_DIRECTORY | O_CLOEXEC);
	bool full = dir >= 0 && event_is(dir, "populated", true);

	fd_close(&dir);
	return full ? populated(g, e) : 0;
}

static int make_path(struct cgroup *g, struct err *e)
{
	char path[PATH_MAX], *part, *rest = path;
	int dir = open(MOUNT, O_DIRECTORY | O_CLOEXEC), next;
	bool made = false;

	if (dir < 0)
		return err_sys(e, -errno, MOUNT);
	snprintf(path, sizeof(path), "%s", g->path + strlen(MOUNT));
	while ((part = strsep(&rest, "/"))) {
		if (!part[0])
			continue;
		next = descend(dir, part, &made);
		close(dir);
		if (next < 0)
			return err_sys(e, next, "control group %.160s", g->path);
		dir = next;
	}
	/* An engine makes it before us now and then: then it is ours none the less, if it is empty. */
	if (!made && event_is(dir, "populated", true)) {
		close(dir);
		return populated(g, e);
	}
	g->made = true;
	return dir;
}

static int write_lines(const struct cgroup *g, int dir, const struct cglines *l, struct err *e)
{
	for (unsigned i = 0; i < l->n; i++) {
		int rc = group_write(dir, l->line[i].file, l->line[i].value);

		/* io.weight needs a scheduler of the disk that obeys it; it is a wish. */
		if (rc == -ENOENT && !strcmp(l->line[i].file, "io.weight")) {
			log_warn("%s: no io.weight on this host", g->path);
			continue;
		}
		if (rc)
			return err_sys(e, rc, "control group %.100s: %s: %.40s", g->path,
				       l->line[i].file, l->line[i].value);
	}
	return 0;
}

/* Of a container that joins a VM the group holds one waiting process: its limits are the
 * guest's. */
static int apply_limits(const struct cgroup *g, int dir, json_object *resources, uint64_t overhead,
			struct err *e)
{
	struct cglines *l = malloc(sizeof(*l));
	int rc;

	if (!l)
		return err_set(e, -ENOMEM, "out of memory");
	rc = cgline_make(resources, CGLINE_HOST, l, e);
	if (!rc && overhead) {
		cgline_vm(l, overhead);
		if (g->unit[0])
			rc = cgsystemd_limit(g->unit, l, e);
		if (!rc)
			rc = write_lines(g, dir, l, e);
	}
	free(l);
	return rc;
}

int container_group_enter(const struct cgroup *g, pid_t pid, struct err *e)
{
	char text[16];
	int dir, rc;

	if (no_group(g))
		return 0;
	dir = group_open(g, e);
	if (dir < 0)
		return dir;
	snprintf(text, sizeof(text), "%d", (int)pid);
	rc = group_write(dir, "cgroup.procs", text);
	close(dir);
	if (rc == -EBUSY)
		return err_set(e, rc,
			       "control group %.120s: it has limits for groups below it and may "
			       "hold no process; expected another linux.cgroupsPath",
			       g->path);
	return rc ? err_sys(e, rc, "control group %.160s: process %d", g->path, (int)pid) : 0;
}

int container_group_make(struct cgroup *g, pid_t pid, json_object *resources, uint64_t overhead,
			 struct err *e)
{
	struct err later;
	int dir, rc;

	g->made = false;
	if (no_group(g))
		return 0;
	if (g->unit[0]) {
		rc = cgsystemd_start(g->unit, pid, g->path, sizeof(g->path), e);
		if (rc)
			return rc;
		g->made = true;
		dir = group_open(g, e);
	} else {
		dir = make_path(g, e);
	}
	if (dir < 0)
		return dir;
	rc = apply_limits(g, dir, resources, overhead, e);
	close(dir);
	if (!rc && !g->unit[0])
		rc = container_group_enter(g, pid, e);
	/* Not by killing: the process in it is the caller's. */
	if (rc && !g->unit[0])
		rmdir(g->path);
	else if (rc)
		(void)cgsystemd_stop(g->unit, &later);
	return rc;
}

int cgroup_update(const struct cgroup *g, json_object *resources, uint64_t overhead, struct err *e)
{
	int dir, rc;

	if (no_group(g))
		return 0;
	dir = group_open(g, e);
	if (dir < 0)
		return dir;
	rc = apply_limits(g, dir, resources, overhead, e);
	close(dir);
	return rc;
}

/* ---- freezing ---- */

static bool event_becomes(int dir, const char *key, bool on, unsigned ms)
{
	for (unsigned t = 0; t < ms; t += STEP_MS) {
		if (event_is(dir, key, on))
			return true;
		sleep_ms(STEP_MS);
	}
	return event_is(dir, key, on);
}

int container_group_freeze(const struct cgroup *g, bool freeze, struct err *e)
{
	int dir, rc;

	if (no_group(g))
		return err_set(e, -ENOENT, "the container has no control group");
	dir = group_open(g, e);
	if (dir < 0)
		return dir;
	rc = group_write(dir, "cgroup.freeze", freeze ? "1" : "0");
	if (!rc && !event_becomes(dir, "frozen", freeze, FREEZE_MS)) {
		rc = -ETIMEDOUT;
		(void)group_write(dir, "cgroup.freeze", "0");
	}
	close(dir);
	return rc ? err_sys(e, rc, "control group %.120s: cgroup.freeze", g->path) : 0;
}

/* ---- what is in it ---- */

static int read_pids(int dir, pid_t *pids, unsigned max, unsigned *n)
{
	int fd = openat(dir, "cgroup.procs", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	FILE *f = fd < 0 ? NULL : fdopen(fd, "re");
	int pid;

	if (!f) {
		int rc = -errno;

		fd_close(&fd);
		return rc;
	}
	while (*n < max && fscanf(f, "%d", &pid) == 1)
		pids[(*n)++] = pid;
	fclose(f);
	return 0;
}

/* Every group below, the deepest first. `fn` gets the directory above and the name. */
static int each_below(int dir, unsigned depth, int (*fn)(void *ctx, int up, const char *name),
		      void *ctx)
{
	int copy = openat(dir, ".", O_DIRECTORY | O_CLOEXEC), rc = 0;
	DIR *d = copy < 0 ? NULL : fdopendir(copy);
	struct dirent *entry;

	if (!d) {
		rc = -errno;
		fd_close(&copy);
		return rc;
	}
	while (!rc && depth < DEPTH_MAX && (entry = readdir(d))) {
		int below;

		if (entry->d_type != DT_DIR || entry->d_name[0] == '.')
			continue;
		below = openat(dir, entry->d_name, O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (below < 0)
			continue;
		rc = each_below(below, depth + 1, fn, ctx);
		close(below);
		if (!rc)
			rc = fn(ctx, dir, entry->d_name);
	}
	closedir(d);
	return rc;
}

struct pid_list {
	pid_t *pids;
	unsigned max, n;
};

static int add_pids(void *ctx, int up, const char *name)
{
	struct pid_list *l = ctx;
	int dir = openat(up, name, O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (dir < 0)
		return 0; /* gone meanwhile */
	(void)read_pids(dir, l->pids, l->max, &l->n);
	close(dir);
	return 0;
}

int cgroup_pids(const struct cgroup *g, pid_t *pids, unsigned max, struct err *e)
{
	struct pid_list l = {.pids = pids, .max = max};
	int dir, rc;

	if (no_group(g))
		return 0;
	dir = group_open(g, e);
	if (dir < 0)
		return dir;
	rc = read_pids(dir, pids, max, &l.n);
	if (!rc)
		rc = each_below(dir, 0, add_pids, &l);
	close(dir);
	return rc ? err_sys(e, rc, "control group %.160s", g->path) : (int)l.n;
}

/* ---- the end ---- */

static int remove_one(void *ctx, int up, const char *name)
{
	(void)ctx;
	return unlinkat(up, name, AT_REMOVEDIR) && errno != ENOENT ? -errno : 0;
}

/* Empty is not yet removable: a process that is dead and not yet waited for holds it for a moment. */
static int remove_group(const struct cgroup *g, int dir, struct err *e)
{
	int rc = -EBUSY;

	for (unsigned t = 0; t < GONE_MS && rc == -EBUSY; t += STEP_MS) {
		rc = each_below(dir, 0, remove_one, NULL);
		if (!rc && rmdir(g->path) && errno != ENOENT)
			rc = -errno;
		if (rc == -EBUSY)
			sleep_ms(STEP_MS);
	}
	if (is_gone(rc))
		rc = 0;
	return rc ? err_sys(e, rc, "control group %.160s", g->path) : 0;
}

int container_group_remove(const struct cgroup *g, struct err *e)
{
	int dir, rc = 0;

	if (no_group(g) || !g->made)
		return 0;
	dir = open(g->path, O_DIRECTORY | O_CLOEXEC);
	if (dir < 0 && errno == ENOENT)
		return g->unit[0] ? cgsystemd_stop(g->unit, e) : 0;
	if (dir < 0)
		return err_sys(e, -errno, "control group %.160s", g->path);
	/* Frozen processes die of it, too; Linux 5.14. */
	rc = group_write(dir, "cgroup.kill", "1");
	if (!rc && !event_becomes(dir, "populated", false, GONE_MS))
		rc = -ETIMEDOUT;
	if (is_gone(rc))
		rc = 0;
	if (rc)
		err_sys(e, rc, "control group %.120s: its processes do not end", g->path);
	else if (g->unit[0])
		rc = cgsystemd_stop(g->unit, e);
	else
		rc = remove_group(g, dir, e);
	close(dir);
	return rc;
}
