/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Starts a program of the host in a jail that we make. See confine.h.
 *
 * Such a program reads what a guest writes, so it is taken for one that a guest may take over. It
 * is not one of ours and enters no jail by itself that we could plan; so all of it is made before
 * exec:
 *
 *   user namespace   always, root's too. Root maps every id to itself: the guest's owners are the
 *                    host's, but no capability is worth anything outside: no device nodes, no file
 *                    handles (open_by_handle_at), no mounts. A user maps root of it to itself, and
 *                    with newuidmap, if that is wanted, the user's range of /etc/subuid behind it.
 *   pid, net, ipc, uts, cgroup namespaces   nothing is in them
 *   mount namespace  a root of its own, read-only: the directories of libraries, read-only, because
 *                    it is linked dynamically, and what the plan names:
 *                    - a directory, at /share, with /usr and of /proc only /proc/self. One that is
 *                      read-only is so by the flags of its mounts, all of them, and is cut off from
 *                      mounts that come later, which would not be. Others receive them (slave).
 *                    - files, at /files/NAME: those that the plan has open, whatever their paths
 *                      have become
 *   capabilities     those of the plan
 *   a filter         that makes no namespaces; or one that lets nothing pass but the plan's calls,
 *                    and of those of a network what cannot name an address
 *   no_new_privs, limits, no other descriptors, its own session, dies with the supervisor
 *
 * Here are the socket, the order of the steps, and those that take a line or two; the others are in
 * confine_ids.c, confine_root.c and confine_filter.c. The child between clone and exec makes system
 * calls only. What fails goes to its log, where the last line is what people are shown when it ends.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/log.h>

#include "confine_child.h"

#define MEET_NAME "/s"

/* ---- the socket ---- */

/* Listen at `path`, and connect to it: pair[0] is the connected end, pair[1] listens. */
static int meet_at(const char *path, int pair[2])
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};

	strcpy(a.sun_path, path);
	pair[0] = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	pair[1] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (pair[0] < 0 || pair[1] < 0 || bind(pair[1], (struct sockaddr *)&a, sizeof(a)))
		return -errno;
	if (listen(pair[1], 1) || connect(pair[0], (struct sockaddr *)&a, sizeof(a)))
		return -errno;
	return 0;
}

/* A socket to listen on (pair[1]), and one that is connected to that (pair[0]): such programs want
 * to accept their client. It has a name for the moment between bind() and unlink(), in a directory
 * that is only ours: nobody else can be the first to connect. */
static int confine_meet(int pair[2], struct err *e)
{
	char dir[] = "/tmp/insula-meet.XXXXXX", path[sizeof(dir) + sizeof(MEET_NAME)];
	int rc;

	pair[0] = pair[1] = -1;
	if (!mkdtemp(dir)) /* mode 0700 */
		return err_sys(e, -errno, "%s", dir);
	snprintf(path, sizeof(path), "%s" MEET_NAME, dir);
	rc = meet_at(path, pair);
	unlink(path);
	rmdir(dir);
	if (!rc)
		return 0;
	fd_close(&pair[0]);
	fd_close(&pair[1]);
	return err_sys(e, rc, "%s", path);
}

int confine_replace(struct child *c, int (*spawn)(void *ctx, int listener, struct err *e),
		    void *ctx, struct err *e)
{
	int pair[2], rc = confine_meet(pair, e);

	if (rc)
		return rc;
	child_kill(c);
	rc = spawn(ctx, pair[1], e);
	close(pair[1]);
	if (!rc)
		return pair[0];
	close(pair[0]);
	return rc;
}

/* ---- the child ---- */

struct confine_start {
	const struct confine_plan *plan;
	int null, log[2];
	int go[2]; /* the parent says that the ids are mapped, and how */
};

/* Written by hand: no stream of the parent's may be flushed here. */
_Noreturn void confine_failed(const char *what)
{
	char text[160];
	int n = snprintf(text, sizeof(text), "cannot start it: %s: %s\n", what,
			 strerrordesc_np(errno));

	(void)!write(2, text, (size_t)n);
	_exit(CONFINE_SETUP);
}

