/* SPDX-License-Identifier: BSD-2-Clause */
#include <string.h>

#include "base/errtext.h"

/* The C run-time of Windows keeps one constant text per number below sys_nerr, and one buffer per
 * thread for the rest. */
const char *err_text(int number)
{
	return strerror(number);
}
