/* SPDX-License-Identifier: BSD-2-Clause */
/* linux.seccomp -> filters, which children load and run under; what is refused. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <seccomp.h>

#include <linux/filter.h>
#include <linux/seccomp.h>

#include <insula/base.h>

#include "oci/seccomp.h"
#include "spec/json.h"

#include "ocijson.h"

static struct err e;
static struct sock_filter *insn;
static size_t n;
static unsigned flags;

static int build(const char *text)
{
	json_object *o = json(text);
	int rc = seccomp_build(o, &insn, &n, &flags, &e);

	json_object_put(o);
	return rc;
}

/* Under the filter: the errno of a system call, 0, or -signal. */
static int under_filter(long nr, long a, long b, long c)
{
	struct sock_fprog p = {.len = (unsigned short)n, .filter = insn};
	pid_t child = fork();
	int status;

	if (!child) {
		if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
		    syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &p))
			_exit(200);
		errno = 0;
		syscall(nr, a, b, c);
		/* A sanitizer's _exit() does more than the filters allow. */
		syscall(SYS_exit_group, errno);
	}
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

START_TEST(a_list_of_what_is_allowed)
{
	ck_assert_int_eq(
		build("{'defaultAction':'SCMP_ACT_ERRNO','defaultErrnoRet':38,"
		      "'architectures':['SCMP_ARCH_X86_64','SCMP_ARCH_X86','SCMP_ARCH_AARCH64'],"
		      "'flags':['SECCOMP_FILTER_FLAG_LOG'],'syscalls':[{'names':['exit_group',"
		      "'a_call_of_tomorrow','getpid'],'action':'SCMP_ACT_ALLOW'},"
		      "{'names':['getuid'],'action':'SCMP_ACT_ERRNO','errnoRet':7},"
		      "{'names':['getgid'],'action':'SCMP_ACT_KILL_PROCESS'}]}"),
		0);
	ck_assert_uint_eq(flags, SECCOMP_FILTER_FLAG_LOG);
	ck_assert_int_eq(under_filter(SYS_getpid, 0, 0, 0), 0);
	ck_assert_int_eq(under_filter(SYS_getppid, 0, 0, 0), ENOSYS);
	ck_assert_int_eq(under_filter(SYS_getuid, 0, 0, 0), 7);
	ck_assert_int_eq(under_filter(SYS_getgid, 0, 0, 0), -SIGSYS);
	free(insn);
}
END_TEST

START_TEST(a_system_call_of_tomorrow_does_not_exist)
{
	ck_assert_int_eq(build("{'defaultAction':'SCMP_ACT_ERRNO','syscalls':[{'names':["
			       "'exit_group'],'action':'SCMP_ACT_ALLOW'}]}"),
			 0);
	ck_assert_int_eq(under_filter(SYS_getppid, 0, 0, 0), EPERM);
	ck_assert_int_eq(under_filter(SYS_exit_group + 1, 0, 0, 0), ENOSYS);
	/* As x32 it is another architecture's: as the profile has it, which lacks that. */
	ck_assert_int_ne(under_filter(0x40000000 | SYS_getppid, 0, 0, 0), 0);
	free(insn);
}
END_TEST

START_TEST(arguments)
{
	ck_assert_int_eq(
		build("{'defaultAction':'SCMP_ACT_ALLOW','syscalls':[{'names':['socket'],'action':"
		      "'SCMP_ACT_ERRNO','errnoRet':99,'args':[{'index':0,'value':40,'op':"
		      "'SCMP_CMP_EQ'},{'index':1,'value':1,'op':'SCMP_CMP_EQ'}]},"
		      "{'names':['dup'],'action':'SCMP_ACT_ERRNO','args':[{'index':0,'value':1000,"
		      "'op':'SCMP_CMP_GE'},{'index':0,'value':3,'op':'SCMP_CMP_EQ'}]},"
		      "{'names':['umask'],'action':'SCMP_ACT_ERRNO','errnoRet':5,'args':[{'index':"
		      "0,'value':7,'valueTwo':2,'op':'SCMP_CMP_MASKED_EQ'}]}]}"),
		0);
	ck_assert_int_eq(under_filter(SYS_socket, 40, 1, 0), 99);
	ck_assert_int_ne(under_filter(SYS_socket, 40, 2, 0), 99);
	ck_assert_int_eq(under_filter(SYS_socket, AF_UNIX, SOCK_STREAM, 0), 0);
	/* Two comparisons of one argument: either will do. */
	ck_assert_int_eq(under_filter(SYS_dup, 1001, 0, 0), EPERM);
	ck_assert_int_eq(under_filter(SYS_dup, 3, 0, 0), EPERM);
	ck_assert_int_ne(under_filter(SYS_dup, 2, 0, 0), EPERM);
	ck_assert_int_eq(under_filter(SYS_umask, 022, 0, 0), 5);
	ck_assert_int_eq(under_filter(SYS_umask, 021, 0, 0), 0);
	free(insn);
}
END_TEST

