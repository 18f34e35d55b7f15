/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * insulad without sockets and without VMs: schemas, configuration, records, the state directory,
 * JSON-RPC from a line to an answer, commands, and the console's scroll-back.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <insula/base.h>

#include "daemon/client.h"
#include "daemon/daemon.h"
#include "daemon/discover.h"
#include "daemon/event.h"
#include "daemon/exec.h"
#include "daemon/foreign.h"
#include "daemon/link.h"
#include "daemon/machine.h"
#include "daemon/methods.h"
#include "daemon/process.h"
#include "daemon/record.h"
#include "daemon/request.h"
#include "daemon/schema.h"
#include "daemon/state.h"
#include "daemon/talk.h"
#include "spec/json.h"
#include "supervisor/control/ctlconsole.h"
#include "supervisor/control/ctlexec.h"
#include "supervisor/control/scrollback.h"
#include "supervisor/vm.h"

/* ---- schemas ---- */

static int try_schema(const char *schema, const char *value, struct problem *p)
{
	json_object *s = json_tokener_parse(schema), *v = json_tokener_parse(value);
	int rc;

	ck_assert_ptr_nonnull(s);
	ck_assert_int_eq(schema_check(s, p), 0);
	rc = schema_validate(s, v, p);
	json_object_put(s);
	json_object_put(v);
	return rc;
}

START_TEST(schema_takes_and_refuses)
{
	static const char text[] =
		"{\"type\":\"object\",\"required\":[\"id\"],\"additionalProperties\":false,"
		"\"properties\":{\"id\":{\"type\":\"string\",\"minLength\":1,\"maxLength\":3},"
		"\"n\":{\"type\":\"integer\",\"minimum\":1,\"maximum\":9},"
		"\"list\":{\"type\":\"array\",\"maxItems\":2,\"items\":{\"enum\":[\"a\",7]}},"
		"\"o\":{\"type\":\"object\",\"properties\":{\"b\":{\"type\":\"boolean\"}}}}}";
	static const struct {
		const char *value, *reason, *field; /* NULL: good */
	} cases[] = {
		{"{\"id\":\"x\"}", NULL, NULL},
		{"{\"id\":\"x\",\"n\":9,\"list\":[\"a\",7],\"o\":{\"b\":true,\"z\":1}}", NULL,
		 NULL},
		{"{}", "missing", "id"},
		{"[]", "type", ""},
		{"{\"id\":7}", "type", "id"},
		{"{\"id\":null}", "type", "id"},
		{"{\"id\":\"\"}", "value", "id"},
		{"{\"id\":\"long\"}", "value", "id"},
		{"{\"id\":\"a\\u0000\"}", "type", "id"},
		{"{\"id\":\"x\",\"n\":0}", "value", "n"},
		{"{\"id\":\"x\",\"n\":10}", "value", "n"},
		{"{\"id\":\"x\",\"n\":1.5}", "type", "n"},
		{"{\"id\":\"x\",\"n\":true}", "type", "n"},
		{"{\"id\":\"x\",\"n\":99999999999999999999}", "value", "n"},
		{"{\"id\":\"x\",\"list\":[\"a\",\"a\",\"a\"]}", "value", "list"},
		{"{\"id\":\"x\",\"list\":[\"a\",\"b\"]}", "value", "list[1]"},
		{"{\"id\":\"x\",\"o\":{\"b\":1}}", "type", "o.b"},
		{"{\"id\":\"x\",\"y\":1}", "unknown", "y"},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct problem p = {0};
		int rc = try_schema(text, cases[i].value, &p);

		ck_assert_msg(rc == (cases[i].reason ? -1 : 0), "%s: %d", cases[i].value, rc);
		if (!rc)
			continue;
		ck_assert_msg(!strcmp(p.reason, cases[i].reason), "%s: %s", cases[i].value,
			      p.reason);
		ck_assert_str_eq(p.field, cases[i].field);
		ck_assert(p.expected[0] != 0);
	}
}
END_TEST

START_TEST(schema_words)
{
	static const char *const bad[] = {
		"{\"type\":\"objekt\"}",        "{\"pattern\":\"x\"}",
		"{\"minimum\":\"1\"}",          "{\"properties\":{\"a\":{\"oneOf\":[]}}}",
		"{\"items\":{\"minItems\":1}}", "[]"};
	struct problem p;

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		json_object *s = json_tokener_parse(bad[i]);

		ck_assert_msg(schema_check(s, &p) == -1, "%s", bad[i]);
		json_object_put(s);
	}
}
END_TEST

/* ---- configuration ---- */

START_TEST(conf_good)
{
	static const char text[] =
		"{\"users\":{\"1000\":{\"vms\":3},\"7\":{\"memory\":\"1G\"}},\"limits\":{\"vcpus\":"
		"5},"
		"\"socket\":\"/x/y\",\"socket_mode\":\"0600\",\"log\":\"json\",\"cgroup\":\"off\"}";
	struct conf c;
	struct err e;

	conf_init(&c);
	ck_assert_int_eq(conf_parse(&c, text, strlen(text), &e), 0);
	ck_assert_str_eq(c.socket, "/x/y");
	ck_assert_uint_eq(c.socket_mode, 0600);
	ck_assert(c.log_json);
	ck_assert_uint_eq(conf_limits(&c, 1000)->vms, 3);
	ck_assert_uint_eq(conf_limits(&c, 1000)->vcpus, 5);
	ck_assert_uint_eq(conf_limits(&c, 7)->memory, 1ull << 30);
	ck_assert_uint_eq(conf_limits(&c, 8)->vcpus, 5);
}
END_TEST

START_TEST(conf_bad)
{
	static const struct {
		const char *text, *says;
	} bad[] = {
		{"", "not JSON"},
		{"[]", "expected one object"},
		{"{\"socke\":\"/x\"}", "unknown setting 'socke'"},
		{"{\"socket\":\"x\"}", "socket: \"x\"; expected an absolute path"},
		{"{\"socket\":7}", "socket: 7; expected a string"},
		{"{\"socket_mode\":\"0999\"}", "socket_mode"},
		{"{\"socket_mode\":\"01000\"}", "socket_mode"},
		{"{\"socket_mode\":\"-1\"}", "socket_mode"},
		{"{\"socket_mode\":432}", "socket_mode"},
		{"{\"max_vms\":0}", "max_vms: 0; expected a number from 1 to"},
		{"{\"max_vms\":\"1\"}", "max_vms"},
		{"{\"max_line\":1e99}", "max_line"},
		{"{\"log\":\"xml\"}", "log: \"xml\"; expected text or json"},
		{"{\"cgroup\":\"x\"}", "cgroup"},
		{"{\"max_vm\":1}", "unknown setting 'max_vm'; did you mean 'max_vms'?"},
		{"{\"limits\":{\"vms\":-1}}", "limits.vms: -1"},
		{"{\"limits\":{\"cpus\":1}}", "limits.cpus: unknown"},
		{"{\"limits\":{\"memory\":\"lots\"}}", "limits.memory"},
		{"{\"limits\":[]}", "limits"},
		{"{\"users\":{\"root\":{}}}", "users: 'root'; expected a numeric"},
		{"{\"users\":{\"4294967295\":{}}}", "users"},
		{"{} x", "not JSON"},
	};

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct conf c;
		struct err e = {0};

		conf_init(&c);
		ck_assert_msg(conf_parse(&c, bad[i].text, strlen(bad[i].text), &e) == -EINVAL, "%s",
			      bad[i].text);
		ck_assert_msg(strstr(e.text, bad[i].says) != NULL, "%s: %s", bad[i].text, e.text);
	}
}
END_TEST

/* What would have to be waited for is no configuration. */
START_TEST(conf_no_file)
{
	char dir[] = "/tmp/insula-conf-XXXXXX", path[64];
	struct conf c;
	struct err e = {0};

	conf_init(&c);
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/fifo", dir);
	ck_assert_int_eq(mkfifo(path, 0600), 0);
	ck_assert_int_eq(conf_load(&c, path, true, NULL, &e), -EINVAL);
	ck_assert_ptr_nonnull(strstr(e.text, "expected a file of at most"));
	ck_assert_int_eq(conf_load(&c, dir, true, NULL, &e), -EINVAL);
	ck_assert_int_eq(conf_load(&c, "-", true, NULL, &e), -ENOENT);
	ck_assert_int_eq(conf_load(&c, "-", false, NULL, &e), 0);
	unlink(path);
	rmdir(dir);
}
END_TEST

