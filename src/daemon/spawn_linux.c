/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Starting a supervisor: a child that makes only system calls until exec.
 *
 * Its descriptors stand in slots, low numbers that belong to nobody else. The child shares the
 * table until it leaves with a new one, into which nothing above the slots was copied: closing what
 * clients have sent could keep it as long as their makers like, and fork() and exec would do that.
 *
 * The child waits for one byte before it becomes a supervisor. insulad writes the record with its
 * process id first and gives the byte then; if insulad dies in between, the child sees the end of
 * the pipe and goes. So there is no supervisor without a record. That it has had its byte it writes
 * into the result file: whoever finds the record of a dead child knows whether there was a VM.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <linux/close_range.h>
#include <linux/sched.h>

#include <insula/base.h>
#include <insula/log.h>

#include "cgroup.h"
#include "conf.h"
#include "daemon.h"
#include "host.h"
#include "machine.h"
#include "process.h"
#include "record.h"
#include "spawn.h"
#include "spec/json.h"
#include "state.h"
#include "spec/handover.h"
#include "spec/logrecord.h"

#define LOW 64            /* the kernel copies tables in steps of 64, and closes what is too much */
#define SLOT (LOW - NFDS) /* the first */
#define LEAVE_MS 10000
#ifdef INSULA_SANITIZE
#define DATA_LIMIT RLIM_INFINITY /* it maps terabytes and uses few of them */
#else
#define DATA_LIMIT (1ull << 30)
#endif
#define NOFILE_LIMIT 4096
#define LOG_KEEP (1u << 20) /* of the log, from one start to the next */
#define PIDS_SPARE 64
#define ENV_MAX 8

enum {
	FD_NULL,
	FD_LOG,
	FD_LISTEN,
	FD_SETUP,
	FD_RESULT,
	FD_LOG2,
	FD_CONSOLE,
	FD_ERRORS,
	FD_EXEC,
	FD_GO,
	FD_PROCS,
	FD_LEFT, /* a pipe: it has a table of its own */
	NFDS
};

struct plan {
	uint64_t log_max;
	int fd[NFDS]; /* owned but is_borrowed(); -1: none */
	const struct record *r;
	bool change_user;
	bool limit_data; /* no control group */
	struct rlimit nofile;
	char *env[ENV_MAX];
	unsigned nenv;
};

/* ---- in the child ---- */

static void give_up(const char *what)
{
	char text[128];

	snprintf(text, sizeof(text), "insulad: %s: %s\n", what, strerrordesc_np(errno));
	(void)!write(STDERR_FILENO, text, strlen(text));
	_exit(127);
}

/* First of all: while the table is shared, nothing may be changed in it. */
static void leave(struct plan *p)
{
	if (syscall(SYS_close_range, LOW, ~0u, CLOSE_RANGE_UNSHARE))
		_exit(127);
	for (int i = 0; i < NFDS; i++)
		p->fd[i] = p->fd[i] < 0 ? -1 : SLOT + i;
	if (write(p->fd[FD_LEFT], "", 1) != 1)
		_exit(127);
}

static void become_user(const struct plan *p)
{
	const struct record *r = p->r;

	if (!p->change_user)
		return;
	if (setgroups(r->owner.ngroups, r->owner.groups) ||
	    setresgid(r->owner.gid, r->owner.gid, r->owner.gid) ||
	    setresuid(r->owner.uid, r->owner.uid, r->owner.uid))
		give_up("ids");
}

static void limit(const struct plan *p)
{
	struct rlimit core = {0, 0}, data = {DATA_LIMIT, DATA_LIMIT};

	if (setrlimit(RLIMIT_CORE, &core) || setrlimit(RLIMIT_NOFILE, &p->nofile) ||
	    (p->limit_data && setrlimit(RLIMIT_DATA, &data)))
		give_up("limits");
}

