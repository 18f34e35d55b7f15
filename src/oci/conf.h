/* SPDX-License-Identifier: BSD-2-Clause */
/* /etc/insula/oci.json (another by INSULA_OCI_CONFIG or --config FILE), and the size of a VM. See
 * insula-oci.json(5). */
#ifndef OCI_CONF_H
#define OCI_CONF_H

#include "oci.h"

#define CONF_FILE "/etc/insula/oci.json"
#define CONF_FILE_MAX (64u << 10)
#define CONF_TEMPLATES "/var/lib/insula/templates"

struct oci_conf {
	uint64_t mem;          /* bytes of a VM without a limit */
	uint64_t mem_min;      /* of a VM at the least */
	uint64_t mem_overhead; /* what the guest itself needs beside the containers' limit */
	uint64_t overhead; /* of the host's processes of a VM: beside its memory, in its group */
	unsigned cpus, cpus_max;
	char kernel[PATH_MAX];     /* "": insula-run's own choice */
	char initrd[PATH_MAX];     /* "": the one that is made of the installed parts */
	char supervisor[PATH_MAX]; /* "": insula-run beside this program, or in PATH */
	char templates[PATH_MAX];  /* where they are (template.h); "": none is used */
	bool log_guest;            /* the console of the guest goes to a file */
	json_object *vm;       /* an object: members added to the VM's configuration; owned; NULL */
	char net_host[16];     /* host network: "refuse", "none", "user" */
	char net_mode[16];     /* "tc", "macvtap", "none" */
	bool port_forward;     /* connections to the loopback of a pod's namespace reach its VM's */
	char share_cache[16];  /* of virtiofsd: "auto", "always", "none" */
	unsigned hook_timeout; /* seconds, of a hook without a timeout of its own; 0: none */
	unsigned boot_timeout; /* seconds until a guest that boots takes commands */
	bool kernel_annotation; /* io.insula.vm.kernel is obeyed */
	bool vfio_annotation;   /* and io.insula.vm.vfio (assign.h) */
};

/* Defaults, then the file, if there is one; `must_exist`: somebody has named it. -EINVAL names
 * file, field, value, what was expected. */
int conf_read(struct oci_conf *c, const char *path, bool must_exist, struct err *e);
/* The same of a text. */
int conf_text(struct oci_conf *c, const char *text, size_t len, struct err *e);
void conf_free(struct oci_conf *c);

/* The VM's size and kernel: our own annotations (io.insula.vm.memory, io.insula.vm.cpus,
 * io.insula.vm.kernel), else containerd's and CRI-O's of the pod's resources, else the container's
 * limits, else the defaults. */
struct vm_size {
	uint64_t mem; /* bytes, whole pages */
	unsigned cpus;
	char kernel[PATH_MAX]; /* "": insula-run's own choice */
};
/* Of a container with that limit (0: none), without annotations. */
int conf_size_of(const struct oci_conf *c, int64_t limit, unsigned cpus, struct vm_size *s,
		 struct err *e);
int conf_size(const struct oci_conf *c, const struct bundle *b, struct vm_size *s, struct err *e);
/* `update`: -EINVAL: limits for which a VM of this size is too small. */
int conf_fits(const struct oci_conf *c, uint64_t mem, json_object *resources, struct err *e);

#endif
