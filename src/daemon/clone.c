/* SPDX-License-Identifier: BSD-2-Clause */
/* Clones of a VM that runs. See clone.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>

#include "clone.h"
#include "daemon.h"
#include "event.h"
#include "machine.h"
#include "method.h"
#include "methods.h"
#include "client.h"
#include "request.h"
#include "spec/json.h"
#include "talk.h"

#define CLONE_NAME 128
#define CLONE_MS 3600000 /* the supervisor has deadlines of its own */
#define CLONE_PLACE "/var/tmp"

struct clones {
	struct request *r; /* NULL: answered */
	struct daemon *d;
	char source[ID_LEN + 1];
	char path[128];
	unsigned waits; /* clones that have not begun, and one for who makes them */
	json_object *vms;
	int64_t paused_us;
	char failed[256]; /* why one of them ended before it ran; "" */
};

/* One that has ended meanwhile, and is gone with it, as it was made. */
static json_object *as_they_are(const struct clones *c)
{
	json_object *o = json_object_new_object(), *list = json_object_new_array();

	for (size_t i = 0; i < json_object_array_length(c->vms); i++) {
		json_object *made = json_object_array_get_idx(c->vms, i);
		const struct machine *m = machine_by_id(c->d, j_get_str(made, "id", ""));

		json_object_array_add(list, m ? machine_json(m, false) : json_object_get(made));
	}
	j_obj(o, "vms", list);
	j_int(o, "paused_us", c->paused_us);
	return o;
}

/* The source has removed its snapshot; if it could not, it does so at its end. What the request is
 * answered with took the place of its parameters. */
static void removed(struct machine *m, struct request *r, json_object *result, json_object *error,
		    int fd)
{
	const char *failed = r ? j_get_str(r->params, "failed", NULL) : NULL;

	(void)m, (void)result, (void)error, (void)fd;
	if (failed)
		method_refuse(r, RPC_FAILED, "start-failed", failed);
	else if (r)
		request_answer(r, json_object_get(r->params));
}

/* All or none. */
static void give_up(const struct clones *c)
{
	for (size_t i = 0; i < json_object_array_length(c->vms); i++) {
		json_object *made = json_object_array_get_idx(c->vms, i);
		struct machine *m = machine_by_id(c->d, j_get_str(made, "id", ""));

		if (m && machine_active(m))
			machine_shoot(m);
	}
}

static json_object *what_to_say(const struct clones *c)
{
	json_object *o;

	if (!c->failed[0])
		return as_they_are(c);
	o = json_object_new_object();
	j_str(o, "failed", c->failed);
	return o;
}

static void let_go(struct clones *c)
{
	struct machine *source;

	if (--c->waits)
		return;
	if (c->r && c->failed[0])
		give_up(c);
	if (c->r) {
		json_object_put(c->r->params);
		c->r->params = what_to_say(c);
	}
	source = machine_by_id(c->d, c->source);
	if (source && machine_active(source))
		talk_ask(source, "snapshot-remove", NULL, removed, c->r, false);
	else
		removed(NULL, c->r, NULL, NULL, -1);
	json_object_put(c->vms);
	free(c);
}

void clone_has_begun(struct machine *m)
{
	struct clones *c = m->clones;
	json_object *result;

	m->clones = NULL;
	if (!c)
		return;
	if (m->r.state == VM_ENDED) {
		result = machine_result(m);
		snprintf(c->failed, sizeof(c->failed), "%s",
			 j_get_str(result, "message", "a clone has ended before it ran"));
		json_object_put(result);
	}
	let_go(c);
}

/* Of the clone `i`; NULL: any will do. */
static const char *clone_name(json_object *params, unsigned i, char text[CLONE_NAME])
{
	const char *name = j_get_str(params, "name", NULL);

	if (!name || j_get_int(params, "count", 1) == 1)
		return name;
	snprintf(text, CLONE_NAME, "%s-%u", name, i + 1);
	return text;
}

