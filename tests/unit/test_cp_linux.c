/* SPDX-License-Identifier: BSD-2-Clause */
/* insulactl cp: archives, and unpacking one that a guest has made to do harm. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <check.h>

#include <insula/base.h>

#include "ctl/pack.h"
#include "ctl/tar.h"
#include "ctl/unpack.h"

/* An archive in memory, and a directory with one beside it that nobody may touch. */
static uint8_t *archive;
static size_t len, at, piece;
static char top[64], dir[80];
static unsigned lines;
static char last[300];

static int64_t from_memory(void *ctx, void *buf, size_t n, struct err *e)
{
	(void)ctx;
	(void)e;
	if (n > len - at)
		n = len - at;
	if (n > piece)
		n = piece;
	memcpy(buf, archive + at, n);
	at += n;
	return (int64_t)n;
}

static int to_memory(void *ctx, const void *buf, size_t n, struct err *e)
{
	(void)ctx;
	(void)e;
	archive = realloc(archive, len + n);
	ck_assert_ptr_nonnull(archive);
	memcpy(archive + len, buf, n);
	len += n;
	return 0;
}

static void count(void *ctx, const char *line)
{
	(void)ctx;
	lines++;
	snprintf(last, sizeof(last), "%s", line);
}

static void setup(void)
{
	archive = NULL;
	len = at = 0;
	piece = 1000; /* no block's, no page's */
	lines = 0;
	last[0] = 0;
	strcpy(top, "/tmp/test_cp.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(top));
	snprintf(dir, sizeof(dir), "%s/dir", top);
	ck_assert_int_eq(mkdir(dir, 0755), 0);
}

static void teardown(void)
{
	char command[200];

	snprintf(command, sizeof(command), "chmod -R u+rwx %s; rm -rf %s", top, top);
	ck_assert_int_eq(system(command), 0);
	free(archive);
}

static void put(char type, const char *name, const char *link, unsigned mode, const char *text)
{
	static struct tar_entry n;
	static uint8_t head[TAR_HEADER_MAX];
	static const uint8_t zeros[TAR_BLOCK];
	struct err e;

	n = (struct tar_entry){.type = type, .size = strlen(text), .mode = mode, .mtime = 12345};
	snprintf(n.name, sizeof(n.name), "%s", name);
	snprintf(n.link, sizeof(n.link), "%s", link);
	to_memory(NULL, head, tar_header(&n, head), &e);
	to_memory(NULL, text, n.size, &e);
	to_memory(NULL, zeros, -n.size & (TAR_BLOCK - 1), &e);
}

static void finish(void)
{
	static const uint8_t zeros[2 * TAR_BLOCK];

	to_memory(NULL, zeros, sizeof(zeros), NULL);
}

/* How many entries were left out, or the error. */
static int unpack_as(const char *base, const char *target, struct err *e)
{
	struct tar_reader t = {.read = from_memory};
	struct unpack u = {.base = base, .target = target, .left_out = count};
	int rc;

	at = 0;
	u.top = open(dir, O_RDONLY | O_DIRECTORY);
	ck_assert_int_ge(u.top, 0);
	rc = unpack_all(&u, &t, e);
	close(u.top);
	return rc ? rc : (int)u.skipped;
}

static int unpack(void)
{
	struct err e = {0};
	int rc = unpack_as(NULL, "", &e);

	ck_assert_msg(rc >= 0, "%s", e.text);
	return rc;
}

static const char *path_of(const char *name)
{
	static char path[5000];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return path;
}

static void write_text(const char *path, const char *text)
{
	FILE *f = fopen(path, "w");

	ck_assert_ptr_nonnull(f);
	fputs(text, f);
	fclose(f);
}

static void has_text(const char *path, const char *want)
{
	char got[100] = "";
	FILE *f = fopen(path, "r");

	ck_assert_msg(f != NULL, "%s is not there", path);
	got[fread(got, 1, sizeof(got) - 1, f)] = 0;
	fclose(f);
	ck_assert_str_eq(got, want);
}

static mode_t mode_of(const char *path)
{
	struct stat st;

	ck_assert_msg(lstat(path, &st) == 0, "%s is not there", path);
	return st.st_mode;
}

/* ---- what is well */

START_TEST(there_and_back)
{
	struct pack p = {.write = to_memory, .left_out = count};
	char src[100], name[300], path[800];
	struct err e = {0};
	struct stat st;
	int fd;

	snprintf(src, sizeof(src), "%s/src", top);
	memset(name, 'n', 200);
	name[200] = 0;
	ck_assert_int_eq(mkdir(src, 0755), 0);
	snprintf(path, sizeof(path), "%s/%s", src, name);
	ck_assert_int_eq(mkdir(path, 0755), 0);
	snprintf(path, sizeof(path), "%s/%s/%s", src, name, name); /* longer than a header has */
	write_text(path, "long");
	ck_assert_int_eq(chmod(path, 04751), 0);
	snprintf(path, sizeof(path), "%s/link", src);
	ck_assert_int_eq(symlink("sparse", path), 0);
	snprintf(path, sizeof(path), "%s/fifo", src);
	ck_assert_int_eq(mkfifo(path, 0644), 0);
	snprintf(path, sizeof(path), "%s/sparse", src);
	fd = open(path, O_WRONLY | O_CREAT, 0600);
	ck_assert_int_eq(pwrite(fd, "x", 1, 3 << 20), 1);
	close(fd);
	ck_assert_int_eq(pack_all(&p, src, "src", &e), 0);
	ck_assert_uint_eq(p.skipped, 1); /* the FIFO */
	ck_assert_ptr_nonnull(strstr(last, "src/fifo"));
	ck_assert_int_eq(unpack_as("src", "copy", &e), 0);
	snprintf(path, sizeof(path), "%s/copy/%s/%s", dir, name, name);
	has_text(path, "long");
	ck_assert_uint_eq(mode_of(path), S_IFREG | 0751); /* no set-uid bit */
	ck_assert(S_ISLNK(mode_of(path_of("copy/link"))));
	ck_assert_int_eq(stat(path_of("copy/sparse"), &st), 0);
	ck_assert_int_eq(st.st_size, (3 << 20) + 1);
	ck_assert_int_lt(st.st_blocks * 512, 1 << 20); /* its holes are holes */
}
END_TEST

START_TEST(modes_and_times)
{
	struct stat st;

	put(TAR_DIRECTORY, "d/", "", 0555, "");
	put(TAR_FILE, "d/f", "", 0640, "text");
	put(TAR_HARD_LINK, "d/g", "d/f", 0, "");
	finish();
	ck_assert_int_eq(unpack(), 0);
	ck_assert_uint_eq(mode_of(path_of("d")), S_IFDIR | 0555);
	ck_assert_int_eq(stat(path_of("d/f"), &st), 0);
	ck_assert_int_eq(st.st_mtime, 12345);
	ck_assert_uint_eq(st.st_nlink, 2);
	ck_assert_uint_eq(st.st_uid, geteuid());
	has_text(path_of("d/g"), "text");
}
END_TEST

/* "LEN KEY=VALUE\n" before an entry that says something else. */
START_TEST(pax_headers)
{
	static const char records[] = "16 path=by-pax\n\n"
				      "9 size=3\n12 comment=\n";

	/* The first record has a line end in its name. */
	put('x', "h", "", 0644, records);
	put(TAR_FILE, "other", "", 0644, "abc");
	finish();
	ck_assert_int_eq(unpack(), 0);
	has_text(path_of("by-pax\n"), "abc");
}
END_TEST

START_TEST(replaces_a_file)
{
	char other[100];

	snprintf(other, sizeof(other), "%s/other", top);
	write_text(other, "old");
	ck_assert_int_eq(link(other, path_of("f")), 0);
	put(TAR_FILE, "f", "", 0644, "new");
	finish();
	ck_assert_int_eq(unpack(), 0);
	has_text(path_of("f"), "new");
	/* Its other name is somebody else's. */
	has_text(other, "old");
}
END_TEST

/* ---- attacks */

START_TEST(names_that_lead_out)
{
	char long_name[3000];

	memset(long_name, 0, sizeof(long_name));
	for (int i = 0; i < 200; i++)
		strcat(long_name, "d/");
	put(TAR_FILE, "../out", "", 0644, "x");
	put(TAR_FILE, "a/../../out", "", 0644, "x");
	put(TAR_FILE, "/tmp/test_cp_out", "", 0644, "x");
	put(TAR_FILE, "..", "", 0644, "x");
	put(TAR_FILE, ".", "", 0644, "x");
	put(TAR_FILE, long_name, "", 0644, "x");
	put(TAR_FILE, "good", "", 0644, "x");
	finish();
	ck_assert_int_eq(unpack(), 6);
	has_text(path_of("good"), "x");
	ck_assert_int_ne(access(path_of("../out"), F_OK), 0);
	ck_assert_int_ne(access("/tmp/test_cp_out", F_OK), 0);
}
END_TEST

START_TEST(not_what_was_asked_for)
{
	struct err e;

	put(TAR_DIRECTORY, "./src", "", 0755, "");
	put(TAR_FILE, "src/f", "", 0644, "x");
	put(TAR_FILE, "srcx/g", "", 0644, "x");
	put(TAR_FILE, "g", "", 0644, "x");
	finish();
	ck_assert_int_eq(unpack_as("src", "new", &e), 2);
	has_text(path_of("new/f"), "x");
	ck_assert_int_ne(access(path_of("g"), F_OK), 0);
}
END_TEST

START_TEST(links_that_lead_out)
{
	static const char *const bad[] = {"/etc/passwd", "..",     "../x",       "d/../../x",
					  "./../x",      "d/e/..", "a/../../..", "//x"};
	static const char *const good[] = {"f", "d/f", "./f", "."};
	char name[16];

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		snprintf(name, sizeof(name), "bad%zu", i);
		put(TAR_LINK, name, bad[i], 0777, "");
	}
	for (size_t i = 0; i < ARRAY_LEN(good); i++) {
		snprintf(name, sizeof(name), "good%zu", i);
		put(TAR_LINK, name, good[i], 0777, "");
	}
	put(TAR_LINK, "a/b/up", "../../f", 0777, "");
	put(TAR_LINK, "a/b/out", "../../../f", 0777, "");
	finish();
	ck_assert_int_eq(unpack(), (int)ARRAY_LEN(bad) + 1);
	ck_assert(S_ISLNK(mode_of(path_of("good0"))));
	ck_assert(S_ISLNK(mode_of(path_of("a/b/up"))));
	ck_assert_int_eq(access(path_of("bad0"), F_OK), -1);
}
END_TEST

