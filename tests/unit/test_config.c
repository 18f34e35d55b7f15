/* SPDX-License-Identifier: BSD-2-Clause */
/* Settings from flags and JSON: what is refused, with which words, and what is taken. */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <json-c/json.h>

#include <insula/base.h>
#include <insula/proto.h>

#include "spec/config.h"
#include "spec/settings.h"

#include "host.h"

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

static int set(const char *name, const char *value)
{
	char where[32];

	snprintf(where, sizeof(where), "--%s", name);
	e.text[0] = 0;
	return config_set(&c, where, name, value, &e);
}

/* Refused, in one line that names the setting and says what was expected. */
static void refused(const char *name, const char *value, const char *expected)
{
	char where[32];

	snprintf(where, sizeof(where), "--%s: ", name);
	ck_assert_msg(set(name, value) == -EINVAL, "%s '%s' is taken", name, value);
	ck_assert_msg(!strncmp(e.text, where, strlen(where)), "%s", e.text);
	ck_assert_msg(strstr(e.text, expected) != NULL, "'%s' lacks '%s'", e.text, expected);
	ck_assert_ptr_null(strchr(e.text, '\n'));
}

START_TEST(defaults)
{
	ck_assert_uint_eq(c.cpus, 1);
	ck_assert_uint_eq(c.mem, 256u << 20);
	ck_assert_int_eq(c.console, CONSOLE_STDIO);
	ck_assert(!c.kernel && !c.initrd && !c.append && !c.rootfs && !c.metrics && !c.command &&
		  !c.ndisks && !c.timeout);
	ck_assert_int_eq(config_check(&c, &e), 0);
}
END_TEST

START_TEST(known_names)
{
	/* config_set() has a parser for each, which refuses the empty text in its own words. */
	for (unsigned i = 0; i < SETTINGS; i++) {
		(void)set(settings[i].name, "");
		ck_assert_msg(!strstr(e.text, "no such setting"), "%s", settings[i].name);
		ck_assert_ptr_eq(setting_find(settings[i].name), &settings[i]);
	}
	ck_assert(!setting_find("") && !setting_find("cpu") && !setting_find("cpuss") &&
		  !setting_find("Mem"));
	ck_assert_int_eq(set("cpu", "1"), -EINVAL);
	ck_assert_str_eq(e.text, "--cpu: no such setting");
	ck_assert_str_eq(setting_of_key("disks")->name, "disk");
	ck_assert_str_eq(setting_of_key("vsock")->name, "vsock");
	ck_assert(!setting_of_key("disk") && !setting_of_key("share") && !setting_of_key("net"));
}
END_TEST

/* What getopt_long() makes of the table. */
START_TEST(flags_of_settings)
{
	struct option longopts[SETTINGS + 1] = {0};
	char letters[2 * SETTINGS + 1];
	size_t n = settings_longopts(longopts);

	settings_letters(letters);
	ck_assert_str_eq(letters, "ite:w:u:");
	ck_assert_uint_eq(n, SETTINGS - 5);
	for (size_t i = 0; i < n; i++)
		ck_assert_str_eq(setting_of_flag(longopts[i].val)->name, longopts[i].name);
	ck_assert_str_eq(setting_of_flag('u')->name, "user");
	ck_assert(!setting_of_flag('n') && !setting_of_flag(0) && !setting_of_flag('?') &&
		  !setting_of_flag(SETTING_FLAG_BASE - 1) &&
		  !setting_of_flag(SETTING_FLAG_BASE + SETTINGS));
}
END_TEST

START_TEST(image_paths)
{
	const struct setting *s = setting_find("image");
	char *text;

	ck_assert(setting_is_relative(s, "oci:dir:tag") && !setting_is_relative(s, "oci:/dir"));
	ck_assert(!setting_is_relative(s, "docker://x") && !setting_is_relative(s, "x"));
	text = setting_absolute(s, "docker-archive:a,b.tar:x", "/c");
	ck_assert_str_eq(text, "docker-archive:/c/a,b.tar:x");
	free(text);
}
END_TEST

START_TEST(absolute_paths)
{
	static const struct {
		const char *name, *text, *cwd, *want;
	} cases[] = {
		{"kernel", "k", "/a", "/a/k"},
		{"kernel", "/k", "/a", "/k"},
		{"rootfs", "r,rw", "/a,b", "/a,b/r,rw"},
		{"share", "./d:/g:ro", "/a", "/a/./d:/g:ro"},
		{"share", "/d:/g", "/a", "/d:/g"},
		{"console", "file=c", "/a,b", "file=/a,b/c"},
		{"console", "pty", "/a", "pty"},
		{"console", "virtio,file=c", "/a,b", "virtio,file=/a,b/c"},
		{"console", "virtio", "/a", "virtio"},
		{"console", "x,file=c", "/a", "x,file=c"},
		{"disk", "path=d,ro", "/a", "path=/a/d,ro"},
		{"disk", "ro,path=d", "/a,b", "ro,path=/a,,b/d"},
		{"disk", "serial=x,,path=y,path=d", "/a", "serial=x,,path=y,path=/a/d"},
		{"disk", "ro", "/a", "ro"},
		{"disk", "path=d,overlay=o", "/a,b", "path=/a,,b/d,overlay=/a,,b/o"},
		{"disk", "d,overlay=o,serial=s", "/a", "/a/d,overlay=/a/o,serial=s"},
		{"disk", "overlay=o,path=/d", "/a", "overlay=/a/o,path=/d"},
		{"disk", "/d,overlay=discard", "/a", "/d,overlay=discard"},
		{"disk", "/d,overlay=discarded", "/a", "/d,overlay=/a/discarded"},
		{"disk", "/d,overlay=discard,,x", "/a", "/d,overlay=/a/discard,,x"},
		{"disk", "d,overlay=./discard,ro", "/a", "/a/d,overlay=/a/./discard,ro"},
		{"disk", "path=", "/a", "path="},
		{"disk", "", "/a", ""},
		{"disk", ",,,path=d", "/a", ",,,path=/a/d"},
		{"vsock", "cid=5,path=v", "/a", "cid=5,path=/a/v"},
		{"net", "user,fwd=tcp:1:2", "/a", "user,fwd=tcp:1:2"},
		{"net", "mtu=9000,socket=s", "/a", "mtu=9000,socket=/a/s"},
		{"append", "a", "/a", "a"},
		{"cwd", "a", "/a", "a"}, /* the guest's */
	};

	for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
		const struct setting *s = setting_find(cases[i].name);
		char *got = setting_absolute(s, cases[i].text, cases[i].cwd);

		ck_assert_str_eq(got, cases[i].want);
		ck_assert_int_eq(setting_is_relative(s, cases[i].text),
				 strcmp(got, cases[i].text) != 0);
		free(got);
	}
}
END_TEST

START_TEST(environment)
{
	char *text;

	host_setenv("INSULA_TEST_VARIABLE", "a b");
	ck_assert_int_eq(setting_env("INSULA_TEST_VARIABLE", &text), 1);
	ck_assert_str_eq(text, "INSULA_TEST_VARIABLE=a b");
	free(text);
	ck_assert_int_eq(setting_env("X=", &text), 1);
	ck_assert_str_eq(text, "X=");
	free(text);
	host_setenv("INSULA_TEST_VARIABLE", NULL);
	ck_assert_int_eq(setting_env("INSULA_TEST_VARIABLE", &text), 0);
	ck_assert_ptr_null(text);
}
END_TEST

START_TEST(sizes)
{
	static const struct {
		const char *text;
		uint64_t bytes;
	} good[] = {{"0", 0},
		    {"1", 1},
		    {"1K", 1024},
		    {"3M", 3u << 20},
		    {"6G", 6ull << 30},
		    {"007M", 7u << 20},
		    {"1k", 1024},
		    {"512m", 512u << 20},
		    {"512MB", 512u << 20},
		    {"512MiB", 512u << 20},
		    {"2gib", 2ull << 30},
		    {"18446744073709551615", UINT64_MAX},
		    {"17179869183G", 17179869183ull << 30}};
	static const char *const bad[] = {"",
					  "M",
					  "-1",
					  "+1",
					  " 1",
					  "1 ",
					  "1kb ",
					  "1MBs",
					  "1Mi",
					  "1B",
					  "1iB",
					  "1T",
					  "1.5G",
					  "0x10",
					  "1KK",
					  "18446744073709551616",
					  "17179869184G",
					  "99999999999999999999M"};
	uint64_t n;

	for (unsigned i = 0; i < ARRAY_LEN(good); i++) {
		ck_assert(parse_size(good[i].text, &n));
		ck_assert_uint_eq(n, good[i].bytes);
	}
	for (unsigned i = 0; i < ARRAY_LEN(bad); i++)
		ck_assert_msg(!parse_size(bad[i], &n), "'%s'", bad[i]);
}
END_TEST

