/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Memory slots. The hypervisor replaces an older mapping without a word, so an overlap is refused
 * here. What the emulator writes the hypervisor does not see: it is remembered per slot and joined
 * to the hypervisor's own dirty pages.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>

#include "hv/whp/backend.h"

#define MAX_PAGES (UINT64_C(1) << 34) /* a bitmap's length in bytes is a 32-bit number */

static int check_flags(const struct hv_vm *vm, unsigned slot, unsigned flags, uint64_t size,
		       struct err *e)
{
	int r = hv_check_flags(slot, flags, e);

	if (r < 0)
		return r;
	if (size / HV_PAGE > MAX_PAGES)
		return err_set(e, -EINVAL, "memory slot %u: more than 64 TiB", slot);
	if ((flags & HV_MEM_DIRTY_LOG) && !vm->dirty)
		return err_set(e, -EOPNOTSUPP,
			       "memory slot %u: the hypervisor lacks DirtyPageTracking", slot);
	return 0;
}

static int check_free(const struct hv_vm *vm, unsigned slot, uint64_t gpa, uint64_t size,
		      struct err *e)
{
	int r = hv_check_reserved(gpa, size, e);

	if (vm->slot[slot].used)
		return err_set(e, -EEXIST, "memory slot %u is in use", slot);
	for (unsigned i = 0; i < HV_MAX_SLOTS && r == 0; i++)
		if (vm->slot[i].used)
			r = hv_check_overlap(gpa, size, i, vm->slot[i].gpa, vm->slot[i].size, e);
	return r;
}

static size_t bitmap_words(uint64_t size)
{
	return (size_t)(1 + (size / HV_PAGE - 1) / 64);
}

static uint32_t map_flags(unsigned flags)
{
	uint32_t f = WHP_MAP_READ | WHP_MAP_EXECUTE;

	if (!(flags & HV_MEM_READONLY))
		f |= WHP_MAP_WRITE;
	if (flags & HV_MEM_DIRTY_LOG)
		f |= WHP_MAP_DIRTY;
	return f;
}

/* The lock is held. */
static int map(struct hv_vm *vm, unsigned slot, const struct whp_slot *s, struct err *e)
{
	int r = check_free(vm, slot, s->gpa, s->size, e);
	whp_hr hr;

	if (r < 0)
		return r;
	hr = vm->api.map(vm->partition, s->host, s->gpa, s->size, map_flags(s->flags));
	return hr < 0 ? whp_fail(e, hr, "memory slot %u", slot) : 0;
}

int hv_mem_map(struct hv_vm *vm, unsigned slot, uint64_t gpa, void *host, uint64_t size,
	       unsigned flags, struct err *e)
{
	struct whp_slot s = {
		.used = true,
		.flags = flags,
		.gpa = gpa,
		.size = size,
		.host = host,
	};
	int r = hv_check_range(slot, gpa, host, size, e);

	if (r == 0)
		r = check_flags(vm, slot, flags, size, e);
	if (r < 0)
		return r;
	if (flags & HV_MEM_DIRTY_LOG) {
		s.written = calloc(bitmap_words(size), sizeof(*s.written));
		if (!s.written)
			return err_set(e, -ENOMEM, "memory slot %u: no memory for its pages", slot);
	}
	whp_lock_take(&vm->mem_lock);
	r = map(vm, slot, &s, e);
	if (r == 0)
		vm->slot[slot] = s;
	else
		free(s.written);
	whp_lock_drop(&vm->mem_lock);
	return r;
}

int hv_mem_unmap(struct hv_vm *vm, unsigned slot, struct err *e)
{
	struct whp_slot *s = &vm->slot[slot < HV_MAX_SLOTS ? slot : 0];
	int r = -ENOENT;

	whp_lock_take(&vm->mem_lock);
	if (slot < HV_MAX_SLOTS && s->used) {
		whp_hr hr = vm->api.unmap(vm->partition, s->gpa, s->size);

		r = hr < 0 ? whp_fail(e, hr, "unmap memory slot %u", slot) : 0;
		if (r == 0) {
			free(s->written);
			memset(s, 0, sizeof(*s));
		}
	} else {
		err_set(e, r, "unmap memory slot %u: not in use", slot);
	}
	whp_lock_drop(&vm->mem_lock);
	return r;
}

static int query(struct hv_vm *vm, const struct whp_slot *s, uint64_t *bitmap, struct err *e)
{
	size_t words = bitmap_words(s->size);
	whp_hr hr = vm->api.query_dirty(vm->partition, s->gpa, s->size, bitmap,
					(uint32_t)(words * sizeof(*bitmap)));

	if (hr < 0)
		return whp_fail(e, hr, "dirty pages at 0x%" PRIx64, s->gpa);
	for (size_t i = 0; i < words; i++)
		bitmap[i] |= __atomic_exchange_n(&s->written[i], 0, __ATOMIC_ACQ_REL);
	return 0;
}

int hv_mem_dirty(struct hv_vm *vm, unsigned slot, uint64_t *bitmap, struct err *e)
{
	int r;

	whp_lock_take_shared(&vm->mem_lock);
	if (slot < HV_MAX_SLOTS && vm->slot[slot].used && vm->slot[slot].written)
		r = query(vm, &vm->slot[slot], bitmap, e);
	else
		r = err_set(e, -ENOENT, "dirty log of memory slot %u: there is none", slot);
	whp_lock_drop_shared(&vm->mem_lock);
	return r;
}

static void mark_written(const struct whp_slot *s, uint64_t off)
{
	uint64_t page = off / HV_PAGE;

	if (s->written)
		__atomic_fetch_or(&s->written[page / 64], UINT64_C(1) << page % 64,
				  __ATOMIC_ACQ_REL);
}

uint8_t *whp_mem_find(void *ctx, uint64_t gpa, unsigned len, bool write)
{
	const struct hv_vm *vm = ctx;

	for (unsigned i = 0; i < HV_MAX_SLOTS; i++) {
		const struct whp_slot *s = &vm->slot[i];
		uint64_t off = gpa - s->gpa;

		if (!s->used || gpa < s->gpa || off >= s->size || len > s->size - off)
			continue;
		if (write && (s->flags & HV_MEM_READONLY))
			return NULL;
		if (write)
			mark_written(s, off);
		return s->host + off;
	}
	return NULL;
}
