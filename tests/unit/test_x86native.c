/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The emulator against this processor: random 64-bit instructions are executed once natively, on
 * memory, and once by the emulator, for which the same memory is a device. Registers, defined flags
 * and memory must be the same afterwards.
 *
 * Seeded: INSULA_TEST_SEED repeats a run, INSULA_TEST_X86_RUNS sets its length.
 */
#include <check.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "x86dev.h"
#include "x86gen.h"

#define AREA 0x1000u
#define MARGIN 0x200u
#define RSP 4

struct native {
	uint64_t gpr[16];
	uint64_t rflags;
	void *code;
};

/* Loads all registers but RSP, jumps to `code`, which jumps to native_back, stores them. */
void native_run(struct native *n);
extern const char native_back[];

/* clang-format off */
__asm__(
	".pushsection .data\n"
	".balign 8\n"
	"native_rdi: .quad 0\n"
	"native_n: .quad 0\n"
	"native_code: .quad 0\n"
	".popsection\n"
	".pushsection .text\n"
	".globl native_run, native_back\n"
	"native_run:\n"
	" push %rbx\n push %rbp\n push %r12\n push %r13\n push %r14\n push %r15\n"
	" mov %rdi, native_n(%rip)\n"
	" mov 136(%rdi), %rax\n mov %rax, native_code(%rip)\n"
	" mov 0(%rdi), %rax\n mov 8(%rdi), %rcx\n mov 16(%rdi), %rdx\n mov 24(%rdi), %rbx\n"
	" mov 40(%rdi), %rbp\n mov 48(%rdi), %rsi\n mov 64(%rdi), %r8\n mov 72(%rdi), %r9\n"
	" mov 80(%rdi), %r10\n mov 88(%rdi), %r11\n mov 96(%rdi), %r12\n mov 104(%rdi), %r13\n"
	" mov 112(%rdi), %r14\n mov 120(%rdi), %r15\n"
	" pushq 128(%rdi)\n mov 56(%rdi), %rdi\n popfq\n"
	" jmp *native_code(%rip)\n"
	"native_back:\n"
	" mov %rdi, native_rdi(%rip)\n mov native_n(%rip), %rdi\n"
	" mov %rax, 0(%rdi)\n mov %rcx, 8(%rdi)\n mov %rdx, 16(%rdi)\n mov %rbx, 24(%rdi)\n"
	" mov %rbp, 40(%rdi)\n mov %rsi, 48(%rdi)\n mov %r8, 64(%rdi)\n mov %r9, 72(%rdi)\n"
	" mov %r10, 80(%rdi)\n mov %r11, 88(%rdi)\n mov %r12, 96(%rdi)\n mov %r13, 104(%rdi)\n"
	" mov %r14, 112(%rdi)\n mov %r15, 120(%rdi)\n"
	" mov native_rdi(%rip), %rax\n mov %rax, 56(%rdi)\n"
	" pushfq\n popq 128(%rdi)\n cld\n"
	" pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbp\n pop %rbx\n ret\n"
	".popsection\n");
/* clang-format on */

struct areas {
	uint8_t *code;
	uint8_t *real;   /* what the instruction works on */
	uint8_t *shadow; /* what the emulator's device holds */
};

/* Below 2 GiB, so that every form of address reaches it. */
static uint8_t *low_area(int prot)
{
	void *p = mmap(NULL, AREA, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);

	ck_assert_ptr_ne(p, MAP_FAILED);
	return p;
}

static void fill(struct rng *r, struct areas *a)
{
	for (unsigned i = 0; i < AREA; i += 8) {
		uint64_t v = rng_one_in(r, 3) ? 0 : rng_value(r);

		memcpy(a->real + i, &v, 8);
	}
	memcpy(a->shadow, a->real, AREA);
}

static void choose(struct rng *r, struct areas *a, struct gen *g)
{
	*g = (struct gen){
		.bits = 64,
		.no_regs = 1u << RSP,
		.code = (uintptr_t)a->code,
		.mem = (uintptr_t)a->real + MARGIN,
		.src = (uintptr_t)a->real + MARGIN + rng_below(r, GEN_SPAN),
		.dst = (uintptr_t)a->real + MARGIN + rng_below(r, GEN_SPAN),
	};
	gen_make(r, g);
}

