/* SPDX-License-Identifier: BSD-2-Clause */
/* The system calls of virtio-mem. See mem.h. */
#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "mem.h"

/* Not MADV_DONTNEED: that would drop this process's view of a page that the file still has. */
int vmem_cut(void *at, uint64_t len)
{
	return madvise(at, len, MADV_REMOVE) ? -errno : 0;
}

void vmem_rules(const struct vmem *b, struct rule_list *l)
{
	worker_rules(&b->w, l, true);
	rule_arg(l, SYS_madvise,
		 (struct jail_arg){.index = 2, .cmp = JAIL_EQ, .value = MADV_REMOVE},
		 (struct jail_arg){0}, "give blocks of guest memory back to the host");
}
