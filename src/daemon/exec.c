/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The methods that run commands in a VM. insulad hands the client's descriptors on to the VM's
 * supervisor and never reads or writes them; what the guest says about a command is parsed by a
 * jailed insula-exec, and arrives here as a status and a line.
 *
 * The supervisor remembers its commands, not insulad: so they outlive it.
 */
#include <stdio.h>
#include <string.h>

#include <insula/base.h>

#include "exec.h"
#include "machine.h"
#include "method.h"
#include "methods.h"
#include "request.h"
#include "spec/json.h"
#include "talk.h"

/* ---- vm.exec ---- */

static bool check_fds(struct request *r)
{
	int n = method_streams(r);
	char value[48];
	const struct refusal why = {RPC_BAD_PARAMS,
				    "descriptor",
				    "descriptors",
				    value,
				    "2: output and errors, or 3: input, output and errors",
				    NULL};

	if (n < 0 || (!r->more_fds && (n == 2 || n == 3)))
		return n > 0;
	snprintf(value, sizeof(value), "%s%d", r->more_fds ? "more than " : "", n);
	request_refuse(r, &why);
	return false;
}

/* Members that are there go from one object to another. */
static void exec_copy(json_object *to, json_object *from, const char *const *keys, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (j_get(from, keys[i]))
			j_obj(to, keys[i], json_object_get(j_get(from, keys[i])));
	}
}

void method_vm_exec(struct daemon *d, struct request *r)
{
	static const char *const config[] = {"command", "env", "cwd", "user", "tty"};
	static const char *const others[] = {"rows", "cols", "queue", "queue_seconds", "streams"};
	struct machine *m = method_machine(d, r);
	json_object *params, *c;

	if (!m || !check_fds(r))
		return;
	params = json_object_new_object();
	c = json_object_new_object();
	exec_copy(c, r->params, config, ARRAY_LEN(config));
	exec_copy(params, r->params, others, ARRAY_LEN(others));
	j_obj(params, "config", c);
	j_str(params, "owner", method_owner(r));
	talk_ask(m, "exec", params, method_pass_on, r, true);
}

/* ---- while it runs ---- */

static void exec_ask(struct daemon *d, struct request *r, const char *op)
{
	static const char *const keys[] = {"exec", "signal", "rows", "cols"};
	struct machine *m = method_machine(d, r);
	json_object *params;

	if (!m)
		return;
	params = json_object_new_object();
	exec_copy(params, r->params, keys, ARRAY_LEN(keys));
	talk_ask(m, op, params, method_pass_on, r, false);
}

void method_vm_exec_signal(struct daemon *d, struct request *r)
{
	exec_ask(d, r, "exec-signal");
}

void method_vm_exec_resize(struct daemon *d, struct request *r)
{
	exec_ask(d, r, "exec-resize");
}

/* ---- its end ---- */

/* From a supervisor, which may lie, but not to the shape of an answer. */
static json_object *exec_end_of(uint32_t exec, json_object *said)
{
	static const char *const known[] = {"exited", "signaled", "refused", "lost", "output-lost"};
	json_object *o = json_object_new_object();
	const char *reason = j_get_str(said, "reason", ""), *text = j_get_str(said, "text", NULL);
	int64_t status = j_get_int(said, "status", 125);
	size_t i = 0;

	while (i < ARRAY_LEN(known) - 1 && strcmp(known[i], reason) != 0)
		i++;
	j_int(o, "exec", exec);
	j_int(o, "status", status < 0 || status > 255 ? 125 : status);
	j_str(o, "reason", known[i]);
	if (text && strlen(text) < 400)
		j_str(o, "text", text);
	return o;
}

void exec_ended(struct machine *m, json_object *data)
{
	int64_t exec = j_get_int(data, "exec", 0);
	struct request *r = m->waiting, *next;

	for (; r; r = next) {
		next = r->next_held;
		if (!r->exec || r->exec != (uint64_t)exec)
			continue;
		machine_release(r);
		request_answer(r, exec_end_of(r->exec, data));
	}
}

/* Its event comes behind this answer, on the same socket: nothing is missed in between. */
static void wait_or_answer(struct machine *m, struct request *r, json_object *result,
			   json_object *error, int fd)
{
	(void)fd;
	if (error)
		method_refuse_as(r, error);
	else if (j_get_bool(result, "ended", false))
		request_answer(r, exec_end_of(r->exec, result));
	else if (!r->client)
		request_free(r);
	else
		machine_hold(m, r, (uint64_t)j_get_int(r->params, "timeout_ms", 0));
}

void method_vm_exec_wait(struct daemon *d, struct request *r)
{
	struct machine *m = method_machine(d, r);
	json_object *params;

	if (!m)
		return;
	r->exec = (uint32_t)j_get_int(r->params, "exec", 0);
	params = json_object_new_object();
	j_int(params, "exec", r->exec);
	talk_ask(m, "exec-result", params, wait_or_answer, r, false);
}
