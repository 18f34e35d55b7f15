/* SPDX-License-Identifier: BSD-2-Clause */
/* The host's wishes for a balloon. See balloon.h. */
#include <errno.h>
#include <string.h>

#include <insula/base.h>
#include <insula/log.h>

#include "balloon.h"
#include "spec/json.h"
#include "supervisor/control/usage.h"
#include "supervisor/device/device.h"
#include "supervisor/vm.h"

#define SECOND_NS 1000000000ull
enum { TAG_FREE = 4, TAG_AVAILABLE = 6 }; /* virtio 1.2, 5.5.6.4 */

void balloon_init(struct balloon_back *b, const struct vm_config *conf)
{
	memset(b, 0, sizeof(*b));
	b->conf = conf;
	b->target = conf->balloon.target ? conf->balloon.target : conf->mem;
}

uint32_t balloon_pages(const struct balloon_back *b)
{
	uint64_t bytes = b->conf->mem - b->target + b->idle.extra;

	return (uint32_t)((bytes < b->conf->mem ? bytes : b->conf->mem) / BALLOON_PAGE);
}

/* One message at a time, and one question: a helper that does not listen must not find its channel
 * full. What has changed meanwhile is told when it has taken the last one; without a helper the
 * next one is told at its start. */
static void tell(struct device *d)
{
	struct balloon_back *b = d->back.balloon;
	const struct msg_balloon m = {.pages = balloon_pages(b)};

	if (d->child.state != CHILD_READY || b->telling || m.pages == b->sent)
		return;
	b->telling = !child_send(&d->child, MSG_BALLOON, &m, sizeof(m), NULL, 0);
	if (b->telling)
		b->sent = m.pages;
}

bool balloon_taken(struct device *d, size_t len)
{
	struct balloon_back *b = d->back.balloon;

	if (!b->telling || len)
		return false;
	b->telling = false;
	tell(d);
	return true;
}

int balloon_set(struct device *d, uint64_t target, struct err *e)
{
	struct balloon_back *b = d->back.balloon;
	char least[24], most[24];

	if (target < CONFIG_MIN_TARGET || target > b->conf->mem)
		return err_set(e, -ERANGE,
			       "target: %llu bytes; expected %s to %s, the guest's memory",
			       (unsigned long long)target, size_text(CONFIG_MIN_TARGET, least),
			       size_text(b->conf->mem, most));
	b->target = target;
	b->idle = (struct balloon_idle){0}; /* what it was about to do was for another size */
	tell(d);
	return 0;
}

bool balloon_ask(struct device *d)
{
	struct balloon_back *b = d->back.balloon;

	if (d->child.state != CHILD_READY)
		return false;
	if (!b->asked)
		b->asked = !child_send(&d->child, MSG_BALLOON_ASK, NULL, 0, NULL, 0);
	return b->asked;
}

bool balloon_said(struct device *d, const void *body, size_t len)
{
	struct balloon_back *b = d->back.balloon;

	if (!b->asked || len != sizeof(b->said))
		return false;
	b->asked = false;
	memcpy(&b->said, body, sizeof(b->said));
	/* A helper's count begins with it. */
	b->answers += b->said.count != 0;
	b->said_ns = clock_ns();
	return true;
}

void balloon_serves(struct device *d, struct loop *l, bool serves)
{
	(void)l;
	d->back.balloon->asked = d->back.balloon->telling = false;
	if (serves)
		tell(d); /* what came since its start message */
}

uint64_t balloon_due(const struct device *d)
{
	const struct balloon_back *b = d->back.balloon;
	const struct balloon_config *c = &b->conf->balloon;
	uint64_t next = 0;

	if (d->child.state != CHILD_READY || !vm_is_running(d->vm))
		return 0;
	if (c->stats)
		next = b->next_ns ? b->next_ns : LOOP_NOW;
	if (c->idle)
		next = loop_sooner(next, b->idle.next_ns ? b->idle.next_ns : LOOP_NOW);
	return next;
}

static void look_at_idle(struct device *d, uint64_t now)
{
	struct balloon_back *b = d->back.balloon;
	struct usage u = {0};
	uint64_t added = d->vm->added.plugged; /* what is free is free of that, too */
	struct idle_look l = {
		.now_ns = now,
		.seconds = b->conf->balloon.idle,
		.mem = b->conf->mem + added,
		.target = b->target + added,
		.answers = b->answers,
		.knows = (b->said.has >> TAG_FREE & b->said.has >> TAG_AVAILABLE & 1) != 0,
		.free = b->said.stat[TAG_FREE],
		.available = b->said.stat[TAG_AVAILABLE],
		.in = (uint64_t)b->said.actual * BALLOON_PAGE,
	};
	enum idle_act act;

	usage_add(&u, &d->vm->vmm);
	l.cpu_ns = u.cpu_ns;
	act = balloon_idle_turn(&b->idle, &l);
	if (act == IDLE_RESIZE) {
		log_debug("%s: %llu MiB more for a moment: the guest is idle", d->desc.name,
			  (unsigned long long)(b->idle.extra >> 20));
		tell(d);
	}
	if (act != IDLE_NOTHING)
		(void)balloon_ask(d);
}

void balloon_tend(struct device *d)
{
	struct balloon_back *b = d->back.balloon;
	const struct balloon_config *c = &b->conf->balloon;
	uint64_t now = clock_ns();

	if (c->stats && b->next_ns <= now) {
		b->next_ns = now + c->stats * SECOND_NS;
		(void)balloon_ask(d);
	}
	if (c->idle && b->idle.next_ns <= now)
		look_at_idle(d, now);
}

/* ---- for people and programs ---- */

/* virtio 1.2, 5.5.6.4, and what Linux 6.12 added. */
static const char *const balloon_stats_names[BALLOON_TAGS] = {
	"swap_in_bytes",  "swap_out_bytes",   "major_faults",    "minor_faults",
	"free_bytes",     "total_bytes",      "available_bytes", "cache_bytes",
	"hugetlb_allocs", "hugetlb_failures", "oom_kills",       "alloc_stalls",
	"async_scans",    "direct_scans",     "async_reclaims",  "direct_reclaims",
};

static int64_t shown(uint64_t v)
{
	return v > INT64_MAX ? INT64_MAX : (int64_t)v;
}

json_object *balloon_json(const struct device *d)
{
	const struct balloon_back *b = d->back.balloon;
	json_object *o = json_object_new_object(), *stats = json_object_new_object();
	uint64_t out = (uint64_t)b->said.actual * BALLOON_PAGE, mem = b->conf->mem;

	j_int(o, "target", shown(b->target));
	j_int(o, "actual", shown(out < mem ? mem - out : 0));
	if (b->said_ns)
		j_int(o, "age_ms", shown((clock_ns() - b->said_ns) / 1000000));
	for (unsigned i = 0; i < BALLOON_TAGS; i++) {
		if (b->said.has >> i & 1)
			j_int(stats, balloon_stats_names[i], shown(b->said.stat[i]));
	}
	j_obj(o, "stats", stats);
	return o;
}
