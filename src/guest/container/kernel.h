/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Linux's interfaces that musl has no header for: the few structures and numbers that this program
 * uses, as include/uapi/linux of the kernel has them (each with its file there).
 */
#ifndef CONTAINER_KERNEL_H
#define CONTAINER_KERNEL_H

#include <stdint.h>

/* openat2.h */
struct k_open_how {
	uint64_t flags, mode, resolve;
};
#define K_RESOLVE_NO_MAGICLINKS 0x02u
#define K_RESOLVE_NO_SYMLINKS 0x04u
#define K_RESOLVE_IN_ROOT 0x10u

/* capability.h */
#define K_CAPABILITY_VERSION_3 0x20080522u
#define K_CAP_SYS_ADMIN 21u
#define K_CAP_COUNT 64u
struct k_cap_header {
	uint32_t version;
	int pid;
};
struct k_cap_data { /* [0]: capabilities 0 to 31, [1]: 32 to 63 */
	uint32_t effective, permitted, inheritable;
};

/* seccomp.h, filter.h */
#define K_SECCOMP_SET_MODE_FILTER 1u
struct k_sock_filter {
	uint16_t code;
	uint8_t jt, jf;
	uint32_t k;
};
struct k_sock_fprog {
	uint16_t len;
	const struct k_sock_filter *filter;
};
_Static_assert(sizeof(struct k_sock_filter) == 8, "struct sock_filter");

/* bpf.h */
#define K_BPF_PROG_LOAD 5
#define K_BPF_PROG_ATTACH 8
#define K_BPF_PROG_TYPE_CGROUP_DEVICE 15u
#define K_BPF_CGROUP_DEVICE 6u
#define K_BPF_F_ALLOW_MULTI 2u
struct k_bpf_insn {
	uint8_t code;
	uint8_t regs; /* destination, source << 4 */
	int16_t off;
	int32_t imm;
};
_Static_assert(sizeof(struct k_bpf_insn) == 8, "struct bpf_insn");
struct k_bpf_load { /* union bpf_attr, as far as BPF_PROG_LOAD is used */
	uint32_t prog_type, insn_cnt;
	uint64_t insns, license;
	uint32_t log_level, log_size;
	uint64_t log_buf;
	uint32_t kern_version, prog_flags;
};
struct k_bpf_attach {
	uint32_t target_fd, attach_bpf_fd, attach_type, attach_flags;
};

/* netlink.h, rtnetlink.h, if_link.h, if_addr.h, neighbour.h */
#define K_NETLINK_ROUTE 0
struct k_nlmsghdr {
	uint32_t len;
	uint16_t type, flags;
	uint32_t seq, pid;
};
struct k_rtattr {
	uint16_t len, type;
};
struct k_ifinfomsg {
	uint8_t family, pad;
	uint16_t type;
	int32_t index;
	uint32_t flags, change;
};
struct k_ifaddrmsg {
	uint8_t family, prefixlen, flags, scope;
	uint32_t index;
};
struct k_rtmsg {
	uint8_t family, dst_len, src_len, tos, table, protocol, scope, type;
	uint32_t flags;
};
struct k_ndmsg {
	uint8_t family, pad1;
	uint16_t pad2;
	int32_t ifindex;
	uint16_t state;
	uint8_t flags, type;
};
#define K_NLMSG_ERROR 2u
#define K_RTM_NEWLINK 16u
#define K_RTM_NEWADDR 20u
#define K_RTM_NEWROUTE 24u
#define K_RTM_NEWNEIGH 28u
#define K_NLM_F_REQUEST 0x1u
#define K_NLM_F_ACK 0x4u
#define K_NLM_F_REPLACE 0x100u
#define K_NLM_F_CREATE 0x400u
#define K_NLM_F_APPEND 0x800u
#define K_IFLA_IFNAME 3u
#define K_IFLA_MTU 4u
#define K_IFA_ADDRESS 1u
#define K_IFA_LOCAL 2u
#define K_IFA_BROADCAST 4u
#define K_IFA_F_NODAD 0x02u
#define K_RTA_DST 1u
#define K_RTA_OIF 4u
#define K_RTA_GATEWAY 5u
#define K_RTA_PRIORITY 6u
#define K_RTA_PREFSRC 7u
#define K_RT_TABLE_MAIN 254u
#define K_RTPROT_BOOT 3u
#define K_RTN_UNICAST 1u
#define K_RTNH_F_ONLINK 4u
#define K_NDA_DST 1u
#define K_NDA_LLADDR 2u
#define K_NUD_PERMANENT 0x80u

#endif
