/* SPDX-License-Identifier: BSD-2-Clause */
/* What a program of the host may connect to: manifests with a network, and the supervisor's answers
 * to what such a program asks for. */
#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <insula/base.h>

#include "spec/manifest.h"
#include "supervisor/backing/asks.h"
#include "supervisor/backing/served.h"

/* ---- manifests ---- */

#define HEAD                                                                                \
	"{\"api\": 1, \"device\": \"disk\", \"about\": \"x\", \"serves\": \"vhost-user\", " \
	"\"program\": \"/usr/bin/x\", "
#define SETTINGS                                                                             \
	"\"settings\": {\"m\": {\"type\": \"hosts\"}, \"p\": {\"type\": \"text\", "          \
	"\"default\": \"5-9\"}, \"n\": {\"type\": \"number\", \"min\": 1, \"max\": 65535}, " \
	"\"k\": {\"type\": \"file\", \"at\": \"/etc/k\"}}"
#define PLAIN_TARGET "\"target\": {\"type\": \"text\", \"max\": 100, \"help\": \"P/I\"}, "

static int parse(struct manifest *m, const char *text, struct err *e)
{
	return manifest_parse(m, "mod", text, strlen(text), e);
}

static const struct {
	const char *text, *says;
} bad[] = {
	{HEAD PLAIN_TARGET SETTINGS ", \"network\": []}", "network"},
	{HEAD PLAIN_TARGET SETTINGS ", \"network\": [1]}", "network"},
	{HEAD PLAIN_TARGET SETTINGS ", \"network\": [{\"to\": \"m\"}]}", "network.ports"},
	{HEAD PLAIN_TARGET SETTINGS ", \"network\": [{\"to\": \"p\", \"ports\": \"p\"}]}",
	 "network.to"},
	{HEAD PLAIN_TARGET SETTINGS ", \"network\": [{\"to\": \"m\", \"ports\": \"k\"}]}",
	 "network.ports"},
	{HEAD PLAIN_TARGET SETTINGS
	 ", \"network\": [{\"if\": \"zz\", \"to\": \"m\", \"ports\": \"p\"}]}",
	 "network.if"},
	{HEAD PLAIN_TARGET SETTINGS
	 ", \"network\": [{\"to\": \"m\", \"ports\": \"p\", \"host\": \"x\"}]}",
	 "network.host"},
	{HEAD PLAIN_TARGET SETTINGS ", \"reconnects\": true}", "reconnects"},
	{HEAD PLAIN_TARGET SETTINGS ", \"connect\": {\"a\": {\"over\": \"unix\"}}}", "connect"},
	{HEAD "\"target\": {\"type\": \"file\"}, " SETTINGS
	      ", \"connect\": {\"a\": {\"over\": \"tcp\", \"port\": 1}}}",
	 "a text as target"},
	{HEAD "\"target\": {\"type\": \"text\", \"parts\": []}}", "target.parts"},
	{HEAD PLAIN_TARGET "\"settings\": {\"a\": {\"type\": \"text\", \"parts\": [\"x\"]}}}",
	 "settings.a.parts"},
	{HEAD PLAIN_TARGET "\"settings\": {\"a\": {\"type\": \"text\", \"at\": \"/x\"}}}",
	 "settings.a.at"},
	{HEAD PLAIN_TARGET "\"settings\": {\"a\": {\"type\": \"file\", \"at\": \"x\"}}}",
	 "settings.a.at"},
	{HEAD PLAIN_TARGET "\"settings\": {\"a\": {\"type\": \"file\", \"at\": \"/../x\"}}}",
	 "settings.a.at"},
	{HEAD PLAIN_TARGET "\"settings\": {\"a\": {\"type\": \"file\", \"at\": \"/files/x\"}}}",
	 "settings.a.at"},
	{HEAD PLAIN_TARGET "\"settings\": {\"a\": {\"type\": \"file\", \"at\": \"/x/..\"}}}",
	 "settings.a.at"},
	{HEAD PLAIN_TARGET "\"settings\": {\"a\": {\"type\": \"file\", \"at\": \"/x/.\"}}}",
	 "settings.a.at"},
	{HEAD PLAIN_TARGET "\"settings\": {\"a\": {\"type\": \"file\", \"at\": \"/etc/hosts\"}}}",
	 "settings.a.at"},
	{HEAD PLAIN_TARGET "\"settings\": {\"a\": {\"type\": \"file\", \"at\": \"/etc\"}}}",
	 "settings.a.at"},
	{HEAD PLAIN_TARGET "\"settings\": {\"a\": {\"type\": \"file\", \"at\": \"/usr/lib/x\"}}}",
	 "settings.a.at"},
	{HEAD PLAIN_TARGET
	 "\"settings\": {\"a\": {\"type\": \"file\", \"at\": \"/etc/ld.so.cache\"}}}",
	 "settings.a.at"},
	{HEAD PLAIN_TARGET "\"settings\": {\"a\": {\"type\": \"file\", \"at\": \"/files\"}}}",
	 "settings.a.at"},
	{HEAD PLAIN_TARGET "\"settings\": {\"a\": {\"type\": \"file\", \"at\": \"/lib64\"}}}",
	 "settings.a.at"},
	{HEAD PLAIN_TARGET "\"settings\": {\"a\": {\"type\": \"file\", \"at\": \"/etc/x\"}, "
			   "\"b\": {\"type\": \"file\", \"at\": \"/etc/x\"}}}",
	 "settings.b.at"},
	{HEAD PLAIN_TARGET "\"settings\": {\"a\": {\"type\": \"file\", \"at\": \"/etc/x/y\"}, "
			   "\"b\": {\"type\": \"file\", \"at\": \"/etc/x\"}}}",
	 "settings.b.at"},
	{HEAD "\"target\": {\"type\": \"file\", \"at\": \"/x\"}, \"settings\": "
	      "{\"a\": {\"type\": \"file\", \"at\": \"/x/y\"}}}",
	 "target.at"},
	{HEAD PLAIN_TARGET "\"arguments\": [\"${host}\"]}", "'${host'"},
	{HEAD PLAIN_TARGET "\"arguments\": [{\"if\": \"ro\", \"add\": [\"x\"]}]}",
	 "an argument before it"},
	{"{\"api\": 1, \"device\": \"disk\", \"about\": \"x\", \"settings\": {\"a\": {\"type\": "
	 "\"hosts\"}}}",
	 "\"hosts\" with \"serves\" alone"},
};

