/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The version of a kernel file. bzImage: Linux, Documentation/arch/x86/boot.rst, field
 * kernel_version (0x20e). ELF: the banner in its read-only data. The file is hostile input: every
 * offset is checked against what was read.
 */
#include <ctype.h>
#include <elf.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <insula/base.h>

#include "kernel.h"

#define SETUP_MAGIC_OFF 0x202
#define SETUP_VERSION_OFF 0x20e
#define SETUP_VERSION_BASE 0x200 /* kernel_version counts from here */
#define SETUP_MIN 0x210
#define BANNER "Linux version "

/* Copies a version, up to the first character that no version has. 0 characters: not a version. */
static size_t copy_version(char out[KERNEL_VERSION_MAX], const char *p, size_t len)
{
	size_t n = 0;

	while (n < len && n < KERNEL_VERSION_MAX - 1 && p[n] &&
	       (isalnum((unsigned char)p[n]) || strchr("._+~-", p[n]))) {
		out[n] = p[n];
		n++;
	}
	out[n] = '\0';
	if (n == 0 || !isdigit((unsigned char)out[0])) {
		out[0] = '\0';
		return 0;
	}
	return n;
}

static int bzimage_version(int fd, const char *path, const uint8_t *head,
			   char out[KERNEL_VERSION_MAX], struct err *e)
{
	char text[KERNEL_VERSION_MAX];
	uint16_t off;
	ssize_t n;

	memcpy(&off, head + SETUP_VERSION_OFF, sizeof(off));
	n = off ? pread(fd, text, sizeof(text), SETUP_VERSION_BASE + off) : 0;
	if (n <= 0 || !copy_version(out, text, (size_t)n))
		return err_set(e, -ENOEXEC, "%s: a bzImage that does not say its kernel version",
			       path);
	return 0;
}

static void banner_version(const char *p, size_t len, char out[KERNEL_VERSION_MAX])
{
	const char *end = p + len;

	out[0] = '\0';
	while ((p = memmem(p, (size_t)(end - p), BANNER, strlen(BANNER)))) {
		p += strlen(BANNER);
		if (copy_version(out, p, (size_t)(end - p)))
			return; /* not the format string "Linux version %s" */
	}
}

static int elf_version(int fd, const char *path, char out[KERNEL_VERSION_MAX], struct err *e)
{
	struct stat st;
	void *p;

	if (fstat(fd, &st))
		return err_sys(e, -errno, "%s", path);
	p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (p == MAP_FAILED)
		return err_sys(e, -errno, "%s", path);
	banner_version(p, (size_t)st.st_size, out);
	munmap(p, (size_t)st.st_size);
	return 0;
}

/* vmlinux-6.1.0-56-cloud-amd64, next to a module tree of that version: no need to search 50 MiB. */
static bool name_version(const char *path, bool (*known)(void *ctx, const char *version), void *ctx,
			 char out[KERNEL_VERSION_MAX])
{
	const char *base = strrchr(path, '/'), *dash = strchr(base ? base : path, '-');

	return dash && copy_version(out, dash + 1, strlen(dash + 1)) && known(ctx, out);
}

int kernel_version(int fd, const char *path, bool (*known)(void *ctx, const char *version),
		   void *ctx, char out[KERNEL_VERSION_MAX], bool *elf, struct err *e)
{
	uint8_t head[SETUP_MIN];
	ssize_t n = pread(fd, head, sizeof(head), 0);

	*elf = false;
	if (n < 0)
		return err_sys(e, -errno, "%s", path);
	if (n == (ssize_t)sizeof(head) && memcmp(head + SETUP_MAGIC_OFF, "HdrS", 4) == 0)
		return bzimage_version(fd, path, head, out, e);
	if (n < SELFMAG || memcmp(head, ELFMAG, SELFMAG) != 0)
		return err_set(e, -ENOEXEC, "%s: neither a bzImage nor an ELF image", path);
	*elf = true;
	if (name_version(path, known, ctx, out))
		return 0;
	return elf_version(fd, path, out, e);
}
