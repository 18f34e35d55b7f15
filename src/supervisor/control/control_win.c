/* SPDX-License-Identifier: BSD-2-Clause */
/* The supervisor's own pipe on Windows, and the console's clients. See control_win.h. */
#include "control_win.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>
#include <insula/log.h>

#include "control_os.h"
#include "spec/json.h"

#define QUEUE_MAX \
	64 /* messages that the peer has not taken; then it is dropped, it may come again */
#define LAST_WORDS_MS 1000
#define HANDLES 5

struct message {
	struct message *next;
	DWORD len;
	char text[];
};

/* Its connection has number 0. */
struct control_os {
	HANDLE pipe; /* owned */
	bool connected;
	/* Either a connection is waited for or a message is being read. */
	OVERLAPPED in_ov, out_ov;
	bool waiting, reading, writing;
	struct message *out, **out_end; /* the first is being written if `writing` */
	unsigned queued;
	struct watch in_watch, out_watch;
	struct loop *loop; /* since control_os_begin() */
	struct vm *vm;
	struct ctlconsole console;
	char in[CONTROL_PACKET];
};

/* ---- connection ---- */

static void on_out(void *ctx, unsigned events);

static void free_first(struct control_os *k)
{
	struct message *m = k->out;

	k->out = m->next;
	if (!k->out)
		k->out_end = &k->out;
	k->queued--;
	free(m);
}

static void control_cancel(struct control_os *k, OVERLAPPED *ov, bool *busy)
{
	DWORD n;

	if (*busy) {
		CancelIoEx(k->pipe, ov);
		GetOverlappedResult(k->pipe, ov, &n, TRUE);
	}
	*busy = false;
}

static void wait_for_peer(struct control_os *k)
{
	ResetEvent(k->in_ov.hEvent);
	k->waiting = true;
	if (!ConnectNamedPipe(k->pipe, &k->in_ov) && GetLastError() != ERROR_IO_PENDING)
		SetEvent(
			k->in_ov.hEvent); /* it is there already; what is wrong shows at the read */
}

static void control_drop(struct control *c)
{
	struct control_os *k = c->os;

	watch_off(&k->out_watch);
	control_cancel(k, &k->in_ov, &k->reading);
	control_cancel(k, &k->out_ov, &k->writing);
	while (k->out)
		free_first(k);
	k->connected = false;
	control_hung_up(c, 0);
	DisconnectNamedPipe(k->pipe);
	wait_for_peer(k);
}

static void begin_read(struct control *c)
{
	struct control_os *k = c->os;

	k->reading = true;
	if (!ReadFile(k->pipe, k->in, CONTROL_PACKET, NULL, &k->in_ov) &&
	    GetLastError() != ERROR_IO_PENDING && GetLastError() != ERROR_MORE_DATA) {
		k->reading = false;
		control_drop(c);
	}
}

static void begin_write(struct control *c)
{
	struct control_os *k = c->os;

	if (k->writing || !k->out)
		return;
	k->writing = true;
	if (!WriteFile(k->pipe, k->out->text, k->out->len, NULL, &k->out_ov) &&
	    GetLastError() != ERROR_IO_PENDING) {
		k->writing = false;
		control_drop(c);
	} else if (k->loop) {
		watch_on(k->loop, &k->out_watch, handle_fd(k->out_ov.hEvent), WATCH_IN, on_out, c);
	}
}

void control_os_send(struct control *c, unsigned i, const char *text, size_t len, int fd)
{
	struct control_os *k = c->os;
	struct message *m =
		!i && k->connected && len <= CONTROL_PACKET ? malloc(sizeof(*m) + len) : NULL;

	(void)fd; /* none can travel */
	if (m && k->queued == QUEUE_MAX) {
		log_warn("control: the peer does not take what it asked for");
		free(m);
		control_drop(c);
	} else if (m) {
		*m = (struct message){.len = (DWORD)len};
		memcpy(m->text, text, len);
		*k->out_end = m;
		k->out_end = &m->next;
		k->queued++;
		begin_write(c);
	}
}

/* ---- streams of clients ---- */

int control_os_attach(struct control *k, json_object *params, json_object *result, int *fd,
		      struct err *e)
{
	int64_t want = j_get_int(params, "scrollback", 0);
	char name[PIPE_NAME_LEN];
	int rc = ctlconsole_attach(&k->os->console, want < 0 ? 0 : (uint64_t)want,
				   j_get_str(params, "sid", ""), name, e);

