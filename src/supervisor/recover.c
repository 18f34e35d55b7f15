/* SPDX-License-Identifier: BSD-2-Clause */
/* Deaths and restarts of device processes. See recover.h. */
#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>
#include <insula/log.h>

#include "devices/virtio/virtio_pci.h"
#include "spec/json.h"
#include "plug.h"
#include "recover.h"
#include "vm.h"

#define ISR_CONFIG 2u /* virtio 1.2, 4.1.4.5, 4.2.2: "configuration changed" */

/* Where it is told, in words of the page: what is meant is in the first byte of each. */
static const struct {
	unsigned status, isr;
} told[] = {
	[DEVICE_BUS_MMIO] = {VIRTIO_MMIO_STATUS, VIRTIO_MMIO_INTERRUPT_STATUS},
	[DEVICE_BUS_PCI] = {VPCI_STATUS, VPCI_ISR_PLACE},
};

/* First insula-vmm hears that nobody is to be waited for, or the guest's acknowledge of what it is
 * told would be. When it has answered: vm_device_down(). */
static void take_down(struct vm *vm, const struct device *d)
{
	struct msg_dev m = {d->desc.index};

	(void)vm_tell(vm, MSG_DEV_DOWN, &m, sizeof(m));
}

static void *signal_aside(void *arg)
{
	int *fd = arg;

	event_signal(*fd);
	fd_close(fd);
	free(fd);
	return NULL;
}

/* Of its own from its birth. pthread_detach() of one that is just ending is none: with Windows'
 * winpthreads the next thread gets what this one still uses, and may never run. */
static int begin_aside(int *fd)
{
	pthread_attr_t attr;
	pthread_t t;
	int rc;

	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	rc = pthread_create(&t, &attr, signal_aside, fd);
	pthread_attr_destroy(&attr);
	return -rc;
}

/* A back end has this event as well (vhost-user), and can make a write to it wait: not ours, but
 * that of a thread which nobody waits for. */
static int signal_foreign(int event)
{
	int *fd = malloc(sizeof(*fd)), rc;

	if (!fd)
		return -ENOMEM;
	*fd = fd_copy(event);
	rc = *fd < 0 ? *fd : begin_aside(fd);
	if (!rc)
		return 0;
	fd_close(fd);
	free(fd);
	return rc;
}

static enum device_bus bus_of(const struct device *d)
{
	return device_is_pci(&d->desc) ? DEVICE_BUS_PCI : DEVICE_BUS_MMIO;
}

/* The interrupt that says so. On PCI the guest has chosen it, or none; the helper that has written
 * it down may have been taken over. */
static int interrupt_for(const struct device *d, struct err *e)
{
	uint32_t vector = 0;
	int rc = 0;

	if (bus_of(d) == DEVICE_BUS_PCI)
		rc = device_set_bits(d, VPCI_CONFIG_VECTOR, 0, &vector, e);
	vector &= VPCI_NO_VECTOR; /* 16 bits */
	if (rc || vector >= d->desc.nvectors)
		return rc;
	rc = signal_foreign(d->slot[d->desc.vector[vector].slot]);
	return rc ? err_sys(e, rc, "interrupt") : 0;
}

/* The registers that a guest reads are ours to write: no process of the device lives. virtio 1.2,
 * 2.1.2: it needs a reset, and that is a change of its configuration. */
void vm_device_down(struct vm *vm, uint32_t index)
{
	const struct device *d = index < vm->ndevices ? &vm->device[index] : NULL;
	uint32_t status, isr;
	enum device_bus bus;
	struct err e;
	int rc;

	/* By hand it may have been started meanwhile. A console has no way to say it. */
	if (!d || !d->restart.failed || d->restart.state != RESTART_WAITS || !d->class->virtio)
		return;
	bus = bus_of(d);
	rc = device_set_bits(d, told[bus].status, VIRTIO_CONFIG_S_NEEDS_RESET, &status, &e);
	if (!rc && (status & VIRTIO_CONFIG_S_DRIVER_OK)) {
		rc = device_set_bits(d, told[bus].isr, ISR_CONFIG, &isr, &e);
		if (!rc)
			rc = interrupt_for(d, &e);
	}
	if (rc)
		log_error("%s: %s", d->desc.name, e.text);
}

static void set_back(struct vm *vm, struct device *d, const char *how)
{
	bool failed = d->restart.failed;

	if (restart_died(&d->restart, clock_ns())) {
		log_error("%s %s, %u times in a row: the device has failed, the guest is told; it "
			  "is tried again every %u s",
			  d->child.name, how, RESTART_TELL,
			  (unsigned)(RESTART_LONGEST_NS / 1000000000u));
		take_down(vm, d);
		control_event(vm->control, "device-failed", d->desc.name, how);
	} else if (failed) {
		log_info("%s %s", d->child.name, how); /* the same, every few seconds */
	} else {
		log_warn("%s %s", d->child.name, how);
	}
}

