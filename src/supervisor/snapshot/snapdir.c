/* SPDX-License-Identifier: BSD-2-Clause */
/* A snapshot on disk. See snapdir.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>
#include <insula/board.h>
#include <insula/image.h>
#include <insula/log.h>
#include <insula/sha256.h>

#include "snapdir_os.h"
#include "spec/json.h"

#define MACHINE_MAX (2u << 20)
#define DEPTH 16

const char *const snapdir_names[SNAPDIR_FILES] = {
	[SNAPDIR_MACHINE] = "machine.json",
	[SNAPDIR_VMM] = "vmm",
	[SNAPDIR_DEVICES] = "devices",
	[SNAPDIR_MEMORY] = "memory",
};

/* ---- sums ---- */

int snapdir_sum(int fd, char out[65], struct err *e)
{
	uint8_t buf[16384], digest[SHA256_LEN];
	struct sha256 s;
	uint64_t size = 0;
	int rc = file_size(fd, &size);

	sha256_init(&s);
	for (uint64_t at = 0; at < size && !rc;) {
		size_t n = size - at < sizeof(buf) ? (size_t)(size - at) : sizeof(buf);

		rc = read_full(fd, buf, n, at);
		sha256_add(&s, buf, n);
		at += n;
	}
	if (rc)
		return err_sys(e, rc, "cannot be read");
	sha256_end(&s, digest);
	sha256_text(digest, out);
	return 0;
}

/* HMAC-SHA-256, RFC 2104. */
static void keyed_sum(const uint8_t key[SNAPDIR_KEY], const void *text, size_t len,
		      char out[SHA256_TEXT])
{
	uint8_t pad[2][64], digest[SHA256_LEN];
	struct sha256 s;

	memset(pad[0], 0x36, sizeof(pad[0]));
	memset(pad[1], 0x5c, sizeof(pad[1]));
	for (unsigned i = 0; i < SNAPDIR_KEY; i++) {
		pad[0][i] ^= key[i];
		pad[1][i] ^= key[i];
	}
	sha256_init(&s);
	sha256_add(&s, pad[0], sizeof(pad[0]));
	sha256_add(&s, text, len);
	sha256_end(&s, digest);
	sha256_init(&s);
	sha256_add(&s, pad[1], sizeof(pad[1]));
	sha256_add(&s, digest, sizeof(digest));
	sha256_end(&s, digest);
	sha256_text(digest, out);
}

/* ---- make ---- */

void snapdir_none(struct snapdir *d)
{
	*d = (struct snapdir){.parent = -1, .dir = -1, .lock = -1};
	for (unsigned i = 0; i < SNAPDIR_FILES; i++)
		d->file[i] = -1;
}

int snapdir_write(struct snapdir *d, enum snapdir_file f, const void *buf, size_t len,
		  struct err *e)
{
	int rc = write_full(d->file[f], buf, len);

	return rc ? err_sys(e, rc, "path: %s", snapdir_names[f]) : 0;
}

int snapdir_copy(struct snapdir *d, enum snapdir_file f, int shm, uint64_t len, struct err *e)
{
	uint8_t buf[16384];
	int rc = 0;

	for (uint64_t at = 0; at < len && !rc;) {
		size_t n = len - at < sizeof(buf) ? (size_t)(len - at) : sizeof(buf);

		rc = shm_read(shm, buf, n, at);
		rc = rc ? err_sys(e, rc, "path: %s", snapdir_names[f])
			: snapdir_write(d, f, buf, n, e);
		at += n;
	}
	return rc;
}

int snapdir_seal(struct snapdir *d, const char *text, size_t len, const char *cache, struct err *e)
{
	uint8_t key[SNAPDIR_KEY] = {0};
	char sum[SHA256_TEXT];
	int rc = snapdir_key(cache, true, key);

	if (rc) {
		log_warn("the snapshot has no seal, because there is no key in '%s': %s; whoever "
			 "restores it has to name its disks, cards and shares",
			 cache, strerror(-rc));
		return 0;
	}
	keyed_sum(key, text, len, sum);
	rc = snapdir_write_seal(d, sum);
	return rc ? err_sys(e, rc, "path: %s", SNAPDIR_SEAL) : 0;
}

/* ---- read ---- */

void snapshot_none(struct snapshot *s)
{
	*s = (struct snapshot){.nmemory = 0};
	for (unsigned i = 0; i < SNAPDIR_FILES; i++)
		s->file[i] = -1;
	for (unsigned i = 0; i < RAM_CHAIN; i++)
		s->memory[i] = -1;
}

