/* SPDX-License-Identifier: BSD-2-Clause */
/* Storage modules without a VM: URIs, manifests, the user's options, what a flush is worth,
 * connections and their fences. */
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
#include <insula/module_calls.h>
#include <insula/uri.h>

#include "devices/module/module_dev.h"
#include "spec/config.h"
#include "spec/manifest.h"
#include "supervisor/backing/module.h"

/* ---- URIs ---- */

static const struct {
	const char *text, *scheme, *user, *host, *path, *query, *socket;
	unsigned port;
} good_uris[] = {
	{"nbd://h", "nbd", "", "h", "", "", "", 0},
	{"nbd://h/", "nbd", "", "h", "", "", "", 0},
	{"nbd://storage.example:10/a/b", "nbd", "", "storage.example", "a/b", "", "", 10},
	{"nbd://[::1]:65535/x", "nbd", "", "::1", "x", "", "", 65535},
	{"nbd://me@h/x", "nbd", "me", "h", "x", "", "", 0},
	{"nbds+unix://me@/x?socket=/s", "nbds+unix", "me", "", "x", "socket=/s", "/s", 0},
	{"nbd+unix:///e%20x?socket=/run/a%2fb", "nbd+unix", "", "", "e x", "socket=/run/a%2fb",
	 "/run/a/b", 0},
	{"nbd+unix:///?a=b&socket=/s&c=d", "nbd+unix", "", "", "", "a=b&socket=/s&c=d", "/s", 0},
};

START_TEST(uris)
{
	const size_t i = (size_t)_i;
	struct err e = {0};
	struct uri u;

	ck_assert_msg(!uri_parse(&u, good_uris[i].text, &e), "%s: %s", good_uris[i].text, e.text);
	ck_assert_str_eq(u.scheme, good_uris[i].scheme);
	ck_assert_str_eq(u.user, good_uris[i].user);
	ck_assert_str_eq(u.host, good_uris[i].host);
	ck_assert_str_eq(u.path, good_uris[i].path);
	ck_assert_str_eq(u.query, good_uris[i].query);
	ck_assert_str_eq(u.socket, good_uris[i].socket);
	ck_assert_uint_eq(u.port, good_uris[i].port);
}
END_TEST

static const struct {
	const char *text, *says;
} bad_uris[] = {
	{"", "scheme"},
	{"nbd", "scheme"},
	{"nbd:x", "scheme"},
	{"NBD://h", "scheme"},
	{"1nbd://h", "scheme"},
	{"abcdefghijklmnopq://h", "scheme"},
	{"nbd://h:0", "port"},
	{"nbd://h:65536", "port"},
	{"nbd://h:1x", "port"},
	{"nbd://h:", "port"},
	{"nbd://h:99999999999999999999", "port"},
	{"nbd://a b", "host"},
	{"nbd://[::1", "host"},
	{"nbd://[]", "host"},
	{"nbd://[::1]x", "host"},
	{"nbd://@h", "user"},
	{"nbd://me:secret@h", "password"},
	{"iscsi://me%secret@h", "password"},
	{"iscsi://me%41@h", "password"},
	{"nbd://h/%", "path"},
	{"nbd://h/%0", "path"},
	{"nbd://h/%zz", "path"},
	{"nbd://h/%00", "path"},
	{"nbd://h/a\nb", "path"},
	{"nbd://h/x?y", "query"},
	{"nbd://h/x?=y", "query"},
	{"nbd://h/x?socket=", "socket"},
	{"nbd://h/x?socket=%1", "socket"},
	{"nbd://h/x#f", "fragment"},
	{"nbd://h/x?a=b#f", "fragment"},
};

START_TEST(wrong_uris)
{
	struct err e = {0};
	struct uri u;

	ck_assert_int_eq(uri_parse(&u, bad_uris[_i].text, &e), -EINVAL);
	ck_assert_msg(strstr(e.text, bad_uris[_i].says), "%s: %s", bad_uris[_i].text, e.text);
}
END_TEST

START_TEST(long_uris)
{
	char text[URI_MAX + 64] = "nbd://h/";
	struct err e = {0};
	struct uri u;

	memset(text + 8, 'x', URI_MAX - 8);
	text[URI_MAX] = 0;
	ck_assert_int_eq(uri_parse(&u, text, &e), 0);
	text[URI_MAX] = 'x';
	ck_assert_int_eq(uri_parse(&u, text, &e), -EINVAL);
	snprintf(text, sizeof(text), "nbd+unix:///?socket=/%0107d", 0);
	ck_assert_int_eq(uri_parse(&u, text, &e), -EINVAL);
	snprintf(text, sizeof(text), "nbd+unix:///?socket=/%0106d", 0);
	ck_assert_int_eq(uri_parse(&u, text, &e), 0);
}
END_TEST

