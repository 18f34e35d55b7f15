/* SPDX-License-Identifier: BSD-2-Clause */
/* Pools of VMs that stand: the list, and filling them. See pool.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>
#include <insula/log.h>

#include "client.h"
#include "daemon.h"
#include "dlog.h"
#include "event.h"
#include "listen.h"
#include "machine.h"
#include "methods.h"
#include "pool.h"
#include "request.h"
#include "spec/json.h"
#include "state.h"
#include "talk.h"
#include "watch.h"

#define END_MS 3000 /* to a supervisor that is told to end its VM */
/* The supervisor has 90 s of its own, and a second for each 16 MiB if it reads all of it. */
#define START_MS(mem) (120000 + ((mem) >> 24) * 1000)

static void pool_tend(void *ctx);

/* ---- the list ---- */

struct pool *pool_add(struct daemon *d)
{
	struct pool *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->d = d;
	p->next = d->pools;
	d->pools = p;
	return p;
}

void pool_forget(struct pool *p)
{
	struct pool **at = &p->d->pools;

	while (*at != p)
		at = &(*at)->next;
	*at = p->next;
	timer_cancel(p->again);
	record_free(&p->r);
	free(p);
}

int pool_save(struct pool *p, struct err *e)
{
	char *text = pool_print(p);
	int rc;

	if (!text)
		return err_set(e, -ENOMEM, "out of memory");
	rc = state_make(p->d->pool_state, p->r.id, e);
	if (!rc)
		rc = state_write(p->d->pool_state, p->r.id, "record.json", text, true, e);
	free(text);
	return rc;
}

bool pool_visible(const struct pool *p, const struct client *c)
{
	return !p->removed && (!c->who.uid || c->who.uid == p->r.owner.uid);
}

struct pool *pool_own(struct daemon *d, const struct client *c, const char *name)
{
	struct pool *p = d->pools;

	while (p && (p->removed || p->r.owner.uid != c->who.uid || strcmp(p->r.name, name) != 0))
		p = p->next;
	return p;
}

/* A name is one user's; root means its own first. */
struct pool *pool_find(struct daemon *d, const struct client *c, const char *which, bool *several)
{
	struct pool *own = pool_own(d, c, which), *found = NULL;

	*several = false;
	for (struct pool *p = d->pools; p; p = p->next) {
		if (!pool_visible(p, c))
			continue;
		if (!strcmp(p->r.id, which)) {
			*several = false;
			return p;
		}
		if (strcmp(p->r.name, which) != 0)
			continue;
		*several |= found && !own;
		found = p;
	}
	return own ? own : *several ? NULL : found;
}

static struct pool *pool_by_id(struct daemon *d, const char *id)
{
	struct pool *p = d->pools;

	while (p && strcmp(p->r.id, id) != 0)
		p = p->next;
	return p;
}

static struct pool *pool_of(const struct machine *m)
{
	return m->r.pool[0] ? pool_by_id(m->d, m->r.pool) : NULL;
}

const char *pool_name_of(const struct machine *m)
{
	const struct pool *p = pool_of(m);

	return p ? p->r.name : NULL;
}

static bool is_of_pool(const struct machine *m, const struct pool *p)
{
	return machine_active(m) && !strcmp(m->r.pool, p->r.id);
}

static bool may_be_taken(const struct machine *m, const struct pool *p)
{
	return is_of_pool(m, p) && m->r.state == VM_PAUSED && m->hello;
}

struct machine *pool_pick(struct pool *p)
{
	struct machine *oldest = NULL;

	for (struct machine *m = p->d->machines; m; m = m->next) {
		if (may_be_taken(m, p) && (!oldest || m->r.started_ms <= oldest->r.started_ms))
			oldest = m;
	}
	return oldest;
}

/* Its VMs in this state; VM_STATES: that live at all. */
static unsigned pool_count(const struct pool *p, enum vm_state state)
{
	unsigned n = 0;

	for (const struct machine *m = p->d->machines; m; m = m->next)
		n += is_of_pool(m, p) && (state == VM_STATES || m->r.state == state);
	return n;
}

/* In all pools of this user. */
static unsigned count_starts(const struct daemon *d, uint32_t uid)
{
	unsigned n = 0;

	for (const struct machine *m = d->machines; m; m = m->next)
		n += m->r.pool[0] && m->r.state == VM_STARTING && m->r.owner.uid == uid;
	return n;
}

