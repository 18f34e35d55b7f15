/* SPDX-License-Identifier: BSD-2-Clause */
/* A snapshot of a VM. See save.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>
#include <insula/log.h>

#include "faults.h"
#include "held.h"
#include "pager.h"
#include "pages.h"
#include "restore.h"
#include "save.h"
#include "snapdir.h"
#include "spec/json.h"
#include "supervisor/vm.h"

#define SECOND_NS 1000000000ull
#define START_NS (10 * SECOND_NS) /* insula-pager is in its jail */
#define PAUSE_NS (3 * SECOND_NS)  /* the vCPUs are out of the guest */
#define QUIET_NS (10 * SECOND_NS) /* what the helpers have in flight */
#define HELD_NS (25 * SECOND_NS)  /* then, what a back end holds: VHOST_HELD_MS, and its answer */
/* A slow disk; the guest waits for the copy. */
#define COPY_NS(mem) (60 * SECOND_NS + ((mem) >> 24) * SECOND_NS)
#define SYNC_NS(mem) (300 * SECOND_NS + ((mem) >> 22) * SECOND_NS)
#define END_NS (10 * SECOND_NS)

enum save_step {
	SAVE_IDLE,
	SAVE_FILLS,  /* memory that has not been touched since the VM was restored */
	SAVE_STARTS, /* insula-pager */
	SAVE_PAUSES,
	SAVE_RECORDS,
	SAVE_QUIETS,
	SAVE_FREEZES, /* only if the guest goes on while its memory is copied */
	SAVE_COPIES,
	SAVE_SYNCS,
	SAVE_NAMES, /* the directory and the one above it */
	SAVE_ENDS,  /* insula-pager: the next one may follow at once; and the vCPUs run */
};

struct save {
	enum save_step step;
	struct save_order order; /* its texts are not kept */
	struct snapdir dir;
	struct snapshot base;   /* if it builds on one */
	char *base_path, *path; /* of the base; of the one that is made, absolute */
	char *last;             /* of the last one that was made; NULL: none */
	bool last_temporary;
	struct child pager;
	int records; /* shared memory; owned */
	uint64_t records_len;
	bool was_paused, resting; /* before; by us, the vCPUs */
	bool live;                /* the guest goes on while its memory is copied */
	bool asked[VM_MAX_DEVICES], quiet[VM_MAX_DEVICES]; /* to rest; it does */
	uint32_t no; /* of this snapshot of the VM: an answer may be late */
	uint64_t limit_ns, paused_ns, goes_on_ns;
	struct err result; /* from SAVE_ENDS on; code 0: there is a snapshot */
	char id[SNAPDIR_ID_LEN + 1];
};

bool save_active(const struct vm *vm)
{
	return vm->save && vm->save->step != SAVE_IDLE;
}

/* And insula-pager still has something to do with it. */
static bool save_works(const struct vm *vm)
{
	return save_active(vm) && vm->save->step != SAVE_ENDS;
}

uint64_t save_deadline(const struct vm *vm)
{
	return save_active(vm) ? vm->save->limit_ns : 0;
}

static void next_step(struct save *s, enum save_step step, uint64_t within)
{
	s->step = step;
	s->limit_ns = clock_ns() + within;
}

/* ---- the end of it ---- */

/* Does it have to rest until the memory is copied? What a balloon gives back is gone at once,
 * whoever guards it. */
static bool rests_longer(const struct device *d)
{
	return d->class == &device_balloon;
}

/* Everybody goes on as before; `but`: for those who rest longer. */
static void save_release(struct vm *vm, bool but)
{
	struct save *s = vm->save;

	for (unsigned i = 0; i < vm->ndevices; i++) {
		struct device *d = &vm->device[i];

		if (!s->asked[i] || (but && rests_longer(d)))
			continue;
		s->asked[i] = false;
		if (d->child.state == CHILD_READY)
			(void)child_send(&d->child, MSG_RESUME, NULL, 0, NULL, 0);
	}
	if (s->resting)
		(void)vm_order(vm, MSG_RESUME);
	s->resting = false;
}

/* Perhaps from one of its own messages: insula-pager is reaped when it has ended. */
static void save_clear(struct vm *vm)
{
	struct save *s = vm->save;

	held_saved(vm);
	child_shoot(&s->pager);
	snapdir_close(&s->dir);
	snapshot_close(&s->base);
	free(s->base_path);
	free(s->path);
	s->base_path = s->path = NULL;
	fd_close(&s->records);
	s->step = SAVE_IDLE;
}

