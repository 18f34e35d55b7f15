/* SPDX-License-Identifier: BSD-2-Clause */
/* insula-container's parsing: files of records of each kind, what must be refused, numbers; and the
 * programs that device rules become, run by an interpreter of their few instructions. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>

#include <insula/base.h>

#include "guest/container/container.h"
#include "guest/container/kernel.h"

/* ---- records ---- */

/* Records are separated by `|` here, and version=1 comes first. */
static char *make_file(const char *records, size_t *len)
{
	size_t n = strlen(records);
	char *text = malloc(n + 16);

	ck_assert_ptr_nonnull(text);
	*len = (size_t)sprintf(text, "version=1|%s|", records);
	for (size_t i = 0; i < *len; i++)
		if (text[i] == '|')
			text[i] = '\0';
	return text;
}

static char *parse(enum config_kind kind, const char *records, struct config *c)
{
	struct err e = {0};
	size_t len;
	char *text = make_file(records, &len);

	ck_assert_msg(records_parse(kind, text, len, c, &e) == 0, "%s", e.text);
	return text;
}

START_TEST(a_container)
{
	struct config c;
	const struct container *k = &c.container;
	char *text = parse(
		CONFIG_CONTAINER,
		"id=a.b|rootfs=/r|readonly=1|propagation=278528|ns=mount|ns=pid:other|ns=uts|"
		"ns=user|uidmap=0 1000 1|gidmap=0 1000 2|gidmap=5 6 7|hostname=h|mount=/a|"
		"mount.type=tmpfs|mount.data=x=y|mount=/b|mount.source=/s|mount.flags=4096|"
		"mount.clear=1|mount.prop=262144|device=/dev/x|device.type=b|device.major=8|"
		"device.minor=1|device.mode=640|devrule=deny a -1 -1 rwm|devrule=allow c 10 -1 r|"
		"masked=/m1|masked=/m2|ro_path=/ro|sysctl=a.b=c=d|cgroup=memory.max=1|hook=/h|"
		"hook.arg=h|hook.arg=|hook.timeout=3|arg=sh|arg=-c|arg=|env=A=|cwd=/|uid=1|gid=2|"
		"addgid=3|addgid=4|umask=18|terminal=1|cap.ambient=ffffffffffffffff|"
		"rlimit=7 1 18446744073709551615|nnp=1|oom=-1000|seccomp=seccomp|seccomp.flags=2",
		&c);

	ck_assert_str_eq(k->id, "a.b");
	ck_assert(k->readonly && k->has_propagation && k->propagation == (MS_PRIVATE | MS_REC));
	ck_assert(k->ns[NS_MOUNT].fresh && !k->ns[NS_PID].fresh && !k->ns[NS_IPC].fresh);
	ck_assert_str_eq(k->ns[NS_PID].of, "other");
	ck_assert_uint_eq(k->gidmap.n, 2);
	ck_assert_uint_eq(k->gidmap.v[1].size, 7);
	ck_assert_uint_eq(k->mounts, 2);
	ck_assert_str_eq(k->mount[0].data, "x=y");
	ck_assert_uint_eq(k->mount[1].flags, MS_BIND);
	ck_assert_uint_eq(k->mount[1].clear, MS_RDONLY);
	ck_assert_uint_eq(k->device[0].mode, 0640);
	ck_assert_uint_eq(k->devrules, 2);
	ck_assert(!k->devrule[0].allow && k->devrule[0].access == 7 && k->devrule[1].minor == -1);
	ck_assert_str_eq(k->masked.v[1], "/m2");
	ck_assert_ptr_null(k->masked.v[2]);
	ck_assert_str_eq(k->hook[0].arg.v[1], "");
	ck_assert_uint_eq(k->process.arg.n, 3);
	ck_assert_ptr_null(k->process.arg.v[3]);
	ck_assert_uint_eq(k->process.umask, 022);
	ck_assert_uint_eq(k->process.cap[CAP_AMBIENT], UINT64_MAX);
	ck_assert_uint_eq(k->process.rlimit[0].hard, UINT64_MAX);
	ck_assert_int_eq(k->process.oom, -1000);
	ck_assert_uint_eq(k->process.addgid[1], 4);
	records_free(&c);
	free(text);
}
END_TEST

