/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Starts virtiofsd, the file server of a live share, in a jail that we make. See share.h.
 *
 * It is a program of the host that reads what a guest writes, so it is taken for one that a guest
 * may take over. It is not one of ours and enters no jail by itself that we could plan; so all of
 * it is made before exec:
 *
 *   user namespace   always, root's too. Root maps every id to itself: the guest's owners are the
 *                    host's, but no capability is worth anything outside: no device nodes, no file
 *                    handles (open_by_handle_at), no mounts. A user maps root of it to itself, and
 *                    with newuidmap the user's range of /etc/subuid behind that.
 *   pid, net, ipc, uts, cgroup namespaces   nothing is in them
 *   mount namespace  a root of its own, read-only: /share; of /proc only /proc/self (virtiofsd
 *                    opens files through /proc/self/fd); /usr and the library
 *                    directories, read-only, because it is linked dynamically. A share that is ro
 *                    is so by the flags of its mounts, all of them, and is cut off from mounts that
 *                    come later, which would not be. Others receive them (slave).
 *   capabilities     those of a file server, and two more for its own start (keep[] below)
 *   a filter         that makes no namespaces
 *   no_new_privs, limits, no other descriptors, its own session, dies with the supervisor
 *
 * Then virtiofsd runs with --sandbox chroot: it changes its root to /share, drops the two, and puts
 * its own seccomp filter on, before it reads from its socket. Its sandbox "namespace" would make
 * most of the above once more, but needs CAP_SYS_ADMIN for that: in charge of its mounts it could
 * make a ro share writable.
 *
 * The child between clone and exec makes system calls only; what fails goes to its log, where the
 * last line is what people are shown when it ends.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <linux/filter.h>
#include <linux/mount.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pwd.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/log.h>

#include "share.h"

#define LISTENER_FD 3
#define NOFILE (1u << 20) /* each file that the guest knows is a descriptor of virtiofsd's */
#define THREADS 64        /* one a queue, and what it starts for requests that may wait */
#define STATUS_SETUP 127  /* the child could not get as far as the program */
#define MAP_MAX 2048
#define MAX_ARGS 24

#define STAGE "/proc" /* a directory that certainly exists: the new root is put together on it */

/* ---- the program ---- */

static const struct {
	const char *path;
	enum virtiofsd_kind kind;
} virtiofsd_places[] = {
	{"/usr/libexec/virtiofsd", VIRTIOFSD_RUST},
	{"/usr/lib/virtiofsd", VIRTIOFSD_RUST},
	{"/usr/lib/qemu/virtiofsd", VIRTIOFSD_C},
};

const char *virtiofsd_find(enum virtiofsd_kind *kind)
{
	for (size_t i = 0; i < ARRAY_LEN(virtiofsd_places); i++) {
		*kind = virtiofsd_places[i].kind;
		if (!access(virtiofsd_places[i].path, X_OK))
			return virtiofsd_places[i].path;
	}
	return NULL;
}

/* One thread for requests, which both take by default: so the used ring has them in the order of
 * the available ring, and insula-vhost knows where the next virtiofsd has to go on. */
static void virtiofsd_args(const struct share *s, const char *v[MAX_ARGS])
{
	static const char *const c_cache[] = {[SHARE_CACHE_AUTO] = "cache=auto",
					      [SHARE_CACHE_NONE] = "cache=none",
					      [SHARE_CACHE_ALWAYS] = "cache=always"};
	static const char *const rust_cache[] = {[SHARE_CACHE_AUTO] = "--cache=auto",
						 [SHARE_CACHE_NONE] = "--cache=never",
						 [SHARE_CACHE_ALWAYS] = "--cache=always"};
	const char *const c[] = {"virtiofsd",
				 "-f",
				 "--fd=3",
				 "--rlimit-nofile=0",
				 "--thread-pool-size=0",
				 "-o",
				 "source=/share",
				 "-o",
				 "sandbox=chroot",
				 "-o",
				 "log_level=warn",
				 "-o",
				 "modcaps=-mknod:-setfcap",
				 "-o",
				 c_cache[s->conf->cache],
				 NULL};
	const char *const rust[] = {"virtiofsd",
				    "--fd=3",
				    "--rlimit-nofile=0",
				    "--thread-pool-size=0",
				    "--shared-dir=/share",
				    "--sandbox=chroot",
				    "--log-level=warn",
				    "--modcaps=-mknod:-setfcap",
				    rust_cache[s->conf->cache],
				    NULL};

	if (s->kind == VIRTIOFSD_C)
		memcpy(v, c, sizeof(c));
	else
		memcpy(v, rust, sizeof(rust));
}

