/* SPDX-License-Identifier: BSD-2-Clause */
/* Images: what JSON of the OCI specification is taken and refused, what a configuration adds to a VM,
 * names and locks of the store. What layers become is in test_layer.c and tests/image/suite. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/image.h>

#include "image/layers.h"
#include "image/oci.h"
#include "image/store.h"
#include "image/store_parts.h"
#include "spec/config.h"
#include "supervisor/backing/image.h"

#define HEX_A "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define HEX_B "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
#define A "\"digest\":\"sha256:" HEX_A "\",\"size\":7"
#define B "\"digest\":\"sha256:" HEX_B "\",\"size\":9"
#define TYPE "\"mediaType\":\"application/vnd.oci.image.config.v1+json\","
#define TAG(t) "\"annotations\":{\"org.opencontainers.image.ref.name\":\"" t "\"},"

static struct err e;

/* ---- index ---- */

static int take_index(const char *text, const char *tag, struct oci_blob *b, bool *index)
{
	e.text[0] = 0;
	return oci_index(text, strlen(text), tag, b, index, &e);
}

static void index_refused(const char *text, const char *tag, const char *words)
{
	struct oci_blob b;
	bool index;

	ck_assert_msg(take_index(text, tag, &b, &index) == -EINVAL, "%s is taken", text);
	ck_assert_msg(strstr(e.text, words) != NULL, "'%s' lacks '%s'", e.text, words);
}

START_TEST(index_picks)
{
	static const char two[] = "{\"manifests\":[{" TAG("x") A "},{" TAG("y") B "}]}";
	static const char platforms[] =
		"{\"manifests\":[{\"platform\":{\"os\":\"linux\",\"architecture\":\"arm64\"}," A
		"},{\"platform\":{\"os\":\"linux\",\"architecture\":\"amd64\"}," B "}]}";
	struct oci_blob b;
	bool index;

	ck_assert_int_eq(take_index("{\"manifests\":[{" A "}]}", "", &b, &index), 0);
	ck_assert_str_eq(b.hex, HEX_A);
	ck_assert_uint_eq(b.size, 7);
	ck_assert(!index);
	ck_assert_int_eq(take_index(two, "y", &b, &index), 0);
	ck_assert_str_eq(b.hex, HEX_B);
	ck_assert_int_eq(take_index(platforms, "", &b, &index), 0);
	ck_assert_str_eq(b.hex, HEX_B);
	ck_assert_int_eq(take_index("{\"manifests\":[{\"mediaType\":\"application/"
				    "vnd.oci.image.index.v1+json\"," A "}]}",
				    "", &b, &index),
			 0);
	ck_assert(index);
	index_refused(two, "", "2 images; expected a tag");
	index_refused(two, "z", "no image with the tag z");
}
END_TEST

START_TEST(index_malformed)
{
	static const struct {
		const char *text, *words;
	} bad[] = {
		{"", "it ends too early"},
		{"[]", "not a JSON object"},
		{"{\"manifests\":", "it ends too early"},
		{"{}", "manifests: expected an array"},
		{"{\"manifests\":{}}", "manifests: expected an array"},
		{"{\"manifests\":[]}", "no image in it"},
		{"{\"manifests\":[3]}", "digest: expected sha256:"},
		{"{\"manifests\":[{\"digest\":\"sha256:" HEX_A "\"}]}", "size: expected a number"},
		{"{\"manifests\":[{\"digest\":\"sha256:" HEX_A "\",\"size\":-1}]}",
		 "size: expected a number"},
		{"{\"manifests\":[{\"digest\":\"sha256:" HEX_A "\",\"size\":4194305}]}",
		 "size: expected a number up to 4194304"},
		{"{\"manifests\":[{\"digest\":\"sha256:A" HEX_A "\",\"size\":1}]}", "digest"},
		{"{\"manifests\":[{\"digest\":\"sha256:../../etc\",\"size\":1}]}", "digest"},
		{"{\"manifests\":[{\"digest\":7,\"size\":1}]}", "digest"},
		{"{\"manifests\":[{\"platform\":{\"os\":\"windows\"}," A "}]}",
		 "no image for linux"},
		{"{\"manifests\":[{\"platform\":{\"os\":[]}," A "}]}", "no image for linux"},
	};

	for (unsigned i = 0; i < ARRAY_LEN(bad); i++)
		index_refused(bad[i].text, "", bad[i].words);
}
END_TEST

