/* SPDX-License-Identifier: BSD-2-Clause */
/* The table of settings: what is made of it, and refusals as data. */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>

#include "daemon/schema.h"
#include "spec/config.h"
#include "spec/describe.h"
#include "spec/json.h"
#include "spec/json_place.h"

static struct vm_config c;
static struct err e;

static void setup(void)
{
	config_init(&c);
	memset(&e, 0, sizeof(e));
}

static void teardown(void)
{
	config_free(&c);
}

static int json(const char *name, const char *text)
{
	int rc = config_json(&c, name, text, strlen(text), &e);

	return rc ? rc : config_check(&c, &e);
}

/* ---- the table ---- */

START_TEST(rows_are_whole)
{
	for (size_t i = 0; i < SETTINGS; i++) {
		const struct setting *s = &settings[i];

		ck_assert_msg(s->help && s->help[0] && s->on, "%s", s->name);
		ck_assert_int_eq(!s->value, s->type == SETTING_FLAG);
		ck_assert_int_eq(s->items, s->nitems > 0);
		ck_assert(s->min <= s->max);
		for (size_t k = 0; k < s->nitems; k++) {
			const struct setting_item *it = &s->item[k];

			ck_assert_msg(it->help && it->min <= it->max, "%s", it->key);
			ck_assert_ptr_eq(setting_item_find(s, it->key, strlen(it->key)), it);
		}
	}
}
END_TEST

START_TEST(sizes_as_text)
{
	static const struct {
		uint64_t n;
		const char *text;
	} cases[] = {{0, "0"},
		     {1, "1"},
		     {1023, "1023"},
		     {1024, "1K"},
		     {1536, "1536"},
		     {16 << 20, "16M"},
		     {1ull << 40, "1024G"},
		     {(1ull << 30) + 1024, "1048577K"}};
	char text[24];
	uint64_t n;

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		ck_assert_str_eq(size_text(cases[i].n, text), cases[i].text);
		ck_assert(parse_size(text, &n) && n == cases[i].n);
	}
}
END_TEST

START_TEST(items_that_were_meant)
{
	const struct setting *disk = setting_find("disk");

	ck_assert_str_eq(setting_item_meant(disk, "serail"), "serial");
	ck_assert_ptr_null(setting_item_meant(disk, "format"));
	ck_assert_ptr_null(setting_item_meant(disk, "rw"));
	ck_assert_int_eq(config_set(&c, "--disk", "disk", "path=/a,serail=x", &e), -EINVAL);
	ck_assert_str_eq(e.text, "--disk: 'serail=x'; did you mean 'serial='?; expected "
				 "[path=]FILE[,ro][,direct][,serial=S][,engine=threads]"
				 "[,overlay=FILE|discard][,rate=BYTES][,iops=N][,bus=pci|mmio]");
	ck_assert_int_eq(config_set(&c, "--disk", "disk", "path=/a,dircet", &e), -EINVAL);
	ck_assert_ptr_nonnull(strstr(e.text, "did you mean 'direct'?"));
	ck_assert_int_eq(config_set(&c, "--disk", "disk", "path=/a,buss=pci", &e), -EINVAL);
	ck_assert_ptr_nonnull(strstr(e.text, "did you mean 'bus='?"));
	/* The right word in the wrong form. */
	ck_assert_int_eq(config_set(&c, "--disk", "disk", "path=/a,ro=1", &e), -EINVAL);
	ck_assert_int_eq(config_set(&c, "--disk", "disk", "path=/a,serial", &e), -EINVAL);
	ck_assert_uint_eq(c.ndisks, 0);
}
END_TEST

/* ---- refusals ---- */

