/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The second part of the initrd: a cpio archive with /insula/config, for src/guest/config.c.
 * Records "key=value", each ended by a NUL: share, fs and net repeat; hostname, root (ro, rw),
 * layers (how many), upper (disk), dir, agent (vsock, beside) and template (yes) appear at most
 * once.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>
#include <insula/image.h>

#include "cpio.h"

#define TEXT_MAX 65536u

struct text {
	char *at;
	size_t len;
	bool full;
};

static void record(struct text *t, const char *key, const char *value)
{
	size_t room = TEXT_MAX - t->len;
	int n = snprintf(t->at + t->len, room, "%s=%s", key, value);

	if (n < 0 || (size_t)n >= room)
		t->full = true;
	else
		t->len += (size_t)n + 1; /* with its NUL */
}

static void records(struct text *t, const struct image_config *c)
{
	char number[16];

	for (char *const *n = c->nets; n && *n; n++)
		record(t, "net", *n);
	if (c->hostname)
		record(t, "hostname", c->hostname);
	if (c->root != IMAGE_ROOT_INITRD)
		record(t, "root", c->root == IMAGE_ROOT_RW ? "rw" : "ro");
	if (c->layers) {
		snprintf(number, sizeof(number), "%u", c->layers);
		record(t, "layers", number);
	}
	if (c->upper)
		record(t, "upper", "disk");
	if (c->dir)
		record(t, "dir", c->dir);
	if (c->agent)
		record(t, "agent", c->agent == IMAGE_AGENT_BESIDE ? "beside" : "vsock");
	if (c->template)
		record(t, "template", "yes");
	for (char *const *s = c->share; s && *s; s++)
		record(t, "share", *s);
	for (char *const *s = c->fs; s && *s; s++)
		record(t, "fs", *s);
}

static int write_archive(int fd, const struct text *t)
{
	struct cpio a;
	int r = cpio_begin(&a, fd);

	if (r)
		return r;
	cpio_dir(&a, "insula", 0755);
	cpio_file(&a, "insula/config", 0600, t->at, t->len);
	return cpio_end(&a);
}

int image_config_cpio(const struct image_config *c, int *out, struct err *e)
{
	struct text t = {.at = malloc(TEXT_MAX)};
	int r, fd = -1;

	if (!t.at)
		return err_set(e, -ENOMEM, "out of memory");
	records(&t, c);
	r = t.full ? -E2BIG : (fd = memfile_create("insula-config"));
	if (r >= 0)
		r = write_archive(fd, &t);
	if (!r)
		r = memfile_seal(&fd);
	free(t.at);
	if (r) {
		fd_close(&fd);
		return err_sys(e, r, "configuration for the guest");
	}
	*out = fd;
	return 0;
}
