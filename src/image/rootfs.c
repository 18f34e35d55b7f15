/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Root images: a directory becomes a sparse ext4 image, made by mke2fs.
 *
 * Stages: walk the tree in a fixed order and hash what identifies each entry (the manifest); take
 * the image from the cache; or run mke2fs into a new cache entry, and walk again. If the manifest
 * has changed meanwhile, the directory never was in the image's state, and the image is dropped.
 */
#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/image.h>

#include "cache.h"
#include "spawn.h"

/* Part of every key: count up when the image's format changes. */
#define BUILDER_VERSION 2

#define BLOCK 4096u
#define INODE_SIZE 256u
#define SLACK_BYTES (16u << 20)
#define HOLES_RATIO \
	4 /* a file that has this many times fewer blocks than bytes is sparse, not compressed */

/* No journal: the image is never written after it is made. */
static const char features[] =
	"none,dir_index,extent,filetype,flex_bg,sparse_super,large_file,huge_file,dir_nlink,"
	"extra_isize,64bit,metadata_csum,ext_attr";

struct manifest {
	struct hash hash;
	uint64_t bytes; /* of data, in whole blocks */
	uint64_t inodes;
	bool mounts; /* something is mounted below */
};

static int by_name(const FTSENT **a, const FTSENT **b)
{
	return strcmp((*a)->fts_name, (*b)->fts_name);
}

static uint64_t blocks(uint64_t bytes)
{
	return (bytes + BLOCK - 1) / BLOCK * BLOCK;
}

static uint64_t data_size(const struct stat *st)
{
	uint64_t size = (uint64_t)st->st_size,
		 used = (uint64_t)st->st_blocks * 512 * HOLES_RATIO + (1u << 20);

	if (S_ISDIR(st->st_mode))
		return blocks(size) + BLOCK;
	if (S_ISREG(st->st_mode))
		return blocks(size < used ? size : used) +
		       BLOCK / 8; /* and its share of extent blocks */
	return BLOCK;             /* a long symbolic link */
}

/* The mount that a directory is on: st_dev cannot tell a btrfs subvolume or a bind mount. */
static int mount_id(const char *path, uint64_t *id)
{
	struct statx sx;

	if (statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, STATX_MNT_ID, &sx))
		return -errno;
	if (!(sx.stx_mask & STATX_MNT_ID))
		return -EOPNOTSUPP; /* Linux < 5.8 */
	*id = sx.stx_mnt_id;
	return 0;
}

static int visit(FTS *t, FTSENT *f, uint64_t root_mount, struct manifest *m, struct err *e)
{
	uint64_t id = 0;
	int r;

	switch (f->fts_info) {
	case FTS_DP:
		return 0;
	case FTS_DNR:
	case FTS_ERR:
	case FTS_NS:
		return err_sys(e, -f->fts_errno, "%s", f->fts_path);
	case FTS_DC:
		return err_set(e, -ELOOP, "%s: a directory that contains itself", f->fts_path);
	case FTS_D:
		r = mount_id(f->fts_accpath, &id);
		if (r)
			return err_sys(e, r, "%s", f->fts_path);
		if (id != root_mount) {
			m->mounts = true;
			hash_str(&m->hash, f->fts_path);
			fts_set(t, f, FTS_SKIP);
			m->bytes += BLOCK;
			m->inodes++;
			return 0;
		}
		break;
	default:
		break;
	}
	hash_str(&m->hash, f->fts_path);
	hash_stat(&m->hash, f->fts_statp);
	m->bytes += data_size(f->fts_statp);
	m->inodes++;
	return 0;
}

static int manifest_make(char *dir, struct manifest *m, struct err *e)
{
	char *const roots[] = {dir, NULL};
	uint64_t id = 0;
	FTSENT *f;
	FTS *t;
	int r = mount_id(dir, &id);

	*m = (struct manifest){0};
	hash_init(&m->hash);
	hash_u64(&m->hash, BUILDER_VERSION);
	if (r)
		return err_sys(e, r, "%s", dir);
	t = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, by_name);
	if (!t)
		return err_sys(e, -errno, "%s", dir);
	errno = 0;
	while (!r && (f = fts_read(t))) {
		r = visit(t, f, id, m, e);
		errno = 0;
	}
	if (!r && errno)
		r = err_sys(e, -errno, "%s", dir);
	fts_close(t);
	return r;
}

struct pack {
	const struct image_rootfs_params *p;
	const struct manifest *m;
	int fd;
};

static int tick(void *ctx, struct err *e)
{
	const struct pack *k = ctx;
	struct stat st;

	if (fstat(k->fd, &st) == 0)
		k->p->progress(k->p->ctx, k->p->dir, (uint64_t)st.st_blocks * 512, k->m->bytes);
	(void)e;
	return 0;
}

/* Room for the data and the metadata. The image is sparse, so being generous costs nothing. */
static uint64_t image_size(const struct manifest *m, uint64_t inodes)
{
	uint64_t data = m->bytes + inodes * INODE_SIZE;

	return blocks(data + data / 16 + SLACK_BYTES);
}

