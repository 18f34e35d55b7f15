/* SPDX-License-Identifier: BSD-2-Clause */
/* The console with real descriptors, threads, terminals, and kills. */
#include <check.h>
#include <fcntl.h>
#include <linux/serial_reg.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <insula/stats.h>

#include <devices/console/console.h>

#include "fakecore.h"

/* ---- the console ---- */

static struct fakecore core;
/* Fresh for every start: the threads of an earlier one still wait on theirs. */
static struct rig {
	struct helper helper;
	struct console console;
} * rig;
static pthread_t thread;
static int chan[2];

static void *loop(void *arg)
{
	return (void *)(intptr_t)helper_loop(arg, chan[1]);
}

static void console_start(int out_fd, int in_fd, unsigned flags)
{
	struct err e = {0};

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, chan), 0);
	rig = calloc(1, sizeof(*rig));
	ck_assert_ptr_nonnull(rig);
	ck_assert_msg(fc_helper_open(&core, &rig->helper, CONSOLE_TAG, &e) == 0, "%s", e.text);
	ck_assert_msg(console_open(&rig->console, &rig->helper, out_fd, in_fd,
				   &(struct msg_start_uart){.flags = flags}, &e) == 0,
		      "%s", e.text);
	ck_assert_int_eq(helper_attach(&rig->helper, &console_ops, &rig->console, &e), 0);
	ck_assert_int_eq(pthread_create(&thread, NULL, loop, &rig->helper), 0);
	ck_assert_int_eq(msg_expect(chan[0], MSG_READY, NULL, 0, NULL, 0, &e), 0);
}

static struct msg_stats console_stop(void)
{
	struct msg_stats s;
	struct err e = {0};
	void *rc;

	ck_assert_int_eq(msg_send(chan[0], MSG_STOP, NULL, 0, NULL, 0), 0);
	ck_assert_msg(msg_expect(chan[0], MSG_STOPPED, &s, sizeof(s), NULL, 0, &e) == 0, "%s",
		      e.text);
	pthread_join(thread, &rc);
	ck_assert_ptr_null(rc);
	return s;
}

static void console_setup(void)
{
	helper_signals();
	fc_open(&core);
}

/* Bytes as a well-behaved driver sends them: one FIFO whenever THRE is set. */
static void send_bytes(const uint8_t *p, size_t n)
{
	uint64_t until = clock_ns() + FC_DEADLINE_NS;

	while (n) {
		size_t k = n < UART_FIFO ? n : UART_FIFO;

		ck_assert_uint_lt(clock_ns(), until);
		if (!(fc_shadow8(&core, UART_LSR) & UART_LSR_THRE)) {
			usleep(100);
			continue;
		}
		for (size_t i = 0; i < k; i++)
			fc_post(&core, UART_TX, 1, p[i]);
		p += k;
		n -= k;
	}
}

static uint8_t pattern(size_t i)
{
	return (uint8_t)(i * 2654435761u >> 13);
}

struct sink {
	int fd;
	size_t n, bad;
	unsigned pause_us;
};

static void *sink_main(void *arg)
{
	struct sink *s = arg;
	uint8_t buf[1000];
	ssize_t r;

	while ((r = read(s->fd, buf, sizeof(buf))) > 0) {
		for (ssize_t i = 0; i < r; i++)
			s->bad += buf[i] != pattern(s->n + (size_t)i);
		s->n += (size_t)r;
		usleep(s->pause_us);
	}
	return NULL;
}

/* Four times what the ring holds, to a reader that is slower than the guest: nothing is lost,
 * nobody is blocked. */
