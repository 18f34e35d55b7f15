/* SPDX-License-Identifier: BSD-2-Clause */
/* What stands between a library of a module and its socket: src/modules/stream.h. */
#include <check.h>
#include <fcntl.h>
#include <stdlib.h>

/* A module is no room: nothing else has its functions. */
#include "modules/stream.c"

static struct stream s;
static int peer;

static void begin(void)
{
	int p[2];

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, p), 0);
	stream_begin(&s, p[0]);
	peer = p[1];
}

static void end(void)
{
	close(s.fd);
	if (peer >= 0)
		close(peer);
}

/* What byte `at` of all that is sent is. */
static uint8_t byte_at(size_t at)
{
	return (uint8_t)(at * 31 + (at >> 8) * 7 + (at >> 16));
}

static void put_bytes(uint8_t *p, size_t from, size_t n)
{
	for (size_t i = 0; i < n; i++)
		p[i] = byte_at(from + i);
}

static bool has_bytes(const uint8_t *p, size_t from, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (p[i] != byte_at(from + i))
			return false;
	return true;
}

static ssize_t send_one(const void *p, size_t n)
{
	const struct iovec v = {.iov_base = (void *)(uintptr_t)p, .iov_len = n};

	return stream_send(&s, &v, 1);
}

START_TEST(sends_at_once)
{
	uint8_t all[300], got[512];

	begin();
	put_bytes(all, 0, sizeof(all));
	for (size_t i = 0; i < sizeof(all); i += 28)
		ck_assert_int_gt(send_one(all + i, sizeof(all) - i < 28 ? sizeof(all) - i : 28), 0);
	/* Nothing has left. */
	ck_assert_int_eq(recv(peer, got, sizeof(got), 0), -1);
	ck_assert_int_eq(stream_flush(&s), 0);
	ck_assert_int_eq(recv(peer, got, sizeof(got), 0), (int)sizeof(all));
	ck_assert(has_bytes(got, 0, sizeof(all)));
	ck_assert_int_eq(stream_flush(&s), 0);
	ck_assert_int_eq(recv(peer, got, sizeof(got), 0), -1);
	end();
}
END_TEST

/* Lengths around all of its bounds. */
static const size_t lengths[] = {
	1,
	28,
	AHEAD - 1,
	AHEAD,
	DIRECT,
	4096,
	LONG - 1,
	LONG,
	LONG + 1,
	STREAM_ROOM / 2,
	STREAM_ROOM,
	STREAM_ROOM + 1,
	3 * STREAM_ROOM,
};

static size_t some_length(unsigned *seed)
{
	*seed = *seed * 1103515245u + 12345u;
	return lengths[(*seed >> 16) % (sizeof(lengths) / sizeof(lengths[0]))];
}

/* Whatever is sent in whatever pieces, to a peer that is slower: in order, once. */
START_TEST(sends_all)
{
	static uint8_t out[3 * STREAM_ROOM], in[8192];
	size_t sent = 0, got = 0;
	unsigned seed = (unsigned)_i;

	begin();
	while (sent < 4 * 1024 * 1024 || got < sent) {
		size_t n = some_length(&seed);
		ssize_t k;

		put_bytes(out, sent, n);
		k = sent < 4 * 1024 * 1024 ? send_one(out, n) : 0;
		ck_assert(k >= 0 || errno == EAGAIN);
		sent += k > 0 ? (size_t)k : 0;
		if (seed & 1 << 20 || k <= 0)
			ck_assert(stream_flush(&s) == 0 || s.out_len);
		k = recv(peer, in, sizeof(in), 0);
		ck_assert(k < 0 || has_bytes(in, got, (size_t)k));
		got += k > 0 ? (size_t)k : 0;
	}
	ck_assert_uint_eq(got, sent);
	end();
}
END_TEST

