/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A reset that nobody answers in time: the core gives up and the guest goes on, with the memory of
 * its last request. What it puts there must not reach the disk, whoever serves the disk next.
 *
 * Prints "stop it", waits for a byte on the serial line (by then insula-blk has been stopped), and
 * goes on. Status 3: there is no disk.
 */
#include "virtio.h"

#define LEN 4096u
#define ANSWER_MS 60000 /* until there is another helper, on a slow machine */

static _Alignas(4096) uint8_t before[LEN], data[LEN], after[LEN];
static struct blk b;
static struct blk_slot slot;

static void wait_for_byte(void)
{
	while (!(inb(BOARD_COM1 + 5) & 1))
		;
	(void)inb(BOARD_COM1);
}

static bool reset_in_the_end(void)
{
	uint64_t end = deadline_ms(ANSWER_MS);

	while (vget(b.dev, VIRTIO_MMIO_STATUS) != 0)
		if (rdtsc() > end)
			return false;
	return true;
}

int main(void)
{
	if (!blk_find(&b))
		return 3;
	fill_pattern(before, LEN, 1);
	check("before",
	      blk_start(&b, 0, 16) &&
		      blk_io(&b, VIRTIO_BLK_T_OUT, 0, before, LEN) == VIRTIO_BLK_S_OK,
	      "status 0x%x", vget(b.dev, VIRTIO_MMIO_STATUS));
	print("stop it\n");
	wait_for_byte();
	fill_pattern(data, LEN, 2);
	blk_fill(&b.q, 0, &slot, VIRTIO_BLK_T_OUT, 0, data, LEN);
	vq_push(&b.q, 0);
	vq_kick(&b.q);
	vset(b.dev, VIRTIO_MMIO_STATUS, 0);
	fill_pattern(data, LEN, 3);
	check("reset_in_the_end", reset_in_the_end(), "status 0x%x",
	      vget(b.dev, VIRTIO_MMIO_STATUS));
	check("not_answered", slot.status == BLK_STATUS_POISON, "status byte 0x%x", slot.status);
	check("works_again",
	      blk_start(&b, 0, 16) && blk_io(&b, VIRTIO_BLK_T_IN, 0, after, LEN) == VIRTIO_BLK_S_OK,
	      "status 0x%x", vget(b.dev, VIRTIO_MMIO_STATUS));
	check("disk_is_as_before", memcmp(after, before, LEN) == 0, "%s",
	      memcmp(after, data, LEN) ? "it has something else" : "it has reused memory");
	return finish();
}
