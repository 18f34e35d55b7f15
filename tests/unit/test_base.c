/* SPDX-License-Identifier: BSD-2-Clause */
/* What every process stands on, on both systems: guest addresses, shared memory, events, files,
 * clean texts. */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <insula/base.h>
#include <insula/board.h>
#include <insula/guestmem.h>

#include "boardmem.h"
#include "host.h"

static struct err e;

/* ---- guest memory ---- */

/* Two small regions with a gap, the second near the end of the address space. */
START_TEST(gm_ptr_bounds)
{
	static uint8_t a[64], b[64];
	const gpa_t high = UINT64_MAX - 63;
	const struct guestmem gm = {.nregions = 2,
				    .region = {{1000, sizeof(a), a}, {high, sizeof(b), b}}};
	static const uint64_t lens[] = {0,
					1,
					2,
					31,
					32,
					33,
					62,
					63,
					64,
					65,
					66,
					1u << 31,
					UINT32_MAX,
					1ull << 32,
					1ull << 63,
					UINT64_MAX - 64,
					UINT64_MAX - 63,
					UINT64_MAX - 1,
					UINT64_MAX};

	for (int64_t d = -130; d <= 130; d++) {
		for (unsigned i = 0; i < ARRAY_LEN(lens); i++) {
			uint64_t n = lens[i];
			bool in = d >= 0 && d < 64 && n && n <= 64 - (uint64_t)d;

			ck_assert_ptr_eq(gm_ptr(&gm, 1000 + (uint64_t)d, n), in ? a + d : NULL);
			/* Beyond the top the sum wraps to 0...: not RAM either. */
			ck_assert_ptr_eq(gm_ptr(&gm, high + (uint64_t)d, n), in ? b + d : NULL);
			ck_assert_ptr_null(gm_ptr(&gm, (gpa_t)d & 0xff, n));
		}
	}
	ck_assert_ptr_null(gm_ptr(&(struct guestmem){0}, 0, 1));
}
END_TEST

START_TEST(gm_map_layout)
{
	const uint64_t size = BOARD_LOW_RAM_END + 8 * BOARD_PAGE;
	int fd = shm_create("guest", size, &e);
	struct guestmem gm;
	uint8_t *low, *high;
	const uint8_t *again;
	void *p = NULL;

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(board_gm_map(&gm, fd, size, &e), 0);
	ck_assert_uint_eq(gm.nregions, 2);
	low = gm_ptr(&gm, BOARD_LOW_RAM_END - 1, 1);
	high = gm_ptr(&gm, BOARD_HIGH_RAM, 8 * BOARD_PAGE);
	ck_assert(low && high);
	ck_assert_ptr_null(gm_ptr(&gm, BOARD_LOW_RAM_END - 1, 2));
	ck_assert_ptr_null(gm_ptr(&gm, BOARD_LOW_RAM_END, 1));
	ck_assert_ptr_null(gm_ptr(&gm, BOARD_HIGH_RAM - 1, 1));
	ck_assert_ptr_null(gm_ptr(&gm, BOARD_HIGH_RAM, 8 * BOARD_PAGE + 1));
	ck_assert_ptr_null(gm_ptr(&gm, BOARD_HIGH_RAM + 8 * BOARD_PAGE, 1));
	*low = 1;
	*high = 2;
	/* In memory they lie side by side. */
	ck_assert_int_eq(
		shm_map(fd, size, BOARD_LOW_RAM_END - 0x10000, 0x10000 + BOARD_PAGE, false, &p, &e),
		0);
	again = p;
	ck_assert_uint_eq(again[0xffff], 1);
	ck_assert_uint_eq(again[0x10000], 2);
	shm_unmap(p, 0x10000 + BOARD_PAGE);
	gm_unmap(&gm);
	ck_assert_uint_eq(gm.nregions, 0);
	fd_close(&fd);
}
END_TEST

START_TEST(gm_map_refused)
{
	const uint64_t size = BOARD_MIN_MEM;
	int fd = shm_create("guest", size, &e), file = host_file("", 0, size);
	struct guestmem gm;

	ck_assert_int_eq(board_gm_map(&gm, fd, size + 1, &e), -EINVAL);
	ck_assert_int_eq(board_gm_map(&gm, fd, size + BOARD_PAGE, &e), HOST_SHORT);
	ck_assert_int_eq(board_gm_map(&gm, fd, 0, &e), -EINVAL);
	ck_assert_int_eq(board_gm_map(&gm, fd, UINT64_MAX, &e), -EINVAL);
	ck_assert_int_eq(board_gm_map(&gm, fd, MEMMAP_END, &e), -EINVAL);
	ck_assert_int_eq(board_gm_map(&gm, file, size, &e), HOST_NOT_SHARED);
	ck_assert_uint_eq(gm.nregions, 0);
	fd_close(&fd);
	fd_close(&file);
}
END_TEST

