/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ELF64 for x86-64: each PT_LOAD goes to its physical address. System V ABI, gABI chapters 4 and 5.
 *
 * Entry: the PVH note if there is one (PT_NOTE, name "Xen", type 18), else e_entry, which is a
 * physical address too.
 */
#include <elf.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include <insula/board.h>

#include "load_image.h"

#define XEN_NAME "Xen"
#define XEN_ELFNOTE_PHYS32_ENTRY 18

bool load_is_elf(const struct load_file *f)
{
	return f->head_len >= SELFMAG && memcmp(f->head, ELFMAG, SELFMAG) == 0;
}

static int check_header(const struct load_file *f, Elf64_Ehdr *eh, struct err *e)
{
	/* The class decides how long the header is, so it is looked at first. */
	if (f->head_len > EI_CLASS && f->head[EI_CLASS] == ELFCLASS32)
		return err_set(e, -ENOEXEC, "kernel: a 32-bit ELF, expected ELF64 for x86-64");
	int rc = load_read(f, "the ELF header", 0, eh, sizeof(*eh), e);
	if (rc)
		return rc;
	if (eh->e_ident[EI_CLASS] != ELFCLASS64 || eh->e_ident[EI_DATA] != ELFDATA2LSB ||
	    eh->e_ident[EI_VERSION] != EV_CURRENT)
		return err_set(e, -ENOEXEC,
			       "kernel: ELF class %u, data %u, version %u, expected 2, 1, 1 "
			       "(64-bit, little endian)",
			       eh->e_ident[EI_CLASS], eh->e_ident[EI_DATA],
			       eh->e_ident[EI_VERSION]);
	if (eh->e_machine != EM_X86_64)
		return err_set(e, -ENOEXEC, "kernel: ELF e_machine %u, expected %u (x86-64)",
			       eh->e_machine, EM_X86_64);
	if (eh->e_type != ET_EXEC && eh->e_type != ET_DYN)
		return err_set(e, -ENOEXEC, "kernel: ELF e_type %u, expected %u or %u (executable)",
			       eh->e_type, ET_EXEC, ET_DYN);
	if (eh->e_phentsize != sizeof(Elf64_Phdr) || eh->e_phnum == 0 ||
	    eh->e_phnum > LOAD_MAX_PHDRS)
		return err_set(e, -ENOEXEC,
			       "kernel: ELF e_phnum %u of e_phentsize %u, expected 1 to %u of %zu",
			       eh->e_phnum, eh->e_phentsize, LOAD_MAX_PHDRS, sizeof(Elf64_Phdr));
	return 0;
}

/* `i` is the number of the program header, for messages. */
static int check_segment(const struct load_file *f, const Elf64_Phdr *ph, unsigned i,
			 uint64_t low_end, struct err *e)
{
	if (ph->p_filesz > ph->p_memsz)
		return err_set(e, -ENOEXEC,
			       "kernel: ELF segment %u: p_filesz 0x%" PRIx64
			       " is larger than p_memsz 0x%" PRIx64,
			       i, ph->p_filesz, ph->p_memsz);
	if (ph->p_offset > f->size || ph->p_filesz > f->size - ph->p_offset)
		return err_set(e, -ENOEXEC,
			       "kernel: truncated: ELF segment %u has 0x%" PRIx64
			       " bytes at 0x%" PRIx64 ", the file has 0x%" PRIx64,
			       i, ph->p_filesz, ph->p_offset, f->size);
	if (ph->p_paddr < BOARD_KERNEL)
		return err_set(e, -ENOEXEC,
			       "kernel: ELF segment %u: p_paddr 0x%" PRIx64
			       " overlaps the boot structures, expected 0x%llx or more",
			       i, ph->p_paddr, BOARD_KERNEL);
	if (ph->p_paddr > BOARD_LOW_RAM_END || ph->p_memsz > BOARD_LOW_RAM_END - ph->p_paddr)
		return err_set(e, -ENOEXEC,
			       "kernel: ELF segment %u: p_paddr 0x%" PRIx64
			       " and p_memsz 0x%" PRIx64 ", expected to end below 0x%llx",
			       i, ph->p_paddr, ph->p_memsz, BOARD_LOW_RAM_END);
	if (ph->p_paddr + ph->p_memsz > low_end)
		return err_set(e, -ENOSPC,
			       "kernel: ELF segment %u: p_paddr 0x%" PRIx64
			       " and p_memsz 0x%" PRIx64 " need %" PRIu64
			       " MiB, the VM has %" PRIu64,
			       i, ph->p_paddr, ph->p_memsz, load_mib(ph->p_paddr + ph->p_memsz),
			       low_end >> 20);
	return 0;
}