START_TEST(queries)
{
	struct err e = {0};
	char out[8];
	struct uri u;

	ck_assert_int_eq(uri_parse(&u, "nbd://h/x?a=1&bc=%41%42&c=", &e), 0);
	ck_assert(uri_query(&u, "a", out, sizeof(out)));
	ck_assert_str_eq(out, "1");
	ck_assert(uri_query(&u, "bc", out, sizeof(out)));
	ck_assert_str_eq(out, "AB");
	ck_assert(!uri_query(&u, "b", out, sizeof(out)));
	ck_assert(!uri_query(&u, "bc", out, 2));
}
END_TEST

/* ---- manifests ---- */

#define HEAD "{\"api\": 1, \"device\": \"disk\", \"about\": \"x\""

static int parse(struct manifest *m, const char *text, struct err *e)
{
	return manifest_parse(m, "mod", text, strlen(text), e);
}

START_TEST(manifests)
{
	static struct manifest m;
	struct err e = {0};

	ck_assert_int_eq(parse(&m, HEAD "}", &e), 0);
	ck_assert_str_eq(m.program, "mod");
	ck_assert_uint_eq(m.nschemes, 0);
	ck_assert_uint_eq(m.calls, 0);
	ck_assert_int_eq(parse(&m,
			       HEAD
			       ", \"program\": \"mod-2\", \"connect\": {\"a\": {\"over\": "
			       "\"tcp\", \"port\": 7}, \"b+c\": {\"over\": \"unix\"}}, "
			       "\"settings\": {\"n\": {\"type\": \"number\", \"min\": 2, "
			       "\"max\": 4, \"default\": \"3\"}, \"c\": {\"type\": \"choice\", "
			       "\"choices\": [\"x\", \"y\"]}}, \"jail\": {\"calls\": "
			       "[\"socket\", \"events\"]}, \"limits\": {\"memory\": \"1G\", "
			       "\"threads\": 5, \"descriptors\": 6}}",
			       &e),
			 0);
	ck_assert_str_eq(m.program, "mod-2");
	ck_assert_uint_eq(manifest_scheme(&m, "a")->port, 7);
	ck_assert_int_eq(manifest_scheme(&m, "b+c")->over, MANIFEST_UNIX);
	ck_assert_ptr_null(manifest_scheme(&m, "b"));
	ck_assert_uint_eq(m.calls, MODULE_CALLS_SOCKET | MODULE_CALLS_EVENTS);
	ck_assert_uint_eq(m.memory, 1u << 30);
	ck_assert_uint_eq(m.threads, 5);
	ck_assert_uint_eq(m.descriptors, 6);
}
END_TEST

static const struct {
	const char *text, *says;
} bad_manifests[] = {
	{"", "no JSON"},
	{"[]", "an object"},
	{HEAD "} {}", "more than one value"},
	{HEAD ", \"x\": 1}", "x: 1; expected no such member"},
	{"{\"api\": 2, \"device\": \"disk\", \"about\": \"x\"}", "api: 2"},
	{"{\"api\": \"1\", \"device\": \"disk\", \"about\": \"x\"}", "api"},
	{"{\"api\": 1, \"device\": \"net\", \"about\": \"x\"}", "device"},
	{"{\"api\": 1, \"device\": \"disk\"}", "about: missing"},
	{"{\"api\": 1, \"device\": \"disk\", \"about\": \"a\\nb\"}", "about"},
	{"{\"api\": 1, \"device\": \"disk\", \"about\": \"a\\u0000b\"}", "about"},
	{HEAD ", \"program\": \"../x\"}", "without a path"},
	{HEAD ", \"program\": \"/x\"}", "without a path"},
	{HEAD ", \"program\": \"..\"}", "without a path"},
	{HEAD ", \"program\": \"\"}", "a word"},
	{HEAD ", \"program\": \"-x\"}", "a word"},
	{HEAD ", \"connect\": {}}", "connect"},
	{HEAD ", \"connect\": {\"A\": {\"over\": \"unix\"}}}", "connect.A"},
	{HEAD ", \"connect\": {\"a\": {\"over\": \"udp\"}}}", "connect.a"},
	{HEAD ", \"connect\": {\"a\": {\"over\": \"tcp\"}}}", "port"},
	{HEAD ", \"connect\": {\"a\": {\"over\": \"tcp\", \"port\": 65536}}}", "port"},
	{HEAD ", \"connect\": {\"a\": {\"over\": \"unix\", \"x\": 1}}}", "connect.x"},
	{HEAD ", \"settings\": {\"a=b\": {\"type\": \"text\"}}}", "settings.a=b"},
	{HEAD ", \"settings\": {\"a\": {}}}", "settings.a.type: missing"},
	{HEAD ", \"settings\": {\"a\": {\"type\": \"number\", \"min\": 5, \"max\": 4}}}",
	 "settings.a.max"},
	{HEAD ", \"settings\": {\"a\": {\"type\": \"number\", \"max\": 4, \"default\": \"5\"}}}",
	 "settings.a.default"},
	{HEAD ", \"settings\": {\"a\": {\"type\": \"choice\"}}}", "settings.a.choices"},
	{HEAD ", \"settings\": {\"a\": {\"type\": \"text\", \"choices\": [\"x\"]}}}",
	 "settings.a.choices"},
	{HEAD ", \"settings\": {\"a\": {\"type\": \"choice\", \"choices\": []}}}",
	 "settings.a.choices"},
	{HEAD ", \"settings\": {\"a\": {\"type\": \"text\", \"color\": 1}}}", "settings.a.color"},
	{HEAD ", \"settings\": {\"a\": {\"type\": \"file\", \"max\": 262145}}}", "settings.a.max"},
	{HEAD ", \"settings\": {\"a\": {\"type\": \"file\", \"default\": \"x\"}}}",
	 "settings.a.default"},
	{HEAD ", \"jail\": {\"calls\": [\"all\"]}}", "jail.calls"},
	{HEAD ", \"jail\": {\"root\": \"/\"}}", "jail.root"},
	{HEAD ", \"limits\": {\"memory\": 5}}", "limits.memory"},
	{HEAD ", \"limits\": {\"memory\": \"1K\"}}", "limits.memory"},
	{HEAD ", \"limits\": {\"threads\": -1}}", "limits.threads"},
	{HEAD ", \"limits\": {\"threads\": 1.5}}", "limits.threads"},
	{HEAD ", \"limits\": {\"descriptors\": 1025}}", "limits.descriptors"},
};

