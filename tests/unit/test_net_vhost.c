/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A card that vhost-net serves, over a fake of it: what insula-net asks of the kernel, in which
 * order, and what becomes of the device when the kernel refuses.
 */
#include <check.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <devices/net/net.h>

#include "fakevhost.h"
#include "life.h"

#define MEM_SIZE (64u << 20)
#define NQUEUES 3
#define MOST (2 * FAKE_DEVS + 1)
#define QNUM 64
#define RINGS(i) (0x10000u + (i)*DRV_QUEUE_BYTES)
#define COMMAND 0x1000000u
#define MRG DRV_F(VIRTIO_NET_F_MRG_RXBUF)
#define FEATURES                                                                   \
	(DRV_COMMON | MRG | DRV_F(VIRTIO_NET_F_MAC) | DRV_F(VIRTIO_NET_F_STATUS) | \
	 DRV_F(VIRTIO_NET_F_CTRL_VQ) | DRV_F(VIRTIO_NET_F_CTRL_RX))
#define TO_THE_KERNEL (DRV_COMMON | MRG)

static struct fakecore core;
static struct guestmem gm;
static struct drvq drv[MOST];
static int mem_fd, kick[MOST], tap[2];
static struct rig { /* fresh for every start */
	struct helper h;
	struct net n;
} * rig;
static struct msg_start_net conf;
static const char *step;
static struct err err;

/* ---- the device ---- */

static int open_net(void)
{
	struct start_fds fds = drv_start_fds(&core, mem_fd);

	for (unsigned i = 0; i < 2 * conf.npairs + 1; i++)
		start_add(&fds, START_KICK, dup(kick[i]));
	for (unsigned p = 0; p < conf.npairs; p++) {
		start_add(&fds, START_OWN, dup(tap[0]));
		fake_queues[p].fd = fds.fd[START_OWN][p];
	}
	for (unsigned p = 0; p < conf.npairs; p++)
		start_add(&fds, START_OWN, fakes[p].fd);
	rig = calloc(1, sizeof(*rig));
	ck_assert_ptr_nonnull(rig);
	return net_check_conf(&conf, &err) || net_open(&rig->n, &rig->h, &conf, &fds, &step, &err);
}

static struct helper *opened(void)
{
	if (open_net() || helper_attach(&rig->h, &rig->n.ops, &rig->n.w, &err)) {
		fprintf(stderr, "net_open: %s\n", err.text);
		return NULL;
	}
	return &rig->h;
}

static void setup(void)
{
	fc_open(&core);
	mem_fd = drv_memory(&gm, MEM_SIZE);
	for (unsigned i = 0; i < MOST; i++)
		kick[i] = event_create();
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, tap),
			 0);
	conf = (struct msg_start_net){.head.mem = board_map(MEM_SIZE),
				      .kind = NET_TAP,
				      .npairs = 1,
				      .nthreads = 1,
				      .tun_offloads = TUN_F_CSUM | TUN_F_TSO4,
				      .mac = {2, 1, 2, 3, 4, 5},
				      .flags = NET_VHOST};
	fake_fresh(TO_THE_KERNEL | DRV_F(VHOST_NET_F_VIRTIO_NET_HDR));
}

static void teardown(void)
{
	gm_unmap(&gm);
	fd_close(&mem_fd);
	for (unsigned i = 0; i < MOST; i++)
		fd_close(&kick[i]);
	close(tap[0]);
	close(tap[1]);
	fc_close(&core);
}

static void bring_up(uint64_t features)
{
	unsigned n = features & DRV_F(VIRTIO_NET_F_MQ) ? 2 * conf.npairs + 1 : NQUEUES;

	ck_assert(drv_negotiate(&core, features));
	for (unsigned i = 0; i < n; i++) {
		drvq_init(&drv[i], &gm, RINGS(i), QNUM, true, kick[i]);
		ck_assert(drv_queue(&core, i, &drv[i]));
	}
	drv_ok(&core);
}

static bool needs_reset(void)
{
	return drv_status(&core) & VIRTIO_CONFIG_S_NEEDS_RESET;
}

static void expect_served(unsigned base0, unsigned base1)
{
	ck_assert_uint_eq(drv_status(&core), 0xf);
	fake_expect_ring(&fake, 0, &rig->n.vhost[0], RINGS(0), QNUM, base0);
	fake_expect_ring(&fake, 1, &rig->n.vhost[0], RINGS(1), QNUM, base1);
	for (unsigned i = 0; i < 2; i++)
		ck_assert_int_eq(fake.ring[i].backend, rig->n.backing[0].fd);
}

