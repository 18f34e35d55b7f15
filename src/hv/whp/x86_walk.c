/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * From an offset in a segment to a guest physical address: the segment's limit and type, then the
 * page tables in all their forms (SDM vol. 3, 3.4, 4.3 to 4.6), with every permission that a
 * processor checks but protection keys.
 *
 * The tables are read once, entry by entry, into copies. Accessed and dirty bits are set at the
 * end, each only if its entry is still the one that was read; if not, the walk begins again.
 */
#include <string.h>

#include "hv/whp/x86_internal.h"

#define ATTR_WRITABLE (1u << 1) /* data; for code: readable */
#define ATTR_EXPAND_DOWN (1u << 2)
#define ATTR_CODE (1u << 3)
#define ATTR_P (1u << 7)
#define ATTR_DB (1u << 10)

#define PTE_P (1ull << 0)
#define PTE_W (1ull << 1)
#define PTE_U (1ull << 2)
#define PTE_A (1ull << 5)
#define PTE_D (1ull << 6)
#define PTE_PS (1ull << 7)
#define PTE_NX (1ull << 63)

#define PF_P (1u << 0)
#define PF_W (1u << 1)
#define PF_U (1u << 2)
#define PF_RSVD (1u << 3)
#define PF_I (1u << 4)

#define MAX_LEVELS 5
#define WALK_TRIES 4 /* how often a guest may change an entry under our hands */

/* ---- segments ---- */

static int bad_segment(struct x86 *x, unsigned seg)
{
	return x86_raise_code(x, seg == X86_SS ? X86_VEC_SS : X86_VEC_GP, 0);
}

static bool is_canonical(const struct x86_state *s, uint64_t a)
{
	unsigned shift = s->cr4 & CR4_LA57 ? 7 : 16;

	return (uint64_t)((int64_t)(a << shift) >> shift) == a;
}

static int linear_64(struct x86 *x, unsigned seg, uint64_t off, unsigned size, uint64_t *linear)
{
	*linear = off + (seg == X86_FS || seg == X86_GS ? x->s.seg[seg].base : 0);
	if (!is_canonical(&x->s, *linear) || !is_canonical(&x->s, *linear + size - 1))
		return bad_segment(x, seg);
	return X86_DONE;
}

static bool type_allows(const struct x86_state *s, const struct hv_seg *g,
			enum x86_access_kind kind)
{
	bool code = g->attr & ATTR_CODE, bit1 = g->attr & ATTR_WRITABLE;

	if (kind == X86_FETCH)
		return true;
	if (!(g->attr & ATTR_P))
		return false;
	if (kind == X86_WRITE)
		return bit1 && !(code && x86_is_protected(s));
	return !code || bit1;
}

static bool inside_limit(const struct hv_seg *g, uint64_t off, unsigned size)
{
	uint64_t last = off + size - 1;
	uint64_t top = g->attr & ATTR_DB ? UINT32_MAX : UINT16_MAX;

	if (last < off || last > UINT32_MAX)
		return false;
	if (!(g->attr & ATTR_CODE) && (g->attr & ATTR_EXPAND_DOWN))
		return off > g->limit && last <= top;
	return last <= g->limit;
}

int x86_linear(struct x86 *x, unsigned seg, uint64_t off, unsigned size, enum x86_access_kind kind,
	       uint64_t *linear)
{
	const struct hv_seg *g = &x->s.seg[seg];

	if (x86_is_64(&x->s))
		return linear_64(x, seg, off, size, linear);
	if (!type_allows(&x->s, g, kind) || !inside_limit(g, off, size))
		return bad_segment(x, seg);
	*linear = (g->base + off) & UINT32_MAX;
	return X86_DONE;
}

/* ---- pages ---- */

struct format {
	uint8_t levels;
	uint8_t index_bits;
	uint8_t entry_size;
	uint64_t root_mask;
	uint64_t addr_mask; /* of an entry */
	uint64_t reserved;  /* in every entry */
	bool pae_root;      /* the highest level has a form of its own */
};

