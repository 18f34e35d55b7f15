/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The module iscsi: a LUN of an iSCSI target, by libiscsi.
 *
 * Each lane has a session of its own. libiscsi's context is a state machine with a descriptor:
 * commands go in, answers come as callbacks inside iscsi_service().
 *
 *   iscsi.c     the URI and the settings; what the LUN is, asked once at the start
 *   known.h     what the guest was told of it. A target that comes back smaller, read-only or
 *               without what the guest was told of is not spoken to
 *   lane.h      requests that wait and fly, sessions that end, deadlines
 *   task.h      a request as a SCSI command, and its answer
 *   session.h   login and probing
 *   filter.h    what a target may not send
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include <insula/uri.h>

#include "known.h"
#include "lane.h"

#define NS 1000000000ull
#define DEFAULT_INITIATOR "iqn.2026-01.local.insula:vm"

static int say_why(struct err *e, const struct iscsi_disk *d, int code, const char *why)
{
	return err_set(e, code, "target '%.80s': %s", d->target.name, *why ? why : "no connection");
}

static int check_lun(const struct iscsi_disk *d, const struct module_disk *k, struct err *e)
{
	if ((k->flags & MODULE_DISK_RO) && !d->ro)
		return say_why(e, d, -EROFS, "can only be read; expected ro with it");
	if (d->stable && !(k->flags & MODULE_DISK_FUA) && (k->flags & MODULE_DISK_FLUSH))
		return say_why(e, d, -EOPNOTSUPP,
			       "it knows no stable writes (FUA); expected writes=cached");
	return 0;
}

static int iscsi_describe(void *own, int fd, struct module_disk *k, struct err *e)
{
	struct iscsi_disk *d = own;
	struct session s = {0};
	uint32_t name = 0;
	int rc = 0;

	if (getrandom(&name, sizeof(name), 0) != sizeof(name))
		return err_sys(e, -errno, "a name for the session");
	d->known.own = name;
	/* A lane's number that no lane has: its own session is a new one. */
	session_begin(&s, &d->target, name, UINT16_MAX, fd);
	while (s.state != SESSION_UP && !rc) {
		struct pollfd p = {.fd = session_fd(&s), .events = session_events(&s)};

		if (s.state == SESSION_DEAD || s.state == SESSION_NONE)
			rc = say_why(e, d, -EIO, s.why);
		else if (module_now() - s.began_ns > SESSION_DEADLINE_NS)
			rc = say_why(e, d, -ETIMEDOUT, "no answer to the login in 10 s");
		else if (poll(&p, 1, 100) > 0)
			session_serve(&s, p.revents);
	}
	if (!rc) {
		known_from(&s.lun, d->known.own, k);
		rc = check_lun(d, k, e);
	}
	session_end(&s);
	d->known = *k;
	return rc;
}

static void iscsi_resume(void *own, const struct module_disk *k)
{
	struct iscsi_disk *d = own;

	d->known = *k;
}

/* TARGET/LUN: a target's name has no slash. */
static int take_path(struct target *t, const char *path, struct err *e)
{
	const char *slash = strrchr(path, '/'), *number = slash ? slash + 1 : "";
	size_t n = slash ? (size_t)(slash - path) : strlen(path), digits = strlen(number);

	if (strncmp(path, "iqn.", 4) != 0 && strncmp(path, "eui.", 4) != 0 &&
	    strncmp(path, "naa.", 4) != 0)
		return err_set(e, -EINVAL,
			       "target '%.80s'; expected iscsi://HOST/TARGET/LUN with a name that "
			       "begins with iqn., eui. or naa.",
			       path);
	if (n > NAME_MAX_ISCSI || memchr(path, '/', n))
		return err_set(e, -EINVAL,
			       "target '%.80s'; expected a name of at most %d characters", path,
			       NAME_MAX_ISCSI);
	if (!slash || !digits || digits > 5 || strspn(number, "0123456789") < digits ||
	    strtoul(number, NULL, 10) > LUN_MAX)
		return err_set(e, -EINVAL, "LUN '%.20s'; expected a number from 0 to %u", number,
			       LUN_MAX);
	memcpy(t->name, path, n);
	t->lun = (unsigned)strtoul(number, NULL, 10);
	return 0;
}

