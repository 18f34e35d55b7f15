/*
 * The device page: all that the core (insula-vmm) and one helper share about one device.
 *
 * A sealed memfd of DP_SIZE bytes, made by the supervisor, which outlives helpers:
 *
 *   DP_SHADOW_OFF  4 KiB  shadow registers. The helper writes, the core reads. For a window that is
 *                         served as DEVICE_SHADOW (device.h) the page is also a read-only memory
 *                         slot of the guest: guest reads do not exit. The guest sees every byte of
 *                         it, so it holds nothing else
 *   DP_CTRL_OFF    4 KiB  struct dp_ctrl: posted-ring indices, and the one synchronous call slot
 *   DP_RING_OFF    4 KiB  posted writes: one producer (core, under the device's lock), one consumer
 *                         (helper)
 *   DP_STATE_OFF   rest   device state, private to the helpers: what a restarted helper carries on
 *                         from. The core does not map it
 *
 * Order. A write is posted only if no readable register depends on it; everything else is a call,
 * and a call is executed after all writes posted before it. So a guest never sees a stale register.
 *
 * Trust. Each side treats what the other wrote as hostile. Each keeps private copies of its own
 * indices and never reads them back. Fields of one side share no cache line with the other's.
 *
 * Sleeping. The helper sets `asleep` (seq_cst), looks once more at ring_head and req_seq, then
 * sleeps on the call event; the core publishes first, then reads `asleep` (seq_cst) and signals the
 * event only if it is set. The core waits for an answer by spinning for DP_SPIN_NS, then sets
 * `core_waits`, looks again, and waits on the futex word ack_seq; the helper stores ack_seq, then
 * wakes the futex if core_waits is set.
 *
 * Deadline. No answer within DP_DEADLINE_NS: the device is marked failed, reads that exit return
 * all ones (the shadow page of an MMIO device stays mapped and keeps its last values), the
 * supervisor is told and restarts the helper. See docs/protocol.md.
 */
#ifndef INSULA_DEVPAGE_H
#define INSULA_DEVPAGE_H

#include <stdalign.h>
#include <stdatomic.h>
#include <stdint.h>

#define DP_MAGIC 0x31504449u /* "IDP1" */
#define DP_SIZE 0x20000u     /* 128 KiB; pages that a device does not touch cost nothing */
#define DP_SHADOW_OFF 0x0000u
#define DP_SHADOW_SIZE 0x1000u
#define DP_CTRL_OFF 0x1000u
#define DP_RING_OFF 0x2000u
#define DP_RING_LEN 256u /* entries, a power of two */
#define DP_STATE_OFF 0x3000u
#define DP_STATE_SIZE (DP_SIZE - DP_STATE_OFF)
#define DP_CORE_SIZE DP_STATE_OFF /* what the core maps */

#define DP_SPIN_NS 50000ull          /* how long the core spins for an answer */
#define DP_DEADLINE_NS 2000000000ull /* how long a vCPU waits for a helper at most */

enum dp_op { DP_OP_READ = 1, DP_OP_WRITE = 2 };

struct dp_post {         /* one posted write */
	uint32_t offset; /* of the register: its place in the shadow page */
	uint32_t size;   /* 1, 2, 4 or 8 */
	uint64_t value;  /* zero-extended */
};
_Static_assert(sizeof(struct dp_post) == 16, "wire size");
_Static_assert(DP_RING_LEN * sizeof(struct dp_post) <= DP_STATE_OFF - DP_RING_OFF, "ring fits");

struct dp_ctrl {
	/* written by the supervisor before anyone maps it */
	uint32_t magic; /* DP_MAGIC */
	uint32_t size;  /* DP_SIZE */

	/* core -> helper */
	alignas(64) _Atomic uint32_t ring_head; /* entries ever posted (free-running) */
	alignas(64) _Atomic uint32_t req_seq;   /* calls ever made (free-running) */
	uint32_t req_op;                        /* enum dp_op */
	uint32_t req_offset;
	uint32_t req_size;
	uint64_t req_value;
	alignas(64) _Atomic uint32_t core_waits; /* the core sleeps on ack_seq */
	_Atomic uint32_t lost; /* accesses that the core gave up on: state may be inconsistent */

	/* helper -> core */
	alignas(64) _Atomic uint32_t ring_tail; /* entries ever consumed (free-running) */
	alignas(64) _Atomic uint32_t ack_seq;   /* calls ever answered; futex word */
	uint32_t ack_pad;
	uint64_t ack_value;                  /* result of DP_OP_READ */
	alignas(64) _Atomic uint32_t asleep; /* the helper sleeps on its call event */
};
_Static_assert(sizeof(struct dp_ctrl) <= DP_RING_OFF - DP_CTRL_OFF, "control block fits");

#endif