/* A link that the archive has made before, or that was there. */
START_TEST(through_links)
{
	char outside[100];

	snprintf(outside, sizeof(outside), "%s/outside", top);
	ck_assert_int_eq(mkdir(outside, 0755), 0);
	ck_assert_int_eq(symlink(outside, path_of("theirs")), 0);
	ck_assert_int_eq(symlink("../outside/f", path_of("file")), 0);
	put(TAR_DIRECTORY, "d", "", 0755, "");
	put(TAR_LINK, "l", "d", 0777, "");
	put(TAR_FILE, "l/f", "", 0644, "x");
	put(TAR_DIRECTORY, "l", "", 0700, "");
	put(TAR_FILE, "theirs/f", "", 0644, "x");
	put(TAR_DIRECTORY, "theirs", "", 0700, "");
	put(TAR_FILE, "file", "", 0644, "in place of the link");
	put(TAR_HARD_LINK, "h", "theirs/f", 0, "");
	put(TAR_HARD_LINK, "h2", "../outside", 0, "");
	put(TAR_HARD_LINK, "h3", "l", 0, "");
	put(TAR_LINK, "d", "x", 0777, ""); /* a directory does not become a link */
	finish();
	ck_assert_int_eq(unpack(), 8);
	snprintf(outside, sizeof(outside), "%s/outside/f", top);
	ck_assert_int_ne(access(outside, F_OK), 0);
	ck_assert(S_ISREG(mode_of(path_of("file"))));
	ck_assert_int_ne(access(path_of("d/f"), F_OK), 0);
	ck_assert(S_ISDIR(mode_of(path_of("d"))));
}
END_TEST

