/* SPDX-License-Identifier: BSD-2-Clause */
/* What sysfs says of a PCI function, its IOMMU group, and who uses it. See vfio.h. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <insula/base.h>

#include "vfio.h"

/* What the link `name` of the function points to; "": there is none. */
static void vfio_link(const char *sys, const char *address, const char *name, char *out,
		      size_t size)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/bus/pci/devices/%s/%s", sys, address, name);
	link_name(path, out, size);
}

void vfio_line(const char *path, char *out, size_t size)
{
	FILE *f = fopen(path, "re");

	out[0] = 0;
	if (f && fgets(out, (int)size, f))
		out[strcspn(out, "\n")] = 0;
	if (f)
		fclose(f);
}

/* A driver that gives its device to whoever opens the group. */
static bool is_vfio(const char *driver)
{
	return strstr(driver, "vfio") != NULL;
}

/* Who may be in the group beside: what the kernel lets be there (vfio_dev_viable()). */
static bool is_quiet(const char *driver)
{
	return !*driver || is_vfio(driver) || !strcmp(driver, "pci-stub") ||
	       !strcmp(driver, "pcieport");
}

static int vfio_look_at_group(const char *sys, const struct vfio_config *c, unsigned group,
			      struct err *e)
{
	char path[PATH_MAX], driver[32], others[256] = "";
	struct dirent *member;
	DIR *d;

	snprintf(path, sizeof(path), "%s/kernel/iommu_groups/%u/devices", sys, group);
	d = opendir(path);
	if (!d)
		return err_sys(e, -errno, "--vfio %s: %s", c->address, path);
	while ((member = readdir(d))) {
		size_t n = strlen(others);

		if (member->d_name[0] == '.' || !strcmp(member->d_name, c->address))
			continue;
		vfio_link(sys, member->d_name, "driver", driver, sizeof(driver));
		if (!is_quiet(driver))
			snprintf(others + n, sizeof(others) - n, "%s%.16s (%.24s)", n ? ", " : "",
				 member->d_name, driver);
	}
	closedir(d);
	return others[0] ? err_set(e, -EINVAL,
				   "--vfio %s: IOMMU group %u has others that the host uses: %s; "
				   "expected all of them on vfio-pci or without a driver",
				   c->address, group, others)
			 : 0;
}

/* ---- is it in use? ---- */

/* Is what the link says below the function? */
static bool is_below(const char *sys, const char *kind, const char *name, const char *function)
{
	char path[PATH_MAX], real[PATH_MAX];
	size_t n = strlen(function);

	snprintf(path, sizeof(path), "%s/class/%s/%s", sys, kind, name);
	return realpath(path, real) && !strncmp(real, function, n) && real[n] == '/';
}

/* Mounted, swapped to, part of another device: whoever uses a disk so holds it exclusively. */
static bool disk_is_used(const char *name)
{
	char path[PATH_MAX];
	int fd;

	snprintf(path, sizeof(path), "/dev/%s", name);
	fd = open(path, O_RDONLY | O_EXCL | O_CLOEXEC | O_NONBLOCK);
	if (fd >= 0)
		close(fd);
	return fd < 0 && errno == EBUSY;
}

static bool card_is_up(const char *sys, const char *name)
{
	char path[PATH_MAX], flags[32];

	snprintf(path, sizeof(path), "%s/class/net/%s/flags", sys, name);
	vfio_line(path, flags, sizeof(flags));
	return strtoul(flags, NULL, 16) & IFF_UP;
}

/* *what: a disk or a card of the function that is in use. */
static bool vfio_is_used(const char *sys, const char *kind, const char *function, char *what,
			 size_t size)
{
	bool disks = !strcmp(kind, "block"), used = false;
	struct dirent *one;
	char path[PATH_MAX];
	DIR *d;

	snprintf(path, sizeof(path), "%s/class/%s", sys, kind);
	d = opendir(path);
	while (d && !used && (one = readdir(d))) {
		if (one->d_name[0] == '.' || !is_below(sys, kind, one->d_name, function))
			continue;
		used = disks ? disk_is_used(one->d_name) : card_is_up(sys, one->d_name);
		snprintf(what, size, "%s%.64s", disks ? "/dev/" : "network card ", one->d_name);
	}
	if (d)
		closedir(d);
	return used;
}

static int vfio_driver_is_there(const char *sys, const struct vfio_config *c, struct err *e)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/bus/pci/drivers/vfio-pci", sys);
	return access(path, F_OK)
		       ? err_set(e, -EINVAL,
				 "--vfio %s: bind: the driver vfio-pci is not there; expected it: "
				 "modprobe vfio-pci",
				 c->address)
		       : 0;
}

static int vfio_may_be_bound(const char *sys, const struct vfio_config *c, struct err *e)
{
	char path[PATH_MAX], function[PATH_MAX], what[96];
	int rc = vfio_driver_is_there(sys, c, e);

	if (rc)
		return rc;
	snprintf(path, sizeof(path), "%s/bus/pci/devices/%s", sys, c->address);
	if (!realpath(path, function))
		return err_sys(e, -errno, "--vfio %s", c->address);
	if (vfio_is_used(sys, "block", function, what, sizeof(what)) ||
	    vfio_is_used(sys, "net", function, what, sizeof(what)))
		return err_set(e, -EINVAL,
			       "--vfio %s: bind: in use: %s; expected it unmounted, or down",
			       c->address, what);
	return 0;
}

