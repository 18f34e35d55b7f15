/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a guest may send: words, the judge of frames, answers of DNS and the addresses in them.
 * tests/guests/policy.sh has whole frames, on both enforcement points.
 */
#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <json-c/json.h>

#include <insula/base.h>

#include "devices/net/net_policy.h"
#include "spec/netpolicy.h"

static const uint8_t mac[6] = {2, 0, 0x5e, 0, 0x53, 1};
static struct net_policy p;
static struct net_names names;
static uint8_t f[256];
static struct msg_net_denied what;

static void setup(void)
{
	memset(&p, 0, sizeof(p));
	memset(f, 0, sizeof(f));
	memcpy(p.mac, mac, 6);
	net_names_init(&names);
}

static void allow(const char *text)
{
	ck_assert_msg(!policy_add_allow(&p, text), "%s", text);
}

/* ---- words ---- */

START_TEST(rules)
{
	static const struct {
		const char *text;
		uint8_t proto, family, bits;
		uint16_t lo, hi;
	} good[] = {
		{"192.0.2.1", 0, 4, 32, 0, 0},
		{"192.0.2.0/24", 0, 4, 24, 0, 0},
		{"0.0.0.0/0", 0, 4, 0, 0, 0},
		{"tcp:192.0.2.1:443", 6, 4, 32, 443, 443},
		{"udp:192.0.2.0/25:1-65535", 17, 4, 25, 1, 65535},
		{"192.0.2.1:53", 0, 4, 32, 53, 53},
		{"icmp:192.0.2.1", 1, 4, 32, 0, 0},
		{"[2001:db8::/32]", 0, 6, 32, 0, 0},
		{"tcp:[2001:db8::1]:443", 6, 6, 128, 443, 443},
		{"[::]:1", 0, 6, 128, 1, 1},
		{"[::/0]", 0, 6, 0, 0, 0},
		{"*", 0, 0, 0, 0, 0},
		{"tcp:*:22", 6, 0, 0, 22, 22},
		{"icmp:*", 1, 0, 0, 0, 0},
	};

	for (size_t i = 0; i < ARRAY_LEN(good); i++) {
		const struct policy_rule *r = &p.rule[p.nrules];

		allow(good[i].text);
		ck_assert_uint_eq(r->proto, good[i].proto);
		ck_assert_uint_eq(r->to.family, good[i].family);
		ck_assert_uint_eq(r->to.bits, good[i].bits);
		ck_assert_uint_eq(r->port_lo, good[i].lo);
		ck_assert_uint_eq(r->port_hi, good[i].hi);
		ck_assert_uint_eq(r->name, 0);
	}
	ck_assert_uint_eq(p.flags, POLICY_ON);
	ck_assert(net_policy_is_sane(&p));
}
END_TEST

START_TEST(refused_rules)
{
	static const char *const bad[] = {
		"",
		":",
		"tcp:",
		"tcp::80",
		"192.0.2.1:",
		"192.0.2.1:0",
		"192.0.2.1:65536",
		"192.0.2.1:80-",
		"192.0.2.1:-80",
		"192.0.2.1:81-80",
		"192.0.2.1:+80",
		"192.0.2.1: 80",
		"192.0.2.1:080000",
		"192.0.2.0/33",
		"192.0.2.1/24",
		"192.0.2.0/",
		"192.0.2.0/-1",
		"192.0.2",
		"192.0.2.256",
		"1.2.3.4.5",
		"[2001:db8::1",
		"2001:db8::1",
		"[2001:db8::1]443",
		"[192.0.2.1]",
		"[2001:db8::/129]",
		"[2001:db8::1/64]",
		"[]",
		"icmp:192.0.2.1:7",
		"sctp:192.0.2.1:7",
		"**",
		"a..b",
		".a",
		"-",
		"a b",
		"a/24",
		"x\n",
		"example.123",
		"%n",
		"TCP:192.0.2.1:80",
	};

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		const char *why = policy_add_allow(&p, bad[i]);

		/* "-" is a label without a letter. */
		ck_assert_msg(why && *why, "'%s' was taken", bad[i]);
	}
	ck_assert_uint_eq(p.nrules, 0);
	ck_assert_uint_eq(p.flags, 0);
}
END_TEST

