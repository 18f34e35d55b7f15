/* SPDX-License-Identifier: BSD-2-Clause */
/* The smallest payload: says how it was started, ends with status 42. */
#include "payload.h"

int main(void)
{
	print("Hello from a payload (%s)\n",
	      boot_kind == BOOT_PVH ? "PVH" : "64-bit Linux boot protocol");
	return 42;
}
