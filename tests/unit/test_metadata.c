/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The metadata service without a guest: trees of JSON and their flat form, requests and tokens, and
 * TCP against a small client that loses, repeats and reorders segments.
 */
#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <metadata/metadata.h>
#include <insula/base.h>
#include <spec/config.h>
#include <supervisor/backing/metadata.h>
#include <supervisor/backing/seed.h>

#define SECOND_NS 1000000000ull

/* ---- trees ---- */

static json_object *parsed(const char *text)
{
	struct err e;
	json_object *o = metadata_parse(text, strlen(text), &e);

	ck_assert_msg(o != NULL, "%s", e.text);
	return o;
}

static void *flat;
static size_t flat_len;
static struct md_tree tree;

static void serve_tree(const char *text)
{
	json_object *o = parsed(text);
	struct err e;

	free(flat);
	ck_assert_int_eq(metadata_flatten(o, &flat, &flat_len, &e), 0);
	ck_assert_msg(md_tree_check(&tree, flat, flat_len, &e) == 0, "%s", e.text);
	json_object_put(o);
}

#define TREE                                                                                     \
	"{\"latest\":{\"meta-data\":{\"id\":\"i-1\",\"n\":3,\"deep\":{\"er\":{\"est\":\"x\"}}}," \
	"\"user-data\":\"a\\nb\\u00e4\\\"\"},\"2009-04-04\":{\"own\":\"yes\"},"                  \
	"\"none\":null,\"list\":[1,{\"a\":2}],\"void\":{}}"

static const char *found(const char *path)
{
	static char text[256];
	uint32_t i;
	const struct metadata_node *n;

	if (md_tree_find(&tree, path, strlen(path), &i) != MD_FOUND)
		return "nowhere";
	n = &tree.node[i];
	snprintf(text, sizeof(text), "%u %.*s", n->kind, (int)n->json.len, tree.text + n->json.off);
	return text;
}

START_TEST(paths)
{
	serve_tree(TREE);
	ck_assert_str_eq(found("/latest/meta-data/id"), "2 \"i-1\"");
	ck_assert_str_eq(found("latest//meta-data/id///"), "2 \"i-1\"");
	ck_assert_str_eq(found("/latest/meta-data/n"), "3 3");
	ck_assert_str_eq(found("/latest/meta-data/deep/er"), "1 {\"est\":\"x\"}");
	ck_assert_str_eq(found("/none"), "3 null");
	ck_assert_str_eq(found("/list"), "3 [1,{\"a\":2}]");
	ck_assert_str_eq(found("/list/0"), "nowhere");
	ck_assert_str_eq(found("/latest/meta-data/id/x"), "nowhere");
	ck_assert_str_eq(found("/latest/meta"), "nowhere");
	ck_assert_str_eq(found("/Latest"), "nowhere");
	/* A date is latest, but for one that the tree has. */
	ck_assert_str_eq(found("/2021-03-23/meta-data/id"), "2 \"i-1\"");
	ck_assert_str_eq(found("/1.0/meta-data/id"), "2 \"i-1\"");
	ck_assert_str_eq(found("/2009-04-04/own"), "2 \"yes\"");
	ck_assert_str_eq(found("/2009-04-04/meta-data"), "nowhere");
	ck_assert_str_eq(found("/2021-3-23/meta-data"), "nowhere");
	ck_assert_str_eq(found("/latest/2021-03-23"), "nowhere");
	ck_assert_int_eq(strncmp(found("/"), "1 {\"latest\"", 11), 0);
	ck_assert_int_eq(strncmp(found(""), "1 {\"latest\"", 11), 0);
}
END_TEST

START_TEST(lists)
{
	static const char root[] = "latest/\n2009-04-04/\nnone\nlist\nvoid/";
	char out[64];

	serve_tree(TREE);
	ck_assert_uint_eq(md_tree_list(&tree, 0, out, sizeof(out)), strlen(root));
	ck_assert_mem_eq(out, root, strlen(root));
	memset(out, '#', sizeof(out));
	ck_assert_uint_eq(md_tree_list(&tree, 0, out, 5), strlen(root));
	ck_assert_mem_eq(out, "lates#", 6);
}
END_TEST

/* Whatever is in a flat tree: it is refused, or nothing leads out of it. */
START_TEST(flat_trees_that_are_broken)
{
	static const uint32_t values[] = {0, 1, 2, 7, 0x7fffffff, 0x80000000, 0xffffffff};
	size_t words, kept = 0;
	uint32_t *copy;
	struct err e;

	serve_tree(TREE);
	words = (sizeof(struct metadata_head) + tree.nodes * sizeof(struct metadata_node)) / 4;
	for (size_t w = 0; w < words; w++) {
		for (size_t v = 0; v < sizeof(values) / sizeof(values[0]); v++) {
			char out[64];
			uint32_t i;

			copy = malloc(flat_len);
			memcpy(copy, flat, flat_len);
			copy[w] = values[v];
			if (!md_tree_check(&tree, copy, flat_len, &e)) {
				kept++;
				for (uint32_t n = 0; n < tree.nodes; n++)
					(void)md_tree_list(&tree, n, out, sizeof(out));
				(void)md_tree_find(&tree, "latest/meta-data/deep/er/est", 28, &i);
			} else {
				ck_assert(e.text[0]);
			}
			free(copy);
		}
	}
	ck_assert_uint_gt(kept, 0);
	for (size_t len = 0; len < flat_len; len++) {
		copy = malloc(len + 1);
		memcpy(copy, flat, len);
		ck_assert_int_eq(md_tree_check(&tree, copy, len, &e), -EINVAL);
		free(copy);
	}
}
END_TEST

