/* SPDX-License-Identifier: BSD-2-Clause */
/* Devices that come and go. See plug.h. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>
#include <insula/log.h>

#include "plug_state.h"
#include "spec/json.h"
#include "supervisor/device/device.h"
#include "supervisor/snapshot/save.h"
#include "supervisor/snapshot/standing.h"
#include "vm.h"

#define SECOND_NS 1000000000ull
#define MS_NS 1000000ull
#define CONNECT_NS (10 * SECOND_NS) /* a server takes a connection */
#define CONNECT_LOOK_NS (5 * MS_NS)
#define READY_NS (10 * SECOND_NS) /* its helper is jailed and ready */
#define VMM_NS (5 * SECOND_NS)    /* insula-vmm answers */
#define DRAIN_NS (10 * SECOND_NS) /* its helper finishes what is in flight */

/* ---- who asks ---- */

static void plug_asked(struct plug *p, plug_done *fn, void *ctx)
{
	p->asks.fn = fn;
	p->asks.ctx = ctx;
}

static void plug_answer(struct plug *p, int rc, const struct err *e)
{
	plug_done *fn = p->asks.fn;

	p->asks.fn = NULL;
	if (fn)
		fn(p->asks.ctx, p->vm, p->number, rc, e);
}

static void plug_step(struct plug *p, enum plug_state s, uint64_t within)
{
	p->state = s;
	p->limit_ns = within ? clock_ns() + within : 0;
}

/* The first reason counts: the others follow from it. */
static void plug_because(struct plug *p, int rc, const char *fmt, ...) INSULA_PRINTF(3, 4);
static void plug_because(struct plug *p, int rc, const char *fmt, ...)
{
	char text[256];
	va_list ap;

	if (p->why.code)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	err_clean(text); /* a jailed process may have worded it */
	err_set(&p->why, rc, "%s: %s", p->device->desc.name, text);
}

static const char *plug_program(const struct plug *p)
{
	const char *program = p->device->class->program;

	return program ? program : "the module";
}

/* ---- the way out ---- */

static void plug_free(struct plug *p)
{
	const struct err why = p->why;
	char name[DEV_NAME_LEN];

	snprintf(name, sizeof(name), "%s", p->device->desc.name);
	device_unplug(p->device);
	plug_back_close(p);
	config_free(p->conf);
	free(p->conf);
	p->conf = NULL;
	p->why = (struct err){0};
	plug_step(p, PLUG_EMPTY, 0);
	if (p->was_there) {
		log_info("%s: removed from slot %u", name, p->number + 1);
		control_event(p->vm->control, "device-removed", name, NULL);
	}
	plug_answer(p, why.code, &why);
}

/* Nobody else may have its disk while something of a dead helper's may still land there. */
static void plug_quiet(struct plug *p)
{
	/* Of the device: or it cannot be known. */
	if (device_quiet(p->device) && plug_back_quiet(p)) {
		plug_free(p);
		return;
	}
	p->look_ns = p->look_ns ? 2 * p->look_ns : RESTART_LOOK_NS;
	if (p->look_ns > RESTART_LOOKS_NS)
		p->look_ns = RESTART_LOOKS_NS;
	plug_step(p, PLUG_QUIETS, p->look_ns);
}

/* It is off the bus, or was never on it. */
static void plug_off(struct plug *p)
{
	struct child *c = &p->device->child;

	restart_stop(&p->device->restart);
	p->look_ns = 0;
	if (child_stop(c)) {
		plug_step(p, PLUG_STOPS, DRAIN_NS);
	} else if (c->state != CHILD_NONE) {
		child_shoot(c);
		plug_step(p, PLUG_STOPS, 0);
	} else {
		plug_quiet(p);
	}
}

static int tell_unplug(const struct plug *p, bool now)
{
	const struct msg_unplug m = {.index = p->device->desc.index, .now = now};

	return vm_tell(p->vm, MSG_UNPLUG, &m, sizeof(m));
}

/* insula-vmm may have told the guest already. */
static void plug_undo(struct plug *p)
{
	(void)tell_unplug(p, true); /* one that cannot be told ends the VM */
	plug_step(p, PLUG_UNDOES, VMM_NS);
}

/* ---- what others hear ---- */

