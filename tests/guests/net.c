/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The network card: frames to a peer that sends each one back, commands, and then as an enemy sees
 * it. The peer (tests/guests/netpeer.py, behind --net socket=PATH) swaps the two addresses of a
 * frame. Without a card: status 3.
 *
 * Each attack starts from a fresh device; afterwards the registers must still answer, a reset must
 * work, and a frame must come back again. Device writes land in the arena or nowhere.
 */
#include <linux/virtio_net.h>

#include "virtio.h"

#define QSIZE 32u
#define HDR 12u
#define BUFS 16u
#define BUF_LEN 2048u
#define SETTLE_MS 20
#define ECHO_MS 5000
#define SEED 0x2545f4914f6cdd1dull
#define RANDOM_ROUNDS 60
#define RANDOM_WRITES 1500
#define WANTED                                                                   \
	(VFEATURE(VIRTIO_NET_F_MRG_RXBUF) | VFEATURE(VIRTIO_NET_F_CTRL_VQ) |     \
	 VFEATURE(VIRTIO_NET_F_CTRL_RX) | VFEATURE(VIRTIO_NET_F_CTRL_MAC_ADDR) | \
	 VFEATURE(VIRTIO_NET_F_MAC) | VFEATURE(VIRTIO_NET_F_STATUS) |            \
	 VFEATURE(VIRTIO_RING_F_INDIRECT_DESC) | VFEATURE(VIRTIO_F_VERSION_1))

static _Alignas(BOARD_PAGE) uint8_t rx_buf[BUFS][BUF_LEN], tx_buf[BUF_LEN * 4], arena[65536];
static struct {
	uint8_t cmd[64];
	volatile uint8_t ack;
} ctl;
static uint64_t dev;
static struct vq rx, tx, ctrl;
static uint8_t mac[6];
static uint64_t seed = SEED;

