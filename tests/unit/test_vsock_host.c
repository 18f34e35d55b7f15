/* SPDX-License-Identifier: BSD-2-Clause */
/* The supervisor's side of a vsock device: where a socket may be bound, what a guest may reach and
 * what not, and messages of a helper that somebody else has taken over. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <insula/base.h>

#include <supervisor/backing/vsock.h>

static char dir[64], path[96];
static struct vsock v;
static struct vsock_config conf;
static struct err e;

static void setup(void)
{
	strcpy(dir, "/tmp/test-vsock.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/s", dir);
	conf = (struct vsock_config){.on = true, .path = path, .cid = 3};
	v = (struct vsock){.dir = -1, .listener = -1, .reserved = -1};
}

static void teardown(void)
{
	char cmd[128];

	vsock_close(&v);
	snprintf(cmd, sizeof(cmd), "rm -rf %s", dir);
	ck_assert_int_eq(system(cmd), 0);
}

static const char *in_dir(const char *name)
{
	static char buf[4][128];
	static unsigned n;

	n = (n + 1) % 4;
	snprintf(buf[n], sizeof(buf[n]), "%s/%s", dir, name);
	return buf[n];
}

static int listen_on(const char *name)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	strcpy(a.sun_path, in_dir(name));
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	ck_assert_int_eq(listen(fd, 1), 0);
	return fd;
}

static bool exists(const char *name)
{
	struct stat st;

	return lstat(in_dir(name), &st) == 0;
}

static void opened(void)
{
	ck_assert_msg(vsock_open(&v, &conf, false, &e) == 0, "%s", e.text);
}

static void refused(int code)
{
	ck_assert_int_eq(vsock_open(&v, &conf, true, &e), code);
	ck_assert_int_eq(vsock_open(&v, &conf, false, &e), code);
	ck_assert_int_eq(v.dir, -1);
	ck_assert_int_eq(v.listener, -1);
	ck_assert_int_eq(strncmp(e.text, "--vsock: ", 9), 0);
}

/* ---- the socket ---- */

START_TEST(binds_and_removes)
{
	struct stat st;

	opened();
	ck_assert_int_eq(lstat(path, &st), 0);
	ck_assert(S_ISSOCK(st.st_mode));
	ck_assert_uint_eq(st.st_mode & 07777, 0600);
	vsock_close(&v);
	ck_assert(!exists("s"));
}
END_TEST

START_TEST(check_only_makes_nothing)
{
	ck_assert_int_eq(vsock_open(&v, &conf, true, &e), 0);
	ck_assert(!exists("s"));
	ck_assert_int_eq(v.listener, -1);
}
END_TEST

START_TEST(removes_only_its_own)
{
	opened();
	ck_assert_int_eq(unlink(path), 0);
	close(open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
	vsock_close(&v);
	ck_assert(exists("s"));
}
END_TEST

START_TEST(dead_socket_is_replaced)
{
	close(listen_on("s"));
	ck_assert(exists("s"));
	ck_assert_int_eq(vsock_open(&v, &conf, true, &e), 0);
	ck_assert(exists("s")); /* not by a check */
	opened();
}
END_TEST

START_TEST(refuses_what_is_there)
{
	int fd = listen_on("s");

	refused(-EADDRINUSE);
	close(fd);
	unlink(path);
	ck_assert_int_eq(symlink("/nonexistent", path), 0);
	refused(-EADDRINUSE);
	unlink(path);
	fd = listen_on("elsewhere");
	close(fd);
	ck_assert_int_eq(symlink(in_dir("elsewhere"), path), 0); /* to a dead socket */
	refused(-EADDRINUSE);
	unlink(path);
	ck_assert_int_eq(mkfifo(path, 0600), 0);
	refused(-EADDRINUSE);
	unlink(path);
	ck_assert_int_eq(mkdir(path, 0700), 0);
	refused(-EADDRINUSE);
	rmdir(path);
}
END_TEST

START_TEST(refuses_paths)
{
	static char too_long[300];
	struct {
		char *path;
		int code;
	} bad[] = {
		{(char[]){"/"}, -EINVAL},
		{(char[]){"."}, -EINVAL},
		{(char[]){".."}, -EINVAL},
		{(char[]){"/tmp/"}, -EINVAL},
		{(char[]){"/tmp/.."}, -EINVAL},
		{(char[]){"/nonexistent/s"}, -ENOENT},
		{(char[]){"/etc/passwd/s"}, -ENOTDIR},
		{too_long, -ENAMETOOLONG},
	};

	memset(too_long, 'x', sizeof(too_long) - 1);
	for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
		conf.path = bad[i].path;
		refused(bad[i].code);
	}
	conf.path = path;
}
END_TEST