START_TEST(slow_reader_loses_nothing)
{
	enum { LEN = 4 * CONSOLE_OUT_LEN + 123 };
	static uint8_t data[LEN];
	struct sink s = {.pause_us = 1500};
	struct msg_stats st;
	pthread_t t;
	int p[2];

	for (size_t i = 0; i < LEN; i++)
		data[i] = pattern(i);
	ck_assert_int_eq(pipe(p), 0);
	s.fd = p[0];
	pthread_create(&t, NULL, sink_main, &s);
	console_start(p[1], -1, 0);
	send_bytes(data, LEN);
	st = console_stop();
	close(p[1]);
	pthread_join(t, NULL);
	ck_assert_uint_eq(s.n, LEN);
	ck_assert_uint_eq(s.bad, 0);
	ck_assert_uint_eq(st.n[STAT_UART_OUT_BYTES], LEN);
	ck_assert_uint_eq(st.n[STAT_UART_OUT_DROPPED] + st.n[STAT_UART_OUT_LOST], 0);
}
END_TEST

START_TEST(nobody_reads_and_registers_still_answer)
{
	uint8_t line[64];
	uint64_t start;
	int p[2];

	memset(line, 'x', sizeof(line));
	ck_assert_int_eq(pipe(p), 0);
	console_start(p[1], -1, 0);
	/* Until THRE stays clear: the pipe and the ring are full. */
	for (unsigned idle = 0; idle < 100;) {
		if (fc_shadow8(&core, UART_LSR) & UART_LSR_THRE) {
			for (unsigned i = 0; i < UART_FIFO; i++)
				fc_post(&core, UART_TX, 1, line[i]);
			idle = 0;
		} else {
			usleep(1000);
			idle++;
		}
	}
	start = clock_ns();
	fc_write(&core, UART_SCR, 1, 0x77);
	ck_assert_uint_eq(fc_shadow8(&core, UART_SCR), 0x77);
	ck_assert_uint_lt(clock_ns() - start, DP_DEADLINE_NS / 2);
	/* A driver that does not look at THRE is not waited for either. */
	for (unsigned i = 0; i < 2 * UART_TX_SLACK; i++)
		fc_post(&core, UART_TX, 1, 'y');
	fc_write(&core, UART_SCR, 1, 0x78);
	/* The end comes in bounded time, and says what was lost. */
	start = clock_ns();
	ck_assert_uint_gt(console_stop().n[STAT_UART_OUT_LOST], CONSOLE_OUT_LEN / 2);
	ck_assert_uint_lt(clock_ns() - start, CONSOLE_DRAIN_NS + 2000000000ull);
}
END_TEST

START_TEST(output_is_batched)
{
	char line[81];
	struct msg_stats s;
	int p[2];

	memset(line, 'z', sizeof(line));
	line[79] = '\r';
	line[80] = '\n';
	ck_assert_int_eq(pipe(p), 0);
	for (int i = 0; i < 200; i++) {
		if (i == 0)
			console_start(p[1], -1, 0);
		send_bytes((uint8_t *)line, sizeof(line));
	}
	s = console_stop();
	ck_assert_uint_eq(s.n[STAT_UART_OUT_BYTES], 200 * sizeof(line));
	/* At most a write per line and one for each time that the guest paused; far from one per
	 * byte. */
	ck_assert_uint_lt(s.n[STAT_UART_OUT_WRITES], 200 * 8);
}
END_TEST

/* A line that does not end (a prompt) is shown without being asked for. */
START_TEST(prompt_appears)
{
	char buf[16] = {0};
	struct pollfd pf;
	int p[2];

	ck_assert_int_eq(pipe(p), 0);
	console_start(p[1], -1, 0);
	send_bytes((const uint8_t *)"login: ", 7);
	pf = (struct pollfd){.fd = p[0], .events = POLLIN};
	for (size_t n = 0; n < 7;) {
		ck_assert_int_eq(poll(&pf, 1, 10000), 1);
		n += (size_t)read(p[0], buf + n, sizeof(buf) - 1 - n);
	}
	ck_assert_str_eq(buf, "login: ");
	console_stop();
}
END_TEST

