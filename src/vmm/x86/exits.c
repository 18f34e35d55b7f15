/* SPDX-License-Identifier: BSD-2-Clause */
/* Exits that only x86-64 has: ports, MSRs, CPUID. No device logic here. */
#include <string.h>

#include "vmm/arch.h"

#define RESET_VECTOR_IP 0xfff0u

static void handle_pio(struct vcpu *c, struct hv_exit *x)
{
	uint8_t *p = x->u.pio.data;
	unsigned size = x->u.pio.size;
	struct bus_patience w = {0};

	for (uint32_t i = 0; i < x->u.pio.count; i++, p += size) {
		uint64_t v = 0;
		bool claimed;

		if (x->u.pio.out) {
			memcpy(&v, p, size);
			claimed = bus_write(&c->vm->pio, x->u.pio.port, size, v, &w);
		} else {
			claimed = bus_read(&c->vm->pio, x->u.pio.port, size, &v, &w);
			memcpy(p, &v, size);
		}
		c->unclaimed += !claimed;
	}
}

static void handle_msr(struct vcpu *c, struct hv_exit *x)
{
	(void)c;
	x->u.msr.fault = true;
}

/* The hypervisor's defaults are the answer. */
static void handle_cpuid(struct vcpu *c, struct hv_exit *x)
{
	(void)c;
	(void)x;
}

const struct exit_handler arch_exit_handlers[HV_EXIT_KINDS] = {
	[HV_EXIT_PIO] = {handle_pio, true},
	[HV_EXIT_MSR] = {handle_msr, true},
	[HV_EXIT_CPUID] = {handle_cpuid, true},
};

/* KVM on AMD has reset the processor by now. */
uint64_t arch_pc_of_shutdown(struct vcpu *c)
{
	struct hv_regs r;

	return hv_vcpu_get_regs(c->hv, &r, NULL) || r.rip == RESET_VECTOR_IP ? 0 : r.rip;
}
