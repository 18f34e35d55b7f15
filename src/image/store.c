/* SPDX-License-Identifier: BSD-2-Clause */
/* Names, locks and small files of the store. See store.h; store_list.c has the whole of it. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <json-c/json.h>

#include <insula/base.h>
#include <insula/image.h>
#include <insula/log.h>

#include "store.h"
#include "store_parts.h"

#define TEXT_MAX (3ull * OCI_TEXT_MAX)
#define WRITE_TRIES 20
#define SECONDS 3600u /* for one image */
#define SECONDS_MAX 604800u
#define LEAST_FREE (1ull << 30)
#define LOCK_TURN_MS 20
#define LOCK_SAY_NS 2000000000ull

int image_store_dir(char out[IMAGE_PATH_MAX], struct err *e)
{
	const char *xdg = getenv("XDG_CACHE_HOME");
	char cache[IMAGE_PATH_MAX];
	int rc = 0;

	/* Root's are the host's, whose home HOME may be. */
	if (geteuid() == 0 && !(xdg && xdg[0] == '/'))
		snprintf(cache, sizeof(cache), "/var/cache/insula");
	else
		rc = image_cache_dir(cache, e);
	if (!rc && snprintf(out, IMAGE_PATH_MAX, "%s/images", cache) >= IMAGE_PATH_MAX)
		rc = err_set(e, -ENAMETOOLONG, "the path of the cache directory is too long");
	return rc;
}

int store_open(struct store *s, const char *dir, struct err *e)
{
	int rc = cache_open(&s->cache, dir, e);

	s->lock = -1;
	s->seconds = 0;
	if (!rc) {
		s->lock = openat(s->cache.dir, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW,
				 0600);
		rc = s->lock < 0 ? cache_failed(&s->cache, -errno, "lock", e) : 0;
	}
	if (rc)
		store_close(s);
	return rc;
}

void store_close(struct store *s)
{
	cache_close(&s->cache);
	fd_close(&s->lock);
}

/* ---- how long, and how much ---- */

int store_start_clock(struct store *s, struct err *e)
{
	const char *text = getenv("INSULA_IMAGE_TIMEOUT");
	unsigned long n = SECONDS;
	char *end;

	if (text && *text) {
		n = strtoul(text, &end, 10);
		if (text[0] < '0' || text[0] > '9' || *end || !n || n > SECONDS_MAX)
			return err_set(e, -EINVAL,
				       "INSULA_IMAGE_TIMEOUT: '%.40s'; expected 1 to %u seconds",
				       text, SECONDS_MAX);
	}
	s->seconds = (unsigned)n;
	s->end_ns = clock_ns() + n * 1000000000u;
	return 0;
}

static int in_time(const struct store *s, struct err *e)
{
	if (!s->seconds || clock_ns() < s->end_ns)
		return 0;
	return err_set(e, -ETIMEDOUT,
		       "the image is not ready after %u s; INSULA_IMAGE_TIMEOUT may give it more",
		       s->seconds);
}

int store_go_on(const struct store *s, struct err *e)
{
	struct statvfs v;
	uint64_t left, least;
	int rc = in_time(s, e);

	if (rc)
		return rc;
	if (fstatvfs(s->cache.dir, &v))
		return 0;
	left = (uint64_t)v.f_bavail * v.f_frsize;
	least = (uint64_t)v.f_blocks * v.f_frsize / 20;
	least = least < LEAST_FREE ? least : LEAST_FREE;
	if (left >= least)
		return 0;
	return err_set(e, -ENOSPC,
		       "cache directory %.100s: No space left on device: %llu KiB free; expected "
		       "%llu KiB, which stay free",
		       s->cache.path, (unsigned long long)left >> 10,
		       (unsigned long long)least >> 10);
}

int store_reason(const struct store *s, int rc, struct err *e)
{
	struct err why;
	int now = rc == -EIO || rc == -ENOSPC ? store_go_on(s, &why) : 0;

	return now ? err_set(e, now, "%s", why.text) : rc;
}

/* ---- names ---- */

void store_layer_name(const struct oci_blob *b, char out[STORE_NAME_MAX])
{
	snprintf(out, STORE_NAME_MAX, STORE_LAYER "%s", b->hex);
}

