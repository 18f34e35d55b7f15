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

/* Power-off or reboot: fine on its own, but a command has not told how it ended then. */
static void ended_quietly(struct vm *vm, const char *how)
{
	if (vm->boot.own_initrd && !vm->exit.init_started) {
		vm->status = RUN_GUEST_PANIC;
		snprintf(vm->why, sizeof(vm->why),
			 "the guest %s before init ran: the kernel could not start (-v shows its "
			 "messages)",
			 how);
	} else if (vm->conf->command) {
		vm->status = RUN_NO_STATUS;
		snprintf(vm->why, sizeof(vm->why), "the guest %s before the command ended", how);
	}
}

static void crashed(struct vm *vm)
{
	const struct msg_vm_exit *x = &vm->exit;
	char bytes[3 * sizeof(x->insn) + 1] = "", rip[32] = "";

	for (unsigned i = 0; i < x->ninsn && i < sizeof(x->insn); i++)
		snprintf(bytes + 3 * i, 4, " %02x", x->insn[i]);
	if (x->reason == VM_EXIT_TRIPLE_FAULT) {
		vm->status = RUN_GUEST_CRASH;
		if (x->rip)
			snprintf(rip, sizeof(rip), ", rip %#llx", (unsigned long long)x->rip);
		snprintf(vm->why, sizeof(vm->why), "the guest crashed: triple fault, %.100s%s",
			 x->text, rip);
	} else {
		vm->status = RUN_FAILED;
		snprintf(vm->why, sizeof(vm->why), "the guest cannot go on: %.120s, rip %#llx%s%s",
			 x->text, (unsigned long long)x->rip, bytes[0] ? ", bytes" : "", bytes);
	}
}

void result_from_exit(struct vm *vm)
{
	const struct msg_vm_exit *x = &vm->exit;

	switch ((enum vm_exit_reason)x->reason) {
	case VM_EXIT_POWEROFF:
		ended_quietly(vm, "powered off");
		break;
	case VM_EXIT_REBOOT:
		ended_quietly(vm, "rebooted");
		break;
	case VM_EXIT_STATUS:
		vm->status = (int)x->status & 0xff;
		break;
	case VM_EXIT_PANIC:
		vm->status = RUN_GUEST_PANIC;
		snprintf(vm->why, sizeof(vm->why), "the guest kernel panicked");
		break;
	case VM_EXIT_TRIPLE_FAULT:
	case VM_EXIT_ERROR:
		crashed(vm);
		break;
	case VM_EXIT_STOPPED:
		break; /* whoever asked for it has set the status */
	default:
		vm->status = RUN_FAILED;
		snprintf(vm->why, sizeof(vm->why), "insula-vmm reported an unknown end (%u)",
			 x->reason);
	}
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
