/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A console on the standard streams: a pipe, insulad's with vm.console, ours with vm.run. A thread
 * reads what is typed, because a read of a console window cannot be waited for. See ctl.h.
 */
#include "os/win/win.h"

#include <aclapi.h>
#include <errno.h>
#include <sddl.h>
#include <stdio.h>
#include <string.h>

#include <insula/base.h>

#include "ctl.h"
#include "stream_win.h"
#include "spec/json.h"

#define ESCAPE 0x1d /* Ctrl-] */
#define LOOK_MS 50  /* between two looks at the connection */
#define CLIENT_RIGHTS "0x12019b"

/* Of the pipe that we offer: somebody has opened it. */
static OVERLAPPED offered;

/* ---- ours ---- */

/* insulad may run as another user: whose its pipe is. Not all systems tell; then ours alone. */
static void add_insulad(struct conn *c, char *ace, size_t size)
{
	PSECURITY_DESCRIPTOR sd;
	char *text;
	PSID sid;

	ace[0] = 0;
	if (GetSecurityInfo(fd_handle(c->fd), SE_KERNEL_OBJECT, OWNER_SECURITY_INFORMATION, &sid,
			    NULL, NULL, NULL, &sd))
		return;
	if (ConvertSidToStringSidA(sid, &text)) {
		snprintf(ace, size, "(A;;" CLIENT_RIGHTS ";;;%s)", text);
		LocalFree(text);
	}
	LocalFree(sd);
}

int stream_make(struct conn *c, DWORD access, json_object *names, OVERLAPPED *ov, struct err *e)
{
	char ace[WIN_SID_LEN + 32], name[PIPE_NAME_LEN];
	PSECURITY_DESCRIPTOR sd;
	int fd;

	add_insulad(c, ace, sizeof(ace));
	sd = own_descriptor(false, ace, e);
	if (!sd)
		return e->code;
	fd = pipe_offer(access, sd, name, e);
	LocalFree(sd);
	ov->hEvent = fd < 0 ? NULL : CreateEventW(NULL, TRUE, FALSE, NULL);
	if (fd >= 0 && !ov->hEvent) {
		fd_close(&fd);
		return err_set(e, -ENOMEM, "event: error %lu", GetLastError());
	}
	if (fd < 0)
		return fd;
	if (!ConnectNamedPipe(fd_handle(fd), ov) && GetLastError() != ERROR_IO_PENDING)
		SetEvent(ov->hEvent);
	json_object_array_add(names, json_object_new_string(name));
	return fd;
}

void stream_close(struct stream *s)
{
	fd_close(&s->fd);
}

int stream_offer(struct conn *c, json_object *params, struct stream *s, int peer[2], struct err *e)
{
	json_object *names = json_object_new_array();

	peer[0] = peer[1] = s->errors = -1;
	j_obj(params, "streams", names);
	s->fd = stream_make(c, PIPE_ACCESS_DUPLEX, names, &offered, e);
	return s->fd < 0 ? s->fd : 0;
}

/* A pipe that nobody opens has no end. */
static bool wait_for_peer(struct conn *c)
{
	DWORD n = 0;

	while (WaitForSingleObject(offered.hEvent, LOOK_MS) != WAIT_OBJECT_0) {
		if (conn_has_line(c) || !PeekNamedPipe(fd_handle(c->fd), NULL, 0, NULL, &n, NULL) ||
		    n)
			return WaitForSingleObject(offered.hEvent, 0) == WAIT_OBJECT_0;
	}
	return true;
}

/* ---- insulad's ---- */

int stream_attach(struct conn *c, json_object *params, struct err *e)
{
	json_object *r = conn_call(c, "vm.console", params, e);
	const char *name = j_get_str(r, "pipe", NULL);
	int fd;

	if (!r)
		return e->code;
	fd = name ? pipe_take(name, GENERIC_READ | FILE_WRITE_DATA | FILE_WRITE_ATTRIBUTES,
			      FILE_FLAG_OVERLAPPED, NULL, e)
		  : err_set(e, -EPROTO, "insulad has named no pipe");
	json_object_put(r);
	return fd;
}

/* ---- copying ---- */

