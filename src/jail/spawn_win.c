/* SPDX-License-Identifier: BSD-2-Clause */
/* Making a contained process. See contain.h. */
#include "jail/contain.h"

#include <errno.h>
#include <sddl.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>

#include "os/win/win.h"

#define CONTAINER_NAME L"Insula.Helper"
#define MAX_ATTRIBUTES 6

/* All that the attribute list points at must live until the process is made. */
struct making {
	const struct contain_plan *plan;
	struct contained *out;
	LPPROC_THREAD_ATTRIBUTE_LIST list;
	HANDLE handle[CONTAIN_MAX_HANDLES];
	SECURITY_CAPABILITIES container;
	DWORD64 mitigations;
	DWORD children, packages;
	PSECURITY_DESCRIPTOR owner_only;
	HANDLE token; /* insula-vmm's */
};

static int missing(struct making *m, struct err *e, const char *what)
{
	DWORD error = GetLastError();

	return contain_missing(e, m->plan->program, "%s: error %lu", what, error);
}

static int add_attribute(struct making *m, DWORD_PTR which, void *value, size_t size,
			 const char *what, struct err *e)
{
	if (UpdateProcThreadAttribute(m->list, 0, which, value, size, NULL, NULL))
		return 0;
	return missing(m, e, what);
}

/* ---- job ---- */

static int make_job(struct making *m, struct err *e)
{
	JOBOBJECT_EXTENDED_LIMIT_INFORMATION l = {
		.BasicLimitInformation = {.LimitFlags = JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE |
							JOB_OBJECT_LIMIT_ACTIVE_PROCESS |
							JOB_OBJECT_LIMIT_DIE_ON_UNHANDLED_EXCEPTION,
					  .ActiveProcessLimit = 1}};
	JOBOBJECT_BASIC_UI_RESTRICTIONS ui = {
		JOB_OBJECT_UILIMIT_DESKTOP | JOB_OBJECT_UILIMIT_DISPLAYSETTINGS |
		JOB_OBJECT_UILIMIT_EXITWINDOWS | JOB_OBJECT_UILIMIT_GLOBALATOMS |
		JOB_OBJECT_UILIMIT_HANDLES | JOB_OBJECT_UILIMIT_READCLIPBOARD |
		JOB_OBJECT_UILIMIT_SYSTEMPARAMETERS | JOB_OBJECT_UILIMIT_WRITECLIPBOARD};

	m->out->job = CreateJobObjectW(NULL, NULL);
	if (!m->out->job)
		return err_set(e, win_errno(GetLastError()), "job: error %lu", GetLastError());
	if (!SetInformationJobObject(m->out->job, JobObjectExtendedLimitInformation, &l, sizeof(l)))
		return missing(m, e, "limits of the job");
	if (!SetInformationJobObject(m->out->job, JobObjectBasicUIRestrictions, &ui, sizeof(ui)))
		return missing(m, e, "user interface limits of the job");
	return 0;
}

/* ---- token ---- */

/* One container for all helpers. They cannot reach each other all the same: no object of theirs has
 * a name, and none of their processes and threads lets a container in (owner_only). */
static int find_container(struct making *m, struct err *e)
{
	typedef HRESULT(WINAPI * create_fn)(PCWSTR, PCWSTR, PCWSTR, PSID_AND_ATTRIBUTES, DWORD,
					    PSID *);
	typedef HRESULT(WINAPI * derive_fn)(PCWSTR, PSID *);
	HMODULE dll = LoadLibraryExW(L"userenv.dll", NULL, LOAD_LIBRARY_SEARCH_SYSTEM32);
	FARPROC create = dll ? GetProcAddress(dll, "CreateAppContainerProfile") : NULL;
	FARPROC derive =
		dll ? GetProcAddress(dll, "DeriveAppContainerSidFromAppContainerName") : NULL;
	HRESULT hr;

	if (!create || !derive)
		return missing(m, e, "this system has no AppContainers");
	hr = ((create_fn)(void *)create)(CONTAINER_NAME, L"Insula helper",
					 L"The process of one virtual device", NULL, 0,
					 &m->container.AppContainerSid);
	if (hr == HRESULT_FROM_WIN32(ERROR_ALREADY_EXISTS))
		hr = ((derive_fn)(void *)derive)(CONTAINER_NAME, &m->container.AppContainerSid);
	if (FAILED(hr)) {
		SetLastError((DWORD)hr);
		return missing(m, e, "AppContainer profile");
	}
	return 0;
}

