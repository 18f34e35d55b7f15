/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The vsock device as a correct driver sees it, then as a hostile one uses it. On the host (see
 * vsock.sh): an echo at port 7, a symbolic link to it at 6, nothing at 8, and a client for port 9
 * as soon as "listening" is printed. Status 3: there is no such device.
 */
#include "vsockdrv.h"

#define MINE 1000u

static bool connect(uint32_t mine)
{
	return say(VIRTIO_VSOCK_OP_REQUEST, mine, 7) && comes(VIRTIO_VSOCK_OP_RESPONSE, mine, 7);
}

static bool echoes(uint32_t mine)
{
	struct virtio_vsock_hdr h = packet(VIRTIO_VSOCK_OP_RW, mine, 7);

	h.len = 5;
	memcpy(tx + HDR, "hello", 5);
	return send(&h) && comes(VIRTIO_VSOCK_OP_RW, mine, 7) && got.len == 5 &&
	       memcmp(data, "hello", 5) == 0;
}

static bool closes(uint32_t mine)
{
	struct virtio_vsock_hdr h = packet(VIRTIO_VSOCK_OP_SHUTDOWN, mine, 7);

	h.flags = 3;
	return send(&h) && comes(VIRTIO_VSOCK_OP_RST, mine, 7);
}

static void correct(void)
{
	struct virtio_vsock_hdr h;

	check("cid", read64(dev + VIRTIO_MMIO_CONFIG) == CID, "%lu",
	      (unsigned long)read64(dev + VIRTIO_MMIO_CONFIG));
	check("connects", connect(MINE), "operation %u", got.op);
	check("window", got.buf_alloc >= 32768, "%u", got.buf_alloc);
	check("echoes", echoes(MINE), "operation %u, %u bytes", got.op, got.len);
	check("counts", got.fwd_cnt == 5, "%u", got.fwd_cnt);
	check("again", echoes(MINE), "operation %u, %u bytes", got.op, got.len);
	/* Two bytes of credit; the rest when there is more. */
	h = packet(VIRTIO_VSOCK_OP_RW, MINE, 7);
	h.len = 5;
	h.fwd_cnt = 10;
	h.buf_alloc = 2;
	check("credit", send(&h) && comes(VIRTIO_VSOCK_OP_RW, MINE, 7) && got.len == 2, "%u bytes",
	      got.len);
	check("credit_wanted", comes(VIRTIO_VSOCK_OP_CREDIT_REQUEST, MINE, 7), "operation %u",
	      got.op);
	check("credit_kept", !receive(100), "operation %u", got.op);
	h = packet(VIRTIO_VSOCK_OP_CREDIT_UPDATE, MINE, 7);
	h.fwd_cnt = 12;
	check("credit_given", send(&h) && comes(VIRTIO_VSOCK_OP_RW, MINE, 7) && got.len == 3,
	      "%u bytes", got.len);
	check("credit_told",
	      say(VIRTIO_VSOCK_OP_CREDIT_REQUEST, MINE, 7) &&
		      comes(VIRTIO_VSOCK_OP_CREDIT_UPDATE, MINE, 7) && got.fwd_cnt == 15,
	      "operation %u, %u", got.op, got.fwd_cnt);
	check("closes", closes(MINE), "operation %u", got.op);
	check("refused",
	      say(VIRTIO_VSOCK_OP_REQUEST, MINE, 8) && comes(VIRTIO_VSOCK_OP_RST, MINE, 8),
	      "operation %u", got.op);
	check("symlink_refused",
	      say(VIRTIO_VSOCK_OP_REQUEST, MINE, 6) && comes(VIRTIO_VSOCK_OP_RST, MINE, 6),
	      "operation %u", got.op);
}

