/* SPDX-License-Identifier: BSD-2-Clause */
/* insula-run: the command line of one microVM. Flags and JSON become a struct vm_config;
 * src/supervisor does the rest. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <insula/base.h>

#include "spec/options.h"
#include "supervisor/control/control_linux.h"
#include "supervisor/run.h"

static const char about[] =
	"usage: insula-run [options] [--] [command [arg...]]\n"
	"\n"
	"Run one microVM, every device in a jailed process of its own. With a command,\n"
	"the guest runs it as its only task and insula-run exits with its status; without\n"
	"one, the guest boots what the initrd or the root disk holds.\n"
	"\n";

/* insulad's side of it has opened FD, FD + 1 and FD + 2. */
static int use_control(struct options *o, const char *text, struct err *e)
{
	char *end;
	long fd = strtol(text, &end, 10);

	for (long i = fd; i <= fd + 2; i++) {
		if (*end || fd <= STDERR_FILENO || fd > 1000 || fcntl((int)i, F_GETFD) < 0)
			return err_set(e, -EINVAL,
				       "--control: '%.20s'; expected a descriptor from insulad",
				       text);
	}
	return control_open(&o->control, (int)fd, &o->conf, e);
}

int main(int argc, char **argv)
{
	struct options o = {.about = about, .use_control = use_control};

	fd_occupy_standard();
	return run_main(&o, argc, argv);
}
