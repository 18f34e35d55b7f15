/* SPDX-License-Identifier: BSD-2-Clause */
/* The tree. See tree.h. A node is freed when its last name goes. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <insula/base.h>

#include "tree.h"

#define FIRST_BUCKETS 1024u

static int no_memory(struct err *e)
{
	return err_set(e, -ENOMEM, "it has too many files for the memory of its process");
}

/* FNV-1a; whoever makes names collide makes their own image slow, until its time is over. */
static size_t bucket(const struct tree *t, const struct node *dir, const char *name)
{
	uint64_t h = 0xcbf29ce484222325ull ^ (uintptr_t)dir;

	for (const char *p = name; *p; p++)
		h = (h ^ (uint8_t)*p) * 0x100000001b3ull;
	return (h ^ h >> 32) & (t->nbuckets - 1);
}

static int grow(struct tree *t, struct err *e)
{
	size_t old = t->nbuckets;
	struct name **was = t->table;

	/* NOLINTNEXTLINE(bugprone-sizeof-expression) */
	t->table = calloc(2 * old, sizeof(*t->table));
	if (!t->table) {
		t->table = was;
		return no_memory(e);
	}
	t->nbuckets = 2 * old;
	for (size_t i = 0; i < old; i++) {
		for (struct name *n = was[i], *next; n; n = next) {
			size_t b = bucket(t, n->dir, n->text);

			next = n->hash_next;
			n->hash_next = t->table[b];
			t->table[b] = n;
		}
	}
	free(was);
	return 0;
}

struct node *tree_node(struct tree *t, uint32_t mode)
{
	struct node *n = calloc(1, sizeof(*n));

	if (n) {
		n->mode = mode;
		n->layer = t->layer;
	}
	return n;
}

int tree_init(struct tree *t, struct err *e)
{
	*t = (struct tree){.nbuckets = FIRST_BUCKETS};
	/* NOLINTNEXTLINE(bugprone-sizeof-expression) */
	t->table = calloc(t->nbuckets, sizeof(*t->table));
	t->root = tree_node(t, S_IFDIR | 0755);
	if (!t->table || !t->root) {
		tree_free(t);
		return no_memory(e);
	}
	t->root->parent = t->root;
	t->root->nlink = 2;
	return 0;
}

void node_drop_xattrs(struct node *n)
{
	for (struct xattr *x = n->xattr, *next; x; x = next) {
		next = x->next;
		free(x);
	}
	n->xattr = NULL;
}

static void node_free(struct node *n)
{
	node_drop_xattrs(n);
	free(n->data);
	free(n);
}

/* One name less. Of a directory the names below have gone. */
static void node_put(struct node *n)
{
	if (S_ISDIR(n->mode) || --n->nlink == 0)
		node_free(n);
}

void tree_free(struct tree *t)
{
	for (size_t i = 0; t->table && i < t->nbuckets; i++) {
		for (struct name *n = t->table[i], *next; n; n = next) {
			next = n->hash_next;
			if (n->node)
				node_put(n->node);
			free(n);
		}
	}
	free(t->table);
	if (t->root)
		node_free(t->root);
	*t = (struct tree){0};
}

/* Also one that was removed. */
static struct name *find_name(const struct tree *t, const struct node *dir, const char *name)
{
	struct name *n = t->table[bucket(t, dir, name)];

	while (n && (n->dir != dir || strcmp(n->text, name) != 0))
		n = n->hash_next;
	return n;
}

struct node *tree_find(const struct tree *t, const struct node *dir, const char *name)
{
	const struct name *n = find_name(t, dir, name);

	return n ? n->node : NULL;
}

/* ---- removal ---- */

static void remove_names(struct tree *t, struct node *dir, bool all);

static void remove_name(struct tree *t, struct name *n)
{
	struct node *was = n->node;

	if (S_ISDIR(was->mode)) {
		remove_names(t, was, true);
		n->dir->nlink--;
	}
	n->node = NULL;
	n->dir->nnames--;
	node_put(was);
}

/* What is older than this layer; a directory that has become one of this layer's stays, with what
 * this layer has put into it. */
