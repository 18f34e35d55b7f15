/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A snapshot's directory (src/supervisor/snapshot/snapdir.h): what is made and kept, and what is
 * said of one that somebody else made, with intent.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <insula/base.h>

#include "supervisor/snapshot/snapdir.h"

#define MEM (16u << 20)

static char top[32], cache[64], other_cache[64];
static struct err e;

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *f)
{
	(void)st;
	(void)type;
	(void)f;
	return remove(path);
}

static void setup(void)
{
	strcpy(top, "/tmp/insula-snapdir-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(top));
	snprintf(cache, sizeof(cache), "%s/cache", top);
	snprintf(other_cache, sizeof(other_cache), "%s/other", top);
	ck_assert_int_eq(mkdir(cache, 0700), 0);
	ck_assert_int_eq(mkdir(other_cache, 0700), 0);
}

static void teardown(void)
{
	nftw(top, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

/* Below `top`; eight at a time. */
static const char *at(const char *name)
{
	static char path[8][160];
	static unsigned n;

	n = (n + 1) % 8;
	snprintf(path[n], sizeof(path[n]), "%s/%s", top, name);
	return path[n];
}

static bool is_there(const char *name)
{
	struct stat st;

	return !lstat(at(name), &st);
}

static void put_file(const char *name, const char *text)
{
	int fd = open(at(name), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	close(fd);
}

/* ---- one that is made ---- */

struct about {
	const char *id, *base, *base_id, *more;
	long long format, mem, cpus;
};

static struct about usual(void)
{
	return (struct about){
		.id = "0123456789abcdef0123456789abcdef", .format = 1, .mem = MEM, .cpus = 1};
}

static void describe(const struct snapdir *d, const struct about *a, char *out, size_t size)
{
	char sum[2][65], base[256] = "";

	ck_assert_int_eq(snapdir_sum(d->file[SNAPDIR_VMM], sum[0], &e), 0);
	ck_assert_int_eq(snapdir_sum(d->file[SNAPDIR_DEVICES], sum[1], &e), 0);
	if (a->base)
		snprintf(base, sizeof(base), ",\"base\":{\"path\":\"%s\",\"id\":\"%s\"}", a->base,
			 a->base_id);
	snprintf(out, size,
		 "{\"format\":%lld,\"id\":\"%s\",\"mem\":%lld,\"cpus\":%lld,\"config\":{},"
		 "\"vmm_sha256\":\"%s\",\"devices_sha256\":\"%s\"%s%s}",
		 a->format, a->id, a->mem, a->cpus, sum[0], sum[1], base, a->more ? a->more : "");
}

/* All but its name. */
static void fill(struct snapdir *d, const char *name, const struct about *a)
{
	char text[1024];

	ck_assert_msg(!snapdir_make(d, at(name), &e), "%s", e.text);
	ck_assert_int_eq(snapdir_write(d, SNAPDIR_VMM, "vmm", 3, &e), 0);
	ck_assert_int_eq(snapdir_write(d, SNAPDIR_DEVICES, "dev", 3, &e), 0);
	ck_assert_int_eq(snapdir_write(d, SNAPDIR_MEMORY, "mem", 3, &e), 0);
	describe(d, a, text, sizeof(text));
	ck_assert_int_eq(snapdir_write(d, SNAPDIR_MACHINE, text, strlen(text), &e), 0);
	ck_assert_int_eq(snapdir_seal(d, text, strlen(text), cache, &e), 0);
}

static void make(const char *name, const struct about *a)
{
	struct snapdir d;

	fill(&d, name, a);
	ck_assert_msg(!snapdir_keep(&d, &e), "%s", e.text);
	snapdir_close(&d);
}

static bool opens(const char *name, const char *with)
{
	struct snapshot s;
	bool sealed;

	ck_assert_msg(!snapshot_open(&s, at(name), with, &e), "%s", e.text);
	ck_assert_uint_eq(s.mem, MEM);
	ck_assert_uint_eq(s.cpus, 1);
	sealed = s.sealed;
	snapshot_close(&s);
	return sealed;
}

static void refused(const char *name, int rc, const char *why)
{
	struct snapshot s;

	ck_assert_msg(snapshot_open(&s, at(name), cache, &e) == rc, "%s: %d, not %d, for '%s'",
		      name, e.code, rc, why);
	ck_assert_msg(strstr(e.text, why) != NULL, "'%s' is not in '%s'", why, e.text);
	ck_assert_ptr_eq(strchr(e.text, '\n'), NULL);
	/* Nothing of it is kept open. */
	for (unsigned i = 0; i < SNAPDIR_FILES; i++)
		ck_assert_int_eq(s.file[i], -1);
	for (unsigned i = 0; i < RAM_CHAIN; i++)
		ck_assert_int_eq(s.memory[i], -1);
}

START_TEST(made_and_opened)
{
	struct about a = usual();
	struct stat st;

	make("s", &a);
	ck_assert(opens("s", cache));
	a.format = SNAPDIR_FORMAT_PCI;
	make("pci", &a);
	ck_assert(opens("pci", cache));
	ck_assert_int_eq(stat(at("s"), &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 0700);
	ck_assert_int_eq(stat(at("s/memory"), &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 0600);
	ck_assert(!is_there(".s.part"));
}
END_TEST

START_TEST(not_kept)
{
	struct about a = usual();
	struct snapdir d;

	fill(&d, "s", &a);
	ck_assert(is_there(".s.part"));
	ck_assert(!is_there("s"));
	snapdir_close(&d);
	ck_assert(!is_there(".s.part"));
	ck_assert(!is_there("s"));
	snapdir_none(&d);
	snapdir_close(&d);
}
END_TEST

START_TEST(somebody_was_faster)
{
	struct about a = usual();
	struct snapdir d;

	fill(&d, "s", &a);
	put_file("s", "theirs");
	ck_assert_int_eq(snapdir_keep(&d, &e), -EEXIST);
	snapdir_close(&d);
	ck_assert(!is_there(".s.part"));
	ck_assert(is_there("s"));
}
END_TEST

/* A supervisor that was killed has left one. */
START_TEST(left_over)
{
	struct about a = usual();

	ck_assert_int_eq(mkdir(at(".s.part"), 0700), 0);
	put_file(".s.part/memory", "half");
	put_file(".s.part/seal", "half");
	make("s", &a);
	ck_assert(opens("s", cache));
	ck_assert(!is_there(".s.part"));
}
END_TEST

static void cannot_be_made(const char *path, int rc)
{
	struct snapdir d;

	ck_assert_int_eq(snapdir_make(&d, path, &e), rc);
	ck_assert_ptr_nonnull(strstr(e.text, "path:"));
	ck_assert_int_eq(d.dir, -1);
	ck_assert_int_eq(d.parent, -1);
	snapdir_close(&d);
}

START_TEST(names)
{
	char name[300];
	struct snapdir d;

	put_file("file", "");
	ck_assert_int_eq(symlink("nowhere", at("link")), 0);
	cannot_be_made(at("file"), -EEXIST);
	cannot_be_made(at("link"), -EEXIST);
	cannot_be_made(top, -EEXIST);
	cannot_be_made(at("no/where"), -ENOENT);
	cannot_be_made(at("file/s"), -ENOTDIR);
	cannot_be_made("", -EINVAL);
	cannot_be_made("/", -EINVAL);
	cannot_be_made("..", -EINVAL);
	cannot_be_made(at("."), -EINVAL);
	cannot_be_made(at("x/.."), -EINVAL);
	memset(name, 'n', sizeof(name) - 1);
	name[sizeof(name) - 1] = 0;
	cannot_be_made(name, -EINVAL);
	ck_assert_int_eq(snapdir_make(&d, at("s///"), &e), 0);
	ck_assert_str_eq(d.name, "s");
	snapdir_close(&d);
}
END_TEST

/* What is not ours is not removed. */
START_TEST(part_of_others)
{
	ck_assert_int_eq(mkdir(at("theirs"), 0700), 0);
	put_file("theirs/memory", "precious");
	ck_assert_int_eq(symlink(at("theirs"), at(".s.part")), 0);
	cannot_be_made(at("s"), -ENOTDIR);
	ck_assert(is_there("theirs/memory"));
	ck_assert_int_eq(mkdir(at(".t.part"), 0700), 0);
	put_file(".t.part/diary", "precious");
	cannot_be_made(at("t"), -ENOTEMPTY);
	ck_assert(is_there(".t.part/diary"));
}
END_TEST

/* ---- the seal ---- */

START_TEST(keys)
{
	struct about a = usual();
	struct stat st;
	char key[96];

	snprintf(key, sizeof(key), "%s/snapshot.key", cache);
	make("s", &a);
	ck_assert_int_eq(stat(key, &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 0600);
	ck_assert_int_eq(st.st_size, 32);
	ck_assert(opens("s", cache));
	ck_assert(!opens("s", other_cache));
	ck_assert(!is_there("other/snapshot.key")); /* whoever reads makes none */
	ck_assert(!opens("s", ""));
	ck_assert(!opens("s", at("none")));
	ck_assert_int_eq(chmod(key, 0640), 0);
	ck_assert(!opens("s", cache));
	ck_assert_int_eq(chmod(key, 0602), 0);
	ck_assert(!opens("s", cache));
	ck_assert_int_eq(chmod(key, 0600), 0);
	ck_assert(opens("s", cache));
	ck_assert_int_eq(rename(key, at("key")), 0);
	ck_assert_int_eq(symlink(at("key"), key), 0);
	ck_assert(!opens("s", cache));
	unlink(key);
	ck_assert_int_eq(mkfifo(key, 0600), 0);
	ck_assert(!opens("s", cache));
	unlink(key);
	put_file("cache/snapshot.key", "short");
	ck_assert(!opens("s", cache));
}
END_TEST

/* A key that others could read is not used to seal. */
START_TEST(no_seal)
{
	struct about a = usual();

	make("s", &a);
	ck_assert_int_eq(chmod(at("cache/snapshot.key"), 0644), 0);
	make("t", &a);
	ck_assert(!is_there("t/seal"));
	ck_assert_int_eq(chmod(at("cache/snapshot.key"), 0600), 0);
	ck_assert(!opens("t", cache));
}
END_TEST

START_TEST(another_seal)
{
	struct about a = usual(), b = usual();
	char seal[65] = "";
	int fd;

	b.more = ",\"agent\":true";
	make("s", &a);
	make("t", &b);
	ck_assert_int_eq(rename(at("t/seal"), at("s/seal")), 0);
	ck_assert(!opens("s", cache));
	ck_assert(!opens("t", cache)); /* it has none */
	unlink(at("s/seal"));
	ck_assert_int_eq(symlink(at("t/seal"), at("s/seal")), 0);
	ck_assert(!opens("s", cache));
	make("u", &a);
	fd = open(at("u/seal"), O_RDWR | O_CLOEXEC);
	for (unsigned i = 0; i < 64; i++) {
		ck_assert_int_eq(pread(fd, seal, 64, 0), 64);
		ck_assert_int_eq(pwrite(fd, seal[i] == 'f' ? "0" : "f", 1, i), 1);
		ck_assert(!opens("u", cache));
		ck_assert_int_eq(pwrite(fd, &seal[i], 1, i), 1);
	}
	ck_assert(opens("u", cache));
	close(fd);
}
END_TEST

/* Each byte of what is sealed. */
START_TEST(machine_is_sealed)
{
	struct about a = usual();
	struct snapshot s;
	char text[1024];
	ssize_t len;
	int fd;

	make("s", &a);
	fd = open(at("s/machine.json"), O_RDWR | O_CLOEXEC);
	len = pread(fd, text, sizeof(text), 0);
	ck_assert_int_gt(len, 200);
	for (ssize_t i = 0; i < len; i++) {
		char bad = text[i] == '1' ? '2' : '1';

		ck_assert_int_eq(pwrite(fd, &bad, 1, i), 1);
		if (!snapshot_open(&s, at("s"), cache, &e))
			ck_assert(!s.sealed);
		snapshot_close(&s);
		ck_assert_int_eq(pwrite(fd, &text[i], 1, i), 1);
	}
	ck_assert(opens("s", cache));
	close(fd);
}
END_TEST

/* ---- one of others ---- */

START_TEST(no_directory)
{
	put_file("file", "");
	refused("none", -ENOENT, "none");
	refused("file", -ENOTDIR, "file");
	refused("cache", -ENOENT, "machine.json");
}
END_TEST

START_TEST(files)
{
	static const char *const name[] = {"machine.json", "vmm", "devices", "memory"};
	struct about a = usual();
	char path[64];

	make("s", &a);
	snprintf(path, sizeof(path), "s/%s", name[_i]);
	ck_assert_int_eq(rename(at(path), at("kept")), 0);
	refused("s", -ENOENT, name[_i]);
	ck_assert_int_eq(symlink(at("kept"), at(path)), 0);
	refused("s", -ELOOP, name[_i]);
	unlink(at(path));
	ck_assert_int_eq(mkfifo(at(path), 0600), 0);
	refused("s", -EPROTO, "is no file");
	unlink(at(path));
	ck_assert_int_eq(mkdir(at(path), 0700), 0);
	refused("s", -EPROTO, "is no file");
	rmdir(at(path));
	if (strcmp(name[_i], "memory") != 0) { /* insula-pager's to read */
		put_file(path, "");
		refused("s", -EPROTO, name[_i]);
		put_file(path, "{}x");
		refused("s", -EPROTO, name[_i]);
		unlink(at(path));
	}
	ck_assert_int_eq(rename(at("kept"), at(path)), 0);
	ck_assert(opens("s", cache));
}
END_TEST

static void refused_text(const char *text, const char *why)
{
	put_file("s/machine.json", text);
	refused("s", -EPROTO, why);
}

START_TEST(machines)
{
	static const struct {
		long long format, mem, cpus;
		const char *why;
	} bad[] = {
		{4, MEM, 1, "of format 4; expected 1 to 3"},
		{0, MEM, 1, "format"},
		{1, MEM + 1, 1, "mem"},
		{1, 0, 1, "mem"},
		{1, -(long long)MEM, 1, "mem"},
		{1, INT64_MAX, 1, "mem"},
		{1, MEM, 0, "cpus"},
		{1, MEM, -1, "cpus"},
		{1, MEM, 33, "cpus"},
		{1, MEM, 0x100000001, "cpus"},
	};
	struct about a = usual();
	char name[8], deep[200];

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		a = usual();
		a.format = bad[i].format;
		a.mem = bad[i].mem;
		a.cpus = bad[i].cpus;
		snprintf(name, sizeof(name), "b%zu", i);
		make(name, &a);
		refused(name, -EPROTO, bad[i].why);
	}
	a = usual();
	make("s", &a);
	refused_text("[]", "expected an object");
	refused_text("{", "machine.json");
	refused_text("{} {}", "machine.json");
	refused_text("{\"format\":1,\"mem\":16777216,\"cpus\":1,\"id\":\"short\",\"config\":{}}",
		     "id: expected 32");
	refused_text("{\"format\":1,\"mem\":16777216,\"cpus\":1,\"id\":"
		     "\"0123456789abcdef0123456789abcdef\",\"config\":[]}",
		     "config: expected an object");
	refused_text("{\"format\":1,\"mem\":16777216,\"cpus\":1,\"id\":"
		     "\"0123456789abcdef0123456789abcdef\",\"config\":{}}",
		     "vmm: is damaged");
	refused_text("{\"format\":\"1\"}", "format");
	memset(deep, '[', sizeof(deep) - 1);
	deep[sizeof(deep) - 1] = 0;
	refused_text(deep, "machine.json");
	ck_assert_int_eq(truncate(at("s/machine.json"), 3 << 20), 0);
	refused("s", -EPROTO, "2 MiB");
}
END_TEST

START_TEST(sums)
{
	struct about a = usual();

	make("s", &a);
	put_file("s/vmm", "vmn");
	refused("s", -EPROTO, "vmm: is damaged");
	put_file("s/vmm", "vmm");
	put_file("s/devices", "dev ");
	refused("s", -EPROTO, "devices: is damaged");
}
END_TEST

/* ---- chains ---- */

#define ID(i) ids[(i) % 10]
static const char *const ids[] = {
	"00000000000000000000000000000000", "11111111111111111111111111111111",
	"22222222222222222222222222222222", "33333333333333333333333333333333",
	"44444444444444444444444444444444", "55555555555555555555555555555555",
	"66666666666666666666666666666666", "77777777777777777777777777777777",
	"88888888888888888888888888888888", "99999999999999999999999999999999"};

static void make_chain(unsigned n)
{
	char name[16], below[16];

	for (unsigned i = 0; i < n; i++) {
		struct about a = usual();

		snprintf(name, sizeof(name), "%u", i);
		snprintf(below, sizeof(below), "%u", i - 1);
		a.id = ID(i);
		if (i) {
			a.base = at(below);
			a.base_id = ID(i - 1);
		}
		make(name, &a);
	}
}

START_TEST(chain)
{
	struct snapshot s;

	make_chain(RAM_CHAIN + 1);
	ck_assert_int_eq(snapshot_open(&s, at("7"), cache, &e), 0);
	ck_assert_uint_eq(s.nmemory, RAM_CHAIN);
	for (unsigned i = 0; i < RAM_CHAIN; i++) {
		char name[16];
		struct stat a, b;

		snprintf(name, sizeof(name), "%u/memory", i);
		ck_assert_int_eq(stat(at(name), &a), 0);
		ck_assert_int_eq(fstat(s.memory[i], &b), 0);
		ck_assert_uint_eq(a.st_ino, b.st_ino);
	}
	snapshot_close(&s);
	refused("8", -EPROTO, "builds on more than 7 others");
}
END_TEST

START_TEST(broken_chains)
{
	struct about a = usual();

	make_chain(3);
	ck_assert_int_eq(rename(at("1"), at("x")), 0);
	refused("2", -ENOENT, "/1");
	a.id = ID(1);
	a.mem = 2 * MEM;
	make("1", &a);
	refused("2", -EPROTO, "of another size");
	ck_assert_int_eq(rename(at("1"), at("y")), 0);
	a = usual();
	make("1", &a);
	refused("2", -EPROTO, "which is another one now");
	ck_assert_int_eq(rename(at("1"), at("z")), 0);
	ck_assert_int_eq(rename(at("x"), at("1")), 0);
	ck_assert(opens("2", cache));
	unlink(at("0/memory"));
	refused("2", -ENOENT, "/0/memory");
	ck_assert_int_eq(symlink(at("1/memory"), at("0/memory")), 0);
	refused("2", -ELOOP, "/0/memory");
	unlink(at("0/machine.json"));
	refused("2", -ENOENT, "/0/machine.json");
}
END_TEST

START_TEST(endless_chains)
{
	struct about a = usual(), b = usual();

	a.id = ID(1);
	a.base = at("self");
	a.base_id = ID(1);
	make("self", &a);
	refused("self", -EPROTO, "builds on more than 7 others");
	a.base = at("b");
	a.base_id = ID(2);
	b.id = ID(2);
	b.base = at("a");
	b.base_id = ID(1);
	make("a", &a);
	make("b", &b);
	refused("a", -EPROTO, "builds on more than 7 others");
	a.base = "";
	make("c", &a);
	refused("c", -ENOENT, "what it builds on");
}
END_TEST

int main(void)
{
	Suite *s = suite_create("snapdir");
	TCase *mine = tcase_create("made"), *seal = tcase_create("seal"),
	      *others = tcase_create("others"), *chains = tcase_create("chains"),
	      *all[] = {mine, seal, others, chains};
	SRunner *r = srunner_create(s);
	int failed;

	tcase_add_test(mine, made_and_opened);
	tcase_add_test(mine, not_kept);
	tcase_add_test(mine, somebody_was_faster);
	tcase_add_test(mine, left_over);
	tcase_add_test(mine, names);
	tcase_add_test(mine, part_of_others);
	tcase_add_test(seal, keys);
	tcase_add_test(seal, no_seal);
	tcase_add_test(seal, another_seal);
	tcase_add_test(seal, machine_is_sealed);
	tcase_add_test(others, no_directory);
	tcase_add_loop_test(others, files, 0, SNAPDIR_FILES);
	tcase_add_test(others, machines);
	tcase_add_test(others, sums);
	tcase_add_test(chains, chain);
	tcase_add_test(chains, broken_chains);
	tcase_add_test(chains, endless_chains);
	for (size_t i = 0; i < ARRAY_LEN(all); i++) {
		tcase_add_checked_fixture(all[i], setup, teardown);
		suite_add_tcase(s, all[i]);
	}
	srunner_run_all(r, CK_ENV);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
