/* SPDX-License-Identifier: BSD-2-Clause */
/* Children on Windows. See child_win.h. */
#include "child_win.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <insula/base.h>
#include <insula/log.h>

#define CHILD_LINES 10 /* log lines a second that one child may print */
#define KILL_WAIT_MS 5000
#define SECOND_NS 1000000000ull

void child_init(struct child *c, const char *program, const char *device, enum contain_kind kind)
{
	memset(c, 0, sizeof(*c));
	c->program = program;
	c->kind = kind;
	snprintf(c->name, sizeof(c->name), "%s%s%s", program, *device ? " " : "", device);
}

static void close_handle(HANDLE *h)
{
	if (*h && *h != INVALID_HANDLE_VALUE)
		CloseHandle(*h);
	*h = NULL;
}

/* ---- log ---- */

/* A contained process may be an enemy: no control characters on our terminal, no flood. */
static void print_line(struct child *c)
{
	uint64_t now = clock_ns();

	for (size_t i = 0; i < c->nline; i++) {
		unsigned char ch = (unsigned char)c->line[i];

		if ((ch < 0x20 && ch != '\t') || ch >= 0x7f)
			c->line[i] = '?';
	}
	if (now - c->window_ns > SECOND_NS) {
		if (c->dropped)
			log_warn("%s: %u log lines dropped", c->name, c->dropped);
		c->window_ns = now;
		c->lines = c->dropped = 0;
	}
	if (++c->lines > CHILD_LINES)
		c->dropped++;
	else
		log_line("%s: %.*s", c->name, (int)c->nline, c->line);
	c->nline = 0;
}

static VOID CALLBACK on_log(DWORD error, DWORD n, OVERLAPPED *ov)
{
	struct child *c = ov->hEvent; /* which ReadFileEx() leaves to us */

	c->log_busy = false;
	c->log_error = error;
	c->log_n = n;
}

static void read_log(struct child *c)
{
	c->log_ov = (OVERLAPPED){.hEvent = c};
	c->log_busy = true;
	c->log_n = 0;
	if (!ReadFileEx(c->log, c->log_buf, sizeof(c->log_buf), &c->log_ov, on_log))
		on_log(GetLastError(), 0, &c->log_ov);
}

void child_log(struct child *c)
{
	if (!c->log || c->log_busy)
		return;
	for (DWORD i = 0; i < c->log_n; i++) {
		if (c->log_buf[i] == '\n' || c->nline == sizeof(c->line))
			print_line(c);
		if (c->log_buf[i] != '\n')
			c->line[c->nline++] = c->log_buf[i];
	}
	if (c->log_error)
		close_handle(&c->log);
	else
		read_log(c);
}

HANDLE child_event(struct child *c)
{
	return c->gone ? c->box.process : c->box.process ? channel_event(&c->channel) : NULL;
}

/* What is there, and no more; a read that is under way is the system's until it has ended. */
static void finish_log(struct child *c)
{
	do {
		child_log(c);
		SleepEx(0, TRUE);
	} while (c->log && !c->log_busy);
	if (c->log_busy)
		CancelIoEx(c->log, &c->log_ov);
	while (c->log_busy)
		SleepEx(KILL_WAIT_MS, TRUE);
}

/* ---- process ---- */

/* Next to insula-run.exe. */
static int find_program(const char *program, wchar_t *path, size_t size, struct err *e)
{
	DWORD n = GetModuleFileNameW(NULL, path, (DWORD)size);
	wchar_t *name = n && n < size ? wcsrchr(path, L'\\') : NULL;

	if (!name || (size_t)(name - path) + strlen(program) + sizeof("\\.exe") > size)
		return err_set(e, -ENAMETOOLONG, "the path of insula-run.exe");
	swprintf(name, size - (size_t)(name - path), L"\\%hs.exe", program);
	return 0;
}

int child_spawn(struct child *c, const int *fds, unsigned nfds, struct err *e)
{
	wchar_t path[1024];
	HANDLE channel = NULL, log = NULL;
	struct contain_plan p = {
		.kind = c->kind, .program = c->program, .path = path, .fds = fds, .nfds = nfds};
	int rc = find_program(c->program, path, ARRAY_LEN(path), e);

	if (!rc)
		rc = pipe_pair(true, &c->pipe, &channel, e);
	if (!rc)
		rc = pipe_pair(false, &c->log, &log, e);
	if (!rc && channel_init(&c->channel, c->pipe))
		rc = err_set(e, -ENOMEM, "event: error %lu", GetLastError());
	p.channel = channel;
	p.log = log;
	if (!rc)
		rc = contain_spawn(&p, &c->box, e);
	close_handle(&channel);
	close_handle(&log);
	c->state = rc ? CHILD_NONE : CHILD_STARTING;
	c->nline = 0;
	c->gone = c->log_busy = false;
	c->log_error = c->log_n = 0;
	if (rc)
		child_reap(c);
	return rc;
}

int child_send(struct child *c, enum msg_type type, const void *body, size_t len, const int *fds,
	       unsigned nfds)
{
	return c->pipe ? msg_send(handle_fd(c->pipe), type, body, len, fds, nfds) : -EPIPE;
}

int child_give(struct child *c, HANDLE h, DWORD access)
{
	HANDLE theirs = NULL;
	BOOL ok =
		DuplicateHandle(GetCurrentProcess(), h, c->box.process, &theirs, access, FALSE, 0);
	int rc = ok ? handle_fd(theirs) : win_errno(GetLastError());

	CloseHandle(h);
	return rc;
}

DWORD child_reap(struct child *c)
{
	DWORD code = 1;

	if (c->box.process)
		GetExitCodeProcess(c->box.process, &code);
	finish_log(c);
	if (c->nline)
		print_line(c);
	channel_free(&c->channel);
	close_handle(&c->pipe);
	close_handle(&c->log);
	close_handle(&c->box.process);
	close_handle(&c->box.job);
	c->state = CHILD_NONE;
	c->gone = false;
	return code;
}

void child_shoot(const struct child *c)
{
	if (c->box.process)
		TerminateProcess(c->box.process, 1);
}

void child_kill(struct child *c)
{
	if (!c->box.process)
		return;
	TerminateJobObject(c->box.job, 1);
	TerminateProcess(c->box.process, 1);
	if (WaitForSingleObject(c->box.process, KILL_WAIT_MS) != WAIT_OBJECT_0)
		log_warn("%s: does not end, it is left behind", c->name);
	child_reap(c);
}

void child_free(struct child *c)
{
	child_kill(c);
}