/* The VM is not to go on from here: it goes on from the snapshot. */
static bool save_is_the_end(const struct save *s)
{
	return !s->result.code && !s->order.keep_running;
}

/* The answer says whether the VM is paused, so it does not come before insula-vmm's word. */
static bool save_may_end(const struct vm *vm)
{
	const struct save *s = vm->save;

	return s->step == SAVE_ENDS && child_ended(&s->pager) &&
	       (s->was_paused || save_is_the_end(s) || !control_is_paused(vm->control));
}

static void save_ended(struct vm *vm)
{
	struct save *s = vm->save;
	bool ends = save_is_the_end(s);

	s->step = SAVE_IDLE;
	s->order.done(s->order.ctx, vm, s->result.code, s->result.code ? &s->result : NULL);
	if (ends)
		vm_stop(vm, "snapshot", 0, false);
}

static void save_over(struct vm *vm, int rc, const struct err *e)
{
	struct save *s = vm->save;

	if (s->live)
		faults_let_go(vm);
	/* One that ends must not go on: its disks would be newer than what it is restored from. */
	if (rc || s->order.keep_running)
		save_release(vm, false);
	save_clear(vm);
	s->result = rc ? *e : (struct err){0};
	next_step(s, SAVE_ENDS, END_NS);
	if (save_may_end(vm))
		save_ended(vm);
}

void save_goes_on(struct vm *vm)
{
	if (save_active(vm) && save_may_end(vm))
		save_ended(vm);
}

static void save_fail(struct vm *vm, int rc, const char *what)
{
	struct err e;

	err_set(&e, rc, "snapshot: %s", what);
	err_clean(e.text);
	log_warn("%s", e.text);
	save_over(vm, rc, &e);
}

void save_cancel(struct vm *vm, const char *why)
{
	if (save_works(vm))
		save_fail(vm, -ECANCELED, why);
}

void save_overdue(struct vm *vm)
{
	static const char *const waits[] = {
		[SAVE_FILLS] = "the snapshot that this VM goes on from cannot be read in time",
		[SAVE_STARTS] = "insula-pager does not start",
		[SAVE_PAUSES] = "the vCPUs do not come out of the guest",
		[SAVE_RECORDS] = "the vCPUs' state cannot be read in time",
		[SAVE_QUIETS] = "what a device has in flight does not end",
		[SAVE_FREEZES] = "the memory cannot be write-protected in time",
		[SAVE_COPIES] = "the memory cannot be written in time",
		[SAVE_SYNCS] = "the disk does not take it in time",
		[SAVE_NAMES] = "the disk does not take it in time",
	};

	if (!save_active(vm) || clock_ns() < vm->save->limit_ns)
		return;
	if (vm->save->step == SAVE_ENDS)
		save_ended(vm);
	else
		save_fail(vm, -ETIMEDOUT, waits[vm->save->step]);
}

const char *save_last(const struct vm *vm)
{
	return vm->save ? vm->save->last : NULL;
}

uint64_t save_paused_us(const struct vm *vm)
{
	const struct save *s = vm->save;

	return s && !s->was_paused ? (s->goes_on_ns - s->paused_ns) / 1000 : 0;
}

bool save_was_live(const struct vm *vm)
{
	return vm->save && vm->save->live && !vm->save->was_paused;
}

void save_remove_temporary(struct vm *vm)
{
	struct save *s = vm->save;

	if (!s || !s->last || !s->last_temporary)
		return;
	snapdir_remove(s->last);
	free(s->last);
	s->last = NULL;
	s->last_temporary = false;
}

void save_close(struct vm *vm)
{
	bool live = save_active(vm) && vm->save->live;

	if (!vm->save)
		return;
	save_remove_temporary(vm);
	save_clear(vm);
	child_free(&vm->save->pager);
	if (live) /* it is dead, and protects nothing any more */
		faults_let_go(vm);
	free(vm->save->last);
	free(vm->save);
	vm->save = NULL;
}

/* ---- 5: goes on, lasts ---- */

static int save_sync(struct save *s, const int *fds, unsigned n)
{
	return child_send_new(&s->pager, MSG_PAGER_SYNC, fds, n);
}

static json_object *describe(const struct vm *vm, struct err *e)
{
	const struct save *s = vm->save;
	json_object *o = save_describe(vm, s->id), *base;
	char sum[65];

	if (s->base_path) {
		base = json_object_new_object();
		j_str(base, "path", s->base_path);
		j_str(base, "id", j_get_str(s->base.machine, "id", ""));
		j_obj(o, "base", base);
	}
	if (snapdir_sum(s->dir.file[SNAPDIR_VMM], sum, e))
		goto out_put;
	j_str(o, "vmm_sha256", sum);
	if (snapdir_sum(s->dir.file[SNAPDIR_DEVICES], sum, e))
		goto out_put;
	j_str(o, "devices_sha256", sum);
	return o;
out_put:
	json_object_put(o);
	return NULL;
}

