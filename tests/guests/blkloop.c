/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A disk under load for a time: requests of several blocks are in flight all the while, on all
 * queues that the disk has (one for each processor), writes of a pattern that names its round, then
 * reads that compare. Whatever happens to the helper meanwhile, each request is answered once,
 * without an error, and what was acknowledged is there.
 *
 * Command line: `flush=1`: the driver uses flushes. Each round's writes are flushed; what a flush
 * that failed was about counts as unknown until it is written again, and what was flushed has to be
 * there, at least in that version. `seconds=N` (default 3); `capacity=N`: or until the disk has so
 * many sectors; `shift=N`: all blocks N sectors later, so that with copy on write each has a part
 * of two of the disk's blocks, and shares them with its neighbours. Prints `looping` when the first
 * round is through, at the end `rounds N` and the usual result lines.
 */
#include "virtio.h"

#define SLOTS 16
#define BLOCK 4096u
#define SPAN 512u     /* blocks; the disk has at least as many: 2 MiB */
#define WAIT_MS 20000 /* longer than a restart takes, whatever the machine does besides */
#define DEFAULT_SECONDS 3

static struct blk b;
static struct vq q[VQ_COUNT];
static unsigned nqueues;
static struct blk_slot slot[SLOTS];
static _Alignas(4096) uint8_t data[SLOTS][BLOCK];
static uint32_t round_of[SPAN];   /* that was written last and acknowledged */
static bool flushes;              /* the driver uses them: */
static uint32_t since_of[SPAN];   /* the same, since the last flush that failed */
static uint32_t flushed_of[SPAN]; /* the round that a good flush covered last */
static uint32_t good_flushes, bad_flushes;
static uint64_t shift; /* sectors */

/* Each sector begins with its block and round. No more than that: these guests run a few million
 * instructions a second. */
static uint64_t stamp(uint32_t block, unsigned sector, uint32_t round)
{
	return (uint64_t)round << 32 | block << 4 | sector;
}
static void put_stamps(uint8_t *p, uint32_t block, uint32_t round)
{
	for (unsigned i = 0; i < BLOCK / SECTOR; i++)
		*(uint64_t *)(p + (size_t)i * SECTOR) = stamp(block, i, round);
}
static bool has_stamps(const uint8_t *p, uint32_t block, uint32_t round)
{
	for (unsigned i = 0; i < BLOCK / SECTOR; i++)
		if (*(const uint64_t *)(p + (size_t)i * SECTOR) != stamp(block, i, round))
			return false;
	return true;
}

/* One block per slot, all sent at once: slot i by queue i modulo their number. */
static void send(uint32_t type, uint32_t first)
{
	for (unsigned i = 0; i < SLOTS; i++) {
		struct vq *to = &q[i % nqueues];

		blk_fill(to, (uint16_t)(3 * i), &slot[i], type,
			 (uint64_t)((first + i) % SPAN) * (BLOCK / SECTOR) + shift, data[i], BLOCK);
		vq_push(to, (uint16_t)(3 * i));
	}
	for (unsigned i = 0; i < nqueues; i++)
		vq_kick(&q[i]);
}

/* Each answered exactly once and well, by its queue. */
static bool collect(const char *what, uint32_t round)
{
	uint32_t answered = 0;

	for (unsigned i = 0; i < SLOTS; i++) {
		struct vring_used_elem u;

		if (!vq_pop(&q[i % nqueues], &u, WAIT_MS))
			return check(what, false, "round %u: %u of %u answered", round, i, SLOTS);
		if (u.id % 3 || u.id / 3 >= SLOTS || u.id / 3 % nqueues != i % nqueues ||
		    answered >> (u.id / 3) & 1)
			return check(what, false, "round %u: id %u, answered 0x%x", round, u.id,
				     answered);
		if (slot[u.id / 3].status != VIRTIO_BLK_S_OK)
			return check(what, false, "round %u: status %u", round,
				     slot[u.id / 3].status);
		answered |= 1u << (u.id / 3);
	}
	return true;
}

/* As many queues as the disk offers. */
static bool bring_up(void)
{
	if (vdev_offered(b.dev) & VFEATURE(VIRTIO_BLK_F_RO))
		return false;
	nqueues = blk_start_all(&b, flushes ? VFEATURE(VIRTIO_BLK_F_FLUSH) : 0, q, 64);
	return nqueues != 0;
}

static bool more_answers(void)
{
	struct vring_used_elem u;

	for (unsigned i = 0; i < nqueues; i++) {
		if (vq_pop(&q[i], &u, 10))
			return true;
	}
	return false;
}

