/* SPDX-License-Identifier: BSD-2-Clause */
/* linux.seccomp (runtime-spec, config-linux.md "Seccomp") -> instructions of the guest's kernel, by
 * libseccomp. A system call whose name libseccomp does not know is left out, as runc does; numbers
 * above all that the filter names are answered with ENOSYS, so that a C library of tomorrow takes
 * its older way. */
#ifndef OCI_SECCOMP_H
#define OCI_SECCOMP_H

#include "oci.h"

struct sock_filter;

/* *insn (the caller's) of *n instructions, at most CT_FILTER_MAX; *flags as seccomp(2) takes them.
 * SCMP_ACT_NOTIFY is refused in words. */
int seccomp_build(json_object *seccomp, struct sock_filter **insn, size_t *n, unsigned *flags,
		  struct err *e);
/* The same into a new file `name` in the directory `at`. */
int seccomp_write(json_object *seccomp, int at, const char *name, unsigned *flags, struct err *e);
/* For `features`: the names of actions, operators, archs and flags that it takes; the caller's. */
json_object *seccomp_features(void);

#endif
