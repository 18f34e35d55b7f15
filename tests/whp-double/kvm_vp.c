/* SPDX-License-Identifier: BSD-2-Clause */
/* Virtual processors: creation, registers, cancelling. */
#include <string.h>
#include <stdlib.h>

#include "kvm.h"

struct vp *vp_of(WHV_PARTITION_HANDLE h, uint32_t index, const char *function)
{
	struct partition *p = partition_of(h, function);

	if (p && index < DOUBLE_VPS && p->vp[index].exists)
		return &p->vp[index];
	complain(DOUBLE_E_NO_VP, "%s: no processor %u", function, index);
	return NULL;
}

static int open_vp(struct partition *p, struct vp *v)
{
	v->fd = sys_ioctl(p->vm, KVM_CREATE_VCPU, (const void *)(uintptr_t)v->index);
	if (v->fd < 0)
		return v->fd;
	v->run = sys_map(v->fd, p->run_size);
	v->cpuid = cpuid_supported(p);
	v->defaults = cpuid_supported(p);
	if (!v->run || !v->cpuid || !v->defaults)
		return -12; /* ENOMEM */
	/* What registers may hold depends on it; at the first run it is set again (kvm_cpuid.c). */
	return sys_ioctl(v->fd, KVM_SET_CPUID2, v->cpuid);
}

static void close_vp(struct vp *v)
{
	sys_unmap(v->run, v->p->run_size);
	sys_close(v->fd);
	free(v->cpuid);
	free(v->defaults);
	v->run = NULL;
	v->cpuid = v->defaults = NULL;
	v->fd = -1;
	v->exists = false;
}

void close_vps(struct partition *p)
{
	for (unsigned i = 0; i < DOUBLE_VPS; i++) {
		if (!p->vp[i].exists)
			continue;
		complain(S_OK, "WHvDeletePartition with processor %u", i);
		close_vp(&p->vp[i]);
	}
}

HRESULT WINAPI WHvCreateVirtualProcessor(WHV_PARTITION_HANDLE h, UINT32 index, UINT32 flags)
{
	struct partition *p = partition_of(h, "WHvCreateVirtualProcessor");
	struct vp *v;
	int r;

	if (!p || flags || index >= p->ncpus)
		return complain(E_INVALIDARG, "WHvCreateVirtualProcessor %u", index);
	v = &p->vp[index];
	if (v->exists)
		return complain(DOUBLE_E_VP_EXISTS, "processor %u exists", index);
	v->p = p;
	v->index = index;
	r = open_vp(p, v);
	v->exists = true;
	if (r < 0)
		close_vp(v);
	return r < 0 ? complain(from_errno(r), "processor %u: errno %d", index, -r) : S_OK;
}

HRESULT WINAPI WHvDeleteVirtualProcessor(WHV_PARTITION_HANDLE h, UINT32 index)
{
	struct vp *v = vp_of(h, index, "WHvDeleteVirtualProcessor");

	if (!v)
		return DOUBLE_E_NO_VP;
	close_vp(v);
	return S_OK;
}

/* The flag first, then the signal: a thread that has not seen the flag is hit by the signal. */
HRESULT WINAPI WHvCancelRunVirtualProcessor(WHV_PARTITION_HANDLE h, UINT32 index, UINT32 flags)
{
	struct vp *v = vp_of(h, index, "WHvCancelRunVirtualProcessor");
	LONG tid;

	if (!v || flags)
		return E_INVALIDARG;
	InterlockedExchange(&v->canceled, 1);
	tid = InterlockedCompareExchange(&v->tid, 0, 0);
	if (tid)
		sys_kick(tid);
	return S_OK;
}

/* ---- registers ---- */

/* Both halves of what KVM has, and the events, fetched when a name asks for them. */
struct state {
	struct kvm_regs r;
	struct kvm_sregs s;
	struct kvm_vcpu_events e;
	bool changed_r, changed_s, changed_e;
};

/* In the order of the platform's names, which is that of the instruction encoding. */
static __u64 *general(struct kvm_regs *r, uint32_t name)
{
	__u64 *const by_name[] = {
		&r->rax, &r->rcx, &r->rdx, &r->rbx, &r->rsp, &r->rbp, &r->rsi, &r->rdi, &r->r8,
		&r->r9,  &r->r10, &r->r11, &r->r12, &r->r13, &r->r14, &r->r15, &r->rip, &r->rflags,
	};

	return name < sizeof(by_name) / sizeof(by_name[0]) ? by_name[name] : NULL;
}