void confine_must(int rc, const char *what)
{
	if (rc < 0)
		confine_failed(what);
}

/* The kernel forgets it when ids change. While the parent lives it has the other end of the log. */
static void tie_to_parent(void)
{
	struct pollfd p = {.fd = 2};

	confine_must(prctl(PR_SET_PDEATHSIG, SIGKILL), "PR_SET_PDEATHSIG");
	if (poll(&p, 1, 0) > 0 && (p.revents & POLLERR))
		_exit(CONFINE_SETUP);
}

static enum confine_ids take_ids(const struct confine_start *s)
{
	unsigned char how;

	if (read(s->go[0], &how, 1) != 1)
		_exit(CONFINE_SETUP);
	confine_must((int)syscall(SYS_setresgid, 0, 0, 0), "setresgid");
	confine_must((int)syscall(SYS_setresuid, 0, 0, 0), "setresuid");
	tie_to_parent();
	return (enum confine_ids)how;
}

static void keep_descriptors(const struct confine_start *s)
{
	const struct confine_plan *p = s->plan;
	const struct confine_network *net = p->network;
	int listener = fcntl(p->listener, F_DUPFD_CLOEXEC, CONFINE_KEEP),
	    null = fcntl(s->null, F_DUPFD_CLOEXEC, CONFINE_KEEP),
	    program = p->program ? null : fcntl(p->exec_fd, F_DUPFD_CLOEXEC, CONFINE_KEEP),
	    ask = net ? fcntl(net->ask, F_DUPFD_CLOEXEC, CONFINE_KEEP) : null,
	    answer = net ? fcntl(net->answer, F_DUPFD_CLOEXEC, CONFINE_KEEP) : null;
	unsigned first = net ? CONFINE_KEEP : CONFINE_EXEC + 1;

	confine_must(listener, "descriptors");
	confine_must(program, "descriptors");
	confine_must(dup2(null, 0), "descriptors");
	confine_must(dup2(listener, CONFINE_LISTENER), "descriptors");
	confine_must(dup3(program, CONFINE_EXEC, O_CLOEXEC), "descriptors");
	if (net) {
		confine_must(dup2(ask, CONNECT_ASK_FD), "descriptors");
		confine_must(dup2(answer, CONNECT_ANSWER_FD), "descriptors");
	}
	confine_must((int)syscall(SYS_close_range, first, ~0u, 0), "descriptors");
}

static void limit(int what, rlim_t n, const char *name)
{
	const struct rlimit l = {n, n};

	confine_must(setrlimit((__rlimit_resource_t)what, &l), name);
}

static void limit_resources(const struct confine_plan *p)
{
	struct rlimit l;

	limit(RLIMIT_CORE, 0, "RLIMIT_CORE"); /* it maps the guest's memory */
	limit(RLIMIT_MSGQUEUE, 0, "RLIMIT_MSGQUEUE");
	limit(RLIMIT_NPROC, p->nproc, "RLIMIT_NPROC");
	confine_must(getrlimit(RLIMIT_NOFILE, &l), "RLIMIT_NOFILE");
	limit(RLIMIT_NOFILE, l.rlim_max > p->nofile ? p->nofile : l.rlim_max, "RLIMIT_NOFILE");
	if (p->as)
		limit(RLIMIT_AS, p->as, "RLIMIT_AS");
}

/* They count in its user namespace: for files whose owners are mapped there, and nothing else. */
static void drop_capabilities(uint64_t set)
{
	struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct d[_LINUX_CAPABILITY_U32S_3] = {{0}};

	for (unsigned cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++) {
		if (!(cap < 64 && (set >> cap & 1)))
			confine_must(prctl(PR_CAPBSET_DROP, cap, 0, 0, 0), "bounding set");
	}
	for (unsigned i = 0; i < _LINUX_CAPABILITY_U32S_3; i++)
		d[i].effective = d[i].permitted = (uint32_t)(set >> (32 * i));
	confine_must(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0), "ambient set");
	confine_must((int)syscall(SYS_capset, &h, d), "capset");
}

