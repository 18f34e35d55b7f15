/* SPDX-License-Identifier: BSD-2-Clause */
/* Where the generation identifier lies, and its interrupt. See genid.h. */
#include <errno.h>
#include <string.h>

#include <insula/base.h>

#include "genid.h"
#include "ioapic.h"
#include "vmm/vmm.h"

_Static_assert(BOARD_GENID % 8 == 0, "the paper asks for that alignment");

int genid_init(struct vmm *vm, struct err *e)
{
	vm->acpi_event = event_create();
	if (vm->acpi_event < 0)
		return err_sys(e, vm->acpi_event, "eventfd");
	return ioapic_set_event(vm->ioapic, BOARD_GSI_EVENTS, vm->acpi_event, e);
}

int genid_place(struct vmm *vm, const uint8_t id[GENID_LEN], struct err *e)
{
	uint8_t *at = gm_ptr(&vm->gm, BOARD_GENID, GENID_LEN);

	if (!at)
		return err_set(e, -EINVAL, "generation identifier: no RAM at 0x%llx", BOARD_GENID);
	memcpy(at, id, GENID_LEN);
	return 0;
}

int genid_renew(struct vmm *vm, const uint8_t id[GENID_LEN], struct err *e)
{
	int rc = genid_place(vm, id, e);

	if (!rc) {
		atomic_fetch_or(&vm->cpus_news, BOARD_CPUS_NEWS_GENID);
		event_signal(vm->acpi_event);
	}
	return rc;
}
