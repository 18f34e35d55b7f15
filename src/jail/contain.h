/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The jail on Windows: a process that is made contained, looked at before its first instruction,
 * and only then let go.
 *
 *   job                kill on close, one process, no user interface
 *   handles            the list that the supervisor gives, and nothing else that could be inherited
 *   token, helpers     an AppContainer without capabilities that is no member of "all application
 *                      packages" (LPAC): no file, no network, no object that has a name
 *   token, insula-vmm  no privilege but one that everybody has, no administrator's rights, and low
 *                      integrity from the moment that it has its partition (contain_lower()): the
 *                      hypervisor's device, which it opens itself, is not for AppContainers
 *   mitigations        no code but that of images, only Microsoft's DLLs and none from the network,
 *                      no extension points; helpers: no window manager
 *   children           none
 *
 * Each of them is read back from the system, by the supervisor from the suspended process and by
 * the process itself in jail_seal(): contain_check(). What cannot be read back is not there.
 *
 * Wine takes most of this without doing it. A build with INSULA_TEST_UNCONTAINED goes on all the
 * same, and says so on standard error for each process; it is for the tests under wine and nothing
 * else. There is no switch in any other build.
 */
#ifndef JAIL_CONTAIN_H
#define JAIL_CONTAIN_H

#include <windows.h>

#include <stdbool.h>

#include <insula/err.h>

enum contain_kind { CONTAIN_HELPER, CONTAIN_VMM };

#define CONTAIN_MAX_HANDLES 768

struct contain_plan {
	enum contain_kind kind;
	const char *program; /* "insula-blk": for messages */
	const wchar_t *path; /* of the .exe, absolute */
	HANDLE channel, log; /* standard input, standard error; inheritable */
	const int *fds;      /* what else it inherits; inheritable */
	unsigned nfds;       /* at most CONTAIN_MAX_HANDLES - 2 */
};

struct contained {
	HANDLE process; /* owned */
	HANDLE job;     /* owned: the process ends with it */
	DWORD pid;
};

/* Make the process, check it, let it run. On error nothing is left; -EPERM: it could not be
 * contained, and the text says what is missing. */
int contain_spawn(const struct contain_plan *p, struct contained *out, struct err *e);
/* Read back all that holds a process of this kind. `job` NULL: the calling process's own. -EPERM
 * names what is missing. `sealed`: insula-vmm has lowered itself. */
int contain_check(HANDLE process, HANDLE job, enum contain_kind kind, bool sealed, struct err *e);
/* insula-vmm: integrity level low, for good. */
int contain_lower(struct err *e);
/* The end of every refusal: returns -EPERM with the text; in a test build it says it on standard
 * error and returns 0. */
int contain_missing(struct err *e, const char *program, const char *fmt, ...) INSULA_PRINTF(3, 4);

#endif
