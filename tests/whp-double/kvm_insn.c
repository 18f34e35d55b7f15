/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Where did the instruction begin whose write KVM reports? Every start up to 15 bytes before RIP is
 * tried with the backend's emulator. The right one makes the same access with the same data, and
 * ends with the registers that KVM has. Two starts that both do (a prefix without meaning) are the
 * same instruction to the guest.
 */
#include <string.h>

#include "hv/whp/x86.h"

#include "kvm.h"

#define INSN_MAX 15
#define RFLAGS_DF (1u << 10)

/* ---- the emulator's view ---- */

static uint8_t *find_ram(void *ctx, uint64_t gpa, unsigned len, bool write)
{
	const struct partition *p = ctx;

	for (unsigned i = 0; i < DOUBLE_SLOTS; i++) {
		const struct slot *s = &p->slot[i];

		if (!s->used || gpa < s->gpa || gpa - s->gpa >= s->size ||
		    len > s->size - (gpa - s->gpa))
			continue;
		if (write && !(s->flags & WHvMapGpaRangeFlagWrite))
			return NULL;
		return s->host + (gpa - s->gpa);
	}
	return NULL;
}

static struct hv_seg segment(const struct kvm_segment *k)
{
	return (struct hv_seg){
		.base = k->base,
		.limit = k->limit,
		.selector = k->selector,
		.attr = (uint16_t)(k->type | k->s << 4 | k->dpl << 5 | k->present << 7 |
				   k->avl << 8 | k->l << 9 | k->db << 10 | k->g << 11),
	};
}

/* A copy: in the order of the instruction encoding. */
static void load_emulator(struct vp *v, struct x86 *x, const struct kvm_regs *r,
			  const struct kvm_sregs *s)
{
	const uint64_t gpr[X86_GPRS] = {r->rax, r->rcx, r->rdx, r->rbx, r->rsp, r->rbp,
					r->rsi, r->rdi, r->r8,  r->r9,  r->r10, r->r11,
					r->r12, r->r13, r->r14, r->r15};
	const struct kvm_segment *seg[X86_SREGS] = {&s->es, &s->cs, &s->ss, &s->ds, &s->fs, &s->gs};

	memset(x, 0, sizeof(*x));
	memcpy(x->s.gpr, gpr, sizeof(gpr));
	for (unsigned i = 0; i < X86_SREGS; i++)
		x->s.seg[i] = segment(seg[i]);
	x->s.rip = r->rip;
	x->s.rflags = r->rflags;
	x->s.cr0 = s->cr0;
	x->s.cr3 = s->cr3;
	x->s.cr4 = s->cr4;
	x->s.efer = s->efer;
	x->s.phys_bits = 52;
	x->mem = (struct x86_mem){find_ram, v->p};
}

static bool same_registers(const struct x86 *x, const struct kvm_regs *r)
{
	const uint64_t gpr[X86_GPRS] = {r->rax, r->rcx, r->rdx, r->rbx, r->rsp, r->rbp,
					r->rsi, r->rdi, r->r8,  r->r9,  r->r10, r->r11,
					r->r12, r->r13, r->r14, r->r15};

	return memcmp(x->s.gpr, gpr, sizeof(gpr)) == 0 && x->s.rip == r->rip;
}

/* ---- what a string instruction has already changed ---- */

enum { MOVES_DI = 1, MOVES_SI = 2, COUNTS = 4 };

/* `width` low bytes of a register, as 16 and 32-bit addresses move them. */
static void add_low(__u64 *reg, int64_t by, unsigned width)
{
	uint64_t mask = width == 8 ? UINT64_MAX : (UINT64_C(1) << width * 8) - 1;

	*reg = (*reg & ~mask) | ((*reg + (uint64_t)by) & mask);
}

static struct kvm_regs undo_round(const struct kvm_regs *r, unsigned what, unsigned size,
				  unsigned width)
{
	int64_t back = r->rflags & RFLAGS_DF ? (int64_t)size : -(int64_t)size;
	struct kvm_regs b = *r;

	if (what & MOVES_DI)
		add_low(&b.rdi, back, width);
	if (what & MOVES_SI)
		add_low(&b.rsi, back, width);
	if (what & COUNTS)
		add_low(&b.rcx, 1, width);
	return b;
}

/* ---- trying a start ---- */

struct attempt {
	struct vp *v;
	const struct kvm_regs *after;
	const struct kvm_sregs *s;
	const struct store *store; /* one of them */
	const struct port_write *out;
};

static bool same_part(const struct x86_access *m, const struct store_part *p)
{
	return m->write && m->gpa == p->gpa && m->size == p->size &&
	       memcmp(m->data, p->data, m->size) == 0;
}

/* Runs on to the last part. */
static bool same_store(const struct store *st, struct x86 *x, int *result)
{
	for (unsigned i = 0; i < st->n; i++) {
		if (*result != X86_MMIO || !same_part(&x->log[x->nlog], &st->part[i]))
			return false;
		if (i + 1 < st->n)
			*result = x86_resume(x);
	}
	return true;
}

static bool same_out(const struct port_write *w, const struct x86 *x, int result)
{
	return result == X86_PIO && x->pio.out && x->pio.port == w->port &&
	       x->pio.size == w->size && memcmp(x->pio.data, w->data, w->size) == 0;
}

/* One that repeats has not moved RIP and is not at its end. */
static bool fits(const struct attempt *a, const struct kvm_regs *before, bool repeats)
{
	struct x86 x;
	int r;

	load_emulator(a->v, &x, before, a->s);
	r = x86_begin(&x, a->store ? X86_WHY_MMIO : X86_WHY_PIO, NULL, 0);
	if (!(a->store ? same_store(a->store, &x, &r) : same_out(a->out, &x, r)))
		return false;
	if (repeats || x.insn.rep)
		return repeats && x.insn.rep;
	r = x86_resume(&x); /* one that accesses more is another instruction */
	return r == X86_DONE && same_registers(&x, a->after);
}