START_TEST(memory)
{
	static const char *const bad[] = {"",      "0",        "1",     "1K",
					  "15M",   "16777215", "1025G", "2048G",
					  "-256M", "lots",     "15m",   "99999999999999999999999G"};

	for (unsigned i = 0; i < ARRAY_LEN(bad); i++)
		refused("mem", bad[i], "expected a size from 16M to 1024G, such as 256M");
	refused("mem", "256", "256 bytes; did you mean 256M?");
	refused("mem", "16777217", "expected a multiple of 4096 bytes");
	refused("mem", "64M,", "expected SIZE[,max=SIZE][,hugepages]");
	refused("mem", "64M,hugepages,", "expected SIZE[,max=SIZE][,hugepages]");
	refused("mem", ",hugepages", "expected a size");
	refused("mem", "1,hugepages", "expected a size");
	ck_assert_uint_eq(c.mem, 256u << 20); /* untouched */
	ck_assert_int_eq(set("mem", "16M"), 0);
	ck_assert_uint_eq(c.mem, 16u << 20);
	ck_assert_int_eq(set("mem", "1024G"), 0);
	ck_assert_uint_eq(c.mem, 1ull << 40);
	ck_assert_int_eq(set("mem", "64M,hugepages"), 0);
	ck_assert(c.mem == 64 << 20 && c.mem_huge);
	ck_assert_int_eq(set("mem", "16781312"), 0);
	ck_assert(!c.mem_huge);
	refused("mem", "64M,max=64M", "expected a max of more than 64M, the size, to 1024G");
	refused("mem", "64M,max=32M", "expected a max of more than 64M");
	refused("mem", "64M,max=1025G", "to 1024G");
	refused("mem", "64M,max=", "expected a max of more than 64M");
	refused("mem", "64M,max=65M", "expected a max that is 64M and a multiple of 2M");
	/* 32768 blocks at most. */
	refused("mem", "64M,max=65602M", "expected a max that is 64M and a multiple of 4M");
	refused("mem", "64M,max=128M,max=256M", "expected SIZE[,max=SIZE][,hugepages]");
	refused("mem", "64M,hugepages,hugepages", "expected SIZE[,max=SIZE][,hugepages]");
	ck_assert(c.mem == 16781312 && !c.mem_max); /* untouched */
	ck_assert_int_eq(set("mem", "64M,max=8G"), 0);
	ck_assert(c.mem == 64 << 20 && c.mem_max == 8ull << 30 && !c.mem_huge);
	ck_assert_int_eq(set("mem", "64M,hugepages,max=66M"), 0);
	ck_assert(c.mem_max == 66 << 20 && c.mem_huge);
	ck_assert_int_eq(set("mem", "64M"), 0);
	ck_assert(!c.mem_max && !c.mem_huge);
}
END_TEST

START_TEST(numbers)
{
	static const char *const bad[] = {"",    "0",   "33",         "-1",
					  "+1",  "1 ",  " 1",         "1x",
					  "0x1", "1.0", "4294967297", "18446744073709551617",
					  "one"};

	for (unsigned i = 0; i < ARRAY_LEN(bad); i++)
		refused("cpus", bad[i], "expected a number from 1 to 32");
	refused("cpus", "00000000000000000000000012", "expected a number from 1 to 32");
	refused("timeout", "0", "expected seconds from 1 to 31536000");
	refused("timeout", "31536001", "expected seconds from 1 to 31536000");
	refused("timeout", "1s", "'1s'");
	ck_assert_int_eq(set("cpus", "32"), 0);
	ck_assert_uint_eq(c.cpus, 32);
	ck_assert_int_eq(set("timeout", "31536000"), 0);
	ck_assert_uint_eq(c.timeout, 31536000);
}
END_TEST

START_TEST(cpus_that_come)
{
	static const struct {
		const char *text, *words;
	} bad[] = {{"2,max=1", "max '1'; expected a number from 2 to 32"},
		   {"2,max=33", "max '33'; expected a number from 2 to 32"},
		   {"2,max=0", "max '0'; expected a number from 2 to 32"},
		   {"2,max=", "max ''; expected a number from 2 to 32"},
		   {"2,max=8,max=9", "max '8,max=9'; expected a number"},
		   {"2,most=8", "'2,most=8'; expected N or N,max=M"},
		   {"2,", "'2,'; expected N or N,max=M"},
		   {"max=8", "'max=8'; expected a number from 1 to 32"},
		   {"0,max=8", "'0'; expected a number from 1 to 32"},
		   {"33,max=33", "'33'; expected a number from 1 to 32"},
		   {",max=8", "''; expected a number from 1 to 32"}};

	for (unsigned i = 0; i < ARRAY_LEN(bad); i++)
		refused("cpus", bad[i].text, bad[i].words);
	ck_assert_int_eq(set("cpus", "2,max=8"), 0);
	ck_assert(c.cpus == 2 && c.cpus_max == 8 && config_vcpus(&c) == 8);
	ck_assert_int_eq(set("cpus", "1,max=32"), 0);
	ck_assert(c.cpus == 1 && c.cpus_max == 32);
	/* As if it were not there. */
	ck_assert_int_eq(set("cpus", "4,max=4"), 0);
	ck_assert(c.cpus == 4 && c.cpus_max == 0 && config_vcpus(&c) == 4);
	ck_assert_int_eq(set("cpus", "3,max=4"), 0);
	ck_assert_int_eq(set("cpus", "3"), 0);
	ck_assert(c.cpus == 3 && c.cpus_max == 0);
}
END_TEST

START_TEST(text_settings)
{
	static const char *const paths[] = {"kernel", "initrd", "metrics", "rootfs"};

	for (unsigned i = 0; i < ARRAY_LEN(paths); i++) {
		refused(paths[i], "", "empty; expected a path");
		ck_assert_int_eq(set(paths[i], "/first"), 0);
		ck_assert_int_eq(set(paths[i], "/a b,c"), 0); /* the last one wins */
	}
	ck_assert_str_eq(c.kernel, "/a b,c");
	ck_assert_str_eq(c.initrd, "/a b,c");
	ck_assert_str_eq(c.metrics, "/a b,c");
	ck_assert_str_eq(c.rootfs, "/a b,c");
	refused("append", "a\nb", "expected one line");
	refused("append", "a\rb", "expected one line");
	ck_assert_int_eq(set("append", ""), 0);
	ck_assert_int_eq(set("append", "root=/dev/vda x"), 0);
	ck_assert_str_eq(c.append, "root=/dev/vda x");
}
END_TEST

START_TEST(rootfs)
{
	static const struct {
		const char *text, *path;
		bool rw;
	} good[] = {{"/a,rw", "/a", true},       {"/a,ro", "/a", false},
		    {"/a", "/a", false},         {"/a,rw,rw", "/a,rw", true},
		    {"/a,rwx", "/a,rwx", false}, {",rw", ",rw", false}};

	for (unsigned i = 0; i < ARRAY_LEN(good); i++) {
		ck_assert_int_eq(set("rootfs", good[i].text), 0);
		ck_assert_str_eq(c.rootfs, good[i].path);
		ck_assert_int_eq(c.rootfs_rw, good[i].rw);
	}
}
END_TEST

START_TEST(random_numbers)
{
	ck_assert(!c.rng_off && c.rng_rate == 1 << 20);
	ck_assert_int_eq(set("rng", "off"), 0);
	ck_assert(c.rng_off);
	ck_assert_int_eq(set("rng", "rate=64K"), 0);
	ck_assert(!c.rng_off && c.rng_rate == 64 << 10);
	ck_assert_int_eq(set("rng", "on"), 0);
	ck_assert(!c.rng_off && c.rng_rate == 1 << 20);
	refused("rng", "", "expected on, off or rate=BYTES");
	refused("rng", "rate=", "'rate='");
	refused("rng", "rate=1023", "1K to 1G");
	refused("rng", "rate=2G", "'rate=2G'");
	refused("rng", "maybe", "'maybe'");
}
END_TEST

START_TEST(consoles)
{
	static const char *const bad[] = {"",     "tty",   "STDIO", "stdio ",
					  "file", "file=", "pty=1", "\x1b[31m"};
	static const char *const limits[] = {"file=/x,limit=", "file=/x,limit=0",
					     "file=/x,limit=-1", "file=,limit=1",
					     "file=/x,limit=99999999T"};

	for (unsigned i = 0; i < ARRAY_LEN(bad); i++)
		refused("console", bad[i], "expected stdio, stderr, pty, none or file=FILE");
	ck_assert_ptr_null(strchr(e.text, 0x1b));
	ck_assert_int_eq(set("console", "pty"), 0);
	ck_assert_int_eq(c.console, CONSOLE_PTY);
	ck_assert_int_eq(set("console", "none"), 0);
	ck_assert_int_eq(c.console, CONSOLE_NONE);
	ck_assert_int_eq(set("console", "file=/x,y=z"), 0);
	ck_assert_int_eq(c.console, CONSOLE_FILE);
	ck_assert_str_eq(c.console_file, "/x,y=z");
	ck_assert_uint_eq(c.console_limit, 64 << 20);
	ck_assert_int_eq(set("console", "file=/x,limit=5,limit=3K"), 0);
	ck_assert_str_eq(c.console_file, "/x,limit=5");
	ck_assert_uint_eq(c.console_limit, 3 << 10);
	for (unsigned i = 0; i < ARRAY_LEN(limits); i++)
		refused("console", limits[i], "expected a size from 1 byte to 1024T");
	ck_assert_int_eq(set("console", "stdio"), 0);
	ck_assert_int_eq(c.console, CONSOLE_STDIO);
}
END_TEST

START_TEST(virtio_consoles)
{
	ck_assert(!c.console_virtio);
	ck_assert_int_eq(set("console", "virtio"), 0);
	ck_assert(c.console_virtio && !c.console_given);
	ck_assert_int_eq(config_console(&c), CONSOLE_STDIO);
	ck_assert_int_eq(set("console", "virtio,pty"), 0);
	ck_assert(c.console_virtio);
	ck_assert_int_eq(config_console(&c), CONSOLE_PTY);
	ck_assert_int_eq(set("console", "virtio,file=virtio,x,limit=1K"), 0);
	ck_assert(c.console_virtio);
	ck_assert_str_eq(c.console_file, "virtio,x");
	ck_assert_uint_eq(c.console_limit, 1 << 10);
	ck_assert_int_eq(set("console", "none"), 0);
	ck_assert(!c.console_virtio);
	refused("console", "virtio,", "expected stdio");
	refused("console", "virtio,virtio", "'virtio,virtio'");
	refused("console", "virtiox", "expected stdio");
	refused("console", "virtio,tty", "'virtio,tty'");
}
END_TEST

