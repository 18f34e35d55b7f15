/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * WinHvPlatform.dll, found at run time: a Windows without the feature still starts the program and
 * gets a sentence instead of a loader's dialogue. Only the system's own directory is searched.
 */
#include <windows.h>

#include <errno.h>
#include <string.h>

#include <insula/base.h>

#include "hv/whp/backend.h"

#define SLOT(name, field, required)                             \
	{                                                       \
		name, offsetof(struct whp_api, field), required \
	}

static const struct {
	const char *name;
	size_t at;
	bool required;
} functions[] = {
	SLOT("WHvGetCapability", get_capability, true),
	SLOT("WHvCreatePartition", create_partition, true),
	SLOT("WHvSetupPartition", setup_partition, true),
	SLOT("WHvDeletePartition", delete_partition, true),
	SLOT("WHvSetPartitionProperty", set_property, true),
	SLOT("WHvMapGpaRange", map, true),
	SLOT("WHvUnmapGpaRange", unmap, true),
	SLOT("WHvQueryGpaRangeDirtyBitmap", query_dirty, true),
	SLOT("WHvCreateVirtualProcessor", create_vp, true),
	SLOT("WHvDeleteVirtualProcessor", delete_vp, true),
	SLOT("WHvRunVirtualProcessor", run, true),
	SLOT("WHvCancelRunVirtualProcessor", cancel, true),
	SLOT("WHvGetVirtualProcessorRegisters", get_registers, true),
	SLOT("WHvSetVirtualProcessorRegisters", set_registers, true),
	SLOT("WHvRequestInterrupt", request_interrupt, true),
	SLOT("WHvCreateNotificationPort", create_port, false),
	SLOT("WHvDeleteNotificationPort", delete_port, false),
	SLOT("WHvRegisterPartitionDoorbellEvent", register_doorbell, false),
	SLOT("WHvUnregisterPartitionDoorbellEvent", unregister_doorbell, false),
	SLOT("WHvSuspendPartitionTime", suspend_time, false),
	SLOT("WHvGetPartitionProperty", get_property, false),
	SLOT("WHvGetVirtualProcessorXsaveState", get_xsave, false),
	SLOT("WHvSetVirtualProcessorXsaveState", set_xsave, false),
	SLOT("WHvGetVirtualProcessorInterruptControllerState2", get_lapic, false),
	SLOT("WHvSetVirtualProcessorInterruptControllerState2", set_lapic, false),
	SLOT("WHvGetVirtualProcessorCpuidOutput", cpuid, false),
};

/* The library stays loaded: a partition may outlive any one caller. */
int whp_load(struct whp_api *api, struct err *e)
{
	HMODULE dll = LoadLibraryExW(L"WinHvPlatform.dll", NULL, LOAD_LIBRARY_SEARCH_SYSTEM32);

	memset(api, 0, sizeof(*api));
	if (!dll)
		return err_set(e, -ENOSYS,
			       "WinHvPlatform.dll cannot be loaded (error %lu): enable the "
			       "Windows feature HypervisorPlatform",
			       GetLastError());
	for (size_t i = 0; i < ARRAY_LEN(functions); i++) {
		FARPROC f = GetProcAddress(dll, functions[i].name);

		if (!f && functions[i].required)
			return err_set(e, -ENOSYS,
				       "WinHvPlatform.dll lacks %s: Windows 10 1809 or newer is "
				       "needed",
				       functions[i].name);
		memcpy((char *)api + functions[i].at, &f, sizeof(f));
	}
	return 0;
}

int hv_vm_create(struct hv_vm **out, const struct hv_vm_params *p, struct err *e)
{
	struct whp_api api;
	int r = whp_load(&api, e);

	*out = NULL;
	return r < 0 ? r : whp_vm_create(out, p, &api, e);
}