static bool try_starts(const struct attempt *a, struct kvm_regs *before, uint64_t ip_mask)
{
	uint64_t end = before->rip;

	for (unsigned len = 1; len <= INSN_MAX; len++) {
		before->rip = (end - len) & ip_mask;
		if (fits(a, before, false))
			return true;
	}
	return false;
}

static bool find_start(const struct attempt *a, unsigned size, struct kvm_regs *r)
{
	static const unsigned moved[] = {0, MOVES_DI, MOVES_SI, MOVES_DI | MOVES_SI};
	uint64_t ip_mask = a->s->cs.l ? UINT64_MAX : UINT32_MAX;

	for (unsigned i = 0; i < 4; i++) {
		for (unsigned width = moved[i] ? 2 : 8; width <= 8; width *= 2) {
			struct kvm_regs b = undo_round(a->after, moved[i], size, width);
			bool found = try_starts(a, &b, ip_mask);

			if (!found && moved[i]) {
				b = undo_round(a->after, moved[i] | COUNTS, size, width);
				found = fits(a, &b, true);
			}
			if (found) {
				*r = b;
				return true;
			}
		}
	}
	return false;
}

/* The memory table stands still: the caller's lock would be held while vCPUs run otherwise. */
bool find_store(struct vp *v, const struct store *st, struct kvm_regs *r, const struct kvm_sregs *s)
{
	struct kvm_regs after = *r;
	struct attempt a = {v, &after, s, st, NULL};
	unsigned size = 0;
	bool found;

	for (unsigned i = 0; i < st->n; i++)
		size += st->part[i].size;
	AcquireSRWLockShared(&v->p->lock);
	found = st->n && find_start(&a, size, r);
	ReleaseSRWLockShared(&v->p->lock);
	return found;
}

/* ---- ports ---- */

static bool is_prefix(uint8_t b, bool code64)
{
	return b == 0x66 || b == 0x67 || b == 0xf2 || b == 0xf3 || b == 0x2e || b == 0x36 ||
	       b == 0x3e || b == 0x26 || b == 0x64 || b == 0x65 || b == 0xf0 ||
	       (code64 && b >> 4 == 4);
}

unsigned port_length(const uint8_t *code, unsigned n, bool code64, bool *string, bool *rep)
{
	unsigned i = 0;
	uint8_t op;

	*rep = false;
	for (; i < n && is_prefix(code[i], code64); i++)
		*rep = *rep || code[i] >> 1 == 0xf2 >> 1;
	if (i >= n)
		return 0;
	op = code[i];
	*string = op >= 0x6c && op <= 0x6f;
	if (*string || (op >= 0xec && op <= 0xef))
		return i + 1;
	return op >= 0xe4 && op <= 0xe7 && i + 1 < n ? i + 2 : 0;
}

/* A plain OUT at `before`, that ends at `end`: does it write this? */
static bool is_plain_out(struct vp *v, const struct kvm_regs *before, const struct kvm_sregs *s,
			 const struct port_write *w, uint64_t end)
{
	uint8_t code[16];
	bool string, rep, wide;
	unsigned have = peek_code(v, before, s, code, sizeof(code));
	unsigned len = port_length(code, have, s->cs.l, &string, &rep), size;
	uint8_t op = len ? code[len - 1] : 0;

	if (!len || string || before->rip + len != end)
		return false;
	wide = s->cs.db || s->cs.l;
	for (unsigned i = 0; i < len; i++)
		if (code[i] == 0x66) {
			wide = !(s->cs.db || s->cs.l);
			break;
		}
	size = wide ? 4 : 2;
	if (op == 0xee || op == 0xef)
		return w->port == (uint16_t)before->rdx && w->size == (op == 0xee ? 1 : size);
	return len >= 2 && (code[len - 2] == 0xe6 || code[len - 2] == 0xe7) && w->port == op &&
	       w->size == (code[len - 2] == 0xe6 ? 1 : size);
}

bool find_out(struct vp *v, const struct port_write *w, struct kvm_regs *r,
	      const struct kvm_sregs *s)
{
	struct kvm_regs after = *r;
	struct attempt a = {v, &after, s, NULL, w};
	bool found;

	for (unsigned len = 1; len <= 3; len++) {
		r->rip = after.rip - len;
		if (memcmp(w->data, &r->rax, w->size) == 0 && is_plain_out(v, r, s, w, after.rip))
			return true;
	}
	AcquireSRWLockShared(&v->p->lock);
	found = find_start(&a, w->size, r);
	ReleaseSRWLockShared(&v->p->lock);
	return found;
}

unsigned peek_code(struct vp *v, const struct kvm_regs *r, const struct kvm_sregs *s, uint8_t *buf,
		   unsigned n)
{
	struct kvm_translation t = {.linear_address = s->cs.base + r->rip};
	unsigned left = DOUBLE_PAGE - (unsigned)(t.linear_address % DOUBLE_PAGE);
	const uint8_t *p;

	n = n < left ? n : left;
	memset(buf, 0, n);
	if (!s->cs.l)
		t.linear_address &= UINT32_MAX;
	if (sys_ioctl(v->fd, KVM_TRANSLATE, &t) < 0 || !t.valid)
		return 0;
	AcquireSRWLockShared(&v->p->lock);
	p = find_ram(v->p, t.physical_address, n, false);
	if (p)
		memcpy(buf, p, n);
	ReleaseSRWLockShared(&v->p->lock);
	return p ? n : 0;
}
