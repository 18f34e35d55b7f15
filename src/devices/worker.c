/* SPDX-License-Identifier: BSD-2-Clause */
/* A virtio device with I/O threads. See worker.h. */
#include <errno.h>
#include <string.h>

#include <insula/base.h>

#include "worker.h"

_Static_assert(sizeof(struct virtio_state) <= PORT_DEV_STATE_SIZE, "the state fits the page");

#define START_MS 10000

/* ---- commands ---- */

static bool serves(uint32_t want)
{
	return want & 1;
}

static void command(struct worker *w)
{
	atomic_fetch_add(&w->want, 1);
	for (unsigned i = 0; i < w->nlanes; i++)
		lane_wake(&w->lane[i]);
}

static bool is_up(const struct lane *l)
{
	return atomic_load(&l->up);
}

static bool is_quiet(const struct lane *l)
{
	return atomic_load(&l->quiet_at) == atomic_load(&l->w->want);
}

static bool all_lanes(const struct worker *w, bool (*fn)(const struct lane *l))
{
	unsigned i = 0;

	while (i < w->nlanes && fn(&w->lane[i]))
		i++;
	return i == w->nlanes;
}

/* Each lane makes it true and then signals, so the event is never taken by the wrong one: after
 * each signal all are looked at. */
static bool wait_lanes(struct worker *w, bool (*fn)(const struct lane *l), int timeout)
{
	uint64_t now = clock_ns(), until = now + (uint64_t)timeout * 1000000u;

	for (; now < until; now = clock_ns()) {
		if (all_lanes(w, fn))
			return true;
		(void)events_wait(&w->quiet_fd, 1, -1, (int)((until - now + 999999u) / 1000000u));
	}
	return all_lanes(w, fn);
}

/* ---- a snapshot is made ---- */

static bool is_frozen(const struct lane *l)
{
	return atomic_load(&l->frozen_at) == atomic_load(&l->w->freeze);
}

static void worker_quiet(void *dev)
{
	struct worker *w = dev;

	w->quiet_owed = true;
	atomic_fetch_add(&w->freeze, 1);
	for (unsigned i = 0; i < w->nlanes; i++)
		lane_wake(&w->lane[i]);
}

static void worker_go_on(void *dev)
{
	struct worker *w = dev;

	w->quiet_owed = false;
	atomic_fetch_add(&w->freeze, 1);
	word_wake(&w->freeze);
}

bool lane_freezes(const struct lane *l)
{
	return atomic_load_explicit(&l->w->freeze, memory_order_relaxed) & 1;
}

/* By its number: a lane that is only waking up from the last one is not taken for at rest. */
void lane_freeze(struct lane *l)
{
	uint32_t at = atomic_load(&l->w->freeze);

	if (!(at & 1))
		return;
	atomic_store(&l->frozen_at, at);
	event_signal(l->w->h->event_fd);
	while (atomic_load(&l->w->freeze) == at)
		word_wait(&l->w->freeze, at);
}

/* ---- commands ---- */

void worker_start(void *dev)
{
	struct worker *w = dev;

	command(w);
}

void worker_stop(void *dev)
{
	struct worker *w = dev;
	unsigned ms = w->last ? WORKER_LAST_MS : (unsigned)WORKER_QUIET_MS;

	command(w);
	/* A request that never ends still owns guest memory: this process cannot answer the reset.
	 * The next one gets the backing when the kernel has let go of it. */
	if (!wait_lanes(w, is_quiet, (int)ms))
		panic("an I/O thread has not finished in %u s", ms / 1000);
	atomic_store(&w->fault, NULL);
}

/* ---- registers and messages ---- */

static void reg_write(void *dev, uint32_t off, uint32_t size, uint64_t val)
{
	struct worker *w = dev;

	front_write(&w->front, off, size, val);
}

static uint64_t reg_read(void *dev, uint32_t off, uint32_t size)
{
	struct worker *w = dev;

	return front_read(&w->front, off, size);
}

static void worker_settle(void *dev)
{
	struct worker *w = dev;

	front_show(&w->front);
}

static void worker_lost(void *dev)
{
	struct worker *w = dev;

	virtio_fail(&w->front.v, "register accesses were lost");
}

static void worker_event(void *dev)
{
	struct worker *w = dev;
	const char *why = atomic_exchange(&w->fault, NULL);

	if (why)
		virtio_fail(&w->front.v, why);
	if (w->quiet_owed && all_lanes(w, is_frozen)) {
		w->quiet_owed = false;
		helper_is_quiet(w->h);
	}
}

static void worker_stop_now(void *dev, struct msg_stats *s)
{
	struct worker *w = dev;

	w->last = true;
	if (w->front.v.running)
		w->model.stop(w);
	w->front.v.running = false;
	for (unsigned k = 0; k < w->nlanes; k++) {
		for (unsigned i = 0; i < ARRAY_LEN(s->n); i++)
			s->n[i] += w->lane[k].stat[i];
	}
}

/* The lanes go on: a counter may be a little old, but it is one that there was. */
static void worker_count(void *dev, struct msg_stats *s)
{
	const struct worker *w = dev;

	for (unsigned k = 0; k < w->nlanes; k++) {
		for (unsigned i = 0; i < ARRAY_LEN(s->n); i++)
			s->n[i] += __atomic_load_n(&w->lane[k].stat[i], __ATOMIC_RELAXED);
	}
}

void worker_resume(void *dev)
{
	struct worker *w = dev;

	virtio_resume(&w->front.v);
}