bool plug_helper_ready(struct plug *p)
{
	if (p->state != PLUG_STARTS)
		return false;
	if (device_tell(p->device, &p->vm->vmm)) {
		plug_because(p, -EIO, "insula-vmm does not take messages");
		plug_off(p);
	} else {
		plug_step(p, PLUG_COMES, VMM_NS);
	}
	return true;
}

void plug_helper_failed(struct plug *p, const struct msg_failed *f)
{
	if (p->state == PLUG_STARTS)
		plug_because(p, f->bad_input ? -EINVAL : -EIO, "%s%s%s",
			     f->bad_input ? "" : f->step, f->bad_input ? "" : ": ", f->text);
}

bool plug_helper_died(struct plug *p, enum child_state before, const char *how)
{
	(void)before;
	switch (p->state) {
	case PLUG_STARTS:
		plug_because(p, -EIO, "%s %s before it was ready", plug_program(p), how);
		plug_quiet(p);
		return true;
	case PLUG_COMES:
		plug_because(p, -EIO, "%s %s before the guest had it", plug_program(p), how);
		plug_undo(p);
		return true;
	case PLUG_STOPS:
		plug_quiet(p);
		return true;
	case PLUG_THERE:
	case PLUG_LEAVES:
		return false;
	default:
		return true;
	}
}

bool plug_peer_died(struct plug *p, const char *name, const char *how, const char *last)
{
	if (p->state == PLUG_STARTS || p->state == PLUG_COMES) {
		plug_because(p, -EIO, "%s %s%s%s", name, how, last[0] ? ": " : "", last);
		child_shoot(&p->device->child);
		return true;
	}
	return !plug_is_there(p);
}

static struct plug *plug_at(struct vm *vm, uint32_t index)
{
	struct device *d = index < vm->ndevices ? &vm->device[index] : NULL;

	return d ? d->plug : NULL;
}

bool plug_plugged(struct vm *vm, const struct msg_plugged *m)
{
	struct plug *p = plug_at(vm, m->index);

	if (!p)
		return false;
	if (p->state != PLUG_COMES && p->state != PLUG_UNDOES)
		return true; /* late */
	if (m->error) {
		plug_because(p, -EIO, "insula-vmm: %.*s", (int)sizeof(m->text), m->text);
		plug_off(p);
	} else if (p->state == PLUG_COMES) {
		plug_step(p, PLUG_THERE, 0);
		p->was_there = true;
		log_info("%s: in slot %u", p->device->desc.name, p->number + 1);
		control_event(vm->control, "device-added", p->device->desc.name, NULL);
		plug_answer(p, 0, NULL);
	}
	return true;
}

/* It cannot be taken from the bus: the guest has it. */
static void plug_stays(struct plug *p, const struct msg_plugged *m)
{
	struct err e;

	err_set(&e, m->error, "%s: insula-vmm: %.*s", p->device->desc.name, (int)sizeof(m->text),
		m->text);
	err_clean(e.text);
	plug_step(p, PLUG_THERE, 0);
	plug_answer(p, -EIO, &e);
}

bool plug_unplugged(struct vm *vm, const struct msg_plugged *m)
{
	struct plug *p = plug_at(vm, m->index);

	if (!p)
		return false;
	if (m->error && p->state == PLUG_LEAVES)
		plug_stays(p, m);
	else if (!m->error && (p->state == PLUG_UNDOES || plug_is_there(p))) {
		plug_back_stop(p);
		plug_off(p);
	}
	return true;
}

/* ---- deadlines ---- */

uint64_t plug_due(const struct vm *vm)
{
	uint64_t first = 0;

	for (unsigned i = 0; i < vm->nplugs; i++)
		first = loop_sooner(first, vm->plug[i].limit_ns);
	return first;
}

/* Whoever asked is told; the device stays, and goes when the guest gives it up after all. */
static void leaves_over(struct plug *p)
{
	struct err e;

	if (p->forced) {
		err_set(&e, -ETIMEDOUT, "%s: insula-vmm does not answer", p->device->desc.name);
		p->limit_ns = 0;
	} else {
		err_set(&e, -ETIMEDOUT,
			"%s: the guest did not give it up in time, and keeps it; expected force "
			"for a guest that does not answer",
			p->device->desc.name);
		plug_step(p, PLUG_THERE, 0);
	}
	log_warn("%s", e.text);
	plug_answer(p, e.code, &e);
}

