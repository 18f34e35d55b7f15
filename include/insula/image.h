/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the guest boots from: the initrd with insula-init, the configuration that insula-init reads,
 * and root images made of directories. Implemented in src/image; linked into insula-run and
 * insula-initrd, never into a helper.
 *
 * Both builders keep their results in a cache directory, named after the identity (path, size,
 * times, inode) of everything that went into them. A cache entry appears under its name complete
 * and on disk, or not at all; any number of builders may run at once, and one that is killed leaves
 * nothing that the next one does not remove.
 *
 * All functions block (they read files and run programs), start no threads, need no privilege, and
 * return 0 or a negative errno with the text in `e`. A forked child is waited for before they
 * return. Thread: any one at a time.
 */
#ifndef INSULA_IMAGE_H
#define INSULA_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <insula/err.h>

#define IMAGE_PATH_MAX 4096

#define IMAGE_ROOT_CACHE "/var/cache/insula" /* of root without a home */
/* $XDG_CACHE_HOME/insula, else $HOME/.cache/insula, else IMAGE_ROOT_CACHE for root. Not created
 * yet. -ENOENT if none applies. */
int image_cache_dir(char out[IMAGE_PATH_MAX], struct err *e);

/* ---- the kernel ---- */

/*
 * The ELF kernel inside a bzImage, unpacked once and cached: it boots faster than the bzImage, at a
 * fixed address. *fd is open for reading only (close-on-exec) and stays the caller's; `kernel` is
 * not moved or closed.
 *
 *   -ENOTSUP  not a bzImage, or packed in a way that is not known here: boot it as it is
 *   -ENOENT   the program that unpacks it is not installed (the text names its package): the same
 *   else      the image contradicts itself, or the cache cannot be written
 */
int image_unpack(int kernel, const char *cache_dir, int *fd, struct err *e);

/* ---- the initrd ---- */

struct image_initrd_params {
	const char *kernel;    /* bzImage or ELF vmlinux; its version selects the modules */
	const char *init;      /* insula-init */
	const char *container; /* insula-container; NULL: this guest has no containers */
	/* A static busybox; NULL: the one in /bin, /usr/bin or /usr/local/bin. */
	const char *busybox;
	const char *cache_dir; /* created with its parents, mode 0700, if it is missing */
	/* The module tree of this kernel (holds modules.dep). NULL: looked for beside a kernel that
	 * lies in a folder `boot`, then in /lib/modules. An empty directory stands for a kernel
	 * without modules. Only root, the caller and the kernel's owner may be able to write to it.
	 */
	const char *modules;
	/* Also the modules that a root disk may need: overlay and the file systems. */
	bool root_disk;
	bool fs;   /* also the modules of virtio-fs */
	bool pci;  /* also those of virtio over PCI */
	bool mem;  /* also that of memory that can be resized */
	bool seed; /* also the file system of a disk for cloud-init, which is loaded */
	/* Also the drivers of these functions of the host: what sysfs has in their "modalias",
	 * "pci:v00008086d...". NULL-terminated; NULL: there are none. */
	const char *const *devices;
};

/* A finished initrd, open for reading only (close-on-exec); the caller closes *fd. Not found
 * modules are an error that names where they were looked for; an ELF kernel without a module tree
 * is taken to have none. */
int image_initrd(const struct image_initrd_params *p, int *fd, struct err *e);
/* Whether image_initrd() has all that goes into it. Nothing is made or run, and the cache is not
 * looked at. */
int image_initrd_check(const struct image_initrd_params *p, struct err *e);

/* ---- what insula-init does ---- */

enum image_root { IMAGE_ROOT_INITRD, IMAGE_ROOT_RO, IMAGE_ROOT_RW };

/* The root disk is the virtio disk with this serial. */
#define IMAGE_ROOT_SERIAL "insula-root"

/* A read-only file system to be mounted: the virtio disk with the serial IMAGE_SHARE_SERIAL and its
 * number, from 0, in decimal. */
#define IMAGE_SHARE_SERIAL "insula-share"

struct image_config {
	char *const *nets; /* NULL-terminated "MAC[,dhcp][,ip=A/N][,gw=A][,dns=A]"; may be NULL */
	const char *hostname; /* NULL: insula */
	enum image_root root;
	enum {
		IMAGE_AGENT_NONE,
		IMAGE_AGENT_ALONE,  /* serve the host's commands (guestproto.h), nothing else */
		IMAGE_AGENT_BESIDE, /* serve them beside the shell, or the init of the root */
	} agent;
	char *const *share; /* absolute paths; NULL-terminated; may be NULL */
	/* Live shares: "ro,TAG,PATH" or "rw,TAG,PATH", "ro,pci,TAG,PATH" on PCI; likewise. */
	char *const *fs;
	unsigned layers; /* with IMAGE_ROOT_RO: the root is made of so many layers */
	bool upper;      /* a disk of that serial takes what is written to the root */
	const char *dir; /* is made in the root if it is missing; NULL: none */
	bool template;   /* cards and live shares wait until the machine goes on */
};

