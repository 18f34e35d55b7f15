/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Every kind of access to a device that the instruction emulator of the Windows backend knows, with
 * what is in the registers and in memory afterwards and a checksum over what the device saw. Runs
 * on tests/whp-double/hvrun, which is that device; there is no expected value here: the same lines
 * must come from KVM.
 */
#include "payload.h"
#include "../whp-double/hvrun_board.h"

static uint8_t buf[8192] __attribute__((aligned(4096)));
static uint64_t seed = 0x1234567;

/* Device registers with something in them, in words of eight. */
static void fill(void)
{
	for (unsigned i = 0; i < 256; i += 8)
		write64(HVRUN_DEVICE + i, xorshift(&seed));
}

static void line(const char *name, uint64_t a, uint64_t b, uint64_t flags)
{
	print("%s %lx %lx flags %lx device %x\n", name, a, b, flags, inl(HVRUN_PORT_SUM));
}

/* ---- one instruction with a register and the device ---- */

#define FLAGS 0x8d5 /* OF SF ZF AF PF CF */
/* Logical instructions leave AF undefined: it is not compared. */
#define DEFINED 0x8c5

#define WITH(name, insn, reg_value, mask)                                                   \
	do {                                                                                \
		uint64_t r_ = (reg_value), d_ = HVRUN_DEVICE + 0x40, f_, a_ = 0x1122334455; \
		__asm__ volatile(insn "\n pushfq\n pop %2"                                  \
				 : "+b"(r_), "+a"(a_), "=c"(f_)                             \
				 : "d"(d_)                                                  \
				 : "memory", "cc");                                         \
		line(name, r_, a_, f_ &(mask));                                             \
	} while (0)

static void moves(void)
{
	WITH("mov8", "movb %%bl, (%%rdx)", 0x8182838485868788, 0);
	WITH("mov16", "movw %%bx, 2(%%rdx)", 0x8182838485868788, 0);
	WITH("mov32", "movl %%ebx, 4(%%rdx)", 0x8182838485868788, 0);
	WITH("mov64", "movq %%rbx, 8(%%rdx)", 0x8182838485868788, 0);
	WITH("movhigh", "movb %%bh, 1(%%rdx)", 0x8182838485868788, 0);
	WITH("load8", "movb (%%rdx), %%bl", 0xffffffffffffffff, 0);
	WITH("load16", "movw (%%rdx), %%bx", 0xffffffffffffffff, 0);
	WITH("load32", "movl (%%rdx), %%ebx", 0xffffffffffffffff, 0);
	WITH("load64", "movq (%%rdx), %%rbx", 0, 0);
	WITH("imm8", "movb $0x5a, (%%rdx)", 0, 0);
	WITH("imm16", "movw $0x5a5b, (%%rdx)", 0, 0);
	WITH("imm32", "movl $0x5a5b5c5d, 12(%%rdx)", 0, 0);
	WITH("imm64", "movq $-2, 16(%%rdx)", 0, 0);
	WITH("movzx8", "movzbl 3(%%rdx), %%ebx", 0xffffffffffffffff, 0);
	WITH("movzx16", "movzwq 3(%%rdx), %%rbx", 0xffffffffffffffff, 0);
	WITH("movsx8", "movsbw 1(%%rdx), %%bx", 0, 0);
	WITH("movsx16", "movswl 1(%%rdx), %%ebx", 0, 0);
	WITH("movsxd", "movslq 2(%%rdx), %%rbx", 0, 0);
	WITH("movnti", "movntiq %%rbx, 24(%%rdx)", 0x0102030405060708, 0);
	WITH("moffs", "movabs 0xd0000040, %%al", 0, 0);
	WITH("moffs_store", "movabs %%eax, 0xd0000044", 0, 0);
	WITH("indexed", "movl %%ebx, -4(%%rdx,%%rbx,4)", 3, 0);
	WITH("segment", "mov %%ds, (%%rdx)", 0, 0);
	WITH("address32", "movl %%ebx, (%%edx)", 77, 0);
}

