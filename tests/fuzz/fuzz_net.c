/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A network card whose rings, buffers, commands and peer are the input: the code of the I/O thread,
 * turn by turn, in one thread, over a stream and over a packet socket in place of a TAP. Whatever
 * they say, nothing outside of guest memory is touched, every turn ends, the answers are counted.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/virtio_config.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <insula/base.h>

#include <devices/net/net.h>

#include "../unit/boardmem.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MEM_SIZE (16u << 20)
#define RINGS 0x1000u
#define QUEUE_BYTES 0x3000u
#define NQUEUES 3u
/* A chain of megabytes uses up the budget of a turn. */
#define MAX_TURNS (NQUEUES * VQ_MAX_NUM + 64u)

static void must(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "broken: %s\n", what);
	abort();
}

struct head {
	uint8_t stream, num_log2, turns, peer_frames;
	uint32_t features;
	uint16_t avail[NQUEUES]; /* avail.idx */
	uint16_t peer_len;       /* bytes of the input that the peer sends */
	uint16_t ring_len;       /* and of each of the three parts of each queue */
};

static struct guestmem gm;
static struct net net;
static struct helper helper;
static struct net_page page;
static uint8_t shadow[DP_SHADOW_SIZE];
static struct net_rx rx[1];
static struct net_tx tx[1];
static uint8_t in[NET_STREAM_IN], out[NET_STREAM_OUT];
static int offload_fails;

static int no_offload(struct net_backing *b, uint64_t features)
{
	(void)b;
	(void)features;
	return offload_fails ? -EINVAL : 0;
}

static void init_once(void)
{
	struct err e;
	int fd;

	if (gm.nregions)
		return;
	fd = shm_create("fuzz", MEM_SIZE, &e);
	must(fd >= 0 && board_gm_map(&gm, fd, MEM_SIZE, &e) == 0, "guest memory");
	log_setup("", LOG_LVL_ERROR);
	helper.event_fd = event_create();
	helper.irq_fd[0] = event_create();
	helper.nirqs = 1;
}

static const uint8_t *take(const uint8_t **p, size_t *left, size_t n)
{
	const uint8_t *at = *p;

	n = n < *left ? n : *left;
	*p += n;
	*left -= n;
	return at;
}

/* Descriptors, available ring and used ring of each queue from the input, one after the other. */
static void fill_rings(const struct head *h, const uint8_t **p, size_t *left)
{
	for (unsigned i = 0; i < NQUEUES; i++) {
		uint8_t *at = gm.region[0].host + RINGS + i * QUEUE_BYTES;
		struct vq_state *q = &page.virtio.q[i];

		for (unsigned part = 0; part < 3; part++) {
			size_t n = h->ring_len % 0x1000u < *left ? h->ring_len % 0x1000u : *left;

			memcpy(at + part * 0x1000u, take(p, left, n), n);
		}
		memcpy(at + 0x1000u + 2, &h->avail[i], 2);
		memset(at + 0x2000u, 0, 4);
		q->num = 1u << h->num_log2 % 9;
		q->desc = RINGS + i * QUEUE_BYTES;
		q->driver = q->desc + 0x1000u;
		q->device = q->desc + 0x2000u;
		q->ready = 1;
	}
	memcpy(gm.region[0].host + 0x20000u, *p, *left < 0x10000u ? *left : 0x10000u);
}

static void make_device(const struct head *h, int fd)
{
	static const uint32_t offloads = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_UFO;
	static struct net_backing_ops ops;

	memset(&net, 0, sizeof(net));
	net.conf = (struct msg_start_net){.head.mem = board_map(MEM_SIZE),
					  .kind = h->stream & 1 ? NET_STREAM : NET_TAP,
					  .npairs = 1,
					  .tun_offloads = h->stream & 1 ? 0 : offloads};
	net.conf.limit.rate = h->stream & 2 ? 1000 : 0;
	offload_fails = h->stream & 4;
	net.w.h = &helper;
	net.w.nlanes = net.nlanes = 1;
	net.w.lane->w = &net.w;
	net_lane_init(&net, 0);
	net.st = &page.net;
	net.rx = rx;
	net.tx = tx;
	net.nbackings = 1;
	ops = *net_backing_find(net.conf.kind);
	ops.offload = no_offload;
	net.backing[0] = (struct net_backing){.ops = &ops, .fd = fd, .in = in, .out = out};
	net.w.model = (struct virtio_model){.device_id = 1,
					    .features = net_features(&net.conf),
					    .nqueues = NQUEUES,
					    .config = &net.config,
					    .config_len = sizeof(net.config)};
	helper.port.shadow = shadow;
	helper.port.dev_state = &page;
	helper.port.resumed = true;
	front_init(&net.w.front, &helper, &gm, &net.w.model, &net.w);
}

static void peer_sends(const struct head *h, int fd, const uint8_t *p, size_t n)
{
	size_t frames = h->peer_frames % 16 + 1u, each = n / frames;

	for (size_t i = 0; i < frames && each; i++)
		(void)!send(fd, p + i * each, each, MSG_DONTWAIT);
}

static void serve(const struct head *h, bool resume)
{
	uint64_t features = net.w.front.v.st->driver_features;
	unsigned turns = 0;

	for (unsigned i = 0; i < NQUEUES; i++) {
		if (vq_start(&net.w.front.v.vq[i], &page.virtio.q[i], &gm, features, resume, NULL))
			net.w.front.v.vq[i].num = 0;
	}
	net_prepare(&net);
	atomic_store(&net.w.want, atomic_load(&net.w.want) | 1);
	if (!resume)
		atomic_store(&net.w.want, 1);
	while (net_turn(&net.lane[0]) && ++turns < MAX_TURNS)
		;
	must(turns < MAX_TURNS || net.backing[0].dead || h->stream & 2, "turns without an end");
	for (unsigned i = 0; i < NQUEUES; i++) {
		const struct virtqueue *q = &net.w.front.v.vq[i];

		must(q->batch == 0, "answers that were not published");
	}
	must(rx[0].nbuf <= VQ_MAX_NUM && rx[0].niov <= NET_RX_IOVS + VQ_MAX_NUM, "receive window");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct head h;
	size_t left, n;
	const uint8_t *p = data, *peer;
	int pair[2];

	init_once();
	if (size < sizeof(h))
		return 0;
	memcpy(&h, data, sizeof(h));
	p += sizeof(h);
	left = size - sizeof(h);
	n = h.peer_len < left ? h.peer_len : left;
	peer = take(&p, &left, n);
	must(madvise(gm.region[0].host, MEM_SIZE, MADV_REMOVE) == 0, "MADV_REMOVE");
	memset(&page, 0, sizeof(page));
	must(socketpair(AF_UNIX, (h.stream & 1 ? SOCK_STREAM : SOCK_SEQPACKET) | SOCK_NONBLOCK, 0,
			pair) == 0,
	     "socketpair");
	fill_rings(&h, &p, &left);
	make_device(&h, pair[0]);
	page.virtio.driver_features =
		(h.features | UINT64_C(1) << VIRTIO_F_VERSION_1) & net.w.model.features;
	page.virtio.driver_features |= (uint64_t)h.features & (UINT64_C(3) << 28);
	peer_sends(&h, pair[1], peer, n);
	serve(&h, false);
	/* And the next process, from what is left. */
	make_device(&h, pair[0]);
	peer_sends(&h, pair[1], peer, n);
	serve(&h, true);
	close(pair[0]);
	close(pair[1]);
	event_drain(helper.event_fd);
	event_drain(helper.irq_fd[0]);
	return 0;
}