const struct helper_ops worker_helper_ops = {
	.regs = {.write = reg_write,
		 .read = reg_read,
		 .settle = worker_settle,
		 .lost = worker_lost},
	.resume = worker_resume,
	.event = worker_event,
	.stop = worker_stop_now,
	.quiet = worker_quiet,
	.go_on = worker_go_on,
	.count = worker_count,
};

/* ---- set-up ---- */

int worker_open(struct worker *w, struct helper *h, const struct memmap *mem,
		const struct start_fds *f, uint32_t tag, const char **step, struct err *e)
{
	int rc;

	memset(w, 0, sizeof(*w));
	w->h = h;
	w->nkicks = f->n[START_KICK];
	memcpy(w->kick_fd, f->fd[START_KICK], w->nkicks * sizeof(*w->kick_fd));
	*step = "page";
	rc = helper_open(h, f, tag, e);
	if (rc)
		return rc;
	*step = "memory";
	rc = gm_map(&w->gm, mem, f->fd[START_MEMORY], f->n[START_MEMORY], e);
	if (rc)
		return rc;
	rc = gm_give_faults(&w->gm, mem, f, MSG_CHANNEL_FD, e);
	if (rc)
		return rc;
	for (unsigned i = 0; i < f->n[START_MEMORY]; i++)
		fd_close(&(int){f->fd[START_MEMORY][i]});
	*step = "event";
	w->quiet_fd = event_create();
	rc = w->quiet_fd < 0 ? err_set(e, -EMFILE, "eventfd") : worker_lanes(w, 1, e);
	w->lane[0].queues = (1u << w->nkicks) - 1;
	return rc;
}

int worker_lanes(struct worker *w, unsigned n, struct err *e)
{
	w->lane[0].queues = 0;
	for (; w->nlanes < n; w->nlanes++) {
		struct lane *l = &w->lane[w->nlanes];

		l->w = w;
		l->index = w->nlanes;
		l->ctl_fd = event_create();
		if (l->ctl_fd < 0)
			return err_set(e, -EMFILE, "eventfd");
	}
	return 0;
}

int worker_begin(struct worker *w, void *(*fn)(void *), void *const *arg, struct err *e)
{
	pthread_t t;
	int rc = 0;

	for (unsigned i = 0; i < w->nlanes && !rc; i++)
		rc = helper_thread_with(&t, w->stack, fn, arg[i]);
	if (rc)
		return err_sys(e, rc, "thread");
	if (!wait_lanes(w, is_up, START_MS))
		return err_set(e, -ETIMEDOUT, "an I/O thread does not start");
	for (unsigned i = 0; i < w->nlanes && !rc; i++) {
		rc = w->lane[i].born.code;
		if (rc)
			*e = w->lane[i].born;
	}
	return rc;
}

void worker_describe(struct worker *w, uint32_t device_id, uint64_t features, unsigned nqueues,
		     const void *config, size_t config_len)
{
	w->model = (struct virtio_model){
		.device_id = device_id,
		.features = features,
		.nqueues = nqueues,
		.config = config,
		.config_len = config_len,
		.start = worker_start,
		.stop = worker_stop,
	};
	front_init(&w->front, w->h, &w->gm, &w->model, w);
}

/* ---- I/O thread ---- */

void lane_wake(const struct lane *l)
{
	event_signal(l->ctl_fd);
}

void lane_born(struct lane *l)
{
	atomic_store(&l->up, true);
	event_signal(l->w->quiet_fd);
}

bool lane_commanded(const struct lane *l)
{
	return atomic_load(&l->w->want) != l->seen;
}

bool lane_idle(const struct lane *l)
{
	uint32_t want = atomic_load(&l->w->want);

	return !serves(want) && want == l->seen;
}

bool lane_runs(struct lane *l)
{
	uint32_t want = atomic_load(&l->w->want);

	if (!serves(want))
		return false;
	if (want != l->seen) {
		l->seen = want;
		l->broken = false;
	}
	return !l->broken;
}

void lane_calm(struct lane *l)
{
	uint32_t want = atomic_load(&l->w->want);

	if (serves(want) || want == l->seen)
		return;
	l->seen = want;
	atomic_store(&l->quiet_at, want);
	event_signal(l->w->quiet_fd);
}

void lane_fault(struct lane *l, const char *why)
{
	l->broken = true;
	atomic_store(&l->w->fault, why);
	event_signal(l->w->h->event_fd);
}

void lane_publish(struct lane *l)
{
	const struct virtio_front *f = &l->w->front;
	uint32_t due = 0;

	for (uint32_t left = l->queues; left; left &= left - 1) {
		unsigned i = (unsigned)__builtin_ctz(left);

		if (vq_publish(&l->w->front.v.vq[i]))
			due |= front_vector(f, i);
	}
	for (; due; due &= due - 1) {
		l->stat[STAT_IRQS]++;
		event_signal(l->w->h->irq_fd[__builtin_ctz(due)]);
	}
}

bool lane_arm(struct lane *l, unsigned q)
{
	struct virtqueue *vq = &l->w->front.v.vq[q];

	return vq->num && vq_arm(vq);
}

unsigned lane_sleep(struct lane *l, int timeout)
{
	int worker_event[1 + VIRTIO_MAX_QUEUES] = {l->ctl_fd};
	unsigned n = 1;

	for (uint32_t left = l->queues; left; left &= left - 1)
		worker_event[n++] = l->w->kick_fd[__builtin_ctz(left)];
	return (unsigned)__builtin_popcountll(events_wait(worker_event, n, -1, timeout) >> 1);
}