START_TEST(long_values_are_cut)
{
	char big[5000];

	memset(big, '7', sizeof(big) - 1);
	big[sizeof(big) - 1] = 0;
	refused("cpus", big, "expected a number");
	refused("mem", big, "expected a size");
	refused("console", big, "expected stdio");
	big[0] = '=';
	refused("disk", big, "expected [path=]FILE");
}
END_TEST

/* ---- disks ---- */

static void one_disk(const char *text, const char *path, bool ro, bool direct, const char *serial)
{
	config_drop_disks(&c);
	ck_assert_msg(set("disk", text) == 0, "'%s': %s", text, e.text);
	ck_assert_uint_eq(c.ndisks, 1);
	ck_assert_str_eq(c.disk[0].path, path);
	ck_assert_int_eq(c.disk[0].ro, ro);
	ck_assert_int_eq(c.disk[0].direct, direct);
	ck_assert_str_eq(c.disk[0].serial, serial);
}

START_TEST(disk_texts)
{
	one_disk("path=/a", "/a", false, false, "");
	one_disk("path=/a,ro,direct,serial=S1", "/a", true, true, "S1");
	one_disk("serial=S1,direct,path=/a", "/a", false, true, "S1");
	one_disk("path=/a,path=/b", "/b", false, false, ""); /* the last one wins */
	one_disk("path=a=b", "a=b", false, false, "");
	one_disk("path=/a,serial=12345678901234567890", "/a", false, false, "12345678901234567890");
}
END_TEST

START_TEST(disk_engine)
{
	one_disk("engine=threads,path=/a", "/a", false, false, "");
	ck_assert(c.disk[0].threads);
	one_disk("/a,engine=threads,engine=auto", "/a", false, false, "");
	ck_assert(!c.disk[0].threads);
	one_disk("path=/a", "/a", false, false, "");
	ck_assert(!c.disk[0].threads);
}
END_TEST

START_TEST(disk_limits)
{
	one_disk("path=/a", "/a", false, false, "");
	ck_assert_uint_eq(c.disk[0].rate, 0);
	ck_assert_uint_eq(c.disk[0].iops, 0);
	one_disk("/a,rate=50M,iops=1000", "/a", false, false, "");
	ck_assert_uint_eq(c.disk[0].rate, 50u << 20);
	ck_assert_uint_eq(c.disk[0].iops, 1000);
	one_disk("iops=1,path=/a,rate=1024", "/a", false, false, "");
	ck_assert_uint_eq(c.disk[0].rate, 1024);
	ck_assert_uint_eq(c.disk[0].iops, 1);
	config_drop_disks(&c);
	refused("disk", "/a,rate=0", "rate '0'; expected bytes a second, 1K to 1024G");
	refused("disk", "/a,rate=1023", "expected bytes a second, 1K to 1024G");
	refused("disk", "/a,rate=1025G", "expected bytes a second, 1K to 1024G");
	refused("disk", "/a,rate=fast", "rate 'fast'; expected bytes a second");
	refused("disk", "/a,rate=", "expected bytes a second");
	refused("disk", "/a,iops=0", "iops '0'; expected requests a second, 1 to 1024G");
	refused("disk", "/a,iops=-1", "iops '-1'; expected requests a second");
	refused("disk", "/a,iops=1.5", "expected requests a second");
	refused("disk", "/a,iop=5", "did you mean 'iops='?");
	ck_assert_uint_eq(c.ndisks, 0);
}
END_TEST

START_TEST(disk_bare)
{
	one_disk("/a", "/a", false, false, "");
	one_disk("a.img,ro,serial=S1", "a.img", true, false, "S1");
	one_disk("./a=b,direct", "./a=b", false, true, "");
	one_disk("./ro", "./ro", false, false, "");
	one_disk("a,,b,ro", "a,b", true, false, "");
	one_disk("a,path=/b", "/b", false, false, "");
	/* insulactl makes what it names absolute */
	ck_assert(setting_is_relative(setting_find("disk"), "a.img,ro"));
	ck_assert(!setting_is_relative(setting_find("disk"), "/a.img,ro"));
	ck_assert(!setting_is_relative(setting_find("disk"), "ro"));
	char *abs = setting_absolute(setting_find("disk"), "a.img,ro", "/x,y");
	ck_assert_str_eq(abs, "/x,,y/a.img,ro");
	free(abs);
}
END_TEST

START_TEST(disk_commas)
{
	one_disk("path=/a,,b", "/a,b", false, false, "");
	one_disk("path=/a,,,ro", "/a,", true, false, "");
	one_disk("path=/a,,,,b", "/a,,b", false, false, "");
	one_disk("path=/a,,ro", "/a,ro", false, false, "");
	one_disk("path=/a,overlay=/b", "/a", false, false, "");
	one_disk("path=/a,overlay=discard", "/a", false, false, "");
	one_disk("path=/a,serial=x,,y,ro", "/a", true, false, "x,y");
	one_disk("path=,,", ",", false, false, "");
}
END_TEST

START_TEST(disk_refused)
{
	static const char *const bad[] = {"",           ",",        "/a,/b",        "ro",
					  "path=/a,",   ",path=/a", "path=/a,rw",   "path=/a, ro",
					  "path=/a,RO", "PATH=/a",  "path=/a,ro=1", "file=/a",
					  "path=/a,,,", "serial=x", "ro,/a",        "/a,rw"};

	for (unsigned i = 0; i < ARRAY_LEN(bad); i++)
		refused("disk", bad[i],
			"expected [path=]FILE[,ro][,direct][,serial=S][,engine=threads]"
			"[,overlay=FILE|discard]");
	refused("disk", "path=/a,engine=", "expected auto or threads");
	refused("disk", "path=/a,engine=io_uring", "expected auto or threads");
	refused("disk", "path=", "empty; expected a path");
	refused("disk", "path=/a,path=", "empty; expected a path");
	refused("disk", "path=/a,serial=", "expected 1 to 20 characters");
	refused("disk", "path=/a,overlay=", "empty; expected a path");
	refused("disk", "path=/a,overlay", "expected [path=]FILE");
	refused("disk", "/a,ro,overlay=/b", "overlay and ro; expected one of them");
	refused("disk", "overlay=discard,path=/a,ro", "overlay and ro; expected one of them");
	refused("disk", "overlay=/b", "expected [path=]FILE");
	refused("disk", "path=/a,serial=123456789012345678901", "expected 1 to 20 characters");
	ck_assert_uint_eq(c.ndisks, 0);
	for (unsigned i = 0; i < CONFIG_MAX_DISKS; i++)
		ck_assert_int_eq(set("disk", "path=/a"), 0);
	refused("disk", "path=/a", "more than 31 disks");
	ck_assert_uint_eq(c.ndisks, CONFIG_MAX_DISKS);
}
END_TEST

START_TEST(vsock_texts)
{
	ck_assert(!c.vsock.on && c.vsock.cid == 3);
	ck_assert_int_eq(set("vsock", "path=/run/v,,1,cid=4294967294"), 0);
	ck_assert(c.vsock.on && c.vsock.cid == 4294967294u);
	ck_assert_str_eq(c.vsock.path, "/run/v,1");
	ck_assert_int_eq(set("vsock", "path=/b"), 0); /* as a whole: the last one wins */
	ck_assert_uint_eq(c.vsock.cid, 3);
	ck_assert_str_eq(c.vsock.path, "/b");
	refused("vsock", "", "expected [path=]FILE[,cid=N]");
	refused("vsock", "cid=5", "expected [path=]FILE[,cid=N]");
	ck_assert_int_eq(set("vsock", "/run/v,cid=7"), 0);
	ck_assert_str_eq(c.vsock.path, "/run/v");
	ck_assert_uint_eq(c.vsock.cid, 7);
	refused("vsock", "path=", "empty; expected a path");
	refused("vsock", "path=/a,cid=2", "expected a number from 3 to 4294967294");
	refused("vsock", "path=/a,cid=4294967295", "expected a number from 3");
	refused("vsock", "path=/a,cid=", "expected a number from 3");
	refused("vsock", "path=/a,cid=0x5", "expected a number from 3");
	refused("vsock", "path=/a,port=5", "'port=5'; expected [path=]FILE");
}
END_TEST

/* The kernel's vsock: no path, a CID that was said, and nothing that needs an agent. */
START_TEST(vsock_vhost)
{
#ifndef _WIN32
	char *command[] = {"true"};

	refused("vsock", "vhost=on", "vhost: on, without cid; expected cid=N");
	refused("vsock", "vhost=on,cid=5,path=/a", "vhost: on, with a path; expected one of them");
	refused("vsock", "/a,vhost=on,cid=5", "vhost: on, with a path; expected one of them");
	refused("vsock", "vhost=yes,cid=5", "vhost 'yes'; expected on or off");
	refused("vsock", "vhost=off,cid=5",
		"expected [path=]FILE[,cid=N][,bus=pci|mmio], or vhost");
	ck_assert_int_eq(set("vsock", "/a,vhost=off"), 0);
	ck_assert(!c.vsock.vhost && c.vsock.cid == 3);
	ck_assert_int_eq(set("vsock", "vhost=on,cid=5,bus=pci"), 0);
	ck_assert(c.vsock.on && c.vsock.vhost && c.vsock.cid == 5 && !c.vsock.path);
	ck_assert_int_eq(config_check(&c, &e), 0);
	ck_assert_int_eq(set("restore", "/x"), 0);
	ck_assert_int_eq(config_check(&c, &e), -EINVAL);
	ck_assert_str_eq(e.text, "--vsock: vhost=on with --restore; expected vhost=off");
	config_free(&c);
	config_init(&c);
	ck_assert_int_eq(set("vsock", "vhost=on,cid=5"), 0);
	ck_assert_int_eq(config_set_command(&c, command, 1, &e), 0);
	ck_assert_int_eq(config_check(&c, &e), -EINVAL);
	ck_assert_ptr_nonnull(
		strstr(e.text, "--vsock: vhost=on with a command or an image; expected"));
	ck_assert_str_eq(c.mistake.field, "vsock");
	config_free(&c);
	config_init(&c);
	ck_assert_int_eq(set("vsock", "vhost=on,cid=5"), 0);
	ck_assert_int_eq(set("image", "docker://x"), 0);
	ck_assert_int_eq(config_check(&c, &e), -EINVAL);
	ck_assert_str_eq(c.mistake.field, "vsock");
#else
	refused("vsock", "vhost=on,cid=5", "vhost: on; expected off on Windows");
#endif
}
END_TEST

