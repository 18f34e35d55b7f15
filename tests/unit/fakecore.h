/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The core's side of a device page (insula/devpage.h), for tests: one "vCPU" that posts writes and
 * makes calls, either of a helper in another thread or process, or (pump set) of one that runs
 * inside the waiting loop.
 */
#ifndef TESTS_FAKECORE_H
#define TESTS_FAKECORE_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>
#include <insula/devpage.h>

#include <devices/helper.h>

#define FC_DEADLINE_NS (20 * DP_DEADLINE_NS) /* a test machine may be slow */

struct fakecore {
	int page_fd, call_fd, irq_fd;
	int answer_fd; /* word_events(): else -1 */
	int vector_fd[DEVICE_MAX_VECTORS];
	unsigned nvectors; /* on PCI: fc_vectors() */
	uint8_t *page;
	struct dp_ctrl *ctrl;
	struct dp_post *ring;
	uint32_t head, seq;
	void (*pump)(void *arg);
	void *arg;
};

_Noreturn static inline void fc_die(const char *what)
{
	fprintf(stderr, "fake core: %s\n", what);
	abort();
}

static inline void fc_open(struct fakecore *f)
{
	struct err e = {0};
	void *p;

	memset(f, 0, sizeof(*f));
	f->page_fd = shm_create("page", DP_SIZE, &e);
	if (f->page_fd < 0 || shm_map(f->page_fd, DP_SIZE, 0, DP_SIZE, true, &p, &e))
		fc_die(e.text);
	f->page = p;
	f->ctrl = (struct dp_ctrl *)(void *)(f->page + DP_CTRL_OFF);
	f->ring = (struct dp_post *)(void *)(f->page + DP_RING_OFF);
	f->ctrl->magic = DP_MAGIC;
	f->ctrl->size = DP_SIZE;
	f->call_fd = event_create();
	f->irq_fd = event_create();
	if (f->call_fd < 0 || f->irq_fd < 0)
		fc_die("eventfd");
	f->answer_fd = word_events() ? event_create() : -1;
}

/* On PCI, with so many vectors. */
static inline void fc_vectors(struct fakecore *f, unsigned n)
{
	for (; f->nvectors < n; f->nvectors++) {
		f->vector_fd[f->nvectors] = event_create();
		if (f->vector_fd[f->nvectors] < 0)
			fc_die("eventfd");
	}
}

/* What interrupts for queue i: of a driver that takes a vector for each, after the one of the
 * configuration. */
static inline int fc_queue_irq(const struct fakecore *f, unsigned i)
{
	return f->nvectors ? f->vector_fd[(1 + i) % f->nvectors] : f->irq_fd;
}

static inline void fc_close(struct fakecore *f)
{
	for (unsigned i = 0; i < f->nvectors; i++)
		fd_close(&f->vector_fd[i]);
	shm_unmap(f->page, DP_SIZE);
	fd_close(&f->page_fd);
	fd_close(&f->call_fd);
	fd_close(&f->irq_fd);
	fd_close(&f->answer_fd);
}

/* Page and events, as they come with a start message. */
static inline struct start_fds fc_start_fds(const struct fakecore *f, int page_fd)
{
	struct start_fds s = {.n = {0}};

	start_add(&s, START_PAGE, page_fd);
	start_add(&s, START_CALL, fd_copy(f->call_fd));
	for (unsigned i = 0; i < f->nvectors; i++)
		start_add(&s, START_VECTOR, fd_copy(f->vector_fd[i]));
	if (!f->nvectors)
		start_add(&s, START_IRQ, fd_copy(f->irq_fd));
	return s;
}

/* The helper of this page, in this process. */
static inline int fc_helper_open(struct fakecore *f, struct helper *h, uint32_t tag, struct err *e)
{
	struct start_fds fds = fc_start_fds(f, fd_copy(f->page_fd));
	int rc = helper_open(h, &fds, tag, e);

	h->port.answer_event = f->answer_fd;
	return rc;
}

static inline void fc_wake(struct fakecore *f)
{
	if (atomic_load(&f->ctrl->asleep))
		event_signal(f->call_fd);
}

static inline void fc_wait_ack(struct fakecore *f)
{
	uint64_t until = clock_ns() + FC_DEADLINE_NS;

	while (atomic_load(&f->ctrl->ack_seq) != f->seq) {
		uint32_t seen;

		if (clock_ns() > until)
			fc_die("no answer");
		if (f->pump) {
			f->pump(f->arg);
			continue;
		}
		atomic_store(&f->ctrl->core_waits, 1);
		seen = atomic_load(&f->ctrl->ack_seq);
		if (seen != f->seq)
			word_wait_shared(&f->ctrl->ack_seq, seen, f->answer_fd, 1000000000u);
		atomic_store(&f->ctrl->core_waits, 0);
	}
}

/* Make a call without waiting. */
static inline void fc_call_start(struct fakecore *f, uint32_t op, uint32_t off, uint32_t size,
				 uint64_t v)
{
	f->ctrl->req_op = op;
	f->ctrl->req_offset = off;
	f->ctrl->req_size = size;
	f->ctrl->req_value = v;
	atomic_store(&f->ctrl->req_seq, ++f->seq);
	fc_wake(f);
}

static inline void fc_write(struct fakecore *f, uint32_t off, uint32_t size, uint64_t v)
{
	fc_call_start(f, DP_OP_WRITE, off, size, v);
	fc_wait_ack(f);
}

static inline uint64_t fc_read(struct fakecore *f, uint32_t off, uint32_t size)
{
	fc_call_start(f, DP_OP_READ, off, size, 0);
	fc_wait_ack(f);
	return f->ctrl->ack_value;
}

static inline void fc_post(struct fakecore *f, uint32_t off, uint32_t size, uint64_t v)
{
	if (f->head - atomic_load(&f->ctrl->ring_tail) >= DP_RING_LEN) {
		fc_write(f, off, size, v);
		return;
	}
	f->ring[f->head % DP_RING_LEN] = (struct dp_post){off, size, v};
	atomic_store(&f->ctrl->ring_head, ++f->head);
	fc_wake(f);
}

static inline uint32_t fc_shadow32(const struct fakecore *f, uint32_t off)
{
	return *(const volatile uint32_t *)(const void *)(f->page + DP_SHADOW_OFF + off);
}

static inline uint16_t fc_shadow16(const struct fakecore *f, uint32_t off)
{
	return *(const volatile uint16_t *)(const void *)(f->page + DP_SHADOW_OFF + off);
}

static inline uint64_t fc_shadow64(const struct fakecore *f, uint32_t off)
{
	return *(const volatile uint64_t *)(const void *)(f->page + DP_SHADOW_OFF + off);
}

static inline uint8_t fc_shadow8(const struct fakecore *f, uint32_t off)
{
	return *(const volatile uint8_t *)(f->page + DP_SHADOW_OFF + off);
}

#endif
