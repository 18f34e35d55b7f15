/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The conversation with a supervisor: packets of JSON, see supervisor/control/control.h.
 *
 * A supervisor runs as its user, who may have taken it over: what it says is checked, and can harm
 * nobody but this VM. A question that it does not answer in time is answered for it.
 *
 * It may be of another release, since VMs outlive an upgrade: members and events that one side does
 * not know are ignored, members that the other does not send have a default, and an operation that
 * it does not know is refused.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>
#include <insula/log.h>

#include "clone.h"
#include "daemon.h"
#include "dlog.h"
#include "event.h"
#include "exec.h"
#include "foreign.h"
#include "host.h"
#include "link.h"
#include "machine.h"
#include "methods.h"
#include "pool.h"
#include "record.h"
#include "request.h"
#include "spawn.h"
#include "spec/json.h"
#include "talk.h"
#include "watch.h"

#define PACKET (64u << 10)  /* that a supervisor takes */
#define ANSWER (128u << 10) /* that it gives: metadata, all of it quotes */
#define PACKETS 8           /* per wake-up */
#define EVENTS 256          /* per second and VM; more wait in its socket */
#define ANSWER_MS 10000
#define AGAIN_MS 100 /* doubled each time */
#define AGAIN_MAX_MS 5000
#define DEPTH 16

struct pending {
	struct pending *next;
	struct machine *m;
	int64_t id;
	reply_fn *done;
	struct request *r;
	struct timer *timer;
};

static void talk_later(struct machine *m);

static json_object *error_object(const char *reason, const char *text)
{
	json_object *o = json_object_new_object();

	j_str(o, "reason", reason);
	j_str(o, "text", text);
	return o;
}

static void talk_finish(struct pending *p, json_object *result, json_object *error, int fd)
{
	struct pending **at = &p->m->pending;

	while (*at != p)
		at = &(*at)->next;
	*at = p->next;
	timer_cancel(p->timer);
	p->done(p->m, p->r, result, error, fd);
	free(p);
}

static void talk_fail(struct pending *p, const char *reason, const char *text)
{
	json_object *error = error_object(reason, text);

	talk_finish(p, NULL, error, -1);
	json_object_put(error);
}

static void on_timeout(void *ctx)
{
	struct pending *p = ctx;

	p->timer = NULL;
	talk_fail(p, "timeout", "the supervisor of this VM does not answer");
}

/* ---- in ---- */

/* False: nobody has asked for it. Whoever has may be root, and it is root's connection then in
 * whose name a descriptor is closed: a file of the supervisor's own making, which could keep that
 * waiting for ever (closer_linux.c), goes to nobody. */
static bool on_answer(struct machine *m, json_object *o, int fd)
{
	int64_t id = j_get_int(o, "id", -1);
	struct pending *p = m->pending;
	json_object *result = j_get(o, "result"), *error = j_get(o, "error");

	while (p && p->id != id)
		p = p->next;
	if (!p)
		return false;
	if (json_object_is_type(error, json_type_object))
		talk_finish(p, NULL, error, -1);
	else if (json_object_is_type(result, json_type_object) && (fd < 0 || host_is_stream(fd)))
		talk_finish(p, result, NULL, fd);
	else
		talk_fail(p, "failed", "the supervisor's answer is malformed");
	return true;
}

/* The guest runs, or stands ready to ("paused"). */
static void on_begun(struct machine *m, bool stands)
{
	machine_set_state(m, stands ? VM_PAUSED : VM_RUNNING);
	event_emit(m->d, m, stands ? "paused" : "running", NULL);
	clone_has_begun(m);
	if (stands)
		pool_vm_stands(m);
	else
		pool_vm_runs(m);
	if (m->starting) {
		struct request *r = m->starting;

		m->starting = NULL;
		r->machine = NULL;
		request_answer(r, machine_json(m, false));
	}
}

