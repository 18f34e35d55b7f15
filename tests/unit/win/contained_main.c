/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The child of test_win.c: is asked about handles by their values, and says for each whether it
 * has it; then waits for the end of its channel.
 *
 *   MSG_START with descriptors  ->  MSG_STOPPED, a struct msg_stats: n[0] bit i: descriptor i
 * is there
 */
#include <windows.h>

#include <insula/base.h>
#include <insula/jail.h>
#include <insula/proto.h>

#include "os/win/win.h"

int main(void)
{
	struct msg_stats s = {0};
	int fds[MSG_MAX_FDS];
	enum msg_type type;
	unsigned n;
	size_t len;

	jail_enter();
	if (msg_recv(MSG_CHANNEL_FD, &type, &s, sizeof(s), &len, fds, &n))
		return 2;
	s = (struct msg_stats){0};
	for (unsigned i = 0; i < n; i++) {
		DWORD flags;

		s.n[0] |= (uint64_t)(GetHandleInformation(fd_handle(fds[i]), &flags) != 0) << i;
	}
	if (msg_send(MSG_CHANNEL_FD, MSG_STOPPED, &s, sizeof(s), NULL, 0))
		return 3;
	return msg_recv(MSG_CHANNEL_FD, &type, &s, sizeof(s), &len, fds, &n) == -EPIPE ? 0 : 4;
}