START_TEST(words)
{
	char text[80];

	allow("tcp:Example.ORG:443");
	allow("udp:example.org.:443");
	allow("other.example");
	ck_assert_uint_eq(p.nnames, 2);
	ck_assert_str_eq(p.name[0], "example.org");
	ck_assert_uint_eq(p.rule[0].name, 1);
	ck_assert_uint_eq(p.rule[1].name, 1);
	ck_assert_uint_eq(p.rule[2].name, 2);
	for (unsigned i = 2; i < POLICY_MAX_NAMES; i++) {
		snprintf(text, sizeof(text), "n%u.example", i);
		allow(text);
	}
	ck_assert_ptr_nonnull(policy_add_allow(&p, "one.more"));
	ck_assert_ptr_null(policy_add_serve(&p, "tcp:80"));
	ck_assert_ptr_null(policy_add_serve(&p, "udp:1-9"));
	ck_assert_ptr_nonnull(policy_add_serve(&p, "80"));
	ck_assert_ptr_nonnull(policy_add_serve(&p, "icmp:80"));
	ck_assert_ptr_nonnull(policy_add_serve(&p, "tcp:80-79"));
	ck_assert_ptr_null(policy_add_from(&p, "2001:db8::/64"));
	ck_assert_ptr_null(policy_add_from(&p, "192.0.2.1"));
	ck_assert_ptr_nonnull(policy_add_from(&p, "192.0.2.1/8"));
	ck_assert_ptr_nonnull(policy_add_from(&p, "name"));
	while (p.nrules < POLICY_MAX_RULES)
		allow("*");
	ck_assert_ptr_nonnull(policy_add_allow(&p, "*"));
}
END_TEST

START_TEST(whole)
{
	struct policy_card card = {"192.0.2.2/24", "", 0};

	ck_assert_ptr_null(policy_finish(&p, &card)); /* off */
	ck_assert_uint_eq(p.nsources, 0);
	allow("tcp:a.example:1");
	ck_assert_ptr_nonnull(policy_finish(&p, &card));
	card.dns = "192.0.2.53";
	ck_assert_ptr_null(policy_finish(&p, &card));
	ck_assert_uint_eq(p.nsources, 1);
	ck_assert_uint_eq(p.source[0].bits, 32);
	ck_assert_uint_eq(p.resolver.addr[3], 53);
	setup();
	allow("*");
	card.ip = "";
	ck_assert_ptr_nonnull(policy_finish(&p, &card));
	card.any_source = 1;
	ck_assert_ptr_null(policy_finish(&p, &card));
	ck_assert(p.flags & POLICY_ANY_SOURCE);
}
END_TEST

START_TEST(from_json)
{
	static const struct {
		const char *json, *field;
	} bad[] = {
		{"{\"allow\":[\"*\",\"10.0.0.0/40\"]}", "allow[1]"},
		{"{\"allow\":\"*\"}", "allow"},
		{"{\"allow\":[1]}", "allow[0]"},
		{"{\"allow\":[\"a.b\\u0000\"]}", "allow[0]"},
		{"{\"serve\":[\"80\"]}", "serve[0]"},
		{"{\"from\":[\"x\"]}", "from[0]"},
		{"{\"allow\":[\"*\"],\"off\":true}", "off"},
	};
	struct policy_mistake m;
	struct err e;
	json_object *o;

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		o = json_tokener_parse(bad[i].json);
		ck_assert_int_eq(policy_json(&p, o, &m, &e), -EINVAL);
		ck_assert_str_eq(m.field, bad[i].field);
		ck_assert_ptr_nonnull(strstr(e.text, "expected"));
		json_object_put(o);
	}
	o = json_tokener_parse("{\"device\":\"eth0\",\"allow\":[],\"serve\":[\"tcp:1\"]}");
	ck_assert_int_eq(policy_json(&p, o, &m, &e), 0);
	ck_assert_uint_eq(p.flags, POLICY_ON);
	ck_assert_uint_eq(p.nserves, 1);
	json_object_put(o);
	o = json_tokener_parse("{\"off\":true}");
	ck_assert_int_eq(policy_json(&p, o, &m, &e), 0);
	ck_assert_uint_eq(p.flags, 0);
	json_object_put(o);
}
END_TEST

