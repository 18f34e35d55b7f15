/* SPDX-License-Identifier: BSD-2-Clause */
/* The methods about the daemon itself, and about events. See methods.h. */
#include <unistd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>

#include "client.h"
#include "conf.h"
#include "daemon.h"
#include "discover.h"
#include "host.h"
#include "machine.h"
#include "method.h"
#include "methods.h"
#include "metrics.h"
#include "request.h"
#include "spec/json.h"

void method_daemon_info(struct daemon *d, struct request *r)
{
	const struct limits *l = conf_limits(&d->conf, r->client->who.uid);
	json_object *o = json_object_new_object(), *limits = json_object_new_object();

	j_str(o, "version", INSULA_VERSION);
	j_int(o, "pid", getpid());
	j_int(o, "uptime_ms", (int64_t)((clock_ns() - d->started_ns) / 1000000));
	j_int(o, "uid", r->client->who.uid);
	if (r->client->who.sid[0])
		j_str(o, "sid", r->client->who.sid);
	j_bool(o, "cgroup", d->cgroups.on);
	j_int(o, "host_memory", (int64_t)host_memory());
	j_int(o, "overcommit_percent", d->conf.overcommit_percent);
	if (r->client->who.uid) {
		j_int(limits, "vms", l->vms);
		j_int(limits, "vcpus", l->vcpus);
		j_int(limits, "memory", (int64_t)l->memory);
		j_obj(o, "limits", limits);
	} else {
		json_object_put(limits);
	}
	request_answer(r, o);
}

void method_daemon_metrics(struct daemon *d, struct request *r)
{
	request_answer(r, metrics_json(d));
}

/* ---- events ---- */

void method_events_subscribe(struct daemon *d, struct request *r)
{
	json_object *o = json_object_new_object();
	struct client *c = r->client;

	c->filter[0] = 0;
	if (j_get(r->params, "id")) {
		struct machine *m = method_named(d, r);

		if (!m) {
			json_object_put(o);
			return;
		}
		strcpy(c->filter, m->r.id);
	}
	c->subscribed = true;
	j_int(o, "next_seq", (int64_t)c->seq + 1);
	request_answer(r, o);
}

void method_events_unsubscribe(struct daemon *d, struct request *r)
{
	(void)d;
	r->client->subscribed = false;
	request_answer(r, NULL);
}

void method_rpc_discover(struct daemon *d, struct request *r)
{
	(void)d;
	request_answer(r, discover_document());
}