static bool seal_is(const char *have, const char *cache, const char *text, size_t len)
{
	uint8_t key[SNAPDIR_KEY] = {0};
	char want[SHA256_TEXT];

	if (snapdir_key(cache, false, key))
		return false;
	keyed_sum(key, text, len, want);
	return !strcmp(want, have);
}

/* What others can write to is not what was sealed: memory has no sum that they could
 * not make. */
static bool is_sealed(int dir, const char *path, const char *text, size_t len, const char *cache)
{
	char have[SHA256_TEXT] = "";
	struct err e;
	int fd, rc;

	if (!snapdir_is_ours(dir))
		return false;
	fd = snapdir_open_file(dir, path, SNAPDIR_SEAL, &e);
	if (fd < 0)
		return false;
	rc = read_full(fd, have, SHA256_TEXT - 1, 0);
	fd_close(&fd);
	return !rc &&
	       (seal_is(have, cache, text, len) || seal_is(have, snapdir_other_cache(), text, len));
}

static int wrong(struct err *e, const char *path, const char *what)
{
	return err_set(e, -EPROTO, "snapshot: %s/machine.json: %s", path, what);
}

static int check_machine(struct snapshot *s, const char *path, struct err *e)
{
	int64_t format = j_get_int(s->machine, "format", 0);
	int64_t mem_max = j_get_int(j_get(s->machine, "memory"), "max", 0);
	int64_t mem = j_get_int(s->machine, "mem", 0), cpus = j_get_int(s->machine, "cpus", 0);
	int64_t max = j_get_int(s->machine, "cpus_max", 0);

	if (format < SNAPDIR_FORMAT || format > SNAPDIR_FORMAT_HELD)
		return err_set(e, -EPROTO, "snapshot: %s: of format %lld; expected %d to %d", path,
			       (long long)format, SNAPDIR_FORMAT, SNAPDIR_FORMAT_HELD);
	if (cpus < 1 || cpus > BOARD_MAX_CPUS)
		return wrong(e, path, "cpus: expected 1 to 32");
	if (max && (max <= cpus || max > BOARD_MAX_CPUS))
		return wrong(e, path, "cpus_max: expected more than cpus, up to 32");
	if (mem < (int64_t)BOARD_MIN_MEM || mem > (int64_t)BOARD_MAX_MEM || mem % RAM_PAGE)
		return wrong(e, path, "mem: expected a size that a VM can have");
	if (strlen(j_get_str(s->machine, "id", "")) != SNAPDIR_ID_LEN)
		return wrong(e, path, "id: expected 32 digits");
	if (!json_object_is_type(j_get(s->machine, "config"), json_type_object))
		return wrong(e, path, "config: expected an object");
	if (mem_max && (mem_max <= mem || mem_max > (int64_t)BOARD_MAX_MEM || mem_max % RAM_PAGE))
		return wrong(e, path, "memory: max: expected a size that a VM can have");
	s->mem = (uint64_t)mem;
	s->mem_max = (uint64_t)mem_max;
	s->cpus = (unsigned)cpus;
	s->cpus_max = (unsigned)max;
	return 0;
}

static int read_machine(struct snapshot *s, int dir, const char *path, const char *cache,
			struct err *e)
{
	uint64_t size = 0;
	const char *why = "";
	char *text;
	int rc = file_size(s->file[SNAPDIR_MACHINE], &size);

	if (rc || !size || size > MACHINE_MAX)
		return wrong(e, path, "expected 1 byte to 2 MiB of JSON");
	text = malloc((size_t)size);
	rc = text ? read_full(s->file[SNAPDIR_MACHINE], text, (size_t)size, 0) : -ENOMEM;
	if (!rc)
		s->machine = j_parse(text, (size_t)size, DEPTH, &why);
	if (s->machine)
		s->sealed = is_sealed(dir, path, text, (size_t)size, cache);
	free(text);
	if (rc)
		return err_sys(e, rc, "snapshot: %s/machine.json", path);
	if (!json_object_is_type(s->machine, json_type_object))
		return wrong(e, path, s->machine || !why[0] ? "expected an object" : why);
	return check_machine(s, path, e);
}

