/* SPDX-License-Identifier: BSD-2-Clause */
/* One VM: open and close. See vm.h. */
#include <errno.h>
#include <string.h>

#include <insula/base.h>

#include "host.h"
#include "open.h"
#include "plug.h"
#include "devices/console/console_start.h"
#include "devices/vsock/vsock_start.h"
#include "supervisor/snapshot/faults.h"
#include "supervisor/snapshot/restore.h"
#include "supervisor/snapshot/save.h"
#include "vm.h"

/* ---- what it is made of ---- */

/* Each bus counts its own: the nth one on PCI is 00:(1+n).0, behind the host's functions, whose
 * places are thereby known to whoever asks for them (insula-oci). */
static int choose_place(struct vm *vm, const char *name, enum config_bus said, bool *pci,
			unsigned *nth, struct err *e)
{
	int rc = 0;

	*pci = config_is_pci(vm->conf, said);
	if (vm->conf->restoring)
		rc = restore_bus(vm->conf, name, said, pci, e);
	if (rc)
		return rc;
	if (*pci && vm->conf->nvfios + vm->npci == config_most_pci(vm->conf))
		return err_set(e, -EINVAL,
			       "%s: more than %u devices on the PCI bus; expected bus=mmio for the "
			       "others",
			       name, config_most_pci(vm->conf));
	*nth = *pci ? vm->conf->nvfios + vm->npci++ : vm->nmmio++;
	return 0;
}

int vm_add_device(struct vm *vm, const struct device_class *class, enum config_bus bus,
		  const char *name, unsigned nqueues, struct device **out, struct err *e)
{
	unsigned i = vm->ndevices, nth = 0;
	bool pci = false;
	int rc = 0;

	*out = &vm->device[i < VM_MAX_DEVICES ? i : VM_MAX_DEVICES - 1];
	if (i == VM_MAX_DEVICES)
		return err_set(e, -EINVAL, "%s: more than %u devices in all", name, VM_MAX_DEVICES);
	if (class->virtio)
		rc = choose_place(vm, name, bus, &pci, &nth, e);
	if (rc)
		return rc;
	if (class->assigned) {
		pci = true;
		nth = vm->nassigned++;
	}
	vm->ndevices++;
	return device_init(*out, class, pci ? DEVICE_BUS_PCI : DEVICE_BUS_MMIO, i, nth, name,
			   nqueues, vm->paths.libexec, e);
}

static int make_disks(struct vm *vm, struct err *e)
{
	unsigned nqueues = vm->conf->cpus < BLK_MAX_QUEUES ? vm->conf->cpus : BLK_MAX_QUEUES;
	char name[DEV_NAME_LEN];
	int rc = 0;

	for (unsigned i = 0; i < vm->opened.ndisks && !rc; i++) {
		device_disk_name(i, name);
		rc = open_disk_device(vm, &vm->opened.disk[i], name, nqueues, e);
	}
	return rc;
}

/* The console is the first one; virtio devices take the windows in their order. */
static int make_devices(struct vm *vm, struct err *e)
{
	struct device *d;
	const struct vm_config *c = vm->conf;
	int rc = c->console_virtio
			 ? vm_add_device(vm, &device_vcon, CONFIG_BUS_UNSAID, "hvc0", VCON_QUEUES,
					 &d, e)
			 : vm_add_device(vm, &device_uart, CONFIG_BUS_UNSAID, "com1", 0, &d, e);

	d->back.terminal = &vm->terminal;
	if (!rc)
		rc = make_disks(vm, e);
	if (!rc)
		rc = open_cards(vm, e);
	if (!rc && !c->rng_off) {
		rc = vm_add_device(vm, &device_rng, CONFIG_BUS_UNSAID, "rng", 1, &d, e);
		d->back.conf = c;
	}
	if (!rc && vm_has_vsock(vm)) {
		rc = vm_add_device(vm, &device_vsock, c->vsock.bus, "vsock", VSOCK_QUEUES, &d, e);
		d->back.vsock = &vm->vsock;
	}
	/* The last ones but for places: with them or without, the others are where they are. */
	if (!rc && c->balloon.on) {
		rc = vm_add_device(vm, &device_balloon, c->balloon.bus, "balloon", BALLOON_QUEUES,
				   &d, e);
		d->back.balloon = &vm->balloon;
		balloon_init(&vm->balloon, c);
	}
	if (!rc && c->mem_max) {
		rc = vm_add_device(vm, &device_mem, CONFIG_BUS_UNSAID, "mem", VMEM_QUEUES, &d, e);
		d->back.added = &vm->added;
		added_init(&vm->added, c, &vm->memmap);
	}
	return rc ? rc : plug_open(vm, e);
}