/* ---- ids (parent) ---- */

/* How the child's ids are mapped. */
enum virtiofsd_ids {
	IDS_ALL,   /* root: each to itself */
	IDS_RANGE, /* a user with newuidmap and a range: root is the user, 1 ... are the range */
	IDS_ONE    /* a user alone; setgroups() is switched off */
};

static int proc_file(pid_t pid, const char *name, int flags)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
	return open(path, flags | O_CLOEXEC);
}

static int proc_write(pid_t pid, const char *name, const char *text, struct err *e)
{
	int fd = proc_file(pid, name, O_WRONLY), rc = 0;

	/* Since Linux 5.12 it takes that as well to map user 0: user_namespaces(7). */
	if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
		rc = err_sys(e, -errno, "virtiofsd: %s%s", name,
			     geteuid() || errno != EPERM ? "" : " (root needs CAP_SETFCAP)");
	fd_close(&fd);
	return rc;
}

/* Every id that we have, to itself: lines "inside outside count". */
static int identity(const char *file, char out[MAP_MAX])
{
	unsigned long first, count;
	FILE *f = fopen(file, "re");
	size_t n = 0;

	out[0] = 0;
	while (f && n < MAP_MAX && fscanf(f, "%lu %*u %lu", &first, &count) == 2)
		n += (size_t)snprintf(out + n, MAP_MAX - n, "%lu %lu %lu\n", first, first, count);
	if (f)
		fclose(f);
	return n && n < MAP_MAX ? 0 : -EINVAL;
}

static bool has_set_ids(void)
{
	struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct d[_LINUX_CAPABILITY_U32S_3];
	const uint32_t need = 1u << CAP_SETUID | 1u << CAP_SETGID;

	return !geteuid() && !syscall(SYS_capget, &h, d) && (d[0].effective & need) == need;
}

static int map_all(pid_t pid, struct err *e)
{
	char uids[MAP_MAX], gids[MAP_MAX];
	int rc = identity("/proc/self/uid_map", uids);

	if (!rc)
		rc = identity("/proc/self/gid_map", gids);
	if (rc)
		return err_sys(e, rc, "virtiofsd: the id maps of this process");
	rc = proc_write(pid, "uid_map", uids, e);
	return rc ? rc : proc_write(pid, "gid_map", gids, e);
}

static int map_one(pid_t pid, struct err *e)
{
	char text[64];
	int rc;

	snprintf(text, sizeof(text), "0 %u 1", (unsigned)geteuid());
	rc = proc_write(pid, "uid_map", text, e);
	if (!rc)
		rc = proc_write(pid, "setgroups", "deny", e);
	snprintf(text, sizeof(text), "0 %u 1", (unsigned)getegid());
	return rc ? rc : proc_write(pid, "gid_map", text, e);
}

/* The first range of a user in /etc/subuid or /etc/subgid: "NAME or UID:FIRST:COUNT". */
static bool subid_range(const char *file, const char *user, unsigned long *first,
			unsigned long *count)
{
	char line[256], uid[16];
	FILE *f = fopen(file, "re");
	bool found = false;

	snprintf(uid, sizeof(uid), "%u", (unsigned)geteuid());
	while (f && !found && fgets(line, sizeof(line), f)) {
		char *colon = strchr(line, ':');

		if (!colon)
			continue;
		*colon = 0;
		found = (!strcmp(line, user) || !strcmp(line, uid)) &&
			sscanf(colon + 1, "%lu:%lu", first, count) == 2 && *count;
	}
	if (f)
		fclose(f);
	return found;
}