/* ---- the judge ---- */

/* Ethernet and IPv4 with 4 bytes of ports; the length. */
static size_t ip4_frame(uint8_t proto, const char *from, const char *to, unsigned sport,
			unsigned dport)
{
	memset(f, 0, sizeof(f));
	memcpy(f + 6, mac, 6);
	f[12] = 8;
	f[14] = 0x45;
	f[23] = proto;
	inet_pton(AF_INET, from, f + 26);
	inet_pton(AF_INET, to, f + 30);
	f[34] = (uint8_t)(sport >> 8);
	f[35] = (uint8_t)sport;
	f[36] = (uint8_t)(dport >> 8);
	f[37] = (uint8_t)dport;
	f[47] = 0x02;
	return 54;
}

static enum policy_verdict judge(size_t len)
{
	/* From the heap, so that a sanitizer sees a byte too far. */
	uint8_t *copy = malloc(len ? len : 1);
	enum policy_verdict v;

	memcpy(copy, f, len);
	v = net_policy_judge(&p, &names, copy, len, &what);
	free(copy);
	return v;
}

START_TEST(judged)
{
	size_t len = ip4_frame(6, "192.0.2.2", "198.51.100.7", 40000, 443);

	ck_assert_int_eq(judge(len), POLICY_PASS); /* off */
	p.flags = POLICY_ON;
	ck_assert_int_eq(judge(len), POLICY_DROP_SOURCE);
	ck_assert_ptr_null(policy_add_from(&p, "192.0.2.2"));
	ck_assert_int_eq(judge(len), POLICY_DROP_TO);
	ck_assert_uint_eq(what.port, 443);
	ck_assert_uint_eq(what.family, 4);
	ck_assert_uint_eq(what.to[0], 198);
	allow("tcp:198.51.100.0/29:400-443");
	ck_assert_int_eq(judge(len), POLICY_PASS);
	f[37]++;
	ck_assert_int_eq(judge(len), POLICY_DROP_TO);
	f[37]--;
	f[33] = 8; /* beyond the prefix */
	ck_assert_int_eq(judge(len), POLICY_DROP_TO);
	f[33] = 0;
	ck_assert_int_eq(judge(len), POLICY_PASS);
	f[11]++;
	ck_assert_int_eq(judge(len), POLICY_DROP_MAC);
	f[11]--;
	f[21] = 1; /* a later fragment */
	ck_assert_int_eq(judge(len), POLICY_DROP_TO);
	f[21] = 0;
	f[20] = 0x20; /* the first one */
	ck_assert_int_eq(judge(len), POLICY_PASS);
	f[14] = 0x46;
	ck_assert_int_eq(judge(len), POLICY_DROP_KIND);
	f[14] = 0x45;
	for (size_t cut = 0; cut < 48; cut++)
		ck_assert_int_ne(judge(cut), POLICY_PASS);
	ck_assert_int_eq(judge(48), POLICY_PASS);
}
END_TEST

static bool sum(size_t len, size_t at)
{
	uint8_t *copy = malloc(len ? len : 1);
	bool may;

	memcpy(copy, f, len);
	may = net_policy_sum(copy, len, at);
	free(copy);
	return may;
}

