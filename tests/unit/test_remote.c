/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The core's side of a device page (vmm/remote.h), against a helper that keeps its side and against
 * ones that do not; and the bus in front of it. The helper here is a thread that answers as
 * `behave` says, or nobody: then the test itself writes what a helper would.
 */
#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>

#include <insula/base.h>

#include "devices/describe.h"
#include "vmm/remote.h"

#include "host.h"

#define MS 1000000ull
#define KICKS 3
#define LOG_LEN 8192

/* virtio-mmio registers (virtio 1.2, 4.2.2), one of each way. */
#define REG_MAGIC 0x000           /* read: shadow */
#define REG_FEATURES_SEL 0x014    /* write: call */
#define REG_DRIVER_FEATURES 0x020 /* write: posted */
#define REG_NOTIFY 0x050          /* write: doorbell */
#define REG_ACK 0x064             /* write: acknowledge */
#define REG_STATUS 0x070          /* write: call */

enum behaviour { OBEY, WRONG_SEQ, SILENT, NEVER_DRAIN, TAIL_AHEAD, SLOW };

#define SLOW_US 300000

static struct {
	int page_fd, call, irq, ack, kick[KICKS]; /* the test's own duplicates */
	int answer;                               /* word_events(): else -1 */
	uint8_t *page;
	struct dp_ctrl *ctrl;
	const struct dp_post *ring;

	pthread_t thread;
	atomic_bool quit;
	_Atomic(enum behaviour) behave;
	struct {
		uint32_t off, size;
		uint64_t value;
		bool call;
	} log[LOG_LEN]; /* by the helper; read it when the helper is quiet */
	_Atomic uint32_t nlog;
} h;

static struct remote dev;
static atomic_bool ending;
static struct err e;

static void note(uint32_t off, uint32_t size, uint64_t value, bool call)
{
	uint32_t n = atomic_load(&h.nlog);

	h.log[n % LOG_LEN].off = off;
	h.log[n % LOG_LEN].size = size;
	h.log[n % LOG_LEN].value = value;
	h.log[n % LOG_LEN].call = call;
	atomic_store(&h.nlog, n + 1);
}

static void drain(void)
{
	uint32_t tail = atomic_load(&h.ctrl->ring_tail), head = atomic_load(&h.ctrl->ring_head);

	for (; tail != head; tail++) {
		const struct dp_post *p = &h.ring[tail % DP_RING_LEN];
		note(p->offset, p->size, p->value, false);
	}
	atomic_store(&h.ctrl->ring_tail, tail);
}

static void answer(uint32_t seq, uint64_t value)
{
	h.ctrl->ack_value = value;
	atomic_store(&h.ctrl->ack_seq, seq);
	if (atomic_load(&h.ctrl->core_waits))
		word_wake_shared(&h.ctrl->ack_seq, h.answer);
}

static void serve_call(enum behaviour b)
{
	uint32_t seq = atomic_load(&h.ctrl->req_seq);

	if (b == SILENT || seq == atomic_load(&h.ctrl->ack_seq))
		return;
	if (b != NEVER_DRAIN && b != TAIL_AHEAD)
		drain(); /* what was posted before comes first */
	if (b == SLOW)
		host_sleep_us(SLOW_US);
	note(h.ctrl->req_offset, h.ctrl->req_size, h.ctrl->req_value, true);
	answer(b == WRONG_SEQ ? seq + 1 : seq, h.ctrl->req_offset + 0x1000u);
}

static void *helper(void *arg)
{
	while (!atomic_load(&h.quit)) {
		enum behaviour b = atomic_load(&h.behave);

		if (b == OBEY)
			drain();
		if (b == TAIL_AHEAD)
			atomic_store(&h.ctrl->ring_tail, atomic_load(&h.ctrl->ring_head) + 7);
		serve_call(b);
		atomic_store(&h.ctrl->asleep, 1);
		if (atomic_load(&h.ctrl->req_seq) == atomic_load(&h.ctrl->ack_seq) || b == SILENT ||
		    b == WRONG_SEQ)
			events_wait(&h.call, 1, -1, 20);
		atomic_store(&h.ctrl->asleep, 0);
		event_drain(h.call);
	}
	return arg;
}

static void start_helper(enum behaviour b)
{
	atomic_store(&h.quit, false);
	atomic_store(&h.behave, b);
	ck_assert_int_eq(pthread_create(&h.thread, NULL, helper, NULL), 0);
}

static void stop_helper(void)
{
	atomic_store(&h.quit, true);
	event_signal(h.call);
	pthread_join(h.thread, NULL);
}

#define BASE 0xd0000000ull
#define PORT 0x3f8
#define UART 0 /* take_up() of the one or the other: its number of queues */

/* The real descriptions: of a 16550, or of virtio-mmio with this many queues. */
static struct device_desc describe(unsigned nqueues)
{
	struct device_desc m;

