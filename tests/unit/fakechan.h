/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A helper's channel with both ends in this process: the supervisor's is the test's, the other one
 * is given to helper_loop() in a thread. One at a time.
 */
#ifndef TESTS_FAKECHAN_H
#define TESTS_FAKECHAN_H

#include <check.h>

#include <insula/base.h>
#include <insula/proto.h>

#ifdef _WIN32

#include "os/win/win.h"

struct fakechan {
	int helper; /* for helper_loop() */
	HANDLE ours, theirs;
	struct channel in;
};

static inline void chan_open(struct fakechan *c)
{
	struct err e = {0};

	ck_assert_msg(!pipe_pair(true, &c->ours, &c->theirs, &e), "%s", e.text);
	ck_assert_int_eq(channel_init(&c->in, c->ours), 0);
	ck_assert(SetStdHandle(STD_INPUT_HANDLE, c->theirs));
	c->helper = MSG_CHANNEL_FD;
}

/* The supervisor dies. */
static inline void chan_break(struct fakechan *c)
{
	channel_free(&c->in);
	CloseHandle(c->ours);
	c->ours = NULL;
}

/* When the helper's thread has ended. */
static inline void chan_close(struct fakechan *c)
{
	if (c->ours)
		chan_break(c);
	channel_free(channel_own());
	CloseHandle(c->theirs);
}

static inline void chan_send(struct fakechan *c, enum msg_type type, const void *body, size_t len)
{
	ck_assert_int_eq(msg_send(handle_fd(c->ours), type, body, len, NULL, 0), 0);
}

static inline void chan_expect(struct fakechan *c, enum msg_type want, void *body, size_t size)
{
	uint8_t buf[MSG_MAX_BODY];
	enum msg_type type;
	size_t len;

	ck_assert_int_eq(channel_recv(&c->in, &type, buf, sizeof(buf), &len), 0);
	ck_assert_int_eq(type, want);
	ck_assert_uint_eq(len, size);
	if (size)
		memcpy(body, buf, size);
}

#else

#include <sys/socket.h>

struct fakechan {
	int helper;
	int ours;
};

static inline void chan_open(struct fakechan *c)
{
	int p[2];

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, p), 0);
	c->ours = p[0];
	c->helper = p[1];
}

static inline void chan_break(struct fakechan *c)
{
	fd_close(&c->ours);
}

static inline void chan_close(struct fakechan *c)
{
	fd_close(&c->ours);
	fd_close(&c->helper);
}

static inline void chan_send(struct fakechan *c, enum msg_type type, const void *body, size_t len)
{
	ck_assert_int_eq(msg_send(c->ours, type, body, len, NULL, 0), 0);
}

static inline void chan_expect(struct fakechan *c, enum msg_type want, void *body, size_t size)
{
	struct err e = {0};

	ck_assert_msg(msg_expect(c->ours, want, body, size, NULL, 0, &e) == 0, "%s", e.text);
}

#endif

#endif
