/* SPDX-License-Identifier: BSD-2-Clause */
/* insula-run: the command line of one microVM. Flags and JSON become a struct vm_config;
 * src/supervisor does the rest. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/log.h>

#include "spec/options.h"
#include "supervisor/vm.h"

static const char usage[] =
	"usage: insula-run [options] [--] [command [arg...]]\n"
	"\n"
	"Run one microVM, every device in a jailed process of its own. With a command, the guest\n"
	"runs it as its only task and insula-run exits with its status; without one, the guest\n"
	"boots what the initrd or the root disk holds.\n"
	"\n"
	"  --kernel FILE[,packed]\n"
	"                    bzImage or ELF (default: the one that insula-get-kernel fetched, "
	"else\n"
	"                    /boot/vmlinuz-$(uname -r)); a bzImage is unpacked once and cached, "
	"packed\n"
	"                    boots it as it is (slower; the kernel then chooses a random address)\n"
	"  --initrd FILE     used as it is (default: Insula's own, with a static busybox)\n"
	"  --append STRING   added to the kernel command line\n"
	"  --cpus N          vCPUs, 1 to 32 (default 1)\n"
	"  --mem SIZE[,hugepages]\n"
	"                    memory such as 512M or 2G (default 256M); hugepages: all of it from "
	"the "
	"start,\n"
	"                    in huge pages (Linux 6.1 or newer)\n"
	"  --disk [path=]FILE[,ro][,direct][,serial=S][,engine=threads]\n"
	"                    a raw image or block device; repeat for /dev/vdb ...\n"
	"  --rootfs DIR|IMAGE[,rw]\n"
	"                    root file system: a directory (packed once, cached) or a raw image;\n"
	"                    read-only below, memory above, unless rw (images only)\n"
	"  --share DIR:GUESTDIR[:ro]\n"
	"                    a directory of the host in the guest: a copy, packed once and "
	"cached,\n"
	"                    which the guest can only read (sharing it live comes with virtio-fs)\n"
	"  --console stdio|stderr|pty|none|file=FILE[,limit=SIZE]\n"
	"                    the serial console (default: with a command stderr, else stdio, "
	"where\n"
	"                    Ctrl-A x ends the VM and Ctrl-A h helps)\n"
	"  --net tap=NAME|fd=N|user|socket=PATH[,mac=M][,queues=N][,mtu=N][,rate=BYTES][,pps=N]\n"
	"        [,fwd=[tcp:|udp:][ADDR:]HOST:GUEST][,ip=ADDR/LEN[,gw=A][,dns=A]]\n"
	"                    a network card: a TAP, passt, or a switch's socket; repeat for eth1 "
	"...\n"
	"  --rng on|off|rate=BYTES\n"
	"                    virtio-rng (default on, 1M bytes a second at most)\n"
	"  --vsock [path=]FILE[,cid=N]\n"
	"                    virtio-vsock: a socket for the host's clients (\"CONNECT <port>\"); "
	"the "
	"guest\n"
	"                    reaches FILE_<port>\n"
	"  -i                pass standard input on, also from a terminal (default: not from one)\n"
	"  -t                give the command a terminal; with -i yours becomes its keyboard, and\n"
	"                    Ctrl-] three times within a second ends the VM\n"
	"  -e NAME=VALUE     a variable for the command; -e NAME takes yours\n"
	"  -w DIR            its directory (default /)\n"
	"  -u USER[:GROUP]   its user, a number or a name that the guest knows (default 0)\n"
	"  --json FILE|-     the same settings as one JSON object; flags win\n"
	"  -n                check everything, start nothing\n"
	"  --metrics FILE    write counters as JSON at the end\n"
	"  --timeout SECONDS end the VM after that time, with status 124\n"
	"  -v                say what happens, show the kernel's messages (-vv: more)\n"
	"  -h, --help, --version\n"
	"\n"
	"Exit status: the command's; 128+N for a signal; 120 guest panic, 121 guest crash, 122 "
	"the\n"
	"guest ended before the command did, 124 timeout, 125 failure of Insula, 126 and 127 as a\n"
	"shell, 2 bad input (nothing was started). See insula-run(1).\n";

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

static int fail(struct vm *vm, const struct err *e, int status)
{
	log_line("insula-run: %s", e->text);
	vm->status = status;
	snprintf(vm->why, sizeof(vm->why), "%s", e->text);
	return status;
}

/* From here on nobody waits for whoever reads our standard error. Signals are the main thread's. */
static int start_log(struct err *e)
{
	sigset_t all, old;
	int rc;

	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &old);
	rc = log_queue_start(NULL);
	sigprocmask(SIG_SETMASK, &old, NULL);
	return rc ? err_sys(e, rc, "the log's thread") : 0;
}

static int run(struct vm *vm, struct options *o)
{
	struct err e;
	int status, rc = o->check_only || o->control ? 0 : start_log(&e); /* insulad: its own log */

	if (rc)
		return fail(vm, &e, RUN_FAILED);
	rc = vm_open(vm, &o->conf, o->check_only, o->verbose > 0, &e);
	if (rc)
		return fail(vm, &e, vm->status);
	vm->control = o->control;
	if (o->check_only) {
		puts("insula-run: the configuration is good; nothing was started");
		status = 0;
	} else {
		status = vm_run(vm);
		if (vm->why[0])
			log_line("insula-run: %s", vm->why);
	}
	vm_close(vm);
	return status;
}

int main(int argc, char **argv)
{
	static struct vm vm; /* large */
	struct options o = {.usage = usage, .use_control = use_control};
	struct err e;
	int status, rc;

	fd_occupy_standard();
	config_init(&o.conf);
	rc = options_parse(&o, argc, argv, &e);
	log_setup("insula-run", o.verbose > 1   ? LOG_LVL_DEBUG
				: o.verbose > 0 ? LOG_LVL_INFO
						: LOG_LVL_WARN);
	status = rc ? fail(&vm, &e, RUN_BAD_INPUT) : run(&vm, &o);
	control_finish(o.control, &vm);
	config_free(&o.conf);
	log_queue_finish();
	return status;
}
