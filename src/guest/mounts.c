/* SPDX-License-Identifier: BSD-2-Clause */
/* insula-init: file systems: the kernel's own, the root disk, and the end of all of them. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <mntent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "guest.h"

#define ROOT_SERIAL "insula-root"
#define SHARE_SERIAL "insula-share" /* and a number */
#define LAYER_SERIAL "insula-layer" /* likewise */
#define UPPER_SERIAL "insula-upper"
#define ROOT_WAIT_MS 5000
#define NEW_ROOT "/newroot"
#define LOWER "/lower"
#define UPPER "/upper"

struct mountpoint {
	const char *dir, *type, *options;
	unsigned long flags;
};

static const struct mountpoint early[] = {
	{"/proc", "proc", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC},
	{"/sys", "sysfs", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC},
	{"/dev", "devtmpfs", "mode=755", MS_NOSUID},
	{"/dev/pts", "devpts", "gid=5,mode=620,ptmxmode=666", MS_NOSUID | MS_NOEXEC},
	{"/dev/shm", "tmpfs", "mode=1777", MS_NOSUID | MS_NODEV},
	{"/run", "tmpfs", "mode=755", MS_NOSUID | MS_NODEV},
	{"/sys/fs/cgroup", "cgroup2", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC},
};

static const struct mountpoint initrd_tmp = {"/tmp", "tmpfs", "mode=1777", MS_NOSUID | MS_NODEV};

static const char *const dev_links[][2] = {
	{"/proc/self/fd", "/dev/fd"},
	{"/proc/self/fd/0", "/dev/stdin"},
	{"/proc/self/fd/1", "/dev/stdout"},
	{"/proc/self/fd/2", "/dev/stderr"},
};

static void mount_one(const struct mountpoint *m)
{
	mkdir(m->dir, 0755);
	if (mount(m->type, m->dir, m->type, m->flags, m->options) < 0)
		die_errno("mount %s on %s", m->type, m->dir);
}

void mounts_early(bool initrd_root)
{
	for (size_t i = 0; i < sizeof early / sizeof early[0]; i++)
		mount_one(&early[i]);
	if (initrd_root)
		mount_one(&initrd_tmp);
	for (size_t i = 0; i < sizeof dev_links / sizeof dev_links[0]; i++)
		symlink(dev_links[i][0], dev_links[i][1]);
}

/* ---- the root disk ---- */

static bool has_serial(const char *disk, const char *wanted)
{
	char path[300], got[32];
	ssize_t n;
	int fd;

	snprintf(path, sizeof path, "/sys/block/%s/serial", disk);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	n = read(fd, got, sizeof got - 1);
	close(fd);
	got[n > 0 ? n : 0] = '\0';
	got[strcspn(got, "\n")] = '\0';
	return strcmp(got, wanted) == 0;
}

static bool disk_once(const char *serial, char *dev, size_t size)
{
	DIR *d = opendir("/sys/block");
	struct dirent *e;
	bool found = false;

	if (!d)
		die_errno("/sys/block");
	while (!found && (e = readdir(d)))
		if (e->d_name[0] != '.' && has_serial(e->d_name, serial)) {
			snprintf(dev, size, "/dev/%s", e->d_name);
			found = true;
		}
	closedir(d);
	return found;
}

/* The driver usually finds its disks before finit_module() returns; it does not promise to. */
static void disk_wait(const char *serial, char *dev, size_t size)
{
	const struct timespec ms = {.tv_nsec = 1000000};

	for (unsigned i = 0; !disk_once(serial, dev, size); i++) {
		if (i == ROOT_WAIT_MS)
			die("no disk with the serial %s"
			    " (has this kernel virtio_blk, and virtio_mmio or virtio_pci?)",
			    serial);
		nanosleep(&ms, NULL);
	}
}

/* Where each file system keeps its magic number. */
static const struct fs {
	const char *type;
	unsigned offset;
	unsigned len;
	const char *magic;
	bool writable;
} filesystems[] = {
	{"ext4", 1024 + 0x38, 2, "\x53\xef", true}, {"erofs", 1024, 4, "\xe2\xe1\xf5\xe0", false},
	{"squashfs", 0, 4, "hsqs", false},          {"xfs", 0, 4, "XFSB", true},
	{"btrfs", 65536 + 64, 8, "_BHRfS_M", true},
};