static void wait_for_byte(const struct plan *p)
{
	const size_t len = strlen(CONTROL_BEGUN);
	char byte;

	if (read(p->fd[FD_GO], &byte, 1) != 1)
		_exit(126);
	/* In place: there is room on the disk, and the supervisor's line will begin there. */
	if (pwrite(p->fd[FD_RESULT], CONTROL_BEGUN, len, 0) != (ssize_t)len)
		give_up("result");
}

static _Noreturn void child(struct plan *p)
{
	char arg[8], *argv[] = {(char *)(uintptr_t) "insula-run", (char *)(uintptr_t) "--control",
				arg, NULL};
	int last;

	leave(p);
	if (dup2(p->fd[FD_NULL], 0) < 0 || dup2(p->fd[FD_LOG], 1) < 0 || dup2(p->fd[FD_LOG], 2) < 0)
		_exit(127);
	if (setsid() < 0)
		give_up("session");
	if (p->fd[FD_PROCS] >= 0 && write(p->fd[FD_PROCS], "0", 1) != 1)
		give_up("control group");
	wait_for_byte(p);
	limit(p);
	become_user(p);
	for (int i = 0; i < CONTROL_FDS; i++) {
		if (p->fd[FD_LISTEN + i] >= 0 && dup2(p->fd[FD_LISTEN + i], CONTROL_FD + i) < 0)
			give_up("descriptors");
	}
	last = p->fd[FD_EXEC];
	syscall(SYS_close_range,
		CONTROL_FD + CONTROL_FDS - (p->fd[FD_CONSOLE] < 0) - (p->fd[FD_ERRORS] < 0),
		last - 1, 0);
	syscall(SYS_close_range, last + 1, ~0u, 0);
	umask(077);
	if (chdir("/"))
		give_up("/");
	snprintf(arg, sizeof(arg), "%d", CONTROL_FD);
	syscall(SYS_execveat, last, "", argv, p->env, 0x1000 /* AT_EMPTY_PATH */);
	give_up("exec");
	_exit(127);
}

/* ---- in the daemon ---- */

static int bind_control(int at, const struct record *r, struct err *e)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0), rc = 0;

	if (fd < 0)
		return err_sys(e, -errno, "socket");
	/* Through the directory's descriptor: no limit on the length of its path. */
	snprintf(a.sun_path, sizeof(a.sun_path), "/proc/self/fd/%d/control", at);
	unlinkat(at, "control", 0);
	if (bind(fd, (struct sockaddr *)&a, sizeof(a)) || listen(fd, 8) ||
	    fchmodat(at, "control", 0600, 0) ||
	    (geteuid() == 0 &&
	     fchownat(at, "control", r->owner.uid, r->owner.gid, AT_SYMLINK_NOFOLLOW)))
		rc = err_sys(e, -errno, "control socket of %s", r->id);
	if (rc)
		close(fd);
	return rc ? rc : fd;
}

static int make_setup(const struct record *r, const struct plan *p, struct err *e)
{
	json_object *o = json_object_new_object();
	int fd = memfd_create("insula-setup", MFD_CLOEXEC | MFD_ALLOW_SEALING), rc;

	j_str(o, "id", r->id);
	j_str(o, "name", r->name);
	j_str(o, "token", r->token);
	j_obj(o, "config", json_tokener_parse(r->config));
	j_int(o, "log_max", (int64_t)p->log_max);
	if (p->fd[FD_CONSOLE] >= 0)
		j_bool(o, "console", true);
	if (p->fd[FD_ERRORS] >= 0)
		j_bool(o, "errors", true);
	rc = fd < 0 ? -errno : write_full(fd, j_text(o), strlen(j_text(o)));
	json_object_put(o);
	if (!rc && fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL))
		rc = -errno;
	if (rc) {
		fd_close(&fd);
		return err_sys(e, rc, "set-up of %s", r->id);
	}
	return fd;
}

/* A file that no earlier supervisor has open. Its user may have taken that over, and hold a lease:
 * whoever opens it then waits for 45 s. */