/* ---- commands, and the whole ---- */

START_TEST(commands)
{
	char *first[] = {"a", "b c", ""}, *many[CONFIG_MAX_ARGS + 1];

	ck_assert_int_eq(config_set_command(&c, first, 3, &e), 0);
	ck_assert(c.ncommand == 3 && c.command[0] != first[0] && !c.command[3]);
	ck_assert_str_eq(c.command[1], "b c");
	for (unsigned i = 0; i <= CONFIG_MAX_ARGS; i++)
		many[i] = first[0];
	ck_assert_int_eq(config_set_command(&c, many, CONFIG_MAX_ARGS + 1, &e), -EINVAL);
	ck_assert_str_eq(e.text, "command: 1025 arguments; expected at most 1024");
	ck_assert_uint_eq(c.ncommand, 3);
	ck_assert_int_eq(config_set_command(&c, many, CONFIG_MAX_ARGS, &e), 0);
	ck_assert_uint_eq(c.ncommand, CONFIG_MAX_ARGS);
	ck_assert_int_eq(config_set_command(&c, NULL, 0, &e), 0);
	ck_assert(!c.command && !c.ncommand);
}
END_TEST

START_TEST(contradictions)
{
	char *cmd[] = {"true"}, *nothing[] = {""};

	ck_assert_int_eq(set("initrd", "/i"), 0);
	ck_assert_int_eq(config_check(&c, &e), 0);
	ck_assert_int_eq(config_set_command(&c, cmd, 1, &e), 0);
	ck_assert_int_eq(config_check(&c, &e), -EINVAL);
	ck_assert_ptr_nonnull(strstr(e.text, "--initrd: a command is run by"));
	config_free(&c);
	ck_assert_int_eq(set("initrd", "/i") | set("rootfs", "/r"), 0);
	ck_assert_int_eq(config_check(&c, &e), -EINVAL);
	ck_assert_ptr_nonnull(strstr(e.text, "--initrd: --rootfs is mounted by"));
	config_free(&c);
	ck_assert_int_eq(config_set_command(&c, nothing, 1, &e), 0);
	ck_assert_int_eq(config_check(&c, &e), -EINVAL);
	ck_assert_str_eq(e.text, "command: empty; expected a program's name");
}
END_TEST

/* ---- JSON ---- */

static int json_n(const char *text, size_t n)
{
	char *exact = malloc(n + !n); /* so that a sanitizer sees one byte too many */
	int rc;

	memcpy(exact, text, n);
	e.text[0] = 0;
	rc = config_json(&c, NULL, exact, n, &e);
	free(exact);
	return rc;
}

static int json(const char *text)
{
	return json_n(text, strlen(text));
}

static void json_refused(const char *text, const char *part)
{
	ck_assert_msg(json(text) == -EINVAL, "'%s' is taken", text);
	ck_assert_msg(!strncmp(e.text, "json: ", 6) && strstr(e.text, part),
		      "'%s': '%s' lacks '%s'", text, e.text, part);
}

START_TEST(json_everything)
{
	ck_assert_msg(json(" {\"kernel\":\"/k\",\"initrd\":\"/i\",\"append\":\"a "
			   "b\",\"cpus\":4,\"mem\":\"64M\","
			   "\"rootfs\":\"/r,rw\",\"console\":\"file=/c\",\"metrics\":\"/"
			   "m\",\"timeout\":9,"
			   "\"disks\":[{\"path\":\"/"
			   "d,1\",\"ro\":true,\"direct\":false,\"serial\":\"a,b\"},\"path=/"
			   "e,direct\",{\"path\":\"/f\"}],"
			   "\"vsock\":{\"path\":\"/v,w\",\"cid\":77},"
			   "\"command\":[\"sh\",\"-c\",\"exit 3\"]} \n\t") == 0,
		      "%s", e.text);
	ck_assert_str_eq(c.kernel, "/k");
	ck_assert_str_eq(c.initrd, "/i");
	ck_assert_str_eq(c.append, "a b");
	ck_assert(c.cpus == 4 && c.mem == 64u << 20 && c.timeout == 9 && c.rootfs_rw &&
		  c.console == CONSOLE_FILE);
	ck_assert_str_eq(c.metrics, "/m");
	ck_assert_uint_eq(c.ndisks, 3);
	ck_assert_str_eq(c.disk[0].path, "/d,1");
	ck_assert_str_eq(c.disk[0].serial, "a,b");
	ck_assert(c.disk[0].ro && !c.disk[0].direct && c.disk[1].direct && !c.disk[2].ro);
	ck_assert_uint_eq(c.ncommand, 3);
	ck_assert_str_eq(c.command[2], "exit 3");
	ck_assert_str_eq(c.vsock.path, "/v,w");
	ck_assert_uint_eq(c.vsock.cid, 77);
}
END_TEST

/* Numbers and their texts are the same; so are the words of a refusal. */
START_TEST(json_values)
{
	ck_assert_int_eq(json("{\"mem\":33554432,\"cpus\":\"2\"}"), 0);
	ck_assert(c.mem == 32u << 20 && c.cpus == 2);
	ck_assert_int_eq(json("{}"), 0);
	json_refused("{\"cpus\":0}", "json: cpus: '0'; expected a number from 1 to 32");
	json_refused("{\"cpus\":-1}", "json: cpus: '-1'; expected a number");
	json_refused("{\"cpus\":99999999999999999999}", "json: cpus: '");
	json_refused("{\"mem\":1}", "json: mem: '1'; expected a size");
	json_refused("{\"mem\":\"\"}", "json: mem: ''");
	json_refused("{\"kernel\":\"\"}", "json: kernel: empty; expected a path");
	json_refused("{\"console\":\"x\"}", "json: console: 'x'; expected stdio");
	json_refused("{\"append\":\"a\\nb\"}", "json: append: a line break");
}
END_TEST

/* ---- the command's ---- */

START_TEST(command_settings)
{
	char *const argv[] = {"ls", NULL};

	ck_assert_int_eq(set("env", "A=1"), 0);
	ck_assert_int_eq(set("env", "A="), 0);
	ck_assert_int_eq(set("cwd", "/srv"), 0);
	ck_assert_int_eq(set("tty", "on"), 0);
	ck_assert_int_eq(set("interactive", "on"), 0);
	ck_assert_int_eq(set("user", "7"), 0);
	ck_assert(c.has_user && !c.has_gid && c.uid == 7);
	ck_assert_int_eq(set("user", "4294967294:0"), 0);
	ck_assert(c.has_gid && c.uid == 4294967294u && c.gid == 0);
	ck_assert_str_eq(c.user, ""); /* numbers: nothing to look up */
	ck_assert_uint_eq(c.nenv, 2);
	ck_assert_str_eq(c.env[1], "A=");
	ck_assert_str_eq(c.cwd, "/srv");
	ck_assert(c.tty && c.interactive);
	ck_assert_int_eq(config_console(&c), CONSOLE_STDIO);
	ck_assert_int_eq(config_check(&c, &e), -EINVAL);
	ck_assert_str_eq(e.text, "-t: no command; expected one at the end of the line");
	ck_assert_int_eq(config_set_command(&c, argv, 1, &e), 0);
	ck_assert_int_eq(config_check(&c, &e), 0);
	ck_assert_int_eq(config_console(&c), CONSOLE_STDERR);
	ck_assert_int_eq(set("console", "stdio"), 0);
	ck_assert_int_eq(config_check(&c, &e), -EINVAL);
	ck_assert_ptr_nonnull(strstr(e.text, "expected stderr, pty, none or file=FILE"));
}
END_TEST

START_TEST(user_names)
{
	static const char *const good[] = {"root", "www-data", "1000:adm", "nobody:65534", "a$"};

	for (unsigned i = 0; i < ARRAY_LEN(good); i++) {
		ck_assert_int_eq(set("user", good[i]), 0);
		ck_assert(c.has_user);
		ck_assert_str_eq(c.user, good[i]);
	}
	ck_assert_int_eq(set("user", "7"), 0); /* the last one wins */
	ck_assert_str_eq(c.user, "");
}
END_TEST

START_TEST(command_settings_refused)
{
	static const char *const users[] = {
		"",           "ro ot",        "-1",
		"a/b",        ":adm",         "www-data:",
		"-x",         "a:b:c",        "1:",
		":1",         "1:2:3",        "1 ",
		"4294967295", "1:4294967295", "99999999999999999999999999999999"};

	for (unsigned i = 0; i < ARRAY_LEN(users); i++)
		refused("user", users[i], "expected UID or NAME, and perhaps :GID or :GROUP");
	refused("env", "A", "'A'; expected NAME=VALUE");
	refused("env", "=x", "expected NAME=VALUE");
	refused("env", "", "expected NAME=VALUE");
	refused("cwd", "srv", "'srv'; expected an absolute path");
	refused("cwd", "", "expected an absolute path");
	refused("tty", "yes", "'yes'; expected on or off");
	refused("interactive", "", "expected on or off");
	for (unsigned i = 0; i < CONFIG_MAX_ENV; i++)
		ck_assert_int_eq(set("env", "A=1"), 0);
	refused("env", "A=1", "more than 1000 variables");
}
END_TEST

