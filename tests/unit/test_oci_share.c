/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The shared directory of a VM, for real, in a mount namespace of the test's own: what is where,
 * with which flags, seen from a namespace like virtiofsd's; a guest that lays links; removal, also
 * of what a killed runtime has left.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <insula/base.h>

#include "oci/share.h"
#include "spec/json.h"

#include "ocijson.h"

static char dir[64], share[80];
static struct bundle b;
static struct err e;
static char **source;
static unsigned nsources;

static void make_file(const char *name, const char *text)
{
	char path[160];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "w");
	ck_assert_ptr_nonnull(f);
	fputs(text, f);
	fclose(f);
}

static void make_dir(const char *name)
{
	char path[160];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	ck_assert_int_eq(mkdir(path, 0755), 0);
}

static void setup(void)
{
	ck_assert_int_eq(unshare(CLONE_NEWNS), 0);
	ck_assert_int_eq(mount(NULL, "/", NULL, MS_PRIVATE | MS_REC, NULL), 0);
	strcpy(dir, "/tmp/insula-test-share-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	/* As /run is: shared, and not everything of the machine. */
	ck_assert_int_eq(mount("t", dir, "tmpfs", 0, NULL), 0);
	ck_assert_int_eq(mount(NULL, dir, NULL, MS_SHARED, NULL), 0);
	snprintf(share, sizeof(share), "%s/share", dir);
	make_dir("root");
	make_file("root/hello", "from the root");
	make_dir("vol");
	make_file("vol/a", "in the volume");
	make_dir("vol/sub");
	make_file("single", "one file");
	memset(&e, 0, sizeof(e));
	source = NULL;
	nsources = 0;
}

static void teardown(void)
{
	bundle_free(&b);
	while (!umount2(dir, MNT_DETACH))
		;
	rmdir(dir);
}

/* %s in the mounts is the test's directory; ' is ". */
static void bundle(const char *root, const char *mounts)
{
	char text[2048], m[1500];

	snprintf(m, sizeof(m), mounts, dir, dir, dir);
	snprintf(text, sizeof(text), "{'root':{%s},'process':{'cwd':'/work/x'},'mounts':[%s]}",
		 root, m);
	bundle_free(&b); /* the one before */
	bundle_from(&b, text);
	snprintf(b.path, sizeof(b.path), "%s", dir);
	snprintf(b.rootfs, sizeof(b.rootfs), "%s/root", dir);
}

static int add(const char *id)
{
	return share_container(share, id, &b, &source, &nsources, &e);
}

static void forget_sources(void)
{
	for (unsigned i = 0; i < nsources; i++)
		free(source[i]);
	free(source);
	nsources = 0;
	source = NULL;
}

static const char *content(const char *name)
{
	static char text[256];
	char path[200];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "%s/%s", share, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return strerrorname_np(errno);
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	text[n > 0 ? n : 0] = 0;
	return text;
}

static unsigned long flags_of(const char *name)
{
	char path[200];
	struct statvfs st;

	snprintf(path, sizeof(path), "%s/%s", share, name);
	ck_assert_int_eq(statvfs(path, &st), 0);
	return st.f_flag;
}

static unsigned mounts_below(void)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	char line[4096];
	unsigned n = 0;

	while (fgets(line, sizeof(line), f))
		n += strstr(line, share) != NULL;
	fclose(f);
	return n;
}

#define BIND(dest, src, options) \
	"{'destination':'" dest "','type':'bind','source':'" src "','options':[" options "]}"