START_TEST(a_sandbox)
{
	struct config c;
	char *text = parse(CONFIG_SANDBOX,
			   "hostname=h|nic=02:00:00:00:00:01|nic.name=eth0|nic.mtu=1400|"
			   "nic.addr=10.0.0.2/24|nic.addr=fd00::2/64|route=default|"
			   "route.via=10.0.0.1|route.dev=eth0|route.metric=5|route=10.1.0.0/16|"
			   "route.dev=eth0|route.scope=link|route.onlink=1|neigh=10.0.0.1|"
			   "neigh.dev=eth0|neigh.mac=02:00:00:00:00:02",
			   &c);

	ck_assert_uint_eq(c.sandbox.nics, 1);
	ck_assert_uint_eq(c.sandbox.nic[0].addr.n, 2);
	ck_assert_uint_eq(c.sandbox.routes, 2);
	ck_assert(c.sandbox.route[1].link && c.sandbox.route[1].onlink);
	ck_assert_uint_eq(c.sandbox.route[0].metric, 5);
	ck_assert_str_eq(c.sandbox.neigh[0].mac, "02:00:00:00:00:02");
	records_free(&c);
	free(text);
}
END_TEST

START_TEST(many_entries)
{
	char *records = malloc(64 * 1024), *p = records;
	struct config c;
	char *text;

	for (unsigned i = 0; i < 3000; i++)
		p += sprintf(p, "%senv=V%u=%u", i ? "|" : "", i, i);
	strcpy(p, "|arg=x");
	text = parse(CONFIG_PROCESS, records, &c);
	ck_assert_uint_eq(c.container.process.env.n, 3000);
	for (size_t i = 0; i < 3000; i++)
		ck_assert_uint_eq((size_t)atoi(c.container.process.env.v[i] + 1), i);
	ck_assert_ptr_null(c.container.process.env.v[3000]);
	records_free(&c);
	free(text);
	free(records);
}
END_TEST

#define GOOD "id=a|rootfs=/r|ns=mount|arg=x|"

static const struct {
	enum config_kind kind;
	const char *records, *text;
} refused[] = {
	{CONFIG_CONTAINER, "rootfs=/r|ns=mount|arg=x", "id= is missing"},
	{CONFIG_CONTAINER, "id=a|ns=mount|arg=x", "rootfs= is missing"},
	{CONFIG_CONTAINER, "id=a|rootfs=/r|arg=x", "ns=mount is missing"},
	{CONFIG_CONTAINER, "id=a|rootfs=/r|ns=mount", "arg= is missing"},
	{CONFIG_CONTAINER, GOOD "id=b", "it once"},
	{CONFIG_CONTAINER, GOOD "id=..", "letters"},
	{CONFIG_CONTAINER, GOOD "ns=uts:a/b", "TYPE or TYPE:ID"},
	{CONFIG_CONTAINER, GOOD "ns=net:a", "mount, pid"},
	{CONFIG_CONTAINER, GOOD "hostname=h", "needs ns=uts"},
	{CONFIG_CONTAINER, GOOD "uidmap=0 0", "INSIDE OUTSIDE SIZE"},
	{CONFIG_CONTAINER, GOOD "uidmap=0 0 0", "INSIDE OUTSIDE SIZE"},
	{CONFIG_CONTAINER, GOOD "uidmap=0  0 1", "INSIDE OUTSIDE SIZE"},
	{CONFIG_CONTAINER, GOOD "uidmap=0 0 1", "go together"},
	{CONFIG_CONTAINER, GOOD "mount=/a", "mount.type= is missing"},
	{CONFIG_CONTAINER, GOOD "mount=/a|mount.flags=4096", "needs mount.source="},
	{CONFIG_CONTAINER, GOOD "mount.flags=1", "expected mount= before it"},
	{CONFIG_CONTAINER, GOOD "mount=/a|mount.flags=4294967296", "flags of mount(2)"},
	{CONFIG_CONTAINER, GOOD "mount=/a|mount.flags=0x1", "flags of mount(2)"},
	{CONFIG_CONTAINER, GOOD "device=/d|device.mode=8", "octal"},
	{CONFIG_CONTAINER, GOOD "device=/d|device.type=d", "c, b or p"},
	{CONFIG_CONTAINER, GOOD "devrule=allow c 1 3 rr", "allow|deny"},
	{CONFIG_CONTAINER, GOOD "devrule=allow c 1 3 r x", "allow|deny"},
	{CONFIG_CONTAINER, GOOD "devrule=allow c -2 3 r", "allow|deny"},
	{CONFIG_CONTAINER, GOOD "cgroup=a/b=1", "own group"},
	{CONFIG_CONTAINER, GOOD "cgroup=memory.max", "NAME=VALUE"},
	{CONFIG_CONTAINER, GOOD "sysctl=../x=1", "NAME=VALUE"},
	{CONFIG_CONTAINER, GOOD "nic=x", "unknown key"},
	{CONFIG_CONTAINER, GOOD "", "expected key=value"},
	{CONFIG_PROCESS, "arg=x|rootfs=/", "unknown key"},
	{CONFIG_PROCESS, "arg=x|cgroup=a=b", "unknown key"},
	{CONFIG_PROCESS, "arg=x|uid=4294967295", "in its range"},
	{CONFIG_PROCESS, "arg=x|uid=1 ", "in its range"},
	{CONFIG_PROCESS, "arg=x|uid=+1", "in its range"},
	{CONFIG_PROCESS, "arg=x|uid=", "in its range"},
	{CONFIG_PROCESS, "arg=x|uid=99999999999999999999999", "in its range"},
	{CONFIG_PROCESS, "arg=x|cap.effective=1ffffffffffffffff", "hexadecimal"},
	{CONFIG_PROCESS, "arg=x|cap.effective=FF", "hexadecimal"},
	{CONFIG_PROCESS, "arg=x|rlimit=7 1", "NUMBER SOFT HARD"},
	{CONFIG_PROCESS, "arg=x|rlimit=16 1 1", "NUMBER SOFT HARD"},
	{CONFIG_PROCESS, "arg=x|oom=1001", "-1000 to 1000"},
	{CONFIG_PROCESS, "arg=x|seccomp=a/b", "letters"},
	{CONFIG_PROCESS, "arg=x|seccomp.flags=1", "seccomp= before it"},
	{CONFIG_UPDATE, "arg=x", "unknown key"},
	{CONFIG_SANDBOX, "route=default", "route.dev= is missing"},
	{CONFIG_SANDBOX, "route.dev=x", "expected route= before it"},
	{CONFIG_SANDBOX, "nic=x|nic.name=a/b", "name of an interface"},
	{CONFIG_SANDBOX, "nic=x|nic.mtu=65536", "in its range"},
	{CONFIG_SANDBOX, "neigh=x|neigh.dev=y", "neigh.mac= is missing"},
};