START_TEST(wrong_networks)
{
	static struct manifest m;
	struct err e = {0};

	ck_assert_int_eq(parse(&m, bad[_i].text, &e), -EINVAL);
	ck_assert_msg(strstr(e.text, bad[_i].says), "%s: %s", bad[_i].text, e.text);
}
END_TEST

START_TEST(parts)
{
	static struct manifest m;
	const char *argv[MANIFEST_ARGUMENTS + 2];
	char text[256], room[256];
	struct manifest_values v = {.text = text, .queues = 1};
	struct err e = {0};

	ck_assert_msg(!parse(&m,
			     HEAD "\"target\": {\"type\": \"text\", \"help\": \"P[/N]/I[@S]\", "
				  "\"parts\": [\"${p}/${i}\", \"${p}/${i}@${s}\", "
				  "\"${p}/${n}/${i}\"]}, "
				  "\"arguments\": [\"{${p}\", {\"if\": \"n\", \"add\": "
				  "[\",n=${n}\"]}, {\"if\": \"s\", \"add\": [\",s=${s}\", "
				  "\"!\"]}, {\"if\": \"i\", \"add\": [\",${i}}\"]}, \"end\"]}",
			     &e),
		      "%s", e.text);
	for (const char *const *p = (const char *const[]){"a/b", "{a,b}", "a/b@c", "{a,s=c!,b}",
							  "a/x/b", "{a,n=x,b}", NULL};
	     *p; p += 2) {
		int n = manifest_target(&m, p[0], text, sizeof(text), &e);

		ck_assert_msg(n > 0, "%s", e.text);
		v.len = (size_t)n;
		ck_assert_int_eq(manifest_argv(&m, &v, argv, room, sizeof(room), &e), 0);
		ck_assert_str_eq(argv[1], p[1]);
		ck_assert_str_eq(argv[2], "end");
		ck_assert_ptr_null(argv[3]);
	}
	for (const char *const *p = (const char *const[]){"a", "a/", "/b", "a/b@", "a//b",
							  "a/b@c@d", "a/b/c/d", "@a/b", NULL};
	     *p; p++) {
		ck_assert_int_eq(manifest_target(&m, *p, text, sizeof(text), &e), -EINVAL);
		ck_assert_ptr_nonnull(strstr(e.text, "expected P[/N]/I[@S]"));
	}
}
END_TEST

