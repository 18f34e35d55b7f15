/* SPDX-License-Identifier: BSD-2-Clause */
/* The setting of a network card, from text. See config.h. */
#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include <insula/base.h>

#include "config.h"

#define MIN_RATE 1024ull
#define MAX_RATE (1ull << 40)
#define MIN_MTU 68u
#define MAX_MTU 65535u
#define KINDS "tap=NAME, fd=N, user or socket=PATH"

static int bad(const char *where, const char *what, const char *v, const char *expected,
	       struct err *e)
{
	return err_set(e, -EINVAL, "%s: %s '%.60s'; expected %s", where, what, v, expected);
}

static int set_kind(struct net_config *n, enum net_kind_config kind, const char *where,
		    struct err *e)
{
	if (n->kind)
		return err_set(e, -EINVAL, "%s: two backings; expected one of " KINDS, where);
	n->kind = kind;
	return 0;
}

static int set_name(struct net_config *n, enum net_kind_config kind, const char *where,
		    const char *v, struct err *e)
{
	size_t most =
		kind == NET_ON_TAP ? IFNAMSIZ - 1 : sizeof(((struct sockaddr_un *)0)->sun_path) - 1;
	int rc = set_kind(n, kind, where, e);

	if (rc)
		return rc;
	if (!*v || strlen(v) > most || (kind == NET_ON_TAP && strchr(v, '/')))
		return err_set(e, -EINVAL, "%s: %s '%.40s'; expected 1 to %zu characters", where,
			       kind == NET_ON_TAP ? "tap" : "socket", v, most);
	n->name = strdup(v);
	return n->name ? 0 : err_set(e, -ENOMEM, "out of memory");
}

/* ---- one function per item ---- */

static int item_tap(struct net_config *n, const char *where, const char *v, struct err *e)
{
	return set_name(n, NET_ON_TAP, where, v, e);
}

static int item_socket(struct net_config *n, const char *where, const char *v, struct err *e)
{
	return set_name(n, NET_ON_SOCKET, where, v, e);
}

static int item_user(struct net_config *n, const char *where, const char *v, struct err *e)
{
	(void)v;
	return set_kind(n, NET_ON_USER, where, e);
}

/* fd=N or fd=N:M:...: one per pair of queues. */
static int item_fd(struct net_config *n, const char *where, const char *v, struct err *e)
{
	const char *p = v;
	int rc = set_kind(n, NET_ON_FD, where, e);

	while (!rc) {
		char *end;
		unsigned long fd = strtoul(p, &end, 10);

		if (end == p || *p < '0' || *p > '9' || fd < 3 || fd > 1u << 20 ||
		    (*end && *end != ':') || n->nfds == CONFIG_MAX_PAIRS)
			return bad(where, "fd", v,
				   "N or N:M:..., 1 to 8 open descriptors from 3 on", e);
		n->fd[n->nfds++] = (int)fd;
		if (!*end)
			break;
		p = end + 1;
	}
	return rc;
}

static int item_mac(struct net_config *n, const char *where, const char *v, struct err *e)
{
	unsigned b[6];
	int used = 0;

	if (strlen(v) != 17 || strspn(v, "0123456789abcdefABCDEF:") != 17 ||
	    sscanf(v, "%2x:%2x:%2x:%2x:%2x:%2x%n", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5],
		   &used) != 6 ||
	    used != 17)
		return bad(where, "mac", v, "six bytes such as 02:00:5e:00:53:01", e);
	if ((b[0] & 1) || !(b[0] | b[1] | b[2] | b[3] | b[4] | b[5]))
		return bad(where, "mac", v,
			   "the address of one card: the first byte even, not all zero", e);
	for (unsigned i = 0; i < 6; i++)
		n->mac[i] = (uint8_t)b[i];
	n->has_mac = true;
	return 0;
}

static int item_queues(struct net_config *n, const char *where, const char *v, struct err *e)
{
	uint64_t q;

	if (!parse_size(v, &q) || q < 1 || q > CONFIG_MAX_PAIRS)
		return bad(where, "queues", v, "a number from 1 to 8", e);
	n->queues = (unsigned)q;
	return 0;
}