START_TEST(refused_records)
{
	struct config c;
	struct err e = {0};
	size_t len;
	char *text = make_file(refused[_i].records, &len);

	ck_assert_int_eq(records_parse(refused[_i].kind, text, len, &c, &e), -EINVAL);
	ck_assert_msg(strstr(e.text, refused[_i].text) != NULL, "\"%s\" does not say \"%s\"",
		      e.text, refused[_i].text);
	records_free(&c);
	free(text);
}
END_TEST

START_TEST(refused_files)
{
	static const struct {
		const char *text;
		size_t len;
	} files[] = {{"", 0}, {"version=1", 9}, {"version=2", 10}, {"arg=x\0version=1", 16}};
	struct config c;

	for (size_t i = 0; i < ARRAY_LEN(files); i++) {
		char copy[32] = "";

		memcpy(copy, files[i].text, files[i].len);
		ck_assert_int_eq(records_parse(CONFIG_PROCESS, copy, files[i].len, &c, NULL),
				 -EINVAL);
		records_free(&c);
	}
	char open_end[] = "version=1\0arg=x";

	ck_assert_int_eq(records_parse(CONFIG_PROCESS, open_end, sizeof(open_end) - 1, &c, NULL),
			 -EINVAL);
	records_free(&c);
}
END_TEST

START_TEST(numbers)
{
	uint64_t v;
	int64_t l[3];

	ck_assert_int_eq(num_u64("18446744073709551615", 10, UINT64_MAX, &v), 0);
	ck_assert_uint_eq(v, UINT64_MAX);
	ck_assert_int_eq(num_u64("18446744073709551616", 10, UINT64_MAX, &v), -EINVAL);
	ck_assert_int_eq(num_u64("9", 8, UINT64_MAX, &v), -EINVAL);
	ck_assert_int_eq(num_u64("5", 10, 4, &v), -EINVAL);
	ck_assert_int_eq(num_u64("0", 10, 0, &v), 0);
	ck_assert_int_eq(num_u64("10", 10, 9, &v), -EINVAL);
	ck_assert_int_eq(num_list("1 -1 3", l, 3, true, 9), 0);
	ck_assert_int_eq((int)l[1], -1);
	ck_assert_int_eq(num_list("1 -1 3", l, 3, false, 9), -EINVAL);
	ck_assert_int_eq(num_list("1 2 3 ", l, 3, false, 9), -EINVAL);
	ck_assert_int_eq(num_list("1 -11", l, 2, true, 9), -EINVAL);
}
END_TEST

/* ---- device rules ---- */

/* Only forward jumps: it ends. No ck_assert() in here or in compare(): one takes as long as a whole
 * program. */
