/* SPDX-License-Identifier: BSD-2-Clause */
/* Operations that change what a VM is made of: devices, the balloon, its size. See control_call.h.
 * */
#include <errno.h>
#include <string.h>

#include <insula/base.h>

#include "control_call.h"
#include "spec/json.h"
#include "supervisor/backing/balloon.h"
#include "supervisor/backing/metadata.h"
#include "supervisor/plug.h"
#include "supervisor/vm_common.h"

#define BALLOON_DEADLINE_NS 1000000000ull

/* ---- devices that come and go ---- */

/* What plug.h and the system say; all else has failed. Of a device that is added there may be no
 * such file. */
static const char *plug_reason(int rc)
{
	static const struct {
		int code;
		const char *reason;
	} known[] = {{-EINVAL, "bad-params"},    {-EEXIST, "bad-params"}, {-ENOENT, "bad-params"},
		     {-ENODEV, "bad-params"},    {-EACCES, "bad-params"}, {-EPERM, "bad-params"},
		     {-ENOTDIR, "bad-params"},   {-EISDIR, "bad-params"}, {-ENXIO, "not-found"},
		     {-EBUSY, "wrong-state"},    {-ENOSPC, "limit"},      {-ETIMEDOUT, "timeout"},
		     {-EOPNOTSUPP, "no-hotplug"}};

	for (size_t i = 0; i < ARRAY_LEN(known); i++) {
		if (known[i].code == rc)
			return known[i].reason;
	}
	return "failed";
}

static void plug_over(void *ctx, struct vm *vm, unsigned place, int rc, const struct err *e)
{
	struct control *k = ctx;

	if (rc)
		control_refuse(k, k->plugs[place].conn, k->plugs[place].id, plug_reason(rc),
			       e->text);
	else
		control_answer(k, k->plugs[place].conn, k->plugs[place].id, plug_json(vm, place));
}

/* Answered by plug_over(). */
static void plug_waits(struct call *c, int rc, unsigned place, const struct err *e)
{
	if (rc) {
		control_refuse(c->k, c->conn, c->id, plug_reason(rc), e->text);
		return;
	}
	c->k->plugs[place].conn = c->conn;
	c->k->plugs[place].id = c->id;
}

void op_device_add(struct call *c)
{
	unsigned place = 0;
	struct err e;
	int rc = c->k->turn.deadline_ns ? err_set(&e, -EBUSY, "a pause or resume is under way")
					: plug_add(c->vm, j_get(c->params, "config"),
						   j_get_str(c->params, "device", NULL), plug_over,
						   c->k, &place, &e);

	plug_waits(c, rc, place, &e);
}

void op_device_remove(struct call *c)
{
	int64_t ms = call_number(c, "timeout_ms", PLUG_DEADLINE_MS);
	unsigned place = 0;
	struct err e;
	int rc = plug_remove(c->vm, j_get_str(c->params, "device", ""),
			     j_get_bool(c->params, "force", false),
			     ms < 0 || ms > CALL_MAX_WAIT_MS ? PLUG_DEADLINE_MS : (uint64_t)ms,
			     plug_over, c->k, &place, &e);

	plug_waits(c, rc, place, &e);
}

void op_devices(struct call *c)
{
	control_answer(c->k, c->conn, c->id, plug_list(c->vm));
}

/* ---- the balloon ---- */

void control_balloon(struct control *k, struct vm *vm)
{
	if (!k || !k->balloon.deadline_ns)
		return;
	k->balloon.deadline_ns = 0;
	control_answer(k, k->balloon.conn, k->balloon.id, balloon_json(vm_balloon(vm)));
}

/* Answered when the guest has said what it has now; with what is known when it says nothing, when
 * it cannot be asked, and to whoever comes while another one waits. */
void op_balloon(struct call *c)
{
	struct device *d = vm_balloon(c->vm);
	int64_t target = call_number(c, "target", -1);
	struct control *k = c->k;
	struct err e;
	int rc;

	if (!d) {
		control_refuse(k, c->conn, c->id, "no-balloon",
			       "this VM has no balloon: see its configuration");
		return;
	}
	rc = target == -1 ? 0 : balloon_set(d, target < 0 ? 0 : (uint64_t)target, &e);
	if (rc) {
		control_refuse(k, c->conn, c->id, "bad-params", e.text);
	} else if (k->paused || k->balloon.deadline_ns || !vm_is_running(c->vm) ||
		   !balloon_ask(d)) {
		control_answer(k, c->conn, c->id, balloon_json(d));
	} else {
		k->balloon.conn = c->conn;
		k->balloon.id = c->id;
		k->balloon.deadline_ns = clock_ns() + BALLOON_DEADLINE_NS;
	}
}

/* ---- metadata ---- */

/* The answer is text, so that nothing on the way takes a line end in a string for one that a terminal
 * would obey. */
void op_metadata(struct call *c)
{
	json_object *tree = j_get(c->params, "metadata"), *o;
	struct err e;
	int rc = 0;

	if (!metadata_tree(c->vm))
		rc = err_set(&e, -EOPNOTSUPP,
			     "this VM has no metadata service: it was made without --metadata, and "
			     "without a card that has metadata");
	else if (tree)
		rc = metadata_change(c->vm, tree, j_get_bool(c->params, "patch", false), &e);
	if (rc) {
		control_refuse(c->k, c->conn, c->id,
			       rc == -EOPNOTSUPP ? "no-metadata"
			       : rc == -EINVAL   ? "bad-params"
						 : "failed",
			       e.text);
		return;
	}
	o = json_object_new_object();
	j_str(o, "text", metadata_text(metadata_tree(c->vm)));
	control_answer(c->k, c->conn, c->id, o);
}

/* ---- resizing ---- */

static json_object *resize_state(const struct vm *vm)
{
	json_object *o = json_object_new_object();

	ctlresize_describe(vm, o);
	return o;
}

void op_resize(struct call *c)
{
	struct control *k = c->k;
	struct err e;
	const char *why = ctlresize_begin(&k->resize, c->vm, c->params, &e);

	if (why) {
		control_refuse(k, c->conn, c->id, why, e.text);
		return;
	}
	k->resize.conn = c->conn;
	k->resize.id = c->id;
}

void control_resize_turn(struct control *k, struct vm *vm, uint64_t now)
{
	if (!ctlresize_over(&k->resize, vm, now))
		return;
	k->resize.deadline_ns = 0;
	control_answer(k, k->resize.conn, k->resize.id, resize_state(vm));
}

void control_resized(struct control *k, struct vm *vm)
{
	if (!k)
		return;
	control_resize_turn(k, vm, clock_ns());
	control_emit(k, "resized", resize_state(vm));
}

void control_memory(struct control *k, struct vm *vm)
{
	if (!k)
		return;
	control_resize_turn(k, vm, clock_ns());
	if (ctlresize_shrunk(&k->resize, vm))
		control_emit(k, "resized", resize_state(vm));
}