START_TEST(wrong_manifests)
{
	static struct manifest m;
	struct err e = {0};

	ck_assert_int_eq(parse(&m, bad_manifests[_i].text, &e), -EINVAL);
	ck_assert_msg(strstr(e.text, bad_manifests[_i].says), "%s: %s", bad_manifests[_i].text,
		      e.text);
	ck_assert_ptr_nonnull(strstr(e.text, "manifest mod: "));
}
END_TEST

START_TEST(options)
{
	static struct manifest m;
	struct err e = {0};
	char out[64];

	ck_assert_int_eq(parse(&m,
			       HEAD
			       ", \"settings\": {\"n\": {\"type\": \"number\", \"min\": 2, "
			       "\"max\": 4, \"default\": \"3\"}, \"c\": {\"type\": \"choice\", "
			       "\"choices\": [\"x\", \"y\"]}, \"t\": {\"type\": \"text\", "
			       "\"min\": 1, \"max\": 3}}}",
			       &e),
			 0);
	ck_assert_int_eq(manifest_settings(&m, NULL, out, sizeof(out), &e), 4);
	ck_assert_mem_eq(out, "n=3", 4);
	ck_assert_int_eq(manifest_settings(&m, "c=y:n=4", out, sizeof(out), &e), 8);
	ck_assert_mem_eq(out, "c=y\0n=4", 8);
	ck_assert_int_eq(manifest_settings(&m, "t=a=b", out, sizeof(out), &e), 10);
	ck_assert_int_eq(manifest_settings(&m, "t=a=b", out, 9, &e), -EINVAL);
	for (const char *const *p =
		     (const char *const[]){"x=1", "n", "n=", "n=5", "n=1", "n=-3", "n=3x", "c=z",
					   "c=", "t=", "t=abcd", "n=3:n=3",
					   "n=99999999999999999999", "=", NULL};
	     *p; p++)
		ck_assert_msg(manifest_settings(&m, *p, out, sizeof(out), &e) == -EINVAL &&
				      !strncmp(e.text, "options: ", 9),
			      "%s: %s", *p, e.text);
}
END_TEST

/* ---- manifests of the second kind ---- */

#define SERVES                                                                              \
	"{\"api\": 1, \"device\": \"disk\", \"about\": \"x\", \"serves\": \"vhost-user\", " \
	"\"program\": \"/usr/bin/x\", \"target\": {\"type\": \"file\", \"write\": true}, "  \
	"\"settings\": {\"f\": {\"type\": \"choice\", \"choices\": [\"a\", \"b\"], "        \
	"\"required\": true}, \"k\": {\"type\": \"file\"}, \"t\": {\"type\": \"text\"}}"

