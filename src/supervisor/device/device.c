/* SPDX-License-Identifier: BSD-2-Clause */
/* Devices: what is the same on every system. See device.h. */
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <insula/base.h>
#include <insula/devpage.h>
#include <insula/log.h>

#include "device.h"
#include "supervisor/snapshot/held.h"
#include "supervisor/snapshot/faults.h"

/* ---- the page: it is written without being mapped ---- */

int device_page_head(int page, struct err *e)
{
	const struct {
		uint32_t magic, size;
	} head = {DP_MAGIC, DP_SIZE};
	int rc;

	_Static_assert(offsetof(struct dp_ctrl, magic) == 0 && offsetof(struct dp_ctrl, size) == 4,
		       "the head of struct dp_ctrl");
	rc = shm_write(page, &head, sizeof(head), DP_CTRL_OFF);
	return rc ? err_sys(e, rc, "device page") : 0;
}

int device_page(struct err *e)
{
	int fd = shm_create("insula-device", DP_SIZE, e), rc;

	if (fd < 0)
		return fd;
	rc = device_page_head(fd, e);
	if (!rc)
		return fd;
	fd_close(&fd);
	return rc;
}

int device_set_bits(const struct device *d, unsigned reg, uint32_t bits, uint32_t *before,
		    struct err *e)
{
	const int page = d->slot[d->desc.page_slot];
	uint32_t v;
	int rc = shm_read(page, &v, sizeof(v), DP_SHADOW_OFF + reg);

	if (!rc) {
		*before = v;
		v |= bits;
		rc = shm_write(page, &v, sizeof(v), DP_SHADOW_OFF + reg);
	}
	return rc ? err_sys(e, rc, "device page") : 0;
}

/* ---- what it is made of ---- */

/* From this one on. */
static int make_slots(struct device *d, unsigned from, struct err *e)
{
	for (unsigned i = from; i < d->desc.nslots; i++) {
		bool page = i == d->desc.page_slot;

		d->slot[i] = page ? device_page(e) : event_create();
		if (d->slot[i] < 0)
			return page ? d->slot[i] : err_sys(e, d->slot[i], "event");
	}
	return 0;
}

int device_init(struct device *d, const struct device_class *class, enum device_bus bus,
		unsigned index, unsigned nth, const char *name, unsigned nqueues,
		const char *libexec, struct err *e)
{
	int rc;

	memset(d, 0, sizeof(*d));
	d->class = class;
	d->nqueues = nqueues;
	class->describe(class, &d->desc, bus, nth, nqueues);
	d->desc.index = index;
	snprintf(d->desc.name, sizeof(d->desc.name), "%s", name);
	for (unsigned i = 0; i < DEVICE_MAX_SLOTS; i++)
		d->slot[i] = -1;
	rc = device_child_init(d, libexec, e);
	return rc ? rc : make_slots(d, 0, e);
}

/* ---- places ---- */

const struct device_class device_place = {.program = ""};

bool device_is_empty(const struct device *d)
{
	return d->class == &device_place;
}

static void describe_place(struct device_desc *d, unsigned index, unsigned nth, unsigned number)
{
	*d = (struct device_desc){.version = DEVICE_VERSION_PLACE,
				  .index = index,
				  .nslots = 1,
				  .page_slot = 0,
				  .call_slot = DEVICE_NO_SLOT,
				  .answer_slot = DEVICE_NO_SLOT,
				  .state_size = DP_STATE_SIZE,
				  .pci = {.number = number}};
	snprintf(d->name, sizeof(d->name), "slot%u", nth + 1);
}

int device_init_place(struct device *d, unsigned index, unsigned nth, unsigned number,
		      struct err *e)
{
	memset(d, 0, sizeof(*d));
	d->class = &device_place;
	for (unsigned i = 0; i < DEVICE_MAX_SLOTS; i++)
		d->slot[i] = -1;
	child_none(&d->child);
	describe_place(&d->desc, index, nth, number);
	d->place = d->desc;
	return make_slots(d, 0, e);
}

/* Where it is the place says, and where its registers are the guest. */
static void describe_plugged(struct device *d, const char *name)
{
	struct device_pci *f = &d->desc.pci;

	d->desc.index = d->place.index;
	snprintf(d->desc.name, sizeof(d->desc.name), "%s", name);
	f->number = d->place.pci.number;
	memset(f->bar_at, 0, sizeof(f->bar_at));
}

int device_plug(struct device *d, const struct device_class *class, const char *name,
		unsigned nqueues, const char *libexec, struct err *e)
{
	int rc;

	d->class = class;
	d->nqueues = nqueues;
	class->describe(class, &d->desc, DEVICE_BUS_PCI, 0, nqueues);
	describe_plugged(d, name);
	rc = device_page_renew(d->slot[d->desc.page_slot], e);
	if (!rc)
		rc = device_child_init(d, libexec, e);
	if (!rc)
		rc = make_slots(d, d->place.nslots, e);
	if (rc)
		device_unplug(d);
	return rc;
}

void device_unplug(struct device *d)
{
	child_free(&d->child);
	for (unsigned i = d->place.nslots; i < DEVICE_MAX_SLOTS; i++)
		fd_close(&d->slot[i]);
	d->class = &device_place;
	d->desc = d->place;
	d->nqueues = 0;
	d->restored = d->counting = false;
	d->back.conf = NULL;
	d->restart = (struct restart){0};
	d->stats = d->past = d->live = (struct msg_stats){0};
}