static int take_query(struct target *t, const struct uri *u, struct err *e)
{
	snprintf(t->initiator, sizeof(t->initiator), "%s", DEFAULT_INITIATOR);
	if (!u->query[0])
		return 0;
	if (strncmp(u->query, "initiator=", 10) != 0 || strchr(u->query, '&'))
		return err_set(e, -EINVAL, "query '%.60s'; expected initiator=NAME alone",
			       u->query);
	if (!uri_query(u, "initiator", t->initiator, sizeof(t->initiator)) ||
	    (strncmp(t->initiator, "iqn.", 4) != 0 && strncmp(t->initiator, "eui.", 4) != 0 &&
	     strncmp(t->initiator, "naa.", 4) != 0))
		return err_set(e, -EINVAL,
			       "initiator '%.60s'; expected a name that begins with iqn., eui. or "
			       "naa., of at most %d characters",
			       u->query + 10, NAME_MAX_ISCSI);
	return 0;
}

static int take_password(struct target *t, const struct uri *u, const struct module_conf *c,
			 struct err *e)
{
	size_t n = 0;
	const char *p = c->file(c, "password", &n);

	if (!p && !u->user[0])
		return 0;
	if (!p)
		return err_set(e, -EINVAL, "user '%.60s'; expected options=password=FILE with it",
			       u->user);
	if (!u->user[0])
		return err_set(e, -EINVAL,
			       "password; expected a user with it: iscsi://USER@HOST/...");
	/* As editors and echo end a file. */
	if (n && p[n - 1] == '\n')
		n--;
	if (!n || n >= sizeof(t->password) || memchr(p, 0, n) || memchr(p, '\n', n))
		return err_set(e, -EINVAL, "password: not one line; expected 1 to %zu characters",
			       sizeof(t->password) - 1);
	memcpy(t->password, p, n);
	snprintf(t->user, sizeof(t->user), "%s", u->user);
	return 0;
}

static int iscsi_open(struct module *m, const struct module_conf *c, void **own, struct err *e)
{
	static struct iscsi_disk disk;
	const char *writes = c->setting(c, "writes"), *timeout = c->setting(c, "timeout");
	struct iscsi_context *once;
	struct uri u;
	int rc = uri_parse(&u, c->target, e);

	(void)m;
	if (!rc)
		rc = take_path(&disk.target, u.path, e);
	if (!rc)
		rc = take_query(&disk.target, &u, e);
	if (!rc)
		rc = take_password(&disk.target, &u, c, e);
	if (rc)
		return rc;
	disk.ro = c->ro;
	disk.stable = writes && !strcmp(writes, "stable");
	disk.timeout_ns = (timeout ? strtoull(timeout, NULL, 10) : 30) * NS;
	/* The first one looks for a source of random numbers among the files. */
	once = iscsi_create_context(DEFAULT_INITIATOR);
	if (!once)
		return err_set(e, -ENOMEM, "out of memory");
	(void)iscsi_destroy_context(once);
	*own = &disk;
	return 0;
}

int main(void)
{
	static const struct module_ops ops = {
		.name = "iscsi",
		.open = iscsi_open,
		.describe = iscsi_describe,
		.resume = iscsi_resume,
		.lane_open = iscsi_lane_open,
		.submit = iscsi_lane_submit,
		.poll = iscsi_lane_poll,
		.ready = iscsi_lane_ready,
		.lane_connection = iscsi_lane_connection,
		.abort = iscsi_lane_abort,
	};

	return module_main(&ops);
}
