/* SPDX-License-Identifier: BSD-2-Clause */
/* The helper's side of the device page: order, answers, restart, hostile cores, sleeping, messages.
 */
#include <check.h>
#include <pthread.h>

#include <insula/stats.h>

#include <devices/helper.h>

#include "fakechan.h"
#include "fakecore.h"
#include "host.h"

#define TAG 0x54534554u
#define LOG_LEN 4096

/* A device that remembers what was done to it. */
struct toy {
	struct helper h;
	struct {
		uint32_t off, size;
		uint64_t val;
	} log[LOG_LEN];
	unsigned nlog, settled, losses, events, stopped;
	_Atomic uint32_t *loses; /* the core's counter, which goes up while a write is executed */
	unsigned losses_at_resume;
	uint64_t sum;
};

static void toy_write(void *dev, uint32_t off, uint32_t size, uint64_t val)
{
	struct toy *t = dev;

	t->log[t->nlog % LOG_LEN].off = off;
	t->log[t->nlog % LOG_LEN].size = size;
	t->log[t->nlog % LOG_LEN].val = val;
	t->nlog++;
	t->sum += val;
	if (t->loses)
		atomic_fetch_add(t->loses, 1);
}

static uint64_t toy_read(void *dev, uint32_t off, uint32_t size)
{
	struct toy *t = dev;

	(void)size;
	return off == 0 ? t->sum : off;
}

static void toy_settle(void *dev)
{
	struct toy *t = dev;

	t->settled++;
	*(volatile uint64_t *)(void *)t->h.port.shadow = t->sum;
}

static void toy_lost(void *dev)
{
	((struct toy *)dev)->losses++;
}

static void toy_resume(void *dev)
{
	struct toy *t = dev;

	t->losses_at_resume = t->losses;
}

static void toy_event(void *dev)
{
	((struct toy *)dev)->events++;
}

static void toy_stop(void *dev, struct msg_stats *s)
{
	((struct toy *)dev)->stopped++;
	s->n[STAT_FIRST] = 77;
}

static const struct helper_ops toy_ops = {
	.regs = {toy_write, toy_read, toy_settle, toy_lost},
	.resume = toy_resume,
	.event = toy_event,
	.stop = toy_stop,
};

static struct fakecore core;
static struct toy toy;

static int open_tag(struct toy *t, uint32_t tag, struct err *e)
{
	memset(t, 0, sizeof(*t));
	return fc_helper_open(&core, &t->h, tag, e);
}

static void start(struct toy *t)
{
	struct err e = {0};

	ck_assert_msg(open_tag(t, TAG, &e) == 0, "%s", e.text);
	ck_assert_int_eq(helper_attach(&t->h, &toy_ops, t, &e), 0);
}

static void pump(void *arg)
{
	struct toy *t = arg;

	ck_assert_int_ge(port_run(&t->h.port), 0);
}

static void setup(void)
{
	fc_open(&core);
	core.pump = pump;
	core.arg = &toy;
	start(&toy);
}

static void teardown(void)
{
	helper_close(&toy.h);
	fc_close(&core);
}

START_TEST(posted_before_call)
{
	for (unsigned i = 1; i <= 10; i++)
		fc_post(&core, 4 * i, 4, i);
	ck_assert_uint_eq(fc_read(&core, 0, 8), 55);
	ck_assert_uint_eq(toy.nlog, 10);
	for (unsigned i = 0; i < 10; i++) {
		ck_assert_uint_eq(toy.log[i].off, 4 * (i + 1));
		ck_assert_uint_eq(toy.log[i].val, i + 1);
	}
	/* The shadow was brought up to date before the answer. */
	ck_assert_uint_eq(fc_shadow32(&core, 0), 55);
	ck_assert_uint_eq(toy.h.port.posted, 10);
	ck_assert_uint_eq(toy.h.port.calls, 1);
}
END_TEST

START_TEST(full_ring_becomes_a_call)
{
	for (unsigned i = 0; i < DP_RING_LEN + 1; i++)
		fc_post(&core, 8, 1, 1);
	ck_assert_uint_eq(toy.nlog, DP_RING_LEN + 1);
	ck_assert_uint_eq(toy.h.port.calls, 1);
}
END_TEST

