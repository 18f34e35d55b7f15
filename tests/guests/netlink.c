/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A card whose other end goes away and comes back. What a driver asks for is answered all the time:
 * commands of the control queue, frames to send, register accesses that are calls. Prints `link up`
 * and `link down` as the configuration says it, `echo` when a frame has come back after a change.
 *
 * Command line: `ups=N`: ends after the Nth `echo`. `halt`: brings the card up, prints `halted` and
 * costs no more processor time.
 */
#include <linux/virtio_net.h>

#include "virtio.h"

#define QSIZE 32u
#define HDR 12u
#define BUFS 16u
#define BUF_LEN 2048u
#define LIFE_MS 50000
#define ECHO_MS 20
#define WANTED                                                               \
	(VFEATURE(VIRTIO_NET_F_MRG_RXBUF) | VFEATURE(VIRTIO_NET_F_CTRL_VQ) | \
	 VFEATURE(VIRTIO_NET_F_CTRL_RX) | VFEATURE(VIRTIO_NET_F_STATUS) |    \
	 VFEATURE(VIRTIO_F_VERSION_1))

static _Alignas(BOARD_PAGE) uint8_t rx_buf[BUFS][BUF_LEN], tx_buf[256];
static struct {
	uint8_t cmd[4];
	volatile uint8_t ack;
} ctl;
static uint64_t dev;
static struct vq rx, tx, ctrl;

static bool bring_up(void)
{
	if (!vdev_negotiate(dev, vdev_offered(dev) & WANTED) || !vq_start(&rx, dev, 0, QSIZE) ||
	    !vq_start(&tx, dev, 1, QSIZE) || !vq_start(&ctrl, dev, 2, QSIZE))
		return false;
	vdev_add_status(dev, VIRTIO_CONFIG_S_DRIVER_OK);
	for (uint16_t i = 0; i < BUFS; i++) {
		vq_desc(&rx, i, (uintptr_t)rx_buf[i], BUF_LEN, VRING_DESC_F_WRITE, 0);
		vq_push(&rx, i);
	}
	vq_kick(&rx);
	return vget(dev, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_DRIVER_OK;
}

static bool link(void)
{
	return *(volatile uint16_t *)(uintptr_t)(dev + VIRTIO_MMIO_CONFIG + 6) &
	       VIRTIO_NET_S_LINK_UP;
}

static bool command(void)
{
	struct vring_used_elem u;

	ctl.cmd[0] = VIRTIO_NET_CTRL_RX;
	ctl.cmd[1] = VIRTIO_NET_CTRL_RX_PROMISC;
	ctl.cmd[2] = 1;
	ctl.ack = 0xee;
	vq_desc(&ctrl, 0, (uintptr_t)ctl.cmd, 3, VRING_DESC_F_NEXT, 1);
	vq_desc(&ctrl, 1, (uintptr_t)&ctl.ack, 1, VRING_DESC_F_WRITE, 0);
	vq_push(&ctrl, 0);
	vq_kick(&ctrl);
	return vq_pop(&ctrl, &u, VIRTIO_WAIT_MS) && ctl.ack == VIRTIO_NET_OK;
}

/* The frame is given back, wherever it goes. */
static bool send_frame(uint8_t number)
{
	struct vring_used_elem u;

	memset(tx_buf, 0, HDR);
	memset(tx_buf + HDR, 0x02, 12);
	tx_buf[HDR + 12] = 0x88; /* an EtherType for experiments */
	tx_buf[HDR + 13] = 0xb5;
	tx_buf[HDR + 14] = number;
	vq_desc(&tx, 0, (uintptr_t)tx_buf, HDR + 60, 0, 0);
	vq_push(&tx, 0);
	vq_kick(&tx);
	return vq_pop(&tx, &u, VIRTIO_WAIT_MS);
}

static bool comes_back(uint8_t number)
{
	struct vring_used_elem u;
	bool mine = false;

	while (!mine && vq_pop(&rx, &u, ECHO_MS) && u.id < BUFS) {
		mine = rx_buf[u.id][HDR + 14] == number;
		vq_push(&rx, (uint16_t)u.id);
		vq_kick(&rx);
	}
	return mine;
}

static bool registers(void)
{
	return vdev_offered(dev) & VFEATURE(VIRTIO_F_VERSION_1) &&
	       !(vget(dev, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET);
}

int main(void)
{
	uint64_t end = deadline_ms(LIFE_MS);
	unsigned left = cmdline_number("ups=", 1);
	bool was = false, first = true, echoed = false, good = true;
	uint8_t number = 0;

	dev = vdev_find(VIRTIO_ID_NET);
	check("starts", dev && bring_up(), "no card, or it refuses features or queues");
	if (cmdline_word("halt")) {
		print("halted\n");
		for (;;)
			__asm__ volatile("cli; hlt");
	}
	while (left && good && rdtsc() < end) {
		bool up = link();

		if (first || up != was) {
			print("link %s\n", up ? "up" : "down");
			echoed = false;
		}
		was = up;
		first = false;
		good = command() && send_frame(++number) && registers();
		if (up && !echoed && comes_back(number)) {
			print("echo\n");
			echoed = true;
			left--;
		}
		wait_ms(1);
	}
	check("everything_is_answered", good, "a command, a frame or a register is not");
	check("link", left == 0, "%u more times it should have come up", left);
	return finish();
}
