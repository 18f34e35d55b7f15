/* SPDX-License-Identifier: BSD-2-Clause */
/* The loader's main line: open, recognise, plan, place the initrd; then, when nothing can be wrong
 * any more, write. See load.h. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include <insula/base.h>
#include <insula/board.h>

#include "load_image.h"

uint64_t load_mib(uint64_t bytes)
{
	return (bytes >> 20) + ((bytes & 0xfffff) != 0);
}

int load_read(const struct load_file *f, const char *field, uint64_t off, void *buf, uint64_t len,
	      struct err *e)
{
	uint64_t n = 0;
	int rc;

	if (off > f->size || len > f->size - off)
		return err_set(e, -ENOEXEC,
			       "%s: truncated: %s needs %" PRIu64 " bytes at offset %" PRIu64
			       ", the file has %" PRIu64 " bytes",
			       f->what, field, len, off, f->size);
	if (off < f->head_len) {
		n = f->head_len - off < len ? f->head_len - off : len;
		memcpy(buf, f->head + off, n);
	}
	rc = len > n ? read_full(f->fd, (uint8_t *)buf + n, len - n, off + n) : 0;
	if (rc == -ENODATA)
		return err_set(e, rc, "%s: the file became shorter while it was read", f->what);
	return rc ? err_sys(e, rc, "%s: reading %s at offset %" PRIu64, f->what, field, off) : 0;
}

static int open_image(struct load_file *f, int fd, const char *what, struct err *e)
{
	int rc;

	f->fd = fd;
	f->what = what;
	f->size = 0;
	f->head_len = 0;
	rc = file_size(fd, &f->size);
	return rc == -EINVAL ? err_set(e, rc, "%s: not a regular file", what)
	       : rc          ? err_sys(e, rc, "%s: size", what)
			     : 0;
}

static int open_kernel(struct load_file *f, int fd, struct err *e)
{
	int rc = open_image(f, fd, "kernel", e);
	size_t n;

	if (rc)
		return rc;
	if (f->size == 0)
		return err_set(e, -ENOEXEC,
			       "kernel: the file is empty, expected a bzImage or an ELF vmlinux");
	n = f->size < sizeof(f->head) ? (size_t)f->size : sizeof(f->head);
	rc = load_read(f, "the header", 0, f->head, n, e);
	if (!rc)
		f->head_len = n;
	return rc;
}

/* What people hand over instead of a kernel, and what to do about it. */
static const struct mistake {
	uint16_t off;
	uint8_t len;
	uint8_t magic[6];
	const char *text;
} mistakes[] = {
	{0, 2, {0x1f, 0x8b}, "compressed with gzip: decompress it first (zcat)"},
	{0, 6, {0xfd, '7', 'z', 'X', 'Z', 0}, "compressed with xz: decompress it first (xzcat)"},
	{0, 4, {0x28, 0xb5, 0x2f, 0xfd}, "compressed with zstd: decompress it first (zstdcat)"},
	{0, 4, {0x04, 0x22, 0x4d, 0x18}, "compressed with lz4: decompress it first (lz4cat)"},
	{0, 4, {0x02, 0x21, 0x4c, 0x18}, "compressed with lz4: decompress it first (lz4cat)"},
	{0, 3, {'B', 'Z', 'h'}, "compressed with bzip2: decompress it first (bzcat)"},
	{0, 4, {0x89, 'L', 'Z', 'O'}, "compressed with lzop: decompress it first (lzop -dc)"},
	{0, 3, {0x5d, 0, 0}, "compressed with lzma: decompress it first (lzcat)"},
	{56, 4, {'A', 'R', 'M', 'd'}, "a Linux Image for ARM64, expected one for x86-64"},
	{56, 4, {'R', 'S', 'C', 0x05}, "a Linux Image for RISC-V, expected one for x86-64"},
	{0, 5, {'0', '7', '0', '7', '0'}, "a cpio archive: an initrd, not a kernel"},
	{0, 2, {'#', '!'}, "a script, not a kernel"},
};

static int refuse_unknown(const struct load_file *f, struct err *e)
{
	for (size_t i = 0; i < ARRAY_LEN(mistakes); i++) {
		const struct mistake *m = &mistakes[i];

		if (f->head_len >= (size_t)m->off + m->len &&
		    memcmp(f->head + m->off, m->magic, m->len) == 0)
			return err_set(e, -ENOEXEC, "kernel: %s", m->text);
	}
	return err_set(
		e, -ENOEXEC,
		"kernel: neither an ELF image nor a bzImage (\"HdrS\" at offset 514): %" PRIu64
		" bytes that begin with %02x %02x",
		f->size, f->head[0], f->head_len > 1 ? f->head[1] : 0);
}

static int parse_kernel(const struct load_file *f, uint64_t low_end, struct load_image *img,
			struct err *e)
{
	if (load_is_elf(f))
		return load_parse_elf(f, low_end, img, e);
	if (load_is_bzimage(f))
		return load_parse_bzimage(f, low_end, img, e);
	return refuse_unknown(f, e);
}

