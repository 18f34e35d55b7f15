/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A disk whose helper dies and cannot be started again: the driver reads that the device needs a
 * reset (virtio 1.2, 2.1.2) and acknowledges the configuration interrupt. A driver that does
 * nothing else, as Linux's, has its device back when the helper is: a request that it made
 * meanwhile is answered.
 *
 * Prints `looping` when the disk works, `told` when the failure was read, then the usual lines.
 */
#include "virtio.h"

#define WAIT_MS 60000 /* for somebody outside */
#define ISR_CONFIG 2u

static struct blk b;
static struct blk_slot slot;
static _Alignas(4096) uint8_t data[4096];

static bool needs_reset(void)
{
	return vget(b.dev, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET;
}

static bool wait_for(bool want)
{
	uint64_t end = deadline_ms(WAIT_MS);

	while (needs_reset() != want && rdtsc() < end)
		__asm__ volatile("pause");
	return needs_reset() == want;
}

int main(void)
{
	struct vring_used_elem u;

	if (!check("disk",
		   blk_find(&b) && blk_start(&b, 0, 64) &&
			   blk_io(&b, VIRTIO_BLK_T_IN, 0, data, sizeof(data)) == VIRTIO_BLK_S_OK,
		   "none that can be read"))
		return finish();
	print("looping\n");
	if (!check("needs_reset", wait_for(true), "status 0x%x", vget(b.dev, VIRTIO_MMIO_STATUS)))
		return finish();
	check("configuration_interrupt", vget(b.dev, VIRTIO_MMIO_INTERRUPT_STATUS) & ISR_CONFIG,
	      "0x%x", vget(b.dev, VIRTIO_MMIO_INTERRUPT_STATUS));
	vset(b.dev, VIRTIO_MMIO_INTERRUPT_ACK, vget(b.dev, VIRTIO_MMIO_INTERRUPT_STATUS));
	blk_fill(&b.q, 0, &slot, VIRTIO_BLK_T_IN, 8, data, sizeof(data));
	vq_push(&b.q, 0);
	vq_kick(&b.q);
	print("told\n");
	check("comes_back", vq_pop(&b.q, &u, WAIT_MS) && slot.status == VIRTIO_BLK_S_OK,
	      "status %u", slot.status);
	check("needs_no_reset", wait_for(false), "status 0x%x", vget(b.dev, VIRTIO_MMIO_STATUS));
	check("works", blk_io(&b, VIRTIO_BLK_T_IN, 0, data, sizeof(data)) == VIRTIO_BLK_S_OK,
	      "it does not");
	return finish();
}
