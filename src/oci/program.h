/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Is the program of a container's first process in its root file system?
 *
 * runc finds out at `create`, and podman and docker take the words for status 127 or 126 from what
 * `create` says; the guest finds out at `start`, when nobody asks any more. So `create` looks, in
 * the root on the host. It refuses only what cannot come right in the guest: whatever a mount of
 * the container or a symbolic link may change is left to the guest.
 */
#ifndef OCI_PROGRAM_H
#define OCI_PROGRAM_H

#include "oci.h"

/* -ENOENT, -EACCES: it is not there, or cannot be executed, in the words that callers look for. */
int program_check(const struct bundle *b, struct err *e);

#endif
