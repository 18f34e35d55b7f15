/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A disk under load for a time: requests of several blocks are in flight all the while, on all queues
 * that the disk has (one for each processor), writes of a pattern that names its round, then reads
 * that compare. Whatever happens to the helper meanwhile, each request is answered once, without an
 * error, and what was acknowledged is there.
 *
 * Command line: `seconds=N` (default 3); `shift=N`: all blocks N sectors later, so that with copy on
 * write each has a part of two of the disk's blocks, and shares them with its neighbours. Prints
 * `looping` when the first round is through, at the end `rounds N` and the usual result lines.
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
static uint32_t round_of[SPAN]; /* that was written last and acknowledged */
static uint64_t shift;          /* sectors */

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
	uint64_t offered = vdev_offered(b.dev);

	if ((offered & VFEATURE(VIRTIO_BLK_F_RO)) ||
	    !vdev_negotiate(b.dev,
			    offered & (VFEATURE(VIRTIO_F_VERSION_1) | VFEATURE(VIRTIO_BLK_F_MQ))))
		return false;
	nqueues = 1;
	if (offered & VFEATURE(VIRTIO_BLK_F_MQ))
		nqueues = read16(b.dev + VIRTIO_MMIO_CONFIG +
				 offsetof(struct virtio_blk_config, num_queues));
	for (unsigned i = 0; i < nqueues; i++) {
		if (!vq_start(&q[i], b.dev, i, 64))
			return false;
	}
	b.capacity = read64(b.dev + VIRTIO_MMIO_CONFIG);
	vdev_add_status(b.dev, VIRTIO_CONFIG_S_DRIVER_OK);
	return vget(b.dev, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_DRIVER_OK;
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
		round_of[(first + i) % SPAN] = round;
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
		if (!has_stamps(data[i], block, round_of[block]))
			return check("data", false, "round %u: block %u is not what round %u wrote",
				     round, block, round_of[block]);
	}
	return true;
}

int main(void)
{
	uint64_t end, random = 0x9e3779b97f4a7c15ull;
	uint32_t round = 0;
	bool good = true;

	shift = cmdline_number("shift=", 0);
	if (!check("disk",
		   blk_find(&b) && bring_up() && b.capacity >= SPAN * (BLOCK / SECTOR) + shift,
		   "none that can be written, of 2 MiB"))
		return finish();
	end = deadline_ms(cmdline_number("seconds=", DEFAULT_SECONDS) * 1000);
	/* Until the time is over or somebody types. */
	while (good &&
	       ((rdtsc() < end && !(inb(BOARD_COM1 + UART_LSR) & UART_LSR_DR)) || round == 0)) {
		uint32_t first = (uint32_t)xorshift(&random) % SPAN;

		round++;
		/* Where has been written before, and where has just been written. */
		good = read_round((uint32_t)xorshift(&random) % SPAN, round) &&
		       write_round(first, round) && read_round(first, round);
		if (round == 1)
			print("looping\n");
	}
	/* All that was ever acknowledged, at the end. */
	for (uint32_t block = 0; good && block < SPAN; block += SLOTS)
		good = read_round(block, round);
	check("nothing_answered_twice", !more_answers(), "an answer too many");
	check("all_rounds", good, "no");
	print("rounds %u of %u queues\n", round, nqueues);
	return finish();
}
