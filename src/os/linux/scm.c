/* SPDX-License-Identifier: BSD-2-Clause */
/* Descriptors with messages. See insula/scm.h. */
#include <string.h>
#include <unistd.h>

#include <insula/scm.h>

void scm_attach(struct msghdr *m, union scm_buf *b, const int *fds, unsigned n)
{
	struct cmsghdr *c;

	if (!n)
		return;
	m->msg_control = b->bytes;
	m->msg_controllen = CMSG_SPACE(sizeof(int) * n);
	memset(b->bytes, 0, m->msg_controllen);
	c = CMSG_FIRSTHDR(m);
	*c = (struct cmsghdr){CMSG_LEN(sizeof(int) * n), SOL_SOCKET, SCM_RIGHTS};
	memcpy(CMSG_DATA(c), fds, sizeof(int) * n);
}

void scm_expect(struct msghdr *m, union scm_buf *b, unsigned n)
{
	m->msg_control = b->bytes;
	m->msg_controllen = CMSG_SPACE(sizeof(int) * n);
}

bool scm_take(struct msghdr *m, int *fds, unsigned *n, unsigned max)
{
	bool more = m->msg_flags & MSG_CTRUNC;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
		size_t k = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < k; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
			if (*n < max) {
				fds[(*n)++] = fd;
			} else {
				close(fd);
				more = true;
			}
		}
	}
	return more;
}
