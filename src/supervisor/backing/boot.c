/* SPDX-License-Identifier: BSD-2-Clause */
/* What the guest boots. See boot.h. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/log.h>

#include "boot.h"
#include "cmdline.h"
#include "nic.h"
#include "paths.h"
#include "spec/json.h"
#include "supervisor/snapshot/restore.h"
#include "vfio.h"

#define ELF_MAGIC "\177ELF"
#define SECTOR 512u
#define FILE_STATE 96

/* In libexec, of Insula's own initrd. */
enum { PART_INIT, PART_CONTAINER, PART_BUSYBOX };
static const char *const own_parts[] = {[PART_INIT] = "insula-init",
					[PART_CONTAINER] = "insula-container",
					[PART_BUSYBOX] = "busybox"};

static int open_file(const char *path, const char *what, struct err *e)
{
	struct stat st;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

	if (fd < 0)
		return err_sys(e, -errno, "%s: %s", what, path);
	if (fstat(fd, &st) || !S_ISREG(st.st_mode) || !st.st_size) {
		close(fd);
		return err_set(e, -EINVAL, "%s: %s: %s; expected a file that is not empty", what,
			       path,
			       S_ISDIR(st.st_mode)   ? "is a directory"
			       : S_ISREG(st.st_mode) ? "is empty"
						     : "is no file");
	}
	return fd;
}

/* A payload of its own is an ELF image that is not Linux: it gets no initrd. */
static bool is_elf(int fd)
{
	char magic[4];

	return !read_full(fd, magic, sizeof(magic), 0) && !memcmp(magic, ELF_MAGIC, sizeof(magic));
}

static int open_rootfs(struct boot *b, const struct vm_config *c, const struct paths *p,
		       bool check_only, struct err *e)
{
	const struct image_rootfs_params rp = {
		.dir = c->rootfs, .cache_dir = p->cache, .progress = image_progress_stderr};
	struct stat st;

	if (stat(c->rootfs, &st))
		return err_sys(e, -errno, "--rootfs: %s", c->rootfs);
	b->root_ro = !c->rootfs_rw;
	if (!S_ISDIR(st.st_mode)) {
		if (S_ISREG(st.st_mode) && (!st.st_size || st.st_size % SECTOR))
			return err_set(e, -EINVAL,
				       "--rootfs: %s: not an image: its %llu bytes are no multiple "
				       "of %u; expected a directory or a raw image",
				       c->rootfs, (unsigned long long)st.st_size, SECTOR);
		snprintf(b->root_image, sizeof(b->root_image), "%s", c->rootfs);
		return 0;
	}
	if (c->rootfs_rw)
		return err_set(e, -EINVAL,
			       "--rootfs: %s,rw: a directory is packed into a read-only image; "
			       "expected an image for rw",
			       c->rootfs);
	return check_only ? 0 : image_rootfs(&rp, b->root_image, &b->root_hold, e);
}

/* Each packed one is a disk of its own, packed as a root directory is. */
static int open_shares(struct boot *b, const struct vm_config *c, const struct paths *p,
		       bool check_only, struct err *e)
{
	struct stat st;
	int rc = 0;

	for (unsigned i = 0; i < c->nshares && !rc; i++) {
		const struct image_rootfs_params rp = {.dir = c->share[i].dir,
						       .cache_dir = p->cache,
						       .progress = image_progress_stderr};
		const unsigned n = b->nshares;

		if (!c->share[i].packed)
			continue;
		if (stat(rp.dir, &st))
			return err_sys(e, -errno, "--share: %s", rp.dir);
		if (!S_ISDIR(st.st_mode))
			return err_set(e, -ENOTDIR, "--share: %s; expected a directory", rp.dir);
		if (!check_only)
			rc = image_rootfs(&rp, b->share_image[n], &b->share_hold[n], e);
		b->share_bus[n] = c->share[i].bus;
		b->nshares += !rc && !check_only;
	}
	return rc;
}

/* What insula-init mounts: src/guest/mounts.c, src/guest/fs.c. Their strings are the caller's. */
struct boot_shares {
	char *packed[CONFIG_MAX_SHARES + 1], *live[CONFIG_MAX_SHARES + 1]; /* NULL-terminated */
};

static void free_shares(struct boot_shares *s)
{
	for (unsigned i = 0; i < CONFIG_MAX_SHARES; i++)
		free(s->live[i]);
}

/* The tags are those of share_open(). */
static int describe_shares(const struct vm_config *c, struct boot_shares *s, struct err *e)
{
	unsigned npacked = 0, nlive = 0;

	*s = (struct boot_shares){{NULL}, {NULL}};
	for (unsigned i = 0; i < c->nshares; i++) {
		const struct share_config *one = &c->share[i];

		if (one->packed) {
			s->packed[npacked++] = one->guest;
			continue;
		}
		if (asprintf(&s->live[nlive], "%s,%sinsula%u,%s", one->ro ? "ro" : "rw",
			     config_is_pci(c, one->bus) ? "pci," : "", nlive, one->guest) < 0) {
			s->live[nlive] = NULL;
			return err_set(e, -ENOMEM, "out of memory");
		}
		nlive++;
	}
	return 0;
}