static int contain_helper(struct making *m, struct err *e)
{
	int rc = find_container(m, e);

	m->packages = PROCESS_CREATION_ALL_APPLICATION_PACKAGES_OPT_OUT;
	if (!rc && m->container.AppContainerSid)
		rc = add_attribute(m, PROC_THREAD_ATTRIBUTE_SECURITY_CAPABILITIES, &m->container,
				   sizeof(m->container), "AppContainer", e);
	return rc ? rc
		  : add_attribute(m, PROC_THREAD_ATTRIBUTE_ALL_APPLICATION_PACKAGES_POLICY,
				  &m->packages, sizeof(m->packages), "less privileged AppContainer",
				  e);
}

static int restrict_vmm(struct making *m, struct err *e)
{
	union {
		SID sid;
		uint8_t room[SECURITY_MAX_SID_SIZE];
	} admins;
	SID_AND_ATTRIBUTES off = {.Sid = &admins.sid};
	DWORD n = sizeof(admins);
	HANDLE own;
	BOOL ok;

	if (!CreateWellKnownSid(WinBuiltinAdministratorsSid, NULL, &admins.sid, &n))
		return missing(m, e, "the administrators' group");

	if (!OpenProcessToken(GetCurrentProcess(),
			      TOKEN_DUPLICATE | TOKEN_QUERY | TOKEN_ASSIGN_PRIMARY |
				      TOKEN_ADJUST_DEFAULT,
			      &own))
		return missing(m, e, "own token");
	ok = CreateRestrictedToken(own, DISABLE_MAX_PRIVILEGE, 1, &off, 0, NULL, 0, NULL,
				   &m->token);
	if (!ok)
		m->token = NULL;
	CloseHandle(own);
	return ok ? 0 : missing(m, e, "token without privileges");
}

/* ---- process ---- */

/* One output may be given twice; nobody says what the system makes of that in its list. */
static bool listed(const struct making *m, size_t n, HANDLE h)
{
	for (size_t i = 0; i < n; i++) {
		if (m->handle[i] == h)
			return true;
	}
	return false;
}

static int list_handles(struct making *m, struct err *e)
{
	const struct contain_plan *p = m->plan;
	size_t n = 0;

	if (p->nfds > CONTAIN_MAX_HANDLES - 2)
		panic("%u handles for %s", p->nfds, p->program);
	m->handle[n++] = p->channel;
	m->handle[n++] = p->log;
	for (unsigned i = 0; i < p->nfds; i++) {
		if (!listed(m, n, fd_handle(p->fds[i])))
			m->handle[n++] = fd_handle(p->fds[i]);
	}
	return add_attribute(m, PROC_THREAD_ATTRIBUTE_HANDLE_LIST, m->handle,
			     n * sizeof(*m->handle), "list of handles", e);
}

static int fill_attributes(struct making *m, struct err *e)
{
	bool helper = m->plan->kind == CONTAIN_HELPER;
	int rc = list_handles(m, e);

	m->children = PROCESS_CREATION_CHILD_PROCESS_RESTRICTED;
	m->mitigations = PROCESS_CREATION_MITIGATION_POLICY_FORCE_RELOCATE_IMAGES_ALWAYS_ON |
			 PROCESS_CREATION_MITIGATION_POLICY_HEAP_TERMINATE_ALWAYS_ON |
			 PROCESS_CREATION_MITIGATION_POLICY_BOTTOM_UP_ASLR_ALWAYS_ON |
			 PROCESS_CREATION_MITIGATION_POLICY_HIGH_ENTROPY_ASLR_ALWAYS_ON |
			 PROCESS_CREATION_MITIGATION_POLICY_EXTENSION_POINT_DISABLE_ALWAYS_ON |
			 PROCESS_CREATION_MITIGATION_POLICY_PROHIBIT_DYNAMIC_CODE_ALWAYS_ON |
			 PROCESS_CREATION_MITIGATION_POLICY_BLOCK_NON_MICROSOFT_BINARIES_ALWAYS_ON |
			 PROCESS_CREATION_MITIGATION_POLICY_FONT_DISABLE_ALWAYS_ON |
			 PROCESS_CREATION_MITIGATION_POLICY_IMAGE_LOAD_NO_REMOTE_ALWAYS_ON |
			 PROCESS_CREATION_MITIGATION_POLICY_IMAGE_LOAD_NO_LOW_LABEL_ALWAYS_ON |
			 PROCESS_CREATION_MITIGATION_POLICY_IMAGE_LOAD_PREFER_SYSTEM32_ALWAYS_ON;
	if (helper)
		m->mitigations |=
			PROCESS_CREATION_MITIGATION_POLICY_WIN32K_SYSTEM_CALL_DISABLE_ALWAYS_ON;
	if (!rc)
		rc = add_attribute(m, PROC_THREAD_ATTRIBUTE_JOB_LIST, &m->out->job,
				   sizeof(m->out->job), "job", e);
	if (!rc)
		rc = add_attribute(m, PROC_THREAD_ATTRIBUTE_MITIGATION_POLICY, &m->mitigations,
				   sizeof(m->mitigations), "mitigations", e);
	if (!rc)
		rc = add_attribute(m, PROC_THREAD_ATTRIBUTE_CHILD_PROCESS_POLICY, &m->children,
				   sizeof(m->children), "no children", e);
	if (rc)
		return rc;
	return helper ? contain_helper(m, e) : restrict_vmm(m, e);
}

