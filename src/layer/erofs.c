/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * An EROFS image. See erofs.h.
 *
 * Data goes out as it comes. When the tree is complete, erofs_finish() gives every directory that
 * is too large its blocks and every inode its place (the place is the inode's number: "nid", in
 * units of 32 bytes), then writes directories and inodes in that order. Nothing is read back.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <insula/base.h>

#include "erofs.h"

#define MAGIC 0xe0f5e1e2u
#define SUPER_AT 1024u
#define SLOT 32u /* of nid's */
#define SLOT_BITS 5
#define FIRST_NID 2u /* 0 is no inode's number for many programs */
#define DIR_INLINE_MAX 2048u
#define LINK_INLINE_MAX 2048u
#define BUF_SIZE (64u * EROFS_BLOCK)

enum { FLAT_PLAIN = 0, FLAT_INLINE = 2 }; /* how an inode's data is laid out */

struct super {
	uint32_t magic, checksum, feature_compat;
	uint8_t blkszbits, sb_extslots;
	uint16_t root_nid;
	uint64_t inos, build_time;
	uint32_t build_time_nsec, blocks, meta_blkaddr, xattr_blkaddr;
	uint8_t uuid[16], volume_name[16];
	uint32_t feature_incompat;
	uint8_t rest[44];
};
_Static_assert(sizeof(struct super) == 128, "as it is on disk");

struct inode {
	uint16_t format, xattr_icount, mode, reserved;
	uint64_t size;
	uint32_t block_or_rdev, ino, uid, gid;
	uint64_t mtime;
	uint32_t mtime_nsec, nlink;
	uint8_t reserved2[16];
};
_Static_assert(sizeof(struct inode) == 64, "as it is on disk");

struct __attribute__((packed)) dirent {
	uint64_t nid;
	uint16_t nameoff;
	uint8_t type, reserved;
};
_Static_assert(sizeof(struct dirent) == 12, "as it is on disk");

struct xattr_head {
	uint32_t reserved;
	uint8_t shared, reserved2[7];
};
struct xattr_entry {
	uint8_t name_len, index;
	uint16_t len;
};
_Static_assert(sizeof(struct xattr_head) == 12 && sizeof(struct xattr_entry) == 4,
	       "as it is on disk");

/* ---- output ---- */

int erofs_begin(struct erofs *w, int fd, struct err *e)
{
	*w = (struct erofs){.fd = fd, .end = EROFS_BLOCK, .buf = malloc(BUF_SIZE)};
	return w->buf ? 0 : err_set(e, -ENOMEM, "out of memory");
}

void erofs_free(struct erofs *w)
{
	free(w->buf);
	w->buf = NULL;
}

static int write_at(int fd, const uint8_t *p, size_t n, uint64_t at, struct err *e)
{
	while (n) {
		ssize_t k = pwrite(fd, p, n, (off_t)at);

		if (k < 0 && errno == EINTR)
			continue;
		if (k <= 0)
			return err_sys(e, k ? -errno : -EIO, "write");
		p += k;
		at += (uint64_t)k;
		n -= (size_t)k;
	}
	return 0;
}

/* What is in the buffer, which ends with zeros up to a block; runs of blocks without zeros at once.
 */
static int flush(struct erofs *w, struct err *e)
{
	size_t n = (w->nbuf + EROFS_BLOCK - 1) / EROFS_BLOCK * EROFS_BLOCK, from = 0;
	int rc = 0;

	memset(w->buf + w->nbuf, 0, n - w->nbuf);
	for (size_t at = 0; at <= n && !rc; at += EROFS_BLOCK) {
		if (at < n && !mem_is_zero(w->buf + at, EROFS_BLOCK))
			continue;
		if (at > from)
			rc = write_at(w->fd, w->buf + from, at - from, w->end + from, e);
		from = at + EROFS_BLOCK;
	}
	w->end += n;
	w->nbuf = 0;
	if (!rc && w->end / EROFS_BLOCK > EROFS_MAX_BLOCKS)
		rc = err_set(e, -EFBIG, "an image of more than 16 TiB");
	return rc;
}

