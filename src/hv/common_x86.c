/* SPDX-License-Identifier: BSD-2-Clause */
/* See common.h: what is x86's. */
#include <errno.h>
#include <inttypes.h>

#include <insula/base.h>

#include "hv/common.h"

static const struct {
	uint64_t gpa, size;
} reserved[] = {
	{HV_X86_LAPIC, HV_PAGE},
	{HV_X86_INTEL_PAGES, HV_X86_INTEL_SIZE},
};

int hv_check_reserved(uint64_t gpa, uint64_t size, struct err *e)
{
	for (size_t i = 0; i < ARRAY_LEN(reserved); i++) {
		if (hv_overlap(gpa, size, reserved[i].gpa, reserved[i].size))
			return err_set(e, -EEXIST,
				       "[0x%" PRIx64 ", +0x%" PRIx64
				       ") overlaps the hypervisor's page at 0x%" PRIx64,
				       gpa, size, reserved[i].gpa);
	}
	return 0;
}

unsigned hv_core_bits(unsigned ncpus)
{
	unsigned bits = 0;

	while ((1u << bits) < ncpus)
		bits++;
	return bits;
}

uint32_t hv_put_field(uint32_t reg, unsigned low, unsigned width, uint32_t value)
{
	uint32_t mask = ((1u << width) - 1) << low;

	return (reg & ~mask) | (value << low & mask);
}
