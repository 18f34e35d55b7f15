/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>

#include <insula/base.h>

#include "base/errtext.h"

/* The C run-time's table ends before the numbers that POSIX brought: those that Insula uses, in
 * Linux's words. */
static const struct {
	int number;
	const char *text;
} posix[] = {
	{EADDRINUSE, "Address already in use"},
	{EALREADY, "Operation already in progress"},
	{ECONNREFUSED, "Connection refused"},
	{ECONNRESET, "Connection reset by peer"},
	{EMSGSIZE, "Message too long"},
	{ENODATA, "No data available"},
	{ENOTCONN, "Transport endpoint is not connected"},
	{ENOTSUP, "Operation not supported"},
	{EOPNOTSUPP, "Operation not supported"},
	{EPROTO, "Protocol error"},
	{ETIMEDOUT, "Connection timed out"},
};

/* Not strerror(): that is one buffer per thread, and has a text for what it does not know. */
const char *err_text(int number)
{
	for (unsigned i = 0; i < ARRAY_LEN(posix); i++)
		if (posix[i].number == number)
			return posix[i].text;
	return number >= 0 && number < _sys_nerr ? _sys_errlist[number] : NULL;
}