/* ---- what it may reach ---- */

static struct served served;
static struct module_back back;

/* With these settings. */
static int reach(const char *said, struct err *e)
{
	static char text[512];
	struct manifest_values v = {.text = text, .queues = 1};
	int n;

	served = (struct served){.module = &back};
	back.to.n = 0;
	asks_init(&served.asks, "test", NULL, NULL);
	ck_assert_msg(!parse(&back.manifest,
			     HEAD PLAIN_TARGET SETTINGS
			     ", \"network\": [{\"to\": \"m\", \"ports\": \"p\"}, {\"if\": \"n\", "
			     "\"to\": \"m\", \"ports\": \"n\"}]}",
			     e),
		      "%s", e->text);
	n = manifest_settings(&back.manifest, said, text, sizeof(text), e);
	if (n < 0)
		return n;
	v.len = (size_t)n;
	return served_reach(&served, &v, MODULE_LATER, e);
}

static bool reaches(const char *host, uint16_t port)
{
	struct connect_request r = {.family = strchr(host, ':') ? AF_INET6 : AF_INET, .port = port};

	ck_assert_int_eq(inet_pton(r.family, host, r.addr), 1);
	return asks_allows(&served.asks, &r);
}

START_TEST(reached)
{
	struct connect_request r = {.family = AF_UNIX, .port = 5, .addr = {10, 0, 0, 1}};
	struct err e = {0};

	ck_assert_msg(!reach("m=10.0.0.1+10.1.16.0/20+fd00::::1+fd01::::/33+"
			     "::::ffff::10.9.0.0/112:n=77",
			     &e),
		      "%s", e.text);
	ck_assert(reaches("10.0.0.1", 5) && reaches("10.0.0.1", 9) && reaches("10.0.0.1", 77));
	ck_assert(!reaches("10.0.0.1", 4) && !reaches("10.0.0.1", 10) && !reaches("10.0.0.1", 0));
	ck_assert(!reaches("10.0.0.2", 5) && !reaches("10.0.0.0", 5));
	ck_assert(reaches("10.1.16.0", 5) && reaches("10.1.31.255", 6));
	ck_assert(!reaches("10.1.15.255", 5) && !reaches("10.1.32.0", 5));
	ck_assert(reaches("fd00::1", 5) && !reaches("fd00::2", 5));
	ck_assert(reaches("fd01::ffff", 77) && reaches("fd01:0:7fff::", 5));
	ck_assert(!reaches("fd01:0:8000::", 5));
	ck_assert(reaches("::ffff:10.9.0.1", 5) && !reaches("::ffff:10.8.0.1", 5));
	/* The same bytes, of another kind. */
	ck_assert(!reaches("::ffff:10.0.0.1", 5) && !reaches("a00:1::", 5));
	ck_assert(!asks_allows(&served.asks, &r));
	/* The first is tried before the program starts; both are found by the setting's name. */
	ck_assert_uint_eq(back.to.n, 2);
	ck_assert_ptr_nonnull(strstr(served.hosts, "\n10.0.0.1 m\n"));
	ck_assert_ptr_nonnull(strstr(served.hosts, "\nfd00::1 m\n"));
	ck_assert_ptr_null(strstr(strstr(served.hosts, "10.0.0.1 m") + 1, "10.0.0.1 m"));
}
END_TEST

