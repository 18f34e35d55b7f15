/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The emulator's edges, by hand: where bytes come from, what is refused, faults and their error
 * codes, page tables in all forms, segments, ports, what a guest that changes things meanwhile
 * gets. That the operations compute the right thing is test_x86native's and test_x86kvm's business.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#include "hv/whp/x86_internal.h"
#include "x86dev.h"
#include "x86gen.h"

#define RAM 0x20000u
#define CODE 0x1000u
#define TABLES 0x8000u
#define HOLE 0x80000u /* device */
#define ROM 0x40000u

struct fixture {
	uint8_t *ram, *rom;
	struct world w;
	struct x86 x;
};

static struct hv_seg flat(uint16_t attr)
{
	return (struct hv_seg){.limit = UINT32_MAX, .selector = 8, .attr = attr};
}

static void open_world(struct fixture *f)
{
	memset(f, 0, sizeof(*f));
	f->ram = calloc(1, RAM);
	f->rom = calloc(1, 4096);
	ck_assert(f->ram && f->rom);
	f->w.ram[0] = (struct world_ram){0, RAM, f->ram, false};
	f->w.ram[1] = (struct world_ram){ROM, 4096, f->rom, true};
}

static void close_world(struct fixture *f)
{
	free(f->ram);
	free(f->rom);
}

/* bits: 16 real mode, 32 protected without paging, 64 without paging (no processor can, ours can)
 */
static void set_mode(struct fixture *f, unsigned bits)
{
	struct x86_state *s = &f->x.s;

	memset(&f->x, 0, sizeof(f->x));
	s->phys_bits = 40;
	s->rip = CODE;
	s->rflags = 2;
	s->cr0 = bits == 16 ? 0 : CR0_PE;
	s->efer = bits == 64 ? EFER_LMA : 0;
	for (unsigned i = 0; i < X86_SREGS; i++)
		s->seg[i] = flat(bits == 16 ? 0x93 : 0xc93);
	s->seg[X86_CS] = flat(bits == 16 ? 0x9b : bits == 32 ? 0xc9b : 0xa9b);
	for (unsigned i = 0; bits == 16 && i < X86_SREGS; i++)
		s->seg[i].limit = 0xffff;
}

static void set_cpl(struct fixture *f, unsigned cpl)
{
	f->x.s.seg[X86_SS].attr = (uint16_t)((f->x.s.seg[X86_SS].attr & ~0x60u) | cpl << 5);
}

#define STEP(f, why, ...)                                                \
	({                                                               \
		const uint8_t code_[] = {__VA_ARGS__};                   \
		memcpy((f)->ram + CODE, code_, sizeof(code_));           \
		world_step(&(f)->w, &(f)->x, why, code_, sizeof(code_)); \
	})
#define MMIO(f, ...) STEP(f, X86_WHY_MMIO, __VA_ARGS__)

static void expect_fault(const struct fixture *f, int r, unsigned vector, bool has_code,
			 uint32_t code)
{
	ck_assert_int_eq(r, X86_FAULT);
	ck_assert_uint_eq(f->x.fault.vector, vector);
	ck_assert(f->x.fault.has_code == has_code);
	ck_assert_uint_eq(f->x.fault.code, code);
	ck_assert_uint_eq(f->x.changed, 0);
	ck_assert_uint_eq(f->w.nlog, 0);
}

/* ---- bytes ---- */

START_TEST(store_and_load)
{
	struct fixture f;

	open_world(&f);
	set_mode(&f, 64);
	f.x.s.gpr[X86_RBX] = HOLE;
	ck_assert_int_eq(MMIO(&f, 0xc7, 0x43, 0x10, 0x78, 0x56, 0x34, 0x12), X86_DONE);
	ck_assert_uint_eq(f.w.nlog, 1);
	ck_assert(f.w.log[0].write);
	ck_assert_uint_eq(f.w.log[0].gpa, HOLE + 0x10);
	ck_assert_uint_eq(f.w.log[0].size, 4);
	ck_assert_mem_eq(f.w.log[0].data, "\x78\x56\x34\x12", 4);
	ck_assert_uint_eq(f.x.s.rip, CODE + 7);
	ck_assert_uint_eq(f.x.changed & 0xffff, 0);
	f.x.s.rip = CODE;
	f.x.s.gpr[X86_RAX] = UINT64_MAX;
	ck_assert_int_eq(MMIO(&f, 0x8b, 0x03), X86_DONE);
	ck_assert_uint_eq(f.x.s.gpr[X86_RAX], (uint32_t)world_pattern(HOLE, 1));
	ck_assert_uint_eq(f.x.changed & 0xffff, 1u << X86_RAX);
	close_world(&f);
}
END_TEST

/* All ways to give the bytes: all, some, none; and code that crosses into another page. */
START_TEST(fetch_continues)
{
	static const uint8_t code[] = {0xc7, 0x43, 0x10, 0x78, 0x56, 0x34, 0x12};
	struct fixture f;

	open_world(&f);
	for (unsigned at = 0x1ff8; at <= 0x2000; at++) {
		for (unsigned n = 0; n <= sizeof(code); n++) {
			set_mode(&f, 64);
			f.w.nlog = 0;
			f.x.s.rip = at;
			f.x.s.gpr[X86_RBX] = HOLE;
			memcpy(f.ram + at, code, sizeof(code));
			ck_assert_int_eq(world_step(&f.w, &f.x, X86_WHY_MMIO, code, n), X86_DONE);
			ck_assert_uint_eq(f.w.nlog, 1);
			ck_assert_mem_eq(f.w.log[0].data, code + 3, 4);
			ck_assert_uint_eq(f.x.s.rip, at + sizeof(code));
		}
	}
	close_world(&f);
}
END_TEST

