/* SPDX-License-Identifier: BSD-2-Clause */
/* insula-pager as a child. See pager.h. */
#include <insula/log.h>

#include "pager.h"
#include "snapdir.h"
#include "supervisor/open.h"
#include "supervisor/vm.h"

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
	rc = open_pager(vm, c, job == PAGER_SERVE || live, fsize, e);
	if (rc)
		return rc;
	child_own(c, &vm->loop, ops, vm);
	rc = child_spawn(c, fds, n, e);
	if (!rc && (rc = child_send(c, MSG_START_PAGER, &m, sizeof(m), fds, n)))
		err_sys(e, rc, "insula-pager: channel");
	return rc;
}
