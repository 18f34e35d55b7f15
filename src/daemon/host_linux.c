/* SPDX-License-Identifier: BSD-2-Clause */
/* Limits, signals, programs and paths of Linux. See daemon.h. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <insula/base.h>

#include "daemon.h"
#include "host.h"
#include "record.h"

const int host_signals[] = {SIGTERM, SIGINT, SIGHUP};
const size_t host_nsignals = ARRAY_LEN(host_signals);
const int host_reload_signal = SIGHUP;

/* Two descriptors per VM and one per client: as many as may be had. Supervisors get the old limit.
 */
static void raise_nofile(struct daemon *d)
{
	struct rlimit l;

	if (getrlimit(RLIMIT_NOFILE, &l))
		return;
	d->nofile.soft = l.rlim_cur;
	d->nofile.hard = l.rlim_max;
	l.rlim_cur = l.rlim_max;
	(void)setrlimit(RLIMIT_NOFILE, &l);
}

int host_supervisor(struct daemon *d, struct err *e)
{
	char beside[PATH_MAX - 16], path[PATH_MAX];
	int fd, rc = d->conf.supervisor[0] ? 0 : program_above(1, beside, sizeof(beside), e);

	if (rc)
		return rc;
	if (d->conf.supervisor[0])
		snprintf(path, sizeof(path), "%s", d->conf.supervisor);
	else
		snprintf(path, sizeof(path), "%s/insula-run", beside);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || access(path, X_OK)) {
		fd_close(&fd);
		return err_sys(e, -errno, "supervisor: %s", path);
	}
	fd_close(&d->supervisor);
	d->supervisor = fd;
	return 0;
}

void host_prepare(struct daemon *d)
{
	fd_occupy_standard();
	signal(SIGPIPE, SIG_IGN);
	umask(077);
	raise_nofile(d);
}

uint64_t host_memory(void)
{
	return (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
}

int host_groups(struct owner *who)
{
	struct passwd pw, *found = NULL;
	char buf[16384];
	gid_t list[MAX_GROUPS];
	int n = MAX_GROUPS, rc = getpwuid_r(who->uid, &pw, buf, sizeof(buf), &found);

	/* getpwuid_r(3): some say that there is none by an error. */
	if (rc && rc != ENOENT && rc != ESRCH)
		return -rc;
	who->ngroups = 0;
	if (!found)
		return 0;
	if (getgrouplist(pw.pw_name, pw.pw_gid, list, &n) < 0)
		return -E2BIG;
	who->gid = pw.pw_gid;
	who->ngroups = (unsigned)n;
	for (int i = 0; i < n; i++)
		who->groups[i] = list[i];
	return 0;
}

uint32_t host_uid(void)
{
	return geteuid();
}

const bool host_names_streams = false;

bool host_is_stream(int fd)
{
	socklen_t len = sizeof(int);
	int type = 0;

	return !getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) && type == SOCK_STREAM;
}

char **host_arguments(int *argc, char **argv)
{
	(void)argc;
	return argv;
}
