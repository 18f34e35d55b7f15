/* SPDX-License-Identifier: BSD-2-Clause */
/* The control thread's part of a virtio-balloon device. See balloon.h. */
#include <errno.h>
#include <linux/virtio_ids.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include <insula/base.h>

#include "balloon.h"

#define BIT(n) (UINT64_C(1) << (n))

/* ---- what the device is ---- */

static uint64_t memory_pages(const struct memmap *m)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < m->nregions; i++)
		sum += m->region[i].size / BALLOON_PAGE;
	return sum;
}

int balloon_check_conf(const struct msg_start_balloon *m, struct err *e)
{
	uint64_t most = memory_pages(&m->head.mem);

	if (m->pages > most)
		return err_set(e, -EINVAL, "a balloon of %u pages in a guest of %llu", m->pages,
			       (unsigned long long)most);
	if (m->flags & ~(uint32_t)BALLOON_REPORT)
		return err_set(e, -EINVAL, "flags %#x", m->flags);
	return 0;
}

/* Poison is for guests that fill free pages with something (init_on_free): a driver that could not
 * say what would not report them (5.5.6.7). */
uint64_t balloon_features(uint32_t flags)
{
	uint64_t f = BIT(VIRTIO_BALLOON_F_STATS_VQ) | BIT(VIRTIO_BALLOON_F_DEFLATE_ON_OOM);

	if (flags & BALLOON_REPORT)
		f |= BIT(VIRTIO_BALLOON_F_REPORTING) | BIT(VIRTIO_BALLOON_F_PAGE_POISON);
	return f;
}

static void show_config(struct balloon *b, bool tell)
{
	b->config.actual = atomic_load(&b->st->actual);
	b->config.poison_val = atomic_load(&b->st->poison);
	front_config_changed(&b->w.front, tell);
}

static void say_state(struct balloon *b)
{
	struct msg_balloon_state s = {.actual = atomic_load(&b->st->actual),
				      .has = atomic_load(&b->has),
				      .count = atomic_load(&b->count)};

	for (unsigned i = 0; i < BALLOON_TAGS; i++)
		s.stat[i] = atomic_load(&b->stat[i]);
	b->owing = false;
	/* If it cannot be said, the supervisor is gone, and the loop sees that. */
	(void)msg_send(b->w.h->channel, MSG_BALLOON_STATE, &s, sizeof(s), NULL, 0);
}

static void balloon_model_reset(void *dev)
{
	struct balloon *b = dev;

	atomic_store(&b->st->actual, 0);
	atomic_store(&b->st->poison, 0);
	show_config(b, false);
	if (b->owing)
		say_state(b); /* the driver that was asked is gone */
}

static void balloon_model_config(void *dev, uint32_t off, uint32_t size, uint64_t val)
{
	struct balloon *b = dev;

	if (size != 4)
		return;
	if (off == offsetof(struct virtio_balloon_config, actual))
		atomic_store(&b->st->actual, (uint32_t)val);
	else if (off == offsetof(struct virtio_balloon_config, poison_val))
		atomic_store(&b->st->poison, (uint32_t)val);
	else
		return;
	show_config(b, false);
}

static void balloon_model_start(void *dev)
{
	balloon_prepare(dev);
	worker_start(dev);
}

/* ---- messages ---- */

static void asked(struct balloon *b)
{
	if (!b->w.front.v.running || !b->serves) {
		say_state(b);
		return;
	}
	b->owing = true;
	atomic_store(&b->ask, true);
	lane_wake(b->w.lane);
}

static void balloon_event(void *dev)
{
	struct balloon *b = dev;

	worker_helper_ops.event(dev);
	if (atomic_exchange(&b->told, false) && b->owing)
		say_state(b);
}

static int balloon_message(void *dev, enum msg_type type, const void *body, size_t len,
			   const int *fds, unsigned nfds)
{
	struct balloon *b = dev;
	struct msg_balloon m;

	for (unsigned i = 0; i < nfds; i++)
		close(fds[i]);
	if (nfds == 0 && type == MSG_BALLOON_ASK && len == 0) {
		asked(b);
		return 0;
	}
	if (nfds || type != MSG_BALLOON || len != sizeof(m))
		return -EPROTO;
	memcpy(&m, body, sizeof(m));
	if (m.pad || m.pages > gm_size(&b->w.gm) / BALLOON_PAGE)
		return -EPROTO;
	b->config.num_pages = m.pages;
	show_config(b, true);
	return msg_send(b->w.h->channel, MSG_BALLOON_TAKEN, NULL, 0, NULL, 0);
}

/* Another size may have been asked for while there was no process. */
static void balloon_resume(void *dev)
{
	struct balloon *b = dev;

	worker_resume(dev);
	if (b->w.h->port.resumed)
		show_config(b, true);
}

/* ---- start ---- */

void balloon_describe(struct balloon *b, const struct msg_start_balloon *m)
{
	struct balloon_page *page = b->w.h->port.dev_state;

	b->st = &page->balloon;
	if (!b->w.h->port.resumed)
		memset(b->st, 0, sizeof(*b->st));
	b->config = (struct virtio_balloon_config){.num_pages = m->pages,
						   .actual = atomic_load(&b->st->actual),
						   .poison_val = atomic_load(&b->st->poison)};
	worker_describe(&b->w, VIRTIO_ID_BALLOON, balloon_features(m->flags), BALLOON_QUEUES,
			&b->config, sizeof(b->config));
	b->w.model.start = balloon_model_start;
	b->w.model.reset = balloon_model_reset;
	b->w.model.configure = balloon_model_config;
	b->ops = worker_helper_ops;
	b->ops.resume = balloon_resume;
	b->ops.event = balloon_event;
	b->ops.message = balloon_message;
}

int balloon_open(struct balloon *b, struct helper *h, const struct msg_start_balloon *m,
		 const struct start_fds *f, const char **step, struct err *e)
{
	int rc;

	memset(b, 0, sizeof(*b));
	rc = worker_open(&b->w, h, &m->head.mem, f, BALLOON_TAG, step, e);
	if (rc)
		return rc;
	*step = "thread";
	rc = worker_begin(&b->w, balloon_io_main, &(void *){b}, e);
	if (rc)
		return rc;
	balloon_describe(b, m);
	return 0;
}