static void arithmetic(void)
{
	WITH("add", "addl %%ebx, (%%rdx)", 0x80000001, FLAGS);
	WITH("adc", "stc\n adcw %%bx, (%%rdx)", 0xffff, FLAGS);
	WITH("sub", "subq $1, (%%rdx)", 0, FLAGS);
	WITH("sbb", "stc\n sbbb %%bl, (%%rdx)", 0x80, FLAGS);
	WITH("and", "andl $0xff00ff, (%%rdx)", 0, DEFINED);
	WITH("or", "orb $0x81, (%%rdx)", 0, DEFINED);
	WITH("xor", "xorq %%rbx, (%%rdx)", 0xa5a5a5a5a5a5a5a5, DEFINED);
	WITH("cmp", "cmpl %%ebx, (%%rdx)", 0x7fffffff, FLAGS);
	WITH("test", "testl %%ebx, (%%rdx)", 0x80000000, DEFINED);
	WITH("from", "addq (%%rdx), %%rbx", 5, FLAGS);
	WITH("inc", "stc\n incb (%%rdx)", 0, FLAGS);
	WITH("dec", "clc\n decl (%%rdx)", 0, FLAGS);
	WITH("neg", "negw (%%rdx)", 0, FLAGS);
	WITH("not", "notq (%%rdx)", 0, 0);
	WITH("bt", "btl $5, (%%rdx)", 0, 1);
	WITH("bts", "btsl $7, (%%rdx)", 0, 1);
	WITH("btr", "btrq $63, (%%rdx)", 0, 1);
	WITH("btc", "btcw $3, (%%rdx)", 0, 1);
	WITH("bt_far", "btl %%ebx, (%%rdx)", 100, 1);
	WITH("xchg", "xchgl %%ebx, (%%rdx)", 0xcafe, 0);
	WITH("xadd", "xaddl %%ebx, (%%rdx)", 9, FLAGS);
	WITH("cmpxchg_no", "cmpxchgl %%ebx, (%%rdx)", 9, FLAGS);
	WITH("cmpxchg_yes", "movl (%%rdx), %%eax\n cmpxchgl %%ebx, (%%rdx)", 9, FLAGS);
	WITH("lock", "lock orl $0x10, (%%rdx)", 0, DEFINED);
}

/* ---- strings ---- */

static uint32_t sum_of(const uint8_t *p, unsigned n)
{
	uint32_t sum = 0;

	for (unsigned i = 0; i < n; i++)
		sum = sum * 31 + p[i];
	return sum;
}

#define STRING(name, insn, si, di, n, ax)                                                         \
	do {                                                                                      \
		uint64_t s_ = (si), d_ = (di), c_ = (n), a_ = (ax);                               \
		__asm__ volatile(insn                                                             \
				 : "+S"(s_), "+D"(d_), "+c"(c_), "+a"(a_)                         \
				 : "d"(HVRUN_PORT)                                                \
				 : "memory", "cc");                                               \
		print("%s si %lx di %lx cx %lu ax %lx memory %x device %x\n", name,               \
		      s_ - (uintptr_t)buf, d_ - (uintptr_t)buf, c_, a_, sum_of(buf, sizeof(buf)), \
		      inl(HVRUN_PORT_SUM));                                                       \
	} while (0)

