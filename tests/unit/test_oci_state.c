/* SPDX-License-Identifier: BSD-2-Clause */
/* insula-oci: directories of containers, names of signals, deadlines, why a VM has ended. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <insula/base.h>

#include "oci/commands.h"
#include "oci/proc.h"
#include "oci/state.h"
#include "oci/vm.h"

#define AT_ONCE 4
#define ROUNDS 300

static char root[32];
static struct err e;

static void setup(void)
{
	strcpy(root, "/tmp/test_oci_state.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(root));
}

static void teardown(void)
{
	char cmd[64];

	snprintf(cmd, sizeof(cmd), "rm -rf %s", root);
	ck_assert_int_eq(system(cmd), 0);
}

/* ---- one id, several commands ---- */

/* 0: it has made the container. */
static int make_one(const int go[2], const char *id)
{
	struct container c;
	char byte;
	int rc;

	close(go[1]);
	(void)!read(go[0], &byte, 1); /* until all are there */
	rc = state_new(&c, root, id, &e);
	if (!rc)
		rc = state_save(&c, &e);
	state_close(&c);
	return rc ? 1 : 0;
}

static unsigned made_by(const char *id)
{
	unsigned made = 0;
	int go[2], status;

	ck_assert_int_eq(pipe(go), 0);
	for (int i = 0; i < AT_ONCE; i++) {
		if (!fork())
			_exit(make_one(go, id));
	}
	close(go[0]);
	close(go[1]);
	for (int i = 0; i < AT_ONCE; i++) {
		ck_assert_int_gt(wait(&status), 0);
		made += WIFEXITED(status) && !WEXITSTATUS(status);
	}
	return made;
}

START_TEST(one_of_several_makes_it)
{
	for (int i = 0; i < ROUNDS; i++) {
		char id[16];

		snprintf(id, sizeof(id), "c%d", i);
		ck_assert_msg(made_by(id) == 1, "round %d", i);
	}
}
END_TEST

/* ---- signals ---- */

static const struct {
	const char *text;
	int number; /* 0: refused */
} signals[] = {
	{"9", 9},
	{"KILL", 9},
	{"SIGKILL", 9},
	{"sigterm", 15},
	{"RTMIN", 34},
	{"RTMIN+2", 36},
	{"SIGRTMAX-1", 63},
	{"RTMAX", 64},
	{"RTMIN-1", 0},
	{"RTMAX+1", 0},
	{"RTMIN+x", 0},
	{"RTMIN+1x", 0},
	{"RTMIN1", 0},
	{"65", 0},
	{"", 0},
	{"RTMIN+2147483647", 0},
	{"9x", 0},
	{"SIG", 0},
	{"NOSUCH", 0},
	{"RTMAX-99999999999999999999", 0},
};

START_TEST(a_signal)
{
	int n = signal_number(signals[_i].text, &e);

	ck_assert_msg(n == (signals[_i].number ? signals[_i].number : -EINVAL), "%s: %d",
		      signals[_i].text, n);
}
END_TEST

/* ---- deadlines ---- */

START_TEST(until_then)
{
	uint64_t now = clock_ns();
	int ms = ms_until(now + 60000000000ull);

	ck_assert_int_eq(ms_until(0), 0);
	ck_assert_int_eq(ms_until(now), 0);
	ck_assert(ms > 1000 && ms <= 60001);
	ck_assert_int_eq(ms_until(UINT64_MAX), INT_MAX);
}
END_TEST

/* ---- the VM's last words ---- */

static void write_in(int dir, const char *name, const char *text, unsigned times)
{
	int fd = openat(dir, name, O_CREAT | O_WRONLY | O_APPEND, 0600);

	for (unsigned i = 0; i < times; i++)
		ck_assert_int_eq(write(fd, text, strlen(text)), (int)strlen(text));
	close(fd);
}

