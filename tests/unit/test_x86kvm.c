/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The emulator against KVM's: random instructions in 16, 32 and 64-bit code are run once by KVM,
 * with a hole in memory for a device, and once by ours. The accesses to the device, the bytes at
 * the port, registers, defined flags and memory must be the same.
 *
 * Needs /dev/kvm and says so if there is none. What KVM cannot emulate is counted, not compared.
 * Seeded: INSULA_TEST_SEED repeats a run, INSULA_TEST_X86_RUNS sets its length.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "x86dev.h"
#include "x86gen.h"

#define RAM 0x40000u
#define TABLES 0x8000u /* PML4, PDPT, PD: the first 2 MiB at their own address */
#define CODE 0x10000u
#define DATA 0x20000u
#define HOLE 0x40000u /* no memory behind it */
#define WINDOW 0xe00u /* into DATA or HOLE; operands cross into the next page */
#define PORT_DONE 0x99
#define PORT_TEST 0x5a0
#define SECONDS 12

struct machine {
	int dev;
	struct hv_vm *vm;
	struct hv_vcpu *v;
	uint8_t *ram, *copy;
};

static void open_machine(struct machine *m)
{
	struct hv_vm_params p = {.ncpus = 1, .nlines = 1};
	struct err e;

	m->dev = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	ck_assert_msg(m->dev >= 0, "/dev/kvm: %s", strerror(errno));
	p.dev = m->dev;
	ck_assert_msg(hv_vm_create(&m->vm, &p, &e) == 0, "%s", e.text);
	m->ram = mmap(NULL, RAM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	m->copy = malloc(RAM);
	ck_assert(m->ram != MAP_FAILED && m->copy);
	ck_assert_msg(hv_mem_map(m->vm, 0, 0, m->ram, RAM, HV_MEM_RW, &e) == 0, "%s", e.text);
	ck_assert_msg(hv_vcpu_create(m->vm, 0, &m->v, &e) == 0, "%s", e.text);
}

static void close_machine(struct machine *m)
{
	hv_vcpu_destroy(m->v);
	hv_vm_destroy(m->vm);
	munmap(m->ram, RAM);
	free(m->copy);
	close(m->dev);
}

/* ---- one case ---- */

struct test {
	struct gen g;
	uint64_t rflags;
	uint64_t base[X86_SREGS]; /* of the segments; DS and ES point at the device or not */
};

static uint64_t place(struct rng *r)
{
	return rng_one_in(r, 3) ? DATA : HOLE;
}

/* KVM writes what REP INS read to a device in pieces of its own size. */
static void keep_input_in_memory(struct test *t)
{
	if (t->g.bits != 64)
		t->base[X86_ES] = DATA;
	else if (t->g.gpr[7] >= HOLE)
		t->g.gpr[7] -= HOLE - DATA;
}

/* 64-bit code reaches the device through the offset, the others through a segment's base. */
static void choose(struct rng *r, unsigned bits, struct test *t)
{
	bool flat = bits == 64;

	memset(t, 0, sizeof(*t));
	t->g = (struct gen){.bits = bits, .ports = true, .code = flat ? CODE : 0};
	t->g.mem = (flat ? HOLE : 0) + WINDOW;
	t->g.src = (flat ? place(r) : 0) + WINDOW + rng_below(r, GEN_SPAN);
	t->g.dst = (flat ? place(r) : 0) + WINDOW + rng_below(r, GEN_SPAN);
	for (unsigned i = 0; i < X86_SREGS; i++)
		t->base[i] = flat ? 0 : HOLE;
	t->base[X86_CS] = flat ? 0 : CODE;
	t->base[X86_ES] = flat ? 0 : place(r);
	t->g.gpr[4] = rng_value(r);
	gen_make(r, &t->g);
	if (t->g.op->flags & G_PORT)
		t->g.gpr[2] = (t->g.gpr[2] & ~UINT64_C(0xffff)) | PORT_TEST;
	if ((t->g.op->flags & (G_PORT | G_DST)) == (G_PORT | G_DST))
		keep_input_in_memory(t);
	t->rflags = 2 | (rng_next(r) & (GF_ALL | 0x400));
}

static struct hv_seg segment(const struct test *t, unsigned i)
{
	static const uint16_t attr[] = {[16] = 0x93, [32] = 0xc93, [64] = 0xc93};
	static const uint16_t code[] = {[16] = 0x9b, [32] = 0xc9b, [64] = 0xa9b};
	unsigned bits = t->g.bits;
	struct hv_seg s = {
		.base = t->base[i],
		.limit = bits == 16 ? 0xffff : UINT32_MAX,
		.selector = (uint16_t)(bits == 16 ? t->base[i] >> 4 : 8),
		.attr = i == X86_CS ? code[bits] : attr[bits],
	};

	return s;
}

static void fill_memory(struct rng *r, uint8_t *ram, const struct test *t)
{
	uint64_t *table = (uint64_t *)(void *)(ram + TABLES);

	for (unsigned i = 0; i < 0x2000; i += 8) {
		uint64_t v = rng_value(r);

		memcpy(ram + DATA + i, &v, 8);
	}
	memset(table, 0, 3 * 4096);
	table[0] = (TABLES + 0x1000) | 0x27;
	table[512] = (TABLES + 0x2000) | 0x27;
	table[1024] = 0xe7;
	memset(ram + CODE, 0xf4, 64);
	memcpy(ram + CODE, t->g.bytes, t->g.n);
	ram[CODE + t->g.n] = 0xe6; /* out %al, $PORT_DONE */
	ram[CODE + t->g.n + 1] = PORT_DONE;
}

/* ---- by KVM ---- */

static void set_control(struct hv_regs *h, unsigned bits)
{
	h->cr0 = bits == 16 ? 0x10 : bits == 32 ? 0x11 : 0x80000011;
	h->cr3 = bits == 64 ? TABLES : 0;
	h->cr4 = bits == 64 ? 0x20 : 0;
	h->efer = bits == 64 ? 0x500 : 0;
	h->idt_limit = 0; /* a fault is the end */
}

static void to_hv(struct hv_regs *h, const struct test *t)
{
	const uint64_t *g = t->g.gpr;

	h->rax = g[0], h->rcx = g[1], h->rdx = g[2], h->rbx = g[3];
	h->rsp = g[4], h->rbp = g[5], h->rsi = g[6], h->rdi = g[7];
	h->r8 = g[8], h->r9 = g[9], h->r10 = g[10], h->r11 = g[11];
	h->r12 = g[12], h->r13 = g[13], h->r14 = g[14], h->r15 = g[15];
	h->rip = t->g.code;
	h->rflags = t->rflags;
	h->es = segment(t, X86_ES);
	h->cs = segment(t, X86_CS);
	h->ss = segment(t, X86_SS);
	h->ds = segment(t, X86_DS);
	h->fs = segment(t, X86_FS);
	h->gs = segment(t, X86_GS);
	set_control(h, t->g.bits);
}

static void from_hv(uint64_t *g, const struct hv_regs *h)
{
	g[0] = h->rax, g[1] = h->rcx, g[2] = h->rdx, g[3] = h->rbx;
	g[4] = h->rsp, g[5] = h->rbp, g[6] = h->rsi, g[7] = h->rdi;
	g[8] = h->r8, g[9] = h->r9, g[10] = h->r10, g[11] = h->r11;
	g[12] = h->r12, g[13] = h->r13, g[14] = h->r14, g[15] = h->r15;
}

enum outcome { OUT_DONE, OUT_FAULT, OUT_UNKNOWN };

static void answer_mmio(struct world *w, struct hv_exit *x)
{
	struct x86_access a = {
		.gpa = x->u.mmio.gpa, .size = x->u.mmio.size, .write = x->u.mmio.write};

	memcpy(a.data, x->u.mmio.data, sizeof(a.data));
	world_answer(w, &a);
	memcpy(x->u.mmio.data, a.data, sizeof(a.data));
}

/* True at the end. */
static bool handle(struct world *w, struct hv_exit *x, enum outcome *o)
{
	*o = OUT_DONE;
	if (x->kind == HV_EXIT_MMIO)
		answer_mmio(w, x);
	else if (x->kind == HV_EXIT_PIO && x->u.pio.port == PORT_DONE)
		return true;
	else if (x->kind == HV_EXIT_PIO)
		world_port(w, x->u.pio.port, x->u.pio.size * x->u.pio.count, x->u.pio.out,
			   x->u.pio.data);
	else if (x->kind != HV_EXIT_NONE)
		*o = x->kind == HV_EXIT_SHUTDOWN ? OUT_FAULT : OUT_UNKNOWN;
	return *o != OUT_DONE;
}

static enum outcome run_kvm(struct machine *m, const struct test *t, struct world *w,
			    struct hv_regs *h)
{
	enum outcome o = OUT_DONE;
	struct hv_exit x;
	bool end = false;
	struct err e;

	ck_assert_msg(hv_vcpu_get_regs(m->v, h, &e) == 0, "%s", e.text);
	to_hv(h, t);
	ck_assert_msg(hv_vcpu_set_regs(m->v, h, &e) == 0, "%s", e.text);
	for (unsigned i = 0; i < 200 && !end; i++) {
		ck_assert_int_eq(hv_vcpu_run(m->v, &x), 0);
		end = handle(w, &x, &o);
		hv_vcpu_complete(m->v, &x);
	}
	ck_assert_msg(end, "no end after 200 exits");
	ck_assert_msg(hv_vcpu_get_regs(m->v, h, &e) == 0, "%s", e.text);
	return o;
}

/* ---- by ours ---- */

static enum outcome run_ours(const struct test *t, struct world *w, struct x86 *x)
{
	unsigned bits = t->g.bits;
	struct hv_regs h;
	int r;

	set_control(&h, bits);
	memset(x, 0, sizeof(*x));
	memcpy(x->s.gpr, t->g.gpr, sizeof(x->s.gpr));
	x->s.rip = t->g.code;
	x->s.rflags = t->rflags;
	x->s.cr0 = h.cr0;
	x->s.cr3 = h.cr3;
	x->s.cr4 = h.cr4;
	x->s.efer = h.efer;
	for (unsigned i = 0; i < X86_SREGS; i++)
		x->s.seg[i] = segment(t, i);
	r = world_run(w, x, NULL, 0);
	return r == X86_DONE ? OUT_DONE : r == X86_FAULT ? OUT_FAULT : OUT_UNKNOWN;
}

/* ---- the same? ---- */

static bool accesses_differ(const struct world *a, const struct world *b, char *why, size_t size)
{
	if (a->nlog != b->nlog)
		return snprintf(why, size, "%u accesses, emulated %u", a->nlog, b->nlog);
	for (unsigned i = 0; i < a->nlog; i++) {
		const struct x86_access *p = &a->log[i], *q = &b->log[i];

		if (p->gpa != q->gpa || p->size != q->size || p->write != q->write ||
		    memcmp(p->data, q->data, p->size) != 0)
			return snprintf(why, size,
					"access %u: %s %u at 0x%" PRIx64
					", emulated %s %u at 0x%" PRIx64,
					i, p->write ? "write" : "read", p->size, p->gpa,
					q->write ? "write" : "read", q->size, q->gpa);
	}
	if (a->nport != b->nport || memcmp(a->port, b->port, a->nport) != 0)
		return snprintf(why, size, "%u bytes at the port, emulated %u", a->nport, b->nport);
	return false;
}

static bool registers_differ(const struct test *t, const struct hv_regs *h, const struct x86 *x,
			     char *why, size_t size)
{
	uint64_t flags = (GF_ALL | 0x400) & ~(uint64_t)t->g.op->undefined, g[16];
	/* Outside 64-bit mode the upper halves are nobody's. */
	uint64_t mask = t->g.bits == 64 ? UINT64_MAX : UINT32_MAX, done = h->rip - x->s.rip;

	from_hv(g, h);
	for (unsigned i = 0; i < (t->g.bits == 64 ? 16 : 8); i++)
		if ((g[i] ^ x->s.gpr[i]) & mask)
			return snprintf(why, size,
					"register %u is 0x%" PRIx64 ", emulated 0x%" PRIx64, i,
					g[i], x->s.gpr[i]);
	if ((h->rflags ^ x->s.rflags) & flags)
		return snprintf(why, size, "flags are 0x%" PRIx64 ", emulated 0x%" PRIx64,
				h->rflags & flags, x->s.rflags & flags);
	if (done != 0 && done != 2) /* before or after the OUT that ends the case */
		return snprintf(why, size, "RIP is 0x%" PRIx64 ", emulated 0x%" PRIx64, h->rip,
				x->s.rip);
	return false;
}

static void describe(char *text, size_t size, const struct test *t, uint64_t seed, unsigned run)
{
	int n = snprintf(text, size, "seed %" PRIu64 " run %u, %u bit, %s:", seed, run, t->g.bits,
			 t->g.op->name);

	for (unsigned i = 0; i < t->g.n; i++)
		n += snprintf(text + n, size - (size_t)n, " %02x", t->g.bytes[i]);
}

struct tally {
	unsigned done, faults, unknown;
	unsigned seen[GEN_OPS];
};

static void one(struct machine *m, struct rng *r, unsigned bits, struct tally *tally, uint64_t seed,
		unsigned run)
{
	struct world kvm = {0}, ours = {.ram = {{0, RAM, m->copy, false}}};
	char what[160], why[160];
	enum outcome a, b;
	struct hv_regs h;
	struct test t;
	struct x86 x;

	choose(r, bits, &t);
	fill_memory(r, m->ram, &t);
	memcpy(m->copy, m->ram, RAM);
	describe(what, sizeof(what), &t, seed, run);
	a = run_kvm(m, &t, &kvm, &h);
	if (a == OUT_UNKNOWN) {
		tally->unknown++;
		return;
	}
	b = run_ours(&t, &ours, &x);
	if (a != b)
		ck_abort_msg("%s: outcome %d, emulated %d", what, a, b);
	if (a == OUT_FAULT) {
		tally->faults++;
		return;
	}
	tally->done++;
	tally->seen[t.g.op - gen_ops]++;
	if (accesses_differ(&kvm, &ours, why, sizeof(why)) ||
	    registers_differ(&t, &h, &x, why, sizeof(why)))
		ck_abort_msg("%s: %s", what, why);
	if (memcmp(m->ram, m->copy, RAM) != 0)
		ck_abort_msg("%s: memory", what);
}

static void same_in(unsigned bits)
{
	uint64_t seed = gen_setting("INSULA_TEST_SEED", 20260602) + bits;
	unsigned runs = (unsigned)gen_setting("INSULA_TEST_X86_RUNS", 20000), run;
	struct rng r = {seed * 2 + 1};
	struct tally t = {0};
	struct machine m;
	time_t end = time(NULL) + SECONDS;

	open_machine(&m);
	for (run = 0; run < runs && (run < 200 || time(NULL) < end); run++)
		one(&m, &r, bits, &t, seed, run);
	close_machine(&m);
	printf("# %u bit: %u the same, %u faults, %u unknown to KVM\n", bits, t.done, t.faults,
	       t.unknown);
	ck_assert_uint_ge(t.done, run / 2);
	for (unsigned i = 0; i < GEN_OPS && run >= 2000; i++)
		if (!t.seen[i] && (bits == 64 || !(gen_ops[i].flags & G_64)))
			printf("# %u bit: %s was never compared\n", bits, gen_ops[i].name);
}

START_TEST(same_as_kvm_16)
{
	same_in(16);
}
END_TEST

START_TEST(same_as_kvm_32)
{
	same_in(32);
}
END_TEST

START_TEST(same_as_kvm_64)
{
	same_in(64);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("x86kvm");
	TCase *t = tcase_create("kvm");
	SRunner *sr;
	int failed;

	if (access("/dev/kvm", F_OK) < 0) {
		printf("skip x86kvm - no /dev/kvm here; run it in the lab: make lab "
		       "CMD=build/tests/test_x86kvm\n");
		return 0;
	}
	tcase_set_timeout(t, 60);
	tcase_add_test(t, same_as_kvm_16);
	tcase_add_test(t, same_as_kvm_32);
	tcase_add_test(t, same_as_kvm_64);
	suite_add_tcase(s, t);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? 1 : 0;
}
