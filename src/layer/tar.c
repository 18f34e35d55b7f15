/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Reads a layer. See tar.h.
 *
 * An entry is a header of 512 bytes, before it perhaps pax records or GNU's long names, which
 * override parts of it, and behind it its data. Anything that is not understood in full is refused:
 * a reader that guesses sees another file system than the next one.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <insula/base.h>

#include "tar.h"

#define RECORD 512u
#define PAX_MAX (1u << 20) /* bytes of the records of an entry: attributes may be some 64 KiB */
#define MAX_ID 0xfffffffeull
#define WHITEOUT ".wh."
#define WHITEOUT_OWN ".wh..wh." /* what aufs kept for itself; nobody unpacks it */
#define OPAQUE ".wh..wh..opq"

struct header {
	char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], checksum[8], type;
	char link[100], magic[6], version[2], uname[32], gname[32], major[8], minor[8];
	char prefix[155], pad[12];
};
_Static_assert(sizeof(struct header) == RECORD, "as it is in the archive");

/* What an entry has in the end. */
struct entry {
	char path[TREE_MAX_PATH], link[TREE_MAX_PATH];
	char type;
	bool has_path, has_link, has_size, has_uid, has_gid, has_mtime;
	uint64_t size, uid, gid, mode, major, minor;
	int64_t mtime;
	uint32_t mtime_ns;
	struct node attributes; /* holds those of the pax records */
};

static int wrong(const struct entry *n, struct err *e, const char *what)
{
	return err_set(e, -EINVAL, "'%.120s': %s", n->path, what);
}

/* ---- numbers ---- */

/* Octal digits, or with the highest bit set a binary number. False: neither, or too large. */
static bool number(const char *field, size_t len, uint64_t *out)
{
	const uint8_t *p = (const uint8_t *)field;
	size_t i = 0;

	*out = 0;
	if (p[0] & 0x80) {
		if (p[0] & 0x40)
			return false; /* negative */
		for (i = 0; i < len; i++) {
			if (*out >> 55)
				return false;
			*out = *out << 8 | (i ? p[i] : p[i] & 0x3f);
		}
		return true;
	}
	while (i < len && p[i] == ' ')
		i++;
	for (; i < len && p[i] >= '0' && p[i] <= '7'; i++)
		*out = *out << 3 | (uint64_t)(p[i] - '0');
	for (; i < len; i++) {
		if (p[i] && p[i] != ' ')
			return false;
	}
	return true;
}

/* A whole number in decimal, up to `end`. */
static bool decimal(const char *p, const char *end, uint64_t *out)
{
	*out = 0;
	if (p == end)
		return false;
	for (; p < end; p++) {
		if (*p < '0' || *p > '9' || *out > (UINT64_MAX >> 1) / 10 - 1)
			return false;
		*out = *out * 10 + (uint64_t)(*p - '0');
	}
	return true;
}

/* "-12.345": seconds and nanoseconds. */
static bool pax_time(const char *p, const char *end, int64_t *sec, uint32_t *ns)
{
	const char *dot = memchr(p, '.', (size_t)(end - p));
	bool minus = p < end && *p == '-';
	uint32_t unit = 100000000;
	uint64_t n;

	p += minus;
	if (!decimal(p, dot && dot > p ? dot : end, &n))
		return false;
	*sec = minus ? -(int64_t)n : (int64_t)n;
	*ns = 0;
	for (const char *q = dot ? dot + 1 : end; q < end; q++, unit /= 10) {
		if (*q < '0' || *q > '9')
			return false;
		*ns += (uint32_t)(*q - '0') * unit;
	}
	if (minus && *ns) {
		*sec -= 1;
		*ns = 1000000000 - *ns;
	}
	return true;
}

/* ---- pax ---- */

static const struct {
	const char *prefix;
	uint8_t index;
	bool whole;
} xattr_names[] = {
	{"system.posix_acl_access", EROFS_XATTR_ACL_ACCESS, true},
	{"system.posix_acl_default", EROFS_XATTR_ACL_DEFAULT, true},
	{"user.", EROFS_XATTR_USER, false},
	{"trusted.", EROFS_XATTR_TRUSTED, false},
	{"security.", EROFS_XATTR_SECURITY, false},
};

/* overlayfs believes what its own attributes say; a layer has no business with them. */
#define OVERLAY_OWN "trusted.overlay."

