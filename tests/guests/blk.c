/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The block device as a correct driver sees it: identity, negotiation, every request, every error
 * that is the driver's fault. It writes: give it a scratch disk of at least 1 MiB (a read-only one
 * is tested as such). Without a device it skips.
 */
#include "virtio.h"

#define MAX_IO 65536u
#define PARALLEL 32
#define ALL_FEATURES                                                            \
	(VFEATURE(VIRTIO_BLK_F_SEG_MAX) | VFEATURE(VIRTIO_BLK_F_SIZE_MAX) |     \
	 VFEATURE(VIRTIO_BLK_F_BLK_SIZE) | VFEATURE(VIRTIO_BLK_F_TOPOLOGY) |    \
	 VFEATURE(VIRTIO_BLK_F_FLUSH) | VFEATURE(VIRTIO_BLK_F_MQ) |             \
	 VFEATURE(VIRTIO_BLK_F_DISCARD) | VFEATURE(VIRTIO_BLK_F_WRITE_ZEROES) | \
	 VFEATURE(VIRTIO_RING_F_INDIRECT_DESC))

static _Alignas(BOARD_PAGE) uint8_t out[MAX_IO], in[MAX_IO];
static struct blk b;

static uint32_t config32(size_t off)
{
	return read32(b.dev + VIRTIO_MMIO_CONFIG + off);
}

static void identity(void)
{
	check("magic", vget(b.dev, VIRTIO_MMIO_MAGIC_VALUE) == VIRTIO_MAGIC, "0x%x",
	      vget(b.dev, VIRTIO_MMIO_MAGIC_VALUE));
	check("version", vget(b.dev, VIRTIO_MMIO_VERSION) == 2, "%u",
	      vget(b.dev, VIRTIO_MMIO_VERSION));
	vset(b.dev, VIRTIO_MMIO_MAGIC_VALUE, 0);
	vset(b.dev, VIRTIO_MMIO_DEVICE_ID, 0);
	check("identity_is_read_only", vdev_is(b.dev, VIRTIO_ID_BLOCK), "changed");
}

/* Which sets of features a device must refuse, and that a reset forgets everything. */
static void negotiation(void)
{
	uint64_t offered = vdev_offered(b.dev);
	uint64_t missing = ~offered & VFEATURE(VIRTIO_F_VERSION_1 + 20); /* reserved */

	print("features 0x%lx\n", offered);
	check("offers_version_1", offered & VFEATURE(VIRTIO_F_VERSION_1), "0x%lx", offered);
	check("refuses_what_it_did_not_offer",
	      !vdev_negotiate(b.dev, VFEATURE(VIRTIO_F_VERSION_1) | missing), "taken");
	check("refuses_legacy", !vdev_negotiate(b.dev, 0), "taken");
	check("takes_what_it_offers", vdev_negotiate(b.dev, offered), "refused");
	check("reset_clears_status", vdev_reset(b.dev) && vget(b.dev, VIRTIO_MMIO_STATUS) == 0,
	      "0x%x", vget(b.dev, VIRTIO_MMIO_STATUS));
	vset(b.dev, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 2);
	check("no_third_feature_word", vget(b.dev, VIRTIO_MMIO_DEVICE_FEATURES) == 0, "0x%x",
	      vget(b.dev, VIRTIO_MMIO_DEVICE_FEATURES));
}

static void queue_registers(void)
{
	vset(b.dev, VIRTIO_MMIO_QUEUE_SEL, 0);
	check("queue_is_there", vget(b.dev, VIRTIO_MMIO_QUEUE_NUM_MAX) >= 16, "%u entries",
	      vget(b.dev, VIRTIO_MMIO_QUEUE_NUM_MAX));
	check("queue_not_ready", vget(b.dev, VIRTIO_MMIO_QUEUE_READY) == 0, "ready");
	vset(b.dev, VIRTIO_MMIO_QUEUE_SEL, 1000);
	check("queue_1000_is_not", vget(b.dev, VIRTIO_MMIO_QUEUE_NUM_MAX) == 0, "%u entries",
	      vget(b.dev, VIRTIO_MMIO_QUEUE_NUM_MAX));
	vset(b.dev, VIRTIO_MMIO_QUEUE_SEL, 0);
}