	if (nqueues == UART)
		describe_16550(&m, PORT, 4);
	else
		describe_virtio_mmio(&m, BASE, 5, nqueues);
	m.index = 4;
	memset(m.name, 'n', sizeof(m.name) - 1);
	return m;
}

static int take_up_desc(const struct device_desc *m, unsigned drop)
{
	int fds[MSG_MAX_FDS];
	unsigned n = 0;
	int rc;

	fds[n++] = fd_copy(h.page_fd);
	fds[n++] = fd_copy(h.call);
	fds[n++] = fd_copy(h.irq);
	for (unsigned i = 0; i + 1 < m->ndoorbells; i++)
		fds[n++] = fd_copy(h.kick[i]);
	if (m->ndoorbells)
		fds[n++] = fd_copy(h.ack);
	if (word_events())
		fds[n++] = fd_copy(h.answer);
	for (; drop; drop--)
		fd_close(&fds[--n]);
	rc = remote_init(&dev, m, fds, n, &e);
	dev.wake_event = rc ? -1 : event_create();
	dev.ending = &ending;
	return rc;
}

static int take_up(unsigned nqueues, unsigned drop)
{
	struct device_desc m = describe(nqueues);

	return take_up_desc(&m, drop);
}

static void open_page(void)
{
	void *p;

	memset(&h, 0, sizeof(h));
	atomic_store(&ending, false);
	h.page_fd = shm_create("page", DP_SIZE, &e);
	ck_assert_int_eq(shm_map(h.page_fd, DP_SIZE, 0, DP_SIZE, true, &p, &e), 0);
	h.page = p;
	h.ctrl = (struct dp_ctrl *)(h.page + DP_CTRL_OFF);
	h.ring = (const struct dp_post *)(h.page + DP_RING_OFF);
	h.call = event_create();
	h.irq = event_create();
	h.ack = event_create();
	h.answer = word_events() ? event_create() : -1;
	for (unsigned i = 0; i < KICKS; i++)
		h.kick[i] = event_create();
}

static void drop_remote(void)
{
	shm_unmap(dev.shadow, DP_CORE_SIZE);
	for (unsigned i = 0; i < dev.desc.nslots; i++)
		fd_close(&dev.slot[i]);
	fd_close(&dev.wake_event);
	pthread_mutex_destroy(&dev.lock);
}

static void close_page(void)
{
	shm_unmap(h.page, DP_SIZE);
	fd_close(&h.page_fd);
	fd_close(&h.call);
	fd_close(&h.irq);
	fd_close(&h.ack);
	fd_close(&h.answer);
	for (unsigned i = 0; i < KICKS; i++)
		fd_close(&h.kick[i]);
}

static void setup(void)
{
	open_page();
	ck_assert_int_eq(take_up(KICKS, 0), 0);
}

static void teardown(void)
{
	drop_remote();
	close_page();
}

/* Each an exit of its own. */
static uint64_t rd(uint64_t off, unsigned size)
{
	struct bus_patience w = {0};

	return remote_bus_ops.read(&dev.window[0], off, size, &w);
}

static void wr(uint64_t off, unsigned size, uint64_t v)
{
	struct bus_patience w = {0};

	remote_bus_ops.write(&dev.window[0], off, size, v, &w);
}

static struct vm_dev_metrics metrics(void)
{
	struct vm_dev_metrics m;

	remote_metrics(&dev, &m);
	return m;
}

/* ---- taking over ---- */

START_TEST(policies)
{
	struct device_desc d = describe(KICKS);
	const struct device_window *w = &d.window[0];

	ck_assert_uint_eq(w->len, DP_SHADOW_SIZE);
	/* No readable register is posted: Status, QueueSel, QueueReady, the feature selectors of
	 * the device. */
	for (unsigned reg = 0; reg < 0x100; reg += 4) {
		static const unsigned posted[] = {0x20, 0x24, 0x38, 0x80, 0x84,
						  0x90, 0x94, 0xa0, 0xa4};
		bool in = false;

		for (unsigned i = 0; i < ARRAY_LEN(posted); i++)
			in |= posted[i] == reg;
		ck_assert_int_eq(w->posted >> (reg / 4) & 1, in);
	}
	ck_assert_uint_eq(w->call_reads, 0);
	ck_assert_uint_eq(w->dropped, 1ull << (REG_NOTIFY / 4));
	ck_assert_uint_eq(w->unheard, 1ull << (REG_ACK / 4));
	d = describe(UART);
	ck_assert_uint_eq(w->posted, 1);
	ck_assert_uint_eq(w->call_reads, 5);
	ck_assert_uint_eq(w->dropped | w->unheard, 0);
}
END_TEST

