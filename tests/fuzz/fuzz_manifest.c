/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Storage modules: an input that begins with '{' is a manifest; with '=', options for the one
 * below; any other is a URI.
 *
 * Besides not crashing: a refusal is one clean line; what was taken is within its limits, and the
 * options that come out are the ones that the manifest knows.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <insula/uri.h>

#include "must.h"
#include "spec/manifest.h"

static const char known[] =
	"{\"api\":1,\"device\":\"disk\",\"about\":\"x\",\"settings\":{"
	"\"n\":{\"type\":\"number\",\"min\":1,\"max\":9,\"default\":\"3\"},"
	"\"c\":{\"type\":\"choice\",\"choices\":[\"x\",\"y\"]},\"t\":{\"type\":\"text\"}}}";

static void check_line(int rc, const struct err *e)
{
	MUST(rc == -EINVAL && e->code == rc && e->text[0]);
	for (const char *p = e->text; *p; p++)
		MUST((unsigned char)*p >= 0x20 && *p != 0x7f);
}

static void fuzz_whole(const char *text, size_t len)
{
	static struct manifest m;
	struct err e = {0};
	int rc = manifest_parse(&m, "mod", text, len, &e);

	if (rc) {
		check_line(rc, &e);
		return;
	}
	MUST(m.nsettings <= MANIFEST_SETTINGS && m.nschemes <= MANIFEST_SCHEMES);
	MUST(m.memory >= 1u << 20 && m.memory <= MANIFEST_MAX_MEMORY);
	MUST(!strchr(m.program, '/') && m.program[0] && m.program[0] != '.');
	for (unsigned i = 0; i < m.nschemes; i++)
		MUST(manifest_scheme(&m, m.scheme[i].name));
	for (unsigned i = 0; i < m.nsettings; i++)
		MUST(m.setting[i].type && m.setting[i].min <= m.setting[i].max);
}

static void fuzz_options(const char *text)
{
	static struct manifest m;
	struct err e = {0};
	char out[512];
	int rc;

	MUST(!manifest_parse(&m, "mod", known, sizeof(known) - 1, &e));
	rc = manifest_settings(&m, text, out, sizeof(out), &e);
	if (rc < 0) {
		check_line(rc, &(struct err){.code = rc, .text = "x"});
		return;
	}
	MUST(rc >= 4 && (size_t)rc <= sizeof(out) && !out[rc - 1]);
	for (const char *p = out; p < out + rc; p += strlen(p) + 1)
		MUST(strlen(p) > 1 && p[1] == '=' && strchr("nct", p[0]));
}

static void fuzz_uri(const char *text)
{
	struct err e = {0};
	struct uri u;
	char value[32];
	int rc = uri_parse(&u, text, &e);

	if (rc) {
		MUST(rc == -EINVAL && e.text[0]);
		return;
	}
	MUST(u.scheme[0] && strlen(u.socket) <= URI_SOCKET_MAX);
	MUST(!uri_query(&u, "a", value, sizeof(value)) || strlen(value) < sizeof(value));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1);

	if (size)
		memcpy(text, data, size);
	text[size] = 0;
	if (*text == '{')
		fuzz_whole(text, size);
	else if (*text == '=')
		fuzz_options(text + 1);
	else
		fuzz_uri(text);
	free(text);
	return 0;
}