static int fresh_file(int at, const char *name, int flags)
{
	if (unlinkat(at, name, 0) && errno != ENOENT)
		return -1;
	return openat(at, name, flags | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK,
		      0600);
}

/* The number of a log, and where its records begin; 0: it has none, or is none. */
static uint64_t look_at_log(int fd, off_t *begin, off_t *size)
{
	char head[64];
	uint64_t number;
	struct stat st;
	size_t len = 0;
	ssize_t n;

	*begin = *size = 0;
	if (fd < 0 || fstat(fd, &st) || !S_ISREG(st.st_mode))
		return 0;
	n = pread(fd, head, sizeof(head), 0);
	number = n > 0 ? vmlog_number(head, (size_t)n, &len) : 0;
	*begin = (off_t)len;
	*size = st.st_size;
	return number;
}

/* The end of an old log, from a whole line on: a piece of one might look like a record. Unless
 * somebody prevents it. It has a number of its own: places in the old one are not places in it. */
static void keep_log(int from, int to, off_t keep)
{
	char buf[16384];
	off_t at, size;
	uint64_t number = look_at_log(from, &at, &size);
	bool cut = size - at > keep;
	ssize_t n;

	if (!size || (number && dprintf(to, VMLOG_MAGIC "%" PRIu64 "\n", number + 1) < 0))
		return;
	at = cut ? size - keep : at;
	while (at < size && (n = pread(from, buf, sizeof(buf), at)) > 0) {
		const char *eol = cut ? memchr(buf, '\n', (size_t)n) : NULL;
		size_t skip = eol ? (size_t)(eol - buf) + 1 : 0;

		at += n;
		if (cut && !eol)
			continue;
		cut = false;
		if (write_full(to, buf + skip, (size_t)n - skip))
			return;
	}
}

/* The supervisor begins with the older one, which is the first. */
static void fresh_logs(struct plan *p, int at)
{
	static const char *const names[] = {"log", "log2"};
	off_t begin, size, keep = p->log_max < LOG_KEEP ? (off_t)p->log_max : (off_t)LOG_KEEP;
	int old[2];

	for (int i = 0; i < 2; i++)
		old[i] = openat(at, names[i], O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	p->fd[FD_LOG] = fresh_file(at, names[0], O_RDWR | O_APPEND);
	p->fd[FD_LOG2] = fresh_file(at, names[1], O_RDWR | O_APPEND);
	if (p->fd[FD_LOG2] >= 0)
		keep_log(look_at_log(old[0], &begin, &size) < look_at_log(old[1], &begin, &size)
				 ? old[1]
				 : old[0],
			 p->fd[FD_LOG2], keep);
	fd_close(&old[0]);
	fd_close(&old[1]);
}

/* With room for a result, however full the disk gets. */
static int fresh_result(int at)
{
	const size_t len = strlen(CONTROL_NOT_BEGUN);
	int fd = fresh_file(at, "result", O_WRONLY), rc = 0;

	if (fd < 0)
		return -1;
	if (pwrite(fd, CONTROL_NOT_BEGUN, len, 0) != (ssize_t)len ||
	    fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, RESULT_MAX))
		rc = errno;
	if (!rc || rc == EOPNOTSUPP || rc == ENOSYS)
		return fd;
	fd_close(&fd);
	errno = rc;
	return -1;
}

static int open_files(struct plan *p, int at, struct err *e)
{
	p->fd[FD_NULL] = open("/dev/null", O_RDWR | O_CLOEXEC);
	fresh_logs(p, at);
	p->fd[FD_RESULT] = fresh_result(at);
	if (p->fd[FD_NULL] < 0 || p->fd[FD_LOG] < 0 || p->fd[FD_LOG2] < 0 || p->fd[FD_RESULT] < 0)
		return err_sys(e, -errno, "files of %s", p->r->id);
	/* What the VM's user writes there counts as the user's. */
	if (p->change_user && (fchown(p->fd[FD_LOG], p->r->owner.uid, p->r->owner.gid) ||
			       fchown(p->fd[FD_LOG2], p->r->owner.uid, p->r->owner.gid) ||
			       fchown(p->fd[FD_RESULT], p->r->owner.uid, p->r->owner.gid)))
		return err_sys(e, -errno, "files of %s", p->r->id);
	p->fd[FD_LISTEN] = bind_control(at, p->r, e);
	if (p->fd[FD_LISTEN] < 0)
		return p->fd[FD_LISTEN];
	p->fd[FD_SETUP] = make_setup(p->r, p, e);
	return p->fd[FD_SETUP] < 0 ? p->fd[FD_SETUP] : 0;
}

