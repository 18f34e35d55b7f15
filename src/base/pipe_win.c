/* SPDX-License-Identifier: BSD-2-Clause */
/* Both ends of a channel or a log. See win.h. */
#include "base/win.h"

#include <errno.h>
#include <sddl.h>
#include <stdio.h>
#include <string.h>

#include <insula/base.h>

#define PIPE_BYTES 65536

bool pipe_is_name(const char *text)
{
	static const char prefix[] = "\\\\.\\pipe\\";
	const size_t n = sizeof(prefix) - 1;

	return !strncmp(text, prefix, n) && text[n] && !strpbrk(text + n, "\\/");
}

static void close_handle(HANDLE *h)
{
	if (*h && *h != INVALID_HANDLE_VALUE)
		CloseHandle(*h);
	*h = NULL;
}

/* A pipe's name is only good for the moment in which we open both ends of it ourselves: one
 * instance, which nobody else may open, and which is taken from then on. */
int pipe_pair(bool messages, HANDLE *ours, HANDLE *theirs, struct err *e)
{
	static unsigned count; /* names are never used twice */
	SECURITY_ATTRIBUTES own = {sizeof(own), NULL, FALSE},
			    inherit = {sizeof(inherit), NULL, TRUE};
	DWORD mode = messages ? PIPE_READMODE_MESSAGE : PIPE_READMODE_BYTE | PIPE_NOWAIT;
	ULONG client = 0;
	wchar_t name[96];
	uint64_t r;
	int rc = 0;

	random_bytes(&r, sizeof(r));
	swprintf(name, ARRAY_LEN(name), L"\\\\.\\pipe\\insula-%lu-%u-%llx", GetCurrentProcessId(),
		 count++, (unsigned long long)r);
	if (!ConvertStringSecurityDescriptorToSecurityDescriptorW(
		    L"D:P(A;;GA;;;OW)", SDDL_REVISION_1, &own.lpSecurityDescriptor, NULL))
		return err_set(e, -EIO, "security descriptor: error %lu", GetLastError());
	*ours = CreateNamedPipeW(name,
				 (messages ? PIPE_ACCESS_DUPLEX : PIPE_ACCESS_INBOUND) |
					 FILE_FLAG_OVERLAPPED | FILE_FLAG_FIRST_PIPE_INSTANCE,
				 (messages ? PIPE_TYPE_MESSAGE | PIPE_READMODE_MESSAGE
					   : PIPE_TYPE_BYTE | PIPE_READMODE_BYTE) |
					 PIPE_REJECT_REMOTE_CLIENTS,
				 1, PIPE_BYTES, PIPE_BYTES, 0, &own);
	LocalFree(own.lpSecurityDescriptor);
	*theirs =
		*ours == INVALID_HANDLE_VALUE
			? INVALID_HANDLE_VALUE
			: CreateFileW(name, messages ? GENERIC_READ | GENERIC_WRITE : GENERIC_WRITE,
				      0, &inherit, OPEN_EXISTING,
				      messages ? FILE_FLAG_OVERLAPPED : 0, NULL);
	if (*theirs == INVALID_HANDLE_VALUE || !GetNamedPipeClientProcessId(*ours, &client) ||
	    client != GetCurrentProcessId() || !SetNamedPipeHandleState(*theirs, &mode, NULL, NULL))
		rc = err_set(e, -EIO, "pipe: error %lu", GetLastError());
	if (rc) {
		close_handle(ours);
		close_handle(theirs);
	}
	return rc;
}