static struct memmap good_map(void)
{
	return (struct memmap){
		.nregions = 3,
		.region = {{.gpa = 0, .size = 0x2000},
			   {.gpa = 0x2000, .size = 0x1000, .fd = 1},
			   {.gpa = 1ull << 40, .size = 1ull << 30, .offset = 0x2000}},
	};
}

static void map_refused(const struct memmap *m, const char *words)
{
	struct guestmem gm;
	int fds[2] = {-1, -1};

	memset(&e, 0, sizeof(e));
	ck_assert_int_eq(memmap_check(m, 2, &e), -EINVAL);
	ck_assert_msg(strstr(e.text, words), "expected \"%s\", got \"%s\"", words, e.text);
	/* Who maps asks, before a descriptor is looked at. */
	ck_assert_int_eq(gm_map(&gm, m, fds, 2, &e), -EINVAL);
	ck_assert_uint_eq(gm.nregions, 0);
}

START_TEST(memory_map_checked)
{
	struct memmap m = good_map();

	ck_assert_int_eq(memmap_check(&m, 2, &e), 0);
	ck_assert_int_eq(memmap_check(&(struct memmap){0}, 0, &e), 0);
	m.region[2].gpa = MEMMAP_END - m.region[2].size;
	m.region[2].offset = INT64_MAX - MEMMAP_PAGE + 1 - m.region[2].size;
	ck_assert_int_eq(memmap_check(&m, 2, &e), 0);
}
END_TEST

START_TEST(memory_map_refused)
{
	static const struct {
		unsigned field; /* of region `at`, by its place in the structure; 8: of the map */
		unsigned at;
		uint64_t value;
		const char *words;
	} bad[] = {
		{0, 1, 0x2001, "region 1: gpa 0x2001; expected a multiple of 4096"},
		{0, 2, MEMMAP_END, "region 2: gpa"},
		{0, 1, 0x1000, "region 1: gpa 0x1000; expected the end of the region before"},
		{0, 2, 0x1000, "region 2: gpa 0x1000; expected the end of the region before"},
		{1, 0, 0, "region 0: size 0x0"},
		{1, 0, 0x3000, "region 1: gpa 0x2000"},
		{1, 0, 0x1800, "region 0: size 0x1800; expected a multiple of 4096"},
		{1, 2, MEMMAP_END, "region 2: size"},
		{1, 2, ~0ull << 12, "region 2: size"},
		{2, 2, 0x2001, "region 2: offset 0x2001"},
		{2, 2, 0x1000, "region 2: offset 0x1000; expected bytes that no other region has"},
		{2, 2, ~0ull << 12, "region 2: offset"},
		{3, 1, 2, "region 1: descriptor 0x2; expected the index"},
		{3, 1, UINT32_MAX, "region 1: descriptor"},
		{4, 1, 2, "region 1: flags 0x2; expected 0 or 1"},
		{4, 2, UINT32_MAX, "region 2: flags 0xffffffff; expected 0 or 1"},
		{4, 1, 1, "region 2: flags 0x0; expected 1, as the region before has"},
		{8, 0, MEMMAP_MAX + 1, "9 regions; expected at most 8"},
		{8, 0, UINT32_MAX, "regions; expected at most 8"},
		{9, 0, 1, "memory map:"},
	};

	for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
		struct memmap m = good_map();
		struct mem_region *r = &m.region[bad[i].at];
		uint64_t *wide[] = {&r->gpa, &r->size, &r->offset};
		uint32_t *narrow[] = {&r->fd, &r->flags};

		if (bad[i].field < 3)
			*wide[bad[i].field] = bad[i].value;
		else if (bad[i].field < 8)
			*narrow[bad[i].field - 3] = (uint32_t)bad[i].value;
		else
			*(bad[i].field == 8 ? &m.nregions : &m.pad) = (uint32_t)bad[i].value;
		map_refused(&m, bad[i].words);
	}
}
END_TEST

