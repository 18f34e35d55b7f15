/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The life of a helper in a test, one at a time: as a thread, or as a process that is killed. `open`
 * is the test's: it opens the device and attaches it; NULL: it cannot. Included once in a test.
 */
#ifndef TEST_LIFE_H
#define TEST_LIFE_H

#include <check.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <insula/proto.h>

#include <devices/helper.h>

static int chan[2]; /* the supervisor's end, and the helper's */
static pthread_t life_thread;

static void *life_loop(void *h)
{
	return (void *)(intptr_t)helper_loop(h, chan[1]);
}

static void life_ready(void)
{
	struct err e = {0};

	ck_assert_int_eq(msg_expect(chan[0], MSG_READY, NULL, 0, NULL, 0, &e), 0);
}

static void life_begin(struct helper *(*open)(void))
{
	struct helper *h;

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, chan), 0);
	h = open();
	ck_assert_ptr_nonnull(h);
	ck_assert_int_eq(pthread_create(&life_thread, NULL, life_loop, h), 0);
	life_ready();
}

/* In order: what it has counted. */
static struct msg_stats life_end(void)
{
	struct msg_stats s;
	struct err e = {0};

	ck_assert_int_eq(msg_send(chan[0], MSG_STOP, NULL, 0, NULL, 0), 0);
	ck_assert_int_eq(msg_expect(chan[0], MSG_STOPPED, &s, sizeof(s), NULL, 0, &e), 0);
	pthread_join(life_thread, NULL);
	return s;
}

static inline pid_t life_fork(struct helper *(*open)(void))
{
	pid_t pid;

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, chan), 0);
	pid = fork();
	if (pid == 0) {
		struct helper *h;

		close(chan[0]);
		h = open();
		if (!h)
			_exit(2);
		_exit(helper_loop(h, chan[1]) ? 1 : 0);
	}
	close(chan[1]);
	life_ready();
	return pid;
}

static inline void life_kill(pid_t pid)
{
	kill(pid, SIGKILL);
	ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
	close(chan[0]);
}

#endif
