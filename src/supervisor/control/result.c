/* SPDX-License-Identifier: BSD-2-Clause */
/* How a VM ended, as an object. See result.h. */
#include <insula/base.h>
#include <insula/hv.h>
#include <insula/log.h>

#include "spec/ending.h"
#include "spec/json.h"
#include "result.h"
#include "supervisor/vm.h"

static const char *const reason_names[] = {
	[VM_EXIT_POWEROFF] = "poweroff",
	[VM_EXIT_REBOOT] = "reboot",
	[VM_EXIT_STATUS] = "status",
	[VM_EXIT_PANIC] = "guest-panic",
	[VM_EXIT_TRIPLE_FAULT] = "triple-fault",
	[VM_EXIT_ERROR] = "vcpu-error",
	[VM_EXIT_STOPPED] = "stopped",
};

static const char *reason_name(const struct result *r)
{
	uint32_t n = r->exit->reason;

	if (r->reason)
		return r->reason;
	if (r->command_ended)
		return reason_names[VM_EXIT_STATUS];
	if (r->status == RUN_BAD_INPUT && !r->have_exit)
		return "bad-input";
	if (r->status == RUN_TIMEOUT && (!r->have_exit || n == VM_EXIT_STOPPED))
		return "timeout";
	if (!r->have_exit || n >= ARRAY_LEN(reason_names) || !reason_names[n])
		return "failed";
	return reason_names[n];
}

static const char *const exit_names[HV_EXIT_KINDS] = {
	[HV_EXIT_NONE] = "none",         [HV_EXIT_PIO] = "pio",
	[HV_EXIT_MMIO] = "mmio",         [HV_EXIT_HALT] = "halt",
	[HV_EXIT_EOI] = "eoi",           [HV_EXIT_MSR] = "msr",
	[HV_EXIT_CPUID] = "cpuid",       [HV_EXIT_IRQ_WINDOW] = "irq_window",
	[HV_EXIT_CANCELED] = "canceled", [HV_EXIT_SHUTDOWN] = "shutdown",
	[HV_EXIT_ERROR] = "error",
};

static void result_add(json_object *o, const char *key, uint64_t v)
{
	json_object_object_add(o, key, json_object_new_uint64(v));
}

static json_object *exits_json(const struct msg_vm_exit *x)
{
	json_object *o = json_object_new_object();
	uint64_t total = 0;

	for (unsigned i = 0; i < HV_EXIT_KINDS; i++) {
		result_add(o, exit_names[i], x->exits[i]);
		total += x->exits[i];
	}
	result_add(o, "total", total);
	result_add(o, "unclaimed", x->unclaimed);
	result_add(o, "board", x->board);
	result_add(o, "ioapic", x->ioapic);
	return o;
}

static json_object *device_json(const struct result_device *d, const struct vm_dev_metrics *m)
{
	json_object *o = json_object_new_object();
	json_object *core = json_object_new_object();
	json_object *helper = json_object_new_object();

	j_str(o, "name", d->name);
	result_add(o, "restarts", d->restarts);
	j_str(o, "engine", d->engine);
	j_str(o, "bus", d->bus);
	result_add(core, "shadow_reads", m->shadow_reads);
	result_add(core, "posted", m->posted);
	result_add(core, "calls", m->calls);
	result_add(core, "call_ns_max", m->call_ns_max);
	result_add(core, "timeouts", m->timeouts);
	result_add(core, "doorbells", m->doorbells);
	j_obj(o, "exits", core);
	stats_add(helper, d->stats, &stats_common);
	stats_add(helper, d->stats, d->names);
	j_obj(o, "helper", helper);
	return o;
}

json_object *result_object(const struct result *r)
{
	const struct msg_vm_exit *x = r->exit;
	json_object *o = json_object_new_object(), *devices = json_object_new_array();

	j_str(o, "reason", reason_name(r));
	j_int(o, "status", r->status);
	if (r->why[0])
		j_str(o, "message", r->why);
	result_add(o, "run_ns", clock_ns() - r->started_ns);
	result_add(o, "first_instruction_ns",
		   x->first_run_ns > r->started_ns ? x->first_run_ns - r->started_ns : 0);
	j_obj(o, "exits", exits_json(x));
	for (unsigned i = 0; i < r->ndevices; i++) {
		if (r->device[i].name)
			json_object_array_add(devices, device_json(&r->device[i], &x->dev[i]));
	}
	j_obj(o, "devices", devices);
	return o;
}

const char *result_text(json_object *o)
{
	return json_object_to_json_string_ext(o, JSON_C_TO_STRING_PRETTY |
							 JSON_C_TO_STRING_NOSLASHESCAPE);
}

void result_write(const char *path, json_object *o)
{
	int rc = text_write(path, result_text(o));
	struct err e;

	if (rc) {
		err_sys(&e, rc, "--metrics: %s", path);
		log_error("%s", e.text);
	}
	json_object_put(o);
}

/* ---- of a struct vm ---- */

void result_from_exit(struct vm *vm)
{
	ending_of(&vm->exit, vm->boot.own_initrd, vm->conf->command != NULL, &vm->end);
	err_clean(vm->end.why);
}

json_object *result_json(const struct vm *vm)
{
	struct result r = {.reason = vm->reason,
			   .command_ended = vm->command.ended,
			   .have_exit = vm->have_exit,
			   .status = vm->end.status,
			   .why = vm->end.why,
			   .started_ns = vm->started_ns,
			   .exit = &vm->exit,
			   .ndevices = vm->ndevices};

	for (unsigned i = 0; i < vm->ndevices; i++) {
		const struct device *d = &vm->device[i];

		if (device_is_empty(d))
			continue;
		r.device[i] = (struct result_device){
			.name = d->desc.name,
			.engine = d->class->engine ? d->class->engine(d) : NULL,
			.bus = device_is_pci(&d->desc) ? "pci" : NULL,
			.restarts = d->restart.total,
			.stats = &d->stats,
			.names = d->class->stats,
		};
	}
	return result_object(&r);
}

void metrics_write(const struct vm *vm)
{
	if (vm->conf->metrics && vm->running)
		result_write(vm->conf->metrics, result_json(vm));
}