/* Serve port 9 until a client has come and gone: everything goes back. */
static void host_begins(void)
{
	uint64_t end = deadline_ms(4 * VIRTIO_WAIT_MS);
	unsigned open = 0, closed = 0;
	bool good = true;

	print("listening\n");
	while (good && rdtsc() < end && (closed == 0 || closed < open)) {
		struct virtio_vsock_hdr h;

		if (!receive(200))
			continue;
		h = packet(0, got.dst_port, got.src_port);
		good &= got.dst_port == 9 && got.src_port >= 0x40000000;
		if (got.op == VIRTIO_VSOCK_OP_REQUEST) {
			open++;
			h.op = VIRTIO_VSOCK_OP_RESPONSE;
		} else if (got.op == VIRTIO_VSOCK_OP_RW) {
			h.op = VIRTIO_VSOCK_OP_RW;
			h.len = got.len;
			memcpy(tx + HDR, data, got.len);
		} else if (got.op == VIRTIO_VSOCK_OP_SHUTDOWN) {
			h.op = VIRTIO_VSOCK_OP_SHUTDOWN;
			h.flags = VIRTIO_VSOCK_SHUTDOWN_SEND | VIRTIO_VSOCK_SHUTDOWN_RCV;
		} else {
			closed += got.op == VIRTIO_VSOCK_OP_RST;
			continue;
		}
		good &= send(&h);
	}
	check("host_begins", good && closed > 0 && open == closed, "%u opened, %u closed", open,
	      closed);
}

/* ---- packets that cannot be ---- */

static void evil_packets(void)
{
	struct virtio_vsock_hdr h;

	for (uint16_t op = 0; op < 10; op++) {
		if (op == VIRTIO_VSOCK_OP_REQUEST || op == VIRTIO_VSOCK_OP_RST)
			continue;
		if (!say(op, MINE, 7) || !comes(VIRTIO_VSOCK_OP_RST, MINE, 7))
			check("stranger", false, "operation %u", op);
	}
	check("strangers", true, " ");
	h = packet(VIRTIO_VSOCK_OP_REQUEST, MINE, 7);
	h.type = 2;
	check("seqpacket", send(&h) && comes(VIRTIO_VSOCK_OP_RST, MINE, 7) && got.type == 2,
	      "operation %u", got.op);
	h = packet(VIRTIO_VSOCK_OP_REQUEST, MINE, 7);
	h.dst_cid = 77;
	check("other_cid", send(&h) && comes(VIRTIO_VSOCK_OP_RST, MINE, 7) && got.src_cid == 77,
	      "operation %u", got.op);
	h = packet(VIRTIO_VSOCK_OP_REQUEST, MINE, 7);
	h.src_cid = 4;
	check("false_sender", send(&h) && !receive(100), "operation %u", got.op);
	h = packet(VIRTIO_VSOCK_OP_RW, MINE, 7);
	h.len = HUGE;
	check("more_than_credit", connect(MINE) && send(&h) && comes(VIRTIO_VSOCK_OP_RST, MINE, 7),
	      "operation %u", got.op);
	h = packet(VIRTIO_VSOCK_OP_CREDIT_UPDATE, MINE, 7);
	h.len = 1;
	check("payload_of_nothing",
	      connect(MINE) && send(&h) && comes(VIRTIO_VSOCK_OP_RST, MINE, 7), "operation %u",
	      got.op);
	check("twice",
	      connect(MINE) && say(VIRTIO_VSOCK_OP_REQUEST, MINE, 7) &&
		      comes(VIRTIO_VSOCK_OP_RST, MINE, 7),
	      "operation %u", got.op);
	check("lives", connect(MINE) && echoes(MINE) && closes(MINE), "operation %u", got.op);
}

/* ---- descriptors that cannot be ---- */