void store_merged_name(const struct oci_manifest *m, unsigned n, char out[STORE_NAME_MAX])
{
	uint8_t digest[SHA256_LEN];
	char hex[SHA256_TEXT];
	struct sha256 s;

	sha256_init(&s);
	for (unsigned i = 0; i < n; i++)
		sha256_add(&s, m->layer[i].hex, strlen(m->layer[i].hex));
	sha256_end(&s, digest);
	sha256_text(digest, hex);
	snprintf(out, STORE_NAME_MAX, STORE_MERGED "%s", hex);
}

void store_image_name(const char *hex, char out[STORE_NAME_MAX])
{
	snprintf(out, STORE_NAME_MAX, STORE_IMAGE "%s", hex);
}

void store_ref_name(const char *reference, char out[STORE_NAME_MAX])
{
	uint8_t digest[SHA256_LEN];
	char hex[SHA256_TEXT];
	struct sha256 s;

	sha256_init(&s);
	sha256_add(&s, reference, strlen(reference));
	sha256_end(&s, digest);
	sha256_text(digest, hex);
	snprintf(out, STORE_NAME_MAX, STORE_REF "%s", hex);
}

/* ---- locks ---- */

/* Two names with the same byte wait for each other without need, no more: nobody holds two locks of
 * this kind at once but that of a reference and that of a layer, in this order, and those have
 * halves of their own. */
static struct flock lock_of(const char *name, short type)
{
	uint64_t h = 0xcbf29ce484222325ull;
	bool ref = !strncmp(name, STORE_REF, strlen(STORE_REF));

	for (; *name; name++)
		h = (h ^ (uint8_t)*name) * 0x100000001b3ull;
	h = h >> 3 & ~1ull;
	return (struct flock){
		.l_type = type, .l_whence = SEEK_SET, .l_start = (off_t)(h | ref), .l_len = 1};
}

int store_lock(const struct store *s, const char *name, struct err *e)
{
	struct flock l = lock_of(name, F_WRLCK);
	uint64_t say = clock_ns() + LOCK_SAY_NS;
	int rc = 0;

	while (!rc && fcntl(s->lock, F_OFD_SETLK, &l)) {
		if (errno != EAGAIN && errno != EACCES && errno != EINTR)
			return cache_failed(&s->cache, -errno, "lock", e);
		rc = in_time(s, e);
		if (say && clock_ns() >= say) {
			log_warn("image: waiting for another process that is making %.40s", name);
			say = 0;
		}
		(void)poll(NULL, 0, LOCK_TURN_MS);
	}
	return rc;
}

void store_unlock(const struct store *s, const char *name)
{
	struct flock l = lock_of(name, F_UNLCK);

	(void)fcntl(s->lock, F_OFD_SETLK, &l);
}

/* ---- files ---- */

int store_get(struct store *s, const char *name, int *fd, struct err *e)
{
	cache_name_is(&s->cache, name);
	return cache_get(&s->cache, fd, e);
}

int store_read(struct store *s, const char *name, char **text, size_t *len, int *hold,
	       struct err *e)
{
	uint64_t size;
	int fd, rc = store_get(s, name, &fd, e);

	*text = NULL;
	if (rc)
		return rc;
	rc = file_size(fd, &size);
	if (!rc && size > TEXT_MAX)
		rc = -EFBIG;
	if (!rc) {
		*len = (size_t)size;
		*text = calloc(1, *len + 1);
		rc = *text ? read_full(fd, *text, *len, 0) : -ENOMEM;
	}
	if (rc) {
		free(*text);
		*text = NULL;
		rc = cache_failed(&s->cache, rc, name, e);
	}
	if (rc || !hold)
		close(fd);
	else
		*hold = fd;
	return rc;
}

static int write_once(struct store *s, const char *name, const char *text, int *hold, struct err *e)
{
	int fd, rc;

	cache_name_is(&s->cache, name);
	s->cache.replace = true;
	rc = cache_begin(&s->cache, e);
	s->cache.replace = false;
	if (rc)
		return rc;
	rc = write_full(s->cache.tmp, text, strlen(text));
	if (rc) {
		cache_drop(&s->cache);
		return cache_failed(&s->cache, rc, name, e);
	}
	rc = cache_commit(&s->cache, &fd, e);
	if (!rc && hold)
		*hold = fd;
	else if (!rc)
		close(fd);
	return rc;
}

