/* SPDX-License-Identifier: BSD-2-Clause */
/* The name server of a pod's loopback: the guest's program and the relay, as they are, and a server
 * that answers each question with itself, backwards. All in one network namespace: the guest's
 * program is at another loopback address. */
#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <insula/base.h>

#include "oci/names.h"

#define GUEST "127.0.0.11"
#define SERVER "127.0.0.77"
#define LONGEST 65535u
#define WAIT_MS 20000

static pid_t guest, relay;
static int server_udp, server_tcp;
static _Atomic bool silent;
static pthread_t server;

static struct sockaddr_in at(const char *address, uint16_t port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};

	ck_assert_int_eq(inet_pton(AF_INET, address, &a.sin_addr), 1);
	return a;
}

static void backwards(uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n / 2; i++) {
		uint8_t other = p[n - 1 - i];

		p[n - 1 - i] = p[i];
		p[i] = other;
	}
}

static bool read_whole(int fd, uint8_t *p, size_t len)
{
	for (size_t done = 0; done < len;) {
		struct pollfd w = {fd, POLLIN, 0};
		ssize_t n = poll(&w, 1, WAIT_MS) == 1 ? read(fd, p + done, len - done) : 0;

		if (n <= 0)
			return false;
		done += (size_t)n;
	}
	return true;
}

static void serve_tcp(void)
{
	static uint8_t data[2 + LONGEST];
	int fd = accept4(server_tcp, NULL, NULL, SOCK_CLOEXEC);

	if (fd >= 0 && !silent && read_whole(fd, data, 2) &&
	    read_whole(fd, data + 2, (size_t)data[0] << 8 | data[1])) {
		size_t len = (size_t)data[0] << 8 | data[1];

		backwards(data + 2, len);
		(void)send(fd, data, 1, MSG_NOSIGNAL); /* an answer comes in pieces */
		(void)send(fd, data + 1, 1 + len, MSG_NOSIGNAL);
	}
	if (fd >= 0)
		close(fd);
}

static void *serve(void *arg)
{
	static uint8_t data[LONGEST];

	(void)arg;
	for (;;) {
		struct pollfd p[2] = {{server_udp, POLLIN, 0}, {server_tcp, POLLIN, 0}};
		struct sockaddr_in from;
		socklen_t len = sizeof(from);
		ssize_t n;

		if (poll(p, 2, -1) < 0)
			continue;
		if (p[1].revents)
			serve_tcp();
		if (!p[0].revents)
			continue;
		n = recvfrom(server_udp, data, sizeof(data), 0, (struct sockaddr *)&from, &len);
		if (n <= 0 || silent)
			continue;
		backwards(data, (size_t)n);
		(void)sendto(server_udp, data, (size_t)n, 0, (struct sockaddr *)&from, len);
	}
	return NULL;
}

static int bound(int type, const char *address)
{
	struct sockaddr_in a = at(address, NAMES_PORT);
	int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);

	ck_assert_int_eq(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	return fd;
}

/* False: this machine cannot. */
static bool own_namespace(void)
{
	struct ifreq r = {.ifr_name = "lo", .ifr_flags = IFF_UP};
	int fd;

	if (geteuid() || unshare(CLONE_NEWNET)) {
		ck_assert(!getenv("INSULA_TEST_ALL"));
		return false;
	}
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(ioctl(fd, SIOCSIFFLAGS, &r), 0);
	close(fd);
	return true;
}

/* As supervisor and agent do it: streams of its own, and nothing else. */
static pid_t start_guest(const char *address, int stream)
{
	const char *build = getenv("BUILD");
	char program[PATH_MAX];
	pid_t pid;

	snprintf(program, sizeof(program), "%s/libexec/insula/insula-container",
		 build ? build : "build");
	pid = fork();
	if (pid == 0) {
		if (dup2(stream, 0) == 0 && dup2(stream, 1) == 1)
			execl(program, "insula-container", "names", address, NULL);
		_exit(99);
	}
	ck_assert_int_gt(pid, 0);
	return pid;
}

