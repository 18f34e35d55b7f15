/* SPDX-License-Identifier: BSD-2-Clause */
/* The supervisor's own pipe on Windows. See control_win.h. */
#include "control_win.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>
#include <insula/log.h>

#include "json.h"
#include "usage_win.h"
#include "vm_win.h"

#define SETUP_MAX (CONFIG_JSON_MAX + 4096)
#define PACKET (64u << 10)
#define DEPTH 16
#define QUEUE_MAX \
	64 /* messages that the peer has not taken; then it is dropped, it may come again */
#define PAUSE_DEADLINE_NS 3000000000ull
#define LOG_MAX (512 << 10)
#define LOG_KEEP (64 << 10)
#define LAST_WORDS_MS 1000

struct message {
	struct message *next;
	DWORD len;
	char text[];
};

struct control {
	HANDLE pipe, result; /* owned */
	char token[CONTROL_TOKEN_LEN + 1];
	bool connected, hello;
	/* Either a connection is waited for or a message is being read. */
	OVERLAPPED in_ov, out_ov;
	bool waiting, reading, writing;
	struct message *out, **out_end; /* the first is being written if `writing` */
	unsigned queued;
	bool paused;
	/* A pause or resume that insula-vmm has not answered yet. */
	struct {
		int64_t id;
		uint64_t deadline_ns; /* 0: none */
		bool want, lost;      /* lost: who asked has gone */
	} turn;
	bool stopping, forced;
	char in[PACKET];
};

/* ---- connection ---- */

static void free_first(struct control *k)
{
	struct message *m = k->out;

	k->out = m->next;
	if (!k->out)
		k->out_end = &k->out;
	k->queued--;
	free(m);
}

static void cancel(struct control *k, OVERLAPPED *ov, bool *busy)
{
	DWORD n;

	if (*busy) {
		CancelIoEx(k->pipe, ov);
		GetOverlappedResult(k->pipe, ov, &n, TRUE);
	}
	*busy = false;
}

static void wait_for_peer(struct control *k)
{
	ResetEvent(k->in_ov.hEvent);
	k->waiting = true;
	if (!ConnectNamedPipe(k->pipe, &k->in_ov) && GetLastError() != ERROR_IO_PENDING)
		SetEvent(
			k->in_ov.hEvent); /* it is there already; what is wrong shows at the read */
}

static void drop(struct control *k)
{
	cancel(k, &k->in_ov, &k->reading);
	cancel(k, &k->out_ov, &k->writing);
	while (k->out)
		free_first(k);
	k->connected = k->hello = false;
	k->turn.lost = true;
	DisconnectNamedPipe(k->pipe);
	wait_for_peer(k);
}

static void begin_read(struct control *k)
{
	k->reading = true;
	if (!ReadFile(k->pipe, k->in, PACKET, NULL, &k->in_ov) &&
	    GetLastError() != ERROR_IO_PENDING && GetLastError() != ERROR_MORE_DATA) {
		k->reading = false;
		drop(k);
	}
}

static void begin_write(struct control *k)
{
	if (k->writing || !k->out)
		return;
	k->writing = true;
	if (!WriteFile(k->pipe, k->out->text, k->out->len, NULL, &k->out_ov) &&
	    GetLastError() != ERROR_IO_PENDING) {
		k->writing = false;
		drop(k);
	}
}

/* Takes `o` over. */
static void send_object(struct control *k, json_object *o)
{
	const char *text = j_text(o);
	size_t n = strlen(text);
	struct message *m = k->connected && n <= PACKET ? malloc(sizeof(*m) + n) : NULL;

	if (m && k->queued == QUEUE_MAX) {
		log_warn("control: the peer does not take what it asked for");
		free(m);
		drop(k);
	} else if (m) {
		*m = (struct message){.len = (DWORD)n};
		memcpy(m->text, text, n);
		*k->out_end = m;
		k->out_end = &m->next;
		k->queued++;
		begin_write(k);
	}
	json_object_put(o);
}

static void answer(struct control *k, int64_t id, json_object *result)
{
	json_object *o = json_object_new_object();

	j_int(o, "id", id);
	j_obj(o, "result", result ? result : json_object_new_object());
	send_object(k, o);
}