static int add_segment(struct load_image *img, const Elf64_Phdr *ph, unsigned i, struct err *e)
{
	for (unsigned k = 0; k < img->nsegs; k++) {
		const struct load_seg *s = &img->seg[k];

		if (ph->p_paddr < s->gpa + s->memsz && s->gpa < ph->p_paddr + ph->p_memsz)
			return err_set(e, -ENOEXEC,
				       "kernel: ELF segment %u at 0x%" PRIx64
				       " overlaps another one at 0x%" PRIx64,
				       i, ph->p_paddr, s->gpa);
	}
	img->seg[img->nsegs++] = (struct load_seg){
		.gpa = ph->p_paddr,
		.memsz = ph->p_memsz,
		.off = ph->p_offset,
		.filesz = ph->p_filesz,
	};
	if (ph->p_paddr + ph->p_memsz > img->end)
		img->end = ph->p_paddr + ph->p_memsz;
	return 0;
}

static int plan_segments(const struct load_file *f, const Elf64_Phdr *ph, unsigned n,
			 uint64_t low_end, struct load_image *img, struct err *e)
{
	for (unsigned i = 0; i < n; i++) {
		int rc;

		if (ph[i].p_type == PT_INTERP)
			return err_set(
				e, -ENOEXEC,
				"kernel: a dynamically linked program (PT_INTERP), not a kernel");
		if (ph[i].p_type != PT_LOAD || ph[i].p_memsz == 0)
			continue;
		if ((rc = check_segment(f, &ph[i], i, low_end, e)) ||
		    (rc = add_segment(img, &ph[i], i, e)))
			return rc;
	}
	if (img->nsegs == 0)
		return err_set(e, -ENOEXEC, "kernel: ELF without a segment to load (PT_LOAD)");
	return 0;
}

static int check_entry(const struct load_image *img, const char *field, struct err *e)
{
	for (unsigned i = 0; i < img->nsegs; i++) {
		const struct load_seg *s = &img->seg[i];

		if (img->entry >= s->gpa && img->entry - s->gpa < s->memsz)
			return 0;
	}
	return err_set(e, -ENOEXEC,
		       "kernel: %s 0x%" PRIx64 " is in no segment, expected a physical address",
		       field, img->entry);
}

/* Name and description are each padded to 4 bytes, or to 8 in a segment that says so. */
static uint64_t pad(uint64_t n, uint64_t align)
{
	return (n + align - 1) & ~(align - 1);
}

struct note {
	Elf64_Nhdr h;
	char name[sizeof(XEN_NAME)];
	uint64_t desc_off, next; /* file offsets */
};

/* One note at `off`, which with all it holds must lie before `end`. */
static int read_note(const struct load_file *f, uint64_t off, uint64_t end, uint64_t align,
		     struct note *n, struct err *e)
{
	int rc = load_read(f, "an ELF note", off, &n->h, sizeof(n->h), e);
	uint64_t name_off = off + sizeof(n->h);

