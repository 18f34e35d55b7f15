/* SPDX-License-Identifier: BSD-2-Clause */
#include <string.h>

#include "base/errtext.h"

const char *err_text(int number)
{
	return strerrordesc_np(number);
}
