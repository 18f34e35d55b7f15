/* SPDX-License-Identifier: BSD-2-Clause */
/* The setting of a network card. See config_take.h. */
#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include <insula/base.h>

#include "config_take.h"
#include "netpolicy.h"

#define KINDS "tap=NAME, fd=N, user, socket=PATH, ovs=BRIDGE or macvtap=PARENT"

static struct net_config *this_net(const struct taking *t)
{
	return &t->c->net[t->c->nnets];
}

static int set_kind(const struct taking *t, enum net_kind_config kind)
{
	struct net_config *n = this_net(t);

	if (n->kind)
		return take_refuse(t, NULL, "one of " KINDS,
				   "two backings; expected one of " KINDS);
	n->kind = kind;
	return 0;
}

static int set_name(const struct taking *t, enum net_kind_config kind, const char *v)
{
	int rc = set_kind(t, kind);

	if (rc)
		return rc;
	if (strlen(v) < t->item->min || strlen(v) > t->item->max ||
	    (kind != NET_ON_SOCKET && strchr(v, '/')))
		return take_wrong(t, v, "%u to %u characters", (unsigned)t->item->min,
				  (unsigned)t->item->max);
	return take_text(t, &this_net(t)->name, v);
}

static bool is_name(const char *v, const char *others)
{
	static const char plain[] =
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
	const char *p = v;

	if (!*p || !strchr(plain, *p))
		return false;
	while (*p && (strchr(plain, *p) || strchr(others, *p)))
		p++;
	return !*p;
}

/* ---- one function per item ---- */

static int item_tap(const struct taking *t, const char *v)
{
	return set_name(t, NET_ON_TAP, v);
}

static int item_socket(const struct taking *t, const char *v)
{
	return set_name(t, NET_ON_SOCKET, v);
}

/* They become words of a command, and names of interfaces. */
static int item_ovs(const struct taking *t, const char *v)
{
	if (!is_name(v, "_.-"))
		return take_wrong(t, v, "letters, digits, _, . and -, a letter or digit first");
	return set_name(t, NET_ON_OVS, v);
}

static int item_iface_id(const struct taking *t, const char *v)
{
	struct net_config *n = this_net(t);

	if (!is_name(v, "_.:/-") || strlen(v) > CONFIG_PORT_ID_MAX)
		return take_wrong(t, v,
				  "1 to %d letters, digits, _, ., :, / and -, a letter or digit "
				  "first",
				  CONFIG_PORT_ID_MAX);
	strcpy(n->iface_id, v);
	return 0;
}

static int item_macvtap(const struct taking *t, const char *v)
{
	return set_name(t, NET_ON_MACVTAP, v);
}

static int item_mode(const struct taking *t, const char *v)
{
	static const char *const modes[] = {"bridge", "private", "vepa", "passthru"};
	struct net_config *n = this_net(t);

	for (unsigned i = 0; i < ARRAY_LEN(modes); i++) {
		if (!strcmp(v, modes[i])) {
			n->mode = (enum macvtap_mode)i;
			n->has_mode = true;
			return 0;
		}
	}
	return take_wrong(t, v, "bridge, private, vepa or passthru");
}

static int item_user(const struct taking *t, const char *v)
{
	(void)v;
	return set_kind(t, NET_ON_USER);
}

/* fd=N or fd=N:M:...: one per pair of queues. */
static int item_fd(const struct taking *t, const char *v)
{
	struct net_config *n = this_net(t);
	const char *p = v;
	int rc = set_kind(t, NET_ON_FD);

	while (!rc) {
		char *end;
		unsigned long fd = strtoul(p, &end, 10);

		if (end == p || *p < '0' || *p > '9' || fd < 3 || fd > 1u << 20 ||
		    (*end && *end != ':') || n->nfds == CONFIG_MAX_PAIRS)
			return take_wrong(t, v, "N or N:M:..., 1 to 8 open descriptors from 3 on");
		n->fd[n->nfds++] = (int)fd;
		if (!*end)
			break;
		p = end + 1;
	}
	return rc;
}

