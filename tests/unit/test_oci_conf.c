/* SPDX-License-Identifier: BSD-2-Clause */
/* oci.json, and the size of a VM from annotations and limits. */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <insula/base.h>

#include "oci/conf.h"
#include "spec/json.h"

#include "ocijson.h"

static struct oci_conf c;
static struct err e;

static int conf(const char *text)
{
	char *copy = quoted(text);
	int rc = conf_text(&c, copy, strlen(copy), &e);

	free(copy);
	return rc;
}

START_TEST(defaults)
{
	ck_assert_int_eq(conf_read(&c, "/nonexistent/oci.json", false, &e), 0);
	ck_assert_uint_eq(c.mem, 1u << 30);
	ck_assert_str_eq(c.net_mode, "tc");
	ck_assert_str_eq(c.net_host, "refuse");
	ck_assert_str_eq(c.templates, "/var/lib/insula/templates");
	ck_assert(c.port_forward && !c.kernel_annotation && !c.vfio_annotation && !c.log_guest);
	ck_assert_ptr_null(c.vm);
	conf_free(&c);
	ck_assert_int_eq(conf_read(&c, "/nonexistent/oci.json", true, &e), -ENOENT);
	ck_assert_str_eq(e.text, "/nonexistent/oci.json: No such file or directory");
}
END_TEST

START_TEST(every_member)
{
	ck_assert_int_eq(
		conf("{'memory':'2G','memory_min':'64M','guest_overhead':'32M','host_overhead':"
		     "67108864,'cpus':1,'cpus_max':4,'kernel':'/k','initrd':'/i','supervisor':'/s',"
		     "'log_guest':true,'templates':'/"
		     "t','vm':{'rng':'on'},'network':'macvtap','host_network':'user',"
		     "'port_forward':false,'share_cache':'none','hook_timeout':5,'boot_timeout':"
		     "600,"
		     "'kernel_annotation':true,'vfio_annotation':true}"),
		0);
	ck_assert_uint_eq(c.mem, 2ull << 30);
	ck_assert_uint_eq(c.mem_min, 64u << 20);
	ck_assert_uint_eq(c.mem_overhead, 32u << 20);
	ck_assert_uint_eq(c.overhead, 64u << 20);
	ck_assert_uint_eq(c.cpus, 1);
	ck_assert_uint_eq(c.cpus_max, 4);
	ck_assert_str_eq(c.kernel, "/k");
	ck_assert_str_eq(c.initrd, "/i");
	ck_assert_str_eq(c.supervisor, "/s");
	ck_assert_str_eq(c.templates, "/t");
	ck_assert_str_eq(c.net_mode, "macvtap");
	ck_assert_str_eq(c.net_host, "user");
	ck_assert_str_eq(c.share_cache, "none");
	ck_assert_uint_eq(c.hook_timeout, 5);
	ck_assert_uint_eq(c.boot_timeout, 600);
	ck_assert(c.log_guest && c.kernel_annotation && c.vfio_annotation && !c.port_forward);
	ck_assert_str_eq(j_get_str(c.vm, "rng", ""), "on");
	conf_free(&c);
}
END_TEST

static const struct {
	const char *json, *text;
} bad[] = {
	{"", "not JSON: unexpected end of data"},
	{"[]", "[]; expected an object"},
	{"{'memroy':'1G'}",
	 "unknown setting 'memroy'; did you mean 'memory'?; see insula-oci.json(5)"},
	{"{'x':1}", "unknown setting 'x'; see insula-oci.json(5)"},
	{"{'memory':'1X'}", "memory: \"1X\"; expected a size from 16M to 1048576M"},
	{"{'memory':-1}", "memory: -1; expected a size from 16M to 1048576M"},
	{"{'memory':'64M'}", "memory: 64M; expected at least memory_min, 128M"},
	{"{'cpus':33}", "cpus: 33; expected a number from 1 to 32"},
	{"{'cpus':'1'}", "cpus: \"1\"; expected a number from 1 to 32"},
	{"{'boot_timeout':0}", "boot_timeout: 0; expected a number from 1 to 3600"},
	{"{'cpus_max':1}", "cpus: 2; expected at most cpus_max, 1"},
	{"{'kernel':'k'}", "kernel: \"k\"; expected an absolute path"},
	{"{'kernel':null}", "kernel: null; expected a string"},
	{"{'network':'tc macvtap'}", "network: \"tc macvtap\"; expected one of: tc macvtap none"},
	{"{'network':''}", "network: \"\"; expected one of: tc macvtap none"},
	{"{'log_guest':1}", "log_guest: 1; expected true or false"},
	{"{'vm':[]}", "vm: []; expected an object"},
	{"{'vm':{'template':true}}", "vm.template: it is the container's"},
	{"{'vm':{'restore':'/s'}}", "vm.restore: it is the container's"},
	{"{'templates':'t'}", "templates: \"t\"; expected an absolute path"},
	{"{'vm':{'shares':[]}}", "vm.shares: it is the container's"},
	{"{'vm':{'vfios':[]}}", "vm.vfios: it is the container's"},
};

