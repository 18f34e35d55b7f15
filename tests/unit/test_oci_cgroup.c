/* SPDX-License-Identifier: BSD-2-Clause */
/* Resources as lines of cgroup v2, names of groups of both drivers; and, on a cgroup2 mount in a
 * mount namespace of the test's own, groups that are made, entered, frozen, killed and removed. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <insula/base.h>

#include "oci/cgline.h"
#include "oci/cgroup.h"
#include "oci/cgsystemd.h"
#include "spec/json.h"

#include "ocijson.h"

#define ROOT "/sys/fs/cgroup"

static struct err e;
static struct cglines l;

static int lines(const char *text, enum cgline_side side, uint64_t overhead)
{
	json_object *o = json(text);
	int rc = cgline_make(o, side, &l, &e);

	json_object_put(o);
	if (!rc && overhead)
		cgline_vm(&l, overhead);
	return rc;
}

static const char *joined(void)
{
	static char out[8192];

	out[0] = 0;
	for (unsigned i = 0; i < l.n; i++)
		sprintf(out + strlen(out), "%s%s=%s", i ? "|" : "", l.line[i].file,
			l.line[i].value);
	return out;
}

static const struct {
	const char *json;
	enum cgline_side side;
	uint64_t overhead;
	const char *lines;
} good[] = {
	{"{}", CGLINE_HOST, 0, ""},
	{"{}", CGLINE_HOST, 1000, "memory.oom.group=1"},
	{"{'memory':{'limit':5000}}", CGLINE_HOST, 1000, "memory.oom.group=1|memory.max=6000"},
	{"{'memory':{'limit':-1}}", CGLINE_HOST, 1000, "memory.oom.group=1|memory.max=max"},
	{"{'memory':{'limit':0}}", CGLINE_HOST, 1000, "memory.oom.group=1"},
	{"{'memory':{'limit':5000},'unified':{'memory.max':'max'}}", CGLINE_HOST, 1000,
	 "memory.oom.group=1|memory.max=max"},
	{"{'memory':{'limit':-1},'unified':{'memory.max':'5000'}}", CGLINE_HOST, 1000,
	 "memory.oom.group=1|memory.max=6000"},
	{"{'memory':{'limit':9223372036854775807}}", CGLINE_HOST, 1000,
	 "memory.oom.group=1|memory.max=9223372036854776807"},
	{"{'memory':{'limit':-1,'swap':-1}}", CGLINE_GUEST, 0,
	 "memory.max=max|memory.swap.max=max"},
	{"{'memory':{'limit':10,'swap':10,'kernel':5,'swappiness':60}}", CGLINE_GUEST, 0,
	 "memory.max=10|memory.swap.max=0"},
	{"{'cpu':{'shares':2,'quota':-1,'period':0}}", CGLINE_HOST, 0,
	 "cpu.weight=1|cpu.max=max 100000"},
	{"{'cpu':{'shares':262144,'quota':20000,'period':10000,'burst':5,'idle':1,'cpus':'0-1,3',"
	 "'mems':'0'}}",
	 CGLINE_HOST, 0,
	 "cpu.weight=10000|cpu.max=20000 10000|cpu.max.burst=5|cpu.idle=1|cpuset.cpus=0-1,3|"
	 "cpuset.mems=0"},
	{"{'cpu':{'shares':1024,'cpus':'7'}}", CGLINE_GUEST, 0, "cpu.weight=39"},
	{"{'pids':{'limit':10}}", CGLINE_HOST, 0, ""},
	{"{'pids':{'limit':-1}}", CGLINE_GUEST, 0, "pids.max=max"},
	{"{'blockIO':{'weight':10,'weightDevice':[{'major':8,'minor':16,'weight':1000}],"
	 "'throttleReadBpsDevice':[{'major':8,'minor':0,'rate':1048576}],"
	 "'throttleWriteIOPSDevice':[{'major':8,'minor':0,'rate':18446744073709551615}]}}",
	 CGLINE_HOST, 0,
	 "io.weight=default 1|io.weight=8:16 10000|io.max=8:0 rbps=1048576|"
	 "io.max=8:0 wiops=18446744073709551615"},
	{"{'blockIO':{'throttleReadBpsDevice':[{'major':8,'minor':0,'rate':7},"
	 "{'major':8,'minor':16}]}}",
	 CGLINE_HOST, 0, "io.max=8:0 rbps=7|io.max=8:16 rbps=max"},
	{"{'hugepageLimits':[{'pageSize':'2MB','limit':4194304}]}", CGLINE_HOST, 0,
	 "hugetlb.2MB.max=4194304"},
	{"{'unified':{'memory.max':'5000','cpu.weight':'7','io.max':'8:0 rbps=1'}}", CGLINE_HOST, 1,
	 "memory.oom.group=1|memory.max=5001|cpu.weight=7|io.max=8:0 rbps=1"},
	{"{'unified':{'memory.max':'5000','cpu.weight':'7','io.max':'8:0 rbps=1'}}", CGLINE_GUEST,
	 0, "memory.max=5000|cpu.weight=7"},
	{"{'network':{'classID':1},'rdma':{},'devices':[{'allow':false}]}", CGLINE_HOST, 0, ""},
};

START_TEST(a_line)
{
	ck_assert_msg(!lines(good[_i].json, good[_i].side, good[_i].overhead), "%s", e.text);
	ck_assert_str_eq(joined(), good[_i].lines);
}
END_TEST

static const struct {
	const char *json, *text;
} bad[] = {
	{"{'memory':{'limit':-2}}",
	 "linux.resources.memory.limit: -2; expected a whole number from "
	 "-1 to 9223372036854775807"},
	{"{'memory':{'limit':10,'swap':9}}",
	 "linux.resources.memory.swap: 9; expected memory and swap together: at least the limit"},
	{"{'memory':{'swap':9}}",
	 "linux.resources.memory.swap: 9; expected memory and swap together: at least the limit"},
	{"{'cpu':{'period':1000001}}",
	 "linux.resources.cpu.period: 1000001; expected a whole number from 0 to 1000000"},
	{"{'cpu':{'cpus':'all'}}",
	 "linux.resources.cpu.cpus: \"all\"; expected numbers such as 0-3,7"},
	{"{'blockIO':{'weight':9}}", "linux.resources.blockIO.weight: 9; expected 10 to 1000"},
	{"{'blockIO':{'throttleReadBpsDevice':[{'rate':1}]}}",
	 "linux.resources.blockIO.throttleReadBpsDevice[0].major: nothing; expected a device's "
	 "number"},
	{"{'blockIO':{'weightDevice':[{'major':8,'weight':10}]}}",
	 "linux.resources.blockIO.weightDevice[0].minor: nothing; expected a device's number"},
	{"{'hugepageLimits':[{'pageSize':'../x'}]}",
	 "linux.resources.hugepageLimits[0].pageSize: \"../x\"; expected a size such as 2MB"},
	{"{'unified':{'../cgroup.procs':'1'}}",
	 "linux.resources.unified: '../cgroup.procs'; expected a file of cpu, cpuset, hugetlb, io, "
	 "memory or pids"},
	{"{'unified':{'cgroup.kill':'1'}}",
	 "linux.resources.unified: 'cgroup.kill'; expected a file of cpu, cpuset, hugetlb, io, "
	 "memory or pids"},
	{"{'unified':{'memory.max':1}}",
	 "linux.resources.unified.memory.max: 1; expected a string"},
};

START_TEST(a_bad_line)
{
	int rc = lines(bad[_i].json, CGLINE_HOST, 0);

	if (!rc)
		rc = lines(bad[_i].json, CGLINE_GUEST, 0);
	ck_assert_int_eq(rc, -EINVAL);
	ck_assert_str_eq(e.text, bad[_i].text);
}
END_TEST

/* As many as there may be, and those of the VM beside them. */
START_TEST(many_lines)
{
	char text[16384] = "{'memory':{'limit':5000},'blockIO':{'throttleReadBpsDevice':[";

	for (unsigned i = 0; i <= CGLINE_MAX; i++) {
		if (i == CGLINE_MAX) {
			strcpy(text + strlen(text), "]}}");
			ck_assert_int_eq(lines(text, CGLINE_HOST, 1000), 0);
			ck_assert_uint_eq(l.n, CGLINE_MAX + CGLINE_VM);
			ck_assert_str_eq(l.line[1].value, "6000");
			ck_assert_str_eq(l.line[l.n - 1].value, "8:95 rbps=1");
			text[strlen(text) - 3] = 0;
		}
		sprintf(text + strlen(text), "%s{'major':8,'minor':%u,'rate':1}", i ? "," : "", i);
	}
	strcpy(text + strlen(text), "]}}");
	ck_assert_int_eq(lines(text, CGLINE_HOST, 1000), -E2BIG);
}
END_TEST

