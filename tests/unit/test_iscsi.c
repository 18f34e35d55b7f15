/* SPDX-License-Identifier: BSD-2-Clause */
/* What the module iscsi lets through to libiscsi: src/modules/iscsi/filter.h. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

/* A module is no room: nothing else has its functions. */
#include "modules/iscsi/filter.c"

/* A header of `op` with `len` bytes behind it. */
static size_t put_header(uint8_t *p, uint8_t op, uint32_t len)
{
	memset(p, 0, FILTER_HEADER);
	p[0] = op;
	p[5] = (uint8_t)(len >> 16);
	p[6] = (uint8_t)(len >> 8);
	p[7] = (uint8_t)len;
	return FILTER_HEADER;
}

static size_t put_ask(uint8_t *p, uint32_t want)
{
	size_t n = put_header(p, OP_R2T, 0);

	for (unsigned i = 0; i < 4; i++)
		p[44 + i] = (uint8_t)(want >> (24 - 8 * i));
	return n;
}

static size_t put_login(uint8_t *p, const char *text, size_t len)
{
	size_t n = put_header(p, OP_LOGIN, (uint32_t)len);

	memcpy(p + n, text, len);
	memset(p + n + len, 0, 3);
	return n + ((len + 3) & ~(size_t)3);
}

/* All of it at once, then in pieces of each size: the same answer. */
static const char *answer_to(const uint8_t *p, size_t n)
{
	static struct filter f;
	const char *why = NULL;

	for (size_t piece = n; piece; piece--) {
		bool good = true;

		filter_begin(&f);
		for (size_t at = 0; at < n && good; at += piece)
			good = filter_bytes(&f, p + at, MIN_OF(piece, n - at));
		ck_assert_int_eq(good, !f.why);
		ck_assert(piece == n || f.why == why);
		why = f.why;
	}
	return why;
}

START_TEST(asks)
{
	static const struct {
		uint32_t want;
		bool good;
	} all[] = {{0, false},
		   {1, true},
		   {4096, true},
		   {FILTER_BURST, true},
		   {FILTER_BURST + 1, false},
		   {UINT32_MAX, false}};
	static struct filter f;
	uint8_t p[2 * FILTER_HEADER];

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		ck_assert_int_eq(!answer_to(p, put_ask(p, all[i].want)), all[i].good);
	filter_begin(&f);
	(void)put_ask(p, 512);
	for (unsigned turn = 0; turn < 2; turn++) {
		for (unsigned i = 0; i < FILTER_ASKS; i++)
			ck_assert(filter_bytes(&f, p, FILTER_HEADER));
		filter_turn(&f);
	}
	for (unsigned i = 0; i < FILTER_ASKS; i++)
		ck_assert(filter_bytes(&f, p, FILTER_HEADER));
	ck_assert(!filter_bytes(&f, p, FILTER_HEADER));
}
END_TEST

static const char *login(const char *text, size_t len)
{
	static uint8_t p[FILTER_HEADER + FILTER_TEXT + 8];

	return answer_to(p, put_login(p, text, len));
}

START_TEST(logins)
{
	static const struct {
		const char *text;
		size_t len;
		bool good;
	} all[] = {
#define TEXT(t, good) {t, sizeof(t) - 1, good}
		TEXT("", true),
		TEXT("AuthMethod=None\0TargetPortalGroupTag=1\0", true),
		TEXT("MaxRecvDataSegmentLength=8192\0HeaderDigest=None\0", true),
		TEXT("MaxRecvDataSegmentLength=4096\0", true),
		TEXT("MaxRecvDataSegmentLength=4095\0", false),
		TEXT("MaxRecvDataSegmentLength=0\0", false),
		TEXT("MaxRecvDataSegmentLength=-1\0", false),
		TEXT("MaxRecvDataSegmentLength=\0", false),
		TEXT("A=B\0MaxRecvDataSegmentLength=0\0", false),
		TEXT("A=B\0\0MaxRecvDataSegmentLength=0\0", false),
		TEXT("MaxRecvDataSegmentLength=0", false), /* no NUL */
		TEXT("HeaderDigest=CRC32C\0", false),
		TEXT("HeaderDigest=CRC32C,None\0", false),
	};

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		ck_assert_msg(!login(all[i].text, all[i].len) == all[i].good, "%zu: %s", i,
			      all[i].text);
}
END_TEST

START_TEST(long_logins)
{
	static uint8_t p[FILTER_HEADER];
	static struct filter f;

	filter_begin(&f);
	ck_assert(filter_bytes(&f, p, put_header(p, OP_LOGIN, FILTER_TEXT)));
	filter_begin(&f);
	ck_assert(!filter_bytes(&f, p, put_header(p, OP_LOGIN, FILTER_TEXT + 1)));
}
END_TEST

/* Data goes by, with its padding, into the guest's memory or not; the header behind it is found. */
START_TEST(data)
{
	static uint8_t p[3 * FILTER_HEADER + 8];
	static struct filter f;
	size_t n = put_header(p, 0x25, 5);

	memset(p + n, 0xff, 8);
	n += 8;
	n += put_ask(p + n, UINT32_MAX);
	ck_assert(answer_to(p, n));
	filter_begin(&f);
	ck_assert(filter_bytes(&f, p, FILTER_HEADER));
	ck_assert(filter_bytes(&f, NULL, 5));
	ck_assert(filter_bytes(&f, p, 3));
	ck_assert(!filter_bytes(&f, p + FILTER_HEADER + 8, FILTER_HEADER));
	/* More than it said. */
	filter_begin(&f);
	ck_assert(filter_bytes(&f, p, FILTER_HEADER));
	ck_assert(!filter_bytes(&f, NULL, 9));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("iscsi");
	TCase *t = tcase_create("filter");
	SRunner *r;
	int failed;

	tcase_add_test(t, asks);
	tcase_add_test(t, logins);
	tcase_add_test(t, long_logins);
	tcase_add_test(t, data);
	suite_add_tcase(s, t);
	r = srunner_create(s);
	srunner_run_all(r, CK_ENV);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
