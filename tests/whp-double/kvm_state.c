/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a virtual processor holds besides the registers of kvm_vp.c: MSRs, debug registers, XCR0,
 * pending events, its activity; XSAVE and the local APIC as the platform's functions give them; the
 * partition's reference time.
 *
 * Microsoft, Hypervisor Platform API: WHV_REGISTER_NAME, WHvGetVirtualProcessorXsaveState,
 * WHvGetVirtualProcessorInterruptControllerState2. A register that the processor has not got is
 * WHV_E_INVALID_VP_REGISTER_NAME without a complaint: the caller may ask.
 */
#include <string.h>

#include "kvm.h"

#define LAPIC_PAGE 4096u
#define XSAVE_LEN 4096u
#define XSAVE_MAX 16384u
#define MSR_TSC 0x10u
#define NO_MSR UINT32_MAX
#define EVENT_INTERRUPT 0
#define EVENT_NMI 2

/* ---- MSRs ---- */

static const struct {
	uint32_t first, n; /* of the platform's names */
	uint32_t msr, step;
} msrs[] = {
	{WHvX64RegisterTsc, 1, MSR_TSC, 1},
	{WHvX64RegisterKernelGsBase, 1, 0xc0000102, 1},
	{WHvX64RegisterApicBase, 1, 0x1b, 1},
	{WHvX64RegisterPat, 1, 0x277, 1},
	{WHvX64RegisterSysenterCs, 1, 0x174, 1},
	{WHvX64RegisterSysenterEip, 1, 0x176, 1},
	{WHvX64RegisterSysenterEsp, 1, 0x175, 1},
	{WHvX64RegisterStar, 4, 0xc0000081, 1},
	{WHvX64RegisterMsrMtrrDefType, 1, 0x2ff, 1},
	{WHvX64RegisterMsrMtrrPhysBase0, 8, 0x200, 2},
	{WHvX64RegisterMsrMtrrPhysBase8, 8, NO_MSR, 0},
	{WHvX64RegisterMsrMtrrPhysMask0, 8, 0x201, 2},
	{WHvX64RegisterMsrMtrrPhysMask8, 8, NO_MSR, 0},
	{WHvX64RegisterMsrMtrrFix64k00000, 1, 0x250, 1},
	{WHvX64RegisterMsrMtrrFix16k80000, 2, 0x258, 1},
	{WHvX64RegisterMsrMtrrFix4kC0000, 8, 0x268, 1},
	{WHvX64RegisterTscAux, 1, 0xc0000103, 1},
	{WHvX64RegisterSpecCtrl, 1, 0x48, 1},
	{WHvX64RegisterTsxCtrl, 1, 0x122, 1},
	{WHvX64RegisterXss, 1, 0xda0, 1},
	{WHvX64RegisterUCet, 2, 0x6a0, 2},
	{WHvX64RegisterSsp, 1, NO_MSR, 0},
	{WHvX64RegisterPl0Ssp, 5, 0x6a4, 1},
	{WHvX64RegisterTscDeadline, 1, 0x6e0, 1},
	{WHvX64RegisterTscAdjust, 1, 0x3b, 1},
	{WHvX64RegisterUmwaitControl, 1, 0xe1, 1},
	{WHvX64RegisterXfd, 2, 0x1c4, 1},
	{WHvX64RegisterHypercall, 1, 0x40000001, 1},
	{WHvRegisterGuestOsId, 1, 0x40000000, 1},
	{WHvRegisterVpAssistPage, 1, 0x40000073, 1},
	{WHvRegisterReferenceTsc, 1, 0x40000021, 1},
};

/* False: not one of these names. */
static bool msr_of(uint32_t name, uint32_t *msr)
{
	for (size_t i = 0; i < sizeof(msrs) / sizeof(msrs[0]); i++) {
		if (name - msrs[i].first >= msrs[i].n)
			continue;
		*msr = msrs[i].msr + (name - msrs[i].first) * msrs[i].step;
		return true;
	}
	return false;
}