/* What the clone differs in is the client's to say; how large it is, is not. Unless it says
 * otherwise, the clone is a machine of its own. */
static json_object *clone_params(const struct clones *c, const struct machine *source, unsigned i)
{
	json_object *given = j_get(c->r->params, "config"), *config = NULL, *o;
	char text[CLONE_NAME], cpus[32], size[64];

	if (!given || json_object_deep_copy(given, &config, NULL))
		config = json_object_new_object();
	j_str(config, "restore", c->path);
	if (!j_get(config, "identity"))
		j_str(config, "identity", "new");
	if (source->r.cpus_max) {
		snprintf(cpus, sizeof(cpus), "%u,max=%u", source->r.cpus, source->r.cpus_max);
		j_str(config, "cpus", cpus);
	} else {
		j_int(config, "cpus", source->r.cpus);
	}
	if (source->r.mem_max) {
		snprintf(size, sizeof(size), "%llu,max=%llu",
			 (unsigned long long)source->r.mem_boot,
			 (unsigned long long)source->r.mem_max);
		j_str(config, "mem", size);
	} else {
		j_int(config, "mem", (int64_t)source->r.mem);
	}
	o = json_object_new_object();
	j_int(o, "mem_now", (int64_t)source->r.mem);
	j_obj(o, "config", config);
	j_str(o, "name", clone_name(c->r->params, i, text));
	return o;
}

/* False: the request has been refused, and is not ours any more. */
static bool one_clone(struct clones *c, const struct machine *source, unsigned i)
{
	struct request *r = c->r;
	json_object *kept = r->params;
	struct machine *m;

	r->params = clone_params(c, source, i);
	m = vm_begin_clone(c->d, r);
	if (!m) {
		c->r = NULL;
		return false;
	}
	json_object_put(r->params);
	r->params = kept;
	m->clones = c;
	c->waits++;
	json_object_array_add(c->vms, machine_json(m, false));
	return true;
}

static void cloned(struct machine *m, struct request *r, json_object *result, json_object *error,
		   int fd)
{
	unsigned n = (unsigned)j_get_int(r->params, "count", 1);
	struct clones *c = error ? NULL : calloc(1, sizeof(*c));

	(void)fd;
	if (!c) {
		if (error)
			method_refuse_as(r, error);
		else
			method_refuse(r, RPC_INTERNAL, "no-memory", NULL);
		return;
	}
	c->d = m->d;
	c->r = r;
	c->waits = 1;
	c->paused_us = j_get_int(result, "paused_us", 0);
	c->vms = json_object_new_array();
	snprintf(c->source, sizeof(c->source), "%s", m->r.id);
	snprintf(c->path, sizeof(c->path), "%s", j_get_str(result, "path", ""));
	if (!r->client) { /* nobody wants them any more */
		request_free(r);
		c->r = NULL;
		n = 0;
	}
	for (unsigned i = 0; i < n; i++) {
		if (!one_clone(c, m, i))
			break;
	}
	let_go(c);
}

void method_vm_clone(struct daemon *d, struct request *r)
{
	const char *place = j_get_str(r->params, "place", CLONE_PLACE);
	struct machine *m = method_machine(d, r);
	json_object *params;
	char path[96], name[CLONE_NAME];
	size_t n;

	if (!m)
		return;
	if (!path_is_absolute(place) || strlen(place) > 60) {
		method_refuse_field(r, RPC_BAD_PARAMS, "value", "place", place,
				    "an absolute path of at most 60 bytes");
		return;
	}
	for (unsigned i = 0; i < (unsigned)j_get_int(r->params, "count", 1); i++) {
		if (!vm_name_is_free(d, r, clone_name(r->params, i, name)))
			return;
	}
	n = (size_t)snprintf(path, sizeof(path), "%s/insula-clone-", place);
	random_hex(path + n, 16);
	params = json_object_new_object();
	j_str(params, "path", path);
	j_bool(params, "temporary", true);
	talk_ask_long(m, "snapshot", params, cloned, r, CLONE_MS);
}
