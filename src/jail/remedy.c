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
	return "; in a container its seccomp profile must allow user namespaces";
}
