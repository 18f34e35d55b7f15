/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Files of the state directory: the first byte chooses a record, a result or the configuration, the
 * rest is the file.
 *
 * Besides not crashing: a record that was taken is within its limits, and written out it is read
 * back as the same text; a refusal is one clean line.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/conf.h"
#include "daemon/record.h"
#include "must.h"

static void check_refusal(const struct err *e)
{
	MUST(e->code < 0 && e->text[0]);
	for (const char *p = e->text; *p; p++)
		MUST((unsigned char)*p >= 0x20 && *p != 0x7f);
}

static void try_record(const char *text, size_t len)
{
	struct record r, again;
	struct err e = {0};
	char *one, *two;

	if (record_parse(&r, text, len, &e)) {
		check_refusal(&e);
		return;
	}
	MUST(id_is_valid(r.id) && name_is_valid(r.name) && r.state < VM_STATES);
	MUST(r.owner.ngroups <= MAX_GROUPS && strlen(r.token) == TOKEN_LEN && r.config &&
	     r.pid >= 0);
	one = record_print(&r);
	MUST(one && !record_parse(&again, one, strlen(one), &e));
	two = record_print(&again);
	MUST(two && !strcmp(one, two));
	free(one);
	free(two);
	record_free(&r);
	record_free(&again);
}

static void try_conf(const char *text, size_t len)
{
	struct conf c;
	struct err e = {0};

	conf_init(&c);
	if (conf_parse(&c, text, len, &e))
		check_refusal(&e);
	MUST(c.nusers <= CONF_MAX_USERS && c.socket[0] == '/' && c.state_dir[0] == '/');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text;

	if (!size)
		return 0;
	/* Exactly as long as it is, so that a read behind it is seen. */
	text = malloc(size);
	memcpy(text, data + 1, size - 1);
	if (data[0] % 3 == 0)
		try_record(text, size - 1);
	else if (data[0] % 3 == 1)
		free(result_parse(text, size - 1, "t"));
	else
		try_conf(text, size - 1);
	free(text);
	return 0;
}
