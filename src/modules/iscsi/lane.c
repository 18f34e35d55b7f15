/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A lane's session and its requests: which of them wait and which fly, what is sent again when a
 * session has ended, and what is overdue. See lane.h.
 *
 * A request that has not been answered in `timeout` fails, whether it waits or flies. One that
 * flies takes its session with it: nothing else would keep the target from writing into memory that
 * the guest uses for something else by then.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "known.h"
#include "lane.h"
#include "task.h"

#define NS 1000000000ull
#define MS_NS 1000000ull
#define LOOK_NS (10 * NS) /* an idle lane asks for the capacity */

/* ---- requests ---- */

static void answers(struct iscsi_lane *l)
{
	struct queue ended = {0};
	struct module_req *r;

	while ((r = queue_take(&l->answered))) {
		int res = task_outcome(r);

		if (res == TASK_ENDED)
			queue_put(&ended, r);
		else if (res == TASK_AGAIN || res == TASK_REST)
			queue_put(&l->waiting, r);
		else
			module_done(l->l, r, res);
	}
	queue_land(&l->waiting, &ended);
}

static void fly(struct iscsi_lane *l, struct module_req *r)
{
	int rc;

	queue_put(&l->flying, r);
	rc = task_send(l, r);
	if (!rc)
		return;
	(void)queue_take_out(&l->flying, r);
	module_done(l->l, r, rc);
}

static void fly_all(struct iscsi_lane *l)
{
	if (!l->up || l->s.state != SESSION_UP || !l->waiting.first ||
	    (l->again_ns && module_now() < l->again_ns))
		return;
	l->again_ns = 0;
	while (l->waiting.first)
		fly(l, queue_take(&l->waiting));
	session_serve(&l->s, POLLOUT);
}

/* ---- sessions ---- */

static void fail_waiting(struct iscsi_lane *l)
{
	struct module_req *r;

	while ((r = queue_take(&l->waiting)))
		module_done(l->l, r, -EIO);
}

static void drop(struct iscsi_lane *l, const char *why)
{
	char text[SESSION_WHY];

	snprintf(text, sizeof(text), "%s", why);
	if (l->up)
		module_lost(l->l);
	if (!l->told || l->up)
		module_log("the session has ended%s%s: requests wait for the next one",
			   *text ? ": " : "", text);
	l->told = true;
	l->up = false;
	session_end(&l->s);
	answers(l);
	/* Those that libiscsi dropped without a word. */
	for (struct module_req *r = l->flying.first; r; r = r->next)
		task_drop(r);
	queue_land(&l->waiting, &l->flying);
	module_need(l->l);
}

static void refuse(struct iscsi_lane *l, const char *why)
{
	/* It refuses by being another one: nobody waits for that to pass. */
	module_log("refused: %s", why);
	l->told = true;
	drop(l, "");
	fail_waiting(l);
}

static void arrived(struct iscsi_lane *l)
{
	struct module_disk now;
	const char *why;

	known_from(&l->s.lun, l->d->known.own, &now);
	why = known_changed(&l->d->known, &now);
	if (why) {
		refuse(l, why);
		return;
	}
	l->size = now.size;
	if (!module_resize(l->l, now.size)) {
		refuse(l, "the disk is smaller than before");
		return;
	}
	l->up = true;
	l->no_same = false;
	l->attentions = 0;
	if (l->told)
		module_log("connected again");
	l->told = false;
}

/* A new capacity, while it is up. */
static void resized(struct iscsi_lane *l)
{
	l->size = l->s.lun.size;
	if (!module_resize(l->l, l->size))
		refuse(l, "the disk is smaller than before");
}

void iscsi_lane_connection(void *lane, int fd)
{
	struct iscsi_lane *l = lane;

	if (l->s.state != SESSION_NONE) {
		close(fd);
		return;
	}
	session_begin(&l->s, &l->d->target, (uint32_t)l->d->known.own, (uint16_t)l->index, fd);
	if (l->s.state == SESSION_NONE)
		module_need(l->l);
}

/* ---- what is overdue ---- */

static void expire(struct iscsi_lane *l, uint64_t now)
{
	struct queue keep = {0};
	struct module_req *r;

	while ((r = queue_take(&l->waiting))) {
		if (now - r->born_ns < l->d->timeout_ns)
			queue_put(&keep, r);
		else
			module_done(l->l, r, -ETIMEDOUT);
	}
	l->waiting = keep;
}

