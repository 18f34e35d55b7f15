/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How big a container's VM is. See conf.h.
 *
 * A limit of memory is the container's; the guest's kernel and insula-init need some beside it. A
 * pod's manager tells the sum of its containers' limits with the sandbox, whose own limits say
 * nothing about them.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/board.h>

#include "field.h"
#include "oci/conf.h"
#include "spec/config.h"
#include "spec/json.h"

#define OURS "io.insula.vm."
#define CONTAINERD "io.kubernetes.cri.sandbox-"
#define CRIO "io.kubernetes.cri-o.PodLinuxResources"
#define PERIOD_US 100000

/* What has been asked for; 0: nothing. */
struct wanted {
	int64_t limit;         /* bytes of the containers */
	int64_t quota, period; /* microseconds */
	uint64_t mem;          /* of the VM itself */
	int64_t cpus;
};

static int annotation_wrong(const char *name, const char *text, const char *expected, struct err *e)
{
	return err_set(e, -EINVAL, "annotations.%s: '%.60s'; expected %s", name, text, expected);
}

static int annotation_number(const struct bundle *b, const char *name, int64_t min, int64_t max,
			     int64_t *out, struct err *e)
{
	char expected[80], *end;
	const char *text;
	long long n;
	int rc = field_text(b->annotations, "annotations", name, &text, e);

	if (rc || !text)
		return rc;
	errno = 0;
	n = strtoll(text, &end, 10);
	snprintf(expected, sizeof(expected), "a number from %lld to %lld", (long long)min,
		 (long long)max);
	if (errno || *end || end == text || !strchr("-0123456789", text[0]) || n < min || n > max)
		return annotation_wrong(name, text, expected, e);
	*out = n;
	return 0;
}

static int containerd_wants(const struct bundle *b, struct wanted *w, struct err *e)
{
	int rc = annotation_number(b, CONTAINERD "memory", 0, INT64_MAX / 2, &w->limit, e);

	if (!rc)
		rc = annotation_number(b, CONTAINERD "cpu-quota", -1, INT64_MAX / 2, &w->quota, e);
	if (!rc)
		rc = annotation_number(b, CONTAINERD "cpu-period", 0, 1000000, &w->period, e);
	return rc;
}

/* JSON in a string: LinuxContainerResources of the CRI. */
static int crio_wants(const struct bundle *b, struct wanted *w, struct err *e)
{
	json_object *o;
	const char *text, *why;
	int rc = field_text(b->annotations, "annotations", CRIO, &text, e);

	if (rc || !text)
		return rc;
	o = j_parse(text, strlen(text), 4, &why);
	if (!json_object_is_type(o, json_type_object)) {
		json_object_put(o);
		return annotation_wrong(CRIO, text, "an object of JSON", e);
	}
	rc = field_int(o, CRIO, "memory_limit_in_bytes", 0, INT64_MAX / 2, &w->limit, e);
	if (rc >= 0)
		rc = field_int(o, CRIO, "cpu_quota", -1, INT64_MAX / 2, &w->quota, e);
	if (rc >= 0)
		rc = field_int(o, CRIO, "cpu_period", 0, 1000000, &w->period, e);
	json_object_put(o);
	return rc < 0 ? rc : 0;
}

static int limits_want(const struct bundle *b, struct wanted *w, struct err *e)
{
	static const char memory[] = "linux.resources.memory", cpu[] = "linux.resources.cpu";
	json_object *res, *m = NULL, *c = NULL;
	int rc = field_object(b->linux_, "linux", "resources", &res, e);

	if (!rc)
		rc = field_object(res, "linux.resources", "memory", &m, e);
	if (!rc)
		rc = field_object(res, "linux.resources", "cpu", &c, e);
	if (rc)
		return rc;
	if (!w->limit)
		rc = field_int(m, memory, "limit", -1, INT64_MAX, &w->limit, e);
	if (rc >= 0 && w->quota <= 0)
		rc = field_int(c, cpu, "quota", -1, INT64_MAX / 2, &w->quota, e);
	if (rc >= 0 && !w->period)
		rc = field_int(c, cpu, "period", 0, 1000000, &w->period, e);
	return rc < 0 ? rc : 0;
}

static int ours_want(const struct oci_conf *c, const struct bundle *b, struct wanted *w,
		     struct vm_size *s, struct err *e)
{
	const char *memory, *kernel;
	int rc = field_text(b->annotations, "annotations", OURS "memory", &memory, e);