/* ---- names ---- */

static const struct {
	const char *path, *unit, *group; /* group NULL: refused */
} scopes[] = {
	{NULL, "insula-c1.scope", ROOT "/system.slice/insula-c1.scope"},
	{"machine.slice:libpod:abc", "libpod-abc.scope", ROOT "/machine.slice/libpod-abc.scope"},
	{"a-b-c.slice:p:n", "p-n.scope", ROOT "/a.slice/a-b.slice/a-b-c.slice/p-n.scope"},
	{":p:n", "p-n.scope", ROOT "/system.slice/p-n.scope"},
	{"-.slice:p:n", "p-n.scope", ROOT "/p-n.scope"},
	{"/a/b", NULL, NULL},
	{"a.slice:b", NULL, NULL},
	{"a.slice:b:c:d", NULL, NULL},
	{"a--b.slice:p:n", NULL, NULL},
	{"../x.slice:p:n", NULL, NULL},
	{"a.slice:p:", NULL, NULL},
	{"a.slice:p:../n", NULL, NULL},
};

START_TEST(a_scope)
{
	char unit[CGROUP_UNIT_MAX], path[PATH_MAX];
	int rc = cgsystemd_name(scopes[_i].path, "c1", unit, sizeof(unit), path, sizeof(path), &e);

	if (!scopes[_i].group) {
		ck_assert_int_eq(rc, -EINVAL);
		return;
	}
	ck_assert_int_eq(rc, 0);
	ck_assert_str_eq(unit, scopes[_i].unit);
	ck_assert_str_eq(path, scopes[_i].group);
}
END_TEST

