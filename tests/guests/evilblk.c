/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The block device as an enemy sees it. Each attack starts from a fresh device; afterwards the
 * registers must still answer, a reset must work, and a normal request must work again: a guest's
 * mistake costs the guest its device, until it resets it. Where more is known about the right
 * answer, it is checked.
 *
 * Device writes land in the arena or nowhere; give it a scratch disk. Without a device it skips.
 */
#include "virtio.h"

#define QSIZE 16u
#define ARENA 65536u
#define SETTLE_MS 20
#define ATTEMPT_MS 200
#define POISON 0xc7
#define RANDOM_WRITES 4000
#define RANDOM_ROUNDS 200
#define SEED 0x9e3779b97f4a7c15ull
#define WANTED                                                                  \
	(VFEATURE(VIRTIO_RING_F_INDIRECT_DESC) | VFEATURE(VIRTIO_BLK_F_FLUSH) | \
	 VFEATURE(VIRTIO_BLK_F_DISCARD) | VFEATURE(VIRTIO_BLK_F_WRITE_ZEROES) | \
	 VFEATURE(VIRTIO_BLK_F_MQ))

static _Alignas(BOARD_PAGE) uint8_t arena[ARENA];
static struct blk b;
static struct blk_slot slot;
static unsigned attempts;

static uintptr_t at(uint32_t off)
{
	return (uintptr_t)arena + off;
}
static void submit(uint16_t head)
{
	vq_push(&b.q, head);
	vq_kick(&b.q);
}
/* Until the device has answered all, or refuses to go on; then a fresh device if it does. Many
 * attempts in one attack only count if each meets a device that works. */
