/* SPDX-License-Identifier: BSD-2-Clause */
/* Why this system refuses namespaces, and what its administrator can do about it. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "steps.h"

struct cause {
	const char *file; /* below /proc/sys */
	const char *bad;  /* the value that is to blame */
	bool root_too;    /* whether it concerns root */
	const char *text;
};

static const struct cause causes[] = {
	{"user/max_user_namespaces", "0", true,
	 "; user namespaces are switched off: sysctl -w user.max_user_namespaces=10000"},
	{"kernel/unprivileged_userns_clone", "0", false,
	 "; user namespaces are for root only: sysctl -w kernel.unprivileged_userns_clone=1"},
	{"kernel/apparmor_restrict_unprivileged_userns", "1", false,
	 "; AppArmor restricts user namespaces: sysctl -w "
	 "kernel.apparmor_restrict_unprivileged_userns=0, or a profile with \"userns,\""},
};

static bool blames(const struct cause *c, const char *sys)
{
	char path[256], value[32];

	snprintf(path, sizeof(path), "%s/%s", sys, c->file);
	if (jail_file_read(path, value, sizeof(value)) <= 0)
		return false; /* this kernel does not have the switch */
	value[strcspn(value, "\n")] = 0;
	return strcmp(value, c->bad) == 0;
}

/* The list of mounts has only what is below the process's root: the mount that a chroot's directory
 * is part of, but not the root of, is missing there. */
static bool in_chroot(void)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	char line[4096], point[2048];
	bool found = !f;

	while (!found && fgets(line, sizeof(line), f))
		found = sscanf(line, "%*s %*s %*s %*s %2047s", point) == 1 && !strcmp(point, "/");
	if (f)
		fclose(f);
	return !found;
}

const char *jail_remedy(const char *sys, int code, bool root)
{
	if (code != -EPERM && code != -EACCES && code != -ENOSPC && code != -ENOSYS)
		return "";
	for (size_t i = 0; i < sizeof(causes) / sizeof(causes[0]); i++) {
		if ((causes[i].root_too || !root) && blames(&causes[i], sys))
			return causes[i].text;
	}
	if (code == -ENOSPC)
		return "; a limit in /proc/sys/user/max_*_namespaces is reached";
	if (in_chroot())
		return "; this is a chroot, and the kernel makes none for a process in one: start "
		       "it "
		       "outside, or in a container that has its own root (pivot_root)";
	return "; in a container its seccomp profile must allow user namespaces";
}
