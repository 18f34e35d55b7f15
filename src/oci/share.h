/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The directory that a VM shares with the host (CT_SHARE in the guest): DIR is
 * --root/SANDBOX/share, made by share_make() as a mount of its own with shared propagation, so that
 * what is mounted beneath it later reaches virtiofsd, which has a mount namespace of its own. It is a
 * tmpfs of limited size and number of files: the guest can write all of it, and must not fill /run.
 *
 * Nothing in it is trusted once the guest runs: it is opened by descriptor, beneath DIR, without
 * following a link.
 */
#ifndef OCI_SHARE_H
#define OCI_SHARE_H

#include "oci.h"

/* Make DIR, which must not exist. DIR/sandbox, the file of the machine's records, is the caller's. */
int share_make(const char *dir, struct err *e);
/* DIR/ID: rootfs bind mount, m/N for each mount of the bundle that is a bind (order of mounts[]).
 * source[i] (nmounts of them, freed by the caller) becomes the path in the guest, or "". */
int share_container(const char *dir, const char *id, const struct bundle *b, char ***source,
		    unsigned *nsources, struct err *e);
/* DIR/ID: unmount, remove. All that can be is done; 0 if nothing is mounted in it any more. What a
 * guest has put there and cannot be removed stays, with a warning, as long as its VM. */
int share_drop(const char *dir, const char *id, struct err *e);
/* All of DIR, with what is left in it. */
int share_remove(const char *dir, struct err *e);

/* Is it the top of a mount? DIR is not, where it is seen from another mount namespace. */
bool share_is_mount(int fd);
/* A descriptor of DIR/ID, beneath DIR, no links; `top`: one of DIR. */
int share_enter(int top, const char *id, struct err *e);
/* A status file `name` in that directory: regular, at most CT_STATUS_MAX bytes; into `line` without
 * its line end, cleaned (err_clean). -ENOENT: not there yet. */
int share_status(int at, const char *name, char line[CT_STATUS_MAX + 1], struct err *e);

#endif