START_TEST(fetch_refused)
{
	struct fixture f;

	open_world(&f);
	/* Code in a device. */
	set_mode(&f, 64);
	f.x.s.rip = HOLE;
	ck_assert_int_eq(world_step(&f.w, &f.x, X86_WHY_MMIO, NULL, 0), X86_UNKNOWN);
	/* Behind the limit of the code segment; the given bytes are not looked up. */
	set_mode(&f, 32);
	f.x.s.seg[X86_CS].limit = CODE + 1;
	expect_fault(&f, world_step(&f.w, &f.x, X86_WHY_MMIO, (const uint8_t[]){0xc7, 0x43}, 2),
		     X86_VEC_GP, true, 0);
	/* More than 15 bytes. */
	set_mode(&f, 64);
	memset(f.ram + CODE, 0x66, 20);
	expect_fault(&f, world_step(&f.w, &f.x, X86_WHY_MMIO, NULL, 0), X86_VEC_GP, true, 0);
	/* In real mode there is no error code. */
	set_mode(&f, 16);
	expect_fault(&f, world_step(&f.w, &f.x, X86_WHY_MMIO, NULL, 0), X86_VEC_GP, false, 0);
	close_world(&f);
}
END_TEST

START_TEST(prefixes)
{
	struct fixture f;

	open_world(&f);
	set_mode(&f, 64);
	f.x.s.gpr[X86_RBX] = HOLE;
	/* REX that another prefix follows does not count: 4 bytes, not 8. */
	ck_assert_int_eq(MMIO(&f, 0x48, 0x3e, 0x89, 0x03), X86_DONE);
	ck_assert_uint_eq(f.w.log[0].size, 4);
	/* Two of them: the last one. */
	f.x.s.rip = CODE;
	ck_assert_int_eq(MMIO(&f, 0x40, 0x48, 0x89, 0x03), X86_DONE);
	ck_assert_uint_eq(f.w.log[1].size, 8);
	/* FS has a base in 64-bit code, DS has not. */
	f.x.s.seg[X86_FS].base = 0x40;
	f.x.s.seg[X86_DS].base = 0x80;
	f.x.s.rip = CODE;
	ck_assert_int_eq(MMIO(&f, 0x64, 0x89, 0x03), X86_DONE);
	ck_assert_uint_eq(f.w.log[2].gpa, HOLE + 0x40);
	f.x.s.rip = CODE;
	ck_assert_int_eq(MMIO(&f, 0x3e, 0x89, 0x03), X86_DONE);
	ck_assert_uint_eq(f.w.log[3].gpa, HOLE);
	/* In 32-bit code both have. */
	set_mode(&f, 32);
	f.x.s.gpr[X86_RBX] = HOLE;
	f.x.s.seg[X86_DS].base = 0x80;
	ck_assert_int_eq(MMIO(&f, 0x89, 0x03), X86_DONE);
	ck_assert_uint_eq(f.w.log[4].gpa, HOLE + 0x80);
	close_world(&f);
}
END_TEST

START_TEST(refused)
{
	struct fixture f;

	open_world(&f);
	set_mode(&f, 64);
	f.x.s.gpr[X86_RBX] = HOLE;
	expect_fault(&f, MMIO(&f, 0xf0, 0x89, 0x03), X86_VEC_UD, false, 0);       /* lock mov */
	expect_fault(&f, MMIO(&f, 0xf0, 0x83, 0x3b, 0x01), X86_VEC_UD, false, 0); /* lock cmp */
	expect_fault(&f, MMIO(&f, 0x8c, 0x33), X86_VEC_UD, false, 0); /* no such segment */
	ck_assert_int_eq(MMIO(&f, 0x89, 0xc3), X86_UNKNOWN);          /* no memory operand */
	ck_assert_int_eq(MMIO(&f, 0x0f, 0x11, 0x03), X86_UNKNOWN);    /* movups */
	ck_assert_int_eq(MMIO(&f, 0xff, 0x13), X86_UNKNOWN);          /* call *(%rbx) */
	ck_assert_int_eq(MMIO(&f, 0xc6, 0x4b, 0, 0), X86_UNKNOWN);    /* c6 /1 */
	ck_assert_int_eq(MMIO(&f, 0xf4), X86_UNKNOWN);
	set_mode(&f, 32);
	ck_assert_int_eq(MMIO(&f, 0x63, 0x03), X86_UNKNOWN); /* ARPL there */
	ck_assert_uint_eq(f.w.nlog, 0);
	close_world(&f);
}
END_TEST

