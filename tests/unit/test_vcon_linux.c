/* SPDX-License-Identifier: BSD-2-Clause */
/* virtio-console behind a device page: what a driver and the host's ends see, hostile drivers,
 * restarts, and a kill at every single instruction, which ptrace makes possible. */
#include <check.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/virtio_ids.h>

#include <insula/stats.h>

#include <devices/console/vcon.h>

#include "bareworker.h"
#include "fakedrv.h"
#include "steps.h"

#define MEM_SIZE (16u << 20)
#define QNUM 16
#define RINGS(q) (0x10000u + (q)*DRV_QUEUE_BYTES)
#define DATA 0x100000u
#define INPUT(i) (0x180000u + (i)*0x1000u)
#define WAIT_NS 60000000000u

static struct fakecore core;
static struct guestmem gm;
static struct drvq drv[VCON_QUEUES];
static int mem_fd, kick[VCON_QUEUES], chan[2], out_pipe[2], in_pipe[2];
static pthread_t thread;
static struct rig { /* fresh for every start; its threads outlive it */
	struct helper h;
	struct vcon v;
} * rig;

static void guest_setup(void)
{
	helper_signals();
	fc_open(&core);
	mem_fd = drv_memory(&gm, MEM_SIZE);
	for (unsigned i = 0; i < VCON_QUEUES; i++)
		kick[i] = event_create();
}

static void guest_teardown(void)
{
	gm_unmap(&gm);
	fd_close(&mem_fd);
	for (unsigned i = 0; i < VCON_QUEUES; i++)
		fd_close(&kick[i]);
	fc_close(&core);
}

static void bring_up(void)
{
	ck_assert(drv_negotiate(&core, DRV_COMMON));
	for (unsigned i = 0; i < VCON_QUEUES; i++) {
		drvq_init(&drv[i], &gm, RINGS(i), QNUM, true, kick[i]);
		ck_assert(drv_queue(&core, i, &drv[i]));
	}
	drv_ok(&core);
}

static void offer(unsigned q, const struct vring_desc *d, unsigned n)
{
	uint16_t old = drv[q].avail_idx;

	drvq_add(&drv[q], d, n, (void *)(uintptr_t)d[0].addr);
	drvq_kick(&drv[q], old);
}

static uint8_t pattern(size_t i)
{
	return (uint8_t)(i * 2654435761u >> 13);
}

/* ---- with its threads ---- */

static void (*early)(struct rig *r); /* before the device is attached */

static void device_open(struct rig *r, int out_fd, int in_fd, unsigned flags)
{
	const struct msg_start_uart m = {.head.mem = board_map(MEM_SIZE), .flags = flags};
	struct start_fds f = drv_start_fds(&core, mem_fd);
	const char *step = "";
	struct err e = {0};

	for (unsigned i = 0; i < VCON_QUEUES; i++)
		start_add(&f, START_KICK, dup(kick[i]));
	start_add(&f, START_OWN, out_fd);
	if (in_fd >= 0)
		start_add(&f, START_OWN, in_fd);
	ck_assert_msg(vcon_open(&r->v, &r->h, &m, &f, &step, &e) == 0, "%s: %s", step, e.text);
	if (early)
		early(r);
	ck_assert_int_eq(helper_attach(&r->h, &r->v.ops, &r->v, &e), 0);
}

static void *loop(void *arg)
{
	return (void *)(intptr_t)helper_loop(arg, chan[1]);
}

static void start_device(int out_fd, int in_fd, unsigned flags)
{
	struct err e = {0};

	rig = calloc(1, sizeof(*rig));
	ck_assert_ptr_nonnull(rig);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, chan), 0);
	device_open(rig, out_fd, in_fd, flags);
	ck_assert_int_eq(pthread_create(&thread, NULL, loop, &rig->h), 0);
	ck_assert_int_eq(msg_expect(chan[0], MSG_READY, NULL, 0, NULL, 0, &e), 0);
}

static struct msg_stats stop_device(void)
{
	struct msg_stats s;
	struct err e = {0};

	ck_assert_int_eq(msg_send(chan[0], MSG_STOP, NULL, 0, NULL, 0), 0);
	ck_assert_msg(msg_expect(chan[0], MSG_STOPPED, &s, sizeof(s), NULL, 0, &e) == 0, "%s",
		      e.text);
	pthread_join(thread, NULL);
	close(chan[0]);
	close(chan[1]);
	return s;
}

