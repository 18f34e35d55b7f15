/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The policy of a card (insula/netpolicy.h) in the supervisor: which enforcement it has, what it is
 * while the VM runs, and what the helper says of it.
 *
 * Every card: insula-net drops what is not allowed. A TAP: nftables besides (nft.h), outside of the
 * VM. docs/jail.md says what each is worth. The helper is told at once; a change of a TAP's is done
 * when nft has ended. Until then a frame has to be allowed by both.
 *
 * A helper that was taken over can say that names lead anywhere: with names a TAP's rules are as
 * good as insula-net. What it says is checked: names of the policy, an address, a bounded number.
 */
#ifndef SUPERVISOR_NIC_POLICY_H
#define SUPERVISOR_NIC_POLICY_H

#include "nic.h"

/* That of the configuration, before the VM has the card. */
int nic_policy_open(struct nic *c, struct err *e);
/* The card's address may be another one now (a snapshot's): before a helper starts. */
int nic_policy_refresh(struct nic *c, struct err *e);
/* Another one, complete but for the MAC address. 0: it is in force; 1: nic_policy_over() will say.
 * `helper`: its process, which may be none. */
int nic_policy_change(struct nic *c, struct child *helper, const struct net_policy *p,
		      struct err *e);
/* Tell a helper that serves now. */
void nic_policy_tell(const struct nic *c, struct child *helper);
/* MSG_NET_DENIED: true with a text for people if somebody is to be told. False: too soon. */
#define NIC_DENIED_TEXT 160
bool nic_policy_denied(struct nic *c, const struct msg_net_denied *m, char out[NIC_DENIED_TEXT]);
/* MSG_NET_NAME. False: it breaks the protocol. */
bool nic_policy_name(struct nic *c, const struct msg_net_name *m);

#endif
