/* SPDX-License-Identifier: BSD-2-Clause */
/* The supervisor's control socket, from outside. See talk.h. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/scm.h>

#include "proc.h"
#include "spec/json.h"
#include "talk.h"

#define PACKET (64u << 10)
#define DEPTH 16
#define HELLO_MS 10000
#define EXEC_MS 30000
#define OUTPUT_MAX (64u << 10)
#define ARGS_MAX 16
#define TURN 64  /* packets of one turn */
#define READS 16 /* of one turn; a guest may write without end */
#define READ_SIZE 4096

/* ---- packets ---- */

/* A packet that has come; NULL: none now, or *rc is set. The caller's. */
static json_object *take(struct talk *t, int *rc)
{
	static char buf[PACKET]; /* one thread; too large for the stack */
	const char *why;
	json_object *o;
	ssize_t n = recv(t->fd, buf, sizeof(buf), MSG_DONTWAIT | MSG_TRUNC);

	*rc = 0;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return NULL;
	o = n > 0 && (size_t)n <= sizeof(buf) ? j_parse(buf, (size_t)n, DEPTH, &why) : NULL;
	if (o && json_object_is_type(o, json_type_object))
		return o;
	json_object_put(o);
	*rc = -EPIPE;
	fd_close(&t->fd);
	return NULL;
}

static void tell(struct talk *t, json_object *o)
{
	const char *event = j_get_str(o, "event", NULL);

	if (event && t->event)
		t->event(t->ctx, event, j_get(o, "data"));
}

int talk_turn(struct talk *t)
{
	int rc = t->fd < 0 ? -EPIPE : 0;

	for (int i = 0; i < TURN && !rc; i++) {
		json_object *o = take(t, &rc);

		if (!o)
			break;
		tell(t, o);
		json_object_put(o);
	}
	return rc;
}

static int packet_send(struct talk *t, json_object *o, const int *fds, unsigned nfds)
{
	const char *text = j_text(o);
	struct iovec iov = {(void *)(uintptr_t)text, strlen(text)};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
	union scm_buf ctl;

	if (t->fd < 0)
		return -EPIPE;
	if (iov.iov_len > PACKET)
		return -E2BIG;
	scm_attach(&m, &ctl, fds, nfds);
	return sendmsg(t->fd, &m, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

/* ---- calls ---- */

static const struct {
	const char *reason;
	int code;
} refusals[] = {
	{"busy", -EAGAIN},        {"not-found", -ENOENT},  {"not-ready", -ESRCH},
	{"wrong-state", -EINVAL}, {"timeout", -ETIMEDOUT},
};

static int refused(const char *op, json_object *error, struct err *e)
{
	const char *reason = j_get_str(error, "reason", "");

	for (size_t i = 0; i < ARRAY_LEN(refusals); i++) {
		if (!strcmp(refusals[i].reason, reason))
			return err_set(e, refusals[i].code, "VM: %s: %s", op,
				       j_get_str(error, "text", reason));
	}
	return err_set(e, -EPROTO, "VM: %s: %s", op, j_get_str(error, "text", reason));
}

static int answered(const char *op, json_object *o, json_object **result, struct err *e)
{
	json_object *error = j_get(o, "error");

	if (error)
		return refused(op, error, e);
	if (result)
		*result = json_object_get(j_get(o, "result"));
	return 0;
}

static int await(struct talk *t, int64_t id, const char *op, uint64_t limit, json_object **result,
		 struct err *e)
{
	for (;;) {
		struct pollfd p = {t->fd, POLLIN, 0};
		int rc = 0;
		json_object *o = take(t, &rc);

		if (rc)
			return err_set(e, rc, "VM: %s: the VM has ended", op);
		if (o && j_get_int(o, "id", 0) == id) {
			rc = answered(op, o, result, e);
			json_object_put(o);
			return rc;
		}
		if (o) {
			tell(t, o);
			json_object_put(o);
		}
		/* After an event, too: they may come without end. */
		if (clock_ns() >= limit)
			return err_set(e, -ETIMEDOUT, "VM: %s: no answer in time", op);
		if (o)
			continue;
		(void)poll(&p, 1, ms_until(limit));
	}
}

int talk_call(struct talk *t, const char *op, json_object *params, const int *fds, unsigned nfds,
	      int ms, json_object **result, struct err *e)
{
	json_object *o = json_object_new_object();
	int64_t id = ++t->last;
	int rc;

	if (result)
		*result = NULL;
	j_int(o, "id", id);
	j_str(o, "op", op);
	if (params)
		j_obj(o, "params", params);
	rc = packet_send(t, o, fds, nfds);
	json_object_put(o);
	if (rc)
		return err_sys(e, rc == -ECONNRESET ? -EPIPE : rc, "VM: %s", op);
	return await(t, id, op, clock_ns() + (uint64_t)ms * 1000000, result, e);
}

/* ---- open ---- */

int vm_talk_open(struct talk *t, int at, int ms, talk_event *event, void *ctx, json_object **result,
		 struct err *e)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int rc;

	*t = (struct talk){.fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0),
			   .event = event,
			   .ctx = ctx};
	snprintf(a.sun_path, sizeof(a.sun_path), "/proc/self/fd/%d/control", at);
	if (t->fd < 0 || connect(t->fd, (struct sockaddr *)&a, sizeof(a))) {
		rc = errno == ECONNREFUSED ? -ENOENT : -errno;
		fd_close(&t->fd);
		return err_set(e, rc, "VM: %s",
			       rc == -ENOENT ? "it does not run" : strerrordesc_np(-rc));
	}
	rc = talk_call(t, "hello", NULL, NULL, 0, ms, result, e);
	if (rc)
		vm_talk_close(t);
	return rc;
}

