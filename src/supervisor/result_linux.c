/* SPDX-License-Identifier: BSD-2-Clause */
/* The end of a struct vm: see vm.h and result.h. */
#include <string.h>

#include <insula/base.h>

#include "result.h"
#include "vm.h"

void result_from_exit(struct vm *vm)
{
	struct ending end = {.status = vm->status};

	ending_of(&vm->exit, vm->boot.own_initrd, vm->conf->command != NULL, &end);
	vm->status = end.status;
	memcpy(vm->why, end.why, sizeof(vm->why));
}

json_object *result_json(const struct vm *vm)
{
	struct result r = {.reason = vm->reason,
			   .command_ended = vm->command.ended,
			   .have_exit = vm->have_exit,
			   .status = vm->status,
			   .why = vm->why,
			   .started_ns = vm->started_ns,
			   .exit = &vm->exit,
			   .ndevices = vm->ndevices};

	for (unsigned i = 0; i < vm->ndevices; i++) {
		const struct device *d = &vm->device[i];

		r.device[i] = (struct result_device){
			.name = d->desc.name,
			.engine = d->class->engine ? d->class->engine(d) : NULL,
			.restarts = d->restart.total,
			.stats = &d->stats,
			.names = d->class->stats,
		};
	}
	return result_object(&r);
}

void metrics_write(const struct vm *vm)
{
	if (vm->conf->metrics && vm->running)
		result_write(vm->conf->metrics, result_json(vm));
}
