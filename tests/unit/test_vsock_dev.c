/* SPDX-License-Identifier: BSD-2-Clause */
/* A whole vsock device behind a device page: what a driver is sent, and what not, when a second
 * process serves it; and commands that reach the I/O thread at the worst moment. */
#include <check.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <devices/vsock/vsock.h>

#include "fakedrv.h"

#define MEM_SIZE (16u << 20)
#define QNUM 16
#define RINGS(i) (0x10000u + (i)*DRV_QUEUE_BYTES)
#define PACKET(i) (0x100000u + (i)*0x1000u) /* one receive buffer each, then the one to send */
#define EVENTS 0x200000u
#define BUF 0x1000u
#define HDR 44u
#define CID 5u
#define WAIT_NS 60000000000u

static struct fakecore core;
static struct guestmem gm;
static struct drvq drv[VSOCK_QUEUES];
static int mem_fd, kick[VSOCK_QUEUES], chan[2];
static uint32_t cid; /* of the process that is started next */
static pthread_t thread;
static struct rig { /* fresh for every start; its I/O thread outlives it, quiet */
	struct helper h;
	struct vsockdev d;
} * rig;

static void *loop(void *arg)
{
	return (void *)(intptr_t)helper_loop(arg, chan[1]);
}

static void start_device(void)
{
	const struct msg_start_vsock m = {
		.head.mem = board_map(MEM_SIZE), .guest_cid = cid, .max_conns = 8};
	struct start_fds fds = drv_start_fds(&core, mem_fd);
	const char *step;
	struct err e = {0};

	for (unsigned i = 0; i < VSOCK_QUEUES; i++)
		start_add(&fds, START_KICK, dup(kick[i]));
	rig = calloc(1, sizeof(*rig));
	ck_assert_ptr_nonnull(rig);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, chan), 0);
	ck_assert_msg(vsockdev_open(&rig->d, &rig->h, &m, &fds, &step, &e) == 0, "%s", e.text);
	ck_assert_int_eq(helper_attach(&rig->h, &rig->d.ops, &rig->d.w, &e), 0);
	ck_assert_int_eq(pthread_create(&thread, NULL, loop, &rig->h), 0);
	ck_assert_int_eq(msg_expect(chan[0], MSG_READY, NULL, 0, NULL, 0, &e), 0);
}

/* The page is then as one that was killed leaves it: the driver is there, its queues are ready. */
static void stop_device(void)
{
	struct msg_stats s;
	struct err e = {0};

	ck_assert_int_eq(msg_send(chan[0], MSG_STOP, NULL, 0, NULL, 0), 0);
	ck_assert_int_eq(msg_expect(chan[0], MSG_STOPPED, &s, sizeof(s), NULL, 0, &e), 0);
	pthread_join(thread, NULL);
	close(chan[0]);
	close(chan[1]);
}

static void offer(unsigned q, gpa_t at, uint32_t len)
{
	struct vring_desc d = drv_desc(at, len, q != VSOCK_TX);
	uint16_t old = drv[q].avail_idx;

	drvq_add(&drv[q], &d, 1, (void *)(uintptr_t)at);
	drvq_kick(&drv[q], old);
}

static void bring_up(bool event_idx)
{
	uint64_t f = DRV_F(VIRTIO_F_VERSION_1);

	if (event_idx)
		f |= DRV_F(VIRTIO_RING_F_EVENT_IDX);
	ck_assert(drv_negotiate(&core, f));
	for (unsigned i = 0; i < VSOCK_QUEUES; i++) {
		drvq_init(&drv[i], &gm, RINGS(i), QNUM, event_idx, kick[i]);
		ck_assert(drv_queue(&core, i, &drv[i]));
	}
	drv_ok(&core);
	for (unsigned i = 0; i < QNUM; i++)
		offer(VSOCK_RX, PACKET(i), BUF);
	offer(VSOCK_EVENT, EVENTS, 4);
	offer(VSOCK_EVENT, EVENTS + 4, 4);
}

static void setup(void)
{
	cid = CID;
	fc_open(&core);
	mem_fd = drv_memory(&gm, MEM_SIZE);
	for (unsigned i = 0; i < VSOCK_QUEUES; i++)
		kick[i] = event_create();
	start_device();
}

static void teardown(void)
{
	stop_device();
	gm_unmap(&gm);
	fd_close(&mem_fd);
	for (unsigned i = 0; i < VSOCK_QUEUES; i++)
		fd_close(&kick[i]);
	fc_close(&core);
}

/* The next used entry; the address of its buffer. */
static gpa_t used(unsigned q)
{
	uint64_t until = clock_ns() + WAIT_NS;
	uint16_t head;
	uint32_t len;
	void *at;

	while (!drvq_get(&drv[q], &head, &len, &at)) {
		ck_assert_msg(clock_ns() < until, "queue %u: nothing comes", q);
		usleep(1000);
	}
	return (gpa_t)(uintptr_t)at;
}

static bool silent(unsigned q)
{
	return drv_load16(drv[q].used + 2) == drv[q].used_idx;
}

