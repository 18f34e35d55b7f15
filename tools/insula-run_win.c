/* SPDX-License-Identifier: BSD-2-Clause */
/* insula-run.exe: the command line of one microVM. Flags become a struct vm_config, as on Linux. */
#include <windows.h>

#include <errno.h>
#include <fcntl.h>
#include <io.h>
#include <shellapi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>
#include <insula/log.h>

#include "supervisor/options.h"
#include "supervisor/vm_win.h"

static const char usage[] =
	"usage: insula-run --kernel FILE [options]\n"
	"\n"
	"Run one microVM on the Windows Hypervisor Platform, every device in a contained process "
	"of\n"
	"its own.\n"
	"\n"
	"  --kernel FILE     bzImage or ELF\n"
	"  --initrd FILE     used as it is\n"
	"  --append STRING   added to the kernel command line\n"
	"  --cpus N          vCPUs, 1 to 32 (default 1)\n"
	"  --mem SIZE        memory with K, M or G (default 256M)\n"
	"  --disk path=FILE[,ro][,direct][,serial=S]\n"
	"                    a raw image; repeat for /dev/vdb ...\n"
	"  --console stdio|stderr|none|file=FILE\n"
	"                    the serial console (default stdio, where Ctrl-A x ends the VM)\n"
	"  --vsock path=\\\\.\\pipe\\NAME[,cid=N]\n"
	"                    vsock streams through named pipes: clients say CONNECT PORT at NAME;\n"
	"                    the guest's port N of the host is NAME_N\n"
	"  --rng on|off|rate=BYTES\n"
	"                    virtio-rng (default on, 1M bytes a second at most)\n"
	"  --json FILE|-     the same settings as one JSON object; flags win\n"
	"  -n                check everything, start nothing\n"
	"  --metrics FILE    write counters as JSON at the end\n"
	"  --timeout SECONDS end the VM after so long, with status 124\n"
	"  -v                say what happens, show the kernel's messages (-vv: more)\n"
	"  --help, --version\n"
	"\n"
	"Exit status: the guest's; 120 guest panic, 121 guest crash, 124 timeout, 125 failure of\n"
	"Insula, 130 interrupt, 2 bad input (nothing was started).\n";

static int use_control(struct options *o, const char *text, struct err *e)
{
	(void)o;
	return err_set(e, -EOPNOTSUPP, "--control: '%.20s': there is no insulad on Windows yet",
		       text);
}

/* The arguments in UTF-8, which is what every text is in here. */
static char **utf8_arguments(int *argc)
{
	wchar_t **wide = CommandLineToArgvW(GetCommandLineW(), argc);
	char **argv = wide ? calloc((size_t)*argc + 1, sizeof(*argv)) : NULL;

	for (int i = 0; argv && i < *argc; i++) {
		int n = WideCharToMultiByte(CP_UTF8, 0, wide[i], -1, NULL, 0, NULL, NULL);

		argv[i] = n > 0 ? malloc((size_t)n) : NULL;
		if (!argv[i])
			return NULL;
		WideCharToMultiByte(CP_UTF8, 0, wide[i], -1, argv[i], n, NULL, NULL);
	}
	return argv;
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
	} else {
		log_setup("insula-run", o.verbose > 1   ? LOG_LVL_DEBUG
					: o.verbose > 0 ? LOG_LVL_INFO
							: LOG_LVL_WARN);
		vm_win_run(&o.conf, o.check_only, o.verbose > 0, &end);
		if (o.check_only && !end.status)
			puts("insula-run: the configuration is good; nothing was started");
	}
	if (end.why[0])
		fprintf(stderr, "insula-run: %s\n", end.why);
	config_free(&o.conf);
	fflush(NULL);
	return end.status;
}
