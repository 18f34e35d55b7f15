/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The child between clone and exec, one function per step, in the order of the list at the end. Its
 * user and pid namespaces are new, its memory is a copy of the parent's; everything else is still
 * the host's when the first step runs.
 */
#include <cap-ng.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/proto.h>

#include "steps.h"

#define EXEC_FD (MSG_CHANNEL_FD + 1) /* closed by exec itself */
#define LOCKED_MAX (64ull << 20)

static int step_parent(struct jail_start *s, struct err *e)
{
	fd_close(&s->parents[0]);
	fd_close(&s->parents[1]);
	return jail_tie_to_parent(s->channel, e);
}

static int step_signals(struct jail_start *s, struct err *e)
{
	const struct sigaction dfl = {.sa_handler = SIG_DFL};
	sigset_t none;

	(void)s;
	/* clone3 reset the handlers; an ignored signal would stay ignored through exec. The C
	 * library refuses its own two signals, SIGKILL and SIGSTOP, which cannot be ignored in the
	 * first place. */
	for (int i = 1; i < NSIG; i++)
		(void)sigaction(i, &dfl, NULL);
	sigemptyset(&none);
	if (sigprocmask(SIG_SETMASK, &none, NULL))
		return err_sys(e, -errno, "sigprocmask");
	return 0;
}

static int step_namespaces(struct jail_start *s, struct err *e)
{
	if (unshare(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP)) {
		int rc = -errno;
		return err_sys(e, rc, "unshare%s", jail_remedy(JAIL_PROC_SYS, rc, s->root));
	}
	return 0;
}

/* Raw system calls: the C library's versions would first try to make the parent's other threads,
 * which do not exist here, follow. */
static int step_ids(struct jail_start *s, struct err *e)
{
	const long id = JAIL_INNER_ID;
	char go;

	if (recv(s->channel, &go, 1, 0) != 1)
		return err_set(e, -EPIPE, "the parent is gone");
	if (!s->own_ids && syscall(SYS_setgroups, 0L, NULL))
		return err_sys(e, -errno, "setgroups");
	if (syscall(SYS_setresgid, id, id, id))
		return err_sys(e, -errno, "setresgid");
	if (syscall(SYS_setresuid, id, id, id))
		return err_sys(e, -errno, "setresuid");
	return jail_tie_to_parent(s->channel, e); /* the kernel forgets it when ids change */
}

static int step_session(struct jail_start *s, struct err *e)
{
	(void)s;
	umask(077);
	if (setsid() < 0) /* Ctrl-C at the terminal is the supervisor's business */
		return err_sys(e, -errno, "setsid");
	return 0;
}

static int step_descriptors(struct jail_start *s, struct err *e)
{
	int fd[EXEC_FD + 1] = {s->null, s->log, s->log, s->channel, s->plan->exec_fd};

	/* Lift all of them out of the way first: any of them may have any number. */
	for (int i = 0; i <= EXEC_FD; i++) {
		fd[i] = fcntl(fd[i], F_DUPFD_CLOEXEC, EXEC_FD + 1);
		if (fd[i] < 0)
			return err_sys(e, -errno, "descriptor %d", i);
	}
	s->channel = fd[MSG_CHANNEL_FD];
	for (int i = 0; i <= EXEC_FD; i++) {
		if (dup3(fd[i], i, i == EXEC_FD ? O_CLOEXEC : 0) < 0)
			return err_sys(e, -errno, "descriptor %d", i);
	}
	s->channel = MSG_CHANNEL_FD;
	if (close_range(EXEC_FD + 1, ~0u, 0))
		return err_sys(e, -errno, "close_range");
	return 0;
}

_Static_assert(JAIL_FSIZE_ANY == RLIM_INFINITY, "any length");

static int limit(int what, const char *name, rlim_t value, struct err *e)
{
	const struct rlimit l = {value, value};

	if (setrlimit((__rlimit_resource_t)what, &l))
		return err_sys(e, -errno, "%s %llu", name, (unsigned long long)value);
	return 0;
}

/* io_uring charges its rings to this one (Linux 6.14 and newer), so it stays what the caller has,
 * within reason. */
static rlim_t locked_memory(const struct jail_plan *p)
{
	rlim_t most = p->memlock > LOCKED_MAX ? p->memlock : LOCKED_MAX;
	struct rlimit l;

	if (getrlimit(RLIMIT_MEMLOCK, &l))
		return 0;
	return l.rlim_max < most ? l.rlim_max : most;
}

static int step_rlimits(struct jail_start *s, struct err *e)
{
	const struct jail_plan *p = s->plan;
	const struct {
		int what;
		const char *name;
		rlim_t value;
	} limits[] = {
		{RLIMIT_NOFILE, "RLIMIT_NOFILE", p->nofile},
		{RLIMIT_NPROC, "RLIMIT_NPROC", p->nproc},
		{RLIMIT_AS, "RLIMIT_AS", p->as ? p->as : RLIM_INFINITY},
		{RLIMIT_FSIZE, "RLIMIT_FSIZE", p->fsize},
		{RLIMIT_CORE, "RLIMIT_CORE", 0}, /* a core would hold guest memory */
		{RLIMIT_MEMLOCK, "RLIMIT_MEMLOCK", locked_memory(p)},
		{RLIMIT_MSGQUEUE, "RLIMIT_MSGQUEUE", 0},
		{RLIMIT_RTPRIO, "RLIMIT_RTPRIO", 0},
		{RLIMIT_NICE, "RLIMIT_NICE", 0},
	};

	for (size_t i = 0; i < ARRAY_LEN(limits); i++) {
		int rc = limit(limits[i].what, limits[i].name, limits[i].value, e);
		if (rc)
			return rc;
	}
	return 0;
}

/* A user other than 0 loses its capabilities at exec unless they are ambient. jail_enter() needs
 * these two, which are worth something inside the new namespaces only. */
static int step_privilege(struct jail_start *s, struct err *e)
{
	int rc;

	(void)s;
	capng_clear(CAPNG_SELECT_ALL);
	rc = capng_updatev(CAPNG_ADD,
			   CAPNG_EFFECTIVE | CAPNG_PERMITTED | CAPNG_INHERITABLE |
				   CAPNG_BOUNDING_SET | CAPNG_AMBIENT,
			   CAP_SYS_ADMIN, /* mount, pivot_root */
			   CAP_SETPCAP,   /* bounding set, securebits */
			   -1);
	if (!rc)
		rc = capng_apply(CAPNG_SELECT_ALL);
	return rc ? err_set(e, -EPERM, "libcap-ng cannot reduce them (%d)", rc) : 0;
}

static int step_exec(struct jail_start *s, struct err *e)
{
	char *const argv[] = {(char *)(uintptr_t)s->plan->program, NULL};
	char *const envp[] = {NULL};

	syscall(SYS_execveat, EXEC_FD, "", argv, envp, AT_EMPTY_PATH);
	int rc = -errno;
	return err_sys(e, rc, "%s%s", s->plan->program,
		       rc == -EACCES ? " (everybody must be allowed to execute it)" : "");
}

void jail_child(struct jail_start *s)
{
	static const struct jail_step steps[] = {
		{"parent", step_parent},
		{"signals", step_signals},
		{"namespaces", step_namespaces},
		{"ids", step_ids},
		{"session", step_session},
		{"descriptors", step_descriptors},
		{"rlimits", step_rlimits},
		{"privilege", step_privilege},
		{"exec", step_exec},
	};

	jail_run_steps(steps, ARRAY_LEN(steps), s);
	_exit(1); /* not reached: exec either fails or does not return */
}
