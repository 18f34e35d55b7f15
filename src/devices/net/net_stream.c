/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A stream socket as the backing of a network device: frames without a header, each behind its
 * length in 32 bits, big endian.
 *
 * Input comes in large reads into a buffer of our own, because a frame's length is only known when
 * it has been read, and one system call brings many frames; that costs one copy. Output goes from
 * guest memory straight into the socket; what the socket does not take of a frame is copied and
 * written first the next time.
 *
 * Where in a frame a process was when it was killed is not recorded: each process gets a connection
 * of its own from the supervisor. A stream that ends is replaced by another one in the same
 * process; what was half read or half written is forgotten.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/ethernet.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <insula/base.h>

#include "devices/iov.h"
#include "net_backing.h"

static int result(ssize_t n)
{
	if (n > 0)
		return 0;
	if (n == 0 || errno == EPIPE || errno == ECONNRESET)
		return -EPIPE;
	return errno == EINTR ? -EAGAIN : -errno;
}

static int stream_flush(struct net_backing *b)
{
	while (b->out_at < b->out_end) {
		ssize_t n = write(b->fd, b->out + b->out_at, b->out_end - b->out_at);

		if (n <= 0)
			return result(n);
		b->out_at += (uint32_t)n;
	}
	b->out_at = b->out_end = 0;
	return 0;
}

/* The rest of a frame that was begun must follow, whatever the guest does to its memory. */
static void keep_rest(struct net_backing *b, const struct iovec *iov, unsigned n, size_t done,
		      size_t total)
{
	b->out_at = 0;
	b->out_end = (uint32_t)iov_get(iov, n, done, b->out, total - done);
}

/* Would a socket of the host that is connected to where this goes be connected to the host itself?
 * 0.0.0.0 and :: are loopback addresses to connect(), and IPv4 has its place in IPv6. */
static bool to_loopback(const uint8_t *frame, size_t len)
{
	static const uint8_t zero[10];
	unsigned type = (unsigned)frame[12] << 8 | frame[13];

	if (type == ETHERTYPE_IP && len >= NET_ETH_LEN + 20)
		return frame[NET_ETH_LEN + 16] == IN_LOOPBACKNET || frame[NET_ETH_LEN + 16] == 0;
	if (type == ETHERTYPE_IPV6 && len >= NET_ETH_LEN + 40)
		return !memcmp(frame + NET_ETH_LEN + 24, zero, sizeof(zero));
	return false;
}

/* A frame is looked at in a copy: the guest could change its own meanwhile. */
static int send_copy(struct net_backing *b, uint32_t prefix, const struct iovec *frame, unsigned n,
		     size_t len)
{
	int rc;

	memcpy(b->out, &prefix, sizeof(prefix));
	iov_get(frame, n, 0, b->out + sizeof(prefix), len);
	if (to_loopback(b->out + sizeof(prefix), len))
		return -EACCES;
	b->out_end = (uint32_t)(sizeof(prefix) + len);
	rc = stream_flush(b);
	return rc == -EAGAIN ? 0 : rc;
}

static int stream_send(struct net_backing *b, const struct virtio_net_hdr_v1 *h, struct iovec *iov,
		       unsigned n, size_t len)
{
	uint32_t prefix = htonl((uint32_t)len);
	size_t total = sizeof(prefix) + len;
	ssize_t done;
	int rc = stream_flush(b);

	(void)h;
	if (rc)
		return rc;
	if (b->no_loopback)
		return send_copy(b, prefix, iov + 1, n, len);
	iov[0] = (struct iovec){.iov_base = &prefix, .iov_len = sizeof(prefix)};
	done = writev(b->fd, iov, (int)n + 1);
	if (done <= 0)
		return result(done);
	if ((size_t)done < total)
		keep_rest(b, iov, n + 1, (size_t)done, total);
	return 0;
}

/* One read, with the beginning of the next frame moved to the front. */
static int net_stream_fill(struct net_backing *b)
{
	ssize_t n;

	memmove(b->in, b->in + b->in_at, b->in_end - b->in_at);
	b->in_end -= b->in_at;
	b->in_at = 0;
	n = read(b->fd, b->in + b->in_end, NET_STREAM_IN - b->in_end);
	if (n <= 0)
		return result(n);
	b->in_end += (uint32_t)n;
	return 0;
}

/* Length of the frame at in_at; -EAGAIN: not all of it is there. */
static int whole_frame(const struct net_backing *b)
{
	uint32_t have = b->in_end - b->in_at, len;

	if (have < sizeof(len))
		return -EAGAIN;
	memcpy(&len, b->in + b->in_at, sizeof(len));
	len = ntohl(len);
	if (len == 0 || len > NET_MAX_FRAME)
		return -EPROTO;
	return have - sizeof(len) >= len ? (int)len : -EAGAIN;
}

static ssize_t stream_recv(struct net_backing *b, struct iovec *iov, unsigned n)
{
	static const uint8_t no_header[NET_HDR_LEN];
	int len = whole_frame(b), rc = 0;

	if (len == -EAGAIN) {
		rc = net_stream_fill(b);
		len = rc ? rc : whole_frame(b);
	}
	if (len < 0)
		return len;
	iov_put(iov, n, 0, no_header, sizeof(no_header));
	iov_put(iov, n, NET_HDR_LEN, b->in + b->in_at + sizeof(uint32_t), (size_t)len);
	b->in_at += (uint32_t)sizeof(uint32_t) + (uint32_t)len;
	return len < (int)NET_ETH_LEN ? -EINVAL : (ssize_t)NET_HDR_LEN + len;
}

static int stream_offload(struct net_backing *b, uint64_t features)
{
	(void)b;
	(void)features;
	return 0;
}

static void stream_rules(const struct net_backing *b, struct rule_list *l)
{
	rule_fd(l, SYS_read, b->fd, "receive frames");
	rule_fd(l, SYS_writev, b->fd, "send a frame");
	rule_fd(l, SYS_write, b->fd, "send the rest of a frame");
	rule_arg(l, SYS_dup3,
		 (struct jail_arg){.index = 1, .cmp = JAIL_EQ, .value = (uint64_t)(unsigned)b->fd},
		 (struct jail_arg){0}, "the next stream takes the place of one that has ended");
	rule_any(l, SYS_close, "the number under which the next stream came");
}

/* The rules name the number of the first stream, so every other gets it too. */
static void stream_replace(struct net_backing *b, int fd)
{
	if (dup3(fd, b->fd, O_CLOEXEC) < 0)
		panic("the next stream: %d", errno);
	close(fd);
	b->in_at = b->in_end = b->out_at = b->out_end = 0;
}

const struct net_backing_ops net_stream = {
	.send = stream_send,
	.recv = stream_recv,
	.flush = stream_flush,
	.replace = stream_replace,
	.offload = stream_offload,
	.rules = stream_rules,
};
