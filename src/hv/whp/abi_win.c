/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Nothing but comparisons: whp_abi.h against the compiler's own winhvplatform.h. If this file
 * builds, the two agree in every size, offset, number and function that the backend uses.
 */
#include <stddef.h>
#include <windows.h>

#include <winhvplatform.h>

#include "hv/whp/whp_abi.h"

#define SAME_NUMBER(ours, theirs) _Static_assert((long long)(ours) == (long long)(theirs), #theirs)
#define SAME_SIZE(ours, theirs) _Static_assert(sizeof(ours) == sizeof(theirs), #theirs)
#define SAME_PLACE(ours, field, theirs, Field)                                             \
	_Static_assert(offsetof(ours, field) == offsetof(theirs, Field) &&                 \
			       sizeof(((ours *)0)->field) == sizeof(((theirs *)0)->Field), \
		       #theirs "." #Field)

/* ---- structures ---- */
SAME_SIZE(union whp_value, WHV_REGISTER_VALUE);
_Static_assert(_Alignof(union whp_value) == _Alignof(WHV_REGISTER_VALUE), "alignment of registers");
SAME_SIZE(struct whp_segment, WHV_X64_SEGMENT_REGISTER);
SAME_PLACE(struct whp_segment, base, WHV_X64_SEGMENT_REGISTER, Base);
SAME_PLACE(struct whp_segment, limit, WHV_X64_SEGMENT_REGISTER, Limit);
SAME_PLACE(struct whp_segment, selector, WHV_X64_SEGMENT_REGISTER, Selector);
SAME_PLACE(struct whp_segment, attr, WHV_X64_SEGMENT_REGISTER, Attributes);
SAME_SIZE(struct whp_table, WHV_X64_TABLE_REGISTER);
SAME_PLACE(struct whp_table, limit, WHV_X64_TABLE_REGISTER, Limit);
SAME_PLACE(struct whp_table, base, WHV_X64_TABLE_REGISTER, Base);
SAME_SIZE(struct whp_event, WHV_X64_PENDING_EXCEPTION_EVENT);
SAME_PLACE(struct whp_event, error_code, WHV_X64_PENDING_EXCEPTION_EVENT, ErrorCode);
SAME_PLACE(struct whp_event, parameter, WHV_X64_PENDING_EXCEPTION_EVENT, ExceptionParameter);
SAME_SIZE(struct whp_synthetic, WHV_SYNTHETIC_PROCESSOR_FEATURES_BANKS);
SAME_PLACE(struct whp_synthetic, banks, WHV_SYNTHETIC_PROCESSOR_FEATURES_BANKS, BanksCount);
SAME_PLACE(struct whp_synthetic, bank0, WHV_SYNTHETIC_PROCESSOR_FEATURES_BANKS, Bank0);
SAME_SIZE(struct whp_vp_context, WHV_VP_EXIT_CONTEXT);
SAME_PLACE(struct whp_vp_context, state, WHV_VP_EXIT_CONTEXT, ExecutionState);
SAME_PLACE(struct whp_vp_context, cs, WHV_VP_EXIT_CONTEXT, Cs);
SAME_PLACE(struct whp_vp_context, rip, WHV_VP_EXIT_CONTEXT, Rip);
SAME_PLACE(struct whp_vp_context, rflags, WHV_VP_EXIT_CONTEXT, Rflags);
SAME_SIZE(struct whp_memory_access, WHV_MEMORY_ACCESS_CONTEXT);
SAME_PLACE(struct whp_memory_access, insn.count, WHV_MEMORY_ACCESS_CONTEXT, InstructionByteCount);
SAME_PLACE(struct whp_memory_access, insn.byte, WHV_MEMORY_ACCESS_CONTEXT, InstructionBytes);
SAME_PLACE(struct whp_memory_access, info, WHV_MEMORY_ACCESS_CONTEXT, AccessInfo);
SAME_PLACE(struct whp_memory_access, gpa, WHV_MEMORY_ACCESS_CONTEXT, Gpa);
SAME_PLACE(struct whp_memory_access, gva, WHV_MEMORY_ACCESS_CONTEXT, Gva);
SAME_SIZE(struct whp_port_access, WHV_X64_IO_PORT_ACCESS_CONTEXT);
SAME_PLACE(struct whp_port_access, insn.byte, WHV_X64_IO_PORT_ACCESS_CONTEXT, InstructionBytes);
SAME_PLACE(struct whp_port_access, info, WHV_X64_IO_PORT_ACCESS_CONTEXT, AccessInfo);
SAME_PLACE(struct whp_port_access, port, WHV_X64_IO_PORT_ACCESS_CONTEXT, PortNumber);
SAME_PLACE(struct whp_port_access, rax, WHV_X64_IO_PORT_ACCESS_CONTEXT, Rax);
SAME_PLACE(struct whp_port_access, rdi, WHV_X64_IO_PORT_ACCESS_CONTEXT, Rdi);
SAME_PLACE(struct whp_port_access, es, WHV_X64_IO_PORT_ACCESS_CONTEXT, Es);
SAME_SIZE(struct whp_msr_access, WHV_X64_MSR_ACCESS_CONTEXT);
SAME_PLACE(struct whp_msr_access, info, WHV_X64_MSR_ACCESS_CONTEXT, AccessInfo);
SAME_PLACE(struct whp_msr_access, index, WHV_X64_MSR_ACCESS_CONTEXT, MsrNumber);
SAME_PLACE(struct whp_msr_access, rax, WHV_X64_MSR_ACCESS_CONTEXT, Rax);
SAME_PLACE(struct whp_msr_access, rdx, WHV_X64_MSR_ACCESS_CONTEXT, Rdx);
SAME_SIZE(struct whp_cpuid_access, WHV_X64_CPUID_ACCESS_CONTEXT);
SAME_PLACE(struct whp_cpuid_access, rax, WHV_X64_CPUID_ACCESS_CONTEXT, Rax);
SAME_PLACE(struct whp_cpuid_access, rcx, WHV_X64_CPUID_ACCESS_CONTEXT, Rcx);
SAME_PLACE(struct whp_cpuid_access, default_rax, WHV_X64_CPUID_ACCESS_CONTEXT, DefaultResultRax);
SAME_PLACE(struct whp_cpuid_access, default_rbx, WHV_X64_CPUID_ACCESS_CONTEXT, DefaultResultRbx);
SAME_PLACE(struct whp_cpuid_access, default_rcx, WHV_X64_CPUID_ACCESS_CONTEXT, DefaultResultRcx);
SAME_PLACE(struct whp_cpuid_access, default_rdx, WHV_X64_CPUID_ACCESS_CONTEXT, DefaultResultRdx);
SAME_SIZE(struct whp_unsupported, WHV_X64_UNSUPPORTED_FEATURE_CONTEXT);
SAME_PLACE(struct whp_unsupported, parameter, WHV_X64_UNSUPPORTED_FEATURE_CONTEXT,
	   FeatureParameter);
SAME_SIZE(struct whp_exit, WHV_RUN_VP_EXIT_CONTEXT);
SAME_PLACE(struct whp_exit, reason, WHV_RUN_VP_EXIT_CONTEXT, ExitReason);
SAME_PLACE(struct whp_exit, vp, WHV_RUN_VP_EXIT_CONTEXT, VpContext);
SAME_PLACE(struct whp_exit, u.memory, WHV_RUN_VP_EXIT_CONTEXT, MemoryAccess);
SAME_PLACE(struct whp_exit, u.port, WHV_RUN_VP_EXIT_CONTEXT, IoPortAccess);
SAME_PLACE(struct whp_exit, u.eoi_vector, WHV_RUN_VP_EXIT_CONTEXT, ApicEoi);
SAME_SIZE(struct whp_interrupt, WHV_INTERRUPT_CONTROL);
SAME_PLACE(struct whp_interrupt, destination, WHV_INTERRUPT_CONTROL, Destination);
SAME_PLACE(struct whp_interrupt, vector, WHV_INTERRUPT_CONTROL, Vector);
SAME_SIZE(struct whp_doorbell, WHV_DOORBELL_MATCH_DATA);
SAME_PLACE(struct whp_doorbell, gpa, WHV_DOORBELL_MATCH_DATA, GuestAddress);
SAME_PLACE(struct whp_doorbell, value, WHV_DOORBELL_MATCH_DATA, Value);
SAME_PLACE(struct whp_doorbell, length, WHV_DOORBELL_MATCH_DATA, Length);
SAME_SIZE(struct whp_port_params, WHV_NOTIFICATION_PORT_PARAMETERS);
SAME_PLACE(struct whp_port_params, type, WHV_NOTIFICATION_PORT_PARAMETERS, NotificationPortType);
SAME_PLACE(struct whp_port_params, doorbell, WHV_NOTIFICATION_PORT_PARAMETERS, Doorbell);

/* ---- numbers ---- */
SAME_NUMBER(WHP_CAP_PRESENT, WHvCapabilityCodeHypervisorPresent);
SAME_NUMBER(WHP_CAP_FEATURES, WHvCapabilityCodeFeatures);
SAME_NUMBER(WHP_CAP_EXITS, WHvCapabilityCodeExtendedVmExits);
SAME_NUMBER(WHP_CAP_VENDOR, WHvCapabilityCodeProcessorVendor);
SAME_NUMBER(WHP_CAP_CLOCK, WHvCapabilityCodeProcessorClockFrequency);
SAME_NUMBER(WHP_CAP_APIC_CLOCK, WHvCapabilityCodeInterruptClockFrequency);
SAME_NUMBER(WHP_CAP_SYNTHETIC, WHvCapabilityCodeSyntheticProcessorFeaturesBanks);
SAME_NUMBER(WHP_VENDOR_AMD, WHvProcessorVendorAmd);
SAME_NUMBER(WHP_VENDOR_INTEL, WHvProcessorVendorIntel);
SAME_NUMBER(WHP_VENDOR_HYGON, WHvProcessorVendorHygon);
SAME_NUMBER(WHP_PROP_EXITS, WHvPartitionPropertyCodeExtendedVmExits);
SAME_NUMBER(WHP_PROP_SECURITY_DOMAIN, WHvPartitionPropertyCodeSeparateSecurityDomain);
SAME_NUMBER(WHP_PROP_MSR_BITMAP, WHvPartitionPropertyCodeX64MsrExitBitmap);
SAME_NUMBER(WHP_PROP_CPUID_EXITS, WHvPartitionPropertyCodeCpuidExitList);
SAME_NUMBER(WHP_PROP_LAPIC, WHvPartitionPropertyCodeLocalApicEmulationMode);
SAME_NUMBER(WHP_PROP_TIME, WHvPartitionPropertyCodeReferenceTime);
SAME_NUMBER(WHP_PROP_SYNTHETIC, WHvPartitionPropertyCodeSyntheticProcessorFeaturesBanks);
SAME_NUMBER(WHP_PROP_PROCESSORS, WHvPartitionPropertyCodeProcessorCount);
SAME_NUMBER(WHP_LAPIC_NONE, WHvX64LocalApicEmulationModeNone);
SAME_NUMBER(WHP_LAPIC_XAPIC, WHvX64LocalApicEmulationModeXApic);
SAME_NUMBER(WHP_LAPIC_X2APIC, WHvX64LocalApicEmulationModeX2Apic);
SAME_NUMBER(WHP_MAP_READ, WHvMapGpaRangeFlagRead);
SAME_NUMBER(WHP_MAP_WRITE, WHvMapGpaRangeFlagWrite);
SAME_NUMBER(WHP_MAP_EXECUTE, WHvMapGpaRangeFlagExecute);
SAME_NUMBER(WHP_MAP_DIRTY, WHvMapGpaRangeFlagTrackDirtyPages);
SAME_NUMBER(WHP_REG_RAX, WHvX64RegisterRax);
SAME_NUMBER(WHP_REG_RAX + 1, WHvX64RegisterRcx);
SAME_NUMBER(WHP_REG_RAX + 2, WHvX64RegisterRdx);
SAME_NUMBER(WHP_REG_RAX + 3, WHvX64RegisterRbx);
SAME_NUMBER(WHP_REG_RAX + 4, WHvX64RegisterRsp);
SAME_NUMBER(WHP_REG_RAX + 5, WHvX64RegisterRbp);
SAME_NUMBER(WHP_REG_RAX + 6, WHvX64RegisterRsi);
SAME_NUMBER(WHP_REG_RAX + 7, WHvX64RegisterRdi);
SAME_NUMBER(WHP_REG_RAX + 15, WHvX64RegisterR15);
SAME_NUMBER(WHP_REG_RIP, WHvX64RegisterRip);
SAME_NUMBER(WHP_REG_RFLAGS, WHvX64RegisterRflags);
SAME_NUMBER(WHP_REG_ES, WHvX64RegisterEs);
SAME_NUMBER(WHP_REG_CS, WHvX64RegisterCs);
SAME_NUMBER(WHP_REG_ES + 2, WHvX64RegisterSs);
SAME_NUMBER(WHP_REG_ES + 3, WHvX64RegisterDs);
SAME_NUMBER(WHP_REG_ES + 4, WHvX64RegisterFs);
SAME_NUMBER(WHP_REG_GS, WHvX64RegisterGs);
SAME_NUMBER(WHP_REG_LDTR, WHvX64RegisterLdtr);
SAME_NUMBER(WHP_REG_TR, WHvX64RegisterTr);
SAME_NUMBER(WHP_REG_IDTR, WHvX64RegisterIdtr);
SAME_NUMBER(WHP_REG_GDTR, WHvX64RegisterGdtr);
SAME_NUMBER(WHP_REG_CR0, WHvX64RegisterCr0);
SAME_NUMBER(WHP_REG_CR2, WHvX64RegisterCr2);
SAME_NUMBER(WHP_REG_CR3, WHvX64RegisterCr3);
SAME_NUMBER(WHP_REG_CR4, WHvX64RegisterCr4);
SAME_NUMBER(WHP_REG_EFER, WHvX64RegisterEfer);
SAME_NUMBER(WHP_REG_MTRR_DEF_TYPE, WHvX64RegisterMsrMtrrDefType);
SAME_NUMBER(WHP_REG_CR8, WHvX64RegisterCr8);
SAME_NUMBER(WHP_REG_DR0, WHvX64RegisterDr0);
SAME_NUMBER(WHP_REG_DR0 + 3, WHvX64RegisterDr3);
SAME_NUMBER(WHP_REG_DR0 + 4, WHvX64RegisterDr6);
SAME_NUMBER(WHP_REG_DR0 + 5, WHvX64RegisterDr7);
SAME_NUMBER(WHP_REG_XCR0, WHvX64RegisterXCr0);
SAME_NUMBER(WHP_REG_TSC, WHvX64RegisterTsc);
SAME_NUMBER(WHP_REG_KERNEL_GS, WHvX64RegisterKernelGsBase);
SAME_NUMBER(WHP_REG_APIC_BASE, WHvX64RegisterApicBase);
SAME_NUMBER(WHP_REG_PAT, WHvX64RegisterPat);
SAME_NUMBER(WHP_REG_SYSENTER_CS, WHvX64RegisterSysenterCs);
SAME_NUMBER(WHP_REG_SYSENTER_CS + 1, WHvX64RegisterSysenterEip);
SAME_NUMBER(WHP_REG_SYSENTER_CS + 2, WHvX64RegisterSysenterEsp);
SAME_NUMBER(WHP_REG_STAR, WHvX64RegisterStar);
SAME_NUMBER(WHP_REG_STAR + 1, WHvX64RegisterLstar);
SAME_NUMBER(WHP_REG_STAR + 2, WHvX64RegisterCstar);
SAME_NUMBER(WHP_REG_STAR + 3, WHvX64RegisterSfmask);
SAME_NUMBER(WHP_REG_MTRR_BASE, WHvX64RegisterMsrMtrrPhysBase0);
SAME_NUMBER(WHP_REG_MTRR_BASE + 15, WHvX64RegisterMsrMtrrPhysBaseF);
SAME_NUMBER(WHP_REG_MTRR_MASK, WHvX64RegisterMsrMtrrPhysMask0);
SAME_NUMBER(WHP_REG_MTRR_MASK + 15, WHvX64RegisterMsrMtrrPhysMaskF);
SAME_NUMBER(WHP_REG_MTRR_FIXED, WHvX64RegisterMsrMtrrFix64k00000);
SAME_NUMBER(WHP_REG_MTRR_FIXED + 10, WHvX64RegisterMsrMtrrFix4kF8000);
SAME_NUMBER(WHP_REG_TSC_AUX, WHvX64RegisterTscAux);
SAME_NUMBER(WHP_REG_SPEC_CTRL, WHvX64RegisterSpecCtrl);
SAME_NUMBER(WHP_REG_TSX_CTRL, WHvX64RegisterTsxCtrl);
SAME_NUMBER(WHP_REG_XSS, WHvX64RegisterXss);
SAME_NUMBER(WHP_REG_U_CET, WHvX64RegisterUCet);
SAME_NUMBER(WHP_REG_U_CET + 7, WHvX64RegisterInterruptSspTableAddr);
SAME_NUMBER(WHP_REG_TSC_DEADLINE, WHvX64RegisterTscDeadline);
SAME_NUMBER(WHP_REG_TSC_ADJUST, WHvX64RegisterTscAdjust);
SAME_NUMBER(WHP_REG_UMWAIT, WHvX64RegisterUmwaitControl);
SAME_NUMBER(WHP_REG_XFD, WHvX64RegisterXfd);
SAME_NUMBER(WHP_REG_XFD + 1, WHvX64RegisterXfdErr);
SAME_NUMBER(WHP_REG_HYPERCALL, WHvX64RegisterHypercall);
SAME_NUMBER(WHP_REG_GUEST_OS, WHvRegisterGuestOsId);
SAME_NUMBER(WHP_REG_VP_ASSIST, WHvRegisterVpAssistPage);
SAME_NUMBER(WHP_REG_REFERENCE_TSC, WHvRegisterReferenceTsc);
SAME_NUMBER((UINT32)WHP_REG_PENDING_INTERRUPTION, (UINT32)WHvRegisterPendingInterruption);
SAME_NUMBER((UINT32)WHP_REG_ACTIVITY, (UINT32)WHvRegisterInternalActivityState);
SAME_NUMBER((UINT32)WHP_REG_INTERRUPT_STATE, (UINT32)WHvRegisterInterruptState);
SAME_NUMBER((UINT32)WHP_REG_PENDING_EVENT, (UINT32)WHvRegisterPendingEvent);
SAME_NUMBER((UINT32)WHP_REG_PENDING_DEBUG, (UINT32)WHvX64RegisterPendingDebugException);
SAME_NUMBER(WHP_EXIT_NONE, WHvRunVpExitReasonNone);
SAME_NUMBER(WHP_EXIT_MEMORY, WHvRunVpExitReasonMemoryAccess);
SAME_NUMBER(WHP_EXIT_PORT, WHvRunVpExitReasonX64IoPortAccess);
SAME_NUMBER(WHP_EXIT_UNRECOVERABLE, WHvRunVpExitReasonUnrecoverableException);
SAME_NUMBER(WHP_EXIT_INVALID_REGISTER, WHvRunVpExitReasonInvalidVpRegisterValue);
SAME_NUMBER(WHP_EXIT_UNSUPPORTED, WHvRunVpExitReasonUnsupportedFeature);
SAME_NUMBER(WHP_EXIT_WINDOW, WHvRunVpExitReasonX64InterruptWindow);
SAME_NUMBER(WHP_EXIT_HALT, WHvRunVpExitReasonX64Halt);
SAME_NUMBER(WHP_EXIT_EOI, WHvRunVpExitReasonX64ApicEoi);
SAME_NUMBER(WHP_EXIT_MSR, WHvRunVpExitReasonX64MsrAccess);
SAME_NUMBER(WHP_EXIT_CPUID, WHvRunVpExitReasonX64Cpuid);
SAME_NUMBER(WHP_EXIT_CANCELED, WHvRunVpExitReasonCanceled);
SAME_NUMBER(WHP_INT_FIXED, WHvX64InterruptTypeFixed);
SAME_NUMBER(WHP_INT_LOWEST, WHvX64InterruptTypeLowestPriority);
SAME_NUMBER(WHP_INT_NMI, WHvX64InterruptTypeNmi);
SAME_NUMBER(WHP_PORT_DOORBELL, WHvNotificationPortTypeDoorbell);
SAME_NUMBER(WHP_E_INVALIDARG, E_INVALIDARG);
SAME_NUMBER(WHP_E_OUTOFMEMORY, E_OUTOFMEMORY);
SAME_NUMBER(WHP_E_ACCESSDENIED, E_ACCESSDENIED);
SAME_NUMBER(WHP_E_NOTIMPL, E_NOTIMPL);

/*
 * Bit fields: the compiler does not take them as constants, so a function that must vanish is
 * called if a value with just that field set is another number than ours.
 */
#define SAME_BITS(name, ours, type, number, field, v)                                      \
	void whp_differs_##name(void) __attribute__((error(#type "." #field " differs"))); \
	static inline __attribute__((always_inline)) void check_##name(void)               \
	{                                                                                  \
		union {                                                                    \
			type t;                                                            \
			number n;                                                          \
		} u = {.n = 0};                                                            \
		u.t.field = v;                                                             \
		if (u.n != (number)(ours))                                                 \
			whp_differs_##name();                                              \
	}
SAME_BITS(lapic, WHP_FEATURE_LAPIC, WHV_CAPABILITY_FEATURES, UINT64, LocalApicEmulation, 1)
SAME_BITS(dirty, WHP_FEATURE_DIRTY, WHV_CAPABILITY_FEATURES, UINT64, DirtyPageTracking, 1)
SAME_BITS(cpuid, WHP_EXT_CPUID, WHV_EXTENDED_VM_EXITS, UINT64, X64CpuidExit, 1)
SAME_BITS(msr, WHP_EXT_MSR, WHV_EXTENDED_VM_EXITS, UINT64, X64MsrExit, 1)
SAME_BITS(unhandled, WHP_MSR_UNHANDLED, WHV_X64_MSR_EXIT_BITMAP, UINT64, UnhandledMsrs, 1)
SAME_BITS(present, WHP_SYN_PRESENT, WHV_SYNTHETIC_PROCESSOR_FEATURES, UINT64, HypervisorPresent, 1)
SAME_BITS(hv1, WHP_SYN_HV1, WHV_SYNTHETIC_PROCESSOR_FEATURES, UINT64, Hv1, 1)
SAME_BITS(counter, WHP_SYN_REFERENCE_COUNTER, WHV_SYNTHETIC_PROCESSOR_FEATURES, UINT64,
	  AccessPartitionReferenceCounter, 1)
SAME_BITS(hypercall, WHP_SYN_HYPERCALL, WHV_SYNTHETIC_PROCESSOR_FEATURES, UINT64,
	  AccessHypercallRegs, 1)
SAME_BITS(vp_index, WHP_SYN_VP_INDEX, WHV_SYNTHETIC_PROCESSOR_FEATURES, UINT64, AccessVpIndex, 1)
SAME_BITS(tsc, WHP_SYN_REFERENCE_TSC, WHV_SYNTHETIC_PROCESSOR_FEATURES, UINT64,
	  AccessPartitionReferenceTsc, 1)
SAME_BITS(frequency, WHP_SYN_FREQUENCY, WHV_SYNTHETIC_PROCESSOR_FEATURES, UINT64,
	  AccessFrequencyRegs, 1)
SAME_BITS(cpl, 3, WHV_X64_VP_EXECUTION_STATE, UINT16, Cpl, 3)
SAME_BITS(shadow, WHP_VP_SHADOW, WHV_X64_VP_EXECUTION_STATE, UINT16, InterruptShadow, 1)
SAME_BITS(state, WHP_STATE_SHADOW, WHV_X64_INTERRUPT_STATE_REGISTER, UINT64, InterruptShadow, 1)
SAME_BITS(step, WHP_DEBUG_STEP, WHV_X64_PENDING_DEBUG_EXCEPTION, UINT64, SingleStep, 1)
SAME_BITS(port_write, WHP_PORT_WRITE, WHV_X64_IO_PORT_ACCESS_INFO, UINT32, IsWrite, 1)
SAME_BITS(port_size, 4 << 1, WHV_X64_IO_PORT_ACCESS_INFO, UINT32, AccessSize, 4)
SAME_BITS(port_string, WHP_PORT_STRING, WHV_X64_IO_PORT_ACCESS_INFO, UINT32, StringOp, 1)
SAME_BITS(msr_write, WHP_MSR_WRITE, WHV_X64_MSR_ACCESS_INFO, UINT32, IsWrite, 1)
SAME_BITS(pending, WHP_EVENT_PENDING, WHV_X64_PENDING_EXCEPTION_EVENT, UINT32, EventPending, 1)
SAME_BITS(has_code, WHP_EVENT_HAS_CODE, WHV_X64_PENDING_EXCEPTION_EVENT, UINT32, DeliverErrorCode,
	  1)
SAME_BITS(vector, 14u << WHP_EVENT_VECTOR_SHIFT, WHV_X64_PENDING_EXCEPTION_EVENT, UINT32, Vector,
	  14)
SAME_BITS(logical, WHP_INT_LOGICAL, WHV_INTERRUPT_CONTROL, UINT64, DestinationMode, 1)
SAME_BITS(level, WHP_INT_LEVEL, WHV_INTERRUPT_CONTROL, UINT64, TriggerMode, 1)
SAME_BITS(insn_len, 15u << 16, WHV_VP_EXIT_CONTEXT, UINT32, InstructionLength, 15)

/*
 * Functions: both sides take the same arguments, by their number and whether each is a pointer or a
 * number, and return the same.
 */
#define SAME_CALL(ours, theirs, ...)                                                       \
	_Static_assert(__builtin_types_compatible_p(                                       \
			       __typeof__(((struct whp_api *)0)->ours(__VA_ARGS__) + 0LL), \
			       __typeof__(theirs(__VA_ARGS__) + 0LL)) &&                   \
			       sizeof(((struct whp_api *)0)->ours(__VA_ARGS__)) ==         \
				       sizeof(theirs(__VA_ARGS__)),                        \
		       #theirs)
extern void *whp_p;
extern UINT32 whp_u32;
extern UINT64 whp_u64;
SAME_CALL(get_capability, WHvGetCapability, whp_u32, whp_p, whp_u32, whp_p);
SAME_CALL(create_partition, WHvCreatePartition, whp_p);
SAME_CALL(setup_partition, WHvSetupPartition, whp_p);
SAME_CALL(delete_partition, WHvDeletePartition, whp_p);
SAME_CALL(set_property, WHvSetPartitionProperty, whp_p, whp_u32, whp_p, whp_u32);
SAME_CALL(map, WHvMapGpaRange, whp_p, whp_p, whp_u64, whp_u64, whp_u32);
SAME_CALL(unmap, WHvUnmapGpaRange, whp_p, whp_u64, whp_u64);
SAME_CALL(query_dirty, WHvQueryGpaRangeDirtyBitmap, whp_p, whp_u64, whp_u64, whp_p, whp_u32);
SAME_CALL(create_vp, WHvCreateVirtualProcessor, whp_p, whp_u32, whp_u32);
SAME_CALL(delete_vp, WHvDeleteVirtualProcessor, whp_p, whp_u32);
SAME_CALL(run, WHvRunVirtualProcessor, whp_p, whp_u32, whp_p, whp_u32);
SAME_CALL(cancel, WHvCancelRunVirtualProcessor, whp_p, whp_u32, whp_u32);
SAME_CALL(get_registers, WHvGetVirtualProcessorRegisters, whp_p, whp_u32, whp_p, whp_u32, whp_p);
SAME_CALL(set_registers, WHvSetVirtualProcessorRegisters, whp_p, whp_u32, whp_p, whp_u32, whp_p);
SAME_CALL(request_interrupt, WHvRequestInterrupt, whp_p, whp_p, whp_u32);
SAME_CALL(create_port, WHvCreateNotificationPort, whp_p, whp_p, whp_p, whp_p);
SAME_CALL(delete_port, WHvDeleteNotificationPort, whp_p, whp_p);
SAME_CALL(register_doorbell, WHvRegisterPartitionDoorbellEvent, whp_p, whp_p, whp_p);
SAME_CALL(unregister_doorbell, WHvUnregisterPartitionDoorbellEvent, whp_p, whp_p);
SAME_CALL(suspend_time, WHvSuspendPartitionTime, whp_p);
SAME_CALL(get_property, WHvGetPartitionProperty, whp_p, whp_u32, whp_p, whp_u32, whp_p);
SAME_CALL(get_xsave, WHvGetVirtualProcessorXsaveState, whp_p, whp_u32, whp_p, whp_u32, whp_p);
SAME_CALL(set_xsave, WHvSetVirtualProcessorXsaveState, whp_p, whp_u32, whp_p, whp_u32);
SAME_CALL(get_lapic, WHvGetVirtualProcessorInterruptControllerState2, whp_p, whp_u32, whp_p,
	  whp_u32, whp_p);
SAME_CALL(set_lapic, WHvSetVirtualProcessorInterruptControllerState2, whp_p, whp_u32, whp_p,
	  whp_u32);
SAME_CALL(cpuid, WHvGetVirtualProcessorCpuidOutput, whp_p, whp_u32, whp_u32, whp_u32, whp_p);
SAME_SIZE(uint32_t[4], WHV_CPUID_OUTPUT);
_Static_assert(offsetof(WHV_CPUID_OUTPUT, Ecx) == 8, "in the order EAX, EBX, ECX, EDX");

void whp_abi_check(void);
void whp_abi_check(void)
{
	check_lapic();
	check_dirty();
	check_cpuid();
	check_msr();
	check_unhandled();
	check_present();
	check_hv1();
	check_counter();
	check_hypercall();
	check_vp_index();
	check_tsc();
	check_frequency();
	check_cpl();
	check_shadow();
	check_state();
	check_step();
	check_port_write();
	check_port_size();
	check_port_string();
	check_msr_write();
	check_pending();
	check_has_code();
	check_vector();
	check_logical();
	check_level();
	check_insn_len();
}
