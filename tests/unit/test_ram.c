/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Files of guest memory (src/pager/ram.h): what was saved is what is loaded, in chains of
 * differences too; and no byte of a file can be changed so that other memory comes out of it.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <insula/base.h>

#include "pager/ram.h"

#define PAGES_MAX 200u
#define SIZE (20u * RAM_BLOCK)

static struct err e;
static uint32_t seed = 1;

static uint32_t rnd(uint32_t below)
{
	seed = seed * 1664525u + 1013904223u;
	return (seed >> 8) % below;
}

static int empty(uint64_t size)
{
	int fd = memfd_create("ram", MFD_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ftruncate(fd, (off_t)size), 0);
	return fd;
}

static void put_page(int mem, unsigned page, uint8_t with)
{
	uint8_t buf[RAM_PAGE];

	memset(buf, with, sizeof(buf));
	if (with) {
		buf[1] = (uint8_t)page;
		buf[RAM_PAGE - 1] = (uint8_t)rnd(256);
	}
	ck_assert_int_eq(pwrite(mem, buf, sizeof(buf), (off_t)page * RAM_PAGE), sizeof(buf));
}

static void hole(int mem, unsigned page)
{
	ck_assert_int_eq(fallocate(mem, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				   (off_t)page * RAM_PAGE, RAM_PAGE),
			 0);
}

static uint8_t *contents(int fd, size_t *len)
{
	struct stat st;
	uint8_t *p;

	ck_assert_int_eq(fstat(fd, &st), 0);
	*len = (size_t)st.st_size;
	p = malloc(*len + 1);
	ck_assert_int_eq(pread(fd, p, *len, 0), (ssize_t)*len);
	return p;
}

static bool same(int a, int b)
{
	size_t n, m;
	uint8_t *p = contents(a, &n), *q = contents(b, &m);
	bool equal = n == m && !memcmp(p, q, n);

	free(p);
	free(q);
	return equal;
}

static void save(int mem, uint64_t size, const int *files, unsigned n)
{
	struct ram r;

	ck_assert_int_eq(ram_open(&r, mem, size, files, n, &e), 0);
	ck_assert_msg(!ram_save(&r, &e), "%s", e.text);
}

/* Into new memory. */
static int load(uint64_t size, const int *files, unsigned n, int *rc)
{
	int mem = empty(size);
	struct ram r;

	*rc = ram_open(&r, mem, size, files, n, &e);
	if (!*rc)
		*rc = ram_load(&r, &e);
	return mem;
}

static void must_be(int mem, uint64_t size, const int *files, unsigned n)
{
	int rc, got = load(size, files, n, &rc);

	ck_assert_msg(!rc, "%s", e.text);
	ck_assert(same(mem, got));
	close(got);
}

static void must_fail(uint64_t size, int file, const char *why)
{
	int rc, got = load(size, &file, 1, &rc);

	ck_assert_int_eq(rc, -EPROTO);
	ck_assert_msg(strstr(e.text, why) != NULL, "'%s' is not in '%s'", why, e.text);
	ck_assert_ptr_eq(strchr(e.text, '\n'), NULL);
	close(got);
}

static uint64_t room(int fd)
{
	struct stat st;

	ck_assert_int_eq(fstat(fd, &st), 0);
	return (uint64_t)st.st_blocks * 512;
}

/* ---- save and load ---- */

START_TEST(sizes)
{
	static const unsigned npages[] = {1, 2, 15, 16, 17, 31, 32, 33, 160, 161};
	uint64_t size = (uint64_t)npages[_i] * RAM_PAGE;
	int mem = empty(size), file = empty(0);

	for (unsigned i = 0; i < npages[_i]; i++)
		put_page(mem, i, (uint8_t)(i + 1));
	save(mem, size, &file, 1);
	must_be(mem, size, &file, 1);
}
END_TEST

START_TEST(nothing_in_it)
{
	uint64_t size = PAGES_MAX * RAM_PAGE;
	int mem = empty(size), file = empty(0);

	save(mem, size, &file, 1);
	ck_assert_uint_le(room(file), 8192);
	must_be(mem, size, &file, 1);
}
END_TEST

START_TEST(zeros_are_holes)
{
	uint64_t size = 64 * RAM_PAGE;
	int mem = empty(size), file = empty(0);

	for (unsigned i = 0; i < 64; i++)
		put_page(mem, i, 0);
	put_page(mem, 5, 1);
	put_page(mem, 63, 1);
	save(mem, size, &file, 1);
	ck_assert_uint_le(room(file), 4 * RAM_PAGE);
	must_be(mem, size, &file, 1);
}
END_TEST