/* Flags win over the file; what is wrong in one is said of it. */
START_TEST(conf_of_flags)
{
	char path[] = "/tmp/insula-conf-XXXXXX";
	static const char file[] = "{\"max_vms\":5,\"limits\":{\"vms\":3},\"users\":{\"7\":{}}}";
	static const struct {
		const char *flag, *value, *says;
	} bad[] = {
		{"max-vms", "0", "--max-vms: 0; expected a number from 1 to 65536"},
		{"max-vms", "x", "--max-vms: \"x\"; expected a number from 1 to 65536"},
		{"max-vms", "", "--max-vms: \"\"; expected"},
		{"state-dir", "a", "--state-dir: \"a\"; expected an absolute path"},
		{"limits", "{\"cpus\":1}", "--limits.cpus: unknown; expected vms"},
		{"limits", "{", "--limits: \"{\"; expected an object"},
		{"users", "{\"x\":{}}", "--users: 'x'; expected a numeric user id"},
		{"verbose", "true", "--verbose: no such setting"},
	};
	json_object *flags = json_object_new_object();
	struct flag_words words[CONF_FLAGS];
	int fd = mkstemp(path);
	struct conf c;
	struct err e = {0};

	ck_assert_uint_ge(CONF_FLAGS, conf_flags(words));
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		ck_assert_int_eq(conf_flag(flags, bad[i].flag, bad[i].value, &e), -EINVAL);
		ck_assert_msg(!strncmp(e.text, bad[i].says, strlen(bad[i].says)), "%s", e.text);
	}
	ck_assert_int_eq(json_object_object_length(flags), 0);
	ck_assert_int_eq(write_full(fd, file, sizeof(file) - 1), 0);
	close(fd);
	ck_assert_int_eq(conf_flag(flags, "max-vms", "6", &e), 0);
	ck_assert_int_eq(conf_flag(flags, "limits", "{\"vcpus\":2}", &e), 0);
	ck_assert_int_eq(conf_flag(flags, "socket", "/s", &e), 0);
	ck_assert_int_eq(conf_flag(flags, "log", "json", &e), 0);
	conf_init(&c);
	ck_assert_msg(!conf_load(&c, path, true, flags, &e), "%s", e.text);
	ck_assert(c.max_vms == 6 && c.log_json && !strcmp(c.socket, "/s"));
	ck_assert_uint_eq(conf_limits(&c, 7)->vcpus, 2);
	conf_init(&c);
	ck_assert_int_eq(conf_load(&c, "-", false, flags, &e), 0);
	ck_assert(c.max_vms == 6 && c.limits.vcpus == 2);
	unlink(path);
	json_object_put(flags);
}
END_TEST

START_TEST(conf_reload_keeps)
{
	struct conf c, fresh;
	char kept[200];

	conf_init(&c);
	conf_init(&fresh);
	strcpy(fresh.state_dir, "/elsewhere");
	fresh.max_vms = 7;
	conf_reload(&c, &fresh, kept, sizeof(kept));
	ck_assert_str_eq(kept, "state_dir");
	ck_assert_str_eq(c.state_dir, "/var/lib/insula");
	ck_assert_uint_eq(c.max_vms, 7);
}
END_TEST

/* ---- records ---- */

static struct record sample(void)
{
	struct record r = {.owner = {.uid = 1000, .gid = 100, .groups = {100, 27}, .ngroups = 2},
			   .state = VM_STARTING,
			   .transient = true,
			   .created_ms = 1,
			   .started_ms = 2,
			   .cpus = 2,
			   .mem = 3ull << 30,
			   .mem_start = 1ull << 30,
			   .mem_boot = 1ull << 29,
			   .mem_max = 1ull << 40,
			   .pid = 77,
			   .start_time = 1ull << 50};

	strcpy(r.id, "0123456789abcdef");
	strcpy(r.name, "a-b.c_1");
	strcpy(r.boot_id, "b");
	memset(r.token, 'f', TOKEN_LEN);
	r.config = strdup("{\"cpus\":2}");
	r.result = strdup("{\"reason\":\"status\"}");
	snprintf(r.group, sizeof(r.group), "vm-%s-01234567", r.id);
	strcpy(r.pool, "fedcba9876543210");
	return r;
}

START_TEST(record_round_trip)
{
	struct record r = sample(), s;
	char *text = record_print(&r);
	struct err e;

	ck_assert_int_eq(record_parse(&s, text, strlen(text), &e), 0);
	ck_assert_str_eq(s.id, r.id);
	ck_assert_str_eq(s.name, r.name);
	ck_assert_str_eq(s.config, r.config);
	ck_assert_str_eq(s.result, r.result);
	ck_assert_uint_eq(s.mem, r.mem);
	ck_assert_uint_eq(s.mem_start, r.mem_start);
	ck_assert_uint_eq(s.mem_boot, r.mem_boot);
	ck_assert_uint_eq(s.mem_max, r.mem_max);
	ck_assert_uint_eq(s.start_time, r.start_time);
	ck_assert(s.state == VM_STARTING && s.transient && s.pid == 77 && s.owner.ngroups == 2);
	ck_assert_uint_eq(s.owner.groups[1], 27);
	ck_assert_str_eq(s.group, r.group);
	ck_assert_str_eq(s.pool, r.pool);
	record_free(&s);
	/* Half of it is no record, whatever half. */
	for (size_t n = 0; n < strlen(text); n++)
		ck_assert_msg(record_parse(&s, text, n, &e) != 0, "%zu bytes", n);
	free(text);
	record_free(&r);
}
END_TEST

/* One that cannot be resized, and one of an insulad that could not do that: it is as large as it
 * is. */
START_TEST(record_of_a_fixed_size)
{
	struct record r = sample(), s;
	struct err e;
	char *text;

	r.mem_max = 0;
	text = record_print(&r);
	ck_assert(!strstr(text, "mem_"));
	ck_assert_int_eq(record_parse(&s, text, strlen(text), &e), 0);
	ck_assert(s.mem == r.mem && s.mem_start == r.mem && s.mem_boot == r.mem && !s.mem_max);
	record_free(&s);
	free(text);
	record_free(&r);
}
END_TEST

/* Each member in turn is missing, and of another type. */
START_TEST(record_members)
{
	struct record r = sample(), s;
	char *text = record_print(&r);
	json_object *whole = json_tokener_parse(text);
	struct err e;

	json_object_object_foreach(whole, key, v)
	{
		json_object *o = json_tokener_parse(text);
		bool optional = !strcmp(key, "result") || !strcmp(key, "transient") ||
				!strcmp(key, "group") || !strcmp(key, "pool") ||
				!strcmp(key, "mem_max");

		(void)v;
		json_object_object_del(o, key);
		ck_assert_msg((record_parse(&s, j_text(o), strlen(j_text(o)), &e) == 0) == optional,
			      "without %s", key);
		if (optional)
			record_free(&s);
		j_obj(o, key, json_tokener_parse("[\"x\"]"));
		ck_assert_msg((record_parse(&s, j_text(o), strlen(j_text(o)), &e) == 0) ==
				      !strcmp(key, "transient"),
			      "%s", key);
		if (!strcmp(key, "transient"))
			record_free(&s);
		json_object_put(o);
	}
	json_object_put(whole);
	free(text);
	record_free(&r);
}
END_TEST

START_TEST(record_refused)
{
	static const struct {
		const char *key, *value;
		int rc;
	} cases[] = {
		{"version", "2", -EPROTONOSUPPORT},
		{"version", "0", -EINVAL},
		{"state", "\"broken\"", -EINVAL},
		{"group", "\"vm-0123456789abcdef/../x\"", -EINVAL},
		{"group", "\"vm-0123456789abcdee-01234567\"", -EINVAL},
		{"group", "\"vm-0123456789abcdef-0123456\"", -EINVAL},
		{"group", "\"vm-0123456789abcdef\"", 0},
		{"pool", "\"0123456789abcde\"", -EINVAL},
		{"pool", "\"../0123456789abc\"", -EINVAL},
		{"pool", "\"\"", 0},
	};
	struct record r = sample(), s;
	struct err e;

	strcpy(r.id, "0123456789abcdef");
	r.group[0] = 0;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		char *text = record_print(&r);
		json_object *o = json_tokener_parse(text);
		int rc;

		free(text);
		j_obj(o, cases[i].key, json_tokener_parse(cases[i].value));
		rc = record_parse(&s, j_text(o), strlen(j_text(o)), &e);
		ck_assert_msg(rc == cases[i].rc, "%s %s: %d", cases[i].key, cases[i].value, rc);
		if (!rc)
			record_free(&s);
		else if (rc == -EPROTONOSUPPORT)
			ck_assert_ptr_nonnull(strstr(e.text, "version 2, of a newer insulad"));
		json_object_put(o);
	}
	record_free(&r);
}
END_TEST