/* As large as docker's: some 370 names, four with arguments, three architectures. */
START_TEST(a_profile_like_dockers)
{
	static const char *const denied[] = {"reboot", "kexec_load", "init_module",
					     "mount",  "setns",      "bpf",
					     "swapon", "umount2",    "settimeofday"};
	json_object *o = json("{'defaultAction':'SCMP_ACT_ERRNO','defaultErrnoRet':1,"
			      "'architectures':['SCMP_ARCH_X86_64','SCMP_ARCH_X86',"
			      "'SCMP_ARCH_X32'],'syscalls':[{'names':[],'action':"
			      "'SCMP_ACT_ALLOW'},{'names':['personality'],'action':"
			      "'SCMP_ACT_ALLOW','args':[{'index':0,'value':0,'op':"
			      "'SCMP_CMP_EQ'}]}]}");
	json_object *names = j_get(json_object_array_get_idx(j_get(o, "syscalls"), 0), "names");

	for (int i = 0; i < 335; i++) {
		char *name = seccomp_syscall_resolve_num_arch(SCMP_ARCH_X86_64, i);
		bool allow = name && strcmp(name, "personality") != 0;

		for (size_t k = 0; k < ARRAY_LEN(denied) && allow; k++)
			allow = strcmp(denied[k], name) != 0;
		if (allow)
			json_object_array_add(names, json_object_new_string(name));
		free(name);
	}
	ck_assert_int_eq(seccomp_build(o, &insn, &n, &flags, &e), 0);
	ck_assert_uint_le(n, CT_FILTER_MAX);
	ck_assert_int_eq(under_filter(SYS_getppid, 0, 0, 0), 0);
	ck_assert_int_eq(under_filter(SYS_mount, 0, 0, 0), EPERM);
	ck_assert_int_eq(under_filter(SYS_bpf, 0, 0, 0), EPERM);
	ck_assert_int_eq(under_filter(SYS_personality, 0, 0, 0), 0);
	ck_assert_int_eq(under_filter(SYS_personality, 8, 0, 0), EPERM);
	ck_assert_int_eq(under_filter(9999, 0, 0, 0), ENOSYS);
	free(insn);
	json_object_put(o);
}
END_TEST

