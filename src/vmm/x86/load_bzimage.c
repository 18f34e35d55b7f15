/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * bzImage: boot sector and real-mode setup (not used here), then the 32/64-bit kernel, which
 * unpacks itself. Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header" and "64-bit Boot
 * Protocol".
 */
#include <asm/bootparam.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include <insula/board.h>

#include "load_image.h"

#define MAGIC_OFF 0x202    /* "HdrS" */
#define HDR_MIN_END 0x268  /* what protocol 2.12 has: up to and with handover_offset */
#define VERSION_MIN 0x020c /* 2.12: xloadflags */
#define BOOT_FLAG 0xaa55
#define SECTOR 512u
#define SETUP_SECTS_OF_OLD 4 /* what setup_sects 0 means */
#define ENTRY64 0x200        /* startup_64 in the protected-mode part */

bool load_is_bzimage(const struct load_file *f)
{
	return f->head_len >= MAGIC_OFF + 4 && memcmp(f->head + MAGIC_OFF, "HdrS", 4) == 0;
}

/* The header ends where the jump at its beginning goes to. */
static int copy_header(const struct load_file *f, struct load_image *img, struct setup_header *h,
		       struct err *e)
{
	size_t end = MAGIC_OFF + (size_t)f->head[MAGIC_OFF - 1];

	if (end < HDR_MIN_END || end > LOAD_HDR_END)
		return err_set(e, -ENOEXEC,
			       "kernel: setup header ends at 0x%zx, expected 0x%x to 0x%x", end,
			       HDR_MIN_END, LOAD_HDR_END);
	if (end > f->head_len)
		return err_set(
			e, -ENOEXEC,
			"kernel: truncated: the setup header ends at 0x%zx, the file has %" PRIu64
			" bytes",
			end, f->size);
	img->hdr_len = end - LOAD_HDR_OFF;
	memcpy(img->hdr, f->head + LOAD_HDR_OFF, img->hdr_len);
	memset(h, 0, sizeof(*h));
	memcpy(h, img->hdr, img->hdr_len < sizeof(*h) ? img->hdr_len : sizeof(*h));
	return 0;
}

static int check_version(const struct setup_header *h, struct err *e)
{
	if (h->boot_flag != BOOT_FLAG)
		return err_set(e, -ENOEXEC, "kernel: boot_flag 0x%04x, expected 0x%04x",
			       h->boot_flag, BOOT_FLAG);
	if (h->version < VERSION_MIN)
		return err_set(e, -ENOEXEC, "kernel: boot protocol %u.%02u, expected 2.12 or newer",
			       h->version >> 8, h->version & 0xff);
	if (!(h->loadflags & LOADED_HIGH))
		return err_set(e, -ENOEXEC,
			       "kernel: loadflags 0x%02x: a zImage, expected a bzImage",
			       h->loadflags);
	if (!(h->xloadflags & XLF_KERNEL_64))
		return err_set(e, -ENOEXEC,
			       "kernel: xloadflags 0x%04x: a 32-bit kernel, expected a 64-bit one",
			       h->xloadflags);
	return 0;
}

/* Where the protected-mode part is in the file. */
static int check_file(const struct load_file *f, const struct setup_header *h, struct load_seg *s,
		      struct err *e)
{
	unsigned sects = h->setup_sects ? h->setup_sects : SETUP_SECTS_OF_OLD;

	s->off = (uint64_t)(sects + 1) * SECTOR;
	s->filesz = (uint64_t)h->syssize * 16;
	if (s->off > f->size || s->filesz > f->size - s->off)
		return err_set(e, -ENOEXEC,
			       "kernel: truncated: setup_sects %u and syssize 0x%x make %" PRIu64
			       " bytes, the file has %" PRIu64,
			       h->setup_sects, h->syssize, s->off + s->filesz, f->size);
	if (s->filesz <= ENTRY64)
		return err_set(e, -ENOEXEC,
			       "kernel: syssize 0x%x: nothing at the 64-bit entry 0x%x", h->syssize,
			       ENTRY64);
	if (h->payload_offset > s->filesz || h->payload_length > s->filesz - h->payload_offset)
		return err_set(e, -ENOEXEC,
			       "kernel: payload_offset 0x%x and payload_length 0x%x exceed the "
			       "kernel's 0x%" PRIx64 " bytes",
			       h->payload_offset, h->payload_length, s->filesz);
	return 0;
}

/*
 * The kernel runs at pref_address, or higher if it was loaded higher; loaded lower it moves itself
 * there. So there is no other place that would need less memory, and from there on it needs
 * init_size bytes.
 */
static int check_bzimage_memory(const struct setup_header *h, uint64_t low_end, struct load_seg *s,
				struct err *e)
{
	const uint64_t align = h->relocatable_kernel ? h->kernel_alignment : BOARD_PAGE;

	s->gpa = h->pref_address;
	s->memsz = h->init_size > s->filesz ? h->init_size : s->filesz;
	if (align < BOARD_PAGE || (align & (align - 1)))
		return err_set(e, -ENOEXEC,
			       "kernel: kernel_alignment 0x%" PRIx64
			       ", expected a power of two from 0x1000",
			       align);
	if (s->gpa < BOARD_KERNEL || s->gpa % align)
		return err_set(e, -ENOEXEC,
			       "kernel: pref_address 0x%" PRIx64
			       ", expected 0x%llx or more, aligned to 0x%" PRIx64,
			       s->gpa, BOARD_KERNEL, align);
	if (s->gpa > BOARD_LOW_RAM_END || s->memsz > BOARD_LOW_RAM_END - s->gpa)
		return err_set(e, -ENOEXEC,
			       "kernel: pref_address 0x%" PRIx64
			       " and init_size 0x%x, expected to end below 0x%llx",
			       s->gpa, h->init_size, BOARD_LOW_RAM_END);
	if (s->gpa + s->memsz > low_end)
		return err_set(e, -ENOSPC,
			       "kernel: pref_address 0x%" PRIx64 " and init_size 0x%x need %" PRIu64
			       " MiB, the VM has %" PRIu64,
			       s->gpa, h->init_size, load_mib(s->gpa + s->memsz), low_end >> 20);
	return 0;
}

int load_parse_bzimage(const struct load_file *f, uint64_t low_end, struct load_image *img,
		       struct err *e)
{
	struct load_seg *s = &img->seg[0];
	struct setup_header h = {.header = 0};
	int rc;

	if ((rc = copy_header(f, img, &h, e)) || (rc = check_version(&h, e)) ||
	    (rc = check_file(f, &h, s, e)) || (rc = check_bzimage_memory(&h, low_end, s, e)))
		return rc;
	img->nsegs = 1;
	img->protocol = LOAD_LINUX64;
	img->entry = s->gpa + ENTRY64;
	img->end = s->gpa + s->memsz;
	img->initrd_limit = (uint64_t)h.initrd_addr_max + 1;
	img->cmdline_max =
		h.cmdline_size < BOARD_CMDLINE_MAX ? h.cmdline_size : BOARD_CMDLINE_MAX - 1;
	return 0;
}
