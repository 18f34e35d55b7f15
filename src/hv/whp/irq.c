/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Interrupts: MSI messages, lines routed to them, events bound to lines.
 *
 * An event is watched by the system's thread pool, which requests the interrupt. The hypervisor
 * could do that itself (WHvCreateTrigger), but with an event of its own making; ours is made by
 * the supervisor and shared with a helper before there is a partition.
 *
 * The latch that hv_irq_bind() promises is the event's: an automatically reset event stays
 * signalled while nobody watches it.
 */
#include <errno.h>

#include "hv/whp/backend.h"

/* Intel SDM vol. 3, 11.11: the message's address and data. */
static bool to_interrupt(uint64_t addr, uint32_t data, struct whp_interrupt *i)
{
	uint32_t type = data >> 8 & 7;

	if (addr >> 20 != 0xfee ||
	    (type != WHP_INT_FIXED && type != WHP_INT_LOWEST && type != WHP_INT_NMI))
		return false;
	*i = (struct whp_interrupt){
		.control = type,
		.destination = (uint32_t)addr >> 12 & 0xff,
		.vector = data & 0xff,
	};
	if (addr & 1u << 2)
		i->control |= WHP_INT_LOGICAL;
	if (data & 1u << 15)
		i->control |= WHP_INT_LEVEL;
	return true;
}

int hv_msi_send(struct hv_vm *vm, uint64_t addr, uint32_t data)
{
	struct whp_interrupt i;
	whp_hr hr;

	/* The guest chose the message: what no LAPIC takes is gone, as on a bus. */
	if (!to_interrupt(addr, data, &i))
		return 0;
	hr = vm->api.request_interrupt(vm->partition, &i, sizeof(i));
	return hr == WHP_E_INVALIDARG ? 0 : whp_errno(hr);
}

int hv_irq_route(struct hv_vm *vm, unsigned line, uint64_t addr, uint32_t data, struct err *e)
{
	int r = hv_check_line(line, vm->nlines, e);

	if (r < 0)
		return r;
	whp_lock_take(&vm->lock);
	vm->line[line].routed = true;
	vm->line[line].addr = addr;
	vm->line[line].data = data;
	whp_lock_drop(&vm->lock);
	return 0;
}

static void signalled(void *ctx)
{
	const struct whp_line *l = ctx;
	struct hv_vm *vm = l->vm;
	uint64_t addr;
	uint32_t data;
	bool routed;

	whp_lock_take_shared(&vm->lock);
	routed = l->routed;
	addr = l->addr;
	data = l->data;
	whp_lock_drop_shared(&vm->lock);
	if (routed)
		hv_msi_send(vm, addr, data);
}

/* An event resets itself for the first who sees it: it can belong to one line. */
static bool is_bound(const struct hv_vm *vm, hv_event event)
{
	for (unsigned i = 0; i < vm->nlines; i++)
		if (vm->line[i].watch && vm->line[i].event == event)
			return true;
	return false;
}

/* The watch begins with the lock held: signalled() waits for it, nobody waits for signalled(). */
int hv_irq_bind(struct hv_vm *vm, unsigned line, hv_event event, struct err *e)
{
	struct whp_line *l = &vm->line[line < HV_MAX_LINES ? line : 0];
	int r = hv_check_line(line, vm->nlines, e);

	if (r < 0)
		return r;
	whp_lock_take(&vm->lock);
	if (l->watch || is_bound(vm, event))
		r = -EBUSY;
	else
		r = whp_watch(event, signalled, l, &l->watch);
	if (r == 0)
		l->event = event;
	whp_lock_drop(&vm->lock);
	return r < 0 ? err_set(e, r, "bind interrupt line %u: %s", line,
			       r == -EBUSY ? "an event is bound" : "the event cannot be watched")
		     : 0;
}

int hv_irq_unbind(struct hv_vm *vm, unsigned line, hv_event event, struct err *e)
{
	struct whp_line *l = &vm->line[line < HV_MAX_LINES ? line : 0];
	void *watch = NULL;
	int r = hv_check_line(line, vm->nlines, e);

	if (r < 0)
		return r;
	whp_lock_take(&vm->lock);
	if (l->watch && l->event == event) {
		watch = l->watch;
		l->watch = NULL;
	}
	whp_lock_drop(&vm->lock);
	if (watch)
		whp_unwatch(watch);
	return 0;
}
