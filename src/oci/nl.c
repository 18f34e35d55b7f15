/* SPDX-License-Identifier: BSD-2-Clause */
/* rtnetlink. See nl.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <insula/base.h>

#include "nl.h"

#define ANSWER_MAX 65536u
#define ANSWER_SECONDS 5

int nl_open(struct nl *n, struct err *e)
{
	struct timeval t = {.tv_sec = ANSWER_SECONDS};

	*n = (struct nl){.fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE)};
	if (n->fd < 0)
		return err_sys(e, -errno, "netlink");
	setsockopt(n->fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof(t));
	return 0;
}

void nl_close(struct nl *n)
{
	fd_close(&n->fd);
}

/* ---- requests ---- */

void nlreq_init(struct nlreq *r, uint16_t type, uint16_t flags, const void *body, size_t len)
{
	memset(r, 0, sizeof(*r));
	r->h = (struct nlmsghdr){.nlmsg_len = (uint32_t)(NLMSG_HDRLEN + NLMSG_ALIGN(len)),
				 .nlmsg_type = type,
				 .nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags)};
	memcpy(r->text + NLMSG_HDRLEN, body, len);
}

void nlreq_put(struct nlreq *r, uint16_t type, const void *data, size_t len)
{
	struct rtattr a = {.rta_len = (uint16_t)(sizeof(a) + len), .rta_type = type};
	size_t at = r->h.nlmsg_len;

	if (r->full || at + RTA_ALIGN(sizeof(a) + len) > sizeof(r->text)) {
		r->full = true;
		return;
	}
	memcpy(r->text + at, &a, sizeof(a));
	if (len)
		memcpy(r->text + at + sizeof(a), data, len);
	r->h.nlmsg_len = (uint32_t)(at + RTA_ALIGN(sizeof(a) + len));
}

void nlreq_text(struct nlreq *r, uint16_t type, const char *text)
{
	nlreq_put(r, type, text, strlen(text) + 1);
}

void nlreq_u32(struct nlreq *r, uint16_t type, uint32_t v)
{
	nlreq_put(r, type, &v, sizeof(v));
}

size_t nlreq_nest(struct nlreq *r, uint16_t type)
{
	size_t at = r->h.nlmsg_len;

	nlreq_put(r, type, NULL, 0);
	return at;
}

void nlreq_end(struct nlreq *r, size_t nest)
{
	uint16_t len = (uint16_t)(r->h.nlmsg_len - nest);

	if (!r->full)
		memcpy(r->text + nest, &len, sizeof(len)); /* rta_len stands first */
}

static int nl_send(struct nl *n, struct nlmsghdr *h)
{
	struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};

	h->nlmsg_seq = ++n->seq;
	if (sendto(n->fd, h, h->nlmsg_len, 0, (struct sockaddr *)&kernel, sizeof(kernel)) < 0)
		return -errno;
	return 0;
}

static ssize_t nl_receive(struct nl *n, char *buf)
{
	struct sockaddr_nl from = {.nl_pid = 0};
	socklen_t len = sizeof(from);
	ssize_t got;

	do {
		got = recvfrom(n->fd, buf, ANSWER_MAX, MSG_TRUNC, (struct sockaddr *)&from, &len);
	} while ((got < 0 && errno == EINTR) || (got >= 0 && from.nl_pid)); /* not the kernel's */
	if (got < 0)
		return errno == EAGAIN ? -ETIMEDOUT : -errno;
	return got > (ssize_t)ANSWER_MAX ? -EMSGSIZE : got;
}

/* The whole message at *at of `got` bytes, and *at behind it; NULL: there is none. */
static const struct nlmsghdr *next_message(const char *buf, size_t got, size_t *at)
{
	const struct nlmsghdr *h = (const void *)(buf + *at);

	if (*at >= got || got - *at < sizeof(*h) || h->nlmsg_len < sizeof(*h) ||
	    h->nlmsg_len > got - *at)
		return NULL;
	*at += NLMSG_ALIGN((size_t)h->nlmsg_len);
	return h;
}

