/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One VM: from its record to its end.
 *
 * created -> starting (a supervisor lives) -> running <-> paused -> ended; vm.stop and vm.kill go
 * by way of stopping. The record is written when the VM is made, when its supervisor is about to
 * begin and when it has ended; what lies between is asked of the supervisor, by a daemon that comes
 * back too.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <insula/base.h>
#include <insula/log.h>

#include "client.h"
#include "daemon.h"
#include "event.h"
#include "machine.h"
#include "pool.h"
#include "process.h"
#include "record.h"
#include "spawn.h"
#include "spec/json.h"
#include "state.h"
#include "talk.h"
#include "watch.h"

int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* ---- looking up ---- */

bool machine_active(const struct machine *m)
{
	return m->r.state != VM_CREATED && m->r.state != VM_ENDED && m->r.state != VM_BROKEN;
}

bool machine_visible(const struct machine *m, const struct client *c)
{
	return c->who.uid == 0 || c->who.uid == m->r.owner.uid;
}

struct machine *machine_by_id(struct daemon *d, const char *id)
{
	struct machine *m = d->machines;

	while (m && strcmp(m->r.id, id) != 0)
		m = m->next;
	return m;
}

/* A name is one user's; root means its own first. */
struct machine *machine_find(struct daemon *d, const struct client *c, const char *which,
			     bool *several)
{
	struct machine *found = NULL;

	*several = false;
	for (struct machine *m = d->machines; m; m = m->next) {
		if (!machine_visible(m, c))
			continue;
		if (!strcmp(m->r.id, which)) {
			*several = false;
			return m;
		}
		if (strcmp(m->r.name, which) != 0)
			continue;
		if (found && found->r.owner.uid == c->who.uid)
			continue;
		*several = found && m->r.owner.uid != c->who.uid;
		found = m;
	}
	return *several ? NULL : found;
}

/* ---- descriptions ---- */

json_object *machine_result(const struct machine *m)
{
	json_object *o = m->r.result ? json_tokener_parse(m->r.result) : NULL;

	if (!o)
		o = json_object_new_object();
	j_str(o, "id", m->r.id);
	j_str(o, "name", m->r.name);
	return o;
}

unsigned machine_cpus(const struct machine *m)
{
	return m->cpus_now ? m->cpus_now : m->r.cpus;
}

json_object *machine_json(const struct machine *m, bool full)
{
	json_object *o = json_object_new_object();

	j_str(o, "id", m->r.id);
	j_str(o, "name", m->r.name);
	j_int(o, "uid", m->r.owner.uid);
	if (m->r.owner.sid[0])
		j_str(o, "sid", m->r.owner.sid);
	j_str(o, "state", vm_state_names[m->r.state]);
	j_bool(o, "transient", m->r.transient);
	j_str(o, "pool", pool_name_of(m));
	j_int(o, "cpus", machine_cpus(m));
	j_int(o, "mem", (int64_t)m->r.mem);
	j_int(o, "created_ms", m->r.created_ms);
	if (m->r.started_ms)
		j_int(o, "started_ms", m->r.started_ms);
	if (m->r.pid)
		j_int(o, "pid", m->r.pid);
	if (m->reason[0]) {
		j_int(o, "ended_ms", m->r.ended_ms);
		j_str(o, "reason", m->reason);
		j_int(o, "status", m->status);
	}
	j_int(o, "restarts", m->restarts);
	j_str(o, "error", m->broken);
	if (!full)
		return o;
	j_bool(o, "adopted", m->adopted);
	j_bool(o, "cgroup", m->r.group[0] != 0);
	if (m->hello && m->version[0])
		j_str(o, "supervisor_version", m->version);
	j_obj(o, "config", json_tokener_parse(m->r.config));
	if (m->r.result)
		j_obj(o, "result", json_tokener_parse(m->r.result));
	return o;
}

/* ---- life ---- */

struct machine *machine_add(struct daemon *d)
{
	struct machine *m = calloc(1, sizeof(*m));

	if (!m)
		return NULL;
	m->d = d;
	m->process = m->console.fd = m->console.errors = -1;
	m->next = d->machines;
	d->machines = m;
	d->nmachines++;
	return m;
}

struct machine *machine_new(struct daemon *d)
{
	struct machine *m = machine_add(d);

	if (!m)
		return NULL;
	random_hex(m->r.id, ID_LEN);
	random_hex(m->r.token, TOKEN_LEN);
	strcpy(m->r.boot_id, d->boot_id);
	m->r.created_ms = now_ms();
	return m;
}

static int write_record(struct machine *m, bool durable, struct err *e)
{
	char *text = record_print(&m->r);
	int rc;

	if (!text)
		return err_set(e, -ENOMEM, "out of memory");
	rc = state_write(m->d->state, m->r.id, "record.json", text, durable, e);
	free(text);
	return rc;
}

int machine_save(struct machine *m, struct err *e)
{
	/* vm.run's do not outlive a power failure, so their records need not either. */
	return write_record(m, !m->r.transient, e);
}

int machine_note(struct machine *m, struct err *e)
{
	return write_record(m, false, e);
}

int machine_taken(struct machine *m, struct err *e)
{
	json_object *config = json_tokener_parse(m->r.config);

	json_object_object_del(config, "paused");
	if (record_config(&m->r, config))
		return err_set(e, -ENOMEM, "out of memory");
	m->r.pool[0] = 0;
	return machine_save(m, e);
}

void machine_set_state(struct machine *m, enum vm_state s)
{
	m->r.state = s;
}

/* What spawn_supervisor() has begun does not go on. */
static void undo_start(struct machine *m)
{
	if (m->r.pid > 0)
		process_undo(m);
	machine_close_process(m);
	machine_leave_group(m);
	m->r.state = VM_CREATED;
	(void)machine_save(m, NULL);
}

int machine_start(struct machine *m, struct err *e)
{
	int go = -1, rc = state_make(m->d->state, m->r.id, e);

	if (rc)
		return rc;
	free(m->r.result);
	m->r.result = NULL;
	m->reason[0] = 0;
	m->status = 0;
	m->restarts = 0;
	m->cpus_now = 0;
	m->cpus_had = 0;
	m->adopted = false;
	m->r.started_ms = now_ms();
	m->r.state = VM_STARTING;
	strcpy(m->r.boot_id, m->d->boot_id);
	random_hex(m->r.token, TOKEN_LEN);
	rc = spawn_supervisor(m, &go, e);
	if (!rc)
		rc = machine_save(m, e);
	if (!rc)
		rc = machine_watch_process(m, e);
	if (!rc)
		rc = talk_open(m, e);
	if (!rc) {
		rc = write_full(go, "", 1);
		if (rc)
			err_sys(e, rc, "supervisor of %s", m->r.id);
	}
	fd_close(&go);
	if (rc) {
		undo_start(m);
		return rc;
	}
	m->d->n.started++;
	event_emit(m->d, m, "starting", NULL);
	return 0;
}

void machine_forget(struct machine *m)
{
	struct machine **at = &m->d->machines;

	while (*at != m)
		at = &(*at)->next;
	*at = m->next;
	m->d->nmachines--;
	timer_cancel(m->grace);
	free(m->broken);
	record_free(&m->r);
	free(m);
}

void machine_remove(struct machine *m)
{
	machine_refuse_waiting(m);
	m->d->n.deleted++;
	event_emit(m->d, m, "deleted", NULL);
	state_remove(m->d->state, m->r.id);
	machine_forget(m);
}