/* What is taken as a result stands in a record that can be read. */
START_TEST(results_in_records)
{
	struct record r = sample(), s;
	char text[RESULT_MAX + 1];
	unsigned taken = 0;
	struct err e;

	for (int depth = 1; depth < 24; depth++) {
		char *result;
		int n = snprintf(text, sizeof(text), "{\"reason\":\"x\",\"token\":\"t\",\"d\":");

		for (int i = 1; i < depth; i++)
			text[n++] = '[';
		text[n++] = '1';
		for (int i = 1; i < depth; i++)
			text[n++] = ']';
		strcpy(text + n, "}\n");
		result = result_parse(text, strlen(text), "t");
		if (!result)
			continue;
		taken++;
		free(r.result);
		r.result = result;
		result = record_print(&r);
		ck_assert_msg(!record_parse(&s, result, strlen(result), &e), "%d: %s", depth,
			      e.text);
		record_free(&s);
		free(result);
	}
	ck_assert_uint_ge(taken, 10);
	ck_assert_uint_lt(taken, 20);
	record_free(&r);
}
END_TEST

/* Only that it is not there, or is another one, is its end. */
START_TEST(processes)
{
	struct record r = {.pid = getpid()};
	struct rlimit l, none;
	int fd, first;

	r.start_time = process_start_time(r.pid);
	ck_assert_uint_ne(r.start_time, 0);
	fd = process_open(&r);
	ck_assert_int_ge(fd, 0);
	close(fd);
	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &l), 0);
	first = dup(0);
	close(first);
	for (int more = 0; more < 2; more++) { /* none for the process, none for its times */
		none = (struct rlimit){(rlim_t)(first + more), l.rlim_max};
		ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
		ck_assert_int_eq(process_open(&r), -EMFILE);
		ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &l), 0);
	}
	r.start_time++;
	ck_assert_int_eq(process_open(&r), -ESRCH);
	r.pid = fork();
	if (!r.pid)
		_exit(0);
	ck_assert_int_eq(waitpid(r.pid, NULL, 0), r.pid);
	ck_assert_int_eq(process_open(&r), -ESRCH);
}
END_TEST

START_TEST(oom_kills)
{
	ck_assert_uint_eq(cgroup_oom_kills("low 0\nhigh 0\nmax 3\noom 1\noom_kill 7\n"
					   "oom_group_kill 1\n"),
			  7);
	ck_assert_uint_eq(cgroup_oom_kills("max 3\nxoom_kill 7\noom_kill 0\n"), 0);
	ck_assert_uint_eq(cgroup_oom_kills(""), 0);
}
END_TEST

START_TEST(names)
{
	static const char *const good[] = {"a", "A-1_b.c", "0"};
	static const char *const bad[] = {"", "-a", ".a", "a b", "a/b", "a\n", "\xc3\xa4"};
	char text[80];

	for (size_t i = 0; i < ARRAY_LEN(good); i++)
		ck_assert_msg(name_is_valid(good[i]), "%s", good[i]);
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		ck_assert_msg(!name_is_valid(bad[i]), "%s", bad[i]);
	memset(text, 'a', sizeof(text));
	text[NAME_MAX_LEN] = 0;
	ck_assert(name_is_valid(text));
	text[NAME_MAX_LEN] = 'a';
	text[NAME_MAX_LEN + 1] = 0;
	ck_assert(!name_is_valid(text));
	ck_assert(id_is_valid("0123456789abcdef") && !id_is_valid("0123456789abcdeF") &&
		  !id_is_valid("..") && !id_is_valid("0123456789abcde"));
}
END_TEST

START_TEST(results)
{
	static char big[RESULT_MAX + 64];
	static const char good[] = "{\"reason\":\"status\",\"status\":1,\"token\":\"t\"}\n";
	static const char evil[] =
		"{\"reason\":\"a\\u001bb\",\"d\":[{\"\\u009bx\":\"\\u0000\\u00e4\"}],"
		"\"n\":7,\"token\":\"t\"}\n";
	char *r = result_parse(good, strlen(good), "t");

	ck_assert_ptr_nonnull(r);
	ck_assert_str_eq(r, "{\"reason\":\"status\",\"status\":1}");
	free(r);
	ck_assert_ptr_null(result_parse(good, strlen(good), "u"));
	for (size_t n = 0; n < strlen(good); n++)
		ck_assert_msg(!result_parse(good, n, "t"), "%zu bytes", n);
	ck_assert_ptr_null(result_parse("{\"token\":\"t\"}\n", 14, "t"));
	ck_assert_ptr_null(result_parse("[]\n", 3, "t"));
	/* What root reads at a terminal writes no escape sequence there. */
	r = result_parse(evil, sizeof(evil) - 1, "t");
	ck_assert_str_eq(r, "{\"reason\":\"a?b\",\"d\":[{\"??x\":\"?\u00e4\"}],\"n\":7}");
	free(r);
	/* A record has room for the largest configuration and this. */
	snprintf(big, sizeof(big), "{\"token\":\"t\",\"reason\":\"%*s\"}\n", (int)RESULT_MAX, "x");
	ck_assert_ptr_null(result_parse(big, strlen(big), "t"));
}
END_TEST

/* ---- state directory ---- */