/* Its first helper, when what it needs is there. */
static int plug_start(struct plug *p, struct err *e)
{
	struct vm *vm = p->vm;
	int rc = plug_back_ready(p, e);

	if (rc == 1) {
		rc = device_start(p->device, vm->mem, &vm->memmap, e);
		if (!rc)
			plug_step(p, PLUG_STARTS, READY_NS + plug_back_takes(p));
	} else if (!rc) {
		plug_step(p, PLUG_CONNECTS, CONNECT_LOOK_NS);
	}
	return rc;
}

static void plug_connects(struct plug *p)
{
	struct err e;
	int rc = clock_ns() < p->connect_ns
			 ? plug_start(p, &e)
			 : err_set(&e, -ETIMEDOUT, "%s in time",
				   p->conf->nnets ? "the switch has not made its port"
						  : "no server has taken the connection");

	if (rc) {
		plug_because(p, rc, "%s", e.text);
		plug_off(p);
	}
}

static void plug_is_over(struct plug *p)
{
	p->limit_ns = 0;
	switch (p->state) {
	case PLUG_CONNECTS:
		plug_connects(p);
		break;
	case PLUG_STARTS:
		plug_because(p, -ETIMEDOUT, "%s was not ready in time", plug_program(p));
		child_shoot(&p->device->child);
		break;
	case PLUG_COMES:
		plug_because(p, -ETIMEDOUT, "insula-vmm did not answer in time");
		plug_undo(p);
		break;
	case PLUG_UNDOES: /* the place is lost until it answers */
		plug_answer(p, p->why.code, &p->why);
		break;
	case PLUG_LEAVES:
		leaves_over(p);
		break;
	case PLUG_STOPS:
		log_warn("%s: what it has in flight does not end; it is killed",
			 p->device->child.name);
		child_shoot(&p->device->child);
		break;
	case PLUG_QUIETS:
		plug_quiet(p);
		break;
	default:
		break;
	}
}

void plug_overdue(struct vm *vm)
{
	uint64_t now = clock_ns();

	for (unsigned i = 0; i < vm->nplugs && !vm->ended; i++) {
		if (vm->plug[i].limit_ns && vm->plug[i].limit_ns <= now)
			plug_is_over(&vm->plug[i]);
	}
}

/* ---- looking ---- */

bool plug_is_there(const struct plug *p)
{
	return p->state == PLUG_THERE || p->state == PLUG_LEAVES;
}

bool plug_is_adding(const struct vm *vm)
{
	for (unsigned i = 0; i < vm->nplugs; i++) {
		enum plug_state s = vm->plug[i].state;

		if (s == PLUG_CONNECTS || s == PLUG_STARTS || s == PLUG_COMES || s == PLUG_UNDOES)
			return true;
	}
	return false;
}

const char *plug_present(const struct vm *vm)
{
	for (unsigned i = 0; i < vm->nplugs; i++) {
		if (vm->plug[i].state != PLUG_EMPTY)
			return vm->plug[i].device->desc.name;
	}
	return NULL;
}

static const char *state_of(const struct device *d)
{
	const struct plug *p = d->plug;

	if (!p || p->state == PLUG_THERE)
		return restart_name(&d->restart);
	return p->state <= PLUG_COMES ? "adding" : "removing";
}

/* As lspci has it: the bus behind a port is one more than its number among them. */
static void place_of(const struct device *d, char out[16])
{
	if (d->plug)
		snprintf(out, 16, "%02x:00.0", d->plug->number + 1);
	else if (device_is_pci(&d->desc))
		snprintf(out, 16, "00:%02x.0", d->desc.pci.number);
	else
		snprintf(out, 16, "%s", d->class->virtio ? "mmio" : "ports");
}

static json_object *device_entry(const struct device *d)
{
	json_object *o = json_object_new_object();
	char place[16];

	place_of(d, place);
	j_str(o, "device", d->desc.name);
	j_str(o, "kind", d->plug ? d->plug->kind : d->class->kind);
	j_str(o, "place", place);
	j_bool(o, "removable", d->plug);
	if (d->plug)
		j_int(o, "slot", d->plug->number + 1);
	j_str(o, "state", state_of(d));
	if (d->plug)
		j_str(o, "tty", plug_back_tty(d->plug));
	j_int(o, "restarts", d->restart.total);
	return o;
}

