/* SPDX-License-Identifier: BSD-2-Clause */
/* What the guest boots, on Windows: files that lie there. See boot.h. */
#include "os/win/win.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <insula/base.h>

#include "boot.h"
#include "cmdline.h"
#include "ends_win.h"
#include "paths.h"

#define ELF_MAGIC "\177ELF"
#define INITRD "insula-initrd"
#define INITRD_ROOT INITRD ".root" /* with what a root disk may need */

void boot_init(struct boot *b)
{
	*b = (struct boot){.kernel = -1, .initrd = {-1, -1}, .root_hold = -1};
}

void boot_close(struct boot *b)
{
	fd_close(&b->kernel);
	for (unsigned i = 0; i < VMM_MAX_INITRDS; i++)
		fd_close(&b->initrd[i]);
}

/* ---- kernel ---- */

/* A payload of its own is an ELF image that is not Linux: it gets no initrd. */
static bool is_elf(int fd)
{
	char magic[4];

	return !read_full(fd, magic, sizeof(magic), 0) && !memcmp(magic, ELF_MAGIC, sizeof(magic));
}

/* ---- initrd ---- */

/* NAME in the kernel's directory: its modules are this kernel's. */
static int open_beside(const char *kernel, const char *name, struct err *e)
{
	size_t dir = strlen(kernel);
	char path[IMAGE_PATH_MAX];
	int fd;

	while (dir && !strchr("\\/:", kernel[dir - 1]))
		dir--;
	if (snprintf(path, sizeof(path), "%.*s%s", (int)dir, kernel, name) >= (int)sizeof(path))
		return err_set(e, -ENAMETOOLONG, "--kernel: the path is too long");
	fd = file_open(path, "--kernel", e);
	if (fd == -ENOENT)
		return err_set(
			e, fd,
			"--kernel: there is no %.200s beside it; expected Insula's initrd for "
			"this kernel, as tools/windows-guest makes it, or --initrd",
			path);
	return fd;
}

static int add_own_initrd(struct boot *b, const struct vm_config *c, const char *kernel,
			  bool check_only, struct err *e)
{
	const struct image_config ic = {.hostname = c->hostname,
					.agent = c->command || c->serve_alone ? IMAGE_AGENT_ALONE
						 : c->serve                   ? IMAGE_AGENT_BESIDE
									      : IMAGE_AGENT_NONE,
					.root = !c->rootfs     ? IMAGE_ROOT_INITRD
						: c->rootfs_rw ? IMAGE_ROOT_RW
							       : IMAGE_ROOT_RO};

	b->initrd[0] = open_beside(kernel, c->rootfs ? INITRD_ROOT : INITRD, e);
	if (b->initrd[0] < 0)
		return b->initrd[0];
	b->ninitrds = 2;
	b->own_initrd = true;
	return check_only ? 0 : image_config_cpio(&ic, &b->initrd[1], e);
}

static int open_initrd(struct boot *b, const struct vm_config *c, const char *kernel,
		       bool check_only, struct err *e)
{
	int rc;

	if (c->initrd) {
		b->initrd[0] = file_open(c->initrd, "--initrd", e);
		b->ninitrds = 1;
		return b->initrd[0] < 0 ? b->initrd[0] : 0;
	}
	if (is_elf(b->kernel) && !c->command && !c->rootfs && !c->hostname)
		return 0;
	rc = boot_check_memory(b->kernel, c->mem, config_vcpus(c), e);
	return rc ? rc : add_own_initrd(b, c, kernel, check_only, e);
}

/* ---- root ---- */

static int open_rootfs(struct boot *b, const struct vm_config *c, struct err *e)
{
	wchar_t wide[WIN_PATH_CHARS];
	DWORD a;

	if (!MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, c->rootfs, -1, wide,
				 WIN_PATH_CHARS))
		return err_set(e, -EINVAL, "--rootfs: the path is too long, or not in UTF-8");
	a = GetFileAttributesW(wide);
	if (a == INVALID_FILE_ATTRIBUTES)
		return err_sys(e, win_errno(GetLastError()), "--rootfs: %s", c->rootfs);
	if (a & FILE_ATTRIBUTE_DIRECTORY)
		return err_set(
			e, -EOPNOTSUPP,
			"--rootfs: %.200s: a directory; not on Windows yet, expected an image",
			c->rootfs);
	if (snprintf(b->root_image, sizeof(b->root_image), "%s", c->rootfs) >=
	    (int)sizeof(b->root_image))
		return err_set(e, -ENAMETOOLONG, "--rootfs: the path is too long");
	b->root_ro = !c->rootfs_rw;
	return 0;
}

static int open_kernel(struct boot *b, const struct vm_config *c, const struct paths *p,
		       bool verbose, char path[IMAGE_PATH_MAX], struct err *e)
{
	int rc = 0;

	if (c->kernel)
		snprintf(path, IMAGE_PATH_MAX, "%s", c->kernel);
	else
		rc = paths_default_kernel(p, path, IMAGE_PATH_MAX, e);
	if (!rc)
		rc = b->kernel = file_open(path, "--kernel", e);
	return rc < 0 ? rc : cmdline_make(b->cmdline, c, verbose, e);
}

/* A VM that goes on from a snapshot has its kernel and initrd in its memory. */
int boot_open(struct boot *b, const struct vm_config *c, const struct paths *p, bool check_only,
	      bool verbose, struct err *e)
{
	char kernel[IMAGE_PATH_MAX];
	int rc = 0;

	boot_init(b);
	if (!c->restoring)
		rc = open_kernel(b, c, p, verbose, kernel, e);
	if (!rc && c->rootfs)
		rc = open_rootfs(b, c, e);
	if (!rc && !c->restoring)
		rc = open_initrd(b, c, kernel, check_only, e);
	b->own_initrd |= c->restoring && c->serve;
	if (rc)
		boot_close(b);
	return rc;
}

/* What an image or a directory of this host would be. */
json_object *boot_images(const struct boot *b, const struct vm_config *c)
{
	(void)b, (void)c;
	return json_object_new_array();
}

int boot_stale(json_object *booted, const struct paths *p, struct err *e)
{
	(void)booted, (void)p;
	return err_set(e, -EOPNOTSUPP, "a template: expected Linux");
}
