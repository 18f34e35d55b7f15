/* SPDX-License-Identifier: BSD-2-Clause */
/* All that is in the store: lists, removal, eviction. See store.h. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/image.h>

#include "store_parts.h"

#define MAX_FILES 65536u

struct file {
	char name[STORE_NAME_MAX];
	struct timespec used;
	uint64_t bytes;
	bool gone, needed;
	struct oci_manifest *m; /* of a record; owned */
	struct store_ref ref;   /* of a reference */
};

struct files {
	struct file *at;
	size_t n, room;
};

static bool is_kind(const struct file *f, const char *kind)
{
	return !strncmp(f->name, kind, strlen(kind));
}

static bool is_layer(const struct file *f)
{
	return is_kind(f, STORE_LAYERS) || is_kind(f, STORE_MERGED);
}

static void files_free(struct files *all)
{
	for (size_t i = 0; i < all->n; i++)
		free(all->at[i].m);
	free(all->at);
	*all = (struct files){.at = NULL};
}

/* ---- what is there ---- */

static void read_file(struct store *s, struct file *f)
{
	struct oci_config c;
	struct err e;
	char *text;
	size_t len;

	if (is_layer(f) || store_read(s, f->name, &text, &len, NULL, &e))
		return;
	if (is_kind(f, STORE_REF)) {
		(void)store_ref_parse(text, &f->ref);
	} else {
		f->m = calloc(1, sizeof(*f->m));
		if (f->m && oci_record_read(text, len, f->m, &c, &e)) {
			free(f->m);
			f->m = NULL;
		}
		if (f->m)
			oci_config_free(&c);
	}
	free(text);
}

static int note_file(struct store *s, const char *name, struct files *all, struct err *e)
{
	struct file f = {.bytes = 0};
	struct stat st;

	snprintf(f.name, sizeof(f.name), "%s", name);
	if (!(is_layer(&f) || is_kind(&f, STORE_IMAGE) || is_kind(&f, STORE_REF)) ||
	    strlen(name) >= sizeof(f.name) || all->n == MAX_FILES ||
	    fstatat(s->cache.dir, name, &st, AT_SYMLINK_NOFOLLOW) || !S_ISREG(st.st_mode))
		return 0;
	f.used = st.st_atim;
	f.bytes = (uint64_t)st.st_blocks * 512;
	if (all->n == all->room) {
		size_t room = all->room ? 2 * all->room : 64;
		struct file *p = realloc(all->at, room * sizeof(*p));

		if (!p)
			return err_set(e, -ENOMEM, "out of memory");
		all->at = p;
		all->room = room;
	}
	read_file(s, &f);
	all->at[all->n++] = f;
	return 0;
}

static int by_use(const void *a, const void *b)
{
	const struct timespec *x = &((const struct file *)a)->used,
			      *y = &((const struct file *)b)->used;

	if (x->tv_sec != y->tv_sec)
		return x->tv_sec < y->tv_sec ? -1 : 1;
	return (x->tv_nsec > y->tv_nsec) - (x->tv_nsec < y->tv_nsec);
}

