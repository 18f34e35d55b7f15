/* SPDX-License-Identifier: BSD-2-Clause */
/* What a back end holds: taken from it for a snapshot, given to its successor; and back ends that
 * give too much, never end, die, or say that it was not all. */
#include <signal.h>

#include "vhostrig.h"

#define LEN 300001u

static struct msg_quiet order = {7};
static struct msg_saved saved;
static int memory; /* of MSG_SAVE */

static uint8_t *some_bytes(size_t n)
{
	uint8_t *p = malloc(n);

	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t)(i * 7 + i / 251);
	return p;
}

static void holds(struct vback *b, size_t n)
{
	b->held = some_bytes(n);
	b->held_len = n;
}

/* The helper is asked, and has answered; the device rests. */
static void saves(void)
{
	struct err e;

	memory = shm_create("held", VHOST_HELD_MAX, &e);
	ck_assert_int_ge(memory, 0);
	ck_assert_int_eq(msg_send(chan[0], MSG_SAVE, NULL, 0, &memory, 1), 0);
	ck_assert_int_eq(msg_send(chan[0], MSG_QUIET, &order, sizeof(order), NULL, 0), 0);
	hears(MSG_SAVED, &saved, sizeof(saved), NULL);
	ck_assert_uint_eq(saved.no, order.no);
}

static void is_quiet(void)
{
	struct msg_quiet quiet;

	hears(MSG_IS_QUIET, &quiet, sizeof(quiet), NULL);
	ck_assert_uint_eq(quiet.no, order.no);
}

static void is_saved(size_t n)
{
	uint8_t *want = some_bytes(n), *got = malloc(n + 1);

	ck_assert_msg(!saved.error, "%s", saved.text);
	ck_assert_uint_eq(saved.len, n);
	ck_assert_int_eq(shm_read(memory, got, n, 0), 0);
	ck_assert(!memcmp(want, got, n));
	free(want);
	free(got);
	fd_close(&memory);
}

static void is_not_saved(const char *why)
{
	ck_assert_int_lt(saved.error, 0);
	ck_assert_msg(strstr(saved.text, why) != NULL, "%s", saved.text);
	fd_close(&memory);
}

static void resumes(void)
{
	ck_assert_int_eq(msg_send(chan[0], MSG_RESUME, NULL, 0, NULL, 0), 0);
}

static uint32_t page_flags(void)
{
	return rig->v.st->flags;
}

/* ---- a snapshot of a VM that goes on ---- */

/* In one piece and in many; through our pipe and through its own. */
START_TEST(is_taken)
{
	static const unsigned pieces[] = {VB_HELD_MAX, 1000, 4096};

	holds(&back, LEN);
	back.piece = pieces[_i % 3];
	back.held_fault = _i < 3 ? VB_HELD_GOOD : VB_HELD_OWN;
	begin();
	ck_assert_uint_eq(page_flags() & VHOST_CAN_SAVE, VHOST_CAN_SAVE);
	bring_up(USUAL);
	offer(0, 3);
	answered(0, 3);
	for (unsigned n = 1; n <= 3; n++) {
		saves();
		is_saved(LEN);
		is_quiet();
		/* What comes now waits. */
		ck_assert_int_eq(back.ring[0].kick, -1);
		offer(0, 2);
		usleep(2000);
		ck_assert_uint_eq(drv[0].used_idx, 3 + 2 * (n - 1));
		resumes();
		answered(0, 2);
		ck_assert_uint_eq(back.n[VHOST_CHECK_DEVICE_STATE], n);
	}
	ck_assert(!back.order_wrong);
	ck_assert_uint_eq(rig->v.lost, 0);
	vb_kill(&back);
}
END_TEST

START_TEST(nothing_is_held)
{
	begin();
	/* Without a driver it is not asked, */
	saves();
	is_saved(0);
	is_quiet();
	ck_assert_uint_eq(back.n[VHOST_SET_DEVICE_STATE_FD], 0);
	resumes();
	/* and with one it may hold nothing. */
	bring_up(USUAL);
	saves();
	is_saved(0);
	is_quiet();
	ck_assert_uint_eq(back.n[VHOST_SET_DEVICE_STATE_FD], 1);
	resumes();
	offer(1, 2);
	answered(1, 2);
	vb_kill(&back);
}
END_TEST

/* Nothing runs after the moment that was saved. */
START_TEST(the_end_follows)
{
	struct msg_stats s;

	holds(&back, 10);
	begin();
	bring_up(USUAL);
	saves();
	is_saved(10);
	is_quiet();
	offer(0, 2);
	ck_assert_int_eq(msg_send(chan[0], MSG_STOP, NULL, 0, NULL, 0), 0);
	hears(MSG_STOPPED, &s, sizeof(s), NULL);
	ck_assert_uint_eq(back.n[VHOST_SET_VRING_KICK], 2);
	vb_kill(&back);
}
END_TEST

/* A back end that has no DEVICE_STATE says so in the page; if it is asked all the same it is an
 * error. */
