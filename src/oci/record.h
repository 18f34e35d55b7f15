/* SPDX-License-Identifier: BSD-2-Clause */
/* OCI configuration -> records of insula/container.h. Knows names of flags, capabilities, limits,
 * and what each is in numbers; touches no file but what it is given. A key of container.h that is
 * written there with its dot in front has the name before it: ".type" of mount is "mount.type". */
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
	/* record_machine() has made records of this bundle for the VM: sysctls that are no
	 * namespace's are there. Else they are here, and set when the container is made. */
	bool machine;
	const char *sys; /* "/sys": nodes of VFIO are left out (assign.h); NULL: of what has none */
	const char *hook_input; /* the container's state as JSON, for startContainer; NULL: none */
};

/* Everything "of a container" but its process. */
int record_container(const struct record_container *c, struct rec *r, struct err *e);
/* "Of a process". `process` is config.json's member, or the object of --process, completed: what it
 * lacks (capabilities, say) the process does not get. `seccomp`: the name of the filter's file in
 * the same directory, NULL: none; `flags` for it. */
int record_process(json_object *process, const char *seccomp, unsigned flags, struct rec *r,
		   struct err *e);
/* cgroup= records out of linux.resources (of a container, or what `update` is given). */
int record_resources(json_object *resources, struct rec *r, struct err *e);
/* "Of the sandbox" out of the bundle of the VM's first container: host name, sysctls of the
 * machine (net.*, vm.* ...). The network's records are net_join()'s. */
int record_machine(const struct bundle *b, struct rec *r, struct err *e);

/* For files of records: KEY= for each text of an array. */
int record_texts(struct rec *r, const char *key, json_object *o, const char *where,
		 const char *member, struct err *e);
/* record_mount.c: mount= records. */
int record_mounts(const struct record_container *c, struct rec *r, struct err *e);

#endif