static const struct {
	const char *said, *says;
} unreachable[] = {
	{"m=10.0.0.1:p=x", "options: p 'x'; expected N or N-M"},
	{"m=10.0.0.1:p=0", "options: p '0'"},
	{"m=10.0.0.1:p=9-5", "options: p '9-5'"},
	{"m=10.0.0.1:p=5-", "options: p '5-'"},
	{"m=10.0.0.1:p=5-65536", "options: p '5-65536'"},
	{"m=10.0.0.1:p=5 6", "options: p '5 6'"},
	{"m=10.0.0.0/0", "options: m '10.0.0.0/0'; expected ADDRESS/BITS with 8 to 32 bits"},
	{"m=10.0.0.0/33", "options: m"},
	{"m=10.0.0/24", "options: m"},
	{"m=10.0.0.0/8x", "options: m"},
	{"m=10.0.0.0/", "options: m"},
	{"m=fd00::::/31", "with 32 to 128 bits"},
	{"m=10.0.0.1++10.0.0.2", "options: m '10.0.0.1++10.0.0.2'; expected names or addresses"},
	{"m=10.0.0.1+", "options: m '10.0.0.1+'; expected names or addresses"},
	{"m=+10.0.0.1", "options: m '+10.0.0.1'; expected names or addresses"},
	{"m=::::/32", "options: m '::/32'; expected ADDRESS/BITS with 104 to 128 bits"},
	{"m=::::ffff::0::0/96", "with 104 to 128 bits"},
	{"m=::::ffff::10.0.0.0/103", "with 104 to 128 bits"},
	{"m=::::fff0::0::0/79", "with 104 to 128 bits"},
	{"m=storage", "options: m: host 'storage'; expected an address"},
	{"m=a b", "options: m 'a b'; expected names or addresses"},
	{"m=", "options: m ''"},
};

START_TEST(not_reached)
{
	struct err e = {0};

	ck_assert_int_eq(reach(unreachable[_i].said, &e), -EINVAL);
	ck_assert_msg(strstr(e.text, unreachable[_i].says), "%s: %s", unreachable[_i].said, e.text);
}
END_TEST

/* ---- asking ---- */

static struct {
	struct asks asks;
	struct loop loop;
	int ask, answer, listener;
	struct connect_request good;
	unsigned broken;
} rig;

static void rig_broken(void *ctx)
{
	(void)ctx;
	rig.broken++;
}

/* A server on loopback, and a program that may connect to it. */
static void rig_up(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	socklen_t len = sizeof(a);
	struct ask_place p = {.family = AF_INET, .bits = 32, .addr = {127, 0, 0, 1}};
	struct err e = {0};

	memset(&rig, 0, sizeof(rig));
	rig.listener = socket(AF_INET, SOCK_STREAM, 0);
	ck_assert_int_eq(bind(rig.listener, (struct sockaddr *)&a, sizeof(a)), 0);
	ck_assert_int_eq(listen(rig.listener, 4), 0);
	ck_assert_int_eq(getsockname(rig.listener, (struct sockaddr *)&a, &len), 0);
	p.first = p.last = ntohs(a.sin_port);
	rig.good = (struct connect_request){
		.family = AF_INET, .port = p.first, .addr = {127, 0, 0, 1}};
	asks_init(&rig.asks, "test", rig_broken, NULL);
	ck_assert_int_eq(asks_add(&rig.asks, &p), 0);
	ck_assert_msg(!asks_begin(&rig.asks, &rig.loop, &rig.ask, &rig.answer, &e), "%s", e.text);
}

static void rig_down(void)
{
	asks_end(&rig.asks);
	close(rig.ask);
	close(rig.answer);
	close(rig.listener);
}

static void put(const void *p, size_t n)
{
	ck_assert_int_eq(write(rig.ask, p, n), (ssize_t)n);
}