/* Memory that may come later lies where a kernel's own blocks can. */
START_TEST(memory_map_that_grows)
{
	static const struct {
		uint64_t mem, more, gpa, size;
	} maps[] = {
		{512 << 20, 1ull << 30, BOARD_HIGH_RAM, 1ull << 30},
		{512 << 20, 2 << 20, BOARD_HIGH_RAM, 128 << 20},
		{512 << 20, 129 << 20, BOARD_HIGH_RAM, 256 << 20},
		{4ull << 30, 4ull << 30, 6ull << 30, 4ull << 30},
		{5ull << 30, 4ull << 30, 6ull << 30, 4ull << 30},
		{64ull << 30, 4096 << 10, 66ull << 30, 2ull << 30},
	};

	for (unsigned i = 0; i < ARRAY_LEN(maps); i++) {
		struct memmap m = board_map(maps[i].mem);
		unsigned n = m.nregions;
		const struct mem_region *r = &m.region[n];

		ck_assert_uint_eq(memmap_present(&m), n);
		memmap_add_of_board(&m, maps[i].more);
		ck_assert_msg(memmap_check(&m, 1, &e) == 0, "%s", e.text);
		ck_assert_uint_eq(m.nregions, n + 1);
		ck_assert_uint_eq(memmap_present(&m), n);
		ck_assert_uint_eq(r->gpa, maps[i].gpa);
		ck_assert_uint_eq(r->size, maps[i].size);
		ck_assert_uint_eq(r->offset, maps[i].mem);
		ck_assert_uint_eq(memmap_size(&m), maps[i].mem + maps[i].size);
	}
}
END_TEST

/* In a file of its own, and in the middle of a file. */
START_TEST(memory_map_of_two_files)
{
	const uint64_t piece = 1 << 16; /* what an offset is a multiple of, on every system */
	int fds[2] = {shm_create("one", 4 * piece, &e), shm_create("two", piece, &e)};
	struct memmap m = {.nregions = 2,
			   .region = {{.gpa = 0, .size = piece, .offset = 2 * piece},
				      {.gpa = 8 * piece, .size = piece, .fd = 1}}};
	struct guestmem gm;
	uint8_t *whole;
	void *p;
	int rc;

	ck_assert(fds[0] >= 0 && fds[1] >= 0);
	ck_assert_int_eq(shm_map(fds[0], 4 * piece, 0, 4 * piece, true, &p, &e), 0);
	whole = p;
	ck_assert_msg(gm_map(&gm, &m, fds, 2, &e) == 0, "%s", e.text);
	ck_assert_uint_eq(gm_size(&gm), 2 * piece);
	*(uint8_t *)gm_ptr(&gm, piece - 1, 1) = 7;
	*(uint8_t *)gm_ptr(&gm, 9 * piece - 1, 1) = 9;
	ck_assert_uint_eq(whole[3 * piece - 1], 7);
	ck_assert_ptr_null(gm_ptr(&gm, piece, 1));
	gm_unmap(&gm);
	m.region[0].offset = 4 * piece;
	rc = gm_map(&gm, &m, fds, 2, &e);
	/* wine does not look at the size of a view whose place is not there */
	ck_assert_msg(rc == HOST_SHORT || rc == -EINVAL, "%d", rc);
	m.region[0].offset = 3 * piece;
	m.region[0].size = 2 * piece;
	ck_assert_int_eq(gm_map(&gm, &m, fds, 2, &e), HOST_SHORT);
	ck_assert_uint_eq(gm.nregions, 0);
	shm_unmap(whole, 4 * piece);
	fd_close(&fds[0]);
	fd_close(&fds[1]);
}
END_TEST

/* ---- events, files ---- */

START_TEST(events)
{
	int fd = event_create();

	ck_assert_int_ge(fd, 0);
	ck_assert_uint_eq(event_drain(fd), 0);
	event_signal(fd);
	event_signal(fd);
	ck_assert_uint_eq(event_drain(fd), HOST_EVENTS_COUNT ? 2 : 1);
	ck_assert_uint_eq(event_drain(fd), 0);
	fd_close(&fd);
	ck_assert_int_eq(fd, -1);
}
END_TEST

/* What was signalled, all of it, and once; the timeout. */
START_TEST(waits)
{
	int fd[EVENTS_MAX];
	uint64_t start;

	for (unsigned i = 0; i < EVENTS_MAX; i++)
		fd[i] = event_create();
	event_signal(fd[0]);
	event_signal(fd[7]);
	event_signal(fd[EVENTS_MAX - 1]);
	ck_assert_uint_eq(events_wait(fd, EVENTS_MAX, -1, -1),
			  1u | 1u << 7 | UINT64_C(1) << (EVENTS_MAX - 1));
	ck_assert_uint_eq(events_wait(fd, EVENTS_MAX, -1, 0), 0);
	start = clock_ns();
	ck_assert_uint_eq(events_wait(fd, 3, -1, 50), 0);
	ck_assert_uint_eq(events_wait(NULL, 0, -1, 50), 0);
	ck_assert_uint_ge(clock_ns() - start, 80000000u);
	for (unsigned i = 0; i < EVENTS_MAX; i++)
		fd_close(&fd[i]);
}
END_TEST

