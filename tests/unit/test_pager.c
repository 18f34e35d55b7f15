/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * When insula-pager ends (src/pager/pager_main.c): with its channel, unless it holds pages that
 * somebody still waits for, and after the working set is written; and who waits for one that has
 * died is let go (faults_end()). The program is the built one, in its jail.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/guestmem.h>

#include "pager/serve.h"
#include "supervisor/child.h"

#define MEM (2u << 20)
#define THREADS 1
#define NOFILE 64
#define PATIENCE_MS 20000

static struct err e;
static struct child pager;
static int mem, file, working_set;

static int memory(const char *name, off_t size)
{
	int fd = memfd_create(name, MFD_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ftruncate(fd, size), 0);
	return fd;
}

/* A snapshot's memory in which page 3 is not zero. */
static int saved(void)
{
	int from = memory("from", MEM), to = memory("file", 0);
	struct ram r;

	ck_assert_int_eq(pwrite(from, "three", 5, 3 * RAM_PAGE), 5);
	ck_assert_int_eq(ram_open(&r, from, MEM, &to, 1, &e), 0);
	ck_assert_msg(!ram_save(&r, &e), "%s", e.text);
	close(from);
	return to;
}

static enum msg_type heard(void *body, size_t size)
{
	struct pollfd p = {.fd = pager.os.jail.channel, .events = POLLIN};
	int fds[MSG_MAX_FDS];
	enum msg_type type;
	unsigned nfds;
	size_t len;

	ck_assert_int_eq(poll(&p, 1, PATIENCE_MS), 1);
	ck_assert_int_eq(msg_recv(pager.os.jail.channel, &type, body, size, &len, fds, &nfds), 0);
	ck_assert_uint_eq(nfds, 0);
	return type;
}

static void say(enum msg_type type, const void *body, size_t len, int fd)
{
	ck_assert_int_eq(msg_send(pager.os.jail.channel, type, body, len, &fd, fd >= 0), 0);
}

/* insula-pager, ready to serve; with a working set if that is a file. */
static void start(int order)
{
	struct msg_start_pager m = {.log_level = 1,
				    .job = PAGER_SERVE,
				    .flags = order < 0 ? 0 : PAGER_ORDER,
				    .size = MEM};
	unsigned nfds = order < 0 ? 2 : 3;
	char libexec[512];
	union {
		struct msg_failed failed;
		char any[512];
	} b;
	ssize_t n = readlink("/proc/self/exe", libexec, sizeof(libexec) - 32);

	ck_assert_int_gt(n, 0);
	libexec[n] = '\0';
	strcpy(strrchr(libexec, '/'), "/../libexec/insula");
	mem = memory("memory", MEM);
	file = saved();
	working_set = order;
	child_none(&pager);
	ck_assert_msg(!child_init(&pager, libexec, "insula-pager", "", THREADS, NOFILE, &e), "%s",
		      e.text);
	pager.os.fsize = MEM;
	ck_assert_msg(!child_spawn(&pager, (int[]){mem, file, order}, nfds, &e), "%s", e.text);
	ck_assert_int_eq(
		child_send(&pager, MSG_START_PAGER, &m, sizeof(m), (int[]){mem, file, order}, nfds),
		0);
	ck_assert_int_eq(heard(&b, sizeof(b)), MSG_READY);
	say(MSG_PAGER_GO, NULL, 0, -1);
	ck_assert_int_eq(heard(&b, sizeof(b)), MSG_PAGER_DONE);
}

static void setup(void)
{
	start(-1);
}

static void setup_with_order(void)
{
	start(memory("order", 0));
}

static void teardown(void)
{
	child_free(&pager);
	close(mem);
	close(file);
	if (working_set >= 0)
		close(working_set);
}

static void hang_up(void)
{
	close(pager.os.jail.channel);
	pager.os.jail.channel = -1;
}

static bool ended_within(int ms)
{
	struct pollfd p = {.fd = pager.os.jail.pidfd, .events = POLLIN};

	return poll(&p, 1, ms) == 1;
}

START_TEST(nobody_waits_for_its_pages)
{
	siginfo_t how = {0};

	hang_up();
	ck_assert_msg(ended_within(PATIENCE_MS), "it is still there");
	ck_assert_int_eq(waitid(P_PIDFD, (id_t)pager.os.jail.pidfd, &how, WEXITED | WNOWAIT), 0);
	ck_assert_int_eq(how.si_code, CLD_EXITED);
	ck_assert_int_eq(how.si_status, 0);
}
END_TEST

/* Of this process; -1: this machine gives nobody one. */
static int faults_of_us(bool *guards)
{
	int dev = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC), fd;

	if (dev < 0) {
		printf("skip pager: faults - /dev/userfaultfd: %s\n", strerror(errno));
		return -1;
	}
	fd = faults_open(dev, guards, &e);
	close(dev);
	ck_assert_msg(fd >= 0, "%s", e.text);
	return fd;
}

