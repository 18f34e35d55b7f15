/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The first thing a jailed program does: it gives up the host's files and its capabilities. Nothing
 * that came from a guest has been read yet, and no thread has been started.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/magic.h>
#include <linux/securebits.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/log.h>
#include <insula/proto.h>

#include "steps.h"

#define ROOT_FLAGS (MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC)
#define SECUREBITS (SECURE_ALL_BITS & ~issecure_mask(SECURE_KEEP_CAPS))

/* Outside its namespaces jail_enter() would take away the root of the host: make sure that
 * jail_spawn() started us. */
static int in_namespaces(struct err *e)
{
	if (getpid() != 1 || getuid() != JAIL_INNER_ID || geteuid() != JAIL_INNER_ID ||
	    getgid() != JAIL_INNER_ID || getegid() != JAIL_INNER_ID)
		return err_set(e, -EPERM, "not in namespaces of its own: pid %d, uid %u, gid %u",
			       (int)getpid(), getuid(), getgid());
	return 0;
}

static int step_parent(struct jail_start *s, struct err *e)
{
	int rc = in_namespaces(e);

	if (!rc)
		rc = jail_tie_to_parent(s->channel, e);
	if (rc)
		return rc;
	/* RLIMIT_CORE does not stop a core handler that is a pipe, and a core would hold the
	 * guest's memory. */
	if (prctl(PR_SET_DUMPABLE, 0))
		return err_sys(e, -errno, "PR_SET_DUMPABLE");
	return 0;
}

/* A directory must be our own tmpfs, sealed by its flags, and hold no name at all. */
static int empty_check(const char *path, struct err *e)
{
	struct statfs fs;
	char buf[1024];
	ssize_t n;
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return err_sys(e, -errno, "open of %s", path);
	int rc = fstatfs(fd, &fs) ? -errno : 0;
	while (!rc && (n = getdents64(fd, buf, sizeof(buf))) != 0) {
		if (n < 0)
			rc = -errno;
		for (ssize_t at = 0; at < n;) {
			const struct dirent64 *d = (const struct dirent64 *)(buf + at);
			if (strcmp(d->d_name, ".") != 0 && strcmp(d->d_name, "..") != 0)
				rc = -ENOTEMPTY;
			at += d->d_reclen;
		}
	}
	fd_close(&fd);
	if (rc)
		return err_sys(e, rc, "%s of the new root", path);
	const long need = ST_RDONLY | ST_NOSUID | ST_NODEV | ST_NOEXEC;
	if (fs.f_type != TMPFS_MAGIC || (fs.f_flags & need) != need)
		return err_set(e, -EPERM, "%s of the new root has type %#lx, flags %#lx", path,
			       (unsigned long)fs.f_type, (unsigned long)fs.f_flags);
	return 0;
}

static int step_root(struct jail_start *s, struct err *e)
{
	(void)s;
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL)) {
		int rc = -errno;
		return err_sys(e, rc, "private mounts%s", jail_remedy(JAIL_PROC_SYS, rc, false));
	}
	/* /proc is the one directory that certainly exists: jail_spawn() has just used it. One
	 * inode: the root itself. */
	if (mount("insula-jail", "/proc", "tmpfs", ROOT_FLAGS, "size=4096,nr_inodes=1,mode=0555"))
		return err_sys(e, -errno, "tmpfs");
	if (chdir("/proc"))
		return err_sys(e, -errno, "chdir");
	/* The old root ends up on top of the new one, in the same place, and is taken off from
	 * there. */
	if (syscall(SYS_pivot_root, ".", "."))
		return err_sys(e, -errno, "pivot_root");
	if (umount2(".", MNT_DETACH))
		return err_sys(e, -errno, "umount of the old root");
	if (chdir("/"))
		return err_sys(e, -errno, "chdir");
	/* "/" is the root itself; "/.." leads to whatever is mounted over it, should that be the
	 * host's. */
	int rc = empty_check("/", e);
	return rc ? rc : empty_check("/..", e);
}

/* Ask the kernel: all sets empty, the bounding set too. */
static int capabilities_check(struct err *e)
{
	struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct d[_LINUX_CAPABILITY_U32S_3];
	static const struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3];

	if (syscall(SYS_capget, &h, d))
		return err_sys(e, -errno, "capget");
	if (memcmp(d, none, sizeof(d)) != 0)
		return err_set(e, -EPERM, "capabilities are left");
	for (unsigned long cap = 0;; cap++) {
		int bounding = prctl(PR_CAPBSET_READ, cap, 0, 0, 0);

		if (bounding < 0 && errno == EINVAL && cap > 0)
			break; /* beyond the last one that this kernel knows */
		int ambient = prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, cap, 0, 0);
		if (bounding != 0 || ambient != 0)
			return err_set(e, -EPERM, "capability %lu is left", cap);
	}
	if (prctl(PR_GET_SECUREBITS) != (int)SECUREBITS)
		return err_set(e, -EPERM, "securebits are not locked");
	return 0;
}

/* Without libcap-ng: it would bring the C library's name service, sockets included, into every
 * jailed program. */
static int step_capabilities(struct jail_start *s, struct err *e)
{
	struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
	static const struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3];

	(void)s;
	if (prctl(PR_SET_SECUREBITS, SECUREBITS))
		return err_sys(e, -errno, "PR_SET_SECUREBITS");
	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0))
		return err_sys(e, -errno, "PR_CAP_AMBIENT_CLEAR_ALL");
	for (unsigned long cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++) {
		if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0))
			return err_sys(e, -errno, "PR_CAPBSET_DROP of %lu", cap);
	}
	if (syscall(SYS_capset, &h, none))
		return err_sys(e, -errno, "capset");
	return capabilities_check(e);
}

static int step_no_new_privs(struct jail_start *s, struct err *e)
{
	(void)s;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return err_sys(e, -errno, "PR_SET_NO_NEW_PRIVS");
	if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1)
		return err_set(e, -EPERM, "it is not in force");
	return 0;
}

/* Somebody ran a jailed program by hand: tell them, there is no channel to tell. */
static bool have_channel(void)
{
	int type = 0;
	socklen_t len = sizeof(type);

	return getsockopt(MSG_CHANNEL_FD, SOL_SOCKET, SO_TYPE, &type, &len) == 0 &&
	       type == SOCK_SEQPACKET;
}

void jail_enter(void)
{
	static const struct jail_step steps[] = {
		{"parent", step_parent},
		{"root", step_root},
		{"capabilities", step_capabilities},
		{"no_new_privs", step_no_new_privs},
	};
	struct jail_start s = {.channel = MSG_CHANNEL_FD};

	if (!have_channel()) {
		log_error("this program is started by insula-run, not by hand");
		_exit(1);
	}
	/* For ps and top: exec from a descriptor left the number of the descriptor as the name. */
	(void)prctl(PR_SET_NAME, program_invocation_short_name);
	jail_run_steps(steps, ARRAY_LEN(steps), &s);
}