static _Noreturn void confine_child(struct confine_start *s)
{
	const struct confine_plan *p = s->plan;
	const bool ends = p->network && p->network->ends;
	const char *const env[] = {"PATH=/usr/bin:/bin",
				   "LC_ALL=C",
				   "HOME=/",
				   p->network ? "LD_PRELOAD=/files/" CONFINE_CONNECT : NULL,
				   ends ? CONNECT_ENDS "=1" : NULL,
				   NULL};
	char *const *argv = (char *const *)(uintptr_t)p->argv;
	enum confine_ids ids;
	sigset_t none;

	close(s->go[1]);
	close(s->log[0]);
	if (dup2(s->log[1], 1) < 0 || dup2(s->log[1], 2) < 0)
		_exit(CONFINE_SETUP);
	tie_to_parent();
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	ids = take_ids(s);
	umask(0);
	confine_must(setsid(), "setsid");
	confine_enter(p);
	keep_descriptors(s);
	limit_resources(p);
	drop_capabilities(p->keep);
	confine_must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs");
	confine_filter(p, ids);
	if (p->program)
		execve(p->program, argv, (char *const *)(uintptr_t)env);
	else
		syscall(SYS_execveat, CONFINE_EXEC, "", argv, env, AT_EMPTY_PATH);
	confine_failed(p->name);
}

/* ---- the parent ---- */

static pid_t clone_confined(struct confine_start *s)
{
	struct clone_args a = {.flags = CLONE_NEWUSER | CLONE_NEWPID | CLONE_CLEAR_SIGHAND,
			       .exit_signal = SIGCHLD};
	sigset_t all, old;
	long pid;
	int keep_errno;

	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &old);
	pid = syscall(SYS_clone3, &a, sizeof(a));
	if (pid == 0)
		confine_child(s);
	keep_errno = errno;
	sigprocmask(SIG_SETMASK, &old, NULL);
	errno = keep_errno;
	return (pid_t)pid;
}

/* Root may give it more than it has itself. Where it may not, what there is has to do. It needs no
 * less until it has put away what is the supervisor's. */
static void raise_nofile(const struct confine_plan *p, pid_t pid)
{
	const struct rlimit l = {p->nofile, p->nofile};
	struct rlimit has;

	if (!getrlimit(RLIMIT_NOFILE, &has) && has.rlim_cur >= l.rlim_cur)
		return;
	if (!geteuid() && prlimit(pid, RLIMIT_NOFILE, &l, NULL))
		log_debug("%s: RLIMIT_NOFILE stays what it is", p->name);
}

/* Maps first, then the one byte that the child waits for. */
static int confine_go(const struct confine_plan *p, pid_t pid, int go, enum confine_ids *ids,
		      struct err *e)
{
	struct err why;
	int rc = confine_map(p, pid, ids, &why);
	uint8_t how = (uint8_t)*ids;

	if (rc)
		return err_set(e, rc, "%s: %s", p->name, why.text);
	raise_nofile(p, pid);
	return write(go, &how, 1) == 1 ? 0 : err_sys(e, -errno, "%s: pipe", p->name);
}

int confine_spawn(const struct confine_plan *p, struct child *c, enum confine_ids *ids,
		  struct err *e)
{
	struct confine_start start = {.plan = p, .log = {-1, -1}, .go = {-1, -1}};
	pid_t pid = -1;
	int rc = 0;

	start.null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (start.null < 0 || pipe2(start.log, O_CLOEXEC | O_NONBLOCK) ||
	    pipe2(start.go, O_CLOEXEC))
		rc = err_sys(e, -errno, "%s: pipe", p->name);
	if (!rc && (pid = clone_confined(&start)) < 0)
		rc = err_sys(e, -errno, "%s: cannot create a user namespace", p->name);
	fd_close(&start.log[1]);
	fd_close(&start.null);
	fd_close(&start.go[0]);
	if (!rc)
		rc = confine_go(p, pid, start.go[1], ids, e);
	fd_close(&start.go[1]);
	if (!rc) {
		rc = child_adopt(c, p->name, pid, start.log[0], e);
		c->talkative = true;
		return rc;
	}
	fd_close(&start.log[0]);
	if (pid > 0) {
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
	}
	return rc;
}
