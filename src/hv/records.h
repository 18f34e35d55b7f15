/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Records of state (insula/hv.h, state.h) that every backend has in the same form: what a vCPU has
 * to have in common with the one that was saved, and the VM's clock and interrupt lines. Each
 * backend has its own numbers for them, and its own clock.
 */
#ifndef INSULA_HV_RECORDS_H
#define INSULA_HV_RECORDS_H

#include <insula/hv.h>
#include <insula/state.h>

#define HV_RECORD_VERSION 1u

/* What has to be the same where it is set. */
struct rec_vcpu {
	uint64_t cpuid_sum;
	uint32_t tsc_khz; /* 0: unknown */
	uint32_t ncpus;
};

struct rec_line {
	uint64_t addr;
	uint32_t data, used;
};

/* What hv_vm_state_set() was given is another backend's: -EOPNOTSUPP, with its name. `own`: the
 * first type of this one's records. Anything else is for state_take() to find. */
int hv_check_state(const void *state, size_t len, uint32_t own, struct err *e);

/* -EINVAL: of another number of vCPUs; -EOPNOTSUPP: of another processor or another `platform`; 1:
 * like this one but for the frequency of its TSC, and then hv_other_tsc() if it cannot be had. */
int hv_check_vcpu(const struct rec_vcpu *want, const struct rec_vcpu *here, const char *platform,
		  struct err *e);
int hv_other_tsc(const struct rec_vcpu *want, const struct rec_vcpu *here, struct err *e);

/* The VM's two: its clock of type `first`, of `size` bytes, and its lines of the type behind that.
 * On error nothing is put, or taken. */
int hv_put_vm(struct state_out *out, uint32_t first, const void *clock, uint32_t size,
	      const struct rec_line *line, unsigned nlines, struct err *e);
int hv_take_vm(const void *state, size_t len, uint32_t first, void *clock, uint32_t size,
	       struct rec_line *line, unsigned nlines, struct err *e);
int hv_set_lines(struct hv_vm *vm, const struct rec_line *line, unsigned nlines, struct err *e);

#endif