START_TEST(things_that_are_no_files)
{
	put('3', "null", "", 0666, "");
	put('4', "disk", "", 0666, "");
	put('6', "fifo", "", 0666, "");
	put('Z', "what", "", 0666, "has bytes");
	put(TAR_FILE, "suid", "", 07777, "x");
	finish();
	ck_assert_int_eq(unpack(), 4);
	ck_assert_uint_eq(mode_of(path_of("suid")), S_IFREG | 0777);
	ck_assert_int_ne(access(path_of("null"), F_OK), 0);
}
END_TEST

/* Cut anywhere, it is an error, and no file is there by halves. */
START_TEST(cut_short)
{
	char command[200];
	size_t whole;
	struct err e;

	put(TAR_FILE, "f", "", 0644, "some text");
	put(TAR_FILE, "g", "", 0644, "other text");
	whole = len;
	for (len = 1; len < whole; len += 7) {
		piece = 1 + len % 600;
		ck_assert_int_eq(unpack_as(NULL, "", &e), -EPROTO);
		if (len < 512)
			ck_assert_int_ne(access(path_of("f"), F_OK), 0);
		if (len < 1536)
			ck_assert_int_ne(access(path_of("g"), F_OK), 0);
	}
	snprintf(command, sizeof(command), "test -z \"$(find %s -name '.ins*')\"", dir);
	ck_assert_int_eq(system(command), 0);
}
END_TEST

