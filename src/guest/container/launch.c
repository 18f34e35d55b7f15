/* SPDX-License-Identifier: BSD-2-Clause */
/* insula-container: the tree of processes of `run` and `exec`; see main.c. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "container.h"

/* What the two ends of the channel say to each other. */
enum note_kind {
	NOTE_MAPS = 1, /* the stage's user namespace waits for its maps; and the answer */
	NOTE_PID,      /* the process exists and waits for NOTE_GO */
	NOTE_GO,
	NOTE_READY,  /* nothing but exec is left: the end of the channel means that it went well */
	NOTE_FAILED, /* status and text */
};
struct note {
	uint32_t kind;
	int32_t value; /* pid, or status */
	char text[sizeof(((struct err *)0)->text)];
};

/* write(2) and not send(2): it may be that a filter is loaded already. */
static bool note_send(int fd, enum note_kind kind, int value, const char *text)
{
	struct note n = {.kind = kind, .value = value};

	snprintf(n.text, sizeof n.text, "%s", text);
	return write(fd, &n, sizeof n) == (ssize_t)sizeof n;
}

/* false: the other end is gone. */
static bool note_receive(int fd, struct note *n)
{
	ssize_t got;

	do
		got = read(fd, n, sizeof *n);
	while (got < 0 && errno == EINTR);
	if (got != (ssize_t)sizeof *n)
		return false;
	n->text[sizeof n->text - 1] = '\0';
	return true;
}

static _Noreturn void give_up(struct launch *l, int status, const struct err *e)
{
	note_send(l->channel, NOTE_FAILED, status, e->text);
	_exit(status);
}

/* Wait for a note of this kind; who does not get it has no parent any more. */
static void expect_note(struct launch *l, enum note_kind kind)
{
	struct note n;

	if (!note_receive(l->channel, &n) || n.kind != kind)
		_exit(EXIT_FAILED);
}

/* ---- the process ---- */

static void tell_ready(void *ctx)
{
	struct launch *l = ctx;

	note_send(l->channel, NOTE_READY, 0, "");
}

static int set_names(const struct container *c, struct err *e)
{
	if (c->hostname && sethostname(c->hostname, strlen(c->hostname)) < 0)
		return err_sys(e, -errno, "host name %s", c->hostname);
	if (c->domainname && setdomainname(c->domainname, strlen(c->domainname)) < 0)
		return err_sys(e, -errno, "domain name %s", c->domainname);
	return 0;
}

static int enter_container(const struct container *c, struct err *e)
{
	int r = ns_cgroup(c, e);

	if (!r)
		r = set_names(c, e);
	for (size_t i = 0; i < c->sysctl.n && !r; i++)
		r = sysctl_write(c->sysctl.v[i], e);
	if (!r)
		r = rootfs_enter(c, e);
	return r ? r : hooks_run(c, e);
}

static _Noreturn void become_process(struct launch *l)
{
	int status = EXIT_FAILED;
	struct err e;
	int r;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	expect_note(l, NOTE_GO);
	r = process_session(l->process, &e);
	if (!r)
		r = l->container         ? enter_container(l->container, &e)
		    : ns_user_is_other() ? process_ns_root(&e)
					 : 0;
	if (!r)
		process_exec(l->process, &l->filter, tell_ready, l, &status, &e);
	give_up(l, status, &e);
}

/* ---- the stage between ---- */

static int stage_namespaces(struct launch *l, struct err *e)
{
	int flags, r;

	if (!l->container)
		return ns_join_all(l->joined, l->first, e);
	flags = ns_fresh(l->container);
	r = ns_join(l->container, e);
	if (!r && flags & CLONE_NEWUSER) {
		if (unshare(CLONE_NEWUSER) < 0)
			return err_sys(e, -errno, "new user namespace");
		note_send(l->channel, NOTE_MAPS, 0, "");
		expect_note(l, NOTE_MAPS);
	}
	flags &= ~CLONE_NEWUSER;
	if (!r && unshare(flags) < 0)
		return err_sys(e, -errno, "new namespaces (flags 0x%x)", (unsigned)flags);
	return r;
}

