/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The runtime of bare-metal payloads: one vCPU, polling, general registers only. A payload is one
 * .c file with an int main(void); what main returns is the exit status of the VM (BOARD_REG_EXIT).
 *
 * Output on COM1: check() prints `ok NAME` or `not ok NAME - why`, skip() prints `skip NAME - why`;
 * finish() is 0 if nothing failed.
 */
#ifndef PAYLOAD_H
#define PAYLOAD_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <linux/serial_reg.h>

#include <insula/board.h>

#define PAYLOAD_FN static __attribute__((unused))

int main(void);
_Noreturn void payload_start(uint32_t kind, uint64_t info); /* called by crt0.S */
void *memcpy(void *to, const void *from, size_t n);
void *memset(void *to, int byte, size_t n);
int memcmp(const void *a, const void *b, size_t n);

enum boot_kind { BOOT_LINUX64 = 1, BOOT_PVH = 2 };
static enum boot_kind boot_kind;
static uint64_t boot_info; /* struct boot_params or struct hvm_start_info */

/* ---- ports ---- */

PAYLOAD_FN void outb(uint16_t port, uint8_t v)
{
	__asm__ volatile("outb %0, %1" : : "a"(v), "Nd"(port) : "memory");
}
PAYLOAD_FN void outw(uint16_t port, uint16_t v)
{
	__asm__ volatile("outw %0, %1" : : "a"(v), "Nd"(port) : "memory");
}
PAYLOAD_FN void outl(uint16_t port, uint32_t v)
{
	__asm__ volatile("outl %0, %1" : : "a"(v), "Nd"(port) : "memory");
}
PAYLOAD_FN uint8_t inb(uint16_t port)
{
	uint8_t v;

	__asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port) : "memory");
	return v;
}
PAYLOAD_FN uint16_t inw(uint16_t port)
{
	uint16_t v;

	__asm__ volatile("inw %1, %0" : "=a"(v) : "Nd"(port) : "memory");
	return v;
}
PAYLOAD_FN uint32_t inl(uint16_t port)
{
	uint32_t v;

	__asm__ volatile("inl %1, %0" : "=a"(v) : "Nd"(port) : "memory");
	return v;
}
PAYLOAD_FN void outsb(uint16_t port, const void *from, size_t n)
{
	__asm__ volatile("rep outsb" : "+S"(from), "+c"(n) : "d"(port) : "memory");
}
PAYLOAD_FN void insb(uint16_t port, void *to, size_t n)
{
	__asm__ volatile("rep insb" : "+D"(to), "+c"(n) : "d"(port) : "memory");
}

/* ---- MMIO: exactly one access of exactly this size ---- */

#define MMIO_ACCESS(bits, suffix, reg)                                                          \
	PAYLOAD_FN uint##bits##_t read##bits(uint64_t addr)                                     \
	{                                                                                       \
		uint##bits##_t v;                                                               \
		__asm__ volatile("mov" suffix " (%1), %0" : "=" reg(v) : "r"(addr) : "memory"); \
		return v;                                                                       \
	}                                                                                       \
	PAYLOAD_FN void write##bits(uint64_t addr, uint##bits##_t v)                            \
	{                                                                                       \
		__asm__ volatile("mov" suffix " %0, (%1)" : : reg(v), "r"(addr) : "memory");    \
	}
MMIO_ACCESS(8, "b", "q")
MMIO_ACCESS(16, "w", "r")
MMIO_ACCESS(32, "l", "r")
MMIO_ACCESS(64, "q", "r")

/* ---- the processor ---- */

PAYLOAD_FN uint64_t rdtsc(void)
{
	uint32_t lo, hi;

	__asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi) : : "memory");
	return (uint64_t)hi << 32 | lo;
}

struct cpuid {
	uint32_t eax, ebx, ecx, edx;
};
PAYLOAD_FN struct cpuid cpuid(uint32_t leaf, uint32_t sub)
{
	struct cpuid c;

	__asm__ volatile("cpuid"
			 : "=a"(c.eax), "=b"(c.ebx), "=c"(c.ecx), "=d"(c.edx)
			 : "a"(leaf), "c"(sub));
	return c;
}

/* The hypervisor says it (CPUID 0x40000010); if not, a guess that only makes time limits wrong. */
#define CPUID_HV 0x40000000u
#define CPUID_HV_FREQUENCY 0x40000010u
#define TSC_KHZ_GUESS 3000000u
PAYLOAD_FN uint32_t tsc_khz(void)
{
	if (cpuid(CPUID_HV, 0).eax >= CPUID_HV_FREQUENCY)
		return cpuid(CPUID_HV_FREQUENCY, 0).eax;
	return TSC_KHZ_GUESS;
}
/* The TSC some milliseconds from now. */
PAYLOAD_FN uint64_t deadline_ms(uint32_t ms)
{
	return rdtsc() + (uint64_t)ms * tsc_khz();
}
PAYLOAD_FN void wait_ms(uint32_t ms)
{
	uint64_t end = deadline_ms(ms);

	while (rdtsc() < end)
		__asm__ volatile("pause");
}

PAYLOAD_FN uint64_t xorshift(uint64_t *state)
{
	uint64_t x = *state;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return *state = x;
}

/* Make the 2 MiB around `gpa` (beyond 4 GiB, below 512 GiB) visible at its own address until the
 * next call. */