json_object *pool_json(const struct pool *p, bool full)
{
	json_object *o = json_object_new_object();
	uint64_t now = clock_ns();

	j_str(o, "id", p->r.id);
	j_str(o, "name", p->r.name);
	j_int(o, "uid", p->r.owner.uid);
	if (p->r.owner.sid[0])
		j_str(o, "sid", p->r.owner.sid);
	j_int(o, "count", p->count);
	j_int(o, "standing", pool_count(p, VM_PAUSED));
	j_int(o, "starting", pool_count(p, VM_STARTING));
	j_int(o, "cpus", p->r.cpus);
	j_int(o, "mem", (int64_t)p->r.mem);
	j_int(o, "created_ms", p->r.created_ms);
	j_int(o, "taken", (int64_t)p->taken);
	j_int(o, "missed", (int64_t)p->missed);
	j_int(o, "failures", (int64_t)p->failures);
	if (p->why[0])
		j_str(o, "why", p->why);
	if (p->why[0] && p->next_ns > now)
		j_int(o, "next_try_ms", (int64_t)((p->next_ns - now) / 1000000));
	if (full)
		j_obj(o, "config", json_tokener_parse(p->r.config));
	return o;
}

/* ---- filling ---- */

static void tend_after(struct pool *p, uint64_t ms)
{
	timer_cancel(p->again);
	p->again = timer_after(&p->d->loop, ms, pool_tend, p);
	if (!p->again)
		dlog(LOG_LVL_ERROR, NULL, "pool %s: out of memory: it is not filled any more",
		     p->r.name);
}

void pool_tend_soon(struct pool *p)
{
	if (!p->again)
		tend_after(p, 0);
}

/* What one of them did not start may be another one's to start. */
static void tend_all(struct daemon *d)
{
	for (struct pool *p = d->pools; p; p = p->next)
		pool_tend_soon(p);
}

void pool_failed(struct pool *p, const char *why)
{
	uint64_t now = clock_ns();

	if (p->removed)
		return;
	p->failures++;
	snprintf(p->why, sizeof(p->why), "%s", why);
	err_clean(p->why);
	if (p->next_ns > now) { /* it rests already; the timer may have been a little early */
		if (!p->again)
			tend_after(p, (p->next_ns - now) / 1000000 + 1);
		return;
	}
	dlog(LOG_LVL_WARN, NULL, "pool %s of uid %u: %s", p->r.name, (unsigned)p->r.owner.uid,
	     p->why);
	p->rest_ms = pool_rest_ms(p->rest_ms, (now - p->failed_ns) / 1000000);
	p->failed_ns = now;
	p->next_ns = now + p->rest_ms * 1000000;
	tend_after(p, p->rest_ms);
}

static struct machine *new_standing(struct pool *p, struct err *e)
{
	struct machine *m;
	struct vm_shortage s;

	if (!vm_room_for(p->d, &p->r, &s)) {
		err_set(e, -ENOSPC, "%s: %s; expected %s", s.field, s.value, s.expected);
		return NULL;
	}
	m = machine_new(p->d);
	if (!m || record_config(&m->r, pool_config(p, true, 0))) {
		if (m)
			machine_forget(m);
		err_set(e, -ENOMEM, "out of memory");
		return NULL;
	}
	pool_vm_is_nobodys(m);
	strcpy(m->r.pool, p->r.id);
	m->r.owner = p->r.owner;
	m->r.cpus = p->r.cpus;
	m->r.cpus_max = p->r.cpus_max;
	m->r.mem = p->r.mem;
	m->r.mem_start = p->r.mem_start;
	m->r.mem_boot = p->r.mem_boot;
	m->r.mem_max = p->r.mem_max;
	return m;
}

static int start_standing(struct pool *p, struct err *e)
{
	struct machine *m = new_standing(p, e);
	int rc;

	if (!m)
		return e->code;
	p->d->n.created++;
	event_emit(p->d, m, "created", NULL);
	rc = machine_start(m, e);
	if (rc)
		machine_remove(m);
	else
		machine_shoot_later(m, START_MS(p->r.mem));
	return rc;
}

static void finish_removal(struct pool *p)
{
	struct request *r = p->remover;

	pool_forget(p);
	request_answer(r, NULL);
}

static void pool_tend(void *ctx)
{
	struct pool *p = ctx;
	struct err e;

	p->again = NULL;
	if (p->removed) {
		if (!pool_count(p, VM_STATES))
			finish_removal(p);
		return;
	}
	while (pool_count(p, VM_PAUSED) + pool_count(p, VM_STARTING) < p->count &&
	       count_starts(p->d, p->r.owner.uid) < POOL_STARTS) {
		if (start_standing(p, &e)) {
			pool_failed(p, e.text);
			break;
		}
	}
}

/* ---- what has become of its VMs ---- */

