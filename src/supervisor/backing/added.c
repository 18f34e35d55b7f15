/* SPDX-License-Identifier: BSD-2-Clause */
/* The host's wishes for a guest's memory. See added.h. */
#include <errno.h>
#include <string.h>

#include <insula/base.h>

#include "added.h"
#include "spec/json.h"
#include "supervisor/device/device.h"

void added_init(struct added_back *b, const struct vm_config *conf, const struct memmap *map)
{
	memset(b, 0, sizeof(*b));
	b->conf = conf;
	b->region = map->region[map->nregions - 1].size;
	b->block = memmap_block(b->region);
}

static bool is_possible(const struct added_back *b, uint64_t size)
{
	return size >= b->conf->mem && size <= b->conf->mem_max &&
	       (size - b->conf->mem) % b->block == 0;
}

int added_restore(struct added_back *b, uint64_t requested, uint64_t actual, struct err *e)
{
	if (!is_possible(b, requested) || !is_possible(b, actual))
		return err_set(e, -EPROTO,
			       "snapshot: memory of %llu bytes, %llu requested; expected %llu to "
			       "%llu",
			       (unsigned long long)actual, (unsigned long long)requested,
			       (unsigned long long)b->conf->mem,
			       (unsigned long long)b->conf->mem_max);
	b->requested = requested - b->conf->mem;
	b->plugged = actual - b->conf->mem;
	return 0;
}

int added_check(const struct device *d, uint64_t size, struct err *e)
{
	const struct added_back *b = d->back.added;
	char value[24], least[24], most[24], step[24];

	if (is_possible(b, size))
		return 0;
	return err_set(e, -ERANGE, "mem: %s; expected %s to %s, in steps of %s",
		       size_text(size, value), size_text(b->conf->mem, least),
		       size_text(b->conf->mem_max, most), size_text(b->block, step));
}

/* One message at a time: a helper that does not listen must not find its channel full. */
static void tell(struct device *d)
{
	struct added_back *b = d->back.added;
	const struct msg_mem m = {.requested = b->requested, .known = b->plugged};

	if (d->child.state != CHILD_READY || b->telling || (b->asked && b->sent == b->requested))
		return;
	b->telling = !child_send(&d->child, MSG_MEM, &m, sizeof(m), NULL, 0);
	if (!b->telling)
		return;
	b->older = b->asked;
	b->asked = true;
	b->sent = b->requested;
	b->again_ns = 0;
}

void added_set(struct device *d, uint64_t size)
{
	struct added_back *b = d->back.added;

	b->requested = size - b->conf->mem;
	tell(d);
}

uint64_t added_requested(const struct added_back *b)
{
	return b->conf->mem + b->requested;
}

uint64_t added_actual(const struct added_back *b)
{
	return b->conf->mem + b->plugged;
}

bool added_taken(struct device *d, size_t len)
{
	struct added_back *b = d->back.added;

	if (!b->telling || len)
		return false;
	b->telling = b->older = false;
	if (b->sent != b->requested)
		tell(d);
	return true;
}

bool added_said(struct device *d, const void *body, size_t len)
{
	struct added_back *b = d->back.added;
	bool *due = b->telling ? &b->older : &b->asked;
	struct msg_mem_state s;

	if (!*due || len != sizeof(s))
		return false;
	memcpy(&s, body, sizeof(s));
	if (s.plugged > b->region || s.plugged % b->block)
		return false;
	*due = false;
	b->plugged = s.plugged;
	if (!b->asked)
		b->again_ns = clock_ns() + ADDED_PAUSE_NS;
	return true;
}

json_object *added_json(const struct added_back *b)
{
	json_object *o = json_object_new_object();

	j_int(o, "requested", (int64_t)added_requested(b));
	j_int(o, "actual", (int64_t)added_actual(b));
	j_int(o, "max", (int64_t)b->conf->mem_max);
	return o;
}

void added_serves(struct device *d, struct loop *l, bool serves)
{
	struct added_back *b = d->back.added;

	(void)l;
	b->asked = b->telling = b->older = false;
	b->again_ns = 0;
	if (serves)
		tell(d);
}

uint64_t added_due(const struct device *d)
{
	return d->child.state == CHILD_READY ? d->back.added->again_ns : 0;
}

void added_tend(struct device *d)
{
	d->back.added->again_ns = 0;
	tell(d);
}
