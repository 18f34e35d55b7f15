/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The initrd: insula-init, insula-container, a static busybox, and the modules that this kernel
 * needs for the board's devices.
 *
 * Stages: find the kernel's version and module tree; choose the modules; name the result after the
 * identity of all inputs; take it from the cache, or write the archive there. Nothing is executed
 * or decompressed unless the archive has to be written.
 */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/container.h>
#include <insula/image.h>

#include "cache.h"
#include "cpio.h"
#include "kernel.h"
#include "modules.h"
#include "spawn.h"

/* Part of every key: count up when the archive's layout changes. */
#define BUILDER_VERSION 9

#define BUSYBOX_MAX_PHDRS 64

/* Groups of src/guest: loaded when the ACPI tables show such a device, virtio-pci when there is
 * one on a PCI bus, virtio-ID when a virtio device with that ID (virtio 1.2, 5) is there, or
 * when the root disk's superblock says so; "seed" always. xfs and btrfs are not among them: as
 * modules they have 4 MiB each, and every boot would unpack them; kernels that have them built
 * in can use them. The group "assigned" has the drivers of functions of the host, and is loaded
 * last. */
static const struct {
	const char *group, *module;
	enum { FOR_ALL, FOR_ROOT_DISK, FOR_FS, FOR_PCI, FOR_MEM, FOR_SEED } who;
} wanted[] = {
	{"panic", "pvpanic-mmio", FOR_ALL},
	{"clock", "ptp_vmclock", FOR_ALL},
	{"virtio", "virtio_mmio", FOR_ALL},
	{"virtio-pci", "virtio_pci", FOR_PCI},
	{"virtio-2", "virtio_blk", FOR_ALL},
	{"virtio-4", "virtio_rng", FOR_ALL},
	{"virtio-1", "virtio_net", FOR_ALL},
	{"virtio-19", "vmw_vsock_virtio_transport", FOR_ALL},
	{"virtio-3", "virtio_console", FOR_ALL},
	{"virtio-5", "virtio_balloon", FOR_ALL},
	{"virtio-24", "virtio_mem", FOR_MEM},
	{"virtio-26", "virtiofs", FOR_FS},
	{"overlay", "overlay", FOR_ROOT_DISK},
	{"ext4", "ext4", FOR_ROOT_DISK},
	{"erofs", "erofs", FOR_ROOT_DISK},
	{"squashfs", "squashfs", FOR_ROOT_DISK},
	{"seed", "isofs", FOR_SEED},
};

struct build {
	const struct image_initrd_params *p;
	char kernel_path[IMAGE_PATH_MAX]; /* without symbolic links */
	char busybox_path[IMAGE_PATH_MAX];
	char tree[IMAGE_PATH_MAX]; /* module tree, "": none */
	char looked[512];          /* where it was looked for */
	int kernel, init, container, busybox;
	struct modules modules;
	struct cache cache;
};

/* ---- inputs ---- */

static int open_input(const char *what, const char *path, int *fd, struct err *e)
{
	struct stat st;

	*fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (*fd < 0)
		return err_sys(e, -errno, "%s %s", what, path);
	if (fstat(*fd, &st))
		return err_sys(e, -errno, "%s %s", what, path);
	if (!S_ISREG(st.st_mode))
		return err_set(e, -EINVAL, "%s %s: not a file", what, path);
	return 0;
}

/* A program that needs a loader and libraries cannot run where there are none. */
static bool is_static(int fd)
{
	Elf64_Ehdr eh;
	Elf64_Phdr ph;

	if (read_full(fd, &eh, sizeof(eh), 0) || memcmp(eh.e_ident, ELFMAG, SELFMAG) != 0 ||
	    eh.e_ident[EI_CLASS] != ELFCLASS64 || eh.e_phentsize != sizeof(ph) ||
	    eh.e_phnum > BUSYBOX_MAX_PHDRS)
		return false;
	for (unsigned i = 0; i < eh.e_phnum; i++)
		if (read_full(fd, &ph, sizeof(ph), eh.e_phoff + i * sizeof(ph)) ||
		    ph.p_type == PT_INTERP)
			return false;
	return true;
}

