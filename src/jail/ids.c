/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Who the jail's user is on the host.
 *
 * Root gives each VM an id of its own, so that two VMs, or a VM and a user, have nothing in common.
 * An ordinary user can only map itself (user_namespaces(7)), and so does root where the range is
 * not mapped, in a container for example.
 */
#include <errno.h>
#include <linux/capability.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "steps.h"

bool jail_map_has(const char *map, uint32_t id)
{
	while (*map) {
		unsigned long long first, host, count;

		if (sscanf(map, "%llu %llu %llu", &first, &host, &count) != 3)
			return false;
		if (id >= first && id - first < count)
			return true;
		map += strcspn(map, "\n");
		map += *map == '\n';
	}
	return false;
}

static bool file_maps(const char *path, uint32_t id)
{
	char buf[4096];

	return jail_file_read(path, buf, sizeof(buf)) > 0 && jail_map_has(buf, id);
}

static bool may_set_ids(void)
{
	struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct d[_LINUX_CAPABILITY_U32S_3];
	const uint32_t need = 1u << CAP_SETUID | 1u << CAP_SETGID;
	char buf[16];

	if (syscall(SYS_capget, &h, d) || (d[0].effective & need) != need)
		return false;
	return jail_file_read("/proc/self/setgroups", buf, sizeof(buf)) > 0 &&
	       strncmp(buf, "allow", 5) == 0;
}

void jail_ids(struct jail_plan *p)
{
	uint32_t id = JAIL_UID_BASE + (uint32_t)getpid();

	p->outer_uid = geteuid();
	p->outer_gid = getegid();
	if (geteuid() == 0 && may_set_ids() && file_maps("/proc/self/uid_map", id) &&
	    file_maps("/proc/self/gid_map", id)) {
		p->outer_uid = id;
		p->outer_gid = id;
	}
}

bool jail_ids_own(const struct jail_plan *p)
{
	return p->outer_uid == geteuid() && p->outer_gid == getegid();
}

static int map_one(pid_t pid, const char *file, const char *text, struct err *e)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, file);
	int rc = jail_file_write(path, text);
	return rc ? err_sys(e, rc, "writing \"%s\" to %s", text, path) : 0;
}

int jail_ids_map(pid_t pid, const struct jail_plan *p, struct err *e)
{
	char text[64];
	int rc;

	snprintf(text, sizeof(text), "%u %u 1", JAIL_INNER_ID, p->outer_uid);
	rc = map_one(pid, "uid_map", text, e);
	if (rc)
		return rc;
	/* Without privilege the kernel takes a group map only from those who cannot drop groups any
	 * more: a group may be there to deny something. */
	if (jail_ids_own(p)) {
		rc = map_one(pid, "setgroups", "deny", e);
		if (rc)
			return rc;
	}
	snprintf(text, sizeof(text), "%u %u 1", JAIL_INNER_ID, p->outer_gid);
	return map_one(pid, "gid_map", text, e);
}