static const struct {
	const char *text, *says;
} bad_serving[] = {
	{HEAD ", \"serves\": \"vhost-user\"}", "program: missing; expected an absolute path"},
	{HEAD ", \"serves\": \"vhost-user\", \"program\": \"/x\"}", "target: missing"},
	{HEAD ", \"arguments\": []}", "arguments: []; expected it with \"serves\" alone"},
	{HEAD ", \"package\": \"x\"}", "package"},
	{HEAD ", \"settings\": {\"a\": {\"type\": \"file\", \"write\": true}}}",
	 "written with \"serves\" alone"},
	{HEAD ", \"settings\": {\"a\": {\"type\": \"text\", \"write\": true}}}", "write"},
	{HEAD ", \"settings\": {\"a\": {\"type\": \"text\", \"line-of-user\": true}}}",
	 "line-of-user"},
	{SERVES ", \"jail\": {}}", "jail: {}; expected it without \"serves\""},
	{SERVES ", \"connect\": {\"a\": {\"over\": \"unix\"}}}", "connect"},
	{SERVES ", \"program\": \"x\"}", "program: \"x\"; expected an absolute path"},
	{SERVES ", \"program\": \"/usr/../x\"}", "program: \"/usr/../x\"; expected"},
	{SERVES ", \"program\": \"/usr/./x\"}", "program"},
	{SERVES ", \"program\": \"/usr//x\"}", "program"},
	{SERVES ", \"program\": \"/usr/\"}", "program"},
	{SERVES ", \"program\": \"/..\"}", "program"},
	{SERVES ", \"arguments\": [1]}", "arguments"},
	{SERVES ", \"arguments\": [\"${x}\"]}", "arguments: '${x': missing"},
	{SERVES ", \"arguments\": [\"${f\"]}", "arguments: '${f': missing"},
	{SERVES ", \"arguments\": [{\"if\": \"x\", \"then\": [\"a\"]}]}", "if 'x'"},
	{SERVES ", \"arguments\": [{\"if\": \"f=a !y=b\", \"then\": [\"a\"]}]}", "if 'f=a !y=b'"},
	{SERVES ", \"arguments\": [{\"if\": \"f\"}]}", "\"if\" and \"then\""},
	{SERVES ", \"arguments\": [{\"if\": \"f\", \"else\": []}]}", "arguments.else"},
	{SERVES ", \"refuse\": [{\"if\": \"f\"}]}", "refuse.says: missing"},
	{SERVES ", \"refuse\": [{\"says\": \"x\", \"if\": \"y\"}]}", "refuse.if"},
	{SERVES ", \"refuse\": [{\"says\": \"x\", \"bits\": \"01\"}]}", "refuse.file"},
	{SERVES ", \"refuse\": [{\"says\": \"x\", \"file\": \"k\"}]}", "refuse.file"},
	{SERVES ", \"refuse\": [{\"says\": \"x\", \"file\": \"f\", \"bits\": \"01\"}]}",
	 "refuse.file"},
	{SERVES ", \"refuse\": [{\"says\": \"x\", \"file\": \"k\", \"bits\": \"0\"}]}",
	 "refuse.bits"},
	{SERVES ", \"refuse\": [{\"says\": \"x\", \"file\": \"k\", \"multiple\": 1}]}",
	 "refuse.multiple"},
};

START_TEST(wrong_serving)
{
	static struct manifest m;
	struct err e = {0};

	ck_assert_int_eq(parse(&m, bad_serving[_i].text, &e), -EINVAL);
	ck_assert_msg(strstr(e.text, bad_serving[_i].says), "%s: %s", bad_serving[_i].text, e.text);
}
END_TEST

/* What the user says, as the supervisor puts it together. */
static struct manifest_values values(const struct manifest *m, char *text, size_t size,
				     const char *said, bool ro)
{
	struct err e = {0};
	int n = manifest_target(m, "/a b\"c", text, size, &e),
	    more = manifest_settings(m, said, text + n, size - (size_t)n, &e);

	ck_assert_int_gt(n, 0);
	ck_assert_msg(more >= 0, "%s", e.text);
	return (struct manifest_values){text, (size_t)(n + more), ro, 3};
}

START_TEST(serving)
{
	static struct manifest m;
	const char *argv[MANIFEST_ARGUMENTS + 2];
	char text[256], room[256];
	struct manifest_values v;
	struct err e = {0};

	ck_assert_msg(!parse(&m,
			     SERVES
			     ", \"arguments\": [\"-${f}\", {\"if\": \"k !ro\", \"then\": "
			     "[\"k=${k},${write}\"]}, {\"if\": \"f=b\", \"then\": [\"b\", "
			     "\"${target}${queues}\"]}, {\"if\": \"t\", \"then\": [\"${t}\"]}]}",
			     &e),
		      "%s", e.text);
	ck_assert_int_eq(manifest_settings(&m, "k=/x", text, sizeof(text), &e), -EINVAL);
	ck_assert_ptr_nonnull(strstr(e.text, "f: missing; expected a or b"));
	ck_assert_int_eq(manifest_settings(&m, "f=a:k=x", text, sizeof(text), &e), -EINVAL);
	ck_assert_int_eq(manifest_target(&m, "rel", text, sizeof(text), &e), -EINVAL);
	v = values(&m, text, sizeof(text), "f=a:k=/x::y", false);
	ck_assert_str_eq(manifest_value(&v, "k"), "/x:y");
	ck_assert_ptr_null(manifest_value(&v, "t"));
	ck_assert_int_eq(manifest_argv(&m, &v, argv, room, sizeof(room), &e), 0);
	ck_assert_str_eq(argv[0], "x");
	ck_assert_str_eq(argv[1], "-a");
	ck_assert_str_eq(argv[2], "k=/files/k,true");
	ck_assert_ptr_null(argv[3]);
	for (size_t n = 0; n < sizeof("-a") + sizeof("k=/files/k,true"); n++)
		ck_assert_int_eq(manifest_argv(&m, &v, argv, room, n, &e), -ENOSPC);
	v = values(&m, text, sizeof(text), "f=b:k=/x", true);
	ck_assert_int_eq(manifest_argv(&m, &v, argv, room, sizeof(room), &e), 0);
	ck_assert_str_eq(argv[2], "b");
	ck_assert_str_eq(argv[3], "/files/target3");
	ck_assert_ptr_null(argv[4]);
	/* A text must mean nothing to who splits arguments up. */
	for (const char *const *p = (const char *const[]){"f=a:t=x,y=z", "f=a:t=a\"b", "f=a:t=a b",
							  "f=a:t=a\\b", "f=a:t='", NULL};
	     *p; p++) {
		v = values(&m, text, sizeof(text), *p, false);
		ck_assert_int_eq(manifest_argv(&m, &v, argv, room, sizeof(room), &e), -EINVAL);
	}
	v = values(&m, text, sizeof(text), "f=a:t=ssh:://h/x%20y", false);
	ck_assert_int_eq(manifest_argv(&m, &v, argv, room, sizeof(room), &e), 0);
	ck_assert_str_eq(argv[2], "ssh://h/x%20y");
}
END_TEST

