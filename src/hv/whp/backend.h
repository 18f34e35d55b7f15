/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The WHP backend's own types.
 *
 * Locks: hv_vm.lock covers routes, watches, doorbells and created; hv_vm.mem_lock covers slots, and
 * is held (shared) while the emulator may use host addresses. Neither is held while a vCPU runs,
 * and no two at a time.
 */
#ifndef INSULA_HV_WHP_BACKEND_H
#define INSULA_HV_WHP_BACKEND_H

#include <stdatomic.h>

#include <insula/hv.h>

#include "hv/common.h"
#include "hv/whp/whp_abi.h"
#include "hv/whp/whp_os.h"
#include "hv/whp/x86.h"

#define WHP_MAX_DOORBELLS 1024

struct whp_slot {
	bool used;
	unsigned flags; /* enum hv_mem_flags */
	uint64_t gpa, size;
	uint8_t *host;
	/* Pages that the emulator wrote: the hypervisor does not see that. A bit each, atomic; NULL
	 * without HV_MEM_DIRTY_LOG. */
	uint64_t *written;
};

struct whp_line {
	bool routed;
	uint64_t addr;
	uint32_t data;
	hv_event event;
	void *watch; /* NULL: not bound */
	struct hv_vm *vm;
};

struct whp_bell {
	bool used;
	struct hv_doorbell d;
	void *port; /* NULL: registered the old way, or left to the exit path */
	bool registered;
};

struct hv_vm {
	struct whp_api api;
	void *partition;
	unsigned ncpus, nlines;
	bool amd, dirty;
	uint64_t tsc_hz, apic_hz; /* 0: unknown */
	uint8_t phys_bits;
	struct whp_lock lock, mem_lock;
	uint64_t created; /* bit i: vCPU i was created */
	struct whp_slot slot[HV_MAX_SLOTS];
	struct whp_line line[HV_MAX_LINES];
	struct whp_bell bell[WHP_MAX_DOORBELLS];
};

/* What hv_vcpu_complete() has to finish. */
enum whp_pending { WHP_NOTHING, WHP_EMULATION, WHP_PORT, WHP_MSR };

struct hv_vcpu {
	struct hv_vm *vm;
	unsigned index;
	atomic_bool kicked;
	enum whp_pending pending;
	bool has_next; /* `next` is to be returned before the guest runs again */
	struct hv_exit next;
	uint32_t port_data; /* of an IN or OUT */
	struct x86 x86;
	_Alignas(16) struct whp_exit exit;
};

/* Registers to be written in one call. */
#define WHP_BATCH 32
struct whp_batch {
	uint32_t n;
	uint32_t name[WHP_BATCH];
	_Alignas(16) union whp_value value[WHP_BATCH];
};

/* The rest of hv_vm_create(), with the functions given. `api` is copied. */
int whp_vm_create(struct hv_vm **out, const struct hv_vm_params *p, const struct whp_api *api,
		  struct err *e);
/* Fill `api` from the system's WinHvPlatform.dll. -ENOSYS: not there, or too old. */
int whp_load(struct whp_api *api, struct err *e);

/* An HRESULT as a negative errno; whp_fail() also says what failed. */
int whp_errno(whp_hr hr);
int whp_fail(struct err *e, whp_hr hr, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* regs.c */
void whp_put(struct whp_batch *b, uint32_t name, uint64_t v);
int whp_write(struct hv_vcpu *v, const struct whp_batch *b);
int whp_read_state(struct hv_vcpu *v, struct x86_state *s);
struct hv_seg whp_seg_in(const struct whp_segment *w);
struct whp_segment whp_seg_out(const struct hv_seg *s);

/* cpuid.c: the leaves that exit, and what the backend makes of the hypervisor's answer. Pure. */
extern const uint32_t whp_cpuid_exits[];
extern const unsigned whp_cpuid_nexits;
struct whp_cpuid_params {
	unsigned index, ncpus;
	bool amd;
	uint64_t tsc_hz, apic_hz;
};
void whp_cpuid_fix(const struct whp_cpuid_params *p, uint32_t leaf, uint32_t subleaf,
		   uint32_t r[4]);

/* mem.c: the emulator's view of memory (struct x86_mem); mem_lock is held shared */
uint8_t *whp_mem_find(void *vm, uint64_t gpa, unsigned len, bool write);

#endif
