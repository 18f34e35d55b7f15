/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The page cache of a guest that does nothing: when it goes back to the host. Arithmetic alone: no
 * clock, no process, no message; balloon.c does what is decided here.
 *
 * Reports give back what is free, and a page cache is not. A balloon takes it: the guest drops clean
 * pages to fill it. So, when the guest's processors have rested for idle=SECONDS, the balloon grows
 * for a moment, by what the guest says could be had less a reserve, and shrinks again: the guest has
 * free memory instead of a cache, and the host has what lay there.
 *
 *   WATCHES   a look every second. Calm looks in a row make it idle, and it asks
 *   ASKED     the guest's statistics are on their way. Is it worth while?
 *   SQUEEZES  the balloon has its extra pages until the driver has filled them, or gets no further
 *   RESTS     what the squeeze itself cost is not the guest's work
 *   DONE      nothing more until the guest has worked
 *
 * A guest that needs memory in the middle takes it (VIRTIO_BALLOON_F_DEFLATE_ON_OOM).
 */
#ifndef SUPERVISOR_BALLOON_IDLE_H
#define SUPERVISOR_BALLOON_IDLE_H

#include <stdbool.h>
#include <stdint.h>

#define IDLE_LOOK_NS 1000000000ull
#define IDLE_SQUEEZE_LOOK_NS 200000000ull
#define IDLE_SQUEEZE_NS 10000000000ull /* a squeeze is over by then */
#define IDLE_STUCK_NS 2000000000ull    /* it gets no further */
#define IDLE_BUSY 5u                   /* percent of one processor: that is work */
#define IDLE_PART 32u                  /* so much of the memory is left: the reserve */
#define IDLE_RESERVE (16ull << 20)     /* and no less */
#define IDLE_WORTH (32ull << 20)       /* bytes of cache that are worth a squeeze */

enum idle_state { IDLE_WATCHES, IDLE_ASKED, IDLE_SQUEEZES, IDLE_RESTS, IDLE_DONE };
enum idle_act {
	IDLE_NOTHING,
	IDLE_ASK,   /* for statistics */
	IDLE_RESIZE /* `extra` has changed */
};

/* All zeros: it has not looked yet. */
struct balloon_idle {
	enum idle_state state;
	uint64_t next_ns; /* of the next look; 0: at once */
	uint64_t cpu_ns, at_ns, until_ns, moved_ns;
	unsigned calm;
	uint64_t count; /* of the statistics that there were */
	uint64_t extra; /* bytes that the balloon has beyond its target's */
	uint64_t in;    /* bytes in the balloon at the last look */
};

struct idle_look {
	uint64_t now_ns, cpu_ns;      /* processor time of the guest until now */
	unsigned seconds;             /* idle=SECONDS */
	uint64_t mem, target;         /* bytes */
	uint64_t answers;             /* how often the guest has told statistics */
	bool knows;                   /* it has told these: */
	uint64_t free, available, in; /* in: bytes in the balloon */
};

/* At i->next_ns, or later: what is to be done now; i->next_ns is the next time. */
enum idle_act balloon_idle_turn(struct balloon_idle *i, const struct idle_look *l);

#endif
