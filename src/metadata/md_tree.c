/* SPDX-License-Identifier: BSD-2-Clause */
/* The tree that is served. See metadata.h. insula-run has made it; all the same each offset is looked
 * at once, so that nothing later can lead out of it. */
#include <errno.h>
#include <string.h>

#include "metadata.h"

static bool piece_fits(const struct metadata_piece *p, uint32_t bytes)
{
	return p->off <= bytes && p->len <= bytes - p->off;
}

/* Nodes nest: what is in an object ends where it ends. Deeper than METADATA_DEPTH is refused. */
static bool nodes_nest(const struct metadata_node *n, uint32_t count)
{
	uint32_t end[METADATA_DEPTH + 1];
	unsigned depth = 0;

	end[0] = count;
	for (uint32_t i = 0; i < count; i++) {
		while (depth && end[depth] == i)
			depth--;
		if (n[i].next <= i || n[i].next > end[depth] || (depth == 0 && i > 0))
			return false;
		if (n[i].kind != METADATA_OBJECT) {
			if (n[i].next != i + 1 || i == 0)
				return false;
			continue;
		}
		if (depth == METADATA_DEPTH)
			return false;
		end[++depth] = n[i].next;
	}
	return n[0].next == count;
}

int md_tree_check(struct md_tree *t, const void *at, size_t len, struct err *e)
{
	const struct metadata_node *n =
		(const void *)((const char *)at + sizeof(struct metadata_head));
	const struct metadata_head *h = at;

	if (len < sizeof(*h) || h->magic != METADATA_MAGIC || !h->nodes ||
	    h->nodes > METADATA_BLOB_MAX / sizeof(*n) || h->bytes > METADATA_BLOB_MAX ||
	    len != sizeof(*h) + h->nodes * sizeof(*n) + h->bytes)
		return err_set(e, -EINVAL, "a tree of %zu bytes", len);
	for (uint32_t i = 0; i < h->nodes; i++) {
		if (n[i].kind < METADATA_OBJECT || n[i].kind > METADATA_OTHER ||
		    !piece_fits(&n[i].name, h->bytes) || !piece_fits(&n[i].text, h->bytes) ||
		    !piece_fits(&n[i].json, h->bytes) || n[i].json.len > METADATA_JSON_MAX ||
		    n[i].text.len > METADATA_JSON_MAX)
			return err_set(e, -EINVAL, "a tree whose node %u cannot be", i);
	}
	if (!nodes_nest(n, h->nodes))
		return err_set(e, -EINVAL, "a tree that does not nest");
	*t = (struct md_tree){n, h->nodes, (const char *)(n + h->nodes)};
	return 0;
}

static bool member(const struct md_tree *t, uint32_t object, const char *name, size_t len,
		   uint32_t *out)
{
	const struct metadata_node *n = t->node;

	if (n[object].kind != METADATA_OBJECT)
		return false;
	for (uint32_t i = object + 1; i < n[object].next; i = n[i].next) {
		if (n[i].name.len == len && !memcmp(t->text + n[i].name.off, name, len)) {
			*out = i;
			return true;
		}
	}
	return false;
}

/* 2021-03-23, and EC2's first version, 1.0. */
static bool is_version(const char *s, size_t len)
{
	if (len == 3)
		return !memcmp(s, "1.0", 3);
	for (size_t i = 0; i < len; i++) {
		if (i == 4 || i == 7 ? s[i] != '-' : s[i] < '0' || s[i] > '9')
			return false;
	}
	return len == 10;
}

enum md_found md_tree_find(const struct md_tree *t, const char *path, size_t len, uint32_t *node)
{
	*node = 0;
	for (bool first = true;; first = false) {
		size_t n;

		while (len && *path == '/') {
			path++;
			len--;
		}
		if (!len)
			return MD_FOUND;
		for (n = 0; n < len && path[n] != '/'; n++)
			;
		if (!member(t, *node, path, n, node) &&
		    !(first && is_version(path, n) && member(t, *node, "latest", 6, node)))
			return MD_NOWHERE;
		path += n;
		len -= n;
	}
}

static size_t put(char *out, size_t size, size_t at, const char *s, size_t n)
{
	if (at < size)
		memcpy(out + at, s, n < size - at ? n : size - at);
	return at + n;
}

size_t md_tree_list(const struct md_tree *t, uint32_t node, char *out, size_t size)
{
	const struct metadata_node *n = t->node;
	size_t at = 0;

	for (uint32_t i = node + 1; i < n[node].next; i = n[i].next) {
		if (at)
			at = put(out, size, at, "\n", 1);
		at = put(out, size, at, t->text + n[i].name.off, n[i].name.len);
		if (n[i].kind == METADATA_OBJECT)
			at = put(out, size, at, "/", 1);
	}
	return at;
}
