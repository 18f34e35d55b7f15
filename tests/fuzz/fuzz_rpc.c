/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The daemon's JSON side: each line of the input is a line of a client of user 1000, before a
 * registry with a VM of that user and a VM of another user. Nothing can be started or stored.
 *
 * Besides not crashing: every answer is one line of JSON-RPC; and the other user's VM is never in
 * it.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/client.h"
#include "daemon/daemon.h"
#include "daemon/dlog.h"
#include "daemon/foreign.h"
#include "daemon/machine.h"
#include "daemon/request.h"
#include "spec/json.h"
#include "must.h"

static void check_answers(struct client *c)
{
	const char *text;

	while (!c->gone && (text = client_first_line(c))) {
		const char *why;
		json_object *o = j_parse(text, strlen(text), 64, &why);

		MUST(o && !strchr(text, '\n') && !strstr(text, "hidden-one"));
		MUST(json_object_is_type(o, json_type_array) ||
		     !strcmp(j_get_str(o, "jsonrpc", ""), "2.0"));
		json_object_put(o);
		client_free_line(c);
	}
}

static void add_machine(struct daemon *d, uid_t uid, const char *name, const char *id)
{
	struct machine *m = machine_new(d);

	MUST(m);
	m->r.owner.uid = uid;
	strcpy(m->r.name, name);
	strcpy(m->r.id, id);
	m->r.config = strdup("{}");
}

/* The loop and the schemas are made once: they do not remember anything. */
static struct daemon d = {

	.pool_state = -1, .state_lock = -1, .supervisor = -1, .cgroups = {.dir = -1}};

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	d.state = open("/proc/self", O_DIRECTORY | O_PATH); /* takes no files */
	MUST(!uv_loop_init(&d.loop) && !schemas_load(&d.schemas, NULL));
	conf_init(&d.conf);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *at = (const char *)data, *end = at + size;
	struct client *c;

	add_machine(&d, 1001, "hidden-one", "00000000hidden00");
	add_machine(&d, 1000, "a", "0123456789abcdef");
	/* A refusal repeats what it refuses: whoever says the name himself may hear it. */
	if (memmem(data, size, "hidden", 6))
		end = at;
	c = client_make(&d, &(struct owner){.uid = 1000});
	MUST(c);
	while (at < end && !c->gone) {
		const char *nl = memchr(at, '\n', (size_t)(end - at));

		if (!nl)
			nl = end;
		rpc_line(&d, c, at, (size_t)(nl - at));
		check_answers(c);
		at = nl + 1;
	}
	clients_close(&d);
	machines_close(&d);
	while (uv_run(&d.loop, UV_RUN_NOWAIT))
		;
	MUST(!d.clients && !d.nclients && !d.nmachines && !uv_loop_alive(&d.loop));
	return 0;
}
