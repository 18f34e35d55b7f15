/* SPDX-License-Identifier: BSD-2-Clause */
/* A layer's tar archive (OCI image specification, layer.md; POSIX pax) becomes part of the tree;
 * the data of its files goes to the image at once. */
#ifndef LAYER_TAR_H
#define LAYER_TAR_H

#include "erofs.h"
#include "source.h"
#include "tree.h"

struct tar {
	struct source *source;
	struct tree *tree;
	struct erofs *image;
	/* The lowest layers become one image: a whiteout takes away what the ones before have.
	 * Otherwise it becomes what overlayfs knows. */
	bool merge;
};

/* To the end of the archive, and of what follows it. -EINVAL and the like: the layer is no good,
 * and the text says in which entry. */
int tar_read(const struct tar *t, struct err *e);

#endif
