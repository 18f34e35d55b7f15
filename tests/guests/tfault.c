/* SPDX-License-Identifier: BSD-2-Clause */
/* An exception without a vector table: a triple fault. */
#include "payload.h"

int main(void)
{
	static const struct {
		uint16_t limit;
		uint64_t base;
	} __attribute__((packed)) none = {0, 0};

	print("triple fault\n");
	__asm__ volatile("lidt %0\n ud2" : : "m"(none));
	return 1;
}
