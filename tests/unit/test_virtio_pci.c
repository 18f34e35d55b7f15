/* SPDX-License-Identifier: BSD-2-Clause */
/* virtio over PCI, through a device page: each register with each size, vectors, queue resets, and
 * what another process finds. The status machine is tested in test_virtio.c: it is the same. */
#include <check.h>

#include <devices/worker.h>

#include "virtiorig.h"

#define VECTORS (NQUEUES + 1)
#define RESET_RING DRV_F(VIRTIO_F_RING_RESET)

static void setup_pci(void)
{
	setup_core();
	fc_vectors(&core, VECTORS);
	setup_rest();
}

static uint64_t get(uint32_t off, uint32_t size)
{
	return size == 1   ? fc_shadow8(&core, off)
	       : size == 2 ? fc_shadow16(&core, off)
	       : size == 4 ? fc_shadow32(&core, off)
			   : fc_shadow64(&core, off);
}

static void put(uint32_t off, uint32_t size, uint64_t v)
{
	fc_write(&core, off, size, v);
}

/* Which vectors were signalled, a bit for each, and how often one of them was at the most. */
static uint32_t signalled(unsigned *most)
{
	uint32_t bits = 0;

	for (unsigned i = 0; i < VECTORS; i++) {
		uint64_t n = event_drain(core.vector_fd[i]);

		bits |= n ? 1u << i : 0;
		if (most && n > *most)
			*most = (unsigned)n;
	}
	return bits;
}

static void expect_once(uint32_t bits)
{
	unsigned most = 0;

	ck_assert_uint_eq(signalled(&most), bits);
	ck_assert_uint_le(most, 1);
}

static void up(uint64_t features)
{
	ck_assert(drv_negotiate(&core, DRV_COMMON | features));
	for (unsigned i = 0; i < NQUEUES; i++) {
		drvq_init(&drv[i], &gm, Q(i), 16, true, -1);
		ck_assert(drv_queue(&core, i, &drv[i]));
	}
	drv_ok(&core);
	ck_assert_uint_eq(drv_status(&core), 0xf);
}

/* ---- registers ---- */

START_TEST(in_the_beginning)
{
	ck_assert_uint_eq(get(VPCI_NUM_QUEUES, 2), NQUEUES);
	ck_assert_uint_eq(get(VPCI_CONFIG_VECTOR, 2), VPCI_NO_VECTOR);
	ck_assert_uint_eq(get(VPCI_STATUS, 1), 0);
	ck_assert_uint_eq(get(VPCI_QUEUE_RESET, 2), 0);
	ck_assert_uint_eq(get(VPCI_QUEUE_NOTIFY_DATA, 2), 0);
	for (unsigned i = 0; i < NQUEUES; i++) {
		put(VPCI_QUEUE_SELECT, 2, i);
		ck_assert_uint_eq(get(VPCI_QUEUE_SIZE, 2), VQ_MAX_NUM);
		ck_assert_uint_eq(get(VPCI_QUEUE_VECTOR, 2), VPCI_NO_VECTOR);
		ck_assert_uint_eq(get(VPCI_QUEUE_ENABLE, 2), 0);
		ck_assert_uint_eq(get(VPCI_QUEUE_NOTIFY, 2), i);
		ck_assert_uint_eq(get(VPCI_QUEUE_DESC, 8), 0);
	}
	ck_assert_uint_eq(drv_features(&core), MODEL_FEATURES | DRV_COMMON | RESET_RING);
	put(VPCI_DEVICE_FEATURE_SELECT, 4, 2);
	ck_assert_uint_eq(get(VPCI_DEVICE_FEATURE, 4), 0);
	ck_assert_mem_eq(core.page + VPCI_CONFIG, config, sizeof(config));
	/* Nothing of what MMIO has in these places. */
	ck_assert_uint_eq(get(VPCI_COMMON_SIZE, 8), 0);
	ck_assert_uint_eq(get(VPCI_NOTIFY_PLACE, 8), 0);
	ck_assert_uint_eq(get(0xb0, 8), 0);
}
END_TEST

