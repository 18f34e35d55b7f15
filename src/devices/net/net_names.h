/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Where the names of a policy lead to: the answers of the resolver, as they come to the guest, are
 * read, and the addresses in them count for their TTL, but at least NAMES_FLOOR_S and at most
 * NAMES_MOST_S. Only answers about a name of the policy count (a chain of CNAME in the same answer
 * is followed), only over UDP, and only from the resolver that the card has.
 *
 * The parser reads what a network has sent, and allocates nothing. The table has a lock: one lane
 * may read answers while others look addresses up.
 */
#ifndef DEVICES_NET_NAMES_H
#define DEVICES_NET_NAMES_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

#include <insula/netpolicy.h>

#define NAMES_MAX 256u
#define NAMES_FLOOR_S 60u
#define NAMES_MOST_S 86400u
#define NAMES_ANSWER 64u /* addresses of one answer that count */

struct net_names {
	pthread_mutex_t lock;
	unsigned n;
	struct {
		uint8_t addr[16];
		uint8_t family, name;
		uint64_t until_ns;
	} at[NAMES_MAX];
};

void net_names_init(struct net_names *t);
void net_names_forget(struct net_names *t);
/* One more; one that is there lasts longer. When there is no room the one that would end first
 * goes. */
void net_names_add(struct net_names *t, unsigned name, const struct policy_prefix *to,
		   unsigned seconds, uint64_t now_ns);
/* Has the name led there? Without a table: no. */
bool net_names_has(struct net_names *t, unsigned name, uint8_t family, const uint8_t *addr);

/* An answer of DNS, without what carried it: the addresses that it gives to names of the policy.
 * How many, at most `max`. */
unsigned net_names_read(const struct net_policy *p, const uint8_t *dns, size_t len,
			struct msg_net_name *out, unsigned max);
/* The same of a whole frame to the guest; 0: it is no answer of the resolver. */
unsigned net_names_frame(const struct net_policy *p, const uint8_t *frame, size_t len,
			 struct msg_net_name *out, unsigned max);

#endif