/* ---- manifest ---- */

static void manifest_refused(const char *text, const char *words)
{
	struct oci_manifest m;

	ck_assert_msg(oci_manifest(text, strlen(text), &m, &e) == -EINVAL, "%s is taken", text);
	ck_assert_msg(strstr(e.text, words) != NULL, "'%s' lacks '%s'", e.text, words);
}

START_TEST(manifests)
{
	static const char good[] = "{\"config\":{" TYPE A "},\"layers\":[{" B "},{" A "}]}";
	char *many = malloc(100 * 200 + 100), *p = many;
	struct oci_manifest m;

	ck_assert_int_eq(oci_manifest(good, strlen(good), &m, &e), 0);
	ck_assert_uint_eq(m.nlayers, 2);
	ck_assert_str_eq(m.layer[0].hex, HEX_B);
	ck_assert_str_eq(m.config.hex, HEX_A);
	manifest_refused("{\"config\":{" A "},\"layers\":[{" B "}]}",
			 "the configuration of an image");
	manifest_refused("{\"config\":7,\"layers\":[{" B "}]}", "the configuration of an image");
	manifest_refused("{\"config\":{" TYPE A "},\"layers\":[]}", "layers: 0; expected 1 to 127");
	manifest_refused("{\"config\":{" TYPE A "},\"layers\":{}}", "layers: 0; expected 1 to 127");
	manifest_refused("{\"config\":{" TYPE A "},\"layers\":[null]}", "digest");
	manifest_refused("{\"config\":{" TYPE A "},\"layers\":[{\"mediaType\":\"x+encrypted\"," A
			 "}]}",
			 "layer 0 is encrypted");
	p += sprintf(p, "{\"config\":{" TYPE A "},\"layers\":[{" A "}");
	for (unsigned i = 0; i < 127; i++)
		p += sprintf(p, ",{" A "}");
	strcpy(p, "]}");
	manifest_refused(many, "layers: 128");
	free(many);
}
END_TEST

/* ---- configuration ---- */

static int take_config(const char *text, struct oci_config *c)
{
	oci_config_free(c);
	e.text[0] = 0;
	return oci_config(text, strlen(text), c, &e);
}

START_TEST(configurations)
{
	static const char good[] =
		"{\"os\":\"linux\",\"architecture\":\"amd64\",\"config\":{\"Entrypoint\":[\"/e\","
		"\"a\"],\"Cmd\":[\"c\"],\"Env\":[\"A=1\",\"odd\",\"=x\",\"B=\"],\"User\":\"u\","
		"\"WorkingDir\":\"/w\",\"ExposedPorts\":{\"1/tcp\":{}}},\"rootfs\":{\"diff_ids\":"
		"[\"sha256:" HEX_A "\"]}}";
	struct oci_config c = {0};

	ck_assert_int_eq(take_config(good, &c), 0);
	ck_assert_str_eq(c.entrypoint[1], "a");
	ck_assert_str_eq(c.cmd[0], "c");
	ck_assert_ptr_null(c.cmd[1]);
	ck_assert_str_eq(c.env[0], "A=1");
	ck_assert_str_eq(c.env[1], "B="); /* what is no variable is left out */
	ck_assert_ptr_null(c.env[2]);
	ck_assert_str_eq(c.user, "u");
	ck_assert_str_eq(c.cwd, "/w");
	ck_assert_uint_eq(c.ndiff, 1);
	ck_assert_str_eq(c.diff_id[0], HEX_A);
	ck_assert_int_eq(
		take_config("{\"config\":{\"Entrypoint\":null,\"Cmd\":[],\"User\":\"\"}}", &c), 0);
	ck_assert(!c.entrypoint && !c.cmd && !c.user);
	ck_assert_int_eq(take_config("{}", &c), 0);
	oci_config_free(&c);
}
END_TEST

