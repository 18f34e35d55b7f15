/* SPDX-License-Identifier: BSD-2-Clause */
/* The judge of what the guest sends. See net_policy.h. */
#include <string.h>

#include <insula/base.h>

#include "net_policy.h"

#define ETH_LEN 14u
#define IP4_LEN 20u
#define IP6_LEN 40u
#define TYPE_IP4 0x0800u
#define TYPE_ARP 0x0806u
#define TYPE_IP6 0x86ddu
#define ICMP6 58u
#define DNS_PORT 53u

enum { ICMP_REDIRECTS = 5, ICMP_ADVERTISES = 9 };
enum { ND_RS = 133, ND_RA = 134, ND_NS = 135, ND_NA = 136, ND_REDIRECT = 137 };

/* What is known of a frame. */
struct view {
	const struct net_policy *p;
	const uint8_t *f, *l4; /* the frame; what follows the IP header */
	size_t len, l4_len;
	uint8_t family, proto; /* as it stands there */
	const uint8_t *from, *to;
	bool later_fragment;
	bool ports; /* these are known: */
	uint16_t sport, dport;
};

static unsigned be16(const uint8_t *p)
{
	return (unsigned)p[0] << 8 | p[1];
}

static bool all_zero(const uint8_t *p, unsigned n)
{
	while (n && !p[n - 1])
		n--;
	return n == 0;
}

bool net_policy_within(const struct policy_prefix *p, uint8_t family, const uint8_t *addr)
{
	unsigned whole = p->bits / 8, rest = p->bits % 8;

	if (p->family == 0)
		return true;
	if (p->family != family || memcmp(p->addr, addr, whole) != 0)
		return false;
	return !rest || (p->addr[whole] ^ addr[whole]) >> (8 - rest) == 0;
}

/* RFC 4291, appendix A. */
static bool own_link_local(const struct net_policy *p, const uint8_t *a)
{
	const uint8_t *m = p->mac;
	const uint8_t eui[16] = {0xfe, 0x80, 0,    0,    0,    0,    0,   0, (uint8_t)(m[0] ^ 2),
				 m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5]};

	return !memcmp(a, eui, sizeof(eui));
}

static bool is_own(const struct net_policy *p, uint8_t family, const uint8_t *addr)
{
	if (p->flags & POLICY_ANY_SOURCE)
		return true;
	for (unsigned i = 0; i < p->nsources; i++) {
		if (net_policy_within(&p->source[i], family, addr))
			return true;
	}
	return family == 6 && own_link_local(p, addr);
}

/* ---- rules ---- */

static uint8_t rule_proto(const struct view *v)
{
	if (v->family == 6)
		return v->proto == ICMP6 ? POLICY_ICMP : v->proto == POLICY_ICMP ? 255 : v->proto;
	return v->proto;
}

static bool rule_allows(const struct view *v, const struct policy_rule *r, struct net_names *names)
{
	if (r->proto != POLICY_ANY_PROTO && r->proto != rule_proto(v))
		return false;
	if (r->port_lo && (!v->ports || v->dport < r->port_lo || v->dport > r->port_hi))
		return false;
	if (r->name)
		return net_names_has(names, r->name - 1u, v->family, v->to);
	return net_policy_within(&r->to, v->family, v->to);
}

/* The first segment of a connection has SYN and no ACK. */
static bool begins_connection(const struct view *v)
{
	return v->proto == POLICY_TCP && (v->l4[13] & 0x12) == 0x02;
}

static bool answers(const struct view *v)
{
	for (unsigned i = 0; v->ports && i < v->p->nserves; i++) {
		const struct policy_serve *s = &v->p->serve[i];

		if (s->proto == v->proto && v->sport >= s->port_lo && v->sport <= s->port_hi)
			return !begins_connection(v);
	}
	return false;
}

static bool asks_resolver(const struct view *v)
{
	return v->p->nnames && v->ports && v->proto == POLICY_UDP && v->dport == DNS_PORT &&
	       v->p->resolver.family && net_policy_within(&v->p->resolver, v->family, v->to);
}

static enum policy_verdict by_rules(const struct view *v, struct net_names *names)
{
	if (answers(v) || asks_resolver(v))
		return POLICY_PASS;
	for (unsigned i = 0; i < v->p->nrules; i++) {
		if (rule_allows(v, &v->p->rule[i], names))
			return POLICY_PASS;
	}
	return POLICY_DROP_TO;
}

/* Of TCP the flags have to be there as well. False: it is cut. */
static bool find_ports(struct view *v)
{
	unsigned least = v->proto == POLICY_TCP ? 14 : 4;

	if (v->later_fragment || (v->proto != POLICY_TCP && v->proto != POLICY_UDP))
		return true;
	if (v->l4_len < least)
		return false;
	v->ports = true;
	v->sport = (uint16_t)be16(v->l4);
	v->dport = (uint16_t)be16(v->l4 + 2);
	return true;
}

/* ---- ARP, IPv4 ---- */

static enum policy_verdict judge_arp(const struct view *v)
{
	static const uint8_t ethernet_ip4[6] = {0, 1, 8, 0, 6, 4};
	const uint8_t *a = v->f + ETH_LEN;
	unsigned op;

