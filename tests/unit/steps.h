/* SPDX-License-Identifier: BSD-2-Clause */
/* A child that is run instruction by instruction: at each of them it could be killed. ptrace(2). */
#ifndef TESTS_STEPS_H
#define TESTS_STEPS_H

#include <check.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

/* With sanitizers there are many more instructions, and each look takes longer: then at one of so
 * many, which runs the same code. Where it must not die the build without finds out: it looks at
 * all of them. */
#ifdef INSULA_SANITIZE
#define STEPS_STRIDE 29u
#else
#define STEPS_STRIDE 1u
#endif

/* A child that will run `work`. It has stopped where `work` raises SIGSTOP. 0: there can be none
 * here, and that has been said. */
static inline pid_t steps_begin(void (*work)(void *), void *arg)
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		if (ptrace(PTRACE_TRACEME, 0, NULL, NULL))
			_exit(99);
		work(arg);
		_exit(0);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 99) {
		fprintf(stderr,
			"kill_at_every_instruction: not possible here, ptrace is forbidden\n");
		return 0;
	}
	ck_assert(WIFSTOPPED(status));
	return pid;
}

/* One instruction. False: the child has ended. */
static inline bool steps_next(pid_t pid)
{
	int status;

	ck_assert_int_eq(ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL), 0);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	if (!WIFEXITED(status))
		return true;
	ck_assert_int_eq(WEXITSTATUS(status), 0);
	return false;
}

/* All of them. Before each one `look` says what has come of it so far, and, at one of `stride`,
 * `check` lets a successor carry on. */
struct steps {
	unsigned all, changes; /* of what `look` says */
};
static inline struct steps steps_through(pid_t pid, unsigned stride, uint32_t (*look)(void),
					 void (*check)(unsigned step))
{
	struct steps s = {0, 0};
	uint32_t seen = UINT32_MAX;

	do {
		uint32_t now = look();

		s.changes += now != seen;
		seen = now;
		if (s.all % stride == 0)
			check(s.all);
		s.all++;
	} while (steps_next(pid));
	return s;
}

#endif
