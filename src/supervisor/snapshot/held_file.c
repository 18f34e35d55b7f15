/* SPDX-License-Identifier: BSD-2-Clause */
/* What back ends hold, in the file `devices` of a snapshot. See held.h. */
#include <errno.h>
#include <string.h>

#include <insula/base.h>
#include <insula/state.h>

#include "devices/vhost/vhost_start.h"
#include "held.h"
#include "snapdir.h"
#include "supervisor/device/device.h"

#define LENGTH (STATE_PAGES + 1) /* one record: uint64_t */
#define PART (STATE_PAGES + 2)   /* so many bytes, but for the last one: */
#define PART_MAX 65536u
#define VERSION 1u

/* One at a time, by the supervisor's thread. */
static uint8_t part[PART_MAX];
static _Alignas(8) uint8_t room[PART_MAX + 64];

static int held_put(struct snapdir *dir, uint32_t type, unsigned i, const void *body, size_t len,
		    struct err *e)
{
	struct state_out o = {room, sizeof(room), 0};
	int rc = state_put(&o, type, VERSION, i, body, (uint32_t)len);

	return rc ? err_sys(e, rc, "what its back end holds")
		  : snapdir_write(dir, SNAPDIR_DEVICES, o.at, o.len, e);
}

int held_write(const struct device *d, unsigned i, struct snapdir *dir, struct err *e)
{
	const struct held *h = d->held;
	int rc;

	if (!h || !h->whole)
		return err_set(e, -EAGAIN, "%s: its back end has not said what it holds",
			       d->desc.name);
	rc = held_put(dir, LENGTH, i, &h->len, sizeof(h->len), e);
	for (uint64_t at = 0; at < h->len && !rc;) {
		size_t n = h->len - at < PART_MAX ? (size_t)(h->len - at) : PART_MAX;

		rc = shm_read(h->fd, part, n, at);
		if (rc)
			return err_sys(e, rc, "%s: what its back end holds", d->desc.name);
		rc = held_put(dir, PART, i, part, n, e);
		at += n;
	}
	return rc;
}

int held_record(struct held_file *f, void *to, size_t size, size_t *len, struct err *e)
{
	struct state_head h;
	int rc = 0;

	*len = 0;
	if (f->at == f->size)
		return 0;
	if (f->size - f->at >= sizeof(h))
		rc = read_full(f->fd, &h, sizeof(h), f->at);
	if (!rc && (f->size - f->at < sizeof(h) || state_size(&h) > f->size - f->at ||
		    state_size(&h) > size))
		return err_set(e, -EPROTO,
			       "state: a record that does not fit, %llu bytes before "
			       "the end",
			       (unsigned long long)(f->size - f->at));
	if (!rc) {
		*len = (size_t)state_size(&h);
		rc = read_full(f->fd, to, *len, f->at);
	}
	f->at += *len;
	return rc ? err_sys(e, rc, "it cannot be read") : 0;
}

/* The body of the next record, which is of this kind and length. */
static int held_next(struct held_file *f, uint32_t type, unsigned i, size_t want, const void **body,
		     struct err *e)
{
	struct state_part p = {.type = type,
			       .version = VERSION,
			       .name = "what a back end held",
			       .size = (uint32_t)want};
	size_t len = 0;
	int rc = held_record(f, room, sizeof(room), &len, e);

	if (!rc)
		rc = state_take(room, len, i, &p, 1, e);
	*body = p.body;
	return rc;
}

int held_read(struct device *d, unsigned i, struct held_file *f, struct err *e)
{
	const void *body;
	uint64_t len = 0;
	int rc = held_next(f, LENGTH, i, sizeof(len), &body, e);

	if (rc)
		return rc;
	memcpy(&len, body, sizeof(len));
	if (len > VHOST_HELD_MAX)
		return err_set(e, -EPROTO, "%s: its back end held %llu bytes; expected at most %u",
			       d->desc.name, (unsigned long long)len, VHOST_HELD_MAX);
	if (!len) /* it had nothing to hold: no driver had begun */
		return 0;
	rc = held_new(d, len, e);
	for (uint64_t at = 0; at < len && !rc;) {
		size_t n = len - at < PART_MAX ? (size_t)(len - at) : PART_MAX;

		rc = held_next(f, PART, i, n, &body, e);
		if (!rc && (rc = shm_write(d->held->fd, body, n, at)))
			err_sys(e, rc, "%s: what its back end held", d->desc.name);
		at += n;
	}
	if (rc) {
		held_free(d);
		return rc;
	}
	d->held->len = len;
	d->held->whole = d->held->loads = true;
	return 0;
}