static struct kvm_segment *segment(struct kvm_sregs *s, uint32_t name)
{
	switch (name) {
	case WHvX64RegisterEs:
		return &s->es;
	case WHvX64RegisterCs:
		return &s->cs;
	case WHvX64RegisterSs:
		return &s->ss;
	case WHvX64RegisterDs:
		return &s->ds;
	case WHvX64RegisterFs:
		return &s->fs;
	case WHvX64RegisterGs:
		return &s->gs;
	case WHvX64RegisterLdtr:
		return &s->ldt;
	case WHvX64RegisterTr:
		return &s->tr;
	default:
		return NULL;
	}
}

static __u64 *control(struct kvm_sregs *s, uint32_t name)
{
	switch (name) {
	case WHvX64RegisterCr0:
		return &s->cr0;
	case WHvX64RegisterCr2:
		return &s->cr2;
	case WHvX64RegisterCr3:
		return &s->cr3;
	case WHvX64RegisterCr4:
		return &s->cr4;
	case WHvX64RegisterCr8:
		return &s->cr8;
	case WHvX64RegisterEfer:
		return &s->efer;
	default:
		return NULL;
	}
}

void segment_to_whp(const struct kvm_segment *k, WHV_X64_SEGMENT_REGISTER *w)
{
	w->Base = k->base;
	w->Limit = k->limit;
	w->Selector = k->selector;
	w->Attributes = (UINT16)((k->type & 15) | (k->s & 1) << 4 | (k->dpl & 3) << 5 |
				 (k->present & 1) << 7 | (k->avl & 1) << 12 | (k->l & 1) << 13 |
				 (k->db & 1) << 14 | (k->g & 1) << 15);
}

static void segment_from_whp(const WHV_X64_SEGMENT_REGISTER *w, struct kvm_segment *k)
{
	*k = (struct kvm_segment){
		.base = w->Base,
		.limit = w->Limit,
		.selector = w->Selector,
		.type = w->SegmentType,
		.s = w->NonSystemSegment,
		.dpl = w->DescriptorPrivilegeLevel,
		.present = w->Present,
		.avl = w->Available,
		.l = w->Long,
		.db = w->Default,
		.g = w->Granularity,
		.unusable = !w->Present,
	};
}

static struct kvm_dtable *table(struct kvm_sregs *s, uint32_t name)
{
	if (name == WHvX64RegisterGdtr)
		return &s->gdt;
	return name == WHvX64RegisterIdtr ? &s->idt : NULL;
}

static int load_state(struct vp *v, struct state *t)
{
	int r = sys_ioctl(v->fd, KVM_GET_REGS, &t->r);

	if (r >= 0)
		r = sys_ioctl(v->fd, KVM_GET_SREGS, &t->s);
	if (r >= 0)
		r = sys_ioctl(v->fd, KVM_GET_VCPU_EVENTS, &t->e);
	t->changed_r = t->changed_s = t->changed_e = false;
	return r;
}

static int store_state(struct vp *v, struct state *t)
{
	int r = 0;

	if (t->changed_s)
		r = sys_ioctl(v->fd, KVM_SET_SREGS, &t->s);
	if (r >= 0 && t->changed_r)
		r = sys_ioctl(v->fd, KVM_SET_REGS, &t->r);
	if (r >= 0 && t->changed_e)
		r = sys_ioctl(v->fd, KVM_SET_VCPU_EVENTS, &t->e);
	return r;
}

static HRESULT get_one(struct vp *v, struct state *t, uint32_t name, WHV_REGISTER_VALUE *out)
{
	memset(out, 0, sizeof(*out));
	if (general(&t->r, name)) {
		out->Reg64 = *general(&t->r, name);
	} else if (segment(&t->s, name)) {
		segment_to_whp(segment(&t->s, name), &out->Segment);
	} else if (control(&t->s, name)) {
		out->Reg64 = *control(&t->s, name);
	} else if (table(&t->s, name)) {
		out->Table.Base = table(&t->s, name)->base;
		out->Table.Limit = table(&t->s, name)->limit;
	} else if (name == (uint32_t)WHvRegisterInterruptState) {
		out->InterruptState.InterruptShadow = t->e.interrupt.shadow != 0;
		out->InterruptState.NmiMasked = t->e.nmi.masked != 0;
	} else {
		return state_get_register(v, name, out);
	}
	return S_OK;
}

static HRESULT set_pending(struct state *t, const WHV_X64_PENDING_EXCEPTION_EVENT *w)
{
	if (w->EventPending && (w->EventType != 0 || w->Vector > 31))
		return E_INVALIDARG;
	t->e.exception.injected = w->EventPending;
	t->e.exception.nr = (uint8_t)w->Vector;
	t->e.exception.has_error_code = w->DeliverErrorCode;
	t->e.exception.error_code = w->ErrorCode;
	t->changed_e = true;
	return S_OK;
}