static int join_group(struct machine *m, struct plan *p, struct err *e)
{
	struct daemon *d = m->d;
	const struct cgroup_limits l = {.memory = conf_group_memory(&d->conf, m->r.mem),
					.cpu_percent = m->r.cpus * d->conf.cpu_percent,
					.pids = (m->r.cpus_max ? m->r.cpus_max : m->r.cpus) +
						32 * 34 +
						PIDS_SPARE, /* devices have up to 24 threads */
					.io_max = d->conf.io_max};

	p->limit_data = !d->cgroups.on;
	if (!d->cgroups.on)
		return 0;
	snprintf(m->r.group, sizeof(m->r.group), "vm-%s-", m->r.id);
	random_hex(m->r.group + strlen(m->r.group), 8);
	p->fd[FD_PROCS] = cgroup_make(&d->cgroups, m->r.group, &l, e);
	if (p->fd[FD_PROCS] >= 0)
		return 0;
	m->r.group[0] = 0;
	return p->fd[FD_PROCS];
}

static void add_env(struct plan *p, const char *name, const char *value)
{
	if (value && p->nenv < ENV_MAX - 1 && asprintf(&p->env[p->nenv], "%s=%s", name, value) > 0)
		p->nenv++;
}

/* Root's cache is /var/cache/insula. Another user's would be in the home directory, which a daemon
 * does not look up. So each user has a directory beside the state. */
