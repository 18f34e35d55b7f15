/* SPDX-License-Identifier: BSD-2-Clause */
/* The counters of each kind of helper by name, for the metrics. */
#ifndef SUPERVISOR_STATS_H
#define SUPERVISOR_STATS_H

#include <stddef.h>

#include <json-c/json.h>

struct msg_stats;

/* A counter of the helper (insula/stats.h) and its name in the metrics. */
struct stat_name {
	unsigned index;
	const char *name;
};

struct stat_names {
	const struct stat_name *name;
	size_t n;
};

/* A member for each; `names` may be NULL: it has none. */
void stats_add(json_object *o, const struct msg_stats *s, const struct stat_names *names);

extern const struct stat_names stats_common, stats_balloon, stats_mem, stats_blk, stats_net,
	stats_rng, stats_uart, stats_vcon, stats_vfio, stats_vhost, stats_vsock;

#endif
