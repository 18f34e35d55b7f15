/* SPDX-License-Identifier: BSD-2-Clause */
/* --device vhost-user: what is taken and refused, and the connections that the supervisor makes. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_ids.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/log.h>

#include "supervisor/backing/vhost.h"

#define LONG "0123456789012345678901234567890123456789" /* 40 */

static struct vm_config c;
static struct err e;
static char dir[] = "/tmp/insula-test-vhost-XXXXXX", path[64];
static struct vhost_back b;

static void setup(void)
{
	log_setup("test_vhostconf", LOG_LVL_ERROR);
	config_init(&c);
	strcpy(dir, "/tmp/insula-test-vhost-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/s", dir);
}

static void teardown(void)
{
	config_free(&c);
	unlink(path);
	ck_assert_int_eq(rmdir(dir), 0);
}

static int set(const char *v)
{
	e.text[0] = 0;
	return config_set(&c, "--device", "device", v, &e);
}

START_TEST(texts)
{
	const struct vhost_config *v = c.vhost;

	ck_assert_int_eq(set("vhost-user,type=blk,socket=/s"), 0);
	ck_assert_uint_eq(v[0].device_id, VIRTIO_ID_BLOCK);
	ck_assert_uint_eq(v[0].nqueues, 1);
	ck_assert_uint_eq(v[0].config_len, 60);
	ck_assert(!v[0].server);
	ck_assert_int_eq(set("vhost-user,type=fs,socket=/a,,b,server,tag=work,queues=4"), 0);
	ck_assert_uint_eq(v[1].device_id, VIRTIO_ID_FS);
	ck_assert_uint_eq(v[1].nqueues, 5);
	ck_assert_str_eq(v[1].socket, "/a,b");
	ck_assert_str_eq(v[1].tag, "work");
	ck_assert(v[1].server);
	ck_assert_int_eq(set("vhost-user,type=net,socket=/s,mac=02:00:5e:00:53:01"), 0);
	ck_assert_uint_eq(v[2].nqueues, 2);
	ck_assert_uint_eq(v[2].mac[2], 0x5e);
	ck_assert_int_eq(set("vhost-user,type=25,socket=/s,config=24,queues=16"), 0);
	ck_assert_uint_eq(v[3].device_id, 25);
	ck_assert_uint_eq(v[3].config_len, 24);
	ck_assert_uint_eq(v[3].nqueues, 16);
	for (unsigned i = 4; i < CONFIG_MAX_VHOSTS; i++)
		ck_assert_int_eq(set("vhost-user,type=blk,socket=/s"), 0);
	ck_assert_int_eq(set("vhost-user,type=blk,socket=/s"), -EINVAL);
	ck_assert_str_eq(e.text, "--device: more than 8 devices");
}
END_TEST

START_TEST(refused_texts)
{
	static const char *const bad[] = {
		"",
		"vhost-user",
		"type=blk,socket=/s",
		"vhost-user,type=blk",
		"vhost-user,socket=/s",
		"vhost-user=1,type=blk,socket=/s",
		"vhost-user,type=,socket=/s",
		"vhost-user,type=disk,socket=/s",
		"vhost-user,type=0,socket=/s",
		"vhost-user,type=64,socket=/s",
		"vhost-user,type=1K,socket=/s",
		"vhost-user,type=blk,socket=",
		"vhost-user,type=blk,socket=/s,queues=0",
		"vhost-user,type=blk,socket=/s,queues=17",
		"vhost-user,type=net,socket=/s,queues=2",
		"vhost-user,type=blk,socket=/s,tag=x",
		"vhost-user,type=fs,socket=/s,tag=",
		"vhost-user,type=fs,socket=/s,tag=0123456789012345678901234567890123456",
		"vhost-user,type=blk,socket=/s,mac=02:00:5e:00:53:01",
		"vhost-user,type=net,socket=/s,mac=03:00:5e:00:53:01",
		"vhost-user,type=40,socket=/s,config=257",
		"vhost-user,type=blk,socket=/s,server=1",
		"vhost-user,type=blk,socket=/s,nonsense",
		("vhost-user,type=blk,socket=/" LONG LONG LONG),
	};

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		ck_assert_msg(set(bad[i]) == -EINVAL, "'%s' is taken", bad[i]);
		ck_assert_msg(!strncmp(e.text, "--device: ", 10), "%s", e.text);
		ck_assert_uint_eq(c.nvhosts, 0);
	}
	ck_assert_int_eq(set("vhost-user,type=disk,socket=/s"), -EINVAL);
	ck_assert_str_eq(e.text, "--device: type 'disk'; expected fs, blk, net, or the number of a "
				 "virtio device from 1 to 63");
}
END_TEST