/* It matters to us, and the numbers to subscribers. */
static void on_resized(struct machine *m, json_object *data, json_object *copy)
{
	static const char *const members[] = {"requested", "actual", "max"};
	json_object *memory = j_get(data, "memory"), *o;

	vm_resized(m, data);
	j_int(copy, "cpus", machine_cpus(m));
	if (!memory)
		return;
	o = json_object_new_object();
	for (size_t i = 0; i < ARRAY_LEN(members); i++)
		j_int(o, members[i], j_get_int(memory, members[i], 0));
	j_obj(copy, "memory", o);
}

static void talk_on_event(struct machine *m, const char *what, json_object *data)
{
	static const struct {
		const char *name;
		int state; /* -1: no change */
	} known[] = {{"paused", VM_PAUSED},    {"resumed", VM_RUNNING}, {"helper-died", -1},
		     {"helper-restarted", -1}, {"device-failed", -1},   {"exec-ended", -1},
		     {"renewed", -1},          {"snapshot", -1},        {"snapshot-failed", -1},
		     {"device-added", -1},     {"device-removed", -1},  {"resized", -1},
		     {"net-denied", -1}};
	const char *device = j_get_str(data, "device", NULL), *text = j_get_str(data, "text", NULL);

	bool stands = !strcmp(what, "paused") && m->r.state == VM_STARTING;

	if (stands || !strcmp(what, "running")) {
		if (m->r.state == VM_STARTING)
			on_begun(m, stands);
		return;
	}
	for (size_t i = 0; i < ARRAY_LEN(known); i++) {
		json_object *copy;

		if (strcmp(known[i].name, what) != 0)
			continue;
		if (known[i].state == VM_RUNNING)
			pool_vm_runs(m);
		if (known[i].state >= 0 && m->r.state != VM_STOPPING)
			machine_set_state(m, (enum vm_state)known[i].state);
		m->restarts += !strcmp(what, "helper-died");
		m->d->n.restarts += !strcmp(what, "helper-died");
		copy = json_object_new_object();
		if (device && strlen(device) < 32)
			j_str(copy, "device", device);
		if (text && strlen(text) < 400)
			j_str(copy, "text", text);
		if (!strcmp(what, "exec-ended"))
			exec_ended(m, data);
		if (!strcmp(what, "resized"))
			on_resized(m, data, copy);
		if (j_get(data, "exec"))
			j_int(copy, "exec", j_get_int(data, "exec", 0));
		if (j_get(data, "status"))
			j_int(copy, "status", j_get_int(data, "status", 0));
		event_emit(m->d, m, what, copy);
	}
}

/* Unless it has said enough, or its user has too many descriptors here. */
static void listen_to(struct machine *m)
{
	m->held = foreign_full(m->d, m->r.owner.uid);
	if (m->talk)
		link_set(m->talk, m->rest || m->held ? 0 : UV_READABLE);
}

void machines_go_on(struct daemon *d)
{
	for (struct machine *m = d->machines; m; m = m->next) {
		if (m->held)
			listen_to(m);
	}
}

static void on_rested(void *ctx)
{
	struct machine *m = ctx;

	m->rest = NULL;
	m->events = 0;
	listen_to(m);
}

/* A supervisor that floods us is not read from for the rest of the second: subscribers who keep up
 * with all others must not be too slow for one of somebody else's. */
static void count_event(struct machine *m)
{
	uint64_t now = clock_ns(), past = now - m->events_since;

	if (past >= 1000000000u) {
		m->events_since = now;
		m->events = 0;
		past = 0;
	}
	if (++m->events < EVENTS || m->rest)
		return;
	m->rest = timer_after(&m->d->loop, 1000 - past / 1000000, on_rested, m);
	if (m->rest)
		link_set(m->talk, 0);
}