START_TEST(holes_in_the_memory)
{
	uint64_t size = PAGES_MAX * RAM_PAGE;
	int mem = empty(size), file = empty(0);

	for (unsigned i = 0; i < PAGES_MAX; i++) {
		if (rnd(3) == 0)
			put_page(mem, i, (uint8_t)(1 + rnd(255)));
	}
	save(mem, size, &file, 1);
	ck_assert_uint_le(room(file), room(mem) + 2 * RAM_PAGE);
	must_be(mem, size, &file, 1);
}
END_TEST

/* In any order, and the same once more when the memory is another: where holes were is not kept. */
START_TEST(block_by_block)
{
	int mem = empty(SIZE), out = empty(0), back, rc;
	const uint32_t blocks = SIZE / RAM_BLOCK;
	struct ram r;

	ck_assert_int_eq(ram_open(&r, mem, SIZE, &out, 1, &e), 0);
	ck_assert_int_eq(ram_save(&r, &e), 0);
	for (unsigned i = 0; i < SIZE / RAM_PAGE; i += 1 + rnd(12))
		put_page(mem, i, (uint8_t)(1 + rnd(255)));
	ck_assert_int_eq(ftruncate(out, 0), 0);
	ck_assert_int_eq(ram_save_begin(&r, &e), 0);
	for (uint32_t i = 0; i < blocks; i++)
		ck_assert_int_eq(ram_save_block(&r, i * 7 % blocks, &e), 0);
	ck_assert_int_eq(ram_save_end(&r, &e), 0);
	back = load(SIZE, &out, 1, &rc);
	ck_assert_int_eq(rc, 0);
	ck_assert(same(mem, back));
	close(mem);
	close(out);
	close(back);
}
END_TEST

/* Each of a chain is as the memory was then, whatever became of pages in between. */
START_TEST(chain)
{
	uint64_t size = 37 * RAM_PAGE;
	int mem = empty(size), file[RAM_CHAIN], then[RAM_CHAIN];

	seed = (uint32_t)_i + 1;
	for (unsigned n = 0; n < RAM_CHAIN; n++) {
		size_t len;
		uint8_t *p;

		for (unsigned i = rnd(20); i; i--) {
			unsigned page = rnd(37), what = rnd(4);

			if (what == 0)
				hole(mem, page);
			else
				put_page(mem, page, what == 1 ? 0 : (uint8_t)(1 + rnd(255)));
		}
		file[n] = empty(0);
		save(mem, size, file, n + 1);
		then[n] = empty(size);
		p = contents(mem, &len);
		ck_assert_int_eq(pwrite(then[n], p, len, 0), (ssize_t)len);
		free(p);
	}
	for (unsigned n = 0; n < RAM_CHAIN; n++)
		must_be(then[n], size, file, n + 1);
}
END_TEST

START_TEST(difference_is_small)
{
	uint64_t size = PAGES_MAX * RAM_PAGE;
	int mem = empty(size), file[3] = {empty(0), empty(0), empty(0)};

	for (unsigned i = 0; i < PAGES_MAX; i++)
		put_page(mem, i, 7);
	save(mem, size, file, 1);
	save(mem, size, file, 2);
	ck_assert_uint_le(room(file[1]), 8192);
	put_page(mem, 9, 8);
	hole(mem, 77); /* zero now, and was not: it must be said */
	save(mem, size, file, 3);
	ck_assert_uint_le(room(file[2]), 8192 + 2 * RAM_PAGE);
	must_be(mem, size, file, 3);
}
END_TEST

START_TEST(arguments)
{
	int mem = empty(RAM_PAGE), file[RAM_CHAIN + 1];
	struct ram r;

	for (unsigned i = 0; i <= RAM_CHAIN; i++)
		file[i] = empty(0);
	ck_assert_int_eq(ram_open(&r, mem, 0, file, 1, &e), -EINVAL);
	ck_assert_int_eq(ram_open(&r, mem, RAM_PAGE + 1, file, 1, &e), -EINVAL);
	ck_assert_int_eq(ram_open(&r, mem, 1ull << 60, file, 1, &e), -EINVAL);
	ck_assert_int_eq(ram_open(&r, mem, RAM_PAGE, file, 0, &e), -EINVAL);
	ck_assert_int_eq(ram_open(&r, mem, RAM_PAGE, file, RAM_CHAIN + 1, &e), -EINVAL);
	ck_assert_int_eq(ram_open(&r, mem, RAM_PAGE, file, RAM_CHAIN, &e), 0);
}
END_TEST