static void make_env(struct machine *m, struct plan *p)
{
	char path[CONF_PATH_MAX + 40];

	add_env(p, "PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
	if (!p->change_user && geteuid() != 0) {
		add_env(p, "HOME", getenv("HOME"));
		add_env(p, "XDG_CACHE_HOME", getenv("XDG_CACHE_HOME"));
		add_env(p, "XDG_DATA_HOME", getenv("XDG_DATA_HOME"));
	} else if (p->change_user) {
		snprintf(path, sizeof(path), "%s/cache-%u", m->d->conf.state_dir, m->r.owner.uid);
		if (!mkdir(path, 0700) && chown(path, m->r.owner.uid, m->r.owner.gid))
			rmdir(path);
		add_env(p, "XDG_CACHE_HOME", path);
	}
}

/* All numbers up to the slots and in them are in use from now on: nothing of a client's is ever
 * there. */
int spawn_prepare(struct err *e)
{
	int fd;

	do
		fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	while (fd >= 0 && fd < LOW);
	if (fd < 0)
		return err_sys(e, -errno, "/dev/null");
	close(fd);
	/* What we were started with is in some of them. */
	for (int i = SLOT; i < LOW; i++) {
		if (dup3(STDIN_FILENO, i, O_CLOEXEC) < 0)
			return err_sys(e, -errno, "descriptor %d", i);
	}
	return 0;
}

static int fill_slots(const struct plan *p)
{
	for (int i = 0; i < NFDS; i++) {
		if (p->fd[i] >= 0 && dup3(p->fd[i], SLOT + i, O_CLOEXEC) < 0)
			return -errno;
	}
	return 0;
}

static void clear_slots(const struct plan *p)
{
	for (int i = 0; i < NFDS; i++)
		(void)dup3(p->fd[FD_NULL], SLOT + i, O_CLOEXEC);
}

/* Our own child, and its first few system calls. */
static int wait_for_leave(int left, int process)
{
	struct pollfd p[] = {{left, POLLIN, 0}, {process, POLLIN, 0}};
	int n;

	do
		n = poll(p, 2, LEAVE_MS);
	while (n < 0 && errno == EINTR);
	return p[0].revents & POLLIN ? 0 : n ? -ECHILD : -ETIMEDOUT;
}

static int make_child(struct machine *m, struct plan *p, int left)
{
	struct clone_args a = {.flags = CLONE_FILES | CLONE_PIDFD,
			       .pidfd = (uint64_t)(uintptr_t)&m->process,
			       .exit_signal = SIGCHLD};
	int rc = fill_slots(p);
	long pid = rc ? rc : syscall(SYS_clone3, &a, sizeof(a));

	if (pid == 0)
		child(p);
	if (pid < 0)
		rc = rc ? rc : -errno;
	m->r.pid = pid < 0 ? 0 : (int)pid;
	if (!rc)
		rc = wait_for_leave(left, m->process);
	clear_slots(p);
	return rc;
}

static int spawn_start(struct machine *m, struct plan *p, int *go, struct err *e)
{
	int go_fd[2] = {-1, -1}, left[2] = {-1, -1}, rc = 0;

	if (pipe2(go_fd, O_CLOEXEC) || pipe2(left, O_CLOEXEC))
		rc = -errno;
	p->fd[FD_GO] = go_fd[0];
	p->fd[FD_LEFT] = left[1];
	*go = go_fd[1];
	if (!rc)
		rc = make_child(m, p, left[0]);
	fd_close(&left[0]);
	if (rc)
		return err_sys(e, rc, "the process of a supervisor");
	m->r.start_time = process_start_time(m->r.pid);
	return 0;
}

static bool is_borrowed(int i)
{
	return i == FD_EXEC || i == FD_CONSOLE || i == FD_ERRORS;
}

static void free_plan(struct plan *p)
{
	for (int i = 0; i < NFDS; i++) {
		if (!is_borrowed(i))
			fd_close(&p->fd[i]);
	}
	for (unsigned i = 0; i < p->nenv; i++)
		free(p->env[i]);
}

int spawn_supervisor(struct machine *m, int *go, struct err *e)
{
	struct daemon *d = m->d;
	uint64_t files = d->nofile.hard < NOFILE_LIMIT ? d->nofile.hard : NOFILE_LIMIT;
	struct plan p = {.r = &m->r,
			 .log_max = d->conf.log_max,
			 .change_user = geteuid() == 0 && m->r.owner.uid != 0,
			 .nofile = {files, files}};
	int at = state_enter(d->state, m->r.id), rc;

	*go = -1;
	for (int i = 0; i < NFDS; i++)
		p.fd[i] = -1;
	if (at < 0)
		return err_sys(e, at, "state directory of %s", m->r.id);
	/* The one that is installed now: after an upgrade the programs that it starts are, too. */
	rc = host_supervisor(d, e);
	if (rc) {
		close(at);
		return rc;
	}
	p.fd[FD_EXEC] = d->supervisor;
	p.fd[FD_CONSOLE] = m->console.fd;
	p.fd[FD_ERRORS] = m->console.errors;
	rc = open_files(&p, at, e);
	if (!rc)
		rc = join_group(m, &p, e);
	if (!rc) {
		make_env(m, &p);
		rc = spawn_start(m, &p, go, e);
	}
	close(at);
	free_plan(&p);
	return rc;
}

int supervisor_connect(struct machine *m, struct err *e)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int at = state_enter(m->d->state, m->r.id), fd, rc = 0;

	if (at < 0)
		return err_sys(e, at, "state directory of %s", m->r.id);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	snprintf(a.sun_path, sizeof(a.sun_path), "/proc/self/fd/%d/control", at);
	/* Its name stays when nobody listens any more. */
	if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a)))
		rc = err_sys(e, errno == ECONNREFUSED ? -ENOENT : -errno, "control socket of %s",
			     m->r.id);
	close(at);
	if (rc)
		fd_close(&fd);
	return rc ? rc : fd;
}