static void refuse(struct control *k, int64_t id, const char *reason, const char *text)
{
	json_object *o = json_object_new_object(), *error = json_object_new_object();

	j_int(o, "id", id);
	j_str(error, "reason", reason);
	j_str(error, "text", text);
	j_obj(o, "error", error);
	send_object(k, o);
}

void control_event(struct control *k, const char *event, const char *name, const char *text)
{
	json_object *o, *data;

	if (!k || !k->hello)
		return;
	o = json_object_new_object();
	data = json_object_new_object();
	j_str(data, "device", name);
	j_str(data, "text", text);
	j_str(o, "event", event);
	j_obj(o, "data", data);
	send_object(k, o);
}

/* ---- operations: one function each ---- */

struct call {
	struct control *k;
	struct vm *vm;
	int64_t id;
};

static const char *state_name(const struct control *k, const struct vm *vm)
{
	if (vm->ended)
		return "stopping";
	if (!vm->running)
		return "starting";
	return k->paused ? "paused" : "running";
}

static json_object *describe(const struct control *k, const struct vm *vm)
{
	json_object *o = json_object_new_object();

	j_str(o, "state", state_name(k, vm));
	j_int(o, "pid", (int64_t)GetCurrentProcessId());
	return o;
}

static void op_hello(struct call *c)
{
	json_object *o = describe(c->k, c->vm);

	c->k->hello = true;
	j_str(o, "token", c->k->token);
	answer(c->k, c->id, o);
}

static void op_info(struct call *c)
{
	json_object *o = describe(c->k, c->vm);

	j_obj(o, "processes", usage_processes(c->vm));
	answer(c->k, c->id, o);
}

static void op_metrics(struct call *c)
{
	answer(c->k, c->id, usage_metrics(c->vm));
}

static void turn(struct call *c, bool pause)
{
	struct control *k = c->k;

	if (!c->vm->running || c->vm->ended) {
		refuse(k, c->id, "wrong-state", state_name(k, c->vm));
	} else if (k->turn.deadline_ns) {
		refuse(k, c->id, "busy", "another pause or resume is under way");
	} else if (k->paused == pause) {
		answer(k, c->id, describe(k, c->vm));
	} else if (child_send(&c->vm->vmm, pause ? MSG_PAUSE : MSG_RESUME, NULL, 0, NULL, 0)) {
		refuse(k, c->id, "failed", "insula-vmm does not take messages");
	} else {
		k->turn.id = c->id;
		k->turn.want = pause;
		k->turn.lost = false;
		k->turn.deadline_ns = clock_ns() + PAUSE_DEADLINE_NS;
	}
}

static void op_pause(struct call *c)
{
	turn(c, true);
}

static void op_resume(struct call *c)
{
	turn(c, false);
}

/* No guest can be asked to power off here yet: there is no insula-init in it. */
static void op_stop(struct call *c)
{
	answer(c->k, c->id, NULL);
	c->k->stopping = true;
	c->k->forced = !c->vm->ended;
	vm_stop(c->vm, "stopped", RUN_SIGNAL + SIGTERM, false);
}

static void op_kill(struct call *c)
{
	c->k->forced = true;
	answer(c->k, c->id, NULL);
	vm_stop(c->vm, "killed", RUN_SIGNAL + 9 /* as on Linux */, true);
}

static void op_none(struct call *c)
{
	refuse(c->k, c->id, "unsupported", "not on Windows yet");
}

static const struct {
	const char *name;
	void (*run)(struct call *c);
} ops[] = {
	{"hello", op_hello},      {"info", op_info},        {"metrics", op_metrics},
	{"pause", op_pause},      {"resume", op_resume},    {"stop", op_stop},
	{"kill", op_kill},        {"console", op_none},     {"exec", op_none},
	{"exec-signal", op_none}, {"exec-resize", op_none}, {"exec-result", op_none},
};

void control_paused(struct control *k, struct vm *vm, bool paused)
{
	if (!k || k->paused == paused)
		return;
	k->paused = paused;
	if (k->turn.deadline_ns && k->turn.want == paused) {
		k->turn.deadline_ns = 0;
		if (!k->turn.lost)
			answer(k, k->turn.id, describe(k, vm));
	}
	control_event(k, paused ? "paused" : "resumed", NULL, NULL);
}

/* ---- in ---- */