struct step {
	uint8_t *at; /* the entry in host memory; NULL: cannot be written */
	uint64_t entry;
};

struct walk {
	struct format f;
	struct step step[MAX_LEVELS];
	unsigned nsteps;
	uint64_t rights; /* PTE_W and PTE_U of all levels, PTE_NX of any */
	unsigned page_bits;
};

static struct format format_of(const struct x86_state *s)
{
	uint64_t phys = (UINT64_C(1) << s->phys_bits) - 1;
	struct format f = {
		.levels = 2,
		.index_bits = 10,
		.entry_size = 4,
		.root_mask = 0xfffff000,
		.addr_mask = 0xfffff000,
	};

	if (!(s->cr4 & CR4_PAE))
		return f;
	f.index_bits = 9;
	f.entry_size = 8;
	f.addr_mask = phys & ~UINT64_C(0xfff);
	f.reserved = (UINT64_C(1) << 52) - 1 - phys;
	if (!(s->efer & EFER_NXE))
		f.reserved |= PTE_NX;
	if (s->efer & EFER_LMA) {
		f.levels = s->cr4 & CR4_LA57 ? 5 : 4;
		f.root_mask = f.addr_mask;
	} else {
		f.levels = 3;
		f.root_mask = 0xffffffe0;
		f.pae_root = true;
	}
	return f;
}

static int page_fault(struct x86 *x, uint64_t linear, enum x86_access_kind kind, uint32_t code)
{
	if (kind == X86_WRITE)
		code |= PF_W;
	if (x86_cpl(&x->s) == 3)
		code |= PF_U;
	if (kind == X86_FETCH && ((x->s.efer & EFER_NXE) || (x->s.cr4 & CR4_SMEP)))
		code |= PF_I;
	x86_raise_code(x, X86_VEC_PF, code);
	x->fault.cr2 = linear;
	return X86_FAULT;
}

static bool is_leaf(const struct x86_state *s, const struct format *f, unsigned level, uint64_t e)
{
	if (level == 1)
		return true;
	if (!(e & PTE_PS))
		return false;
	if (f->entry_size == 4)
		return s->cr4 & CR4_PSE;
	return level == 2 || (level == 3 && !f->pae_root);
}

/* Bits that must be zero at this level, given that the entry is a leaf or not. */
static uint64_t reserved_bits(const struct format *f, unsigned level, bool leaf)
{
	uint64_t r = f->reserved;

	if (f->entry_size == 4)
		return leaf && level == 2 ? 1u << 21 : 0;
	if (f->pae_root && level == 3)
		return r | PTE_NX | 0x1e6;
	if (level >= 4)
		r |= PTE_PS;
	if (leaf && level > 1) /* the address of a large page is aligned; bit 12 is PAT */
		r |= ((UINT64_C(1) << (12 + f->index_bits * (level - 1))) - 1) & ~UINT64_C(0x1fff);
	return r;
}

static bool read_entry(struct x86 *x, struct walk *w, uint64_t gpa, struct step *st)
{
	const uint8_t *p = x->mem.ram(x->mem.ctx, gpa, w->f.entry_size, false);
	uint32_t e32;

	if (!p)
		return false;
	st->at = x->mem.ram(x->mem.ctx, gpa, w->f.entry_size, true);
	if (w->f.entry_size == 8) {
		st->entry = __atomic_load_n((const uint64_t *)(const void *)p, __ATOMIC_RELAXED);
	} else {
		e32 = __atomic_load_n((const uint32_t *)(const void *)p, __ATOMIC_RELAXED);
		st->entry = e32;
	}
	return true;
}

