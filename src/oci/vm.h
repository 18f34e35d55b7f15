/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The VM of a sandbox: a supervisor (`insula-run --control`, spec/handover.h) that the owner's proxy
 * starts, as its child, in the control group and network namespace that it has itself by then. It
 * listens in --root/ID/vm. It ends when the proxy's connection does (op "own").
 */
#ifndef OCI_VM_H
#define OCI_VM_H

#include "conf.h"
#include "oci.h"
#include "state.h"
#include "talk.h"

/* The configuration of the VM, as `insula-run --json` takes it; the caller's. nets: taken over.
 * `snapshot`: of a template, from which it goes on; NULL: it boots. */
json_object *vm_config(const struct container *c, const struct oci_conf *conf,
		       const struct vm_size *size, json_object *nets, const char *snapshot);

/* Whether this process, which is in the container's control group by now, may open what the VM's
 * processes will. -EPERM: a group denies it; otherwise as open(2) says. */
int vm_check_devices(const struct container *c, struct err *e);
/* Which insula-run: conf.supervisor, or the one beside this program, or where programs are. */
void vm_program(const struct oci_conf *conf, char out[PATH_MAX]);
/* Start it with `config`; its process. `dir`: a descriptor of --root/ID/vm, made by
 * vm_directory(). */
int vm_directory(const struct container *c, struct err *e);
int vm_spawn(int dir, const struct oci_conf *conf, json_object *config, struct proc *vm,
	     struct err *e);
/* Its files, when its process has ended, so that another one may be started there. */
void vm_clear(int dir);
/* How long its memory may take to be read, in seconds. */
unsigned vm_load_seconds(uint64_t mem);
/* Until the guest runs, within `ms`, on a connection that owns it from now on; `t` is open then. */
#define VM_START_MS 120000 /* the supervisor gives its processes 90 s, and makes an initrd before */
int vm_await(int dir, struct talk *t, int ms, talk_event *event, void *ctx, struct err *e);
/* Why it ended, as far as it can be read: one clean line. */
void vm_reason(int dir, char *out, size_t size);
/* End it: in order (the guest has `ms` to write back), or at once (0). Waits for its process. */
void vm_end_now(struct talk *t, const struct proc *vm, int ms);
/* A descriptor of the vm/ of the sandbox that `c` is in. */
int vm_open_dir(const char *root, const char *sandbox, struct err *e);
/* A descriptor of the container's directory in the VM's share. podman creates a container with
 * mapped ids in a mount namespace of its own, and calls for it from another one: then it is opened
 * by way of the VM's process. */
int vm_share(const struct container *c, const char *root, struct err *e);

#endif