START_TEST(bad_devices)
{
	unsigned before;

	open_page();
	before = host_count_descriptors();
	ck_assert_int_eq(take_up(KICKS, 1), -EINVAL);
	ck_assert_int_eq(take_up(UART, 1), -EINVAL);
	/* A page of another size, which can shrink. */
	int keep = h.page_fd;
	h.page_fd = shm_create("small", DP_CORE_SIZE / 2, &e);
	ck_assert_int_eq(take_up(UART, 0), HOST_SHORT);
	fd_close(&h.page_fd);
	h.page_fd = host_file("", 0, DP_SIZE);
	ck_assert_int_eq(take_up(UART, 0), HOST_NOT_SHARED);
	fd_close(&h.page_fd);
	h.page_fd = keep;
	ck_assert_uint_eq(host_count_descriptors(), before); /* on error everything is closed */
	close_page();
}
END_TEST

START_TEST(taken_over)
{
	ck_assert_uint_eq(dev.desc.index, 4);
	ck_assert_uint_eq(strlen(dev.metrics.name), DEV_NAME_LEN - 1);
	event_signal(dev.slot[dev.desc.doorbell[KICKS - 1].slot]);
	ck_assert_uint_eq(event_drain(h.kick[KICKS - 1]), 1);
	event_signal(dev.slot[dev.desc.vector[0].slot]);
	ck_assert_uint_eq(event_drain(h.irq), 1);
	event_signal(dev.slot[dev.desc.doorbell[KICKS].slot]);
	ck_assert_uint_eq(event_drain(h.ack), 1);
}
END_TEST

/* ---- reads ---- */

START_TEST(shadow_reads)
{
	for (unsigned i = 0; i < DP_SHADOW_SIZE; i++)
		h.page[i] = (uint8_t)(i * 31 + (i >> 8));
	for (unsigned size = 1; size <= 8; size *= 2) {
		for (uint64_t off = 0; off <= DP_SHADOW_SIZE - size; off++) {
			uint64_t want = 0;

			memcpy(&want, h.page + off, size);
			ck_assert_uint_eq(rd(off, size), want);
		}
	}
	ck_assert_uint_eq(metrics().shadow_reads, 4 * DP_SHADOW_SIZE - (0 + 1 + 3 + 7));
	ck_assert_uint_eq(metrics().calls, 0);
	ck_assert_uint_eq(atomic_load(&h.ctrl->req_seq), 0);
}
END_TEST

/* The UART: a read of the receive buffer or of the interrupt identification goes to the helper, the
 * others do not. */
START_TEST(uart_reads)
{
	drop_remote();
	ck_assert_int_eq(take_up(UART, 0), 0);
	start_helper(OBEY);
	for (unsigned off = 0; off < 8; off++) {
		h.page[off] = (uint8_t)(0x50 + off);
		ck_assert_uint_eq(rd(off, 1), off == 0 || off == 2 ? 0x1000 + off : 0x50 + off);
	}
	ck_assert_uint_eq(metrics().calls, 2);
	ck_assert_uint_eq(metrics().shadow_reads, 6);
	stop_helper();
}
END_TEST

/* ---- writes ---- */

/* Posted writes arrive complete, in order, and before the call that follows; more of them than the
 * ring holds. */
START_TEST(posted_before_call)
{
	const unsigned n = 5 * DP_RING_LEN + 17;

	start_helper(OBEY);
	for (unsigned i = 0; i < n; i++)
		wr(REG_DRIVER_FEATURES, 4, i);
	wr(REG_STATUS, 1, 0xab);
	stop_helper();
	ck_assert_uint_eq(atomic_load(&h.nlog), n + 1);
	for (unsigned i = 0; i < n; i++) {
		ck_assert_uint_eq(h.log[i].off, REG_DRIVER_FEATURES);
		ck_assert_uint_eq(h.log[i].size, 4);
		ck_assert_uint_eq(h.log[i].value, i);
	}
	ck_assert(h.log[n].call && h.log[n].off == REG_STATUS && h.log[n].size == 1 &&
		  h.log[n].value == 0xab);
	ck_assert_uint_eq(metrics().posted + metrics().calls, n + 1);
	ck_assert_uint_ge(metrics().posted, DP_RING_LEN);
	ck_assert_uint_eq(metrics().timeouts, 0);
	ck_assert_uint_gt(metrics().call_ns_max, 0);
}
END_TEST

/* A helper that sleeps is woken, one that does not is left alone. */
START_TEST(wakes_only_a_sleeper)
{
	wr(REG_DRIVER_FEATURES, 4, 1);
	ck_assert_uint_eq(event_drain(h.call), 0);
	atomic_store(&h.ctrl->asleep, 1);
	wr(REG_DRIVER_FEATURES, 4, 2);
	ck_assert_uint_eq(event_drain(h.call), 1);
	atomic_store(&h.ctrl->asleep, 0xdeadbeef); /* a lie costs an event, no more */
	wr(REG_DRIVER_FEATURES, 4, 3);
	ck_assert_uint_eq(event_drain(h.call), 1);
	ck_assert_uint_eq(atomic_load(&h.ctrl->ring_head), 3);
	ck_assert_uint_eq(h.ring[1].value, 2);
}
END_TEST

