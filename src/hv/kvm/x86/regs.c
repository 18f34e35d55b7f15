/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Registers: the neutral structure to KVM's two, and back.
 */
#include "hv/kvm/backend.h"

/* hv_seg.attr, see hv.h. */
enum {
	ATTR_TYPE = 0,
	ATTR_S = 4,
	ATTR_DPL = 5,
	ATTR_P = 7,
	ATTR_AVL = 8,
	ATTR_L = 9,
	ATTR_DB = 10,
	ATTR_G = 11
};

static struct hv_seg seg_from_kvm(const struct kvm_segment *k)
{
	struct hv_seg s = {.base = k->base, .limit = k->limit, .selector = k->selector};

	s.attr = (uint16_t)((k->type & 15) << ATTR_TYPE | (k->s & 1) << ATTR_S |
			    (k->dpl & 3) << ATTR_DPL | (k->present & 1) << ATTR_P |
			    (k->avl & 1) << ATTR_AVL | (k->l & 1) << ATTR_L |
			    (k->db & 1) << ATTR_DB | (k->g & 1) << ATTR_G);
	return s;
}

static struct kvm_segment seg_to_kvm(const struct hv_seg *s)
{
	struct kvm_segment k = {.base = s->base, .limit = s->limit, .selector = s->selector};

	k.type = s->attr >> ATTR_TYPE & 15;
	k.s = s->attr >> ATTR_S & 1;
	k.dpl = s->attr >> ATTR_DPL & 3;
	k.present = s->attr >> ATTR_P & 1;
	k.avl = s->attr >> ATTR_AVL & 1;
	k.l = s->attr >> ATTR_L & 1;
	k.db = s->attr >> ATTR_DB & 1;
	k.g = s->attr >> ATTR_G & 1;
	k.unusable = !k.present;
	return k;
}

/* clang-format off */
/* The fields that have the same name on both sides. */
#define GENERAL(F) \
	F(rax) F(rbx) F(rcx) F(rdx) F(rsi) F(rdi) F(rsp) F(rbp) F(r8) F(r9) F(r10) F(r11) F(r12) \
	F(r13) F(r14) F(r15) F(rip) F(rflags)
#define CONTROL(F) F(cr0) F(cr2) F(cr3) F(cr4) F(efer)
#define SEGMENTS(F) F(cs) F(ds) F(es) F(fs) F(gs) F(ss) F(tr) F(ldt)
/* clang-format on */

static int get(const struct hv_vcpu *v, struct kvm_regs *g, struct kvm_sregs *s, struct err *e)
{
	int r = kvm_call(v->fd, KVM_GET_REGS, g);

	if (r == 0)
		r = kvm_call(v->fd, KVM_GET_SREGS, s);
	if (r < 0)
		err_sys(e, r, "vCPU %u: registers", v->index);
	return r;
}

/* clang-format off */
int hv_vcpu_get_regs(struct hv_vcpu *v, struct hv_regs *r, struct err *e)
{
	struct kvm_regs g = {0};
	struct kvm_sregs s = {0};
	int ret = get(v, &g, &s, e);

	if (ret < 0)
		return ret;
#define FROM_G(f) r->f = g.f;
#define FROM_S(f) r->f = s.f;
#define FROM_SEG(f) r->f = seg_from_kvm(&s.f);
	GENERAL(FROM_G)
	CONTROL(FROM_S)
	SEGMENTS(FROM_SEG)
	r->gdt_base = s.gdt.base;
	r->gdt_limit = s.gdt.limit;
	r->idt_base = s.idt.base;
	r->idt_limit = s.idt.limit;
	return 0;
}

/* The APIC base, CR8 and pending interrupts are not the caller's: they stay what the vCPU has. */
int hv_vcpu_set_regs(struct hv_vcpu *v, const struct hv_regs *r, struct err *e)
{
	struct kvm_regs g = {0};
	struct kvm_sregs s = {0};
	int ret = get(v, &g, &s, e);

	if (ret < 0)
		return ret;
#define TO_G(f) g.f = r->f;
#define TO_S(f) s.f = r->f;
#define TO_SEG(f) s.f = seg_to_kvm(&r->f);
	GENERAL(TO_G)
	CONTROL(TO_S)
	SEGMENTS(TO_SEG)
	s.gdt.base = r->gdt_base;
	s.gdt.limit = r->gdt_limit;
	s.idt.base = r->idt_base;
	s.idt.limit = r->idt_limit;
	ret = kvm_call(v->fd, KVM_SET_SREGS, &s);
	if (ret < 0)
		return err_sys(e, ret, "vCPU %u: KVM_SET_SREGS", v->index);
	ret = kvm_call(v->fd, KVM_SET_REGS, &g);
	return ret < 0 ? err_sys(e, ret, "vCPU %u: KVM_SET_REGS", v->index) : 0;
}
/* clang-format on */
