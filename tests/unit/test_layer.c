/* SPDX-License-Identifier: BSD-2-Clause */
/* Layers: what archives become in the tree, what whiteouts do, and what is refused before memory or
 * time run out. Whole images are checked by tests/image/suite, with erofs-utils, and in guests. */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <insula/base.h>
#include <insula/sha256.h>

#include "layer/tar.h"

#define BLOCK 512u

static struct tree tree;
static struct erofs image;
static struct err e;
static uint8_t archive[64 * 1024];
static size_t length;
static int fd;

/* ---- archives ---- */

static void add(const char *name, char type, const char *data, const char *link)
{
	size_t size = data ? strlen(data) : 0;
	uint8_t *h = archive + length;
	unsigned sum = 0;

	memset(h, 0, BLOCK);
	strcpy((char *)h, name);
	strcpy((char *)h + 100, "0000755");
	strcpy((char *)h + 108, "0001750"); /* 1000 */
	strcpy((char *)h + 116, "0000012");
	sprintf((char *)h + 124, "%011zo", size);
	strcpy((char *)h + 136, "00000000012");
	h[156] = (uint8_t)type;
	strcpy((char *)h + 157, link ? link : "");
	memcpy(h + 257, "ustar\00000", 8);
	memset(h + 148, ' ', 8);
	for (unsigned i = 0; i < BLOCK; i++)
		sum += h[i];
	sprintf((char *)h + 148, "%06o", sum);
	length += BLOCK;
	memset(archive + length, 0, (size + BLOCK - 1) / BLOCK * BLOCK);
	memcpy(archive + length, data ? data : "", size);
	length += (size + BLOCK - 1) / BLOCK * BLOCK;
}

static void end(void)
{
	memset(archive + length, 0, 2 * BLOCK);
	length += 2 * BLOCK;
}

struct input {
	size_t at, most; /* bytes at a time */
};

static long fetch(void *ctx, void *buf, size_t len)
{
	struct input *in = ctx;
	size_t n = length - in->at < len ? length - in->at : len;

	n = n < in->most ? n : in->most;
	memcpy(buf, archive + in->at, n);
	in->at += n;
	return (long)n;
}

static int read_layer(bool merge, size_t most)
{
	struct input in = {.most = most};
	struct source s;
	const struct tar t = {&s, &tree, &image, merge};
	int rc;

	ck_assert_int_eq(source_open(&s, fetch, &in, &e), 0);
	tree.layer++;
	rc = tar_read(&t, &e);
	source_close(&s);
	length = 0;
	return rc;
}

static struct node *find(const char *path)
{
	struct node *n = tree.root;
	char copy[256], *save = NULL;

	strcpy(copy, path);
	for (char *p = strtok_r(copy, "/", &save); p && n; p = strtok_r(NULL, "/", &save))
		n = tree_find(&tree, n, p);
	return n;
}

static void setup(void)
{
	fd = memfd_create("image", MFD_CLOEXEC);
	length = 0;
	ck_assert_int_eq(tree_init(&tree, &e), 0);
	ck_assert_int_eq(erofs_begin(&image, fd, &e), 0);
}

static void teardown(void)
{
	erofs_free(&image);
	tree_free(&tree);
	close(fd);
}

/* ---- tests ---- */

START_TEST(entries)
{
	const struct node *n;

	add("d/", '5', NULL, NULL);
	add("d/f", '0', "hello", NULL);
	add("implied/g", '0', "x", NULL);
	add("/abs", '0', "y", NULL);
	add("l", '2', NULL, "d");
	add("l/through", '0', "z", NULL);
	add("h", '1', NULL, "./d/f");
	end();
	ck_assert_msg(!read_layer(false, 1), "%s", e.text); /* a byte at a time */
	n = find("d/f");
	ck_assert(n && S_ISREG(n->mode) && n->size == 5 && n->uid == 1000 && n->gid == 10);
	ck_assert(n->mtime == 10 && n->nlink == 2 && !memcmp(n->data, "hello", 5));
	ck_assert_ptr_eq(find("h"), n);
	ck_assert_uint_eq(find("implied")->mode, S_IFDIR | 0755);
	ck_assert_ptr_nonnull(find("abs"));
	ck_assert_ptr_nonnull(find("d/through"));
	ck_assert_uint_eq(tree.root->nlink, 4);
}
END_TEST

