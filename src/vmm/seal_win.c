/* SPDX-License-Identifier: BSD-2-Clause */
/* insula-vmm on Windows: its handle of the hypervisor is the library's own, and from here on it
 * needs no rights but to what it holds. See vmm.h. */
#include "jail/contain.h"

#include "vmm.h"

unsigned vmm_device_fds(void)
{
	return 0;
}

int vmm_seal(const struct vmm *vm, struct err *e)
{
	int rc = contain_lower(e);

	(void)vm;
	return rc ? rc : contain_check(GetCurrentProcess(), NULL, CONTAIN_VMM, true, e);
}