static void look(struct iscsi_lane *l)
{
	uint64_t now = module_now(), pace = l->d->timeout_ns / 8;
	bool begins = l->s.state != SESSION_NONE && !l->up;

	if (!l->flying.first && !l->waiting.first && !begins) {
		l->look_ns = 0;
		return;
	}
	if (l->look_ns && now < l->look_ns)
		return;
	if (l->look_ns && begins && now - l->s.began_ns > SESSION_DEADLINE_NS)
		drop(l, "no answer to the login in time");
	if (l->look_ns && queue_has_older(&l->flying, now, l->d->timeout_ns))
		drop(l, "no answer in time");
	if (l->look_ns)
		expire(l, now);
	l->look_ns = now + (pace < NS ? pace : NS);
}

/* A target tells of a new size with the next command: so there is one, now and then. */
static void look_at_idle(struct iscsi_lane *l)
{
	uint64_t now = module_now();

	if (!l->up || l->flying.first)
		l->idle_ns = 0;
	else if (!l->idle_ns)
		l->idle_ns = now + LOOK_NS;
	else if (now >= l->idle_ns && l->s.probe)
		drop(l, "no answer in time");
	else if (now >= l->idle_ns)
		session_look(&l->s);
	if (l->idle_ns && now >= l->idle_ns)
		l->idle_ns = now + LOOK_NS;
}

/* ---- the lane's thread ---- */

void iscsi_lane_submit(void *lane, struct module_req *r)
{
	struct iscsi_lane *l = lane;

	if (l->d->stable && (r->op == MODULE_WRITE || r->op == MODULE_ZEROES))
		r->fua = true;
	queue_put(&l->waiting, r);
	if (l->s.state == SESSION_NONE)
		module_need(l->l);
	fly_all(l);
}

static void sooner(int *timeout, uint64_t at, uint64_t now)
{
	int ms = at > now ? (int)((at - now) / MS_NS + 1) : 0;

	if (*timeout < 0 || ms < *timeout)
		*timeout = ms;
}

unsigned iscsi_lane_poll(void *lane, struct pollfd p[MODULE_MAX_POLL], int *timeout)
{
	struct iscsi_lane *l = lane;
	uint64_t now = module_now();

	look(l);
	look_at_idle(l);
	if (l->look_ns)
		sooner(timeout, l->look_ns, now);
	if (l->idle_ns)
		sooner(timeout, l->idle_ns, now);
	if (l->again_ns && l->waiting.first)
		sooner(timeout, l->again_ns, now);
	if (l->answered.first || l->s.state == SESSION_DEAD)
		*timeout = 0;
	p[0] = (struct pollfd){.fd = session_fd(&l->s), .events = session_events(&l->s)};
	return p[0].fd >= 0;
}

/* Nobody has looked: the guest has had something to do all the time. */
static short look_at_socket(const struct iscsi_lane *l)
{
	struct pollfd p = {.fd = session_fd(&l->s), .events = session_events(&l->s)};

	return p.fd >= 0 && poll(&p, 1, 0) > 0 ? p.revents : 0;
}

void iscsi_lane_ready(void *lane, const struct pollfd *p, unsigned n)
{
	struct iscsi_lane *l = lane;
	short revents = n ? p->revents : 0;

	if (!revents && (!l->up || l->flying.first))
		revents = look_at_socket(l);
	if (revents)
		session_serve(&l->s, revents);
	/* Something came, and was no answer: are there still questions? */
	if ((revents & POLLIN) && l->flying.first && !l->answered.first &&
	    l->s.state == SESSION_UP && !iscsi_queue_length(l->s.ctx))
		session_dead(&l->s, "%s", iscsi_get_error(l->s.ctx));
	answers(l);
	if (l->s.state == SESSION_DEAD)
		drop(l, l->s.why);
	else if (l->s.state == SESSION_UP && !l->up)
		arrived(l);
	else if (l->up && !l->s.probe && l->s.lun.size != l->size)
		resized(l);
	fly_all(l);
}

void iscsi_lane_abort(void *lane)
{
	struct iscsi_lane *l = lane;

	if (!l->up)
		fail_waiting(l);
}

int iscsi_lane_open(void *own, struct module_lane *ml, unsigned index, void **lane, struct err *e)
{
	struct iscsi_disk *d = own;
	struct iscsi_lane *l = calloc(1, sizeof(*l));

	if (!l)
		return err_set(e, -ENOMEM, "out of memory");
	l->d = d;
	l->l = ml;
	l->index = index;
	*lane = l;
	return 0;
}
