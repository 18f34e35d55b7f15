/* SPDX-License-Identifier: BSD-2-Clause */
/* There is no network on Windows yet: no policy. See control_call.h. */
#include "control_call.h"

void op_net_policy(struct call *c)
{
	control_refuse(c->k, c->conn, c->id, "bad-params", "there is no network on Windows yet");
}