START_TEST(closed_output_is_discarded)
{
	static uint8_t data[2 * CONSOLE_OUT_LEN];
	struct msg_stats s;
	int p[2];

	ck_assert_int_eq(pipe(p), 0);
	close(p[0]);
	console_start(p[1], -1, 0);
	send_bytes(data, sizeof(data));
	s = console_stop();
	ck_assert_uint_eq(s.n[STAT_UART_OUT_LOST], sizeof(data));
	ck_assert_uint_eq(s.n[STAT_UART_OUT_BYTES], 0);
}
END_TEST

START_TEST(full_disk_does_not_stop_the_guest)
{
	static uint8_t data[2 * CONSOLE_OUT_LEN];
	int fd = open("/dev/full", O_WRONLY);

	ck_assert_int_ge(fd, 0);
	console_start(fd, -1, 0);
	send_bytes(data, sizeof(data));
	ck_assert_uint_eq(console_stop().n[STAT_UART_OUT_LOST], sizeof(data));
}
END_TEST

START_TEST(nonblocking_output)
{
	static uint8_t data[3 * CONSOLE_OUT_LEN];
	struct sink s = {.pause_us = 200};
	pthread_t t;
	int p[2];

	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = pattern(i);
	ck_assert_int_eq(pipe(p), 0);
	ck_assert_int_eq(fcntl(p[1], F_SETFL, O_NONBLOCK), 0);
	s.fd = p[0];
	pthread_create(&t, NULL, sink_main, &s);
	console_start(p[1], -1, 0);
	send_bytes(data, sizeof(data));
	console_stop();
	close(p[1]);
	pthread_join(t, NULL);
	ck_assert_uint_eq(s.n, sizeof(data));
	ck_assert_uint_eq(s.bad, 0);
}
END_TEST

/* ---- input ---- */

static void read_byte(uint8_t *b)
{
	uint64_t until = clock_ns() + FC_DEADLINE_NS;

	while (!(fc_shadow8(&core, UART_LSR) & UART_LSR_DR)) {
		ck_assert_uint_lt(clock_ns(), until);
		usleep(100);
	}
	*b = (uint8_t)fc_read(&core, UART_RX, 1);
}

static void expect_input(const char *s)
{
	for (; *s; s++) {
		uint8_t b;

		read_byte(&b);
		ck_assert_uint_eq(b, (uint8_t)*s);
	}
}

/* The ring is full when the UART gives back what was in its FIFO, as a driver that opens the port
 * makes it do: nothing is overwritten. */
START_TEST(input_given_back_to_a_full_ring)
{
	static uint8_t d[16384];
	static const uint8_t clear[] = {
		UART_FCR_ENABLE_FIFO,
		UART_FCR_ENABLE_FIFO | UART_FCR_CLEAR_RCVR | UART_FCR_CLEAR_XMIT, 0};
	int p[2];

	for (size_t i = 0; i < sizeof(d); i++)
		d[i] = pattern(i);
	ck_assert_int_eq(pipe(p), 0);
	console_start(open("/dev/null", O_WRONLY), p[0], 0);
	fc_write(&core, UART_FCR, 1, UART_FCR_ENABLE_FIFO);
	ck_assert_int_eq(write(p[1], d, 100), 100);
	usleep(50000); /* the FIFO is full, and then the ring: */
	ck_assert_int_eq(write(p[1], d + 100, sizeof(d) - 100), (ssize_t)sizeof(d) - 100);
	usleep(200000);
	for (unsigned i = 0; i < ARRAY_LEN(clear); i++)
		fc_write(&core, UART_FCR, 1, clear[i]);
	usleep(200000); /* time to overwrite it */
	fc_write(&core, UART_FCR, 1, UART_FCR_ENABLE_FIFO);
	for (size_t i = 0; i < sizeof(d); i++) {
		uint8_t b;

		read_byte(&b);
		ck_assert_msg(b == pattern(i), "byte %zu", i);
	}
	console_stop();
	close(p[1]);
}
END_TEST