/* What another process gets. */
static int open_elsewhere(const char *path)
{
	int status;
	pid_t pid = fork();
	struct err e;

	if (pid == 0)
		_exit(state_lock(path, &e) == -EBUSY ? 17 : 0);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* insulad is killed while a child of its own has not become a supervisor yet. */
static void lock_is_not_inherited(const char *path)
{
	int ready[2], stay[2];
	struct err e;
	char byte;
	pid_t pid;

	ck_assert(!pipe(ready) && !pipe(stay));
	pid = fork();
	if (pid == 0) {
		int lock = state_lock(path, &e);

		if (lock >= 0 && fork() == 0) {
			close(stay[1]);
			(void)!write(ready[1], "", 1);
			(void)!read(stay[0], &byte, 1);
		}
		_exit(lock < 0);
	}
	close(stay[0]);
	ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
	ck_assert_int_eq(read(ready[0], &byte, 1), 1);
	ck_assert_int_eq(open_elsewhere(path), 0);
	close(stay[1]);
	close(ready[0]);
	close(ready[1]);
}

START_TEST(state_files)
{
	char top[] = "/tmp/test_daemon.XXXXXX", path[64], *text;
	int lock, dir;
	struct err e;
	size_t len;

	ck_assert_ptr_nonnull(mkdtemp(top));
	snprintf(path, sizeof(path), "%s/s", top);
	lock_is_not_inherited(path);
	lock = state_lock(path, &e);
	ck_assert_int_ge(lock, 0);
	dir = state_open(path, "vm", &e);
	ck_assert_int_ge(dir, 0);
	ck_assert_int_eq(open_elsewhere(path), 17);
	ck_assert_int_eq(state_make(dir, "0123456789abcdef", &e), 0);
	ck_assert_int_eq(state_write(dir, "0123456789abcdef", "record.json", "one", true, &e), 0);
	ck_assert_int_eq(state_write(dir, "0123456789abcdef", "record.json", "two", false, &e), 0);
	ck_assert_int_eq(state_read(dir, "0123456789abcdef", "record.json", 10, &text, &len), 0);
	ck_assert_str_eq(text, "two");
	free(text);
	ck_assert_int_eq(state_read(dir, "0123456789abcdef", "record.json", 2, &text, &len),
			 -EFBIG);
	ck_assert_int_eq(state_read(dir, "0123456789abcdef", "none", 9, &text, &len), -ENOENT);
	/* A link leads nowhere. */
	int at = state_enter(dir, "0123456789abcdef");
	ck_assert_int_eq(symlinkat("/etc/passwd", at, "link"), 0);
	ck_assert_int_eq(state_read(dir, "0123456789abcdef", "link", 1 << 20, &text, &len), -ELOOP);
	ck_assert_int_eq(mkfifoat(at, "fifo", 0600), 0);
	ck_assert_int_eq(state_read(dir, "0123456789abcdef", "fifo", 9, &text, &len), -EFBIG);
	/* Whoever is killed over it leaves no record without its result. */
	ck_assert_int_eq(state_write(dir, "0123456789abcdef", "result", "r", false, &e), 0);
	ck_assert_int_eq(unlinkat(at, "record.json", 0), 0);
	ck_assert_int_eq(mkdirat(at, "record.json", 0700), 0);
	state_remove(dir, "0123456789abcdef");
	ck_assert_int_eq(faccessat(at, "result", F_OK, 0), 0);
	ck_assert_int_eq(unlinkat(at, "record.json", AT_REMOVEDIR), 0);
	close(at);
	state_remove(dir, "0123456789abcdef");
	ck_assert_int_eq(state_enter(dir, "0123456789abcdef"), -ENOENT);
	close(dir);
	close(lock);
	ck_assert_int_eq(chmod(path, 0777), 0);
	ck_assert_int_eq(state_lock(path, &e), -EPERM);
	snprintf(path, sizeof(path), "rm -r %s", top);
	ck_assert_int_eq(system(path), 0);
}
END_TEST

/* ---- JSON-RPC ---- */

static struct daemon d;
static struct client *client;

static void setup(void)
{
	struct err e;

	memset(&d, 0, sizeof(d));
	d.state_lock = d.pool_state = d.supervisor = d.cgroups.dir = -1;
	d.state = open("/", O_DIRECTORY | O_PATH); /* nothing can be made there */
	ck_assert_int_eq(uv_loop_init(&d.loop), 0);
	conf_init(&d.conf);
	ck_assert_int_eq(schemas_load(&d.schemas, &e), 0);
	client = client_make(&d, &(struct owner){.uid = 1000});
	ck_assert_ptr_nonnull(client);
}

static void teardown(void)
{
	clients_close(&d);
	machines_close(&d);
	while (uv_run(&d.loop, UV_RUN_NOWAIT))
		;
	ck_assert_int_eq(uv_loop_close(&d.loop), 0);
	schemas_free(&d.schemas);
	close(d.state);
}

/* What the client is told for a line, shortened to codes and ids; "" for nothing. */
static const char *told(const char *line)
{
	static char out[4096];
	const char *text;

	rpc_line(&d, client, line, strlen(line));
	text = client_first_line(client);
	snprintf(out, sizeof(out), "%.4000s", text ? text : "");
	if (text)
		client_free_line(client);
	ck_assert_msg(!client_first_line(client), "a second line for %s", line);
	ck_assert_uint_eq(client->nrequests, 0);
	return out;
}

static void expect_code(const char *line, int code, const char *id)
{
	json_object *o = json_tokener_parse(told(line)), *error = j_get(o, "error");

	ck_assert_msg(o && j_get_int(error, "code", 0) == code, "%s: %s", line, o ? j_text(o) : "");
	ck_assert_str_eq(j_get_str(o, "jsonrpc", ""), "2.0");
	ck_assert_str_eq(j_text(j_get(o, "id")), id);
	ck_assert_ptr_nonnull(j_get_str(j_get(error, "data"), "reason", NULL));
	ck_assert(!json_object_object_get_ex(o, "result", NULL));
	json_object_put(o);
}

/* A record that cannot be read again is a VM lost: no larger configuration is taken. */
START_TEST(rpc_config_has_a_bound)
{
	static char line[CONFIG_MAX + 256];
	json_object *o;

	snprintf(line, sizeof(line),
		 "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"vm.create\",\"params\":{\"config\":{"
		 "\"cmdline\":\"%*s\"}}}",
		 (int)CONFIG_MAX, "x");
	rpc_line(&d, client, line, strlen(line));
	o = json_tokener_parse(client_first_line(client));
	ck_assert_str_eq(j_get_str(j_get(j_get(o, "error"), "data"), "expected", ""),
			 "at most 1 MiB, whatever max_line is");
	ck_assert_uint_eq(d.nmachines, 0);
	client_free_line(client);
	json_object_put(o);
}
END_TEST

/* The answers of a batch are counted as they are made: nobody can order 64 times the largest. */
START_TEST(rpc_batch_has_a_bound)
{
	char line[8192] = "[";
	json_object *o;
	size_t n = 0, refused = 0;

	d.conf.max_queue = 65536;
	for (unsigned i = 0; i < RPC_BATCH; i++)
		snprintf(line + strlen(line), sizeof(line) - strlen(line),
			 "%s{\"jsonrpc\":\"2.0\",\"id\":%u,\"method\":\"rpc.discover\"}",
			 i ? "," : "", i);
	strcat(line, "]");
	rpc_line(&d, client, line, strlen(line));
	o = json_tokener_parse(client_first_line(client));
	client_free_line(client);
	n = json_object_array_length(o);
	ck_assert_uint_eq(n, RPC_BATCH);
	for (size_t i = 0; i < n; i++) {
		json_object *error = j_get(json_object_array_get_idx(o, i), "error");

		if (!error)
			continue;
		ck_assert_int_eq(j_get_int(error, "code", 0), RPC_LIMIT);
		refused++;
	}
	ck_assert_uint_ge(refused, RPC_BATCH / 2);
	ck_assert_uint_lt(refused, RPC_BATCH);
	json_object_put(o);
}
END_TEST

START_TEST(rpc_codes)
{
	expect_code("{", RPC_PARSE, "null");
	expect_code("{\"jsonrpc\":\"2.0\",\"id\":99999999999999999999,\"method\":\"vm.list\"}",
		    RPC_INVALID, "null");
	expect_code("{\"jsonrpc\":\"2.0\",\"id\":-99999999999999999999,\"method\":\"vm.list\"}",
		    RPC_INVALID, "null");
	expect_code("{\"jsonrpc\":\"2.0\",\"id\":9223372036854775806,\"method\":\"x\"}",
		    RPC_NO_METHOD, "9223372036854775806");
	expect_code("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"daemon.info\"} x", RPC_PARSE,
		    "null");
	expect_code("{\"id\":\"\xff\"}", RPC_PARSE, "null");
	expect_code("7", RPC_INVALID, "null");
	expect_code("null", RPC_INVALID, "null");
	expect_code("{}", RPC_INVALID, "null");
	expect_code("[]", RPC_INVALID, "null");
	expect_code("{\"jsonrpc\":\"1.0\",\"id\":5,\"method\":\"x\"}", RPC_INVALID, "5");
	expect_code("{\"jsonrpc\":\"2.0\",\"id\":5,\"method\":6}", RPC_INVALID, "5");
	expect_code("{\"jsonrpc\":\"2.0\",\"id\":{},\"method\":\"x\"}", RPC_INVALID, "null");
	expect_code("{\"jsonrpc\":\"2.0\",\"id\":1.5,\"method\":\"x\"}", RPC_INVALID, "null");
	expect_code("{\"jsonrpc\":\"2.0\",\"id\":\"a\",\"method\":\"x\"}", RPC_NO_METHOD, "\"a\"");
	expect_code("{\"jsonrpc\":\"2.0\",\"id\":null,\"method\":\"x\"}", RPC_NO_METHOD, "null");
	expect_code("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"vm.info\"}", RPC_BAD_PARAMS, "1");
	expect_code("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"vm.info\",\"params\":[\"x\"]}",
		    RPC_BAD_PARAMS, "1");
	expect_code(
		"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"vm.info\",\"params\":{\"id\":\"x\"}}",
		RPC_NOT_FOUND, "1");
	expect_code(
		"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"vm.create\",\"params\":{\"config\":{"
		"\"cpus\":99}}}",
		RPC_BAD_PARAMS, "1");
	expect_code(
		"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"vm.create\",\"params\":{\"config\":{"
		"\"kernel\":\"relative\"}}}",
		RPC_BAD_PARAMS, "1");
	/* The state directory cannot be written. */
	expect_code(
		"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"vm.create\",\"params\":{\"config\":{}"
		"}}",
		RPC_INTERNAL, "1");
	ck_assert_uint_eq(d.nmachines, 0);
}
END_TEST

START_TEST(rpc_silence)
{
	ck_assert_str_eq(told(""), "");
	ck_assert_str_eq(told(" \t\r"), "");
	ck_assert_str_eq(told("{\"jsonrpc\":\"2.0\",\"method\":\"daemon.info\"}"), "");
	ck_assert_str_eq(told("{\"jsonrpc\":\"2.0\",\"method\":\"no.such\"}"), "");
	ck_assert_str_eq(told("[{\"jsonrpc\":\"2.0\",\"method\":\"daemon.info\"}]"), "");
}
END_TEST

START_TEST(rpc_batch)
{
	json_object *o =
		json_tokener_parse(told("[{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"vm.list\"},7,"
					"{\"jsonrpc\":\"2.0\",\"method\":\"vm.list\"},"
					"{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"x\"}]"));
	char many[65 * 3 + 3] = "[";

	ck_assert(json_object_is_type(o, json_type_array));
	ck_assert_uint_eq(json_object_array_length(o), 3);
	ck_assert_ptr_nonnull(j_get(json_object_array_get_idx(o, 0), "result"));
	ck_assert_int_eq(j_get_int(j_get(json_object_array_get_idx(o, 1), "error"), "code", 0),
			 RPC_INVALID);
	ck_assert_int_eq(j_get_int(json_object_array_get_idx(o, 2), "id", 0), 2);
	json_object_put(o);
	for (int i = 0; i < 65; i++)
		strcat(many, i ? ",{}" : "{}");
	strcat(many, "]");
	expect_code(many, RPC_INVALID, "null");
}
END_TEST

START_TEST(rpc_depth)
{
	char deep[200];

	memset(deep, '[', sizeof(deep));
	deep[sizeof(deep) - 1] = 0;
	expect_code(deep, RPC_PARSE, "null");
}
END_TEST

/* Every method says what it is, and its example is what it takes. */
START_TEST(table)
{
	json_object *doc = discover_document();

	ck_assert_uint_eq(json_object_array_length(j_get(doc, "methods")), nmethods);
	for (size_t i = 0; i < nmethods; i++) {
		size_t index;

		ck_assert(methods[i].summary[0] && method_find(methods[i].name, &index) &&
			  index == i);
	}
	json_object_put(doc);
}
END_TEST

/* Another user's VM is not there; root's eyes see it. */
START_TEST(visibility)
{
	bool several;
	struct machine *m = machine_new(&d);
	struct client *other = client_make(&d, &(struct owner){.uid = 1001}),
		      *root = client_make(&d, &(struct owner){.uid = 0});

	m->r.owner.uid = 1000;
	m->r.config = strdup("{}");
	strcpy(m->r.name, "mine");
	ck_assert_ptr_eq(machine_find(&d, client, "mine", &several), m);
	ck_assert_ptr_eq(machine_find(&d, client, m->r.id, &several), m);
	ck_assert_ptr_null(machine_find(&d, other, "mine", &several));
	ck_assert_ptr_null(machine_find(&d, other, m->r.id, &several));
	ck_assert_ptr_eq(machine_find(&d, root, "mine", &several), m);
	client->subscribed = other->subscribed = true;
	event_emit(&d, m, "x", NULL);
	ck_assert_ptr_nonnull(strstr(client_first_line(client), "\"seq\":1"));
	ck_assert_ptr_null(client_first_line(other));
}
END_TEST

/* A name counts if it is one VM's, or the client's own. */
START_TEST(equal_names)
{
	struct client *root = client_make(&d, &(struct owner){.uid = 0});
	struct machine *m[3];
	bool several;

	for (uint32_t i = 0; i < 2; i++) {
		m[i] = machine_new(&d);
		m[i]->r.owner.uid = 1000 + i;
		m[i]->r.config = strdup("{}");
		strcpy(m[i]->r.name, "db");
	}
	ck_assert_ptr_eq(machine_find(&d, client, "db", &several), m[0]);
	ck_assert_ptr_null(machine_find(&d, root, "db", &several));
	ck_assert(several);
	ck_assert_ptr_eq(machine_find(&d, root, m[1]->r.id, &several), m[1]);
	ck_assert(!several);
	ck_assert_ptr_null(machine_find(&d, root, "dc", &several));
	ck_assert(!several);
	m[2] = machine_new(&d);
	m[2]->r.config = strdup("{}");
	strcpy(m[2]->r.name, "db");
	ck_assert_ptr_eq(machine_find(&d, root, "db", &several), m[2]);
	ck_assert(!several);
}
END_TEST

START_TEST(slow_subscriber)
{
	struct machine *m = machine_new(&d);

	m->r.owner.uid = 1000;
	m->r.config = strdup("{}");
	client->subscribed = true;
	for (int i = 0; i < 100000 && client->subscribed; i++)
		event_emit(&d, m, "x", NULL);
	ck_assert(!client->subscribed && !client->gone);
	ck_assert_uint_lt(client->queued, d.conf.max_queue);
	ck_assert_uint_eq(d.n.dropped_subscribers, 1);
}
END_TEST

/* A client that goes leaves no request with a machine. */
START_TEST(waiter_goes)
{
	struct machine *m = machine_new(&d);
	char line[128];

	m->r.owner.uid = 1000;
	m->r.config = strdup("{}");
	snprintf(line, sizeof(line),
		 "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"vm.wait\",\"params\":{\"id\":\"%s\"}}",
		 m->r.id);
	for (int i = 0; i < 3; i++)
		rpc_line(&d, client, line, strlen(line));
	ck_assert_uint_eq(client->nrequests, 3);
	ck_assert_ptr_nonnull(m->waiting);
	client_close(client);
	ck_assert_ptr_null(m->waiting);
}
END_TEST

/* ---- commands ---- */

/* A machine whose supervisor this test is. */
static struct machine *with_supervisor(int *peer)
{
	struct machine *m = machine_new(&d);
	int sv[2];

	m->r.owner.uid = 1000;
	m->r.config = strdup("{}");
	m->r.state = VM_RUNNING;
	strcpy(m->r.name, "x");
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv), 0);
	m->talk = link_new(&d.loop, sv[0], true);
	ck_assert_ptr_nonnull(m->talk);
	*peer = sv[1];
	return m;
}

