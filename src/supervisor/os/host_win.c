/* SPDX-License-Identifier: BSD-2-Clause */
/* What a Windows host must offer. See host.h. */
#include "os/win/win.h"

#include <errno.h>

#include <insula/base.h>
#include <insula/log.h>

#include "supervisor/host.h"

static int host_refuse(const struct vm_config *c, struct err *e)
{
	const char *what = c->nshares       ? "--share"
			   : c->image       ? "--image"
			   : c->rootfs_size ? "--rootfs-size"
			   : c->nnets       ? "--net"
			   : c->balloon.on  ? "--balloon"
			   : c->mem_max     ? "--mem ...,max="
			   : c->cpus_max    ? "--cpus ...,max="
			   : c->mem_huge    ? "--mem ...,hugepages"
			   : c->paused      ? "--paused"
					    : NULL;

	return what ? err_set(e, -EOPNOTSUPP, "%s: not on Windows yet", what) : 0;
}

static int check_memory(uint64_t mem, struct err *e)
{
	MEMORYSTATUSEX m = {.dwLength = sizeof(m)};

	if (GlobalMemoryStatusEx(&m) && mem > m.ullTotalPhys)
		return err_set(e, -EINVAL,
			       "--mem: %lluM; expected at most %lluM, what this host has",
			       (unsigned long long)(mem >> 20),
			       (unsigned long long)(m.ullTotalPhys >> 20));
	return 0;
}

int host_check(struct err *e)
{
	(void)e;
	return 0;
}

int host_config(const struct vm_config *c, struct err *e)
{
	int rc = host_refuse(c, e);

	return rc ? rc : check_memory(c->mem, e);
}

/* What the console's file is like shows when it is opened, before anything has started. */
int host_outputs(const struct vm_config *c, struct err *e)
{
	(void)c;
	(void)e;
	return 0;
}

/* insula-vmm opens it itself. */
int host_hypervisor(int *fd, struct err *e)
{
	(void)e;
	*fd = -1;
	return 0;
}

void host_warn(const char *ends)
{
	(void)ends;
}

int host_start_log(struct err *e)
{
	int rc = log_queue_start(NULL);

	return rc ? err_sys(e, rc, "the log's thread") : 0;
}
