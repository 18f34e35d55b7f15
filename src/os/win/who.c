/* SPDX-License-Identifier: BSD-2-Clause */
/* Who this process is, and descriptors that let it in. See win.h. */
#include "os/win/win.h"

#include <errno.h>
#include <sddl.h>
#include <stdio.h>

int own_sid(char *out, struct err *e)
{
	union {
		TOKEN_USER user;
		char bytes[sizeof(TOKEN_USER) + SECURITY_MAX_SID_SIZE];
	} u;
	HANDLE token;
	char *text;
	DWORD n;
	bool ok;

	if (!OpenProcessToken(GetCurrentProcess(), TOKEN_QUERY, &token))
		return err_set(e, -EIO, "own token: error %lu", GetLastError());
	ok = GetTokenInformation(token, TokenUser, &u, sizeof(u), &n) &&
	     ConvertSidToStringSidA(u.user.User.Sid, &text);
	CloseHandle(token);
	if (!ok)
		return err_set(e, -EIO, "own SID: error %lu", GetLastError());
	snprintf(out, WIN_SID_LEN, "%s", text);
	LocalFree(text);
	return 0;
}

PSECURITY_DESCRIPTOR own_descriptor(bool inherit, const char *more, struct err *e)
{
	const char *how = inherit ? "OICI" : "";
	PSECURITY_DESCRIPTOR sd;
	char sid[WIN_SID_LEN], text[3 * WIN_SID_LEN + 256];

	if (own_sid(sid, e))
		return NULL;
	snprintf(text, sizeof(text),
		 "D:P(A;%s;GA;;;%s)(A;%s;GA;;;SY)(A;%s;GA;;;BA)%sS:(ML;%s;NRNW;;;ME)", how, sid,
		 how, how, more, how);
	if (ConvertStringSecurityDescriptorToSecurityDescriptorA(text, SDDL_REVISION_1, &sd, NULL))
		return sd;
	err_set(e, -EIO, "security descriptor: error %lu", GetLastError());
	return NULL;
}
