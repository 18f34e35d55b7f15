/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a guest may send by a network card: one typed description, made by src/spec/netpolicy.c from
 * text, and compiled for each place that enforces it.
 *
 *   insula-net      reads it as it is (MSG_NET_POLICY, devices/net/net_policy.h)
 *   a TAP's ingress a table of nftables (supervisor/backing/nft.h), outside of all of the VM's
 *                   processes
 *
 * Both say the same of every frame. All that is not allowed is dropped. Without state: what comes
 * to the guest is not looked at, and an answer of the guest is a frame that it sends.
 *
 * Fixed width, no pointers: it is the body of a message.
 */
#ifndef INSULA_NETPOLICY_H
#define INSULA_NETPOLICY_H

#include <stdint.h>

#define POLICY_MAX_RULES 64
#define POLICY_MAX_SERVES 16
#define POLICY_MAX_SOURCES 8
#define POLICY_MAX_NAMES 16
#define POLICY_NAME_LEN 128 /* with the NUL; a longer name is refused */

enum policy_proto { POLICY_ANY_PROTO = 0, POLICY_ICMP = 1, POLICY_TCP = 6, POLICY_UDP = 17 };
enum policy_flags {
	POLICY_ON = 1,         /* else the card is not limited, and nothing else counts */
	POLICY_ANY_SOURCE = 2, /* source addresses of IP are not looked at: behind the card they
				* mean nothing (passt) */
};

/* An address, or the first `bits` bits of one. */
struct policy_prefix {
	uint8_t addr[16]; /* of IPv4: the first four bytes, then zeros */
	uint8_t family;   /* 4 or 6; 0: every address of both */
	uint8_t bits;
	uint8_t pad[2];
};

/* A destination that is allowed. */
struct policy_rule {
	struct policy_prefix to;   /* counts if there is no name */
	uint8_t proto;             /* enum policy_proto; ICMP stands for ICMPv6, too */
	uint8_t name;              /* 1 + index in names[]; 0: none */
	uint16_t port_lo, port_hi; /* of TCP and UDP; 0: all, and all of IP if proto is ANY */
	uint8_t pad[2];
};

/* A port on which the guest serves: its answers may go anywhere. Of TCP all but the first segment of
 * a connection that the guest would begin. */
struct policy_serve {
	uint8_t proto; /* TCP or UDP */
	uint8_t pad;
	uint16_t port_lo, port_hi;
};

struct net_policy {
	uint32_t flags; /* enum policy_flags */
	uint16_t nrules, nserves, nsources, nnames;
	uint8_t mac[6]; /* that the guest may send from */
	uint8_t pad[2];
	struct policy_prefix resolver; /* with names: whose answers are followed; else all zero */
	struct policy_rule rule[POLICY_MAX_RULES];
	struct policy_serve serve[POLICY_MAX_SERVES];
	struct policy_prefix source[POLICY_MAX_SOURCES]; /* addresses that the guest may have */
	char name[POLICY_MAX_NAMES][POLICY_NAME_LEN];    /* small letters */
};
_Static_assert(sizeof(struct policy_prefix) == 20 && sizeof(struct policy_rule) == 28 &&
		       sizeof(struct policy_serve) == 6 && sizeof(struct net_policy) < 8192,
	       "it is the body of a message");

/* Why a frame was dropped. */
enum policy_verdict {
	POLICY_PASS,
	POLICY_DROP_MAC,    /* it is not from the card's address */
	POLICY_DROP_SOURCE, /* it is not from an address that the guest may have */
	POLICY_DROP_ARP, /* ARP that speaks for another address, or neighbour discovery that does */
	POLICY_DROP_SERVER, /* a DHCP server's answer, or a router's advertisement or redirection */
	POLICY_DROP_KIND,   /* neither ARP nor IP, or a part that cannot be judged: see jail.md */
	POLICY_DROP_TO,     /* no rule allows where it goes */
	POLICY_VERDICTS
};

/* MSG_NET_DENIED, at most one a second: frames were dropped since the last one. */
struct msg_net_denied {
	uint64_t frames;
	uint32_t verdict; /* of the last one: enum policy_verdict */
	uint16_t port;    /* that it went to; 0: none */
	uint8_t family;   /* 4, 6, 0: none */
	uint8_t proto;    /* of IP; any number */
	uint8_t to[16];
};

/* MSG_NET_NAME: an answer of the resolver has led a name of the policy to an address. */
struct msg_net_name {
	uint32_t name; /* index in names[] */
	uint32_t seconds;
	struct policy_prefix to;
};

#endif
