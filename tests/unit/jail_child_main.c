/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The program that test_jail.c puts into a jail. It enters the jail as every program does, takes
 * one order from the channel, seals itself if told so, does what the order says (most of it
 * forbidden) and answers if it still can.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <net/if.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/jail.h>
#include <insula/proto.h>

#include "jail_child.h"

#define X32_BIT 0x40000000L
#define I386_GETPID 20
#define ROOM 0x10000000ull /* as insula-vmm has one (src/vmm/seal_linux.c) */
#define ROOM_SIZE 0x1000000ull

static const struct jail_rule rules[] = {
	{SYS_ioctl, "test: two arguments pinned", {{0, JAIL_EQ, 0, 0}, {1, JAIL_EQ, FIONREAD, 0}}},
	{SYS_ioctl,
	 "test: an alternative",
	 {{0, JAIL_EQ, MSG_CHANNEL_FD, 0}, {1, JAIL_EQ, FIONREAD, 0}}},
	{SYS_mmap,
	 "test: four arguments",
	 {{0, JAIL_MASKED_EQ, ROOM, ~(ROOM_SIZE - 1)},
	  {1, JAIL_MASKED_EQ, 0, ~(ROOM_SIZE - 1)},
	  {2, JAIL_EQ, PROT_READ | PROT_WRITE, 0},
	  {3, JAIL_EQ, MAP_SHARED | MAP_FIXED, 0}}},
	{SYS_mprotect, "test: a mask", {{2, JAIL_MASKED_EQ, 0, PROT_EXEC}}},
	{SYS_getppid, "test: the same twice", {{0}}},
	{SYS_getppid, "test: the same twice", {{0}}},
	{SYS_sendto, "answers", {{0, JAIL_EQ, MSG_CHANNEL_FD, 0}}},
	{SYS_recvfrom, "wait for the end of the channel", {{0, JAIL_EQ, MSG_CHANNEL_FD, 0}}},
};

static char page[8192] __attribute__((aligned(4096)));

static void answer(const void *a, size_t len)
{
	if (send(MSG_CHANNEL_FD, a, len, MSG_NOSIGNAL) != (ssize_t)len)
		_exit(3);
}

static int64_t forbidden_msg(int fd)
{
	struct iovec v = {page, 1};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};

	return sendmsg(fd, &m, 0);
}

static int64_t do_int80(void)
{
	long r;

	__asm__ volatile("int $0x80" : "=a"(r) : "a"(I386_GETPID) : "memory");
	return r;
}

/* -1, because there is no such descriptor: if it is allowed. */
static int64_t map(uint64_t at, uint64_t len, int prot, int flags)
{
	return syscall(SYS_mmap, at, len, prot, flags, 99, 0);
}

#define RW (PROT_READ | PROT_WRITE)
#define AT (MAP_SHARED | MAP_FIXED)

#define ACTION(name, expr)              \
	static int64_t act_##name(void) \
	{                               \
		return (int64_t)(expr); \
	}