static int put(struct erofs *w, const void *data, size_t len, struct err *e)
{
	const uint8_t *p = data;
	int rc = 0;

	while (len && !rc) {
		size_t n = len < BUF_SIZE - w->nbuf ? len : BUF_SIZE - w->nbuf;

		if (p)
			memcpy(w->buf + w->nbuf, p, n);
		else
			memset(w->buf + w->nbuf, 0, n);
		p = p ? p + n : NULL;
		len -= n;
		w->nbuf += n;
		if (w->nbuf == BUF_SIZE)
			rc = flush(w, e);
	}
	return rc;
}

/* The next data begins a block. */
static int put_align(struct erofs *w, struct err *e)
{
	return put(w, NULL, (EROFS_BLOCK - w->nbuf % EROFS_BLOCK) % EROFS_BLOCK, e);
}

static uint64_t position(const struct erofs *w)
{
	return w->end + w->nbuf;
}

/* ---- files ---- */

int erofs_file(struct erofs *w, struct node *n, struct err *e)
{
	w->open = n;
	w->left = n->size;
	if (!n->size)
		return 0;
	if (n->size <= EROFS_INLINE_MAX && w->inlined + n->size <= EROFS_INLINE_ALL) {
		n->data = malloc(n->size);
		w->inlined += n->size;
		return n->data ? 0 : err_set(e, -ENOMEM, "out of memory");
	}
	n->block = (uint32_t)(position(w) / EROFS_BLOCK);
	return 0;
}

int erofs_data(struct erofs *w, const void *data, size_t len, struct err *e)
{
	int rc = 0;

	if (len > w->left)
		return err_set(e, -EINVAL, "more data than a file has");
	if (w->open->data)
		memcpy(w->open->data + (w->open->size - w->left), data, len);
	else
		rc = put(w, data, len, e);
	w->left -= len;
	if (!rc && !w->left && !w->open->data)
		rc = put_align(w, e);
	return rc;
}

/* ---- attributes ---- */

static size_t xattr_entry_size(const struct xattr *x)
{
	return (sizeof(struct xattr_entry) + x->name_len + x->len + 3u) & ~(size_t)3;
}

static size_t xattrs_size(const struct node *n)
{
	size_t all = n->xattr ? sizeof(struct xattr_head) : 0;

	for (const struct xattr *x = n->xattr; x; x = x->next)
		all += xattr_entry_size(x);
	return all;
}

static int put_xattrs(struct erofs *w, const struct node *n, struct err *e)
{
	const struct xattr_head head = {0};
	int rc = n->xattr ? put(w, &head, sizeof(head), e) : 0;

	for (const struct xattr *x = n->xattr; x && !rc; x = x->next) {
		const struct xattr_entry entry = {x->name_len, x->index, x->len};
		size_t used = sizeof(entry) + x->name_len + x->len;

		rc = put(w, &entry, sizeof(entry), e);
		if (!rc)
			rc = put(w, x->text, (size_t)x->name_len + x->len, e);
		if (!rc)
			rc = put(w, NULL, xattr_entry_size(x) - used, e);
	}
	return rc;
}

/* ---- directories ---- */

struct entry {
	const char *name;
	const struct node *node;
};

struct dir_list {
	struct entry *at;
	size_t n, room;
};

/* Let the entry at `i` sink to its place in the heap of the first `n`. */
static void sink(struct entry *at, size_t i, size_t n)
{
	struct entry down = at[i];

	for (size_t k; (k = 2 * i + 1) < n; i = k) {
		k += k + 1 < n && strcmp(at[k].name, at[k + 1].name) < 0;
		if (strcmp(down.name, at[k].name) >= 0)
			break;
		at[i] = at[k];
	}
	at[i] = down;
}

