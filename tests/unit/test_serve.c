/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Guest memory that is filled when it is touched (src/pager/serve.h): which pages come with one
 * that is asked for, what the working set has of it, and what comes of that the next time. A thread
 * serves, the test touches; what is there is what the memfd has.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <insula/base.h>
#include <insula/guestmem.h>

#include "pager/serve.h"

#define BLOCKS 40u
#define MEM (BLOCKS * RAM_BLOCK)
#define PAGES (BLOCKS * RAM_PAGES)
#define ZEROS 32u /* from this block on the snapshot has nothing */
#define HEAD 16u  /* of a working set */

static struct err e;
static int file, order, dev;
static struct {
	struct ram ram;
	struct serve serve;
	pthread_t thread;
	int mem, stop, rc;
	char *at;
} vm;

static int memory(off_t size)
{
	int fd = memfd_create("test", MFD_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ftruncate(fd, size), 0);
	return fd;
}

/* Page n begins with n + 1; page 7 of each block is zero. */
static bool is_zero(unsigned n)
{
	return n % RAM_PAGES == 7 || n / RAM_PAGES >= ZEROS;
}

static void setup(void)
{
	int from = memory(MEM);
	struct ram r;

	for (unsigned n = 0; n < PAGES; n++) {
		uint32_t word = n + 1;

		if (!is_zero(n))
			ck_assert_int_eq(pwrite(from, &word, sizeof(word), (off_t)n * RAM_PAGE),
					 sizeof(word));
	}
	file = memory(0);
	order = memory(0);
	ck_assert_int_eq(ram_open(&r, from, MEM, &file, 1, &e), 0);
	ck_assert_msg(!ram_save(&r, &e), "%s", e.text);
	close(from);
}

static void teardown(void)
{
	close(file);
	close(order);
}

static void *serves(void *unused)
{
	bool heard = false;

	(void)unused;
	while (!vm.rc && !heard)
		vm.rc = serve_turn(&vm.serve, vm.stop, &heard, &e);
	return NULL;
}

/* A VM that is restored, with `set` as its working set (-1: none). */
static void begin(int set)
{
	bool guards;
	int fd = faults_open(dev, &guards, &e);

	ck_assert_msg(fd >= 0, "%s", e.text);
	vm.rc = 0;
	vm.mem = memory(MEM);
	vm.stop = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	vm.at = mmap(NULL, MEM, PROT_READ | PROT_WRITE, MAP_SHARED, vm.mem, 0);
	ck_assert_ptr_ne(vm.at, MAP_FAILED);
	ck_assert_msg(!faults_catch(fd, vm.at, MEM, &e), "%s", e.text);
	ck_assert_int_eq(ram_open(&vm.ram, vm.mem, MEM, &file, 1, &e), 0);
	ck_assert_msg(!ram_check(&vm.ram, &e), "%s", e.text);
	ck_assert_msg(!serve_open(&vm.serve, &vm.ram, set, &e), "%s", e.text);
	serve_begin(&vm.serve);
	ck_assert_msg(!serve_add(&vm.serve, fd, 0, (uintptr_t)vm.at, MEM, &e), "%s", e.text);
}

static void run(void)
{
	ck_assert_int_eq(pthread_create(&vm.thread, NULL, serves, NULL), 0);
}

/* Let it follow the working set to its end, before anybody asks. */
static void replay(void)
{
	bool heard;

	while (vm.serve.replays)
		ck_assert_msg(!serve_turn(&vm.serve, vm.stop, &heard, &e), "%s", e.text);
}

static void touch(unsigned n)
{
	uint32_t word;

	memcpy(&word, vm.at + (size_t)n * RAM_PAGE, sizeof(word));
	ck_assert_uint_eq(word, is_zero(n) ? 0 : n + 1);
}

static bool is_there(unsigned n)
{
	off_t at = (off_t)n * RAM_PAGE;

	return lseek(vm.mem, at, SEEK_DATA) == at;
}

static unsigned there(void)
{
	unsigned sum = 0;

	for (unsigned n = 0; n < PAGES; n++)
		sum += is_there(n);
	return sum;
}

/* Nobody serves: what a touch brings is there, when the thread that touched may not have waited for
 * all of it. */