/* A sealed memfd (close-on-exec) with a cpio archive that holds /insula/config: the second initrd
 * part. The caller closes *fd. */
int image_config_cpio(const struct image_config *c, int *fd, struct err *e);

/* ---- root images ---- */

struct image_rootfs_params {
	/* Packed as it is: owners, modes, links, attributes; not what is mounted below it. */
	const char *dir;
	const char *cache_dir; /* as above */
	/* Called a few times per second while a long pack runs, and with done == total at its end;
	 * may be NULL. */
	void (*progress)(void *ctx, const char *dir, uint64_t done, uint64_t total);
	void *ctx;
};

/* Pack a directory into a sparse ext4 image without a journal (mke2fs of e2fsprogs >= 1.43). *path
 * is the cached image: never write to it. It may be removed once *hold (a descriptor with a shared
 * lock, close-on-exec) is closed and the directory has changed; the caller closes it. -EAGAIN: the
 * directory changed while it was packed. */
int image_rootfs(const struct image_rootfs_params *p, char path[IMAGE_PATH_MAX], int *hold,
		 struct err *e);

/* ---- container images ---- */

#define IMAGE_LAYERS_MAX 10               /* files of an image: lower layers are merged beyond */
#define IMAGE_LIMIT (20ull << 30)         /* bytes of all of them, unless it is said */
#define IMAGE_BYTES_MAX (80ull << 30)     /* of one image, likewise */
#define IMAGE_LAYER_SERIAL "insula-layer" /* and its number, from 0, the lowest */
/* The disk that takes what is written to the root. */
#define IMAGE_UPPER_SERIAL "insula-upper"

/* The store: the directory `images` in $XDG_CACHE_HOME/insula, else in /var/cache/insula for root,
 * else in image_cache_dir(). */
int image_store_dir(char out[IMAGE_PATH_MAX], struct err *e);

enum image_pull { IMAGE_PULL_MISSING, IMAGE_PULL_ALWAYS, IMAGE_PULL_NEVER };

struct image_params {
	const char *reference; /* TRANSPORT:... as skopeo takes it */
	enum image_pull pull;
	const char *libexec; /* where insula-layer is */
	unsigned layers;     /* at most so many files, 1 to IMAGE_LAYERS_MAX */
	bool check_only;     /* fetch and make nothing: look at what is there */
	/* As image_rootfs_params has it: what is done now, "" at its end; may be NULL. */
	void (*progress)(void *ctx, const char *what, uint64_t done, uint64_t total);
	void *ctx;
};

struct oci_config; /* src/image/oci.h */
struct image {
	char digest[72];              /* of its manifest: "sha256:..." */
	unsigned nlayers;             /* 0: check_only, and it is not in the store */
	char *path[IMAGE_LAYERS_MAX]; /* of `hold`, good as long as those are open */
	int hold[IMAGE_LAYERS_MAX];   /* EROFS images, the lowest first, for reading */
	int record;                   /* likewise: it is in use */
	/* What its configuration says; NULL-terminated, or NULL: nothing. Not checked further: an
	 * enemy may have written it. */
	char **entrypoint, **cmd, **env;
	char *user, *cwd;
};

/* Have an image ready, from the store if it is there. -EINVAL: the reference or the image is no
 * good; -EFBIG: it has too much; -ENOENT: it is not there, or a program is missing; -EIO: skopeo
 * failed; -ETIMEDOUT: it took too long; else the machine.
 * image_free() in any case. */
int image_open(const struct image_params *p, struct image *out, struct err *e);
void image_free(struct image *i);

/* An empty ext4 disk without a name of so many bytes, sparse, in the store's file system: gone with
 * its last descriptor. The caller closes *fd. */
int image_upper(uint64_t size, int *fd, struct err *e);

struct image_listed {
	char digest[72], **reference; /* NULL-terminated */
	uint64_t bytes, used;         /* of its layers, shared ones too; seconds since 1970 */
	bool in_use, complete;
};
/* The last used first; *list and *n are for image_list_free(). */
int image_list(struct image_listed **list, size_t *n, struct err *e);
void image_list_free(struct image_listed *list, size_t n);
/* By a reference as it is listed, or a digest or at least 6 of its digits. -ENOENT; -EBUSY: a VM
 * uses it. */
int image_remove(const char *name, struct err *e);
/* Remove what belongs to no image, and images that no VM uses: all of them, or until the limit is
 * kept. *bytes: freed. */
int image_prune(bool all, uint64_t *bytes, struct err *e);

/* A progress function: one line on stderr, rewritten in place, if stderr is a terminal; otherwise
 * nothing. */
void image_progress_stderr(void *ctx, const char *dir, uint64_t done, uint64_t total);
/* The same for image_open(). */
void image_progress_what(void *ctx, const char *what, uint64_t done, uint64_t total);

#endif
