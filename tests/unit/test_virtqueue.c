/* SPDX-License-Identifier: BSD-2-Clause */
/* Split virtqueues: chains, mistakes, suppression of kicks and interrupts, what a successor finds.
 */
#include "vqrig.h"

static void expect_mistake(const char *part)
{
	ck_assert_int_eq(vq_next(&vq, &chain), -EINVAL);
	ck_assert_msg(strstr(vq.why, part) != NULL, "\"%s\" has no \"%s\"", vq.why, part);
}

/* A head with descriptors that the driver would never write. */
static void offer(uint16_t head)
{
	drv_store16(drv.avail + 4 + 2 * (drv.avail_idx % drv.num), head);
	drv_store16(drv.avail + 2, ++drv.avail_idx);
}

START_TEST(chains)
{
	uint16_t a = add(2, 1), b = add(0, 3);

	ck_assert_uint_eq(vq_pending(&vq), 2);
	ck_assert_int_eq(vq_next(&vq, &chain), 1);
	ck_assert_uint_eq(vq_pending(&vq), 1);
	ck_assert_uint_eq(chain.head, a);
	ck_assert_uint_eq(chain.nread, 2);
	ck_assert_uint_eq(chain.nwrite, 1);
	ck_assert_uint_eq(chain.read_len, 201);
	ck_assert_uint_eq(chain.write_len, 102);
	ck_assert_ptr_eq(iov[1].iov_base, gm_ptr(&gm, DATA + 0x1000, 1));
	ck_assert_int_eq(vq_next(&vq, &chain), 1);
	ck_assert_uint_eq(chain.head, b);
	ck_assert_uint_eq(chain.nread, 0);
	ck_assert_uint_eq(chain.nwrite, 3);
	ck_assert_int_eq(vq_next(&vq, &chain), 0);
}
END_TEST

START_TEST(used_entries)
{
	uint16_t head;
	uint32_t len;
	void *cookie;

	for (unsigned round = 0; round < 70000; round++) { /* past the wrap of the indices */
		uint16_t a = add(1, 0), b = add(0, 1);

		ck_assert_int_eq(vq_next(&vq, &chain), 1);
		ck_assert_int_eq(vq_next(&vq, &chain), 1);
		vq_push(&vq, b, 7);
		vq_push(&vq, a, 9);
		ck_assert(
			!drvq_get(&drv, &head, &len, &cookie)); /* not before they are published */
		vq_publish(&vq);
		ck_assert(drvq_get(&drv, &head, &len, &cookie));
		ck_assert_uint_eq(head, b);
		ck_assert_uint_eq(len, 7);
		ck_assert(drvq_get(&drv, &head, &len, &cookie));
		ck_assert_uint_eq(head, a);
		ck_assert(!drvq_get(&drv, &head, &len, &cookie));
	}
	ck_assert(!vq_publish(&vq));
}
END_TEST

START_TEST(indirect)
{
	struct vring_desc *t = gm_ptr(&gm, DATA + 0x8001, 3 * 16); /* not aligned, on purpose */
	struct vring_desc in[3] = {drv_desc(DATA, 10, false), drv_desc(DATA + 0x1000, 20, true),
				   drv_desc(DATA + 0x2000, 30, true)};
	struct vring_desc d[2] = {drv_desc(DATA + 0x3000, 5, false),
				  drv_desc(DATA + 0x8001, 3 * 16, false)};

	in[0].flags |= VRING_DESC_F_NEXT;
	in[0].next = 2;
	in[2].flags |= VRING_DESC_F_NEXT;
	in[2].next = 1;
	memcpy((void *)t, in, sizeof(in));
	d[1].flags = VRING_DESC_F_INDIRECT;
	drvq_add(&drv, &d[1], 1, NULL);
	ck_assert_int_eq(vq_next(&vq, &chain), 1);
	ck_assert_uint_eq(chain.nread, 1);
	ck_assert_uint_eq(chain.nwrite, 2);
	ck_assert_uint_eq(iov[1].iov_len, 30);
	ck_assert_uint_eq(iov[2].iov_len, 20);
	/* Ordinary descriptors may come before it. */
	drvq_add(&drv, d, 2, NULL);
	ck_assert_int_eq(vq_next(&vq, &chain), 1);
	ck_assert_uint_eq(chain.nread, 2);
	ck_assert_uint_eq(chain.read_len, 15);
}
END_TEST

static void indirect_table(struct vring_desc d, const struct vring_desc *in, size_t n)
{
	memcpy(gm_ptr(&gm, DATA + 0x8000, n * 16), in, n * 16);
	d.flags |= VRING_DESC_F_INDIRECT;
	drv.desc[0] = d;
	offer(0);
}

