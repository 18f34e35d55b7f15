/* SPDX-License-Identifier: BSD-2-Clause */
/* The methods for devices of a VM that runs. See methods.h. What a device may be is checked with
 * insula-run's own code; what is behind it the supervisor opens, with the rights of its user. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>

#include "machine.h"
#include "method.h"
#include "methods.h"
#include "request.h"
#include "spec/config.h"
#include "spec/json.h"
#include "talk.h"

#define ADD_MS 60000 /* the supervisor has deadlines of its own */
#define REMOVE_SPARE_MS 30000
#define REMOVE_DEFAULT_MS 30000

void method_vm_device_restart(struct daemon *d, struct request *r)
{
	struct machine *m = method_machine(d, r);
	json_object *params;

	if (!m)
		return;
	params = json_object_new_object();
	j_str(params, "device", j_get_str(r->params, "device", ""));
	talk_ask(m, "device-restart", params, method_pass_on, r, false);
}

void method_vm_device_list(struct daemon *d, struct request *r)
{
	struct machine *m = method_active(d, r);

	if (m)
		talk_ask(m, "devices", NULL, method_pass_on, r, false);
}

/* ---- what a VM may send, and how fast: its supervisor knows the words ---- */

static void pass_on(struct daemon *d, struct request *r, const char *op, const char *const *keys,
		    size_t n)
{
	struct machine *m = method_machine(d, r);
	json_object *params;

	if (!m)
		return;
	params = json_object_new_object();
	for (size_t i = 0; i < n; i++) {
		json_object *v = j_get(r->params, keys[i]);

		if (v)
			j_obj(params, keys[i], json_object_get(v));
	}
	talk_ask(m, op, params, method_pass_on, r, false);
}

void method_vm_net_policy(struct daemon *d, struct request *r)
{
	static const char *const keys[] = {"device", "allow", "serve", "from", "off"};

	pass_on(d, r, "net-policy", keys, ARRAY_LEN(keys));
}

void method_vm_limits(struct daemon *d, struct request *r)
{
	static const char *const keys[] = {"device", "rate", "pps", "iops"};

	pass_on(d, r, "limits", keys, ARRAY_LEN(keys));
}

/* The one path that a device has, and the member that has it; NULL: none. */
static const char *path_of(const struct vm_config *c, const char **member)
{
	*member = "";
	if (c->nnets) {
		*member = ".socket";
		return c->net[0].kind == NET_ON_SOCKET ? c->net[0].name : NULL;
	}
	if (c->nvhosts) {
		*member = ".socket";
		return c->vhost[0].socket;
	}
	if (c->nvfios)
		return NULL;
	if (c->console_given)
		return c->console_file;
	if (c->nshares)
		return c->share[0].dir;
	*member = ".path";
	if (c->vsock.on)
		return c->vsock.path;
	return config_module(c->disk[0].path) ? NULL : c->disk[0].path;
}

static bool device_refused(struct request *r, const char *kind, const char *member,
			   const char *value)
{
	char field[64];

	snprintf(field, sizeof(field), "config.%s%s", kind, member);
	method_refuse_field(r, RPC_BAD_PARAMS, "config", field, value, "an absolute path");
	return false;
}

/* A supervisor's directory is another one than the client's. */
static bool device_paths(struct request *r, const struct vm_config *c, const char *kind)
{
	const char *member, *path = path_of(c, &member);

	if (path && !path_is_absolute(path))
		return device_refused(r, kind, member, path);
	if (c->ndisks && c->disk[0].overlay && !c->disk[0].thrown_away &&
	    !path_is_absolute(c->disk[0].overlay))
		return device_refused(r, kind, ".overlay", c->disk[0].overlay);
	return true;
}

static bool device_is_good(struct request *r, json_object *config)
{
	struct vm_config *c = calloc(1, sizeof(*c));
	const char *kind = "";
	struct err e;
	bool ok = false;

	if (!c) {
		method_refuse(r, RPC_INTERNAL, "no-memory", NULL);
		return false;
	}
	config_init(c);
	if (config_plug(c, config, &kind, &e))
		method_refuse_config(r, &c->mistake, e.text);
	else
		ok = device_paths(r, c, kind);
	config_free(c);
	free(c);
	return ok;
}

void method_vm_device_add(struct daemon *d, struct request *r)
{
	struct machine *m = method_machine(d, r);
	json_object *params, *config = j_get(r->params, "config");

	if (!m || !device_is_good(r, config))
		return;
	params = json_object_new_object();
	j_obj(params, "config", json_object_get(config));
	j_str(params, "device", j_get_str(r->params, "device", NULL));
	talk_ask_long(m, "device-add", params, method_pass_on, r, ADD_MS);
}

void method_vm_device_remove(struct daemon *d, struct request *r)
{
	struct machine *m = method_machine(d, r);
	int64_t ms = j_get_int(r->params, "timeout_ms", REMOVE_DEFAULT_MS);
	json_object *params;

	if (!m)
		return;
	params = json_object_new_object();
	j_str(params, "device", j_get_str(r->params, "device", ""));
	j_bool(params, "force", j_get_bool(r->params, "force", false));
	j_int(params, "timeout_ms", ms);
	talk_ask_long(m, "device-remove", params, method_pass_on, r,
		      (uint64_t)ms + REMOVE_SPARE_MS);
}