static int make_attributes(struct making *m, struct err *e)
{
	SIZE_T size = 0;

	InitializeProcThreadAttributeList(NULL, MAX_ATTRIBUTES, 0, &size);
	m->list = malloc(size);
	if (!m->list)
		return err_set(e, -ENOMEM, "out of memory");
	if (!InitializeProcThreadAttributeList(m->list, MAX_ATTRIBUTES, 0, &size)) {
		free(m->list);
		m->list = NULL;
		return err_set(e, -EIO, "attributes: error %lu", GetLastError());
	}
	if (!ConvertStringSecurityDescriptorToSecurityDescriptorW(
		    L"D:P(A;;GA;;;SY)(A;;GA;;;OW)", SDDL_REVISION_1, &m->owner_only, NULL))
		return err_set(e, -EIO, "security descriptor: error %lu", GetLastError());
	return fill_attributes(m, e);
}

/* All of the environment: some of the system's DLLs look for the system there. The block ends with
 * an empty string. */
static void make_environment(wchar_t *out, size_t size)
{
	static const wchar_t name[] = L"SystemRoot=";
	size_t n = ARRAY_LEN(name) - 1;

	memset(out, 0, size * sizeof(*out));
	memcpy(out, name, sizeof(name));
	if (GetWindowsDirectoryW(out + n, (UINT)(size - n - 2)) >= size - n - 2)
		panic("the path of the system");
}

static int start_process(struct making *m, struct err *e)
{
	const struct contain_plan *p = m->plan;
	const DWORD flags = CREATE_SUSPENDED | EXTENDED_STARTUPINFO_PRESENT | DETACHED_PROCESS |
			    CREATE_UNICODE_ENVIRONMENT;
	SECURITY_ATTRIBUTES sa = {sizeof(sa), m->owner_only, FALSE};
	STARTUPINFOEXW si = {.StartupInfo = {.cb = sizeof(si),
					     .dwFlags = STARTF_USESTDHANDLES,
					     .hStdInput = p->channel,
					     .hStdOutput = p->log,
					     .hStdError = p->log},
			     .lpAttributeList = m->list};
	PROCESS_INFORMATION pi;
	wchar_t environment[MAX_PATH + 16];
	BOOL ok;
	int rc;

	make_environment(environment, ARRAY_LEN(environment));
	if (m->token)
		ok = CreateProcessAsUserW(m->token, p->path, NULL, &sa, &sa, TRUE, flags,
					  environment, NULL, &si.StartupInfo, &pi);
	else
		ok = CreateProcessW(p->path, NULL, &sa, &sa, TRUE, flags, environment, NULL,
				    &si.StartupInfo, &pi);
	if (!ok)
		return err_set(e, win_errno(GetLastError()), "%s: start: error %lu", p->program,
			       GetLastError());
	m->out->process = pi.hProcess;
	m->out->pid = pi.dwProcessId;
	rc = contain_check(pi.hProcess, m->out->job, p->kind, false, e);
	if (!rc && ResumeThread(pi.hThread) == (DWORD)-1)
		rc = err_set(e, -EIO, "%s: resume: error %lu", p->program, GetLastError());
	CloseHandle(pi.hThread);
	return rc;
}

int contain_spawn(const struct contain_plan *p, struct contained *out, struct err *e)
{
	struct making m = {.plan = p, .out = out};
	int rc;

	*out = (struct contained){0};
	rc = make_job(&m, e);
	if (!rc)
		rc = make_attributes(&m, e);
	if (!rc)
		rc = start_process(&m, e);
	if (m.list) {
		DeleteProcThreadAttributeList(m.list);
		free(m.list);
	}
	if (m.owner_only)
		LocalFree(m.owner_only);
	if (m.container.AppContainerSid)
		FreeSid(m.container.AppContainerSid);
	if (m.token)
		CloseHandle(m.token);
	if (!rc)
		return 0;
	if (out->process) {
		TerminateProcess(out->process, 1);
		CloseHandle(out->process);
	}
	if (out->job)
		CloseHandle(out->job);
	*out = (struct contained){0};
	return rc;
}
