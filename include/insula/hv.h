/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The hypervisor contract: virtual machines, vCPUs, memory slots, exits, doorbells, interrupts.
 *
 * One backend is linked per platform: KVM on Linux, the Windows Hypervisor Platform on Windows.
 * State is opaque; there are no globals. Every function returns 0 or a negative errno and fills
 * `struct err` when it takes one.
 *
 * How it works. The caller maps its own memory into the guest's physical address space, creates
 * vCPUs, gives the first one its registers, and has a thread for each call hv_vcpu_run() in a loop.
 * The guest runs inside that call until it touches what is not mapped; the caller answers and calls
 * again. A doorbell is such an access that signals an event instead, without an exit. An interrupt
 * goes the other way: a signalled event, bound to a line, becomes the message (address, data) that
 * the line is routed to. So a device in another process needs two events and never this process.
 *
 * What depends on the processor (registers, ports, the interrupt controller) is in the header of
 * its own that is included below; today there is x86-64.
 *
 * Threads: a vCPU is created, run and completed by the one thread that owns it (register access
 * too, while it does not run). hv_vcpu_kick(), hv_irq_*(), hv_msi_send(), hv_doorbell_*() may be
 * called by any thread; hv_mem_*() by one thread at a time.
 *
 * KVM: Documentation/virt/kvm/api.rst. hv.h, hv_x86.h, state.h and err.h with libinsula-hv.a stand
 * on their own: they need no other file of the project.
 */
#ifndef INSULA_HV_H
#define INSULA_HV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <insula/err.h>
#include <insula/state.h>
#if defined(__x86_64__)
#include <insula/hv_x86.h>
#else
#error "libinsula-hv: there is no backend for this architecture"
#endif

#ifndef _WIN32
#include <signal.h>
#endif

