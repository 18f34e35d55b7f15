/* SPDX-License-Identifier: BSD-2-Clause */
/* insula-vmm's hypervisor device and its system calls. See vmm.h. */
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/jail.h>

#include "vmm.h"

unsigned vmm_device_fds(void)
{
	return 1;
}

#define ANY               \
	{                 \
		{         \
			0 \
		}         \
	}
static const struct jail_rule fixed_rules[] = {
	{SYS_read, "own events", ANY},
	{SYS_write, "events and the log", ANY},
	{SYS_pwrite64, "what a snapshot is written to", ANY},
	{SYS_pread64, "kernel and initrd, or what was saved", ANY},
	{SYS_fstat, "size of kernel and initrd", ANY},
	{SYS_newfstatat, "the same, as newer C libraries call it; the root is empty", ANY},
	{SYS_close, "what was loaded from or written to", ANY},
	{SYS_madvise, "the kernel's memory in huge pages", {{2, JAIL_EQ, GM_ADVICE, 0}}},
	{SYS_poll, "main loop", ANY},
	{SYS_ppoll, "main loop, as some C libraries call it", ANY},
	{SYS_gettid, "kick", ANY},
	{SYS_getpid, "kick", ANY},
#ifdef INSULA_SANITIZE
	{SYS_mmap, "sanitizer", ANY},
	{SYS_munmap, "sanitizer", ANY},
	{SYS_mprotect, "sanitizer", ANY},
	{SYS_madvise, "sanitizer", ANY},
	{SYS_sched_yield, "sanitizer", ANY},
	{SYS_sigaltstack, "sanitizer", ANY},
	{SYS_openat, "sanitizer; the root is empty", ANY},
	{SYS_readlink, "sanitizer; the root is empty", ANY},
	{SYS_rt_sigprocmask, "sanitizer", ANY},
	{SYS_rt_sigaction, "sanitizer", ANY},
#endif
};

int vmm_seal(const struct vmm *vm, struct err *e)
{
	struct jail_rule rules[96];
	size_t n = ARRAY_LEN(fixed_rules);
	unsigned use = (vm->restored ? HV_RESTORES : 0) | (vm->pci.n ? HV_MOVES : 0) |
		       (vm->cpus_change ? HV_PARKS : 0) | (vm->room ? HV_ASSIGNS : 0);

	memcpy(rules, fixed_rules, sizeof(fixed_rules));
	rules[n++] = (struct jail_rule){
		SYS_tgkill, "kick a vCPU of this process", {{0, JAIL_EQ, (uint64_t)getpid(), 0}}};
	if (vm->room) {
		rules[n++] = (struct jail_rule){
			SYS_mmap,
			"registers of a device of the host that comes, into the room for them; "
			"only where such may come",
			{{0, JAIL_MASKED_EQ, (uint64_t)vm->room, ~(VMM_ROOM - 1)},
			 {1, JAIL_MASKED_EQ, 0, ~(VMM_ROOM - 1)},
			 {2, JAIL_EQ, PROT_READ | PROT_WRITE, 0},
			 {3, JAIL_EQ, MAP_SHARED | MAP_FIXED, 0}}};
		rules[n++] = (struct jail_rule){
			SYS_mmap,
			"they have gone: nothing is there again",
			{{0, JAIL_MASKED_EQ, (uint64_t)vm->room, ~(VMM_ROOM - 1)},
			 {1, JAIL_MASKED_EQ, 0, ~(VMM_ROOM - 1)},
			 {2, JAIL_EQ, PROT_NONE, 0},
			 {3, JAIL_EQ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, 0}}};
	}
	for (const unsigned long *r = hv_ioctls_used(use); *r; r++) {
		if (n < ARRAY_LEN(rules))
			rules[n++] = (struct jail_rule){
				SYS_ioctl, "hypervisor request", {{1, JAIL_EQ, *r, 0}}};
		else
			panic("too many jail rules");
	}
	return jail_seal(rules, n, e);
}
