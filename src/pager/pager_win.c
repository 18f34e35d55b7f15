/* SPDX-License-Identifier: BSD-2-Clause */
/* insula-pager on Windows, where no process is told of another one's page faults: memory is read
 * and written as a whole. See pager.h. */
#include <errno.h>

#include <insula/base.h>

#include "pager.h"

void pager_rules(const void *dev, struct rule_list *l)
{
	(void)dev, (void)l; /* src/devices/rules_win.c */
}

int pager_faults_open(struct pager *p, int order, struct err *e)
{
	(void)order;
	return p->job == PAGER_SERVE || p->flags & PAGER_LIVE
		       ? err_set(e, -EOPNOTSUPP, "job %u with flags %#x: expected Linux", p->job,
				 p->flags)
		       : 0;
}

bool pager_has_faults(const struct pager *p)
{
	(void)p;
	return false;
}

/* A directory in which a file is open cannot be renamed. */
void pager_let_go(struct pager *p)
{
	if (p->job == PAGER_SAVE)
		fd_close(&p->ram.file[p->ram.n - 1].fd);
}

/* Nobody comes here: pager_faults_open() has refused it. */

int pager_freeze(struct pager *p, struct err *e)
{
	return pager_faults_open(p, -1, e);
}

void pager_serve(struct pager *p)
{
	(void)p;
}

void pager_fill(struct pager *p)
{
	(void)p;
}

void pager_stop(struct pager *p)
{
	(void)p;
}

int pager_faults(struct pager *p, const struct msg_faults *m, int fd, struct err *e)
{
	(void)m, (void)fd;
	return pager_faults_open(p, -1, e);
}

int pager_faults_turn(struct pager *p, bool *heard, bool *whole, struct err *e)
{
	(void)heard, (void)whole;
	return pager_faults_open(p, -1, e);
}

void pager_faults_end(const struct pager *p, int rc)
{
	(void)p, (void)rc;
}
