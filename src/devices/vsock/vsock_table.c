/* SPDX-License-Identifier: BSD-2-Clause */
/* The connection table. See vsock_table.h. */
#include <string.h>

#include <insula/err.h>

#include "vsock_table.h"

_Static_assert(VSOCK_MAX_CONNS < VCONN_NONE, "slots have 16-bit numbers");
_Static_assert((VCONN_BUCKETS & (VCONN_BUCKETS - 1)) == 0, "a mask");

static uint16_t slot_of(const struct vconns *t, const struct vconn *c)
{
	return (uint16_t)(c - t->conn);
}

static struct vconn *at(struct vconns *t, uint16_t slot)
{
	return slot == VCONN_NONE ? NULL : &t->conn[slot];
}

void vconn_init(struct vconns *t)
{
	if (t->max == 0 || t->max > VSOCK_MAX_CONNS)
		panic("a table of %u connections", t->max);
	t->used = t->timed = t->asked = t->nfresh = t->nstrays = t->stray = 0;
	t->free = VCONN_NONE;
	t->next_port = VCONN_FIRST_PORT;
	for (unsigned i = 0; i < VCONN_LISTS; i++)
		t->list[i].first = t->list[i].last = VCONN_NONE;
	memset(t->bucket, 0xff, sizeof(t->bucket));
	memset(&t->stat, 0, sizeof(t->stat));
}

bool vconn_has_room(const struct vconns *t)
{
	return t->used < t->max;
}

uint32_t vconn_id(const struct vconns *t, const struct vconn *c)
{
	return (uint32_t)c->gen << 16 | slot_of(t, c);
}

struct vconn *vconn_find_id(struct vconns *t, uint32_t id)
{
	uint16_t slot = (uint16_t)id;
	struct vconn *c = slot < t->nfresh ? &t->conn[slot] : NULL;

	return c && c->state != VCONN_FREE && c->gen == id >> 16 ? c : NULL;
}

struct vconn *vtab_new(struct vconns *t, enum vconn_state state, int fd)
{
	uint16_t slot = t->free == VCONN_NONE ? (uint16_t)t->nfresh++ : t->free;
	struct vconn *c = &t->conn[slot];
	uint16_t gen = c->gen;

	if (t->free != VCONN_NONE)
		t->free = c->next;
	*c = (struct vconn){.state = (uint8_t)state, .fd = fd, .gen = gen, .readable = true};
	t->used++;
	return c;
}

/* ---- by ports ---- */

/* A guest can choose ports that share a bucket: its packets then take longer, at most as long as
 * the table is. */
static uint16_t *bucket(struct vconns *t, uint32_t guest_port, uint32_t host_port)
{
	uint32_t h = guest_port * 0x9e3779b1u ^ host_port * 0x85ebca6bu;

	return &t->bucket[(h ^ h >> 15) & (VCONN_BUCKETS - 1)];
}

static bool has_name(const struct vconn *c)
{
	return c->state != VCONN_FREE && c->state != VCONN_HELLO && c->state != VCONN_LINGER;
}

struct vconn *vtab_find(struct vconns *t, uint32_t guest_port, uint32_t host_port)
{
	struct vconn *c = at(t, *bucket(t, guest_port, host_port));

	while (c && (c->guest_port != guest_port || c->host_port != host_port))
		c = at(t, c->hash_next);
	return c;
}

void vtab_name(struct vconns *t, struct vconn *c, uint32_t guest_port, uint32_t host_port)
{
	uint16_t *b = bucket(t, guest_port, host_port);

	c->guest_port = guest_port;
	c->host_port = host_port;
	c->hash_next = *b;
	*b = slot_of(t, c);
}

void vtab_unname(struct vconns *t, struct vconn *c)
{
	uint16_t *p = bucket(t, c->guest_port, c->host_port), slot = slot_of(t, c);

	while (*p != slot)
		p = &t->conn[*p].hash_next;
	*p = c->hash_next;
}

void vtab_deadline(struct vconns *t, struct vconn *c, uint64_t from_now)
{
	t->timed -= c->deadline != 0;
	c->deadline = from_now ? t->now + from_now : 0;
	t->timed += c->deadline != 0;
}

/* ---- lists ---- */

void vtab_list(struct vconns *t, struct vconn *c, enum vconn_list l)
{
	uint16_t last = t->list[l].last;

	c->listed = (uint8_t)l;
	c->prev = last;
	c->next = VCONN_NONE;
	t->list[l].last = slot_of(t, c);
	if (last == VCONN_NONE)
		t->list[l].first = slot_of(t, c);
	else
		t->conn[last].next = slot_of(t, c);
}

void vtab_unlist(struct vconns *t, struct vconn *c)
{
	unsigned l = c->listed;

	if (l == VCONN_UNLISTED)
		return;
	c->listed = VCONN_UNLISTED;
	if (c->prev == VCONN_NONE)
		t->list[l].first = c->next;
	else
		t->conn[c->prev].next = c->next;
	if (c->next == VCONN_NONE)
		t->list[l].last = c->prev;
	else
		t->conn[c->next].prev = c->prev;
}

struct vconn *vtab_first(struct vconns *t, enum vconn_list l)
{
	return at(t, t->list[l].first);
}

/* ---- credit and turns ---- */

uint32_t vtab_credit(const struct vconn *c)
{
	uint32_t flying = c->sent - c->peer_fwd;

	return flying < c->peer_alloc ? c->peer_alloc - flying : 0;
}