START_TEST(refusing)
{
	static struct manifest m;
	char text[256], path[] = "/tmp/insula-module-XXXXXX";
	int fd = mkstemp(path);
	struct manifest_values v;
	struct err e = {0};

	unlink(path);
	ck_assert_msg(!parse(&m,
			     SERVES
			     ", \"refuse\": [{\"if\": \"f=b\", \"says\": \"no b\"}, "
			     "{\"if\": \"f=a\", \"says\": \"magic\", \"file\": \"target\", "
			     "\"at\": 2, \"unless\": \"4142\"}, {\"says\": \"bits\", \"file\": "
			     "\"target\", \"at\": 4, \"bits\": \"0080\"}, {\"says\": \"size\", "
			     "\"file\": \"target\", \"multiple\": 4}]}",
			     &e),
		      "%s", e.text);
	v = values(&m, text, sizeof(text), "f=b", false);
	ck_assert_int_eq(manifest_refuses(&m, &v, NULL, -1, &e), -EINVAL);
	ck_assert_str_eq(e.text, "no b");
	ck_assert_int_eq(manifest_refuses(&m, &v, "target", fd, &e), 0); /* empty: nothing is set */
	v = values(&m, text, sizeof(text), "f=a", false);
	ck_assert_int_eq(manifest_refuses(&m, &v, NULL, -1, &e), 0);
	ck_assert_int_eq(manifest_refuses(&m, &v, "k", fd, &e), 0);
	for (const char *const *p = (const char *const[]){"", "xxA", "xxAC", NULL}; *p; p++) {
		ck_assert_int_eq(ftruncate(fd, 0), 0);
		ck_assert_int_eq(pwrite(fd, *p, strlen(*p), 0), (ssize_t)strlen(*p));
		ck_assert_int_eq(manifest_refuses(&m, &v, "target", fd, &e), -EINVAL);
		ck_assert_str_eq(e.text, "magic");
	}
	ck_assert_int_eq(pwrite(fd, "xxAB", 4, 0), 4);
	ck_assert_int_eq(manifest_refuses(&m, &v, "target", fd, &e), 0);
	ck_assert_int_eq(pwrite(fd, "xxAB\xff\x7f", 6, 0), 6);
	ck_assert_int_eq(manifest_refuses(&m, &v, "target", fd, &e), -EINVAL);
	ck_assert_str_eq(e.text, "size");
	ck_assert_int_eq(pwrite(fd, "xxAB\0\x80zz", 8, 0), 8);
	ck_assert_int_eq(manifest_refuses(&m, &v, "target", fd, &e), -EINVAL);
	ck_assert_str_eq(e.text, "bits");
	close(fd);
}
END_TEST

static void put_file(const char *dir, const char *name, const char *text, mode_t mode)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	unlink(path);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write_full(fd, text, strlen(text)), 0);
	ck_assert_int_eq(fchmod(fd, mode), 0);
	close(fd);
}

/* What options say, with a text and a file. */
static int take(struct module_back *b, const char *said, struct err *e)
{
	int n;

	*b = (struct module_back){.files = -1};
	ck_assert_int_eq(parse(&b->manifest,
			       HEAD ", \"settings\": {\"t\": {\"type\": \"text\"}, \"f\": "
				    "{\"type\": \"file\", \"max\": 5}, \"g\": {\"type\": "
				    "\"file\", \"max\": 5}, \"k\": {\"type\": \"file\", "
				    "\"max\": 40, \"line-of-user\": true}}}",
			       e),
			 0);
	memcpy(b->text, "x:y", 4);
	strcpy(b->uri.user, "me");
	n = manifest_settings(&b->manifest, said, b->text + 4, sizeof(b->text) - 4, e);
	if (n < 0)
		return n;
	b->text_len = 4 + (unsigned)n;
	n = module_take_files(b, e);
	if (n)
		fd_close(&b->files);
	return n;
}

static void wrong_file(const char *said, const char *says)
{
	static struct module_back b;
	struct err e = {0};

	ck_assert_int_lt(take(&b, said, &e), 0);
	ck_assert_msg(strstr(e.text, says) && !strncmp(e.text, "options: ", 9), "%s", e.text);
}

