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

static const char usage[] =
	"usage: insula-run [options] [-- COMMAND [ARGUMENT ...]]\n"
	"\n"
	"Run one microVM on the Windows Hypervisor Platform, every device in a contained process "
	"of\n"
	"its own; with a command, run that in it.\n"
	"\n"
	"  --kernel FILE     bzImage or ELF (default: guest\\vmlinuz beside this program)\n"
	"  --initrd FILE     used as it is (default: Insula's own, insula-initrd beside the "
	"kernel)\n"
	"  --append STRING   added to the kernel command line\n"
	"  --cpus N          vCPUs, 1 to 32 (default 1)\n"
	"  --mem SIZE        memory with K, M or G (default 256M)\n"
	"  --disk path=FILE[,ro][,direct][,serial=S][,engine=threads]\n"
	"                    a raw image; repeat for /dev/vdb ...\n"
	"  --rootfs IMAGE[,rw]\n"
	"                    root file system: a raw image; read-only below, memory above, unless "
	"rw\n"
	"  --console stdio|stderr|none|file=FILE[,limit=SIZE]\n"
	"                    the serial console (default: with a command stderr, else stdio, "
	"where\n"
	"                    Ctrl-A x ends the VM)\n"
	"  --vsock path=\\\\.\\pipe\\NAME[,cid=N]\n"
	"                    vsock streams through named pipes: clients say CONNECT PORT at NAME;\n"
	"                    the guest's port N of the host is NAME_N\n"
	"  --rng on|off|rate=BYTES\n"
	"                    virtio-rng (default on, 1M bytes a second at most)\n"
	"  -i                pass standard input on, also from a console window (default: not from "
	"one)\n"
	"  -t                give the command a terminal; with -i your console window becomes its\n"
	"                    keyboard, and Ctrl-] three times within a second ends the VM\n"
	"  -e NAME=VALUE     a variable for the command; -e NAME takes yours\n"
	"  -w DIR            its directory (default /)\n"
	"  -u UID[:GID]      its user (default 0)\n"
	"  --json FILE|-     the same settings as one JSON object; flags win\n"
	"  -n                check everything, start nothing\n"
	"  --metrics FILE    write counters as JSON at the end\n"
	"  --timeout SECONDS end the VM after that time, with status 124\n"
	"  -v                say what happens, show the kernel's messages (-vv: more)\n"
	"  --help, --version\n"
	"\n"
	"Exit status: the command's; 128+N for a signal; 120 guest panic, 121 guest crash, 122 "
	"the\n"
	"guest ended before the command did, 124 timeout, 125 failure of Insula, 126 and 127 as a\n"
	"shell, 2 bad input (nothing was started).\n";

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
	struct options o = {.usage = usage, .use_control = use_control};
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