START_TEST(free_running_indices_wrap)
{
	helper_close(&toy.h);
	atomic_store(&core.ctrl->ring_head, UINT32_MAX - 2);
	atomic_store(&core.ctrl->ring_tail, UINT32_MAX - 2);
	atomic_store(&core.ctrl->req_seq, UINT32_MAX);
	atomic_store(&core.ctrl->ack_seq, UINT32_MAX);
	core.head = UINT32_MAX - 2;
	core.seq = UINT32_MAX;
	start(&toy);
	for (unsigned i = 0; i < 1000; i++)
		fc_post(&core, 0, 4, 1);
	ck_assert_uint_eq(fc_read(&core, 0, 8), 1000);
}
END_TEST

START_TEST(refused_pages)
{
	struct toy t;
	struct err e = {0};

	ck_assert_int_eq(open_tag(&t, TAG + 1, &e), -EPROTO); /* somebody else's state */
	core.ctrl->magic ^= 1;
	ck_assert_int_eq(open_tag(&t, TAG, &e), -EPROTO);
	core.ctrl->magic ^= 1;
	core.ctrl->size = DP_SIZE - 1;
	ck_assert_int_eq(open_tag(&t, TAG, &e), -EPROTO);
	core.ctrl->size = DP_SIZE;
	atomic_store(&core.ctrl->ring_head, DP_RING_LEN + 1);
	ck_assert_int_eq(open_tag(&t, TAG, &e), -EPROTO);
	atomic_store(&core.ctrl->ring_head, DP_RING_LEN);
	ck_assert_int_eq(open_tag(&t, TAG, &e), 0);
	helper_close(&t.h);
}
END_TEST

START_TEST(file_or_short_page_refused)
{
	int fd = host_file("", 0, DP_SIZE); /* not sealed: it may become shorter */
	struct start_fds fds = fc_start_fds(&core, fd);
	struct err e = {0};
	struct toy t = {0};

	ck_assert_int_eq(helper_open(&t.h, &fds, TAG, &e), HOST_NOT_SHARED);
	fds = fc_start_fds(&core, shm_create("page", DP_SIZE / 2, &e));
	ck_assert_int_eq(helper_open(&t.h, &fds, TAG, &e), HOST_SHORT);
	ck_assert_int_eq(t.h.page_fd, -1);
	ck_assert_int_eq(t.h.irq_fd[0], -1);
}
END_TEST

START_TEST(hostile_ring)
{
	atomic_store(&core.ctrl->ring_head, DP_RING_LEN + 1);
	ck_assert_int_eq(port_run(&toy.h.port), -EPROTO);
	ck_assert_uint_eq(toy.nlog, 0);
	atomic_store(&core.ctrl->ring_head, 1);
	core.ring[0] = (struct dp_post){0, 3, 0};
	ck_assert_int_eq(port_run(&toy.h.port), -EPROTO);
	ck_assert_uint_eq(toy.nlog, 0);
}
END_TEST

START_TEST(hostile_call)
{
	static const struct {
		uint32_t op, size;
	} bad[] = {{0, 4}, {3, 4}, {DP_OP_READ, 0}, {DP_OP_WRITE, 16}, {UINT32_MAX, 4}};

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		fc_call_start(&core, bad[i].op, 0, bad[i].size, 0);
		ck_assert_int_eq(port_run(&toy.h.port), -EPROTO);
		ck_assert_uint_ne(atomic_load(&core.ctrl->ack_seq), core.seq);
	}
	ck_assert_uint_eq(toy.nlog, 0);
}
END_TEST

/* What the core writes into the helper's half does not matter. */
START_TEST(own_indices_are_private)
{
	fc_post(&core, 0, 4, 5);
	ck_assert_int_eq(port_run(&toy.h.port), 1);
	atomic_store(&core.ctrl->ring_tail, 12345);
	atomic_store(&core.ctrl->ack_seq, 999);
	core.ring[core.head % DP_RING_LEN] = (struct dp_post){0, 4, 6};
	atomic_store(&core.ctrl->ring_head, ++core.head);
	ck_assert_int_eq(port_run(&toy.h.port), 1);
	ck_assert_uint_eq(toy.sum, 11);
	ck_assert_uint_eq(atomic_load(&core.ctrl->ring_tail), 2);
}
END_TEST

