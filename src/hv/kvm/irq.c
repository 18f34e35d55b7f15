/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Interrupts: lines routed to MSI messages, events bound to lines, single messages.
 *
 * The latch that hv_irq_bind() promises is KVM's own: an eventfd keeps its count while nobody
 * listens, KVM looks at the count when it begins to listen, and takes the count away when it stops.
 */
#include <errno.h>
#include <string.h>

#include "hv/kvm/backend.h"

static void fill_entry(struct kvm_irq_routing_entry *k, unsigned line, const struct kvm_route *r)
{
	k->gsi = line;
	k->type = KVM_IRQ_ROUTING_MSI;
	k->u.msi.address_lo = (uint32_t)r->addr;
	k->u.msi.address_hi = (uint32_t)(r->addr >> 32);
	k->u.msi.data = r->data;
}

/* KVM takes the whole table at once. The lock is held. */
static int set_routing(struct hv_vm *vm)
{
	struct kvm_irq_routing *t = (struct kvm_irq_routing *)vm->routing;

	memset(vm->routing, 0, sizeof(vm->routing));
	for (unsigned i = 0; i < vm->nlines; i++)
		if (vm->route[i].used)
			fill_entry(&t->entries[t->nr++], i, &vm->route[i]);
	return kvm_call(vm->fd, KVM_SET_GSI_ROUTING, t);
}

int hv_irq_route(struct hv_vm *vm, unsigned line, uint64_t addr, uint32_t data, struct err *e)
{
	struct kvm_route next = {true, addr, data}, old;
	int r = hv_check_line(line, vm->nlines, e);

	if (r < 0)
		return r;
	pthread_mutex_lock(&vm->lock);
	old = vm->route[line];
	/* A kernel writes the same route several times while it boots, and each change stops KVM's
	 * readers. */
	if (!old.used || old.addr != addr || old.data != data) {
		vm->route[line] = next;
		r = set_routing(vm);
		if (r < 0)
			vm->route[line] = old;
	}
	pthread_mutex_unlock(&vm->lock);
	return r < 0 ? err_sys(e, r, "route of interrupt line %u", line) : 0;
}

static int irqfd(struct hv_vm *vm, unsigned line, hv_event event, uint32_t flags)
{
	struct kvm_irqfd k = {.fd = (uint32_t)event, .gsi = line, .flags = flags};

	return kvm_call(vm->fd, KVM_IRQFD, &k);
}

int hv_irq_bind(struct hv_vm *vm, unsigned line, hv_event event, struct err *e)
{
	int r = hv_check_line(line, vm->nlines, e);

	if (r < 0)
		return r;
	r = irqfd(vm, line, event, 0);
	return r < 0 ? err_sys(e, r, "bind interrupt line %u", line) : 0;
}

int hv_irq_unbind(struct hv_vm *vm, unsigned line, hv_event event, struct err *e)
{
	int r = hv_check_line(line, vm->nlines, e);

	if (r < 0)
		return r;
	r = irqfd(vm, line, event, KVM_IRQFD_FLAG_DEASSIGN);
	return r < 0 ? err_sys(e, r, "unbind interrupt line %u", line) : 0;
}

int hv_msi_send(struct hv_vm *vm, uint64_t addr, uint32_t data)
{
	struct kvm_msi m = {
		.address_lo = (uint32_t)addr,
		.address_hi = (uint32_t)(addr >> 32),
		.data = data,
	};
	int r = kvm_call(vm->fd, KVM_SIGNAL_MSI, &m);

	/* KVM says -1 (which reads as EPERM) when no LAPIC takes the message: as on a bus, it is
	 * gone. */
	return r < 0 && r != -EPERM ? r : 0;
}
