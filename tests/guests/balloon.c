/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The balloon as a correct driver sees it, then as a hostile one uses it. Status 3: there is no such
 * device. At the end it has given 48 MiB of its arena of 64 away, says "given", and waits for a
 * byte: the host looks how much memory the guest still has.
 */
#include "balloondrv.h"

static bool all_stamped(uint32_t from, uint32_t to)
{
	for (uint32_t i = from; i < to; i++) {
		if (!has_stamp(i))
			return false;
	}
	return true;
}

static bool all_zero(uint32_t from, uint32_t to)
{
	for (uint32_t i = from; i < to; i++) {
		if (!is_zero(i))
			return false;
	}
	return true;
}

static void stamp_range(uint32_t from, uint32_t to)
{
	for (uint32_t i = from; i < to; i++)
		put_stamp(i);
}

static void correct(void)
{
	bool good = true;

	stamp_range(0, ARENA_PAGES);
	for (uint32_t i = 0; i < 1024 && good; i += 256)
		good = balloon_list(INFLATE, 100 + i, 256);
	check("inflates", good && all_zero(100, 1124), "no");
	check("beside_it_nothing_is_touched", all_stamped(0, 100) && all_stamped(1124, ARENA_PAGES),
	      "a page has lost its stamp");
	stamp_range(100, 1124);
	check("deflating_changes_nothing",
	      balloon_list(DEFLATE, 100, 1024) && all_stamped(0, ARENA_PAGES), "no");
	check("reports", balloon_report(2048, 2048) && all_zero(2048, 4096), "no");
	check("beside_the_report_nothing_is_touched",
	      all_stamped(0, 2048) && all_stamped(4096, ARENA_PAGES), "a page has lost its stamp");
	stamp_range(2048, 4096);
	vset(dev, CONFIG(actual), 4711);
	check("actual", vget(dev, CONFIG(actual)) == 4711, "%u", vget(dev, CONFIG(actual)));
	vset(dev, CONFIG(num_pages), 4711);
	print("asked for %u pages\n", vget(dev, CONFIG(num_pages)));
}

/* The device must ask for a reset and work after it. */
static void mistake(const char *name, unsigned queue, uint64_t addr, uint32_t len, bool write)
{
	uint64_t end = deadline_ms(VIRTIO_WAIT_MS);

	vq_desc(&q[queue], 0, addr, len, write ? VRING_DESC_F_WRITE : 0, 0);
	vq_push(&q[queue], 0);
	vq_kick(&q[queue]);
	while (!(vget(dev, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET) && rdtsc() < end)
		;
	check(name, vget(dev, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET, "status 0x%x",
	      vget(dev, VIRTIO_MMIO_STATUS));
	if (!balloon_start() || !balloon_list(DEFLATE, 0, 1))
		check(name, false, "it does not work after a reset");
}

static void hostile(void)
{
	pfns[0] = BOARD_LAPIC / PAGE;
	mistake("not_memory", INFLATE, (uintptr_t)pfns, 4, false);
	pfns[0] = (128u << 20) / PAGE;
	mistake("behind_the_memory", INFLATE, (uintptr_t)pfns, 4, false);
	pfns[0] = UINT32_MAX;
	mistake("far_away", INFLATE, (uintptr_t)pfns, 4, false);
	mistake("odd_length", INFLATE, (uintptr_t)pfns, 5, false);
	mistake("list_to_write_to", INFLATE, (uintptr_t)pfns, 4, true);
	mistake("report_of_a_device", REPORTS, BOARD_LAPIC, PAGE, true);
	mistake("report_beyond", REPORTS, (128u << 20) - PAGE, 2 * PAGE, true);
	mistake("report_to_read", REPORTS, ARENA, PAGE, false);
	mistake("statistics_to_write_to", STATISTICS, ARENA, PAGE, true);
	check("all_memory_is_there", all_stamped(0, ARENA_PAGES), "a page has lost its stamp");
}

int main(void)
{
	dev = vdev_find(VIRTIO_ID_BALLOON);
	if (!dev)
		return 3;
	check("starts", balloon_start(), "status 0x%x", vget(dev, VIRTIO_MMIO_STATUS));
	correct();
	hostile();
	check("gives_16_MiB_and_32_MiB",
	      balloon_report(0, 4096) && balloon_report(4096, 4096) && balloon_report(8192, 4096),
	      "no");
	print("given\n");
	while (!(inb(BOARD_COM1 + UART_LSR) & UART_LSR_DR))
		__asm__ volatile("pause");
	check("the_rest_is_there", all_stamped(12288, ARENA_PAGES), "a page has lost its stamp");
	return finish();
}
