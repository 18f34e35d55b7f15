/* SPDX-License-Identifier: BSD-2-Clause */
/* See vhost_node.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include "vhost_node.h"

int vhost_node_open(const char *kind, struct err *e)
{
	char path[32];
	int fd;

	snprintf(path, sizeof(path), "/dev/vhost-%s", kind);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd >= 0)
		return fd;
	switch (errno) {
	case ENOENT:
	case ENXIO:
	case ENODEV:
		return err_set(e, -errno,
			       "--%s: vhost=on: %s is not there; expected it: modprobe vhost_%s",
			       kind, path, kind);
	case EACCES:
	case EPERM:
		return err_set(e, -errno,
			       "--%s: vhost=on: no permission; expected root, or a user who may "
			       "read and write %s",
			       kind, path);
	default:
		return err_sys(e, -errno, "--%s: vhost=on: %s", kind, path);
	}
}