static const struct fs *probe(const char *dev)
{
	char got[8];
	int fd = open(dev, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		die_errno("%s", dev);
	for (size_t i = 0; i < sizeof filesystems / sizeof filesystems[0]; i++) {
		const struct fs *f = &filesystems[i];

		if (pread(fd, got, f->len, f->offset) == (ssize_t)f->len &&
		    memcmp(got, f->magic, f->len) == 0) {
			close(fd);
			return f;
		}
	}
	die("the root disk holds none of ext4, erofs, squashfs, xfs, btrfs");
}

static void mount_disk(const char *dev, const struct fs *f, const char *where, bool rw)
{
	if (rw && !f->writable)
		die("the root file system is %s, which cannot be written: leave rw out", f->type);
	modules_load(f->type);
	if (mount(dev, where, f->type, rw ? 0 : MS_RDONLY, NULL) == 0)
		return;
	if (!rw && errno == EROFS)
		die("the root file system (%s) was not unmounted cleanly and cannot be repaired "
		    "while it "
		    "is read-only: start it once with rw",
		    f->type);
	if (errno == ENODEV)
		die("the root file system is %s, and neither this kernel nor its initrd has that",
		    f->type);
	die_errno("mount the root disk (%s)", f->type);
}

/* What is written to the root: to memory, or to a disk that is made for this run. */
static void mount_upper(bool disk)
{
	char dev[300];

	if (!disk && mount("tmpfs", UPPER, "tmpfs", 0, "mode=755") < 0)
		die_errno("tmpfs for the root");
	if (disk) {
		disk_wait(UPPER_SERIAL, dev, sizeof dev);
		modules_load("ext4");
		if (mount(dev, UPPER, "ext4", 0, NULL) < 0)
			die_errno("the disk for the root");
	}
	if (mkdir(UPPER "/data", 0755) < 0 || mkdir(UPPER "/work", 0755) < 0)
		die_errno("directories for the root");
}

/* `lower`: directories between colons, the highest first. */
static void mount_overlay(const char *lower, bool disk)
{
	char options[1024];

	modules_load("overlay");
	mount_upper(disk);
	snprintf(options, sizeof options,
		 "lowerdir=%s,upperdir=" UPPER "/data,workdir=" UPPER "/work", lower);
	if (mount("overlay", NEW_ROOT, "overlay", 0, options) < 0)
		die_errno("overlay for the root");
}

/* One EROFS image each. */
static void mount_layers(unsigned n, bool disk)
{
	char serial[32], dev[300], dir[32], lower[512] = "";
	size_t len = 0;

	modules_load("erofs");
	for (unsigned i = n; i-- > 0;) {
		snprintf(serial, sizeof serial, LAYER_SERIAL "%u", i);
		disk_wait(serial, dev, sizeof dev);
		snprintf(dir, sizeof dir, LOWER "/%u", i);
		mkdir(dir, 0755);
		if (mount(dev, dir, "erofs", MS_RDONLY, NULL) < 0)
			die_errno("mount layer %u of the image (erofs)", i);
		len += (size_t)snprintf(lower + len, sizeof lower - len, "%s%s", len ? ":" : "",
					dir);
	}
	mount_overlay(lower, disk);
}

static void mount_root_disk(enum root_mode mode, bool disk)
{
	char dev[300];
	const struct fs *f;

	disk_wait(ROOT_SERIAL, dev, sizeof dev);
	f = probe(dev);
	mount_disk(dev, f, mode == ROOT_RW ? NEW_ROOT : LOWER, mode == ROOT_RW);
	if (mode == ROOT_RO)
		mount_overlay(LOWER, disk);
}

static void carry_over(const char *dir)
{
	char to[64];

	snprintf(to, sizeof to, NEW_ROOT "%s", dir);
	mkdir(to, 0755);
	if (mount(dir, to, NULL, MS_MOVE, NULL) < 0)
		die_errno("the root has no usable %s", dir);
}

static void enter_new_root(void)
{
	if (chdir(NEW_ROOT) < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 ||
	    chdir("/") < 0)
		die_errno("enter the root");
}

void mounts_leave_initramfs(void)
{
	static const char *const moved[] = {"/proc", "/sys", "/dev", "/run", "/tmp"};

	leave_initramfs(NEW_ROOT);
	for (size_t i = 0; i < sizeof moved / sizeof moved[0]; i++)
		carry_over(moved[i]);
	enter_new_root();
}

void mounts_switch_root(const struct config *c)
{
	static const char *const moved[] = {"/proc", "/sys", "/dev", "/run"};

	mkdir(NEW_ROOT, 0755);
	mkdir(LOWER, 0755);
	mkdir(UPPER, 0755);
	if (c->layers)
		mount_layers(c->layers, c->upper);
	else
		mount_root_disk(c->root, c->upper);
	for (size_t i = 0; i < sizeof moved / sizeof moved[0]; i++)
		carry_over(moved[i]);
	unlink("/bin/busybox"); /* the initrd is memory */
	enter_new_root();
	if (mkdir("/tmp", 0777) == 0)
		chmod("/tmp", 01777);
	mkdir("/root", 0700);
	if (c->dir)
		mounts_make_path(c->dir);
}

/* ---- directories of the host ---- */

/* What the host packs them into. */
#define SHARE_TYPE "ext4"

void mounts_prepare_shares(void)
{
	modules_load(SHARE_TYPE);
}

void mounts_make_path(const char *path)
{
	char copy[4096];

	snprintf(copy, sizeof copy, "%s", path);
	for (char *p = strchr(copy + 1, '/'); p; p = strchr(p + 1, '/')) {
		*p = '\0';
		mkdir(copy, 0755);
		*p = '/';
	}
	mkdir(copy, 0755);
}

void mounts_shares(char *const share[])
{
	char serial[32], dev[300];

	for (unsigned i = 0; share[i]; i++) {
		snprintf(serial, sizeof serial, SHARE_SERIAL "%u", i);
		disk_wait(serial, dev, sizeof dev);
		mounts_make_path(share[i]);
		if (mount(dev, share[i], SHARE_TYPE, MS_RDONLY | MS_NODEV | MS_NOSUID, NULL) < 0)
			die_errno("mount a shared directory on %s", share[i]);
	}
}

/* ---- the end ---- */

#define FINISH_MAX 64 /* mounts that are unmounted */
#define LIVE_MS 5000  /* live shares have so long to write back what programs had mapped */

struct mounted {
	char *dir[FINISH_MAX];
	size_t n;
};

static void mounted_add(struct mounted *m, const char *dir)
{
	if (m->n < FINISH_MAX && (m->dir[m->n] = strdup(dir)))
		m->n++;
}

/* False: the command unmounted /proc. */
static bool mounted_find(struct mounted *disks, struct mounted *live)
{
	FILE *f = setmntent("/proc/mounts", "re");
	struct mntent *m;

	if (!f)
		return false;
	while ((m = getmntent(f))) {
		if (strncmp(m->mnt_fsname, "/dev/", 5) == 0)
			mounted_add(disks, m->mnt_dir);
		else if (strcmp(m->mnt_type, "virtiofs") == 0)
			mounted_add(live, m->mnt_dir);
	}
	endmntent(f);
	return true;
}

static void sync_each(const struct mounted *m)
{
	for (size_t i = 0; i < m->n; i++) {
		int fd = open(m->dir[i], O_RDONLY | O_CLOEXEC | O_NONBLOCK);

		if (fd >= 0) {
			syncfs(fd);
			close(fd);
		}
	}
}

/* A server of the host that is away would keep sync() waiting, and the end of the machine with it.
 */
static void sync_live(const struct mounted *live)
{
	const struct timespec ms = {.tv_nsec = 1000000};
	pid_t pid = fork();

	if (pid == 0) {
		sync_each(live);
		_exit(0);
	}
	for (unsigned i = 0; pid > 0 && waitpid(pid, NULL, WNOHANG) == 0; i++) {
		if (i == LIVE_MS) {
			dprintf(STDERR_FILENO, NAME ": a shared directory does not answer: what "
						    "programs had mapped of it may be lost\n");
			break;
		}
		nanosleep(&ms, NULL);
	}
}

void mounts_finish(void)
{
	static struct mounted disks, live;

	if (!mounted_find(&disks, &live) || !live.n) {
		sync();
	} else {
		sync_each(&disks);
		sync_live(&live);
	}
	for (size_t n = disks.n; n-- > 0;) {
		const char *dir = disks.dir[n];

		if (umount(dir) && mount(NULL, dir, NULL, MS_REMOUNT | MS_RDONLY, NULL))
			dprintf(STDERR_FILENO, NAME ": %s is left mounted: %s\n", dir,
				strerror(errno));
	}
}
