/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The hypervisor's slots, doorbells and lines as tables, for tests of who uses them. Included once
 * by a program that does not link the library. Each call that would break the contract (hv.h) ends
 * the program.
 */
#ifndef TESTS_HV_MAP_H
#define TESTS_HV_MAP_H

#include <errno.h>
#include <string.h>

#include <insula/base.h>
#include <insula/hv.h>
#include <insula/log.h>

#include "vmm/line.h"

#define HM_DOORBELLS 256

static struct {
	struct {
		uint64_t gpa, size;
		void *host;
	} slot[HV_MAX_SLOTS];
	struct {
		bool used;
		struct hv_doorbell d;
	} bell[HM_DOORBELLS];
	struct {
		uint64_t addr;
		uint32_t data;
		hv_event event;
		bool bound;
	} line[HV_MAX_LINES];
	unsigned assigned; /* devices of the host */
	unsigned calls;    /* of all below */
	unsigned fail_at;  /* the one that fails; 0: none */
} hm;

static int hm_fails(struct err *e)
{
	return ++hm.calls == hm.fail_at ? err_set(e, -ENOMEM, "it fails as told") : 0;
}

int hv_mem_map(struct hv_vm *vm, unsigned slot, uint64_t gpa, void *host, uint64_t size,
	       unsigned flags, struct err *e)
{
	(void)vm;
	if (slot < HV_MAX_SLOTS && hm.slot[slot].size)
		return err_set(e, -EEXIST, "slot %u is in use", slot);
	if (slot >= HV_MAX_SLOTS || (flags & ~(unsigned)HV_MEM_READONLY) || gpa % HV_PAGE)
		panic("slot %u at 0x%llx", slot, (unsigned long long)gpa);
	for (unsigned i = 0; i < HV_MAX_SLOTS; i++) {
		if (hm.slot[i].size && gpa < hm.slot[i].gpa + hm.slot[i].size &&
		    hm.slot[i].gpa < gpa + size)
			panic("slot %u at 0x%llx is on slot %u", slot, (unsigned long long)gpa, i);
	}
	if (hm_fails(e))
		return -ENOMEM;
	hm.slot[slot].gpa = gpa;
	hm.slot[slot].size = size;
	hm.slot[slot].host = host;
	return 0;
}

int hv_mem_unmap(struct hv_vm *vm, unsigned slot, struct err *e)
{
	(void)vm;
	if (slot >= HV_MAX_SLOTS)
		panic("slot %u", slot);
	if (hm_fails(e))
		return -ENOMEM;
	if (!hm.slot[slot].size)
		return err_set(e, -ENOENT, "slot %u is free", slot);
	memset(&hm.slot[slot], 0, sizeof(hm.slot[slot]));
	return 0;
}

/* NULL: there is none. */
static struct hv_doorbell *hm_bell(uint64_t addr)
{
	for (unsigned i = 0; i < HM_DOORBELLS; i++) {
		if (hm.bell[i].used && hm.bell[i].d.addr == addr)
			return &hm.bell[i].d;
	}
	return NULL;
}

int hv_doorbell_bind(struct hv_vm *vm, const struct hv_doorbell *d, struct err *e)
{
	unsigned i = 0;

	(void)vm;
	if (hm_bell(d->addr))
		return err_set(e, -EEXIST, "two doorbells at 0x%llx", (unsigned long long)d->addr);
	if (hm_fails(e))
		return -ENOMEM;
	while (hm.bell[i].used)
		i++;
	hm.bell[i].used = true;
	hm.bell[i].d = *d;
	return 0;
}

int hv_doorbell_unbind(struct hv_vm *vm, const struct hv_doorbell *d, struct err *e)
{
	(void)vm;
	if (hm_fails(e))
		return -ENOMEM;
	for (unsigned i = 0; i < HM_DOORBELLS; i++) {
		if (hm.bell[i].used && hm.bell[i].d.addr == d->addr) {
			hm.bell[i].used = false;
			return 0;
		}
	}
	return err_set(e, -ENOENT, "no doorbell at 0x%llx", (unsigned long long)d->addr);
}

int hv_vm_assign(struct hv_vm *vm, hv_event device, struct err *e)
{
	(void)vm;
	if (device < 0)
		panic("a device that is none is assigned");
	if (hm_fails(e))
		return -ENOMEM;
	hm.assigned++;
	return 0;
}

int hv_vm_unassign(struct hv_vm *vm, hv_event device, struct err *e)
{
	(void)vm;
	if (device < 0)
		panic("a device that is none is taken away");
	if (hm_fails(e))
		return -ENOMEM;
	hm.assigned--;
	return 0;
}

static int hm_route(struct hv_vm *vm, unsigned line, uint64_t addr, uint32_t data, struct err *e)
{
	(void)vm;
	if (hm_fails(e))
		return -ENOMEM;
	hm.line[line].addr = addr;
	hm.line[line].data = data;
	return 0;
}

static int hm_bind(struct hv_vm *vm, unsigned line, hv_event event, struct err *e)
{
	(void)vm;
	if (hm.line[line].bound || !hm.line[line].addr)
		panic("line %u is bound twice, or without a message", line);
	if (hm_fails(e))
		return -ENOMEM;
	hm.line[line].event = event;
	hm.line[line].bound = true;
	return 0;
}

static int hm_unbind(struct hv_vm *vm, unsigned line, hv_event event, struct err *e)
{
	(void)vm;
	if (!hm.line[line].bound || hm.line[line].event != event)
		panic("line %u is not bound", line);
	if (hm_fails(e))
		return -ENOMEM;
	hm.line[line].bound = false;
	return 0;
}

static const struct line_ops hm_ops = {hm_route, hm_bind, hm_unbind};

#endif
