/* SPDX-License-Identifier: BSD-2-Clause */
/* Counters of the daemon: as JSON, and in Prometheus' text format 0.0.4. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>

#include "daemon.h"

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
	{"vms_adopted", "VMs found again after a restart", offsetof(struct daemon, n.adopted)},
};

static uint64_t value(const struct daemon *d, size_t i)
{
	return *(const uint64_t *)((const char *)d + counters[i].offset);
}

static void count_states(const struct daemon *d, unsigned n[VM_STATES])
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

	for (size_t i = 0; i < ARRAY_LEN(counters); i++)
		j_int(o, counters[i].name, (int64_t)value(d, i));
	count_states(d, n);
	for (unsigned i = 0; i < VM_STATES; i++)
		j_int(vms, vm_state_names[i], n[i]);
	j_int(o, "clients_now", d->nclients);
	j_int(o, "subscribers_now", count_subscribers(d));
	j_int(o, "uptime_ms", (int64_t)((clock_ns() - d->started_ns) / 1000000));
	j_obj(o, "vms", vms);
	return o;
}

char *metrics_text(struct daemon *d)
{
	unsigned n[VM_STATES];
	char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);

	if (!f)
		return NULL;
	for (size_t i = 0; i < ARRAY_LEN(counters); i++)
		fprintf(f,
			"# HELP insulad_%s_total %s.\n# TYPE insulad_%s_total counter\n"
			"insulad_%s_total %llu\n",
			counters[i].name, counters[i].help, counters[i].name, counters[i].name,
			(unsigned long long)value(d, i));
	count_states(d, n);
	fprintf(f, "# HELP insulad_vms VMs by state.\n# TYPE insulad_vms gauge\n");
	for (unsigned i = 0; i < VM_STATES; i++)
		fprintf(f, "insulad_vms{state=\"%s\"} %u\n", vm_state_names[i], n[i]);
	fprintf(f, "# HELP insulad_vm_restarts Deaths of device processes.\n"
		   "# TYPE insulad_vm_restarts counter\n");
	for (const struct machine *m = d->machines; m; m = m->next) {
		if (machine_active(m))
			fprintf(f, "insulad_vm_restarts{id=\"%s\",name=\"%s\",uid=\"%u\"} %u\n",
				m->r.id, m->r.name, (unsigned)m->r.uid, m->restarts);
	}
	fclose(f);
	return text;
}