/* Whatever can be written is read back. */
START_TEST(read_back)
{
	static const struct {
		uint32_t off, size;
		uint64_t val, becomes;
	} r[] = {{VPCI_DEVICE_FEATURE_SELECT, 4, 0x12345678, 0x12345678},
		 {VPCI_DRIVER_FEATURE_SELECT, 4, 1, 1},
		 {VPCI_DRIVER_FEATURE, 4, 0xa5, 0xa5},
		 {VPCI_DRIVER_FEATURE_SELECT, 4, 0, 0},
		 {VPCI_DRIVER_FEATURE, 4, 0xdeadbeef, 0xdeadbeef},
		 {VPCI_DRIVER_FEATURE_SELECT, 4, 2, 2},
		 {VPCI_DRIVER_FEATURE, 4, 5, 0},
		 {VPCI_CONFIG_VECTOR, 2, 2, 2},
		 {VPCI_CONFIG_VECTOR, 2, VECTORS, VPCI_NO_VECTOR},
		 {VPCI_STATUS, 1, 3, 3},
		 {VPCI_STATUS, 1, 0x40, 3}, /* NEEDS_RESET is the device's */
		 {VPCI_QUEUE_SELECT, 2, 1, 1},
		 {VPCI_QUEUE_SIZE, 2, 8, 8},
		 {VPCI_QUEUE_VECTOR, 2, 1, 1},
		 {VPCI_QUEUE_VECTOR, 2, 0xfffe, VPCI_NO_VECTOR},
		 {VPCI_QUEUE_VECTOR, 2, 0, 0},
		 {VPCI_QUEUE_DESC, 8, 0x123456789abcdef0, 0x123456789abcdef0},
		 {VPCI_QUEUE_DRIVER, 8, 0x8877665544332210, 0x8877665544332210},
		 {VPCI_QUEUE_DEVICE, 8, ~0ull, ~0ull},
		 {VPCI_QUEUE_DEVICE + 4, 4, 0x11, 0x11},
		 {VPCI_QUEUE_DRIVER, 4, 0x22, 0x22},
		 {VPCI_NUM_QUEUES, 2, 7, NQUEUES}, /* these are only read */
		 {VPCI_GENERATION, 1, 7, 0},
		 {VPCI_QUEUE_NOTIFY, 2, 7, 1},
		 {VPCI_QUEUE_NOTIFY_DATA, 2, 7, 0}};

	for (size_t i = 0; i < ARRAY_LEN(r); i++) {
		put(r[i].off, r[i].size, r[i].val);
		ck_assert_msg(get(r[i].off, r[i].size) == r[i].becomes, "%zu: 0x%llx", i,
			      (unsigned long long)get(r[i].off, r[i].size));
	}
	ck_assert_uint_eq(get(VPCI_QUEUE_DEVICE, 8), 0x11ffffffff);
	ck_assert_uint_eq(get(VPCI_QUEUE_DRIVER, 8), 0x8877665500000022);
	ck_assert_uint_eq(dev->m.v.st->driver_features, 0xa5deadbeef);
	/* Queue 0 has its own. */
	put(VPCI_QUEUE_SELECT, 2, 0);
	ck_assert_uint_eq(get(VPCI_QUEUE_SIZE, 2), VQ_MAX_NUM);
	ck_assert_uint_eq(get(VPCI_QUEUE_DEVICE, 8), 0);
}
END_TEST

