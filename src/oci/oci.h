/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * insula-oci: an OCI runtime (runtime-spec 1.2) whose containers are in microVMs. What all files of
 * this room share; the theory of operation is in oci.c.
 *
 *   main.c flags.c      the command line, its table
 *   report.c            --log, --log-format: one line per error, and on standard error
 *   bundle.c            config.json and process JSON: read and checked
 *   state.c             --root/ID: state.json, locks
 *   create.c start.c kill.c delete.c exec.c show.c update.c ...    the commands
 *   proxy.c             the container's (or exec's) process of the host
 *   vm.c control.c      the supervisor: start it, talk with it
 *   hook.c              hooks
 *   program.c           is the program there?
 *   template.c template_make.c     VMs that have booted already
 *
 *   rec.c               records of container.h: the buffer
 *   record.c            configuration -> records
 *   share.c             the VM's shared directory: bind mounts
 *   seccomp.c           linux.seccomp -> instructions
 *   cgroup.c            control groups of the host
 *   net.c               the network of a pod
 *   assign.c            PCI functions of the host
 *   forward.c names.c   its loopback: connections to it, and a name server on it
 *   conf.c              /etc/insula/oci.json
 *
 * Each function returns 0 or a negative errno with a line in `e` (which names the field, its value
 * and what was expected: "linux.cgroupsPath: ..."), and leaves nothing behind when it fails. One
 * thread everywhere. JSON objects that are parameters are borrowed and may be NULL (absent);
 * members that the specification calls unknown are ignored, members of a wrong type are errors.
 */
#ifndef OCI_OCI_H
#define OCI_OCI_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <json-c/json.h>

#include <insula/container.h>
#include <insula/err.h>

#define OCI_VERSION "1.2.0"

/* config.json of a bundle, as bundle_read() has checked it: types of what is named here, version,
 * at most BUNDLE_MAX bytes and BUNDLE_DEPTH deep. */
#define BUNDLE_MAX (4u << 20)
#define BUNDLE_DEPTH 32
struct bundle {
	char path[PATH_MAX];   /* of the bundle: absolute, resolved */
	char rootfs[PATH_MAX]; /* of its root: absolute, resolved, a directory */
	json_object *spec;     /* all of it; owned. The others are borrowed from it, or NULL */
	json_object *process, *linux_, *mounts, *hooks, *annotations;
};

#endif