/* Only the children of a process that enters a pid namespace are in it. The parent's parent becomes
 * theirs, so that it can wait for the process. */
static _Noreturn void be_stage(struct launch *l)
{
	struct err e;
	long pid;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	/* Processes of a shared pid namespace must not look into this one. exec ends that. */
	prctl(PR_SET_DUMPABLE, 0);
	if (stage_namespaces(l, &e))
		give_up(l, EXIT_FAILED, &e);
	pid = syscall(SYS_clone, (long)(CLONE_PARENT | SIGCHLD), 0, 0, 0, 0);
	if (pid == 0)
		become_process(l);
	if (pid < 0) {
		err_sys(&e, -errno, "start the process");
		give_up(l, EXIT_FAILED, &e);
	}
	_exit(note_send(l->channel, NOTE_PID, (int)pid, "") ? 0 : EXIT_FAILED);
}

/* ---- the watcher ---- */

static void end_leftovers(struct launch *l)
{
	if (l->container) {
		cgroup_kill(l->id, NULL);
		state_remove(l->id);
	}
}

/* It outlives the parent, in whatever way that ends, and kills what is left. Its session is another
 * one, so no signal to the parent's group reaches it. */
static _Noreturn void watch(struct launch *l, int alive)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	char end;

	setsid();
	for (int i = 0; i < 3; i++)
		if (null < 0 || dup2(null, i) < 0)
			close(i);
	close(l->channel);
	if (read(alive, &end, 1) == 1) /* the parent has done it itself */
		_exit(0);
	syscall(SYS_pidfd_send_signal, l->child, SIGKILL, NULL, 0u);
	end_leftovers(l);
	_exit(0);
}

static int start_watcher(struct launch *l, int *alive, struct err *e)
{
	int p[2];
	pid_t pid;

	if (pipe2(p, O_CLOEXEC) < 0)
		return err_sys(e, -errno, "watcher");
	pid = fork();
	if (pid == 0) {
		close(p[1]);
		watch(l, p[0]);
	}
	close(p[0]);
	*alive = p[1];
	return pid < 0 ? err_sys(e, -errno, "watcher") : 0;
}

/* ---- the parent ---- */

struct parent {
	struct launch *l;
	pid_t stage, process; /* 0: none */
	int alive;            /* the watcher's pipe */
	bool ready;
	int status; /* of a failure */
	struct err e;
};

static int write_oom(pid_t pid, int value, struct err *e)
{
	char path[64], text[16];
	int fd, n = snprintf(text, sizeof text, "%d", value), r = 0;

	snprintf(path, sizeof path, "/proc/%d/oom_score_adj", pid);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, text, (size_t)n) != n)
		r = err_sys(e, -errno, "oom_score_adj %d", value);
	if (fd >= 0)
		close(fd);
	return r;
}

/* The process waits. What takes the machine's rights is done from here. */
static int place_process(struct parent *p)
{
	struct launch *l = p->l;
	long fd = syscall(SYS_pidfd_open, p->process, 0u);
	int r = 0;

	if (fd < 0)
		return err_sys(&p->e, -errno, "the process");
	l->child = (int)fd;
	r = start_watcher(l, &p->alive, &p->e);
	if (!r)
		r = cgroup_enter(l->id, p->process, l->first, &p->e);
	if (!r && l->process->has_oom)
		r = write_oom(p->process, l->process->oom, &p->e);
	if (!r)
		r = process_raise_limits(p->process, l->process, &p->e);
	if (!r && !note_send(l->channel, NOTE_GO, 0, ""))
		r = err_sys(&p->e, -errno, "the process");
	return r;
}

