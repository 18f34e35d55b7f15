/* SPDX-License-Identifier: BSD-2-Clause */
/* OCI configuration -> records: containers, processes, mounts, resources; what is refused, and in
 * which words. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include <insula/base.h>

#include "oci/mountopt.h"
#include "oci/record.h"
#include "spec/json.h"

#include "ocijson.h"

static struct rec r;
static struct err e;
static struct bundle b;

static void setup(void)
{
	memset(&e, 0, sizeof(e));
	memset(&b, 0, sizeof(b));
	rec_init(&r);
}

static void teardown(void)
{
	rec_free(&r);
	bundle_free(&b);
}

/* All records from the second on, with '|' between them. */
static const char *records(void)
{
	static char out[16384];
	const char *p = r.at;

	ck_assert_int_eq(r.error, 0);
	ck_assert_str_eq(p, "version=1");
	out[0] = 0;
	for (p += strlen(p) + 1; p < r.at + r.len; p += strlen(p) + 1)
		sprintf(out + strlen(out), "%s%s", out[0] ? "|" : "", p);
	return out;
}

static int process(const char *text)
{
	json_object *o = json(text);
	int rc;

	rec_free(&r);
	rec_init(&r);
	rc = record_process(o, NULL, 0, &r, &e);
	json_object_put(o);
	return rc;
}

#define NOCAPS "cap.bounding=0|cap.effective=0|cap.permitted=0|cap.inheritable=0|cap.ambient=0"

START_TEST(a_process)
{
	ck_assert_int_eq(process("{'args':['/bin/sh','-c','a=b'],'cwd':'/'}"), 0);
	ck_assert_str_eq(records(), "arg=/bin/sh|arg=-c|arg=a=b|cwd=/|uid=0|gid=0|" NOCAPS);
	ck_assert_int_eq(
		process("{'args':['x'],'env':['A=1','B='],'cwd':'/w','terminal':true,"
			"'user':{'uid':1,'gid':4294967294,'umask':18,'additionalGids':[5,6]},"
			"'capabilities':{'bounding':['CAP_CHOWN','CAP_KILL'],'effective':null,"
			"'permitted':['CAP_CHECKPOINT_RESTORE','CAP_OF_TOMORROW'],"
			"'ambient':['CAP_NET_BIND_SERVICE']},"
			"'rlimits':[{'type':'RLIMIT_NOFILE','hard':18446744073709551615,'soft':64}]"
			","
			"'noNewPrivileges':true,'oomScoreAdj':-999,'apparmorProfile':'p'}"),
		0);
	ck_assert_str_eq(records(),
			 "arg=x|env=A=1|env=B=|cwd=/w|uid=1|gid=4294967294|umask=18|addgid=5|"
			 "addgid=6|cap.bounding=21|cap.effective=0|cap.permitted=10000000000|"
			 "cap.inheritable=0|cap.ambient=400|rlimit=7 64 18446744073709551615|"
			 "terminal=1|nnp=1|oom=-999");
}
END_TEST