static void tx_writable(void)
{
	vq_desc(&q[TX], 0, (uintptr_t)tx, HDR, VRING_DESC_F_WRITE, 0);
	vq_push(&q[TX], 0);
}
static void tx_short(void)
{
	vq_desc(&q[TX], 0, (uintptr_t)tx, HDR - 1, 0, 0);
	vq_push(&q[TX], 0);
}
static void tx_len_beyond(void)
{
	struct virtio_vsock_hdr h = packet(VIRTIO_VSOCK_OP_RW, MINE, 7);

	h.len = 0xffffffff;
	memcpy(tx, &h, HDR);
	vq_desc(&q[TX], 0, (uintptr_t)tx, HDR + 10, 0, 0);
	vq_push(&q[TX], 0);
}
static void tx_empty(void)
{
	vq_desc(&q[TX], 0, (uintptr_t)tx, 0, 0, 0);
	vq_push(&q[TX], 0);
}
static void tx_not_memory(void)
{
	vq_desc(&q[TX], 0, BOARD_LAPIC, HDR, 0, 0);
	vq_push(&q[TX], 0);
}
static void tx_wraps(void)
{
	vq_desc(&q[TX], 0, (uintptr_t)tx, 0xffffffff, 0, 0);
	vq_push(&q[TX], 0);
}
static void tx_cycle(void)
{
	vq_desc(&q[TX], 0, (uintptr_t)tx, 1, VRING_DESC_F_NEXT, 1);
	vq_desc(&q[TX], 1, (uintptr_t)tx, 1, VRING_DESC_F_NEXT, 0);
	vq_push(&q[TX], 0);
}
static void tx_head_outside(void)
{
	vq_push(&q[TX], 0x7fff);
}
static void tx_index_jumps(void)
{
	q[TX].next = (uint16_t)(q[TX].next + 1000);
	vq_push(&q[TX], 0);
}

/* The device takes receive buffers when it has something to say: the reset of a stranger. */
static void bad_rx(uint64_t addr, uint32_t len, uint16_t flags, uint16_t next)
{
	vq_clear(&q[RX], dev, RX, SIZE);
	vq_desc(&q[RX], 0, addr, len, flags, next);
}
static void rx_use(void)
{
	struct virtio_vsock_hdr h = packet(VIRTIO_VSOCK_OP_RW, MINE, 8);

	memcpy(tx, &h, HDR);
	vq_desc(&q[TX], 0, (uintptr_t)tx, HDR, 0, 0);
	vq_push(&q[TX], 0);
	vq_kick(&q[TX]);
}
static void rx_readable(void)
{
	bad_rx((uintptr_t)rx, BUF, 0, 0);
	vq_push(&q[RX], 0);
}
static void rx_no_room(void)
{
	bad_rx((uintptr_t)rx, HDR, VRING_DESC_F_WRITE, 0);
	vq_push(&q[RX], 0);
}
static void rx_empty(void)
{
	bad_rx((uintptr_t)rx, 0, VRING_DESC_F_WRITE, 0);
	vq_push(&q[RX], 0);
}
static void rx_not_memory(void)
{
	bad_rx(BOARD_IOAPIC, BUF, VRING_DESC_F_WRITE, 0);
	vq_push(&q[RX], 0);
}
static void rx_cycle(void)
{
	bad_rx((uintptr_t)rx, BUF, VRING_DESC_F_WRITE | VRING_DESC_F_NEXT, 0);
	vq_push(&q[RX], 0);
}
static void rx_index_jumps(void)
{
	bad_rx((uintptr_t)rx, BUF, VRING_DESC_F_WRITE, 0);
	q[RX].next = 999;
	vq_push(&q[RX], 0);
}

static bool start_without_rx(void)
{
	if (!vdev_negotiate(dev, VFEATURE(VIRTIO_F_VERSION_1)))
		return false;
	for (unsigned i = 0; i < 3; i++)
		if (!vq_start(&q[i], dev, i, SIZE))
			return false;
	vdev_add_status(dev, VIRTIO_CONFIG_S_DRIVER_OK);
	return true;
}

static const struct {
	const char *name;
	void (*spoil)(void);
	bool receive;
} mistakes[] = {
	{"tx_writable", tx_writable, false},
	{"tx_short", tx_short, false},
	{"tx_len_beyond", tx_len_beyond, false},
	{"tx_empty", tx_empty, false},
	{"tx_not_memory", tx_not_memory, false},
	{"tx_wraps", tx_wraps, false},
	{"tx_cycle", tx_cycle, false},
	{"tx_head_outside", tx_head_outside, false},
	{"tx_index_jumps", tx_index_jumps, false},
	{"rx_readable", rx_readable, true},
	{"rx_no_room", rx_no_room, true},
	{"rx_empty", rx_empty, true},
	{"rx_not_memory", rx_not_memory, true},
	{"rx_cycle", rx_cycle, true},
	{"rx_index_jumps", rx_index_jumps, true},
};

