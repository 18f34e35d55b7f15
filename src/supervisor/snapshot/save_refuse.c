/* SPDX-License-Identifier: BSD-2-Clause */
/* What cannot be part of a snapshot. See save.h. */
#include <errno.h>

#include "pages.h"
#include "save.h"
#include "supervisor/plug.h"
#include "supervisor/vm.h"

static int refuse_device(const struct device *d, struct err *e)
{
	const char *why;
	int rc;

	if (device_is_empty(d))
		return 0;
	rc = pages_unsaved(d, &why, e);
	if (rc)
		return rc;
	if (why)
		return err_set(e, -EOPNOTSUPP, "%s: %s", d->desc.name, why);
	why = d->class->unsaved_so ? d->class->unsaved_so(d) : NULL;
	if (why)
		return err_set(e, -EOPNOTSUPP, "%s: %s", d->desc.name, why);
	if (d->child.state != CHILD_READY)
		return err_set(e, -EAGAIN, "%s has no helper at the moment", d->desc.name);
	return 0;
}

int save_refuses(const struct vm *vm, struct err *e)
{
	int rc = 0;

	if (!vm_is_running(vm))
		return err_set(e, -EBUSY, "the guest does not run");
	if (standing_is(vm) && !control_is_paused(vm->control))
		return err_set(e, -EBUSY, "it does not stand yet");
	if (save_active(vm))
		return err_set(e, -EBUSY, "another snapshot is under way");
	if (!vm->conf->json)
		return err_set(e, -EOPNOTSUPP, "the VM has no configuration in JSON");
	if (vm->conf->rootfs_size)
		return err_set(e, -EOPNOTSUPP,
			       "rootfs-size: that disk has no name, and cannot be "
			       "part of a snapshot");
	if (vm->conf->seed.on)
		return err_set(e, -EOPNOTSUPP,
			       "cloud-init: that disk is made for the run, and cannot be part of a "
			       "snapshot");
	if (vm->conf->sgx)
		return err_set(e, -EOPNOTSUPP,
			       "sgx: nobody but its processor can read the memory for enclaves, "
			       "and it cannot be part of a snapshot");
	if (plug_present(vm))
		return err_set(e, -EOPNOTSUPP,
			       "%s: it came while the VM ran, and cannot be part of a snapshot; "
			       "expected none: remove it first",
			       plug_present(vm));
	for (unsigned i = 0; i < vm->ndevices && !rc; i++)
		rc = refuse_device(&vm->device[i], e);
	return rc;
}