	if (v->len < ETH_LEN + 28 || memcmp(a, ethernet_ip4, sizeof(ethernet_ip4)) != 0)
		return POLICY_DROP_ARP;
	op = be16(a + 6);
	if ((op != 1 && op != 2) || memcmp(a + 8, v->p->mac, 6) != 0)
		return POLICY_DROP_ARP;
	return all_zero(a + 14, 4) || is_own(v->p, 4, a + 14) ? POLICY_PASS : POLICY_DROP_ARP;
}

static bool is_dhcp_request(const struct view *v)
{
	static const uint8_t everybody[4] = {255, 255, 255, 255};

	return v->ports && v->proto == POLICY_UDP && v->sport == 68 && v->dport == 67 &&
	       !memcmp(v->to, everybody, sizeof(everybody));
}

static enum policy_verdict judge_ip4(struct view *v, struct net_names *names)
{
	const uint8_t *ip = v->f + ETH_LEN;

	if (v->len < ETH_LEN + IP4_LEN || ip[0] != 0x45)
		return POLICY_DROP_KIND;
	v->family = 4;
	v->proto = ip[9];
	v->from = ip + 12;
	v->to = ip + 16;
	v->l4 = ip + IP4_LEN;
	v->l4_len = v->len - ETH_LEN - IP4_LEN;
	v->later_fragment = be16(ip + 6) & 0x1fff;
	if (!find_ports(v))
		return POLICY_DROP_KIND;
	if (v->ports && v->proto == POLICY_UDP && v->sport == 67)
		return POLICY_DROP_SERVER;
	if (v->proto == POLICY_ICMP && !v->later_fragment && v->l4_len &&
	    (v->l4[0] == ICMP_REDIRECTS || v->l4[0] == ICMP_ADVERTISES))
		return POLICY_DROP_SERVER;
	if (is_dhcp_request(v) && (all_zero(v->from, 4) || is_own(v->p, 4, v->from)))
		return POLICY_PASS;
	if (!is_own(v->p, 4, v->from))
		return POLICY_DROP_SOURCE;
	return by_rules(v, names);
}

/* ---- IPv6 ---- */

/* Neighbours are asked and answered on the link: a group of it, an address of it. */
static bool on_link(const struct view *v)
{
	if ((v->to[0] == 0xff && v->to[1] == 0x02) || (v->to[0] == 0xfe && v->to[1] >> 6 == 2))
		return true;
	for (unsigned i = 0; i < v->p->nsources; i++) {
		if (v->p->source[i].family == 6 && !memcmp(v->p->source[i].addr, v->to, 8))
			return true;
	}
	return v->p->flags & POLICY_ANY_SOURCE;
}

/* No option; or the one that names the link address, which is the card's; or, in a question for a
 * duplicate, a nonce. */
static bool options_are_own(const struct view *v, uint8_t option)
{
	unsigned payload = be16(v->f + ETH_LEN + 4);
	const uint8_t *o = v->l4 + 24;

	if (payload == 24)
		return true;
	if (payload != 32 || v->l4_len < 32 || o[1] != 1)
		return false;
	return (o[0] == option && !memcmp(o + 2, v->p->mac, 6)) || (option == 1 && o[0] == 14);
}

/* PASS, a reason, or DROP_TO: the rules decide. */
static enum policy_verdict judge_neighbour(const struct view *v)
{
	static const uint8_t routers[16] = {0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2};
	bool good = v->f[ETH_LEN + 7] == 255;

	switch (v->l4[0]) {
	case ND_RA:
	case ND_REDIRECT:
		return POLICY_DROP_SERVER;
	case ND_RS:
		return good && !memcmp(v->to, routers, 16) ? POLICY_PASS : POLICY_DROP_ARP;
	case ND_NS:
		good &= v->l4_len >= 24 && on_link(v) && options_are_own(v, 1);
		return good ? POLICY_PASS : POLICY_DROP_ARP;
	case ND_NA:
		good &= v->l4_len >= 24 && on_link(v) && options_are_own(v, 2) &&
			is_own(v->p, 6, v->l4 + 8);
		return good ? POLICY_PASS : POLICY_DROP_ARP;
	default:
		return POLICY_DROP_TO;
	}
}

/* A report of the groups of the link that the guest listens to is the one thing that has an
 * extension header: hop-by-hop, 8 bytes. */
static bool is_group_report(const struct view *v)
{
	const uint8_t *icmp = v->l4 + 8;

	return v->proto == 0 && v->l4_len >= 9 && v->l4[0] == ICMP6 && v->l4[1] == 0 &&
	       v->to[0] == 0xff && v->to[1] == 0x02 &&
	       (icmp[0] == 131 || icmp[0] == 132 || icmp[0] == 143);
}

static bool is_extension(uint8_t header)
{
	static const uint8_t known[] = {0, 43, 44, 51, 60, 135, 139, 140, 253, 254};

	return memchr(known, header, sizeof(known));
}

static bool is_dhcp6_request(const struct view *v)
{
	static const uint8_t servers[16] = {0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2};

	return v->ports && v->proto == POLICY_UDP && v->sport == 546 && v->dport == 547 &&
	       !memcmp(v->to, servers, sizeof(servers));
}

