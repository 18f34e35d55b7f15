/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The end of a VM: how it is found out, told and cleaned up.
 *
 * A supervisor that ends by itself has left its result in a file. One that has not was killed, or
 * the system was; then the control group, the process's status and the boot id say what happened.
 * See machine.h.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>
#include <insula/log.h>

#include "cgroup.h"
#include "clone.h"
#include "daemon.h"
#include "dlog.h"
#include "event.h"
#include "foreign.h"
#include "logs.h"
#include "machine.h"
#include "pool.h"
#include "process.h"
#include "record.h"
#include "spec/json.h"
#include "state.h"
#include "talk.h"
#include "watch.h"
#include "spec/ending.h"
#include "spec/handover.h"

#define BURY_MS 20 /* between attempts to remove a control group */
#define BURY_MAX_MS 1000
#define BURY_TRIES 600 /* ten minutes: what cannot be killed may still be waiting for a disk */

/* ---- what is left of it ---- */

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
void machine_leave_group(struct machine *m)
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

void machine_close_process(struct machine *m)
{
	talk_close(m);
	watch_free(m->death);
	m->death = NULL;
	fd_close(&m->process);
	timer_cancel(m->force);
	m->force = NULL;
	timer_cancel(m->reopen);
	m->reopen = NULL;
	m->cpus_now = 0;
	m->r.pid = 0;
	m->r.start_time = 0;
	foreign_go_on(m->d);
}

static void on_death(void *ctx, int events)
{
	(void)events;
	talk_drain(ctx);
	machine_ended(ctx);
}

int machine_watch_process(struct machine *m, struct err *e)
{
	m->death = watch_new(&m->d->loop, m->process, on_death, m);
	if (!m->death)
		return err_set(e, -ENOMEM, "out of memory");
	watch_set(m->death, UV_READABLE);
	return 0;
}

/* ---- how it ended ---- */

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
bool machine_never_began(const struct machine *m)
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

void machine_take_result(struct machine *m)
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

void machine_end(struct machine *m, bool keep)
{
	int64_t status = process_reap(m);
	struct err e;

	find_result(m, status);
	machine_take_result(m);
	machine_close_process(m);
	machine_leave_group(m);
	m->r.state = VM_ENDED;
	m->r.mem = m->r.mem_start;
	m->r.ended_ms = now_ms();
	m->d->n.ended++;
	if ((!m->r.transient || keep) && machine_save(m, &e))
		dlog(LOG_LVL_ERROR, m, "%s", e.text);
	dlog(LOG_LVL_INFO, m, "ended: %s, status %d", m->reason, m->status);
	tell_end(m);
	logs_ended(m);
	clone_has_begun(m);
	machine_refuse_starting(m);
	machine_answer_waiting(m);
	pool_vm_ended(m);
	if (m->r.transient && !keep)
		machine_remove(m);
}

void machine_ended(struct machine *m)
{
	machine_end(m, false);
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
	dlog(LOG_LVL_WARN, m, "was not done in time: its supervisor is killed");
	machine_shoot(m);
}

void machine_shoot_later(struct machine *m, uint64_t ms)
{
	timer_cancel(m->force);
	m->force = timer_after(&m->d->loop, ms, on_force, m);
}

static void after_order(struct machine *m, struct request *r, json_object *result,
			json_object *error, int fd)
{
	(void)r, (void)result, (void)fd;
	if (error && strcmp(j_get_str(error, "reason", ""), "ended") != 0)
		machine_shoot(m);
}

void machine_order_end(struct machine *m, const char *op, json_object *params, uint64_t ms)
{
	if (m->r.state != VM_STOPPING)
		event_emit(m->d, m, "stopping", NULL);
	machine_set_state(m, VM_STOPPING);
	machine_shoot_later(m, ms);
	talk_ask(m, op, params, after_order, NULL, false);
}
