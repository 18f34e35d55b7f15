/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The streams, the console window and Ctrl-C of insulactl exec. No descriptor of ours can travel,
 * so each stream is a pipe that we make, whose other end insula-exec gets, and a thread copies
 * between it and our own. See exec.h.
 */
#include "os/win/win.h"

#include <errno.h>
#include <stdlib.h>

#include <insula/base.h>

#include "exec.h"
#include "stream_win.h"
#include "spec/json.h"

#define LOOK_MS 20      /* between two looks at the connection */
#define RESIZE_LOOKS 50 /* and so many between two at the window's size */
#define LAST_MS 5000    /* the end of the output, when the command has ended */

struct copy {
	int fd; /* our end of the pipe; owned by the thread once that runs */
	OVERLAPPED opened;
	HANDLE own, thread;
	bool in;
};

struct exec_os {
	struct copy copy[3];
	unsigned n;
	struct stream_window window;
	uint16_t rows, cols;
	unsigned looks;
};

/* Ctrl-C and the like: the handler runs on a thread of the system's and gets no argument. */
static HANDLE interrupted;

static BOOL WINAPI on_interrupt(DWORD which)
{
	(void)which;
	return SetEvent(interrupted);
}

void exec_os_raw(struct session *s)
{
	if (s->tty && s->input)
		s->raw = stream_raw(&s->os->window);
}

/* ---- streams ---- */

static void exec_copy_out(struct copy *c)
{
	char buf[16384];
	int n;

	while ((n = stream_transfer(c->fd, false, buf, sizeof(buf), NULL)) > 0) {
		if (write_full(handle_fd(c->own), buf, (size_t)n))
			return;
	}
}

static void exec_copy_in(struct copy *c)
{
	char buf[4096];
	DWORD n;

	while (ReadFile(c->own, buf, sizeof(buf), &n, NULL) && n) {
		for (DWORD at = 0; at < n;) {
			int k = stream_transfer(c->fd, true, buf + at, n - at, NULL);

			if (k < 0)
				return;
			at += (DWORD)k;
		}
	}
}

/* The pipe's end tells the other side. */
static DWORD WINAPI copy_main(void *arg)
{
	struct copy *c = arg;

	WaitForSingleObject(c->opened.hEvent, INFINITE);
	if (c->in)
		exec_copy_in(c);
	else
		exec_copy_out(c);
	fd_close(&c->fd);
	return 0;
}

static int add_stream(struct session *s, json_object *names, DWORD which, struct err *e)
{
	struct copy *c = &s->os->copy[s->os->n];

	c->in = which == STD_INPUT_HANDLE;
	c->own = GetStdHandle(which);
	c->fd = stream_make(&s->ctl->conn, c->in ? PIPE_ACCESS_OUTBOUND : PIPE_ACCESS_INBOUND,
			    names, &c->opened, e);
	if (c->fd < 0)
		return c->fd;
	c->thread = CreateThread(NULL, 65536, copy_main, c, 0, NULL);
	if (!c->thread)
		return err_set(e, -ENOMEM, "thread: error %lu", GetLastError());
	s->os->n++;
	return 0;
}

int exec_os_open(struct session *s, int fd[3], struct err *e)
{
	json_object *names = json_object_new_array();
	int rc = 0;

	(void)fd;
	j_obj(s->params, "streams", names);
	s->os = calloc(1, sizeof(*s->os));
	interrupted = CreateEventW(NULL, FALSE, FALSE, NULL);
	if (!s->os || !interrupted)
		return err_set(e, -ENOMEM, "out of memory");
	SetConsoleCtrlHandler(on_interrupt, TRUE);
	(void)window_size(&s->os->rows, &s->os->cols);
	if (s->input)
		rc = add_stream(s, names, STD_INPUT_HANDLE, e);
	if (!rc)
		rc = add_stream(s, names, STD_OUTPUT_HANDLE, e);
	return rc ? rc : add_stream(s, names, STD_ERROR_HANDLE, e);
}

/* ---- waiting ---- */

/* A console window does not say that its size has changed. */
static void look_at_window(struct session *s)
{
	uint16_t rows, cols;

	if (!s->tty || ++s->os->looks % RESIZE_LOOKS || !window_size(&rows, &cols) ||
	    (rows == s->os->rows && cols == s->os->cols))
		return;
	s->os->rows = rows;
	s->os->cols = cols;
	session_signal(s, GUEST_SIGWINCH);
}

/* Also if it has ended. */
static bool has_answer(const struct session *s)
{
	DWORD n = 0;

	return conn_has_line(&s->ctl->conn) ||
	       !PeekNamedPipe(fd_handle(s->ctl->conn.fd), NULL, 0, NULL, &n, NULL) || n;
}

int exec_os_serve(struct session *s, struct err *e)
{
	int rc = 0;

	while (!rc && s->status < 0) {
		if (WaitForSingleObject(interrupted, has_answer(s) ? 0 : LOOK_MS) == WAIT_OBJECT_0)
			session_signal(s, GUEST_SIGINT);
		look_at_window(s);
		if (s->status < 0 && has_answer(s))
			rc = session_receive(s, e);
	}
	return rc;
}

void exec_os_sleep(unsigned ms)
{
	Sleep(ms);
}

/* A thread that waits for input goes with the process, and the memory that it uses. */
void exec_os_end(struct session *s)
{
	struct exec_os *os = s->os;

	for (unsigned i = 0; os && s->status >= 0 && i < os->n; i++) {
		if (!os->copy[i].in)
			WaitForSingleObject(os->copy[i].thread, LAST_MS);
	}
	if (s->raw)
		stream_cooked(&os->window);
}
