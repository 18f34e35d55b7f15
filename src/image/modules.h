/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A kernel's module tree (modules.dep and friends, as depmod writes them), and the modules out of
 * it that an initrd needs, each after those that it depends on.
 */
#ifndef IMAGE_MODULES_H
#define IMAGE_MODULES_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include <insula/err.h>

#include "hash.h"

#define MODULES_MAX 96
#define MODULE_NAME_MAX 56
#define MODULE_PATH_MAX 512

struct module {
	const char *group;
	char *path;                 /* in the tree: kernel/fs/erofs/erofs.ko.xz */
	char name[MODULE_NAME_MAX]; /* erofs */
	bool optional;              /* may fail to load: an alias of several drivers */
};

struct modules {
	const char *name; /* of the tree; borrowed */
	uid_t owner;      /* of the kernel */
	int dir;          /* the tree, -1: a kernel without modules */
	char *dep;        /* modules.dep */
	char *softdep;    /* modules.softdep */
	char *alias;      /* modules.alias */
	size_t n;
	struct module m[MODULES_MAX];
};

/* Open the tree. A directory without modules.dep is an error, an empty one stands for no modules.
 * -EPERM, here and below: somebody other than root, the user and `owner` can change the tree, or
 * what is to be read is no regular file inside it. `dir` must live as long as the tree is open. */
int modules_open(struct modules *k, const char *dir, uid_t owner, struct err *e);
void modules_close(struct modules *k);
/* Append a module and all that it needs. One that the kernel has built in or does not have adds
 * nothing. */
int modules_need(struct modules *k, const char *group, const char *name, struct err *e);
/* The same of each module that has a pattern for this modalias ("pci:v00008086d..."). All
 * of the group may fail to load in the guest. */
int modules_need_device(struct modules *k, const char *group, const char *modalias, struct err *e);
/* Identity of the files of all appended modules. */
int modules_hash(const struct modules *k, struct hash *h, struct err *e);
/* The decompressed content: a descriptor that the caller closes. */
int modules_read(const struct modules *k, const struct module *m, int *fd, struct err *e);

#endif
