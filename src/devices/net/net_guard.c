/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The card's policy at work: what the control thread is told (MSG_NET_POLICY) each lane takes over
 * before its turn, asks about every frame that the guest sends, and shows the answers of the
 * resolver that come. What was dropped, and where names have led to, the control thread tells the
 * supervisor.
 *
 * A helper that starts with NET_POLICED drops everything until it has a policy.
 */
#include <errno.h>
#include <string.h>

#include <insula/base.h>

#include "devices/iov.h"
#include "net.h"

#define GUARD_SAY_NS 1000000000ull /* from one MSG_NET_DENIED to the next */

void net_guard_init(struct net *n)
{
	struct net_guard *g = &n->guard;

	pthread_mutex_init(&g->lock, NULL);
	net_names_init(&g->names);
	if (n->conf.flags & NET_POLICED)
		g->policy.flags = POLICY_ON;
	atomic_store(&g->version, 1);
}

static bool same_names(const struct net_policy *a, const struct net_policy *b)
{
	return a->nnames == b->nnames && !memcmp(a->name, b->name, sizeof(a->name)) &&
	       !memcmp(&a->resolver, &b->resolver, sizeof(a->resolver));
}

int net_guard_set(struct net *n, const struct net_policy *p)
{
	struct net_guard *g = &n->guard;

	if (!net_policy_is_sane(p))
		return -EPROTO;
	pthread_mutex_lock(&g->lock);
	if (!same_names(&g->policy, p)) {
		net_names_forget(&g->names);
		g->nfound = 0;
	}
	g->policy = *p;
	atomic_fetch_add(&g->version, 1);
	pthread_mutex_unlock(&g->lock);
	for (unsigned i = 0; i < n->nlanes; i++)
		lane_wake(n->lane[i].l);
	return 0;
}

void net_guard_turn(struct net_lane *l)
{
	struct net_guard *g = &l->n->guard;

	if (l->policy_version == atomic_load(&g->version))
		return;
	pthread_mutex_lock(&g->lock);
	l->policy = g->policy;
	l->policy_version = atomic_load(&g->version);
	pthread_mutex_unlock(&g->lock);
}

/* ---- what the guest sends ---- */

static void guard_dropped(struct net_lane *l, const struct msg_net_denied *what)
{
	struct net_guard *g = &l->n->guard;
	uint64_t now = clock_ns(), frames;
	bool tell;

	l->l->stat[STAT_NET_DENIED]++;
	pthread_mutex_lock(&g->lock);
	frames = g->denied.frames + 1;
	g->denied = *what;
	g->denied.frames = frames;
	tell = !g->told_ns || now - g->told_ns >= GUARD_SAY_NS;
	if (tell)
		g->told_ns = now;
	pthread_mutex_unlock(&g->lock);
	if (tell)
		net_tell(l->n, NET_NEWS_DENIED);
}

/* The frame, and what the kernel is to do with it. */
static bool guard_judges(struct net_lane *l, const struct net_tx *t, size_t got,
			 struct msg_net_denied *what)
{
	if (net_policy_judge(&l->policy, &l->n->guard.names, t->head_copy, got, what) !=
	    POLICY_PASS)
		return false;
	if (!(t->hdr.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) ||
	    net_policy_sum(t->head_copy, got, (size_t)t->hdr.csum_start + t->hdr.csum_offset))
		return true;
	*what = (struct msg_net_denied){.verdict = POLICY_DROP_KIND};
	return false;
}

bool net_guard_lets(struct net_lane *l, struct net_tx *t)
{
	struct msg_net_denied what;
	size_t got, rest;

	if (!(l->policy.flags & POLICY_ON))
		return true;
	got = iov_get(t->iov + 1, t->n, 0, t->head_copy, sizeof(t->head_copy));
	if (!guard_judges(l, t, got, &what)) {
		guard_dropped(l, &what);
		return false;
	}
	/* What was judged is what is sent. */
	t->n = iov_cut(t->iov + 1, VQ_MAX_NUM, t->iov + 1, t->n, got, SIZE_MAX, &rest);
	memmove(t->iov + 2, t->iov + 1, t->n * sizeof(t->iov[0]));
	t->iov[1] = (struct iovec){.iov_base = t->head_copy, .iov_len = got};
	t->n++;
	return true;
}

/* ---- what comes ---- */

bool net_guard_reads(const struct net_lane *l)
{
	return l->policy.nnames && (l->policy.flags & POLICY_ON);
}

void net_guard_sees(struct net_lane *l, const uint8_t *frame, size_t len)
{
	struct msg_net_name found[NAMES_ANSWER];
	struct net_guard *g = &l->n->guard;
	unsigned n = net_names_frame(&l->policy, frame, len, found, NAMES_ANSWER);
	uint64_t now = n ? clock_ns() : 0;

	if (!n)
		return;
	pthread_mutex_lock(&g->lock);
	/* Not of names that have gone meanwhile. */
	if (l->policy_version != atomic_load(&g->version))
		n = 0;
	for (unsigned i = 0; i < n; i++) {
		net_names_add(&g->names, found[i].name, &found[i].to, found[i].seconds, now);
		if (g->nfound < GUARD_FOUND)
			g->found[g->nfound++] = found[i];
	}
	pthread_mutex_unlock(&g->lock);
	if (n)
		net_tell(l->n, NET_NEWS_NAMES);
}

/* ---- the control thread ---- */

/* If something cannot be said the supervisor is gone, and the loop sees that. */
static void say_names(struct net *n)
{
	struct net_guard *g = &n->guard;
	struct msg_net_name found[GUARD_FOUND];
	unsigned nfound;

	pthread_mutex_lock(&g->lock);
	nfound = g->nfound;
	memcpy(found, g->found, nfound * sizeof(found[0]));
	g->nfound = 0;
	pthread_mutex_unlock(&g->lock);
	for (unsigned i = 0; i < nfound; i++)
		(void)msg_send(n->w.h->channel, MSG_NET_NAME, &found[i], sizeof(found[i]), NULL, 0);
}

void net_guard_say(struct net *n, uint32_t news)
{
	struct net_guard *g = &n->guard;
	struct msg_net_denied m;

	if (news & NET_NEWS_NAMES)
		say_names(n);
	if (!(news & NET_NEWS_DENIED))
		return;
	pthread_mutex_lock(&g->lock);
	m = g->denied;
	g->denied.frames = 0;
	pthread_mutex_unlock(&g->lock);
	if (m.frames)
		(void)msg_send(n->w.h->channel, MSG_NET_DENIED, &m, sizeof(m), NULL, 0);
}
