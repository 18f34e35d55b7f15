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

#include "base/errtext.h"
#include "daemon.h"
#include "spec/handover.h"
#include "spec/ending.h"

#define GRACE_MS 60000 /* an ended VM that goes by itself, found after a restart */
#define REOPEN_MS 1000
#define BURY_MS 20 /* between attempts to remove a control group */
#define BURY_MAX_MS 1000
#define BURY_TRIES 600 /* ten minutes: what cannot be killed may still be waiting for a disk */

int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

void random_hex(char *out, size_t digits)
{
	unsigned char b[32];

	if (digits > 2 * sizeof(b) || random_bytes(b, sizeof(b)) != sizeof(b))
		panic("no random numbers");
	for (size_t i = 0; i < digits; i++)
		out[i] = "0123456789abcdef"[i % 2 ? b[i / 2] & 15 : b[i / 2] >> 4];
	out[digits] = 0;
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

/* ---- requests that wait for the end ---- */

static void refuse_late(void *ctx)
{
	struct request *r = ctx;
	const struct refusal why = {RPC_TIMEOUT,
				    "timeout",
				    NULL,
				    NULL,
				    NULL,
				    r->exec ? "the command has not ended in that time"
					    : "the VM has not ended in that time"};

	r->timer = NULL;
	machine_release(r);
	request_refuse(r, &why);
}

void machine_hold(struct machine *m, struct request *r, uint64_t ms)
{
	r->machine = m;
	r->next_held = m->waiting;
	m->waiting = r;
	if (ms)
		r->timer = timer_after(&m->d->loop, ms, refuse_late, r);
}

void machine_release(struct request *r)
{
	struct machine *m = r->machine;
	struct request **at = m ? &m->waiting : NULL;

	timer_cancel(r->timer);
	r->timer = NULL;
	if (m && m->starting == r)
		m->starting = NULL;
	while (at && *at && *at != r)
		at = &(*at)->next_held;
	if (at && *at)
		*at = r->next_held;
	r->machine = NULL;
}

static void answer_waiting(struct machine *m)
{
	machine_refuse_execs(m);
	while (m->waiting) {
		struct request *r = m->waiting;

		machine_release(r);
		request_answer(r, machine_result(m));
	}
}

void machine_refuse_execs(struct machine *m)
{
	static const struct refusal why = {
		RPC_STATE, "ended", NULL, NULL, NULL, "the VM has ended, and its commands with it"};

	for (struct request *r = m->waiting, *next; r; r = next) {
		next = r->next_held;
		if (!r->exec)
			continue;
		machine_release(r);
		request_refuse(r, &why);
	}
}

/* Started, but the guest never ran. */
static void refuse_starting(struct machine *m)
{
	struct request *r = m->starting;
	json_object *result = m->r.result ? json_tokener_parse(m->r.result) : NULL;
	const struct refusal why = {
		RPC_FAILED, "start-failed",
		NULL,       NULL,
		NULL,       j_get_str(result, "message", "the VM ended before it ran")};

	if (r) {
		machine_release(r);
		/* A guest may well have run and ended before anybody looked. */
		if (!strcmp(m->reason, "bad-input") || !strcmp(m->reason, "failed") ||
		    !strcmp(m->reason, "start-failed") || !strcmp(m->reason, "supervisor-killed"))
			request_refuse(r, &why);
		else
			request_answer(r, machine_json(m, false));
	}
	json_object_put(result);
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
	j_int(o, "cpus", m->r.cpus);
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

static struct machine *add(struct daemon *d)
{
	struct machine *m = calloc(1, sizeof(*m));

	if (!m)
		return NULL;
	m->d = d;
	m->process = m->console.fd = -1;
	m->next = d->machines;
	d->machines = m;
	d->nmachines++;
	return m;
}

struct machine *machine_new(struct daemon *d)
{
	struct machine *m = add(d);

	if (!m)
		return NULL;
	random_hex(m->r.id, ID_LEN);
	random_hex(m->r.token, TOKEN_LEN);
	strcpy(m->r.boot_id, d->boot_id);
	m->r.created_ms = now_ms();
	return m;
}

int machine_save(struct machine *m, struct err *e)
{
	char *text = record_print(&m->r);
	int rc;

	if (!text)
		return err_set(e, -ENOMEM, "out of memory");
	/* vm.run's do not outlive a power failure, so their records need not either. */
	rc = state_write(m->d->state, m->r.id, "record.json", text, !m->r.transient, e);
	free(text);
	return rc;
}

void machine_set_state(struct machine *m, enum vm_state s)
{
	m->r.state = s;
}

struct grave {
	struct daemon *d;
	char group[GROUP_LEN];
	unsigned tries, ms; /* until the next */
};

/* The processes of a dead supervisor's VM are on their way out. */
static void bury(void *ctx)
{
	struct grave *g = ctx;

	if (cgroup_remove(&g->d->cgroups, g->group) || ++g->tries == BURY_TRIES ||
	    !timer_after(&g->d->loop, g->ms, bury, g)) {
		free(g);
		return;
	}
	g->ms = g->ms * 2 < BURY_MAX_MS ? g->ms * 2 : BURY_MAX_MS;
}

/* No other start has a group of that name: it is killed once, and then it can only get empty. */
static void leave_group(struct machine *m)
{
	struct grave *g;

	if (!m->r.group[0])
		return;
	g = cgroup_remove(&m->d->cgroups, m->r.group) ? NULL : calloc(1, sizeof(*g));
	if (g) {
		cgroup_kill(&m->d->cgroups, m->r.group);
		g->d = m->d;
		strcpy(g->group, m->r.group);
		g->ms = BURY_MS;
		bury(g);
	}
	m->r.group[0] = 0;
}

static void close_process(struct machine *m)
{
	talk_close(m);
	watch_free(m->death);
	m->death = NULL;
	fd_close(&m->process);
	timer_cancel(m->force);
	m->force = NULL;
	timer_cancel(m->reopen);
	m->reopen = NULL;
	m->r.pid = 0;
	m->r.start_time = 0;
	foreign_go_on(m->d);
}

static void on_death(void *ctx, int events)
{
	(void)events;
	machine_ended(ctx);
}

static int watch_process(struct machine *m, struct err *e)
{
	m->death = watch_new(&m->d->loop, m->process, on_death, m);
	if (!m->death)
		return err_set(e, -ENOMEM, "out of memory");
	watch_set(m->death, UV_READABLE);
	return 0;
}

/* What spawn_supervisor() has begun does not go on. */
static void undo_start(struct machine *m)
{
	if (m->r.pid > 0)
		process_undo(m);
	close_process(m);
	leave_group(m);
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
	m->adopted = false;
	m->r.started_ms = now_ms();
	m->r.state = VM_STARTING;
	strcpy(m->r.boot_id, m->d->boot_id);
	random_hex(m->r.token, TOKEN_LEN);
	rc = spawn_supervisor(m, &go, e);
	if (!rc)
		rc = machine_save(m, e);
	if (!rc)
		rc = watch_process(m, e);
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

/* ---- end ---- */

static char *make_result(const char *reason, const char *text)
{
	json_object *o = json_object_new_object();
	char *copy;

	j_str(o, "reason", reason);
	j_int(o, "status", RUN_FAILED);
	j_str(o, "message", text);
	copy = strdup(j_text(o));
	json_object_put(o);
	return copy;
}

/* The supervisor, whose process is no more, has not had its byte to go on: there was no VM. */
static bool never_began(const struct machine *m)
{
	char *file;
	size_t len;
	bool never;

	if (state_read(m->d->state, m->r.id, "result", RESULT_MAX, &file, &len))
		return false;
	never = !strcmp(file, CONTROL_NOT_BEGUN);
	free(file);
	return never;
}

/* One that has ended by itself has said how, whatever the kernel has killed before that. */
static bool died_of_memory(const struct machine *m)
{
	json_object *o = m->r.result ? json_tokener_parse(m->r.result) : NULL;
	bool lost = !o || !strcmp(j_get_str(o, "reason", ""), "vmm-died");

	json_object_put(o);
	return lost && m->r.group[0] && cgroup_had_oom(&m->d->cgroups, m->r.group);
}

/* A supervisor that ends by itself has left its result; one that has not was killed. */
static void find_result(struct machine *m, int64_t status)
{
	char reason[32], text[128], *file = NULL;
	size_t len;

	free(m->r.result);
	m->r.result = NULL;
	if (!state_read(m->d->state, m->r.id, "result", RESULT_MAX, &file, &len)) {
		m->r.result = result_parse(file, len, m->r.token);
		free(file);
	}
	if (died_of_memory(m)) {
		free(m->r.result);
		m->r.result = make_result("oom", "the VM used more memory than its control group "
						 "has: memory.max, see overhead_mib");
	} else if (!m->r.result && strcmp(m->r.boot_id, m->d->boot_id) != 0) {
		m->r.result = make_result("host-reboot", "the host has been restarted meanwhile");
	} else if (!m->r.result) {
		process_loss(status, reason, text, sizeof(text));
		if (!strcmp(reason, "start-failed") && m->r.state != VM_STARTING)
			strcpy(reason, "supervisor-killed"); /* it did run */
		m->r.result = make_result(reason, text);
	}
}

static void take_result(struct machine *m)
{
	json_object *o = m->r.result ? json_tokener_parse(m->r.result) : NULL;

	snprintf(m->reason, sizeof(m->reason), "%s", j_get_str(o, "reason", "failed"));
	err_clean(m->reason);
	m->status = (int)j_get_int(o, "status", RUN_FAILED);
	json_object_put(o);
}

static void tell_end(struct machine *m)
{
	json_object *o = m->r.result ? json_tokener_parse(m->r.result) : NULL;
	json_object *data = json_object_new_object();

	j_str(data, "reason", m->reason);
	j_int(data, "status", m->status);
	j_str(data, "message", j_get_str(o, "message", NULL));
	json_object_put(o);
	event_emit(m->d, m, "ended", data);
}

/* `keep`: also one that goes by itself, for a while. */
static void end(struct machine *m, bool keep)
{
	int64_t status = process_reap(m);
	struct err e;

	find_result(m, status);
	take_result(m);
	close_process(m);
	leave_group(m);
	m->r.state = VM_ENDED;
	m->r.ended_ms = now_ms();
	m->d->n.ended++;
	if ((!m->r.transient || keep) && machine_save(m, &e))
		dlog(LOG_LVL_ERROR, m, "%s", e.text);
	dlog(LOG_LVL_INFO, m, "ended: %s, status %d", m->reason, m->status);
	tell_end(m);
	logs_ended(m);
	refuse_starting(m);
	answer_waiting(m);
	if (m->r.transient && !keep)
		machine_remove(m);
}

void machine_ended(struct machine *m)
{
	end(m, false);
}

void machine_shoot(struct machine *m)
{
	if (m->process < 0 || process_shoot(m->process))
		dlog(LOG_LVL_ERROR, m, "its supervisor is not ours to kill");
}

static void on_force(void *ctx)
{
	struct machine *m = ctx;

	m->force = NULL;
	dlog(LOG_LVL_WARN, m, "did not end in time: its supervisor is killed");
	machine_shoot(m);
}

void machine_shoot_later(struct machine *m, uint64_t ms)
{
	timer_cancel(m->force);
	m->force = timer_after(&m->d->loop, ms, on_force, m);
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

/* Somebody waited for the end of a VM that was never started. */
static void refuse_waiting(struct machine *m)
{
	const struct refusal why = {
		RPC_STATE, "deleted", NULL, NULL, NULL, "the VM was deleted before it was started"};

	while (m->waiting) {
		struct request *r = m->waiting;

		machine_release(r);
		request_refuse(r, &why);
	}
}

void machine_remove(struct machine *m)
{
	refuse_waiting(m);
	m->d->n.deleted++;
	event_emit(m->d, m, "deleted", NULL);
	state_remove(m->d->state, m->r.id);
	machine_forget(m);
}

/* ---- after a restart ---- */

static void on_grace(void *ctx)
{
	struct machine *m = ctx;

	m->grace = NULL;
	machine_remove(m);
}

/* A process that is there but could not be opened: its end shows at its socket, and until it can be
 * opened nobody can kill it. */
static void on_reopen(void *ctx)
{
	struct machine *m = ctx;
	struct err e;
	int rc = process_open(&m->r);

	m->reopen = NULL;
	if (rc == -ESRCH) {
		machine_ended(m);
		return;
	}
	if (rc >= 0)
		m->process = rc;
	if (rc < 0)
		m->reopen = timer_after(&m->d->loop, REOPEN_MS, on_reopen, m);
	else if (watch_process(m, &e))
		dlog(LOG_LVL_ERROR, m, "%s", e.text);
}

static bool still_runs(struct machine *m)
{
	struct err e;
	int rc;

	if (m->r.pid <= 0 || strcmp(m->r.boot_id, m->d->boot_id) != 0)
		return false;
	rc = process_open(&m->r);
	m->process = rc < 0 ? -1 : rc;
	if (rc < 0 && rc != -ESRCH && rc != -EACCES)
		m->reopen = timer_after(&m->d->loop, REOPEN_MS, on_reopen, m);
	/* Its socket is there as long as it is. */
	return rc >= 0 || (rc != -ESRCH && talk_open(m, &e) != -ENOENT);
}

/* insulad was killed between its record and the byte for its supervisor. Nobody has had an answer:
 * it is as if nobody had asked. */
static void not_started(struct machine *m)
{
	struct err e;

	dlog(LOG_LVL_INFO, m, "an earlier insulad was about to start it");
	close_process(m);
	leave_group(m);
	if (m->r.transient) {
		machine_remove(m);
		return;
	}
	m->r.state = VM_CREATED;
	if (machine_save(m, &e))
		dlog(LOG_LVL_ERROR, m, "%s", e.text);
}

static void adopt(struct machine *m)
{
	struct err e;

	/* An older insulad has named it after the VM alone, and not said so. */
	if (!m->r.group[0] && m->d->cgroups.on)
		snprintf(m->r.group, sizeof(m->r.group), "vm-%s", m->r.id);
	if (!still_runs(m)) {
		if (never_began(m)) {
			not_started(m);
			return;
		}
		end(m, true); /* somebody may still want to know how it ended */
		if (m->r.transient)
			m->grace = timer_after(&m->d->loop, GRACE_MS, on_grace, m);
		return;
	}
	m->adopted = true;
	m->d->n.adopted++;
	m->r.state = VM_STARTING;
	dlog(LOG_LVL_INFO, m, "found again, process %d%s", (int)m->r.pid,
	     m->process < 0 ? ", which this insulad may not open" : "");
	if (m->process >= 0 && watch_process(m, &e))
		dlog(LOG_LVL_ERROR, m, "%s", e.text);
	if (!m->talk)
		talk_find(m);
}

/* It can be listed with its reason, and deleted; by root, as nobody knows whose it is. */
static void keep_broken(struct daemon *d, const char *id, int rc, const char *why)
{
	struct machine *m = add(d);

	dlog(LOG_LVL_ERROR, NULL, "state of %s: %s; it is left alone", id, why);
	if (!m)
		return;
	strcpy(m->r.id, id);
	snprintf(m->r.name, sizeof(m->r.name), "broken-%s", id);
	m->r.owner.uid = host_uid();
	m->r.state = VM_BROKEN;
	m->r.config = strdup("{}");
	m->broken = strdup(why);
	m->newer = rc == -EPROTONOSUPPORT;
	if (!m->r.config || !m->broken)
		machine_forget(m);
}

bool machine_is_served(struct machine *m)
{
	struct err e;
	int fd = supervisor_connect(m, &e);
	bool served = fd >= 0 || fd == -EAGAIN || fd == -EBUSY;

	fd_close(&fd);
	return served;
}

static int parse_one(struct daemon *d, struct machine *m, const char *id, const char *text,
		     size_t len, struct err *e)
{
	int rc = record_parse(&m->r, text, len, e);

	if (!rc)
		rc = owner_found_again(d, &m->r.owner, e);
	return rc || !strcmp(m->r.id, id) ? rc : err_set(e, -EINVAL, "record: of another VM");
}

static void load_one(struct daemon *d, const char *id)
{
	char *text = NULL;
	struct machine *m;
	size_t len;
	struct err e;
	int rc = state_read(d->state, id, "record.json", RECORD_MAX, &text, &len);

	if (rc == -ENOENT) {
		/* It was about to be made, or its removal was about to be finished: no supervisor
		 * has begun. */
		state_remove(d->state, id);
		return;
	}
	m = rc ? NULL : add(d);
	if (rc)
		err_sys(&e, rc, "record");
	else
		rc = m ? parse_one(d, m, id, text, len, &e) : err_set(&e, -ENOMEM, "out of memory");
	if (rc) {
		if (m)
			machine_forget(m);
		keep_broken(d, id, rc, e.text);
	} else if (machine_active(m)) {
		adopt(m);
	} else if (m->r.state == VM_ENDED) {
		take_result(m);
		if (m->r.transient)
			m->grace = timer_after(&d->loop, GRACE_MS, on_grace, m);
	}
	free(text);
}

int machines_load(struct daemon *d, struct err *e)
{
	int rc = process_boot_id(d->boot_id, sizeof(d->boot_id), e);

	return rc ? rc : state_list(d->state, load_one, d, e);
}

/* The VMs run on. */
void machines_close(struct daemon *d)
{
	for (struct machine *m = d->machines, *next; m; m = next) {
		next = m->next;
		m->r.transient = false;
		close_process(m);
		machine_forget(m);
	}
}
