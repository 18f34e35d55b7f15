/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * vm.run with "pool": a VM that stands is given to the client. If there is none, or those that are
 * tried do not answer, one is started by the pool's configuration. See pool.h.
 */
#include <stdio.h>
#include <string.h>

#include <insula/base.h>
#include <insula/log.h>

#include "client.h"
#include "daemon.h"
#include "dlog.h"
#include "machine.h"
#include "method.h"
#include "methods.h"
#include "pool.h"
#include "request.h"
#include "spec/json.h"
#include "talk.h"

#define TAKE_TRIES 2
#define TAKE_MS 4000 /* the supervisor has 3 s for insula-vmm */

static void run_or_take(struct daemon *d, struct request *r);

static int64_t timeout_of(const struct request *r)
{
	return j_get_int(j_get(r->params, "config"), "timeout", 0);
}

/* ---- what may differ ---- */

static bool may_differ(struct request *r)
{
	json_object *config = j_get(r->params, "config");
	char field[96], value[128];

	if (!config)
		return true;
	json_object_object_foreach(config, key, v)
	{
		if (!strcmp(key, "timeout"))
			continue;
		snprintf(field, sizeof(field), "config.%.80s", key);
		snprintf(value, sizeof(value), "%.127s", j_text(v));
		method_refuse_field(r, RPC_BAD_PARAMS, "config", field, value,
				    "none with a pool, whose configuration says it; only timeout");
		return false;
	}
	return vm_config_is_good(r);
}

/* ---- none stands ---- */

static void run_another(struct pool *p, struct request *r)
{
	json_object *config = pool_config(p, false, timeout_of(r));

	if (!config) {
		method_refuse(r, RPC_INTERNAL, "no-memory", NULL);
		return;
	}
	p->missed++;
	j_obj(r->params, "config", config);
	vm_run_now(p->d, r);
}

/* ---- one that stands ---- */

/* It is nobody's, and the name is free again for another one. */
static void not_taken(struct machine *m, json_object *error)
{
	dlog(LOG_LVL_WARN, m, "it stood in a pool and could not be taken: %s",
	     j_get_str(error, "text", "no reason"));
	pool_vm_is_nobodys(m);
	/* "ended" is said of a connection, too. */
	if (machine_active(m))
		pool_end_vm(m);
}

static void was_taken(struct machine *m, struct request *r)
{
	struct err e;

	if (m->r.state != VM_STOPPING)
		machine_set_state(m, VM_RUNNING);
	if (machine_taken(m, &e))
		dlog(LOG_LVL_ERROR, m, "%s", e.text);
	request_close_fds(r); /* the supervisor has them */
	if (!r->client)
		request_free(r);
	else if (j_get_bool(r->params, "wait", false))
		machine_hold(m, r, 0);
	else
		request_answer(r, machine_json(m, false));
}

static void on_take_answered(struct machine *m, struct request *r, json_object *result,
			     json_object *error, int fd)
{
	struct daemon *d = m->d;

	(void)result, (void)fd;
	for (struct pool *p = d->pools; p; p = p->next)
		pool_tend_soon(p);
	if (!error) {
		was_taken(m, r);
		return;
	}
	not_taken(m, error);
	if (r->client)
		run_or_take(d, r);
	else
		request_free(r);
}

/* With the rights that its owner has now, for the VMs to come. */
static void renew_owner(struct pool *p, const struct owner *who)
{
	const struct owner *is = &p->r.owner;
	bool same = is->gid == who->gid && is->ngroups == who->ngroups &&
		    !memcmp(is->groups, who->groups, who->ngroups * sizeof(*who->groups));
	struct err e;

	if (same)
		return;
	p->r.owner = *who;
	if (pool_save(p, &e))
		dlog(LOG_LVL_ERROR, NULL, "pool %s: %s", p->r.name, e.text);
}

static void take_standing(struct pool *p, struct machine *m, struct request *r)
{
	const char *name = j_get_str(r->params, "name", NULL);
	json_object *params = json_object_new_object();
	int64_t timeout = timeout_of(r);
	struct err e;

	if (name)
		snprintf(m->r.name, sizeof(m->r.name), "%s", name);
	m->r.transient = !j_get_bool(r->params, "keep", false);
	m->r.started_ms = now_ms();
	if (timeout) /* for its next starts, should it be kept */
		(void)record_config(&m->r, pool_config(p, true, timeout));
	/* It is the pool's on the disk until it goes on. */
	if (machine_note(m, &e))
		dlog(LOG_LVL_ERROR, m, "%s", e.text);
	m->r.pool[0] = 0;
	p->taken++;
	j_str(params, "vm", m->r.name);
	j_int(params, "timeout", timeout);
	talk_lend(m, "take", params, on_take_answered, r, TAKE_MS);
}

static void run_or_take(struct daemon *d, struct request *r)
{
	const char *name = j_get_str(r->params, "pool", "");
	struct pool *p = pool_own(d, r->client, name);
	struct machine *m = p && r->tries < TAKE_TRIES ? pool_pick(p) : NULL;

	if (!p) {
		method_refuse_field(r, RPC_NOT_FOUND, "not-found", "pool", name,
				    "the name of a pool of this user");
		return;
	}
	renew_owner(p, &r->client->who);
	if (!m) {
		run_another(p, r);
	} else {
		r->tries++;
		take_standing(p, m, r);
	}
}

void pool_run(struct daemon *d, struct request *r)
{
	const char *name = j_get_str(r->params, "name", NULL);

	if (vm_name_is_good(r, name) && vm_name_is_free(d, r, name) && may_differ(r) &&
	    vm_streams_are_good(r))
		run_or_take(d, r);
}
