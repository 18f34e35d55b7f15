/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * kill, pause, resume. A signal goes to the proxy, as if somebody had sent it there, and the proxy
 * passes it on. What a process cannot pass on (KILL, STOP), and what is for all of a container's
 * processes, is done in the guest.
 */
#include <ctype.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include <insula/base.h>

#include "commands.h"
#include "report.h"
#include "talk.h"
#include "vm.h"

#define GUEST_MS 10000
#define END_MS 5000 /* from the guest's word that it is killed to its proxy's end */
#define SIGNAL_MAX 64

/* ---- names ---- */

static int real_time(const char *text)
{
	int base = !strncasecmp(text, "RTMIN", 5) ? 34 : !strncasecmp(text, "RTMAX", 5) ? 64 : 0;
	const char *more = text + 5;
	char *end = NULL;
	long n = base && *more ? strtol(more, &end, 10) : 0;

	if (!base || (*more && ((*more != '+' && *more != '-') || *end)))
		return 0;
	return n >= 34 - base && n <= SIGNAL_MAX - base ? base + (int)n : 0;
}

int signal_number(const char *text, struct err *e)
{
	const char *name = strncasecmp(text, "SIG", 3) ? text : text + 3;
	char *end;
	long n = strtol(text, &end, 10);

	if (*text && !*end && n >= 0 && n <= SIGNAL_MAX)
		return (int)n;
	for (int i = 1; i < 32; i++) {
		const char *known = sigabbrev_np(i);

		if (known && !strcasecmp(known, name))
			return i;
	}
	n = isalpha((unsigned char)*name) ? real_time(name) : 0;
	return n ? (int)n
		 : err_set(e, -EINVAL, "signal: '%.30s'; expected a number up to %d or a name",
			   text, SIGNAL_MAX);
}

/* ---- the guest ---- */

int ask_guest(const struct container *c, const char *root, const char *verb, const char *arg1,
	      const char *arg2, int ms, char **out, struct err *e)
{
	const char *const args[] = {verb, c->id, arg1, arg1 ? arg2 : NULL, NULL};
	int dir = vm_open_dir(root, c->sandbox, e), rc;

	if (dir < 0)
		return dir;
	rc = talk_guest(dir, args, ms, out, e);
	close(dir);
	return rc;
}

int guest_says(int rc, const char *what, struct err *e)
{
	char text[sizeof(e->text)];

	if (rc <= 0)
		return rc;
	memcpy(text, e->text, sizeof(text));
	return err_set(e, -EIO, "%s: %.200s", what, text);
}

/* ---- kill ---- */

/* The process of the host has ended, or does so now. Not waited for if the guest does not
 * answer. */
static bool has_ended(const struct container *c, int rc)
{
	/* A VM that ends with its process may do so before it can answer. */
	return (rc >= 0 || rc == -EPIPE || rc == -ENOENT) && !proc_wait(&c->proxy, END_MS);
}

/* SIGKILL is not the guest's to refuse: if it does not answer, or says yes and does nothing, what is
 * here of the container ends; of an owner, the VM with it. */
static int kill_in_guest(const struct container *c, const char *root, int signo, bool all,
			 struct err *e)
{
	char number[12];
	int rc;

	snprintf(number, sizeof(number), "%d", signo);
	rc = ask_guest(c, root, "kill", number, all ? "all" : NULL, GUEST_MS, NULL, e);
	if (signo != SIGKILL)
		return guest_says(rc, "kill", e);
	/* Of the others, which may live on without it, the guest alone knows. */
	if (has_ended(c, rc))
		return all && !state_owns_vm(c) ? guest_says(rc, "kill", e) : 0;
	if (rc >= 0)
		err_set(e, -EIO, "the guest has not killed it");
	report_warn("container \"%s\": %s; its process of the host is killed", c->id, e->text);
	rc = proc_kill(&c->proxy, SIGKILL);
	return rc && rc != -ESRCH ? err_sys(e, rc, "kill") : 0;
}

static int kill_one(const struct container *c, const char *root, int signo, bool all, struct err *e)
{
	enum status s = state_status(c);
	bool guest = all || signo == SIGKILL || signo == SIGSTOP;
	int rc;

	/* The others of its group may live on in a shared namespace of processes. */
	if (s == STATUS_STOPPED && all && !state_owns_vm(c))
		return kill_in_guest(c, root, signo, true, e);
	if (s == STATUS_STOPPED || s == STATUS_CREATING)
		return err_set(e, -ESRCH, "container not running");
	if (guest && s != STATUS_CREATED)
		return kill_in_guest(c, root, signo, all, e);
	rc = proc_kill(&c->proxy, signo);
	return rc == -ESRCH ? err_set(e, rc, "container not running")
	       : rc         ? err_sys(e, rc, "kill")
			    : 0;
}

int kill_command(const struct flags *f, struct err *e)
{
	int signo = signal_number(f->nargs ? f->args[0] : "TERM", e), rc;
	struct container c;

	if (signo < 0)
		return signo;
	rc = container_state_open(&c, f->root, f->id, false, e);
	if (rc)
		return rc;
	rc = kill_one(&c, f->root, signo, f->all, e);
	state_close(&c);
	return rc;
}

/* ---- pause, resume ---- */

static int turn(const struct flags *f, const char *verb, enum status from, enum status to,
		struct err *e)
{
	struct container c;
	enum status s;
	int rc = container_state_open(&c, f->root, f->id, true, e);

	if (rc)
		return rc;
	s = state_status(&c);
	if (s != from)
		rc = err_set(e, -EINVAL, "cannot %s container %s: it is %s, not %s", verb, c.id,
			     state_word(s), state_word(from));
	if (!rc)
		rc = guest_says(ask_guest(&c, f->root, verb, NULL, NULL, GUEST_MS, NULL, e), verb,
				e);
	c.status = to;
	if (!rc)
		rc = state_save(&c, e);
	state_close(&c);
	return rc;
}

int pause_command(const struct flags *f, struct err *e)
{
	return turn(f, "pause", STATUS_RUNNING, STATUS_PAUSED, e);
}

int resume_command(const struct flags *f, struct err *e)
{
	return turn(f, "resume", STATUS_PAUSED, STATUS_RUNNING, e);
}