static int take_xattr(struct entry *n, const char *name, const char *value, size_t len,
		      struct err *e)
{
	if (!strncmp(name, OVERLAY_OWN, strlen(OVERLAY_OWN)))
		return 0;
	for (size_t i = 0; i < ARRAY_LEN(xattr_names); i++) {
		const char *rest = name + strlen(xattr_names[i].prefix);

		if (strncmp(name, xattr_names[i].prefix, strlen(xattr_names[i].prefix)) != 0 ||
		    xattr_names[i].whole != !*rest)
			continue;
		return node_xattr(&n->attributes, xattr_names[i].index, rest, strlen(rest), value,
				  len, e);
	}
	return 0; /* of a kind that the image cannot have */
}

static int take_text(char out[TREE_MAX_PATH], const char *value, size_t len, bool *has,
		     const char *what, struct err *e)
{
	if (!len || len >= TREE_MAX_PATH || memchr(value, 0, len))
		return err_set(e, -EINVAL, "a %s of %zu bytes; expected 1 to %d without NUL", what,
			       len, TREE_MAX_PATH - 1);
	memcpy(out, value, len);
	out[len] = 0;
	*has = true;
	return 0;
}

static int pax_value(struct entry *n, const char *key, const char *value, size_t len, struct err *e)
{
	static const char xattr[] = "SCHILY.xattr.";
	const char *end = value + len;
	bool ok = true;

	if (!strcmp(key, "path"))
		return take_text(n->path, value, len, &n->has_path, "path", e);
	if (!strcmp(key, "linkpath"))
		return take_text(n->link, value, len, &n->has_link, "link", e);
	if (!strncmp(key, xattr, sizeof(xattr) - 1))
		return take_xattr(n, key + sizeof(xattr) - 1, value, len, e);
	if (!strncmp(key, "GNU.sparse.", 11))
		return err_set(e, -EINVAL, "a sparse file of GNU tar; expected all of its data");
	if (!strcmp(key, "size"))
		ok = n->has_size = decimal(value, end, &n->size);
	else if (!strcmp(key, "uid"))
		ok = n->has_uid = decimal(value, end, &n->uid);
	else if (!strcmp(key, "gid"))
		ok = n->has_gid = decimal(value, end, &n->gid);
	else if (!strcmp(key, "mtime"))
		ok = n->has_mtime = pax_time(value, end, &n->mtime, &n->mtime_ns);
	return ok ? 0
		  : err_set(e, -EINVAL, "pax record %.20s '%.*s'", key, (int)(len < 40 ? len : 40),
			    value);
}

/* "LENGTH KEY=VALUE\n", the length that of the whole record. */
static int take_pax(struct entry *n, char *text, size_t len, struct err *e)
{
	int rc = 0;

	for (size_t at = 0; at < len && !rc;) {
		char *blank = memchr(text + at, ' ', len - at), *key, *equals;
		uint64_t size = 0;

		if (!blank || blank - (text + at) > 10 || !decimal(text + at, blank, &size) ||
		    size > len - at || size < (size_t)(blank - (text + at)) + 4 ||
		    text[at + size - 1] != '\n')
			return err_set(e, -EINVAL, "pax records that are malformed");
		key = blank + 1;
		equals = memchr(key, '=', (size_t)(text + at + size - 1 - key));
		if (!equals || equals == key || memchr(key, 0, (size_t)(equals - key)))
			return err_set(e, -EINVAL, "a pax record without a key");
		*equals = 0;
		rc = pax_value(n, key, equals + 1, (size_t)(text + at + size - 1 - equals - 1), e);
		at += size;
	}
	return rc;
}

/* ---- what stands before an entry ---- */

static int skip(const struct tar *t, uint64_t len, struct err *e)
{
	while (len) {
		const uint8_t *at;
		long n = source_some(t->source, len < SIZE_MAX ? (size_t)len : SIZE_MAX, &at, e);

		if (n <= 0)
			return n ? (int)n : err_set(e, -EINVAL, "it ends too early");
		len -= (uint64_t)n;
	}
	return 0;
}

static uint64_t padding(uint64_t size)
{
	return (RECORD - size % RECORD) % RECORD;
}

/* The body of such an entry, with a NUL behind it; the caller's. */
static int read_body(const struct tar *t, uint64_t size, char **out, struct err *e)
{
	int rc;

	if (size > PAX_MAX)
		return err_set(e, -EINVAL, "pax records of %llu bytes; expected at most %u",
			       (unsigned long long)size, PAX_MAX);
	*out = malloc(size + 1);
	if (!*out)
		return err_set(e, -ENOMEM, "out of memory");
	rc = source_read(t->source, *out, size, e);
	if (rc == 0 && size)
		rc = err_set(e, -EINVAL, "it ends too early");
	if (rc < 0) {
		free(*out);
		*out = NULL;
		return rc;
	}
	(*out)[size] = 0;
	return skip(t, padding(size), e);
}