START_TEST(no_such_queue)
{
	for (unsigned i = NQUEUES; i <= 0xffff; i = i * 2 + 1) {
		put(VPCI_QUEUE_SELECT, 2, i);
		ck_assert_uint_eq(get(VPCI_QUEUE_SELECT, 2), i);
		put(VPCI_QUEUE_SIZE, 2, 16);
		put(VPCI_QUEUE_VECTOR, 2, 1);
		put(VPCI_QUEUE_DESC, 8, 4096);
		put(VPCI_QUEUE_ENABLE, 2, 1);
		put(VPCI_QUEUE_RESET, 2, 1);
		ck_assert_uint_eq(get(VPCI_QUEUE_SIZE, 2), 0);
		ck_assert_uint_eq(get(VPCI_QUEUE_VECTOR, 2), VPCI_NO_VECTOR);
		ck_assert_uint_eq(get(VPCI_QUEUE_ENABLE, 2), 0);
		ck_assert_uint_eq(get(VPCI_QUEUE_NOTIFY, 2), 0);
		ck_assert_uint_eq(get(VPCI_QUEUE_DESC, 8), 0);
	}
	ck_assert_uint_eq(get(VPCI_STATUS, 1), 0);
}
END_TEST

/* Each access of each size to the whole page, but those that are a register's own, changes
 * nothing. */
START_TEST(other_sizes)
{
	static const struct {
		uint32_t off, size;
	} own[] = {{VPCI_DEVICE_FEATURE_SELECT, 4},
		   {VPCI_DRIVER_FEATURE_SELECT, 4},
		   {VPCI_DRIVER_FEATURE, 4},
		   {VPCI_CONFIG_VECTOR, 2},
		   {VPCI_STATUS, 1},
		   {VPCI_QUEUE_SELECT, 2},
		   {VPCI_QUEUE_SIZE, 2},
		   {VPCI_QUEUE_VECTOR, 2},
		   {VPCI_QUEUE_ENABLE, 2},
		   {VPCI_QUEUE_RESET, 2}};
	uint8_t before[DP_SHADOW_SIZE];

	ck_assert(drv_negotiate(&core, DRV_COMMON));
	put(VPCI_QUEUE_SELECT, 2, 1);
	memcpy(before, core.page, sizeof(before));
	for (uint32_t size = 1; size <= 8; size *= 2) {
		for (uint32_t off = 0; off <= DP_SHADOW_SIZE + 8; off++) {
			bool is = off >= VPCI_QUEUE_DESC && off < VPCI_QUEUE_DEVICE + 8 &&
				  off % size == 0 && size >= 4;

			for (size_t i = 0; i < ARRAY_LEN(own); i++)
				is |= own[i].off == off && own[i].size == size;
			if (is)
				continue;
			put(off, size, 0x0101010101010101);
			ck_assert_msg(!memcmp(core.page, before, sizeof(before)),
				      "%u bytes at 0x%x", size, off);
		}
	}
	put(UINT32_MAX, 4, 1);
	ck_assert_mem_eq(core.page, before, sizeof(before));
	ck_assert_uint_eq(fc_read(&core, VPCI_NUM_QUEUES, 2), NQUEUES);
	ck_assert_uint_eq(fc_read(&core, VPCI_STATUS, 1), 0xb);
	ck_assert_uint_eq(fc_read(&core, DP_SHADOW_SIZE, 1), UINT64_MAX);
	ck_assert_uint_eq(fc_read(&core, VPCI_STATUS + 1, 4), UINT64_MAX);
	ck_assert_uint_eq(fc_read(&core, UINT32_MAX, 8), UINT64_MAX);
}
END_TEST

