/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What insulactl cp gets from a guest: any bytes as an archive. Input: one byte of choice, then the
 * archive.
 *   bit 0     1: it is unpacked, else only read
 *   bits 1-2  what was asked for: nothing in particular, "x", "x" under another name, all of it
 *   bits 3-7  how many bytes arrive at a time, less one; all: everything
 *
 * Besides not crashing: a name and a link have an end, the bytes of an entry are as many as its
 * size; and beside the directory that it is unpacked into nothing changes, nor is anything but
 * files, directories and symbolic links in it, none of which leads out.
 */
#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <insula/base.h>

#include "ctl/tar.h"
#include "ctl/unpack.h"
#include "must.h"

struct input {
	const uint8_t *p;
	size_t n, step;
};

static char top[64], dir[80];

static int64_t give(void *ctx, void *buf, size_t len, struct err *e)
{
	struct input *in = ctx;

	(void)e;
	len = len < in->n ? len : in->n;
	len = len < in->step ? len : in->step;
	memcpy(buf, in->p, len);
	in->p += len;
	in->n -= len;
	return (int64_t)len;
}

static void read_all(struct input *in)
{
	static struct tar_entry n;
	struct tar_reader t = {.read = give, .ctx = in};
	char buf[700];
	struct err e;

	while (tar_next(&t, &n, &e) > 0) {
		uint64_t all = 0;
		int64_t got;

		MUST(memchr(n.name, 0, sizeof(n.name)) && n.name[0]);
		MUST(memchr(n.link, 0, sizeof(n.link)));
		MUST(!(n.mode & ~07777u));
		while ((got = tar_data(&t, buf, sizeof(buf), &e)) > 0)
			all += (uint64_t)got;
		MUST(got < 0 || all == n.size);
	}
}

static int clear_one(const char *path, const struct stat *st, int what, struct FTW *f)
{
	char target[PATH_MAX];
	bool kind = S_ISREG(st->st_mode) || S_ISDIR(st->st_mode) || S_ISLNK(st->st_mode);

	MUST(kind && !(st->st_mode & 07000));
	/* Where the link really leads; one that leads nowhere leads nowhere else, either. */
	if (what == FTW_SL && realpath(path, target))
		MUST(!strncmp(target, dir, strlen(dir)));
	(void)f;
	return 0;
}

static int remove_one(const char *path, const struct stat *st, int what, struct FTW *f)
{
	(void)st;
	(void)what;
	if (f->level)
		MUST(!remove(path));
	return 0;
}

static int open_one(const char *path, const struct stat *st, int what, struct FTW *f)
{
	(void)f;
	if (what == FTW_D || what == FTW_DNR)
		(void)chmod(path, st->st_mode | 0700);
	return 0;
}

/* There is `dir` in it, and nothing else. */
static void look_beside(void)
{
	DIR *d = opendir(top);
	unsigned n = 0;

	MUST(d);
	while (readdir(d))
		n++;
	closedir(d);
	MUST(n == 3);
}

static void ignore(void *ctx, const char *line)
{
	(void)ctx;
	(void)line;
}

static void unpack(struct input *in, unsigned how)
{
	static const char *const base[] = {NULL, "x", "x", NULL};
	static const char *const target[] = {"", "x", "y", "all"};
	struct tar_reader t = {.read = give, .ctx = in};
	struct unpack u = {.base = base[how], .target = target[how], .left_out = ignore};
	struct err e;

	u.top = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	MUST(u.top >= 0);
	(void)unpack_all(&u, &t, &e);
	close(u.top);
	look_beside();
	MUST(!nftw(dir, open_one, 32, FTW_PHYS));
	MUST(!nftw(dir, clear_one, 32, FTW_PHYS));
	MUST(!nftw(dir, remove_one, 32, FTW_PHYS | FTW_DEPTH));
}

static void clean_up(void)
{
	rmdir(dir);
	rmdir(top);
}

static void begin(void)
{
	if (top[0])
		return;
	strcpy(top, "/tmp/fuzz_tar.XXXXXX");
	MUST(mkdtemp(top));
	snprintf(dir, sizeof(dir), "%s/dir", top);
	MUST(!mkdir(dir, 0700));
	atexit(clean_up);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in;

	if (!size)
		return 0;
	begin();
	in = (struct input){data + 1, size - 1,
			    data[0] >> 3 == 31 ? SIZE_MAX : (data[0] >> 3) + 1u};
	if (data[0] & 1)
		unpack(&in, data[0] >> 1 & 3);
	else
		read_all(&in);
	return 0;
}
