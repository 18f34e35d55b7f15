/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The ELF kernel inside a bzImage, decompressed once and cached (insula/image.h, image_unpack()).
 *
 * A bzImage decompresses itself in the guest: it copies itself, writes the kernel, and goes over it
 * again to relocate it, all on memory that nobody has touched before, so each page costs a nested
 * page fault. Unpacked, it starts at once.
 *
 * Linux: Documentation/arch/x86/boot.rst, payload_offset and payload_length (protocol 2.08). The
 * payload ends with the size of the kernel, which gzip has in its own trailer at the same place.
 * Every offset is checked against the file.
 */
#include <elf.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/image.h>

#include "cache.h"
#include "spawn.h"

#define FORMAT 1 /* of the cache entries */
#define SECTOR 512u
#define HEAD_LEN 0x260u
#define MAX_KERNEL (1u << 30)
#define SIZE_LEN 4u /* the size behind the compressed data */

/* Offsets in the setup header. */
#define SETUP_SECTS 0x1f1
#define HDR_MAGIC 0x202
#define HDR_VERSION 0x206
#define HDR_PAYLOAD_OFFSET 0x248
#define HDR_PAYLOAD_LENGTH 0x24c
#define MIN_VERSION 0x208
#define DEFAULT_SECTS 4

static const struct packing {
	const char *magic;
	uint8_t len;
	bool own_size; /* the size at the end belongs to the format */
	const char *program, *package;
} packings[] = {
	{"\x02\x21\x4c\x18", 4, false, "lz4", "lz4"},
	{"\x1f\x8b", 2, true, "gzip", "gzip"},
	{"\x28\xb5\x2f\xfd", 4, false, "zstd", "zstd"},
	{"\xfd"
	 "7zXZ",
	 5, false, "xz", "xz-utils"},
};

struct payload {
	uint64_t off;
	uint32_t len;      /* with the size behind it */
	uint32_t unpacked; /* bytes */
	const struct packing *packing;
};

static uint32_t le32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static const struct packing *recognise(const uint8_t *p)
{
	for (size_t i = 0; i < ARRAY_LEN(packings); i++) {
		if (!memcmp(p, packings[i].magic, packings[i].len))
			return &packings[i];
	}
	return NULL;
}

/* 1: found; 0: not a bzImage, or one that is packed in another way; negative: contradicts itself.
 */
static int find_payload(int fd, uint64_t size, struct payload *p, struct err *e)
{
	uint8_t head[HEAD_LEN], magic[8], tail[SIZE_LEN];
	unsigned sects;

	if (size < HEAD_LEN || read_full(fd, head, sizeof(head), 0) ||
	    memcmp(head + HDR_MAGIC, "HdrS", 4) != 0 ||
	    (le32(head + HDR_VERSION) & 0xffff) < MIN_VERSION)
		return 0;
	sects = head[SETUP_SECTS] ? head[SETUP_SECTS] : DEFAULT_SECTS;
	p->off = (uint64_t)(sects + 1) * SECTOR + le32(head + HDR_PAYLOAD_OFFSET);
	p->len = le32(head + HDR_PAYLOAD_LENGTH);
	if (p->len < sizeof(magic) + SIZE_LEN || p->off > size || p->len > size - p->off)
		return err_set(e, -ENOEXEC,
			       "kernel: %llu bytes, expected its payload of %u at %llu: truncated",
			       (unsigned long long)size, p->len, (unsigned long long)p->off);
	if (read_full(fd, magic, sizeof(magic), p->off) ||
	    read_full(fd, tail, sizeof(tail), p->off + p->len - SIZE_LEN))
		return err_set(e, -EIO, "kernel: cannot be read");
	p->packing = recognise(magic);
	p->unpacked = le32(tail);
	return p->packing != NULL && p->unpacked >= sizeof(Elf64_Ehdr) && p->unpacked <= MAX_KERNEL;
}

