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
	struct options o = {.about = about, .use_control = use_control};
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
