/* SPDX-License-Identifier: BSD-2-Clause */
/* insula-pager as a child. See pager.h. */
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/log.h>

#include "pager.h"
#include "snapdir.h"
#include "supervisor/vm.h"

#define NOFILE 32
#define NOFILE_FAULTS 256 /* each process that maps memory gives it a descriptor a region */

int pager_start(struct vm *vm, struct child *c, const struct child_ops *ops, enum pager_job job,
		bool live, const struct snapshot *from, int last, uint64_t fsize, struct err *e)
{
	struct msg_start_pager m = {
		.log_level = log_most(), .job = job, .size = memmap_size(&vm->memmap)};
	int fds[2 + RAM_CHAIN] = {vm->mem}, rc;
	unsigned n = 1;

	for (unsigned i = 0; i < from->nmemory; i++)
		fds[n++] = from->memory[i];
	if (last >= 0)
		fds[n++] = last;
	if (last >= 0 && job == PAGER_SERVE)
		m.flags = PAGER_ORDER;
	if (live)
		m.flags |= PAGER_LIVE;
	child_free(c);
	rc = child_init_open(c, vm->opened.pager_program, "insula-pager", "", 1,
			     job == PAGER_SERVE || live ? NOFILE_FAULTS : NOFILE, e);
	if (rc)
		return rc;
	child_own(c, &vm->loop, ops, vm);
	c->os.fsize = fsize;
	rc = child_spawn(c, fds, n, e);
	if (!rc && (rc = child_send(c, MSG_START_PAGER, &m, sizeof(m), fds, n)))
		err_sys(e, rc, "insula-pager: channel");
	return rc;
}

int pager_order(const char *snapshot)
{
	char path[PATH_MAX];
	struct stat st;
	int fd;

	if (snprintf(path, sizeof(path), "%s/working-set", snapshot) >= (int)sizeof(path))
		return -1;
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
	/* It is written by one at a time; the others follow what is there. */
	if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB))
		fd_close(&fd);
	if (fd < 0)
		fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0)
		return -1;
	if (fstat(fd, &st) || !S_ISREG(st.st_mode) || st.st_nlink != 1 || st.st_uid != geteuid())
		fd_close(&fd);
	return fd;
}