	*fd = -1;
	if (!rc)
		j_str(result, "pipe", name);
	return rc;
}

/* {streams: [name], owner}: pipes that the client serves. */
int control_os_streams(json_object *params, int fd[CTLEXEC_FDS], unsigned *n, struct err *e)
{
	json_object *list = j_get(params, "streams");
	size_t have =
		json_object_is_type(list, json_type_array) ? json_object_array_length(list) : 0;

	for (size_t i = 0; i < have && *n < CTLEXEC_FDS; i++) {
		const char *name = json_object_get_string(json_object_array_get_idx(list, i));
		bool input = have == CTLEXEC_FDS && !i;
		int one = pipe_take(name ? name : "",
				    input ? GENERIC_READ : FILE_WRITE_DATA | FILE_WRITE_ATTRIBUTES,
				    0, j_get_str(params, "owner", NULL), e);

		if (one < 0)
			return one;
		fd[(*n)++] = one;
	}
	return 0;
}

void control_os_console(const struct control *k, struct control_console *n)
{
	const struct ctlconsole *c = &k->os->console;

	*n = (struct control_console){ctlconsole_clients(c), c->out.total, c->lost};
}

/* ---- in ---- */

static void on_message(struct control *c, struct vm *vm)
{
	struct control_os *k = c->os;
	DWORD n = 0;
	bool ok;

	k->reading = false;
	ok = GetOverlappedResult(k->pipe, &k->in_ov, &n, TRUE) && n &&
	     control_packet(c, vm, 0, k->in, n, NULL);
	/* It may be dropped already, for not reading. */
	if (!ok && k->connected)
		control_drop(c);
	else if (k->connected)
		begin_read(c);
}

/* What goes to standard error directly, such as a panic, is at the log's end. */
int vmlog_os_begin(int fd)
{
	if (SetFilePointer(fd_handle(fd), 0, NULL, FILE_BEGIN) == INVALID_SET_FILE_POINTER ||
	    !SetEndOfFile(fd_handle(fd)))
		return -EINVAL;
	return SetStdHandle(STD_ERROR_HANDLE, fd_handle(fd)) ? 0 : -EINVAL;
}

static void on_sent(struct control *c)
{
	struct control_os *k = c->os;
	DWORD n;
	bool ok = GetOverlappedResult(k->pipe, &k->out_ov, &n, TRUE);

	watch_off(&k->out_watch);
	k->writing = false;
	if (!ok) {
		control_drop(c);
		return;
	}
	free_first(k);
	begin_write(c);
}

/* ---- what the loop finds ---- */

static void on_out(void *ctx, unsigned events)
{
	(void)events;
	on_sent(ctx);
}

/* Either a message or a peer. */
static void on_in(void *ctx, unsigned events)
{
	struct control *c = ctx;
	struct control_os *k = c->os;

	(void)events;
	if (k->reading) {
		on_message(c, k->vm);
	} else if (k->waiting) {
		k->waiting = false;
		k->connected = true;
		begin_read(c);
	}
}

void control_os_begin(struct control *c, struct vm *vm, struct loop *l)
{
	struct control_os *k = c->os;

	k->vm = vm;
	k->loop = l;
	watch_on(l, &k->in_watch, handle_fd(k->in_ov.hEvent), WATCH_IN, on_in, c);
	ctlconsole_begin(&k->console, l);
}

/* ---- begin and end ---- */

static int parse_handles(const char *text, int fd[HANDLES], struct err *e)
{
	char end;
	DWORD flags;

	if (sscanf(text, "%d,%d,%d,%d,%d%c", &fd[0], &fd[1], &fd[2], &fd[3], &fd[4], &end) !=
	    HANDLES)
		return err_set(e, -EINVAL, "--control: '%.40s'; expected handles from insulad",
			       text);
	for (int i = 0; i < HANDLES; i++) {
		if (!GetHandleInformation(fd_handle(fd[i]), &flags))
			return err_set(e, -EINVAL,
				       "--control: '%.40s'; expected handles from "
				       "insulad",
				       text);
		/* For us, not for our children. */
		SetHandleInformation(fd_handle(fd[i]), HANDLE_FLAG_INHERIT, 0);
	}
	return 0;
}

