/* SPDX-License-Identifier: BSD-2-Clause */
/* Where a mount's content comes from: the host, by a descriptor, or the guest itself. */
#ifndef OCI_SHARE_SOURCE_H
#define OCI_SHARE_SOURCE_H

#include "mountopt.h"
#include "oci.h"

enum source_kind {
	SOURCE_NONE,    /* a file system of the guest's kernel */
	SOURCE_GUEST,   /* a path of the guest */
	SOURCE_HOST,    /* a file or directory of the host */
	SOURCE_OVERLAY, /* an overlay of the host's directories, which opt.data names */
};

struct share_source {
	enum source_kind kind;
	struct mountopt opt;
	int fd; /* O_PATH; owned; -1: none */
	bool directory;
	char guest[PATH_MAX];
};

/*
 * The mount mounts[N], which is an object. Bind mounts of
 *
 *   - files and directories come from the host;
 *   - the kernel's own file systems (/proc, /sys, cgroups ...), /dev and what is in it are the
 *     guest's of the same path: it has its own kernel, and no device of the host;
 *   - an engine's shm (a tmpfs named so, for /dev/shm) are the guest's /dev/shm: memory cannot be
 *     shared through files of the host. It is one for all containers of a VM;
 *   - sockets and pipes, and devices elsewhere, are refused: nobody in a VM can use them.
 *
 * -errno with a line.
 */
int share_source_open(struct share_source *s, const struct bundle *b, json_object *mount,
		      const char *where, struct err *e);
void share_source_close(struct share_source *s);

/* Make the directories and files of the root onto which the guest will mount, for it cannot in a
 * root that is read-only on the host, nor as the root of a user namespace, who on the host is an
 * ordinary user; as far as possible, and never outside of the root. */
void share_mountpoints(const struct bundle *b, int root);

#endif