static const struct {
	const char *json, *text;
} bad_process[] = {
	{"[]", "process: []; expected an object"},
	{"{'cwd':'/'}", "process.args: nothing; expected at least one word"},
	{"{'args':[],'cwd':'/'}", "process.args: []; expected at least one word"},
	{"{'args':'x','cwd':'/'}", "process.args: \"x\"; expected an array"},
	{"{'args':[7],'cwd':'/'}", "process.args[0]: 7; expected a string"},
	{"{'args':['a\\u0000b'],'cwd':'/'}", "process.args[0]: \"a\\u0000b\"; expected a string"},
	{"{'args':['x']}", "process.cwd: nothing; expected an absolute path"},
	{"{'args':['x'],'cwd':'w'}", "process.cwd: \"w\"; expected an absolute path"},
	{"{'args':['x'],'cwd':'/','env':['A']}", "process.env[0]: A; expected NAME=VALUE"},
	{"{'args':['x'],'cwd':'/','env':['=A']}", "process.env[0]: =A; expected NAME=VALUE"},
	{"{'args':['x'],'cwd':'/','user':{'uid':4294967295}}",
	 "process.user.uid: 4294967295; expected a whole number from 0 to 4294967294"},
	{"{'args':['x'],'cwd':'/','user':{'umask':512}}",
	 "process.user.umask: 512; expected a whole number from 0 to 511"},
	{"{'args':['x'],'cwd':'/','user':{'additionalGids':[-1]}}",
	 "process.user.additionalGids: -1; expected a group's number"},
	{"{'args':['x'],'cwd':'/','capabilities':{'bounding':['CAP_KILL',1]}}",
	 "process.capabilities.bounding[1]: 1; expected a string"},
	{"{'args':['x'],'cwd':'/','rlimits':[{'type':'RLIMIT_X','soft':1,'hard':1}]}",
	 "process.rlimits[0].type: \"RLIMIT_X\"; expected a name such as RLIMIT_NOFILE"},
	{"{'args':['x'],'cwd':'/','rlimits':[{'type':'RLIMIT_AS','soft':2,'hard':1}]}",
	 "process.rlimits[0].soft: 2; expected at most what hard is"},
	{"{'args':['x'],'cwd':'/','rlimits':[{'type':'RLIMIT_AS','soft':-1,'hard':1}]}",
	 "process.rlimits[0].soft: -1; expected a whole number that is not negative"},
	{"{'args':['x'],'cwd':'/','rlimits':[{'type':'RLIMIT_AS','soft':1,'hard':1},"
	 "{'type':'RLIMIT_AS','soft':1,'hard':1}]}",
	 "process.rlimits[1].type: \"RLIMIT_AS\"; expected each limit once"},
	{"{'args':['x'],'cwd':'/','rlimits':[3]}", "process.rlimits[0]: 3; expected an object"},
	{"{'args':['x'],'cwd':'/','oomScoreAdj':1001}",
	 "process.oomScoreAdj: 1001; expected a whole number from -1000 to 1000"},
	{"{'args':['x'],'cwd':'/','terminal':1}", "process.terminal: 1; expected true or false"},
	{"{'args':['x'],'cwd':'/','scheduler':{'policy':'SCHED_FIFO'}}",
	 "process.scheduler: {\"policy\":\"SCHED_FIFO\"}; expected none: not supported"},
};

START_TEST(a_bad_process)
{
	ck_assert_int_lt(process(bad_process[_i].json), 0);
	ck_assert_str_eq(e.text, bad_process[_i].text);
}
END_TEST

START_TEST(a_filter_of_a_process)
{
	json_object *o = json("{'args':['x'],'cwd':'/'}");

	ck_assert_int_eq(record_process(o, "exec-1.seccomp", 6, &r, &e), 0);
	ck_assert_ptr_nonnull(strstr(records(), "|seccomp=exec-1.seccomp|seccomp.flags=6"));
	json_object_put(o);
}
END_TEST

/* ---- containers ---- */

static const char *owner_of(void *ctx, const char *path)
{
	return !strcmp(path, "/proc/42/ns/ipc") ? (const char *)ctx : NULL;
}

static int container(const char *text)
{
	static char owner[] = "pause", *source[] = {"", CT_SHARE "/c/m/1"};
	struct record_container c = {.id = "c",
				     .hook_input = "{}",
				     .bundle = &b,
				     .source = source,
				     .nsources = 2,
				     .ns_owner = owner_of,
				     .ctx = owner};
	int rc;

	bundle_free(&b);
	bundle_from(&b, text);
	rec_free(&r);
	rec_init(&r);
	rc = record_container(&c, &r, &e);
	return rc;
}

#define ROOT "id=c|rootfs=" CT_SHARE "/c/rootfs"

START_TEST(a_container)
{
	ck_assert_int_eq(container("{'root':{'path':'r'}}"), 0);
	ck_assert_str_eq(records(), ROOT);
	ck_assert_int_eq(
		container("{'root':{'path':'r','readonly':true},'hostname':'h','domainname':'d',"
			  "'linux':{'rootfsPropagation':'rslave','namespaces':[{'type':'mount'},{'"
			  "type':'uts'},"
			  "{'type':'network','path':'/var/run/netns/x'},"
			  "{'type':'ipc','path':'/proc/42/ns/ipc'},{'type':'user'}],"
			  "'uidMappings':[{'containerID':0,'hostID':1000,'size':10}],"
			  "'gidMappings':[{'containerID':1,'size':2}],"
			  "'maskedPaths':['/proc/kcore'],'readonlyPaths':['/proc/sys'],"
			  "'sysctl':{'net.ipv4.ip_forward':'1','kernel.shmmax':'7'},"
			  "'devices':[{'path':'/dev/fuse','type':'c','major':10,'minor':229,"
			  "'fileMode':8624,'uid':1,'gid':2},{'path':'/p','type':'p'}]}}"),
		0);
	ck_assert_str_eq(records(), ROOT
			 "|readonly=1|propagation=540672|hostname=h|domainname=d|ns=mount|ns=uts|"
			 "ns=ipc:pause|ns=user|uidmap=0 1000 10|gidmap=1 0 2|device=/dev/fuse|"
			 "device.type=c|device.major=10|device.minor=229|device.mode=660|"
			 "device.uid=1|device.gid=2|device=/p|device.type=p|device.major=0|"
			 "device.minor=0|device.mode=666|device.uid=0|device.gid=0|"
			 "masked=/proc/kcore|ro_path=/proc/sys|sysctl=net.ipv4.ip_forward=1|"
			 "sysctl=kernel.shmmax=7");
	ck_assert_uint_eq(MS_SLAVE | MS_REC, 540672);
}
END_TEST

