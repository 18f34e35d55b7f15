/* SPDX-License-Identifier: BSD-2-Clause */
/* Commands that insulad asks for. See ctlexec.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>
#include <insula/guestproto.h>

#include "supervisor/command/command.h"
#include "spec/config.h"
#include "ctlexec.h"
#include "spec/ending.h"
#include "spec/json.h"
#include "supervisor/loop.h"
#include "supervisor/vm_common.h"

#define QUEUE_SECONDS 60 /* that a command waits for a guest that boots, if it says nothing */
#define QUEUE_SECONDS_MAX 3600
#define SIGNAL_KILL 9 /* signals are Linux's, by number */
#define DEFAULT_ROWS 24
#define DEFAULT_COLS 80

/* ---- records ---- */

static struct ctlexec_one *ctlexec_find(const struct ctlexec *x, int64_t id)
{
	for (unsigned i = 0; i < CTLEXEC_KEPT; i++) {
		if (id > 0 && x->one[i].id == (uint64_t)id)
			return (struct ctlexec_one *)&x->one[i];
	}
	return NULL;
}

/* A free one, or the one that ended longest ago: there are more than can run. */
static struct ctlexec_one *ctlexec_room(struct ctlexec *x)
{
	struct ctlexec_one *old = NULL;

	_Static_assert(CTLEXEC_KEPT > VM_MAX_EXECS, "one that has ended can always be forgotten");
	for (unsigned i = 0; i < CTLEXEC_KEPT; i++) {
		struct ctlexec_one *o = &x->one[i];

		if (!o->id)
			return o;
		if (o->ended && (!old || o->id < old->id))
			old = o;
	}
	return old;
}

/* ---- start ---- */

/* With the code that reads insula-run's own command. */
static int read_config(struct vm_config *c, json_object *params, struct err *e)
{
	json_object *config;
	const char *text;
	int rc;

	if (!json_object_object_get_ex(params, "config", &config))
		return err_set(e, -EINVAL, "config: missing");
	text = json_object_to_json_string_ext(config, JSON_C_TO_STRING_PLAIN);
	rc = config_json(c, NULL, text, strlen(text), e);
	if (!rc)
		rc = config_check(c, e);
	if (!rc && !c->command)
		rc = err_set(e, -EINVAL, "command: missing; expected a program and its arguments");
	return rc;
}

static int ctlexec_start_one(struct vm *vm, const struct vm_config *c, json_object *params,
			     const int *fds, unsigned nfds, exec_done *done, uint32_t *id,
			     struct err *e)
{
	const struct exec_spec s = {
		.argv = c->command,
		.env = c->env,
		.cwd = c->cwd,
		.uid = c->uid,
		.user = c->user,
		.gid = c->has_gid ? c->gid : GP_NO_GID,
		.tty = c->tty,
		.rows = (uint16_t)j_get_int(params, "rows", DEFAULT_ROWS),
		.cols = (uint16_t)j_get_int(params, "cols", DEFAULT_COLS),
		.input = nfds == CTLEXEC_FDS,
	};
	const int in_order[] = {s.input ? fds[0] : -1, fds[nfds - 2], fds[nfds - 1]};

	return exec_start(vm, &s, in_order, done, id, e);
}

static const char *may_start(const struct vm *vm, json_object *params, unsigned nfds, struct err *e)
{
	if (nfds != 2 && nfds != CTLEXEC_FDS) {
		err_set(e, -EINVAL,
			"%u descriptors; expected output and errors, or input, output and errors",
			nfds);
		return "bad-params";
	}
	if (!vm_is_running(vm)) {
		err_set(e, -EINVAL, "%s", vm_has_ended(vm) ? "stopping" : "starting");
		return "wrong-state";
	}
	if (!vm_has_agent(vm)) {
		err_set(e, -ENOTSUP, "%s", vm_no_agent(vm));
		return "no-agent";
	}
	if (!vm_execs(vm)->agent_ready && !j_get_bool(params, "queue", false)) {
		err_set(e, -EAGAIN, "the guest does not take commands yet; it is still booting");
		return "not-ready";
	}
	return NULL;
}

