/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * System calls that a storage module may make besides those of its device, in groups that a
 * manifest names (insula/module_calls.h). A module can make no socket, and its network namespace is
 * empty: what it can name are the connections that it was given.
 */
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "module_dev.h"

#define NO_ARG ((struct jail_arg){0})

static void rule_without(struct rule_list *l, int nr, uint8_t index, uint64_t bit, const char *why)
{
	rule_arg(l, nr,
		 (struct jail_arg){.index = index, .cmp = JAIL_MASKED_EQ, .value = 0, .mask = bit},
		 NO_ARG, why);
}

static void rule_equal(struct rule_list *l, int nr, uint8_t index, uint64_t value, const char *why)
{
	rule_arg(l, nr, (struct jail_arg){.index = index, .cmp = JAIL_EQ, .value = value}, NO_ARG,
		 why);
}

static void module_memory_calls(struct rule_list *l)
{
	rule_any(l, SYS_brk, "malloc() of a library");
	rule_without(l, SYS_mmap, 2, PROT_EXEC,
		     "malloc() of a library; nothing becomes executable");
	rule_without(l, SYS_mprotect, 2, PROT_EXEC, "the same");
	rule_any(l, SYS_munmap, "malloc() of a library");
	rule_any(l, SYS_mremap, "malloc() of a library");
	rule_any(l, SYS_madvise, "malloc() of a library");
	rule_any(l, SYS_getrandom, "hash tables and handshakes of a library");
}

static void module_socket_calls(struct rule_list *l)
{
	rule_equal(l, SYS_sendto, 4, 0, "its connections; to no address");
	rule_equal(l, SYS_recvfrom, 4, 0, "its connections");
	rule_any(l, SYS_readv, "its connections; carries no descriptors");
	rule_any(l, SYS_writev, "its connections; carries no descriptors");
	rule_any(l, SYS_shutdown, "its connections");
	rule_any(l, SYS_close, "a connection that has ended");
	rule_any(l, SYS_getsockopt, "has a connection come about?");
	rule_equal(l, SYS_fcntl, 1, F_GETFD, "a library looks whether a socket is not inherited");
	rule_equal(l, SYS_fcntl, 1, F_SETFD, "and sees to it");
	rule_equal(l, SYS_fcntl, 1, F_GETFL, "a library looks whether a socket does not block");
	rule_equal(l, SYS_fcntl, 1, F_SETFL, "and sees to it");
}

static void module_thread_calls(struct rule_list *l)
{
	rule_any(l, SYS_gettid, "threads of a library");
	rule_any(l, SYS_clock_nanosleep, "threads of a library");
	rule_any(l, SYS_rt_sigprocmask, "threads of a library");
	rule_any(l, SYS_exit, "threads of a library");
}

static void module_event_calls(struct rule_list *l)
{
	rule_any(l, SYS_epoll_wait, "waits of a library");
	rule_any(l, SYS_epoll_pwait, "waits of a library");
	rule_any(l, SYS_epoll_ctl, "waits of a library");
	rule_any(l, SYS_read, "events of a library");
	rule_any(l, SYS_write, "events of a library");
}

void module_calls_rules(uint32_t calls, struct rule_list *l)
{
	if (calls & MODULE_CALLS_MEMORY)
		module_memory_calls(l);
	if (calls & MODULE_CALLS_SOCKET)
		module_socket_calls(l);
	if (calls & MODULE_CALLS_THREADS)
		module_thread_calls(l);
	if (calls & MODULE_CALLS_EVENTS)
		module_event_calls(l);
}