static int open_map(struct vm *vm, bool check_only, struct err *e)
{
	int rc;

	memmap_of_board(&vm->memmap, vm->conf->mem);
	if (vm->conf->mem_max)
		memmap_add_of_board(&vm->memmap, vm->conf->mem_max - vm->conf->mem);
	rc = open_epc(vm, check_only, e);
	if (rc)
		vm->end.status = RUN_BAD_INPUT;
	return rc;
}

/* Only a VM that starts has memory: Windows takes all of it from the system at once. */
static int open_own(struct vm *vm, bool check_only, struct err *e)
{
	int rc;

	if (!check_only) {
		vm->mem = shm_create("insula-guest", memmap_size(&vm->memmap), e);
		if (vm->mem < 0)
			return vm->mem;
	}
	rc = make_devices(vm, e);
	if (rc == -EINVAL)
		vm->end.status = RUN_BAD_INPUT;
	if (!rc)
		rc = open_programs(vm, e);
	if (rc || check_only)
		return rc;
	rc = restore_fill(vm, e);
	if (rc)
		vm->end.status = RUN_BAD_INPUT;
	return rc;
}

/* What the user named: what is wrong here is the user's to mend. */
static int open_named(struct vm *vm, bool check_only, bool verbose, struct err *e)
{
	const struct vm_config *c = vm->conf;
	int rc = host_config(c, e);

	if (!rc)
		rc = boot_open(&vm->boot, c, &vm->paths, check_only, verbose, e);
	if (!rc)
		rc = open_ends(vm, check_only, e);
	if (!rc)
		rc = metadata_open(vm, check_only, e);
	if (!rc)
		rc = host_outputs(c, e);
	if (!rc && vm_has_vsock(vm))
		rc = vsock_open(&vm->vsock, &c->vsock, check_only, e);
	if (!rc && c->command)
		rc = command_open(vm, e);
	if (rc && rc != -ENOMEM && rc != -EMFILE && rc != -ENFILE && rc != -EAGAIN)
		vm->end.status = RUN_BAD_INPUT;
	return rc;
}

/* After everything that may be refused: a console file is made here. */
static int open_terminal(struct vm *vm, struct err *e)
{
	int rc = terminal_open(&vm->terminal, vm->conf, e);

	if (rc)
		vm->end.status = RUN_BAD_INPUT;
	/* Insula's own shell, and nothing else in a guest, says when it wants its input. */
	terminal_modes(&vm->terminal,
		       vm->boot.own_initrd && !vm->conf->rootfs && !vm->conf->image &&
			       !vm->conf->command && config_console(vm->conf) == CONSOLE_STDIO,
		       vm->command.raw);
	return rc;
}

int vm_open(struct vm *vm, const struct vm_config *c, bool check_only, bool verbose, struct err *e)
{
	int rc;

	vm->conf = c;
	vm->cpus = (struct vm_cpus){c->restore ? 0 : c->cpus, c->cpus, c->cpus_max};
	vm->kvm = vm->mem = vm->epc_fd = vm->signals.handle = -1;
	vm->started_ns = clock_ns();
	open_init(vm);
	child_none(&vm->vmm);
	boot_init(&vm->boot);
	exec_init(&vm->execs);
	for (unsigned i = 0; i < VM_EXEC_PLACES; i++) {
		child_none(&vm->exec[i]);
		vm->execs.place[i].child = &vm->exec[i];
	}
	command_init(&vm->command);
	vm->end.status = RUN_FAILED;
	rc = host_check(e);
	if (!rc)
		rc = paths_find(&vm->paths, e);
	if (!rc)
		rc = open_named(vm, check_only, verbose, e);
	if (!rc)
		rc = host_hypervisor(&vm->kvm, e);
	if (!rc)
		rc = open_map(vm, check_only, e);
	if (!rc && !check_only)
		rc = open_terminal(vm, e);
	if (!rc)
		rc = open_own(vm, check_only, e);
	if (rc)
		vm_close(vm);
	else
		vm->end.status = 0;
	return rc;
}

void vm_close(struct vm *vm)
{
	save_close(vm);
	faults_close(vm);
	child_free(&vm->vmm);
	exec_free(vm);
	command_close(&vm->command);
	open_close(vm);
	metadata_close(vm);
	plug_close(vm);
	vsock_close(&vm->vsock);
	terminal_close(&vm->terminal);
	boot_close(&vm->boot);
	fd_close(&vm->kvm);
	fd_close(&vm->mem);
	fd_close(&vm->epc_fd);
	signals_close(&vm->signals);
}
