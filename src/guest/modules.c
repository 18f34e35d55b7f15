/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * insula-init: loads kernel modules. /insula/modules (made by src/image/initrd.c) has one line per
 * module, "GROUP FILE", in the order of their dependencies; "GROUP ?FILE" may fail (drivers of CPU
 * features). A group is loaded when it is needed, because every module costs boot time.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "guest.h"

#define LIST "/insula/modules"
#define FOLDER "/insula/m"
#define VIRTIO_DEVICES "/sys/bus/virtio/devices"

static void load_module(const char *file)
{
	char path[128];
	int optional = file[0] == '?', fd;

	snprintf(path, sizeof path, FOLDER "/%s", file + optional);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT)
		return; /* another group had it */
	if (fd < 0)
		die_errno("module %s", file);
	if (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST && !optional)
		die_errno("module %s", file);
	close(fd);
	unlink(path); /* the initrd is memory */
}

unsigned modules_load(const char *group)
{
	char line[160];
	size_t len = strlen(group);
	unsigned n = 0;
	FILE *f = fopen(LIST, "re");

	if (!f)
		return 0; /* a kernel without modules */
	while (fgets(line, sizeof line, f)) {
		line[strcspn(line, "\n")] = '\0';
		if (strncmp(line, group, len) == 0 && line[len] == ' ') {
			load_module(line + len + 1);
			n++;
		}
	}
	fclose(f);
	return n;
}

void modules_load_for(const char *hid, const char *group)
{
	size_t len = strlen(hid);
	DIR *d = opendir("/sys/bus/acpi/devices");
	struct dirent *e;

	if (!d)
		return; /* no ACPI, so none of the board's devices */
	while ((e = readdir(d)))
		if (strncmp(e->d_name, hid, len) == 0 && e->d_name[len] == ':') {
			modules_load(group);
			break;
		}
	closedir(d);
}

void modules_load_pci(void)
{
	DIR *d = opendir("/sys/bus/pci/devices");
	struct dirent *e;

	if (!d)
		return; /* a kernel without PCI, or one that was told not to look */
	while ((e = readdir(d)))
		if (e->d_name[0] != '.') {
			modules_load("virtio-pci");
			break;
		}
	closedir(d);
}

/* "0x0013" of /sys/bus/virtio/devices/NAME/device; 0 if it cannot be read. */
static unsigned virtio_id(const char *name)
{
	char path[300];
	unsigned id = 0;
	FILE *f;

	snprintf(path, sizeof path, VIRTIO_DEVICES "/%s/device", name);
	f = fopen(path, "re");
	if (!f)
		return 0;
	if (fscanf(f, "%x", &id) != 1)
		id = 0;
	fclose(f);
	return id;
}

void modules_load_virtio(void)
{
	DIR *d = opendir(VIRTIO_DEVICES);
	struct dirent *e;
	char group[24];

	if (!d)
		return; /* a kernel without virtio, or a board without such devices */
	while ((e = readdir(d))) {
		if (e->d_name[0] == '.')
			continue;
		snprintf(group, sizeof group, "virtio-%u", virtio_id(e->d_name));
		modules_load(group);
	}
	closedir(d);
}