/* ---- tests ---- */

START_TEST(messages_refused)
{
	struct msg_start_net m[6];
	struct err e;

	ck_assert_int_eq(net_check_conf(&conf, &e), 0);
	for (size_t i = 0; i < ARRAY_LEN(m); i++)
		m[i] = conf;
	m[0].npairs = m[0].nthreads = 2;
	m[1].flags |= NET_METADATA;
	m[2].flags |= NET_POLICED;
	m[3].limit.rate = 1 << 20;
	m[4].limit.ops = 1;
	m[5].kind = NET_STREAM;
	m[5].tun_offloads = 0;
	for (size_t i = 0; i < ARRAY_LEN(m); i++)
		ck_assert_msg(net_check_conf(&m[i], &e) == -EINVAL, "message %zu", i);
}
END_TEST

/* Its own memory, before it is sealed; rings, events and the TAP when the driver is there; and all
 * is taken back before a reset is answered. */
START_TEST(handed_over)
{
	life_begin(opened);
	fake_expect_memory(&rig->n.w.gm);
	fake_expect_stopped();
	for (unsigned i = 1; i < 4; i++) {
		bring_up(FEATURES | DRV_F(VIRTIO_NET_F_GUEST_CSUM));
		expect_served(0, 0);
		ck_assert_uint_eq(fake.features, TO_THE_KERNEL);
		ck_assert_uint_eq(fake.offloads, TUN_F_CSUM);
		ck_assert_int_eq(fake.ring[0].call, rig->h.irq_fd[0]);
		ck_assert_int_eq(fake.ring[1].call, rig->h.irq_fd[0]);
		ck_assert_uint_eq(fake.ring[0].starts, i);
		drv_set_status(&core, 0);
		ck_assert_uint_eq(drv_status(&core), 0);
		fake_expect_stopped();
	}
	bring_up(DRV_F(VIRTIO_F_VERSION_1));
	ck_assert_uint_eq(fake.features, DRV_F(VIRTIO_F_VERSION_1));
	life_end();
	fake_expect_stopped();
}
END_TEST

/* The next process begins where the kernel has answered. */
START_TEST(goes_on)
{
	life_begin(opened);
	bring_up(FEATURES);
	drv_store16(drv[0].used + 2, 0xfffe);
	drv_store16(drv[1].used + 2, 11);
	life_end();
	fake_fresh(TO_THE_KERNEL | DRV_F(VHOST_NET_F_VIRTIO_NET_HDR));
	life_begin(opened);
	expect_served(0xfffe, 11);
	ck_assert_uint_eq(fake.features, TO_THE_KERNEL);
	/* One queue goes: the other goes on. */
	drv_store16(drv[0].used + 2, 3);
	drv_reg(&core, VIRTIO_MMIO_QUEUE_SEL, 1);
	drv_reg(&core, VIRTIO_MMIO_QUEUE_READY, 0);
	ck_assert_int_eq(fake.ring[1].backend, -1);
	ck_assert_int_eq(fake.ring[1].kick, -1);
	ck_assert_int_eq(fake.ring[0].backend, rig->n.backing[0].fd);
	ck_assert_uint_eq(fake.ring[0].base, 3);
	life_end();
}
END_TEST

static struct drvq *command_queue;

static bool is_answered(void)
{
	return drv_load16(command_queue->used + 2) == command_queue->avail_idx;
}

/* Class, command, and `len` bytes; the answer: by then the I/O thread has run. */
static uint8_t command(unsigned queue, uint8_t class, uint8_t cmd, uint16_t value, uint32_t len)
{
	struct vring_desc d[3] = {drv_desc(COMMAND, 2, false), drv_desc(COMMAND + 16, len, false),
				  drv_desc(COMMAND + 8, 1, true)};
	uint8_t *p = gm_ptr(&gm, COMMAND, 64);

	p[0] = class;
	p[1] = cmd;
	p[8] = 0xee;
	memcpy(p + 16, &value, sizeof(value));
	command_queue = &drv[queue];
	drvq_add(&drv[queue], d, 3, NULL);
	event_signal(kick[queue]);
	ck_assert(until(is_answered));
	return p[8];
}

static uint8_t promiscuous(void)
{
	return command(2, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, 1, 1);
}

