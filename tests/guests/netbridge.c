/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A guest with two cards that carries each frame of one to the other, until it is killed. So the
 * host's own TCP, behind the second card, is what the first card has for a guest
 * (tests/guests/metadata.sh). Prints `up` when both run.
 */
#include <linux/virtio_net.h>

#include "virtio.h"

#define QSIZE 64u
#define HDR 12u
#define BUFS 64u
#define BUF_LEN 2048u
#define CARDS 2u

struct card {
	uint64_t dev;
	struct vq rx, tx;
	uint8_t (*buf)[BUF_LEN];
};

static _Alignas(BOARD_PAGE) uint8_t bufs[CARDS][BUFS][BUF_LEN];
static struct card card[CARDS];

/* Queues of the second card have their memory behind those of the first. */
static void start_queue(struct vq *q, unsigned nth, uint64_t dev, unsigned index)
{
	vset(dev, VIRTIO_MMIO_QUEUE_SEL, index);
	vq_clear(q, dev, 2 * nth + index, QSIZE);
	q->index = index;
	vq_tell(q, true);
}

static bool start_card(unsigned nth)
{
	struct card *c = &card[nth];

	c->buf = bufs[nth];
	if (!vdev_negotiate(c->dev, VFEATURE(VIRTIO_F_VERSION_1)))
		return false;
	start_queue(&c->rx, nth, c->dev, 0);
	start_queue(&c->tx, nth, c->dev, 1);
	vdev_add_status(c->dev, VIRTIO_CONFIG_S_DRIVER_OK);
	for (uint16_t i = 0; i < BUFS; i++) {
		vq_desc(&c->rx, i, (uintptr_t)c->buf[i], BUF_LEN, VRING_DESC_F_WRITE, 0);
		vq_push(&c->rx, i);
	}
	vq_kick(&c->rx);
	return vget(c->dev, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_DRIVER_OK;
}

static void find_cards(void)
{
	unsigned n = 0;

	for (unsigned i = 0; i < BOARD_MAX_VIRTIO && n < CARDS; i++) {
		if (vdev_is(vdev_base(i), VIRTIO_ID_NET))
			card[n++].dev = vdev_base(i);
	}
}

/* A frame stays in its buffer: it is sent from there, and then the buffer is offered again. */
static void carry(struct card *from, struct card *to)
{
	struct vring_used_elem u;
	bool rx = false, tx = false;

	while (vq_pop(&from->rx, &u, 0) && u.id < BUFS) {
		memset(from->buf[u.id], 0, HDR);
		vq_desc(&to->tx, u.id, (uintptr_t)from->buf[u.id], u.len, 0, 0);
		vq_push(&to->tx, (uint16_t)u.id);
		tx = true;
	}
	if (tx)
		vq_kick(&to->tx);
	while (vq_pop(&to->tx, &u, 0) && u.id < BUFS) {
		vq_push(&from->rx, (uint16_t)u.id);
		rx = true;
	}
	if (rx)
		vq_kick(&from->rx);
}

int main(void)
{
	find_cards();
	check("starts", card[1].dev && start_card(0) && start_card(1),
	      "no two cards, or one refuses features or queues");
	print("up\n");
	for (;;) {
		carry(&card[0], &card[1]);
		carry(&card[1], &card[0]);
	}
}
