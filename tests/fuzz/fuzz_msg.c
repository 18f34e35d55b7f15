/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The channel, with any packets on it. Input: packets, each 4 bytes (struct packet) and its own
 * bytes; they are received by msg_recv() into a buffer of a chosen size, or by msg_expect().
 *
 * Besides not crashing: lengths and counts are what the packet had, a refusal keeps no descriptor
 * open, and nothing blocks. A body that is long enough for a memory map is taken for one.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/proto.h>

#include "must.h"

#define MOST_FDS 40 /* more than a message may have */
struct packet {
	uint16_t len; /* of this packet, modulo what is left */
	uint8_t nfds; /* modulo MOST_FDS + 1 */
	uint8_t how;  /* 0-63: expect message `how` with as many bytes as an msg_dev; else receive
			 into how * 4 bytes */
};
_Static_assert(sizeof(struct packet) == 4, "the head of a packet");

static void send_packet(int sock, const uint8_t *bytes, size_t len, unsigned nfds)
{
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(sizeof(int) * MOST_FDS)];
	} ctl;
	struct iovec iov = {(void *)(uintptr_t)bytes, len};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};

	memset(&ctl, 0, sizeof(ctl));
	if (nfds) {
		m.msg_control = ctl.buf;
		m.msg_controllen = CMSG_SPACE(sizeof(int) * nfds);
		struct cmsghdr *c = CMSG_FIRSTHDR(&m);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * nfds);
		for (unsigned i = 0; i < nfds; i++)
			memcpy(CMSG_DATA(c) + i * sizeof(int), &sock, sizeof(int));
	}
	MUST(sendmsg(sock, &m, 0) == (ssize_t)len);
}

/* A map that passes describes memory that can be given out: pages, disjoint on both sides. */
static void check_map(const uint8_t *body, size_t n, unsigned nfds)
{
	struct memmap m;
	struct err e = {0};

	if (n < sizeof(m))
		return;
	memcpy(&m, body, sizeof(m));
	if (memmap_check(&m, nfds, &e)) {
		MUST(e.code == -EINVAL && e.text[0] && !strchr(e.text, '\n'));
		return;
	}
	MUST(m.nregions <= MEMMAP_MAX);
	for (unsigned i = 0; i < m.nregions; i++) {
		const struct mem_region *a = &m.region[i];

		MUST(a->size && a->gpa + a->size > a->gpa && a->offset + a->size > a->offset);
		MUST((a->gpa | a->size | a->offset) % MEMMAP_PAGE == 0 && a->fd < nfds &&
		     !(a->flags & ~(uint32_t)MEMMAP_ADDED));
		MUST(!i || a->flags || !m.region[i - 1].flags); /* what is added comes last */
		for (unsigned k = 0; k < i; k++) {
			const struct mem_region *b = &m.region[k];

			MUST(b->gpa + b->size <= a->gpa);
			MUST(a->fd != b->fd || b->offset + b->size <= a->offset ||
			     a->offset + a->size <= b->offset);
		}
	}
}

static void receive(int sock, const uint8_t *bytes, size_t len, unsigned nfds, size_t room)
{
	int fds[MSG_MAX_FDS];
	uint8_t *body = malloc(room + !room);
	enum msg_type type;
	size_t n = SIZE_MAX;
	unsigned k = 0;
	struct msg_hdr h;
	int rc = msg_recv(sock, &type, body, room, &n, fds, &k);

	if (!rc) {
		memcpy(&h, bytes, sizeof(h));
		MUST(len == sizeof(h) + n && n <= room && n == h.len && k == nfds && k == h.nfds &&
		     h.version == MSG_VERSION);
		MUST((uint32_t)type == h.type && !memcmp(body, bytes + sizeof(h), n));
		check_map(body, n, k);
		for (unsigned i = 0; i < k; i++)
			close(fds[i]);
	} else {
		MUST(rc == -EPROTO || (rc == -EPIPE && len == 0 && nfds == 0));
	}
	free(body);
}

static void expect(int sock, enum msg_type type, unsigned nfds)
{
	struct msg_dev body;
	int fds[MSG_MAX_FDS];
	struct err e = {0};
	int rc = msg_expect(sock, type, &body, sizeof(body), fds, nfds, &e);

	for (unsigned i = 0; !rc && i < nfds; i++)
		close(fds[i]);
	if (rc)
		MUST(rc < 0 && rc >= -4095 && e.code == rc && e.text[0] && !strchr(e.text, '\n'));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int pair[2], first = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 0), again;
	struct packet p;

	close(first);
	MUST(!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair));
	while (size >= sizeof(p)) {
		memcpy(&p, data, sizeof(p));
		data += sizeof(p);
		size -= sizeof(p);
		size_t len = p.len <= size ? p.len : size;
		unsigned nfds = p.nfds % (MOST_FDS + 1);

		send_packet(pair[0], data, len, nfds);
		if (p.how < 64)
			expect(pair[1], (enum msg_type)p.how, nfds <= MSG_MAX_FDS ? nfds : 0);
		else
			receive(pair[1], data, len, nfds, (p.how - 64u) * 4);
		data += len;
		size -= len;
	}
	close(pair[0]);
	close(pair[1]);
	/* The lowest free descriptor is the one it was. */
	again = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 0);
	MUST(again == first);
	close(again);
	return 0;
}