/* newuidmap and newgidmap write the maps, with the rights of their own that they have. */
static bool map_by(const char *program, pid_t pid, unsigned own, unsigned long first,
		   unsigned long count)
{
	char p[16], o[16], f[24], n[24];
	char *const argv[] = {(char *)(uintptr_t)program, p, "0", o, "1", "1", f, n, NULL};
	char *const env[] = {"PATH=/usr/bin:/bin", NULL};
	int status = -1, null;
	pid_t helper;

	snprintf(p, sizeof(p), "%d", (int)pid);
	snprintf(o, sizeof(o), "%u", own);
	snprintf(f, sizeof(f), "%lu", first);
	snprintf(n, sizeof(n), "%lu", count);
	helper = fork();
	if (helper == 0) {
		null = open("/dev/null", O_RDWR);
		if (null < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0 || dup2(null, 2) < 0 ||
		    syscall(SYS_close_range, 3, ~0u, 0))
			_exit(STATUS_SETUP);
		execve(program, argv, env);
		_exit(STATUS_SETUP);
	}
	while (helper > 0 && waitpid(helper, &status, 0) < 0 && errno == EINTR)
		;
	return helper > 0 && !status;
}

/* As /etc/passwd has it: the name service of a static program would be another one. "": unknown. */
static void own_name(char out[64])
{
	FILE *f = fopen("/etc/passwd", "re");
	const struct passwd *pw;

	out[0] = 0;
	while (f && !out[0] && (pw = fgetpwent(f))) {
		if (pw->pw_uid == geteuid())
			snprintf(out, 64, "%s", pw->pw_name);
	}
	if (f)
		fclose(f);
}

/* 1: done; 0: this user has no range, or newuidmap does not do it, and nothing has happened. */
static int map_range(pid_t pid, struct err *e)
{
	unsigned long u, nu, g, ng;
	char user[64];

	own_name(user);
	if (!subid_range("/etc/subuid", user, &u, &nu) ||
	    !subid_range("/etc/subgid", user, &g, &ng) ||
	    !map_by("/usr/bin/newuidmap", pid, geteuid(), u, nu))
		return 0;
	if (map_by("/usr/bin/newgidmap", pid, getegid(), g, ng))
		return 1;
	return err_set(e, -EPERM,
		       "virtiofsd: newgidmap does not map %lu groups from %lu on, which "
		       "/etc/subgid has",
		       ng, g);
}

static int virtiofsd_map(pid_t pid, enum virtiofsd_ids *ids, struct err *e)
{
	int rc;

	*ids = IDS_ALL;
	if (has_set_ids())
		return map_all(pid, e);
	*ids = IDS_RANGE;
	rc = geteuid() ? map_range(pid, e) : 0;
	if (rc)
		return rc < 0 ? rc : 0;
	*ids = IDS_ONE;
	return map_one(pid, e);
}

/* ---- the child ---- */

struct virtiofsd_start {
	const char *program, *argv[MAX_ARGS];
	int dir, listener, null, log[2];
	int go[2]; /* the parent says that the ids are mapped, and how */
	bool ro;
};

/* Written by hand: no stream of the parent's may be flushed here. */
static _Noreturn void start_failed(const char *what)
{
	char text[160];
	int n = snprintf(text, sizeof(text), "cannot start it: %s: %s\n", what,
			 strerrordesc_np(errno));

	(void)!write(2, text, (size_t)n);
	_exit(STATUS_SETUP);
}

static void must(int rc, const char *what)
{
	if (rc < 0)
		start_failed(what);
}

/* The kernel forgets it when ids change. While the parent lives it has the other end of the log. */
static void tie_to_parent(void)
{
	struct pollfd p = {.fd = 2};

	must(prctl(PR_SET_PDEATHSIG, SIGKILL), "PR_SET_PDEATHSIG");
	if (poll(&p, 1, 0) > 0 && (p.revents & POLLERR))
		_exit(STATUS_SETUP);
}

static enum virtiofsd_ids take_ids(const struct virtiofsd_start *s)
{
	unsigned char how;

