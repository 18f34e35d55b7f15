/* SPDX-License-Identifier: BSD-2-Clause */
/* The codec of the guest protocol: frames in pieces, every frame that must be refused, GP_START. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>
#include <insula/guestproto.h>

#include "host.h"

/* ---- frames ---- */

/* Feed `n` bytes, `step` at a time. The number of whole frames, or the first error. */
static int feed(struct gp_in *in, const uint8_t *buf, size_t n, size_t step, enum gp_side from)
{
	int frames = 0;

	while (n) {
		uint8_t *at;
		size_t want = gp_in_want(in, &at);
		int rc;

		ck_assert_uint_gt(want, 0);
		want = want < step ? want : step;
		want = want < n ? want : n;
		memcpy(at, buf, want);
		rc = gp_in_got(in, want, from);
		if (rc < 0)
			return rc;
		frames += rc;
		buf += want;
		n -= want;
	}
	return frames;
}

/* Everything that waits, as a connection would take it, at most `step` bytes at a time. */
static size_t take(struct gp_out *o, uint8_t *buf, size_t step)
{
	const uint8_t *at;
	size_t n, total = 0;

	while ((n = gp_out_piece(o, &at)) > 0) {
		n = n < step ? n : step;
		memcpy(buf + total, at, n);
		gp_out_sent(o, n);
		total += n;
	}
	return total;
}

static void put_data(struct gp_out *o, enum gp_type type, int c, uint32_t n)
{
	ck_assert_uint_ge(gp_data_max(o), n);
	memset(gp_data_at(o), c, n);
	gp_put_data(o, type, n);
}

START_TEST(frames_in_pieces)
{
	static struct gp_out o;
	static uint8_t body[GP_DATA_MAX], buf[GP_REPLAY];
	struct gp_hello hello = {.magic = GP_MAGIC, .version = GP_VERSION, .id = 1};
	struct gp_in in;

	for (size_t step = 1; step < 70000; step = step * 3 + 1) {
		size_t n;

		gp_out_init(&o, 0);
		put_data(&o, GP_STDIN, 'x', GP_DATA_MAX);
		ck_assert_uint_eq(gp_data_max(&o), 0);
		ck_assert_int_eq(gp_put_own(&o, GP_HELLO, &hello, sizeof(hello)), 0);
		ck_assert_int_eq(gp_put(&o, GP_STDIN_END, NULL, 0), 0);
		ck_assert(gp_out_waits(&o));
		n = take(&o, buf, step);
		ck_assert(!gp_out_waits(&o));
		gp_in_init(&in, body, sizeof(body));
		ck_assert_int_eq(feed(&in, buf, n, step, GP_HOST), 3);
		ck_assert_uint_eq(in.hdr.type, GP_STDIN_END);
		ck_assert_uint_eq(in.received, o.head); /* the hello is not counted */
	}
}
END_TEST

/* What one connection has lost comes over the next one, each frame once, whatever was under way. */
START_TEST(another_connection)
{
	static struct gp_out o;
	static uint8_t body[GP_DATA_MAX], buf[GP_REPLAY];
	struct gp_in in;
	uint64_t dice = 1;
	uint32_t sent = 0, got = 0;

	gp_out_init(&o, 500);
	gp_in_init(&in, body, sizeof(body));
	in.received = in.acked = 500;
	while (got < 3000) {
		const uint8_t *at;
		size_t n, cut;

		while (gp_out_ready(&o) && sent < 3000) {
			if (sent % 7 == 0 && gp_data_max(&o) >= sizeof(sent)) {
				memcpy(gp_data_at(&o), &sent, sizeof(sent));
				gp_put_data(&o, GP_STDOUT, sizeof(sent));
			} else if (gp_put(&o, GP_STDERR, &sent, sizeof(sent))) {
				break;
			}
			sent++;
		}
		for (n = 0; n < 2000 && gp_out_waits(&o); n += cut) {
			cut = gp_out_piece(&o, &at);
			cut = cut < 5 ? cut : 1 + (size_t)host_random(&dice) % cut;
			memcpy(buf + n, at, cut);
			gp_out_sent(&o, cut);
		}
		cut = (size_t)host_random(&dice) % (n + 1); /* so much arrives, then it ends */
		for (size_t i = 0; i < cut; i++) {
			uint8_t *to;
			int rc;

			gp_in_want(&in, &to);
			*to = buf[i];
			rc = gp_in_got(&in, 1, GP_GUEST);
			ck_assert_int_ge(rc, 0);
			if (rc) {
				ck_assert_mem_eq(body, &got, sizeof(got));
				got++;
			}
		}
		gp_in_restart(&in);
		ck_assert_int_eq(gp_out_restart(&o, in.received), 0);
	}
	ck_assert_uint_eq(got, 3000);
}
END_TEST