/* The next connection of insulad's, after it was sent away if `before` is one. */
static int wait_for_insulad(int listener, int before)
{
	uint64_t limit = clock_ns() + 3000000000u;
	int fd = -1;

	if (before >= 0)
		close(before);
	while (fd < 0 && clock_ns() < limit) {
		uv_run(&d.loop, UV_RUN_NOWAIT);
		fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		usleep(1000);
	}
	ck_assert_int_ge(fd, 0);
	return fd;
}

/* A supervisor that is not there yet, or hangs up, is asked again; one that says what it must not
 * say is not. */
START_TEST(supervisor_is_asked_again)
{
	char top[] = "/tmp/insula.XXXXXX", buf[256];
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), peer;
	struct machine *m = machine_new(&d);
	ssize_t n;

	ck_assert_ptr_nonnull(mkdtemp(top));
	close(d.state);
	d.state = open(top, O_DIRECTORY | O_PATH | O_CLOEXEC);
	ck_assert_int_eq(mkdirat(d.state, m->r.id, 0700), 0);
	m->r.config = strdup("{}");
	m->r.state = VM_STARTING;
	m->process = dup(d.state); /* not ended, as far as anybody can see */
	talk_find(m);
	ck_assert_ptr_null(m->talk);
	snprintf(a.sun_path, sizeof(a.sun_path), "%s/%s/control", top, m->r.id);
	ck_assert_int_eq(bind(listener, (struct sockaddr *)&a, sizeof(a)), 0);
	ck_assert_int_eq(listen(listener, 4), 0);
	peer = wait_for_insulad(listener, -1);
	peer = wait_for_insulad(listener, peer);
	n = read(peer, buf, sizeof(buf) - 1);
	ck_assert_int_gt(n, 0);
	buf[n] = 0;
	ck_assert_ptr_nonnull(strstr(buf, "\"op\":\"hello\""));
	ck_assert_int_eq(write(peer, "no", 2), 2);
	while (m->talk)
		uv_run(&d.loop, UV_RUN_ONCE);
	ck_assert_ptr_null(m->again);
	m->r.state = VM_ENDED;
	close(peer);
	close(listener);
	ck_assert_int_eq(unlink(a.sun_path), 0);
	ck_assert_int_eq(unlinkat(d.state, m->r.id, AT_REMOVEDIR), 0);
	ck_assert_int_eq(rmdir(top), 0);
}
END_TEST

static void ask_exec(const char *method, const char *more)
{
	char line[512];

	snprintf(line, sizeof(line),
		 "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"%s\",\"params\":{\"id\":\"x\"%s}}",
		 method, more);
	rpc_line(&d, client, line, strlen(line));
}

/* As if they had come with the line. */
static void give_fds(unsigned n, bool more)
{
	for (client->ngot = 0; client->ngot < n; client->ngot++)
		client->got[client->ngot] = open("/dev/null", O_RDWR | O_CLOEXEC);
	client->got_more = more;
}

