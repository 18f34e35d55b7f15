/* SPDX-License-Identifier: BSD-2-Clause */
/* What insula-vhost says to the back end, and in which order. See vhost.h. */
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_fs.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>
#include <string.h>
#include <unistd.h>

#include <insula/base.h>

#include "vhost.h"
#include "vhost_ring.h"

#define BIT(n) (UINT64_C(1) << (n))

/* Of a ring and its transport, what works between any guest and any back end here: split rings,
 * addresses that are the guest's own, doorbells that carry the number of the queue alone. */
#define TRANSPORT_BITS (~UINT64_C(0) << 24 & ~(~UINT64_C(0) << 42))
#define TRANSPORT_KNOWN                                           \
	(BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_RING_F_EVENT_IDX) | \
	 BIT(VIRTIO_RING_F_INDIRECT_DESC) | BIT(VIRTIO_F_IN_ORDER) | BIT(VIRTIO_F_ORDER_PLATFORM))
#ifndef VIRTIO_F_IN_ORDER
#define VIRTIO_F_IN_ORDER 35
#endif
/* What needs a control queue, or a link that goes up and down, a back end does not have. */
#define NET_KNOWN                                                                                  \
	(BIT(VIRTIO_NET_F_CSUM) | BIT(VIRTIO_NET_F_GUEST_CSUM) | BIT(VIRTIO_NET_F_GUEST_TSO4) |    \
	 BIT(VIRTIO_NET_F_GUEST_TSO6) | BIT(VIRTIO_NET_F_GUEST_ECN) |                              \
	 BIT(VIRTIO_NET_F_GUEST_UFO) | BIT(VIRTIO_NET_F_HOST_TSO4) | BIT(VIRTIO_NET_F_HOST_TSO6) | \
	 BIT(VIRTIO_NET_F_HOST_ECN) | BIT(VIRTIO_NET_F_HOST_UFO) | BIT(VIRTIO_NET_F_MRG_RXBUF))
#define BLK_UNKNOWN (BIT(16) | BIT(17)) /* secure erase, zones: longer configurations */
#define PROTOCOL_WANTED                                                        \
	(BIT(VHOST_P_MQ) | BIT(VHOST_P_REPLY_ACK) | BIT(VHOST_P_BACKEND_REQ) | \
	 BIT(VHOST_P_CONFIG) | BIT(VHOST_P_INFLIGHT_SHMFD) | BIT(VHOST_P_DEVICE_STATE))

bool vhost_speaks(const struct vhost *v, unsigned protocol_feature)
{
	return v->protocol >> protocol_feature & 1;
}

static bool vhost_own_config(const struct vhost *v)
{
	return v->conf.device_id == VIRTIO_ID_NET ||
	       (v->conf.device_id == VIRTIO_ID_FS && v->conf.tag[0]);
}

/* ---- features ---- */

static bool vhost_has_mac(const struct vhost *v)
{
	static const uint8_t none[6];

	return memcmp(v->conf.mac, none, sizeof(none)) != 0;
}

uint64_t vhost_offer(const struct vhost *v)
{
	uint64_t f = v->features & (TRANSPORT_KNOWN | ~TRANSPORT_BITS);

	if (v->conf.device_id == VIRTIO_ID_BLOCK)
		f &= ~(BLK_UNKNOWN |
		       (v->conf.flags & VHOST_NO_WCE ? BIT(VIRTIO_BLK_F_CONFIG_WCE) : 0));
	if (v->conf.device_id != VIRTIO_ID_NET)
		return f;
	f &= TRANSPORT_KNOWN | NET_KNOWN;
	return f | (vhost_has_mac(v) ? BIT(VIRTIO_NET_F_MAC) : 0);
}

/* ---- configuration ---- */

static void vhost_make_config(const struct vhost *v, uint8_t config[VHOST_CONFIG_MAX])
{
	struct virtio_fs_config fs = {.num_request_queues = v->conf.nqueues - 1};
	struct virtio_net_config net = {.status = VIRTIO_NET_S_LINK_UP, .max_virtqueue_pairs = 1};

	if (v->conf.device_id == VIRTIO_ID_FS) {
		memcpy(fs.tag, v->conf.tag, sizeof(fs.tag));
		memcpy(config, &fs, sizeof(fs));
	} else {
		memcpy(net.mac, v->conf.mac, sizeof(net.mac));
		memcpy(config, &net, sizeof(net));
	}
}

