/* SPDX-License-Identifier: BSD-2-Clause */
/* insula-run.exe: the command line of one microVM. Flags become a struct vm_config, as on Linux. */
#include <windows.h>

#include <errno.h>
#include <fcntl.h>
#include <io.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>
#include <insula/log.h>

#include "spec/utf8_win.h"
#include "spec/options.h"
#include "supervisor/vm_win.h"

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

static void run(struct options *o, struct ending *end)
{
	/* From here on nobody waits for whoever reads our standard error. Under insulad that is a
	 * file, and lines go to the VM's log. */
	int rc = o->check_only || o->control ? 0 : log_queue_start(NULL);

	if (!rc) {
		vm_win_run(&o->conf, o->control, o->check_only, o->verbose > 0, end);
		return;
	}
	end->status = RUN_FAILED;
	snprintf(end->why, sizeof(end->why), "the log's thread: error %d", -rc);
	vm_win_refused(o->control, end);
}

int main(void)
{
	struct ending end = {0};
	struct options o = {.about = about, .use_control = use_control};
	struct err e = {0};
	int argc = 0;
	char **argv = utf8_arguments(&argc);

	_setmode(_fileno(stdout), _O_BINARY);
	_setmode(_fileno(stderr), _O_BINARY);
	config_init(&o.conf);
	if (!argv || options_parse(&o, argc, argv, &e)) {
		end.status = RUN_BAD_INPUT;
		snprintf(end.why, sizeof(end.why), "%s", argv ? e.text : "arguments");
		vm_win_refused(o.control, &end);
	} else {
		log_setup("insula-run", o.verbose > 1   ? LOG_LVL_DEBUG
					: o.verbose > 0 ? LOG_LVL_INFO
							: LOG_LVL_WARN);
		run(&o, &end);
		if (o.check_only && !end.status)
			puts("insula-run: the configuration is good; nothing was started");
	}
	if (end.why[0])
		log_line("insula-run: %s", end.why);
	config_free(&o.conf);
	log_queue_finish();
	fflush(NULL);
	return end.status;
}
