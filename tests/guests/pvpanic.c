/* SPDX-License-Identifier: BSD-2-Clause */
/* Says through pvpanic that its kernel has panicked. That ends the VM; status 1 means that it did
 * not. */
#include "payload.h"

int main(void)
{
	print("panic\n");
	outb(BOARD_REG_PVPANIC, BOARD_PVPANIC_PANICKED);
	return 1;
}
