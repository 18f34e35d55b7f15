/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The ways in which a PC is reset, one a run: the command line says which, "keyboard", "cf9" or
 * "firmware". Status 1 means that the machine ran on, 2 that the command line names none.
 */
#include "payload.h"

#define REAL_CODE 0x8000u
#define EFER_LME_TEXT "0x100"

/*
 * From long mode to real mode, and to F000:FFF0: Intel SDM vol. 3, 10.9.2 and 10.8.5.4. It is
 * copied to REAL_CODE, because real mode reaches no more than the first MiB; its segments have base
 * 0.
 */
extern const uint8_t real_code[], real_code_end[];
__asm__(".section .rodata\n"
	".globl real_code, real_code_end\n"
	".code16\n"
	"real_code:\n"
	"	mov	%cr0, %eax\n"
	"	and	$0x7fffffff, %eax\n" /* paging */
	"	mov	%eax, %cr0\n"
	"	mov	$0xc0000080, %ecx\n"
	"	rdmsr\n"
	"	and	$~" EFER_LME_TEXT ", %eax\n"
	"	wrmsr\n"
	"	mov	$16, %ax\n"
	"	mov	%ax, %ds\n"
	"	mov	%ax, %es\n"
	"	mov	%ax, %ss\n"
	"	mov	%cr0, %eax\n"
	"	and	$0xfffffffe, %eax\n" /* protection */
	"	mov	%eax, %cr0\n"
	"	ljmp	$0xf000, $0xfff0\n"
	"real_code_end:\n"
	".code64\n"
	".text\n");

static void firmware(void)
{
	static const uint64_t gdt[] = {
		0, 0x00009b000000ffff, /* code, 16 bits, 64 KiB */
		0x000093000000ffff,    /* data */
	};
	static const struct {
		uint16_t limit;
		uint64_t base;
	} __attribute__((packed)) pointer = {sizeof(gdt) - 1, (uint64_t)gdt};

	memcpy((void *)(uintptr_t)REAL_CODE, real_code, (size_t)(real_code_end - real_code));
	__asm__ volatile("lgdt %0\n"
			 "pushq $8\n"
			 "pushq %1\n"
			 "lretq\n"
			 :
			 : "m"(pointer), "r"((uint64_t)REAL_CODE)
			 : "memory");
}

static void keyboard(void)
{
	outb(BOARD_KBC, 0xd1); /* a command that a controller has, and the board has not */
	check("keyboard_does_not_wait", (inb(BOARD_KBC) & 2) == 0, "reads 0x%x", inb(BOARD_KBC));
	check("keyboard_is_absent", inb(BOARD_KBC) & 1, "reads 0x%x", inb(BOARD_KBC));
	outb(BOARD_KBC, BOARD_KBC_RESET);
}

/* As Linux does it: the kind of reset first, then the reset. */
static void cf9(void)
{
	outb(BOARD_RST_CNT, 0);
	check("cf9_reads_back", inb(BOARD_RST_CNT) == 0, "reads 0x%x", inb(BOARD_RST_CNT));
	outb(BOARD_RST_CNT, 0x02);
	check("cf9_keeps_the_kind", inb(BOARD_RST_CNT) == 0x02, "reads 0x%x", inb(BOARD_RST_CNT));
	check("cf9_is_no_pci", inl(0xcf8) == 0xffffffff, "reads 0x%x", inl(0xcf8));
	outb(BOARD_RST_CNT, 0x06);
}

static const struct {
	const char *name;
	void (*reset)(void);
} ways[] = {{"keyboard", keyboard}, {"cf9", cf9}, {"firmware", firmware}};

int main(void)
{
	for (unsigned i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
		if (cmdline_word(ways[i].name)) {
			print("resets by %s\n", ways[i].name);
			ways[i].reset();
			return 1;
		}
	}
	return 2;
}