	if (rc)
		return rc;
	/* 32-bit sizes: no sum below can overflow. The padding after the last note may be missing.
	 */
	n->desc_off = off + pad(sizeof(n->h) + (uint64_t)n->h.n_namesz, align);
	n->next = off + pad(n->desc_off - off + n->h.n_descsz, align);
	if (name_off + n->h.n_namesz > end || (n->h.n_descsz && n->desc_off + n->h.n_descsz > end))
		return err_set(e, -ENOEXEC,
			       "kernel: ELF note at 0x%" PRIx64
			       ": n_namesz %u and n_descsz %u exceed PT_NOTE",
			       off, n->h.n_namesz, n->h.n_descsz);
	memset(n->name, 0, sizeof(n->name));
	if (n->h.n_namesz == sizeof(n->name))
		rc = load_read(f, "an ELF note", name_off, n->name, sizeof(n->name), e);
	return rc;
}

/* The entry of a PVH note: 32 or 64 bits of description. */
static int read_pvh_entry(const struct load_file *f, const struct note *n, uint64_t *entry,
			  struct err *e)
{
	if (n->h.n_descsz != 4 && n->h.n_descsz != 8)
		return err_set(e, -ENOEXEC, "kernel: PVH note: n_descsz %u, expected 4 or 8",
			       n->h.n_descsz);
	*entry = 0;
	return load_read(f, "the PVH note", n->desc_off, entry, n->h.n_descsz, e);
}

/* 1: found, 0: none in this segment. *budget bounds the work over all segments. */
static int search_notes(const struct load_file *f, const Elf64_Phdr *ph, unsigned *budget,
			uint64_t *entry, struct err *e)
{
	const uint64_t align = ph->p_align == 8 ? 8 : 4;
	uint64_t off = ph->p_offset, end;
	struct note n;

	if (off > f->size || ph->p_filesz > f->size - off)
		return err_set(e, -ENOEXEC,
			       "kernel: truncated: PT_NOTE has 0x%" PRIx64 " bytes at 0x%" PRIx64
			       ", the file has 0x%" PRIx64,
			       ph->p_filesz, off, f->size);
	for (end = off + ph->p_filesz; off < end && end - off >= sizeof(n.h); off = n.next) {
		int rc;

		if ((*budget)-- == 0)
			return err_set(e, -ENOEXEC, "kernel: more than %u ELF notes",
				       LOAD_MAX_NOTES);
		rc = read_note(f, off, end, align, &n, e);
		if (rc)
			return rc;
		if (n.h.n_type == XEN_ELFNOTE_PHYS32_ENTRY &&
		    memcmp(n.name, XEN_NAME, sizeof(n.name)) == 0) {
			rc = read_pvh_entry(f, &n, entry, e);
			return rc ? rc : 1;
		}
	}
	return 0;
}

static int plan_entry(const struct load_file *f, const Elf64_Ehdr *eh, const Elf64_Phdr *ph,
		      struct load_image *img, struct err *e)
{
	unsigned budget = LOAD_MAX_NOTES;

	for (unsigned i = 0; i < eh->e_phnum; i++) {
		int rc = ph[i].p_type == PT_NOTE ? search_notes(f, &ph[i], &budget, &img->entry, e)
						 : 0;

		if (rc < 0)
			return rc;
		if (rc == 0)
			continue;
		img->protocol = LOAD_PVH32;
		return check_entry(img, "PVH entry", e);
	}
	img->protocol = LOAD_LINUX64;
	img->entry = eh->e_entry;
	return check_entry(img, "e_entry", e);
}

int load_parse_elf(const struct load_file *f, uint64_t low_end, struct load_image *img,
		   struct err *e)
{
	Elf64_Phdr ph[LOAD_MAX_PHDRS];
	Elf64_Ehdr eh = {.e_phnum = 0};
	int rc;

	if ((rc = check_header(f, &eh, e)) ||
	    (rc = load_read(f, "the ELF program header table", eh.e_phoff, ph,
			    (uint64_t)eh.e_phnum * sizeof(ph[0]), e)) ||
	    (rc = plan_segments(f, ph, eh.e_phnum, low_end, img, e)) ||
	    (rc = plan_entry(f, &eh, ph, img, e)))
		return rc;
	img->initrd_limit = low_end;
	img->cmdline_max = LOAD_ELF_CMDLINE_MAX;
	return 0;
}