json_object *plug_json(const struct vm *vm, unsigned place)
{
	const struct device *d = vm->plug[place].device;

	return device_is_empty(d) ? NULL : device_entry(d);
}

json_object *plug_list(const struct vm *vm)
{
	json_object *o = json_object_new_object(), *list = json_object_new_array();
	unsigned empty = 0;

	for (unsigned i = 0; i < vm->ndevices; i++) {
		if (device_is_empty(&vm->device[i]))
			empty++;
		else
			json_object_array_add(list, device_entry(&vm->device[i]));
	}
	j_obj(o, "devices", list);
	j_int(o, "slots", vm->nplugs);
	j_int(o, "free", empty);
	return o;
}

/* ---- add ---- */

/* What goes on with the VM must be over first. */
static int refuse_now(const struct vm *vm, struct err *e)
{
	if (!vm_is_running(vm) || standing_is(vm))
		return err_set(e, -EBUSY, "the guest does not run");
	if (control_is_paused(vm->control))
		return err_set(e, -EBUSY, "the VM is paused; expected one that runs");
	if (save_active(vm))
		return err_set(e, -EBUSY, "a snapshot is made");
	return 0;
}

static struct device *plug_find(struct vm *vm, const char *name)
{
	for (unsigned i = 0; i < vm->ndevices; i++) {
		if (!strcmp(vm->device[i].desc.name, name))
			return &vm->device[i];
	}
	return NULL;
}

static int all_in_use(const struct vm *vm, struct err *e)
{
	char names[CONFIG_MAX_HOTPLUG * (DEV_NAME_LEN + 2)] = "";
	size_t n = 0;

	for (unsigned i = 0; i < vm->nplugs; i++)
		n += (size_t)snprintf(names + n, sizeof(names) - n, "%s%s", i ? ", " : "",
				      vm->plug[i].device->desc.name);
	return err_set(e, -ENOSPC, "hotplug: %u; all slots are in use, by %s; expected a free one",
		       vm->nplugs, names);
}

static int free_place(struct vm *vm, struct plug **out, struct err *e)
{
	if (!vm->nplugs)
		return err_set(e, -EOPNOTSUPP,
			       "hotplug: 0, this VM has no slots for devices that come later; "
			       "expected one that was started with --hotplug");
	for (unsigned i = 0; i < vm->nplugs; i++) {
		*out = &vm->plug[i];
		if ((*out)->state == PLUG_EMPTY)
			return 0;
	}
	return all_in_use(vm, e);
}

/* Given, or the kind and the number of the slot, or of one of the next ones. */
static int choose_name(struct plug *p, const char *given, char name[DEV_NAME_LEN], struct err *e)
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				      "0123456789_.-";
	size_t n = given ? strlen(given) : 0;

	if (given &&
	    (!n || n > PLUG_NAME_LEN || strspn(given, letters) != n || strchr("_.-", given[0])))
		return err_set(e, -EINVAL,
			       "device: '%.40s'; expected 1 to %u letters, digits, dots, dashes "
			       "and underscores, the first a letter or digit",
			       given, PLUG_NAME_LEN);
	if (given && plug_find(p->vm, given))
		return err_set(e, -EEXIST,
			       "device: '%s'; expected a name that no other device of this VM has",
			       given);
	snprintf(name, DEV_NAME_LEN, "%s", given ? given : "");
	for (unsigned i = p->number + 1; !given && (!name[0] || plug_find(p->vm, name)); i++)
		snprintf(name, DEV_NAME_LEN, "%s%u", p->kind, i);
	return 0;
}

/* All of it until somebody has to be waited for. */
static int plug_begin(struct plug *p, const char *name, struct err *e)
{
	const struct device_class *class;
	struct device *d = p->device;
	struct vm *vm = p->vm;
	unsigned nqueues;
	int rc = plug_back_open(p, name, &class, &nqueues, e);

	if (rc) {
		p->kind = NULL;
		return rc;
	}
	rc = device_plug(d, class, name, nqueues, vm->paths.libexec, e);
	if (rc)
		return rc;
	rc = plug_back_set(p, e);
	vm_own_device(vm, d);
	p->connect_ns = clock_ns() + CONNECT_NS;
	if (!rc)
		rc = plug_start(p, e);
	if (rc)
		device_unplug(d);
	return rc;
}