static void stand(void)
{
	uint64_t one = 1;

	ck_assert_int_eq(write(vm.stop, &one, sizeof(one)), sizeof(one));
	pthread_join(vm.thread, NULL);
	ck_assert_msg(!vm.rc, "%s", e.text);
	ck_assert_int_eq(read(vm.stop, &one, sizeof(one)), sizeof(one));
}

/* What is written of the working set is written when it is due: the time is turned back. */
static void end(void)
{
	bool heard;

	if (vm.serve.records && vm.serve.begun_ns) {
		vm.serve.begun_ns = 1;
		ck_assert_int_eq(serve_turn(&vm.serve, vm.stop, &heard, &e), 0);
	}
	for (unsigned i = 0; i < vm.serve.ranges.n; i++)
		fd_close(&vm.serve.ranges.range[i].fd);
	munmap(vm.at, MEM);
	close(vm.mem);
	close(vm.stop);
}

static uint32_t in_file(unsigned word)
{
	uint32_t v;

	ck_assert_int_eq(pread(order, &v, sizeof(v), (off_t)word * 4), sizeof(v));
	return v;
}

static off_t order_size(void)
{
	struct stat st;

	ck_assert_int_eq(fstat(order, &st), 0);
	return st.st_size;
}

/* ---- cases ---- */

START_TEST(what_is_touched_and_no_more)
{
	begin(-1);
	run();
	touch(5);
	touch(RAM_PAGES * 9 + 1);
	touch(6);
	touch(7); /* which is zero, and a page */
	ck_assert_uint_eq(there(), 4);
	ck_assert(is_there(5) && is_there(6) && is_there(7) && is_there(RAM_PAGES * 9 + 1));
	stand();
	end();
}
END_TEST

/* Four behind each other, and the rest of their block comes; then blocks as a whole. */
START_TEST(pages_in_a_row)
{
	begin(-1);
	run();
	for (unsigned n = 1; n < 4; n++)
		touch(n);
	ck_assert_uint_eq(there(), 3);
	touch(4);
	stand();
	ck_assert_uint_eq(there(), RAM_PAGES - 2); /* not page 0, and not page 7 */
	ck_assert(!is_there(0) && !is_there(7));
	run();
	touch(RAM_PAGES);
	stand();
	ck_assert_uint_eq(there(), RAM_PAGES - 2 + RAM_PAGES - 1);
	run();
	touch(RAM_PAGES * 3); /* not the next one */
	touch(RAM_PAGES * 3 + 2);
	stand();
	ck_assert_uint_eq(there(), RAM_PAGES - 2 + RAM_PAGES - 1 + 2);
	end();
}
END_TEST

START_TEST(what_the_snapshot_has_not)
{
	begin(-1);
	run();
	touch(RAM_PAGES * ZEROS + 3);
	touch(PAGES - 1);
	ck_assert_uint_eq(there(), 2); /* the kernel's zeros: a read of a mapping makes a page */
	stand();
	end();
}
END_TEST

START_TEST(the_next_time_it_is_there_before)
{
	begin(order);
	run();
	touch(RAM_PAGES * 9 + 1);
	touch(5);
	touch(RAM_PAGES * 9 + 15);
	touch(7);
	stand();
	end();
	/* Blocks in the order in which they were asked for first, each once. */
	ck_assert_int_eq(order_size(), HEAD + 2 * 8);
	ck_assert_uint_eq(in_file(4), 9);
	ck_assert_uint_eq(in_file(5), 1u << 1 | 1u << 15);
	ck_assert_uint_eq(in_file(6), 0);
	ck_assert_uint_eq(in_file(7), 1u << 5 | 1u << 7);

	begin(order);
	ck_assert(vm.serve.replays);
	replay();
	ck_assert_uint_eq(there(), 3);
	ck_assert(is_there(RAM_PAGES * 9 + 1) && is_there(RAM_PAGES * 9 + 15) && is_there(5));
	run();
	touch(RAM_PAGES * 9 + 1);
	touch(5);
	touch(RAM_PAGES * 20); /* another one than last time */
	touch(4);
	stand();
	end();
	ck_assert_int_eq(order_size(), HEAD + 3 * 8);
	ck_assert_uint_eq(in_file(7), 1u << 4 | 1u << 5 | 1u << 7);
	ck_assert_uint_eq(in_file(8), 20);
	ck_assert_uint_eq(in_file(9), 1);
}
END_TEST

