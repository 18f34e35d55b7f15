/* SPDX-License-Identifier: BSD-2-Clause */
/* Resources as lines of cgroup v2. See cgline.h and the kernel's admin-guide/cgroup-v2. */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>

#include <insula/base.h>

#include "cgline.h"
#include "field.h"
#include "spec/json.h"

#define RES "linux.resources"
#define PERIOD_US 100000 /* of the kernel, when only a quota is given */

unsigned cgline_cpu_weight(uint64_t shares)
{
	/* 2 to 262144, as the kernel clamps them, onto 1 to 10000. */
	uint64_t s = shares < 2 ? 2 : shares > 262144 ? 262144 : shares;

	return (unsigned)(1 + (s - 2) * 9999 / 262142);
}

unsigned cgline_io_weight(unsigned weight)
{
	return 1 + (weight - 10) * 9999 / 990;
}

static int add_line(struct cglines *l, const char *file, struct err *e, const char *fmt, ...)
	INSULA_PRINTF(4, 5);
static int add_line(struct cglines *l, const char *file, struct err *e, const char *fmt, ...)
{
	struct cgline *at = &l->line[l->n];
	va_list ap;
	int n;

	if (l->n == CGLINE_MAX)
		return err_set(e, -E2BIG, RES ": more than %u settings", CGLINE_MAX);
	snprintf(at->file, sizeof(at->file), "%s", file);
	va_start(ap, fmt);
	n = vsnprintf(at->value, sizeof(at->value), fmt, ap);
	va_end(ap);
	if (n < 0 || n >= (int)sizeof(at->value) || strlen(file) >= sizeof(at->file))
		return err_set(e, -EINVAL, RES ": %.60s: %.60s; expected at most %d bytes", file,
			       at->value, CGLINE_VALUE - 1);
	l->n++;
	return 0;
}

/* Bytes, or "max" for what is below zero. */
static int limit_line(struct cglines *l, const char *file, int64_t n, struct err *e)
{
	if (n < 0)
		return add_line(l, file, e, "max");
	return add_line(l, file, e, "%" PRId64, n);
}

/* ---- memory ---- */

/* memory.swap of the specification counts memory, too; that of version 2 does not. */
static int swap_line(struct cglines *l, json_object *o, int64_t limit, int64_t swap, struct err *e)
{
	if (swap < 0)
		return add_line(l, "memory.swap.max", e, "max");
	if (limit <= 0 || swap < limit)
		return field_wrong(RES ".memory", "swap", j_get(o, "swap"),
				   "memory and swap together: at least the limit", e);
	return limit_line(l, "memory.swap.max", swap - limit, e);
}

static int memory_lines(struct cglines *l, json_object *res, enum cgline_side side, struct err *e)
{
	int64_t limit = 0, swap = 0, low = 0;
	json_object *o;
	int rc = field_object(res, RES, "memory", &o, e);

	if (!rc)
		rc = field_int(o, RES ".memory", "limit", -1, INT64_MAX, &limit, e);
	if (rc >= 0)
		rc = field_int(o, RES ".memory", "swap", -1, INT64_MAX, &swap, e);
	if (rc >= 0)
		rc = field_int(o, RES ".memory", "reservation", -1, INT64_MAX, &low, e);
	if (rc < 0)
		return rc;
	/* 0 is what Go writes for nothing. */
	l->memory = limit > 0 ? (uint64_t)limit : UINT64_MAX;
	l->lifted = limit < 0;
	if (side != CGLINE_GUEST)
		return 0;
	rc = limit ? limit_line(l, "memory.max", limit, e) : 0;
	if (!rc && swap)
		rc = swap_line(l, o, limit, swap, e);
	if (!rc && low)
		rc = limit_line(l, "memory.low", low, e);
	return rc;
}

