/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * JSON-RPC 2.0: from a line to requests, and from answers to lines.
 *
 * https://www.jsonrpc.org/specification. Parameters go by name only. The answers of a batch go out
 * together, when the last of them is there.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/log.h>

#include "client.h"
#include "daemon.h"
#include "dlog.h"
#include "foreign.h"
#include "methods.h"
#include "request.h"
#include "spec/json.h"
#include "watch.h"
#include "schema.h"

#define ID_MAX 128

struct batch {
	struct client *client; /* only compared with NULL: requests know when it goes */
	json_object *answers;
	size_t bytes;  /* of the answers so far */
	unsigned open; /* requests that have not been answered, and one while the line is read */
};

/* ---- answers ---- */

static json_object *frame(json_object *id)
{
	json_object *o = json_object_new_object();

	j_str(o, "jsonrpc", "2.0");
	j_obj(o, "id", json_object_get(id));
	return o;
}

static const char *words_of(enum rpc_code code)
{
	static const struct {
		enum rpc_code code;
		const char *words;
	} known[] = {
		{RPC_PARSE, "Parse error"},
		{RPC_INVALID, "Invalid Request"},
		{RPC_NO_METHOD, "Method not found"},
		{RPC_BAD_PARAMS, "Invalid params"},
		{RPC_INTERNAL, "Internal error"},
		{RPC_NOT_FOUND, "Not found"},
		{RPC_EXISTS, "Exists"},
		{RPC_STATE, "Wrong state"},
		{RPC_LIMIT, "Limit reached"},
		{RPC_FAILED, "Failed"},
		{RPC_TIMEOUT, "Timeout"},
		{RPC_BUSY, "Busy"},
		{RPC_UNSUPPORTED, "Not supported"},
		{RPC_DENIED, "Denied"},
	};

	for (size_t i = 0; i < ARRAY_LEN(known); i++) {
		if (known[i].code == code)
			return known[i].words;
	}
	return "Error";
}

static json_object *error_frame(json_object *id, const struct refusal *why)
{
	json_object *o = frame(id), *error = json_object_new_object();
	json_object *data = json_object_new_object();
	char text[512];

	snprintf(text, sizeof(text), "%s%s%s", words_of(why->code), why->text ? ": " : "",
		 why->text ? why->text : "");
	err_clean(text);
	j_str(data, "reason", why->reason);
	j_str(data, "field", why->field);
	j_str(data, "value", why->value);
	j_str(data, "expected", why->expected);
	j_int(error, "code", why->code);
	j_str(error, "message", text);
	j_obj(error, "data", data);
	j_obj(o, "error", error);
	return o;
}

static void close_batch(struct batch *b, struct client *c)
{
	if (--b->open)
		return;
	if (c && json_object_array_length(b->answers))
		client_send(c, j_text(b->answers), -1);
	json_object_put(b->answers);
	free(b);
}

/* What it has asked for in this batch, and what it has not read: it is not told more than it may
 * leave unread. */
static bool batch_is_full(const struct client *c, const struct batch *b)
{
	return c->queued + b->bytes > c->d->conf.max_queue;
}

/* Takes `o` over. */
static void send_frame(struct client *c, struct batch *b, json_object *o, int fd)
{
	if (b && c) {
		b->bytes += strlen(j_text(o));
		json_object_array_add(b->answers, o);
		return;
	}
	if (c)
		client_send(c, j_text(o), fd);
	json_object_put(o);
}

static void unlink_request(struct request *r)
{
	struct request **at = r->client ? &r->client->requests : NULL;

	while (at && *at && *at != r)
		at = &(*at)->next;
	if (at && *at) {
		*at = r->next;
		r->client->nrequests--;
	}
}

void request_close_fds(struct request *r)
{
	while (r->nfds)
		foreign_close(r->d, r->uid, &r->fd[--r->nfds]);
}

/* Not under the feet of a method that has just answered it. */
static void destroy(struct request *r)
{
	if (r->running) {
		r->over = true;
		return;
	}
	request_close_fds(r);
	timer_cancel(r->timer);
	json_object_put(r->params);
	json_object_put(r->id);
	free(r);
}

void request_free(struct request *r)
{
	if (r->batch)
		close_batch(r->batch, r->client);
	destroy(r);
}

