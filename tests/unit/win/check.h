/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The part of Check's interface that the unit tests use, for the .exe builds: Check is not packaged
 * for mingw-w64, and where it cannot fork it stops at the first failure. One translation unit a
 * program. Each case prints `ok NAME` or `not ok NAME - where: what`; a failed assertion leaves its
 * case by longjmp(), so what the case had open stays open until the program ends. Of a thread that
 * is not the case's it ends the program. All cases run in one process.
 */
#ifndef INSULA_TEST_WIN_CHECK_H
#define INSULA_TEST_WIN_CHECK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <pthread.h>

#define CHECK_CASES 200

typedef struct TTest {
	const char *name;
	void (*fn)(int _i);
} TTest;
typedef struct TCase {
	struct check_case {
		const TTest *test;
		int from, to; /* _i; one round with 0 where it does not loop */
	} list[CHECK_CASES];
	unsigned n;
	void (*setup)(void), (*teardown)(void); /* around each case; NULL: nothing */
} TCase;
#define CHECK_TCASES 8
typedef struct Suite {
	TCase *tcase[CHECK_TCASES];
	unsigned n;
} Suite;
typedef struct SRunner {
	Suite *suite;
	int failed;
} SRunner;

#define CK_ENV 0
#define START_TEST(id)                                 \
	static void id##_fn(int _i);                   \
	static const TTest id##_test = {#id, id##_fn}; \
	static const TTest *const id = &id##_test;     \
	static void id##_fn(int _i __attribute__((unused)))
#define END_TEST

static jmp_buf check_out;
static pthread_t check_thread;
static char check_why[400];

__attribute__((format(gnu_printf, 3, 4), noreturn)) static inline void
check_fail(const char *file, int line, const char *fmt, ...)
{
	va_list ap;
	int n = snprintf(check_why, sizeof(check_why), "%s:%d: ", file, line);

	va_start(ap, fmt);
	vsnprintf(check_why + n, sizeof(check_why) - (size_t)n, fmt, ap);
	va_end(ap);
	if (!pthread_equal(pthread_self(), check_thread)) {
		printf("not ok another thread - %s\n", check_why);
		exit(1);
	}
	longjmp(check_out, 1);
}

#define ck_assert_msg(c, ...)                                        \
	do {                                                         \
		if (!(c))                                            \
			check_fail(__FILE__, __LINE__, __VA_ARGS__); \
	} while (0)