START_TEST(acknowledged)
{
	static struct gp_out o;
	static uint8_t body[64], buf[GP_REPLAY];
	struct gp_in in;
	unsigned n = 0;

	gp_out_init(&o, 100);
	ck_assert_int_eq(gp_out_acked(&o, 99), -EPROTO);
	ck_assert_int_eq(gp_out_acked(&o, 101), -EPROTO);
	/* Data stops before there is no room for the small frames. */
	while (gp_data_max(&o)) {
		put_data(&o, GP_STDOUT, 'x', gp_data_max(&o));
		take(&o, buf, SIZE_MAX);
		n++;
	}
	ck_assert_uint_ge(n, 3);
	ck_assert(gp_out_ready(&o));
	ck_assert_int_eq(gp_out_acked(&o, o.sent), 0);
	ck_assert_int_eq(gp_out_acked(&o, o.sent - 1), -EPROTO);
	ck_assert_int_eq(gp_out_restart(&o, o.sent + 1), -EPROTO);
	ck_assert_uint_gt(gp_data_max(&o), 0);

	gp_in_init(&in, body, sizeof(body));
	in.received = GP_ACK_EVERY - 1;
	gp_acknowledge(&in, &o, GP_ACK_EVERY);
	ck_assert(!gp_out_waits(&o));
	in.received++;
	gp_acknowledge(&in, &o, GP_ACK_EVERY);
	ck_assert_uint_eq(take(&o, buf, SIZE_MAX), GP_HDR_LEN + sizeof(struct gp_ack));
	gp_acknowledge(&in, &o, 1);
	ck_assert(!gp_out_waits(&o));
}
END_TEST

/* A frame of the connection goes ahead of what waits, but not into the middle of a frame. */
START_TEST(own_frames)
{
	static struct gp_out o;
	static uint8_t body[64], buf[GP_REPLAY];
	const struct gp_ack m = {0};
	struct gp_in in;
	const uint8_t *at;
	size_t n = 0;

	gp_out_init(&o, 0);
	ck_assert_int_eq(gp_put(&o, GP_STDOUT, "abc", 3), 0);
	ck_assert_int_eq(gp_put(&o, GP_STDOUT, "def", 3), 0);
	ck_assert_uint_eq(gp_out_piece(&o, &at), GP_HDR_LEN + 3);
	memcpy(buf, at, 2);
	gp_out_sent(&o, 2);
	while (gp_put_own(&o, GP_ACK, &m, sizeof(m)) == 0)
		n++;
	ck_assert_uint_eq(n, GP_OUT_OWN / (GP_HDR_LEN + sizeof(m)));
	n = 2 + take(&o, buf + 2, SIZE_MAX);
	gp_in_init(&in, body, sizeof(body));
	ck_assert_int_eq(feed(&in, buf, GP_HDR_LEN + 3, 1, GP_GUEST), 1);
	ck_assert_mem_eq(body, "abc", 3);
	ck_assert_int_eq(feed(&in, buf + GP_HDR_LEN + 3, GP_HDR_LEN + sizeof(m), 1, GP_GUEST), 1);
	ck_assert_uint_eq(in.hdr.type, GP_ACK);
	ck_assert_int_ge(feed(&in, buf + 2 * GP_HDR_LEN + 3 + sizeof(m),
			      n - 2 * GP_HDR_LEN - 3 - sizeof(m), 1, GP_GUEST),
			 1);
	ck_assert_mem_eq(body, "def", 3);
}
END_TEST

