/* SPDX-License-Identifier: BSD-2-Clause */
/* A token bucket. See bucket.h. */
#include "bucket.h"

#define SECOND_NS 1000000000ull

__extension__ typedef unsigned __int128 u128;

void bucket_init(struct bucket *b, uint64_t rate, uint64_t burst, uint64_t now_ns)
{
	*b = (struct bucket){
		.rate = rate, .burst = burst, .level = (int64_t)burst, .at_ns = now_ns};
}

/* Whole units only: the rest of the time stays on the account. */
static void bucket_fill(struct bucket *b, uint64_t now_ns)
{
	uint64_t passed = now_ns > b->at_ns ? now_ns - b->at_ns : 0, units;

	if (passed > SECOND_NS * 60) { /* long enough to fill any bucket; keeps the product small */
		passed = SECOND_NS * 60;
		b->at_ns = now_ns - passed;
	}
	units = (uint64_t)(((u128)passed * b->rate) / SECOND_NS);
	if (!units)
		return;
	b->at_ns += (uint64_t)(((u128)units * SECOND_NS) / b->rate);
	b->level += (int64_t)units;
	if (b->level >= (int64_t)b->burst) {
		b->level = (int64_t)b->burst;
		b->at_ns = now_ns;
	}
}

bool bucket_open(struct bucket *b, uint64_t now_ns)
{
	if (!b->rate)
		return true;
	bucket_fill(b, now_ns);
	return b->level > 0;
}

void bucket_take(struct bucket *b, uint64_t n)
{
	if (b->rate)
		b->level -= (int64_t)n;
}

int bucket_wait_ms(struct bucket *b, uint64_t now_ns)
{
	uint64_t units, ms;

	if (bucket_open(b, now_ns))
		return -1;
	units = (uint64_t)(1 - b->level);
	ms = (uint64_t)(((u128)units * 1000) / b->rate) + 1;
	return ms > 60000 ? 60000 : (int)ms;
}
