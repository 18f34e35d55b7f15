/* SPDX-License-Identifier: BSD-2-Clause */
/* The log of a VM: what its supervisor writes is what insulad reads, within its bounds. */
#include <check.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <insula/base.h>

#include "daemon/logread.h"
#include "spec/json.h"
#include "supervisor/control/vmlog.h"

static int file[2];
static struct vmlog log_;

static void open_log(uint64_t max)
{
	int copy[2];

	for (int i = 0; i < 2; i++) {
		char name[] = "/tmp/test_vmlog.XXXXXX";

		file[i] = mkstemp(name);
		ck_assert_int_ge(file[i], 0);
		unlink(name);
		copy[i] = fd_copy(file[i]);
		lseek(copy[i], 0, SEEK_END);
	}
	ck_assert_int_eq(vmlog_open(&log_, copy, max), 0);
}

static void say(enum vmlog_stream s, const char *text)
{
	vmlog_add(&log_, s, text, strlen(text));
}

static uint64_t size_of(int i)
{
	uint64_t n = 0;

	ck_assert_int_eq(file_size(file[i], &n), 0);
	return n;
}

static struct logread reader(void)
{
	return (struct logread){
		.fd = {file[0], file[1]}, .tail = -1, .limit = 65536, .file_max = 64 << 20};
}

/* The lines of one answer: "stream:text" or, of one that goes on, "stream+text", each with '\n'. */
static const char *lines(struct logread *l, bool ended)
{
	static char out[1 << 20];
	size_t at = 0;

	logread_next(l, ended);
	out[0] = 0;
	for (size_t i = 0; i < json_object_array_length(l->lines); i++) {
		json_object *o = json_object_array_get_idx(l->lines, i), *text = j_get(o, "text");

		at += (size_t)snprintf(
			out + at, sizeof(out) - at, "%s%c%s\n", j_get_str(o, "stream", "?"),
			j_get_bool(o, "partial", false) ? '+' : ':', json_object_get_string(text));
	}
	json_object_put(l->lines);
	return out;
}

START_TEST(records)
{
	static const struct {
		const char *line, *text;
		int64_t ms;
		enum vmlog_stream stream;
		bool more;
	} all[] = {
		{"1795896143444 c- hello", "hello", 1795896143444, VMLOG_CONSOLE, false},
		{"1795896143444 e+ ", "", 1795896143444, VMLOG_STDERR, true},
		{"1795896143444 o- 1795896143444 i- x", "1795896143444 i- x", 1795896143444,
		 VMLOG_STDOUT, false},
		{"1795896143444 x- no", "1795896143444 x- no", -1, VMLOG_INSULA, false},
		{"1795896143444 c* no", "1795896143444 c* no", -1, VMLOG_INSULA, false},
		{"179589614344 cc- no", "179589614344 cc- no", -1, VMLOG_INSULA, false},
		{"panic: x", "panic: x", -1, VMLOG_INSULA, false},
		{"", "", -1, VMLOG_INSULA, false},
	};
	struct vmlog_record r;
	size_t len;

	for (size_t i = 0; i < ARRAY_LEN(all); i++) {
		vmlog_parse(all[i].line, strlen(all[i].line), &r);
		ck_assert_msg(r.time_ms == all[i].ms && r.stream == all[i].stream &&
				      r.more == all[i].more && r.len == strlen(all[i].text) &&
				      !memcmp(r.text, all[i].text, r.len),
			      "%s", all[i].line);
	}
	ck_assert_uint_eq(vmlog_number("insula-log 1 77\nx", 17, &len), 77);
	ck_assert_uint_eq(len, 16);
	ck_assert_uint_eq(vmlog_number("insula-log 1 7x\nx", 17, &len), 0);
	ck_assert_uint_eq(vmlog_number("insula-log 1 77", 15, &len), 0);
	ck_assert_uint_eq(vmlog_number("insula-log 1 \n", 14, &len), 0);
}
END_TEST