static int check_cmdline(const char *cmdline, const struct load_image *img, struct err *e)
{
	size_t n = strlen(cmdline);

	if (n > img->cmdline_max)
		return err_set(e, -E2BIG,
			       "command line: %zu characters, this kernel takes at most %" PRIu64,
			       n, img->cmdline_max);
	return 0;
}

struct parts {      /* of the initrd */
	unsigned n; /* opened and checked */
	struct load_file file[VMM_MAX_INITRDS];
	uint64_t total; /* bytes with the padding */
};

static int open_initrds(const struct load_params *p, struct parts *s, struct err *e)
{
	static const char *const name[VMM_MAX_INITRDS] = {"initrd 1", "initrd 2"};

	s->n = 0;
	s->total = 0;
	if (p->ninitrds > VMM_MAX_INITRDS)
		return err_set(e, -EINVAL, "initrd: %u parts, expected at most %u", p->ninitrds,
			       VMM_MAX_INITRDS);
	for (; s->n < p->ninitrds; s->n++) {
		struct load_file *f = &s->file[s->n];
		int rc = open_image(f, p->initrd_fd[s->n], name[s->n], e);

		if (rc)
			return rc;
		if (f->size == 0)
			return err_set(e, -EINVAL, "%s: the file is empty", f->what);
		if (f->size > gm_size(p->gm)) /* and the sum below cannot overflow */
			return err_set(e, -ENOSPC,
				       "%s: %" PRIu64 " bytes, the VM has %" PRIu64 " MiB", f->what,
				       f->size, gm_size(p->gm) >> 20);
		s->total += (f->size + 3) & ~3ull;
	}
	return 0;
}

/* As high as possible, so that the kernel may grow and move itself without meeting it. */
static int place_initrd(const struct load_image *img, uint64_t low_end, uint64_t size,
			struct load_initrd *initrd, struct err *e)
{
	const uint64_t mask = BOARD_PAGE - 1;
	uint64_t limit = img->initrd_limit < low_end ? img->initrd_limit : low_end;
	uint64_t floor = (img->end + mask) & ~mask;

	initrd->size = size;
	initrd->gpa = 0;
	if (size == 0)
		return 0;
	if (size <= limit)
		initrd->gpa = (limit - size) & ~mask;
	if (initrd->gpa < floor)
		return err_set(e, -ENOSPC,
			       "initrd: %" PRIu64
			       " bytes do not fit between the end of the kernel at 0x%" PRIx64
			       " and 0x%" PRIx64 ": together they need %" PRIu64 " MiB",
			       size, floor, limit, load_mib(floor + ((size + mask) & ~mask)));
	return 0;
}

/* Smaller ones are payloads and unikernels, which touch what they like. */
#define DENSE_KERNEL (8ull << 20)

static gpa_t lower(gpa_t a, gpa_t b)
{
	return a < b ? a : b;
}

/*
 * Linux fills two places before it runs its init. From the end of memory downwards: the memory map,
 * 1/64 of the memory, and its first tables. And from its own end upwards, block by block: what it
 * allocates and unpacks, for a distribution's kernel about half of its own size. Measured: of these
 * blocks a seventh is unused when init starts (docs/performance.md).
 */
unsigned load_dense(const struct load_image *img, const struct load_initrd *initrd,
		    const struct guestmem *gm, struct load_range out[LOAD_DENSE_MAX])
{
	const struct gm_region *last = &gm->region[gm->nregions - 1];
	const gpa_t low_end = gm->region[0].size, top = last->gpa + last->size;
	const bool high = gm->nregions > 1;
	const gpa_t limit = initrd->size ? initrd->gpa : low_end;
	struct load_range tail = {limit, initrd->size ? initrd->gpa + initrd->size : limit};
	const gpa_t floor = high ? last->gpa : tail.to;
	gpa_t first = img->end, size;
	unsigned n = 0;

	for (unsigned i = 0; i < img->nsegs; i++)
		first = lower(img->seg[i].gpa, first);
	size = img->end - first;
	out[n++] = (struct load_range){first, img->end};
	if (size >= DENSE_KERNEL) {
		const gpa_t tables = gm_size(gm) / 64 + size / 8;

		out[0].to = lower((img->end + size / 2 + GM_HUGE_PAGE - 1) & ~(GM_HUGE_PAGE - 1),
				  limit);
		/* An initrd far below the end of memory has a range of its own. */
		if (high || top - floor >= GM_HUGE_PAGE)
			out[n++] = (struct load_range){top - lower(tables, top - floor), top};
		else
			tail = (struct load_range){limit - lower(tables, limit - out[0].to), top};
	}
	out[n++] = tail;
	return n;
}

/* In 4 KiB pages each page costs a fault here or in the guest, or both. */
static void prepare(const struct load_params *p, const struct load_image *img,
		    const struct load_initrd *initrd)
{
	struct load_range r[LOAD_DENSE_MAX];
	unsigned n = load_dense(img, initrd, p->gm, r);

	/* Without it everything is as before, only slower: nothing to report. */
	for (unsigned i = 0; i < n; i++)
		(void)gm_collapse(p->gm, r[i].from, r[i].to);
}

