/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One end of streams, for tests and benchmarks; static, so that it runs in any guest.
 *
 *   vsockpeer echo ADDR               listen; give back what comes until its end, then end
 *   vsockpeer accept ADDR             listen; wait for one connection, end
 *   vsockpeer load ADDR N MAX SEED    N connections at once: each sends up to MAX bytes, closes
 *                                     that direction, and must get the same bytes back, then the
 *                                     end
 *   vsockpeer rtt ADDR N              N round trips of one byte; prints the median in ns
 *   vsockpeer send ADDR BYTES         send so many bytes, wait for the end; prints bytes a second
 *   vsockpeer sink ADDR               listen; read each connection to its end, then close it
 *
 *   vsockpeer source ADDR BYTES SEED  listen; give each connection so many bytes, wait for its end;
 *                                     prints "begins", then "given" or "failed"
 *   vsockpeer fetch ADDR BYTES SEED   connect, trying for a minute, and read what a source of the
 *                                     same SEED gives: prints "begins", then "whole" (status 0),
 *                                     "error" (1) or "cut": an end without an error, but too early
 *                                     (3). A wrong byte: 2.
 *
 * ADDR: vsock:CID:PORT, unix:PATH, tcp:A.B.C.D:PORT, fc:PATH:PORT (PATH with "CONNECT PORT").
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <linux/vm_sockets.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

#define MAX_ENDS 4096
#define CHUNK 65536
#define STALL_MS 60000

static _Noreturn void die(const char *what)
{
	fprintf(stderr, "vsockpeer: %s: %s\n", what, strerror(errno));
	exit(1);
}