static void expect_said(const char *text)
{
	const char *line = client_first_line(client);

	ck_assert_msg(line && strstr(line, text), "%s: %s", text, line ? line : "nothing");
	client_free_line(client);
}

/* The request goes to the supervisor with the descriptors, and only what belongs there. */
START_TEST(exec_goes_on)
{
	char buf[4096], ctl[256];
	struct iovec iov = {buf, sizeof(buf) - 1};
	struct msghdr h = {.msg_iov = &iov,
			   .msg_iovlen = 1,
			   .msg_control = ctl,
			   .msg_controllen = sizeof(ctl)};
	int peer, fds[3];
	struct machine *m = with_supervisor(&peer);
	ssize_t n;

	give_fds(3, false);
	ask_exec("vm.exec", ",\"command\":[\"a\"],\"cwd\":\"/w\",\"rows\":7");
	n = recvmsg(peer, &h, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	ck_assert_int_gt(n, 0);
	buf[n] = 0;
	ck_assert_ptr_nonnull(strstr(buf, "\"op\":\"exec\""));
	ck_assert_ptr_nonnull(strstr(buf, "\"config\":{\"command\":[\"a\"],\"cwd\":\"/w\"}"));
	ck_assert_ptr_nonnull(strstr(buf, "\"rows\":7"));
	ck_assert_ptr_nonnull(CMSG_FIRSTHDR(&h));
	ck_assert_uint_eq(CMSG_FIRSTHDR(&h)->cmsg_len, CMSG_LEN(sizeof(fds)));
	memcpy(fds, CMSG_DATA(CMSG_FIRSTHDR(&h)), sizeof(fds));
	for (int i = 0; i < 3; i++)
		close(fds[i]);
	talk_close(m);
	expect_said("ended");
	m->r.state = VM_ENDED;
	close(peer);
}
END_TEST

/* The same, and it has said hello. */
static struct machine *with_talking_supervisor(int *peer)
{
	struct machine *m = with_supervisor(peer);
	char text[256];
	struct err e;
	int sv[2];

	close(*peer);
	link_free(m->talk);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv), 0);
	ck_assert_int_eq(talk_begin(m, sv[0], &e), 0);
	*peer = sv[1];
	ck_assert_int_gt(read(*peer, text, sizeof(text)), 0);
	snprintf(text, sizeof(text),
		 "{\"id\":1,\"result\":{\"token\":\"%s\",\"state\":\"running\"}}", m->r.token);
	ck_assert_int_eq(write(*peer, text, strlen(text)), (ssize_t)strlen(text));
	while (!m->hello)
		uv_run(&d.loop, UV_RUN_ONCE);
	return m;
}

static void say(int peer, const char *text)
{
	ck_assert_int_eq(write(peer, text, strlen(text)), (ssize_t)strlen(text));
}

/* Neither an answer nor an event brings an escape sequence to whoever reads it. */
START_TEST(words_of_a_supervisor_are_cleaned)
{
	int peer;
	struct machine *m = with_talking_supervisor(&peer);

	client->subscribed = true;
	ask_exec("vm.metrics", "");
	say(peer, "{\"id\":2,\"result\":{\"a\\u001b[2J\":\"b\\u009b2J\"}}");
	say(peer, "{\"event\":\"exec-ended\",\"data\":{\"exec\":1,\"text\":\"c\\u001b[m\"}}");
	for (int i = 0; i < 50; i++)
		uv_run(&d.loop, UV_RUN_NOWAIT);
	expect_said("\"result\":{\"a?[2J\":\"b??2J\"}");
	expect_said("\"text\":\"c?[m\"");
	talk_close(m);
	m->r.state = VM_ENDED;
	close(peer);
}
END_TEST

static void say_with(int peer, const char *text, int fd)
{
	union {
		char room[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} ctl = {0};
	struct iovec iov = {(void *)(uintptr_t)text, strlen(text)};
	struct msghdr h = {.msg_iov = &iov,
			   .msg_iovlen = 1,
			   .msg_control = ctl.room,
			   .msg_controllen = sizeof(ctl.room)};

	*CMSG_FIRSTHDR(&h) = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof(int)),
					      .cmsg_level = SOL_SOCKET,
					      .cmsg_type = SCM_RIGHTS};
	memcpy(CMSG_DATA(CMSG_FIRSTHDR(&h)), &fd, sizeof(fd));
	ck_assert_int_eq(sendmsg(peer, &h, 0), (ssize_t)strlen(text));
}

/* What a console is goes to the client; a file, whose close() could keep the client's other
 * descriptors waiting for ever, does not. */
START_TEST(a_console_is_a_stream)
{
	int peer, file = open("/dev/null", O_RDWR | O_CLOEXEC), sv[2];
	struct machine *m = with_talking_supervisor(&peer);

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
	ask_exec("vm.console", "");
	say_with(peer, "{\"id\":2,\"result\":{}}", file);
	for (int i = 0; i < 50; i++)
		uv_run(&d.loop, UV_RUN_NOWAIT);
	expect_said("malformed");
	ck_assert_uint_eq(client->nfds, 0);
	ask_exec("vm.console", "");
	say_with(peer, "{\"id\":3,\"result\":{}}", sv[0]);
	for (int i = 0; i < 50; i++)
		uv_run(&d.loop, UV_RUN_NOWAIT);
	ck_assert_uint_eq(client->nfds, 1);
	expect_said("\"result\":{}");
	talk_close(m);
	m->r.state = VM_ENDED;
	close(peer);
	close(file);
	close(sv[0]);
	close(sv[1]);
}
END_TEST

/* Descriptors of somebody else come and go: that keeps no silent connection open. */
START_TEST(others_keep_nobody_from_silence)
{
	client->active_ns = 1;
	d.held_back = true;
	foreign_go_on(&d);
	ck_assert_uint_eq(client->active_ns, 1);
	client_settle(client);
	ck_assert_uint_ne(client->active_ns, 1);
}
END_TEST

/* Reading a log goes on when its client has gone: that counts, and so do the files. */
START_TEST(logs_of_clients_that_have_gone)
{
	int peer;
	struct machine *m = with_supervisor(&peer);

	for (int i = 0; i < 32; i++)
		ask_exec("vm.logs", "");
	ck_assert_ptr_null(client_first_line(client));
	client_close(client);
	client = client_make(&d, &(struct owner){.uid = 1000});
	ask_exec("vm.logs", "");
	expect_said("\"busy\"");
	ck_assert_uint_eq(d.nlogs, 32);
	while (d.nlogs)
		uv_run(&d.loop, UV_RUN_ONCE);
	ask_exec("vm.logs", "");
	while (d.nlogs)
		uv_run(&d.loop, UV_RUN_ONCE);
	expect_said("\"lines\"");
	d.nofile.hard = 128 + 64 + 1;
	ask_exec("vm.logs", "");
	expect_said("\"descriptors\"");
	talk_close(m);
	m->r.state = VM_ENDED;
	close(peer);
}
END_TEST

/* A supervisor that floods: what is too much waits, nothing is lost, and others are answered. */
START_TEST(events_have_a_rate)
{
	static const char event[] = "{\"event\":\"helper-died\",\"data\":{\"device\":\"x\"}}";
	int peer;
	struct machine *m = with_talking_supervisor(&peer);
	unsigned sent = 0, soon;
	uint64_t start = clock_ns();

	ck_assert_int_eq(fcntl(peer, F_SETFL, O_NONBLOCK), 0);
	while (clock_ns() - start < 300000000u) {
		while (sent < 400 && write(peer, event, strlen(event)) > 0)
			sent++;
		uv_run(&d.loop, UV_RUN_NOWAIT);
	}
	soon = m->restarts;
	ck_assert_uint_eq(soon, 256);
	while (m->restarts < 400 && clock_ns() - start < 5000000000u) {
		while (sent < 400 && write(peer, event, strlen(event)) > 0)
			sent++;
		uv_run(&d.loop, UV_RUN_NOWAIT);
	}
	ck_assert_uint_eq(m->restarts, 400);
	ck_assert_uint_ge(clock_ns() - start, 900000000u);
	talk_close(m);
	ck_assert_ptr_null(m->rest);
	m->r.state = VM_ENDED;
	close(peer);
}
END_TEST

