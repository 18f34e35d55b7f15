/* SPDX-License-Identifier: BSD-2-Clause */
/* /etc/insula/oci.json (another by INSULA_OCI_CONFIG or --config FILE), and the size of a VM. */
#ifndef OCI_CONF_H
#define OCI_CONF_H

#include "oci.h"

struct oci_conf {
	uint64_t mem;          /* bytes of a VM without a limit */
	uint64_t mem_min;      /* of a VM at the least */
	uint64_t mem_overhead; /* what the guest itself needs beside the containers' limit */
	uint64_t overhead; /* of the host's processes of a VM: beside its memory, in its group */
	unsigned cpus, cpus_max;
	char kernel[PATH_MAX];     /* "": insula-run's own choice */
	char supervisor[PATH_MAX]; /* "": insula-run beside this program, or in PATH */
	bool log_guest;            /* the console of the guest goes to a file */
	json_object *vm;   /* an object: members added to the VM's configuration; owned; NULL */
	char net_host[16]; /* host network: "none", "user" */
	char net_mode[16]; /* "tc", "macvtap" */
};

/* Defaults, then the file, if there is one. -EINVAL names file, field, value, what was expected. */
int conf_read(struct oci_conf *c, const char *path, struct err *e);
void conf_free(struct oci_conf *c);
/* The VM's size: the sandbox's annotations (containerd's and CRI-O's of the pod's resources, and
 * our own insula.mem, insula.cpus, insula.kernel ...), else its limits, else the defaults. */
struct vm_size {
	uint64_t mem;
	unsigned cpus;
};
int conf_size(const struct oci_conf *c, const struct bundle *b, struct vm_size *s, struct err *e);

#endif