static void configuration(void)
{
	uint32_t gen = vget(b.dev, VIRTIO_MMIO_CONFIG_GENERATION);

	print("capacity %lu\n", b.capacity);
	check("capacity", b.capacity >= 2048 && b.capacity < 1ull << 55, "%lu sectors", b.capacity);
	check("config_generation", vget(b.dev, VIRTIO_MMIO_CONFIG_GENERATION) == gen, "changes");
	if (b.features & VFEATURE(VIRTIO_BLK_F_BLK_SIZE)) {
		uint32_t size = config32(offsetof(struct virtio_blk_config, blk_size));

		check("block_size", size >= SECTOR && size <= BOARD_PAGE && !(size & (size - 1)),
		      "%u", size);
	}
	if (b.features & VFEATURE(VIRTIO_BLK_F_SEG_MAX))
		check("seg_max", config32(offsetof(struct virtio_blk_config, seg_max)) >= 1, "%u",
		      config32(offsetof(struct virtio_blk_config, seg_max)));
	write32(b.dev + VIRTIO_MMIO_CONFIG, 1);
	check("capacity_is_read_only", read64(b.dev + VIRTIO_MMIO_CONFIG) == b.capacity, "changed");
}

/* Written, read back, and what is next to it untouched. */
static void write_and_read(const char *name, uint64_t sector, uint32_t len)
{
	int w, r;

	fill_pattern(out, len, sector + len);
	memset(in, 0, len);
	w = blk_io(&b, VIRTIO_BLK_T_OUT, sector, out, len);
	r = blk_io(&b, VIRTIO_BLK_T_IN, sector, in, len);
	check(name,
	      w == VIRTIO_BLK_S_OK && r == VIRTIO_BLK_S_OK && b.used_len == len + 1 &&
		      memcmp(in, out, len) == 0,
	      "write %d, read %d, used length %u, first bytes 0x%x 0x%x", w, r, b.used_len, out[0],
	      in[0]);
}

static void data(void)
{
	write_and_read("one_sector", 0, SECTOR);
	write_and_read("one_page", 8, BOARD_PAGE);
	write_and_read("large", 64, MAX_IO);
	write_and_read("last_sector", b.capacity - 1, SECTOR);
	check("flush", blk_io(&b, VIRTIO_BLK_T_FLUSH, 0, NULL, 0) == VIRTIO_BLK_S_OK, "failed");
	fill_pattern(out, SECTOR, 0 + SECTOR);
	blk_io(&b, VIRTIO_BLK_T_IN, 0, in, SECTOR);
	check("others_untouched", memcmp(in, out, SECTOR) == 0, "sector 0 changed");
}

static void read_only(void)
{
	memset(out, 0x77, SECTOR);
	check("read_only_reads", blk_io(&b, VIRTIO_BLK_T_IN, 0, in, SECTOR) == VIRTIO_BLK_S_OK,
	      "failed");
	check("read_only_refuses",
	      blk_io(&b, VIRTIO_BLK_T_OUT, 0, out, SECTOR) == VIRTIO_BLK_S_IOERR, "taken");
	memcpy(out, in, SECTOR);
	blk_io(&b, VIRTIO_BLK_T_IN, 0, in, SECTOR);
	check("read_only_keeps", memcmp(in, out, SECTOR) == 0, "changed");
}

static void get_id(void)
{
	int r;

	memset(in, '#', VIRTIO_BLK_ID_BYTES + 1);
	r = blk_io(&b, VIRTIO_BLK_T_GET_ID, 0, in, VIRTIO_BLK_ID_BYTES);
	check("get_id", r == VIRTIO_BLK_S_OK && in[VIRTIO_BLK_ID_BYTES] == '#', "status %d", r);
	in[VIRTIO_BLK_ID_BYTES] = 0;
	print("id %s\n", (const char *)in);
}

