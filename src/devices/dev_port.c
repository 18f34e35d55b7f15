/* SPDX-License-Identifier: BSD-2-Clause */
/* The helper's side of a device page. See dev_port.h. */
#include <errno.h>
#include <stddef.h>
#include <string.h>

#include <insula/base.h>

#include "dev_port.h"

_Static_assert(sizeof(struct port_state) <= PORT_STATE_LEN, "the head of the state fits");
_Static_assert(ATOMIC_INT_LOCK_FREE == 2, "the page is shared with another process");

int port_open(struct dev_port *p, void *page, uint32_t tag, struct err *e)
{
	uint8_t *base = page;
	uint32_t head;

	memset(p, 0, sizeof(*p));
	p->answer_event = -1;
	p->shadow = base + DP_SHADOW_OFF;
	p->ctrl = (struct dp_ctrl *)(base + DP_CTRL_OFF);
	p->ring = (const struct dp_post *)(base + DP_RING_OFF);
	p->state = (struct port_state *)(base + DP_STATE_OFF);
	p->dev_state = base + DP_STATE_OFF + PORT_STATE_LEN;
	if (p->ctrl->magic != DP_MAGIC || p->ctrl->size != DP_SIZE)
		return err_set(e, -EPROTO, "not a device page: magic %#x, size %#x", p->ctrl->magic,
			       p->ctrl->size);
	p->tail = atomic_load(&p->ctrl->ring_tail);
	p->ack = atomic_load(&p->ctrl->ack_seq);
	head = atomic_load(&p->ctrl->ring_head);
	if (head - p->tail > DP_RING_LEN)
		return err_set(e, -EPROTO, "posted ring: head %u, tail %u", head, p->tail);
	p->resumed = p->state->magic == PORT_STATE_MAGIC;
	if (p->resumed && p->state->tag != tag)
		return err_set(e, -EPROTO, "device page holds the state of %#x, not of %#x",
			       p->state->tag, tag);
	p->state->tag = tag;
	return 0;
}

void port_attach(struct dev_port *p, const struct dev_ops *ops, void *dev)
{
	p->ops = ops;
	p->dev = dev;
	/* The magic comes last: after a kill before it, the state is made again. */
	atomic_thread_fence(memory_order_release);
	*(volatile uint32_t *)&p->state->magic = PORT_STATE_MAGIC;
	ops->settle(dev);
}

static bool valid_size(uint32_t size)
{
	return size == 1 || size == 2 || size == 4 || size == 8;
}

/* The number of writes executed. The tail is stored after each of them, so that a kill repeats one
 * at most. */
static int run_posted(struct dev_port *p)
{
	uint32_t head = atomic_load_explicit(&p->ctrl->ring_head, memory_order_acquire);
	int n = 0;

	if (head - p->tail > DP_RING_LEN)
		return -EPROTO;
	for (; p->tail != head; n++) {
		const volatile struct dp_post *slot = &p->ring[p->tail % DP_RING_LEN];
		uint32_t offset = slot->offset, size = slot->size;
		uint64_t value = slot->value;

		if (!valid_size(size))
			return -EPROTO;
		p->ops->write(p->dev, offset, size, value);
		atomic_store_explicit(&p->ctrl->ring_tail, ++p->tail, memory_order_release);
	}
	p->posted += (uint64_t)n;
	return n;
}

static void dev_port_answer(struct dev_port *p, uint32_t seq, uint64_t value)
{
	p->ctrl->ack_value = value;
	p->ack = seq;
	/* seq_cst, as the load that follows: either the core sees the answer before it sleeps or we
	 * see that it waits. */
	atomic_store(&p->ctrl->ack_seq, seq);
	if (atomic_load(&p->ctrl->core_waits))
		word_wake_shared(&p->ctrl->ack_seq, p->answer_event);
}

static int run_call(struct dev_port *p, uint32_t seq)
{
	volatile struct dp_ctrl *c = p->ctrl;
	uint32_t op = c->req_op, offset = c->req_offset, size = c->req_size;
	uint64_t value = c->req_value;

	if (!valid_size(size))
		return -EPROTO;
	if (op == DP_OP_READ)
		value = p->ops->read(p->dev, offset, size);
	else if (op == DP_OP_WRITE)
		p->ops->write(p->dev, offset, size, value);
	else
		return -EPROTO;
	p->ops->settle(p->dev);
	p->calls++;
	dev_port_answer(p, seq, value);
	return 1;
}

/* The core may give up on an access at any time, also between our start and the moment that it
 * hears of it. */
static void look_for_lost(struct dev_port *p)
{
	uint32_t lost = atomic_load(&p->ctrl->lost); /* seq_cst, as answer(): see helper_attach() */

	if (lost == p->state->lost)
		return;
	if (p->ops->lost)
		p->ops->lost(p->dev);
	p->state->lost = lost;
}

int port_run(struct dev_port *p)
{
	/* First the call, then the ring: what was posted before the call is then sure to be seen.
	 */
	uint32_t seq = atomic_load_explicit(&p->ctrl->req_seq, memory_order_acquire);
	int n, k = 0;

	look_for_lost(p);
	n = run_posted(p);
	if (n > 0)
		p->ops->settle(p->dev);
	/* More than one call ahead: the core gave up on the older ones. The newest is the one in
	 * the slot. */
	if (n >= 0 && seq != p->ack)
		k = run_call(p, seq);
	return n < 0 ? n : k < 0 ? k : n + k;
}

bool port_may_sleep(struct dev_port *p)
{
	atomic_store(&p->ctrl->asleep, 1);
	if (atomic_load(&p->ctrl->ring_head) == p->tail && atomic_load(&p->ctrl->req_seq) == p->ack)
		return true;
	port_awake(p);
	return false;
}

void port_awake(struct dev_port *p)
{
	atomic_store(&p->ctrl->asleep, 0);
}
