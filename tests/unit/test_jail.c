/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The jail, with real processes: seen from inside, seen from outside through /proc, every forbidden
 * call, every step failing once. Runs as root and as an ordinary user; as root it runs a second
 * time as one at the end.
 *
 * The program in the jail is jail_child, next to this one, or the one in INSULA_TEST_JAIL_CHILD.
 */
#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/jail.h>
#include <insula/proto.h>
#include <jail/steps.h>

#include "jail_child.h"

#define DEADLINE_MS 10000
#define NOBODY 65534
#define ENV_CHILD "INSULA_TEST_JAIL_CHILD"
#define ENV_AGAIN "INSULA_TEST_JAIL_AGAIN"

static const char *const ns_kinds[] = {"user", "pid", "mnt", "net", "ipc", "uts", "cgroup"};

/* ---- helpers ---- */

/* Without an assertion: also used outside of a test. */
static int find_child_program(void)
{
	char path[4096];
	const char *env = getenv(ENV_CHILD);
	ssize_t n;

	if (env)
		return open(env, O_RDONLY | O_CLOEXEC);
	n = readlink("/proc/self/exe", path, sizeof(path) - 16);
	if (n <= 0)
		return -1;
	path[n] = 0;
	snprintf(strrchr(path, '/'), 16, "/jail_child");
	return open(path, O_RDONLY | O_CLOEXEC);
}

static int open_child_program(void)
{
	int fd = find_child_program();

	ck_assert_msg(fd >= 0, "cannot open jail_child: %s", strerror(errno));
	return fd;
}

static struct jail_plan plan_for(int exec_fd)
{
	struct jail_plan p = {
		.program = "jail_child", .exec_fd = exec_fd, .nofile = 16, .nproc = 4};

	jail_ids(&p);
	return p;
}

static void spawn(const struct jail_plan *p, struct jail_child *c)
{
	struct err e = {0};

	ck_assert_msg(jail_spawn(p, c, &e) == 0, "jail_spawn: %s", e.text);
}

static void spawn_default(struct jail_child *c)
{
	int fd = open_child_program();
	struct jail_plan p = plan_for(fd);

	spawn(&p, c);
	close(fd);
}

static bool readable(int fd, int ms)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	return poll(&p, 1, ms) == 1;
}

/* Close everything that is ours, wait for the end. */
static int end_of(struct jail_child *c)
{
	int status = -1;

	close(c->channel);
	close(c->log);
	ck_assert_msg(readable(c->pidfd, DEADLINE_MS), "the child does not end");
	ck_assert_int_eq(waitpid(c->pid, &status, 0), c->pid);
	close(c->pidfd);
	return status;
}

static void give_order(const struct jail_child *c, const char *action, bool seal, unsigned threads)
{
	struct order o = {.seal = seal, .threads = threads, .in_thread = threads > 0};

	snprintf(o.action, sizeof(o.action), "%s", action);
	ck_assert_int_eq(send(c->channel, &o, sizeof(o), MSG_NOSIGNAL), sizeof(o));
}

static void get(const struct jail_child *c, void *buf, size_t len)
{
	ck_assert_msg(readable(c->channel, DEADLINE_MS), "the child says nothing");
	ssize_t n = recv(c->channel, buf, len, 0);
	ck_assert_msg(n == (ssize_t)len, "%zd bytes came, not %zu", n, len);
}

/* A child that failed says which step: "step: text". If it ended without having read our order, the
 * kernel reports that (ECONNRESET) once before it hands out what the child had said. */
static int get_failure(const struct jail_child *c, char *text, size_t size)
{
	struct err e = {0};
	int rc = -EPIPE;

	for (int i = 0; i < 2 && rc == -EPIPE; i++) {
		if (!readable(c->channel, DEADLINE_MS))
			return -ETIMEDOUT;
		rc = msg_expect(c->channel, MSG_READY, NULL, 0, NULL, 0, &e);
	}
	snprintf(text, size, "%s", e.text);
	return rc;
}

static void read_text(const char *path, char *buf, size_t size)
{
	int rc = jail_file_read(path, buf, size);

	ck_assert_msg(rc >= 0, "%s: %s", path, strerror(-rc));
}

static unsigned count_names(const char *dir)
{
	unsigned n = 0;
	struct dirent *d;
	DIR *h = opendir(dir);

	ck_assert_msg(h != NULL, "%s: %s", dir, strerror(errno));
	while ((d = readdir(h)))
		n += d->d_name[0] != '.';
	closedir(h);
	return n;
}

/* A scratch process for what would spoil the test's own: limits, filters, namespaces. `fn` writes
 * its verdict to a pipe. */
static void in_scratch(void (*fn)(const void *arg, int out), const void *arg, char *buf,
		       size_t size)
{
	int p[2], status;
	size_t n = 0;
	ssize_t r;

	ck_assert_int_eq(pipe2(p, O_CLOEXEC), 0);
	pid_t pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		close(p[0]);
		fn(arg, p[1]);
		_exit(0);
	}
	close(p[1]);
	while (n < size - 1 && (r = read(p[0], buf + n, size - 1 - n)) > 0)
		n += (size_t)r;
	buf[n] = 0;
	close(p[0]);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "scratch: status %#x, \"%s\"",
		      (unsigned)status, buf);
}

