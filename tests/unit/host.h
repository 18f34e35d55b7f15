/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What unit tests ask of the operating system beyond insula/base.h: pages, events that count or do
 * not, files, pipes, a pause. The one place of the portable tests where Linux and Windows differ; a
 * case that needs more of one system is in a test_*_linux.c or in tests/unit/win.
 */
#ifndef INSULA_TEST_HOST_H
#define INSULA_TEST_HOST_H

#include <check.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include <insula/hv.h>

#define HOST_FN static inline __attribute__((unused))

#ifdef _WIN32
#include "host_win.h"
#else
#include "host_linux.h"
#endif

HOST_FN void host_sleep_us(unsigned us)
{
	struct timespec t = {us / 1000000, (long)(us % 1000000 * 1000)};

	nanosleep(&t, NULL);
}

/* Numbers that look random and are the same in each run (xorshift64*). */
HOST_FN uint64_t host_random(uint64_t *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * 0x2545f4914f6cdd1du;
}

#endif