/* ---- what the guest reaches ---- */

START_TEST(connects)
{
	int l = listen_on("s_77"), fd;

	opened();
	fd = vsock_connect(&v, 77);
	ck_assert_int_ge(fd, 0);
	ck_assert(fcntl(fd, F_GETFL) & O_NONBLOCK);
	ck_assert(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	close(fd);
	ck_assert_int_eq(vsock_connect(&v, 78), -ENOENT);
	close(l);
	ck_assert_int_eq(vsock_connect(&v, 77), -ECONNREFUSED);
	l = listen_on("s_4294967295");
	fd = vsock_connect(&v, UINT32_MAX);
	ck_assert_int_ge(fd, 0);
	close(fd);
	close(l);
}
END_TEST

START_TEST(reaches_nothing_else)
{
	int l = listen_on("target");

	opened();
	ck_assert_int_eq(symlink(in_dir("target"), in_dir("s_1")), 0);
	ck_assert_int_eq(vsock_connect(&v, 1), -ENOTSOCK);
	ck_assert_int_eq(symlink("target", in_dir("s_2")), 0);
	ck_assert_int_eq(vsock_connect(&v, 2), -ENOTSOCK);
	ck_assert_int_eq(mkfifo(in_dir("s_3"), 0600), 0);
	ck_assert_int_eq(vsock_connect(&v, 3), -ENOTSOCK);
	ck_assert_int_eq(mkdir(in_dir("s_4"), 0700), 0);
	ck_assert_int_eq(vsock_connect(&v, 4), -ENOTSOCK);
	close(open(in_dir("s_5"), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
	ck_assert_int_eq(vsock_connect(&v, 5), -ENOTSOCK);
	close(l);
}
END_TEST

/* A socket of another user, or one of ours in another user's directory: somebody may have put it
 * there to be taken for the host's program. Root's would do. */
START_TEST(only_our_own)
{
	int l = listen_on("s_7"), fd;

	if (geteuid()) {
		close(l);
		return; /* an owner can be given away by root alone */
	}
	opened();
	fd = vsock_connect(&v, 7);
	ck_assert_int_ge(fd, 0);
	close(fd);
	ck_assert_int_eq(chown(in_dir("s_7"), 12345, 0), 0);
	ck_assert_int_eq(vsock_connect(&v, 7), -EPERM);
	ck_assert_int_eq(chown(in_dir("s_7"), 0, 0), 0);
	ck_assert_int_eq(chown(dir, 12345, 0), 0);
	ck_assert_int_eq(vsock_connect(&v, 7), -EPERM);
	/* In a process of that user all is well. */
	ck_assert_int_eq(seteuid(12345), 0);
	fd = vsock_connect(&v, 7);
	ck_assert_int_eq(seteuid(0), 0);
	ck_assert(fd >= 0 || fd == -EACCES); /* root's socket has root's mode */
	fd_close(&fd);
	close(l);
}
END_TEST

/* The directory is the one that was there at the start, whatever its name leads to now. */
START_TEST(directory_is_swapped)
{
	char other[96];
	int l = listen_on("s_1"), fd;

	opened();
	snprintf(other, sizeof(other), "%s.moved", dir);
	ck_assert_int_eq(rename(dir, other), 0);
	ck_assert_int_eq(mkdir(dir, 0700), 0);
	fd = listen_on("s_2");
	ck_assert_int_eq(vsock_connect(&v, 2), -ENOENT);
	close(fd);
	fd = vsock_connect(&v, 1);
	ck_assert_int_ge(fd, 0);
	close(fd);
	close(l);
	unlink(in_dir("s_2"));
	ck_assert_int_eq(rmdir(dir), 0);
	ck_assert_int_eq(rename(other, dir), 0);
}
END_TEST

START_TEST(full_backlog_does_not_block)
{
	int l = listen_on("s_1"), fd[16], n = 0;

	opened();
	while (n < 16 && (fd[n] = vsock_connect(&v, 1)) >= 0)
		n++;
	ck_assert_int_lt(n, 16);
	ck_assert_int_eq(fd[n], -EAGAIN);
	while (n > 0)
		close(fd[--n]);
	close(l);
}
END_TEST

START_TEST(no_path_no_host)
{
	conf.path = NULL;
	opened();
	ck_assert_int_eq(vsock_connect(&v, 77), -ENETUNREACH);
	conf.path = path;
}
END_TEST

/* ---- messages ---- */

static struct device dev;
static int helper;

static void open_device(void)
{
	int sv[2];

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv), 0);
	dev = (struct device){.class = &device_vsock, .back = {.vsock = &v}};
	dev.child.os.jail.channel = sv[0];
	dev.child.state = CHILD_READY;
	helper = sv[1];
	fcntl(sv[0], F_SETFL, O_NONBLOCK);
	fcntl(sv[1], F_SETFL, O_NONBLOCK);
}

static bool message(enum msg_type t, const void *body, size_t len)
{
	return device_vsock.message(NULL, &dev, t, body, len);
}

START_TEST(answers)
{
	struct msg_vsock_connect q = {.id = 9, .port = 77};
	struct msg_vsock_connected a;
	int l = listen_on("s_77"), fd;

	opened();
	open_device();
	ck_assert(message(MSG_VSOCK_CONNECT, &q, sizeof(q)));
	ck_assert_msg(msg_expect(helper, MSG_VSOCK_CONNECTED, &a, sizeof(a), &fd, 1, &e) == 0, "%s",
		      e.text);
	ck_assert_uint_eq(a.id, 9);
	ck_assert_int_eq(a.error, 0);
	close(fd);
	q.port = 78;
	ck_assert(message(MSG_VSOCK_CONNECT, &q, sizeof(q)));
	ck_assert_int_eq(msg_expect(helper, MSG_VSOCK_CONNECTED, &a, sizeof(a), NULL, 0, &e), 0);
	ck_assert_int_eq(a.error, -ENOENT);
	close(l);
	close(helper);
	ck_assert(message(MSG_VSOCK_CONNECT, &q, sizeof(q))); /* it has died */
	close(dev.child.os.jail.channel);
}
END_TEST

START_TEST(hostile_messages)
{
	uint8_t body[64] = {0};
	struct msg_vsock_connect q = {.id = 1, .port = 1};
	unsigned n = 0;

	opened();
	open_device();
	for (unsigned t = 0; t < 200; t++) {
		for (size_t len = 0; len < sizeof(body); len += 4) {
			if (t != MSG_VSOCK_CONNECT || len != sizeof(q))
				ck_assert(!message((enum msg_type)t, body, len));
		}
	}
	/* One that asks without end and never reads: it is not waited for. */
	while (message(MSG_VSOCK_CONNECT, &q, sizeof(q)))
		ck_assert_uint_lt(n++, 100000);
	close(helper);
	close(dev.child.os.jail.channel);
}
END_TEST

START_TEST(streams)
{
	struct msg_vsock_stream s;
	int sv[2], got;

	open_device();
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
	ck_assert_int_eq(vsock_stream(&dev, 1024, sv[0], &e), 0);
	ck_assert_int_eq(msg_expect(helper, MSG_VSOCK_STREAM, &s, sizeof(s), &got, 1, &e), 0);
	ck_assert_uint_eq(s.port, 1024);
	ck_assert(fcntl(got, F_GETFL) & O_NONBLOCK);
	ck_assert(!(fcntl(sv[1], F_GETFL) & O_NONBLOCK));
	close(got);
	ck_assert_int_eq(vsock_stream(&dev, 1, -1, &e), -EBADF);
	close(helper);
	close(dev.child.os.jail.channel);
	dev.child.os.jail.channel = -1;
	dev.child.state = CHILD_NONE;
	ck_assert_int_eq(vsock_stream(&dev, 1, sv[0], &e), -ENOTCONN);
	close(sv[0]);
	close(sv[1]);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("vsock_host");
	TCase *c = tcase_create("vsock_host");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_checked_fixture(c, setup, teardown);
	tcase_add_test(c, binds_and_removes);
	tcase_add_test(c, check_only_makes_nothing);
	tcase_add_test(c, removes_only_its_own);
	tcase_add_test(c, dead_socket_is_replaced);
	tcase_add_test(c, refuses_what_is_there);
	tcase_add_test(c, refuses_paths);
	tcase_add_test(c, connects);
	tcase_add_test(c, reaches_nothing_else);
	tcase_add_test(c, only_our_own);
	tcase_add_test(c, directory_is_swapped);
	tcase_add_test(c, full_backlog_does_not_block);
	tcase_add_test(c, no_path_no_host);
	tcase_add_test(c, answers);
	tcase_add_test(c, hostile_messages);
	tcase_add_test(c, streams);
	suite_add_tcase(s, c);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