START_TEST(input_with_backpressure)
{
	enum { LEN = 5 * CONSOLE_IN_LEN };
	static uint8_t data[LEN];
	FILE *f = tmpfile();

	/* A file: always readable, four times longer than all buffers together, and it has an end.
	 */
	for (size_t i = 0; i < LEN; i++)
		data[i] = pattern(i);
	ck_assert_uint_eq(fwrite(data, 1, LEN, f), LEN);
	rewind(f);
	console_start(open("/dev/null", O_WRONLY), dup(fileno(f)), 0);
	fc_write(&core, UART_FCR, 1, UART_FCR_ENABLE_FIFO);
	usleep(20000);
	ck_assert_uint_le(rig->console.ends.in_bytes, CONSOLE_IN_LEN);
	for (size_t i = 0; i < LEN; i++) {
		uint8_t b;

		read_byte(&b);
		ck_assert_uint_eq(b, pattern(i));
		/* A driver that starts the port again now and then does not lose a byte. */
		if (i % 1000 == 0) {
			fc_write(&core, UART_FCR, 1, UART_FCR_ENABLE_FIFO | UART_FCR_CLEAR_RCVR);
			fc_write(&core, UART_MCR, 1, 0);
			(void)fc_read(&core, UART_RX, 1);
			fc_write(&core, UART_MCR, 1, UART_MCR_LOOP);
			fc_write(&core, UART_MCR, 1, UART_MCR_RTS);
		}
	}
	/* The end of the input is not the end of the console. */
	fc_write(&core, UART_SCR, 1, 1);
	ck_assert_uint_eq(fc_shadow8(&core, UART_LSR) & UART_LSR_DR, 0);
	ck_assert_uint_eq(console_stop().n[STAT_UART_IN_BYTES], LEN);
	fclose(f);
}
END_TEST

START_TEST(input_interrupts)
{
	struct pollfd pf = {.fd = core.irq_fd, .events = POLLIN};
	int p[2];

	ck_assert_int_eq(pipe(p), 0);
	console_start(open("/dev/null", O_WRONLY), p[0], 0);
	fc_write(&core, UART_IER, 1, UART_IER_RDI);
	ck_assert_int_eq(write(p[1], "q", 1), 1);
	ck_assert_int_eq(poll(&pf, 1, 10000), 1);
	ck_assert_uint_eq(fc_read(&core, UART_IIR, 1), UART_IIR_RDI);
	expect_input("q");
	close(p[1]);
	ck_assert_uint_gt(console_stop().n[STAT_IRQS], 0);
}
END_TEST

START_TEST(escape)
{
	struct err e = {0};
	int in_pipe[2], out_pipe[2];
	char buf[256] = {0};
	size_t n = 0;

	ck_assert_int_eq(pipe(in_pipe), 0);
	ck_assert_int_eq(pipe(out_pipe), 0);
	console_start(out_pipe[1], in_pipe[0], UART_ESCAPE);
	fc_write(&core, UART_FCR, 1, UART_FCR_ENABLE_FIFO);
	ck_assert_int_eq(write(in_pipe[1], "a\001\001b\001c\001", 7), 7);
	expect_input("a\001b\001c");
	ck_assert_int_eq(write(in_pipe[1], "h", 1), 1); /* the other half, later */
	while (!strstr(buf, "help")) {
		ssize_t r = read(out_pipe[0], buf + n, sizeof(buf) - 1 - n);

		ck_assert_int_gt(r, 0);
		n += (size_t)r;
	}
	ck_assert_int_eq(write(in_pipe[1], "\001x", 2), 2);
	ck_assert_int_eq(msg_expect(chan[0], MSG_QUIT, NULL, 0, NULL, 0, &e), 0);
	/* After that everything goes on: ending the VM is the supervisor's business. */
	ck_assert_int_eq(write(in_pipe[1], "z", 1), 1);
	expect_input("z");
	console_stop();
}
END_TEST

