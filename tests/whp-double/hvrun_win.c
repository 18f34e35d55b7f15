/* SPDX-License-Identifier: BSD-2-Clause */
#include <windows.h>

#include <fcntl.h>
#include <io.h>
#include <stdio.h>

#include "hvrun.h"

void host_begin(void)
{
	_setmode(_fileno(stdout), _O_BINARY);
}

void *host_memory(size_t size)
{
	return VirtualAlloc(NULL, size, MEM_COMMIT | MEM_RESERVE, PAGE_READWRITE);
}

bool host_hypervisor(intptr_t *dev)
{
	*dev = 0; /* found by hv_vm_create() */
	return true;
}
