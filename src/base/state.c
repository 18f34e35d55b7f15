/* SPDX-License-Identifier: BSD-2-Clause */
/* Records of state. See insula/state.h. */
#include <errno.h>
#include <string.h>

#include <insula/state.h>

/* FNV-1a: no change of a single byte leaves it as it was. */
static uint32_t add_to_sum(uint32_t sum, const void *p, size_t n)
{
	for (const uint8_t *b = p; n; b++, n--)
		sum = (sum ^ *b) * 16777619u;
	return sum;
}

static size_t padded(uint32_t size)
{
	return ((size_t)size + 7) & ~(size_t)7;
}

uint64_t state_size(const struct state_head *h)
{
	return sizeof(*h) + padded(h->size);
}

/* `body` with the zeros behind it. */
static uint32_t sum_of(struct state_head h, const void *body)
{
	h.sum = 0;
	return add_to_sum(add_to_sum(2166136261u, &h, sizeof(h)), body, padded(h.size));
}

int state_put(struct state_out *o, uint32_t type, uint32_t version, uint32_t index,
	      const void *body, uint32_t size)
{
	struct state_head h = {.type = type, .version = version, .index = index, .size = size};
	uint8_t *at = o->at + o->len;

	if (o->room - o->len < sizeof(h) || o->room - o->len - sizeof(h) < padded(size))
		return -ENOSPC;
	memset(at + sizeof(h), 0, padded(size));
	memcpy(at + sizeof(h), body, size);
	h.sum = sum_of(h, at + sizeof(h));
	memcpy(at, &h, sizeof(h));
	o->len += sizeof(h) + padded(size);
	return 0;
}

/* The head of the record that the `left` bytes begin with, whole and undamaged. */
static int read_head(const uint8_t *at, size_t left, struct state_head *h, struct err *e)
{
	if (left < sizeof(*h))
		return err_set(e, -EPROTO, "state: %zu bytes behind the last record", left);
	memcpy(h, at, sizeof(*h));
	if (padded(h->size) > left - sizeof(*h))
		return err_set(e, -EPROTO,
			       "state: a record of %u bytes (type 0x%x), but only %zu are there",
			       h->size, h->type, left - sizeof(*h));
	if (h->zero || h->sum != sum_of(*h, at + sizeof(*h)))
		return err_set(e, -EPROTO, "state: a record (type 0x%x) is damaged", h->type);
	return 0;
}

static int check_part(const struct state_part *p, const struct state_head *h, uint32_t index,
		      struct err *e)
{
	if (p->body)
		return err_set(e, -EPROTO, "state: there are two records of %s", p->name);
	if (h->version != p->version)
		return err_set(e, -EPROTO, "state: %s of version %u, expected %u", p->name,
			       h->version, p->version);
	if (h->index != index)
		return err_set(e, -EPROTO, "state: %s of number %u, expected %u", p->name, h->index,
			       index);
	if (p->unit ? h->size > p->size || h->size % p->unit : h->size != p->size)
		return err_set(e, -EPROTO, "state: %s of %u bytes, expected %s%u", p->name, h->size,
			       p->unit ? "a list of at most " : "", p->size);
	return 0;
}

static struct state_part *part_of(struct state_part *p, size_t n, uint32_t type)
{
	for (size_t i = 0; i < n; i++)
		if (p[i].type == type)
			return &p[i];
	return NULL;
}

int state_take(const void *buf, size_t len, uint32_t index, struct state_part *p, size_t n,
	       struct err *e)
{
	const uint8_t *at = buf, *end = at + len;
	struct state_head h = {0};

	for (size_t i = 0; i < n; i++)
		p[i].body = NULL;
	for (; at < end; at += state_size(&h)) {
		int r = read_head(at, (size_t)(end - at), &h, e);
		struct state_part *part = r < 0 ? NULL : part_of(p, n, h.type);

		if (r < 0)
			return r;
		if (!part)
			return err_set(e, -EPROTO, "state: a record of the unknown type 0x%x",
				       h.type);
		r = check_part(part, &h, index, e);
		if (r < 0)
			return r;
		part->body = at + sizeof(h);
		part->len = h.size;
	}
	for (size_t i = 0; i < n; i++)
		if (!p[i].body)
			return err_set(e, -EPROTO, "state: there is no record of %s", p[i].name);
	return 0;
}
