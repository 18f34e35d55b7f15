/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The words of a card's policy (insula/netpolicy.h):
 *
 *   allow  [tcp:|udp:|icmp:]DEST[:PORT[-PORT]]   DEST: ADDRESS[/LENGTH], of IPv6 in brackets, a
 *                                                name, or *
 *   serve  tcp:PORT[-PORT] or udp:PORT[-PORT]
 *   from   ADDRESS[/LENGTH]
 *
 * They come as items of --net, and as parameters of vm.net.policy.
 */
#ifndef SPEC_NETPOLICY_H
#define SPEC_NETPOLICY_H

#include <stddef.h>

#include <insula/err.h>
#include <insula/netpolicy.h>

struct json_object;

/* Add one. NULL: done; else what was expected, a static text. */
const char *policy_add_allow(struct net_policy *p, const char *text);
const char *policy_add_serve(struct net_policy *p, const char *text);
const char *policy_add_from(struct net_policy *p, const char *text);

/* Where a policy from JSON is wrong. */
struct policy_mistake {
	char field[48]; /* "allow[1]" */
	char value[128];
	const char *expected; /* static */
};
/* {allow, serve, from: arrays of texts, off: true}: the whole of a policy, but for what
 * policy_finish() adds. -EINVAL with the line and the mistake. */
int policy_json(struct net_policy *p, struct json_object *params, struct policy_mistake *m,
		struct err *e);

/* What the card says otherwise. */
struct policy_card {
	const char *ip, *dns; /* "": not given; ip may have a length */
	int any_source;       /* passt is behind it */
};
/* The source that the guest has by `ip`, unless there is a `from`; the resolver. NULL: it is whole;
 * else what is missing, a static text ("ip=ADDRESS/LENGTH or from=ADDRESS"). */
const char *policy_finish(struct net_policy *p, const struct policy_card *card);

/* "tcp 192.0.2.1 port 443", "[2001:db8::]/32": for lines and for nftables. */
#define POLICY_TEXT 64
const char *policy_prefix_text(const struct policy_prefix *p, char out[POLICY_TEXT]);

#endif
