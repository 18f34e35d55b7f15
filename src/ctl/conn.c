/* SPDX-License-Identifier: BSD-2-Clause */
/* One connection to insulad. See ctl.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/scm.h>

#include "ctl.h"
#include "supervisor/json.h"

#define MAX_LINE (64u << 20) /* vm.list of many */
#define DEPTH 32

int conn_open(struct conn *c, const char *path, struct err *e)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};

	*c = (struct conn){.fd = -1, .got = -1};
	if (strlen(path) >= sizeof(a.sun_path))
		return err_set(e, -ENAMETOOLONG, "--socket: %.80s: expected at most %zu bytes",
			       path, sizeof(a.sun_path) - 1);
	strcpy(a.sun_path, path);
	c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&a, sizeof(a))) {
		int rc = -errno;

		conn_close(c);
		return err_sys(e, rc, "%s (is insulad running, and may you use its socket?)", path);
	}
	return 0;
}

void conn_close(struct conn *c)
{
	fd_close(&c->fd);
	fd_close(&c->got);
	free(c->in);
	c->in = NULL;
}

static int send_all(int fd, const char *text, size_t len, const int *fds, unsigned nfds)
{
	union scm_buf ctl;

	while (len) {
		struct iovec iov = {(void *)(uintptr_t)text, len};
		struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
		ssize_t n;

		scm_attach(&m, &ctl, fds, nfds);
		n = sendmsg(fd, &m, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		nfds = 0; /* they went with the first bytes */
		text += n;
		len -= (size_t)n;
	}
	return 0;
}

int64_t conn_send(struct conn *c, const char *method, json_object *params, const int *fds,
		  unsigned nfds, struct err *e)
{
	json_object *o = json_object_new_object();
	char *line;
	int rc;

	j_str(o, "jsonrpc", "2.0");
	j_int(o, "id", ++c->id);
	j_str(o, "method", method);
	if (params)
		j_obj(o, "params", params);
	rc = asprintf(&line, "%s\n", j_text(o)) < 0 ? -ENOMEM : 0;
	json_object_put(o);
	if (!rc) {
		rc = send_all(c->fd, line, strlen(line), fds, nfds);
		free(line);
	}
	return rc ? err_sys(e, rc, "insulad") : c->id;
}

/* The last one that comes counts. */
static void take_fd(struct conn *c, struct msghdr *m)
{
	unsigned n = 0;
	int fd;

	(void)scm_take(m, &fd, &n, 1);
	if (n) {
		fd_close(&c->got);
		c->got = fd;
	}
}

static int receive(struct conn *c, struct err *e)
{
	union scm_buf ctl;
	struct iovec iov;
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t n;

	if (c->size - c->nin < 4096) {
		size_t size = c->size ? c->size * 2 : 16384;
		char *p = size > MAX_LINE ? NULL : realloc(c->in, size);

		if (!p)
			return err_set(e, -ENOMEM, "insulad: an answer is too long");
		c->in = p;
		c->size = size;
	}
	iov = (struct iovec){c->in + c->nin, c->size - c->nin};
	do {
		scm_expect(&m, &ctl, 1);
		n = recvmsg(c->fd, &m, MSG_CMSG_CLOEXEC);
	} while (n < 0 && errno == EINTR);
	if (n <= 0)
		return n ? err_sys(e, -errno, "insulad")
			 : err_set(e, -EPIPE, "insulad has closed the connection");
	take_fd(c, &m);
	c->nin += (size_t)n;
	return 0;
}

bool conn_has_line(const struct conn *c)
{
	return c->nin && memchr(c->in, '\n', c->nin);
}

json_object *conn_next(struct conn *c, struct err *e)
{
	const char *why;
	json_object *o;
	size_t len;

	while (!conn_has_line(c)) {
		if (receive(c, e))
			return NULL;
	}
	len = (size_t)((char *)memchr(c->in, '\n', c->nin) - c->in);
	o = j_parse(c->in, len, DEPTH, &why);
	c->nin -= len + 1;
	memmove(c->in, c->in + len + 1, c->nin);
	if (!o)
		err_set(e, -EPROTO, "insulad: not JSON: %s", why);
	return o;
}

json_object *conn_result(json_object *answer, struct err *e)
{
	json_object *error = j_get(answer, "error"), *data = j_get(error, "data");
	const char *field = j_get_str(data, "field", NULL), *value = j_get_str(data, "value", NULL);
	const char *expected = j_get_str(data, "expected", NULL);

	if (!error)
		return json_object_get(j_get(answer, "result"));
	err_set(e, -EREMOTEIO, "%s%s%s%s%s%s%s", j_get_str(error, "message", "refused"),
		field ? ": " : "", field ? field : "", value ? ": " : "", value ? value : "",
		expected ? "; expected " : "", expected ? expected : "");
	return NULL;
}

json_object *conn_call(struct conn *c, const char *method, json_object *params, struct err *e)
{
	int64_t id = conn_send(c, method, params, NULL, 0, e);
	json_object *answer, *result;

	if (id < 0)
		return NULL;
	while ((answer = conn_next(c, e)) && j_get_int(answer, "id", -1) != id)
		json_object_put(answer);
	if (!answer)
		return NULL;
	result = conn_result(answer, e);
	json_object_put(answer);
	return result;
}
