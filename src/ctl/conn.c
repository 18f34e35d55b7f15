/* SPDX-License-Identifier: BSD-2-Clause */
/* One connection to insulad. See ctl.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>

#include "ctl.h"
#include "spec/json.h"

#define MAX_LINE (64u << 20) /* vm.list of many */
#define DEPTH 32

int conn_open(struct conn *c, const char *path, struct err *e)
{
	*c = (struct conn){.fd = wire_open(path, e), .got = -1};
	return c->fd < 0 ? e->code : 0;
}

void conn_close(struct conn *c)
{
	fd_close(&c->fd);
	fd_close(&c->got);
	free(c->in);
	c->in = NULL;
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
		rc = wire_send(c->fd, line, strlen(line), fds, nfds);
		free(line);
	}
	/* It has hung up: what it said before that tells why. */
	if (rc == -EPIPE || rc == -ECONNRESET)
		rc = 0;
	return rc ? err_sys(e, rc, "insulad") : c->id;
}

static int conn_receive(struct conn *c, struct err *e)
{
	int n;

	if (c->size - c->nin < 4096) {
		size_t size = c->size ? c->size * 2 : 16384;
		char *p = size > MAX_LINE ? NULL : realloc(c->in, size);

		if (!p)
			return err_set(e, -ENOMEM, "insulad: an answer is too long");
		c->in = p;
		c->size = size;
	}
	n = wire_recv(c->fd, c->in + c->nin, c->size - c->nin, &c->got);
	if (n <= 0)
		return n ? err_sys(e, n, "insulad")
			 : err_set(e, -EPIPE, "insulad has closed the connection");
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
		if (conn_receive(c, e))
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

#define RPC_BAD_PARAMS (-32602) /* JSON-RPC 2.0, 5.1 */

static int code_of(json_object *error, const char *reason)
{
	return !strcmp(reason, "not-found")                    ? CONN_NOT_FOUND
	       : !strcmp(reason, "wrong-state")                ? CONN_WRONG_STATE
	       : j_get_int(error, "code", 0) == RPC_BAD_PARAMS ? CONN_BAD_INPUT
							       : CONN_REFUSED;
}

/* Has its message the field, the value and what was expected in it? A configuration's has. */
static bool says_all(json_object *error, const char *reason)
{
	return !strcmp(reason, "config") && strchr(j_get_str(error, "message", ""), ':');
}

json_object *conn_result(json_object *answer, struct err *e)
{
	json_object *error = j_get(answer, "error"), *data = j_get(error, "data");
	const char *field = j_get_str(data, "field", NULL), *value = j_get_str(data, "value", NULL);
	const char *expected = j_get_str(data, "expected", NULL);

	const char *reason = j_get_str(data, "reason", "");

	if (!error)
		return json_object_get(j_get(answer, "result"));
	if (!strcmp(reason, "missing") && field) {
		err_set(e, -CONN_BAD_INPUT, "%s is missing", field);
		return NULL;
	}
	if (says_all(error, reason))
		field = value = expected = NULL;
	err_set(e, -code_of(error, reason), "%s%s%s%s%s%s%s",
		j_get_str(error, "message", "refused"), field && *field ? ": " : "",
		field ? field : "", value ? ": " : "", value ? value : "",
		expected ? "; expected " : "", expected ? expected : "");
	return NULL;
}

/* Or a refusal of the connection itself, which has no id. */
static bool is_answer(json_object *o, int64_t id)
{
	return j_get_int(o, "id", -1) == id || (j_get(o, "error") && !j_get(o, "id"));
}

json_object *conn_wait(struct conn *c, int64_t id, struct err *e)
{
	json_object *answer, *result;

	while ((answer = conn_next(c, e)) && !is_answer(answer, id))
		json_object_put(answer);
	if (!answer)
		return NULL;
	result = conn_result(answer, e);
	json_object_put(answer);
	return result;
}

json_object *conn_call(struct conn *c, const char *method, json_object *params, struct err *e)
{
	int64_t id = conn_send(c, method, params, NULL, 0, e);

	return id < 0 ? NULL : conn_wait(c, id, e);
}
