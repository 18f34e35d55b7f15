/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Synchronous calls to the UART and, if there is one, to a disk, for a time: what a vCPU sees when
 * a helper is killed or does not answer. No access takes much longer than the deadline of a device,
 * a device that is gone reads all ones or what it read last, and in the end both work.
 *
 * Command line: `seconds=N` (default 3). Prints `looping` at the start, `slowest MS` and `lost N`
 * at the end.
 */
#include "virtio.h"

#define DEFAULT_SECONDS 3
#define DEADLINE_MS 2000          /* DP_DEADLINE_NS */
#define MOST_MS (DEADLINE_MS * 2) /* the machine does other things besides */
#define SCRATCH ((uint16_t)(BOARD_COM1 + UART_SCR))

static struct blk b;
static bool have_disk;
static uint64_t slowest; /* ticks */

static void note_time(uint64_t from)
{
	uint64_t took = rdtsc() - from;

	if (took > slowest)
		slowest = took;
}

static bool uart_works(uint8_t v)
{
	uint64_t from = rdtsc();

	outb(SCRATCH, v);
	note_time(from);
	return inb(SCRATCH) == v;
}

static uint32_t features(uint32_t half)
{
	uint64_t from = rdtsc();

	vset(b.dev, VIRTIO_MMIO_DEVICE_FEATURES_SEL, half);
	note_time(from);
	return vget(b.dev, VIRTIO_MMIO_DEVICE_FEATURES);
}

/* The halves are told apart by bit 0 of the high one: VIRTIO_F_VERSION_1. */
static bool disk_works(void)
{
	uint32_t high = features(1);

	return (high & 1) && features(0) != high;
}

int main(void)
{
	uint64_t end = deadline_ms(cmdline_number("seconds=", DEFAULT_SECONDS) * 1000);
	unsigned lost = 0, n = 0, last = 0;

	have_disk = blk_find(&b);
	print("looping\n");
	while (rdtsc() < end) {
		bool good = uart_works((uint8_t)(n++ | 1)) && (!have_disk || disk_works());

		lost += !good;
		last = good ? 0 : last + 1;
	}
	/* Printing needs the console; it has had its time to come back. */
	print("slowest %lu\nlost %u\n", slowest / tsc_khz(), lost);
	check("no_access_hangs", slowest / tsc_khz() < MOST_MS, "%lu ms", slowest / tsc_khz());
	check("devices_work_in_the_end", last == 0, "the last %u of %u failed", last, n);
	return finish();
}