/* allowed */
ACTION(nothing, 0)
ACTION(ioctl_pinned, ioctl(0, FIONREAD, page))
ACTION(ioctl_alternative, ioctl(MSG_CHANNEL_FD, FIONREAD, page))
ACTION(mprotect_rw, mprotect(page, 4096, PROT_READ | PROT_WRITE))
ACTION(log, write(STDERR_FILENO, "a line\n", 7))
ACTION(seccomp_mode, prctl(PR_GET_SECCOMP))
ACTION(getppid, getppid())
ACTION(futex_wake, syscall(SYS_futex, page, FUTEX_WAKE, 1, NULL, NULL, 0))
ACTION(mmap_room, map(ROOM, 4096, RW, AT))
ACTION(mmap_room_end, map(ROOM + ROOM_SIZE - 4096, ROOM_SIZE - 4096, RW, AT))
/* forbidden */
ACTION(mmap_before, map(ROOM - 4096, 4096, RW, AT))
ACTION(mmap_behind, map(ROOM + ROOM_SIZE, 4096, RW, AT))
ACTION(mmap_high, map(ROOM | 1ull << 32, 4096, RW, AT))
ACTION(mmap_long, map(ROOM, ROOM_SIZE, RW, AT))
ACTION(mmap_exec, map(ROOM, 4096, RW | PROT_EXEC, AT))
ACTION(mmap_anywhere, map(ROOM, 4096, RW, MAP_SHARED))
ACTION(mmap_memory, map(ROOM, 4096, RW, AT | MAP_ANONYMOUS))
ACTION(open, syscall(SYS_openat, AT_FDCWD, "/", O_RDONLY))
ACTION(socket, socket(AF_UNIX, SOCK_STREAM, 0))
ACTION(connect, connect(MSG_CHANNEL_FD, (const struct sockaddr *)page, 8))
ACTION(execve, syscall(SYS_execve, "/x", NULL, NULL))
ACTION(execveat, syscall(SYS_execveat, 0, "", NULL, NULL, AT_EMPTY_PATH))
ACTION(fork, syscall(SYS_fork))
ACTION(clone, syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0))
ACTION(clone3, syscall(SYS_clone3, page, 64))
ACTION(ptrace, syscall(SYS_ptrace, 0, 0, 0, 0))
ACTION(process_vm_readv, syscall(SYS_process_vm_readv, 1, page, 0, page, 0, 0))
ACTION(mount, syscall(SYS_mount, "x", "/", "tmpfs", 0, NULL))
ACTION(unshare, syscall(SYS_unshare, 0))
ACTION(setns, syscall(SYS_setns, 0, 0))
ACTION(kill, syscall(SYS_kill, 1, 0))
ACTION(tgkill, syscall(SYS_tgkill, 1, 1, 0))
ACTION(ioctl_request, ioctl(0, TIOCGWINSZ, page))
ACTION(ioctl_fd, ioctl(STDERR_FILENO, FIONREAD, page))
ACTION(ioctl_high_bits, syscall(SYS_ioctl, 1L << 32, FIONREAD, page))
ACTION(mprotect_exec, mprotect(page, 4096, PROT_READ | PROT_EXEC))
ACTION(write_fd, write(STDOUT_FILENO, "x", 1))
ACTION(sendmsg_fd, forbidden_msg(0))
ACTION(prctl, prctl(PR_SET_DUMPABLE, 1))
ACTION(prctl_seccomp, prctl(PR_SET_SECCOMP, 2, page))
ACTION(seccomp, syscall(SYS_seccomp, 1, 0, page))
ACTION(io_uring_setup, syscall(SYS_io_uring_setup, 1, page))
ACTION(bpf, syscall(SYS_bpf, 0, page, 8))
ACTION(keyctl, syscall(SYS_keyctl, 0, 0, 0, 0, 0))
ACTION(userfaultfd, syscall(SYS_userfaultfd, 0))
ACTION(perf_event_open, syscall(SYS_perf_event_open, page, 0, -1, -1, 0))
ACTION(setrlimit, syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, NULL, page))
ACTION(futex_pi, syscall(SYS_futex, page, FUTEX_LOCK_PI, 0, NULL, NULL, 0))
ACTION(futex_requeue, syscall(SYS_futex, page, FUTEX_CMP_REQUEUE_PI, 0, NULL, page + 8, 0))
ACTION(x32, syscall(X32_BIT + SYS_getppid))
ACTION(int80, do_int80())
ACTION(minus_one, syscall(-1))

static const struct {
	const char *name;
	int64_t (*run)(void);
} actions[] = {
#define A(name)                   \
	{                         \
#name, act_##name \
	}
	A(nothing),
	A(ioctl_pinned),
	A(ioctl_alternative),
	A(mprotect_rw),
	A(mmap_room),
	A(mmap_room_end),
	A(mmap_before),
	A(mmap_behind),
	A(mmap_high),
	A(mmap_long),
	A(mmap_exec),
	A(mmap_anywhere),
	A(mmap_memory),
	A(log),
	A(seccomp_mode),
	A(getppid),
	A(futex_wake),
	A(open),
	A(socket),
	A(connect),
	A(execve),
	A(execveat),
	A(fork),
	A(clone),
	A(clone3),
	A(ptrace),
	A(mount),
	A(unshare),
	A(setns),
	A(kill),
	A(tgkill),
	A(ioctl_request),
	A(ioctl_fd),
	A(ioctl_high_bits),
	A(write_fd),
	A(sendmsg_fd),
	A(prctl),
	A(prctl_seccomp),
	A(seccomp),
	A(io_uring_setup),
	A(bpf),
	A(keyctl),
	A(x32),
	A(futex_pi),
	A(futex_requeue),
	A(int80),
	A(minus_one),
	A(mprotect_exec),
	A(setrlimit),
	A(userfaultfd),
	A(perf_event_open),
	A(process_vm_readv),
#undef A
};

