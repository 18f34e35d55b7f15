/* SPDX-License-Identifier: BSD-2-Clause */
/* insula-vhost and back ends that ask, lie, or do not answer. */
#include <dirent.h>

#include "vhostrig.h"

/* ---- requests of the back end ---- */

static unsigned open_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static uint64_t says(uint32_t request, uint32_t flags, uint32_t size, unsigned nfds)
{
	struct vhost_hdr h = {request, flags, size};
	static const uint8_t none[1024];
	int fds[20];
	struct pollfd p = {.fd = back.back_fd, .events = POLLIN};
	struct {
		struct vhost_hdr hdr;
		uint64_t failed;
	} __attribute__((packed)) a;

	for (unsigned i = 0; i < nfds; i++)
		fds[i] = mem_fd;
	vb_write(back.back_fd, &h, sizeof(h), none, size, fds, nfds);
	if (!(flags & VHOST_NEED_REPLY))
		return 0;
	ck_assert_int_eq(poll(&p, 1, WAIT_MS), 1);
	if (recv(back.back_fd, &a, sizeof(a), 0) != (ssize_t)sizeof(a))
		return 99;
	ck_assert_uint_eq(a.hdr.request, request);
	ck_assert_uint_eq(a.hdr.flags, VHOST_VERSION | VHOST_REPLY);
	return a.failed;
}

START_TEST(back_end_asks)
{
	unsigned fds;

	begin();
	bring_up(USUAL);
	fds = open_fds();
	pthread_mutex_lock(&back.lock);
	back.config[3] = 0x77;
	pthread_mutex_unlock(&back.lock);
	ck_assert_uint_eq(says(VHOST_BACKEND_CONFIG_CHANGE, 1 | VHOST_NEED_REPLY, 0, 0), 0);
	for (unsigned n = 0; n < WAIT_MS && fc_shadow8(&core, VIRTIO_MMIO_CONFIG + 3) != 0x77; n++)
		usleep(1000);
	ck_assert_uint_eq(fc_shadow8(&core, VIRTIO_MMIO_CONFIG + 3), 0x77);
	ck_assert_uint_eq(fc_shadow32(&core, VIRTIO_MMIO_INTERRUPT_STATUS), 3);
	/* Everything else is refused, and what it brings is closed. */
	for (uint32_t r = 0; r < 12; r++)
		ck_assert_uint_eq(says(r, 1 | VHOST_NEED_REPLY, r == 2 ? 8 : r, r), 1);
	ck_assert_uint_eq(says(3, 1, 40, 20), 0);
	ck_assert_uint_eq(says(3, 1 | VHOST_NEED_REPLY, 0, 0), 1);
	ck_assert_uint_eq(open_fds(), fds);
	offer(0, 2);
	answered(0, 2);
	vb_kill(&back);
}
END_TEST

START_TEST(back_end_asks_what_cannot_be)
{
	static const uint32_t bad[][2] = {{1, 300}, {2, 0}, {1 | VHOST_REPLY, 8}, {0, 0}};

	begin();
	bring_up(USUAL);
	ck_assert_uint_eq(says(3, bad[_i][0] | VHOST_NEED_REPLY, bad[_i][1], 2), 99);
	offer(0, 2); /* its rings it keeps */
	answered(0, 2);
	vb_kill(&back);
}
END_TEST

START_TEST(back_end_floods)
{
	struct vhost_hdr h[64];

	begin();
	bring_up(USUAL);
	for (unsigned i = 0; i < 64; i++)
		h[i] = (struct vhost_hdr){VHOST_BACKEND_CONFIG_CHANGE, 1, 0};
	for (unsigned i = 0; i < 50; i++)
		(void)!send(back.back_fd, h, sizeof(h), MSG_DONTWAIT);
	drv_reg(&core, VIRTIO_MMIO_STATUS, 0);
	bring_up(USUAL);
	offer(1, 2);
	answered(1, 2);
	vb_kill(&back);
}
END_TEST

START_TEST(ring_error)
{
	begin();
	bring_up(USUAL);
	event_signal(back.ring[1].err);
	needs_reset();
	vb_kill(&back);
}
END_TEST

/* ---- answers that cannot be ---- */

static const uint32_t asked[] = {
	VHOST_GET_FEATURES,    VHOST_GET_PROTOCOL_FEATURES, VHOST_GET_QUEUE_NUM,
	VHOST_GET_CONFIG,      VHOST_GET_INFLIGHT_FD,       VHOST_SET_MEM_TABLE,
	VHOST_SET_VRING_NUM,   VHOST_SET_VRING_KICK,        VHOST_SET_VRING_ENABLE,
	VHOST_SET_INFLIGHT_FD, VHOST_GET_VRING_BASE,
};
#define HOSTILE (ARRAY_LEN(asked) * (VB_FAULTS - 1))

/* Whatever else is said meanwhile is not the matter. */
static void until_lost(void)
{
	struct pollfd p = {.fd = chan[0], .events = POLLIN};
	int fds[MSG_MAX_FDS];
	enum msg_type type;
	unsigned nfds;
	uint8_t body[64];
	size_t len;

	do {
		ck_assert_msg(poll(&p, 1, WAIT_MS) == 1, "it was taken");
		ck_assert_int_eq(msg_recv(chan[0], &type, body, 64, &len, fds, &nfds), 0);
		for (unsigned i = 0; i < nfds; i++)
			close(fds[i]);
	} while (type != MSG_VHOST_LOST);
}

