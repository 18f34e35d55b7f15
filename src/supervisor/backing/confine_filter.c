/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The system calls of a confined program: a filter that makes no namespaces, or one that lets
 * nothing pass but the plan's calls. It is written out in BPF, because the child between clone and
 * exec makes system calls only, and libseccomp allocates.
 */
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <insula/base.h>

#include "confine_child.h"

#define NAMESPACES                                                                                 \
	(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | \
	 CLONE_NEWCGROUP)
#define X32_BIT 0x40000000u
#define FILTER_MAX 768

struct filter {
	struct sock_filter f[FILTER_MAX];
	unsigned short n;
};

static void filter_add(struct filter *l, struct sock_filter f)
{
	if (l->n == FILTER_MAX) {
		errno = ENOSPC;
		confine_failed("the list of system calls");
	}
	l->f[l->n++] = f;
}

/* If it is this call, that is the answer. */
static void filter_call(struct filter *l, unsigned call, unsigned answer)
{
	filter_add(l, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1));
	filter_add(l, (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, answer));
}

/* Of these bits of an argument it has that value. */
struct filter_arg {
	unsigned nth;
	uint32_t bits, value;
	bool high; /* of its upper half */
};

/* If it is this call, and all of these hold, it may be made. What is loaded afterwards is the
 * number of the call, again. */
static void filter_if(struct filter *l, unsigned call, const struct filter_arg *arg, unsigned n)
{
	const unsigned end = 4 * n + 1; /* instructions behind the first */

	filter_add(l, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0,
						   (uint8_t)(end + 1)));
	for (unsigned i = 0; i < n; i++) {
		const uint32_t at = (uint32_t)(offsetof(struct seccomp_data, args) +
					       8 * arg[i].nth + (arg[i].high ? 4 : 0));

		filter_add(l, (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, at));
		filter_add(l, (struct sock_filter)BPF_STMT(BPF_ALU | BPF_AND | BPF_K, arg[i].bits));
		filter_add(l, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, arg[i].value,
							   1, 0));
		filter_add(l, (struct sock_filter)BPF_STMT(BPF_JMP | BPF_JA, end - 4 * i - 4));
	}
	filter_add(l, (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
	filter_add(l, (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
						   offsetof(struct seccomp_data, nr)));
}

/* If it is this call, its first argument decides: of these bits it must have that value. */
static void filter_first(struct filter *l, unsigned call, uint32_t bits, uint32_t value)
{
	const struct filter_arg first = {0, bits, value, false};

	filter_if(l, call, &first, 1);
	filter_call(l, call, SECCOMP_RET_ERRNO | EPERM);
}

/* ---- a network ---- */

static const struct {
	int level, name;
} socket_options[] = {
	{SOL_SOCKET, SO_REUSEADDR},  {SOL_SOCKET, SO_KEEPALIVE},      {SOL_SOCKET, SO_SNDBUF},
	{SOL_SOCKET, SO_RCVBUF},     {SOL_SOCKET, SO_PRIORITY},       {IPPROTO_TCP, TCP_NODELAY},
	{IPPROTO_TCP, TCP_QUICKACK}, {IPPROTO_TCP, TCP_KEEPIDLE},     {IPPROTO_TCP, TCP_KEEPINTVL},
	{IPPROTO_TCP, TCP_KEEPCNT},  {IPPROTO_TCP, TCP_USER_TIMEOUT}, {IPPROTO_IP, IP_TOS},
	{IPPROTO_IPV6, IPV6_TCLASS},
};

/*
 * The sockets that a program is given (asks.h) are of the supervisor's network namespace, where
 * much could be done with them that is not sending and receiving. So there is no connect(), bind()
 * or ioctl() in any list, and here is what is left of:
 *
 *   socket       TCP, in its own namespace: in their place comes what is connected
 *   socketpair   none: descriptors could be left in one, and the kernel counts those for all
 *                processes of a user. Those of another VM could send none then
 *   sendto       without an address; neither it nor sendmsg with MSG_FASTOPEN, which connects
 *   listen       nothing, and it succeeds: its own socket listens already. Any other would get a
 *                port of the host
 *   setsockopt   what is harmless: among the others are source routes, other interfaces, groups
 *
 * A close() that waits (SO_LINGER) is among what it cannot ask for.
 */
static void filter_network(struct filter *l)
{
	static const int families[] = {AF_INET, AF_INET6};

	for (unsigned i = 0; i < ARRAY_LEN(families); i++) {
		for (int protocol = 0; protocol <= IPPROTO_TCP; protocol += IPPROTO_TCP)
			filter_if(l, SYS_socket,
				  (const struct filter_arg[]){
					  {0, ~0u, (uint32_t)families[i], false},
					  {1, ~(uint32_t)(SOCK_NONBLOCK | SOCK_CLOEXEC),
					   SOCK_STREAM, false},
					  {2, ~0u, (uint32_t)protocol, false}},
				  3);
	}
	filter_call(l, SYS_socket, SECCOMP_RET_ERRNO | EPERM);
	filter_if(l, SYS_sendto,
		  (const struct filter_arg[]){
			  {3, MSG_FASTOPEN, 0, false}, {4, ~0u, 0, false}, {4, ~0u, 0, true}},
		  3);
	filter_call(l, SYS_sendto, SECCOMP_RET_ERRNO | EPERM);
	filter_if(l, SYS_sendmsg, &(const struct filter_arg){2, MSG_FASTOPEN, 0, false}, 1);
	filter_call(l, SYS_sendmsg, SECCOMP_RET_ERRNO | EPERM);
	filter_call(l, SYS_listen, SECCOMP_RET_ERRNO);
	for (unsigned i = 0; i < ARRAY_LEN(socket_options); i++)
		filter_if(l, SYS_setsockopt,
			  (const struct filter_arg[]){
				  {1, ~0u, (uint32_t)socket_options[i].level, false},
				  {2, ~0u, (uint32_t)socket_options[i].name, false}},
			  2);
	filter_call(l, SYS_setsockopt, SECCOMP_RET_ERRNO | EPERM);
}

static void filter_head(struct filter *l)
{
	filter_add(l, (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
						   offsetof(struct seccomp_data, arch)));
	filter_add(l, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1,
						   0));
	filter_add(l, (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS));
	filter_add(l, (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
						   offsetof(struct seccomp_data, nr)));
	filter_add(l, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, X32_BIT, 0, 1));
	filter_add(l, (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS));
}

