/* SPDX-License-Identifier: BSD-2-Clause */
/* Children: what is the same on every system. See child.h. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <insula/base.h>
#include <insula/log.h>

#include "child.h"

#define SECOND_NS 1000000000ull

void child_own(struct child *c, struct loop *loop, const struct child_ops *ops, void *ctx)
{
	c->loop = loop;
	c->ops = ops;
	c->ctx = ctx;
}

void child_name(struct child *c, const char *program, const char *device)
{
	*c = (struct child){.program = program, .loop = c->loop, .ops = c->ops, .ctx = c->ctx};
	snprintf(c->name, sizeof(c->name), "%s%s%s", program, *device ? " " : "", device);
}

/* ---- log ---- */

/* It goes by its time, not by what it writes. */
static bool child_may_print(struct child *c)
{
	struct child_log *l = &c->log;
	uint64_t now = clock_ns();

	if (now - l->window_ns > SECOND_NS) {
		if (l->dropped)
			log_warn("%s: %u log lines dropped", c->name, l->dropped);
		l->window_ns = now;
		l->lines = l->dropped = 0;
	}
	if (++l->lines <= CHILD_LINES)
		return true;
	l->dropped++;
	return false;
}

/* What went wrong is at the end of a line, which may have come in pieces. */
static void keep_last(struct child *c, const char *line, int n)
{
	char joined[sizeof(c->last) + CHILD_LINE];
	const int most = (int)sizeof(c->last) - 1;
	bool whole;

	if (c->log.goes_on) {
		n = snprintf(joined, sizeof(joined), "%s%.*s", c->last, n, line);
		line = joined;
	}
	whole = n <= most;
	snprintf(c->last, sizeof(c->last), "%s%.*s", whole ? "" : "...", whole ? n : most - 3,
		 whole ? line : line + n - (most - 3));
}

/* A jailed process may be an enemy: no control characters on our terminal, no flood. */
static void child_print(struct child *c)
{
	struct child_log *l = &c->log;
	int n = (int)l->nline;

	for (size_t i = 0; i < l->nline; i++) {
		unsigned char ch = (unsigned char)l->line[i];

		if ((ch < 0x20 && ch != '\t') || ch >= 0x7f)
			l->line[i] = '?';
	}
	l->nline = 0;
	if (c->talkative)
		keep_last(c, l->line, n);
	if (c->talkative && log_most() < LOG_LVL_INFO)
		return;
	if (child_may_print(c))
		log_line("%s: %.*s", c->name, n, l->line);
}

void child_log_add(struct child *c, const char *text, size_t len)
{
	struct child_log *l = &c->log;

	for (size_t i = 0; i < len; i++) {
		if (text[i] == '\n' || l->nline == sizeof(l->line)) {
			child_print(c);
			l->goes_on = text[i] != '\n';
		}
		if (text[i] != '\n')
			l->line[l->nline++] = text[i];
	}
}

void child_log_finish(struct child *c)
{
	if (c->log.nline)
		child_print(c);
}

/* ---- messages ---- */

bool child_stop(struct child *c)
{
	if (c->state == CHILD_READY)
		c->state = child_send(c, MSG_STOP, NULL, 0, NULL, 0) ? CHILD_DONE : CHILD_STOPPING;
	return c->state == CHILD_STOPPING;
}

static void child_deafen(struct child *c)
{
	c->deaf = true;
	child_os_deaf(c);
}

static void child_silence(struct child *c)
{
	child_deafen(c);
	child_shoot(c);
}

/* Believe the system, not the child. */
static void child_is_ready(struct child *c)
{
	struct msg_failed f = {.step = CHILD_UNFIT};
	struct err e;
	int rc = child_os_verify(c, &e);

	if (rc == -ESRCH)
		return; /* it has died meanwhile, which will be seen */
	if (!rc) {
		c->state = CHILD_READY;
		c->ops->ready(c->ctx);
		return;
	}
	snprintf(f.text, sizeof(f.text), "%s", e.text);
	(void)c->ops->failed(c->ctx, &f);
	child_silence(c);
}

/* Once is enough: it has nothing more to say, and ends by itself or when its time is over. */
static bool child_has_failed(struct child *c, struct msg_failed *f)
{
	f->step[sizeof(f->step) - 1] = 0;
	f->text[sizeof(f->text) - 1] = 0;
	if (!c->ops->failed(c->ctx, f))
		return false;
	child_deafen(c);
	return true;
}

static bool child_faults(struct child *c, const struct msg_faults *m)
{
	int fd = child_os_came(c);

	return fd >= 0 && c->ops->faults && c->ops->faults(c->ctx, m, fd);
}

static bool child_says(struct child *c, enum msg_type t, void *body, size_t len)
{
	if (t == MSG_READY && len == 0 && c->state == CHILD_STARTING)
		child_is_ready(c);
	else if (t == MSG_FAILED && len == sizeof(struct msg_failed))
		return child_has_failed(c, body);
	else if (t == MSG_FAULTS && len == sizeof(struct msg_faults) && c->state == CHILD_STARTING)
		return child_faults(c, body);
	else
		return c->state != CHILD_STARTING && c->ops->message(c->ctx, t, body, len);
	return true;
}

/* False: there is nothing more to hear. */
static bool child_next_message(struct child *c)
{
	_Alignas(8) uint8_t body[MSG_MAX_BODY];
	enum msg_type t;
	size_t len;
	int rc = child_os_receive(c, &t, body, sizeof(body), &len);

	if (rc == -EAGAIN)
		return false;
	if (rc == -EPIPE) {
		child_silence(c); /* it is of no use any more */
	} else if (rc || !child_says(c, t, body, len)) {
		log_error("%s: broke the protocol", c->name);
		child_silence(c);
	}
	return !c->deaf;
}

void child_hear(struct child *c)
{
	if (!c->deaf)
		(void)child_next_message(c);
}

/* What it said before it died comes first; its channel holds a bounded number of messages. */
void child_died(struct child *c)
{
	struct child_end end = {.status = -1};

	while (!c->deaf && child_next_message(c))
		;
	end.before = c->state;
	child_os_reap(c, &end);
	c->ops->gone(c->ctx, &end);
}

/* ---- end ---- */

/* A process that waits for a dead disk in the kernel does not die. It holds nothing of ours but its
 * own descriptors. */
void child_kill(struct child *c)
{
	struct child_end end;

	if (c->state == CHILD_NONE)
		return;
	child_shoot(c);
	if (child_os_wait(c)) {
		child_os_reap(c, &end);
	} else {
		log_warn("%s: does not end, it is left behind", c->name);
		child_os_close(c);
	}
}

void child_free(struct child *c)
{
	child_kill(c);
	child_os_free(c);
}
