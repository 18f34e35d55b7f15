/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the guest is told of a LUN. It is told once, so a LUN that is met again, in another session
 * or by another process, has to be able to do what was promised then.
 */
#ifndef MODULES_ISCSI_KNOWN_H
#define MODULES_ISCSI_KNOWN_H

#include "session.h"

/* `own` is handed through (module_disk.own). */
void known_from(const struct lun *lun, uint64_t own, struct module_disk *k);
/* NULL: it is the disk that the guest knows, or a larger one. */
const char *known_changed(const struct module_disk *k, const struct module_disk *now);

#endif