START_TEST(cannot_be_written)
{
	int mem = empty(RAM_PAGE), file = open("/dev/null", O_RDONLY | O_CLOEXEC);
	struct ram r;

	put_page(mem, 0, 1);
	ck_assert_int_eq(ram_open(&r, mem, RAM_PAGE, &file, 1, &e), 0);
	ck_assert_int_eq(ram_save(&r, &e), -EBADF);
	ck_assert_ptr_nonnull(strstr(e.text, "cannot be written"));
}
END_TEST

/* ---- files of others ---- */

#define SMALL 18u /* pages: a block and a short one */
#define SMALL_SIZE ((uint64_t)SMALL * RAM_PAGE)

static int small_memory(void)
{
	int mem = empty(SMALL_SIZE);

	put_page(mem, 0, 1);
	put_page(mem, 3, 2);
	put_page(mem, 17, 3);
	return mem;
}

struct attempt {
	int want, mem, file;
	struct ram r;
	unsigned refused, taken;
};

static void begin_attempts(struct attempt *a)
{
	a->want = small_memory();
	a->file = empty(0);
	save(a->want, SMALL_SIZE, &a->file, 1);
	a->mem = empty(SMALL_SIZE);
	a->refused = a->taken = 0;
	ck_assert_int_eq(ram_open(&a->r, a->mem, SMALL_SIZE, &a->file, 1, &e), 0);
}

/* Refused, with one line that says why; or nothing has come of it. */
static void attempt(struct attempt *a, uint64_t at)
{
	int rc;

	ck_assert_int_eq(ftruncate(a->mem, 0), 0);
	ck_assert_int_eq(ftruncate(a->mem, (off_t)SMALL_SIZE), 0);
	rc = ram_load(&a->r, &e);
	if (rc) {
		ck_assert_int_eq(rc, -EPROTO);
		ck_assert(e.text[0] && !strchr(e.text, '\n'));
		a->refused++;
	} else {
		ck_assert_msg(same(a->want, a->mem), "other memory, of a change at %llu",
			      (unsigned long long)at);
		a->taken++;
	}
}

START_TEST(any_byte)
{
	struct attempt a;
	size_t len;
	uint8_t *good;

	begin_attempts(&a);
	good = contents(a.file, &len);
	for (size_t at = 0; at < len; at++) {
		uint8_t bad = good[at] ^ (uint8_t)(1 + rnd(255));
		bool dense = at >= SMALL_SIZE || at % RAM_PAGE < 3 || at % RAM_PAGE > RAM_PAGE - 3;

		if (!dense && rnd(40))
			continue;
		ck_assert_int_eq(pwrite(a.file, &bad, 1, (off_t)at), 1);
		attempt(&a, at);
		ck_assert_int_eq(pwrite(a.file, &good[at], 1, (off_t)at), 1);
	}
	/* What is in a hole is not looked at; the count of pages is for people. */
	ck_assert_uint_gt(a.refused, 50);
	ck_assert_uint_gt(a.taken, 50);
	attempt(&a, 0);
	ck_assert(same(a.want, a.mem));
	free(good);
}
END_TEST

START_TEST(any_length)
{
	struct attempt a;
	size_t len;

	begin_attempts(&a);
	free(contents(a.file, &len));
	for (size_t n = len + 80; n-- > len;) {
		ck_assert_int_eq(ftruncate(a.file, (off_t)n), 0);
		if (n != len) {
			attempt(&a, n);
			ck_assert_uint_eq(a.taken, 0);
		}
	}
	for (size_t n = len; n;) {
		n -= n > SMALL_SIZE + 1 || n < 40 ? 1 : n < 4096 ? n - 39 : 4096;
		ck_assert_int_eq(ftruncate(a.file, (off_t)n), 0);
		attempt(&a, n);
		ck_assert_uint_eq(a.taken, 0);
	}
}
END_TEST

/* A file made with intent: its sums are right. */
struct forged {
	struct ram_block block[2];
	struct ram_tail tail;
};

