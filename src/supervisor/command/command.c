/* SPDX-License-Identifier: BSD-2-Clause */
/* The one command of insula-run. See command.h. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include <insula/base.h>
#include <insula/guestproto.h>

#include "command.h"
#include "spec/config.h"
#include "spec/ending.h"
#include "exec.h"
#include "supervisor/vm_common.h"

#define DEFAULT_ROWS 24
#define DEFAULT_COLS 80

void command_init(struct command *c)
{
	*c = (struct command){.in = -1, .out = -1, .err = -1};
}

void command_close(struct command *c)
{
	fd_close(&c->in);
	fd_close(&c->out);
	fd_close(&c->err);
	command_drain(c);
}

/* ---- description ---- */

static void terminal_size(uint16_t *rows, uint16_t *cols)
{
	*rows = DEFAULT_ROWS;
	*cols = DEFAULT_COLS;
	(void)window_size(rows, cols);
}

/* What the user set, after what a terminal's programs want to know about the one outside. */
static char **make_env(const struct vm_config *c, char *term, size_t size)
{
	char **env = calloc(c->nenv + 2, sizeof(char *));
	const char *outside = window_type();
	unsigned n = 0;

	if (!env)
		return NULL;
	if (c->tty && outside && snprintf(term, size, "TERM=%s", outside) < (int)size)
		env[n++] = term;
	for (unsigned i = 0; i < c->nenv; i++)
		env[n++] = c->env[i];
	return env;
}

static int with_spec(struct vm *vm, int (*use)(struct vm *, const struct exec_spec *, struct err *),
		     struct err *e)
{
	const struct vm_config *c = vm_conf(vm);
	const struct command *k = vm_command(vm);
	char term[128];
	struct exec_spec s = {.argv = c->command,
			      .env = make_env(c, term, sizeof(term)),
			      .cwd = c->cwd,
			      .uid = c->uid,
			      .user = c->user,
			      .gid = c->has_gid ? c->gid : GP_NO_GID,
			      .tty = c->tty,
			      .input = k->in >= 0,
			      .escape = k->raw,
			      .only = !c->restore};
	int rc;

	if (!s.env)
		return err_set(e, -ENOMEM, "out of memory");
	terminal_size(&s.rows, &s.cols);
	rc = use(vm, &s, e);
	free((void *)s.env);
	return rc;
}

/* ---- streams ---- */

static int command_check(struct vm *vm, const struct exec_spec *s, struct err *e)
{
	(void)vm;
	return exec_check(s, e);
}

int command_open(struct vm *vm, struct err *e)
{
	int rc = command_streams(vm_command(vm), vm_conf(vm), e);

	return rc ? rc : with_spec(vm, command_check, e);
}

/* ---- the end ---- */

/* The stream has ended. If that is not insula-vsock's death the guest may be on its way to power
 * off, and how it ends is what the user wants to hear. */
static void command_lost(struct vm *vm, const struct msg_exec_exit *x)
{
	struct command *c = vm_command(vm);

	c->lost_ns = clock_ns();
	snprintf(c->lost, sizeof(c->lost), "%s", x->text);
}

static void done(struct vm *vm, uint32_t id, const struct msg_exec_exit *x)
{
	int status = (x->end == EXEC_SIGNALED ? RUN_SIGNAL : 0) + (int)(x->value & 0xff);

	(void)id;
	vm_command(vm)->ended = x->end == EXEC_CODE || x->end == EXEC_SIGNALED;
	if (x->end == EXEC_LOST)
		command_lost(vm, x);
	else if (x->end == EXEC_REFUSED)
		vm_end(vm, status, "%s", x->text);
	else if (x->flags & EXEC_OUTPUT_LOST)
		vm_end(vm, RUN_FAILED, "output of the command is lost: %s", x->text);
	else if (x->flags & EXEC_OOM)
		vm_end(vm, status, "the guest ran out of memory (--mem %lluM) and killed a process",
		       (unsigned long long)(vm_conf(vm)->mem >> 20));
	else
		vm_end(vm, status, "%s", "");
}

static int command_start_now(struct vm *vm, const struct exec_spec *s, struct err *e)
{
	struct command *c = vm_command(vm);
	const int fds[3] = {c->in, c->out, c->err};

	return exec_start(vm, s, fds, done, &c->id, e);
}

int command_start(struct vm *vm, struct err *e)
{
	return with_spec(vm, command_start_now, e);
}

/* ---- signals ---- */

static bool again(struct command *c, int signo)
{
	uint64_t now = clock_ns(), before = c->interrupted_ns;

	if (signo != SIGINT && signo != SIGTERM)
		return false;
	c->interrupted_ns = now;
	return before && now - before < COMMAND_AGAIN_NS;
}

bool command_signal(struct vm *vm, int signo)
{
	struct command *c = vm_command(vm);

	if (!exec_running(vm, c->id) || again(c, signo) || exec_signal(vm, c->id, signo))
		return false;
	c->signo = signo;
	return true;
}

void command_resized(struct vm *vm)
{
	uint16_t rows, cols;

	terminal_size(&rows, &cols);
	(void)exec_resize(vm, vm_command(vm)->id, rows, cols);
}

uint64_t command_deadline(const struct vm *vm)
{
	const struct command *c = vm_command(vm);
	uint64_t since = exec_unanswered(vm, c->id);

	if (c->lost_ns)
		return c->lost_ns + (vm_vsock_died(vm) ? 0 : COMMAND_LOST_NS);
	return since ? since + COMMAND_DEAF_NS : 0;
}

void command_overdue(struct vm *vm)
{
	const struct command *c = vm_command(vm);

	if (c->lost_ns)
		vm_end(vm, RUN_FAILED, "the connection to the command is lost: %s",
		       vm_vsock_died(vm) ? "insula-vsock has died" : c->lost);
	else
		vm_end(vm, RUN_SIGNAL + c->signo, "the guest did not take signal %d in time",
		       c->signo);
}
