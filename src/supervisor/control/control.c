/* SPDX-License-Identifier: BSD-2-Clause */
/* What insulad can ask of a supervisor. See control.h; the connections are in control_linux.c and
 * control_win.c. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/log.h>

#include "control_call.h"
#include "ctlrenew.h"
#include "spec/config.h"
#include "spec/ending.h"
#include "spec/json.h"
#include "supervisor/backing/balloon.h"
#include "supervisor/plug.h"
#include "supervisor/recover.h"
#include "supervisor/snapshot/save.h"
#include "supervisor/snapshot/standing.h"
#include "usage.h"
#include "supervisor/loop.h"
#include "supervisor/vm_common.h"

#define DEPTH 16
#define PAUSE_DEADLINE_NS 3000000000ull

/* ---- out ---- */

void control_hung_up(struct control *k, unsigned i)
{
	k->hello[i] = false;
	if (k->turn.conn == i)
		k->turn.conn = CONTROL_CONNS; /* nobody */
	if (k->balloon.conn == i)
		k->balloon.conn = CONTROL_CONNS;
	if (k->resize.conn == i) { /* the next one need not wait for the answer to nobody */
		k->resize.conn = CONTROL_CONNS;
		k->resize.deadline_ns = 0;
	}
	if (k->saving.conn == i)
		k->saving.conn = CONTROL_CONNS;
	for (unsigned n = 0; n < CONFIG_MAX_HOTPLUG; n++) {
		if (k->plugs[n].conn == i)
			k->plugs[n].conn = CONTROL_CONNS;
	}
	if (k->owner == i) {
		k->owner = CONTROL_CONNS;
		k->disowned = true;
	}
	ctlexec_hung_up(&k->exec, i);
}

/* Takes over `o`. */
static void send_object(struct control *k, unsigned i, json_object *o, int fd)
{
	const char *text = j_text(o);

	if (i < CONTROL_CONNS)
		control_os_send(k, i, text, strlen(text), fd);
	json_object_put(o);
}

static json_object *reply(int64_t id)
{
	json_object *o = json_object_new_object();

	j_int(o, "id", id);
	return o;
}

void control_answer(struct control *k, unsigned i, int64_t id, json_object *result)
{
	json_object *o = reply(id);

	j_obj(o, "result", result ? result : json_object_new_object());
	send_object(k, i, o, -1);
}

void control_refuse(struct control *k, unsigned i, int64_t id, const char *reason, const char *text)
{
	json_object *o = reply(id), *error = json_object_new_object();

	j_str(error, "reason", reason);
	j_str(error, "text", text);
	j_obj(o, "error", error);
	send_object(k, i, o, -1);
}

void control_emit(struct control *k, const char *event, json_object *data)
{
	for (unsigned i = 0; i < CONTROL_CONNS; i++) {
		json_object *o;

		if (!k->hello[i])
			continue;
		o = json_object_new_object();
		j_str(o, "event", event);
		j_obj(o, "data", json_object_get(data));
		send_object(k, i, o, -1);
	}
	json_object_put(data);
}

void control_event(struct control *k, const char *event, const char *name, const char *text)
{
	json_object *data = k ? json_object_new_object() : NULL;

	if (!k)
		return;
	if (name)
		j_str(data, "device", name);
	if (text)
		j_str(data, "text", text);
	control_emit(k, event, data);
}

/* ---- operations: one function each ---- */

int64_t call_number(const struct call *c, const char *key, int64_t otherwise)
{
	return j_get_int(c->params, key, otherwise);
}

static const char *state_name(const struct control *k, const struct vm *vm)
{
	if (vm_has_ended(vm) || k->stopping)
		return "stopping";
	if (!vm_is_running(vm))
		return "starting";
	return k->paused ? "paused" : standing_is(vm) ? "starting" : "running";
}

static json_object *control_describe(const struct control *k, const struct vm *vm)
{
	json_object *o = json_object_new_object();

	j_str(o, "state", state_name(k, vm));
	j_int(o, "pid", getpid());
	return o;
}

static void op_hello(struct call *c)
{
	json_object *o = control_describe(c->k, c->vm);

	c->k->hello[c->conn] = true;
	j_str(o, "token", c->k->token);
	j_str(o, "version", INSULA_VERSION);
	ctlresize_describe(c->vm, o);
	control_answer(c->k, c->conn, c->id, o);
}

