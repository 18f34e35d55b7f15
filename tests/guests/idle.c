/* SPDX-License-Identifier: BSD-2-Clause */
/* Halts for ever with interrupts off: a guest that costs no processor time. */
#include "payload.h"

int main(void)
{
	print("idle\n");
	for (;;)
		__asm__ volatile("cli; hlt");
}