int stream_transfer(int fd, bool write, void *buf, size_t len, HANDLE stop)
{
	OVERLAPPED ov = {.hEvent = CreateEventW(NULL, TRUE, FALSE, NULL)};
	HANDLE either[] = {ov.hEvent, stop};
	DWORD n = 0;
	BOOL ok;

	if (!ov.hEvent)
		return -ENOMEM;
	ok = write ? WriteFile(fd_handle(fd), buf, (DWORD)len, NULL, &ov)
		   : ReadFile(fd_handle(fd), buf, (DWORD)len, NULL, &ov);
	if (!ok && GetLastError() == ERROR_IO_PENDING) {
		if (WaitForMultipleObjects(stop ? 2 : 1, either, FALSE, INFINITE) != WAIT_OBJECT_0)
			CancelIoEx(fd_handle(fd), &ov);
		ok = TRUE;
	}
	ok = ok && GetOverlappedResult(fd_handle(fd), &ov, &n, TRUE);
	CloseHandle(ov.hEvent);
	return ok ? (int)n : -EPIPE;
}

struct typing {
	int fd;
	bool escape;  /* a person types */
	bool leave;   /* the end of the input is the escape */
	HANDLE typed; /* set: the escape was */
};

static DWORD WINAPI stream_copy_in(void *arg)
{
	const struct typing *t = arg;
	HANDLE in = GetStdHandle(STD_INPUT_HANDLE);
	char buf[512], *at = NULL;
	DWORD n;

	while (!at && ReadFile(in, buf, sizeof(buf), &n, NULL) && n) {
		at = t->escape ? memchr(buf, ESCAPE, n) : NULL;
		if (at)
			n = (DWORD)(at - buf);
		for (DWORD done = 0; done < n;) {
			int k = stream_transfer(t->fd, true, buf + done, n - done, NULL);

			if (k < 0)
				return 0;
			done += (DWORD)k;
		}
	}
	if (!at && t->leave) {
		FlushFileBuffers(fd_handle(t->fd)); /* until it is read */
		Sleep(STREAM_LEAVE_MS);
	}
	if (at || t->leave)
		SetEvent(t->typed);
	return 0;
}

static int stream_copy_out(const struct typing *t)
{
	HANDLE out = GetStdHandle(STD_OUTPUT_HANDLE);
	char buf[4096];
	int n;

	while ((n = stream_transfer(t->fd, false, buf, sizeof(buf), t->typed)) > 0) {
		if (write_full(handle_fd(out), buf, (size_t)n))
			return STREAM_LOST;
	}
	return WaitForSingleObject(t->typed, 0) == WAIT_OBJECT_0;
}

bool stream_raw(struct stream_window *w)
{
	HANDLE in = GetStdHandle(STD_INPUT_HANDLE), out = GetStdHandle(STD_OUTPUT_HANDLE);

	if (!GetConsoleMode(in, &w->in))
		return false;
	if (!GetConsoleMode(out, &w->out))
		w->out = 0;
	SetConsoleMode(in, ENABLE_VIRTUAL_TERMINAL_INPUT | ENABLE_EXTENDED_FLAGS);
	if (w->out)
		SetConsoleMode(out, w->out | ENABLE_PROCESSED_OUTPUT |
					    ENABLE_VIRTUAL_TERMINAL_PROCESSING |
					    DISABLE_NEWLINE_AUTO_RETURN);
	return true;
}

void stream_cooked(const struct stream_window *w)
{
	SetConsoleMode(GetStdHandle(STD_INPUT_HANDLE), w->in);
	if (w->out)
		SetConsoleMode(GetStdHandle(STD_OUTPUT_HANDLE), w->out);
}

int stream_console(struct conn *c, const struct stream *s, bool leave)
{
	static struct typing t; /* its thread waits for a key, and goes with the process */
	struct stream_window w;
	HANDLE thread;
	int rc;

	if (offered.hEvent && !wait_for_peer(c))
		return 0;
	t = (struct typing){.fd = s->fd, .typed = CreateEventW(NULL, TRUE, FALSE, NULL)};
	t.escape = stream_raw(&w);
	t.leave = leave && !t.escape;
	thread = t.typed ? CreateThread(NULL, 65536, stream_copy_in, &t, 0, NULL) : NULL;
	rc = stream_copy_out(&t);
	if (t.escape)
		stream_cooked(&w);
	/* A thread that said so is at its end: the process then ends with one thread. */
	if (thread && rc == 1)
		WaitForSingleObject(thread, STREAM_LEAVE_MS);
	if (thread)
		CloseHandle(thread);
	return rc;
}
