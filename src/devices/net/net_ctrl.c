/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The control queue (virtio 1.2, 5.1.6.5).
 *
 * The device filters nothing: every frame that the backing gives goes to the guest. That is allowed
 * ("the filter may be imperfect"), so the commands about filters are checked, recorded and granted.
 *
 * Lane 0 serves it. What it changes and the other lanes read in their turns (the number of active
 * pairs, the offloads) it changes between their turns.
 */
#include <errno.h>
#include <string.h>

#include <insula/base.h>

#include "devices/iov.h"
#include "net.h"

static uint8_t net_ctrl_set_flag(uint8_t *flag, const uint8_t *data, size_t len)
{
	if (len != 1 || data[0] > 1)
		return VIRTIO_NET_ERR;
	*flag = data[0];
	return VIRTIO_NET_OK;
}

static uint8_t promisc(struct net *n, const uint8_t *data, size_t len)
{
	return net_ctrl_set_flag(&n->st->promisc, data, len);
}

static uint8_t allmulti(struct net *n, const uint8_t *data, size_t len)
{
	return net_ctrl_set_flag(&n->st->allmulti, data, len);
}

/* Two tables, each a number of entries (32 bits) and so many addresses. */
static uint8_t mac_table(struct net *n, const uint8_t *data, size_t len)
{
	(void)n;
	for (unsigned i = 0; i < 2; i++) {
		uint32_t entries;

		if (len < sizeof(entries))
			return VIRTIO_NET_ERR;
		memcpy(&entries, data, sizeof(entries));
		data += sizeof(entries);
		len -= sizeof(entries);
		if (entries > len / 6)
			return VIRTIO_NET_ERR;
		data += (size_t)entries * 6;
		len -= (size_t)entries * 6;
	}
	return len ? VIRTIO_NET_ERR : VIRTIO_NET_OK;
}

static uint8_t mac_addr(struct net *n, const uint8_t *data, size_t len)
{
	if (len != sizeof(n->st->mac) || (data[0] & 1))
		return VIRTIO_NET_ERR;
	memcpy(n->st->mac, data, len);
	net_tell(n, NET_NEWS_MAC);
	return VIRTIO_NET_OK;
}

/* ---- what all lanes go by ---- */

/* Until let_go() no other lane is in a turn. Lane 0 alone calls this, so there is one order. */
static void hold_others(struct net *n)
{
	for (unsigned i = 1; i < n->nlanes; i++) {
		pthread_mutex_lock(&n->lane[i].gate);
		pthread_mutex_lock(&n->lane[i].turn);
	}
}

/* They look again at what is theirs. */
static void let_go(struct net *n)
{
	for (unsigned i = 1; i < n->nlanes; i++) {
		pthread_mutex_unlock(&n->lane[i].turn);
		pthread_mutex_unlock(&n->lane[i].gate);
		lane_wake(n->lane[i].l);
	}
}

/* 5.1.6.5.6: when this is answered, no frame comes to a pair beyond. */
static uint8_t queue_pairs(struct net *n, const uint8_t *data, size_t len)
{
	uint16_t pairs;

	if (len != sizeof(pairs))
		return VIRTIO_NET_ERR;
	memcpy(&pairs, data, sizeof(pairs));
	if (pairs < VIRTIO_NET_CTRL_MQ_VQ_PAIRS_MIN || pairs > n->npairs)
		return VIRTIO_NET_ERR;
	if (net_is_vhost(n) && net_vhost_queues(n, pairs))
		return VIRTIO_NET_ERR;
	hold_others(n);
	n->st->npairs = pairs;
	let_go(n);
	return VIRTIO_NET_OK;
}

static uint8_t set_offloads(struct net *n, uint64_t wanted)
{
	for (unsigned i = 0; i < n->nbackings; i++) {
		struct net_backing *b = &n->backing[i];

		if (!b->dead && b->ops->offload(b, wanted))
			return VIRTIO_NET_ERR;
	}
	n->st->offloads = wanted;
	return VIRTIO_NET_OK;
}

static uint8_t guest_offloads(struct net *n, const uint8_t *data, size_t len)
{
	uint64_t wanted, could = n->features & NET_GUEST_OFFLOADS;
	uint8_t answer;

	if (len != sizeof(wanted))
		return VIRTIO_NET_ERR;
	memcpy(&wanted, data, sizeof(wanted));
	if (wanted & ~could)
		return VIRTIO_NET_ERR;
	hold_others(n);
	answer = set_offloads(n, wanted);
	let_go(n);
	return answer;
}

static const struct {
	uint8_t class, cmd, feature;
	uint8_t (*fn)(struct net *n, const uint8_t *data, size_t len);
} commands[] = {
	{VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, VIRTIO_NET_F_CTRL_RX, promisc},
	{VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_ALLMULTI, VIRTIO_NET_F_CTRL_RX, allmulti},
	{VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, VIRTIO_NET_F_CTRL_RX, mac_table},
	{VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, VIRTIO_NET_F_CTRL_MAC_ADDR, mac_addr},
	{VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, VIRTIO_NET_F_MQ, queue_pairs},
	{VIRTIO_NET_CTRL_GUEST_OFFLOADS, VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET,
	 VIRTIO_NET_F_CTRL_GUEST_OFFLOADS, guest_offloads},
};

uint8_t net_command(struct net *n, const uint8_t *cmd, size_t len)
{
	for (size_t i = 0; len >= 2 && i < ARRAY_LEN(commands); i++) {
		if (commands[i].class == cmd[0] && commands[i].cmd == cmd[1])
			return net_has(n, commands[i].feature) ? commands[i].fn(n, cmd + 2, len - 2)
							       : VIRTIO_NET_ERR;
	}
	return VIRTIO_NET_ERR;
}

static bool serve_one(struct net_lane *l, struct virtqueue *q)
{
	struct iovec iov[VQ_MAX_NUM];
	struct vq_chain c = {.iov = iov};
	uint8_t cmd[NET_MAX_COMMAND], answer = VIRTIO_NET_ERR;
	int rc = vq_next(q, &c);
	size_t len;

	if (rc < 0)
		lane_fault(l->l, q->why);
	if (rc <= 0)
		return false;
	if (c.write_len < 1) {
		lane_fault(l->l, "a command without room for its answer");
		return false;
	}
	len = iov_get(iov, c.nread, 0, cmd, sizeof(cmd));
	if (len == c.read_len) /* else it is longer than any command */
		answer = net_command(l->n, cmd, len);
	iov_put(iov + c.nread, c.nwrite, 0, &answer, sizeof(answer));
	vq_push(q, c.head, sizeof(answer));
	l->l->stat[STAT_NET_COMMANDS]++;
	return true;
}

bool net_ctrl_serve(struct net_lane *l, struct virtqueue *q)
{
	if (!q->num)
		return false;
	for (unsigned i = 0; i < NET_COMMANDS; i++) {
		if (!serve_one(l, q))
			return false;
	}
	return true;
}
