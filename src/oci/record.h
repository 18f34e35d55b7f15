/* SPDX-License-Identifier: BSD-2-Clause */
/* OCI configuration -> records of insula/container.h. Knows names of flags, capabilities, limits,
 * and what each is in numbers; touches no file but what it is given. */
#ifndef OCI_RECORD_H
#define OCI_RECORD_H

#include <stdbool.h>

#include "oci.h"
#include "rec.h"

/* Whose namespace is this path (/proc/PID/ns/ipc ...)? The id of a container of the same VM, or
 * NULL. By state.c: state_ns_owner(). */
typedef const char *record_ns_owner(void *ctx, const char *path);

struct record_container {
	const char *id;
	const struct bundle *bundle;
	/* Where each bind mount's source is in the guest, by index in mounts[] ("" : none), as
	 * share_container() has made it. */
	char *const *source;
	unsigned nsources;
	record_ns_owner *ns_owner;
	void *ctx;
	bool pod; /* there is, or will be, more than one container in this VM */
};

/* Everything "of a container" but its process. */
int record_container(const struct record_container *c, struct rec *r, struct err *e);
/* "Of a process". `process` is config.json's member, or the object of --process. `seccomp`: the name
 * of the filter's file in the same directory, NULL: none; `flags` for it. */
int record_process(json_object *process, const char *seccomp, unsigned flags, struct rec *r,
		   struct err *e);
/* cgroup= records out of linux.resources (of a container, or what `update` is given). */
int record_resources(json_object *resources, struct rec *r, struct err *e);

#endif
