/* SPDX-License-Identifier: BSD-2-Clause */
/* Connections to a pod's loopback. See forward.h. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/bpf.h>

#include <insula/base.h>
#include <insula/log.h>

#include "forward.h"

#define BACKLOG 16
#define PER_TURN 16 /* connections of one listener */

/* ---- sockets ---- */

static int listen_on(int family)
{
	struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
	const struct sockaddr *a = family == AF_INET ? (void *)&v4 : (void *)&v6;
	int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), rc;

	if (fd < 0)
		return -errno;
	if (!bind(fd, a, family == AF_INET ? sizeof(v4) : sizeof(v6)) && !listen(fd, BACKLOG))
		return fd;
	rc = -errno;
	close(fd);
	return rc;
}

int forward_accept(int listener, uint16_t *port)
{
	struct sockaddr_in6 own = {.sin6_port = 0};
	socklen_t len = sizeof(own);
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC), rc;

	if (fd < 0)
		return -errno;
	if (getsockname(fd, (struct sockaddr *)&own, &len)) {
		rc = -errno;
		close(fd);
		return rc;
	}
	*port = ntohs(own.sin6_port); /* where sockaddr_in has it, too */
	return fd;
}

/* ---- the program ---- */

static int sys_bpf(int op, union bpf_attr *a, size_t size)
{
	long rc = syscall(SYS_bpf, op, a, size);

	return rc < 0 ? -errno : (int)rc;
}

static int make_map(const int listener[2])
{
	union bpf_attr a = {
		.map_type = BPF_MAP_TYPE_SOCKMAP, .key_size = 4, .value_size = 8, .max_entries = 2};
	int map = sys_bpf(BPF_MAP_CREATE, &a, sizeof(a)), rc = 0;

	for (uint32_t i = 0; map >= 0 && i < 2 && !rc; i++) {
		uint64_t value = (uint64_t)listener[i];

		if (listener[i] < 0)
			continue;
		memset(&a, 0, sizeof(a));
		a.map_fd = (uint32_t)map;
		a.key = (uint64_t)(uintptr_t)&i;
		a.value = (uint64_t)(uintptr_t)&value;
		rc = sys_bpf(BPF_MAP_UPDATE_ELEM, &a, sizeof(a));
	}
	if (rc)
		fd_close(&map);
	return rc ? rc : map;
}

#define INSN(c, d, s, o, i)                                                         \
	{                                                                           \
		.code = (c), .dst_reg = (d), .src_reg = (s), .off = (o), .imm = (i) \
	}
#define LOAD(d, s, o) INSN(BPF_LDX | BPF_W | BPF_MEM, d, s, o, 0)
#define MOVE(d, s) INSN(BPF_ALU64 | BPF_MOV | BPF_X, d, s, 0, 0)
#define SET(d, i) INSN(BPF_ALU64 | BPF_MOV | BPF_K, d, 0, 0, i)
#define UNLESS(d, i, o) INSN(BPF_JMP | BPF_JNE | BPF_K, d, 0, o, i)
#define CALL(f) INSN(BPF_JMP | BPF_CALL, 0, 0, 0, f)
#define CTX(field) offsetof(struct bpf_sk_lookup, field)

/* What is not of TCP to a loopback address is looked up as ever. Addresses are
 * in network order, so the first byte is the lowest of a word here. Jumps go
 * from their own place to one of these. */
enum { AT_IPV6 = 10, AT_LOOKUP = 20, AT_END = 34 };
#define TO(from, to) (short)((to) - (from)-1)

