/*
 * Logging: one line per call to descriptor 2, written with a single write(2), at most 512 bytes.
 *
 * In a jailed program descriptor 2 is a pipe to the supervisor, which cleans the line, limits the
 * rate and prints it with the program's name. No allocation, no locale, no locks: safe in any
 * thread and under every seccomp filter that allows write(2).
 */
#ifndef INSULA_LOG_H
#define INSULA_LOG_H

#include <stddef.h>

#include <insula/err.h>

enum log_level { LOG_LVL_ERROR, LOG_LVL_WARN, LOG_LVL_INFO, LOG_LVL_DEBUG };

/* Name printed before each line ("" for none) and the most talkative level that is printed. */
void log_setup(const char *name, enum log_level most);
enum log_level log_most(void);

void log_at(enum log_level l, const char *fmt, ...) INSULA_PRINTF(2, 3);
#define log_error(...) log_at(LOG_LVL_ERROR, __VA_ARGS__)
#define log_warn(...) log_at(LOG_LVL_WARN, __VA_ARGS__)
#define log_info(...) log_at(LOG_LVL_INFO, __VA_ARGS__)
#define log_debug(...) log_at(LOG_LVL_DEBUG, __VA_ARGS__)
/* A line without a name and a level before it, at most 1,000 bytes, printed at every level. The
 * caller has cleaned it (err_clean()). */
void log_line(const char *fmt, ...) INSULA_PRINTF(1, 2);

/* Whole lines, with their ends, as they are. */
void log_text(const char *text, size_t len);

/* Where lines go instead of stderr_write(), with their line end. Once, before there are threads
 * that log. */
void log_output(void (*write)(const char *text, size_t len));

/*
 * For a process that must not wait for whoever reads its standard error: from here on a thread
 * writes the lines, and nothing of this header blocks. A line for which there is no room is lost,
 * and the line that `lost` makes of their number stands where it would have been (NULL: "insula: N
 * log lines lost: nobody reads standard error"). It is called in any thread that logs, and in the
 * one that writes. The thread has the signal mask of the caller. 0 or a negative errno.
 */
typedef int log_lost_fn(char *line, size_t size, unsigned lines); /* as snprintf() */
int log_queue_start(log_lost_fn *lost);
/* At the end of the process: wait until the lines are written, a second at most. Nothing without
 * log_queue_start(). */
void log_queue_finish(void);

#endif
