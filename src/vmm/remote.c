/* SPDX-License-Identifier: BSD-2-Clause */
/* The core's side of a device page. See remote.h. */
#include <errno.h>
#include <string.h>

#include <insula/base.h>
#include <insula/board.h>
#include <insula/log.h>

#include "remote.h"

static bool in_mask(const struct device_window *w, uint64_t mask, uint64_t off)
{
	uint64_t i = off >> w->shift;

	return i < 64 && (mask >> i & 1);
}

static void remote_fail(struct remote *d)
{
	d->metrics.timeouts++;
	atomic_fetch_add(&d->ctrl->lost, 1);
	atomic_store(&d->failed, true);
	atomic_store(&d->stuck, true);
	event_signal(d->wake_event);
}

/* What was stored before is visible before `asleep` is looked at: both sides use seq_cst, see
 * devpage.h. */
static void wake_helper(struct remote *d)
{
	if (atomic_load(&d->ctrl->asleep))
		event_signal(d->call_event);
}

static bool answered(struct remote *d)
{
	return atomic_load(&d->ctrl->ack_seq) == d->seq;
}

static bool spin_for_answer(struct remote *d, uint64_t start)
{
	while (d->may_spin) {
		for (int i = 0; i < 64; i++) {
			if (answered(d))
				return true;
			__builtin_ia32_pause();
		}
		if (clock_ns() - start > DP_SPIN_NS)
			break;
	}
	return answered(d);
}

static bool nobody_waits(const struct remote *d)
{
	return atomic_load(d->ending) || atomic_load(&d->gone);
}

static bool sleep_for_answer(struct remote *d, uint64_t until)
{
	bool ok = false;

	atomic_store(&d->ctrl->core_waits, 1);
	for (;;) {
		uint32_t seen = atomic_load(&d->ctrl->ack_seq);
		uint64_t now = clock_ns();

		ok = seen == d->seq;
		if (ok || now >= until || nobody_waits(d))
			break;
		word_wait_shared(&d->ctrl->ack_seq, seen, d->answer_event, until - now);
	}
	atomic_store(&d->ctrl->core_waits, 0);
	return ok;
}

/* The lock is held. The next helper answers the call that was given up, behind all that came before
 * it: from then on it can be talked to, and a guest that has seen the effect in the shadow
 * registers does so at once. The supervisor says the same a little later. */
static bool has_failed(struct remote *d)
{
	if (!atomic_load(&d->failed))
		return false;
	if (!answered(d))
		return true;
	atomic_store(&d->failed, false);
	return false;
}

/* The lock is held. A helper that has just answered has seen the loss (helper_attach() looks behind
 * its answer), or is seen here, and hears of the access: no reset is missed by one that serves. */
static bool is_lost(struct remote *d, const struct bus_patience *w)
{
	if (!has_failed(d) && !w->over)
		return false;
	atomic_fetch_add(&d->ctrl->lost, 1);
	if (has_failed(d))
		return true;
	if (w->over)
		wake_helper(d);
	return w->over;
}

/* One synchronous call. The lock is held. False: the device has failed or the VM ends. */
static bool call(struct remote *d, enum dp_op op, uint64_t off, unsigned size, uint64_t *value,
		 struct bus_patience *w)
{
	struct dp_ctrl *c = d->ctrl;
	uint64_t start = clock_ns(), took;

	if (is_lost(d, w))
		return false;
	if (!w->until)
		w->until = start + DP_DEADLINE_NS;
	c->req_op = op;
	c->req_offset = (uint32_t)off;
	c->req_size = size;
	c->req_value = *value;
	atomic_store(&c->req_seq, ++d->seq);
	wake_helper(d);
	d->metrics.calls++;
	if (!spin_for_answer(d, start) && !sleep_for_answer(d, w->until)) {
		if (!nobody_waits(d))
			remote_fail(d);
		w->over = true;
		return false;
	}
	*value = c->ack_value;
	took = clock_ns() - start;
	if (took > d->metrics.call_ns_max)
		d->metrics.call_ns_max = took;
	return true;
}