void vm_helper_ready(struct vm *vm, struct device *d)
{
	struct msg_dev m = {d->desc.index};

	(void)restart_ready(&d->restart, clock_ns());
	if (!vm->running)
		return;
	(void)vm_tell(vm, MSG_DEV_UP, &m, sizeof(m));
	log_warn("%s: restarted, carries on", d->child.name);
	control_event(vm->control, "helper-restarted", d->desc.name, NULL);
}

void vm_helper_died(struct vm *vm, struct device *d, enum child_state before, const char *how)
{
	if (!vm->ended && d->plug && plug_helper_died(d->plug, before, how))
		return;
	if (vm->ended || before == CHILD_DONE || before == CHILD_STOPPING)
		return;
	if (!vm->running) {
		vm_end(vm, RUN_FAILED, "%s %s before the guest ran", d->child.name, how);
		return;
	}
	control_event(vm->control, "helper-died", d->desc.name, how);
	set_back(vm, d, how);
}

void vm_helper_stuck(struct vm *vm, uint32_t index)
{
	struct device *d = index < vm->ndevices ? &vm->device[index] : NULL;

	/* One that is starting is the answer to what is reported here. */
	if (!d || d->child.state != CHILD_READY)
		return;
	log_warn("%s: did not answer in time; it is killed and restarted", d->child.name);
	restart_stuck(&d->restart);
	child_shoot(&d->child);
}

static void start_another(struct vm *vm, struct device *d)
{
	int quiet = device_quiet(d);
	struct err e;
	char how[sizeof(e.text) + 32];

	if (quiet == 0) {
		restart_not_yet(&d->restart, clock_ns());
	} else if (quiet < 0) {
		/* Without the fence two helpers could write at once: better no disk than a wrong
		 * one. */
		err_sys(&e, quiet, "has lost its generation lock");
		set_back(vm, d, e.text);
	} else if (device_start(d, vm->mem, &vm->memmap, &e)) {
		child_kill(&d->child);
		snprintf(how, sizeof(how), "cannot be started: %s", e.text);
		set_back(vm, d, how);
	} else {
		restart_started(&d->restart, clock_ns());
	}
}

void vm_restart_due(struct vm *vm)
{
	uint64_t now = clock_ns();

	for (unsigned i = 0; i < vm->ndevices && vm->running && !vm->ended; i++) {
		struct device *d = &vm->device[i];

		if (restart_due(&d->restart, now)) {
			start_another(vm, d);
		} else if (restart_overdue(&d->restart, now)) {
			log_warn("%s: was not ready in time", d->child.name);
			restart_started(&d->restart, now); /* for its end */
			child_shoot(&d->child);
		}
	}
}

uint64_t vm_restart_next(const struct vm *vm)
{
	uint64_t first = 0;

	for (unsigned i = 0; i < vm->ndevices; i++)
		first = loop_sooner(first, restart_next(&vm->device[i].restart));
	return first;
}

/* ---- by hand ---- */

int vm_device_restart(struct vm *vm, const char *name, struct err *e)
{
	struct device *d = vm_device_named(vm, name);

	if (!d)
		return err_set(e, -ENOENT, "device: '%.40s'; expected one that vm.info names",
			       name);
	if (d->plug && !plug_is_there(d->plug))
		return err_set(e, -EBUSY, "%s: it is just coming or going", name);
	if (!vm_is_running(vm))
		return err_set(e, -EBUSY, "the guest does not run");
	log_warn("%s: to be restarted, as asked", d->child.name);
	restart_by_hand(&d->restart, clock_ns());
	if (d->child.state == CHILD_READY)
		child_shoot(&d->child);
	return 0;
}

static void put_limits(json_object *o, const struct device *d)
{
	const struct msg_limit *m = d->class->limit ? d->class->limit(d) : NULL;

	if (m && m->rate)
		j_int(o, "rate", (int64_t)m->rate);
	if (m && m->ops)
		j_int(o, d->class->limited, (int64_t)m->ops);
}

json_object *vm_devices(const struct vm *vm)
{
	json_object *list = json_object_new_array();
	uint64_t now = clock_ns();

	for (unsigned i = 0; i < vm->ndevices; i++) {
		const struct restart *r = &vm->device[i].restart;
		json_object *o;

		if (device_is_empty(&vm->device[i]))
			continue;
		o = json_object_new_object();

		j_str(o, "name", vm->device[i].desc.name);
		j_str(o, "state", restart_name(r));
		j_int(o, "restarts", r->total);
		if (r->state == RESTART_WAITS)
			j_int(o, "next_try_ms",
			      r->next_ns > now ? (int64_t)((r->next_ns - now) / 1000000) : 0);
		put_limits(o, &vm->device[i]);
		json_object_array_add(list, o);
	}
	return list;
}
