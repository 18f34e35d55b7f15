/* SPDX-License-Identifier: BSD-2-Clause */
/* The supervisor's own socket. See control.h. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <json-c/json.h>

#include <insula/base.h>
#include <insula/log.h>
#include <insula/scm.h>

#include "control.h"
#include "ctlexec.h"
#include "json.h"
#include "usage.h"
#include "vm.h"

#define SETUP_MAX (CONFIG_JSON_MAX + 4096)
#define DEPTH 16
#define PAUSE_DEADLINE_NS 3000000000ull
#define PACKETS 16 /* per connection and wake-up */
#define STOP_MAX_MS 3600001
#define LOG_MAX (512 << 10)
#define LOG_KEEP (64 << 10)

struct conn {
	int fd; /* -1: free */
	bool hello;
};

struct control {
	int listen, result; /* owned */
	char token[CONTROL_TOKEN_LEN + 1];
	struct conn conn[CONTROL_CONNS];
	struct ctlconsole console;
	bool has_console; /* clients may attach */
	struct ctlexec exec;
	bool paused;
	/* A pause or resume that insula-vmm has not answered yet: who asked. */
	struct {
		unsigned conn;
		int64_t id;
		uint64_t deadline_ns; /* 0: none */
		bool want;
	} turn;
	uint64_t stop_ns; /* the clean stop's deadline; 0: none */
	bool stopping;    /* it was asked for */
	bool forced;      /* and the guest did not do it by itself */
};

/* ---- out ---- */

static void drop(struct control *k, unsigned i)
{
	fd_close(&k->conn[i].fd);
	k->conn[i].hello = false;
	if (k->turn.conn == i)
		k->turn.conn = CONTROL_CONNS; /* nobody */
}

/* One packet; a peer that does not read is dropped, it may come again. Takes over `o`. */
static void send_object(struct control *k, unsigned i, json_object *o, int fd)
{
	const char *text = j_text(o);
	struct iovec iov = {(void *)(uintptr_t)text, strlen(text)};
	union scm_buf ctl;
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};

	scm_attach(&m, &ctl, &fd, fd >= 0);
	if (i < CONTROL_CONNS && k->conn[i].fd >= 0 &&
	    sendmsg(k->conn[i].fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
		log_warn("control: the peer does not take what it asked for: %s", strerror(errno));
		drop(k, i);
	}
	json_object_put(o);
}

static json_object *reply(int64_t id)
{
	json_object *o = json_object_new_object();

	j_int(o, "id", id);
	return o;
}

static void answer(struct control *k, unsigned i, int64_t id, json_object *result)
{
	json_object *o = reply(id);

	j_obj(o, "result", result ? result : json_object_new_object());
	send_object(k, i, o, -1);
}

static void refuse(struct control *k, unsigned i, int64_t id, const char *reason, const char *text)
{
	json_object *o = reply(id), *error = json_object_new_object();

	j_str(error, "reason", reason);
	j_str(error, "text", text);
	j_obj(o, "error", error);
	send_object(k, i, o, -1);
}

/* To everybody who has said hello. Takes `data` over. */
static void emit(struct control *k, const char *event, json_object *data)
{
	for (unsigned i = 0; i < CONTROL_CONNS; i++) {
		json_object *o;

		if (!k->conn[i].hello)
			continue;
		o = json_object_new_object();
		j_str(o, "event", event);
		j_obj(o, "data", json_object_get(data));
		send_object(k, i, o, -1);
	}
	json_object_put(data);
}

void control_event(struct control *k, const char *event, const char *name, const char *text)
{
	json_object *data = k ? json_object_new_object() : NULL;

	if (!k)
		return;
	if (name)
		j_str(data, "device", name);
	if (text)
		j_str(data, "text", text);
	emit(k, event, data);
}

/* ---- operations: one function each ---- */

struct call {
	struct control *k;
	struct vm *vm;
	unsigned conn;
	int64_t id;
	json_object *params; /* an object or NULL */
	int fd[CTLEXEC_FDS]; /* what came along; closed when the operation returns */
	unsigned nfds;
	bool more_fds; /* than may be */
};

static int64_t number(const struct call *c, const char *key, int64_t otherwise)
{
	return j_get_int(c->params, key, otherwise);
}

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
	j_int(o, "pid", getpid());
	return o;
}

