/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * WHvRunVirtualProcessor: KVM_RUN, then KVM's exit as the platform's, with RIP at the instruction.
 * One function per exit, found through a table.
 */
#include <errno.h>
#include <string.h>

#include "kvm.h"

#define FINISH_ROUNDS 5000 /* of one string instruction: KVM does at most a page at a time */

typedef HRESULT exit_fn(struct vp *v, WHV_RUN_VP_EXIT_CONTEXT *x);

struct registers {
	struct kvm_regs r;
	struct kvm_sregs s;
};

static HRESULT get_registers(struct vp *v, struct registers *g)
{
	int r;

	memset(g, 0, sizeof(*g));
	r = sys_ioctl(v->fd, KVM_GET_REGS, &g->r);
	if (r >= 0)
		r = sys_ioctl(v->fd, KVM_GET_SREGS, &g->s);
	return from_errno(r);
}

/* ---- KVM's half-done instruction ---- */

static void answer_with_zeros(struct vp *v)
{
	struct kvm_run *run = v->run;

	if (run->exit_reason == KVM_EXIT_IO && run->io.direction == KVM_EXIT_IO_IN)
		memset((uint8_t *)run + run->io.data_offset, 0,
		       (size_t)run->io.size * run->io.count);
	else if (run->exit_reason == KVM_EXIT_MMIO && !run->mmio.is_write)
		memset(run->mmio.data, 0, sizeof(run->mmio.data));
	else if (run->exit_reason == KVM_EXIT_X86_RDMSR || run->exit_reason == KVM_EXIT_X86_WRMSR)
		run->msr.error = 0;
}

static void collect(const struct vp *v, struct store *st)
{
	struct store_part *p = &st->part[st->n];

	if (v->run->exit_reason != KVM_EXIT_MMIO || !v->run->mmio.is_write || st->n == STORE_PARTS)
		return;
	p->gpa = v->run->mmio.phys_addr;
	p->size = (uint8_t)v->run->mmio.len;
	memcpy(p->data, v->run->mmio.data, sizeof(p->data));
	st->n++;
}

/* Let KVM end it without entering the guest. All registers may be different afterwards. What it
 * writes to devices goes to `st`, if that is not NULL. */
static HRESULT finish(struct vp *v, struct store *st)
{
	int r = 0;

	for (unsigned i = 0; i < FINISH_ROUNDS && r != -EINTR; i++) {
		if (st)
			collect(v, st);
		answer_with_zeros(v);
		v->run->immediate_exit = 1;
		r = sys_ioctl(v->fd, KVM_RUN, NULL);
		if (r < 0 && r != -EINTR)
			return complain(from_errno(r), "KVM_RUN to finish: errno %d", -r);
	}
	v->run->immediate_exit = 0;
	return r == -EINTR ? S_OK : complain(E_FAIL, "KVM does not finish an instruction");
}

static HRESULT put_back(struct vp *v, const struct kvm_regs *r)
{
	return from_errno(sys_ioctl(v->fd, KVM_SET_REGS, r));
}

/* ---- instruction bytes ---- */

/* The platform may give fewer than there are. Every fourth exit gives some or none, so that real
 * guests use the backend's own fetch. */
static unsigned given_bytes(const struct vp *v, unsigned have)
{
	unsigned n = (unsigned)(v->exits / 4 % 8);

	return v->exits % 4 || n >= have ? have : n;
}

static unsigned fill_bytes(struct vp *v, const struct registers *g, UINT8 *count, UINT8 *bytes)
{
	unsigned have = peek_code(v, &g->r, &g->s, bytes, 16);

	*count = (UINT8)given_bytes(v, have);
	memset(bytes + *count, 0, 16u - *count);
	return have;
}

/* ---- exits ---- */

static HRESULT rewind_store(struct vp *v, struct registers *g)
{
	struct store st = {.n = 0};
	HRESULT hr = finish(v, &st);

	if (hr != S_OK || find_store(v, &st, &g->r, &g->s))
		return hr;
	return complain(
		E_FAIL,
		"no instruction before RIP 0x%llx stores %u bytes 0x%llx at 0x%llx, %u parts",
		(unsigned long long)g->r.rip, st.part[0].size,
		*(unsigned long long *)(void *)st.part[0].data, (unsigned long long)st.part[0].gpa,
		st.n);
}

static HRESULT on_mmio(struct vp *v, WHV_RUN_VP_EXIT_CONTEXT *x)
{
	uint64_t gpa = v->run->mmio.phys_addr;
	bool write = v->run->mmio.is_write;
	struct registers g;
	HRESULT hr = get_registers(v, &g);

	if (hr == S_OK)
		hr = write ? rewind_store(v, &g) : finish(v, NULL);
	if (hr == S_OK)
		hr = put_back(v, &g.r);
	fill_context(&g.r, &g.s, x);
	x->ExitReason = WHvRunVpExitReasonMemoryAccess;
	x->MemoryAccess.AccessInfo.AccessType = write ? WHvMemoryAccessWrite : WHvMemoryAccessRead;
	x->MemoryAccess.AccessInfo.GpaUnmapped = 1;
	x->MemoryAccess.Gpa = gpa;
	fill_bytes(v, &g, &x->MemoryAccess.InstructionByteCount, x->MemoryAccess.InstructionBytes);
	return hr;
}

