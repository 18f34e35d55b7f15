/* SPDX-License-Identifier: BSD-2-Clause */
/* insula-vhost in a thread, between a driver and a back end of this process (vhostback.h). */
#ifndef TESTS_VHOSTRIG_H
#define TESTS_VHOSTRIG_H

#include <check.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_ids.h>

#include <insula/log.h>

#include <devices/vhost/vhost.h>

#include "vhostback.h"

#define MEM_SIZE (16u << 20)
#define QNUM 16
#define RINGS(i) (0x10000u + (i)*DRV_QUEUE_BYTES)
#define WAIT_MS 10000
#define CALL_MS 300u /* VHOST_CALL_MS, for those that wait it out */

static struct fakecore core;
static struct guestmem gm;
static struct drvq drv[VB_QUEUES];
static int held_fd = -1; /* with VHOST_LOAD */
static int mem_fd, kick[VB_QUEUES], chan[2];
static struct msg_start_vhost conf;
static struct rig { /* fresh for every process */
	struct helper h;
	struct vhost v;
	struct err e;
} * rig;
static pthread_t thread;
static struct vback back, next;
static unsigned patience_ms; /* of each helper: patience() */

/* ---- the helper ---- */

static inline void *helper_loop_main(void *arg)
{
	struct rig *r = arg;

	return (void *)(intptr_t)helper_loop(&r->h, chan[1]);
}

static inline void *helper_thread_main(void *arg)
{
	struct rig *r = arg;

	return vhost_attach(&r->v, &r->e) ? (void *)(intptr_t)-1 : helper_loop_main(r);
}

/* From now on. On a busy machine a good back end is not to be lost for being slow: WAIT_MS, but
 * where a bad one is waited for in vain. */
static inline void patience(unsigned ms)
{
	patience_ms = ms;
	if (rig)
		rig->v.setup_ms = rig->v.call_ms = ms;
}

/* All but its thread. */
static inline void open_helper(int conn, int inflight)
{
	struct start_fds fds = drv_start_fds(&core, mem_fd);
	const char *step;
	struct err e = {0};

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, chan), 0);
	for (unsigned i = 0; i < conf.nqueues; i++)
		start_add(&fds, START_KICK, fd_copy(kick[i]));
	start_add(&fds, START_OWN, conn);
	if (inflight >= 0)
		start_add(&fds, START_OWN, inflight);
	if (conf.flags & VHOST_LOAD)
		start_add(&fds, START_OWN, fd_copy(held_fd));
	rig = calloc(1, sizeof(*rig));
	ck_assert_msg(!vhost_check_conf(&conf, &e), "%s", e.text);
	ck_assert_msg(!vhostdev_open(&rig->v, &rig->h, chan[1], &conf, &fds, &step, &e), "%s",
		      e.text);
	rig->v.setup_ms = rig->v.call_ms = patience_ms;
}

static inline void start_helper(int conn, int inflight)
{
	open_helper(conn, inflight);
	ck_assert_int_eq(pthread_create(&thread, NULL, helper_thread_main, rig), 0);
}

static inline void hears(enum msg_type type, void *body, size_t len, int *fd)
{
	struct pollfd p = {.fd = chan[0], .events = POLLIN};
	struct err e = {0};

	ck_assert_msg(poll(&p, 1, WAIT_MS) == 1, "message %d does not come", (int)type);
	ck_assert_msg(!msg_expect(chan[0], type, body, len, fd, fd ? 1 : 0, &e), "%s", e.text);
}

static inline void begin(void)
{
	start_helper(vb_start(&back), -1);
	hears(MSG_READY, NULL, 0, NULL);
}

/* As if it were killed: its channel ends, and nobody of it does anything any more. */
static inline intptr_t end_helper(void)
{
	void *rc;

	close(chan[0]);
	ck_assert_int_eq(pthread_join(thread, &rc), 0);
	close(chan[1]);
	for (unsigned i = 0; i < rig->v.nmem; i++)
		close(rig->v.mem_fd[i]);
	for (unsigned i = 0; i < conf.nqueues; i++)
		close(rig->v.kick_fd[i]);
	close(rig->v.link.fd);
	close(rig->v.link.back_fd);
	close(rig->v.inflight_fd);
	close(rig->v.held_fd);
	close(rig->v.pipe_fd);
	close(rig->v.err_fd);
	close(rig->v.ep_fd);
	gm_unmap(&rig->v.gm);
	helper_close(&rig->h);
	free(rig);
	rig = NULL;
	return (intptr_t)rc;
}

