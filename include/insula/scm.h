/*
 * Descriptors that travel with the bytes of a socket: SCM_RIGHTS of unix(7), laid out by cmsg(3).
 * In one place, because each descriptor that is forgotten here is one that a peer can use up.
 * Implemented in src/base. Nothing blocks, nothing allocates.
 */
#ifndef INSULA_SCM_H
#define INSULA_SCM_H

#include <stdbool.h>
#include <sys/socket.h>

#define SCM_MAX_FDS 253 /* the kernel sends no more with one message */

union scm_buf {
	struct cmsghdr align;
	char bytes[CMSG_SPACE(sizeof(int) * SCM_MAX_FDS)];
};

/* Send `n` descriptors (at most SCM_MAX_FDS, 0: none) with a message; they stay the caller's. `b`
 * lives as long as `m`. */
void scm_attach(struct msghdr *m, union scm_buf *b, const int *fds, unsigned n);

/* Room for `n` descriptors in a message that will be received. */
void scm_expect(struct msghdr *m, union scm_buf *b, unsigned n);

/* Take all out of a message that has come: as many as fit are appended, up to fds[max - 1], and are
 * the caller's; the others are closed. True: there were others, or the kernel has left some out. */
bool scm_take(struct msghdr *m, int *fds, unsigned *n, unsigned max);

#endif
