/* SPDX-License-Identifier: BSD-2-Clause */
/* The network of a namespace. See netscan.h, rtnetlink(7). */
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <net/if_arp.h>
#include <string.h>
#include <sys/socket.h>

#include <linux/if_link.h>
#include <linux/neighbour.h>

#include <insula/base.h>
#include <insula/log.h>

#include "netscan.h"

/* ---- interfaces ---- */

static bool attr_text(const struct rtattr *a, char *out, size_t size)
{
	size_t n = a ? strnlen(nl_data(a), nl_size(a)) : 0;

	if (!n || n >= size)
		return false;
	memcpy(out, nl_data(a), n);
	out[n] = 0;
	return true;
}

static void link_kind(const struct rtattr *info, char *out, size_t size)
{
	const struct rtattr *attr[NL_ATTR_MAX];

	out[0] = 0;
	if (!info)
		return;
	nl_attributes(nl_data(info), nl_size(info), attr);
	attr_text(attr[IFLA_INFO_KIND], out, size);
}

static bool is_our_tap(const char *name, const char *kind)
{
	size_t n = strlen(NET_TAP);

	return !strcmp(kind, "tun") && !strncmp(name, NET_TAP, n) &&
	       isdigit((unsigned char)name[n]);
}

/* Those that stand for others, or for nothing. */
static bool is_kind_of_its_own(const char *kind)
{
	static const char *const not_these[] = {"bridge", "dummy",   "ifb",
						"tun",    "macvtap", "nlmon"};

	for (size_t i = 0; i < ARRAY_LEN(not_these); i++) {
		if (!strcmp(kind, not_these[i]))
			return false;
	}
	return true;
}

static int on_link(void *ctx, const void *body, const struct rtattr *const *attr)
{
	const struct ifinfomsg *m = body;
	struct net_scan *s = ctx;
	struct net_link l = {.index = m->ifi_index, .mtu = nl_u32(attr[IFLA_MTU], 1500)};
	char kind[32];

	link_kind(attr[IFLA_LINKINFO], kind, sizeof(kind));
	if (!attr_text(attr[IFLA_IFNAME], l.name, sizeof(l.name)))
		return 0;
	if (is_our_tap(l.name, kind) && s->nold < NET_LINKS_MAX)
		s->old_tap[s->nold++] = m->ifi_index;
	if (!(m->ifi_flags & IFF_UP) || m->ifi_flags & IFF_LOOPBACK || attr[IFLA_MASTER] ||
	    !is_kind_of_its_own(kind))
		return 0;
	if (m->ifi_type != ARPHRD_ETHER || !attr[IFLA_ADDRESS] ||
	    nl_size(attr[IFLA_ADDRESS]) != sizeof(l.mac)) {
		log_warn("network: %s: not of Ethernet; the VM does not get it", l.name);
		return 0;
	}
	memcpy(l.mac, nl_data(attr[IFLA_ADDRESS]), sizeof(l.mac));
	if (s->nlinks == NET_LINKS_MAX)
		return -E2BIG;
	s->link[s->nlinks++] = l;
	return 0;
}

/* -1: none of those that the VM gets. */
static int link_of(const struct net_scan *s, int index)
{
	for (unsigned i = 0; i < s->nlinks; i++) {
		if (s->link[i].index == index)
			return (int)i;
	}
	return -1;
}

/* ---- addresses ---- */

static bool attr_address(const struct rtattr *a, uint8_t family, struct in6_addr *out)
{
	size_t n = family == AF_INET ? 4 : 16;

	memset(out, 0, sizeof(*out));
	if (!a || nl_size(a) < n)
		return false;
	memcpy(out, nl_data(a), n);
	return true;
}

/* The guest makes the same one out of the same MAC (RFC 4291, appendix A). */
static bool is_made_of_mac(const struct net_link *l, const struct in6_addr *at)
{
	const uint8_t *m = l->mac;
	const uint8_t want[16] = {0xfe, 0x80, 0,    0,    0,    0,    0,   0, (uint8_t)(m[0] ^ 2),
				  m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5]};

	return !memcmp(at, want, sizeof(want));
}

static int on_addr(void *ctx, const void *body, const struct rtattr *const *attr)
{
	const struct ifaddrmsg *m = body;
	struct net_scan *s = ctx;
	uint32_t flags = nl_u32(attr[IFA_FLAGS], m->ifa_flags);
	struct net_addr a = {.family = m->ifa_family, .len = m->ifa_prefixlen};
	const struct rtattr *own = attr[IFA_LOCAL] ? attr[IFA_LOCAL] : attr[IFA_ADDRESS];
	int link = link_of(s, (int)m->ifa_index);

	if (link < 0 || (a.family != AF_INET && a.family != AF_INET6) ||
	    flags & (IFA_F_TEMPORARY | IFA_F_DADFAILED) || !attr_address(own, a.family, &a.at))
		return 0;
	a.link = (unsigned)link;
	if (a.family == AF_INET6 && is_made_of_mac(&s->link[link], &a.at))
		return 0;
	if (s->naddrs == NET_ADDRS_MAX)
		return -E2BIG;
	s->addr[s->naddrs++] = a;
	return 0;
}

