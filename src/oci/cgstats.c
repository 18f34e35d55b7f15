/* SPDX-License-Identifier: BSD-2-Clause */
/* What a control group of the host has used. See cgroup.h. */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <insula/base.h>

#include "oci/cgroup.h"
#include "spec/json.h"

#define NS_OF_US 1000

static bool stat_text(int dir, const char *file, char *out, size_t size)
{
	ssize_t n = cgroup_text(dir, file, out, size);

	out[n > 0 ? n : 0] = 0;
	return n > 0;
}

/* "max" is the largest number, as runc has it. */
static void stat_number(json_object *o, const char *key, int dir, const char *file)
{
	char text[64];

	if (!stat_text(dir, file, text, sizeof(text)))
		return;
	json_object_object_add(o, key,
			       json_object_new_uint64(!strncmp(text, "max", 3)
							      ? UINT64_MAX
							      : strtoull(text, NULL, 10)));
}

/* The value of a line "KEY VALUE"; 0: there is none. */
static uint64_t line_value(const char *text, const char *key)
{
	size_t n = strlen(key);

	for (const char *p = text; p; p = strchr(p, '\n'), p = p ? p + 1 : NULL) {
		if (!strncmp(p, key, n) && p[n] == ' ')
			return strtoull(p + n + 1, NULL, 10);
	}
	return 0;
}

static json_object *cpu_stats(int dir)
{
	json_object *o = json_object_new_object(), *usage, *throttling;
	char text[4096];

	if (!stat_text(dir, "cpu.stat", text, sizeof(text)))
		return o;
	usage = json_object_new_object();
	j_int(usage, "total", (int64_t)(line_value(text, "usage_usec") * NS_OF_US));
	j_int(usage, "kernel", (int64_t)(line_value(text, "system_usec") * NS_OF_US));
	j_int(usage, "user", (int64_t)(line_value(text, "user_usec") * NS_OF_US));
	j_obj(o, "usage", usage);
	throttling = json_object_new_object();
	j_int(throttling, "periods", (int64_t)line_value(text, "nr_periods"));
	j_int(throttling, "throttledPeriods", (int64_t)line_value(text, "nr_throttled"));
	j_int(throttling, "throttledTime",
	      (int64_t)(line_value(text, "throttled_usec") * NS_OF_US));
	j_obj(o, "throttling", throttling);
	return o;
}

static json_object *memory_stats(int dir)
{
	json_object *o = json_object_new_object(), *usage = json_object_new_object(),
		    *swap = json_object_new_object();
	char text[4096];

	stat_number(usage, "usage", dir, "memory.current");
	stat_number(usage, "limit", dir, "memory.max");
	stat_number(usage, "max", dir, "memory.peak");
	if (stat_text(dir, "memory.events", text, sizeof(text))) {
		j_int(usage, "failcnt", (int64_t)line_value(text, "max"));
		j_int(o, "oomKill", (int64_t)line_value(text, "oom_kill"));
	}
	stat_number(swap, "usage", dir, "memory.swap.current");
	stat_number(swap, "limit", dir, "memory.swap.max");
	j_obj(o, "usage", usage);
	j_obj(o, "swap", swap);
	return o;
}

static json_object *pids_stats(int dir)
{
	json_object *o = json_object_new_object();

	stat_number(o, "current", dir, "pids.current");
	stat_number(o, "limit", dir, "pids.max");
	return o;
}

/* io.stat: "8:0 rbytes=1 wbytes=2 rios=3 wios=4 ...". */
static void io_device(json_object *list, char *line)
{
	static const char *const keys[][2] = {{"rbytes=", "Read"}, {"wbytes=", "Write"}};
	unsigned major, minor;

	if (sscanf(line, "%u:%u", &major, &minor) != 2)
		return;
	for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
		const char *at = strstr(line, keys[i][0]);
		json_object *o = json_object_new_object();

		j_int(o, "major", major);
		j_int(o, "minor", minor);
		j_str(o, "op", keys[i][1]);
		j_int(o, "value", at ? (int64_t)strtoull(at + strlen(keys[i][0]), NULL, 10) : 0);
		json_object_array_add(list, o);
	}
}

static json_object *io_stats(int dir)
{
	json_object *o = json_object_new_object(), *list = json_object_new_array();
	char text[8192], *line, *rest = text;

	stat_text(dir, "io.stat", text, sizeof(text));
	while ((line = strsep(&rest, "\n"))) {
		if (line[0])
			io_device(list, line);
	}
	j_obj(o, "ioServiceBytesRecursive", list);
	return o;
}

json_object *cgroup_stats(const struct cgroup *g)
{
	json_object *o = json_object_new_object();
	int dir = g->path[0] ? open(g->path, O_DIRECTORY | O_CLOEXEC) : -1;

	if (dir < 0)
		return o;
	j_obj(o, "cpu", cpu_stats(dir));
	j_obj(o, "memory", memory_stats(dir));
	j_obj(o, "pids", pids_stats(dir));
	j_obj(o, "blkio", io_stats(dir));
	close(dir);
	return o;
}