START_TEST(exec_refusals)
{
	static const struct {
		unsigned fds;
		bool more;
		const char *said;
	} wrong[] = {{0, false, "\"value\":\"0\""},
		     {1, false, "\"value\":\"1\""},
		     {3, true, "\"value\":\"more than 3\""}};
	int peer;
	struct machine *m = with_supervisor(&peer);

	for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
		give_fds(wrong[i].fds, wrong[i].more);
		ask_exec("vm.exec", ",\"command\":[\"a\"]");
		expect_said(wrong[i].said);
		ck_assert(!client->ngot && !client->got_more);
	}
	ask_exec("vm.exec", ",\"command\":[\"a\"],\"streams\":[\"a\",\"b\"]");
	expect_said("\"field\":\"streams\"");
	ask_exec("vm.exec", ",\"command\":\"a\"");
	expect_said("\"reason\":\"type\"");
	ask_exec("vm.exec.signal", ",\"exec\":1,\"signal\":65");
	expect_said("\"field\":\"signal\"");
	ask_exec("vm.exec.wait", ",\"exec\":0");
	expect_said("\"field\":\"exec\"");
	m->r.state = VM_ENDED;
	give_fds(2, false);
	ask_exec("vm.exec", ",\"command\":[\"a\"]");
	expect_said("wrong-state");
	talk_close(m);
	close(peer);
}
END_TEST

/* Held until its own command ends; a supervisor that lies about the end cannot break the answer's
 * shape. */
START_TEST(exec_waits)
{
	int peer;
	struct machine *m = with_supervisor(&peer);
	json_object *o = json_tokener_parse("{\"exec\":1,\"status\":3,\"reason\":\"exited\"}");
	json_object *bad =
		json_tokener_parse("{\"exec\":2,\"status\":7777,\"reason\":5,\"text\":[]}");
	struct request *r;

	for (unsigned i = 1; i <= 3; i++) {
		r = calloc(1, sizeof(*r));
		r->client = client;
		r->id = json_object_new_int(1);
		r->next = client->requests;
		client->requests = r;
		client->nrequests++;
		r->exec = i;
		machine_hold(m, r, 0);
	}
	exec_ended(m, o);
	expect_said("\"result\":{\"exec\":1,\"status\":3,\"reason\":\"exited\"}");
	exec_ended(m, bad);
	expect_said("\"result\":{\"exec\":2,\"status\":125,\"reason\":\"output-lost\"}");
	exec_ended(m, o);
	ck_assert_ptr_null(client_first_line(client));
	machine_refuse_execs(m);
	expect_said("\"reason\":\"ended\"");
	ck_assert_ptr_null(m->waiting);
	json_object_put(o);
	json_object_put(bad);
	talk_close(m);
	m->r.state = VM_ENDED;
	close(peer);
}
END_TEST

/* What a supervisor remembers of its commands. */
START_TEST(exec_records)
{
	static struct ctlexec x;
	static struct vm vm;
	struct msg_exec_exit end = {.end = EXEC_SIGNALED, .value = 9};
	json_object *o;
	struct err e;

	for (unsigned i = 0; i < CTLEXEC_KEPT; i++)
		x.one[i].id = i + 1;
	ck_assert_ptr_null(ctlexec_result(&x, 0));
	ck_assert_ptr_null(ctlexec_result(&x, CTLEXEC_KEPT + 1));
	ck_assert_ptr_null(ctlexec_ended(&x, 1000, &end));
	o = ctlexec_ended(&x, 2, &end);
	ck_assert_str_eq(j_text(o),
			 "{\"exec\":2,\"ended\":true,\"status\":137,\"reason\":\"signaled\"}");
	json_object_put(o);
	/* From a helper that may have been taken over. */
	end = (struct msg_exec_exit){.end = 77, .value = 0xfffff, .text = "a\xff\nb"};
	o = ctlexec_ended(&x, 3, &end);
	ck_assert_str_eq(j_text(o), "{\"exec\":3,\"ended\":true,\"status\":125,"
				    "\"reason\":\"lost\",\"text\":\"a??b\"}");
	json_object_put(o);
	ck_assert_str_eq(ctlexec_signal(&x, &vm, 2, 15, &e), "wrong-state");
	ck_assert_str_eq(ctlexec_signal(&x, &vm, -1, 15, &e), "not-found");
	ck_assert_str_eq(ctlexec_signal(&x, &vm, 1, 0, &e), "bad-params");
	ck_assert_str_eq(ctlexec_signal(&x, &vm, 1, 15, &e), "not-ready");
	ck_assert_str_eq(ctlexec_resize(&x, &vm, 1, 0, 1, &e), "bad-params");
	ck_assert_str_eq(ctlexec_resize(&x, &vm, 1, 1, 65536, &e), "bad-params");
}
END_TEST

START_TEST(exec_not_now)
{
	static struct ctlexec x;
	static struct vm vm;
	static struct vm_config c;
	const int fds[] = {0, 1, 2};
	json_object *params = json_tokener_parse("{\"config\":{\"command\":[]}}");
	uint32_t id;
	struct err e;

	vm.conf = &c;
	exec_init(&vm.execs);
	ck_assert_str_eq(ctlexec_start(&x, &vm, params, fds, 2, NULL, &id, &e), "wrong-state");
	vm.running = true;
	ck_assert_str_eq(ctlexec_start(&x, &vm, params, fds, 2, NULL, &id, &e), "no-agent");
	vm.boot.own_initrd = c.serve = true;
	ck_assert_str_eq(ctlexec_start(&x, &vm, params, fds, 2, NULL, &id, &e), "not-ready");
	ck_assert_str_eq(ctlexec_start(&x, &vm, params, fds, 1, NULL, &id, &e), "bad-params");
	ck_assert_str_eq(ctlexec_start(&x, &vm, params, fds, 4, NULL, &id, &e), "bad-params");
	vm.execs.agent_ready = true;
	ck_assert_str_eq(ctlexec_start(&x, &vm, params, fds, 2, NULL, &id, &e), "bad-params");
	ck_assert_ptr_nonnull(strstr(e.text, "command"));
	json_object_object_add(params, "queue_seconds", json_object_new_int(5));
	ck_assert_str_eq(ctlexec_start(&x, &vm, params, fds, 2, NULL, &id, &e), "bad-params");
	ck_assert_ptr_nonnull(strstr(e.text, "queue_seconds: without queue"));
	ck_assert_uint_eq(x.one[0].id, 0);
	json_object_put(params);
}
END_TEST

/* ---- scroll-back and console ---- */

START_TEST(scrollback)
{
	struct scrollback s;
	const uint8_t *at;
	uint64_t pos = 0, lost = 0;
	uint8_t block[1000];

	ck_assert_int_eq(scrollback_init(&s), 0);
	ck_assert_uint_eq(scrollback_at(&s, &pos, &at, &lost), 0);
	scrollback_add(&s, "abc", 3);
	ck_assert_uint_eq(scrollback_at(&s, &pos, &at, &lost), 3);
	ck_assert_mem_eq(at, "abc", 3);
	pos = scrollback_from(&s, 2);
	ck_assert_uint_eq(pos, 1);
	for (unsigned i = 0; i < 200; i++) {
		memset(block, (int)i, sizeof(block));
		scrollback_add(&s, block, sizeof(block));
	}
	pos = 0;
	ck_assert_uint_gt(scrollback_at(&s, &pos, &at, &lost), 0);
	ck_assert_uint_eq(lost, s.total - SCROLLBACK_LEN);
	ck_assert_uint_eq(*at, (pos - 3) / 1000);
	/* All that is left can be read, in order. */
	for (size_t n; (n = scrollback_at(&s, &pos, &at, &lost)); pos += n)
		ck_assert_uint_eq(*at, (pos - 3) / 1000);
	ck_assert_uint_eq(pos, s.total);
	pos = s.total + 5; /* a reader that is ahead of everything reads nothing */
	ck_assert_uint_eq(scrollback_at(&s, &pos, &at, &lost), 0);
	scrollback_free(&s);
}
END_TEST

/* What is ready. */
static void turn(struct loop *l)
{
	ck_assert_int_eq(loop_step(l, LOOP_NOW), 0);
}

