/* SPDX-License-Identifier: BSD-2-Clause */
/* The child's side of the jail on Windows: it was contained before its first instruction. See
 * contain.h. */
#include "jail/contain.h"

#include <insula/jail.h>

void jail_enter(void)
{
	/* A heap that is found damaged ends the process. */
	HeapSetInformation(NULL, HeapEnableTerminationOnCorruption, NULL, 0);
}

int jail_seal(const struct jail_rule *rules, size_t n, struct err *e)
{
	(void)rules; /* there are none: src/devices/rules_win.c */
	(void)n;
	return contain_check(GetCurrentProcess(), NULL, CONTAIN_HELPER, true, e);
}