START_TEST(secrets)
{
	char dir[] = "/tmp/insula-module-XXXXXX", said[256], held[16] = {0};
	static struct module_back b;
	struct err e = {0};
	int p[2];

	ck_assert_ptr_nonnull(mkdtemp(dir));
	put_file(dir, "f", "12345", 0600);
	put_file(dir, "g", "a\nb", 0600);
	put_file(dir, "long", "123456", 0600);
	snprintf(said, sizeof(said), "g=%s/g:t=z:f=%s/f", dir, dir);
	ck_assert_msg(!take(&b, said, &e), "%s", e.text);
	ck_assert_uint_eq(b.text_len, 4 + 6 + 4 + 6);
	ck_assert_mem_eq(b.text, "x:y\0g=0:3\0t=z\0f=4:5", 20);
	ck_assert_int_eq(pread(b.files, held, sizeof(held), 0), 10);
	ck_assert_mem_eq(held, "a\nb\00012345", 10);
	ck_assert_int_lt((int)pwrite(b.files, "x", 1, 0), 0);
	ck_assert_int_lt(ftruncate(b.files, 0), 0);
	fd_close(&b.files);
	snprintf(said, sizeof(said), "f=%s/long", dir);
	wrong_file(said, "more; expected 1 to 5 bytes");
	wrong_file("f=/dev/null", "empty; expected 1 to 5 bytes");
	wrong_file("f=/dev/zero", "more; expected");
	wrong_file("f=/no/such", "f /no/such: No such file");
	wrong_file("f=f", "expected an absolute path");
	snprintf(said, sizeof(said), "f=%s", dir);
	wrong_file(said, "f ");
	/* A descriptor, of a pipe. */
	ck_assert_int_eq(pipe(p), 0);
	ck_assert_int_eq(write(p[1], "abc", 3), 3);
	close(p[1]);
	snprintf(said, sizeof(said), "f=/dev/fd/%d", p[0]);
	ck_assert_msg(!take(&b, said, &e), "%s", e.text);
	ck_assert_mem_eq(b.text + 4, "f=0:3", 6);
	fd_close(&b.files);
	close(p[0]);
	/* Nothing of the kind: no memory for it. */
	ck_assert_int_eq(take(&b, "t=z", &e), 0);
	ck_assert_int_eq(b.files, -1);
	ck_assert_mem_eq(b.text, "x:y\0t=z", 8);
	for (const char *const *f = (const char *const[]){"f", "g", "long", NULL}; *f; f++) {
		snprintf(said, sizeof(said), "%s/%s", dir, *f);
		unlink(said);
	}
	rmdir(dir);
}
END_TEST

/* Of a file of keys a module gets the user's, and nothing of the others. */
START_TEST(line_of_user)
{
	static const struct {
		const char *text, *held; /* NULL: there is no line of "me" */
	} files[] = {
		{"me:11", "me:11"},
		{"you:22\nme:11\nhim:33\n", "me:11"},
		{"#me:0\n\nme:11\nme:44\n", "me:11"},
		{"mee:1\nm:2\n:3\nme\nme:4", "me:4"},
		{"you:22\nyoume:33\n", NULL},
		{"\n", NULL},
		{"me", NULL},
		{"me:\nme:\r\nme:5\n", "me:5"},
		{"me:\n", NULL},
	};
	char dir[] = "/tmp/insula-module-XXXXXX", said[256], want[32], held[48];
	static struct module_back b;

	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(said, sizeof(said), "k=%s/k", dir);
	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		struct err e = {0};
		int rc;

		put_file(dir, "k", files[i].text, 0600);
		rc = take(&b, said, &e);
		ck_assert_int_eq(rc, files[i].held ? 0 : -EINVAL);
		if (rc) {
			ck_assert_str_eq(e.text, "options: k: no line of 'me'; expected me:KEY");
			continue;
		}
		snprintf(want, sizeof(want), "k=0:%zu", strlen(files[i].held));
		ck_assert_str_eq(b.text + 4, want);
		memset(held, 'x', sizeof(held));
		ck_assert_int_eq(pread(b.files, held, sizeof(held), 0),
				 (int)strlen(files[i].held) + 1);
		ck_assert_str_eq(held, files[i].held);
		fd_close(&b.files);
	}
	snprintf(said, sizeof(said), "%s/k", dir);
	unlink(said);
	rmdir(dir);
}
END_TEST

static int look(const char *dir, struct err *e)
{
	static struct manifest m;
	int fd = -1, rc = manifest_open(&m, dir, "mod", &fd, e);

	ck_assert_int_eq(rc < 0, fd < 0);
	fd_close(&fd);
	return rc;
}