#ifdef __cplusplus
extern "C" {
#endif

#ifndef _WIN32
/* Used by hv_vcpu_kick(). hv_vm_create() installs an empty handler for it (with SA_RESTART; other
 * calls of the owning thread may see EINTR) and refuses with -EBUSY if the program has a handler of
 * its own. */
#define HV_KICK_SIGNAL SIGUSR1
#endif

#define HV_PAGE 4096u     /* gpa, host and size of a memory slot are multiples of it */
#define HV_MAX_SLOTS 192u /* memory slots of a VM */
#define HV_MAX_LINES 768u /* interrupt lines of a VM */
#define HV_MAX_CPUS 32u   /* vCPUs of a VM; the host may allow fewer */

struct hv_vm;
struct hv_vcpu;

/* An event of the platform: an eventfd on Linux, the HANDLE of an event that resets itself on
 * Windows. The caller owns it. */
typedef intptr_t hv_event;

struct hv_vm_params {
	/* Linux: an open /dev/kvm (not consumed; may be closed after the call). Windows: unused. */
	intptr_t dev;
	unsigned ncpus;  /* vCPUs that will be created, 1..HV_MAX_CPUS: the topology */
	unsigned nlines; /* interrupt lines that hv_irq_* may name, 1..HV_MAX_LINES */
	/* x86-64: memory for enclaves, whole pages, which the caller maps there as a slot of its
	 * own. Size 0: the guest has no SGX. Without SGX hv_vcpu_create() says -EOPNOTSUPP. */
	uint64_t epc_gpa, epc_size;
};

/* -ENOTTY / -ENOSYS: not a hypervisor device or an API version that is not 12; -EOPNOTSUPP: a
 * needed capability is missing (the text names it). The caller destroys after all vCPUs are
 * destroyed. */
int hv_vm_create(struct hv_vm **out, const struct hv_vm_params *p, struct err *e);
void hv_vm_destroy(struct hv_vm *vm);

/* While no vCPU runs: the guest's time stands still until the next hv_vcpu_run(), where the
 * hypervisor can do that. KVM cannot (0 all the same): there time goes on, and the guest is told by
 * hv_vcpu_was_paused(). Any thread. */
int hv_vm_suspend_time(struct hv_vm *vm, struct err *e);

/* Make what the next two need. -EOPNOTSUPP: the hypervisor does not want to know. */
int hv_vm_assigns(struct hv_vm *vm, struct err *e);
/* The guest has a device of the host, which reaches its memory by DMA: Linux, an open VFIO group, or
 * the device's own descriptor; not consumed, may be closed after the call. KVM then knows whether
 * the device's DMA may bypass the caches. -EOPNOTSUPP: without hv_vm_assigns(). */
int hv_vm_assign(struct hv_vm *vm, hv_event device, struct err *e);
/* It is taken away. One that was not assigned is no error. */
int hv_vm_unassign(struct hv_vm *vm, hv_event device, struct err *e);

/* ---- memory slots ---- */
enum hv_mem_flags {
	HV_MEM_RW = 0,
	HV_MEM_READONLY = 1, /* guest writes become HV_EXIT_MMIO, reads do not exit */
	HV_MEM_DIRTY_LOG = 2,
};
/* Map [host, host + size) at gpa, whole pages. `host` stays the caller's and must stay mapped until
 * hv_mem_unmap() or hv_vm_destroy(). An overlap with another slot or with what the hypervisor keeps
 * to itself (hv_x86.h) is -EEXIST. `slot` is chosen by the caller, below HV_MAX_SLOTS, unused so
 * far. */
int hv_mem_map(struct hv_vm *vm, unsigned slot, uint64_t gpa, void *host, uint64_t size,
	       unsigned flags, struct err *e);
int hv_mem_unmap(struct hv_vm *vm, unsigned slot, struct err *e);
/* One bit per 4 KiB page written since the last call; bitmap has size / 4096 bits, rounded up
 * to 64. */
int hv_mem_dirty(struct hv_vm *vm, unsigned slot, uint64_t *bitmap, struct err *e);

/* ---- vCPUs ---- */
/* Index 0 is the boot CPU; the others wait until it starts them. */
int hv_vcpu_create(struct hv_vm *vm, unsigned index, struct hv_vcpu **out, struct err *e);
void hv_vcpu_destroy(struct hv_vcpu *v);

enum hv_exit_kind {
	HV_EXIT_NONE, /* interrupted without a reason that matters: run again */
	HV_EXIT_PIO,  /* x86 */
	HV_EXIT_MMIO,
	HV_EXIT_HALT,       /* only where the hypervisor does not wait for interrupts itself */
	HV_EXIT_EOI,        /* x86: EOI of a level-triggered vector */
	HV_EXIT_MSR,        /* x86 */
	HV_EXIT_CPUID,      /* x86 */
	HV_EXIT_IRQ_WINDOW, /* x86 */
	HV_EXIT_CANCELED,   /* hv_vcpu_kick() */
	HV_EXIT_SHUTDOWN,   /* the processor has shut down (x86: triple fault) */
	HV_EXIT_ERROR,      /* the vCPU cannot go on */
	HV_EXIT_KINDS
};

struct hv_exit {
	enum hv_exit_kind kind;
	union {
		struct hv_x86_pio pio;
		struct hv_x86_eoi eoi;
		struct hv_x86_msr msr;
		struct hv_x86_cpuid cpuid;
		struct {
			uint64_t gpa;
			uint8_t size; /* 1..8 */
			bool write;
			uint8_t data[8]; /* little endian; a read is filled in by the caller */
		} mmio;
		struct {
			uint32_t code;    /* backend's own number */
			uint64_t pc;      /* the program counter */
			uint8_t insn[15]; /* bytes at pc, as far as known */
			uint8_t ninsn;
			char text[120]; /* one line: what, and the backend's reason */
		} error;
	} u;
};

/* Run until an exit. 0, or a negative errno for a failure of the hypervisor call itself. The exit
 * (and pio.data) stays valid until the next call on this vCPU. KVM may start one thread of its own
 * in the calling process at a VM's first run: a limit on threads or pids needs room for it. */
int hv_vcpu_run(struct hv_vcpu *v, struct hv_exit *x);
/* Hand back the answer of an exit (reads, MSR, CPUID). Must be called once after each HV_EXIT_PIO,
 * _MMIO, _MSR and _CPUID before the next run. KVM finishes the instruction at the next run. */
int hv_vcpu_complete(struct hv_vcpu *v, struct hv_exit *x);
/* Make the owning thread's current or next hv_vcpu_run() return HV_EXIT_CANCELED. Any thread; never
 * lost. On Linux the signal HV_KICK_SIGNAL is sent to the owner; hv_vcpu_run() must have been
 * entered or hv_vcpu_bind() called. */
void hv_vcpu_kick(struct hv_vcpu *v);
/* Tell the guest that this vCPU has not run for a while, so that its clock's watchdogs do not take
 * that for a hang. Best effort: a guest without such a clock is not told. The owning thread,
 * outside hv_vcpu_run(). */
void hv_vcpu_was_paused(struct hv_vcpu *v);
/* Not the boot CPU: it is as if it had never run, and waits for whoever starts it; a start that was
 * on its way is forgotten. Its registers are new when it is started. The owning thread. -EAGAIN: as
 * with hv_vcpu_state_get(). Windows: -EOPNOTSUPP, so far. */
int hv_vcpu_park(struct hv_vcpu *v, struct err *e);
/* The calling thread owns this vCPU from now on (before its first run). */
int hv_vcpu_bind(struct hv_vcpu *v, struct err *e);

/* ---- doorbells: a guest write that signals an event without an exit ---- */
struct hv_doorbell {
	bool pio; /* x86: port, else guest physical address */
	uint64_t addr;
	/* Of the write: 1, 2, 4 or 8. 0: any, of memory and without `match`; the hypervisor need
	 * not look at the instruction then, which is faster where the processor does not say it. */
	uint8_t size;
	bool match; /* only writes of `value` */
	uint64_t value;
	hv_event event;
};
/* A write that a doorbell took does not exit. A backend may let some writes exit all the same: the
 * caller's exit path must signal the same event (hv.h users keep their doorbells in a table for
 * that). */
int hv_doorbell_bind(struct hv_vm *vm, const struct hv_doorbell *d, struct err *e);
int hv_doorbell_unbind(struct hv_vm *vm, const struct hv_doorbell *d, struct err *e);

/* ---- interrupts ---- */
int hv_msi_send(struct hv_vm *vm, uint64_t addr, uint32_t data);
/* Line -> MSI message. Takes effect for events bound before and after. */
int hv_irq_route(struct hv_vm *vm, unsigned line, uint64_t addr, uint32_t data, struct err *e);
/* While bound, a signal of `event` sends the message of `line`. A signal that came before the bind
 * is delivered at the bind, so an unbound event is a latch: masking is unbind, unmasking is bind.
 * One event per line, and one line per event. */
int hv_irq_bind(struct hv_vm *vm, unsigned line, hv_event event, struct err *e);
int hv_irq_unbind(struct hv_vm *vm, unsigned line, hv_event event, struct err *e);

/* ---- state: what a snapshot needs of this library ---- */
/*
 * All that the hypervisor holds of a VM, as records (state.h): of the VM its clock and the routes
 * of its lines, of a vCPU its registers, interrupt controller and pending events. What the caller
 * holds is the caller's to save: memory, slots, bound events and doorbells, devices.
 *
 * To take it: no vCPU runs, and each of its exits has been completed. To set it: a VM with the same
 * parameters, all its vCPUs created and none has run, and the memory has its contents; first
 * hv_vm_state_set(), then hv_vcpu_state_set() of each. The guest goes on at the next instruction.
 * Its clock goes on where it was; whoever restores says hv_vcpu_was_paused().
 *
 * A record that is damaged, of another version or size, of a type that is not known, missing or
 * there twice is -EPROTO, and nothing has changed; a processor that is not the same enough is
 * -EOPNOTSUPP, and so are records of another hypervisor; both say what was expected. After any
 * other failure the VM is half set: destroy it.
 * Values are the hypervisor's to check: a record that was made with intent can set anything inside
 * the guest, and nothing outside of it. Windows before 10 20H2: -EOPNOTSUPP.
 */
#define HV_STATE_MAX 65536u /* bytes of one get at most */

/* Any thread. -ENOSPC: less room than is needed, nothing was appended. */
int hv_vm_state_get(struct hv_vm *vm, struct state_out *out, struct err *e);
int hv_vm_state_set(struct hv_vm *vm, const void *state, size_t len, struct err *e);
/* The owning thread. -EAGAIN: the instruction that the vCPU is in makes another access. Run it once
 * more, answer that exit, try again. The run after this may be HV_EXIT_CANCELED. */
int hv_vcpu_state_get(struct hv_vcpu *v, struct state_out *out, struct err *e);
int hv_vcpu_state_set(struct hv_vcpu *v, const void *state, size_t len, struct err *e);

/* ---- for the jail of the process that uses this library (Linux) ---- */
enum hv_use {
	HV_RESTORES = 1, /* hv_*_state_set() */
	HV_MOVES = 2,    /* hv_mem_map(), hv_mem_unmap(), hv_doorbell_*() */
	HV_PARKS = 4,    /* hv_vcpu_park() */
	HV_ASSIGNS = 8,  /* hv_vm_assign(), hv_vm_unassign(), after hv_vm_assigns() */
};
/* The ioctl request numbers that vCPUs, lines and routes need once the VM is built, and that
 * hv_*_state_get() needs; and those of `use`, enum hv_use. hv_msi_send() and hv_mem_dirty() are not
 * used. Terminated by 0; valid until the next call, one thread at a time. */
const unsigned long *hv_ioctls_used(unsigned use);

#ifdef __cplusplus
}
#endif

#endif
