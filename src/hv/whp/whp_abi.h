/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The Windows Hypervisor Platform's interface, as far as it is used: structures, numbers, and the
 * functions as a table that is filled at run time (loader_win.c) or by a test.
 *
 * Written from Microsoft's documentation (Hypervisor Platform API), with names of our own, so that
 * the backend's logic also builds where there is no Windows. abi_win.c compares every size, offset
 * and number with winhvplatform.h when it is built for Windows.
 *
 * Calling convention: the platform's default. On Windows for x86-64 there is only one.
 */
#ifndef INSULA_HV_WHP_ABI_H
#define INSULA_HV_WHP_ABI_H

#include <stdbool.h>
#include <stdint.h>

typedef int32_t whp_hr; /* HRESULT: negative is failure */

enum {
	WHP_E_INVALIDARG = (int32_t)0x80070057,
	WHP_E_OUTOFMEMORY = (int32_t)0x8007000e,
	WHP_E_ACCESSDENIED = (int32_t)0x80070005,
	WHP_E_NOTIMPL = (int32_t)0x80004001,
	WHP_E_UNKNOWN_CAPABILITY = (int32_t)0x80370300,
	WHP_E_UNKNOWN_PROPERTY = (int32_t)0x80370302,
	WHP_E_UNSUPPORTED_CONFIG = (int32_t)0x80370303,
	WHP_E_INVALID_CONFIG = (int32_t)0x80370304,
	WHP_E_RANGE_NOT_FOUND = (int32_t)0x80370305,
	WHP_E_VP_EXISTS = (int32_t)0x80370306,
	WHP_E_NO_SUCH_VP = (int32_t)0x80370307,
};

enum whp_capability {
	WHP_CAP_PRESENT = 0,         /* 32 bit: a hypervisor runs */
	WHP_CAP_FEATURES = 1,        /* 64 bit, enum whp_feature */
	WHP_CAP_EXITS = 2,           /* 64 bit, enum whp_ext_exit */
	WHP_CAP_VENDOR = 0x1000,     /* 32 bit, enum whp_vendor */
	WHP_CAP_CLOCK = 0x1004,      /* 64 bit: TSC, Hz */
	WHP_CAP_APIC_CLOCK = 0x1005, /* 64 bit: APIC timer, Hz */
	WHP_CAP_SYNTHETIC = 0x1008,  /* struct whp_synthetic */
};
enum whp_feature { WHP_FEATURE_LAPIC = 1 << 1, WHP_FEATURE_DIRTY = 1 << 3 };
enum whp_ext_exit { WHP_EXT_CPUID = 1 << 0, WHP_EXT_MSR = 1 << 1 };
enum whp_vendor { WHP_VENDOR_AMD, WHP_VENDOR_INTEL, WHP_VENDOR_HYGON };

enum whp_property {
	WHP_PROP_EXITS = 1,            /* 64 bit, enum whp_ext_exit */
	WHP_PROP_SECURITY_DOMAIN = 3,  /* 32 bit */
	WHP_PROP_MSR_BITMAP = 5,       /* 64 bit, enum whp_msr_bitmap */
	WHP_PROP_CPUID_EXITS = 0x1003, /* 32 bit each */
	WHP_PROP_LAPIC = 0x1005,       /* 32 bit, enum whp_lapic */
	WHP_PROP_TIME = 0x100b,        /* 64 bit: the partition's reference time, 100 ns */
	WHP_PROP_SYNTHETIC = 0x100c,   /* struct whp_synthetic */
	WHP_PROP_PROCESSORS = 0x1fff,  /* 32 bit */
};
enum whp_msr_bitmap { WHP_MSR_UNHANDLED = 1 };
enum whp_lapic { WHP_LAPIC_NONE, WHP_LAPIC_XAPIC, WHP_LAPIC_X2APIC };

/* Hyper-V's own CPUID leaves and MSRs; see the Hypervisor Top Level Functional Specification, 2.4.
 */
enum whp_synthetic_bits {
	WHP_SYN_PRESENT = 1 << 0,
	WHP_SYN_HV1 = 1 << 1,
	WHP_SYN_REFERENCE_COUNTER = 1 << 3,
	WHP_SYN_HYPERCALL = 1 << 7,
	WHP_SYN_VP_INDEX = 1 << 8,
	WHP_SYN_REFERENCE_TSC = 1 << 9,
	WHP_SYN_FREQUENCY = 1 << 11,
};
struct whp_synthetic {
	uint32_t banks;
	uint32_t reserved;
	uint64_t bank0;
};

enum whp_map_flags {
	WHP_MAP_READ = 1,
	WHP_MAP_WRITE = 2,
	WHP_MAP_EXECUTE = 4,
	WHP_MAP_DIRTY = 8,
};

