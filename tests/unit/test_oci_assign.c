/* SPDX-License-Identifier: BSD-2-Clause */
/* Functions of the host that a container asks for, by a sysfs that is made here; what is refused,
 * and in which words. */
#include <check.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <insula/base.h>

#include "oci/assign.h"
#include "oci/record.h"
#include "spec/json.h"

#include "ocijson.h"

static char sys[64];
static struct err e;
static struct bundle b;
static struct assign a;
static struct rec r;

static void shell(const char *fmt, ...)
{
	char text[512], all[640];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	snprintf(all, sizeof(all), "cd %s && %s", sys, text);
	ck_assert_int_eq(system(all), 0);
}

static void function(const char *address, unsigned group, const char *driver)
{
	shell("mkdir -p bus/pci/devices/%s kernel/iommu_groups/%u/devices/%s", address, group,
	      address);
	shell("ln -s /x/iommu_groups/%u bus/pci/devices/%s/iommu_group", group, address);
	if (driver)
		shell("ln -s /x/drivers/%s bus/pci/devices/%s/driver", driver, address);
}

static void char_device(const char *number, const char *class, const char *name)
{
	shell("mkdir -p devices/%s dev/char && ln -s /x/class/%s devices/%s/subsystem && "
	      "ln -s ../../devices/%s dev/char/%s",
	      name, class, name, name, number);
}