/* x: pax records; L and K: GNU's long name and long link. */
static int take_before(const struct tar *t, struct entry *n, char type, uint64_t size,
		       struct err *e)
{
	char *body = NULL;
	int rc = read_body(t, size, &body, e);

	if (!rc && type == 'x')
		rc = take_pax(n, body, size, e);
	else if (!rc && type == 'L')
		rc = take_text(n->path, body, strlen(body), &n->has_path, "path", e);
	else if (!rc)
		rc = take_text(n->link, body, strlen(body), &n->has_link, "link", e);
	free(body);
	return rc;
}

/* ---- the header ---- */

static bool check_sum(const struct header *h)
{
	const uint8_t *p = (const uint8_t *)h;
	uint64_t wanted;
	uint32_t u = 0;
	int32_t s = 0;

	for (size_t i = 0; i < RECORD; i++) {
		uint8_t c =
			i >= offsetof(struct header, checksum) && i < offsetof(struct header, type)
				? ' '
				: p[i];

		u += c;
		s += (int8_t)c; /* as some old programs did */
	}
	return number(h->checksum, sizeof(h->checksum), &wanted) &&
	       (wanted == u || (s > 0 && wanted == (uint32_t)s));
}

/* The header's own name: with its prefix, if it is a ustar header of POSIX. */
static void header_names(struct entry *n, const struct header *h)
{
	bool posix = !memcmp(h->magic, "ustar", 6) && h->prefix[0];

	if (!n->has_path)
		snprintf(n->path, sizeof(n->path), "%.*s%s%.*s", posix ? 155 : 0, h->prefix,
			 posix ? "/" : "", 100, h->name);
	if (!n->has_link)
		snprintf(n->link, sizeof(n->link), "%.*s", 100, h->link);
}

static int header_numbers(struct entry *n, const struct header *h, struct err *e)
{
	uint64_t size, uid, gid, mtime;

	if (!number(h->size, sizeof(h->size), &size) || !number(h->uid, sizeof(h->uid), &uid) ||
	    !number(h->gid, sizeof(h->gid), &gid) || !number(h->mode, sizeof(h->mode), &n->mode))
		return wrong(n, e, "a number in its header that is none");
	if (!number(h->mtime, sizeof(h->mtime), &mtime))
		mtime = 0; /* before 1970 */
	n->size = n->has_size ? n->size : size;
	n->uid = n->has_uid ? n->uid : uid;
	n->gid = n->has_gid ? n->gid : gid;
	if (!n->has_mtime)
		n->mtime = (int64_t)(mtime >> 1 << 1 == mtime || mtime < INT64_MAX ? mtime : 0);
	if (n->uid > MAX_ID || n->gid > MAX_ID)
		return wrong(n, e, "an owner that is no user's number");
	if (n->size > SOURCE_MAX)
		return wrong(n, e, "larger than a layer may be");
	n->major = n->minor = 0;
	if ((h->type == '3' || h->type == '4') && (!number(h->major, sizeof(h->major), &n->major) ||
						   !number(h->minor, sizeof(h->minor), &n->minor) ||
						   n->major > 0xfff || n->minor > 0xfffff))
		return wrong(n, e, "a device whose number is none");
	return 0;
}

/* ---- entries ---- */

static void settle(const struct entry *n, struct node *node)
{
	node->mode = (node->mode & S_IFMT) | ((uint32_t)n->mode & 07777);
	node->uid = (uint32_t)n->uid;
	node->gid = (uint32_t)n->gid;
	node->mtime = n->mtime;
	node->mtime_ns = n->mtime_ns;
}

static void take_attributes(struct entry *n, struct node *node)
{
	node_drop_xattrs(node);
	node->xattr = n->attributes.xattr;
	n->attributes.xattr = NULL;
}

/* Documentation/filesystems/overlayfs.rst: a device 0/0, and an attribute of a directory. */
static bool is_whiteout(const struct node *n)
{
	return S_ISCHR(n->mode) && !n->rdev;
}

#define OVERLAY_OPAQUE "overlay.opaque"

static int make_opaque(struct node *dir, struct err *e)
{
	return node_xattr(dir, EROFS_XATTR_TRUSTED, OVERLAY_OPAQUE, strlen(OVERLAY_OPAQUE), "y", 1,
			  e);
}

static bool is_opaque(const struct node *n)
{
	for (const struct xattr *x = n->xattr; x; x = x->next) {
		if (x->index == EROFS_XATTR_TRUSTED && x->name_len == strlen(OVERLAY_OPAQUE) &&
		    !memcmp(x->text, OVERLAY_OPAQUE, x->name_len))
			return true;
	}
	return false;
}

