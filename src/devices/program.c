/* SPDX-License-Identifier: BSD-2-Clause */
/* main() of a helper. See program.h. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include <insula/base.h>

#include "program.h"

#define MAX_START 1024 /* bytes of a start message */

struct start {
	_Alignas(8) uint8_t body[MAX_START];
	int fds[MSG_MAX_FDS];
	int answer; /* the event of the answer word; -1: the system needs none */
};

/* Take the log level out of the message and set it. */
static int set_log_level(const struct helper_program *p, const struct start *s, struct err *e)
{
	uint32_t level;

	memcpy(&level, s->body + p->log_level, sizeof(level));
	if (level > LOG_LVL_DEBUG)
		return err_set(e, -EINVAL, "log level %u", level);
	log_setup("", (enum log_level)level);
	return 0;
}

static int receive(const struct helper_program *p, struct start *s, struct err *e)
{
	enum msg_type type;
	unsigned nfds;
	size_t len;
	unsigned own = p->loop ? 0 : word_events();
	int rc;

	if (p->start_size > sizeof(s->body))
		panic("a start message of %zu bytes", p->start_size);
	rc = msg_recv(MSG_CHANNEL_FD, &type, s->body, sizeof(s->body), &len, s->fds, &nfds);
	if (rc)
		return err_sys(e, rc, "channel");
	if (type != p->start || len != p->start_size)
		return err_set(e, -EPROTO, "message %d of %zu bytes", (int)type, len);
	rc = set_log_level(p, s, e);
	if (!rc)
		rc = p->check(s->body, e);
	if (rc < 0)
		return rc;
	if (nfds != (unsigned)rc + own)
		return err_set(e, -EPROTO, "%u descriptors, expected %u", nfds, (unsigned)rc + own);
	s->answer = own ? s->fds[--nfds] : -1;
	for (; nfds < MSG_MAX_FDS; nfds++)
		s->fds[nfds] = -1;
	return 0;
}

/* NULL, or the step that failed. */
static const char *set_up(const struct helper_program *p, struct helper *h, struct err *e)
{
	struct rule_list rules = {.n = 0};
	const char *step = "open";
	struct start s = {0};

	if (receive(p, &s, e))
		return "start";
	if (p->open(p->dev, h, s.body, s.fds, &step, e))
		return step;
	h->port.answer_event = s.answer;
	if (!p->loop)
		helper_rules(h, &rules);
	p->rules(p->dev, &rules);
	if (jail_seal(rules.rule, rules.n, e))
		return "seccomp";
	if (!p->loop && p->attach(p->dev, h, e))
		return "page";
	return NULL;
}

static int serve(const struct helper_program *p, struct helper *h)
{
	int rc;

	if (!p->loop)
		return helper_loop(h, MSG_CHANNEL_FD);
	rc = msg_send(MSG_CHANNEL_FD, MSG_READY, NULL, 0, NULL, 0);
	return rc ? rc : p->loop(p->dev);
}

void helper_main(const struct helper_program *p)
{
	static struct helper helper;
	struct err e = {0};
	const char *step;

	jail_enter();
	helper_signals();
	step = set_up(p, &helper, &e);
	if (step)
		helper_fail(MSG_CHANNEL_FD, step, &e);
	_exit(serve(p, &helper) ? 1 : 0);
}
