/* SPDX-License-Identifier: BSD-2-Clause */
/* Disks. See disk.h. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/io_uring.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <insula/base.h>

#include "devices/blk/blk_overlay_start.h"
#include "disk.h"
#include "overlay.h"

#define SECTOR 512u
#define MAX_BLOCK 4096u

static int open_flags(const struct disk_config *c, bool ro)
{
	return (ro ? O_RDONLY : O_RDWR) | (c->direct ? O_DIRECT : 0) | O_CLOEXEC | O_NOCTTY;
}

/* The file that was named is only read. */
static bool reads_only(const struct disk_config *c)
{
	return c->ro || c->overlay;
}

static int check_geometry(struct disk *d, struct err *e)
{
	const char *path = d->conf->path;
	struct msg_start_blk *s = &d->start;

	if (!s->capacity)
		return err_set(e, -EINVAL, "disk %s: empty; expected at least %u bytes", path,
			       SECTOR);
	if (s->capacity % SECTOR)
		return err_set(e, -EINVAL, "disk %s: %llu bytes; expected a multiple of %u", path,
			       (unsigned long long)s->capacity, SECTOR);
	if (s->logical > MAX_BLOCK || s->capacity % s->logical)
		return err_set(e, -EINVAL, "disk %s: %llu bytes; expected a multiple of %u%s", path,
			       (unsigned long long)s->capacity, s->logical,
			       d->conf->direct ? ", as direct I/O needs it here" : "");
	return 0;
}

/* A number from queue/ of a block device or of the whole that a partition is part of; 0 if it is
 * not there, as for a file system without a device of its own. */
static unsigned long queue_number(dev_t dev, const char *name)
{
	static const char *const up[] = {"", "../"};
	unsigned long n = 0;

	for (unsigned i = 0; i < 2 && !n; i++) {
		char path[96];
		FILE *f;

		snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/%squeue/%s", major(dev),
			 minor(dev), up[i], name);
		f = fopen(path, "re");
		if (!f)
			continue;
		if (fscanf(f, "%lu", &n) != 1)
			n = 0;
		fclose(f);
	}
	return n;
}

static uint32_t queue_limit(dev_t dev, const char *name, unsigned unit)
{
	unsigned long n = queue_number(dev, name);

	return n <= UINT32_MAX / unit ? (uint32_t)n * unit : 0;
}

/* What can be discarded at once is 0 where nothing can be, whatever the granularity says. */
static uint32_t discard_unit(const struct disk *d, dev_t dev)
{
	if (d->conf->ro || !queue_number(dev, "discard_max_bytes"))
		return 0;
	return queue_limit(dev, "discard_granularity", 1);
}

static int block_geometry(struct disk *d, const struct stat *st, struct err *e)
{
	struct msg_start_blk *s = &d->start;
	int logical = 0;
	unsigned physical = 0;

	if (ioctl(d->fd, BLKGETSIZE64, &s->capacity) || ioctl(d->fd, BLKSSZGET, &logical) ||
	    ioctl(d->fd, BLKPBSZGET, &physical))
		return err_sys(e, -errno, "disk %s: size of the block device", d->conf->path);
	s->logical = (uint32_t)logical;
	s->physical = physical;
	s->max_io = queue_limit(st->st_rdev, "max_sectors_kb", 1024);
	s->discard_align = discard_unit(d, st->st_rdev);
	s->flags |= BLK_DEVICE;
	return 0;
}

/* O_DIRECT on a file needs the alignment of what is below the file system. */
static uint32_t direct_alignment(int fd)
{
#ifdef STATX_DIOALIGN
	struct statx sx;

	if (!statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &sx) && (sx.stx_mask & STATX_DIOALIGN) &&
	    sx.stx_dio_offset_align)
		return sx.stx_dio_offset_align;
#else
	(void)fd;
#endif
	return SECTOR;
}