START_TEST(a_container)
{
	ck_assert_int_eq(share_make(share, &e), 0);
	ck_assert_int_eq(share_make(share, &e), -EEXIST);
	bundle("",
	       "{'destination':'/proc','type':'proc','source':'proc'}," BIND(
		       "/v", "%s/vol",
		       "'rbind','rw'") "," BIND("/f", "single",
						"'ro'") "," BIND("/s", "/sys",
								 "'rbind'") "," BIND("/n",
										     "/dev/null",
										     ""));
	ck_assert_msg(add("c1") == 0, "%s", e.text);
	ck_assert_uint_eq(nsources, 5);
	ck_assert_str_eq(source[0], "");
	ck_assert_str_eq(source[1], CT_SHARE "/c1/m/1");
	ck_assert_str_eq(source[2], CT_SHARE "/c1/m/2");
	ck_assert_str_eq(source[3], "/sys");
	ck_assert_str_eq(source[4], "/dev/null");
	ck_assert_str_eq(content("c1/rootfs/hello"), "from the root");
	ck_assert_str_eq(content("c1/m/1/a"), "in the volume");
	ck_assert_str_eq(content("c1/m/2"), "one file");
	ck_assert_uint_eq(flags_of("c1/m/1") & (ST_RDONLY | ST_NODEV | ST_NOSUID),
			  ST_NODEV | ST_NOSUID);
	ck_assert_uint_eq(flags_of("c1/m/2") & ST_RDONLY, ST_RDONLY);
	ck_assert_uint_eq(flags_of("c1/rootfs") & (ST_RDONLY | ST_NODEV), ST_NODEV);
	forget_sources();
	ck_assert_int_eq(add("c1"), -EEXIST);
	ck_assert_int_eq(add("c2"), 0);
	forget_sources();
	ck_assert_int_eq(share_drop(share, "c1", &e), 0);
	ck_assert_str_eq(content("c1/m/2"), "ENOENT");
	ck_assert_str_eq(content("c2/m/2"), "one file");
	ck_assert_int_eq(share_drop(share, "c1", &e), 0);
	ck_assert_int_eq(share_remove(share, &e), 0);
	ck_assert_uint_eq(mounts_below(), 0);
	ck_assert_int_eq(access(share, F_OK), -1);
	ck_assert_int_eq(share_remove(share, &e), 0);
	ck_assert_int_eq(share_drop(share, "c2", &e), 0);
	/* What is the user's is as it was. */
	snprintf(share, sizeof(share), "%s", dir);
	ck_assert_str_eq(content("vol/a"), "in the volume");
	ck_assert_str_eq(content("single"), "one file");
	ck_assert_str_eq(content("root/hello"), "from the root");
}
END_TEST

#define SLAVE BIND("/v", "vol", "'rbind','rslave'")
#define PRIVATE BIND("/p", "vol", "'rbind','rprivate'")
#define PLAIN BIND("/q", "vol", "'bind','ro'")
#define READ_ONLY BIND("/r", "vol", "'rbind','ro','rslave'")
#define ALL_READ_ONLY BIND("/s", "vol", "'rbind','rshared','rro'")

/* Mounts that the host makes in a volume: seen with rslave, not with rprivate; and what goes from
 * the share never goes from the host. */
START_TEST(propagation)
{
	char sub[100];

	snprintf(sub, sizeof(sub), "%s/vol/sub", dir);
	ck_assert_int_eq(mount("x", sub, "tmpfs", 0, NULL), 0);
	make_file("vol/sub/deep", "mounted before");
	ck_assert_int_eq(share_make(share, &e), 0);
	bundle("", SLAVE "," PRIVATE "," PLAIN "," READ_ONLY "," ALL_READ_ONLY);
	ck_assert_int_eq(add("c"), 0);
	forget_sources();
	ck_assert_str_eq(content("c/m/0/sub/deep"), "mounted before");
	ck_assert_str_eq(content("c/m/1/sub/deep"), "mounted before");
	ck_assert_str_eq(content("c/m/2/sub/deep"), "ENOENT");
	make_dir("vol/later");
	snprintf(sub, sizeof(sub), "%s/vol/later", dir);
	ck_assert_int_eq(mount("y", sub, "tmpfs", 0, NULL), 0);
	make_file("vol/later/x", "mounted after");
	ck_assert_str_eq(content("c/m/0/later/x"), "mounted after");
	ck_assert_str_eq(content("c/m/1/later/x"), "ENOENT");
	/* It would be writable, which the source is not. */
	for (const char *m = "34"; *m; m++) {
		char name[32];

		snprintf(name, sizeof(name), "c/m/%c", *m);
		ck_assert_uint_eq(flags_of(name) & ST_RDONLY, ST_RDONLY);
		strcat(name, "/sub/deep");
		ck_assert_str_eq(content(name), "mounted before");
		snprintf(name, sizeof(name), "c/m/%c/later/x", *m);
		ck_assert_str_eq(content(name), "ENOENT");
	}
	ck_assert_int_eq(share_drop(share, "c", &e), 0);
	ck_assert_int_eq(share_remove(share, &e), 0);
	snprintf(share, sizeof(share), "%s", dir);
	ck_assert_str_eq(content("vol/sub/deep"), "mounted before");
	ck_assert_str_eq(content("vol/later/x"), "mounted after");
}
END_TEST