#define ck_assert(c) ck_assert_msg(c, "%s", #c)
#define ck_abort_msg(...) check_fail(__FILE__, __LINE__, __VA_ARGS__)
#define CHECK_INT(a, op, b)                                                         \
	do {                                                                        \
		intmax_t a_ = (a), b_ = (b);                                        \
		ck_assert_msg(a_ op b_, "%s %s %s: %jd, %jd", #a, #op, #b, a_, b_); \
	} while (0)
#define CHECK_UINT(a, op, b)                                                            \
	do {                                                                            \
		uintmax_t a_ = (a), b_ = (b);                                           \
		ck_assert_msg(a_ op b_, "%s %s %s: 0x%jx, 0x%jx", #a, #op, #b, a_, b_); \
	} while (0)
#define CHECK_PTR(a, op, b)                                                       \
	do {                                                                      \
		const void *a_ = (a), *b_ = (b);                                  \
		ck_assert_msg(a_ op b_, "%s %s %s: %p, %p", #a, #op, #b, a_, b_); \
	} while (0)
#define ck_assert_int_eq(a, b) CHECK_INT(a, ==, b)
#define ck_assert_int_ne(a, b) CHECK_INT(a, !=, b)
#define ck_assert_int_ge(a, b) CHECK_INT(a, >=, b)
#define ck_assert_int_gt(a, b) CHECK_INT(a, >, b)
#define ck_assert_int_le(a, b) CHECK_INT(a, <=, b)
#define ck_assert_int_lt(a, b) CHECK_INT(a, <, b)
#define ck_assert_uint_eq(a, b) CHECK_UINT(a, ==, b)
#define ck_assert_uint_ne(a, b) CHECK_UINT(a, !=, b)
#define ck_assert_uint_ge(a, b) CHECK_UINT(a, >=, b)
#define ck_assert_uint_gt(a, b) CHECK_UINT(a, >, b)
#define ck_assert_uint_le(a, b) CHECK_UINT(a, <=, b)
#define ck_assert_uint_lt(a, b) CHECK_UINT(a, <, b)
#define ck_assert_ptr_eq(a, b) CHECK_PTR(a, ==, b)
#define ck_assert_ptr_ne(a, b) CHECK_PTR(a, !=, b)
#define ck_assert_ptr_null(a) CHECK_PTR(a, ==, NULL)
#define ck_assert_ptr_nonnull(a) CHECK_PTR(a, !=, NULL)
#define CHECK_STR(a, op, b)                                                                       \
	do {                                                                                      \
		const char *a_ = (a), *b_ = (b);                                                  \
		ck_assert_msg(a_ &&b_ &&strcmp(a_, b_) op 0, "%s %s %s: \"%s\", \"%s\"", #a, #op, \
			      #b, a_ ? a_ : "(null)", b_ ? b_ : "(null)");                        \
	} while (0)
#define ck_assert_str_eq(a, b) CHECK_STR(a, ==, b)
#define ck_assert_str_ne(a, b) CHECK_STR(a, !=, b)
#define ck_assert_mem_eq(a, b, n) \
	ck_assert_msg(memcmp(a, b, n) == 0, "%s and %s differ in their %s bytes", #a, #b, #n)

static inline void *check_alloc(size_t size)
{
	void *p = calloc(1, size);

	if (!p)
		abort();
	return p;
}

static inline Suite *suite_create(const char *name)
{
	(void)name;
	return check_alloc(sizeof(Suite));
}

static inline TCase *tcase_create(const char *name)
{
	(void)name;
	return check_alloc(sizeof(TCase));
}

static inline void tcase_add_loop_test(TCase *t, const TTest *test, int from, int to)
{
	if (t->n == CHECK_CASES)
		abort();
	t->list[t->n++] = (struct check_case){test, from, to};
}
#define tcase_add_test(t, test) tcase_add_loop_test(t, test, 0, 1)

static inline void tcase_add_checked_fixture(TCase *t, void (*setup)(void), void (*teardown)(void))
{
	t->setup = setup;
	t->teardown = teardown;
}

/* The limit is the caller's: tests/check stops a program that does not end. */
static inline void tcase_set_timeout(TCase *t, double seconds)
{
	(void)t;
	(void)seconds;
}

static inline void suite_add_tcase(Suite *s, TCase *t)
{
	if (s->n == CHECK_TCASES)
		abort();
	s->tcase[s->n++] = t;
}

static inline SRunner *srunner_create(Suite *s)
{
	SRunner *sr = check_alloc(sizeof(SRunner));

	sr->suite = s;
	return sr;
}

static inline bool check_one(const TCase *t, const TTest *test, int i)
{
	if (setjmp(check_out) == 0) {
		if (t->setup)
			t->setup();
		test->fn(i);
		if (t->teardown)
			t->teardown();
		printf("ok %s\n", test->name);
		fflush(stdout);
		return true;
	}
	printf("not ok %s - %s\n", test->name, check_why);
	fflush(stdout);
	return false;
}

static inline void srunner_run_all(SRunner *sr, int mode)
{
	(void)mode;
	check_thread = pthread_self();
	for (unsigned n = 0; n < sr->suite->n; n++) {
		const TCase *t = sr->suite->tcase[n];

		for (unsigned c = 0; c < t->n; c++)
			for (int i = t->list[c].from; i < t->list[c].to; i++)
				sr->failed += !check_one(t, t->list[c].test, i);
	}
}

static inline int srunner_ntests_failed(const SRunner *sr)
{
	return sr->failed;
}

static inline void srunner_free(SRunner *sr)
{
	for (unsigned t = 0; t < sr->suite->n; t++)
		free(sr->suite->tcase[t]);
	free(sr->suite);
	free(sr);
}

#endif
