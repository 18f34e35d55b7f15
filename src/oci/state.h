/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Containers as they are kept: --root/ID, a directory of root's alone.
 *
 *   lock         held (flock) by each command while it changes something
 *   state.json   struct container; replaced as a whole
 *   proxy        socket on which the proxy waits for `start`
 *   seccomp      the filter, for `exec`: what the share holds belongs to the guest
 *   vm/          of a VM's owner: control socket, log, log2, result
 *   share/       of a VM's owner: share.h
 *
 * state.json says what has been made before it is made, so `delete --force` can take away whatever a
 * command left that was killed.
 */
#ifndef OCI_STATE_H
#define OCI_STATE_H

#include "cgroup.h"
#include "oci.h"
#include "proc.h"

enum status { STATUS_CREATING, STATUS_CREATED, STATUS_RUNNING, STATUS_PAUSED, STATUS_STOPPED };

struct container {
	char id[CT_ID_MAX + 1];
	char sandbox[CT_ID_MAX + 1]; /* whose VM it is in; its own id: it owns one */
	char dir[PATH_MAX];          /* --root/ID */
	int at, lock;                /* owned; -1 */
	enum status status;          /* never STOPPED in the file: see state_status() */
	char bundle[PATH_MAX], rootfs[PATH_MAX];
	char netns[PATH_MAX]; /* path of its network namespace; "": of its own, or the host's */
	uint64_t netns_dev, netns_ino; /* the namespace that it was; 0: none was entered */
	char created[40];
	struct proc proxy, vm; /* vm: the supervisor, of an owner */
	bool pod;              /* others may join its VM */
	unsigned execs;        /* that were ever started */
	unsigned hook_timeout; /* seconds, of hooks that name none */
	unsigned boot_timeout; /* seconds, of its VM */
	unsigned seccomp_flags;
	bool seccomp;      /* there is a filter */
	uint64_t overhead; /* as container_group_make() had it */
	uint64_t vm_mem;   /* bytes of its VM, of an owner; 0: not known */
	struct cgroup group;
	/* Owned; NULL: none. vfio: what its VM has, of an owner (assign.h). */
	json_object *annotations, *hooks, *process, *net, *vfio;
};

/* A new one, locked, STATUS_CREATING, with state.json not yet written. -EEXIST. */
int state_new(struct container *c, const char *root, const char *id, struct err *e);
/* One that is there. lock: wait for its lock (10 s). -ENOENT: "container does not exist". */
int container_state_open(struct container *c, const char *root, const char *id, bool lock,
			 struct err *e);
int state_save(const struct container *c, struct err *e);
/* Remove the directory; what is mounted in it is gone by then. */
int container_state_remove(struct container *c, struct err *e);
void state_close(struct container *c);

bool state_owns_vm(const struct container *c);
/* With a look at the proxy. */
enum status state_status(const struct container *c);
const char *state_word(enum status s);
/* What hooks get and `state` prints; the caller's. */
json_object *state_json(const struct container *c, enum status s);

/* Call `fn` for each container (opened, not locked), until it returns other than 0, which is
 * returned. */
typedef int state_fn(void *ctx, const struct container *c);
int state_each(const char *root, state_fn *fn, void *ctx, struct err *e);

/* The container, alive, whose namespace `path` is, a namespace of `type` ("ipc"): by the number in
 * /proc/PID/ns/..., or because they are the same. `sandbox`: of that VM alone; `but`: not this one;
 * both may be NULL. True: *id is set. */
bool state_ns_owner(const char *root, const char *type, const char *path, const char *sandbox,
		    const char *but, char id[CT_ID_MAX + 1]);
/* The namespace is the one that this process, or the host's first one, is in: not a container's. */
bool state_ns_is_ours(const char *type, const char *path);

#endif