/* A peer that sends what is no request is no insulad. */
static bool run_op(struct call *c, json_object *root)
{
	const char *op = j_get_str(root, "op", NULL);
	json_object *id = j_get(root, "id"), *params = j_get(root, "params");

	if (!op || !json_object_is_type(id, json_type_int) ||
	    (params && !json_object_is_type(params, json_type_object)))
		return false;
	c->id = json_object_get_int64(id);
	for (size_t i = 0; i < ARRAY_LEN(ops); i++) {
		if (!strcmp(ops[i].name, op)) {
			ops[i].run(c);
			return true;
		}
	}
	refuse(c->k, c->id, "unknown-op", op);
	return true;
}

static void on_message(struct control *k, struct vm *vm)
{
	struct call c = {.k = k, .vm = vm};
	json_object *root = NULL;
	const char *why;
	DWORD n = 0;
	bool ok;

	k->reading = false;
	ok = GetOverlappedResult(k->pipe, &k->in_ov, &n, TRUE) && n;
	if (ok)
		root = j_parse(k->in, n, DEPTH, &why);
	ok = ok && json_object_is_type(root, json_type_object) && run_op(&c, root);
	json_object_put(root);
	/* It may be dropped already, for not reading. */
	if (!ok && k->connected)
		drop(k);
	else if (k->connected)
		begin_read(k);
}

static bool is_set(const OVERLAPPED *ov)
{
	return WaitForSingleObject(ov->hEvent, 0) == WAIT_OBJECT_0;
}

static void check_turn(struct control *k, struct vm *vm)
{
	if (!k->turn.deadline_ns || clock_ns() < k->turn.deadline_ns)
		return;
	k->turn.deadline_ns = 0;
	if (!k->turn.lost)
		refuse(k, k->turn.id, "timeout", "the vCPUs did not answer in time");
	/* The state must be one of the two, not something between. */
	if (k->turn.want)
		(void)child_send(&vm->vmm, MSG_RESUME, NULL, 0, NULL, 0);
}

/* What was written to standard error goes to a file that nobody else shortens. */
static void bound_log(void)
{
	static char keep[LOG_KEEP];
	int fd = handle_fd(GetStdHandle(STD_ERROR_HANDLE));
	uint64_t size;

	if (file_size(fd, &size) || size < LOG_MAX ||
	    read_full(fd, keep, sizeof(keep), size - sizeof(keep)))
		return;
	SetFilePointer(fd_handle(fd), 0, NULL, FILE_BEGIN);
	if (SetEndOfFile(fd_handle(fd)))
		(void)write_full(fd, keep, sizeof(keep));
}

DWORD control_slots(struct control *k, HANDLE *h)
{
	DWORD n = 0;

	if (k && (k->waiting || k->reading))
		h[n++] = k->in_ov.hEvent;
	if (k && k->writing)
		h[n++] = k->out_ov.hEvent;
	return n;
}

uint64_t control_deadline(const struct control *k)
{
	return k ? k->turn.deadline_ns : 0;
}

static void on_sent(struct control *k)
{
	DWORD n;
	bool ok = GetOverlappedResult(k->pipe, &k->out_ov, &n, TRUE);

	k->writing = false;
	if (!ok) {
		drop(k);
		return;
	}
	free_first(k);
	begin_write(k);
}

void control_serve(struct control *k, struct vm *vm)
{
	if (!k)
		return;
	if (k->writing && is_set(&k->out_ov))
		on_sent(k);
	if (k->reading && is_set(&k->in_ov))
		on_message(k, vm);
	if (k->waiting && is_set(&k->in_ov)) {
		k->waiting = false;
		k->connected = true;
		begin_read(k);
	}
	check_turn(k, vm);
	bound_log();
}

/* ---- begin and end ---- */

