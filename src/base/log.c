/* SPDX-License-Identifier: BSD-2-Clause */
/* One line, one write(2). See insula/log.h. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <insula/base.h>
#include <insula/log.h>

/* Set once at start-up, before any thread exists; only read after that. */
static struct {
	char name[32];
	enum log_level most;
	void (*write)(const char *text, size_t len);
} conf = {.most = LOG_LVL_WARN, .write = stderr_write};

void log_setup(const char *name, enum log_level most)
{
	snprintf(conf.name, sizeof(conf.name), "%s", name);
	conf.most = most;
}

enum log_level log_most(void)
{
	return conf.most;
}

/* There is room for the line end. */
static void finish_line(char *line)
{
	size_t n = strlen(line);

	line[n++] = '\n';
	conf.write(line, n);
}

void log_at(enum log_level l, const char *fmt, ...)
{
	static const char *const word[] = {"error: ", "warning: ", "", ""};
	char line[512];
	va_list ap;
	size_t n;
	int keep = errno;

	if (l > conf.most)
		return;
	snprintf(line, sizeof(line), "%s%s%s", conf.name, conf.name[0] ? ": " : "", word[l]);
	n = strlen(line);
	va_start(ap, fmt);
	vsnprintf(line + n, sizeof(line) - n - 1, fmt, ap);
	va_end(ap);
	err_clean(line);
	finish_line(line);
	errno = keep;
}

void log_line(const char *fmt, ...)
{
	char line[1002];
	va_list ap;
	int keep = errno;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line) - 1, fmt, ap);
	va_end(ap);
	finish_line(line);
	errno = keep;
}

void log_text(const char *text, size_t len)
{
	conf.write(text, len);
}

void log_output(void (*write)(const char *text, size_t len))
{
	conf.write = write;
}
