/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The state that vCPU 0 starts in: registers, GDT, identity page tables.
 * boot.rst, "64-bit Boot Protocol"; pvh.pandoc; Intel SDM vol. 3, 3.4.5 (descriptors), 4.5 (4-level
 * paging), 2.5 (CR0, CR4).
 */
#include <string.h>

#include <insula/board.h>

#include "load_image.h"

#define SEL_CODE 0x10 /* __BOOT_CS and __BOOT_DS of Linux */
#define SEL_DATA 0x18
#define GDT_ENTRIES 4

/* hv_seg attributes */
#define ATTR_CODE 0x009b /* present, code, execute/read, accessed */
#define ATTR_DATA 0x0093 /* present, data, read/write, accessed */
#define ATTR_LDT 0x0082
#define ATTR_TSS 0x008b /* busy: active */
#define ATTR_LONG 0x0200
#define ATTR_32BIT 0x0400
#define ATTR_4K 0x0800
#define TSS_LIMIT 0x67

#define CR0_PE (1u << 0)
#define CR0_ET (1u << 4) /* always 1 */
#define CR0_PG (1u << 31)
#define CR4_PAE (1u << 5)
#define EFER_LME (1u << 8)
#define EFER_LMA (1u << 10)
#define RFLAGS_ALWAYS (1u << 1)

#define PTE_PRESENT_RW 3u
#define PTE_LARGE (1u << 7)
#define LARGE_PAGE (2ull << 20)
#define PTES 512u
#define IDENTITY_GIB 4u

static const struct hv_seg seg_code64 = {
	.limit = ~0u, .selector = SEL_CODE, .attr = ATTR_CODE | ATTR_LONG | ATTR_4K};
static const struct hv_seg seg_code32 = {
	.limit = ~0u, .selector = SEL_CODE, .attr = ATTR_CODE | ATTR_32BIT | ATTR_4K};
static const struct hv_seg seg_data = {
	.limit = ~0u, .selector = SEL_DATA, .attr = ATTR_DATA | ATTR_32BIT | ATTR_4K};

/* All segments here have base 0 and the limit 4 GiB - 1 in 4 KiB units. */
static uint64_t descriptor(const struct hv_seg *s)
{
	uint64_t limit = s->limit >> 12;

	return (limit & 0xffff) | (uint64_t)(s->attr & 0xff) << 40 | (limit >> 16) << 48 |
	       (uint64_t)(s->attr >> 8) << 52;
}

static void write_gdt(uint8_t *low, const struct hv_seg *code)
{
	uint64_t gdt[GDT_ENTRIES] = {0};

	gdt[SEL_CODE / 8] = descriptor(code);
	gdt[SEL_DATA / 8] = descriptor(&seg_data);
	memcpy(low + BOARD_GDT, gdt, sizeof(gdt));
}

/* One PML4 entry, one PDPT entry a GiB, and a page directory of 2 MiB pages for each. */
static void write_page_tables(uint8_t *low)
{
	uint64_t *pml4 = (uint64_t *)(void *)(low + BOARD_PAGE_TABLES);
	uint64_t *pdpt = pml4 + PTES, *pd = pdpt + PTES;

	memset(pml4, 0, (size_t)(2 + IDENTITY_GIB) * BOARD_PAGE);
	pml4[0] = (BOARD_PAGE_TABLES + BOARD_PAGE) | PTE_PRESENT_RW;
	for (unsigned i = 0; i < IDENTITY_GIB; i++)
		pdpt[i] = (BOARD_PAGE_TABLES + (2ull + i) * BOARD_PAGE) | PTE_PRESENT_RW;
	for (unsigned i = 0; i < IDENTITY_GIB * PTES; i++)
		pd[i] = i * LARGE_PAGE | PTE_PRESENT_RW | PTE_LARGE;
}

void load_write_cpu_tables(uint8_t *low, enum load_protocol protocol)
{
	write_gdt(low, protocol == LOAD_LINUX64 ? &seg_code64 : &seg_code32);
	if (protocol == LOAD_LINUX64)
		write_page_tables(low);
}

void load_entry_regs(const struct load_entry *entry, struct hv_regs *r)
{
	memset(r, 0, sizeof(*r));
	r->rip = entry->rip;
	r->rsi = entry->rsi;
	r->rbx = entry->rbx;
	r->rsp = BOARD_BOOT_STACK;
	r->rflags = RFLAGS_ALWAYS;
	r->cr0 = CR0_PE | CR0_ET;
	r->cs = seg_code32;
	r->ds = r->es = r->fs = r->gs = r->ss = seg_data;
	r->tr = (struct hv_seg){.limit = TSS_LIMIT, .attr = ATTR_TSS};
	r->ldt = (struct hv_seg){.limit = 0xffff, .attr = ATTR_LDT};
	r->gdt_base = BOARD_GDT;
	r->gdt_limit = GDT_ENTRIES * 8 - 1;
	if (entry->protocol != LOAD_LINUX64)
		return;
	r->cs = seg_code64;
	r->cr0 |= CR0_PG;
	r->cr3 = BOARD_PAGE_TABLES;
	r->cr4 = CR4_PAE;
	r->efer = EFER_LME | EFER_LMA;
}
