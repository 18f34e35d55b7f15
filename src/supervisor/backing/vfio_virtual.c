/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A virtual function (SR-IOV) of a function of the host: one that is free, or that is made. See
 * vfio.h. Linux, Documentation/PCI/pci-iov-howto.rst.
 *
 * Linux makes all virtual functions of a physical one at once, and lets them vanish at once. So
 * whoever made them lets them vanish, but not before the last VM that has one has ended. Who has
 * one is known from locks (flock) on files of sysfs that root alone can open:
 *
 *   of the physical function   shared by everybody who has or is choosing one of its virtual ones.
 *                              The keeper of those that were made (vfio_keep.c) waits until it has
 *                              the lock alone, and then gives the number back
 *   of the physical function, another one: who is making them, alone
 *   of the virtual function    whoever has it. Its keeper holds the lock until it is given back
 *
 * Virtual functions that were there before are taken if they have no driver, or are on vfio-pci,
 * and nobody has them open. One with another driver is the host's.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/log.h>

#include "vfio.h"

#define SHARE_MS 10000u

/* A file that only root can open, and in which nothing is ever written. */
static int lock_file(const char *address, const char *file)
{
	char path[VFIO_PATH];
	int fd;

	vfio_path(path, address, file);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/* A lock of the physical function, in *fd; waits SHARE_MS at most. */
static int lock_pf(int *fd, const char *pf, const char *file, int how, struct err *e)
{
	uint64_t until = clock_ns() + SHARE_MS * 1000000ull;

	*fd = lock_file(pf, file);
	if (*fd < 0)
		return err_sys(e, *fd, "--vfio pf=%s: its virtual functions", pf);
	while (flock(*fd, how | LOCK_NB)) {
		if (errno != EWOULDBLOCK || clock_ns() > until)
			return err_sys(e, -errno, "--vfio pf=%s: its virtual functions", pf);
		usleep(10000);
	}
	return 0;
}

/* The drivers of the host do not get them: for that moment it does not look for one, and does again
 * afterwards, whoever is killed meanwhile. */
static int write_number(const struct vfio_config *c, const char *number, struct err *e)
{
	struct vfio_keeper k = {.process = {.fd = -1}, .held = -1};
	char probe[VFIO_PATH], old[16], text[16];
	int rc, back;

	vfio_path(probe, c->address, "sriov_drivers_autoprobe");
	vfio_line(probe, old, sizeof(old));
	vfio_keep(&k, probe, old);
	rc = vfio_keeper_start(&k, c->address, e);
	if (rc)
		return rc;
	snprintf(text, sizeof(text), "%u", c->vfs);
	rc = vfio_write(probe, "0");
	if (!rc)
		rc = vfio_write(number, text);
	back = vfio_write(probe, old);
	rc = rc ? rc : back;
	keeper_dismiss(&k.process);
	return rc ? err_sys(e, rc, "--vfio pf=%s: it does not make %u virtual functions",
			    c->address, c->vfs)
		  : 0;
}

static int make_them_alone(struct vfio_back *b, const struct vfio_config *c, unsigned *now,
			   struct err *e)
{
	char number[VFIO_PATH];
	int rc = vfio_look_pf("/sys", c, now, e);

	if (rc || *now)
		return rc;
	vfio_path(number, c->address, "sriov_numvfs");
	b->maker = (struct vfio_keeper){.held = b->share, .alone = true};
	vfio_keep(&b->maker, number, "0");
	rc = vfio_keeper_start(&b->maker, c->address, e);
	if (!rc)
		rc = write_number(c, number, e);
	if (!rc)
		log_info("%s: has %u virtual functions now", c->address, c->vfs);
	return rc;
}

/* *now: so many are there, if another VM was first. */
static int make_them(struct vfio_back *b, const struct vfio_config *c, unsigned *now, struct err *e)
{
	int lock = -1, rc = lock_pf(&lock, c->address, "remove", LOCK_EX, e);

	if (!rc)
		rc = make_them_alone(b, c, now, e);
	fd_close(&lock);
	return rc;
}

/* -EBUSY: somebody has it. */
static int take_one(struct vfio_back *b, const struct vfio_back *all, const char *address,
		    struct err *e)
{
	int rc;

	b->own = (struct vfio_config){.bind = true, .fd = -1};
	memcpy(b->own.address, address, sizeof(b->own.address));
	b->claim = lock_file(address, "reset");
	if (b->claim < 0)
		return err_sys(e, b->claim, "--vfio %s: it cannot be reset", address);
	if (flock(b->claim, LOCK_EX | LOCK_NB)) {
		rc = errno == EWOULDBLOCK ? -EBUSY : err_sys(e, -errno, "--vfio %s", address);
	} else {
		b->conf = &b->own;
		rc = vfio_take(b, all, e);
	}
	if (rc == -EBUSY) {
		vfio_let_go(b);
		fd_close(&b->claim);
	}
	return rc;
}

int vfio_take_virtual(struct vfio_back *b, const struct vfio_back *all, const struct vfio_config *c,
		      struct err *e)
{
	char address[CONFIG_VFIO_LEN + 1];
	struct vfio_found f = {0};
	unsigned now = 0;
	/* While the others vanish, nobody gets it. */
	int rc = lock_pf(&b->share, c->address, "rescan", LOCK_SH, e);

	if (!rc)
		rc = vfio_look_pf("/sys", c, &now, e);
	if (!rc && !now)
		rc = make_them(b, c, &now, e);
	if (rc)
		return rc;
	for (unsigned i = 0; vfio_virtual("/sys", c->address, i, address, &f); i++) {
		rc = f.driver[0] && !f.ready ? -EBUSY : take_one(b, all, address, e);
		if (!rc)
			log_info("%s: virtual function %u of %s", address, i, c->address);
		if (rc != -EBUSY)
			return rc;
	}
	return err_set(e, -EBUSY,
		       "--vfio pf=%s: none of its %u virtual functions is free; expected one "
		       "without a driver or on vfio-pci, which no VM has",
		       c->address, now ? now : c->vfs);
}

void vfio_end_virtual(struct vfio_back *b)
{
	fd_close(&b->claim);
	vfio_keeper_end(&b->maker, b->conf->address);
	fd_close(&b->share);
}