/* Only 1 enables, and nothing disables. */
START_TEST(queue_enable)
{
	ck_assert(drv_negotiate(&core, DRV_COMMON));
	put(VPCI_QUEUE_SELECT, 2, 0);
	put(VPCI_QUEUE_SIZE, 2, 16);
	put(VPCI_QUEUE_DESC, 8, Q(0));
	put(VPCI_QUEUE_DRIVER, 8, Q(0) + 0x1000);
	put(VPCI_QUEUE_DEVICE, 8, Q(0) + 0x2000);
	put(VPCI_QUEUE_ENABLE, 2, 3);
	ck_assert_uint_eq(get(VPCI_QUEUE_ENABLE, 2), 0);
	put(VPCI_QUEUE_ENABLE, 2, 1);
	ck_assert_uint_eq(get(VPCI_QUEUE_ENABLE, 2), 1);
	put(VPCI_QUEUE_ENABLE, 2, 0);
	put(VPCI_QUEUE_ENABLE, 2, 2);
	ck_assert_uint_eq(get(VPCI_QUEUE_ENABLE, 2), 1);
	/* Frozen. */
	put(VPCI_QUEUE_SIZE, 2, 8);
	put(VPCI_QUEUE_DESC, 8, 0);
	ck_assert_uint_eq(get(VPCI_QUEUE_SIZE, 2), 16);
	ck_assert_uint_eq(get(VPCI_QUEUE_DESC, 8), Q(0));
	/* One whose size was left as it is. */
	put(VPCI_QUEUE_SELECT, 2, 1);
	put(VPCI_QUEUE_DESC, 8, Q(1));
	put(VPCI_QUEUE_DRIVER, 8, Q(1) + 0x1000);
	put(VPCI_QUEUE_DEVICE, 8, Q(1) + 0x2000);
	put(VPCI_QUEUE_ENABLE, 2, 1);
	drv_ok(&core);
	ck_assert_uint_eq(dev->queues, 2);
	ck_assert_uint_eq(dev->m.v.vq[1].num, VQ_MAX_NUM);
	/* What cannot be is refused when it is enabled, as on MMIO. */
	ck_assert(drv_negotiate(&core, DRV_COMMON));
	put(VPCI_QUEUE_SELECT, 2, 0);
	put(VPCI_QUEUE_SIZE, 2, 12);
	put(VPCI_QUEUE_ENABLE, 2, 1);
	ck_assert_uint_eq(get(VPCI_QUEUE_ENABLE, 2), 0);
	ck_assert_uint_eq(drv_status(&core), 0xb | VIRTIO_CONFIG_S_NEEDS_RESET);
}
END_TEST

START_TEST(reset_pci)
{
	up(0);
	ck_assert_uint_eq(get(VPCI_CONFIG_VECTOR, 2), 0);
	put(VPCI_STATUS, 1, 0);
	ck_assert_uint_eq(dev->stops, 1);
	ck_assert_uint_eq(get(VPCI_STATUS, 1), 0);
	ck_assert_uint_eq(get(VPCI_CONFIG_VECTOR, 2), VPCI_NO_VECTOR);
	ck_assert_uint_eq(get(VPCI_QUEUE_SELECT, 2), 0);
	for (unsigned i = 0; i < NQUEUES; i++) {
		put(VPCI_QUEUE_SELECT, 2, i);
		ck_assert_uint_eq(get(VPCI_QUEUE_VECTOR, 2), VPCI_NO_VECTOR);
		ck_assert_uint_eq(get(VPCI_QUEUE_SIZE, 2), VQ_MAX_NUM);
		ck_assert_uint_eq(get(VPCI_QUEUE_ENABLE, 2), 0);
		ck_assert_uint_eq(get(VPCI_QUEUE_DRIVER, 8), 0);
	}
	up(0);
	ck_assert_uint_eq(dev->starts, 2);
}
END_TEST

START_TEST(generation)
{
	uint8_t gen = (uint8_t)get(VPCI_GENERATION, 1);

	up(0);
	signalled(NULL);
	/* Of 8 bits; and nothing of it gets into its neighbour. */
	for (unsigned i = 1; i <= 200; i++) {
		config[0]++;
		front_config_changed(&dev->m, false);
		ck_assert_uint_eq(get(VPCI_GENERATION, 1), (uint8_t)(gen + 2 * i));
		ck_assert_uint_eq(get(VPCI_CONFIG, 1), config[0]);
	}
	ck_assert_uint_eq(get(VPCI_STATUS, 1), 0xf);
	ck_assert_uint_eq(get(VPCI_QUEUE_SELECT, 2), 1);
	expect_once(0);
	gen = (uint8_t)get(VPCI_GENERATION, 1);
	put(VPCI_STATUS, 1, 0);
	ck_assert_uint_eq(get(VPCI_GENERATION, 1), gen);
	restart();
	ck_assert_uint_eq(get(VPCI_GENERATION, 1), (uint8_t)(gen + 1));
}
END_TEST

static struct {
	uint32_t off, size;
	uint64_t val;
	unsigned n;
} wrote;