START_TEST(mounts)
{
	ck_assert_int_eq(
		container("{'mounts':[{'destination':'/proc','type':'proc','source':'proc'},"
			  "{'destination':'d','type':'none','source':'/x','options':['rbind','ro',"
			  "'nosuid','rslave','dev']},"
			  "{'destination':'/sys/fs/cgroup','type':'cgroup','source':'cgroup',"
			  "'options':['nosuid','ro','memory']},"
			  "{'destination':'/t','type':'tmpfs','options':['ro','rw','size=1k',"
			  "'noexec','mode=755','tmpcopyup']}]}"),
		0);
	ck_assert_str_eq(
		records(),
		ROOT "|mount=/proc|mount.type=proc|mount.source=proc|mount.flags=0|"
		     "mount=/d|mount.type=bind|mount.source=" CT_SHARE
		     "/c/m/1|mount.flags=20483|mount.clear=4|mount.prop=540672|"
		     "mount=/sys/fs/cgroup|mount.type=cgroup2|mount.source=cgroup2|mount.flags=3|"
		     "mount=/t|mount.type=tmpfs|mount.source=tmpfs|mount.flags=8|mount.clear=1|"
		     "mount.data=size=1k,mode=755|mount.copyup=1");
}
END_TEST

START_TEST(rules_of_devices)
{
	ck_assert_int_eq(container("{'linux':{'resources':{'devices':[{'allow':false},{'allow':"
				   "true,'type':'c','major':10,'minor':-1,'access':'rm'}]}}}"),
			 0);
	ck_assert_str_eq(records(), ROOT "|devrule=deny a -1 -1 rwm|devrule=allow c 10 -1 rm");
}
END_TEST

START_TEST(hooks)
{
	ck_assert_int_eq(
		container("{'hooks':{'prestart':[{'path':'/no'}],'startContainer':[{'path':'/h',"
			  "'args':['h','x'],'env':['A=b'],'timeout':3},{'path':'/"
			  "i','timeout':1000000}]}}"),
		0);
	ck_assert_str_eq(records(),
			 ROOT "|hook=/h|hook.arg=h|hook.arg=x|hook.env=A=b|hook.input={}|"
			      "hook.timeout=3|hook=/i|hook.input={}|hook.timeout=1000000");
}
END_TEST

START_TEST(resources_of_the_guest)
{
	ck_assert_int_eq(
		container("{'linux':{'resources':{'memory':{'limit':1048576,'swap':2097152,"
			  "'reservation':4096},'cpu':{'shares':1024,'quota':50000,"
			  "'cpus':'0-1'},'pids':{'limit':9},'blockIO':{'weight':100},"
			  "'unified':{'memory.high':'7','io.max':'8:0 rbps=1'}}}}"),
		0);
	ck_assert_str_eq(records(), ROOT "|cgroup=memory.max=1048576|"
					 "cgroup=memory.swap.max=1048576|cgroup=memory.low=4096|"
					 "cgroup=cpu.weight=39|cgroup=cpu.max=50000 100000|"
					 "cgroup=pids.max=9|cgroup=memory.high=7");
}
END_TEST