void cgline_vm(struct cglines *l, uint64_t overhead)
{
	bool limited = l->memory < UINT64_MAX - overhead;
	unsigned more = limited || l->lifted ? CGLINE_VM : 1;

	memmove(&l->line[more], &l->line[0], l->n * sizeof(l->line[0]));
	l->n += more;
	/* One killed process would leave half a VM: all or none. */
	l->line[0] = (struct cgline){"memory.oom.group", "1"};
	if (more == 1)
		return;
	l->line[1] = (struct cgline){.file = "memory.max", .value = "max"};
	if (limited)
		snprintf(l->line[1].value, sizeof(l->line[1].value), "%" PRIu64,
			 l->memory + overhead);
}

/* ---- processors ---- */

static int quota_line(struct cglines *l, int64_t quota, int64_t period, struct err *e)
{
	if (!quota && !period)
		return 0;
	period = period ? period : PERIOD_US;
	if (quota <= 0)
		return add_line(l, "cpu.max", e, "max %" PRId64, period);
	return add_line(l, "cpu.max", e, "%" PRId64 " %" PRId64, quota, period);
}

static int cpuset_lines(struct cglines *l, json_object *o, struct err *e)
{
	static const char *const names[][2] = {{"cpus", "cpuset.cpus"}, {"mems", "cpuset.mems"}};
	const char *text;
	int rc = 0;

	for (size_t i = 0; i < ARRAY_LEN(names) && !rc; i++) {
		rc = field_text(o, RES ".cpu", names[i][0], &text, e);
		if (rc || !text || !text[0])
			continue;
		if (strspn(text, "0123456789,- ") != strlen(text))
			rc = field_wrong(RES ".cpu", names[i][0], j_get(o, names[i][0]),
					 "numbers such as 0-3,7", e);
		else
			rc = add_line(l, names[i][1], e, "%s", text);
	}
	return rc;
}

static int cpu_lines(struct cglines *l, json_object *res, enum cgline_side side, struct err *e)
{
	int64_t quota = 0, period = 0, burst = 0, idle = 0;
	uint64_t shares = 0;
	json_object *o;
	int rc = field_object(res, RES, "cpu", &o, e);

	if (!rc)
		rc = field_u64(o, RES ".cpu", "shares", &shares, e);
	if (rc >= 0)
		rc = field_int(o, RES ".cpu", "quota", -1, INT64_MAX, &quota, e);
	if (rc >= 0)
		rc = field_int(o, RES ".cpu", "period", 0, 1000000, &period, e);
	if (rc >= 0)
		rc = field_int(o, RES ".cpu", "burst", 0, INT64_MAX, &burst, e);
	if (rc >= 0)
		rc = field_int(o, RES ".cpu", "idle", 0, 1, &idle, e);
	if (rc < 0)
		return rc;
	rc = shares ? add_line(l, "cpu.weight", e, "%u", cgline_cpu_weight(shares)) : 0;
	if (!rc)
		rc = quota_line(l, quota, period, e);
	if (!rc && burst && side == CGLINE_HOST)
		rc = add_line(l, "cpu.max.burst", e, "%" PRId64, burst);
	if (!rc && idle && side == CGLINE_HOST)
		rc = add_line(l, "cpu.idle", e, "1");
	return rc || side != CGLINE_HOST ? rc : cpuset_lines(l, o, e);
}

static int pids_lines(struct cglines *l, json_object *res, enum cgline_side side, struct err *e)
{
	int64_t limit = 0;
	json_object *o;
	int rc = field_object(res, RES, "pids", &o, e);

	if (!rc)
		rc = field_int(o, RES ".pids", "limit", -1, INT64_MAX, &limit, e);
	if (rc <= 0 || !limit || side != CGLINE_GUEST)
		return rc < 0 ? rc : 0;
	return limit_line(l, "pids.max", limit, e);
}

/* ---- io ---- */