START_TEST(configuration_with_a_nul)
{
	static const char text[] = "{\"config\":{\"Cmd\":[\"c\"]}} // \0 }";
	struct oci_config c = {0};

	ck_assert_int_eq(oci_config(text, sizeof(text) - 1, &c, &e), -EINVAL);
	ck_assert_msg(strstr(e.text, "not a JSON object: a NUL") != NULL, "%s", e.text);
	ck_assert(!c.cmd && !c.text);
}
END_TEST

START_TEST(configurations_malformed)
{
	static const struct {
		const char *text, *words;
	} bad[] = {
		{"{\"config\":\"x\"}", "config: expected an object"},
		{"{\"config\":{\"Cmd\":\"x\"}}", "Cmd: expected an array of strings"},
		{"{\"config\":{\"Cmd\":[\"x\",1]}}", "Cmd: expected an array of strings"},
		{"{\"config\":{\"Cmd\":[\"x\\u0000y\"]}}", "Cmd: expected an array of strings"},
		{"{\"config\":{\"Env\":{\"A\":\"1\"}}}", "Env: expected an array of strings"},
		{"{\"config\":{\"Entrypoint\":[[]]}}", "Entrypoint: expected"},
		{"{\"config\":{\"Entrypoint\":[\"x\"],\"Cmd\":1}}", "Cmd: expected"},
		{"{\"config\":{\"User\":0}}", "User: expected a string"},
		{"{\"config\":{\"WorkingDir\":[]}}", "WorkingDir: expected a string"},
		{"{\"architecture\":\"arm64\"}", "the image is for /arm64"},
		{"{\"os\":7}", "the image is for"},
		{"{\"rootfs\":{\"diff_ids\":[\"md5:x\"]}}", "diff_ids: expected"},
	};
	struct oci_config c = {0};
	char *deep = malloc(400);

	for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
		ck_assert_msg(take_config(bad[i].text, &c) == -EINVAL, "%s", bad[i].text);
		ck_assert_msg(strstr(e.text, bad[i].words) != NULL, "'%s' lacks '%s'", e.text,
			      bad[i].words);
		ck_assert_msg(!c.entrypoint && !c.cmd && !c.env && !c.user, "it holds something");
	}
	strcpy(deep, "{\"x\":");
	memset(deep + 5, '[', 300);
	deep[305] = 0;
	ck_assert_int_eq(take_config(deep, &c), -EINVAL);
	oci_config_free(&c);
	free(deep);
}
END_TEST

START_TEST(records_come_back)
{
	static const char config[] = "{\"config\":{\"Cmd\":[\"\\\"quoted\\\"\",\"\\u00e4\"]}}";
	struct oci_manifest m = {.nlayers = 2, .layer = {{HEX_A, 1}, {HEX_B, 2}}}, back;
	struct oci_config c = {0}, again;
	char *text;

	ck_assert_int_eq(take_config(config, &c), 0);
	text = oci_record(&m, HEX_A, &c);
	ck_assert_int_eq(oci_record_read(text, strlen(text), &back, &again, &e), 0);
	ck_assert_uint_eq(back.nlayers, 2);
	ck_assert_str_eq(back.layer[1].hex, HEX_B);
	ck_assert_str_eq(again.cmd[0], "\"quoted\"");
	oci_config_free(&again);
	for (size_t n = 0; n < strlen(text); n += 7) { /* a damaged one is refused */
		char *cut = strndup(text, n);

		ck_assert_int_lt(oci_record_read(cut, n, &back, &again, &e), 0);
		oci_config_free(&again);
		free(cut);
	}
	free(text);
	oci_config_free(&c);
}
END_TEST

