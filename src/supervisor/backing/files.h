/* SPDX-License-Identifier: BSD-2-Clause */
/* What the supervisor asks about files that the user named. Linux. */
#ifndef SUPERVISOR_FILES_H
#define SUPERVISOR_FILES_H

#include <stdbool.h>
#include <sys/stat.h>

/* Is the file that `fd` (-1: none) is open for the one that *st is of? */
bool file_is(int fd, const struct stat *st);
/* There is no such file. May this process make it, as far as its directory says? 0 or a negative
 * errno. */
int file_may_be_made(const char *path);

#endif
