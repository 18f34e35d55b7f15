/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * insula-container's files of records, any bytes. Input: one byte for the kind of the file, then
 * the file.
 *
 * Besides not crashing: what is accepted is whole (lists end with NULL, binds have sources, rules
 * become a program), and nothing is accepted without its version and the NUL at its end.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "guest/container/container.h"
#include "guest/container/kernel.h"
#include "must.h"

static void use_list(const struct list *l)
{
	for (size_t i = 0; i < l->n; i++)
		MUST(l->v[i] && strlen(l->v[i]) < CT_FILE_MAX);
	MUST(!l->n || !l->v[l->n]);
}

static void use_container(const struct container *c)
{
	struct k_bpf_insn *program;

	MUST(id_valid(c->id) && c->rootfs[0] == '/' && c->process.arg.n);
	for (size_t i = 0; i < c->mounts; i++)
		MUST(c->mount[i].dest[0] == '/' && (c->mount[i].type || c->mount[i].source));
	for (size_t i = 0; i < c->devices; i++)
		MUST(c->device[i].type);
	for (size_t i = 0; i < c->hooks; i++) {
		use_list(&c->hook[i].arg);
		use_list(&c->hook[i].env);
	}
	use_list(&c->masked);
	use_list(&c->ro_path);
	use_list(&c->sysctl);
	MUST(devices_program(c->devrule, c->devrules, &program, NULL) > 0);
	free(program);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	enum config_kind kind;
	struct config c;
	char *text;

	if (size < 1)
		return 0;
	kind = data[0] & 3;
	text = malloc(size);
	if (!text)
		return 0;
	memcpy(text, data + 1, size - 1);
	text[size - 1] = '\0';
	if (records_parse(kind, text, size - 1, &c, NULL) == 0) {
		MUST(size > sizeof("version=1") && data[size - 1] == '\0');
		use_list(&c.container.process.arg);
		use_list(&c.container.process.env);
		use_list(&c.container.cgroup);
		if (kind == CONFIG_CONTAINER)
			use_container(&c.container);
		if (kind == CONFIG_PROCESS)
			MUST(c.container.process.arg.n);
	}
	records_free(&c);
	free(text);
	return 0;
}