static const struct {
	const char *text, *field, *value, *expected; /* value "": none */
} refusals[] = {
	{"{\"cpus\":99}", "cpus", "99", "a number from 1 to 32"},
	{"{\"cpus\":\"2,max=40\"}", "cpus", "40", "a number from 2 to 32"},
	{"{\"cpus\":\"2,8\"}", "cpus", "2,8", "N or N,max=M, numbers of vCPUs"},
	{"{\"mem\":\"12x\"}", "mem", "12x", "a size from 16M to 1024G, such as 256M"},
	{"{\"mem\":512}", "mem", "512", "a size such as 512M"},
	{"{\"cpus\":true}", "cpus", "true", "a string or a whole number"},
	{"{\"tty\":1}", "tty", "1", "true or false"},
	{"{\"timeout\":0}", "timeout", "0", "seconds from 1 to 31536000"},
	{"{\"kernel\":\"\"}", "kernel", "", "a path"},
	{"{\"cpu\":1}", "cpu", NULL, "cpus"},
	{"{\"disks\":[{\"path\":\"/a\"},{\"path\":\"/b\",\"serial\":\"\"}]}", "disks[1].serial", "",
	 "1 to 20 characters"},
	{"{\"disks\":[\"/a\",\"/b,serial=\"]}", "disks[1].serial", "", "1 to 20 characters"},
	{"{\"disks\":[{\"path\":1}]}", "disks[0].path", "1", "a string"},
	{"{\"disks\":[1]}", "disks[0]", "1", "an array of objects or strings"},
	{"{\"vsock\":{\"path\":\"/v\",\"cid\":2}}", "vsock.cid", "2",
	 "a number from 3 to 4294967294"},
	{"{\"disks\":[{\"path\":\"/a\",\"seral\":1}]}", "disks[0].seral", NULL, "serial"},
	{"{\"a:b\":1}", "a:b", NULL, ""},
	{"{\"vsock\":{\"path\":\"/v\",\"cidd\":2}}", "vsock.cidd", NULL, "cid"},
	{"{\"shares\":[\"/a:b\"]}", "shares[0]", "/a:b",
	 "DIR:GUESTDIR[:ro][,packed][,cache=none|auto|always][,bus=pci|mmio], GUESTDIR an absolute "
	 "path below /"},
	{"{\"shares\":[\"/a:/b\",\"/a:/c,cache=x\"]}", "shares[1]", "x", "none, auto or always"},
	{"{\"bus\":\"isa\"}", "bus", "isa", "pci or mmio"},
	{"{\"Bus\":\"pci\"}", "Bus", NULL, "bus"},
	{"{\"disks\":[\"/a\",{\"path\":\"/b\",\"bus\":\"isa\"}]}", "disks[1].bus", "isa",
	 "pci or mmio"},
	{"{\"nets\":[{\"user\":true,\"bus\":true}]}", "nets[0].bus", "true", "a string"},
	{"{\"shares\":[\"/a:/b,bus=isa\"]}", "shares[0]", "isa", "pci or mmio"},
	{"{\"initrd\":\"/i\",\"command\":[\"c\"]}", "initrd", NULL, "none with a command"},
	{"{\"tty\":true}", "tty", NULL, "a command"},
	{"{\"command\":[\"\"]}", "command", NULL, "a program's name"},
};

START_TEST(refused_as_data)
{
	const struct mistake *m = &c.mistake;

	ck_assert_int_eq(json("", refusals[_i].text), -EINVAL);
	ck_assert_str_eq(m->field, refusals[_i].field);
	ck_assert_str_eq(m->expected, refusals[_i].expected);
	ck_assert_msg(m->has_value == (refusals[_i].value != NULL), "%s: value '%s'",
		      refusals[_i].text, m->value);
	ck_assert_str_eq(m->value, refusals[_i].value ? refusals[_i].value : "");
	ck_assert_msg(!strstr(e.text, "json: "), "%s", e.text);
}
END_TEST

START_TEST(flags_as_data)
{
	ck_assert_int_eq(config_set(&c, "--cpus", "cpus", "x\x1b", &e), -EINVAL);
	ck_assert_str_eq(c.mistake.field, "cpus");
	ck_assert_str_eq(c.mistake.value, "x?");
	ck_assert_int_eq(config_set(&c, "--cpus", "cpus", "33", &e), -EINVAL);
	ck_assert_uint_eq(c.cpus, 1); /* as it was */
	ck_assert_int_eq(config_set(&c, "--disk", "disk", "/a,engine=x", &e), -EINVAL);
	ck_assert_str_eq(c.mistake.field, "disks.engine");
	ck_assert_str_eq(e.text, "--disk: engine 'x'; expected auto or threads");
}
END_TEST