static void setup(void)
{
	guest_setup();
	ck_assert_int_eq(pipe(out_pipe), 0);
	ck_assert_int_eq(pipe(in_pipe), 0);
}

static uint32_t used(unsigned q, gpa_t *at)
{
	uint64_t until = clock_ns() + WAIT_NS;
	uint16_t head;
	uint32_t len;
	void *p;

	while (!drvq_get(&drv[q], &head, &len, &p)) {
		ck_assert_msg(clock_ns() < until, "queue %u: nothing comes", q);
		usleep(200);
	}
	*at = (gpa_t)(uintptr_t)p;
	return len;
}

/* Bytes [from, from + n) of the pattern in one buffer of three segments, and wait for it, as
 * Linux's hvc does. */
static void say(size_t from, uint32_t n)
{
	uint8_t *p = gm_ptr(&gm, DATA, n);
	struct vring_desc d[3];
	gpa_t at;

	ck_assert_uint_ge(n, 3);
	for (uint32_t i = 0; i < n; i++)
		p[i] = pattern(from + i);
	d[0] = drv_desc(DATA, 1, false);
	d[1] = drv_desc(DATA + 1, n / 2, false);
	d[2] = drv_desc(DATA + 1 + n / 2, n - 1 - n / 2, false);
	offer(VCON_TX, d, 3);
	ck_assert_uint_eq(used(VCON_TX, &at), 0);
}

struct sink {
	int fd;
	size_t n, bad;
	unsigned pause_us;
};

static void *sink_main(void *arg)
{
	struct sink *s = arg;
	uint8_t buf[3000];
	ssize_t r;

	while ((r = read(s->fd, buf, sizeof(buf))) > 0) {
		for (ssize_t i = 0; i < r; i++)
			s->bad += buf[i] != pattern(s->n + (size_t)i);
		s->n += (size_t)r;
		usleep(s->pause_us);
	}
	return NULL;
}

/* Among them are buffers that are longer than the ring; the reader is slower than the guest. */
START_TEST(output_comes_whole)
{
	static const uint32_t sizes[] = {3, 4096, 3 * CONSOLE_OUT_LEN + 11, 17, CONSOLE_OUT_LEN};
	struct sink s = {.fd = out_pipe[0], .pause_us = 500};
	struct msg_stats st;
	size_t sent = 0;
	pthread_t t;

	pthread_create(&t, NULL, sink_main, &s);
	start_device(out_pipe[1], -1, 0);
	bring_up();
	for (unsigned i = 0; i < 2 * ARRAY_LEN(sizes); i++) {
		say(sent, sizes[i % ARRAY_LEN(sizes)]);
		sent += sizes[i % ARRAY_LEN(sizes)];
	}
	st = stop_device();
	close(out_pipe[1]);
	pthread_join(t, NULL);
	ck_assert_uint_eq(s.n, sent);
	ck_assert_uint_eq(s.bad, 0);
	ck_assert_uint_eq(st.n[STAT_VCON_OUT_BYTES], sent);
	ck_assert_uint_eq(st.n[STAT_VCON_OUT_LOST], 0);
	ck_assert_uint_gt(st.n[STAT_VCON_KICKS], 0);
}
END_TEST

/* The ring and the pipe are full: the guest's buffer waits, registers answer, a reset takes it
 * back, and the end comes in bounded time. */
START_TEST(nobody_reads)
{
	struct vring_desc d = drv_desc(DATA, 4 * CONSOLE_OUT_LEN, false);
	uint64_t since;

	start_device(out_pipe[1], -1, 0);
	bring_up();
	offer(VCON_TX, &d, 1);
	usleep(100000);
	ck_assert(!drvq_arm(&drv[VCON_TX]));
	since = clock_ns();
	bring_up();
	ck_assert_uint_lt(clock_ns() - since, DP_DEADLINE_NS);
	ck_assert_uint_eq(drv_status(&core) & VIRTIO_CONFIG_S_NEEDS_RESET, 0);
	offer(VCON_TX, &d, 1);
	ck_assert_uint_gt(stop_device().n[STAT_VCON_OUT_LOST], CONSOLE_OUT_LEN / 2);
}
END_TEST

