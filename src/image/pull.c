/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Images: from a reference to files that a VM can have as disks (insula/image.h, image_open()).
 *
 *   oci:DIR[:TAG]     the index, the manifest and the configuration are read here; the digest of
 *                     the manifest names the image
 *   FILE              archives: skopeo makes such a directory of one. What it held is remembered
 *                     with the state of the file (hash_stat())
 *   dir:, sif: ...    are read by skopeo each time
 *   anything else     is fetched by skopeo, too; what the reference named is remembered, and the
 *                     pull policy decides whether that is believed
 *
 * Each file of the store is made by whoever holds its lock; others wait and find it. Nothing of an
 * image is executed or interpreted here but its JSON (oci.c); layers are for insula-layer.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/image.h>
#include <insula/log.h>

#include "layers.h"
#include "oci.h"
#include "spawn.h"
#include "store.h"

#define INDEX_DEPTH 3 /* an index of indexes of images; nobody makes a fourth */
#define PULLED_TAG "i"
#define PROC_FD "/proc/self/fd/%d"
#define FETCH_MAX (128ull << 30) /* a file that skopeo writes */

struct pull {
	const struct image_params *p;
	struct store store;
	struct image *out;
	struct oci_config config;
	struct oci_manifest m;
	struct oci_blob manifest;    /* digest of it */
	int dir;                     /* of an OCI layout, or -1 */
	uint64_t bytes, most, limit; /* of the files so far; of all of them; of all images */
};

/* ---- an OCI layout ---- */

