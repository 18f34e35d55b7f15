/* SPDX-License-Identifier: BSD-2-Clause */
/* See ctlresize.h. */
#include <errno.h>
#include <stdio.h>

#include <insula/base.h>

#include "ctlresize.h"
#include "spec/json.h"
#include "supervisor/backing/added.h"
#include "supervisor/device/device.h"
#include "supervisor/vm_common.h"

#define RESIZE_DEADLINE_NS 30000000000ull
#define RESIZE_MAX_MS 3600000

/* ---- memory ---- */

static const struct added_back *added_of(const struct vm *vm)
{
	const struct device *d = vm_added(vm);

	return d ? d->back.added : NULL;
}

static const char *memory_check(struct vm *vm, int64_t value, struct err *e)
{
	const struct device *d = vm_added(vm);

	if (!d) {
		err_set(e, -EOPNOTSUPP,
			"the memory of this VM cannot be resized: it was made without --mem's max");
		return "no-resize";
	}
	return added_check(d, (uint64_t)value, e) ? "bad-params" : NULL;
}

static void memory_set(struct vm *vm, int64_t value)
{
	added_set(vm_added(vm), (uint64_t)value);
}

static bool memory_is_reached(const struct vm *vm)
{
	const struct added_back *b = added_of(vm);

	return !b || b->requested == b->plugged;
}

static json_object *memory_describe(const struct vm *vm)
{
	const struct added_back *b = added_of(vm);

	return b ? added_json(b) : NULL;
}

bool ctlresize_shrunk(struct ctlresize *z, const struct vm *vm)
{
	const struct added_back *b = added_of(vm);
	uint64_t now = !b ? 0 : b->requested > b->plugged ? b->requested : b->plugged;
	bool shrunk = now < z->most && !z->deadline_ns;

	if (shrunk || now > z->most)
		z->most = now;
	return shrunk;
}

/* ---- processors ---- */

static const char *processors_check(struct vm *vm, int64_t value, struct err *e)
{
	const struct vm_cpus *c = vm_cpus(vm);

	if (!c->max) {
		err_set(e, -EOPNOTSUPP,
			"the processors of this VM stay: it was made without --cpus's max");
		return "no-resize";
	}
	if (value >= 1 && value <= c->max)
		return NULL;
	err_set(e, -EINVAL, "cpus: '%lld'; expected a number from 1 to %u", (long long)value,
		c->max);
	return "bad-params";
}

static void processors_set(struct vm *vm, int64_t value)
{
	(void)vm_want_cpus(vm, (unsigned)value); /* whose channel has ended: so does the VM */
}

static bool processors_are_reached(const struct vm *vm)
{
	const struct vm_cpus *c = vm_cpus(vm);

	return !c->requested || c->actual == c->requested;
}

static json_object *processors_describe(const struct vm *vm)
{
	const struct vm_cpus *c = vm_cpus(vm);
	json_object *o;
	char text[96];

	if (!c->max)
		return NULL;
	o = json_object_new_object();
	j_int(o, "requested", c->requested ? c->requested : c->actual);
	j_int(o, "actual", c->actual);
	j_int(o, "max", c->max);
	if (!processors_are_reached(vm)) {
		snprintf(text, sizeof(text), "the guest has %u processor%s, and %s %u", c->actual,
			 c->actual == 1 ? "" : "s",
			 c->actual > c->requested ? "has not given back all but" : "did not take",
			 c->requested);
		j_str(o, "text", text);
	}
	return o;
}

/* ---- the table ---- */

static const struct {
	const char *param;  /* a number */
	const char *member; /* of an answer: {requested, actual, max} */
	/* NULL: it can be done; nothing has been. */
	const char *(*check)(struct vm *vm, int64_t value, struct err *e);
	void (*set)(struct vm *vm, int64_t value);
	bool (*is_reached)(const struct vm *vm);
	json_object *(*describe)(const struct vm *vm); /* the caller's; NULL: this VM has none */
} parts[] = {
	{"mem", "memory", memory_check, memory_set, memory_is_reached, memory_describe},
	{"cpus", "processors", processors_check, processors_set, processors_are_reached,
	 processors_describe},
};

const char *ctlresize_begin(struct ctlresize *z, struct vm *vm, json_object *params, struct err *e)
{
	int64_t ms = j_get_int(params, "timeout_ms", 0);
	unsigned n = 0;

	if (z->deadline_ns) {
		err_set(e, -EBUSY, "another resize is under way");
		return "busy";
	}
	if (!vm_is_running(vm)) {
		err_set(e, -EBUSY, "the guest does not run");
		return "wrong-state";
	}
	for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
		int64_t value = j_get_int(params, parts[i].param, -1);
		const char *why = value < 0 ? NULL : parts[i].check(vm, value, e);

		if (why)
			return why;
		n += value >= 0;
	}
	if (!n) {
		err_set(e, -EINVAL, "mem, cpus: missing; expected what the guest shall have");
		return "bad-params";
	}
	for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
		int64_t value = j_get_int(params, parts[i].param, -1);

		if (value >= 0)
			parts[i].set(vm, value);
	}
	z->deadline_ns = clock_ns() + (ms > 0 && ms < RESIZE_MAX_MS ? (uint64_t)ms * 1000000
								    : RESIZE_DEADLINE_NS);
	return NULL;
}

bool ctlresize_over(const struct ctlresize *z, struct vm *vm, uint64_t now)
{
	if (!z->deadline_ns)
		return false;
	for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
		if (!parts[i].is_reached(vm))
			return now >= z->deadline_ns;
	}
	return true;
}

void ctlresize_describe(const struct vm *vm, json_object *o)
{
	for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
		json_object *part = parts[i].describe(vm);

		if (part)
			j_obj(o, parts[i].member, part);
	}
}
