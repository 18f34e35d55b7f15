/* SPDX-License-Identifier: BSD-2-Clause */
/* Reading back what holds a process. See contain.h. */
#include "jail/contain.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>

/* Newer than mingw's headers: TOKEN_INFORMATION_CLASS. */
#define TOKEN_IS_LESS_PRIVILEGED_APP_CONTAINER 46

int contain_missing(struct err *e, const char *program, const char *fmt, ...)
{
	char what[200];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
#ifdef INSULA_TEST_UNCONTAINED
	char line[300];
	int n = snprintf(line, sizeof(line), "TEST BUILD, NOT CONTAINED: %s: %s\n", program, what);

	(void)e;
	stderr_write(line, (size_t)n);
	return 0;
#else
	return err_set(e, -EPERM, "%s is not contained: %s", program, what);
#endif
}

/* ---- token ---- */

static bool token_word(HANDLE token, int class, DWORD *out)
{
	DWORD n;

	*out = 0;
	return GetTokenInformation(token, (TOKEN_INFORMATION_CLASS) class, out, sizeof(*out), &n);
}

/* The level of the token's integrity, such as SECURITY_MANDATORY_LOW_RID; MAXDWORD: not known. */
static DWORD integrity(HANDLE token)
{
	union {
		TOKEN_MANDATORY_LABEL label;
		uint8_t room[sizeof(TOKEN_MANDATORY_LABEL) + SECURITY_MAX_SID_SIZE];
	} t;
	DWORD n;

	if (!GetTokenInformation(token, TokenIntegrityLevel, &t, sizeof(t), &n) ||
	    !IsValidSid(t.label.Label.Sid) || !*GetSidSubAuthorityCount(t.label.Label.Sid))
		return MAXDWORD;
	return *GetSidSubAuthority(t.label.Label.Sid,
				   *GetSidSubAuthorityCount(t.label.Label.Sid) - 1u);
}

/* True if the token has a privilege besides that of walking through directories. */
static bool privileged(HANDLE token)
{
	union {
		TOKEN_PRIVILEGES p;
		uint8_t room[sizeof(TOKEN_PRIVILEGES) + 64 * sizeof(LUID_AND_ATTRIBUTES)];
	} t;
	LUID notify;
	DWORD n;

	if (!GetTokenInformation(token, TokenPrivileges, &t, sizeof(t), &n) ||
	    !LookupPrivilegeValueW(NULL, L"SeChangeNotifyPrivilege", &notify))
		return true;
	for (DWORD i = 0; i < t.p.PrivilegeCount; i++) {
		if (memcmp(&t.p.Privileges[i].Luid, &notify, sizeof(notify)) != 0)
			return true;
	}
	return false;
}

/* True if an administrator's rights work for the token. */
static bool administrator(HANDLE token)
{
	union {
		SID sid;
		uint8_t room[SECURITY_MAX_SID_SIZE];
	} admins;
	DWORD n = sizeof(admins), size = 0;
	TOKEN_GROUPS *g;
	bool yes = false;

	GetTokenInformation(token, TokenGroups, NULL, 0, &size);
	g = malloc(size);
	if (!g || !CreateWellKnownSid(WinBuiltinAdministratorsSid, NULL, &admins.sid, &n) ||
	    !GetTokenInformation(token, TokenGroups, g, size, &size)) {
		free(g);
		return true;
	}
	for (DWORD i = 0; i < g->GroupCount && !yes; i++)
		yes = (g->Groups[i].Attributes & SE_GROUP_ENABLED) &&
		      EqualSid(g->Groups[i].Sid, &admins.sid);
	free(g);
	return yes;
}

static const char *container_lacks(HANDLE token)
{
	union {
		TOKEN_GROUPS g;
		uint8_t room[1024];
	} t;
	DWORD v, n;

	if (!token_word(token, TokenIsAppContainer, &v) || v != 1)
		return "the token is not that of an AppContainer";
	if (!GetTokenInformation(token, TokenCapabilities, &t, sizeof(t), &n) || t.g.GroupCount)
		return "the AppContainer has capabilities";
	if (!token_word(token, TOKEN_IS_LESS_PRIVILEGED_APP_CONTAINER, &v) || v != 1)
		return "the AppContainer is not a less privileged one";
	return integrity(token) > SECURITY_MANDATORY_LOW_RID ? "the integrity level is not low"
							     : NULL;
}