int take_mac(const struct taking *t, const char *v, uint8_t mac[6])
{
	unsigned b[6];
	int used = 0;

	if (strlen(v) != 17 || strspn(v, "0123456789abcdefABCDEF:") != 17 ||
	    sscanf(v, "%2x:%2x:%2x:%2x:%2x:%2x%n", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5],
		   &used) != 6 ||
	    used != 17)
		return take_wrong(t, v, "six bytes such as 02:00:5e:00:53:01");
	if ((b[0] & 1) || !(b[0] | b[1] | b[2] | b[3] | b[4] | b[5]))
		return take_wrong(t, v,
				  "the address of one card: the first byte even, not all zero");
	for (unsigned i = 0; i < 6; i++)
		mac[i] = (uint8_t)b[i];
	return 0;
}

static int item_mac(const struct taking *t, const char *v)
{
	struct net_config *n = this_net(t);
	int rc = take_mac(t, v, n->mac);

	n->has_mac = !rc;
	return rc;
}

static int wrong_number(const struct taking *t, const char *v)
{
	return take_wrong(t, v, "a number from %u to %u", (unsigned)t->item->min,
			  (unsigned)t->item->max);
}

static int item_queues(const struct taking *t, const char *v)
{
	struct net_config *n = this_net(t);
	uint64_t q;

	if (!take_size(t, v, &q))
		return wrong_number(t, v);
	n->queues = (unsigned)q;
	return 0;
}

static int item_tag(const struct taking *t, const char *v)
{
	uint64_t vlan;

	if (!take_size(t, v, &vlan))
		return wrong_number(t, v);
	this_net(t)->vlan = (unsigned)vlan;
	return 0;
}

static int item_mtu(const struct taking *t, const char *v)
{
	struct net_config *n = this_net(t);
	uint64_t mtu;

	if (!take_size(t, v, &mtu))
		return wrong_number(t, v);
	n->mtu = (unsigned)mtu;
	return 0;
}

static int item_rate(const struct taking *t, const char *v)
{
	return take_rate(t, v, "bytes", &this_net(t)->rate);
}

static int item_pps(const struct taking *t, const char *v)
{
	return take_rate(t, v, "frames", &this_net(t)->pps);
}