START_TEST(files)
{
	char dir[] = "/tmp/insula-module-XXXXXX", path[128];
	struct err e = {0};

	ck_assert_ptr_nonnull(mkdtemp(dir));
	ck_assert_int_eq(look(dir, &e), -ENOENT);
	put_file(dir, "mod.json", HEAD "}", 0644);
	ck_assert_int_eq(look(dir, &e), -ENOENT);
	put_file(dir, "mod", "#!", 0755);
	ck_assert_int_eq(look(dir, &e), 0);
	for (mode_t mode = 0775; mode <= 0777; mode += 2) {
		put_file(dir, "mod", "#!", mode);
		ck_assert_int_eq(look(dir, &e), -EPERM);
	}
	put_file(dir, "mod", "#!", 0754);
	ck_assert_int_eq(look(dir, &e), -EACCES);
	put_file(dir, "mod", "#!", 0755);
	put_file(dir, "mod.json", HEAD "}", 0664);
	ck_assert_int_eq(look(dir, &e), -EPERM);
	put_file(dir, "mod.json", HEAD ", \"program\": \"fifo\"}", 0644);
	snprintf(path, sizeof(path), "%s/fifo", dir);
	ck_assert_int_eq(mkfifo(path, 0755), 0);
	ck_assert_int_eq(look(dir, &e), -EINVAL);
	unlink(path);
	ck_assert_int_eq(symlink("mod", path), 0);
	ck_assert_int_eq(look(dir, &e), -ELOOP);
	unlink(path);
	put_file(dir, "mod.json", HEAD "}", 0644);
	ck_assert_int_eq(chmod(dir, 0777), 0);
	ck_assert_int_eq(look(dir, &e), -EPERM);
	for (int i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), "%s/mod%s", dir, i ? ".json" : "");
		unlink(path);
	}
	rmdir(dir);
}
END_TEST

START_TEST(names)
{
	ck_assert_uint_eq(config_module("nbd:nbd://h"), 3);
	ck_assert_uint_eq(config_module("a-2:"), 3);
	ck_assert_uint_eq(config_module("c:/x"), 0);
	ck_assert_uint_eq(config_module("./nbd:x"), 0);
	ck_assert_uint_eq(config_module("/nbd:x"), 0);
	ck_assert_uint_eq(config_module("Nbd:x"), 0);
	ck_assert_uint_eq(config_module("-nbd:x"), 0);
	ck_assert_uint_eq(config_module("nbd"), 0);
	ck_assert_uint_eq(config_module("abcdefghijklmnopqrstuvwxy:"), 0);
}
END_TEST

/* ---- what a flush is worth ---- */

static void written(struct module_page *p)
{
	atomic_fetch_add(&p->written, 1);
}

static int flush(struct module_page *p, int answer)
{
	uint64_t at;
	int rc = module_flush_begins(p, &at);

	return rc == 1 ? module_flush_done(p, at, answer) : rc;
}

START_TEST(flushes)
{
	struct module_page p = {0};
	uint64_t at;

	ck_assert_int_eq(module_flush_begins(&p, &at), 0); /* nothing to be flushed */
	module_page_lost(&p);                              /* nor to be lost */
	ck_assert_int_eq(module_flush_begins(&p, &at), 0);
	written(&p);
	ck_assert_int_eq(module_flush_begins(&p, &at), 1);
	ck_assert_int_eq(module_flush_done(&p, at, 0), 0);
	ck_assert_int_eq(module_flush_begins(&p, &at), 0);
	module_page_lost(&p); /* it is covered */
	ck_assert_int_eq(module_flush_begins(&p, &at), 0);
	written(&p);
	module_page_lost(&p);
	ck_assert_int_eq(module_flush_begins(&p, &at), -EIO); /* once */
	ck_assert_int_eq(module_flush_begins(&p, &at), 0);
	/* The server is lost while a flush is under way, and the next one answers it. */
	written(&p);
	ck_assert_int_eq(module_flush_begins(&p, &at), 1);
	module_page_lost(&p);
	ck_assert_int_eq(module_flush_done(&p, at, 0), -EIO);
	written(&p);
	ck_assert_int_eq(flush(&p, 0), 0);
	/* What is written meanwhile is not covered. */
	written(&p);
	ck_assert_int_eq(module_flush_begins(&p, &at), 1);
	written(&p);
	ck_assert_int_eq(module_flush_done(&p, at, 0), 0);
	module_page_lost(&p);
	ck_assert_int_eq(flush(&p, 0), -EIO);
	/* A flush that the server refuses covers nothing. */
	written(&p);
	ck_assert_int_eq(flush(&p, -EIO), -EIO);
	module_page_lost(&p);
	ck_assert_int_eq(module_flush_begins(&p, &at), -EIO);
}
END_TEST

/* ---- connections, and their fences ---- */

static struct {
	struct module_back b;
	int listener, peer;
	char path[64];
} rig;

static void rig_listen(void)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};

	strcpy(a.sun_path, rig.path);
	unlink(rig.path);
	rig.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(bind(rig.listener, (struct sockaddr *)&a, sizeof(a)), 0);
	ck_assert_int_eq(listen(rig.listener, 4), 0);
}

static void rig_begin(void)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};

	memset(&rig, 0, sizeof(rig));
	snprintf(rig.path, sizeof(rig.path), "/tmp/insula-module-%d.sock", (int)getpid());
	strcpy(a.sun_path, rig.path);
	rig.b.exec_fd = rig.b.first = -1;
	rig.b.connects = true;
	rig.b.to.n = 1;
	memcpy(&rig.b.to.at[0].at, &a, sizeof(a));
	rig.b.to.at[0].len = sizeof(a);
	for (unsigned i = 0; i < BLK_MAX_QUEUES; i++)
		rig.b.slot[i].had = -1;
	rig_listen();
}

