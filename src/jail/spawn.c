/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The parent's part of starting a jailed program: channel, log pipe, clone, id maps. It does not
 * wait for the child, so that several children set themselves up at the same time; what goes wrong
 * in the child comes over the channel.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <linux/sched.h>

#include <insula/base.h>

#include "steps.h"

struct ends {
	int channel[2]; /* parent, child */
	int log[2];     /* read, write */
	int null; /* opened here: the child's own /dev would keep its copy of the mount alive */
};

static void ends_close(struct ends *x)
{
	for (int i = 0; i < 2; i++) {
		fd_close(&x->channel[i]);
		fd_close(&x->log[i]);
	}
	fd_close(&x->null);
}

static int ends_open(struct ends *x, struct err *e)
{
	*x = (struct ends){{-1, -1}, {-1, -1}, -1};
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, x->channel) ||
	    pipe2(x->log, O_CLOEXEC | O_NONBLOCK) ||
	    (x->null = open("/dev/null", O_RDONLY | O_CLOEXEC)) < 0) {
		int rc = err_sys(e, -errno, "channel, log pipe and /dev/null");
		ends_close(x);
		return rc;
	}
	return 0;
}

/* A raw clone3: the C library has no wrapper. Signals stay blocked in the child until its handlers
 * are the default ones. */
static pid_t clone_child(struct jail_start *s, int *pidfd)
{
	struct clone_args a = {
		.flags = CLONE_NEWUSER | CLONE_NEWPID | CLONE_PIDFD | CLONE_CLEAR_SIGHAND,
		.pidfd = (uint64_t)(uintptr_t)pidfd,
		.exit_signal = SIGCHLD,
	};
	sigset_t all, old;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	long pid = syscall(SYS_clone3, &a, sizeof(a));
	if (pid == 0)
		jail_child(s);
	int keep = errno;
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	errno = keep;
	return (pid_t)pid;
}

/* True if the child has failed by itself and said so. Its message is then better than ours. */
static bool child_reported(int channel)
{
	struct pollfd p = {.fd = channel, .events = POLLIN};

	return poll(&p, 1, 0) == 1 && (p.revents & POLLIN);
}

/* Maps first, then the one byte that the child waits for. */
static int child_go(const struct jail_plan *p, pid_t pid, int channel, struct err *e)
{
	int rc = jail_ids_map(pid, p, e);

	if (!rc && send(channel, "", 1, MSG_NOSIGNAL) != 1)
		rc = err_sys(e, -errno, "channel");
	return rc && child_reported(channel) ? 0 : rc;
}

int jail_spawn(const struct jail_plan *p, struct jail_child *out, struct err *e)
{
	struct ends x;
	int rc = ends_open(&x, e);

	if (rc)
		return rc;
	struct jail_start s = {
		.plan = p,
		.channel = x.channel[1],
		.log = x.log[1],
		.null = x.null,
		.parents = {x.channel[0], x.log[0]},
		.root = geteuid() == 0,
		.own_ids = jail_ids_own(p),
	};
	*out = (struct jail_child){-1, -1, -1, -1};
	out->pid = clone_child(&s, &out->pidfd);
	if (out->pid < 0) {
		rc = -errno;
		err_sys(e, rc, "%s: cannot create a user namespace%s", p->program,
			jail_remedy(JAIL_PROC_SYS, rc, s.root));
		goto out_ends;
	}
	fd_close(&x.channel[1]);
	fd_close(&x.log[1]);
	fd_close(&x.null);
	rc = child_go(p, out->pid, x.channel[0], e);
	if (rc)
		goto out_kill;
	out->channel = x.channel[0];
	out->log = x.log[0];
	return 0;
out_kill:
	kill(out->pid, SIGKILL); /* ours and not reaped yet: the number cannot be anybody else's */
	waitpid(out->pid, NULL, 0);
	fd_close(&out->pidfd);
out_ends:
	ends_close(&x);
	return rc;
}