static int parse_handles(const char *text, int fd[4], struct err *e)
{
	char end;
	DWORD flags;

	if (sscanf(text, "%d,%d,%d,%d%c", &fd[0], &fd[1], &fd[2], &fd[3], &end) != 4)
		return err_set(e, -EINVAL, "--control: '%.40s'; expected handles from insulad",
			       text);
	for (int i = 0; i < 4; i++) {
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

static void wait_for_byte(int fd)
{
	char byte;
	DWORD n = 0;

	if (!ReadFile(fd_handle(fd), &byte, 1, &n, NULL) || n != 1)
		ExitProcess(126);
	CloseHandle(fd_handle(fd));
}

static json_object *read_setup(int fd, struct err *e)
{
	json_object *o = NULL;
	uint64_t size = 0;
	const char *why = "";
	char *text;
	int rc = file_size(fd, &size);

	if (rc || !size || size > SETUP_MAX) {
		err_set(e, -EPROTO, "control: the set-up is not a file of 1 to %u bytes",
			SETUP_MAX);
		return NULL;
	}
	text = malloc((size_t)size);
	rc = text ? read_full(fd, text, (size_t)size, 0) : -ENOMEM;
	if (!rc)
		o = j_parse(text, (size_t)size, DEPTH, &why);
	free(text);
	CloseHandle(fd_handle(fd));
	if (!o)
		err_set(e, rc ? rc : -EPROTO, "control: the set-up cannot be read: %s", why);
	return o;
}

static int use_setup(struct control *k, json_object *o, struct vm_config *c, struct err *e)
{
	const char *token = j_get_str(o, "token", ""), *text;
	json_object *config = j_get(o, "config");
	int rc;

	if (!config || strlen(token) != CONTROL_TOKEN_LEN)
		return err_set(e, -EPROTO, "control: the set-up lacks token or config");
	strcpy(k->token, token);
	text = j_text(config);
	rc = config_json(c, text, strlen(text), e);
	if (!rc)
		rc = config_check(c, e);
	/* Nobody can attach to it yet. */
	if (!rc && config_console(c) == CONSOLE_STDIO) {
		c->console = CONSOLE_STDERR;
		c->console_given = true;
	}
	return rc;
}

int control_open(struct control **out, const char *text, struct vm_config *c, struct err *e)
{
	struct control *k = calloc(1, sizeof(*k));
	json_object *o;
	int fd[4], rc = k ? parse_handles(text, fd, e) : err_set(e, -ENOMEM, "out of memory");

	if (rc) {
		free(k);
		return rc;
	}
	wait_for_byte(fd[3]);
	k->pipe = fd_handle(fd[0]);
	k->result = fd_handle(fd[2]);
	k->out_end = &k->out;
	k->turn.lost = true;
	k->in_ov.hEvent = CreateEventW(NULL, TRUE, FALSE, NULL);
	k->out_ov.hEvent = CreateEventW(NULL, TRUE, FALSE, NULL);
	if (!k->in_ov.hEvent || !k->out_ov.hEvent)
		panic("events: error %lu", GetLastError());
	wait_for_peer(k);
	*out = k;
	o = read_setup(fd[1], e);
	rc = o ? use_setup(k, o, c, e) : e->code;
	json_object_put(o);
	return rc;
}

static void write_result(struct control *k, const struct vm *vm)
{
	json_object *o = result_json(vm);
	char *line;
	size_t len;

	if (k->stopping)
		j_str(o, "stop", k->forced ? "forced" : "clean");
	j_str(o, "token", k->token);
	line = strdup(j_text(o));
	json_object_put(o);
	if (!line)
		return;
	len = strlen(line);
	line[len] = '\n'; /* instead of the NUL: complete with its line end, or not at all */
	if (write_full(handle_fd(k->result), line, len + 1))
		log_error("control: the result cannot be written");
	free(line);
}

void control_finish(struct control *k, const struct vm *vm)
{
	uint64_t limit = clock_ns() + LAST_WORDS_MS * 1000000ull;

	if (!k)
		return;
	write_result(k, vm);
	control_event(k, "ended", NULL, vm->end->why[0] ? vm->end->why : NULL);
	/* What is under way goes out if the peer takes it; it hears of our end in any case. */
	while (k->writing && clock_ns() < limit &&
	       WaitForSingleObject(k->out_ov.hEvent, LAST_WORDS_MS) == WAIT_OBJECT_0)
		on_sent(k);
	cancel(k, &k->in_ov, &k->reading);
	cancel(k, &k->in_ov, &k->waiting);
	cancel(k, &k->out_ov, &k->writing);
	while (k->out)
		free_first(k);
	CloseHandle(k->pipe);
	CloseHandle(k->result);
	CloseHandle(k->in_ov.hEvent);
	CloseHandle(k->out_ov.hEvent);
	free(k);
}