/* ---- routes ---- */

static bool same_prefix(const struct in6_addr *a, const struct in6_addr *b, unsigned len)
{
	const uint8_t *x = a->s6_addr, *y = b->s6_addr;
	uint8_t mask = (uint8_t)(0xff00u >> len % 8);

	return !memcmp(x, y, len / 8) && (!(len % 8) || !((x[len / 8] ^ y[len / 8]) & mask));
}

/* Made by the kernel with an address: the guest's kernel makes it, too. */
static bool is_made_of_address(struct net_scan *s, const struct net_route *r)
{
	for (unsigned i = 0; i < s->naddrs; i++) {
		struct net_addr *a = &s->addr[i];

		if (a->link != r->link || a->family != r->family || a->len != r->len ||
		    !same_prefix(&a->at, &r->dest, r->len))
			continue;
		a->has_route = true;
		return true;
	}
	return r->family == AF_INET6 && r->dest.s6_addr[0] == 0xfe &&
	       (r->dest.s6_addr[1] & 0xc0) == 0x80;
}

/* False: IPv4 through a neighbour of IPv6, which records cannot say. */
static bool route_gateway(struct net_route *r, const struct rtattr *const *attr)
{
	if (attr_address(attr[RTA_GATEWAY], r->family, &r->via))
		r->via_family = r->family;
	return r->via_family || !attr[RTA_VIA];
}

/* Several ways at once: the first that is ours. */
static int multipath(const struct net_scan *s, const struct rtattr *a, struct net_route *r)
{
	const struct rtattr *attr[NL_ATTR_MAX];
	const char *hops = nl_data(a);
	size_t len = nl_size(a), at = 0;

	while (at < len && len - at >= sizeof(struct rtnexthop)) {
		const struct rtnexthop *hop = (const void *)(hops + at);
		int link = link_of(s, hop->rtnh_ifindex);

		if (hop->rtnh_len < sizeof(*hop) || hop->rtnh_len > len - at)
			break;
		if (link >= 0) {
			nl_attributes(hop + 1, hop->rtnh_len - sizeof(*hop), attr);
			if (!route_gateway(r, attr))
				return -1;
			r->onlink = hop->rtnh_flags & RTNH_F_ONLINK;
			log_warn("network: a route with several ways: the VM gets the first one");
			return link;
		}
		at += NLMSG_ALIGN((size_t)hop->rtnh_len);
	}
	return -1;
}

static int on_route(void *ctx, const void *body, const struct rtattr *const *attr)
{
	const struct rtmsg *m = body;
	struct net_scan *s = ctx;
	struct net_route r = {.family = m->rtm_family,
			      .len = m->rtm_dst_len,
			      .scope_link = m->rtm_scope == RT_SCOPE_LINK,
			      .onlink = m->rtm_flags & RTNH_F_ONLINK,
			      .metric = nl_u32(attr[RTA_PRIORITY], 0)};
	int link;

	if (nl_u32(attr[RTA_TABLE], m->rtm_table) != RT_TABLE_MAIN || m->rtm_type != RTN_UNICAST ||
	    m->rtm_flags & RTM_F_CLONED || (r.family != AF_INET && r.family != AF_INET6))
		return 0;
	link = attr[RTA_MULTIPATH] ? multipath(s, attr[RTA_MULTIPATH], &r)
				   : link_of(s, (int)nl_u32(attr[RTA_OIF], 0));
	if (link < 0)
		return 0;
	r.link = (unsigned)link;
	attr_address(attr[RTA_DST], r.family, &r.dest);
	r.has_src = attr_address(attr[RTA_PREFSRC], r.family, &r.src);
	if (!attr[RTA_MULTIPATH] && !route_gateway(&r, attr)) {
		log_warn("network: a route of IPv4 by a gateway of IPv6; the VM does not get it");
		return 0;
	}
	if (m->rtm_protocol == RTPROT_KERNEL && is_made_of_address(s, &r))
		return 0;
	if (s->nroutes == NET_ROUTES_MAX)
		return -E2BIG;
	s->route[s->nroutes++] = r;
	return 0;
}

/* ---- neighbours ---- */

static int on_neigh(void *ctx, const void *body, const struct rtattr *const *attr)
{
	const struct ndmsg *m = body;
	struct net_scan *s = ctx;
	struct net_neigh g = {.family = m->ndm_family};
	int link = link_of(s, m->ndm_ifindex);

	if (link < 0 || !(m->ndm_state & NUD_PERMANENT) || m->ndm_flags & NTF_PROXY ||
	    (g.family != AF_INET && g.family != AF_INET6) || !attr[NDA_LLADDR] ||
	    nl_size(attr[NDA_LLADDR]) != sizeof(g.mac) ||
	    !attr_address(attr[NDA_DST], g.family, &g.at))
		return 0;
	memcpy(g.mac, nl_data(attr[NDA_LLADDR]), sizeof(g.mac));
	g.link = (unsigned)link;
	if (s->nneighs == NET_NEIGHS_MAX)
		return -E2BIG;
	s->neigh[s->nneighs++] = g;
	return 0;
}

