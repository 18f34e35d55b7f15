/* SPDX-License-Identifier: BSD-2-Clause */
/* The control thread of a helper. See helper.h. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/stats.h>

#include "helper.h"

/* How many of them are there was checked with the roles. */
static void take_irqs(struct helper *h, const struct start_fds *f)
{
	enum start_role role = f->n[START_VECTOR] ? START_VECTOR : START_IRQ;

	if (f->n[role] > DEVICE_MAX_VECTORS)
		panic("%u interrupts", f->n[role]);
	h->msix = role == START_VECTOR;
	h->nirqs = f->n[role];
	memcpy(h->irq_fd, f->fd[role], h->nirqs * sizeof(*h->irq_fd));
}

int helper_open(struct helper *h, const struct start_fds *f, uint32_t tag, struct err *e)
{
	int rc;

	memset(h, 0, sizeof(*h));
	h->page_fd = f->fd[START_PAGE][0];
	h->call_fd = f->fd[START_CALL][0];
	take_irqs(h, f);
	h->event_fd = event_create();
	h->channel = h->wait_fd = -1;
	h->spin = several_cpus();
	if (h->event_fd < 0) {
		rc = err_sys(e, h->event_fd, "eventfd");
		goto out_close;
	}
	rc = shm_map(h->page_fd, DP_SIZE, 0, DP_SIZE, true, &h->page, e);
	if (rc)
		goto out_close;
	fd_close(&h->page_fd);
	rc = port_open(&h->port, h->page, tag, e);
	if (rc)
		goto out_close;
	return 0;
out_close:
	helper_close(h);
	return rc;
}

void helper_close(struct helper *h)
{
	if (h->page)
		shm_unmap(h->page, DP_SIZE);
	h->page = NULL;
	fd_close(&h->page_fd);
	fd_close(&h->call_fd);
	for (unsigned i = 0; i < h->nirqs; i++)
		fd_close(&h->irq_fd[i]);
	fd_close(&h->event_fd);
}

/* The last act before MSG_READY: once the core hears that the helper is back it may call, and a
 * call that an earlier helper left pending must be out of the slot by then. That call may be a
 * reset, and the guest may have gone on without it (devpage.h: its deadline): requests of before
 * are then in memory that the guest uses for something else. So nothing that the earlier helper had
 * in flight is touched before the call is executed.
 *
 * Until it is answered the core may lose accesses, so they are looked for once more behind it. */
int helper_attach(struct helper *h, const struct helper_ops *ops, void *dev, struct err *e)
{
	int rc;

	h->ops = ops;
	h->dev = dev;
	port_attach(&h->port, &ops->regs, dev);
	rc = port_run(&h->port);
	if (rc >= 0)
		rc = port_run(&h->port);
	if (rc < 0)
		return err_set(e, rc,
			       "device page: what the core left there is not a valid access");
	if (ops->resume)
		ops->resume(dev);
	return 0;
}

void helper_irq(struct helper *h, unsigned vector)
{
	h->irqs++;
	event_signal(h->irq_fd[vector]);
}

static int helper_say(struct helper *h, enum msg_type type, struct msg_stats *s)
{
	s->n[STAT_CALLS] = h->port.calls;
	s->n[STAT_POSTED] = h->port.posted;
	s->n[STAT_IRQS] += h->irqs;
	s->n[STAT_WAKEUPS] = h->wakeups;
	return msg_send(h->channel, type, s, sizeof(*s), NULL, 0);
}

static int helper_count(struct helper *h)
{
	struct msg_stats s = {0};

	if (h->ops->count)
		h->ops->count(h->dev, &s);
	return helper_say(h, MSG_COUNTED, &s);
}

/* ---- a snapshot is made ---- */

/* What the guest wrote last may still be in the ring: it is part of the page. */
static int helper_rest(struct helper *h, const void *body)
{
	int rc = port_run(&h->port);

	if (rc < 0)
		return rc;
	if (!h->quiet && h->ops->quiet) {
		memcpy(&h->quiet_order, body, sizeof(h->quiet_order));
		h->quiet = true;
		h->ops->quiet(h->dev);
	}
	return 0;
}

static void helper_go_on(struct helper *h)
{
	if (!h->quiet)
		return;
	h->quiet = false;
	h->ops->go_on(h->dev);
}

void helper_is_quiet(struct helper *h)
{
	/* If it cannot be said, the supervisor is gone, and the loop sees that. */
	(void)msg_send(h->channel, MSG_IS_QUIET, &h->quiet_order, sizeof(h->quiet_order), NULL, 0);
}