static void op_info(struct call *c)
{
	json_object *o = control_describe(c->k, c->vm);
	struct control_console n;

	control_os_console(c->k, &n);
	j_int(o, "console_clients", n.clients);
	j_obj(o, "processes", usage_processes(c->vm));
	j_obj(o, "devices", vm_devices(c->vm));
	ctlresize_describe(c->vm, o);
	if (vm_balloon(c->vm)) {
		j_obj(o, "balloon", balloon_json(vm_balloon(c->vm)));
		(void)balloon_ask(vm_balloon(c->vm));
	}
	control_answer(c->k, c->conn, c->id, o);
}

static void op_device_restart(struct call *c)
{
	struct err e;
	int rc = vm_device_restart(c->vm, j_get_str(c->params, "device", ""), &e);

	if (rc)
		control_refuse(c->k, c->conn, c->id, rc == -ENOENT ? "not-found" : "wrong-state",
			       e.text);
	else
		control_answer(c->k, c->conn, c->id, NULL);
}

static void op_metrics(struct call *c)
{
	json_object *o = usage_metrics(c->vm);
	struct control_console n;

	control_os_console(c->k, &n);
	j_int(o, "console_bytes", (int64_t)n.bytes);
	j_int(o, "console_lost_bytes", (int64_t)n.lost);
	control_answer(c->k, c->conn, c->id, o);
}

/* False: it was refused. */
static bool turn(struct call *c, bool pause)
{
	struct control *k = c->k;
	struct vm *vm = c->vm;

	if (!vm_is_running(vm) || vm_has_ended(vm) || (pause && k->stopping) ||
	    (standing_is(vm) && !k->paused)) {
		control_refuse(k, c->conn, c->id, "wrong-state", state_name(k, vm));
		return false;
	}
	if (save_active(vm)) {
		control_refuse(k, c->conn, c->id, "busy", "a snapshot is made");
		return false;
	}
	if (plug_is_adding(vm)) {
		control_refuse(k, c->conn, c->id, "busy", "a device is being added");
		return false;
	}
	if (k->turn.deadline_ns) {
		control_refuse(k, c->conn, c->id, "busy", "another pause or resume is under way");
		return false;
	}
	if (k->paused == pause) {
		control_answer(k, c->conn, c->id, control_describe(k, vm));
	} else if (vm_order(vm, pause ? MSG_PAUSE : MSG_RESUME)) {
		control_refuse(k, c->conn, c->id, "failed", "insula-vmm does not take messages");
		return false;
	} else {
		k->turn.conn = c->conn;
		k->turn.id = c->id;
		k->turn.want = pause;
		k->turn.deadline_ns = clock_ns() + PAUSE_DEADLINE_NS;
	}
	return true;
}

static void op_pause(struct call *c)
{
	(void)turn(c, true);
}

static void op_resume(struct call *c)
{
	(void)turn(c, false);
}

/* ---- the guest is told that it goes on ---- */

/* An operation of its own: a supervisor of an older release must refuse it. */
static void op_renew(struct call *c)
{
	struct control *k = c->k;
	const char *name;

	if (!vm_has_agent(c->vm)) {
		control_refuse(k, c->conn, c->id, "no-agent", vm_no_agent(c->vm));
		return;
	}
	name = j_get_str(c->params, "vm", "");
	if (standing_is(c->vm)) {
		standing_take(c->vm, name, 0);
		(void)turn(c, false); /* it is told then anyway */
	} else if (turn(c, false)) {
		ctlrenew_want(k, name);
	}
}

/* insulad gives a VM that stands to whoever asked for one, with the streams of that client. */
static void op_take(struct call *c)
{
	int64_t timeout = call_number(c, "timeout", 0);
	struct vm *vm = c->vm;

	if (!standing_is(vm)) {
		control_refuse(c->k, c->conn, c->id, "wrong-state", state_name(c->k, vm));
		return;
	}
	standing_take(vm, j_get_str(c->params, "vm", ""), timeout > 0 ? (unsigned)timeout : 0);
	if (turn(c, false) && c->nfds && !c->more_fds)
		control_os_first(c->k, vm_conf(vm)->command, c->fd, &c->nfds);
}

