/* SPDX-License-Identifier: BSD-2-Clause */
/* What methods have in common: the VM that is named, refusals, the answers of supervisors. See
 * method.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>

#include "client.h"
#include "host.h"
#include "machine.h"
#include "method.h"
#include "pool.h"
#include "record.h"
#include "request.h"
#include "spec/json.h"

/* ---- refusals ---- */

void method_refuse(struct request *r, enum rpc_code code, const char *reason, const char *text)
{
	const struct refusal why = {code, reason, NULL, NULL, NULL, text};

	request_refuse(r, &why);
}

void method_refuse_field(struct request *r, enum rpc_code code, const char *reason,
			 const char *field, const char *value, const char *expected)
{
	const struct refusal why = {code, reason, field, value, expected, NULL};

	request_refuse(r, &why);
}

/* The VM that the parameter "id" names; NULL: refused. One that is somebody else's is not there. */
struct machine *method_named(struct daemon *d, struct request *r)
{
	const char *id = j_get_str(r->params, "id", "");
	bool several;
	struct machine *m = machine_find(d, r->client, id, &several);

	if (several)
		method_refuse_field(r, RPC_NOT_FOUND, "ambiguous", "id", id,
				    "the id of a VM: several users have one of this name");
	else if (!m)
		method_refuse_field(r, RPC_NOT_FOUND, "not-found", "id", id,
				    "the id or name of a VM");
	return m;
}

struct machine *method_active(struct daemon *d, struct request *r)
{
	struct machine *m = method_named(d, r);

	if (!m || machine_active(m))
		return m;
	method_refuse_field(r, RPC_STATE, "wrong-state", "state", vm_state_names[m->r.state],
			    "a VM that runs");
	return NULL;
}

struct machine *method_machine(struct daemon *d, struct request *r)
{
	struct machine *m = method_active(d, r);

	if (!m || !m->r.pool[0])
		return m;
	method_refuse_field(r, RPC_STATE, "wrong-state", "pool", pool_name_of(m),
			    "a VM that vm.run has taken from its pool");
	return NULL;
}

/* ---- supervisors' answers ---- */

static const struct {
	const char *reason;
	enum rpc_code code;
} codes[] = {{"wrong-state", RPC_STATE},
	     {"busy", RPC_BUSY},
	     {"timeout", RPC_TIMEOUT},
	     {"ended", RPC_STATE},
	     {"not-ready", RPC_STATE},
	     {"no-agent", RPC_UNSUPPORTED},
	     {"no-console", RPC_UNSUPPORTED},
	     {"unknown-op", RPC_UNSUPPORTED},
	     {"no-balloon", RPC_UNSUPPORTED},
	     {"no-resize", RPC_UNSUPPORTED},
	     {"no-hotplug", RPC_UNSUPPORTED},
	     {"no-metadata", RPC_UNSUPPORTED},
	     {"limit", RPC_LIMIT},
	     {"not-found", RPC_NOT_FOUND},
	     {"bad-params", RPC_BAD_PARAMS},
	     {"failed", RPC_FAILED}};

void method_refuse_as(struct request *r, json_object *error)
{
	const char *reason = j_get_str(error, "reason", "failed");

	for (size_t i = 0; i < ARRAY_LEN(codes); i++) {
		if (!strcmp(codes[i].reason, reason)) {
			method_refuse(r, codes[i].code, codes[i].reason,
				      j_get_str(error, "text", NULL));
			return;
		}
	}
	method_refuse(r, RPC_FAILED, "failed", j_get_str(error, "text", NULL));
}

/* What it said, as it is. */
void method_pass_on(struct machine *m, struct request *r, json_object *result, json_object *error,
		    int fd)
{
	(void)m;
	if (error)
		method_refuse_as(r, error);
	else
		request_answer_fd(r, json_object_get(result), fd);
}

/* ---- streams ---- */

int method_streams(struct request *r)
{
	json_object *names = j_get(r->params, "streams");
	size_t n = names ? json_object_array_length(names) : 0;

	if (!n || host_names_streams)
		return (int)(r->nfds + n);
	method_refuse_field(r, RPC_BAD_PARAMS, "descriptor", "streams", NULL,
			    "descriptors that come with the request, on this system");
	return -1;
}

const char *method_owner(const struct request *r)
{
	return r->client->who.uid ? r->client->who.sid : NULL;
}
