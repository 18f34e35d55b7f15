/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the daemon has to say: a line of text or of JSON on standard error. Where that is the
 * journal, a datagram with fields goes to the journal instead (systemd, "Native Journal Protocol").
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/log.h>

#include "daemon.h"

#define JOURNAL "/run/systemd/journal/socket"

/* Set by dlog_setup() before the loop runs, and by a reload in the loop's thread. */
static struct {
	bool json, verbose;
	int journal; /* -1: standard error is not the journal */
} out = {.journal = -1};

/* $JOURNAL_STREAM names the device and inode of the stream that is connected to it. */
static bool stderr_is_journal(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	unsigned long long dev, ino;
	struct stat st;

	return stream && sscanf(stream, "%llu:%llu", &dev, &ino) == 2 &&
	       !fstat(STDERR_FILENO, &st) && st.st_dev == dev && st.st_ino == ino;
}

void dlog_setup(const struct conf *c)
{
	struct sockaddr_un to = {.sun_family = AF_UNIX, .sun_path = JOURNAL};

	out.json = c->log_json;
	out.verbose = c->verbose;
	if (out.journal >= 0 || !stderr_is_journal())
		return;
	out.journal = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (out.journal >= 0 && connect(out.journal, (struct sockaddr *)&to, sizeof(to)))
		fd_close(&out.journal);
}

static const char *const names[] = {"error", "warning", "info", "debug"};
static const int priorities[] = {3, 4, 6, 7};

static void to_journal(int level, const struct machine *m, const char *text)
{
	char line[1024];

	snprintf(line, sizeof(line),
		 "MESSAGE=%s\nPRIORITY=%d\nSYSLOG_IDENTIFIER=insulad\n%s%s%s%s%s%s", text,
		 priorities[level], m ? "INSULA_VM=" : "", m ? m->r.id : "", m ? "\n" : "",
		 m ? "INSULA_NAME=" : "", m ? m->r.name : "", m ? "\n" : "");
	(void)send(out.journal, line, strlen(line), MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void to_json(int level, const struct machine *m, const char *text)
{
	json_object *o = json_object_new_object();
	struct iovec line[2];

	j_int(o, "time_ms", now_ms());
	j_str(o, "level", names[level]);
	if (m) {
		j_str(o, "vm", m->r.id);
		j_str(o, "name", m->r.name);
	}
	j_str(o, "message", text);
	line[0] = (struct iovec){(void *)(uintptr_t)j_text(o), strlen(j_text(o))};
	line[1] = (struct iovec){(void *)(uintptr_t) "\n", 1};
	(void)!writev(STDERR_FILENO, line, 2);
	json_object_put(o);
}

void dlog(int level, const struct machine *m, const char *fmt, ...)
{
	char text[512], line[768];
	va_list ap;

	if (level > (out.verbose ? LOG_LVL_DEBUG : LOG_LVL_INFO))
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	err_clean(text);
	if (out.journal >= 0) {
		to_journal(level, m, text);
		return;
	}
	if (out.json) {
		to_json(level, m, text);
		return;
	}
	snprintf(line, sizeof(line), "insulad: %s%s%s%s%s%s%s%s\n",
		 level < LOG_LVL_INFO ? names[level] : "", level < LOG_LVL_INFO ? ": " : "",
		 m ? m->r.name : "", m ? " (" : "", m ? m->r.id : "", m ? ")" : "", m ? ": " : "",
		 text);
	(void)!write(STDERR_FILENO, line, strlen(line));
}
