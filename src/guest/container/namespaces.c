/* SPDX-License-Identifier: BSD-2-Clause */
/* insula-container: namespaces: new ones, those of other containers, and the maps of user ids. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "container.h"

const char *const ns_name[NS_KINDS] = {
	[NS_USER] = "user", [NS_MOUNT] = "mnt", [NS_PID] = "pid",
	[NS_UTS] = "uts",   [NS_IPC] = "ipc",   [NS_CGROUP] = "cgroup",
};

static const int ns_flag[NS_KINDS] = {
	[NS_USER] = CLONE_NEWUSER, [NS_MOUNT] = CLONE_NEWNS, [NS_PID] = CLONE_NEWPID,
	[NS_UTS] = CLONE_NEWUTS,   [NS_IPC] = CLONE_NEWIPC,  [NS_CGROUP] = CLONE_NEWCGROUP,
};

int ns_fresh(const struct container *c)
{
	int flags = 0;

	for (unsigned i = 0; i < NS_KINDS; i++)
		if (c->ns[i].fresh && i != NS_CGROUP)
			flags |= ns_flag[i];
	return flags;
}

int ns_cgroup(const struct container *c, struct err *e)
{
	if (c->ns[NS_CGROUP].fresh && unshare(CLONE_NEWCGROUP) < 0)
		return err_sys(e, -errno, "new cgroup namespace");
	return 0;
}

/* Is the namespace of this kind of `pid` our own? Nobody enters the user namespace in which it is
 * (EINVAL), and to enter another one of one's own is for nothing. */
static bool ns_same(unsigned kind, pid_t pid)
{
	char path[64];
	struct stat ours, theirs;

	snprintf(path, sizeof path, "/proc/self/ns/%s", ns_name[kind]);
	if (stat(path, &ours) < 0)
		return false;
	snprintf(path, sizeof path, "/proc/%d/ns/%s", pid, ns_name[kind]);
	return stat(path, &theirs) == 0 && ours.st_dev == theirs.st_dev &&
	       ours.st_ino == theirs.st_ino;
}

/* All of one container at once: the kernel does it in the right order, the user namespace first. */
static int join_flags(int pidfd, int flags, const char *what, struct err *e)
{
	if (!flags || setns(pidfd, flags) == 0)
		return 0;
	return err_sys(e, -errno, "enter the namespaces of %s", what);
}

/* What is joined of the container whose first kind that is. */
static int join_one(const struct container *c, unsigned first, struct err *e)
{
	const char *of = c->ns[first].of;
	int pidfd, flags = 0, r;
	pid_t pid;

	r = state_open(of, &pidfd, &pid, e);
	if (r)
		return r;
	for (unsigned i = first; i < NS_KINDS; i++)
		if (c->ns[i].of && strcmp(c->ns[i].of, of) == 0 && !ns_same(i, pid))
			flags |= ns_flag[i];
	r = join_flags(pidfd, flags, of, e);
	close(pidfd);
	return r;
}

int ns_join(const struct container *c, struct err *e)
{
	for (unsigned i = 0; i < NS_KINDS; i++) {
		bool done = !c->ns[i].of;
		int r;

		for (unsigned j = 0; j < i && !done; j++)
			done = c->ns[j].of && strcmp(c->ns[j].of, c->ns[i].of) == 0;
		r = done ? 0 : join_one(c, i, e);
		if (r)
			return r;
	}
	return 0;
}

int ns_join_all(int pidfd, pid_t pid, struct err *e)
{
	int flags = 0;

	for (unsigned i = 0; i < NS_KINDS; i++)
		if (!ns_same(i, pid))
			flags |= ns_flag[i];
	return join_flags(pidfd, flags, "the container", e);
}

static int write_map(pid_t pid, const char *file, const struct idmaps *maps, struct err *e)
{
	char path[64], *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);
	int fd, r = 0;

	if (!f)
		return err_set(e, -ENOMEM, "out of memory");
	for (size_t i = 0; i < maps->n; i++)
		fprintf(f, "%u %u %u\n", maps->v[i].inside, maps->v[i].outside, maps->v[i].size);
	if (fclose(f))
		return err_set(e, -ENOMEM, "out of memory");
	snprintf(path, sizeof path, "/proc/%d/%s", pid, file);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	/* One write(2): the kernel takes a map as a whole. */
	if (fd < 0 || write(fd, text, len) != (ssize_t)len)
		r = err_sys(e, -errno, "%s of the user namespace", file);
	if (fd >= 0)
		close(fd);
	free(text);
	return r;
}

int ns_write_maps(const struct container *c, pid_t pid, struct err *e)
{
	int r = write_map(pid, "uid_map", &c->uidmap, e);

	return r ? r : write_map(pid, "gid_map", &c->gidmap, e);
}

bool ns_user_is_other(void)
{
	char text[64];
	int fd = open("/proc/self/uid_map", O_RDONLY | O_CLOEXEC);
	unsigned inside = 0, outside = 1, size = 0;
	ssize_t n;

	if (fd < 0)
		return true;
	n = read(fd, text, sizeof text - 1);
	close(fd);
	text[n > 0 ? n : 0] = '\0';
	if (sscanf(text, "%u %u %u", &inside, &outside, &size) != 3)
		return true;
	return inside != 0 || outside != 0 || size != UINT32_MAX;
}