/* Where an OUT began: KVM's quick way has not moved RIP yet, its emulator has. */
static HRESULT rewind_out(struct vp *v, const struct port_write *w, struct registers *g)
{
	struct kvm_regs after;
	HRESULT hr = finish(v, NULL);

	if (hr == S_OK)
		hr = from_errno(sys_ioctl(v->fd, KVM_GET_REGS, &after));
	if (hr != S_OK || after.rip != g->r.rip)
		return hr;
	if (!find_out(v, w, &g->r, &g->s))
		return complain(E_FAIL, "no instruction before RIP 0x%llx writes port 0x%x",
				(unsigned long long)g->r.rip, w->port);
	return S_OK;
}

static HRESULT fill_port(struct vp *v, const struct port_write *w, bool out,
			 const struct registers *g, WHV_RUN_VP_EXIT_CONTEXT *x)
{
	WHV_X64_IO_PORT_ACCESS_CONTEXT *p = &x->IoPortAccess;
	bool string = false, rep = false;
	uint8_t code[16];
	unsigned have = peek_code(v, &g->r, &g->s, code, sizeof(code));
	unsigned len = port_length(code, have, g->s.cs.l, &string, &rep);

	fill_context(&g->r, &g->s, x);
	x->ExitReason = WHvRunVpExitReasonX64IoPortAccess;
	x->VpContext.InstructionLength = (UINT8)(len & 15);
	p->AccessInfo.AsUINT32 =
		(UINT32)out | (UINT32)w->size << 1 | (UINT32)string << 4 | (UINT32)rep << 5;
	p->PortNumber = w->port;
	p->Rax = g->r.rax;
	p->Rcx = g->r.rcx;
	p->Rsi = g->r.rsi;
	p->Rdi = g->r.rdi;
	segment_to_whp(&g->s.ds, &p->Ds);
	segment_to_whp(&g->s.es, &p->Es);
	fill_bytes(v, g, &p->InstructionByteCount, p->InstructionBytes);
	return len ? S_OK
		   : complain(E_FAIL, "port 0x%x: no port instruction at RIP 0x%llx", w->port,
			      (unsigned long long)g->r.rip);
}

static HRESULT on_io(struct vp *v, WHV_RUN_VP_EXIT_CONTEXT *x)
{
	const struct kvm_run *run = v->run;
	struct port_write w = {.port = run->io.port, .size = run->io.size};
	bool out = run->io.direction == KVM_EXIT_IO_OUT;
	struct registers g;
	HRESULT hr = get_registers(v, &g);

	memcpy(w.data, (const uint8_t *)run + run->io.data_offset, w.size & 7);
	if (hr == S_OK)
		hr = out ? rewind_out(v, &w, &g) : finish(v, NULL);
	if (hr == S_OK)
		hr = put_back(v, &g.r);
	return hr == S_OK ? fill_port(v, &w, out, &g, x) : hr;
}

static HRESULT on_msr(struct vp *v, WHV_RUN_VP_EXIT_CONTEXT *x)
{
	bool write = v->run->exit_reason == KVM_EXIT_X86_WRMSR;
	uint32_t index = v->run->msr.index;
	struct registers g;
	HRESULT hr = get_registers(v, &g);

	if (hr == S_OK)
		hr = finish(v, NULL);
	if (hr == S_OK)
		hr = put_back(v, &g.r);
	fill_context(&g.r, &g.s, x);
	x->ExitReason = WHvRunVpExitReasonX64MsrAccess;
	x->VpContext.InstructionLength = 2;
	x->MsrAccess.AccessInfo.IsWrite = write;
	x->MsrAccess.MsrNumber = index;
	x->MsrAccess.Rax = g.r.rax;
	x->MsrAccess.Rdx = g.r.rdx;
	return hr;
}

static HRESULT on_eoi(struct vp *v, WHV_RUN_VP_EXIT_CONTEXT *x)
{
	uint8_t vector = v->run->eoi.vector;
	struct registers g;
	HRESULT hr = get_registers(v, &g);

	if (hr == S_OK)
		hr = finish(v, NULL);
	fill_context(&g.r, &g.s, x);
	x->ExitReason = WHvRunVpExitReasonX64ApicEoi;
	x->ApicEoi.InterruptVector = vector;
	return hr;
}