static int open_busybox(struct build *b, struct err *e)
{
	static const char *const places[] = {"/bin/busybox", "/usr/bin/busybox",
					     "/usr/local/bin/busybox"};
	const char *path = b->p->busybox;
	int r;

	for (size_t i = 0; !path && i < ARRAY_LEN(places); i++)
		if (access(places[i], R_OK | X_OK) == 0)
			path = places[i];
	if (!path)
		return err_set(e, -ENOENT,
			       "needs a static busybox (Debian: apt-get install busybox-static)");
	if (!realpath(path, b->busybox_path))
		return err_sys(e, -errno, "busybox %s", path);
	r = open_input("busybox", b->busybox_path, &b->busybox, e);
	if (r)
		return r;
	if (!is_static(b->busybox))
		return err_set(e, -EINVAL,
			       "%s is not static (Debian: apt-get install busybox-static)", path);
	return 0;
}

/* ---- the module tree ---- */

static bool try_tree(struct build *b, const char *base, const char *lib, const char *version)
{
	struct stat st;
	size_t n = strlen(b->looked);

	if ((size_t)snprintf(b->tree, sizeof(b->tree), "%s%s/modules/%s", base, lib, version) >=
	    sizeof(b->tree))
		return false;
	if (stat(b->tree, &st) == 0 && S_ISDIR(st.st_mode))
		return true;
	snprintf(b->looked + n, sizeof(b->looked) - n, "%s%s", n ? ", " : "", b->tree);
	b->tree[0] = '\0';
	return false;
}

/* X for the kernel X/boot/FILE, "" for X = /. False: the kernel lies elsewhere, and X/lib/modules
 * need not belong to it. For /tmp/build/bzImage anybody could make that directory. */
static bool beside_boot(const char *kernel, char base[IMAGE_PATH_MAX])
{
	char *slash;

	snprintf(base, IMAGE_PATH_MAX, "%s", kernel);
	slash = strrchr(base, '/');
	if (!slash)
		return false;
	*slash = '\0';
	slash = strrchr(base, '/');
	if (!slash || strcmp(slash, "/boot") != 0)
		return false;
	*slash = '\0';
	return true;
}

/* X/boot/vmlinuz-V has its modules in X/lib/modules/V or X/usr/lib/modules/V. */
static bool find_tree(void *ctx, const char *version)
{
	struct build *b = ctx;
	char base[IMAGE_PATH_MAX];

	b->looked[0] = '\0';
	if (beside_boot(b->kernel_path, base) && base[0] &&
	    (try_tree(b, base, "/lib", version) || try_tree(b, base, "/usr/lib", version)))
		return true;
	return try_tree(b, "", "/lib", version) || try_tree(b, "", "/usr/lib", version);
}

static int find_modules(struct build *b, struct err *e)
{
	char version[KERNEL_VERSION_MAX];
	bool elf;
	int r;

	if (b->p->modules) {
		snprintf(b->tree, sizeof(b->tree), "%s", b->p->modules);
		return 0;
	}
	r = kernel_version(b->kernel, b->p->kernel, find_tree, b, version, &elf, e);
	if (r || b->tree[0])
		return r;
	if (version[0] && find_tree(b, version))
		return 0;
	if (elf)
		return 0; /* a kernel that somebody built and did not install: everything is in it
			   */
	return err_set(e, -ENOENT, "no modules for kernel %s: looked in %s", version, b->looked);
}

static bool is_wanted(const struct image_initrd_params *p, size_t i)
{
	return wanted[i].who == FOR_ALL || (wanted[i].who == FOR_ROOT_DISK && p->root_disk) ||
	       (wanted[i].who == FOR_FS && p->fs) || (wanted[i].who == FOR_PCI && p->pci) ||
	       (wanted[i].who == FOR_MEM && p->mem) || (wanted[i].who == FOR_SEED && p->seed);
}

static int choose_modules(struct build *b, struct err *e)
{
	struct stat kernel;
	int r = find_modules(b, e);

	if (r || !b->tree[0])
		return r;
	if (fstat(b->kernel, &kernel))
		return err_sys(e, -errno, "kernel %s", b->kernel_path);
	r = modules_open(&b->modules, b->tree, kernel.st_uid, e);
	for (size_t i = 0; !r && i < ARRAY_LEN(wanted); i++)
		if (is_wanted(b->p, i))
			r = modules_need(&b->modules, wanted[i].group, wanted[i].module, e);
	for (const char *const *d = b->p->devices; !r && d && *d; d++)
		r = modules_need_device(&b->modules, "assigned", *d, e);
	return r;
}

/* ---- the archive ---- */