static int run_mke2fs(const struct image_rootfs_params *p, const char *dir,
		      const struct manifest *m, int fd, struct err *e)
{
	uint64_t inodes = m->inodes + m->inodes / 8 + 64;
	char count[24], size[24], target[32];
	struct pack k = {.p = p, .m = m, .fd = fd};
	/* clang-format off */
	const char *const argv[] = {
		"mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256", "-m", "0", "-N", count,
		"-L", "insula-root", "-O", features, "-E", "lazy_itable_init=1,nodiscard",
		"-d", dir, target, size, NULL};
	/* clang-format on */
	struct spawn s = {.argv = argv, .package = "e2fsprogs", .in = -1, .out = -1, .extra = fd};
	int r;

	snprintf(count, sizeof(count), "%" PRIu64, inodes);
	snprintf(size, sizeof(size), "%" PRIu64 "k", image_size(m, inodes) / 1024);
	snprintf(target, sizeof(target), "/proc/self/fd/%d", SPAWN_FD);
	s.bare = m->mounts ? dir : NULL;
	s.tick = p->progress ? tick : NULL;
	s.ctx = &k;
	r = spawn_run(&s, e);
	if (p->progress)
		p->progress(p->ctx, p->dir, m->bytes, m->bytes);
	if (r && m->mounts && geteuid() != 0)
		return err_set(
			e, -EPERM,
			"%s: something is mounted below it; only root can pack it without that",
			dir);
	return r;
}

/* mke2fs makes a lost+found for a repair that an image, which nobody writes to, never needs. */
static int drop_lost_found(const char *dir, int fd, struct err *e)
{
	char target[32];
	const char *const argv[] = {"debugfs", "-w", "-R", "rmdir /lost+found", target, NULL};
	const struct spawn s = {
		.argv = argv, .package = "e2fsprogs", .in = -1, .out = -1, .extra = fd};
	char own[IMAGE_PATH_MAX + 16];
	struct stat st;

	snprintf(own, sizeof(own), "%s/lost+found", dir);
	if (!lstat(own, &st))
		return 0; /* the directory's own */
	snprintf(target, sizeof(target), "/proc/self/fd/%d", SPAWN_FD);
	return spawn_run(&s, e);
}

static int pack(const struct image_rootfs_params *p, char *dir, const struct manifest *m,
		struct cache *c, int *hold, struct err *e)
{
	struct manifest after;
	int r = cache_begin(c, e);

	if (r)
		return r;
	r = run_mke2fs(p, dir, m, c->tmp, e);
	if (!r)
		r = drop_lost_found(dir, c->tmp, e);
	if (r)
		return cache_is_full(c) ? cache_failed(c, -ENOSPC, "root image", e) : r;
	r = manifest_make(dir, &after, e);
	if (r)
		return r;
	if (after.hash.v != m->hash.v)
		return err_set(e, -EAGAIN, "%s changed while it was packed", dir);
	return cache_commit(c, hold, e);
}

/* An image that lies in the directory it was made from would change it. */
static int check_cache_outside(const char *dir, const char *cache_dir, struct err *e)
{
	size_t len = strlen(dir);
	char *cache = realpath(cache_dir, NULL);
	int r = 0;

	if (!cache)
		return err_sys(e, -errno, "cache directory %s", cache_dir);
	if (len == 1 || (strncmp(cache, dir, len) == 0 && (cache[len] == '/' || !cache[len])))
		r = err_set(
			e, -EINVAL,
			"cache directory %s lies in %s, which is to be packed: set XDG_CACHE_HOME",
			cache, dir);
	free(cache);
	return r;
}

int image_rootfs(const struct image_rootfs_params *p, char path[IMAGE_PATH_MAX], int *hold,
		 struct err *e)
{
	struct cache c = {.dir = -1, .tmp = -1};
	struct hash subject;
	struct manifest m;
	struct stat st;
	int r = 0;
	char *dir = realpath(p->dir, NULL); /* mke2fs and the mount namespace need one that does not
					       depend on where we are */

	if (!dir)
		return err_sys(e, -errno, "root file system %s", p->dir);
	if (stat(dir, &st))
		r = err_sys(e, -errno, "root file system %s", dir);
	else if (!S_ISDIR(st.st_mode))
		r = err_set(e, -ENOTDIR, "root file system %s: not a directory", dir);
	if (!r)
		r = cache_open(&c, p->cache_dir, e);
	if (!r)
		r = check_cache_outside(dir, p->cache_dir, e);
	if (!r)
		r = manifest_make(dir, &m, e);
	if (r)
		goto out;
	hash_init(&subject);
	hash_str(&subject, dir);
	cache_name(&c, CACHE_ROOTFS, &subject, &m.hash);
	r = cache_get(&c, hold, e);
	if (r == -ENOENT)
		r = pack(p, dir, &m, &c, hold, e);
	if (!r && snprintf(path, IMAGE_PATH_MAX, "%s/%s", p->cache_dir, c.name) >= IMAGE_PATH_MAX) {
		fd_close(hold);
		r = err_set(e, -ENAMETOOLONG, "the path of the cache directory is too long");
	}
out:
	cache_close(&c);
	free(dir);
	return r;
}

void image_progress_what(void *ctx, const char *what, uint64_t done, uint64_t total)
{
	(void)ctx;
	if (!isatty(STDERR_FILENO))
		return;
	if (!what[0])
		fprintf(stderr, "\r\033[K");
	else if (!total)
		fprintf(stderr, "\r%s\033[K", what);
	else
		fprintf(stderr, "\r%s: %" PRIu64 " of %" PRIu64 " MiB\033[K", what, done >> 20,
			total >> 20);
	fflush(stderr);
}

void image_progress_stderr(void *ctx, const char *dir, uint64_t done, uint64_t total)
{
	(void)ctx;
	if (!isatty(STDERR_FILENO))
		return;
	if (done >= total)
		fprintf(stderr, "\r\033[K");
	else
		fprintf(stderr, "\rpacking %s: %" PRIu64 " of %" PRIu64 " MiB\033[K", dir,
			done >> 20, total >> 20);
	fflush(stderr);
}