static void rig_end(void)
{
	fd_close(&rig.peer);
	fd_close(&rig.listener);
	fd_close(&rig.b.first);
	for (unsigned i = 0; i < BLK_MAX_QUEUES; i++)
		fd_close(&rig.b.slot[i].had);
	unlink(rig.path);
}

/* As a lane asks and gets one; its own copy is closed, as by a process that died. */
static void connect_lane(uint32_t lane)
{
	struct err e = {0};
	uint32_t got = 99;
	int fd;

	ck_assert(module_asks(&rig.b, lane));
	ck_assert(module_due(&rig.b) && module_due(&rig.b) <= clock_ns());
	fd = module_retry(&rig.b, &got, &e);
	ck_assert_msg(fd >= 0, "%s", e.text);
	ck_assert_uint_eq(got, lane);
	ck_assert_uint_eq(module_due(&rig.b), 0);
	close(fd);
	rig.peer = accept(rig.listener, NULL, NULL);
	ck_assert_int_ge(rig.peer, 0);
}

START_TEST(asks)
{
	struct err e = {0};
	uint32_t lane;
	uint64_t before;

	rig_begin();
	ck_assert(!module_asks(&rig.b, BLK_MAX_QUEUES));
	ck_assert_int_eq(module_retry(&rig.b, &lane, &e), -EAGAIN);
	connect_lane(3);
	fd_close(&rig.peer);
	fd_close(&rig.listener);
	unlink(rig.path);
	/* Nobody is there: later, and later. */
	before = clock_ns();
	ck_assert(module_asks(&rig.b, 3));
	ck_assert_uint_gt(module_due(&rig.b), before);
	while (module_due(&rig.b) > clock_ns())
		usleep(1000);
	before = clock_ns();
	ck_assert_int_eq(module_retry(&rig.b, &lane, &e), -ENOENT);
	ck_assert_uint_gt(module_due(&rig.b), before);
	rig_listen();
	while (module_due(&rig.b) > clock_ns())
		usleep(1000);
	lane = (uint32_t)module_retry(&rig.b, &lane, &e);
	ck_assert_int_ge((int)lane, 0);
	close((int)lane);
	rig_end();
}
END_TEST

/* Until it is quiet; how often it was not. */
static unsigned wait_quiet(void (*between)(unsigned n))
{
	unsigned n = 0;

	for (; !module_quiet(&rig.b); n++) {
		if (between)
			between(n);
		usleep(2000);
	}
	return n;
}

/* A server as it should be: reads to the end, then closes. */
static void close_at_end(unsigned n)
{
	char c;

	(void)n;
	if (rig.peer >= 0 && recv(rig.peer, &c, 1, MSG_DONTWAIT) == 0)
		fd_close(&rig.peer);
}

START_TEST(same_server)
{
	int fd;

	rig_begin();
	connect_lane(0);
	ck_assert_uint_gt(wait_quiet(close_at_end), 0);
	ck_assert_int_eq(rig.peer, -1); /* it has closed, before we went on */
	ck_assert(rig.b.same);
	fd = module_hand_out(&rig.b);
	ck_assert_int_ge(fd, 0);
	close(fd);
	rig_end();
}
END_TEST

START_TEST(dead_server)
{
	rig_begin();
	connect_lane(0);
	fd_close(&rig.peer);
	ck_assert_uint_eq(wait_quiet(NULL), 0);
	ck_assert(!rig.b.same); /* it may be another one by now */
	rig_end();
}
END_TEST

START_TEST(never_connected)
{
	rig_begin();
	rig.b.same = true;
	ck_assert_int_eq(module_quiet(&rig.b), 1);
	ck_assert(!rig.b.same);
	ck_assert_int_eq(module_hand_out(&rig.b), -1);
	rig_end();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("module");
	TCase *t = tcase_create("module");
	SRunner *r = srunner_create(s);
	int failed;

	suite_add_tcase(s, t);
	tcase_add_loop_test(t, uris, 0, ARRAY_LEN(good_uris));
	tcase_add_loop_test(t, wrong_uris, 0, ARRAY_LEN(bad_uris));
	tcase_add_test(t, long_uris);
	tcase_add_test(t, queries);
	tcase_add_test(t, manifests);
	tcase_add_loop_test(t, wrong_manifests, 0, ARRAY_LEN(bad_manifests));
	tcase_add_loop_test(t, wrong_serving, 0, ARRAY_LEN(bad_serving));
	tcase_add_test(t, serving);
	tcase_add_test(t, refusing);
	tcase_add_test(t, options);
	tcase_add_test(t, line_of_user);
	tcase_add_test(t, files);
	tcase_add_test(t, secrets);
	tcase_add_test(t, names);
	tcase_add_test(t, flushes);
	tcase_add_test(t, asks);
	tcase_add_test(t, same_server);
	tcase_add_test(t, dead_server);
	tcase_add_test(t, never_connected);
	srunner_run_all(r, CK_ENV);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
