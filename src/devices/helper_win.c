/* SPDX-License-Identifier: BSD-2-Clause */
/* Threads of a helper on Windows. See helper.h. */
#include <windows.h>

#include <insula/base.h>

#include "helper.h"

#define STACK_SIZE (64u << 10)

int helper_thread(pthread_t *t, void *(*fn)(void *), void *arg)
{
	return helper_thread_with(t, STACK_SIZE, fn, arg);
}

int helper_thread_with(pthread_t *t, size_t stack, void *(*fn)(void *), void *arg)
{
	pthread_attr_t a;
	int rc;

	pthread_attr_init(&a);
	pthread_attr_setstacksize(&a, stack > STACK_SIZE ? stack : STACK_SIZE);
	rc = pthread_create(t, &a, fn, arg);
	pthread_attr_destroy(&a);
	return -rc;
}

void helper_signals(void)
{
	/* No signals, and a closed pipe is an error by itself. A crash ends the process; it must
	 * not ask anybody what to do. */
	SetErrorMode(SEM_FAILCRITICALERRORS | SEM_NOGPFAULTERRORBOX | SEM_NOOPENFILEERRORBOX);
}
