/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * insula-exec: a command in the guest and the user's standard streams, in a jail of its own. Its
 * stages are in program.h.
 *
 * The supervisor connects the other end of the stream to the guest after it has verified the jail:
 * until then no byte of the guest's can be here.
 */
#include <errno.h>

#include "exec.h"
#include "devices/program.h"

enum { FD_STREAM, FD_SPEC, FD_OUT, FD_ERR, FD_IN };

static int exec_main_check(const void *start, const struct start_fds *f, struct err *e)
{
	const struct msg_start_exec *m = start;

	if (m->flags & ~(uint32_t)(EXEC_STDIN | EXEC_ESCAPE | EXEC_POWEROFF | EXEC_RESUMED))
		return err_set(e, -EINVAL, "unknown flags %#x", m->flags);
	return start_expect(f, START_OWN, FD_IN + (m->flags & EXEC_STDIN ? 1 : 0), e);
}

static int open_streams(void *dev, struct helper *h, const void *start, const struct start_fds *f,
			const char **step, struct err *e)
{
	struct exec *x = dev;
	const int *fds = f->fd[START_OWN];
	int rc;

	(void)h;
	*step = "streams";
	rc = exec_open(x, start, MSG_CHANNEL_FD, fds[FD_STREAM], fds[FD_SPEC], fds[FD_OUT],
		       fds[FD_ERR], f->n[START_OWN] > FD_IN ? fds[FD_IN] : -1, e);
	if (rc)
		return rc;
	*step = "threads";
	return exec_threads(x, e);
}

static void exec_main_rules(const void *dev, struct rule_list *l)
{
	exec_rules(dev, l);
}

static int loop(void *dev)
{
	return exec_loop(dev);
}

int main(void)
{
	static struct exec exec;

	helper_main(&(struct helper_program){
		.start = MSG_START_EXEC,
		.start_size = sizeof(struct msg_start_exec),
		.log_level = offsetof(struct msg_start_exec, log_level),
		.dev = &exec,
		.check = exec_main_check,
		.open = open_streams,
		.rules = exec_main_rules,
		.loop = loop,
	});
}
