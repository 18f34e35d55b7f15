/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * virtio-net over a fake TAP (a packet socket pair) and over a stream: frames in both directions in
 * every layout of buffers, commands, limits, mistakes, and what a successor finds.
 */
#include <arpa/inet.h>
#include <check.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <insula/stats.h>

#include <devices/iov.h>
#include <devices/net/net.h>

#include "fakedrv.h"
#include "life.h"

#define MEM_SIZE (64u << 20)
#define MAX_PAIRS 4
#define NQUEUES (2 * MAX_PAIRS + 1)
#define QNUM 64
#define RINGS(i) (0x10000u + (i)*DRV_QUEUE_BYTES)
#define RX_BUFS 0x100000u /* receive buffers */
#define TX_BUFS 0x800000u
#define CTRL 0x1000000u
#define WAIT_MS 20000
#define TAP_OFFLOADS (TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN | TUN_F_UFO)

#define MRG DRV_F(VIRTIO_NET_F_MRG_RXBUF)
#define CTRL_FEATURES                                                \
	(DRV_F(VIRTIO_NET_F_CTRL_VQ) | DRV_F(VIRTIO_NET_F_CTRL_RX) | \
	 DRV_F(VIRTIO_NET_F_CTRL_MAC_ADDR))

static const uint8_t mac[6] = {0x02, 0x11, 0x22, 0x33, 0x44, 0x55};

static struct fakecore core;
static struct guestmem gm;
static struct drvq drv[NQUEUES];
static int mem_fd, kick[NQUEUES];
static int tap[MAX_PAIRS]; /* the far end: what a host would see */
static int near_end[MAX_PAIRS];
static int service[2]; /* with NET_METADATA: insula-metadata's end, and the card's */
static struct rig {    /* fresh for every start */
	struct helper h;
	struct net n;
} * rig;
static struct msg_start_net conf;
static unsigned nthreads;    /* 0: one for each pair */
static uint64_t tap_offload; /* of the last call */

/* ---- the device ---- */

static int fake_offload(struct net_backing *b, uint64_t features)
{
	(void)b;
	tap_offload = features;
	return features & DRV_F(VIRTIO_NET_F_GUEST_UFO) ? -EINVAL : 0;
}

static atomic_bool slow_tap; /* a turn takes long */
static atomic_bool busy_tap; /* queue 1 always has frames, which are no good, */
static atomic_bool hold_tap; /* or does not answer */
static atomic_bool is_held;
static atomic_uint busy_calls;

static ssize_t fake_recv(struct net_backing *b, struct iovec *iov, unsigned n)
{
	if (slow_tap)
		usleep(200);
	if (busy_tap && b == &rig->n.backing[1]) {
		atomic_fetch_add(&busy_calls, 1);
		while (hold_tap)
			is_held = true;
		return -EMSGSIZE;
	}
	return net_tap.recv(b, iov, n);
}

static struct net_backing_ops fake_tap;

static int open_rig(void)
{
	struct start_fds fds = drv_start_fds(&core, mem_fd);
	unsigned nq = 2 * conf.npairs + 1;
	const char *step;
	struct err e = {0};

	for (unsigned i = 0; i < nq; i++)
		start_add(&fds, START_KICK, dup(kick[i]));
	for (unsigned i = 0; i < conf.npairs; i++)
		start_add(&fds, START_OWN, dup(near_end[i]));
	if (conf.flags & NET_METADATA)
		start_add(&fds, START_OWN, dup(service[1]));
	conf.nthreads = (uint16_t)(nthreads ? nthreads : conf.npairs);
	rig = calloc(1, sizeof(*rig));
	if (!rig || net_check_conf(&conf, &e) ||
	    net_open(&rig->n, &rig->h, &conf, &fds, &step, &e)) {
		fprintf(stderr, "net_open: %s\n", e.text);
		return -1;
	}
	fake_tap = net_tap;
	fake_tap.offload = fake_offload;
	fake_tap.recv = fake_recv;
	for (unsigned i = 0; i < conf.npairs && conf.kind == NET_TAP; i++)
		rig->n.backing[i].ops = &fake_tap;
	return helper_attach(&rig->h, &rig->n.ops, &rig->n.w, &e);
}

static struct helper *opened(void)
{
	return open_rig() ? NULL : &rig->h;
}

static void start_device(void)
{
	life_begin(opened);
}

static struct msg_stats stop_device(void)
{
	return life_end();
}

