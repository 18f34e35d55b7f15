/* SPDX-License-Identifier: BSD-2-Clause */
/* start, and run: create, start, wait, delete. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <insula/base.h>

#include "commands.h"
#include "hook.h"
#include "proxy.h"
#include "report.h"
#include "raw.h"
#include "spec/json.h"

/* ---- start ---- */

static int may_start(const struct container *c, struct err *e)
{
	enum status s = state_status(c);

	if (s == STATUS_CREATED)
		return 0;
	if (s == STATUS_STOPPED)
		return err_set(e, -EINVAL, "cannot start a container that has stopped");
	if (s == STATUS_CREATING)
		return err_set(e, -EINVAL, "cannot start a container that is being created");
	return err_set(e, -EINVAL, "cannot start an already running container");
}

/* Whoever wants to delete it must not wait for a guest that boots: the lock is for the word in the
 * state alone, and the proxy takes one start. */
static int note_running(const struct flags *f, struct err *e)
{
	struct container c;
	json_object *state;
	int rc = container_state_open(&c, f->root, f->id, true, e);

	if (rc)
		return rc;
	c.status = STATUS_RUNNING;
	rc = state_save(&c, e);
	state = state_json(&c, STATUS_RUNNING);
	if (!rc)
		hooks_run_all(c.hooks, "poststart", state, c.hook_timeout);
	json_object_put(state);
	state_close(&c);
	return rc;
}

int start_command(const struct flags *f, struct err *e)
{
	struct container c;
	int rc = container_state_open(&c, f->root, f->id, false, e);

	if (rc)
		return rc;
	rc = may_start(&c, e);
	if (!rc)
		rc = proxy_start(&c, e);
	state_close(&c);
	return rc ? rc : note_running(f, e);
}

/* ---- run ---- */

/* Signals that come to us are the container's. */
static int wait_for(const struct proc *proxy, int signals)
{
	struct signalfd_siginfo s;
	sigset_t all;
	int ws = 0;

	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	while (waitpid(proxy->pid, &ws, WNOHANG) == 0) {
		if (read(signals, &s, sizeof(s)) == sizeof(s) && s.ssi_signo != SIGCHLD)
			proc_kill(proxy, (int)s.ssi_signo);
	}
	return WIFSIGNALED(ws) ? 128 + WTERMSIG(ws) : WEXITSTATUS(ws);
}

static int run_to_end(const struct flags *f, const struct proc *proxy, bool tty, int signals)
{
	struct flags d = *f;
	struct termios before;
	bool raw = tty && raw_enter(&before);
	struct err e;
	int status = wait_for(proxy, signals);

	if (raw)
		raw_leave(&before);
	d.force = true;
	if (!f->keep && delete_command(&d, &e))
		report_warn("%s", e.text);
	return status;
}

static int run_with(const struct flags *f, int signals, struct err *e)
{
	struct flags d = *f;
	struct container c;
	struct proc proxy;
	bool tty;
	int rc = create_command(f, e);

	if (!rc)
		rc = container_state_open(&c, f->root, f->id, false, e);
	if (rc)
		return rc;
	proxy = c.proxy;
	tty = !f->console_socket && j_get_bool(c.process, "terminal", false);
	state_close(&c);
	rc = start_command(f, e);
	if (!rc)
		return f->detach ? 0 : run_to_end(f, &proxy, tty, signals);
	d.force = true;
	(void)delete_command(&d, NULL);
	return rc;
}

/* What waits for the container is there before the container is. */
int run_command(const struct flags *f, struct err *e)
{
	sigset_t all;
	int signals, rc;

	sigfillset(&all);
	signals = signalfd(-1, &all, SFD_CLOEXEC);
	if (signals < 0)
		return err_sys(e, -errno, "signalfd");
	rc = run_with(f, signals, e);
	close(signals);
	return rc;
}