static int range_request(uint32_t type, uint64_t sector, uint32_t n, uint32_t flags)
{
	static struct virtio_blk_discard_write_zeroes range;

	range = (struct virtio_blk_discard_write_zeroes){
		.sector = sector, .num_sectors = n, .flags = flags};
	return blk_io(&b, type, 0, &range, sizeof(range));
}

static void write_zeroes(void)
{
	unsigned wrong = 0;
	int r;

	if (!(b.features & VFEATURE(VIRTIO_BLK_F_WRITE_ZEROES))) {
		check("no_write_zeroes",
		      range_request(VIRTIO_BLK_T_WRITE_ZEROES, 0, 8, 0) == VIRTIO_BLK_S_UNSUPP,
		      "taken");
		return;
	}
	fill_pattern(out, MAX_IO, 1);
	blk_io(&b, VIRTIO_BLK_T_OUT, 128, out, MAX_IO);
	r = range_request(VIRTIO_BLK_T_WRITE_ZEROES, 136, 16, 0);
	blk_io(&b, VIRTIO_BLK_T_IN, 128, in, MAX_IO);
	for (unsigned i = 8 * SECTOR; i < 24 * SECTOR; i++)
		wrong += in[i] != 0;
	check("write_zeroes",
	      r == VIRTIO_BLK_S_OK && wrong == 0 && memcmp(in, out, 8 * SECTOR) == 0 &&
		      memcmp(in + 24 * SECTOR, out + 24 * SECTOR, SECTOR) == 0,
	      "status %d, %u bytes are not 0", r, wrong);
	r = range_request(VIRTIO_BLK_T_WRITE_ZEROES, b.capacity - 1, 2, 0);
	check("write_zeroes_beyond_the_end", r == VIRTIO_BLK_S_IOERR, "status %d", r);
	r = range_request(VIRTIO_BLK_T_WRITE_ZEROES, ~0ull, 2, 0);
	check("write_zeroes_overflow", r == VIRTIO_BLK_S_IOERR, "status %d", r);
	r = range_request(VIRTIO_BLK_T_WRITE_ZEROES, 0, 8, 0x80);
	check("write_zeroes_unknown_flag", r == VIRTIO_BLK_S_UNSUPP, "status %d", r);
}

static void discard(void)
{
	int r;

	if (!(b.features & VFEATURE(VIRTIO_BLK_F_DISCARD))) {
		check("no_discard",
		      range_request(VIRTIO_BLK_T_DISCARD, 0, 8, 0) == VIRTIO_BLK_S_UNSUPP, "taken");
		return;
	}
	r = range_request(VIRTIO_BLK_T_DISCARD, 256, 64, 0);
	check("discard", r == VIRTIO_BLK_S_OK, "status %d", r);
	r = range_request(VIRTIO_BLK_T_DISCARD, b.capacity, 1, 0);
	check("discard_beyond_the_end", r == VIRTIO_BLK_S_IOERR, "status %d", r);
	r = range_request(VIRTIO_BLK_T_DISCARD, 0, 8, 1); /* "unmap" is for write-zeroes alone */
	check("discard_unknown_flag", r == VIRTIO_BLK_S_UNSUPP, "status %d", r);
	write_and_read("after_discard", 256, BOARD_PAGE);
}

static void refused(void)
{
	static const struct {
		const char *name;
		int64_t from_end; /* sector: this far from the capacity */
		uint32_t len;
	} beyond[] = {
		{"read_at_the_end", 0, SECTOR},
		{"read_across_the_end", -1, 2 * SECTOR},
		{"read_far_beyond", 1ll << 40, SECTOR},
		{"read_part_of_a_sector", -1, 100},
	};
	int r;

	for (unsigned i = 0; i < sizeof(beyond) / sizeof(beyond[0]); i++) {
		r = blk_io(&b, VIRTIO_BLK_T_IN, b.capacity + (uint64_t)beyond[i].from_end, in,
			   beyond[i].len);
		check(beyond[i].name, r == VIRTIO_BLK_S_IOERR, "status %d", r);
	}
	r = blk_io(&b, VIRTIO_BLK_T_IN, ~0ull, in, SECTOR);
	check("read_sector_overflow", r == VIRTIO_BLK_S_IOERR, "status %d", r);
	r = blk_io(&b, VIRTIO_BLK_T_IN, ~0ull / SECTOR + 1, in, SECTOR);
	check("read_byte_overflow", r == VIRTIO_BLK_S_IOERR, "status %d", r);
	r = blk_io(&b, VIRTIO_BLK_T_OUT, b.capacity, out, SECTOR);
	check("write_at_the_end", r == VIRTIO_BLK_S_IOERR, "status %d", r);
	r = blk_io(&b, 0x1234, 0, out, SECTOR);
	check("unknown_request", r == VIRTIO_BLK_S_UNSUPP, "status %d", r);
}

