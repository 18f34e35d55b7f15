/* SPDX-License-Identifier: BSD-2-Clause */
/* The log. See report.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "report.h"
#include "spec/json.h"

#define TEXT_MAX 1024

/* Of the process; set before the first line. */
static struct {
	int fd;     /* of --log; -1: none */
	bool quiet; /* standard error is somebody else's */
	bool json, debug;
} report = {.fd = -1};

int report_open(const char *path, bool json, bool debug, struct err *e)
{
	report.json = json;
	report.debug = debug;
	if (!path || !path[0])
		return 0;
	report.fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0644);
	return report.fd < 0 ? err_sys(e, -errno, "--log: %s", path) : 0;
}

void report_to_file_only(void)
{
	report.quiet = true;
}

int report_fd(void)
{
	return report.fd;
}

static void put(int fd, const char *text, size_t len)
{
	(void)!write(fd, text, len);
}

static void now(char *out, size_t size)
{
	time_t t = time(NULL);
	struct tm tm;

	gmtime_r(&t, &tm);
	strftime(out, size, "%Y-%m-%dT%H:%M:%SZ", &tm);
}

static char *line_json(const char *level, const char *text, const char *stamp)
{
	json_object *o = json_object_new_object();
	char *line = NULL;

	j_str(o, "level", level);
	j_str(o, "msg", text);
	j_str(o, "time", stamp);
	if (asprintf(&line, "%s\n", j_text(o)) < 0)
		line = NULL;
	json_object_put(o);
	return line;
}

static char *line_text(const char *level, const char *text, const char *stamp)
{
	char quoted[2 * TEXT_MAX], *line = NULL;
	size_t n = 0;

	for (const char *p = text; *p && n < sizeof(quoted) - 2; p++) {
		if (*p == '"' || *p == '\\')
			quoted[n++] = '\\';
		quoted[n++] = *p;
	}
	quoted[n] = 0;
	if (asprintf(&line, "time=\"%s\" level=%s msg=\"%s\"\n", stamp, level, quoted) < 0)
		line = NULL;
	return line;
}

static void say(const char *level, bool error, const char *fmt, va_list ap)
{
	char text[TEXT_MAX], stamp[32], *line;

	vsnprintf(text, sizeof(text) - 1, fmt, ap);
	err_clean(text);
	now(stamp, sizeof(stamp));
	line = report.json ? line_json(level, text, stamp) : line_text(level, text, stamp);
	if (line && report.fd >= 0)
		put(report.fd, line, strlen(line));
	else if (line && !report.quiet)
		put(STDERR_FILENO, line, strlen(line));
	free(line);
	if (error && report.fd >= 0 && !report.quiet) {
		strcat(text, "\n"); /* there is room for it */
		put(STDERR_FILENO, text, strlen(text));
	}
}

void report_error(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	say("error", true, fmt, ap);
	va_end(ap);
}

void report_warn(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	say("warning", false, fmt, ap);
	va_end(ap);
}

void report_debug(const char *fmt, ...)
{
	va_list ap;

	if (!report.debug)
		return;
	va_start(ap, fmt);
	say("debug", false, fmt, ap);
	va_end(ap);
}