/* Not qsort(): the C library's asks the system how much memory there is, which the jail forbids;
 * and this one takes no more time for names that an enemy has chosen. */
static void sort_names(struct entry *at, size_t n)
{
	for (size_t i = n / 2; i-- > 0;)
		sink(at, i, n);
	for (size_t end = n; end-- > 1;) {
		struct entry top = at[0];

		at[0] = at[end];
		at[end] = top;
		sink(at, 0, end);
	}
}

/* Its names with "." and "..", in the order of their bytes. */
static int list_dir(const struct node *d, struct dir_list *l, struct err *e)
{
	size_t need = (size_t)d->nnames + 2;

	if (need > l->room) {
		struct entry *p = realloc(l->at, need * sizeof(*p));

		if (!p)
			return err_set(e, -ENOMEM, "out of memory");
		l->at = p;
		l->room = need;
	}
	l->at[0] = (struct entry){".", d};
	l->at[1] = (struct entry){"..", d->parent};
	l->n = 2;
	for (const struct name *n = d->first; n; n = n->next) {
		if (n->node)
			l->at[l->n++] = (struct entry){n->text, n->node};
	}
	sort_names(l->at, l->n);
	return 0;
}

/* How many entries from `i` on fit into a block; *used: their bytes. */
static size_t dir_block(const struct dir_list *l, size_t i, size_t *used)
{
	size_t n = 0;

	*used = 0;
	while (i + n < l->n) {
		size_t more = sizeof(struct dirent) + strlen(l->at[i + n].name);

		if (*used + more > EROFS_BLOCK)
			break;
		*used += more;
		n++;
	}
	return n;
}

static uint64_t dir_size(const struct dir_list *l)
{
	uint64_t size = 0;
	size_t used;

	for (size_t i = 0; i < l->n;) {
		size = (size + EROFS_BLOCK - 1) / EROFS_BLOCK * EROFS_BLOCK;
		i += dir_block(l, i, &used);
		size += used;
	}
	return size;
}

static uint8_t file_type(uint32_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG:
		return 1;
	case S_IFDIR:
		return 2;
	case S_IFCHR:
		return 3;
	case S_IFBLK:
		return 4;
	case S_IFIFO:
		return 5;
	case S_IFLNK:
		return 7;
	default:
		return 6; /* a socket */
	}
}

static int put_dir_block(struct erofs *w, const struct dir_list *l, size_t from, size_t n,
			 struct err *e)
{
	size_t off = n * sizeof(struct dirent);
	int rc = 0;

	for (size_t i = from; i < from + n && !rc; i++) {
		const struct dirent d = {.nid = l->at[i].node->nid,
					 .nameoff = (uint16_t)off,
					 .type = file_type(l->at[i].node->mode)};

		off += strlen(l->at[i].name);
		rc = put(w, &d, sizeof(d), e);
	}
	for (size_t i = from; i < from + n && !rc; i++)
		rc = put(w, l->at[i].name, strlen(l->at[i].name), e);
	return rc;
}

static int put_dir(struct erofs *w, const struct dir_list *l, struct err *e)
{
	size_t used, n;
	int rc = 0;

	for (size_t i = 0; i < l->n && !rc; i += n) {
		n = dir_block(l, i, &used);
		rc = put_dir_block(w, l, i, n, e);
		if (!rc && i + n < l->n)
			rc = put(w, NULL, EROFS_BLOCK - used, e);
	}
	return rc;
}

/* ---- places ---- */

/* All nodes, each once, parents before children. */
struct nodes {
	struct node **at;
	size_t n, room;
};

static int add_node(struct nodes *s, struct node *n, struct err *e)
{
	if (n->placed)
		return 0;
	if (s->n == s->room) {
		size_t room = s->room ? 2 * s->room : 1024;
		struct node **p = realloc(s->at, room * sizeof(struct node *));

		if (!p)
			return err_set(e, -ENOMEM, "out of memory");
		s->at = p;
		s->room = room;
	}
	n->placed = true;
	s->at[s->n++] = n;
	n->ino = (uint32_t)s->n;
	return 0;
}