static void hide_name(struct tree *t, struct name *n)
{
	if (!n->node || (n->node->layer == t->layer && !S_ISDIR(n->node->mode)))
		return;
	if (S_ISDIR(n->node->mode))
		remove_names(t, n->node, false);
	if (n->node->layer != t->layer && (!S_ISDIR(n->node->mode) || !n->node->nnames))
		remove_name(t, n);
}

/* A removed directory's names stay in the table, under a node that is gone: they must not be found
 * again, if another one is made at its address. So they are taken out. */
static void forget(struct tree *t, struct name *n)
{
	struct name **at = &t->table[bucket(t, n->dir, n->text)];

	while (*at != n)
		at = &(*at)->hash_next;
	*at = n->hash_next;
	t->nnames--;
	free(n);
}

/* No deeper than TREE_MAX_DEPTH. */
static void remove_names(struct tree *t, struct node *dir, bool all)
{
	for (struct name *n = dir->first, *next; n; n = next) {
		next = n->next;
		if (n->node && all)
			remove_name(t, n);
		else
			hide_name(t, n);
		if (all)
			forget(t, n);
	}
	if (all)
		dir->first = dir->last = NULL;
}

void tree_hide(struct tree *t, struct node *dir, const char *name)
{
	struct name *n;

	if (!name) {
		remove_names(t, dir, false);
		return;
	}
	n = find_name(t, dir, name);
	if (n)
		hide_name(t, n);
}

/* ---- names ---- */

static int new_name(struct tree *t, struct node *dir, const char *text, struct name **out,
		    struct err *e)
{
	size_t len = strlen(text) + 1, b;
	struct name *n;

	if (t->nnames == TREE_MAX_NAMES)
		return err_set(e, -E2BIG, "more than %u files", TREE_MAX_NAMES);
	if (t->nnames >= t->nbuckets && grow(t, e))
		return -ENOMEM;
	n = calloc(1, sizeof(*n) + len);
	if (!n)
		return no_memory(e);
	memcpy(n->text, text, len);
	n->dir = dir;
	b = bucket(t, dir, text);
	n->hash_next = t->table[b];
	t->table[b] = n;
	t->nnames++;
	if (dir->last)
		dir->last->next = n;
	else
		dir->first = n;
	dir->last = n;
	*out = n;
	return 0;
}

int tree_link(struct tree *t, struct node *dir, const char *text, struct node *node, struct err *e)
{
	struct name *n = find_name(t, dir, text);
	int rc = n ? 0 : new_name(t, dir, text, &n, e);

	if (rc)
		return rc;
	if (S_ISDIR(node->mode) && dir->depth + 1 > TREE_MAX_DEPTH)
		return err_set(e, -E2BIG, "more than %d directories in each other", TREE_MAX_DEPTH);
	node->nlink++; /* before the old one goes: it may be the same */
	if (n->node)
		remove_name(t, n);
	n->node = node;
	dir->nnames++;
	if (S_ISDIR(node->mode)) {
		node->nlink = 2;
		node->parent = dir;
		node->depth = dir->depth + 1;
		dir->nlink++;
	}
	return 0;
}

int tree_dir(struct tree *t, struct node *dir, const char *name, struct node **out, struct err *e)
{
	struct node *n = tree_find(t, dir, name);
	int rc;

	if (n && S_ISDIR(n->mode)) {
		n->layer = t->layer;
		*out = n;
		return 0;
	}
	n = tree_node(t, S_IFDIR | 0755);
	if (!n)
		return no_memory(e);
	rc = tree_link(t, dir, name, n, e);
	if (rc)
		node_free(n);
	*out = rc ? NULL : n;
	return rc;
}

/* ---- paths ---- */

struct walk {
	struct tree *t;
	struct node *dir;
	char rest[2 * TREE_MAX_PATH]; /* what is still to be gone through */
	unsigned links;
};

/* The first component, cut off; "": there is none. */
static int next_component(struct walk *w, char out[TREE_MAX_NAME + 1], struct err *e)
{
	const char *from = w->rest + strspn(w->rest, "/");
	size_t len = strcspn(from, "/");

	if (len > TREE_MAX_NAME)
		return err_set(e, -ENAMETOOLONG, "a name of %zu bytes; expected at most %d", len,
			       TREE_MAX_NAME);
	memcpy(out, from, len);
	out[len] = 0;
	from += len;
	from += strspn(from, "/");
	memmove(w->rest, from, strlen(from) + 1);
	return 0;
}