static int error_of(const struct nlmsghdr *h)
{
	struct nlmsgerr m;

	if (h->nlmsg_len < NLMSG_HDRLEN + sizeof(m))
		return -EBADMSG;
	memcpy(&m, (const char *)h + NLMSG_HDRLEN, sizeof(m));
	return m.error;
}

int nl_do(struct nl *n, struct nlreq *r)
{
	char *buf;
	int rc;

	if (r->full)
		return -EMSGSIZE;
	buf = malloc(ANSWER_MAX);
	if (!buf)
		return -ENOMEM;
	r->h.nlmsg_flags |= NLM_F_ACK;
	rc = nl_send(n, &r->h);
	for (bool done = rc != 0; !done;) {
		ssize_t got = nl_receive(n, buf);
		const struct nlmsghdr *h;
		size_t at = 0;

		if (got < 0) {
			rc = (int)got;
			break;
		}
		while ((h = next_message(buf, (size_t)got, &at))) {
			if (h->nlmsg_seq != n->seq || h->nlmsg_type != NLMSG_ERROR)
				continue;
			rc = error_of(h);
			done = true;
		}
	}
	free(buf);
	return rc;
}

/* ---- dumps ---- */

void nl_attributes(const void *from, size_t len, const struct rtattr **attr)
{
	for (unsigned i = 0; i < NL_ATTR_MAX; i++)
		attr[i] = NULL;
	for (size_t at = 0; len - at >= sizeof(struct rtattr) && at < len;) {
		const struct rtattr *a = (const void *)((const char *)from + at);
		unsigned type = a->rta_type & 0x3fffu; /* without NLA_F_* */

		if (a->rta_len < sizeof(*a) || a->rta_len > len - at)
			break;
		if (type < NL_ATTR_MAX)
			attr[type] = a;
		at += RTA_ALIGN((size_t)a->rta_len);
	}
}

size_t nl_size(const struct rtattr *a)
{
	return a ? a->rta_len - sizeof(*a) : 0;
}

const void *nl_data(const struct rtattr *a)
{
	return a + 1;
}

uint32_t nl_u32(const struct rtattr *a, uint32_t otherwise)
{
	uint32_t v = otherwise;

	if (nl_size(a) >= sizeof(v))
		memcpy(&v, nl_data(a), sizeof(v));
	return v;
}

static int dump_message(const struct nlmsghdr *h, size_t body_len, nl_fn *fn, void *ctx)
{
	const struct rtattr *attr[NL_ATTR_MAX];
	const char *body = (const char *)h + NLMSG_HDRLEN;
	size_t head = NLMSG_HDRLEN + NLMSG_ALIGN(body_len);

	if (h->nlmsg_len < head)
		return 0;
	nl_attributes((const char *)h + head, h->nlmsg_len - head, attr);
	return fn(ctx, body, attr);
}

/* 1: it was the last part. */
static int dump_part(struct nl *n, char *buf, size_t body_len, nl_fn *fn, void *ctx, int *result)
{
	ssize_t got = nl_receive(n, buf);
	const struct nlmsghdr *h;
	size_t at = 0;

	if (got < 0) {
		*result = (int)got;
		return 1;
	}
	while ((h = next_message(buf, (size_t)got, &at))) {
		if (h->nlmsg_seq != n->seq)
			continue;
		if (h->nlmsg_type == NLMSG_DONE)
			return 1;
		if (h->nlmsg_type == NLMSG_ERROR) {
			*result = error_of(h);
			return 1;
		}
		/* After an error the rest is read, but nobody is called. */
		if (!*result)
			*result = dump_message(h, body_len, fn, ctx);
	}
	return 0;
}

int nl_dump(struct nl *n, uint16_t type, const void *body, size_t body_len, nl_fn *fn, void *ctx)
{
	struct nlreq r;
	char *buf = malloc(ANSWER_MAX);
	int rc;

	if (!buf)
		return -ENOMEM;
	nlreq_init(&r, type, NLM_F_DUMP, body, body_len);
	rc = nl_send(n, &r.h);
	if (!rc) {
		while (!dump_part(n, buf, body_len, fn, ctx, &rc))
			;
	}
	free(buf);
	return rc;
}
