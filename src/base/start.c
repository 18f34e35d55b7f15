/* SPDX-License-Identifier: BSD-2-Clause */
/* The head of a start message. See insula/start.h. */
#include <errno.h>
#include <string.h>

#include <insula/log.h>
#include <insula/start.h>

static const char *const roles[START_ROLES] = {
	[START_MEMORY] = "guest memory",
	[START_PAGE] = "device page",
	[START_CALL] = "call event",
	[START_IRQ] = "interrupt event",
	[START_KICK] = "kick event",
	[START_ANSWER] = "answer event",
	[START_OWN] = "its own",
	[START_HYPERVISOR] = "hypervisor",
	[START_KERNEL] = "kernel",
	[START_INITRD] = "initrd",
	[START_STATE] = "state",
	[START_FAULTS] = "faults",
	[START_WATCH] = "watch",
	[START_VECTOR] = "vector event",
	[START_EPC] = "memory for enclaves",
};

void start_add(struct start_fds *f, enum start_role role, int fd)
{
	if (role < START_MEMORY || role >= START_ROLES || f->n[role] == START_MAX_SLOTS)
		panic("a descriptor of role %d", (int)role);
	f->fd[role][f->n[role]++] = fd;
}

int start_sort(const struct start_head *h, uint32_t tag, const int *fds, unsigned nfds,
	       struct start_fds *f, struct err *e)
{
	memset(f, 0, sizeof(*f));
	if (h->version != START_VERSION)
		return err_set(e, -EPROTO, "start message of version %u; expected %u", h->version,
			       START_VERSION);
	if (h->tag != tag)
		return err_set(e, -EPROTO, "start message for program 0x%x; expected 0x%x", h->tag,
			       tag);
	if (h->log_level > LOG_LVL_DEBUG)
		return err_set(e, -EINVAL, "log level %u; expected at most %d", h->log_level,
			       LOG_LVL_DEBUG);
	if (h->nslots != nfds || nfds > START_MAX_SLOTS)
		return err_set(e, -EINVAL, "%u slots; expected %u, as many as descriptors came",
			       h->nslots, nfds);
	for (unsigned i = 0; i < nfds; i++) {
		if (h->slot[i] < START_MEMORY || h->slot[i] >= START_ROLES)
			return err_set(e, -EINVAL, "slot %u: role %u; expected 1 to %d", i,
				       h->slot[i], START_ROLES - 1);
		start_add(f, h->slot[i], fds[i]);
	}
	return memmap_check(&h->mem, f->n[START_MEMORY], e);
}

int start_expect(const struct start_fds *f, enum start_role role, unsigned n, struct err *e)
{
	return f->n[role] == n ? 0
			       : err_set(e, -EINVAL, "descriptors of role \"%s\": %u; expected %u",
					 roles[role], f->n[role], n);
}
