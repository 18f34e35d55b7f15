/* SPDX-License-Identifier: BSD-2-Clause */
/* How much a device may do in a second, changed while the VM runs. See control_call.h. */
#include <errno.h>
#include <string.h>

#include <insula/base.h>

#include "control_call.h"
#include "spec/json.h"
#include "supervisor/device/device.h"
#include "supervisor/plug.h"
#include "supervisor/vm_common.h"

struct device *call_device(struct call *c)
{
	const char *name = j_get_str(c->params, "device", "");
	struct device *d = vm_device_named(c->vm, name);
	struct err e;

	if (!d || (d->plug && !plug_is_there(d->plug))) {
		err_set(&e, -ENOENT, "device: '%.40s'; expected one that vm.info names", name);
		control_refuse(c->k, c->conn, c->id, "not-found", e.text);
		return NULL;
	}
	if (!vm_is_running(c->vm)) {
		control_refuse(c->k, c->conn, c->id, "wrong-state", "the guest does not run");
		return NULL;
	}
	return d;
}

/* What counts the requests of a card has another name than what counts those of a disk. */
static int check_names(const struct device *d, json_object *params, struct err *e)
{
	static const char *const names[] = {"pps", "iops"};

	if (!d->class->limit || !d->class->limit(d))
		return err_set(e, -EINVAL,
			       "device: '%.40s'; expected a network card without vhost=on, or a "
			       "disk that no other program serves",
			       d->desc.name);
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		if (j_get(params, names[i]) && strcmp(names[i], d->class->limited) != 0)
			return err_set(e, -EINVAL, "%s: expected %s of '%.40s', which is a %s",
				       names[i], d->class->limited, d->desc.name,
				       !strcmp(d->class->limited, "pps") ? "card" : "disk");
	}
	return 0;
}

void op_limits(struct call *c)
{
	struct device *d = call_device(c);
	struct msg_limit *m;
	struct err e;

	if (!d)
		return;
	if (check_names(d, c->params, &e)) {
		control_refuse(c->k, c->conn, c->id, "bad-params", e.text);
		return;
	}
	m = d->class->limit(d);
	m->rate = (uint64_t)call_number(c, "rate", (int64_t)m->rate);
	m->ops = (uint64_t)call_number(c, d->class->limited, (int64_t)m->ops);
	/* A helper that is not there gets them with its start. */
	if (d->child.state == CHILD_READY)
		(void)child_send(&d->child, MSG_LIMIT, m, sizeof(*m), NULL, 0);
	control_answer(c->k, c->conn, c->id, NULL);
}
