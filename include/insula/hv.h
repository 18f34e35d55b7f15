/*
 * The hypervisor contract: virtual machines, vCPUs, memory slots, exits, doorbells, interrupts.
 *
 * One backend is linked per platform (src/hv/kvm, src/hv/whp). State is opaque; there are no
 * globals. Every function returns 0 or a negative errno and fills `struct err` when it takes one.
 *
 * The machine is the same on every backend: LAPIC in the hypervisor, no PIC, no PIT, no IOAPIC
 * (that is the caller's), HLT handled inside, interrupts as MSI messages (address, data) as in
 * Intel SDM vol. 3, 11.11.
 *
 * Threads: a vCPU is created, run and completed by the one thread that owns it (register access
 * too, while it does not run). hv_vcpu_kick(), hv_irq_*(), hv_msi_send(), hv_doorbell_*() may be
 * called by any thread; hv_mem_*() by one thread at a time.
 *
 * KVM: Documentation/virt/kvm/api.rst. This header and libinsula-hv.a stand on their own.
 */
#ifndef INSULA_HV_H
#define INSULA_HV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <insula/err.h>

#ifndef _WIN32
#include <signal.h>
/* Used by hv_vcpu_kick(). hv_vm_create() installs an empty handler for it (with SA_RESTART; other
 * calls of the owning thread may see EINTR) and refuses with -EBUSY if the program has a handler of
 * its own. */
#define HV_KICK_SIGNAL SIGUSR1
#endif

struct hv_vm;
struct hv_vcpu;

/* An event of the platform: an eventfd on Linux, the HANDLE of an event that resets itself on
 * Windows. The caller owns it. */
typedef intptr_t hv_event;

struct hv_vm_params {
	intptr_t dev;    /* Linux: an open /dev/kvm (not consumed; may be closed after the call).
			    Windows: unused. */
	unsigned ncpus;  /* vCPUs that will be created, 1..BOARD_MAX_CPUS: the topology */
	unsigned nlines; /* interrupt lines (IOAPIC pins) that hv_irq_* may name, 1..240 */
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

/* ---- memory slots ---- */
enum hv_mem_flags {
	HV_MEM_RW = 0,
	HV_MEM_READONLY = 1, /* guest writes become HV_EXIT_MMIO, reads do not exit */
	HV_MEM_DIRTY_LOG = 2,
};
/* Map [host, host + size) at gpa. gpa, host and size are multiples of 4096. `host` stays the
 * caller's and must stay mapped until hv_mem_unmap() or hv_vm_destroy(). An overlap is -EEXIST.
 * `slot` is chosen by the caller, 0..63, unused so far. */
int hv_mem_map(struct hv_vm *vm, unsigned slot, uint64_t gpa, void *host, uint64_t size,
	       unsigned flags, struct err *e);
int hv_mem_unmap(struct hv_vm *vm, unsigned slot, struct err *e);
/* One bit per 4 KiB page written since the last call; bitmap has size / 4096 bits, rounded up
 * to 64. */
int hv_mem_dirty(struct hv_vm *vm, unsigned slot, uint64_t *bitmap, struct err *e);

/* ---- vCPUs ---- */
/* index 0 is the boot CPU; the others wait for INIT/SIPI. CPUID (topology, hypervisor leaves) is
 * set. */
int hv_vcpu_create(struct hv_vm *vm, unsigned index, struct hv_vcpu **out, struct err *e);
void hv_vcpu_destroy(struct hv_vcpu *v);

enum hv_exit_kind {
	HV_EXIT_NONE, /* interrupted without a reason that matters: run again */
	HV_EXIT_PIO,
	HV_EXIT_MMIO,
	HV_EXIT_HALT, /* only where the hypervisor does not handle HLT itself */
	HV_EXIT_EOI,  /* EOI of a level-triggered vector */
	HV_EXIT_MSR,
	HV_EXIT_CPUID,
	HV_EXIT_IRQ_WINDOW,
	HV_EXIT_CANCELED, /* hv_vcpu_kick() */
	HV_EXIT_SHUTDOWN, /* triple fault */
	HV_EXIT_ERROR,    /* the vCPU cannot go on */
	HV_EXIT_KINDS
};

struct hv_exit {
	enum hv_exit_kind kind;
	union {
		struct {
			uint16_t port;
			uint8_t size;   /* 1, 2 or 4 bytes an element */
			bool out;       /* guest -> device */
			uint32_t count; /* elements (string instructions), >= 1 */
			void *data; /* count * size bytes, little endian; an input is filled in by
				       the caller */
		} pio;
		struct {
			uint64_t gpa;
			uint8_t size; /* 1..8 */
			bool write;
			uint8_t data[8]; /* little endian; a read is filled in by the caller */
		} mmio;
		struct {
			uint8_t vector;
		} eoi;
		struct {
			uint32_t index;
			bool write;
			uint64_t value;
			bool fault; /* set by the caller: inject #GP */
		} msr;
		struct {
			uint32_t leaf, subleaf;
			uint32_t r[4]; /* eax, ebx, ecx, edx: defaults in, answer out */
		} cpuid;
		struct {
			uint32_t code; /* backend's own number */
			uint64_t rip;
			uint8_t insn[15]; /* bytes at rip, as far as known */
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
/* The calling thread owns this vCPU from now on (before its first run). */
int hv_vcpu_bind(struct hv_vcpu *v, struct err *e);

struct hv_seg {
	uint64_t base;
	uint32_t limit;
	uint16_t selector;
	uint16_t attr; /* as in VMX/SVM: type 0-3, S 4, DPL 5-6, P 7, AVL 8, L 9, D/B 10, G 11 */
};

struct hv_regs {
	uint64_t rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r8, r9, r10, r11, r12, r13, r14, r15, rip,
		rflags;
	uint64_t cr0, cr2, cr3, cr4, efer;
	struct hv_seg cs, ds, es, fs, gs, ss, tr, ldt;
	uint64_t gdt_base, idt_base;
	uint16_t gdt_limit, idt_limit;
};
int hv_vcpu_get_regs(struct hv_vcpu *v, struct hv_regs *r, struct err *e);
int hv_vcpu_set_regs(struct hv_vcpu *v, const struct hv_regs *r, struct err *e);

/* ---- doorbells: a guest write that signals an event without an exit ---- */
struct hv_doorbell {
	bool pio; /* port, else guest physical address */
	uint64_t addr;
	uint8_t size; /* of the write: 1, 2, 4 or 8 */
	bool match;   /* only writes of `value` */
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

/* ---- for the jail of the process that uses this library (Linux) ---- */
/* The ioctl request numbers that vCPUs, lines and routes need once the VM is built: memory is
 * mapped and doorbells are bound by then, hv_msi_send() and hv_mem_dirty() are not used. Terminated
 * by 0. */
const unsigned long *hv_ioctls_used(void);

#endif
