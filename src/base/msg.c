/* SPDX-License-Identifier: BSD-2-Clause */
/* What the two ends of the channel have in common on all systems. See insula/proto.h. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <insula/base.h>
#include <insula/proto.h>

static void close_all(int *fds, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		fd_close(&fds[i]);
}

/* The peer said MSG_FAILED instead of what was expected. */
static int report_failed(struct msg_failed *f, struct err *e)
{
	f->step[sizeof(f->step) - 1] = 0;
	f->text[sizeof(f->text) - 1] = 0;
	if (f->code >= 0 || f->code < -4095)
		f->code = -EPROTO;
	return err_set(e, f->code, "%s: %s", f->step, f->text);
}

int msg_expect(int sock, enum msg_type type, void *body, size_t len, int *fds, unsigned nfds,
	       struct err *e)
{
	union {
		struct msg_failed failed;
		uint8_t bytes[MSG_MAX_BODY];
	} b;
	int got[MSG_MAX_FDS];
	enum msg_type t = 0;
	size_t n = 0;
	unsigned k = 0;
	int rc = msg_recv(sock, &t, &b, sizeof(b), &n, got, &k);

	if (rc)
		return err_sys(e, rc, "channel");
	if (t == MSG_FAILED && n == sizeof(b.failed) && k == 0)
		return report_failed(&b.failed, e);
	if (t != type || n != len || k != nfds) {
		close_all(got, k);
		return err_set(
			e, -EPROTO,
			"channel: message %d of %zu bytes with %u descriptors, expected %d of "
			"%zu with %u",
			(int)t, n, k, (int)type, len, nfds);
	}
	if (len)
		memcpy(body, b.bytes, len);
	if (nfds)
		memcpy(fds, got, sizeof(int) * nfds);
	return 0;
}

void msg_fail(int sock, const char *step, int code, const char *text, int bad_input)
{
	struct msg_failed f = {.code = code, .bad_input = (uint32_t)bad_input};

	snprintf(f.step, sizeof(f.step), "%s", step);
	snprintf(f.text, sizeof(f.text), "%s", text);
	(void)msg_send(sock, MSG_FAILED, &f, sizeof(f), NULL, 0);
}
