/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A policy as rules of nftables. Each line says what net_policy.c does at the same place; what no
 * line accepts is dropped. See nft.h.
 *
 * Types are matched in the Ethernet header and not as "meta protocol": the kernel takes a VLAN tag
 * off before the hook, and the header still says that there was one.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "nft.h"
#include "spec/netpolicy.h"

#define FIRST_FRAGMENT "ip frag-off & 0x1fff == 0 "
#define GROUP_REPORT \
	"ip6 nexthdr 0 ip6 daddr ff02::/16 @nh,320,16 0x3a00 @nh,384,8 { 131, 132, 143 } accept\n"

static void mac_hex(FILE *f, const uint8_t mac[6])
{
	for (unsigned i = 0; i < 6; i++)
		fprintf(f, "%02x", mac[i]);
}

static void mac_text(FILE *f, const uint8_t mac[6])
{
	for (unsigned i = 0; i < 6; i++)
		fprintf(f, "%s%02x", i ? ":" : "", mac[i]);
}

static struct policy_prefix link_local(const struct net_policy *p)
{
	const uint8_t *m = p->mac;

	return (struct policy_prefix){.addr = {0xfe, 0x80, 0, 0, 0, 0, 0, 0, (uint8_t)(m[0] ^ 2),
					       m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5]},
				      .family = 6,
				      .bits = 128};
}

/* What may stand where the guest says who it is: a chain whose last word is `otherwise`. */
static void own_chain(FILE *f, const struct net_policy *p, const char *name, unsigned family,
		      const char *match, const char *good)
{
	char text[POLICY_TEXT];
	struct policy_prefix ll = link_local(p);

	fprintf(f, "chain %s {\n", name);
	if (p->flags & POLICY_ANY_SOURCE)
		fprintf(f, "%s\n", good);
	for (unsigned i = 0; i < p->nsources; i++) {
		if (p->source[i].family != family)
			continue;
		if (p->source[i].bits == 0)
			fprintf(f, "%s\n", good);
		else
			fprintf(f, "%s %s %s\n", match, policy_prefix_text(&p->source[i], text),
				good);
	}
	if (family == 6)
		fprintf(f, "%s %s %s\n", match, policy_prefix_text(&ll, text), good);
	fprintf(f, "drop\n}\n");
}

/* The target of a neighbour's advertisement has no name in nft. */
static void target_line(FILE *f, const struct policy_prefix *s)
{
	uint8_t mask[16] = {0};

	for (unsigned i = 0; i < s->bits; i++)
		mask[i / 8] |= (uint8_t)(0x80 >> i % 8);
	fprintf(f, "@th,64,128 & 0x");
	for (unsigned i = 0; i < 16; i++)
		fprintf(f, "%02x", mask[i]);
	fprintf(f, " == 0x");
	for (unsigned i = 0; i < 16; i++)
		fprintf(f, "%02x", s->addr[i]);
	fprintf(f, " accept\n");
}

static void target_chain(FILE *f, const struct net_policy *p)
{
	struct policy_prefix ll = link_local(p);

	fprintf(f, "chain own_target {\n");
	if (p->flags & POLICY_ANY_SOURCE)
		fprintf(f, "accept\n");
	for (unsigned i = 0; i < p->nsources; i++) {
		if (p->source[i].family == 6)
			target_line(f, &p->source[i]);
	}
	target_line(f, &ll);
	fprintf(f, "drop\n}\n");
}

static void on_link_chain(FILE *f, const struct net_policy *p)
{
	char text[POLICY_TEXT];

	fprintf(f, "chain on_link {\nip6 daddr ff02::/16 return\nip6 daddr fe80::/10 return\n");
	if (p->flags & POLICY_ANY_SOURCE)
		fprintf(f, "return\n");
	for (unsigned i = 0; i < p->nsources; i++) {
		struct policy_prefix net = p->source[i];

		if (net.family != 6)
			continue;
		memset(net.addr + 8, 0, 8);
		net.bits = 64;
		fprintf(f, "ip6 daddr %s return\n", policy_prefix_text(&net, text));
	}
	fprintf(f, "drop\n}\n");
}

