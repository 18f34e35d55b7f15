/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The image room: the configuration archive, the initrd builder on kernels and module trees made up
 * here, the cache under competition and failure, and root images (read back with e2fsck and
 * debugfs).
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <glob.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/image.h>

#include "image/cache.h"
#include "image/kernel.h"

static char top[] = "/tmp/insula-image.XXXXXX"; /* made and entered by the fixture: all paths below
						   are relative to it */

/* ---- helpers ---- */

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *w)
{
	(void)st, (void)flag, (void)w;
	return remove(path);
}

static void setup(void)
{
	strcpy(top + strlen(top) - 6, "XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(top));
	ck_assert_int_eq(chdir(top), 0);
	umask(022); /* a module tree that a group can write is refused */
}

static void teardown(void)
{
	ck_assert_int_eq(chdir("/"), 0);
	nftw(top, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void run(const char *command)
{
	ck_assert_msg(system(command) == 0, "%s", command);
}

static void put(const char *path, const void *data, size_t len)
{
	char dir[512];

	snprintf(dir, sizeof(dir), "%s", path);
	for (char *p = dir + 1; *p; p++)
		if (*p == '/') {
			*p = '\0';
			mkdir(dir, 0755);
			*p = '/';
		}
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0755);

	ck_assert_msg(fd >= 0, "%s", path);
	ck_assert_int_eq(write_full(fd, data, len), 0);
	close(fd);
}

static void put_text(const char *path, const char *text)
{
	put(path, text, strlen(text));
}

static char *get(int fd, size_t *len)
{
	struct stat st;

	ck_assert_int_eq(fstat(fd, &st), 0);
	char *p = calloc(1, (size_t)st.st_size + 1);
	ck_assert_int_eq(read_full(fd, p, (size_t)st.st_size, 0), 0);
	*len = (size_t)st.st_size;
	return p;
}

static int count(const char *pattern)
{
	glob_t g;
	int n = glob(pattern, GLOB_PERIOD, NULL, &g) ? 0 : (int)g.gl_pathc;

	globfree(&g);
	return n;
}

static unsigned hex8(const char *p)
{
	char t[9] = {0};

	memcpy(t, p, 8);
	return (unsigned)strtoul(t, NULL, 16);
}

/* Walk an archive; return the content of `name` (NULL: not there) and check that the format is
 * right up to the trailer. */
static const char *find(const char *a, size_t len, const char *name, size_t *size, unsigned *mode)
{
	const char *found = NULL;
	size_t off = 0;

	for (;;) {
		ck_assert_uint_le(off + 110, len);
		ck_assert_int_eq(memcmp(a + off, "070701", 6), 0);
		unsigned fmode = hex8(a + off + 14), fsize = hex8(a + off + 54),
			 nsize = hex8(a + off + 94);
		const char *n = a + off + 110;
		size_t data = (off + 110 + nsize + 3) & ~3ul;

		ck_assert_uint_eq(hex8(a + off + 22) | hex8(a + off + 30) | hex8(a + off + 46),
				  0); /* uid, gid, time */
		ck_assert_uint_le(data + fsize, len);
		ck_assert_int_eq(n[nsize - 1], 0);
		if (strcmp(n, "TRAILER!!!") == 0)
			break;
		if (strcmp(n, name) == 0) {
			found = a + data;
			*size = fsize;
			if (mode)
				*mode = fmode;
		}
		off = (data + fsize + 3) & ~3ul;
	}
	return found;
}

static bool has(const char *a, size_t len, const char *name, const char *text)
{
	size_t n;
	const char *p = find(a, len, name, &n, NULL);

	return p && n == strlen(text) && memcmp(p, text, n) == 0;
}

/* ---- inputs made up ---- */

/* The few bytes of a bzImage that say its version. */
static void put_bzimage(const char *path, const char *version)
{
	char b[0x400] = {0};

	memcpy(b + 0x202, "HdrS", 4);
	b[0x20e] = 0x60; /* 0x200 + 0x160 */
	b[0x20f] = 0x01;
	snprintf(b + 0x360, 0x90, "%s (somebody@somewhere) #1 SMP", version);
	put(path, b, sizeof(b));
}

#define TREE "x/lib/modules/6.1.0-test"

static void put_tree(void)
{
	put_bzimage("x/boot/vmlinuz-6.1.0-test", "6.1.0-test");
	put_text("init", "#!init");
	put_text(TREE "/kernel/a/pvpanic.ko", "pvpanic");
	put_text(TREE "/kernel/a/pvpanic-mmio.ko", "pvpanic-mmio");
	put_text(TREE "/kernel/v/virtio.ko", "virtio");
	put_text(TREE "/kernel/v/virtio_ring.ko", "ring");
	put_text(TREE "/kernel/v/virtio_mmio.ko", "mmio");
	put_text(TREE "/kernel/v/virtio_pci.ko", "pci");
	put_text(TREE "/kernel/v/virtio_pci_legacy_dev.ko", "legacy");
	put_text(TREE "/kernel/v/virtio_pci_modern_dev.ko", "modern");
	put_text(TREE "/kernel/v/virtio-rng.ko", "rng");
	put_text(TREE "/kernel/v/virtio_mem.ko", "mem");
	put_text(TREE "/kernel/f/erofs.ko", "erofs");
	put_text(TREE "/kernel/f/isofs.ko", "isofs");
	put_text(TREE "/kernel/f/libcrc32c.ko", "libcrc32c");
	put_text(TREE "/kernel/c/crc32c-fast.ko", "fast");
	put_text(TREE "/kernel/c/crc32c_slow.ko", "slow");
	put_text(TREE "/modules.dep",
		 "kernel/a/pvpanic.ko:\n"
		 "kernel/a/pvpanic-mmio.ko: kernel/a/pvpanic.ko\n"
		 "kernel/v/virtio.ko: kernel/v/virtio_ring.ko\n"
		 "kernel/v/virtio_ring.ko:\n"
		 "kernel/v/virtio_mmio.ko: kernel/v/virtio.ko kernel/v/virtio_ring.ko\n"
		 "kernel/v/virtio_pci_legacy_dev.ko:\n"
		 "kernel/v/virtio_pci_modern_dev.ko:\n"
		 "kernel/v/virtio_pci.ko: kernel/v/virtio_pci_legacy_dev.ko "
		 "kernel/v/virtio_pci_modern_dev.ko kernel/v/virtio.ko kernel/v/virtio_ring.ko\n"
		 "kernel/v/virtio-rng.ko: kernel/v/virtio.ko kernel/v/virtio_ring.ko\n"
		 "kernel/v/virtio_mem.ko: kernel/v/virtio.ko kernel/v/virtio_ring.ko\n"
		 "kernel/f/erofs.ko: kernel/f/libcrc32c.ko\n"
		 "kernel/f/libcrc32c.ko:\n"
		 "kernel/f/isofs.ko:\n"
		 "kernel/c/crc32c-fast.ko:\n"
		 "kernel/c/crc32c_slow.ko:\n");
	put_text(TREE "/modules.softdep", "# comment\nsoftdep libcrc32c pre: crc32c nothing post: "
					  "pvpanic\nsoftdep erofs post: virtio\n");
	put_text(TREE "/modules.alias",
		 "alias crc32 virtio\nalias crc32c crc32c_fast\nalias crc32c crc32c_slow\n");
}

static struct image_initrd_params params(void)
{
	return (struct image_initrd_params){
		.kernel = "x/boot/vmlinuz-6.1.0-test", .init = "init", .cache_dir = "cache"};
}

static char *build(const struct image_initrd_params *p, size_t *len)
{
	struct err e = {0};
	int fd = -1;

	ck_assert_msg(image_initrd(p, &fd, &e) == 0, "%s", e.text);
	ck_assert_int_eq(fcntl(fd, F_GETFL) & O_ACCMODE, O_RDONLY);
	ck_assert_int_eq(fcntl(fd, F_GETFD), FD_CLOEXEC);
	char *a = get(fd, len);
	close(fd);
	return a;
}

static void refuse(const struct image_initrd_params *p, int code, const char *text)
{
	struct err e = {0};
	int fd = -1;

	ck_assert_int_eq(image_initrd(p, &fd, &e), code);
	ck_assert_int_eq(fd, -1);
	ck_assert_msg(strstr(e.text, text) != NULL, "\"%s\" does not say \"%s\"", e.text, text);
	ck_assert_int_eq(count("cache/initrd*"), 0);
	ck_assert_int_eq(count("cache/.new*"), 0);
}

/* ---- configuration ---- */

START_TEST(config)
{
	char *const share[] = {"/srv/a=b", "/x y", NULL}, *const fs[] = {"ro,insula0,/l", NULL};
	struct image_config c = {.hostname = "h",
				 .root = IMAGE_ROOT_RW,
				 .agent = IMAGE_AGENT_ALONE,
				 .share = share,
				 .fs = fs};
	static const char want[] = "hostname=h\0root=rw\0agent=vsock\0share=/srv/a=b\0share=/x y\0"
				   "fs=ro,insula0,/l";
	struct err e = {0};
	size_t len, n = 0;
	int fd = -1;

	ck_assert_msg(image_config_cpio(&c, &fd, &e) == 0, "%s", e.text);
	ck_assert_int_eq(fcntl(fd, F_GET_SEALS),
			 F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE);
	char *a = get(fd, &len);
	const char *p = find(a, len, "insula/config", &n, NULL);
	ck_assert_ptr_nonnull(p);
	ck_assert_uint_eq(n, sizeof(want));
	ck_assert_int_eq(memcmp(p, want, n), 0);
	ck_assert_uint_eq(len % 4, 0);
	free(a);
	close(fd);
}
END_TEST

START_TEST(config_empty)
{
	struct image_config c = {0};
	size_t len, n = 1;
	int fd = -1;

	ck_assert_int_eq(image_config_cpio(&c, &fd, NULL), 0);
	char *a = get(fd, &len);
	ck_assert_ptr_nonnull(find(a, len, "insula/config", &n, NULL));
	ck_assert_uint_eq(n, 0);
	free(a);
	close(fd);
}
END_TEST

/* ---- initrd ---- */

START_TEST(initrd_content)
{
	struct image_initrd_params p = params();
	unsigned mode = 0;
	size_t len, n;

	put_tree();
	char *a = build(&p, &len);
	ck_assert(has(a, len, "init", "#!init"));
	ck_assert(has(a, len, "insula/m/virtio_mmio.ko", "mmio"));
	ck_assert(has(a, len, "insula/modules",
		      "panic pvpanic.ko\npanic pvpanic-mmio.ko\n"
		      "virtio virtio_ring.ko\nvirtio virtio.ko\nvirtio virtio_mmio.ko\n"
		      "virtio-4 virtio_ring.ko\nvirtio-4 virtio.ko\nvirtio-4 virtio-rng.ko\n"));
	ck_assert_ptr_null(find(a, len, "insula/m/erofs.ko", &n, NULL));
	ck_assert_ptr_nonnull(find(a, len, "dev/console", &n, &mode));
	ck_assert_uint_eq(mode, S_IFCHR | 0600);
	const char *applets = find(a, len, "insula/applets", &n, NULL);
	ck_assert_ptr_nonnull(applets);
	ck_assert_ptr_nonnull(memmem(applets, n, "/bin/sh\n", 8));
	ck_assert_ptr_nonnull(find(a, len, "bin/busybox", &n, &mode));
	ck_assert_uint_eq(mode, S_IFREG | 0755);
	free(a);
}
END_TEST

START_TEST(initrd_container)
{
	struct image_initrd_params p = params();
	unsigned mode = 0;
	size_t len, n;

	put_tree();
	put_text("container", "#!container");
	char *a = build(&p, &len);
	ck_assert_ptr_null(find(a, len, "insula/container", &n, NULL));
	free(a);
	p.container = "container";
	a = build(&p, &len);
	ck_assert(has(a, len, "insula/container", "#!container"));
	ck_assert_ptr_nonnull(find(a, len, "insula/container", &n, &mode));
	ck_assert_uint_eq(mode, S_IFREG | 0755);
	free(a);
	p.container = "nothing";
	struct err e = {0};
	int fd = -1;
	ck_assert_int_eq(image_initrd(&p, &fd, &e), -ENOENT);
	ck_assert_ptr_nonnull(strstr(e.text, "insula-container nothing"));
}
END_TEST

START_TEST(initrd_softdeps)
{
	struct image_initrd_params p = params();
	size_t len;

	put_tree();
	p.root_disk = true;
	char *a = build(&p, &len);
	ck_assert(has(a, len, "insula/modules",
		      "panic pvpanic.ko\npanic pvpanic-mmio.ko\n"
		      "virtio virtio_ring.ko\nvirtio virtio.ko\nvirtio virtio_mmio.ko\n"
		      "virtio-4 virtio_ring.ko\nvirtio-4 virtio.ko\nvirtio-4 virtio-rng.ko\n"
		      "erofs ?crc32c-fast.ko\nerofs ?crc32c_slow.ko\nerofs libcrc32c.ko\nerofs "
		      "erofs.ko\n"));
	free(a);
}
END_TEST

/* What PCI needs, too. */
START_TEST(initrd_pci)
{
	struct image_initrd_params p = params();
	size_t len, n;

	put_tree();
	char *a = build(&p, &len);
	ck_assert_ptr_null(find(a, len, "insula/m/virtio_pci.ko", &n, NULL));
	free(a);
	p.pci = true;
	a = build(&p, &len);
	ck_assert(has(a, len, "insula/m/virtio_pci.ko", "pci"));
	ck_assert(has(a, len, "insula/m/virtio_mmio.ko", "mmio"));
	ck_assert(has(a, len, "insula/modules",
		      "panic pvpanic.ko\npanic pvpanic-mmio.ko\n"
		      "virtio virtio_ring.ko\nvirtio virtio.ko\nvirtio virtio_mmio.ko\n"
		      "virtio-pci virtio_ring.ko\nvirtio-pci virtio.ko\n"
		      "virtio-pci virtio_pci_modern_dev.ko\nvirtio-pci virtio_pci_legacy_dev.ko\n"
		      "virtio-pci virtio_pci.ko\n"
		      "virtio-4 virtio_ring.ko\nvirtio-4 virtio.ko\nvirtio-4 virtio-rng.ko\n"));
	free(a);
	ck_assert_int_eq(count("cache/initrd-*"), 1);
	ck_assert_int_eq(count("cache/initrd.pci-*"), 1);
	p.fs = p.root_disk = true;
	free(build(&p, &len));
	ck_assert_int_eq(count("cache/initrd.root.fs.pci-*"), 1);
}
END_TEST

/* And memory that comes later. */
START_TEST(initrd_mem)
{
	struct image_initrd_params p = params();
	size_t len, n;

	put_tree();
	char *a = build(&p, &len);
	ck_assert_ptr_null(find(a, len, "insula/m/virtio_mem.ko", &n, NULL));
	free(a);
	p.mem = true;
	a = build(&p, &len);
	ck_assert(has(a, len, "insula/m/virtio_mem.ko", "mem"));
	ck_assert(has(a, len, "insula/modules",
		      "panic pvpanic.ko\npanic pvpanic-mmio.ko\n"
		      "virtio virtio_ring.ko\nvirtio virtio.ko\nvirtio virtio_mmio.ko\n"
		      "virtio-4 virtio_ring.ko\nvirtio-4 virtio.ko\nvirtio-4 virtio-rng.ko\n"
		      "virtio-24 virtio_ring.ko\nvirtio-24 virtio.ko\nvirtio-24 virtio_mem.ko\n"));
	free(a);
	ck_assert_int_eq(count("cache/initrd-*"), 1);
	ck_assert_int_eq(count("cache/initrd.mem-*"), 1);
}
END_TEST

/* And a disk for cloud-init. */
START_TEST(initrd_seed)
{
	struct image_initrd_params p = params();
	size_t len, n;

	put_tree();
	char *a = build(&p, &len);
	ck_assert_ptr_null(find(a, len, "insula/m/isofs.ko", &n, NULL));
	free(a);
	p.seed = true;
	a = build(&p, &len);
	ck_assert(has(a, len, "insula/m/isofs.ko", "isofs"));
	free(a);
	ck_assert_int_eq(count("cache/initrd.seed-*"), 1);
}
END_TEST

/* Those of live shares are in an archive of its own: others do not pay for them. */
START_TEST(initrd_fs)
{
	static const char fs[] = "virtio-26 virtio_ring.ko\nvirtio-26 virtio.ko\n"
				 "virtio-26 fuse.ko\nvirtio-26 virtiofs.ko\n";
	struct image_initrd_params p = params();
	size_t len;
	char *a;

	put_tree();
	put_text(TREE "/kernel/f/fuse.ko", "fuse");
	put_text(TREE "/kernel/f/virtiofs.ko", "virtiofs");
	put_text(TREE "/modules.dep",
		 "kernel/v/virtio.ko: kernel/v/virtio_ring.ko\nkernel/v/virtio_ring.ko:\n"
		 "kernel/f/virtiofs.ko: kernel/f/fuse.ko kernel/v/virtio.ko "
		 "kernel/v/virtio_ring.ko\nkernel/f/fuse.ko:\n");
	a = build(&p, &len);
	ck_assert(has(a, len, "insula/modules", ""));
	free(a);
	p.fs = true;
	a = build(&p, &len);
	ck_assert(has(a, len, "insula/modules", fs));
	ck_assert(has(a, len, "insula/m/virtiofs.ko", "virtiofs"));
	free(a);
	p.root_disk = true;
	a = build(&p, &len);
	ck_assert(has(a, len, "insula/modules", fs));
	free(a);
	ck_assert_int_eq(count("cache/initrd*"), 3);
}
END_TEST

/* The drivers of functions of the host: by patterns, each with what it needs, and last. */
START_TEST(initrd_devices)
{
	static const char *const devices[] = {
		"pci:v000015ADd000007B0sv000015ADsd000007B0bc02sc00i00",
		"pci:v00001B36d00000010sv00001AF4sd00001100bc01sc08i02", NULL};
	static const char *const none[] = {NULL};
	struct image_initrd_params p = params();
	size_t len, n;

	put_tree();
	put_text(TREE "/modules.alias",
		 "# comment\nalias pci:v000015ADd000007B0sv*sd*bc*sc*i* virtio-rng\n"
		 "alias pci:v000015ADd000007B1sv*sd*bc*sc*i* virtio_mem\n"
		 "alias usb:v15ADd* virtio_mem\nalias pci:v\nalias\n"
		 "alias pci:v*d*sv*sd*bc01sc08i[0-9]2* erofs\nalias pci:v*d*sv*sd*bc01sc08i* "
		 "gone\n");
	p.devices = devices;
	char *a = build(&p, &len);
	ck_assert(has(a, len, "insula/modules",
		      "panic pvpanic.ko\npanic pvpanic-mmio.ko\n"
		      "virtio virtio_ring.ko\nvirtio virtio.ko\nvirtio virtio_mmio.ko\n"
		      "virtio-4 virtio_ring.ko\nvirtio-4 virtio.ko\nvirtio-4 virtio-rng.ko\n"
		      "assigned ?virtio_ring.ko\nassigned ?virtio.ko\nassigned ?virtio-rng.ko\n"
		      "assigned ?libcrc32c.ko\nassigned ?erofs.ko\n"));
	ck_assert_ptr_null(find(a, len, "insula/m/virtio_mem.ko", &n, NULL));
	free(a);
	/* That of a VM without them is another one, and both stay. */
	p.devices = none;
	a = build(&p, &len);
	ck_assert_ptr_null(find(a, len, "insula/m/erofs.ko", &n, NULL));
	free(a);
	ck_assert_int_eq(count("cache/initrd*"), 2);
}
END_TEST

START_TEST(initrd_softdep_circle)
{
	struct image_initrd_params p = params();
	size_t len;

	put_tree();
	p.root_disk = true;
	put_text(TREE "/modules.softdep",
		 "softdep erofs pre: libcrc32c\nsoftdep libcrc32c pre: erofs loop\n");
	put_text(TREE "/modules.alias", "alias loop loop\nalias loop erofs\n");
	char *a = build(&p, &len);
	ck_assert(has(a, len, "insula/m/erofs.ko", "erofs"));
	free(a);
}
END_TEST

START_TEST(initrd_compressed)
{
	struct image_initrd_params p = params();
	size_t len;

	put_tree();
	run("cd " TREE "/kernel && gzip -n a/pvpanic.ko && xz v/virtio.ko && "
	    "if command -v zstd >/dev/null; then zstd -q --rm v/virtio_ring.ko; else gzip -n "
	    "v/virtio_ring.ko; fi && "
	    "cd .. && for f in kernel/a/pvpanic kernel/v/virtio kernel/v/virtio_ring; do "
	    "set -- $f.ko.*; sed -i \"s|$f\\.ko|$1|g\" modules.dep; done");
	char *a = build(&p, &len);
	ck_assert(has(a, len, "insula/m/pvpanic.ko", "pvpanic"));
	ck_assert(has(a, len, "insula/m/virtio.ko", "virtio"));
	ck_assert(has(a, len, "insula/m/virtio_ring.ko", "ring"));
	free(a);
}
END_TEST

START_TEST(initrd_corrupt_module)
{
	struct image_initrd_params p = params();

	put_tree();
	put_text(TREE "/kernel/a/pvpanic.ko.xz", "this is not xz");
	run("sed -i 's|pvpanic.ko|pvpanic.ko.xz|g' " TREE "/modules.dep");
	refuse(&p, -EIO, "xz: ");
}
END_TEST

START_TEST(initrd_deterministic)
{
	struct image_initrd_params p = params();
	size_t la, lb;

	put_tree();
	char *a = build(&p, &la);
	p.cache_dir = "deep/er/cache2";
	char *b = build(&p, &lb);
	ck_assert_uint_eq(la, lb);
	ck_assert_int_eq(memcmp(a, b, la), 0);
	free(a);
	free(b);
}
END_TEST

/* ---- what a module tree may not do ---- */

static void one_module(const char *path)
{
	char text[512];

	put_tree();
	snprintf(text, sizeof(text), "kernel/v/virtio_mmio.ko: %s\n", path);
	put_text(TREE "/modules.dep", text);
}

/* Files outside of the tree do not get into a guest, whatever names them. */
START_TEST(tree_stays_inside)
{
	static const char *const ways[] = {
		"../../../../secret.ko", "kernel/../../../../../secret.ko",
		"kernel/link.ko",        "kernel/linked/secret.ko",
		"kernel/fifo.ko",        "kernel/v"};
	struct image_initrd_params p = params();
	char absolute[256];

	put_text("secret.ko", "the host's");
	for (size_t i = 0; i < ARRAY_LEN(ways); i++) {
		one_module(ways[i]);
		run("cd " TREE "/kernel && ln -sf ../../../../../secret.ko link.ko && "
		    "ln -sfn ../../../../.. linked && rm -f fifo.ko && mkfifo fifo.ko");
		refuse(&p, -EPERM, TREE);
		ck_assert_int_eq(image_initrd_check(&p, NULL), -EPERM);
	}
	snprintf(absolute, sizeof(absolute), "%s/secret.ko", top);
	one_module(absolute);
	refuse(&p, -EPERM, "leads out of it");
	put_tree();
	run("mv " TREE "/modules.dep x/dep && ln -s ../../../dep " TREE "/modules.dep");
	refuse(&p, -EPERM, "modules.dep leads out of it, or is a symbolic link");
}
END_TEST

/* X/lib/modules belongs to X/boot/vmlinuz, and to no X/Y/vmlinuz: X may be /tmp. */
START_TEST(tree_beside_boot_only)
{
	struct image_initrd_params p = params();
	size_t len;

	put_tree();
	run("mkdir x/build x/bootx && cp x/boot/vmlinuz-6.1.0-test x/build/bzImage && "
	    "cp x/boot/vmlinuz-6.1.0-test x/bootx/ && cp x/boot/vmlinuz-6.1.0-test x/vmlinuz");
	p.kernel = "x/build/bzImage";
	refuse(&p, -ENOENT, "looked in /lib/modules/6.1.0-test, /usr/lib/modules/6.1.0-test");
	p.kernel = "x/bootx/vmlinuz-6.1.0-test";
	refuse(&p, -ENOENT, "looked in /lib/modules");
	p.kernel = "x/vmlinuz";
	refuse(&p, -ENOENT, "looked in /lib/modules");
	run("ln -s boot/vmlinuz-6.1.0-test x/link"); /* where it really lies counts */
	p.kernel = "x/link";
	free(build(&p, &len));
}
END_TEST

/* Who can write to the tree decides what runs in the guest. */
START_TEST(tree_of_others)
{
	static const struct {
		const char *make, *says;
	} cases[] = {
		{"chmod 775 " TREE, "the directory can be written by its group"},
		{"chmod 757 " TREE, "the directory can be written by everybody"},
		{"chmod 664 " TREE "/modules.dep", "modules.dep can be written by its group"},
		{"chmod 666 " TREE "/modules.alias", "modules.alias can be written by everybody"},
		{"chmod 775 " TREE "/kernel", "kernel can be written by its group"},
		{"chmod 1777 " TREE "/kernel/v", "kernel/v can be written by everybody"},
		{"chmod 664 " TREE "/kernel/v/virtio.ko", "chmod -R go-w"},
	};
	static const char *const owned[] = {TREE, TREE "/modules.dep", TREE "/kernel",
					    TREE "/kernel/v/virtio.ko"};
	struct image_initrd_params p = params();
	char cmd[256];
	size_t len;

	put_tree();
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		run(cases[i].make);
		refuse(&p, -EPERM, cases[i].says);
		run("chmod -R go-w " TREE);
	}
	for (size_t i = 0; i < ARRAY_LEN(owned) && geteuid() == 0; i++) {
		snprintf(cmd, sizeof(cmd), "chown 12345 %s", owned[i]);
		run(cmd);
		refuse(&p, -EPERM, "belongs to user 12345; expected root, user 0 or the kernel's");
		run("chown -R 0 " TREE);
	}
	if (geteuid() == 0)
		run("chown -R 12345 x"); /* whose kernel it is */
	free(build(&p, &len));
}
END_TEST

/* A check finds what a build would, and leaves nothing. */
START_TEST(initrd_checked)
{
	struct image_initrd_params p = params();
	struct err e = {0};

	put_tree();
	p.cache_dir = "";
	ck_assert_msg(image_initrd_check(&p, &e) == 0, "%s", e.text);
	run("rm " TREE "/modules.dep");
	ck_assert_int_eq(image_initrd_check(&p, &e), -ENOENT);
	ck_assert_msg(strstr(e.text, "no modules.dep") != NULL, "%s", e.text);
	ck_assert_int_eq(count("cache"), 0);
}
END_TEST

START_TEST(initrd_cached)
{
	struct image_initrd_params p = params();
	size_t len;

	put_tree();
	char *a = build(&p, &len);
	free(a);
	ck_assert_int_eq(count("cache/initrd-*"), 1);
	/* A hit reads nothing but the cache: what the entry holds is what comes out. */
	run("for f in cache/initrd-*; do printf marked >$f; done");
	a = build(&p, &len);
	ck_assert_str_eq(a, "marked");
	free(a);
	/* Each input that changes makes it new, and the old one goes. */
	static const char *const inputs[] = {"init", "x/boot/vmlinuz-6.1.0-test",
					     TREE "/kernel/v/virtio.ko"};
	for (size_t i = 0; i < ARRAY_LEN(inputs); i++) {
		char cmd[256];

		run("for f in cache/initrd-*; do printf marked >$f; done");
		snprintf(cmd, sizeof(cmd), "touch -d @1 %s", inputs[i]);
		run(cmd);
		a = build(&p, &len);
		ck_assert_str_ne(a, "marked");
		free(a);
		ck_assert_int_eq(count("cache/initrd-*"), 1);
	}
}
END_TEST

START_TEST(initrd_concurrent)
{
	struct image_initrd_params p = params();
	int status;

	put_tree();
	for (int i = 0; i < 8; i++)
		if (fork() == 0) {
			int fd = -1;

			_exit(image_initrd(&p, &fd, NULL) == 0 && lseek(fd, 0, SEEK_END) > 100000
				      ? 0
				      : 1);
		}
	for (int i = 0; i < 8; i++) {
		ck_assert_int_gt(wait(&status), 0);
		ck_assert_int_eq(status, 0);
	}
	ck_assert_int_eq(count("cache/initrd-*"), 1);
	ck_assert_int_eq(count("cache/.new*"), 0);
}
END_TEST

START_TEST(initrd_no_modules)
{
	struct image_initrd_params p = params();
	char want[256];

	put_tree();
	p.kernel = "y/boot/vmlinuz";
	put_bzimage(p.kernel, "9.9.9-none");
	snprintf(want, sizeof(want),
		 "no modules for kernel 9.9.9-none: looked in %s/y/lib/modules/9.9.9-none, ", top);
	refuse(&p, -ENOENT, want);
	refuse(&p, -ENOENT, ", /lib/modules/9.9.9-none");
	run("mkdir -p y/usr/lib/modules/9.9.9-none/kernel");
	refuse(&p, -ENOENT, "modules.dep");
	p.modules = "nowhere";
	refuse(&p, -ENOENT, "nowhere");
	p.modules = NULL;
	run("rmdir y/usr/lib/modules/9.9.9-none/kernel"); /* an empty tree: it has none */
	size_t len;
	char *a = build(&p, &len);
	ck_assert(has(a, len, "insula/modules", ""));
	free(a);
}
END_TEST

START_TEST(initrd_elf_kernel)
{
	struct image_initrd_params p = params();
	char b[4096] = "\177ELF";
	size_t len;

	put_tree();
	p.kernel = "x/boot/vmlinux";
	strcpy(b + 1000, "Linux version %s (%s)");
	strcpy(b + 2000, "Linux version 6.1.0-test (somebody) #1");
	put(p.kernel, b, sizeof(b));
	char *a = build(&p, &len);
	ck_assert(has(a, len, "insula/m/virtio.ko", "virtio"));
	free(a);
	memset(b + 2000, 0, 100); /* says nothing: it has none */
	put(p.kernel, b, sizeof(b));
	a = build(&p, &len);
	ck_assert(has(a, len, "insula/modules", ""));
	free(a);
	p.kernel = "x/boot/vmlinux-6.1.0-test"; /* says it in its name only */
	put(p.kernel, b, sizeof(b));
	a = build(&p, &len);
	ck_assert(has(a, len, "insula/m/virtio.ko", "virtio"));
	free(a);
}
END_TEST

START_TEST(initrd_bad_inputs)
{
	struct image_initrd_params p = params();

	put_tree();
	p.kernel = "missing";
	refuse(&p, -ENOENT, "kernel missing");
	p.kernel = "x";
	refuse(&p, -EINVAL, "not a file");
	p.kernel = "init";
	refuse(&p, -ENOEXEC, "neither a bzImage nor an ELF image");
	put_bzimage("short", "6.1.0-test");
	run("truncate -s 832 short"); /* the version is beyond the end */
	p.kernel = "short";
	refuse(&p, -ENOEXEC, "does not say its kernel version");
	put_bzimage("climbs", "../../../etc");
	p.kernel = "climbs";
	refuse(&p, -ENOEXEC, "does not say its kernel version");
	p = params();
	p.init = "missing";
	refuse(&p, -ENOENT, "insula-init missing");
	p = params();
	p.busybox = "/usr/bin/env";
	refuse(&p, -EINVAL, "not static");
	p.busybox = "init";
	refuse(&p, -EINVAL, "not static");
}
END_TEST

/* ---- cache ---- */

START_TEST(cache_is_private)
{
	struct image_initrd_params p = params();
	struct err e = {0};
	int fd = -1;

	put_tree();
	run("mkdir -m 777 cache");
	ck_assert_int_eq(image_initrd(&p, &fd, &e), -EPERM);
	run("rmdir cache && touch cache");
	ck_assert_int_eq(image_initrd(&p, &fd, &e), -ENOTDIR);
}
END_TEST

START_TEST(cache_orphans)
{
	struct image_initrd_params p = params();
	size_t len;

	put_tree();
	run("mkdir -m 700 cache && touch cache/.new-1-0 cache/.new-2-0");
	int live = open("cache/.new-2-0", O_RDWR | O_CLOEXEC);
	ck_assert_int_eq(flock(live, LOCK_EX), 0);
	free(build(&p, &len));
	ck_assert_int_eq(count("cache/.new-1-0"), 0); /* its maker is dead */
	ck_assert_int_eq(count("cache/.new-2-0"), 1); /* its maker works on it */
	close(live);
}
END_TEST

/* NAME in the cache, BYTES on disk, last used so many hours ago. */
static void put_entry(const char *name, size_t bytes, unsigned hours)
{
	char path[256], cmd[512];
	void *p = malloc(bytes);

	ck_assert_ptr_nonnull(p);
	memset(p, 'x', bytes);
	snprintf(path, sizeof(path), "cache/%s", name);
	put(path, p, bytes);
	free(p);
	snprintf(cmd, sizeof(cmd), "touch -a -d '%u hours ago' %s", hours, path);
	run(cmd);
}

static void trim(const char *kind, uint64_t limit)
{
	struct cache c = {.dir = -1, .tmp = -1};
	struct hash h;

	hash_init(&h);
	ck_assert_int_eq(cache_open(&c, "cache", NULL), 0);
	cache_name(&c, kind, &h, &h);
	cache_trim(&c, limit);
	cache_close(&c);
}

#define MIB 1048576u

START_TEST(cache_has_a_bound)
{
	struct stat st;
	uint64_t each;

	run("mkdir -m 700 cache");
	put_entry("vmlinux-a-1", MIB, 5);
	put_entry("rootfs-b-1", MIB, 9);
	put_entry("initrd.root-c-1", MIB, 7);
	put_entry("initrd-d-1", MIB, 1);
	put_entry("somebody-elses", MIB, 1000);
	ck_assert_int_eq(stat("cache/vmlinux-a-1", &st), 0);
	each = (uint64_t)st.st_blocks * 512;
	trim(CACHE_KERNEL, 4 * each);
	ck_assert_int_eq(count("cache/[!.]*"), 5);
	trim(CACHE_KERNEL, 4 * each - 1); /* the one that was not used longest */
	ck_assert_int_eq(count("cache/[!.]*"), 4);
	ck_assert_int_eq(count("cache/rootfs-*"), 0);
	/* One in use stays, and is counted. */
	int fd = open("cache/initrd.root-c-1", O_RDONLY | O_CLOEXEC);
	ck_assert_int_eq(flock(fd, LOCK_SH), 0);
	trim(CACHE_KERNEL, each);
	ck_assert_int_eq(count("cache/initrd.root-c-1"), 1);
	ck_assert_int_eq(count("cache/vmlinux-*") + count("cache/initrd-*"), 0);
	close(fd);
	trim(CACHE_KERNEL, 0);
	ck_assert_int_eq(count("cache/[!.]*"), 1);
	ck_assert_int_eq(count("cache/somebody-elses"), 1);
}
END_TEST

/* What is used becomes the youngest, and what was just made is never the victim. */
START_TEST(cache_knows_what_is_used)
{
	struct image_initrd_params p = params();
	struct cache c = {.dir = -1, .tmp = -1};
	struct hash h;
	size_t len;
	int fd = -1;

	put_tree();
	free(build(&p, &len));
	run("touch -a -d '9 hours ago' cache/initrd-*");
	put_entry("vmlinux-a-1", 8 * MIB, 5);
	free(build(&p, &len)); /* a hit */
	trim(CACHE_KERNEL, 7 * MIB);
	ck_assert_int_eq(count("cache/initrd-*"), 1);
	ck_assert_int_eq(count("cache/vmlinux-*"), 0);
	hash_init(&h);
	ck_assert_int_eq(cache_open(&c, "cache", NULL), 0);
	cache_name(&c, CACHE_KERNEL, &h, &h);
	ck_assert_int_eq(cache_begin(&c, NULL), 0);
	ck_assert_int_eq(write_full(c.tmp, "k", 1), 0);
	ck_assert_int_eq(cache_commit(&c, &fd, NULL), 0);
	cache_trim(&c, 0);
	ck_assert_int_eq(count("cache/vmlinux-*"), 1);
	ck_assert_int_eq(count("cache/initrd-*"), 0);
	cache_close(&c);
	close(fd);
}
END_TEST

/* Makers of different things, each of which throws all others out whenever it has made one: every
 * maker gets its own, every time. */
START_TEST(cache_makers_against_trimmers)
{
	int status;

	run("mkdir -m 700 cache");
	for (unsigned i = 0; i < 6; i++) {
		if (fork())
			continue;
		for (unsigned n = 0; n < 200; n++) {
			struct cache c = {.dir = -1, .tmp = -1};
			struct hash h;
			int fd = -1;

			hash_init(&h);
			hash_u64(&h, i % 3);
			if (cache_open(&c, "cache", NULL))
				_exit(1);
			cache_name(&c, CACHE_KERNEL, &h, &h);
			if (cache_begin(&c, NULL) || cache_commit(&c, &fd, NULL))
				_exit(2);
			cache_trim(&c, 0);
			close(fd);
			cache_close(&c);
		}
		_exit(0);
	}
	for (unsigned i = 0; i < 6; i++) {
		ck_assert_int_gt(wait(&status), 0);
		ck_assert_int_eq(status, 0);
	}
}
END_TEST

/* In a mount namespace of a child: a file system of 128 KiB. 77: not allowed here. */
static int build_on_a_full_disk(void)
{
	struct image_initrd_params p = params();
	struct err e = {0};
	int fd = -1;

	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("tmpfs", "cache", "tmpfs", 0, "size=128k,mode=700"))
		return 77;
	if (image_initrd(&p, &fd, &e) != -ENOSPC)
		return 1;
	return strstr(e.text, "cache directory cache: ") && strstr(e.text, "No space left") &&
			       strstr(e.text, "XDG_CACHE_HOME")
		       ? 0
		       : 2;
}

