/* SPDX-License-Identifier: BSD-2-Clause */
/* Between store.c and store_list.c. */
#ifndef IMAGE_STORE_PARTS_H
#define IMAGE_STORE_PARTS_H

#include "store.h"

#define STORE_LAYER STORE_LAYERS "v2-" /* others, which may lack their whiteouts, are nobody's */
#define STORE_LAYERS "layer-"
#define STORE_MERGED "merged-"
#define STORE_IMAGE "image-"
#define STORE_REF "ref-"
#define STORE_PULL ".pull-"

/* -EINVAL: it is damaged. */
int store_ref_parse(const char *text, struct store_ref *out);
/* Remove it unless somebody uses it. */
void store_pull_tidy(struct store *s, const char *name);

#endif