START_TEST(bad_indirect_tables)
{
	struct vring_desc in[VQ_MAX_NUM];
	const struct {
		struct vring_desc d;
		const char *why;
	} bad[] = {
		{{.addr = DATA + 0x8000, .len = 0}, "empty"},
		{{.addr = DATA + 0x8000, .len = 15}, "wrong size"},
		{{.addr = DATA + 0x8000, .len = 16 * (VQ_MAX_NUM + 1)}, "wrong size"},
		{{.addr = MEM_SIZE - 16, .len = 32}, "not in memory"},
		{{.addr = DATA + 0x8000, .len = 16, .flags = VRING_DESC_F_NEXT}, "with a next one"},
	};

	for (size_t i = 0; i < VQ_MAX_NUM; i++)
		in[i] = drv_desc(DATA, 10, false);
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		start(NUM, DRV_COMMON);
		indirect_table(bad[i].d, in, 1);
		expect_mistake(bad[i].why);
	}
	/* A table inside a table, a next outside the table, a cycle inside the table. */
	start(NUM, DRV_COMMON);
	in[0].flags = VRING_DESC_F_INDIRECT;
	indirect_table(drv_desc(DATA + 0x8000, 16, false), in, 1);
	expect_mistake("inside a table");
	start(NUM, DRV_COMMON);
	in[0].flags = VRING_DESC_F_NEXT;
	in[0].next = 2;
	indirect_table(drv_desc(DATA + 0x8000, 32, false), in, 2);
	expect_mistake("outside its table");
	start(NUM, DRV_COMMON);
	in[0].next = 0;
	indirect_table(drv_desc(DATA + 0x8000, 32, false), in, 2);
	expect_mistake("longer than any queue");
	/* Not negotiated. */
	start(NUM, DRV_F(VIRTIO_F_VERSION_1));
	indirect_table(drv_desc(DATA + 0x8000, 16, false), in, 1);
	expect_mistake("not negotiated");
}
END_TEST

/* As long as the longest queue, whatever length this queue has: Linux fills tables as far as
 * seg_max goes. */
START_TEST(long_indirect_tables)
{
	struct vring_desc in[VQ_MAX_NUM];

	for (size_t i = 0; i < VQ_MAX_NUM; i++) {
		in[i] = drv_desc(DATA + i, 1, i > 1);
		in[i].flags |= i < VQ_MAX_NUM - 1 ? VRING_DESC_F_NEXT : 0;
		in[i].next = (uint16_t)(i + 1);
	}
	ck_assert_uint_lt(NUM, VQ_MAX_NUM);
	start(NUM, DRV_COMMON);
	indirect_table(drv_desc(DATA + 0x8000, sizeof(in), false), in, VQ_MAX_NUM);
	ck_assert_int_eq(vq_next(&vq, &chain), 1);
	ck_assert_uint_eq(chain.nread, 2);
	ck_assert_uint_eq(chain.nwrite, VQ_MAX_NUM - 2);
	/* One descriptor before the table is one too many. */
	start(NUM, DRV_COMMON);
	drv.desc[1] = drv_desc(DATA, 1, false);
	drv.desc[1].flags = VRING_DESC_F_NEXT;
	memcpy(gm_ptr(&gm, DATA + 0x8000, sizeof(in)), in, sizeof(in));
	drv.desc[0] = drv_desc(DATA + 0x8000, sizeof(in), false);
	drv.desc[0].flags = VRING_DESC_F_INDIRECT;
	offer(1);
	expect_mistake("longer than any queue");
}
END_TEST

START_TEST(bad_chains)
{
	/* A cycle. */
	drv.desc[0] = (struct vring_desc){DATA, 1, VRING_DESC_F_NEXT, 1};
	drv.desc[1] = (struct vring_desc){DATA, 1, VRING_DESC_F_NEXT, 0};
	offer(0);
	expect_mistake("longer than the queue");
	/* A next descriptor that does not exist. */
	start(NUM, DRV_COMMON);
	drv.desc[0] = (struct vring_desc){DATA, 1, VRING_DESC_F_NEXT, NUM};
	offer(0);
	expect_mistake("outside its table");
	/* A head that does not exist. */
	start(NUM, DRV_COMMON);
	offer(NUM);
	expect_mistake("head outside");
	/* Readable behind writable. */
	start(NUM, DRV_COMMON);
	drv.desc[0] = (struct vring_desc){DATA, 1, VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, 1};
	drv.desc[1] = (struct vring_desc){DATA, 1, 0, 0};
	offer(0);
	expect_mistake("behind a writable");
}
END_TEST

