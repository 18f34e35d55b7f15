/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The container's control group on the host: the proxy, and for the owner of a VM the supervisor
 * and all its helpers. cgroup v2 alone, unified; a v1 or hybrid host is refused in words, unless
 * the configuration asks for no group.
 */
#ifndef OCI_CGROUP_H
#define OCI_CGROUP_H

#include "oci.h"

#define CGROUP_UNIT_MAX 256
struct cgroup {
	char path[PATH_MAX];        /* of the directory, absolute; "": none */
	char unit[CGROUP_UNIT_MAX]; /* systemd's scope; "": made directly */
	bool made;                  /* by us: delete it */
};

/* linux.cgroupsPath, or the default /insula-oci/ID (system.slice:insula:ID), as --systemd-cgroup and
 * --cgroup-manager say. Makes nothing. */
int cgroup_name(struct cgroup *g, const char *cgroups_path, bool systemd, const char *id,
		struct err *e);
/* -EBUSY: it is there, with processes in it: whoever they are, they would get its limits and its
 * end. An empty one is not refused: engines make it before. */
int container_group_check(const struct cgroup *g, struct err *e);
/* Make it with `pid` in it and its limits. `overhead`: bytes that the VM itself may use beside the
 * container's memory limit (0: a container that joins a VM: its processes are elsewhere). made: it
 * is ours now, on an error too. Checked as above. */
int container_group_make(struct cgroup *g, pid_t pid, json_object *resources, uint64_t overhead,
			 struct err *e);
int container_group_enter(const struct cgroup *g, pid_t pid, struct err *e); /* 0: this process */
int cgroup_update(const struct cgroup *g, json_object *resources, uint64_t overhead, struct err *e);
int container_group_freeze(const struct cgroup *g, bool freeze, struct err *e);
/* Pids in it and beneath it: at most `max`; how many or a negative errno. */
int cgroup_pids(const struct cgroup *g, pid_t *pids, unsigned max, struct err *e);
/* SIGKILL to all in it, wait until it is empty (2 s), remove it. Nothing to do is 0. */
int container_group_remove(const struct cgroup *g, struct err *e);
/* A file of a group, with a NUL behind it; what is longer is cut. Its length, or a negative errno. */
ssize_t cgroup_text(int dir, const char *file, char *out, size_t size);
/* {memory, cpu, pids, io} as `events --stats` of runc has them; the caller's. */
json_object *cgroup_stats(const struct cgroup *g);

#endif