/* The pieces that are asked for are not those that come. */
START_TEST(reads_all)
{
	static uint8_t out[3 * STREAM_ROOM], in[3 * STREAM_ROOM];
	size_t sent = 0, got = 0;
	unsigned seed = (unsigned)_i;

	begin();
	while (got < 4 * 1024 * 1024) {
		size_t n = some_length(&seed);
		ssize_t k;

		put_bytes(out, sent, n);
		k = send(peer, out, n, 0);
		sent += k > 0 ? (size_t)k : 0;
		n = some_length(&seed);
		k = stream_recv(&s, in, n);
		ck_assert(k > 0 || (k < 0 && errno == EAGAIN && got == sent));
		ck_assert(k < 0 || ((size_t)k <= n && has_bytes(in, got, (size_t)k)));
		got += k > 0 ? (size_t)k : 0;
		ck_assert_int_eq(stream_fill(&s), got < sent);
	}
	end();
}
END_TEST

/* What is long is not copied: all of it, and no more than the next header ahead. */
START_TEST(long_pieces)
{
	static uint8_t out[2 * LONG + 64], in[2 * LONG];

	begin();
	put_bytes(out, 0, sizeof(out));
	ck_assert_int_eq(send(peer, out, sizeof(out), 0), (int)sizeof(out));
	ck_assert_int_eq(stream_recv(&s, in, 2 * LONG), 2 * LONG);
	ck_assert(has_bytes(in, 0, 2 * LONG) && s.in_len == 64);
	ck_assert_int_eq(send(peer, out, 4096, 0), 4096);
	ck_assert_int_eq(stream_recv(&s, in, 64), 64);
	ck_assert(stream_fill(&s) && s.in_len == AHEAD);
	ck_assert_int_eq(stream_recv(&s, in, 4096), 4096);
	ck_assert(has_bytes(in, 0, 4096));
	/* It has become short again. */
	ck_assert_int_eq(send(peer, out, 4096, 0), 4096);
	ck_assert(stream_fill(&s) && s.in_len == 4096);
	end();
}
END_TEST

START_TEST(ends)
{
	uint8_t in[8];

	begin();
	ck_assert(!stream_fill(&s));
	ck_assert_int_eq(stream_recv(&s, in, 8), -1);
	ck_assert_int_eq(errno, EAGAIN);
	ck_assert_int_eq(send(peer, "abc", 3, 0), 3);
	close(peer);
	peer = -1;
	ck_assert(stream_fill(&s));
	ck_assert_int_eq(stream_recv(&s, in, 2), 2);
	ck_assert_int_eq(stream_recv(&s, in, 8), 1);
	ck_assert(stream_fill(&s));
	ck_assert_int_eq(stream_recv(&s, in, 8), 0);
	ck_assert(stream_fill(&s));
	/* What it took is lost with the connection, and that is said. */
	ck_assert_int_eq(send_one("x", 1), 1);
	ck_assert_int_eq(stream_flush(&s), -EPIPE);
	ck_assert_int_eq(stream_flush(&s), 0);
	end();
}
END_TEST

/* The peer has gone and has not read: an error, once what it had sent is read. */
START_TEST(fails)
{
	uint8_t in[8];

	begin();
	ck_assert_int_eq(send_one("x", 1), 1);
	ck_assert_int_eq(stream_flush(&s), 0);
	close(peer);
	peer = -1;
	ck_assert(stream_fill(&s));
	ck_assert_int_eq(stream_recv(&s, in, 8), -1);
	ck_assert_int_eq(errno, ECONNRESET);
	ck_assert_int_eq(stream_recv(&s, in, 8), -1);
	end();
	/* The next one begins without it. */
	begin();
	ck_assert(!stream_fill(&s));
	end();
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("stream");
	TCase *t = tcase_create("stream");
	SRunner *r;
	int failed_tests;

	tcase_add_test(t, sends_at_once);
	tcase_add_loop_test(t, sends_all, 1, 9);
	tcase_add_loop_test(t, reads_all, 1, 9);
	tcase_add_test(t, long_pieces);
	tcase_add_test(t, ends);
	tcase_add_test(t, fails);
	suite_add_tcase(suite, t);
	r = srunner_create(suite);
	srunner_run_all(r, CK_ENV);
	failed_tests = srunner_ntests_failed(r);
	srunner_free(r);
	return failed_tests ? EXIT_FAILURE : EXIT_SUCCESS;
}
