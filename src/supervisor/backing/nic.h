/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A network card as the supervisor holds it: its backing found fit and opened, its address chosen.
 *
 *   TAP      the queues are opened once and live as long as the VM: a new helper gets the same.
 *            The TAP is the user's, or made for the card (attach.h)
 *   stream   (a switch's socket, or passt) every helper gets a connection of its own, so that a
 *            frame that an earlier one had half sent or half read cannot put it out of step. For
 *            passt that is a new passt, too: it lives as long as its connection.
 *
 * The other end of a stream may go away. Its helper lives on with the link down, and gets another
 * stream when there is one: it is asked for at first after 10 ms, in the end every 5 s, at moments
 * of chance, so that many VMs behind one switch do not ask at once.
 */
#ifndef SUPERVISOR_NIC_H
#define SUPERVISOR_NIC_H

#include <insula/proto.h>

#include "attach.h"
#include "nft.h"
#include "supervisor/child.h"
#include "devices/net/net_start.h"
#include "spec/config.h"

struct nic {
	const struct net_config *conf; /* borrowed */
	int tap[NET_MAX_PAIRS];        /* owned; -1: none */
	unsigned ntaps;
	struct attach attach; /* what was made on the host for it */
	int conn;             /* owned: a connected socket that no helper has got yet, or -1 */
	struct msg_start_net start; /* kind, pairs, offloads, MTU, limits, address filled in */
	bool away;                  /* a stream without its other end: the link is down */
	unsigned backoff_ms;        /* the last one; 0: none yet */
	uint64_t due_ns;            /* away: when to try the next time */
	uint64_t up_ns;             /* when the last stream began */

	char passt_path[256];
	struct child passt; /* has no channel; its log lines and its death are the supervisor's */
	unsigned passts;    /* so many were started */

	struct net_policy policy; /* in force; nic_policy.h */
	struct nft nft;
	uint64_t denied_ns; /* the last time that somebody was told of what was dropped, */
	uint64_t denied;    /* and since then */
};

/* Open and check the nth card of that machine; with ATTACH_CHECK nothing is connected, and nothing
 * made. The text names what was expected. On error nothing is left open. */
int nic_open(struct nic *c, const struct net_config *conf, unsigned nth, const struct vm_config *vm,
	     enum attach_when when, struct err *e);
/* After ATTACH_LATER: 1, 0 (not yet) or why not. */
int nic_ready(struct nic *c, struct err *e);
/* Before nic_close(), for who does not wait. False: what was made on the host is not removed yet. */
bool nic_quiet(struct nic *c);
void nic_close(struct nic *c);
/* A stream for a new helper (the caller closes it); starts passt if that is behind it. With c->away
 * set it has no other end (NET_AWAY): there is nobody to connect to now. An error is none that time
 * would mend. Does not block. */
int nic_stream(struct nic *c, struct err *e);
/* The helper's stream has ended. False: it had none. */
bool nic_lost(struct nic *c);
/* When nic_retry() wants to be called, clock_ns(); 0: not now. */
uint64_t nic_due(const struct nic *c);
/* Try to connect. The next stream for the helper (the caller closes it), or a negative errno: it
 * will be tried again. Does not block. */
int nic_retry(struct nic *c, struct err *e);

/* A locally administered address that is the same for the same card of the same host every time.
 * Of cards that share what they name, a bridge or a parent, no two that run at once have the same:
 * it is another one with every supervisor, unless a port has a name of its own. */
void nic_address(const struct net_config *conf, unsigned nth, uint8_t mac[6]);
/* Is its address that of its parent, unless another one is said? */
bool nic_is_parents(const struct net_config *conf);
/* The one that is configured, or that of its parent, or else nic_address(). */
void nic_wanted(const struct net_config *conf, unsigned nth, uint8_t mac[6]);
/* One that no other card has. */
void nic_random(uint8_t mac[6]);
#define NIC_MAC_TEXT 18
void nic_mac_text(const uint8_t mac[6], char out[NIC_MAC_TEXT]);
/* What insula-init does with a card of that address: a record of src/guest/net.c. */
#define NIC_RECORD 128
void nic_record(const struct net_config *n, const uint8_t mac[6], char out[NIC_RECORD]);

/* ---- passt.c ---- */
/* Look for the program. -ENOENT: the text names the package. */
int passt_find(char *path, size_t size, struct err *e);
/* Has the host a default route? Without one the guest gets 10.0.2.15, and forwarded ports work. */
bool passt_has_uplink(void);
/* Start passt on `sock`, its end of a connected pair (it stays the caller's). */
int passt_spawn(struct child *c, const char *path, const struct net_config *conf, int sock,
		struct err *e);

#endif