	if (rc)
		return rc;
	if (memory &&
	    (!parse_size(memory, &w->mem) || w->mem < c->mem_min || w->mem > BOARD_MAX_MEM))
		return annotation_wrong(OURS "memory", memory,
					"a size such as 512M, from memory_min of the "
					"configuration on",
					e);
	rc = annotation_number(b, OURS "cpus", 1, c->cpus_max, &w->cpus, e);
	if (!rc)
		rc = field_text(b->annotations, "annotations", OURS "kernel", &kernel, e);
	if (rc)
		return rc;
	if (kernel && !c->kernel_annotation)
		return annotation_wrong(OURS "kernel", kernel,
					"none, for kernel_annotation is false in the configuration",
					e);
	if (kernel && (kernel[0] != '/' || strlen(kernel) >= sizeof(s->kernel)))
		return annotation_wrong(OURS "kernel", kernel, "an absolute path", e);
	strcpy(s->kernel, kernel ? kernel : c->kernel);
	return 0;
}

static int mem_of(const struct oci_conf *c, const struct wanted *w, uint64_t *out, struct err *e)
{
	uint64_t mem = c->mem;

	if (w->mem)
		mem = w->mem;
	else if (w->limit > 0)
		mem = (uint64_t)w->limit + c->mem_overhead;
	mem = (mem + BOARD_PAGE - 1) & ~(uint64_t)(BOARD_PAGE - 1);
	if (mem >= c->mem_min && mem <= BOARD_MAX_MEM) {
		*out = mem;
		return 0;
	}
	if (mem > BOARD_MAX_MEM)
		return err_set(
			e, -EINVAL,
			"linux.resources.memory.limit: %lld; expected at most %llu, for a VM "
			"has at most %lluM",
			(long long)w->limit, (unsigned long long)(BOARD_MAX_MEM - c->mem_overhead),
			(unsigned long long)(BOARD_MAX_MEM >> 20));
	return err_set(e, -EINVAL,
		       "linux.resources.memory.limit: %lld; expected at least %llu, so that the VM "
		       "has its minimum of %lluM",
		       (long long)w->limit,
		       (unsigned long long)(c->mem_min > c->mem_overhead
						    ? c->mem_min - c->mem_overhead
						    : 1),
		       (unsigned long long)(c->mem_min >> 20));
}

static unsigned cpus_of(const struct oci_conf *c, const struct wanted *w)
{
	int64_t period = w->period > 0 ? w->period : PERIOD_US, n = c->cpus;
	long host = sysconf(_SC_NPROCESSORS_ONLN);

	if (w->cpus)
		n = w->cpus;
	else if (w->quota > 0)
		n = (w->quota - 1) / period + 1;
	if (host > 0 && n > host)
		n = host;
	return (unsigned)(n > c->cpus_max ? c->cpus_max : n);
}

int conf_size_of(const struct oci_conf *c, int64_t limit, unsigned cpus, struct vm_size *s,
		 struct err *e)
{
	const struct wanted w = {.limit = limit, .cpus = cpus};
	int rc = mem_of(c, &w, &s->mem, e);

	s->cpus = cpus_of(c, &w);
	strcpy(s->kernel, c->kernel);
	return rc;
}

int conf_size(const struct oci_conf *c, const struct bundle *b, struct vm_size *s, struct err *e)
{
	struct wanted w = {0};
	int rc = ours_want(c, b, &w, s, e);

	if (!rc)
		rc = containerd_wants(b, &w, e);
	if (!rc)
		rc = crio_wants(b, &w, e);
	if (!rc)
		rc = limits_want(b, &w, e);
	if (!rc)
		rc = mem_of(c, &w, &s->mem, e);
	if (!rc)
		s->cpus = cpus_of(c, &w);
	return rc;
}

int conf_fits(const struct oci_conf *c, uint64_t mem, json_object *resources, struct err *e)
{
	uint64_t room = mem > c->mem_overhead ? mem - c->mem_overhead : 0;
	int64_t limit = 0;
	json_object *m;
	int rc = field_object(resources, "linux.resources", "memory", &m, e);

	if (!rc)
		rc = field_int(m, "linux.resources.memory", "limit", -1, INT64_MAX, &limit, e);
	if (rc < 0)
		return rc;
	if (limit <= 0 || (uint64_t)limit <= room)
		return 0;
	return err_set(e, -EINVAL,
		       "linux.resources.memory.limit: %lld; expected at most %llu: the VM was "
		       "started with %lluM",
		       (long long)limit, (unsigned long long)room, (unsigned long long)(mem >> 20));
}