static void *last_byte(void *arg)
{
	struct sink *s = arg;
	uint8_t buf[3000];
	ssize_t r;

	while ((r = read(s->fd, buf, sizeof(buf))) > 0) {
		s->n += (size_t)r;
		s->bad = buf[r - 1];
	}
	return NULL;
}

/* It has every buffer back: after one wait, or this would take longer than it may. When the host
 * reads again, it is heard again. */
START_TEST(a_deaf_host_keeps_nobody)
{
	struct vring_desc d = drv_desc(DATA, 4 * CONSOLE_OUT_LEN, false);
	struct sink s = {.fd = out_pipe[0]};
	uint64_t until = clock_ns() + WAIT_NS;
	size_t sent = 4 * CONSOLE_OUT_LEN;
	struct msg_stats st;
	pthread_t t;
	gpa_t at;

	start_device(out_pipe[1], -1, 0);
	bring_up();
	offer(VCON_TX, &d, 1);
	ck_assert_uint_eq(used(VCON_TX, &at), 0);
	for (unsigned i = 0; i < 200; i++, sent += 1000)
		say(0, 1000);
	pthread_create(&t, NULL, last_byte, &s);
	while (ends_room(&rig->v.ends) < CONSOLE_OUT_LEN) {
		ck_assert_uint_lt(clock_ns(), until);
		usleep(1000);
	}
	say(0, 99);
	sent += 99;
	st = stop_device();
	close(out_pipe[1]);
	pthread_join(t, NULL);
	ck_assert_uint_eq(s.bad, pattern(98));
	ck_assert_uint_eq(s.n, st.n[STAT_VCON_OUT_BYTES]);
	ck_assert_uint_ge(st.n[STAT_VCON_OUT_LOST], 200 * 1000);
	ck_assert_uint_eq(st.n[STAT_VCON_OUT_BYTES] + st.n[STAT_VCON_OUT_LOST], sent);
}
END_TEST

/* Long before there is a driver, more than all buffers together, and into buffers of all sizes. */
START_TEST(input_waits)
{
	enum { LEN = 3 * CONSOLE_IN_LEN };
	static uint8_t d[LEN];
	size_t got = 0;

	for (size_t i = 0; i < LEN; i++)
		d[i] = pattern(i);
	ck_assert_int_eq(write(in_pipe[1], d, LEN), LEN);
	start_device(out_pipe[1], in_pipe[0], 0);
	usleep(20000);
	ck_assert_uint_le(rig->v.ends.in_bytes, CONSOLE_IN_LEN);
	bring_up(); /* it says nothing: the input comes all the same */
	for (unsigned turn = 0; got < LEN; turn++) {
		struct vring_desc v[2] = {drv_desc(INPUT(0), 1 + turn % 700, true),
					  drv_desc(INPUT(1), 1 + turn * 7 % 900, true)};
		gpa_t at;
		uint32_t n, first = v[0].len;
		const uint8_t *p;

		offer(VCON_RX, v, 2);
		n = used(VCON_RX, &at);
		ck_assert_uint_gt(n, 0);
		ck_assert_uint_le(n, v[0].len + v[1].len);
		for (uint32_t i = 0; i < n; i++) {
			p = gm_ptr(&gm, i < first ? INPUT(0) + i : INPUT(1) + i - first, 1);
			ck_assert_msg(*p == pattern(got + i), "byte %zu", got + i);
		}
		got += n;
	}
	ck_assert_uint_eq(stop_device().n[STAT_VCON_IN_BYTES], LEN);
}
END_TEST

static void read_nothing(struct rig *r)
{
	usleep(100000);
	ck_assert_uint_eq(atomic_load(&r->v.st->rings.in_head), 0);
}

/* Input is there, but the jail is not sealed. */
START_TEST(nothing_before_the_seal)
{
	uint64_t until = clock_ns() + WAIT_NS;

	early = read_nothing;
	ck_assert_int_eq(write(in_pipe[1], "abc", 3), 3);
	start_device(out_pipe[1], in_pipe[0], 0);
	while (atomic_load(&rig->v.st->rings.in_head) < 3) {
		ck_assert_uint_lt(clock_ns(), until);
		usleep(1000);
	}
	stop_device();
}
END_TEST

