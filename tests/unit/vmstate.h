/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A struct vmm as src/vmm/save.h finds it, with two vCPUs, a 16550, two virtio devices, one of them
 * on PCI, and a place for another one, on a hypervisor that keeps bytes. For the unit test and the
 * fuzzer; all of hv.h that libvmm asks for is here, so nothing of src/hv is linked.
 */
#ifndef TEST_VMSTATE_H
#define TEST_VMSTATE_H

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/devpage.h>
#include <insula/state.h>

#include "devices/describe.h"
#include "hv_map.h"
#include "vmm/cpus.h"
#include "vmm/save.h"
#include "vmm/vmm.h"
#include "vmm/x86/ioapic.h"

#ifndef VS_CPUS
#define VS_CPUS 2u
#endif
#define VS_DEVICES 4u
#define VS_PCI 2u   /* the one on PCI */
#define VS_PLACE 3u /* the place */
#define VS_PORT (BOARD_PCI_ECAM + (31u << 15))
#define VS_PINS 24u

/* hv.h leaves them to the backend. */
struct hv_vm {
	uint8_t state[64];
	size_t len;
	int fail;
};
struct hv_vcpu {
	uint8_t state[128];
	size_t len;
	int fail;
	unsigned parked, kicked, busy; /* how often; says -EAGAIN so many times before */
};

static struct vmm vs_vm;
static struct hv_vm vs_hv;
static struct hv_vcpu vs_vcpu[VS_CPUS];
static int vs_irq[VS_DEVICES];

static int vs_get(const void *from, size_t len, int fail, struct state_out *out, struct err *e)
{
	if (fail)
		return err_set(e, fail, "the hypervisor does not want to");
	if (out->room - out->len < len)
		return err_set(e, -ENOSPC, "no room");
	memcpy(out->at + out->len, from, len);
	out->len += len;
	return 0;
}

static int vs_set(void *to, size_t room, size_t *tolen, const void *from, size_t len, int fail,
		  struct err *e)
{
	if (fail)
		return err_set(e, fail, "the hypervisor does not want to");
	if (len > room)
		return err_set(e, -EPROTO, "the hypervisor does not know that");
	memcpy(to, from, len);
	*tolen = len;
	return 0;
}

int hv_vm_assigns(struct hv_vm *vm, struct err *e)
{
	return vm->fail ? err_set(e, vm->fail, "the hypervisor does not want to") : 0;
}

int hv_vm_state_get(struct hv_vm *vm, struct state_out *out, struct err *e)
{
	return vs_get(vm->state, vm->len, vm->fail, out, e);
}

int hv_vm_state_set(struct hv_vm *vm, const void *state, size_t len, struct err *e)
{
	return vs_set(vm->state, sizeof(vm->state), &vm->len, state, len, vm->fail, e);
}

int hv_vcpu_state_get(struct hv_vcpu *v, struct state_out *out, struct err *e)
{
	return vs_get(v->state, v->len, v->fail, out, e);
}

int hv_vcpu_state_set(struct hv_vcpu *v, const void *state, size_t len, struct err *e)
{
	return vs_set(v->state, sizeof(v->state), &v->len, state, len, v->fail, e);
}

/* Nobody runs. */
int hv_vcpu_bind(struct hv_vcpu *v, struct err *e)
{
	(void)v;
	(void)e;
	return -ENOSYS;
}

int hv_vcpu_run(struct hv_vcpu *v, struct hv_exit *x)
{
	(void)v;
	(void)x;
	return -ENOSYS;
}

int hv_vcpu_complete(struct hv_vcpu *v, struct hv_exit *x)
{
	(void)v;
	(void)x;
	return -ENOSYS;
}

int hv_vcpu_get_regs(struct hv_vcpu *v, struct hv_regs *r, struct err *e)
{
	(void)v;
	(void)r;
	(void)e;
	return -ENOSYS;
}

void hv_vcpu_was_paused(struct hv_vcpu *v)
{
	(void)v;
}

int hv_vcpu_park(struct hv_vcpu *v, struct err *e)
{
	v->parked++;
	if (v->fail)
		return err_set(e, v->fail, "the hypervisor does not want to");
	if (!v->busy)
		return 0;
	v->busy--;
	return err_set(e, -EAGAIN, "an exit waits");
}

void hv_vcpu_kick(struct hv_vcpu *v)
{
	v->kicked++;
}

/* main.c's */
static unsigned vs_woken;
void vmm_wake_resting(struct vmm *vm)
{
	(void)vm;
	vs_woken++;
}

void vmm_end(struct vmm *vm, enum vm_exit_reason reason, const struct msg_vm_exit *x)
{
	(void)vm;
	(void)reason;
	(void)x;
}

static void vs_device(unsigned i)
{
	struct remote *d = &vs_vm.dev[i];

	if (i == VS_PLACE) {
		d->desc = (struct device_desc){.version = DEVICE_VERSION_PLACE,
					       .index = i,
					       .name = "slot1",
					       .nslots = 1,
					       .call_slot = DEVICE_NO_SLOT,
					       .answer_slot = DEVICE_NO_SLOT,
					       .state_size = DP_STATE_SIZE,
					       .pci = {.number = 31}};
		return;
	}
	if (i == 0)
		describe_16550(&d->desc, 0x3f8, 4);
	else if (i == VS_PCI)
		describe_virtio_pci(&d->desc, 1, BOARD_PCI_MMIO, 4, 1);
	else
		describe_virtio_mmio(&d->desc, 0xd0000000, 5, 2);
	d->desc.index = i;
	strcpy(d->desc.name, i == VS_PCI ? "rng" : i ? "vda" : "com1");
	d->slot[d->desc.vector[0].slot] = vs_irq[i];
	d->head = 100 + i;
	d->seq = 200 + i;
}

