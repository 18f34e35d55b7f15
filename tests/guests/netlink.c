/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A card whose other end goes away and comes back. What a driver asks for is answered all the time:
 * commands of the control queue, frames to send, register accesses that are calls. Prints `link up`
 * and `link down` as the configuration says it, `echo` when a frame has come back after a change.
 *
 * Command line: `ups=N`: ends after the Nth `echo`. `halt`: brings the card up, prints `halted` and
 * costs no more processor time.
 */
#include "vnet.h"

#define LIFE_MS 50000
#define ECHO_MS 20
#define WANTED                                                               \
	(VFEATURE(VIRTIO_NET_F_MRG_RXBUF) | VFEATURE(VIRTIO_NET_F_CTRL_VQ) | \
	 VFEATURE(VIRTIO_NET_F_CTRL_RX) | VFEATURE(VIRTIO_NET_F_STATUS) |    \
	 VFEATURE(VIRTIO_F_VERSION_1))

static struct {
	uint8_t cmd[4];
	volatile uint8_t ack;
} ctl;
static bool link(void)
{
	return *(volatile uint16_t *)(uintptr_t)(net.dev + VIRTIO_MMIO_CONFIG + 6) &
	       VIRTIO_NET_S_LINK_UP;
}

static bool command(void)
{
	struct vring_used_elem u;

	ctl.cmd[0] = VIRTIO_NET_CTRL_RX;
	ctl.cmd[1] = VIRTIO_NET_CTRL_RX_PROMISC;
	ctl.cmd[2] = 1;
	ctl.ack = 0xee;
	vq_desc(&net.ctrl, 0, (uintptr_t)ctl.cmd, 3, VRING_DESC_F_NEXT, 1);
	vq_desc(&net.ctrl, 1, (uintptr_t)&ctl.ack, 1, VRING_DESC_F_WRITE, 0);
	vq_push(&net.ctrl, 0);
	vq_kick(&net.ctrl);
	return vq_pop(&net.ctrl, &u, VIRTIO_WAIT_MS) && ctl.ack == VIRTIO_NET_OK;
}

/* The frame is given back, wherever it goes. */
static bool send_frame(uint8_t number)
{
	uint8_t *f = vnet_room();

	memset(f, 0x02, 12);
	f[12] = 0x88; /* an EtherType for experiments */
	f[13] = 0xb5;
	f[14] = number;
	return vnet_send(60, VIRTIO_WAIT_MS);
}

static bool comes_back(uint8_t number)
{
	struct vnet_frame r;
	bool mine = false;

	while (!mine && vnet_receive(&r, ECHO_MS)) {
		mine = r.data[14] == number;
		vnet_give_back(&r);
	}
	return mine;
}

static bool registers(void)
{
	return vdev_offered(net.dev) & VFEATURE(VIRTIO_F_VERSION_1) &&
	       !(vget(net.dev, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET);
}

int main(void)
{
	uint64_t end = deadline_ms(LIFE_MS);
	unsigned left = cmdline_number("ups=", 1);
	bool was = false, first = true, echoed = false, good = true;
	uint8_t number = 0;

	check("starts", vnet_start(WANTED), "no card, or it refuses features or queues");
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
