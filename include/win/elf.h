/* SPDX-License-Identifier: BSD-2-Clause */
/* The C library's <elf.h>, which Windows has not: the kernel's has what is needed of it. */
#ifndef INSULA_WIN_ELF_H
#define INSULA_WIN_ELF_H

#include <linux/elf.h>

#endif
