/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The second part of the initrd: a cpio archive with /insula/config, for src/guest/config.c.
 * Records "key=value", each ended by a NUL: share and net repeat; hostname, root (ro, rw) and agent
 * (vsock) appear at most once.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/image.h>

#include "cpio.h"

static void record(FILE *f, const char *key, const char *value)
{
	fprintf(f, "%s=%s", key, value);
	fputc('\0', f);
}

static void records(FILE *f, const struct image_config *c)
{
	for (char *const *n = c->nets; n && *n; n++)
		record(f, "net", *n);
	if (c->hostname)
		record(f, "hostname", c->hostname);
	if (c->root != IMAGE_ROOT_INITRD)
		record(f, "root", c->root == IMAGE_ROOT_RW ? "rw" : "ro");
	if (c->agent)
		record(f, "agent", c->agent == IMAGE_AGENT_BESIDE ? "beside" : "vsock");
	for (char *const *s = c->share; s && *s; s++)
		record(f, "share", *s);
}

static int write_archive(int fd, const char *text, size_t len)
{
	struct cpio a;
	int r = cpio_begin(&a, fd);

	if (r)
		return r;
	cpio_dir(&a, "insula", 0755);
	cpio_file(&a, "insula/config", 0600, text, len);
	return cpio_end(&a);
}

int image_config_cpio(const struct image_config *c, int *out, struct err *e)
{
	const int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL;
	char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);
	int r, fd = -1;

	if (!f)
		return err_set(e, -ENOMEM, "out of memory");
	records(f, c);
	if (fclose(f)) {
		r = err_set(e, -ENOMEM, "out of memory");
		goto out_text;
	}
	fd = memfd_create("insula-config", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	r = fd < 0 ? -errno : write_archive(fd, text, len);
	if (!r && fcntl(fd, F_ADD_SEALS, seals))
		r = -errno;
	if (r) {
		err_sys(e, r, "configuration for the guest");
		fd_close(&fd);
		goto out_text;
	}
	*out = fd;
out_text:
	free(text);
	return r;
}
