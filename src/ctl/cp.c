/* SPDX-License-Identifier: BSD-2-Clause */
/* insulactl cp: its command line, and what became of it. See cp.h. */
#include "cp.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <insula/base.h>

#define COMMAND_MISSING 127 /* what exec says of it */
#define LINES 20            /* a guest may send nonsense without end */

/* "VM:PATH": what stands before the colon has no slash. NULL: a path of this host. */
static char *inside_of(char *arg)
{
	char *colon = strchr(arg, ':');
	const char *slash = strchr(arg, '/');

	return colon && colon > arg && (!slash || colon < slash) ? colon : NULL;
}

static int cp_sides(struct cp *c, char *from, char *to, struct err *e)
{
	char *a = inside_of(from), *b = inside_of(to), *colon = a ? a : b;

	if (!a == !b)
		return err_set(e, -EINVAL,
			       "cp: '%.80s' '%.80s'; expected VM:PATH as one of the two, and a "
			       "path of this host as the other",
			       from, to);
	c->into = !a;
	c->vm = a ? from : to;
	c->path = a ? to : from;
	c->inside = colon + 1;
	*colon = 0;
	if (!c->inside[0] || !c->path[0])
		return err_set(e, -EINVAL, "cp: an empty path; expected VM:PATH and a path");
	return 0;
}

void cp_left_out(void *ctx, const char *line)
{
	struct cp *c = ctx;

	char text[400];

	snprintf(text, sizeof(text), "cp: %s", line);
	if (++c->left_out <= LINES)
		print_message("", text);
}

/* As far as it went. */
static int cp_result(const struct cp *c)
{
	char line[400];

	if (c->left_out > LINES) {
		snprintf(line, sizeof(line), "cp: left out: %u more", c->left_out - LINES);
		print_message("", line);
	}
	if (c->status == COMMAND_MISSING) {
		print_message("", "cp: the guest has no tar (or sh), which cp needs");
	} else if (c->status) {
		snprintf(line, sizeof(line), "cp: tar in the guest ended with status %d%s%s",
			 c->status, c->said[0] ? ": " : "", c->said);
		print_message("", line);
	}
	return c->status || c->left_out ? CTL_REFUSED : 0;
}

int verb_cp(struct ctl *c, int argc, char **argv)
{
	struct cp cp = {.ctl = c, .follow = c->follow};
	struct err e;
	int rc;

	(void)argc;
	rc = cp_sides(&cp, argv[1], argv[2], &e);
	if (!rc)
		rc = cp.into ? cp_in(&cp, &e) : cp_out(&cp, &e);
	/* Of a tar that is not there, or has ended, nothing else is to be said. */
	if (rc && cp.status != COMMAND_MISSING && !(rc == -EPIPE && cp.status > 0))
		return ctl_fail(&e);
	return cp_result(&cp);
}