static void nobodys_name(const struct machine *m, char name[NAME_MAX_LEN + 1])
{
	snprintf(name, NAME_MAX_LEN + 1, "vm-%.12s", m->r.id);
}

void pool_vm_is_nobodys(struct machine *m)
{
	nobodys_name(m, m->r.name);
	m->r.transient = true;
}

/* By an earlier insulad, whose word may still be on its way to the supervisor. */
static bool was_promised(const struct machine *m)
{
	char name[sizeof(m->r.name)];

	nobodys_name(m, name);
	return strcmp(m->r.name, name) != 0 || !m->r.transient;
}

void pool_vm_stands(struct machine *m)
{
	struct pool *p = pool_of(m);

	if (!m->r.pool[0])
		return;
	if (!p || was_promised(m)) {
		dlog(LOG_LVL_INFO, m, "it stands, and %s: it is ended",
		     p ? "an earlier insulad was about to give it away" : "its pool is no more");
		pool_vm_is_nobodys(m);
		m->r.pool[0] = 0;
		pool_end_vm(m);
		tend_all(m->d);
		return;
	}
	timer_cancel(m->force);
	m->force = NULL;
	if (pool_count(p, VM_PAUSED) >= p->count)
		p->why[0] = 0;
	tend_all(p->d);
}

void pool_vm_ended(struct machine *m)
{
	struct pool *p = pool_of(m);
	json_object *result;
	char why[256];

	if (!p) {
		if (m->r.pool[0])
			tend_all(m->d); /* it is one start less */
		return;
	}
	result = machine_result(m);
	snprintf(why, sizeof(why), "a VM of it has ended: %s",
		 j_get_str(result, "message", m->reason));
	json_object_put(result);
	m->r.pool[0] = 0;
	pool_failed(p, why);
	tend_all(p->d);
}

void pool_end_vm(struct machine *m)
{
	if (m->r.state != VM_STOPPING)
		machine_order_end(m, "kill", NULL, END_MS);
}

void pool_vm_runs(struct machine *m)
{
	struct pool *p;
	struct err e;

	if (!m->r.pool[0] || m->r.state == VM_STOPPING)
		return;
	if (!m->adopted) {
		p = pool_of(m);
		if (p)
			pool_failed(p, "a VM of it went on, and nobody had taken it");
		pool_end_vm(m);
		return;
	}
	dlog(LOG_LVL_INFO, m, "an earlier insulad has given it to a client");
	timer_cancel(m->force);
	m->force = NULL;
	if (machine_taken(m, &e))
		dlog(LOG_LVL_ERROR, m, "%s", e.text);
	tend_all(m->d);
}

void pool_remove(struct pool *p)
{
	p->removed = true;
	state_remove(p->d->pool_state, p->r.id);
	for (struct machine *m = p->d->machines, *next; m; m = next) {
		next = m->next;
		if (is_of_pool(m, p))
			pool_end_vm(m);
	}
	tend_after(p, 0);
}

/* ---- those of an earlier insulad ---- */

static void load_pool(struct daemon *d, const char *id)
{
	char *text = NULL;
	struct pool *p;
	size_t len;
	struct err e;
	int rc = state_read(d->pool_state, id, "record.json", RECORD_MAX + 4096, &text, &len);

	if (rc == -ENOENT) {
		state_remove(d->pool_state, id); /* it was about to be made, or removed */
		return;
	}
	p = rc ? NULL : pool_add(d);
	if (rc)
		err_sys(&e, rc, "record");
	else
		rc = p ? pool_parse(p, text, len, &e) : err_set(&e, -ENOMEM, "out of memory");
	if (!rc)
		rc = owner_found_again(d, &p->r.owner, &e);
	if (!rc && strcmp(p->r.id, id) != 0)
		rc = err_set(&e, -EINVAL, "record: of another pool");
	free(text);
	if (rc) {
		dlog(LOG_LVL_ERROR, NULL, "pool %s: %s; it is left alone", id, e.text);
		if (p)
			pool_forget(p);
	}
}

int pools_load(struct daemon *d, struct err *e)
{
	int rc = state_list(d->pool_state, load_pool, d, e);

	if (rc)
		return rc;
	for (struct machine *m = d->machines; m; m = m->next) {
		if (m->r.pool[0] && machine_active(m))
			machine_shoot_later(m, START_MS(m->r.mem)); /* unless it is heard of */
	}
	tend_all(d);
	return 0;
}

void pools_close(struct daemon *d)
{
	for (struct pool *p = d->pools, *next; p; p = next) {
		next = p->next;
		if (p->remover)
			request_free(p->remover);
		pool_forget(p);
	}
}
