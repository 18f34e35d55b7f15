/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A second processor for payloads: smp_start() starts it, and it calls ap_main() of the payload with
 * a stack of its own, interrupts off.
 */
#ifndef PAYLOAD_SMP_H
#define PAYLOAD_SMP_H

#include "payload.h"

#define SMP_ICR (BOARD_LAPIC + 0x300)
#define SMP_ICR_HIGH (BOARD_LAPIC + 0x310)
#define SMP_INIT 0x4500u
#define SMP_STARTUP 0x4600u
#define SMP_PAGE 0x10u /* 0x10000: where it begins in real mode */

extern const uint8_t ap_begin[], ap_end[];
__attribute__((used)) _Noreturn void ap_main(void);
static uint8_t ap_stack[16384] __attribute__((used, aligned(16)));

/* 16 bits first: straight into long mode, with the tables of crt0.S. */
__asm__(".text\n"
	".code16\n"
	"ap_begin:\n"
	"	cli\n"
	"	movl $pml4, %eax\n"
	"	movl %eax, %cr3\n"
	"	movl %cr4, %eax\n"
	"	orl $0x20, %eax\n"
	"	movl %eax, %cr4\n"
	"	movl $0xc0000080, %ecx\n"
	"	rdmsr\n"
	"	orl $0x100, %eax\n"
	"	wrmsr\n"
	"	lgdtl %cs:(ap_gdt - ap_begin)\n"
	"	movl $0x80000011, %eax\n"
	"	movl %eax, %cr0\n"
	"	ljmpl $8, $ap_long\n"
	"	.balign 8\n"
	"ap_gdt:\n"
	"	.word 23\n"
	"	.long gdt\n"
	"ap_end:\n"
	".code64\n"
	"ap_long:\n"
	"	movl $16, %eax\n"
	"	movl %eax, %ds\n"
	"	movl %eax, %es\n"
	"	movl %eax, %ss\n"
	"	movl $ap_stack + 16384, %esp\n"
	"	xorl %ebp, %ebp\n"
	"	call ap_main\n");

/* `up` is set by ap_main(). False: it was not in 5 s. */
PAYLOAD_FN bool smp_start(const volatile bool *up)
{
	uint64_t end = deadline_ms(5000);

	memcpy((void *)(uintptr_t)(SMP_PAGE << 12), ap_begin, (size_t)(ap_end - ap_begin));
	write32(SMP_ICR_HIGH, 1u << 24);
	write32(SMP_ICR, SMP_INIT);
	wait_ms(10);
	write32(SMP_ICR_HIGH, 1u << 24);
	write32(SMP_ICR, SMP_STARTUP | SMP_PAGE);
	while (!*up && rdtsc() < end)
		__asm__ volatile("pause");
	return *up;
}

#endif
