/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * insula-container: what a process becomes before exec, in the container.
 *
 * The order is that of rights: limits and owners while it is still root of its namespace, then the
 * bounding set, groups and user, then its capabilities. With no_new_privs the seccomp filter comes
 * last of all. Without, loading one takes CAP_SYS_ADMIN, which is kept for that and dropped by one
 * capset(2) behind the filter; the ambient set is raised there, too.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "container.h"
#include "kernel.h"

#define UMASK_DEFAULT 022u
#define PASSWD_MAX (1u << 20)
#define PATH_DEFAULT "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

int sysctl_write(const char *record, struct err *e)
{
	char path[CT_PATH_MAX + 16];
	const char *value = strchr(record, '=') + 1;
	size_t n = (size_t)(value - 1 - record), len = strlen(value);
	int fd, r = 0;

	snprintf(path, sizeof path, "/proc/sys/%.*s", (int)n, record);
	/* "net/ipv4/conf/eth0.1/..." has its own dots: with a slash, they are letters. */
	if (!memchr(record, '/', n))
		for (char *p = path; *p; p++)
			*p = *p == '.' ? '/' : *p;
	fd = open(path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0 || write(fd, value, len) != (ssize_t)len)
		r = err_sys(e, -errno, "sysctl %.100s", record);
	if (fd >= 0)
		close(fd);
	return r;
}

/* ---- streams ---- */

int process_session(const struct process *p, struct err *e)
{
	if (setsid() < 0)
		return err_sys(e, -errno, "new session");
	if (p->terminal && ioctl(STDIN_FILENO, TIOCSCTTY, 0) < 0)
		return err_sys(e, -errno, "the terminal");
	return 0;
}

/* /dev/stdout is opened by the program's user, for whom a pipe of root's is closed. The null device
 * is everybody's already. */
static int own_streams(const struct process *p, struct err *e)
{
	for (int i = 0; i < 3; i++) {
		struct stat st;

		if (fstat(i, &st) < 0)
			return err_sys(e, -errno, "descriptor %d", i);
		if (st.st_uid == p->uid || (S_ISCHR(st.st_mode) && st.st_rdev == makedev(1, 3)))
			continue;
		/* A socket, or what the file system of the share gives to nobody: no matter. */
		if (fchown(i, p->uid, (gid_t)-1) < 0 && errno != EPERM && errno != EROFS &&
		    errno != EINVAL)
			return err_sys(e, -errno, "owner of descriptor %d", i);
	}
	return 0;
}

/* ---- limits and identity ---- */

/* Of process `pid`, 0: of this one. `old`, which may be NULL, gets what was there. */
static int limit(pid_t pid, const struct rlimit_record *l, const struct rlimit *set,
		 struct rlimit *old, struct err *e)
{
	if (syscall(SYS_prlimit64, pid, l->number, set, old) < 0)
		return err_sys(e, -errno, "limit %d: %llu %llu", l->number,
			       (unsigned long long)l->soft, (unsigned long long)l->hard);
	return 0;
}

/* Only the machine's root may raise a hard limit. Lower ones would be in the way of what comes
 * first. */
int process_raise_limits(pid_t pid, const struct process *p, struct err *e)
{
	for (size_t i = 0; i < p->rlimits; i++) {
		const struct rlimit_record *l = &p->rlimit[i];
		struct rlimit now;
		int r = limit(pid, l, NULL, &now, e);

		if (!r && now.rlim_max < l->hard) {
			now.rlim_max = l->hard;
			r = limit(pid, l, &now, NULL, e);
		}
		if (r)
			return r;
	}
	return 0;
}

static int set_limits(const struct process *p, struct err *e)
{
	int r = 0;

	for (size_t i = 0; i < p->rlimits && !r; i++) {
		const struct rlimit_record *l = &p->rlimit[i];
		const struct rlimit set = {.rlim_cur = l->soft, .rlim_max = l->hard};

		r = limit(0, l, &set, NULL, e);
	}
	return r;
}

int process_ns_root(struct err *e)
{
	if (setresgid(0, 0, 0) < 0 || setresuid(0, 0, 0) < 0)
		return err_sys(e, -errno, "become root of the user namespace");
	return 0;
}