/* ---- what an image adds ---- */

static char *entry[] = {"/entry", "arg", NULL}, *cmd[] = {"cmd", NULL};
static char *env[] = {"PATH=/image", "A=image", NULL};
static struct vm_config c;

static void check_command(const char *const *words)
{
	unsigned n = 0;

	for (; words[n]; n++)
		ck_assert_str_eq(c.command[n], words[n]);
	ck_assert_uint_eq(c.ncommand, n);
	ck_assert_ptr_null(c.command[n]);
}

START_TEST(image_gives)
{
	struct image i = {.entrypoint = entry, .cmd = cmd, .env = env, .user = "u:7", .cwd = "/w"};

	config_init(&c);
	ck_assert_int_eq(image_apply(&i, &c, &e), 0);
	check_command((const char *const[]){"/entry", "arg", "cmd", NULL});
	ck_assert_str_eq(c.user, "u:7");
	ck_assert_str_eq(c.cwd, "/w");
	ck_assert_uint_eq(c.nenv, 2);
	config_free(&c);
}
END_TEST

START_TEST(user_wins)
{
	struct image i = {.entrypoint = entry, .cmd = cmd, .env = env, .user = "u", .cwd = "/w"};
	char *const mine[] = {"mine", NULL};

	config_init(&c);
	ck_assert_int_eq(config_set_command(&c, mine, 1, &e), 0);
	ck_assert_int_eq(config_set(&c, "-e", "env", "A=mine", &e), 0);
	ck_assert_int_eq(config_set(&c, "-u", "user", "5", &e), 0);
	ck_assert_int_eq(config_set(&c, "-w", "cwd", "/mine", &e), 0);
	ck_assert_int_eq(image_apply(&i, &c, &e), 0);
	check_command((const char *const[]){"/entry", "arg", "mine", NULL});
	ck_assert_str_eq(c.env[2], "A=mine");
	ck_assert_uint_eq(c.uid, 5);
	ck_assert_str_eq(c.cwd, "/mine");
	config_free(&c);
}
END_TEST

START_TEST(entry_points)
{
	struct image i = {.entrypoint = entry, .cmd = cmd}, none = {.nlayers = 1};
	struct image empty = {.cmd = (char *[]){"", NULL}};
	char *const mine[] = {"mine", NULL};

	config_init(&c);
	c.entrypoint = strdup("/other");
	ck_assert_int_eq(image_apply(&i, &c, &e),
			 0); /* and the image's command goes with its own */
	check_command((const char *const[]){"/other", NULL});
	config_free(&c);
	c.entrypoint = strdup("");
	ck_assert_int_eq(image_apply(&i, &c, &e), -EINVAL);
	ck_assert_int_eq(config_set_command(&c, mine, 1, &e), 0);
	ck_assert_int_eq(image_apply(&i, &c, &e), 0);
	check_command((const char *const[]){"mine", NULL});
	config_free(&c);
	ck_assert_int_eq(image_apply(&none, &c, &e), -EINVAL);
	ck_assert_str_eq(e.text, "no command, and the image has none; expected one at the end of "
				 "the line");
	ck_assert_int_eq(image_apply(&empty, &c, &e), -EINVAL);
	config_free(&c);
}
END_TEST

START_TEST(hostile_values)
{
	struct image user = {.cmd = cmd, .user = "../x"}, cwd = {.cmd = cmd, .cwd = "relative"};

	config_init(&c);
	ck_assert_int_eq(image_apply(&user, &c, &e), -EINVAL);
	ck_assert_ptr_nonnull(strstr(e.text, "its user: '../x'; expected UID or NAME"));
	config_free(&c);
	ck_assert_int_eq(image_apply(&cwd, &c, &e), -EINVAL);
	ck_assert_ptr_nonnull(strstr(e.text, "its directory: 'relative'; expected an absolute"));
	config_free(&c);
}
END_TEST