static void rpc_finish(struct request *r, json_object *o, int fd)
{
	struct client *c = r->client;

	unlink_request(r);
	/* A late one: when it was asked for there was room, and what it did is done. */
	if (c && r->batch && !r->running && batch_is_full(c, r->batch)) {
		dlog(LOG_LVL_WARN, NULL,
		     "client of uid %u: a batch has more answers than it may; closed",
		     (unsigned)c->who.uid);
		client_close(c);
		c = NULL;
	}
	if (r->notification)
		json_object_put(o);
	else
		send_frame(c, r->batch, o, fd);
	if (r->batch)
		close_batch(r->batch, c);
	destroy(r);
	if (c)
		client_settle(c);
}

static void rpc_answer(struct request *r, json_object *result, int fd)
{
	json_object *o = frame(r->id);

	j_obj(o, "result", result ? result : json_object_new_object());
	rpc_finish(r, o, fd);
}

/* A copy for whoever has asked; -1: there is no room for it. */
static int copy_for(struct client *c, int fd)
{
	int own = client_has_room(c) ? fd_copy(fd) : -1;

	if (own >= 0)
		foreign_took(c->d, c->who.uid, 1);
	return own;
}

void request_answer_fd(struct request *r, json_object *result, int fd)
{
	static const struct refusal full = {
		RPC_LIMIT, "limit", "descriptors", NULL, "that earlier answers are read first",
		NULL};
	bool wanted = fd >= 0 && r->client && !r->batch && !r->notification;
	int own = wanted ? copy_for(r->client, fd) : -1;

	if (!wanted || own >= 0) {
		rpc_answer(r, result, own);
		return;
	}
	json_object_put(result);
	request_refuse(r, &full);
}

void request_answer(struct request *r, json_object *result)
{
	rpc_answer(r, result, -1);
}

void request_refuse(struct request *r, const struct refusal *why)
{
	if (r->client)
		r->client->d->n.refusals++;
	rpc_finish(r, error_frame(r->id, why), -1);
}

static void refuse_frame(struct client *c, struct batch *b, json_object *id,
			 const struct refusal *why)
{
	c->d->n.refusals++;
	send_frame(c, b, error_frame(id, why), -1);
}

void rpc_refuse_line(struct client *c, const struct refusal *why)
{
	refuse_frame(c, NULL, NULL, why);
}

/* ---- requests ---- */

/* A number that is too large would come back as another: json-c takes the nearest. */
static bool id_is_good(json_object *v)
{
	if (json_object_is_type(v, json_type_int))
		return json_object_get_int64(v) != INT64_MAX &&
		       json_object_get_int64(v) != INT64_MIN;
	return json_object_is_type(v, json_type_string) && json_object_get_string_len(v) <= ID_MAX;
}

static const struct refusal *check_request(json_object *o)
{
	static const struct refusal no_object = {RPC_INVALID,        "type", NULL, NULL,
						 "a request object", NULL},
				    version = {RPC_INVALID, "value",   "jsonrpc",
					       NULL,        "\"2.0\"", NULL},
				    method = {RPC_INVALID, "type",     "method",
					      NULL,        "a string", NULL},
				    id = {RPC_INVALID,
					  "type",
					  "id",
					  NULL,
					  "a string of at most 128 bytes, a whole number of 63 "
					  "bits and a sign, or null",
					  NULL};
	json_object *v;

	if (!json_object_is_type(o, json_type_object))
		return &no_object;
	if (json_object_object_get_ex(o, "id", &v) && v && !id_is_good(v))
		return &id;
	if (strcmp(j_get_str(o, "jsonrpc", ""), "2.0") != 0)
		return &version;
	return j_get_str(o, "method", NULL) ? NULL : &method;
}

static struct request *make_request(struct client *c, struct batch *b, json_object *o)
{
	struct request *r = calloc(1, sizeof(*r));
	json_object *id;

	if (!r)
		return NULL;
	r->client = c;
	r->d = c->d;
	r->uid = c->who.uid;
	r->batch = b;
	r->notification = !json_object_object_get_ex(o, "id", &id);
	r->id = r->notification ? NULL : json_object_get(id);
	r->params =
		j_get(o, "params") ? json_object_get(j_get(o, "params")) : json_object_new_object();
	for (unsigned i = 0; i < REQUEST_FDS; i++)
		r->fd[i] = -1;
	r->next = c->requests;
	c->requests = r;
	c->nrequests++;
	if (b)
		b->open++;
	return r;
}

