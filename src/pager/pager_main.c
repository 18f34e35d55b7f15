/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * insula-pager. See insula/pager.h for what it talks, ram.h for what it does. Its stages are in
 * devices/program.h: the jail is closed before the first byte of a snapshot is read.
 */
#include <errno.h>
#include <stddef.h>

#include <insula/base.h>

#include "pager.h"

#define SYNC_MAX 4

static int pager_check(const void *start, const struct start_fds *f, struct err *e)
{
	const struct msg_start_pager *m = start;

	unsigned order = m->flags & PAGER_ORDER ? 1 : 0;

	if (m->job < PAGER_SAVE || m->job > PAGER_SERVE)
		return err_set(e, -EINVAL, "job %u", m->job);
	if ((m->flags & ~(uint32_t)(PAGER_ORDER | PAGER_LIVE)) ||
	    (order && m->job != PAGER_SERVE) || (m->flags & PAGER_LIVE && m->job != PAGER_SAVE))
		return err_set(e, -EINVAL, "flags %#x", m->flags);
	if (f->n[START_OWN] < 2 + order || f->n[START_OWN] > 1 + RAM_CHAIN + order)
		return err_set(e, -EINVAL, "%u descriptors", f->n[START_OWN]);
	return 0;
}

static int pager_open(void *dev, struct helper *h, const void *start, const struct start_fds *f,
		      const char **step, struct err *e)
{
	const struct msg_start_pager *m = start;
	const int *fds = f->fd[START_OWN];
	bool order = m->flags & PAGER_ORDER;
	unsigned n = f->n[START_OWN];
	struct pager *p = dev;
	int rc;

	(void)h;
	*step = "memory";
	p->job = m->job;
	p->flags = m->flags;
	rc = ram_open(&p->ram, fds[0], m->size, fds + 1, n - 1 - order, e);
	return rc ? rc : pager_faults_open(p, order ? fds[n - 1] : -1, e);
}

static int pager_done(const struct pager *p)
{
	struct msg_pager_done m = {p->ram.pages};

	return msg_send(MSG_CHANNEL_FD, MSG_PAGER_DONE, &m, sizeof(m), NULL, 0);
}

/* Of a snapshot that is read the files are to blame; one that is written is this host's. */
static int pager_refuse(const struct pager *p, const char *step, const struct err *e)
{
	msg_fail(MSG_CHANNEL_FD, step, e->code, e->text,
		 p->job == PAGER_LOAD || e->code == -EPROTO);
	return e->code;
}

static const char *const step_of[] = {
	[PAGER_SAVE] = "save", [PAGER_LOAD] = "restore", [PAGER_SERVE] = "restore"};

static int pager_work(struct pager *p, struct err *e)
{
	return p->job == PAGER_SAVE   ? ram_save(&p->ram, e)
	       : p->job == PAGER_LOAD ? ram_load(&p->ram, e)
				      : ram_check(&p->ram, e);
}

static int pager_worked(struct pager *p)
{
	pager_let_go(p);
	return pager_done(p);
}

static int pager_go(struct pager *p)
{
	struct err e;
	bool live = p->flags & PAGER_LIVE;
	int rc = p->done ? err_set(&e, -EPROTO, "once is enough")
		 : live  ? pager_freeze(p, &e)
			 : pager_work(p, &e);

	p->done = true;
	if (!rc && p->job == PAGER_SERVE)
		pager_serve(p);
	return rc ? pager_refuse(p, step_of[p->job], &e) : live ? 0 : pager_worked(p);
}

static int pager_sync(struct pager *p, const int *fds, unsigned n)
{
	struct err e;
	int rc = 0;

	for (unsigned i = 0; i < n; i++) {
		int one = fds[i], failed = rc ? 0 : file_sync(one);

		if (failed)
			rc = err_sys(&e, failed, "what was written cannot be made to last");
		fd_close(&one);
	}
	return rc ? pager_refuse(p, "sync", &e) : pager_done(p);
}

static int take_faults(struct pager *p, const struct msg_faults *m, int fd)
{
	struct err e;
	int rc = pager_faults(p, m, fd, &e);

	return rc ? pager_refuse(p, "faults", &e) : 0;
}

/* 0; or it is over, in order if the channel has ended. */
static int pager_hear(struct pager *p)
{
	union {
		struct msg_faults faults;
		char bytes[32];
	} b;
	int fds[MSG_MAX_FDS], rc;
	bool serves = p->job == PAGER_SERVE && p->done;
	bool adds = serves || (p->flags & PAGER_LIVE && !p->done);
	enum msg_type type;
	unsigned nfds;
	size_t len;

	rc = msg_recv(MSG_CHANNEL_FD, &type, &b, sizeof(b), &len, fds, &nfds);
	if (rc)
		return rc;
	if (type == MSG_PAGER_GO && !len && !nfds)
		return pager_go(p);
	if (type == MSG_PAGER_SYNC && !len && nfds >= 1 && nfds <= SYNC_MAX)
		return pager_sync(p, fds, nfds);
	if (type == MSG_PAGER_FAULTS && len == sizeof(b.faults) && nfds == 1 && adds)
		return take_faults(p, &b.faults, fds[0]);
	if (type == MSG_PAGER_FILL && !len && !nfds && serves)
		return pager_fill(p), 0;
	if (type == MSG_STOP && !len && !nfds && serves) {
		pager_stop(p);
		return msg_send(MSG_CHANNEL_FD, MSG_STOPPED, NULL, 0, NULL, 0);
	}
	return -EPROTO;
}

/* Somebody's page, or something to do ahead; then the channel. */
static int pager_turn(struct pager *p)
{
	bool heard = false, whole = false;
	struct err e;
	int rc;

	if (!pager_has_faults(p))
		return pager_hear(p);
	rc = pager_faults_turn(p, &heard, &whole, &e);
	if (rc)
		return pager_refuse(p, p->job == PAGER_SERVE ? "serve" : "save", &e);
	if (whole)
		rc = pager_done(p);
	return rc ? rc : heard ? pager_hear(p) : 0;
}

static int pager_loop(void *dev)
{
	struct pager *p = dev;
	int rc = 0;

	while (!rc)
		rc = pager_turn(p);
	pager_faults_end(p, rc);
	return rc == -EPIPE ? 0 : rc;
}

int main(void)
{
	static struct pager pager;

	helper_main(&(struct helper_program){
		.start = MSG_START_PAGER,
		.start_size = sizeof(struct msg_start_pager),
		.log_level = offsetof(struct msg_start_pager, log_level),
		.dev = &pager,
		.check = pager_check,
		.open = pager_open,
		.rules = pager_rules,
		.loop = pager_loop,
	});
}