START_TEST(restart_carries_on)
{
	fc_post(&core, 0, 4, 1);
	ck_assert_uint_eq(fc_read(&core, 0, 8), 1);
	ck_assert(!toy.h.port.resumed);
	/* Dead. Two writes and a call come meanwhile; the new helper executes each of them once. */
	helper_close(&toy.h);
	fc_post(&core, 0, 4, 10);
	fc_post(&core, 0, 4, 20);
	fc_call_start(&core, DP_OP_READ, 0, 8, 0);
	start(&toy);
	ck_assert(toy.h.port.resumed);
	ck_assert_uint_eq(toy.nlog, 2);
	ck_assert_uint_eq(atomic_load(&core.ctrl->ack_seq), core.seq);
	ck_assert_uint_eq(core.ctrl->ack_value, 30);
	ck_assert_int_eq(port_run(&toy.h.port), 0);
}
END_TEST

/* The core gave up on a call and made another one: the slot holds the newest, and one answer
 * settles both. */
START_TEST(abandoned_call)
{
	fc_call_start(&core, DP_OP_WRITE, 0, 4, 1);
	fc_call_start(&core, DP_OP_WRITE, 0, 4, 2);
	ck_assert_int_eq(port_run(&toy.h.port), 1);
	ck_assert_uint_eq(toy.sum, 2);
	ck_assert_uint_eq(atomic_load(&core.ctrl->ack_seq), core.seq);
}
END_TEST

START_TEST(lost_is_told_once)
{
	atomic_store(&core.ctrl->lost, 1);
	ck_assert_int_eq(port_run(&toy.h.port), 0);
	ck_assert_int_eq(port_run(&toy.h.port), 0);
	ck_assert_uint_eq(toy.losses, 1);
	/* Not again after a restart, but again if there is more. */
	helper_close(&toy.h);
	start(&toy);
	ck_assert_uint_eq(toy.losses, 0);
	atomic_fetch_add(&core.ctrl->lost, 1);
	ck_assert_int_eq(port_run(&toy.h.port), 0);
	ck_assert_uint_eq(toy.losses, 1);
}
END_TEST

/* The core loses an access, of a reset perhaps, just before it hears the answer: known before
 * anything is resumed. */
START_TEST(lost_while_it_attaches)
{
	struct err e = {0};

	helper_close(&toy.h);
	fc_call_start(&core, DP_OP_WRITE, 0, 4, 1);
	ck_assert_int_eq(open_tag(&toy, TAG, &e), 0);
	toy.loses = &core.ctrl->lost;
	ck_assert_int_eq(helper_attach(&toy.h, &toy_ops, &toy, &e), 0);
	ck_assert_uint_eq(atomic_load(&core.ctrl->ack_seq), core.seq);
	ck_assert_uint_eq(toy.losses_at_resume, 1);
}
END_TEST

START_TEST(sleep_protocol)
{
	ck_assert(port_may_sleep(&toy.h.port));
	ck_assert_uint_eq(atomic_load(&core.ctrl->asleep), 1);
	fc_post(&core, 0, 4, 1);
	ck_assert_uint_eq(event_drain(core.call_fd), 1);
	port_awake(&toy.h.port);
	ck_assert(!port_may_sleep(&toy.h.port));
	ck_assert_uint_eq(atomic_load(&core.ctrl->asleep), 0);
	fc_post(&core, 0, 4, 1);
	ck_assert_uint_eq(event_drain(core.call_fd), 0); /* awake: no signal */
}
END_TEST

/* ---- with a thread of its own ---- */

static struct fakechan chan;

static void *loop(void *arg)
{
	struct toy *t = arg;

	return (void *)(intptr_t)helper_loop(&t->h, chan.helper);
}

static pthread_t start_thread(void)
{
	pthread_t t;

	core.pump = NULL;
	chan_open(&chan);
	ck_assert_int_eq(pthread_create(&t, NULL, loop, &toy), 0);
	chan_expect(&chan, MSG_READY, NULL, 0);
	return t;
}

static void loop_teardown(void)
{
	chan_close(&chan);
	teardown();
}

