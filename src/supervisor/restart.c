/* SPDX-License-Identifier: BSD-2-Clause */
/* Restarts of a device's process. See restart.h. */
#include "restart.h"

bool restart_ready(struct restart *r, uint64_t now)
{
	bool failed = r->failed;

	r->state = RESTART_RUNS;
	r->since_ns = now;
	r->stuck = r->failed = false;
	return failed;
}

void restart_stuck(struct restart *r)
{
	r->stuck = true;
}

static bool was_good(const struct restart *r, uint64_t now)
{
	uint64_t least = RESTART_GOOD_NS + (r->stuck ? RESTART_STUCK_NS : 0);

	return r->state == RESTART_RUNS && now - r->since_ns >= least;
}

static uint64_t pause_of(unsigned row)
{
	uint64_t ns = RESTART_FIRST_NS;

	if (row < 2)
		return 0;
	for (unsigned i = 2; i < row && ns < RESTART_LONGEST_NS; i++)
		ns *= 2;
	return ns < RESTART_LONGEST_NS ? ns : RESTART_LONGEST_NS;
}

bool restart_died(struct restart *r, uint64_t now)
{
	bool failed = r->failed;

	if (was_good(r, now))
		r->row = 0;
	r->total++;
	r->row += r->row <= RESTART_TELL; /* by then the pause is the longest */
	r->stuck = false;
	r->failed |= r->row >= RESTART_TELL;
	r->look_ns = 0;
	r->next_ns = now + pause_of(r->row);
	r->state = RESTART_WAITS;
	return r->failed && !failed;
}

bool restart_due(const struct restart *r, uint64_t now)
{
	return r->state == RESTART_WAITS && now >= r->next_ns;
}

void restart_not_yet(struct restart *r, uint64_t now)
{
	uint64_t ns = r->look_ns ? 2 * r->look_ns : RESTART_LOOK_NS;

	r->look_ns = ns < RESTART_LOOKS_NS ? ns : RESTART_LOOKS_NS;
	r->next_ns = now + r->look_ns;
}

void restart_started(struct restart *r, uint64_t now)
{
	r->state = RESTART_STARTS;
	r->look_ns = 0;
	r->next_ns = now + RESTART_READY_NS;
}

bool restart_overdue(const struct restart *r, uint64_t now)
{
	return r->state == RESTART_STARTS && now >= r->next_ns;
}

void restart_by_hand(struct restart *r, uint64_t now)
{
	r->row = 0;
	if (r->state == RESTART_WAITS)
		r->next_ns = now;
}

void restart_stop(struct restart *r)
{
	r->state = RESTART_STOPPED;
}

uint64_t restart_next(const struct restart *r)
{
	return r->state == RESTART_WAITS || r->state == RESTART_STARTS ? r->next_ns : 0;
}

const char *restart_name(const struct restart *r)
{
	if (r->failed)
		return "failed";
	return r->state == RESTART_RUNS ? "ok" : "restarting";
}
