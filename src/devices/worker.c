/* SPDX-License-Identifier: BSD-2-Clause */
/* A virtio device with one I/O thread. See worker.h. */
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
	event_signal(w->ctl_fd);
}

static bool wait_quiet(struct worker *w, int timeout)
{
	uint64_t now = clock_ns(), until = now + (uint64_t)timeout * 1000000u;

	for (; now < until; now = clock_ns()) {
		if (events_wait(&w->quiet_fd, 1, -1, (int)((until - now) / 1000000u)))
			return true;
	}
	return false;
}

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
	if (!wait_quiet(w, (int)ms))
		panic("the I/O thread has not finished in %u s", ms / 1000);
	atomic_store(&w->fault, NULL);
}

/* ---- registers and messages ---- */

static void reg_write(void *dev, uint32_t off, uint32_t size, uint64_t val)
{
	struct worker *w = dev;

	vmmio_write(&w->mmio, off, size, val);
}

static uint64_t reg_read(void *dev, uint32_t off, uint32_t size)
{
	struct worker *w = dev;

	return vmmio_read(&w->mmio, off, size);
}

static void settle(void *dev)
{
	struct worker *w = dev;

	vmmio_show(&w->mmio);
}

static void lost(void *dev)
{
	struct worker *w = dev;

	virtio_fail(&w->mmio.v, "register accesses were lost");
}

static void event(void *dev)
{
	struct worker *w = dev;
	const char *why = atomic_exchange(&w->fault, NULL);

	if (why)
		virtio_fail(&w->mmio.v, why);
}

static void stop(void *dev, struct msg_stats *s)
{
	struct worker *w = dev;

	w->last = true;
	if (w->mmio.v.running)
		w->model.stop(w);
	w->mmio.v.running = false;
	for (unsigned i = 0; i < ARRAY_LEN(s->n); i++)
		s->n[i] += w->stat[i];
}

void worker_resume(void *dev)
{
	struct worker *w = dev;

	virtio_resume(&w->mmio.v);
}

const struct helper_ops worker_helper_ops = {
	.regs = {.write = reg_write, .read = reg_read, .settle = settle, .lost = lost},
	.resume = worker_resume,
	.event = event,
	.stop = stop,
};

/* ---- set-up ---- */

int worker_open(struct worker *w, struct helper *h, int mem_fd, const struct memmap *mem,
		int page_fd, int call_fd, int irq_fd, const int *kick_fd, unsigned nkicks,
		uint32_t tag, const char **step, struct err *e)
{
	int rc;

	memset(w, 0, sizeof(*w));
	w->h = h;
	w->nkicks = nkicks;
	memcpy(w->kick_fd, kick_fd, nkicks * sizeof(*kick_fd));
	*step = "page";
	rc = helper_open(h, page_fd, call_fd, irq_fd, tag, e);
	if (rc)
		return rc;
	*step = "memory";
	rc = gm_map(&w->gm, mem, &mem_fd, 1, e);
	if (rc)
		return rc;
	fd_close(&mem_fd);
	*step = "event";
	w->ctl_fd = event_create();
	w->quiet_fd = event_create();
	if (w->ctl_fd < 0 || w->quiet_fd < 0)
		return err_set(e, -EMFILE, "eventfd");
	return 0;
}

int worker_begin(struct worker *w, void *(*fn)(void *), void *arg, struct err *e)
{
	pthread_t t;
	int rc = helper_thread(&t, fn, arg);

	if (rc)
		return err_sys(e, rc, "thread");
	if (!wait_quiet(w, START_MS))
		return err_set(e, -ETIMEDOUT, "the I/O thread does not start");
	if (w->born.code)
		*e = w->born;
	return w->born.code;
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
	vmmio_init(&w->mmio, w->h, (uint32_t *)(void *)w->h->port.shadow, w->h->port.dev_state,
		   w->h->port.resumed, &w->gm, &w->model, w);
}

/* ---- I/O thread ---- */

void worker_born(struct worker *w)
{
	event_signal(w->quiet_fd);
}

bool worker_commanded(const struct worker *w)
{
	return atomic_load(&w->want) != w->seen;
}

bool worker_idle(const struct worker *w)
{
	uint32_t want = atomic_load(&w->want);

	return !serves(want) && want == w->seen;
}

bool worker_runs(struct worker *w)
{
	uint32_t want = atomic_load(&w->want);

	if (!serves(want))
		return false;
	if (want != w->seen) {
		w->seen = want;
		w->broken = false;
	}
	return !w->broken;
}

void worker_calm(struct worker *w)
{
	uint32_t want = atomic_load(&w->want);

	if (serves(want) || want == w->seen)
		return;
	w->seen = want;
	event_signal(w->quiet_fd);
}

void worker_fault(struct worker *w, const char *why)
{
	w->broken = true;
	atomic_store(&w->fault, why);
	event_signal(w->h->event_fd);
}

void worker_publish(struct worker *w)
{
	bool irq = false;

	for (unsigned i = 0; i < w->model.nqueues; i++)
		irq |= vq_publish(&w->mmio.v.vq[i]);
	if (!irq)
		return;
	w->stat[STAT_IRQS]++;
	event_signal(w->h->irq_fd);
}

bool worker_arm(struct worker *w, unsigned q)
{
	struct virtqueue *vq = &w->mmio.v.vq[q];

	return vq->num && vq_arm(vq);
}

unsigned worker_sleep(struct worker *w, int timeout)
{
	int event[1 + VIRTIO_MAX_QUEUES] = {w->ctl_fd};

	memcpy(&event[1], w->kick_fd, w->nkicks * sizeof(*event));
	return (unsigned)__builtin_popcountll(events_wait(event, 1 + w->nkicks, -1, timeout) >> 1);
}