/* ---- snapshots ---- */

static json_object *snapshot_place(const struct vm *vm)
{
	json_object *o = json_object_new_object();

	j_str(o, "path", save_last(vm));
	j_int(o, "paused_us", (int64_t)save_paused_us(vm));
	j_bool(o, "live", save_was_live(vm));
	return o;
}

static void op_snapshot_remove(struct call *c)
{
	save_remove_temporary(c->vm);
	control_answer(c->k, c->conn, c->id, NULL);
}

static void op_snapshot_over(void *ctx, struct vm *vm, int rc, const struct err *e)
{
	struct control *k = ctx;

	if (rc)
		control_refuse(k, k->saving.conn, k->saving.id, "failed", e->text);
	else
		control_answer(k, k->saving.conn, k->saving.id, snapshot_place(vm));
	control_event(k, rc ? "snapshot-failed" : "snapshot", NULL, rc ? e->text : NULL);
}

static void op_snapshot(struct call *c)
{
	const struct save_order o = {.path = j_get_str(c->params, "path", ""),
				     .base = j_get_str(c->params, "base", NULL),
				     .diff = j_get_bool(c->params, "diff", false),
				     .keep_running = j_get_bool(c->params, "keep_running", true),
				     .temporary = j_get_bool(c->params, "temporary", false),
				     .done = op_snapshot_over,
				     .ctx = c->k};
	struct err e;
	int rc = c->k->turn.deadline_ns ? err_set(&e, -EBUSY, "a pause or resume is under way")
					: save_begin(c->vm, &o, &e);

	if (rc) {
		control_refuse(c->k, c->conn, c->id,
			       rc == -EBUSY                     ? "wrong-state"
			       : rc == -EEXIST || rc == -EINVAL ? "bad-params"
								: "failed",
			       e.text);
		return;
	}
	c->k->saving.conn = c->conn;
	c->k->saving.id = c->id;
}

/* ---- the end ---- */

static void force(struct control *k, struct vm *vm)
{
	k->stop_ns = 0;
	k->forced = !vm_has_ended(vm);
	vm_stop(vm, "stopped", RUN_SIGNAL + SIGTERM, false);
}

/* A power-off ends the stream as well; that the guest does nothing shows at the deadline. */
static void poweroff_over(struct vm *vm, uint32_t id, const struct msg_exec_exit *x)
{
	char text[EXEC_TEXT_LEN];

	(void)vm;
	(void)id;
	snprintf(text, sizeof(text), "%s", x->text);
	err_clean(text);
	log_info("power-off: %s", text);
}

/* A guest that can be asked to power off is asked, and has until the deadline; any other ends now.
 * One that is paused cannot hear it; one that stands has not begun. */
static void op_stop(struct call *c)
{
	struct control *k = c->k;
	struct vm *vm = c->vm;
	int64_t given = call_number(c, "deadline_ms", 0);
	uint32_t ms = given > 0 && given <= CALL_MAX_WAIT_MS ? (uint32_t)given : 0;
	uint64_t limit = clock_ns() + ms * 1000000ull;
	struct err e;
	int rc;

	save_cancel(vm, "the VM is being stopped");
	control_answer(k, c->conn, c->id, NULL);
	k->stopping = true;
	if (!ms || !vm_has_agent(vm) || vm_has_ended(vm) || standing_is(vm)) {
		force(k, vm);
		return;
	}
	/* What is left is insula-init's, should the root's own init not have done it by then. */
	rc = exec_poweroff(vm, ms - ms / 4, poweroff_over, &e);
	if (rc && rc != -EALREADY) {
		log_warn("%s; the VM is stopped without it", e.text);
		force(k, vm);
		return;
	}
	if (k->paused || (k->turn.deadline_ns && k->turn.want))
		(void)vm_order(vm, MSG_RESUME);
	if (!k->stop_ns || limit < k->stop_ns)
		k->stop_ns = limit;
}

static void op_kill(struct call *c)
{
	c->k->forced = true;
	vm_stop(c->vm, "killed", RUN_SIGNAL + 9 /* SIGKILL, on Windows too */, true);
	control_answer(c->k, c->conn, c->id, NULL);
}

