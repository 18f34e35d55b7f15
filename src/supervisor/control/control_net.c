/* SPDX-License-Identifier: BSD-2-Clause */
/* Operations on what a VM may send: the policy of a card. See control_call.h. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <insula/base.h>

#include "control_call.h"
#include "spec/netpolicy.h"
#include "supervisor/backing/nic_policy.h"
#include "supervisor/device/device.h"
#include "supervisor/vm_common.h"

/* ---- the policy ---- */

void control_policy(struct control *k, const char *device, const char *why)
{
	char text[288];

	if (!k || strcmp(k->policy.device, device) != 0)
		return;
	k->policy.device[0] = 0;
	if (!why) {
		control_answer(k, k->policy.conn, k->policy.id, NULL);
		return;
	}
	snprintf(text, sizeof(text),
		 "nft: %.200s: insula-net has the new policy, the TAP the one "
		 "before",
		 why);
	control_refuse(k, k->policy.conn, k->policy.id, "failed", text);
}

static void policy_begin(struct call *c, struct device *d, const struct net_policy *p)
{
	struct control *k = c->k;
	struct err e;
	int rc = k->policy.device[0] ? err_set(&e, -EBUSY, "another policy is on its way")
				     : nic_policy_change(d->back.nic, &d->child, p, &e);

	if (rc < 0) {
		control_refuse(k, c->conn, c->id, rc == -EBUSY ? "busy" : "failed", e.text);
	} else if (rc == 0) {
		control_answer(k, c->conn, c->id, NULL);
	} else {
		k->policy.conn = c->conn;
		k->policy.id = c->id;
		snprintf(k->policy.device, sizeof(k->policy.device), "%s", d->desc.name);
	}
}

void op_net_policy(struct call *c)
{
	struct device *d = call_device(c);
	struct policy_mistake m;
	struct net_policy p;
	const char *why;
	struct err e;
	int rc;

	if (!d)
		return;
	if (d->class != &device_net || d->back.nic->conf->vhost) {
		err_set(&e, -EINVAL, "device: '%.40s'; expected a network card without vhost=on",
			d->desc.name);
		control_refuse(c->k, c->conn, c->id, "bad-params", e.text);
		return;
	}
	rc = policy_json(&p, c->params, &m, &e);
	why = rc ? NULL : config_policy(d->back.nic->conf, &p);
	if (why)
		rc = err_set(&e, -EINVAL, "allow, serve, from: expected %s", why);
	if (rc)
		control_refuse(c->k, c->conn, c->id, "bad-params", e.text);
	else
		policy_begin(c, d, &p);
}