/* ---- the store ---- */

static char dir[64];
static struct store store;

static void open_store(void)
{
	strcpy(dir, "/tmp/test-oci-image.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	ck_assert_msg(!store_open(&store, dir, &e), "%s", e.text);
}

static void close_store(void)
{
	char line[128];

	store_close(&store);
	snprintf(line, sizeof(line), "rm -r %s", dir);
	ck_assert_int_eq(system(line), 0);
}

START_TEST(references)
{
	struct store_ref r = {.reference = "oci:/a \"b\"", .hex = HEX_A, .state = "s"}, got;

	ck_assert_int_eq(store_ref_parse("{\"reference\":null,\"image\":\"" HEX_A "\"}", &got), 0);
	ck_assert_str_eq(got.reference, "");
	ck_assert_int_eq(store_ref_read(&store, r.reference, &got, &e), -ENOENT);
	ck_assert_int_eq(store_ref_write(&store, &r, &e), 0);
	strcpy(r.hex, HEX_B); /* it is replaced */
	ck_assert_int_eq(store_ref_write(&store, &r, &e), 0);
	ck_assert_int_eq(store_ref_read(&store, r.reference, &got, &e), 0);
	ck_assert_str_eq(got.hex, HEX_B);
	ck_assert_str_eq(got.reference, r.reference);
	ck_assert_int_eq(store_trim(&store, UINT64_MAX, NULL, NULL, &e), 0);
	ck_assert_int_eq(store_ref_read(&store, r.reference, &got, &e), -ENOENT); /* of no image */
}
END_TEST

START_TEST(names_of_merged_layers)
{
	struct oci_manifest m = {.nlayers = 3, .layer = {{HEX_A, 1}, {HEX_B, 2}, {HEX_A, 1}}};
	char two[STORE_NAME_MAX], three[STORE_NAME_MAX], other[STORE_NAME_MAX];

	store_merged_name(&m, 2, two);
	store_merged_name(&m, 3, three);
	ck_assert_str_ne(two, three);
	memcpy(m.layer[0].hex, HEX_B, sizeof(HEX_B));
	store_merged_name(&m, 2, other);
	ck_assert_str_ne(two, other);
}
END_TEST

START_TEST(locks_exclude)
{
	int up[2], status;
	char byte;
	pid_t pid;

	ck_assert_int_eq(pipe(up), 0);
	ck_assert_int_eq(store_lock(&store, "layer-x", &e), 0);
	pid = fork();
	if (pid == 0) {
		struct store own;

		if (store_open(&own, dir, &e) || store_lock(&own, "layer-x", &e))
			_exit(1);
		_exit(read(up[0], &byte, 1) == 1 ? 0 : 2); /* not before it was written */
	}
	usleep(50000);
	ck_assert_int_eq(waitpid(pid, &status, WNOHANG), 0);
	ck_assert_int_eq(write(up[1], "x", 1), 1);
	store_unlock(&store, "layer-x");
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
}
END_TEST

START_TEST(a_lock_is_not_waited_for_without_end)
{
	struct store own;

	ck_assert_int_eq(store_lock(&store, "layer-x", &e), 0);
	ck_assert_int_eq(store_open(&own, dir, &e), 0);
	ck_assert_int_eq(setenv("INSULA_IMAGE_TIMEOUT", "1", 1), 0);
	ck_assert_int_eq(store_start_clock(&own, &e), 0);
	unsetenv("INSULA_IMAGE_TIMEOUT");
	ck_assert_int_eq(store_lock(&own, "layer-x", &e), -ETIMEDOUT);
	ck_assert_ptr_nonnull(strstr(e.text, "not ready after 1 s"));
	store_close(&own);
}
END_TEST

START_TEST(a_store_of_others)
{
	int next = dup(0);
	struct store s;

	close(next);
	ck_assert_int_eq(chmod(dir, 0777), 0);
	ck_assert_int_eq(store_open(&s, dir, &e), -EPERM);
	ck_assert_int_eq(dup(0), next); /* nothing stays open */
	close(next);
	ck_assert_int_eq(chmod(dir, 0700), 0);
}
END_TEST

START_TEST(a_pull_without_descriptors)
{
	struct rlimit l;
	char name[32];
	int hold = -1, next = dup(0);

	close(next);
	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &l), 0);
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &(struct rlimit){(rlim_t)next, l.rlim_max}), 0);
	ck_assert_int_eq(store_pull_begin(&store, name, &hold, &e), -EMFILE);
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &l), 0);
	ck_assert_int_eq(hold, -1);
	ck_assert_int_ne(faccessat(store.cache.dir, name, F_OK, 0), 0);
}
END_TEST