START_TEST(small_frames_fill_the_ring)
{
	static struct gp_out o;
	static uint8_t buf[GP_REPLAY];
	struct gp_exit x = {.kind = GP_EXIT_CODE};
	unsigned n = 0;

	gp_out_init(&o, 0);
	while (gp_put(&o, GP_PONG, NULL, 0) == 0)
		n++;
	ck_assert_uint_eq(n, GP_REPLAY / GP_HDR_LEN);
	ck_assert(!gp_out_ready(&o));
	ck_assert_int_eq(gp_put(&o, GP_EXIT, &x, sizeof(x)), -ENOSPC);
	take(&o, buf, SIZE_MAX);
	ck_assert(!gp_out_ready(&o)); /* sent is not received */
	ck_assert_int_eq(gp_out_acked(&o, o.sent), 0);
	ck_assert(gp_out_ready(&o));
	ck_assert_int_eq(gp_put(&o, GP_EXIT, &x, sizeof(x)), 0);
	ck_assert_int_eq(gp_put(&o, GP_EXIT, &x, UINT32_MAX), -ENOSPC);
}
END_TEST

static const struct {
	struct gp_hdr h;
	enum gp_side from;
} refused[] = {
	{{0, 0, 0}, GP_HOST},
	{{0, 14, 0}, GP_HOST},
	{{sizeof(struct gp_resumed) + 2, GP_RESUMED, 0}, GP_HOST},
	{{GP_RESUMED_MAX + 1, GP_RESUMED, 0}, GP_HOST},
	{{sizeof(struct gp_resumed) + 3, GP_RESUMED, 0}, GP_GUEST},
	{{0, 0xffff, 0}, GP_GUEST},
	{{24, GP_HELLO, 1}, GP_HOST},
	{{23, GP_HELLO, 0}, GP_HOST},
	{{25, GP_HELLO, 0}, GP_GUEST},
	{{0, GP_HANGUP, 0}, GP_GUEST},
	{{7, GP_ACK, 0}, GP_HOST},
	{{0, GP_STDIN, 0}, GP_HOST},
	{{GP_DATA_MAX + 1, GP_STDIN, 0}, GP_HOST},
	{{1, GP_STDIN, 0}, GP_GUEST},
	{{1, GP_STDOUT, 0}, GP_HOST},
	{{0, GP_STDOUT, 0}, GP_GUEST},
	{{UINT32_MAX, GP_STDERR, 0}, GP_GUEST},
	{{1, GP_STDIN_END, 0}, GP_HOST},
	{{GP_START_MAX + 1, GP_START, 0}, GP_HOST},
	{{sizeof(struct gp_start) + 1, GP_START, 0}, GP_HOST},
	{{sizeof(struct gp_exit), GP_EXIT, 0}, GP_HOST},
	{{sizeof(struct gp_exit) - 1, GP_EXIT, 0}, GP_GUEST},
	{{sizeof(struct gp_signal), GP_SIGNAL, 0}, GP_GUEST},
};

START_TEST(refused_frames)
{
	struct gp_in in;
	uint8_t body[64];

	ck_assert_int_eq(gp_check(&refused[_i].h, refused[_i].from), -EPROTO);
	gp_in_init(&in, body, sizeof(body));
	ck_assert_int_eq(
		feed(&in, (const uint8_t *)&refused[_i].h, GP_HDR_LEN, 3, refused[_i].from),
		-EPROTO);
}
END_TEST

/* Allowed by the protocol, but more than this receiver has room for. */
START_TEST(frame_without_room)
{
	const struct gp_hdr h = {.len = 65, .type = GP_STDIN};
	struct gp_in in;
	uint8_t body[64];

	ck_assert_int_eq(gp_check(&h, GP_HOST), 0);
	gp_in_init(&in, body, sizeof(body));
	ck_assert_int_eq(feed(&in, (const uint8_t *)&h, GP_HDR_LEN, 8, GP_HOST), -EPROTO);
}
END_TEST

/* ---- GP_START ---- */

static char *const args[] = {"sh", "-c", "", NULL};
static char *const vars[] = {"A=1", "B=", NULL};

