/* SPDX-License-Identifier: BSD-2-Clause */
/* insula-container: `names ADDRESS`: a name server at port 53 of a loopback address, which asks the
 * host. A request that has no answer is its client's to repeat. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "container.h"

#define PORT 53
#define DATAGRAMS 64u /* that wait for an answer; the oldest is forgotten for one more */
#define CLIENTS 16u   /* of TCP; one request of each at a time */
#define MESSAGE_MAX 65535u

struct client {
	int fd; /* -1: the place is free */
	uint32_t ticket;
	bool asked;
	size_t have;
	uint8_t data[2 + MESSAGE_MAX]; /* a message behind its length */
};

static struct {
	int udp, tcp;
	uint32_t ticket;
	struct {
		uint32_t ticket;
		struct sockaddr_in from;
	} datagram[DATAGRAMS];
	struct client client[CLIENTS];
	uint8_t message[MESSAGE_MAX];
} names;

static bool whole(int fd, void *p, size_t len, bool out)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = out ? write(fd, (uint8_t *)p + done, len - done)
				: read(fd, (uint8_t *)p + done, len - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		done += (size_t)n;
	}
	return true;
}

static bool tell_host(uint16_t kind, uint32_t ticket, uint8_t *p, size_t len)
{
	struct ct_names_head h = {.ticket = ticket, .kind = kind, .len = (uint16_t)len};

	return whole(STDOUT_FILENO, &h, sizeof h, true) && whole(STDOUT_FILENO, p, len, true);
}

static int listen_at(int type, struct in_addr at, struct err *e)
{
	const struct sockaddr_in a = {
		.sin_family = AF_INET, .sin_port = htons(PORT), .sin_addr = at};
	int fd = socket(AF_INET, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), on = 1;

	if (fd >= 0)
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (fd < 0 || bind(fd, (const struct sockaddr *)&a, sizeof a) < 0 ||
	    (type == SOCK_STREAM && listen(fd, (int)CLIENTS) < 0))
		return err_sys(e, -errno, "name server at %s", inet_ntoa(at));
	return fd;
}

/* ---- the guest's programs ---- */

static bool on_datagram(void)
{
	struct sockaddr_in from;
	socklen_t len = sizeof from;
	uint32_t slot = names.ticket % DATAGRAMS;
	ssize_t n =
		recvfrom(names.udp, names.message, sizeof names.message, 0, (void *)&from, &len);

	if (n <= 0)
		return true;
	names.datagram[slot].ticket = names.ticket;
	names.datagram[slot].from = from;
	return tell_host(CT_NAMES_UDP, names.ticket++, names.message, (size_t)n);
}

static struct client *free_client(void)
{
	for (unsigned i = 0; i < CLIENTS; i++)
		if (names.client[i].fd < 0)
			return &names.client[i];
	return NULL;
}

static void on_connection(void)
{
	struct client *c = free_client();
	int fd = accept4(names.tcp, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0)
		return;
	c->fd = fd;
	c->have = 0;
	c->asked = false;
}

static void leave(struct client *c)
{
	close(c->fd);
	c->fd = -1;
}

static bool on_client(struct client *c)
{
	size_t want = ct_names_whole(c->data, c->have);
	ssize_t n = read(c->fd, c->data + c->have, want - c->have);

	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return true;
	c->have += n > 0 ? (size_t)n : 0;
	if (n <= 0 || (c->have == 2 && !c->data[0] && !c->data[1]))
		leave(c);
	if (c->fd < 0 || c->have < ct_names_whole(c->data, c->have))
		return true;
	c->asked = true;
	c->ticket = names.ticket++;
	return tell_host(CT_NAMES_TCP, c->ticket, c->data + 2, c->have - 2);
}

/* ---- the host ---- */

static void answer_datagram(const struct ct_names_head *h)
{
	uint32_t slot = h->ticket % DATAGRAMS;

	if (names.datagram[slot].ticket != h->ticket || !names.datagram[slot].from.sin_port)
		return;
	if (h->len)
		sendto(names.udp, names.message, h->len, 0, (void *)&names.datagram[slot].from,
		       sizeof names.datagram[slot].from);
	names.datagram[slot].from.sin_port = 0;
}

/* Who does not read has no answer. */
static void answer_client(struct client *c, size_t len)
{
	c->asked = false;
	c->have = 0;
	c->data[0] = (uint8_t)(len >> 8);
	c->data[1] = (uint8_t)len;
	memcpy(c->data + 2, names.message, len);
	if (!len || write(c->fd, c->data, 2 + len) != (ssize_t)(2 + len))
		leave(c);
}

static bool on_host(void)
{
	struct ct_names_head h;

	if (!whole(STDIN_FILENO, &h, sizeof h, false) ||
	    !whole(STDIN_FILENO, names.message, h.len, false))
		return false;
	if (h.kind == CT_NAMES_UDP)
		answer_datagram(&h);
	for (unsigned i = 0; i < CLIENTS && h.kind == CT_NAMES_TCP; i++) {
		struct client *c = &names.client[i];

		if (c->fd >= 0 && c->asked && c->ticket == h.ticket)
			answer_client(c, h.len);
	}
	return true;
}

static bool turn(void)
{
	struct pollfd p[3 + CLIENTS] = {
		{STDIN_FILENO, POLLIN, 0},
		{names.udp, POLLIN, 0},
		{free_client() ? names.tcp : -1, POLLIN, 0},
	};
	bool goes_on = true;

	/* One that waits for its answer may have said all that it will: its end alone is heard. */
	for (unsigned i = 0; i < CLIENTS; i++)
		p[3 + i] =
			(struct pollfd){names.client[i].fd, names.client[i].asked ? 0 : POLLIN, 0};
	if (poll(p, COUNT(p), -1) < 0)
		return errno == EINTR;
	for (unsigned i = 0; i < CLIENTS && goes_on; i++) {
		if (p[3 + i].revents && names.client[i].asked)
			leave(&names.client[i]);
		else if (p[3 + i].revents)
			goes_on = on_client(&names.client[i]);
	}
	if (goes_on && p[1].revents)
		goes_on = on_datagram();
	if (p[2].revents)
		on_connection();
	return goes_on && p[0].revents ? on_host() : goes_on;
}

int command_names(char **argv)
{
	struct in_addr at;
	struct err e;

	if (inet_pton(AF_INET, argv[0], &at) != 1 || ntohl(at.s_addr) >> 24 != IN_LOOPBACKNET) {
		err_set(&e, -EINVAL, "names \"%.20s\": expected an address in 127.0.0.0/8",
			argv[0]);
		return complain(&e);
	}
	for (unsigned i = 0; i < CLIENTS; i++)
		names.client[i].fd = -1;
	names.udp = listen_at(SOCK_DGRAM, at, &e);
	names.tcp = names.udp < 0 ? -1 : listen_at(SOCK_STREAM, at, &e);
	if (names.tcp < 0)
		return complain(&e);
	if (tell_host(CT_NAMES_READY, 0, NULL, 0))
		while (turn())
			;
	return 0;
}
