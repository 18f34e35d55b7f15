/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The network of a pod. See net.h.
 *
 * CNI (or the engine) has put an end of a veth pair into the pod's network namespace and given it
 * addresses and routes. The VM takes its place:
 *
 *   host --- veth pair --- eth0  <= tc: all that comes in goes out of the other =>  ins0 (TAP) --- VM
 *
 * eth0 and the TAP have each an ingress qdisc with one filter: everything, redirected to the other's
 * egress. That is before the namespace's own protocols: its kernel sees nothing of it and answers
 * nothing, though eth0 keeps its addresses (so the engine finds what it has set, and a restarted
 * runtime finds it again). The guest has the veth's MAC and MTU, its addresses, routes and static
 * neighbours: records for it are made here. The TAP is persistent, for the supervisor opens it by
 * its name later; IPv6 is off on it, or the kernel would talk to the guest by itself.
 *
 * Or, if the configuration says so, the supervisor makes a macvtap on eth0 that has all of it
 * (passthru): no TAP, no qdisc, nothing to undo here.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/if_ether.h>
#include <linux/if_link.h>
#include <linux/if_tun.h>
#include <linux/pkt_cls.h>
#include <linux/pkt_sched.h>
#include <linux/tc_act/tc_mirred.h>

#include <insula/base.h>
#include <insula/log.h>

#include "field.h"
#include "netscan.h"
#include "nl.h"
#include "oci/conf.h"
#include "oci/net.h"
#include "spec/json.h"

#define INGRESS TC_H_MAKE(TC_H_INGRESS, 0)
#define PRIORITY 1u

/* ---- TAP ---- */

static int persistent_tap(const char *name)
{
	struct ifreq r = {0};
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC), rc = 0;

	if (fd < 0)
		return -errno;
	snprintf(r.ifr_name, sizeof(r.ifr_name), "%s", name);
	r.ifr_flags = (short)(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_TUN_EXCL);
	if (ioctl(fd, TUNSETIFF, &r) || ioctl(fd, TUNSETPERSIST, 1))
		rc = -errno;
	close(fd);
	return rc;
}