START_TEST(shares)
{
	static const char *const bad[] = {"",     "/a",       "/a:",      ":/b",     "/a:b",
					  "/a:/", "/a:/b/..", "/a:/../b", "/a:/b:x", "/a:ro"};

	for (unsigned i = 0; i < ARRAY_LEN(bad); i++)
		refused("share", bad[i], "expected DIR:GUESTDIR[:ro]");
	refused("share", "/a:/b:rw,packed", "the guest gets a packed copy, which it can only read");
	refused("share", "/a:/b,packed,cache=none", "packed and cache=; expected one of the two");
	refused("share", "/a:/b,cache=yes", "'yes'; expected none, auto or always");
	refused("share", "/a:/b,cache=", "''; expected none, auto or always");
	refused("share", "/a:/b,packd", "'packd'; expected DIR:GUESTDIR[:ro]");
	refused("share", "/a:/b,", "''; expected DIR:GUESTDIR[:ro]");
	refused("share", "/a:/b,packed:ro", "expected DIR:GUESTDIR[:ro]");
	ck_assert_uint_eq(c.nshares, 0);
	ck_assert_int_eq(set("share", "./a:b:/mnt/x..y:ro"), 0);
	ck_assert_str_eq(c.share[0].dir, "./a:b");
	ck_assert_str_eq(c.share[0].guest, "/mnt/x..y");
	ck_assert(c.share[0].ro && !c.share[0].packed);
	refused("share", "/a:/mnt/x..y", "/mnt/x..y is given twice");
	refused("share", "/a:///mnt//x..y/", "is given twice");
	for (unsigned i = 1; i < CONFIG_MAX_SHARES; i++) {
		char text[] = "/a:/mnt/0";

		text[8] = (char)('0' + i);
		ck_assert_int_eq(set("share", text), 0);
	}
	refused("share", "/a:/b", "more than 8 directories");
}
END_TEST

START_TEST(images)
{
	static const char *const as_they_are[] = {"oci:/a/b:latest",
						  "oci-archive:x.tar",
						  "docker-archive:x y.tar:name:tag",
						  "docker://localhost:5000/a@sha256:0",
						  "containers-storage:debian",
						  "dir:/x"};
	static const char *const bad[] = {"",         "a b",         "-x",
					  "/etc",     "oci:",        "docker://",
					  "oci:a\nb", "docker://-x", "docker://a;b"};

	for (unsigned i = 0; i < ARRAY_LEN(as_they_are); i++) {
		ck_assert_int_eq(set("image", as_they_are[i]), 0);
		ck_assert_str_eq(c.image, as_they_are[i]);
	}
	for (unsigned i = 0; i < ARRAY_LEN(bad); i++)
		refused("image", bad[i], "expected a ");
	ck_assert_int_eq(set("image", "debian:12"), 0);
	ck_assert_str_eq(c.image, "docker://debian:12");
	ck_assert_int_eq(set("tty", "on"), 0); /* of the image's command */
	ck_assert_int_eq(config_check(&c, &e), 0);
	ck_assert_int_eq(config_console(&c), CONSOLE_STDERR);
	ck_assert_int_eq(set("entrypoint", ""), 0);
	ck_assert_int_eq(set("pull", "never"), 0);
	ck_assert_int_eq(c.pull, PULL_NEVER);
	refused("pull", "Never", "expected always, missing or never");
	ck_assert_int_eq(set("rootfs-size", "1G"), 0);
	ck_assert_uint_eq(c.rootfs_size, 1u << 30);
	refused("rootfs-size", "15M", "expected a size from 16M to 16384G");
	refused("rootfs-size", "16777217", "expected a multiple of 4096 bytes");
	ck_assert_int_eq(config_check(&c, &e), 0);
	ck_assert_int_eq(set("rootfs", "/x"), 0);
	ck_assert_int_eq(config_check(&c, &e), -EINVAL);
	ck_assert_str_eq(c.mistake.field, "image");
}
END_TEST

START_TEST(images_own_settings)
{
	ck_assert_int_eq(json("{\"pull\":\"always\"}"), 0);
	ck_assert_int_eq(config_check(&c, &e), -EINVAL);
	ck_assert_str_eq(e.text, "--pull: no image; expected --image REF");
	ck_assert_int_eq(json("{\"entrypoint\":\"/bin/x\"}"), 0);
	ck_assert_int_eq(config_check(&c, &e), -EINVAL);
	ck_assert_str_eq(c.mistake.field, "entrypoint");
	config_free(&c);
	ck_assert_int_eq(json("{\"rootfs-size\":33554432}"), 0);
	ck_assert_int_eq(config_check(&c, &e), -EINVAL);
	ck_assert_int_eq(json("{\"rootfs\":\"/x,rw\"}"), 0);
	ck_assert_int_eq(config_check(&c, &e), -EINVAL);
	ck_assert_str_eq(c.mistake.field, "rootfs-size");
	ck_assert_int_eq(json("{\"rootfs\":\"/x\"}"), 0);
	ck_assert_int_eq(config_check(&c, &e), 0);
}
END_TEST

#define TEN "0123456789"

START_TEST(identities)
{
	static const char long_one[] = TEN TEN TEN TEN TEN TEN "01234"; /* 65 */
	const char *const bad[] = {"", "a b", ".a", "-a", "a/b", "a\n", long_one};

	ck_assert_int_eq(set("hostname", "web-1.example_x"), 0);
	ck_assert_str_eq(c.hostname, "web-1.example_x");
	for (unsigned i = 0; i < ARRAY_LEN(bad); i++)
		ck_assert_int_eq(set("hostname", bad[i]), -EINVAL);
	ck_assert_str_eq(c.mistake.field, "hostname");
	ck_assert_str_eq(c.hostname, "web-1.example_x");
	ck_assert_int_eq(set("hostname", long_one + 1), 0);
	ck_assert_int_eq(config_check(&c, &e), 0);
	ck_assert_int_eq(set("initrd", "/x"), 0);
	ck_assert_int_eq(config_check(&c, &e), -EINVAL);
	ck_assert_str_eq(c.mistake.field, "initrd");
	config_free(&c);
	ck_assert_int_eq(set("identity", "other"), -EINVAL);
	ck_assert_str_eq(e.text, "--identity: 'other'; expected new or kept");
	ck_assert_int_eq(set("identity", "new"), 0);
	ck_assert(c.new_identity);
	ck_assert_int_eq(config_check(&c, &e), -EINVAL);
	ck_assert_str_eq(e.text, "--identity: no snapshot; expected --restore DIR");
	ck_assert_int_eq(set("restore", "/x"), 0);
	ck_assert_int_eq(config_check(&c, &e), 0);
	ck_assert_int_eq(set("identity", "kept"), 0);
	ck_assert(!c.new_identity);
}
END_TEST

START_TEST(templates)
{
	char *const argv[] = {"true", NULL};

	ck_assert_int_eq(json("{\"template\":true,\"shares\":[\"/a:/b\"]}"), 0);
	ck_assert(c.template);
	ck_assert_int_eq(config_check(&c, &e), 0);
	ck_assert_int_eq(config_set_command(&c, argv, 1, &e), 0);
	ck_assert_int_eq(config_check(&c, &e), -EINVAL);
	ck_assert_str_eq(c.mistake.field, "template");
	config_free(&c);
	ck_assert_int_eq(json("{\"template\":true,\"initrd\":\"/x\"}"), 0);
	ck_assert_int_eq(config_check(&c, &e), -EINVAL);
	ck_assert_str_eq(c.mistake.field, "template");
	config_free(&c);
	ck_assert_int_eq(json("{\"template\":true,\"image\":\"oci:/x\"}"), 0);
	ck_assert_int_eq(config_check(&c, &e), -EINVAL);
	ck_assert_str_eq(c.mistake.field, "template");
}
END_TEST

START_TEST(default_variables)
{
	char *const env[] = {"A=image", "B=image"};
	char *many[CONFIG_MAX_ENV];

	ck_assert_int_eq(set("env", "A=mine"), 0);
	ck_assert_int_eq(config_add_defaults(&c, env, 2, &e), 0);
	ck_assert_uint_eq(c.nenv, 3);
	ck_assert_str_eq(c.env[0], "A=image");
	ck_assert_str_eq(c.env[2], "A=mine"); /* insula-init takes the last one */
	ck_assert_ptr_null(c.env[3]);
	for (unsigned i = 0; i < CONFIG_MAX_ENV; i++)
		many[i] = env[0];
	ck_assert_int_eq(config_add_defaults(&c, many, CONFIG_MAX_ENV - 2, &e), -EINVAL);
	ck_assert_int_eq(config_add_defaults(&c, many, CONFIG_MAX_ENV - 3, &e), 0);
	ck_assert_uint_eq(c.nenv, CONFIG_MAX_ENV);
}
END_TEST