/* As deep as can be, and as many members. */
START_TEST(largest_trees)
{
	static char text[METADATA_JSON_MAX + 16];
	size_t n = 0;
	json_object *o;
	struct err e;

	n += (size_t)snprintf(text, sizeof(text), "{");
	for (unsigned i = 0; n < METADATA_JSON_MAX - 16; i++)
		n += (size_t)snprintf(text + n, sizeof(text) - n, "%s\"%x\":{}", i ? "," : "", i);
	text[n++] = '}';
	text[n] = 0;
	serve_tree(text);
	ck_assert_uint_gt(tree.nodes, 4000);
	n = 0;
	for (unsigned i = 1; i < METADATA_TREE_DEPTH; i++)
		n += (size_t)snprintf(text + n, sizeof(text) - n, "{\"a\":");
	n += (size_t)snprintf(text + n, sizeof(text) - n, "{}");
	for (unsigned i = 1; i < METADATA_TREE_DEPTH; i++)
		text[n++] = '}';
	text[n] = 0;
	serve_tree(text);
	ck_assert_uint_eq(tree.nodes, METADATA_TREE_DEPTH);
	n = (size_t)snprintf(text, sizeof(text), "{\"a\":\"");
	memset(text + n, 'x', METADATA_JSON_MAX - 8);
	memcpy(text + METADATA_JSON_MAX - 2, "\"}", 3);
	serve_tree(text);
	memcpy(text + METADATA_JSON_MAX - 2, "x\"}", 4);
	o = metadata_parse(text, strlen(text), &e);
	ck_assert(o == NULL);
	ck_assert_ptr_nonnull(strstr(e.text, "51201 bytes"));
}
END_TEST

START_TEST(trees_refused)
{
	static const struct {
		const char *text, *why;
	} bad[] = {
		{"", "expected an object"},      {"{", "expected an object"},
		{"[]", "expected an object"},    {"\"a\"", "expected an object"},
		{"{} {}", "expected an object"}, {"{\"a/b\":1}", "'a/b'"},
		{"{\"a\":{\"\":1}}", "''"},      {"{\"a\\nb\":1}", "without a slash or control"},
	};
	struct err e;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		ck_assert_msg(!metadata_parse(bad[i].text, strlen(bad[i].text), &e), "%s",
			      bad[i].text);
		ck_assert_msg(strstr(e.text, bad[i].why) != NULL, "%s: %s", bad[i].text, e.text);
	}
}
END_TEST

/* RFC 7396, appendix A, as far as the whole is an object. */
START_TEST(merge_patches)
{
	static const struct {
		const char *from, *patch, *to;
	} t[] = {
		{"{\"a\":\"b\"}", "{\"a\":\"c\"}", "{\"a\":\"c\"}"},
		{"{\"a\":\"b\"}", "{\"b\":\"c\"}", "{\"a\":\"b\",\"b\":\"c\"}"},
		{"{\"a\":\"b\"}", "{\"a\":null}", "{}"},
		{"{\"a\":\"b\",\"b\":\"c\"}", "{\"a\":null}", "{\"b\":\"c\"}"},
		{"{\"a\":[\"b\"]}", "{\"a\":\"c\"}", "{\"a\":\"c\"}"},
		{"{\"a\":\"c\"}", "{\"a\":[\"b\"]}", "{\"a\":[\"b\"]}"},
		{"{\"a\":{\"b\":\"c\"}}", "{\"a\":{\"b\":\"d\",\"c\":null}}",
		 "{\"a\":{\"b\":\"d\"}}"},
		{"{\"a\":[{\"b\":\"c\"}]}", "{\"a\":[1]}", "{\"a\":[1]}"},
		{"{\"e\":null}", "{\"a\":1}", "{\"e\":null,\"a\":1}"},
		{"{}", "{\"a\":{\"bb\":{\"ccc\":null}}}", "{\"a\":{\"bb\":{}}}"},
		{"{\"a\":1}", "{}", "{\"a\":1}"},
	};

	for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
		json_object *from = parsed(t[i].from), *patch = parsed(t[i].patch);
		json_object *to = metadata_merge(from, patch);

		ck_assert_str_eq(metadata_text(to), t[i].to);
		ck_assert_str_eq(metadata_text(from), t[i].from);
		json_object_put(from);
		json_object_put(patch);
		json_object_put(to);
	}
}
END_TEST

/* ---- requests ---- */

static struct md_tcp *tcp;
static uint64_t now_ns;

static void counted_random(void *buf, size_t n)
{
	static uint32_t next = 1;

	for (size_t i = 0; i < n; i++) {
		next = next * 1664525 + 1013904223;
		((uint8_t *)buf)[i] = (uint8_t)(next >> 24);
	}
}

