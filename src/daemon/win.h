/* SPDX-License-Identifier: BSD-2-Clause */
/* What the Windows files of the daemon have in common. */
#ifndef DAEMON_WIN_H
#define DAEMON_WIN_H

#include "os/win/win.h"

#include "link.h"
#include "record.h"

/* STATE\vm\ID\NAME of a directory that state_open() has opened; `id` or `name` NULL: without.
 * `out` has WIN_PATH_CHARS. */
int state_path(int dir, const char *id, const char *name, wchar_t *out);
/* Create or open a file of a VM. */
int state_file(int dir, const char *id, const char *name, DWORD access, DWORD share, DWORD how);

_Static_assert(SID_LEN == WIN_SID_LEN, "own_sid() fills a record's");

/* The pipe of a link; borrowed. */
HANDLE link_pipe(const struct link *l);

#endif
