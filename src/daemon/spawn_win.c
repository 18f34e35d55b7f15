/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Starting a supervisor on Windows: insula-run.exe with what it needs as inherited handles, among
 * them its end of the control pipe, which is made here: the first and only instance of its name.
 *
 * It waits for one byte, as on Linux: so there is no supervisor without a record. It is detached
 * from the daemon's console; from a job that the daemon is in only if that lets it.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>
#include <insula/log.h>

#include "spec/handover.h"
#include "conf.h"
#include "daemon.h"
#include "machine.h"
#include "process.h"
#include "spawn.h"
#include "spec/json.h"
#include "win.h"

#define PACKET 65536

enum { FD_NULL, FD_LOG, FD_LOG2, FD_LISTEN, FD_SETUP, FD_RESULT, FD_GO, NFDS };

struct plan {
	int fd[NFDS]; /* owned; -1: none */
	const struct record *r;
	const struct console_of *console;
	uint64_t log_max;
	const char *program;
};

static void pipe_name(const char *id, wchar_t name[64])
{
	swprintf(name, 64, L"\\\\.\\pipe\\insula-vm-%hs", id);
}

/* One connection at a time; when that ends, the supervisor waits for the next. */
static int make_control(const struct record *r, struct err *e)
{
	SECURITY_ATTRIBUTES sa = {sizeof(sa), own_descriptor(false, "", e), FALSE};
	wchar_t name[64];
	HANDLE h;

	if (!sa.lpSecurityDescriptor)
		return e->code;
	pipe_name(r->id, name);
	h = CreateNamedPipeW(
		name, PIPE_ACCESS_DUPLEX | FILE_FLAG_OVERLAPPED | FILE_FLAG_FIRST_PIPE_INSTANCE,
		PIPE_TYPE_MESSAGE | PIPE_READMODE_MESSAGE | PIPE_REJECT_REMOTE_CLIENTS, 1, PACKET,
		PACKET, 0, &sa);
	LocalFree(sa.lpSecurityDescriptor);
	return h == INVALID_HANDLE_VALUE
		       ? err_set(e, -EIO, "control pipe of %s: error %lu", r->id, GetLastError())
		       : handle_fd(h);
}

static int write_setup(int fd, const struct record *r, uint64_t log_max, const struct console_of *c)
{
	json_object *o = json_object_new_object();
	int rc;

	j_str(o, "id", r->id);
	j_str(o, "name", r->name);
	j_str(o, "token", r->token);
	j_obj(o, "config", json_tokener_parse(r->config));
	j_int(o, "log_max", (int64_t)log_max);
	if (c->name) {
		json_object *console = json_object_new_object();

		j_str(console, "pipe", c->name);
		j_str(console, "owner", c->owner);
		j_obj(o, "console", console);
	}
	rc = write_full(fd, j_text(o), strlen(j_text(o)));
	json_object_put(o);
	return rc;
}

static int open_files(struct plan *p, int dir, struct err *e)
{
	const char *id = p->r->id;
	int rc = 0;

	p->fd[FD_NULL] = win_open("NUL", GENERIC_READ, FILE_SHARE_READ, OPEN_EXISTING, 0);
	p->fd[FD_LOG2] = state_file(dir, id, "log2", GENERIC_READ | GENERIC_WRITE,
				    FILE_SHARE_READ | FILE_SHARE_DELETE, OPEN_ALWAYS);
	p->fd[FD_LOG] = state_file(dir, id, "log", GENERIC_READ | GENERIC_WRITE,
				   FILE_SHARE_READ | FILE_SHARE_DELETE, OPEN_ALWAYS);
	p->fd[FD_RESULT] = state_file(dir, id, "result", GENERIC_WRITE,
				      FILE_SHARE_READ | FILE_SHARE_DELETE, CREATE_ALWAYS);
	p->fd[FD_SETUP] =
		state_file(dir, id, "setup", GENERIC_READ | GENERIC_WRITE, 0, CREATE_ALWAYS);
	for (int i = 0; i < NFDS && !rc; i++) {
		if (p->fd[i] < 0 && i != FD_LISTEN && i != FD_GO)
			rc = p->fd[i];
	}
	if (!rc)
		rc = write_full(p->fd[FD_RESULT], CONTROL_NOT_BEGUN, strlen(CONTROL_NOT_BEGUN));
	if (!rc)
		rc = write_setup(p->fd[FD_SETUP], p->r, p->log_max, p->console);
	if (rc)
		return err_sys(e, rc, "files of %s", id);
	SetFilePointer(fd_handle(p->fd[FD_LOG]), 0, NULL, FILE_END);
	p->fd[FD_LISTEN] = make_control(p->r, e);
	return p->fd[FD_LISTEN] < 0 ? p->fd[FD_LISTEN] : 0;
}

/* A supervisor outlives the daemon, so it should not be in the daemon's job; but it is not ours to
 * break out of one that forbids it. */
static DWORD breakaway(void)
{
	JOBOBJECT_EXTENDED_LIMIT_INFORMATION l;
	BOOL in_job = FALSE;

	if (!IsProcessInJob(GetCurrentProcess(), NULL, &in_job) || !in_job ||
	    !QueryInformationJobObject(NULL, JobObjectExtendedLimitInformation, &l, sizeof(l),
				       NULL))
		return 0;
	return l.BasicLimitInformation.LimitFlags & JOB_OBJECT_LIMIT_BREAKAWAY_OK
		       ? CREATE_BREAKAWAY_FROM_JOB
		       : 0;
}

