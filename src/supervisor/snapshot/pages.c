/* SPDX-License-Identifier: BSD-2-Clause */
/* Device pages in a snapshot. See pages.h. */
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/devpage.h>
#include <insula/state.h>

#include "pages.h"
#include "snapdir.h"
#include "supervisor/vm.h"

#define VERSION 1u
#define UNIT 4096u
#define ALL_MAX ((uint64_t)VM_MAX_DEVICES * (DP_SIZE + UNIT))

struct page_record {
	char name[DEV_NAME_LEN];
	char program[32];
	uint64_t size;         /* of a disk, in bytes; 0: it is none */
	uint8_t page[DP_SIZE]; /* up to the last UNIT that is not zero */
};
#define RECORD_HEAD offsetof(struct page_record, page)

/* One at a time, by the supervisor's thread. */
static struct page_record record;
static _Alignas(8) uint8_t room[sizeof(struct page_record) + 64];

static int page_of(const struct device *d)
{
	return d->slot[d->desc.page_slot];
}

static void name_it(const struct device *d, struct page_record *r)
{
	memset(r, 0, RECORD_HEAD);
	snprintf(r->name, sizeof(r->name), "%s", d->desc.name);
	snprintf(r->program, sizeof(r->program), "%s", d->class->program);
	r->size = d->class == &device_blk ? d->back.disk->start.capacity : 0;
}

static uint32_t used_of(const uint8_t page[DP_SIZE])
{
	uint32_t len = DP_SIZE;

	while (len && mem_is_zero(page + len - UNIT, UNIT))
		len -= UNIT;
	return len;
}

int pages_write(struct vm *vm, struct snapdir *d, struct err *e)
{
	int rc = 0;

	for (unsigned i = 0; i < vm->ndevices && !rc; i++) {
		struct state_out o = {room, sizeof(room), 0};

		if (device_is_empty(&vm->device[i]))
			continue;
		name_it(&vm->device[i], &record);
		rc = read_full(page_of(&vm->device[i]), record.page, DP_SIZE, 0);
		if (!rc)
			rc = state_put(&o, STATE_PAGES, VERSION, i, &record,
				       (uint32_t)RECORD_HEAD + used_of(record.page));
		if (rc)
			return err_sys(e, rc, "%s: its page", vm->device[i].desc.name);
		rc = snapdir_write(d, SNAPDIR_DEVICES, o.at, o.len, e);
	}
	return rc;
}

/* What the supervisor wrote into a new page stays as it is. */
static int fill_page(struct device *d, const struct page_record *r, uint32_t len, struct err *e)
{
	const size_t from[] = {0, DP_CTRL_OFF + 2 * sizeof(uint32_t)}, to[] = {DP_CTRL_OFF, len};

	for (unsigned i = 0; i < ARRAY_LEN(from); i++) {
		size_t n = to[i] > from[i] ? to[i] - from[i] : 0;

		if (n && pwrite(page_of(d), r->page + from[i], n, (off_t)from[i]) != (ssize_t)n)
			return err_sys(e, -errno, "%s: its page", d->desc.name);
	}
	d->restored = true;
	return 0;
}

static int take_page(struct device *d, const void *at, size_t len, unsigned i, struct err *e)
{
	struct state_part p = {.type = STATE_PAGES,
			       .version = VERSION,
			       .name = "a device page",
			       .size = sizeof(struct page_record),
			       .unit = 1};
	struct page_record want;
	int rc = state_take(at, len, i, &p, 1, e);

	if (rc)
		return rc;
	if (p.len < RECORD_HEAD + DP_STATE_OFF || (p.len - RECORD_HEAD) % UNIT)
		return err_set(e, -EPROTO, "state: a device page of %u bytes", p.len);
	if (d->class->unsaved)
		return err_set(e, -EINVAL, "%s: %s", d->desc.name, d->class->unsaved);
	name_it(d, &want);
	memcpy(&record, p.body, p.len);
	if (memcmp(&record, &want, offsetof(struct page_record, size)) != 0) {
		record.name[sizeof(record.name) - 1] = 0;
		record.program[sizeof(record.program) - 1] = 0;
		return err_set(e, -EINVAL, "device %u was %s of %s; expected %s of %s", i,
			       record.name, record.program, want.name, want.program);
	}
	if (record.size != want.size)
		return err_set(e, -EINVAL, "device %u, %s, had %llu bytes; it has %llu", i,
			       want.name, (unsigned long long)record.size,
			       (unsigned long long)want.size);
	return fill_page(d, &record, p.len - (uint32_t)RECORD_HEAD, e);
}

/* The record that begins here; 0: it does not fit. */
static size_t record_len(const uint8_t *at, size_t left)
{
	struct state_head h;

	if (left < sizeof(h))
		return 0;
	memcpy(&h, at, sizeof(h));
	return state_size(&h) <= left ? (size_t)state_size(&h) : 0;
}

static int take_all(struct vm *vm, const uint8_t *at, size_t left, struct err *e)
{
	for (unsigned i = 0; i < vm->ndevices; i++) {
		size_t len;
		int rc;

		if (device_is_empty(&vm->device[i]))
			continue;
		len = record_len(at, left);
		if (!len)
			return err_set(e, -EPROTO, "it ends before device %u, %s", i,
				       vm->device[i].desc.name);
		rc = take_page(&vm->device[i], at, len, i, e);
		if (rc)
			return rc;
		at += len;
		left -= len;
	}
	return left ? err_set(e, -EINVAL, "it has more devices than this VM, which has %u",
			      vm->ndevices)
		    : 0;
}

int pages_read(struct vm *vm, int fd, struct err *e)
{
	uint64_t size = 0;
	struct err inner;
	uint8_t *all;
	int rc = file_size(fd, &size);

	if (rc || size > ALL_MAX)
		return err_set(e, rc ? rc : -EPROTO,
			       "snapshot: devices: %llu bytes; expected at "
			       "most %llu",
			       (unsigned long long)size, (unsigned long long)ALL_MAX);
	all = malloc((size_t)size + 1);
	rc = all ? read_full(fd, all, (size_t)size, 0) : -ENOMEM;
	if (rc)
		err_sys(&inner, rc, "it cannot be read");
	else
		rc = take_all(vm, all, (size_t)size, &inner);
	free(all);
	return rc ? err_set(e, rc, "snapshot: devices: %s", inner.text) : 0;
}