/* A decompressor reads its standard input to the end, so it gets the payload alone. */
static int copy_payload(int fd, const struct payload *p, struct err *e)
{
	size_t left = p->len - (p->packing->own_size ? 0 : SIZE_LEN);
	off_t off = (off_t)p->off;
	int mem = memfd_create("payload", MFD_CLOEXEC);

	if (mem < 0)
		return err_sys(e, -errno, "memory for the kernel");
	while (left) {
		ssize_t n = sendfile(mem, fd, &off, left);
		if (n <= 0) {
			int rc = n ? -errno : -ENODATA;
			close(mem);
			return err_sys(e, rc, "kernel");
		}
		left -= (size_t)n;
	}
	lseek(mem, 0, SEEK_SET);
	return mem;
}

static int check_result(int fd, const struct payload *p, struct err *e)
{
	char magic[SELFMAG];
	struct stat st;

	if (fstat(fd, &st) || st.st_size != (off_t)p->unpacked ||
	    read_full(fd, magic, sizeof(magic), 0) || memcmp(magic, ELFMAG, SELFMAG) != 0)
		return err_set(e, -ENOEXEC,
			       "kernel: its %s payload does not hold an ELF image of %u bytes",
			       p->packing->program, p->unpacked);
	return 0;
}

/* Not a byte more than the image claims: what decompresses without end must not fill the disk. */
static int spawn_limited(const struct spawn *s, uint32_t bytes, struct err *e)
{
	struct rlimit old, most;
	int rc;

	if (getrlimit(RLIMIT_FSIZE, &old))
		return err_sys(e, -errno, "RLIMIT_FSIZE");
	most = (struct rlimit){.rlim_cur = bytes, .rlim_max = old.rlim_max};
	if (old.rlim_cur < most.rlim_cur)
		most.rlim_cur = old.rlim_cur;
	if (setrlimit(RLIMIT_FSIZE, &most))
		return err_sys(e, -errno, "RLIMIT_FSIZE");
	rc = spawn_run(s, e);
	(void)setrlimit(RLIMIT_FSIZE, &old);
	return rc;
}

static int decompress(int fd, const struct payload *p, const struct cache *c, struct err *e)
{
	const char *const argv[] = {p->packing->program, "-dc", NULL};
	struct spawn s = {.argv = argv, .package = p->packing->package, .out = c->tmp, .extra = -1};
	struct err why;
	int rc;

	s.in = copy_payload(fd, p, e);
	if (s.in < 0)
		return s.in;
	rc = spawn_limited(&s, p->unpacked, &why);
	close(s.in);
	if (rc && cache_is_full(c))
		return cache_failed(c, -ENOSPC, "kernel", e);
	if (rc)
		return err_set(e, rc, "kernel: cannot be unpacked: %.200s", why.text);
	return check_result(c->tmp, p, e);
}

static int make_unpacked(struct cache *c, int fd, const struct payload *p, int *out, struct err *e)
{
	int rc = cache_begin(c, e);

	if (!rc)
		rc = decompress(fd, p, c, e);
	return rc ? rc : cache_commit(c, out, e);
}

int image_unpack(int kernel, const char *cache_dir, int *out, struct err *e)
{
	struct payload p = {0};
	struct cache c = {.dir = -1, .tmp = -1};
	struct hash subject, key;
	struct stat st;
	int rc;

	if (fstat(kernel, &st))
		return err_sys(e, -errno, "kernel");
	rc = find_payload(kernel, (uint64_t)st.st_size, &p, e);
	if (rc <= 0 || !p.packing)
		return rc < 0 ? rc : err_set(e, -ENOTSUP, "not a bzImage of a known packing");
	rc = cache_open(&c, cache_dir, e);
	if (!rc) {
		hash_init(&subject);
		hash_u64(&subject, st.st_dev);
		hash_u64(&subject, st.st_ino);
		hash_init(&key);
		hash_u64(&key, FORMAT);
		hash_stat(&key, &st);
		cache_name(&c, CACHE_KERNEL, &subject, &key);
		rc = cache_get(&c, out, e);
		if (rc == -ENOENT)
			rc = make_unpacked(&c, kernel, &p, out, e);
	}
	cache_close(&c);
	return rc;
}
