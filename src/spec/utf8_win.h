/* SPDX-License-Identifier: BSD-2-Clause */
/* Windows: the command line in UTF-8, which is what every text is in here. */
#ifndef SPEC_UTF8_WIN_H
#define SPEC_UTF8_WIN_H

/* The arguments, the caller's for good; NULL: no memory. */
char **utf8_arguments(int *argc);

#endif
