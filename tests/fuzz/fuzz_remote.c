/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A malicious helper against the core. The input is a script: between the core's accesses, the
 * helper writes what it likes into the page that both map (struct op).
 *
 * A call is either answered before it is made, or the VM is ending: so no run waits, and both ways
 * out of a call are taken. Besides not crashing: the core stays inside its part of the page, which
 * lies between pages without access; it writes nothing that is the helper's; a shadow read returns
 * what the shadow holds, a posted write stands whole in the ring and is in the place that the
 * core's own count says; a failed device reads all ones and takes nothing.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/board.h>

#include "devices/describe.h"
#include "vmm/remote.h"
#include "must.h"

#define PAGE ((size_t)BOARD_PAGE)
#define BASE 0x1000ull
#define KICKS 2

enum kind_of_op {
	OP_READ,     /* core: a = address, b = log2 of the size */
	OP_WRITE,    /* core: the same, v = value */
	OP_TAIL,     /* helper: ring_tail = the core's head + v */
	OP_TAIL_ANY, /* ring_tail = v */
	OP_ACK,      /* ack_seq = the core's count + v */
	OP_VALUE,    /* ack_value = v */
	OP_ASLEEP,   /* asleep = v */
	OP_SHADOW,   /* b + 1 bytes of v at a */
	OP_CTRL, /* 4 bytes of v at a, anywhere in the control block's page, the core's fields too
		  */
	OP_RING, /* 8 bytes of v at a, anywhere in the ring */
	OP_ANSWERS, /* from now on calls are answered (v odd) or not */
	OP_FAIL,    /* the device has missed a deadline */
	OP_UP,      /* and is back */
	OP_KINDS
};

struct op {
	uint8_t kind, b;
	uint16_t a;
	uint32_t v;
};
_Static_assert(sizeof(struct op) == 8, "the unit of an input");

struct fixture {
	int page_fd;
	uint8_t *guarded; /* DP_CORE_SIZE between two pages without access */
	struct remote dev;
	struct bus bus;
	atomic_bool ending;
	bool answers, uart;
	uint64_t len; /* of the window */
};