static int helper_stop(struct helper *h)
{
	struct msg_stats s = {0};
	/* What the guest wrote last may still be in the ring. */
	int rc = port_run(&h->port);

	if (rc < 0)
		return rc;
	h->stops = true;
	helper_go_on(h);
	h->ops->stop(h->dev, &s);
	rc = helper_say(h, MSG_STOPPED, &s);
	return rc ? rc : 1;
}

/* 1: stopped; 0: carry on. */
static int take_message(struct helper *h)
{
	int fds[MSG_MAX_FDS];
	_Alignas(8) uint8_t body[MSG_MAX_BODY];
	enum msg_type type;
	unsigned nfds;
	size_t len;
	int rc = msg_recv(h->channel, &type, body, sizeof(body), &len, fds, &nfds);

	if (rc)
		return rc;
	if (len == 0 && nfds == 0 && type == MSG_GO)
		return 0;
	if (len == 0 && nfds == 0 && type == MSG_STOP)
		return helper_stop(h);
	if (len == 0 && nfds == 0 && type == MSG_COUNT)
		return helper_count(h);
	if (len == sizeof(struct msg_quiet) && nfds == 0 && type == MSG_QUIET)
		return helper_rest(h, body);
	if (len == 0 && nfds == 0 && type == MSG_RESUME) {
		helper_go_on(h);
		return 0;
	}
	rc = h->ops->message ? h->ops->message(h->dev, type, body, len, fds, nfds) : -EPROTO;
	if (rc)
		log_error("unexpected message %d on the channel", (int)type);
	return rc;
}

/* Wait for the core, the supervisor or the device's own threads. */
static int wait_events(struct helper *h, int timeout)
{
	const int event[] = {h->call_fd, h->event_fd};
	uint64_t got = events_wait(event, ARRAY_LEN(event), h->wait_fd, timeout);

	if (got & 2)
		h->ops->event(h->dev);
	if (!(got & EVENTS_CHANNEL) || (h->ops->woken && !h->ops->woken(h->dev)))
		return 0;
	return take_message(h);
}

static int sleep_until_event(struct helper *h)
{
	int rc;

	if (h->ops->idle)
		h->ops->idle(h->dev);
	if (!port_may_sleep(&h->port))
		return 0;
	rc = wait_events(h, -1);
	port_awake(&h->port);
	h->wakeups++;
	return rc;
}

int helper_loop(struct helper *h, int channel)
{
	uint64_t active, polled, now;
	int rc;

	h->channel = channel;
	if (h->wait_fd < 0)
		h->wait_fd = channel;
	rc = msg_send(channel, MSG_READY, NULL, 0, NULL, 0);
	active = polled = clock_ns();
	while (!rc) {
		int n = port_run(&h->port);

		if (n < 0) {
			log_error("the core broke the device page protocol");
			return n;
		}
		now = clock_ns();
		if (n > 0)
			active = now;
		if (now - polled > HELPER_BUSY_NS) {
			polled = now;
			rc = wait_events(h, 0);
		} else if (n == 0 && (!h->spin || now - active > HELPER_SPIN_NS)) {
			rc = sleep_until_event(h);
			active = polled = clock_ns();
		} else if (n == 0) {
			__builtin_ia32_pause();
		}
	}
	return rc > 0 ? 0 : rc;
}

/* ---- the jail's list ---- */

void rule_arg(struct rule_list *l, int nr, struct jail_arg a, struct jail_arg b, const char *why)
{
	if (l->n >= ARRAY_LEN(l->rule))
		panic("more than %zu jail rules", ARRAY_LEN(l->rule));
	l->rule[l->n++] = (struct jail_rule){.nr = nr, .why = why, .arg = {a, b}};
}

void rule_any(struct rule_list *l, int nr, const char *why)
{
	rule_arg(l, nr, (struct jail_arg){0}, (struct jail_arg){0}, why);
}

void rule_fd(struct rule_list *l, int nr, int fd, const char *why)
{
	rule_arg(l, nr,
		 (struct jail_arg){.index = 0, .cmp = JAIL_EQ, .value = (uint64_t)(unsigned)fd},
		 (struct jail_arg){0}, why);
}

/* ---- start ---- */

void helper_fail(int channel, const char *step, const struct err *e)
{
	msg_fail(channel, step, e->code, e->text, 0);
	_exit(1);
}
