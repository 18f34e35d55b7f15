/* SPDX-License-Identifier: BSD-2-Clause */
/* What the place must offer. See host.h. */
#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <insula/base.h>

#include "host.h"

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

int host_check(struct err *e)
{
	int rc = check_proc(e);

	if (!rc)
		rc = check_null(e);
	return rc ? rc : check_address_space(e);
}