START_TEST(whiteouts_of_one_layer)
{
	add(".wh.gone", '0', "", NULL);
	add("d/.wh..wh..opq", '0', "", NULL);
	add("e/", '5', NULL, NULL);
	add(".wh.e", '0', "", NULL); /* and a new one: it does not show what is below */
	add(".wh.f", '0', "", NULL);
	add("f/", '5', NULL, NULL);
	add(".wh.g", '0', "", NULL);
	add("g", '0', "new", NULL);
	add(".wh..wh.aufs", '0', "", NULL);
	end();
	ck_assert_msg(!read_layer(false, 4096), "%s", e.text);
	ck_assert(S_ISCHR(find("gone")->mode) && !find("gone")->rdev);
	for (unsigned i = 0; i < 3; i++) {
		const struct node *n = find((const char *[]){"d", "e", "f"}[i]);

		ck_assert(S_ISDIR(n->mode) && n->xattr);
		ck_assert(n->xattr->index == EROFS_XATTR_TRUSTED &&
			  !memcmp(n->xattr->text, "overlay.opaquey", 15));
	}
	ck_assert(S_ISREG(find("g")->mode));
	ck_assert_ptr_null(find(".wh..wh.aufs"));
}
END_TEST

START_TEST(merged_layers)
{
	add("a/old", '0', "1", NULL);
	add("a/kept", '0', "1", NULL);
	add("b/old", '0', "1", NULL);
	add("c/deep/old", '0', "1", NULL);
	add("l", '2', NULL, "a");
	end();
	ck_assert_int_eq(read_layer(true, 4096), 0);
	add("a/.wh.old", '0', "", NULL);
	add("b/new", '0', "2", NULL);
	add("b/.wh..wh..opq", '0', "", NULL);
	add("c", '0', "a file now", NULL);
	add("l/x", '0', "2", NULL); /* as on an overlay: a directory hides the link below */
	add(".wh.never", '0', "", NULL);
	end();
	ck_assert_msg(!read_layer(true, 4096), "%s", e.text);
	ck_assert(!find("a/old") && find("a/kept") && !find("a/x"));
	ck_assert(!find("b/old") && find("b/new"));
	ck_assert(S_ISREG(find("c")->mode) && S_ISDIR(find("l")->mode) && find("l/x"));
	ck_assert_ptr_null(find("never"));
	ck_assert_uint_eq(tree.root->nlink, 5);
}
END_TEST

START_TEST(replaced)
{
	uint64_t size;

	add("d/x", '0', "1", NULL);
	add("d", '1', NULL, "d/x"); /* a link to what it takes the place of */
	add("e", '0', "1", NULL);
	add("e", '2', NULL, "d");
	add("e", '5', NULL, NULL);
	end();
	ck_assert_msg(!read_layer(false, 4096), "%s", e.text);
	ck_assert(S_ISREG(find("d")->mode) && find("d")->nlink == 1 && S_ISDIR(find("e")->mode));
	ck_assert_int_eq(erofs_finish(&image, &tree, (const uint8_t[16]){0}, &size, &e), 0);
	ck_assert_uint_eq(size % EROFS_BLOCK, 0);
}
END_TEST

/* The superblock says where the root is before anybody knows how much it has: attributes and names
 * that do not fit into its first block together. */