/* A checksum that the kernel fills in behind all rules goes only behind what they have looked at. */
START_TEST(sums)
{
	size_t len = ip4_frame(6, "192.0.2.2", "198.51.100.7", 40000, 443);

	ck_assert(sum(len, 34 + 16));
	for (size_t at = 0; at < 34 + 14; at++)
		ck_assert_msg(!sum(len, at), "%zu", at);
	ip4_frame(17, "192.0.2.2", "198.51.100.7", 40000, 443);
	ck_assert(sum(len, 34 + 6));
	ck_assert(sum(len, 34 + 8 + 40)); /* of what is in it, a tunnel's */
	for (size_t at = 0; at < 34 + 4; at++)
		ck_assert_msg(!sum(len, at), "%zu", at);
	f[21] = 1; /* a later fragment: nothing but its address was looked at */
	ck_assert(sum(len, 34) && !sum(len, 33));
	for (size_t cut = 0; cut < 34; cut++)
		ck_assert(!sum(cut, 50));
	f[12] = 0x86;
	f[13] = 0xdd;
	f[20] = 6;
	ck_assert(sum(54, 54 + 16) && !sum(54, 54 + 13) && !sum(54, 38));
	f[20] = 58;
	ck_assert(!sum(54, 54 + 2) && !sum(54, 54 + 100));
	f[20] = 0;
	ck_assert(!sum(54, 54 + 16));
	f[12] = 8;
	f[13] = 6; /* ARP */
	ck_assert(!sum(42, 42) && !sum(42, 28));
}
END_TEST

START_TEST(served)
{
	size_t len = ip4_frame(6, "192.0.2.2", "203.0.113.1", 80, 50000);

	ck_assert_ptr_null(policy_add_from(&p, "192.0.2.0/24"));
	ck_assert_ptr_null(policy_add_serve(&p, "tcp:80"));
	ck_assert_int_eq(judge(len), POLICY_DROP_TO); /* SYN */
	f[47] = 0x12;
	ck_assert_int_eq(judge(len), POLICY_PASS);
	f[47] = 0x10;
	ck_assert_int_eq(judge(len), POLICY_PASS);
	f[35]++;
	ck_assert_int_eq(judge(len), POLICY_DROP_TO);
	ip4_frame(17, "192.0.2.2", "203.0.113.1", 67, 50000);
	allow("*");
	ck_assert_int_eq(judge(len), POLICY_DROP_SERVER);
	ip4_frame(17, "192.0.2.2", "203.0.113.1", 66, 50000);
	ck_assert_int_eq(judge(len), POLICY_PASS);
}
END_TEST

/* Of a router, and so of nobody: redirections and advertisements, whatever is allowed. */
START_TEST(routers)
{
	size_t len = ip4_frame(1, "192.0.2.2", "203.0.113.1", 0x0800, 0);

	p.flags = POLICY_ON;
	ck_assert_ptr_null(policy_add_from(&p, "192.0.2.0/24"));
	allow("*");
	ck_assert_int_eq(judge(len), POLICY_PASS); /* an echo */
	f[34] = 5;
	ck_assert_int_eq(judge(len), POLICY_DROP_SERVER);
	f[34] = 9;
	ck_assert_int_eq(judge(len), POLICY_DROP_SERVER);
	f[21] = 1; /* a later fragment: there it is data */
	ck_assert_int_eq(judge(len), POLICY_PASS);
	f[21] = 0;
	ck_assert_int_eq(judge(34), POLICY_PASS); /* and there is no type at all */
}
END_TEST

START_TEST(insane)
{
	allow("a.example");
	ck_assert(net_policy_is_sane(&p));
	p.rule[0].name = 2;
	ck_assert(!net_policy_is_sane(&p));
	p.rule[0].name = 1;
	memset(p.name[0], 'a', POLICY_NAME_LEN);
	ck_assert(!net_policy_is_sane(&p));
	p.name[0][5] = 0;
	p.nrules = POLICY_MAX_RULES + 1;
	ck_assert(!net_policy_is_sane(&p));
	p.nrules = 1;
	p.rule[0].to = (struct policy_prefix){.family = 4, .bits = 33};
	ck_assert(!net_policy_is_sane(&p));
	p.rule[0].to.bits = 32;
	p.flags |= 8;
	ck_assert(!net_policy_is_sane(&p));
}
END_TEST

/* ---- DNS ---- */

static uint8_t dns[512];
static size_t ndns;