START_TEST(single_step)
{
	struct fixture f;

	open_world(&f);
	set_mode(&f, 64);
	f.x.s.gpr[X86_RBX] = HOLE;
	f.x.s.rflags |= RFLAGS_TF | RFLAGS_RF;
	ck_assert_int_eq(MMIO(&f, 0x89, 0x03), X86_DONE);
	ck_assert(f.x.trap);
	ck_assert_uint_eq(f.x.s.rflags, 2 | RFLAGS_TF);
	close_world(&f);
}
END_TEST

START_TEST(rip_wraps)
{
	struct fixture f;

	open_world(&f);
	set_mode(&f, 32);
	f.x.s.gpr[X86_RBX] = HOLE;
	f.x.s.rip = 0xfffffffe;
	ck_assert_int_eq(MMIO(&f, 0x89, 0x03), X86_DONE);
	ck_assert_uint_eq(f.x.s.rip, 0);
	close_world(&f);
}
END_TEST

/* ---- memory and devices ---- */

START_TEST(crossing_pages)
{
	struct fixture f;

	open_world(&f);
	set_mode(&f, 64);
	/* Two pages of a device: two accesses, in the order of their addresses. */
	f.x.s.gpr[X86_RBX] = HOLE + 0xffd;
	f.x.s.gpr[X86_RAX] = 0x8877665544332211;
	ck_assert_int_eq(MMIO(&f, 0x48, 0x89, 0x03), X86_DONE);
	ck_assert_uint_eq(f.w.nlog, 2);
	ck_assert_uint_eq(f.w.log[0].size, 3);
	ck_assert_uint_eq(f.w.log[1].size, 5);
	ck_assert_uint_eq(f.w.log[1].gpa, HOLE + 0x1000);
	ck_assert_mem_eq(f.w.log[1].data, "\x44\x55\x66\x77\x88", 5);
	/* From memory into a device. */
	f.w.ram[2] = (struct world_ram){HOLE - 0x1000, 0x1000, f.ram + 0x4000, false};
	f.x.s.gpr[X86_RBX] = HOLE - 3;
	f.x.s.rip = CODE;
	ck_assert_int_eq(MMIO(&f, 0x48, 0x89, 0x03), X86_DONE);
	ck_assert_uint_eq(f.w.nlog, 3);
	ck_assert_uint_eq(f.w.log[2].gpa, HOLE);
	ck_assert_mem_eq(f.ram + 0x4ffd, "\x11\x22\x33", 3);
	close_world(&f);
}
END_TEST

/* An atomic operation on memory is the processor's: here two processors could mix. */
START_TEST(memory_is_left_alone)
{
	struct fixture f;

	open_world(&f);
	set_mode(&f, 64);
	f.x.s.gpr[X86_RBX] = 0x3000;
	ck_assert_int_eq(MMIO(&f, 0xf0, 0x48, 0xff, 0x03), X86_RETRY);
	ck_assert_uint_eq(f.ram[0x3000], 0);
	ck_assert_uint_eq(f.x.changed, 0);
	close_world(&f);
}
END_TEST

START_TEST(read_only_memory)
{
	struct fixture f;

	open_world(&f);
	set_mode(&f, 64);
	f.rom[0x10] = 41;
	f.x.s.gpr[X86_RBX] = ROM + 0x10;
	ck_assert_int_eq(MMIO(&f, 0xff, 0x03), X86_DONE); /* incl (%rbx) */
	ck_assert_uint_eq(f.w.nlog, 1);
	ck_assert(f.w.log[0].write);
	ck_assert_uint_eq(f.w.log[0].data[0], 42);
	ck_assert_uint_eq(f.rom[0x10], 41);
	close_world(&f);
}
END_TEST

/* The guest changes a page table while the device answers: nothing is mixed up. */
START_TEST(changed_meanwhile)
{
	struct fixture f;
	struct x86 *x = &f.x;
	static const uint8_t code[] = {0x01, 0x03}; /* add %eax, (%rbx) */

	open_world(&f);
	set_mode(&f, 64);
	x->mem = (struct x86_mem){world_find, &f.w};
	x->s.gpr[X86_RBX] = HOLE + 0xfff;
	ck_assert_int_eq(x86_begin(x, X86_WHY_MMIO, code, 2), X86_MMIO);
	ck_assert_uint_eq(x->log[0].size, 1);
	f.w.ram[2] = (struct world_ram){HOLE, 0x1000, f.ram + 0x4000, false};
	ck_assert_int_eq(x86_resume(x), X86_RETRY); /* three bytes of the second page are next */
	ck_assert_uint_eq(x->changed, 0);
	close_world(&f);
}
END_TEST

/* ---- segments ---- */

struct seg_case {
	uint32_t limit;
	uint16_t attr;
	uint64_t off;
	uint8_t opcode; /* 88 stores, 8a loads one byte; 89 and 8b four */
	int result;
};

