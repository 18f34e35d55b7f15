/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Interrupts for payloads: each vector from IRQ_FIRST on is counted and acknowledged at the local
 * APIC, and nothing else. An exception has no handler and ends the VM.
 */
#ifndef PAYLOAD_IRQ_H
#define PAYLOAD_IRQ_H

#include "payload.h"

#define IRQ_FIRST 0x10u /* the lowest that a local APIC delivers */
#define IRQ_STUB 16u    /* bytes of each */
#define LAPIC_SVR (BOARD_LAPIC + 0xf0)
#define LAPIC_SVR_ON 0x1ffu
#define LAPIC_VERSION (BOARD_LAPIC + 0x30)

extern const uint8_t irq_stubs[];
/* By all processors, of each vector. */
volatile uint32_t irq_count[256] __attribute__((used));

__asm__(".text\n"
	"irq_common:\n"
	"	xchg %rax, (%rsp)\n"
	"	lock incl irq_count(,%rax,4)\n"
	"	movl $0xfee000b0, %eax\n"
	"	movl $0, (%rax)\n"
	"	pop %rax\n"
	"	iretq\n"
	".globl irq_stubs\n"
	".balign 16\n"
	"irq_stubs:\n"
	".set vector, 0\n"
	".rept 256\n"
	".balign 16\n"
	"	pushq $vector\n"
	"	jmp irq_common\n"
	".set vector, vector + 1\n"
	".endr\n");

/* On the processor that calls it: interrupts are on from then on. */
PAYLOAD_FN void irq_start(void)
{
	static struct {
		uint16_t low, selector;
		uint8_t stack, type;
		uint16_t middle;
		uint32_t high, zero;
	} idt[256];
	const struct {
		uint16_t limit;
		uint64_t base;
	} __attribute__((packed)) pointer = {sizeof(idt) - 1, (uintptr_t)idt};

	for (unsigned i = IRQ_FIRST; i < 256; i++) {
		uint64_t at = (uintptr_t)irq_stubs + (uint64_t)i * IRQ_STUB;

		idt[i].low = (uint16_t)at;
		idt[i].middle = (uint16_t)(at >> 16);
		idt[i].selector = 8;
		idt[i].type = 0x8e;
	}
	__asm__ volatile("lidt %0" : : "m"(pointer));
	write32(LAPIC_SVR, LAPIC_SVR_ON);
	__asm__ volatile("sti" : : : "memory");
}

/* Until the vector was counted `n` times in all. False: it was not, in `ms`. */
PAYLOAD_FN bool irq_wait(unsigned vector, uint32_t n, uint32_t ms)
{
	uint64_t end = deadline_ms(ms);

	while ((int32_t)(irq_count[vector] - n) < 0) {
		if (rdtsc() > end)
			return false;
		__asm__ volatile("pause");
	}
	return true;
}

#endif