/* Read from the right: the host's path may hold what separates. */
START_TEST(share_words)
{
	static const struct {
		const char *text, *dir, *guest;
		bool ro, packed;
		enum share_cache cache;
	} want[] = {
		{"/a:/b", "/a", "/b", false, false, SHARE_CACHE_AUTO},
		{"/a:/b:rw", "/a", "/b", false, false, SHARE_CACHE_AUTO},
		{"/a,packed:/x:/c:ro,cache=none", "/a,packed:/x", "/c", true, false,
		 SHARE_CACHE_NONE},
		{"a:b,c:/d,packed", "a:b,c", "/d", true, true, SHARE_CACHE_AUTO},
		{"/a:/e,,f,cache=always", "/a", "/e,f", false, false, SHARE_CACHE_ALWAYS},
		{"/a:/g:ro,packed", "/a", "/g", true, true, SHARE_CACHE_AUTO},
		{"/a:/h,cache=auto", "/a", "/h", false, false, SHARE_CACHE_AUTO},
	};
	const struct share_config *s = c.share;

	for (unsigned i = 0; i < ARRAY_LEN(want); i++, s++) {
		if (i == 1)
			c.share[0].guest[1] = 'z';
		ck_assert_msg(set("share", want[i].text) == 0, "%s: %s", want[i].text, e.text);
		ck_assert_str_eq(s->dir, want[i].dir);
		ck_assert_str_eq(s->guest, want[i].guest);
		ck_assert_int_eq(s->ro, want[i].ro);
		ck_assert_int_eq(s->packed, want[i].packed);
		ck_assert_int_eq(s->cache, want[i].cache);
	}
	ck_assert_uint_eq(config_live_shares(&c), 5);
}
END_TEST

START_TEST(json_command_settings)
{
	ck_assert_int_eq(json("{\"command\":[\"ls\"],\"env\":[\"A=1\",\"B=2\"],\"cwd\":\"/\","
			      "\"user\":\"1:2\",\"tty\":true,\"interactive\":false,"
			      "\"shares\":[\"/a:/b\"]}"),
			 0);
	ck_assert(c.nenv == 2 && c.uid == 1 && c.gid == 2 && c.tty && !c.interactive);
	ck_assert_uint_eq(c.nshares, 1);
	ck_assert_int_eq(json("{\"user\":5}"), 0);
	ck_assert_uint_eq(c.uid, 5);
	json_refused("{\"env\":\"A=1\"}", "env: wrong type; expected an array of strings");
	json_refused("{\"env\":[1]}", "env: wrong type; expected an array of strings");
	json_refused("{\"env\":[\"A\"]}", "json: env: 'A'; expected NAME=VALUE");
	json_refused("{\"tty\":1}", "tty: wrong type; expected true or false");
	json_refused("{\"interactive\":\"on\"}", "interactive: wrong type");
	json_refused("{\"share\":\"/a:/b\"}", "json: unknown key 'share'");
	json_refused("{\"shares\":\"/a:/b\"}", "shares: wrong type; expected an array of strings");
	json_refused("{\"shares\":[\"/a:/b,rw\"]}", "json: shares: 'rw'");
}
END_TEST

START_TEST(json_unknown_keys)
{
	json_refused("{\"cpu\":1}", "json: unknown key 'cpu'; did you mean 'cpus'?");
	json_refused("{\"disks\":[{\"path\":\"/a\",\"seral\":\"x\"}]}",
		     "json: disks: unknown key 'seral'; did you mean 'serial'?; expected path");
	json_refused("{\"\":1}", "json: unknown key ''");
	json_refused("{\"disk\":\"path=/a\"}", "json: unknown key 'disk'");
	json_refused("{\"json\":\"x\"}", "json: unknown key 'json'");
	json_refused("{\"help\":true}", "json: unknown key 'help'");
	json_refused("{\"a\\u001b[31m\":1}", "json: unknown key 'a?[31m'");
	json_refused("{\"disks\":[{\"path\":\"/a\",\"rw\":true}]}",
		     "json: disks: unknown key 'rw'; expected path, ro, direct, serial, engine, "
		     "overlay");
}
END_TEST

/* What a person wrote is pointed at. */
static void refused_at(const char *text, const char *part)
{
	ck_assert_int_eq(config_json(&c, "vm.json", text, strlen(text), &e), -EINVAL);
	ck_assert_msg(!strncmp(e.text, part, strlen(part)), "'%s': '%s' does not begin with '%s'",
		      text, e.text, part);
}

START_TEST(json_places)
{
	refused_at("{\n  \"mem\": \"64M\",\n  \"cpu\": 2\n}",
		   "vm.json:3:3: unknown key 'cpu'; did you mean 'cpus'?");
	/* The key, not the same word in a value, in a string, or elsewhere. */
	refused_at("{\"append\": \"\\\"rw\\\": rw\", \"nets\": [],\n"
		   " \"disks\": [{\"path\": \"rw\"},\n  {\"rw\": true}]}",
		   "vm.json:3:4: disks: unknown key 'rw'; expected path");
	refused_at("{\"append\": \"\xc3\xa4\", \"zz\": 1}", "vm.json:1:17: unknown key 'zz'");
	refused_at("{\n\"cpus\": 1,\n}", "vm.json:3:1: ");
	refused_at("{}\n{}", "vm.json:2:1: ");
	refused_at("{", "vm.json: the text ends inside a value");
	refused_at("[]", "vm.json: expected one object");
	refused_at("{\"cpus\": 99}", "vm.json:1:2: cpus: '99'; expected");
}
END_TEST

START_TEST(balloons)
{
	ck_assert(!c.balloon.on);
	ck_assert_int_eq(set("balloon", "on"), 0);
	ck_assert(c.balloon.on && !c.balloon.no_reports && !c.balloon.target && !c.balloon.stats);
	ck_assert_int_eq(set("balloon", "target=128M,idle=3,reports=off,stats=5"), 0);
	ck_assert(c.balloon.on && c.balloon.no_reports && c.balloon.stats == 5 &&
		  c.balloon.idle == 3);
	ck_assert_uint_eq(c.balloon.target, 128 << 20);
	ck_assert_int_eq(config_check(&c, &e), 0);
	ck_assert_int_eq(set("balloon", "on,reports=on"), 0);
	ck_assert(c.balloon.on && !c.balloon.no_reports && !c.balloon.target);
	ck_assert_int_eq(set("balloon", "off"), 0);
	ck_assert(!c.balloon.on);
	ck_assert_int_eq(config_json(&c, NULL, "{\"balloon\":{\"target\":\"64M\"}}", 28, &e), 0);
	ck_assert(c.balloon.on && c.balloon.target == 64 << 20);
	ck_assert_int_eq(config_json(&c, NULL, "{\"balloon\":\"off\"}", 17, &e), 0);
	ck_assert(!c.balloon.on);
	refused("balloon", "", "expected off|on");
	refused("balloon", "on,off", "'on,off'; expected off|on");
	refused("balloon", "off,target=64M", "expected off|on");
	refused("balloon", "of", "'of'");
	refused("balloon", "target=15M", "target '15M'; expected a size from 16M to ");
	refused("balloon", "target=", "target ''");
	refused("balloon", "reports=maybe", "reports 'maybe'; expected on or off");
	refused("balloon", "idle=0", "idle '0'; expected a number of seconds");
	refused("balloon", "stats=0", "stats '0'; expected a number of seconds from 1 to 86400");
	json_refused("{\"balloon\":{\"on\":false}}", "expected off|on");
	json_refused("{\"balloon\":true}", "balloon: wrong type");
	ck_assert_int_eq(set("balloon", "target=257M"), 0);
	ck_assert_int_eq(config_check(&c, &e), -EINVAL);
	ck_assert_str_eq(e.text,
			 "--balloon: target '257M'; expected at most 256M, the guest's memory");
	ck_assert_str_eq(c.mistake.field, "balloon.target");
}
END_TEST

static int plug(const char *text)
{
	json_object *o = json_tokener_parse(text);
	const char *kind = NULL;
	int rc;

	config_free(&c);
	rc = config_plug(&c, o, &kind, &e);
	if (!rc)
		ck_assert_ptr_nonnull(strstr(text, kind));
	json_object_put(o);
	return rc;
}

static void plug_refused(const char *text, const char *field, const char *line)
{
	ck_assert_int_eq(plug(text), -EINVAL);
	ck_assert_msg(strstr(e.text, line) != NULL, "%s", e.text);
	ck_assert_str_eq(c.mistake.field, field);
	ck_assert(c.mistake.expected[0]);
}

