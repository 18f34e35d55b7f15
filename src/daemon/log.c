/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the daemon has to say: a line of text or of JSON on standard error, or to the system's own
 * log (log_linux.c). Nobody waits for whoever reads them: insula/log.h.
 */
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include <insula/base.h>
#include <insula/log.h>

#include "daemon.h"
#include "dlog.h"
#include "machine.h"
#include "spec/json.h"

/* Set by dlog_setup() before the loop runs, and by a reload in the loop's thread. The thread that
 * writes the lines reads the first. */
static struct {
	atomic_bool json;
	bool verbose;
} out;

void dlog_setup(const struct conf *c)
{
	out.json = c->log_json;
	out.verbose = c->verbose;
	journal_open();
}

static const char *const names[] = {"error", "warning", "info", "debug"};

static void log_to_json(int level, const struct machine *m, const char *text, char *line,
			size_t size)
{
	json_object *o = json_object_new_object();

	j_int(o, "time_ms", now_ms());
	j_str(o, "level", names[level]);
	if (m) {
		j_str(o, "vm", m->r.id);
		j_str(o, "name", m->r.name);
	}
	j_str(o, "message", text);
	snprintf(line, size, "%s\n", j_text(o));
	json_object_put(o);
}

static int lost_line(char *line, size_t size, unsigned lines)
{
	char text[96];

	snprintf(text, sizeof(text), "%u log lines lost: nobody reads standard error", lines);
	if (out.json)
		log_to_json(LOG_LVL_WARN, NULL, text, line, size);
	else
		snprintf(line, size, "insulad: warning: %s\n", text);
	return (int)strlen(line);
}

int dlog_start(const struct conf *c)
{
	dlog_setup(c);
	return log_queue_start(lost_line);
}

void dlog(int level, const struct machine *m, const char *fmt, ...)
{
	char text[512], line[4096]; /* JSON may take six bytes for one */
	va_list ap;

	if (level > (out.verbose ? LOG_LVL_DEBUG : LOG_LVL_INFO))
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	err_clean(text);
	if (journal_write(level, m, text))
		return;
	if (out.json)
		log_to_json(level, m, text, line, sizeof(line));
	else
		snprintf(line, sizeof(line), "insulad: %s%s%s%s%s%s%s%s\n",
			 level < LOG_LVL_INFO ? names[level] : "", level < LOG_LVL_INFO ? ": " : "",
			 m ? m->r.name : "", m ? " (" : "", m ? m->r.id : "", m ? ")" : "",
			 m ? ": " : "", text);
	log_text(line, strlen(line));
}