START_TEST(doorbells)
{
	for (unsigned q = 0; q < KICKS; q++) {
		wr(REG_NOTIFY, 4, q);
		for (unsigned k = 0; k < KICKS; k++)
			ck_assert_uint_eq(event_drain(h.kick[k]), k == q);
	}
	wr(REG_NOTIFY, 4, KICKS); /* a queue that there is not */
	wr(REG_NOTIFY, 8, UINT64_MAX);
	wr(REG_ACK, 4, 1);
	ck_assert_uint_eq(metrics().doorbells, KICKS + 3);
	ck_assert_uint_eq(metrics().calls, 0);
	ck_assert_uint_eq(atomic_load(&h.ctrl->req_seq), 0);
	start_helper(OBEY);
	wr(REG_ACK, 4, 3); /* the configuration bit is exact: the helper hears of it */
	stop_helper();
	ck_assert_uint_eq(metrics().calls, 1);
	ck_assert(h.log[0].call && h.log[0].off == REG_ACK && h.log[0].value == 3);
}
END_TEST

/* Offsets beyond the masks (configuration space, the last byte) are calls; nothing is shifted out
 * of range. */
START_TEST(far_offsets)
{
	start_helper(OBEY);
	wr(0x100, 4, 1);
	wr(0xff8, 8, UINT64_MAX);
	wr(0xfff, 1, 2);
	stop_helper();
	ck_assert_uint_eq(metrics().calls, 3);
	ck_assert(h.log[1].off == 0xff8 && h.log[1].size == 8 && h.log[1].value == UINT64_MAX);
}
END_TEST

static void wait_for_ack(void)
{
	while (!atomic_load(&h.ctrl->ack_seq))
		host_sleep_us(1000);
}

/* The supervisor says that there is no helper: nobody is waited for, though the last call was
 * answered, and an acknowledge is no loss. */
START_TEST(down_and_up)
{
	uint64_t start = clock_ns();

	remote_down(&dev);
	ck_assert(!atomic_load(&dev.stuck)); /* it knows */
	wr(REG_ACK, 4, 3);
	wr(REG_ACK, 4, 2);
	ck_assert_uint_eq(atomic_load(&h.ctrl->lost), 0);
	wr(REG_STATUS, 4, 0);
	ck_assert_uint_eq(atomic_load(&h.ctrl->lost), 1);
	ck_assert_uint_eq(metrics().calls, 0);
	ck_assert_uint_eq(metrics().timeouts, 0);
	ck_assert_uint_lt(clock_ns() - start, DP_DEADLINE_NS / 4);
	start_helper(OBEY);
	wait_for_ack();
	remote_up(&dev);
	wr(REG_ACK, 4, 3);
	stop_helper();
	ck_assert_uint_eq(atomic_load(&h.nlog), 2);
	ck_assert(h.log[1].call && h.log[1].off == REG_ACK && h.log[1].value == 3);
}
END_TEST

/* The next helper has looked at what was lost, and the supervisor has not said yet that it is
 * there. It may serve the queues by now: a reset that it does not hear would leave it at work in
 * memory that the guest uses for something else. */
static void reset_is_heard(void)
{
	start_helper(OBEY);
	wait_for_ack();
	wr(REG_STATUS, 4, 0);
	stop_helper();
	ck_assert_uint_eq(atomic_load(&h.ctrl->lost), 0);
	ck_assert(h.log[1].call && h.log[1].off == REG_STATUS && h.log[1].value == 0);
}

START_TEST(heard_before_up)
{
	remote_down(&dev);
	/* What it has to answer first changes nothing in any device. */
	ck_assert_uint_eq(h.ctrl->req_op, DP_OP_READ);
	ck_assert_uint_eq(h.ctrl->req_offset, 7);
	ck_assert_uint_eq(h.ctrl->req_size, 1);
	reset_is_heard();
}
END_TEST

/* The same behind a call of the guest's that was given up: it is the one that is answered. */
START_TEST(down_keeps_a_call)
{
	wr(REG_STATUS, 4, 0xf); /* in vain */
	ck_assert_uint_eq(atomic_load(&h.ctrl->req_seq), 1);
	remote_down(&dev);
	ck_assert_uint_eq(atomic_load(&h.ctrl->req_seq), 1);
	ck_assert_uint_eq(h.ctrl->req_value, 0xf);
	atomic_store(&h.ctrl->lost, 0);
	reset_is_heard();
}
END_TEST

/* ---- helpers that break the rules ---- */

