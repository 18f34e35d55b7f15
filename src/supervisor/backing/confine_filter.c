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
#include <sched.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "confine_child.h"

#define NAMESPACES                                                                                 \
	(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | \
	 CLONE_NEWCGROUP)
#define X32_BIT 0x40000000u
#define FILTER_MAX 512

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

/* If it is this call, its first argument decides: of these bits it must have that value. */
static void filter_first(struct filter *l, unsigned call, uint32_t bits, uint32_t value)
{
	filter_add(l, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 5));
	filter_add(l, (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
						   offsetof(struct seccomp_data, args[0])));
	filter_add(l, (struct sock_filter)BPF_STMT(BPF_ALU | BPF_AND | BPF_K, bits));
	filter_add(l, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, 1));
	filter_add(l, (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
	filter_add(l, (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM));
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
