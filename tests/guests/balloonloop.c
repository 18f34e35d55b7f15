/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The balloon under load until somebody types: pages are given away, on both queues, several chains
 * at a time, and used again as soon as that is answered. Whatever happens to the helper meanwhile,
 * each chain is answered once, and no page that is in use is ever changed.
 *
 * Prints `looping` when the first round is through, at the end `rounds N` and the usual results.
 */
#include "balloondrv.h"

#define CHAINS 8
#define PER 24      /* pages of a chain */
#define REGION 512u /* of a chain: where its pages are */

static uint32_t lists[CHAINS][PER];
static uint32_t first[CHAINS];

static void send(uint64_t *random)
{
	for (unsigned i = 0; i < CHAINS; i++) {
		struct vq *to = &q[i % 2 ? REPORTS : INFLATE];

		first[i] = i * REGION + (uint32_t)xorshift(random) % (REGION - PER);
		for (uint32_t k = 0; k < PER; k++)
			lists[i][k] = (uint32_t)(ARENA / PAGE) + first[i] + k;
		if (i % 2)
			vq_desc(to, i, ARENA + (uint64_t)first[i] * PAGE, PER * PAGE,
				VRING_DESC_F_WRITE, 0);
		else
			vq_desc(to, i, (uintptr_t)lists[i], PER * 4, 0, 0);
		vq_push(to, (uint16_t)i);
	}
	vq_kick(&q[INFLATE]);
	vq_kick(&q[REPORTS]);
}

static bool use_again(uint32_t chain, uint32_t round)
{
	for (uint32_t page = first[chain]; page < first[chain] + PER; page++) {
		if (!is_zero(page))
			return check("given_back", false,
				     "round %u: page %u was answered for and is there", round,
				     page);
		round_of[page] = round;
		put_stamp(page);
	}
	return true;
}

static bool collect(uint32_t round)
{
	uint32_t answered = 0;

	for (unsigned i = 0; i < CHAINS; i++) {
		struct vring_used_elem u;

		if (!vq_pop(&q[i % 2 ? REPORTS : INFLATE], &u, BALLOON_WAIT_MS))
			return check("answers", false, "round %u: %u of %u", round, i, CHAINS);
		if (u.id >= CHAINS || u.id % 2 != i % 2 || answered >> u.id & 1)
			return check("answers", false, "round %u: id %u, answered 0x%x", round,
				     u.id, answered);
		answered |= 1u << u.id;
		if (!use_again(u.id, round))
			return false;
	}
	return true;
}

static bool nothing_is_lost(uint32_t round)
{
	for (uint32_t page = 0; page < CHAINS * REGION; page++) {
		if (!has_stamp(page))
			return check("data", false, "round %u: page %u has lost what it had", round,
				     page);
	}
	return true;
}

int main(void)
{
	uint64_t random = 0x9e3779b97f4a7c15ull;
	struct vring_used_elem u;
	uint32_t round = 0;
	bool good = true;

	dev = vdev_find(VIRTIO_ID_BALLOON);
	if (!check("balloon", dev && balloon_start(), "there is none"))
		return finish();
	for (uint32_t page = 0; page < CHAINS * REGION; page++)
		put_stamp(page);
	while (good && (!(inb(BOARD_COM1 + UART_LSR) & UART_LSR_DR) || round == 0)) {
		round++;
		send(&random);
		good = collect(round) && (round % 16 || nothing_is_lost(round));
		if (round == 1)
			print("looping\n");
	}
	good = good && nothing_is_lost(round);
	check("nothing_answered_twice",
	      !vq_pop(&q[INFLATE], &u, 10) && !vq_pop(&q[REPORTS], &u, 10), "an answer too many");
	check("all_rounds", good, "no");
	print("rounds %u\n", round);
	return finish();
}