static bool write_round(uint32_t first, uint32_t round)
{
	for (unsigned i = 0; i < SLOTS; i++)
		put_stamps(data[i], (first + i) % SPAN, round);
	send(VIRTIO_BLK_T_OUT, first);
	if (!collect("writes", round))
		return false;
	for (unsigned i = 0; i < SLOTS; i++)
		round_of[(first + i) % SPAN] = since_of[(first + i) % SPAN] = round;
	return true;
}

/* All of what a good flush covered, or something that was written after it. */
static bool has_flushed(const uint8_t *p, uint32_t block)
{
	for (unsigned i = 0; i < BLOCK / SECTOR; i++) {
		uint64_t v = *(const uint64_t *)(p + (size_t)i * SECTOR);
		uint32_t of = (uint32_t)(v >> 32);

		if (!v && !flushed_of[block])
			continue;
		if (v != stamp(block, i, of) || of < flushed_of[block] || of > round_of[block])
			return false;
	}
	return true;
}

static bool flush_round(uint32_t round)
{
	struct vring_used_elem u;

	blk_fill(&q[0], 0, &slot[0], VIRTIO_BLK_T_FLUSH, 0, NULL, 0);
	vq_push(&q[0], 0);
	vq_kick(&q[0]);
	if (!vq_pop(&q[0], &u, WAIT_MS) || u.id)
		return check("flush", false, "round %u: not answered", round);
	if (slot[0].status != VIRTIO_BLK_S_OK) {
		if (!bad_flushes++)
			print("flush failed\n");
		memset(since_of, 0, sizeof(since_of));
		return true;
	}
	good_flushes++;
	for (unsigned i = 0; i < SPAN; i++)
		flushed_of[i] = since_of[i] ? since_of[i] : flushed_of[i];
	return true;
}

static bool read_round(uint32_t first, uint32_t round)
{
	for (unsigned i = 0; i < SLOTS; i++)
		put_stamps(data[i], SPAN, 0); /* nobody's */
	send(VIRTIO_BLK_T_IN, first);
	if (!collect("reads", round))
		return false;
	for (unsigned i = 0; i < SLOTS; i++) {
		uint32_t block = (first + i) % SPAN;

		if (!round_of[block])
			continue;
		if (flushes && !has_flushed(data[i], block))
			return check("data", false,
				     "round %u: block %u is not what rounds %u to %u wrote", round,
				     block, flushed_of[block], round_of[block]);
		if (flushes)
			continue;
		if (!has_stamps(data[i], block, round_of[block]))
			return check("data", false, "round %u: block %u is not what round %u wrote",
				     round, block, round_of[block]);
	}
	return true;
}

static uint32_t capacity_now(void)
{
	return read32(b.dev + VIRTIO_MMIO_CONFIG);
}

/* The time, or the disk is as large as that, or somebody types. */
static bool is_over(uint64_t end, uint32_t capacity)
{
	return rdtsc() >= end || (capacity && capacity_now() >= capacity) ||
	       (inb(BOARD_COM1 + UART_LSR) & UART_LSR_DR);
}

int main(void)
{
	uint64_t end, random = 0x9e3779b97f4a7c15ull;
	uint32_t round = 0, capacity = cmdline_number("capacity=", 0);
	bool good = true;

	flushes = cmdline_number("flush=", 0);
	shift = cmdline_number("shift=", 0);
	if (!check("disk",
		   blk_find(&b) && bring_up() && b.capacity >= SPAN * (BLOCK / SECTOR) + shift,
		   "none that can be written, of 2 MiB"))
		return finish();
	end = deadline_ms(cmdline_number("seconds=", DEFAULT_SECONDS) * 1000);
	while (good && (!is_over(end, capacity) || round == 0)) {
		uint32_t first = (uint32_t)xorshift(&random) % SPAN;

		round++;
		/* Where has been written before, and where has just been written. */
		good = read_round((uint32_t)xorshift(&random) % SPAN, round) &&
		       write_round(first, round) && (!flushes || flush_round(round)) &&
		       read_round(first, round);
		if (round == 1)
			print("looping\n");
	}
	/* All that was ever acknowledged, at the end. */
	for (uint32_t block = 0; good && block < SPAN; block += SLOTS)
		good = read_round(block, round);
	check("nothing_answered_twice", !more_answers(), "an answer too many");
	check("all_rounds", good, "no");
	print("rounds %u of %u queues\n", round, nqueues);
	if (flushes)
		print("flushes %u good, %u failed\n", good_flushes, bad_flushes);
	print("capacity %u\n", capacity_now());
	return finish();
}