static int copy_data(const struct tar *t, const struct entry *n, struct node *node, struct err *e)
{
	uint64_t left = n->size;
	int rc;

	node->size = n->size;
	rc = erofs_file(t->image, node, e);
	while (left && !rc) {
		const uint8_t *at;
		long k = source_some(t->source, (size_t)left, &at, e);

		if (k <= 0)
			return k ? (int)k : wrong(n, e, "the layer ends inside it");
		rc = erofs_data(t->image, at, (size_t)k, e);
		left -= (uint64_t)k;
	}
	return rc ? rc : skip(t, padding(n->size), e);
}

static int link_node(const struct tar *t, struct node *dir, const char *name, struct node *node,
		     struct err *e)
{
	int rc = node ? tree_link(t->tree, dir, name, node, e)
		      : err_set(e, -ENOMEM, "out of memory");

	if (rc && node && !node->nlink) {
		node_drop_xattrs(node);
		free(node->data);
		free(node);
	}
	return rc;
}

static int put_file(const struct tar *t, struct entry *n, struct node *dir, const char *name,
		    struct err *e)
{
	struct node *node = tree_node(t->tree, S_IFREG);
	int rc = link_node(t, dir, name, node, e);

	if (rc)
		return rc;
	settle(n, node);
	take_attributes(n, node);
	return copy_data(t, n, node, e);
}

static int put_dir(const struct tar *t, struct entry *n, struct node *dir, const char *name,
		   struct err *e)
{
	struct node *node = dir, *old = name[0] ? tree_find(t->tree, dir, name) : NULL;
	/* A whiteout of this name came first: what is below must not show through. */
	bool opaque = !t->merge &&
		      (old ? is_whiteout(old) || is_opaque(old) : !name[0] && is_opaque(dir));
	int rc = name[0] ? tree_dir(t->tree, dir, name, &node, e) : 0;

	if (rc)
		return rc;
	settle(n, node);
	take_attributes(n, node);
	return opaque ? make_opaque(node, e) : 0;
}

static int put_symlink(const struct tar *t, struct entry *n, struct node *dir, const char *name,
		       struct err *e)
{
	struct node *node = n->link[0] ? tree_node(t->tree, S_IFLNK) : NULL;
	int rc;

	if (!n->link[0])
		return wrong(n, e, "a symbolic link to nothing");
	if (node) {
		node->data = strdup(n->link);
		node->size = strlen(n->link);
	}
	if (node && !node->data) {
		free(node);
		return err_set(e, -ENOMEM, "out of memory");
	}
	rc = link_node(t, dir, name, node, e);
	if (rc)
		return rc;
	settle(n, node);
	node->mode = S_IFLNK | 0777;
	take_attributes(n, node);
	return 0;
}

static int put_special(const struct tar *t, struct entry *n, struct node *dir, const char *name,
		       struct err *e)
{
	static const struct {
		char type;
		uint32_t mode;
	} kinds[] = {{'3', S_IFCHR}, {'4', S_IFBLK}, {'6', S_IFIFO}};
	struct node *node = NULL;
	int rc;

	for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
		if (kinds[i].type == n->type)
			node = tree_node(t->tree, kinds[i].mode);
	}
	rc = link_node(t, dir, name, node, e);
	if (rc)
		return rc;
	node->rdev = (uint32_t)n->major << 20 | (uint32_t)n->minor;
	settle(n, node);
	take_attributes(n, node);
	return 0;
}

/* Only within the layer: a link to a file below would be another file once it is written to. */
static int put_hard_link(const struct tar *t, struct entry *n, struct node *dir, const char *name,
			 struct err *e)
{
	char last[TREE_MAX_NAME + 1];
	struct node *from, *node;
	int rc = tree_parent(t->tree, n->link, &from, last, e);

	if (rc)
		return rc;
	node = last[0] ? tree_find(t->tree, from, last) : NULL;
	if (!node)
		return wrong(n, e, "a hard link to what the layer does not hold");
	if (S_ISDIR(node->mode))
		return wrong(n, e, "a hard link to a directory");
	node->layer = t->tree->layer;
	return tree_link(t->tree, dir, name, node, e);
}

/* ---- whiteouts ---- */

static int put_whiteout(const struct tar *t, struct entry *n, struct node *dir, const char *name,
			struct err *e)
{
	struct node *node;

