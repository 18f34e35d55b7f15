/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * insula-container: the control group of a container, CT_CGROUP_PARENT/ID (version 2). The host's
 * limits are those of the VM; this group divides it, and it is the list of what has to be killed.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "container.h"

#define DEPTH_MAX 32   /* groups below a container's that are looked at */
#define EMPTY_MS 10000 /* for processes that die, and for groups that freeze */

void cgroup_path(const char *id, const char *file, char out[CT_PATH_MAX])
{
	snprintf(out, CT_PATH_MAX, CT_CGROUP_PARENT "/%s%s%s", id, *file ? "/" : "", file);
}

static int write_file(const char *path, const char *value)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC), r = 0;
	size_t n = strlen(value);

	if (fd < 0)
		return -errno;
	if (write(fd, value, n) != (ssize_t)n)
		r = -errno;
	close(fd);
	return r;
}

static int read_file(const char *path, char *out, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return -errno;
	n = read(fd, out, size - 1);
	close(fd);
	if (n < 0)
		return -errno;
	out[n] = '\0';
	return 0;
}

int cgroup_write(const char *id, const char *file, const char *value, struct err *e)
{
	char path[CT_PATH_MAX];
	int r;

	cgroup_path(id, file, path);
	r = write_file(path, value);
	return r ? err_sys(e, r, "control group: %s=%.60s", file, value) : 0;
}

int cgroup_apply(const char *id, char *const *record, struct err *e)
{
	for (; record && *record; record++) {
		char file[128];
		size_t n = strcspn(*record, "=");
		int r;

		if (n >= sizeof file)
			return err_set(e, -EINVAL, "control group: %.60s...: no such file",
				       *record);
		memcpy(file, *record, n);
		file[n] = '\0';
		r = cgroup_write(id, file, *record + n + 1, e);
		if (r)
			return r;
	}
	return 0;
}

int cgroup_exists(const char *id, struct err *e)
{
	char path[CT_PATH_MAX];

	if (!id_valid(id))
		return err_set(e, -EINVAL, "container \"%.60s\": expected letters, digits, _ + - .",
			       id);
	cgroup_path(id, "", path);
	return access(path, F_OK) < 0 ? err_set(e, -ENOENT, "container %s does not exist", id) : 0;
}

/* "+a +b" of what the group of `dir` can give to its children. */
static int enable_controllers(const char *dir, struct err *e)
{
	char path[CT_PATH_MAX], have[512], word[64], *save = NULL;
	int r;

	snprintf(path, sizeof path, "%s/cgroup.controllers", dir);
	r = read_file(path, have, sizeof have);
	if (r)
		return err_sys(e, r, "control group: %s (is it version 2?)", path);
	snprintf(path, sizeof path, "%s/cgroup.subtree_control", dir);
	have[strcspn(have, "\n")] = '\0';
	for (char *w = strtok_r(have, " ", &save); w && !r; w = strtok_r(NULL, " ", &save)) {
		snprintf(word, sizeof word, "+%.60s", w);
		r = write_file(path, word);
		if (r)
			err_sys(e, r, "control group: %s: %s", path, word);
	}
	return r;
}

static int make_group(const char *id, struct err *e)
{
	char path[CT_PATH_MAX];
	int r = 0;

	if (mkdir(CT_CGROUP_PARENT, 0755) == 0)
		r = enable_controllers(CT_CGROUP, e);
	else if (errno != EEXIST)
		return err_sys(e, -errno, "make the control group " CT_CGROUP_PARENT);
	if (!r)
		r = enable_controllers(CT_CGROUP_PARENT, e);
	if (r)
		return r;
	cgroup_path(id, "", path);
	if (mkdir(path, 0755) == 0)
		return 0;
	if (errno == EEXIST)
		return err_set(e, -EEXIST, "container %s exists", id);
	return err_sys(e, -errno, "make the control group %s", path);
}

int cgroup_make(const struct container *c, struct err *e)
{
	char path[CT_PATH_MAX];
	int fd, r = make_group(c->id, e);

	if (r)
		return r;
	cgroup_path(c->id, "", path);
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	r = fd < 0 ? err_sys(e, -errno, "%s", path)
		   : devices_attach(fd, c->devrule, c->devrules, e);
	if (fd >= 0)
		close(fd);
	if (!r)
		r = cgroup_apply(c->id, c->cgroup.v, e);
	if (r)
		rmdir(path);
	return r;
}

/* The group in which a process is, below CT_CGROUP; an init of the container's may have made some
 * and left none for processes in the upper one. */
static int group_of(pid_t pid, char out[CT_PATH_MAX])
{
	char path[64], text[CT_PATH_MAX], *line;
	int r;

	snprintf(path, sizeof path, "/proc/%d/cgroup", pid);
	r = read_file(path, text, sizeof text);
	if (r)
		return r;
	line = strncmp(text, "0::", 3) == 0 ? text : strstr(text, "\n0::");
	if (!line)
		return -ENOENT;
	line += line == text ? 3 : 4;
	line[strcspn(line, "\n")] = '\0';
	r = snprintf(out, CT_PATH_MAX, CT_CGROUP "%s/cgroup.procs", line);
	return r < (int)CT_PATH_MAX ? 0 : -ENAMETOOLONG;
}