/* The back end may have more queues than the guest gets. */
static void vhost_mend_config(const struct vhost *v, uint8_t config[VHOST_CONFIG_MAX])
{
	const uint16_t n = (uint16_t)v->conf.nqueues;
	const uint32_t requests = v->conf.nqueues - 1;

	if (v->conf.device_id == VIRTIO_ID_BLOCK)
		memcpy(config + offsetof(struct virtio_blk_config, num_queues), &n, sizeof(n));
	if (v->conf.device_id == VIRTIO_ID_FS)
		memcpy(config + offsetof(struct virtio_fs_config, num_request_queues), &requests,
		       sizeof(requests));
}

int vhost_get_config(struct vhost *v, uint8_t config[VHOST_CONFIG_MAX], struct err *e)
{
	struct vhost_config_space c = {.size = (uint32_t)v->config_len};
	size_t len = VHOST_CONFIG_HEAD + v->config_len;
	int rc;

	memset(config, 0, VHOST_CONFIG_MAX);
	if (vhost_own_config(v)) {
		vhost_make_config(v, config);
		return 0;
	}
	if (!v->config_len)
		return 0;
	if (!vhost_speaks(v, VHOST_P_CONFIG))
		return err_set(e, -EPROTO, "it does not tell its configuration (CONFIG)");
	rc = vlink_send(&v->link, VHOST_GET_CONFIG, 0, &c, len, NULL, 0);
	if (!rc)
		rc = vlink_reply(&v->link, VHOST_GET_CONFIG, &c, len, len, NULL, NULL);
	if (!rc && (c.offset || c.size != v->config_len))
		rc = -EPROTO;
	if (rc)
		return err_sys(e, rc, "GET_CONFIG of %zu bytes", v->config_len);
	memcpy(config, c.bytes, v->config_len);
	vhost_mend_config(v, config);
	return 0;
}

int vhost_set_config(struct vhost *v, unsigned off, unsigned len, struct err *e)
{
	struct vhost_config_space c = {.offset = off, .size = len};
	int rc;

	memcpy(c.bytes, v->st->config + off, len);
	rc = vlink_set(&v->link, VHOST_SET_CONFIG, &c, VHOST_CONFIG_HEAD + len, NULL, 0);
	return rc ? err_sys(e, rc, "SET_CONFIG of %u bytes at %u", len, off) : 0;
}

/* What the driver has written another back end does not know. */
static int vhost_write_config_again(struct vhost *v, struct err *e)
{
	int rc = 0;

	for (unsigned i = 0, n; i < v->config_len && !rc; i += n) {
		for (n = 1; i + n < v->config_len && v->st->wrote[i + n] == v->st->wrote[i];)
			n++;
		if (v->st->wrote[i])
			rc = vhost_set_config(v, i, n, e);
	}
	return rc;
}

/* ---- the beginning ---- */

static int vhost_agree(struct vhost *v, struct err *e)
{
	uint64_t can = 0;
	int rc;

	v->protocol = 0;
	if (!(v->features & BIT(VHOST_F_PROTOCOL_FEATURES)))
		return 0;
	rc = vlink_get_u64(&v->link, VHOST_GET_PROTOCOL_FEATURES, &can);
	if (v->conf.flags & VHOST_KEEPS_ACCOUNT)
		can |= BIT(VHOST_P_INFLIGHT_SHMFD);
	v->protocol = can & PROTOCOL_WANTED;
	/* Only a configuration changes: without it there is nothing to be told. */
	if (!vhost_speaks(v, VHOST_P_CONFIG))
		v->protocol &= ~BIT(VHOST_P_BACKEND_REQ);
	if (!rc)
		rc = vlink_set_u64(&v->link, VHOST_SET_PROTOCOL_FEATURES, v->protocol);
	return rc ? err_sys(e, rc, "protocol features") : 0;
}

/* A card counts pairs. */
static int vhost_count_queues(struct vhost *v, struct err *e)
{
	unsigned want = v->conf.device_id == VIRTIO_ID_NET ? v->conf.nqueues / 2 : v->conf.nqueues;
	uint64_t n = 0;
	int rc;

	if (!vhost_speaks(v, VHOST_P_MQ))
		return 0;
	rc = vlink_get_u64(&v->link, VHOST_GET_QUEUE_NUM, &n);
	if (rc)
		return err_sys(e, rc, "GET_QUEUE_NUM");
	if (n < want)
		return err_set(e, -EINVAL, "it has %llu queues; expected at least %u",
			       (unsigned long long)n, want);
	return 0;
}

