/* SPDX-License-Identifier: BSD-2-Clause */
/* The VM. See vm.h. */
#include <errno.h>
#include <fcntl.h>
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
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/container.h>

#include "assign.h"
#include "proc.h"
#include "share.h"
#include "spec/handover.h"
#include "spec/json.h"
#include "vm.h"

#define LOG_MAX (1u << 20)
#define NOFILE 4096
#define KILL_MS 5000
#define RESULT_READ 8192
#define PROGRAM "insula-run"

enum { FD_LISTEN, FD_SETUP, FD_RESULT, FD_LOG2, FD_LOG, FD_NULL, NFDS };
#define INHERITED (FD_LOG2 + 1) /* from CONTROL_FD on, in this order */

/* ---- configuration ---- */

/* What the administrator gives goes last: it may replace what is ours. */
static void add_members(json_object *o, json_object *more)
{
	if (!more)
		return;
	json_object_object_foreach(more, key, v)
	{
		j_obj(o, key, json_object_get(v));
	}
}

/* What the guest has seen when it goes on from a template. */
static void add_machine(json_object *o, const struct oci_conf *conf, const struct vm_size *size)
{
	if (size->kernel[0])
		j_str(o, "kernel", size->kernel);
	if (conf->initrd[0])
		j_str(o, "initrd", conf->initrd);
	add_members(o, conf->vm);
}

/* A machine of its own; its host name is that of each boot. */
static void add_template(json_object *o, const char *snapshot)
{
	j_str(o, "restore", snapshot);
	j_str(o, "identity", "new");
	j_str(o, "hostname", "insula");
}

json_object *vm_config(const struct container *c, const struct oci_conf *conf,
		       const struct vm_size *size, json_object *nets, const char *snapshot)
{
	json_object *o = json_object_new_object(), *shares = json_object_new_array();
	char text[PATH_MAX + 64];

	snprintf(text, sizeof(text), "%s/share:%s,cache=%s", c->dir, CT_SHARE, conf->share_cache);
	json_object_array_add(shares, json_object_new_string(text));
	j_obj(o, "shares", shares);
	snprintf(text, sizeof(text), "%lluK", (unsigned long long)(size->mem >> 10));
	j_str(o, "mem", text);
	j_int(o, "cpus", size->cpus);
	if (nets)
		j_obj(o, "nets", nets);
	if (c->vfio)
		j_obj(o, "vfios", assign_config(c->vfio));
	snprintf(text, sizeof(text), "file=%s/vm/console,limit=1M", c->dir);
	j_str(o, "console", conf->log_guest ? text : "none");
	if (snapshot)
		add_template(o, snapshot);
	else
		add_machine(o, conf, size);
	return o;
}

/* ---- devices ---- */

/* The kernel says EPERM where a control group denies a device, which nobody looks for: podman 4.3
 * with cgroupfs denies all devices to a pod's group, for whatever runtime. */
int vm_check_devices(const struct container *c, struct err *e)
{
	static const char *const need[] = {"/dev/null", "/dev/kvm"};

	for (size_t i = 0; i < ARRAY_LEN(need); i++) {
		int fd = open(need[i], O_RDWR | O_CLOEXEC), rc = -errno;

		if (fd < 0 && rc == -EPERM)
			return err_set(e, rc,
				       "linux.cgroupsPath: %.120s: %s: Operation not permitted; "
				       "expected no group above it that denies this device to the "
				       "VM's processes",
				       c->group.path, need[i]);
		if (fd < 0)
			return err_sys(e, rc, "%s", need[i]);
		close(fd);
	}
	return 0;
}

/* ---- files ---- */

