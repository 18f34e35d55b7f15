/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * insula-init: live shares, directories of the host through virtio-fs.
 *
 * The host's file server (virtiofsd) may die, and the host starts another. The new one knows none
 * of the inodes and open files of the old one; it answers everything with an error until it is
 * greeted, and this kernel greets once, when it mounts a device that nothing uses yet. So a process
 * of its own asks each share for its root once a second. If that fails, it detaches the mount,
 * takes the driver off the device and puts it on again, and mounts what is a new file system then.
 *
 * What a program sees: requests wait while there is no server; until the new mount is there, at
 * most some two seconds, they fail with EIO; then paths work as before. Files and directories that
 * were open, and working directories, give ENOTCONN from then on. None of them can ever reach the
 * new server, where the same numbers mean other files.
 *
 * The driver does not tell which device has which tag (before Linux 6.9). On each bus both are
 * numbered in the order of the devices there: the nth record of the bus is its nth device of the
 * kind.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "guest.h"

#define DEVICES "/sys/bus/virtio/devices"
#define DRIVER "/sys/bus/virtio/drivers/virtiofs"
#define VIRTIO_FS 26 /* virtio 1.2, 5.11 */
#define FUSE_MAGIC 0x65735546
#define APPEAR_MS 5000
#define LOOK_MS 1000
#define AGAIN_MS 50 /* an error counts if it is there twice */
#define MAX_FS 8

struct fs_record {
	char tag[40];
	const char *dir;
	bool ro, pci;
	bool over; /* somebody has unmounted it: it is theirs */
};

static void sleep_ms(unsigned ms)
{
	const struct timespec t = {ms / 1000, (long)(ms % 1000) * 1000000};

	nanosleep(&t, NULL);
}

static void fs_parse(const char *text, struct fs_record *r)
{
	const char *tag = strlen(text) > 3 ? text + 3 : "", *dir;

	*r = (struct fs_record){.ro = strncmp(text, "ro,", 3) == 0,
				.pci = strncmp(tag, "pci,", 4) == 0};
	tag += r->pci ? 4 : 0;
	dir = strchr(tag, ',');
	if (!dir || (!r->ro && strncmp(text, "rw,", 3) != 0) ||
	    (size_t)(dir - tag) >= sizeof r->tag || dir[1] != '/')
		die("/insula/config: fs=%s; expected ro,[pci,]TAG,DIR or rw,[pci,]TAG,DIR", text);
	memcpy(r->tag, tag, (size_t)(dir - tag));
	r->dir = dir + 1;
}

/* The driver usually has its devices before finit_module() returns; it does not promise to. */
static int fs_mount_one(const struct fs_record *r)
{
	for (unsigned i = 0;; i++) {
		if (mount(r->tag, r->dir, "virtiofs", MS_NODEV | (r->ro ? MS_RDONLY : 0), NULL) ==
		    0)
			return 0;
		if (errno != EINVAL || i == APPEAR_MS)
			return -1;
		sleep_ms(1);
	}
}

void fs_mount(char *const fs[])
{
	struct fs_record r;

	for (unsigned i = 0; fs[i]; i++) {
		fs_parse(fs[i], &r);
		mounts_make_path(r.dir);
		if (fs_mount_one(&r) == 0)
			continue;
		if (errno == ENODEV)
			die("%s is shared by virtio-fs, and neither this kernel nor its initrd has "
			    "that (CONFIG_VIRTIO_FS)",
			    r.dir);
		die_errno("mount the shared directory %s", r.dir);
	}
}

/* ---- again ---- */

/* The device is a link to .../pci0000:00/0000:00:03.0/virtio7, or to one below another bus. */
static bool fs_is_on_pci(const char *name)
{
	char path[300], at[PATH_MAX];
	ssize_t n;

	snprintf(path, sizeof path, DEVICES "/%s", name);
	n = readlink(path, at, sizeof at - 1);
	at[n > 0 ? n : 0] = '\0';
	return strstr(at, "/pci") != NULL;
}