/* In a scratch process: spawn the child, tell what came of it: "spawn: text", "step: text" or
 * "ready". */
static void spawn_and_tell(const struct jail_plan *p, bool seal, int out)
{
	struct jail_child c;
	struct err e = {0};
	struct order o = {.action = "nothing", .seal = seal};
	struct answer a;
	char text[300] = "ready";

	if (jail_spawn(p, &c, &e)) {
		dprintf(out, "spawn: %s", e.text);
		return;
	}
	(void)!send(c.channel, &o, sizeof(o), MSG_NOSIGNAL);
	if (!readable(c.channel, DEADLINE_MS))
		snprintf(text, sizeof(text), "nothing");
	else if (recv(c.channel, &a, sizeof(a), MSG_PEEK | MSG_TRUNC) != (ssize_t)sizeof(a))
		get_failure(&c, text, sizeof(text));
	kill(c.pid, SIGKILL);
	waitpid(c.pid, NULL, 0);
	dprintf(out, "%s", text);
}

/* ---- what it looks like from inside ---- */

static struct facts facts_of(const struct jail_plan *p)
{
	struct jail_child c;
	struct facts f;

	spawn(p, &c);
	give_order(&c, "facts", false, 0);
	get(&c, &f, sizeof(f));
	ck_assert_int_eq(end_of(&c), 0);
	return f;
}

START_TEST(inside_is_bare)
{
	int fd = open_child_program();
	struct jail_plan p = plan_for(fd);

	/* A parent that is anything but bare. */
	setenv("SECRET", "1", 1);
	signal(SIGHUP, SIG_IGN);
	sigset_t s, old;
	sigemptyset(&s);
	sigaddset(&s, SIGTERM);
	sigprocmask(SIG_BLOCK, &s, &old);
	int leak = dup2(STDERR_FILENO, 12), leak_high = dup2(STDERR_FILENO, 700);
	struct facts f = facts_of(&p);
	close(leak);
	close(leak_high);
	close(fd);
	sigprocmask(SIG_SETMASK, &old, NULL);
	signal(SIGHUP, SIG_DFL);

	ck_assert_str_eq(f.argv0, "jail_child");
	ck_assert_uint_eq(f.argc, 1);
	ck_assert_uint_eq(f.envc, 0);
	ck_assert_uint_eq(f.descriptors, 0xf);
	ck_assert_uint_eq(f.descriptors_above, 0);
	ck_assert_uint_eq(f.blocked, 0);
	ck_assert_uint_eq(f.ignored, 0);
	ck_assert_uint_eq(f.umask, 077);
	ck_assert_uint_eq(f.dumpable, 0);
	ck_assert_int_eq(f.pid, 1);
	ck_assert_int_eq(f.ppid, 0);
	ck_assert_int_eq(f.sid, 1);
}
END_TEST

START_TEST(inside_has_no_ids)
{
	int fd = open_child_program();
	struct jail_plan p = plan_for(fd);
	struct facts f = facts_of(&p);

	close(fd);
	ck_assert_uint_eq(f.uid, JAIL_INNER_ID);
	ck_assert_uint_eq(f.euid, JAIL_INNER_ID);
	ck_assert_uint_eq(f.gid, JAIL_INNER_ID);
	ck_assert_uint_eq(f.egid, JAIL_INNER_ID);
	if (!jail_ids_own(&p))
		ck_assert_uint_eq(f.groups, 0);
}
END_TEST

START_TEST(inside_root_is_empty)
{
	int fd = open_child_program();
	struct jail_plan p = plan_for(fd);
	struct facts f = facts_of(&p);

	close(fd);
	ck_assert_str_eq(f.cwd, "/");
	ck_assert_uint_eq(f.root_entries, 0);
	ck_assert_int_eq(f.open_proc, ENOENT);
	ck_assert_int_eq(f.open_up, ENOENT);
	ck_assert_int_eq(f.make_dir, EROFS);
	ck_assert_int_eq(f.remount, EPERM);
	ck_assert_int_eq(f.bring_up_lo, EPERM);
}
END_TEST

START_TEST(limits_are_set)
{
	int fd = open_child_program();
	struct jail_plan p = plan_for(fd);

	p.nofile = 23;
	p.nproc = 5;
#ifndef INSULA_SANITIZE
	p.as = 1ull << 30;
#endif
	struct facts f = facts_of(&p);
	ck_assert_uint_eq(f.nofile, 23);
	ck_assert_uint_eq(f.nproc, 5);
	ck_assert_uint_eq(f.core, 0);
	ck_assert_uint_eq(f.fsize, 0); /* what is not asked for is not there */
	ck_assert_uint_eq(f.as, p.as ? p.as : RLIM_INFINITY);
	p.fsize = 12345;
	f = facts_of(&p);
	ck_assert_uint_eq(f.fsize, 12345);
	p.fsize = JAIL_FSIZE_ANY;
	f = facts_of(&p);
	ck_assert_uint_eq(f.fsize, RLIM_INFINITY);
	close(fd);
}
END_TEST