START_TEST(cache_says_where_it_is)
{
	struct image_initrd_params p = params();
	int status;
	pid_t pid;

	put_tree();
	p.cache_dir = "";
	refuse(&p, -ENOENT, "neither XDG_CACHE_HOME nor HOME is set");
	p.cache_dir = "init/cache";
	refuse(&p, -ENOTDIR, "cache directory init/cache: Not a directory; expected");
	refuse(&p, -ENOTDIR, "XDG_CACHE_HOME");
	run("mkdir -m 700 cache");
	pid = fork();
	if (pid == 0)
		_exit(build_on_a_full_disk());
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	if (WEXITSTATUS(status) == 77)
		fprintf(stderr, "cache_says_where_it_is: not allowed to mount here, skipped\n");
	else
		ck_assert_int_eq(status, 0);
}
END_TEST

START_TEST(cache_dir_choice)
{
	char d[IMAGE_PATH_MAX];

	setenv("HOME", "/h", 1);
	unsetenv("XDG_CACHE_HOME");
	ck_assert_int_eq(image_cache_dir(d, NULL), 0);
	ck_assert_str_eq(d, "/h/.cache/insula");
	setenv("XDG_CACHE_HOME", "/x", 1);
	ck_assert_int_eq(image_cache_dir(d, NULL), 0);
	ck_assert_str_eq(d, "/x/insula");
	setenv("XDG_CACHE_HOME", "relative", 1); /* the specification says: ignore it */
	ck_assert_int_eq(image_cache_dir(d, NULL), 0);
	ck_assert_str_eq(d, "/h/.cache/insula");
	unsetenv("XDG_CACHE_HOME");
	unsetenv("HOME");
	ck_assert_int_eq(image_cache_dir(d, NULL), geteuid() == 0 ? 0 : -ENOENT);
}
END_TEST

