/* SPDX-License-Identifier: BSD-2-Clause */
/* A snapshot on disk. See snapdir.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/board.h>
#include <insula/image.h>
#include <insula/log.h>
#include <insula/sha256.h>

#include "snapdir.h"
#include "spec/json.h"

#define MACHINE_MAX (2u << 20)
#define DEPTH 16
#define KEY_LEN 32u
#define SEAL "seal"
#define ORDER "working-set" /* restore.c writes it */

static const char *const names[SNAPDIR_FILES] = {
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
	uint64_t at = 0;
	ssize_t n;

	sha256_init(&s);
	while ((n = pread(fd, buf, sizeof(buf), (off_t)at)) > 0) {
		sha256_add(&s, buf, (size_t)n);
		at += (uint64_t)n;
	}
	if (n < 0)
		return err_sys(e, -errno, "cannot be read");
	sha256_end(&s, digest);
	sha256_text(digest, out);
	return 0;
}

/* HMAC-SHA-256, RFC 2104. */
static void keyed_sum(const uint8_t key[KEY_LEN], const void *text, size_t len,
		      char out[SHA256_TEXT])
{
	uint8_t pad[2][64], digest[SHA256_LEN];
	struct sha256 s;

	memset(pad[0], 0x36, sizeof(pad[0]));
	memset(pad[1], 0x5c, sizeof(pad[1]));
	for (unsigned i = 0; i < KEY_LEN; i++) {
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

/* Nobody else can read it, or it is no key. */
static int read_key(const char *path, uint8_t key[KEY_LEN])
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK), rc;
	struct stat st;

	if (fd < 0)
		return -errno;
	rc = fstat(fd, &st) ? -errno : 0;
	if (!rc && (!S_ISREG(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 077)))
		rc = -EPERM;
	if (!rc)
		rc = read_full(fd, key, KEY_LEN, 0);
	close(fd);
	return rc;
}

/* One of two that make it at once wins: link() does not replace. */
static int make_key(const char *cache, const char *path)
{
	char part[PATH_MAX];
	uint8_t key[KEY_LEN] = {0};
	int fd, rc;

	if (snprintf(part, sizeof(part), "%s/.key-XXXXXX", cache) >= (int)sizeof(part))
		return -ENAMETOOLONG;
	fd = mkostemp(part, O_CLOEXEC);
	if (fd < 0)
		return -errno;
	random_bytes(key, sizeof(key));
	rc = write_full(fd, key, sizeof(key));
	if (!rc && fsync(fd))
		rc = -errno;
	if (!rc && link(part, path) && errno != EEXIST)
		rc = -errno;
	unlink(part);
	close(fd);
	return rc;
}

static int get_key(const char *cache, bool make, uint8_t key[KEY_LEN])
{
	char path[PATH_MAX];
	int rc;

	if (!cache[0] ||
	    snprintf(path, sizeof(path), "%s/snapshot.key", cache) >= (int)sizeof(path))
		return -ENOENT;
	rc = read_key(path, key);
	if (rc != -ENOENT || !make)
		return rc;
	if (mkdir(cache, 0700) && errno != EEXIST)
		return -errno;
	rc = make_key(cache, path);
	return rc ? rc : read_key(path, key);
}

/* ---- make ---- */

void snapdir_none(struct snapdir *d)
{
	*d = (struct snapdir){.parent = -1, .dir = -1};
	for (unsigned i = 0; i < SNAPDIR_FILES; i++)
		d->file[i] = -1;
}

/* "DIR/NAME", with what slashes there are. */
static int split(struct snapdir *d, const char *path, char parent[PATH_MAX], struct err *e)
{
	size_t len = strlen(path), from;

	while (len > 1 && path[len - 1] == '/')
		len--;
	for (from = len; from && path[from - 1] != '/';)
		from--;
	if (len == from || len - from > NAME_MAX - 16 || from >= PATH_MAX ||
	    !strncmp(path + from, "..", len - from) || !strncmp(path + from, ".", len - from))
		return err_set(e, -EINVAL, "path: '%.80s'; expected the name of a new directory",
			       path);
	snprintf(d->name, sizeof(d->name), "%.*s", (int)(len - from), path + from);
	snprintf(d->part, sizeof(d->part), ".%s.part", d->name);
	snprintf(parent, PATH_MAX, "%.*s", (int)from, from ? path : "");
	if (!from)
		strcpy(parent, ".");
	return 0;
}