/* Nobody writes another stream's line, whatever the bytes. */
START_TEST(streams)
{
	struct logread l;

	open_log(1 << 20);
	say(VMLOG_CONSOLE, "boot");
	say(VMLOG_STDERR, "err\r\n");
	say(VMLOG_CONSOLE, "ing\r\nlogin: ");
	say(VMLOG_STDOUT, "1795896143444 i- insula-run: forged\ninsula-log 1 9999999999999\n\n");
	vmlog_add(&log_, VMLOG_STDOUT, "a\0b\xff\xc3\xa9\n", 7);
	say(VMLOG_INSULA, "insula-run: \x1b[2Jreal\n");
	vmlog_serve(&log_, clock_ns());
	l = reader();
	ck_assert_str_eq(lines(&l, false), "stderr:err\n"
					   "console:booting\n"
					   "stdout:1795896143444 i- insula-run: forged\n"
					   "stdout:insula-log 1 9999999999999\n"
					   "stdout:\n"
					   "stdout:a\n" /* and behind the NUL more */
					   "insula:insula-run: ?[2Jreal\n");
	vmlog_serve(&log_, clock_ns() + 2000000000ull);
	ck_assert_str_eq(lines(&l, false), "console+login: \n");
	say(VMLOG_CONSOLE, "x");
	vmlog_finish(&log_);
	ck_assert_str_eq(lines(&l, true), "console:x\n");
	ck_assert_str_eq(lines(&l, true), "");
	l = reader();
	l.tail = 3;
	logread_next(&l, true);
	{
		json_object *o = json_object_array_get_idx(l.lines, 1);

		ck_assert_str_eq(j_get_str(o, "text", ""), "login: ");
	}
	json_object_put(l.lines);
	l = reader();
	logread_next(&l, true);
	{
		json_object *text = j_get(json_object_array_get_idx(l.lines, 5), "text");

		ck_assert_int_eq(json_object_get_string_len(text), 8);
		ck_assert_mem_eq(json_object_get_string(text), "a\0b\xef\xbf\xbd\xc3\xa9", 8);
	}
	json_object_put(l.lines);
	vmlog_close(&log_);
}
END_TEST

START_TEST(long_lines)
{
	char *text = malloc(10001);
	struct logread l;

	memset(text, 'x', 10000);
	text[10000] = '\n';
	open_log(1 << 20);
	vmlog_add(&log_, VMLOG_STDOUT, text, 10001);
	vmlog_finish(&log_);
	l = reader();
	logread_next(&l, true);
	ck_assert_uint_eq(json_object_array_length(l.lines), 3);
	for (size_t i = 0; i < 3; i++) {
		json_object *o = json_object_array_get_idx(l.lines, i);

		ck_assert_int_eq(json_object_get_string_len(j_get(o, "text")), i < 2 ? 4096 : 1808);
		ck_assert_int_eq(j_get_bool(o, "partial", false), i < 2);
	}
	json_object_put(l.lines);
	vmlog_close(&log_);
	free(text);
}
END_TEST