/* A file that has a name before it is complete can be taken for a dead maker's, and be removed, in
 * the instant in which its lock becomes a shared one. */
int store_write(struct store *s, const char *name, const char *text, int *hold, struct err *e)
{
	int rc = -ENOENT;

	for (unsigned i = 0; i < WRITE_TRIES && rc == -ENOENT; i++)
		rc = write_once(s, name, text, hold, e);
	return rc;
}

/* ---- references ---- */

static void take_string(json_object *o, const char *key, char *out, size_t size)
{
	json_object *v;

	if (json_object_object_get_ex(o, key, &v) && json_object_is_type(v, json_type_string))
		snprintf(out, size, "%s", json_object_get_string(v));
}

int store_ref_parse(const char *text, struct store_ref *out)
{
	json_object *o = json_tokener_parse(text);

	*out = (struct store_ref){.hex = ""};
	if (json_object_is_type(o, json_type_object)) {
		take_string(o, "reference", out->reference, sizeof(out->reference));
		take_string(o, "image", out->hex, sizeof(out->hex));
		take_string(o, "state", out->state, sizeof(out->state));
	}
	json_object_put(o);
	return strlen(out->hex) == 2 * SHA256_LEN && !out->hex[strspn(out->hex, "0123456789abcdef")]
		       ? 0
		       : -EINVAL;
}

/* A damaged one is none. */
int store_ref_read(struct store *s, const char *reference, struct store_ref *out, struct err *e)
{
	char name[STORE_NAME_MAX], *text;
	size_t len;
	int rc;

	store_ref_name(reference, name);
	rc = store_read(s, name, &text, &len, NULL, e);
	if (rc)
		return rc;
	rc = store_ref_parse(text, out);
	free(text);
	return rc ? err_set(e, -ENOENT, "a damaged reference") : 0;
}

int store_ref_write(struct store *s, const struct store_ref *r, struct err *e)
{
	json_object *o = json_object_new_object();
	char name[STORE_NAME_MAX];
	int rc;

	json_object_object_add(o, "reference", json_object_new_string(r->reference));
	json_object_object_add(o, "image", json_object_new_string(r->hex));
	json_object_object_add(o, "state", json_object_new_string(r->state));
	store_ref_name(r->reference, name);
	rc = store_write(s, name, json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN), NULL,
			 e);
	json_object_put(o);
	return rc;
}

/* ---- what skopeo fetches ---- */

/* -EEXIST: somebody who tidies up was faster. */
static int pull_hold(struct store *s, const char *name, int *hold)
{
	int rc = 0;

	*hold = openat(s->cache.dir, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (*hold < 0 || flock(*hold, LOCK_EX | LOCK_NB))
		rc = errno == ENOENT || errno == EWOULDBLOCK ? -EEXIST : -errno;
	if (!rc)
		return 0;
	fd_close(hold);
	if (rc != -EEXIST)
		(void)unlinkat(s->cache.dir, name, AT_REMOVEDIR);
	return rc;
}

int store_pull_begin(struct store *s, char name[32], int *hold, struct err *e)
{
	int rc = -EEXIST;

	for (unsigned i = 0; i < 1000 && rc == -EEXIST; i++) {
		snprintf(name, 32, STORE_PULL "%d-%u", (int)getpid(), i);
		rc = mkdirat(s->cache.dir, name, 0700) ? -errno : pull_hold(s, name, hold);
	}
	return rc ? cache_failed(&s->cache, rc, "new directory", e) : 0;
}

void store_pull_end(struct store *s, const char *name, int *hold)
{
	tree_remove(s->cache.dir, name);
	fd_close(hold);
}

void store_pull_tidy(struct store *s, const char *name)
{
	int fd = openat(s->cache.dir, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);

	if (fd >= 0 && !flock(fd, LOCK_EX | LOCK_NB))
		tree_remove(s->cache.dir, name);
	fd_close(&fd);
}
