/* SPDX-License-Identifier: BSD-2-Clause */
/* The user's streams and terminal on Linux. See command.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <insula/base.h>

#include "command.h"
#include "spec/config.h"
#include "supervisor/backing/terminal.h"

static int command_take(int fd, int *out, struct err *e)
{
	*out = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	return *out < 0 ? err_sys(e, -errno, "standard stream %d", fd) : 0;
}

int command_streams(struct command *c, const struct vm_config *conf, struct err *e)
{
	int given = conf->command_out;
	bool person = !given && isatty(STDIN_FILENO);
	int rc = command_take(given ? given : STDOUT_FILENO, &c->out, e);

	if (!rc)
		rc = command_take(given ? conf->command_err : STDERR_FILENO, &c->err, e);
	/* Somebody who may come and go: the stream has no end that the command could see. */
	if (!rc && given && conf->interactive)
		rc = command_take(conf->command_in, &c->in, e);
	/* What a person types goes to the guest only if they say so, and never to a background
	 * job; everything else is passed on. */
	if (!rc && !given && (!person || (conf->interactive && terminal_may_read())))
		rc = command_take(STDIN_FILENO, &c->in, e);
	c->raw = !rc && person && c->in >= 0 && conf->tty;
	return rc;
}

/* They were the user's own. */
void command_drain(struct command *c)
{
	(void)c;
}