START_TEST(escape)
{
	const struct vring_desc d = drv_desc(INPUT(0), 64, true);
	struct err e = {0};
	char buf[256] = {0};
	size_t n = 0;
	gpa_t at;

	start_device(out_pipe[1], in_pipe[0], UART_ESCAPE);
	/* Before there is a driver it works as well. */
	ck_assert_int_eq(write(in_pipe[1], "\001h", 2), 2);
	while (!strstr(buf, "this help\r\n")) {
		ssize_t r = read(out_pipe[0], buf + n, sizeof(buf) - 1 - n);

		ck_assert_int_gt(r, 0);
		n += (size_t)r;
	}
	bring_up();
	say(0, 3);
	ck_assert_int_eq(write(in_pipe[1], "\001x\001\001y", 5), 5);
	ck_assert_int_eq(msg_expect(chan[0], MSG_QUIT, NULL, 0, NULL, 0, &e), 0);
	offer(VCON_RX, &d, 1);
	ck_assert_uint_eq(used(VCON_RX, &at), 2);
	ck_assert_int_eq(memcmp(gm_ptr(&gm, INPUT(0), 2), "\001y", 2), 0);
	stop_device();
}
END_TEST

/* A stream waits for the guest's first word. Its end goes over the line as a terminal's: the open
 * line first. */
START_TEST(end_of_stream)
{
	const struct vring_desc d = drv_desc(INPUT(0), 64, true);
	uint32_t n = 0;
	gpa_t at;

	start_device(out_pipe[1], in_pipe[0], UART_STREAM);
	bring_up();
	ck_assert_int_eq(write(in_pipe[1], "ab", 2), 2);
	close(in_pipe[1]);
	offer(VCON_RX, &d, 1);
	usleep(100000);
	ck_assert(!drvq_arm(&drv[VCON_RX]));
	say(0, 3);
	n = used(VCON_RX, &at);
	ck_assert_int_eq(memcmp(gm_ptr(&gm, INPUT(0), n), "ab\004\004", n), 0);
	for (char all[64]; n < 4;) {
		uint32_t k;

		offer(VCON_RX, &d, 1);
		k = used(VCON_RX, &at);
		memcpy(all + n, gm_ptr(&gm, INPUT(0), k), k);
		n += k;
		ck_assert_int_eq(memcmp(all + n - k, &"ab\004\004"[n - k], k), 0);
	}
	ck_assert_uint_eq(n, 4);
	stop_device();
}
END_TEST

/* ---- hostile drivers ---- */

static const struct evil {
	unsigned q, n;
	struct vring_desc d[2];
} evil[] = {
	{VCON_TX, 1, {{.addr = DATA, .len = 8, .flags = VRING_DESC_F_WRITE}}},
	{VCON_TX, 2, {{.addr = DATA, .len = 8}, {.addr = DATA, .len = 8, .flags = 2}}},
	{VCON_TX, 1, {{.addr = MEM_SIZE, .len = 8}}},
	{VCON_TX, 1, {{.addr = DATA, .len = UINT32_MAX}}},
	{VCON_TX, 1, {{.addr = DATA, .len = 0}}},
	{VCON_TX, 1, {{.addr = DATA, .len = 24, .flags = VRING_DESC_F_INDIRECT}}},
	{VCON_RX, 1, {{.addr = DATA, .len = 8}}},
	{VCON_RX, 2, {{.addr = DATA, .len = 8}, {.addr = DATA, .len = 8, .flags = 2}}},
	{VCON_RX, 1, {{.addr = UINT64_MAX - 7, .len = 8, .flags = VRING_DESC_F_WRITE}}},
};

START_TEST(mistakes_need_a_reset)
{
	const struct evil *x = &evil[_i];
	uint64_t until = clock_ns() + WAIT_NS;
	struct sink s = {.fd = out_pipe[0]};
	pthread_t t;

	ck_assert_int_eq(write(in_pipe[1], "abc", 3), 3);
	start_device(out_pipe[1], in_pipe[0], 0);
	bring_up();
	say(0, 3);
	offer(x->q, x->d, x->n);
	while (!(drv_status(&core) & VIRTIO_CONFIG_S_NEEDS_RESET)) {
		ck_assert_uint_lt(clock_ns(), until);
		usleep(1000);
	}
	bring_up();
	pthread_create(&t, NULL, sink_main, &s);
	say(3, 1000);
	stop_device();
	close(out_pipe[1]);
	pthread_join(t, NULL);
	ck_assert_uint_eq(s.n, 1003);
	ck_assert_uint_eq(s.bad, 0);
}
END_TEST

/* ---- kills ---- */

