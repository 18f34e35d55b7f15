/* SPDX-License-Identifier: BSD-2-Clause */
/* See common.h. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include <insula/base.h>

#include "hv/common.h"

int hv_check_params(const struct hv_vm_params *p, struct err *e)
{
	if (p->ncpus < 1 || p->ncpus > HV_MAX_CPUS)
		return err_set(e, -EINVAL, "%u vCPUs: 1 to %u are possible", p->ncpus, HV_MAX_CPUS);
	if (p->nlines < 1 || p->nlines > HV_MAX_LINES)
		return err_set(e, -EINVAL, "%u interrupt lines: 1 to %u are possible", p->nlines,
			       HV_MAX_LINES);
	return 0;
}

int hv_check_range(unsigned slot, uint64_t gpa, const void *host, uint64_t size, struct err *e)
{
	uint64_t bits = gpa | size | (uintptr_t)host;

	if (slot >= HV_MAX_SLOTS)
		return err_set(e, -EINVAL, "memory slot %u: 0 to %u exist", slot, HV_MAX_SLOTS - 1);
	if (bits % HV_PAGE || !size || size > UINT64_MAX - gpa)
		return err_set(e, -EINVAL,
			       "memory slot %u: [0x%" PRIx64 ", +0x%" PRIx64
			       ") is not made of whole pages",
			       slot, gpa, size);
	return 0;
}

int hv_check_flags(unsigned slot, unsigned flags, struct err *e)
{
	if (flags & ~(unsigned)(HV_MEM_READONLY | HV_MEM_DIRTY_LOG))
		return err_set(e, -EINVAL, "memory slot %u: unknown flags 0x%x", slot, flags);
	return 0;
}

bool hv_overlap(uint64_t a, uint64_t alen, uint64_t b, uint64_t blen)
{
	return a < b + blen && b < a + alen;
}

int hv_check_overlap(uint64_t gpa, uint64_t size, unsigned other, uint64_t other_gpa,
		     uint64_t other_size, struct err *e)
{
	if (hv_overlap(gpa, size, other_gpa, other_size))
		return err_set(e, -EEXIST,
			       "[0x%" PRIx64 ", +0x%" PRIx64 ") overlaps memory slot %u", gpa, size,
			       other);
	return 0;
}

int hv_check_doorbell(const struct hv_doorbell *d, struct err *e)
{
	bool size_ok = d->size == 1 || d->size == 2 || d->size == 4 || (d->size == 8 && !d->pio) ||
		       (d->size == 0 && !d->pio && !d->match);

	if (!size_ok || (d->pio && d->addr > UINT16_MAX))
		return err_set(e, -EINVAL, "doorbell at 0x%" PRIx64 ": no write of %u bytes there",
			       d->addr, d->size);
	return 0;
}

int hv_check_line(unsigned line, unsigned nlines, struct err *e)
{
	if (line >= nlines)
		return err_set(e, -EINVAL, "interrupt line %u: this VM has %u", line, nlines);
	return 0;
}
