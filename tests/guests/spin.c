/* SPDX-License-Identifier: BSD-2-Clause */
/* Never ends, never exits to the VMM: for time limits and for stopping. */
#include "payload.h"

int main(void)
{
	print("spinning\n");
	for (;;)
		__asm__ volatile("pause");
}