static int become_user(const struct process *p, struct err *e)
{
	if (prctl(PR_SET_KEEPCAPS, 1ul, 0ul, 0ul, 0ul) < 0)
		return err_sys(e, -errno, "keep capabilities");
	if (setgroups(p->addgids, p->addgid) < 0)
		return err_sys(e, -errno, "additional groups");
	if (setresgid(p->gid, p->gid, p->gid) < 0)
		return err_sys(e, -errno, "gid %u", p->gid);
	if (setresuid(p->uid, p->uid, p->uid) < 0)
		return err_sys(e, -errno, "uid %u", p->uid);
	/* The change of the user took it away. */
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
		return err_sys(e, -errno, "signal of the parent's death");
	return 0;
}

/* A directory that can be entered, and that has a name here: a descriptor of the machine's that has
 * come in by mistake would have none. */
static int enter_cwd(const char *cwd, struct err *e)
{
	char now[CT_PATH_MAX];

	if (chdir(cwd) < 0)
		return err_sys(e, -errno, "directory %s", cwd);
	if (syscall(SYS_getcwd, now, sizeof now) < 0 || now[0] != '/')
		return err_set(e, -ENOENT, "directory %s: not inside the root", cwd);
	return 0;
}

/* ---- environment ---- */

static const char *env_get(const struct list *env, const char *name)
{
	size_t n = strlen(name);
	const char *found = NULL;

	for (size_t i = 0; i < env->n; i++)
		if (strncmp(env->v[i], name, n) == 0 && env->v[i][n] == '=')
			found = env->v[i] + n + 1;
	return found;
}

/* The home of `uid` in a line of passwd(5), which is written to; NULL: it is another user's. */
static const char *home_of(char *line, uint32_t uid)
{
	char *field[6];
	uint64_t id;
	size_t n = 0;

	for (char *f; n < COUNT(field) && (f = strsep(&line, ":"));)
		field[n++] = f;
	return n == COUNT(field) && !num_u64(field[2], 10, UINT32_MAX, &id) && id == uid &&
			       field[5][0] == '/'
		       ? field[5]
		       : NULL;
}

/* Of the container's own list of users, which may be anything. */
static void find_home(uint32_t uid, char *out, size_t size)
{
	struct buffer b;
	char *rest;

	snprintf(out, size, "HOME=/");
	if (file_read("/etc/passwd", PASSWD_MAX, &b, NULL))
		return;
	rest = b.data;
	for (char *line; (line = strsep(&rest, "\n"));) {
		const char *home = home_of(line, uid);

		if (!home)
			continue;
		snprintf(out, size, "HOME=%s", home);
		break;
	}
	free(b.data);
}

static char **make_env(const struct process *p)
{
	static char home[CT_PATH_MAX];
	char **env = calloc(p->env.n + 2, sizeof *env);
	size_t n = p->env.n;

	if (!env)
		return NULL;
	if (n)
		memcpy(env, p->env.v, n * sizeof *env);
	if (!env_get(&p->env, "HOME")) {
		find_home(p->uid, home, sizeof home);
		env[n] = home;
	}
	return env;
}

/* ---- the program ---- */

static int can_exec(const char *path)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return -errno;
	if (S_ISDIR(st.st_mode))
		return -EISDIR;
	return faccessat(AT_FDCWD, path, X_OK, AT_EACCESS) < 0 ? -errno : 0;
}

static int refuse_program(const char *name, int why, int *status, struct err *e)
{
	*status = why == -ENOENT || why == -ENOTDIR ? EXIT_NOT_FOUND : EXIT_NOT_EXECUTABLE;
	if (why == -ENOENT && !strchr(name, '/'))
		return err_set(e, why, "exec: \"%s\": executable file not found in $PATH", name);
	if (why == -EACCES)
		return err_set(e, why, "exec: \"%s\": permission denied", name);
	/* podman and docker know "permission denied": status 126. */
	if (why == -EISDIR)
		return err_set(e, why, "exec: \"%s\": is a directory: permission denied", name);
	if (why == -ENOENT)
		return err_set(e, why, "exec: \"%s\": stat %s: no such file or directory", name,
			       name);
	return err_sys(e, why, "exec: \"%s\"", name);
}