static void arp_chains(FILE *f, const struct net_policy *p)
{
	own_chain(f, p, "own_arp", 4, "arp saddr ip", "accept");
	fprintf(f, "chain arp_in {\narp htype 1 arp ptype 0x0800 arp hlen 6 arp plen 4 arp "
		   "operation { 1, 2 } arp saddr ether ");
	mac_text(f, p->mac);
	fprintf(f, " arp saddr ip 0.0.0.0 accept\narp htype 1 arp ptype 0x0800 arp hlen 6 arp plen "
		   "4 arp operation { 1, 2 } arp saddr ether ");
	mac_text(f, p->mac);
	fprintf(f, " goto own_arp\ndrop\n}\n");
}

/* ---- rules ---- */

static bool rule_is_of(const struct policy_rule *r, unsigned family)
{
	return r->name || r->to.family == 0 || r->to.family == family;
}

static void rule_to(FILE *f, const struct policy_rule *r, unsigned family)
{
	const char *ip = family == 4 ? "ip" : "ip6";
	char text[POLICY_TEXT];

	if (r->name)
		fprintf(f, "%s daddr @n%u_%u ", ip, r->name - 1u, family);
	else if (r->to.family && r->to.bits)
		fprintf(f, "%s daddr %s ", ip, policy_prefix_text(&r->to, text));
}

static void rule_proto(FILE *f, unsigned family, uint8_t proto, bool ports)
{
	const char *field = family == 4 ? "ip protocol" : "ip6 nexthdr";

	if (proto == POLICY_ANY_PROTO && ports)
		fprintf(f, "%s { 6, 17 } ", field);
	else if (proto == POLICY_ICMP)
		fprintf(f, "%s %u ", field, family == 4 ? 1u : 58u);
	else if (proto != POLICY_ANY_PROTO)
		fprintf(f, "%s %u ", field, proto);
}

/* Those with ports, or those without. */
static void rule_lines(FILE *f, const struct net_policy *p, unsigned family, bool ports)
{
	for (unsigned i = 0; i < p->nrules; i++) {
		const struct policy_rule *r = &p->rule[i];

		if (!rule_is_of(r, family) || (r->port_lo != 0) != ports)
			continue;
		rule_proto(f, family, r->proto, ports);
		rule_to(f, r, family);
		if (ports)
			fprintf(f, "th dport %u-%u ", r->port_lo, r->port_hi);
		fprintf(f, "accept\n");
	}
}

static void serve_lines(FILE *f, const struct net_policy *p, unsigned family)
{
	for (unsigned i = 0; i < p->nserves; i++) {
		const struct policy_serve *s = &p->serve[i];

		rule_proto(f, family, s->proto, true);
		fprintf(f, "th sport %u-%u %saccept\n", s->port_lo, s->port_hi,
			s->proto == POLICY_TCP ? "tcp flags & (syn | ack) != syn " : "");
	}
}

static void resolver_line(FILE *f, const struct net_policy *p, unsigned family)
{
	char text[POLICY_TEXT];

	if (!p->nnames || p->resolver.family != family)
		return;
	rule_proto(f, family, POLICY_UDP, true);
	fprintf(f, "%s daddr %s udp dport 53 accept\n", family == 4 ? "ip" : "ip6",
		policy_prefix_text(&p->resolver, text));
}

/* ---- chains ---- */

static void ip4_chain(FILE *f, const struct net_policy *p)
{
	static const char dhcp[] = FIRST_FRAGMENT "ip protocol 17 udp sport 68 udp dport 67 ip "
						  "daddr 255.255.255.255 ";

	own_chain(f, p, "own_ip4", 4, "ip saddr", "return");
	fprintf(f, "chain ip4_in {\nip version != 4 drop\nip hdrlength != 5 drop\n");
	fprintf(f, FIRST_FRAGMENT "ip protocol 17 udp sport 67 drop\n");
	fprintf(f, FIRST_FRAGMENT "ip protocol 1 icmp type { 5, 9 } drop\n");
	fprintf(f, "%sip saddr 0.0.0.0 accept\njump own_ip4\n%saccept\n", dhcp, dhcp);
	rule_lines(f, p, 4, false);
	fprintf(f, "ip frag-off & 0x1fff != 0 drop\n");
	serve_lines(f, p, 4);
	resolver_line(f, p, 4);
	rule_lines(f, p, 4, true);
	fprintf(f, "drop\n}\n");
}