static void put(const void *data, size_t len)
{
	memcpy(dns + ndns, data, len);
	ndns += len;
}

static void put_name(const char *name)
{
	while (*name) {
		uint8_t n = (uint8_t)strcspn(name, ".");

		put(&n, 1);
		put(name, n);
		name += n + (name[n] == '.');
	}
	put("", 1);
}

static void answer_begin(const char *asked, uint8_t answers)
{
	const uint8_t head[12] = {0, 7, 0x81, 0x80, 0, 1, 0, answers};

	ndns = 0;
	put(head, sizeof(head));
	put_name(asked);
	put("\0\1\0\1", 4);
}

static void answer_record(const char *owner, uint8_t type, uint8_t ttl, const void *data,
			  uint8_t len)
{
	const uint8_t fixed[10] = {0, type, 0, 1, 0, 0, 0, ttl, 0, len};

	if (owner)
		put_name(owner);
	else
		put("\xc0\x0c", 2); /* what was asked */
	put(fixed, sizeof(fixed));
	put(data, len);
}

static struct msg_net_name found[8];

static unsigned read_dns(size_t len)
{
	uint8_t *copy = malloc(len ? len : 1);
	unsigned n;

	memcpy(copy, dns, len);
	n = net_names_read(&p, copy, len, found, ARRAY_LEN(found));
	free(copy);
	return n;
}

START_TEST(answers)
{
	static const uint8_t six[16] = {0x20, 1, 0xd, 0xb8, [15] = 7};

	allow("tcp:www.example.org:443");
	answer_begin("WWW.example.org", 2);
	answer_record(NULL, 1, 10, "\xc6\x33\x64\x07", 4);
	answer_record("www.EXAMPLE.org", 28, 200, six, 16);
	ck_assert_uint_eq(read_dns(ndns), 2);
	ck_assert_uint_eq(found[0].to.family, 4);
	ck_assert_uint_eq(found[0].to.addr[3], 7);
	ck_assert_uint_eq(found[0].seconds, NAMES_FLOOR_S);
	ck_assert_uint_eq(found[1].to.family, 6);
	ck_assert_uint_eq(found[1].seconds, 200);
	for (size_t cut = 0; cut < ndns; cut++)
		ck_assert_uint_le(read_dns(cut), 1);
	dns[2] = 1; /* a question */
	ck_assert_uint_eq(read_dns(ndns), 0);
	dns[2] = 0x81;
	dns[3] = 0x83; /* no such name */
	ck_assert_uint_eq(read_dns(ndns), 0);
	answer_begin("www.example.com", 1);
	answer_record(NULL, 1, 10, "\xc6\x33\x64\x07", 4);
	ck_assert_uint_eq(read_dns(ndns), 0);
	answer_begin("www.example.org", 1); /* of another name */
	answer_record("www.example.com", 1, 10, "\xc6\x33\x64\x07", 4);
	ck_assert_uint_eq(read_dns(ndns), 0);
}
END_TEST

START_TEST(chains)
{
	allow("tcp:a.example:443");
	answer_begin("a.example", 3);
	answer_record("c.example", 1, 10, "\xc6\x33\x64\x07", 4);
	answer_record("b.example", 5, 10, "\1c\7example", 11);
	answer_record("a.example", 5, 10, "\1b\7example", 11);
	ck_assert_uint_eq(read_dns(ndns), 1);
	ck_assert_uint_eq(found[0].name, 0);
	answer_begin("a.example", 2); /* a circle */
	answer_record("b.example", 5, 10, "\1a\7example", 11);
	answer_record("a.example", 5, 10, "\1b\7example", 11);
	ck_assert_uint_eq(read_dns(ndns), 0);
	answer_begin("a.example", 1);
	put("\xc0\x17", 2); /* a pointer to itself */
	put("\0\1\0\1\0\0\0\1\0\4abcd", 14);
	ck_assert_uint_eq(read_dns(ndns), 0);
}
END_TEST