/* insula-oci: a VM whose container's process is gone, however it went, has nobody left. */
static void op_own(struct call *c)
{
	if (c->k->owner < CONTROL_CONNS || c->k->disowned) {
		control_refuse(c->k, c->conn, c->id, "wrong-state", "it has an owner");
		return;
	}
	c->k->owner = c->conn;
	control_answer(c->k, c->conn, c->id, NULL);
}

static void op_console(struct call *c)
{
	json_object *o, *result;
	struct err e;
	int fd = -1, rc;

	if (!c->k->has_console) {
		control_refuse(c->k, c->conn, c->id, "no-console",
			       "the console of this VM goes elsewhere: see its configuration");
		return;
	}
	result = json_object_new_object();
	rc = control_os_attach(c->k, c->params, result, &fd, &e);
	if (rc) {
		json_object_put(result);
		control_refuse(c->k, c->conn, c->id, rc == -EBUSY ? "busy" : "failed", e.text);
		return;
	}
	o = reply(c->id);
	j_obj(o, "result", result);
	send_object(c->k, c->conn, o, fd);
	fd_close(&fd);
}

/* ---- commands ---- */

static void exec_over(struct vm *vm, uint32_t id, const struct msg_exec_exit *x)
{
	struct control *k = vm_control(vm);
	json_object *data = ctlexec_ended(&k->exec, id, x);

	if (data)
		control_emit(k, "exec-ended", data);
}

static void op_exec(struct call *c)
{
	const char *why = "bad-params";
	json_object *o;
	uint32_t id;
	struct err e;

	if (!control_os_streams(c->params, c->fd, &c->nfds, &e))
		why = ctlexec_start(&c->k->exec, c->vm, c->params, c->fd,
				    c->more_fds ? CTLEXEC_FDS + 1 : c->nfds, exec_over, &id, &e);
	if (why) {
		control_refuse(c->k, c->conn, c->id, why, e.text);
		return;
	}
	if (j_get_bool(c->params, "tied", false))
		ctlexec_tie(&c->k->exec, id, c->conn);
	o = json_object_new_object();
	j_int(o, "exec", id);
	control_answer(c->k, c->conn, c->id, o);
}

static void control_settle(struct call *c, const char *why, const struct err *e)
{
	if (why)
		control_refuse(c->k, c->conn, c->id, why, e->text);
	else
		control_answer(c->k, c->conn, c->id, NULL);
}

static void op_exec_signal(struct call *c)
{
	struct err e;

	control_settle(c,
		       ctlexec_signal(&c->k->exec, c->vm, call_number(c, "exec", 0),
				      call_number(c, "signal", 0), &e),
		       &e);
}

static void op_exec_resize(struct call *c)
{
	struct err e;

	control_settle(c,
		       ctlexec_resize(&c->k->exec, c->vm, call_number(c, "exec", 0),
				      call_number(c, "rows", 0), call_number(c, "cols", 0), &e),
		       &e);
}

static void op_exec_result(struct call *c)
{
	json_object *o = ctlexec_result(&c->k->exec, call_number(c, "exec", 0));

	if (o)
		control_answer(c->k, c->conn, c->id, o);
	else
		control_refuse(c->k, c->conn, c->id, "not-found",
			       "there is no such command in this VM");
}

static const struct {
	const char *name;
	void (*run)(struct call *c);
} ops[] = {
	{"hello", op_hello},
	{"info", op_info},
	{"metrics", op_metrics},
	{"balloon", op_balloon},
	{"resize", op_resize},
	{"metadata", op_metadata},
	{"pause", op_pause},
	{"resume", op_resume},
	{"renew", op_renew},
	{"take", op_take},
	{"snapshot", op_snapshot},
	{"snapshot-remove", op_snapshot_remove},
	{"stop", op_stop},
	{"kill", op_kill},
	{"own", op_own},
	{"device-restart", op_device_restart},
	{"device-add", op_device_add},
	{"device-remove", op_device_remove},
	{"devices", op_devices},
	{"net-policy", op_net_policy},
	{"limits", op_limits},
	{"console", op_console},
	{"exec", op_exec},
	{"exec-signal", op_exec_signal},
	{"exec-resize", op_exec_resize},
	{"exec-result", op_exec_result},
};

bool control_is_paused(const struct control *k)
{
	return k && k->paused;
}