/* Commands are insula-net's. What is not: neither the rings nor the doorbells of the pair. */
START_TEST(commands)
{
	struct vring_desc frame = drv_desc(COMMAND + 0x1000, 80, false);

	life_begin(opened);
	bring_up(FEATURES);
	drvq_add(&drv[1], &frame, 1, NULL);
	event_signal(kick[1]);
	ck_assert_uint_eq(promiscuous(), VIRTIO_NET_OK);
	ck_assert_uint_eq(rig->n.st->promisc, 1);
	ck_assert_uint_eq(drv_load16(drv[1].used + 2), 0);
	ck_assert_int_eq(poll(&(struct pollfd){.fd = kick[1], .events = POLLIN}, 1, 0), 1);
	life_end();
}
END_TEST

/* The kernel cannot go on with a ring: the driver hears of it, and can begin again. */
START_TEST(broken_ring)
{
	life_begin(opened);
	for (unsigned i = 0; i < 3; i++) {
		bring_up(FEATURES);
		expect_served(0, 0);
		event_signal(fake.ring[i % 2].err);
		ck_assert(until(needs_reset));
		fake_expect_stopped();
	}
	/* What is said of rings that go is not said of the next ones. */
	fake.late = true;
	for (unsigned i = 0; i < 20; i++) {
		bring_up(FEATURES);
		expect_served(0, 0);
		ck_assert_uint_eq(promiscuous(), VIRTIO_NET_OK);
		ck_assert(!needs_reset());
	}
	life_end();
}
END_TEST

static const unsigned long running[] = {
	VHOST_SET_FEATURES,   VHOST_SET_VRING_NUM,  VHOST_SET_VRING_BASE,  VHOST_SET_VRING_ADDR,
	VHOST_SET_VRING_CALL, VHOST_SET_VRING_KICK, VHOST_NET_SET_BACKEND,
};

START_TEST(refused_while_it_runs)
{
	life_begin(opened);
	fake.fails = running[_i];
	bring_up(FEATURES);
	ck_assert(needs_reset());
	fake_expect_stopped();
	fake.fails = 0;
	bring_up(FEATURES);
	expect_served(0, 0);
	life_end();
}
END_TEST

static const unsigned long before[] = {VHOST_SET_OWNER, VHOST_GET_FEATURES, VHOST_SET_MEM_TABLE,
				       VHOST_SET_VRING_ERR};

START_TEST(refused_at_the_start)
{
	fake.fails = before[_i];
	ck_assert_int_ne(open_net(), 0);
	ck_assert_str_eq(step, "vhost-net");
	ck_assert_msg(strstr(err.text, "vhost-net: "), "%s", err.text);
}
END_TEST

START_TEST(too_old)
{
	fake.can = DRV_F(VIRTIO_F_VERSION_1);
	ck_assert_int_ne(open_net(), 0);
	ck_assert_str_eq(step, "vhost-net");
	ck_assert_msg(strstr(err.text, "expected"), "%s", err.text);
}
END_TEST

/* On PCI: a vector for each queue, and the driver may choose another while it runs. */
START_TEST(vectors)
{
	fc_vectors(&core, NQUEUES + 1);
	life_begin(opened);
	bring_up(FEATURES);
	expect_served(0, 0);
	ck_assert_int_eq(fake.ring[0].call, rig->h.irq_fd[1]);
	ck_assert_int_eq(fake.ring[1].call, rig->h.irq_fd[2]);
	drv_set(&core, VIRTIO_MMIO_QUEUE_SEL, VPCI_QUEUE_SELECT, 2, 1);
	fc_write(&core, VPCI_QUEUE_VECTOR, 2, 3);
	ck_assert_uint_eq(fc_shadow16(&core, VPCI_QUEUE_VECTOR), 3);
	ck_assert_int_eq(fake.ring[1].call, rig->h.irq_fd[3]);
	fc_write(&core, VPCI_QUEUE_VECTOR, 2, 0xffff);
	ck_assert_uint_eq(fc_shadow16(&core, VPCI_QUEUE_VECTOR), 0xffff);
	ck_assert_int_eq(fake.ring[1].call, -1);
	ck_assert_uint_eq(fake.ring[1].starts, 1);
	/* The control queue's is nothing to the kernel. */
	drv_set(&core, VIRTIO_MMIO_QUEUE_SEL, VPCI_QUEUE_SELECT, 2, 2);
	fc_write(&core, VPCI_QUEUE_VECTOR, 2, 1);
	ck_assert_int_eq(fake.ring[0].call, rig->h.irq_fd[1]);
	life_end();
}
END_TEST