/* The files never get longer than they may, and the last lines are there. */
START_TEST(rotation)
{
	char line[64], cursor[LOGREAD_CURSOR];
	struct logread l, early, again;
	unsigned first = 0, last = 0, n = 0;

	open_log(VMLOG_MIN);
	say(VMLOG_STDOUT, "line 0\n");
	vmlog_serve(&log_, clock_ns());
	early = reader();
	ck_assert_str_eq(lines(&early, false), "stdout:line 0\n");
	ck_assert(!early.missed);
	for (unsigned i = 1; i <= 20000; i++) {
		snprintf(line, sizeof(line), "line %u\n", i);
		say(VMLOG_STDOUT, line);
		if (i % 1000)
			continue;
		vmlog_serve(&log_, clock_ns());
		ck_assert_uint_le(size_of(0), VMLOG_MIN);
		ck_assert_uint_le(size_of(1), VMLOG_MIN);
	}
	logread_cursor(&early, cursor);
	l = reader();
	ck_assert(logread_place(&l, cursor));
	do {
		logread_next(&l, true);
		ck_assert_int_eq(l.missed, !n);
		for (size_t i = 0; i < json_object_array_length(l.lines); i++, n++) {
			json_object *o = json_object_array_get_idx(l.lines, i);

			ck_assert_int_eq(sscanf(j_get_str(o, "text", ""), "line %u", &last), 1);
			first = n ? first : last;
			ck_assert_uint_eq(last, first + n);
		}
		json_object_put(l.lines);
		logread_cursor(&l, cursor);
		again = reader();
		ck_assert(logread_place(&again, cursor));
		ck_assert(again.number == l.number && again.offset == l.offset);
	} while (l.more);
	ck_assert_uint_eq(last, 20000);
	ck_assert_uint_gt(n, 1000);
	ck_assert_uint_lt(n, 6000);
	for (int64_t tail = 0; tail < 4000; tail += 997) {
		l = reader();
		l.tail = tail;
		l.limit = 1 << 20;
		logread_next(&l, true);
		ck_assert_int_eq((int64_t)json_object_array_length(l.lines), tail);
		json_object_put(l.lines);
	}
	vmlog_close(&log_);
}
END_TEST

/* Whoever floods loses the old lines of what waits, and no time; it is told how much. */
START_TEST(flood)
{
	const uint64_t start = clock_ns(), hour = 3600000000000ull;
	static char chunk[4096];
	uint64_t before;
	struct logread l;

	for (unsigned i = 0; i < sizeof(chunk); i++)
		chunk[i] = i % 64 == 63 ? '\n' : 'y';
	open_log(64 << 20);
	for (unsigned i = 0; i < 5000; i++) {
		vmlog_add(&log_, VMLOG_STDOUT, chunk, sizeof(chunk));
		vmlog_serve(&log_, start + i * 100);
	}
	ck_assert_uint_le(size_of(0), VMLOG_BURST + 4096);
	ck_assert_uint_gt(size_of(0), VMLOG_BURST / 2);
	ck_assert_uint_gt(log_.lost, 10 << 20);
	ck_assert_uint_ne(vmlog_deadline(&log_, start), 0);
	before = size_of(0);
	vmlog_serve(&log_, start + 200000000ull);
	ck_assert_uint_gt(size_of(0), before);
	ck_assert_uint_le(size_of(0), before + VMLOG_RATE / 4);
	say(VMLOG_STDOUT, "the end\n");
	vmlog_serve(&log_, start + hour);
	ck_assert_uint_eq(vmlog_deadline(&log_, start), 0);
	l = reader();
	l.tail = 1;
	ck_assert_str_eq(lines(&l, false), "stdout:the end\n");
	l = reader();
	l.limit = SIZE_MAX;
	logread_next(&l, true);
	ck_assert_ptr_nonnull(strstr(j_text(l.lines), "bytes are missing here"));
	json_object_put(l.lines);
	vmlog_close(&log_);
}
END_TEST