static int copy_kernel(const struct load_params *p, const struct load_file *f,
		       const struct load_image *img, struct err *e)
{
	for (unsigned i = 0; i < img->nsegs; i++) {
		const struct load_seg *s = &img->seg[i];
		void *dst = gm_ptr(p->gm, s->gpa, s->memsz);
		int rc;

		if (!dst)
			return err_set(e, -EINVAL, "kernel: 0x%" PRIx64 " is not RAM", s->gpa);
		rc = load_read(f, "a segment", s->off, dst, s->filesz, e);
		if (rc)
			return rc;
	}
	return 0;
}

static int copy_initrds(const struct load_params *p, const struct parts *s,
			const struct load_initrd *initrd, struct err *e)
{
	uint8_t *dst = gm_ptr(p->gm, initrd->gpa, initrd->size);
	uint64_t off = 0;

	if (initrd->size && !dst)
		return err_set(e, -EINVAL, "initrd: 0x%" PRIx64 " is not RAM", initrd->gpa);
	for (unsigned i = 0; i < s->n; i++) {
		const struct load_file *f = &s->file[i];
		int rc = load_read(f, "the file", 0, dst + off, f->size, e);

		if (rc)
			return rc;
		for (off += f->size; off & 3; off++)
			dst[off] = 0;
	}
	return 0;
}

/* A kernel that resets its machine through the firmware jumps to F000:FFF0 in real mode. */
static void write_reset_code(uint8_t *low)
{
	static const uint8_t code[] = {
		0xba,
		BOARD_REG_RESET & 0xff,
		BOARD_REG_RESET >> 8, /* mov dx, BOARD_REG_RESET */
		0xb0,
		BOARD_RESET_VALUE, /* mov al, BOARD_RESET_VALUE */
		0xee,              /* out dx, al */
		0xf4,              /* hlt */
		0xeb,
		0xfd, /* jmp to the hlt */
	};

	_Static_assert(sizeof(code) <= BOARD_ACPI + BOARD_ACPI_SIZE - BOARD_RESET_CODE, "it fits");
	memcpy(low + BOARD_RESET_CODE, code, sizeof(code));
}

static void write_low(const struct load_params *p, const char *cmdline,
		      const struct load_image *img, const struct load_initrd *initrd, uint8_t *low)
{
	memcpy(low + BOARD_CMDLINE, cmdline, strlen(cmdline) + 1);
	write_reset_code(low);
	load_write_cpu_tables(low, img->protocol);
	if (img->protocol == LOAD_PVH32)
		load_write_start_info(low, p, initrd);
	else
		load_write_boot_params(low, p, img, initrd);
}

/* The caller's promises about guest memory: it begins at 0, and leaves the board's hole alone. */
static int check_memory(const struct guestmem *gm, struct err *e)
{
	const struct gm_region *r = gm->region;
	bool good = gm->nregions && !r->gpa && r->size > BOARD_KERNEL;

	for (unsigned i = 0; i < gm->nregions; i++)
		good &= r[i].gpa + r[i].size <= BOARD_LOW_RAM_END || r[i].gpa >= BOARD_HIGH_RAM;
	return good ? 0
		    : err_set(e, -EINVAL,
			      "guest memory does not fit the board: expected more than 1 MiB at 0, "
			      "and none from 0x%llx to 0x%llx",
			      BOARD_LOW_RAM_END, BOARD_HIGH_RAM);
}

int load_kernel(const struct load_params *p, struct load_entry *out, struct err *e)
{
	const uint64_t low_end = p->gm->region[0].size;
	const char *cmdline = p->cmdline ? p->cmdline : "";
	struct load_file kernel;
	struct parts parts;
	struct load_image img = {.nsegs = 0};
	struct load_initrd initrd = {.size = 0};
	int rc;

	if ((rc = check_memory(p->gm, e)) || (rc = open_kernel(&kernel, p->kernel_fd, e)) ||
	    (rc = parse_kernel(&kernel, low_end, &img, e)) ||
	    (rc = check_cmdline(cmdline, &img, e)) || (rc = open_initrds(p, &parts, e)) ||
	    (rc = place_initrd(&img, low_end, parts.total, &initrd, e)))
		return rc;

	prepare(p, &img, &initrd);
	if ((rc = copy_kernel(p, &kernel, &img, e)) || (rc = copy_initrds(p, &parts, &initrd, e)))
		return rc;
	write_low(p, cmdline, &img, &initrd, p->gm->region[0].host);
	*out = (struct load_entry){
		.protocol = img.protocol,
		.rip = img.entry,
		.rsi = img.protocol == LOAD_LINUX64 ? BOARD_BOOT_PARAMS : 0,
		.rbx = img.protocol == LOAD_PVH32 ? BOARD_PVH_INFO : 0,
	};
	return 0;
}