static char *answer_to(const char *request)
{
	static char out[MD_ANSWER_MAX + 1];
	size_t n = md_http_answer(&tcp->http, request, strlen(request), now_ns, out);

	ck_assert_uint_le(n, MD_ANSWER_MAX);
	out[n] = 0;
	return out;
}

static unsigned status_of(const char *request)
{
	unsigned status = 0;

	ck_assert_int_eq(sscanf(answer_to(request), "HTTP/1.1 %u ", &status), 1);
	return status;
}

static const char *body_of(const char *request)
{
	return strstr(answer_to(request), "\r\n\r\n") + 4;
}

static void get_token(char token[MD_TOKEN_LEN + 1], unsigned ttl)
{
	char request[128], *answer;

	snprintf(request, sizeof(request),
		 "PUT /latest/api/token HTTP/1.1\r\nX-metadata-token-ttl-seconds:%u\r\n\r\n", ttl);
	answer = answer_to(request);
	ck_assert_int_eq(strncmp(answer, "HTTP/1.1 200 ", 13), 0);
	snprintf(token, MD_TOKEN_LEN + 1, "%s", strstr(answer, "\r\n\r\n") + 4);
	ck_assert_uint_eq(strlen(token), MD_TOKEN_LEN);
}

static char *get(const char *path, const char *token, const char *more)
{
	static char request[1024];

	snprintf(request, sizeof(request),
		 "GET %s HTTP/1.1\r\nHost: 169.254.169.254\r\nX-Metadata-Token: %s\r\n%s\r\n", path,
		 token, more);
	return request;
}

static void set_up(void)
{
	tcp = calloc(1, sizeof(*tcp));
	tcp->http.tree = &tree;
	tcp->http.random = counted_random;
	now_ns = SECOND_NS;
	serve_tree(TREE);
}

static void tear_down(void)
{
	free(tcp);
	free(flat);
	flat = NULL;
}

#define PUT "PUT /latest/api/token HTTP/1.1\r\n"

START_TEST(requests)
{
	static const struct {
		unsigned status;
		const char *request;
	} t[] = {
		{400, "\r\n\r\n"},
		{400, "GET\r\n\r\n"},
		{400, "GET /\r\n\r\n"},
		{400, "GET / HTTP/2.0\r\n\r\n"},
		{400, "GET / HTTP/1.1 \r\n\r\n"},
		{400, "GET latest HTTP/1.1\r\n\r\n"},
		{400, "GET http://169.254.169.254 HTTP/1.1\r\n\r\n"},
		{400, "GET /\x01 HTTP/1.1\r\n\r\n"},
		{401, "GET / HTTP/1.1\r\n\r\n"},
		{401, "GET / HTTP/1.0\r\n\r\n"},
		{401, "GET http://169.254.169.254/ HTTP/1.1\r\n\r\n"},
		{401, "GET / HTTP/1.1\r\nX-metadata-token: \r\n\r\n"},
		{401, "GET / HTTP/1.1\r\nX-metadata-token\r\n\r\n"},
		{405, "POST / HTTP/1.1\r\n\r\n"},
		{405, "HEAD / HTTP/1.1\r\n\r\n"},
		{405, "get / HTTP/1.1\r\n\r\n"},
		{404, "PUT / HTTP/1.1\r\nX-metadata-token-ttl-seconds: 60\r\n\r\n"},
		{404,
		 "PUT /latest/api/token/ HTTP/1.1\r\nX-metadata-token-ttl-seconds: 60\r\n\r\n"},
		{400, PUT "\r\n"},
		{400, PUT "X-metadata-token-ttl-seconds: 0\r\n\r\n"},
		{400, PUT "X-metadata-token-ttl-seconds: -1\r\n\r\n"},
		{400, PUT "X-metadata-token-ttl-seconds: 21601\r\n\r\n"},
		{400, PUT "X-metadata-token-ttl-seconds: 99999999999\r\n\r\n"},
		{400, PUT "X-metadata-token-ttl-seconds: 60s\r\n\r\n"},
		{400, PUT "X-metadata-token-ttl-seconds: 60\r\nX-Forwarded-For: a\r\n\r\n"},
		{400, PUT "x-forwarded-for:\r\nX-metadata-token-ttl-seconds: 60\r\n\r\n"},
		{200, PUT "X-metadata-token-ttl-seconds: 21600\r\n\r\n"},
		{200, PUT "x-METADATA-token-ttl-seconds:\t1 \r\n\r\n"},
		{200, PUT "X-aws-ec2-metadata-token-ttl-seconds: 1\r\n\r\n"},
	};

	for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++)
		ck_assert_msg(status_of(t[i].request) == t[i].status, "%s: %u", t[i].request,
			      status_of(t[i].request));
	ck_assert_ptr_nonnull(strstr(answer_to(t[sizeof(t) / sizeof(t[0]) - 1].request),
				     "\r\nX-aws-ec2-metadata-token-ttl-seconds: 1\r\n"));
	ck_assert_ptr_nonnull(
		strstr(answer_to("POST / HTTP/1.1\r\n\r\n"), "\r\nAllow: GET, PUT\r\n"));
}
END_TEST