START_TEST(console_clients)
{
	struct loop loop = {0};
	struct vmlog log;
	struct ctlconsole c;
	char buf[100000];
	struct err e;
	int quick, deaf, n;

	vmlog_init(&log);
	ck_assert_int_eq(ctlconsole_open(&c, &log, &e), 0);
	ctlconsole_begin(&c, &loop);
	ck_assert_int_eq(write(c.from[CTLCONSOLE_MAIN].helper, "boot\n", 5), 5);
	turn(&loop);
	quick = ctlconsole_attach(&c, 100, &e);
	deaf = ctlconsole_attach(&c, 0, &e);
	turn(&loop);
	ck_assert_int_eq(recv(quick, buf, sizeof(buf), MSG_DONTWAIT), 5);
	ck_assert_int_lt(recv(deaf, buf, sizeof(buf), MSG_DONTWAIT), 0);
	/* One that never reads costs output, of its own only, and no waiting. */
	for (int i = 0; i < 3000; i++) {
		memset(buf, 'x', 1000);
		ck_assert_int_eq(send(c.from[CTLCONSOLE_MAIN].helper, buf, 1000, MSG_DONTWAIT),
				 1000);
		turn(&loop);
		turn(&loop);
		n = (int)recv(quick, buf, sizeof(buf), MSG_DONTWAIT);
		ck_assert_int_gt(n, 0);
	}
	ck_assert_uint_gt(c.lost, 0);
	/* Input, and back pressure where the helper does not take it. */
	ck_assert_int_eq(write(quick, "in", 2), 2);
	turn(&loop);
	ck_assert_int_eq(recv(c.from[CTLCONSOLE_MAIN].helper, buf, sizeof(buf), MSG_DONTWAIT), 2);
	for (n = 0; n < 100000 && send(quick, buf, 1000, MSG_DONTWAIT) > 0; n++)
		turn(&loop);
	ck_assert_int_lt(n, 100000);
	close(deaf);
	turn(&loop);
	ck_assert_uint_eq(ctlconsole_clients(&c), 1);
	for (unsigned i = 1; i < CTLCONSOLE_CLIENTS; i++)
		ck_assert_int_ge(ctlconsole_attach(&c, 0, &e), 0);
	ck_assert_int_eq(ctlconsole_attach(&c, 0, &e), -EBUSY);
	close(quick);
	ctlconsole_close(&c);
}
END_TEST

/* Whoever has started the VM gets all of both outputs, however slow: the command waits. */
START_TEST(console_first)
{
	int main_pair[2], errors_pair[2], sent = 0, got = 0, n;
	struct loop loop = {0};
	struct ctlconsole c;
	struct vmlog log;
	char buf[1000], in[100000];
	struct err e;

	vmlog_init(&log);
	ck_assert_int_eq(ctlconsole_open(&c, &log, &e), 0);
	ctlconsole_has_command(&c);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, main_pair), 0);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, errors_pair), 0);
	ck_assert_int_eq(ctlconsole_first(&c, main_pair[1], errors_pair[1], &e), 0);
	ctlconsole_begin(&c, &loop);
	ck_assert_uint_eq(ctlconsole_clients(&c), 1);
	ck_assert_int_eq(write(c.from[CTLCONSOLE_ERRORS].helper, "err", 3), 3);
	/* Until nothing goes any more; in between everything is read, or nothing. */
	memset(buf, 'x', sizeof(buf));
	for (int round = 0; round < 3; round++) {
		while ((n = (int)send(c.from[CTLCONSOLE_MAIN].helper, buf, sizeof(buf),
				      MSG_DONTWAIT)) > 0) {
			sent += n;
			turn(&loop);
			turn(&loop);
		}
		ck_assert_int_gt(sent, SCROLLBACK_LEN);
		for (int i = 0; i < 2000; i++) {
			n = (int)recv(main_pair[0], in, sizeof(in), MSG_DONTWAIT);
			got += n > 0 ? n : 0;
			turn(&loop);
		}
		ck_assert_int_eq(got, sent);
	}
	ck_assert_int_eq(recv(errors_pair[0], in, sizeof(in), MSG_DONTWAIT), 3);
	ck_assert_int_eq(memcmp(in, "err", 3), 0);
	/* At the end as well: it waits for the reader. */
	while ((n = (int)send(c.from[CTLCONSOLE_MAIN].helper, buf, sizeof(buf), MSG_DONTWAIT)) >
	       0) {
		sent += n;
		turn(&loop);
	}
	if (!fork()) {
		close(main_pair[1]);
		for (fd_close(&c.client[CTLCONSOLE_CLIENTS].fd);
		     (n = (int)recv(main_pair[0], in, 500, 0)) > 0;)
			got += n;
		_exit(got == sent ? 0 : 1);
	}
	ctlconsole_drain(&c);
	ctlconsole_close(&c);
	ck_assert_int_gt(wait(&n), 0);
	ck_assert_int_eq(n, 0);
	close(main_pair[0]);
	close(errors_pair[0]);
}
END_TEST

/* One that goes does not stop what others still see. */
START_TEST(console_first_goes)
{
	int main_pair[2], errors_pair[2], other, n;
	struct loop loop = {0};
	struct ctlconsole c;
	struct vmlog log;
	char buf[1000], in[100000];
	struct err e;

	vmlog_init(&log);
	ck_assert_int_eq(ctlconsole_open(&c, &log, &e), 0);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, main_pair), 0);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, errors_pair), 0);
	ck_assert_int_eq(ctlconsole_first(&c, main_pair[1], errors_pair[1], &e), 0);
	ctlconsole_begin(&c, &loop);
	memset(buf, 'x', sizeof(buf));
	while (send(c.from[CTLCONSOLE_MAIN].helper, buf, sizeof(buf), MSG_DONTWAIT) > 0)
		turn(&loop);
	close(main_pair[0]);
	close(errors_pair[0]);
	turn(&loop);
	turn(&loop);
	ck_assert_uint_eq(ctlconsole_clients(&c), 0);
	other = ctlconsole_attach(&c, 0, &e);
	ck_assert_int_ge(other, 0);
	for (int i = 0; i < 500; i++) {
		ck_assert_int_ge(send(c.from[CTLCONSOLE_MAIN].helper, buf, 10, MSG_DONTWAIT), 0);
		turn(&loop);
		turn(&loop);
		turn(&loop);
		n = (int)recv(other, in, sizeof(in), MSG_DONTWAIT);
		ck_assert_int_gt(n, 0);
	}
	ctlconsole_drain(&c);
	close(other);
	ctlconsole_close(&c);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("daemon");
	TCase *plain = tcase_create("plain"), *rpc = tcase_create("rpc");
	SRunner *sr;
	int failures;

	tcase_add_test(plain, schema_takes_and_refuses);
	tcase_add_test(plain, schema_words);
	tcase_add_test(plain, conf_good);
	tcase_add_test(plain, conf_bad);
	tcase_add_test(plain, conf_no_file);
	tcase_add_test(plain, conf_of_flags);
	tcase_add_test(plain, conf_reload_keeps);
	tcase_add_test(plain, record_round_trip);
	tcase_add_test(plain, record_of_a_fixed_size);
	tcase_add_test(plain, record_members);
	tcase_add_test(plain, record_refused);
	tcase_add_test(plain, results_in_records);
	tcase_add_test(plain, oom_kills);
	tcase_add_test(plain, processes);
	tcase_add_test(plain, names);
	tcase_add_test(plain, results);
	tcase_add_test(plain, state_files);
	tcase_add_test(plain, scrollback);
	tcase_add_test(plain, console_clients);
	tcase_add_test(plain, console_first);
	tcase_add_test(plain, console_first_goes);
	tcase_add_test(plain, exec_records);
	tcase_add_test(plain, exec_not_now);
	suite_add_tcase(s, plain);
	tcase_add_checked_fixture(rpc, setup, teardown);
	tcase_add_test(rpc, rpc_codes);
	tcase_add_test(rpc, rpc_batch_has_a_bound);
	tcase_add_test(rpc, rpc_config_has_a_bound);
	tcase_add_test(rpc, rpc_silence);
	tcase_add_test(rpc, rpc_batch);
	tcase_add_test(rpc, rpc_depth);
	tcase_add_test(rpc, table);
	tcase_add_test(rpc, visibility);
	tcase_add_test(rpc, equal_names);
	tcase_add_test(rpc, slow_subscriber);
	tcase_add_test(rpc, waiter_goes);
	tcase_add_test(rpc, supervisor_is_asked_again);
	tcase_add_test(rpc, exec_goes_on);
	tcase_add_test(rpc, events_have_a_rate);
	tcase_add_test(rpc, words_of_a_supervisor_are_cleaned);
	tcase_add_test(rpc, a_console_is_a_stream);
	tcase_add_test(rpc, logs_of_clients_that_have_gone);
	tcase_add_test(rpc, others_keep_nobody_from_silence);
	tcase_add_test(rpc, exec_refusals);
	tcase_add_test(rpc, exec_waits);
	suite_add_tcase(s, rpc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failures = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failures != 0;
}