void control_paused(struct control *k, struct vm *vm, bool paused)
{
	if (!k || k->paused == paused)
		return;
	k->paused = paused;
	if (k->turn.deadline_ns && k->turn.want == paused) {
		k->turn.deadline_ns = 0;
		control_answer(k, k->turn.conn, k->turn.id, control_describe(k, vm));
	}
	control_event(k, paused ? "paused" : "resumed", NULL, NULL);
}

/* ---- in ---- */

/* A peer that sends what is no request is no insulad. */
static bool run_op(struct call *c, json_object *root)
{
	json_object *op, *id;

	if (!json_object_is_type(root, json_type_object) ||
	    !json_object_object_get_ex(root, "op", &op) ||
	    !json_object_object_get_ex(root, "id", &id) ||
	    !json_object_is_type(op, json_type_string) || !json_object_is_type(id, json_type_int))
		return false;
	if (json_object_object_get_ex(root, "params", &c->params) &&
	    !json_object_is_type(c->params, json_type_object))
		return false;
	c->id = json_object_get_int64(id);
	for (unsigned n = 0; n < ARRAY_LEN(ops); n++) {
		if (!strcmp(ops[n].name, json_object_get_string(op))) {
			ops[n].run(c);
			return true;
		}
	}
	control_refuse(c->k, c->conn, c->id, "unknown-op", json_object_get_string(op));
	return true;
}

static bool parse_and_run(struct call *c, const char *text, size_t len)
{
	const char *why;
	json_object *root = j_parse(text, len, DEPTH, &why);
	bool ok = root && run_op(c, root);

	json_object_put(root);
	return ok;
}

bool control_packet(struct control *k, struct vm *vm, unsigned i, const char *text, size_t len,
		    struct control_fds *f)
{
	struct call c = {.k = k, .vm = vm, .conn = i};
	bool ok;

	if (f) {
		memcpy(c.fd, f->fd, sizeof(c.fd));
		c.nfds = f->n;
		c.more_fds = f->more;
	}
	ok = parse_and_run(&c, text, len);
	while (c.nfds)
		fd_close(&c.fd[--c.nfds]);
	return ok;
}

uint64_t control_deadline(const struct control *k, const struct vm *vm)
{
	const uint64_t limit[] = {k ? k->turn.deadline_ns : 0,
				  k ? k->stop_ns : 0,
				  k ? k->balloon.deadline_ns : 0,
				  k ? k->resize.deadline_ns : 0,
				  k ? ctlexec_deadline(&k->exec, vm) : 0,
				  k && k->renew.id ? k->renew.limit_ns : 0,
				  k ? vmlog_deadline(&k->log, clock_ns()) : 0,
				  k && k->disowned && !vm_has_ended(vm) ? LOOP_NOW : 0};
	uint64_t first = 0;

	for (unsigned i = 0; i < ARRAY_LEN(limit); i++) {
		if (limit[i] && (!first || limit[i] < first))
			first = limit[i];
	}
	return first;
}

void control_begin(struct control *k, struct vm *vm)
{
	if (k)
		control_os_begin(k, vm, vm_loop(vm));
}

void control_turn(struct control *k, struct vm *vm)
{
	uint64_t now = clock_ns();

	if (!k)
		return;
	if (k->turn.deadline_ns && now >= k->turn.deadline_ns) {
		k->turn.deadline_ns = 0;
		control_refuse(k, k->turn.conn, k->turn.id, "timeout",
			       "the vCPUs did not answer in time");
		/* The state must be one of the two, not something between. */
		if (k->turn.want)
			(void)vm_order(vm, MSG_RESUME);
	}
	if (k->balloon.deadline_ns && now >= k->balloon.deadline_ns)
		control_balloon(k, vm);
	control_resize_turn(k, vm, now);
	if (k->stop_ns && now >= k->stop_ns) {
		log_warn("the guest did not power off in time");
		force(k, vm);
	}
	if (k->disowned && !vm_has_ended(vm)) {
		k->forced = true;
		vm_stop(vm, "disowned", RUN_SIGNAL + SIGTERM, true);
	}
	ctlrenew_serve(k, vm, now);
	ctlexec_overdue(&k->exec, vm);
	vmlog_serve(&k->log, now);
}