static void model_configure(void *arg, uint32_t off, uint32_t size, uint64_t val)
{
	(void)arg;
	wrote.off = off;
	wrote.size = size;
	wrote.val = val;
	wrote.n++;
}

START_TEST(configuration_is_written)
{
	dev->model.configure = model_configure;
	wrote.n = 0;
	for (uint32_t size = 1; size <= 8; size *= 2) {
		put(VPCI_CONFIG + 8, size, 0x11223344);
		ck_assert_uint_eq(wrote.off, 8);
		ck_assert_uint_eq(wrote.size, size);
		ck_assert_uint_eq(wrote.val, 0x11223344);
	}
	put(VPCI_CONFIG_END - 1, 1, 0);
	ck_assert_uint_eq(wrote.n, 5);
	put(VPCI_CONFIG - 1, 1, 0);
	put(VPCI_CONFIG_END, 4, 0);
	put(VPCI_ISR_PLACE, 1, 0);
	ck_assert_uint_eq(wrote.n, 5);
}
END_TEST

/* ---- interrupts ---- */

START_TEST(isr)
{
	up(0);
	ck_assert_uint_eq(fc_read(&core, VPCI_ISR_PLACE, 1), 0);
	front_config_changed(&dev->m, true);
	ck_assert_uint_eq(get(VPCI_ISR_PLACE, 1), VIRTIO_ISR_CONFIG);
	ck_assert_uint_eq(fc_read(&core, VPCI_ISR_PLACE, 1), VIRTIO_ISR_CONFIG);
	ck_assert_uint_eq(get(VPCI_ISR_PLACE, 1), 0);
	ck_assert_uint_eq(fc_read(&core, VPCI_ISR_PLACE, 1), 0);
	front_config_changed(&dev->m, true);
	put(VPCI_ISR_PLACE, 1, VIRTIO_ISR_CONFIG); /* nothing is acknowledged so */
	ck_assert_uint_eq(fc_read(&core, VPCI_ISR_PLACE, 4), VIRTIO_ISR_CONFIG);
}
END_TEST

/* A change is told by the vector that the driver has chosen for it, or by none. */
START_TEST(configuration_vector)
{
	front_config_changed(&dev->m, true); /* no driver */
	expect_once(0);
	up(0);
	signalled(NULL);
	for (unsigned i = 0; i < VECTORS; i++) {
		put(VPCI_CONFIG_VECTOR, 2, i);
		front_config_changed(&dev->m, true);
		expect_once(1u << i);
	}
	put(VPCI_CONFIG_VECTOR, 2, VPCI_NO_VECTOR);
	front_config_changed(&dev->m, true);
	expect_once(0);
	ck_assert_uint_eq(get(VPCI_ISR_PLACE, 1), VIRTIO_ISR_CONFIG);
	put(VPCI_CONFIG_VECTOR, 2, 0);
	virtio_fail(&dev->m.v, "test");
	expect_once(1);
	ck_assert_uint_eq(drv_status(&core), 0xf | VIRTIO_CONFIG_S_NEEDS_RESET);
}
END_TEST

static struct {
	unsigned n, last;
} told;

static void model_vector(void *arg, unsigned i)
{
	(void)arg;
	told.n++;
	told.last = i;
}

/* Whoever has given the vector away hears of another one, while the queue runs. */
START_TEST(model_hears_of_vectors)
{
	told.n = 0;
	dev->model.vector = model_vector;
	up(0);
	ck_assert_uint_eq(told.n, 0);
	put(VPCI_QUEUE_SELECT, 2, 1);
	put(VPCI_QUEUE_VECTOR, 2, 0);
	ck_assert_uint_eq(told.n, 1);
	ck_assert_uint_eq(told.last, 1);
	put(VPCI_QUEUE_VECTOR, 2, 0); /* the same one */
	ck_assert_uint_eq(told.n, 1);
	put(VPCI_QUEUE_VECTOR, 2, VPCI_NO_VECTOR);
	ck_assert_uint_eq(told.n, 2);
	put(VPCI_STATUS, 1, 0);
	put(VPCI_QUEUE_VECTOR, 2, 0);
	ck_assert_uint_eq(told.n, 2);
}
END_TEST

