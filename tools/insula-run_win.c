/* SPDX-License-Identifier: BSD-2-Clause */
/* insula-run.exe: the command line of one microVM. Flags become a struct vm_config, as on Linux. */
#include <windows.h>

#include <fcntl.h>
#include <io.h>
#include <stdio.h>

#include <insula/base.h>

#include "spec/utf8_win.h"
#include "spec/options.h"
#include "supervisor/control/control_win.h"
#include "supervisor/run.h"

static const char about[] =
	"usage: insula-run [options] [-- COMMAND [ARGUMENT ...]]\n"
	"\n"
	"Run one microVM on the Windows Hypervisor Platform, every device in a contained\n"
	"process of its own; with a command, run that in it.\n"
	"\n";

static int use_control(struct options *o, const char *text, struct err *e)
{
	return control_open(&o->control, text, &o->conf, e);
}

int main(void)
{
	struct options o = {.about = about, .use_control = use_control};
	int argc = 0, status;
	char **argv = utf8_arguments(&argc);

	_setmode(_fileno(stdout), _O_BINARY);
	_setmode(_fileno(stderr), _O_BINARY);
	if (!argv)
		panic("arguments");
	status = run_main(&o, argc, argv);
	fflush(NULL);
	return status;
}