/* ---- root images ---- */

static int rootfs(const char *dir, char path[IMAGE_PATH_MAX], int *hold, struct err *e)
{
	struct image_rootfs_params p = {.dir = dir, .cache_dir = "cache"};

	return image_rootfs(&p, path, hold, e);
}

static void put_root(void)
{
	put_text("root/etc/hello", "hello\n");
	put_text("root/bin/prog", "x");
	run("ln root/etc/hello root/etc/hello2; ln -s /etc/hello root/link; mkfifo root/etc/fifo; "
	    "chmod 4755 root/bin/prog; "
	    "mkdir root/dev; truncate -s 1G root/sparse; chmod 700 root/etc");
}

START_TEST(rootfs_content)
{
	char path[IMAGE_PATH_MAX];
	struct err e = {0};
	struct stat st;
	int hold = -1;

	put_root();
	ck_assert_msg(rootfs("root", path, &hold, &e) == 0, "%s", e.text);
	setenv("IMAGE", path, 1);
	run("PATH=$PATH:/sbin:/usr/sbin; e2fsck -fn $IMAGE >/dev/null 2>&1");
	run("PATH=$PATH:/sbin:/usr/sbin; d() { debugfs -R \"$1\" $IMAGE 2>/dev/null; }; set -e; "
	    "test \"$(d 'cat /etc/hello2')\" = hello; d 'stat /bin/prog' | grep -q 'Mode: *04755'; "
	    "d 'stat /link' | grep -q 'Fast link dest: \"/etc/hello\"'; d 'stat /etc/fifo' | grep "
	    "-q FIFO; "
	    "d 'stat /etc/hello' | grep -q 'Links: 2'; d 'stat /sparse' | grep -q 'Size: "
	    "1073741824'; "
	    "! d features | grep -q has_journal; ! d 'ls /' | grep -q lost.found");
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_int_lt(st.st_blocks * 512, 8 << 20); /* the hole stayed one */
	close(hold);
}
END_TEST

