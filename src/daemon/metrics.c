/* SPDX-License-Identifier: BSD-2-Clause */
/* Counters of the daemon. */
#include <string.h>

#include <insula/base.h>

#include "client.h"
#include "daemon.h"
#include "machine.h"
#include "metrics.h"
#include "record.h"
#include "spec/json.h"

static const struct {
	const char *name, *help;
	size_t offset;
} counters[] = {
	{"requests", "Requests received", offsetof(struct daemon, n.requests)},
	{"refusals", "Requests refused", offsetof(struct daemon, n.refusals)},
	{"bad_lines", "Lines that were no request", offsetof(struct daemon, n.bad_lines)},
	{"clients", "Connections taken", offsetof(struct daemon, n.clients)},
	{"refused_clients", "Connections beyond a limit",
	 offsetof(struct daemon, n.refused_clients)},
	{"dropped_subscribers", "Subscribers that were too slow",
	 offsetof(struct daemon, n.dropped_subscribers)},
	{"vms_created", "VMs created", offsetof(struct daemon, n.created)},
	{"vms_started", "VMs started", offsetof(struct daemon, n.started)},
	{"vms_ended", "VMs ended", offsetof(struct daemon, n.ended)},
	{"vms_deleted", "VMs deleted", offsetof(struct daemon, n.deleted)},
	{"vm_restarts", "Deaths of device processes, of all VMs",
	 offsetof(struct daemon, n.restarts)},
	{"vms_adopted", "VMs found again after a restart", offsetof(struct daemon, n.adopted)},
};

_Static_assert(ARRAY_LEN(counters) == METRICS, "all of them");

uint64_t metric(const struct daemon *d, size_t i, const char **name, const char **help)
{
	*name = counters[i].name;
	*help = counters[i].help;
	return *(const uint64_t *)((const char *)d + counters[i].offset);
}

void metrics_states(const struct daemon *d, unsigned n[VM_STATES])
{
	memset(n, 0, VM_STATES * sizeof(*n));
	for (const struct machine *m = d->machines; m; m = m->next)
		n[m->r.state]++;
}

static unsigned count_subscribers(const struct daemon *d)
{
	unsigned n = 0;

	for (const struct client *c = d->clients; c; c = c->next)
		n += c->subscribed;
	return n;
}

json_object *metrics_json(struct daemon *d)
{
	json_object *o = json_object_new_object(), *vms = json_object_new_object();
	unsigned n[VM_STATES];

	for (size_t i = 0; i < METRICS; i++) {
		const char *name, *help;
		uint64_t value = metric(d, i, &name, &help);

		j_int(o, name, (int64_t)value);
	}
	metrics_states(d, n);
	for (unsigned i = 0; i < VM_STATES; i++)
		j_int(vms, vm_state_names[i], n[i]);
	j_int(o, "clients_now", d->nclients);
	j_int(o, "subscribers_now", count_subscribers(d));
	j_int(o, "uptime_ms", (int64_t)((clock_ns() - d->started_ns) / 1000000));
	j_obj(o, "vms", vms);
	return o;
}