int vm_directory(const struct container *c, struct err *e)
{
	int fd;

	if (mkdirat(c->at, "vm", 0700) && errno != EEXIST)
		return err_sys(e, -errno, "%s/vm", c->dir);
	fd = openat(c->at, "vm", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return fd < 0 ? err_sys(e, -errno, "%s/vm", c->dir) : fd;
}

int vm_open_dir(const char *root, const char *sandbox, struct err *e)
{
	char path[PATH_MAX];
	int fd;

	snprintf(path, sizeof(path), "%s/%s/vm", root, sandbox);
	fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return fd < 0 ? err_set(e, -ENOENT, "sandbox \"%s\": its VM does not run", sandbox) : fd;
}

/* A directory of the mount namespace that a process is in. */
static int open_beyond(const struct proc *in, const char *path)
{
	char dir[32], inside[PATH_MAX + 8];
	int at, fd = -ESRCH;

	snprintf(dir, sizeof(dir), "/proc/%d", in->pid);
	at = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	/* By now the number may be another's, of whom nothing may be opened. */
	if (at >= 0 && proc_alive(in)) {
		snprintf(inside, sizeof(inside), "root%s", path);
		fd = openat(at, inside, O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		fd = fd < 0 ? -errno : fd;
	}
	fd_close(&at);
	return fd;
}

static int vm_process(const struct container *c, const char *root, struct proc *vm, struct err *e)
{
	struct container owner;
	int rc = 0;

	*vm = c->vm;
	if (!state_owns_vm(c)) {
		rc = container_state_open(&owner, root, c->sandbox, false, e);
		if (rc)
			return rc;
		*vm = owner.vm;
		state_close(&owner);
	}
	return rc;
}

int vm_share(const struct container *c, const char *root, struct err *e)
{
	char dir[PATH_MAX];
	struct proc vm;
	int top, fd;

	snprintf(dir, sizeof(dir), "%s/%s/share", root, c->sandbox);
	top = open(dir, O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (top >= 0 && !share_is_mount(top)) {
		fd_close(&top);
		fd = vm_process(c, root, &vm, e);
		if (fd)
			return fd;
		top = open_beyond(&vm, dir);
		if (top >= 0 && !share_is_mount(top)) {
			close(top);
			top = -ENOENT;
		}
	} else if (top < 0) {
		top = -errno;
	}
	if (top < 0)
		return err_sys(e, top, "%.160s", dir);
	fd = share_enter(top, c->id, e);
	close(top);
	return fd;
}

static int listen_at(int dir)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	snprintf(a.sun_path, sizeof(a.sun_path), "/proc/self/fd/%d/control", dir);
	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) || listen(fd, 64) ||
	    fchmodat(dir, "control", 0600, 0)) {
		fd_close(&fd);
		return -errno;
	}
	return fd;
}

/* What the supervisor checks a client by is the socket's owner; the token is insulad's. */
static int setup_file(json_object *config)
{
	json_object *o = json_object_new_object();
	char token[CONTROL_TOKEN_LEN + 1];
	int fd = memfile_create("insula-setup"), rc = fd < 0 ? -errno : 0;

	memset(token, '0', CONTROL_TOKEN_LEN);
	token[CONTROL_TOKEN_LEN] = 0;
	j_str(o, "token", token);
	j_obj(o, "config", json_object_get(config));
	j_int(o, "log_max", LOG_MAX);
	j_bool(o, "alone", true);
	if (!rc)
		rc = write_full(fd, j_text(o), strlen(j_text(o)));
	json_object_put(o);
	if (!rc)
		rc = memfile_seal(&fd);
	if (rc)
		fd_close(&fd);
	return rc ? rc : fd;
}

void vm_clear(int dir)
{
	static const char *const files[] = {"log", "log2", "result", "control", "console"};

	for (size_t i = 0; i < ARRAY_LEN(files); i++)
		(void)unlinkat(dir, files[i], 0);
}

