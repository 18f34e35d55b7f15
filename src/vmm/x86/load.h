/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The boot loader: a kernel, its initrd and its command line into guest memory, and how vCPU 0
 * starts.
 *
 * Formats: bzImage (Linux boot protocol 2.12 or newer with a 64-bit entry) and ELF64 x86-64
 * (vmlinux, or a bare-metal payload): with a XEN_ELFNOTE_PHYS32_ENTRY note by the PVH boot ABI,
 * else by the 64-bit Linux boot protocol. Linux: Documentation/arch/x86/boot.rst and zero-page.rst.
 * PVH: xen/docs/misc/pvh.pandoc.
 *
 * Everything in the files is hostile. Stages: (1) read the headers, once, into private memory; (2)
 * check everything, choose every place; nothing has been written until here; (3) read the contents
 * straight into guest memory and write the boot structures. Only (3) can leave guest memory half
 * written, and only when reading fails.
 *
 * No allocation, no path, no seek: fstat(2) and pread(2) on the descriptors given. The guest must
 * not run yet.
 */
#ifndef VMM_LOAD_H
#define VMM_LOAD_H

#include <stdint.h>

#include <insula/err.h>
#include <insula/guestmem.h>
#include <insula/hv.h>
#include <insula/proto.h>

struct load_params {
	const struct guestmem
		*gm; /* as gm_map() makes it; all zero except the ACPI area. Its first region begins
		      * at 0, and none lies in the board's hole (board.h) */
	int kernel_fd; /* regular files or memfds, readable; the caller's; no offset is moved */
	int initrd_fd[VMM_MAX_INITRDS];
	unsigned ninitrds;     /* loaded one after the other, each padded to 4 bytes with zeros */
	const char *cmdline;   /* NULL: empty */
	uint64_t acpi_rsdp;    /* gpa, 0: none */
	unsigned pci_buses;    /* whose configuration space is reserved */
	struct mem_region epc; /* memory for enclaves, behind all other; size 0: none */
};

enum load_protocol {
	LOAD_LINUX64 = 1, /* long mode, rsi = struct boot_params */
	LOAD_PVH32,       /* 32-bit protected mode, paging off, ebx = struct hvm_start_info */
};

struct load_entry { /* how vCPU 0 starts; all addresses are guest physical */
	enum load_protocol protocol;
	uint64_t rip, rsi, rbx;
};

/*
 * Load. On failure the text begins with "kernel", "initrd N" or "command line" and names the field,
 * its value and what was expected:
 *
 *   -ENOEXEC  not a kernel that can be booted here, or a truncated or contradictory one
 *   -E2BIG    the command line is longer than the kernel takes
 *   -ENOSPC   kernel or initrd do not fit into this much memory
 *   -EINVAL   not a regular file, an empty initrd, or parameters that contradict each other (a bug
 *             of the caller)
 *   -ENODATA  a file became shorter while it was read
 *   else      the errno of fstat(2) or pread(2)
 */
int load_kernel(const struct load_params *p, struct load_entry *out, struct err *e);

/* The whole register state of vCPU 0 for this entry. */
void load_entry_regs(const struct load_entry *entry, struct hv_regs *r);

#endif
