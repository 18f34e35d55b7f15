/* SPDX-License-Identifier: BSD-2-Clause */
/* insula-oci create: what is refused because the program cannot be there, and what is left to the
 * guest. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "oci/program.h"
#include "spec/json.h"

#include "ocijson.h"

static char root[64];
static struct err e;

static const char *at(const char *path)
{
	static char out[256];

	snprintf(out, sizeof(out), "%s%s", root, path);
	return out;
}

static void file(const char *path, mode_t mode)
{
	int fd = open(at(path), O_CREAT | O_EXCL | O_WRONLY, mode);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(fchmod(fd, mode), 0);
	close(fd);
}

/* A merged /usr, a link to nowhere, a link to where a volume will be. */
static void setup(void)
{
	strcpy(root, "/tmp/test_oci_program.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(root));
	ck_assert_int_eq(mkdir(at("/usr"), 0755), 0);
	ck_assert_int_eq(mkdir(at("/usr/bin"), 0755), 0);
	ck_assert_int_eq(symlink("usr/bin", at("/bin")), 0);
	file("/usr/bin/sh", 0755);
	file("/usr/bin/text", 0644);
	ck_assert_int_eq(symlink("/vol/tool", at("/usr/bin/tool")), 0);
	ck_assert_int_eq(symlink("/vol/dir", at("/away")), 0);
	ck_assert_int_eq(symlink("../../../../../../bin/sh", at("/usr/bin/up")), 0);
}

static void teardown(void)
{
	char cmd[128];

	snprintf(cmd, sizeof(cmd), "rm -rf %s", root);
	ck_assert_int_eq(system(cmd), 0);
}

static int check(const char *arg, const char *env, const char *mount)
{
	char text[512];
	struct bundle b;
	int rc;

	snprintf(text, sizeof(text),
		 "{'process':{'args':['%s'],'cwd':'/usr','env':[%s]},"
		 "'mounts':[{'destination':'/proc'},{'destination':'%s'}]}",
		 arg, env, mount);
	bundle_from(&b, text);
	snprintf(b.rootfs, sizeof(b.rootfs), "%s", root);
	e = (struct err){.code = 0};
	rc = program_check(&b, &e);
	bundle_free(&b);
	return rc;
}

#define PATHS "\"PATH=/usr/local/bin:/usr/bin:/bin\""

START_TEST(there)
{
	ck_assert_int_eq(check("/bin/sh", "", "/dev"), 0);
	ck_assert_int_eq(check("bin/sh", "", "/dev"), 0);
	ck_assert_int_eq(check("sh", PATHS, "/dev"), 0);
	ck_assert_int_eq(check("up", PATHS, "/dev"), 0);
}
END_TEST

START_TEST(not_there)
{
	ck_assert_int_eq(check("no-such", PATHS, "/dev"), -ENOENT);
	ck_assert_str_eq(e.text, "exec: \"no-such\": executable file not found in $PATH");
	ck_assert_int_eq(check("/bin/no-such", "", "/dev"), -ENOENT);
	ck_assert_str_eq(e.text, "exec: \"/bin/no-such\": no such file or directory");
	ck_assert_int_eq(check("/no/such/dir", "", "/dev"), -ENOENT);
	ck_assert_int_eq(check("sh", "\"PATH=/usr/bin\",\"PATH=/usr\"", "/dev"), -ENOENT);
}
END_TEST

START_TEST(not_executable)
{
	ck_assert_int_eq(check("text", PATHS, "/dev"), -EACCES);
	ck_assert_str_eq(e.text, "exec: \"text\": permission denied");
	ck_assert_int_eq(check("/usr", "", "/dev"), -EACCES);
	ck_assert_int_eq(check("/usr/bin/text", "", "/dev"), -EACCES);
}
END_TEST

/* What a mount or a link may bring is for the guest to say. */
START_TEST(left_to_the_guest)
{
	ck_assert_int_eq(check("/vol/x", "", "/vol"), 0);
	ck_assert_int_eq(check("/usr/bin/no-such", "", "/usr/bin/"), 0);
	ck_assert_int_eq(check("/bin/no-such", "", "/usr/bin"), 0);
	ck_assert_int_eq(check("/usr/bin/no-such", "", "/bin"), 0);
	ck_assert_int_eq(check("no-such", PATHS, "/usr/local"), 0);
	ck_assert_int_eq(check("/usr/bin/text", "", "/usr/bin/text"), 0);
	ck_assert_int_eq(check("tool", PATHS, "/vol"), 0);
	ck_assert_int_eq(check("/away/x", "", "/vol"), 0);
	ck_assert_int_eq(check("no-such", "", "/dev"), 0);
	ck_assert_int_eq(check("no-such", "\"PATH=relative\"", "/dev"), 0);
	ck_assert_int_eq(check("/usr/../vol/x", "", "/vol"), 0);
	/* Only whole names are above another. */
	ck_assert_int_eq(check("/usr/bin/no-such", "", "/usr/bi"), -ENOENT);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("oci_program");
	TCase *t = tcase_create("program");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, there);
	tcase_add_test(t, not_there);
	tcase_add_test(t, not_executable);
	tcase_add_test(t, left_to_the_guest);
	suite_add_tcase(s, t);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