static _Noreturn void fail(const char *what, unsigned long long a, unsigned long long b)
{
	fprintf(stderr, "vsockpeer: %s (%llu, %llu)\n", what, a, b);
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- addresses ---- */

struct address {
	union {
		struct sockaddr sa;
		struct sockaddr_vm vm;
		struct sockaddr_un un;
		struct sockaddr_in in;
	} u;
	socklen_t len;
	char line[32]; /* to be said first; the answer is a line */
};

static struct address parse(const char *text)
{
	char copy[256], *kind = copy, *rest, *port;
	struct address a = {.len = sizeof(a.u.un)};

	snprintf(copy, sizeof(copy), "%s", text);
	rest = strchr(copy, ':');
	if (!rest)
		fail("address", 0, 0);
	*rest++ = 0;
	port = strrchr(rest, ':');
	if (port)
		*port++ = 0;
	if (!strcmp(kind, "vsock") && port) {
		a.u.vm = (struct sockaddr_vm){.svm_family = AF_VSOCK,
					      .svm_cid = (unsigned)strtoul(rest, NULL, 10),
					      .svm_port = (unsigned)strtoul(port, NULL, 10)};
		a.len = sizeof(a.u.vm);
	} else if (!strcmp(kind, "tcp") && port) {
		a.u.in = (struct sockaddr_in){.sin_family = AF_INET,
					      .sin_port = htons((uint16_t)atoi(port))};
		inet_pton(AF_INET, rest, &a.u.in.sin_addr);
		a.len = sizeof(a.u.in);
	} else {
		a.u.un.sun_family = AF_UNIX;
		snprintf(a.u.un.sun_path, sizeof(a.u.un.sun_path), "%s", rest);
		if (!strcmp(kind, "fc") && port)
			snprintf(a.line, sizeof(a.line), "CONNECT %s\n", port);
	}
	return a;
}

static int make_socket(const struct address *a)
{
	int one = 1, fd = socket(a->u.sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		die("socket");
	if (a->u.sa.sa_family == AF_INET) {
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	}
	return fd;
}

static int listen_at(const char *text)
{
	struct address a = parse(text);
	int fd = make_socket(&a);

	if (a.u.sa.sa_family == AF_UNIX)
		unlink(a.u.un.sun_path);
	if (bind(fd, &a.u.sa, a.len) || listen(fd, MAX_ENDS))
		die("listen");
	return fd;
}

/* Say the line, and read the one that answers it. */
static bool greet(int fd, const char *line)
{
	char c, text[64];
	size_t n = 0;

	if (write(fd, line, strlen(line)) != (ssize_t)strlen(line))
		return false;
	while (n < sizeof(text) - 1 && read(fd, &c, 1) == 1) {
		text[n++] = c;
		if (c == '\n')
			break;
	}
	text[n] = 0;
	return strncmp(text, "OK ", 3) == 0;
}

static int connect_to(const char *text, bool greeted)
{
	struct address a = parse(text);
	int fd = make_socket(&a);

	if (connect(fd, &a.u.sa, a.len))
		die("connect");
	if (a.line[0] && greeted && !greet(fd, a.line))
		fail("no OK", 0, 0);
	return fd;
}

/* What is between us and them may be about to be replaced. */
static int connect_patiently(const char *text)
{
	struct address a = parse(text);
	uint64_t until = now_ns() + 60000000000u;

	while (now_ns() < until) {
		int fd = make_socket(&a);

		if (connect(fd, &a.u.sa, a.len) == 0 && (!a.line[0] || greet(fd, a.line)))
			return fd;
		close(fd);
		usleep(50000);
	}
	die("connect");
}

/* ---- echo ---- */

struct end {
	int fd;
	size_t at, n; /* of buf */
	bool eof;
	uint8_t *buf;
	/* load */
	uint64_t sent, got, size, out_seed, in_seed;
	bool greeting, shut;
};

static struct end ends[MAX_ENDS];
static unsigned nends;

static struct end *add(int fd)
{
	struct end *e = &ends[nends++];

	*e = (struct end){.fd = fd, .buf = malloc(CHUNK)};
	fcntl(fd, F_SETFL, O_NONBLOCK);
	return e;
}

static void drop(unsigned i)
{
	close(ends[i].fd);
	free(ends[i].buf);
	ends[i] = ends[--nends];
}

/* False: it is over. */
static bool echo_one(struct end *e)
{
	ssize_t n;

	if (e->at == e->n) {
		n = read(e->fd, e->buf, CHUNK);
		if (n == 0 || (n < 0 && errno != EAGAIN))
			return false;
		e->at = 0;
		e->n = n < 0 ? 0 : (size_t)n;
	}
	if (e->at < e->n) {
		n = write(e->fd, e->buf + e->at, e->n - e->at);
		if (n < 0 && errno != EAGAIN)
			return false;
		e->at += n < 0 ? 0 : (size_t)n;
	}
	return true;
}

static void echo(const char *text)
{
	static struct pollfd p[MAX_ENDS + 1];
	int l = listen_at(text);

	fcntl(l, F_SETFL, O_NONBLOCK);
	for (;;) {
		p[0] = (struct pollfd){l, nends < MAX_ENDS ? POLLIN : 0, 0};
		for (unsigned i = 0; i < nends; i++)
			p[i + 1] = (struct pollfd){ends[i].fd,
						   ends[i].at < ends[i].n ? POLLOUT : POLLIN, 0};
		if (poll(p, nends + 1, -1) < 0)
			die("poll");
		for (unsigned i = nends; i-- > 0;) {
			if (!p[i + 1].revents)
				continue;
			if (!echo_one(&ends[i]))
				drop(i);
		}
		for (int fd; p[0].revents && nends < MAX_ENDS && (fd = accept(l, NULL, NULL)) >= 0;)
			add(fd);
	}
}

static void sink(const char *text)
{
	static uint8_t buf[4 * CHUNK];
	int l = listen_at(text);

	for (;;) {
		int fd = accept(l, NULL, NULL);

		if (fd < 0)
			die("accept");
		while (read(fd, buf, sizeof(buf)) > 0)
			;
		close(fd);
	}
}

/* ---- load ---- */

static uint8_t next_byte(uint64_t *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return (uint8_t)(*s >> 24);
}

static void load_write(struct end *e)
{
	while (e->sent < e->size || e->at < e->n) {
		ssize_t n;

		if (e->at == e->n) {
			e->at = 0;
			e->n = e->size - e->sent < CHUNK ? e->size - e->sent : CHUNK;
			for (size_t i = 0; i < e->n; i++)
				e->buf[i] = next_byte(&e->out_seed);
			e->sent += e->n;
		}
		n = write(e->fd, e->buf + e->at, e->n - e->at);
		if (n < 0 && errno == EAGAIN)
			return;
		if (n < 0)
			die("write");
		e->at += (size_t)n;
	}
	if (!e->shut && shutdown(e->fd, SHUT_WR))
		die("shutdown");
	e->shut = true;
}

static void load_greeting(struct end *e)
{
	char c;

	while (e->greeting && read(e->fd, &c, 1) == 1) {
		if (e->got++ == 0 && c != 'O')
			fail("no OK", (unsigned char)c, 0);
		if (c == '\n')
			e->greeting = false;
	}
	if (!e->greeting)
		e->got = 0;
}

/* True: all came back, and then the end. */
static bool load_read(struct end *e)
{
	uint8_t buf[16384];
	ssize_t n;

	while ((n = read(e->fd, buf, sizeof(buf))) > 0) {
		for (ssize_t i = 0; i < n; i++, e->got++) {
			if (buf[i] != next_byte(&e->in_seed))
				fail("a wrong byte", e->got, e->size);
		}
	}
	if (n < 0 && errno == EAGAIN)
		return false;
	if (n < 0)
		die("read");
	if (e->got != e->size)
		fail("an early end", e->got, e->size);
	return true;
}

static void load(const char *text, unsigned n, uint64_t max, uint64_t seed)
{
	static struct pollfd p[MAX_ENDS];
	struct address a = parse(text);
	uint64_t total = 0;

	if (n > MAX_ENDS)
		fail("too many", n, MAX_ENDS);
	for (unsigned i = 0; i < n; i++) {
		struct end *e = add(connect_to(text, false));

		e->out_seed = e->in_seed = seed * 1000003 + i + 1;
		for (unsigned k = 0; k < 16; k++)
			next_byte(&e->out_seed);
		e->in_seed = e->out_seed;
		e->size = i % 16 == 0 ? i % 3 : e->out_seed % (max + 1);
		total += e->size;
		e->greeting = a.line[0];
		if (e->greeting && write(e->fd, a.line, strlen(a.line)) < 0)
			die("write");
	}
	while (nends) {
		for (unsigned i = 0; i < nends; i++)
			p[i] = (struct pollfd){
				ends[i].fd,
				(short)(POLLIN | (ends[i].shut || ends[i].greeting ? 0 : POLLOUT)),
				0};
		if (poll(p, nends, STALL_MS) <= 0)
			fail("nothing happens any more; connections left", nends, n);
		for (unsigned i = nends; i-- > 0;) {
			struct end *e = &ends[i];

			if (!p[i].revents)
				continue;
			if (e->greeting)
				load_greeting(e);
			if (e->greeting)
				continue;
			if (!e->shut)
				load_write(e);
			if (load_read(e))
				drop(i);
		}
	}
	printf("%u connections, %llu bytes, all came back\n", n, (unsigned long long)total);
}

/* ---- figures ---- */

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static void rtt(const char *text, unsigned n)
{
	uint64_t *t = calloc(n, sizeof(*t));
	int fd = connect_to(text, true);
	char c = 'x';

	for (unsigned i = 0; i < n; i++) {
		uint64_t begin = now_ns();

		if (write(fd, &c, 1) != 1 || read(fd, &c, 1) != 1)
			die("round trip");
		t[i] = now_ns() - begin;
	}
	qsort(t, n, sizeof(*t), by_value);
	printf("%llu\n", (unsigned long long)t[n / 2]);
}

static void send_bytes(const char *text, uint64_t bytes)
{
	static uint8_t buf[4 * CHUNK];
	int fd = connect_to(text, true);
	uint64_t begin = now_ns(), left = bytes;
	char c;

	while (left) {
		ssize_t n = write(fd, buf, left < sizeof(buf) ? left : sizeof(buf));

		if (n <= 0)
			die("write");
		left -= (uint64_t)n;
	}
	if (shutdown(fd, SHUT_WR) || read(fd, &c, 1) != 0)
		die("the end");
	printf("%.0f\n", (double)bytes * 1e9 / (double)(now_ns() - begin));
}

/* ---- bulk: every word names its place, so nothing can be left out or moved unseen ---- */

static uint64_t word_at(uint64_t seed, uint64_t at)
{
	return (seed << 48 | at / 8) * 0x9e3779b97f4a7c15u;
}

static bool give(int fd, uint64_t bytes, uint64_t seed)
{
	static uint64_t buf[CHUNK / 8];
	char c;

	for (uint64_t at = 0; at < bytes; at += CHUNK) {
		size_t len = bytes - at < CHUNK ? bytes - at : CHUNK, done = 0;

		for (size_t i = 0; i < CHUNK / 8; i++)
			buf[i] = word_at(seed, at + i * 8);
		while (done < len) {
			ssize_t n = write(fd, (char *)buf + done, len - done);

			if (n <= 0)
				return false;
			done += (size_t)n;
		}
	}
	return shutdown(fd, SHUT_WR) == 0 && read(fd, &c, 1) == 0;
}

static void source(const char *text, uint64_t bytes, uint64_t seed)
{
	int l = listen_at(text);

	for (;;) {
		int fd = accept(l, NULL, NULL);

		if (fd < 0)
			die("accept");
		puts("source begins");
		puts(give(fd, bytes, seed) ? "source given" : "source failed");
		close(fd);
	}
}

static int fetch(const char *text, uint64_t bytes, uint64_t seed)
{
	static uint64_t buf[CHUNK / 8];
	int fd = connect_patiently(text);
	uint64_t got = 0, word;
	ssize_t n;

	while ((n = read(fd, (char *)buf + got % 8, CHUNK - got % 8)) > 0) {
		size_t have = got % 8 + (size_t)n, whole = have / 8;

		if (got == 0)
			puts("fetch begins");
		for (size_t i = 0; i < whole; i++) {
			if (buf[i] != word_at(seed, got / 8 * 8 + i * 8)) {
				printf("fetch wrong after %llu bytes\n", (unsigned long long)got);
				return 2;
			}
		}
		word = buf[whole % (CHUNK / 8)];
		got += (size_t)n;
		buf[0] = word;
	}
	if (n < 0) {
		printf("fetch error after %llu bytes: %s\n", (unsigned long long)got,
		       strerror(errno));
		return 1;
	}
	if (got != bytes) {
		printf("fetch cut after %llu bytes\n", (unsigned long long)got);
		return 3;
	}
	puts("fetch whole");
	return 0;
}

int main(int argc, char **argv)
{
	const struct rlimit files = {MAX_ENDS + 64, MAX_ENDS + 64};
	const char *mode = argc > 2 ? argv[1] : "";

	setrlimit(RLIMIT_NOFILE, &files);
	setvbuf(stdout, NULL, _IOLBF, 0);
	signal(SIGPIPE, SIG_IGN);
	if (!strcmp(mode, "echo"))
		echo(argv[2]);
	else if (!strcmp(mode, "sink"))
		sink(argv[2]);
	else if (!strcmp(mode, "accept") && accept(listen_at(argv[2]), NULL, NULL) < 0)
		die("accept");
	else if (!strcmp(mode, "load") && argc == 6)
		load(argv[2], (unsigned)atoi(argv[3]), strtoull(argv[4], NULL, 10),
		     strtoull(argv[5], NULL, 10));
	else if (!strcmp(mode, "rtt") && argc == 4)
		rtt(argv[2], (unsigned)atoi(argv[3]));
	else if (!strcmp(mode, "send") && argc == 4)
		send_bytes(argv[2], strtoull(argv[3], NULL, 10));
	else if (!strcmp(mode, "source") && argc == 5)
		source(argv[2], strtoull(argv[3], NULL, 10), strtoull(argv[4], NULL, 10));
	else if (!strcmp(mode, "fetch") && argc == 5)
		return fetch(argv[2], strtoull(argv[3], NULL, 10), strtoull(argv[4], NULL, 10));
	else if (strcmp(mode, "accept") != 0)
		fail("usage: see the source", 0, 0);
	return 0;
}