	if (read(s->go[0], &how, 1) != 1)
		_exit(STATUS_SETUP);
	must((int)syscall(SYS_setresgid, 0, 0, 0), "setresgid");
	must((int)syscall(SYS_setresuid, 0, 0, 0), "setresuid");
	tie_to_parent();
	return (enum virtiofsd_ids)how;
}

static int set_mount(int tree, const char *path, unsigned flags, uint64_t set, uint64_t propagation)
{
	struct mount_attr a = {.attr_set = set, .propagation = propagation};

	return (int)syscall(SYS_mount_setattr, tree, path, flags | AT_RECURSIVE, &a, sizeof(a));
}

#define QUIET (MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)

/* A copy of the mounts below `path` ("": the current directory), not attached yet. */
static int take_tree(const char *path, uint64_t set, uint64_t propagation)
{
	int tree = (int)syscall(SYS_open_tree, AT_FDCWD, path,
				OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE |
					(*path ? 0 : AT_EMPTY_PATH));

	must(tree, *path ? path : "the directory");
	must(set_mount(tree, "", AT_EMPTY_PATH, set, propagation),
	     "mount_setattr (Linux 5.12 or newer)");
	return tree;
}

/* Attach it at `at` of the new root. */
static void put_tree(int tree, const char *at)
{
	must((int)syscall(SYS_move_mount, tree, "", AT_FDCWD, at, MOVE_MOUNT_F_EMPTY_PATH), at);
	close(tree);
}

static void attach(const char *path, const char *at, uint64_t set)
{
	put_tree(take_tree(path, set | MOUNT_ATTR_RDONLY, MS_PRIVATE), at);
}

/* Where its loader finds its libraries: a directory, or on most systems a link into /usr. */
static void add_libraries(const char *host, const char *name)
{
	char target[64];
	struct stat st;
	ssize_t n;

	if (lstat(host, &st))
		return;
	if (S_ISLNK(st.st_mode)) {
		n = readlink(host, target, sizeof(target) - 1);
		must(n < 0 ? -1 : 0, host);
		target[n] = 0;
		must(symlink(target, name), host);
	} else if (S_ISDIR(st.st_mode)) {
		must(mkdir(name, 0755), host);
		attach(host, name, QUIET);
	}
}

static void add_file(const char *name, const char *text)
{
	int fd = open(name, O_CREAT | O_WRONLY | O_CLOEXEC, 0444);

	must(fd, name);
	must((int)write(fd, text, strlen(text)), name);
	close(fd);
}

static void add_loader_cache(void)
{
	if (access("/etc/ld.so.cache", R_OK))
		return;
	must(mkdir("etc", 0755), "etc");
	add_file("etc/ld.so.cache", "");
	attach("/etc/ld.so.cache", "etc/ld.so.cache", QUIET | MOUNT_ATTR_NOEXEC);
}

/* Of /proc its own directory alone, and no file system of that type anew: that is refused where
 * something of the host's is covered, by a container or by systemd. virtiofsd insists on reading
 * two limits of /proc/sys, which is not there: user id 0 may write it, without a capability. */
static void add_proc(int self)
{
	static const char most[] = "1048576\n"; /* it is told to leave its limit alone */

	must(mkdir("proc", 0755), "proc");
	must(mkdir("proc/self", 0555), "proc");
	put_tree(self, "proc/self");
	must(mkdir("proc/sys", 0755), "proc");
	must(mkdir("proc/sys/fs", 0755), "proc");
	add_file("proc/sys/fs/file-max", most);
	add_file("proc/sys/fs/nr_open", most);
}

/* What lies below the place where the new root is put together is taken before. */
static void make_root(const struct virtiofsd_start *s)
{
	int share = take_tree("", QUIET | MOUNT_ATTR_NOEXEC | (s->ro ? MOUNT_ATTR_RDONLY : 0),
			      s->ro ? MS_PRIVATE : MS_SLAVE),
	    self = take_tree("/proc/self", QUIET | MOUNT_ATTR_NOEXEC | MOUNT_ATTR_RDONLY,
			     MS_PRIVATE);

	must(mount("insula-share", STAGE, "tmpfs", MS_NOSUID | MS_NODEV, "size=64k,nr_inodes=32"),
	     "tmpfs");
	must(chdir(STAGE), STAGE);
	add_libraries("/usr", "usr");
	add_libraries("/lib", "lib");
	add_libraries("/lib64", "lib64");
	add_loader_cache();
	add_proc(self);
	must(mkdir("share", 0755), "share");
	put_tree(share, "share");
	must((int)syscall(SYS_pivot_root, ".", "."), "pivot_root");
	must(umount2(".", MNT_DETACH), "the old root");
	must(chdir("/"), "/");
	must(mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV, NULL),
	     "its root");
}

