/*
 * Logging: one line per call to descriptor 2, written with a single write(2), at most 512 bytes.
 *
 * In a jailed program descriptor 2 is a pipe to the supervisor, which cleans the line, limits the
 * rate and prints it with the program's name. No allocation, no locale, no locks: safe in any
 * thread and under every seccomp filter that allows write(2).
 */
#ifndef INSULA_LOG_H
#define INSULA_LOG_H

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

#endif