START_TEST(segment_checks)
{
	/* clang-format off */
	static const struct seg_case cases[] = {
		{0xfff, 0xc93, 0xfff, 0x88, X86_DONE},
		{0xfff, 0xc93, 0x1000, 0x88, X86_FAULT},
		{0xfff, 0xc93, 0xffc, 0x89, X86_DONE},
		{0xfff, 0xc93, 0xffd, 0x89, X86_FAULT},
		{UINT32_MAX, 0xc93, 0xfffffffe, 0x89, X86_FAULT}, /* would wrap */
		{0xfff, 0xc97, 0xfff, 0x88, X86_FAULT},           /* expand down */
		{0xfff, 0xc97, 0x1000, 0x88, X86_DONE},
		{0xfff, 0x897, 0xffff, 0x88, X86_DONE},           /* 16 bit: up to 64 KiB */
		{0xfff, 0x897, 0xffff, 0x89, X86_FAULT},
		{0xffff, 0xc91, 0, 0x88, X86_FAULT},              /* read only */
		{0xffff, 0xc91, 0, 0x8a, X86_DONE},
		{0xffff, 0xc99, 0, 0x8a, X86_FAULT},              /* execute only */
		{0xffff, 0xc9b, 0, 0x8a, X86_DONE},               /* execute and read */
		{0xffff, 0xc9b, 0, 0x88, X86_FAULT},
		{0xffff, 0xc13, 0, 0x8a, X86_FAULT},              /* not present: null selector */
	};
	/* clang-format on */
	struct fixture f;

	open_world(&f);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const struct seg_case *c = &cases[i];
		int r;

		set_mode(&f, 32);
		f.w.nlog = 0;
		f.x.s.seg[X86_DS] = (struct hv_seg){HOLE, c->limit, 8, c->attr};
		f.x.s.gpr[X86_RBX] = c->off;
		r = MMIO(&f, c->opcode, 0x03);
		ck_assert_msg(r == c->result, "case %zu: %d", i, r);
		if (r == X86_FAULT)
			expect_fault(&f, r, X86_VEC_GP, true, 0);
	}
	/* The stack has a vector of its own. */
	set_mode(&f, 32);
	f.w.nlog = 0;
	f.x.s.seg[X86_SS].limit = 0xfff;
	f.x.s.gpr[X86_RBP] = 0x1000;
	expect_fault(&f, MMIO(&f, 0x88, 0x45, 0), X86_VEC_SS, true, 0);
	close_world(&f);
}
END_TEST

START_TEST(canonical)
{
	struct fixture f;

	open_world(&f);
	set_mode(&f, 64);
	f.x.s.gpr[X86_RBX] = UINT64_C(0x800000000000);
	expect_fault(&f, MMIO(&f, 0x88, 0x03), X86_VEC_GP, true, 0);
	f.x.s.gpr[X86_RBP] = UINT64_C(0x7fffffffffff);
	expect_fault(&f, MMIO(&f, 0x89, 0x45, 0), X86_VEC_SS, true, 0);
	f.x.s.cr4 = CR4_LA57;
	ck_assert_int_eq(MMIO(&f, 0x88, 0x03), X86_DONE);
	f.w.nlog = 0;
	f.x.s.rip = CODE;
	f.x.s.gpr[X86_RBX] = UINT64_C(0x0100000000000000);
	f.x.changed = 0;
	expect_fault(&f, MMIO(&f, 0x88, 0x03), X86_VEC_GP, true, 0);
	close_world(&f);
}
END_TEST

/* ---- page tables ---- */

static void put64(struct fixture *f, unsigned at, uint64_t v)
{
	memcpy(f->ram + at, &v, 8);
}

static void put32(struct fixture *f, unsigned at, uint32_t v)
{
	memcpy(f->ram + at, &v, 4);
}

static uint64_t get64(const struct fixture *f, unsigned at)
{
	uint64_t v;

	memcpy(&v, f->ram + at, 8);
	return v;
}

#define P 1u
#define W 2u
#define U 4u
#define A 0x20u
#define D 0x40u
#define PS 0x80u
#define NX (1ull << 63)

/* The first pages at their own address, and linear 0x200000 at HOLE with `leaf` flags through
 * tables with `upper` flags. `levels` 4 or 5. */
static void build_long(struct fixture *f, unsigned levels, uint64_t upper, uint64_t leaf)
{
	unsigned t = TABLES;

	memset(f->ram + TABLES, 0, 0x6000);
	f->x.s.cr0 = CR0_PE | CR0_PG;
	f->x.s.cr4 = CR4_PAE | (levels == 5 ? CR4_LA57 : 0);
	f->x.s.efer = EFER_LMA;
	f->x.s.cr3 = TABLES;
	for (unsigned i = levels; i > 2; i--, t += 0x1000)
		put64(f, t, (t + 0x1000) | upper | P);
	put64(f, t, P | W | A | PS); /* code: supervisor */
	put64(f, t + 8, (t + 0x1000) | upper | P);
	put64(f, t + 0x1000, HOLE | leaf);
}

struct page_case {
	const char *name;
	uint64_t upper, leaf;
	uint32_t cr0, cr4, efer;
	uint64_t rflags;
	unsigned cpl;
	uint8_t opcode; /* 88 store, 8a load */
	int code;       /* -1: no fault */
};