static HRESULT msr_call(struct vp *v, uint32_t request, uint32_t msr, uint64_t *value)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry;
	} m = {.head = {.nmsrs = 1}, .entry = {.index = msr, .data = *value}};

	if (msr == NO_MSR || sys_ioctl(v->fd, request, &m) != 1)
		return DOUBLE_E_REGISTER;
	*value = m.entry.data;
	return S_OK;
}

/* While the partition's time stands still, so does the TSC: kvm_time.c takes off what has passed
 * when it goes on. */
static uint64_t stood_for(const struct vp *v)
{
	return v->p->suspended ? __builtin_ia32_rdtsc() - v->p->suspended_at : 0;
}

/* ---- debug registers, XCR0 ---- */

static __u64 *debug_register(struct kvm_debugregs *d, uint32_t name)
{
	if (name >= WHvX64RegisterDr0 && name <= WHvX64RegisterDr3)
		return &d->db[name - WHvX64RegisterDr0];
	return name == WHvX64RegisterDr6 ? &d->dr6 : name == WHvX64RegisterDr7 ? &d->dr7 : NULL;
}

static HRESULT xcr0(struct vp *v, bool set, uint64_t *value)
{
	struct kvm_xcrs x = {.nr_xcrs = 1, .xcrs = {{.xcr = 0, .value = *value}}};

	if (sys_ioctl(v->fd, set ? KVM_SET_XCRS : KVM_GET_XCRS, &x) < 0 || !x.nr_xcrs)
		return DOUBLE_E_REGISTER;
	*value = x.xcrs[0].value;
	return S_OK;
}

/* ---- activity ---- */

static HRESULT get_activity(struct vp *v, WHV_INTERNAL_ACTIVITY_REGISTER *a)
{
	struct kvm_mp_state m = {0};
	int r = sys_ioctl(v->fd, KVM_GET_MP_STATE, &m);

	a->StartupSuspend = m.mp_state == KVM_MP_STATE_UNINITIALIZED ||
			    m.mp_state == KVM_MP_STATE_INIT_RECEIVED;
	a->HaltSuspend = m.mp_state == KVM_MP_STATE_HALTED;
	return from_errno(r);
}

/* A processor that waits to be started has had its INIT: KVM begins one step before that, and takes
 * no start-up message then. */
static HRESULT set_activity(struct vp *v, const WHV_INTERNAL_ACTIVITY_REGISTER *a)
{
	struct kvm_mp_state m = {.mp_state = a->StartupSuspend ? KVM_MP_STATE_INIT_RECEIVED
					     : a->HaltSuspend  ? KVM_MP_STATE_HALTED
							       : KVM_MP_STATE_RUNNABLE};

	if (a->IdleSuspend || a->Reserved)
		return E_INVALIDARG;
	return from_errno(sys_ioctl(v->fd, KVM_SET_MP_STATE, &m));
}

/* ---- events ---- */

static void get_interruption(const struct kvm_vcpu_events *e,
			     WHV_X64_PENDING_INTERRUPTION_REGISTER *p)
{
	bool nmi = e->nmi.injected || e->nmi.pending;

	if (!nmi && !e->interrupt.injected)
		return;
	p->InterruptionPending = 1;
	p->InterruptionType = nmi ? EVENT_NMI : EVENT_INTERRUPT;
	p->InterruptionVector = nmi ? 2 : e->interrupt.nr;
}

static HRESULT set_interruption(struct kvm_vcpu_events *e,
				const WHV_X64_PENDING_INTERRUPTION_REGISTER *p)
{
	bool nmi = p->InterruptionType == EVENT_NMI;

	if (p->InterruptionPending &&
	    ((!nmi && p->InterruptionType != EVENT_INTERRUPT) || p->InterruptionVector > 255))
		return E_INVALIDARG;
	e->interrupt.injected = p->InterruptionPending && !nmi;
	e->interrupt.nr = (uint8_t)p->InterruptionVector;
	e->interrupt.soft = 0;
	e->nmi.injected = p->InterruptionPending && nmi;
	return S_OK;
}