START_TEST(devices_that_come)
{
#ifndef _WIN32
	ck_assert_int_eq(plug("{\"net\": {\"user\": true}}"), 0);
	ck_assert(c.nnets == 1 && c.net[0].dhcp);
	ck_assert_int_eq(plug("{\"net\": \"tap=t,mac=02:00:5e:00:53:01\"}"), 0);
	ck_assert_int_eq(plug("{\"device\": \"vhost-user,type=blk,socket=/s\"}"), 0);
	ck_assert(c.nvhosts == 1);
	plug_refused("{\"net\": \"tap=t,ip=dhcp\"}", "net.ip", "net.ip: 'dhcp'; expected none");
	plug_refused("{\"net\": \"fd=3\"}", "net.fd", "expected " NET_NO_FD);
	ck_assert_int_eq(plug("{\"vfio\": \"01:00.0,bind\"}"), 0);
	ck_assert(c.nvfios == 1 && c.vfio[0].bind && c.vfio[0].fd == -1);
	ck_assert_str_eq(c.vfio[0].address, "0000:01:00.0");
	plug_refused("{\"vfio\": \"01:00.0,fd=3\"}", "vfio.fd", "vfio.fd; expected none");
	plug_refused("{\"vfio\": \"1.0\"}", "vfios", "vfio: '1.0'; expected the address");
	ck_assert_int_eq(plug("{\"vsock\": \"/s,cid=5\"}"), 0);
	ck_assert(c.vsock.on && c.vsock.cid == 5 && !strcmp(c.vsock.path, "/s"));
	ck_assert_int_eq(plug("{\"vsock\": {\"path\": \"/s\", \"bus\": \"pci\"}}"), 0);
	plug_refused("{\"vsock\": \"/s,bus=mmio\"}", "vsock.bus",
		     "vsock.bus: 'mmio'; expected pci");
	ck_assert_int_eq(plug("{\"console\": \"pty\"}"), 0);
	ck_assert(c.console_given && c.console == CONSOLE_PTY);
	ck_assert_int_eq(plug("{\"console\": \"virtio,file=/f,limit=1M\"}"), 0);
	ck_assert(c.console == CONSOLE_FILE && c.console_limit == 1 << 20);
	plug_refused("{\"console\": \"stdio\"}", "console", "console; expected pty or file=FILE");
	plug_refused("{\"console\": \"virtio,none\"}", "console", "expected pty or file=FILE");
	plug_refused("{\"console\": \"virtio\"}", "console", "expected pty or file=FILE");
#endif
	ck_assert_int_eq(plug("{\"disk\": {\"path\": \"/a\", \"ro\": true}}"), 0);
	ck_assert(c.ndisks == 1 && c.disk[0].ro && !strcmp(c.disk[0].path, "/a"));
	ck_assert_int_eq(plug("{\"disk\": \"/a,serial=x,bus=pci\"}"), 0);
	ck_assert_str_eq(c.disk[0].serial, "x");
	ck_assert_int_eq(plug("{\"share\": \"/a:/b:ro\"}"), 0);
	ck_assert(c.nshares == 1 && c.share[0].ro);
	plug_refused("{\"disk\": {\"path\": \"/a\", \"serial\": 3}}", "disk.serial",
		     "disk: serial: wrong type; expected a string");
	plug_refused("{\"disk\": {\"pat\": \"/a\"}}", "disk.pat", "did you mean 'path'?");
	plug_refused("{\"disk\": \"/a,bus=mmio\"}", "disk.bus", "disk.bus: 'mmio'; expected pci");
	plug_refused("{\"disk\": {\"path\": \"/a\", \"bus\": \"mmio\"}}", "disk.bus",
		     "expected pci: devices come on the PCI bus alone");
	plug_refused("{\"share\": \"/a:/b,packed\"}", "share", "expected a live one, or a disk");
	plug_refused("{\"share\": [\"/a:/b\"]}", "share", "share: wrong type; expected a string");
	plug_refused("{\"x\\u0007\": 1}", "", "a device: 'x?'; expected one of disk, net");
	plug_refused("{}", "",
		     "a device; expected one of disk, net, share, device, vfio, vsock and "
		     "console");
	plug_refused("\"disk\"", "", "expected one of");
	plug_refused("null", "", "expected one of");
}
END_TEST

START_TEST(places)
{
	ck_assert(!config_has_pci(&c));
	ck_assert_int_eq(set("hotplug", "8"), 0);
	ck_assert_uint_eq(c.hotplug, 8);
	ck_assert(config_has_pci(&c)); /* a bus with nothing but ports */
	ck_assert_uint_eq(config_pci_devices(&c, false), 0);
	ck_assert_uint_eq(config_most_pci(&c), BOARD_MAX_PCI - 8);
	for (unsigned i = 0; i < 22; i++)
		ck_assert_int_eq(set("disk", "/a,ro,bus=pci"), 0);
	ck_assert_int_eq(set("balloon", "on,bus=pci"), 0);
	ck_assert_int_eq(config_check(&c, &e), 0);
	ck_assert_int_eq(set("disk", "/a,ro,bus=pci"), 0);
	ck_assert_int_eq(config_check(&c, &e), -EINVAL);
	ck_assert_str_eq(e.text, "--bus: 24 devices on the PCI bus; expected at most 23 beside the "
				 "places of --hotplug, and bus=mmio for the others");
	ck_assert_int_eq(set("hotplug", "7"), 0);
	ck_assert_int_eq(config_check(&c, &e), 0);
	refused("hotplug", "9", "'9'; expected a number from 0 to 8");
	refused("hotplug", "-1", "expected a number from 0 to 8");
	refused("hotplug", "", "expected a number from 0 to 8");
	refused("hotplug", "on", "'on'; expected a number from 0 to 8");
}
END_TEST

static void json_taken(const char *text)
{
	ck_assert_msg(!config_json(&c, NULL, text, strlen(text), &e), "%s: %s", text, e.text);
}

START_TEST(buses)
{
	ck_assert(c.bus == CONFIG_BUS_UNSAID && !config_is_pci(&c, CONFIG_BUS_UNSAID));
	ck_assert(config_is_pci(&c, CONFIG_BUS_PCI) && !config_has_pci(&c));
	json_taken("{\"disks\":[\"/a\",{\"path\":\"/b\",\"bus\":\"mmio\"},\"/c,bus=pci\"],"
		   "\"vsock\":{\"path\":\"/v\",\"bus\":\"pci\"},\"balloon\":{\"bus\":\"pci\"},"
		   "\"shares\":[\"/a:/b:ro,bus=pci\",\"/a:/c,packed,bus=mmio\"]}");
	ck_assert_uint_eq(c.disk[0].bus, CONFIG_BUS_UNSAID);
	ck_assert_uint_eq(c.disk[1].bus, CONFIG_BUS_MMIO);
	ck_assert_uint_eq(c.disk[2].bus, CONFIG_BUS_PCI);
	ck_assert(c.vsock.bus == CONFIG_BUS_PCI && c.balloon.on && c.balloon.bus == CONFIG_BUS_PCI);
	ck_assert(c.share[0].ro && c.share[0].bus == CONFIG_BUS_PCI &&
		  c.share[1].bus == CONFIG_BUS_MMIO);
	/* A disk, the socket, the balloon, a share. */
	ck_assert_uint_eq(config_pci_devices(&c, true), 4);
	ck_assert_uint_eq(config_pci_devices(&c, false), 3);
	ck_assert(config_has_pci(&c));
	/* Also the first disk and entropy. */
	json_taken("{\"bus\":\"pci\"}");
	ck_assert_uint_eq(config_pci_devices(&c, true), 6);
	ck_assert_int_eq(set("console", "virtio"), 0);
	ck_assert_int_eq(set("rootfs", "/r"), 0);
	ck_assert_int_eq(set("rootfs-size", "16M"), 0);
	ck_assert_uint_eq(config_pci_devices(&c, true), 9);
	ck_assert_int_eq(set("rng", "off"), 0);
	ck_assert_uint_eq(config_pci_devices(&c, true), 8);
	/* The last one wins, as everywhere. */
	ck_assert_int_eq(set("vsock", "/v"), 0);
	ck_assert_uint_eq(c.vsock.bus, CONFIG_BUS_UNSAID);
	ck_assert_int_eq(set("bus", "mmio"), 0);
	ck_assert_uint_eq(config_pci_devices(&c, true), 3);
	ck_assert_int_eq(set("balloon", "off"), 0);
	ck_assert_uint_eq(config_pci_devices(&c, true), 2);
	refused("bus", "", "expected pci or mmio");
	refused("bus", "PCI", "'PCI'; expected pci or mmio");
	refused("bus", "pci,mmio", "expected pci or mmio");
	refused("disk", "/a,bus=", "bus ''; expected pci or mmio");
	refused("disk", "/a,bus", "'bus'; did you mean 'bus='?");
	refused("vsock", "/a,bus=1", "bus '1'; expected pci or mmio");
	refused("balloon", "off,bus=pci", "expected off|on");
	refused("share", "/a:/d,bus=isa", "'isa'; expected pci or mmio");
	json_refused("{\"bus\":true}", "bus: wrong type");
	json_refused("{\"disks\":[{\"path\":\"/a\",\"bus\":1}]}",
		     "bus: wrong type; expected a string");
}
END_TEST

/* 31 have a place. */
START_TEST(buses_full)
{
	ck_assert_int_eq(set("bus", "pci"), 0);
	ck_assert_int_eq(set("rng", "off"), 0);
	for (unsigned i = 0; i < BOARD_MAX_PCI; i++)
		ck_assert_int_eq(set("disk", "path=/a"), 0);
	ck_assert_int_eq(config_check(&c, &e), 0);
	ck_assert_int_eq(set("vsock", "/v"), 0);
	ck_assert_int_eq(config_check(&c, &e), -EINVAL);
	ck_assert_str_eq(e.text, "--bus: 32 devices on the PCI bus; expected at most 31, and "
				 "bus=mmio for the others");
	ck_assert_str_eq(c.mistake.field, "bus");
	ck_assert_str_eq(c.mistake.expected, "at most 31, and bus=mmio for the others");
	ck_assert_int_eq(set("vsock", "/v,bus=mmio"), 0);
	ck_assert_int_eq(config_check(&c, &e), 0);
	/* A command has such a device without a word. */
	config_free(&c);
	ck_assert_int_eq(set("rng", "off"), 0);
	for (unsigned i = 0; i < BOARD_MAX_PCI; i++)
		ck_assert_int_eq(set("disk", "path=/a,bus=pci"), 0);
	ck_assert_int_eq(config_set_command(&c, (char *[]){"ls"}, 1, &e), 0);
	ck_assert_int_eq(config_check(&c, &e), 0);
	ck_assert_int_eq(set("bus", "pci"), 0);
	ck_assert_int_eq(config_check(&c, &e), -EINVAL);
}
END_TEST

