/* SPDX-License-Identifier: BSD-2-Clause */
/* Children on Windows. See child.h and child_win.h. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <insula/base.h>

#include "supervisor/child.h"

#define KILL_WAIT_MS 5000
#define LOG_WAIT_MS 100

void child_none(struct child *c)
{
	*c = (struct child){.program = NULL};
}

void child_init_contained(struct child *c, const char *program, const char *device,
			  enum contain_kind kind)
{
	child_name(c, program, device);
	c->os.kind = kind;
}

static void child_close_handle(HANDLE *h)
{
	if (*h && *h != INVALID_HANDLE_VALUE)
		CloseHandle(*h);
	*h = NULL;
}

static bool is_set(HANDLE h)
{
	return h && WaitForSingleObject(h, 0) == WAIT_OBJECT_0;
}

/* ---- log ---- */

static VOID CALLBACK on_log_read(DWORD error, DWORD n, OVERLAPPED *ov)
{
	struct child *c = ov->hEvent; /* which ReadFileEx() leaves to us */

	c->os.log_busy = false;
	c->os.log_error = error;
	c->os.log_n = n;
	timer_set(&c->os.log_due, LOOP_NOW);
}

/* Pass on what it has written, and read on. */
static void child_read_log(struct child *c)
{
	struct child_os *o = &c->os;

	if (!o->log || o->log_busy)
		return;
	child_log_add(c, o->log_buf, o->log_n);
	o->log_n = 0;
	if (o->log_error) {
		child_close_handle(&o->log);
		return;
	}
	o->log_ov = (OVERLAPPED){.hEvent = c};
	o->log_busy = true;
	if (!ReadFileEx(o->log, o->log_buf, sizeof(o->log_buf), &o->log_ov, on_log_read))
		on_log_read(GetLastError(), 0, &o->log_ov);
}

static void on_log(void *ctx)
{
	child_read_log(ctx);
}

/* What is there, and no more. One that does not die may write for ever, and a read that is under
 * way is the system's until it has ended: neither is waited for longer than for a death. */
static void child_end_log(struct child *c)
{
	uint64_t limit = clock_ns() + KILL_WAIT_MS * 1000000ull;

	do {
		child_read_log(c);
		SleepEx(0, TRUE);
	} while (c->os.log && !c->os.log_busy && clock_ns() < limit);
	if (c->os.log_busy)
		CancelIoEx(c->os.log, &c->os.log_ov);
	while (c->os.log_busy && clock_ns() < limit)
		SleepEx(LOG_WAIT_MS, TRUE);
	child_log_finish(c);
}

/* ---- what the loop finds ---- */

static void on_channel(void *ctx, unsigned events)
{
	(void)events;
	child_hear(ctx);
}

static void on_end(void *ctx, unsigned events)
{
	(void)events;
	child_died(ctx);
}

static void child_watch(struct child *c)
{
	struct child_os *o = &c->os;

	if (!c->loop)
		return;
	timer_init(c->loop, &o->log_due, on_log, c);
	timer_set(&o->log_due, LOOP_NOW); /* the first read */
	watch_on(c->loop, &o->watch, handle_fd(channel_event(&o->channel)), WATCH_IN, on_channel,
		 c);
}

/* ---- begin ---- */

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
	struct child_os *o = &c->os;
	wchar_t path[1024];
	HANDLE channel = NULL, log = NULL;
	struct contain_plan p = {
		.kind = o->kind, .program = c->program, .path = path, .fds = fds, .nfds = nfds};
	int rc = find_program(c->program, path, ARRAY_LEN(path), e);

	if (o->log_busy)
		return err_set(e, -EBUSY, "%s: the log of the last one is still being read",
			       c->name);
	c->deaf = false;
	c->log.nline = 0;
	o->log_error = o->log_n = 0;
	if (!rc)
		rc = pipe_pair(true, &o->pipe, &channel, e);
	if (!rc)
		rc = pipe_pair(false, &o->log, &log, e);
	if (!rc && channel_init(&o->channel, o->pipe))
		rc = err_set(e, -ENOMEM, "event: error %lu", GetLastError());
	p.channel = channel;
	p.log = log;
	if (!rc)
		rc = contain_spawn(&p, &o->box, e);
	child_close_handle(&channel);
	child_close_handle(&log);
	if (rc) {
		child_os_close(c);
		return rc;
	}
	c->state = CHILD_STARTING;
	child_watch(c);
	return 0;
}