static int list_nodes(struct tree *t, struct nodes *s, struct err *e)
{
	int rc = add_node(s, t->root, e);

	for (size_t i = 0; i < s->n && !rc; i++) {
		if (!S_ISDIR(s->at[i]->mode))
			continue;
		for (struct name *n = s->at[i]->first; n && !rc; n = n->next)
			rc = n->node ? add_node(s, n->node, e) : 0;
	}
	return rc;
}

/* Does its content lie behind its inode? That of a directory is not there yet. The root's place is
 * known before its attributes are, which may leave no room for more in the first block. */
static bool is_inline(const struct node *n)
{
	bool root = n->parent == n;

	if (S_ISDIR(n->mode))
		return n->size <= DIR_INLINE_MAX && !(root && n->xattr);
	return n->size && n->data && (!S_ISLNK(n->mode) || n->size <= LINK_INLINE_MAX);
}

/* What lies behind an inode must not cross a block; the inode does not either. */
static uint64_t place(uint64_t at, const struct node *n)
{
	size_t head = sizeof(struct inode) + xattrs_size(n);
	uint64_t tail = is_inline(n) ? n->size : 0;

	at = (at + SLOT - 1) / SLOT * SLOT;
	while (at % EROFS_BLOCK + sizeof(struct inode) > EROFS_BLOCK ||
	       (at + head) % EROFS_BLOCK + tail > EROFS_BLOCK)
		at += SLOT;
	return at;
}

/* Directories: sizes, and blocks for the large ones; long symbolic links: written now. *dirs: bytes
 * of those blocks. */
static int measure(struct erofs *w, struct nodes *s, uint64_t *dirs, struct dir_list *l,
		   struct err *e)
{
	int rc = 0;

	for (size_t i = 0; i < s->n && !rc; i++) {
		struct node *n = s->at[i];

		if (!S_ISLNK(n->mode) || is_inline(n))
			continue;
		n->block = (uint32_t)(position(w) / EROFS_BLOCK);
		rc = put(w, n->data, n->size, e);
		if (!rc)
			rc = put_align(w, e);
	}
	*dirs = 0;
	for (size_t i = 0; i < s->n && !rc; i++) {
		struct node *n = s->at[i];

		if (!S_ISDIR(n->mode))
			continue;
		rc = list_dir(n, l, e);
		if (rc)
			break;
		n->size = dir_size(l);
		if (is_inline(n))
			continue;
		n->block = (uint32_t)((position(w) + *dirs) / EROFS_BLOCK);
		*dirs += (n->size + EROFS_BLOCK - 1) / EROFS_BLOCK * EROFS_BLOCK;
	}
	return rc;
}

static int put_large_dirs(struct erofs *w, const struct nodes *s, struct dir_list *l, struct err *e)
{
	int rc = 0;

	for (size_t i = 0; i < s->n && !rc; i++) {
		if (!S_ISDIR(s->at[i]->mode) || is_inline(s->at[i]))
			continue;
		rc = list_dir(s->at[i], l, e);
		if (!rc)
			rc = put_dir(w, l, e);
		if (!rc)
			rc = put_align(w, e);
	}
	return rc;
}

/* ---- inodes ---- */

/* Linux: include/linux/kdev_t.h, new_encode_dev(). */
static uint32_t encode_dev(uint32_t rdev)
{
	uint32_t ma = rdev >> 20, mi = rdev & 0xfffff;

	return (mi & 0xff) | ma << 8 | (mi & ~0xffu) << 12;
}

static struct inode make_inode(const struct node *n)
{
	bool device = S_ISCHR(n->mode) || S_ISBLK(n->mode);
	size_t xattrs = xattrs_size(n);

