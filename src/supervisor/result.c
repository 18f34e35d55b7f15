/* SPDX-License-Identifier: BSD-2-Clause */
/* How a VM ended: the status of insula-run, one line for people, and the metrics file. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <json-c/json.h>

#include <insula/base.h>
#include <insula/hv.h>
#include <insula/log.h>
#include <insula/stats.h>

#include "json.h"
#include "vm.h"

static const char *const reason_names[] = {
	[VM_EXIT_POWEROFF] = "poweroff",
	[VM_EXIT_REBOOT] = "reboot",
	[VM_EXIT_STATUS] = "status",
	[VM_EXIT_PANIC] = "guest-panic",
	[VM_EXIT_TRIPLE_FAULT] = "triple-fault",
	[VM_EXIT_ERROR] = "vcpu-error",
	[VM_EXIT_STOPPED] = "stopped",
};

static const char *reason_name(const struct vm *vm)
{
	uint32_t r = vm->exit.reason;

	if (vm->reason)
		return vm->reason;
	if (vm->command_ended)
		return reason_names[VM_EXIT_STATUS];
	if (vm->status == RUN_BAD_INPUT && !vm->have_exit)
		return "bad-input";
	if (vm->status == RUN_TIMEOUT && (!vm->have_exit || r == VM_EXIT_STOPPED))
		return "timeout";
	if (!vm->have_exit || r >= ARRAY_LEN(reason_names) || !reason_names[r])
		return "failed";
	return reason_names[r];
}

void result_from_exit(struct vm *vm)
{
	struct ending end = {.status = vm->status};

	ending_of(&vm->exit, vm->boot.own_initrd, vm->conf->command != NULL, &end);
	vm->status = end.status;
	memcpy(vm->why, end.why, sizeof(vm->why));
}

/* ---- metrics ---- */

static const char *const exit_names[HV_EXIT_KINDS] = {
	[HV_EXIT_NONE] = "none",         [HV_EXIT_PIO] = "pio",
	[HV_EXIT_MMIO] = "mmio",         [HV_EXIT_HALT] = "halt",
	[HV_EXIT_EOI] = "eoi",           [HV_EXIT_MSR] = "msr",
	[HV_EXIT_CPUID] = "cpuid",       [HV_EXIT_IRQ_WINDOW] = "irq_window",
	[HV_EXIT_CANCELED] = "canceled", [HV_EXIT_SHUTDOWN] = "shutdown",
	[HV_EXIT_ERROR] = "error",
};

static void add(json_object *o, const char *key, uint64_t v)
{
	json_object_object_add(o, key, json_object_new_uint64(v));
}

static json_object *exits_json(const struct msg_vm_exit *x)
{
	json_object *o = json_object_new_object();
	uint64_t total = 0;

	for (unsigned i = 0; i < HV_EXIT_KINDS; i++) {
		add(o, exit_names[i], x->exits[i]);
		total += x->exits[i];
	}
	add(o, "total", total);
	add(o, "unclaimed", x->unclaimed);
	add(o, "board", x->board);
	add(o, "ioapic", x->ioapic);
	return o;
}

static const struct stat_name common_stats[] = {{STAT_CALLS, "calls"},
						{STAT_POSTED, "posted"},
						{STAT_IRQS, "interrupts"},
						{STAT_WAKEUPS, "wakeups"}};
static void add_stats(json_object *o, const struct msg_stats *s, const struct stat_name *names,
		      size_t n)
{
	for (size_t i = 0; i < n; i++)
		add(o, names[i].name, s->n[names[i].index]);
}

static json_object *device_json(const struct device *d, const struct vm_dev_metrics *m)
{
	json_object *o = json_object_new_object();
	json_object *core = json_object_new_object();
	json_object *helper = json_object_new_object();

	j_str(o, "name", d->msg.name);
	add(o, "restarts", d->restarts);
	if (d->class->engine)
		j_str(o, "engine", d->class->engine(d));
	add(core, "shadow_reads", m->shadow_reads);
	add(core, "posted", m->posted);
	add(core, "calls", m->calls);
	add(core, "call_ns_max", m->call_ns_max);
	add(core, "timeouts", m->timeouts);
	add(core, "doorbells", m->doorbells);
	json_object_object_add(o, "exits", core);
	add_stats(helper, &d->stats, common_stats, ARRAY_LEN(common_stats));
	add_stats(helper, &d->stats, d->class->stats, d->class->nstats);
	json_object_object_add(o, "helper", helper);
	return o;
}

json_object *result_json(const struct vm *vm)
{
	const struct msg_vm_exit *x = &vm->exit;
	json_object *o = json_object_new_object(), *devices = json_object_new_array();

	j_str(o, "reason", reason_name(vm));
	j_int(o, "status", vm->status);
	if (vm->why[0])
		j_str(o, "message", vm->why);
	add(o, "run_ns", clock_ns() - vm->started_ns);
	add(o, "first_instruction_ns",
	    x->first_run_ns > vm->started_ns ? x->first_run_ns - vm->started_ns : 0);
	json_object_object_add(o, "exits", exits_json(x));
	for (unsigned i = 0; i < vm->ndevices; i++)
		json_object_array_add(devices, device_json(&vm->device[i], &x->dev[i]));
	json_object_object_add(o, "devices", devices);
	return o;
}

void metrics_write(const struct vm *vm)
{
	const char *path = vm->conf->metrics, *text;
	json_object *o;
	int fd, rc;

	if (!path || !vm->running)
		return;
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY, 0666);
	rc = fd < 0 ? -errno : 0;
	o = result_json(vm);
	text = json_object_to_json_string_ext(o, JSON_C_TO_STRING_PRETTY |
							 JSON_C_TO_STRING_NOSLASHESCAPE);
	if (!rc)
		rc = write_full(fd, text, strlen(text));
	if (!rc)
		rc = write_full(fd, "\n", 1);
	if (rc)
		log_error("--metrics: %s: %s", path, strerror(-rc));
	json_object_put(o);
	fd_close(&fd);
}