/* clang-format off */
static const struct page_case page_cases[] = {
	{"present", P | W | U, P | W | U, 0, 0, 0, 0, 0, 0x88, -1},
	{"absent", P | W | U, W | U, 0, 0, 0, 0, 0, 0x8a, 0},
	{"absent, write", P | W | U, W | U, 0, 0, 0, 0, 0, 0x88, 2},
	{"read-only, no WP", P | W | U, P | U, 0, 0, 0, 0, 0, 0x88, -1},
	{"read-only, WP", P | W | U, P | U, CR0_WP, 0, 0, 0, 0, 0x88, 3},
	{"read-only, WP, load", P | W | U, P | U, CR0_WP, 0, 0, 0, 0, 0x8a, -1},
	{"read-only above", P | U, P | W | U, CR0_WP, 0, 0, 0, 0, 0x88, 3},
	{"SMAP", P | W | U, P | W | U, 0, CR4_SMAP, 0, 0, 0, 0x8a, 1},
	{"SMAP, AC", P | W | U, P | W | U, 0, CR4_SMAP, 0, RFLAGS_AC, 0, 0x8a, -1},
	{"SMAP, supervisor page", P | W | U, P | W, 0, CR4_SMAP, 0, 0, 0, 0x8a, -1},
	{"NX data", P | W | U, P | W | U | NX, 0, 0, EFER_NXE, 0, 0, 0x8a, -1},
	{"NX without NXE", P | W | U, P | W | U | NX, 0, 0, 0, 0, 0, 0x8a, 9},
	{"reserved bit", P | W | U, P | W | U | 1ull << 45, 0, 0, 0, 0, 0, 0x88, 11},
	{"user", P | W | U, P | W | U, 0, 0, 0, 0, 3, 0x88, -1},
	{"user, supervisor page", P | W | U, P | W, 0, 0, 0, 0, 3, 0x8a, 5},
	{"user, supervisor above", P | W, P | W | U, 0, 0, 0, 0, 3, 0x8a, 5},
	{"user, read-only", P | W | U, P | U, 0, 0, 0, 0, 3, 0x88, 7},
};
/* clang-format on */

static void check_page_case(struct fixture *f, const struct page_case *c, unsigned levels)
{
	int r;

	set_mode(f, 64);
	f->w.nlog = 0;
	build_long(f, levels, c->upper, c->leaf);
	f->x.s.cr0 |= c->cr0;
	f->x.s.cr4 |= c->cr4;
	f->x.s.efer |= c->efer;
	f->x.s.rflags |= c->rflags;
	f->x.s.gpr[X86_RBX] = 0x200000;
	set_cpl(f, c->cpl);
	r = MMIO(f, c->opcode, 0x03);
	if (c->code < 0) {
		ck_assert_msg(r == X86_DONE && f->w.log[0].gpa == HOLE, "%s: %d", c->name, r);
		return;
	}
	ck_assert_msg(r == X86_FAULT && f->x.fault.vector == X86_VEC_PF &&
			      f->x.fault.code == (uint32_t)c->code && f->x.fault.cr2 == 0x200000 &&
			      f->w.nlog == 0,
		      "%s: result %d, vector %u, code %u", c->name, r, f->x.fault.vector,
		      f->x.fault.code);
}

START_TEST(pages_of_4_and_5_levels)
{
	struct fixture f;

	open_world(&f);
	for (size_t i = 0; i < sizeof(page_cases) / sizeof(page_cases[0]); i++) {
		check_page_case(&f, &page_cases[i], 4);
		check_page_case(&f, &page_cases[i], 5);
	}
	close_world(&f);
}
END_TEST

START_TEST(accessed_and_dirty)
{
	struct fixture f;

	open_world(&f);
	set_mode(&f, 64);
	build_long(&f, 4, P | W, P | W);
	f.x.s.gpr[X86_RBX] = 0x200000;
	ck_assert_int_eq(MMIO(&f, 0x8a, 0x03), X86_DONE);
	ck_assert_uint_eq(get64(&f, TABLES), (TABLES + 0x1000) | P | W | A);
	ck_assert_uint_eq(get64(&f, TABLES + 0x2008), (TABLES + 0x3000) | P | W | A);
	ck_assert_uint_eq(get64(&f, TABLES + 0x3000), HOLE | P | W | A);
	f.x.s.rip = CODE;
	ck_assert_int_eq(MMIO(&f, 0x88, 0x03), X86_DONE);
	ck_assert_uint_eq(get64(&f, TABLES + 0x3000), HOLE | P | W | A | D);
	ck_assert_uint_eq(get64(&f, TABLES + 0x2008), (TABLES + 0x3000) | P | W | A);
	close_world(&f);
}
END_TEST

/* No bit is set by a walk that ends in a fault. */
START_TEST(fault_marks_nothing)
{
	struct fixture f;

	open_world(&f);
	set_mode(&f, 64);
	build_long(&f, 4, P | W, W);
	f.x.s.gpr[X86_RBX] = 0x200000;
	ck_assert_int_eq(MMIO(&f, 0x8a, 0x03), X86_FAULT);
	ck_assert_uint_eq(get64(&f, TABLES), (TABLES + 0x1000) | P | W);
	close_world(&f);
}
END_TEST

START_TEST(tables_outside_memory)
{
	struct fixture f;

	open_world(&f);
	set_mode(&f, 64);
	build_long(&f, 4, P | W, P | W);
	put64(&f, TABLES + 0x2008, 0x7700000000 | P | W);
	f.x.s.gpr[X86_RBX] = 0x200000;
	expect_fault(&f, MMIO(&f, 0x88, 0x03), X86_VEC_PF, true, 2);
	f.x.s.cr3 = 0x7700000000;
	expect_fault(&f, MMIO(&f, 0x88, 0x03), X86_VEC_PF, true, 2);
	close_world(&f);
}
END_TEST