static int vhost_give_channel(struct vhost *v, struct err *e)
{
	int fd, rc;

	if (!vhost_speaks(v, VHOST_P_BACKEND_REQ))
		return 0;
	rc = fd = vlink_open_back(&v->link);
	if (fd >= 0) {
		rc = vlink_set(&v->link, VHOST_SET_BACKEND_REQ_FD, NULL, 0, &fd, 1);
		close(fd);
	}
	return rc ? err_sys(e, rc, "SET_BACKEND_REQ_FD") : 0;
}

int vhost_meet(struct vhost *v, uint8_t config[VHOST_CONFIG_MAX], struct err *e)
{
	int rc = vlink_reply(&v->link, VHOST_GET_FEATURES, &v->features, sizeof(v->features),
			     sizeof(v->features), NULL, NULL);

	if (rc)
		return err_sys(e, rc, "GET_FEATURES");
	if (!(v->features & BIT(VIRTIO_F_VERSION_1)))
		return err_set(e, -EPROTO, "features %#llx; expected VIRTIO_F_VERSION_1 among them",
			       (unsigned long long)v->features);
	rc = vlink_set(&v->link, VHOST_SET_OWNER, NULL, 0, NULL, 0);
	if (rc)
		return err_sys(e, rc, "SET_OWNER");
	rc = vhost_agree(v, e);
	if (!rc)
		rc = vhost_count_queues(v, e);
	if (!rc)
		rc = vhost_give_channel(v, e);
	return rc ? rc : vhost_get_config(v, config, e);
}

/* ---- memory ---- */

static int vhost_give_memory(struct vhost *v, struct err *e)
{
	const struct memmap *map = &v->conf.head.mem;
	struct vhost_mem_table t = {.nregions = map->nregions};
	int fds[MEMMAP_MAX], rc;

	for (unsigned i = 0; i < map->nregions; i++) {
		const struct mem_region *r = &map->region[i];

		t.region[i].gpa = t.region[i].user = r->gpa;
		t.region[i].size = r->size;
		t.region[i].offset = r->offset;
		fds[i] = v->mem_fd[r->fd];
	}
	rc = vlink_set(&v->link, VHOST_SET_MEM_TABLE, &t,
		       offsetof(struct vhost_mem_table, region) +
			       map->nregions * sizeof(t.region[0]),
		       fds, map->nregions);
	return rc ? err_sys(e, rc, "SET_MEM_TABLE") : 0;
}

/* ---- the account of what is in flight ---- */

static int vhost_tell_inflight(const struct vhost *v)
{
	bool some = v->conf.inflight.size;

	return msg_send(v->channel, MSG_VHOST_INFLIGHT, &v->conf.inflight, sizeof(v->conf.inflight),
			&v->inflight_fd, some ? 1 : 0);
}

void vhost_forget_inflight(struct vhost *v)
{
	if (!v->conf.inflight.size)
		return;
	v->conf.inflight = (struct vhost_inflight){0};
	if (dup3(v->err_fd, v->inflight_fd, O_CLOEXEC) < 0)
		panic("dup3: %d", errno);
	/* If it cannot be said, the supervisor is gone, and the loop sees that. */
	(void)vhost_tell_inflight(v);
}

static uint16_t vhost_longest(const struct vhost *v)
{
	uint16_t num = 0;

	for (unsigned i = 0; i < v->conf.nqueues; i++) {
		const struct vq_state *q = &v->front.v.st->q[i];

		if (q->ready && q->num > num)
			num = (uint16_t)q->num;
	}
	return num;
}