START_TEST(bad_buffers)
{
	static const struct {
		uint64_t addr;
		uint32_t len;
	} bad[] = {{DATA, 0},           {MEM_SIZE, 1},    {MEM_SIZE - 1, 2}, {UINT64_MAX, 1},
		   {UINT64_MAX - 3, 8}, {0xc0000000u, 1}, {DATA, UINT32_MAX}};

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		start(NUM, DRV_COMMON);
		drv.desc[0] = (struct vring_desc){bad[i].addr, bad[i].len, 0, 0};
		offer(0);
		expect_mistake("not in memory");
	}
}
END_TEST

START_TEST(available_index_too_far)
{
	drv_store16(drv.avail + 2, NUM + 1);
	expect_mistake("further ahead");
}
END_TEST

/* The same head again while it is in flight: whoever keys requests by it would free one twice. */
START_TEST(duplicate_head)
{
	uint16_t a = add(1, 1);

	ck_assert_int_eq(vq_next(&vq, &chain), 1);
	offer(a);
	expect_mistake("in flight already");
	/* After it was given back it is welcome. */
	start(NUM, DRV_COMMON);
	a = add(1, 1);
	ck_assert_int_eq(vq_next(&vq, &chain), 1);
	vq_push(&vq, a, 0);
	vq_publish(&vq);
	offer(a);
	ck_assert_int_eq(vq_next(&vq, &chain), 1);
}
END_TEST

START_TEST(addresses)
{
	static const struct {
		uint32_t num;
		gpa_t desc, driver, device;
	} bad[] = {
		{0, RINGS, RINGS, RINGS},
		{3, RINGS, RINGS, RINGS},
		{512, RINGS, RINGS, RINGS},
		{UINT32_MAX, RINGS, RINGS, RINGS},
		{8, RINGS + 8, RINGS, RINGS},
		{8, RINGS, RINGS + 1, RINGS},
		{8, RINGS, RINGS, RINGS + 2},
		{8, MEM_SIZE - 16 * 7, RINGS, RINGS},
		{8, RINGS, MEM_SIZE - 4 - 16, RINGS},
		{8, RINGS, RINGS, MEM_SIZE - 4 - 64},
		{8, UINT64_MAX - 15, RINGS, RINGS},
	};
	struct err e;

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct vq_state s = {.num = bad[i].num,
				     .desc = bad[i].desc,
				     .driver = bad[i].driver,
				     .device = bad[i].device};

		ck_assert_int_eq(vq_check(&s, &gm, &e), -EINVAL);
		ck_assert_int_eq(vq_start(&vq, &s, &gm, DRV_COMMON, false, &e), -EINVAL);
		ck_assert_uint_eq(vq.num, 0);
	}
	/* The last byte that fits: tables and rings end exactly where memory does. */
	struct vq_state s = {.num = 8,
			     .desc = MEM_SIZE - 128,
			     .driver = MEM_SIZE - 6 - 16,
			     .device = MEM_SIZE - 4 - 64 - 4};
	ck_assert_int_eq(vq_check(&s, &gm, &e), 0);
}
END_TEST

/* ---- suppression ---- */

START_TEST(kicks_with_event_index)
{
	uint16_t old = drv.avail_idx;

	ck_assert(!vq_arm(&vq));
	add(1, 0);
	ck_assert(drvq_kick(&drv, old));
	old = drv.avail_idx;
	add(1, 0);
	ck_assert(!drvq_kick(&drv, old)); /* once was enough */
	ck_assert(vq_arm(&vq));           /* but nothing is overlooked */
	ck_assert_int_eq(vq_next(&vq, &chain), 1);
	ck_assert_int_eq(vq_next(&vq, &chain), 1);
	old = drv.avail_idx;
	add(1, 0);
	ck_assert(!drvq_kick(&drv, old)); /* not armed */
	ck_assert(vq_arm(&vq));
	ck_assert_int_eq(vq_next(&vq, &chain), 1);
	ck_assert(!vq_arm(&vq));
	old = drv.avail_idx;
	add(1, 0);
	ck_assert(drvq_kick(&drv, old));
}
END_TEST

START_TEST(kicks_with_flags)
{
	start(NUM, DRV_F(VIRTIO_F_VERSION_1));
	ck_assert(!vq_arm(&vq));
	add(1, 0);
	ck_assert(drvq_kick(&drv, 0));
	ck_assert_int_eq(vq_next(&vq, &chain), 1);
	ck_assert(!drvq_kick(&drv, 0)); /* we look anyway */
	ck_assert_int_eq(vq_next(&vq, &chain), 0);
	ck_assert(!vq_arm(&vq));
	ck_assert(drvq_kick(&drv, 0));
}
END_TEST