bool vtab_reads(const struct vconn *c)
{
	return c->state == VCONN_OPEN && c->readable &&
	       !(c->guest_shut & VIRTIO_VSOCK_SHUTDOWN_RCV) &&
	       !(c->host_shut & VIRTIO_VSOCK_SHUTDOWN_SEND);
}

void vtab_wake(struct vconns *t, struct vconn *c)
{
	bool reads = vtab_reads(c), credit = vtab_credit(c) != 0;

	if (credit)
		c->stalled = false;
	if (reads && !credit && !c->stalled) {
		c->stalled = true;
		c->owes |= OWES_CREDIT_REQUEST;
		t->stat.stalls++;
	}
	if (c->listed == VCONN_UNLISTED && (c->owes || (reads && credit)))
		vtab_list(t, c, VCONN_RUN);
}

/* Whatever the guest sends, it gets at most four updates for a ring's worth of bytes; and a guest
 * without credit, whose ring is empty, is owed one. */
void vtab_owe_credit(struct vconns *t, struct vconn *c)
{
	if (c->fwd - c->told_fwd >= vtab_ring_size(t, c) / 4) {
		c->owes |= OWES_CREDIT;
		vtab_wake(t, c);
	}
}

/* ---- rings ---- */

uint32_t vtab_ring_size(const struct vconns *t, const struct vconn *c)
{
	return slot_of(t, c) < VCONN_BIG_RINGS ? VCONN_BIG_RING : VCONN_SMALL_RING;
}

static uint8_t *ring_of(const struct vconns *t, const struct vconn *c)
{
	size_t slot = slot_of(t, c);

	if (slot < VCONN_BIG_RINGS)
		return t->rings + slot * VCONN_BIG_RING;
	return t->rings + VCONN_BIG_RINGS * VCONN_BIG_RING +
	       (slot - VCONN_BIG_RINGS) * VCONN_SMALL_RING;
}

void vtab_ring_put(struct vconns *t, struct vconn *c, uint32_t at_byte, const uint8_t *data,
		   size_t len)
{
	uint32_t size = vtab_ring_size(t, c), pos = at_byte & (size - 1);
	size_t first = len < size - pos ? len : size - pos;

	c->dirty = true;
	memcpy(ring_of(t, c) + pos, data, first);
	memcpy(ring_of(t, c), data + first, len - first);
}

unsigned vtab_ring_get(const struct vconns *t, const struct vconn *c, struct iovec iov[2])
{
	uint32_t size = vtab_ring_size(t, c), pos = c->fwd & (size - 1), len = c->received - c->fwd;
	uint32_t first = len < size - pos ? len : size - pos;

	iov[0] = (struct iovec){ring_of(t, c) + pos, first};
	iov[1] = (struct iovec){ring_of(t, c), len - first};
	return len > first ? 2 : 1;
}

/* ---- ends ---- */

void vtab_watch(struct vconns *t, struct vconn *c)
{
	bool want = c->fwd != c->received;

	if (want != c->watched)
		t->ops->watch(t->ctx, c, want);
	c->watched = want;
}

void vtab_close(struct vconns *t, struct vconn *c)
{
	if (c->fd >= 0)
		t->ops->close(t->ctx, c);
	c->fd = -1;
	c->fwd = c->received; /* nobody takes it any more */
	if (c->dirty)
		t->ops->forget(t->ctx, ring_of(t, c), vtab_ring_size(t, c));
	c->dirty = false;
}

void vtab_release(struct vconns *t, struct vconn *c)
{
	vtab_close(t, c);
	vtab_unlist(t, c);
	vtab_deadline(t, c, 0);
	if (has_name(c))
		vtab_unname(t, c);
	c->state = VCONN_FREE;
	c->gen++;
	c->next = t->free;
	t->free = slot_of(t, c);
	t->used--;
}

void vtab_reset(struct vconns *t, struct vconn *c)
{
	vtab_close(t, c);
	vtab_unlist(t, c); /* perhaps of those that wait for the supervisor */
	vtab_deadline(t, c, 0);
	c->state = VCONN_DEAD;
	c->owes = OWES_RST;
	vtab_wake(t, c);
}

void vtab_host_shut(struct vconns *t, struct vconn *c, uint8_t what)
{
	if ((c->host_shut & what) == what)
		return;
	c->host_shut |= what;
	if (c->host_shut & VIRTIO_VSOCK_SHUTDOWN_RCV) {
		/* Nobody takes what is in the ring. */
		c->fwd = c->received;
		vtab_watch(t, c);
	}
	c->owes |= OWES_SHUTDOWN;
	if (c->host_shut == VSOCK_SHUT_BOTH) {
		vtab_close(t, c);
		c->state = VCONN_GONE;
	}
	vtab_wake(t, c);
}

void vtab_ask(struct vconns *t)
{
	struct vconn *c;

	while (t->asked < VSOCK_MAX_ASKED && (c = vtab_first(t, VCONN_ASK))) {
		vtab_unlist(t, c);
		t->asked++;
		t->ops->ask(t->ctx, vconn_id(t, c), c->host_port);
	}
}

void vconn_drop_all(struct vconns *t)
{
	for (unsigned i = 0; i < t->nfresh; i++) {
		if (t->conn[i].state != VCONN_FREE)
			vtab_release(t, &t->conn[i]);
	}
	t->nstrays = 0;
}
