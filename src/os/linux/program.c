/* SPDX-License-Identifier: BSD-2-Clause */
/* Where this program is. See insula/base.h. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include <insula/base.h>

int program_above(unsigned up, char *out, size_t size, struct err *e)
{
	ssize_t n = readlink("/proc/self/exe", out, size - 1);

	if (n < 0)
		return err_sys(e, -errno, "/proc/self/exe");
	out[n] = 0;
	while (up--) {
		char *slash = strrchr(out, '/');

		if (slash)
			*slash = 0;
	}
	return 0;
}
