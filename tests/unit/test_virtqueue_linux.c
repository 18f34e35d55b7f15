/* SPDX-License-Identifier: BSD-2-Clause */
/* Split virtqueues: a kill at every single instruction, which ptrace makes possible. */
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include "steps.h"
#include "vqrig.h"

/*
 * A kill at any instruction. A traced child takes and gives back chains; after each of its
 * instructions the parent looks at copies of guest memory and state, as a successor would find
 * them, and lets a successor run: every chain that was offered is answered exactly once, either
 * before or by the successor.
 */

#define STEP_BYTES 0x3000u /* the rings */

struct shared {
	struct vq_state st;
};

static void traced_work(void *arg)
{
	struct vq_state *s = arg;
	struct virtqueue q;
	struct iovec v[VQ_MAX_NUM];
	struct vq_chain c = {.iov = v};
	uint16_t heads[NUM];
	struct err e;

	if (vq_start(&q, s, &gm, DRV_COMMON, true, &e))
		_exit(2);
	raise(SIGSTOP);
	for (unsigned round = 0; round < 2; round++) {
		unsigned n = 0;

		while (vq_next(&q, &c) == 1)
			heads[n++] = c.head;
		(void)vq_arm(&q);
		/* Two batches, in an order of their own. */
		vq_push(&q, heads[1], 1);
		vq_push(&q, heads[0], 1);
		(void)vq_publish(&q);
		vq_push(&q, heads[2], 1);
		(void)vq_publish(&q);
		if (n != 3)
			_exit(3);
	}
}

/* Run a successor on what is there, and count the answers of each head. */
static void check_successor(struct vq_state *live, unsigned step)
{
	static struct vq_state copy;
	static uint8_t rings[STEP_BYTES];
	uint8_t *ring_mem = gm_ptr(&gm, RINGS, STEP_BYTES);
	unsigned answers[NUM] = {0};
	struct virtqueue q;
	struct err e = {0};

	memcpy(rings, ring_mem, STEP_BYTES);
	memcpy(&copy, live, sizeof(copy));
	ck_assert_msg(vq_start(&q, &copy, &gm, DRV_COMMON, true, &e) == 0, "step %u: %s", step,
		      e.text);
	while (vq_next(&q, &chain) == 1)
		vq_push(&q, chain.head, 2);
	ck_assert_msg(q.why == NULL, "step %u: %s", step, q.why);
	vq_publish(&q);
	for (uint16_t i = 0; i != drv_load16(drv.used + 2); i++) {
		uint32_t elem[2];

		memcpy(elem, drv.used + 4 + 8 * (size_t)(i % NUM), sizeof(elem));
		ck_assert_uint_lt(elem[0], NUM);
		answers[elem[0]]++;
	}
	for (unsigned i = 0; i < NUM; i++)
		ck_assert_msg(answers[i] == (i < drv.avail_idx),
			      "step %u: head %u answered %u times", step, i, answers[i]);
	ck_assert_uint_eq(drv_load16(drv.used + 2), drv.avail_idx);
	for (unsigned i = 0; i < NUM; i++)
		ck_assert_uint_eq(copy.slot[i].busy, 0);
	memcpy(ring_mem, rings, STEP_BYTES);
}

START_TEST(kill_at_every_instruction)
{
	struct shared *sh =
		mmap(NULL, sizeof(*sh), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	unsigned steps = 0, changes = 0;
	uint32_t seen = UINT32_MAX;
	pid_t pid;

	ck_assert_ptr_ne(sh, MAP_FAILED);
	memcpy(&sh->st, &st, sizeof(st));
	/* Three chains at the start, three more when the child has answered the first ones. */
	for (unsigned i = 0; i < 3; i++)
		ck_assert_uint_eq(add(1, 0), i);
	pid = steps_begin(traced_work, &sh->st);
	if (!pid)
		return;
	do {
		uint32_t now = drv_load16(drv.used + 2) | (uint32_t)sh->st.used_idx << 16;

		if (now != seen)
			changes++;
		seen = now;
		if (drv_load16(drv.used + 2) == 3 && drv.avail_idx == 3) {
			/* The guest answers at once, and it reuses nothing: heads 3 to 5. */
			for (unsigned i = 3; i < 6; i++)
				ck_assert_uint_eq(add(1, 0), i);
		}
		check_successor(&sh->st, steps);
		steps++;
	} while (steps_next(pid));
	ck_assert_uint_ge(changes, 6); /* we have seen between used.idx and state.used_idx */
	ck_assert_uint_gt(steps, 300);
	munmap(sh, sizeof(*sh));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("virtqueue_linux");
	TCase *c = tcase_create("kill");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_checked_fixture(c, setup, teardown);
	tcase_set_timeout(c, 60);
	tcase_add_test(c, kill_at_every_instruction);
	suite_add_tcase(s, c);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