/* A good back end, one that does something wrong at one request, and a good one again: the driver
 * loses nothing but time, no register waits for longer than it may, nothing stays open. */
START_TEST(hostile_answers)
{
	struct vback bad;
	struct vhost_inflight region;
	uint64_t slowest = 0;
	unsigned fds;
	int fd;

	vb_init(&bad, &gm);
	back.protocol = next.protocol = bad.protocol = ~UINT64_C(0);
	bad.fault_at = asked[(unsigned)_i % ARRAY_LEN(asked)];
	bad.fault = (enum vb_fault)(1 + (unsigned)_i / ARRAY_LEN(asked));
	begin();
	bring_up(USUAL);
	hears(MSG_VHOST_INFLIGHT, &region, sizeof(region), &fd);
	close(fd);
	offer(0, 3);
	answered(0, 3);
	vb_kill(&back);
	hears(MSG_VHOST_LOST, NULL, 0, NULL);
	fds = open_fds();
	patience(CALL_MS);
	new_back(&bad);
	/* Until it was asked what it answers so badly. */
	for (unsigned i = 0; i < 3 || (i < WAIT_MS && !bad.n[bad.fault_at]); i++) {
		uint64_t t = clock_ns();

		drv_reg(&core, VIRTIO_MMIO_STATUS, 0);
		drv_negotiate(&core, USUAL);
		t = clock_ns() - t;
		slowest = t > slowest ? t : slowest;
		drvq_init(&drv[0], &gm, RINGS(0), QNUM, false, kick[0]);
		drv_queue(&core, 0, &drv[0]);
		drv_ok(&core);
		usleep(2000);
	}
	ck_assert_uint_lt(slowest, DP_DEADLINE_NS);
	offer(0, 3);
	/* For its first word it is not waited for: late_hello. */
	if (bad.fault_at != VHOST_GET_FEATURES || bad.fault != VB_SILENT)
		until_lost();
	vb_kill(&bad);
	if (bad.fault_at == VHOST_GET_FEATURES && bad.fault == VB_SILENT)
		until_lost();
	ck_assert_uint_eq(open_fds(), fds);
	patience(WAIT_MS);
	new_back(&next);
	answered(0, 3 - (unsigned)(uint16_t)drv[0].used_idx);
	vb_kill(&next);
}
END_TEST

/* A back end that does not give the rings back. */
START_TEST(reset_with_a_deadline)
{
	uint64_t t;

	back.fault_at = VHOST_GET_VRING_BASE;
	back.fault = VB_SILENT;
	begin();
	rig->v.call_ms = VHOST_CALL_MS;
	bring_up(USUAL);
	t = clock_ns();
	drv_reg(&core, VIRTIO_MMIO_STATUS, 0);
	t = clock_ns() - t;
	ck_assert_uint_ge(t, VHOST_CALL_MS * 1000000u);
	ck_assert_uint_lt(t, DP_DEADLINE_NS);
	hears(MSG_VHOST_LOST, NULL, 0, NULL);
	ck_assert_uint_eq(drv_status(&core), 0);
	vb_kill(&back);
}
END_TEST

/* It goes while nothing may be said to the supervisor yet: that hears of it afterwards, or the
 * device would never have another one. */
START_TEST(lost_before_ready)
{
	struct pollfd p = {.events = POLLIN};

	open_helper(vb_start(&back), -1);
	p.fd = chan[0];
	ck_assert_int_eq(vhost_attach(&rig->v, &rig->e), 0);
	vb_kill(&back);
	ck_assert(!vhost_helper_ops.woken(&rig->v));
	ck_assert_int_eq(poll(&p, 1, 0), 0);
	ck_assert_int_eq(pthread_create(&thread, NULL, helper_loop_main, rig), 0);
	hears(MSG_READY, NULL, 0, NULL);
	hears(MSG_VHOST_LOST, NULL, 0, NULL);
	new_back(&next);
	bring_up(USUAL);
	offer(0, 2);
	answered(0, 2);
	vb_kill(&next);
}
END_TEST

/* The queue of a busy back end: the answer comes late, and nobody waits for it. */
START_TEST(late_hello)
{
	uint64_t t;

	begin();
	bring_up(USUAL);
	vb_kill(&back);
	hears(MSG_VHOST_LOST, NULL, 0, NULL);
	pthread_mutex_lock(&next.lock);
	patience(CALL_MS);
	new_back(&next);
	usleep(2 * CALL_MS * 1000);
	patience(WAIT_MS);
	t = clock_ns();
	drv_reg(&core, VIRTIO_MMIO_QUEUE_SEL, 0);
	ck_assert_uint_lt(clock_ns() - t, WAIT_MS * 1000000ull / 2);
	offer(0, 2);
	pthread_mutex_unlock(&next.lock);
	answered(0, 2);
	vb_kill(&next);
}
END_TEST

int main(void)
{
	TCase *asks = tcase_create("asks"), *hostile = tcase_create("hostile");

	tcase_add_test(asks, back_end_asks);
	tcase_add_loop_test(asks, back_end_asks_what_cannot_be, 0, 4);
	tcase_add_test(asks, back_end_floods);
	tcase_add_test(asks, ring_error);
	tcase_add_test(hostile, reset_with_a_deadline);
	tcase_add_test(hostile, lost_before_ready);
	tcase_add_test(hostile, late_hello);
	tcase_add_loop_test(hostile, hostile_answers, 0, (int)HOSTILE);
	return run_suite("vhost_back", (TCase *[]){asks, hostile}, 2);
}
