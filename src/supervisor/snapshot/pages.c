/* SPDX-License-Identifier: BSD-2-Clause */
/* Device pages in a snapshot. See pages.h. */
#include <errno.h>
#include <linux/virtio_config.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>
#include <insula/devpage.h>
#include <insula/state.h>

#include "devices/vhost/vhost_page.h"
#include "held.h"
#include "pages.h"
#include "snapdir.h"
#include "supervisor/vm.h"

#define VERSION 1u
#define UNIT 4096u

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

/* No driver has it, though the guest's bus may have seen it (virtio 1.2, 2.1, 3.1.1). */
static bool is_idle(const uint8_t page[DP_SIZE])
{
	struct port_state port;
	struct virtio_state st;

	memcpy(&port, page + DP_STATE_OFF, sizeof(port));
	memcpy(&st, page + DP_STATE_OFF + PORT_STATE_LEN, sizeof(st));
	return port.magic == PORT_STATE_MAGIC &&
	       !(st.status & ~(uint32_t)VIRTIO_CONFIG_S_ACKNOWLEDGE);
}

static struct vhost_state back_end_of(const uint8_t page[DP_SIZE])
{
	struct vhost_state st;

	memcpy(&st, page + VHOST_STATE_OFF, sizeof(st));
	return st;
}

/* Is there more of it than its page? */
static bool is_held(const struct device *d, const uint8_t page[DP_SIZE])
{
	return d->class->back_end && !is_idle(page);
}

static const char *unsaved(const struct device *d, const uint8_t page[DP_SIZE])
{
	bool can =
		d->class->idle_saved &&
		(is_idle(page) || (is_held(d, page) && back_end_of(page).flags & VHOST_CAN_SAVE));

	return can ? NULL : d->class->unsaved;
}

static int read_page(const struct device *d, struct err *e)
{
	int rc = shm_read(page_of(d), record.page, DP_SIZE, 0);

	return rc ? err_sys(e, rc, "%s: its page", d->desc.name) : 0;
}

int pages_unsaved(const struct device *d, const char **why, struct err *e)
{
	int rc = d->class->unsaved ? read_page(d, e) : 0;

	*why = rc ? NULL : unsaved(d, record.page);
	return rc;
}

int pages_write(struct vm *vm, struct snapdir *d, struct err *e)
{
	int rc = 0;

	for (unsigned i = 0; i < vm->ndevices && !rc; i++) {
		struct state_out o = {room, sizeof(room), 0};
		const struct device *one = &vm->device[i];
		const char *why;

		if (device_is_empty(one))
			continue;
		name_it(one, &record);
		rc = read_page(one, e);
		if (rc)
			return rc;
		why = unsaved(one, record.page);
		if (why)
			return err_set(e, -EOPNOTSUPP, "%s: %s", one->desc.name, why);
		rc = state_put(&o, STATE_PAGES, VERSION, i, &record,
			       (uint32_t)RECORD_HEAD + used_of(record.page));
		if (rc)
			return err_sys(e, rc, "%s: its page", one->desc.name);
		rc = snapdir_write(d, SNAPDIR_DEVICES, o.at, o.len, e);
		if (!rc && is_held(one, record.page))
			rc = held_write(one, i, d, e);
	}
	return rc;
}

/* What the supervisor wrote into a new page stays as it is. */
static int fill_page(struct device *d, const struct page_record *r, uint32_t len, struct err *e)
{
	const size_t from[] = {0, DP_CTRL_OFF + 2 * sizeof(uint32_t)}, to[] = {DP_CTRL_OFF, len};

	for (unsigned i = 0; i < ARRAY_LEN(from); i++) {
		size_t n = to[i] > from[i] ? to[i] - from[i] : 0;
		int rc = shm_write(page_of(d), r->page + from[i], n, from[i]);

		if (rc)
			return err_sys(e, rc, "%s: its page", d->desc.name);
	}
	d->restored = true;
	return 0;
}

/* Without a driver the next one may be of another kind: its helper asks it. With one it has to be
 * as the last one was, and gets what that held. */
static int other_back_end(const struct device *d, struct err *e)
{
	struct vhost_state st = {0};
	int rc;

	if (is_held(d, record.page))
		st = back_end_of(record.page);
	st.flags = 0;
	rc = shm_write(page_of(d), &st, sizeof(st), VHOST_STATE_OFF);
	return rc ? err_sys(e, rc, "%s: its page", d->desc.name) : 0;
}

static int take_page(struct device *d, unsigned i, struct held_file *f, struct err *e)
{
	struct state_part p = {.type = STATE_PAGES,
			       .version = VERSION,
			       .name = "a device page",
			       .size = sizeof(struct page_record),
			       .unit = 1};
	struct page_record want;
	const char *why;
	size_t len = 0;
	int rc = held_record(f, room, sizeof(room), &len, e);

	if (!rc && !len)
		return err_set(e, -EPROTO, "it ends before device %u, %s", i, d->desc.name);
	if (!rc)
		rc = state_take(room, len, i, &p, 1, e);
	if (rc)
		return rc;
	if (p.len < RECORD_HEAD + DP_STATE_OFF || (p.len - RECORD_HEAD) % UNIT)
		return err_set(e, -EPROTO, "state: a device page of %u bytes", p.len);
	name_it(d, &want);
	memset(&record, 0, sizeof(record));
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
	why = unsaved(d, record.page);
	if (why)
		return err_set(e, -EINVAL, "%s: %s", d->desc.name, why);
	rc = fill_page(d, &record, p.len - (uint32_t)RECORD_HEAD, e);
	if (!rc && is_held(d, record.page))
		rc = held_read(d, i, f, e);
	return rc || !d->class->back_end ? rc : other_back_end(d, e);
}

static int take_all(struct vm *vm, struct held_file *f, struct err *e)
{
	int rc = 0;

	for (unsigned i = 0; i < vm->ndevices && !rc; i++) {
		if (!device_is_empty(&vm->device[i]))
			rc = take_page(&vm->device[i], i, f, e);
	}
	if (rc)
		return rc;
	return f->at < f->size
		       ? err_set(e, -EINVAL, "it has more devices than this VM, which has %u",
				 vm->ndevices)
		       : 0;
}

int pages_read(struct vm *vm, int fd, struct err *e)
{
	struct held_file f = {.fd = fd};
	struct err inner;
	int rc = file_size(fd, &f.size);

	if (rc)
		err_sys(&inner, rc, "it cannot be read");
	else
		rc = take_all(vm, &f, &inner);
	return rc ? err_set(e, rc, "snapshot: devices: %s", inner.text) : 0;
}