/* The lock is held. False: the ring is full. */
static bool enqueue(struct remote *d, uint64_t off, unsigned size, uint64_t value)
{
	if (d->head - atomic_load(&d->ctrl->ring_tail) >= DP_RING_LEN)
		return false;
	d->ring[d->head % DP_RING_LEN] = (struct dp_post){(uint32_t)off, size, value};
	atomic_store(&d->ctrl->ring_head, ++d->head);
	wake_helper(d);
	d->metrics.posted++;
	return true;
}

/* The lock is held. A full ring (or a helper that lies about it) turns the write into a call, which
 * waits with a deadline. */
static void post(struct remote *d, uint64_t off, unsigned size, uint64_t value,
		 struct bus_patience *w)
{
	if (!is_lost(d, w) && !enqueue(d, off, size, value))
		call(d, DP_OP_WRITE, off, size, &value, w);
}

void remote_call_or_wait(struct remote_window *win, uint64_t off, unsigned size, uint64_t value,
			 struct bus_patience *w)
{
	struct remote *d = win->dev;

	pthread_mutex_lock(&d->lock);
	if (!has_failed(d) || !enqueue(d, win->w->at + off, size, value))
		call(d, DP_OP_WRITE, win->w->at + off, size, &value, w);
	pthread_mutex_unlock(&d->lock);
}

static uint64_t read_shadow(const struct remote *d, uint64_t off, unsigned size)
{
	const volatile uint8_t *p = d->shadow + off;
	uint64_t v = 0;

	/* An aligned register is read in one piece; anything else has no atomicity to keep. */
	if (size == 4 && off % 4 == 0)
		return *(const volatile uint32_t *)p;
	for (unsigned i = 0; i < size; i++)
		v |= (uint64_t)p[i] << (8 * i);
	return v;
}

/* Memory of a device of the host exits only while its BAR is being moved: nothing is there. */
static uint64_t remote_read(void *self, uint64_t off, unsigned size, struct bus_patience *w)
{
	const struct remote_window *win = self;
	struct remote *d = win->dev;
	uint64_t v = 0;
	bool ok;

	if (atomic_load_explicit(&d->failed, memory_order_relaxed) ||
	    win->w->serve == DEVICE_DIRECT)
		return ~0ull;
	if (win->w->serve != DEVICE_CALLS && !in_mask(win->w, win->w->call_reads, off)) {
		atomic_fetch_add_explicit(&d->shadow_reads, 1, memory_order_relaxed);
		return read_shadow(d, win->w->at + off, size);
	}
	pthread_mutex_lock(&d->lock);
	ok = call(d, DP_OP_READ, win->w->at + off, size, &v, w);
	pthread_mutex_unlock(&d->lock);
	return ok ? v : ~0ull;
}

/* The exit path of a doorbell: what the hypervisor would have done without an exit. */
static bool doorbell(struct remote *d, const struct device_window *w, uint64_t off, uint64_t value)
{
	bool rings = in_mask(w, w->dropped, off);

	for (unsigned i = 0; i < d->desc.ndoorbells; i++) {
		const struct device_doorbell *b = &d->desc.doorbell[i];

		if (b->addr != w->base + off || b->space != w->space ||
		    (b->match && b->value != value))
			continue;
		event_signal(d->slot[b->slot]);
		rings = true;
	}
	if (rings)
		atomic_fetch_add_explicit(&d->doorbells, 1, memory_order_relaxed);
	return rings;
}

/* The lock is held. An acknowledge that no helper hears is no loss: the next one would interrupt
 * once more at worst. Counted as one, it would cost a guest that was told about the failure its
 * whole device. */
static bool unheard(struct remote *d, const struct device_window *w, uint64_t off)
{
	return in_mask(w, w->unheard, off) && has_failed(d);
}

