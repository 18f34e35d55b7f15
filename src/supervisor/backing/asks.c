/* SPDX-License-Identifier: BSD-2-Clause */
/* Connections for a program of the host. See asks.h. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/log.h>

#include "asks.h"

#define TOKEN_NS (1000000000ull / ASKS_RATE)

void asks_init(struct asks *a, const char *name, void (*broken)(void *ctx), void *ctx)
{
	*a = (struct asks){.name = name, .broken = broken, .ctx = ctx, .ask = -1, .answer = -1};
}

int asks_add(struct asks *a, const struct ask_place *p)
{
	if (a->nplaces == ASKS_PLACES)
		return -ENOSPC;
	a->place[a->nplaces++] = *p;
	return 0;
}

/* ---- what may be reached ---- */

bool asks_same_bits(const uint8_t *a, const uint8_t *b, unsigned bits)
{
	const unsigned whole = bits / 8, rest = bits % 8;

	if (memcmp(a, b, whole) != 0)
		return false;
	return !rest || !((a[whole] ^ b[whole]) >> (8 - rest));
}

bool asks_allows(const struct asks *a, const struct connect_request *r)
{
	for (unsigned i = 0; i < a->nplaces; i++) {
		const struct ask_place *p = &a->place[i];

		if (r->family == p->family && r->port >= p->first && r->port <= p->last &&
		    asks_same_bits(r->addr, p->addr, p->bits))
			return true;
	}
	return false;
}

/* ---- one request ---- */

static socklen_t address_of(const struct connect_request *r, struct sockaddr_storage *to)
{
	struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = htons(r->port)};
	struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons(r->port)};

	if (r->family == AF_INET) {
		memcpy(&four.sin_addr, r->addr, sizeof(four.sin_addr));
		memcpy(to, &four, sizeof(four));
		return sizeof(four);
	}
	memcpy(&six.sin6_addr, r->addr, sizeof(six.sin6_addr));
	memcpy(to, &six, sizeof(six));
	return sizeof(six);
}

int asks_connect(const struct sockaddr_storage *to, socklen_t len)
{
	int fd = socket(to->ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), rc;
	const int on = 1;

	if (fd < 0)
		return -errno;
	if (to->ss_family != AF_UNIX) {
		(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
		(void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	}
	if (!connect(fd, (const struct sockaddr *)to, len) || errno == EINPROGRESS)
		return fd;
	rc = -errno;
	close(fd);
	return rc;
}

static void say_refused(struct asks *a, const struct connect_request *r)
{
	char host[INET6_ADDRSTRLEN] = "?";

	if (a->warned)
		return;
	a->warned = true;
	inet_ntop(r->family == AF_INET6 ? AF_INET6 : AF_INET, r->addr, host, sizeof(host));
	log_warn("%s wants to connect to %s, port %u, which nobody has named: refused, as all "
		 "others will be",
		 a->name, host, r->port);
}

static int serve_one(struct asks *a, const struct connect_request *r)
{
	struct sockaddr_storage to;
	socklen_t len;

	if (asks_allows(a, r)) {
		len = address_of(r, &to);
		return asks_connect(&to, len);
	}
	say_refused(a, r);
	return -EACCES;
}

/* False: it does not take it. */
static bool answer(const struct asks *a, int rc)
{
	union {
		char room[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} u = {{0}};
	struct connect_answer code = {rc < 0 ? -rc : 0};
	struct iovec iov = {&code, sizeof(code)};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
	struct cmsghdr *c;

	if (rc >= 0) {
		m.msg_control = u.room;
		m.msg_controllen = sizeof(u.room);
		c = CMSG_FIRSTHDR(&m);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(rc));
		memcpy(CMSG_DATA(c), &rc, sizeof(rc));
	}
	return sendmsg(a->answer, &m, MSG_DONTWAIT | MSG_NOSIGNAL) == sizeof(code);
}

/* ---- in time ---- */

/* Is there one now? *next_ns: when there will be. */
static bool take_token(struct asks *a, uint64_t *next_ns)
{
	const uint64_t now = clock_ns(), more = (now - a->token_ns) / TOKEN_NS;

	if (more) {
		a->tokens = more > ASKS_BURST - a->tokens ? ASKS_BURST : a->tokens + (unsigned)more;
		a->token_ns = now;
	}
	*next_ns = a->token_ns + TOKEN_NS;
	if (!a->tokens)
		return false;
	a->tokens--;
	return true;
}

static void asks_hear(void *ctx, unsigned events);

static void asks_go_on(void *ctx)
{
	struct asks *a = ctx;

	watch_on(a->timer.loop, &a->watch, a->ask, WATCH_IN, asks_hear, a);
}

static void asks_hear(void *ctx, unsigned events)
{
	struct asks *a = ctx;
	struct connect_request r;
	uint64_t next_ns;
	ssize_t n;
	int rc;

	(void)events;
	if (!take_token(a, &next_ns)) {
		watch_off(&a->watch);
		timer_set(&a->timer, next_ns);
		return;
	}
	n = read(a->ask, &r, sizeof(r));
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) { /* it has ended */
		asks_end(a);
		return;
	}
	rc = n == sizeof(r) ? serve_one(a, &r) : -EINVAL;
	if (n != sizeof(r) || !answer(a, rc)) {
		log_warn("%s does not keep to the rules when it asks for connections: ended",
			 a->name);
		asks_end(a);
		a->broken(a->ctx);
	}
	fd_close(&rc);
}

/* ---- for served.c ---- */

int asks_begin(struct asks *a, struct loop *loop, int *ask, int *answer_fd, struct err *e)
{
	int pair[2] = {-1, -1}, tell[2] = {-1, -1}, rc;

	asks_end(a);
	if (pipe2(pair, O_CLOEXEC) || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, tell) ||
	    fcntl(pair[0], F_SETFL, O_NONBLOCK) || shutdown(tell[0], SHUT_RD)) {
		rc = -errno;
		for (unsigned i = 0; i < 2; i++) {
			fd_close(&pair[i]);
			fd_close(&tell[i]);
		}
		return err_sys(e, rc, "%s: what it asks for connections with", a->name);
	}
	a->ask = pair[0];
	a->answer = tell[0];
	*ask = pair[1];
	*answer_fd = tell[1];
	if (!a->token_ns) {
		a->tokens = ASKS_BURST;
		a->token_ns = clock_ns();
	}
	timer_init(loop, &a->timer, asks_go_on, a);
	watch_on(loop, &a->watch, a->ask, WATCH_IN, asks_hear, a);
	return 0;
}

void asks_end(struct asks *a)
{
	watch_off(&a->watch);
	timer_set(&a->timer, 0);
	fd_close(&a->ask);
	fd_close(&a->answer);
}
