/* SPDX-License-Identifier: BSD-2-Clause */
/* struct boot_params ("zero page") for the 64-bit Linux boot protocol.
 * Documentation/arch/x86/zero-page.rst. */
#include <asm/bootparam.h>
#include <stddef.h>
#include <string.h>

#include <insula/board.h>

#include "load_image.h"

#define LOADER_UNDEFINED 0xff /* type_of_loader: one without a number of its own */
#define VID_MODE_NORMAL 0xffff
#define HDR_MAGIC 0x53726448u /* "HdrS" */
#define HDR_BOOT_FLAG 0xaa55
#define HDR_VERSION 0x020c

_Static_assert(sizeof(struct boot_params) == BOARD_PAGE, "one page");
_Static_assert(offsetof(struct boot_params, hdr) == LOAD_HDR_OFF, "as in the file");
_Static_assert(offsetof(struct boot_params, edd_mbr_sig_buffer) == LOAD_HDR_END,
	       "room for the header");
_Static_assert(offsetof(struct boot_params, acpi_rsdp_addr) == 0x70, "zero-page.rst");

/* A vmlinux has no setup header; Linux looks at these fields all the same. */
static void make_header(struct setup_header *h)
{
	h->boot_flag = HDR_BOOT_FLAG;
	h->header = HDR_MAGIC;
	h->version = HDR_VERSION;
	h->loadflags = LOADED_HIGH;
	h->cmdline_size = LOAD_ELF_CMDLINE_MAX;
}

/* The fields that belong to the boot loader; of the image's own value nothing remains. */
static void fill_header(struct boot_params *bp, const struct load_image *img,
			const struct load_initrd *initrd)
{
	struct setup_header *h = &bp->hdr;

	h->vid_mode = VID_MODE_NORMAL;
	h->type_of_loader = LOADER_UNDEFINED;
	h->ext_loader_type = 0;
	h->ext_loader_ver = 0;
	h->loadflags &= (uint8_t) ~(CAN_USE_HEAP | KEEP_SEGMENTS);
	h->heap_end_ptr = 0;
	h->code32_start = (uint32_t)img->seg[0].gpa;
	h->hardware_subarch = X86_SUBARCH_PC;
	h->hardware_subarch_data = 0;
	h->setup_data = 0;
	h->cmd_line_ptr = BOARD_CMDLINE;
	h->ramdisk_image = (uint32_t)initrd->gpa;
	h->ramdisk_size = (uint32_t)initrd->size;
	bp->ext_ramdisk_image = (uint32_t)(initrd->gpa >> 32);
	bp->ext_ramdisk_size = (uint32_t)(initrd->size >> 32);
}

static void fill_e820(struct boot_params *bp, const struct load_params *p)
{
	struct load_map map;

	load_map_make(&map, p);
	bp->e820_entries = (uint8_t)map.n;
	for (unsigned i = 0; i < map.n; i++) {
		bp->e820_table[i].addr = map.entry[i].gpa;
		bp->e820_table[i].size = map.entry[i].size;
		bp->e820_table[i].type = map.entry[i].type;
	}
}

void load_write_boot_params(uint8_t *low, const struct load_params *p, const struct load_image *img,
			    const struct load_initrd *initrd)
{
	struct boot_params bp;

	memset(&bp, 0, sizeof(bp));
	/* By its real length: fields newer than this program reach the kernel, and nothing else
	 * does. */
	if (img->hdr_len)
		memcpy((uint8_t *)&bp + LOAD_HDR_OFF, img->hdr, img->hdr_len);
	else
		make_header(&bp.hdr);
	fill_header(&bp, img, initrd);
	fill_e820(&bp, p);
	bp.acpi_rsdp_addr = p->acpi_rsdp;
	memcpy(low + BOARD_BOOT_PARAMS, &bp, sizeof(bp));
}
