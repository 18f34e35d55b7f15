/* SPDX-License-Identifier: BSD-2-Clause */
/* The ACPI reset register. Status 1 means that the machine ran on. */
#include "payload.h"

int main(void)
{
	print("reboot\n");
	outb(BOARD_REG_RESET, BOARD_RESET_VALUE);
	return 1;
}