START_TEST(escape_works_when_the_guest_does_not_read)
{
	static uint8_t junk[3 * CONSOLE_IN_LEN];
	struct err e = {0};
	int p[2];

	memset(junk, 'j', sizeof(junk));
	ck_assert_int_eq(pipe(p), 0);
	console_start(open("/dev/null", O_WRONLY), p[0], UART_ESCAPE);
	ck_assert_int_eq(write(p[1], junk, sizeof(junk)), sizeof(junk));
	ck_assert_int_eq(write(p[1], "\001x", 2), 2);
	ck_assert_int_eq(msg_expect(chan[0], MSG_QUIT, NULL, 0, NULL, 0, &e), 0);
	console_stop();
}
END_TEST

START_TEST(no_escape_unless_asked_for)
{
	int p[2];

	ck_assert_int_eq(pipe(p), 0);
	console_start(open("/dev/null", O_WRONLY), p[0], 0);
	ck_assert_int_eq(write(p[1], "\001x", 2), 2);
	expect_input("\001x");
	console_stop();
}
END_TEST

/* A pty as the supervisor makes it: raw, with its own descriptor of the other side. */
static int open_pty(int *other)
{
	struct termios raw;
	int m = posix_openpt(O_RDWR | O_NOCTTY);

	ck_assert_int_ge(m, 0);
	ck_assert_int_eq(grantpt(m), 0);
	ck_assert_int_eq(unlockpt(m), 0);
	*other = open(ptsname(m), O_RDWR | O_NOCTTY);
	ck_assert_int_ge(*other, 0);
	ck_assert_int_eq(tcgetattr(*other, &raw), 0);
	cfmakeraw(&raw);
	ck_assert_int_eq(tcsetattr(*other, TCSANOW, &raw), 0);
	return m;
}

static void expect_output(int fd, const char *text)
{
	static char buf[2 * CONSOLE_OUT_LEN];
	size_t n = 0;

	do {
		ssize_t r = read(fd, buf + n, sizeof(buf) - 1 - n);

		ck_assert_int_gt(r, 0);
		n += (size_t)r;
		buf[n] = 0;
	} while (!strstr(buf, text));
}

START_TEST(pty_that_nobody_reads)
{
	static uint8_t data[3 * CONSOLE_OUT_LEN];
	int other, m = open_pty(&other);

	memset(data, 'u', sizeof(data));
	console_start(m, dup(m), 0);
	send_bytes(data, sizeof(data)); /* does not hang */
	ck_assert_uint_gt(rig->console.ends.out_lost, 0);
	/* Somebody comes: what is said from now on is heard. */
	send_bytes((const uint8_t *)"old\n", 4);
	usleep(50000);
	ck_assert_int_eq(tcflush(other, TCIFLUSH), 0);
	ck_assert_int_eq(write(other, "hi\n", 3), 3);
	expect_input("hi\n");
	send_bytes((const uint8_t *)"hello\n", 6);
	expect_output(other, "hello\n");
	console_stop();
}
END_TEST

START_TEST(pty_comes_and_goes)
{
	int other, m = open_pty(&other);

	console_start(m, dup(m), 0);
	close(other);
	send_bytes((const uint8_t *)"nobody hears this\n", 18);
	usleep(50000);
	other = open(ptsname(m), O_RDWR | O_NOCTTY);
	ck_assert_int_ge(other, 0);
	ck_assert_int_eq(write(other, "hi\n", 3), 3);
	expect_input("hi\n");
	send_bytes((const uint8_t *)"hello\n", 6);
	expect_output(other, "hello\n");
	console_stop();
}
END_TEST

/* ---- restart ---- */