	return (struct inode){
		.format = (uint16_t)(1 | (is_inline(n) ? FLAT_INLINE : FLAT_PLAIN) << 1),
		/* Linux: erofs_xattr_ibody_size(): the head counts as one, the rest in words. */
		.xattr_icount =
			(uint16_t)(xattrs ? 1 + (xattrs - sizeof(struct xattr_head)) / 4 : 0),
		.mode = (uint16_t)n->mode,
		.size = n->size,
		.block_or_rdev = device ? encode_dev(n->rdev) : n->block,
		.ino = n->ino,
		.uid = n->uid,
		.gid = n->gid,
		.mtime = (uint64_t)n->mtime,
		.mtime_nsec = n->mtime_ns,
		.nlink = n->nlink,
	};
}

static int put_inodes(struct erofs *w, const struct nodes *s, uint64_t meta, struct dir_list *l,
		      struct err *e)
{
	int rc = 0;

	for (size_t i = 0; i < s->n && !rc; i++) {
		const struct node *n = s->at[i];
		const struct inode inode = make_inode(n);

		rc = put(w, NULL, meta + (n->nid << SLOT_BITS) - position(w), e);
		if (!rc)
			rc = put(w, &inode, sizeof(inode), e);
		if (!rc)
			rc = put_xattrs(w, n, e);
		if (rc || !is_inline(n))
			continue;
		if (!S_ISDIR(n->mode)) {
			rc = put(w, n->data, n->size, e);
			continue;
		}
		rc = list_dir(n, l, e);
		if (!rc)
			rc = put_dir(w, l, e);
	}
	return rc ? rc : put_align(w, e);
}

static int put_super(struct erofs *w, uint64_t meta, size_t inodes, const uint8_t id[16],
		     struct err *e)
{
	struct super s = {.magic = MAGIC,
			  .blkszbits = 12,
			  .root_nid = FIRST_NID,
			  .inos = inodes,
			  .blocks = (uint32_t)(w->end / EROFS_BLOCK),
			  .meta_blkaddr = (uint32_t)(meta / EROFS_BLOCK)};
	uint8_t block[EROFS_BLOCK] = {0};

	memcpy(s.uuid, id, 16);
	memcpy(block + SUPER_AT, &s, sizeof(s));
	return write_at(w->fd, block, sizeof(block), 0, e);
}

int erofs_finish(struct erofs *w, struct tree *t, const uint8_t id[16], uint64_t *size,
		 struct err *e)
{
	struct dir_list l = {.at = NULL};
	struct nodes s = {.at = NULL};
	uint64_t dirs, meta = 0, at = FIRST_NID << SLOT_BITS;
	int rc = list_nodes(t, &s, e);

	if (!rc)
		rc = put_align(w, e);
	if (!rc)
		rc = measure(w, &s, &dirs, &l, e);
	if (rc)
		goto out;
	meta = position(w) + dirs;
	for (size_t i = 0; i < s.n; i++) {
		at = place(at, s.at[i]);
		s.at[i]->nid = at >> SLOT_BITS;
		at += sizeof(struct inode) + xattrs_size(s.at[i]) +
		      (is_inline(s.at[i]) ? s.at[i]->size : 0);
	}
	if (t->root->nid != FIRST_NID)
		panic("erofs: the root is inode %llu", (unsigned long long)t->root->nid);
	rc = put_large_dirs(w, &s, &l, e);
	if (!rc && position(w) != meta)
		panic("erofs: directories end at %llu, not %llu", (unsigned long long)position(w),
		      (unsigned long long)meta);
	if (!rc)
		rc = put_inodes(w, &s, meta, &l, e);
	if (!rc)
		rc = flush(w, e);
	if (!rc)
		rc = put_super(w, meta, s.n, id, e);
	if (!rc && ftruncate(w->fd, (off_t)w->end))
		rc = err_sys(e, -errno, "length of the image");
	*size = w->end;
out:
	free(l.at);
	free(s.at);
	return rc;
}