static bool start_with(uint64_t wanted)
{
	uint64_t f;

	if (!vdev_reset(dev))
		return false;
	f = vdev_offered(dev) & wanted;
	if (!vdev_negotiate(dev, f) || !vq_start(&rx, dev, 0, QSIZE) ||
	    !vq_start(&tx, dev, 1, QSIZE) || !vq_start(&ctrl, dev, 2, QSIZE))
		return false;
	vdev_add_status(dev, VIRTIO_CONFIG_S_DRIVER_OK);
	for (unsigned i = 0; i < 6; i++)
		mac[i] = *(volatile uint8_t *)(uintptr_t)(dev + VIRTIO_MMIO_CONFIG + i);
	return vget(dev, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_DRIVER_OK;
}
static bool fresh(void)
{
	return start_with(WANTED);
}
static void offer(unsigned n, uint32_t len)
{
	for (uint16_t i = 0; i < n; i++) {
		vq_desc(&rx, i, (uintptr_t)rx_buf[i], len, VRING_DESC_F_WRITE, 0);
		vq_push(&rx, i);
	}
	vq_kick(&rx);
}
/* A frame of `len` bytes behind a header, with a pattern. */
static void make_frame(uint32_t len, uint64_t s)
{
	memset(tx_buf, 0, HDR);
	fill_pattern(tx_buf + HDR, len, s);
	memset(tx_buf + HDR, 0x02, 6);
	memcpy(tx_buf + HDR + 6, mac, 6);
	tx_buf[HDR + 12] = 0x88; /* an EtherType for experiments */
	tx_buf[HDR + 13] = 0xb5;
}
static bool send_frame(uint32_t len)
{
	struct vring_used_elem u;

	vq_desc(&tx, 0, (uintptr_t)tx_buf, HDR + len, 0, 0);
	vq_push(&tx, 0);
	vq_kick(&tx);
	return vq_pop(&tx, &u, VIRTIO_WAIT_MS) && u.id == 0 && u.len == 0;
}
/* The frame that was sent comes back, in as many buffers as it takes, each offered with `buf`
 * bytes. Frames of others, and what an attack sent and the peer returns late, are passed over;
 * their buffers are offered again. */
static bool receive_echo(uint32_t len, uint32_t buf)
{
	static uint8_t got[BUFS * BUF_LEN];
	struct vring_used_elem u;

	for (unsigned tries = 0; tries < 50; tries++) {
		uint32_t n = 0;
		uint16_t left = 1;

		for (bool first = true; left; left--, first = false) {
			uint32_t skip = first ? HDR : 0;

			if (!vq_pop(&rx, &u, ECHO_MS) || u.id >= BUFS || u.len > buf ||
			    u.len < skip)
				return false;
			if (first)
				memcpy(&left, rx_buf[u.id] + 10, 2);
			if (left == 0 || left > BUFS)
				return false;
			memcpy(got + n, rx_buf[u.id] + skip, u.len - skip);
			n += u.len - skip;
			vq_push(&rx, (uint16_t)u.id);
		}
		vq_kick(&rx);
		if (n == len && !memcmp(got, mac, 6) &&
		    !memcmp(got + 12, tx_buf + HDR + 12, len - 12))
			return true;
	}
	return false;
}
static bool echo(uint32_t len, uint32_t buf)
{
	make_frame(len, ++seed);
	return send_frame(len) && receive_echo(len, buf);
}
static bool works(void)
{
	if (!fresh())
		return false;
	offer(BUFS, BUF_LEN);
	return echo(100, BUF_LEN);
}

/* ---- as it should be ---- */

static void frames(void)
{
	static const uint32_t lens[] = {60, 61, 590, 1514, 2036, 2037, 7000};
	bool good = true;

	for (unsigned i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
		good &= fresh();
		offer(BUFS, BUF_LEN);
		good &= echo(lens[i], BUF_LEN);
	}
	check("frames there and back", good, "a length does not come back");
	good = true;
	for (unsigned n = 0; n < 200 && good; n++) {
		if (n % (BUFS / 2) == 0) {
			good &= fresh();
			offer(BUFS, BUF_LEN);
		}
		good &= echo(60 + n * 7, BUF_LEN);
	}
	check("200 frames", good, "one is missing");
	good = fresh();
	offer(BUFS, 100);
	good &= echo(1400, 100);
	check("merged buffers", good, "1400 bytes in buffers of 100");
	good = start_with(WANTED & ~VFEATURE(VIRTIO_NET_F_MRG_RXBUF));
	offer(BUFS, BUF_LEN);
	good &= echo(1514, BUF_LEN);
	check("buffers that are not merged", good, "1514 bytes");
}
static uint8_t command(uint8_t class, uint8_t cmd, const void *data, uint32_t len)
{
	struct vring_used_elem u;

	ctl.cmd[0] = class;
	ctl.cmd[1] = cmd;
	memcpy(ctl.cmd + 2, data, len);
	ctl.ack = 0xee;
	vq_desc(&ctrl, 0, (uintptr_t)ctl.cmd, 2 + len, VRING_DESC_F_NEXT, 1);
	vq_desc(&ctrl, 1, (uintptr_t)&ctl.ack, 1, VRING_DESC_F_WRITE, 0);
	vq_push(&ctrl, 0);
	vq_kick(&ctrl);
	return vq_pop(&ctrl, &u, VIRTIO_WAIT_MS) && u.id == 0 && u.len == 1 ? ctl.ack : 0xff;
}
static void commands(void)
{
	static const uint8_t other[6] = {0x02, 1, 2, 3, 4, 5};

	fresh();
	check("command: promiscuous", command(VIRTIO_NET_CTRL_RX, 0, "\1", 1) == VIRTIO_NET_OK,
	      "another answer");
	check("command: a wrong value", command(VIRTIO_NET_CTRL_RX, 0, "\7", 1) == VIRTIO_NET_ERR,
	      "another answer");
	check("command: unknown", command(99, 99, "\1", 1) == VIRTIO_NET_ERR, "another answer");
	check("command: address",
	      command(VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, other, 6) == VIRTIO_NET_OK,
	      "another answer");
	check("works after commands", works(), "another answer");
}

/* ---- as an enemy ---- */

static uintptr_t at(uint32_t off)
{
	return (uintptr_t)arena + off;
}
static void go(struct vq *q, uint16_t head)
{
	vq_push(q, head);
	vq_kick(q);
}
static struct vq *queue(unsigned i)
{
	return i == 0 ? &rx : i == 1 ? &tx : &ctrl;
}
static uint16_t dir(unsigned q)
{
	return q == 0 ? VRING_DESC_F_WRITE : 0;
}

static void cyclic(unsigned q)
{
	for (uint16_t i = 0; i < 4; i++)
		vq_desc(queue(q), i, at(i * 64), 64, VRING_DESC_F_NEXT | dir(q),
			(uint16_t)((i + 1) % 4));
	go(queue(q), 0);
}
static void overlapping(unsigned q)
{
	for (uint16_t i = 0; i < 8; i++) {
		vq_desc(queue(q), i, at(i), 4096, dir(q), 0);
		go(queue(q), i);
	}
}
static void over_the_rings(unsigned q)
{
	vq_desc(queue(q), 0, (uintptr_t)queue(q)->used, 2048, dir(q), 0);
	go(queue(q), 0);
	vq_desc(queue(q), 1, (uintptr_t)queue(q)->desc, 2048, dir(q), 0);
	go(queue(q), 1);
}
static void empty(unsigned q)
{
	vq_desc(queue(q), 0, at(0), 0, dir(q), 0);
	go(queue(q), 0);
}
static void outside(unsigned q)
{
	static const uint64_t wild[] = {BOARD_VIRTIO_MMIO, BOARD_LAPIC, 1ull << 40, ~0ull - 100,
					BOARD_LOW_RAM_END - 8};

	for (unsigned i = 0; i < sizeof(wild) / sizeof(wild[0]); i++) {
		fresh();
		vq_desc(queue(q), 0, wild[i], 2048, dir(q), 0);
		go(queue(q), 0);
	}
}
static void huge(unsigned q)
{
	vq_desc(queue(q), 0, at(0), ~0u, dir(q), 0);
	go(queue(q), 0);
}
static void wrong_direction(unsigned q)
{
	vq_desc(queue(q), 0, at(0), 2048, dir(q) ? 0 : VRING_DESC_F_WRITE, 0);
	go(queue(q), 0);
}
static void too_short(unsigned q)
{
	vq_desc(queue(q), 0, at(0), 5, dir(q), 0);
	go(queue(q), 0);
}
static void jump(unsigned q)
{
	vq_desc(queue(q), 0, at(0), 2048, dir(q), 0);
	*(volatile uint16_t *)&queue(q)->avail->idx = (uint16_t)(queue(q)->next + 0x7000);
	vq_kick(queue(q));
}
static void same_head(unsigned q)
{
	vq_desc(queue(q), 0, at(0), 2048, dir(q), 0);
	for (unsigned i = 0; i < 8; i++)
		vq_push(queue(q), 0);
	vq_kick(queue(q));
}
static void nested_table(unsigned q)
{
	vq_desc(queue(q), 0, (uintptr_t)queue(q)->desc, 16 * QSIZE, VRING_DESC_F_INDIRECT, 0);
	go(queue(q), 0);
}
/* Headers that lie about checksums and segments. */
static void headers(unsigned q)
{
	if (q != 1)
		return;
	for (unsigned i = 0; i < 64; i++) {
		struct vring_used_elem u;

		make_frame(1000, i);
		for (unsigned k = 0; k < HDR; k++)
			tx_buf[k] = (uint8_t)xorshift(&seed);
		vq_desc(&tx, 0, (uintptr_t)tx_buf, HDR + 1000, 0, 0);
		go(&tx, 0);
		if (!vq_pop(&tx, &u, VIRTIO_WAIT_MS))
			return;
	}
}
static void reset_in_the_middle(unsigned q)
{
	offer(BUFS, BUF_LEN);
	for (unsigned i = 0; i < 20; i++) {
		make_frame(1000, i);
		vq_desc(&tx, 0, (uintptr_t)tx_buf, HDR + 1000, 0, 0);
		go(&tx, 0);
		if (i == 3 * q + 4)
			vdev_reset(dev);
	}
}
static void queue_gone(unsigned q)
{
	offer(BUFS, BUF_LEN);
	vset(dev, VIRTIO_MMIO_QUEUE_SEL, q);
	vset(dev, VIRTIO_MMIO_QUEUE_READY, 0);
	make_frame(1000, 1);
	vq_desc(&tx, 0, (uintptr_t)tx_buf, HDR + 1000, 0, 0);
	go(&tx, 0);
	vq_kick(&ctrl);
}

static const struct {
	const char *name;
	void (*run)(unsigned q);
} attacks[] = {
	{"cyclic", cyclic},
	{"overlapping", overlapping},
	{"over the rings", over_the_rings},
	{"empty", empty},
	{"outside of memory", outside},
	{"huge", huge},
	{"wrong direction", wrong_direction},
	{"too short", too_short},
	{"index that jumps", jump},
	{"same head", same_head},
	{"nested table", nested_table},
	{"headers", headers},
	{"reset in the middle", reset_in_the_middle},
	{"queue taken away", queue_gone},
};

static void settle(void)
{
	uint64_t end = deadline_ms(SETTLE_MS);

	while (rdtsc() < end)
		__asm__ volatile("pause");
}
static void attack_all(void)
{
	for (unsigned a = 0; a < sizeof(attacks) / sizeof(attacks[0]); a++) {
		bool good = true;

		for (unsigned q = 0; q < 3; q++) {
			good &= fresh();
			attacks[a].run(q);
			settle();
			good &= works();
		}
		check(attacks[a].name, good, "the card does not work any more");
	}
}
/* All registers, the configuration space among them, at random. */
static void random_registers(void)
{
	bool good = true;

	for (unsigned r = 0; r < RANDOM_ROUNDS && good; r++) {
		for (unsigned i = 0; i < RANDOM_WRITES / 10; i++) {
			uint64_t v = xorshift(&seed);

			vset(dev, (v & 0xffc) % 0x140,
			     (uint32_t)(v >> 32) & (v & 0x1000 ? 0xf : ~0u));
		}
		if (r % 10 == 9)
			good = works();
	}
	check("random registers", good && works(), "the card does not work any more");
}
static void random_rings(void)
{
	bool good = true;

	for (unsigned r = 0; r < RANDOM_ROUNDS && good; r++) {
		good = fresh();
		for (unsigned q = 0; q < 3; q++) {
			struct vq *v = queue(q);

			for (uint16_t i = 0; i < v->size; i++)
				vq_desc(v, i, at((uint32_t)xorshift(&seed) % 60000),
					(uint32_t)xorshift(&seed) % 4000,
					(uint16_t)(xorshift(&seed) & 7),
					(uint16_t)(xorshift(&seed) % (v->size + 1)));
			for (uint16_t i = 0; i < v->size; i++)
				v->avail->ring[i] = (uint16_t)(xorshift(&seed) % (v->size + 1));
			barrier();
			*(volatile uint16_t *)&v->avail->idx = (uint16_t)(xorshift(&seed) % 40);
			vq_kick(v);
		}
		if (r % 10 == 9)
			good &= works();
	}
	check("random rings", good && works(), "the card does not work any more");
}

int main(void)
{
	dev = vdev_find(VIRTIO_ID_NET);
	if (!dev)
		return 3;
	check("starts", fresh(), "features or queues refused");
	check("its address", !(mac[0] & 1), "%x", mac[0]);
	frames();
	commands();
	attack_all();
	random_registers();
	random_rings();
	return finish();
}