/* ---- messages ---- */

int child_send(struct child *c, enum msg_type type, const void *body, size_t len, const int *fds,
	       unsigned nfds)
{
	return c->os.pipe ? msg_send(handle_fd(c->os.pipe), type, body, len, fds, nfds) : -EPIPE;
}

/* What it does not get to hear of is closed with it. */
int child_send_new(struct child *c, enum msg_type type, const int *fds, unsigned nfds)
{
	int theirs[MSG_MAX_FDS], rc = c->os.box.process ? 0 : -EPIPE;
	unsigned n = 0;
	HANDLE h;

	for (; n < nfds && !rc; n++) {
		if (DuplicateHandle(GetCurrentProcess(), fd_handle(fds[n]), c->os.box.process, &h,
				    0, FALSE, DUPLICATE_SAME_ACCESS))
			theirs[n] = handle_fd(h);
		else
			rc = win_errno(GetLastError());
	}
	if (!rc)
		return child_send(c, type, NULL, 0, theirs, nfds);
	while (n-- > 1) /* all but the one that failed are closed in it again */
		DuplicateHandle(c->os.box.process, fd_handle(theirs[n - 1]), NULL, NULL, 0, FALSE,
				DUPLICATE_CLOSE_SOURCE);
	return rc;
}

int child_give(struct child *c, HANDLE h, DWORD access)
{
	HANDLE theirs = NULL;
	BOOL ok = DuplicateHandle(GetCurrentProcess(), h, c->os.box.process, &theirs, access, FALSE,
				  0);
	int rc = ok ? handle_fd(theirs) : win_errno(GetLastError());

	CloseHandle(h);
	return rc;
}

/* The next one is read for from now on, or its event would stay set. */
int child_os_receive(struct child *c, enum msg_type *type, void *body, size_t size, size_t *len)
{
	int rc;

	if (!is_set(channel_event(&c->os.channel)))
		return -EAGAIN;
	rc = channel_recv(&c->os.channel, type, body, size, len);
	if (!rc)
		(void)channel_event(&c->os.channel);
	return rc;
}

int child_os_came(struct child *c)
{
	(void)c;
	return -1;
}

int child_os_verify(const struct child *c, struct err *e)
{
	int rc = contain_check(c->os.box.process, c->os.box.job, c->os.kind, true, e);

	return rc && is_set(c->os.box.process) ? -ESRCH : rc;
}

void child_os_deaf(struct child *c)
{
	if (!c->os.watch.loop)
		return;
	watch_off(&c->os.watch);
	watch_on(c->loop, &c->os.watch, handle_fd(c->os.box.process), WATCH_IN, on_end, c);
}

/* ---- end ---- */

void child_os_close(struct child *c)
{
	struct child_os *o = &c->os;

	watch_off(&o->watch);
	child_end_log(c);
	timer_set(&o->log_due, 0);
	channel_free(&o->channel);
	child_close_handle(&o->pipe);
	child_close_handle(&o->log);
	child_close_handle(&o->box.process);
	child_close_handle(&o->box.job);
	c->state = CHILD_NONE;
}

void child_os_reap(struct child *c, struct child_end *end)
{
	DWORD code = 1;

	GetExitCodeProcess(c->os.box.process, &code);
	child_os_close(c);
	end->status = (int)code;
	snprintf(end->how, sizeof(end->how), "exited with status %lu", code);
}

bool child_os_wait(struct child *c)
{
	TerminateJobObject(c->os.box.job, 1);
	return WaitForSingleObject(c->os.box.process, KILL_WAIT_MS) == WAIT_OBJECT_0;
}

bool child_ended(const struct child *c)
{
	return !c->os.box.process || is_set(c->os.box.process);
}

void child_shoot(const struct child *c)
{
	if (c->os.box.process)
		TerminateProcess(c->os.box.process, 1);
}

void child_os_free(struct child *c)
{
	(void)c; /* its binary is opened for each process */
}