/* Memory that is not mapped, over the borders of what Windows maps at once. */
START_TEST(shared_bytes)
{
	enum { SIZE = 3 * 65536, AT = 65536 - 5, LEN = 65536 + 10 };
	static uint8_t in[LEN], out[LEN];
	int fd = shm_create("bytes", SIZE, &e);
	void *map;

	ck_assert_msg(fd >= 0, "%s", e.text);
	for (unsigned i = 0; i < LEN; i++)
		in[i] = (uint8_t)(i * 7 + 1);
	ck_assert_int_eq(shm_write(fd, in, LEN, AT), 0);
	ck_assert_int_eq(shm_read(fd, out, LEN, AT), 0);
	ck_assert_mem_eq(in, out, LEN);
	ck_assert_int_eq(shm_read(fd, out, 2, AT - 1), 0);
	ck_assert_uint_eq(out[0], 0);
	ck_assert_uint_eq(out[1], in[0]);
	ck_assert_int_eq(shm_map(fd, SIZE, 0, SIZE, false, &map, &e), 0);
	ck_assert_mem_eq((uint8_t *)map + AT, in, LEN);
	ck_assert(mem_is_zero((uint8_t *)map + AT + LEN, SIZE - AT - LEN));
	shm_unmap(map, SIZE);
	ck_assert_uint_le(shm_data(fd, 0, SIZE), AT);
	ck_assert_uint_eq(shm_data(fd, AT, SIZE), AT);
	ck_assert_int_lt(shm_read(-1, out, 1, 0), 0);
	ck_assert_int_lt(shm_write(-1, in, 1, 0), 0);
	fd_close(&fd);
}
END_TEST

START_TEST(writes_at_a_place)
{
	char buf[8] = {0};
	int fd = host_file("", 0, 0);

	ck_assert_int_eq(write_full_at(fd, "defg", 4, 3), 0);
	ck_assert_int_eq(write_full_at(fd, "abc", 3, 0), 0);
	ck_assert_int_eq(file_sync(fd), 0);
	ck_assert_int_eq(read_full(fd, buf, 7, 0), 0);
	ck_assert_str_eq(buf, "abcdefg");
	ck_assert_int_eq(write_full_at(-1, "a", 1, 0), -EBADF);
	ck_assert_int_lt(file_sync(-1), 0);
	fd_close(&fd);
}
END_TEST

START_TEST(whole_reads)
{
	int fd = host_file("0123456789", 10, 10);
	char buf[16];

	host_seek(fd, 0);
	ck_assert_int_eq(write_full(fd, "abc", 3), 0);
	ck_assert_int_eq(read_full(fd, buf, 4, 0), 0);
	ck_assert_int_eq(memcmp(buf, "abc3", 4), 0);
	ck_assert_int_eq(read_full(fd, buf, 4, 6), 0);
	ck_assert_int_eq(memcmp(buf, "6789", 4), 0);
	ck_assert_int_eq(read_full(fd, buf, 5, 6), -ENODATA);
	ck_assert_int_eq(read_full(fd, buf, 1, 10), -ENODATA);
	ck_assert_int_lt(read_full(fd, buf, 1, UINT64_MAX), 0);
	ck_assert_int_eq(read_full(-1, buf, 1, 0), -EBADF);
	ck_assert_int_eq(write_full(-1, buf, 1), -EBADF);
	fd_close(&fd);
}
END_TEST

START_TEST(clock_runs)
{
	uint64_t a = clock_ns();

	host_sleep_us(2000);
	ck_assert_uint_ge(clock_ns() - a, 2000000);
}
END_TEST

/* ---- texts ---- */

static const struct {
	const char *dirty, *clean;
} texts[] = {
	{"plain", "plain"},
	{"a\x1b[31mb\n\r\t\x7f", "a?[31mb????"},
	{"gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x90\xa7",
	 "gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x90\xa7"},
	{"c1 \xc2\x9b"
	 "31m",
	 "c1 ??31m"}, /* CSI as one UTF-8 character */
	{"c1 \x9b"
	 "31m",
	 "c1 ?31m"},                        /* and as one byte */
	{"nbsp \xc2\xa0", "nbsp \xc2\xa0"}, /* the first that is not a control */
	{"overlong \xc0\x9b \xe0\x80\x9b", "overlong ?? ???"},
	{"surrogate \xed\xa0\x80", "surrogate ???"},
	{"too large \xf4\x90\x80\x80 \xf5", "too large ???? ?"},
	{"cut off \xe2\x82", "cut off ??"},
	{"alone \x80 \xbf \xff", "alone ? ? ?"},
};