/* Down to the leaf; fills w->step. */
static int descend(struct x86 *x, struct walk *w, uint64_t linear, enum x86_access_kind kind)
{
	uint64_t table = x->s.cr3 & w->f.root_mask;

	for (unsigned level = w->f.levels; level >= 1; level--) {
		unsigned shift = 12 + w->f.index_bits * (level - 1);
		uint64_t index = linear >> shift & ((1u << w->f.index_bits) - 1);
		struct step *st = &w->step[w->nsteps];
		bool leaf;

		if (!read_entry(x, w, table + index * w->f.entry_size, st))
			return page_fault(x, linear, kind, 0);
		if (!(st->entry & PTE_P))
			return page_fault(x, linear, kind, 0);
		leaf = is_leaf(&x->s, &w->f, level, st->entry);
		if (st->entry & reserved_bits(&w->f, level, leaf))
			return page_fault(x, linear, kind, PF_P | PF_RSVD);
		w->page_bits = shift;
		if (!(w->f.pae_root && level == 3)) {
			w->rights &= st->entry | PTE_NX;
			w->rights |= st->entry & PTE_NX;
			w->nsteps++;
		}
		if (leaf)
			return X86_DONE;
		table = st->entry & w->f.addr_mask;
	}
	return X86_UNKNOWN; /* level 1 is always a leaf */
}

static bool allowed(const struct x86_state *s, uint64_t rights, enum x86_access_kind kind)
{
	bool user = x86_cpl(s) == 3, user_page = rights & PTE_U;

	if (user && !user_page)
		return false;
	if (kind == X86_FETCH)
		return !(rights & PTE_NX) && (user || !user_page || !(s->cr4 & CR4_SMEP));
	if (!user && user_page && (s->cr4 & CR4_SMAP) && !(s->rflags & RFLAGS_AC))
		return false;
	return kind != X86_WRITE || (rights & PTE_W) || (!user && !(s->cr0 & CR0_WP));
}

static bool set_bits(const struct walk *w, const struct step *st, uint64_t bits)
{
	uint32_t old32 = (uint32_t)st->entry;
	uint64_t old = st->entry;

	if ((st->entry & bits) == bits || !st->at)
		return true;
	if (w->f.entry_size == 8)
		return __atomic_compare_exchange_n((uint64_t *)(void *)st->at, &old, old | bits,
						   false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
	return __atomic_compare_exchange_n((uint32_t *)(void *)st->at, &old32,
					   old32 | (uint32_t)bits, false, __ATOMIC_SEQ_CST,
					   __ATOMIC_RELAXED);
}

static bool mark(const struct walk *w, enum x86_access_kind kind)
{
	for (unsigned i = 0; i < w->nsteps; i++) {
		bool leaf = i + 1 == w->nsteps;

		if (!set_bits(w, &w->step[i], PTE_A | (leaf && kind == X86_WRITE ? PTE_D : 0)))
			return false;
	}
	return true;
}

static uint64_t physical(const struct walk *w, uint64_t linear)
{
	uint64_t e = w->step[w->nsteps - 1].entry;
	uint64_t offset = (UINT64_C(1) << w->page_bits) - 1;
	uint64_t frame = e & w->f.addr_mask & ~offset;

	if (w->f.entry_size == 4 && w->page_bits > 12) /* bits 32 to 39 of a 4 MiB page */
		frame |= (e >> 13 & 0xff) << 32;
	return frame | (linear & offset);
}

int x86_translate(struct x86 *x, uint64_t linear, enum x86_access_kind kind, uint64_t *gpa)
{
	*gpa = linear;
	if (!(x->s.cr0 & CR0_PG))
		return X86_DONE;
	for (unsigned i = 0; i < WALK_TRIES; i++) {
		struct walk w = {.f = format_of(&x->s), .rights = PTE_W | PTE_U};
		int r = descend(x, &w, linear, kind);

		if (r != X86_DONE)
			return r;
		if (!allowed(&x->s, w.rights, kind))
			return page_fault(x, linear, kind, PF_P);
		*gpa = physical(&w, linear);
		if (mark(&w, kind))
			return X86_DONE;
	}
	return X86_RETRY;
}