/* The answer that is there: its code, and its descriptor or -1. False: there is none. */
static bool answered(int *code, int *fd)
{
	union {
		char room[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} u;
	struct connect_answer a;
	struct iovec iov = {&a, sizeof(a)};
	struct msghdr m = {.msg_iov = &iov,
			   .msg_iovlen = 1,
			   .msg_control = u.room,
			   .msg_controllen = sizeof(u.room)};
	const struct cmsghdr *c;

	*fd = -1;
	if (recvmsg(rig.answer, &m, MSG_DONTWAIT) != sizeof(a))
		return false;
	*code = a.code;
	c = CMSG_FIRSTHDR(&m);
	if (c)
		memcpy(fd, CMSG_DATA(c), sizeof(*fd));
	return true;
}

static void turn(void)
{
	ck_assert_int_eq(loop_step(&rig.loop, clock_ns() + 1000000000ull), 0);
}

START_TEST(connected)
{
	struct sockaddr_in peer = {0};
	socklen_t len = sizeof(peer);
	int code = -1, fd = -1;

	rig_up();
	put(&rig.good, sizeof(rig.good));
	turn();
	ck_assert(answered(&code, &fd));
	ck_assert_int_eq(code, 0);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(poll(&(struct pollfd){fd, POLLOUT, 0}, 1, 5000), 1);
	ck_assert_int_eq(getpeername(fd, (struct sockaddr *)&peer, &len), 0);
	ck_assert_uint_eq(ntohs(peer.sin_port), rig.good.port);
	close(fd);
	/* The program can say nothing on the socket by which it is answered. */
	ck_assert_int_eq(send(rig.answer, "x", 1, MSG_NOSIGNAL | MSG_DONTWAIT), -1);
	ck_assert_int_eq(errno, EPIPE);
	rig_down();
}
END_TEST

START_TEST(refused)
{
	struct connect_request r;
	int code, fd;

	rig_up();
	for (unsigned i = 0; i < 3; i++) {
		r = rig.good;
		if (i == 0)
			r.port++;
		else if (i == 1)
			r.addr[3] = 2;
		else
			r.family = AF_UNIX;
		put(&r, sizeof(r));
		turn();
		ck_assert(answered(&code, &fd));
		ck_assert_int_eq(code, EACCES);
		ck_assert_int_eq(fd, -1);
	}
	ck_assert_int_eq(poll(&(struct pollfd){rig.listener, POLLIN, 0}, 1, 0), 0);
	ck_assert(rig.asks.warned);
	ck_assert_uint_eq(rig.broken, 0);
	rig_down();
}
END_TEST

START_TEST(breaks_the_rules)
{
	rig_up();
	put(&rig.good, sizeof(rig.good) - 1);
	turn();
	ck_assert_uint_eq(rig.broken, 1);
	ck_assert_int_eq(rig.asks.ask, -1);
	ck_assert_int_eq(rig.asks.answer, -1);
	rig_down();
}
END_TEST

START_TEST(ends)
{
	rig_up();
	close(rig.ask);
	turn();
	ck_assert_int_eq(rig.asks.ask, -1);
	ck_assert_uint_eq(rig.broken, 0);
	rig.ask = -1;
	rig_down();
}
END_TEST

/* One that asks and asks is served no faster than ASKS_RATE, and costs nothing meanwhile. */
START_TEST(floods)
{
	struct connect_request r = rig.good;
	unsigned n = 0;
	int code, fd;

	rig_up();
	for (unsigned i = 0; i < 2 * ASKS_BURST; i++)
		put(&r, sizeof(r)); /* of no family */
	while (rig.asks.watch.loop) {
		turn();
		n += answered(&code, &fd);
	}
	ck_assert_uint_ge(n, ASKS_BURST);
	ck_assert_uint_lt(n, 2 * ASKS_BURST);
	ck_assert_uint_ne(rig.asks.timer.at_ns, 0);
	while (!answered(&code, &fd))
		turn();
	rig_down();
}
END_TEST

/* One that does not take its answers. */
START_TEST(takes_nothing)
{
	struct connect_request r = {0};

	rig_up();
	for (unsigned i = 0; !rig.broken; i++) {
		if (i < 3000)
			put(&r, sizeof(r));
		turn();
	}
	ck_assert_int_eq(rig.asks.ask, -1);
	rig_down();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("asks");
	TCase *t = tcase_create("asks");
	SRunner *r = srunner_create(s);
	int failed;

	suite_add_tcase(s, t);
	tcase_add_loop_test(t, wrong_networks, 0, ARRAY_LEN(bad));
	tcase_add_test(t, parts);
	tcase_add_test(t, reached);
	tcase_add_loop_test(t, not_reached, 0, ARRAY_LEN(unreachable));
	tcase_add_test(t, connected);
	tcase_add_test(t, refused);
	tcase_add_test(t, breaks_the_rules);
	tcase_add_test(t, ends);
	tcase_add_test(t, floods);
	tcase_add_test(t, takes_nothing);
	srunner_run_all(r, CK_ENV);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