static int scan_one(struct nl *n, uint16_t type, const void *body, size_t len, nl_fn *fn,
		    struct net_scan *s, const char *what, struct err *e)
{
	int rc = nl_dump(n, type, body, len, fn, s);

	if (rc == -E2BIG)
		return err_set(e, rc, "network: more %s than a VM can be given", what);
	return rc ? err_sys(e, rc, "network: %s", what) : 0;
}

int net_scan(struct nl *n, struct net_scan *s, struct err *e)
{
	struct ifinfomsg link = {.ifi_family = AF_UNSPEC};
	struct ifaddrmsg addr = {.ifa_family = AF_UNSPEC};
	struct rtmsg v4 = {.rtm_family = AF_INET}, v6 = {.rtm_family = AF_INET6};
	struct ndmsg neigh = {.ndm_family = AF_UNSPEC};
	int rc;

	memset(s, 0, sizeof(*s));
	rc = scan_one(n, RTM_GETLINK, &link, sizeof(link), on_link, s, "interfaces", e);
	if (!rc)
		rc = scan_one(n, RTM_GETADDR, &addr, sizeof(addr), on_addr, s, "addresses", e);
	if (!rc)
		rc = scan_one(n, RTM_GETROUTE, &v4, sizeof(v4), on_route, s, "routes", e);
	/* A kernel without IPv6 has no such routes to tell of. */
	if (!rc) {
		rc = scan_one(n, RTM_GETROUTE, &v6, sizeof(v6), on_route, s, "routes", e);
		rc = rc == -EOPNOTSUPP || rc == -EAFNOSUPPORT ? 0 : rc;
	}
	if (!rc)
		rc = scan_one(n, RTM_GETNEIGH, &neigh, sizeof(neigh), on_neigh, s, "neighbours", e);
	return rc;
}

/* ---- records ---- */

static void add_mac(struct rec *r, const char *key, const uint8_t m[6])
{
	rec_addf(r, key, "%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5]);
}

static void add_address(struct rec *r, const char *key, uint8_t family, const struct in6_addr *at,
			int len)
{
	char text[INET6_ADDRSTRLEN];

	inet_ntop(family, at, text, sizeof(text));
	if (len < 0)
		rec_add(r, key, text);
	else
		rec_addf(r, key, "%s/%d", text, len);
}

/* An address whose prefix has no route here is one of a single host there, or the guest's kernel
 * would make the route (the CNI plug-in ptp has removed it). */
static void nic_records(const struct net_scan *s, unsigned i, struct rec *r)
{
	add_mac(r, "nic", s->link[i].mac);
	rec_add(r, "nic.name", s->link[i].name);
	rec_addf(r, "nic.mtu", "%u", s->link[i].mtu);
	for (unsigned k = 0; k < s->naddrs; k++) {
		const struct net_addr *a = &s->addr[k];

		if (a->link == i)
			add_address(r, "nic.addr", a->family, &a->at,
				    a->has_route           ? a->len
				    : a->family == AF_INET ? 32
							   : 128);
	}
}

static void route_records(const struct net_scan *s, const struct net_route *t, struct rec *r)
{
	if (t->len)
		add_address(r, "route", t->family, &t->dest, t->len);
	else
		/* "default" would not say of what. */
		rec_add(r, "route", t->family == AF_INET ? "0.0.0.0/0" : "::/0");
	if (t->via_family)
		add_address(r, "route.via", t->via_family, &t->via, -1);
	rec_add(r, "route.dev", s->link[t->link].name);
	if (t->has_src)
		add_address(r, "route.src", t->family, &t->src, -1);
	if (t->metric)
		rec_addf(r, "route.metric", "%u", t->metric);
	if (t->scope_link)
		rec_add(r, "route.scope", "link");
	if (t->onlink)
		rec_add(r, "route.onlink", "1");
}

void net_records(const struct net_scan *s, struct rec *r)
{
	for (unsigned i = 0; i < s->nlinks; i++)
		nic_records(s, i, r);
	/* A gateway is reached by a route without one. */
	for (unsigned via = 0; via < 2; via++) {
		for (unsigned i = 0; i < s->nroutes; i++) {
			if (!s->route[i].via_family == !via)
				route_records(s, &s->route[i], r);
		}
	}
	for (unsigned i = 0; i < s->nneighs; i++) {
		add_address(r, "neigh", s->neigh[i].family, &s->neigh[i].at, -1);
		rec_add(r, "neigh.dev", s->link[s->neigh[i].link].name);
		add_mac(r, "neigh.mac", s->neigh[i].mac);
	}
}