int plug_add(struct vm *vm, json_object *device, const char *name, plug_done *done, void *ctx,
	     unsigned *place, struct err *e)
{
	struct plug *p = NULL;
	char chosen[DEV_NAME_LEN];
	int rc = refuse_now(vm, e);

	if (!rc)
		rc = free_place(vm, &p, e);
	if (rc)
		return rc;
	p->conf = calloc(1, sizeof(*p->conf));
	if (!p->conf)
		return err_set(e, -ENOMEM, "out of memory");
	config_init(p->conf);
	rc = config_plug(p->conf, device, &p->kind, e);
	if (!rc)
		rc = choose_name(p, name, chosen, e);
	if (rc)
		p->kind = NULL; /* nothing is open */
	else
		rc = plug_begin(p, chosen, e);
	if (rc) {
		plug_back_close(p);
		config_free(p->conf);
		free(p->conf);
		p->conf = NULL;
		return rc;
	}
	p->was_there = p->forced = false;
	plug_asked(p, done, ctx);
	*place = p->number;
	return 0;
}

/* ---- remove ---- */

static int find_removable(struct vm *vm, const char *name, struct plug **out, struct err *e)
{
	struct device *d = plug_find(vm, name);

	if (!d || device_is_empty(d))
		return err_set(e, -ENXIO, "device: '%.40s'; expected one that vm.device.list names",
			       name);
	if (!d->plug)
		return err_set(e, -EINVAL,
			       "device: '%s' is there from the start; expected one that was added",
			       name);
	*out = d->plug;
	return 0;
}

/* Whoever asked the guest hears that nobody waits for it any more. */
static void overtaken(struct plug *p)
{
	struct err e;

	err_set(&e, -EBUSY, "%s: another request takes it away at once", p->device->desc.name);
	plug_answer(p, e.code, &e);
}

int plug_remove(struct vm *vm, const char *name, bool force, uint64_t ms, plug_done *done,
		void *ctx, unsigned *place, struct err *e)
{
	struct plug *p = NULL;
	int rc = find_removable(vm, name, &p, e);

	if (!rc)
		rc = refuse_now(vm, e);
	if (rc)
		return rc;
	if (!plug_is_there(p))
		return err_set(e, -EBUSY, "%s: it is just %s", name,
			       p->state <= PLUG_COMES ? "coming" : "going");
	if (p->state == PLUG_LEAVES && (!force || p->forced))
		return err_set(e, -EBUSY, "%s: it is just going: another request waits for that",
			       name);
	if (force)
		plug_back_stop(p);
	if (tell_unplug(p, force))
		return err_set(e, -EIO, "insula-vmm does not take messages");
	overtaken(p);
	plug_asked(p, done, ctx);
	p->forced = force;
	plug_step(p, PLUG_LEAVES, force ? VMM_NS : ms * MS_NS + !ms);
	*place = p->number;
	return 0;
}

/* ---- begin and end ---- */

int plug_open(struct vm *vm, struct err *e)
{
	unsigned n = vm->conf->hotplug;

	vm->plug = n ? calloc(n, sizeof(*vm->plug)) : NULL;
	if (n && !vm->plug)
		return err_set(e, -ENOMEM, "out of memory");
	for (unsigned i = 0; i < n; i++) {
		struct plug *p = &vm->plug[i];
		unsigned at = vm->ndevices;
		int rc;

		if (at == VM_MAX_DEVICES)
			return err_set(e, -EINVAL, "--hotplug: %u; more than %u devices in all", n,
				       VM_MAX_DEVICES);
		*p = (struct plug){.vm = vm, .device = &vm->device[at], .number = i};
		vm->ndevices++;
		rc = device_init_place(p->device, at, i, BOARD_PORT_NUMBER(i, n), e);
		p->device->plug = p;
		vm->nplugs++;
		if (rc)
			return rc;
	}
	return 0;
}

void plug_close(struct vm *vm)
{
	for (unsigned i = 0; i < vm->nplugs; i++) {
		struct plug *p = &vm->plug[i];

		if (!p->conf)
			continue;
		plug_back_close(p);
		config_free(p->conf);
		free(p->conf);
		p->conf = NULL;
	}
	free(vm->plug);
	vm->plug = NULL;
	vm->nplugs = 0;
}