START_TEST(large_pages)
{
	struct fixture f;

	open_world(&f);
	set_mode(&f, 64);
	build_long(&f, 4, P | W, P | W);
	put64(&f, TABLES + 0x2008, 0x4000000 | P | W | PS); /* 2 MiB */
	f.x.s.gpr[X86_RBX] = 0x234567;
	ck_assert_int_eq(MMIO(&f, 0x88, 0x03), X86_DONE);
	ck_assert_uint_eq(f.w.log[0].gpa, 0x4034567);
	put64(&f, TABLES + 0x2008, 0x4000000 | P | W | PS | 1 << 13);
	f.w.nlog = 0;
	f.x.s.rip = CODE;
	f.x.changed = 0;
	expect_fault(&f, MMIO(&f, 0x88, 0x03), X86_VEC_PF, true, 11);
	put64(&f, TABLES + 0x1008, 0x140000000 | P | W | PS); /* 1 GiB */
	f.x.s.gpr[X86_RBX] = 0x40123456;
	ck_assert_int_eq(MMIO(&f, 0x88, 0x03), X86_DONE);
	ck_assert_uint_eq(f.w.log[0].gpa, 0x140123456);
	put64(&f, TABLES, (TABLES + 0x1000) | P | W | PS); /* not at this level */
	f.w.nlog = 0;
	f.x.s.rip = CODE;
	f.x.changed = 0;
	expect_fault(&f, MMIO(&f, 0x88, 0x03), X86_VEC_PF, true, 11);
	close_world(&f);
}
END_TEST

START_TEST(fetch_permissions)
{
	struct fixture f;

	open_world(&f);
	set_mode(&f, 64);
	build_long(&f, 4, P | W | U, P | W | U | NX);
	put64(&f, TABLES + 0x3000, 0x3000 | P | W | U | NX);
	f.x.s.efer |= EFER_NXE;
	f.x.s.rip = 0x200000;
	expect_fault(&f, world_step(&f.w, &f.x, X86_WHY_MMIO, NULL, 0), X86_VEC_PF, true, 17);
	ck_assert_uint_eq(f.x.fault.cr2, 0x200000);
	put64(&f, TABLES + 0x3000, 0x3000 | P | W | U);
	f.x.s.cr4 |= CR4_SMEP;
	expect_fault(&f, world_step(&f.w, &f.x, X86_WHY_MMIO, NULL, 0), X86_VEC_PF, true, 17);
	set_cpl(&f, 3);
	f.ram[0x3000] = 0xf4;
	ck_assert_int_eq(world_step(&f.w, &f.x, X86_WHY_MMIO, NULL, 0), X86_UNKNOWN);
	close_world(&f);
}
END_TEST

/* The instruction crosses into a page that is not there: the fault names that page. */
START_TEST(fetch_fault_in_second_page)
{
	struct fixture f;

	open_world(&f);
	set_mode(&f, 64);
	build_long(&f, 4, P | W | U, 0);
	put64(&f, TABLES + 0x3000, 0x3000 | P | W);
	f.ram[0x3fff] = 0xc7;
	f.x.s.rip = 0x200fff;
	expect_fault(&f, world_step(&f.w, &f.x, X86_WHY_MMIO, NULL, 0), X86_VEC_PF, true, 0);
	ck_assert_uint_eq(f.x.fault.cr2, 0x201000);
	close_world(&f);
}
END_TEST

START_TEST(pages_of_32_bit)
{
	struct fixture f;

	open_world(&f);
	set_mode(&f, 32);
	f.x.s.cr0 |= CR0_PG;
	f.x.s.cr3 = TABLES;
	put32(&f, TABLES, (TABLES + 0x1000) | P | W | A);
	put32(&f, TABLES + 0x1000 + 4, CODE | P | W | A); /* the code */
	put32(&f, TABLES + 4, (TABLES + 0x2000) | P | W | U);
	put32(&f, TABLES + 0x2000, HOLE | P | W | U);
	f.x.s.gpr[X86_RBX] = 0x400123;
	ck_assert_int_eq(MMIO(&f, 0x88, 0x03), X86_DONE);
	ck_assert_uint_eq(f.w.log[0].gpa, HOLE + 0x123);
	ck_assert_uint_eq((uint32_t)get64(&f, TABLES + 0x2000), HOLE | P | W | U | A | D);
	/* 4 MiB pages, with the upper bits of the address in bits 13 to 20. */
	put32(&f, TABLES + 4, 0x800000 | P | W | PS | 3 << 13);
	f.x.s.rip = CODE;
	f.x.s.cr4 = CR4_PSE;
	ck_assert_int_eq(MMIO(&f, 0x88, 0x03), X86_DONE);
	ck_assert_uint_eq(f.w.log[1].gpa, 0x300800123);
	close_world(&f);
}
END_TEST