/* ---- what an I/O thread signals ---- */

static struct worker *worker_of_both(void)
{
	struct worker *w = calloc(1, sizeof(*w));

	ck_assert_ptr_nonnull(w);
	w->h = &dev->h;
	w->front = dev->m;
	w->lane[0].w = w;
	w->lane[0].queues = 3;
	return w;
}

/* A chain on each of the queues in `mask`, answered. */
static void answer(struct worker *w, unsigned mask)
{
	struct vring_desc d = drv_desc(0x100000, 512, true);
	struct iovec iov[VQ_MAX_NUM];
	struct vq_chain c = {.iov = iov};

	for (unsigned i = 0; i < NQUEUES; i++) {
		if (!(mask >> i & 1))
			continue;
		drvq_arm(&drv[i]);
		drvq_add(&drv[i], &d, 1, NULL);
		drv[i].used_idx++;
		ck_assert_int_eq(vq_next(&w->front.v.vq[i], &c), 1);
		vq_push(&w->front.v.vq[i], c.head, 0);
	}
	lane_publish(&w->lane[0]);
}

static void choose(unsigned queue, unsigned vector)
{
	put(VPCI_QUEUE_SELECT, 2, queue);
	put(VPCI_QUEUE_VECTOR, 2, vector);
	ck_assert_uint_eq(get(VPCI_QUEUE_VECTOR, 2), vector);
}

START_TEST(lane_signals_each_vector_once)
{
	struct worker *w;

	up(0);
	signalled(NULL);
	w = worker_of_both();
	answer(w, 1);
	expect_once(1u << 1);
	answer(w, 2);
	expect_once(1u << 2);
	answer(w, 3);
	expect_once(1u << 1 | 1u << 2);
	ck_assert_uint_eq(w->lane[0].stat[STAT_IRQS], 4);
	answer(w, 0);
	expect_once(0);
	/* One for both, with the one of the configuration too. */
	choose(0, 0);
	choose(1, 0);
	ck_assert_uint_eq(signalled(NULL) & 1, 1); /* one may have been lost on the way */
	answer(w, 3);
	expect_once(1);
	choose(1, VPCI_NO_VECTOR);
	signalled(NULL);
	answer(w, 3);
	expect_once(1);
	answer(w, 2);
	expect_once(0);
	ck_assert_uint_eq(w->lane[0].stat[STAT_IRQS], 6);
	/* What a hostile predecessor has left is no vector. */
	dev->m.v.st->q[1].vector = VECTORS;
	answer(w, 2);
	dev->m.v.st->q[1].vector = UINT32_MAX;
	answer(w, 2);
	expect_once(0);
	free(w);
}
END_TEST

/* ---- resets of one queue ---- */

