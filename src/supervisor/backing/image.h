/* SPDX-License-Identifier: BSD-2-Clause */
/* --image: the image's files become the VM's layers, and what its configuration says becomes the
 * VM's command, environment, directory and user, where the user has not said otherwise. */
#ifndef SUPERVISOR_IMAGE_H
#define SUPERVISOR_IMAGE_H

#include <insula/err.h>

#include "spec/config.h"

struct image_use; /* keeps the files; NULL: there is no image */

/* Fetches, unpacks, fills `c` in; does nothing without c->image. `check_only`: looks at what is
 * there, and fills in what that tells. Blocks, perhaps for minutes. *out is for image_let_go() in
 * any case. RUN_BAD_INPUT or RUN_FAILED, with the text in `e`; 0. */
int image_take(struct image_use **out, struct vm_config *c, bool check_only, struct err *e);
void image_let_go(struct image_use *u);

struct image;
/* What an image says becomes the VM's, where the user has not said otherwise. -EINVAL and a line:
 * there is no command, or a value is refused where the flag's would be. Linux alone. */
int image_apply(const struct image *i, struct vm_config *c, struct err *e);

#endif
