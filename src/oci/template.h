/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Templates: a sandbox's VM that has booted and has nothing of a container yet, saved
 * (docs/snapshots.md, Templates). A container's VM goes on from one instead of booting, if there is
 * one of its size in `templates` of the configuration:
 *
 *   TEMPLATES/NAME/template.json   what it is for, struct template_key as JSON
 *                  snapshot/       of insula-run
 *
 * The name says memory, processors and cards, so it is found without a search. The rest of the key
 * is compared; kernel and initrd are insula-run's to compare, which refuses a stale one.
 *
 * Whoever can write to a template decides what runs in each VM that is made of it: everything has
 * to be the user's own, and nobody else may write to it.
 */
#ifndef OCI_TEMPLATE_H
#define OCI_TEMPLATE_H

#include "conf.h"
#include "oci.h"

#define TEMPLATE_NAME_MAX 64
#define TEMPLATE_FILE "template.json"
#define TEMPLATE_SNAPSHOT "snapshot"

/* `cards`: of the network. */
void template_name(const struct vm_size *size, unsigned cards, char name[TEMPLATE_NAME_MAX]);
/* What a template must be for to serve such a VM; the caller's. -ENOENT: none can, as the line
 * says. */
int template_key(const struct oci_conf *conf, const struct vm_size *size, unsigned cards,
		 json_object **key, struct err *e);
/* The directory; -ENOENT: it is not there (and `make` false). -EPERM: somebody else can write to
 * it. */
int template_top(const struct oci_conf *conf, bool make, struct err *e);
/* insula-run takes it by its path: -EPERM if others may write to a directory that leads to this
 * one, and so put another one there. */
int template_way(const char *path, struct err *e);
/* The snapshot for a VM with so many cards. -ENOENT: there is none, and the line says so; anything
 * else: there is one that cannot be used. */
int template_find(const struct oci_conf *conf, const struct vm_size *size, unsigned cards,
		  char path[PATH_MAX], struct err *e);
/* The directory `name` in that of the templates is one; *key, which may be NULL: what for (the
 * caller's). */
int template_check(int top, const char *name, json_object **key, struct err *e);

#endif
