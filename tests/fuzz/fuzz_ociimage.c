/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * JSON of images: the first letter says which (i index, m manifest, c configuration, r record, n a
 * name), the rest is the text.
 *
 * Besides not crashing: a refusal is one line; what was taken is within its limits, and a record of
 * it is read back as the same.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "image/oci.h"
#include "spec/config.h"
#include "must.h"

static void check_blob(const struct oci_blob *b, uint64_t most)
{
	MUST(strlen(b->hex) == 64 && b->hex[strspn(b->hex, "0123456789abcdef")] == 0);
	MUST(b->size <= most);
}

static void check_refusal(int rc, const struct err *e)
{
	MUST((rc == -EINVAL || rc == -ENOMEM) && e->code == rc && e->text[0]);
}

static void index_text(const char *text, size_t len, struct err *e)
{
	struct oci_blob b;
	bool index;
	int rc = oci_index(text, len, "", &b, &index, e);

	if (rc)
		check_refusal(rc, e);
	else
		check_blob(&b, OCI_TEXT_MAX);
	(void)oci_index(text, len, "latest", &b, &index, e);
}

static void manifest_text(const char *text, size_t len, struct err *e)
{
	struct oci_manifest m;
	int rc = oci_manifest(text, len, &m, e);

	if (rc) {
		check_refusal(rc, e);
		return;
	}
	MUST(m.nlayers >= 1 && m.nlayers <= OCI_MAX_LAYERS);
	check_blob(&m.config, OCI_TEXT_MAX);
	for (unsigned i = 0; i < m.nlayers; i++)
		check_blob(&m.layer[i], OCI_BLOB_MAX);
}

static void check_strings(char **list)
{
	unsigned n = 0;

	while (list && list[n])
		n++;
	MUST(n <= OCI_MAX_STRINGS);
}

static void config_text(const char *text, size_t len, struct err *e)
{
	struct oci_manifest m = {.nlayers = 1}, again;
	struct oci_config c = {0}, back = {0};
	int rc = oci_config(text, len, &c, e);
	char *record;

	if (rc) {
		check_refusal(rc, e);
		oci_config_free(&c);
		return;
	}
	check_strings(c.entrypoint);
	check_strings(c.cmd);
	check_strings(c.env);
	MUST(c.ndiff <= OCI_MAX_LAYERS);
	memset(m.layer[0].hex, 'a', 64);
	record = oci_record(&m, m.layer[0].hex, &c);
	MUST(record && !oci_record_read(record, strlen(record), &again, &back, e));
	MUST(!strcmp(back.text, c.text) && back.ndiff == c.ndiff && !back.user == !c.user);
	free(record);
	oci_config_free(&back);
	oci_config_free(&c);
}

static void record_text(const char *text, size_t len, struct err *e)
{
	struct oci_manifest m;
	struct oci_config c = {0};

	if (!oci_record_read(text, len, &m, &c, e))
		MUST(m.nlayers >= 1 && m.nlayers <= OCI_MAX_LAYERS);
	oci_config_free(&c);
}

static void name_text(const char *text)
{
	const char *why = NULL;
	char *ref = image_reference(text, &why);

	MUST(ref || why);
	if (ref) {
		MUST(strlen(ref) < CONFIG_IMAGE_MAX && strchr(ref, ':') && ref[0] != '-');
		for (const char *p = ref; *p; p++)
			MUST((unsigned char)*p >= 0x20 && *p != 0x7f);
	}
	free(ref);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct err e = {0};
	char *text;

	if (!size)
		return 0;
	text = malloc(size);
	memcpy(text, data + 1, size - 1);
	text[size - 1] = 0;
	switch (data[0]) {
	case 'i':
		index_text(text, size - 1, &e);
		break;
	case 'm':
		manifest_text(text, size - 1, &e);
		break;
	case 'c':
		config_text(text, size - 1, &e);
		break;
	case 'r':
		record_text(text, size - 1, &e);
		break;
	case 'n':
		name_text(text);
		break;
	default:
		break;
	}
	free(text);
	return 0;
}