START_TEST(answers)
{
	char token[MD_TOKEN_LEN + 1];

	get_token(token, 60);
	ck_assert_str_eq(body_of(get("/latest/meta-data/id", token, "")), "i-1");
	ck_assert_str_eq(body_of(get("/latest/meta-data/id?a=b", token, "")), "i-1");
	ck_assert_str_eq(body_of(get("http://169.254.169.254/latest/meta-data/id", token, "")),
			 "i-1");
	ck_assert_str_eq(body_of(get("/latest/user-data", token, "")), "a\nb\xc3\xa4\"");
	ck_assert_str_eq(body_of(get("/latest/meta-data", token, "")), "id\nn\ndeep/");
	ck_assert_uint_eq(status_of(get("/latest/meta-data/n", token, "")), 501);
	ck_assert_uint_eq(status_of(get("/none", token, "")), 501);
	ck_assert_uint_eq(status_of(get("/nothing", token, "")), 404);
	ck_assert_str_eq(body_of(get("/void", token, "")), "");
#define JSON "Accept: application/json\r\n"
	ck_assert_str_eq(body_of(get("/latest/meta-data/n", token, JSON)), "3");
	ck_assert_str_eq(body_of(get("/none", token, JSON)), "null");
	ck_assert_str_eq(body_of(get("/list", token, JSON)), "[1,{\"a\":2}]");
	ck_assert_str_eq(body_of(get("/latest/user-data", token, JSON)), "\"a\\nb\xc3\xa4\\\"\"");
	ck_assert_str_eq(body_of(get("/", token, JSON)),
			 "{\"latest\":{\"meta-data\":{\"id\":\"i-1\","
			 "\"n\":3,\"deep\":{\"er\":{\"est\":\"x\"}}}"
			 ",\"user-data\":\"a\\nb\xc3\xa4\\\"\"},"
			 "\"2009-04-04\":{\"own\":\"yes\"},"
			 "\"none\":null,\"list\":[1,{\"a\":2}],"
			 "\"void\":{}}");
	ck_assert_str_eq(body_of(get("/void", token, "Accept: text/plain, */*\r\n")), "");
	ck_assert_ptr_nonnull(
		strstr(answer_to(get("/list", token, JSON)),
		       "\r\nContent-Type: application/json\r\nContent-Length: 11\r\n"));
}
END_TEST

START_TEST(tokens)
{
	char first[MD_TOKEN_LEN + 1], second[MD_TOKEN_LEN + 1], other[MD_TOKEN_LEN + 1];

	get_token(first, 1);
	get_token(second, 2);
	ck_assert_str_ne(first, second);
	ck_assert_uint_eq(status_of(get("/", first, "")), 200);
	now_ns += SECOND_NS - 1;
	ck_assert_uint_eq(status_of(get("/", first, "")), 200);
	now_ns++;
	ck_assert_uint_eq(status_of(get("/", first, "")), 401);
	ck_assert_uint_eq(status_of(get("/", second, "")), 200);
	/* Nearly right is wrong, and so is all that is zeros. */
	strcpy(other, second);
	other[MD_TOKEN_LEN - 1] = other[MD_TOKEN_LEN - 1] == 'a' ? 'b' : 'a';
	ck_assert_uint_eq(status_of(get("/", other, "")), 401);
	second[MD_TOKEN_LEN - 1] = 0;
	ck_assert_uint_eq(status_of(get("/", second, "")), 401);
	/* As many as there are places live side by side. */
	get_token(first, 60);
	for (unsigned i = 1; i < MD_TOKENS; i++)
		get_token(other, 60);
	ck_assert_uint_eq(status_of(get("/", first, "")), 200);
	get_token(other, 60);
	ck_assert_uint_eq(status_of(get("/", first, "")), 401);
	ck_assert_uint_eq(status_of(get("/", other, "")), 200);
}
END_TEST

START_TEST(tokens_that_are_optional)
{
	ck_assert_uint_eq(status_of("GET / HTTP/1.1\r\n\r\n"), 401);
	tcp->http.open = true;
	ck_assert_str_eq(body_of("GET /latest/meta-data/id HTTP/1.1\r\n\r\n"), "i-1");
	/* One that is shown has to be right. */
	ck_assert_uint_eq(status_of(get("/", "x", "")), 401);
	tcp->http.open = false;
}
END_TEST

START_TEST(whole_requests)
{
	static const char full[] = "PUT / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc";
	char large[MD_REQUEST_MAX];

	for (size_t n = 0; n < sizeof(full) - 1; n++)
		ck_assert_uint_eq(md_http_whole(full, n), 0);
	ck_assert_uint_eq(md_http_whole(full, sizeof(full) - 1), sizeof(full) - 1);
	memset(large, 'a', sizeof(large));
	ck_assert_uint_eq(md_http_whole(large, sizeof(large) - 1), 0);
	ck_assert_uint_eq(md_http_whole(large, sizeof(large)), MD_TOO_LONG);
	ck_assert_uint_eq(md_http_whole("PUT / HTTP/1.1\r\nContent-Length: 4096\r\n\r\n", 40),
			  MD_TOO_LONG);
	ck_assert_uint_eq(md_http_whole("PUT / HTTP/1.1\r\nContent-Length: x\r\n\r\n", 37),
			  MD_TOO_LONG);
}
END_TEST

/* ---- TCP, with a client ---- */

enum { FIN = 1, SYN = 2, RST = 4, ACK = 16 };