static const struct {
	const char *json, *text;
} bad_container[] = {
	{"{'linux':{'namespaces':[{'type':'time'}]}}",
	 "linux.namespaces[0].type: \"time\"; expected mount, pid, uts, ipc, cgroup, user or "
	 "network"},
	{"{'linux':{'namespaces':[{'type':'pid'},{'type':'pid'}]}}",
	 "linux.namespaces[1].type: \"pid\"; expected each type once"},
	{"{'linux':{'namespaces':[{'type':'pid','path':'/proc/1/ns/pid'}]}}",
	 "linux.namespaces[0].path: /proc/1/ns/pid; expected a namespace of a container of this "
	 "VM"},
	{"{'linux':{'namespaces':['pid']}}", "linux.namespaces[0]: \"pid\"; expected an object"},
	{"{'linux':{'namespaces':[{'type':'user'}],'uidMappings':[{'hostID':1}]}}",
	 "linux.uidMappings[0].size: nothing; expected how many ids"},
	{"{'linux':{'rootfsPropagation':'up'}}",
	 "linux.rootfsPropagation: \"up\"; expected shared, slave, private, unbindable or one with "
	 "an r"},
	{"{'linux':{'sysctl':{'net..x':'1'}}}",
	 "linux.sysctl: 'net..x'; expected a name such as net.ipv4.ip_forward"},
	{"{'linux':{'sysctl':{'../../x':'1'}}}",
	 "linux.sysctl: '../../x'; expected a name such as net.ipv4.ip_forward"},
	{"{'linux':{'sysctl':{'a=b':'1'}}}",
	 "linux.sysctl: 'a=b'; expected a name such as net.ipv4.ip_forward"},
	{"{'linux':{'sysctl':{'net.x':1}}}", "linux.sysctl.net.x: 1; expected a string"},
	{"{'linux':{'sysctl':{'net.x':null}}}", "linux.sysctl.net.x: nothing; expected a string"},
	{"{'linux':{'devices':[{'path':'dev/x','type':'c'}]}}",
	 "linux.devices[0].path: \"dev/x\"; expected an absolute path"},
	{"{'linux':{'devices':[{'path':'/x','type':'d'}]}}",
	 "linux.devices[0].type: \"d\"; expected b, c, u or p"},
	{"{'linux':{'devices':[{'path':'/x','type':'c','major':1}]}}",
	 "linux.devices[0].minor: nothing; expected a device's number"},
	{"{'linux':{'devices':[{'path':'/x','type':'c','major':4096,'minor':0}]}}",
	 "linux.devices[0].major: 4096; expected a whole number from 0 to 4095"},
	{"{'linux':{'resources':{'devices':[{'allow':true,'access':'x'}]}}}",
	 "linux.resources.devices[0].access: \"x\"; expected letters of rwm"},
	{"{'linux':{'maskedPaths':['proc/kcore']}}",
	 "linux.maskedPaths[0]: \"proc/kcore\"; expected an absolute path"},
	{"{'linux':{'personality':{'domain':'LINUX32'}}}",
	 "linux.personality.domain: \"LINUX32\"; expected LINUX"},
	{"{'linux':{'timeOffsets':{}}}",
	 "linux.timeOffsets: a container has no clock of its own here"},
	{"{'mounts':[{'type':'tmpfs'}]}", "mounts[0].destination: nothing; expected a path"},
	{"{'mounts':[{'destination':'/x','type':'ext4','source':'/dev/sda'}]}",
	 "mounts[0].type: \"ext4\"; expected bind, overlay or a file system of the kernel's own "
	 "such as tmpfs"},
	{"{'mounts':[{'destination':'/x','type':'bind','source':'/y'}]}",
	 "mounts[0].source: \"/y\"; expected a source that the VM was given"},
	{"{'mounts':[{'destination':'/x','type':'tmpfs','options':['idmap']}]}",
	 "mounts[0].options: idmap: a mount with mapped ids is not possible in a VM"},
	{"{'hooks':{'startContainer':[{'path':'h'}]}}",
	 "hooks.startContainer[0].path: \"h\"; expected an absolute path"},
	{"{'linux':{'resources':{'memory':{'limit':'1G'}}}}",
	 "linux.resources.memory.limit: \"1G\"; expected a whole number from -1 to "
	 "9223372036854775807"},
};

START_TEST(a_bad_container)
{
	ck_assert_int_lt(container(bad_container[_i].json), 0);
	ck_assert_str_eq(e.text, bad_container[_i].text);
}
END_TEST

START_TEST(sysctls_of_the_machine)
{
	static const char text[] = "{'hostname':'pod','linux':{'sysctl':{'net.ipv4.ip_forward':'1',"
				   "'kernel.sem':'1 2','fs.mqueue.msg_max':'9','vm.x':'2'}}}";
	struct record_container c = {.id = "c", .bundle = &b, .machine = true};

	bundle_from(&b, text);
	ck_assert_int_eq(record_machine(&b, &r, &e), 0);
	ck_assert_str_eq(records(), "hostname=pod|sysctl=net.ipv4.ip_forward=1|sysctl=vm.x=2");
	rec_free(&r);
	rec_init(&r);
	ck_assert_int_eq(record_container(&c, &r, &e), 0);
	ck_assert_str_eq(records(), ROOT "|sysctl=kernel.sem=1 2|"
					 "sysctl=fs.mqueue.msg_max=9");
}
END_TEST