static void refuse_method(struct request *r, const char *name)
{
	const char *meant = method_meant(name);
	char expected[96];
	const struct refusal why = {RPC_NO_METHOD, "method", "method", name, expected, NULL};

	snprintf(expected, sizeof(expected), "a method that rpc.discover names%s%s%s",
		 meant ? "; did you mean " : "", meant ? meant : "", meant ? "?" : "");
	request_refuse(r, &why);
}

static void dispatch(struct daemon *d, struct request *r, const char *name)
{
	struct problem p;
	struct refusal why;
	size_t index;

	r->method = method_find(name, &index);
	if (!r->method) {
		refuse_method(r, name);
	} else if (schema_validate(d->schemas.params[index], r->params, &p)) {
		why = (struct refusal){RPC_BAD_PARAMS, p.reason,   p.field,
				       p.value,        p.expected, NULL};
		request_refuse(r, &why);
	} else {
		while (r->method->takes_fds && r->nfds < r->client->ngot) {
			r->fd[r->nfds] = r->client->got[r->nfds];
			r->nfds++;
		}
		if (r->method->takes_fds) {
			r->more_fds = r->client->got_more;
			r->client->got_more = false;
			r->client->ngot = 0;
		}
		r->running = true;
		r->method->run(d, r);
		r->running = false;
		if (r->over)
			destroy(r);
	}
}

static void one(struct daemon *d, struct client *c, struct batch *b, json_object *o)
{
	const struct refusal *bad = check_request(o);
	struct request *r;
	json_object *id = NULL;

	d->n.requests++;
	if (bad) {
		if (strcmp(bad->field ? bad->field : "id", "id") != 0)
			id = j_get(o, "id");
		d->n.bad_lines++;
		refuse_frame(c, b, id, bad);
		return;
	}
	r = make_request(c, b, o);
	if (r)
		dispatch(d, r, j_get_str(o, "method", ""));
	else
		client_close(c);
}

static void in_batch(struct daemon *d, struct client *c, struct batch *b, json_object *o)
{
	static const struct refusal full = {RPC_LIMIT,
					    "batch",
					    NULL,
					    NULL,
					    "answers of at most max_queue bytes together",
					    "the batch has as many answers as it may"};

	if (!batch_is_full(c, b)) {
		one(d, c, b, o);
	} else if (j_get(o, "id")) {
		d->n.requests++;
		refuse_frame(c, b, j_get(o, "id"), &full);
	}
}

static void many(struct daemon *d, struct client *c, json_object *list)
{
	static const struct refusal wrong = {
		RPC_INVALID, "value", NULL, NULL, "a batch of 1 to 64 requests", NULL};
	size_t n = json_object_array_length(list);
	struct batch *b;

	if (n < 1 || n > RPC_BATCH) {
		d->n.bad_lines++;
		rpc_refuse_line(c, &wrong);
		return;
	}
	b = calloc(1, sizeof(*b));
	if (!b) {
		client_close(c);
		return;
	}
	b->answers = json_object_new_array();
	b->open = 1;
	for (size_t i = 0; i < n && !c->gone; i++)
		in_batch(d, c, b, json_object_array_get_idx(list, i));
	close_batch(b, c->gone ? NULL : c);
}

static bool is_blank(const char *text, size_t len)
{
	while (len && memchr(" \t\r", text[len - 1], 3))
		len--;
	return !len;
}

void rpc_line(struct daemon *d, struct client *c, const char *text, size_t len)
{
	const char *why = NULL;
	json_object *o;

	if (is_blank(text, len))
		return;
	o = j_parse(text, len, RPC_DEPTH, &why);
	if (!o) {
		bool null = !strcmp(why, "null");
		const struct refusal bad = {
			null ? RPC_INVALID : RPC_PARSE,         null ? "type" : "parse", NULL, NULL,
			"one JSON object or array on one line", null ? NULL : why};

		d->n.bad_lines++;
		rpc_refuse_line(c, &bad);
	} else if (json_object_is_type(o, json_type_array)) {
		many(d, c, o);
	} else {
		one(d, c, NULL, o);
	}
	json_object_put(o);
}
