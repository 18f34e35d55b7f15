/*
 * The head of a start message: what every process of a VM is told first, in one form.
 *
 *   head   version, whom it is for, the log level, the memory map (memmap.h), and what each
 *          descriptor of the message is
 *   body   what this kind of process needs besides: for insula-vmm in proto.h, for a device in its
 *          own folder (src/devices/NAME/NAME_start.h). The head is its first member
 *
 * Descriptors have no fixed positions. Each has a role, and those of one role are numbered in the
 * order in which they come: the nth kick is the kick of queue n. start_sort() checks the head once,
 * for every receiver; start_expect() then says how many of a role there have to be.
 */
#ifndef INSULA_START_H
#define INSULA_START_H

#include <stdint.h>

#include <insula/err.h>
#include <insula/memmap.h>

#define START_VERSION 2
#define START_MAX_SLOTS 64 /* what a message can carry */

enum start_role {
	START_MEMORY = 1, /* guest memory: what the map's regions name */
	START_PAGE,       /* the device page */
	START_CALL,       /* wakes the helper */
	START_IRQ,        /* interrupts the guest, by a pin */
	START_KICK,       /* one for each queue */
	START_ANSWER,     /* wakes the core, on a system without futexes (word_events()) */
	START_OWN,        /* what the body says: a disk, a stream, the console's ends ... */
	START_HYPERVISOR, /* /dev/kvm (to insula-vmm, like the next three) */
	START_KERNEL,
	START_INITRD,
	START_STATE,  /* what it was saved as */
	START_FAULTS, /* /dev/userfaultfd, to each process that maps guest memory: it is filled
		       * when it is touched */
	START_WATCH,  /* the same: it is whole, and may be frozen later (gm_give_faults()) */
	START_VECTOR, /* instead of START_IRQ, on the PCI bus: one for each entry of the MSI-X table
		       */
	START_EPC,    /* /dev/sgx_vepc (to insula-vmm) */
	START_ROLES   /* one more than the last */
};

struct start_head {
	uint32_t version;   /* START_VERSION */
	uint32_t tag;       /* whose message it is: START_TAG_VMM, or of the device's header */
	uint32_t log_level; /* enum log_level */
	uint32_t nslots;
	uint8_t slot[START_MAX_SLOTS]; /* enum start_role of each descriptor; 0 behind the last */
	struct memmap mem;             /* no regions: no business in guest memory */
};
_Static_assert(sizeof(struct start_head) == 16 + START_MAX_SLOTS + sizeof(struct memmap),
	       "wire size");

#define START_TAG(a, b, c, d) \
	((uint32_t)(a) | (uint32_t)(b) << 8 | (uint32_t)(c) << 16 | (uint32_t)(d) << 24)
#define START_TAG_VMM START_TAG('v', 'm', 'm', '1')

/* The descriptors by role. */
struct start_fds {
	unsigned n[START_ROLES];
	int fd[START_ROLES][START_MAX_SLOTS];
};

/* Append one. The roles and the room are the caller's to keep: panics. */
void start_add(struct start_fds *f, enum start_role role, int fd);

/* Is the head one that can be obeyed, and sort the message's descriptors. 0; or -EPROTO for another
 * version or another program's message, -EINVAL for a log level, a role, a number of descriptors or
 * a memory map that cannot be; with a line. The descriptors stay open. */
int start_sort(const struct start_head *h, uint32_t tag, const int *fds, unsigned nfds,
	       struct start_fds *f, struct err *e);

/* 0, or -EINVAL: there are not `n` of this role. */
int start_expect(const struct start_fds *f, enum start_role role, unsigned n, struct err *e);

#endif