static void get_exception(const struct kvm_vcpu_events *e, WHV_X64_PENDING_EXCEPTION_EVENT *w)
{
	if (!e->exception.injected)
		return;
	w->EventPending = 1;
	w->DeliverErrorCode = e->exception.has_error_code != 0;
	w->Vector = e->exception.nr;
	w->ErrorCode = e->exception.error_code;
}

/* ---- for kvm_vp.c ---- */

HRESULT state_get_register(struct vp *v, uint32_t name, WHV_REGISTER_VALUE *out)
{
	struct kvm_vcpu_events e = {0};
	struct kvm_debugregs d = {0};
	HRESULT hr;
	uint32_t msr;

	if (msr_of(name, &msr)) {
		hr = msr_call(v, KVM_GET_MSRS, msr, &out->Reg64);
		if (msr == MSR_TSC)
			out->Reg64 -= stood_for(v);
		return hr;
	}
	if (debug_register(&d, name)) {
		hr = from_errno(sys_ioctl(v->fd, KVM_GET_DEBUGREGS, &d));
		out->Reg64 = *debug_register(&d, name);
		return hr;
	}
	switch (name) {
	case WHvX64RegisterXCr0:
		return xcr0(v, false, &out->Reg64);
	case WHvRegisterInternalActivityState:
		return get_activity(v, &out->InternalActivity);
	case WHvX64RegisterPendingDebugException:
		return S_OK; /* what was owed has become an exception: set_debug() */
	case WHvRegisterPendingInterruption:
		hr = from_errno(sys_ioctl(v->fd, KVM_GET_VCPU_EVENTS, &e));
		get_interruption(&e, &out->PendingInterruption);
		return hr;
	case WHvRegisterPendingEvent:
		hr = from_errno(sys_ioctl(v->fd, KVM_GET_VCPU_EVENTS, &e));
		get_exception(&e, &out->ExceptionEvent);
		return hr;
	default:
		return complain(DOUBLE_E_REGISTER, "register 0x%x is not known here", name);
	}
}

static HRESULT set_debug_register(struct vp *v, uint32_t name, uint64_t value)
{
	struct kvm_debugregs d = {0};
	int r = sys_ioctl(v->fd, KVM_GET_DEBUGREGS, &d);

	*debug_register(&d, name) = value;
	return from_errno(r < 0 ? r : sys_ioctl(v->fd, KVM_SET_DEBUGREGS, &d));
}

HRESULT state_set_register(struct vp *v, struct kvm_vcpu_events *e, uint32_t name,
			   const WHV_REGISTER_VALUE *in, bool *changed_e)
{
	struct kvm_debugregs d = {0};
	uint64_t value = in->Reg64;
	uint32_t msr;

	if (msr_of(name, &msr)) {
		if (msr == MSR_TSC)
			value += stood_for(v);
		return msr_call(v, KVM_SET_MSRS, msr, &value);
	}
	if (debug_register(&d, name))
		return set_debug_register(v, name, value);
	switch (name) {
	case WHvX64RegisterXCr0:
		return xcr0(v, true, &value);
	case WHvRegisterInternalActivityState:
		return set_activity(v, &in->InternalActivity);
	case WHvRegisterPendingInterruption:
		*changed_e = true;
		return set_interruption(e, &in->PendingInterruption);
	default:
		return complain(DOUBLE_E_REGISTER, "register 0x%x is not known here", name);
	}
}

/* ---- XSAVE, the local APIC ---- */

static uint32_t xsave_len(const struct vp *v)
{
	int n = sys_ioctl(v->p->vm, KVM_CHECK_EXTENSION, (const void *)KVM_CAP_XSAVE2);

	return n > (int)XSAVE_LEN ? (uint32_t)n : XSAVE_LEN;
}

HRESULT WINAPI WHvGetVirtualProcessorXsaveState(WHV_PARTITION_HANDLE h, UINT32 index, VOID *buf,
						UINT32 size, UINT32 *written)
{
	struct vp *v = vp_of(h, index, "WHvGetVirtualProcessorXsaveState");
	_Alignas(64) uint8_t room[XSAVE_MAX] = {0};
	uint32_t n;
	int r;

	if (!v)
		return DOUBLE_E_NO_VP;
	n = xsave_len(v);
	if (n > sizeof(room))
		return complain(E_FAIL, "XSAVE of %u bytes", n);
	r = sys_ioctl(v->fd, n > XSAVE_LEN ? KVM_GET_XSAVE2 : KVM_GET_XSAVE, room);
	return r < 0 ? from_errno(r) : give(buf, size, written, room, n);
}