START_TEST(pages_of_pae)
{
	struct fixture f;

	open_world(&f);
	set_mode(&f, 32);
	f.x.s.cr0 |= CR0_PG;
	f.x.s.cr4 = CR4_PAE;
	f.x.s.cr3 = TABLES + 0x20; /* 32-byte aligned */
	put64(&f, TABLES + 0x20 + 16, (TABLES + 0x1000) | P);
	put64(&f, TABLES + 0x1000, 0x5000000 | P | W | PS);
	f.x.s.gpr[X86_RBX] = 0x80000042;
	ck_assert_int_eq(MMIO(&f, 0x88, 0x03), X86_DONE);
	ck_assert_uint_eq(f.w.log[0].gpa, 0x5000042);
	/* A bit that is reserved in this level only. */
	put64(&f, TABLES + 0x20 + 16, (TABLES + 0x1000) | P | W);
	f.w.nlog = 0;
	f.x.s.rip = CODE;
	f.x.changed = 0;
	expect_fault(&f, MMIO(&f, 0x88, 0x03), X86_VEC_PF, true, 11);
	close_world(&f);
}
END_TEST

/* ---- strings ---- */

START_TEST(movs_second_operand_faults)
{
	struct fixture f;

	open_world(&f);
	set_mode(&f, 64);
	build_long(&f, 4, P | W, P | W);
	f.x.s.gpr[X86_RSI] = 0x200000; /* a device */
	f.x.s.gpr[X86_RDI] = 0x300000; /* nothing */
	ck_assert_int_eq(MMIO(&f, 0xa4), X86_FAULT);
	ck_assert_uint_eq(f.x.fault.vector, X86_VEC_PF);
	ck_assert_uint_eq(f.x.fault.code, 2);
	ck_assert_uint_eq(f.x.fault.cr2, 0x300000);
	ck_assert_uint_eq(f.x.changed, 0);
	close_world(&f);
}
END_TEST

START_TEST(repeat_is_one_round)
{
	struct fixture f;

	open_world(&f);
	set_mode(&f, 64);
	f.x.s.gpr[X86_RDI] = HOLE;
	f.x.s.gpr[X86_RCX] = 3;
	for (unsigned left = 3; left-- > 0;) {
		ck_assert_int_eq(MMIO(&f, 0xf3, 0xaa), X86_DONE);
		ck_assert_uint_eq(f.x.s.gpr[X86_RCX], left);
		ck_assert_uint_eq(f.x.s.rip, left ? CODE : CODE + 2);
	}
	ck_assert_uint_eq(f.w.nlog, 3);
	close_world(&f);
}
END_TEST

START_TEST(outs_gathers)
{
	struct fixture f;

	open_world(&f);
	set_mode(&f, 16);
	for (unsigned i = 0; i < 0x400; i++)
		f.ram[0x3000 + i] = (uint8_t)(i * 7);
	f.x.s.gpr[X86_RDX] = 0x3f8;
	f.x.s.gpr[X86_RSI] = 0x3000;
	f.x.s.gpr[X86_RCX] = 300;
	ck_assert_int_eq(STEP(&f, X86_WHY_PIO, 0xf3, 0x6e), X86_DONE);
	ck_assert_uint_eq(f.w.nport, X86_PIO_BYTES);
	ck_assert_uint_eq(f.x.s.gpr[X86_RCX], 300 - X86_PIO_BYTES);
	ck_assert_uint_eq(f.x.s.rip, CODE);
	ck_assert_int_eq(STEP(&f, X86_WHY_PIO, 0xf3, 0x6e), X86_DONE);
	ck_assert_uint_eq(f.w.nport, 300);
	ck_assert_uint_eq(f.w.last_port, 0x3f8);
	ck_assert_mem_eq(f.w.port, f.ram + 0x3000, 300);
	ck_assert_uint_eq(f.x.s.rip, CODE + 2);
	close_world(&f);
}
END_TEST

/* What stops a later element does not lose the earlier ones. */
START_TEST(outs_stops_at_fault)
{
	struct fixture f;

	open_world(&f);
	set_mode(&f, 16);
	f.x.s.gpr[X86_RDX] = 0x3f8;
	f.x.s.gpr[X86_RSI] = 0xfffa;
	f.x.s.gpr[X86_RCX] = 4;
	f.x.s.seg[X86_DS].limit = 0xfffd;
	ck_assert_int_eq(STEP(&f, X86_WHY_PIO, 0xf3, 0x6f), X86_DONE);
	ck_assert_uint_eq(f.w.nport, 4);
	ck_assert_uint_eq(f.x.s.gpr[X86_RCX], 2);
	f.x.changed = 0;
	expect_fault(&f, STEP(&f, X86_WHY_PIO, 0xf3, 0x6f), X86_VEC_GP, false, 0);
	close_world(&f);
}
END_TEST

START_TEST(ins_backwards)
{
	struct fixture f;

	open_world(&f);
	set_mode(&f, 32);
	f.x.s.gpr[X86_RDX] = 0x60;
	f.x.s.gpr[X86_RDI] = 0x3010;
	f.x.s.gpr[X86_RCX] = 3;
	f.x.s.rflags |= RFLAGS_DF;
	ck_assert_int_eq(STEP(&f, X86_WHY_PIO, 0xf3, 0x6d), X86_DONE);
	ck_assert_uint_eq(f.x.s.gpr[X86_RDI], 0x3010 - 12);
	ck_assert_uint_eq(f.x.s.gpr[X86_RCX], 0);
	ck_assert_mem_eq(f.ram + 0x3010, f.w.port, 4);
	ck_assert_mem_eq(f.ram + 0x3008, f.w.port + 8, 4);
	close_world(&f);
}
END_TEST