static bool give_back(unsigned n)
{
	uint16_t heads[NUM];

	for (unsigned i = 0; i < n; i++) {
		heads[i] = add(1, 0);
		ck_assert_int_eq(vq_next(&vq, &chain), 1);
	}
	for (unsigned i = 0; i < n; i++)
		vq_push(&vq, heads[i], 0);
	return vq_publish(&vq);
}

static void drain(void)
{
	uint16_t head;
	uint32_t len;
	void *cookie;

	while (drvq_get(&drv, &head, &len, &cookie))
		;
}

START_TEST(interrupts_with_event_index)
{
	/* used_event is 0: the first used buffer interrupts, the second does not. */
	ck_assert(give_back(1));
	ck_assert(!give_back(1));
	drain();
	ck_assert(give_back(3));
	drain();
	/* The driver wants to hear of the third one from now. */
	drv_store16(drv.avail + 4 + 2 * NUM, (uint16_t)(drv.used_idx + 2));
	ck_assert(!give_back(2));
	ck_assert(give_back(1));
}
END_TEST

START_TEST(interrupts_with_flags)
{
	start(NUM, DRV_F(VIRTIO_F_VERSION_1));
	ck_assert(give_back(1));
	ck_assert(give_back(1));
	drv_store16(drv.avail, VRING_AVAIL_F_NO_INTERRUPT);
	ck_assert(!give_back(1));
}
END_TEST

/* ---- restart ---- */

static void restart(void)
{
	struct err e = {0};

	ck_assert_msg(vq_start(&vq, &st, &gm, DRV_COMMON, true, &e) == 0, "%s", e.text);
}

START_TEST(resume_in_order)
{
	uint16_t h[4];

	for (unsigned i = 0; i < 4; i++)
		h[i] = add(1, 0);
	for (unsigned i = 0; i < 4; i++)
		ck_assert_int_eq(vq_next(&vq, &chain), 1);
	vq_push(&vq, h[1], 0);
	vq_publish(&vq);
	vq_push(&vq, h[2], 0); /* not published: not given back */
	/* The free list is a stack: h[1] is used again, and is now the youngest. */
	drain();
	h[1] = add(1, 0);
	ck_assert_int_eq(vq_next(&vq, &chain), 1);
	add(1, 1); /* available, not taken */
	restart();
	ck_assert_uint_eq(vq_resumed(&vq), 4);
	ck_assert_uint_eq(vq_pending(&vq), 5);
	ck_assert(vq_arm(&vq));
	static const unsigned order[] = {0, 2, 3, 1};
	for (unsigned i = 0; i < 4; i++) {
		ck_assert_int_eq(vq_next(&vq, &chain), 1);
		ck_assert_uint_eq(chain.head, h[order[i]]);
	}
	ck_assert_int_eq(vq_next(&vq, &chain), 1);
	ck_assert_uint_eq(chain.nwrite, 1);
	ck_assert_int_eq(vq_next(&vq, &chain), 0);
	ck_assert_uint_eq(vq_pending(&vq), 0);
}
END_TEST

START_TEST(resume_refuses_nonsense)
{
	struct err e = {0};

	drv_store16(drv.used + 2, NUM + 1); /* more than there ever can have been */
	ck_assert_int_eq(vq_start(&vq, &st, &gm, DRV_COMMON, true, &e), -EINVAL);
	/* A state full of rubbish ends in an error or in nothing worse than rubbish. */
	drv_store16(drv.used + 2, 0);
	memset(st.slot, 0xff, sizeof(st.slot));
	st.last_batch = 0xffff;
	st.used_idx = 0xfffd;
	if (vq_start(&vq, &st, &gm, DRV_COMMON, true, &e) == 0) {
		while (vq_next(&vq, &chain) == 1)
			;
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("virtqueue");
	TCase *c = tcase_create("virtqueue");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_checked_fixture(c, setup, teardown);
	tcase_set_timeout(c, 60);
	tcase_add_test(c, chains);
	tcase_add_test(c, used_entries);
	tcase_add_test(c, indirect);
	tcase_add_test(c, bad_indirect_tables);
	tcase_add_test(c, long_indirect_tables);
	tcase_add_test(c, bad_chains);
	tcase_add_test(c, bad_buffers);
	tcase_add_test(c, available_index_too_far);
	tcase_add_test(c, duplicate_head);
	tcase_add_test(c, addresses);
	tcase_add_test(c, kicks_with_event_index);
	tcase_add_test(c, kicks_with_flags);
	tcase_add_test(c, interrupts_with_event_index);
	tcase_add_test(c, interrupts_with_flags);
	tcase_add_test(c, resume_in_order);
	tcase_add_test(c, resume_refuses_nonsense);
	suite_add_tcase(s, c);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