START_TEST(queue_reset)
{
	struct vring_desc d = drv_desc(0x100000, 512, true);
	struct iovec iov[VQ_MAX_NUM];
	struct vq_chain c = {.iov = iov};

	up(RESET_RING);
	for (unsigned i = 0; i < 3; i++) {
		drvq_add(&drv[0], &d, 1, NULL);
		drvq_add(&drv[1], &d, 1, NULL);
	}
	ck_assert_int_eq(vq_next(&dev->m.v.vq[0], &c), 1);
	ck_assert_int_eq(vq_next(&dev->m.v.vq[1], &c), 1);
	put(VPCI_QUEUE_SELECT, 2, 0);
	put(VPCI_QUEUE_RESET, 2, 0);
	put(VPCI_QUEUE_RESET, 2, 2);
	ck_assert_uint_eq(get(VPCI_QUEUE_ENABLE, 2), 1);
	put(VPCI_QUEUE_RESET, 2, 1);
	ck_assert_uint_eq(get(VPCI_QUEUE_RESET, 2), 0);
	ck_assert_uint_eq(get(VPCI_QUEUE_ENABLE, 2), 0);
	ck_assert_uint_eq(get(VPCI_QUEUE_SIZE, 2), VQ_MAX_NUM);
	ck_assert_uint_eq(get(VPCI_QUEUE_VECTOR, 2), VPCI_NO_VECTOR);
	ck_assert_uint_eq(get(VPCI_QUEUE_DESC, 8), 0);
	ck_assert_uint_eq(drv_status(&core), 0xf);
	/* The other one goes on. */
	ck_assert_uint_eq(dev->stops, 1);
	ck_assert_uint_eq(dev->queues, 1);
	ck_assert_uint_eq(dev->resumed, 1);
	ck_assert_int_eq(vq_next(&dev->m.v.vq[1], &c), 1);
	/* It comes back, longer, and begins; its rings need not be as new. */
	drvq_init(&drv[0], &gm, Q(0), 32, true, -1);
	drv_store16(drv[0].used + 2, 77);
	ck_assert(drv_queue(&core, 0, &drv[0]));
	ck_assert_uint_eq(drv_status(&core), 0xf);
	ck_assert_uint_eq(dev->queues, 2);
	ck_assert_uint_eq(dev->resumed, 1);
	ck_assert_uint_eq(dev->m.v.vq[0].num, 32);
	ck_assert_int_eq(vq_next(&dev->m.v.vq[0], &c), 0);
	drvq_add(&drv[0], &d, 1, NULL);
	ck_assert_int_eq(vq_next(&dev->m.v.vq[0], &c), 1);
	for (unsigned i = 0; i < 3; i++)
		ck_assert_int_eq(vq_next(&dev->m.v.vq[1], &c), 1);
	ck_assert_int_eq(vq_next(&dev->m.v.vq[1], &c), 0);
	/* What cannot be is refused then too. */
	put(VPCI_QUEUE_RESET, 2, 1);
	ck_assert(!drv_queue_addr(&core, 0, 16, MEM_SIZE, Q(0) + 0x1000, Q(0) + 0x2000));
	ck_assert_uint_eq(drv_status(&core), 0xf | VIRTIO_CONFIG_S_NEEDS_RESET);
}
END_TEST

/* Without the feature there is no such register, and a queue that is not there at DRIVER_OK never
 * comes. */
START_TEST(no_queue_reset)
{
	ck_assert(drv_negotiate(&core, DRV_COMMON));
	ck_assert(drv_queue(&core, 0, &drv[0]));
	drv_ok(&core);
	put(VPCI_QUEUE_RESET, 2, 1);
	ck_assert_uint_eq(get(VPCI_QUEUE_ENABLE, 2), 1);
	ck_assert_uint_eq(dev->stops, 0);
	ck_assert(!drv_queue(&core, 1, &drv[1]));
	/* Its vector may change. */
	ck_assert_uint_eq(get(VPCI_QUEUE_VECTOR, 2), 2);
}
END_TEST

START_TEST(foreign_queues_are_not_reset)
{
	dev->model.foreign = true;
	ck_assert_uint_eq(drv_features(&core), MODEL_FEATURES);
}
END_TEST

/* ---- another process ---- */

START_TEST(restart_keeps_vectors)
{
	up(0);
	choose(1, VPCI_NO_VECTOR);
	put(VPCI_CONFIG_VECTOR, 2, 2);
	signalled(NULL);
	restart();
	/* All that are in use: the last interrupt of each may not have been sent. */
	expect_once(1u << 1 | 1u << 2);
	ck_assert_uint_eq(get(VPCI_CONFIG_VECTOR, 2), 2);
	ck_assert_uint_eq(get(VPCI_QUEUE_VECTOR, 2), VPCI_NO_VECTOR);
	front_config_changed(&dev->m, true);
	expect_once(1u << 2);
	put(VPCI_QUEUE_SELECT, 2, 0);
	ck_assert_uint_eq(get(VPCI_QUEUE_VECTOR, 2), 1);
	ck_assert_uint_eq(drv_status(&core), 0xf);
	ck_assert_uint_eq(dev->queues, NQUEUES);
	/* Without a driver nobody is interrupted. */
	put(VPCI_STATUS, 1, 0);
	put(VPCI_CONFIG_VECTOR, 2, 1);
	restart();
	expect_once(0);
	ck_assert_uint_eq(get(VPCI_CONFIG_VECTOR, 2), 1);
}
END_TEST