/* What a device that has failed looks like, without waiting for anybody. */
static void assert_failed(void)
{
	uint64_t start = clock_ns();
	struct vm_dev_metrics before = metrics();
	uint32_t seq = atomic_load(&h.ctrl->req_seq), head = atomic_load(&h.ctrl->ring_head);

	memset(h.page, 0x11, DP_SHADOW_SIZE);
	ck_assert(atomic_load(&dev.failed));
	for (unsigned size = 1; size <= 8; size *= 2)
		ck_assert_uint_eq(rd(REG_MAGIC, size), UINT64_MAX);
	atomic_store(&h.ctrl->lost, 0);
	wr(REG_STATUS, 4, 1);
	ck_assert_uint_eq(atomic_load(&h.ctrl->lost),
			  1); /* the page says that something was lost */
	atomic_store(&h.ctrl->lost, 0);
	wr(REG_DRIVER_FEATURES, 4, 1);
	ck_assert_uint_eq(atomic_load(&h.ctrl->lost), 1);
	ck_assert_uint_eq(atomic_load(&h.ctrl->req_seq), seq);
	ck_assert_uint_eq(atomic_load(&h.ctrl->ring_head), head);
	ck_assert_uint_eq(metrics().calls, before.calls);
	ck_assert_uint_eq(metrics().posted, before.posted);
	ck_assert_uint_lt(clock_ns() - start, DP_DEADLINE_NS / 4);
}

static void assert_told_once(void)
{
	ck_assert(atomic_exchange(&dev.stuck, false));
	ck_assert_uint_eq(event_drain(dev.wake_event), 1);
	ck_assert_uint_eq(metrics().timeouts, 1);
}

static void *one_of_three(void *arg)
{
	uint64_t start = clock_ns();

	wr(REG_STATUS, 4, (uintptr_t)arg);
	return (void *)(uintptr_t)((clock_ns() - start) / MS);
}

/* Waits the deadline out, with three vCPUs at the device. Then the late answer comes, a new helper
 * starts, and the device works. */
static void dies_and_lives(enum behaviour b)
{
	pthread_t t[3];
	void *ms;
	uint32_t stale;

	start_helper(b);
	wr(REG_DRIVER_FEATURES, 4, 5);
	for (unsigned i = 0; i < 3; i++)
		ck_assert_int_eq(pthread_create(&t[i], NULL, one_of_three, NULL), 0);
	for (unsigned i = 0; i < 3; i++) {
		ck_assert_int_eq(pthread_join(t[i], &ms), 0);
		/* All three end with the first one's deadline, not one after the other. */
		ck_assert_uint_lt((uintptr_t)ms, DP_DEADLINE_NS / MS * 3 / 2);
	}
	stop_helper();
	ck_assert_uint_eq(metrics().calls, 1);
	ck_assert_uint_eq(atomic_load(&h.ctrl->lost), 3);
	ck_assert_uint_eq(atomic_load(&h.ctrl->core_waits), 0);
	assert_told_once();
	assert_failed();
	ck_assert(!atomic_load(&dev.stuck)); /* nothing new to tell */

	/* Back: the answer to the call that was given up is no answer to the next one. */
	stale = atomic_load(&h.ctrl->req_seq);
	remote_up(&dev);
	answer(stale, 0xbad);
	memset(h.page, 0x22, DP_SHADOW_SIZE);
	ck_assert_uint_eq(rd(REG_MAGIC, 4), 0x22222222);
	start_helper(OBEY);
	atomic_store(&h.nlog, 0);
	wr(REG_STATUS, 4, 0x77);
	stop_helper();
	ck_assert_uint_gt(atomic_load(&h.nlog), 0);
	ck_assert(h.log[h.nlog - 1].call && h.log[h.nlog - 1].value == 0x77);
	ck_assert_uint_eq(metrics().calls, 2);
	ck_assert_uint_eq(metrics().timeouts, 1);
}

START_TEST(never_answers)
{
	dies_and_lives(SILENT);
}
END_TEST

START_TEST(answers_wrong_seq)
{
	dies_and_lives(WRONG_SEQ);
}
END_TEST

/* The next helper answers what was given up: the guest that sees it may go on at once. */
START_TEST(late_answer_ends_the_failure)
{
	wr(REG_STATUS, 4, 0);
	assert_failed();
	answer(atomic_load(&h.ctrl->req_seq), 0);
	start_helper(OBEY);
	atomic_store(&h.ctrl->lost, 0);
	wr(REG_DRIVER_FEATURES, 4, 5);
	wr(REG_STATUS, 4, 1);
	stop_helper();
	ck_assert_uint_eq(atomic_load(&h.ctrl->lost), 0);
	ck_assert_uint_eq(metrics().posted, 1);
	ck_assert_uint_eq(metrics().calls, 2);
	ck_assert_uint_eq(metrics().timeouts, 1);
}
END_TEST

/* A helper that changes the futex word all the time: each wake-up looks at the clock. */
static void *restless(void *arg)
{
	uint32_t junk = 0x80000000u;

	while (!atomic_load(&h.quit)) {
		answer(junk++, 1);
		host_sleep_us(1000);
	}
	return arg;
}