/* Groups 5, of three functions, and 6 are on vfio-pci, 7 is not, 8 is behind no IOMMU. */
static void setup(void)
{
	memset(&e, 0, sizeof(e));
	memset(&b, 0, sizeof(b));
	rec_init(&r);
	strcpy(sys, "/tmp/insula-test-assign-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(sys));
	function("0000:01:00.1", 5, "vfio-pci");
	function("0000:01:00.0", 5, "vfio-pci");
	function("0000:00:01.0", 5, "pcieport");
	function("0000:02:00.0", 6, "nvme-vfio-pci");
	function("0000:03:00.0", 7, "nvme");
	function("0000:03:00.1", 7, NULL);
	shell("mkdir -p bus/pci/devices/0000:04:00.0");
	char_device("240:0", "vfio", "5");
	char_device("240:1", "vfio", "6");
	char_device("240:8", "vfio", "noiommu-0");
	char_device("241:0", "vfio-dev", "vfio0");
	char_device("10:196", "misc", "vfio");
	char_device("10:127", "misc", "iommu");
	char_device("1:3", "mem", "null");
}

static void teardown(void)
{
	char rm[128];

	rec_free(&r);
	bundle_free(&b);
	snprintf(rm, sizeof(rm), "rm -rf %s", sys);
	ck_assert_int_eq(system(rm), 0);
}

static int wanted(const char *text, bool annotation)
{
	bundle_free(&b);
	bundle_from(&b, text);
	return assign_wanted(sys, &b, annotation, &a, &e);
}

/* All records from the second on, with '|' between them. */
static const char *records(void)
{
	static char out[4096];
	const char *p = r.at;

	out[0] = 0;
	for (p += strlen(p) + 1; p < r.at + r.len; p += strlen(p) + 1)
		sprintf(out + strlen(out), "%s%s", out[0] ? "|" : "", p);
	return out;
}

#define NODE(path, major, minor) "{'path':'" path "','type':'c','major':" #major ",'minor':" #minor
#define DEVICES(list) "{'linux':{'devices':[" list "]}}"
#define VFIO NODE("/dev/vfio/vfio", 10, 196) "},"
#define GROUP5 NODE("/dev/vfio/5", 240, 0) "}"
#define NOTE(text) "{'annotations':{'io.insula.vm.vfio':" text "}}"

START_TEST(a_group)
{
	json_object *o, *config;

	ck_assert_int_eq(wanted(DEVICES(VFIO NODE("/dev/vfio/6", 240, 1) "}," NODE(
					"/dev/mine", 240, 0) ",'fileMode':8624,'uid':7,'gid':44}"),
				false),
			 0);
	ck_assert_uint_eq(a.ngroups, 2);
	ck_assert_int_eq(assign_functions(sys, &a, &e), 0);
	assign_records(&a, &r);
	ck_assert_str_eq(records(), "pci=0000:00:01.0|pci.mode=600|pci.uid=0|pci.gid=0|"
				    "pci=0000:00:02.0|pci.mode=660|pci.uid=7|pci.gid=44|"
				    "pci=0000:00:03.0|pci.mode=660|pci.uid=7|pci.gid=44");
	o = assign_json(&a);
	config = assign_config(o);
	ck_assert_str_eq(j_text(config), "[\"0000:02:00.0\",\"0000:01:00.0\",\"0000:01:00.1\"]");
	json_object_put(config);
	json_object_put(o);
}
END_TEST

START_TEST(nothing)
{
	ck_assert_int_eq(wanted("{}", false), 0);
	ck_assert_int_eq(
		wanted(DEVICES(VFIO NODE("/dev/null", 1, 3) "}," NODE(
			       "/dev/iommu", 10, 127) "}," NODE("/dev/vfio/vfio", 99, 1) "}"),
		       false),
		0);
	ck_assert_uint_eq(a.ngroups, 0);
	ck_assert_int_eq(assign_functions(sys, &a, &e), 0);
	ck_assert_ptr_null(assign_json(&a));
	ck_assert_ptr_null(assign_config(NULL));
}
END_TEST

/* A privileged container has all nodes of the host; what it asks for has a rule of its own. */
START_TEST(a_privileged_one)
{
#define RULES(list) "{'linux':{'devices':[" GROUP5 "],'resources':{'devices':[" list "]}}}"
	static const struct {
		const char *json;
		unsigned ngroups;
	} of[] = {
		{RULES("{'allow':true,'access':'rwm'}"), 0},
		{RULES("{'allow':true,'type':'a','access':'rwm'}"), 0},
		{RULES("{'allow':false,'access':'rwm'},{'allow':true,'type':'c','major':240,'minor'"
		       ":0}"),
		 1},
		{RULES("{'allow':true,'access':'rwm'},{'allow':true,'type':'c','major':240,"
		       "'minor':0,'access':'rw'}"),
		 1},
		{RULES("{'allow':true,'access':'rwm'},{'allow':true,'type':'c','major':240,"
		       "'minor':1,'access':'rw'}"),
		 0},
		{RULES("{'allow':true,'access':'rwm'},{'allow':false},{'allow':true,'type':'c',"
		       "'major':240,'access':'rw'}"),
		 1},
		{RULES("{'allow':true,'type':'c','access':'rwm'}"), 1},
	};

	for (size_t i = 0; i < ARRAY_LEN(of); i++) {
		ck_assert_int_eq(wanted(of[i].json, false), 0);
		ck_assert_uint_eq(a.ngroups, of[i].ngroups);
	}
}
END_TEST

START_TEST(an_annotation)
{
	ck_assert_int_eq(wanted(NOTE("'0000:01:00.1,0000:02:00.0,0000:01:00.0'"), true), 0);
	ck_assert_uint_eq(a.ngroups, 2);
	ck_assert_int_eq(assign_functions(sys, &a, &e), 0);
	ck_assert_uint_eq(a.nfunctions, 3);
	ck_assert_str_eq(a.function[1].address, "0000:01:00.1");
	assign_records(&a, &r);
	ck_assert_str_eq(records(), "pci=0000:00:01.0|pci.mode=600|pci.uid=0|pci.gid=0|"
				    "pci=0000:00:02.0|pci.mode=600|pci.uid=0|pci.gid=0|"
				    "pci=0000:00:03.0|pci.mode=600|pci.uid=0|pci.gid=0");
}
END_TEST

#define WRONG "annotations.io.insula.vm.vfio: "
#define FORM "addresses of PCI functions, such as 0000:01:00.0, with commas between them"

#define NO_RIGHT "linux.devices[0]: /dev/vfio/5: its device rules allow "

static const struct {
	const char *json, *text;
} bad[] = {
	{DEVICES(NODE("/dev/vfio/9", 240, 9) "}"),
	 "linux.devices[0]: /dev/vfio/9: the host has no IOMMU group 9"},
	{DEVICES(VFIO NODE("/dev/vfio/7", 240, 7) "}"),
	 "linux.devices[1]: /dev/vfio/7: IOMMU group 7 has no function on vfio-pci "},
	{DEVICES(NODE("/dev/vfio/5", 240, 7) "}"), "linux.devices[0]: /dev/vfio/5: its number is "
						   "not that of /dev/vfio/5; expected the host's"},
	{DEVICES(NODE("/dev/vfio/5", 1, 3) "}"), "linux.devices[0]: /dev/vfio/5: its number is not "
						 "that of /dev/vfio/5; expected the host's"},
	{DEVICES("{'path':'/dev/vfio/5','type':'c'}"),
	 "linux.devices[0]: /dev/vfio/5: its number is not that of /dev/vfio/5; expected the "
	 "host's"},
	{DEVICES(NODE("/dev/x", 241, 0) "}"),
	 "linux.devices[0]: /dev/x: a node of one function, for iommufd; expected that of its "
	 "group, /dev/vfio/N"},
	{DEVICES(NODE("/dev/vfio/devices/vfio3", 241, 3) "}"),
	 "linux.devices[0]: /dev/vfio/devices/vfio3: a node of one function, for iommufd; expected "
	 "that of its group, /dev/vfio/N"},
	{DEVICES(NODE("/dev/vfio/noiommu-0", 240, 8) "}"),
	 "linux.devices[0]: /dev/vfio/noiommu-0: it is behind no IOMMU; expected one: a guest "
	 "would "
	 "reach all of the host's memory"},
	{DEVICES(NODE("/dev/vfio/5", 240, 0) ",'uid':-1}"),
	 "linux.devices[0].uid: -1; expected a whole number from 0 to 4294967294"},
	{RULES("{'allow':false,'access':'rwm'}"), NO_RIGHT "''; expected 'rw'"},
	{RULES("{'allow':true,'access':'rwm'},{'allow':false}"), NO_RIGHT "''; expected 'rw'"},
	{RULES("{'allow':false},{'allow':true,'type':'c','major':240,'minor':0,'access':'rm'}"),
	 NO_RIGHT "'r'; expected 'rw'"},
	{RULES("{'allow':false},{'allow':true,'type':'b','major':240,'minor':0},"
	       "{'allow':true,'type':'c','major':240,'minor':1},"
	       "{'allow':true,'type':'c','minor':0,'access':'w'}"),
	 NO_RIGHT "'w'; expected 'rw'"},
	{"{'linux':{'devices':{}}}", "linux.devices: {}; expected an array"},
	{"{'linux':{'devices':[],'resources':{'devices':7}}}",
	 "linux.resources.devices: 7; expected an array"},
	{NOTE("7"), WRONG "7; expected a string"},
	{NOTE("''"), WRONG "''; expected " FORM},
	{NOTE("'01:00.0'"), WRONG "'01:00.0'; expected " FORM},
	{NOTE("'0000:01:00.0,'"), WRONG "''; expected " FORM},
	{NOTE("'../../x/y/zz'"), WRONG "'../../x/y/zz'; expected " FORM},
	{NOTE("'0000:09:00.0'"), WRONG "'0000:09:00.0'; expected a PCI function that the host has"},
	{NOTE("'0000:04:00.0'"), WRONG "'0000:04:00.0'; expected a function behind an IOMMU"},
};

START_TEST(a_bad_one)
{
	ck_assert_int_lt(wanted(bad[_i].json, true), 0);
	ck_assert_msg(!strncmp(e.text, bad[_i].text, strlen(bad[_i].text)), "%s", e.text);
}
END_TEST

START_TEST(without_leave)
{
	ck_assert_int_eq(wanted(NOTE("'0000:01:00.0'"), false), -EINVAL);
	ck_assert_str_eq(e.text,
			 WRONG "'0000:01:00.0'; expected none, for vfio_annotation is false "
			       "in the configuration");
	ck_assert_int_eq(wanted(NOTE("'0000:03:00.0'"), true), 0);
	ck_assert_int_eq(assign_functions(sys, &a, &e), -EINVAL);
	ck_assert_ptr_nonnull(strstr(e.text, "0000:03:00.0: IOMMU group 7 has no function on "
					     "vfio-pci ("));
	ck_assert_ptr_nonnull(strstr(e.text, "0000:03:00.0: nvme"));
	ck_assert_ptr_nonnull(strstr(e.text, "0000:03:00.1: no driver"));
}
END_TEST

START_TEST(too_many)
{
	for (unsigned i = 0; i < 9; i++) {
		char address[16];

		snprintf(address, sizeof(address), "0000:0a:00.%u", i % 8);
		if (i == 8)
			strcpy(address, "0000:0a:01.0");
		function(address, 20, "vfio-pci");
	}
	ck_assert_int_eq(wanted(NOTE("'0000:0a:00.0'"), true), 0);
	ck_assert_int_eq(assign_functions(sys, &a, &e), -EINVAL);
	ck_assert_str_eq(e.text, WRONG "0000:0a:00.0: more than 8 functions of the host; expected "
				       "at most so many in a VM");
}
END_TEST

START_TEST(of_a_pod)
{
	json_object *had = json("[{'group':6,'function':'0000:02:00.0'},"
				"{'group':5,'function':'0000:01:00.0'}]");

	ck_assert_int_eq(wanted(DEVICES(GROUP5), false), 0);
	ck_assert_int_eq(assign_join(&a, had, "pod", &e), 0);
	assign_records(&a, &r);
	ck_assert_str_eq(records(), "pci=0000:00:02.0|pci.mode=600|pci.uid=0|pci.gid=0");
	json_object_array_del_idx(had, 1, 1);
	ck_assert_int_eq(wanted(DEVICES(GROUP5), false), 0);
	ck_assert_int_eq(assign_join(&a, had, "pod", &e), -EOPNOTSUPP);
	ck_assert_str_eq(e.text, "linux.devices[0]: /dev/vfio/5: the VM of sandbox \"pod\" has not "
				 "got IOMMU group 5; expected it from its start: annotation "
				 "io.insula.vm.vfio of the sandbox");
	ck_assert_int_eq(wanted(DEVICES(GROUP5), false), 0);
	ck_assert_int_eq(assign_join(&a, NULL, "pod", &e), -EOPNOTSUPP);
	json_object_put(had);
}
END_TEST

/* Neither the nodes nor their rules are the guest's, which may have something else there. */
START_TEST(what_the_guest_does_not_get)
{
	struct record_container c = {.id = "c", .bundle = &b, .sys = sys};

	bundle_from(
		&b,
		"{'root':{},'linux':{'devices':[" VFIO GROUP5 "," NODE(
			"/dev/x", 1,
			5) "}],"
			   "'resources':{'devices':[{'allow':true,'type':'c','major':240,'minor':0,"
			   "'access':'rwm'},{'allow':true,'type':'b','major':240,'minor':0},"
			   "{'allow':true,'type':'c','major':240,'minor':-1}]}}}");
	ck_assert_int_eq(record_container(&c, &r, &e), 0);
	ck_assert_str_eq(records(),
			 "id=c|rootfs=/run/insula/share/c/rootfs|device=/dev/x|device.type=c|"
			 "device.major=1|device.minor=5|device.mode=666|device.uid=0|device.gid=0|"
			 "devrule=allow b 240 0 rwm|devrule=allow c 240 -1 rwm");
}
END_TEST

int main(void)
{
	Suite *s = suite_create("oci_assign");
	TCase *t = tcase_create("assign");
	SRunner *run = srunner_create(s);
	int failed;

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, a_group);
	tcase_add_test(t, nothing);
	tcase_add_test(t, a_privileged_one);
	tcase_add_test(t, an_annotation);
	tcase_add_loop_test(t, a_bad_one, 0, ARRAY_LEN(bad));
	tcase_add_test(t, without_leave);
	tcase_add_test(t, too_many);
	tcase_add_test(t, of_a_pod);
	tcase_add_test(t, what_the_guest_does_not_get);
	suite_add_tcase(s, t);
	srunner_run_all(run, CK_ENV);
	failed = srunner_ntests_failed(run);
	srunner_free(run);
	return failed != 0;
}
