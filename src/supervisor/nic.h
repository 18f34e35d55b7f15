/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A network card as the supervisor holds it: its backing found fit and opened, its address chosen.
 *
 *   TAP      the queues are opened once and live as long as the VM: a new helper gets the same
 *   stream   (a switch's socket, or passt) every helper gets a connection of its own, so that a
 *            frame that an earlier one had half sent or half read cannot put it out of step. For
 *            passt that is a new passt, too: it lives as long as its connection.
 */
#ifndef SUPERVISOR_NIC_H
#define SUPERVISOR_NIC_H

#include <insula/proto.h>

#include "child.h"
#include "config.h"

struct nic {
	const struct net_config *conf; /* borrowed */
	int tap[NET_MAX_PAIRS];        /* owned; -1: none */
	unsigned ntaps;
	int conn;          /* owned: a connected socket that no helper has got yet, or -1 */
	uint64_t tried_ns; /* when it was last tried to connect */
	struct msg_start_net start; /* kind, pairs, offloads, MTU, limits, address filled in */

	char passt_path[256];
	struct child passt; /* has no channel; its log lines and its death are the supervisor's */
};

/* Open and check the nth card; with `check_only` nothing is connected. The text names what was
 * expected. On error nothing is left open. */
int nic_open(struct nic *c, const struct net_config *conf, unsigned nth, bool check_only,
	     struct err *e);
void nic_close(struct nic *c);
/* A connected socket for a new helper (the caller closes it); starts passt if that is behind it. */
int nic_connect(struct nic *c, struct err *e);
/* Could nic_connect() succeed? 1, or 0: not yet. Asks at most every NIC_RETRY_NS. */
int nic_reachable(struct nic *c);
#define NIC_RETRY_NS 200000000ull

/* A locally administered address that is the same for the same card of the same host every time. */
void nic_address(const struct net_config *conf, unsigned nth, uint8_t mac[6]);

/* ---- passt.c ---- */
/* Look for the program. -ENOENT: the text names the package. */
int passt_find(char *path, size_t size, struct err *e);
/* Start passt on `sock`, its end of a connected pair (it stays the caller's). */
int passt_spawn(struct child *c, const char *path, const struct net_config *conf, int sock,
		struct err *e);

#endif