START_TEST(dead_pulls_are_removed)
{
	char name[32], path[128];
	int hold;

	ck_assert_int_eq(store_pull_begin(&store, name, &hold, &e), 0);
	snprintf(path, sizeof(path), "%s/%s/l", dir, name);
	ck_assert_int_eq(mkdir(path, 0700), 0);
	ck_assert_int_eq(store_trim(&store, 0, NULL, NULL, &e), 0);
	ck_assert_int_eq(access(path, F_OK), 0); /* its maker lives */
	close(hold);
	ck_assert_int_eq(store_trim(&store, 0, NULL, NULL, &e), 0);
	ck_assert_int_ne(access(path, F_OK), 0);
}
END_TEST

/* Where there is no O_TMPFILE a killed maker leaves one. */
START_TEST(dead_files_are_removed)
{
	char path[2][128];
	int fds[2];

	for (unsigned i = 0; i < 2; i++) {
		snprintf(path[i], sizeof(path[i]), "%s/.new-1-%u", dir, i);
		fds[i] = open(path[i], O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		ck_assert_int_ge(fds[i], 0);
	}
	ck_assert_int_eq(flock(fds[1], LOCK_EX | LOCK_NB), 0);
	ck_assert_int_eq(store_trim(&store, UINT64_MAX, NULL, NULL, &e), 0);
	ck_assert_int_ne(access(path[0], F_OK), 0);
	ck_assert_int_eq(access(path[1], F_OK), 0); /* its maker lives */
	close(fds[1]);
	ck_assert_int_eq(store_trim(&store, UINT64_MAX, NULL, NULL, &e), 0);
	ck_assert_int_ne(access(path[1], F_OK), 0);
	close(fds[0]);
}
END_TEST

START_TEST(time_is_limited)
{
	unsetenv("INSULA_IMAGE_TIMEOUT");
	ck_assert(!store_start_clock(&store, &e) && store.seconds == 3600);
	ck_assert_int_eq(store_go_on(&store, &e), 0);
	store.end_ns -= 3600ull * 1000000000;
	ck_assert_int_eq(store_go_on(&store, &e), -ETIMEDOUT);
	ck_assert_int_eq(store_reason(&store, -EIO, &e), -ETIMEDOUT);
	ck_assert_int_eq(store_reason(&store, -EINVAL, &e), -EINVAL);
	setenv("INSULA_IMAGE_TIMEOUT", "5", 1);
	ck_assert(!store_start_clock(&store, &e) && store.seconds == 5);
	for (unsigned i = 0; i < 5; i++) {
		setenv("INSULA_IMAGE_TIMEOUT", (const char *[]){"x", "-1", "5s", "0", "604801"}[i],
		       1);
		ck_assert_int_eq(store_start_clock(&store, &e), -EINVAL);
	}
	unsetenv("INSULA_IMAGE_TIMEOUT");
}
END_TEST

START_TEST(limits)
{
	uint64_t n;

	unsetenv("INSULA_IMAGE_LIMIT");
	ck_assert(!store_limit(&n, &e) && n == 20ull << 30);
	setenv("INSULA_IMAGE_LIMIT", "5M", 1);
	ck_assert(!store_limit(&n, &e) && n == 5u << 20);
	setenv("INSULA_IMAGE_LIMIT", "12", 1);
	ck_assert(!store_limit(&n, &e) && n == 12);
	for (unsigned i = 0; i < 4; i++) {
		setenv("INSULA_IMAGE_LIMIT", (const char *[]){"x", "-1", "5MB", "5 M"}[i], 1);
		ck_assert_int_eq(store_limit(&n, &e), -EINVAL);
	}
	setenv("INSULA_IMAGE_LIMIT", "16777215T", 1);
	ck_assert(!store_limit(&n, &e) && n == UINT64_MAX << 40);
	setenv("INSULA_IMAGE_LIMIT", "16777216T", 1);
	ck_assert_int_eq(store_limit(&n, &e), -EINVAL);
	unsetenv("INSULA_IMAGE_LIMIT");
}
END_TEST

/* ---- insula-layer ---- */

#define BLOB_SIZE (4u << 20)

static int zeros(void *ctx, unsigned i, struct err *err)
{
	int fd = memfd_create("blob", MFD_CLOEXEC);

	(void)ctx;
	(void)i;
	(void)err;
	ck_assert_int_eq(ftruncate(fd, BLOB_SIZE), 0);
	return fd;
}

static int beside_us(const char *name)
{
	char path[4096];
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 32);

	ck_assert_int_gt(n, 0);
	path[n] = 0;
	snprintf(strrchr(path, '/'), 32, "/%s", name);
	return open(path, O_RDONLY | O_CLOEXEC);
}