static int item_mtu(struct net_config *n, const char *where, const char *v, struct err *e)
{
	uint64_t mtu;

	if (!parse_size(v, &mtu) || mtu < MIN_MTU || mtu > MAX_MTU)
		return bad(where, "mtu", v, "a number from 68 to 65535", e);
	n->mtu = (unsigned)mtu;
	return 0;
}

static int item_rate(struct net_config *n, const char *where, const char *v, struct err *e)
{
	if (!parse_size(v, &n->rate) || n->rate < MIN_RATE || n->rate > MAX_RATE)
		return bad(where, "rate", v, "bytes a second, 1K to 1024G", e);
	return 0;
}

static int item_pps(struct net_config *n, const char *where, const char *v, struct err *e)
{
	if (!parse_size(v, &n->pps) || n->pps < 1 || n->pps > MAX_RATE)
		return bad(where, "pps", v, "frames a second, 1 to 1024G", e);
	return 0;
}

static bool parse_port(const char *text, size_t len, uint16_t *out)
{
	char copy[6];
	uint64_t n;

	if (len == 0 || len >= sizeof(copy))
		return false;
	memcpy(copy, text, len);
	copy[len] = 0;
	if (!parse_size(copy, &n) || strspn(copy, "0123456789") != len || n < 1 || n > 65535)
		return false;
	*out = (uint16_t)n;
	return true;
}

/* [tcp:|udp:][ADDRESS:]HOST:GUEST, with an IPv4 address of the host. */
static bool parse_forward(const char *v, struct net_forward *f)
{
	const char *rest, *guest = strrchr(v, ':'), *host, *colon;
	struct in_addr a;

	f->udp = !strncmp(v, "udp:", 4);
	rest = f->udp || !strncmp(v, "tcp:", 4) ? v + 4 : v;
	if (!guest || guest < rest)
		return false;
	for (host = guest; host > rest && host[-1] != ':'; host--)
		;
	colon = host > rest ? host - 1 : rest;
	if ((size_t)(colon - rest) >= sizeof(f->address))
		return false;
	snprintf(f->address, sizeof(f->address), "%.*s", host > rest ? (int)(colon - rest) : 9,
		 host > rest ? rest : "127.0.0.1");
	return inet_pton(AF_INET, f->address, &a) == 1 &&
	       parse_port(host, (size_t)(guest - host), &f->host) &&
	       parse_port(guest + 1, strlen(guest + 1), &f->guest);
}

static int item_fwd(struct net_config *n, const char *where, const char *v, struct err *e)
{
	if (n->nforwards == CONFIG_MAX_FORWARDS)
		return err_set(e, -EINVAL, "%s: more than %d forwarded ports", where,
			       CONFIG_MAX_FORWARDS);
	if (!parse_forward(v, &n->forward[n->nforwards]))
		return bad(where, "fwd", v,
			   "[tcp:|udp:][ADDRESS:]HOSTPORT:GUESTPORT, ports from 1 to 65535", e);
	n->nforwards++;
	return 0;
}

static int item_ip(struct net_config *n, const char *where, const char *v, struct err *e)
{
	char addr[INET_ADDRSTRLEN];
	const char *slash = strchr(v, '/');
	struct in_addr a;
	uint64_t bits;

	if (!strcmp(v, "dhcp")) {
		n->dhcp = true;
		return 0;
	}
	if (!slash || (size_t)(slash - v) >= sizeof(addr))
		return bad(where, "ip", v, "dhcp, or an address such as 192.0.2.2/24", e);
	snprintf(addr, sizeof(addr), "%.*s", (int)(slash - v), v);
	if (inet_pton(AF_INET, addr, &a) != 1 || !parse_size(slash + 1, &bits) || bits < 1 ||
	    bits > 32 || strlen(v) >= sizeof(n->ip))
		return bad(where, "ip", v, "dhcp, or an address such as 192.0.2.2/24", e);
	strcpy(n->ip, v);
	return 0;
}