START_TEST(deadline_holds_against_wakeups)
{
	uint64_t start = clock_ns(), took;

	ck_assert_int_eq(pthread_create(&h.thread, NULL, restless, NULL), 0);
	wr(REG_STATUS, 4, 1);
	took = clock_ns() - start;
	atomic_store(&h.quit, true);
	pthread_join(h.thread, NULL);
	ck_assert_uint_ge(took, DP_DEADLINE_NS);
	ck_assert_uint_lt(took, DP_DEADLINE_NS * 3 / 2);
	assert_told_once();
	assert_failed();
}
END_TEST

/* `rep insb`: one exit with 1,024 accesses, each of which a helper answers in time. The deadline is
 * one for all of them. */
START_TEST(one_deadline_for_an_exit)
{
	struct bus_patience w = {0};
	uint64_t start = clock_ns(), took;
	unsigned answers = 0;

	drop_remote();
	ck_assert_int_eq(take_up(UART, 0), 0);
	start_helper(SLOW);
	for (unsigned i = 0; i < 1024; i++)
		answers += remote_bus_ops.read(&dev.window[0], 0, 1, &w) != UINT64_MAX;
	took = clock_ns() - start;
	stop_helper();
	ck_assert_uint_ge(took, DP_DEADLINE_NS);
	ck_assert_uint_lt(took, DP_DEADLINE_NS * 3);
	ck_assert_uint_ge(answers, 1);
	ck_assert_uint_le(answers, DP_DEADLINE_NS / 1000 / SLOW_US);
	assert_told_once();
}
END_TEST

/* The VM ends while a vCPU waits: it does not sit the deadline out, and the device is not blamed.
 */
static void *end_soon(void *arg)
{
	host_sleep_us(50000);
	atomic_store(&ending, true);
	answer(0x12345, 0); /* wakes the waiter */
	return arg;
}

START_TEST(ending_cuts_the_wait_short)
{
	uint64_t start = clock_ns();
	pthread_t t;

	ck_assert_int_eq(pthread_create(&t, NULL, end_soon, NULL), 0);
	wr(REG_STATUS, 4, 1);
	ck_assert_uint_lt(clock_ns() - start, DP_DEADLINE_NS / 2);
	pthread_join(t, NULL);
	ck_assert(!atomic_load(&dev.failed) && !atomic_load(&dev.stuck));
	start = clock_ns();
	wr(REG_STATUS, 4, 2); /* and the next one does not wait at all */
	ck_assert_uint_lt(clock_ns() - start, DP_DEADLINE_NS / 4);
	ck_assert_uint_eq(metrics().timeouts, 0);
}
END_TEST

/* Answered before it was asked: no wait, and the value is the helper's own business. */
START_TEST(answer_before_question)
{
	uint64_t start = clock_ns();

	answer(1, 0x55);
	wr(REG_STATUS, 4, 1);
	ck_assert_uint_lt(clock_ns() - start, DP_DEADLINE_NS / 4);
	ck_assert_uint_eq(metrics().timeouts, 0);
	ck_assert(!atomic_load(&dev.failed));
}
END_TEST

/* A ring that nobody empties: DP_RING_LEN posts, then each write is a call; no entry is written
 * over. */
START_TEST(ring_never_drained)
{
	start_helper(NEVER_DRAIN);
	for (unsigned i = 0; i < DP_RING_LEN + 10; i++)
		wr(REG_DRIVER_FEATURES, 4, 1000 + i);
	stop_helper();
	ck_assert_uint_eq(metrics().posted, DP_RING_LEN);
	ck_assert_uint_eq(metrics().calls, 10);
	ck_assert_uint_eq(atomic_load(&h.ctrl->ring_head), DP_RING_LEN);
	for (unsigned i = 0; i < DP_RING_LEN; i++)
		ck_assert_uint_eq(h.ring[i].value, 1000 + i);
	ck_assert(h.log[0].call && h.log[0].off == REG_DRIVER_FEATURES &&
		  h.log[0].value == 1000 + DP_RING_LEN);
}
END_TEST

/* A tail that the core has not reached yet means a ring fuller than full: calls, which the deadline
 * covers. */
START_TEST(tail_beyond_head)
{
	static const uint32_t tails[] = {1,           7,         DP_RING_LEN, DP_RING_LEN + 1,
					 0x80000000u, UINT32_MAX};

	for (unsigned i = 0; i < ARRAY_LEN(tails); i++) {
		uint32_t head = atomic_load(&h.ctrl->ring_head);

		atomic_store(&h.ctrl->ring_tail, head + tails[i]);
		answer(atomic_load(&h.ctrl->req_seq) + 1, 0);
		wr(REG_DRIVER_FEATURES, 4, i);
	}
	/* -1 is one entry behind: possible, and posted; all others were not. */
	ck_assert_uint_eq(metrics().posted, 1);
	ck_assert_uint_eq(metrics().calls, ARRAY_LEN(tails) - 1);
	ck_assert_uint_eq(atomic_load(&h.ctrl->ring_head), 1);
	ck_assert_uint_eq(metrics().timeouts, 0);
}
END_TEST

