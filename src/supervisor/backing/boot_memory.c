/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Whether a Linux kernel has a chance in so much memory. See boot.h.
 *
 * The file is hostile input, and only headers are read: of a bzImage its setup header (Linux,
 * Documentation/arch/x86/boot.rst, init_size: protocol 2.10), of an ELF image its program headers.
 * Whatever is wrong with them is for the loader to find, in its jail: then nothing is said here.
 */
#include <elf.h>
#include <errno.h>
#include <string.h>

#include <insula/base.h>

#include "boot.h"

#define HDR_MAGIC 0x202
#define HDR_VERSION 0x206
#define HDR_INIT_SIZE 0x260
#define HDR_LEN 0x264
#define HDR_VERSION_MIN 0x20a
#define MAX_PHDRS 64

/* Measured with a distribution's cloud kernel, init_size 51 MiB: one processor starts its init in
 * 76 MiB and not in 72, four in 80 and not in 76. */
#define OTHERS (5ull << 20) /* the initrd, packed and unpacked */
#define EACH_CPU (512ull << 10)
#define ADVICE (16ull << 20) /* what is recommended is a multiple of it */

static uint64_t bzimage_size(int kernel)
{
	uint8_t head[HDR_LEN];
	uint32_t magic, init_size;
	uint16_t version;

	if (read_full(kernel, head, sizeof(head), 0))
		return 0;
	memcpy(&magic, head + HDR_MAGIC, sizeof(magic));
	memcpy(&version, head + HDR_VERSION, sizeof(version));
	memcpy(&init_size, head + HDR_INIT_SIZE, sizeof(init_size));
	return memcmp(&magic, "HdrS", sizeof(magic)) == 0 && version >= HDR_VERSION_MIN ? init_size
											: 0;
}

static uint64_t elf_size(int kernel)
{
	uint64_t first = UINT64_MAX, end = 0;
	Elf64_Ehdr eh;
	Elf64_Phdr ph;

	if (read_full(kernel, &eh, sizeof(eh), 0) || memcmp(eh.e_ident, ELFMAG, SELFMAG) != 0 ||
	    eh.e_phentsize != sizeof(ph) || eh.e_phnum > MAX_PHDRS)
		return 0;
	for (unsigned i = 0; i < eh.e_phnum; i++) {
		if (eh.e_phoff > INT64_MAX - MAX_PHDRS * sizeof(ph) ||
		    read_full(kernel, &ph, sizeof(ph), eh.e_phoff + i * sizeof(ph)) ||
		    ph.p_paddr + ph.p_memsz < ph.p_paddr)
			return 0;
		if (ph.p_type != PT_LOAD)
			continue;
		first = ph.p_paddr < first ? ph.p_paddr : first;
		end = ph.p_paddr + ph.p_memsz > end ? ph.p_paddr + ph.p_memsz : end;
	}
	return end > first ? end - first : 0;
}

int boot_check_memory(int kernel, uint64_t mem, unsigned cpus, struct err *e)
{
	uint64_t size = bzimage_size(kernel), need;

	if (!size)
		size = elf_size(kernel);
	if (!size || size > UINT32_MAX)
		return 0;
	/* What a kernel allocates before its init is about a third of its own size. */
	need = size + size / 3 + OTHERS + (cpus - 1) * EACH_CPU;
	if (mem >= need)
		return 0;
	return err_set(e, -EINVAL, "--mem %lluM is too small for this kernel; use at least %lluM",
		       (unsigned long long)(mem >> 20),
		       (unsigned long long)((need + ADVICE - 1) / ADVICE * ADVICE >> 20));
}
