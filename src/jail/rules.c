/* SPDX-License-Identifier: BSD-2-Clause */
/* System calls that every sealed program may make. A program's own list is next to its own code. */
#include <linux/futex.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/jail.h>
#include <insula/proto.h>

/* The operation of a futex call, without the flags that do not change its nature. The kernel reads
 * 32 bits. */
#define OPERATION (UINT32_MAX & ~(uint64_t)(FUTEX_PRIVATE_FLAG | FUTEX_CLOCK_REALTIME))

const struct jail_rule jail_base_rules[] = {
	{SYS_exit_group, "the end, and panic()", {{0}}},
	{SYS_futex,
	 "locks; waiting for the answer in a device page",
	 {{1, JAIL_MASKED_EQ, FUTEX_WAIT, OPERATION}}},
	{SYS_futex,
	 "the same with a deadline, as the C library does it",
	 {{1, JAIL_MASKED_EQ, FUTEX_WAIT_BITSET, OPERATION}}},
	{SYS_futex,
	 "locks; waking who waits for the answer",
	 {{1, JAIL_MASKED_EQ, FUTEX_WAKE, OPERATION}}},
	{SYS_rt_sigreturn, "return from a signal handler", {{0}}},
	{SYS_restart_syscall, "the kernel goes on with a wait after SIGSTOP and SIGCONT", {{0}}},
	{SYS_clock_gettime, "deadlines, where the vDSO cannot read the clock", {{0}}},
	{SYS_write, "log lines and panic()", {{0, JAIL_EQ, STDERR_FILENO, 0}}},
	{SYS_sendmsg, "messages to the supervisor", {{0, JAIL_EQ, MSG_CHANNEL_FD, 0}}},
	{SYS_recvmsg, "messages from the supervisor", {{0, JAIL_EQ, MSG_CHANNEL_FD, 0}}},
	{SYS_prctl, "jail_seal() reads back the mode", {{0, JAIL_EQ, PR_GET_SECCOMP, 0}}},
#ifdef INSULA_SANITIZE
	/* The run-time of the sanitizers (tests only; such a build cannot be installed). */
	{SYS_mmap, "sanitizer: its allocator", {{0}}},
	{SYS_munmap, "sanitizer: its allocator", {{0}}},
	{SYS_madvise, "sanitizer: its allocator", {{0}}},
	{SYS_sched_yield, "sanitizer: its locks", {{0}}},
	{SYS_sigaltstack, "sanitizer: before a function that does not return", {{0}}},
#endif
};
const size_t jail_base_nrules = ARRAY_LEN(jail_base_rules);
