/* SPDX-License-Identifier: BSD-2-Clause */
/* virtio-console. See vcon.h. */
#include <errno.h>
#include <linux/virtio_ids.h>
#include <string.h>

#include <insula/base.h>

#include "devices/iov.h"
#include "vcon.h"

static struct virtqueue *queue(struct vcon *v, enum vcon_queue q)
{
	return &v->w.front.v.vq[q];
}

/* ---- marks ---- */

static void store_mark(_Atomic uint64_t *to, uint32_t at, uint16_t seq)
{
	const struct vcon_mark m = {.at = at, .seq = seq};
	uint64_t word;

	memcpy(&word, &m, sizeof(word));
	atomic_store_explicit(to, word, memory_order_release);
}

static struct vcon_mark load_mark(const _Atomic uint64_t *from)
{
	uint64_t word = atomic_load(from);
	struct vcon_mark m;

	memcpy(&m, &word, sizeof(m));
	return m;
}

/* ---- output ---- */

/* What of the buffer an earlier process, or this one before a stop, has put into the ring. */
static uint32_t moved_before(struct vcon *v, bool resumed)
{
	const struct vcon_mark m = load_mark(&v->st->out_mark);
	uint32_t n = v->ends.out_head - m.at;

	return resumed && m.seq == queue(v, VCON_TX)->used_idx && n <= v->out.read_len ? n : 0;
}

/* False: there is none, or the guest made a mistake. */
static bool vcon_take_output(struct vcon *v)
{
	struct virtqueue *q = queue(v, VCON_TX);
	bool resumed = q->iresume < q->nresume;
	int rc;

	v->out.iov = v->out_iov;
	rc = q->num ? vq_next(q, &v->out) : 0;
	if (rc < 0 || (rc && (v->out.nwrite || v->out.read_len > UINT32_MAX)))
		lane_fault(v->w.lane, rc < 0 ? q->why : "no buffer that output can be in");
	if (rc <= 0 || v->w.lane->broken)
		return false;
	v->held = true;
	v->moved = moved_before(v, resumed);
	store_mark(&v->st->out_mark, v->ends.out_head - v->moved, q->used_idx);
	return true;
}

/* At most *budget bytes. False: there are more, or the ring is full. A guest may change its buffer
 * meanwhile: only its own output suffers. */
static bool move_output(struct vcon *v, uint32_t *budget)
{
	while (v->moved < v->out.read_len) {
		uint32_t len;
		uint8_t *to = ends_piece(&v->ends, &len);

		len = len < *budget ? len : *budget;
		if (!len)
			return false;
		len = (uint32_t)iov_get(v->out.iov, v->out.nread, v->moved, to, len);
		*budget -= len;
		v->moved += len;
		ends_put(&v->ends, len);
	}
	return true;
}

/* The ring is full. Has nothing left it for so long that the guest has waited enough? */
static bool vcon_is_deaf(struct vcon *v)
{
	uint32_t tail = atomic_load(&v->st->rings.out_tail);
	uint64_t now = clock_ns();

	if (!v->full || tail != v->full_tail) {
		v->full = true;
		v->full_tail = tail;
		v->full_until = now + VCON_DEAF_NS;
	}
	return now >= v->full_until;
}

/* False: the buffer waits, because the budget is used up or the ring is full. */
static bool finish_output(struct vcon *v, uint32_t *budget)
{
	if (move_output(v, budget))
		return true;
	if (*budget == 0 || !vcon_is_deaf(v))
		return false;
	ends_lose(&v->ends, (uint32_t)v->out.read_len - v->moved, -EAGAIN);
	return true;
}

/* True: there is more to take at once. Each buffer is published alone, or its mark would not say
 * whose it is. */