/* Without a name there is no place to name, and a colon in a key is the key's. */
START_TEST(nothing_in_front)
{
	ck_assert_int_eq(json("", "{\"a:b\":1}"), -EINVAL);
	ck_assert_str_eq(e.text, "unknown key 'a:b'");
	ck_assert_int_eq(json("f", "{\"a:b\":1}"), -EINVAL);
	ck_assert_str_eq(e.text, "f:1:2: unknown key 'a:b'");
	ck_assert_int_eq(json("", "{\"x\":[[[[[[[[[1]]]]]]]]]}"), -EINVAL);
	ck_assert_str_eq(e.text, "nesting too deep");
	ck_assert_int_eq(json("", "[]"), -EINVAL);
	ck_assert_str_eq(e.text, "expected one object");
}
END_TEST

/* ---- places ---- */

static const struct {
	const char *text, *key, *member, *place;
	int index;
} places[] = {
	{"{\"mem\": \"12x\"}", "mem", NULL, "f:1:2", -1},
	{"{\"append\":\"mem\",\n \"mem\": 1}", "mem", NULL, "f:2:2", -1},
	{"{\"disks\": [\n{\"path\": \"a\"},\n {\"path\": \"b\"}]}", "disks", "path", "f:3:3", 1},
	{"{\"disks\": [\"a,b\",\n  \"c\"]}", "disks", NULL, "f:2:3", 1},
	{"{\"disks\": [ \"a\"]}", "disks", NULL, "f:1:13", 0},
	{"{\"vsock\": {\"cid\": 1}}", "vsock", "cid", "f:1:12", -1},
	{"{\"nets\": [{\"fwd\": [1, 2]}, {\"fwd\": 3}]}", "nets", "fwd", "f:1:29", 1},
	{"{\"x\": {\"mem\": 1}, \"mem\": 2}", "mem", NULL, "f:1:19", -1},
};

START_TEST(places_of_values)
{
	const struct json_source s = {"f", places[_i].text, strlen(places[_i].text)};
	char out[64];

	json_place(&s, json_place_of(&s, places[_i].key, places[_i].index, places[_i].member), out,
		   sizeof(out));
	ck_assert_str_eq(out, places[_i].place);
}
END_TEST

START_TEST(a_bad_value_has_its_place)
{
	ck_assert_int_eq(json("vm.json", "{\n \"mem\": \"12x\"\n}"), -EINVAL);
	ck_assert_str_eq(e.text, "vm.json:2:2: mem: '12x'; expected a size from 16M to 1024G, such "
				 "as 256M");
	ck_assert_int_eq(json("vm.json", "{\"disks\":[{\"path\":\"/a\"},\n{\"path\":\"/b\",\n"
					 "\"serial\":\"\"}]}"),
			 -EINVAL);
	ck_assert_str_eq(e.text, "vm.json:3:1: disks: serial ''; expected 1 to 20 characters");
}
END_TEST

/* ---- the schema ---- */

static int by_schema(json_object *schema, const char *text, struct problem *p)
{
	const char *why;
	json_object *o = j_parse(text, strlen(text), 16, &why);
	int rc = o ? schema_validate(schema, o, p) : -1;

	json_object_put(o);
	return rc;
}

START_TEST(schema_is_one)
{
	json_object *schema = settings_schema();
	struct problem p;

	ck_assert_msg(!schema_check(schema, &p), "%s: %s", p.field, p.expected);
	for (size_t i = 0; i < SETTINGS; i++)
		ck_assert_msg(!(settings[i].on & settings_here) ||
				      j_get(j_get(schema, "properties"), setting_key(&settings[i])),
			      "%s", settings[i].name);
	json_object_put(schema);
}
END_TEST

