/* SPDX-License-Identifier: BSD-2-Clause */
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>

#include "hvrun.h"

void host_begin(void)
{
}

void *host_memory(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

bool host_hypervisor(intptr_t *dev)
{
	*dev = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (*dev < 0)
		perror("hvrun: /dev/kvm");
	return *dev >= 0;
}