/* No byte is taken from the port before there is a place for it. */
START_TEST(ins_checks_first)
{
	struct fixture f;

	open_world(&f);
	set_mode(&f, 32);
	f.x.s.seg[X86_ES].limit = 0xff;
	f.x.s.gpr[X86_RDI] = 0x3010;
	expect_fault(&f, STEP(&f, X86_WHY_PIO, 0x6c), X86_VEC_GP, true, 0);
	ck_assert_uint_eq(f.w.nport, 0);
	close_world(&f);
}
END_TEST

START_TEST(ins_and_outs_with_devices)
{
	struct fixture f;

	open_world(&f);
	set_mode(&f, 32);
	f.x.s.gpr[X86_RDI] = HOLE;
	f.x.s.gpr[X86_RCX] = 2;
	ck_assert_int_eq(STEP(&f, X86_WHY_PIO, 0xf3, 0x6c), X86_DONE);
	ck_assert_uint_eq(f.w.nport, 1);
	ck_assert_uint_eq(f.w.nlog, 1);
	ck_assert_uint_eq(f.w.log[0].data[0], f.w.port[0]);
	ck_assert_uint_eq(f.x.s.gpr[X86_RCX], 1);
	f.x.s.gpr[X86_RSI] = HOLE;
	ck_assert_int_eq(STEP(&f, X86_WHY_MMIO, 0x6e), X86_DONE);
	ck_assert_uint_eq(f.w.nport, 2);
	ck_assert_uint_eq(f.w.port[1], f.w.log[1].data[0]);
	close_world(&f);
}
END_TEST

/* A user program that rewrites its instruction under our hands does not get a port. */
START_TEST(ports_need_the_right)
{
	struct fixture f;

	open_world(&f);
	set_mode(&f, 32);
	f.x.s.gpr[X86_RSI] = HOLE;
	set_cpl(&f, 3);
	expect_fault(&f, MMIO(&f, 0x6e), X86_VEC_GP, true, 0);
	f.x.s.rflags |= 3u << RFLAGS_IOPL_SHIFT;
	ck_assert_int_eq(MMIO(&f, 0x6e), X86_DONE);
	/* And an exit of a port runs nothing else. */
	f.x.s.gpr[X86_RBX] = HOLE;
	f.x.s.rip = CODE;
	ck_assert_int_eq(STEP(&f, X86_WHY_PIO, 0x88, 0x03), X86_RETRY);
	close_world(&f);
}
END_TEST

/* ---- anything at all ---- */

/* Random bytes, random state, random memory: it ends, within its bounds. */
START_TEST(random_bytes)
{
	struct fixture f;
	struct rng r = {12345 + (unsigned)_i};
	unsigned results[6] = {0};

	open_world(&f);
	for (unsigned i = 0; i < 60000; i++) {
		static const unsigned bits[] = {16, 32, 64};
		uint8_t code[16];
		int result;

		set_mode(&f, bits[rng_below(&r, 3)]);
		for (unsigned k = 0; k < 16; k++) {
			code[k] = (uint8_t)rng_next(&r);
			f.x.s.gpr[k] = rng_value(&r);
		}
		if (rng_one_in(&r, 2))
			build_long(&f, 4 + rng_below(&r, 2), rng_next(&r) & 0xff, rng_next(&r));
		f.x.s.rflags = rng_next(&r);
		f.w.nlog = f.w.nport = 0;
		result = world_step(&f.w, &f.x, rng_one_in(&r, 4) ? X86_WHY_PIO : X86_WHY_MMIO,
				    code, rng_below(&r, 17));
		if (result < X86_DONE || result > X86_RETRY)
			ck_abort_msg("result %d", result);
		if (result == X86_MMIO || result == X86_PIO)
			ck_abort_msg("no end");
		results[result]++;
	}
	ck_assert_uint_gt(results[X86_DONE], 100);
	ck_assert_uint_gt(results[X86_FAULT], 100);
	ck_assert_uint_gt(results[X86_UNKNOWN], 100);
	close_world(&f);
}
END_TEST

int main(void)
{
	/* clang-format off */
	const TTest *const tests[] = {
		store_and_load, fetch_continues, fetch_refused, prefixes, refused, single_step, rip_wraps,
		crossing_pages, memory_is_left_alone, read_only_memory, changed_meanwhile,
		segment_checks, canonical,
		pages_of_4_and_5_levels, accessed_and_dirty, fault_marks_nothing, tables_outside_memory,
		large_pages, fetch_permissions, fetch_fault_in_second_page, pages_of_32_bit, pages_of_pae,
		movs_second_operand_faults, repeat_is_one_round, outs_gathers, outs_stops_at_fault,
		ins_backwards, ins_checks_first, ins_and_outs_with_devices, ports_need_the_right,
	};
	/* clang-format on */
	Suite *s = suite_create("x86");
	TCase *t = tcase_create("emulator");
	SRunner *sr;
	int failed;

	for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++)
		tcase_add_test(t, tests[i]);
	tcase_add_loop_test(t, random_bytes, 0, 4);
	suite_add_tcase(s, t);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? 1 : 0;
}
