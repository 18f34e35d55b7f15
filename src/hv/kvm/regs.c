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

static int get(const struct hv_vcpu *v, struct kvm_regs *g, struct kvm_sregs *s, struct err *e)
{
	int r = kvm_call(v->fd, KVM_GET_REGS, g);

	if (r == 0)
		r = kvm_call(v->fd, KVM_GET_SREGS, s);
	if (r < 0)
		err_sys(e, r, "vCPU %u: registers", v->index);
	return r;
}

static void general_from_kvm(struct hv_regs *r, const struct kvm_regs *g)
{
	r->rax = g->rax;
	r->rbx = g->rbx;
	r->rcx = g->rcx;
	r->rdx = g->rdx;
	r->rsi = g->rsi;
	r->rdi = g->rdi;
	r->rsp = g->rsp;
	r->rbp = g->rbp;
	r->r8 = g->r8;
	r->r9 = g->r9;
	r->r10 = g->r10;
	r->r11 = g->r11;
	r->r12 = g->r12;
	r->r13 = g->r13;
	r->r14 = g->r14;
	r->r15 = g->r15;
	r->rip = g->rip;
	r->rflags = g->rflags;
}

static struct kvm_regs general_to_kvm(const struct hv_regs *r)
{
	struct kvm_regs g = {
		.rax = r->rax,
		.rbx = r->rbx,
		.rcx = r->rcx,
		.rdx = r->rdx,
		.rsi = r->rsi,
		.rdi = r->rdi,
		.rsp = r->rsp,
		.rbp = r->rbp,
		.r8 = r->r8,
		.r9 = r->r9,
		.r10 = r->r10,
		.r11 = r->r11,
		.r12 = r->r12,
		.r13 = r->r13,
		.r14 = r->r14,
		.r15 = r->r15,
		.rip = r->rip,
		.rflags = r->rflags,
	};

	return g;
}

static void special_from_kvm(struct hv_regs *r, const struct kvm_sregs *s)
{
	r->cr0 = s->cr0;
	r->cr2 = s->cr2;
	r->cr3 = s->cr3;
	r->cr4 = s->cr4;
	r->efer = s->efer;
	r->cs = seg_from_kvm(&s->cs);
	r->ds = seg_from_kvm(&s->ds);
	r->es = seg_from_kvm(&s->es);
	r->fs = seg_from_kvm(&s->fs);
	r->gs = seg_from_kvm(&s->gs);
	r->ss = seg_from_kvm(&s->ss);
	r->tr = seg_from_kvm(&s->tr);
	r->ldt = seg_from_kvm(&s->ldt);
	r->gdt_base = s->gdt.base;
	r->gdt_limit = s->gdt.limit;
	r->idt_base = s->idt.base;
	r->idt_limit = s->idt.limit;
}

/* Into what the vCPU has: the APIC base, CR8 and pending interrupts are not the caller's. */
static void special_to_kvm(struct kvm_sregs *s, const struct hv_regs *r)
{
	s->cr0 = r->cr0;
	s->cr2 = r->cr2;
	s->cr3 = r->cr3;
	s->cr4 = r->cr4;
	s->efer = r->efer;
	s->cs = seg_to_kvm(&r->cs);
	s->ds = seg_to_kvm(&r->ds);
	s->es = seg_to_kvm(&r->es);
	s->fs = seg_to_kvm(&r->fs);
	s->gs = seg_to_kvm(&r->gs);
	s->ss = seg_to_kvm(&r->ss);
	s->tr = seg_to_kvm(&r->tr);
	s->ldt = seg_to_kvm(&r->ldt);
	s->gdt.base = r->gdt_base;
	s->gdt.limit = r->gdt_limit;
	s->idt.base = r->idt_base;
	s->idt.limit = r->idt_limit;
}

int hv_vcpu_get_regs(struct hv_vcpu *v, struct hv_regs *r, struct err *e)
{
	struct kvm_regs g = {0};
	struct kvm_sregs s = {0};
	int ret = get(v, &g, &s, e);

	if (ret < 0)
		return ret;
	general_from_kvm(r, &g);
	special_from_kvm(r, &s);
	return 0;
}

int hv_vcpu_set_regs(struct hv_vcpu *v, const struct hv_regs *r, struct err *e)
{
	struct kvm_regs g = {0};
	struct kvm_sregs s = {0};
	int ret = get(v, &g, &s, e);

	if (ret < 0)
		return ret;
	special_to_kvm(&s, r);
	ret = kvm_call(v->fd, KVM_SET_SREGS, &s);
	if (ret < 0)
		return err_sys(e, ret, "vCPU %u: KVM_SET_SREGS", v->index);
	g = general_to_kvm(r);
	ret = kvm_call(v->fd, KVM_SET_REGS, &g);
	return ret < 0 ? err_sys(e, ret, "vCPU %u: KVM_SET_REGS", v->index) : 0;
}