START_TEST(root_with_attributes)
{
	static char value[3900], name[80];
	uint16_t format, root;
	uint32_t meta;
	uint64_t size;

	for (unsigned i = 0; i < 30; i++) {
		sprintf(name, "a-name-for-a-directory-of-almost-two-kilobytes-%02u", i);
		add(name, '0', "", NULL);
	}
	end();
	ck_assert_msg(!read_layer(false, 4096), "%s", e.text);
	memset(value, 'v', sizeof(value));
	ck_assert(!node_xattr(tree.root, EROFS_XATTR_TRUSTED, "x", 1, value, sizeof(value), &e));
	ck_assert_int_eq(erofs_finish(&image, &tree, (const uint8_t[16]){0}, &size, &e), 0);
	ck_assert_int_eq(pread(fd, &root, sizeof(root), 1024 + 14), sizeof(root));
	ck_assert_int_eq(pread(fd, &meta, sizeof(meta), 1024 + 40), sizeof(meta));
	ck_assert_uint_eq(tree.root->nid, root);
	ck_assert_uint_le(tree.root->size, 2048);
	ck_assert_int_eq(pread(fd, &format, sizeof(format), (off_t)meta * 4096 + root * 32),
			 sizeof(format));
	ck_assert_uint_eq(format, 1); /* an extended inode, plain */
}
END_TEST

static void refused(const char *words)
{
	end();
	ck_assert_int_lt(read_layer(false, 4096), 0);
	ck_assert_msg(strstr(e.text, words) != NULL, "'%s' lacks '%s'", e.text, words);
}

START_TEST(refusals)
{
	add("../x", '0', "", NULL);
	refused("goes up");
	add("h", '1', NULL, "nothing");
	refused("does not hold");
	add("x", 'Q', "", NULL);
	refused("type 0x51");
	add("d", '2', NULL, "d");
	add("d/x", '0', "", NULL);
	refused("symbolic links in a path");
	add("f", '0', "", NULL);
	add("f/x", '0', "", NULL);
	refused("no directory");
	add(".wh.", '0', "", NULL);
	refused("whiteout of nothing");
	length = 100;
	memset(archive, 1, length);
	ck_assert_int_lt(read_layer(false, 4096), 0);
}
END_TEST

START_TEST(packed)
{
	uLongf len = sizeof(archive);
	static uint8_t out[sizeof(archive)];
	z_stream z = {0};

	add("f", '0', "packed", NULL);
	end();
	ck_assert_int_eq(deflateInit2(&z, 6, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY),
			 Z_OK);
	z.next_in = archive;
	z.avail_in = (uInt)length;
	z.next_out = out;
	z.avail_out = (uInt)len;
	ck_assert_int_eq(deflate(&z, Z_FINISH), Z_STREAM_END);
	len = z.total_out;
	deflateEnd(&z);
	for (size_t cut = len; cut > len - 12; cut -= 3) {
		memcpy(archive, out, cut);
		length = cut;
		ck_assert_int_eq(read_layer(false, 3), cut == len ? 0 : -EINVAL);
	}
	ck_assert_ptr_nonnull(find("f"));
}
END_TEST

/* FIPS 180-4's examples, with the processor's instructions and without them. */
START_TEST(sums)
{
	static const char two[] = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
	static const struct {
		const char *text, *hex;
	} sum[] = {
		{"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
		{"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
		{two, "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
	};
	uint8_t digest[SHA256_LEN];
	char hex[SHA256_TEXT];
	struct sha256 s;

	for (unsigned i = 0; i < 2 * ARRAY_LEN(sum); i++) {
		sha256_init(&s);
		s.fast = i % 2 ? 0 : s.fast;
		for (const char *p = sum[i / 2].text; *p; p++)
			sha256_add(&s, p, 1);
		sha256_end(&s, digest);
		sha256_text(digest, hex);
		ck_assert_str_eq(hex, sum[i / 2].hex);
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("layer");
	TCase *t = tcase_create("all");
	SRunner *sr;
	int failures;

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, entries);
	tcase_add_test(t, whiteouts_of_one_layer);
	tcase_add_test(t, merged_layers);
	tcase_add_test(t, replaced);
	tcase_add_test(t, root_with_attributes);
	tcase_add_test(t, refusals);
	tcase_add_test(t, packed);
	tcase_add_test(t, sums);
	suite_add_tcase(s, t);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failures = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failures ? 1 : 0;
}