	if (!strcmp(name, OPAQUE)) {
		if (!t->merge)
			return make_opaque(dir, e);
		tree_hide(t->tree, dir, NULL);
		return 0;
	}
	name += strlen(WHITEOUT);
	if (!*name || !strcmp(name, ".") || !strcmp(name, ".."))
		return wrong(n, e, "a whiteout of nothing");
	if (t->merge) {
		tree_hide(t->tree, dir, name);
		return 0;
	}
	node = tree_find(t->tree, dir, name);
	if (node) /* the layer has a new one, which hides the old one, unless it is joined with it */
		return S_ISDIR(node->mode) ? make_opaque(node, e) : 0;
	node = tree_node(t->tree, S_IFCHR);
	return link_node(t, dir, name, node, e);
}

static int put_entry(const struct tar *t, struct entry *n, struct err *e)
{
	char name[TREE_MAX_NAME + 1];
	struct node *dir;
	bool is_dir = n->type == '5';
	int rc = tree_parent(t->tree, n->path, &dir, name, e);

	if (rc)
		return rc;
	if (!name[0] && !is_dir)
		return wrong(n, e, "the root, which is a directory");
	if (!strncmp(name, WHITEOUT_OWN, strlen(WHITEOUT_OWN)) && strcmp(name, OPAQUE) != 0)
		return skip(t, n->size + padding(n->size), e);
	if (!strncmp(name, WHITEOUT, strlen(WHITEOUT))) {
		rc = put_whiteout(t, n, dir, name, e);
		return rc ? rc : skip(t, n->size + padding(n->size), e);
	}
	switch (n->type) {
	case '0':
		return put_file(t, n, dir, name, e);
	case '1':
		return put_hard_link(t, n, dir, name, e);
	case '2':
		return put_symlink(t, n, dir, name, e);
	case '5':
		return put_dir(t, n, dir, name, e);
	default:
		return put_special(t, n, dir, name, e);
	}
}

/* ---- the archive ---- */

/* The types that have no data have no size, whatever is written there (POSIX, pax). */
static int settle_type(struct entry *n, char type, struct err *e)
{
	size_t len = strlen(n->path);

	n->type = type == 0 || type == '7' ? '0' : type;
	if (n->type == '0' && len && n->path[len - 1] == '/')
		n->type = '5'; /* as before POSIX */
	if (!strchr("0123456", n->type))
		return err_set(e, -EINVAL,
			       "'%.100s': an entry of type %#x; expected a file, a "
			       "link, a directory or a device",
			       n->path, (unsigned char)type);
	if (n->type != '0')
		n->size = 0;
	return 0;
}

/* One header: of an entry, which is put into the tree, or of what stands before one. */
static int take_header(const struct tar *t, struct entry *n, const struct header *h, bool *whole,
		       struct err *e)
{
	uint64_t size;
	int rc;

	*whole = false;
	if (!check_sum(h))
		return err_set(e, -EINVAL, "not a tar archive: the checksum of a header is wrong");
	if (strchr("xLKgV", h->type) && h->type) {
		if (!number(h->size, sizeof(h->size), &size) || size > SOURCE_MAX)
			return err_set(e, -EINVAL, "a size that is none");
		if (h->type == 'g' || h->type == 'V') /* comments of whoever made it */
			return skip(t, size + padding(size), e);
		return take_before(t, n, h->type, size, e);
	}
	*whole = true;
	header_names(n, h);
	rc = header_numbers(n, h, e);
	if (!rc)
		rc = settle_type(n, h->type, e);
	return rc ? rc : put_entry(t, n, e);
}

static void new_entry(struct entry *n)
{
	node_drop_xattrs(&n->attributes);
	memset(n, 0, offsetof(struct entry, attributes));
	n->path[0] = n->link[0] = 0;
}

int tar_read(const struct tar *t, struct err *e)
{
	struct entry *n = calloc(1, sizeof(*n));
	unsigned zeros = 0;
	struct header h;
	int rc = n ? 1 : err_set(e, -ENOMEM, "out of memory");

	while (rc > 0 && zeros < 2) {
		bool whole = true;

		rc = source_read(t->source, &h, sizeof(h), e);
		if (rc <= 0)
			break;
		if (mem_is_zero(&h, sizeof(h))) {
			zeros++;
			continue;
		}
		zeros = 0;
		rc = take_header(t, n, &h, &whole, e);
		if (whole)
			new_entry(n);
		rc = rc ? rc : 1;
	}
	if (rc == 0 && !t->source->total)
		rc = err_set(e, -EINVAL, "empty; expected a tar archive");
	if (n)
		node_drop_xattrs(&n->attributes);
	free(n);
	return rc < 0 ? rc : source_drain(t->source, e);
}