/* The driver may cut a request into descriptors as it likes (2.7.4): here header and data in
 * pieces. */
static void any_layout(void)
{
	static struct blk_slot s;
	struct vring_used_elem u;
	uint16_t d = 0;
	bool done;

	blk_io(&b, VIRTIO_BLK_T_IN, 8, out, BOARD_PAGE);
	memset(in, 0, BOARD_PAGE);
	s = (struct blk_slot){{.type = VIRTIO_BLK_T_IN, .sector = 8}, BLK_STATUS_POISON};
	for (; d < 4; d++)
		vq_desc(&b.q, d, (uintptr_t)&s.hdr + 4u * d, 4, VRING_DESC_F_NEXT,
			(uint16_t)(d + 1));
	for (uint32_t off = 0; off < BOARD_PAGE; off += BOARD_PAGE / 8, d++)
		vq_desc(&b.q, d, (uintptr_t)in + off, BOARD_PAGE / 8,
			VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, (uint16_t)(d + 1));
	vq_desc(&b.q, d, (uintptr_t)&s.status, 1, VRING_DESC_F_WRITE, 0);
	vq_push(&b.q, 0);
	vq_kick(&b.q);
	done = vq_pop(&b.q, &u, VIRTIO_WAIT_MS);
	check("any_layout", done && s.status == VIRTIO_BLK_S_OK && memcmp(in, out, BOARD_PAGE) == 0,
	      "answered %d, status %u", done, s.status);
}

static void indirect(void)
{
	static _Alignas(16) struct vring_desc table[3];
	static struct blk_slot s;
	struct vq t = {.desc = table};
	struct vring_used_elem u;
	bool done;

	if (!(b.features & VFEATURE(VIRTIO_RING_F_INDIRECT_DESC))) {
		skip("indirect", "not offered");
		return;
	}
	memset(in, 0, BOARD_PAGE);
	blk_fill(&t, 0, &s, VIRTIO_BLK_T_IN, 8, in, BOARD_PAGE);
	vq_desc(&b.q, 5, (uintptr_t)table, sizeof(table), VRING_DESC_F_INDIRECT, 0);
	vq_push(&b.q, 5);
	vq_kick(&b.q);
	done = vq_pop(&b.q, &u, VIRTIO_WAIT_MS);
	check("indirect",
	      done && u.id == 5 && s.status == VIRTIO_BLK_S_OK && memcmp(in, out, BOARD_PAGE) == 0,
	      "answered %d, status %u", done, s.status);
}

/* Many at a time, one kick: each is answered exactly once. */
static void parallel(void)
{
	static struct blk_slot s[PARALLEL];
	uint16_t n = b.q.size / 3 < PARALLEL ? b.q.size / 3 : PARALLEL;
	uint64_t answered = 0;
	unsigned twice = 0, failed = 0;
	struct vring_used_elem u;

	for (uint16_t i = 0; i < n; i++) {
		blk_fill(&b.q, (uint16_t)(3 * i), &s[i], VIRTIO_BLK_T_IN, i, in + i * SECTOR,
			 SECTOR);
		vq_push(&b.q, (uint16_t)(3 * i));
	}
	vq_kick(&b.q);
	for (uint16_t i = 0; i < n && vq_pop(&b.q, &u, VIRTIO_WAIT_MS); i++) {
		twice += u.id % 3 || u.id / 3 >= n || (answered >> u.id / 3 & 1);
		answered |= 1ull << u.id / 3 % 64;
	}
	for (uint16_t i = 0; i < n; i++)
		failed += s[i].status != VIRTIO_BLK_S_OK;
	check("parallel", answered == (1ull << n) - 1 && !twice && !failed && !vq_pop(&b.q, &u, 10),
	      "answered 0x%lx, wrong ids %u, failed %u", answered, twice, failed);
}

