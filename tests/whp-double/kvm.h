/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A WinHvPlatform.dll on KVM, for tests under wine: real guests through the functions that
 * src/hv/whp calls. Never installed.
 *
 * It is Windows code (mingw-w64) that makes Linux system calls by itself; wine 8 lets them
 * through, 11.5 and later are reported not to. All of them are in kvm_sys.c. Numbers and structures
 * of the platform come from mingw's winhvplatform.h, not from the backend's own whp_abi.h.
 *
 * How the platform's "stop before the instruction" is got from KVM, which stops in its middle:
 *
 *   - KVM finishes the instruction (KVM_RUN with immediate_exit), reads answered with zeros; then
 *     the registers are put back, so that RIP is at the instruction again (kvm_run.c).
 *   - After a write KVM may have gone on already. Where the instruction began is found by running
 *     the emulator on what lies before RIP: it must make the same access and end in the registers
 *     that KVM has (kvm_insn.c). So each store of a guest also compares the emulator with KVM.
 *   - KVM has no exit for CPUID. Before its first instruction each processor is therefore asked,
 *     by exits as a guest would cause them, for the leaves of the exit list, and the answers become
 *     KVM's table (kvm_cpuid.c).
 *
 * What it cannot say anything about: a real CPUID exit, timing, the platform's HRESULTs, which
 * stores a doorbell recognises, interrupt shadows, the APIC's corners. While KVM finishes a MOVS or
 * INS from a device, its destination in guest memory holds zeros for a moment.
 *
 * What is asked of it wrongly, and what it cannot do, is a line on stderr that begins with
 * "double: ", and a failing HRESULT.
 */
#ifndef INSULA_WHP_DOUBLE_KVM_H
#define INSULA_WHP_DOUBLE_KVM_H

#include <windows.h>

#include <winhvplatform.h>

#include <linux/kvm.h>

#include <stdbool.h>
#include <stdint.h>

#define DOUBLE_VPS 32
#define DOUBLE_SLOTS 80
#define DOUBLE_BELLS 256
#define DOUBLE_LEVELS 24
#define DOUBLE_CPUIDS 128
#define DOUBLE_PAGE 4096u
#define DOUBLE_APIC_HZ 1000000000ull /* KVM's local APIC counts nanoseconds */
#define DOUBLE_HRESULT(n) ((HRESULT)(0x80370300u | (n)))
#define DOUBLE_E_UNKNOWN_CAPABILITY DOUBLE_HRESULT(0)
#define DOUBLE_E_BUFFER DOUBLE_HRESULT(1)
#define DOUBLE_E_UNKNOWN_PROPERTY DOUBLE_HRESULT(2)
#define DOUBLE_E_INVALID_CONFIG DOUBLE_HRESULT(4)
#define DOUBLE_E_NO_RANGE DOUBLE_HRESULT(5)
#define DOUBLE_E_VP_EXISTS DOUBLE_HRESULT(6)
#define DOUBLE_E_NO_VP DOUBLE_HRESULT(7)
#define DOUBLE_E_REGISTER DOUBLE_HRESULT(9)

/* ---- kvm_sys.c: Linux, by raw system calls; a negative errno is a failure ---- */
int sys_open(const char *path); /* read and write */
void sys_close(int fd);
int sys_ioctl(int fd, uint32_t request, const void *arg);
void *sys_map(int fd, size_t size); /* shared; NULL */
void sys_unmap(void *p, size_t size);
int sys_eventfd(void);
void sys_signal_event(int fd);
void sys_drain_event(int fd);
/* Wait without a limit until one of them is readable; `ready` says which. */
void sys_wait(const int *fds, bool *ready, unsigned n);
int sys_gettid(void);
/* The kick: a real-time signal that is blocked except inside KVM_RUN, so it has no handler. */
void sys_block_kick(
	uint64_t *others); /* the calling thread's; *others: its mask without the kick */
void sys_kick(int tid);
void sys_drain_kicks(void);

