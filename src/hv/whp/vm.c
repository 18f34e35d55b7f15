/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Creating and destroying a partition of the Windows Hypervisor Platform.
 *
 * Stages of whp_vm_create(): look at what the hypervisor can do, create the partition, set its
 * properties (all of them before it is set up), set it up. The required set is that of Windows 10
 * 1809; what is optional is tried and its refusal is no error.
 *
 * Optional, and why: MSR exits (without them the hypervisor itself answers an unknown MSR with
 * #GP, as we would), a security domain of its own (keeps side channels between VMs of one process
 * apart where the host knows the property), the Hyper-V leaves and frequency MSRs (a Linux guest
 * takes the frequency of its clocks from them; without them, on Intel, from CPUID leaf 0x15).
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>

#include "hv/whp/backend.h"

#define PHYS_BITS_DEFAULT 52

static const struct {
	whp_hr hr;
	int code;
	const char *name;
} results[] = {
	{WHP_E_INVALIDARG, -EINVAL, "invalid argument"},
	{WHP_E_OUTOFMEMORY, -ENOMEM, "out of memory"},
	{WHP_E_ACCESSDENIED, -EACCES, "access denied"},
	{WHP_E_NOTIMPL, -ENOSYS, "not implemented"},
	{WHP_E_UNKNOWN_CAPABILITY, -EOPNOTSUPP, "unknown capability"},
	{WHP_E_UNKNOWN_PROPERTY, -EOPNOTSUPP, "unknown property"},
	{WHP_E_UNSUPPORTED_CONFIG, -EOPNOTSUPP, "unsupported hypervisor configuration"},
	{WHP_E_INVALID_CONFIG, -EINVAL, "invalid partition configuration"},
	{WHP_E_RANGE_NOT_FOUND, -ENOENT, "no such range of guest memory"},
	{WHP_E_VP_EXISTS, -EEXIST, "the virtual processor exists"},
	{WHP_E_NO_SUCH_VP, -ENOENT, "no such virtual processor"},
};

int whp_errno(whp_hr hr)
{
	if (hr >= 0)
		return 0;
	for (size_t i = 0; i < ARRAY_LEN(results); i++)
		if (results[i].hr == hr)
			return results[i].code;
	return -EIO;
}

static const char *result_name(whp_hr hr)
{
	for (size_t i = 0; i < ARRAY_LEN(results); i++)
		if (results[i].hr == hr)
			return results[i].name;
	return "unknown";
}

int whp_fail(struct err *e, whp_hr hr, const char *fmt, ...)
{
	char what[128];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	return err_set(e, whp_errno(hr), "%s: HRESULT 0x%08x, %s", what, (unsigned)hr,
		       result_name(hr));
}

/* ---- what the hypervisor can do ---- */

static uint64_t capability(const struct whp_api *api, uint32_t code, uint32_t size)
{
	uint64_t v = 0;
	uint32_t written = 0;

	return api->get_capability(code, &v, size, &written) < 0 || written > size ? 0 : v;
}

static int check_host(struct hv_vm *vm, struct err *e)
{
	const struct whp_api *api = &vm->api;
	uint64_t features;

	if (!(uint32_t)capability(api, WHP_CAP_PRESENT, 4))
		return err_set(e, -EOPNOTSUPP,
			       "no hypervisor runs: enable the Windows feature HypervisorPlatform "
			       "and virtualization in the firmware");
	features = capability(api, WHP_CAP_FEATURES, 8);
	if (!(features & WHP_FEATURE_LAPIC))
		return err_set(e, -EOPNOTSUPP,
			       "the hypervisor lacks LocalApicEmulation (features 0x%llx): Windows "
			       "10 1809 or newer is needed",
			       (unsigned long long)features);
	if (!(capability(api, WHP_CAP_EXITS, 8) & WHP_EXT_CPUID))
		return err_set(e, -EOPNOTSUPP, "the hypervisor lacks X64CpuidExit");
	vm->dirty = features & WHP_FEATURE_DIRTY;
	vm->amd = (uint32_t)capability(api, WHP_CAP_VENDOR, 4) != WHP_VENDOR_INTEL;
	vm->tsc_hz = capability(api, WHP_CAP_CLOCK, 8);
	vm->apic_hz = capability(api, WHP_CAP_APIC_CLOCK, 8);
	return 0;
}

/* ---- properties ---- */

static int set(struct hv_vm *vm, uint32_t code, const void *v, uint32_t size, const char *name,
	       struct err *e)
{
	whp_hr hr = vm->api.set_property(vm->partition, code, v, size);

	return hr < 0 ? whp_fail(e, hr, "partition property %s", name) : 0;
}

/* A property that this Windows does not know is left out; any other failure counts. */
static int try_set(struct hv_vm *vm, uint32_t code, const void *v, uint32_t size, const char *name,
		   struct err *e)
{
	whp_hr hr = vm->api.set_property(vm->partition, code, v, size);

	if (hr >= 0 || hr == WHP_E_UNKNOWN_PROPERTY || hr == WHP_E_INVALIDARG ||
	    hr == WHP_E_NOTIMPL)
		return 0;
	return whp_fail(e, hr, "partition property %s", name);
}

static int set_lapic(struct hv_vm *vm, struct err *e)
{
	uint32_t mode = WHP_LAPIC_X2APIC;

	if (vm->api.set_property(vm->partition, WHP_PROP_LAPIC, &mode, sizeof(mode)) >= 0)
		return 0;
	mode = WHP_LAPIC_XAPIC;
	return set(vm, WHP_PROP_LAPIC, &mode, sizeof(mode), "LocalApicEmulationMode", e);
}