#define STATE_AT(page) \
	((struct vcon_state *)(void *)((page) + DP_STATE_OFF + PORT_STATE_LEN + VCON_STATE_OFF))

static pid_t fork_device(int out_fd, int in_fd, unsigned flags)
{
	struct err e = {0};
	pid_t pid;

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, chan), 0);
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		close(chan[0]);
		rig = calloc(1, sizeof(*rig));
		if (in_fd >= 0)
			close(in_pipe[1]);
		device_open(rig, out_fd, in_fd, flags);
		_exit(helper_loop(&rig->h, chan[1]) ? 1 : 0);
	}
	close(chan[1]);
	ck_assert_int_eq(msg_expect(chan[0], MSG_READY, NULL, 0, NULL, 0, &e), 0);
	return pid;
}

/* Lines with numbers: what was being written at a kill may be there twice; all are there, and in
 * their order. */
START_TEST(killed_processes_lose_no_output)
{
	enum { ROUNDS = 20, LINES = 100 };
	unsigned next = 0, n, extra = 0;
	FILE *f = tmpfile();
	char line[64];

	fcntl(fileno(f), F_SETFL, O_APPEND);
	for (unsigned r = 0; r <= ROUNDS; r++) {
		pid_t pid = fork_device(fileno(f), -1, 0);

		if (r == 0)
			bring_up();
		for (unsigned i = 0; i < LINES; i++, next++) {
			int len = snprintf(gm_ptr(&gm, DATA, 64), 64, "line %u\n", next);
			struct vring_desc d = drv_desc(DATA, (uint32_t)len, false);
			gpa_t at;

			offer(VCON_TX, &d, 1);
			if (i < LINES - 1 || r == ROUNDS) {
				used(VCON_TX, &at);
				continue;
			}
			usleep(r * 17 % 200); /* killed with one buffer on the way */
			kill(pid, SIGKILL);
			waitpid(pid, NULL, 0);
			close(chan[0]);
			pid = fork_device(fileno(f), -1, 0);
			used(VCON_TX, &at);
		}
		if (r < ROUNDS) {
			kill(pid, SIGKILL);
			waitpid(pid, NULL, 0);
			close(chan[0]);
		}
	}
	ck_assert_int_eq(msg_send(chan[0], MSG_STOP, NULL, 0, NULL, 0), 0);
	ck_assert_int_eq(msg_expect(chan[0], MSG_STOPPED, &(struct msg_stats){0},
				    sizeof(struct msg_stats), NULL, 0, &(struct err){0}),
			 0);
	rewind(f);
	for (unsigned want = 0; fgets(line, sizeof(line), f);) {
		ck_assert_int_eq(sscanf(line, "line %u\n", &n), 1);
		ck_assert_uint_le(n, want);
		if (n < want)
			extra++;
		else
			next = ++want;
	}
	ck_assert_uint_eq(next, (ROUNDS + 1) * LINES);
	ck_assert_uint_le(extra, 2 * ROUNDS * LINES);
	fclose(f);
}
END_TEST

/* Two Ctrl-D after an open line, once, whichever process has read what. */
START_TEST(killed_processes_end_a_stream_once)
{
	struct ends_rings *r = &STATE_AT(core.page)->rings;
	uint64_t until = clock_ns() + WAIT_NS;

	ck_assert_int_eq(write(in_pipe[1], "ab", 2), 2);
	for (unsigned i = 0; i < 3; i++) {
		pid_t pid = fork_device(out_pipe[1], in_pipe[0], UART_STREAM);

		if (i == 1)
			close(in_pipe[1]);
		while (atomic_load(&r->in_head) < (i == 0 ? 2 : 4)) {
			ck_assert_uint_lt(clock_ns(), until);
			usleep(1000);
		}
		usleep(100000); /* if there were more, it would come now */
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
		close(chan[0]);
	}
	ck_assert_uint_eq(atomic_load(&r->in_head), 4);
	ck_assert_int_eq(memcmp(r->in, "ab\004\004", 4), 0);
}
END_TEST

/* ---- without its threads: a kill at any instruction ---- */

static const char said[] = "Hello, world of rings; and a second one.";
static const char typed[] = "typed ahead";
static struct rig bare;

static void model_start(void *dev)
{
	struct worker *w = dev;

	atomic_fetch_add(&w->want, 1);
}