/* `::` asks whether an address is free, asks for routers, and reports groups. */
static bool may_be_nobody(const struct view *v)
{
	return is_group_report(v) ||
	       (v->proto == ICMP6 && v->l4_len && (v->l4[0] == ND_NS || v->l4[0] == ND_RS));
}

static enum policy_verdict judge_ip6(struct view *v, struct net_names *names)
{
	const uint8_t *ip = v->f + ETH_LEN;
	enum policy_verdict verdict;

	if (v->len < ETH_LEN + IP6_LEN || ip[0] >> 4 != 6)
		return POLICY_DROP_KIND;
	v->family = 6;
	v->proto = ip[6];
	v->from = ip + 8;
	v->to = ip + 24;
	v->l4 = ip + IP6_LEN;
	v->l4_len = v->len - ETH_LEN - IP6_LEN;
	if (!find_ports(v) || (v->proto == ICMP6 && v->l4_len < 4))
		return POLICY_DROP_KIND;
	if (v->ports && v->proto == POLICY_UDP && v->sport == 547)
		return POLICY_DROP_SERVER;
	if (all_zero(v->from, 16) ? !may_be_nobody(v) : !is_own(v->p, 6, v->from))
		return POLICY_DROP_SOURCE;
	if (is_group_report(v) || is_dhcp6_request(v))
		return POLICY_PASS;
	if (is_extension(v->proto))
		return POLICY_DROP_KIND;
	if (v->proto == ICMP6) {
		verdict = judge_neighbour(v);
		if (verdict != POLICY_DROP_TO)
			return verdict;
	}
	return by_rules(v, names);
}

/* ---- the whole ---- */

static enum policy_verdict judge(struct view *v, struct net_names *names)
{
	if (v->len < ETH_LEN)
		return POLICY_DROP_KIND;
	if (memcmp(v->f + 6, v->p->mac, 6) != 0)
		return POLICY_DROP_MAC;
	switch (be16(v->f + 12)) {
	case TYPE_ARP:
		return judge_arp(v);
	case TYPE_IP4:
		return judge_ip4(v, names);
	case TYPE_IP6:
		return judge_ip6(v, names);
	default:
		return POLICY_DROP_KIND;
	}
}

enum policy_verdict net_policy_judge(const struct net_policy *p, struct net_names *names,
				     const uint8_t *head, size_t len, struct msg_net_denied *what)
{
	struct view v = {.p = p, .f = head, .len = len};
	enum policy_verdict verdict = p->flags & POLICY_ON ? judge(&v, names) : POLICY_PASS;

	if (verdict == POLICY_PASS)
		return verdict;
	*what = (struct msg_net_denied){.verdict = verdict,
					.family = v.family,
					.proto = v.proto,
					.port = v.ports ? v.dport : 0};
	if (v.to)
		memcpy(what->to, v.to, v.family == 4 ? 4 : 16);
	return verdict;
}

/* Ports, and flags of TCP. Of neighbours all of it; and so of what is no IP. */
bool net_policy_sum(const uint8_t *head, size_t len, size_t at)
{
	const uint8_t *ip = head + ETH_LEN;
	bool v4 = len >= ETH_LEN + IP4_LEN && be16(head + 12) == TYPE_IP4;
	bool v6 = len >= ETH_LEN + IP6_LEN && be16(head + 12) == TYPE_IP6;
	size_t behind = ETH_LEN + (v4 ? IP4_LEN : IP6_LEN);
	uint8_t proto = v4 ? ip[9] : v6 ? ip[6] : 0;

	if ((!v4 && !v6) || (v6 && (proto == ICMP6 || proto == 0)))
		return false;
	if (v6 || !(be16(ip + 6) & 0x1fff))
		behind += proto == POLICY_TCP ? 14 : proto == POLICY_UDP ? 4 : 0;
	return at >= behind;
}

static bool prefix_is_sane(const struct policy_prefix *p)
{
	return p->family == 0 || (p->family == 4 && p->bits <= 32) ||
	       (p->family == 6 && p->bits <= 128);
}

bool net_policy_is_sane(const struct net_policy *p)
{
	if (p->flags & ~(uint32_t)(POLICY_ON | POLICY_ANY_SOURCE) || p->nrules > POLICY_MAX_RULES ||
	    p->nserves > POLICY_MAX_SERVES || p->nsources > POLICY_MAX_SOURCES ||
	    p->nnames > POLICY_MAX_NAMES || !prefix_is_sane(&p->resolver))
		return false;
	for (unsigned i = 0; i < p->nrules; i++) {
		if (!prefix_is_sane(&p->rule[i].to) || p->rule[i].name > p->nnames)
			return false;
	}
	for (unsigned i = 0; i < p->nsources; i++) {
		if (!prefix_is_sane(&p->source[i]) || p->source[i].family == 0)
			return false;
	}
	for (unsigned i = 0; i < p->nnames; i++) {
		if (!memchr(p->name[i], 0, POLICY_NAME_LEN))
			return false;
	}
	return true;
}
