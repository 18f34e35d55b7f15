/* SPDX-License-Identifier: BSD-2-Clause */
/* Letting others have the processor. See blk_aside.h. */
#include <time.h>

#include "blk_aside.h"

#define ASIDE_LEAST 100u /* us */
#define ASIDE_MOST 1600u
#define ASIDE_LUCK 8u   /* so many times in a row in vain, and it is given up; */
#define ASIDE_RETRY 32u /* then tried every so many times */
#define ASIDE_LESS 64u  /* times in a row that it was worth it: half the time may do */

bool blk_aside_try(struct blk_aside *a)
{
	return a->luck || ++a->skipped % ASIDE_RETRY == 0;
}

void blk_aside_step(struct blk_aside *a)
{
	if (!a->us)
		a->us = ASIDE_LEAST;
	(void)nanosleep(&(struct timespec){.tv_nsec = (long)a->us * 1000}, NULL);
}

void blk_aside_learn(struct blk_aside *a, bool worth)
{
	bool shortened = a->good && a->good % ASIDE_LESS == 0;

	if (worth) {
		a->luck += a->luck < ASIDE_LUCK;
		if (++a->good % ASIDE_LESS == 0 && a->us > ASIDE_LEAST)
			a->us /= 2;
		return;
	}
	a->good = 0;
	if (shortened)
		a->us *= 2;
	if (a->luck && --a->luck)
		return;
	/* Perhaps everything is slower than that. */
	a->us = a->us < ASIDE_MOST ? a->us * 2 : ASIDE_LEAST;
}