int device_tell(const struct device *d, struct child *vmm)
{
	struct device_desc desc = d->desc;
	uint8_t body[sizeof(desc)];
	size_t len;

	if (d->class->identify)
		d->class->identify(d, &desc);
	len = device_pack(&desc, body);
	return child_send(vmm, MSG_PLUG, body, len, d->slot, desc.nslots);
}

void device_disk_name(unsigned nth, char name[DEV_NAME_LEN])
{
	if (nth < 26)
		snprintf(name, DEV_NAME_LEN, "vd%c", (char)('a' + nth));
	else
		snprintf(name, DEV_NAME_LEN, "vda%c", (char)('a' + nth % 26));
}

void device_free(struct device *d)
{
	child_free(&d->child);
	held_free(d);
	for (unsigned i = 0; i < DEVICE_MAX_SLOTS; i++)
		fd_close(&d->slot[i]);
}

/* ---- counters ---- */

static void stats_sum(struct msg_stats *to, const struct msg_stats *s)
{
	for (unsigned i = 0; i < ARRAY_LEN(s->n); i++)
		to->n[i] += s->n[i];
}

/* One question at a time: a helper that does not listen must not find its channel full. */
void device_count(struct device *d, struct msg_stats *out)
{
	*out = d->past;
	stats_sum(out, &d->live);
	if (d->child.state == CHILD_READY && !d->counting)
		d->counting = !child_send(&d->child, MSG_COUNT, NULL, 0, NULL, 0);
}

bool device_counted(struct device *d, const struct msg_stats *s)
{
	if (!d->counting)
		return false;
	d->counting = false;
	d->live = *s;
	return true;
}

void device_count_end(struct device *d, const struct msg_stats *s)
{
	stats_sum(&d->past, s ? s : &d->live);
	memset(&d->live, 0, sizeof(d->live));
	d->counting = false;
}

int device_announce(const struct device *d, struct child *vmm, struct err *e)
{
	struct device_desc desc = d->desc;
	uint8_t body[sizeof(desc)];
	size_t len;
	int rc;

	if (d->class->identify)
		d->class->identify(d, &desc);
	len = device_pack(&desc, body);
	rc = child_send(vmm, MSG_DEVICE, body, len, d->slot, desc.nslots);
	return rc ? err_sys(e, rc, "insula-vmm: channel") : 0;
}

/* ---- start ---- */

void device_word(struct device_start *s, const void *body, size_t len)
{
	if (len > sizeof(s->body))
		panic("a start message of %zu bytes", len);
	s->len = len;
	memcpy(s->body, body, len);
}

static void add_slot(struct device_start *s, enum start_role role, int fd)
{
	if (s->nfds == MSG_MAX_FDS)
		panic("a start message with more than %d descriptors", MSG_MAX_FDS);
	s->head.slot[s->nfds] = (uint8_t)role;
	s->fds[s->nfds++] = fd;
}

void device_add(struct device_start *s, int fd)
{
	add_slot(s, START_OWN, fd);
}

/* What is the same for all: its own page and events, and guest memory. */
static void add_common(struct device_start *s, const struct device *d, int mem,
		       const struct memmap *map)
{
	const struct device_desc *m = &d->desc;

	if (d->class->memory && !s->no_memory) {
		s->head.mem = *map;
		add_slot(s, START_MEMORY, mem);
		if (faults_device(d->vm) >= 0 && !d->class->unsaved)
			add_slot(s, faults_role(d->vm), faults_device(d->vm));
	}
	add_slot(s, START_PAGE, d->slot[m->page_slot]);
	add_slot(s, START_CALL, d->slot[m->call_slot]);
	for (unsigned i = 0; i < m->nvectors && !d->class->assigned; i++)
		add_slot(s, m->vector[i].kind == DEVICE_MSI ? START_VECTOR : START_IRQ,
			 d->slot[m->vector[i].slot]);
	for (unsigned i = 0; i < d->nqueues; i++)
		add_slot(s, START_KICK, d->slot[m->doorbell[i].slot]);
	if (m->answer_slot != DEVICE_NO_SLOT)
		add_slot(s, START_ANSWER, d->slot[m->answer_slot]);
}

int device_start(struct device *d, int mem, const struct memmap *map, struct err *e)
{
	struct device_start s = {0};
	int rc;

	for (unsigned i = 0; i < ARRAY_LEN(s.once); i++)
		s.once[i] = -1;
	rc = d->class->start(d, &s, e);
	if (!rc) {
		add_common(&s, d, mem, map);
		s.head.version = START_VERSION;
		s.head.tag = d->class->tag;
		s.head.log_level = log_most();
		s.head.nslots = s.nfds;
		memcpy(s.body, &s.head, sizeof(s.head));
		rc = device_spawn(d, &s, e);
	}
	for (unsigned i = 0; i < ARRAY_LEN(s.once); i++)
		fd_close(&s.once[i]);
	return rc;
}

int device_quiet(const struct device *d)
{
	return d->class->quiet ? d->class->quiet(d) : 1;
}