/* ---- for real ---- */

/* False: this kernel has none for us (as a container's has not). tests/lab/65-oci-host.sh runs this
 * where it must have. */
static bool or_else(bool there)
{
	ck_assert_msg(there || !getenv("INSULA_TEST_ALL"), "no control groups of version 2");
	return there;
}

static bool own_cgroup2(void)
{
	/* EBUSY: it is there already. */
	return or_else(!geteuid() && !unshare(CLONE_NEWNS) &&
		       !mount(NULL, "/", NULL, MS_PRIVATE | MS_REC, NULL) &&
		       (!mount("cgroup2", ROOT, "cgroup2", 0, NULL) || errno == EBUSY));
}

static pid_t sleeper(void)
{
	pid_t child = fork();

	if (!child) {
		for (;;)
			pause();
	}
	return child;
}

static bool is_dead_by_kill(pid_t child)
{
	int status;

	return waitpid(child, &status, 0) == child && WIFSIGNALED(status) &&
	       WTERMSIG(status) == SIGKILL;
}

START_TEST(a_group)
{
	struct cgroup g, again;
	char path[64], below[PATH_MAX + 16];
	pid_t child, pids[4];
	json_object *o;

	if (!own_cgroup2())
		return;
	snprintf(path, sizeof(path), "/insula-test-%d/c", (int)getpid());
	ck_assert_int_eq(cgroup_name(&g, "a/../b", false, "id", &e), -EINVAL);
	ck_assert_str_eq(e.text, "linux.cgroupsPath: a/../b; expected a path without . and ..");
	ck_assert_int_eq(cgroup_name(&g, NULL, false, "id", &e), 0);
	ck_assert_str_eq(g.path, ROOT "/insula-oci/id");
	ck_assert_int_eq(cgroup_name(&g, path, false, "id", &e), 0);
	child = sleeper();
	/* Made before us, and empty: as engines do. */
	snprintf(below, sizeof(below), "%s", g.path);
	*strrchr(below, '/') = 0;
	ck_assert_int_eq(mkdir(below, 0755) | mkdir(g.path, 0755), 0);
	ck_assert_int_eq(container_group_check(&g, &e), 0);
	ck_assert_msg(!container_group_make(&g, child, NULL, 0, &e), "%s", e.text);
	ck_assert(g.made);
	ck_assert_int_eq(cgroup_pids(&g, pids, 4, &e), 1);
	ck_assert_int_eq(pids[0], child);
	/* There are processes of somebody's in it: no other container's. */
	again = g;
	ck_assert_int_eq(container_group_check(&again, &e), -EBUSY);
	ck_assert_int_eq(container_group_make(&again, getpid(), NULL, 0, &e), -EBUSY);
	ck_assert_ptr_nonnull(strstr(e.text, "there are processes in it; expected a new"));
	ck_assert(!again.made);
	ck_assert_int_eq(container_group_remove(&again, &e), 0);
	ck_assert_int_eq(cgroup_pids(&g, pids, 4, &e), 1);
	ck_assert_int_eq(container_group_freeze(&g, true, &e), 0);
	ck_assert_int_eq(container_group_freeze(&g, false, &e), 0);
	o = cgroup_stats(&g);
	ck_assert_int_ge(j_get_int(j_get(j_get(o, "cpu"), "usage"), "total", -1), 0);
	json_object_put(o);
	/* A group below it, as a helper may make one, with a process. */
	snprintf(below, sizeof(below), "%s/below", g.path);
	ck_assert_int_eq(mkdir(below, 0755), 0);
	again = g;
	strcat(again.path, "/below");
	pids[1] = sleeper();
	ck_assert_int_eq(container_group_enter(&again, pids[1], &e), 0);
	ck_assert_int_eq(cgroup_pids(&g, pids + 2, 2, &e), 2);
	/* Frozen processes die, too. */
	ck_assert_int_eq(container_group_freeze(&g, true, &e), 0);
	ck_assert_msg(!container_group_remove(&g, &e), "%s", e.text);
	ck_assert(is_dead_by_kill(child) && is_dead_by_kill(pids[1]));
	ck_assert_int_eq(access(g.path, F_OK), -1);
	ck_assert_int_eq(container_group_remove(&g, &e), 0);
	*strrchr(g.path, '/') = 0;
	ck_assert_int_eq(rmdir(g.path), 0);
}
END_TEST