static void nd_chain(FILE *f, const struct net_policy *p)
{
	on_link_chain(f, p);
	target_chain(f, p);
	fprintf(f, "chain nd_in {\nicmpv6 type { 134, 137 } drop\nip6 hoplimit != 255 drop\n"
		   "icmpv6 type 133 ip6 daddr ff02::2 accept\nicmpv6 type 133 drop\njump on_link\n"
		   "icmpv6 type 135 ip6 length 24 accept\n"
		   "icmpv6 type 135 ip6 length 32 @th,192,16 0x0e01 accept\n"
		   "icmpv6 type 135 ip6 length 32 @th,192,64 0x0101");
	mac_hex(f, p->mac);
	fprintf(f, " accept\nicmpv6 type 136 ip6 length 24 goto own_target\n"
		   "icmpv6 type 136 ip6 length 32 @th,192,64 0x0201");
	mac_hex(f, p->mac);
	fprintf(f, " goto own_target\ndrop\n}\n");
}

static void ip6_chain(FILE *f, const struct net_policy *p)
{
	nd_chain(f, p);
	own_chain(f, p, "own_ip6", 6, "ip6 saddr", "return");
	fprintf(f, "chain ip6_in {\nip6 version != 6 drop\nip6 nexthdr 17 udp sport 547 drop\n"
		   "ip6 saddr :: " GROUP_REPORT
		   "ip6 saddr :: ip6 nexthdr 58 icmpv6 type { 133, 135 } goto nd_in\n"
		   "ip6 saddr :: drop\njump own_ip6\n" GROUP_REPORT
		   "ip6 nexthdr 17 udp sport 546 udp dport 547 ip6 daddr ff02::1:2 accept\n"
		   "ip6 nexthdr { 0, 43, 44, 51, 60, 135, 139, 140, 253, 254 } drop\n"
		   "ip6 nexthdr 58 icmpv6 type { 133, 134, 135, 136, 137 } goto nd_in\n");
	rule_lines(f, p, 6, false);
	serve_lines(f, p, 6);
	resolver_line(f, p, 6);
	rule_lines(f, p, 6, true);
	fprintf(f, "drop\n}\n");
}

/* ---- names ---- */

static void name_set(FILE *f, const struct nft *n, unsigned name, unsigned family, uint64_t now_ns)
{
	char text[POLICY_TEXT];
	unsigned found = 0;

	fprintf(f, "flush set netdev %s n%u_%u\n", n->table, name, family);
	for (unsigned i = 0; i < n->nat; i++) {
		if (n->at[i].name != name || n->at[i].to.family != family ||
		    n->at[i].until_ns <= now_ns)
			continue;
		policy_prefix_text(&n->at[i].to, text);
		text[strcspn(text, "/")] = 0;
		if (!found++)
			fprintf(f, "add element netdev %s n%u_%u { %s", n->table, name, family,
				text);
		else
			fprintf(f, ", %s", text);
	}
	if (found)
		fprintf(f, " }\n");
}

void nft_compile_addresses(FILE *f, const struct nft *n, const struct net_policy *p,
			   uint64_t now_ns)
{
	for (unsigned i = 0; i < p->nnames; i++) {
		name_set(f, n, i, 4, now_ns);
		name_set(f, n, i, 6, now_ns);
	}
}

/* ---- the whole ---- */

void nft_compile(FILE *f, const struct nft *n, const struct net_policy *p)
{
	/* Deleting what is not there is an error, adding what is there is none. */
	fprintf(f, "add table netdev %s\ndelete table netdev %s\n", n->table, n->table);
	if (!(p->flags & POLICY_ON))
		return;
	fprintf(f, "table netdev %s {\nchain %s {\n}\n", n->table, n->mark);
	for (unsigned i = 0; i < p->nnames; i++)
		fprintf(f,
			"set n%u_4 {\ntype ipv4_addr\nsize %u\n}\nset n%u_6 {\ntype ipv6_addr\n"
			"size %u\n}\n",
			i, NFT_ADDRESSES, i, NFT_ADDRESSES);
	arp_chains(f, p);
	ip4_chain(f, p);
	ip6_chain(f, p);
	fprintf(f,
		"chain in {\ntype filter hook %s device \"%s\" priority -500; policy "
		"drop;\nether saddr != ",
		n->egress ? "egress" : "ingress", n->device);
	mac_text(f, p->mac);
	fprintf(f, " drop\nether type 0x0806 goto arp_in\nether type 0x0800 goto ip4_in\n"
		   "ether type 0x86dd goto ip6_in\n}\n}\n");
}