/* The device as a process that can be killed. */
static pid_t fork_console(int out_fd)
{
	struct err e = {0};
	pid_t pid;

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, chan), 0);
	rig = calloc(1, sizeof(*rig));
	ck_assert_ptr_nonnull(rig);
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		close(chan[0]);
		if (fc_helper_open(&core, &rig->helper, CONSOLE_TAG, &e) ||
		    console_open(&rig->console, &rig->helper, out_fd, -1,
				 &(struct msg_start_uart){0}, &e) ||
		    helper_attach(&rig->helper, &console_ops, &rig->console, &e))
			_exit(1);
		_exit(helper_loop(&rig->helper, chan[1]) ? 1 : 0);
	}
	close(chan[1]);
	ck_assert_int_eq(msg_expect(chan[0], MSG_READY, NULL, 0, NULL, 0, &e), 0);
	return pid;
}

START_TEST(killed_consoles_lose_no_output)
{
	enum { ROUNDS = 30, LEN = 1600 };
	struct msg_stats st;
	struct err e = {0};
	uint8_t chunk[LEN];
	size_t sent = 0, got = 0, extra = 0;
	uint8_t *all = NULL;
	FILE *f = tmpfile();

	fcntl(fileno(f), F_SETFL, O_APPEND);
	for (unsigned r = 0; r <= ROUNDS; r++) {
		pid_t pid = fork_console(fileno(f));

		for (size_t i = 0; i < LEN; i++)
			chunk[i] = pattern(sent + i);
		send_bytes(chunk, LEN);
		sent += LEN;
		if (r == ROUNDS)
			break;
		usleep(r * 37 % 400);
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
		close(chan[0]);
		free(rig);
	}
	ck_assert_int_eq(msg_send(chan[0], MSG_STOP, NULL, 0, NULL, 0), 0);
	ck_assert_int_eq(msg_expect(chan[0], MSG_STOPPED, &st, sizeof(st), NULL, 0, &e), 0);
	all = malloc(4 * sent);
	rewind(f);
	got = fread(all, 1, 4 * sent, f);
	/* In order, nothing missing; what was being written at a kill may be there twice. */
	for (size_t i = 0, want = 0; i < got; i++) {
		if (want < sent && all[i] == pattern(want)) {
			want++;
			continue;
		}
		extra++;
		/* Back to where the repetition began: find the longest suffix that fits. */
		size_t back;
		for (back = 1; back <= want; back++) {
			size_t k = 0;
			while (k < 64 && i + k < got && want - back + k < sent &&
			       all[i + k] == pattern(want - back + k))
				k++;
			if (k >= 64 || i + k == got)
				break;
		}
		ck_assert_msg(back <= want, "output is broken at byte %zu of %zu", i, got);
		want = want - back + 1;
	}
	ck_assert_uint_ge(got, sent);
	ck_assert_uint_le(extra, ROUNDS);
	ck_assert_uint_eq(all[got - 1], pattern(sent - 1));
	free(all);
	fclose(f);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("console_linux");
	TCase *tc = tcase_create("console_linux");
	SRunner *sr;
	int failures;

	tcase_add_checked_fixture(tc, console_setup, NULL);
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, slow_reader_loses_nothing);
	tcase_add_test(tc, input_given_back_to_a_full_ring);
	tcase_add_test(tc, nobody_reads_and_registers_still_answer);
	tcase_add_test(tc, output_is_batched);
	tcase_add_test(tc, prompt_appears);
	tcase_add_test(tc, closed_output_is_discarded);
	tcase_add_test(tc, full_disk_does_not_stop_the_guest);
	tcase_add_test(tc, nonblocking_output);
	tcase_add_test(tc, input_with_backpressure);
	tcase_add_test(tc, input_interrupts);
	tcase_add_test(tc, escape);
	tcase_add_test(tc, escape_works_when_the_guest_does_not_read);
	tcase_add_test(tc, no_escape_unless_asked_for);
	tcase_add_test(tc, pty_that_nobody_reads);
	tcase_add_test(tc, pty_comes_and_goes);
	tcase_add_test(tc, killed_consoles_lose_no_output);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failures = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failures != 0;
}