/* A server of the share with a mount namespace of its own, as virtiofsd has it: a container that
 * comes later is seen there, and gone there when it is dropped. */
START_TEST(seen_by_the_server)
{
	int ask[2], answer[2], status;
	char c;
	pid_t child;

	ck_assert_int_eq(share_make(share, &e), 0);
	ck_assert_int_eq(pipe(ask) | pipe(answer), 0);
	child = fork();
	if (!child) {
		close(ask[1]);
		if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_SLAVE | MS_REC, NULL))
			_exit(9);
		for (int i = 0; write(answer[1], "r", 1) == 1 && read(ask[0], &c, 1) == 1; i++) {
			if (strcmp(content("c/m/0/a"), c == '+' ? "in the volume" : "ENOENT") != 0)
				_exit(1 + i);
		}
		_exit(0);
	}
	close(ask[0]);
	bundle("", BIND("/v", "%s/vol", "'rbind'"));
	ck_assert_int_eq(read(answer[0], &c, 1), 1);
	ck_assert_int_eq(add("c"), 0);
	forget_sources();
	ck_assert_int_eq(write(ask[1], "+", 1), 1);
	ck_assert_int_eq(read(answer[0], &c, 1), 1);
	ck_assert_int_eq(share_drop(share, "c", &e), 0);
	ck_assert_int_eq(write(ask[1], "-", 1), 1);
	ck_assert_int_eq(read(answer[0], &c, 1), 1);
	close(ask[1]);
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert_int_eq(status, 0);
	ck_assert_int_eq(share_remove(share, &e), 0);
}
END_TEST

/* A root that is read-only on the host has the places that the guest mounts on; links in it lead
 * nowhere else. */
START_TEST(a_read_only_root)
{
	char path[160];
	struct stat st;

	make_dir("root/etc");
	make_dir("root/tmp");
	snprintf(path, sizeof(path), "%s/root/out", dir);
	ck_assert_int_eq(symlink("../../../../../../tmp", path), 0);
	snprintf(path, sizeof(path), "%s/root/in", dir);
	ck_assert_int_eq(symlink("/etc", path), 0);
	ck_assert_int_eq(share_make(share, &e), 0);
	bundle("'readonly':true",
	       "{'destination':'/proc','type':'proc'},{'destination':'/dev','type':'tmpfs'},"
	       "{'destination':'/dev/pts','type':'devpts'},{'destination':'/in/x','type':'tmpfs'},"
	       "{'destination':'/out/insula-test-escaped','type':'tmpfs'}," BIND(
		       "/etc/resolv.conf", "%s/single", "'ro'"));
	ck_assert_msg(add("c") == 0, "%s", e.text);
	forget_sources();
	ck_assert_uint_eq(flags_of("c/rootfs") & ST_RDONLY, ST_RDONLY);
	static const char *const made[] = {"proc", "dev", "etc/x", "work/x",
					   "tmp/insula-test-escaped"};
	for (size_t i = 0; i < ARRAY_LEN(made); i++) {
		snprintf(path, sizeof(path), "%s/root/%s", dir, made[i]);
		ck_assert_msg(!lstat(path, &st) && S_ISDIR(st.st_mode), "%s", path);
	}
	snprintf(path, sizeof(path), "%s/root/etc/resolv.conf", dir);
	ck_assert(!lstat(path, &st) && S_ISREG(st.st_mode) && !st.st_size);
	snprintf(path, sizeof(path), "%s/root/dev/pts", dir);
	ck_assert_int_eq(access(path, F_OK), -1);
	ck_assert_int_eq(access("/tmp/insula-test-escaped", F_OK), -1);
	ck_assert_int_eq(share_remove(share, &e), 0);
}
END_TEST

START_TEST(memory_that_is_shared)
{
	char path[160];

	make_dir("shm");
	snprintf(path, sizeof(path), "%s/shm", dir);
	ck_assert_int_eq(mount("shm", path, "tmpfs", 0, "size=64k"), 0);
	make_dir("data");
	ck_assert_int_eq(share_make(share, &e), 0);
	bundle("", BIND("/dev/shm", "%s/shm", "'bind'") "," BIND("/x", "%s/shm", "'bind'") "," BIND(
			   "/dev/shm", "%s/data", "'bind'"));
	ck_assert_int_eq(add("c"), 0);
	ck_assert_str_eq(source[0], "/dev/shm");
	ck_assert_str_eq(source[1], CT_SHARE "/c/m/1");
	ck_assert_str_eq(source[2], CT_SHARE "/c/m/2");
	forget_sources();
	ck_assert_int_eq(share_remove(share, &e), 0);
}
END_TEST