static void remote_write(void *self, uint64_t off, unsigned size, uint64_t value,
			 struct bus_patience *w)
{
	const struct remote_window *win = self;
	struct remote *d = win->dev;

	if (win->w->serve == DEVICE_DIRECT || doorbell(d, win->w, off, value))
		return;
	pthread_mutex_lock(&d->lock);
	if (in_mask(win->w, win->w->posted, off))
		post(d, win->w->at + off, size, value, w);
	else if (!unheard(d, win->w, off))
		call(d, DP_OP_WRITE, win->w->at + off, size, &value, w);
	pthread_mutex_unlock(&d->lock);
}

const struct bus_ops remote_bus_ops = {remote_read, remote_write};

static void close_slots(int *fds, unsigned nfds)
{
	for (unsigned i = 0; i < nfds; i++)
		fd_close(&fds[i]);
}

static int event_of(const struct remote *d, uint32_t slot)
{
	return slot == DEVICE_NO_SLOT ? -1 : d->slot[slot];
}

/* All but what has to be mapped. */
static void describe(struct remote *d, const struct device_desc *desc, const int *fds)
{
	d->desc = *desc;
	memcpy(d->slot, fds, desc->nslots * sizeof(*fds));
	fd_close(&d->slot[desc->page_slot]);
	for (unsigned i = 0; i < desc->nwindows; i++) {
		if (desc->window[i].serve == DEVICE_DIRECT)
			fd_close(&d->slot[desc->window[i].slot]);
	}
	d->call_event = event_of(d, desc->call_slot);
	d->answer_event = event_of(d, desc->answer_slot);
	for (unsigned i = 0; i < desc->nwindows; i++)
		d->window[i] = (struct remote_window){d, &d->desc.window[i]};
	memset(&d->metrics, 0, sizeof(d->metrics));
	memcpy(d->metrics.name, desc->name, sizeof(d->metrics.name));
	atomic_store(&d->shadow_reads, 0);
	atomic_store(&d->doorbells, 0);
	atomic_store(&d->failed, false);
	atomic_store(&d->stuck, false);
	d->head = d->seq = 0;
}

/* Registers of a device of the host. What is mapped when something fails goes with the process. */
static int map_direct(struct remote *d, const struct device_desc *m, const int *fds, struct err *e)
{
	int rc = 0;

	for (unsigned i = 0; i < m->nwindows && !rc; i++) {
		const struct device_window *w = &m->window[i];

		if (w->serve == DEVICE_DIRECT)
			rc = device_map(fds[w->slot], w->offset, w->len, &d->direct[i], e);
	}
	return rc;
}

int remote_init(struct remote *d, const struct device_desc *desc, int *fds, unsigned nfds,
		struct err *e)
{
	void *page;
	int rc = device_check(desc, nfds, e);

	memset(d, 0, sizeof(*d));
	if (!rc)
		rc = shm_map(fds[desc->page_slot], (uint64_t)DP_STATE_OFF + desc->state_size, 0,
			     DP_CORE_SIZE, true, &page, e);
	if (!rc)
		rc = map_direct(d, desc, fds, e);
	if (rc) {
		close_slots(fds, nfds);
		return rc;
	}
	describe(d, desc, fds);
	d->shadow = page;
	d->ctrl = (struct dp_ctrl *)(d->shadow + DP_CTRL_OFF);
	d->ring = (struct dp_post *)(d->shadow + DP_RING_OFF);
	pthread_mutex_init(&d->lock, NULL);
	return 0;
}

/* Of the first `n` windows. */
static uint64_t direct_size(const struct device_desc *m, unsigned n)
{
	uint64_t size = 0;

	for (unsigned i = 0; i < n; i++)
		size += m->window[i].serve == DEVICE_DIRECT ? m->window[i].len : 0;
	return size;
}

static void leave_room(const struct remote *d, uint64_t size)
{
	struct err e;

	if (size && device_unmap(d->room, size, &e))
		log_error("%s: %s", d->desc.name, e.text);
}