START_TEST(cannot)
{
	back.protocol &= ~DRV_F(VHOST_P_DEVICE_STATE);
	begin();
	bring_up(USUAL);
	ck_assert_uint_eq(page_flags(), 0);
	vb_kill(&back);
	hears(MSG_VHOST_LOST, NULL, 0, NULL);
	new_back(&next);
	offer(0, 1);
	answered(0, 1);
	ck_assert_uint_eq(page_flags(), VHOST_CAN_SAVE);
	vb_kill(&next);
	hears(MSG_VHOST_LOST, NULL, 0, NULL);
	ck_assert_uint_eq(page_flags(), 0);
	saves();
	is_not_saved("no back end");
	is_quiet();
}
END_TEST

/* Another one comes while all rest: it gets its rings when they go on. */
START_TEST(another_one_meanwhile)
{
	holds(&back, 10);
	begin();
	bring_up(USUAL);
	saves();
	is_saved(10);
	is_quiet();
	vb_kill(&back);
	hears(MSG_VHOST_LOST, NULL, 0, NULL);
	new_back(&next);
	for (unsigned n = 0; n < WAIT_MS && !next.n[VHOST_GET_CONFIG]; n++)
		usleep(1000);
	offer(0, 2);
	usleep(2000);
	ck_assert_uint_eq(next.n[VHOST_SET_VRING_KICK], 0);
	resumes();
	answered(0, 2);
	vb_kill(&next);
}
END_TEST

/* ---- back ends that do it wrong ---- */

static const struct {
	enum vb_held fault;
	const char *why;
	bool lost;
} bad[] = {
	{VB_HELD_REFUSED, "SET_DEVICE_STATE_FD", false},
	{VB_HELD_NO_PIPE, "SET_DEVICE_STATE_FD", true},
	{VB_HELD_NO_FD, "SET_DEVICE_STATE_FD", true},
	{VB_HELD_ENDLESS, "more than 64 MiB", false},
	{VB_HELD_STUCK, "has not come to an end in", false},
	{VB_HELD_DIES, "CHECK_DEVICE_STATE", true},
	{VB_HELD_CHECK, "could not say all", false},
	{VB_HELD_MUTE, "CHECK_DEVICE_STATE", true},
};

/* There is no snapshot, and the guest loses nothing: on this connection, or on the next one. */
START_TEST(goes_on_without)
{
	holds(&back, LEN);
	back.held_fault = bad[_i].fault;
	begin();
	bring_up(USUAL);
	offer(0, 3);
	answered(0, 3);
	if (back.held_fault == VB_HELD_STUCK)
		rig->v.held_ms = CALL_MS;
	if (back.held_fault == VB_HELD_MUTE)
		patience(CALL_MS);
	saves();
	is_not_saved(bad[_i].why);
	if (bad[_i].lost)
		hears(MSG_VHOST_LOST, NULL, 0, NULL);
	is_quiet();
	patience(WAIT_MS);
	ck_assert_uint_eq(rig->v.lost, bad[_i].lost);
	offer(0, 2);
	resumes();
	if (bad[_i].lost) {
		vb_kill(&back);
		new_back(&next);
		answered(0, 2);
		vb_kill(&next);
		return;
	}
	answered(0, 2);
	vb_kill(&back);
}
END_TEST

/* Requests that it has taken and not answered are not part of what it holds. */
START_TEST(is_still_busy)
{
	uint16_t heads[4];

	holds(&back, 10);
	back.hold = true;
	begin();
	rig->v.setup_ms = CALL_MS;
	bring_up(USUAL);
	offer(0, 2);
	ck_assert_uint_eq(finds(&back, 0, heads), 2);
	answers(&back, 0, heads[0]);
	saves();
	is_not_saved("still under way");
	is_quiet();
	patience(WAIT_MS);
	back.hold = false;
	resumes();
	answered(0, 2);
	vb_kill(&back);
}
END_TEST

/* ---- a VM that goes on from a snapshot ---- */

/* The page as the snapshot has it, and what the back end held. */
static void restored(size_t n)
{
	struct err e;
	uint8_t *p = some_bytes(n);

	begin();
	bring_up(USUAL);
	offer(0, 3);
	answered(0, 3);
	saves();
	is_saved(0);
	is_quiet();
	end_helper();
	vb_kill(&back);
	held_fd = shm_create("held", (n + 4095) / 4096 * 4096, &e);
	ck_assert_int_ge(held_fd, 0);
	ck_assert_int_eq(shm_write(held_fd, p, n, 0), 0);
	free(p);
	conf.flags |= VHOST_LOAD;
	conf.held = n;
}

static void must_load(bool must)
{
	ck_assert_uint_eq(!(rig->v.conf.flags & VHOST_LOAD), !must);
}

static void start_restored(struct vback *b)
{
	open_helper(vb_start(b), -1);
	if (b->held_fault == VB_HELD_STUCK || b->held_fault == VB_HELD_MUTE)
		rig->v.held_ms = CALL_MS;
	ck_assert_int_eq(pthread_create(&thread, NULL, helper_thread_main, rig), 0);
}

