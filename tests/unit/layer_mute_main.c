/* SPDX-License-Identifier: BSD-2-Clause */
/* An insula-layer that a layer has taken over: it closes each stream, and says nothing any more. For
 * test_oci_image.c. */
#include <sys/syscall.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/layer.h>
#include <insula/proto.h>

#include "devices/program.h"

static int mute_check(const void *start, const struct start_fds *f, struct err *e)
{
	(void)start;
	return start_expect(f, START_OWN, 1, e);
}

static int mute_open(void *dev, struct helper *h, const void *start, const struct start_fds *f,
		     const char **step, struct err *e)
{
	(void)dev;
	(void)h;
	(void)start;
	(void)f;
	(void)step;
	(void)e;
	return 0;
}

static void mute_rules(const void *dev, struct rule_list *l)
{
	(void)dev;
	rule_any(l, SYS_close, "the stream");
}

static int mute_loop(void *dev)
{
	int fds[MSG_MAX_FDS];
	enum msg_type type;
	unsigned nfds;
	char body[16];
	size_t len;

	(void)dev;
	while (!msg_recv(MSG_CHANNEL_FD, &type, body, sizeof(body), &len, fds, &nfds)) {
		for (unsigned i = 0; i < nfds; i++)
			close(fds[i]);
	}
	return 0;
}

int main(void)
{
	helper_main(
		&(struct helper_program){.start = MSG_START_LAYER,
					 .start_size = sizeof(struct msg_start_layer),
					 .log_level = offsetof(struct msg_start_layer, log_level),
					 .check = mute_check,
					 .open = mute_open,
					 .rules = mute_rules,
					 .loop = mute_loop});
}