static bool begin(void)
{
	struct in_addr to;
	int stream[2], ready[2];
	char byte;

	if (!own_namespace())
		return false;
	server_udp = bound(SOCK_DGRAM, SERVER);
	server_tcp = bound(SOCK_STREAM, SERVER);
	ck_assert_int_eq(listen(server_tcp, 64), 0);
	ck_assert_int_eq(pthread_create(&server, NULL, serve, NULL), 0);
	inet_pton(AF_INET, SERVER, &to);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, stream), 0);
	ck_assert_int_eq(pipe2(ready, O_CLOEXEC), 0);
	guest = start_guest(GUEST, stream[1]);
	close(stream[1]);
	relay = fork();
	if (relay == 0) {
		signal(SIGPIPE, SIG_IGN);
		close(ready[0]);
		_exit(names_relay(stream[0], ready[1], to, NAMES_PORT) ? 1 : 0);
	}
	close(stream[0]);
	close(ready[1]);
	ck_assert_int_eq(read(ready[0], &byte, 1), 1);
	ck_assert_int_eq(read(ready[0], &byte, 1), 0); /* once */
	close(ready[0]);
	return true;
}

/* The guest's program ends, and the relay with it. */
static void end(void)
{
	int status;

	kill(guest, SIGKILL);
	ck_assert_int_eq(waitpid(guest, NULL, 0), guest);
	ck_assert_int_eq(waitpid(relay, &status, 0), relay);
	ck_assert_int_eq(status, 0);
}

static int dial(int type)
{
	struct sockaddr_in a = at(GUEST, NAMES_PORT);
	int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);

	ck_assert_int_eq(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	return fd;
}

static void fill(uint8_t *p, size_t n, unsigned seed)
{
	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t)(seed + i * 7 + (i >> 8));
}

static void answered_udp(int fd, size_t n, unsigned seed)
{
	static uint8_t want[LONGEST], got[LONGEST];
	struct pollfd p = {fd, POLLIN, 0};

	fill(want, n, seed);
	backwards(want, n);
	ck_assert_int_eq(poll(&p, 1, WAIT_MS), 1);
	ck_assert_int_eq(recv(fd, got, sizeof(got), 0), (ssize_t)n);
	ck_assert_int_eq(memcmp(want, got, n), 0);
}

static void ask_udp(int fd, size_t n, unsigned seed)
{
	static uint8_t data[LONGEST];

	fill(data, n, seed);
	ck_assert_int_eq(send(fd, data, n, 0), (ssize_t)n);
}

static void ask_tcp(int fd, size_t n, unsigned seed)
{
	static uint8_t data[2 + LONGEST];

	data[0] = (uint8_t)(n >> 8);
	data[1] = (uint8_t)n;
	fill(data + 2, n, seed);
	ck_assert_int_eq(write(fd, data, 1), 1);
	ck_assert_int_eq(write(fd, data + 1, 1 + n), (ssize_t)(1 + n));
}

static void answered_tcp(int fd, size_t n, unsigned seed)
{
	static uint8_t want[LONGEST], got[2 + LONGEST];

	fill(want, n, seed);
	backwards(want, n);
	ck_assert(read_whole(fd, got, 2 + n));
	ck_assert_uint_eq((size_t)got[0] << 8 | got[1], n);
	ck_assert_int_eq(memcmp(want, got + 2, n), 0);
}

/* The end of the connection comes at any time, maybe before the question is said. */
static void unanswered_tcp(int fd)
{
	static const uint8_t question[2 + 30] = {0, 30};

	(void)send(fd, question, sizeof(question), MSG_NOSIGNAL);
	ck_assert_int_le(read(fd, &(char){0}, 1), 0);
}

START_TEST(over_udp)
{
	int fd[32];

	if (!begin())
		return;
	for (unsigned i = 0; i < ARRAY_LEN(fd); i++) { /* all at once, each has its own */
		fd[i] = dial(SOCK_DGRAM);
		ask_udp(fd[i], 12 + i, i);
	}
	for (unsigned i = ARRAY_LEN(fd); i-- > 0;)
		answered_udp(fd[i], 12 + i, i);
	for (size_t n = 1; n < 60000; n = n * 3 + 1) {
		ask_udp(fd[0], n, 5);
		answered_udp(fd[0], n, 5);
	}
	end();
}
END_TEST

START_TEST(over_tcp)
{
	int fd[16];

	if (!begin())
		return;
	for (unsigned i = 0; i < ARRAY_LEN(fd); i++) {
		fd[i] = dial(SOCK_STREAM);
		ask_tcp(fd[i], 300 + i, i);
	}
	for (unsigned i = 0; i < ARRAY_LEN(fd); i++)
		answered_tcp(fd[i], 300 + i, i);
	ask_tcp(fd[3], 20, 9); /* another on the same connection */
	answered_tcp(fd[3], 20, 9);
	ask_tcp(fd[4], 20000, 2);
	answered_tcp(fd[4], 20000, 2);
	shutdown(fd[5], SHUT_WR); /* who has said all ends */
	ck_assert_int_eq(read(fd[5], &(char){0}, 1), 0);
	close(fd[6]);
	close(fd[5]);
	fd[5] = dial(SOCK_STREAM); /* their places are free again */
	ask_tcp(fd[5], 40, 4);
	answered_tcp(fd[5], 40, 4);
	end();
}
END_TEST