/* "virtio7": 7, if it is of the kind and on that bus; -1: it is not. */
static int fs_device_number(const char *name, bool pci)
{
	char path[300];
	unsigned id = 0;
	int n = -1;
	FILE *f;

	if (sscanf(name, "virtio%d", &n) != 1)
		return -1;
	snprintf(path, sizeof path, DEVICES "/%s/device", name);
	f = fopen(path, "re");
	if (!f)
		return -1;
	if (fscanf(f, "%x", &id) != 1)
		id = 0;
	fclose(f);
	return id == VIRTIO_FS && fs_is_on_pci(name) == pci ? n : -1;
}

/* The nth device of a bus: the one that n others there have smaller numbers than. */
static int fs_device(unsigned nth, bool pci)
{
	int number[64], found = -1;
	unsigned n = 0;
	DIR *d = opendir(DEVICES);
	struct dirent *e;

	while (d && n < sizeof number / sizeof number[0] && (e = readdir(d))) {
		number[n] = fs_device_number(e->d_name, pci);
		n += number[n] >= 0;
	}
	if (d)
		closedir(d);
	for (unsigned i = 0; i < n && found < 0; i++) {
		unsigned smaller = 0;

		for (unsigned k = 0; k < n; k++)
			smaller += number[k] < number[i];
		if (smaller == nth)
			found = number[i];
	}
	return found;
}

static int fs_driver(const char *what, int device)
{
	char path[64], name[24];
	int n = snprintf(name, sizeof name, "virtio%d", device), rc, fd;

	snprintf(path, sizeof path, DRIVER "/%s", what);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	rc = write(fd, name, (size_t)n) == n ? 0 : -1;
	close(fd);
	return rc;
}

/* It waits until the new server has refused what the old one had left. */
static void fs_again(const struct fs_record *r, unsigned nth)
{
	int device = fs_device(nth, r->pci);

	umount2(r->dir, MNT_DETACH);
	if (device < 0 || (fs_driver("unbind", device) && errno != ENODEV) ||
	    (fs_driver("bind", device) && errno != EBUSY) || fs_mount_one(r))
		dprintf(STDERR_FILENO, NAME ": %s cannot be mounted again: %s\n", r->dir,
			strerror(errno));
	else
		dprintf(STDERR_FILENO,
			NAME ": the host has restarted the server of %s: mounted again; what was "
			     "open there is lost\n",
			r->dir);
}

/* 1: it is well, 0: it is not, -1: there is another file system. */
static int fs_state(const struct fs_record *r)
{
	struct statfs s;

	if (statfs(r->dir, &s))
		return 0;
	return s.f_type == FUSE_MAGIC ? 1 : -1;
}

static void fs_look_at(struct fs_record *r, unsigned nth, bool *lost)
{
	int state = fs_state(r);

	if (state == 0) {
		sleep_ms(AGAIN_MS);
		state = fs_state(r);
	}
	/* Of one that could not be mounted again the directory below shows. */
	if (state == 0 || (state < 0 && *lost)) {
		fs_again(r, nth);
		*lost = fs_state(r) != 1;
	}
	r->over = state < 0 && !*lost;
}

void fs_watch(char *const fs[])
{
	struct fs_record r[MAX_FS];
	bool lost[MAX_FS] = {false};
	unsigned n = 0, nth[MAX_FS], of_bus[2] = {0};
	pid_t pid;

	for (; n < MAX_FS && fs[n]; n++) {
		fs_parse(fs[n], &r[n]);
		nth[n] = of_bus[r[n].pci]++;
	}
	if (!n)
		return;
	pid = fork();
	if (pid < 0)
		die_errno("a process for the shared directories");
	if (pid)
		return;
	setsid();
	/* Of whoever has forked it, somebody may wait for the end of these. */
	syscall(SYS_close_range, STDERR_FILENO + 1, ~0u, 0);
	prctl(PR_SET_NAME, "insula-shares");
	for (;;) {
		sleep_ms(LOOK_MS);
		for (unsigned i = 0; i < n; i++) {
			if (!r[i].over)
				fs_look_at(&r[i], nth[i], &lost[i]);
		}
	}
}
