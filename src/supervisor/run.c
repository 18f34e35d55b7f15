/* SPDX-License-Identifier: BSD-2-Clause */
/* insula-run. See run.h. */
#include <errno.h>
#include <stdio.h>

#include <insula/log.h>

#include "supervisor/backing/image.h"
#include "supervisor/control/control.h"
#include "host.h"
#include "run.h"
#include "supervisor/snapshot/restore.h"
#include "vm.h"

static void run_refuse(struct vm *vm, const struct err *e, int status)
{
	vm->end.status = status;
	snprintf(vm->end.why, sizeof(vm->end.why), "%s", e->text);
}

static void run_vm(struct vm *vm, struct options *o)
{
	struct image_use *image = NULL;
	struct err e;
	int status;

	/* insulad: lines go to the VM's log, and standard error is a file. */
	if (!o->check_only && !o->control && host_start_log(&e)) {
		run_refuse(vm, &e, RUN_FAILED);
		return;
	}
	if (restore_take(&o->conf, &e)) {
		run_refuse(vm, &e, RUN_BAD_INPUT);
		goto out;
	}
	status = image_take(&image, &o->conf, o->check_only, &e);
	if (status) {
		run_refuse(vm, &e, status);
		goto out;
	}
	if (vm_open(vm, &o->conf, o->check_only, o->verbose > 0, &e)) {
		run_refuse(vm, &e, vm->end.status);
		goto out;
	}
	vm->control = o->control;
	if (o->check_only)
		puts("insula-run: the configuration is good; nothing was started");
	else
		vm_run(vm);
	vm_close(vm);
out:
	image_let_go(image);
	restore_free(o->conf.restoring);
	o->conf.restoring = NULL;
}

int run_main(struct options *o, int argc, char **argv)
{
	static struct vm vm; /* large */
	struct err e;
	int rc;

	config_init(&o->conf);
	rc = options_parse(o, argc, argv, &e);
	if (!rc && o->conf.paused && !o->control)
		rc = err_set(&e, -EINVAL,
			     "--paused: nobody could let it go on; expected a VM of insulad, such "
			     "as insulactl run makes");
	log_setup("insula-run", o->verbose > 1   ? LOG_LVL_DEBUG
				: o->verbose > 0 ? LOG_LVL_INFO
						 : LOG_LVL_WARN);
	if (rc)
		run_refuse(&vm, &e, RUN_BAD_INPUT);
	else
		run_vm(&vm, o);
	if (vm.end.why[0])
		log_line("insula-run: %s", vm.end.why);
	control_finish(o->control, &vm);
	config_free(&o->conf);
	log_queue_finish();
	return vm.end.status;
}