static void refused(const char *mounts, const char *end)
{
	bundle("", mounts);
	ck_assert_int_lt(add("c"), 0);
	ck_assert_msg(strlen(e.text) >= strlen(end) &&
			      !strcmp(e.text + strlen(e.text) - strlen(end), end),
		      "%s", e.text);
	/* Nothing of it is left. */
	ck_assert_str_eq(content("c"), "ENOENT");
	ck_assert_uint_eq(mounts_below(), 1);
	json_object_put(b.spec);
	b.spec = NULL;
}

START_TEST(refusals)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(a.sun_path, sizeof(a.sun_path), "%s/sock", dir);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	snprintf(a.sun_path, sizeof(a.sun_path), "%s/pipe", dir);
	ck_assert_int_eq(mkfifo(a.sun_path, 0600), 0);
	snprintf(a.sun_path, sizeof(a.sun_path), "%s/zero", dir);
	ck_assert_int_eq(mknod(a.sun_path, S_IFCHR | 0600, makedev(1, 5)), 0);
	ck_assert_int_eq(share_make(share, &e), 0);
	refused(BIND("/v", "%s/vol", "") "," BIND("/x", "%s/gone", ""),
		"/gone: No such file or directory");
	ck_assert_int_eq(strncmp(e.text, "mounts[1].source: /tmp/", 23), 0);
	refused(BIND("/x", "%s/sock", ""), "/sock: a socket of the host cannot be used from a VM; "
					   "expected a file or a directory");
	refused(BIND("/x", "%s/pipe", ""), "/pipe: a pipe of the host cannot be used from a VM; "
					   "expected a file or a directory");
	refused(BIND("/x", "%s/zero", ""), "/zero: a device of the host cannot be used from a VM; "
					   "expected a file or a directory");
	refused("{'destination':'/x','type':'bind'}", "mounts[0].source: nothing; expected a path");
	refused(BIND("/x", "%s/vol", "'idmap'"), "is not possible in a VM");
	close(fd);
	ck_assert_int_eq(share_remove(share, &e), 0);
}
END_TEST

static int enter(const char *id)
{
	int top = open(share, O_DIRECTORY | O_CLOEXEC), rc = share_enter(top, id, &e);

	close(top);
	return rc;
}

/* The guest can write all of the share: it renames, lays links, fills, makes deep trees. */
START_TEST(a_hostile_guest)
{
	char path[200], to[200];
	int at;

	ck_assert_int_eq(share_make(share, &e), 0);
	/* A link where a container's directory is going to be. */
	snprintf(path, sizeof(path), "%s/c", share);
	snprintf(to, sizeof(to), "%s/vol", dir);
	ck_assert_int_eq(symlink(to, path), 0);
	bundle("", BIND("/v", "%s/vol", "'rbind'"));
	ck_assert_int_eq(add("c"), -EEXIST);
	ck_assert_int_eq(enter("c"), -ELOOP);
	ck_assert_int_eq(share_drop(share, "c", &e), 0);
	ck_assert_int_eq(access(path, F_OK), -1);
	/* Its directory moved away, and a link to the host's in its place. */
	ck_assert_int_eq(add("c"), 0);
	forget_sources();
	snprintf(to, sizeof(to), "%s/moved", share);
	ck_assert_int_eq(rename(path, to), 0);
	ck_assert_int_eq(symlink(dir, path), 0);
	ck_assert_int_eq(share_drop(share, "c", &e), 0);
	snprintf(path, sizeof(path), "%s/vol/a", dir);
	ck_assert_int_eq(access(path, F_OK), 0);
	/* What it has put beside is removed with it; what is mounted is not entered. */
	snprintf(path, sizeof(path), "%s/moved/junk", share);
	ck_assert_int_eq(mkdir(path, 0), 0);
	strcat(path, "/x");
	ck_assert_int_eq(mkdir(path, 0), 0);
	ck_assert_int_eq(share_drop(share, "moved", &e), 0);
	snprintf(path, sizeof(path), "%s/vol/a", dir);
	ck_assert_int_eq(access(path, F_OK), 0);
	snprintf(path, sizeof(path), "%s/root/hello", dir);
	ck_assert_int_eq(access(path, F_OK), 0);
	/* A tree that is deeper than anybody needs: what is the user's goes all the same, and what can
	 * be removed beside it. */
	bundle("", BIND("/v", "%s/vol", "'rbind'"));
	ck_assert_int_eq(add("d"), 0);
	forget_sources();
	snprintf(path, sizeof(path), "%s/d", share);
	at = open(path, O_DIRECTORY | O_CLOEXEC);
	for (int i = 0; i < 100; i++) {
		int next;

		ck_assert_int_eq(mkdirat(at, "d", 0755), 0);
		next = openat(at, "d", O_DIRECTORY | O_CLOEXEC);
		close(at);
		at = next;
	}
	close(at);
	ck_assert_int_eq(mounts_below(), 3);
	ck_assert_int_eq(share_drop(share, "d", &e), 0);
	ck_assert_int_eq(mounts_below(), 1);
	ck_assert_str_eq(content("d/m/0"), "ENOENT");
	ck_assert_str_eq(content("d/rootfs"), "ENOENT");
	snprintf(path, sizeof(path), "%s/vol/a", dir);
	ck_assert_int_eq(access(path, F_OK), 0);
	ck_assert_int_eq(share_drop(share, "d", &e), 0);
	/* It cannot fill the host's directory. */
	snprintf(path, sizeof(path), "%s/full", share);
	at = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	ck_assert_int_ne(fallocate(at, 0, 0, 65 << 20), 0);
	close(at);
	ck_assert_int_eq(share_remove(share, &e), 0);
	ck_assert_uint_eq(mounts_below(), 0);
}
END_TEST

