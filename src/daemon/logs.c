/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * vm.logs: the log of a VM, page by page, or followed to the VM's end.
 *
 * The files are read by libuv's threads, one page of one request at a time: a slow disk keeps
 * nobody else waiting. A request that follows looks again each FOLLOW_MS, also while its client has
 * not read what it has got; whoever is too slow misses lines and is told so. It has the files open,
 * so it gets the last lines of a VM that is deleted at its end.
 */
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>
#include <insula/log.h>

#include "client.h"
#include "daemon.h"
#include "foreign.h"
#include "logs.h"
#include "machine.h"
#include "method.h"
#include "methods.h"
#include "record.h"
#include "request.h"
#include "spec/json.h"
#include "state.h"
#include "watch.h"
#include "logread.h"

#define LIMIT_DEFAULT 65536
#define FOLLOW_MS 100
#define JOBS_PER_UID 32

struct logs_job {
	uv_work_t work;
	struct logs_job *next;
	struct daemon *d;
	struct request *r; /* its client may be gone; it is answered all the same */
	struct machine *m; /* NULL: the VM has ended */
	char id[ID_LEN + 1];
	struct timer *timer; /* until it is read again; NULL: it is being read */
	bool follow;
	bool ended; /* before this page was read */
	struct logread read;
};

static void read_again(struct logs_job *j);

static void job_free(struct logs_job *j)
{
	struct daemon *d = j->d;
	struct logs_job **at = &d->logs;

	while (*at != j)
		at = &(*at)->next;
	*at = j->next;
	d->nlogs--;
	fd_close(&j->read.fd[0]);
	fd_close(&j->read.fd[1]);
	json_object_put(j->read.lines);
	free(j);
	foreign_go_on(d);
}

static json_object *page(struct logs_job *j)
{
	json_object *o = json_object_new_object();
	char next[LOGREAD_CURSOR];

	logread_cursor(&j->read, next);
	j_obj(o, "lines", j->read.lines);
	j->read.lines = NULL;
	j_str(o, "next", next);
	if (j->read.missed)
		j_bool(o, "missed", true);
	return o;
}

static void logs_answer(struct logs_job *j)
{
	json_object *o = page(j);

	j_bool(o, "more", j->read.more);
	j_bool(o, "end", j->ended && !j->read.more);
	request_answer(j->r, o);
	job_free(j);
}

static void notify(struct logs_job *j)
{
	json_object *o = json_object_new_object(), *params = page(j);

	j_str(params, "id", j->id);
	j_obj(params, "request", json_object_get(j->r->id));
	j_str(o, "jsonrpc", "2.0");
	j_str(o, "method", "log");
	j_obj(o, "params", params);
	client_send(j->r->client, j_text(o), -1);
	json_object_put(o);
}

static void on_timer(void *ctx)
{
	struct logs_job *j = ctx;

	j->timer = NULL;
	read_again(j);
}

static void look_later(struct logs_job *j)
{
	j->timer = timer_after(&j->d->loop, FOLLOW_MS, on_timer, j);
	if (!j->timer)
		logs_answer(j);
}

/* It does not read fast enough: no more for it now. */
static bool is_slow(const struct client *c)
{
	return c->queued > c->d->conf.max_queue / 4;
}

static void follow(struct logs_job *j)
{
	if (json_object_array_length(j->read.lines) || j->read.missed)
		notify(j);
	json_object_put(j->read.lines);
	j->read.lines = NULL;
	if (j->r->client && !is_slow(j->r->client) && (j->read.more || (!j->m && !j->ended)))
		read_again(j);
	else
		look_later(j);
}

static void on_read(uv_work_t *w, int status)
{
	struct logs_job *j = w->data;

	(void)status;
	if (!j->follow || !j->r->client || (j->ended && !j->read.more))
		logs_answer(j);
	else
		follow(j);
}

static void do_read(uv_work_t *w)
{
	struct logs_job *j = w->data;

	logread_next(&j->read, j->ended);
}

static void read_again(struct logs_job *j)
{
	const struct refusal no_thread = {RPC_INTERNAL, "no-memory", NULL, NULL, NULL, NULL};

	if (!j->r->client || !is_slow(j->r->client)) {
		j->ended = !j->m;
		j->work.data = j;
		if (!uv_queue_work(&j->d->loop, &j->work, do_read, on_read))
			return;
		request_refuse(j->r, &no_thread);
		job_free(j);
	} else {
		look_later(j);
	}
}

void logs_ended(struct machine *m)
{
	for (struct logs_job *j = m->d->logs, *next; j; j = next) {
		next = j->next;
		if (j->m != m)
			continue;
		j->m = NULL;
		if (!j->timer)
			continue; /* what is read now may lack the end: it is read once more */
		timer_cancel(j->timer);
		j->timer = NULL;
		read_again(j);
	}
}

void logs_close(struct daemon *d)
{
	for (struct logs_job *j = d->logs, *next; j; j = next) {
		next = j->next;
		j->m = NULL;
		if (j->timer) {
			timer_cancel(j->timer);
			logs_answer(j);
		}
	}
}

/* ---- the request ---- */

static bool is_too_much(struct daemon *d, struct request *r)
{
	unsigned n = 0;

	for (const struct logs_job *j = d->logs; j; j = j->next)
		n += j->r->uid == r->uid; /* also of a client that has gone: it is being read */
	if (n < JOBS_PER_UID || !r->client->who.uid)
		return false;
	method_refuse(r, RPC_BUSY, "busy", "this user reads as many logs as may be read at once");
	return true;
}

void method_vm_logs(struct daemon *d, struct request *r)
{
	struct machine *m = method_named(d, r);
	const char *after = j_get_str(r->params, "after", NULL);
	struct logs_job *j;

	if (!m || is_too_much(d, r))
		return;
	if (foreign_table_full(d, r->uid)) {
		method_refuse_field(r, RPC_LIMIT, "limit", "descriptors", NULL,
				    "fewer VMs and connections: insulad has no descriptors left");
		return;
	}
	j = calloc(1, sizeof(*j));
	if (!j) {
		method_refuse(r, RPC_INTERNAL, "no-memory", NULL);
		return;
	}
	*j = (struct logs_job){.next = d->logs, .d = d, .r = r, .m = machine_active(m) ? m : NULL};
	strcpy(j->id, m->r.id);
	j->follow = j_get_bool(r->params, "follow", false);
	j->read = (struct logread){.fd = {state_file_open(d->state, m->r.id, "log"),
					  state_file_open(d->state, m->r.id, "log2")},
				   .tail = j_get_int(r->params, "tail", -1),
				   .since_ms = j_get_int(r->params, "since_ms", 0),
				   .file_max = d->conf.log_max,
				   .limit = (size_t)j_get_int(r->params, "limit", LIMIT_DEFAULT)};
	d->logs = j;
	d->nlogs++;
	if (after && !logread_place(&j->read, after)) {
		method_refuse_field(r, RPC_BAD_PARAMS, "value", "after", after,
				    "\"next\" of an earlier answer");
		job_free(j);
		return;
	}
	read_again(j);
}
