/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Events: notifications of JSON-RPC to those who have subscribed. Each subscriber has sequence
 * numbers of its own, without gaps; one that does not read them in time is told so once, and gets
 * no more.
 */
#include <string.h>

#include "client.h"
#include "daemon.h"
#include "event.h"
#include "machine.h"
#include "spec/json.h"

/* Half of what a client may leave unread: its answers still have room. */
static bool too_slow(const struct client *c)
{
	return c->queued > c->d->conf.max_queue / 2;
}

static void send_note(struct client *c, const char *method, json_object *params)
{
	json_object *o = json_object_new_object();

	j_str(o, "jsonrpc", "2.0");
	j_str(o, "method", method);
	j_obj(o, "params", params);
	client_send(c, j_text(o), -1);
	json_object_put(o);
}

static json_object *make_event(struct machine *m, const char *what, json_object *data)
{
	json_object *o = json_object_new_object();

	j_int(o, "time_ms", now_ms());
	j_str(o, "event", what);
	j_str(o, "id", m->r.id);
	j_str(o, "name", m->r.name);
	j_int(o, "uid", m->r.owner.uid);
	if (m->r.owner.sid[0])
		j_str(o, "sid", m->r.owner.sid);
	if (data)
		j_obj(o, "data", json_object_get(data));
	return o;
}

static void tell_one(struct client *c, struct machine *m, const char *what, json_object *data)
{
	json_object *o;

	if (too_slow(c)) {
		c->subscribed = false;
		c->d->n.dropped_subscribers++;
		o = json_object_new_object();
		j_int(o, "next_seq", (int64_t)c->seq + 1);
		j_str(o, "reason", "slow");
		send_note(c, "events.dropped", o);
		return;
	}
	o = make_event(m, what, data);
	j_int(o, "seq", (int64_t)++c->seq);
	send_note(c, "event", o);
}

void event_emit(struct daemon *d, struct machine *m, const char *what, json_object *data)
{
	for (struct client *c = d->clients, *next; c; c = next) {
		next = c->next;
		if (c->subscribed && !c->gone && machine_visible(m, c) &&
		    (!c->filter[0] || !strcmp(c->filter, m->r.id)))
			tell_one(c, m, what, data);
	}
	json_object_put(data);
}
