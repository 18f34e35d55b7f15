/* SPDX-License-Identifier: BSD-2-Clause */
/* What the guest boots: kernel, initrd parts, command line, and the root disk that --rootfs asks
 * for. */
#ifndef SUPERVISOR_BOOT_H
#define SUPERVISOR_BOOT_H

#include <json-c/json.h>

#include <insula/image.h>
#include <insula/proto.h>

#include "spec/config.h"

struct paths;

struct boot {
	int kernel, initrd[VMM_MAX_INITRDS]; /* owned; -1: none */
	unsigned ninitrds;
	bool own_initrd; /* insula-init is in it: it says when it starts, and how the command ended
			  */
	char cmdline[MSG_CMDLINE_MAX];
	char root_image[IMAGE_PATH_MAX]; /* "" without --rootfs */
	bool root_ro;
	int root_hold; /* keeps a cached root image from being removed; owned */
	int upper;     /* the disk of --rootfs-size, which has no name; owned; -1: none */
	unsigned nshares;
	char share_image[CONFIG_MAX_SHARES][IMAGE_PATH_MAX];
	int share_hold[CONFIG_MAX_SHARES]; /* likewise */
	json_object *booted;               /* of a template, for boot_stale(); owned; NULL */
	enum config_bus share_bus[CONFIG_MAX_SHARES];
};

/* Nothing is open: boot_close() does no harm. */
void boot_init(struct boot *b);
/* Open and build everything. `check_only`: open and check, build nothing. -EINVAL and the like: the
 * user's input; see err. Windows: nothing is built but the configuration; Insula's own initrd lies
 * beside the kernel (tools/windows-guest). */
int boot_open(struct boot *b, const struct vm_config *c, const struct paths *p, bool check_only,
	      bool verbose, struct err *e);
void boot_close(struct boot *b);
/* The files of the cache that the guest has as disks: packed directories, layers. The caller's.
 * Linux alone. */
json_object *boot_images(const struct boot *b, const struct vm_config *c);

/* A template stands for a boot: would that be of other files today than of those that `booted` (of
 * its snapshot; NULL: it is none) names? -ESTALE: the line says which. Linux alone. */
int boot_stale(json_object *booted, const struct paths *p, struct err *e);

/* boot_memory.c: -EINVAL if a Linux kernel with Insula's initrd cannot start in so many bytes, for
 * all that is known of this one. A kernel of another form is let through. */
int boot_check_memory(int kernel, uint64_t mem, unsigned cpus, struct err *e);

#endif
