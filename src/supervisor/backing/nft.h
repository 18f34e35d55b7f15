/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The policy of a TAP, outside of all of the VM's processes: a table of nftables in the netdev
 * family, with a chain at the TAP's ingress (of a macvtap its egress, Linux 5.16). It says the same as insula-net does with the same
 * policy (devices/net/net_policy.c), and holds when that has been taken over.
 *
 * The program nft of the host does it, in the network namespace of the TAP, with the rights of the
 * supervisor: root, or CAP_NET_ADMIN there. Each change is one transaction, so there is no moment
 * without rules. The table is named after the TAP; it is made before the VM has the TAP, replaced
 * as a whole, and deleted at the end; by its keeper (nft_keep.c) if the supervisor was killed. One
 * that even that has left drops what its guest was not allowed, and the next VM with a policy
 * replaces it.
 *
 * Only the first and the last transaction are waited for, NFT_WAIT_MS at most. Thread: the
 * supervisor's.
 */
#ifndef SUPERVISOR_NFT_H
#define SUPERVISOR_NFT_H

#include <net/if.h>
#include <stdio.h>

#include <insula/netpolicy.h>

#include "keeper.h"
#include "supervisor/child.h"

#define NFT_WAIT_MS 5000
#define NFT_TABLE (8 + 3 * IFNAMSIZ)
#define NFT_MARK 20
#define NFT_UNDO (64 + 2 * NFT_TABLE + NFT_MARK)
#define NFT_ADDRESSES 256u /* of all names of a card */
#define NFT_GAP_NS 50000000ull

struct nft {
	char path[256];
	char device[IFNAMSIZ], table[NFT_TABLE];
	bool egress;         /* a macvtap: what the guest sends leaves the host's side of it */
	int netns;           /* of the TAP; owned; -1: it is ours */
	bool made;           /* there is a table */
	char mark[NFT_MARK]; /* a chain of it that no other supervisor's has */
	char undo[NFT_UNDO]; /* for its keeper */
	struct keeper keeper;
	struct child child;              /* a transaction that is under way; it has no channel */
	bool whole;                      /* which is a new policy, not addresses */
	bool want_whole, want_addresses; /* that come after it */
	struct net_policy policy;        /* the newest */
	struct {
		struct policy_prefix to;
		unsigned name;
		uint64_t until_ns;
	} at[NFT_ADDRESSES];
	unsigned nat;
	uint64_t next_ns; /* no transaction of addresses before */
};

void nft_none(struct nft *n);
/* Make the table for the TAP behind `tap`, and wait for it. `macvtap`: its name if it is one, which
 * is in our namespace; NULL: it is a TAP. */
int nft_begin(struct nft *n, int tap, const char *macvtap, const struct net_policy *p,
	      struct err *e);
/* Another policy; with POLICY_ON cleared none. Does not wait; 0: nft_over() says what came of it.
 * -EBUSY: another one is on its way. */
int nft_change(struct nft *n, int tap, const char *macvtap, const struct net_policy *p,
	       struct err *e);
/* A name has led somewhere: allowed from soon on. Not all that a guest can say is kept: only names
 * that there are, and NFT_ADDRESSES in all, of which the oldest goes. */
void nft_address(struct nft *n, const struct msg_net_name *m);
/* When nft_tend() wants to be called, clock_ns(); 0: not now. */
uint64_t nft_due(const struct nft *n);
void nft_tend(struct nft *n);
/* n->child has ended. True: it was that of a policy. */
bool nft_over(struct nft *n, const struct child_end *end);
/* Delete the table, and wait for that. */
void nft_end(struct nft *n);

/* nft_keep.c: from now on its table does not outlive us for long. No-op if that is so. */
int nft_keep_start(struct nft *n, struct err *e);

/* The whole of a policy, as nft reads it; `at`: those of n. */
void nft_compile(FILE *f, const struct nft *n, const struct net_policy *p);
/* The sets of its names. */
void nft_compile_addresses(FILE *f, const struct nft *n, const struct net_policy *p,
			   uint64_t now_ns);

#endif