START_TEST(is_given)
{
	uint8_t *want = some_bytes(LEN);

	restored(LEN);
	next.held_fault = _i ? VB_HELD_OWN : VB_HELD_GOOD;
	offer(0, 2); /* after the moment of the snapshot, and before it goes on */
	start_restored(&next);
	hears(MSG_READY, NULL, 0, NULL);
	answered(0, 2);
	must_load(false);
	ck_assert(!next.order_wrong);
	ck_assert_uint_eq(next.n[VHOST_CHECK_DEVICE_STATE], 1);
	ck_assert_uint_eq(next.held_len, LEN);
	ck_assert(!memcmp(next.held, want, LEN));
	ck_assert_uint_eq(next.ring[0].base, 3);
	free(want);
	/* For the first one alone: the next helper and its back end go on as after a death. */
	end_helper();
	vb_kill(&next);
	conf.flags &= ~(uint32_t)VHOST_LOAD;
	conf.held = 0;
	vb_init(&back, &gm);
	start_helper(vb_start(&back), -1);
	hears(MSG_READY, NULL, 0, NULL);
	offer(0, 1);
	answered(0, 1);
	ck_assert_uint_eq(back.n[VHOST_SET_DEVICE_STATE_FD], 0);
	vb_kill(&back);
	fd_close(&held_fd);
}
END_TEST

static const struct {
	enum vb_held fault;
	const char *why;
} bad_load[] = {
	{VB_HELD_REFUSED, "SET_DEVICE_STATE_FD"},
	{VB_HELD_NO_PIPE, "SET_DEVICE_STATE_FD"},
	{VB_HELD_NO_FD, "SET_DEVICE_STATE_FD"},
	{VB_HELD_STUCK, "what the one of the snapshot held"},
	{VB_HELD_DIES, "CHECK_DEVICE_STATE"},
	{VB_HELD_LEAVES, "it has not taken"},
	{VB_HELD_CHECK, "it has not taken"},
	{VB_HELD_MUTE, "CHECK_DEVICE_STATE"},
};

/* In the place of a helper that has failed, for end_helper(). */
static void *no_helper(void *arg)
{
	return arg;
}

static void is_refused(const char *why)
{
	void *rc;

	ck_assert_int_eq(pthread_join(thread, &rc), 0);
	ck_assert_ptr_nonnull(rc);
	ck_assert_msg(strstr(rig->e.text, why) != NULL, "%s", rig->e.text);
	must_load(true);
	ck_assert_int_eq(pthread_create(&thread, NULL, no_helper, NULL), 0);
}

/* The guest does not go on with a back end that knows nothing: the helper fails, before it is
 * ready. */
START_TEST(is_not_given)
{
	restored(LEN);
	next.held_fault = bad_load[_i].fault;
	start_restored(&next);
	is_refused(bad_load[_i].why);
	end_helper();
	vb_kill(&next);
	fd_close(&held_fd);
}
END_TEST

START_TEST(cannot_be_given)
{
	restored(LEN);
	next.protocol &= ~DRV_F(VHOST_P_DEVICE_STATE);
	start_restored(&next);
	is_refused("expected one that can (DEVICE_STATE)");
	end_helper();
	vb_kill(&next);
	fd_close(&held_fd);
}
END_TEST

START_TEST(lacks_features)
{
	restored(LEN);
	next.features &= ~DRV_F(VIRTIO_BLK_F_FLUSH);
	start_restored(&next);
	is_refused("lacks features");
	end_helper();
	vb_kill(&next);
	fd_close(&held_fd);
}
END_TEST

/* ---- start messages ---- */

START_TEST(start_messages)
{
	struct err e;

	conf.held = 1;
	ck_assert_int_eq(vhost_check_conf(&conf, &e), -EINVAL);
	conf.flags = VHOST_LOAD;
	ck_assert_int_eq(vhost_check_conf(&conf, &e), 0);
	conf.held = 0;
	ck_assert_int_eq(vhost_check_conf(&conf, &e), -EINVAL);
	conf.held = VHOST_HELD_MAX + 1ull;
	ck_assert_int_eq(vhost_check_conf(&conf, &e), -EINVAL);
	conf.held = VHOST_HELD_MAX;
	ck_assert_int_eq(vhost_check_conf(&conf, &e), 0);
}
END_TEST

int main(void)
{
	TCase *save = tcase_create("save"), *load = tcase_create("load");
	TCase *all[] = {save, load};

	signal(SIGPIPE, SIG_IGN);
	tcase_add_loop_test(save, is_taken, 0, 6);
	tcase_add_test(save, nothing_is_held);
	tcase_add_test(save, the_end_follows);
	tcase_add_test(save, cannot);
	tcase_add_test(save, another_one_meanwhile);
	tcase_add_loop_test(save, goes_on_without, 0, (int)ARRAY_LEN(bad));
	tcase_add_test(save, is_still_busy);
	tcase_add_loop_test(load, is_given, 0, 2);
	tcase_add_loop_test(load, is_not_given, 0, (int)ARRAY_LEN(bad_load));
	tcase_add_test(load, cannot_be_given);
	tcase_add_test(load, lacks_features);
	tcase_add_test(load, start_messages);
	return run_suite("vhost_held", all, ARRAY_LEN(all));
}