START_TEST(why_it_has_ended)
{
	int dir = open(root, O_DIRECTORY);
	char why[200];

	vm_reason(dir, why, sizeof(why));
	ck_assert_str_eq(why, "it ended without a word");
	write_in(dir, "log", "a line of many\n", 10000);
	write_in(dir, "log", "the last one\033[m\n", 1);
	vm_reason(dir, why, sizeof(why));
	ck_assert_str_eq(why, "the last one?[m");
	write_in(dir, "result", "{\"reason\":\"killed\"}\n", 1);
	vm_reason(dir, why, sizeof(why));
	ck_assert_str_eq(why, "killed");
	close(dir);
}
END_TEST

/* ---- processes, without a descriptor for looking at them ---- */

static void descriptors(rlim_t n)
{
	struct rlimit l;

	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &l), 0);
	l.rlim_cur = n;
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &l), 0);
}

START_TEST(nobody_is_taken_for_gone)
{
	struct proc p, none = {0};
	pid_t pid = fork();

	if (pid == 0) {
		pause();
		_exit(0);
	}
	ck_assert_int_eq(proc_of(pid, &p), 0);
	descriptors(0);
	ck_assert(proc_alive(&p));
	ck_assert(!proc_alive(&none));
	ck_assert_int_eq(proc_open(&p), -EMFILE);
	ck_assert_int_eq(proc_kill(&p, 0), -EMFILE);
	ck_assert_int_eq(proc_wait(&p, 60), -ETIMEDOUT);
	ck_assert_int_eq(proc_of(pid, &none), -EMFILE);
	kill(pid, SIGKILL);
	ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
	ck_assert(!proc_alive(&p));
	ck_assert_int_eq(proc_wait(&p, 60000), 0);
	descriptors(256);
	ck_assert_int_eq(proc_open(&p), -ESRCH);
	ck_assert_int_eq(proc_kill(&p, 0), -ESRCH);
	ck_assert_int_eq(proc_of(pid, &p), -ESRCH);
}
END_TEST

/* What is not known by its start time is not left behind. */
START_TEST(a_child_that_cannot_be_noted)
{
	struct proc p = {.pid = 1, .start = 1};
	pid_t pid = fork();

	if (pid == 0) {
		pause();
		_exit(0);
	}
	ck_assert_int_eq(proc_child(pid, "a child", &p, &e), 0);
	ck_assert_int_eq(p.pid, pid);
	ck_assert(proc_alive(&p));
	descriptors(0);
	ck_assert_int_eq(proc_child(pid, "a child", &p, &e), -EMFILE);
	descriptors(256);
	ck_assert_str_eq(e.text, "a child: Too many open files");
	ck_assert_int_eq(p.pid, 0);
	ck_assert_int_eq(waitpid(pid, NULL, 0), -1);
	ck_assert_int_eq(errno, ECHILD);
	errno = EAGAIN; /* fork()'s */
	ck_assert_int_eq(proc_child(-1, "a child", &p, &e), -EAGAIN);
}
END_TEST

START_TEST(a_process_that_ends)
{
	struct proc p;
	pid_t pid = fork();

	if (pid == 0) {
		pause();
		_exit(0);
	}
	ck_assert_int_eq(proc_of(pid, &p), 0);
	ck_assert(proc_alive(&p));
	ck_assert_int_eq(proc_wait(&p, 10), -ETIMEDOUT);
	ck_assert_int_eq(proc_kill(&p, SIGKILL), 0);
	ck_assert_int_eq(proc_wait(&p, 60000), 0);
	ck_assert(!proc_alive(&p)); /* a zombie */
	ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("oci_state");
	TCase *t = tcase_create("all");
	SRunner *run = srunner_create(s);
	int failed;

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 60);
	tcase_add_test(t, one_of_several_makes_it);
	tcase_add_loop_test(t, a_signal, 0, ARRAY_LEN(signals));
	tcase_add_test(t, until_then);
	tcase_add_test(t, why_it_has_ended);
	tcase_add_test(t, nobody_is_taken_for_gone);
	tcase_add_test(t, a_child_that_cannot_be_noted);
	tcase_add_test(t, a_process_that_ends);
	suite_add_tcase(s, t);
	srunner_run_all(run, CK_ENV);
	failed = srunner_ntests_failed(run);
	srunner_free(run);
	return failed != 0;
}
