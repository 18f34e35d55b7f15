/* SPDX-License-Identifier: BSD-2-Clause */
/* Records of state that every backend has. See records.h. */
#include <errno.h>
#include <string.h>

#include <insula/base.h>

#include "hv/records.h"

#define TSC_TOLERANCE 4000u /* 1/4000: by so much may crystals of one frequency differ */
#define TYPES 256u          /* of records, each backend has */

static const char *hv_state_owner(uint32_t type)
{
	switch (type / TYPES * TYPES) {
	case STATE_KVM_X86:
		return "KVM";
	case STATE_WHP_X86:
		return "the Windows Hypervisor Platform";
	default:
		return NULL;
	}
}

int hv_check_state(const void *state, size_t len, uint32_t own, struct err *e)
{
	struct state_head h = {.type = own};
	const char *whose;

	if (len >= sizeof(h))
		memcpy(&h, state, sizeof(h));
	whose = hv_state_owner(h.type);
	if (!whose || h.type / TYPES == own / TYPES)
		return 0;
	return err_set(e, -EOPNOTSUPP, "state: of a VM on another hypervisor, %s; expected %s",
		       whose, hv_state_owner(own));
}

int hv_check_vcpu(const struct rec_vcpu *want, const struct rec_vcpu *here, const char *platform,
		  struct err *e)
{
	uint32_t off = want->tsc_khz > here->tsc_khz ? want->tsc_khz - here->tsc_khz
						     : here->tsc_khz - want->tsc_khz;

	if (want->ncpus != here->ncpus)
		return err_set(e, -EINVAL, "state: of a VM of %u vCPUs, this one has %u",
			       want->ncpus, here->ncpus);
	if (want->cpuid_sum != here->cpuid_sum)
		return err_set(e, -EOPNOTSUPP,
			       "state: of another processor or another %s: CPUID differs",
			       platform);
	return off > want->tsc_khz / TSC_TOLERANCE;
}

int hv_other_tsc(const struct rec_vcpu *want, const struct rec_vcpu *here, struct err *e)
{
	return err_set(e, -EOPNOTSUPP,
		       "state: of a TSC of %u kHz, and here it has %u and cannot be scaled",
		       want->tsc_khz, here->tsc_khz);
}

int hv_put_vm(struct state_out *out, uint32_t first, const void *clock, uint32_t size,
	      const struct rec_line *line, unsigned nlines, struct err *e)
{
	size_t before = out->len;
	int r = state_put(out, first, HV_RECORD_VERSION, 0, clock, size);

	if (r == 0)
		r = state_put(out, first + 1, HV_RECORD_VERSION, 0, line,
			      nlines * (uint32_t)sizeof(*line));
	if (r < 0)
		out->len = before;
	return r < 0 ? err_sys(e, r, "state of the VM") : 0;
}

int hv_take_vm(const void *state, size_t len, uint32_t first, void *clock, uint32_t size,
	       struct rec_line *line, unsigned nlines, struct err *e)
{
	struct state_part in[] = {
		{.type = first, .version = HV_RECORD_VERSION, .name = "the clock", .size = size},
		{.type = first + 1,
		 .version = HV_RECORD_VERSION,
		 .name = "the interrupt lines",
		 .size = nlines * (uint32_t)sizeof(*line)},
	};
	int r = state_take(state, len, 0, in, 2, e);

	if (r < 0)
		return r;
	memcpy(clock, in[0].body, size);
	memcpy(line, in[1].body, in[1].size);
	return 0;
}

int hv_set_lines(struct hv_vm *vm, const struct rec_line *line, unsigned nlines, struct err *e)
{
	int r = 0;

	for (unsigned i = 0; i < nlines && r == 0; i++)
		if (line[i].used)
			r = hv_irq_route(vm, i, line[i].addr, line[i].data, e);
	return r;
}
