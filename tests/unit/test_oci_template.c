/* SPDX-License-Identifier: BSD-2-Clause */
/* Which template serves a VM: what it was made for, and who may have made it. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <insula/base.h>

#include "oci/template.h"
#include "spec/json.h"

#define NAME "512M-2cpu-1net"

static struct oci_conf c;
static struct vm_size size;
static struct err e;
static char top[64], path[PATH_MAX];

static void at(const char *name)
{
	snprintf(path, sizeof(path), "%s/%s", top, name);
}

static void write_file(const char *name, const char *text)
{
	int fd;

	at(name);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	close(fd);
}

static void make_dir(const char *name)
{
	at(name);
	ck_assert_int_eq(mkdir(path, 0700), 0);
}

/* What `template make` leaves. */
static void setup(void)
{
	static const char *const files[] = {"machine.json", "vmm", "devices", "memory", "seal"};
	char name[96];
	json_object *key;

	ck_assert_int_eq(conf_text(&c, "{}", 2, &e), 0);
	strcpy(top, "/tmp/insula-test-templates-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(top));
	strcpy(c.templates, top);
	size = (struct vm_size){.mem = 512u << 20, .cpus = 2};
	make_dir(NAME);
	make_dir(NAME "/snapshot");
	for (size_t i = 0; i < ARRAY_LEN(files); i++) {
		snprintf(name, sizeof(name), NAME "/snapshot/%s", files[i]);
		write_file(name, "x");
	}
	ck_assert_int_eq(template_key(&c, &size, 1, &key, &e), 0);
	write_file(NAME "/template.json", j_text(key));
	json_object_put(key);
}

static void teardown(void)
{
	char cmd[96];

	snprintf(cmd, sizeof(cmd), "/bin/rm -rf %s", top);
	ck_assert_int_eq(system(cmd), 0);
	conf_free(&c);
}

static int find(unsigned cards)
{
	e.text[0] = 0;
	return template_find(&c, &size, cards, path, &e);
}

START_TEST(found)
{
	char want[128];

	ck_assert_msg(!find(1), "%s", e.text);
	snprintf(want, sizeof(want), "%s/" NAME "/snapshot", top);
	ck_assert_str_eq(path, want);
}
END_TEST

/* The VM boots, and nothing is wrong. */
START_TEST(none)
{
	ck_assert_int_eq(find(0), -ENOENT);
	ck_assert_ptr_nonnull(strstr(e.text, "512M-2cpu-0net"));
	size.cpus = 3;
	ck_assert_int_eq(find(1), -ENOENT);
	size.cpus = 2;
	size.mem += 4096;
	ck_assert_int_eq(find(1), -ENOENT);
	size.mem -= 4096;
	strcpy(size.kernel, "/other");
	ck_assert_int_eq(find(1), -ENOENT);
	ck_assert_str_eq(e.text, "template: it was made for kernel \"\", and not \"/other\"");
	size.kernel[0] = 0;
	strcpy(c.initrd, "/other");
	ck_assert_int_eq(find(1), -ENOENT);
	c.initrd[0] = 0;
	c.vm = json_tokener_parse("{\"append\":\"quiet\"}");
	ck_assert_int_eq(find(1), -ENOENT);
	json_object_put(c.vm);
	c.vm = NULL;
	c.templates[0] = 0;
	ck_assert_int_eq(find(1), -ENOENT);
	strcpy(c.templates, "/nonexistent/templates");
	ck_assert_int_eq(find(1), -ENOENT);
}
END_TEST

/* A disk of the configuration would be in the guest's memory by then. */
START_TEST(members)
{
	json_object *key;

	c.vm = json_tokener_parse("{\"rng\":\"on\",\"disks\":[\"/d\"]}");
	ck_assert_int_eq(template_key(&c, &size, 1, &key, &e), -ENOENT);
	ck_assert_ptr_nonnull(strstr(e.text, "vm.disks of the configuration"));
	ck_assert_ptr_null(key);
}
END_TEST

/* Another release has another insula-init, and perhaps other devices. */
START_TEST(another_release)
{
	json_object *key;

	ck_assert_int_eq(template_key(&c, &size, 1, &key, &e), 0);
	j_str(key, "insula", "0.0-other");
	write_file(NAME "/template.json", j_text(key));
	json_object_put(key);
	ck_assert_int_eq(find(1), -ENOENT);
	ck_assert_ptr_nonnull(strstr(e.text, "it was made for insula \"0.0-other\""));
}
END_TEST

static const char *const places[] = {"",
				     NAME,
				     NAME "/template.json",
				     NAME "/snapshot",
				     NAME "/snapshot/machine.json",
				     NAME "/snapshot/vmm",
				     NAME "/snapshot/devices",
				     NAME "/snapshot/memory",
				     NAME "/snapshot/seal"};

START_TEST(others_may_write)
{
	static const mode_t more[] = {020, 02};
	struct stat st;

	for (size_t i = 0; i < ARRAY_LEN(more); i++) {
		at(places[_i]);
		ck_assert_int_eq(stat(path, &st), 0);
		ck_assert_int_eq(chmod(path, (st.st_mode & 0777) | more[i]), 0);
		ck_assert_int_eq(find(1), -EPERM);
		ck_assert_ptr_nonnull(strstr(e.text, "nobody else may write to it"));
		at(places[_i]);
		ck_assert_int_eq(chmod(path, st.st_mode & 0777), 0);
	}
	ck_assert_msg(!find(1), "%s", e.text);
}
END_TEST

/* It is used by its path. */
START_TEST(others_may_replace_it)
{
	at(NAME);
	ck_assert_int_eq(template_way(path, &e), -EPERM);
	ck_assert_ptr_nonnull(strstr(e.text, "template: /tmp: of user"));
	ck_assert_msg(!template_way("/usr/lib", &e), "%s", e.text);
	at("link");
	ck_assert_int_eq(symlink("/usr", path), 0);
	at("link/lib");
	ck_assert_int_eq(template_way(path, &e), -EPERM);
	ck_assert_int_eq(template_way("/usr/no/such", &e), -ENOENT);
}
END_TEST

/* A link leads to what may be another's. The path of the directory of all is the
 * administrator's. */
START_TEST(links)
{
	char away[PATH_MAX];

	at(places[_i]);
	snprintf(away, sizeof(away), "%.200s.away", path);
	ck_assert_int_eq(rename(path, away), 0);
	ck_assert_int_eq(symlink(away, path), 0);
	ck_assert_int_lt(find(1), 0);
	ck_assert_int_ne(e.code, -ENOENT);
	at(places[_i]);
	ck_assert_int_eq(unlink(path), 0);
	ck_assert_int_eq(rename(away, path), 0);
	ck_assert_msg(!find(1), "%s", e.text);
}
END_TEST

START_TEST(broken)
{
	write_file(NAME "/template.json", "{");
	ck_assert_int_eq(find(1), -EINVAL);
	write_file(NAME "/template.json", "[]");
	ck_assert_int_lt(find(1), 0);
	at(NAME "/template.json");
	ck_assert_int_eq(unlink(path), 0);
	ck_assert_int_eq(find(1), -EINVAL);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("oci_template");
	TCase *t = tcase_create("oci_template");
	SRunner *r;
	int failed;

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, found);
	tcase_add_test(t, none);
	tcase_add_test(t, members);
	tcase_add_test(t, another_release);
	tcase_add_loop_test(t, others_may_write, 0, (int)ARRAY_LEN(places));
	tcase_add_test(t, others_may_replace_it);
	tcase_add_loop_test(t, links, 1, (int)ARRAY_LEN(places));
	tcase_add_test(t, broken);
	suite_add_tcase(s, t);
	r = srunner_create(s);
	srunner_run_all(r, CK_ENV);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
