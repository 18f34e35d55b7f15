/* SPDX-License-Identifier: BSD-2-Clause */
/* The user's streams and terminal on Windows. See command.h. */
#include "os/win/win.h"

#include <errno.h>
#include <stdlib.h>

#include "command.h"
#include "spec/config.h"
#include "supervisor/backing/ends_win.h"

/* insulad's clients: they come and go, so the command sees no end of its input. */
static int given_streams(struct command *c, const struct vm_config *conf, struct err *e)
{
	c->out = stream_copy(conf->command_out);
	c->err = stream_copy(conf->command_err);
	if (conf->interactive)
		c->in = stream_copy(conf->command_in);
	return c->out < 0 || c->err < 0 || (conf->interactive && c->in < 0)
		       ? err_set(e, -EIO, "console: no handle")
		       : 0;
}

int command_streams(struct command *c, const struct vm_config *conf, struct err *e)
{
	bool person = std_is_window(STD_INPUT_HANDLE);
	void *input = NULL;
	int rc;

	if (conf->command_out)
		return given_streams(c, conf, e);
	rc = std_open(STD_OUTPUT_HANDLE, &c->out, &c->pump[0], e);
	if (!rc)
		rc = std_open(STD_ERROR_HANDLE, &c->err, &c->pump[1], e);
	/* What a person types goes to the guest only if they say so; all else is passed on. */
	if (!rc && (!person || conf->interactive))
		rc = std_open(STD_INPUT_HANDLE, &c->in, &input, e);
	if (input)
		CloseHandle(input); /* it waits for a key, and goes with the process */
	c->raw = !rc && person && c->in >= 0 && conf->tty;
	return rc;
}

void command_drain(struct command *c)
{
	std_drain(&c->pump[0]);
	std_drain(&c->pump[1]);
}