static int write_rest(struct vm *vm, struct err *e)
{
	struct save *s = vm->save;
	json_object *o;
	const char *text;
	int rc = snapdir_copy(&s->dir, SNAPDIR_VMM, s->records, s->records_len, e);

	if (rc)
		return rc;
	o = describe(vm, e);
	if (!o)
		return e->code;
	text = json_object_to_json_string_ext(o, JSON_C_TO_STRING_PRETTY);
	rc = snapdir_write(&s->dir, SNAPDIR_MACHINE, text, strlen(text), e);
	if (!rc)
		rc = snapdir_seal(&s->dir, text, strlen(text), vm->paths.cache, e);
	json_object_put(o);
	return rc;
}

/* Nobody writes to memory that is not saved yet. */
static void frozen(struct vm *vm)
{
	vm->save->goes_on_ns = clock_ns();
	save_release(vm, true);
	next_step(vm->save, SAVE_COPIES, COPY_NS(memmap_size(&vm->memmap)));
}

static void copied(struct vm *vm)
{
	struct save *s = vm->save;
	struct err e;
	int rc;

	if (!s->live)
		s->goes_on_ns = clock_ns();
	rc = write_rest(vm, &e);
	if (s->order.keep_running)
		save_release(vm, false);
	if (!rc)
		rc = save_sync(s, s->dir.file, SNAPDIR_FILES);
	if (rc)
		save_fail(vm, rc, e.text);
	else
		next_step(s, SAVE_SYNCS, SYNC_NS(memmap_size(&vm->memmap)));
}

static void is_there(struct vm *vm)
{
	struct save *s = vm->save;

	log_info("snapshot: the guest was paused for %llu us",
		 (unsigned long long)((s->goes_on_ns - s->paused_ns) / 1000));
	save_remove_temporary(vm);
	free(s->last);
	s->last = s->path;
	s->last_temporary = s->order.temporary;
	s->path = NULL;
	save_over(vm, 0, NULL);
}

static void lasts(struct vm *vm)
{
	struct save *s = vm->save;
	int fds[SNAPDIR_NAMES], rc;
	struct err e;
	unsigned n = 0;

	rc = snapdir_keep(&s->dir, &e);
	if (!rc)
		n = snapdir_names_of(&s->dir, fds);
	if (n && (rc = save_sync(s, fds, n)))
		err_sys(&e, rc, "insula-pager");
	if (rc)
		save_fail(vm, rc, e.text);
	else if (!n)
		is_there(vm);
	else
		next_step(s, SAVE_NAMES, SYNC_NS(memmap_size(&vm->memmap)));
}

/* ---- 3, 4: rest, copy ---- */

static bool all_quiet(const struct vm *vm)
{
	for (unsigned i = 0; i < vm->ndevices; i++) {
		if (!vm->save->quiet[i] && !device_is_empty(&vm->device[i]))
			return false;
	}
	return true;
}

/* All helpers rest: a process that has been replaced since insula-pager started is not missed, and
 * one that dies from now on ends the snapshot. */
static int guard(struct vm *vm, struct err *e)
{
	if (!vm->save->live)
		return 0;
	if (!faults_complete(vm))
		return err_set(e, -EAGAIN, "a helper has just been replaced");
	return faults_give(vm, &vm->save->pager, NULL, 0)
		       ? err_set(e, -EIO, "insula-pager does not take messages")
		       : 0;
}

static void copy(struct vm *vm)
{
	struct save *s = vm->save;
	struct err e;
	int rc = pages_write(vm, &s->dir, &e);

	if (!rc)
		rc = guard(vm, &e);
	if (!rc && (rc = child_send(&s->pager, MSG_PAGER_GO, NULL, 0, NULL, 0)))
		err_sys(&e, rc, "insula-pager");
	if (rc)
		save_fail(vm, rc, e.text);
	else
		next_step(s, s->live ? SAVE_FREEZES : SAVE_COPIES,
			  COPY_NS(memmap_size(&vm->memmap)));
}

void save_quiet(struct vm *vm, const struct device *d, uint32_t no)
{
	struct save *s = vm->save;

	/* Late, of an earlier one, or twice: it is not waited for. */
	if (!save_active(vm) || s->step != SAVE_QUIETS || no != s->no || s->quiet[d->desc.index])
		return;
	s->quiet[d->desc.index] = true;
	if (all_quiet(vm))
		copy(vm);
}