START_TEST(start_round_trip)
{
	struct gp_start s = {.flags = GP_START_TTY, .uid = 7, .gid = 8, .rows = 3, .cols = 4}, got;
	static uint8_t body[GP_START_MAX];
	static char *argv[GP_ARGS_MAX + 1], *env[GP_ARGS_MAX + 1];
	char *cwd, *user;
	int n = gp_start_build(body, sizeof(body), &s, "/tmp", NULL, args, vars);

	ck_assert_int_gt(n, 0);
	ck_assert_int_eq(gp_start_check(body, (size_t)n, &got), 0);
	ck_assert_uint_eq(got.argc, 3);
	ck_assert_uint_eq(got.envc, 2);
	ck_assert_uint_eq(got.uid, 7);
	ck_assert_uint_eq(got.cols, 4);
	gp_start_strings(body, &cwd, &user, argv, env);
	ck_assert_str_eq(cwd, "/tmp");
	for (unsigned i = 0; i < 3; i++)
		ck_assert_str_eq(argv[i], args[i]);
	ck_assert_ptr_null(argv[3]);
	ck_assert_str_eq(env[1], "B=");
	ck_assert_ptr_null(env[2]);
	ck_assert_ptr_null(user);
	/* Every shorter or longer one is refused. */
	for (int i = 0; i < n; i++)
		ck_assert_int_eq(gp_start_check(body, (size_t)i, &got), -EPROTO);
	ck_assert_int_eq(gp_start_check(body, (size_t)n + 1, &got), -EPROTO);
}
END_TEST

START_TEST(start_with_a_name)
{
	struct gp_start s = {.uid = 7, .gid = 8}, got;
	static uint8_t body[GP_START_MAX];
	static char *argv[GP_ARGS_MAX + 1], *env[GP_ARGS_MAX + 1];
	char *cwd, *user;
	int n = gp_start_build(body, sizeof(body), &s, "/", "www-data:adm", args, vars);

	ck_assert_int_gt(n, 0);
	ck_assert_int_eq(gp_start_check(body, (size_t)n, &got), 0);
	ck_assert_uint_eq(got.flags, GP_START_USER);
	gp_start_strings(body, &cwd, &user, argv, env);
	ck_assert_str_eq(user, "www-data:adm");
	ck_assert_str_eq(env[1], "B=");
	ck_assert_ptr_null(env[2]);
	/* No user is not an empty one. */
	n = gp_start_build(body, sizeof(body), &s, "/", "x", args, NULL);
	body[n - 2] = 0;
	ck_assert_int_eq(gp_start_check(body, (size_t)n - 1, &got), -EPROTO);
	n = gp_start_build(body, sizeof(body), &s, "/", "", args, NULL);
	ck_assert_int_eq(gp_start_check(body, (size_t)n, &got), 0);
	ck_assert_uint_eq(got.flags, 0);
}
END_TEST

START_TEST(start_refused)
{
	struct gp_start s = {.argc = 0}, got;
	static uint8_t body[GP_START_MAX];
	int n = gp_start_build(body, sizeof(body), &s, "/", NULL, args, NULL);

	ck_assert_int_gt(n, 0);
	memcpy(&s, body, sizeof(s));
	s.argc = 0;
	memcpy(body, &s, sizeof(s));
	ck_assert_int_eq(gp_start_check(body, (size_t)n, &got), -EPROTO);
	s.argc = GP_ARGS_MAX + 1;
	memcpy(body, &s, sizeof(s));
	ck_assert_int_eq(gp_start_check(body, (size_t)n, &got), -EPROTO);
	s.argc = UINT32_MAX;
	s.envc = 4; /* the sum wraps to what is there */
	memcpy(body, &s, sizeof(s));
	ck_assert_int_eq(gp_start_check(body, (size_t)n, &got), -EPROTO);
	s.argc = 3;
	s.envc = 0;
	s.flags = 8;
	memcpy(body, &s, sizeof(s));
	ck_assert_int_eq(gp_start_check(body, (size_t)n, &got), -EPROTO);
	s.flags = GP_START_ONLY;
	memcpy(body, &s, sizeof(s));
	ck_assert_int_eq(gp_start_check(body, (size_t)n, &got), 0);
}
END_TEST