/* One line on stderr; returns `hr`. */
HRESULT complain(HRESULT hr, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* ---- the partition ---- */

struct slot {
	bool used;
	uint64_t gpa, size;
	uint8_t *host;
	WHV_MAP_GPA_RANGE_FLAGS flags;
};

struct bell {
	bool used;
	int event; /* eventfd */
	HANDLE handle;
	struct kvm_ioeventfd bound;
	WHV_DOORBELL_MATCH_DATA match;
};

struct vp {
	bool exists;
	struct partition *p;
	uint32_t index;
	int fd;
	struct kvm_run *run;
	volatile LONG canceled; /* kept for the next run */
	volatile LONG tid;      /* of the thread inside KVM_RUN, 0 */
	int masked_tid;         /* whose signal mask KVM has */
	uint64_t exits;
	/* CPUID before the first instruction (kvm_cpuid.c) */
	bool configured;
	struct kvm_cpuid2 *cpuid, *defaults; /* with and without the answers */
	uint32_t asked;                      /* entries of it that have been answered */
	bool asking;
	struct kvm_regs saved;
};

struct partition {
	int kvm, vm;
	size_t run_size;
	bool set_up;
	uint32_t ncpus, lapic;
	uint64_t exit_flags, msr_bitmap, synthetic;
	uint32_t cpuid_list[DOUBLE_CPUIDS], ncpuids;
	SRWLOCK lock; /* slots, bells, levels */
	struct slot slot[DOUBLE_SLOTS];
	struct bell bell[DOUBLE_BELLS];
	struct kvm_irq_routing_entry level[DOUBLE_LEVELS];
	uint32_t nlevels;
	int wake; /* eventfd: the set of bells has changed */
	HANDLE watcher;
	bool stop;
	volatile bool suspended;
	struct kvm_clock_data clock; /* then, as the host's TSC */
	uint64_t suspended_at;
	struct vp vp[DOUBLE_VPS];
};

/* NULL, with a complaint: not a partition (that is set up). */
struct partition *partition_of(WHV_PARTITION_HANDLE h, const char *function);
struct vp *vp_of(WHV_PARTITION_HANDLE h, uint32_t index, const char *function);
HRESULT from_errno(int r);

/* kvm_part.c */
/* What the platform answers into a buffer: all of it or nothing. */
HRESULT give(void *buf, UINT32 size, UINT32 *written, const void *v, UINT32 n);
uint64_t tsc_hz_of(int vcpu); /* 0: unknown */

/* kvm_cpuid.c */
struct kvm_cpuid2 *cpuid_supported(const struct partition *p);
/* The next question as an exit, or false when all have been answered and KVM has the table. */
bool cpuid_ask(struct vp *v, WHV_RUN_VP_EXIT_CONTEXT *x, HRESULT *hr);

/* kvm_vp.c */
void segment_to_whp(const struct kvm_segment *k, WHV_X64_SEGMENT_REGISTER *w);
void fill_context(const struct kvm_regs *r, const struct kvm_sregs *s, WHV_RUN_VP_EXIT_CONTEXT *x);
void close_vps(struct partition *p);

/* kvm_insn.c: the registers before the write that KVM has just reported, or false. */
#define STORE_PARTS 4
struct store {
	unsigned n; /* over the end of a page it has two parts */
	struct store_part {
		uint64_t gpa;
		uint8_t size;
		uint8_t data[8];
	} part[STORE_PARTS];
};
bool find_store(struct vp *v, const struct store *st, struct kvm_regs *r,
		const struct kvm_sregs *s);
struct port_write {
	uint16_t port;
	uint8_t size;
	uint8_t data[4];
};
bool find_out(struct vp *v, const struct port_write *w, struct kvm_regs *r,
	      const struct kvm_sregs *s);
/* Bytes at CS:RIP up to the end of the page; 0 if there is no memory. */
unsigned peek_code(struct vp *v, const struct kvm_regs *r, const struct kvm_sregs *s, uint8_t *buf,
		   unsigned n);
/* Of a port instruction: its length, 0 if it is none; string and rep as the platform says them. */
unsigned port_length(const uint8_t *code, unsigned n, bool code64, bool *string, bool *rep);

/* kvm_irq.c */
int start_watcher(struct partition *p);
void stop_watcher(struct partition *p);

/* kvm_state.c: registers that kvm_vp.c does not know itself; *changed_e: `e` is to be stored. */
HRESULT state_get_register(struct vp *v, uint32_t name, WHV_REGISTER_VALUE *out);
HRESULT state_set_register(struct vp *v, struct kvm_vcpu_events *e, uint32_t name,
			   const WHV_REGISTER_VALUE *in, bool *changed_e);
HRESULT state_set_time(struct partition *p, const void *buf, UINT32 size);

/* kvm_time.c */
void time_goes_on(struct partition *p);

#endif