static int interpret(const struct k_bpf_insn *v, size_t n, const uint32_t ctx[3])
{
	uint64_t r[16] = {0};

	for (size_t i = 0; i < n; i++) {
		const struct k_bpf_insn *k = &v[i];
		uint64_t *d = &r[k->regs & 15];

		switch (k->code) {
		case 0x61:
			*d = ctx[k->off / 4];
			break;
		case 0xbf:
			*d = r[k->regs >> 4];
			break;
		case 0xb7:
			*d = (uint64_t)(int64_t)k->imm;
			break;
		case 0x57:
			*d &= (uint64_t)(int64_t)k->imm;
			break;
		case 0x77:
			*d >>= k->imm;
			break;
		case 0x05:
			if (k->off < 0)
				ck_abort_msg("instruction %zu: a jump back", i);
			i += (size_t)k->off;
			break;
		case 0x45:
			i += *d & (uint64_t)(int64_t)k->imm ? (size_t)k->off : 0;
			break;
		case 0x55:
			i += *d != (uint64_t)(int64_t)k->imm ? (size_t)k->off : 0;
			break;
		case 0x95:
			return (int)r[0];
		default:
			ck_abort_msg("instruction %zu: unknown code 0x%x", i, k->code);
		}
	}
	ck_abort_msg("the program has no end");
}

/* The rule in words: per kind of access the last one that speaks of it. */
static bool expected(const struct devrule *rule, size_t n, char type, int major, int minor,
		     unsigned access)
{
	for (unsigned kind = 1; kind <= DEV_WRITE; kind <<= 1) {
		bool allowed = false;

		if (!(access & kind))
			continue;
		for (size_t i = 0; i < n; i++)
			if (rule[i].access & kind &&
			    (rule[i].type == 'a' || rule[i].type == type) &&
			    (rule[i].major < 0 || rule[i].major == major) &&
			    (rule[i].minor < 0 || rule[i].minor == minor))
				allowed = rule[i].allow;
		if (!allowed)
			return false;
	}
	return true;
}

static void compare(const struct devrule *rule, size_t n)
{
	struct k_bpf_insn *v;
	struct err e;
	int len = devices_program(rule, n, &v, &e);

	ck_assert_int_gt(len, 0);
	for (unsigned i = 0; i < 2 * 3 * 3 * 8; i++) {
		unsigned access = i % 8, type = i / 8 % 2, major = i / 16 % 3, minor = i / 48;
		const uint32_t ctx[3] = {access << 16 | (type + 1), major, minor};

		if (interpret(v, (size_t)len, ctx) !=
		    expected(rule, n, type ? 'c' : 'b', (int)major, (int)minor, access))
			ck_abort_msg("%zu rules, %c %u:%u access %u", n, type ? 'c' : 'b', major,
				     minor, access);
	}
	free(v);
}

START_TEST(device_programs)
{
	struct devrule rule[9] = {0};
	uint64_t seed = 1;

	compare(rule, 0);
	for (unsigned round = 0; round < 2000; round++) {
		size_t n = round % ARRAY_LEN(rule) + 1;

		for (size_t i = 0; i < n; i++) {
			seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
			rule[i] = (struct devrule){.allow = seed >> 40 & 1,
						   .type = "abcc"[seed >> 41 & 3],
						   .major = (int)(seed >> 43 & 3) - 1,
						   .minor = (int)(seed >> 45 & 3) - 1,
						   .access = (unsigned)((seed >> 47) % 7) + 1};
		}
		compare(rule, n);
	}
}
END_TEST

START_TEST(device_program_of_the_most)
{
	struct devrule *rule = calloc(DEVRULES_MAX + 16, sizeof(*rule));
	struct k_bpf_insn *v;
	int len;

	ck_assert_ptr_nonnull(rule);
	for (unsigned i = 0; i < DEVRULES_MAX + 16; i++)
		rule[i] = (struct devrule){true, 'c', (int)i, 1, 7};
	len = devices_program(rule, DEVRULES_MAX + 16, &v, NULL);
	ck_assert_int_gt(len, 0);
	ck_assert_int_eq(interpret(v, (size_t)len, (const uint32_t[3]){6u << 16 | 2, 0, 1}), 1);
	ck_assert_int_eq(interpret(v, (size_t)len, (const uint32_t[3]){6u << 16 | 2, 0, 2}), 0);
	free(v);
	free(rule);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("container_records");
	TCase *t = tcase_create("records");
	SRunner *r;
	int failed;

	tcase_add_test(t, a_container);
	tcase_add_test(t, a_sandbox);
	tcase_add_test(t, many_entries);
	tcase_add_loop_test(t, refused_records, 0, (int)ARRAY_LEN(refused));
	tcase_add_test(t, refused_files);
	tcase_add_test(t, numbers);
	suite_add_tcase(s, t);
	t = tcase_create("devices");
	tcase_add_test(t, device_programs);
	tcase_add_test(t, device_program_of_the_most);
	suite_add_tcase(s, t);
	r = srunner_create(s);
	srunner_run_all(r, CK_ENV);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