/* Send a packet. When it is taken, an answer to it is there too: a turn publishes everything. */
static void say_as(uint32_t from, unsigned op, uint32_t guest_port, uint32_t host_port)
{
	struct virtio_vsock_hdr *p = gm_ptr(&gm, PACKET(QNUM), HDR);

	*p = (struct virtio_vsock_hdr){.src_cid = from,
				       .dst_cid = 2,
				       .src_port = guest_port,
				       .dst_port = host_port,
				       .type = VIRTIO_VSOCK_TYPE_STREAM,
				       .op = (uint16_t)op,
				       .buf_alloc = 65536};
	offer(VSOCK_TX, PACKET(QNUM), HDR);
	used(VSOCK_TX);
}

static void say(unsigned op, uint32_t guest_port, uint32_t host_port)
{
	say_as(CID, op, guest_port, host_port);
}

static void expect(unsigned op, uint32_t guest_port)
{
	gpa_t at = used(VSOCK_RX);
	const struct virtio_vsock_hdr *p = gm_ptr(&gm, at, HDR);

	ck_assert_uint_eq(p->op, op);
	ck_assert_uint_eq(p->dst_port, guest_port);
	offer(VSOCK_RX, at, BUF);
}

static void expect_event(void)
{
	gpa_t at = used(VSOCK_EVENT);
	const uint32_t *id = gm_ptr(&gm, at, 4);

	ck_assert_uint_eq(*id, VIRTIO_VSOCK_EVENT_TRANSPORT_RESET);
}

/* ---- a second process ---- */

/* Packets of connections that the dead process had get no answer before the driver has dealt with
 * the event: Linux takes a reset for an orderly end. */
START_TEST(strays_wait_for_the_event)
{
	bring_up(_i);
	say(VIRTIO_VSOCK_OP_RW, 1000, 52);
	expect(VIRTIO_VSOCK_OP_RST, 1000);
	stop_device();
	start_device();
	say(VIRTIO_VSOCK_OP_CREDIT_UPDATE, 1000, 52);
	ck_assert(silent(VSOCK_RX));
	expect_event();
	for (unsigned op = VIRTIO_VSOCK_OP_RESPONSE; op <= VIRTIO_VSOCK_OP_CREDIT_REQUEST; op++) {
		say(op, 1000, 52);
		ck_assert_msg(silent(VSOCK_RX), "operation %u", op);
	}
	/* A request is answered afterwards: what opened now would end with the old ones. */
	say(VIRTIO_VSOCK_OP_REQUEST, 1001, 53);
	ck_assert(silent(VSOCK_RX));
	offer(VSOCK_EVENT, EVENTS, 4);
	expect(VIRTIO_VSOCK_OP_RST, 1001);
	say(VIRTIO_VSOCK_OP_RW, 1000, 52);
	expect(VIRTIO_VSOCK_OP_RST, 1000);
	ck_assert(silent(VSOCK_EVENT));
}
END_TEST

/* Two processes die before the driver looks: it hears of the second as well. */
START_TEST(each_death_is_told)
{
	bring_up(_i);
	for (unsigned i = 0; i < 3; i++) {
		stop_device();
		start_device();
		if (i == 2)
			offer(VSOCK_EVENT, EVENTS, 4); /* there were two */
		expect_event();
		say(VIRTIO_VSOCK_OP_RW, 1000, 52);
		ck_assert(silent(VSOCK_RX));
	}
	offer(VSOCK_EVENT, EVENTS, 4);
	say(VIRTIO_VSOCK_OP_REQUEST, 1000, 52);
	expect(VIRTIO_VSOCK_OP_RST, 1000);
}
END_TEST

/* A restored VM may have another address than the one it was saved with: the driver reads it when it
 * has the event. Until then it still uses the old one, which gets no answer. */
START_TEST(another_address)
{
	const struct virtio_vsock_config *c = (void *)(core.page + VIRTIO_MMIO_CONFIG);
	uint32_t generation;
	gpa_t at;

	bring_up(_i);
	say(VIRTIO_VSOCK_OP_RW, 1000, 52);
	expect(VIRTIO_VSOCK_OP_RST, 1000);
	ck_assert_uint_eq(c->guest_cid, CID);
	generation = fc_shadow32(&core, VIRTIO_MMIO_CONFIG_GENERATION);
	stop_device();
	cid = CID + 1;
	start_device();
	ck_assert_uint_eq(c->guest_cid, CID + 1);
	ck_assert_uint_ne(fc_shadow32(&core, VIRTIO_MMIO_CONFIG_GENERATION), generation);
	say(VIRTIO_VSOCK_OP_REQUEST, 1000, 52);
	expect_event();
	offer(VSOCK_EVENT, EVENTS, 4);
	say(VIRTIO_VSOCK_OP_REQUEST, 1000, 52);
	ck_assert(silent(VSOCK_RX));
	say_as(CID + 1, VIRTIO_VSOCK_OP_REQUEST, 1001, 52);
	at = used(VSOCK_RX);
	ck_assert_uint_eq(((struct virtio_vsock_hdr *)gm_ptr(&gm, at, HDR))->dst_cid, CID + 1);
	ck_assert_uint_eq(((struct virtio_vsock_hdr *)gm_ptr(&gm, at, HDR))->dst_port, 1001);
}
END_TEST

