/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * VMs that an earlier insulad has left: their records are read, and supervisors that live are
 * adopted. What ended meanwhile is told as it would have been. See machine.h.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>
#include <insula/log.h>

#include "daemon.h"
#include "dlog.h"
#include "host.h"
#include "listen.h"
#include "machine.h"
#include "pool.h"
#include "process.h"
#include "record.h"
#include "spawn.h"
#include "state.h"
#include "talk.h"
#include "watch.h"

#define GRACE_MS 60000 /* an ended VM that goes by itself, found after a restart */
#define REOPEN_MS 1000

static void on_grace(void *ctx)
{
	struct machine *m = ctx;

	m->grace = NULL;
	machine_remove(m);
}

/* A process that is there but could not be opened: its end shows at its socket, and until it can be
 * opened nobody can kill it. */
static void on_reopen(void *ctx)
{
	struct machine *m = ctx;
	struct err e;
	int rc = process_open(&m->r);

	m->reopen = NULL;
	if (rc == -ESRCH) {
		machine_ended(m);
		return;
	}
	if (rc >= 0)
		m->process = rc;
	if (rc < 0)
		m->reopen = timer_after(&m->d->loop, REOPEN_MS, on_reopen, m);
	else if (machine_watch_process(m, &e))
		dlog(LOG_LVL_ERROR, m, "%s", e.text);
}

static bool still_runs(struct machine *m)
{
	struct err e;
	int rc;

	if (m->r.pid <= 0 || strcmp(m->r.boot_id, m->d->boot_id) != 0)
		return false;
	rc = process_open(&m->r);
	m->process = rc < 0 ? -1 : rc;
	if (rc < 0 && rc != -ESRCH && rc != -EACCES)
		m->reopen = timer_after(&m->d->loop, REOPEN_MS, on_reopen, m);
	/* Its socket is there as long as it is. */
	return rc >= 0 || (rc != -ESRCH && talk_open(m, &e) != -ENOENT);
}

/* insulad was killed between its record and the byte for its supervisor. Nobody has had an answer:
 * it is as if nobody had asked. */
static void not_started(struct machine *m)
{
	struct err e;

	dlog(LOG_LVL_INFO, m, "an earlier insulad was about to start it");
	machine_close_process(m);
	machine_leave_group(m);
	if (m->r.transient) {
		machine_remove(m);
		return;
	}
	m->r.state = VM_CREATED;
	if (machine_save(m, &e))
		dlog(LOG_LVL_ERROR, m, "%s", e.text);
}

static void adopt(struct machine *m)
{
	struct err e;

	/* An older insulad has named it after the VM alone, and not said so. */
	if (!m->r.group[0] && m->d->cgroups.on)
		snprintf(m->r.group, sizeof(m->r.group), "vm-%s", m->r.id);
	if (!still_runs(m)) {
		if (machine_never_began(m)) {
			not_started(m);
			return;
		}
		if (m->r.pool[0]) {
			pool_vm_is_nobodys(m); /* a client was promised it, and has never heard */
			machine_end(m, false);
			return;
		}
		machine_end(m, true); /* somebody may still want to know how it ended */
		if (m->r.transient)
			m->grace = timer_after(&m->d->loop, GRACE_MS, on_grace, m);
		return;
	}
	m->adopted = true;
	m->d->n.adopted++;
	m->r.state = VM_STARTING;
	dlog(LOG_LVL_INFO, m, "found again, process %d%s", (int)m->r.pid,
	     m->process < 0 ? ", which this insulad may not open" : "");
	if (m->process >= 0 && machine_watch_process(m, &e))
		dlog(LOG_LVL_ERROR, m, "%s", e.text);
	if (!m->talk)
		talk_find(m);
}

/* It can be listed with its reason, and deleted; by root, as nobody knows whose it is. */
static void keep_broken(struct daemon *d, const char *id, int rc, const char *why)
{
	struct machine *m = machine_add(d);

	dlog(LOG_LVL_ERROR, NULL, "state of %s: %s; it is left alone", id, why);
	if (!m)
		return;
	strcpy(m->r.id, id);
	snprintf(m->r.name, sizeof(m->r.name), "broken-%s", id);
	m->r.owner.uid = host_uid();
	m->r.state = VM_BROKEN;
	m->r.config = strdup("{}");
	m->broken = strdup(why);
	m->newer = rc == -EPROTONOSUPPORT;
	if (!m->r.config || !m->broken)
		machine_forget(m);
}

bool machine_is_served(struct machine *m)
{
	struct err e;
	int fd = supervisor_connect(m, &e);
	bool served = fd >= 0 || fd == -EAGAIN || fd == -EBUSY;

	fd_close(&fd);
	return served;
}

static int parse_one(struct daemon *d, struct machine *m, const char *id, const char *text,
		     size_t len, struct err *e)
{
	int rc = record_parse(&m->r, text, len, e);

	if (!rc)
		rc = owner_found_again(d, &m->r.owner, e);
	return rc || !strcmp(m->r.id, id) ? rc : err_set(e, -EINVAL, "record: of another VM");
}

static void load_one(struct daemon *d, const char *id)
{
	char *text = NULL;
	struct machine *m;
	size_t len;
	struct err e;
	int rc = state_read(d->state, id, "record.json", RECORD_MAX, &text, &len);

	if (rc == -ENOENT) {
		/* It was about to be made, or its removal was about to be finished: no supervisor
		 * has begun. */
		state_remove(d->state, id);
		return;
	}
	m = rc ? NULL : machine_add(d);
	if (rc)
		err_sys(&e, rc, "record");
	else
		rc = m ? parse_one(d, m, id, text, len, &e) : err_set(&e, -ENOMEM, "out of memory");
	if (rc || !m) {
		if (m)
			machine_forget(m);
		keep_broken(d, id, rc, e.text);
	} else if (machine_active(m)) {
		adopt(m);
	} else if (m->r.state == VM_ENDED) {
		machine_take_result(m);
		if (m->r.transient)
			m->grace = timer_after(&d->loop, GRACE_MS, on_grace, m);
	}
	free(text);
}

int machines_load(struct daemon *d, struct err *e)
{
	int rc = process_boot_id(d->boot_id, sizeof(d->boot_id), e);

	return rc ? rc : state_list(d->state, load_one, d, e);
}

/* The VMs run on. */
void machines_close(struct daemon *d)
{
	for (struct machine *m = d->machines, *next; m; m = next) {
		next = m->next;
		m->r.transient = false;
		machine_close_process(m);
		machine_forget(m);
	}
}