START_TEST(tail_ahead_all_the_time)
{
	start_helper(TAIL_AHEAD);
	for (unsigned i = 0; i < 1000; i++)
		wr(REG_DRIVER_FEATURES, 4, i);
	stop_helper();
	ck_assert_uint_eq(metrics().posted + metrics().calls, 1000);
	ck_assert_uint_eq(metrics().timeouts, 0);
}
END_TEST

/* The core's own side of the page is never read back: a helper that overwrites it changes nothing
 * for the core. */
START_TEST(core_fields_overwritten)
{
	wr(REG_DRIVER_FEATURES, 4, 1);
	atomic_store(&h.ctrl->ring_head, 0x4000);
	atomic_store(&h.ctrl->req_seq, 0x4000);
	wr(REG_DRIVER_FEATURES, 4, 2);
	ck_assert_uint_eq(atomic_load(&h.ctrl->ring_head), 2);
	ck_assert_uint_eq(h.ring[1].value, 2);
	answer(1, 0);
	wr(REG_STATUS, 4, 3);
	ck_assert_uint_eq(atomic_load(&h.ctrl->req_seq), 1);
	ck_assert_uint_eq(metrics().timeouts, 0);
}
END_TEST

/* ---- several vCPUs ---- */

#define VCPUS 4
#define ROUNDS 200

static void *vcpu(void *arg)
{
	uint64_t me = (uintptr_t)arg;

	for (uint64_t i = 0; i < ROUNDS; i++) {
		wr(REG_DRIVER_FEATURES, 4, me << 16 | i);
		if (i % 8 == me)
			wr(REG_STATUS, 4, me << 16 | i | 0x8000);
		(void)rd(REG_MAGIC, 4);
	}
	return arg;
}

START_TEST(several_vcpus)
{
	uint64_t next[VCPUS] = {0};
	pthread_t t[VCPUS];
	unsigned calls = 0;

	dev.may_spin = true;
	start_helper(OBEY);
	for (uintptr_t i = 0; i < VCPUS; i++)
		ck_assert_int_eq(pthread_create(&t[i], NULL, vcpu, (void *)i), 0);
	for (unsigned i = 0; i < VCPUS; i++)
		pthread_join(t[i], NULL);
	wr(REG_STATUS, 4, 0x8000); /* everything before it has arrived when it is answered */
	stop_helper();
	ck_assert_uint_eq(atomic_load(&h.nlog), VCPUS * ROUNDS + VCPUS * ROUNDS / 8 + 1);
	for (unsigned i = 0; i + 1 < h.nlog; i++) {
		uint64_t v = h.log[i].value, who = v >> 16;

		calls += h.log[i].off == REG_STATUS;
		if (h.log[i].off == REG_STATUS) {
			ck_assert_uint_eq((v & 0x7fff) + 1,
					  next[who]); /* right after the post before it */
		} else {
			ck_assert_uint_eq(v & 0xffff, next[who]);
			next[who]++;
		}
	}
	ck_assert_uint_eq(calls, VCPUS * ROUNDS / 8);
	ck_assert_uint_eq(metrics().shadow_reads, VCPUS * ROUNDS);
	ck_assert_uint_eq(metrics().timeouts, 0);
}
END_TEST

/* ---- bus ---- */

static struct {
	void *self;
	uint64_t off, value;
	unsigned size;
} last;

static uint64_t fake_read(void *self, uint64_t off, unsigned size, struct bus_patience *w)
{
	(void)w;
	last.self = self;
	last.off = off;
	last.size = size;
	return 0x1234;
}

static void fake_write(void *self, uint64_t off, unsigned size, uint64_t value,
		       struct bus_patience *w)
{
	fake_read(self, off, size, w);
	last.value = value;
}

static const struct bus_ops fake_ops = {fake_read, fake_write};

static int add(struct bus *b, uint64_t base, uint64_t n)
{
	return bus_add(b, base, n, &fake_ops, (void *)(uintptr_t)(base + 1), &e);
}