/* What it is comes first: to open a device, or a pipe that somebody waits at, is to use it. */
static int open_regular(int dir, const char *path, const char *what, struct err *e)
{
	int at = openat(dir, path, O_PATH | O_CLOEXEC), fd = -1;
	char name[32];
	struct stat st;

	if (at < 0)
		return err_sys(e, -errno, "%s", what);
	if (fstat(at, &st) || !S_ISREG(st.st_mode)) {
		close(at);
		return err_set(e, -EINVAL, "%s: not a file", what);
	}
	snprintf(name, sizeof(name), PROC_FD, at);
	fd = open(name, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		fd = err_sys(e, -errno, "%s", what);
	close(at);
	return fd;
}

/* At most OCI_TEXT_MAX bytes. */
static int read_text(int dir, const char *path, const char *what, char **text, size_t *len,
		     struct err *e)
{
	int fd = open_regular(dir, path, what, e), rc = fd < 0 ? fd : 0;
	uint64_t size = 0;

	*text = NULL;
	if (rc)
		return rc;
	rc = file_size(fd, &size);
	if (!rc && size > OCI_TEXT_MAX)
		rc = err_set(e, -EINVAL, "%s: %llu bytes; expected at most %u", what,
			     (unsigned long long)size, OCI_TEXT_MAX);
	if (!rc) {
		*len = (size_t)size;
		*text = calloc(1, *len + 1);
		rc = *text ? read_full(fd, *text, *len, 0) : -ENOMEM;
		if (rc)
			err_sys(e, rc, "%s", what);
	}
	close(fd);
	if (rc) {
		free(*text);
		*text = NULL;
	}
	return rc;
}

static void blob_path(const struct oci_blob *b, char out[96])
{
	snprintf(out, 96, "blobs/sha256/%s", b->hex);
}

/* A manifest or a configuration, with the digest and the length that it must have. */
static int read_blob(const struct pull *k, const struct oci_blob *b, const char *what, char **text,
		     size_t *len, struct err *e)
{
	uint8_t digest[SHA256_LEN];
	char path[96], hex[SHA256_TEXT], name[64];
	struct sha256 s;
	int rc;

	blob_path(b, path);
	snprintf(name, sizeof(name), "%s sha256:%.12s", what, b->hex);
	rc = read_text(k->dir, path, name, text, len, e);
	if (rc)
		return rc;
	sha256_init(&s);
	sha256_add(&s, *text, *len);
	sha256_end(&s, digest);
	sha256_text(digest, hex);
	if (*len == b->size && !strcmp(hex, b->hex))
		return 0;
	free(*text);
	*text = NULL;
	return err_set(e, -EINVAL, "%s: has %zu bytes with the digest sha256:%.12s", name, *len,
		       hex);
}

/* "1.0.0": others of that major version add to it. */
static int check_layout(const struct pull *k, struct err *e)
{
	static const char file[] = "oci-layout";
	char *text;
	size_t len;
	int rc = read_text(k->dir, file, file, &text, &len, e);

	if (rc)
		return rc;
	if (!strstr(text, "\"imageLayoutVersion\"") || !strstr(text, "\"1."))
		rc = err_set(e, -EINVAL, "oci-layout: expected imageLayoutVersion 1.0.0");
	free(text);
	return rc;
}

static int find_manifest(struct pull *k, const char *tag, struct err *e)
{
	bool index = true;
	char *text;
	size_t len;
	int rc = read_text(k->dir, "index.json", "index.json", &text, &len, e);

	for (unsigned depth = 0; !rc && index; depth++) {
		rc = oci_index(text, len, tag, &k->manifest, &index, e);
		free(text);
		text = NULL;
		if (!rc && depth == INDEX_DEPTH)
			rc = err_set(e, -EINVAL, "more than %d indexes in each other", INDEX_DEPTH);
		tag = "";
		if (!rc && index)
			rc = read_blob(k, &k->manifest, "index", &text, &len, e);
	}
	return rc;
}

static int read_manifest(struct pull *k, struct err *e)
{
	char *text;
	size_t len;
	int rc = read_blob(k, &k->manifest, "manifest", &text, &len, e);

	if (rc)
		return rc;
	rc = oci_manifest(text, len, &k->m, e);
	free(text);
	text = NULL;
	if (!rc)
		rc = read_blob(k, &k->m.config, "configuration", &text, &len, e);
	if (rc)
		return rc;
	oci_config_free(&k->config);
	rc = oci_config(text, len, &k->config, e);
	free(text);
	if (!rc && k->config.ndiff != k->m.nlayers)
		rc = err_set(e, -EINVAL, "configuration: diff_ids: %u; expected %u, one per layer",
			     k->config.ndiff, k->m.nlayers);
	return rc;
}

/* ---- layers ---- */

/* How many of the lowest ones are in one file. */
static unsigned merged(const struct pull *k)
{
	unsigned most = k->p->layers;

	return k->m.nlayers > most ? k->m.nlayers - most + 1 : 1;
}

/* The name of the nth file; *first and *n: its layers. */
static void file_name(const struct pull *k, unsigned nth, char name[STORE_NAME_MAX],
		      unsigned *first, unsigned *n)
{
	unsigned low = merged(k);

	*first = nth ? low + nth - 1 : 0;
	*n = nth ? 1 : low;
	if (*n > 1)
		store_merged_name(&k->m, *n, name);
	else
		store_layer_name(&k->m.layer[*first], name);
}

static unsigned files(const struct pull *k)
{
	return k->m.nlayers - merged(k) + 1;
}

/* Its name may become that of another file before a VM opens it. */
static int keep_file(struct pull *k, unsigned nth, const char *name, int fd, struct err *e)
{
	struct image *o = k->out;
	uint64_t size;
	int rc = file_size(fd, &size);

	o->hold[nth] = fd;
	o->nlayers = nth + 1;
	if (rc)
		return cache_failed(&k->store.cache, rc, name, e);
	k->bytes += size;
	if (asprintf(&o->path[nth], PROC_FD, fd) < 0) {
		o->path[nth] = NULL;
		return err_set(e, -ENOMEM, "out of memory");
	}
	log_debug("image: %s is %s/%s", o->path[nth], k->store.cache.path, name);
	return 0;
}

static void drop_files(struct image *o)
{
	for (unsigned i = 0; i < IMAGE_LAYERS_MAX; i++) {
		free(o->path[i]);
		o->path[i] = NULL;
		fd_close(&o->hold[i]);
	}
	o->nlayers = 0;
	fd_close(&o->record);
}

static int blob_of_layer(void *ctx, unsigned i, struct err *e)
{
	const struct pull *k = ((void **)ctx)[0];
	unsigned first = *(unsigned *)((void **)ctx)[1];
	char path[96], what[64];

	blob_path(&k->m.layer[first + i], path);
	snprintf(what, sizeof(what), "layer sha256:%.12s", k->m.layer[first + i].hex);
	return open_regular(k->dir, path, what, e);
}

static int too_large(const struct pull *k, struct err *e)
{
	return err_set(e, -EFBIG,
		       "more than %llu MiB unpacked, all layers together; INSULA_IMAGE_MAX may "
		       "allow more",
		       (unsigned long long)k->most >> 20);
}

static int make_file(struct pull *k, const char *name, unsigned first, unsigned n, int *fd,
		     struct err *e)
{
	void *ctx[2] = {k, &first};
	char program[IMAGE_PATH_MAX];
	struct layers_job j = {.layer = &k->m.layer[first],
			       .diff_id = k->config.ndiff ? &k->config.diff_id[first] : NULL,
			       .n = n,
			       .all = k->m.nlayers,
			       .first = first,
			       .blob = blob_of_layer,
			       .ctx = ctx,
			       .store = &k->store,
			       .bytes = k->most - k->bytes,
			       .merge = n > 1,
			       .progress = k->p->progress,
			       .progress_ctx = k->p->ctx};
	int rc;

	snprintf(program, sizeof(program), "%s/insula-layer", k->p->libexec);
	j.program = open(program, O_RDONLY | O_CLOEXEC);
	if (j.program < 0)
		return err_sys(e, -errno, "%s", program);
	cache_name_is(&k->store.cache, name);
	rc = store_go_on(&k->store, e);
	if (!rc)
		rc = cache_begin(&k->store.cache, e);
	if (!rc)
		rc = layers_make(&j, k->store.cache.tmp, e);
	if (!rc)
		rc = cache_commit(&k->store.cache, fd, e);
	else
		rc = rc == -EFBIG ? too_large(k, e) : store_reason(&k->store, rc, e);
	cache_drop(&k->store.cache);
	close(j.program);
	return rc;
}

/* With its lock, so that two runs do not make it twice. */
static int get_or_make(struct pull *k, unsigned nth, struct err *e)
{
	char name[STORE_NAME_MAX];
	unsigned first, n;
	int fd = -1, rc;

	file_name(k, nth, name, &first, &n);
	rc = store_lock(&k->store, name, e);
	if (rc)
		return rc;
	rc = store_get(&k->store, name, &fd, e);
	if (rc == -ENOENT)
		rc = make_file(k, name, first, n, &fd, e);
	store_unlock(&k->store, name);
	if (!rc)
		rc = keep_file(k, nth, name, fd, e);
	return !rc && k->bytes > k->most ? too_large(k, e) : rc;
}

static int get_files(struct pull *k, struct err *e)
{
	char name[STORE_NAME_MAX];
	unsigned first, n;
	int fd, rc = 0;

	for (unsigned i = 0; i < files(k) && !rc; i++) {
		file_name(k, i, name, &first, &n);
		rc = store_get(&k->store, name, &fd, e);
		if (!rc)
			rc = keep_file(k, i, name, fd, e);
	}
	return rc;
}

/* ---- the store ---- */

/* The image of this digest from the store, whole: 0; -ENOENT: it is not. */
static int take_stored(struct pull *k, const char *hex, struct err *e)
{
	char name[STORE_NAME_MAX], *text;
	size_t len;
	int rc;

	store_image_name(hex, name);
	rc = store_read(&k->store, name, &text, &len, &k->out->record, e);
	if (rc)
		return rc;
	oci_config_free(&k->config);
	rc = oci_record_read(text, len, &k->m, &k->config, e);
	free(text);
	if (!rc)
		rc = get_files(k, e);
	if (!rc)
		return 0;
	drop_files(k->out);
	return rc == -ENOMEM || rc == -EMFILE ? rc : -ENOENT;
}

/* The layers of what does not become an image are nobody's, unless another has them. */
static void forget_files(struct pull *k)
{
	struct err ignored;

	drop_files(k->out);
	(void)store_trim(&k->store, UINT64_MAX, NULL, NULL, &ignored);
}

static int make_stored(struct pull *k, struct err *e)
{
	char name[STORE_NAME_MAX], *text;
	int rc = 0;

	k->bytes = 0;
	for (unsigned i = 0; i < files(k) && !rc; i++)
		rc = get_or_make(k, i, e);
	text = rc ? NULL : oci_record(&k->m, k->manifest.hex, &k->config);
	store_image_name(k->manifest.hex, name);
	if (!rc)
		rc = text ? store_write(&k->store, name, text, &k->out->record, e)
			  : err_set(e, -ENOMEM, "out of memory");
	free(text);
	if (!rc)
		return store_trim(&k->store, k->limit, k->manifest.hex, NULL, e);
	forget_files(k);
	return rc;
}

/* From the layout that is open. */
static int take_layout(struct pull *k, const char *tag, struct err *e)
{
	int rc = check_layout(k, e);

	if (!rc)
		rc = find_manifest(k, tag, e);
	if (rc)
		return rc;
	if (!k->p->check_only) {
		rc = take_stored(k, k->manifest.hex, e);
		if (rc != -ENOENT)
			return rc;
	}
	rc = read_manifest(k, e);
	return rc || k->p->check_only ? rc : make_stored(k, e);
}

static int remember(struct pull *k, const char *reference, const char *state, struct err *e)
{
	struct store_ref r = {.hex = ""}, old;
	struct err ignored;

	snprintf(r.reference, sizeof(r.reference), "%s", reference);
	snprintf(r.hex, sizeof(r.hex), "%s", k->manifest.hex);
	snprintf(r.state, sizeof(r.state), "%s", state);
	if (!store_ref_read(&k->store, reference, &old, &ignored) && !strcmp(old.hex, r.hex) &&
	    !strcmp(old.state, r.state))
		return 0;
	return store_ref_write(&k->store, &r, e);
}

/* What is remembered of a reference, if it is still so and whole. */
static int take_remembered(struct pull *k, const char *reference, const char *state, struct err *e)
{
	struct store_ref r;
	int rc = store_ref_read(&k->store, reference, &r, e);

	if (rc || strcmp(r.state, state) != 0)
		return rc ? rc : -ENOENT;
	memcpy(k->manifest.hex, r.hex, sizeof(k->manifest.hex));
	return take_stored(k, r.hex, e);
}

/* ---- skopeo ---- */

static int tick(void *ctx, struct err *e)
{
	const struct pull *k = ctx;
	char what[128];

	snprintf(what, sizeof(what), "fetching %.100s", k->p->reference);
	if (k->p->progress)
		k->p->progress(k->p->ctx, what, 0, 0);
	return store_go_on(&k->store, e);
}

static int run_skopeo(struct pull *k, const char *to, struct err *e)
{
	const char *const argv[] = {"skopeo", "--override-os", "linux", "--override-arch", "amd64",
				    "copy",   "--quiet",       "--",    k->p->reference,   to,
				    NULL};
	struct spawn s = {.argv = argv,
			  .package = "skopeo",
			  .in = -1,
			  .out = -1,
			  .extra = -1,
			  .own_env = true,
			  .fsize = FETCH_MAX,
			  .tick = tick,
			  .ctx = k};
	int rc = store_go_on(&k->store, e);

	if (!rc)
		rc = spawn_run(&s, e);
	if (k->p->progress)
		k->p->progress(k->p->ctx, "", 1, 1);
	return rc;
}

/* Into a directory of the store's, and from there. */
static int fetch(struct pull *k, struct err *e)
{
	char name[32], to[IMAGE_PATH_MAX + 64];
	int hold = -1, rc = store_pull_begin(&k->store, name, &hold, e);

	if (rc)
		return rc;
	snprintf(to, sizeof(to), "oci:%s/%s/l:" PULLED_TAG, k->store.cache.path, name);
	rc = store_reason(&k->store, run_skopeo(k, to, e), e);
	if (!rc) {
		k->dir = openat(hold, "l", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		rc = k->dir < 0 ? err_sys(e, -errno, "what skopeo fetched")
				: take_layout(k, PULLED_TAG, e);
	}
	fd_close(&k->dir);
	store_pull_end(&k->store, name, &hold);
	return rc;
}

/* What lies on this machine may be another the next time, and its path may be relative: nothing is
 * remembered of such a reference. */
static int take_local(struct pull *k, struct err *e)
{
	if (k->p->pull == IMAGE_PULL_NEVER)
		return err_set(e, -ENOENT, "%.150s: is read each time, and --pull is never",
			       k->p->reference);
	return k->p->check_only ? 0 : fetch(k, e);
}

/* `state`: of the file that it is; "": what is remembered is believed as the policy says. */
static int take_fetched(struct pull *k, const char *reference, const char *state, struct err *e)
{
	bool believe = state[0] || k->p->pull != IMAGE_PULL_ALWAYS;
	char name[STORE_NAME_MAX];
	int rc = believe ? take_remembered(k, reference, state, e) : -ENOENT;

	if (rc != -ENOENT || k->p->check_only)
		return rc == -ENOENT && k->p->pull != IMAGE_PULL_NEVER ? 0 : rc;
	if (!state[0] && k->p->pull == IMAGE_PULL_NEVER)
		return err_set(e, -ENOENT, "%.150s: not in the cache, and --pull is never",
			       reference);
	store_ref_name(reference, name);
	rc = store_lock(&k->store, name, e);
	if (rc)
		return rc;
	rc = believe ? take_remembered(k, reference, state, e) : -ENOENT;
	if (rc == -ENOENT) { /* nobody else has fetched it meanwhile */
		rc = fetch(k, e);
		if (!rc)
			rc = remember(k, reference, state, e);
	}
	store_unlock(&k->store, name);
	return rc;
}

/* ---- references ---- */

/* TRANSPORT:PATH[:REST]: as skopeo has it, the path ends at the first colon. */
static int split(const char *ref, size_t prefix, char **path, const char **rest, struct err *e)
{
	size_t n = strcspn(ref + prefix, ":");

	*rest = ref[prefix + n] ? ref + prefix + n + 1 : "";
	*path = strndup(ref + prefix, n);
	if (!*path)
		return err_set(e, -ENOMEM, "out of memory");
	if (n)
		return 0;
	free(*path);
	*path = NULL;
	return err_set(e, -EINVAL, "%.60s: expected a path behind the transport", ref);
}

/* The same for one that is the same file or directory. */
static int canonical(const char *ref, size_t prefix, const char *path, const char *rest,
		     char out[1100], struct err *e)
{
	char *real = realpath(path, NULL);
	int n;

	if (!real)
		return err_sys(e, -errno, "%.150s", path);
	n = snprintf(out, 1100, "%.*s%s%s%s", (int)prefix, ref, real, *rest ? ":" : "", rest);
	free(real);
	return n < 1100 ? 0 : err_set(e, -ENAMETOOLONG, "the path of the image is too long");
}

static int take_oci(struct pull *k, struct err *e)
{
	char *path, reference[1100];
	const char *tag;
	int rc = split(k->p->reference, 4, &path, &tag, e);

	if (rc)
		return rc;
	rc = canonical(k->p->reference, 4, path, tag, reference, e);
	if (!rc) {
		k->dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		rc = k->dir < 0 ? err_sys(e, -errno, "%.150s", path) : take_layout(k, tag, e);
	}
	if (!rc && !k->p->check_only)
		rc = remember(k, reference, "", e);
	fd_close(&k->dir);
	free(path);
	return rc;
}

static int take_archive(struct pull *k, size_t prefix, struct err *e)
{
	char *path, reference[1100], state[HASH_TEXT];
	const char *rest;
	struct hash h;
	struct stat st;
	int rc = split(k->p->reference, prefix, &path, &rest, e);

	if (rc)
		return rc;
	if (stat(path, &st))
		rc = err_sys(e, -errno, "%.150s", path);
	else if (!S_ISREG(st.st_mode))
		rc = err_set(e, -EINVAL, "%.150s: not a file", path);
	if (!rc)
		rc = canonical(k->p->reference, prefix, path, rest, reference, e);
	free(path);
	if (rc)
		return rc;
	hash_init(&h);
	hash_stat(&h, &st);
	hash_text(&h, state);
	return take_fetched(k, reference, state, e);
}

static int take(struct pull *k, struct err *e)
{
	static const char *const archives[] = {"oci-archive:", "docker-archive:"};
	static const char *const local[] = {"dir:", "sif:", "ostree:", "containers-storage:["};
	const char *ref = k->p->reference;

	if (!strncmp(ref, "oci:", 4))
		return take_oci(k, e);
	for (size_t i = 0; i < ARRAY_LEN(archives); i++)
		if (!strncmp(ref, archives[i], strlen(archives[i])))
			return take_archive(k, strlen(archives[i]), e);
	for (size_t i = 0; i < ARRAY_LEN(local); i++)
		if (!strncmp(ref, local[i], strlen(local[i])))
			return take_local(k, e);
	return take_fetched(k, ref, "", e);
}

/* ---- the door ---- */

/* Its strings are the caller's now. */
static void give(struct pull *k)
{
	struct image *o = k->out;

	o->entrypoint = k->config.entrypoint;
	o->cmd = k->config.cmd;
	o->env = k->config.env;
	o->user = k->config.user;
	o->cwd = k->config.cwd;
	k->config.entrypoint = k->config.cmd = k->config.env = NULL;
	k->config.user = k->config.cwd = NULL;
	snprintf(o->digest, sizeof(o->digest), "sha256:%s", k->manifest.hex);
}

int image_open(const struct image_params *p, struct image *out, struct err *e)
{
	struct pull *k = calloc(1, sizeof(*k));
	char dir[IMAGE_PATH_MAX];
	struct err why;
	int rc;

	*out = (struct image){.record = -1};
	for (unsigned i = 0; i < IMAGE_LAYERS_MAX; i++)
		out->hold[i] = -1;
	if (!k)
		return err_set(e, -ENOMEM, "out of memory");
	*k = (struct pull){.p = p, .out = out, .dir = -1};
	rc = image_store_dir(dir, &why);
	if (!rc && strchr(dir, ':'))
		rc = err_set(&why, -EINVAL, "cache directory %.150s: a colon in its path", dir);
	if (!rc)
		rc = store_open(&k->store, dir, &why);
	if (!rc) {
		rc = store_start_clock(&k->store, &why);
		if (!rc)
			rc = store_image_max(&k->most, &why);
		if (!rc)
			rc = store_limit(&k->limit, &why);
		if (!rc)
			rc = take(k, &why);
		store_close(&k->store);
	}
	if (rc)
		err_set(e, rc, "%s", why.text);
	else if (k->manifest.hex[0])
		give(k);
	oci_config_free(&k->config);
	free(k);
	return rc;
}

static void free_list(char **list)
{
	for (char **s = list; s && *s; s++)
		free(*s);
	free((void *)list);
}

void image_free(struct image *i)
{
	drop_files(i);
	free_list(i->entrypoint);
	free_list(i->cmd);
	free_list(i->env);
	free(i->user);
	free(i->cwd);
	*i = (struct image){.record = -1};
	for (unsigned n = 0; n < IMAGE_LAYERS_MAX; n++)
		i->hold[n] = -1;
}