static int status_of(int at, const char *text, size_t len, char *line)
{
	int fd = openat(at, "status", O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);

	ck_assert_int_eq(write(fd, text, len), (int)len);
	close(fd);
	return share_status(at, "status", line, &e);
}

START_TEST(a_status)
{
	char line[CT_STATUS_MAX + 1], big[CT_STATUS_MAX + 2];
	int at;

	ck_assert_int_eq(share_make(share, &e), 0);
	bundle("", "");
	ck_assert_int_eq(add("c"), 0);
	forget_sources();
	at = enter("c");
	ck_assert_int_ge(at, 0);
	ck_assert_int_eq(share_status(at, "status", line, &e), -ENOENT);
	ck_assert_int_eq(status_of(at, "started 7\nmore", 14, line), 0);
	ck_assert_str_eq(line, "started 7");
	ck_assert_int_eq(status_of(at, "a\0\033[31mb", 8, line), 0);
	ck_assert_str_eq(line, "a??[31mb");
	memset(big, 'x', sizeof(big));
	ck_assert_int_eq(status_of(at, big, CT_STATUS_MAX, line), 0);
	ck_assert_uint_eq(strlen(line), CT_STATUS_MAX);
	ck_assert_int_eq(status_of(at, big, CT_STATUS_MAX + 1, line), -EINVAL);
	ck_assert_int_eq(unlinkat(at, "status", 0), 0);
	ck_assert_int_eq(symlinkat("/etc/passwd", at, "status"), 0);
	ck_assert_int_eq(share_status(at, "status", line, &e), -ELOOP);
	ck_assert_int_eq(unlinkat(at, "status", 0), 0);
	ck_assert_int_eq(mkfifoat(at, "status", 0600), 0);
	ck_assert_int_eq(share_status(at, "status", line, &e), -EINVAL);
	close(at);
	ck_assert_int_eq(share_remove(share, &e), 0);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("oci_share");
	TCase *t = tcase_create("all");
	SRunner *run = srunner_create(s);
	int bad;

	if (geteuid()) {
		puts("skip oci_share - not root");
		return 0;
	}
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, a_container);
	tcase_add_test(t, propagation);
	tcase_add_test(t, seen_by_the_server);
	tcase_add_test(t, a_read_only_root);
	tcase_add_test(t, memory_that_is_shared);
	tcase_add_test(t, refusals);
	tcase_add_test(t, a_hostile_guest);
	tcase_add_test(t, a_status);
	suite_add_tcase(s, t);
	srunner_run_all(run, CK_ENV);
	bad = srunner_ntests_failed(run);
	srunner_free(run);
	return bad != 0;
}
