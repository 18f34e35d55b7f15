/* SPDX-License-Identifier: BSD-2-Clause */
/* The process of a supervisor: a handle. See daemon.h. */
#include "os/win/win.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <insula/base.h>

#include "machine.h"
#include "process.h"

#define RIGHTS (SYNCHRONIZE | PROCESS_QUERY_LIMITED_INFORMATION)
#define KILL_WAIT_MS 5000

/* With the right to end it, if we have that: one that an elevated insulad has started may give less
 * to one that is not. */
static HANDLE open_process(int pid)
{
	HANDLE h = OpenProcess(RIGHTS | PROCESS_TERMINATE, FALSE, (DWORD)pid);

	return h || GetLastError() != ERROR_ACCESS_DENIED ? h
							  : OpenProcess(RIGHTS, FALSE, (DWORD)pid);
}

static uint64_t start_time(HANDLE h)
{
	FILETIME made, ended, kernel, user;

	if (!GetProcessTimes(h, &made, &ended, &kernel, &user))
		return 0;
	return (uint64_t)made.dwHighDateTime << 32 | made.dwLowDateTime;
}

uint64_t process_start_time(int pid)
{
	HANDLE h = open_process(pid);
	uint64_t t = h ? start_time(h) : 0;

	if (h)
		CloseHandle(h);
	return t;
}

int process_open(const struct record *r)
{
	HANDLE h = open_process(r->pid);

	if (!h)
		return GetLastError() == ERROR_ACCESS_DENIED ? -EACCES : -ESRCH;
	/* A process that has ended is there as long as somebody holds it open. */
	if (start_time(h) == r->start_time && WaitForSingleObject(h, 0) == WAIT_TIMEOUT)
		return handle_fd(h);
	CloseHandle(h);
	return -ESRCH;
}

int process_shoot(int process)
{
	return TerminateProcess(fd_handle(process), 1) ? 0 : win_errno(GetLastError());
}

void process_undo(const struct machine *m)
{
	if (m->process < 0)
		return;
	(void)process_shoot(m->process);
	WaitForSingleObject(fd_handle(m->process), KILL_WAIT_MS);
}

int64_t process_reap(const struct machine *m)
{
	DWORD code;

	return m->process >= 0 && GetExitCodeProcess(fd_handle(m->process), &code) ? (int64_t)code
										   : -1;
}

/* Whoever ends a process says what its status is; insula-run's own end at 255. */
void process_loss(int64_t how, char *reason, char *text, size_t size)
{
	strcpy(reason, "supervisor-killed");
	if (how > 1 && how < 256) {
		strcpy(reason, "start-failed");
		snprintf(text, size, "the supervisor exited with status %d; see its log", (int)how);
	} else if (how >= 0) {
		snprintf(text, size, "the supervisor was killed, or crashed: code 0x%x",
			 (unsigned)how);
	} else {
		snprintf(text, size, "the supervisor was killed");
	}
}

/* A process is told from every other one, also of an earlier run of the system, by the time at
 * which it started. */
int process_boot_id(char *out, size_t size, struct err *e)
{
	(void)size;
	(void)e;
	out[0] = 0;
	return 0;
}
