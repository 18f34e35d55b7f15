/* SPDX-License-Identifier: BSD-2-Clause */
/* What a network namespace has: its interfaces with their addresses, routes, static neighbours. */
#ifndef OCI_NETSCAN_H
#define OCI_NETSCAN_H

#include <net/if.h>
#include <netinet/in.h>

#include "nl.h"
#include "rec.h"

#define NET_LINKS_MAX 8u
#define NET_ADDRS_MAX 64u
#define NET_ROUTES_MAX 512u
#define NET_NEIGHS_MAX 64u
#define NET_TAP "ins" /* and a number: names of our TAPs, which nobody else uses */

struct net_link {
	int index;
	char name[IFNAMSIZ];
	uint8_t mac[6];
	uint32_t mtu;
};

struct net_addr {
	unsigned link; /* in net_scan.link */
	uint8_t family, len;
	struct in6_addr at;
	bool has_route; /* the kernel has made the route of its prefix */
};

struct net_route {
	unsigned link;
	uint8_t family, len;
	struct in6_addr dest, via, src;
	uint8_t via_family; /* 0: none */
	bool has_src, scope_link, onlink;
	uint32_t metric;
};

struct net_neigh {
	unsigned link;
	uint8_t family;
	struct in6_addr at;
	uint8_t mac[6];
};

struct net_scan {
	struct net_link link[NET_LINKS_MAX];
	unsigned nlinks;
	struct net_addr addr[NET_ADDRS_MAX];
	unsigned naddrs;
	struct net_route route[NET_ROUTES_MAX];
	unsigned nroutes;
	struct net_neigh neigh[NET_NEIGHS_MAX];
	unsigned nneighs;
	int old_tap[NET_LINKS_MAX]; /* of ours, that a runtime which was killed has left */
	unsigned nold;
};

/* Interfaces of Ethernet that are up, but for lo, bridges and what is behind one, and TAPs. Routes
 * of the main table. -E2BIG: more than there is room for. */
int net_scan(struct nl *n, struct net_scan *s, struct err *e);
/* Records "of the sandbox" (container.h). */
void net_records(const struct net_scan *s, struct rec *r);

#endif
