/* SPDX-License-Identifier: BSD-2-Clause */
/* Random names. See insula/base.h. */
#include <insula/base.h>
#include <insula/log.h>

void random_hex(char *out, size_t digits)
{
	unsigned char b[32];

	if (digits > 2 * sizeof(b) || random_bytes(b, sizeof(b)) != sizeof(b))
		panic("no random numbers");
	for (size_t i = 0; i < digits; i++)
		out[i] = "0123456789abcdef"[i % 2 ? b[i / 2] & 15 : b[i / 2] >> 4];
	out[digits] = 0;
}