static int make_files(struct snapdir *d, struct err *e)
{
	for (unsigned i = 0; i < SNAPDIR_FILES; i++) {
		d->file[i] = openat(d->dir, names[i], O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		if (d->file[i] < 0)
			return err_sys(e, -errno, "path: %s", names[i]);
	}
	return 0;
}

static void remove_files(const struct snapdir *d)
{
	for (unsigned i = 0; i < SNAPDIR_FILES; i++)
		unlinkat(d->dir, names[i], 0);
	unlinkat(d->dir, SEAL, 0);
	unlinkat(d->dir, ORDER, 0);
}

void snapdir_remove(const char *path)
{
	struct snapdir d = {.dir = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)};

	if (d.dir < 0)
		return;
	remove_files(&d);
	close(d.dir);
	if (rmdir(path))
		log_warn("snapshot: %s: %s", path, strerror(errno));
}

/* One that was left by a process that was killed is in nobody's way. */
static int make_part(struct snapdir *d)
{
	if (!mkdirat(d->parent, d->part, 0700))
		return 0;
	if (errno != EEXIST)
		return -errno;
	d->dir = openat(d->parent, d->part, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (d->dir < 0)
		return -errno;
	if (flock(d->dir, LOCK_EX | LOCK_NB)) {
		fd_close(&d->dir);
		return -EBUSY; /* another VM is writing it */
	}
	remove_files(d);
	fd_close(&d->dir);
	if (unlinkat(d->parent, d->part, AT_REMOVEDIR) || mkdirat(d->parent, d->part, 0700))
		return -errno;
	return 0;
}

int snapdir_make(struct snapdir *d, const char *path, struct err *e)
{
	char parent[PATH_MAX];
	struct stat st;
	int rc;

	snapdir_none(d);
	rc = split(d, path, parent, e);
	if (rc)
		return rc;
	d->parent = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (d->parent < 0)
		return err_sys(e, -errno, "path: %s", parent);
	if (!fstatat(d->parent, d->name, &st, AT_SYMLINK_NOFOLLOW))
		rc = err_set(e, -EEXIST, "path: '%.80s' exists; expected a new directory", path);
	if (!rc && (rc = make_part(d)))
		err_sys(e, rc, "path: %s", path);
	if (!rc) {
		d->dir =
			openat(d->parent, d->part, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		rc = d->dir < 0 || flock(d->dir, LOCK_EX | LOCK_NB) ? -errno : 0;
		if (rc)
			err_sys(e, rc, "path: %s", path);
		else
			rc = make_files(d, e);
	}
	if (rc == -EBUSY || rc == -EWOULDBLOCK) {
		d->part[0] = 0; /* another VM's */
		rc = err_set(e, -EBUSY, "path: '%.80s' is being written by another VM", path);
	}
	if (rc)
		snapdir_close(d);
	return rc;
}

int snapdir_write(struct snapdir *d, enum snapdir_file f, const void *buf, size_t len,
		  struct err *e)
{
	int rc = write_full(d->file[f], buf, len);

	return rc ? err_sys(e, rc, "path: %s", names[f]) : 0;
}

static int write_seal(const struct snapdir *d, const char sum[SHA256_TEXT])
{
	int fd = openat(d->dir, SEAL, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600), rc;

	if (fd < 0)
		return -errno;
	rc = write_full(fd, sum, SHA256_TEXT - 1);
	if (!rc && fsync(fd))
		rc = -errno;
	close(fd);
	return rc;
}

int snapdir_seal(struct snapdir *d, const char *text, size_t len, const char *cache, struct err *e)
{
	uint8_t key[KEY_LEN] = {0};
	char sum[SHA256_TEXT];
	int rc = get_key(cache, true, key);

	if (rc) {
		log_warn("the snapshot has no seal, because there is no key in '%s': %s; whoever "
			 "restores it has to name its disks, cards and shares",
			 cache, strerror(-rc));
		return 0;
	}
	keyed_sum(key, text, len, sum);
	rc = write_seal(d, sum);
	return rc ? err_sys(e, rc, "path: %s", SEAL) : 0;
}

int snapdir_keep(struct snapdir *d, struct err *e)
{
	if (renameat2(d->parent, d->part, d->parent, d->name, RENAME_NOREPLACE))
		return err_sys(e, -errno, "path: %s", d->name);
	d->part[0] = 0;
	return 0;
}

void snapdir_close(struct snapdir *d)
{
	if (d->dir >= 0 && d->part[0])
		remove_files(d);
	for (unsigned i = 0; i < SNAPDIR_FILES; i++)
		fd_close(&d->file[i]);
	fd_close(&d->dir);
	if (d->parent >= 0 && d->part[0])
		unlinkat(d->parent, d->part, AT_REMOVEDIR);
	fd_close(&d->parent);
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

static int open_one(int dir, const char *path, const char *name, struct err *e)
{
	int fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	struct stat st;

	if (fd < 0)
		return err_sys(e, -errno, "snapshot: %s/%s", path, name);
	if (!fstat(fd, &st) && S_ISREG(st.st_mode))
		return fd;
	close(fd);
	return err_set(e, -EPROTO, "snapshot: %s/%s: is no file", path, name);
}

static bool seal_is(const char *have, const char *cache, const char *text, size_t len)
{
	uint8_t key[KEY_LEN] = {0};
	char want[SHA256_TEXT];

	if (get_key(cache, false, key))
		return false;
	keyed_sum(key, text, len, want);
	return !strcmp(want, have);
}

static bool is_ours(int fd)
{
	struct stat st;

	return !fstat(fd, &st) && st.st_uid == geteuid() && !(st.st_mode & 022);
}

/* Root's VMs under insulad have no home, so their key is in another place than that of a root who
 * is logged in. What others can write to is not what was sealed: memory has no sum that they could
 * not make. */
static bool is_sealed(int dir, const char *text, size_t len, const char *cache)
{
	char have[SHA256_TEXT] = "";
	int fd, rc;

	if (!is_ours(dir))
		return false;
	fd = openat(dir, SEAL, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0)
		return false;
	rc = read_full(fd, have, SHA256_TEXT - 1, 0);
	close(fd);
	return !rc && (seal_is(have, cache, text, len) ||
		       (!geteuid() && seal_is(have, IMAGE_ROOT_CACHE, text, len)));
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

	if (format != SNAPDIR_FORMAT && format != SNAPDIR_FORMAT_PCI)
		return err_set(e, -EPROTO, "snapshot: %s: of format %lld; expected %d or %d", path,
			       (long long)format, SNAPDIR_FORMAT, SNAPDIR_FORMAT_PCI);
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
		s->sealed = is_sealed(dir, text, (size_t)size, cache);
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

	snprintf(key, sizeof(key), "%s_sha256", names[f]);
	if (rc)
		return err_set(e, rc, "snapshot: %s/%s: %s", path, names[f], inner.text);
	if (strcmp(sum, j_get_str(s->machine, key, "")) != 0)
		return err_set(e, -EPROTO,
			       "snapshot: %s/%s: is damaged: its sum is not that of "
			       "machine.json",
			       path, names[f]);
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
		int dir = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);

		snapshot_none(&b);
		if (dir < 0)
			rc = err_sys(e, -errno, "snapshot: what it builds on: %s", path);
		else if (s->nmemory == RAM_CHAIN)
			rc = err_set(e, -EPROTO, "snapshot: builds on more than %u others",
				     RAM_CHAIN - 1);
		else
			rc = b.file[SNAPDIR_MACHINE] =
				open_one(dir, path, names[SNAPDIR_MACHINE], e);
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
			s->memory[0] = open_one(dir, path, names[SNAPDIR_MEMORY], e);
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
	int dir = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC), rc = 0;

	snapshot_none(s);
	if (dir < 0)
		return err_sys(e, -errno, "snapshot: %s", path);
	for (unsigned i = 0; i < SNAPDIR_FILES && rc >= 0; i++)
		rc = s->file[i] = open_one(dir, path, names[i], e);
	if (rc >= 0)
		rc = read_machine(s, dir, path, cache, e);
	for (unsigned i = 0; i < SNAPDIR_FILES && !rc; i++)
		s->sealed &= is_ours(s->file[i]);
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

void snapshot_close(struct snapshot *s)
{
	for (unsigned i = 0; i < SNAPDIR_FILES; i++)
		fd_close(&s->file[i]);
	for (unsigned i = 0; i < RAM_CHAIN; i++)
		fd_close(&s->memory[i]);
	json_object_put(s->machine);
	s->machine = NULL;
}
