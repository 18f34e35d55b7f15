/* SPDX-License-Identifier: BSD-2-Clause */
/* What insula-balloon is told: insula/start.h, and this; what it says; and the same while it runs.
 * BALLOON_QUEUES kicks. */
#ifndef DEVICES_BALLOON_START_H
#define DEVICES_BALLOON_START_H

#include <insula/proto.h>

#define BALLOON_START START_TAG('b', 'a', 'l', '1')
#define BALLOON_PAGE 4096u /* whatever the page size of host and guest: virtio 1.2, 5.5.6 */
/* Inflate, deflate, statistics, free page hints (which are not offered), free page reports. */
#define BALLOON_QUEUES 5

enum balloon_flags { BALLOON_REPORT = 1 /* the guest may report free pages */ };

struct msg_start_balloon {
	struct start_head head;
	uint32_t pages; /* that the balloon shall have, of BALLOON_PAGE bytes */
	uint32_t flags; /* enum balloon_flags */
};

/* MSG_BALLOON: the balloon shall have so many pages. It is what the next start message says, too.
 * Answered with MSG_BALLOON_TAKEN. */
struct msg_balloon {
	uint32_t pages;
	uint32_t pad;
};

/* MSG_BALLOON_STATE: the answer to MSG_BALLOON_ASK, when the guest has given new statistics; at once
 * if it gives none. The guest's words: nothing depends on them. */
#define BALLOON_TAGS 16
struct msg_balloon_state {
	uint32_t actual;             /* pages that the driver says it has in the balloon */
	uint32_t has;                /* bit t: stat[t] was given */
	uint64_t count;              /* of the statistics that this helper has got: 0, none yet */
	uint64_t stat[BALLOON_TAGS]; /* by VIRTIO_BALLOON_S_*; bytes where they are of memory */
};
_Static_assert(sizeof(struct msg_balloon) == 8 &&
		       sizeof(struct msg_balloon_state) == 16 + 8 * BALLOON_TAGS,
	       "wire size");

#endif