START_TEST(thread_limit_holds)
{
	int fd = open_child_program();
	struct jail_plan p = plan_for(fd);
	struct jail_child c;
	struct answer a;

	spawn(&p, &c);
	give_order(&c, "nothing", true, 10);
	get(&c, &a, sizeof(a));
	/* The kernel exempts the real root user from this limit; with ids of its own nobody is
	 * root. */
	if (p.outer_uid != 0)
		ck_assert_uint_eq(a.started, p.nproc - 1);
	ck_assert_int_eq(end_of(&c), 0);
	close(fd);
}
END_TEST

START_TEST(log_comes_out)
{
	struct jail_child c;
	struct answer a;
	char line[32];

	spawn_default(&c);
	ck_assert_int_lt(read(c.log, line, sizeof(line)), 0);
	ck_assert_int_eq(errno, EAGAIN);
	give_order(&c, "log", true, 0);
	get(&c, &a, sizeof(a));
	ck_assert_int_eq(read(c.log, line, sizeof(line)), 7);
	ck_assert_int_eq(memcmp(line, "a line\n", 7), 0);
	end_of(&c);
}
END_TEST

/* ---- what it looks like from outside ---- */

static void proc_link(pid_t pid, const char *what, char *buf, size_t size)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, what);
	ssize_t n = readlink(path, buf, size - 1);
	ck_assert_msg(n > 0, "readlink %s: %s", path, strerror(errno));
	buf[n] = 0;
}

static void check_namespaces(pid_t pid)
{
	char ours[64], theirs[64], what[16];

	for (size_t i = 0; i < ARRAY_LEN(ns_kinds); i++) {
		snprintf(what, sizeof(what), "ns/%s", ns_kinds[i]);
		proc_link(getpid(), what, ours, sizeof(ours));
		proc_link(pid, what, theirs, sizeof(theirs));
		ck_assert_str_ne(ours, theirs);
	}
}

static void check_maps(pid_t pid, const struct jail_plan *p)
{
	char path[64], map[256];
	unsigned inner, outer, count;

	snprintf(path, sizeof(path), "/proc/%d/uid_map", (int)pid);
	read_text(path, map, sizeof(map));
	ck_assert_int_eq(sscanf(map, "%u %u %u", &inner, &outer, &count), 3);
	ck_assert_uint_eq(inner, JAIL_INNER_ID);
	ck_assert_uint_eq(outer, p->outer_uid);
	ck_assert_uint_eq(count, 1);
	snprintf(path, sizeof(path), "/proc/%d/gid_map", (int)pid);
	read_text(path, map, sizeof(map));
	ck_assert_int_eq(sscanf(map, "%u %u %u", &inner, &outer, &count), 3);
	ck_assert_uint_eq(outer, p->outer_gid);
	ck_assert_uint_eq(count, 1);
	ck_assert_ptr_null(strchr(strchr(map, '\n') + 1, '\n'));
}

/* Only root may list the descriptors and the root of a process that is not dumpable. */
static void check_files(pid_t pid)
{
	char path[64], target[64];

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	ck_assert_uint_eq(count_names(path), 4);
	proc_link(pid, "fd/0", target, sizeof(target));
	ck_assert_str_eq(target, "/dev/null");
	for (int i = 1; i <= 3; i++) {
		snprintf(path, sizeof(path), "fd/%d", i);
		proc_link(pid, path, target, sizeof(target));
		ck_assert_int_eq(strncmp(target, i == 3 ? "socket:" : "pipe:", 5), 0);
	}
	snprintf(path, sizeof(path), "/proc/%d/root", (int)pid);
	ck_assert_uint_eq(count_names(path), 0);
	snprintf(path, sizeof(path), "/proc/%d/mountinfo", (int)pid);
	char info[512];
	read_text(path, info, sizeof(info));
	ck_assert_ptr_nonnull(strstr(info, " / / ro,nosuid,nodev,noexec"));
	ck_assert_ptr_eq(strchr(info, '\n') + 1, info + strlen(info));
}

START_TEST(outside_shows_a_jail)
{
	int fd = open_child_program();
	struct jail_plan p = plan_for(fd);
	struct jail_child c;
	struct answer a;
	struct err e = {0};

	spawn(&p, &c);
	give_order(&c, "nothing", true, 2);
	get(&c, &a, sizeof(a));
	ck_assert_uint_eq(a.started, 2);
	ck_assert_msg(jail_verify(c.pid, &e) == 0, "jail_verify: %s", e.text);
	check_namespaces(c.pid);
	check_maps(c.pid, &p);
	if (geteuid() == 0)
		check_files(c.pid);
	ck_assert_int_eq(end_of(&c), 0);
	close(fd);
}
END_TEST

START_TEST(verify_refuses_less)
{
	struct jail_child c;
	struct answer a;
	struct err e = {0};
	char text[64];

	ck_assert_int_eq(jail_verify(getpid(), &e), -EPERM); /* this test itself */
	spawn_default(&c);
	give_order(&c, "nothing", false, 0); /* in its jail, but not sealed */
	get(&c, &a, sizeof(a));
	ck_assert_int_eq(jail_verify(c.pid, &e), -EPERM);
	snprintf(text, sizeof(text), "/proc/%d/status: Seccomp is \"0\", not \"2\"", (int)c.pid);
	ck_assert_str_eq(e.text, text);
	kill(c.pid, SIGKILL);
	ck_assert(readable(c.pidfd, DEADLINE_MS));
	ck_assert_int_eq(jail_verify(c.pid, &e), -ESRCH); /* a zombie */
	end_of(&c);
	ck_assert_int_eq(jail_verify(c.pid, &e), -ESRCH);
}
END_TEST