/* The registers of a device of the host that comes: nothing else can be mapped any more
 * (seal_linux.c). */
static int map_in_room(struct remote *d, const struct device_desc *m, const int *fds, struct err *e)
{
	uint64_t size = direct_size(m, m->nwindows);
	int rc = 0;

	if (size > (d->room ? BOARD_PCI_PORT_SIZE : 0))
		return err_set(e, -EOPNOTSUPP, "%s: %llu bytes of the host's device; expected %s",
			       m->name, (unsigned long long)size,
			       d->room ? "2 MiB at most" : "none in this VM");
	for (unsigned i = 0; i < m->nwindows && !rc; i++) {
		const struct device_window *w = &m->window[i];

		if (w->serve != DEVICE_DIRECT)
			continue;
		d->direct[i] = d->room + direct_size(m, i);
		rc = device_map_at(fds[w->slot], w->offset, w->len, d->direct[i], e);
	}
	if (rc)
		leave_room(d, size);
	return rc;
}

int remote_plug(struct remote *d, const struct device_desc *desc, int *fds, unsigned nfds,
		struct err *e)
{
	int rc = device_check(desc, nfds, e);

	if (!rc && !device_is_place(&d->desc))
		rc = err_set(e, -EEXIST, "%s: %s is there", desc->name, d->desc.name);
	if (!rc &&
	    (!device_is_pci(desc) || desc->index != d->desc.index ||
	     desc->pci.number != d->desc.pci.number || desc->state_size != d->desc.state_size))
		rc = err_set(e, -EINVAL, "%s: expected a PCI function for port %u", desc->name,
			     d->desc.pci.number);
	if (!rc)
		rc = map_in_room(d, desc, fds, e);
	if (rc) {
		close_slots(fds, nfds);
		return rc;
	}
	describe(d, desc, fds);
	atomic_store(&d->gone, false);
	return 0;
}

void remote_unplug(struct remote *d, const struct device_desc *place)
{
	const int page = -1; /* it was closed when it was mapped */

	leave_room(d, direct_size(&d->desc, d->desc.nwindows));
	close_slots(d->slot, d->desc.nslots);
	describe(d, place, &page);
}

void remote_give_up(struct remote *d)
{
	atomic_store(&d->gone, true);
	word_wake_shared(&d->ctrl->ack_seq, d->answer_event);
}

struct hv_doorbell remote_doorbell(const struct remote *d, unsigned i, uint64_t base)
{
	const struct device_doorbell *b = &d->desc.doorbell[i];

	return (struct hv_doorbell){.pio = b->space == DEVICE_PIO,
				    .addr = base + b->addr,
				    .size = (uint8_t)b->size,
				    .match = b->match,
				    .value = b->value,
				    .event = d->slot[b->slot]};
}

void remote_up(struct remote *d)
{
	atomic_store(&d->failed, false);
}

/* Like a call that was given up: the next helper answers it when it has seen what was lost, and
 * before it serves a queue. From then on accesses are heard. Would they be lost until remote_up(),
 * that helper would serve requests that the guest has taken back by a reset. */
void remote_down(struct remote *d)
{
	pthread_mutex_lock(&d->lock);
	if (answered(d)) {
		d->ctrl->req_op = DP_OP_READ; /* nothing changes by it */
		d->ctrl->req_offset = d->desc.probe_at;
		d->ctrl->req_size = d->desc.probe_size;
		atomic_store(&d->ctrl->req_seq, ++d->seq);
		wake_helper(d); /* one that has come meanwhile */
	}
	atomic_store(&d->failed, true);
	pthread_mutex_unlock(&d->lock);
}

void remote_metrics(struct remote *d, struct vm_dev_metrics *out)
{
	pthread_mutex_lock(&d->lock);
	*out = d->metrics;
	pthread_mutex_unlock(&d->lock);
	out->shadow_reads = atomic_load(&d->shadow_reads);
	out->doorbells = atomic_load(&d->doorbells);
}
