/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the supervisor makes on the host for a card: a port of Open vSwitch on a TAP of its own
 * (ovs.c), or a macvtap (macvtap.c). It is there as long as the VM, and goes with it: a keeper
 * removes it if the supervisor cannot. What even that has left, because it was killed as well or
 * the machine lost power, the next start of such a card removes.
 */
#ifndef SUPERVISOR_ATTACH_H
#define SUPERVISOR_ATTACH_H

#include <net/if.h>
#include <stdbool.h>
#include <stdint.h>

#include <image/spawn.h>
#include <insula/err.h>

#include "keeper.h"
#include "spec/config.h"

enum attach_when {
	ATTACH_NOW,
	ATTACH_CHECK, /* and make nothing */
	ATTACH_LATER, /* the VM runs, and nothing may wait: attach_ready() */
};

enum attach_step { ATTACH_DONE, ATTACH_ADDS, ATTACH_LOOKS };

struct attach {
	const struct net_config *conf; /* borrowed */
	char ifname[IFNAMSIZ];         /* "": nothing was made */
	struct keeper keeper;
	uint8_t mac[6]; /* as the switch or the macvtap knows it */
	char tool[256]; /* ovs-vsctl */
	enum attach_step step;
	struct spawned spawned; /* of that step; */
	int said;               /* owned, or -1: its output */
	bool let;               /* attach_quiet() */
	bool whole_frames;      /* whoever reads them there wants their checksums made */
	unsigned ifindex;       /* of the macvtap */
	int lock;               /* owned: who holds it owns the macvtap; -1: none */
	int *queue;             /* where the descriptors go; the caller's */
	unsigned *nqueues;      /* so many are there */
	const char *vm_name;    /* borrowed; NULL: it has none */
};

/* Check and make it: the descriptors of conf->queues queues are in `queue`, the caller's also on
 * error, and *nqueues says how many. ATTACH_NOW waits for Open vSwitch, 5 s at most for each of
 * three questions. A line for people. */
int attach_open(struct attach *a, const struct net_config *conf, const uint8_t mac[6],
		const char *vm_name, int *queue, unsigned *nqueues, enum attach_when when,
		struct err *e);
/* After ATTACH_LATER: 1, 0 (not yet) or why not. */
int attach_ready(struct attach *a, struct err *e);
/* Before attach_close(), for who does not wait: let it go. False: that is not through. */
bool attach_quiet(struct attach *a);
/* The card has another address than it was made with: a VM of a snapshot. */
int attach_address(struct attach *a, const uint8_t mac[6], struct err *e);
void attach_close(struct attach *a);

/* ---- ovs.c ---- */
int ovs_open(struct attach *a, enum attach_when when, struct err *e);
int ovs_ready(struct attach *a, struct err *e);
int ovs_address(const struct attach *a, struct err *e);
int ovs_remove(const void *attach);

/* ---- macvtap.c ---- */
int macvtap_open(struct attach *a, bool check_only, struct err *e);
int macvtap_address(const struct attach *a, struct err *e);
int macvtap_remove(const void *attach);

/* ---- attach.c ---- */
#define ATTACH_NAME_DIGITS 8
/* A name that no interface is likely to have: `prefix` and digits. And is it one? */
void attach_name(char ifname[IFNAMSIZ], const char *prefix);
bool attach_is_name(const char *ifname, const char *prefix);
/* Up, with more flags. The host itself says nothing there: no IPv6. */
int attach_up(const char *ifname, short flags);
/* Of an open /dev/net/tun or /dev/tapN: frames as insula-net reads them. `more`: more flags. */
int attach_queue(int fd, const char *ifname, unsigned queues, unsigned more);

#endif