static int answer(struct parent *p, const struct note *n)
{
	switch (n->kind) {
	case NOTE_MAPS:
		if (ns_write_maps(p->l->container, p->stage, &p->e))
			return -1;
		note_send(p->l->channel, NOTE_MAPS, 0, "");
		return 0;
	case NOTE_PID:
		p->process = n->value;
		return place_process(p);
	case NOTE_READY:
		p->ready = true;
		return 0;
	default:
		p->status = n->value;
		return err_set(&p->e, -EINVAL, "%s", n->text);
	}
}

static int set_up(struct parent *p)
{
	struct note n;
	int r = 0;

	while (!r && note_receive(p->l->channel, &n))
		r = answer(p, &n);
	if (p->stage > 0)
		waitpid(p->stage, NULL, 0);
	if (!r && !p->ready)
		r = err_set(&p->e, -ECHILD, "the process was killed before it began");
	return r;
}

static int start_stage(struct parent *p)
{
	int s[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, s) < 0)
		return err_sys(&p->e, -errno, "socket pair");
	p->stage = fork();
	if (p->stage == 0) {
		close(s[0]);
		p->l->channel = s[1];
		be_stage(p->l);
	}
	close(s[1]);
	p->l->channel = s[0];
	return p->stage < 0 ? err_sys(&p->e, -errno, "fork") : 0;
}

static int exit_status(int status)
{
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static int wait_process(pid_t pid)
{
	int status = 0;

	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return exit_status(status);
}

/* Pass on what is sent to this process, until the other one ends. */
static int wait_and_forward(struct parent *p)
{
	sigset_t all;

	sigfillset(&all);
	for (;;) {
		int status = 0, signo = sigwaitinfo(&all, NULL);

		if (signo == SIGCHLD) {
			if (waitpid(p->process, &status, WNOHANG) == p->process)
				return exit_status(status);
		} else if (signo > 0) {
			syscall(SYS_pidfd_send_signal, p->l->child, signo, NULL, 0u);
		}
	}
}

/* The streams are the process's alone: who reads or writes at their other ends has to see when it
 * closes one. */
static void leave_streams(void)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	for (int i = 0; i < 3 && null >= 0; i++)
		dup2(null, i);
	close(null);
}

static int tell_started(struct parent *p)
{
	char line[64];
	int r = 0;

	if (p->l->container)
		r = state_write(p->l->id, p->process, &p->e);
	snprintf(line, sizeof line, "started %d", p->process);
	return r ? r : status_write(p->l->id, p->l->status_file, line, &p->e);
}

static int tell_failed(struct parent *p)
{
	char line[CT_STATUS_MAX];
	struct err e;

	snprintf(line, sizeof line, "failed %d %s", p->status, p->e.text);
	if (status_write(p->l->id, p->l->status_file, line, &e)) {
		complain(&p->e);
		complain(&e);
	}
	return p->status;
}

/* The terminal goes over to the process's session; what its end means here is nobody's signal. */
static void leave_terminal(void)
{
	const struct timespec now = {0};
	sigset_t s;

	if (ioctl(STDIN_FILENO, TIOCNOTTY) < 0)
		return;
	sigemptyset(&s);
	sigaddset(&s, SIGHUP);
	sigaddset(&s, SIGCONT);
	while (sigtimedwait(&s, NULL, &now) > 0)
		;
}

int launch(struct launch *l)
{
	struct parent p = {.l = l, .alive = -1, .status = EXIT_FAILED};
	int r, status;

	l->child = -1;
	if (l->process->terminal)
		leave_terminal();
	r = start_stage(&p);
	if (!r)
		r = set_up(&p);
	if (!r)
		r = tell_started(&p);
	if (r && p.process > 0) {
		kill(p.process, SIGKILL);
		wait_process(p.process);
	}
	l->started = !r;
	if (!r)
		leave_streams();
	status = r ? tell_failed(&p) : wait_and_forward(&p);
	end_leftovers(l);
	if (p.alive >= 0)
		(void)!write(p.alive, "", 1);
	return status;
}
