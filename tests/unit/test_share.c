/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Live shares in the supervisor: what is refused, and the real virtiofsd in the jail that is made
 * for it, seen from outside: ids, capabilities, filter, namespaces, mounts, descriptors, its end.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <insula/base.h>

#include "supervisor/backing/share.h"

/* CHOWN DAC_OVERRIDE FOWNER FSETID SETGID SETUID */
#define SERVER_CAPS "00000000000000db"

static struct share_config conf;
static struct share s;
static struct err e;
static char dir[64], sub[80];

static void setup(void)
{
	strcpy(dir, "/tmp/insula-test-share-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	ck_assert_int_eq(chmod(dir, 0755), 0);
	snprintf(sub, sizeof(sub), "%s/sub", dir);
	ck_assert_int_eq(mkdir(sub, 0777), 0);
	conf = (struct share_config){.dir = dir, .guest = (char *)(uintptr_t) "/mnt"};
	e.text[0] = 0;
}

static void teardown(void)
{
	char cmd[96];

	(void)umount2(sub, MNT_DETACH);
	snprintf(cmd, sizeof(cmd), "/bin/rm -rf %s", dir);
	ck_assert_int_eq(system(cmd), 0);
}

static bool refused(const char *path, const char *why)
{
	conf.dir = (char *)(uintptr_t)path;
	e.text[0] = 0;
	ck_assert_int_lt(share_open(&s, &conf, 0, &e), 0);
	share_close(&s);
	return strstr(e.text, why) != NULL;
}

START_TEST(refusals)
{
	char file[96];

	snprintf(file, sizeof(file), "%s/file", dir);
	close(open(file, O_CREAT | O_WRONLY, 0600));
	ck_assert_msg(refused("/nowhere", "--share: /nowhere: No such file"), "%s", e.text);
	ck_assert_msg(refused(file, "expected a directory"), "%s", e.text);
	ck_assert_msg(refused("/dev/null", "expected a directory"), "%s", e.text);
}
END_TEST

/* ---- from outside ---- */

static void proc_text(pid_t pid, const char *name, char *out, size_t size)
{
	char path[64];
	size_t n = 0;
	ssize_t k;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
	fd = open(path, O_RDONLY);
	ck_assert_msg(fd >= 0, "%s", path);
	while (n < size - 1 && (k = read(fd, out + n, size - 1 - n)) > 0)
		n += (size_t)k;
	out[n] = 0;
	close(fd);
}

static bool says(pid_t pid, const char *file, const char *text)
{
	static char all[65536];

	proc_text(pid, file, all, sizeof(all));
	return strstr(all, text) != NULL;
}

static void log_of(char *out, size_t size)
{
	ssize_t n = read(s.virtiofsd.os.jail.log, out, size - 1);

	out[n > 0 ? n : 0] = 0;
}

/* Its filter is the last step before it serves. */
static pid_t serving(void)
{
	pid_t pid = s.virtiofsd.os.jail.pid;
	char log[512];

	for (unsigned i = 0; i < 1000; i++) {
		if (child_ended(&s.virtiofsd)) {
			log_of(log, sizeof(log));
			ck_abort_msg("virtiofsd has ended: %s", log);
		}
		if (says(pid, "status", "\nCapBnd:\t0000000000000000\n") &&
		    says(pid, "status", "\nSeccomp:\t2\n"))
			return pid;
		usleep(10000);
	}
	ck_abort_msg("virtiofsd does not serve");
	return -1;
}

static int start(void)
{
	int fd;

	ck_assert_msg(share_open(&s, &conf, 3, &e) == 0, "%s", e.text);
	ck_assert_str_eq(s.back.tag, "insula3");
	ck_assert_uint_eq(s.back.device_id, 26);
	fd = s.back.connect(&s.back, &e);
	ck_assert_msg(fd >= 0, "%s", e.text);
	return fd;
}

static bool ends(void)
{
	struct pollfd fd = {s.virtiofsd.os.jail.pidfd, POLLIN, 0};

	return poll(&fd, 1, 10000) == 1;
}

static void check_jail(pid_t pid)
{
	static const char *const namespaces[] = {"user", "pid", "mnt",   "net",
						 "ipc",  "uts", "cgroup"};
	static const char *const lines[] = {
		"\nNoNewPrivs:\t1\n",
		"\nSeccomp_filters:\t2\n", /* ours, against namespaces, and its own */
		"\nCapInh:\t0000000000000000\n",
		"\nCapPrm:\t" SERVER_CAPS "\n",
		"\nCapEff:\t" SERVER_CAPS "\n",
		"\nCapAmb:\t0000000000000000\n",
	};
	char path[64], theirs[64], ours[64];

	for (unsigned i = 0; i < ARRAY_LEN(lines); i++)
		ck_assert_msg(says(pid, "status", lines[i]), "%s", lines[i]);
	for (unsigned i = 0; i < ARRAY_LEN(namespaces); i++) {
		ssize_t a, b;

		snprintf(path, sizeof(path), "/proc/%d/ns/%s", (int)pid, namespaces[i]);
		a = readlink(path, theirs, sizeof(theirs) - 1);
		snprintf(path, sizeof(path), "/proc/self/ns/%s", namespaces[i]);
		b = readlink(path, ours, sizeof(ours) - 1);
		ck_assert_msg(a > 0 && b > 0, "%s", namespaces[i]);
		ck_assert_msg(a != b || memcmp(theirs, ours, (size_t)a) != 0, "%s", namespaces[i]);
	}
	ck_assert(says(pid, "limits", "Max core file size        0 "));
	ck_assert(says(pid, "limits", "Max processes             64 "));
}

/* 0 to 2, of /proc two, the connection, the share; and what serves its two queues comes later. */
static unsigned descriptors(pid_t pid)
{
	char cmd[96];
	unsigned n = 0;
	FILE *f;

	snprintf(cmd, sizeof(cmd), "ls /proc/%d/fd | wc -l", (int)pid);
	f = popen(cmd, "r");
	ck_assert(f && fscanf(f, "%u", &n) == 1);
	pclose(f);
	return n;
}

START_TEST(jail)
{
	int fd = start();
	pid_t pid = serving();

	check_jail(pid);
	/* All that its root shows, after its chroot: the share, writable. */
	ck_assert(says(pid, "mountinfo", " / rw,nosuid,nodev,noexec"));
	ck_assert(!says(pid, "mountinfo", " /usr "));
	ck_assert_uint_le(descriptors(pid), 8);
	/* It ends with its connection: nobody else has the other end. */
	close(fd);
	ck_assert(ends());
	share_close(&s);
	ck_assert_int_eq(waitpid(pid, NULL, WNOHANG), -1);
}
END_TEST

START_TEST(another)
{
	int first = start(), second;
	pid_t pid = serving();

	second = s.back.connect(&s.back, &e);
	ck_assert_msg(second >= 0, "%s", e.text);
	ck_assert_int_ne(s.virtiofsd.os.jail.pid, pid);
	ck_assert_uint_eq(s.back.peers, 2);
	ck_assert_int_eq(waitpid(pid, NULL, WNOHANG), -1); /* the first was reaped */
	(void)serving();
	share_close(&s); /* and the second is ended */
	ck_assert_int_eq(waitpid(-1, NULL, WNOHANG), -1);
	close(first);
	close(second);
}
END_TEST

/* What is mounted below is read-only as well, and the file system is still writable elsewhere. */
START_TEST(read_only)
{
	char line[2][160], file[96];
	pid_t pid;
	int fd;

	if (geteuid() || mount("t", sub, "tmpfs", 0, NULL))
		return; /* cannot mount here: tests/lab/25-share.sh does it */
	conf.ro = true;
	fd = start();
	pid = serving();
	snprintf(line[0], sizeof(line[0]), " / ro,nosuid,nodev,noexec");
	snprintf(line[1], sizeof(line[1]), " /sub ro,nosuid,nodev,noexec");
	ck_assert(says(pid, "mountinfo", line[0]));
	ck_assert(says(pid, "mountinfo", line[1]));
	ck_assert(!says(pid, "mountinfo", " rw,nosuid"));
	ck_assert(!says(pid, "mountinfo", " master:"));
	snprintf(file, sizeof(file), "%s/still", sub);
	close(open(file, O_CREAT | O_WRONLY, 0600));
	ck_assert_int_eq(access(file, F_OK), 0);
	close(fd);
	share_close(&s);
}
END_TEST

/* Where a part of /proc is covered, as systemd and containers do it, nobody gets a new one. */
START_TEST(covered_proc)
{
	int fd;

	if (geteuid() || unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		return; /* an ordinary user's tests are those below */
	ck_assert_int_eq(mount("/dev/null", "/proc/kmsg", NULL, MS_BIND, NULL), 0);
	ck_assert_int_eq(mount("/proc/sys", "/proc/sys", NULL, MS_BIND, NULL), 0);
	ck_assert_int_eq(mount(NULL, "/proc/sys", NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL), 0);
	fd = start();
	check_jail(serving());
	close(fd);
	ck_assert(ends());
	share_close(&s);
}
END_TEST

/* As an ordinary user: root of its namespace is the user, and groups that cannot be dropped are no
 * obstacle. */
START_TEST(as_a_user)
{
	const gid_t groups[] = {100, 101};
	char map[64];
	pid_t pid;
	int fd;

	if (geteuid() == 0) {
		ck_assert_int_eq(chown(dir, 54321, 54321), 0);
		ck_assert_int_eq(setgroups(2, groups), 0);
		ck_assert_int_eq(setresgid(54321, 54321, 54321), 0);
		ck_assert_int_eq(setresuid(54321, 54321, 54321), 0);
		ck_assert_int_eq(prctl(PR_SET_DUMPABLE, 1), 0); /* as exec would */
	}
	fd = start();
	pid = serving();
	check_jail(pid);
	proc_text(pid, "uid_map", map, sizeof(map));
	ck_assert_msg(strtoul(map, NULL, 10) == 0 && strtoul(map + 11, NULL, 10) == geteuid(), "%s",
		      map);
	close(fd);
	ck_assert(ends());
	share_close(&s);
}
END_TEST

/* The parent dies without a word: so does virtiofsd, though its connection stays. */
START_TEST(goes_with_its_parent)
{
	int pair[2], status, fd;
	pid_t parent, pid = 0;
	struct pollfd p;

	ck_assert_int_eq(pipe(pair), 0);
	parent = fork();
	if (parent == 0) {
		fd = start();
		pid = serving();
		if (write(pair[1], &pid, sizeof(pid)) != sizeof(pid))
			_exit(1);
		for (;;)
			pause();
	}
	ck_assert_int_eq(read(pair[0], &pid, sizeof(pid)), sizeof(pid));
	fd = (int)syscall(SYS_pidfd_open, pid, 0);
	ck_assert_int_ge(fd, 0);
	kill(parent, SIGKILL);
	ck_assert_int_eq(waitpid(parent, &status, 0), parent);
	p = (struct pollfd){fd, POLLIN, 0};
	ck_assert_int_eq(poll(&p, 1, 10000), 1);
	close(fd);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("share");
	TCase *t = tcase_create("all");
	SRunner *r;
	int failed;

	tcase_set_timeout(t, 60);
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, refusals);
	tcase_add_test(t, jail);
	tcase_add_test(t, another);
	tcase_add_test(t, read_only);
	tcase_add_test(t, covered_proc);
	tcase_add_test(t, as_a_user);
	tcase_add_test(t, goes_with_its_parent);
	suite_add_tcase(suite, t);
	r = srunner_create(suite);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? 1 : 0;
}