/* As it is before the guest goes on, or boots. */
static void vs_open(void)
{
	unsigned line = VS_PINS, slot = 1;
	struct err e;

	memset(&vs_vm, 0, sizeof(vs_vm));
	memset(&vs_hv, 0, sizeof(vs_hv));
	memset(vs_vcpu, 0, sizeof(vs_vcpu));
	memset(&hm, 0, sizeof(hm));
	vs_vm.hv = &vs_hv;
	vs_vm.ncpus = VS_CPUS;
	vs_vm.ndevices = VS_DEVICES;
	vs_vm.npins = VS_PINS;
	vs_vm.main_event = event_create();
	vs_vm.acpi_event = event_create();
	vs_vm.cpus_change = true;
	cpus_init(&vs_vm, VS_CPUS - 1);
	memmap_of_board(&vs_vm.memmap, 64u << 20);
	for (unsigned i = 0; i < VS_CPUS; i++) {
		vs_vm.vcpu[i].vm = &vs_vm;
		vs_vm.vcpu[i].index = i;
		vs_vm.vcpu[i].hv = &vs_vcpu[i];
	}
	for (unsigned i = 0; i < VS_DEVICES; i++) {
		vs_irq[i] = event_create();
		vs_device(i);
	}
	pci_init(&vs_vm.pci, &vs_hv, &hm_ops);
	if (ioapic_create(&vs_vm.ioapic, VS_PINS, &hm_ops, &vs_hv, &e) ||
	    pci_add(&vs_vm.pci, &vs_vm.dev[VS_PCI], &line, &slot, &e) ||
	    pci_add_place(&vs_vm.pci, &vs_vm.dev[VS_PLACE], &line, &slot, &e) ||
	    pci_on_bus(&vs_vm.pci, &vs_vm.mmio, slot, &e))
		panic("%s", e.text);
}

static void vs_close(void)
{
	ioapic_destroy(vs_vm.ioapic);
	fd_close(&vs_vm.main_event);
	fd_close(&vs_vm.acpi_event);
	fd_close((int[]){(int)vs_vm.pci.place[0].port.line.event});
	for (unsigned i = 0; i < VS_DEVICES; i++)
		fd_close(&vs_irq[i]);
}

static void vs_poke(uint64_t gpa, uint32_t v)
{
	struct bus_patience w = {0};

	if (!bus_write(&vs_vm.mmio, gpa, 4, v, &w))
		panic("nothing at 0x%llx", (unsigned long long)gpa);
}

/* What a guest has made of it. */
static inline void vs_fill(void)
{
	for (size_t i = 0; i < sizeof(vs_hv.state); i++)
		vs_hv.state[i] = (uint8_t)(i + 1);
	vs_hv.len = sizeof(vs_hv.state);
	for (unsigned c = 0; c < VS_CPUS; c++) {
		for (size_t i = 0; i < sizeof(vs_vcpu[c].state); i++)
			vs_vcpu[c].state[i] = (uint8_t)(i * 3 + c);
		vs_vcpu[c].len = sizeof(vs_vcpu[c].state);
	}
	(void)ioapic_write(vs_vm.ioapic, 0, 4, 0x10 + 2 * 5);
	(void)ioapic_write(vs_vm.ioapic, 0x10, 4, 0x10041);
	vs_poke(BOARD_PCI_ECAM + 0x8004, 6);
	vs_poke(BOARD_PCI_ECAM + 0x8040, 0x80000000);
	vs_poke(BOARD_PCI_MMIO + 0x3000, 0xfee00000);
	vs_poke(BOARD_PCI_MMIO + 0x3008, 0x55);
	vs_poke(BOARD_PCI_MMIO + 0x300c, 0);
	vs_poke(BOARD_PCI_ECAM + 0x8010, BOARD_PCI_MMIO + 0x10000);
	vs_poke(VS_PORT + 4, 6);
	vs_poke(VS_PORT + 0x84, 0xfee00000);
	vs_poke(VS_PORT + 0x8c, 0x66);
	vs_poke(VS_PORT + 0x80, 0x10000);
	vs_poke(VS_PORT + 0x58, 0x1429); /* power off; it is told */
	vs_poke(VS_PORT + 0x18, 0x070707);
	pci_press(&vs_vm.pci, &vs_vm.pci.place[0]);
	atomic_store(&vs_vm.init_started, 1);
	atomic_store(&vs_vm.agent_ready, 2);
	atomic_store(&vs_vm.cpus_news, BOARD_CPUS_NEWS_GENID);
	atomic_store(&vs_vm.cpus_asked, 1u << (VS_CPUS - 1));
	vs_vm.cpus_wanted = VS_CPUS;
}

static inline int vs_save(int fd, uint64_t *len, struct err *e)
{
	for (unsigned i = 0; i < VS_CPUS; i++)
		save_vcpu(&vs_vm.vcpu[i]);
	return save_write(&vs_vm, fd, len, e);
}

#endif