static int forge(const struct forged *f)
{
	struct forged g = *f;
	int file = empty(SMALL_SIZE);
	uLong crc = crc32(0, NULL, 0);

	if (!g.tail.crc)
		g.tail.crc = (uint32_t)crc32(crc, (const Bytef *)g.block, sizeof(g.block));
	ck_assert_int_eq(pwrite(file, &g, sizeof(g), (off_t)SMALL_SIZE), sizeof(g));
	return file;
}

static struct forged plain(void)
{
	return (struct forged){
		.tail = {.size = SMALL_SIZE, .nblocks = 2, .magic = RAM_MAGIC},
	};
}

START_TEST(forged_tails)
{
	struct forged f = plain();
	int rc, none = empty(SMALL_SIZE), file = forge(&f);

	close(load(SMALL_SIZE, &file, 1, &rc));
	ck_assert_int_eq(rc, 0);
	must_be(none, SMALL_SIZE, &file, 1);
	f.tail.magic[0] = 'X';
	must_fail(SMALL_SIZE, forge(&f), "does not end as");
	f = plain();
	f.tail.size = UINT64_MAX;
	must_fail(SMALL_SIZE, forge(&f), "of a VM with 18446744073709551615 bytes");
	f = plain();
	f.tail.nblocks = UINT32_MAX;
	must_fail(SMALL_SIZE, forge(&f), "blocks; expected 2");
	f = plain();
	f.tail.crc = 1;
	must_fail(SMALL_SIZE, forge(&f), "its table is damaged");
	must_fail(SMALL_SIZE, empty(0), "it has 0 bytes");
	must_fail(SMALL_SIZE, empty(SMALL_SIZE), "does not end as");
	f = plain();
	must_fail(SMALL_SIZE + RAM_PAGE, forge(&f), "of a VM with 73728 bytes; expected 77824");
}
END_TEST

START_TEST(pages_beyond_the_memory)
{
	struct forged f = plain();

	f.block[1].present = 4; /* it has two pages */
	must_fail(SMALL_SIZE, forge(&f), "its table is damaged");
	f.block[1].present = 0x8000;
	must_fail(SMALL_SIZE, forge(&f), "its table is damaged");
}
END_TEST

START_TEST(other_pages)
{
	struct forged f = plain();

	f.block[0].present = 0xffff;
	must_fail(SMALL_SIZE, forge(&f), "it is damaged in the 65536 bytes at 0");
	f.block[0].present = 0;
	f.block[1].present = 2;
	must_fail(SMALL_SIZE, forge(&f), "it is damaged in the 65536 bytes at 65536");
}
END_TEST

/* Which file of a chain is wrong; and a new difference does not build on it. */
START_TEST(damage_in_a_chain)
{
	int mem = small_memory(), file[3] = {empty(0), empty(0), empty(0)}, rc;
	struct ram r;

	save(mem, SMALL_SIZE, file, 1);
	put_page(mem, 3, 9);
	save(mem, SMALL_SIZE, file, 2);
	ck_assert_int_eq(pwrite(file[0], "x", 1, 3), 1);
	close(load(SMALL_SIZE, file, 2, &rc));
	ck_assert_int_eq(rc, -EPROTO);
	ck_assert_ptr_nonnull(strstr(e.text, "memory file 1 of the chain"));
	ck_assert_int_eq(ram_open(&r, mem, SMALL_SIZE, file, 3, &e), 0);
	ck_assert_int_eq(ram_save(&r, &e), -EPROTO);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("ram");
	TCase *good = tcase_create("good"), *bad = tcase_create("bad");
	SRunner *r = srunner_create(s);
	int failed;

	tcase_add_loop_test(good, sizes, 0, 10);
	tcase_add_test(good, nothing_in_it);
	tcase_add_test(good, zeros_are_holes);
	tcase_add_test(good, holes_in_the_memory);
	tcase_add_test(good, block_by_block);
	tcase_add_loop_test(good, chain, 0, 20);
	tcase_add_test(good, difference_is_small);
	tcase_add_test(good, arguments);
	tcase_add_test(good, cannot_be_written);
	tcase_add_test(bad, any_byte);
	tcase_add_test(bad, any_length);
	tcase_add_test(bad, forged_tails);
	tcase_add_test(bad, pages_beyond_the_memory);
	tcase_add_test(bad, other_pages);
	tcase_add_test(bad, damage_in_a_chain);
	suite_add_tcase(s, good);
	suite_add_tcase(s, bad);
	srunner_run_all(r, CK_ENV);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
