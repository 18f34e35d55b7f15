/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A guest that sends whatever it is told to: a frame of EtherType 0x88b6 that comes holds a length
 * (16 bits, big endian) and a frame, which is sent as it is, with any addresses in it. So a test on
 * the host plays the guest that lies. A length of 0 ends it. 0x88b7 is the same, and before the frame
 * stand the numbers of a checksum that the host is to fill in: where it begins, and where in that it
 * goes (16 bits each). Prints `ready` when the card is up.
 *
 * policy.py is at the other end.
 */
#include "vnet.h"

#define LIFE_MS 150000
#define LIMIT_MS 60000 /* the card may be held back to a frame a second, on a busy machine */
#define WANTED                                                               \
	(VFEATURE(VIRTIO_NET_F_MRG_RXBUF) | VFEATURE(VIRTIO_NET_F_CTRL_VQ) | \
	 VFEATURE(VIRTIO_NET_F_STATUS) | VFEATURE(VIRTIO_NET_F_CSUM) |       \
	 VFEATURE(VIRTIO_F_VERSION_1))

static uint32_t be16(const uint8_t *p)
{
	return (uint32_t)p[0] << 8 | p[1];
}

static void ask_for_sum(uint32_t start, uint32_t offset)
{
	struct virtio_net_hdr_v1 *h = (void *)net.tx_buf;

	h->flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
	h->csum_start = (uint16_t)start;
	h->csum_offset = (uint16_t)offset;
}

/* 1: go on; 0: the end; -1: the card does not take a frame. */
static int obey(const uint8_t *f, uint32_t len)
{
	bool sum = len > 13 && f[13] == 0xb7;
	uint32_t n, head = sum ? 20 : 16;

	if (len < head || f[12] != 0x88 || (f[13] != 0xb6 && !sum))
		return 1;
	n = be16(f + 14);
	if (n == 0)
		return 0;
	if (n > len - head)
		return 1;
	memset(net.tx_buf, 0, VNET_HDR);
	if (sum)
		ask_for_sum(be16(f + 16), be16(f + 18));
	memcpy(vnet_room(), f + head, n);
	return vnet_send(n, LIMIT_MS) ? 1 : -1;
}

int main(void)
{
	uint64_t end = deadline_ms(LIFE_MS);
	int state = 1;

	check("starts", vnet_start(WANTED), "no card, or it refuses features or queues");
	print("ready\n");
	while (state == 1 && !net.wrong && rdtsc() < end) {
		struct vnet_frame r;

		if (!vnet_receive(&r, 50))
			continue;
		state = obey(r.data, r.len);
		vnet_give_back(&r);
	}
	check("frames", state == 0, "%d", state);
	return finish();
}