/* ---- the filter ---- */

static const struct {
	const char *action;
	int64_t result;
} allowed[] = {
	{"nothing", 0},       {"ioctl_alternative", 0}, {"mprotect_rw", 0},
	{"mmap_room", -1},    {"mmap_room_end", -1},    {"log", 7},
	{"seccomp_mode", 2},  {"getppid", 0},           {"futex_wake", 0},
	{"ioctl_pinned", -1}, /* ENOTTY of /dev/null:
			      it got as far as the
			      driver */
};

START_TEST(allowed_calls_work)
{
	struct jail_child c;
	struct answer a;

	spawn_default(&c);
	give_order(&c, allowed[_i].action, true, 0);
	get(&c, &a, sizeof(a));
	ck_assert_msg(a.result == allowed[_i].result, "%s: %lld, errno %d", allowed[_i].action,
		      (long long)a.result, a.error);
	ck_assert_int_eq(end_of(&c), 0);
}
END_TEST

static const char *const forbidden[] = {
	"open",
	"socket",
	"connect",
	"execve",
	"execveat",
	"fork",
	"clone",
	"clone3",
	"ptrace",
	"process_vm_readv",
	"mount",
	"unshare",
	"setns",
	"kill",
	"tgkill",
	"ioctl_request",
	"ioctl_fd",
	"write_fd",
	"ioctl_high_bits",
#ifndef INSULA_SANITIZE /* their run-time has mmap() */
	"mmap_before",
	"mmap_behind",
	"mmap_high",
	"mmap_long",
	"mmap_exec",
	"mmap_anywhere",
	"mmap_memory",
#endif
	"mprotect_exec",
	"sendmsg_fd",
	"prctl",
	"seccomp",
	"prctl_seccomp",
	"io_uring_setup",
	"bpf",
	"keyctl",
	"userfaultfd",
	"perf_event_open",
	"setrlimit",
	"futex_pi",
	"futex_requeue",
	"x32",
	"int80",
	"minus_one",
};

static void dies_of_sigsys(const char *action, unsigned threads)
{
	struct jail_child c;
	struct answer a;

	spawn_default(&c);
	give_order(&c, action, true, threads);
	ck_assert(readable(c.channel, DEADLINE_MS));
	ssize_t n = recv(c.channel, &a, sizeof(a), 0);
	ck_assert_msg(n == 0, "%s: it answered (%zd bytes)", action, n);
	int status = end_of(&c);
	/* A kernel without 32-bit emulation has no int 0x80 at all. */
	bool ok = WIFSIGNALED(status) &&
		  (WTERMSIG(status) == SIGSYS ||
		   (WTERMSIG(status) == SIGSEGV && strcmp(action, "int80") == 0));
	ck_assert_msg(ok, "%s: status %#x", action, (unsigned)status);
	ck_assert_msg(!WCOREDUMP(status), "%s: core dumped", action);
}

START_TEST(forbidden_calls_kill)
{
	dies_of_sigsys(forbidden[_i], 0);
}
END_TEST

START_TEST(forbidden_calls_kill_from_any_thread)
{
	dies_of_sigsys("open", 2);
}
END_TEST

/* Rules that cannot work are refused before anything is installed. */
static void seal_badly(const void *arg, int out)
{
	struct err e = {0};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		_exit(1);
	int rc = jail_seal(arg, 1, &e);
	dprintf(out, "%d %d %s", rc, prctl(PR_GET_SECCOMP), e.text);
}

START_TEST(bad_rules_are_refused)
{
	static const struct jail_rule bad[] = {
		{SYS_read, NULL, {{0}}},
		{SYS_read, "value outside the mask", {{0, JAIL_MASKED_EQ, 3, 1}}},
		{SYS_read, "no such argument", {{6, JAIL_EQ, 3, 0}}},
		{SYS_read, "no such comparison", {{0, 7, 3, 0}}},
		{SYS_read, "one argument twice", {{0, JAIL_EQ, 1, 0}, {0, JAIL_EQ, 2, 0}}},
		{-1, "no such call", {{0}}},
	};
	char said[300];
	struct err e = {0};

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		in_scratch(seal_badly, &bad[i], said, sizeof(said));
		ck_assert_msg(strncmp(said, "-22 0 rule for system call ", 27) == 0, "%zu: %s", i,
			      said);
	}
	/* Before jail_enter(). */
	if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 0)
		ck_assert_int_eq(jail_seal(NULL, 0, &e), -EPERM);
}
END_TEST

/* ---- every step fails once, and says its name ---- */

struct fault {
	const char *want; /* what the report starts with */
	int nr;
	int error;
	int arg; /* which argument decides, -1: none */
	uint64_t value;
};

