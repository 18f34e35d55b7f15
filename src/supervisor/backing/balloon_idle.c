/* SPDX-License-Identifier: BSD-2-Clause */
/* When an idle guest's page cache goes back to the host. See balloon_idle.h. */
#include "balloon_idle.h"

/* Has the guest worked since the last look? */
static bool worked(struct balloon_idle *i, const struct idle_look *l)
{
	uint64_t ns = l->now_ns - i->at_ns, used = l->cpu_ns - i->cpu_ns;
	bool first = i->at_ns == 0;

	i->at_ns = l->now_ns;
	i->cpu_ns = l->cpu_ns;
	return first || used > ns / 100 * IDLE_BUSY;
}

static enum idle_act to_state(struct balloon_idle *i, enum idle_state s, enum idle_act act)
{
	i->state = s;
	i->calm = 0;
	return act;
}

static enum idle_act watch(struct balloon_idle *i, const struct idle_look *l)
{
	i->calm = worked(i, l) ? 0 : i->calm + 1;
	if (i->calm < l->seconds)
		return IDLE_NOTHING;
	i->count = l->answers;
	i->until_ns = l->now_ns + IDLE_STUCK_NS;
	return to_state(i, IDLE_ASKED, IDLE_ASK);
}

/* Of what could be had the part that the guest keeps. */
static uint64_t reserve(const struct idle_look *l)
{
	uint64_t r = l->mem / IDLE_PART;

	return r > IDLE_RESERVE ? r : IDLE_RESERVE;
}

static enum idle_act decide(struct balloon_idle *i, const struct idle_look *l)
{
	uint64_t keep = reserve(l), room = l->target > keep ? l->target - keep : 0;

	if (l->answers == i->count) /* not yet, or never: it has no such driver */
		return l->now_ns < i->until_ns ? IDLE_NOTHING
					       : to_state(i, IDLE_DONE, IDLE_NOTHING);
	/* Nothing of this can be believed: what comes of it stays within the memory. */
	if (!l->knows || l->available > l->mem || l->free > l->available ||
	    l->available - l->free < IDLE_WORTH || l->available <= keep || l->in > l->mem ||
	    l->available - keep > l->mem - l->in)
		return to_state(i, IDLE_DONE, IDLE_NOTHING);
	/* The balloon may not be as large as its target says, or larger. */
	i->extra = l->in + (l->available - keep);
	i->extra = i->extra > l->mem - l->target ? i->extra - (l->mem - l->target) : 0;
	i->extra = i->extra < room ? i->extra : room;
	if (!i->extra)
		return to_state(i, IDLE_DONE, IDLE_NOTHING);
	i->in = l->in;
	i->moved_ns = l->now_ns;
	i->until_ns = l->now_ns + IDLE_SQUEEZE_NS;
	return to_state(i, IDLE_SQUEEZES, IDLE_RESIZE);
}

static enum idle_act squeeze(struct balloon_idle *i, const struct idle_look *l)
{
	if (l->in > i->in)
		i->moved_ns = l->now_ns;
	i->in = l->in;
	if (l->in < l->mem - l->target + i->extra && l->now_ns < i->until_ns &&
	    l->now_ns - i->moved_ns < IDLE_STUCK_NS)
		return IDLE_ASK;
	i->extra = 0;
	i->until_ns = l->now_ns + IDLE_STUCK_NS;
	return to_state(i, IDLE_RESTS, IDLE_RESIZE);
}

static enum idle_act rest(struct balloon_idle *i, const struct idle_look *l)
{
	(void)worked(i, l);
	return l->now_ns < i->until_ns ? IDLE_NOTHING : to_state(i, IDLE_DONE, IDLE_NOTHING);
}

static enum idle_act done(struct balloon_idle *i, const struct idle_look *l)
{
	return worked(i, l) ? to_state(i, IDLE_WATCHES, IDLE_NOTHING) : IDLE_NOTHING;
}

enum idle_act balloon_idle_turn(struct balloon_idle *i, const struct idle_look *l)
{
	static enum idle_act (*const turn[])(struct balloon_idle *, const struct idle_look *) = {
		[IDLE_WATCHES] = watch, [IDLE_ASKED] = decide, [IDLE_SQUEEZES] = squeeze,
		[IDLE_RESTS] = rest,    [IDLE_DONE] = done,
	};
	enum idle_act act = turn[i->state](i, l);
	bool often = i->state == IDLE_ASKED || i->state == IDLE_SQUEEZES;

	i->next_ns = l->now_ns + (often ? IDLE_SQUEEZE_LOOK_NS : IDLE_LOOK_NS);
	return act;
}
