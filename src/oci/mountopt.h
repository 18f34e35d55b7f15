/* SPDX-License-Identifier: BSD-2-Clause */
/* The options of a mount (runtime-spec, config.md "Linux mount options") as mount(2) and
 * mount_setattr(2) take them. Pure. */
#ifndef OCI_MOUNTOPT_H
#define OCI_MOUNTOPT_H

#include "oci.h"

struct mountopt {
	unsigned long flags; /* MS_*: with MS_BIND and MS_REC of a bind mount */
	unsigned long clear; /* flags that a bind mount loses */
	unsigned long prop;  /* MS_PRIVATE ..., perhaps with MS_REC; 0: none */
	uint64_t attr;       /* MOUNT_ATTR_* to set in all mounts beneath it, too: "rro" ... */
	uint64_t attr_clear; /* the same, to clear */
	bool copyup;         /* tmpcopyup */
	char *data;          /* what is left, for the file system; owned; NULL: nothing */
};

/* `options`: the array, or NULL. `type`: of the mount, "" if it has none: "bind" is as the option.
 * -EINVAL: an element is no string; -EOPNOTSUPP: idmap. */
int mountopt_parse(struct mountopt *o, json_object *options, const char *type, const char *where,
		   struct err *e);
void mountopt_free(struct mountopt *o);
/* rootfsPropagation ("rslave" ...); 0: no such word. */
unsigned long mountopt_propagation(const char *word);

#endif
