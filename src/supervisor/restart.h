/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * When the process of a device that has died is replaced, and when the guest is told that there is
 * none. Arithmetic alone: no clock, no process, no device; recover.h does what is decided here.
 *
 * Nothing is given up for good: a program that cannot be started, a host without memory, a state of
 * the page at which the process dies may all be other ones after an upgrade, a while, a reset by
 * the guest. The first death is answered at once. Each further one of a row is answered after a
 * pause twice as long as the one before, 10 ms to 5 s. A process that was ready for RESTART_GOOD_NS
 * ends the row. After RESTART_TELL deaths in a row the device has failed: the guest is told, and it
 * is tried on at the longest pause.
 */
#ifndef SUPERVISOR_RESTART_H
#define SUPERVISOR_RESTART_H

#include <stdbool.h>
#include <stdint.h>

#define RESTART_FIRST_NS 10000000ull     /* the pause before the second of a row */
#define RESTART_LONGEST_NS 5000000000ull /* between two tries */
#define RESTART_GOOD_NS 1000000000ull    /* ready for so long: it is good */
#define RESTART_READY_NS 10000000000ull  /* a new process is jailed and ready by then */
#define RESTART_STUCK_NS 2000000000ull   /* the core has waited so long: DP_DEADLINE_NS */
#define RESTART_TELL 10u                 /* deaths in a row until the guest is told */
#define RESTART_LOOK_NS 1000000ull       /* the first pause between two looks: restart_not_yet() */
#define RESTART_LOOKS_NS 1000000000ull   /* the longest */

enum restart_state {
	RESTART_RUNS,    /* also before it has ever started */
	RESTART_STARTS,  /* a new process is on its way */
	RESTART_WAITS,   /* there is none; the next try is due at next_ns */
	RESTART_STOPPED, /* the VM ends: there is no other try */
};

/* All zeros: never died. Times are the caller's clock, in nanoseconds. */
struct restart {
	enum restart_state state;
	unsigned total; /* deaths ever */
	unsigned row;   /* of them since it was last good */
	bool stuck;     /* the core gave up on this process */
	bool failed;    /* the guest was told, and no process has been ready since */
	uint64_t since_ns, next_ns, look_ns;
};

/* Its process is ready. True: it had failed. */
bool restart_ready(struct restart *r, uint64_t now);
/* The process that runs does not answer, and is about to be killed: of its time, the time that it
 * was waited for does not count as good. */
void restart_stuck(struct restart *r);
/* The process has died, or could not be started. True: with this one the device has failed. */
bool restart_died(struct restart *r, uint64_t now);
/* Is it time to start another? */
bool restart_due(const struct restart *r, uint64_t now);
/* Not yet: what belonged to the dead process is still under way. Look again, each time after twice
 * the pause. */
void restart_not_yet(struct restart *r, uint64_t now);
/* Another process was made. */
void restart_started(struct restart *r, uint64_t now);
/* It was made too long ago, and is not ready. */
bool restart_overdue(const struct restart *r, uint64_t now);
/* Somebody asks for another try: now, and with the patience of a first one. */
void restart_by_hand(struct restart *r, uint64_t now);
void restart_stop(struct restart *r);
/* When restart_due() or restart_overdue() becomes true; 0: not by itself. */
uint64_t restart_next(const struct restart *r);
/* "ok", "restarting", "failed". */
const char *restart_name(const struct restart *r);

#endif
