/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The metadata service of a VM: the tree, which outlives helpers, and insula-metadata, which serves
 * it to the guest at 169.254.169.254 of one card.
 *
 * The tree is the owner's: --metadata, or insulad's clients. It is parsed and changed here, and handed
 * over flat (insula/metadata.h). Both ends of the pair of sockets between insula-net and
 * insula-metadata are kept, so each of the two may die and come back without the other. A helper
 * that dies is replaced as a device's is (restart.h); tokens and open connections go with it, and
 * guests ask again. It is none of the guest's devices: nothing waits for it once the guest runs.
 *
 *   metadata_tree.c   the tree: checks, RFC 7396, its flat form. On every system, and without a VM
 *   metadata.c        the process. Linux alone: metadata_win.c says so
 *
 * Thread: the supervisor's. Nothing here waits.
 */
#ifndef SUPERVISOR_METADATA_H
#define SUPERVISOR_METADATA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <json-c/json.h>

#include <insula/err.h>

struct net_config;
struct vm;
struct vm_config;

#define METADATA_TREE_DEPTH 12 /* objects in objects, arrays count as well */

/* ---- metadata_tree.c ---- */

/* The tree that a text is; the caller's. NULL: e says why not. */
json_object *metadata_parse(const char *text, size_t len, struct err *e);
/* Can it be served? -EINVAL says what cannot. */
int metadata_check(json_object *tree, struct err *e);
/* `tree` with a merge patch (RFC 7396) applied, a new one, the caller's; NULL: out of memory. */
json_object *metadata_merge(json_object *tree, json_object *patch);
/* As insula-metadata takes it; the caller's (free()). 0, or e says why not. */
int metadata_flatten(json_object *tree, void **blob, size_t *len, struct err *e);
/* On one line, of at most METADATA_JSON_MAX bytes; owned by the tree. */
const char *metadata_text(json_object *tree);

/* ---- metadata.c ---- */

/* Read and check what the user named; a socket pair unless `check_only`. A VM without metadata: 0,
 * and nothing. Once conf is whole. */
int metadata_open(struct vm *vm, bool check_only, struct err *e);
/* Are tokens optional? */
bool metadata_is_open(const struct vm_config *c);
/* The helper. */
int metadata_start(struct vm *vm, struct err *e);
/* It is at work, or there is none to be. */
bool metadata_ready(const struct vm *vm);
/* insula-net's end of the pair if this card has the service, else -1. Borrowed. */
int metadata_net_end(const struct vm *vm, const struct net_config *card);
/* When metadata_tend() wants to be called, clock_ns(); 0: not by itself. */
uint64_t metadata_due(const struct vm *vm);
void metadata_tend(struct vm *vm);
/* End it, for good. */
void metadata_stop(struct vm *vm);
void metadata_close(struct vm *vm);
/* The process, or NULL. */
const struct child *metadata_child(const struct vm *vm);

/* The tree, borrowed; NULL: this VM has no service. */
json_object *metadata_tree(const struct vm *vm);
/* From now on it is this one, or with `patch` the old one with that patch applied. 0, -EOPNOTSUPP (no
 * service), or a negative errno; then nothing has changed. */
int metadata_change(struct vm *vm, json_object *tree, bool patch, struct err *e);

#endif