START_TEST(json)
{
	static const char good[] =
		"{\"devices\":[{\"vhost-user\":true,\"type\":\"fs\",\"socket\":\"/"
		"s\",\"tag\":\"t\","
		"\"queues\":2,\"server\":true},\"vhost-user,type=blk,socket=/t\"]}";
	static const char *const bad[] = {
		"{\"devices\":{}}",
		"{\"devices\":[{}]}",
		"{\"devices\":[{\"vhost-user\":false,\"type\":\"blk\",\"socket\":\"/s\"}]}",
		"{\"devices\":[{\"vhost-user\":true,\"type\":2,\"socket\":\"/s\"}]}",
		("{\"devices\":[{\"vhost-user\":true,\"type\":\"blk\",\"socket\":\"/s\","
		 "\"queues\":\"1\"}]}"),
		"{\"device\":\"vhost-user,type=blk,socket=/s\"}",
	};

	ck_assert_int_eq(config_json(&c, NULL, good, strlen(good), &e), 0);
	ck_assert_uint_eq(c.nvhosts, 2);
	ck_assert_uint_eq(c.vhost[0].nqueues, 3);
	ck_assert(c.vhost[0].server && !c.vhost[1].server);
	config_drop_vhosts(&c);
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		ck_assert_msg(config_json(&c, NULL, bad[i], strlen(bad[i]), &e) == -EINVAL,
			      "'%s' is taken", bad[i]);
	ck_assert_uint_eq(c.nvhosts, 0);
}
END_TEST

/* ---- connections ---- */

static const struct vhost_config *conf_of(bool server)
{
	char text[128];

	snprintf(text, sizeof(text), "vhost-user,type=blk,socket=%s%s", path,
		 server ? ",server" : "");
	ck_assert_msg(!set(text), "%s", e.text);
	return &c.vhost[c.nvhosts - 1];
}

static int unix_socket(bool listens)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	strcpy(a.sun_path, path);
	if (listens)
		ck_assert_int_eq(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	ck_assert_int_eq(listens ? listen(fd, 4) : connect(fd, (struct sockaddr *)&a, sizeof(a)),
			 0);
	return fd;
}

/* Does the other end live? */
static bool is_alive(int fd)
{
	char byte;

	return recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && errno == EAGAIN;
}

static int retried(void)
{
	int fd = -1;

	while (fd < 0) {
		uint64_t due = vhost_due(&b);

		ck_assert_uint_ne(due, 0);
		while (clock_ns() < due)
			usleep(1000);
		fd = vhost_retry(&b, &e);
	}
	return fd;
}

START_TEST(client)
{
	const struct vhost_config *v = conf_of(false);
	int listener, fd, other;
	bool had;

	ck_assert_int_eq(vhost_open(&b, v, true, &e), -ENOENT);
	listener = unix_socket(true);
	ck_assert_int_eq(vhost_open(&b, v, true, &e), 0);
	ck_assert_int_eq(vhost_open(&b, v, false, &e), 0);
	fd = vhost_stream(&b, &had, &e);
	ck_assert(!b.away && is_alive(fd));
	ck_assert_uint_eq(vhost_due(&b), 0);
	other = accept(listener, NULL, NULL);
	close(other);
	ck_assert(vhost_lost(&b));
	ck_assert(!vhost_lost(&b)); /* one that is lost cannot be lost */
	ck_assert(b.away);
	close(fd);
	fd = vhost_stream(&b, &had, &e); /* a helper that starts meanwhile gets a dead one */
	ck_assert(b.away && !is_alive(fd) && !had);
	close(fd);
	fd = retried();
	ck_assert(!b.away && is_alive(fd));
	close(fd);
	other = accept(listener, NULL, NULL);
	fd = vhost_stream(&b, &had, &e); /* the last helper's */
	ck_assert(b.away && is_alive(fd) && had);
	ck_assert_uint_gt(vhost_due(&b), 0);
	close(fd);
	ck_assert_int_eq((int)recv(other, &(char){0}, 1, 0), 0); /* nobody else has it */
	close(other);
	fd = vhost_stream(&b, &had, &e); /* that one has died too */
	ck_assert(!is_alive(fd) && !had);
	close(fd);
	close(retried());
	close(listener);
	ck_assert(vhost_lost(&b));
	ck_assert_int_eq(vhost_retry(&b, &e), -ECONNREFUSED);
	ck_assert_uint_gt(vhost_due(&b), clock_ns());
	vhost_close(&b);
}
END_TEST