static const struct fault faults[] = {
	{"spawn: jail_child: cannot create a user namespace; in a container", SYS_clone3, ENOSYS,
	 -1, 0},
	{"spawn: jail_child: cannot create a user namespace; in a container", SYS_clone3, EPERM, -1,
	 0},
	{"spawn: channel, log pipe and", SYS_socketpair, EMFILE, -1, 0},
	{"spawn: channel, log pipe and", SYS_pipe2, EMFILE, -1, 0},
	{"parent: PR_SET_PDEATHSIG: ", SYS_prctl, EINVAL, 0, PR_SET_PDEATHSIG},
	{"signals: ", SYS_rt_sigprocmask, EINVAL, 0, SIG_SETMASK},
	{"namespaces: unshare; a limit in /proc/sys/user/max_", SYS_unshare, ENOSPC, -1, 0},
	{"ids: setresgid: ", SYS_setresgid, EPERM, -1, 0},
	{"ids: setresuid: ", SYS_setresuid, EAGAIN, -1, 0},
	{"session: setsid: ", SYS_setsid, EPERM, -1, 0},
	{"descriptors: close_range: ", SYS_close_range, ENOSYS, -1, 0},
	{"descriptors: descriptor 0: ", SYS_dup3, EMFILE, -1, 0},
	{"rlimits: RLIMIT_CORE 0: ", SYS_prlimit64, EPERM, 1, RLIMIT_CORE},
	{"privilege: libcap-ng cannot reduce them", SYS_capset, EPERM, -1, 0},
	{"privilege: libcap-ng cannot reduce them", SYS_prctl, EPERM, 0, PR_CAP_AMBIENT},
	{"exec: jail_child: ", SYS_execveat, ENOEXEC, -1, 0},
	{"exec: jail_child (everybody must be allowed to execute it): ", SYS_execveat, EACCES, -1,
	 0},
	{"parent: PR_SET_DUMPABLE: ", SYS_prctl, EINVAL, 0, PR_SET_DUMPABLE},
	{"root: private mounts; in a container", SYS_mount, EPERM, 3, MS_REC | MS_PRIVATE},
	{"root: tmpfs: ", SYS_mount, EPERM, 3, MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC},
	{"root: pivot_root: ", SYS_pivot_root, EINVAL, -1, 0},
	{"root: umount of the old root: ", SYS_umount2, EINVAL, -1, 0},
	{"root: /.. of the new root", SYS_umount2, 0, -1, 0}, /* "worked", but did nothing */
	{"capabilities: PR_SET_SECUREBITS: ", SYS_prctl, EPERM, 0, PR_SET_SECUREBITS},
	{"capabilities: PR_CAPBSET_DROP of 0", SYS_prctl, EPERM, 0, PR_CAPBSET_DROP},
	{"capabilities: capability 0 is left", SYS_prctl, 0, 0, PR_CAPBSET_DROP}, /* a lie */
	{"no_new_privs: it is not in force", SYS_prctl, 0, 0, PR_GET_NO_NEW_PRIVS},
	{"seccomp: ", SYS_seccomp, EINVAL, 0, 1 /* SECCOMP_SET_MODE_FILTER */},
	{"ready", -1, 0, -1, 0}, /* and without a fault it works in the same surroundings */
};

/* The fault is a filter of this scratch process, inherited by the child. */
static void spawn_with_fault(const void *arg, int out)
{
	const struct fault *f = arg;
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ALLOW);
	struct scmp_arg_cmp cmp = {(unsigned)f->arg, SCMP_CMP_EQ, f->value, 0};
	int fd = open_child_program();
	struct jail_plan p = plan_for(fd);
	int rc = 0;

	if (!ctx)
		_exit(1);
	if (f->nr >= 0)
		rc = seccomp_rule_add_array(ctx, SCMP_ACT_ERRNO((unsigned)f->error), f->nr,
					    f->arg >= 0, &cmp);
	if (rc || seccomp_load(ctx))
		_exit(2);
	spawn_and_tell(&p, true, out);
}

START_TEST(failing_steps_are_named)
{
	const struct fault *f = &faults[_i];
	char said[400];

	in_scratch(spawn_with_fault, f, said, sizeof(said));
	ck_assert_msg(strncmp(said, f->want, strlen(f->want)) == 0, "want \"%s\", got \"%s\"",
		      f->want, said);
}
END_TEST

/* ---- the same without a filter: limits, descriptors and programs as they can be in real life ----
 */

static void spawn_plan(const void *arg, int out)
{
	spawn_and_tell(arg, true, out);
}

START_TEST(limits_too_high_are_named)
{
	char said[400];
	int fd = open_child_program();
	struct jail_plan p = plan_for(fd);

	p.nofile = UINT32_MAX;
	in_scratch(spawn_plan, &p, said, sizeof(said));
	ck_assert_str_eq(said, "rlimits: RLIMIT_NOFILE 4294967295: Operation not permitted");
	close(fd);
}
END_TEST

