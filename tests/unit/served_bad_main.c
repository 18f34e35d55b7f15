/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A program of a storage module that has been taken over, in its jail (tests/guests/network.sh):
 * GOOD and NONE are ports of 127.0.0.1 that its module may reach, of which NONE has no server, and
 * BAD is one that it may not. It tries what would get it to BAD, or to anything else, by system
 * calls and without the library that asks for it. Each that succeeds is a line; the last line says
 * how many were tried and how many succeeded.
 *
 *   served_bad GOOD NONE BAD
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/netlink.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "devices/module/module_connect.h"

static unsigned tried, escaped;

/* It must not have succeeded. */
static void must_fail(const char *what, long rc)
{
	tried++;
	if (rc < 0)
		return;
	escaped++;
	fprintf(stderr, "%s: %ld\n", what, rc);
}

static struct sockaddr_in at(uint16_t port)
{
	return (struct sockaddr_in){.sin_family = AF_INET,
				    .sin_port = htons(port),
				    .sin_addr = {htonl(INADDR_LOOPBACK)}};
}

/* What the supervisor says to this: a socket, or a negative errno. */
static int ask(uint16_t family, uint16_t port, uint32_t addr)
{
	struct connect_request r = {.family = family, .port = port};
	struct connect_answer a = {0};
	union {
		char room[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} u;
	struct iovec iov = {&a, sizeof(a)};
	struct msghdr m = {.msg_iov = &iov,
			   .msg_iovlen = 1,
			   .msg_control = u.room,
			   .msg_controllen = sizeof(u.room)};
	int fd = -1;

	memcpy(r.addr, &(uint32_t){htonl(addr)}, 4);
	if (write(CONNECT_ASK_FD, &r, sizeof(r)) != sizeof(r) ||
	    recvmsg(CONNECT_ANSWER_FD, &m, 0) != sizeof(a))
		return -EPIPE;
	if (a.code || !CMSG_FIRSTHDR(&m))
		return -a.code;
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof(fd));
	return fd;
}

static void option(int fd, const char *what, int level, int name, const void *value, socklen_t len)
{
	must_fail(what, syscall(SYS_setsockopt, fd, level, name, value, len));
}

/* A socket of the host's network namespace, in whatever state it is. */
static void with_socket(int fd, uint16_t bad)
{
	const struct sockaddr_in to = at(bad);
	const struct sockaddr none = {.sa_family = AF_UNSPEC};
	const struct linger linger = {1, 100};
	const char route[] = {(char)131, 7, 4, 127, 0, 0, 2, 0}; /* a loose source route */
	struct iovec iov = {(void *)(uintptr_t) "x", 1};
	struct msghdr m = {.msg_name = (void *)(uintptr_t)&to,
			   .msg_namelen = sizeof(to),
			   .msg_iov = &iov,
			   .msg_iovlen = 1};
	struct ifreq ifr = {.ifr_name = "lo"};
	struct ifconf conf = {.ifc_len = 0};
	const int on = 1;

	must_fail("connect to no address", syscall(SYS_connect, fd, &none, sizeof(none)));
	must_fail("connect", syscall(SYS_connect, fd, &to, sizeof(to)));
	must_fail("bind", syscall(SYS_bind, fd, &to, sizeof(to)));
	must_fail("sendto", syscall(SYS_sendto, fd, "x", 1, MSG_NOSIGNAL, &to, sizeof(to)));
	must_fail("sendto, fast open",
		  syscall(SYS_sendto, fd, "x", 1, MSG_NOSIGNAL | MSG_FASTOPEN, &to, sizeof(to)));
	must_fail("sendmsg, fast open", syscall(SYS_sendmsg, fd, &m, MSG_NOSIGNAL | MSG_FASTOPEN));
	must_fail("sendmmsg", syscall(SYS_sendmmsg, fd, &m, 1, MSG_FASTOPEN));
	must_fail("io_uring", syscall(SYS_io_uring_setup, 4, &m));
	must_fail("ioctl: interfaces", syscall(SYS_ioctl, fd, SIOCGIFCONF, &conf));
	must_fail("ioctl: address", syscall(SYS_ioctl, fd, SIOCGIFADDR, &ifr));
	must_fail("ioctl: flags", syscall(SYS_ioctl, fd, SIOCSIFFLAGS, &ifr));
	option(fd, "TCP_REPAIR", IPPROTO_TCP, TCP_REPAIR, &on, sizeof(on));
	option(fd, "TCP_FASTOPEN_CONNECT", IPPROTO_TCP, TCP_FASTOPEN_CONNECT, &on, sizeof(on));
	option(fd, "TCP_ULP", IPPROTO_TCP, TCP_ULP, "tls", 4);
	option(fd, "SO_BINDTODEVICE", SOL_SOCKET, SO_BINDTODEVICE, "lo", 3);
	option(fd, "SO_LINGER", SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
	option(fd, "SO_MARK", SOL_SOCKET, SO_MARK, &on, sizeof(on));
	option(fd, "IP_OPTIONS", IPPROTO_IP, IP_OPTIONS, route, sizeof(route));
	option(fd, "IP_TRANSPARENT", IPPROTO_IP, IP_TRANSPARENT, &on, sizeof(on));
	option(fd, "IP_ADD_MEMBERSHIP", IPPROTO_IP, IP_ADD_MEMBERSHIP, &on, sizeof(on));
}

/* listen() says that all is well, and does nothing: under this number, and under that of its own
 * socket. */
static void listening(int fd)
{
	const int own = dup(CONNECT_ASK_FD - 2);
	int is = 1;
	socklen_t len = sizeof(is);

	(void)syscall(SYS_listen, fd, 1);
	if (!getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &is, &len))
		must_fail("listen", is ? 1 : -1);
	dup3(fd, CONNECT_ASK_FD - 2, 0);
	(void)syscall(SYS_listen, CONNECT_ASK_FD - 2, 1);
	if (!getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &is, &len))
		must_fail("listen as its own", is ? 1 : -1);
	dup3(own, CONNECT_ASK_FD - 2, 0);
	must_fail("accept", syscall(SYS_accept4, fd, NULL, NULL, SOCK_NONBLOCK));
}

