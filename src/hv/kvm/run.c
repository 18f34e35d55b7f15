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
#include <insula/board.h>

#include "hv/kvm/backend.h"

#define INSN_MAX 15 /* longest x86 instruction */

typedef void decode_fn(struct hv_vcpu *v, struct hv_exit *x);

/* ---- errors ---- */

/* Up to `len` bytes at a linear address of the guest, through its own page tables, one page at a
 * time. */
static unsigned peek_linear(struct hv_vcpu *v, uint64_t linear, uint8_t *buf, unsigned len)
{
	unsigned n = 0;

	while (n < len) {
		struct kvm_translation t = {.linear_address = linear + n};
		unsigned want = BOARD_PAGE - (unsigned)((linear + n) % BOARD_PAGE), got;

		if (want > len - n)
			want = len - n;
		if (kvm_call(v->fd, KVM_TRANSLATE, &t) < 0 || !t.valid)
			break;
		got = kvm_mem_peek(v->vm, t.physical_address, buf + n, want);
		n += got;
		if (got < want)
			break;
	}
	return n;
}

/* Where it happened. Best effort: a report without it is still a report. */
static void locate(struct hv_vcpu *v, struct hv_exit *x)
{
	struct kvm_regs r;
	struct kvm_sregs s;

	if (kvm_call(v->fd, KVM_GET_REGS, &r) < 0 || kvm_call(v->fd, KVM_GET_SREGS, &s) < 0)
		return;
	x->u.error.rip = r.rip;
	if (x->u.error.ninsn == 0)
		x->u.error.ninsn =
			(uint8_t)peek_linear(v, s.cs.base + r.rip, x->u.error.insn, INSN_MAX);
}

__attribute__((format(printf, 3, 4))) static void set_error(struct hv_vcpu *v, struct hv_exit *x,
							    const char *fmt, ...)
{
	va_list ap;

	x->kind = HV_EXIT_ERROR;
	x->u.error.code = v->run->exit_reason;
	va_start(ap, fmt);
	vsnprintf(x->u.error.text, sizeof(x->u.error.text), fmt, ap);
	va_end(ap);
	locate(v, x);
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

static void on_io(struct hv_vcpu *v, struct hv_exit *x)
{
	struct kvm_run *run = v->run;

	x->kind = HV_EXIT_PIO;
	x->u.pio.port = run->io.port;
	x->u.pio.size = run->io.size;
	x->u.pio.out = run->io.direction == KVM_EXIT_IO_OUT;
	x->u.pio.count = run->io.count;
	x->u.pio.data = (uint8_t *)run + run->io.data_offset;
}

static void on_mmio(struct hv_vcpu *v, struct hv_exit *x)
{
	const struct kvm_run *run = v->run;

	x->kind = HV_EXIT_MMIO;
	x->u.mmio.gpa = run->mmio.phys_addr;
	x->u.mmio.size = (uint8_t)run->mmio.len;
	x->u.mmio.write = run->mmio.is_write;
	memcpy(x->u.mmio.data, run->mmio.data, sizeof(x->u.mmio.data));
}

static void on_eoi(struct hv_vcpu *v, struct hv_exit *x)
{
	x->kind = HV_EXIT_EOI;
	x->u.eoi.vector = v->run->eoi.vector;
}

static void on_hlt(struct hv_vcpu *v, struct hv_exit *x)
{
	(void)v;
	x->kind = HV_EXIT_HALT;
}

static void on_irq_window(struct hv_vcpu *v, struct hv_exit *x)
{
	(void)v;
	x->kind = HV_EXIT_IRQ_WINDOW;
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

static decode_fn *decoder(uint32_t reason)
{
	static decode_fn *const table[] = {
		[KVM_EXIT_UNKNOWN] = on_hardware,
		[KVM_EXIT_IO] = on_io,
		[KVM_EXIT_HLT] = on_hlt,
		[KVM_EXIT_MMIO] = on_mmio,
		[KVM_EXIT_IRQ_WINDOW_OPEN] = on_irq_window,
		[KVM_EXIT_SHUTDOWN] = on_shutdown,
		[KVM_EXIT_FAIL_ENTRY] = on_fail_entry,
		[KVM_EXIT_INTR] = on_interrupted,
		[KVM_EXIT_INTERNAL_ERROR] = on_internal_error,
		[KVM_EXIT_SYSTEM_EVENT] = on_system_event,
		[KVM_EXIT_IOAPIC_EOI] = on_eoi,
	};

	if (reason < ARRAY_LEN(table) && table[reason])
		return table[reason];
	return on_unexpected;
}

/* A vCPU that waits for its start signal inside KVM_RUN gets EAGAIN when it comes. The boot CPU
 * never waits for one: there EAGAIN is what starting KVM's own thread for this VM says when the
 * process may not have one more. */
static void on_again(struct hv_vcpu *v, struct hv_exit *x)
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
	r = kvm_call_value(v->fd, KVM_RUN, 0);
	if (r == -EINTR)
		on_interrupted(v, x);
	else if (r == -EAGAIN)
		on_again(v, x);
	else if (r < 0)
		return r;
	else
		decoder(v->run->exit_reason)(v, x);
	return 0;
}

int hv_vcpu_complete(struct hv_vcpu *v, struct hv_exit *x)
{
	/* Port input is already where it belongs: pio.data points into the run page. */
	if (x->kind == HV_EXIT_MMIO && !x->u.mmio.write)
		memcpy(v->run->mmio.data, x->u.mmio.data, sizeof(x->u.mmio.data));
	return 0;
}