static struct client {
	uint16_t port;
	uint32_t seq, ack; /* the next of ours; what we expect */
	uint32_t wnd;
	bool up, ended, reset;
	unsigned lose;    /* bit i: the next frame but i is lost */
	unsigned frames;  /* that came */
	unsigned longest; /* of data */
	char got[MD_ANSWER_MAX + 1];
	size_t ngot;
	uint8_t arp[42];
	size_t narp;
} client;

static void put_u16(uint8_t *p, unsigned v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static void put_u32(uint8_t *p, uint32_t v)
{
	put_u16(p, v >> 16);
	put_u16(p + 2, v & 0xffff);
}

static uint32_t get_u32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static const uint8_t guest_mac[6] = {2, 0, 0, 0, 0, 1};

/* Into `f`; the length of the frame. */
static size_t segment(uint8_t *f, unsigned flags, uint32_t seq, const char *data, size_t len)
{
	size_t head = flags & SYN ? 24 : 20;

	memset(f, 0, 14 + 20 + head);
	memset(f, 0xfe, 6); /* to a router, say */
	memcpy(f + 6, guest_mac, 6);
	put_u16(f + 12, 0x0800);
	f[14] = 0x45;
	put_u16(f + 16, (unsigned)(20 + head + len));
	f[22] = 64;
	f[23] = 6;
	put_u32(f + 26, 0xc0000202);
	put_u32(f + 30, 0xa9fea9fe);
	put_u16(f + 34, client.port);
	put_u16(f + 36, 80);
	put_u32(f + 38, seq);
	put_u32(f + 42, client.ack);
	f[46] = (uint8_t)(head / 4 << 4);
	f[47] = (uint8_t)flags;
	put_u16(f + 48, client.wnd);
	if (flags & SYN)
		memcpy(f + 54, "\2\4\2\0", 4); /* 512 bytes at once */
	memcpy(f + 34 + head, data, len);
	return 34 + head + len;
}

static void send_at(unsigned flags, uint32_t seq, const char *data, size_t len)
{
	static uint8_t f[65600];

	md_tcp_frame(tcp, f, segment(f, flags, seq, data, len), now_ns);
}

static uint16_t sum_of(const uint8_t *p, size_t n, uint32_t sum)
{
	for (size_t i = 0; i < n; i++)
		sum += i % 2 ? p[i] : (uint32_t)p[i] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}

/* What the service sends. Each checksum is right, each frame goes to this guest. */
static void client_gets(void *ctx, const void *frame, size_t len)
{
	const uint8_t *f = frame, *t = f + 34;
	size_t head, n;
	uint32_t seq;

	(void)ctx;
	ck_assert_uint_ge(len, 42);
	ck_assert_mem_eq(f, guest_mac, 6);
	if (f[13] == 6) {
		memcpy(client.arp, f, sizeof(client.arp));
		client.narp = len;
		return;
	}
	ck_assert_uint_eq(len, 14u + (unsigned)(f[16] << 8 | f[17]));
	ck_assert_uint_eq(sum_of(f + 14, 20, 0), 0xffff);
	ck_assert_uint_eq(sum_of(t, len - 34, sum_of(f + 26, 8, 6 + (uint32_t)len - 34)), 0xffff);
	client.frames++;
	if (client.lose & 1) {
		client.lose >>= 1;
		return;
	}
	client.lose >>= 1;
	if ((unsigned)(t[2] << 8 | t[3]) != client.port)
		return;
	head = (size_t)(t[12] >> 4) * 4;
	n = len - 34 - head;
	seq = get_u32(t + 4);
	if (n > client.longest)
		client.longest = (unsigned)n;
	if (t[13] & RST) {
		client.reset = true;
		return;
	}
	if (t[13] & SYN) {
		client.ack = seq + 1;
		client.up = true;
		return;
	}
	if (seq != client.ack)
		return;
	ck_assert_uint_le(n, client.wnd ? client.wnd : 1);
	memcpy(client.got + client.ngot, t + head, n);
	client.ngot += n;
	client.ack += (uint32_t)n + (t[13] & FIN);
	client.ended |= t[13] & FIN;
	client.got[client.ngot] = 0;
}

static void connect_client(uint16_t port)
{
	client = (struct client){.port = port, .seq = 1000, .wnd = 60000};
	tcp->send = client_gets;
	send_at(SYN, client.seq++, "", 0);
	ck_assert(client.up);
	send_at(ACK, client.seq, "", 0);
}

static void say_text(const char *text)
{
	send_at(ACK, client.seq, text, strlen(text));
	client.seq += (uint32_t)strlen(text);
}

/* Acknowledge what came, and let time pass, until nothing is left to do. */
static void play(void)
{
	for (unsigned i = 0; i < 4000 && md_tcp_next(tcp) && !client.reset; i++) {
		uint64_t next = md_tcp_next(tcp);

		send_at(ACK | (client.ended ? FIN : 0), client.seq, "", 0);
		if (client.ended)
			break;
		if (next > now_ns && i % 4 == 3) {
			now_ns = next;
			md_tcp_tick(tcp, now_ns);
		}
	}
}

static void large_tree(void)
{
	static char text[METADATA_JSON_MAX];
	size_t n = (size_t)snprintf(text, sizeof(text), "{\"a\":\"");

	for (; n < 40000; n++)
		text[n] = (char)('a' + n % 23);
	strcpy(text + n, "\"}");
	serve_tree(text);
}

static const char *expected_body(void)
{
	return tree.text + tree.node[1].text.off;
}

START_TEST(tcp_answer)
{
	char token[MD_TOKEN_LEN + 1];

	get_token(token, 60);
	connect_client(4000);
	ck_assert_uint_gt(md_tcp_next(tcp), now_ns);
	say_text(get("/latest/meta-data/id", token, ""));
	play();
	ck_assert(client.ended && !client.reset);
	ck_assert_ptr_nonnull(strstr(client.got, "\r\n\r\ni-1"));
	ck_assert_uint_eq(md_tcp_next(tcp), 0); /* nothing is left of it */
	send_at(ACK, client.seq + 1, "", 0);
	ck_assert(client.reset);
}
END_TEST

/* A request byte by byte, each twice, and one ahead of its time. */
START_TEST(tcp_pieces)
{
	char token[MD_TOKEN_LEN + 1];
	const char *r;

	get_token(token, 60);
	r = get("/latest/meta-data/id", token, "");
	connect_client(4000);
	for (size_t i = 0; r[i]; i++) {
		if (r[i + 1])
			send_at(ACK, client.seq + 1, &r[i + 1], 1);
		send_at(ACK, client.seq, &r[i], 1);
		send_at(ACK, client.seq, &r[i], 1);
		client.seq++;
	}
	play();
	ck_assert(client.ended);
	ck_assert_ptr_nonnull(strstr(client.got, "\r\n\r\ni-1"));
}
END_TEST

/* In one segment of TCP that is longer than any frame of a wire. */
START_TEST(tcp_large_segment)
{
	static char request[60000];
	int n = snprintf(request, sizeof(request), "%sX-metadata-token-ttl-seconds: 9\r\n\r\n",
			 PUT);

	memset(request + n, 'x', sizeof(request) - (size_t)n - 1);
	connect_client(4000);
	send_at(ACK, client.seq, request, sizeof(request) - 1);
	ck_assert_uint_eq(client.ngot > 40, 1);
	ck_assert_int_eq(strncmp(client.got, "HTTP/1.1 200 OK", 15), 0);
}
END_TEST

/* Whatever is lost comes again. */
START_TEST(tcp_losses)
{
	static const unsigned patterns[] = {0,      1,      2,          3,          0x55,
					    0xf0f0, 0x3333, 0xffffff00, 0x80000001, 0x7};
	char token[MD_TOKEN_LEN + 1];

	large_tree();
	get_token(token, 6000);
	connect_client(4000);
	client.lose = patterns[_i];
	say_text(get("/a", token, ""));
	play();
	ck_assert_msg(client.ended, "%zu bytes came", client.ngot);
	ck_assert_uint_le(client.longest, 512);
	ck_assert_mem_eq(strstr(client.got, "\r\n\r\n") + 4, expected_body(), 40000 - 6);
}
END_TEST

/* A window that is shut, and opens: nothing is sent meanwhile but a byte now and then. */
START_TEST(tcp_window)
{
	char token[MD_TOKEN_LEN + 1];
	unsigned frames;

	large_tree();
	get_token(token, 6000);
	connect_client(4000);
	client.wnd = 0;
	say_text(get("/a", token, ""));
	frames = client.frames;
	for (unsigned i = 0; i < 3; i++) {
		now_ns = md_tcp_next(tcp);
		md_tcp_tick(tcp, now_ns);
	}
	ck_assert_uint_le(client.frames - frames, 3);
	ck_assert_uint_le(client.ngot, 3);
	client.wnd = 100;
	send_at(ACK, client.seq, "", 0);
	ck_assert_uint_le(client.ngot, 103);
	client.wnd = 60000;
	play();
	ck_assert(client.ended);
	ck_assert_mem_eq(strstr(client.got, "\r\n\r\n") + 4, expected_body(), 40000 - 6);
}
END_TEST

/* One that acknowledges nothing, sends nothing, or never comes to an end. */
START_TEST(tcp_deadlines)
{
	uint64_t begin = now_ns;

	connect_client(4000);
	for (unsigned i = 0; i < 1000 && !client.reset; i++) {
		now_ns += SECOND_NS / 10;
		say_text("G");
		md_tcp_tick(tcp, now_ns);
	}
	ck_assert(client.reset);
	ck_assert_uint_le(now_ns - begin, MD_REQUEST_NS + SECOND_NS);
	ck_assert_uint_eq(md_tcp_next(tcp), 0);
	/* The SYN's answer is lost again and again. */
	client = (struct client){.port = 5000, .seq = 1, .wnd = 100, .lose = 0xffffffff};
	send_at(SYN, 0, "", 0);
	begin = now_ns;
	while (md_tcp_next(tcp)) {
		now_ns = md_tcp_next(tcp);
		md_tcp_tick(tcp, now_ns);
	}
	ck_assert_uint_le(now_ns - begin, MD_REQUEST_NS);
	ck_assert_uint_le(client.frames, 9);
	/* The answer is never acknowledged. */
	connect_client(4000);
	say_text("GET / HTTP/1.1\r\n\r\n");
	begin = now_ns;
	while (md_tcp_next(tcp)) {
		now_ns = md_tcp_next(tcp);
		md_tcp_tick(tcp, now_ns);
	}
	ck_assert_uint_le(now_ns - begin, MD_ANSWER_NS);
}
END_TEST

/* The oldest makes room. */
START_TEST(tcp_many)
{
	char token[MD_TOKEN_LEN + 1];

	get_token(token, 60);
	for (uint16_t i = 0; i < 5 * MD_CONNS; i++) {
		now_ns += 1000;
		connect_client((uint16_t)(2000 + i));
	}
	say_text(get("/latest/meta-data/id", token, ""));
	play();
	ck_assert(client.ended);
	client.reset = false;
	client.port = 2000;
	send_at(ACK, client.seq, "x", 1);
	ck_assert(client.reset);
}
END_TEST

START_TEST(tcp_wrong)
{
	/* An acknowledgement of what was never sent: before the connection is there, and then. */
	client = (struct client){.port = 3999, .wnd = 1000};
	tcp->send = client_gets;
	send_at(SYN, client.seq++, "", 0);
	client.ack += 5000;
	send_at(ACK, client.seq, "", 0);
	ck_assert(client.reset);
	client.ack -= 5000;
	send_at(RST, client.seq, "", 0);
	connect_client(4000);
	client.ack += 5000;
	send_at(ACK, client.seq, "x", 1);
	client.ack -= 5000;
	say_text("GET / HTTP/1.1\r\n\r\n");
	ck_assert_int_eq(strncmp(client.got, "HTTP/1.1 401", 12), 0);
	send_at(RST, client.seq, "", 0);
	/* The end before the request. */
	connect_client(4001);
	say_text("GET / HT");
	send_at(ACK | FIN, client.seq, "", 0);
	ck_assert(client.reset);
	/* A reset that is not in its place does nothing; one that is ends it. */
	connect_client(4002);
	send_at(RST, client.seq + 1, "", 0);
	say_text("GET / HTTP/1.1\r\n\r\n");
	ck_assert_int_eq(strncmp(client.got, "HTTP/1.1 401", 12), 0);
	send_at(RST, client.seq, "", 0);
	ck_assert_uint_eq(md_tcp_next(tcp), 0);
	/* Begun again with the same port. */
	connect_client(4003);
	client.up = false;
	client.seq = 77777;
	send_at(SYN, client.seq++, "", 0);
	ck_assert(client.up);
	send_at(ACK, client.seq, "", 0);
	say_text("GET / HTTP/1.1\r\n\r\n");
	ck_assert_int_eq(strncmp(client.got, "HTTP/1.1 401", 12), 0);
}
END_TEST

/* Too short, for others, fragments: nothing is said to them. */
START_TEST(tcp_other_frames)
{
	uint8_t f[128], *copy;
	size_t len;

	client = (struct client){.port = 4000, .wnd = 1000};
	tcp->send = client_gets;
	len = segment(f, SYN, 1, "", 0);
	for (size_t n = 0; n < len; n++) {
		copy = malloc(n + 1);
		memcpy(copy, f, n);
		md_tcp_frame(tcp, copy, n, now_ns);
		free(copy);
	}
#define CHANGED(at, value)                         \
	do {                                       \
		uint8_t was = f[at];               \
		f[at] = (value);                   \
		md_tcp_frame(tcp, f, len, now_ns); \
		f[at] = was;                       \
	} while (0)
	CHANGED(12, 0x86); /* no IPv4 */
	CHANGED(14, 0x65);
	CHANGED(14, 0x44); /* a head that is too short */
	CHANGED(14, 0x4f); /* or longer than the packet */
	CHANGED(20, 0x20); /* a fragment */
	CHANGED(21, 1);
	CHANGED(23, 17);   /* UDP */
	CHANGED(33, 1);    /* to another address */
	CHANGED(26, 0xe0); /* from no station */
	CHANGED(6, 1);
	CHANGED(46, 0x40);
	CHANGED(46, 0xf0);
	ck_assert_uint_eq(client.frames, 0);
	md_tcp_frame(tcp, f, len, now_ns);
	ck_assert_uint_eq(client.frames, 1);
}
END_TEST

START_TEST(arp)
{
	uint8_t q[42] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0,   1,   8,   6,
			 0,    1,    8,    0,    6,    4,    0, 1, 2, 0, 0,   0,   0,   1,
			 192,  0,    2,    2,    0,    0,    0, 0, 0, 0, 169, 254, 169, 254};

	client = (struct client){0};
	tcp->send = client_gets;
	md_tcp_frame(tcp, q, sizeof(q), now_ns);
	ck_assert_uint_eq(client.narp, 42);
	ck_assert_uint_eq(client.arp[21], 2);
	ck_assert_mem_eq(client.arp + 28, "\xa9\xfe\xa9\xfe", 4);
	ck_assert_mem_eq(client.arp + 32, guest_mac, 6);
	ck_assert_mem_eq(client.arp + 38, q + 28, 4);
	ck_assert_mem_eq(client.arp + 6, client.arp + 22, 6);
	client.narp = 0;
	for (unsigned i = 14; i < 22; i++) {
		q[i] ^= 1;
		md_tcp_frame(tcp, q, sizeof(q), now_ns);
		q[i] ^= 1;
	}
	q[41] = 1;
	md_tcp_frame(tcp, q, sizeof(q), now_ns);
	md_tcp_frame(tcp, q, sizeof(q) - 1, now_ns);
	ck_assert_uint_eq(client.narp, 0);
}
END_TEST