/* The least recently used first. */
static int look(struct store *s, struct files *all, struct err *e)
{
	int fd = openat(s->cache.dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc = 0;
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *de;

	*all = (struct files){.at = NULL};
	if (!d) {
		rc = cache_failed(&s->cache, -errno, "", e);
		fd_close(&fd);
		return rc;
	}
	s->cache.look = true;
	while (!rc && (de = readdir(d))) {
		if (!strncmp(de->d_name, STORE_PULL, strlen(STORE_PULL)))
			store_pull_tidy(s, de->d_name);
		else if (!strncmp(de->d_name, CACHE_TMP, strlen(CACHE_TMP)))
			(void)cache_remove(&s->cache, de->d_name);
		else
			rc = note_file(s, de->d_name, all, e);
	}
	s->cache.look = false;
	closedir(d);
	if (rc)
		files_free(all);
	else if (all->n)
		qsort(all->at, all->n, sizeof(*all->at), by_use);
	return rc;
}

static struct file *find(const struct files *all, const char *name)
{
	for (size_t i = 0; i < all->n; i++) {
		if (!all->at[i].gone && !strcmp(all->at[i].name, name))
			return &all->at[i];
	}
	return NULL;
}

static struct file *find_image(const struct files *all, const char *hex)
{
	char name[STORE_NAME_MAX];

	store_image_name(hex, name);
	return find(all, name);
}

/* Each of the files that an image has; how many of its layers are among them. */
static unsigned each_layer(const struct files *all, const struct oci_manifest *m,
			   void (*then)(struct file *f, void *ctx), void *ctx)
{
	char name[STORE_NAME_MAX];
	unsigned merged = 0, single = 0;
	struct file *f;

	for (unsigned n = 2; n <= m->nlayers; n++) {
		store_merged_name(m, n, name);
		f = find(all, name);
		if (f) {
			then(f, ctx);
			merged = n;
		}
	}
	for (unsigned i = 0; i < m->nlayers; i++) {
		store_layer_name(&m->layer[i], name);
		f = find(all, name);
		if (f) {
			then(f, ctx);
			single += i >= merged;
		}
	}
	return merged + single;
}

/* ---- removal ---- */

static bool drop(struct store *s, struct file *f, uint64_t *bytes)
{
	if (!cache_remove(&s->cache, f->name))
		return false;
	f->gone = true;
	*bytes += f->bytes;
	return true;
}

static void mark(struct file *f, void *ctx)
{
	(void)ctx;
	f->needed = true;
}

/* References to images that are not there, layers of none. */
static void drop_orphans(struct store *s, struct files *all, uint64_t *bytes)
{
	for (size_t i = 0; i < all->n; i++)
		all->at[i].needed = false;
	for (size_t i = 0; i < all->n; i++) {
		if (all->at[i].m && !all->at[i].gone)
			(void)each_layer(all, all->at[i].m, mark, NULL);
	}
	for (size_t i = 0; i < all->n; i++) {
		struct file *f = &all->at[i];
		bool stray = is_layer(f)             ? !f->needed
			     : is_kind(f, STORE_REF) ? !find_image(all, f->ref.hex)
						     : !f->m;

		if (stray && !f->gone)
			(void)drop(s, f, bytes);
	}
}

static uint64_t total(const struct files *all)
{
	uint64_t n = 0;

	for (size_t i = 0; i < all->n; i++)
		n += all->at[i].gone ? 0 : all->at[i].bytes;
	return n;
}

int store_trim(struct store *s, uint64_t limit, const char *keep, uint64_t *bytes, struct err *e)
{
	uint64_t freed = 0;
	struct files all;
	int rc = look(s, &all, e);

	if (rc)
		return rc;
	drop_orphans(s, &all, &freed);
	for (size_t i = 0; i < all.n && total(&all) > limit; i++) {
		struct file *f = &all.at[i];

		if (!f->m || f->gone || (keep && !strcmp(f->name + strlen(STORE_IMAGE), keep)))
			continue;
		if (drop(s, f, &freed))
			drop_orphans(s, &all, &freed);
	}
	files_free(&all);
	if (bytes)
		*bytes = freed;
	return 0;
}

int store_remove(struct store *s, const char *hex, struct err *e)
{
	uint64_t freed = 0;
	struct files all;
	struct file *f;
	int rc = look(s, &all, e);

	if (rc)
		return rc;
	f = find_image(&all, hex);
	if (!f)
		rc = err_set(e, -ENOENT, "no image sha256:%.12s", hex);
	else if (!drop(s, f, &freed))
		rc = err_set(e, -EBUSY, "image sha256:%.12s: a VM uses it", hex);
	else
		drop_orphans(s, &all, &freed);
	files_free(&all);
	return rc;
}

static int size_of(const char *name, uint64_t standard, uint64_t *out, struct err *e)
{
	const char *text = getenv(name);
	unsigned long long n;
	unsigned shift;
	char unit = 0;
	int used = 0;

	*out = standard;
	if (!text || !*text)
		return 0;
	if (text[0] < '0' || text[0] > '9' || sscanf(text, "%llu%n%c", &n, &used, &unit) < 1 ||
	    used > 12 || (unit && (text[used + 1] || !strchr("KMGT", unit))))
		return err_set(e, -EINVAL, "%s: '%.40s'; expected a size such as 20G", name, text);
	shift = unit == 'K' ? 10 : unit == 'M' ? 20 : unit == 'G' ? 30 : unit == 'T' ? 40 : 0;
	if (n > UINT64_MAX >> shift)
		return err_set(e, -EINVAL, "%s: '%.40s'; expected less than 16777216T", name, text);
	*out = (uint64_t)n << shift;
	return 0;
}

int store_limit(uint64_t *out, struct err *e)
{
	return size_of("INSULA_IMAGE_LIMIT", IMAGE_LIMIT, out, e);
}

int store_image_max(uint64_t *out, struct err *e)
{
	return size_of("INSULA_IMAGE_MAX", IMAGE_BYTES_MAX, out, e);
}

/* ---- the list ---- */

static void add_bytes(struct file *f, void *ctx)
{
	*(uint64_t *)ctx += f->bytes;
}

static bool is_locked(const struct store *s, const char *name)
{
	int fd = openat(s->cache.dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	bool locked = fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK;

	fd_close(&fd);
	return locked;
}

static int list_image(const struct store *s, const struct files *all, const struct file *f,
		      struct store_image *out, struct err *e)
{
	const char *hex = f->name + strlen(STORE_IMAGE);

	*out = (struct store_image){.used = (uint64_t)f->used.tv_sec,
				    .in_use = is_locked(s, f->name)};
	snprintf(out->hex, sizeof(out->hex), "%s", hex);
	out->complete = each_layer(all, f->m, add_bytes, &out->bytes) >= f->m->nlayers;
	for (size_t i = 0; i < all->n; i++) {
		const struct store_ref *r = &all->at[i].ref;
		char **p;

		if (!is_kind(&all->at[i], STORE_REF) || strcmp(r->hex, hex) != 0)
			continue;
		p = realloc(out->ref, (out->nrefs + 1) * sizeof(char *));
		if (!p)
			return err_set(e, -ENOMEM, "out of memory");
		out->ref = p;
		p[out->nrefs] = strdup(r->reference);
		if (!p[out->nrefs])
			return err_set(e, -ENOMEM, "out of memory");
		out->nrefs++;
	}
	return 0;
}

int store_images(struct store *s, struct store_list *out, struct err *e)
{
	struct files all;
	int rc = look(s, &all, e);

	out->n = 0;
	out->image = NULL;
	if (rc)
		return rc;
	out->image = calloc(all.n + 1, sizeof(*out->image));
	if (!out->image)
		rc = err_set(e, -ENOMEM, "out of memory");
	for (size_t i = all.n; i-- > 0 && !rc;) {
		if (all.at[i].m)
			rc = list_image(s, &all, &all.at[i], &out->image[out->n++], e);
	}
	files_free(&all);
	if (rc)
		store_list_free(out);
	return rc;
}

void store_list_free(struct store_list *l)
{
	for (size_t i = 0; i < l->n; i++) {
		for (unsigned k = 0; k < l->image[i].nrefs; k++)
			free(l->image[i].ref[k]);
		free(l->image[i].ref);
	}
	free(l->image);
	*l = (struct store_list){.n = 0};
}