START_TEST(bursts_and_pauses)
{
	pthread_t t = start_thread();
	struct msg_stats s;
	uint64_t sum = 0;
	void *rc;

	/* Pauses around the time that the helper spins, so that it is asleep, awake and between. */
	for (unsigned i = 0; i < 3000; i++) {
		fc_post(&core, 0, 8, i);
		sum += i;
		if (i % 7 == 0)
			ck_assert_uint_eq(fc_read(&core, 0, 8), sum);
		if (i % 11 == 0)
			host_sleep_us((i * 7) % 150);
	}
	event_signal(toy.h.event_fd);
	chan_send(&chan, MSG_GO, NULL, 0);
	fc_post(&core, 0, 8, 1000000);
	chan_send(&chan, MSG_STOP, NULL, 0);
	chan_expect(&chan, MSG_STOPPED, &s, sizeof(s));
	pthread_join(t, &rc);
	ck_assert_ptr_null(rc);
	ck_assert_uint_eq(toy.sum, sum + 1000000); /* what was posted last is not lost */
	ck_assert_uint_eq(s.n[STAT_POSTED] + s.n[STAT_CALLS], 3001 + (3000 + 6) / 7);
	ck_assert_uint_eq(s.n[STAT_FIRST], 77);
	ck_assert_uint_eq(toy.stopped, 1);
	ck_assert_uint_eq(toy.events, 1);
}
END_TEST

/* A core that never stops talking must not keep the helper from its messages. */
static _Atomic bool flood_end;
static void *flood(void *arg)
{
	(void)arg;
	while (!flood_end) {
		if (core.head - atomic_load(&core.ctrl->ring_tail) < DP_RING_LEN)
			fc_post(&core, 0, 8, 1);
	}
	return NULL;
}

START_TEST(busy_core_does_not_hide_messages)
{
	pthread_t t = start_thread(), f;
	struct msg_stats s;

	flood_end = false;
	pthread_create(&f, NULL, flood, NULL);
	host_sleep_us(20000);
	chan_send(&chan, MSG_STOP, NULL, 0);
	chan_expect(&chan, MSG_STOPPED, &s, sizeof(s));
	flood_end = true;
	pthread_join(f, NULL);
	pthread_join(t, NULL);
}
END_TEST

START_TEST(end_of_channel)
{
	pthread_t t = start_thread();
	void *rc;

	chan_break(&chan);
	pthread_join(t, &rc);
	ck_assert_int_eq((int)(intptr_t)rc, -EPIPE);
	ck_assert_uint_eq(toy.stopped, 0);
}
END_TEST

START_TEST(unknown_message)
{
	pthread_t t = start_thread();
	struct msg_dev m = {0};
	void *rc;

	chan_send(&chan, MSG_DEV_UP, &m, sizeof(m));
	pthread_join(t, &rc);
	ck_assert_int_eq((int)(intptr_t)rc, -EPROTO);
}
END_TEST

START_TEST(broken_protocol_ends_the_loop)
{
	pthread_t t = start_thread();
	void *rc;

	fc_call_start(&core, 99, 0, 4, 0);
	pthread_join(t, &rc);
	ck_assert_int_eq((int)(intptr_t)rc, -EPROTO);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("devpage_helper");
	TCase *c = tcase_create("port"), *l = tcase_create("loop");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_checked_fixture(c, setup, teardown);
	tcase_add_test(c, posted_before_call);
	tcase_add_test(c, full_ring_becomes_a_call);
	tcase_add_test(c, free_running_indices_wrap);
	tcase_add_test(c, refused_pages);
	tcase_add_test(c, file_or_short_page_refused);
	tcase_add_test(c, hostile_ring);
	tcase_add_test(c, hostile_call);
	tcase_add_test(c, own_indices_are_private);
	tcase_add_test(c, restart_carries_on);
	tcase_add_test(c, abandoned_call);
	tcase_add_test(c, lost_is_told_once);
	tcase_add_test(c, lost_while_it_attaches);
	tcase_add_test(c, sleep_protocol);
	suite_add_tcase(s, c);
	tcase_add_checked_fixture(l, setup, loop_teardown);
	tcase_set_timeout(l, 60);
	tcase_add_test(l, bursts_and_pauses);
	tcase_add_test(l, busy_core_does_not_hide_messages);
	tcase_add_test(l, end_of_channel);
	tcase_add_test(l, unknown_message);
	tcase_add_test(l, broken_protocol_ends_the_loop);
	suite_add_tcase(s, l);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