HRESULT WINAPI WHvSetVirtualProcessorXsaveState(WHV_PARTITION_HANDLE h, UINT32 index,
						const VOID *buf, UINT32 size)
{
	struct vp *v = vp_of(h, index, "WHvSetVirtualProcessorXsaveState");
	_Alignas(64) uint8_t room[XSAVE_MAX] = {0};

	if (!v)
		return DOUBLE_E_NO_VP;
	if (size != xsave_len(v) || size > sizeof(room))
		return E_INVALIDARG;
	memcpy(room, buf, size);
	return from_errno(sys_ioctl(v->fd, KVM_SET_XSAVE, room));
}

/* The page of its registers, as at its address in guest memory. */
HRESULT WINAPI WHvGetVirtualProcessorInterruptControllerState2(WHV_PARTITION_HANDLE h, UINT32 index,
							       VOID *buf, UINT32 size,
							       UINT32 *written)
{
	struct vp *v = vp_of(h, index, "WHvGetVirtualProcessorInterruptControllerState2");
	uint8_t page[LAPIC_PAGE] = {0};
	struct kvm_lapic_state l = {{0}};
	int r;

	if (!v)
		return DOUBLE_E_NO_VP;
	r = sys_ioctl(v->fd, KVM_GET_LAPIC, &l);
	memcpy(page, l.regs, sizeof(l.regs));
	return r < 0 ? from_errno(r) : give(buf, size, written, page, sizeof(page));
}

HRESULT WINAPI WHvSetVirtualProcessorInterruptControllerState2(WHV_PARTITION_HANDLE h, UINT32 index,
							       const VOID *buf, UINT32 size)
{
	struct vp *v = vp_of(h, index, "WHvSetVirtualProcessorInterruptControllerState2");
	struct kvm_lapic_state l = {{0}};

	if (!v)
		return DOUBLE_E_NO_VP;
	if (size != LAPIC_PAGE)
		return E_INVALIDARG;
	memcpy(l.regs, buf, sizeof(l.regs));
	return from_errno(sys_ioctl(v->fd, KVM_SET_LAPIC, &l));
}

/* ---- the partition ---- */

HRESULT state_set_time(struct partition *p, const void *buf, UINT32 size)
{
	struct kvm_clock_data c = {0};
	uint64_t time;

	if (size != sizeof(time))
		return E_INVALIDARG;
	memcpy(&time, buf, sizeof(time));
	c.clock = time * 100;
	AcquireSRWLockExclusive(&p->lock);
	if (p->suspended)
		p->clock = c;
	ReleaseSRWLockExclusive(&p->lock);
	return from_errno(sys_ioctl(p->vm, KVM_SET_CLOCK, &c));
}

HRESULT WINAPI WHvGetPartitionProperty(WHV_PARTITION_HANDLE h, WHV_PARTITION_PROPERTY_CODE code,
				       VOID *buf, UINT32 size, UINT32 *written)
{
	struct partition *p = partition_of(h, "WHvGetPartitionProperty");
	struct kvm_clock_data c = {0};
	uint64_t time;
	int r;

	if (!p)
		return E_INVALIDARG;
	if (code != WHvPartitionPropertyCodeReferenceTime)
		return complain(DOUBLE_E_UNKNOWN_PROPERTY, "WHvGetPartitionProperty 0x%x", code);
	r = sys_ioctl(p->vm, KVM_GET_CLOCK, &c);
	AcquireSRWLockShared(&p->lock);
	time = (p->suspended ? p->clock.clock : c.clock) / 100;
	ReleaseSRWLockShared(&p->lock);
	return r < 0 ? from_errno(r) : give(buf, size, written, &time, sizeof(time));
}
