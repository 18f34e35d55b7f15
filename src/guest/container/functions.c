/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * insula-container: the nodes of PCI functions. What the drivers of a function have made is below
 * it in sysfs: each directory with a file "dev" is a device with a node, whose name and number are
 * there. A container that has the function gets all of them, and the right to use them.
 *
 * Drivers have had the machine's start to find their functions, but one may look for its disks
 * later than that, so these are waited for. What comes after the container has begun it does not
 * get.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "container.h"

#define DEPTH_MAX 16u /* of directories below a function */
#define DISK_MS 5000
#define STEP_MS 50
#define STORAGE 0x01 /* PCI Code and ID Assignment Specification, 1.2 */

struct found_node {
	char name[96]; /* below /dev */
	char type;
	unsigned major, minor;
};
struct nodes {
	struct found_node *v;
	size_t n;
	bool full; /* no memory */
};

bool function_valid(const char *address)
{
	static const char form[] = "xxxx:xx:xx.x", hex[] = "0123456789abcdef";

	for (size_t i = 0; i < sizeof form; i++) {
		bool digit = address[i] && strchr(hex, address[i]);

		if (form[i] == 'x' ? !digit : address[i] != form[i])
			return false;
	}
	return true;
}

/* ---- one node ---- */

static int read_at(int dir, const char *name, char *out, size_t size)
{
	int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, out, size - 1);

	if (fd >= 0)
		close(fd);
	out[n > 0 ? n : 0] = '\0';
	return n < 0 ? -1 : 0;
}

static bool is_block(int dir)
{
	char to[256];
	ssize_t n = readlinkat(dir, "subsystem", to, sizeof to - 1);
	const char *last;

	to[n > 0 ? n : 0] = '\0';
	last = strrchr(to, '/');
	return last && strcmp(last + 1, "block") == 0;
}

/* DEVNAME= of its "uevent". */
static bool take_name(const char *uevent, char *out, size_t size)
{
	static const char key[] = "DEVNAME=";
	const char *at =
		strncmp(uevent, key, sizeof key - 1) == 0 ? uevent : strstr(uevent, "\nDEVNAME=");
	size_t n;

	if (!at)
		return false;
	at = strchr(at, '=') + 1;
	n = strcspn(at, "\n");
	if (!n || n >= size)
		return false;
	memcpy(out, at, n);
	out[n] = '\0';
	return true;
}

/* The directory may be one of no device, or of one without a node. */
static void look_at(int dir, struct nodes *all)
{
	char number[32], uevent[4096];
	struct found_node node = {.type = 'c'}, *to;

	if (read_at(dir, "dev", number, sizeof number) ||
	    read_at(dir, "uevent", uevent, sizeof uevent) ||
	    sscanf(number, "%u:%u", &node.major, &node.minor) != 2 ||
	    !take_name(uevent, node.name, sizeof node.name))
		return;
	if (is_block(dir))
		node.type = 'b';
	to = PUSH(all->v, all->n);
	if (to)
		*to = node;
	all->full |= !to;
}

/* Takes `fd` over. A symbolic link leads to something of somebody else's. */
static void collect(int fd, unsigned depth, struct nodes *all)
{
	DIR *d = fdopendir(fd);
	struct dirent *e;

	if (!d) {
		close(fd);
		return;
	}
	look_at(fd, all);
	while (depth < DEPTH_MAX && (e = readdir(d))) {
		int child;

		if (e->d_name[0] == '.')
			continue;
		child = openat(fd, e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (child >= 0)
			collect(child, depth + 1, all);
	}
	closedir(d);
}

static void collect_path(const char *path, struct nodes *all)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd >= 0)
		collect(fd, 0, all);
}

/* ---- disks that several functions may lead to ---- */

/* Does one of the links in it lead below the function? */
static bool leads_to(const char *subsystem, const char *function)
{
	size_t n = strlen(function);
	char path[PATH_MAX + 300], real[PATH_MAX];
	DIR *d = opendir(subsystem);
	struct dirent *e;
	bool leads = false;

	while (d && !leads && (e = readdir(d))) {
		if (e->d_name[0] == '.')
			continue;
		snprintf(path, sizeof path, "%s/%s", subsystem, e->d_name);
		leads = realpath(path, real) && strncmp(real, function, n) == 0 && real[n] == '/';
	}
	if (d)
		closedir(d);
	return leads;
}

