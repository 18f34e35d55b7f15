/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * insulactl logs: what a VM said, page by page, or followed to its end.
 *
 * In pipes the bytes of its lines as they were; on a terminal without control characters, for a
 * guest may have written them to it. With --json one object per line.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <insula/base.h>

#include "ctl.h"
#include "spec/json.h"

#define PAGE 262144
#define DAY 86400

struct reader {
	bool timestamps, json, clean;
	json_object *params; /* of the next request; owned */
	bool open;           /* the last line has no end yet */
	char stream[16];     /* it is this one's */
};

/* ---- times ---- */

/* "90s", "10m", "1h30m", "2d": seconds. */
static bool duration(const char *text, int64_t *out)
{
	static const struct {
		char unit;
		int64_t seconds;
	} units[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', DAY}};
	int64_t sum = 0;

	while (*text) {
		int64_t n = 0;
		size_t digits = strspn(text, "0123456789"), i = 0;

		if (!digits || digits > 9)
			return false;
		for (size_t k = 0; k < digits; k++)
			n = n * 10 + (*text++ - '0');
		while (i < ARRAY_LEN(units) && units[i].unit != *text)
			i++;
		if (i == ARRAY_LEN(units))
			return false;
		sum += n * units[i].seconds;
		text++;
	}
	*out = sum;
	return sum > 0;
}

/* Days from 1970-01-01 to this one of the Gregorian calendar. */
static int64_t days(int y, int m, int d)
{
	static const int before[] = {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334};
	int leap = (y % 4 == 0 && y % 100 != 0) || y % 400 == 0;
	int64_t past = y - 1; /* whole years since the year 1 */

	return past * 365 + past / 4 - past / 100 + past / 400 - 719162 + before[m - 1] +
	       (m > 2 && leap) + d - 1;
}

/* "Z", "+02:00", "-05:30", or nothing, which is UTC as well: minutes. */
static bool zone(const char *text, int *out)
{
	unsigned h, m;
	int n = 0;

	*out = 0;
	if (!strcmp(text, "Z") || !*text)
		return true;
	if ((text[0] != '+' && text[0] != '-') || sscanf(text + 1, "%2u:%2u%n", &h, &m, &n) != 2 ||
	    text[1 + n] || h > 23 || m > 59)
		return false;
	*out = (int)(h * 60 + m) * (text[0] == '-' ? -1 : 1);
	return true;
}

/* "2026-11-28", "2026-11-28T10:00:00Z", with a fraction, with a zone: milliseconds since 1970. */
static bool date(const char *text, int64_t *out)
{
	unsigned y, mo, d, h = 0, mi = 0, s = 0;
	int n = 0, part = 0, minutes;
	int64_t ms = 0;

	if (sscanf(text, "%4u-%2u-%2u%n", &y, &mo, &d, &n) != 3 || y < 1970 || mo < 1 || mo > 12 ||
	    d < 1 || d > 31)
		return false;
	text += n;
	if ((*text == 'T' || *text == ' ') &&
	    (sscanf(text + 1, "%2u:%2u:%2u%n", &h, &mi, &s, &part) != 3 || h > 23 || mi > 59 ||
	     s > 60))
		return false;
	text += part ? 1 + part : 0;
	if (part && *text == '.') {
		size_t digits = strspn(text + 1, "0123456789");

		for (size_t i = 0; i < 3; i++)
			ms = ms * 10 + (i < digits ? text[1 + i] - '0' : 0);
		text += 1 + digits;
	}
	if (!zone(text, &minutes))
		return false;
	*out = ((days((int)y, (int)mo, (int)d) * DAY + h * 3600 + mi * 60 + s) - minutes * 60) *
		       1000 +
	       ms;
	return true;
}

static int64_t wall_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

bool time_since(const char *text, int64_t *out)
{
	int64_t seconds;

	if (!duration(text, &seconds))
		return date(text, out);
	*out = wall_ms() - seconds * 1000;
	if (*out < 0)
		*out = 0;
	return true;
}

/* ---- lines ---- */

static void print_time(json_object *line)
{
	int64_t ms = j_get_int(line, "time_ms", 0);
	time_t t = (time_t)(ms / 1000);
	struct tm *tm = gmtime(&t); /* one thread */
	char when[32] = "";

	if (tm)
		strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%S", tm);
	printf("%s.%03dZ %-7s ", when, (int)(ms % 1000), j_get_str(line, "stream", ""));
}

/* A line that goes on is not ended, unless another stream's comes between. */
static void print_plain(struct reader *l, json_object *line)
{
	json_object *text = j_get(line, "text");
	const char *stream = j_get_str(line, "stream", ""), *p = json_object_get_string(text);
	bool same = l->open && !strcmp(l->stream, stream);

	if (l->open && !same)
		putchar('\n');
	if (l->timestamps && !same)
		print_time(line);
	if (l->clean && p)
		fputs(print_clean(p, (size_t)json_object_get_string_len(text)), stdout);
	else if (p)
		fwrite(p, 1, (size_t)json_object_get_string_len(text), stdout);
	l->open = j_get_bool(line, "partial", false);
	snprintf(l->stream, sizeof(l->stream), "%.15s", stream);
	if (!l->open)
		putchar('\n');
}

static int print_page(struct reader *l, json_object *page, struct err *e)
{
	json_object *lines = j_get(page, "lines");

	if (j_get_bool(page, "missed", false))
		print_message("", "some lines are missing here: they were overwritten before they "
				  "were read");
	for (size_t i = 0; lines && i < json_object_array_length(lines); i++) {
		json_object *line = json_object_array_get_idx(lines, i);

		if (l->json)
			print_json(line);
		else
			print_plain(l, line);
	}
	return fflush(stdout) ? err_sys(e, -errno, "standard output") : 0;
}

/* ---- asking ---- */

static int read_pages(struct ctl *c, struct reader *l, struct err *e)
{
	bool more = true;
	int rc = 0;

	while (more && !rc) { /* as far as the log goes now */
		json_object *page;

		j_int(l->params, "limit", PAGE);
		page = conn_call(&c->conn, "vm.logs", json_object_get(l->params), e);
		if (!page)
			return e->code;
		rc = print_page(l, page, e);
		more = j_get_bool(page, "more", false);
		json_object_object_del(l->params, "tail");
		j_str(l->params, "after", j_get_str(page, "next", "0.0"));
		json_object_put(page);
	}
	return rc;
}

static int follow(struct ctl *c, struct reader *l, struct err *e)
{
	json_object *o, *page;
	int64_t id;
	int rc = 0;

	j_bool(l->params, "follow", true);
	id = conn_send(&c->conn, "vm.logs", json_object_get(l->params), NULL, 0, e);
	if (id < 0)
		return e->code;
	while (!rc && (o = conn_next(&c->conn, e))) {
		bool is_page = !strcmp(j_get_str(o, "method", ""), "log");

		page = is_page ? json_object_get(j_get(o, "params")) : conn_result(o, e);
		json_object_put(o);
		rc = page ? print_page(l, page, e) : e->code;
		json_object_put(page);
		if (!is_page)
			return rc;
	}
	return rc ? rc : e->code;
}

int ctl_logs(struct ctl *c, const char *vm, struct err *e)
{
	struct reader l = {.json = c->json,
			   .timestamps = c->timestamps,
			   .clean = isatty(STDOUT_FILENO),
			   .params = json_object_new_object()};
	int rc;

	j_str(l.params, "id", vm);
	if (c->tail >= 0)
		j_int(l.params, "tail", c->tail);
	if (c->since_ms)
		j_int(l.params, "since_ms", c->since_ms);
	rc = c->follow ? follow(c, &l, e) : read_pages(c, &l, e);
	if (l.open && !l.json)
		putchar('\n');
	json_object_put(l.params);
	return rc;
}