/* 1: a packet was there, 0: none, negative: the end. */
static int on_packet(struct machine *m)
{
	char buf[ANSWER];
	json_object *o;
	const char *why;
	int fd = -1, n;
	unsigned nfds = 0;
	struct link_fds fds = {.fd = &fd, .n = &nfds, .max = 1};
	uint32_t uid = m->r.owner.uid;

	n = link_recv(m->talk, buf, sizeof(buf), &fds);
	foreign_took(m->d, uid, nfds + fds.nrest);
	while (fds.nrest)
		foreign_close(m->d, uid, &fds.rest[--fds.nrest]);
	if (n == -EAGAIN)
		return 0;
	if (n <= 0 && n != -EMSGSIZE) {
		foreign_close(m->d, uid, &fd);
		return -EPIPE;
	}
	/* Whoever reads it in the end may be root, at a terminal. */
	o = n < 0 ? NULL : j_clean(j_parse(buf, (size_t)n, DEPTH, &why));
	if (json_object_is_type(o, json_type_object)) {
		if (j_get_str(o, "event", NULL)) {
			count_event(m);
			talk_on_event(m, j_get_str(o, "event", ""), j_get(o, "data"));
		} else if (!on_answer(m, o, fd)) {
			count_event(m);
		}
	}
	foreign_close(m->d, uid, &fd);
	n = json_object_is_type(o, json_type_object);
	json_object_put(o);
	return n ? 1 : -EPROTO;
}

static void on_readable(void *ctx, int events)
{
	struct machine *m = ctx;
	bool ends = events & UV_DISCONNECT; /* Windows tells it of one that is not read from too */
	int rc = 1;

	for (int i = 0; i < PACKETS && rc > 0 && m->talk && (!m->rest || ends); i++) {
		listen_to(m);
		if (m->held)
			return;
		rc = on_packet(m);
	}
	if (rc < 0 && m->talk) {
		if (rc == -EPROTO)
			dlog(LOG_LVL_ERROR, m, "its supervisor does not speak the protocol");
		talk_close(m); /* its death, if it is that, shows at its process */
		if (rc != -EPROTO || m->process < 0)
			talk_later(m);
	}
}

void talk_drain(struct machine *m)
{
	int rc = 1;

	/* There is no more to come, unless somebody else has got its end: he has to stop, too. */
	for (int i = 0; i < EVENTS && rc > 0 && m->talk && !m->held; i++)
		rc = on_packet(m);
}

/* ---- out ---- */

static int send_packet(struct machine *m, json_object *o, const int *fds, unsigned nfds)
{
	const char *text = j_text(o);
	size_t len = strlen(text);
	int n;

	/* The supervisor would take a longer one for no request, and hang up. */
	if (len > PACKET)
		return -EMSGSIZE;
	n = link_send(m->talk, text, len, fds, nfds);
	return n < 0 ? n : 0;
}

enum with_fds { WITHOUT, GIVEN, LENT };

static void ask(struct machine *m, const char *op, json_object *params, reply_fn *done,
		struct request *r, enum with_fds with, uint64_t ms)
{
	struct pending *p = calloc(1, sizeof(*p));
	json_object *o = json_object_new_object();
	int rc = p ? 0 : -ENOMEM;

	j_int(o, "id", ++m->next_op);
	j_str(o, "op", op);
	if (params)
		j_obj(o, "params", params);
	if (!rc)
		rc = !m->talk ? -ENOTCONN
			      : send_packet(m, o, r ? r->fd : NULL, with && r ? r->nfds : 0);
	json_object_put(o);
	if (rc) {
		json_object *error =
			rc == -EMSGSIZE
				? error_object("bad-params", "the request is longer than 64 KiB")
				: error_object("failed",
					       "the supervisor of this VM cannot be reached");

		free(p);
		done(m, r, NULL, error, -1);
		json_object_put(error);
		return;
	}
	if (with == GIVEN && r)
		request_close_fds(r); /* the supervisor has them; a silent one must not fill us */
	*p = (struct pending){.next = m->pending, .m = m, .id = m->next_op, .done = done, .r = r};
	p->timer = timer_after(&m->d->loop, ms, on_timeout, p);
	m->pending = p;
}

void talk_ask(struct machine *m, const char *op, json_object *params, reply_fn *done,
	      struct request *r, bool with_fds)
{
	ask(m, op, params, done, r, with_fds ? GIVEN : WITHOUT, ANSWER_MS);
}