/* As execvp(3) looks: what cannot be executed is passed over, but for its error in the end. */
static int find_program(const struct process *p, char out[CT_PATH_MAX], int *status, struct err *e)
{
	const char *name = p->arg.v[0], *path = env_get(&p->env, "PATH");
	int why = -ENOENT;

	if (strchr(name, '/')) {
		snprintf(out, CT_PATH_MAX, "%s", name);
		why = can_exec(out);
		return why ? refuse_program(name, why, status, e) : 0;
	}
	for (const char *d = path ? path : PATH_DEFAULT; *name && d;) {
		size_t n = strcspn(d, ":");
		int r;

		if (snprintf(out, CT_PATH_MAX, "%.*s/%s", n ? (int)n : 1, n ? d : ".", name) <
		    (int)CT_PATH_MAX) {
			r = can_exec(out);
			if (!r)
				return 0;
			if (r == -EACCES)
				why = r;
		}
		d = d[n] ? d + n + 1 : NULL;
	}
	return refuse_program(name, why, status, e);
}

/* ---- the filter ---- */

int seccomp_read(const char *id, const struct process *p, struct buffer *out, struct err *e)
{
	char path[CT_PATH_MAX];
	int r;

	*out = (struct buffer){0};
	if (!p->seccomp)
		return 0;
	r = share_path(path, id, p->seccomp, e);
	if (!r)
		r = file_read(path, CT_FILTER_MAX * sizeof(struct k_sock_filter), out, e);
	if (!r && (!out->len || out->len % sizeof(struct k_sock_filter))) {
		r = err_set(e, -EINVAL, "%s: %zu bytes are no filter", path, out->len);
		free(out->data);
		*out = (struct buffer){0};
	}
	return r;
}

static int seccomp_load(const struct process *p, const struct buffer *filter, struct err *e)
{
	struct k_sock_fprog prog = {.len = (uint16_t)(filter->len / sizeof(struct k_sock_filter)),
				    .filter = (const struct k_sock_filter *)(void *)filter->data};

	if (!p->seccomp)
		return 0;
	if (syscall(SYS_seccomp, K_SECCOMP_SET_MODE_FILTER, p->seccomp_flags, &prog) != 0)
		return err_sys(e, -errno, "seccomp filter %s (flags 0x%x)", p->seccomp,
			       p->seccomp_flags);
	return 0;
}

/* ---- all of it ---- */

static int change_identity(const struct process *p, struct err *e)
{
	/* Without no_new_privs the kernel wants it for the filter. */
	uint64_t more = p->seccomp && !p->nnp ? UINT64_C(1) << K_CAP_SYS_ADMIN : 0;
	int r = caps_bound(p->cap[CAP_BOUNDING], e);

	if (!r)
		r = become_user(p, e);
	if (!r)
		r = caps_set(p->cap, more, e);
	if (!r && p->nnp && prctl(PR_SET_NO_NEW_PRIVS, 1ul, 0ul, 0ul, 0ul) < 0)
		r = err_sys(e, -errno, "no_new_privs");
	return r;
}

static int prepare_process(const struct process *p, struct err *e)
{
	const char *cwd = p->cwd ? p->cwd : "/";
	int r = set_limits(p, e), early;

	if (!r)
		r = own_streams(p, e);
	if (r)
		return r;
	umask(p->has_umask ? p->umask : UMASK_DEFAULT);
	/* It may be one that only root may enter, or (on NFS) one that root may not. */
	early = enter_cwd(cwd, e);
	if (early && early != -EACCES)
		return early;
	r = change_identity(p, e);
	if (!r && early)
		r = enter_cwd(cwd, e);
	return r;
}

static int filter_and_exec(const struct process *p, const struct buffer *filter, const char *path,
			   char **env, int *status, struct err *e)
{
	sigset_t none;
	int r = seccomp_load(p, filter, e);

	if (!r && p->seccomp && !p->nnp)
		r = caps_set(p->cap, 0, e);
	if (r)
		return r;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	execve(path, p->arg.v, env);
	r = -errno;
	*status = r == -ENOENT ? EXIT_NOT_FOUND : EXIT_NOT_EXECUTABLE;
	return err_sys(e, r, "exec: \"%s\"%s", p->arg.v[0],
		       r == -ENOENT ? ": its interpreter or loader" : "");
}

int process_exec(const struct process *p, const struct buffer *filter, void (*ready)(void *ctx),
		 void *ctx, int *status, struct err *e)
{
	static char path[CT_PATH_MAX];
	char **env;
	int r;

	*status = EXIT_FAILED;
	r = prepare_process(p, e);
	if (!r)
		r = find_program(p, path, status, e);
	if (r)
		return r;
	env = make_env(p);
	if (!env)
		return err_set(e, -ENOMEM, "out of memory");
	ready(ctx);
	r = filter_and_exec(p, filter, path, env, status, e);
	free(env);
	return r;
}