/* The last packets of the dead process come first. A driver that does not say that it has seen them
 * is waited for, but not for ever. */
START_TEST(event_comes_after_old_packets)
{
	uint64_t began;

	bring_up(true);
	say(VIRTIO_VSOCK_OP_RW, 1000, 52);
	ck_assert(!silent(VSOCK_RX)); /* and used_event is still 0 */
	stop_device();
	began = clock_ns();
	start_device();
	expect_event();
	ck_assert_uint_ge(clock_ns() - began, VSOCK_LOOK_NS);
}
END_TEST

/* A driver that resets the device knows; one that takes no events cannot be told. */
START_TEST(no_event_where_none_is_wanted)
{
	bring_up(true);
	stop_device();
	start_device();
	expect_event();
	bring_up(true);
	say(VIRTIO_VSOCK_OP_RW, 1000, 52);
	expect(VIRTIO_VSOCK_OP_RST, 1000);
	ck_assert(silent(VSOCK_EVENT));

	ck_assert(drv_negotiate(&core, DRV_F(VIRTIO_F_VERSION_1)));
	for (unsigned i = 0; i < VSOCK_QUEUES; i++)
		drvq_init(&drv[i], &gm, RINGS(i), QNUM, false, kick[i]);
	for (unsigned i = 0; i < VSOCK_EVENT; i++)
		ck_assert(drv_queue(&core, i, &drv[i]));
	drv_ok(&core);
	offer(VSOCK_RX, PACKET(0), BUF);
	stop_device();
	start_device();
	say(VIRTIO_VSOCK_OP_RW, 1000, 52);
	used(VSOCK_RX);
}
END_TEST

/* ---- commands at the worst moment: turn and rest by hand, without the thread ---- */

static struct vsockdev *d;

static int no_open(void *ctx, struct vconn *c)
{
	(void)ctx, (void)c;
	return -ENOSPC;
}

static void just_close(void *ctx, struct vconn *c)
{
	(void)ctx;
	close(c->fd);
}

static const struct vconn_ops no_ends = {.open = no_open, .close = just_close};

static void bare_setup(void)
{
	d = calloc(1, sizeof(*d));
	ck_assert_ptr_nonnull(d);
	d->conns.ops = &no_ends;
	d->conns.max = 8;
	vconn_init(&d->conns);
	d->listen_fd = -1;
	d->w.nlanes = 1;
	d->w.lane->w = &d->w;
	d->w.lane->queues = (1u << VSOCK_QUEUES) - 1;
	d->w.quiet_fd = event_create();
}

static void bare_teardown(void)
{
	fd_close(&d->w.quiet_fd);
	free(d);
}

/* A start that comes after the turn and before the rest. */
START_TEST(start_is_not_lost)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int l = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), c;
	socklen_t len = sizeof(a);

	/* An address that the kernel chooses. */
	ck_assert_int_eq(bind(l, (struct sockaddr *)&a, sizeof(sa_family_t)), 0);
	ck_assert_int_eq(getsockname(l, (struct sockaddr *)&a, &len), 0);
	ck_assert_int_eq(listen(l, 1), 0);
	c = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(connect(c, (struct sockaddr *)&a, len), 0);
	d->listen_fd = l;
	ck_assert(!vsock_turn(d));
	atomic_fetch_add(&d->w.want, 1);
	(void)vsock_rest(d);
	while (vsock_turn(d))
		;
	ck_assert_int_eq(accept(l, NULL, NULL), -1); /* it was taken */
	close(c);
	close(l);
}
END_TEST

/* A stop before the driver has been told: it still has to be. */
START_TEST(event_is_not_lost)
{
	d->reset = VSOCK_RESET_OWED;
	atomic_fetch_add(&d->w.want, 1);
	atomic_fetch_add(&d->w.want, 1);
	(void)vsock_turn(d);
	ck_assert_int_eq((int)d->reset, VSOCK_RESET_OWED);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("vsock_dev");
	TCase *c = tcase_create("restart"), *b = tcase_create("commands");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_set_timeout(c, 120);
	tcase_add_checked_fixture(c, setup, teardown);
	tcase_add_loop_test(c, strays_wait_for_the_event, 0, 2);
	tcase_add_loop_test(c, each_death_is_told, 0, 2);
	tcase_add_loop_test(c, another_address, 0, 2);
	tcase_add_test(c, event_comes_after_old_packets);
	tcase_add_test(c, no_event_where_none_is_wanted);
	suite_add_tcase(s, c);
	tcase_add_checked_fixture(b, bare_setup, bare_teardown);
	tcase_add_test(b, start_is_not_lost);
	tcase_add_test(b, event_is_not_lost);
	suite_add_tcase(s, b);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