static const char *token_lacks(HANDLE process, enum contain_kind kind, bool sealed)
{
	const char *lacks = NULL;
	HANDLE token;

	if (!OpenProcessToken(process, TOKEN_QUERY, &token))
		return "the token cannot be read";
	if (kind == CONTAIN_HELPER)
		lacks = container_lacks(token);
	else if (privileged(token))
		lacks = "the token has privileges";
	else if (administrator(token))
		lacks = "the token is an administrator's";
	else if (sealed && integrity(token) > SECURITY_MANDATORY_LOW_RID)
		lacks = "the integrity level is not low";
	CloseHandle(token);
	return lacks;
}

/* ---- job ---- */

static const char *job_lacks(HANDLE process, HANDLE job)
{
	const DWORD need = JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE | JOB_OBJECT_LIMIT_ACTIVE_PROCESS;
	const DWORD never = JOB_OBJECT_LIMIT_BREAKAWAY_OK | JOB_OBJECT_LIMIT_SILENT_BREAKAWAY_OK;
	JOBOBJECT_EXTENDED_LIMIT_INFORMATION l = {0};
	BOOL in = FALSE;

	if (!IsProcessInJob(process, job, &in) || !in)
		return "it is not in its job";
	if (!QueryInformationJobObject(job, JobObjectExtendedLimitInformation, &l, sizeof(l), NULL))
		return "the job cannot be read";
	if ((l.BasicLimitInformation.LimitFlags & need) != need ||
	    (l.BasicLimitInformation.LimitFlags & never) ||
	    l.BasicLimitInformation.ActiveProcessLimit != 1)
		return "the job does not end it, or lets it have children";
	return NULL;
}

/* ---- mitigations ---- */

/* Each of these structures is one word of flags. */
static const struct {
	PROCESS_MITIGATION_POLICY policy;
	DWORD flags;
	bool helpers_only;
	const char *lacks;
} policies[] = {
	{ProcessDynamicCodePolicy, 1, false, "it may make code"},
	{ProcessExtensionPointDisablePolicy, 1, false, "extension points are on"},
	{ProcessSignaturePolicy, 1, false, "it may load DLLs that are not Microsoft's"},
	{ProcessImageLoadPolicy, 3, false, "it may load images of the network or of low integrity"},
	{ProcessChildProcessPolicy, 1, false, "it may make processes"},
	{ProcessSystemCallDisablePolicy, 1, true, "the window manager is there"},
};

static const char *mitigations_lack(HANDLE process, enum contain_kind kind)
{
	for (size_t i = 0; i < ARRAY_LEN(policies); i++) {
		DWORD flags = 0;

		if (policies[i].helpers_only && kind != CONTAIN_HELPER)
			continue;
		if (!GetProcessMitigationPolicy(process, policies[i].policy, &flags,
						sizeof(flags)) ||
		    (flags & policies[i].flags) != policies[i].flags)
			return policies[i].lacks;
	}
	return NULL;
}

int contain_check(HANDLE process, HANDLE job, enum contain_kind kind, bool sealed, struct err *e)
{
	const char *program = kind == CONTAIN_VMM ? "insula-vmm" : "the helper";
	const char *lacks = token_lacks(process, kind, sealed);
	int rc = lacks ? contain_missing(e, program, "%s", lacks) : 0;

	lacks = rc ? NULL : job_lacks(process, job);
	if (lacks)
		rc = contain_missing(e, program, "%s", lacks);
	lacks = rc ? NULL : mitigations_lack(process, kind);
	return lacks ? contain_missing(e, program, "%s", lacks) : rc;
}

int contain_lower(struct err *e)
{
	SID low = {.Revision = SID_REVISION,
		   .SubAuthorityCount = 1,
		   .IdentifierAuthority = {SECURITY_MANDATORY_LABEL_AUTHORITY},
		   .SubAuthority = {SECURITY_MANDATORY_LOW_RID}};
	TOKEN_MANDATORY_LABEL label = {.Label = {.Sid = &low, .Attributes = SE_GROUP_INTEGRITY}};
	HANDLE token;
	BOOL ok;

	if (!OpenProcessToken(GetCurrentProcess(), TOKEN_ADJUST_DEFAULT | TOKEN_QUERY, &token))
		return err_set(e, -EPERM, "own token: error %lu", GetLastError());
	ok = SetTokenInformation(token, TokenIntegrityLevel, &label,
				 (DWORD)(sizeof(label) + sizeof(low)));
	CloseHandle(token);
	return ok ? 0 : err_set(e, -EPERM, "low integrity: error %lu", GetLastError());
}