/* systemd takes a scope away as soon as nobody is in it. */
START_TEST(a_group_that_somebody_removes)
{
	struct cgroup g;
	char path[64];
	pid_t child, other;

	if (!own_cgroup2())
		return;
	for (int i = 0; i < 5; i++) {
		snprintf(path, sizeof(path), "/insula-test-%d", (int)getpid());
		ck_assert_int_eq(cgroup_name(&g, path, false, "id", &e), 0);
		child = sleeper();
		ck_assert_msg(!container_group_make(&g, child, NULL, 0, &e), "%s", e.text);
		other = fork();
		if (!other) {
			while (rmdir(g.path) && errno == EBUSY)
				;
			_exit(0);
		}
		ck_assert_msg(!container_group_remove(&g, &e), "%s", e.text);
		ck_assert(is_dead_by_kill(child));
		ck_assert_int_eq(waitpid(other, NULL, 0), other);
		ck_assert_int_eq(access(g.path, F_OK), -1);
	}
}
END_TEST

static bool read_line(const struct cgroup *g, const char *file, const char *want)
{
	char path[PATH_MAX + 32], text[64] = "";
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", g->path, file);
	f = fopen(path, "re");
	if (f && fgets(text, sizeof(text), f))
		text[strcspn(text, "\n")] = 0;
	if (f)
		fclose(f);
	return !strcmp(text, want);
}