/* The current directory moves along into the new mount namespace, a descriptor would not. */
static void enter_namespaces(const struct virtiofsd_start *s)
{
	must(fchdir(s->dir), "the directory");
	must(unshare(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP),
	     "namespaces");
	must(mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL), "slave mounts");
	make_root(s);
}

static void keep_descriptors(const struct virtiofsd_start *s)
{
	int listener = fcntl(s->listener, F_DUPFD_CLOEXEC, LISTENER_FD + 1),
	    null = fcntl(s->null, F_DUPFD_CLOEXEC, LISTENER_FD + 1);

	must(listener, "descriptors");
	must(dup2(null, 0), "descriptors");
	must(dup2(listener, LISTENER_FD), "descriptors");
	must((int)syscall(SYS_close_range, LISTENER_FD + 1, ~0u, 0), "descriptors");
}

static void limit_resources(void)
{
	const struct rlimit none = {0, 0}, threads = {THREADS, THREADS};
	struct rlimit l;

	must(setrlimit(RLIMIT_CORE, &none), "RLIMIT_CORE"); /* it maps the guest's memory */
	must(setrlimit(RLIMIT_MSGQUEUE, &none), "RLIMIT_MSGQUEUE");
	must(setrlimit(RLIMIT_NPROC, &threads), "RLIMIT_NPROC");
	must(getrlimit(RLIMIT_NOFILE, &l), "RLIMIT_NOFILE");
	if (l.rlim_max > NOFILE)
		l.rlim_max = NOFILE;
	l.rlim_cur = l.rlim_max;
	must(setrlimit(RLIMIT_NOFILE, &l), "RLIMIT_NOFILE");
}

/* All in its user namespace: they count for files whose owners are mapped there, nothing else. */
static const uint8_t keep[] = {
	CAP_CHOWN,        /* the guest's chown */
	CAP_DAC_OVERRIDE, /* the guest's root reads and writes what belongs to others */
	CAP_FOWNER,       /* and changes their modes and times */
	CAP_FSETID,       /* and keeps set-id bits where its kernel says that they stay */
	CAP_SETGID,       /* it takes the ids of the guest's process while it makes a file, */
	CAP_SETUID,       /* so that the file belongs to that, and the kernel checks its rights */
	CAP_SYS_CHROOT,   /* at its start, for its sandbox; then it drops this one */
	CAP_SETPCAP,      /* likewise, to empty its bounding set */
};

static void drop_capabilities(void)
{
	struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct d[_LINUX_CAPABILITY_U32S_3] = {{0}};
	uint64_t set = 0;

	for (size_t i = 0; i < ARRAY_LEN(keep); i++)
		set |= 1ull << keep[i];
	for (unsigned cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++) {
		if (!(cap < 64 && (set >> cap & 1)))
			must(prctl(PR_CAPBSET_DROP, cap, 0, 0, 0), "bounding set");
	}
	for (unsigned i = 0; i < _LINUX_CAPABILITY_U32S_3; i++)
		d[i].effective = d[i].permitted = (uint32_t)(set >> (32 * i));
	must(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0), "ambient set");
	must((int)syscall(SYS_capset, &h, d), "capset");
}

#define NAMESPACES                                                                                 \
	(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | \
	 CLONE_NEWCGROUP)
#define X32_BIT 0x40000000u

/* Before its own filter, which lets unshare() pass whatever it asks for: in a user namespace of its
 * own it would have all capabilities again. clone3() is not there for it, so that the C library
 * takes clone(), whose flags can be seen.
 *
 * With one id mapped, the kernel lets nobody drop groups, and virtiofsd does not run if it cannot.
 * They are the user's own, and stay: it is told that they are gone. */