static void turns(struct vcon *v)
{
	unsigned n = 0;

	while (vcon_turn(v) || vcon_rest(v) == 0)
		ck_assert_uint_lt(++n, 1000);
}

static void model_stop(void *dev)
{
	struct worker *w = dev;

	atomic_fetch_add(&w->want, 1);
	turns(dev);
}

static void birth(struct rig *r)
{
	struct vcon *v = &r->v;

	memset(r, 0, sizeof(*r));
	bare_open(&v->w, &r->h, core.page, VCON_TAG, &gm, 3);
	v->st = STATE_AT(core.page);
	ends_rings(&v->ends, &v->st->rings, r->h.port.resumed);
	v->ends.out_event = v->ends.in_event = events[4];
	worker_describe(&v->w, VIRTIO_ID_CONSOLE, 0, VCON_QUEUES, NULL, 0);
	v->w.model.start = model_start;
	v->w.model.stop = model_stop;
	bare_attach(&v->w, &worker_helper_ops.regs);
	worker_resume(&v->w);
}

/* What the guest was given, from the used ring. */
static size_t heard(char *to)
{
	size_t n = 0;

	for (uint16_t i = 0; i != drv_load16(drv[VCON_RX].used + 2); i++) {
		uint32_t elem[2];

		memcpy(elem, drv[VCON_RX].used + 4 + 8 * (size_t)(i % QNUM), sizeof(elem));
		ck_assert_uint_lt(elem[0], QNUM);
		memcpy(to + n, gm_ptr(&gm, drv[VCON_RX].desc[elem[0]].addr, elem[1]), elem[1]);
		n += elem[1];
	}
	return n;
}

#define GUEST_BYTES (2 * DRV_QUEUE_BYTES)

/* A successor finishes what is there: each byte is in the ring, and with the guest, once. */
static void check_successor(unsigned step)
{
	static uint8_t page[DP_SIZE], rings[GUEST_BYTES], input[4][64];
	static struct rig next;
	struct ends_rings *r = &STATE_AT(core.page)->rings;
	char got[sizeof(typed) + 4 * 64];
	uint32_t base = CONSOLE_OUT_LEN - 7;

	memcpy(page, core.page, DP_SIZE);
	memcpy(rings, gm_ptr(&gm, RINGS(0), GUEST_BYTES), GUEST_BYTES);
	for (unsigned i = 0; i < 4; i++)
		memcpy(input[i], gm_ptr(&gm, INPUT(i), 64), 64);
	birth(&next);
	turns(&next.v);
	ck_assert_msg(atomic_load(&r->out_head) - base == sizeof(said) - 1, "step %u: %u bytes",
		      step, atomic_load(&r->out_head) - base);
	for (uint32_t i = 0; i < sizeof(said) - 1; i++)
		ck_assert_msg(r->out[(base + i) % CONSOLE_OUT_LEN] == (uint8_t)said[i],
			      "step %u: byte %u", step, i);
	ck_assert_uint_eq(drv_load16(drv[VCON_TX].used + 2), 2);
	ck_assert_msg(heard(got) == sizeof(typed) - 1, "step %u", step);
	ck_assert_int_eq(memcmp(got, typed, sizeof(typed) - 1), 0);
	ck_assert_uint_eq(atomic_load(&r->in_tail), atomic_load(&r->in_head));
	memcpy(core.page, page, DP_SIZE);
	memcpy(gm_ptr(&gm, RINGS(0), GUEST_BYTES), rings, GUEST_BYTES);
	for (unsigned i = 0; i < 4; i++)
		memcpy(gm_ptr(&gm, INPUT(i), 64), input[i], 64);
}

static void all_turns(void *arg)
{
	raise(SIGSTOP);
	turns(arg);
}

