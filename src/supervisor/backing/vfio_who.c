/* SPDX-License-Identifier: BSD-2-Clause */
/* Who has a function, for the line that says that it is in use. See vfio.h. */
#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <insula/base.h>

#include "vfio.h"

/* Has the process this device open? */
static bool has_open(const char *pid, const char *device)
{
	char path[64], is[32];
	bool has = false;
	struct dirent *one;
	struct statx st;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%.16s/fd", pid);
	d = opendir(path);
	while (d && !has && (one = readdir(d))) {
		/* Of a file of a dead server nothing is asked. */
		if (statx(dirfd(d), one->d_name, AT_STATX_DONT_SYNC, STATX_TYPE, &st) ||
		    !S_ISCHR(st.stx_mode))
			continue;
		snprintf(is, sizeof(is), "%u:%u", st.stx_rdev_major, st.stx_rdev_minor);
		has = !strcmp(is, device);
	}
	if (d)
		closedir(d);
	return has;
}

void vfio_who(const char *device, char out[VFIO_WHO])
{
	char path[64], name[32];
	struct dirent *one;
	DIR *d = device[0] ? opendir("/proc") : NULL;

	out[0] = 0;
	while (d && !out[0] && (one = readdir(d))) {
		if (!isdigit((unsigned char)one->d_name[0]) || atoi(one->d_name) == getpid() ||
		    !has_open(one->d_name, device))
			continue;
		snprintf(path, sizeof(path), "/proc/%.16s/comm", one->d_name);
		vfio_line(path, name, sizeof(name));
		snprintf(out, VFIO_WHO, " (process %.16s, %.16s)", one->d_name, name);
	}
	if (d)
		closedir(d);
}

void vfio_who_is_beside(const struct vfio_back *b, char out[VFIO_WHO])
{
	char path[64], who[VFIO_WHO] = "";
	struct vfio_node n;
	struct dirent *one;
	DIR *d;

	out[0] = 0;
	snprintf(path, sizeof(path), "/sys/kernel/iommu_groups/%u/devices", b->groupno);
	d = opendir(path);
	while (d && !who[0] && (one = readdir(d))) {
		/* Whose own node was handed in, that one is open elsewhere as well. */
		if (one->d_name[0] == '.' ||
		    (b->by_node && !strcmp(one->d_name, b->conf->address)) ||
		    !vfio_node("/sys", one->d_name, &n))
			continue;
		vfio_who(n.device, who);
		if (who[0])
			snprintf(out, VFIO_WHO, "%.12s%.50s", one->d_name, who);
	}
	if (d)
		closedir(d);
}