/* The same words on both systems, for the numbers that C does not know too. */
static const struct {
	int number;
	const char *text;
} posix_texts[] = {
	{EADDRINUSE, "x: Address already in use"},
	{EALREADY, "x: Operation already in progress"},
	{ECONNREFUSED, "x: Connection refused"},
	{ECONNRESET, "x: Connection reset by peer"},
	{EMSGSIZE, "x: Message too long"},
	{ENODATA, "x: No data available"},
	{ENOTCONN, "x: Transport endpoint is not connected"},
	{ENOTSUP, "x: Operation not supported"},
	{EOPNOTSUPP, "x: Operation not supported"},
	{EPROTO, "x: Protocol error"},
	{ETIMEDOUT, "x: Connection timed out"},
};

START_TEST(err_texts)
{
	char big[600];

	for (unsigned i = 0; i < ARRAY_LEN(texts); i++) {
		ck_assert_int_eq(err_set(&e, -EINVAL, "%s", texts[i].dirty), -EINVAL);
		ck_assert_str_eq(e.text, texts[i].clean);
		ck_assert_int_eq(e.code, -EINVAL);
	}
	ck_assert_int_eq(err_sys(&e, -ENOENT, "%s", "a\nb"), -ENOENT);
	ck_assert_str_eq(e.text, "a?b: No such file or directory");
	ck_assert_int_eq(err_sys(&e, -4095, "x"), -4095);
	ck_assert_str_eq(e.text, "x: unknown error");
	for (unsigned i = 0; i < ARRAY_LEN(posix_texts); i++) {
		err_sys(&e, -posix_texts[i].number, "x");
		ck_assert_str_eq(e.text, posix_texts[i].text);
	}
	memset(big, 'y', sizeof(big) - 1);
	big[sizeof(big) - 1] = 0;
	err_sys(&e, -EIO, "%s", big);
	ck_assert_uint_eq(strlen(e.text), sizeof(e.text) - 1);
	ck_assert_int_eq(err_set(NULL, -EIO, "nobody listens"), -EIO);
	ck_assert_int_eq(err_sys(NULL, -EIO, "nobody listens"), -EIO);
}
END_TEST

/* ---- did you mean ---- */

START_TEST(nearest_words)
{
	static const char *const list[] = {"kernel", "mem",   "disk", "",  "metrics",
					   NULL,     "pause", "ps",   "rm"};
	static const struct {
		const char *word, *meant;
	} words[] = {
		{"kernal", "kernel"},
		{"krenel", "kernel"},
		{"kernell", "kernel"},
		{"KERNEL", "kernel"},
		{"disks", "disk"},
		{"dsik", "disk"},
		{"metric", "metrics"},
		{"metr", "metrics"},
		{"paus", "pause"},
		{"men", "mem"},
		{"sp", "ps"},
		{"rn", "rm"},
		{"", NULL},
		{"x", NULL},
		{"initrd", NULL},
		{"memory", "mem"},
		{"absolutely", NULL},
		{"qqqqqq", NULL},
		{"a-word-that-is-longer-than-all-that-anybody-types", NULL},
	};

	for (size_t i = 0; i < ARRAY_LEN(words); i++) {
		const char *got = nearest(words[i].word, list, ARRAY_LEN(list));

		ck_assert_msg(got == words[i].meant ||
				      (got && words[i].meant && !strcmp(got, words[i].meant)),
			      "%s: %s", words[i].word, got ? got : "(none)");
	}
	ck_assert_ptr_null(nearest("kernel", NULL, 0));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("base");
	TCase *tc = tcase_create("base");
	SRunner *sr;
	int failures;

	tcase_add_test(tc, gm_ptr_bounds);
	tcase_add_test(tc, gm_map_layout);
	tcase_add_test(tc, gm_map_refused);
	tcase_add_test(tc, memory_map_checked);
	tcase_add_test(tc, memory_map_refused);
	tcase_add_test(tc, memory_map_that_grows);
	tcase_add_test(tc, memory_map_of_two_files);
	tcase_add_test(tc, events);
	tcase_add_test(tc, waits);
	tcase_add_test(tc, shared_bytes);
	tcase_add_test(tc, writes_at_a_place);
	tcase_add_test(tc, whole_reads);
	tcase_add_test(tc, clock_runs);
	tcase_add_test(tc, nearest_words);
	tcase_add_test(tc, err_texts);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failures = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failures != 0;
}
