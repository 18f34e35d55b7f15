/* SPDX-License-Identifier: BSD-2-Clause */
/* insula-container: the nodes of PCI functions, by a sysfs that is made here. */
#include <check.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <insula/base.h>

#include "guest/container/container.h"

static char sys[64];
static struct err e;
static struct config c;
static char *text;

static void shell(const char *fmt, ...)
{
	char command[512], all[640];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(command, sizeof(command), fmt, ap);
	va_end(ap);
	snprintf(all, sizeof(all), "cd %s && %s", sys, command);
	ck_assert_int_eq(system(all), 0);
}

static void function(const char *address, const char *class)
{
	shell("mkdir -p bus/pci/devices devices/pci/%s && ln -s ../../../devices/pci/%s "
	      "bus/pci/devices/%s && echo %s >devices/pci/%s/class",
	      address, address, address, class, address);
}

static void node(const char *path, const char *class, const char *number, const char *name)
{
	shell("mkdir -p devices/%s && cd devices/%s && ln -s /x/%s subsystem && "
	      "echo %s >dev && printf 'MAJOR=1\\nDEVNAME=%s\\nDEVMODE=0600\\n' >uevent",
	      path, path, class, number, name);
}

static void setup(void)
{
	memset(&e, 0, sizeof(e));
	strcpy(sys, "/tmp/insula-test-functions-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(sys));
}

static void teardown(void)
{
	char rm[128];

	records_free(&c);
	free(text);
	text = NULL;
	snprintf(rm, sizeof(rm), "rm -rf %s", sys);
	ck_assert_int_eq(system(rm), 0);
}

/* Records are separated by `|` here. */
static int parse(const char *records)
{
	static const char head[] = "version=1|id=c|rootfs=/r|ns=mount|arg=x|";
	size_t len = strlen(head) + strlen(records);

	free(text);
	text = malloc(len + 1);
	sprintf(text, "%s%s", head, records);
	for (size_t i = 0; i < len; i++)
		text[i] = (char)(text[i] == '|' ? 0 : text[i]);
	return records_parse(CONFIG_CONTAINER, text, len, &c, &e);
}

static const struct device_record *device(const char *path)
{
	for (size_t i = 0; i < c.container.devices; i++)
		if (!strcmp(c.container.device[i].path, path))
			return &c.container.device[i];
	return NULL;
}

START_TEST(nodes)
{
	const struct device_record *d;
	const struct devrule *rule;

	function("0000:00:01.0", "0x010802");
	function("0000:00:02.0", "0x010802");
	node("pci/0000:00:01.0/nvme/nvme0", "nvme", "241:0", "nvme0");
	node("pci/0000:00:01.0/nvme/nvme0/nvme0n1", "block", "259:0", "nvme0n1");
	node("pci/0000:00:01.0/nvme/nvme0/nvme0n1/nvme0n1p1", "block", "259:1", "nvme0n1p1");
	node("pci/0000:00:02.0/nvme/nvme1", "nvme", "241:1", "nvme1");
	/* What has a number and no name, or neither; a link to what is another's. */
	shell("mkdir -p devices/pci/0000:00:01.0/power/x && echo 7:7 "
	      ">devices/pci/0000:00:01.0/power/dev && "
	      "ln -s ../0000:00:02.0 devices/pci/0000:00:01.0/other");
	ck_assert_int_eq(parse("device=/dev/x|device.type=c|devrule=deny a -1 -1 rwm|"
			       "pci=0000:00:01.0|pci.mode=640|pci.uid=3|pci.gid=4|"),
			 0);
	ck_assert_int_eq(functions_find(sys, &c.container, &e), 0);
	ck_assert_uint_eq(c.container.devices, 4);
	ck_assert_uint_eq(c.container.devrules, 4);
	d = device("/dev/nvme0");
	ck_assert(d && d->type == 'c' && d->major == 241 && d->minor == 0);
	ck_assert(d->mode == 0640 && d->uid == 3 && d->gid == 4);
	d = device("/dev/nvme0n1p1");
	ck_assert(d && d->type == 'b' && d->major == 259 && d->minor == 1);
	ck_assert_ptr_nonnull(device("/dev/nvme0n1"));
	rule = &c.container.devrule[1];
	ck_assert(rule->allow && rule->type == 'c' && rule->major == 241 && rule->minor == 0 &&
		  rule->access == (DEV_MKNOD | DEV_READ | DEV_WRITE));
}
END_TEST

/* In a directory, and below a function that is no storage: nothing is waited for. */
START_TEST(of_another_class)
{
	uint64_t begin = clock_ns();

	function("0000:00:01.0", "0x030000");
	function("0000:00:02.0", "0x020000");
	node("pci/0000:00:01.0/drm/card0", "drm", "226:0", "dri/card0");
	ck_assert_int_eq(parse("pci=0000:00:01.0|pci=0000:00:02.0|"), 0);
	ck_assert_int_eq(functions_find(sys, &c.container, &e), 0);
	ck_assert_uint_eq(c.container.devices, 1);
	ck_assert_ptr_nonnull(device("/dev/dri/card0"));
	ck_assert_uint_eq(device("/dev/dri/card0")->mode, 0600);
	ck_assert_uint_lt(clock_ns() - begin, 4000000000u);
}
END_TEST

START_TEST(a_disk_that_comes_late)
{
	pid_t pid;

	function("0000:00:01.0", "0x010802");
	node("pci/0000:00:01.0/nvme/nvme0", "nvme", "241:0", "nvme0");
	pid = fork();
	if (pid == 0) {
		usleep(300000);
		node("pci/0000:00:01.0/nvme/nvme0/new", "block", "259:0", "nvme0n1");
		_exit(0);
	}
	ck_assert_int_eq(parse("pci=0000:00:01.0|"), 0);
	ck_assert_int_eq(functions_find(sys, &c.container, &e), 0);
	ck_assert_ptr_nonnull(device("/dev/nvme0n1"));
	ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
}
END_TEST

/* Below the subsystem, with links to its controllers, of which one is the function's. */
START_TEST(a_disk_with_more_controllers)
{
	function("0000:00:01.0", "0x010802");
	node("pci/0000:00:01.0/nvme/nvme0", "nvme", "241:0", "nvme0");
	node("virtual/nvme-subsys0/nvme0n1", "block", "259:0", "nvme0n1");
	node("virtual/nvme-subsys1/nvme1n1", "block", "259:1", "nvme1n1");
	shell("ln -s ../../pci/0000:00:01.0/nvme/nvme0 devices/virtual/nvme-subsys0/nvme0");
	shell("mkdir devices/pci/0000:00:01.00 && ln -s ../../pci/0000:00:01.00 "
	      "devices/virtual/nvme-subsys1/nvme1");
	shell("mkdir -p class/nvme-subsystem && cd class/nvme-subsystem && "
	      "ln -s ../../devices/virtual/nvme-subsys0 ../../devices/virtual/nvme-subsys1 .");
	ck_assert_int_eq(parse("pci=0000:00:01.0|"), 0);
	ck_assert_int_eq(functions_find(sys, &c.container, &e), 0);
	ck_assert_uint_eq(c.container.devices, 2);
	ck_assert_ptr_nonnull(device("/dev/nvme0n1"));
}
END_TEST

START_TEST(what_is_refused)
{
	static const char *const wrong[] = {"pci=|",
					    "pci=00:01.0|",
					    "pci=0000:00:01.0x|",
					    "pci=../../../.../|",
					    "pci=0000:00:0G.0|",
					    "pci.mode=600|"};

	for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
		ck_assert_int_eq(parse(wrong[i]), -EINVAL);
		records_free(&c);
	}
	ck_assert_int_eq(parse("pci=0000:00:01.0|"), 0);
	ck_assert_int_eq(functions_find(sys, &c.container, &e), -ENODEV);
	ck_assert_str_eq(e.text, "pci=0000:00:01.0: the machine has no such function");
}
END_TEST

int main(void)
{
	Suite *s = suite_create("container_functions");
	TCase *t = tcase_create("functions");
	SRunner *run = srunner_create(s);
	int failed;

	tcase_set_timeout(t, 30);
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, nodes);
	tcase_add_test(t, of_another_class);
	tcase_add_test(t, a_disk_that_comes_late);
	tcase_add_test(t, a_disk_with_more_controllers);
	tcase_add_test(t, what_is_refused);
	suite_add_tcase(s, t);
	srunner_run_all(run, CK_ENV);
	failed = srunner_ntests_failed(run);
	srunner_free(run);
	return failed != 0;
}