/* The same bring-up with a new process after each access. */
START_TEST(restart_at_every_step_pci)
{
	const struct {
		uint32_t off, size;
		uint64_t val;
	} step[] = {{VPCI_STATUS, 1, 0},
		    {VPCI_STATUS, 1, 3},
		    {VPCI_DRIVER_FEATURE_SELECT, 4, 1},
		    {VPCI_DRIVER_FEATURE, 4, DRV_COMMON >> 32},
		    {VPCI_STATUS, 1, 0xb},
		    {VPCI_CONFIG_VECTOR, 2, 0},
		    {VPCI_QUEUE_SELECT, 2, 1},
		    {VPCI_QUEUE_SIZE, 2, 16},
		    {VPCI_QUEUE_VECTOR, 2, 2},
		    {VPCI_QUEUE_DESC, 4, Q(1)},
		    {VPCI_QUEUE_DRIVER, 8, Q(1) + 0x1000},
		    {VPCI_QUEUE_DEVICE, 4, Q(1) + 0x2000},
		    {VPCI_QUEUE_ENABLE, 2, 1}};

	for (size_t i = 0; i < ARRAY_LEN(step); i++) {
		put(step[i].off, step[i].size, step[i].val);
		restart();
		ck_assert_uint_eq(get(step[i].off, step[i].size), step[i].val);
	}
	ck_assert_uint_eq(dev->starts, 0);
	drv_ok(&core);
	ck_assert_uint_eq(dev->starts, 1);
	signalled(NULL);
	restart();
	ck_assert_uint_eq(dev->queues, 1);
	expect_once(1u << 0 | 1u << 2);
	/* A reset that nobody has executed yet. */
	die();
	fc_call_start(&core, DP_OP_WRITE, VPCI_STATUS, 1, 0);
	start_features(MODEL_FEATURES);
	ck_assert_uint_eq(dev->starts, 0);
	expect_once(0);
	ck_assert_uint_eq(get(VPCI_CONFIG_VECTOR, 2), VPCI_NO_VECTOR);
}
END_TEST

/* Taken over: what it has left is looked at like what a guest says. */
START_TEST(hostile_state_pci)
{
	up(0);
	memset(dev->m.v.st, 0xff, sizeof(*dev->m.v.st));
	memset(core.page + DP_SHADOW_OFF, 0xff, DP_SHADOW_SIZE);
	signalled(NULL);
	restart();
	ck_assert_uint_eq(dev->starts, 0);
	expect_once(0);
	up(0);
	ck_assert_uint_eq(get(VPCI_NUM_QUEUES, 2), NQUEUES);
	expect_once(0);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("virtio_pci");
	TCase *c = tcase_create("virtio_pci");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_checked_fixture(c, setup_pci, teardown);
	tcase_add_test(c, in_the_beginning);
	tcase_add_test(c, read_back);
	tcase_add_test(c, no_such_queue);
	tcase_add_test(c, other_sizes);
	tcase_add_test(c, queue_enable);
	tcase_add_test(c, reset_pci);
	tcase_add_test(c, generation);
	tcase_add_test(c, configuration_is_written);
	tcase_add_test(c, isr);
	tcase_add_test(c, configuration_vector);
	tcase_add_test(c, model_hears_of_vectors);
	tcase_add_test(c, lane_signals_each_vector_once);
	tcase_add_test(c, queue_reset);
	tcase_add_test(c, no_queue_reset);
	tcase_add_test(c, foreign_queues_are_not_reset);
	tcase_add_test(c, restart_keeps_vectors);
	tcase_add_test(c, restart_at_every_step_pci);
	tcase_add_test(c, hostile_state_pci);
	suite_add_tcase(s, c);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