START_TEST(json_wrong_types)
{
	static const char *const scalars[] = {"kernel",  "initrd", "append",  "cpus",
					      "mem",     "rootfs", "console", "metrics",
					      "timeout", "rng",    "bus"};
	static const char *const wrong[] = {"null", "true", "1.5", "NaN", "[]", "{}", "[1]"};
	char text[80];

	for (unsigned i = 0; i < ARRAY_LEN(scalars); i++) {
		for (unsigned k = 0; k < ARRAY_LEN(wrong); k++) {
			snprintf(text, sizeof(text), "{\"%s\":%s}", scalars[i], wrong[k]);
			json_refused(text, "wrong type; expected a string or a whole number");
			ck_assert_ptr_nonnull(strstr(e.text, scalars[i]));
		}
	}
	json_refused("{\"disks\":\"path=/a\"}", "disks: wrong type; expected an array");
	json_refused("{\"disks\":{}}", "disks: wrong type; expected an array");
	json_refused("{\"disks\":[1]}",
		     "disks: wrong type; expected an array of objects or strings");
	json_refused("{\"disks\":[null]}", "disks: wrong type");
	json_refused("{\"disks\":[{\"path\":1}]}", "path: wrong type; expected a string");
	json_refused("{\"disks\":[{\"path\":\"/a\",\"ro\":1}]}",
		     "ro: wrong type; expected true or false");
	json_refused("{\"disks\":[{\"path\":\"/a\",\"direct\":null}]}",
		     "direct: wrong type; expected true or false");
	json_refused("{\"disks\":[{}]}", "json: disks: ''; expected [path=]FILE");
	json_refused("{\"disks\":[{\"ro\":true}]}",
		     "json: disks: '{\"ro\":true}'; expected [path=]FILE");
	json_refused("{\"vsock\":[]}", "vsock: wrong type; expected an object or a string");
	json_refused("{\"vsock\":{\"path\":1}}", "path: wrong type; expected a string");
	json_refused("{\"vsock\":{\"path\":\"/v\",\"cid\":\"5\"}}",
		     "cid: wrong type; expected a whole number");
	json_refused("{\"vsock\":{\"path\":\"/v\",\"cid\":-1}}", "json: vsock: cid '-1'");
	json_refused("{\"vsock\":{\"paths\":\"/v\"}}", "vsock: unknown key 'paths'");
	json_refused("{\"vsock\":{\"vhost\":true,\"cid\":5}}",
		     "vhost: wrong type; expected a string");
#ifndef _WIN32
	json_refused("{\"vsock\":{\"vhost\":\"on\"}}", "json: vsock: vhost: on, without cid");
#endif
	json_refused("{\"vsock\":{}}", "json: vsock: ''; expected [path=]FILE");
	json_refused("{\"command\":\"ls\"}", "command: wrong type; expected an array of strings");
	json_refused("{\"command\":[\"ls\",1]}",
		     "command: wrong type; expected an array of strings");
	json_refused("{\"command\":[null]}", "command: wrong type");
	ck_assert_uint_eq(c.ndisks, 0);
}
END_TEST

START_TEST(json_not_an_object)
{
	static const char *const texts[] = {"[]", "\"x\"", "null", "true", "[{}]"};

	for (unsigned i = 0; i < ARRAY_LEN(texts); i++)
		json_refused(texts[i], "expected one object");
	json_refused("7 ", "expected one object");
	json_refused("", "json: the text ends inside a value; expected one object");
	json_refused(" \n", "json: the text ends inside a value");
}
END_TEST

START_TEST(json_truncated)
{
	static const char whole[] =
		"{\"cpus\":2,\"disks\":[{\"path\":\"/\\u00e9\",\"ro\":true}],\"command\":[\"a\"]}";

	for (size_t n = 0; n < sizeof(whole) - 1; n++) {
		ck_assert_int_eq(json_n(whole, n), -EINVAL);
		ck_assert_msg(strstr(e.text, "the text ends inside a value") != NULL, "%zu: %s", n,
			      e.text);
	}
	ck_assert_int_eq(json(whole), 0);
}
END_TEST

START_TEST(json_malformed)
{
	static const char *const texts[] = {"{cpus:1}",

					    "{\"cpus\":1,}",
					    "{\"cpus\" 1}",
					    "{\"cpus\":01}",

					    "{\"cpus\":1}}",
					    "{\"cpus\":1}{}",
					    "{\"cpus\":1} x",
					    "// c\n{}",
					    "{\"kernel\":\"\xff\"}",
					    "]",
					    "{\"kernel\":\"\\x\"}"};

	for (unsigned i = 0; i < ARRAY_LEN(texts); i++)
		json_refused(texts[i], "json: byte ");
	ck_assert(!c.kernel);
}
END_TEST

START_TEST(json_nul)
{
	static const char inside[] = "{\"cpus\":2}\0{\"mem\":1}", before[] = "\0{}",
			  in_string[] = "{\"kernel\":\"a\0b\"}";

	ck_assert_int_eq(json_n(inside, sizeof(inside) - 1), -EINVAL);
	ck_assert_int_eq(json_n(before, sizeof(before) - 1), -EINVAL);
	ck_assert_int_eq(json_n(in_string, sizeof(in_string) - 1), -EINVAL);
	json_refused("{\"kernel\":\"a\\u0000b\"}", "kernel: wrong type; expected a string");
	json_refused("{\"command\":[\"a\\u0000\"]}", "command: wrong type");
	json_refused("{\"disks\":[\"path=/a\\u0000\"]}", "disks: wrong type");
	json_refused("{\"disks\":[{\"path\":\"/a\\u0000\"}]}", "path: wrong type");
	ck_assert_int_eq(json_n("{\"cp\\u0000us\":1}", 15), -EINVAL);
	ck_assert(!c.kernel && !c.command && !c.ndisks);
}
END_TEST

START_TEST(json_deep)
{
	char text[64 + 2 * 5000];
	size_t n = (size_t)sprintf(text, "{\"disks\":");

	memset(text + n, '[', 5000);
	memset(text + n + 5000, ']', 5000);
	strcpy(text + n + 10000, "}");
	json_refused(text, "nesting too deep");
}
END_TEST

START_TEST(json_huge)
{
	size_t n = CONFIG_JSON_MAX + 1;
	char *text = malloc(n + 1);

	memset(text, ' ', n);
	text[n] = 0;
	memcpy(text, "{\"cpus\":3}", 10);
	ck_assert_int_eq(json_n(text, n), -EINVAL);
	ck_assert_str_eq(e.text, "json: 1048577 bytes; expected at most 1048576");
	ck_assert_int_eq(json_n(text, n - 1), 0);
	ck_assert_uint_eq(c.cpus, 3);
	/* One string nearly as large: a path nobody has, but a text like any other. */
	memset(text, 'x', n - 1);
	memcpy(text, "{\"kernel\":\"", 11);
	memcpy(text + n - 3, "\"}", 2);
	ck_assert_int_eq(json_n(text, n - 1), 0);
	ck_assert_uint_eq(strlen(c.kernel), n - 1 - 13);
	free(text);
}
END_TEST

START_TEST(json_limits)
{
	char *text = malloc(1 << 16);
	size_t n = (size_t)sprintf(text, "{\"command\":[\"a\"");

	for (unsigned i = 0; i < CONFIG_MAX_ARGS; i++)
		n += (size_t)sprintf(text + n, ",\"a\"");
	strcpy(text + n, "]}");
	json_refused(text, "json: command: 1025 arguments; expected at most 1024");
	n = (size_t)sprintf(text, "{\"disks\":[\"path=/a\"");
	for (unsigned i = 0; i < CONFIG_MAX_DISKS; i++)
		n += (size_t)sprintf(text + n, ",\"path=/a\"");
	strcpy(text + n, "]}");
	json_refused(text, "json: disks: more than 31 disks");
	free(text);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("config");
	TCase *flags = tcase_create("flags"), *js = tcase_create("json");
	SRunner *sr;
	int failures;

	tcase_add_checked_fixture(flags, setup, teardown);
	tcase_add_test(flags, defaults);
	tcase_add_test(flags, known_names);
	tcase_add_test(flags, flags_of_settings);
	tcase_add_test(flags, image_paths);
	tcase_add_test(flags, absolute_paths);
	tcase_add_test(flags, environment);
	tcase_add_test(flags, sizes);
	tcase_add_test(flags, memory);
	tcase_add_test(flags, numbers);
	tcase_add_test(flags, cpus_that_come);
	tcase_add_test(flags, text_settings);
	tcase_add_test(flags, rootfs);
	tcase_add_test(flags, random_numbers);
	tcase_add_test(flags, balloons);
	tcase_add_test(flags, buses);
	tcase_add_test(flags, devices_that_come);
	tcase_add_test(flags, places);
	tcase_add_test(flags, buses_full);
	tcase_add_test(flags, consoles);
	tcase_add_test(flags, virtio_consoles);
	tcase_add_test(flags, command_settings);
	tcase_add_test(flags, user_names);
	tcase_add_test(flags, command_settings_refused);
	tcase_add_test(flags, shares);
	tcase_add_test(flags, images);
	tcase_add_test(flags, images_own_settings);
	tcase_add_test(flags, identities);
	tcase_add_test(flags, templates);
	tcase_add_test(flags, default_variables);
	tcase_add_test(flags, share_words);
	tcase_add_test(flags, json_command_settings);
	tcase_add_test(flags, long_values_are_cut);
	tcase_add_test(flags, disk_texts);
	tcase_add_test(flags, disk_bare);
	tcase_add_test(flags, disk_engine);
	tcase_add_test(flags, disk_limits);
	tcase_add_test(flags, disk_commas);
	tcase_add_test(flags, disk_refused);
	tcase_add_test(flags, vsock_texts);
	tcase_add_test(flags, vsock_vhost);
	tcase_add_test(flags, commands);
	tcase_add_test(flags, contradictions);
	tcase_add_checked_fixture(js, setup, teardown);
	tcase_add_test(js, json_everything);
	tcase_add_test(js, json_values);
	tcase_add_test(js, json_unknown_keys);
	tcase_add_test(js, json_places);
	tcase_add_test(js, json_wrong_types);
	tcase_add_test(js, json_not_an_object);
	tcase_add_test(js, json_truncated);
	tcase_add_test(js, json_malformed);
	tcase_add_test(js, json_nul);
	tcase_add_test(js, json_deep);
	tcase_add_test(js, json_huge);
	tcase_add_test(js, json_limits);
	suite_add_tcase(s, flags);
	suite_add_tcase(s, js);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failures = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failures != 0;
}