START_TEST(bus_refuses)
{
	struct bus b = {0};

	ck_assert_int_eq(add(&b, 0x100, 0), -EINVAL);
	ck_assert_int_eq(add(&b, UINT64_MAX, 2), -EINVAL);
	ck_assert_int_eq(add(&b, 2, UINT64_MAX), -EINVAL);
	ck_assert_int_eq(add(&b, 0x100, 0x10), 0);
	for (uint64_t base = 0x100 - 0x10 + 1; base < 0x110; base++)
		ck_assert_int_eq(add(&b, base, 0x10), -EEXIST);
	ck_assert_int_eq(add(&b, 0x108, 1), -EEXIST);
	ck_assert_int_eq(add(&b, 0, UINT64_MAX), -EEXIST);
	ck_assert_ptr_nonnull(strstr(e.text, "overlaps"));
	ck_assert_int_eq(add(&b, 0xf0, 0x10), 0); /* touching is not overlapping */
	ck_assert_int_eq(add(&b, 0x110, 0x10), 0);
	ck_assert_int_eq(add(&b, UINT64_MAX, 1), 0); /* the last byte there is */
	ck_assert_int_eq(add(&b, UINT64_MAX - 1, 2), -EEXIST);
	ck_assert_int_eq(add(&b, UINT64_MAX, 1), -EEXIST);
	ck_assert_int_eq(add(&b, 0, 1), 0);
	ck_assert_uint_eq(b.n, 5);
	for (unsigned i = 1; i < b.n; i++)
		ck_assert(b.region[i - 1].base < b.region[i].base);
	for (uint64_t i = b.n; i < BUS_MAX_REGIONS; i++)
		ck_assert_int_eq(add(&b, 0x1000 * i, 1), 0);
	ck_assert_int_eq(add(&b, 0x900000, 1), -ENOSPC);
}
END_TEST

START_TEST(bus_finds)
{
	static const uint64_t bases[] = {0x3f8, 0x600, 0x400, 0, UINT64_MAX - 7};
	struct bus b = {0};
	struct bus_patience w = {0};
	uint64_t v;

	ck_assert(!bus_read(&b, 0, 1, &v, &w) && v == UINT64_MAX);
	ck_assert(!bus_write(&b, 0, 1, 0, &w));
	for (unsigned i = 0; i < ARRAY_LEN(bases); i++)
		ck_assert_int_eq(add(&b, bases[i], 8), 0);
	for (unsigned i = 0; i < ARRAY_LEN(bases); i++) {
		for (unsigned size = 1; size <= 8; size *= 2) {
			for (uint64_t off = 0; off <= 8 - size; off++) {
				v = 0;
				ck_assert(bus_read(&b, bases[i] + off, size, &v, &w));
				ck_assert(v == 0x1234 && last.off == off && last.size == size &&
					  last.self == (void *)(uintptr_t)(bases[i] + 1));
				ck_assert(bus_write(&b, bases[i] + off, size, 99, &w));
				ck_assert(last.off == off && last.value == 99);
			}
			/* Across the end, also into a neighbour (0x400), also around the top:
			 * nobody's. */
			for (uint64_t off = 8 - size + 1; off < 8; off++) {
				ck_assert(!bus_read(&b, bases[i] + off, size, &v, &w) &&
					  v == UINT64_MAX);
				ck_assert(!bus_write(&b, bases[i] + off, size, 0, &w));
			}
		}
	}
	ck_assert(!bus_read(&b, 0x3f7, 1, &v, &w) && !bus_read(&b, 0x408, 1, &v, &w) &&
		  !bus_read(&b, 0x3f7, 2, &v, &w));
	ck_assert(!bus_read(&b, 8, 1, &v, &w) && !bus_read(&b, UINT64_MAX - 8, 1, &v, &w));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("remote");
	TCase *tc = tcase_create("remote"), *bare = tcase_create("bare"),
	      *bus = tcase_create("bus");
	SRunner *sr;
	int failures;

	tcase_add_test(bare, policies);
	tcase_add_test(bare, bad_devices);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, taken_over);
	tcase_add_test(tc, shadow_reads);
	tcase_add_test(tc, uart_reads);
	tcase_add_test(tc, posted_before_call);
	tcase_add_test(tc, wakes_only_a_sleeper);
	tcase_add_test(tc, doorbells);
	tcase_add_test(tc, far_offsets);
	tcase_add_test(tc, down_and_up);
	tcase_add_test(tc, heard_before_up);
	tcase_add_test(tc, down_keeps_a_call);
	tcase_add_test(tc, never_answers);
	tcase_add_test(tc, answers_wrong_seq);
	tcase_add_test(tc, late_answer_ends_the_failure);
	tcase_add_test(tc, deadline_holds_against_wakeups);
	tcase_add_test(tc, one_deadline_for_an_exit);
	tcase_add_test(tc, ending_cuts_the_wait_short);
	tcase_add_test(tc, answer_before_question);
	tcase_add_test(tc, ring_never_drained);
	tcase_add_test(tc, tail_beyond_head);
	tcase_add_test(tc, tail_ahead_all_the_time);
	tcase_add_test(tc, core_fields_overwritten);
	tcase_add_test(tc, several_vcpus);
	tcase_add_test(bus, bus_refuses);
	tcase_add_test(bus, bus_finds);
	suite_add_tcase(s, bare);
	suite_add_tcase(s, tc);
	suite_add_tcase(s, bus);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failures = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failures != 0;
}
