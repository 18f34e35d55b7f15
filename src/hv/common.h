/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What every backend checks in the same way, so that the machine is the same everywhere: limits,
 * ranges of guest memory, doorbells. Pure. common_x86.c: also what it reserves, and the arithmetic
 * of CPUID's topology.
 */
#ifndef INSULA_HV_COMMON_H
#define INSULA_HV_COMMON_H

#include <insula/hv.h>

/* -EINVAL, with the limit in the text. */
int hv_check_params(const struct hv_vm_params *p, struct err *e);

/* The slot's number and whole pages: -EINVAL. Nothing is said about other slots. */
int hv_check_range(unsigned slot, uint64_t gpa, const void *host, uint64_t size, struct err *e);
int hv_check_flags(unsigned slot, unsigned flags, struct err *e);
/* Guest physical space that belongs to the hypervisor on some host or other: -EEXIST. */
int hv_check_reserved(uint64_t gpa, uint64_t size, struct err *e);
bool hv_overlap(uint64_t a, uint64_t alen, uint64_t b, uint64_t blen);
/* Not with the range of another slot: -EEXIST. */
int hv_check_overlap(uint64_t gpa, uint64_t size, unsigned other, uint64_t other_gpa,
		     uint64_t other_size, struct err *e);

/* A doorbell's size and place: -EINVAL. */
int hv_check_doorbell(const struct hv_doorbell *d, struct err *e);

/* -EINVAL: not a line of this VM. */
int hv_check_line(unsigned line, unsigned nlines, struct err *e);

/* Bits of an APIC id that number the cores: log2 of ncpus, rounded up. */
unsigned hv_core_bits(unsigned ncpus);
/* `width` bits of `reg` from `low` on replaced by `value`. */
uint32_t hv_put_field(uint32_t reg, unsigned low, unsigned width, uint32_t value);

#endif