static int item_gw(struct net_config *n, const char *where, const char *v, struct err *e)
{
	struct in_addr a;

	if (inet_pton(AF_INET, v, &a) != 1)
		return bad(where, "gw", v, "an IPv4 address", e);
	snprintf(n->gw, sizeof(n->gw), "%s", v);
	return 0;
}

static int item_dns(struct net_config *n, const char *where, const char *v, struct err *e)
{
	struct in_addr a;

	if (inet_pton(AF_INET, v, &a) != 1)
		return bad(where, "dns", v, "an IPv4 address", e);
	snprintf(n->dns, sizeof(n->dns), "%s", v);
	return 0;
}

static const struct {
	const char *name;
	bool value;
	int (*set)(struct net_config *n, const char *where, const char *v, struct err *e);
} items[] = {
	{"tap", true, item_tap},       {"fd", true, item_fd},     {"user", false, item_user},
	{"socket", true, item_socket}, {"mac", true, item_mac},   {"queues", true, item_queues},
	{"mtu", true, item_mtu},       {"rate", true, item_rate}, {"pps", true, item_pps},
	{"fwd", true, item_fwd},       {"ip", true, item_ip},     {"gw", true, item_gw},
	{"dns", true, item_dns},
};

static int one_item(struct net_config *n, const char *where, const char *item, struct err *e)
{
	size_t len = strcspn(item, "=");

	for (size_t i = 0; i < ARRAY_LEN(items); i++) {
		if (strlen(items[i].name) != len || strncmp(items[i].name, item, len) != 0 ||
		    items[i].value != (item[len] == '='))
			continue;
		return items[i].set(n, where, item + len + items[i].value, e);
	}
	return err_set(e, -EINVAL,
		       "%s: '%.60s'; expected " KINDS
		       ", and mac=, queues=, mtu=, rate=, pps=, fwd=, ip=, gw=, dns=",
		       where, item);
}

/* What only the whole can tell. */
static int check(struct net_config *n, const char *where, const char *v, struct err *e)
{
	bool tap = n->kind == NET_ON_TAP || n->kind == NET_ON_FD;

	if (!n->kind)
		return err_set(e, -EINVAL, "%s: '%.60s'; expected " KINDS, where, v);
	if (n->kind == NET_ON_FD && n->queues && n->queues != n->nfds)
		return err_set(e, -EINVAL,
			       "%s: queues=%u with %u descriptors; expected one for each", where,
			       n->queues, n->nfds);
	if (!tap && n->queues > 1)
		return err_set(e, -EINVAL, "%s: queues=%u; expected 1: only a TAP has several",
			       where, n->queues);
	if (n->nforwards && n->kind != NET_ON_USER)
		return err_set(e, -EINVAL, "%s: fwd: expected with user only", where);
	if (n->kind == NET_ON_USER && (n->ip[0] || n->gw[0]))
		return err_set(e, -EINVAL,
			       "%s: ip, gw: not with user, where the guest asks by DHCP", where);
	if ((n->gw[0] || n->dns[0]) && !n->ip[0] && n->kind != NET_ON_USER)
		return err_set(e, -EINVAL, "%s: gw, dns: expected with ip=ADDRESS/LENGTH", where);
	if (!n->queues)
		n->queues = n->nfds ? n->nfds : 1;
	if (n->kind == NET_ON_USER)
		n->dhcp = true;
	return 0;
}

int config_net(struct vm_config *c, const char *where, const char *v, struct err *e)
{
	struct net_config *n = &c->net[c->nnets];
	char *copy, *rest, *item;
	int rc = 0;

	if (c->nnets == CONFIG_MAX_NETS)
		return err_set(e, -EINVAL, "%s: more than %d cards", where, CONFIG_MAX_NETS);
	*n = (struct net_config){0};
	copy = strdup(v);
	if (!copy)
		return err_set(e, -ENOMEM, "out of memory");
	rest = copy;
	while (!rc && (item = config_next_item(&rest)))
		rc = one_item(n, where, item, e);
	if (!rc)
		rc = check(n, where, v, e);
	free(copy);
	if (rc)
		free(n->name);
	else
		c->nnets++;
	return rc;
}