/* What is taken is valid; what has the wrong type, or is out of a range, is neither. */
START_TEST(schema_agrees)
{
	static const char *const good[] = {
		"{}",
		"{\"cpus\":4,\"mem\":\"64M\",\"kernel\":\"/"
		"k\",\"console\":\"none\",\"rng\":\"off\"}",
		"{\"cpus\":\"4\",\"mem\":67108864,\"timeout\":1}",
		"{\"disks\":[{\"path\":\"/a\",\"ro\":true,\"serial\":\"s\",\"engine\":\"auto\"},\"/"
		"b\"]}",
		"{\"nets\":[{\"user\":true,\"fwd\":[\"1:2\"],\"mtu\":1500,\"rate\":\"1M\"},"
		"{\"tap\":\"t\",\"fwd\":[],\"rate\":4096}]}",
		"{\"vsock\":{\"path\":\"/v\",\"cid\":5}}",
		"{\"vsock\":\"/v\"}",
		"{\"command\":[\"sh\"],\"tty\":true,\"env\":[\"A=1\"],\"cwd\":\"/"
		"\",\"user\":\"1:2\"}",
		"{\"shares\":[\"/a:/b\"]}",
	};
	static const char *const bad[] = {
		"{\"cpus\":0}",
		"{\"cpus\":33}",
		"{\"cpus\":1.5}",
		"{\"cpus\":[]}",
		"{\"mem\":true}",
		"{\"mem\":1}",
		"{\"timeout\":99999999}",
		"{\"disks\":{}}",
		"{\"disks\":[1]}",
		"{\"disks\":[{\"path\":1}]}",
		"{\"disks\":[{\"path\":\"/a\",\"ro\":\"yes\"}]}",
		"{\"disks\":[{\"path\":\"/a\",\"engine\":\"fast\"}]}",
		"{\"disks\":[{\"path\":\"/a\",\"serial\":\"\"}]}",
		"{\"disks\":[{\"path\":\"/a\",\"size\":1}]}",
		"{\"nets\":[{\"user\":true,\"mtu\":\"1500\"}]}",
		"{\"nets\":[{\"tap\":\"t\",\"queues\":9}]}",
		"{\"nets\":[{\"tap\":\"\"}]}",
		"{\"vsock\":{\"path\":\"/v\",\"cid\":2}}",
		"{\"vsock\":[]}",
		"{\"command\":\"sh\"}",
		"{\"tty\":\"on\"}",
		"{\"env\":\"A=1\"}",
		"{\"nothing\":1}",
	};
	json_object *schema = settings_schema();
	struct problem p;

	for (size_t i = 0; i < ARRAY_LEN(good); i++) {
		config_free(&c);
		ck_assert_msg(!json("", good[i]), "%s: %s", good[i], e.text);
		ck_assert_msg(!by_schema(schema, good[i], &p), "%s: %s: %s", good[i], p.field,
			      p.expected);
	}
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		config_free(&c);
		ck_assert_msg(json("", bad[i]), "%s is taken", bad[i]);
		ck_assert_msg(by_schema(schema, bad[i], &p), "%s is valid", bad[i]);
	}
	json_object_put(schema);
}
END_TEST

static Suite *spec_suite(void)
{
	Suite *s = suite_create("spec");
	TCase *t = tcase_create("table");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, rows_are_whole);
	tcase_add_test(t, sizes_as_text);
	tcase_add_test(t, items_that_were_meant);
	tcase_add_loop_test(t, refused_as_data, 0, (int)ARRAY_LEN(refusals));
	tcase_add_test(t, flags_as_data);
	tcase_add_test(t, nothing_in_front);
	tcase_add_loop_test(t, places_of_values, 0, (int)ARRAY_LEN(places));
	tcase_add_test(t, a_bad_value_has_its_place);
	tcase_add_test(t, schema_is_one);
	tcase_add_test(t, schema_agrees);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	SRunner *r = srunner_create(spec_suite());
	int failed;

	srunner_run_all(r, CK_ENV);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
