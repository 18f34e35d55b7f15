/* SPDX-License-Identifier: BSD-2-Clause */
/* A driver of the balloon for payloads (virtio 1.2, 5.5), and an arena of memory whose pages carry
 * stamps: what is given away reads as zeros, every other page has its stamp. Needs --mem 128M. */
#ifndef PAYLOAD_BALLOONDRV_H
#define PAYLOAD_BALLOONDRV_H

#include <linux/virtio_balloon.h>

#include "virtio.h"

#define PAGE 4096u
#define ARENA (32ull << 20)
#define ARENA_PAGES ((64u << 20) / PAGE)
#define CONFIG(field) (VIRTIO_MMIO_CONFIG + (unsigned)offsetof(struct virtio_balloon_config, field))
#define INFLATE 0u
#define DEFLATE 1u
#define STATISTICS 2u
#define REPORTS 3u            /* as Linux numbers them without hints */
#define BALLOON_WAIT_MS 20000 /* longer than a restart takes, whatever the machine does besides */

static uint64_t dev;
static struct vq q[4];
static uint32_t pfns[1024];
static uint32_t round_of[ARENA_PAGES];

static volatile uint64_t *page_at(uint32_t page)
{
	return (volatile uint64_t *)(ARENA + (uint64_t)page * PAGE);
}
static uint64_t stamp(uint32_t page)
{
	return (uint64_t)round_of[page] << 32 | (page + 1);
}
static void put_stamp(uint32_t page)
{
	page_at(page)[0] = page_at(page)[PAGE / 8 - 1] = stamp(page);
}
static bool has_stamp(uint32_t page)
{
	return page_at(page)[0] == stamp(page) && page_at(page)[PAGE / 8 - 1] == stamp(page);
}
PAYLOAD_FN bool is_zero(uint32_t page)
{
	return page_at(page)[0] == 0 && page_at(page)[PAGE / 8 - 1] == 0;
}

PAYLOAD_FN bool balloon_start(void)
{
	bool good = vdev_negotiate(dev, VFEATURE(VIRTIO_F_VERSION_1) |
						VFEATURE(VIRTIO_BALLOON_F_STATS_VQ) |
						VFEATURE(VIRTIO_BALLOON_F_DEFLATE_ON_OOM) |
						VFEATURE(VIRTIO_BALLOON_F_REPORTING));

	for (unsigned i = 0; good && i < 4; i++)
		good = vq_start(&q[i], dev, i, 64);
	if (good)
		vdev_add_status(dev, VIRTIO_CONFIG_S_DRIVER_OK);
	return good;
}

/* One descriptor, from offer to answer. */
PAYLOAD_FN bool balloon_give(unsigned queue, uint64_t addr, uint32_t len, bool write)
{
	struct vring_used_elem u;

	vq_desc(&q[queue], 0, addr, len, write ? VRING_DESC_F_WRITE : 0, 0);
	vq_push(&q[queue], 0);
	vq_kick(&q[queue]);
	return vq_pop(&q[queue], &u, BALLOON_WAIT_MS) && u.id == 0 && u.len == 0;
}

PAYLOAD_FN bool balloon_list(unsigned queue, uint32_t page, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		pfns[i] = (uint32_t)(ARENA / PAGE) + page + i;
	return balloon_give(queue, (uintptr_t)pfns, n * 4, false);
}

PAYLOAD_FN bool balloon_report(uint32_t page, uint32_t n)
{
	return balloon_give(REPORTS, ARENA + (uint64_t)page * PAGE, n * PAGE, true);
}

#endif
