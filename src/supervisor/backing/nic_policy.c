/* SPDX-License-Identifier: BSD-2-Clause */
/* The policy of a card. See nic_policy.h. */
#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include <insula/base.h>
#include <insula/log.h>

#include "nic_policy.h"

#define DENIED_NS 900000000ull /* a helper tells at most once a second */
#define NAME_MOST_S 86400u

static bool is_on(const struct nic *c)
{
	return c->policy.flags & POLICY_ON;
}

/* Its name; NULL: the card is on a TAP. */
static const char *macvtap_of(const struct nic *c)
{
	return c->conf->kind == NET_ON_MACVTAP ? c->attach.ifname : NULL;
}

static int begin_outside(struct nic *c, struct err *e)
{
	if (!is_on(c) || !c->ntaps)
		return 0;
	return nft_begin(&c->nft, c->tap[0], macvtap_of(c), &c->policy, e);
}

int nic_policy_open(struct nic *c, struct err *e)
{
	c->policy = c->conf->policy;
	memcpy(c->policy.mac, c->start.mac, sizeof(c->policy.mac));
	return begin_outside(c, e);
}

int nic_policy_refresh(struct nic *c, struct err *e)
{
	if (!memcmp(c->policy.mac, c->start.mac, sizeof(c->policy.mac)))
		return 0;
	memcpy(c->policy.mac, c->start.mac, sizeof(c->policy.mac));
	return begin_outside(c, e);
}

void nic_policy_tell(const struct nic *c, struct child *helper)
{
	if (helper->state == CHILD_READY)
		(void)child_send(helper, MSG_NET_POLICY, &c->policy, sizeof(c->policy), NULL, 0);
}

int nic_policy_change(struct nic *c, struct child *helper, const struct net_policy *p,
		      struct err *e)
{
	struct net_policy next = *p;
	bool outside = c->ntaps && (c->nft.made || (next.flags & POLICY_ON));
	int rc = 0;

	memcpy(next.mac, c->start.mac, sizeof(next.mac));
	if (outside)
		rc = nft_change(&c->nft, c->tap[0], macvtap_of(c), &next, e);
	if (rc)
		return rc;
	c->policy = next;
	nic_policy_tell(c, helper);
	return outside ? 1 : 0;
}

/* ---- what the helper says ---- */

static const char *verdict_text(uint32_t verdict)
{
	static const char *const texts[POLICY_VERDICTS] = {
		[POLICY_PASS] = "nothing",
		[POLICY_DROP_MAC] = "a MAC address that is not the card's",
		[POLICY_DROP_SOURCE] = "an address that the guest may not have",
		[POLICY_DROP_ARP] = "ARP or neighbour discovery for another address",
		[POLICY_DROP_SERVER] = "a DHCP server's answer, or a router's advertisement",
		[POLICY_DROP_KIND] = "neither ARP nor plain IP",
		[POLICY_DROP_TO] = "no rule allows it"};

	return verdict < POLICY_VERDICTS ? texts[verdict] : texts[POLICY_DROP_KIND];
}

bool nic_policy_denied(struct nic *c, const struct msg_net_denied *m, char out[NIC_DENIED_TEXT])
{
	uint64_t now = clock_ns();
	char to[INET6_ADDRSTRLEN] = "", port[8] = "", proto[16];

	/* A number, which a helper that was taken over may make up: it must not wrap. */
	c->denied += m->frames < UINT32_MAX ? m->frames : UINT32_MAX;
	if (c->denied_ns && now - c->denied_ns < DENIED_NS)
		return false;
	if (m->family == 4 || m->family == 6)
		inet_ntop(m->family == 4 ? AF_INET : AF_INET6, m->to, to, sizeof(to));
	if (m->port)
		snprintf(port, sizeof(port), ":%u", m->port);
	snprintf(proto, sizeof(proto), "protocol %u", m->proto);
	snprintf(out, NIC_DENIED_TEXT, "%llu frame%s; the last one%s%s%s%s%s%s%s: %s",
		 (unsigned long long)c->denied, c->denied == 1 ? "" : "s", to[0] ? ", to " : "",
		 m->family == 6 && to[0] ? "[" : "", to, m->family == 6 && to[0] ? "]" : "", port,
		 to[0] ? ", " : "",
		 !to[0]                            ? ""
		 : m->proto == POLICY_TCP          ? "tcp"
		 : m->proto == POLICY_UDP          ? "udp"
		 : m->proto == 1 || m->proto == 58 ? "icmp"
						   : proto,
		 verdict_text(m->verdict));
	c->denied_ns = now;
	c->denied = 0;
	return true;
}

static bool is_address(const struct policy_prefix *p)
{
	static const uint8_t none[12];

	return (p->family == 4 && p->bits == 32 && !memcmp(p->addr + 4, none, sizeof(none))) ||
	       (p->family == 6 && p->bits == 128);
}

bool nic_policy_name(struct nic *c, const struct msg_net_name *m)
{
	struct msg_net_name some = *m;

	if (!is_address(&m->to))
		return false;
	/* One of a policy that is no more, perhaps. */
	if (!is_on(c) || m->name >= c->policy.nnames || !c->ntaps)
		return true;
	if (some.seconds > NAME_MOST_S)
		some.seconds = NAME_MOST_S;
	memset(some.to.pad, 0, sizeof(some.to.pad));
	nft_address(&c->nft, &some);
	return true;
}
