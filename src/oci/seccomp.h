/* SPDX-License-Identifier: BSD-2-Clause */
/* linux.seccomp -> instructions of the guest's kernel, by libseccomp. */
#ifndef OCI_SECCOMP_H
#define OCI_SECCOMP_H

#include "oci.h"

/* A new file `name` in the directory `at`: an array of struct sock_filter, at most CT_FILTER_MAX.
 * *flags as seccomp(2) takes them. SCMP_ACT_NOTIFY is refused in words. */
int seccomp_write(json_object *seccomp, int at, const char *name, unsigned *flags, struct err *e);
/* For `features`: the names of actions, operators, archs and flags that it takes. */
json_object *seccomp_features(void);

#endif
