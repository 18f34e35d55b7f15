/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A function of the host is taken away from its driver, and given back. See vfio.h.
 *
 * Its keeper (keeper.h) takes the function away from vfio-pci, which waits until nobody has it open
 * any more (the processes of the VM die with the supervisor), and lets the kernel find the driver
 * that it had. That of virtual functions that were made waits until no VM has one, and lets them
 * vanish.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/log.h>

#include "vfio.h"

#define GIVE_BACK_MS 10000

int vfio_write(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC), rc = 0;

	if (fd < 0)
		return -errno;
	if (write(fd, text, strlen(text)) < 0)
		rc = -errno;
	close(fd);
	return rc;
}

void vfio_path(char path[VFIO_PATH], const char *address, const char *file)
{
	snprintf(path, VFIO_PATH, "/sys/bus/pci/devices/%s/%s", address, file);
}

void vfio_keep(struct vfio_keeper *k, const char *path, const char *text)
{
	unsigned i = k->nwrites++;

	snprintf(k->write[i].path, sizeof(k->write[i].path), "%s", path);
	snprintf(k->write[i].text, sizeof(k->write[i].text), "%s", text);
}

/* What is not there needs nothing: a driver that has let go already, or a device that is gone. */
static int keep_give_back(const struct vfio_keeper *k)
{
	int rc = 0;

	for (unsigned i = 0; i < k->nwrites && !rc; i++) {
		rc = vfio_write(k->write[i].path, k->write[i].text);
		if (rc == -ENOENT || rc == -ENODEV)
			rc = 0;
	}
	return rc;
}

/* Whoever waits for us does not wait for others: then it is the business of one more process. */
static void keep_until_alone(void)
{
	if (!flock(KEEPER_HELD, LOCK_EX | LOCK_NB))
		return;
	if (syscall(SYS_fork) > 0)
		_exit(0);
	while (flock(KEEPER_HELD, LOCK_EX) && errno == EINTR)
		;
}

static int keep_end(const void *keeper)
{
	return keep_give_back(keeper);
}

static int keep_end_alone(const void *keeper)
{
	keep_until_alone();
	return keep_give_back(keeper);
}

int vfio_keeper_start(struct vfio_keeper *k, const char *address, struct err *e)
{
	char what[32];

	snprintf(what, sizeof(what), "--vfio %s", address);
	return keeper_start_with(&k->process, k->held, k->alone ? keep_end_alone : keep_end, k,
				 what, e);
}

#define PROBE "/sys/bus/pci/drivers_probe"

int vfio_bind(struct vfio_back *b, const struct vfio_found *f, struct err *e)
{
	char override[VFIO_PATH], unbind[VFIO_PATH];
	const char *address = b->conf->address;
	struct vfio_found now = {0};
	int rc;

	vfio_path(override, address, "driver_override");
	vfio_path(unbind, address, "driver/unbind");
	b->keeper = (struct vfio_keeper){.held = b->claim};
	vfio_keep(&b->keeper, override, "\n");
	vfio_keep(&b->keeper, unbind, address);
	if (f->driver[0]) /* else it goes without one, as before */
		vfio_keep(&b->keeper, PROBE, address);
	/* First who gives it back: from now on it happens. */
	rc = vfio_keeper_start(&b->keeper, address, e);
	if (rc)
		return rc;
	rc = vfio_write(override, "vfio-pci");
	if (!rc && f->driver[0])
		rc = vfio_write(unbind, address);
	if (!rc)
		rc = vfio_write(PROBE, address);
	if (rc)
		err_sys(e, rc, "--vfio %s: bind to vfio-pci", address);
	else
		rc = vfio_look("/sys", b->conf, &now, e);
	if (!rc && !now.ready)
		rc = err_set(e, -EINVAL,
			     "--vfio %s: vfio-pci does not take it; see the kernel's log", address);
	if (rc)
		vfio_keeper_end(&b->keeper, address);
	else
		log_info("%s: taken from %s", address, f->driver[0] ? f->driver : "no driver");
	return rc;
}

/* It was killed, or could not: once more, ourselves. */
static void keep_instead(struct vfio_keeper *k, const char *address)
{
	int rc = k->alone && flock(k->held, LOCK_EX | LOCK_NB) ? -errno : keep_give_back(k);

	if (rc)
		log_warn("%s: it cannot be given back: %s", address, strerror(-rc));
}

void vfio_keeper_end(struct vfio_keeper *k, const char *address)
{
	int rc = keeper_end(&k->process, GIVE_BACK_MS);

	if (rc == -EAGAIN)
		log_warn("%s: not given back yet: somebody has it open", address);
	else if (rc)
		keep_instead(k, address);
}