static void op_hello(struct call *c)
{
	json_object *o = describe(c->k, c->vm);

	c->k->conn[c->conn].hello = true;
	j_str(o, "token", c->k->token);
	answer(c->k, c->conn, c->id, o);
}

static void op_info(struct call *c)
{
	json_object *o = describe(c->k, c->vm);

	j_int(o, "console_clients", (int)ctlconsole_clients(&c->k->console));
	j_obj(o, "processes", usage_processes(c->vm));
	answer(c->k, c->conn, c->id, o);
}

static void op_metrics(struct call *c)
{
	json_object *o = usage_metrics(c->vm);

	j_int(o, "console_bytes", (int64_t)c->k->console.out.total);
	j_int(o, "console_lost_bytes", (int64_t)c->k->console.lost);
	answer(c->k, c->conn, c->id, o);
}

static void turn(struct call *c, bool pause)
{
	struct control *k = c->k;
	struct vm *vm = c->vm;

	if (!vm->running || vm->ended) {
		refuse(k, c->conn, c->id, "wrong-state", state_name(k, vm));
	} else if (k->turn.deadline_ns) {
		refuse(k, c->conn, c->id, "busy", "another pause or resume is under way");
	} else if (k->paused == pause) {
		answer(k, c->conn, c->id, describe(k, vm));
	} else if (msg_send(vm->vmm.jail.channel, pause ? MSG_PAUSE : MSG_RESUME, NULL, 0, NULL,
			    0)) {
		refuse(k, c->conn, c->id, "failed", "insula-vmm does not take messages");
	} else {
		k->turn.conn = c->conn;
		k->turn.id = c->id;
		k->turn.want = pause;
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

/* ---- the end ---- */

static void force(struct control *k, struct vm *vm)
{
	k->stop_ns = 0;
	k->forced = !vm->ended;
	vm_stop(vm, "stopped", RUN_SIGNAL + SIGTERM, false);
}

/* A power-off ends the stream as well; that the guest does nothing shows at the deadline. */
static void poweroff_over(struct vm *vm, uint32_t id, const struct msg_exec_exit *x)
{
	char text[EXEC_TEXT_LEN];

	(void)vm;
	(void)id;
	snprintf(text, sizeof(text), "%s", x->text);
	err_clean(text);
	log_info("power-off: %s", text);
}

/* A guest that can be asked to power off is asked, and has until the deadline; any other ends now.
 * One that is paused cannot hear it. */
static void op_stop(struct call *c)
{
	struct control *k = c->k;
	struct vm *vm = c->vm;
	int64_t given = number(c, "deadline_ms", 0);
	uint32_t ms = given > 0 && given < STOP_MAX_MS ? (uint32_t)given : 0;
	uint64_t limit = clock_ns() + ms * 1000000ull;
	struct err e;
	int rc;

	answer(k, c->conn, c->id, NULL);
	k->stopping = true;
	if (!ms || !vm_has_agent(vm) || vm->ended) {
		force(k, vm);
		return;
	}
	/* What is left is insula-init's, should the root's own init not have done it by then. */
	rc = exec_poweroff(vm, ms - ms / 4, poweroff_over, &e);
	if (rc && rc != -EALREADY) {
		log_warn("%s; the VM is stopped without it", e.text);
		force(k, vm);
		return;
	}
	if (k->paused)
		(void)msg_send(vm->vmm.jail.channel, MSG_RESUME, NULL, 0, NULL, 0);
	if (!k->stop_ns || limit < k->stop_ns)
		k->stop_ns = limit;
}

static void op_kill(struct call *c)
{
	c->k->forced = true;
	vm_stop(c->vm, "killed", RUN_SIGNAL + SIGKILL, true);
	answer(c->k, c->conn, c->id, NULL);
}

static void op_console(struct call *c)
{
	int64_t want = number(c, "scrollback", 0);
	json_object *o;
	struct err e;
	int fd;

	if (!c->k->has_console) {
		refuse(c->k, c->conn, c->id, "no-console",
		       "the console of this VM goes elsewhere: see its configuration");
		return;
	}
	fd = ctlconsole_attach(&c->k->console, want < 0 ? 0 : (uint64_t)want, &e);
	if (fd < 0) {
		refuse(c->k, c->conn, c->id, fd == -EBUSY ? "busy" : "failed", e.text);
		return;
	}
	o = reply(c->id);
	j_obj(o, "result", json_object_new_object());
	send_object(c->k, c->conn, o, fd);
	close(fd);
}

/* ---- commands ---- */

static void exec_over(struct vm *vm, uint32_t id, const struct msg_exec_exit *x)
{
	json_object *data = ctlexec_ended(&vm->control->exec, id, x);

	if (data)
		emit(vm->control, "exec-ended", data);
}

static void op_exec(struct call *c)
{
	json_object *o;
	uint32_t id;
	struct err e;
	const char *why =
		ctlexec_start(&c->k->exec, c->vm, c->params, c->fd,
			      c->more_fds ? CTLEXEC_FDS + 1 : c->nfds, exec_over, &id, &e);

	if (why) {
		refuse(c->k, c->conn, c->id, why, e.text);
		return;
	}
	o = json_object_new_object();
	j_int(o, "exec", id);
	answer(c->k, c->conn, c->id, o);
}

static void settle(struct call *c, const char *why, const struct err *e)
{
	if (why)
		refuse(c->k, c->conn, c->id, why, e->text);
	else
		answer(c->k, c->conn, c->id, NULL);
}

static void op_exec_signal(struct call *c)
{
	struct err e;

	settle(c,
	       ctlexec_signal(&c->k->exec, c->vm, number(c, "exec", 0), number(c, "signal", 0), &e),
	       &e);
}

static void op_exec_resize(struct call *c)
{
	struct err e;

	settle(c,
	       ctlexec_resize(&c->k->exec, c->vm, number(c, "exec", 0), number(c, "rows", 0),
			      number(c, "cols", 0), &e),
	       &e);
}

static void op_exec_result(struct call *c)
{
	json_object *o = ctlexec_result(&c->k->exec, number(c, "exec", 0));

	if (o)
		answer(c->k, c->conn, c->id, o);
	else
		refuse(c->k, c->conn, c->id, "not-found", "there is no such command in this VM");
}

static const struct {
	const char *name;
	void (*run)(struct call *c);
} ops[] = {
	{"hello", op_hello},
	{"info", op_info},
	{"metrics", op_metrics},
	{"pause", op_pause},
	{"resume", op_resume},
	{"stop", op_stop},
	{"kill", op_kill},
	{"console", op_console},
	{"exec", op_exec},
	{"exec-signal", op_exec_signal},
	{"exec-resize", op_exec_resize},
	{"exec-result", op_exec_result},
};

void control_paused(struct control *k, struct vm *vm, bool paused)
{
	if (!k || k->paused == paused)
		return;
	k->paused = paused;
	if (k->turn.deadline_ns && k->turn.want == paused) {
		k->turn.deadline_ns = 0;
		answer(k, k->turn.conn, k->turn.id, describe(k, vm));
	}
	control_event(k, paused ? "paused" : "resumed", NULL, NULL);
}

/* ---- in ---- */

/* A peer that sends what is no request is no insulad. */
static bool run_op(struct call *c, json_object *root)
{
	json_object *op, *id;

	if (!json_object_is_type(root, json_type_object) ||
	    !json_object_object_get_ex(root, "op", &op) ||
	    !json_object_object_get_ex(root, "id", &id) ||
	    !json_object_is_type(op, json_type_string) || !json_object_is_type(id, json_type_int))
		return false;
	if (json_object_object_get_ex(root, "params", &c->params) &&
	    !json_object_is_type(c->params, json_type_object))
		return false;
	c->id = json_object_get_int64(id);
	for (unsigned n = 0; n < ARRAY_LEN(ops); n++) {
		if (!strcmp(ops[n].name, json_object_get_string(op))) {
			ops[n].run(c);
			return true;
		}
	}
	refuse(c->k, c->conn, c->id, "unknown-op", json_object_get_string(op));
	return true;
}

static bool parse_and_run(struct call *c, const char *text, size_t len)
{
	const char *why;
	json_object *root = j_parse(text, len, DEPTH, &why);
	bool ok = root && run_op(c, root);

	json_object_put(root);
	return ok;
}

static bool on_packet(struct control *k, struct vm *vm, unsigned i)
{
	static char buf[CONTROL_PACKET]; /* one thread; too large for the stack */
	struct call c = {.k = k, .vm = vm, .conn = i};
	union scm_buf ctl;
	struct iovec iov = {buf, sizeof(buf)};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t n;
	bool ok;

	scm_expect(&m, &ctl, CTLEXEC_FDS + 1);
	n = recvmsg(k->conn[i].fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	if (n >= 0)
		c.more_fds = scm_take(&m, c.fd, &c.nfds, CTLEXEC_FDS);
	ok = n > 0 && !(m.msg_flags & MSG_TRUNC) && parse_and_run(&c, buf, (size_t)n);
	while (c.nfds)
		close(c.fd[--c.nfds]);
	if (!ok)
		drop(k, i);
	return ok && k->conn[i].fd >= 0;
}

/* insulad runs as root or as the user of this VM. */
static bool may_connect(int fd)
{
	struct ucred u;
	socklen_t len = sizeof(u);

	return !getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &u, &len) &&
	       (u.uid == 0 || u.uid == getuid());
}

static void take_connection(struct control *k)
{
	int fd = accept4(k->listen, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0)
		return;
	for (unsigned i = 0; i < CONTROL_CONNS && may_connect(fd); i++) {
		if (k->conn[i].fd < 0) {
			k->conn[i] = (struct conn){.fd = fd};
			return;
		}
	}
	close(fd);
}

/* What was written to standard error goes to a file that nobody else shortens. */
static void bound_log(void)
{
	static char keep[LOG_KEEP];
	struct stat st;
	int fd;

	if (fstat(STDERR_FILENO, &st) || !S_ISREG(st.st_mode) || st.st_size < LOG_MAX)
		return;
	fd = open("/proc/self/fd/2", O_RDONLY | O_CLOEXEC);
	if (fd >= 0 && !read_full(fd, keep, sizeof(keep), (uint64_t)st.st_size - sizeof(keep)) &&
	    !ftruncate(STDERR_FILENO, 0))
		(void)write_full(STDERR_FILENO, keep, sizeof(keep));
	fd_close(&fd);
}

unsigned control_fill(struct control *k, struct pollfd *p)
{
	unsigned n = 0;

	if (!k)
		return 0;
	p[n++] = (struct pollfd){k->listen, POLLIN, 0};
	for (unsigned i = 0; i < CONTROL_CONNS; i++)
		p[n++] = (struct pollfd){k->conn[i].fd, POLLIN, 0};
	ctlconsole_fill(&k->console, &p[n]);
	return n + CTLCONSOLE_POLL;
}

uint64_t control_deadline(const struct control *k, const struct vm *vm)
{
	const uint64_t limit[] = {k ? k->turn.deadline_ns : 0, k ? k->stop_ns : 0,
				  k ? ctlexec_deadline(&k->exec, vm) : 0};
	uint64_t first = 0;

	for (unsigned i = 0; i < ARRAY_LEN(limit); i++) {
		if (limit[i] && (!first || limit[i] < first))
			first = limit[i];
	}
	return first;
}

static void check_deadlines(struct control *k, struct vm *vm)
{
	uint64_t now = clock_ns();

	if (k->turn.deadline_ns && now >= k->turn.deadline_ns) {
		k->turn.deadline_ns = 0;
		refuse(k, k->turn.conn, k->turn.id, "timeout", "the vCPUs did not answer in time");
		/* The state must be one of the two, not something between. */
		if (k->turn.want)
			(void)msg_send(vm->vmm.jail.channel, MSG_RESUME, NULL, 0, NULL, 0);
	}
	if (k->stop_ns && now >= k->stop_ns) {
		log_warn("the guest did not power off in time");
		force(k, vm);
	}
	ctlexec_overdue(&k->exec, vm);
}

void control_serve(struct control *k, struct vm *vm, const struct pollfd *p, unsigned n)
{
	if (!k)
		return;
	ctlconsole_serve(&k->console, &p[n - CTLCONSOLE_POLL]);
	for (unsigned i = 0; i < CONTROL_CONNS; i++) {
		if (!p[1 + i].revents || k->conn[i].fd < 0)
			continue;
		for (int m = 0; m < PACKETS && on_packet(k, vm, i); m++)
			;
	}
	if (p[0].revents)
		take_connection(k);
	check_deadlines(k, vm);
	bound_log();
}

/* ---- begin and end ---- */

static json_object *read_setup(int fd, struct err *e)
{
	struct stat st;
	char *text;
	json_object *o = NULL;
	int rc;

	if (fstat(fd, &st) || st.st_size <= 0 || st.st_size > (off_t)SETUP_MAX) {
		err_set(e, -EPROTO, "control: the set-up is not a file of 1 to %u bytes",
			SETUP_MAX);
		return NULL;
	}
	text = calloc(1, (size_t)st.st_size + 1);
	rc = text ? read_full(fd, text, (size_t)st.st_size, 0) : -ENOMEM;
	if (!rc)
		o = json_tokener_parse(text);
	free(text);
	if (!o)
		err_set(e, rc ? rc : -EPROTO, "control: the set-up cannot be read");
	return o;
}

static int use_setup(struct control *k, json_object *o, struct vm_config *c, struct err *e)
{
	json_object *token, *config;
	const char *text;
	int rc;

	if (!json_object_object_get_ex(o, "token", &token) ||
	    !json_object_object_get_ex(o, "config", &config) ||
	    json_object_get_string_len(token) != CONTROL_TOKEN_LEN)
		return err_set(e, -EPROTO, "control: the set-up lacks token or config");
	memcpy(k->token, json_object_get_string(token), CONTROL_TOKEN_LEN);
	text = json_object_to_json_string_ext(config, JSON_C_TO_STRING_PLAIN);
	rc = config_json(c, text, strlen(text), e);
	if (!rc)
		rc = config_check(c, e);
	return rc;
}

static void attach_first(struct control *k, int fd)
{
	struct stat st;
	struct err e;

	fcntl(fd, F_SETFD, FD_CLOEXEC);
	if (fstat(fd, &st) || !S_ISSOCK(st.st_mode) || ctlconsole_adopt(&k->console, fd, 0, &e))
		close(fd);
}

static struct control *make(int fd, struct err *e)
{
	struct control *k = calloc(1, sizeof(*k));

	if (!k) {
		err_set(e, -ENOMEM, "out of memory");
		return NULL;
	}
	k->listen = fd;
	k->result = fd + 2;
	k->turn.conn = CONTROL_CONNS;
	for (unsigned i = 0; i < CONTROL_CONNS; i++)
		k->conn[i].fd = -1;
	for (int i = fd; i <= fd + 2; i++)
		fcntl(i, F_SETFD, FD_CLOEXEC);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	if (ctlconsole_open(&k->console, e)) {
		ctlconsole_close(&k->console);
		free(k);
		return NULL;
	}
	return k;
}

/* What insula-run has on its standard streams: the console, or the streams of the command. */
static void use_console(struct control *k, struct vm_config *c)
{
	if (config_console(c) == CONSOLE_STDIO) {
		c->console = CONSOLE_STREAM;
		c->console_given = true;
		c->console_fd = k->console.helper;
		k->has_console = true;
	} else if (c->command) {
		c->command_fd = k->console.helper;
		k->has_console = true;
	}
}

int control_open(struct control **out, int fd, struct vm_config *c, struct err *e)
{
	struct control *k = make(fd, e);
	json_object *o;
	int rc;

	*out = k;
	if (!k)
		return e->code;
	o = read_setup(fd + 1, e);
	rc = o ? use_setup(k, o, c, e) : e->code;
	if (json_object_object_get_ex(o, "console", NULL))
		attach_first(k, fd + 3);
	json_object_put(o);
	close(fd + 1);
	c->serve = true;
	if (!rc)
		use_console(k, c);
	return rc;
}

static void write_result(struct control *k, const struct vm *vm)
{
	json_object *o = result_json(vm);
	size_t len;
	char *line;

	if (k->stopping)
		j_str(o, "stop", k->forced ? "forced" : "clean");
	j_str(o, "token", k->token);
	line = strdup(json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN |
								JSON_C_TO_STRING_NOSLASHESCAPE));
	json_object_put(o);
	if (!line)
		return;
	len = strlen(line);
	line[len] = '\n'; /* instead of the NUL: complete with its line end, or not at all */
	if (pwrite(k->result, line, len + 1, 0) != (ssize_t)len + 1)
		log_error("control: the result cannot be written: %s", strerror(errno));
	free(line);
}

void control_finish(struct control *k, const struct vm *vm)
{
	if (!k)
		return;
	ctlconsole_drain(&k->console);
	write_result(k, vm);
	control_event(k, "ended", NULL, vm->why[0] ? vm->why : NULL);
	for (unsigned i = 0; i < CONTROL_CONNS; i++)
		fd_close(&k->conn[i].fd);
	ctlconsole_close(&k->console);
	fd_close(&k->listen);
	fd_close(&k->result);
	free(k);
}