static int create(struct machine *m, struct plan *p, STARTUPINFOEXW *si, struct err *e)
{
	wchar_t program[CONF_PATH_MAX], line[CONF_PATH_MAX + 96], home[MAX_PATH];
	PROCESS_INFORMATION made;

	if (!MultiByteToWideChar(CP_UTF8, 0, p->program, -1, program, CONF_PATH_MAX) ||
	    !GetSystemDirectoryW(home, MAX_PATH))
		return err_set(e, -EINVAL, "%s", p->program);
	swprintf(line, ARRAY_LEN(line), L"\"%ls\" --control %d,%d,%d,%d,%d", program,
		 p->fd[FD_LISTEN], p->fd[FD_SETUP], p->fd[FD_RESULT], p->fd[FD_GO], p->fd[FD_LOG2]);
	if (!CreateProcessW(program, line, NULL, NULL, TRUE,
			    DETACHED_PROCESS | CREATE_NEW_PROCESS_GROUP |
				    EXTENDED_STARTUPINFO_PRESENT | breakaway(),
			    NULL, home, &si->StartupInfo, &made))
		return err_set(e, win_errno(GetLastError()), "%s: error %lu", p->program,
			       GetLastError());
	CloseHandle(made.hThread);
	m->process = handle_fd(made.hProcess);
	m->r.pid = (int)made.dwProcessId;
	m->r.start_time = process_start_time(m->r.pid);
	return 0;
}

static int spawn_start(struct machine *m, struct plan *p, struct err *e)
{
	STARTUPINFOEXW si = {.StartupInfo = {.cb = sizeof(si), .dwFlags = STARTF_USESTDHANDLES}};
	HANDLE list[NFDS];
	SIZE_T size = 0;
	int rc;

	for (int i = 0; i < NFDS; i++) {
		list[i] = fd_handle(p->fd[i]);
		SetHandleInformation(list[i], HANDLE_FLAG_INHERIT, HANDLE_FLAG_INHERIT);
	}
	si.StartupInfo.hStdInput = list[FD_NULL];
	si.StartupInfo.hStdOutput = si.StartupInfo.hStdError = list[FD_LOG];
	InitializeProcThreadAttributeList(NULL, 1, 0, &size);
	si.lpAttributeList = malloc(size);
	if (!si.lpAttributeList ||
	    !InitializeProcThreadAttributeList(si.lpAttributeList, 1, 0, &size)) {
		free(si.lpAttributeList);
		return err_set(e, -ENOMEM, "attributes of a process");
	}
	rc = UpdateProcThreadAttribute(si.lpAttributeList, 0, PROC_THREAD_ATTRIBUTE_HANDLE_LIST,
				       list, sizeof(list), NULL, NULL)
		     ? create(m, p, &si, e)
		     : err_set(e, -EIO, "handle list: error %lu", GetLastError());
	DeleteProcThreadAttributeList(si.lpAttributeList);
	free(si.lpAttributeList);
	return rc;
}

/* A process is made with the handles that it is given, and no others. */
int spawn_prepare(struct err *e)
{
	(void)e;
	return 0;
}

int spawn_supervisor(struct machine *m, int *go, struct err *e)
{
	struct plan p = {.r = &m->r,
			 .console = &m->console,
			 .program = m->d->conf.supervisor,
			 .log_max = m->d->conf.log_max};
	HANDLE r, w;
	int rc;

	*go = -1;
	for (int i = 0; i < NFDS; i++)
		p.fd[i] = -1;
	rc = open_files(&p, m->d->state, e);
	if (!rc && !CreatePipe(&r, &w, NULL, 0))
		rc = err_set(e, -EIO, "pipe: error %lu", GetLastError());
	if (!rc) {
		p.fd[FD_GO] = handle_fd(r);
		*go = handle_fd(w);
		rc = spawn_start(m, &p, e);
	}
	for (int i = 0; i < NFDS; i++)
		fd_close(&p.fd[i]);
	return rc;
}

/* It learns nothing of us by our connecting: not to be impersonated, should it be somebody else. */
int supervisor_connect(struct machine *m, struct err *e)
{
	DWORD mode = PIPE_READMODE_MESSAGE;
	wchar_t name[64];
	HANDLE h;

	pipe_name(m->r.id, name);
	h = CreateFileW(name, GENERIC_READ | GENERIC_WRITE, 0, NULL, OPEN_EXISTING,
			FILE_FLAG_OVERLAPPED | SECURITY_SQOS_PRESENT | SECURITY_IDENTIFICATION,
			NULL);
	if (h == INVALID_HANDLE_VALUE)
		return err_set(e, win_errno(GetLastError()), "control pipe of %s: error %lu",
			       m->r.id, GetLastError());
	if (SetNamedPipeHandleState(h, &mode, NULL, NULL))
		return handle_fd(h);
	CloseHandle(h);
	return err_set(e, -EIO, "control pipe of %s: error %lu", m->r.id, GetLastError());
}