static int add_modules(struct build *b, struct cpio *a, struct err *e)
{
	char path[96], *list = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&list, &len);
	int r = 0;

	if (!f)
		return err_set(e, -ENOMEM, "out of memory");
	for (size_t i = 0; i < b->modules.n && !r; i++) {
		const struct module *m = &b->modules.m[i];
		bool again = false;
		int fd = -1;

		fprintf(f, "%s %s%s.ko\n", m->group, m->optional ? "?" : "", m->name);
		for (size_t j = 0; j < i; j++)
			again |= strcmp(b->modules.m[j].path, m->path) == 0;
		if (again)
			continue;
		r = modules_read(&b->modules, m, &fd, e);
		snprintf(path, sizeof(path), "insula/m/%s.ko", m->name);
		if (!r)
			cpio_copy(a, path, 0600, fd);
		fd_close(&fd);
	}
	if (fclose(f) && !r)
		r = err_set(e, -ENOMEM, "out of memory");
	if (!r)
		cpio_file(a, "insula/modules", 0600, list, len);
	free(list);
	return r;
}

/* The links that busybox would like to have, as absolute paths; insula-init makes them. */
static int add_applets(struct build *b, struct cpio *a, struct err *e)
{
	const char *const argv[] = {b->busybox_path, "--list-full", NULL};
	struct spawn s = {
		.argv = argv, .package = "busybox-static", .in = -1, .out = -1, .extra = -1};
	char *list = NULL, line[64];
	size_t len = 0;
	FILE *f = NULL, *o = NULL;
	int r;

	s.out = memfd_create("applets", MFD_CLOEXEC);
	r = s.out < 0 ? err_sys(e, -errno, "memory for busybox") : spawn_run(&s, e);
	if (r)
		goto out;
	f = fdopen(s.out, "r");
	if (f)
		s.out = -1; /* f's now */
	o = open_memstream(&list, &len);
	if (!f || !o) {
		r = err_set(e, -ENOMEM, "out of memory");
		goto out;
	}
	rewind(f);
	while (fgets(line, sizeof(line), f))
		fprintf(o, "/%s", line);
	r = fclose(o) ? err_set(e, -ENOMEM, "out of memory") : 0;
	o = NULL;
	if (!r)
		cpio_file(a, "insula/applets", 0600, list, len);
out:
	if (o)
		fclose(o);
	if (f)
		fclose(f);
	fd_close(&s.out);
	free(list);
	return r;
}

static void add_folders(struct cpio *a)
{
	static const char *const folders[] = {"bin",     "dev",      "etc",  "insula", "insula/m",
					      "proc",    "run",      "sbin", "sys",    "usr",
					      "usr/bin", "usr/sbin", "var"};

	for (size_t i = 0; i < ARRAY_LEN(folders); i++)
		cpio_dir(a, folders[i], 0755);
	cpio_dir(a, "root", 0700);
	cpio_dir(a, "tmp", 01777);
}

static void add_text(struct cpio *a, const char *path, const char *text)
{
	cpio_file(a, path, 0644, text, strlen(text));
}

/* Writes down what a DHCP server has granted, as src/guest/net.c reads it. */
static const char udhcpc[] = "#!/bin/busybox sh\n"
			     "[ \"$1\" = bound ] || [ \"$1\" = renew ] || exit 0\n"
			     "{\n"
			     "[ -z \"$mtu\" ] || echo \"mtu=$mtu\"\n"
			     "echo \"ip=$ip/${mask:-24}\"\n"
			     "for a in $router; do echo \"gw=$a\"; break; done\n"
			     "for a in $dns; do echo \"dns=$a\"; done\n"
			     "} >/run/insula-lease\n";

static int write_archive(struct build *b, struct err *e)
{
	struct cpio a;
	int r = cpio_begin(&a, b->cache.tmp), end;

	if (r)
		return err_sys(e, r, "initrd");
	add_folders(&a);
	cpio_chardev(&a, "dev/console", 0600, 5,
		     1); /* the kernel opens it for PID 1 before anything is mounted */
	cpio_chardev(&a, "dev/null", 0666, 1, 3);
	add_text(&a, "etc/passwd",
		 "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n");
	add_text(&a, "etc/group", "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n");
	add_text(&a, "etc/hosts", "127.0.0.1 localhost\n::1 localhost\n");
	cpio_file(&a, "insula/udhcpc", 0755, udhcpc, strlen(udhcpc));
	cpio_copy(&a, "init", 0755, b->init);
	if (b->container >= 0)
		cpio_copy(&a, &CT_PROGRAM[1], 0755, b->container);
	cpio_copy(&a, "bin/busybox", 0755, b->busybox);
	r = add_applets(b, &a, e);
	if (!r)
		r = add_modules(b, &a, e);
	end = cpio_end(&a);
	if (!r && end)
		r = cache_failed(&b->cache, end, "initrd", e);
	return r;
}

