/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * An OCI configuration -> records of a container, its process and its machine, its filter, lines of
 * control groups, the size of its VM.
 *
 * Besides not crashing: a refusal is one clean line (of a host without devices, too); records are what container.h says: KEY=VALUE,
 * each ended by a NUL, a key of known letters; a filter is of a length that the kernel takes; a
 * file of a control group is a name and no path; a VM has a size that there is.
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <insula/board.h>
#include <insula/log.h>

#include "oci/assign.h"
#include "oci/cgline.h"
#include "oci/conf.h"
#include "oci/record.h"
#include "oci/seccomp.h"
#include "spec/json.h"
#include "must.h"

static void check_refusal(int rc, const struct err *e)
{
	MUST(rc < 0 && e->code == rc && e->text[0]);
	for (const char *p = e->text; *p; p++)
		MUST((unsigned char)*p >= 0x20 && *p != 0x7f);
}

static void check_records(const struct rec *r)
{
	const char *p = r->at, *end = r->at + r->len;

	MUST(!r->error && r->len <= CT_FILE_MAX && end[-1] == 0 && !strcmp(p, "version=1"));
	for (; p < end; p += strlen(p) + 1) {
		const char *q = p;

		while (islower((unsigned char)*q) || *q == '.' || *q == '_')
			q++;
		MUST(q > p && *q == '=');
	}
}

static const char *no_owner(void *ctx, const char *path)
{
	(void)ctx;
	return strstr(path, "ipc") ? "other" : NULL;
}

static void fuzz_records(const struct bundle *b)
{
	char source[] = CT_SHARE "/c/m/0", none[] = "", *sources[] = {source, none};
	struct record_container c = {.id = "c",
				     .bundle = b,
				     .source = sources,
				     .nsources = 2,
				     .ns_owner = no_owner,
				     .sys = "/nonexistent"};
	struct err e = {0};
	struct rec r;
	int rc;

	for (int i = 0; i < 4; i++) {
		rec_init(&r);
		c.machine = i == 1;
		rc = i < 2    ? record_container(&c, &r, &e)
		     : i == 2 ? record_process(b->process, "s", 1, &r, &e)
			      : record_machine(b, &r, &e);
		if (rc)
			check_refusal(rc, &e);
		else
			check_records(&r);
		rec_free(&r);
	}
}

static void fuzz_functions(const struct bundle *b)
{
	struct assign a;
	struct err e = {0};
	int rc = assign_wanted("/nonexistent", b, true, &a, &e);

	if (rc)
		check_refusal(rc, &e);
	else
		MUST(!a.ngroups && !a.nfunctions);
}

static void fuzz_lines(const struct bundle *b)
{
	static struct cglines l;
	struct err e = {0};
	int rc = cgline_make(j_get(b->linux_, "resources"), CGLINE_HOST, &l, &e);

	if (rc)
		check_refusal(rc, &e);
	cgline_vm(&l, 1u << 20);
	MUST(l.n <= CGLINE_MAX);
	for (unsigned i = 0; i < l.n; i++)
		MUST(l.line[i].file[0] && !strchr(l.line[i].file, '/') &&
		     strncmp(l.line[i].file, "cgroup.", 7) != 0);
}

static void fuzz_size(const struct bundle *b)
{
	struct vm_size s;
	struct oci_conf c;
	struct err e = {0};
	int rc;

	MUST(!conf_text(&c, "{}", 2, &e));
	rc = conf_size(&c, b, &s, &e);
	if (rc)
		check_refusal(rc, &e);
	else
		MUST(s.mem >= BOARD_MIN_MEM && s.mem <= BOARD_MAX_MEM && !(s.mem % BOARD_PAGE) &&
		     s.cpus >= 1 && s.cpus <= BOARD_MAX_CPUS);
	conf_free(&c);
}

static void fuzz_filter(const struct bundle *b)
{
	struct sock_filter *insn = NULL;
	struct err e = {0};
	unsigned flags;
	size_t n;
	int rc = seccomp_build(j_get(b->linux_, "seccomp"), &insn, &n, &flags, &e);

	if (rc)
		check_refusal(rc, &e);
	else
		MUST(n && n <= CT_FILTER_MAX);
	free(insn);
}

static json_object *object_or_none(json_object *o, const char *key)
{
	json_object *v = j_get(o, key);

	return json_object_is_type(v, json_type_object) ? v : NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct bundle b = {0};
	struct oci_conf conf;
	struct err e = {0};
	const char *why;
	int rc = conf_text(&conf, (const char *)data, size, &e);

	log_setup("", LOG_LVL_ERROR);
	if (rc)
		check_refusal(rc, &e);
	else
		conf_free(&conf);
	b.spec = j_parse((const char *)data, size, BUNDLE_DEPTH, &why);
	if (!b.spec)
		return 0;
	/* As bundle_read() would have them. */
	b.process = object_or_none(b.spec, "process");
	b.linux_ = object_or_none(b.spec, "linux");
	b.hooks = object_or_none(b.spec, "hooks");
	b.annotations = object_or_none(b.spec, "annotations");
	if (json_object_is_type(j_get(b.spec, "mounts"), json_type_array))
		b.mounts = j_get(b.spec, "mounts");
	fuzz_records(&b);
	fuzz_functions(&b);
	fuzz_lines(&b);
	fuzz_size(&b);
	fuzz_filter(&b);
	json_object_put(b.spec);
	return 0;
}