static const char *reason_of(int rc)
{
	return rc == -EAGAIN ? "busy" : rc == -EINVAL || rc == -E2BIG ? "bad-params" : "failed";
}

const char *ctlexec_start(struct ctlexec *x, struct vm *vm, json_object *params, const int *fds,
			  unsigned nfds, exec_done *done, uint32_t *id, struct err *e)
{
	int64_t wait = j_get_int(params, "queue_seconds", QUEUE_SECONDS);
	const char *why = may_start(vm, params, nfds, e);
	struct vm_config *c;
	uint64_t limit;
	int rc;

	if (why)
		return why;
	if (j_get(params, "queue_seconds") && !j_get_bool(params, "queue", false)) {
		err_set(e, -EINVAL, "queue_seconds: without queue; expected \"queue\": true");
		return "bad-params";
	}
	if (wait < 1 || wait > QUEUE_SECONDS_MAX) {
		err_set(e, -EINVAL, "queue_seconds: %lld; expected a number from 1 to %d",
			(long long)wait, QUEUE_SECONDS_MAX);
		return "bad-params";
	}
	c = calloc(1, sizeof(*c));
	if (!c) {
		err_set(e, -ENOMEM, "out of memory");
		return "failed";
	}
	config_init(c);
	rc = read_config(c, params, e);
	if (!rc)
		rc = ctlexec_start_one(vm, c, params, fds, nfds, done, id, e);
	config_free(c);
	free(c);
	if (rc)
		return reason_of(rc);
	limit = clock_ns() + (uint64_t)wait * 1000000000;
	*ctlexec_room(x) =
		(struct ctlexec_one){.id = *id, .ready_ns = vm_execs(vm)->agent_ready ? 0 : limit};
	return NULL;
}

void ctlexec_tie(struct ctlexec *x, uint32_t id, unsigned conn)
{
	struct ctlexec_one *o = ctlexec_find(x, id);

	if (o) {
		o->tied = true;
		o->conn = conn;
	}
}

/* Called from wherever a packet could not be sent: what follows is left to the next turn. */
void ctlexec_hung_up(struct ctlexec *x, unsigned conn)
{
	for (unsigned i = 0; i < CTLEXEC_KEPT; i++) {
		struct ctlexec_one *o = &x->one[i];

		o->orphan = o->orphan || (o->id && !o->ended && o->tied && o->conn == conn);
	}
}

/* ---- while it runs ---- */

static const char *running(struct ctlexec *x, int64_t id, struct err *e)
{
	const struct ctlexec_one *o = ctlexec_find(x, id);

	if (o && !o->ended)
		return NULL;
	err_set(e, -ESRCH, "command %lld: %s", (long long)id,
		o ? "it has ended" : "there is no such command in this VM");
	return o ? "wrong-state" : "not-found";
}

static const char *result_of(int rc, struct err *e)
{
	if (!rc)
		return NULL;
	if (rc == -ESRCH)
		err_set(e, rc, "the guest has not begun the command yet");
	else
		err_sys(e, rc, "insula-exec");
	return rc == -ESRCH ? "not-ready" : "failed";
}

const char *ctlexec_signal(struct ctlexec *x, struct vm *vm, int64_t id, int64_t signo,
			   struct err *e)
{
	const char *why = running(x, id, e);
	int rc;

	if (!why && (signo < 1 || signo > 64)) {
		err_set(e, -EINVAL, "signal: %lld; expected a number from 1 to 64",
			(long long)signo);
		why = "bad-params";
	}
	if (why)
		return why;
	rc = exec_signal(vm, (uint32_t)id, (int)signo);
	if (rc == -ESRCH && signo == SIGNAL_KILL)
		rc = exec_cancel(vm, (uint32_t)id, "killed before the guest had begun it");
	return result_of(rc, e);
}