/* The first 16 are in the order of the instruction encoding, like enum x86_gpr. */
enum whp_register {
	WHP_REG_RAX = 0,
	WHP_REG_RIP = 0x10,
	WHP_REG_RFLAGS = 0x11,
	WHP_REG_ES = 0x12, /* then CS, SS, DS, FS, GS, like enum x86_sreg */
	WHP_REG_CS = 0x13,
	WHP_REG_GS = 0x17,
	WHP_REG_LDTR = 0x18,
	WHP_REG_TR = 0x19,
	WHP_REG_IDTR = 0x1a,
	WHP_REG_GDTR = 0x1b,
	WHP_REG_CR0 = 0x1c,
	WHP_REG_CR2 = 0x1d,
	WHP_REG_CR3 = 0x1e,
	WHP_REG_CR4 = 0x1f,
	WHP_REG_CR8 = 0x20,
	WHP_REG_DR0 = 0x21, /* then DR1, DR2, DR3, DR6, DR7 */
	WHP_REG_XCR0 = 0x27,
	WHP_REG_TSC = 0x2000,
	WHP_REG_EFER = 0x2001,
	WHP_REG_KERNEL_GS = 0x2002,
	WHP_REG_APIC_BASE = 0x2003,
	WHP_REG_PAT = 0x2004,
	WHP_REG_SYSENTER_CS = 0x2005, /* then EIP, ESP */
	WHP_REG_STAR = 0x2008,        /* then LSTAR, CSTAR, SFMASK */
	WHP_REG_MTRR_DEF_TYPE = 0x200e,
	WHP_REG_MTRR_BASE = 0x2010,  /* 16 of them */
	WHP_REG_MTRR_MASK = 0x2040,  /* 16 of them */
	WHP_REG_MTRR_FIXED = 0x2070, /* 11 of them */
	WHP_REG_TSC_AUX = 0x207b,
	WHP_REG_SPEC_CTRL = 0x2084,
	WHP_REG_TSX_CTRL = 0x2088,
	WHP_REG_XSS = 0x208b,
	WHP_REG_U_CET = 0x208c, /* then S_CET, SSP, PL0 to PL3_SSP, INTERRUPT_SSP_TABLE_ADDR */
	WHP_REG_TSC_DEADLINE = 0x2095,
	WHP_REG_TSC_ADJUST = 0x2096,
	WHP_REG_UMWAIT = 0x2098,
	WHP_REG_XFD = 0x2099, /* then XFD_ERR */
	WHP_REG_HYPERCALL = 0x5001,
	WHP_REG_GUEST_OS = 0x5002,
	WHP_REG_VP_ASSIST = 0x5013,
	WHP_REG_REFERENCE_TSC = 0x5017,
	WHP_REG_PENDING_INTERRUPTION = (int32_t)0x80000000,
	WHP_REG_INTERRUPT_STATE = (int32_t)0x80000001,
	WHP_REG_PENDING_EVENT = (int32_t)0x80000002,
	WHP_REG_ACTIVITY = (int32_t)0x80000005,
	WHP_REG_PENDING_DEBUG = (int32_t)0x80000006,
};

struct whp_segment {
	uint64_t base;
	uint32_t limit;
	uint16_t selector;
	uint16_t attr; /* type 0-3, S 4, DPL 5-6, P 7, AVL 12, L 13, D/B 14, G 15 */
};
struct whp_table {
	uint16_t pad[3];
	uint16_t limit;
	uint64_t base;
};
struct whp_event {     /* an exception to deliver */
	uint32_t what; /* WHP_EVENT_*, vector in the upper half */
	uint32_t error_code;
	uint64_t parameter; /* of a page fault the address */
};
#define WHP_EVENT_PENDING 1u /* of the exception type, which is 0 */
#define WHP_EVENT_HAS_CODE (1u << 8)
#define WHP_EVENT_VECTOR_SHIFT 16
#define WHP_STATE_SHADOW 1u      /* WHP_REG_INTERRUPT_STATE */
#define WHP_DEBUG_STEP (1u << 4) /* WHP_REG_PENDING_DEBUG */

union __attribute__((aligned(16))) whp_value {
	uint64_t u64;
	uint8_t bytes[16];
	struct whp_segment seg;
	struct whp_table table;
	struct whp_event event;
};

enum whp_reason {
	WHP_EXIT_NONE = 0,
	WHP_EXIT_MEMORY = 1,
	WHP_EXIT_PORT = 2,
	WHP_EXIT_UNRECOVERABLE = 4,
	WHP_EXIT_INVALID_REGISTER = 5,
	WHP_EXIT_UNSUPPORTED = 6,
	WHP_EXIT_WINDOW = 7,
	WHP_EXIT_HALT = 8,
	WHP_EXIT_EOI = 9,
	WHP_EXIT_MSR = 0x1000,
	WHP_EXIT_CPUID = 0x1001,
	WHP_EXIT_CANCELED = 0x2001,
};