static int make_own_initrd(struct boot *b, const struct vm_config *c,
			   const struct image_initrd_params *ip, const struct boot_shares *s,
			   struct err *e)
{
	char record[CONFIG_MAX_NETS][NIC_RECORD], *nets[CONFIG_MAX_NETS + 1] = {NULL};
	const struct image_config ic = {.agent = c->command || c->serve_alone ? IMAGE_AGENT_ALONE
						 : c->serve                   ? IMAGE_AGENT_BESIDE
									      : IMAGE_AGENT_NONE,
					.hostname = c->hostname,
					.nets = nets,
					.share = s->packed,
					.fs = s->live,
					.layers = c->nlayers,
					.upper = c->rootfs_size != 0,
					.dir = c->image ? c->cwd : NULL,
					.template = c->template,
					.root = c->rootfs_rw            ? IMAGE_ROOT_RW
						: c->rootfs || c->image ? IMAGE_ROOT_RO
									: IMAGE_ROOT_INITRD};
	int rc;

	for (unsigned i = 0; i < c->nnets; i++) {
		uint8_t mac[6];

		nic_wanted(&c->net[i], i, mac);
		nic_record(&c->net[i], mac, record[i]);
		nets[i] = record[i];
	}
	rc = image_initrd(ip, &b->initrd[0], e);
	if (!rc)
		rc = image_config_cpio(&ic, &b->initrd[1], e);
	b->ninitrds = rc ? 0 : 2;
	b->own_initrd = !rc;
	return rc;
}

/* So that the guest has their drivers. One that is not there is refused later, in better words. */
static const char *const *describe_functions(const struct vm_config *c,
					     char alias[CONFIG_MAX_VFIOS][VFIO_MODALIAS],
					     const char *list[CONFIG_MAX_VFIOS + 1])
{
	unsigned n = 0;

	for (unsigned i = 0; i < c->nvfios; i++) {
		vfio_modalias("/sys", &c->vfio[i], alias[i]);
		if (alias[i][0])
			list[n++] = alias[i];
	}
	list[n] = NULL;
	return list;
}

/* ---- what a template was booted from ---- */