/* The device must ask for a reset, and work after it. */
static void evil_descriptors(void)
{
	for (unsigned i = 0; i < sizeof(mistakes) / sizeof(mistakes[0]); i++) {
		uint64_t end = deadline_ms(VIRTIO_WAIT_MS);
		bool up = mistakes[i].receive ? start_without_rx() : start();

		mistakes[i].spoil();
		if (mistakes[i].receive) {
			vq_kick(&q[RX]);
			rx_use();
		}
		vq_kick(&q[TX]);
		while (!(vget(dev, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET) &&
		       rdtsc() < end)
			;
		check(mistakes[i].name,
		      up && vget(dev, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET,
		      "status 0x%x", vget(dev, VIRTIO_MMIO_STATUS));
	}
	check("works_again", start() && connect(MINE) && echoes(MINE) && closes(MINE),
	      "operation %u", got.op);
}

/* All buffers the same memory: that is the guest's own trouble. */
static void overlapping(void)
{
	bool good = start_without_rx();

	for (uint16_t i = 0; i < SIZE; i++) {
		vq_desc(&q[RX], i, (uintptr_t)rx[0] + i, BUF, VRING_DESC_F_WRITE, 0);
		vq_push(&q[RX], i);
	}
	vq_kick(&q[RX]);
	for (unsigned i = 0; i < SIZE; i++)
		good &= say(VIRTIO_VSOCK_OP_RW, MINE + i, 8);
	check("overlapping", good, "not taken");
	check("after_overlapping", start() && connect(MINE) && echoes(MINE), "operation %u",
	      got.op);
}

/* A queue is taken away while a connection is open. The connection is gone, and the driver hears
 * so. */
static void queue_reset(void)
{
	struct vring_used_elem u;

	memset(ev, 0xff, sizeof(ev));
	check("open", start() && connect(MINE), "operation %u", got.op);
	vset(dev, VIRTIO_MMIO_QUEUE_SEL, TX);
	vset(dev, VIRTIO_MMIO_QUEUE_READY, 0);
	check("transport_reset",
	      vq_pop(&q[EVENT], &u, VIRTIO_WAIT_MS) && u.len == 4 && ev[0] == 0 && ev[3] == 0,
	      "%u bytes", u.len);
	vq_push(&q[TX], 0);
	vq_kick(&q[TX]);
	check("after_queue_reset", start() && connect(MINE) && echoes(MINE) && closes(MINE),
	      "operation %u", got.op);
	check("reset_in_the_middle", connect(MINE) && start() && connect(MINE) && echoes(MINE),
	      "operation %u", got.op);
}

static void random_config(void)
{
	uint64_t seed = 88172645463325252ull;

	for (unsigned i = 0; i < 400; i++) {
		uint64_t r = xorshift(&seed), at = dev + VIRTIO_MMIO_CONFIG + r % 0xf00;

		if (i % 4 == 0)
			write8(at, (uint8_t)r);
		else if (i % 4 == 1)
			write16(at & ~1ull, (uint16_t)r);
		else if (i % 4 == 2)
			write32(at & ~3ull, (uint32_t)r);
		else
			write64(at & ~7ull, r);
	}
	check("config_is_read_only", read64(dev + VIRTIO_MMIO_CONFIG) == CID, "0x%lx",
	      (unsigned long)read64(dev + VIRTIO_MMIO_CONFIG));
	check("lives_on", start() && connect(MINE) && echoes(MINE) && closes(MINE), "operation %u",
	      got.op);
}

int main(void)
{
	dev = vdev_find(VIRTIO_ID_VSOCK);
	if (!dev)
		return 3;
	check("starts", start(), "status 0x%x", vget(dev, VIRTIO_MMIO_STATUS));
	correct();
	host_begins();
	evil_packets();
	evil_descriptors();
	overlapping();
	queue_reset();
	random_config();
	return finish();
}