extern uint64_t pdpt[512], pd_window[512];
#define GIB_SHIFT 30
#define LARGE_SHIFT 21
#define PTE_TABLE 0x63u
#define PTE_LARGE_PAGE 0xe3u
PAYLOAD_FN bool map_high(uint64_t gpa)
{
	static uint64_t last;
	uint64_t cr3;

	if (gpa >> GIB_SHIFT < 4 || gpa >> GIB_SHIFT >= 512)
		return false;
	if (last)
		pdpt[last >> GIB_SHIFT] = 0;
	pd_window[last >> LARGE_SHIFT & 511] = 0;
	pdpt[gpa >> GIB_SHIFT] = (uintptr_t)pd_window | PTE_TABLE;
	pd_window[gpa >> LARGE_SHIFT & 511] = gpa >> LARGE_SHIFT << LARGE_SHIFT | PTE_LARGE_PAGE;
	last = gpa;
	__asm__ volatile("mov %%cr3, %0\n mov %0, %%cr3" : "=&r"(cr3) : : "memory");
	return true;
}

/* ---- the command line ---- */

#define START_INFO_CMDLINE 24 /* PVH: xen/include/public/arch-x86/hvm/start_info.h, cmdline_paddr */

/* What follows `key` in a word of the command line; NULL: no word begins with it. */
PAYLOAD_FN const char *cmdline_word(const char *key)
{
	const char *c =
		boot_kind == BOOT_PVH ? *(const char **)(boot_info + START_INFO_CMDLINE) : NULL;

	for (bool first = true; c && *c; first = *c++ == ' ') {
		size_t n = 0;

		while (first && key[n] && c[n] == key[n])
			n++;
		if (!key[n])
			return c + n;
	}
	return NULL;
}
/* `key` ends with its "=". */
PAYLOAD_FN unsigned cmdline_number(const char *key, unsigned otherwise)
{
	const char *c = cmdline_word(key);
	unsigned n = 0;

	for (; c && *c >= '0' && *c <= '9'; c++)
		n = n * 10 + (unsigned)(*c - '0');
	return c ? n : otherwise;
}

/* ---- output ---- */

#define UART_FIFO_DEPTH 16
#define UART_SPINS 1000000

PAYLOAD_FN void uart_put(char ch)
{
	static unsigned room;

	/* As a driver does it: wait for an empty transmitter, then fill its FIFO. */
	for (unsigned i = 0; room == 0 && i < UART_SPINS; i++)
		if (inb(BOARD_COM1 + UART_LSR) & UART_LSR_THRE)
			room = UART_FIFO_DEPTH;
	outb(BOARD_COM1 + UART_TX, (uint8_t)ch);
	room = room ? room - 1 : 0;
}
PAYLOAD_FN void uart_puts(const char *s)
{
	for (; *s; s++)
		uart_put(*s);
}
PAYLOAD_FN void uart_put_number(uint64_t v, unsigned base)
{
	char buf[20];
	unsigned n = 0;

	do
		buf[n++] = "0123456789abcdef"[v % base];
	while (v /= base);
	while (n)
		uart_put(buf[--n]);
}

PAYLOAD_FN const char *print_number(const char *f, va_list *ap)
{
	bool wide = *f == 'l';
	uint64_t v;

	f += wide;
	if (*f == 'd') {
		int64_t d = wide ? va_arg(*ap, long) : va_arg(*ap, int);

		if (d < 0)
			uart_put('-');
		v = d < 0 ? -(uint64_t)d : (uint64_t)d;
	} else {
		v = wide ? va_arg(*ap, unsigned long) : va_arg(*ap, unsigned int);
	}
	uart_put_number(v, *f == 'x' ? 16 : 10);
	return f;
}

/* %s %c %% and %d %u %x with or without l; no width, no flags. */
PAYLOAD_FN void vprint(const char *f, va_list *ap)
{
	for (; *f; f++) {
		if (*f != '%') {
			uart_put(*f);
			continue;
		}
		f++;
		if (*f == 's')
			uart_puts(va_arg(*ap, const char *));
		else if (*f == 'c' || *f == '%')
			uart_put(*f == 'c' ? (char)va_arg(*ap, int) : '%');
		else
			f = print_number(f, ap);
	}
}
__attribute__((format(printf, 1, 2))) PAYLOAD_FN void print(const char *f, ...)
{
	va_list ap;

	va_start(ap, f);
	vprint(f, &ap);
	va_end(ap);
}

/* ---- results ---- */

static unsigned payload_failures;

/* `why` is printed when it is not true. */
__attribute__((format(printf, 3, 4))) PAYLOAD_FN bool check(const char *name, bool good,
							    const char *why, ...)
{
	va_list ap;

	if (good) {
		print("ok %s\n", name);
		return true;
	}
	payload_failures++;
	print("not ok %s - ", name);
	va_start(ap, why);
	vprint(why, &ap);
	va_end(ap);
	uart_put('\n');
	return false;
}
PAYLOAD_FN void skip(const char *name, const char *why)
{
	print("skip %s - %s\n", name, why);
}
PAYLOAD_FN int finish(void)
{
	return payload_failures ? 1 : 0;
}

/* End the VM at once. */
_Noreturn PAYLOAD_FN void board_exit(uint32_t status)
{
	outl(BOARD_REG_EXIT, status);
	for (;;)
		__asm__ volatile("hlt");
}

_Noreturn void payload_start(uint32_t kind, uint64_t info)
{
	boot_kind = kind == BOOT_PVH ? BOOT_PVH : BOOT_LINUX64;
	boot_info = info;
	board_exit((uint32_t)main());
}

#endif