#define WHP_VP_SHADOW (1u << 12) /* whp_vp_context.state */
struct whp_vp_context {
	uint16_t state;   /* CPL 0-1, ... */
	uint8_t insn_len; /* bits 0-3; CR8 above */
	uint8_t reserved;
	uint32_t reserved2;
	struct whp_segment cs;
	uint64_t rip, rflags;
};
struct whp_bytes {
	uint8_t count; /* of `byte`: may stop short, at the end of a page or at 0 */
	uint8_t reserved[3];
	uint8_t byte[16];
};
struct whp_memory_access {
	struct whp_bytes insn;
	uint32_t info;
	uint64_t gpa, gva;
};
#define WHP_PORT_WRITE 1u
#define WHP_PORT_SIZE(info) ((info) >> 1 & 7)
#define WHP_PORT_STRING (1u << 4)
struct whp_port_access {
	struct whp_bytes insn;
	uint32_t info;
	uint16_t port;
	uint16_t reserved[3];
	uint64_t rax, rcx, rsi, rdi;
	struct whp_segment ds, es;
};
#define WHP_MSR_WRITE 1u
struct whp_msr_access {
	uint32_t info;
	uint32_t index;
	uint64_t rax, rdx;
};
struct whp_cpuid_access {
	uint64_t rax, rcx, rdx, rbx;
	uint64_t default_rax, default_rcx, default_rdx, default_rbx;
};
struct whp_unsupported {
	uint32_t feature;
	uint32_t reserved;
	uint64_t parameter;
};

struct whp_exit {
	uint32_t reason; /* enum whp_reason */
	uint32_t reserved;
	struct whp_vp_context vp;
	union {
		struct whp_memory_access memory;
		struct whp_port_access port;
		struct whp_msr_access msr;
		struct whp_cpuid_access cpuid;
		struct whp_unsupported unsupported;
		uint32_t eoi_vector;
		uint8_t room[176]; /* what later versions put here */
	} u;
};

enum whp_interrupt_type {
	WHP_INT_FIXED = 0,
	WHP_INT_LOWEST = 1,
	WHP_INT_NMI = 4,
	WHP_INT_INIT = 5
};
struct whp_interrupt {
	uint64_t control; /* type 0-7, logical destination 8, level 12 */
	uint32_t destination;
	uint32_t vector;
};
#define WHP_INT_LOGICAL (1u << 8)
#define WHP_INT_LEVEL (1u << 12)

struct whp_doorbell {
	uint64_t gpa;
	uint64_t value;
	uint32_t length;
	uint32_t match; /* 1: on the value, 2: on the length */
};
#define WHP_MATCH_VALUE 1u
#define WHP_MATCH_LENGTH 2u
#define WHP_PORT_DOORBELL 4
struct whp_port_params {
	uint32_t type; /* WHP_PORT_DOORBELL */
	uint32_t reserved;
	struct whp_doorbell doorbell;
};

/* What is NULL is not there: only what is newer than Windows 10 1809 may be. */
struct whp_api {
	whp_hr (*get_capability)(uint32_t code, void *buf, uint32_t size, uint32_t *written);
	whp_hr (*create_partition)(void **p);
	whp_hr (*setup_partition)(void *p);
	whp_hr (*delete_partition)(void *p);
	whp_hr (*set_property)(void *p, uint32_t code, const void *buf, uint32_t size);
	whp_hr (*map)(void *p, void *host, uint64_t gpa, uint64_t size, uint32_t flags);
	whp_hr (*unmap)(void *p, uint64_t gpa, uint64_t size);
	whp_hr (*query_dirty)(void *p, uint64_t gpa, uint64_t size, uint64_t *bitmap,
			      uint32_t bytes);
	whp_hr (*create_vp)(void *p, uint32_t index, uint32_t flags);
	whp_hr (*delete_vp)(void *p, uint32_t index);
	whp_hr (*run)(void *p, uint32_t index, void *exit, uint32_t size);
	whp_hr (*cancel)(void *p, uint32_t index, uint32_t flags);
	whp_hr (*get_registers)(void *p, uint32_t index, const uint32_t *names, uint32_t n,
				union whp_value *v);
	whp_hr (*set_registers)(void *p, uint32_t index, const uint32_t *names, uint32_t n,
				const union whp_value *v);
	whp_hr (*request_interrupt)(void *p, const struct whp_interrupt *i, uint32_t size);
	/* Windows 10 20H2 */
	whp_hr (*create_port)(void *p, const struct whp_port_params *params, void *event,
			      void **port);
	whp_hr (*delete_port)(void *p, void *port);
	/* before that, deprecated */
	whp_hr (*register_doorbell)(void *p, const struct whp_doorbell *d, void *event);
	whp_hr (*unregister_doorbell)(void *p, const struct whp_doorbell *d);
	/* Windows 10 1903 */
	whp_hr (*suspend_time)(void *p);
	/* What a snapshot needs; the last two came with Windows 10 2004, and 20H2. */
	whp_hr (*get_property)(void *p, uint32_t code, void *buf, uint32_t size, uint32_t *written);
	whp_hr (*get_xsave)(void *p, uint32_t index, void *buf, uint32_t size, uint32_t *written);
	whp_hr (*set_xsave)(void *p, uint32_t index, const void *buf, uint32_t size);
	whp_hr (*get_lapic)(void *p, uint32_t index, void *buf, uint32_t size, uint32_t *written);
	whp_hr (*set_lapic)(void *p, uint32_t index, const void *buf, uint32_t size);
	whp_hr (*cpuid)(void *p, uint32_t index, uint32_t leaf, uint32_t subleaf, uint32_t r[4]);
};

#endif