/* The single step that an emulated instruction owes: DR6.BS, vector 1. */
static HRESULT set_debug(struct vp *v, struct state *t, uint64_t value)
{
	struct kvm_debugregs d;
	int r = sys_ioctl(v->fd, KVM_GET_DEBUGREGS, &d);

	if (!value)
		return S_OK;
	if (value != 1u << 4)
		return E_INVALIDARG;
	d.dr6 |= 1u << 14;
	if (r >= 0)
		r = sys_ioctl(v->fd, KVM_SET_DEBUGREGS, &d);
	t->e.exception.injected = 1;
	t->e.exception.nr = 1;
	t->e.exception.has_error_code = 0;
	t->changed_e = true;
	return from_errno(r);
}

static HRESULT set_one(struct vp *v, struct state *t, uint32_t name, const WHV_REGISTER_VALUE *in)
{
	if (general(&t->r, name)) {
		*general(&t->r, name) = in->Reg64;
		t->changed_r = true;
	} else if (segment(&t->s, name)) {
		segment_from_whp(&in->Segment, segment(&t->s, name));
		t->changed_s = true;
	} else if (control(&t->s, name)) {
		*control(&t->s, name) = in->Reg64;
		t->changed_s = true;
	} else if (table(&t->s, name)) {
		table(&t->s, name)->base = in->Table.Base;
		table(&t->s, name)->limit = in->Table.Limit;
		t->changed_s = true;
	} else if (name == (uint32_t)WHvRegisterInterruptState) {
		t->e.interrupt.shadow = in->InterruptState.InterruptShadow ? 3 : 0;
		t->e.nmi.masked = in->InterruptState.NmiMasked;
		t->e.flags |= KVM_VCPUEVENT_VALID_SHADOW;
		t->changed_e = true;
	} else if (name == (uint32_t)WHvRegisterPendingEvent) {
		return set_pending(t, &in->ExceptionEvent);
	} else if (name == (uint32_t)WHvX64RegisterPendingDebugException) {
		return set_debug(v, t, in->Reg64);
	} else {
		return state_set_register(v, &t->e, name, in, &t->changed_e);
	}
	return S_OK;
}

/* Unaligned arrays crash the real platform. */
static bool good_array(const WHV_REGISTER_VALUE *v, UINT32 n, const char *function)
{
	if (n && (uintptr_t)v % 16 == 0)
		return true;
	complain(E_INVALIDARG, "%s: %u values at %p", function, n, (const void *)v);
	return false;
}

HRESULT WINAPI WHvGetVirtualProcessorRegisters(WHV_PARTITION_HANDLE h, UINT32 index,
					       const WHV_REGISTER_NAME *names, UINT32 n,
					       WHV_REGISTER_VALUE *values)
{
	struct vp *v = vp_of(h, index, "WHvGetVirtualProcessorRegisters");
	HRESULT hr = S_OK;
	struct state t;

	if (!v || !good_array(values, n, "WHvGetVirtualProcessorRegisters"))
		return E_INVALIDARG;
	hr = from_errno(load_state(v, &t));
	for (UINT32 i = 0; i < n && hr == S_OK; i++)
		hr = get_one(v, &t, (uint32_t)names[i], &values[i]);
	return hr;
}

HRESULT WINAPI WHvSetVirtualProcessorRegisters(WHV_PARTITION_HANDLE h, UINT32 index,
					       const WHV_REGISTER_NAME *names, UINT32 n,
					       const WHV_REGISTER_VALUE *values)
{
	struct vp *v = vp_of(h, index, "WHvSetVirtualProcessorRegisters");
	HRESULT hr = S_OK;
	struct state t;

	if (!v || !good_array(values, n, "WHvSetVirtualProcessorRegisters"))
		return E_INVALIDARG;
	hr = from_errno(load_state(v, &t));
	for (UINT32 i = 0; i < n && hr == S_OK; i++)
		hr = set_one(v, &t, (uint32_t)names[i], &values[i]);
	return hr == S_OK ? from_errno(store_state(v, &t)) : hr;
}

void fill_context(const struct kvm_regs *r, const struct kvm_sregs *s, WHV_RUN_VP_EXIT_CONTEXT *x)
{
	WHV_VP_EXIT_CONTEXT *c = &x->VpContext;

	c->ExecutionState.AsUINT16 = (UINT16)((s->ss.dpl & 3) | (s->cr0 & 1) << 2 |
					      (s->cr0 >> 18 & 1) << 3 | (s->efer >> 10 & 1) << 4);
	c->Cr8 = s->cr8 & 15;
	c->Rip = r->rip;
	c->Rflags = r->rflags;
	segment_to_whp(&s->cs, &c->Cs);
}