static void run_native(struct areas *a, const struct gen *g, struct native *n)
{
	static const uint8_t jump[] = {0xff, 0x25, 0, 0, 0, 0}; /* jmp *0(%rip) */
	uintptr_t back = (uintptr_t)native_back;

	memcpy(a->code, g->bytes, g->n);
	memcpy(a->code + g->n, jump, sizeof(jump));
	memcpy(a->code + g->n + sizeof(jump), &back, sizeof(back));
	memcpy(n->gpr, g->gpr, sizeof(n->gpr));
	n->code = a->code;
	native_run(n);
}

static int run_emulated(struct areas *a, const struct gen *g, uint64_t rflags, struct x86 *x)
{
	struct world w = {
		.device = a->shadow,
		.device_gpa = (uintptr_t)a->real,
		.device_size = AREA,
		.ram = {{(uintptr_t)a->code, AREA, a->code, true}},
	};

	memset(x, 0, sizeof(*x));
	memcpy(x->s.gpr, g->gpr, sizeof(x->s.gpr));
	x->s.rip = (uintptr_t)a->code;
	x->s.rflags = rflags;
	x->s.cr0 = 1;
	x->s.efer = 0x500;
	x->s.seg[X86_CS] = (struct hv_seg){.limit = UINT32_MAX, .attr = 0xa9b};
	return world_run(&w, x, g->bytes, g->n);
}

static void describe(char *text, size_t size, const struct gen *g, uint64_t seed, unsigned run)
{
	int n = snprintf(text, size, "seed %" PRIu64 " run %u, %s:", seed, run, g->op->name);

	for (unsigned i = 0; i < g->n; i++)
		n += snprintf(text + n, size - (size_t)n, " %02x", g->bytes[i]);
}

/* What differs, or 0. (Asserting each byte would cost more than all the rest.) */
static bool differs(const struct areas *a, const struct gen *g, const struct native *n,
		    const struct x86 *x, char *why, size_t size)
{
	uint64_t flags = (GF_ALL | 0x400) & ~(uint64_t)g->op->undefined;

	for (unsigned i = 0; i < 16; i++)
		if (i != RSP && n->gpr[i] != x->s.gpr[i])
			return snprintf(why, size,
					"register %u is 0x%" PRIx64 ", emulated 0x%" PRIx64, i,
					n->gpr[i], x->s.gpr[i]);
	if ((n->rflags ^ x->s.rflags) & flags)
		return snprintf(why, size, "flags are 0x%" PRIx64 ", emulated 0x%" PRIx64,
				n->rflags & flags, x->s.rflags & flags);
	if (x->s.rip != (uintptr_t)a->code + g->n)
		return snprintf(why, size, "length is %u", g->n);
	if (memcmp(a->real, a->shadow, AREA) != 0)
		return snprintf(why, size, "memory");
	return false;
}

START_TEST(same_as_the_processor)
{
	uint64_t seed = gen_setting("INSULA_TEST_SEED", 20260601) + (unsigned)_i;
	unsigned runs = (unsigned)gen_setting("INSULA_TEST_X86_RUNS", 20000), seen[GEN_OPS] = {0};
	struct rng r = {seed * 2 + 1};
	struct areas a = {
		.code = low_area(PROT_READ | PROT_WRITE | PROT_EXEC),
		.real = low_area(PROT_READ | PROT_WRITE),
		.shadow = low_area(PROT_READ | PROT_WRITE),
	};

	for (unsigned i = 0; i < runs; i++) {
		struct native n = {.rflags = 0x202 | (rng_next(&r) & (GF_ALL | 0x400))};
		uint64_t rflags = n.rflags;
		struct gen g;
		struct x86 x;
		char what[160], why[120];
		int result;

		fill(&r, &a);
		choose(&r, &a, &g);
		run_native(&a, &g, &n);
		result = run_emulated(&a, &g, rflags, &x);
		describe(what, sizeof(what), &g, seed, i);
		if (result != X86_DONE)
			ck_abort_msg("%s: result %d", what, result);
		if (differs(&a, &g, &n, &x, why, sizeof(why)))
			ck_abort_msg("%s: %s", what, why);
		seen[g.op - gen_ops]++;
	}
	for (unsigned i = 0; i < GEN_OPS; i++)
		ck_assert_msg(seen[i] || (gen_ops[i].flags & G_PORT), "%s was never tried",
			      gen_ops[i].name);
	munmap(a.code, AREA);
	munmap(a.real, AREA);
	munmap(a.shadow, AREA);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("x86native");
	TCase *t = tcase_create("native");
	SRunner *sr;
	int failed;

	tcase_add_loop_test(t, same_as_the_processor, 0, 8);
	suite_add_tcase(s, t);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? 1 : 0;
}