/* It has closed its stream and owes an answer: that has an end, and nobody spins until then. */
START_TEST(a_program_that_says_nothing)
{
	const struct oci_blob layer = {HEX_A, BLOB_SIZE};
	struct layers_job j = {.program = beside_us("layer_mute"),
			       .layer = &layer,
			       .n = 1,
			       .all = 1,
			       .blob = zeros,
			       .store = &store,
			       .bytes = BLOB_SIZE};
	int out = memfd_create("image", MFD_CLOEXEC);
	struct timespec used;

	ck_assert_int_ge(j.program, 0);
	setenv("INSULA_IMAGE_TIMEOUT", "2", 1);
	ck_assert_int_eq(store_start_clock(&store, &e), 0);
	ck_assert_msg(layers_make(&j, out, &e) == -ETIMEDOUT, "%s", e.text);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
	ck_assert_msg(!used.tv_sec, "%ld s of a processor", (long)used.tv_sec);
	close(out);
	close(j.program);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("oci_image");
	TCase *t = tcase_create("text"), *k = tcase_create("store");
	SRunner *sr;
	int failures;

	tcase_add_test(t, index_picks);
	tcase_add_test(t, index_malformed);
	tcase_add_test(t, manifests);
	tcase_add_test(t, configurations);
	tcase_add_test(t, configuration_with_a_nul);
	tcase_add_test(t, configurations_malformed);
	tcase_add_test(t, records_come_back);
	tcase_add_test(t, image_gives);
	tcase_add_test(t, user_wins);
	tcase_add_test(t, entry_points);
	tcase_add_test(t, hostile_values);
	tcase_add_checked_fixture(k, open_store, close_store);
	tcase_add_test(k, references);
	tcase_add_test(k, names_of_merged_layers);
	tcase_add_test(k, locks_exclude);
	tcase_add_test(k, a_lock_is_not_waited_for_without_end);
	tcase_add_test(k, a_pull_without_descriptors);
	tcase_add_test(k, a_store_of_others);
	tcase_add_test(k, dead_pulls_are_removed);
	tcase_add_test(k, dead_files_are_removed);
	tcase_add_test(k, time_is_limited);
	tcase_add_test(k, limits);
	tcase_add_test(k, a_program_that_says_nothing);
	suite_add_tcase(s, t);
	suite_add_tcase(s, k);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failures = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failures ? 1 : 0;
}