/* Before it is up. No IPv6 in this kernel is as good. */
static int no_ipv6(const char *name)
{
	char path[64 + IFNAMSIZ];
	int fd, rc = 0;

	snprintf(path, sizeof(path), "/proc/sys/net/ipv6/conf/%s/disable_ipv6", name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	if (write(fd, "1", 1) != 1)
		rc = -errno;
	close(fd);
	return rc;
}

static int tap_up(struct nl *n, int index, uint32_t mtu)
{
	struct ifinfomsg m = {.ifi_family = AF_UNSPEC,
			      .ifi_index = index,
			      .ifi_flags = IFF_UP,
			      .ifi_change = IFF_UP};
	struct nlreq r;

	nlreq_init(&r, RTM_NEWLINK, 0, &m, sizeof(m));
	nlreq_u32(&r, IFLA_MTU, mtu);
	return nl_do(n, &r);
}

static int make_tap(struct nl *n, const char *name, const struct net_link *l, int *index,
		    struct err *e)
{
	int rc = persistent_tap(name);

	/* In words of our own: callers take the kernel's for a missing program of the container. */
	if (rc == -ENOENT)
		return err_set(e, rc,
			       "network: TAP %s: there is no /dev/net/tun; expected the "
			       "module tun to be loaded",
			       name);
	if (rc)
		return err_sys(e, rc, "network: TAP %s", name);
	*index = (int)if_nametoindex(name);
	rc = no_ipv6(name);
	if (rc)
		return err_sys(e, rc, "network: TAP %s: disable_ipv6", name);
	rc = *index ? tap_up(n, *index, l->mtu) : -ENODEV;
	return rc ? err_sys(e, rc, "network: TAP %s: MTU %u", name, l->mtu) : 0;
}

static int delete_link(struct nl *n, int index)
{
	struct ifinfomsg m = {.ifi_family = AF_UNSPEC, .ifi_index = index};
	struct nlreq r;

	nlreq_init(&r, RTM_DELLINK, 0, &m, sizeof(m));
	return nl_do(n, &r);
}

/* ---- tc(8): qdisc ingress, and one filter: matchall or u32, action mirred egress redirect ---- */

static int ingress(struct nl *n, int index, bool make)
{
	struct tcmsg m = {.tcm_family = AF_UNSPEC,
			  .tcm_ifindex = index,
			  .tcm_handle = INGRESS,
			  .tcm_parent = TC_H_INGRESS};
	struct nlreq r;

	nlreq_init(&r, make ? RTM_NEWQDISC : RTM_DELQDISC, make ? NLM_F_CREATE | NLM_F_EXCL : 0, &m,
		   sizeof(m));
	nlreq_text(&r, TCA_KIND, "ingress");
	return nl_do(n, &r);
}

static void put_redirect(struct nlreq *r, uint16_t attr, int to)
{
	struct tc_mirred act = {
		.action = TC_ACT_STOLEN, .eaction = TCA_EGRESS_REDIR, .ifindex = (uint32_t)to};
	size_t acts = nlreq_nest(r, attr), first = nlreq_nest(r, 1), options;

	nlreq_text(r, TCA_ACT_KIND, "mirred");
	options = nlreq_nest(r, TCA_ACT_OPTIONS);
	nlreq_put(r, TCA_MIRRED_PARMS, &act, sizeof(act));
	nlreq_end(r, options);
	nlreq_end(r, first);
	nlreq_end(r, acts);
}

/* One key that every packet has: nothing of its first word is looked at. */
static void put_any(struct nlreq *r)
{
	char text[sizeof(struct tc_u32_sel) + sizeof(struct tc_u32_key)] = {0};
	struct tc_u32_sel sel = {.flags = TC_U32_TERMINAL, .nkeys = 1};

	memcpy(text, &sel, sizeof(sel));
	nlreq_put(r, TCA_U32_SEL, text, sizeof(text));
}

static int redirect(struct nl *n, int from, int to, bool matchall)
{
	struct tcmsg m = {.tcm_family = AF_UNSPEC,
			  .tcm_ifindex = from,
			  .tcm_parent = INGRESS,
			  .tcm_info = TC_H_MAKE(PRIORITY << 16, htons(ETH_P_ALL))};
	struct nlreq r;
	size_t options;

	nlreq_init(&r, RTM_NEWTFILTER, NLM_F_CREATE | NLM_F_EXCL, &m, sizeof(m));
	nlreq_text(&r, TCA_KIND, matchall ? "matchall" : "u32");
	options = nlreq_nest(&r, TCA_OPTIONS);
	if (!matchall)
		put_any(&r);
	put_redirect(&r, matchall ? TCA_MATCHALL_ACT : TCA_U32_ACT, to);
	nlreq_end(&r, options);
	return nl_do(n, &r);
}

static int one_way(struct nl *n, int from, int to, const char *name, struct err *e)
{
	int rc = ingress(n, from, true);

	if (rc == -EEXIST)
		return err_set(e, rc,
			       "network: %s: it has an ingress qdisc already, which is not ours",
			       name);
	if (rc)
		return err_sys(e, rc, "network: %s: ingress qdisc%s", name,
			       rc == -ENOENT ? " (module sch_ingress)" : "");
	rc = redirect(n, from, to, true);
	if (rc == -ENOENT) /* no cls_matchall: EL 7 and small kernels */
		rc = redirect(n, from, to, false);
	return rc ? err_sys(e, rc, "network: %s: redirection%s", name,
			    rc == -ENOENT ? " (modules act_mirred and cls_matchall)" : "")
		  : 0;
}

/* ---- joining ---- */

static int join_link(struct nl *n, const struct net_link *l, const char *tap, struct err *e)
{
	int index = 0, rc = make_tap(n, tap, l, &index, e);

	if (!rc)
		rc = one_way(n, l->index, index, l->name, e);
	if (!rc)
		rc = one_way(n, index, l->index, tap, e);
	return rc;
}

/* What a runtime that was killed has left: its TAPs, and so the qdiscs are ours, too. */
static void remove_leftovers(struct nl *n, const struct net_scan *s)
{
	for (unsigned i = 0; i < s->nold; i++)
		(void)delete_link(n, s->old_tap[i]);
	for (unsigned i = 0; i < s->nlinks && s->nold; i++)
		(void)ingress(n, s->link[i].index, false);
}

/* A card on a TAP, or, without, on a macvtap that has the whole interface: insula-run makes
 * that. */
static void add_net(json_object *nets, const char *tap, const struct net_link *l)
{
	json_object *o = json_object_new_object();
	char mac[18];

	snprintf(mac, sizeof(mac), "%02x:%02x:%02x:%02x:%02x:%02x", l->mac[0], l->mac[1], l->mac[2],
		 l->mac[3], l->mac[4], l->mac[5]);
	if (tap) {
		j_str(o, "tap", tap);
	} else {
		j_str(o, "macvtap", l->name);
		j_str(o, "mode", "passthru");
	}
	j_str(o, "mac", mac);
	j_int(o, "mtu", l->mtu);
	json_object_array_add(nets, o);
}

static void forget(struct nl *n, json_object *kept, const char *tap)
{
	int index = (int)if_nametoindex(tap);

	if (index)
		(void)delete_link(n, index);
	json_object_object_del(kept, tap);
}

static int join_all(struct nl *n, const struct net_scan *s, json_object *nets, json_object *kept,
		    struct err *e)
{
	int rc = 0;

	for (unsigned i = 0; i < s->nlinks && !rc; i++) {
		char tap[IFNAMSIZ];

		snprintf(tap, sizeof(tap), NET_TAP "%u", i);
		/* First, so that half of it is undone, too. */
		j_str(kept, tap, s->link[i].name);
		rc = join_link(n, &s->link[i], tap, e);
		if (!rc)
			add_net(nets, tap, &s->link[i]);
		else if (rc == -EEXIST) /* what we did not make is not ours to remove */
			forget(n, kept, tap);
	}
	return rc;
}

static int join_namespace(struct rec *r, bool macvtap, json_object *nets, json_object *kept,
			  struct err *e)
{
	struct net_scan *s = malloc(sizeof(*s));
	struct nl n;
	int rc;

	if (!s)
		return err_set(e, -ENOMEM, "out of memory");
	rc = nl_open(&n, e);
	if (!rc) {
		rc = net_scan(&n, s, e);
		if (!rc)
			remove_leftovers(&n, s);
		for (unsigned i = 0; i < s->nlinks && macvtap && !rc; i++)
			add_net(nets, NULL, &s->link[i]);
		if (!rc && !macvtap)
			rc = join_all(&n, s, nets, kept, e);
		if (!rc)
			net_records(s, r);
		nl_close(&n);
	}
	free(s);
	return rc;
}

int net_join(const struct oci_conf *conf, bool host, struct rec *r, json_object **nets,
	     json_object **kept, struct err *e)
{
	int rc = 0;

	*nets = json_object_new_array();
	*kept = json_object_new_object();
	if (host && !strcmp(conf->net_host, "user")) {
		json_object *user = json_object_new_object();

		j_bool(user, "user", true);
		json_object_array_add(*nets, user);
	} else if (!host && strcmp(conf->net_mode, "none") != 0) {
		rc = join_namespace(r, !strcmp(conf->net_mode, "macvtap"), *nets, *kept, e);
	}
	if (!rc)
		return 0;
	net_leave(*kept);
	json_object_put(*kept);
	json_object_put(*nets);
	*kept = *nets = NULL;
	return rc;
}

int net_taps(unsigned n, json_object **nets, struct err *e)
{
	int rc = 0;

	*nets = json_object_new_array();
	for (unsigned i = 0; i < n && !rc; i++) {
		json_object *o = json_object_new_object();
		char tap[IFNAMSIZ];

		snprintf(tap, sizeof(tap), NET_TAP "%u", i);
		j_str(o, "tap", tap);
		json_object_array_add(*nets, o);
		rc = persistent_tap(tap);
		if (rc)
			err_sys(e, rc, "network: TAP %s (module tun)", tap);
	}
	if (rc) {
		json_object_put(*nets);
		*nets = NULL;
	}
	return rc;
}

/* Half of it may be gone, with its namespace's interfaces or by an earlier call. */
void net_leave(json_object *kept)
{
	struct err later;
	struct nl n;

	if (!json_object_is_type(kept, json_type_object) || !json_object_object_length(kept) ||
	    nl_open(&n, &later))
		return;
	json_object_object_foreach(kept, tap, v)
	{
		const char *name = json_object_get_string(v);
		int link = name ? (int)if_nametoindex(name) : 0, index = (int)if_nametoindex(tap);

		if (strncmp(tap, NET_TAP, strlen(NET_TAP)) != 0)
			continue;
		if (index)
			(void)delete_link(&n, index);
		if (link)
			(void)ingress(&n, link, false);
	}
	nl_close(&n);
}