/* Nobody of ours looks into it: its size and place are the back end's own business. */
static int vhost_new_inflight(struct vhost *v)
{
	struct vhost_inflight want = {.nqueues = (uint16_t)v->conf.nqueues,
				      .queue_size = vhost_longest(v)};
	struct vhost_inflight got = {0};
	int fd, rc;

	rc = vlink_send(&v->link, VHOST_GET_INFLIGHT_FD, 0, &want, sizeof(want), NULL, 0);
	if (!rc) /* some leave out what only aligns it */
		rc = vlink_reply(&v->link, VHOST_GET_INFLIGHT_FD, &got,
				 offsetof(struct vhost_inflight, pad), sizeof(got), NULL, &fd);
	if (rc)
		return rc;
	got.pad = 0;
	rc = got.size == 0 || got.nqueues < want.nqueues || got.queue_size < want.queue_size
		     ? -EPROTO
		     : 0;
	/* The supervisor keeps it and closes it. Nobody waits for memory; the server of a file
	 * system could let that close() wait for ever. */
	if (!rc && fcntl(fd, F_GET_SEALS) < 0)
		rc = -EPROTO;
	if (!rc && dup3(fd, v->inflight_fd, O_CLOEXEC) < 0)
		panic("dup3: %d", errno);
	close(fd);
	if (rc)
		return rc;
	v->conf.inflight = got;
	(void)vhost_tell_inflight(v);
	return 0;
}

static int vhost_give_inflight(struct vhost *v, struct err *e)
{
	int rc = 0;

	if (!vhost_speaks(v, VHOST_P_INFLIGHT_SHMFD)) {
		vhost_forget_inflight(v);
		return 0;
	}
	if (!v->conf.inflight.size)
		rc = vhost_new_inflight(v);
	if (!rc)
		rc = vlink_set(&v->link, VHOST_SET_INFLIGHT_FD, &v->conf.inflight,
			       sizeof(v->conf.inflight), &v->inflight_fd, 1);
	return rc ? err_sys(e, rc, "the memory of what is in flight") : 0;
}

/* ---- rings ---- */

static int vhost_vring(struct vhost *v, enum vhost_request r, unsigned i, uint32_t num)
{
	struct vhost_vring_state s = {i, num};

	return vlink_set(&v->link, r, &s, sizeof(s), NULL, 0);
}

/* fd -1: there is none. */
static int vhost_vring_fd(struct vhost *v, enum vhost_request r, unsigned i, int fd)
{
	uint64_t index = fd < 0 ? i | VHOST_VRING_NO_FD : i;

	return vlink_set(&v->link, r, &index, sizeof(index), &fd, fd >= 0);
}

/* What the guest has chosen to be interrupted by. */
static int vhost_vring_call(struct vhost *v, unsigned i)
{
	return vhost_vring_fd(v, VHOST_SET_VRING_CALL, i,
			      front_event(&v->front, v->front.v.st->q[i].vector));
}

int vhost_set_call(struct vhost *v, unsigned i, struct err *e)
{
	int rc = vhost_vring_call(v, i);

	return rc ? err_sys(e, rc, "SET_VRING_CALL of ring %u", i) : 0;
}

static int vhost_vring_addr(struct vhost *v, unsigned i)
{
	const struct vq_state *q = &v->front.v.st->q[i];
	struct vhost_vring_addr a = {
		.index = i, .desc = q->desc, .used = q->device, .avail = q->driver};

	return vlink_set(&v->link, VHOST_SET_VRING_ADDR, &a, sizeof(a), NULL, 0);
}

/* Where it goes on. `account`: the back end keeps one itself. */
static int vhost_base(struct vhost *v, unsigned i, bool account, uint16_t *base, struct err *e)
{
	const struct vq_state *q = &v->front.v.st->q[i];
	bool in_order = v->front.v.st->driver_features & BIT(VIRTIO_F_IN_ORDER);
	int rc = 0;

	*base = 0;
	if (v->st->ring[i].is == VHOST_RING_FRESH)
		return 0;
	*base = vring_used(q, &v->gm);
	if (account || in_order)
		return 0;
	/* One that has given it back may have had requests still to answer, and have died. */
	if (v->st->ring[i].is == VHOST_RING_STOPPED && v->st->ring[i].base == *base)
		v->st->ring[i].since = *base;
	else
		rc = vring_mend(q, &v->gm, &v->st->ring[i].since, e);
	return rc < 0 ? rc : 0;
}

static int vhost_start_ring(struct vhost *v, unsigned i, bool account, struct err *e)
{
	uint16_t base;
	int rc = vhost_base(v, i, account, &base, e);

	if (rc)
		return rc;
	rc = vhost_vring(v, VHOST_SET_VRING_NUM, i, v->front.v.st->q[i].num);
	if (!rc)
		rc = vhost_vring(v, VHOST_SET_VRING_BASE, i, base);
	if (!rc)
		rc = vhost_vring_addr(v, i);
	if (!rc)
		rc = vhost_vring_fd(v, VHOST_SET_VRING_ERR, i, v->err_fd);
	if (!rc)
		rc = vhost_vring_call(v, i);
	/* From here on it may answer requests. */
	v->st->ring[i].is = VHOST_RING_RUNS;
	if (!rc)
		rc = vhost_vring_fd(v, VHOST_SET_VRING_KICK, i, v->kick_fd[i]);
	return rc ? err_sys(e, rc == -EINVAL ? -EPROTO : rc, "ring %u", i) : 0;
}

