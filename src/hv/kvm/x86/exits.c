/* SPDX-License-Identifier: BSD-2-Clause */
/* Exits that only x86-64 has, and where the guest was when it went wrong. */
#include <string.h>

#include "hv/kvm/backend.h"

#define INSN_MAX 15 /* longest x86 instruction */

/* Up to `len` bytes at a linear address of the guest, through its own page tables, one page at a
 * time. */
static unsigned peek_linear(struct hv_vcpu *v, uint64_t linear, uint8_t *buf, unsigned len)
{
	unsigned n = 0;

	while (n < len) {
		struct kvm_translation t = {.linear_address = linear + n};
		unsigned want = HV_PAGE - (unsigned)((linear + n) % HV_PAGE), got;

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

void kvm_arch_locate(struct hv_vcpu *v, struct hv_exit *x)
{
	struct kvm_regs r;
	struct kvm_sregs s;

	if (kvm_call(v->fd, KVM_GET_REGS, &r) < 0 || kvm_call(v->fd, KVM_GET_SREGS, &s) < 0)
		return;
	x->u.error.pc = r.rip;
	if (x->u.error.ninsn == 0)
		x->u.error.ninsn =
			(uint8_t)peek_linear(v, s.cs.base + r.rip, x->u.error.insn, INSN_MAX);
}

static void on_port(const struct hv_vcpu *v, struct hv_exit *x)
{
	struct kvm_run *run = v->run;

	x->kind = HV_EXIT_PIO;
	x->u.pio.port = run->io.port;
	x->u.pio.size = run->io.size;
	x->u.pio.out = run->io.direction == KVM_EXIT_IO_OUT;
	x->u.pio.count = run->io.count;
	x->u.pio.data = (uint8_t *)run + run->io.data_offset;
}

bool kvm_arch_exit(struct hv_vcpu *v, struct hv_exit *x)
{
	switch (v->run->exit_reason) {
	case KVM_EXIT_IO:
		on_port(v, x);
		return true;
	case KVM_EXIT_IRQ_WINDOW_OPEN:
		x->kind = HV_EXIT_IRQ_WINDOW;
		return true;
	case KVM_EXIT_IOAPIC_EOI:
		x->kind = HV_EXIT_EOI;
		x->u.eoi.vector = v->run->eoi.vector;
		return true;
	default:
		return false;
	}
}