static void next_attempt(void)
{
	uint64_t end = deadline_ms(ATTEMPT_MS);

	while (*(volatile uint16_t *)&b.q.used->idx != b.q.avail->idx && rdtsc() < end)
		if (vget(b.dev, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET)
			break;
	if (*(volatile uint16_t *)&b.q.used->idx != b.q.avail->idx)
		blk_start(&b, WANTED, QSIZE);
	attempts++;
}
/* A read of one sector into the arena, as it should be; the attack changes something then. */
static void good_request(void)
{
	memset(arena, POISON, BOARD_PAGE);
	blk_fill(&b.q, 0, &slot, VIRTIO_BLK_T_IN, 0, arena, SECTOR);
}
static bool arena_untouched(uint32_t len)
{
	for (uint32_t i = 0; i < len; i++)
		if (arena[i] != POISON)
			return false;
	return true;
}

/* ---- chains ---- */

static void loop_of_one(void)
{
	vq_desc(&b.q, 0, at(0), 16, VRING_DESC_F_NEXT, 0);
	submit(0);
}
static void loop_of_three(void)
{
	for (uint16_t i = 0; i < 3; i++)
		vq_desc(&b.q, i, at(0), 16, VRING_DESC_F_NEXT, (uint16_t)((i + 1) % 3));
	submit(0);
}
static void loop_of_all(void)
{
	for (uint16_t i = 0; i < b.q.size; i++)
		vq_desc(&b.q, i, at(0), SECTOR, VRING_DESC_F_NEXT | VRING_DESC_F_WRITE,
			(uint16_t)((i + 1) % b.q.size));
	for (uint16_t i = 0; i < b.q.size; i++)
		vq_push(&b.q, i);
	vq_kick(&b.q);
}
static void loop_at_the_end(void)
{
	good_request();
	b.q.desc[2].flags |= VRING_DESC_F_NEXT;
	b.q.desc[2].next = 1;
	submit(0);
}
static void next_out_of_range(void)
{
	good_request();
	b.q.desc[0].next = b.q.size;
	submit(0);
	next_attempt();
	good_request();
	b.q.desc[0].next = 0xffff;
	submit(0);
}
static void head_out_of_range(void)
{
	submit(b.q.size);
	next_attempt();
	submit(0x7fff);
	next_attempt();
	submit(0xffff);
}
static void same_head_twice(void)
{
	good_request();
	for (unsigned i = 0; i < b.q.size; i++)
		vq_push(&b.q, 0);
	vq_kick(&b.q);
}
static void shared_tails(void)
{
	good_request();
	vq_desc(&b.q, 3, (uintptr_t)&slot.hdr, sizeof(slot.hdr), VRING_DESC_F_NEXT, 1);
	vq_push(&b.q, 0);
	vq_push(&b.q, 3);
	vq_push(&b.q, 1);
	vq_push(&b.q, 2);
	vq_kick(&b.q);
}
static void changed_in_flight(void)
{
	good_request();
	submit(0);
	for (unsigned i = 0; i < 500; i++) {
		b.q.desc[1].len = i & 1 ? ~0u : SECTOR;
		b.q.desc[1].addr = i & 2 ? ~0ull : at(0);
		b.q.desc[0].next = i & 4 ? 1 : 0xffff;
		barrier();
		if (i % 50 == 0)
			submit(0);
	}
	b.q.desc[1].addr = at(0); /* whatever still runs may only write here */
	b.q.desc[1].len = SECTOR;
}

/* ---- lengths ---- */

static void zero_lengths(void)
{
	for (unsigned mask = 1; mask < 8; mask++) {
		good_request();
		for (unsigned i = 0; i < 3; i++)
			if (mask >> i & 1)
				b.q.desc[i].len = 0;
		submit(0);
		next_attempt();
	}
}
static void huge_lengths(void)
{
	for (unsigned i = 0; i < 3; i++) {
		good_request();
		b.q.desc[i].len = ~0u;
		submit(0);
		next_attempt();
	}
}
/* Sums that overflow 32 bits, and 31. */
static void lengths_that_overflow(void)
{
	static const uint32_t len[] = {0x80000000, 0xfffffe00, 0x7fffffff, 0x40000000};

	for (unsigned k = 0; k < sizeof(len) / sizeof(len[0]); k++) {
		vq_desc(&b.q, 0, (uintptr_t)&slot.hdr, sizeof(slot.hdr), VRING_DESC_F_NEXT, 1);
		for (uint16_t i = 1; i < b.q.size - 1; i++)
			vq_desc(&b.q, i, at(0), len[k], VRING_DESC_F_NEXT | VRING_DESC_F_WRITE,
				(uint16_t)(i + 1));
		vq_desc(&b.q, b.q.size - 1u, (uintptr_t)&slot.status, 1, VRING_DESC_F_WRITE, 0);
		submit(0);
		next_attempt();
	}
}
static void missing_parts(void)
{
	vq_desc(&b.q, 0, (uintptr_t)&slot.hdr, sizeof(slot.hdr), 0, 0); /* no status */
	submit(0);
	next_attempt();
	vq_desc(&b.q, 1, (uintptr_t)&slot.status, 1, VRING_DESC_F_WRITE, 0); /* no header */
	submit(1);
	next_attempt();
	vq_desc(&b.q, 2, (uintptr_t)&slot.hdr, 8, VRING_DESC_F_NEXT, 3); /* half a header */
	vq_desc(&b.q, 3, (uintptr_t)&slot.status, 1, VRING_DESC_F_WRITE, 0);
	submit(2);
}

/* ---- addresses ---- */

static uint64_t low_ram_end(void)
{
	uint64_t p = (uintptr_t)arena & ~(uint64_t)(BOARD_PAGE - 1);

	/* 2 MiB at a time, then pages; reads of what is not there are all ones, and the RAM ends on
	 * a page. */
	while (p < BOARD_LOW_RAM_END && read64(p) != ~0ull)
		p += 2u << 20;
	while (p > (uintptr_t)arena && read64(p - BOARD_PAGE) == ~0ull)
		p -= BOARD_PAGE;
	return p;
}
static void wild_addresses(void)
{
	const uint64_t end = low_ram_end();
	const uint64_t wild[] = {
		end,         end - 8,      end - SECTOR + 1,   BOARD_VIRTIO_MMIO, b.dev + 0x70,
		BOARD_LAPIC, BOARD_IOAPIC, BOARD_HIGH_RAM - 8, 1ull << 40,        1ull << 52,
		1ull << 63,  ~0ull,        ~0ull - SECTOR + 1, ~0ull - 8,
	};

	for (unsigned part = 0; part < 3; part++)
		for (unsigned i = 0; i < sizeof(wild) / sizeof(wild[0]); i++) {
			good_request();
			b.q.desc[part].addr = wild[i];
			submit(0);
			next_attempt();
		}
}
/* A status byte that is its own header, data over the rings: the device writes where the guest
 * said, and trusts none of it. */
static void overlapping_buffers(void)
{
	good_request();
	b.q.desc[1].addr = (uintptr_t)&slot.hdr & ~15ull;
	b.q.desc[1].len = 16;
	submit(0);
	next_attempt();
	good_request();
	b.q.desc[1].addr = (uintptr_t)b.q.desc;
	submit(0);
	next_attempt();
	good_request();
	b.q.desc[2].addr = (uintptr_t)&b.q.avail->idx;
	submit(0);
	next_attempt();
	good_request();
	b.q.desc[1].addr = (uintptr_t)b.q.used;
	submit(0);
}

/* ---- directions ---- */

static void read_into_readable(void)
{
	good_request();
	b.q.desc[1].flags = VRING_DESC_F_NEXT;
	submit(0);
	wait_ms(SETTLE_MS);
	check("readable_memory_is_not_written", arena_untouched(SECTOR), "it was");
}
static void write_from_writable(void)
{
	memset(arena, POISON, BOARD_PAGE);
	blk_fill(&b.q, 0, &slot, VIRTIO_BLK_T_OUT, 8, arena, SECTOR);
	b.q.desc[1].flags |= VRING_DESC_F_WRITE;
	submit(0);
}
static void readable_status(void)
{
	good_request();
	b.q.desc[2].flags = 0;
	submit(0);
	wait_ms(SETTLE_MS);
	check("readable_status_is_not_written", slot.status == BLK_STATUS_POISON, "0x%x",
	      slot.status);
}
static void writable_header(void)
{
	good_request();
	b.q.desc[0].flags |= VRING_DESC_F_WRITE;
	submit(0);
}
/* Readable after writable is forbidden (2.7.4.2). */
static void mixed_order(void)
{
	good_request();
	b.q.desc[2].flags |= VRING_DESC_F_NEXT;
	b.q.desc[2].next = 3;
	vq_desc(&b.q, 3, at(SECTOR), SECTOR, 0, 0);
	submit(0);
	next_attempt();
	good_request();
	for (unsigned i = 0; i < 3; i++)
		b.q.desc[i].flags = (uint16_t)(b.q.desc[i].flags ^ VRING_DESC_F_WRITE);
	submit(0);
}
static void unknown_flags(void)
{
	good_request();
	for (unsigned i = 0; i < 3; i++)
		b.q.desc[i].flags |= 0xfff8;
	submit(0);
}

/* ---- the available ring ---- */

static void avail_jump(void)
{
	good_request();
	b.q.next = 60000;
	vq_push(&b.q, 0);
	vq_kick(&b.q);
}
static void avail_backwards(void)
{
	good_request();
	submit(0);
	next_attempt();
	b.q.next = 0xfffe;
	submit(0);
	next_attempt();
	b.q.next = 0;
	submit(0);
}
static void avail_full_turn(void)
{
	good_request();
	b.q.next = (uint16_t)(b.q.next + b.q.size); /* one more than there is room for */
	submit(0);
}
static void kick_storm(void)
{
	for (unsigned i = 0; i < 2000; i++)
		vset(b.dev, VIRTIO_MMIO_QUEUE_NOTIFY, i % 4 ? 0 : i);
	vset(b.dev, VIRTIO_MMIO_QUEUE_NOTIFY, ~0u);
	write8(b.dev + VIRTIO_MMIO_QUEUE_NOTIFY, 0);
	write16(b.dev + VIRTIO_MMIO_QUEUE_NOTIFY, 0);
	write64(b.dev + VIRTIO_MMIO_QUEUE_NOTIFY, 0);
}

/* ---- indirect tables ---- */

static struct vring_desc *table(void)
{
	return (struct vring_desc *)(void *)(arena + ARENA - BOARD_PAGE);
}
static void good_table(void)
{
	struct vq t = {.desc = table()};

	memset(arena, POISON, BOARD_PAGE);
	blk_fill(&t, 0, &slot, VIRTIO_BLK_T_IN, 0, arena, SECTOR);
	vq_desc(&b.q, 0, (uintptr_t)table(), 3 * sizeof(struct vring_desc), VRING_DESC_F_INDIRECT,
		0);
}
static void nested_tables(void)
{
	good_table();
	table()[1] = (struct vring_desc){(uintptr_t)table(), 48,
					 VRING_DESC_F_INDIRECT | VRING_DESC_F_NEXT, 2};
	submit(0);
	next_attempt();
	table()[0] = (struct vring_desc){(uintptr_t)table(), 16, VRING_DESC_F_INDIRECT, 0};
	b.q.desc[0].len = 16;
	submit(0);
}
static void table_sizes(void)
{
	static const uint32_t len[] = {0,    1,          15,         17,         47,
				       4096, 65536 * 16, 0x7ffffff0, 0xfffffff0, ~0u};

	for (unsigned i = 0; i < sizeof(len) / sizeof(len[0]); i++) {
		good_table();
		b.q.desc[0].len = len[i];
		submit(0);
		next_attempt();
	}
}
static void table_addresses(void)
{
	static const uint64_t addr[] = {BOARD_VIRTIO_MMIO, BOARD_HIGH_RAM - 16, 1ull << 52,
					~0ull - 15, ~0ull};

	for (unsigned i = 0; i < sizeof(addr) / sizeof(addr[0]); i++) {
		good_table();
		b.q.desc[0].addr = addr[i];
		submit(0);
		next_attempt();
	}
}
static void table_flags(void)
{
	good_table();
	b.q.desc[0].flags |= VRING_DESC_F_NEXT | VRING_DESC_F_WRITE;
	b.q.desc[0].next = 0;
	submit(0);
	next_attempt();
	good_table();
	table()[2].flags |= VRING_DESC_F_NEXT; /* a loop inside */
	table()[2].next = 0;
	submit(0);
	next_attempt();
	good_table();
	table()[0].next = 3; /* out of the table */
	submit(0);
}
static void table_after_direct(void)
{
	good_request();
	good_table();
	vq_desc(&b.q, 1, (uintptr_t)table(), 48, VRING_DESC_F_INDIRECT, 0);
	vq_desc(&b.q, 0, (uintptr_t)&slot.hdr, sizeof(slot.hdr), VRING_DESC_F_NEXT, 1);
	submit(0);
}
static void table_not_negotiated(void)
{
	if (!blk_start(&b, 0, QSIZE))
		return;
	good_table();
	submit(0);
}

/* ---- registers ---- */

/* After DRIVER_OK the queue is where it was, whatever is written. */
static void rewritten_queue(void)
{
	struct vring_used_elem u;
	bool done;

	vset(b.dev, VIRTIO_MMIO_QUEUE_SEL, 0);
	vq_set_address(b.dev, VIRTIO_MMIO_QUEUE_DESC_LOW, at(0x8000));
	vq_set_address(b.dev, VIRTIO_MMIO_QUEUE_AVAIL_LOW, ~0ull);
	vq_set_address(b.dev, VIRTIO_MMIO_QUEUE_USED_LOW, at(0xa000));
	vset(b.dev, VIRTIO_MMIO_QUEUE_NUM, 0x8000);
	vset(b.dev, VIRTIO_MMIO_QUEUE_READY, 1);
	good_request();
	submit(0);
	done = vq_pop(&b.q, &u, VIRTIO_WAIT_MS);
	check("queue_registers_are_frozen", done && slot.status == VIRTIO_BLK_S_OK,
	      "answered %d, status %u", done, slot.status);
}
static void queue_stopped(void)
{
	vset(b.dev, VIRTIO_MMIO_QUEUE_SEL, 0);
	vset(b.dev, VIRTIO_MMIO_QUEUE_READY, 0);
	good_request();
	submit(0);
}
/* Queues that no device may take: sizes, places, alignment. */
static void bad_queues(void)
{
	static const uint32_t num[] = {0, 3, 0x8000, 0xffff, ~0u};
	static const uint64_t addr[] = {~0ull,      ~0ull << 4,          BOARD_VIRTIO_MMIO,
					1ull << 52, BOARD_HIGH_RAM - 16, 8};
	static const unsigned reg[] = {VIRTIO_MMIO_QUEUE_DESC_LOW, VIRTIO_MMIO_QUEUE_AVAIL_LOW,
				       VIRTIO_MMIO_QUEUE_USED_LOW};

	for (unsigned i = 0; i < sizeof(num) / sizeof(num[0]); i++) {
		vdev_negotiate(b.dev, b.features);
		vq_tell(&b.q, false);
		vset(b.dev, VIRTIO_MMIO_QUEUE_NUM, num[i]);
		vset(b.dev, VIRTIO_MMIO_QUEUE_READY, 1);
		vdev_add_status(b.dev, VIRTIO_CONFIG_S_DRIVER_OK);
		vq_kick(&b.q);
	}
	for (unsigned i = 0; i < sizeof(addr) / sizeof(addr[0]) * 3; i++) {
		vdev_negotiate(b.dev, b.features);
		vq_tell(&b.q, false);
		vq_set_address(b.dev, reg[i % 3], addr[i / 3]);
		vset(b.dev, VIRTIO_MMIO_QUEUE_READY, 1);
		vdev_add_status(b.dev, VIRTIO_CONFIG_S_DRIVER_OK);
		vq_kick(&b.q);
	}
}
static void wrong_order(void)
{
	vdev_reset(b.dev);
	vq_kick(&b.q);
	vset(b.dev, VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_DRIVER_OK); /* out of nothing */
	vq_kick(&b.q);
	vdev_reset(b.dev);
	vset(b.dev, VIRTIO_MMIO_STATUS, 0xff);
	vq_kick(&b.q);
	vdev_negotiate(b.dev, b.features);
	vdev_add_status(b.dev, VIRTIO_CONFIG_S_DRIVER_OK); /* without queues */
	vq_kick(&b.q);
	vdev_accept(b.dev, ~0ull); /* features after FEATURES_OK */
	vset(b.dev, VIRTIO_MMIO_QUEUE_SEL, ~0u);
	vset(b.dev, VIRTIO_MMIO_QUEUE_READY, 1);
}
/* After the answer to a reset nothing may be written to memory any more. */
static void reset_in_flight(void)
{
	unsigned touched = 0;

	for (unsigned round = 0; round < 20; round++) {
		if (!blk_start(&b, WANTED, QSIZE))
			break;
		for (uint16_t i = 0; i + 3u <= b.q.size; i = (uint16_t)(i + 3)) {
			static struct blk_slot many[QSIZE];

			blk_fill(&b.q, i, &many[i], VIRTIO_BLK_T_IN, i, arena, BOARD_PAGE);
			vq_push(&b.q, i);
		}
		vq_kick(&b.q);
		vdev_reset(b.dev);
		memset(arena, POISON, BOARD_PAGE);
		wait_ms(3);
		touched += !arena_untouched(BOARD_PAGE);
	}
	check("quiet_after_reset", touched == 0, "memory changed in %u of 20 rounds", touched);
}

static void random_access(uint64_t *seed)
{
	uint64_t r = xorshift(seed), v = xorshift(seed);
	uint64_t addr = b.dev + (r % BOARD_PAGE & ~(uint64_t)(r >> 20 & 1 ? 3 : 0));
	unsigned size = r >> 32 & 3;

	if (addr + (1u << size) > b.dev + BOARD_PAGE)
		return;
	if (r >> 36 & 1)
		addr = b.dev + (addr & 0xff); /* where the registers are */
	if (r >> 40 & 1)
		v &= 0xff; /* values that mean something */
	if (r >> 44 & 1)
		size == 0   ? write8(addr, (uint8_t)v)
		: size == 1 ? write16(addr, (uint16_t)v)
		: size == 2 ? write32(addr, (uint32_t)v)
			    : write64(addr, v);
	else
		size == 0   ? (void)read8(addr)
		: size == 1 ? (void)read16(addr)
		: size == 2 ? (void)read32(addr)
			    : (void)read64(addr);
}
static void random_registers(void)
{
	uint64_t seed = SEED;

	for (unsigned i = 0; i < RANDOM_WRITES; i++)
		random_access(&seed);
}
/* Descriptors at random, but the device can only write into the first part of the arena, or
 * nowhere. */
static void random_chains(void)
{
	uint64_t seed = SEED;

	for (unsigned round = 0; round < RANDOM_ROUNDS; round++) {
		for (uint16_t i = 0; i < b.q.size; i++) {
			uint64_t r = xorshift(&seed);
			bool wild = (r & 15) == 0;

			vq_desc(&b.q, i, wild ? r | BOARD_LOW_RAM_END : at(r >> 8 & 0x3fff),
				r >> 24 & 1 ? 16 : (uint32_t)(r >> 32 & 0x3fff),
				(uint16_t)(r >> 48 & 7), (uint16_t)(r >> 52 & (b.q.size * 2u - 1)));
		}
		*(uint32_t *)(void *)arena =
			(uint32_t)xorshift(&seed) & 15; /* now and then a request type */
		for (unsigned n = 0; n < 4; n++)
			vq_push(&b.q, (uint16_t)(xorshift(&seed) % (b.q.size + 1u)));
		vq_kick(&b.q);
		next_attempt();
	}
}

/* ---- the judge ---- */

static const struct attack {
	const char *name;
	void (*run)(void);
} attacks[] = {
	{"loop_of_one", loop_of_one},
	{"loop_of_three", loop_of_three},
	{"loop_of_all", loop_of_all},
	{"loop_at_the_end", loop_at_the_end},
	{"next_out_of_range", next_out_of_range},
	{"head_out_of_range", head_out_of_range},
	{"same_head_twice", same_head_twice},
	{"shared_tails", shared_tails},
	{"changed_in_flight", changed_in_flight},
	{"zero_lengths", zero_lengths},
	{"huge_lengths", huge_lengths},
	{"lengths_that_overflow", lengths_that_overflow},
	{"missing_parts", missing_parts},
	{"wild_addresses", wild_addresses},
	{"overlapping_buffers", overlapping_buffers},
	{"read_into_readable", read_into_readable},
	{"write_from_writable", write_from_writable},
	{"readable_status", readable_status},
	{"writable_header", writable_header},
	{"mixed_order", mixed_order},
	{"unknown_flags", unknown_flags},
	{"avail_jump", avail_jump},
	{"avail_backwards", avail_backwards},
	{"avail_full_turn", avail_full_turn},
	{"kick_storm", kick_storm},
	{"nested_tables", nested_tables},
	{"table_sizes", table_sizes},
	{"table_addresses", table_addresses},
	{"table_flags", table_flags},
	{"table_after_direct", table_after_direct},
	{"table_not_negotiated", table_not_negotiated},
	{"rewritten_queue", rewritten_queue},
	{"queue_stopped", queue_stopped},
	{"bad_queues", bad_queues},
	{"wrong_order", wrong_order},
	{"reset_in_flight", reset_in_flight},
	{"random_registers", random_registers},
	{"random_chains", random_chains},
};

/* A normal request (a written sector read back, if the disk can be written), from reset on. */
static const char *still_works(void)
{
	static uint8_t data[SECTOR], back[SECTOR];

	if (!vdev_is(b.dev, VIRTIO_ID_BLOCK))
		return "the registers are gone";
	if (!vdev_reset(b.dev))
		return "no reset";
	if (!blk_start(&b, WANTED, QSIZE))
		return "does not start";
	fill_pattern(data, SECTOR, rdtsc());
	if (b.writable && blk_io(&b, VIRTIO_BLK_T_OUT, 1, data, SECTOR) != VIRTIO_BLK_S_OK)
		return "cannot write";
	if (blk_io(&b, VIRTIO_BLK_T_IN, 1, back, SECTOR) != VIRTIO_BLK_S_OK)
		return "cannot read";
	if (b.writable && memcmp(data, back, SECTOR) != 0)
		return "reads something else";
	return NULL;
}

int main(void)
{
	const char *why;

	if (!blk_find(&b)) {
		skip("evilblk", "no block device");
		return 0;
	}
	why = still_works();
	if (!check("before", why == NULL, "%s", why ? why : ""))
		return finish();
	for (unsigned i = 0; i < sizeof(attacks) / sizeof(attacks[0]); i++) {
		blk_start(&b, WANTED, QSIZE);
		attacks[i].run();
		wait_ms(SETTLE_MS);
		why = still_works();
		if (!check(attacks[i].name, why == NULL, "%s",
			   why ? why : "")) /* the rest means nothing */
			return finish();
	}
	print("attempts %u\n", attempts);
	return finish();
}