static void sockets(uint16_t good, uint16_t bad)
{
	static const struct {
		const char *what;
		int family, type, protocol;
	} kinds[] = {
		{"a datagram", AF_INET, SOCK_DGRAM, 0},
		{"a raw socket", AF_INET, SOCK_RAW, IPPROTO_ICMP},
		{"an IPv6 datagram", AF_INET6, SOCK_DGRAM, 0},
		{"MPTCP", AF_INET, SOCK_STREAM, 262},
		{"SCTP", AF_INET, SOCK_STREAM, 132},
		{"a Unix socket", AF_UNIX, SOCK_STREAM, 0},
		{"netlink", AF_NETLINK, SOCK_RAW, NETLINK_ROUTE},
		{"a packet socket", AF_PACKET, SOCK_RAW, 0},
		{"vsock", AF_VSOCK, SOCK_STREAM, 0},
	};
	const int own = (int)syscall(SYS_socket, AF_INET, SOCK_STREAM, 0);
	int pair[2];
	const struct sockaddr_in to = at(good);

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		must_fail(kinds[i].what,
			  syscall(SYS_socket, kinds[i].family, kinds[i].type, kinds[i].protocol));
	must_fail("a pair of sockets", syscall(SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, pair));
	must_fail("connect by itself", syscall(SYS_connect, own, &to, sizeof(to)));
	with_socket(own, bad);
	listening(own);
}

/* What has become of it. */
static int outcome(int fd)
{
	struct pollfd p = {fd, POLLOUT, 0};
	int error = 0;
	socklen_t len = sizeof(error);

	if (poll(&p, 1, 10000) != 1 || getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len))
		return -1;
	return error;
}

int main(int argc, char **argv)
{
	const uint16_t good = argc == 4 ? (uint16_t)atoi(argv[1]) : 0,
		       none = good ? (uint16_t)atoi(argv[2]) : 0,
		       bad = good ? (uint16_t)atoi(argv[3]) : 0;
	int connected, refused;

	sockets(good, bad);
	must_fail("asks for BAD", ask(AF_INET, bad, INADDR_LOOPBACK));
	must_fail("asks for another address", ask(AF_INET, good, INADDR_LOOPBACK + 1));
	must_fail("asks for any address", ask(AF_INET, good, INADDR_ANY));
	must_fail("asks for a Unix socket", ask(AF_UNIX, good, INADDR_LOOPBACK));
	must_fail("asks for another kind", ask(AF_INET6, good, INADDR_LOOPBACK));
	must_fail("sends where it is answered",
		  syscall(SYS_sendto, CONNECT_ANSWER_FD, "x", 1, MSG_NOSIGNAL, NULL, 0));
	connected = ask(AF_INET, good, INADDR_LOOPBACK);
	refused = ask(AF_INET, none, INADDR_LOOPBACK);
	if (connected < 0 || outcome(connected))
		fprintf(stderr, "GOOD: %d\n", connected);
	else
		with_socket(connected, bad);
	listening(connected);
	shutdown(connected, SHUT_RDWR);
	with_socket(connected, bad);
	listening(connected);
	if (refused >= 0) { /* on loopback it may be known at once */
		must_fail("NONE", -outcome(refused));
		with_socket(refused, bad);
		listening(refused);
	}
	fprintf(stderr, "%s%u of %u\n", connected < 0 ? "no connection; " : "", escaped, tried);
	return 1;
}