START_TEST(rootfs_cached)
{
	char one[IMAGE_PATH_MAX], two[IMAGE_PATH_MAX], three[IMAGE_PATH_MAX];
	struct err e = {0};
	int h1 = -1, h2 = -1, h3 = -1;

	put_root();
	ck_assert_int_eq(rootfs("root", one, &h1, &e), 0);
	ck_assert_int_eq(rootfs("./root/", two, &h2, &e), 0);
	ck_assert_str_eq(one, two);
	ck_assert_int_eq(count("cache/rootfs-*"), 1);
	run("chmod 711 root/etc");
	ck_assert_int_eq(rootfs("root", three, &h3, &e), 0);
	ck_assert_str_ne(one, three);
	ck_assert_int_eq(count("cache/rootfs-*"), 2); /* the first is in use */
	close(h1);
	close(h2);
	close(h3);
	h1 = -1;
	run("touch root/etc/more");
	ck_assert_int_eq(rootfs("root", one, &h1, &e), 0);
	ck_assert_int_eq(count("cache/rootfs-*"), 1);
	close(h1);
}
END_TEST

START_TEST(rootfs_failure_leaves_nothing)
{
	char path[IMAGE_PATH_MAX];
	struct rlimit old, small;
	struct err e = {0};
	int hold = -1;

	put_root();
	getrlimit(RLIMIT_FSIZE, &old);
	small = (struct rlimit){.rlim_cur = 65536, .rlim_max = old.rlim_max};
	setrlimit(RLIMIT_FSIZE, &small);
	ck_assert_int_eq(rootfs("root", path, &hold, &e), -EIO);
	setrlimit(RLIMIT_FSIZE, &old);
	ck_assert_msg(strncmp(e.text, "mke2fs", 6) == 0, "%s", e.text);
	ck_assert_int_eq(count("cache/rootfs*") + count("cache/.new*"), 0);
	ck_assert_int_eq(rootfs("missing", path, &hold, &e), -ENOENT);
	ck_assert_int_eq(rootfs("root/etc/hello", path, &hold, &e), -ENOTDIR);
	ck_assert_int_eq(rootfs(".", path, &hold, &e), -EINVAL); /* the cache is inside */
	ck_assert_int_eq(hold, -1);
}
END_TEST