/* ---- the whole ---- */

int vfio_look(const char *sys, const struct vfio_config *c, struct vfio_found *f, struct err *e)
{
	char path[PATH_MAX], text[64];
	int rc;

	snprintf(path, sizeof(path), "%s/bus/pci/devices/%s", sys, c->address);
	if (access(path, F_OK))
		return err_set(e, -EINVAL,
			       "--vfio %s: there is no such PCI function; lspci -D lists them",
			       c->address);
	vfio_link(sys, c->address, "iommu_group", text, sizeof(text));
	if (!text[0])
		return err_set(e, -EINVAL,
			       "--vfio %s: it is behind no IOMMU; expected one that is on, in the "
			       "firmware and in the kernel (intel_iommu=on)",
			       c->address);
	f->group = (unsigned)strtoul(text, NULL, 10);
	snprintf(path, sizeof(path), "%s/kernel/iommu_groups/%u/name", sys, f->group);
	vfio_line(path, text, sizeof(text));
	if (!strcmp(text, "vfio-noiommu"))
		return err_set(e, -EINVAL,
			       "--vfio %s: it is behind no IOMMU (vfio-noiommu); expected one that "
			       "is on: a guest would reach all of the host's memory",
			       c->address);
	rc = vfio_look_at_group(sys, c, f->group, e);
	if (rc)
		return rc;
	vfio_link(sys, c->address, "driver", f->driver, sizeof(f->driver));
	f->ready = is_vfio(f->driver);
	if (f->ready)
		return 0;
	if (!c->bind)
		return err_set(e, -EINVAL,
			       "--vfio %s: %s%s; expected vfio-pci: bind it before, or say "
			       "--vfio %s,bind",
			       c->address, f->driver[0] ? "the host uses it, driver " : "no driver",
			       f->driver, c->address);
	return vfio_may_be_bound(sys, c, e);
}

/* ---- SR-IOV ---- */

/* A number of the function; 0: it says none. */
static unsigned vfio_number(const char *sys, const char *address, const char *name, int base)
{
	char path[PATH_MAX], text[32];

	snprintf(path, sizeof(path), "%s/bus/pci/devices/%s/%s", sys, address, name);
	vfio_line(path, text, sizeof(text));
	return (unsigned)strtoul(text, NULL, base);
}

int vfio_look_pf(const char *sys, const struct vfio_config *c, unsigned *now, struct err *e)
{
	unsigned most = vfio_number(sys, c->address, "sriov_totalvfs", 10);
	char path[PATH_MAX], driver[32];

	snprintf(path, sizeof(path), "%s/bus/pci/devices/%s", sys, c->address);
	if (access(path, F_OK))
		return err_set(e, -EINVAL,
			       "--vfio pf=%s: there is no such PCI function; lspci -D lists them",
			       c->address);
	if (!most)
		return err_set(e, -EINVAL,
			       "--vfio pf=%s: it has no virtual functions; expected one with "
			       "SR-IOV",
			       c->address);
	vfio_link(sys, c->address, "driver", driver, sizeof(driver));
	if (!driver[0] || is_vfio(driver))
		return err_set(e, -EINVAL,
			       "--vfio pf=%s: %s%s; expected its own driver, which makes virtual "
			       "functions",
			       c->address, driver[0] ? "it is on " : "no driver", driver);
	*now = vfio_number(sys, c->address, "sriov_numvfs", 10);
	if (!*now && c->vfs > most)
		return err_set(e, -EINVAL,
			       "--vfio pf=%s: vfs '%u'; expected 1 to %u, which is what it can "
			       "have",
			       c->address, c->vfs, most);
	return vfio_driver_is_there(sys, c, e);
}

bool vfio_virtual(const char *sys, const char *pf, unsigned n, char address[CONFIG_VFIO_LEN + 1],
		  struct vfio_found *f)
{
	char name[32];

	snprintf(name, sizeof(name), "virtfn%u", n);
	vfio_link(sys, pf, name, address, CONFIG_VFIO_LEN + 1);
	if (!address[0])
		return false;
	vfio_link(sys, address, "driver", f->driver, sizeof(f->driver));
	f->ready = is_vfio(f->driver);
	return true;
}

void vfio_modalias(const char *sys, const struct vfio_config *c, char out[VFIO_MODALIAS])
{
	const unsigned class = c->pf ? vfio_number(sys, c->address, "class", 16) : 0;
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/bus/pci/devices/%s/modalias", sys, c->address);
	vfio_line(path, out, VFIO_MODALIAS);
	if (!c->pf || !out[0])
		return;
	/* Which subsystem it will have is not known. Few drivers ask for it. */
	snprintf(out, VFIO_MODALIAS, "pci:v%08Xd%08Xsv00000000sd00000000bc%02Xsc%02Xi%02X",
		 vfio_number(sys, c->address, "vendor", 16),
		 vfio_number(sys, c->address, "sriov_vf_device", 16), class >> 16 & 0xff,
		 class >> 8 & 0xff, class & 0xff);
}
