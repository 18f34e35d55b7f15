/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Doorbells: notification ports (Windows 10 20H2), or the older way, which newer Windows
 * deprecates, or nothing. Ports are not covered by either. The contract allows that a write exits
 * all the same: the caller's exit path signals the event then.
 *
 * The hypervisor recognises only some stores, and whether a doorbell inside a read-only mapping
 * works is not documented: both only cost an exit.
 */
#include <errno.h>
#include <inttypes.h>

#include <insula/base.h>

#include "hv/whp/backend.h"

static struct whp_doorbell to_whp(const struct hv_doorbell *d)
{
	return (struct whp_doorbell){
		.gpa = d->addr,
		.value = d->match ? d->value : 0,
		.length = d->size,
		.match = (d->size ? WHP_MATCH_LENGTH : 0) | (d->match ? WHP_MATCH_VALUE : 0),
	};
}

/* Failure with "not implemented" leaves the doorbell to the exit path. */
static int connect_bell(struct hv_vm *vm, struct whp_bell *b, struct err *e)
{
	struct whp_port_params p = {.type = WHP_PORT_DOORBELL, .doorbell = to_whp(&b->d)};
	void *event = (void *)b->d.event;
	whp_hr hr = WHP_E_NOTIMPL;

	if (b->d.pio)
		return 0;
	if (vm->api.create_port && vm->api.delete_port)
		hr = vm->api.create_port(vm->partition, &p, event, &b->port);
	if (hr < 0)
		b->port = NULL;
	if (hr == WHP_E_NOTIMPL && vm->api.register_doorbell && vm->api.unregister_doorbell) {
		hr = vm->api.register_doorbell(vm->partition, &p.doorbell, event);
		b->registered = hr >= 0;
	}
	if (hr < 0 && hr != WHP_E_NOTIMPL)
		return whp_fail(e, hr, "doorbell at 0x%" PRIx64, b->d.addr);
	return 0;
}

static bool same(const struct hv_doorbell *a, const struct hv_doorbell *b)
{
	return a->pio == b->pio && a->addr == b->addr && a->size == b->size &&
	       a->match == b->match && (!a->match || a->value == b->value);
}

static struct whp_bell *find_bell(struct hv_vm *vm, const struct hv_doorbell *d)
{
	for (unsigned i = 0; i < WHP_MAX_DOORBELLS; i++)
		if (vm->bell[i].used && same(&vm->bell[i].d, d))
			return &vm->bell[i];
	return NULL;
}

static struct whp_bell *find_free(struct hv_vm *vm)
{
	for (unsigned i = 0; i < WHP_MAX_DOORBELLS; i++)
		if (!vm->bell[i].used)
			return &vm->bell[i];
	return NULL;
}

/* The lock is held. */
static int add_bell(struct hv_vm *vm, const struct hv_doorbell *d, struct err *e)
{
	struct whp_bell *b = find_free(vm);
	int r;

	if (find_bell(vm, d))
		return err_set(e, -EEXIST, "doorbell at 0x%" PRIx64 " is bound", d->addr);
	if (!b)
		return err_set(e, -ENOSPC, "doorbell at 0x%" PRIx64 ": %d are in use", d->addr,
			       WHP_MAX_DOORBELLS);
	*b = (struct whp_bell){.d = *d};
	r = connect_bell(vm, b, e);
	b->used = r == 0;
	return r;
}

int hv_doorbell_bind(struct hv_vm *vm, const struct hv_doorbell *d, struct err *e)
{
	int r = hv_check_doorbell(d, e);

	if (r < 0)
		return r;
	whp_lock_take(&vm->lock);
	r = add_bell(vm, d, e);
	whp_lock_drop(&vm->lock);
	return r;
}

static whp_hr disconnect_bell(struct hv_vm *vm, const struct whp_bell *b)
{
	struct whp_doorbell w = to_whp(&b->d);

	if (b->port)
		return vm->api.delete_port(vm->partition, b->port);
	return b->registered ? vm->api.unregister_doorbell(vm->partition, &w) : 0;
}

int hv_doorbell_unbind(struct hv_vm *vm, const struct hv_doorbell *d, struct err *e)
{
	int r = hv_check_doorbell(d, e);
	struct whp_bell *b;
	whp_hr hr = 0;

	if (r < 0)
		return r;
	whp_lock_take(&vm->lock);
	b = find_bell(vm, d);
	if (b) {
		hr = disconnect_bell(vm, b);
		*b = (struct whp_bell){.used = false};
	}
	whp_lock_drop(&vm->lock);
	if (!b)
		return err_set(e, -ENOENT, "no such doorbell at 0x%" PRIx64, d->addr);
	return hr < 0 ? whp_fail(e, hr, "doorbell at 0x%" PRIx64, d->addr) : 0;
}
