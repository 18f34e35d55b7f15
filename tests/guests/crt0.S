/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How a payload starts.
 *
 * start32, by the PVH note: 32-bit protected mode, paging off, ebx = struct hvm_start_info. It goes to long mode with the
 * page tables below.
 * start64, by e_entry (64-bit Linux boot protocol): long mode already, rsi = struct boot_params. It changes to the same page
 * tables.
 * With PAYLOAD_NO_PVH the note is left out, so that a loader has to take the second way.
 *
 * Both end in payload_start(kind, info) with interrupts off, no IDT (any exception is a triple fault) and no SSE. The page
 * tables are data, so nothing is computed here: payloads also run where an instruction takes a quarter of a microsecond.
 */
#define CR0_PG 0x80000000
#define CR4_PAE 0x20
#define MSR_EFER 0xc0000080
#define EFER_LME 0x100
#define PTE_TABLE 0x63  /* present, writable, accessed, dirty */
#define PTE_PAGE 0xe3   /* and large */
#define BOOT_LINUX64 1  /* enum boot_kind in payload.h */
#define BOOT_PVH 2
#define XEN_ELFNOTE_PHYS32_ENTRY 18
#define STACK_SIZE 32768

	.section .text.entry, "ax"
	.code32
	.globl start32
start32:
	cld
	cli
	mov	$pml4, %eax
	mov	%eax, %cr3
	mov	%cr4, %eax
	or	$CR4_PAE, %eax
	mov	%eax, %cr4
	mov	$MSR_EFER, %ecx
	rdmsr
	or	$EFER_LME, %eax
	wrmsr
	mov	%cr0, %eax
	or	$CR0_PG, %eax
	mov	%eax, %cr0
	lgdt	gdt_pointer
	ljmp	$8, $long_mode

	.code64
long_mode:
	mov	$16, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	mov	$BOOT_PVH, %edi
	mov	%ebx, %esi
	jmp	common

	.globl start64
start64:
	cld
	cli
	mov	$pml4, %eax
	mov	%rax, %cr3
	mov	$BOOT_LINUX64, %edi
common:
	mov	$stack_top, %esp
	xor	%ebp, %ebp
	call	payload_start
1:	hlt
	jmp	1b

/* void *memcpy(void *to, const void *from, size_t n), memset, memcmp: the compiler calls them. */
	.text
	.globl memcpy, memset, memcmp
memcpy:
	mov	%rdi, %rax
	mov	%rdx, %rcx
	rep movsb
	ret
memset:
	mov	%rdi, %r8
	mov	%esi, %eax
	mov	%rdx, %rcx
	rep stosb
	mov	%r8, %rax
	ret
memcmp:
	xor	%eax, %eax
	mov	%rdx, %rcx
	cmp	%rcx, %rcx
	repe cmpsb
	je	1f
	movzbl	-1(%rdi), %ecx
	movzbl	-1(%rsi), %eax
	sub	%ecx, %eax
1:	ret

	.data
	.balign 8
gdt:
	.quad 0
	.quad 0x00af9b000000ffff	/* 8: 64-bit code */
	.quad 0x00cf93000000ffff	/* 16: data */
gdt_pointer:
	.word gdt_pointer - gdt - 1
	.quad gdt

/* The first 4 GiB in 2 MiB pages; payload.h maps one 2 MiB page more through pd_window. */
	.globl pml4, pdpt, pd_window, gdt
	.balign 4096
pml4:
	.quad pdpt + PTE_TABLE
	.fill 511, 8, 0
pdpt:
	.quad pd + PTE_TABLE, pd + 4096 + PTE_TABLE, pd + 8192 + PTE_TABLE, pd + 12288 + PTE_TABLE
	.fill 508, 8, 0
pd:
	.set	page, 0
	.rept	2048
	.quad	page * 0x200000 + PTE_PAGE
	.set	page, page + 1
	.endr
pd_window:
	.fill 512, 8, 0

	.bss
	.balign 16
	.skip STACK_SIZE
stack_top:

#ifndef PAYLOAD_NO_PVH
	.section .note.Xen, "a", @note
	.balign 4
	.long 4, 4, XEN_ELFNOTE_PHYS32_ENTRY
	.asciz "Xen"
	.long start32
#endif

	.section .note.GNU-stack, "", @progbits