static int fresh(int dir, const char *name, int flags)
{
	return openat(dir, name, flags | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
}

static int open_all(int dir, json_object *config, int fd[NFDS], struct err *e)
{
	for (int i = 0; i < NFDS; i++)
		fd[i] = -1;
	fd[FD_NULL] = open("/dev/null", O_RDWR | O_CLOEXEC);
	fd[FD_LOG] = fresh(dir, "log", O_RDWR | O_APPEND);
	fd[FD_LOG2] = fresh(dir, "log2", O_RDWR | O_APPEND);
	fd[FD_RESULT] = fresh(dir, "result", O_WRONLY);
	if (fd[FD_NULL] < 0 || fd[FD_LOG] < 0 || fd[FD_LOG2] < 0 || fd[FD_RESULT] < 0)
		return err_sys(e, -errno, "files of the VM");
	fd[FD_LISTEN] = listen_at(dir);
	if (fd[FD_LISTEN] < 0)
		return err_sys(e, fd[FD_LISTEN], "control socket of the VM");
	fd[FD_SETUP] = setup_file(config);
	return fd[FD_SETUP] < 0 ? err_sys(e, fd[FD_SETUP], "set-up of the VM") : 0;
}

/* ---- the process ---- */

void vm_program(const struct oci_conf *conf, char out[PATH_MAX])
{
	char beside[PATH_MAX];
	struct err e;

	snprintf(out, PATH_MAX, "%s", conf->supervisor);
	if (out[0])
		return;
	if (program_above(1, beside, sizeof(beside), &e) ||
	    snprintf(out, PATH_MAX, "%s/" PROGRAM, beside) >= PATH_MAX || access(out, X_OK))
		snprintf(out, PATH_MAX, "/usr/bin/" PROGRAM);
}

static _Noreturn void vm_child(const char *program, int fd[NFDS])
{
	static char name[] = PROGRAM, flag[] = "--control", number[12];
	static char path[] = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
	static char home[] = "HOME=/root";
	char *argv[] = {name, flag, number, NULL}, *env[] = {path, home, NULL};
	const struct rlimit core = {0, 0}, files = {NOFILE, NOFILE};
	sigset_t none;

	/* Above all that they will become. */
	for (int i = 0; i < NFDS; i++)
		fd[i] = fcntl(fd[i], F_DUPFD_CLOEXEC, 64);
	if (dup2(fd[FD_NULL], 0) < 0 || dup2(fd[FD_LOG], 1) < 0 || dup2(fd[FD_LOG], 2) < 0)
		_exit(127);
	for (int i = 0; i < INHERITED; i++) {
		if (dup2(fd[i], CONTROL_FD + i) < 0)
			_exit(127);
	}
	syscall(SYS_close_range, CONTROL_FD + INHERITED, ~0u, 0);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	setsid();
	umask(077);
	setrlimit(RLIMIT_CORE, &core);
	setrlimit(RLIMIT_NOFILE, &files);
	snprintf(number, sizeof(number), "%d", CONTROL_FD);
	if (chdir("/") == 0)
		execve(program, argv, env);
	dprintf(2, "%s: %s\n", program, strerror(errno));
	_exit(127);
}

int vm_spawn(int dir, const struct oci_conf *conf, json_object *config, struct proc *vm,
	     struct err *e)
{
	char program[PATH_MAX];
	int fd[NFDS], rc = open_all(dir, config, fd, e);
	pid_t pid;

	vm_program(conf, program);
	if (!rc && access(program, X_OK))
		rc = err_sys(e, -errno, "%.150s", program);
	if (!rc) {
		pid = fork();
		if (pid == 0)
			vm_child(program, fd);
		rc = proc_child(pid, "the VM's process", vm, e);
	}
	for (int i = 0; i < NFDS; i++)
		fd_close(&fd[i]);
	return rc;
}

/* ---- until it runs ---- */

struct waiting {
	bool running, ended;
	talk_event *event;
	void *ctx;
};

static void on_start(void *ctx, const char *event, json_object *data)
{
	struct waiting *w = ctx;

	w->running = w->running || !strcmp(event, "running");
	w->ended = w->ended || !strcmp(event, "ended");
	w->event(w->ctx, event, data);
}

static int wait_running(struct talk *t, const struct waiting *w, int dir, int ms, struct err *e)
{
	uint64_t limit = clock_ns() + (uint64_t)ms * 1000000;
	char why[200];
	int rc = 0;

	while (!rc && !w->running && !w->ended && clock_ns() < limit) {
		struct pollfd p = {t->fd, POLLIN, 0};

		(void)poll(&p, 1, ms_until(limit));
		rc = talk_turn(t);
	}
	if (w->running && !w->ended && !rc)
		return 0;
	if (!rc && !w->ended)
		return err_set(e, -ETIMEDOUT, "the VM has not begun within %d s", ms / 1000);
	vm_reason(dir, why, sizeof(why));
	return err_set(e, -EIO, "the VM cannot start: %s", why);
}

unsigned vm_load_seconds(uint64_t mem)
{
	return (unsigned)(mem >> 24); /* 16 MiB a second */
}

int vm_await(int dir, struct talk *t, int ms, talk_event *event, void *ctx, struct err *e)
{
	struct waiting w = {.event = event, .ctx = ctx};
	json_object *hello = NULL;
	char why[200];
	int rc = vm_talk_open(t, dir, ms, on_start, &w, &hello, e);

	if (!rc) {
		w.running = !strcmp(j_get_str(hello, "state", ""), "running");
		rc = talk_call(t, "own", NULL, NULL, 0, ms, NULL, e);
	}
	json_object_put(hello);
	if (rc && rc != -ETIMEDOUT) {
		vm_reason(dir, why, sizeof(why));
		err_set(e, rc, "the VM cannot start: %s", why);
	}
	if (!rc)
		rc = wait_running(t, &w, dir, ms, e);
	t->event = event;
	t->ctx = ctx;
	if (rc)
		vm_talk_close(t);
	return rc;
}

/* ---- the end ---- */

/* The end of it, with a NUL behind. */
static size_t read_some(int dir, const char *name, char *buf, size_t size)
{
	int fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	struct stat st = {.st_size = 0};
	ssize_t n = -1;

	if (fd >= 0 && !fstat(fd, &st))
		n = pread(fd, buf, size - 1,
			  st.st_size >= (off_t)size ? st.st_size - (off_t)size + 1 : 0);
	fd_close(&fd);
	buf[n > 0 ? n : 0] = 0;
	return n > 0 ? (size_t)n : 0;
}

/* What a supervisor says that could not even write its result. */
static void last_line(int dir, char *out, size_t size)
{
	char buf[RESULT_READ], *end, *line;
	size_t n = read_some(dir, "log", buf, sizeof(buf));

	while (n && buf[n - 1] == '\n')
		buf[--n] = 0;
	end = strrchr(buf, '\n');
	line = end ? end + 1 : buf;
	snprintf(out, size, "%s", line[0] ? line : "it ended without a word");
}

/* The file holds one line of JSON, of which the first members are enough: reason, message. */
void vm_reason(int dir, char *out, size_t size)
{
	static char buf[256u << 10]; /* one thread; too large for the stack */
	size_t n = read_some(dir, "result", buf, sizeof(buf));
	const char *why;
	json_object *o = n && buf[0] == '{' ? j_parse(buf, n, 16, &why) : NULL;
	const char *message = j_get_str(o, "message", j_get_str(o, "reason", NULL));

	if (message)
		snprintf(out, size, "%s", message);
	else
		last_line(dir, out, size);
	err_clean(out);
	json_object_put(o);
}

/* It closes its connections when all is written. */
static void await_end(struct talk *t, int ms)
{
	uint64_t limit = clock_ns() + (uint64_t)ms * 1000000;

	while (t->fd >= 0 && clock_ns() < limit) {
		struct pollfd p = {t->fd, POLLIN, 0};

		(void)poll(&p, 1, ms_until(limit));
		talk_turn(t);
	}
}

/* It is our own child. By its number in /proc it cannot be looked at: that is the container's, as
 * the root is, since "leave". */
static void end_child(pid_t pid)
{
	const struct timespec step = {.tv_nsec = 10000000};
	uint64_t limit = clock_ns() + KILL_MS * 1000000ull;
	pid_t got = 0;

	while (!(got = waitpid(pid, NULL, WNOHANG)) && clock_ns() < limit)
		nanosleep(&step, NULL);
	if (got == 0 && !kill(pid, SIGKILL)) {
		while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
			;
	}
}

void vm_end_now(struct talk *t, const struct proc *vm, int ms)
{
	json_object *params = json_object_new_object();

	j_int(params, "deadline_ms", ms);
	if (t->fd >= 0)
		(void)talk_call(t, ms ? "stop" : "kill", params, NULL, 0, KILL_MS, NULL, NULL);
	else
		json_object_put(params);
	await_end(t, ms + KILL_MS);
	if (vm->pid > 0)
		end_child(vm->pid);
}
