/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * May the guest send this frame? Judged by its first bytes, which are a copy: the guest could
 * change its own meanwhile. No state but the addresses that names have led to (net_names.h). No
 * system calls, no allocation.
 *
 * Fragments and extension headers: what follows the first fragment has no ports, so rules without
 * ports alone allow it; IPv6 with extension headers is dropped, and so are options of IPv4.
 */
#ifndef DEVICES_NET_POLICY_H
#define DEVICES_NET_POLICY_H

#include <stdbool.h>
#include <stddef.h>

#include <insula/netpolicy.h>

#include "net_names.h"

#define NET_POLICY_HEAD 128u /* bytes of a frame that are looked at; all that judges is in them */

/* `head`: the first `len` bytes, all of a frame that is shorter than NET_POLICY_HEAD. `what`: where
 * it went, if it is dropped. */
enum policy_verdict net_policy_judge(const struct net_policy *p, struct net_names *names,
				     const uint8_t *head, size_t len, struct msg_net_denied *what);
/* May the kernel write a checksum there, of a frame that passes? It does so when all rules have been
 * passed: only behind what they have looked at. */
bool net_policy_sum(const uint8_t *head, size_t len, size_t at);
/* Is this a policy that can be obeyed? */
bool net_policy_is_sane(const struct net_policy *p);
bool net_policy_within(const struct policy_prefix *p, uint8_t family, const uint8_t *addr);

#endif