/* A client that is gone, a question of no bytes, a server that says nothing: the next one is
 * answered. */
START_TEST(nothing_hangs)
{
	int fd, other;

	if (!begin())
		return;
	silent = true;
	for (unsigned i = 0; i < 3 * NAMES_MOST; i++) { /* more than there are places */
		fd = dial(SOCK_DGRAM);
		ask_udp(fd, 30, i);
		close(fd);
	}
	fd = dial(SOCK_STREAM);
	unanswered_tcp(fd); /* it has no answer, and is told */
	close(fd);
	silent = false;
	fd = dial(SOCK_DGRAM);
	other = dial(SOCK_STREAM);
	ck_assert_int_eq(send(fd, "", 0, 0), 0);
	/* It may have lost its place to the one before by now. */
	(void)send(other, "\0", 2, MSG_NOSIGNAL);
	ck_assert_int_le(read(other, &(char){0}, 1), 0);
	ask_udp(fd, 50, 3);
	answered_udp(fd, 50, 3);
	close(server_tcp); /* refused */
	close(other);
	other = dial(SOCK_STREAM);
	unanswered_tcp(other);
	end();
}
END_TEST

/* What a guest that was taken over may say. */
START_TEST(bad_guest)
{
	static const struct {
		struct ct_names_head head;
		size_t bytes;
	} bad[] = {
		{{.kind = 0}, sizeof(bad[0].head)},
		{{.kind = 4, .len = 10}, sizeof(bad[0].head)},
		{{.kind = CT_NAMES_UDP, .len = 10}, sizeof(bad[0].head)},
		{{.kind = CT_NAMES_UDP}, 3},
	};
	struct in_addr to = {htonl(INADDR_LOOPBACK)};
	char byte;

	for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
		int stream[2], ready[2];

		ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, stream), 0);
		ck_assert_int_eq(pipe2(ready, O_CLOEXEC), 0);
		ck_assert_int_eq(write(stream[1], &bad[i].head, bad[i].bytes),
				 (ssize_t)bad[i].bytes);
		shutdown(stream[1], SHUT_WR);
		ck_assert_int_ne(names_relay(stream[0], ready[1], to, 9), 1);
		ck_assert_int_eq(read(ready[0], &byte, 1), 0);
		close(stream[1]);
		close(ready[0]);
	}
}
END_TEST

START_TEST(guest_refuses)
{
	static const char *const bad[] = {"10.0.0.1", "::1", "x", ""};
	int null = open("/dev/null", O_RDWR | O_CLOEXEC), status;

	for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
		ck_assert_int_gt(waitpid(start_guest(bad[i], null), &status, 0), 0);
		ck_assert_int_eq(WEXITSTATUS(status), 125);
	}
	close(null);
}
END_TEST

START_TEST(resolv_conf)
{
	static const struct {
		const char *text, *server; /* NULL: none */
	} one[] = {
		{"nameserver 127.0.0.11\noptions ndots:0\n", "127.0.0.11"},
		{"search x\n nameserver 127.0.0.1\nnameserver\t127.0.0.53", "127.0.0.53"},
		{"nameserver 10.0.0.1\nnameserver 127.1.2.3 # x\n", "127.1.2.3"},
		{"nameserver 10.0.0.1\n", NULL},
		{"nameserver ::1\n", NULL},
		{"nameserver127.0.0.1\n#nameserver 127.0.0.1\n", NULL},
		{"nameserver 127.0.0.0000000000000000001\n", NULL},
		{"nameserver", NULL},
		{"", NULL},
	};

	for (unsigned i = 0; i < ARRAY_LEN(one); i++) {
		struct in_addr a;

		ck_assert_msg(names_server_in(one[i].text, &a) == !!one[i].server, "%u", i);
		if (one[i].server)
			ck_assert_str_eq(inet_ntoa(a), one[i].server);
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("oci_names");
	TCase *t = tcase_create("names");
	SRunner *r;
	int failed;

	tcase_set_timeout(t, 120);
	tcase_add_test(t, over_udp);
	tcase_add_test(t, over_tcp);
	tcase_add_test(t, nothing_hangs);
	tcase_add_test(t, bad_guest);
	tcase_add_test(t, guest_refuses);
	tcase_add_test(t, resolv_conf);
	suite_add_tcase(s, t);
	r = srunner_create(s);
	srunner_run_all(r, CK_ENV);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
