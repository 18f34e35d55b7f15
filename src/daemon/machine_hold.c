/* SPDX-License-Identifier: BSD-2-Clause */
/* Requests that wait for a VM, to run or to end. See machine.h. */
#include <string.h>

#include <insula/base.h>

#include "daemon.h"
#include "machine.h"
#include "request.h"
#include "spec/json.h"
#include "watch.h"

static void refuse_late(void *ctx)
{
	struct request *r = ctx;
	const struct refusal why = {RPC_TIMEOUT,
				    "timeout",
				    NULL,
				    NULL,
				    NULL,
				    r->exec ? "the command has not ended in that time"
					    : "the VM has not ended in that time"};

	r->timer = NULL;
	machine_release(r);
	request_refuse(r, &why);
}

void machine_hold(struct machine *m, struct request *r, uint64_t ms)
{
	r->machine = m;
	r->next_held = m->waiting;
	m->waiting = r;
	if (ms)
		r->timer = timer_after(&m->d->loop, ms, refuse_late, r);
}

void machine_release(struct request *r)
{
	struct machine *m = r->machine;
	struct request **at = m ? &m->waiting : NULL;

	timer_cancel(r->timer);
	r->timer = NULL;
	if (m && m->starting == r)
		m->starting = NULL;
	while (at && *at && *at != r)
		at = &(*at)->next_held;
	if (at && *at)
		*at = r->next_held;
	r->machine = NULL;
}

void machine_answer_waiting(struct machine *m)
{
	machine_refuse_execs(m);
	while (m->waiting) {
		struct request *r = m->waiting;

		machine_release(r);
		request_answer(r, machine_result(m));
	}
}

void machine_refuse_execs(struct machine *m)
{
	static const struct refusal why = {
		RPC_STATE, "ended", NULL, NULL, NULL, "the VM has ended, and its commands with it"};

	for (struct request *r = m->waiting, *next; r; r = next) {
		next = r->next_held;
		if (!r->exec)
			continue;
		machine_release(r);
		request_refuse(r, &why);
	}
}

/* Started, but the guest never ran. */
void machine_refuse_starting(struct machine *m)
{
	struct request *r = m->starting;
	json_object *result = m->r.result ? json_tokener_parse(m->r.result) : NULL;
	const struct refusal why = {
		RPC_FAILED, "start-failed",
		NULL,       NULL,
		NULL,       j_get_str(result, "message", "the VM ended before it ran")};

	if (r) {
		machine_release(r);
		/* A guest may well have run and ended before anybody looked. */
		if (!strcmp(m->reason, "bad-input") || !strcmp(m->reason, "failed") ||
		    !strcmp(m->reason, "start-failed") || !strcmp(m->reason, "supervisor-killed"))
			request_refuse(r, &why);
		else
			request_answer(r, machine_json(m, false));
	}
	json_object_put(result);
}

/* Somebody waited for the end of a VM that was never started. */
void machine_refuse_waiting(struct machine *m)
{
	const struct refusal why = {
		RPC_STATE, "deleted", NULL, NULL, NULL, "the VM was deleted before it was started"};

	while (m->waiting) {
		struct request *r = m->waiting;

		machine_release(r);
		request_refuse(r, &why);
	}
}
