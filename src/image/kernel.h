/* SPDX-License-Identifier: BSD-2-Clause */
/* What the initrd builder has to know about a kernel file: its version, and whether it is an ELF
 * image. */
#ifndef IMAGE_KERNEL_H
#define IMAGE_KERNEL_H

#include <stdbool.h>

#include <insula/err.h>

#define KERNEL_VERSION_MAX 65 /* as in struct utsname */

/* `path` is for messages and, for an ELF image called NAME-VERSION, a guess that saves reading all
 * of it: `known` says whether a module tree of that version exists. out is "" if an ELF image does
 * not say. */
int kernel_version(int fd, const char *path, bool (*known)(void *ctx, const char *version),
		   void *ctx, char out[KERNEL_VERSION_MAX], bool *elf, struct err *e);

#endif