/* Guest memory, which it fills, as it has done with one page; NULL: nobody can, on this machine. */
static char *served(void)
{
	char *at = mmap(NULL, MEM, PROT_READ, MAP_SHARED, mem, 0);
	struct msg_faults m = {.addr = (uintptr_t)at, .len = MEM};
	bool guards;
	int fd;

	ck_assert_ptr_ne(at, MAP_FAILED);
	fd = faults_of_us(&guards);
	if (fd < 0)
		return NULL;
	ck_assert_msg(!faults_catch(fd, at, MEM, &e), "%s", e.text);
	say(MSG_PAGER_FAULTS, &m, sizeof(m), fd);
	close(fd);
	ck_assert_int_eq(memcmp(at + 3 * RAM_PAGE, "three", 5), 0);
	return at;
}

/* If it went, and with it the last descriptor, who waits for a page would go on with zeros. */
START_TEST(somebody_may_wait_for_its_pages)
{
	char *at = served();

	if (!at)
		return;
	hang_up();
	ck_assert_msg(!ended_within(300), "it has ended");
	ck_assert_int_eq(kill(pager.os.jail.pid, SIGKILL), 0);
	ck_assert(ended_within(PATIENCE_MS));
	munmap(at, MEM);
}
END_TEST

/* A VM that ends before it is time to write the working set. */
START_TEST(what_was_asked_for_is_written_when_the_guest_stops)
{
	/* serve.c: a head of 16 bytes, then the blocks */
	struct serve_block first = {.block = 0, .pages = 1u << 3}, got;
	char *at = served();
	char body[64];

	if (!at)
		return;
	say(MSG_STOP, NULL, 0, -1);
	ck_assert_int_eq(heard(body, sizeof(body)), MSG_STOPPED);
	ck_assert_int_eq(pread(working_set, &got, sizeof(got), 16), sizeof(got));
	ck_assert_int_eq(memcmp(&got, &first, sizeof(got)), 0);
	ck_assert_int_eq(at[RAM_BLOCK], 0); /* it serves still */
	munmap(at, MEM);
}
END_TEST

static _Atomic int wrote;

static void *writer(void *at)
{
	*(volatile char *)at = 1;
	atomic_store(&wrote, 1);
	return NULL;
}

/* Whoever guarded the page is dead, and a copy of the descriptor is open still: ours. */
START_TEST(who_waits_to_write_is_let_go)
{
	char *at = mmap(NULL, MEM, PROT_READ | PROT_WRITE, MAP_SHARED, mem, 0);
	struct uffdio_register reg = {.range = {(uintptr_t)at, MEM},
				      .mode = UFFDIO_REGISTER_MODE_WP};
	struct uffdio_writeprotect on = {.range = {(uintptr_t)at, MEM},
					 .mode = UFFDIO_WRITEPROTECT_MODE_WP};
	bool guards = false;
	int fd = faults_of_us(&guards);
	struct pollfd p = {.fd = fd, .events = POLLIN};
	pthread_t t;

	ck_assert_ptr_ne(at, MAP_FAILED);
	if (fd < 0)
		return;
	if (!guards) {
		printf("skip pager: faults - this kernel cannot protect shared memory\n");
		return;
	}
	ck_assert_int_eq(ioctl(fd, UFFDIO_REGISTER, &reg), 0);
	ck_assert_int_eq(ioctl(fd, UFFDIO_WRITEPROTECT, &on), 0);
	ck_assert_int_eq(pthread_create(&t, NULL, writer, at), 0);
	ck_assert_int_eq(poll(&p, 1, PATIENCE_MS), 1);
	ck_assert_int_eq(atomic_load(&wrote), 0);
	faults_end(fd, (uintptr_t)at, MEM);
	for (unsigned i = 0; i < PATIENCE_MS && !atomic_load(&wrote); i++)
		usleep(1000);
	ck_assert_msg(atomic_load(&wrote), "it waits still");
	pthread_join(t, NULL);
	close(fd);
	munmap(at, MEM);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("pager");
	TCase *t = tcase_create("end"), *ordered = tcase_create("order");
	SRunner *r = srunner_create(s);
	int failed;

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, nobody_waits_for_its_pages);
	tcase_add_test(t, somebody_may_wait_for_its_pages);
	tcase_add_test(t, who_waits_to_write_is_let_go);
	tcase_set_timeout(t, 60);
	suite_add_tcase(s, t);
	tcase_add_checked_fixture(ordered, setup_with_order, teardown);
	tcase_add_test(ordered, what_was_asked_for_is_written_when_the_guest_stops);
	tcase_set_timeout(ordered, 60);
	suite_add_tcase(s, ordered);
	srunner_run_all(r, CK_ENV);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
