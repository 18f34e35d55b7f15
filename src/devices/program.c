/* SPDX-License-Identifier: BSD-2-Clause */
/* main() of a helper. See program.h. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include <insula/base.h>

#include "program.h"

#define MAX_START 4096 /* bytes of a start message */

struct start {
	const struct helper_program *p; /* of the kind that it starts */
	_Alignas(8) uint8_t body[MAX_START];
	struct start_fds fds;
};

/* What a helper of this kind has, besides what its check() knows of. */
static int check_roles(const struct helper_program *p, const struct start_fds *f, struct err *e)
{
	static const enum start_role one[] = {START_PAGE, START_CALL};
	static const enum start_role none[] = {START_HYPERVISOR, START_KERNEL, START_INITRD,
					       START_STATE};
	int rc = start_expect(f, START_ANSWER, word_events(), e);

	for (unsigned i = 0; i < ARRAY_LEN(one) && !rc; i++)
		rc = start_expect(f, one[i], 1, e);
	for (unsigned i = 0; i < ARRAY_LEN(none) && !rc; i++)
		rc = start_expect(f, none[i], 0, e);
	/* On the PCI bus a vector for each queue and one more. How many queues, check() knows. */
	if (!rc)
		rc = start_expect(f, START_IRQ, !f->n[START_VECTOR] && !p->assigned, e);
	if (!rc && f->n[START_VECTOR])
		rc = start_expect(f, START_VECTOR, p->memory ? f->n[START_KICK] + 1 : 0, e);
	if (!rc && f->n[START_FAULTS])
		rc = start_expect(f, START_FAULTS, p->memory, e);
	if (!rc && f->n[START_WATCH])
		rc = start_expect(f, START_WATCH, p->memory && !f->n[START_FAULTS], e);
	if (!rc && (f->n[START_MEMORY] > 0) != p->memory && !p->assigned)
		rc = err_set(e, -EINVAL, "%u descriptors of guest memory; expected %s",
			     f->n[START_MEMORY], p->memory ? "some" : "none");
	return rc;
}

static int read_head(struct start *s, const int *fds, unsigned nfds, struct err *e)
{
	const struct helper_program *p = s->p;
	struct start_head h;
	int rc;

	memcpy(&h, s->body, sizeof(h));
	if (p->other && h.tag == p->other->tag)
		p = s->p = p->other;
	rc = start_sort(&h, p->tag, fds, nfds, &s->fds, e);
	if (rc)
		return rc;
	log_setup("", (enum log_level)h.log_level);
	return check_roles(p, &s->fds, e);
}

/* insula-exec's, which has no head. */
static int read_old(const struct helper_program *p, struct start *s, const int *fds, unsigned nfds,
		    struct err *e)
{
	uint32_t level;

	memcpy(&level, s->body + p->log_level, sizeof(level));
	if (level > LOG_LVL_DEBUG)
		return err_set(e, -EINVAL, "log level %u", level);
	log_setup("", (enum log_level)level);
	for (unsigned i = 0; i < nfds; i++)
		start_add(&s->fds, START_OWN, fds[i]);
	return 0;
}

static int receive_start(const struct helper_program *p, struct start *s, struct err *e)
{
	enum msg_type type, expected = p->loop ? p->start : MSG_START;
	int fds[MSG_MAX_FDS], rc;
	unsigned nfds;
	size_t len;

	if (p->start_size > sizeof(s->body))
		panic("a start message of %zu bytes", p->start_size);
	rc = msg_recv(MSG_CHANNEL_FD, &type, s->body, sizeof(s->body), &len, fds, &nfds);
	if (rc)
		return err_sys(e, rc, "channel");
	if (type != expected || len != p->start_size)
		return err_set(e, -EPROTO, "message %d of %zu bytes; expected %d of %zu", (int)type,
			       len, (int)expected, p->start_size);
	s->p = p;
	rc = p->loop ? read_old(p, s, fds, nfds, e) : read_head(s, fds, nfds, e);
	return rc ? rc : s->p->check(s->body, &s->fds, e);
}

/* NULL, or the step that failed. *program becomes what the message starts. */
static const char *set_up(const struct helper_program **program, struct helper *h, struct err *e)
{
	const struct helper_program *p;
	struct rule_list rules = {.n = 0};
	const char *step = "open";
	struct start s = {0};

	if (receive_start(*program, &s, e))
		return "start";
	p = *program = s.p;
	if (p->open(p->dev, h, s.body, &s.fds, &step, e))
		return step;
	h->port.answer_event = s.fds.n[START_ANSWER] ? s.fds.fd[START_ANSWER][0] : -1;
	if (!p->loop)
		helper_rules(h, &rules);
	p->rules(p->dev, &rules);
	if (jail_seal(rules.rule, rules.n, e))
		return "seccomp";
	if (!p->loop && p->attach(p->dev, h, e))
		return p->attach_step ? p->attach_step : "page";
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
	step = set_up(&p, &helper, &e);
	if (step && step == p->attach_step) {
		msg_fail(MSG_CHANNEL_FD, step, e.code, e.text, 1);
		_exit(1);
	}
	if (step)
		helper_fail(MSG_CHANNEL_FD, step, &e);
	_exit(serve(p, &helper) ? 1 : 0);
}