static int file_geometry(struct disk *d, const struct stat *st)
{
	struct msg_start_blk *s = &d->start;

	s->capacity = (uint64_t)st->st_size;
	s->logical = d->conf->direct ? direct_alignment(d->fd) : SECTOR;
	s->physical = s->logical > MAX_BLOCK ? s->logical : MAX_BLOCK;
	s->max_io = queue_limit(st->st_dev, "max_sectors_kb", 1024);
	s->discard_align = d->conf->ro ? 0 : (uint32_t)st->st_blksize;
	return 0;
}

static int inspect(struct disk *d, struct err *e)
{
	struct stat st;
	int rc;

	if (fstat(d->fd, &st))
		return err_sys(e, -errno, "disk %s", d->conf->path);
	if (S_ISBLK(st.st_mode))
		rc = block_geometry(d, &st, e);
	else if (S_ISREG(st.st_mode))
		rc = file_geometry(d, &st);
	else
		rc = err_set(e, -EINVAL, "disk %s: neither a file nor a block device",
			     d->conf->path);
	return rc ? rc : check_geometry(d, e);
}

/* A random byte beyond the end of any file: other VMs that read the same image have their own. */
static int choose_lock_byte(struct disk *d, struct err *e)
{
	uint64_t r;

	if (getrandom(&r, sizeof(r), 0) != (ssize_t)sizeof(r))
		return err_sys(e, -errno, "getrandom");
	d->lock_byte = (off_t)(1ull << 62 | r >> 3);
	return 0;
}

/* The file takes what is written: its limits, not those of the base. */
static int overlay_geometry(struct disk *d, struct err *e)
{
	struct msg_start_blk *s = &d->start;
	uint32_t logical = s->logical;
	struct stat st;

	if (fstat(d->over, &st))
		return err_sys(e, -errno, "overlay %s", d->conf->overlay);
	if (d->conf->direct)
		logical = direct_alignment(d->over);
	if (logical > s->logical)
		s->logical = logical;
	s->physical = s->logical > OVERLAY_BLOCK ? s->logical : OVERLAY_BLOCK;
	s->max_io = queue_limit(st.st_dev, "max_sectors_kb", 1024);
	s->discard_align = OVERLAY_BLOCK;
	return check_geometry(d, e);
}

static int open_overlay(struct disk *d, bool check_only, struct err *e)
{
	const struct disk_config *c = d->conf;
	const struct overlay_of of = {
		.base = c->path, .base_fd = d->fd, .capacity = d->start.capacity};
	int rc;

	if (of.capacity > OVERLAY_MOST)
		return err_set(e, -EINVAL,
			       "disk %s: %llu bytes; expected at most %llu under an "
			       "overlay",
			       c->path, (unsigned long long)of.capacity,
			       (unsigned long long)OVERLAY_MOST);
	d->start.flags = (d->start.flags & ~(uint32_t)BLK_DEVICE) | BLK_OVERLAY |
			 (c->thrown_away ? BLK_THROWN_AWAY : 0);
	rc = c->thrown_away ? overlay_throwaway(of.capacity, check_only, &d->over, e)
			    : overlay_open(c->overlay, &of, check_only, &d->over, e);
	if (rc || check_only)
		return rc;
	d->memory = shm_create("insula-overlay", overlay_layout(of.capacity).memory, e);
	return d->memory < 0 ? d->memory : overlay_geometry(d, e);
}

int disk_open(struct disk *d, const struct disk_config *conf, bool check_only, struct err *e)
{
	bool ro = reads_only(conf);
	int rc;

	memset(d, 0, sizeof(*d));
	d->conf = conf;
	d->limit = (struct msg_limit){conf->rate, conf->iops};
	d->over = d->memory = -1;
	/* O_NONBLOCK: a FIFO somebody named must not hang us; without effect on disks. */
	d->fd = open(conf->path, open_flags(conf, ro) | O_NONBLOCK);
	if (d->fd < 0)
		return err_sys(e, -errno, "disk %s%s", conf->path,
			       errno == EINVAL && conf->direct ? ": direct I/O is not possible here"
							       : "");
	d->start.flags = (conf->ro ? BLK_RO : 0) | (conf->direct ? BLK_DIRECT : 0);
	memcpy(d->start.serial, conf->serial, sizeof(d->start.serial));
	rc = choose_lock_byte(d, e);
	if (!rc)
		rc = inspect(d, e);
	if (!rc && flock(d->fd, (ro ? LOCK_SH : LOCK_EX) | LOCK_NB))
		rc = errno == EWOULDBLOCK ? err_set(e, -EBUSY, "disk %s: locked by another VM%s",
						    conf->path, ro ? " that writes to it" : "")
					  : err_sys(e, -errno, "disk %s: lock", conf->path);
	if (!rc && conf->overlay)
		rc = open_overlay(d, check_only, e);
	if (rc)
		disk_close(d);
	return rc;
}