void save_held(struct vm *vm, struct device *d, const struct msg_saved *m)
{
	struct save *s = vm->save;
	struct err e;

	/* As above. */
	if (!save_active(vm) || s->step != SAVE_QUIETS || m->no != s->no || !d->held)
		return;
	if (held_came(d, m, &e))
		save_fail(vm, e.code, e.text);
}

static void rest(struct vm *vm)
{
	struct save *s = vm->save;
	const struct msg_quiet m = {s->no};
	struct err e;

	memset(s->quiet, 0, sizeof(s->quiet));
	memset(s->asked, true, sizeof(s->asked));
	next_step(s, SAVE_QUIETS, QUIET_NS);
	for (unsigned i = 0; i < vm->ndevices; i++) {
		struct device *d = &vm->device[i];

		if (device_is_empty(d))
			continue;
		if (d->child.state == CHILD_READY && held_can(d)) {
			if (held_ask(d, &e)) {
				save_fail(vm, e.code, e.text);
				return;
			}
			next_step(s, SAVE_QUIETS, QUIET_NS + HELD_NS);
		}
		if (d->child.state != CHILD_READY ||
		    child_send(&d->child, MSG_QUIET, &m, sizeof(m), NULL, 0)) {
			save_helper_died(vm, d);
			return;
		}
	}
}

void save_helper_died(struct vm *vm, const struct device *d)
{
	char text[64];

	if (!save_active(vm) || vm->save->step < SAVE_QUIETS || vm->save->step > SAVE_COPIES)
		return;
	snprintf(text, sizeof(text), "%s has no helper at the moment", d->desc.name);
	save_fail(vm, -EAGAIN, text);
}

/* ---- 2: the vCPUs ---- */

void save_records(struct vm *vm, const struct msg_saved *m)
{
	struct save *s = vm->save;
	char text[sizeof(m->text) + 1];

	if (!save_active(vm) || s->step != SAVE_RECORDS)
		return;
	snprintf(text, sizeof(text), "%.*s", (int)sizeof(m->text), m->text);
	if (m->error) {
		save_fail(vm, m->error < 0 && m->error > -4096 ? m->error : -EIO, text);
	} else if (m->len > VMM_SAVE_ROOM(config_vcpus(vm->conf))) {
		save_fail(vm, -EPROTO, "insula-vmm has written more than there is room for");
	} else {
		s->records_len = m->len;
		rest(vm);
	}
}

/* Of one size, so that whoever has taken insula-vmm over cannot fill the memory with it. */
static int make_records(struct vm *vm, struct err *e)
{
	struct save *s = vm->save;

	s->records = shm_create("insula-records", VMM_SAVE_ROOM(config_vcpus(vm->conf)), e);
	if (s->records < 0)
		return s->records;
	if (child_send_new(&vm->vmm, MSG_SAVE, &s->records, 1))
		return err_set(e, -EIO, "insula-vmm does not take messages");
	return 0;
}

void save_paused(struct vm *vm)
{
	struct save *s = vm->save;
	struct err e;
	int rc;

	if (!save_active(vm) || s->step != SAVE_PAUSES)
		return;
	next_step(s, SAVE_RECORDS, PAUSE_NS);
	rc = make_records(vm, &e);
	if (rc)
		save_fail(vm, rc, e.text);
}

/* ---- 1: begin ---- */

static void save_pager_ready(void *ctx)
{
	struct vm *vm = ctx;
	struct save *s = vm->save;

	if (!save_works(vm))
		return;
	s->was_paused = control_is_paused(vm->control);
	s->paused_ns = clock_ns();
	next_step(s, SAVE_PAUSES, PAUSE_NS);
	if (s->was_paused) {
		save_paused(vm);
		return;
	}
	s->resting = true;
	if (vm_order(vm, MSG_PAUSE))
		save_fail(vm, -EIO, "insula-vmm does not take messages");
}

static bool save_pager_failed(void *ctx, const struct msg_failed *f)
{
	if (save_works(ctx))
		save_fail(ctx, f->code < 0 && f->code > -4096 ? f->code : -EIO, f->text);
	return true;
}

static bool save_pager_message(void *ctx, enum msg_type t, const void *body, size_t len)
{
	struct vm *vm = ctx;
	struct save *s = vm->save;

	(void)body;
	if (!save_works(vm))
		return true;
	if (t == MSG_PAGER_FROZEN && !len && s->step == SAVE_FREEZES) {
		frozen(vm);
		return true;
	}
	if (t != MSG_PAGER_DONE || len != sizeof(struct msg_pager_done) || s->step < SAVE_COPIES)
		return false;
	if (s->step == SAVE_COPIES)
		copied(vm);
	else if (s->step == SAVE_SYNCS)
		lasts(vm);
	else
		is_there(vm);
	return true;
}