static void make_pairs(int type)
{
	for (unsigned i = 0; i < MAX_PAIRS; i++) {
		int p[2], size = 1 << 20;

		ck_assert_int_eq(socketpair(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, p), 0);
		near_end[i] = p[0];
		tap[i] = p[1];
		for (unsigned k = 0; k < 2; k++)
			setsockopt(p[k], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	}
}

static void setup(void)
{
	fc_open(&core);
	mem_fd = drv_memory(&gm, MEM_SIZE);
	for (unsigned i = 0; i < NQUEUES; i++)
		kick[i] = event_create();
	make_pairs(SOCK_SEQPACKET);
	conf = (struct msg_start_net){.head.mem = board_map(MEM_SIZE),
				      .kind = NET_TAP,
				      .npairs = 1,
				      .tun_offloads = TAP_OFFLOADS,
				      .mtu = 1500};
	memcpy(conf.mac, mac, sizeof(mac));
	nthreads = 0;
	slow_tap = busy_tap = hold_tap = false;
}

static void setup_stream(void)
{
	setup();
	for (unsigned i = 0; i < MAX_PAIRS; i++) {
		close(near_end[i]);
		close(tap[i]);
	}
	make_pairs(SOCK_STREAM);
	conf.kind = NET_STREAM;
	conf.tun_offloads = 0;
	conf.mtu = 0;
}

static void teardown(void)
{
	for (unsigned i = 0; i < MAX_PAIRS; i++) {
		close(near_end[i]);
		close(tap[i]);
	}
	gm_unmap(&gm);
	fd_close(&mem_fd);
	for (unsigned i = 0; i < NQUEUES; i++)
		fd_close(&kick[i]);
	close(chan[0]);
	close(chan[1]);
	fc_close(&core);
}

/* Receive buffers: as many slots of memory as descriptors, each in use once. */
static unsigned nslots;
static gpa_t slots[QNUM];

static void fresh_slots(void)
{
	for (nslots = 0; nslots < QNUM; nslots++)
		slots[nslots] = RX_BUFS + nslots * 0x11000u;
}

static void bring_up(uint64_t features)
{
	unsigned nq = 2 * conf.npairs + 1;

	ck_assert(drv_negotiate(&core, features));
	for (unsigned i = 0; i < nq; i++) {
		drvq_init(&drv[i], &gm, RINGS(i), QNUM, features & DRV_F(VIRTIO_RING_F_EVENT_IDX),
			  kick[i]);
		ck_assert(drv_queue(&core, i, &drv[i]));
	}
	fresh_slots();
	drv_ok(&core);
	ck_assert_uint_eq(drv_status(&core), 0xf);
}

/* ---- bytes ---- */

static uint8_t pattern(uint64_t seed, size_t i)
{
	return (uint8_t)((seed * 0x9e3779b97f4a7c15u + i * 0x2545f4914f6cdd1du) >> 56);
}

static void fill(void *p, size_t n, uint64_t seed)
{
	for (size_t i = 0; i < n; i++)
		((uint8_t *)p)[i] = pattern(seed, i);
}

static bool filled(const void *p, size_t n, uint64_t seed)
{
	for (size_t i = 0; i < n; i++) {
		if (((const uint8_t *)p)[i] != pattern(seed, i))
			return false;
	}
	return true;
}

static void wait_fd(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	ck_assert_msg(poll(&p, 1, WAIT_MS) == 1, "nothing came");
}

static void get_one(struct drvq *q, uint16_t *head, uint32_t *len)
{
	void *cookie;

	while (!drvq_get(q, head, len, &cookie)) {
		wait_fd(core.irq_fd);
		event_drain(core.irq_fd);
	}
}

static void wait_status(uint32_t bit)
{
	for (unsigned i = 0; i < WAIT_MS && !(drv_status(&core) & bit); i++)
		usleep(1000);
	ck_assert(drv_status(&core) & bit);
}

/* ---- the pure parts ---- */

START_TEST(vectors)
{
	uint8_t a[3], b[1], c[5], got[9], all[9];
	struct iovec iov[] = {{a, 3}, {b, 1}, {c, 5}};

	for (unsigned i = 0; i < 9; i++)
		all[i] = (uint8_t)(i + 1);
	ck_assert_uint_eq(iov_put(iov, 3, 0, all, 9), 9);
	for (size_t off = 0; off <= 10; off++) {
		for (size_t len = 0; len <= 9; len++) {
			size_t want = off >= 9 ? 0 : len < 9 - off ? len : 9 - off;

			ck_assert_uint_eq(iov_get(iov, 3, off, got, len), want);
			ck_assert_mem_eq(got, all + (off < 9 ? off : 0), want);
		}
	}
	for (size_t skip = 0; skip <= 10; skip++) {
		struct iovec list[] = {{a, 3}, {b, 1}, {c, 5}}, *rest = list, part[3];
		size_t left = skip < 9 ? 9 - skip : 0, total, most = left < 3 ? left : 3;
		unsigned n = 3;

		iov_skip(&rest, &n, skip);
		ck_assert_uint_eq(iov_get(rest, n, 0, got, 9), left);
		ck_assert_mem_eq(got, all + 9 - left, left);
		ck_assert(n == 0 || rest[0].iov_len);
		n = iov_cut(part, 3, iov, 3, skip, 3, &total);
		ck_assert_uint_eq(total, most);
		ck_assert_uint_eq(iov_get(part, n, 0, got, 9), most);
		ck_assert_mem_eq(got, all + 9 - left, most);
		for (unsigned i = 0; i < n; i++)
			ck_assert_uint_gt(part[i].iov_len, 0);
	}
}
END_TEST

#define TX_ALL                                                      \
	(DRV_F(VIRTIO_NET_F_CSUM) | DRV_F(VIRTIO_NET_F_HOST_TSO4) | \
	 DRV_F(VIRTIO_NET_F_HOST_TSO6) | DRV_F(VIRTIO_NET_F_HOST_UFO))

START_TEST(headers_from_the_guest)
{
	static const struct {
		struct virtio_net_hdr_v1 h;
		uint64_t features;
		size_t len;
		bool ok;
	} t[] = {
		{{0}, 0, 14, true},
		{{0}, 0, 13, false},
		{{0}, 0, NET_MAX_FRAME, true},
		{{0}, 0, NET_MAX_FRAME + 1, false},
		{{0}, 0, (size_t)UINT32_MAX, false},
		{{.flags = 1, .csum_start = 34, .csum_offset = 16}, TX_ALL, 60, true},
		{{.flags = 1, .csum_start = 34, .csum_offset = 16}, 0, 60, false},
		{{.flags = 1, .csum_start = 58, .csum_offset = 0}, TX_ALL, 60, true},
		{{.flags = 1, .csum_start = 59, .csum_offset = 0}, TX_ALL, 60, false},
		{{.flags = 1, .csum_start = 65535, .csum_offset = 65535}, TX_ALL, 60, false},
		{{.flags = 1, .gso_type = 1, .gso_size = 1448, .csum_start = 34, .csum_offset = 16},
		 TX_ALL,
		 9000,
		 true},
		{{.flags = 1, .gso_type = 1, .gso_size = 0, .csum_start = 34, .csum_offset = 16},
		 TX_ALL,
		 9000,
		 false},
		{{.flags = 0, .gso_type = 1, .gso_size = 1448}, TX_ALL, 9000, false},
		{{.flags = 1,
		  .gso_type = 0x81,
		  .gso_size = 1448,
		  .csum_start = 34,
		  .csum_offset = 16},
		 TX_ALL,
		 9000,
		 false},
		{{.flags = 1,
		  .gso_type = 0x81,
		  .gso_size = 1448,
		  .csum_start = 34,
		  .csum_offset = 16},
		 TX_ALL | DRV_F(VIRTIO_NET_F_HOST_ECN),
		 9000,
		 true},
		{{.flags = 1, .gso_type = 4, .gso_size = 1448, .csum_start = 34, .csum_offset = 16},
		 TX_ALL & ~DRV_F(VIRTIO_NET_F_HOST_TSO6),
		 9000,
		 false},
		{{.flags = 1, .gso_type = 2, .gso_size = 1448, .csum_start = 34, .csum_offset = 16},
		 TX_ALL,
		 9000,
		 false},
		{{.flags = 1, .gso_type = 5, .gso_size = 1448, .csum_start = 34, .csum_offset = 16},
		 TX_ALL,
		 9000,
		 false},
		{{.flags = 1, .gso_type = 0x7f, .gso_size = 1, .csum_start = 34, .csum_offset = 16},
		 ~0ull,
		 9000,
		 false},
		{{.flags = 1, .gso_type = 0x80, .gso_size = 1, .csum_start = 34, .csum_offset = 16},
		 ~0ull,
		 9000,
		 false},
	};

	for (size_t i = 0; i < ARRAY_LEN(t); i++) {
		struct virtio_net_hdr_v1 h = t[i].h;

		ck_assert_msg(net_tx_header(t[i].features, &h, t[i].len) == t[i].ok, "header %zu",
			      i);
	}
	/* What means nothing is not passed on. */
	struct virtio_net_hdr_v1 h;
	memset(&h, 0xff, sizeof(h));
	h.gso_type = 0;
	h.flags = 0xfe;
	ck_assert(net_tx_header(0, &h, 60));
	ck_assert_mem_eq(&h, &(struct virtio_net_hdr_v1){0}, sizeof(h));
	h = (struct virtio_net_hdr_v1){.flags = 1,
				       .gso_type = 1,
				       .gso_size = 100,
				       .hdr_len = 65535,
				       .csum_start = 34,
				       .csum_offset = 16};
	ck_assert(net_tx_header(TX_ALL, &h, 100));
	ck_assert_uint_eq(h.hdr_len, 100);
}
END_TEST

START_TEST(headers_for_the_guest)
{
	static const struct {
		struct virtio_net_hdr_v1 h;
		uint64_t offloads;
		bool ok;
	} t[] = {
		{{0}, 0, true},
		{{.flags = 1}, 0, false},
		{{.flags = 2}, 0, true},
		{{.flags = 1}, DRV_F(VIRTIO_NET_F_GUEST_CSUM), true},
		{{.flags = 1, .gso_type = 1}, DRV_F(VIRTIO_NET_F_GUEST_CSUM), false},
		{{.flags = 1, .gso_type = 1},
		 DRV_F(VIRTIO_NET_F_GUEST_CSUM) | DRV_F(VIRTIO_NET_F_GUEST_TSO4),
		 true},
		{{.flags = 1, .gso_type = 0x81},
		 DRV_F(VIRTIO_NET_F_GUEST_CSUM) | DRV_F(VIRTIO_NET_F_GUEST_TSO4),
		 false},
		{{.gso_type = 4}, DRV_F(VIRTIO_NET_F_GUEST_TSO4), false},
		{{.gso_type = 3}, DRV_F(VIRTIO_NET_F_GUEST_UFO), true},
		{{.gso_type = 5}, DRV_F(VIRTIO_NET_F_GUEST_USO4), true},
		{{.gso_type = 2}, ~0ull, false},
		{{.gso_type = 0x7f}, ~0ull, false},
		{{.gso_type = 0x80}, ~0ull, false},
	};

	for (size_t i = 0; i < ARRAY_LEN(t); i++)
		ck_assert_msg(net_rx_header(t[i].offloads, &t[i].h) == t[i].ok, "header %zu", i);
}
END_TEST

START_TEST(offload_bits)
{
	ck_assert_uint_eq(net_tap_features(0), 0);
	ck_assert_uint_eq(net_tap_features(TUN_F_TSO4 | TUN_F_UFO), 0);
	ck_assert_uint_eq(net_tap_features(TUN_F_CSUM),
			  DRV_F(VIRTIO_NET_F_CSUM) | DRV_F(VIRTIO_NET_F_GUEST_CSUM));
	for (uint32_t tun = 0; tun < 0x80; tun++) {
		uint64_t f = net_tap_features(tun);

		/* What is offered can be taken, and never more than the TAP has. */
		ck_assert_uint_eq(net_tap_offloads(f) & ~tun, 0);
		ck_assert_uint_eq(net_tap_offloads(f & ~DRV_F(VIRTIO_NET_F_GUEST_CSUM)), 0);
	}
	ck_assert_uint_eq(net_tap_offloads(net_tap_features(TAP_OFFLOADS)), TAP_OFFLOADS);
	ck_assert_uint_eq(
		net_tap_offloads(DRV_F(VIRTIO_NET_F_GUEST_CSUM) | DRV_F(VIRTIO_NET_F_GUEST_ECN)),
		TUN_F_CSUM);
}
END_TEST

/* The list of the jail has room for the largest card, on PCI. */
START_TEST(rules_of_the_largest_card)
{
	static struct helper h;
	static struct net n;
	struct rule_list l = {.n = 0};

	n.w.nlanes = n.nlanes = NET_MAX_PAIRS;
	n.nbackings = NET_MAX_BACKINGS;
	n.backing[NET_MAX_PAIRS].ops = &net_metadata;
	n.w.nkicks = 2 * NET_MAX_PAIRS + 1;
	h.nirqs = n.w.nkicks + 1;
	for (unsigned i = 0; i < NET_MAX_PAIRS; i++)
		n.backing[i].ops = &net_tap;
	helper_rules(&h, &l);
	net_rules(&n, &l);
	ck_assert_uint_lt(l.n, ARRAY_LEN(l.rule));
}
END_TEST

START_TEST(messages_refused)
{
	struct msg_start_net good = conf, m[15];
	struct err e;

	good.nthreads = 1;
	for (size_t i = 0; i < ARRAY_LEN(m); i++)
		m[i] = good;
	m[0].kind = 0;
	m[1].kind = 3;
	m[2].npairs = 0;
	m[3].npairs = NET_MAX_PAIRS + 1;
	m[4].kind = NET_STREAM;
	m[5].kind = NET_STREAM;
	m[5].tun_offloads = 0;
	m[5].npairs = 2;
	m[6].mtu = 67;
	m[7].mtu = 65536;
	m[8].mac[0] = 1;
	m[9].limit.rate = LIMIT_MOST + 1;
	m[10].limit.ops = UINT64_MAX;
	m[11].kind = UINT32_MAX;
	m[12].flags = NET_AWAY | NET_METADATA; /* of a TAP */
	m[13].nthreads = 0;
	m[14].nthreads = 2; /* for one pair */
	ck_assert_int_eq(net_check_conf(&good, &e), 0);
	for (size_t i = 0; i < ARRAY_LEN(m); i++) {
		ck_assert_msg(net_check_conf(&m[i], &e) == -EINVAL, "message %zu", i);
		ck_assert(e.text[0]);
	}
}
END_TEST

/* ---- what the driver sees ---- */

START_TEST(configuration)
{
	struct virtio_net_config *c = (void *)(core.page + VIRTIO_MMIO_CONFIG);

	conf.npairs = 2;
	start_device();
	ck_assert_uint_eq(fc_shadow32(&core, VIRTIO_MMIO_DEVICE_ID), 1);
	ck_assert_mem_eq(c->mac, mac, 6);
	ck_assert_uint_eq(c->status, VIRTIO_NET_S_LINK_UP);
	ck_assert_uint_eq(c->max_virtqueue_pairs, 2);
	ck_assert_uint_eq(c->mtu, 1500);
	ck_assert_uint_eq(drv_features(&core),
			  DRV_COMMON | MRG | CTRL_FEATURES | DRV_F(VIRTIO_NET_F_MAC) |
				  DRV_F(VIRTIO_NET_F_STATUS) | DRV_F(VIRTIO_NET_F_MTU) |
				  DRV_F(VIRTIO_NET_F_MQ) | DRV_F(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS) |
				  net_tap_features(TAP_OFFLOADS));
	stop_device();
}
END_TEST

START_TEST(a_stream_offers_no_offloads)
{
	start_device();
	ck_assert_uint_eq(drv_features(&core), DRV_COMMON | MRG | CTRL_FEATURES |
						       DRV_F(VIRTIO_NET_F_MAC) |
						       DRV_F(VIRTIO_NET_F_STATUS));
	stop_device();
}
END_TEST

/* ---- the guest's side of frames ---- */

static uint8_t *mem(gpa_t at)
{
	return gm_ptr(&gm, at, 1);
}

/* Offer n receive buffers of `len` bytes each. */
static void offer(struct drvq *q, unsigned n, uint32_t len)
{
	uint16_t old = q->avail_idx;

	ck_assert_uint_le(n, nslots);
	while (n--) {
		struct vring_desc d = drv_desc(slots[--nslots], len, true);

		memset(mem(d.addr), 0xee, len);
		drvq_add(q, &d, 1, mem(d.addr));
	}
	drvq_kick(q, old);
}

static void give_slot(const void *at)
{
	slots[nslots++] = (gpa_t)((const uint8_t *)at - gm.region[0].host);
}

/* Take one frame from as many buffers as it says; its length without the header. */
static size_t take_frame(struct drvq *q, uint8_t *frame, struct virtio_net_hdr_v1 *h)
{
	size_t done = 0;
	uint16_t head, left = 1;
	uint32_t len;
	void *at;

	for (bool first = true; left; left--, first = false) {
		unsigned skip = first ? NET_HDR_LEN : 0;

		while (!drvq_get(q, &head, &len, &at)) {
			wait_fd(core.irq_fd);
			event_drain(core.irq_fd);
		}
		if (first) {
			memcpy(h, at, NET_HDR_LEN);
			left = h->num_buffers;
			ck_assert_uint_ge(left, 1);
		}
		memcpy(frame + done, (uint8_t *)at + skip, len - skip);
		done += len - skip;
		give_slot(at);
	}
	return done;
}

/* A frame from the host, behind a header. */
static void host_sends(int fd, const struct virtio_net_hdr_v1 *h, size_t len, uint64_t seed)
{
	uint8_t *p = malloc(NET_HDR_LEN + len);

	memcpy(p, h, NET_HDR_LEN);
	fill(p + NET_HDR_LEN, len, seed);
	ck_assert_int_eq(send(fd, p, NET_HDR_LEN + len, 0), (ssize_t)(NET_HDR_LEN + len));
	free(p);
}

/* A frame from the guest, cut into segments at the given lengths (0 ends; the rest is the last). */
static void guest_sends(struct drvq *q, const struct virtio_net_hdr_v1 *h, size_t len,
			uint64_t seed, const uint32_t *cuts)
{
	struct vring_desc d[8];
	uint32_t total = NET_HDR_LEN + (uint32_t)len, at = 0;
	uint16_t old = q->avail_idx;
	unsigned n = 0;

	memcpy(mem(TX_BUFS), h, NET_HDR_LEN);
	fill(mem(TX_BUFS + NET_HDR_LEN), len, seed);
	for (; cuts && *cuts && at + *cuts < total; cuts++) {
		d[n++] = drv_desc(TX_BUFS + at, *cuts, false);
		at += *cuts;
	}
	d[n++] = drv_desc(TX_BUFS + at, total - at, false);
	drvq_add(q, d, n, NULL);
	drvq_kick(q, old);
}

static void expect_sent(struct drvq *q)
{
	uint16_t head;
	uint32_t len;

	get_one(q, &head, &len);
	ck_assert_uint_eq(len, 0);
}

static void host_takes(int fd, struct virtio_net_hdr_v1 *h, size_t len, uint64_t seed)
{
	static uint8_t p[NET_MAX_PACKET + 1];

	wait_fd(fd);
	ck_assert_int_eq(recv(fd, p, sizeof(p), 0), (ssize_t)(NET_HDR_LEN + len));
	memcpy(h, p, NET_HDR_LEN);
	ck_assert(filled(p + NET_HDR_LEN, len, seed));
}

static const struct virtio_net_hdr_v1 plain;

START_TEST(frames_out)
{
	static const uint32_t cuts[][6] = {{0},        {12, 0},    {1, 0},
					   {11, 1, 0}, {13, 1, 0}, {5, 5, 5, 5, 5, 0}};
	static const size_t lens[] = {14, 60, 1514, 9000, NET_MAX_FRAME};
	struct virtio_net_hdr_v1 h;
	struct msg_stats s;

	start_device();
	bring_up(DRV_COMMON | MRG | TX_ALL);
	for (size_t c = 0; c < ARRAY_LEN(cuts); c++) {
		for (size_t l = 0; l < ARRAY_LEN(lens); l++) {
			guest_sends(&drv[1], &plain, lens[l], c * 10 + l, cuts[c]);
			host_takes(tap[0], &h, lens[l], c * 10 + l);
			ck_assert_mem_eq(&h, &plain, sizeof(h));
			expect_sent(&drv[1]);
		}
	}
	/* A header that counts arrives as it was. */
	struct virtio_net_hdr_v1 tso = {.flags = 1,
					.gso_type = 1,
					.hdr_len = 54,
					.gso_size = 1448,
					.csum_start = 34,
					.csum_offset = 16};
	guest_sends(&drv[1], &tso, 20000, 7, NULL);
	host_takes(tap[0], &h, 20000, 7);
	ck_assert_mem_eq(&h, &tso, sizeof(h));
	expect_sent(&drv[1]);
	/* What may not be sent is given back all the same, and nothing arrives. */
	tso.gso_type = 4 | 0x80;
	guest_sends(&drv[1], &tso, 20000, 8, NULL);
	expect_sent(&drv[1]);
	guest_sends(&drv[1], &plain, 13, 8, NULL);
	expect_sent(&drv[1]);
	ck_assert_int_eq(recv(tap[0], &h, sizeof(h), 0), -1);
	s = stop_device();
	ck_assert_uint_eq(s.n[STAT_NET_TX_PACKETS], ARRAY_LEN(cuts) * ARRAY_LEN(lens) + 1);
	ck_assert_uint_eq(s.n[STAT_NET_TX_DROPPED], 2);
}
END_TEST

/* Buffers of this size, frames of that: mergeable. */
START_TEST(frames_in)
{
	static const uint32_t sizes[] = {12, 100, 1526, 4096, 65565};
	static const size_t lens[] = {14, 60, 88, 89, 1514, 1515, 5600};
	static uint8_t frame[NET_MAX_PACKET];
	struct virtio_net_hdr_v1 h;

	start_device();
	for (size_t s = 0; s < ARRAY_LEN(sizes); s++) {
		bring_up(DRV_COMMON | MRG | net_tap_features(TAP_OFFLOADS & ~TUN_F_UFO));
		offer(&drv[0], QNUM, sizes[s]);
		for (size_t l = 0; l < ARRAY_LEN(lens); l++) {
			size_t n = (NET_HDR_LEN + lens[l] + sizes[s] - 1) / sizes[s];

			if (n > QNUM)
				continue;
			host_sends(tap[0], &plain, lens[l], s * 10 + l);
			ck_assert_uint_eq(take_frame(&drv[0], frame, &h), lens[l]);
			ck_assert_uint_eq(h.num_buffers, n);
			ck_assert(filled(frame, lens[l], s * 10 + l));
			offer(&drv[0], (unsigned)n, sizes[s]);
		}
		drv_reg(&core, VIRTIO_MMIO_STATUS, 0);
	}
	stop_device();
}
END_TEST

/* A frame comes when there are fewer buffers than it needs: it waits for them, and is not lost. */
START_TEST(frame_waits_for_buffers)
{
	static uint8_t frame[NET_MAX_PACKET];
	struct virtio_net_hdr_v1 h;
	uint16_t head;
	uint32_t len;
	void *cookie;
	struct msg_stats s;

	start_device();
	bring_up(DRV_COMMON | MRG);
	offer(&drv[0], 2, 1000);
	host_sends(tap[0], &plain, 4500, 1);
	host_sends(tap[0], &plain, 100, 2);
	usleep(20000);
	ck_assert(!drvq_get(&drv[0], &head, &len, &cookie));
	offer(&drv[0], 1, 1000);
	usleep(20000);
	ck_assert(!drvq_get(&drv[0], &head, &len, &cookie));
	offer(&drv[0], 3, 1000);
	ck_assert_uint_eq(take_frame(&drv[0], frame, &h), 4500);
	ck_assert_uint_eq(h.num_buffers, 5);
	ck_assert(filled(frame, 4500, 1));
	ck_assert_uint_eq(take_frame(&drv[0], frame, &h), 100);
	ck_assert(filled(frame, 100, 2));
	/* One that all buffers of the queue together cannot hold is lost, the next one is not. */
	bring_up(DRV_COMMON | MRG);
	offer(&drv[0], QNUM, 20);
	host_sends(tap[0], &plain, 4500, 3);
	host_sends(tap[0], &plain, 100, 4);
	ck_assert_uint_eq(take_frame(&drv[0], frame, &h), 100);
	ck_assert(filled(frame, 100, 4));
	s = stop_device();
	ck_assert_uint_eq(s.n[STAT_NET_RX_SPILLED], 2);
	ck_assert_uint_eq(s.n[STAT_NET_RX_DROPPED], 1);
}
END_TEST

START_TEST(buffers_that_are_not_merged)
{
	static uint8_t frame[NET_MAX_PACKET];
	struct virtio_net_hdr_v1 h;
	struct msg_stats s;

	start_device();
	bring_up(DRV_COMMON);
	offer(&drv[0], 4, 1526);
	host_sends(tap[0], &plain, 1514, 1);
	ck_assert_uint_eq(take_frame(&drv[0], frame, &h), 1514);
	ck_assert_uint_eq(h.num_buffers, 1);
	host_sends(tap[0], &plain, 1515, 2);
	host_sends(tap[0], &plain, 70, 3);
	ck_assert_uint_eq(take_frame(&drv[0], frame, &h), 70);
	ck_assert(filled(frame, 70, 3));
	/* What was not negotiated does not reach the driver. */
	host_sends(tap[0], &(struct virtio_net_hdr_v1){.flags = 1}, 70, 4);
	host_sends(tap[0], &(struct virtio_net_hdr_v1){.gso_type = 1, .gso_size = 9}, 70, 5);
	host_sends(tap[0], &plain, 71, 6);
	ck_assert_uint_eq(take_frame(&drv[0], frame, &h), 71);
	s = stop_device();
	ck_assert_uint_eq(s.n[STAT_NET_RX_DROPPED], 3);
	ck_assert_uint_eq(s.n[STAT_NET_RX_PACKETS], 3);
}
END_TEST

/* Both directions at once, sizes at random, more frames than buffers: all arrive, in order. */
static uint64_t rnd_state;
static uint64_t rnd(uint64_t below)
{
	rnd_state = rnd_state * 6364136223846793005u + 1442695040888963407u;
	return (rnd_state >> 33) % below;
}

#define TRAFFIC 3000
START_TEST(traffic)
{
	static uint8_t frame[NET_MAX_PACKET];
	size_t in_len[TRAFFIC], out_len[TRAFFIC];
	unsigned in_sent = 0, in_got = 0, out_sent = 0, out_got = 0, out_done = 0;
	struct virtio_net_hdr_v1 h;

	rnd_state = 42;
	start_device();
	bring_up(_i ? DRV_COMMON | MRG : (DRV_COMMON & ~DRV_F(VIRTIO_RING_F_EVENT_IDX)) | MRG);
	while (in_got < TRAFFIC || out_got < TRAFFIC) {
		static uint8_t p[NET_MAX_PACKET];
		ssize_t n;

		while (drv[0].nfree && rnd(8)) {
			offer(&drv[0], 1, 1526);
		}
		if (in_sent < TRAFFIC) {
			size_t len = 14 + rnd(rnd(4) ? 200 : 3000);

			memcpy(p, &plain, NET_HDR_LEN);
			fill(p + NET_HDR_LEN, len, in_sent);
			if (send(tap[0], p, NET_HDR_LEN + len, MSG_DONTWAIT) > 0)
				in_len[in_sent++] = len;
		}
		/* One at a time: all frames use the same memory. */
		if (out_sent < TRAFFIC && out_done == out_sent) {
			out_len[out_sent] = 14 + rnd(2000);
			guest_sends(&drv[1], &plain, out_len[out_sent], out_sent, NULL);
			out_sent++;
		}
		n = recv(tap[0], p, sizeof(p), MSG_DONTWAIT);
		if (n > 0) {
			ck_assert_int_eq(n, (ssize_t)(NET_HDR_LEN + out_len[out_got]));
			ck_assert(filled(p + NET_HDR_LEN, out_len[out_got], out_got));
			out_got++;
		}
		uint16_t head;
		uint32_t len;
		void *cookie;
		if (drvq_get(&drv[1], &head, &len, &cookie))
			out_done++;
		if (drv_load16(drv[0].used + 2) != drv[0].used_idx) {
			ck_assert_uint_eq(take_frame(&drv[0], frame, &h), in_len[in_got]);
			ck_assert(filled(frame, in_len[in_got], in_got));
			in_got++;
		}
	}
	stop_device();
}
END_TEST

/* A side that only floods does not keep the other from its turn: bounded work, both in each. */
START_TEST(neither_starves)
{
	static uint8_t frame[NET_MAX_PACKET];
	struct virtio_net_hdr_v1 h;
	unsigned out = 0;

	start_device();
	bring_up(DRV_COMMON | MRG);
	offer(&drv[0], QNUM, 1526);
	for (unsigned round = 0; round < 200; round++) {
		uint16_t head;
		uint32_t len;
		void *cookie;

		while (drv[1].nfree > 1)
			guest_sends(&drv[1], &plain, 100, 1, NULL);
		host_sends(tap[0], &plain, 100, round);
		ck_assert_uint_eq(take_frame(&drv[0], frame, &h), 100);
		offer(&drv[0], 1, 1526);
		while (drvq_get(&drv[1], &head, &len, &cookie))
			out++;
		while (recv(tap[0], frame, sizeof(frame), MSG_DONTWAIT) > 0)
			;
	}
	ck_assert_uint_ge(out, 200);
	stop_device();
}
END_TEST

/* ---- commands ---- */

static uint8_t command(unsigned q, uint8_t class, uint8_t cmd, const void *data, size_t len)
{
	struct vring_desc d[3] = {drv_desc(CTRL, 2, false),
				  drv_desc(CTRL + 16, (uint32_t)len, false),
				  drv_desc(CTRL + 8, 1, true)};
	uint8_t *p = mem(CTRL);
	uint16_t old = drv[q].avail_idx, head;
	uint32_t used;

	p[0] = class;
	p[1] = cmd;
	p[8] = 0xee;
	if (len)
		memcpy(p + 16, data, len);
	else
		d[1] = d[2];
	drvq_add(&drv[q], d, len ? 3 : 2, NULL);
	drvq_kick(&drv[q], old);
	get_one(&drv[q], &head, &used);
	ck_assert_uint_eq(used, 1);
	return p[8];
}

#define RX VIRTIO_NET_CTRL_RX
#define MAC VIRTIO_NET_CTRL_MAC
START_TEST(commands)
{
	struct virtio_net_config *c = (void *)(core.page + VIRTIO_MMIO_CONFIG);
	static const uint8_t other[6] = {0x02, 9, 8, 7, 6, 5}, multi[6] = {1, 9, 8, 7, 6, 5};
	uint8_t tables[4 + 12 + 4 + 6] = {2};
	uint8_t big[NET_MAX_COMMAND + 10] = {0};
	uint16_t pairs = 1;
	uint64_t off;

	start_device();
	bring_up(DRV_COMMON | MRG | CTRL_FEATURES | net_tap_features(TAP_OFFLOADS & ~TUN_F_UFO) |
		 DRV_F(VIRTIO_NET_F_GUEST_UFO) | DRV_F(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS));
	ck_assert_uint_eq(command(2, RX, 0, "\1", 1), VIRTIO_NET_OK);
	ck_assert_uint_eq(command(2, RX, 1, "\1", 1), VIRTIO_NET_OK);
	ck_assert_uint_eq(command(2, RX, 1, "\0", 1), VIRTIO_NET_OK);
	ck_assert_uint_eq(rig->n.st->promisc, 1);
	ck_assert_uint_eq(rig->n.st->allmulti, 0);
	ck_assert_uint_eq(command(2, RX, 0, "\2", 1), VIRTIO_NET_ERR);
	ck_assert_uint_eq(command(2, RX, 0, "\1\1", 2), VIRTIO_NET_ERR);
	ck_assert_uint_eq(command(2, RX, 0, NULL, 0), VIRTIO_NET_ERR);
	ck_assert_uint_eq(command(2, RX, 2, "\1", 1), VIRTIO_NET_ERR); /* not negotiated */
	ck_assert_uint_eq(command(2, 77, 77, "\1", 1), VIRTIO_NET_ERR);
	/* tables */
	tables[16] = 1;
	ck_assert_uint_eq(command(2, MAC, 0, tables, sizeof(tables)), VIRTIO_NET_OK);
	for (size_t len = 1; len < sizeof(tables); len++)
		ck_assert_uint_eq(command(2, MAC, 0, tables, len), VIRTIO_NET_ERR);
	memset(tables, 0xff, 4);
	ck_assert_uint_eq(command(2, MAC, 0, tables, sizeof(tables)), VIRTIO_NET_ERR);
	ck_assert_uint_eq(command(2, MAC, 0, big, 8), VIRTIO_NET_OK);
	ck_assert_uint_eq(command(2, MAC, 0, big, sizeof(big)), VIRTIO_NET_ERR);
	/* the address, which a reset takes back */
	ck_assert_uint_eq(command(2, MAC, 1, multi, 6), VIRTIO_NET_ERR);
	ck_assert_uint_eq(command(2, MAC, 1, other, 5), VIRTIO_NET_ERR);
	ck_assert_uint_eq(command(2, MAC, 1, other, 6), VIRTIO_NET_OK);
	for (unsigned i = 0; i < WAIT_MS && memcmp(c->mac, other, 6); i++)
		usleep(1000);
	ck_assert_mem_eq(c->mac, other, 6);
	/* pairs: MQ was not negotiated */
	ck_assert_uint_eq(command(2, VIRTIO_NET_CTRL_MQ, 0, &pairs, 2), VIRTIO_NET_ERR);
	/* offloads; the fake TAP refuses UFO */
	off = DRV_F(VIRTIO_NET_F_GUEST_CSUM);
	ck_assert_uint_eq(command(2, VIRTIO_NET_CTRL_GUEST_OFFLOADS, 0, &off, 8), VIRTIO_NET_OK);
	ck_assert_uint_eq(tap_offload, off);
	ck_assert_uint_eq(command(2, VIRTIO_NET_CTRL_GUEST_OFFLOADS, 0, &off, 4), VIRTIO_NET_ERR);
	off |= DRV_F(VIRTIO_NET_F_GUEST_UFO);
	ck_assert_uint_eq(command(2, VIRTIO_NET_CTRL_GUEST_OFFLOADS, 0, &off, 8), VIRTIO_NET_ERR);
	off = DRV_F(VIRTIO_NET_F_HOST_TSO4);
	ck_assert_uint_eq(command(2, VIRTIO_NET_CTRL_GUEST_OFFLOADS, 0, &off, 8), VIRTIO_NET_ERR);
	off = ~0ull;
	ck_assert_uint_eq(command(2, VIRTIO_NET_CTRL_GUEST_OFFLOADS, 0, &off, 8), VIRTIO_NET_ERR);
	drv_reg(&core, VIRTIO_MMIO_STATUS, 0);
	ck_assert_mem_eq(c->mac, mac, 6);
	ck_assert_uint_eq(rig->n.st->promisc, 0);
	stop_device();
}
END_TEST

/* Two pairs: the control queue is behind both if MQ was negotiated, behind the first if not. */
START_TEST(several_pairs)
{
	static uint8_t frame[NET_MAX_PACKET];
	struct virtio_net_hdr_v1 h;
	uint16_t pairs;

	conf.npairs = 2;
	start_device();
	bring_up(DRV_COMMON | MRG | CTRL_FEATURES | DRV_F(VIRTIO_NET_F_MQ));
	offer(&drv[0], 8, 1526);
	offer(&drv[2], 8, 1526);
	/* Until the driver asks for more, what comes by the second TAP queue goes to the first
	 * pair. */
	host_sends(tap[1], &plain, 100, 1);
	ck_assert_uint_eq(take_frame(&drv[0], frame, &h), 100);
	for (unsigned i = 0; i < 4; i++) {
		static const uint16_t wrong[] = {0, 3, 0x8000, 0xffff};
		ck_assert_uint_eq(command(4, VIRTIO_NET_CTRL_MQ, 0, &wrong[i], 2), VIRTIO_NET_ERR);
	}
	pairs = 2;
	ck_assert_uint_eq(command(4, VIRTIO_NET_CTRL_MQ, 0, &pairs, 2), VIRTIO_NET_OK);
	host_sends(tap[1], &plain, 101, 2);
	ck_assert_uint_eq(take_frame(&drv[2], frame, &h), 101);
	host_sends(tap[0], &plain, 102, 3);
	ck_assert_uint_eq(take_frame(&drv[0], frame, &h), 102);
	guest_sends(&drv[3], &plain, 103, 4, NULL);
	host_takes(tap[1], &h, 103, 4);
	expect_sent(&drv[3]);

	bring_up(DRV_COMMON | MRG | CTRL_FEATURES);
	ck_assert_uint_eq(command(2, RX, 0, "\1", 1), VIRTIO_NET_OK);
	offer(&drv[0], 8, 1526);
	host_sends(tap[1], &plain, 104, 5);
	ck_assert_uint_eq(take_frame(&drv[0], frame, &h), 104);
	stop_device();
}
END_TEST

/* ---- pairs side by side ---- */

#define PAIR_RX(p) (RX_BUFS + (p)*0x100000u)
#define PAIR_TX(p) (TX_BUFS + (p)*0x100000u)
#define PAIR_FRAMES 400u
#define PAIR_LEN 900u

static void offer_at(struct drvq *q, gpa_t at)
{
	struct vring_desc d = drv_desc(at, 1526, true);
	uint16_t old = q->avail_idx;

	drvq_add(q, &d, 1, mem(at));
	drvq_kick(q, old);
}

static const char *pair_out(unsigned p, unsigned k)
{
	gpa_t at = PAIR_TX(p) + k % QNUM * 0x1000u;
	struct vring_desc d = drv_desc(at, NET_HDR_LEN + PAIR_LEN, false);
	struct drvq *q = &drv[2 * p + 1];
	uint16_t old = q->avail_idx, head;
	uint32_t len;
	void *cookie;
	uint64_t until = clock_ns() + WAIT_MS * 1000000ull;

	while (!q->nfree) {
		if (!drvq_get(q, &head, &len, &cookie))
			usleep(50);
		if (clock_ns() > until)
			return "nothing is given back";
	}
	memset(mem(at), 0, NET_HDR_LEN);
	fill(mem(at) + NET_HDR_LEN, PAIR_LEN, p * 10000 + k);
	drvq_add(q, &d, 1, NULL);
	drvq_kick(q, old);
	return NULL;
}

/* What the guest has sent, by the host's end of the same pair. */
static const char *pair_takes(unsigned p, unsigned *seen)
{
	uint8_t got[NET_HDR_LEN + PAIR_LEN + 1];

	while (recv(tap[p], got, sizeof(got), MSG_DONTWAIT) > 0) {
		if (!filled(got + NET_HDR_LEN, PAIR_LEN, p * 10000 + *seen))
			return "a frame from the guest is not the next one";
		(*seen)++;
	}
	return NULL;
}

static const char *pair_in(unsigned p, unsigned *seen)
{
	struct drvq *q = &drv[2 * p];
	uint16_t head;
	uint32_t len;
	void *at;

	while (drvq_get(q, &head, &len, &at)) {
		if (len != NET_HDR_LEN + PAIR_LEN ||
		    !filled((uint8_t *)at + NET_HDR_LEN, PAIR_LEN, p * 20000 + *seen))
			return "a frame from the host is not the next one";
		(*seen)++;
		offer_at(q, (gpa_t)((uint8_t *)at - gm.region[0].host));
	}
	return NULL;
}

/* A driver and a host of one pair: frames both ways, in their order, whole. */
static void *drive_pair(void *arg)
{
	unsigned p = (unsigned)(uintptr_t)arg, out = 0, in = 0, taken = 0, given = 0;
	uint64_t until = clock_ns() + WAIT_MS * 1000000ull;
	uint8_t frame[NET_HDR_LEN + PAIR_LEN] = {0};
	const char *bad = NULL;

	for (unsigned i = 0; i < QNUM / 2; i++)
		offer_at(&drv[2 * p], PAIR_RX(p) + i * 0x1000u);
	while (!bad && (taken < PAIR_FRAMES || given < PAIR_FRAMES)) {
		if (clock_ns() > until)
			return "it does not end";
		if (out < PAIR_FRAMES)
			bad = pair_out(p, out++);
		if (in < PAIR_FRAMES) {
			fill(frame + NET_HDR_LEN, PAIR_LEN, p * 20000 + in);
			in += send(tap[p], frame, sizeof(frame), MSG_DONTWAIT) > 0;
		}
		if (!bad)
			bad = pair_takes(p, &taken);
		if (!bad)
			bad = pair_in(p, &given);
	}
	return (void *)(uintptr_t)bad;
}

static void set_pairs(uint16_t n)
{
	ck_assert_uint_eq(command(2 * MAX_PAIRS, VIRTIO_NET_CTRL_MQ, 0, &n, 2), VIRTIO_NET_OK);
}

/* With a thread for each pair, and with fewer. */
START_TEST(pairs_at_once)
{
	static const unsigned threads[] = {0, 2, 3, 1};
	pthread_t t[MAX_PAIRS];
	struct msg_stats s;

	conf.npairs = MAX_PAIRS;
	nthreads = threads[_i];
	start_device();
	bring_up(DRV_COMMON | MRG | CTRL_FEATURES | DRV_F(VIRTIO_NET_F_MQ));
	set_pairs(MAX_PAIRS);
	for (unsigned p = 0; p < MAX_PAIRS; p++)
		ck_assert_int_eq(pthread_create(&t[p], NULL, drive_pair, (void *)(uintptr_t)p), 0);
	for (unsigned p = 0; p < MAX_PAIRS; p++) {
		void *bad;

		pthread_join(t[p], &bad);
		ck_assert_msg(!bad, "pair %u: %s", p, (const char *)bad);
	}
	s = stop_device();
	ck_assert_uint_eq(s.n[STAT_NET_TX_PACKETS], MAX_PAIRS * PAIR_FRAMES);
	ck_assert_uint_eq(s.n[STAT_NET_RX_PACKETS], MAX_PAIRS * PAIR_FRAMES);
	ck_assert_uint_eq(s.n[STAT_NET_RX_DROPPED] + s.n[STAT_NET_TX_DROPPED], 0);
}
END_TEST

static atomic_bool flood_ends;

static void *flood(void *arg)
{
	uint8_t frame[NET_HDR_LEN + 200] = {0};

	(void)arg;
	for (unsigned i = 0; !flood_ends; i++)
		(void)send(tap[i % MAX_PAIRS], frame, sizeof(frame), MSG_DONTWAIT);
	return NULL;
}

/* Take all that there is of the receive queue of pair p, and offer it again. */
static void drain_pair(unsigned p)
{
	struct drvq *q = &drv[2 * p];
	uint16_t head;
	uint32_t len;
	void *at;

	while (drvq_get(q, &head, &len, &at))
		offer_at(q, (gpa_t)((uint8_t *)at - gm.region[0].host));
}

/* When a command that takes pairs away is answered, none of them gets another frame, however busy
 * its thread was (5.1.6.5.6). */
START_TEST(pairs_come_and_go)
{
	pthread_t t;

	conf.npairs = MAX_PAIRS;
	nthreads = _i ? 2 : 0;
	slow_tap = true;
	start_device();
	bring_up(DRV_COMMON | MRG | CTRL_FEATURES | DRV_F(VIRTIO_NET_F_MQ));
	for (unsigned i = 0; i < MAX_PAIRS * QNUM / 2; i++)
		offer_at(&drv[2 * (i % MAX_PAIRS)],
			 PAIR_RX(i % MAX_PAIRS) + i / MAX_PAIRS * 0x1000u);
	flood_ends = false;
	ck_assert_int_eq(pthread_create(&t, NULL, flood, NULL), 0);
	for (unsigned round = 0; round < 30; round++) {
		uint16_t used[MAX_PAIRS], few = (uint16_t)(1 + round % (MAX_PAIRS - 1));

		set_pairs(MAX_PAIRS);
		usleep(500);
		for (unsigned p = 0; p < MAX_PAIRS; p++)
			drain_pair(p);
		set_pairs(few);
		for (unsigned p = few; p < MAX_PAIRS; p++)
			used[p] = drv_load16(drv[2 * p].used + 2);
		usleep(2000);
		for (unsigned p = few; p < MAX_PAIRS; p++)
			ck_assert_uint_eq(drv_load16(drv[2 * p].used + 2), used[p]);
	}
	flood_ends = true;
	pthread_join(t, NULL);
	ck_assert_uint_eq(drv_status(&core), 0xf);
	stop_device();
}
END_TEST

static void wait_until(bool (*fn)(void))
{
	uint64_t until = clock_ns() + WAIT_MS * 1000000ull;

	while (!fn()) {
		ck_assert_uint_lt(clock_ns(), until);
		usleep(100);
	}
}

static bool tap_is_held(void)
{
	return is_held;
}

static bool command_waits(void)
{
	pthread_mutex_t *gate = &rig->n.lane[1].gate;

	if (pthread_mutex_trylock(gate))
		return true;
	pthread_mutex_unlock(gate);
	return false;
}

/* A thread that always has something to do lets a command in front of its next turn. */
START_TEST(command_beside_a_busy_pair)
{
	const struct vring_desc d[3] = {drv_desc(CTRL, 2, false), drv_desc(CTRL + 16, 2, false),
					drv_desc(CTRL + 8, 1, true)};
	unsigned before;
	uint16_t two = 2, head;
	uint32_t len;

	conf.npairs = 2;
	start_device();
	bring_up(DRV_COMMON | MRG | CTRL_FEATURES | DRV_F(VIRTIO_NET_F_MQ));
	for (unsigned i = 0; i < QNUM / 2; i++)
		offer_at(&drv[2], PAIR_RX(1) + i * 0x1000u);
	busy_tap = true;
	for (unsigned round = 0; round < 30; round++) {
		uint16_t old;

		ck_assert_uint_eq(command(4, VIRTIO_NET_CTRL_MQ, 0, &two, 2), VIRTIO_NET_OK);
		is_held = false;
		hold_tap = true;
		wait_until(tap_is_held);
		/* From now on it shall have one pair. */
		old = drv[4].avail_idx;
		memcpy(mem(CTRL + 16), &(uint16_t){1}, 2);
		drvq_add(&drv[4], d, 3, NULL);
		drvq_kick(&drv[4], old);
		wait_until(command_waits);
		before = busy_calls;
		hold_tap = false;
		get_one(&drv[4], &head, &len);
		ck_assert_uint_lt(busy_calls - before, NET_BUDGET); /* the rest of the turn */
	}
	busy_tap = false;
	stop_device();
}
END_TEST

/* All pairs busy in both directions: when the reset is answered, guest memory is the driver's. */
START_TEST(reset_of_all_pairs)
{
	pthread_t t;

	conf.npairs = MAX_PAIRS;
	start_device();
	flood_ends = false;
	ck_assert_int_eq(pthread_create(&t, NULL, flood, NULL), 0);
	for (unsigned round = 0; round < 30; round++) {
		uint8_t got[NET_HDR_LEN + PAIR_LEN];

		bring_up(DRV_COMMON | MRG | CTRL_FEATURES | DRV_F(VIRTIO_NET_F_MQ));
		set_pairs(MAX_PAIRS);
		for (unsigned i = 0; i < MAX_PAIRS * QNUM / 2; i++)
			offer_at(&drv[2 * (i % MAX_PAIRS)],
				 PAIR_RX(i % MAX_PAIRS) + i / MAX_PAIRS * 0x1000u);
		for (unsigned k = 0; k < 8 * MAX_PAIRS; k++)
			(void)pair_out(k % MAX_PAIRS, k / MAX_PAIRS);
		usleep(round * 20);
		drv_reg(&core, VIRTIO_MMIO_STATUS, 0);
		ck_assert_uint_eq(drv_status(&core), 0);
		for (unsigned p = 0; p < MAX_PAIRS; p++)
			memset(mem(PAIR_RX(p)), 0x5c, QNUM / 2 * 0x1000u);
		usleep(300);
		for (unsigned p = 0; p < MAX_PAIRS; p++) {
			const uint8_t *b = mem(PAIR_RX(p));
			size_t n = 0;

			while (n < QNUM / 2 * 0x1000u && b[n] == 0x5c)
				n++;
			ck_assert_uint_eq(n, QNUM / 2 * 0x1000u);
			while (recv(tap[p], got, sizeof(got), MSG_DONTWAIT) > 0)
				;
		}
	}
	flood_ends = true;
	pthread_join(t, NULL);
	stop_device();
}
END_TEST

/* The limit is the device's, not the pair's: no more frames than it lets through in the time that
 * was taken, and one of each thread that was under way. */
START_TEST(limit_of_all_pairs)
{
	enum { PPS = 2000, BURST = PPS / 100, N = 150 };
	uint64_t begin, ms;
	struct msg_stats s;

	conf.npairs = MAX_PAIRS;
	conf.limit.ops = PPS;
	start_device();
	begin = clock_ns();
	bring_up(DRV_COMMON | MRG | CTRL_FEATURES | DRV_F(VIRTIO_NET_F_MQ));
	for (unsigned k = 0; k < N; k++) {
		for (unsigned p = 0; p < MAX_PAIRS; p++) {
			unsigned seen = 0;

			ck_assert_ptr_null(pair_out(p, k));
			while (seen == 0 && k + 1 == N) {
				uint8_t got[NET_HDR_LEN + PAIR_LEN];

				wait_fd(tap[p]);
				while (recv(tap[p], got, sizeof(got), MSG_DONTWAIT) > 0)
					seen++;
			}
		}
	}
	s = stop_device();
	ms = (clock_ns() - begin) / 1000000;
	ck_assert_uint_le(s.n[STAT_NET_TX_PACKETS], BURST + MAX_PAIRS + (ms + 1) * PPS / 1000);
	ck_assert_uint_ge(s.n[STAT_NET_THROTTLED], 1);
}
END_TEST

/* ---- mistakes ---- */

START_TEST(mistakes)
{
	static const struct {
		unsigned queue;
		uint32_t len;
		bool write;
		gpa_t at;
	} t[] = {
		{0, 1526, false, RX_BUFS},      /* a receive buffer that cannot be written */
		{0, 11, true, RX_BUFS},         /* and one without room for a header */
		{0, 1526, true, MEM_SIZE - 20}, /* outside of memory */
		{0, 0, true, RX_BUFS},
		{1, 100, true, TX_BUFS}, /* a frame to be sent that is for writing */
		{1, 11, false, TX_BUFS},
		{1, 100, false, UINT64_MAX - 10},
		{2, 10, false, CTRL}, /* a command that cannot be answered */
		{2, 0, true, CTRL},
	};

	start_device();
	for (size_t i = 0; i < ARRAY_LEN(t); i++) {
		struct drvq *q = &drv[t[i].queue];
		struct vring_desc d = drv_desc(t[i].at, t[i].len, t[i].write);

		bring_up(DRV_COMMON | MRG | CTRL_FEATURES);
		host_sends(tap[0], &plain, 60, 1);
		drvq_add(q, &d, 1, NULL);
		event_signal(q->kick_fd);
		wait_status(VIRTIO_CONFIG_S_NEEDS_RESET);
		/* And a reset mends it. */
		bring_up(DRV_COMMON | MRG | CTRL_FEATURES);
		guest_sends(&drv[1], &plain, 60, i, NULL);
		expect_sent(&drv[1]);
		struct virtio_net_hdr_v1 h;
		host_takes(tap[0], &h, 60, i);
	}
	stop_device();
}
END_TEST

/* The TAP's interface is removed: the link goes down, and the guest's frames come back. */
static int gone_send(struct net_backing *b, const struct virtio_net_hdr_v1 *h, struct iovec *iov,
		     unsigned n, size_t len)
{
	(void)b, (void)h, (void)iov, (void)n, (void)len;
	return -EPIPE;
}

START_TEST(link_down)
{
	struct virtio_net_config *c = (void *)(core.page + VIRTIO_MMIO_CONFIG);

	start_device();
	bring_up(DRV_COMMON | MRG | DRV_F(VIRTIO_NET_F_STATUS));
	fake_tap.send = gone_send;
	guest_sends(&drv[1], &plain, 60, 1, NULL);
	expect_sent(&drv[1]);
	for (unsigned i = 0; i < WAIT_MS && c->status; i++)
		usleep(1000);
	ck_assert_uint_eq(c->status, 0);
	for (unsigned i = 0; i < WAIT_MS && !(fc_shadow32(&core, VIRTIO_MMIO_INTERRUPT_STATUS) & 2);
	     i++)
		usleep(1000);
	ck_assert_uint_eq(fc_shadow32(&core, VIRTIO_MMIO_INTERRUPT_STATUS) & 2, 2);
	guest_sends(&drv[1], &plain, 60, 1, NULL);
	expect_sent(&drv[1]);
	stop_device();
}
END_TEST

/* ---- limits ---- */

START_TEST(limits)
{
	static uint8_t frame[NET_MAX_PACKET];
	uint64_t start = clock_ns(), took;
	struct virtio_net_hdr_v1 h;
	struct msg_stats s;

	conf.limit.ops = 200; /* 16 at once, then 5 ms each */
	start_device();
	bring_up(DRV_COMMON | MRG);
	if (_i == 0) {
		for (unsigned i = 0; i < 56; i++) {
			guest_sends(&drv[1], &plain, 100, i, NULL);
			expect_sent(&drv[1]);
			host_takes(tap[0], &h, 100, i);
		}
	} else {
		offer(&drv[0], QNUM - 1, 1526);
		for (unsigned i = 0; i < 56; i++)
			host_sends(tap[0], &plain, 100, i);
		for (unsigned i = 0; i < 56; i++)
			ck_assert_uint_eq(take_frame(&drv[0], frame, &h), 100);
	}
	took = (clock_ns() - start) / 1000000;
	ck_assert_msg(took >= 180, "%llu ms", (unsigned long long)took);
	s = stop_device();
	ck_assert_uint_ge(s.n[STAT_NET_THROTTLED], 5);
	/* The thread slept and did not spin. */
	ck_assert_uint_le(s.n[STAT_NET_IO_WAKEUPS], 1000);
}
END_TEST

/* The next one begins where the last has ended. */
START_TEST(limits_outlive_a_reset)
{
	uint64_t start = clock_ns(), took;

	conf.limit.ops = 200; /* 16 at once, then 5 ms each */
	start_device();
	for (unsigned i = 0; i < 48; i++) {
		struct virtio_net_hdr_v1 h;

		if (i % 16 == 0)
			bring_up(DRV_COMMON | MRG);
		guest_sends(&drv[1], &plain, 100, i, NULL);
		expect_sent(&drv[1]);
		host_takes(tap[0], &h, 100, i);
	}
	took = (clock_ns() - start) / 1000000;
	ck_assert_msg(took >= 150, "%llu ms", (unsigned long long)took);
	stop_device();
}
END_TEST

/* ---- streams ---- */

static size_t stream_frame(uint8_t *p, size_t len, uint64_t seed)
{
	uint32_t be = htonl((uint32_t)len);

	memcpy(p, &be, 4);
	fill(p + 4, len, seed);
	return 4 + len;
}

static void send_all(const uint8_t *p, size_t n)
{
	while (n) {
		ssize_t k = send(tap[0], p, n, 0);

		if (k < 0) {
			ck_assert_int_eq(errno, EAGAIN);
			usleep(100);
			continue;
		}
		p += k;
		n -= (size_t)k;
	}
}

START_TEST(stream_in_pieces)
{
	static uint8_t bytes[2 * NET_MAX_PACKET], frame[NET_MAX_PACKET];
	static const size_t lens[] = {14, 60, 61, 1514};
	struct virtio_net_hdr_v1 h;
	size_t n = 0, at = 0;

	start_device();
	bring_up(DRV_COMMON | MRG);
	offer(&drv[0], QNUM, 1526);
	for (size_t i = 0; i < ARRAY_LEN(lens); i++)
		n += stream_frame(bytes + n, lens[i], i);
	/* Every cut: pieces of 1 to 70 bytes. */
	for (size_t piece = 1; at < n; piece = piece % 70 + 1) {
		size_t k = piece < n - at ? piece : n - at;

		send_all(bytes + at, k);
		at += k;
		if (at % 7 == 0)
			usleep(500);
	}
	for (size_t i = 0; i < ARRAY_LEN(lens); i++) {
		ck_assert_uint_eq(take_frame(&drv[0], frame, &h), lens[i]);
		ck_assert(filled(frame, lens[i], i));
		ck_assert_uint_eq(h.flags | h.gso_type | h.gso_size, 0);
	}
	offer(&drv[0], ARRAY_LEN(lens), 1526);
	/* Many in one piece, and the longest. */
	n = 0;
	for (size_t i = 0; i < 40; i++)
		n += stream_frame(bytes + n, 60 + i, i);
	send_all(bytes, n);
	for (size_t i = 0; i < 40; i++) {
		ck_assert_uint_eq(take_frame(&drv[0], frame, &h), 60 + i);
		ck_assert(filled(frame, 60 + i, i));
	}
	offer(&drv[0], 40, 1526);
	send_all(bytes, stream_frame(bytes, NET_MAX_FRAME, 99));
	ck_assert_uint_eq(take_frame(&drv[0], frame, &h), NET_MAX_FRAME);
	ck_assert(filled(frame, NET_MAX_FRAME, 99));
	stop_device();
}
END_TEST

/* A socket that takes a frame in pieces: the frames stay whole and in order. */
START_TEST(stream_out_in_pieces)
{
	static uint8_t got[4 + NET_MAX_FRAME];
	int small = 4096;

	setsockopt(near_end[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	start_device();
	bring_up(DRV_COMMON | MRG);
	for (unsigned i = 0; i < 40; i++) {
		size_t len = i % 4 ? 100 + i * 37 : NET_MAX_FRAME - i, at = 0;
		uint32_t be;

		guest_sends(&drv[1], &plain, len, i, NULL);
		while (at < 4 + len) {
			ssize_t n;

			wait_fd(tap[0]);
			n = recv(tap[0], got + at, 4 + len - at, 0);
			ck_assert_int_gt(n, 0);
			at += (size_t)n;
		}
		memcpy(&be, got, 4);
		ck_assert_uint_eq(ntohl(be), len);
		expect_sent(&drv[1]);
		/* The rest of a frame is a copy: its end may differ only if the memory was reused.
		 */
		ck_assert(filled(got + 4, len, i));
	}
	stop_device();
}
END_TEST

/* ---- the other end of a stream goes away ---- */

static void wait_link(uint16_t want)
{
	const volatile uint16_t *status =
		(const void *)(core.page + VIRTIO_MMIO_CONFIG +
			       offsetof(struct virtio_net_config, status));

	for (unsigned i = 0; i < WAIT_MS && *status != want; i++)
		usleep(1000);
	ck_assert_uint_eq(*status, want);
	/* And the driver is told. */
	for (unsigned i = 0; i < WAIT_MS && !(fc_shadow32(&core, VIRTIO_MMIO_INTERRUPT_STATUS) & 2);
	     i++)
		usleep(1000);
	ck_assert_uint_eq(fc_shadow32(&core, VIRTIO_MMIO_INTERRUPT_STATUS) & 2, 2);
	drv_reg(&core, VIRTIO_MMIO_INTERRUPT_ACK, 2);
}

static void hear_lost(void)
{
	struct err e = {0};

	wait_fd(chan[0]);
	ck_assert_int_eq(msg_expect(chan[0], MSG_NET_LOST, NULL, 0, NULL, 0, &e), 0);
}

/* What the supervisor does. The pair was made before: its place is in tap[1], near_end[1]. */
static void give_peer(void)
{
	close(tap[0]);
	tap[0] = tap[1];
	tap[1] = -1;
	ck_assert_int_eq(msg_send(chan[0], MSG_NET_PEER, NULL, 0, &near_end[1], 1), 0);
}

/* Everything that a driver may ask of a card without a link is answered: commands, frames to send
 * (which are given back), registers. */
static void works_without_link(unsigned nframes)
{
	ck_assert_uint_eq(command(2, RX, 0, "\1", 1), VIRTIO_NET_OK);
	for (unsigned i = 0; i < nframes; i++) {
		guest_sends(&drv[1], &plain, 60, i, NULL);
		expect_sent(&drv[1]);
	}
	drv_reg(&core, VIRTIO_MMIO_QUEUE_SEL, 1);
	ck_assert_uint_eq(fc_shadow32(&core, VIRTIO_MMIO_QUEUE_READY), 1);
	ck_assert_uint_eq(drv_status(&core), 0xf);
}

static void expect_on_stream(size_t len, uint64_t seed)
{
	static uint8_t got[4 + NET_MAX_FRAME];
	size_t at = 0;
	uint32_t be;

	while (at < 4 + len) {
		ssize_t n;

		wait_fd(tap[0]);
		n = recv(tap[0], got + at, 4 + len - at, 0);
		ck_assert_int_gt(n, 0);
		at += (size_t)n;
	}
	memcpy(&be, got, 4);
	ck_assert_uint_eq(ntohl(be), len);
	ck_assert(filled(got + 4, len, seed));
}

/* A frame half read, a frame half written, a length that cannot be, or the bare end: the link goes
 * down, and the next stream begins between two frames. */
enum loss { HALF_READ, HALF_WRITTEN, BAD_LENGTH, BARE_END, LOSSES };

static void lose(enum loss how)
{
	static uint8_t bytes[4 + 200];
	unsigned n;

	stream_frame(bytes, 200, 1);
	if (how == HALF_READ) {
		send_all(bytes, 150);
	} else if (how == HALF_WRITTEN) {
		for (n = 0; n < 8; n++)
			guest_sends(&drv[1], &plain, NET_MAX_FRAME, n, NULL);
	} else if (how == BAD_LENGTH) {
		send_all((const uint8_t *)"\0\1\0\x12", 4);
		return;
	}
	usleep(20000);
	shutdown(tap[0], SHUT_RDWR);
}

START_TEST(peer_goes_away)
{
	static uint8_t bytes[4 + 300], frame[NET_MAX_PACKET];
	struct virtio_net_hdr_v1 h;
	struct msg_stats s;
	int small = 4096;

	if (_i == HALF_WRITTEN)
		setsockopt(near_end[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	start_device();
	bring_up(DRV_COMMON | MRG | CTRL_FEATURES | DRV_F(VIRTIO_NET_F_STATUS));
	offer(&drv[0], 8, 1526);
	lose((enum loss)_i);
	hear_lost();
	wait_link(0);
	for (unsigned i = 0; _i == HALF_WRITTEN && i < 8; i++)
		expect_sent(&drv[1]);
	works_without_link(QNUM + 5);
	give_peer();
	wait_link(VIRTIO_NET_S_LINK_UP);
	send_all(bytes, stream_frame(bytes, 300, 7));
	ck_assert_uint_eq(take_frame(&drv[0], frame, &h), 300);
	ck_assert(filled(frame, 300, 7));
	guest_sends(&drv[1], &plain, 1000, 9, NULL);
	expect_on_stream(1000, 9);
	expect_sent(&drv[1]);
	s = stop_device();
	ck_assert_uint_ge(s.n[STAT_NET_TX_DROPPED], QNUM + 5);
	near_end[1] = tap[1] = -1;
}
END_TEST

static unsigned cpu_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (unsigned)(t.tv_sec * 1000 + t.tv_nsec / 1000000);
}

/* A VM starts while its switch is away; the driver offers its buffers, resets the card, comes
 * again. The I/O thread sleeps all the while. */
START_TEST(peer_is_away_at_first)
{
	static uint8_t bytes[4 + 300], frame[NET_MAX_PACKET];
	const struct virtio_net_config *c = (void *)(core.page + VIRTIO_MMIO_CONFIG);
	struct virtio_net_hdr_v1 h;
	unsigned cpu;

	conf.flags = NET_AWAY;
	shutdown(tap[0], SHUT_RDWR);
	start_device();
	ck_assert_uint_eq(c->status, 0);
	for (unsigned i = 0; i < 2; i++) {
		bring_up(DRV_COMMON | MRG | CTRL_FEATURES | DRV_F(VIRTIO_NET_F_STATUS));
		offer(&drv[0], QNUM, 1526);
		ck_assert_uint_eq(c->status, 0);
		works_without_link(3);
	}
	cpu = cpu_ms();
	usleep(500000);
	ck_assert_uint_lt(cpu_ms() - cpu, 20);
	give_peer();
	wait_link(VIRTIO_NET_S_LINK_UP);
	send_all(bytes, stream_frame(bytes, 300, 7));
	ck_assert_uint_eq(take_frame(&drv[0], frame, &h), 300);
	ck_assert(filled(frame, 300, 7));
	stop_device();
	near_end[1] = tap[1] = -1;
}
END_TEST

/* The end is noticed without a driver (0), by one whose buffers are used up (1), and when a limit
 * keeps frames back (2). */
START_TEST(end_is_noticed)
{
	static uint8_t bytes[4 + 1500];

	if (_i == 2)
		conf.limit.ops = 1;
	start_device();
	if (_i)
		bring_up(DRV_COMMON | MRG | DRV_F(VIRTIO_NET_F_STATUS));
	if (_i == 2)
		offer(&drv[0], QNUM, 1526);
	for (unsigned i = 0; _i && i < 30; i++)
		send_all(bytes, stream_frame(bytes, 1500, i));
	shutdown(tap[0], SHUT_RDWR);
	hear_lost();
	stop_device();
}
END_TEST

/* A stream that was not asked for, two of them, or to a TAP, is a broken supervisor. */
START_TEST(peer_not_asked_for)
{
	int two[2] = {near_end[1], tap[1]};

	start_device();
	if (_i) {
		shutdown(tap[0], SHUT_RDWR);
		hear_lost();
	}
	ck_assert_int_eq(msg_send(chan[0], MSG_NET_PEER, NULL, 0, two, _i ? 2 : 1), 0);
	ck_assert_int_eq(pthread_join(life_thread, NULL), 0);
}
END_TEST

/* Through passt an address of the host's loopback would be the host itself. Such a frame is
 * dropped, others pass. */
START_TEST(no_loopback)
{
	static const struct {
		uint16_t type;
		uint8_t at, dst[16];
		bool passes;
	} t[] = {
		{0x800, 16, {127, 0, 0, 1}, false},
		{0x800, 16, {127, 255, 3, 4}, false},
		{0x800, 16, {0, 0, 0, 0}, false},
		{0x800, 16, {126, 0, 0, 1}, true},
		{0x800, 16, {198, 51, 100, 9}, true},
		{0x86dd, 24, {[15] = 1}, false},
		{0x86dd, 24, {0}, false},
		{0x86dd, 24, {[10] = 0xff, 0xff, 127, 0, 0, 1}, false},
		{0x86dd, 24, {0xfe, 0x80, [15] = 1}, true},
		{0x86dd, 24, {0x20, 1, 0xd, 0xb8, [15] = 1}, true},
		{0x806, 24, {0}, true},
	};
	const size_t len = 100;

	conf.flags = NET_NO_LOOPBACK;
	start_device();
	bring_up(DRV_COMMON | MRG);
	for (size_t i = 0; i < ARRAY_LEN(t); i++) {
		uint16_t old = drv[1].avail_idx;
		uint8_t *frame = mem(TX_BUFS + NET_HDR_LEN), got[4 + 100];
		struct vring_desc d = drv_desc(TX_BUFS, NET_HDR_LEN + (uint32_t)len, false);

		memset(mem(TX_BUFS), 0, NET_HDR_LEN);
		fill(frame, len, i);
		frame[12] = (uint8_t)(t[i].type >> 8);
		frame[13] = (uint8_t)t[i].type;
		memcpy(frame + 14 + t[i].at, t[i].dst, t[i].type == 0x800 ? 4 : 16);
		drvq_add(&drv[1], &d, 1, NULL);
		drvq_kick(&drv[1], old);
		expect_sent(&drv[1]);
		ck_assert_msg((recv(tap[0], got, sizeof(got), MSG_DONTWAIT) == sizeof(got)) ==
				      t[i].passes,
			      "frame %zu", i);
	}
	ck_assert_uint_eq(stop_device().n[STAT_NET_TX_DROPPED], 6);
}
END_TEST

/* ---- restart ---- */

/* The device runs in a process that is killed at random moments, and another one carries on: what
 * the guest gave is given back exactly once (the driver dies if not), frames go on in both
 * directions. */
static pid_t start_process(void)
{
	return life_fork(opened);
}

START_TEST(killed)
{
	static uint8_t frame[NET_MAX_PACKET];
	struct virtio_net_hdr_v1 h;
	unsigned in = 0, out = 0, seen_in = 0;
	pid_t pid;

	rnd_state = 7;
	pid = start_process();
	bring_up(DRV_COMMON | MRG);
	for (unsigned kills = 0; kills < 120; kills++) {
		uint64_t until = clock_ns() + rnd(3000000);

		while (clock_ns() < until) {
			uint16_t head;
			uint32_t len;
			void *cookie;

			while (drv[0].nfree) {
				offer(&drv[0], 1, 500);
			}
			for (unsigned i = 0; i < 5; i++) {
				static uint8_t p[NET_MAX_PACKET];
				size_t n = 100 + rnd(1500);

				memcpy(p, &plain, NET_HDR_LEN);
				fill(p + NET_HDR_LEN, n, n);
				if (send(tap[0], p, NET_HDR_LEN + n, MSG_DONTWAIT) > 0)
					in++;
			}
			if (drv[1].nfree)
				guest_sends(&drv[1], &plain, 60, 1, NULL);
			while (drvq_get(&drv[1], &head, &len, &cookie))
				out++;
			while (recv(tap[0], frame, sizeof(frame), MSG_DONTWAIT) > 0)
				;
			while (drv_load16(drv[0].used + 2) != drv[0].used_idx) {
				size_t n = take_frame(&drv[0], frame, &h);

				ck_assert_msg(filled(frame, n, n), "frame %u of %zu bytes", seen_in,
					      n);
				seen_in++;
			}
		}
		life_kill(pid);
		pid = start_process();
	}
	ck_assert_uint_ge(seen_in, 200);
	ck_assert_uint_ge(out, 100);
	/* A frame may be lost at each kill, but not more than were in hand. */
	while (drv[0].nfree) {
		offer(&drv[0], 1, 500);
	}
	/* The queue may be full of earlier ones. */
	for (unsigned i = 0, len; i < 2000; i++) {
		memset(frame, 0, NET_HDR_LEN);
		fill(frame + NET_HDR_LEN, 77, 77);
		if (send(tap[0], frame, NET_HDR_LEN + 77, MSG_DONTWAIT) > 0)
			break;
		len = (unsigned)take_frame(&drv[0], frame, &h);
		offer(&drv[0], nslots, 500);
		ck_assert_uint_ge(len, 60);
	}
	for (size_t n = 0; n != 77;) {
		offer(&drv[0], nslots, 500);
		n = take_frame(&drv[0], frame, &h);
	}
	life_kill(pid);
	chan[0] = chan[1] = -1;
}
END_TEST

/* A queue is taken away and the others go on; a reset in the middle of traffic. */
START_TEST(reset_in_the_middle)
{
	static uint8_t frame[NET_MAX_PACKET];
	struct virtio_net_hdr_v1 h;

	start_device();
	for (unsigned i = 0; i < 50; i++) {
		bring_up(DRV_COMMON | MRG);
		offer(&drv[0], QNUM, 300);
		for (unsigned k = 0; k < 20; k++) {
			(void)send(tap[0], frame, NET_HDR_LEN + 1000, MSG_DONTWAIT);
			if (drv[1].nfree)
				guest_sends(&drv[1], &plain, 60, 1, NULL);
		}
		if (i % 2)
			usleep(300);
		if (i % 3 == 0) { /* the transmit queue goes, and buffers that wait are not lost */
			drv_reg(&core, VIRTIO_MMIO_QUEUE_SEL, 1);
			drv_reg(&core, VIRTIO_MMIO_QUEUE_READY, 0);
		}
		drv_reg(&core, VIRTIO_MMIO_STATUS, 0);
		ck_assert_uint_eq(drv_status(&core), 0);
		while (recv(tap[0], frame, sizeof(frame), MSG_DONTWAIT) > 0)
			;
		memset(frame, 0, sizeof(frame));
	}
	while (recv(near_end[0], frame, sizeof(frame), MSG_DONTWAIT) > 0)
		;
	bring_up(DRV_COMMON | MRG);
	offer(&drv[0], 10, 300);
	drv_reg(&core, VIRTIO_MMIO_QUEUE_SEL, 1);
	drv_reg(&core, VIRTIO_MMIO_QUEUE_READY, 0);
	host_sends(tap[0], &plain, 1000, 9);
	ck_assert_uint_eq(take_frame(&drv[0], frame, &h), 1000);
	ck_assert(filled(frame, 1000, 9));
	stop_device();
}
END_TEST

/* ---- 169.254.169.254 ---- */

/* Ethernet, and IPv4 or ARP to that address. */
static size_t service_frame(uint8_t *f, bool arp, size_t len, uint64_t seed)
{
	fill(f, len, seed);
	f[12] = 8;
	f[13] = arp ? 6 : 0;
	memcpy(f + (arp ? 38 : 30), "\xa9\xfe\xa9\xfe", 4);
	return len;
}

START_TEST(service_frames)
{
	uint8_t f[60];
	struct iovec iov[62];

	for (unsigned arp = 0; arp < 2; arp++) {
		size_t need = arp ? 42 : 34;

		service_frame(f, arp, sizeof(f), 1);
		for (unsigned i = 0; i < 60; i++)
			iov[1 + i] = (struct iovec){f + i, 1};
		for (size_t len = 0; len <= 60; len++) {
			iov[1].iov_len = 1;
			ck_assert_int_eq(net_metadata_is(iov, (unsigned)len, len), len >= need);
			iov[1].iov_len = len;
			ck_assert_int_eq(net_metadata_is(iov, len > 0, len), len >= need);
		}
		iov[1].iov_len = 60;
		for (size_t i = need - 4; i < need; i++) {
			f[i] ^= 1;
			ck_assert(!net_metadata_is(iov, 1, 60));
			f[i] ^= 1;
		}
		for (unsigned i = 12; i < 14; i++) {
			f[i] ^= 0x80; /* 802.1Q, or IPv6, or nothing */
			ck_assert(!net_metadata_is(iov, 1, 60));
			f[i] ^= 0x80;
		}
	}
}
END_TEST

static void open_service(void)
{
	int size = 1 << 20;

	ck_assert_int_eq(
		socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, service), 0);
	for (unsigned i = 0; i < 2; i++)
		setsockopt(service[i], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	conf.flags |= NET_METADATA;
}

static void guest_sends_frame(struct drvq *q, const uint8_t *frame, size_t len)
{
	struct vring_desc d[2] = {drv_desc(TX_BUFS, NET_HDR_LEN + 9, false),
				  drv_desc(TX_BUFS + NET_HDR_LEN + 9, (uint32_t)len - 9, false)};
	uint16_t old = q->avail_idx, head;
	uint32_t used;

	memset(mem(TX_BUFS), 0, NET_HDR_LEN);
	memcpy(mem(TX_BUFS + NET_HDR_LEN), frame, len);
	drvq_add(q, d, 2, NULL);
	drvq_kick(q, old);
	get_one(q, &head, &used);
}

/* Each frame on its way, and what comes back from both, on a TAP and on a stream. */
START_TEST(service_beside_the_network)
{
	static uint8_t frame[70000], got[70000];
	bool is_tap = conf.kind == NET_TAP;
	struct virtio_net_hdr_v1 h;
	size_t before = is_tap ? NET_HDR_LEN : 4;

	open_service();
	start_device();
	bring_up(DRV_COMMON | MRG);
	offer(&drv[0], 20, 1526);
	for (unsigned i = 0; i < 40; i++) {
		size_t len = i % 2 ? 60 : i % 4 ? 1514 : 60000;

		if (i % 2)
			fill(frame, len, i);
		else
			service_frame(frame, i % 8 == 0, len, i);
		frame[12] = 8;
		guest_sends_frame(&drv[1], frame, len);
		wait_fd(i % 2 ? tap[0] : service[0]);
		ck_assert_int_eq(recv(i % 2 ? tap[0] : service[0], got, sizeof(got), 0),
				 (ssize_t)(len + (i % 2 ? before : 0)));
		ck_assert_mem_eq(got + (i % 2 ? before : 0), frame, len);
	}
	ck_assert_int_eq(recv(tap[0], got, sizeof(got), MSG_DONTWAIT), -1);
	ck_assert_int_eq(recv(service[0], got, sizeof(got), MSG_DONTWAIT), -1);
	/* What the service says; what is too short for a frame is lost. */
	for (unsigned i = 0; i < 10; i++) {
		ck_assert_int_eq(send(service[0], "short", 5, 0), 5);
		fill(frame, 1514, i);
		ck_assert_int_eq(send(service[0], frame, 1514, 0), 1514);
		ck_assert_uint_eq(take_frame(&drv[0], got, &h), 1514);
		ck_assert_mem_eq(got, frame, 1514);
		ck_assert_uint_eq(h.flags, 0);
	}
	/* Nobody reads: the guest's frames are given back, and the network goes on. */
	service_frame(frame, false, 60000, 1);
	for (unsigned i = 0; i < 100; i++)
		guest_sends_frame(&drv[1], frame, 60000);
	fill(frame, 60, 1);
	guest_sends_frame(&drv[1], frame, 60);
	wait_fd(tap[0]);
	ck_assert_int_gt(recv(tap[0], got, sizeof(got), 0), 0);
	close(service[0]);
	close(service[1]);
	stop_device();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("net");
	TCase *pure = tcase_create("pure"), *dev = tcase_create("tap"),
	      *st = tcase_create("stream");
	SRunner *r = srunner_create(s);
	int failed;

	tcase_set_timeout(dev, 120);
	tcase_set_timeout(st, 120);
	tcase_add_checked_fixture(dev, setup, teardown);
	tcase_add_checked_fixture(st, setup_stream, teardown);
	tcase_add_test(pure, vectors);
	tcase_add_test(pure, headers_from_the_guest);
	tcase_add_test(pure, headers_for_the_guest);
	tcase_add_test(pure, offload_bits);
	tcase_add_test(pure, rules_of_the_largest_card);
	tcase_add_test(dev, messages_refused);
	tcase_add_test(dev, configuration);
	tcase_add_test(dev, frames_out);
	tcase_add_test(dev, frames_in);
	tcase_add_test(dev, frame_waits_for_buffers);
	tcase_add_test(dev, buffers_that_are_not_merged);
	tcase_add_loop_test(dev, traffic, 0, 2);
	tcase_add_test(dev, neither_starves);
	tcase_add_test(dev, commands);
	tcase_add_test(dev, several_pairs);
	tcase_add_loop_test(dev, pairs_at_once, 0, 4);
	tcase_add_loop_test(dev, pairs_come_and_go, 0, 2);
	tcase_add_test(dev, command_beside_a_busy_pair);
	tcase_add_test(dev, reset_of_all_pairs);
	tcase_add_test(dev, limit_of_all_pairs);
	tcase_add_test(dev, mistakes);
	tcase_add_test(dev, link_down);
	tcase_add_loop_test(dev, limits, 0, 2);
	tcase_add_test(dev, limits_outlive_a_reset);
	tcase_add_test(dev, killed);
	tcase_add_test(dev, reset_in_the_middle);
	tcase_add_test(pure, service_frames);
	tcase_add_test(dev, service_beside_the_network);
	tcase_add_test(st, service_beside_the_network);
	tcase_add_test(st, a_stream_offers_no_offloads);
	tcase_add_test(st, stream_in_pieces);
	tcase_add_test(st, stream_out_in_pieces);
	tcase_add_loop_test(st, peer_goes_away, 0, LOSSES);
	tcase_add_test(st, peer_is_away_at_first);
	tcase_add_loop_test(st, end_is_noticed, 0, 3);
	tcase_add_loop_test(st, peer_not_asked_for, 0, 2);
	tcase_add_test(st, no_loopback);
	suite_add_tcase(s, pure);
	suite_add_tcase(s, dev);
	suite_add_tcase(s, st);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? 1 : 0;
}