static void breaks(const char *what)
{
	struct err e = {0};

	finish();
	ck_assert_msg(unpack_as(NULL, "", &e) == -EPROTO, "%s", what);
	ck_assert_msg(e.text[0], "%s", what);
	len = 0;
}

START_TEST(malformed)
{
	char text[20000];

	put(TAR_FILE, "f", "", 0644, "");
	archive[0] = 'g'; /* its sum is another one */
	breaks("a wrong sum");
	memset(text, 'x', 600);
	text[600] = 0;
	to_memory(NULL, text, TAR_BLOCK, NULL);
	breaks("no archive");
	put('x', "h", "", 0644, "99 path=x\n");
	breaks("a record that is longer than its header");
	put('x', "h", "", 0644, "18446744073709551615 path=x\n");
	breaks("a record that wraps");
	put('x', "h", "", 0644, "5 abc");
	breaks("a record without an end");
	put('x', "h", "", 0644, "12 size=-99\n");
	breaks("a negative size");
	put('x', "h", "", 0644, "22 GNU.sparse.major=1\n");
	breaks("a sparse file");
	memset(text, 'n', 19999);
	text[19999] = 0;
	put('L', "h", "", 0644, text);
	breaks("a name that is too long");
	put('L', "h", "", 0644, "no end");
	breaks("a name without an end");
	for (int i = 0; i < 20; i++)
		put('g', "h", "", 0644, "");
	put(TAR_FILE, "f", "", 0644, "");
	breaks("headers without end");
	put(TAR_FILE, "", "", 0644, "");
	breaks("no name");
	put(TAR_LINK, "l", "", 0644, "");
	breaks("no target");
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		there_and_back,      modes_and_times,     pax_headers,
		replaces_a_file,     names_that_lead_out, not_what_was_asked_for,
		links_that_lead_out, through_links,       things_that_are_no_files,
		cut_short,           malformed,
	};
	Suite *s = suite_create("cp");
	TCase *c = tcase_create("cp");
	SRunner *r;
	int failed;

	tcase_add_checked_fixture(c, setup, teardown);
	for (size_t i = 0; i < ARRAY_LEN(tests); i++)
		tcase_add_test(c, tests[i]);
	suite_add_tcase(s, c);
	r = srunner_create(s);
	srunner_run_all(r, CK_ENV);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