/* An NVMe disk that says it may have more than one controller is below none of them, but below the
 * subsystem, which has a link to each. */
static void collect_shared(const char *sys, const char *function, struct nodes *all)
{
	char path[PATH_MAX], real[PATH_MAX];
	struct dirent *e;
	DIR *d;

	snprintf(path, sizeof path, "%s/class/nvme-subsystem", sys);
	d = opendir(path);
	while (d && realpath(function, real) && (e = readdir(d))) {
		snprintf(path, sizeof path, "%s/class/nvme-subsystem/%s", sys, e->d_name);
		if (e->d_name[0] != '.' && leads_to(path, real))
			collect_path(path, all);
	}
	if (d)
		closedir(d);
}

/* ---- one function ---- */

static void look(const char *sys, const char *function, struct nodes *all)
{
	free(all->v);
	*all = (struct nodes){0};
	collect_path(function, all);
	collect_shared(sys, function, all);
}

static bool has_disk(const struct nodes *all)
{
	for (size_t i = 0; i < all->n; i++)
		if (all->v[i].type == 'b')
			return true;
	return false;
}

static bool is_storage(const char *function)
{
	char path[PATH_MAX + 16], text[32];

	snprintf(path, sizeof path, "%s/class", function);
	return read_at(AT_FDCWD, path, text, sizeof text) == 0 &&
	       strtoul(text, NULL, 16) >> 16 == STORAGE;
}

/* Its partitions come a little after a disk: until there are no more than before, or what is left
 * of the time for all functions is over. */
static void look_and_wait(const char *sys, const char *function, unsigned *left_ms,
			  struct nodes *all)
{
	size_t before = 0;

	look(sys, function, all);
	for (; is_storage(function) && *left_ms; *left_ms -= STEP_MS) {
		if (before == all->n && has_disk(all))
			return;
		before = all->n;
		nanosleep(&(struct timespec){.tv_nsec = STEP_MS * 1000000L}, NULL);
		look(sys, function, all);
	}
}

/* ---- into the container ---- */

static int add_node(struct container *c, const struct function_record *f,
		    const struct found_node *n, struct err *e)
{
	struct device_record *device = PUSH(c->device, c->devices);
	struct devrule *rule = device ? PUSH(c->devrule, c->devrules) : NULL;
	char **path = rule ? PUSH(c->found.v, c->found.n) : NULL;

	if (path && asprintf(path, "/dev/%s", n->name) < 0)
		*path = NULL;
	if (!path || !*path)
		return err_set(e, -ENOMEM, "out of memory");
	*device = (struct device_record){.path = *path,
					 .type = n->type,
					 .major = n->major,
					 .minor = n->minor,
					 .mode = f->mode,
					 .uid = f->uid,
					 .gid = f->gid};
	*rule = (struct devrule){.allow = true,
				 .type = n->type,
				 .major = (int)n->major,
				 .minor = (int)n->minor,
				 .access = DEV_MKNOD | DEV_READ | DEV_WRITE};
	return 0;
}

static int add_function(const char *sys, struct container *c, const struct function_record *f,
			unsigned *left_ms, struct err *e)
{
	struct nodes all = {0};
	char path[PATH_MAX];
	int r = 0;

	snprintf(path, sizeof path, "%s/bus/pci/devices/%s", sys, f->address);
	if (access(path, F_OK) < 0)
		return err_set(e, -ENODEV, "pci=%s: the machine has no such function", f->address);
	look_and_wait(sys, path, left_ms, &all);
	if (all.full)
		r = err_set(e, -ENOMEM, "out of memory");
	if (c->devrules + all.n > DEVRULES_MAX)
		r = err_set(e, -E2BIG, "pci=%s: more than %u device rules", f->address,
			    DEVRULES_MAX);
	for (size_t i = 0; i < all.n && !r; i++)
		r = add_node(c, f, &all.v[i], e);
	free(all.v);
	return r;
}

int functions_find(const char *sys, struct container *c, struct err *e)
{
	unsigned left_ms = DISK_MS;
	int r = 0;

	for (size_t i = 0; i < c->functions && !r; i++)
		r = add_function(sys, c, &c->function[i], &left_ms, e);
	return r;
}
