/* SPDX-License-Identifier: BSD-2-Clause */
/* What the Windows files of the daemon have in common. */
#ifndef DAEMON_WIN_H
#define DAEMON_WIN_H

#include "base/win.h"

#include "daemon.h"

/* STATE\vm\ID\NAME of a directory that state_open() has opened; `id` or `name` NULL: without.
 * `out` has WIN_PATH_CHARS. */
int state_path(int dir, const char *id, const char *name, wchar_t *out);
/* Create or open a file of a VM. */
int state_file(int dir, const char *id, const char *name, DWORD access, DWORD share, DWORD how);

/* The user that this process runs as: "S-1-5-..."; `out` has SID_LEN. */
int own_sid(char *out, struct err *e);
/* A security descriptor: this user, SYSTEM and administrators may do everything, whom `more` (an
 * ACE, or "") names may do that, nobody else anything; and nobody below medium integrity, which
 * insula-vmm is. `inherit`: for what is made below a directory too. LocalFree() it; NULL: `e` says
 * why. */
PSECURITY_DESCRIPTOR own_descriptor(bool inherit, const char *more, struct err *e);

/* The pipe of a link; borrowed. */
HANDLE link_pipe(const struct link *l);

#endif