START_TEST(limits)
{
	json_object *o;
	struct cgroup g;
	char path[64];
	pid_t child;
	FILE *f;
	char have[256] = "";

	if (!own_cgroup2())
		return;
	f = fopen(ROOT "/cgroup.controllers", "re");
	/* Where version 1 has them, they are not here. */
	if (!or_else(f && fgets(have, sizeof(have), f) && strstr(have, "memory") &&
		     strstr(have, "cpu")))
		return;
	fclose(f);
	snprintf(path, sizeof(path), "insula-test-limits-%d", (int)getpid());
	ck_assert_int_eq(cgroup_name(&g, path, false, "id", &e), 0);
	child = sleeper();
	o = json("{'memory':{'limit':67108864},'cpu':{'quota':50000,'shares':512}}");
	ck_assert_msg(!container_group_make(&g, child, o, 4096, &e), "%s", e.text);
	ck_assert(read_line(&g, "memory.max", "67112960"));
	ck_assert(read_line(&g, "memory.oom.group", "1"));
	ck_assert(read_line(&g, "cpu.max", "50000 100000"));
	ck_assert(read_line(&g, "cpu.weight", "20"));
	json_object_put(o);
	o = json("{'memory':{'limit':134217728}}");
	ck_assert_int_eq(cgroup_update(&g, o, 4096, &e), 0);
	ck_assert(read_line(&g, "memory.max", "134221824"));
	ck_assert(read_line(&g, "cpu.max", "50000 100000"));
	json_object_put(o);
	ck_assert_int_eq(container_group_remove(&g, &e), 0);
	ck_assert(is_dead_by_kill(child));
	/* A limit that the kernel does not take: nothing is left. */
	child = sleeper();
	o = json("{'cpu':{'quota':1,'period':1}}");
	ck_assert_int_lt(container_group_make(&g, child, o, 4096, &e), 0);
	ck_assert_ptr_nonnull(strstr(e.text, "cpu.max: 1 1: Invalid argument"));
	ck_assert_int_eq(access(g.path, F_OK), -1);
	json_object_put(o);
	kill(child, SIGKILL);
	ck_assert(is_dead_by_kill(child));
}
END_TEST

static bool shown(const struct cgroup *g, const char *property, const char *want)
{
	char cmd[200], got[64] = "";
	FILE *f;

	snprintf(cmd, sizeof(cmd), "systemctl show -p %s --value %.100s", property, g->unit);
	f = popen(cmd, "r");
	if (!f)
		return false;
	if (fgets(got, sizeof(got), f))
		got[strcspn(got, "\n")] = 0;
	pclose(f);
	if (strcmp(got, want) != 0)
		printf("# %s is %s, not %s\n", property, got, want);
	return !strcmp(got, want);
}