/* ---- options of mounts ---- */

static const struct {
	const char *type, *options;
	unsigned long flags, clear, prop;
	const char *data;
} options[] = {
	{"tmpfs", "[]", 0, 0, 0, NULL},
	{"bind", "[]", MS_BIND, 0, 0, NULL},
	{"", "['rbind']", MS_BIND | MS_REC, 0, 0, NULL},
	{"", "['ro','rw']", 0, MS_RDONLY, 0, NULL},
	{"", "['rw','ro']", MS_RDONLY, 0, 0, NULL},
	{"", "['nosuid','nodev','noexec']", MS_NOSUID | MS_NODEV | MS_NOEXEC, 0, 0, NULL},
	{"", "['suid','dev','exec']", 0, MS_NOSUID | MS_NODEV | MS_NOEXEC, 0, NULL},
	{"", "['noatime','relatime']", MS_RELATIME, MS_NOATIME | MS_STRICTATIME, 0, NULL},
	{"", "['sync','dirsync','lazytime','silent']",
	 MS_SYNCHRONOUS | MS_DIRSYNC | MS_LAZYTIME | MS_SILENT, 0, 0, NULL},
	{"", "['private','rshared']", 0, 0, MS_SHARED | MS_REC, NULL},
	{"", "['size=1','','mode=7']", 0, 0, 0, "size=1,mode=7"},
	{"", "['rro','rnosuid']", MS_RDONLY | MS_NOSUID, 0, 0, NULL},
	{"", "['nosymfollow']", 256, 0, 0, NULL},
	{"", "['defaults']", 0, 0, 0, NULL},
};

START_TEST(options_of_a_mount)
{
	json_object *list = json(options[_i].options);
	struct mountopt o;

	ck_assert_int_eq(mountopt_parse(&o, list, options[_i].type, "mounts[0]", &e), 0);
	ck_assert_uint_eq(o.flags, options[_i].flags);
	ck_assert_uint_eq(o.clear, options[_i].clear);
	ck_assert_uint_eq(o.prop, options[_i].prop);
	if (options[_i].data)
		ck_assert_str_eq(o.data, options[_i].data);
	else
		ck_assert_ptr_null(o.data);
	mountopt_free(&o);
	json_object_put(list);
}
END_TEST

START_TEST(too_many_records)
{
	char *text = malloc(1u << 20);
	char dir[] = "/tmp/insula-test-rec-XXXXXX";
	int at;

	memset(text, 'x', (1u << 20) - 1);
	text[(1u << 20) - 1] = 0;
	for (int i = 0; i < 4; i++)
		rec_add(&r, "arg", text);
	ck_assert_int_eq(r.error, -E2BIG);
	ck_assert_ptr_nonnull(mkdtemp(dir));
	at = open(dir, O_DIRECTORY | O_CLOEXEC);
	ck_assert_int_eq(rec_write(&r, at, "config", &e), -E2BIG);
	ck_assert_int_eq(faccessat(at, "config", F_OK, 0), -1);
	rec_free(&r);
	rec_init(&r);
	ck_assert_int_eq(rec_write(&r, at, "config", &e), 0);
	ck_assert_int_eq(rec_write(&r, at, "config", &e), -EEXIST);
	unlinkat(at, "config", 0);
	close(at);
	rmdir(dir);
	free(text);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("oci_record");
	TCase *t = tcase_create("records");
	SRunner *run = srunner_create(s);
	int bad;

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, a_process);
	tcase_add_loop_test(t, a_bad_process, 0, ARRAY_LEN(bad_process));
	tcase_add_test(t, a_filter_of_a_process);
	tcase_add_test(t, a_container);
	tcase_add_test(t, mounts);
	tcase_add_test(t, rules_of_devices);
	tcase_add_test(t, hooks);
	tcase_add_test(t, resources_of_the_guest);
	tcase_add_loop_test(t, a_bad_container, 0, ARRAY_LEN(bad_container));
	tcase_add_test(t, sysctls_of_the_machine);
	tcase_add_loop_test(t, options_of_a_mount, 0, ARRAY_LEN(options));
	tcase_add_test(t, too_many_records);
	suite_add_tcase(s, t);
	srunner_run_all(run, CK_ENV);
	bad = srunner_ntests_failed(run);
	srunner_free(run);
	return bad != 0;
}
