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

int genid_place(struct vmm *vm, const uint8_t id[GENID_LEN], const uint64_t clock[2], struct err *e)
{
	uint8_t *at = gm_ptr(&vm->gm, BOARD_GENID, GENID_LEN);
	struct vmclock *page = gm_ptr(&vm->gm, BOARD_VMCLOCK, BOARD_VMCLOCK_SIZE);

	if (!at || !page)
		return err_set(e, -EINVAL, "generation identifier: no RAM at 0x%llx", BOARD_GENID);
	memcpy(at, id, GENID_LEN);
	*page = (struct vmclock){
		.magic = VMCLOCK_MAGIC,
		.size = BOARD_VMCLOCK_SIZE,
		.version = 1,
		.counter_id = VMCLOCK_NO_COUNTER,
		/* Even, and another one than before a restore: a reader that slept begins again. */
		.seq_count = (page->seq_count + 2) & ~1u,
		.disruption_marker = clock[0],
		.flags = VMCLOCK_HAS_GENERATION | VMCLOCK_NOTIFIES,
		.generation = clock[1],
	};
	return 0;
}

int genid_renew(struct vmm *vm, const uint8_t id[GENID_LEN], const uint64_t clock[2], struct err *e)
{
	int rc = genid_place(vm, id, clock, e);

	if (!rc) {
		atomic_fetch_or(&vm->cpus_news, BOARD_CPUS_NEWS_GENID);
		event_signal(vm->acpi_event);
	}
	return rc;
}