int cgroup_enter(const char *id, pid_t pid, pid_t first, struct err *e)
{
	char path[CT_PATH_MAX], number[16];
	int r;

	cgroup_path(id, "cgroup.procs", path);
	snprintf(number, sizeof number, "%d", pid);
	r = write_file(path, number);
	if (r == -EBUSY && first && group_of(first, path) == 0)
		r = write_file(path, number);
	return r ? err_sys(e, r, "enter the control group: %s", path) : 0;
}

/* ---- numbers ---- */

int64_t cgroup_number(const char *id, const char *file, const char *key)
{
	char path[CT_PATH_MAX], text[8192], *p = text;
	uint64_t v;

	cgroup_path(id, file, path);
	if (read_file(path, text, sizeof text))
		return -1;
	for (char *line; (line = strsep(&p, "\n"));) {
		size_t n = key ? strlen(key) : 0;

		if (key && (strncmp(line, key, n) != 0 || line[n] != ' '))
			continue;
		return num_u64(line + n + (key ? 1 : 0), 10, INT64_MAX, &v) ? -1 : (int64_t)v;
	}
	return -1;
}

/* Until `key` of cgroup.events is `value`. */
static int wait_event(const char *id, const char *key, int64_t value, struct err *e)
{
	char path[CT_PATH_MAX], text[256];
	struct timespec now, end;
	struct pollfd p;

	cgroup_path(id, "cgroup.events", path);
	p = (struct pollfd){.fd = open(path, O_RDONLY | O_CLOEXEC), .events = POLLPRI};
	clock_gettime(CLOCK_MONOTONIC, &end);
	end.tv_sec += EMPTY_MS / 1000;
	while (p.fd >= 0 && cgroup_number(id, "cgroup.events", key) != value) {
		clock_gettime(CLOCK_MONOTONIC, &now);
		if (now.tv_sec > end.tv_sec) {
			close(p.fd);
			return err_set(e, -ETIMEDOUT,
				       "control group: %s of %s is not %d after 10 s", key, id,
				       (int)value);
		}
		poll(&p, 1, 50); /* a change between the two is not told */
		(void)!pread(p.fd, text, sizeof text, 0);
	}
	if (p.fd < 0)
		return err_sys(e, -errno, "%s", path);
	close(p.fd);
	return 0;
}

int cgroup_freeze(const char *id, bool freeze, struct err *e)
{
	int r = cgroup_write(id, "cgroup.freeze", freeze ? "1" : "0", e);

	return r ? r : wait_event(id, "frozen", freeze, e);
}

/* ---- a group and what is below it ---- */

struct walk {
	int (*procs)(void *ctx, pid_t pid);
	void *ctx;
	bool remove;
};

static int walk_procs(const char *dir, const struct walk *w)
{
	char path[CT_PATH_MAX], line[32];
	uint64_t pid;
	int r = 0;
	FILE *f;

	if (snprintf(path, sizeof path, "%s/cgroup.procs", dir) >= (int)sizeof path)
		return -ENAMETOOLONG;
	f = fopen(path, "re");
	if (!f)
		return errno == ENOENT ? 0 : -errno;
	while (!r && fgets(line, sizeof line, f)) {
		line[strcspn(line, "\n")] = '\0';
		if (!num_u64(line, 10, INT32_MAX, &pid) && pid > 0)
			r = w->procs(w->ctx, (pid_t)pid);
	}
	fclose(f);
	return r;
}

static int walk_group(const char *dir, const struct walk *w, unsigned depth)
{
	char path[CT_PATH_MAX];
	struct dirent *d;
	DIR *all;
	int r = 0;

	if (depth > DEPTH_MAX)
		return -ELOOP;
	all = opendir(dir);
	if (!all)
		return errno == ENOENT ? 0 : -errno;
	while (!r && (d = readdir(all))) {
		if (d->d_type != DT_DIR || d->d_name[0] == '.')
			continue;
		if (snprintf(path, sizeof path, "%s/%s", dir, d->d_name) >= (int)sizeof path)
			r = -ENAMETOOLONG;
		else
			r = walk_group(path, w, depth + 1);
	}
	closedir(all);
	if (!r && w->procs)
		r = walk_procs(dir, w);
	if (!r && w->remove && rmdir(dir) < 0 && errno != ENOENT)
		r = -errno;
	return r;
}

int cgroup_each(const char *id, int (*fn)(void *ctx, pid_t pid), void *ctx, struct err *e)
{
	const struct walk w = {.procs = fn, .ctx = ctx};
	char path[CT_PATH_MAX];
	int r;

	cgroup_path(id, "", path);
	r = walk_group(path, &w, 0);
	return r ? err_sys(e, r, "processes of %s", id) : 0;
}

int cgroup_kill(const char *id, struct err *e)
{
	int r = cgroup_write(id, "cgroup.kill", "1", e);

	return r ? r : wait_event(id, "populated", 0, e);
}

int cgroup_remove(const char *id, struct err *e)
{
	const struct walk w = {.remove = true};
	char path[CT_PATH_MAX];
	int r;

	cgroup_path(id, "", path);
	r = walk_group(path, &w, 0);
	return r ? err_sys(e, r, "remove the control group of %s", id) : 0;
}
