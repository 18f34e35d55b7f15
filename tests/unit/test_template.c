/* SPDX-License-Identifier: BSD-2-Clause */
/* A template stands for a boot: what has changed since is seen. */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <insula/base.h>

#include "spec/json.h"
#include "supervisor/backing/boot.h"
#include "supervisor/backing/paths.h"

static char top[64];
static struct paths p;
static struct err e;

static const char *in(const char *name)
{
	static char path[128];

	snprintf(path, sizeof(path), "%s/%s", top, name);
	return path;
}

static void touch(const char *name, const char *text)
{
	FILE *f = fopen(in(name), "w");

	ck_assert_ptr_nonnull(f);
	fputs(text, f);
	fclose(f);
}

/* Where `make guest` and `make install` put things. */
static void setup(void)
{
	strcpy(top, "/tmp/insula-test-template-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(top));
	ck_assert_int_eq(mkdir(in("boot"), 0700), 0);
	p = (struct paths){.guest = ""};
	snprintf(p.guest, sizeof(p.guest), "%s", top);
	touch("boot/vmlinuz-1", "one");
	touch("insula-init", "init");
}

static void teardown(void)
{
	char cmd[96];

	snprintf(cmd, sizeof(cmd), "/bin/rm -rf %s", top);
	ck_assert_int_eq(system(cmd), 0);
}

static void state_of(const char *name, char out[96])
{
	struct stat st;

	ck_assert_int_eq(stat(in(name), &st), 0);
	snprintf(out, 96, "%llu %lld %lld.%09ld %lld.%09ld", (unsigned long long)st.st_ino,
		 (long long)st.st_size, (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec,
		 (long long)st.st_ctim.tv_sec, st.st_ctim.tv_nsec);
}

/* As a snapshot has it. The caller's. */
static json_object *booted(bool chosen)
{
	json_object *o = json_object_new_object(), *files = json_object_new_object();
	char state[96];

	if (chosen)
		j_str(o, "chosen", in("boot/vmlinuz-1"));
	state_of("boot/vmlinuz-1", state);
	j_str(files, in("boot/vmlinuz-1"), state);
	state_of("insula-init", state);
	j_str(files, in("insula-init"), state);
	j_obj(o, "files", files);
	return o;
}

START_TEST(unchanged)
{
	json_object *o = booted(true);

	ck_assert_msg(!boot_stale(o, &p, &e), "%s", e.text);
	json_object_put(o);
	/* It is no template. */
	ck_assert_int_eq(boot_stale(NULL, &p, &e), 0);
}
END_TEST

START_TEST(changed)
{
	static const char *const names[] = {"boot/vmlinuz-1", "insula-init"};
	json_object *o = booted(true);

	ck_assert_int_eq(truncate(in(names[_i]), 1), 0);
	ck_assert_int_eq(boot_stale(o, &p, &e), -ESTALE);
	ck_assert_ptr_nonnull(strstr(e.text, names[_i]));
	ck_assert_ptr_nonnull(strstr(e.text, "has changed"));
	ck_assert_int_eq(unlink(in("insula-init")), 0);
	ck_assert_int_eq(boot_stale(o, &p, &e), -ESTALE);
	json_object_put(o);
}
END_TEST

/* A newer one is there, and would be booted; one that was named stays. */
START_TEST(another_kernel)
{
	json_object *chosen = booted(true), *named = booted(false);

	touch("boot/vmlinuz-2", "two");
	ck_assert_int_eq(boot_stale(chosen, &p, &e), -ESTALE);
	ck_assert_ptr_nonnull(strstr(e.text, "another one would be booted today"));
	ck_assert_int_eq(boot_stale(named, &p, &e), 0);
	json_object_put(chosen);
	json_object_put(named);
}
END_TEST

/* It comes from a file. */
START_TEST(hostile)
{
	static const char *const texts[] = {"{\"files\":{\"/etc/passwd\":1}}",
					    "{\"files\":{\"/nonexistent\":\"x\"}}",
					    "{\"chosen\":\"/nonexistent\"}"};

	for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
		json_object *o = json_tokener_parse(texts[i]);

		ck_assert_int_eq(boot_stale(o, &p, &e), -ESTALE);
		json_object_put(o);
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("template");
	TCase *t = tcase_create("template");
	SRunner *r;
	int failed;

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, unchanged);
	tcase_add_loop_test(t, changed, 0, 2);
	tcase_add_test(t, another_kernel);
	tcase_add_test(t, hostile);
	suite_add_tcase(s, t);
	r = srunner_create(s);
	srunner_run_all(r, CK_ENV);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
