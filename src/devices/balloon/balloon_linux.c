/* SPDX-License-Identifier: BSD-2-Clause */
/* The system calls of virtio-balloon. See balloon.h. */
#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "balloon.h"

/* Not MADV_DONTNEED: that would drop this process's view of a page that the file still has. */
int balloon_punch(void *at, uint64_t len)
{
	uintptr_t from = ((uintptr_t)at + BALLOON_PAGE - 1) & ~(uintptr_t)(BALLOON_PAGE - 1);
	uintptr_t to = ((uintptr_t)at + len) & ~(uintptr_t)(BALLOON_PAGE - 1);

	if (from >= to)
		return 0;
	return madvise((void *)from, to - from, MADV_REMOVE) ? -errno : 0;
}

void balloon_rules(const struct balloon *b, struct rule_list *l)
{
	worker_rules(&b->w, l, true);
	rule_arg(l, SYS_madvise,
		 (struct jail_arg){.index = 2, .cmp = JAIL_EQ, .value = MADV_REMOVE},
		 (struct jail_arg){0}, "give pages of guest memory back to the host");
}