/* tests/lab/65-oci-host.sh runs this under a systemd. */
START_TEST(a_scope_of_systemd)
{
	char line[PATH_MAX] = "", name[96];
	json_object *o;
	struct cgroup g, again;
	pid_t child;
	FILE *f;

	if (!getenv("INSULA_TEST_SYSTEMD"))
		return;
	snprintf(name, sizeof(name), "insula-test.slice:t:n%d", (int)getpid());
	ck_assert_int_eq(cgroup_name(&g, name, true, "id", &e), 0);
	child = sleeper();
	o = json("{'memory':{'limit':67108864},'cpu':{'quota':50000}}");
	ck_assert_msg(!container_group_make(&g, child, o, 4096, &e), "%s", e.text);
	json_object_put(o);
	snprintf(name, sizeof(name), "/proc/%d/cgroup", (int)child);
	f = fopen(name, "re");
	ck_assert(f && fgets(line, sizeof(line), f));
	fclose(f);
	snprintf(name, sizeof(name), "0::/insula.slice/insula-test.slice/t-n%d.scope\n",
		 (int)getpid());
	ck_assert_str_eq(line, name);
	ck_assert_int_eq(strncmp(g.path, ROOT "/insula.slice/", 27), 0);
	ck_assert(read_line(&g, "memory.max", "67112960"));
	ck_assert(read_line(&g, "cpu.max", "50000 100000"));
	/* systemd knows them, too, or it would lift them some day. */
	ck_assert_int_eq(system("systemctl daemon-reload"), 0);
	ck_assert(shown(&g, "MemoryMax", "67112960"));
	ck_assert(shown(&g, "CPUQuotaPerSecUSec", "500ms"));
	o = json("{'cpu':{'quota':-1,'period':50000,'shares':2048}}");
	ck_assert_msg(!cgroup_update(&g, o, 4096, &e), "%s", e.text);
	json_object_put(o);
	ck_assert(shown(&g, "CPUQuotaPerSecUSec", "infinity"));
	ck_assert(shown(&g, "CPUWeight", "79"));
	ck_assert(shown(&g, "MemoryMax", "67112960"));
	ck_assert(read_line(&g, "cpu.max", "max 50000"));
	/* The same name again: nothing changes, and it is not the second one's. */
	again = g;
	ck_assert_int_eq(container_group_check(&again, &e), -EBUSY);
	ck_assert_int_lt(container_group_make(&again, getpid(), NULL, 0, &e), 0);
	ck_assert_ptr_nonnull(strstr(e.text, "--systemd-cgroup: t-n"));
	ck_assert(!again.made);
	ck_assert_int_eq(cgroup_pids(&g, &(pid_t){0}, 1, &e), 1);
	ck_assert_msg(!container_group_remove(&g, &e), "%s", e.text);
	ck_assert(is_dead_by_kill(child));
	for (int i = 0; i < 200 && !access(g.path, F_OK); i++)
		usleep(10000);
	ck_assert_int_eq(access(g.path, F_OK), -1);
	ck_assert_int_eq(container_group_remove(&g, &e), 0);
}
END_TEST

START_TEST(a_host_of_version_1)
{
	struct cgroup g;

	if (geteuid() || unshare(CLONE_NEWNS) ||
	    mount(NULL, "/", NULL, MS_PRIVATE | MS_REC, NULL) || mount("t", ROOT, "tmpfs", 0, NULL))
		return;
	ck_assert_int_eq(cgroup_name(&g, "/x", false, "id", &e), -ENOTSUP);
	ck_assert_str_eq(e.text, ROOT ": version 1, or both versions; expected control groups of "
				      "version 2 alone (systemd.unified_cgroup_hierarchy=1 on the "
				      "kernel's command line)");
}
END_TEST

int main(void)
{
	Suite *s = suite_create("oci_cgroup");
	TCase *t = tcase_create("all");
	SRunner *run = srunner_create(s);
	int failed;

	tcase_add_loop_test(t, a_line, 0, ARRAY_LEN(good));
	tcase_add_loop_test(t, a_bad_line, 0, ARRAY_LEN(bad));
	tcase_add_test(t, many_lines);
	tcase_add_loop_test(t, a_scope, 0, ARRAY_LEN(scopes));
	tcase_add_test(t, a_group);
	tcase_add_test(t, a_group_that_somebody_removes);
	tcase_add_test(t, limits);
	tcase_add_test(t, a_scope_of_systemd);
	tcase_add_test(t, a_host_of_version_1);
	suite_add_tcase(s, t);
	srunner_run_all(run, CK_ENV);
	failed = srunner_ntests_failed(run);
	srunner_free(run);
	return failed != 0;
}