/* Somewhere between "the parent cannot open what it needs" and "it works" is "the child cannot". */
START_TEST(no_descriptor_left_is_named)
{
	char said[400] = "spawn: ";
	int fd = open_child_program();
	struct jail_plan p = plan_for(fd);
	struct rlimit old, low;

	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &old), 0);
	low = old;
	for (low.rlim_cur = (rlim_t)fd + 3; strncmp(said, "spawn: ", 7) == 0; low.rlim_cur++) {
		ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &low), 0);
		in_scratch(spawn_plan, &p, said, sizeof(said));
	}
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &old), 0);
	ck_assert_msg(strncmp(said, "descriptors: ", 13) == 0, "%s", said);
	close(fd);
}
END_TEST

START_TEST(not_a_program_is_named)
{
	char said[400], path[] = "/tmp/insula-test-XXXXXX";
	int fd = mkstemp(path);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, "not a program\n", 14), 14);
	int ro = open(path, O_RDONLY | O_CLOEXEC);
	unlink(path);
	close(fd);
	struct jail_plan p = plan_for(ro);
	in_scratch(spawn_plan, &p, said, sizeof(said));
	ck_assert_str_eq(
		said,
		"exec: jail_child (everybody must be allowed to execute it): Permission denied");
	ck_assert_int_eq(fchmod(ro, 0755), 0);
	in_scratch(spawn_plan, &p, said, sizeof(said));
	ck_assert_str_eq(said, "exec: jail_child: Exec format error");
	close(ro);
	p.exec_fd = -1;
	in_scratch(spawn_plan, &p, said, sizeof(said));
	ck_assert_str_eq(said, "descriptors: descriptor 4: Bad file descriptor");
}
END_TEST

/* ---- inside a user namespace, as in a rootless container ---- */

static void become_root_of_a_namespace(void)
{
	char map[64];
	unsigned uid = geteuid(), gid = getegid();

	if (unshare(CLONE_NEWUSER) || jail_file_write("/proc/self/setgroups", "deny"))
		_exit(3);
	snprintf(map, sizeof(map), "0 %u 1", uid);
	if (jail_file_write("/proc/self/uid_map", map))
		_exit(4);
	snprintf(map, sizeof(map), "0 %u 1", gid);
	if (jail_file_write("/proc/self/gid_map", map))
		_exit(5);
}

static void spawn_nested(const void *arg, int out)
{
	const char *exhausted = arg;
	int fd = open_child_program();

	become_root_of_a_namespace();
	if (exhausted && jail_file_write(exhausted, "0"))
		_exit(6);
	struct jail_plan p = plan_for(fd);
	if (p.outer_uid != 0 || p.outer_gid != 0)
		_exit(7); /* the range is not mapped here */
	spawn_and_tell(&p, true, out);
}

START_TEST(works_in_a_user_namespace)
{
	char said[400];

	in_scratch(spawn_nested, NULL, said, sizeof(said));
	ck_assert_str_eq(said, "ready");
}
END_TEST

START_TEST(exhausted_namespaces_are_named)
{
	char said[400];

	in_scratch(spawn_nested, "/proc/sys/user/max_user_namespaces", said, sizeof(said));
	ck_assert_str_eq(said,
			 "spawn: jail_child: cannot create a user namespace; user namespaces are "
			 "switched off: sysctl -w user.max_user_namespaces=10000: No space left "
			 "on device");
	in_scratch(spawn_nested, "/proc/sys/user/max_net_namespaces", said, sizeof(said));
	ck_assert_str_eq(said, "namespaces: unshare; a limit in /proc/sys/user/max_*_namespaces is "
			       "reached: No space left on device");
}
END_TEST

/* ---- remedies and id maps: pure ---- */

static void put(const char *dir, const char *file, const char *text)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/%s", dir, file);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	close(fd);
}

START_TEST(remedies_fit)
{
	static const char *const files[] = {"user/max_user_namespaces",
					    "kernel/unprivileged_userns_clone",
					    "kernel/apparmor_restrict_unprivileged_userns"};
	static const char *const good[] = {"100\n", "1\n", "0\n"}, *const bad[] = {"0\n", "0\n",
										   "1\n"};
	static const char *const says[] = {"user.max_user_namespaces=10000",
					   "kernel.unprivileged_userns_clone=1",
					   "kernel.apparmor_restrict_unprivileged_userns=0"};
	char dir[] = "/tmp/insula-test-XXXXXX", path[256];

	ck_assert_ptr_nonnull(mkdtemp(dir));
	ck_assert_ptr_nonnull(strstr(jail_remedy(dir, -EPERM, false), "container"));
	for (int i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, i ? "user" : "kernel");
		ck_assert_int_eq(mkdir(path, 0700), 0);
	}
	for (size_t i = 0; i < ARRAY_LEN(files); i++)
		put(dir, files[i], good[i]);
	ck_assert_ptr_nonnull(strstr(jail_remedy(dir, -EPERM, false), "container"));
	ck_assert_ptr_nonnull(strstr(jail_remedy(dir, -ENOSPC, false), "a limit in"));
	ck_assert_str_eq(jail_remedy(dir, -ENOMEM, false), "");
	for (size_t i = 0; i < ARRAY_LEN(files); i++) {
		put(dir, files[i], bad[i]);
		ck_assert_ptr_nonnull(strstr(jail_remedy(dir, -EPERM, false), says[i]));
		ck_assert_int_eq(strstr(jail_remedy(dir, -EPERM, true), says[i]) != NULL, i == 0);
		put(dir, files[i], good[i]);
		snprintf(path, sizeof(path), "%s/%s", dir, files[i]);
		unlink(path);
	}
	for (int i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, i ? "user" : "kernel");
		rmdir(path);
	}
	rmdir(dir);
}
END_TEST