START_TEST(a_bad_one)
{
	ck_assert_int_eq(conf(bad[_i].json), -EINVAL);
	ck_assert_str_eq(e.text, bad[_i].text);
}
END_TEST

START_TEST(a_file)
{
	char path[] = "/tmp/insula-test-oci-XXXXXX", want[128];
	int fd = mkstemp(path);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, "{\"cpus\":0}\n", 11), 11);
	ck_assert_int_eq(conf_read(&c, path, false, &e), -EINVAL);
	snprintf(want, sizeof(want), "%s: cpus: 0; expected a number from 1 to 32", path);
	ck_assert_str_eq(e.text, want);
	ck_assert_int_eq(ftruncate(fd, 0), 0);
	ck_assert_int_eq(pwrite(fd, "{\"cpus\":3}\n", 11, 0), 11);
	ck_assert_int_eq(conf_read(&c, path, false, &e), 0);
	ck_assert_uint_eq(c.cpus, 3);
	close(fd);
	unlink(path);
	conf_free(&c);
}
END_TEST

/* ---- sizes ---- */

static struct vm_size size;

static int size_of(const char *text)
{
	struct bundle b;
	int rc;

	bundle_from(&b, text);
	rc = conf_size(&c, &b, &size, &e);
	bundle_free(&b);
	return rc;
}

#define RES(text) "{'linux':{'resources':{" text "}}}"
#define NOTE(text) "{'annotations':{" text "}}"
#define MIB(n) ((uint64_t)(n) << 20)

static const struct {
	const char *json;
	uint64_t mem;
	int64_t quota_cpus; /* before the host's number and cpus_max */
} sizes[] = {
	{"{}", MIB(1024), 2},
	{RES("'memory':{'limit':0},'cpu':{}"), MIB(1024), 2},
	{RES("'memory':{'limit':-1},'cpu':{'quota':-1}"), MIB(1024), 2},
	{RES("'memory':{'limit':104857600}"), MIB(196), 2},
	{RES("'memory':{'limit':104857601}"), MIB(196) + 4096, 2},
	{RES("'cpu':{'quota':50000,'period':100000}"), MIB(1024), 1},
	{RES("'cpu':{'quota':100001,'period':100000}"), MIB(1024), 2},
	{RES("'cpu':{'quota':100000}"), MIB(1024), 1},
	{RES("'cpu':{'quota':9223372036854,'period':1}"), MIB(1024), 9999},
	{NOTE("'io.kubernetes.cri.sandbox-memory':'209715200',"
	      "'io.kubernetes.cri.sandbox-cpu-quota':'200000',"
	      "'io.kubernetes.cri.sandbox-cpu-period':'100000'"),
	 MIB(296), 2},
	{NOTE("'io.kubernetes.cri.sandbox-memory':'0','io.kubernetes.cri.sandbox-cpu-quota':'0'"),
	 MIB(1024), 2},
	{NOTE("'io.kubernetes.cri-o.PodLinuxResources':'{\\'cpu_period\\':100000,\\'cpu_quota\\':"
	      "10000,\\'cpu_shares\\':102,\\'memory_limit_in_bytes\\':134217728}'"),
	 MIB(224), 1},
	{NOTE("'io.insula.vm.memory':'300M','io.insula.vm.cpus':'1',"
	      "'io.kubernetes.cri.sandbox-memory':'209715200'"),
	 MIB(300), 1},
};

START_TEST(a_size)
{
	long host = sysconf(_SC_NPROCESSORS_ONLN);
	int64_t cpus = sizes[_i].quota_cpus;

	ck_assert_int_eq(conf("{}"), 0);
	ck_assert_msg(size_of(sizes[_i].json) == 0, "%s", e.text);
	ck_assert_uint_eq(size.mem, sizes[_i].mem);
	cpus = cpus > host ? host : cpus;
	ck_assert_uint_eq(size.cpus, (unsigned)(cpus > 32 ? 32 : cpus));
	conf_free(&c);
}
END_TEST