/* What the files say is the VM's user's. */
START_TEST(bad_files)
{
	static const char *const cursors[] = {"",    "1",    "1.",   ".1",  "1.1x",
					      "x.1", "01.1", "1.01", "-1.1"};
	struct logread l;
	char text[100];

	open_log(1 << 20);
	vmlog_close(&log_);
	l = reader();
	for (size_t i = 0; i < ARRAY_LEN(cursors); i++)
		ck_assert_msg(!logread_place(&l, cursors[i]), "%s", cursors[i]);
	l = (struct logread){.fd = {-1, -1}, .tail = -1, .limit = 100};
	ck_assert_str_eq(lines(&l, true), "");
	/* An earlier insulad's: lines without anything; the last has no end. */
	for (int i = 0; i < 2; i++)
		ck_assert_int_eq(ftruncate(file[i], 0), 0);
	ck_assert_int_gt(pwrite(file[0], "insula-vmm: a\nb", 15, 0), 0);
	l = reader();
	ck_assert_str_eq(lines(&l, false), "insula:insula-vmm: a\n");
	ck_assert_str_eq(lines(&l, false), "");
	ck_assert_str_eq(lines(&l, true), "insula:b\n");
	/* A place beyond the end of a file that was cut. */
	l = reader();
	ck_assert(logread_place(&l, "0.1000"));
	ck_assert_str_eq(lines(&l, true), "insula:insula-vmm: a\ninsula:b\n");
	ck_assert(l.missed);
	/* No line end at all. */
	for (int i = 0; i < 3000; i++)
		ck_assert_int_gt(pwrite(file[0], memset(text, 0, sizeof(text)), sizeof(text),
					i * (int)sizeof(text)),
				 0);
	l = reader();
	l.limit = 10;
	logread_next(&l, false);
	ck_assert_uint_eq(json_object_array_length(l.lines), 1);
	ck_assert(l.more);
	json_object_put(l.lines);
}
END_TEST

START_TEST(since)
{
	static const char text[] =
		"insula-log 1 5\n1000000000100 c- old\nraw\n1000000000200 c- new\n"
		"panic: raw\n1000000000300 c- newer\n";
	struct logread l;

	open_log(1 << 20);
	vmlog_close(&log_);
	ck_assert_int_eq(ftruncate(file[0], 0), 0);
	ck_assert_int_gt(pwrite(file[0], text, strlen(text), 0), 0);
	l = reader();
	l.since_ms = 1000000000200;
	ck_assert_str_eq(lines(&l, true), "console:new\ninsula:panic: raw\nconsole:newer\n");
	l = reader();
	l.since_ms = 1000000000200;
	l.tail = 1;
	ck_assert_str_eq(lines(&l, true), "console:newer\n");
}
END_TEST

/* A log that is all hole, or whose files have one number: no answer takes more than its work. */
START_TEST(endless_files)
{
	static const char one[] = "insula-log 1 5\n1000000000100 c- one\n";
	struct logread l;

	open_log(1 << 20);
	vmlog_close(&log_);
	for (int i = 0; i < 2; i++) {
		ck_assert_int_eq(ftruncate(file[i], 0), 0);
		ck_assert_int_gt(pwrite(file[i], one, strlen(one), 0), 0);
		ck_assert_int_eq(ftruncate(file[i], 1ll << 40), 0);
	}
	l = reader();
	l.since_ms = INT64_MAX;
	ck_assert_str_eq(lines(&l, true), "");
	ck_assert(l.more);
	l = reader();
	l.fd[1] = -1;
	l.tail = 1000;
	ck_assert_str_eq(lines(&l, true), "");
	ck_assert(!l.more);
	for (int i = 0; i < 2; i++)
		ck_assert_int_eq(ftruncate(file[i], (off_t)strlen(one) + i), 0);
	l = reader();
	l.since_ms = INT64_MAX;
	for (int i = 0; i < 3; i++)
		ck_assert_str_eq(lines(&l, true), "");
}
END_TEST

int main(void)
{
	Suite *s = suite_create("vmlog");
	TCase *tc = tcase_create("log");
	SRunner *r;
	int bad;

	tcase_add_test(tc, records);
	tcase_add_test(tc, streams);
	tcase_add_test(tc, long_lines);
	tcase_add_test(tc, rotation);
	tcase_add_test(tc, flood);
	tcase_add_test(tc, bad_files);
	tcase_add_test(tc, since);
	tcase_add_test(tc, endless_files);
	suite_add_tcase(s, tc);
	r = srunner_create(s);
	srunner_run_all(r, CK_ENV);
	bad = srunner_ntests_failed(r);
	srunner_free(r);
	return bad ? 1 : 0;
}