static const struct {
	const char *json;
	int rc;
	const char *text;
} refused[] = {
	{"[]", -EINVAL, "linux.seccomp: []; expected an object"},
	{"{}", -EINVAL,
	 "linux.seccomp.defaultAction: nothing; expected an action such as SCMP_ACT_ERRNO"},
	{"{'defaultAction':'ALLOW'}", -EINVAL,
	 "linux.seccomp.defaultAction: \"ALLOW\"; expected an action such as SCMP_ACT_ERRNO"},
	{"{'defaultAction':'SCMP_ACT_ALLOW','defaultErrnoRet':1}", -EINVAL,
	 "linux.seccomp.defaultErrnoRet: 1; expected none, or action SCMP_ACT_ERRNO or "
	 "SCMP_ACT_TRACE"},
	{"{'defaultAction':'SCMP_ACT_ERRNO','defaultErrnoRet':4096}", -EINVAL,
	 "linux.seccomp.defaultErrnoRet: 4096; expected a whole number from 0 to 4095"},
	{"{'defaultAction':'SCMP_ACT_NOTIFY'}", -EOPNOTSUPP,
	 "linux.seccomp.defaultAction: SCMP_ACT_NOTIFY: a listener of the host cannot serve a "
	 "process of a VM"},
	{"{'defaultAction':'SCMP_ACT_ALLOW','listenerPath':'/x'}", -EOPNOTSUPP,
	 "linux.seccomp.listenerPath: a listener of the host cannot serve a process of a VM"},
	{"{'defaultAction':'SCMP_ACT_ALLOW','flags':['X']}", -EINVAL,
	 "linux.seccomp.flags[0]: X; expected SECCOMP_FILTER_FLAG_TSYNC, _LOG or _SPEC_ALLOW"},
	{"{'defaultAction':'SCMP_ACT_ALLOW','architectures':['x86']}", -EINVAL,
	 "linux.seccomp.architectures[0]: x86; expected a name such as SCMP_ARCH_X86_64"},
	{"{'defaultAction':'SCMP_ACT_ALLOW','syscalls':[{'names':['read']}]}", -EINVAL,
	 "linux.seccomp.syscalls[0].action: nothing; expected an action such as SCMP_ACT_ERRNO"},
	{"{'defaultAction':'SCMP_ACT_ALLOW','syscalls':[{'action':'SCMP_ACT_KILL'}]}", -EINVAL,
	 "linux.seccomp.syscalls[0].names: nothing; expected at least one name"},
	{"{'defaultAction':'SCMP_ACT_ALLOW','syscalls':[{'names':['read'],'action':'SCMP_ACT_KILL'"
	 ",'args':[{'index':6,'op':'SCMP_CMP_EQ'}]}]}",
	 -EINVAL,
	 "linux.seccomp.syscalls[0].args[0].index: 6; expected a whole number from 0 to 5"},
	{"{'defaultAction':'SCMP_ACT_ALLOW','syscalls':[{'names':['read'],'action':'SCMP_ACT_KILL'"
	 ",'args':[{'index':0,'op':'=='}]}]}",
	 -EINVAL,
	 "linux.seccomp.syscalls[0].args[0].op: \"==\"; expected a comparison such as "
	 "SCMP_CMP_EQ"},
};

START_TEST(a_refusal)
{
	ck_assert_int_eq(build(refused[_i].json), refused[_i].rc);
	ck_assert_str_eq(e.text, refused[_i].text);
}
END_TEST

START_TEST(a_file)
{
	json_object *o = json("{'defaultAction':'SCMP_ACT_ALLOW'}");
	char dir[] = "/tmp/insula-test-seccomp-XXXXXX";
	struct stat st;
	int at;

	ck_assert_ptr_nonnull(mkdtemp(dir));
	at = open(dir, O_DIRECTORY | O_CLOEXEC);
	ck_assert_int_eq(seccomp_write(o, at, "f", &flags, &e), 0);
	ck_assert_int_eq(fstatat(at, "f", &st, 0), 0);
	ck_assert_int_gt(st.st_size, 0);
	ck_assert_int_eq(st.st_size % (int)sizeof(struct sock_filter), 0);
	ck_assert_int_eq(seccomp_write(o, at, "f", &flags, &e), -EEXIST);
	/* A link that a guest may have laid. */
	ck_assert_int_eq(symlinkat("/tmp/insula-test-victim", at, "g"), 0);
	ck_assert_int_eq(seccomp_write(o, at, "g", &flags, &e), -EEXIST);
	unlinkat(at, "f", 0);
	unlinkat(at, "g", 0);
	close(at);
	ck_assert_int_eq(rmdir(dir), 0);
	json_object_put(o);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("oci_seccomp");
	TCase *t = tcase_create("all");
	SRunner *run = srunner_create(s);
	int bad;

	tcase_add_test(t, a_list_of_what_is_allowed);
	tcase_add_test(t, a_system_call_of_tomorrow_does_not_exist);
	tcase_add_test(t, arguments);
	tcase_add_test(t, a_profile_like_dockers);
	tcase_add_loop_test(t, a_refusal, 0, ARRAY_LEN(refused));
	tcase_add_test(t, a_file);
	suite_add_tcase(s, t);
	srunner_run_all(run, CK_ENV);
	bad = srunner_ntests_failed(run);
	srunner_free(run);
	return bad != 0;
}
