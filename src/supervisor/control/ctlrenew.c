/* SPDX-License-Identifier: BSD-2-Clause */
/* The guest is told that it goes on. See ctlrenew.h. */
#include "ctlrenew.h"

#include <errno.h>
#include <stdio.h>

#include <insula/base.h>
#include <insula/log.h>

#include "control_os.h"
#include "supervisor/command/exec.h"
#include "supervisor/vm_common.h"

#define RENEW_NS 120000000000ull /* for all hooks of the guest together */

static void renewed(struct control *k, const char *why)
{
	k->renew.id = 0;
	if (why[0])
		log_warn("the guest goes on, but: %s", why);
	control_event(k, "renewed", NULL, why[0] ? why : NULL);
}

static void renew_over(struct vm *vm, uint32_t id, const struct msg_exec_exit *x)
{
	char why[EXEC_TEXT_LEN];

	(void)id;
	exec_resumed_why(x, why);
	renewed(vm_control(vm), why);
}

void ctlrenew_want(struct control *k, const char *name)
{
	snprintf(k->renew.vm, sizeof(k->renew.vm), "%s", name);
	k->renew.wanted = true;
}

/* One at a time; its place is free when the process of the last one has been reaped. */
void ctlrenew_serve(struct control *k, struct vm *vm, uint64_t now)
{
	const struct resumed r = {.vm = k->renew.vm, .clock = true};
	struct err e;
	int rc;

	if (k->renew.id && now >= k->renew.limit_ns)
		(void)exec_cancel(vm, k->renew.id, "it did not answer in time");
	if (!k->renew.wanted || k->renew.id || vm_has_ended(vm))
		return;
	rc = exec_resumed(vm, &r, renew_over, &k->renew.id, &e);
	if (rc == -EALREADY)
		return;
	k->renew.wanted = false;
	k->renew.limit_ns = now + RENEW_NS;
	if (rc)
		renewed(k, e.text);
}
