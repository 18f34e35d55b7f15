/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A snapshot of a VM that runs or is paused.
 *
 *   1. what cannot be saved is refused, the directory is made, insula-pager starts in its jail: the
 *      guest runs all the while
 *   2. the vCPUs come out of the guest (MSG_PAUSE), and insula-vmm writes what it holds (MSG_SAVE)
 *   3. the helpers come to rest (MSG_QUIET): nothing is in flight, their pages are up to date
 *   4. the supervisor copies the device pages, and insula-pager guards guest memory: who writes to
 *      it waits until that page is copied (faults.h)
 *   5. helpers and guest go on, or stay paused, as they were; insula-pager copies guest memory
 *   6. what was written is made to last, and the directory gets its name
 *
 * Where memory cannot be guarded, and for a VM that does not go on, the copy comes before 5.
 *
 * A VM that does not go on ends when the snapshot is whole. Whatever fails, or dies, before that
 * takes the snapshot back and lets the VM go on as it was.
 *
 * Thread: the supervisor's. Nothing here waits: each step is begun by what ends the one before, and
 * each has a deadline.
 */
#ifndef SUPERVISOR_SAVE_H
#define SUPERVISOR_SAVE_H

#include <stdbool.h>
#include <stdint.h>

#include <insula/err.h>
#include <insula/proto.h>

struct device;
struct save;
struct vm;

struct save_order {
	const char *path; /* of a directory that is not there yet */
	bool diff;        /* it builds on another one: */
	const char *base; /* NULL: the last one of this VM, made or restored from */
	bool keep_running;
	bool temporary; /* removed at the next one, at the VM's end, by save_remove_temporary() */
	/* It is over: rc 0, or a negative errno and a line. Called once, unless the VM ends. */
	void (*done)(void *ctx, struct vm *vm, int rc, const struct err *e);
	void *ctx;
};

/* -EBUSY: another one is under way; -EOPNOTSUPP: something of this VM cannot be saved; or what
 * snapdir_make() says. done() is not called then. */
int save_begin(struct vm *vm, const struct save_order *o, struct err *e);
/* -EBUSY, -EAGAIN: not now; -EOPNOTSUPP: something of this VM cannot be saved. In words, before
 * anything stops. */
int save_refuses(const struct vm *vm, struct err *e);
/* What its machine.json says of the VM itself. The caller's. */
struct json_object *save_describe(const struct vm *vm, const char *id);
bool save_active(const struct vm *vm);
/* The path of the last one; NULL: none yet. */
const char *save_last(const struct vm *vm);
void save_remove_temporary(struct vm *vm);
/* How long its guest stood still for that, in us; 0: it was paused before. */
uint64_t save_paused_us(const struct vm *vm);
/* And whether its memory was copied while it went on. */
bool save_was_live(const struct vm *vm);
uint64_t save_deadline(const struct vm *vm); /* clock_ns(); 0: none */
void save_overdue(struct vm *vm);

/* ---- what the children say ---- */
void save_paused(struct vm *vm);
void save_goes_on(struct vm *vm);
void save_records(struct vm *vm, const struct msg_saved *m);
/* The answer to order `no`; one that nobody waits for any more changes nothing. */
void save_quiet(struct vm *vm, const struct device *d, uint32_t no);
/* What the back end of a device holds; likewise. */
void save_held(struct vm *vm, struct device *d, const struct msg_saved *m);
/* Take it back, if one is under way: everybody goes on. `why` follows "snapshot: ". */
void save_cancel(struct vm *vm, const char *why);
void save_helper_died(struct vm *vm, const struct device *d);

/* restore_complete() is done. */
void save_memory_is_whole(struct vm *vm);

/* The VM has ended. */
void save_close(struct vm *vm);

#endif