static int check_sum(const struct snapshot *s, enum snapdir_file f, const char *path, struct err *e)
{
	char key[32], sum[SHA256_TEXT];
	struct err inner;
	int rc = snapdir_sum(s->file[f], sum, &inner);

	snprintf(key, sizeof(key), "%s_sha256", snapdir_names[f]);
	if (rc)
		return err_set(e, rc, "snapshot: %s/%s: %s", path, snapdir_names[f], inner.text);
	if (strcmp(sum, j_get_str(s->machine, key, "")) != 0)
		return err_set(e, -EPROTO,
			       "snapshot: %s/%s: is damaged: its sum is not that of "
			       "machine.json",
			       path, snapdir_names[f]);
	return 0;
}

/* What it builds on, from the one that was named to the first whole one: its memory alone. */
static int open_bases(struct snapshot *s, const char *cache, struct err *e)
{
	json_object *machine = s->machine;
	struct snapshot below;
	int rc = 0;

	snapshot_none(&below);
	while (!rc && j_get(machine, "base")) {
		/* It is a path of the host, and what is there becomes the guest's memory. */
		if (!s->sealed) {
			rc = err_set(e, -EPROTO,
				     "snapshot: builds on another one, and was not made by this "
				     "user on this host; expected one that is whole");
			break;
		}
		const char *path = j_get_str(j_get(machine, "base"), "path", "");
		const char *id = j_get_str(j_get(machine, "base"), "id", "");
		struct snapshot b;
		int dir = snapdir_open(path);

		snapshot_none(&b);
		if (dir < 0)
			rc = err_sys(e, dir, "snapshot: what it builds on: %s", path);
		else if (s->nmemory == RAM_CHAIN)
			rc = err_set(e, -EPROTO, "snapshot: builds on more than %u others",
				     RAM_CHAIN - 1);
		else
			rc = b.file[SNAPDIR_MACHINE] =
				snapdir_open_file(dir, path, snapdir_names[SNAPDIR_MACHINE], e);
		if (rc >= 0)
			rc = read_machine(&b, dir, path, cache, e);
		if (!rc && strcmp(id, j_get_str(b.machine, "id", "")) != 0)
			rc = err_set(e, -EPROTO, "snapshot: builds on %s, which is another one now",
				     path);
		s->sealed = b.sealed; /* or it is not the one that was sealed */
		if (!rc && !b.sealed)
			rc = err_set(e, -EPROTO, "snapshot: builds on %s, which has no seal", path);
		if (!rc && (b.mem != s->mem || b.mem_max != s->mem_max))
			rc = err_set(e, -EPROTO, "snapshot: builds on %s, of another size", path);
		if (!rc) {
			memmove(s->memory + 1, s->memory, s->nmemory * sizeof(*s->memory));
			s->memory[0] =
				snapdir_open_file(dir, path, snapdir_names[SNAPDIR_MEMORY], e);
			rc = s->memory[0] < 0 ? s->memory[0] : 0;
			s->nmemory++;
		}
		fd_close(&dir);
		snapshot_close(&below);
		below = b;
		machine = below.machine;
	}
	snapshot_close(&below);
	return rc;
}

int snapshot_open(struct snapshot *s, const char *path, const char *cache, struct err *e)
{
	int dir = snapdir_open(path), rc = 0;

	snapshot_none(s);
	if (dir < 0)
		return err_sys(e, dir, "snapshot: %s", path);
	for (unsigned i = 0; i < SNAPDIR_FILES && rc >= 0; i++)
		rc = s->file[i] = snapdir_open_file(dir, path, snapdir_names[i], e);
	if (rc >= 0)
		rc = read_machine(s, dir, path, cache, e);
	for (unsigned i = 0; i < SNAPDIR_FILES && !rc; i++)
		s->sealed &= snapdir_is_ours(s->file[i]);
	if (!rc)
		rc = check_sum(s, SNAPDIR_VMM, path, e);
	if (!rc)
		rc = check_sum(s, SNAPDIR_DEVICES, path, e);
	fd_close(&dir);
	if (!rc) {
		s->memory[s->nmemory++] = s->file[SNAPDIR_MEMORY];
		s->file[SNAPDIR_MEMORY] = -1;
		rc = open_bases(s, cache, e);
	}
	if (rc)
		snapshot_close(s);
	return rc;
}

void snapshot_close_files(struct snapshot *s)
{
	for (unsigned i = 0; i < SNAPDIR_FILES; i++)
		fd_close(&s->file[i]);
	for (unsigned i = 0; i < RAM_CHAIN; i++)
		fd_close(&s->memory[i]);
}

void snapshot_close(struct snapshot *s)
{
	snapshot_close_files(s);
	json_object_put(s->machine);
	s->machine = NULL;
}