START_TEST(start_limits)
{
	static char *many[GP_ARGS_MAX + 2];
	static uint8_t body[GP_START_MAX];
	static char big[GP_START_MAX];
	char *const one[] = {big, NULL}, *const none[] = {NULL};
	struct gp_start s = {0};

	for (unsigned i = 0; i <= GP_ARGS_MAX; i++)
		many[i] = "x";
	ck_assert_int_eq(gp_start_build(body, sizeof(body), &s, "/", NULL, many, NULL), -E2BIG);
	ck_assert_int_eq(gp_start_build(body, sizeof(body), &s, "/", NULL, args, many), -E2BIG);
	many[GP_ARGS_MAX] = NULL;
	ck_assert_int_gt(gp_start_build(body, sizeof(body), &s, "/", NULL, many, many), 0);
	ck_assert_int_eq(gp_start_build(body, sizeof(body), &s, "/", NULL, none, NULL), -EINVAL);
	memset(big, 'a', sizeof(big) - 1);
	ck_assert_int_eq(gp_start_build(body, sizeof(body), &s, "/", NULL, one, NULL), -E2BIG);
	ck_assert_int_eq(gp_start_build(body, 4, &s, "/", NULL, args, NULL), -E2BIG);
}
END_TEST

/* ---- GP_RESUMED ---- */

#define ID "0123456789abcdef0123456789abcdef"
#define MAC1 "52:54:00:aB:cd:01"
#define MAC2 "52:54:00:00:00:02"

static const char *const names[] = {"a clone", "clone-1.example", ID, MAC1 "," MAC2,
				    MAC2 "," MAC1 ",ip=10.0.0.2/24,gw=10.0.0.1,dns=9.9.9.9"};

START_TEST(resumed_round_trip)
{
	struct gp_resumed r = {.flags = GP_RESUMED_CLOCK, .ncards = 2, .clock_ns = 42}, got;
	char *s[GP_RESUMED_NAMES + GP_CARDS_MAX];
	uint8_t body[GP_RESUMED_MAX + 1];
	int n;

	memset(r.seed, 7, sizeof(r.seed));
	n = gp_resumed_build(body, sizeof(body), &r, names);
	ck_assert_int_gt(n, 0);
	ck_assert_int_eq(gp_resumed_check(body, (size_t)n, &got), 0);
	ck_assert_mem_eq(&got, &r, sizeof(r));
	gp_resumed_strings(body, s);
	for (unsigned i = 0; i < 5; i++)
		ck_assert_str_eq(s[i], names[i]);
	for (unsigned i = 5; i < ARRAY_LEN(s); i++)
		ck_assert_ptr_null(s[i]);
	for (int i = 0; i < n; i++)
		ck_assert_int_eq(gp_resumed_check(body, (size_t)i, &got), -EPROTO);
	body[n] = 0;
	ck_assert_int_eq(gp_resumed_check(body, (size_t)n + 1, &got), -EPROTO);
	/* Without anything. */
	r = (struct gp_resumed){0};
	n = gp_resumed_build(body, sizeof(body), &r, (const char *const[]){"", "", ""});
	ck_assert_int_eq(n, sizeof(r) + 3);
	ck_assert_int_eq(gp_resumed_check(body, (size_t)n, &got), 0);
}
END_TEST

static const struct {
	unsigned nth;
	const char *s;
	bool ok;
} resumed_string[] = {
	{0, "", true},
	{0, "two\nlines", false},
	{0, "\033[2J", false},
	{0, "\xc3\xa4", true},
	{1, "", true},
	{1, "a", true},
	{1, "a b", false},
	{1, ".a", false},
	{1, "-a", false},
	{1, "a/../b", false},
	{1, ID ID, true},
	{1, ID ID "a", false},
	{2, "", true},
	{2, ID "0", false},
	{2, "0123456789ABCDEF0123456789abcdef", false},
	{2, "0123456789abcdef", false},
	{3, MAC1 "," MAC2 ",", true},
	{3, MAC1 "," MAC2 ",dhcp", true},
	{3, "", false},
	{3, MAC1, false},
	{3, MAC1 ",", false},
	{3, MAC1 "," MAC2 "0", false},
	{3, MAC1 ":" MAC2, false},
	{3, "52:54:00:00:00:0g," MAC2, false},
	{3, "52:54:00:00:00,52:54:00:00:00:02", false},
	{3, MAC1 "," MAC2 ",dns=1.1.1.1\nevil", false},
};

START_TEST(resumed_strings)
{
	const struct gp_resumed r = {.ncards = 1};
	const char *s[] = {"", "", "", MAC1 "," MAC2};
	uint8_t body[GP_RESUMED_MAX];
	int n;

	s[resumed_string[_i].nth] = resumed_string[_i].s;
	n = gp_resumed_build(body, sizeof(body), &r, s);
	if (resumed_string[_i].ok)
		ck_assert_int_gt(n, 0);
	else
		ck_assert_int_eq(n, -EINVAL);
}
END_TEST

