/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The bytes of a connection, by as few system calls as there can be: what a library sends in small
 * pieces is sent at once at the end of a turn, and what it reads in small pieces has been read at
 * once. Large pieces go straight between the socket and the library's memory (which is the
 * guest's).
 *
 * handed.h puts it under a library. One thread. Nothing blocks: the socket does not.
 */
#ifndef MODULES_STREAM_H
#define MODULES_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#define STREAM_ROOM 65536u /* bytes of what waits to be sent, and of what has been read */

struct stream {
	int fd;
	bool big; /* what comes is long: to read ahead would be to copy it */
	bool over; /* the socket has ended or failed: `error`, 0 for an end, behind what is in `in` */
	int error;
	size_t in_at, in_len, out_at, out_len; /* from, and how much */
	uint8_t in[STREAM_ROOM], out[STREAM_ROOM];
};

/* For a connection: nothing is in it. */
void stream_begin(struct stream *s, int fd);
/* Is there something that stream_recv() would give, an end or an error too? If nothing has been read,
 * it tries. */
bool stream_fill(struct stream *s);
/* As recv() without flags: bytes, 0 at the end, -1 with errno. */
ssize_t stream_recv(struct stream *s, void *to, size_t len);
/* As writev(): what it takes is the stream's, and may be sent by stream_flush() alone. An error is
 * of something that it has taken before. */
ssize_t stream_send(struct stream *s, const struct iovec *iov, int n);
/* Send what waits. 0; -EAGAIN: some of it still does, until the socket can be written to; or another
 * negative errno: the connection is no use any more. */
int stream_flush(struct stream *s);

#endif
