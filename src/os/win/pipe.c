/* SPDX-License-Identifier: BSD-2-Clause */
/* Pipes: both ends of a channel, a log or a stream; one end for somebody else. See win.h. */
#include "os/win/win.h"

#include <aclapi.h>
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

static void pipe_close_handle(HANDLE *h)
{
	if (*h && *h != INVALID_HANDLE_VALUE)
		CloseHandle(*h);
	*h = NULL;
}

int pipe_offer(DWORD access, PSECURITY_DESCRIPTOR sd, char *name, struct err *e)
{
	static unsigned count; /* names are never used twice */
	SECURITY_ATTRIBUTES sa = {sizeof(sa), sd, FALSE};
	bool messages = access & PIPE_TYPE_MESSAGE;
	uint64_t r[2];
	HANDLE h;

	random_bytes(r, sizeof(r));
	snprintf(name, PIPE_NAME_LEN, "\\\\.\\pipe\\insula-%lu-%u-%llx%llx", GetCurrentProcessId(),
		 count++, (unsigned long long)r[0], (unsigned long long)r[1]);
	h = CreateNamedPipeA(name,
			     (access & PIPE_ACCESS_DUPLEX) | FILE_FLAG_OVERLAPPED |
				     FILE_FLAG_FIRST_PIPE_INSTANCE,
			     (messages ? PIPE_TYPE_MESSAGE | PIPE_READMODE_MESSAGE
				       : PIPE_TYPE_BYTE | PIPE_READMODE_BYTE) |
				     PIPE_REJECT_REMOTE_CLIENTS,
			     1, PIPE_BYTES, PIPE_BYTES, 0, &sa);
	return h == INVALID_HANDLE_VALUE
		       ? err_set(e, win_errno(GetLastError()), "pipe: error %lu", GetLastError())
		       : handle_fd(h);
}

/* A pipe's name is only good for the moment in which we open both ends of it ourselves: one
 * instance, which nobody else may open, and which is taken from then on. `access` is the server's;
 * `mode` and `flags` are the client's. */
static int make_pair(DWORD access, DWORD mode, DWORD flags, HANDLE *ours, HANDLE *theirs,
		     struct err *e)
{
	static const DWORD client_access[] = {
		[PIPE_ACCESS_INBOUND] = GENERIC_WRITE,
		[PIPE_ACCESS_OUTBOUND] = GENERIC_READ | FILE_WRITE_ATTRIBUTES,
		[PIPE_ACCESS_DUPLEX] = GENERIC_READ | GENERIC_WRITE,
	};
	SECURITY_ATTRIBUTES inherit = {sizeof(inherit), NULL, TRUE};
	PSECURITY_DESCRIPTOR sd;
	char name[PIPE_NAME_LEN];
	ULONG client = 0;
	int fd, rc = 0;

	*ours = *theirs = NULL;
	if (!ConvertStringSecurityDescriptorToSecurityDescriptorW(L"D:P(A;;GA;;;OW)",
								  SDDL_REVISION_1, &sd, NULL))
		return err_set(e, -EIO, "security descriptor: error %lu", GetLastError());
	fd = pipe_offer(access, sd, name, e);
	LocalFree(sd);
	if (fd < 0)
		return fd;
	*ours = fd_handle(fd);
	*theirs = CreateFileA(name, client_access[access & PIPE_ACCESS_DUPLEX], 0, &inherit,
			      OPEN_EXISTING, flags, NULL);
	if (*theirs == INVALID_HANDLE_VALUE || !GetNamedPipeClientProcessId(*ours, &client) ||
	    client != GetCurrentProcessId() || !SetNamedPipeHandleState(*theirs, &mode, NULL, NULL))
		rc = err_set(e, -EIO, "pipe: error %lu", GetLastError());
	if (rc) {
		pipe_close_handle(ours);
		pipe_close_handle(theirs);
	}
	return rc;
}

int pipe_pair(bool messages, HANDLE *ours, HANDLE *theirs, struct err *e)
{
	return messages ? make_pair(PIPE_ACCESS_DUPLEX | PIPE_TYPE_MESSAGE, PIPE_READMODE_MESSAGE,
				    FILE_FLAG_OVERLAPPED, ours, theirs, e)
			: make_pair(PIPE_ACCESS_INBOUND, PIPE_READMODE_BYTE | PIPE_NOWAIT, 0, ours,
				    theirs, e);
}

int pipe_stream(bool to_them, HANDLE *ours, HANDLE *theirs, struct err *e)
{
	return make_pair(to_them ? PIPE_ACCESS_OUTBOUND : PIPE_ACCESS_INBOUND, PIPE_READMODE_BYTE,
			 0, ours, theirs, e);
}

static bool belongs_to(HANDLE h, const char *owner)
{
	PSECURITY_DESCRIPTOR sd;
	char *text = NULL;
	PSID sid;
	bool is;

	if (GetSecurityInfo(h, SE_KERNEL_OBJECT, OWNER_SECURITY_INFORMATION, &sid, NULL, NULL, NULL,
			    &sd))
		return false;
	is = ConvertSidToStringSidA(sid, &text) && !strcmp(text, owner);
	LocalFree(text);
	LocalFree(sd);
	return is;
}

int pipe_take(const char *name, DWORD access, DWORD flags, const char *owner, struct err *e)
{
	int fd = pipe_is_name(name)
			 ? win_open(name, access | READ_CONTROL, 0, OPEN_EXISTING,
				    flags | SECURITY_SQOS_PRESENT | SECURITY_IDENTIFICATION)
			 : -EINVAL;

	if (fd == -EINVAL)
		return err_set(e, fd, "'%.80s': expected the name of a pipe, \\\\.\\pipe\\NAME",
			       name);
	if (fd < 0)
		return err_sys(e, fd, "%.80s", name);
	if (owner && !belongs_to(fd_handle(fd), owner)) {
		fd_close(&fd);
		return err_set(e, -EACCES, "%.80s: it is not the pipe of who names it", name);
	}
	SetHandleInformation(fd_handle(fd), HANDLE_FLAG_INHERIT, HANDLE_FLAG_INHERIT);
	return fd;
}