START_TEST(resumed_refused)
{
	struct gp_resumed r = {.ncards = 2}, got;
	uint8_t body[GP_RESUMED_MAX];
	char big[GP_RESUMED_MAX];
	int n = gp_resumed_build(body, sizeof(body), &r, names);
	static const uint32_t ncards[] = {0, 1, 3, GP_CARDS_MAX + 1, UINT32_MAX - 2};

	ck_assert_int_gt(n, 0);
	for (unsigned i = 0; i < ARRAY_LEN(ncards); i++) {
		memcpy(body + offsetof(struct gp_resumed, ncards), &ncards[i], 4);
		ck_assert_int_eq(gp_resumed_check(body, (size_t)n, &got), -EPROTO);
	}
	memcpy(body, &(struct gp_resumed){.flags = 2, .ncards = 2}, sizeof(r));
	ck_assert_int_eq(gp_resumed_check(body, (size_t)n, &got), -EPROTO);
	/* As many cards as there can be, and as long as it can be: one byte more is too much. */
	r.ncards = GP_CARDS_MAX;
	{
		const char *s[GP_RESUMED_NAMES + GP_CARDS_MAX] = {big, "", ""};
		size_t rest = GP_RESUMED_MAX - sizeof(r) - 2 - GP_CARDS_MAX * sizeof(MAC1 "," MAC2);

		for (unsigned i = 0; i < GP_CARDS_MAX; i++)
			s[GP_RESUMED_NAMES + i] = MAC1 "," MAC2;
		memset(big, 'a', sizeof(big));
		big[rest] = 0;
		ck_assert_int_eq(gp_resumed_build(body, sizeof(body), &r, s), -E2BIG);
		big[rest - 1] = 0;
		ck_assert_int_eq(gp_resumed_build(body, sizeof(body), &r, s), GP_RESUMED_MAX);
		ck_assert_int_eq(gp_resumed_check(body, sizeof(body), &got), 0);
		for (size_t i = sizeof(r); i < sizeof(body); i++) {
			uint8_t was = body[i];

			/* A NUL more or less: the number of strings is wrong, or one of them. */
			body[i] = was ? 0 : 'a';
			ck_assert_int_eq(gp_resumed_check(body, sizeof(body), &got), -EPROTO);
			body[i] = was;
		}
		ck_assert_int_eq(gp_resumed_check(body, SIZE_MAX / 2, &got), -EPROTO);
		ck_assert_int_eq(gp_resumed_check(body, 0, &got), -EPROTO);
	}
	memset(big, 'a', sizeof(big) - 1);
	big[sizeof(big) - 1] = 0;
	r.ncards = 0;
	ck_assert_int_eq(
		gp_resumed_build(body, sizeof(body), &r, (const char *const[]){big, "", ""}),
		-E2BIG);
	ck_assert_int_eq(gp_resumed_build(body, 79, &r, names), -E2BIG);
	r.ncards = GP_CARDS_MAX + 1;
	ck_assert_int_eq(gp_resumed_build(body, sizeof(body), &r, names), -EINVAL);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("guestproto");
	TCase *t = tcase_create("frames");
	SRunner *r;
	int failed;

	tcase_add_test(t, frames_in_pieces);
	tcase_add_test(t, small_frames_fill_the_ring);
	tcase_add_test(t, own_frames);
	tcase_add_test(t, acknowledged);
	tcase_add_test(t, another_connection);
	tcase_add_loop_test(t, refused_frames, 0, (int)ARRAY_LEN(refused));
	tcase_add_test(t, frame_without_room);
	suite_add_tcase(s, t);
	t = tcase_create("start");
	tcase_add_test(t, start_round_trip);
	tcase_add_test(t, start_with_a_name);
	tcase_add_test(t, start_refused);
	tcase_add_test(t, start_limits);
	suite_add_tcase(s, t);
	t = tcase_create("resumed");
	tcase_add_test(t, resumed_round_trip);
	tcase_add_loop_test(t, resumed_strings, 0, (int)ARRAY_LEN(resumed_string));
	tcase_add_test(t, resumed_refused);
	suite_add_tcase(s, t);
	r = srunner_create(s);
	srunner_run_all(r, CK_ENV);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
