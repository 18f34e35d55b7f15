/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * KVM_RUN, and what it says afterwards, as one neutral exit.
 *
 * One function per exit reason that means something to the caller, found through a table; every
 * other reason is an error with its number, because nothing else was asked for (no HLT exits, no
 * MSR filters, no debugging).
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <insula/base.h>

#include "hv/kvm/backend.h"

#define INSN_MAX 15 /* longest x86 instruction */

typedef void decode_fn(struct hv_vcpu *v, struct hv_exit *x);

/* ---- errors ---- */

__attribute__((format(printf, 3, 4))) static void set_error(struct hv_vcpu *v, struct hv_exit *x,
							    const char *fmt, ...)
{
	va_list ap;

	x->kind = HV_EXIT_ERROR;
	x->u.error.code = v->run->exit_reason;
	va_start(ap, fmt);
	vsnprintf(x->u.error.text, sizeof(x->u.error.text), fmt, ap);
	va_end(ap);
	kvm_arch_locate(v, x);
}

static const char *suberror_name(uint32_t suberror)
{
	static const char *const names[] = {
		[KVM_INTERNAL_ERROR_EMULATION] = "an instruction cannot be emulated",
		[KVM_INTERNAL_ERROR_SIMUL_EX] = "exceptions at the same time",
		[KVM_INTERNAL_ERROR_DELIVERY_EV] = "a fault while an event was delivered",
		[KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON] = "an exit that KVM does not expect",
	};

	if (suberror < ARRAY_LEN(names) && names[suberror])
		return names[suberror];
	return "unknown";
}

/* The bytes that KVM tried to emulate, if it says them (api.rst, KVM_EXIT_INTERNAL_ERROR). */
static void take_emulated_bytes(const struct kvm_run *run, struct hv_exit *x)
{
	unsigned n = run->emulation_failure.insn_size;

	if (run->emulation_failure.suberror != KVM_INTERNAL_ERROR_EMULATION ||
	    run->emulation_failure.ndata < 1 ||
	    !(run->emulation_failure.flags & KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES))
		return;
	if (n > INSN_MAX)
		n = INSN_MAX;
	memcpy(x->u.error.insn, run->emulation_failure.insn_bytes, n);
	x->u.error.ninsn = (uint8_t)n;
}

static void on_internal_error(struct hv_vcpu *v, struct hv_exit *x)
{
	uint32_t suberror = v->run->internal.suberror;

	memset(&x->u.error, 0, sizeof(x->u.error));
	take_emulated_bytes(v->run, x);
	set_error(v, x, "KVM internal error %u: %s", suberror, suberror_name(suberror));
}

static void on_fail_entry(struct hv_vcpu *v, struct hv_exit *x)
{
	memset(&x->u.error, 0, sizeof(x->u.error));
	set_error(v, x, "the processor refuses to enter the guest, reason 0x%llx",
		  (unsigned long long)v->run->fail_entry.hardware_entry_failure_reason);
}

static void on_hardware(struct hv_vcpu *v, struct hv_exit *x)
{
	memset(&x->u.error, 0, sizeof(x->u.error));
	set_error(v, x, "hardware exit 0x%llx that KVM does not know",
		  (unsigned long long)v->run->hw.hardware_exit_reason);
}

static void on_system_event(struct hv_vcpu *v, struct hv_exit *x)
{
	memset(&x->u.error, 0, sizeof(x->u.error));
	set_error(v, x, "system event %u", v->run->system_event.type);
}

static void on_unexpected(struct hv_vcpu *v, struct hv_exit *x)
{
	memset(&x->u.error, 0, sizeof(x->u.error));
	set_error(v, x, "unexpected KVM exit reason %u", v->run->exit_reason);
}

/* ---- ordinary exits ---- */

static void on_mmio(struct hv_vcpu *v, struct hv_exit *x)
{
	const struct kvm_run *run = v->run;

	x->kind = HV_EXIT_MMIO;
	x->u.mmio.gpa = run->mmio.phys_addr;
	x->u.mmio.size = (uint8_t)run->mmio.len;
	x->u.mmio.write = run->mmio.is_write;
	memcpy(x->u.mmio.data, run->mmio.data, sizeof(x->u.mmio.data));
}

static void on_hlt(struct hv_vcpu *v, struct hv_exit *x)
{
	(void)v;
	x->kind = HV_EXIT_HALT;
}

static void on_shutdown(struct hv_vcpu *v, struct hv_exit *x)
{
	(void)v;
	x->kind = HV_EXIT_SHUTDOWN;
}

/* A signal: ours if the flag is set. Other reasons for it, a late signal of a kick that was already
 * answered among them, do not matter. */
static void on_interrupted(struct hv_vcpu *v, struct hv_exit *x)
{
	uint8_t kicked = __atomic_exchange_n(&v->run->immediate_exit, 0, __ATOMIC_SEQ_CST);

	x->kind = kicked ? HV_EXIT_CANCELED : HV_EXIT_NONE;
}

static void decode_exit(struct hv_vcpu *v, struct hv_exit *x)
{
	static decode_fn *const table[] = {
		[KVM_EXIT_UNKNOWN] = on_hardware,
		[KVM_EXIT_HLT] = on_hlt,
		[KVM_EXIT_MMIO] = on_mmio,
		[KVM_EXIT_SHUTDOWN] = on_shutdown,
		[KVM_EXIT_FAIL_ENTRY] = on_fail_entry,
		[KVM_EXIT_INTR] = on_interrupted,
		[KVM_EXIT_INTERNAL_ERROR] = on_internal_error,
		[KVM_EXIT_SYSTEM_EVENT] = on_system_event,
	};

	uint32_t reason = v->run->exit_reason;

	if (reason < ARRAY_LEN(table) && table[reason])
		table[reason](v, x);
	else if (!kvm_arch_exit(v, x))
		on_unexpected(v, x);
}

/* A vCPU that waits for its start signal inside KVM_RUN gets EAGAIN when it comes. The boot CPU
 * never waits for one: there EAGAIN is what starting KVM's own thread for this VM says when the
 * process may not have one more. */
static void on_eagain(struct hv_vcpu *v, struct hv_exit *x)
{
	if (v->index > 0) {
		on_interrupted(v, x);
		return;
	}
	memset(&x->u.error, 0, sizeof(x->u.error));
	set_error(v, x,
		  "KVM_RUN says EAGAIN: no room for KVM's own thread (RLIMIT_NPROC or a limit on "
		  "pids)");
}

int hv_vcpu_run(struct hv_vcpu *v, struct hv_exit *x)
{
	int r;

	if (atomic_load_explicit(&v->tid, memory_order_relaxed) == 0) {
		r = hv_vcpu_bind(v, NULL);
		if (r < 0)
			return r;
	}
	r = v->has_exit ? 0 : kvm_call_value(v->fd, KVM_RUN, 0);
	v->has_exit = false;
	if (r == -EINTR)
		on_interrupted(v, x);
	else if (r == -EAGAIN)
		on_eagain(v, x);
	else if (r < 0)
		return r;
	else
		decode_exit(v, x);
	return 0;
}

int hv_vcpu_complete(struct hv_vcpu *v, struct hv_exit *x)
{
	/* Port input is already where it belongs: pio.data points into the run page. */
	if (x->kind == HV_EXIT_MMIO && !x->u.mmio.write)
		memcpy(v->run->mmio.data, x->u.mmio.data, sizeof(x->u.mmio.data));
	return 0;
}
