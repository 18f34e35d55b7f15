/* SPDX-License-Identifier: BSD-2-Clause */
/* insula-container: interfaces, addresses, routes and neighbours by rtnetlink(7): one request, one
 * answer. */
#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "container.h"
#include "kernel.h"

struct netlink_address {
	uint16_t family, pad;
	uint32_t pid, groups;
};

/* A request that grows; all its parts fit (the largest has some 200 bytes). */
struct request {
	struct k_nlmsghdr h;
	char body[512];
};

int net_open(struct err *e)
{
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, K_NETLINK_ROUTE);

	return fd < 0 ? err_sys(e, -errno, "netlink") : fd;
}

static void begin(struct request *r, unsigned type, unsigned flags, const void *body, size_t len)
{
	*r = (struct request){.h = {.len = (uint32_t)(sizeof r->h + len),
				    .type = (uint16_t)type,
				    .flags = (uint16_t)(K_NLM_F_REQUEST | K_NLM_F_ACK | flags),
				    .seq = 1}};
	memcpy(r->body, body, len);
}

static void add(struct request *r, unsigned type, const void *data, size_t len)
{
	struct k_rtattr a = {.len = (uint16_t)(sizeof a + len), .type = (uint16_t)type};
	char *at = (char *)r + ((r->h.len + 3) & ~3u);

	memcpy(at, &a, sizeof a);
	memcpy(at + sizeof a, data, len);
	r->h.len = (uint32_t)(at - (char *)r + (ptrdiff_t)(sizeof a + len));
}

/* 0 or the kernel's negative errno. */
static int ask(int nl, const struct request *r)
{
	const struct netlink_address kernel = {.family = AF_NETLINK};
	struct {
		struct k_nlmsghdr h;
		int32_t error;
		char rest[1024];
	} reply;
	ssize_t n;

	if (sendto(nl, r, r->h.len, 0, (const struct sockaddr *)(const void *)&kernel,
		   sizeof kernel) < 0)
		return -errno;
	do
		n = recv(nl, &reply, sizeof reply, 0);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	if ((size_t)n < sizeof reply.h + sizeof reply.error || reply.h.type != K_NLMSG_ERROR)
		return -EPROTO;
	return reply.error;
}

/* ---- values ---- */

struct address {
	uint8_t family, bits;
	size_t len;
	uint8_t bytes[16];
};

/* "ADDRESS" or, if `slash`, "ADDRESS/LEN" with the whole length as its default. */
static int parse_address(const char *text, bool slash, struct address *a)
{
	char copy[64], *at;
	uint64_t bits;

	if (strlen(text) >= sizeof copy)
		return -EINVAL;
	strcpy(copy, text);
	at = slash ? strchr(copy, '/') : NULL;
	if (at)
		*at++ = '\0';
	a->family = strchr(copy, ':') ? AF_INET6 : AF_INET;
	a->len = a->family == AF_INET6 ? 16 : 4;
	if (inet_pton(a->family, copy, a->bytes) != 1)
		return -EINVAL;
	bits = a->len * 8;
	if (at && num_u64(at, 10, a->len * 8, &bits))
		return -EINVAL;
	a->bits = (uint8_t)bits;
	return 0;
}

static int bad_address(const char *what, const char *text, struct err *e)
{
	return err_set(e, -EINVAL, "%s \"%.60s\": expected an address of IPv4 or IPv6", what, text);
}

static int find_index(const char *name, struct err *e)
{
	unsigned index = if_nametoindex(name);

	return index ? (int)index : err_sys(e, -errno, "interface %s", name);
}

/* ---- requests ---- */

int net_link(int nl, int index, const char *name, uint32_t mtu, enum net_state state, struct err *e)
{
	const struct k_ifinfomsg m = {.index = index,
				      .flags = state == NET_UP ? IFF_UP : 0,
				      .change = state == NET_AS_IT_IS ? 0 : IFF_UP};
	struct request r;
	int rc;

	begin(&r, K_RTM_NEWLINK, 0, &m, sizeof m);
	if (name)
		add(&r, K_IFLA_IFNAME, name, strlen(name) + 1);
	if (mtu)
		add(&r, K_IFLA_MTU, &mtu, sizeof mtu);
	rc = ask(nl, &r);
	return rc ? err_sys(e, rc, "interface %s%s", name ? name : "", mtu ? " and its MTU" : "")
		  : 0;
}

