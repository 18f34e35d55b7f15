/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The file system that the layers make, in memory: names and inodes, no data. A name is looked up
 * among those of its directory by one hash table for all.
 *
 * Every node remembers the number of the layer that has written it last: a whiteout takes away what
 * is older than its own layer.
 */
#ifndef LAYER_TREE_H
#define LAYER_TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <insula/err.h>

/* More is nobody's image: the largest known ones have half a million names in a layer. A name and
 * its inode take some 250 bytes. */
#define TREE_MAX_NAMES (1u << 20)
#define TREE_MAX_DEPTH 1024 /* directories in each other: paths of the guest have 4096 bytes */
#define TREE_MAX_PATH 4096
#define TREE_MAX_NAME 255
#define TREE_MAX_LINKS 40 /* symbolic links that one path may go through, as the kernel has it */
#define TREE_MAX_XATTRS 65536u /* bytes of the attributes of one file */

struct node;

struct name {
	struct name *hash_next, *next; /* in the table; in its directory */
	struct node *dir, *node;       /* node NULL: it was removed */
	char text[];
};

/* An attribute: index and rest of its name as EROFS has them. */
struct xattr {
	struct xattr *next;
	uint8_t index; /* EROFS_XATTR_* in erofs.h */
	uint8_t name_len;
	uint16_t len;
	char text[]; /* the name, then the value */
};

struct node {
	uint32_t mode, uid, gid, nlink, rdev;
	uint32_t layer; /* that has written it last */
	uint64_t size;
	int64_t mtime;
	uint32_t mtime_ns;
	uint32_t block; /* of the data in the image; 0: it is in `data`, or there is none */
	char *data;     /* of a symbolic link or a small file; owned */
	struct xattr *xattr;
	/* a directory's: */
	struct node *parent; /* the root: itself */
	struct name *first, *last;
	uint32_t depth, nnames;
	/* erofs.c's: */
	uint64_t nid;
	uint32_t ino;
	bool placed;
};

struct tree {
	struct node *root;
	struct name **table;
	size_t nbuckets, nnames; /* with those that were removed */
	uint32_t layer;          /* that is being read, from 1 */
};

int tree_init(struct tree *t, struct err *e);
void tree_free(struct tree *t);

/* The directory and the last component of a path; directories that are missing are made, and what
 * an older layer has in their place, if it is none, goes. Symbolic links of this layer are followed
 * inside the tree. `last` is "" for the root itself. -EINVAL names the path. */
int tree_parent(struct tree *t, const char *path, struct node **dir, char last[TREE_MAX_NAME + 1],
		struct err *e);
/* NULL: there is none. */
struct node *tree_find(const struct tree *t, const struct node *dir, const char *name);
/* A new node without a name; NULL: no memory. */
struct node *tree_node(struct tree *t, uint32_t mode);
/* Put it there, in the place of what was there. -E2BIG: TREE_MAX_NAMES. */
int tree_link(struct tree *t, struct node *dir, const char *name, struct node *n, struct err *e);
/* A directory of this name: the one that is there, or a new one. */
int tree_dir(struct tree *t, struct node *dir, const char *name, struct node **out, struct err *e);
/* A whiteout: forget what older layers have there; all of a directory: name NULL. */
void tree_hide(struct tree *t, struct node *dir, const char *name);
/* Replaces one of the same name. */
int node_xattr(struct node *n, uint8_t index, const char *name, size_t name_len, const void *value,
	       size_t len, struct err *e);
void node_drop_xattrs(struct node *n);

#endif