static bool vhost_is_ready(const struct vhost *v, unsigned i)
{
	return v->front.v.st->q[i].ready;
}

/* A back end with protocol features waits for it; then look at once, whatever was kicked before. */
static int vhost_let_run(struct vhost *v, struct err *e)
{
	bool enable = v->features & BIT(VHOST_F_PROTOCOL_FEATURES);
	int rc = 0;

	for (unsigned i = 0; i < v->conf.nqueues && !rc; i++) {
		if (!vhost_is_ready(v, i))
			continue;
		if (enable)
			rc = vhost_vring(v, VHOST_SET_VRING_ENABLE, i, 1);
		event_signal(v->kick_fd[i]);
	}
	return rc ? err_sys(e, rc, "SET_VRING_ENABLE") : 0;
}

static int vhost_give_features(struct vhost *v, struct err *e)
{
	uint64_t f = v->front.v.st->driver_features & v->features;
	int rc;

	f |= v->features & BIT(VHOST_F_PROTOCOL_FEATURES);
	rc = vlink_set_u64(&v->link, VHOST_SET_FEATURES, f);
	/* Some answer only when they know that the bit above was taken. */
	v->link.acks = vhost_speaks(v, VHOST_P_REPLY_ACK);
	return rc ? err_sys(e, rc, "SET_FEATURES") : 0;
}

int vhost_run(struct vhost *v, struct err *e)
{
	int rc = vhost_give_features(v, e);
	bool account;

	if (!rc)
		rc = vhost_give_memory(v, e);
	/* Whether the rings were run with one: what is new now knows nothing. */
	account = v->conf.inflight.size;
	if (!rc)
		rc = vhost_give_inflight(v, e);
	account = account && v->conf.inflight.size;
	if (!rc && vhost_speaks(v, VHOST_P_CONFIG))
		rc = vhost_write_config_again(v, e);
	for (unsigned i = 0; i < v->conf.nqueues && !rc; i++) {
		if (vhost_is_ready(v, i))
			rc = vhost_start_ring(v, i, account, e);
	}
	return rc ? rc : vhost_let_run(v, e);
}

static int vhost_stop_ring(struct vhost *v, unsigned i)
{
	struct vhost_vring_state s = {.index = i}, got = {0};
	int rc = vlink_send(&v->link, VHOST_GET_VRING_BASE, 0, &s, sizeof(s), NULL, 0);

	if (!rc)
		rc = vlink_reply(&v->link, VHOST_GET_VRING_BASE, &got, sizeof(got), sizeof(got),
				 NULL, NULL);
	if (!rc && (got.index != i || got.num > UINT16_MAX))
		rc = -EPROTO;
	if (rc)
		return rc;
	v->st->ring[i].base = (uint16_t)got.num;
	v->st->ring[i].is = VHOST_RING_STOPPED;
	return 0;
}

/* A ring that it is given later, with a doorbell that was rung meanwhile, is not enabled then: some
 * look into a ring before they have all of it (vhost-user-backend 0.17, and so virtiofsd 1.13). */
static int vhost_disable(struct vhost *v)
{
	int rc = 0;

	if (!(v->features & BIT(VHOST_F_PROTOCOL_FEATURES)))
		return 0;
	for (unsigned i = 0; i < v->conf.nqueues && !rc; i++) {
		if (v->st->ring[i].is == VHOST_RING_RUNS)
			rc = vhost_vring(v, VHOST_SET_VRING_ENABLE, i, 0);
	}
	return rc;
}

int vhost_halt(struct vhost *v, struct err *e)
{
	int rc = vhost_disable(v);

	if (rc)
		return err_sys(e, rc, "SET_VRING_ENABLE");
	for (unsigned i = 0; i < v->conf.nqueues && !rc; i++) {
		if (v->st->ring[i].is == VHOST_RING_RUNS)
			rc = vhost_stop_ring(v, i);
	}
	return rc ? err_sys(e, rc, "GET_VRING_BASE") : 0;
}