int net_addr(int nl, int index, const char *address, struct err *e)
{
	struct k_ifaddrmsg m = {.index = (uint32_t)index};
	struct address a;
	struct request r;
	int rc;

	if (parse_address(address, true, &a))
		return bad_address("address", address, e);
	m.family = a.family;
	m.prefixlen = a.bits;
	/* The other side has checked it, and nothing waits here for a second. */
	m.flags = a.family == AF_INET6 ? K_IFA_F_NODAD : 0;
	begin(&r, K_RTM_NEWADDR, K_NLM_F_CREATE | K_NLM_F_REPLACE, &m, sizeof m);
	add(&r, K_IFA_LOCAL, a.bytes, a.len);
	add(&r, K_IFA_ADDRESS, a.bytes, a.len);
	if (a.family == AF_INET && a.bits < 31) {
		uint32_t host = htonl(UINT32_MAX >> a.bits), all;

		memcpy(&all, a.bytes, sizeof all);
		all |= host;
		add(&r, K_IFA_BROADCAST, &all, sizeof all);
	}
	rc = ask(nl, &r);
	return rc ? err_sys(e, rc, "address %s", address) : 0;
}

/* "default" is of the family of its gateway, or of its source. */
static int parse_destination(const struct route *route, struct address *dest, struct err *e)
{
	const char *family = route->via ? route->via : route->src;

	if (strcmp(route->dest, "default") != 0)
		return parse_address(route->dest, true, dest) ? bad_address("route", route->dest, e)
							      : 0;
	*dest = (struct address){.family = family && strchr(family, ':') ? AF_INET6 : AF_INET};
	return 0;
}

/* One address more, of the same family. */
static int add_address(struct request *r, unsigned type, const char *text,
		       const struct address *dest, struct err *e)
{
	struct address a;

	if (!text)
		return 0;
	if (parse_address(text, false, &a) || a.family != dest->family)
		return bad_address("route.via or route.src", text, e);
	add(r, type, a.bytes, a.len);
	return 0;
}

int net_route(int nl, const struct route *route, struct err *e)
{
	struct k_rtmsg m = {
		.table = K_RT_TABLE_MAIN, .protocol = K_RTPROT_BOOT, .type = K_RTN_UNICAST};
	struct address dest;
	struct request r;
	int index = find_index(route->dev, e), rc;

	if (index < 0)
		return index;
	rc = parse_destination(route, &dest, e);
	if (rc)
		return rc;
	m.family = dest.family;
	m.dst_len = dest.bits;
	m.scope = route->link || (!route->via && dest.family == AF_INET) ? 253 : 0;
	m.flags = route->onlink ? K_RTNH_F_ONLINK : 0;
	/* The kernel may have made the one of an address already. */
	begin(&r, K_RTM_NEWROUTE, K_NLM_F_CREATE | K_NLM_F_REPLACE, &m, sizeof m);
	if (dest.bits)
		add(&r, K_RTA_DST, dest.bytes, dest.len);
	add(&r, K_RTA_OIF, &index, sizeof index);
	if (route->metric)
		add(&r, K_RTA_PRIORITY, &route->metric, sizeof route->metric);
	rc = add_address(&r, K_RTA_GATEWAY, route->via, &dest, e);
	if (!rc)
		rc = add_address(&r, K_RTA_PREFSRC, route->src, &dest, e);
	if (rc)
		return rc;
	rc = ask(nl, &r);
	return rc ? err_sys(e, rc, "route %s", route->dest) : 0;
}

static int parse_mac(const char *text, uint8_t mac[6])
{
	for (unsigned i = 0; i < 6; i++) {
		char byte[3] = {text[0], text[0] ? text[1] : '\0', '\0'}, *end;

		mac[i] = (uint8_t)strtoul(byte, &end, 16);
		if (end != byte + 2 || byte[0] == '+' || byte[0] == '-' || byte[0] == ' ' ||
		    text[2] != (i < 5 ? ':' : '\0'))
			return -EINVAL;
		text += 3;
	}
	return 0;
}

int net_neigh(int nl, const struct neigh *n, struct err *e)
{
	struct k_ndmsg m = {.state = K_NUD_PERMANENT, .type = K_RTN_UNICAST};
	struct address a;
	struct request r;
	uint8_t mac[6];
	int rc;

	if (parse_address(n->address, false, &a))
		return bad_address("neigh", n->address, e);
	if (parse_mac(n->mac, mac))
		return err_set(e, -EINVAL, "neigh.mac=%.40s: expected a MAC address", n->mac);
	m.ifindex = find_index(n->dev, e);
	if (m.ifindex < 0)
		return m.ifindex;
	m.family = a.family;
	begin(&r, K_RTM_NEWNEIGH, K_NLM_F_CREATE | K_NLM_F_REPLACE, &m, sizeof m);
	add(&r, K_NDA_DST, a.bytes, a.len);
	add(&r, K_NDA_LLADDR, mac, sizeof mac);
	rc = ask(nl, &r);
	return rc ? err_sys(e, rc, "neighbour %s", n->address) : 0;
}