const char *ctlexec_resize(struct ctlexec *x, struct vm *vm, int64_t id, int64_t rows, int64_t cols,
			   struct err *e)
{
	const char *why = running(x, id, e);

	if (!why && (rows < 1 || rows > UINT16_MAX || cols < 1 || cols > UINT16_MAX)) {
		err_set(e, -EINVAL, "rows, cols: expected numbers from 1 to %d", UINT16_MAX);
		why = "bad-params";
	}
	return why ? why
		   : result_of(exec_resize(vm, (uint32_t)id, (uint16_t)rows, (uint16_t)cols), e);
}

/* ---- end ---- */

static const struct {
	const char *reason;
	int base;
} ends[] = {
	[EXEC_CODE] = {"exited", 0},
	[EXEC_SIGNALED] = {"signaled", RUN_SIGNAL},
	[EXEC_REFUSED] = {"refused", 0},
	[EXEC_LOST] = {"lost", RUN_FAILED},
};

json_object *ctlexec_ended(struct ctlexec *x, uint32_t id, const struct msg_exec_exit *m)
{
	struct ctlexec_one *o = ctlexec_find(x, id);
	uint32_t end = m->end < EXEC_CODE || m->end > EXEC_LOST ? EXEC_LOST : m->end;

	if (!o)
		return NULL;
	o->ended = true;
	o->orphan = false;
	o->ready_ns = 0;
	o->reason = ends[end].reason;
	o->status = ends[end].base + (end == EXEC_LOST ? 0 : (int)(m->value & 0xff));
	snprintf(o->text, sizeof(o->text), "%s",
		 m->flags & EXEC_OOM ? "the guest ran out of memory and killed a process"
				     : m->text);
	if (m->flags & EXEC_OUTPUT_LOST) {
		o->reason = "output-lost";
		o->status = RUN_FAILED;
	}
	err_clean(o->text);
	return ctlexec_result(x, id);
}

json_object *ctlexec_result(const struct ctlexec *x, int64_t id)
{
	const struct ctlexec_one *o = ctlexec_find(x, id);
	json_object *r = o ? json_object_new_object() : NULL;

	if (!o)
		return NULL;
	j_int(r, "exec", o->id);
	j_bool(r, "ended", o->ended);
	if (!o->ended)
		return r;
	j_int(r, "status", o->status);
	j_str(r, "reason", o->reason);
	if (o->text[0])
		j_str(r, "text", o->text);
	return r;
}

/* ---- deadlines ---- */

static uint64_t limit_of(const struct ctlexec_one *o, const struct vm *vm)
{
	uint64_t deaf = !o->id || o->ended ? 0 : exec_unanswered(vm, o->id);

	if (o->orphan)
		return LOOP_NOW;
	if (deaf)
		return deaf + COMMAND_DEAF_NS;
	return vm_execs(vm)->agent_ready ? 0 : o->ready_ns;
}

uint64_t ctlexec_deadline(const struct ctlexec *x, const struct vm *vm)
{
	uint64_t first = 0;

	for (unsigned i = 0; i < CTLEXEC_KEPT; i++) {
		uint64_t limit = limit_of(&x->one[i], vm);

		if (limit && (!first || limit < first))
			first = limit;
	}
	return first;
}

void ctlexec_overdue(struct ctlexec *x, struct vm *vm)
{
	uint64_t now = clock_ns();

	for (unsigned i = 0; i < CTLEXEC_KEPT; i++) {
		struct ctlexec_one *o = &x->one[i];
		uint64_t limit = limit_of(o, vm);

		if (limit && now >= limit)
			(void)exec_cancel(vm, o->id,
					  o->orphan ? "its client is gone"
					  : o->ready_ns
						  ? "the guest was not up in time"
						  : "the guest did not take a signal in time");
		o->orphan = false;
	}
}