static int io_device(json_object *d, const char *at, int64_t *major, int64_t *minor, struct err *e)
{
	int rc = field_int(d, at, "major", 0, 0xfff, major, e);

	if (!rc)
		return field_wrong(at, "major", NULL, "a device's number", e);
	if (rc > 0)
		rc = field_int(d, at, "minor", 0, 0xfffff, minor, e);
	if (!rc)
		return field_wrong(at, "minor", NULL, "a device's number", e);
	return rc < 0 ? rc : 0;
}

static int throttle_lines(struct cglines *l, json_object *io, const char *member, const char *key,
			  struct err *e)
{
	char in[FIELD_WHERE_MAX], at[FIELD_WHERE_MAX];
	int64_t major = 0, minor = 0;
	json_object *list, *one;
	int rc = field_array(io, RES ".blockIO", member, &list, e);

	field_in(in, RES ".blockIO", member);
	for (size_t i = 0; i < field_count(list) && !rc; i++) {
		uint64_t rate = 0;

		rc = field_object_at(list, in, i, at, &one, e);
		if (!rc)
			rc = io_device(one, at, &major, &minor, e);
		if (!rc)
			rc = field_u64(one, at, "rate", &rate, e);
		if (rc < 0)
			break;
		rc = rate ? add_line(l, "io.max", e, "%d:%d %s=%" PRIu64, (int)major, (int)minor,
				     key, rate)
			  : add_line(l, "io.max", e, "%d:%d %s=max", (int)major, (int)minor, key);
	}
	return rc;
}

static int weight_lines(struct cglines *l, json_object *io, struct err *e)
{
	char at[FIELD_WHERE_MAX];
	int64_t weight = 0, major = 0, minor = 0;
	json_object *list, *one;
	int rc = field_int(io, RES ".blockIO", "weight", 0, 1000, &weight, e);

	if (rc > 0 && weight >= 10)
		rc = add_line(l, "io.weight", e, "default %u", cgline_io_weight((unsigned)weight));
	else if (rc > 0 && weight)
		rc = field_wrong(RES ".blockIO", "weight", j_get(io, "weight"), "10 to 1000", e);
	if (rc >= 0)
		rc = field_array(io, RES ".blockIO", "weightDevice", &list, e);
	for (size_t i = 0; rc >= 0 && i < field_count(list); i++) {
		rc = field_object_at(list, RES ".blockIO.weightDevice", i, at, &one, e);
		if (!rc)
			rc = io_device(one, at, &major, &minor, e);
		if (!rc)
			rc = field_int(one, at, "weight", 10, 1000, &weight, e);
		if (rc > 0)
			rc = add_line(l, "io.weight", e, "%d:%d %u", (int)major, (int)minor,
				      cgline_io_weight((unsigned)weight));
	}
	return rc < 0 ? rc : 0;
}

static int io_lines(struct cglines *l, json_object *res, enum cgline_side side, struct err *e)
{
	static const char *const throttle[][2] = {{"throttleReadBpsDevice", "rbps"},
						  {"throttleWriteBpsDevice", "wbps"},
						  {"throttleReadIOPSDevice", "riops"},
						  {"throttleWriteIOPSDevice", "wiops"}};
	json_object *io;
	int rc = field_object(res, RES, "blockIO", &io, e);

	if (rc || !io || side != CGLINE_HOST)
		return rc;
	rc = weight_lines(l, io, e);
	for (size_t i = 0; i < ARRAY_LEN(throttle) && !rc; i++)
		rc = throttle_lines(l, io, throttle[i][0], throttle[i][1], e);
	return rc;
}

/* ---- the rest ---- */