/* ---- the cache ---- */

static int hash_input(struct hash *h, const char *path, int fd, struct err *e)
{
	struct stat st;

	if (fstat(fd, &st))
		return err_sys(e, -errno, "%s", path);
	hash_str(h, path);
	hash_stat(h, &st);
	return 0;
}

static int name_result(struct build *b, struct err *e)
{
	char kind[sizeof(CACHE_INITRD CACHE_INITRD_ROOT CACHE_INITRD_FS CACHE_INITRD_PCI
				 CACHE_INITRD_MEM CACHE_INITRD_SEED CACHE_INITRD_DEVICES)];
	struct hash subject, key;
	int r;

	snprintf(kind, sizeof(kind), "%s%s%s%s%s%s%s", CACHE_INITRD,
		 b->p->root_disk ? CACHE_INITRD_ROOT : "", b->p->fs ? CACHE_INITRD_FS : "",
		 b->p->pci ? CACHE_INITRD_PCI : "", b->p->mem ? CACHE_INITRD_MEM : "",
		 b->p->seed ? CACHE_INITRD_SEED : "",
		 b->p->devices && b->p->devices[0] ? CACHE_INITRD_DEVICES : "");
	hash_init(&subject);
	hash_str(&subject, b->kernel_path);
	hash_str(&subject, b->p->init);
	for (const char *const *d = b->p->devices; d && *d; d++)
		hash_str(&subject, *d);
	hash_init(&key);
	hash_u64(&key, BUILDER_VERSION);
	r = hash_input(&key, b->kernel_path, b->kernel, e);
	if (!r)
		r = hash_input(&key, b->p->init, b->init, e);
	if (!r && b->container >= 0)
		r = hash_input(&key, b->p->container, b->container, e);
	if (!r)
		r = hash_input(&key, b->busybox_path, b->busybox, e);
	if (!r)
		r = modules_hash(&b->modules, &key, e);
	if (!r)
		cache_name(&b->cache, kind, &subject, &key);
	return r;
}

static int get_or_make(struct build *b, int *out, struct err *e)
{
	int r = cache_open(&b->cache, b->p->cache_dir, e);

	if (r)
		return r;
	r = cache_get(&b->cache, out, e);
	if (r != -ENOENT)
		return r;
	r = cache_begin(&b->cache, e);
	if (!r)
		r = write_archive(b, e);
	return r ? r : cache_commit(&b->cache, out, e);
}

/* Open and read all that goes into it. build_close() in any case. */
static int build_open(struct build *b, const struct image_initrd_params *p, struct err *e)
{
	int r;

	*b = (struct build){.p = p, .kernel = -1, .init = -1, .container = -1, .busybox = -1};
	b->modules.dir = b->cache.dir = b->cache.tmp = -1;
	r = open_input("kernel", p->kernel, &b->kernel, e);
	if (!r && !realpath(p->kernel, b->kernel_path))
		r = err_sys(e, -errno, "kernel %s", p->kernel);
	if (!r)
		r = open_input("insula-init", p->init, &b->init, e);
	if (!r && p->container)
		r = open_input("insula-container", p->container, &b->container, e);
	if (!r)
		r = open_busybox(b, e);
	if (!r)
		r = choose_modules(b, e);
	if (!r)
		r = name_result(b, e);
	return r;
}

static void build_close(struct build *b)
{
	cache_close(&b->cache);
	modules_close(&b->modules);
	fd_close(&b->busybox);
	fd_close(&b->container);
	fd_close(&b->init);
	fd_close(&b->kernel);
}

static int with_inputs(const struct image_initrd_params *p,
		       int (*then)(struct build *, int *, struct err *), int *out, struct err *e)
{
	struct build *b = calloc(1, sizeof(*b));
	int r;

	if (!b)
		return err_set(e, -ENOMEM, "out of memory");
	r = build_open(b, p, e);
	if (!r && then)
		r = then(b, out, e);
	build_close(b);
	free(b);
	return r;
}

int image_initrd(const struct image_initrd_params *p, int *out, struct err *e)
{
	return with_inputs(p, get_or_make, out, e);
}

int image_initrd_check(const struct image_initrd_params *p, struct err *e)
{
	return with_inputs(p, NULL, NULL, e);
}
