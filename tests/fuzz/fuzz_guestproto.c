/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The guest protocol, with any bytes on the stream. Input: one byte of choice, then the stream.
 *   bit 0   0: what a guest sends to insula-exec; 1: what a host sends (frames, GP_START and GP_RESUMED alone)
 *   bits 1-6  how many bytes arrive at a time, less one; all: everything
 *   bit 7   the stream is not the command's first one
 *
 * Besides not crashing: a frame that is accepted fits its table, output never exceeds its ring, the
 * input's credit never its window, nothing is accepted after the last frame, and every accepted
 * GP_START gives exactly the strings that it counts.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <insula/base.h>

#include "exec/exec.h"
#include "must.h"

static void use_start(uint8_t *body, size_t len)
{
	static char *argv[GP_ARGS_MAX + 1], *env[GP_ARGS_MAX + 1];
	static uint8_t again[GP_START_MAX];
	struct gp_start s;
	char *cwd, *user;

	if (gp_start_check(body, len, &s))
		return;
	gp_start_strings(body, &cwd, &user, argv, env);
	MUST((uint8_t *)cwd == body + sizeof(s));
	MUST(!argv[s.argc] && !env[s.envc]);
	MUST(gp_start_build(again, sizeof(again), &s, cwd, user, argv, env) == (int)len);
	MUST(!memcmp(again, body, len));
}

static void use_resumed(uint8_t *body, size_t len)
{
	static uint8_t again[GP_RESUMED_MAX];
	char *s[GP_RESUMED_NAMES + GP_CARDS_MAX];
	struct gp_resumed r;

	if (gp_resumed_check(body, len, &r))
		return;
	gp_resumed_strings(body, s);
	for (unsigned i = 0; i < GP_RESUMED_NAMES + GP_CARDS_MAX; i++)
		MUST(!s[i] == (i >= GP_RESUMED_NAMES + r.ncards));
	MUST(gp_resumed_build(again, sizeof(again), &r, (const char *const *)s) == (int)len);
	MUST(!memcmp(again, body, len));
}

static void from_host(const uint8_t *p, size_t n, size_t step)
{
	static uint8_t body[GP_START_MAX];
	struct gp_in in;

	gp_in_init(&in, body, sizeof(body));
	while (n) {
		uint8_t *at;
		size_t want = gp_in_want(&in, &at);
		int rc;

		MUST(want > 0);
		want = want < step ? want : step;
		want = want < n ? want : n;
		memcpy(at, p, want);
		rc = gp_in_got(&in, want, GP_HOST);
		if (rc < 0)
			return;
		if (rc) {
			MUST(!gp_check(&in.hdr, GP_HOST) && in.hdr.len <= sizeof(body));
			if (in.hdr.type == GP_START)
				use_start(body, in.hdr.len);
			if (in.hdr.type == GP_RESUMED)
				use_resumed(body, in.hdr.len);
		}
		p += want;
		n -= want;
	}
}

/* The writer threads' work: take out what is there, now and then. */
static void drain(struct exec *x, uint8_t often)
{
	for (unsigned i = 0; i < 2; i++) {
		struct exec_ring *r = &x->out[i].ring;
		uint32_t used = r->head - r->tail;

		MUST(used <= GP_WINDOW_OUT);
		if (often & (1u << i)) {
			r->tail = r->head;
			x->out[i].credited = r->tail;
		}
	}
	MUST(x->in_credit <= GP_WINDOW_IN);
}

static void from_guest(const uint8_t *p, size_t n, size_t step, bool again)
{
	static struct exec x;
	static int null = -1;

	memset(&x, 0, offsetof(struct exec, in_buf));
	x.channel = x.event = x.in_wake = x.in_fd = -1;
	x.in = (struct exec_ring){.buf = x.in_buf, .size = sizeof(x.in_buf)};
	x.in_credit = GP_WINDOW_IN / 2;
	for (unsigned i = 0; i < 2; i++) {
		x.out[i].wake = null;
		x.out[i].ring = (struct exec_ring){.buf = x.out[i].buf, .size = GP_WINDOW_OUT};
	}
	gp_in_init(&x.rx, x.body, sizeof(x.body));
	x.id = 1;
	x.again = again;
	x.start_len = 64;
	gp_out_init(&x.tx, x.start_len);
	if (again) {
		MUST(!gp_put(&x.tx, GP_STDIN_END, NULL, 0));
		gp_out_sent(&x.tx, gp_out_piece(&x.tx, &(const uint8_t *){NULL}));
	}
	while (n && !x.done) {
		uint8_t *at;
		size_t want = gp_in_want(&x.rx, &at);
		int rc;

		MUST(want > 0 && at + want <= x.body + sizeof(x.body) + GP_HDR_LEN);
		want = want < step ? want : step;
		want = want < n ? want : n;
		memcpy(at, p, want);
		rc = gp_in_got(&x.rx, want, GP_GUEST);
		if (rc > 0)
			rc = exec_frame(&x);
		if (rc < 0)
			exec_lost(&x, "broken");
		drain(&x, *p);
		p += want;
		n -= want;
	}
	MUST(x.tx.acked <= x.tx.sent && x.tx.sent <= x.tx.head);
	MUST(!x.done ||
	     (x.exit.end >= EXEC_CODE && x.exit.end <= EXEC_LOST && x.exit.value <= 255));
	MUST(memchr(x.exit.text, 0, sizeof(x.exit.text)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t step;

	if (size < 1)
		return 0;
	step = (size_t)(data[0] >> 1 & 63) + 1;
	if (step == 64)
		step = SIZE_MAX;
	if (data[0] & 1)
		from_host(data + 1, size - 1, step);
	else
		from_guest(data + 1, size - 1, step, data[0] & 0x80);
	return 0;
}