static bool serve_output(struct vcon *v)
{
	uint32_t budget = VCON_BYTES;

	for (unsigned n = 0; n < VCON_BUDGET; n++) {
		if (!v->held && !vcon_take_output(v))
			return false;
		if (!finish_output(v, &budget))
			return budget == 0;
		v->held = false;
		v->open = true;
		vq_push(queue(v, VCON_TX), v->out.head, 0);
		lane_publish(v->w.lane);
		if (ends_batch(&v->ends))
			ends_flush(&v->ends);
	}
	return true;
}

/* ---- input ---- */

static uint32_t in_waiting(const struct vcon *v)
{
	const struct ends_rings *r = &v->st->rings;
	uint32_t n = atomic_load(&r->in_head) - atomic_load(&r->in_tail);

	return n <= CONSOLE_IN_LEN ? n : 0;
}

/* May the guest be given input? See vcon.h. */
static bool listens(const struct vcon *v)
{
	return v->open || (!v->strict && clock_ns() >= v->open_by);
}

static void vcon_fill(struct vcon *v, const struct vq_chain *c)
{
	struct ends_rings *r = &v->st->rings;
	uint32_t tail = atomic_load_explicit(&r->in_tail, memory_order_relaxed);
	uint32_t n = in_waiting(v), at = tail % CONSOLE_IN_LEN, first = CONSOLE_IN_LEN - at;

	if (n > c->write_len)
		n = (uint32_t)c->write_len;
	if (first > n)
		first = n;
	store_mark(&v->st->in_mark, tail + n, queue(v, VCON_RX)->used_idx);
	iov_put(c->iov, c->nwrite, 0, r->in + at, first);
	iov_put(c->iov, c->nwrite, first, r->in, n - first);
	vq_push(queue(v, VCON_RX), c->head, n);
	lane_publish(v->w.lane);
	ends_took(&v->ends, tail + n);
}

/* True: there is more to give at once. */
static bool serve_input(struct vcon *v)
{
	struct virtqueue *q = queue(v, VCON_RX);

	for (unsigned n = 0; n < VCON_BUDGET; n++) {
		struct vq_chain c = {.iov = v->in_iov};
		int rc;

		if (!q->num || !in_waiting(v) || !listens(v))
			return false;
		rc = vq_next(q, &c);
		if (rc < 0 || (rc && c.nread))
			lane_fault(v->w.lane, rc < 0 ? q->why : "input in a buffer to read from");
		if (rc <= 0 || v->w.lane->broken)
			return false;
		vcon_fill(v, &c);
	}
	return true;
}

/* ---- turns ---- */

/* The queues run: finish what was between a used index and the ring's tail, and forget marks of
 * queues that the driver has set up anew. */
static void vcon_begin(struct vcon *v)
{
	const struct vcon_mark m = load_mark(&v->st->in_mark);
	struct ends_rings *r = &v->st->rings;
	const struct virtqueue *rx = queue(v, VCON_RX), *tx = queue(v, VCON_TX);

	v->started = v->w.lane->seen;
	v->held = false;
	v->open = tx->num && (tx->used_idx || vq_resumed(tx));
	v->open_by = clock_ns() + VCON_QUIET_NS;
	if (rx->num && (uint16_t)(m.seq + 1) == rx->used_idx &&
	    m.at - atomic_load(&r->in_tail) <= in_waiting(v))
		ends_took(&v->ends, m.at);
	if (tx->num && !vq_resumed(tx))
		store_mark(&v->st->out_mark, v->ends.out_head, (uint16_t)(tx->used_idx - 1));
}

/* What of a buffer is in the ring is found from the ring's head: nothing else may be put there
 * between a buffer's bytes, or before it is known whether an earlier process had begun with one. */
static bool may_help(const struct vcon *v, bool runs)
{
	const struct virtqueue *q = &v->w.front.v.vq[VCON_TX];

	if (v->held)
		return false;
	return runs ? q->iresume >= q->nresume : v->started || !v->w.h->port.resumed;
}