static int item_vhost(const struct taking *t, const char *v)
{
	return take_switch(t, v, &this_net(t)->vhost);
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

static int item_fwd(const struct taking *t, const char *v)
{
	struct net_config *n = this_net(t);
	if (n->nforwards == CONFIG_MAX_FORWARDS)
		return take_refuse(t, NULL, NULL, "more than %d forwarded ports",
				   CONFIG_MAX_FORWARDS);
	if (!parse_forward(v, &n->forward[n->nforwards]))
		return take_wrong(t, v,
				  "[tcp:|udp:][ADDRESS:]HOSTPORT:GUESTPORT, ports from 1 to 65535");
	n->nforwards++;
	return 0;
}

static int item_ip(const struct taking *t, const char *v)
{
	struct net_config *n = this_net(t);
	char addr[INET_ADDRSTRLEN];
	const char *slash = strchr(v, '/');
	struct in_addr a;
	uint64_t bits;

	if (!strcmp(v, "dhcp")) {
		n->dhcp = true;
		return 0;
	}
	if (!slash || (size_t)(slash - v) >= sizeof(addr))
		return take_wrong(t, v, "dhcp, or an address such as 192.0.2.2/24");
	snprintf(addr, sizeof(addr), "%.*s", (int)(slash - v), v);
	if (inet_pton(AF_INET, addr, &a) != 1 || !parse_size(slash + 1, &bits) || bits < 1 ||
	    bits > 32 || strlen(v) >= sizeof(n->ip))
		return take_wrong(t, v, "dhcp, or an address such as 192.0.2.2/24");
	strcpy(n->ip, v);
	return 0;
}

static int item_gw(const struct taking *t, const char *v)
{
	struct net_config *n = this_net(t);
	struct in_addr a;

	if (inet_pton(AF_INET, v, &a) != 1)
		return take_wrong(t, v, "an IPv4 address");
	snprintf(n->gw, sizeof(n->gw), "%s", v);
	return 0;
}

static int item_dns(const struct taking *t, const char *v)
{
	struct net_config *n = this_net(t);
	struct in_addr a;

	if (inet_pton(AF_INET, v, &a) != 1)
		return take_wrong(t, v, "an IPv4 address");
	snprintf(n->dns, sizeof(n->dns), "%s", v);
	return 0;
}

static int item_metadata(const struct taking *t, const char *v)
{
	(void)v;
	for (unsigned i = 0; i < t->c->nnets; i++) {
		if (t->c->net[i].metadata)
			return take_refuse(t, NULL, "at most one card",
					   "metadata: two cards; expected at most one");
	}
	this_net(t)->metadata = true;
	return 0;
}

static int took(const struct taking *t, const char *v, const char *expected)
{
	return expected ? take_wrong(t, v, "%s", expected) : 0;
}

static int item_allow(const struct taking *t, const char *v)
{
	return took(t, v, policy_add_allow(&this_net(t)->policy, v));
}

static int item_serve(const struct taking *t, const char *v)
{
	return took(t, v, policy_add_serve(&this_net(t)->policy, v));
}

static int item_from(const struct taking *t, const char *v)
{
	return took(t, v, policy_add_from(&this_net(t)->policy, v));
}

static int item_deny(const struct taking *t, const char *v)
{
	(void)v;
	this_net(t)->policy.flags |= POLICY_ON;
	return 0;
}

static int item_bus(const struct taking *t, const char *v)
{
	return take_bus(t, v, &this_net(t)->bus);
}

static const struct item_setter net_setters[] = {
	{"tap", item_tap},       {"fd", item_fd},           {"user", item_user},
	{"socket", item_socket}, {"ovs", item_ovs},         {"iface-id", item_iface_id},
	{"tag", item_tag},       {"macvtap", item_macvtap}, {"mode", item_mode},
	{"mac", item_mac},       {"queues", item_queues},   {"mtu", item_mtu},
	{"rate", item_rate},     {"pps", item_pps},         {"fwd", item_fwd},
	{"ip", item_ip},         {"gw", item_gw},           {"dns", item_dns},
	{"allow", item_allow},   {"serve", item_serve},     {"from", item_from},
	{"deny", item_deny},     {"bus", item_bus},         {"metadata", item_metadata},
	{"vhost", item_vhost},
};

/* ---- the whole ---- */

static int net_begin(const struct taking *t)
{
	if (t->c->nnets == CONFIG_MAX_NETS)
		return take_refuse(t, NULL, NULL, "more than %d cards", CONFIG_MAX_NETS);
	*this_net(t) = (struct net_config){0};
	return 0;
}

static void net_drop(struct vm_config *c)
{
	free(c->net[c->nnets].name);
	c->net[c->nnets].name = NULL;
}

/* What insula-net does with each frame nobody does when the kernel moves them. */
static const char *beyond_vhost(const struct net_config *n)
{
	const struct net_policy *p = &n->policy;

	if (n->rate || n->pps)
		return "rate, pps";
	if (p->flags || p->nrules || p->nserves || p->nsources)
		return "allow, serve, from, deny";
	return n->metadata ? "metadata" : NULL;
}

static int check_vhost_card(const struct taking *t)
{
	const struct net_config *n = this_net(t);
	const char *beyond = n->vhost ? beyond_vhost(n) : NULL;

	if (n->vhost && (n->kind == NET_ON_USER || n->kind == NET_ON_SOCKET))
		return take_refuse(t, NULL, "with " NET_WITH_VHOST,
				   "vhost: on; expected with " NET_WITH_VHOST);
	return beyond ? take_refuse(t, NULL, "off", "vhost: on, with %s; expected off", beyond) : 0;
}

/* Items that exclude each other, or want another one. */
static int check_items(const struct taking *t)
{
	const struct net_config *n = this_net(t);
	bool user = n->kind == NET_ON_USER;

	if (n->kind == NET_ON_FD && n->queues && n->queues != n->nfds)
		return take_refuse(t, NULL, "one for each",
				   "queues=%u with %u descriptors; expected one for each",
				   n->queues, n->nfds);
	if ((user || n->kind == NET_ON_SOCKET) && n->queues > 1)
		return take_refuse(t, NULL, "1: only a TAP has several",
				   "queues=%u; expected 1: only a TAP has several", n->queues);
	if ((n->iface_id[0] || n->vlan) && n->kind != NET_ON_OVS)
		return take_refuse(t, NULL, "with ovs=BRIDGE",
				   "iface-id, tag: expected with ovs=BRIDGE");
	if (n->has_mode && n->kind != NET_ON_MACVTAP)
		return take_refuse(t, NULL, "with macvtap=PARENT",
				   "mode: expected with macvtap=PARENT");
	if (n->nforwards && !user)
		return take_refuse(t, NULL, "with user only", "fwd: expected with user only");
	if (user && (n->ip[0] || n->gw[0]))
		return take_refuse(t, NULL, NULL,
				   "ip, gw: not with user, where the guest asks by DHCP");
	if ((n->gw[0] || n->dns[0]) && !n->ip[0] && !user)
		return take_refuse(t, NULL, "with ip=ADDRESS/LENGTH",
				   "gw, dns: expected with ip=ADDRESS/LENGTH");
	return 0;
}

/* What comes in by a forwarded port may be answered. */
static const char *allow_forwards(const struct net_config *n, struct net_policy *p)
{
	char text[16];
	const char *why = NULL;

	for (unsigned i = 0; i < n->nforwards && !why && (p->flags & POLICY_ON); i++) {
		snprintf(text, sizeof(text), "%s:%u", n->forward[i].udp ? "udp" : "tcp",
			 n->forward[i].guest);
		why = policy_add_serve(p, text);
	}
	return why;
}

const char *config_policy(const struct net_config *n, struct net_policy *p)
{
	const struct policy_card card = {n->ip, n->dns, n->kind == NET_ON_USER};
	const char *why;

	if (p != &n->policy && !p->nsources && (p->flags & POLICY_ON)) {
		memcpy(p->source, n->policy.source, sizeof(p->source));
		p->nsources = n->policy.nsources;
	}
	why = policy_finish(p, &card);
	return why ? why : allow_forwards(n, p);
}

static int check_policy(const struct taking *t)
{
	struct net_config *n = this_net(t);
	const char *why = config_policy(n, &n->policy);

	return why ? take_refuse(t, NULL, why, "policy; expected %s", why) : 0;
}

static int net_end(const struct taking *t, const char *whole)
{
	struct net_config *n = this_net(t);
	int rc = n->kind ? check_items(t) : take_wrong(t, whole, KINDS);

	if (!rc)
		rc = check_vhost_card(t);
	if (!rc)
		rc = check_policy(t);
	if (rc)
		return rc;
	if (!n->queues)
		n->queues = n->nfds ? n->nfds : 1;
	if (n->kind == NET_ON_USER)
		n->dhcp = true;
	t->c->nnets++;
	return 0;
}

const struct items items_net = {
	"net",
	KINDS ", and iface-id=, tag=, mode=, mac=, queues=, mtu=, rate=, "
	      "pps=, vhost=, fwd=, ip=, gw=, dns=, metadata, allow=, serve=, from=, "
	      "deny, bus=",
	net_begin,
	net_end,
	net_drop,
	net_setters,
	ARRAY_LEN(net_setters)};