static inline void new_back(struct vback *b)
{
	int fd = vb_start(b);

	ck_assert_int_eq(msg_send(chan[0], MSG_VHOST_PEER, NULL, 0, &fd, 1), 0);
	close(fd);
}

static inline void setup(void)
{
	log_setup("test_vhost", LOG_LVL_ERROR);
	fc_open(&core);
	mem_fd = drv_memory(&gm, MEM_SIZE);
	for (unsigned i = 0; i < VB_QUEUES; i++)
		kick[i] = event_create();
	vb_init(&back, &gm);
	vb_init(&next, &gm);
	patience(WAIT_MS);
	conf = (struct msg_start_vhost){.head.mem = board_map(MEM_SIZE),
					.device_id = VIRTIO_ID_BLOCK,
					.nqueues = 2,
					.config_len = 60};
}

static inline void teardown(void)
{
	if (rig)
		end_helper();
	gm_unmap(&gm);
	fd_close(&mem_fd);
	for (unsigned i = 0; i < VB_QUEUES; i++)
		fd_close(&kick[i]);
	fc_close(&core);
}

/* ---- the driver ---- */

static inline void bring_up(uint64_t features)
{
	ck_assert(drv_negotiate(&core, features));
	for (unsigned i = 0; i < conf.nqueues; i++) {
		drvq_init(&drv[i], &gm, RINGS(i), QNUM, false, kick[i]);
		ck_assert(drv_queue(&core, i, &drv[i]));
	}
	drv_ok(&core);
	ck_assert_uint_eq(drv_status(&core), 0xf);
}

static inline void offer(unsigned i, unsigned n)
{
	const struct vring_desc d = drv_desc(0x100000, 64, true);

	while (n--) {
		uint16_t old = drv[i].avail_idx;

		drvq_add(&drv[i], &d, 1, NULL);
		drvq_kick(&drv[i], old);
	}
}

/* Each of them once, woken by interrupts alone. */
static inline void answered(unsigned i, unsigned n)
{
	struct pollfd p = {.fd = fc_queue_irq(&core, i), .events = POLLIN};
	uint16_t head;
	uint32_t len;
	void *cookie;

	while (n) {
		if (drvq_get(&drv[i], &head, &len, &cookie)) {
			ck_assert_uint_eq(len, ANSWER_LEN);
			n--;
			continue;
		}
		ck_assert_msg(poll(&p, 1, WAIT_MS) == 1, "no interrupt");
		event_drain(p.fd);
	}
	ck_assert(!drvq_get(&drv[i], &head, &len, &cookie));
}

static inline void until_ring(struct vback *b, unsigned i, unsigned enabled)
{
	for (unsigned n = 0; n < WAIT_MS && b->ring[i].enabled != enabled; n++)
		usleep(1000);
	ck_assert_uint_eq(b->ring[i].enabled, enabled);
}

/* The heads that it finds from where it was told to begin. */
static inline unsigned finds(struct vback *b, unsigned i, uint16_t *heads)
{
	unsigned n = 0;

	pthread_mutex_lock(&b->lock);
	while (vb_avail(b, &b->ring[i]))
		heads[n++] = vb_next(b, &b->ring[i]);
	pthread_mutex_unlock(&b->lock);
	return n;
}

static inline void answers(struct vback *b, unsigned i, uint16_t head)
{
	pthread_mutex_lock(&b->lock);
	vb_used(b, &b->ring[i], head);
	pthread_mutex_unlock(&b->lock);
}

static inline void needs_reset(void)
{
	for (unsigned n = 0; n < WAIT_MS && !(drv_status(&core) & VIRTIO_CONFIG_S_NEEDS_RESET); n++)
		usleep(1000);
	ck_assert_uint_eq(drv_status(&core), 0x4f);
	ck_assert_uint_eq(fc_shadow32(&core, VIRTIO_MMIO_INTERRUPT_STATUS), 3);
}

#define USUAL (DRV_F(VIRTIO_F_VERSION_1) | DRV_F(VIRTIO_BLK_F_FLUSH))

/* All cases in one list, each with a fresh device. */
static inline int run_suite(const char *name, TCase **all, unsigned n)
{
	Suite *s = suite_create(name);
	SRunner *r = srunner_create(s);
	int failed;

	for (unsigned i = 0; i < n; i++) {
		tcase_add_checked_fixture(all[i], setup, teardown);
		tcase_set_timeout(all[i], 60);
		suite_add_tcase(s, all[i]);
	}
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? 1 : 0;
}

#endif