/* The page lives from the first run on; the device is made again for each. */
static void set_up(struct fixture *f, bool uart)
{
	struct device_desc m;
	int fds[MSG_MAX_FDS];
	struct err e;

	if (uart)
		describe_16550(&m, BASE, 4);
	else
		describe_virtio_mmio(&m, BASE, 5, KICKS);
	strcpy(m.name, "fuzz");
	if (!f->guarded) {
		f->page_fd = shm_create("page", DP_SIZE, &e);
		f->guarded = mmap(NULL, DP_CORE_SIZE + 2 * PAGE, PROT_NONE,
				  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		MUST(f->page_fd >= 0 && f->guarded != MAP_FAILED);
		f->guarded += PAGE;
	}
	for (unsigned i = 0; i < m.nslots; i++)
		fds[i] = i == m.page_slot ? dup(f->page_fd) : event_create();
	MUST(!remote_init(&f->dev, &m, fds, m.nslots, &e));
	f->uart = uart;
	f->len = m.window[0].len;
	MUST(mremap(f->dev.shadow, DP_CORE_SIZE, DP_CORE_SIZE, MREMAP_MAYMOVE | MREMAP_FIXED,
		    f->guarded) == f->guarded);
	f->dev.shadow = f->guarded;
	f->dev.ctrl = (struct dp_ctrl *)(void *)(f->guarded + DP_CTRL_OFF);
	f->dev.ring = (struct dp_post *)(void *)(f->guarded + DP_RING_OFF);
	memset(f->guarded, 0, DP_CORE_SIZE);
	f->dev.wake_event = event_create();
	f->dev.ending = &f->ending;
	f->answers = true;
	memset(&f->bus, 0, sizeof(f->bus));
	MUST(!bus_add(&f->bus, BASE, f->len, &remote_bus_ops, &f->dev.window[0], &e));
}

static void tear_down(struct fixture *f)
{
	struct remote *d = &f->dev;

	fd_close(&d->wake_event);
	for (unsigned i = 0; i < d->desc.nslots; i++)
		fd_close(&d->slot[i]);
	pthread_mutex_destroy(&d->lock);
}

/* What the helper owns, and the core must leave alone. */
struct theirs {
	uint8_t shadow[DP_SHADOW_SIZE];
	uint32_t tail, ack, asleep;
	uint64_t value;
};

static void take_theirs(const struct fixture *f, struct theirs *t)
{
	const struct dp_ctrl *c = f->dev.ctrl;

	memset(t, 0, sizeof(*t));
	memcpy(t->shadow, f->dev.shadow, sizeof(t->shadow));
	t->tail = atomic_load(&c->ring_tail);
	t->ack = atomic_load(&c->ack_seq);
	t->asleep = atomic_load(&c->asleep);
	t->value = c->ack_value;
}

static void check_read(struct fixture *f, uint64_t addr, unsigned size, const struct theirs *t)
{
	struct vm_dev_metrics before, after;
	bool failed = atomic_load(&f->dev.failed),
	     in = addr >= BASE && addr - BASE <= f->len - size;
	uint64_t v, want = 0;

	remote_metrics(&f->dev, &before);
	MUST(bus_read(&f->bus, addr, size, &v, &(struct bus_patience){0}) == in);
	remote_metrics(&f->dev, &after);
	if (!in || failed) {
		MUST(v == ~0ull && after.calls == before.calls &&
		     after.shadow_reads == before.shadow_reads);
	} else if (after.calls == before.calls) {
		memcpy(&want, t->shadow + (addr - BASE), size);
		MUST(v == want && after.shadow_reads == before.shadow_reads + 1);
	} else {
		MUST(f->uart && v == (f->answers ? t->value : ~0ull));
	}
}

static void check_write(struct fixture *f, uint64_t addr, unsigned size, uint64_t v,
			const struct theirs *t)
{
	struct vm_dev_metrics before, after;
	/* A call that was given up and is answered after all: the device is back. */
	bool failed = atomic_load(&f->dev.failed) &&
		      atomic_load(&f->dev.ctrl->ack_seq) != f->dev.seq,
	     in = addr >= BASE && addr - BASE <= f->len - size;
	uint32_t head = f->dev.head, seq = f->dev.seq;
	const struct dp_post *p = &f->dev.ring[head % DP_RING_LEN];

	remote_metrics(&f->dev, &before);
	MUST(bus_write(&f->bus, addr, size, v, &(struct bus_patience){0}) == in);
	remote_metrics(&f->dev, &after);
	MUST(f->dev.head - head == after.posted - before.posted &&
	     f->dev.seq - seq == after.calls - before.calls);
	MUST((after.posted - before.posted) + (after.calls - before.calls) +
		     (after.doorbells - before.doorbells) <=
	     1);
	if (failed || !in)
		MUST(f->dev.head == head && f->dev.seq == seq);
	if (f->dev.head != head)
		MUST(p->offset == addr - BASE && p->size == size && p->value == v &&
		     head - t->tail < DP_RING_LEN &&
		     atomic_load(&f->dev.ctrl->ring_head) == f->dev.head);
	if (f->dev.seq != seq)
		MUST(f->dev.ctrl->req_offset == addr - BASE && f->dev.ctrl->req_value == v &&
		     atomic_load(&f->dev.ctrl->req_seq) == f->dev.seq);
}

static void core(struct fixture *f, const struct op *o)
{
	uint64_t addr = BASE - 16 + o->a % (f->len + 32);
	unsigned size = 1u << o->b % 4;
	struct theirs before, after;

	if (f->answers)
		atomic_store(&f->dev.ctrl->ack_seq, f->dev.seq + 1);
	else if (atomic_load(&f->dev.ctrl->ack_seq) == f->dev.seq + 1)
		atomic_store(&f->dev.ctrl->ack_seq, f->dev.seq);
	atomic_store(&f->ending, !f->answers);
	f->dev.may_spin = f->answers;
	take_theirs(f, &before);
	if (o->kind % OP_KINDS == OP_READ)
		check_read(f, addr, size, &before);
	else
		check_write(f, addr, size, (uint64_t)o->v << (o->b >> 4), &before);
	take_theirs(f, &after);
	MUST(!memcmp(&before, &after, sizeof(before)));
}

static void run(struct fixture *f, const struct op *o)
{
	struct dp_ctrl *c = f->dev.ctrl;

	switch ((enum kind_of_op)(o->kind % OP_KINDS)) {
	case OP_READ:
	case OP_WRITE:
		core(f, o);
		break;
	case OP_TAIL:
		atomic_store(&c->ring_tail, f->dev.head + o->v);
		break;
	case OP_TAIL_ANY:
		atomic_store(&c->ring_tail, o->v);
		break;
	case OP_ACK:
		atomic_store(&c->ack_seq, f->dev.seq + o->v);
		break;
	case OP_VALUE:
		c->ack_value = (uint64_t)o->v << 32 | ~o->v;
		break;
	case OP_ASLEEP:
		atomic_store(&c->asleep, o->v);
		break;
	case OP_SHADOW:
		memset(f->guarded + o->a % (DP_SHADOW_SIZE - 256), (int)o->v, o->b + 1u);
		break;
	case OP_CTRL:
		memcpy(f->guarded + DP_CTRL_OFF + o->a % (PAGE - 4), &o->v, 4);
		break;
	case OP_RING:
		memset(f->guarded + DP_RING_OFF + o->a % (PAGE - 8), (int)o->v, 8);
		break;
	case OP_ANSWERS:
		f->answers = o->v & 1;
		break;
	case OP_FAIL:
		atomic_store(&f->dev.failed, true);
		break;
	case OP_UP:
	case OP_KINDS:
		remote_up(&f->dev);
		break;
	}
}

/* A description from the same bytes: one that passes can be executed. */
static void check_description(const uint8_t *data, size_t size)
{
	struct device_desc m, wire;
	uint8_t body[sizeof(m)];
	struct err e = {0};

	describe_virtio_mmio(&m, BASE & ~(PAGE - 1), 5, KICKS);
	/* Bytes here and there: {place, value} */
	for (size_t at = 0; at + 3 <= size; at += 3)
		((uint8_t *)&m)[(size_t)(data[at] | data[at + 1] << 8) % sizeof(m)] ^= data[at + 2];
	if (!device_unpack(&wire, data, size))
		MUST(device_pack(&wire, body) == size && !memcmp(body, data, size));
	if (device_check(&m, m.nslots, &e)) {
		MUST(e.code < 0 && e.text[0] && !strchr(e.text, '\n'));
		return;
	}
	for (unsigned i = 0; i < m.nwindows; i++) {
		const struct device_window *w = &m.window[i];

		MUST(w->len && w->base + w->len > w->base && w->at + w->len <= DP_SHADOW_SIZE);
		MUST(w->shift <= 3 && w->serve != DEVICE_DIRECT && w->slot == DEVICE_NO_SLOT);
		MUST(w->serve == DEVICE_EXITS || w->base % PAGE == 0);
	}
	for (unsigned i = 0; i < m.ndoorbells; i++)
		MUST(m.doorbell[i].slot < m.nslots && m.doorbell[i].slot != m.page_slot);
	for (unsigned i = 0; i < m.nvectors; i++)
		MUST(m.vector[i].slot < m.nslots && m.vector[i].slot != m.page_slot);
	MUST(m.page_slot < m.nslots && m.call_slot < m.nslots && m.nslots <= DEVICE_MAX_SLOTS);
	MUST(m.probe_at + m.probe_size <= DP_SHADOW_SIZE);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct fixture f;
	struct op o;

	if (!size)
		return 0;
	if (data[0] & 2)
		check_description(data + 1, size - 1);
	set_up(&f, data[0] & 1);
	for (size_t at = 1; sizeof(o) <= size - at; at += sizeof(o)) {
		memcpy(&o, data + at, sizeof(o));
		run(&f, &o);
	}
	tear_down(&f);
	return 0;
}