bool vcon_turn(struct vcon *v)
{
	bool more = false, runs = lane_runs(v->w.lane);

	if (runs) {
		if (v->started != v->w.lane->seen)
			vcon_begin(v);
		more = serve_output(v);
		more |= !v->w.lane->broken && serve_input(v);
	}
	if (may_help(v, runs))
		ends_help(&v->ends);
	ends_flush(&v->ends);
	lane_calm(v->w.lane);
	return more && !v->w.lane->broken;
}

int vcon_rest(struct vcon *v)
{
	bool more;
	int ms = -1;

	if (!lane_runs(v->w.lane))
		return -1;
	if (v->started != v->w.lane->seen)
		return 0; /* a start has come since the turn */
	if (v->held) {
		ends_want_room(&v->ends);
		more = ends_room(&v->ends) != 0;
		ms = (int)(VCON_DEAF_NS / 1000000) + 1;
	} else {
		more = lane_arm(v->w.lane, VCON_TX);
	}
	if (in_waiting(v) && listens(v)) /* for want of a buffer */
		more |= lane_arm(v->w.lane, VCON_RX);
	else if (in_waiting(v) && !v->strict && ms < 0)
		ms = 1 + (int)(VCON_QUIET_NS / 1000000);
	return more ? 0 : ms;
}

static void *io_main(void *arg)
{
	struct vcon *v = arg;

	lane_born(v->w.lane);
	for (;;) {
		bool more = vcon_turn(v);
		int ms;

		lane_freeze(v->w.lane);
		ms = more ? 0 : vcon_rest(v);
		v->w.lane->stat[STAT_VCON_KICKS] += lane_sleep(v->w.lane, ms);
	}
	return NULL;
}

/* ---- control thread ---- */

static void vcon_event(void *dev)
{
	struct vcon *v = dev;

	ends_quit(&v->ends, v->w.h->channel);
	worker_helper_ops.event(dev);
}

static void vcon_resume(void *dev)
{
	struct vcon *v = dev;

	ends_go(&v->ends);
	worker_resume(dev);
}

static void vcon_stop(void *dev, struct msg_stats *s)
{
	struct vcon *v = dev;

	worker_helper_ops.stop(dev, s);
	s->n[STAT_VCON_OUT_LOST] = ends_drain(&v->ends);
	s->n[STAT_VCON_OUT_BYTES] = v->ends.out_bytes;
	s->n[STAT_VCON_OUT_WRITES] = v->ends.out_writes;
	s->n[STAT_VCON_IN_BYTES] = v->ends.in_bytes;
}

/* ---- start ---- */

int vcon_open(struct vcon *v, struct helper *h, const struct msg_start_uart *m,
	      const struct start_fds *f, const char **step, struct err *e)
{
	int rc;

	memset(v, 0, sizeof(*v));
	rc = worker_open(&v->w, h, &m->head.mem, f, VCON_TAG, step, e);
	if (rc)
		return rc;
	v->ops = worker_helper_ops;
	v->ops.resume = vcon_resume;
	v->ops.event = vcon_event;
	v->ops.stop = vcon_stop;
	v->strict = m->flags & UART_STREAM;
	v->st = (void *)((uint8_t *)h->port.dev_state + VCON_STATE_OFF);
	*step = "console";
	rc = ends_open(&v->ends, &v->st->rings, h->port.resumed,
		       &(struct ends_conf){.out_fd = f->fd[START_OWN][0],
					   .in_fd = f->n[START_OWN] > 1 ? f->fd[START_OWN][1] : -1,
					   .flags = m->flags,
					   .limit = m->limit,
					   .wake_fd = v->w.lane->ctl_fd,
					   .quit_fd = h->event_fd},
		       e);
	if (rc)
		return rc;
	*step = "thread";
	rc = worker_begin(&v->w, io_main, &(void *){v}, e);
	if (rc)
		return rc;
	worker_describe(&v->w, VIRTIO_ID_CONSOLE, 0, VCON_QUEUES, NULL, 0);
	return 0;
}
