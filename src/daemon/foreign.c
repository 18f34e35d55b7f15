/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Descriptors that others have made: who has how many of them here, and how they are closed.
 *
 * A user may have too many, because they cannot be closed, or because answers that carry them are
 * not read. Then insulad does not read from that user until there are fewer. What is left of the
 * table, with every user at the limit, belongs to root: nobody locks root out.
 */
#include <errno.h>
#include <stdlib.h>

#include <insula/base.h>
#include <insula/log.h>

#include "client.h"
#include "closer.h"
#include "daemon.h"
#include "dlog.h"
#include "foreign.h"
#include "link.h"
#include "machine.h"

#define PER_USER 64
#define OWN 128       /* files of the daemon itself, and those that a start takes for a moment */
#define ROOT_SPARE 64 /* for root alone */
#define PER_VM 2      /* its process, and the connection to it */
#define PER_LOG 2     /* that is read: its files */

struct user {
	struct user *next;
	uint32_t uid;
	unsigned fds;
	bool told; /* the log has said that it has too many */
};

static struct user **foreign_find(struct daemon *d, uint32_t uid)
{
	struct user **at = &d->users;

	while (*at && (*at)->uid != uid)
		at = &(*at)->next;
	return at;
}

void foreign_took(struct daemon *d, uint32_t uid, unsigned n)
{
	struct user **at = foreign_find(d, uid);

	if (!n)
		return;
	d->foreign += n;
	if (!*at)
		*at = calloc(1, sizeof(**at));
	if (!*at)
		return; /* the sum is right, and is bounded too */
	(*at)->uid = uid;
	(*at)->fds += n;
}

static void gone(void *ctx, uint32_t uid)
{
	struct daemon *d = ctx;
	struct user **at = foreign_find(d, uid), *u = *at;

	d->foreign--;
	if (u && !--u->fds) {
		*at = u->next;
		free(u);
	}
	foreign_go_on(d);
}

void foreign_go_on(struct daemon *d)
{
	if (!d->held_back)
		return;
	d->held_back = false;
	clients_go_on(d);
	machines_go_on(d);
}

int foreign_open(struct daemon *d, struct err *e)
{
	d->closer = closer_new(&d->loop, gone, d);
	if (!d->closer)
		return err_set(e, -ENOMEM, "out of memory");
	if (d->nofile.hard && d->nofile.hard < FOREIGN_MIN_NOFILE)
		return err_set(e, -EMFILE,
			       "the limit of open files (ulimit -Hn) is %llu; expected at least %d",
			       (unsigned long long)d->nofile.hard, FOREIGN_MIN_NOFILE);
	return 0;
}

/* Tests and fuzzers have no closer: nobody waits there. */
static void hand_over(struct daemon *d, uint32_t uid, int fd, bool connection)
{
	if (d->closer) {
		closer_give(d->closer, uid, fd, connection);
		return;
	}
	fd_close(&fd);
	gone(d, uid);
}

void foreign_close(struct daemon *d, uint32_t uid, int *fd)
{
	if (*fd >= 0)
		hand_over(d, uid, *fd, false);
	*fd = -1;
}

void foreign_hang_up(struct daemon *d, uint32_t uid, struct link *l)
{
	int fd = link_detach(l);

	if (fd < 0)
		return;
	foreign_took(d, uid, 1);
	hand_over(d, uid, fd, true);
}

/* Descriptors in the table, at most. */
static uint64_t in_use(const struct daemon *d)
{
	uint64_t n = OWN + d->nclients + (uint64_t)d->foreign + (uint64_t)PER_LOG * d->nlogs;

	for (const struct machine *m = d->machines; m; m = m->next)
		n += machine_active(m) ? PER_VM : 0;
	return n;
}

/* For `more`; and for others than root, what root needs as well. A limit of 0: there is none. */
static bool has_room(const struct daemon *d, uint32_t uid, unsigned more)
{
	return !d->nofile.hard ||
	       in_use(d) + more + (uid ? ROOT_SPARE + LINK_FDS : 0u) <= d->nofile.hard;
}

/* With those that are there, one message can still be read. */
bool foreign_table_full(const struct daemon *d, uint32_t uid)
{
	return !has_room(d, uid, PER_VM + 2 * LINK_FDS);
}

bool foreign_full(struct daemon *d, uint32_t uid)
{
	struct user *u = *foreign_find(d, uid);
	bool full = (uid && u && u->fds >= PER_USER) || !has_room(d, uid, LINK_FDS);

	d->held_back |= full;
	if (full && u && !u->told) {
		u->told = true;
		dlog(LOG_LVL_WARN, NULL,
		     "uid %u: %u descriptors are not read, or cannot be closed; it waits",
		     (unsigned)uid, u->fds);
	}
	return full;
}