START_TEST(maps_are_read_right)
{
	ck_assert(jail_map_has("         0          0 4294967295\n", JAIL_UID_BASE + 4194304));
	ck_assert(!jail_map_has("0 1000 1\n1 100000 65536\n", JAIL_UID_BASE));
	ck_assert(jail_map_has("0 1000 1\n1879048192 5 10\n", JAIL_UID_BASE + 9));
	ck_assert(!jail_map_has("0 1000 1\n1879048192 5 10\n", JAIL_UID_BASE + 10));
	ck_assert(!jail_map_has("", 0));
	ck_assert(!jail_map_has("nonsense", 0));
	ck_assert(!jail_map_has("0 0", 0));
}
END_TEST

START_TEST(ids_fit_the_caller)
{
	struct jail_plan p = {0};

	jail_ids(&p);
	if (geteuid() != 0) {
		ck_assert_uint_eq(p.outer_uid, geteuid());
		ck_assert_uint_eq(p.outer_gid, getegid());
		ck_assert(jail_ids_own(&p));
	} else if (!jail_ids_own(&p)) {
		ck_assert_uint_eq(p.outer_uid, JAIL_UID_BASE + (uint32_t)getpid());
		ck_assert_uint_eq(p.outer_gid, p.outer_uid);
	}
}
END_TEST

/* ---- the end ---- */

static void spawn_and_wait_for_death(const void *arg, int out)
{
	struct jail_child c;
	struct order o = {.action = "nothing", .seal = *(const bool *)arg};
	struct answer a;
	int fd = open_child_program();
	struct jail_plan p = plan_for(fd);
	struct err e = {0};

	if (jail_spawn(&p, &c, &e))
		_exit(1);
	if (o.seal && (send(c.channel, &o, sizeof(o), 0) < 0 || !readable(c.channel, DEADLINE_MS) ||
		       recv(c.channel, &a, sizeof(a), 0) != (ssize_t)sizeof(a)))
		_exit(2);
	if (write(out, &c.pid, sizeof(c.pid)) != (ssize_t)sizeof(c.pid))
		_exit(3);
	for (;;)
		pause();
}

/* kill -9 of the parent: the child follows at once, whether it is sealed or still on its way. */
static void parent_dies(bool sealed)
{
	int p[2], status;
	pid_t jailed;

	ck_assert_int_eq(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), 0);
	ck_assert_int_eq(pipe2(p, O_CLOEXEC), 0);
	pid_t middle = fork();
	ck_assert_int_ge(middle, 0);
	if (middle == 0) {
		spawn_and_wait_for_death(&sealed, p[1]);
		_exit(0);
	}
	close(p[1]);
	ck_assert_int_eq(read(p[0], &jailed, sizeof(jailed)), sizeof(jailed));
	close(p[0]);
	int pidfd = (int)syscall(SYS_pidfd_open, jailed, 0);
	ck_assert_int_ge(pidfd, 0);
	kill(middle, SIGKILL);
	ck_assert_int_eq(waitpid(middle, &status, 0), middle);
	ck_assert_msg(readable(pidfd, 1000), "the child outlives its parent");
	close(pidfd);
	/* It is ours now, and nothing else is. */
	ck_assert_int_eq(waitpid(jailed, &status, 0), jailed);
	ck_assert_int_eq(waitpid(-1, NULL, WNOHANG), -1);
	ck_assert_int_eq(errno, ECHILD);
}

START_TEST(parent_death_kills)
{
	parent_dies(true);
	for (int i = 0; i < 20; i++)
		parent_dies(false);
}
END_TEST

START_TEST(signals_of_a_user_do_nothing_but_kill_does)
{
	struct jail_child c;
	struct answer a;

	spawn_default(&c);
	give_order(&c, "nothing", true, 0);
	get(&c, &a, sizeof(a));
	kill(c.pid, SIGTERM);
	kill(c.pid, SIGINT);
	kill(c.pid, SIGHUP);
	ck_assert(!readable(c.pidfd, 50));
	kill(c.pid, SIGKILL);
	int status = end_of(&c);
	ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}
END_TEST

START_TEST(nothing_is_left)
{
	char before[32768], after[32768];
	unsigned fds = count_names("/proc/self/fd");
	struct jail_child c[4];
	struct answer a;

	read_text("/proc/self/mountinfo", before, sizeof(before));
	for (size_t i = 0; i < ARRAY_LEN(c); i++) /* all at once */
		spawn_default(&c[i]);
	for (size_t i = 0; i < ARRAY_LEN(c); i++) {
		give_order(&c[i], "nothing", true, 1);
		get(&c[i], &a, sizeof(a));
	}
	for (size_t i = 0; i < ARRAY_LEN(c); i++)
		ck_assert_int_eq(end_of(&c[i]), 0);
	read_text("/proc/self/mountinfo", after, sizeof(after));
	ck_assert_str_eq(before, after);
	ck_assert_uint_eq(count_names("/proc/self/fd"), fds);
	ck_assert_int_eq(waitpid(-1, NULL, WNOHANG), -1);
	ck_assert_int_eq(errno, ECHILD);
}
END_TEST