START_TEST(table)
{
	struct policy_prefix a = {.addr = {192, 0, 2, 1}, .family = 4, .bits = 32};
	uint64_t now = clock_ns();

	ck_assert(!net_names_has(&names, 0, 4, a.addr));
	net_names_add(&names, 0, &a, 60, now);
	ck_assert(net_names_has(&names, 0, 4, a.addr));
	ck_assert(!net_names_has(&names, 1, 4, a.addr));
	ck_assert(!net_names_has(&names, 0, 6, a.addr));
	ck_assert(!net_names_has(NULL, 0, 4, a.addr));
	net_names_add(&names, 0, &a, 30, now); /* does not shorten */
	ck_assert_uint_eq(names.n, 1);
	a.addr[3] = 2;
	net_names_add(&names, 0, &a, 1, now - 2000000000ull);
	ck_assert(!net_names_has(&names, 0, 4, a.addr)); /* over */
	for (unsigned i = 0; i < 2 * NAMES_MAX; i++) {
		a.addr[2] = (uint8_t)(i >> 8);
		a.addr[3] = (uint8_t)i;
		net_names_add(&names, 1, &a, 600 + i, now);
		ck_assert(net_names_has(&names, 1, 4, a.addr));
	}
	ck_assert_uint_eq(names.n, NAMES_MAX);
	net_names_forget(&names);
	ck_assert(!net_names_has(&names, 1, 4, a.addr));
}
END_TEST

START_TEST(followed)
{
	struct policy_card card = {"192.0.2.2/24", "192.0.2.53", 0};
	uint8_t in[600] = {0};
	size_t len, at = 42;

	allow("tcp:a.example:443");
	ck_assert_ptr_null(policy_finish(&p, &card));
	len = ip4_frame(6, "192.0.2.2", "198.51.100.7", 40000, 443);
	ck_assert_int_eq(judge(len), POLICY_DROP_TO);
	answer_begin("a.example", 1);
	answer_record(NULL, 1, 10, "\xc6\x33\x64\x07", 4);
	in[12] = 8;
	in[14] = 0x45;
	in[23] = 17;
	memcpy(in + 26, "\xc0\0\2\x35", 4);
	in[35] = 53;
	in[38] = (uint8_t)((8 + ndns) >> 8);
	in[39] = (uint8_t)(8 + ndns);
	memcpy(in + at, dns, ndns);
	ck_assert_uint_eq(net_names_frame(&p, in, at + ndns - 1, found, 8), 0);
	ck_assert_uint_eq(net_names_frame(&p, in, at + ndns, found, 8), 1);
	in[29]++; /* from somebody else */
	ck_assert_uint_eq(net_names_frame(&p, in, at + ndns, found, 8), 0);
	net_names_add(&names, 0, &found[0].to, 60, clock_ns());
	ck_assert_int_eq(judge(len), POLICY_PASS);
	f[33]++;
	ck_assert_int_eq(judge(len), POLICY_DROP_TO);
	len = ip4_frame(17, "192.0.2.2", "192.0.2.53", 40000, 53); /* it may ask */
	ck_assert_int_eq(judge(len), POLICY_PASS);
	len = ip4_frame(6, "192.0.2.2", "192.0.2.53", 40000, 53);
	ck_assert_int_eq(judge(len), POLICY_DROP_TO);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("netpolicy");
	TCase *t = tcase_create("all");
	SRunner *r = srunner_create(s);
	int failed;

	tcase_add_checked_fixture(t, setup, NULL);
	tcase_add_test(t, rules);
	tcase_add_test(t, refused_rules);
	tcase_add_test(t, words);
	tcase_add_test(t, whole);
	tcase_add_test(t, from_json);
	tcase_add_test(t, judged);
	tcase_add_test(t, sums);
	tcase_add_test(t, served);
	tcase_add_test(t, routers);
	tcase_add_test(t, insane);
	tcase_add_test(t, answers);
	tcase_add_test(t, chains);
	tcase_add_test(t, table);
	tcase_add_test(t, followed);
	suite_add_tcase(s, t);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? 1 : 0;
}