static void filter_calls(enum virtiofsd_ids ids)
{
	const unsigned groups = ids == IDS_ONE ? SECCOMP_RET_ERRNO : SECCOMP_RET_ALLOW;
	struct sock_filter f[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, X32_BIT, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_setgroups, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, groups),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone3, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_unshare, 2, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])),
		BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, NAMESPACES, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	const struct sock_fprog p = {.len = ARRAY_LEN(f), .filter = f};

	must(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &p, 0, 0), "seccomp");
}

static _Noreturn void virtiofsd_child(struct virtiofsd_start *s)
{
	static const char *const env[] = {"PATH=/usr/bin:/bin", "LC_ALL=C", NULL};
	enum virtiofsd_ids ids;
	sigset_t none;

	close(s->go[1]);
	close(s->log[0]);
	if (dup2(s->log[1], 1) < 0 || dup2(s->log[1], 2) < 0)
		_exit(STATUS_SETUP);
	tie_to_parent();
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	ids = take_ids(s);
	umask(0);
	must(setsid(), "setsid");
	enter_namespaces(s);
	keep_descriptors(s);
	limit_resources();
	drop_capabilities();
	must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs");
	filter_calls(ids);
	execve(s->program, (char *const *)(uintptr_t)s->argv, (char *const *)(uintptr_t)env);
	start_failed(s->program);
}

/* ---- the parent ---- */

static pid_t clone_virtiofsd(struct virtiofsd_start *s)
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
		virtiofsd_child(s);
	keep_errno = errno;
	sigprocmask(SIG_SETMASK, &old, NULL);
	errno = keep_errno;
	return (pid_t)pid;
}

/* Root may give it more than it has itself. Where it may not, what there is has to do. */
static void raise_nofile(pid_t pid)
{
	const struct rlimit l = {NOFILE, NOFILE};

	if (!geteuid() && prlimit(pid, RLIMIT_NOFILE, &l, NULL))
		log_debug("virtiofsd: RLIMIT_NOFILE stays what it is");
}

/* Maps first, then the one byte that the child waits for. */
static int virtiofsd_go(const struct share *s, pid_t pid, int go, struct err *e)
{
	enum virtiofsd_ids ids;
	int rc = virtiofsd_map(pid, &ids, e);
	uint8_t how;

	if (rc)
		return rc;
	raise_nofile(pid);
	if (ids == IDS_ONE)
		log_info("--share: %s: files of other users belong to nobody in the guest: there "
			 "is no range of ids for this user in /etc/subuid, or no newuidmap "
			 "(Debian: apt-get install uidmap)",
			 s->conf->dir);
	how = (uint8_t)ids;
	return write(go, &how, 1) == 1 ? 0 : err_sys(e, -errno, "virtiofsd: pipe");
}

int virtiofsd_spawn(struct share *s, int listener, struct err *e)
{
	struct virtiofsd_start start = {.program = s->program,
					.dir = s->dir,
					.listener = listener,
					.log = {-1, -1},
					.go = {-1, -1},
					.ro = s->conf->ro};
	pid_t pid = -1;
	int rc = 0;

	virtiofsd_args(s, start.argv);
	start.null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (start.null < 0 || pipe2(start.log, O_CLOEXEC | O_NONBLOCK) ||
	    pipe2(start.go, O_CLOEXEC))
		rc = err_sys(e, -errno, "virtiofsd: pipe");
	if (!rc && (pid = clone_virtiofsd(&start)) < 0)
		rc = err_sys(e, -errno, "virtiofsd: cannot create a user namespace");
	fd_close(&start.log[1]);
	fd_close(&start.null);
	fd_close(&start.go[0]);
	if (!rc)
		rc = virtiofsd_go(s, pid, start.go[1], e);
	fd_close(&start.go[1]);
	if (!rc) {
		rc = child_adopt(&s->virtiofsd, "virtiofsd", pid, start.log[0], e);
		s->virtiofsd.talkative = true;
		return rc;
	}
	fd_close(&start.log[0]);
	if (pid > 0) {
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
	}
	return rc;
}