static void save_pager_gone(void *ctx, const struct child_end *end)
{
	struct vm *vm = ctx;
	char text[128];

	snprintf(text, sizeof(text), "insula-pager %s", end->how);
	/* It may have had orders left when everybody was let go. */
	if (vm->save->live)
		faults_let_go(vm);
	if (save_works(ctx))
		save_fail(ctx, -EAGAIN, text);
	else
		save_goes_on(vm);
}

static const struct child_ops pager_ops = {save_pager_ready, save_pager_failed, save_pager_message,
					   NULL, save_pager_gone};

static int start_pager(struct vm *vm, struct err *e)
{
	struct save *s = vm->save;

	s->live = s->order.keep_running && faults_complete(vm);
	return pager_start(vm, &s->pager, &pager_ops, PAGER_SAVE, s->live, &s->base,
			   s->dir.file[SNAPDIR_MEMORY], 2 * memmap_size(&vm->memmap), e);
}

static int open_base(struct vm *vm, const char *path, struct err *e)
{
	struct save *s = vm->save;
	int rc = snapshot_open(&s->base, path, vm->paths.cache, e);

	if (rc)
		return rc;
	if (s->base.mem != vm->conf->mem || s->base.mem_max != vm->conf->mem_max)
		return err_set(e, -EINVAL,
			       "base: '%.80s' is of a VM with %llu bytes; expected %llu", path,
			       (unsigned long long)s->base.mem, (unsigned long long)vm->conf->mem);
	if (s->base.nmemory == RAM_CHAIN)
		return err_set(e, -EINVAL, "base: '%.80s' builds on %u others already", path,
			       RAM_CHAIN - 1);
	s->base_path = path_whole(path, &rc);
	return rc ? err_sys(e, rc, "base: %s", path) : 0;
}

static struct save *save_of(struct vm *vm)
{
	struct save *s = vm->save ? vm->save : calloc(1, sizeof(*s));

	if (s && !vm->save) {
		s->records = -1;
		snapdir_none(&s->dir);
		snapshot_none(&s->base);
		child_none(&s->pager);
		vm->save = s;
	}
	return s;
}

int save_begin(struct vm *vm, const struct save_order *o, struct err *e)
{
	struct save *s = save_of(vm);
	const char *last = s && s->last ? s->last : vm->conf->restore;
	int rc = s ? save_refuses(vm, e) : err_set(e, -ENOMEM, "out of memory");

	if (!rc && !child_ended(&s->pager))
		rc = err_set(e, -EBUSY, "the last snapshot is just ending");
	if (rc)
		return rc;
	if (o->temporary && s->last && s->last_temporary)
		return err_set(e, -EBUSY, "other clones of it are just beginning");
	if (o->diff && !o->base && !last)
		return err_set(e, -EINVAL,
			       "base: this VM has no snapshot yet; expected the path of "
			       "one");
	child_free(&s->pager);
	*s = (struct save){.order = *o,
			   .records = -1,
			   .last = s->last,
			   .last_temporary = s->last_temporary,
			   .no = s->no + 1};
	snapdir_none(&s->dir);
	snapshot_none(&s->base);
	child_none(&s->pager);
	random_hex(s->id, SNAPDIR_ID_LEN);
	if (o->diff)
		rc = open_base(vm, o->base ? o->base : last, e);
	if (!rc)
		rc = snapdir_make(&s->dir, o->path, e);
	if (!rc && !(s->path = strdup(o->path)))
		rc = err_set(e, -ENOMEM, "out of memory");
	if (!rc && restore_is_whole(vm))
		rc = start_pager(vm, e);
	if (rc) {
		save_clear(vm);
	} else if (restore_is_whole(vm)) {
		next_step(s, SAVE_STARTS, START_NS);
	} else {
		next_step(s, SAVE_FILLS, COPY_NS(memmap_size(&vm->memmap)));
		restore_complete(vm);
	}
	return rc;
}

void save_memory_is_whole(struct vm *vm)
{
	struct err e;
	int rc;

	if (!save_active(vm) || vm->save->step != SAVE_FILLS)
		return;
	next_step(vm->save, SAVE_STARTS, START_NS);
	rc = start_pager(vm, &e);
	if (rc)
		save_fail(vm, rc, e.text);
}