/* More requests than the 16-bit indices of a small queue hold in one turn: the ring wraps around
 * many times. */
static void wrap(void)
{
	int r = VIRTIO_BLK_S_OK;

	if (!check("small_queue", blk_start(&b, ALL_FEATURES, 4), "does not start"))
		return;
	for (unsigned i = 0; i < 300 && r == VIRTIO_BLK_S_OK; i++)
		r = blk_io(&b, VIRTIO_BLK_T_IN, i % 64, in, SECTOR);
	check("ring_wraps", r == VIRTIO_BLK_S_OK, "status %d", r);
}

static void event_index(void)
{
	int r;

	if (!(b.offered & VFEATURE(VIRTIO_RING_F_EVENT_IDX))) {
		skip("event_index", "not offered");
		return;
	}
	if (!check("event_index_start",
		   blk_start(&b, ALL_FEATURES | VFEATURE(VIRTIO_RING_F_EVENT_IDX), 64),
		   "does not start"))
		return;
	r = blk_io(&b, VIRTIO_BLK_T_IN, 0, in, SECTOR);
	if (r == VIRTIO_BLK_S_OK)
		r = blk_io(&b, VIRTIO_BLK_T_IN, 1, in, SECTOR);
	check("event_index", r == VIRTIO_BLK_S_OK, "status %d", r);
}

static void queues(void)
{
	static struct vq q[VQ_COUNT];
	unsigned n, started = 0, good = 0;

	if (!(b.features & VFEATURE(VIRTIO_BLK_F_MQ))) {
		skip("queues", "not offered");
		return;
	}
	n = read16(b.dev + VIRTIO_MMIO_CONFIG + offsetof(struct virtio_blk_config, num_queues));
	print("queues %u\n", n);
	vdev_negotiate(b.dev, b.features);
	for (unsigned i = 0; i < n && i < VQ_COUNT; i++)
		started += vq_start(&q[i], b.dev, i, 16);
	vdev_add_status(b.dev, VIRTIO_CONFIG_S_DRIVER_OK);
	for (unsigned i = 0; i < started; i++)
		good += blk_request(&b, &q[i], VIRTIO_BLK_T_IN, i, in, SECTOR) == VIRTIO_BLK_S_OK;
	check("queues", n >= 1 && n <= VQ_COUNT && good == n, "%u offered, %u started, %u work", n,
	      started, good);
}

/* The ring's bit stays set while the driver runs (so that an acknowledge needs no exit); the other
 * one is exact. */
static void interrupt_status(void)
{
	uint32_t before, after;

	if (vpci_of(b.dev))
		return; /* pci.c has it */
	before = vget(b.dev, VIRTIO_MMIO_INTERRUPT_STATUS);

	vset(b.dev, VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_MMIO_INT_VRING);
	after = vget(b.dev, VIRTIO_MMIO_INTERRUPT_STATUS);
	check("interrupt_status", before == VIRTIO_MMIO_INT_VRING && after == VIRTIO_MMIO_INT_VRING,
	      "0x%x, then 0x%x", before, after);
}

int main(void)
{
	if (!blk_find(&b)) {
		skip("blk", "no block device");
		return 0;
	}
	identity();
	negotiation();
	queue_registers();
	if (!check("start", blk_start(&b, ALL_FEATURES, 128), "status 0x%x",
		   vget(b.dev, VIRTIO_MMIO_STATUS)))
		return finish();
	configuration();
	interrupt_status();
	get_id();
	if (b.writable) {
		data();
		write_zeroes();
		discard();
	} else {
		read_only();
	}
	refused();
	any_layout();
	indirect();
	parallel();
	wrap();
	event_index();
	if (check("start_again", blk_start(&b, ALL_FEATURES, 128), "status 0x%x",
		  vget(b.dev, VIRTIO_MMIO_STATUS)))
		queues();
	return finish();
}
