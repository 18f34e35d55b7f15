/* SPDX-License-Identifier: BSD-2-Clause */
/* The control thread's part of a virtio-mem device. See mem.h. */
#include <errno.h>
#include <linux/virtio_ids.h>
#include <string.h>
#include <unistd.h>

#include <insula/base.h>

#include "mem.h"

#define INACCESSIBLE (UINT64_C(1) << VIRTIO_MEM_F_UNPLUGGED_INACCESSIBLE)

/* ---- what the device is ---- */

/* The one region; NULL: there is none, or more than one. */
static const struct mem_region *added_of(const struct memmap *m)
{
	const struct mem_region *found = NULL;
	unsigned n = 0;

	for (uint32_t i = 0; i < m->nregions; i++) {
		if (!(m->region[i].flags & MEMMAP_ADDED))
			continue;
		found = &m->region[i];
		n++;
	}
	return n == 1 ? found : NULL;
}

int vmem_check_conf(const struct msg_start_mem *m, struct err *e)
{
	const struct mem_region *r = added_of(&m->head.mem);
	uint64_t block = r ? memmap_block(r->size) : 0;

	if (!r)
		return err_set(e, -EINVAL, "a memory map without one region that is added");
	if (r->size % block || r->gpa % block)
		return err_set(e, -EINVAL,
			       "a region of 0x%llx bytes at 0x%llx; expected blocks of 0x%llx",
			       (unsigned long long)r->size, (unsigned long long)r->gpa,
			       (unsigned long long)block);
	if (m->requested > r->size || m->requested % block)
		return err_set(e, -EINVAL,
			       "0x%llx bytes requested; expected blocks of 0x%llx, at most 0x%llx",
			       (unsigned long long)m->requested, (unsigned long long)block,
			       (unsigned long long)r->size);
	return 0;
}

static void show(struct vmem *b, bool tell)
{
	b->config.plugged_size = atomic_load(&b->plugged);
	b->config.requested_size = atomic_load(&b->requested);
	front_config_changed(&b->w.front, tell);
}

/* ---- messages ---- */

static void say_if_new(struct vmem *b)
{
	struct msg_mem_state s = {.plugged = atomic_load(&b->plugged)};

	if (!b->owing || s.plugged == b->known)
		return;
	b->owing = false;
	/* If it cannot be said, the supervisor is gone, and the loop sees that. */
	(void)msg_send(b->w.h->channel, MSG_MEM_STATE, &s, sizeof(s), NULL, 0);
}

/* What is there now, to the driver and to the supervisor. */
static void show_changes(struct vmem *b, uint32_t at)
{
	show(b, false);
	atomic_store(&b->shown, at);
	say_if_new(b);
}

/* The blocks stay as they are; what was half done stays half done. */
static void vmem_model_reset(void *dev)
{
	struct vmem *b = dev;

	b->st->now.busy = 0;
	show_changes(b, atomic_load(&b->changes));
}

static void vmem_model_start(void *dev)
{
	vmem_prepare(dev);
	worker_start(dev);
}

void vmem_event(void *dev)
{
	struct vmem *b = dev;
	uint32_t at = atomic_load(&b->changes);

	/* First: what rests has no more changes. */
	if (at != atomic_load(&b->shown)) {
		show_changes(b, at);
		lane_wake(b->w.lane);
	}
	worker_helper_ops.event(dev);
}

static int vmem_message(void *dev, enum msg_type type, const void *body, size_t len, const int *fds,
			unsigned nfds)
{
	struct vmem *b = dev;
	struct msg_mem m;
	int rc;

	for (unsigned i = 0; i < nfds; i++)
		close(fds[i]);
	if (nfds || type != MSG_MEM || len != sizeof(m))
		return -EPROTO;
	memcpy(&m, body, sizeof(m));
	if (m.requested > b->region || m.requested % b->block)
		return -EPROTO;
	if (m.requested != atomic_load(&b->requested)) {
		atomic_store(&b->requested, m.requested);
		show(b, true);
	}
	b->owing = true;
	b->known = m.known;
	rc = msg_send(b->w.h->channel, MSG_MEM_TAKEN, NULL, 0, NULL, 0);
	say_if_new(b);
	return rc;
}

/* Another size may have been asked for while there was no process. */
static void vmem_resume(void *dev)
{
	struct vmem *b = dev;

	worker_resume(dev);
	if (b->w.h->port.resumed)
		show(b, true);
}

/* ---- start ---- */

/* Whatever an earlier helper left: a bit beyond the last block would count. */
static int take_state(struct vmem *b, struct err *e)
{
	struct vmem_page *page = b->w.h->port.dev_state;
	const size_t last = b->nblocks / 64; /* the word in which they end */

	b->st = &page->mem;
	if (!b->w.h->port.resumed) {
		memset(b->st, 0, sizeof(*b->st));
		b->st->nblocks = b->nblocks;
		b->st->block = b->block;
	}
	if (b->st->nblocks != b->nblocks || b->st->block != b->block)
		return err_set(e, -EPROTO, "%llu blocks of 0x%llx bytes; expected %u of 0x%llx",
			       (unsigned long long)b->st->nblocks, (unsigned long long)b->st->block,
			       b->nblocks, (unsigned long long)b->block);
	if (last < ARRAY_LEN(b->st->map)) {
		b->st->map[last] &= (UINT64_C(1) << b->nblocks % 64) - 1;
		memset(&b->st->map[last + 1], 0, sizeof(b->st->map) - (last + 1) * 8);
	}
	atomic_store(&b->plugged, vmem_count(b->st, 0, b->nblocks) * b->block);
	return 0;
}

int vmem_describe(struct vmem *b, const struct msg_start_mem *m, struct err *e)
{
	const struct mem_region *r = added_of(&m->head.mem);
	int rc;

	b->region = r->size;
	b->block = memmap_block(r->size);
	b->nblocks = (uint32_t)(r->size / b->block);
	b->gpa = r->gpa;
	b->host = gm_ptr(&b->w.gm, r->gpa, r->size);
	rc = take_state(b, e);
	if (rc)
		return rc;
	atomic_store(&b->requested, m->requested);
	b->config = (struct virtio_mem_config){.block_size = b->block,
					       .addr = b->gpa,
					       .region_size = b->region,
					       .usable_region_size = b->region,
					       .plugged_size = atomic_load(&b->plugged),
					       .requested_size = m->requested};
	worker_describe(&b->w, VIRTIO_ID_MEM, INACCESSIBLE, VMEM_QUEUES, &b->config,
			sizeof(b->config));
	b->w.model.start = vmem_model_start;
	b->w.model.reset = vmem_model_reset;
	b->ops = worker_helper_ops;
	b->ops.resume = vmem_resume;
	b->ops.event = vmem_event;
	b->ops.message = vmem_message;
	return 0;
}

int vmem_open(struct vmem *b, struct helper *h, const struct msg_start_mem *m,
	      const struct start_fds *f, const char **step, struct err *e)
{
	int rc;

	memset(b, 0, sizeof(*b));
	rc = worker_open(&b->w, h, &m->head.mem, f, VMEM_TAG, step, e);
	if (rc)
		return rc;
	*step = "thread";
	rc = worker_begin(&b->w, vmem_io_main, &(void *){b}, e);
	if (rc)
		return rc;
	*step = "state";
	return vmem_describe(b, m, e);
}
