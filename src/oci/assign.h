/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * PCI functions of the host that a container asks for.
 *
 * It asks by nodes of VFIO in linux.devices, as device plugins, CDI and --device put them there: a
 * node is an IOMMU group, and all of the group's functions that are on vfio-pci are assigned to the
 * VM. Or by an annotation, ASSIGN_ANNOTATION. What the guest gets is the functions, and the
 * container gets the nodes that the guest's drivers make for them (container.h, pci=): a node of
 * VFIO itself is never made, for it means nothing there.
 *
 * A VM gets its functions when it is made. A container that joins one may ask for what it has.
 *
 * `sys` is "/sys", but for tests. Thread: the command's.
 */
#ifndef OCI_ASSIGN_H
#define OCI_ASSIGN_H

#include "oci.h"
#include "rec.h"
#include "spec/config.h"

#define ASSIGN_MAX CONFIG_MAX_VFIOS
#define ASSIGN_ANNOTATION "io.insula.vm.vfio"

struct assign {
	/* What the container asks for. */
	struct assign_group {
		unsigned number;
		int64_t mode, uid, gid; /* of its node, and so of those of the guest */
		char where[64];         /* who asked, for messages */
	} group[ASSIGN_MAX];
	unsigned ngroups;
	/* What its VM has, in the order in which the VM is given them: the guest has the ith as
	 * 0000:00:(1 + i).0. */
	struct assign_function {
		unsigned group;
		char address[CONFIG_VFIO_LEN + 1];
	} function[ASSIGN_MAX];
	unsigned nfunctions;
};

/* Find the groups. `annotation`: the configuration lets annotations name functions. Nodes of a
 * container that may use all devices are no request, unless a rule of their own allows them: a
 * privileged one has all nodes of the host. -EINVAL: it cannot be had. */
int assign_wanted(const char *sys, const struct bundle *b, bool annotation, struct assign *a,
		  struct err *e);
/* Of a VM that is made: find their functions. -EINVAL: none of them is on vfio-pci, or there are
 * more than ASSIGN_MAX. */
int assign_functions(const char *sys, struct assign *a, struct err *e);
/* Of a VM that runs, that of `sandbox`: assign_json() of when it was made; NULL: it has none.
 * -EOPNOTSUPP: it has not got one of the groups. */
int assign_join(struct assign *a, json_object *had, const char *sandbox, struct err *e);
/* For state.json, and for the VM's configuration; the caller's, NULL: no functions. */
json_object *assign_json(const struct assign *a);
json_object *assign_config(json_object *had);
/* pci= records. */
void assign_records(const struct assign *a, struct rec *r);

/* Is this element of linux.devices a node of VFIO, and this one of linux.resources.devices about
 * one? Then the guest does not get it. Whatever is wrong with an element is somebody else's. */
bool assign_takes(const char *sys, json_object *device);
bool assign_takes_rule(const char *sys, json_object *rule);

#endif
