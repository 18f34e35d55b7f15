/* SPDX-License-Identifier: BSD-2-Clause */
/* What the place must offer. See host.h. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/log.h>

#include "supervisor/backing/files.h"
#include "supervisor/host.h"

#define WANTED_FILES 244u

/* Programs are found through it, and id maps are written there. */
static int check_proc(struct err *e)
{
	struct statvfs v;

	if (access("/proc/self/exe", F_OK))
		return err_set(e, -ENOENT, "/proc is not mounted here");
	if (!statvfs("/proc", &v) && (v.f_flag & ST_RDONLY))
		return err_set(e, -EROFS,
			       "/proc is read-only; mount a fresh one (bwrap --proc /proc)");
	return 0;
}

/* The input of whatever may read nothing. */
static int check_null(struct err *e)
{
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		return err_set(e, -errno, "no /dev/null here");
	close(fd);
	return 0;
}

/* Each process that knows the guest's memory maps all of it, and the kernel raises no hard limit
 * for a user namespace. */
static int check_address_space(struct err *e)
{
	struct rlimit l;

	if (getrlimit(RLIMIT_AS, &l) || l.rlim_max == RLIM_INFINITY)
		return 0;
	return err_set(e, -ENOMEM,
		       "the limit of address space (ulimit -v) is too low: %llu KiB; expected "
		       "unlimited",
		       (unsigned long long)l.rlim_max >> 10);
}

/* With less even a small VM may fail while it runs. One with many devices needs more, and is
 * refused when it opens them. */
static int check_files(struct err *e)
{
	struct rlimit l;

	if (getrlimit(RLIMIT_NOFILE, &l))
		return err_sys(e, -errno, "RLIMIT_NOFILE");
	if (l.rlim_cur >= WANTED_FILES)
		return 0;
	if (l.rlim_max < WANTED_FILES)
		return err_set(e, -EMFILE, "RLIMIT_NOFILE: %llu; expected at least %u",
			       (unsigned long long)l.rlim_max, (unsigned)WANTED_FILES);
	l.rlim_cur = l.rlim_max;
	return setrlimit(RLIMIT_NOFILE, &l) ? err_sys(e, -errno, "RLIMIT_NOFILE") : 0;
}

int host_check(struct err *e)
{
	int rc = check_proc(e);

	if (!rc)
		rc = check_null(e);
	if (!rc)
		rc = check_address_space(e);
	return rc ? rc : check_files(e);
}

/* ---- what the user wants of it ---- */

/* /dev/kvm: say what to do, since this is what most people meet first. */
int host_hypervisor(int *fd, struct err *e)
{
	struct stat st;

	*fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (*fd >= 0)
		return 0;
	if (errno == ENOENT)
		return err_set(e, -ENOENT,
			       "no /dev/kvm: expected a Linux host with KVM (module kvm_intel or "
			       "kvm_amd loaded, virtualization on in the firmware)");
	if (errno != EACCES && errno != EPERM)
		return err_sys(e, -errno, "/dev/kvm");
	if (!stat("/dev/kvm", &st) && (st.st_mode & 060) == 060)
		return err_set(
			e, -EACCES,
			"no permission to open /dev/kvm: expected a member of its group (gid "
			"%u, usually \"kvm\"): usermod -aG kvm USER, then log in again",
			(unsigned)st.st_gid);
	return err_set(e, -EACCES,
		       "no permission to open /dev/kvm: it is for uid %u alone (mode %04o); "
		       "expected to read and write it: chmod 660 and a group for it, usually "
		       "\"kvm\"",
		       (unsigned)st.st_uid, (unsigned)st.st_mode & 07777);
}

/* KVM without VT-x or AMD-V (software KVM in some clouds) runs small programs, but no Linux. Say so
 * before somebody waits for it. */
void host_warn(const char *ends)
{
	char line[8192];
	bool found = false;
	FILE *f = fopen("/proc/cpuinfo", "re");

	if (!f)
		return;
	while (!found && fgets(line, sizeof(line), f))
		found = !strncmp(line, "flags", 5) &&
			(strstr(line, " vmx") || strstr(line, " svm"));
	fclose(f);
	if (!found)
		log_warn("this KVM has neither VT-x nor AMD-V behind it: a Linux guest will hardly "
			 "boot here%s; in the source tree, `make lab` has a machine where it does",
			 ends);
}

int host_config(const struct vm_config *c, struct err *e)
{
	uint64_t mem = c->mem_max ? c->mem_max : c->mem;
	uint64_t host = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);

	if (mem > host)
		return err_set(e, -EINVAL,
			       "--mem: %s%lluM; expected at most %lluM, what this host has",
			       c->mem_max ? "max " : "", (unsigned long long)(mem >> 20),
			       (unsigned long long)(host >> 20));
	return 0;
}

/* Can it be written, or made? It is opened when there is something to write: bad input leaves no
 * file behind. */
static int host_output(const char *what, const char *path, struct err *e)
{
	struct stat st;
	int rc;

	if (!path)
		return 0;
	if (!stat(path, &st) && S_ISDIR(st.st_mode))
		return err_set(e, -EISDIR, "%s: %s: a directory; expected a file", what, path);
	rc = faccessat(AT_FDCWD, path, W_OK, AT_EACCESS) ? -errno : 0;
	if (rc == -ENOENT)
		rc = file_may_be_made(path);
	return rc ? err_sys(e, rc, "%s: %s", what, path) : 0;
}

int host_outputs(const struct vm_config *c, struct err *e)
{
	int rc = host_output("--metrics", c->metrics, e);

	return rc || config_console(c) != CONSOLE_FILE
		       ? rc
		       : host_output("--console", c->console_file, e);
}

/* Signals are the main thread's. */
int host_start_log(struct err *e)
{
	sigset_t all, old;
	int rc;

	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &old);
	rc = log_queue_start(NULL);
	sigprocmask(SIG_SETMASK, &old, NULL);
	return rc ? err_sys(e, rc, "the log's thread") : 0;
}
