/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * insula-init: loads kernel modules. /insula/modules (made by src/image/initrd.c) has one line per
 * module, "GROUP FILE", in the order of their dependencies; "GROUP ?FILE" may fail (drivers of CPU
 * features). A group is loaded when it is needed, because every module costs boot time.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "guest.h"

#define LIST "/insula/modules"
#define FOLDER "/insula/m"
#define PCI_DEVICES "/sys/bus/pci/devices"
#define VIRTIO "/sys/bus/virtio"
#define VIRTIO_DEVICES VIRTIO "/devices"

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
	DIR *d = opendir(PCI_DEVICES);
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

/* "0x0013" of DIR/NAME/FILE; 0 if it cannot be read. */
static unsigned sys_number(const char *dir, const char *name, const char *file)
{
	char path[300];
	unsigned n = 0;
	FILE *f;

	snprintf(path, sizeof path, "%s/%s/%s", dir, name, file);
	f = fopen(path, "re");
	if (!f)
		return 0;
	if (fscanf(f, "%x", &n) != 1)
		n = 0;
	fclose(f);
	return n;
}

/* Is it a bridge to another bus, where a device may come later? */
static bool is_pci_bridge(const char *name)
{
	return sys_number(PCI_DEVICES, name, "class") >> 8 == 0x0604;
}

/* There may be nobody then who loads them: the initrd is gone. */
void modules_load_later(void)
{
	static const char *const groups[] = {"virtio-1", "virtio-2", "virtio-3", "virtio-19",
					     "virtio-26"};
	DIR *d = opendir(PCI_DEVICES);
	bool wanted = false;
	struct dirent *e;

	if (!d)
		return;
	while (!wanted && (e = readdir(d)))
		wanted = e->d_name[0] != '.' && is_pci_bridge(e->d_name);
	closedir(d);
	for (size_t i = 0; wanted && i < sizeof groups / sizeof *groups; i++)
		modules_load(groups[i]);
}

/* A card, or a live share: what is another one's when the machine goes on. */
static bool waits(unsigned id)
{
	return id == 1 || id == 26; /* virtio 1.2, 5 */
}

/* Those that wait, or the others. */
static void load_virtio(DIR *d, bool waiting)
{
	struct dirent *e;
	char group[24];

	while ((e = readdir(d))) {
		unsigned id = sys_number(VIRTIO_DEVICES, e->d_name, "device");

		snprintf(group, sizeof group, "virtio-%u", id);
		if (e->d_name[0] != '.' && waits(id) == waiting)
			modules_load(group);
	}
	rewinddir(d);
}

static bool write_virtio(const char *file, const char *text)
{
	char path[64];
	bool ok;
	int fd;

	snprintf(path, sizeof path, VIRTIO "/%s", file);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
	if (fd >= 0)
		close(fd);
	return ok;
}

void modules_load_virtio(bool template)
{
	DIR *d = opendir(VIRTIO_DEVICES);

	if (!d)
		return; /* a kernel without virtio, or a board without such devices */
	load_virtio(d, false);
	if (template && !write_virtio("drivers_autoprobe", "0"))
		die_errno(VIRTIO "/drivers_autoprobe");
	load_virtio(d, true);
	closedir(d);
}

bool modules_go_on(void)
{
	char line[8] = "";
	FILE *f = fopen(VIRTIO "/drivers_autoprobe", "re");
	bool held = f && fgets(line, sizeof line, f) && line[0] == '0';
	struct dirent **names;
	int n = 0;

	if (held && !write_virtio("drivers_autoprobe", "1"))
		die_errno(VIRTIO "/drivers_autoprobe");
	/* By their numbers, as a driver that is loaded takes them: cards are named in this
	 * order. */
	if (held)
		n = scandir(VIRTIO_DEVICES, &names, NULL, versionsort);
	if (n < 0)
		die_errno(VIRTIO_DEVICES);
	for (int i = 0; i < n; i++) {
		/* Of one that has a driver already the kernel says that it has nothing to do. */
		if (names[i]->d_name[0] != '.')
			write_virtio("drivers_probe", names[i]->d_name);
		free(names[i]);
	}
	if (n)
		free(names);
	if (f)
		fclose(f);
	return held;
}