/* ---- cloud-init's disk ---- */

static void write_file(const char *path, const char *text, size_t len)
{
	FILE *f = fopen(path, "w");

	ck_assert(f && fwrite(text, 1, len, f) == len && !fclose(f));
}

/* The file of that name in an image: where it is, and its length; NULL: there is none. */
static const uint8_t *seed_find(const uint8_t *image, const char *name, size_t *len)
{
	for (const uint8_t *r = image + 20 * 2048; *r; r += *r) {
		if (r[32] != strlen(name) || memcmp(r + 33, name, r[32]) != 0)
			continue;
		*len = (size_t)r[10] | (size_t)r[11] << 8 | (size_t)r[12] << 16;
		ck_assert_mem_eq(r + 10, ((uint8_t[]){r[17], r[16], r[15], r[14]}), 4);
		return image + 2048 * ((size_t)r[2] | (size_t)r[3] << 8);
	}
	return NULL;
}

START_TEST(seed_disk)
{
	char dir[] = "/tmp/seed.XXXXXX", user[64], meta[64], big[5000];
	struct seed_config c = {.on = true};
	const uint8_t *image, *at;
	void *map;
	struct err e;
	size_t n = 0;
	int fd;

	ck_assert(mkdtemp(dir));
	snprintf(user, sizeof(user), "%s/u", dir);
	snprintf(meta, sizeof(meta), "%s/m", dir);
	for (size_t i = 0; i < sizeof(big); i++)
		big[i] = (char)(i * 7);
	write_file(user, big, sizeof(big));
	write_file(meta, "instance-id: i\n", 15);
	c.file[0] = meta;
	c.file[2] = user;
	fd = seed_make(&c, &e);
	ck_assert_msg(fd >= 0, "%s", e.text);
	ck_assert_int_eq(shm_map(fd, 0, 0, 25 * 2048, false, &map, &e), 0);
	image = map;
	ck_assert_mem_eq(image + 16 * 2048, "\1CD001\1", 7);
	ck_assert_mem_eq(image + 16 * 2048 + 40, "cidata ", 7);
	ck_assert_mem_eq(image + 16 * 2048 + 80, "\31\0\0\0\0\0\0\31", 8); /* 25 */
	ck_assert_mem_eq(image + 17 * 2048, "\377CD001\1", 7);
	at = seed_find(image, "META-DATA.;1", &n);
	ck_assert(at && n == 15 && !memcmp(at, "instance-id: i\n", 15));
	at = seed_find(image, "USER-DATA.;1", &n);
	ck_assert(at && n == sizeof(big) && !memcmp(at, big, n));
	ck_assert(!seed_find(image, "VENDOR-DATA.;1", &n));
	shm_unmap(map, 25 * 2048);
	close(fd);
	/* What cloud-init wants is there, with nothing in it. */
	c.file[0] = NULL;
	c.file[3] = meta;
	fd = seed_make(&c, &e);
	ck_assert_int_eq(shm_map(fd, 0, 0, 25 * 2048, false, &map, &e), 0);
	at = seed_find(map, "META-DATA.;1", &n);
	ck_assert(at && n == 0);
	at = seed_find(map, "VENDOR-DATA.;1", &n);
	ck_assert(at && n == 15 && !memcmp(at, "instance-id: i\n", 15));
	shm_unmap(map, 25 * 2048);
	close(fd);
	c.file[2] = dir;
	ck_assert_int_lt(seed_make(&c, &e), 0);
	ck_assert_ptr_nonnull(strstr(e.text, "--cloud-init: user-data: /tmp/seed."));
	unlink(user);
	unlink(meta);
	rmdir(dir);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("metadata");
	TCase *t = tcase_create("all");
	SRunner *r;
	int failed;

	tcase_set_timeout(t, 60);
	tcase_add_checked_fixture(t, set_up, tear_down);
	tcase_add_test(t, paths);
	tcase_add_test(t, lists);
	tcase_add_test(t, flat_trees_that_are_broken);
	tcase_add_test(t, largest_trees);
	tcase_add_test(t, trees_refused);
	tcase_add_test(t, merge_patches);
	tcase_add_test(t, requests);
	tcase_add_test(t, answers);
	tcase_add_test(t, tokens);
	tcase_add_test(t, tokens_that_are_optional);
	tcase_add_test(t, whole_requests);
	tcase_add_test(t, tcp_answer);
	tcase_add_test(t, tcp_pieces);
	tcase_add_test(t, tcp_large_segment);
	tcase_add_loop_test(t, tcp_losses, 0, 10);
	tcase_add_test(t, tcp_window);
	tcase_add_test(t, tcp_deadlines);
	tcase_add_test(t, tcp_many);
	tcase_add_test(t, tcp_wrong);
	tcase_add_test(t, tcp_other_frames);
	tcase_add_test(t, arp);
	tcase_add_test(t, seed_disk);
	suite_add_tcase(s, t);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? 1 : 0;
}