static void check_sum(void)
{
	static uint8_t buf[HEAD + BLOCKS * 16];
	ssize_t n = pread(order, buf, sizeof(buf), 0);
	uint32_t crc = (uint32_t)crc32(crc32(0, NULL, 0), buf + HEAD, (uInt)(n - HEAD));

	ck_assert_int_eq(pwrite(order, &crc, 4, 12), 4);
}

/* What is not a working set of this memory is none; the VM does not notice, and writes its own. */
START_TEST(one_that_is_wrong)
{
	static const struct {
		unsigned word;
		uint32_t v;
		bool sum;
	} wrong[] = {
		{0, 0x31313131, true},                                       /* the magic */
		{2, 1, true},                                                /* how many */
		{2, BLOCKS + 1, true}, {2, UINT32_MAX, true}, {3, 0, false}, /* the sum */
		{5, 3, false},         {6, BLOCKS, true},                    /* beyond the memory */
		{6, UINT32_MAX, true}, {6, 9, true},                         /* twice */
	};

	for (unsigned k = 0; k < ARRAY_LEN(wrong); k++) {
		ck_assert_int_eq(ftruncate(order, 0), 0);
		begin(order);
		run();
		touch(RAM_PAGES * 9);
		touch(3);
		stand();
		end();
		ck_assert_int_eq(order_size(), HEAD + 2 * 8);
		ck_assert_int_eq(pwrite(order, &wrong[k].v, 4, (off_t)wrong[k].word * 4), 4);
		if (wrong[k].sum)
			check_sum();
		if (k % 2) /* it is longer than the one that comes */
			ck_assert_int_eq(ftruncate(order, HEAD + 10 * 8), 0);
		begin(order);
		ck_assert_msg(!vm.serve.replays, "%u: it is followed", k);
		run();
		touch(RAM_PAGES * 9);
		touch(RAM_PAGES * 4);
		ck_assert_uint_eq(there(), 2);
		stand();
		end();
		ck_assert_uint_eq(in_file(2), 2);
		ck_assert_uint_eq(in_file(4), 9);
		ck_assert_uint_eq(in_file(6), 4);
		begin(order);
		ck_assert_msg(vm.serve.replays, "%u: it is not followed", k);
		run();
		stand();
		end();
	}
}
END_TEST

/* Of pages that the snapshot has as zeros there is nothing to bring. */
START_TEST(zeros_in_the_working_set)
{
	begin(order);
	run();
	touch(0);
	stand();
	end();
	ck_assert_int_eq(pwrite(order, &(uint32_t){ZEROS + 1}, 4, HEAD), 4);
	check_sum();
	begin(order);
	ck_assert(vm.serve.replays);
	replay();
	ck_assert_uint_eq(there(), 0);
	run();
	touch(0);
	stand();
	end();
}
END_TEST

START_TEST(everything)
{
	bool heard;

	begin(order);
	run();
	touch(0);
	stand();
	end();
	begin(order);
	serve_fill(&vm.serve);
	while (!vm.serve.whole)
		ck_assert_msg(!serve_turn(&vm.serve, vm.stop, &heard, &e), "%s", e.text);
	ck_assert_uint_eq(there(), ZEROS * (RAM_PAGES - 1));
	run();
	for (unsigned n = 0; n < PAGES; n++)
		touch(n);
	stand();
	end();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("serve");
	TCase *t = tcase_create("serve");
	SRunner *r;
	int failed;

	dev = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	if (dev < 0) {
		printf("skip serve - /dev/userfaultfd: %s\n", strerror(errno));
		return 0;
	}
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, what_is_touched_and_no_more);
	tcase_add_test(t, pages_in_a_row);
	tcase_add_test(t, what_the_snapshot_has_not);
	tcase_add_test(t, the_next_time_it_is_there_before);
	tcase_add_test(t, one_that_is_wrong);
	tcase_add_test(t, zeros_in_the_working_set);
	tcase_add_test(t, everything);
	suite_add_tcase(s, t);
	r = srunner_create(s);
	srunner_run_all(r, CK_ENV);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? 1 : 0;
}