static void grow(void *ctx, const char *dir, uint64_t done, uint64_t total)
{
	(void)dir, (void)done, (void)total;
	put_text(ctx, "appeared");
}

START_TEST(rootfs_changed_meanwhile)
{
	struct image_rootfs_params p = {
		.dir = "root", .cache_dir = "cache", .progress = grow, .ctx = "root/etc/late"};
	char path[IMAGE_PATH_MAX];
	struct err e = {0};
	int hold = -1;

	put_root();
	ck_assert_int_eq(image_rootfs(&p, path, &hold, &e), -EAGAIN);
	ck_assert_int_eq(count("cache/rootfs*") + count("cache/.new*"), 0);
}
END_TEST

/* In a mount namespace of a child: what is mounted below the directory stays out. 77: not allowed
 * here. */
static int pack_with_mount(void)
{
	char path[IMAGE_PATH_MAX];
	int hold = -1;

	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("tmpfs", "root/dev", "tmpfs", 0, NULL))
		return 77;
	put_text("root/dev/secret", "s");
	if (rootfs("root", path, &hold, NULL))
		return 1;
	setenv("IMAGE", path, 1);
	return system("PATH=$PATH:/sbin:/usr/sbin; debugfs -R 'ls /dev' $IMAGE 2>&1 | grep -q "
		      "secret && exit 1; "
		      "debugfs -R 'ls /' $IMAGE 2>&1 | grep -q dev")
		       ? 2
		       : 0;
}