static void strings(void)
{
	uint64_t ram = (uintptr_t)buf, dev = HVRUN_DEVICE;

	for (unsigned i = 0; i < sizeof(buf); i++)
		buf[i] = (uint8_t)(i * 13 + (i >> 8));
	STRING("stosb", "stosb", 0, dev + 8, 0, 0x41);
	STRING("stosq", "stosq", 0, dev + 16, 0, 0x4142434445464748);
	STRING("rep_stosb", "rep stosb", 0, dev + 100, 9, 0x42);
	STRING("rep_stosl", "rep stosl", 0, dev + 128, 5, 0x43444546);
	STRING("stos_down", "std\n rep stosw\n cld", 0, dev + 300, 4, 0x4748);
	STRING("lodsl", "lodsl", dev + 128, 0, 0, 0);
	STRING("rep_lodsb", "rep lodsb", dev + 100, 0, 5, 0);
	STRING("movs_out", "rep movsb", ram + 100, dev + 400, 11, 0);
	STRING("movs_in", "rep movsl", dev + 128, ram + 4094, 3, 0);
	STRING("movs_within", "rep movsw", dev + 400, dev + 500, 3, 0);
	STRING("movs_down", "std\n rep movsq\n cld", ram + 800, dev + 600, 3, 0);
	STRING("cmps", "repe cmpsb", ram + 100, dev + 400, 20, 0);
	STRING("scas", "repne scasb", 0, dev + 100, 30, 0x55);
	STRING("outsb", "outsb", ram + 7, 0, 0, 0);
	STRING("rep_outsb", "rep outsb", ram + 4000, 0, 200, 0);
	STRING("rep_outsl", "rep outsl", ram + 50, 0, 70, 0);
	STRING("outs_down", "std\n rep outsw\n cld", ram + 50, 0, 10, 0);
	STRING("insw", "insw", 0, ram + 5, 0, 0);
	STRING("rep_insb", "rep insb", 0, ram + 4000, 300, 0);
	STRING("rep_insl", "rep insl", 0, ram + 4, 1100, 0);
	STRING("rep_none", "rep stosb", 0, dev, 0, 1);
}

/* ---- ports, borders, the read-only page ---- */

static void ports(void)
{
	outb(HVRUN_PORT, 0x12);
	outw(HVRUN_PORT, 0x1234);
	outl(HVRUN_PORT, 0x12345678);
	for (unsigned i = 0; i < 3; i++) {
		uint64_t a = 0xffffffffffffffff;

		if (i == 0)
			__asm__ volatile("inb %1, %%al" : "+a"(a) : "d"((uint16_t)HVRUN_PORT));
		else if (i == 1)
			__asm__ volatile("inw %1, %%ax" : "+a"(a) : "d"((uint16_t)HVRUN_PORT));
		else
			__asm__ volatile("inl %1, %%eax" : "+a"(a) : "d"((uint16_t)HVRUN_PORT));
		line("in", a, i, 0);
	}
	print("nobody %x %x\n", inb(0x700), inl(0x704));
}

static void borders(void)
{
	write32(HVRUN_DEVICE + 0xffe, 0xaabbccdd); /* into the next page, where nothing is */
	line("across", read32(HVRUN_DEVICE + 0xffe), 0, 0);
	write64(HVRUN_ROM - 4, 0x1111111122222222);
	line("into_rom", read64(HVRUN_ROM - 4), 0, 0);
	write16(HVRUN_ROM + 100, 0xffff);
	line("rom", read32(HVRUN_ROM + 98), read64(HVRUN_ROM + 0xff0), 0);
	__asm__ volatile("incb (%0)" : : "r"(HVRUN_ROM + 8) : "memory", "cc");
	line("rom_inc", read8(HVRUN_ROM + 8), 0, 0);
}

/* The instruction itself lies over the end of a page. */
static void code_across_pages(void)
{
	static const uint8_t code[] = {0xc7, 0x87, 0x10, 0, 0, 0, 0x78, 0x56, 0x34, 0x12, 0xc3};

	for (unsigned cut = 1; cut < 10; cut++) {
		uint8_t *at = buf + 4096 - cut;

		memcpy(at, code, sizeof(code)); /* movl $0x12345678, 0x10(%rdi); ret */
		__asm__ volatile("call *%0" : : "r"(at), "D"(HVRUN_DEVICE + cut * 32) : "memory");
	}
	line("code_across_pages", read32(HVRUN_DEVICE + 0x30), 0, 0);
}

int main(void)
{
	fill();
	ports();
	moves();
	arithmetic();
	strings();
	borders();
	code_across_pages();
	return 7;
}
