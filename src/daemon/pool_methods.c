/* SPDX-License-Identifier: BSD-2-Clause */
/* The methods about pools. See pool.h. */
#include <stdio.h>
#include <string.h>

#include <insula/base.h>

#include "client.h"
#include "daemon.h"
#include "machine.h"
#include "method.h"
#include "methods.h"
#include "pool.h"
#include "request.h"
#include "spec/json.h"
#include "spec/settings.h"
#include "state.h"

/* The pool that the parameter "name" names; NULL: refused. */
static struct pool *pool_named(struct daemon *d, struct request *r)
{
	const char *name = j_get_str(r->params, "name", "");
	bool several;
	struct pool *p = pool_find(d, r->client, name, &several);

	if (!p)
		method_refuse_field(
			r, RPC_NOT_FOUND, several ? "ambiguous" : "not-found", "name", name,
			several ? "the id of a pool: several users have one of this name"
				: "the id or name of a pool");
	return p;
}

static bool pool_config_fits(struct request *r)
{
	json_object *config = j_get(r->params, "config");

	if (settings_here == ON_WINDOWS) {
		method_refuse_field(r, RPC_BAD_PARAMS, "config", "config.restore", NULL,
				    "none: there are no pools on Windows yet");
		return false;
	}
	if (!j_get(config, "restore")) {
		method_refuse_field(r, RPC_BAD_PARAMS, "config", "config.restore", NULL,
				    "the directory of a snapshot, from which the VMs go on");
		return false;
	}
	if (j_get(config, "paused")) {
		method_refuse_field(r, RPC_BAD_PARAMS, "config", "config.paused", NULL,
				    "none: the VMs of a pool stand until they are taken");
		return false;
	}
	return true;
}

static bool room_for_pool(struct daemon *d, struct request *r)
{
	unsigned mine = 0;
	char n[16];

	for (const struct pool *p = d->pools; p; p = p->next)
		mine += p->r.owner.uid == r->client->who.uid;
	if (mine < POOL_MAX_POOLS)
		return true;
	snprintf(n, sizeof(n), "%u", mine);
	method_refuse_field(r, RPC_LIMIT, "limit", "pools", n, "fewer pools of this user");
	return false;
}

static void fill_in_pool(struct pool *p, struct request *r)
{
	random_hex(p->r.id, ID_LEN);
	random_hex(p->r.token, TOKEN_LEN); /* nobody's: a record has one */
	snprintf(p->r.name, sizeof(p->r.name), "%s", j_get_str(r->params, "name", ""));
	strcpy(p->r.boot_id, p->d->boot_id);
	p->r.created_ms = now_ms();
	p->r.owner = r->client->who;
	p->count = (unsigned)j_get_int(r->params, "count", 1);
}

void method_pool_create(struct daemon *d, struct request *r)
{
	const char *name = j_get_str(r->params, "name", "");
	struct pool *p;
	struct err e;

	if (!vm_name_is_good(r, name) || !pool_config_fits(r) || !room_for_pool(d, r))
		return;
	if (pool_own(d, r->client, name)) {
		method_refuse_field(r, RPC_EXISTS, "exists", "name", name,
				    "a name that no other pool of this user has");
		return;
	}
	p = pool_add(d);
	if (!p) {
		method_refuse(r, RPC_INTERNAL, "no-memory", NULL);
		return;
	}
	fill_in_pool(p, r);
	/* As clones are. */
	if (!j_get(j_get(r->params, "config"), "identity"))
		j_str(j_get(r->params, "config"), "identity", "new");
	if (!vm_take_config(r, &p->r)) {
		pool_forget(p);
		return;
	}
	if (pool_save(p, &e)) {
		state_remove(d->pool_state, p->r.id);
		pool_forget(p);
		method_refuse(r, RPC_INTERNAL, "state", e.text);
		return;
	}
	pool_tend_soon(p);
	request_answer(r, pool_json(p, false));
}

void method_pool_list(struct daemon *d, struct request *r)
{
	json_object *o = json_object_new_object(), *list = json_object_new_array();

	for (const struct pool *p = d->pools; p; p = p->next) {
		if (pool_visible(p, r->client))
			json_object_array_add(list, pool_json(p, false));
	}
	j_obj(o, "pools", list);
	request_answer(r, o);
}

void method_pool_info(struct daemon *d, struct request *r)
{
	const struct pool *p = pool_named(d, r);

	if (p)
		request_answer(r, pool_json(p, true));
}

void method_pool_remove(struct daemon *d, struct request *r)
{
	struct pool *p = pool_named(d, r);

	if (!p)
		return;
	p->remover = r;
	pool_remove(p);
}