static int set_exits(struct hv_vm *vm, struct err *e)
{
	uint64_t exits = capability(&vm->api, WHP_CAP_EXITS, 8) & (WHP_EXT_CPUID | WHP_EXT_MSR);
	uint64_t msrs = WHP_MSR_UNHANDLED;
	int r = set(vm, WHP_PROP_EXITS, &exits, sizeof(exits), "ExtendedVmExits", e);

	if (r == 0)
		r = set(vm, WHP_PROP_CPUID_EXITS, whp_cpuid_exits, whp_cpuid_nexits * 4,
			"CpuidExitList", e);
	if (r == 0 && (exits & WHP_EXT_MSR))
		r = try_set(vm, WHP_PROP_MSR_BITMAP, &msrs, sizeof(msrs), "X64MsrExitBitmap", e);
	return r;
}

/* Only what the host offers: one bit too many and the whole property is refused. */
static int set_synthetic(struct hv_vm *vm, struct err *e)
{
	const uint64_t wanted = WHP_SYN_PRESENT | WHP_SYN_HV1 | WHP_SYN_REFERENCE_COUNTER |
				WHP_SYN_HYPERCALL | WHP_SYN_VP_INDEX | WHP_SYN_REFERENCE_TSC |
				WHP_SYN_FREQUENCY;
	struct whp_synthetic s = {0};
	uint32_t written = 0;

	if (vm->api.get_capability(WHP_CAP_SYNTHETIC, &s, sizeof(s), &written) < 0 || s.banks < 1)
		return 0;
	s.banks = 1;
	s.reserved = 0;
	s.bank0 &= wanted;
	if ((s.bank0 & wanted) != wanted) /* half of it would mislead the guest */
		return 0;
	return try_set(vm, WHP_PROP_SYNTHETIC, &s, sizeof(s), "SyntheticProcessorFeaturesBanks", e);
}

static int set_properties(struct hv_vm *vm, struct err *e)
{
	uint32_t n = vm->ncpus, yes = 1;
	int r = set(vm, WHP_PROP_PROCESSORS, &n, sizeof(n), "ProcessorCount", e);

	if (r == 0)
		r = set_lapic(vm, e);
	if (r == 0)
		r = set_exits(vm, e);
	if (r == 0)
		r = try_set(vm, WHP_PROP_SECURITY_DOMAIN, &yes, sizeof(yes),
			    "SeparateSecurityDomain", e);
	if (r == 0)
		r = set_synthetic(vm, e);
	return r;
}

/* ---- the VM ---- */

static struct hv_vm *alloc_vm(const struct hv_vm_params *p, const struct whp_api *api)
{
	struct hv_vm *vm = calloc(1, sizeof(*vm));

	if (!vm)
		return NULL;
	vm->api = *api;
	vm->ncpus = p->ncpus;
	vm->nlines = p->nlines;
	vm->phys_bits = PHYS_BITS_DEFAULT;
	for (unsigned i = 0; i < HV_MAX_LINES; i++)
		vm->line[i].vm = vm;
	whp_lock_init(&vm->lock);
	whp_lock_init(&vm->mem_lock);
	return vm;
}

static int create_partition(struct hv_vm *vm, struct err *e)
{
	whp_hr hr = vm->api.create_partition(&vm->partition);
	int r;

	if (hr < 0) {
		vm->partition = NULL;
		return whp_fail(e, hr, "WHvCreatePartition");
	}
	r = set_properties(vm, e);
	if (r < 0)
		return r;
	hr = vm->api.setup_partition(vm->partition);
	return hr < 0 ? whp_fail(e, hr, "WHvSetupPartition") : 0;
}

int whp_vm_create(struct hv_vm **out, const struct hv_vm_params *p, const struct whp_api *api,
		  struct err *e)
{
	struct hv_vm *vm;
	int r = hv_check_params(p, e);

	*out = NULL;
	if (r == 0 && p->epc_size)
		r = err_set(e, -EOPNOTSUPP, "memory for enclaves; expected none");
	if (r < 0)
		return r;
	vm = alloc_vm(p, api);
	if (!vm)
		return err_set(e, -ENOMEM, "no memory for the VM");
	r = check_host(vm, e);
	if (r == 0)
		r = create_partition(vm, e);
	if (r < 0) {
		hv_vm_destroy(vm);
		return r;
	}
	*out = vm;
	return 0;
}

int hv_vm_assign(struct hv_vm *vm, hv_event device, struct err *e)
{
	(void)vm;
	(void)device;
	return err_set(e, -EOPNOTSUPP, "devices of the host: expected Linux");
}

int hv_vm_unassign(struct hv_vm *vm, hv_event device, struct err *e)
{
	(void)vm, (void)device, (void)e;
	return 0;
}

int hv_vm_assigns(struct hv_vm *vm, struct err *e)
{
	return hv_vm_assign(vm, 0, e);
}

void hv_vm_destroy(struct hv_vm *vm)
{
	if (!vm)
		return;
	for (unsigned i = 0; i < HV_MAX_LINES; i++)
		if (vm->line[i].watch)
			whp_unwatch(vm->line[i].watch);
	for (unsigned i = 0; i < WHP_MAX_DOORBELLS; i++)
		if (vm->bell[i].used)
			hv_doorbell_unbind(vm, &vm->bell[i].d, NULL);
	if (vm->partition)
		vm->api.delete_partition(vm->partition);
	for (unsigned i = 0; i < HV_MAX_SLOTS; i++)
		free(vm->slot[i].written);
	whp_lock_destroy(&vm->lock);
	whp_lock_destroy(&vm->mem_lock);
	free(vm);
}