/* Nobody is there at the start: the user's to mend. */
START_TEST(client_alone)
{
	const struct vhost_config *v = conf_of(false);
	bool had;

	close(unix_socket(true));
	ck_assert_int_eq(vhost_open(&b, v, false, &e), 0);
	ck_assert_int_eq(vhost_stream(&b, &had, &e), -ECONNREFUSED);
	ck_assert_msg(!strncmp(e.text, "--device: socket ", 17), "%s", e.text);
	vhost_close(&b);
}
END_TEST

START_TEST(server)
{
	const struct vhost_config *v = conf_of(true);
	struct stat st;
	int fd, other;
	bool had;

	ck_assert_int_eq(vhost_open(&b, v, true, &e), 0);
	ck_assert_int_eq(stat(path, &st), -1);
	ck_assert_int_eq(vhost_open(&b, v, false, &e), 0);
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_uint_eq(st.st_mode & 077, 0);
	fd = vhost_stream(&b, &had, &e); /* it waits */
	ck_assert(b.away && !is_alive(fd));
	close(fd);
	ck_assert_int_eq(vhost_retry(&b, &e), -EAGAIN);
	other = unix_socket(false);
	fd = retried();
	ck_assert(is_alive(fd));
	close(fd);
	close(other);
	vhost_close(&b);
	ck_assert_int_eq(stat(path, &st), -1);
}
END_TEST

START_TEST(places_that_are_taken)
{
	const struct vhost_config *v = conf_of(true);
	int listener = unix_socket(true), fd;

	ck_assert_int_eq(vhost_open(&b, v, false, &e), -EADDRINUSE);
	close(listener); /* what is left of one that was killed is replaced */
	ck_assert_int_eq(vhost_open(&b, v, false, &e), 0);
	vhost_close(&b);
	fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	close(fd);
	ck_assert_int_eq(vhost_open(&b, v, false, &e), -EINVAL);
	ck_assert_int_eq(vhost_open(&b, conf_of(false), false, &e), -EINVAL);
	ck_assert_int_eq(access(path, F_OK), 0);
}
END_TEST

START_TEST(kept)
{
	struct vhost_inflight r = {.size = 4096};

	vhost_init(&b);
	ck_assert(!vhost_keep(&b, &r, -1));
	ck_assert(vhost_keep(&b, &r, dup(0)));
	ck_assert_int_ge(b.inflight, 0);
	ck_assert_uint_eq(b.region.size, 4096);
	r.size = 0;
	ck_assert(!vhost_keep(&b, &r, dup(0)));
	ck_assert(vhost_keep(&b, &r, -1));
	ck_assert_int_eq(b.inflight, -1);
	vhost_close(&b);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("vhostconf");
	TCase *t = tcase_create("vhostconf");
	SRunner *r = srunner_create(s);
	int failed;

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, texts);
	tcase_add_test(t, refused_texts);
	tcase_add_test(t, json);
	tcase_add_test(t, client);
	tcase_add_test(t, client_alone);
	tcase_add_test(t, server);
	tcase_add_test(t, places_that_are_taken);
	tcase_add_test(t, kept);
	suite_add_tcase(s, t);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? 1 : 0;
}