static void expect_pairs(unsigned n, const unsigned *base)
{
	ck_assert_uint_eq(drv_status(&core), 0xf);
	for (unsigned p = 0; p < n; p++) {
		for (unsigned i = 0; i < 2; i++) {
			fake_expect_ring(&fakes[p], i, &rig->n.vhost[p], RINGS(2 * p + i), QNUM,
					 base[2 * p + i]);
			ck_assert_int_eq(fakes[p].ring[i].backend, rig->n.backing[p].fd);
		}
	}
}

static void expect_queues(unsigned active)
{
	for (unsigned p = 0; p < conf.npairs; p++)
		ck_assert_msg(fake_queues[p].out == (p >= active), "queue %u of %u", p, active);
	ck_assert_uint_eq(fake_queues[0].changes, 0);
}

static uint8_t use_pairs(uint16_t n)
{
	return command(2 * conf.npairs, VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, n, 2);
}

/* A worker for each pair, and only those queues of the TAP whose pairs the driver uses. */
START_TEST(several_pairs)
{
	const unsigned zero[MOST] = {0};
	unsigned base[MOST];
	uint64_t mq = FEATURES | DRV_F(VIRTIO_NET_F_MQ);

	conf.npairs = FAKE_DEVS;
	life_begin(opened);
	expect_queues(FAKE_DEVS);
	bring_up(mq);
	expect_pairs(FAKE_DEVS, zero);
	expect_queues(1);
	ck_assert_uint_eq(use_pairs(3), VIRTIO_NET_OK);
	expect_queues(3);
	ck_assert_uint_eq(use_pairs(2), VIRTIO_NET_OK);
	expect_queues(2);
	ck_assert_uint_eq(use_pairs(FAKE_DEVS + 1), VIRTIO_NET_ERR);
	expect_queues(2);
	/* The next process finds the queues as they were left. */
	for (unsigned i = 0; i < 2 * FAKE_DEVS; i++) {
		base[i] = 5 + i;
		drv_store16(drv[i].used + 2, (uint16_t)base[i]);
	}
	life_end();
	fake_expect_stopped();
	fake_fresh(TO_THE_KERNEL);
	life_begin(opened);
	expect_pairs(FAKE_DEVS, base);
	expect_queues(2);
	/* A fault of any of them is one of the device. */
	event_signal(fakes[2].ring[1].err);
	ck_assert(until(needs_reset));
	fake_expect_stopped();
	/* A driver without several pairs has its control queue where the second pair would be. */
	bring_up(FEATURES);
	expect_pairs(1, zero);
	expect_queues(1);
	ck_assert_uint_eq(promiscuous(), VIRTIO_NET_OK);
	ck_assert_int_eq(fakes[1].ring[0].backend, -1);
	life_end();
}
END_TEST

static bool link_is_down(void)
{
	const struct virtio_net_config *c = (void *)(core.page + VIRTIO_MMIO_CONFIG);

	return c->status == 0;
}

/* A pipe without a reader says what a TAP says whose interface is gone. */
START_TEST(tap_is_gone)
{
	int pair[2];

	ck_assert_int_eq(pipe2(pair, O_CLOEXEC), 0);
	close(pair[0]);
	ck_assert_int_eq(dup2(pair[1], tap[0]), tap[0]);
	close(pair[1]);
	life_begin(opened);
	bring_up(FEATURES);
	ck_assert(until(link_is_down));
	ck_assert(!needs_reset());
	fake_expect_stopped();
	life_end();
}
END_TEST

/* After the seal: seven requests; and there is room for those of as many pairs as a card can
 * have. */
START_TEST(rules)
{
	struct rule_list l = {.n = 0};

	conf.npairs = _i ? FAKE_DEVS : 1;
	ck_assert_int_eq(open_net(), 0);
	net_rules(&rig->n, &l);
	fake_expect_rules(&l, running, ARRAY_LEN(running));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("net_vhost");
	TCase *t = tcase_create("vhost-net");
	SRunner *r = srunner_create(s);
	int failed;

	tcase_set_timeout(t, 120);
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, messages_refused);
	tcase_add_test(t, handed_over);
	tcase_add_test(t, goes_on);
	tcase_add_test(t, commands);
	tcase_add_test(t, broken_ring);
	tcase_add_loop_test(t, refused_while_it_runs, 0, ARRAY_LEN(running));
	tcase_add_loop_test(t, refused_at_the_start, 0, ARRAY_LEN(before));
	tcase_add_test(t, too_old);
	tcase_add_test(t, vectors);
	tcase_add_test(t, several_pairs);
	tcase_add_test(t, tap_is_gone);
	tcase_add_loop_test(t, rules, 0, 2);
	suite_add_tcase(s, t);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? 1 : 0;
}
