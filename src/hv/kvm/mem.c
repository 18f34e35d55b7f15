/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Memory slots. The table is kept here so that an overlap is refused with a name before KVM sees
 * it, and so that the instruction bytes of an error can be found.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include <insula/base.h>

#include "hv/kvm/backend.h"

static int check_free(const struct hv_vm *vm, unsigned slot, uint64_t gpa, uint64_t size,
		      struct err *e)
{
	int r = hv_check_reserved(gpa, size, e);

	if (vm->slot[slot].used)
		return err_set(e, -EEXIST, "memory slot %u is in use", slot);
	for (unsigned i = 0; i < HV_MAX_SLOTS && r == 0; i++) {
		const struct kvm_slot *s = &vm->slot[i];

		if (s->used)
			r = hv_check_overlap(gpa, size, i, s->gpa, s->size, e);
	}
	return r;
}

static int set_region(struct hv_vm *vm, unsigned slot, const struct kvm_slot *s)
{
	struct kvm_userspace_memory_region m = {
		.slot = slot,
		.guest_phys_addr = s->gpa,
		.memory_size = s->size,
		.userspace_addr = (uintptr_t)s->host,
	};

	if (s->flags & HV_MEM_READONLY)
		m.flags |= KVM_MEM_READONLY;
	if (s->flags & HV_MEM_DIRTY_LOG)
		m.flags |= KVM_MEM_LOG_DIRTY_PAGES;
	return kvm_call(vm->fd, KVM_SET_USER_MEMORY_REGION, &m);
}

int hv_mem_map(struct hv_vm *vm, unsigned slot, uint64_t gpa, void *host, uint64_t size,
	       unsigned flags, struct err *e)
{
	struct kvm_slot s = {true, flags, gpa, size, host};
	int r = hv_check_range(slot, gpa, host, size, e);

	if (r == 0)
		r = hv_check_flags(slot, flags, e);
	if (r < 0)
		return r;
	pthread_mutex_lock(&vm->lock);
	r = check_free(vm, slot, gpa, size, e);
	if (r < 0)
		goto out_unlock;
	r = set_region(vm, slot, &s);
	if (r < 0)
		err_sys(e, r, "memory slot %u at 0x%" PRIx64, slot, gpa);
	else
		vm->slot[slot] = s;
out_unlock:
	pthread_mutex_unlock(&vm->lock);
	return r;
}

int hv_mem_unmap(struct hv_vm *vm, unsigned slot, struct err *e)
{
	struct kvm_slot none = {0};
	int r = -ENOENT;

	pthread_mutex_lock(&vm->lock);
	if (slot < HV_MAX_SLOTS && vm->slot[slot].used) {
		r = set_region(vm, slot, &none);
		if (r == 0)
			vm->slot[slot] = none;
	}
	pthread_mutex_unlock(&vm->lock);
	return r < 0 ? err_sys(e, r, "unmap memory slot %u", slot) : 0;
}

int hv_mem_dirty(struct hv_vm *vm, unsigned slot, uint64_t *bitmap, struct err *e)
{
	struct kvm_dirty_log log = {.slot = slot, .dirty_bitmap = bitmap};
	int r = -ENOENT;

	pthread_mutex_lock(&vm->lock);
	if (slot < HV_MAX_SLOTS && vm->slot[slot].used)
		r = kvm_call(vm->fd, KVM_GET_DIRTY_LOG, &log);
	pthread_mutex_unlock(&vm->lock);
	return r < 0 ? err_sys(e, r, "dirty log of memory slot %u", slot) : 0;
}

unsigned kvm_mem_peek(struct hv_vm *vm, uint64_t gpa, void *buf, unsigned len)
{
	unsigned n = 0;

	pthread_mutex_lock(&vm->lock);
	for (unsigned i = 0; i < HV_MAX_SLOTS; i++) {
		const struct kvm_slot *s = &vm->slot[i];
		uint64_t off = gpa - s->gpa;

		if (!s->used || gpa < s->gpa || off >= s->size)
			continue;
		n = len <= s->size - off ? len : (unsigned)(s->size - off);
		memcpy(buf, s->host + off, n);
		break;
	}
	pthread_mutex_unlock(&vm->lock);
	return n;
}