static int hugetlb_line(struct cglines *l, json_object *o, const char *at, struct err *e)
{
	char file[CGLINE_FILE];
	const char *size;
	uint64_t limit = 0;
	int rc = field_text(o, at, "pageSize", &size, e);

	if (!rc)
		rc = field_u64(o, at, "limit", &limit, e);
	if (rc < 0)
		return rc;
	/* Kubernetes, and runc's users: "2MB", "1GB", "64KB". */
	if (!size || !size[0] || strlen(size) > 12 || !strchr("123456789", size[0]) ||
	    strspn(size, "0123456789KMGB") != strlen(size))
		return field_wrong(at, "pageSize", j_get(o, "pageSize"), "a size such as 2MB", e);
	snprintf(file, sizeof(file), "hugetlb.%s.max", size);
	return add_line(l, file, e, "%" PRIu64, limit);
}

static int hugetlb_lines(struct cglines *l, json_object *res, enum cgline_side side, struct err *e)
{
	char at[FIELD_WHERE_MAX];
	json_object *list, *one;
	int rc = field_array(res, RES, "hugepageLimits", &list, e);

	for (size_t i = 0; i < field_count(list) && !rc; i++) {
		rc = field_object_at(list, RES ".hugepageLimits", i, at, &one, e);
		if (!rc && side == CGLINE_HOST)
			rc = hugetlb_line(l, one, at, e);
	}
	return rc;
}

static bool is_of(const char *file, const char *const *controllers)
{
	for (; *controllers; controllers++) {
		size_t n = strlen(*controllers);

		if (!strncmp(file, *controllers, n) && file[n] == '.')
			return true;
	}
	return false;
}

/* A file's name of a controller: no way out of the directory, and nothing that moves processes. */
static bool is_unified_name(const char *file)
{
	static const char letters[] =
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._";

	return file[0] && strlen(file) < CGLINE_FILE && strspn(file, letters) == strlen(file) &&
	       strchr(file, '.') && file[0] != '.' && strncmp(file, "cgroup.", 7) != 0;
}

static void unified_memory(struct cglines *l, const char *text)
{
	l->lifted = !strcmp(text, "max");
	if (l->lifted)
		l->memory = UINT64_MAX;
	else if (strspn(text, "0123456789") == strlen(text))
		l->memory = strtoull(text, NULL, 10);
}

static int unified_lines(struct cglines *l, json_object *res, enum cgline_side side, struct err *e)
{
	static const char *const in_guest[] = {"memory", "pids", "cpu", NULL};
	static const char *const on_host[] = {"cpu", "cpuset", "io", "hugetlb", NULL};
	json_object *map;
	int rc = field_object(res, RES, "unified", &map, e);

	if (rc || !map)
		return rc;
	json_object_object_foreach(map, file, v)
	{
		const char *text =
			json_object_is_type(v, json_type_string) ? json_object_get_string(v) : NULL;

		if (!is_unified_name(file) || (!is_of(file, in_guest) && !is_of(file, on_host)))
			return err_set(e, -EINVAL,
				       RES ".unified: '%.60s'; expected a file of cpu, "
					   "cpuset, hugetlb, io, memory or pids",
				       file);
		if (!text || strlen(text) != (size_t)json_object_get_string_len(v) || !text[0])
			return field_wrong(RES ".unified", file, v, "a string", e);
		if (is_of(file, side == CGLINE_GUEST ? in_guest : on_host))
			rc = add_line(l, file, e, "%s", text);
		if (rc)
			return rc;
		if (!strcmp(file, "memory.max"))
			unified_memory(l, text);
	}
	return 0;
}

int cgline_make(json_object *resources, enum cgline_side side, struct cglines *l, struct err *e)
{
	static int (*const part[])(struct cglines * l, json_object * res, enum cgline_side side,
				   struct err * e) = {memory_lines, cpu_lines,     pids_lines,
						      io_lines,     hugetlb_lines, unified_lines};
	int rc = 0;

	l->n = 0;
	l->memory = UINT64_MAX;
	l->lifted = false;
	if (resources && !json_object_is_type(resources, json_type_object))
		return field_wrong(RES, "", resources, "an object", e);
	for (size_t i = 0; i < ARRAY_LEN(part) && !rc; i++)
		rc = part[i](l, resources, side, e);
	return rc;
}
