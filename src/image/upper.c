/* SPDX-License-Identifier: BSD-2-Clause */
/* The disk that takes what a guest writes to its root (insula/image.h, image_upper()). */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/image.h>

#include "cache.h"
#include "spawn.h"

/* No journal, no reserve, no tables written before they are used: it is thrown away. */
static const char features[] = "none,dir_index,extent,filetype,flex_bg,sparse_super,large_file,"
			       "huge_file,dir_nlink,extra_isize,64bit,ext_attr";

static int format(int fd, uint64_t size, struct err *e)
{
	char blocks[24], target[32];
	/* clang-format off */
	const char *const argv[] = {
		"mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256", "-m", "0",
		"-L", "insula-upper", "-O", features,
		"-E", "lazy_itable_init=1,nodiscard,root_owner=0:0", target, blocks, NULL};
	/* clang-format on */
	const struct spawn s = {
		.argv = argv, .package = "e2fsprogs", .in = -1, .out = -1, .extra = fd};

	snprintf(target, sizeof(target), "/proc/self/fd/%d", SPAWN_FD);
	snprintf(blocks, sizeof(blocks), "%" PRIu64 "k", size / 1024);
	return spawn_run(&s, e);
}

int image_upper(uint64_t size, int *fd, struct err *e)
{
	struct cache c = {.dir = -1, .tmp = -1};
	char dir[IMAGE_PATH_MAX], own[32];
	int rc = image_store_dir(dir, e);

	*fd = -1;
	if (!rc)
		rc = cache_open(&c, dir, e);
	if (!rc)
		rc = cache_begin(&c, e);
	if (!rc && ftruncate(c.tmp, (off_t)size))
		rc = cache_failed(&c, -errno, "disk for the root", e);
	if (!rc)
		rc = format(c.tmp, size, e);
	if (rc && c.tmp >= 0 && cache_is_full(&c))
		rc = cache_failed(&c, -ENOSPC, "disk for the root", e);
	if (!rc) {
		/* Not a copy: a file that had a name is locked by whoever made it. */
		snprintf(own, sizeof(own), "/proc/self/fd/%d", c.tmp);
		*fd = open(own, O_RDWR | O_CLOEXEC);
		rc = *fd < 0 ? err_sys(e, -errno, "disk for the root") : 0;
	}
	cache_close(&c); /* its name goes, if it had one */
	return rc;
}
