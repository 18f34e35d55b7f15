/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Records of state: what has to survive a process or a machine, as bytes.
 *
 * A record is a head, a body of `size` bytes, and zeros up to the next multiple of 8. The head says
 * what the body is (type), in which layout (version), and of what it is (index: the number of a
 * vCPU or of a device). Records stand one behind the other, and the body of a record may be records
 * again. All fields are little endian, without pointers.
 *
 * What a reader does with a file of another release or of another host, or with a damaged one:
 *
 *   - it knows every type that it meets: an unknown one is refused, not skipped;
 *   - version and size are what it expects: a body that changes gets a new version;
 *   - the sum is right. That is against damage, not against malice: whoever can write a record can
 *     make its sum, so the contents are checked like any other input;
 *   - it has looked at all records before it changes anything.
 *
 * No allocation, no system call. Thread: none, the caller owns the structures.
 */
#ifndef INSULA_STATE_H
#define INSULA_STATE_H

#include <stddef.h>
#include <stdint.h>

#include <insula/err.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Each user of records has 256 types of its own. */
#define STATE_KVM_X86 0x100u /* src/hv/kvm/x86/state.c: hv_vm_state_get(), hv_vcpu_state_get() */
#define STATE_VMM 0x200u     /* src/vmm/save.c: all that insula-vmm holds */
#define STATE_PAGES 0x300u   /* src/supervisor/snapshot/pages.c: device pages */
#define STATE_WHP_X86 0x400u /* src/hv/whp/state.c: as STATE_KVM_X86 */

struct state_head {
	uint32_t type;
	uint32_t version; /* of this type's body */
	uint32_t index;
	uint32_t size; /* of the body, without the zeros behind it */
	uint32_t sum;  /* over the other fields and the body */
	uint32_t zero;
};

/* Where records are put: the caller's memory. */
struct state_out {
	uint8_t *at;
	size_t room, len;
};

/* Append a record. -ENOSPC: there is no room for it, and nothing has changed. */
int state_put(struct state_out *o, uint32_t type, uint32_t version, uint32_t index,
	      const void *body, uint32_t size);

/* The whole of a record with this head: body and zeros included. */
uint64_t state_size(const struct state_head *h);

/* A record that a reader expects, and where it was found. */
struct state_part {
	uint32_t type, version;
	const char *name; /* in messages */
	uint32_t size;    /* of the body; with `unit` at most */
	uint32_t unit;    /* not 0: the size is a multiple of this */
	const void *body; /* out: inside the buffer, as aligned as that is */
	uint32_t len;     /* out: its size */
};

/* Find each of `n` parts exactly once in the records of `buf`, all of them of `index`, and nothing
 * else. -EPROTO: the text says which record is wrong, and what was expected. */
int state_take(const void *buf, size_t len, uint32_t index, struct state_part *p, size_t n,
	       struct err *e);

#ifdef __cplusplus
}
#endif

#endif