/* Started by hand it must not touch the root of the host, root or not. */
static void run_by_hand(const void *arg, int out)
{
	char *const argv[] = {(char *)(uintptr_t) "jail_child", NULL};
	int fd = open_child_program(), s[2];

	if (*(const bool *)arg && (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, s) || dup2(s[1], 3) < 0 ||
				   fcntl(s[0], F_DUPFD, 10) < 0))
		_exit(1);
	else if (!*(const bool *)arg)
		dup2(out, 3);
	dup2(out, STDERR_FILENO);
	pid_t pid = fork();
	if (pid == 0) {
		syscall(SYS_execveat, fd, "", argv, environ, AT_EMPTY_PATH);
		_exit(99);
	}
	int status = -1;
	waitpid(pid, &status, 0);
	dprintf(out, "status %#x", (unsigned)status);
}

START_TEST(by_hand_it_refuses)
{
	char said[400], root[4096];
	const bool channel[] = {false, true};

	ck_assert_int_gt(readlink("/proc/self/ns/mnt", root, sizeof(root)), 0);
	in_scratch(run_by_hand, &channel[0], said, sizeof(said));
	ck_assert_str_eq(said,
			 "error: this program is started by insula-run, not by hand\nstatus 0x100");
	in_scratch(run_by_hand, &channel[1], said, sizeof(said));
	ck_assert_str_eq(said, "status 0x100");
	ck_assert_int_eq(access("/proc/self/status", R_OK), 0);
}
END_TEST

static Suite *make_suite(bool again)
{
	Suite *s = suite_create(again ? "jail, ordinary user" : "jail");
	TCase *in = tcase_create("inside"), *out = tcase_create("outside"),
	      *filter = tcase_create("filter"), *fail = tcase_create("failures"),
	      *end = tcase_create("end");
	TCase *all[] = {in, out, filter, fail, end};

	tcase_add_test(in, inside_is_bare);
	tcase_add_test(in, inside_has_no_ids);
	tcase_add_test(in, inside_root_is_empty);
	tcase_add_test(in, limits_are_set);
	tcase_add_test(in, thread_limit_holds);
	tcase_add_test(in, log_comes_out);
	tcase_add_test(out, outside_shows_a_jail);
	tcase_add_test(out, verify_refuses_less);
	tcase_add_test(out, ids_fit_the_caller);
	tcase_add_loop_test(filter, allowed_calls_work, 0, (int)ARRAY_LEN(allowed));
	tcase_add_loop_test(filter, forbidden_calls_kill, 0, (int)ARRAY_LEN(forbidden));
	tcase_add_test(filter, forbidden_calls_kill_from_any_thread);
	tcase_add_test(filter, bad_rules_are_refused);
	tcase_add_loop_test(fail, failing_steps_are_named, 0, (int)ARRAY_LEN(faults));
	tcase_add_test(fail, limits_too_high_are_named);
	tcase_add_test(fail, no_descriptor_left_is_named);
	tcase_add_test(fail, not_a_program_is_named);
	tcase_add_test(fail, works_in_a_user_namespace);
	tcase_add_test(fail, exhausted_namespaces_are_named);
	tcase_add_test(fail, remedies_fit);
	tcase_add_test(fail, maps_are_read_right);
	tcase_add_test(end, parent_death_kills);
	tcase_add_test(end, signals_of_a_user_do_nothing_but_kill_does);
	tcase_add_test(end, nothing_is_left);
	tcase_add_test(end, by_hand_it_refuses);
	for (size_t i = 0; i < ARRAY_LEN(all); i++) {
		tcase_set_timeout(all[i], 60);
		suite_add_tcase(s, all[i]);
	}
	return s;
}

/* Root runs everything once more as an ordinary user. Both programs are handed over as descriptors,
 * so that the directory that they are in need not be open to everybody. */
static int again_as_nobody(void)
{
	char env_child[64];
	int self = open("/proc/self/exe", O_RDONLY | O_CLOEXEC), child = find_child_program(),
	    status;
	pid_t pid = fork();

	if (pid == 0) {
		char *const argv[] = {(char *)(uintptr_t) "test_jail", NULL};
		char *const envp[] = {env_child, (char *)(uintptr_t)ENV_AGAIN "=1", NULL};
		int kept = fcntl(child, F_DUPFD, 100);

		snprintf(env_child, sizeof(env_child), "%s=/proc/self/fd/%d", ENV_CHILD, kept);
		if (kept < 0 || setgroups(0, NULL) || setresgid(NOBODY, NOBODY, NOBODY) ||
		    setresuid(NOBODY, NOBODY, NOBODY))
			_exit(98);
		syscall(SYS_execveat, self, "", argv, envp, AT_EMPTY_PATH);
		_exit(99);
	}
	close(self);
	close(child);
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return 1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

int main(void)
{
	bool again = getenv(ENV_AGAIN) != NULL;
	SRunner *sr = srunner_create(make_suite(again));
	int failed;

	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	if (geteuid() == 0 && !again)
		failed += again_as_nobody();
	return failed != 0;
}
