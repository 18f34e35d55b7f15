/* SPDX-License-Identifier: BSD-2-Clause */
/* Soft off as ACPI does it on hardware-reduced machines (ACPI 6.5, 4.8.3.7). Status 1 means that
 * the machine ran on. */
#include "payload.h"

#define SLP_EN (1u << 5)
#define SLP_TYP_SHIFT 2

int main(void)
{
	print("power off\n");
	outb(BOARD_REG_SLEEP_CTL, SLP_EN | BOARD_SLEEP_TYP_S5 << SLP_TYP_SHIFT);
	return 1;
}