void vm_talk_close(struct talk *t)
{
	fd_close(&t->fd);
}

/* ---- commands ---- */

void talk_ignore(void *ctx, const char *event, json_object *data)
{
	(void)ctx;
	(void)event;
	(void)data;
}

int talk_exec(struct talk *t, const struct talk_command *c, int64_t *id, struct err *e)
{
	json_object *params = json_object_new_object(), *config = json_object_new_object();
	json_object *argv = json_object_new_array(), *result;
	int rc;

	for (unsigned i = 0; c->argv[i]; i++)
		json_object_array_add(argv, json_object_new_string(c->argv[i]));
	j_obj(config, "command", argv);
	j_bool(config, "tty", c->tty);
	j_obj(params, "config", config);
	j_bool(params, "queue", true);
	if (t->boot_timeout)
		j_int(params, "queue_seconds", t->boot_timeout);
	j_bool(params, "tied", true);
	if (c->tty && c->rows && c->cols) {
		j_int(params, "rows", c->rows);
		j_int(params, "cols", c->cols);
	}
	rc = talk_call(t, "exec", params, c->fds, 3, EXEC_MS, &result, e);
	if (rc)
		return rc;
	*id = j_get_int(result, "exec", 0);
	json_object_put(result);
	return *id > 0 ? 0 : err_set(e, -EPROTO, "VM: exec: no number");
}

struct guest_run {
	struct talk talk;
	int64_t id;
	int out[2], err[2]; /* pipes */
	char *text;         /* what it wrote */
	size_t len;
	char said[160]; /* the end of its errors */
	size_t nsaid;
	bool over;
	int status;
	char why[200];
};

static void guest_event(void *ctx, const char *event, json_object *data)
{
	struct guest_run *g = ctx;

	if (strcmp(event, "exec-ended") != 0 || j_get_int(data, "exec", 0) != g->id || !g->id)
		return;
	g->over = true;
	g->status = (int)j_get_int(data, "status", 125);
	snprintf(g->why, sizeof(g->why), "%s", j_get_str(data, "text", ""));
}

/* What is there now, into as much as there is room for; the rest is thrown away. A command of ours
 * writes little. */
