/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * An echo on all ports of the guest but one: what comes goes back, the end of one direction is
 * answered by the end of the other, until somebody of the host connects to port 1. Prints
 * "serving", and "replaced" each time that the device says its connections are gone. Status 3:
 * there is no such device.
 */
#include "vsockdrv.h"

#define END_PORT 1u

#define PORTS 4096u /* of the host: it takes them in order */

static unsigned opened, nopen;
static bool open[PORTS], over, good = true;

static void mark(bool is_open)
{
	bool *o = &open[got.src_port % PORTS];

	opened += is_open;
	nopen += (unsigned)is_open - (unsigned)*o;
	*o = is_open;
}

static void answer(uint16_t op, uint32_t flags)
{
	struct virtio_vsock_hdr h = packet(op, got.dst_port, got.src_port);

	h.flags = flags;
	if (op == VIRTIO_VSOCK_OP_RW) {
		h.len = got.len;
		memcpy(tx + HDR, data, got.len);
	}
	good &= send(&h);
}

static void on_packet(void)
{
	if (got.op == VIRTIO_VSOCK_OP_REQUEST && got.dst_port == END_PORT) {
		over = true;
		answer(VIRTIO_VSOCK_OP_RST, 0);
	} else if (got.op == VIRTIO_VSOCK_OP_REQUEST) {
		mark(true);
		answer(VIRTIO_VSOCK_OP_RESPONSE, 0);
	} else if (got.op == VIRTIO_VSOCK_OP_RW) {
		answer(VIRTIO_VSOCK_OP_RW, 0);
	} else if (got.op == VIRTIO_VSOCK_OP_SHUTDOWN && got.flags == VIRTIO_VSOCK_SHUTDOWN_SEND) {
		answer(VIRTIO_VSOCK_OP_SHUTDOWN, VIRTIO_VSOCK_SHUTDOWN_SEND);
	} else if (got.op == VIRTIO_VSOCK_OP_SHUTDOWN) {
		mark(false);
		answer(VIRTIO_VSOCK_OP_RST, 0);
	} else if (got.op == VIRTIO_VSOCK_OP_RST) {
		mark(false);
	}
}

/* 5.10.6.7: the connections are gone, with the process that had them. */
static void look_for_reset(void)
{
	struct vring_used_elem u;

	if (*(volatile uint16_t *)&q[EVENT].used->idx == q[EVENT].seen)
		return;
	good &= vq_pop(&q[EVENT], &u, 0) && u.len == 4;
	vq_push(&q[EVENT], 0);
	vq_kick(&q[EVENT]);
	memset(open, 0, sizeof(open));
	nopen = 0;
	print("replaced\n");
}

int main(void)
{
	dev = vdev_find(VIRTIO_ID_VSOCK);
	if (!dev)
		return 3;
	check("starts", start(), "status 0x%x", vget(dev, VIRTIO_MMIO_STATUS));
	print("serving\n");
	/* The connection that says it is over may be faster than the end of another. */
	for (unsigned left = 600; (!over || (nopen && left)) && good; left -= over) {
		if (receive(50))
			on_packet();
		look_for_reset();
	}
	check("all_taken", good, "operation %u", got.op);
	check("all_closed", nopen == 0, "%u are open", nopen);
	print("connections %u\n", opened);
	return finish();
}