static int64_t run_action(const char *name)
{
	for (size_t i = 0; i < ARRAY_LEN(actions); i++) {
		if (strcmp(actions[i].name, name) == 0)
			return actions[i].run();
	}
	panic("no action %s", name);
}

/* ---- facts ---- */

static uint64_t limit_of(__rlimit_resource_t what)
{
	struct rlimit l;

	return getrlimit(what, &l) || l.rlim_cur != l.rlim_max ? UINT64_MAX - 1 : l.rlim_cur;
}

static void count_descriptors(struct facts *f)
{
	for (int fd = 0; fd < 4096; fd++) {
		if (fcntl(fd, F_GETFD) < 0)
			continue;
		if (fd < 64)
			f->descriptors |= 1ull << fd;
		else
			f->descriptors_above++;
	}
}

static void look_at_signals(struct facts *f)
{
	sigset_t now;

	sigprocmask(SIG_SETMASK, NULL, &now);
	for (int i = 1; i < NSIG; i++) {
		struct sigaction sa;

		if (sigismember(&now, i) == 1)
			f->blocked |= 1ull << (i - 1);
		if (sigaction(i, NULL, &sa) == 0 && sa.sa_handler == SIG_IGN)
			f->ignored |= 1ull << (i - 1);
	}
}

static int errno_of(long r)
{
	return r < 0 ? errno : 0;
}

static void try_to_get_out(struct facts *f)
{
	struct ifreq ifr = {.ifr_name = "lo", .ifr_flags = IFF_UP};
	int sock = socket(AF_INET, SOCK_DGRAM, 0);
	DIR *d = opendir("/");
	struct dirent *de;

	while (d && (de = readdir(d)))
		f->root_entries += de->d_name[0] != '.';
	if (d)
		closedir(d);
	f->open_proc = errno_of(open("/proc/self/status", O_RDONLY));
	f->open_up = errno_of(open("../../../../etc/passwd", O_RDONLY));
	f->make_dir = errno_of(mkdir("/x", 0700));
	f->remount = errno_of(mount(NULL, "/", NULL, MS_REMOUNT, NULL));
	f->bring_up_lo = errno_of(ioctl(sock, SIOCSIFFLAGS, &ifr));
	if (sock >= 0)
		close(sock);
}

static void tell_facts(int argc, char **argv, char **envp)
{
	struct facts f = {.argc = (uint32_t)argc};

	f.pid = getpid();
	f.ppid = getppid();
	f.sid = getsid(0);
	f.uid = getuid();
	f.euid = geteuid();
	f.gid = getgid();
	f.egid = getegid();
	f.groups = (uint32_t)getgroups(0, NULL);
	while (envp[f.envc])
		f.envc++;
	f.umask = umask(0);
	f.dumpable = (uint32_t)prctl(PR_GET_DUMPABLE);
	count_descriptors(&f);
	look_at_signals(&f);
	f.nofile = limit_of(RLIMIT_NOFILE);
	f.nproc = limit_of(RLIMIT_NPROC);
	f.core = limit_of(RLIMIT_CORE);
	f.fsize = limit_of(RLIMIT_FSIZE);
	f.as = limit_of(RLIMIT_AS);
	try_to_get_out(&f);
	snprintf(f.argv0, sizeof(f.argv0), "%s", argv[0]);
	if (!getcwd(f.cwd, sizeof(f.cwd)))
		f.cwd[0] = 0;
	answer(&f, sizeof(f));
}

/* ---- threads: they exist before the filter, and one of them may get the order ---- */

struct shared {
	pthread_mutex_t lock;
	pthread_cond_t wake;
	const char *action; /* for whoever takes it first */
	int64_t result;
	bool done;
	uint32_t running; /* threads that have come as far as their loop */
};
static struct shared sh = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, NULL, 0, false, 0};

static void *thread_main(void *arg)
{
	struct shared *s = arg;

	pthread_mutex_lock(&s->lock);
	s->running++;
	pthread_cond_broadcast(&s->wake);
	for (;;) {
		while (!s->action)
			pthread_cond_wait(&s->wake, &s->lock);
		s->result = run_action(s->action);
		s->action = NULL;
		s->done = true;
		pthread_cond_broadcast(&s->wake);
	}
	return NULL;
}

