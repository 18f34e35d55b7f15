/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The ids of a confined program, mapped by the parent: root's all to themselves; a user's with
 * newuidmap, if the user has a range and the plan wants it, else the user alone. See confine.h.
 *
 * Nothing here runs in the child. A failure leaves a child that still waits for its byte, and is
 * killed.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <insula/base.h>

#include "confine_child.h"

#define MAP_MAX 2048

static int proc_file(pid_t pid, const char *name, int flags)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
	return open(path, flags | O_CLOEXEC);
}

static int proc_write(pid_t pid, const char *name, const char *text, struct err *e)
{
	int fd = proc_file(pid, name, O_WRONLY), rc = 0;

	/* Since Linux 5.12 it takes that as well to map user 0: user_namespaces(7). */
	if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
		rc = err_sys(e, -errno, "%s%s", name,
			     geteuid() || errno != EPERM ? "" : " (root needs CAP_SETFCAP)");
	fd_close(&fd);
	return rc;
}

/* Every id that we have, to itself: lines "inside outside count". */
static int identity(const char *file, char out[MAP_MAX])
{
	unsigned long first, count;
	FILE *f = fopen(file, "re");
	size_t n = 0;

	out[0] = 0;
	while (f && n < MAP_MAX && fscanf(f, "%lu %*u %lu", &first, &count) == 2)
		n += (size_t)snprintf(out + n, MAP_MAX - n, "%lu %lu %lu\n", first, first, count);
	if (f)
		fclose(f);
	return n && n < MAP_MAX ? 0 : -EINVAL;
}

static bool has_set_ids(void)
{
	struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct d[_LINUX_CAPABILITY_U32S_3];
	const uint32_t need = 1u << CAP_SETUID | 1u << CAP_SETGID;

	return !geteuid() && !syscall(SYS_capget, &h, d) && (d[0].effective & need) == need;
}

static int map_all(pid_t pid, struct err *e)
{
	char uids[MAP_MAX], gids[MAP_MAX];
	int rc = identity("/proc/self/uid_map", uids);

	if (!rc)
		rc = identity("/proc/self/gid_map", gids);
	if (rc)
		return err_sys(e, rc, "the id maps of this process");
	rc = proc_write(pid, "uid_map", uids, e);
	return rc ? rc : proc_write(pid, "gid_map", gids, e);
}

static int map_one(pid_t pid, struct err *e)
{
	char text[64];
	int rc;

	snprintf(text, sizeof(text), "0 %u 1", (unsigned)geteuid());
	rc = proc_write(pid, "uid_map", text, e);
	if (!rc)
		rc = proc_write(pid, "setgroups", "deny", e);
	snprintf(text, sizeof(text), "0 %u 1", (unsigned)getegid());
	return rc ? rc : proc_write(pid, "gid_map", text, e);
}

/* The first range of a user in /etc/subuid or /etc/subgid: "NAME or UID:FIRST:COUNT". */
static bool subid_range(const char *file, const char *user, unsigned long *first,
			unsigned long *count)
{
	char line[256], uid[16];
	FILE *f = fopen(file, "re");
	bool found = false;

	snprintf(uid, sizeof(uid), "%u", (unsigned)geteuid());
	while (f && !found && fgets(line, sizeof(line), f)) {
		char *colon = strchr(line, ':');

		if (!colon)
			continue;
		*colon = 0;
		found = (!strcmp(line, user) || !strcmp(line, uid)) &&
			sscanf(colon + 1, "%lu:%lu", first, count) == 2 && *count;
	}
	if (f)
		fclose(f);
	return found;
}

/* newuidmap and newgidmap write the maps, with the rights of their own that they have. */
static bool map_by(const char *program, pid_t pid, unsigned own, unsigned long first,
		   unsigned long count)
{
	char p[16], o[16], f[24], n[24];
	char *const argv[] = {(char *)(uintptr_t)program, p, "0", o, "1", "1", f, n, NULL};
	char *const env[] = {"PATH=/usr/bin:/bin", NULL};
	int status = -1, null;
	pid_t helper;

	snprintf(p, sizeof(p), "%d", (int)pid);
	snprintf(o, sizeof(o), "%u", own);
	snprintf(f, sizeof(f), "%lu", first);
	snprintf(n, sizeof(n), "%lu", count);
	helper = fork();
	if (helper == 0) {
		null = open("/dev/null", O_RDWR);
		if (null < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0 || dup2(null, 2) < 0 ||
		    syscall(SYS_close_range, 3, ~0u, 0))
			_exit(CONFINE_SETUP);
		execve(program, argv, env);
		_exit(CONFINE_SETUP);
	}
	while (helper > 0 && waitpid(helper, &status, 0) < 0 && errno == EINTR)
		;
	return helper > 0 && !status;
}

/* As /etc/passwd has it: the name service of a static program would be another one. "": unknown. */
static void own_name(char out[64])
{
	FILE *f = fopen("/etc/passwd", "re");
	const struct passwd *pw;

	out[0] = 0;
	while (f && !out[0] && (pw = fgetpwent(f))) {
		if (pw->pw_uid == geteuid())
			snprintf(out, 64, "%s", pw->pw_name);
	}
	if (f)
		fclose(f);
}

/* 1: done; 0: this user has no range, or newuidmap does not do it, and nothing has happened. */
static int map_range(pid_t pid, struct err *e)
{
	unsigned long u, nu, g, ng;
	char user[64];

	own_name(user);
	if (!subid_range("/etc/subuid", user, &u, &nu) ||
	    !subid_range("/etc/subgid", user, &g, &ng) ||
	    !map_by("/usr/bin/newuidmap", pid, geteuid(), u, nu))
		return 0;
	if (map_by("/usr/bin/newgidmap", pid, getegid(), g, ng))
		return 1;
	return err_set(e, -EPERM,
		       "newgidmap does not map %lu groups from %lu on, which "
		       "/etc/subgid has",
		       ng, g);
}

int confine_map(const struct confine_plan *plan, pid_t pid, enum confine_ids *ids, struct err *e)
{
	int rc;

	*ids = CONFINE_ALL;
	if (has_set_ids())
		return map_all(pid, e);
	*ids = CONFINE_RANGE;
	rc = geteuid() && plan->range ? map_range(pid, e) : 0;
	if (rc)
		return rc < 0 ? rc : 0;
	*ids = CONFINE_ONE;
	return map_one(pid, e);
}