/* And say so where insulad looks should we end without a word. */
static void wait_for_byte(int fd, int result)
{
	char byte;
	DWORD n = 0;

	if (!ReadFile(fd_handle(fd), &byte, 1, &n, NULL) || n != 1)
		ExitProcess(126);
	CloseHandle(fd_handle(fd));
	SetFilePointer(fd_handle(result), 0, NULL, FILE_BEGIN);
	(void)write_full(result, CONTROL_BEGUN, strlen(CONTROL_BEGUN));
	SetFilePointer(fd_handle(result), 0, NULL, FILE_BEGIN);
}

static int attach_first(struct control *k, json_object *console, struct err *e)
{
	int fd = pipe_take(j_get_str(console, "pipe", ""),
			   GENERIC_READ | FILE_WRITE_DATA | FILE_WRITE_ATTRIBUTES,
			   FILE_FLAG_OVERLAPPED, j_get_str(console, "owner", NULL), e);

	if (fd < 0)
		return e->code;
	SetHandleInformation(fd_handle(fd), HANDLE_FLAG_INHERIT, 0);
	return ctlconsole_adopt(&k->os->console, fd, e);
}

static int control_make(struct control **out, int pipe, int result, struct err *e)
{
	struct control *k = control_new(result, e);
	struct control_os *os = k ? calloc(1, sizeof(*os)) : NULL;

	if (!os) {
		free(k);
		return err_set(e, -ENOMEM, "out of memory");
	}
	k->os = os;
	os->pipe = fd_handle(pipe);
	os->out_end = &os->out;
	os->in_ov.hEvent = CreateEventW(NULL, TRUE, FALSE, NULL);
	os->out_ov.hEvent = CreateEventW(NULL, TRUE, FALSE, NULL);
	if (!os->in_ov.hEvent || !os->out_ov.hEvent)
		panic("events: error %lu", GetLastError());
	wait_for_peer(os);
	*out = k;
	return ctlconsole_open(&os->console, &k->log, e);
}

static void use_console(struct control *k, struct vm_config *c)
{
	struct ctlconsole *s = &k->os->console;
	const struct control_ends ends = {handle_fd(s->helper_in),
					  handle_fd(s->from[CTLCONSOLE_MAIN].helper),
					  handle_fd(s->from[CTLCONSOLE_ERRORS].helper),
					  handle_fd(s->from[CTLCONSOLE_SERIAL].helper)};

	if (control_use_console(k, c, &ends))
		ctlconsole_has_command(s);
}

int control_open(struct control **out, const char *text, struct vm_config *c, struct err *e)
{
	json_object *o, *console;
	int fd[HANDLES], rc = parse_handles(text, fd, e);

	*out = NULL;
	if (rc)
		return rc;
	wait_for_byte(fd[3], fd[2]);
	rc = control_make(out, fd[0], fd[2], e);
	if (rc)
		return rc;
	rc = control_setup(*out, fd[1], c, &o, e);
	CloseHandle(fd_handle(fd[1]));
	if (control_use_log(*out, o, fd[4], e))
		rc = e->code;
	if (!rc)
		use_console(*out, c);
	console = j_get(o, "console");
	if (!rc && console)
		rc = attach_first(*out, console, e);
	json_object_put(o);
	return rc;
}

void control_os_drain(struct control *k)
{
	ctlconsole_drain(&k->os->console);
}

void control_os_close(struct control *c)
{
	uint64_t limit = clock_ns() + LAST_WORDS_MS * 1000000ull;
	struct control_os *k = c->os;

	/* What is under way goes out if the peer takes it; it hears of our end in any case. */
	while (k->writing && clock_ns() < limit &&
	       WaitForSingleObject(k->out_ov.hEvent, LAST_WORDS_MS) == WAIT_OBJECT_0)
		on_sent(c);
	watch_off(&k->in_watch);
	watch_off(&k->out_watch);
	control_cancel(k, &k->in_ov, &k->reading);
	control_cancel(k, &k->in_ov, &k->waiting);
	control_cancel(k, &k->out_ov, &k->writing);
	while (k->out)
		free_first(k);
	ctlconsole_close(&k->console);
	CloseHandle(k->pipe);
	CloseHandle(k->in_ov.hEvent);
	CloseHandle(k->out_ov.hEvent);
	free(k);
}

/* There are no snapshots here, and so none that stands. */
void control_os_first(struct control *k, bool command, int fd[CTLEXEC_FDS], unsigned *n)
{
	(void)k, (void)command, (void)fd, (void)n;
}