static void guest_with_work(void)
{
	struct ends_rings *r = &STATE_AT(core.page)->rings;
	struct vring_desc d[3];

	birth(&bare);
	/* The output goes over the ring's end. */
	bare.v.ends.out_head = CONSOLE_OUT_LEN - 7;
	atomic_store(&r->out_head, CONSOLE_OUT_LEN - 7);
	atomic_store(&r->out_tail, CONSOLE_OUT_LEN - 7);
	atomic_store(&bare.v.ends.out_mark, CONSOLE_OUT_LEN - 7);
	core.pump = bare_pump;
	core.arg = &bare.h;
	bring_up();
	turns(&bare.v);
	memcpy(gm_ptr(&gm, DATA, sizeof(said)), said, sizeof(said));
	d[0] = drv_desc(DATA, 3, false);
	d[1] = drv_desc(DATA + 3, 1, false);
	d[2] = drv_desc(DATA + 4, 20, false);
	offer(VCON_TX, d, 3);
	d[0] = drv_desc(DATA + 24, sizeof(said) - 1 - 24, false);
	offer(VCON_TX, d, 1);
	for (unsigned i = 0; i < 4; i++) {
		d[0] = drv_desc(INPUT(i), 4 + i, true);
		offer(VCON_RX, d, 1);
	}
	memcpy(r->in, typed, sizeof(typed) - 1);
	atomic_store(&r->in_head, sizeof(typed) - 1);
}

/* It comes when it cannot be taken for a part of the guest's buffer: neither by this process, which
 * has to wait for room, nor by the next one. */
START_TEST(help_is_not_the_guests)
{
	static struct rig next;
	const uint32_t base = CONSOLE_OUT_LEN - 7;
	struct rig *r[2] = {&bare, &next};
	struct ends_rings *rings;
	const uint32_t n = sizeof(said) - 1;

	bare_events();
	guest_with_work();
	rings = &STATE_AT(core.page)->rings;
	atomic_store(&rings->out_tail, base - CONSOLE_OUT_LEN + 10); /* room for 10 bytes */
	vcon_turn(&bare.v);
	ck_assert_uint_eq(atomic_load(&rings->out_head), base + 10);
	atomic_store(&rings->out_tail, base - CONSOLE_OUT_LEN + 20);
	for (unsigned i = 0; i < 2; i++) {
		if (i == 1)
			birth(&next);
		atomic_fetch_or(&r[i]->v.ends.flags, ENDS_HELP);
		vcon_turn(&r[i]->v);
		if (i == 0)
			ck_assert_uint_eq(atomic_load(&rings->out_head), base + 20);
		atomic_store(&rings->out_tail, base);
	}
	turns(&next.v);
	for (uint32_t i = 0; i < n; i++)
		ck_assert_msg(rings->out[(base + i) % CONSOLE_OUT_LEN] == (uint8_t)said[i],
			      "byte %u", i);
	ck_assert_uint_gt(atomic_load(&rings->out_head), base + n + 50);
	ck_assert_int_eq(memcmp(&rings->out[(base + n) % CONSOLE_OUT_LEN], "\r\nCtrl-A", 8), 0);
}
END_TEST

static uint32_t what_has_come(void)
{
	const struct ends_rings *r = &STATE_AT(core.page)->rings;

	return atomic_load(&r->out_head) ^ atomic_load(&r->in_tail) << 16 ^
	       (uint32_t)drv_load16(drv[VCON_TX].used + 2) << 24 ^
	       (uint32_t)drv_load16(drv[VCON_RX].used + 2) << 28;
}

START_TEST(kill_at_every_instruction)
{
	struct steps s;
	pid_t pid;

	bare_events();
	guest_with_work();
	pid = steps_begin(all_turns, &bare.v);
	if (!pid)
		return;
	s = steps_through(pid, 1, what_has_come, check_successor);
	ck_assert_uint_ge(s.changes, 8);
	ck_assert_uint_gt(s.all, 1000);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("vcon");
	TCase *c = tcase_create("device"), *k = tcase_create("kills");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_set_timeout(c, 120);
	tcase_add_checked_fixture(c, setup, guest_teardown);
	tcase_add_test(c, output_comes_whole);
	tcase_add_test(c, nobody_reads);
	tcase_add_test(c, a_deaf_host_keeps_nobody);
	tcase_add_test(c, input_waits);
	tcase_add_test(c, nothing_before_the_seal);
	tcase_add_test(c, escape);
	tcase_add_test(c, end_of_stream);
	tcase_add_test(c, killed_processes_end_a_stream_once);
	tcase_add_loop_test(c, mistakes_need_a_reset, 0, (int)ARRAY_LEN(evil));
	suite_add_tcase(s, c);
	tcase_set_timeout(k, 600);
	tcase_add_checked_fixture(k, guest_setup, guest_teardown);
	tcase_add_test(k, killed_processes_lose_no_output);
	tcase_add_test(k, help_is_not_the_guests);
	tcase_add_test(k, kill_at_every_instruction);
	suite_add_tcase(s, k);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