/* In a user namespace of its own it would have all capabilities again. clone3() is not there for
 * it, so that the C library takes clone(), whose flags can be seen.
 *
 * Without a list of calls the program has one of its own, which comes on top. With one id mapped,
 * the kernel lets nobody drop groups, and virtiofsd does not run if it cannot. They are the user's
 * own, and stay: it is told that they are gone. */
void confine_filter(const struct confine_plan *p, enum confine_ids ids)
{
	static struct filter l;
	struct sock_fprog prog;

	filter_head(&l);
	filter_call(&l, SYS_clone3, SECCOMP_RET_ERRNO | ENOSYS);
	if (p->calls) {
		filter_first(&l, SYS_clone, NAMESPACES | CLONE_THREAD, CLONE_THREAD);
		filter_first(&l, SYS_prctl, ~0u, PR_SET_NAME);
		filter_first(&l, SYS_execveat, ~0u, CONFINE_EXEC);
		if (p->network)
			filter_network(&l);
		for (unsigned i = 0; i < p->ncalls; i++)
			filter_call(&l, p->calls[i], SECCOMP_RET_ALLOW);
		filter_add(&l, (struct sock_filter)BPF_STMT(BPF_RET | BPF_K,
							    SECCOMP_RET_ERRNO | ENOSYS));
	} else {
		filter_first(&l, SYS_clone, NAMESPACES, 0);
		filter_first(&l, SYS_unshare, NAMESPACES, 0);
		if (ids == CONFINE_ONE)
			filter_call(&l, SYS_setgroups, SECCOMP_RET_ERRNO);
		filter_add(&l, (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
	}
	prog = (struct sock_fprog){.len = l.n, .filter = l.f};
	confine_must(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog, 0, 0), "seccomp");
}