static int load_program(int map)
{
	const struct bpf_insn insn[] = {
		MOVE(6, 1),
		LOAD(2, 6, CTX(protocol)),
		UNLESS(2, IPPROTO_TCP, TO(2, AT_END)),
		LOAD(2, 6, CTX(family)),
		UNLESS(2, AF_INET, TO(4, AT_IPV6)),
		LOAD(3, 6, CTX(local_ip4)),
		INSN(BPF_ALU64 | BPF_AND | BPF_K, 3, 0, 0, 0xff),
		UNLESS(3, 127, TO(7, AT_END)),
		SET(8, 0),
		INSN(BPF_JMP | BPF_JA, 0, 0, TO(9, AT_LOOKUP), 0),
		/* AT_IPV6 */
		UNLESS(2, AF_INET6, TO(10, AT_END)),
		LOAD(3, 6, CTX(local_ip6[0])),
		UNLESS(3, 0, TO(12, AT_END)),
		LOAD(3, 6, CTX(local_ip6[1])),
		UNLESS(3, 0, TO(14, AT_END)),
		LOAD(3, 6, CTX(local_ip6[2])),
		UNLESS(3, 0, TO(16, AT_END)),
		LOAD(3, 6, CTX(local_ip6[3])),
		UNLESS(3, 0x01000000, TO(18, AT_END)),
		SET(8, 1),
		/* AT_LOOKUP: the socket of this number in the map */
		INSN(BPF_STX | BPF_W | BPF_MEM, 10, 8, -4, 0),
		INSN(BPF_LD | BPF_DW | BPF_IMM, 1, BPF_PSEUDO_MAP_FD, 0, map),
		INSN(0, 0, 0, 0, 0),
		MOVE(2, 10),
		INSN(BPF_ALU64 | BPF_ADD | BPF_K, 2, 0, 0, -4),
		CALL(BPF_FUNC_map_lookup_elem),
		INSN(BPF_JMP | BPF_JEQ | BPF_K, 0, 0, TO(26, AT_END), 0),
		MOVE(7, 0),
		MOVE(1, 6),
		MOVE(2, 0),
		SET(3, 0),
		CALL(BPF_FUNC_sk_assign),
		MOVE(1, 7),
		CALL(BPF_FUNC_sk_release),
		/* AT_END */
		SET(0, SK_PASS),
		INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0),
	};
	static const char license[] = "Dual BSD/GPL";
	union bpf_attr a = {.prog_type = BPF_PROG_TYPE_SK_LOOKUP,
			    .expected_attach_type = BPF_SK_LOOKUP,
			    .insns = (uint64_t)(uintptr_t)insn,
			    .insn_cnt = ARRAY_LEN(insn),
			    .license = (uint64_t)(uintptr_t)license};

	return sys_bpf(BPF_PROG_LOAD, &a, sizeof(a));
}

static int attach(int program)
{
	int ns = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC), rc;
	union bpf_attr a = {.link_create = {.prog_fd = (uint32_t)program,
					    .target_fd = (uint32_t)ns,
					    .attach_type = BPF_SK_LOOKUP}};

	if (ns < 0)
		return -errno;
	rc = sys_bpf(BPF_LINK_CREATE, &a, sizeof(a));
	close(ns);
	return rc;
}

/* The link holds the program, and that the map. */
static int steer(struct forward *f, struct err *e)
{
	int map = make_map(f->listener), program;

	if (map < 0)
		return err_sys(e, map, "port-forward: BPF map of sockets");
	program = load_program(map);
	fd_close(&map);
	if (program < 0)
		return err_sys(e, program, "port-forward: BPF program sk_lookup");
	f->link = attach(program);
	fd_close(&program);
	return f->link < 0 ? err_sys(e, f->link, "port-forward: BPF link to the namespace") : 0;
}

int forward_open(struct forward *f, struct err *e)
{
	int rc;

	*f = (struct forward){.listener = {listen_on(AF_INET), -1}, .link = -1};
	if (f->listener[0] < 0)
		return err_sys(e, f->listener[0], "port-forward: 127.0.0.1");
	f->listener[1] = listen_on(AF_INET6);
	rc = steer(f, e);
	if (rc)
		forward_close(f);
	return rc;
}

void forward_close(struct forward *f)
{
	fd_close(&f->link);
	fd_close(&f->listener[0]);
	fd_close(&f->listener[1]);
}

/* ---- serving ---- */

static void serve(int listener, forward_connect *connect, void *ctx)
{
	for (int i = 0; i < PER_TURN; i++) {
		struct err e = {0};
		uint16_t port = 0;
		int fd = forward_accept(listener, &port);

		if (fd < 0)
			return;
		if (connect(ctx, port, fd, &e))
			log_warn("port-forward: port %u: %s", port, e.text);
		close(fd);
	}
}

int forward_run(struct forward *f, int fd, forward_connect *connect, forward_turn *turn, void *ctx)
{
	for (;;) {
		struct pollfd p[3] = {{.fd = fd, .events = POLLIN},
				      {.fd = f->listener[0], .events = POLLIN},
				      {.fd = f->listener[1], .events = POLLIN}};
		int rc = poll(p, 3, -1);

		if (rc < 0 && errno != EINTR)
			return -errno;
		if (rc < 0)
			continue;
		if (p[0].revents && (rc = turn(ctx)))
			return rc;
		for (int i = 0; i < 2; i++) {
			if (p[1 + i].revents)
				serve(f->listener[i], connect, ctx);
		}
	}
}
