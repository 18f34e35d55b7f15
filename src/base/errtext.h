/* SPDX-License-Identifier: BSD-2-Clause */
/* The text of an errno, per system (errtext.c in src/os/linux and src/os/win). */
#ifndef INSULA_BASE_ERRTEXT_H
#define INSULA_BASE_ERRTEXT_H

/* Constant text, no locale, no allocation, so it works in a jail too. NULL: not known. */
const char *err_text(int number);

#endif