START_TEST(rootfs_mount_below)
{
	int status;

	put_root();
	pid_t pid = fork();

	if (pid == 0)
		_exit(pack_with_mount());
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	if (WEXITSTATUS(status) == 77)
		fprintf(stderr, "rootfs_mount_below: not allowed to mount here, skipped\n");
	else
		ck_assert_int_eq(status, 0);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("image");
	TCase *t = tcase_create("image");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_set_timeout(t, 60);
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, config);
	tcase_add_test(t, config_empty);
	tcase_add_test(t, initrd_content);
	tcase_add_test(t, initrd_container);
	tcase_add_test(t, initrd_softdeps);
	tcase_add_test(t, initrd_pci);
	tcase_add_test(t, initrd_mem);
	tcase_add_test(t, initrd_seed);
	tcase_add_test(t, initrd_fs);
	tcase_add_test(t, initrd_devices);
	tcase_add_test(t, initrd_softdep_circle);
	tcase_add_test(t, initrd_compressed);
	tcase_add_test(t, initrd_corrupt_module);
	tcase_add_test(t, initrd_deterministic);
	tcase_add_test(t, tree_stays_inside);
	tcase_add_test(t, tree_beside_boot_only);
	tcase_add_test(t, tree_of_others);
	tcase_add_test(t, initrd_checked);
	tcase_add_test(t, initrd_cached);
	tcase_add_test(t, initrd_concurrent);
	tcase_add_test(t, initrd_no_modules);
	tcase_add_test(t, initrd_elf_kernel);
	tcase_add_test(t, initrd_bad_inputs);
	tcase_add_test(t, cache_is_private);
	tcase_add_test(t, cache_orphans);
	tcase_add_test(t, cache_has_a_bound);
	tcase_add_test(t, cache_knows_what_is_used);
	tcase_add_test(t, cache_makers_against_trimmers);
	tcase_add_test(t, cache_says_where_it_is);
	tcase_add_test(t, cache_dir_choice);
	tcase_add_test(t, rootfs_content);
	tcase_add_test(t, rootfs_cached);
	tcase_add_test(t, rootfs_failure_leaves_nothing);
	tcase_add_test(t, rootfs_changed_meanwhile);
	tcase_add_test(t, rootfs_mount_below);
	suite_add_tcase(s, t);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
