/*
 * Errors: a negative errno as the return value, one line of text for people.
 *
 * A function that can fail returns 0 (or a count) or a negative errno and, when it takes a
 * `struct err *`, fills it. It never prints. The text names the thing, the value and what was
 * expected; it has no trailing newline. Thread: none, the caller owns the struct.
 */
#ifndef INSULA_ERR_H
#define INSULA_ERR_H

#include <stdint.h>

/* Windows' C library has formats of its own, which nobody here uses. */
#ifdef __MINGW_GNU_PRINTF
#define INSULA_PRINTF(format_at, args_at) __MINGW_GNU_PRINTF(format_at, args_at)
#else
#define INSULA_PRINTF(format_at, args_at) __attribute__((format(printf, format_at, args_at)))
#endif

#ifdef __cplusplus
extern "C" {
#endif

struct err {
	int code;       /* negative errno, 0 when unset */
	char text[252]; /* always terminated, always printable ASCII or UTF-8 */
};

/* Fill `e` (which may be NULL) and return `code`, a negative errno, so that `return err_set(...)`
 * reads well. */
int err_set(struct err *e, int code, const char *fmt, ...) INSULA_PRINTF(3, 4);

/* The same with ": strerror(-code)" appended. */
int err_sys(struct err *e, int code, const char *fmt, ...) INSULA_PRINTF(3, 4);

#if defined(__clang_analyzer__) && !defined(__cplusplus)
/* Clang's analyser sees no other file and inlines no variadic function, so it took an error for
 * success: `code` is a negative errno. Not compiled into anything. */
static inline int err_negative(int code)
{
	__builtin_assume(code < 0);
	return code;
}
#define err_set(...) err_negative(err_set(__VA_ARGS__))
#define err_sys(...) err_negative(err_sys(__VA_ARGS__))
#endif

/* Replace control characters (C0, DEL, C1) and what is not UTF-8 by '?', in place: texts from
 * files, guests and jailed processes must not write escape sequences to somebody's terminal. */
void err_clean(char *text);

/* A broken invariant of our own: one line on stderr, then _exit(70). Works under every jail. */
__attribute__((noreturn)) void panic(const char *fmt, ...) INSULA_PRINTF(1, 2);

#ifdef __cplusplus
}
#endif

#endif