void talk_lend(struct machine *m, const char *op, json_object *params, reply_fn *done,
	       struct request *r, uint64_t ms)
{
	ask(m, op, params, done, r, LENT, ms);
}

void talk_ask_long(struct machine *m, const char *op, json_object *params, reply_fn *done,
		   struct request *r, uint64_t ms)
{
	ask(m, op, params, done, r, WITHOUT, ms);
}

/* ---- begin and end ---- */

static void on_hello(struct machine *m, struct request *r, json_object *result, json_object *error,
		     int fd)
{
	const char *state = j_get_str(result, "state", "");
	bool stands = !strcmp(state, "paused");

	(void)r;
	(void)fd;
	if (error) {
		/* It may still be opening kernels; its process tells if it dies over that. */
		if (m->talk && !strcmp(j_get_str(error, "reason", ""), "timeout"))
			talk_ask(m, "hello", NULL, on_hello, NULL, false);
		return;
	}
	if (strcmp(j_get_str(result, "token", ""), m->r.token) != 0) {
		dlog(LOG_LVL_ERROR, m, "what answers on its socket is not its supervisor");
		talk_close(m);
		if (m->process < 0) /* its end shows nowhere else */
			talk_later(m);
		return;
	}
	m->hello = true;
	vm_resized(m, result);
	m->again_ms = 0;
	snprintf(m->version, sizeof(m->version), "%s", j_get_str(result, "version", ""));
	if (m->r.state == VM_STOPPING || (!stands && strcmp(state, "running") != 0))
		return;
	if (m->r.state == VM_STARTING) {
		on_begun(m, stands);
		return;
	}
	/* That it goes on was said while nobody heard it. */
	if (!stands)
		pool_vm_runs(m);
	if (m->r.state != VM_STOPPING)
		machine_set_state(m, stands ? VM_PAUSED : VM_RUNNING);
}

int talk_begin(struct machine *m, int fd, struct err *e)
{
	m->talk = link_new(&m->d->loop, fd, true);
	if (!m->talk || link_watch(m->talk, on_readable, m)) {
		foreign_hang_up(m->d, m->r.owner.uid, m->talk);
		m->talk = NULL;
		return err_set(e, -ENOMEM, "out of memory");
	}
	listen_to(m);
	talk_ask(m, "hello", NULL, on_hello, NULL, false);
	return 0;
}

int talk_open(struct machine *m, struct err *e)
{
	int fd = supervisor_connect(m, e);

	return fd < 0 ? fd : talk_begin(m, fd, e);
}

static void talk_on_again(void *ctx)
{
	struct machine *m = ctx;

	m->again = NULL;
	talk_find(m);
}

static void talk_later(struct machine *m)
{
	m->again_ms = m->again_ms ? m->again_ms * 2 : AGAIN_MS;
	if (m->again_ms > AGAIN_MAX_MS)
		m->again_ms = AGAIN_MAX_MS;
	m->again = timer_after(&m->d->loop, m->again_ms, talk_on_again, m);
	if (!m->again)
		dlog(LOG_LVL_ERROR, m, "out of memory: its supervisor is not asked again");
}

void talk_find(struct machine *m)
{
	struct err e;
	int rc = talk_open(m, &e);

	if (rc == -ENOENT && m->process < 0) {
		machine_ended(m);
		return;
	}
	if (!rc)
		return;
	if (!m->again_ms)
		dlog(LOG_LVL_WARN, m, "%s; it is asked again", e.text);
	talk_later(m);
}

void talk_close(struct machine *m)
{
	timer_cancel(m->again);
	m->again = NULL;
	timer_cancel(m->rest);
	m->rest = NULL;
	m->held = false;
	foreign_hang_up(m->d, m->r.owner.uid, m->talk);
	m->talk = NULL;
	m->hello = false;
	for (struct pending *p = m->pending, *next; p; p = next) {
		next = p->next;
		talk_fail(p, "ended", "the VM has ended");
	}
	machine_refuse_execs(m);
}