static int follow(struct walk *w, const struct node *link, struct err *e)
{
	size_t len = (size_t)link->size, rest = strlen(w->rest);

	if (++w->links > TREE_MAX_LINKS)
		return err_set(e, -ELOOP, "more than %d symbolic links in a path", TREE_MAX_LINKS);
	if (len + 1 + rest >= TREE_MAX_PATH)
		return err_set(e, -ENAMETOOLONG, "a path of more than %d bytes", TREE_MAX_PATH);
	memmove(w->rest + len + 1, w->rest, rest + 1);
	memcpy(w->rest, link->data, len);
	w->rest[len] = '/';
	if (w->rest[0] == '/')
		w->dir = w->t->root;
	return 0;
}

/* Go into a directory on the way. */
static int step_into(struct walk *w, const char *name, struct err *e)
{
	struct node *n;

	if (!name[0] || !strcmp(name, "."))
		return 0;
	if (!strcmp(name, "..")) { /* of a symbolic link: those of the path have been refused */
		w->dir = w->dir->parent;
		return 0;
	}
	n = tree_find(w->t, w->dir, name);
	if (n && n->layer == w->t->layer && S_ISLNK(n->mode))
		return follow(w, n, e);
	if (n && n->layer == w->t->layer && !S_ISDIR(n->mode))
		return err_set(e, -ENOTDIR, "a name below '%.60s', which is no directory", name);
	return tree_dir(w->t, w->dir, name, &w->dir, e);
}

static bool goes_up(const char *path)
{
	while (*path) {
		size_t n;

		path += strspn(path, "/");
		n = strcspn(path, "/");
		if (n == 2 && path[0] == '.' && path[1] == '.')
			return true;
		path += n;
	}
	return false;
}

/* A last component "." is no name: "./" is the root, "a/." is a. */
static void cut_dots(char *path)
{
	size_t n = strlen(path);

	for (;;) {
		while (n && path[n - 1] == '/')
			n--;
		if (!n || path[n - 1] != '.' || (n > 1 && path[n - 2] != '/'))
			break;
		n--;
	}
	path[n] = 0;
}

int tree_parent(struct tree *t, const char *path, struct node **dir, char last[TREE_MAX_NAME + 1],
		struct err *e)
{
	struct walk w = {.t = t, .dir = t->root};
	int rc = 0;

	if (strlen(path) >= TREE_MAX_PATH)
		return err_set(e, -ENAMETOOLONG, "a path of more than %d bytes", TREE_MAX_PATH);
	if (goes_up(path))
		return err_set(e, -EINVAL, "'%.100s': a path that goes up", path);
	strcpy(w.rest, path);
	cut_dots(w.rest);
	last[0] = 0;
	while (!rc && w.rest[0]) {
		rc = next_component(&w, last, e);
		if (!rc && w.rest[0])
			rc = step_into(&w, last, e);
	}
	*dir = w.dir;
	return rc;
}

/* ---- attributes ---- */

int node_xattr(struct node *n, uint8_t index, const char *name, size_t name_len, const void *value,
	       size_t len, struct err *e)
{
	size_t all = 16 + name_len + len;
	struct xattr **at = &n->xattr, *x;

	while (*at) {
		x = *at;
		if (x->index == index && x->name_len == name_len &&
		    !memcmp(x->text, name, name_len)) {
			*at = x->next;
			free(x);
			continue;
		}
		all += 16u + x->name_len + x->len;
		at = &x->next;
	}
	if (name_len > TREE_MAX_NAME || all > TREE_MAX_XATTRS)
		return err_set(e, -E2BIG, "extended attributes of more than %u bytes",
			       TREE_MAX_XATTRS);
	x = malloc(sizeof(*x) + name_len + len);
	if (!x)
		return no_memory(e);
	*x = (struct xattr){.index = index, .name_len = (uint8_t)name_len, .len = (uint16_t)len};
	memcpy(x->text, name, name_len);
	memcpy(x->text + name_len, value, len);
	*at = x;
	return 0;
}
