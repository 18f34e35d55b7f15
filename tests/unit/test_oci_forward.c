/* SPDX-License-Identifier: BSD-2-Clause */
/* Connections to the loopback of a network namespace, whatever their port. */
#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <insula/base.h>

#include "oci/forward.h"

static struct forward f;
static struct err e;

/* False: this machine cannot. */
static bool own_namespace(void)
{
	struct ifreq r = {.ifr_name = "lo", .ifr_flags = IFF_UP};
	int fd, rc;

	if (geteuid() || unshare(CLONE_NEWNET))
		return false;
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	rc = ioctl(fd, SIOCSIFFLAGS, &r);
	close(fd);
	ck_assert_int_eq(rc, 0);
	rc = forward_open(&f, &e);
	ck_assert_msg(!rc || rc == -ENOSYS || (rc == -EPERM && !getenv("INSULA_TEST_ALL")), "%s",
		      e.text);
	return !rc;
}

static int dial(int family, const char *address, uint16_t port)
{
	struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(port)};
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
	struct sockaddr *a = family == AF_INET ? (void *)&v4 : (void *)&v6;
	int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	inet_pton(family, address,
		  family == AF_INET ? (void *)&v4.sin_addr : (void *)&v6.sin6_addr);
	if (!connect(fd, a, family == AF_INET ? sizeof(v4) : sizeof(v6)))
		return fd;
	close(fd);
	return -errno;
}

static void comes_through(int which, int family, const char *address, uint16_t port)
{
	int fd = dial(family, address, port), got;
	uint16_t seen = 0;
	char text[3] = "";

	ck_assert_msg(fd >= 0, "%s %u", address, port);
	got = forward_accept(f.listener[which], &seen);
	ck_assert_int_ge(got, 0);
	ck_assert_uint_eq(seen, port);
	ck_assert_int_eq(write(fd, "hi", 2), 2);
	ck_assert_int_eq(read(got, text, 2), 2);
	ck_assert_str_eq(text, "hi");
	close(fd);
	close(got);
	ck_assert_int_eq(forward_accept(f.listener[which], &seen), -EAGAIN);
}

START_TEST(any_port)
{
	if (!own_namespace())
		return;
	comes_through(0, AF_INET, "127.0.0.1", 8080);
	comes_through(0, AF_INET, "127.0.0.1", 1);
	comes_through(0, AF_INET, "127.9.9.9", 65535);
	if (f.listener[1] >= 0)
		comes_through(1, AF_INET6, "::1", 443);
	forward_close(&f);
	/* It is gone with its descriptors. */
	ck_assert_int_eq(dial(AF_INET, "127.0.0.1", 8080), -ECONNREFUSED);
}
END_TEST

struct served {
	unsigned n;
	int stop;
};

static int on_connection(void *ctx, uint16_t port, int fd, struct err *why)
{
	struct served *s = ctx;
	char text[8];

	s->n++;
	if (port == 7)
		return err_set(why, -ECONNREFUSED, "nobody there");
	snprintf(text, sizeof(text), "%u", port);
	ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	return 0;
}

static int on_stop(void *ctx)
{
	struct served *s = ctx;

	return event_drain(s->stop) ? -ECANCELED : 0;
}

START_TEST(served)
{
	struct served s = {.stop = event_create()};
	char text[8] = "";
	int a, b;

	if (!own_namespace())
		return;
	a = dial(AF_INET, "127.0.0.1", 7);
	b = dial(AF_INET, "127.0.0.1", 4711);
	event_signal(s.stop);
	ck_assert_int_eq(forward_run(&f, s.stop, on_connection, on_stop, &s), -ECANCELED);
	/* The stop was seen first. */
	ck_assert_uint_eq(s.n, 0);
	if (!fork()) {
		usleep(300000);
		event_signal(s.stop);
		_exit(0);
	}
	ck_assert_int_eq(forward_run(&f, s.stop, on_connection, on_stop, &s), -ECANCELED);
	ck_assert_uint_eq(s.n, 2);
	ck_assert_int_eq(read(a, text, sizeof(text)), 0);
	ck_assert_int_eq(read(b, text, sizeof(text)), 4);
	ck_assert_int_eq(memcmp(text, "4711", 4), 0);
	forward_close(&f);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("oci_forward");
	TCase *t = tcase_create("all");
	SRunner *run = srunner_create(s);
	int failed;

	tcase_add_test(t, any_port);
	tcase_add_test(t, served);
	suite_add_tcase(s, t);
	srunner_run_all(run, CK_ENV);
	failed = srunner_ntests_failed(run);
	srunner_free(run);
	return failed != 0;
}
