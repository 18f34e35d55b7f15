/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Bundles, and the JSON that commands are given. What matters to this file is checked: the version
 * (any 1.x, as runtime-spec's config.md promises for one major version), types of the members of
 * struct bundle, the root. What the members hold is checked by whoever makes something of it.
 */
#ifndef OCI_BUNDLE_H
#define OCI_BUNDLE_H

#include "oci.h"

/* `dir` NULL: the current one. On error nothing is held. */
int bundle_read(struct bundle *b, const char *dir, struct err *e);
void bundle_free(struct bundle *b);

/* An object out of a file ("-": standard input) of at most BUNDLE_MAX bytes; the caller's. `what`
 * names it in messages. */
int bundle_object(const char *path, const char *what, json_object **out, struct err *e);

/* What a pod's manager says of a container. */
enum bundle_role { BUNDLE_ALONE, BUNDLE_SANDBOX, BUNDLE_MEMBER };
/* By the annotations of containerd and CRI-O; *sandbox: whose VM it joins, borrowed; NULL unless
 * BUNDLE_MEMBER. */
int bundle_role(const struct bundle *b, enum bundle_role *role, const char **sandbox,
		struct err *e);
/* linux.namespaces: is there one of this type, and what is its path (NULL: a new one)? */
bool bundle_namespace(const struct bundle *b, const char *type, const char **path);

/* An id that may name a directory (container.h, CT_ID_MAX). */
int bundle_check_id(const char *id, struct err *e);

#endif