static HRESULT on_shutdown(struct vp *v, WHV_RUN_VP_EXIT_CONTEXT *x)
{
	struct registers g;
	HRESULT hr = get_registers(v, &g);

	fill_context(&g.r, &g.s, x);
	x->ExitReason = WHvRunVpExitReasonUnrecoverableException;
	return hr;
}

/*
 * What KVM cannot emulate is an access of the instruction at RIP, or the fetch of it: the platform
 * says that as a memory access. KVM does not say where.
 */
static HRESULT on_internal_error(struct vp *v, WHV_RUN_VP_EXIT_CONTEXT *x)
{
	struct registers g;
	HRESULT hr = get_registers(v, &g);

	if (v->run->internal.suberror != KVM_INTERNAL_ERROR_EMULATION)
		return complain(E_FAIL, "KVM internal error %u", v->run->internal.suberror);
	fill_context(&g.r, &g.s, x);
	x->ExitReason = WHvRunVpExitReasonMemoryAccess;
	x->MemoryAccess.AccessInfo.GpaUnmapped = 1;
	if (!fill_bytes(v, &g, &x->MemoryAccess.InstructionByteCount,
			x->MemoryAccess.InstructionBytes))
		x->MemoryAccess.AccessInfo.AccessType = WHvMemoryAccessExecute;
	return hr;
}

static exit_fn *handler(uint32_t reason)
{
	static const struct {
		uint32_t reason;
		exit_fn *fn;
	} table[] = {
		{KVM_EXIT_MMIO, on_mmio},
		{KVM_EXIT_IO, on_io},
		{KVM_EXIT_X86_RDMSR, on_msr},
		{KVM_EXIT_X86_WRMSR, on_msr},
		{KVM_EXIT_IOAPIC_EOI, on_eoi},
		{KVM_EXIT_SHUTDOWN, on_shutdown},
		{KVM_EXIT_INTERNAL_ERROR, on_internal_error},
	};

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		if (table[i].reason == reason)
			return table[i].fn;
	return NULL;
}

/* ---- running ---- */

static bool take_cancel(struct vp *v, WHV_RUN_VP_EXIT_CONTEXT *x)
{
	struct registers g;

	if (!InterlockedExchange(&v->canceled, 0))
		return false;
	get_registers(v, &g);
	fill_context(&g.r, &g.s, x);
	x->ExitReason = WHvRunVpExitReasonCanceled;
	x->CancelReason.CancelReason = WhvRunVpCancelReasonUser;
	return true;
}

/* The kick is blocked in the thread and open in KVM_RUN; what the thread blocks else stays so. */
static HRESULT own_by_this_thread(struct vp *v)
{
	struct {
		struct kvm_signal_mask head;
		uint8_t bytes[8];
	} m = {.head = {.len = 8}};
	int tid = sys_gettid();
	uint64_t others;

	if (v->masked_tid == tid)
		return S_OK;
	sys_block_kick(&others);
	memcpy(&m.head.sigset, &others, sizeof(others));
	v->masked_tid = tid;
	return from_errno(sys_ioctl(v->fd, KVM_SET_SIGNAL_MASK, &m));
}

/* KVM_RUN once. A signal that comes before it is pending, and ends it at once. */
static int enter(struct vp *v)
{
	int r;

	InterlockedExchange(&v->tid, v->masked_tid);
	r = InterlockedCompareExchange(&v->canceled, 0, 0) ? -EINTR
							   : sys_ioctl(v->fd, KVM_RUN, NULL);
	InterlockedExchange(&v->tid, 0);
	if (r == -EINTR)
		sys_drain_kicks();
	return r;
}

static HRESULT run(struct vp *v, WHV_RUN_VP_EXIT_CONTEXT *x)
{
	for (;;) {
		exit_fn *fn;
		int r;

		if (take_cancel(v, x))
			return S_OK;
		r = enter(v);
		if (r == -EINTR || r == -EAGAIN) /* a cancel, wine's own signals, a start signal */
			continue;
		if (r < 0)
			return complain(from_errno(r), "KVM_RUN: errno %d", -r);
		v->exits++;
		fn = handler(v->run->exit_reason);
		return fn ? fn(v, x) : complain(E_FAIL, "KVM exit reason %u", v->run->exit_reason);
	}
}

HRESULT WINAPI WHvRunVirtualProcessor(WHV_PARTITION_HANDLE h, UINT32 index, VOID *out, UINT32 size)
{
	struct vp *v = vp_of(h, index, "WHvRunVirtualProcessor");
	WHV_RUN_VP_EXIT_CONTEXT *x = out;
	HRESULT hr;

	if (!v || size != sizeof(*x))
		return complain(E_INVALIDARG, "WHvRunVirtualProcessor: exit of %u bytes", size);
	memset(x, 0, sizeof(*x));
	hr = own_by_this_thread(v);
	if (hr != S_OK || cpuid_ask(v, x, &hr))
		return hr;
	time_goes_on(v->p);
	return run(v, x);
}