void disk_unlock(struct disk *d)
{
	if (d->fd >= 0)
		(void)flock(d->fd, LOCK_UN);
	if (d->over >= 0)
		(void)flock(d->over, LOCK_UN);
}

void disk_close(struct disk *d)
{
	fd_close(&d->fd);
	fd_close(&d->over);
	fd_close(&d->memory);
}

static struct flock generation_lock(const struct disk *d, short type)
{
	return (struct flock){
		.l_type = type, .l_whence = SEEK_SET, .l_start = d->lock_byte, .l_len = 1};
}

static int new_generation(const struct disk *d, int of, bool ro, struct err *e)
{
	struct flock l = generation_lock(d, F_RDLCK);
	char self[40];
	int fd;

	/* Through /proc: the same file, even if the path has been given to another one since. */
	snprintf(self, sizeof(self), "/proc/self/fd/%d", of);
	fd = open(self, open_flags(d->conf, ro));
	if (fd < 0)
		return err_sys(e, -errno, "disk %s: open for its helper", d->conf->path);
	if (fcntl(fd, F_OFD_SETLK, &l)) {
		int rc = -errno;
		close(fd);
		return err_sys(e, rc, "disk %s: generation lock", d->conf->path);
	}
	return fd;
}

/* Containers often forbid io_uring, and a host may: /proc/sys/kernel/io_uring_disabled (1 allows it
 * to privileged processes only, which a helper is not). Asked once, before any helper starts. */
static enum blk_engine choose_engine(void)
{
	struct io_uring_params p = {0};
	char c = '0';
	FILE *f = fopen("/proc/sys/kernel/io_uring_disabled", "re");
	long fd;

	if (f) {
		if (fread(&c, 1, 1, f) != 1)
			c = '0';
		fclose(f);
	}
	if (c != '0')
		return BLK_ENGINE_THREADS;
	fd = syscall(SYS_io_uring_setup, 1, &p);
	if (fd < 0)
		return BLK_ENGINE_THREADS;
	close((int)fd);
	return BLK_ENGINE_URING;
}

int disk_hand_out(const struct disk *d, bool again, struct msg_start_blk *m, int fds[DISK_FDS],
		  unsigned *n, int once[DISK_ONCE], struct err *e)
{
	bool over = d->over >= 0;
	int written = over ? d->over : d->fd;

	fds[0] = once[0] = new_generation(d, written, d->conf->ro, e);
	if (fds[0] < 0)
		return fds[0];
	*n = 1;
	m->engine = d->conf->threads ? BLK_ENGINE_THREADS : choose_engine();
	if (again) { /* the first helper has no use for the other one */
		m->flags |= BLK_OTHER;
		fds[(*n)++] = written;
	}
	if (!over)
		return 0;
	fds[(*n)++] = once[1] = new_generation(d, d->fd, true, e);
	fds[(*n)++] = d->memory;
	return once[1] < 0 ? once[1] : 0;
}

static int is_quiet(const struct disk *d, int fd)
{
	struct flock l = generation_lock(d, F_WRLCK);

	if (fcntl(fd, F_OFD_GETLK, &l))
		return -errno;
	return l.l_type == F_UNLCK;
}

int disk_quiet(const struct disk *d)
{
	int rc = is_quiet(d, d->fd);

	return rc == 1 && d->over >= 0 ? is_quiet(d, d->over) : rc;
}