static int64_t run_in_thread(const char *action)
{
	pthread_mutex_lock(&sh.lock);
	sh.action = action;
	pthread_cond_broadcast(&sh.wake);
	while (!sh.done)
		pthread_cond_wait(&sh.wake, &sh.lock);
	pthread_mutex_unlock(&sh.lock);
	return sh.result;
}

/* A new thread makes a few system calls of its own before it reaches its function, so the filter
 * has to wait for it. */
static uint32_t start_threads(uint32_t n)
{
	pthread_attr_t attr;
	pthread_t t;
	uint32_t i;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 256 << 10);
	for (i = 0; i < n; i++) {
		if (pthread_create(&t, &attr, thread_main, &sh))
			break;
	}
	pthread_mutex_lock(&sh.lock);
	while (sh.running < i)
		pthread_cond_wait(&sh.wake, &sh.lock);
	pthread_mutex_unlock(&sh.lock);
	return i;
}

/* ---- poke ---- */

#define POKE_STOPS 1000 /* stops to wait for a system call that is being entered, at most */
#define POKE_SECONDS 10

static int poke_failed(const char *what)
{
	fprintf(stderr, "poke: %s: %s\n", what, strerror(errno));
	return errno == EPERM ? 77 : 1;
}

/* Stop at the entry of a system call. A call that was being waited in is entered once more. */
static int stop_at_entry(pid_t pid)
{
	struct __ptrace_syscall_info info;
	int status, sig = 0;

	for (int i = 0; i < POKE_STOPS; i++) {
		if (waitpid(pid, &status, __WALL) != pid || !WIFSTOPPED(status))
			return poke_failed("it ended too early");
		if (ptrace(PTRACE_GET_SYSCALL_INFO, pid, sizeof(info), &info) > 0 &&
		    info.op == PTRACE_SYSCALL_INFO_ENTRY)
			return 0;
		/* Signals of its own go on to it; the stops that we asked for do not. */
		sig = status >> 8 == WSTOPSIG(status) && WSTOPSIG(status) < SIGTRAP
			      ? WSTOPSIG(status)
			      : 0;
		if (ptrace(PTRACE_SYSCALL, pid, 0, sig))
			return poke_failed("PTRACE_SYSCALL");
	}
	return poke_failed("it makes no system call");
}

static int poke(pid_t pid, long nr)
{
	struct user_regs_struct regs;
	int status;

	alarm(POKE_SECONDS);
	if (ptrace(PTRACE_SEIZE, pid, 0, PTRACE_O_TRACESYSGOOD) ||
	    ptrace(PTRACE_INTERRUPT, pid, 0, 0))
		return poke_failed("PTRACE_SEIZE");
	if (stop_at_entry(pid))
		return 1;
	if (ptrace(PTRACE_GETREGS, pid, 0, &regs))
		return poke_failed("PTRACE_GETREGS");
	regs.orig_rax = (unsigned long long)nr;
	if (ptrace(PTRACE_SETREGS, pid, 0, &regs) || ptrace(PTRACE_CONT, pid, 0, 0))
		return poke_failed("PTRACE_SETREGS");
	if (waitpid(pid, &status, __WALL) != pid)
		return poke_failed("waitpid");
	if (WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS)
		return 0;
	fprintf(stderr, "poke: system call %ld: status %#x\n", nr, (unsigned)status);
	return 1;
}

int main(int argc, char **argv, char **envp)
{
	struct order o;
	struct answer a = {0};
	struct err e = {0};
	char c;

	if (argc == 4 && strcmp(argv[1], "poke") == 0)
		return poke((pid_t)atoi(argv[2]), atol(argv[3]));
	jail_enter();
	if (recv(MSG_CHANNEL_FD, &o, sizeof(o), 0) != (ssize_t)sizeof(o))
		_exit(2);
	if (strcmp(o.action, "facts") == 0) {
		tell_facts(argc, argv, envp);
		_exit(0);
	}
	a.started = start_threads(o.threads);
	if (o.seal && jail_seal(rules, ARRAY_LEN(rules), &e)) {
		msg_fail(MSG_CHANNEL_FD, "seccomp", e.code, e.text, 0);
		_exit(1);
	}
	errno = 0;
	a.result = o.in_thread ? run_in_thread(o.action) : run_action(o.action);
	a.error = errno;
	answer(&a, sizeof(a));
	while (recv(MSG_CHANNEL_FD, &c, 1, 0) > 0)
		;
	_exit(0);
}