static void read_stream(int *fd, char *to, size_t size, size_t *len)
{
	char buf[READ_SIZE];

	for (int i = 0; i < READS && *fd >= 0; i++) {
		ssize_t n = read(*fd, buf, sizeof(buf));
		size_t room = size - *len, take = n > 0 && (size_t)n < room ? (size_t)n : room;

		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n <= 0) {
			fd_close(fd);
			return;
		}
		memcpy(to + *len, buf, take);
		*len += take;
	}
}

static void guest_read(struct guest_run *g)
{
	read_stream(&g->out[0], g->text, OUTPUT_MAX, &g->len);
	read_stream(&g->err[0], g->said, sizeof(g->said) - 1, &g->nsaid);
}

static int guest_loop(struct guest_run *g, int ms, struct err *e)
{
	uint64_t limit = clock_ns() + (uint64_t)ms * 1000000;

	while (!g->over && clock_ns() < limit) {
		struct pollfd p[] = {
			{g->talk.fd, POLLIN, 0}, {g->out[0], POLLIN, 0}, {g->err[0], POLLIN, 0}};

		(void)poll(p, 3, ms_until(limit));
		/* Its answer may have been the last thing that was said. */
		if (talk_turn(&g->talk) && !g->over)
			return err_set(e, -EPIPE, "VM: it has ended");
		guest_read(g);
	}
	return g->over ? 0 : err_set(e, -ETIMEDOUT, "the guest does not answer");
}

static int guest_start(struct guest_run *g, int at, const char *const *argv, unsigned boot_timeout,
		       struct err *e)
{
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC), rc;
	const int fds[] = {null, g->out[1], g->err[1]};
	const struct talk_command c = {.argv = argv, .fds = fds};

	rc = vm_talk_open(&g->talk, at, HELLO_MS, guest_event, g, NULL, e);
	g->talk.boot_timeout = boot_timeout;
	if (!rc)
		rc = talk_exec(&g->talk, &c, &g->id, e);
	fd_close(&null);
	fd_close(&g->out[1]);
	fd_close(&g->err[1]);
	return rc;
}

static void guest_failed(struct guest_run *g, const char *verb, struct err *e)
{
	g->said[g->nsaid] = 0;
	g->said[strcspn(g->said, "\n")] = 0;
	err_clean(g->said);
	err_set(e, -EIO, "%s%s%s", g->said[0] ? g->said : verb,
		g->said[0] ? "" : ": the guest says no: ", g->said[0] ? "" : g->why);
}

int talk_guest(int at, const char *const *args, int ms, char **out, struct err *e)
{
	const char *argv[ARGS_MAX + 2] = {CT_PROGRAM};

	for (unsigned i = 0; i < ARGS_MAX && args[i]; i++)
		argv[i + 1] = args[i];
	return talk_program(at, argv, 0, ms, out, e);
}

int talk_program(int at, const char *const *argv, unsigned boot_timeout, int ms, char **out,
		 struct err *e)
{
	struct guest_run g = {.talk.fd = -1, .out = {-1, -1}, .err = {-1, -1}};
	int rc = 0;

	g.text = calloc(1, OUTPUT_MAX + 1);
	if (!g.text || pipe2(g.out, O_CLOEXEC | O_NONBLOCK) || pipe2(g.err, O_CLOEXEC | O_NONBLOCK))
		rc = err_sys(e, g.text ? -errno : -ENOMEM, "pipes");
	if (!rc)
		rc = guest_start(&g, at, argv, boot_timeout, e);
	if (!rc)
		rc = guest_loop(&g, ms, e);
	if (!rc)
		guest_read(&g);
	vm_talk_close(&g.talk);
	for (int i = 0; i < 2; i++) {
		fd_close(&g.out[i]);
		fd_close(&g.err[i]);
	}
	if (!rc && g.status)
		guest_failed(&g, argv[1] ? argv[1] : argv[0], e);
	if (!rc && out) {
		*out = g.text;
		g.text = NULL;
	}
	free(g.text);
	return rc ? rc : g.status;
}