/* What another content cannot share; "": it cannot be looked at. */
static void file_state(const char *path, char out[FILE_STATE])
{
	struct stat st;

	out[0] = 0;
	if (!stat(path, &st))
		snprintf(out, FILE_STATE, "%llu %lld %lld.%09ld %lld.%09ld",
			 (unsigned long long)st.st_ino, (long long)st.st_size,
			 (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec,
			 (long long)st.st_ctim.tv_sec, st.st_ctim.tv_nsec);
}

static void note_file(json_object *files, const char *path)
{
	char state[FILE_STATE];

	file_state(path, state);
	j_str(files, path, state);
}

/* The modules go with the kernel. */
static void note_booted(struct boot *b, const struct vm_config *c, const struct paths *p,
			const char *kernel)
{
	json_object *files = json_object_new_object();
	char path[PATH_MAX + 32];

	b->booted = json_object_new_object();
	if (!c->kernel)
		j_str(b->booted, "chosen", kernel);
	note_file(files, kernel);
	for (size_t i = 0; i < ARRAY_LEN(own_parts); i++) {
		snprintf(path, sizeof(path), "%s/%s", p->libexec, own_parts[i]);
		note_file(files, path);
	}
	j_obj(b->booted, "files", files);
}

int boot_stale(json_object *booted, const struct paths *p, struct err *e)
{
	const char *chosen = j_get_str(booted, "chosen", NULL);
	json_object *files = j_get(booted, "files");
	char now[PATH_MAX], state[FILE_STATE];

	if (chosen && (paths_default_kernel(p, now, sizeof(now), e) || strcmp(now, chosen) != 0))
		return err_set(e, -ESTALE,
			       "the kernel of this template was %.120s, and another one would be "
			       "booted today; expected a template that was made since",
			       chosen);
	if (!json_object_is_type(files, json_type_object))
		return 0;
	json_object_object_foreach(files, path, was)
	{
		file_state(path, state);
		if (!json_object_is_type(was, json_type_string) ||
		    strcmp(state, json_object_get_string(was)) != 0)
			return err_set(e, -ESTALE,
				       "%.120s has changed since this template was booted from it; "
				       "expected a template that was made since",
				       path);
	}
	return 0;
}

static int add_own_initrd(struct boot *b, const struct vm_config *c, const struct paths *p,
			  const char *kernel, bool check_only, struct err *e)
{
	const unsigned nlive = config_live_shares(c);
	char init[PATH_MAX + 32], container[PATH_MAX + 32], busybox[PATH_MAX + 32];
	char alias[CONFIG_MAX_VFIOS][VFIO_MODALIAS];
	const char *functions[CONFIG_MAX_VFIOS + 1];
	struct image_initrd_params ip = {.kernel = kernel,
					 .init = init,
					 .container = container,
					 .busybox = busybox,
					 .cache_dir = p->cache,
					 .root_disk = c->rootfs || c->image || c->nshares > nlive,
					 .fs = nlive > 0 || c->hotplug,
					 .pci = config_has_pci(c),
					 .mem = c->mem_max != 0,
					 .seed = c->seed.on,
					 .devices = describe_functions(c, alias, functions)};
	struct boot_shares s;
	int rc;

	snprintf(init, sizeof(init), "%s/%s", p->libexec, own_parts[PART_INIT]);
	snprintf(container, sizeof(container), "%s/%s", p->libexec, own_parts[PART_CONTAINER]);
	snprintf(busybox, sizeof(busybox), "%s/%s", p->libexec, own_parts[PART_BUSYBOX]);
	if (check_only)
		return image_initrd_check(&ip, e);
	rc = describe_shares(c, &s, e);
	if (!rc)
		rc = make_own_initrd(b, c, &ip, &s, e);
	free_shares(&s);
	return rc;
}

static int open_initrd(struct boot *b, const struct vm_config *c, const struct paths *p,
		       const char *kernel, bool check_only, struct err *e)
{
	int rc;

	if (c->initrd) {
		b->initrd[0] = open_file(c->initrd, "--initrd", e);
		b->ninitrds = 1;
		return b->initrd[0] < 0 ? b->initrd[0] : 0;
	}
	if (is_elf(b->kernel) && !c->command && !c->rootfs && !c->image && !c->nshares &&
	    !c->hostname && !c->template)
		return 0;
	if (c->template && !c->serve)
		return err_set(e, -EINVAL,
			       "--template: expected a VM of insulad: nobody can save another one");
	rc = boot_check_memory(b->kernel, c->mem, config_vcpus(c), e);
	return rc ? rc : add_own_initrd(b, c, p, kernel, check_only, e);
}

/* Boot the ELF kernel inside a bzImage, unless ",packed" asks for the image as it is. */
static int unpack_kernel(struct boot *b, const struct paths *p, struct err *e)
{
	int fd, rc = image_unpack(b->kernel, p->cache, &fd, e);

	if (rc == -ENOTSUP || rc == -ENOENT) {
		log_info("kernel: booted as it is: %s", e->text);
		return 0;
	}
	if (rc)
		return rc;
	close(b->kernel);
	b->kernel = fd;
	return 0;
}

void boot_init(struct boot *b)
{
	*b = (struct boot){.kernel = -1, .initrd = {-1, -1}, .root_hold = -1, .upper = -1};
	for (unsigned i = 0; i < CONFIG_MAX_SHARES; i++)
		b->share_hold[i] = -1;
}

static int open_kernel(struct boot *b, const struct vm_config *c, const struct paths *p,
		       bool verbose, char path[PATH_MAX], struct err *e)
{
	int rc = 0;

	if (c->kernel)
		snprintf(path, PATH_MAX, "%s", c->kernel);
	else
		rc = paths_default_kernel(p, path, PATH_MAX, e);
	if (!rc)
		rc = b->kernel = open_file(path, "--kernel", e);
	return rc < 0 ? rc : cmdline_make(b->cmdline, c, verbose, e);
}

json_object *boot_images(const struct boot *b, const struct vm_config *c)
{
	json_object *list = json_object_new_array();

	if (c->rootfs && strcmp(b->root_image, c->rootfs) != 0)
		json_object_array_add(list, json_object_new_string(b->root_image));
	for (unsigned i = 0; i < c->nlayers; i++)
		json_object_array_add(list, json_object_new_string(c->layer[i]));
	for (unsigned i = 0; i < b->nshares; i++)
		json_object_array_add(list, json_object_new_string(b->share_image[i]));
	return list;
}

int boot_open(struct boot *b, const struct vm_config *c, const struct paths *p, bool check_only,
	      bool verbose, struct err *e)
{
	char kernel[PATH_MAX];
	int rc = 0;

	boot_init(b);
	if (!c->restoring)
		rc = open_kernel(b, c, p, verbose, kernel, e);
	if (!rc && c->rootfs)
		rc = open_rootfs(b, c, p, check_only, e);
	if (!rc && c->rootfs_size && !check_only)
		rc = image_upper(c->rootfs_size, &b->upper, e);
	if (!rc)
		rc = open_shares(b, c, p, check_only, e);
	if (!rc && !c->restoring)
		rc = open_initrd(b, c, p, kernel, check_only, e);
	if (!rc && c->template)
		note_booted(b, c, p, kernel);
	if (!rc && c->restoring)
		rc = restore_fresh(c, p, e);
	if (!rc && !c->restoring && !c->kernel_packed && !check_only)
		rc = unpack_kernel(b, p, e);
	b->own_initrd |= c->restoring && c->serve;
	if (rc)
		boot_close(b);
	return rc;
}

void boot_close(struct boot *b)
{
	fd_close(&b->kernel);
	json_object_put(b->booted);
	b->booted = NULL;
	for (unsigned i = 0; i < VMM_MAX_INITRDS; i++)
		fd_close(&b->initrd[i]);
	fd_close(&b->root_hold);
	fd_close(&b->upper);
	for (unsigned i = 0; i < CONFIG_MAX_SHARES; i++)
		fd_close(&b->share_hold[i]);
}