static const struct {
	const char *json, *text;
} bad_sizes[] = {
	{RES("'memory':{'limit':1048576}"), "linux.resources.memory.limit: 1048576; expected at "
					    "least 33554432, so that the VM has its "
					    "minimum of 128M"},
	{RES("'memory':{'limit':1099410964481}"),
	 "linux.resources.memory.limit: 1099410964481; expected at most 1099410964480, for a VM "
	 "has at most 1048576M"},
	{RES("'memory':7"), "linux.resources.memory: 7; expected an object"},
	{NOTE("'io.kubernetes.cri.sandbox-memory':'lots'"),
	 "annotations.io.kubernetes.cri.sandbox-memory: 'lots'; expected a number from 0 to "
	 "4611686018427387903"},
	{NOTE("'io.kubernetes.cri.sandbox-memory':' 1'"),
	 "annotations.io.kubernetes.cri.sandbox-memory: ' 1'; expected a number from 0 to "
	 "4611686018427387903"},
	{NOTE("'io.kubernetes.cri.sandbox-cpu-period':'-5'"),
	 "annotations.io.kubernetes.cri.sandbox-cpu-period: '-5'; expected a number from 0 to "
	 "1000000"},
	{NOTE("'io.kubernetes.cri-o.PodLinuxResources':'{'"),
	 "annotations.io.kubernetes.cri-o.PodLinuxResources: '{'; expected an object of JSON"},
	{NOTE("'io.insula.vm.memory':'1M'"),
	 "annotations.io.insula.vm.memory: '1M'; expected a size such as 512M, from memory_min of "
	 "the configuration on"},
	{NOTE("'io.insula.vm.cpus':'0'"),
	 "annotations.io.insula.vm.cpus: '0'; expected a number from 1 to 32"},
	{NOTE("'io.insula.vm.cpus':3"), "annotations.io.insula.vm.cpus: 3; expected a string"},
	{NOTE("'io.insula.vm.kernel':'/k'"),
	 "annotations.io.insula.vm.kernel: '/k'; expected none, for kernel_annotation is false in "
	 "the configuration"},
};

START_TEST(a_bad_size)
{
	ck_assert_int_eq(conf("{}"), 0);
	ck_assert_int_eq(size_of(bad_sizes[_i].json), -EINVAL);
	ck_assert_str_eq(e.text, bad_sizes[_i].text);
	conf_free(&c);
}
END_TEST

START_TEST(a_kernel)
{
	ck_assert_int_eq(conf("{'kernel':'/k','kernel_annotation':true}"), 0);
	ck_assert_int_eq(size_of("{}"), 0);
	ck_assert_str_eq(size.kernel, "/k");
	ck_assert_int_eq(size_of(NOTE("'io.insula.vm.kernel':'/l'")), 0);
	ck_assert_str_eq(size.kernel, "/l");
	ck_assert_int_eq(size_of(NOTE("'io.insula.vm.kernel':'l'")), -EINVAL);
	conf_free(&c);
}
END_TEST

START_TEST(an_update)
{
	json_object *o = json("{'memory':{'limit':104857600}}");

	ck_assert_int_eq(conf("{}"), 0);
	ck_assert_int_eq(conf_fits(&c, MIB(196), o, &e), 0);
	ck_assert_int_eq(conf_fits(&c, MIB(195), o, &e), -EINVAL);
	ck_assert_str_eq(e.text, "linux.resources.memory.limit: 104857600; expected at most "
				 "103809024: the VM was started with 195M");
	ck_assert_int_eq(conf_fits(&c, MIB(195), NULL, &e), 0);
	json_object_put(o);
	conf_free(&c);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("oci_conf");
	TCase *t = tcase_create("all");
	SRunner *run = srunner_create(s);
	int failed;

	tcase_add_test(t, defaults);
	tcase_add_test(t, every_member);
	tcase_add_loop_test(t, a_bad_one, 0, ARRAY_LEN(bad));
	tcase_add_test(t, a_file);
	tcase_add_loop_test(t, a_size, 0, ARRAY_LEN(sizes));
	tcase_add_loop_test(t, a_bad_size, 0, ARRAY_LEN(bad_sizes));
	tcase_add_test(t, a_kernel);
	tcase_add_test(t, an_update);
	suite_add_tcase(s, t);
	srunner_run_all(run, CK_ENV);
	failed = srunner_ntests_failed(run);
	srunner_free(run);
	return failed != 0;
}
