/* SPDX-License-Identifier: BSD-2-Clause */
/* Hooks that run on the host (runtime-spec, config.md, "POSIX-platform Hooks"): prestart,
 * createRuntime, createContainer, poststart, poststop. startContainer is the guest's (container.h).
 */
#ifndef OCI_HOOK_H
#define OCI_HOOK_H

#include "oci.h"

#define HOOK_TIMEOUT_MAX 1000000 /* seconds */

/* All of `hooks`, their shapes; nothing is run. */
int hooks_check(json_object *hooks, struct err *e);
/* Those of one name, in order, with the state on their input, until one fails: it cannot be
 * started, ends with another status than 0, or has not ended at its timeout (then it is killed with
 * what it has started). timeout: seconds, of one that names none; 0: it may take for ever. netns:
 * the network namespace that they are in; -1: ours. */
int hooks_run(json_object *hooks, const char *name, json_object *state, int64_t timeout, int netns,
	      struct err *e);
/* All of them: one that fails is a line in the log (poststart, poststop). */
void hooks_run_all(json_object *hooks, const char *name, json_object *state, int64_t timeout);

#endif
