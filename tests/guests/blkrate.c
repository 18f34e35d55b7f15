/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A disk that never rests: as many requests of one block as there is room for are in flight on all of
 * its queues, and each that is answered is sent again. Twice in three it is a read; the guest's own
 * clock measures.
 *
 * Prints `rate N in MS ms, least L of Q queues` for each period: requests that were answered, and
 * those of the queue with the fewest. `ms=N` (default 2000): of a period; `bytes=N` (default 4096):
 * of a request. Ends when somebody types.
 */
#include "virtio.h"

#define SLOTS 8u /* of a queue */
#define MOST 65536u

static struct blk b;
static struct vq q[VQ_COUNT];
static unsigned nqueues;
static uint32_t bytes;
static uint32_t done[VQ_COUNT], sent;
static struct blk_slot slot[VQ_COUNT][SLOTS];
static _Alignas(BOARD_PAGE) uint8_t data[VQ_COUNT][SLOTS][MOST];

static void send(unsigned i, unsigned k)
{
	uint32_t type = sent++ % 3 ? VIRTIO_BLK_T_IN : VIRTIO_BLK_T_OUT;

	blk_fill(&q[i], (uint16_t)(3 * k), &slot[i][k], type, (uint64_t)k * (bytes / SECTOR),
		 data[i][k], bytes);
	vq_push(&q[i], (uint16_t)(3 * k));
}

static bool bring_up(void)
{
	nqueues = blk_start_all(&b, VFEATURE(VIRTIO_BLK_F_FLUSH), q, 32);
	return nqueues != 0;
}

/* What has been answered is sent again. */
static bool serve(unsigned i)
{
	struct vring_used_elem u = {0};
	bool any = false;

	while (*(volatile uint16_t *)&q[i].used->idx != q[i].seen) {
		if (!vq_pop(&q[i], &u, 0) || u.id % 3 || u.id / 3 >= SLOTS ||
		    slot[i][u.id / 3].status != VIRTIO_BLK_S_OK)
			return check("answer", false, "queue %u: id %u, status %u", i, u.id,
				     slot[i][u.id / 3 % SLOTS].status);
		done[i]++;
		send(i, u.id / 3);
		any = true;
	}
	if (any)
		vq_kick(&q[i]);
	return true;
}

static bool typed(void)
{
	return inb(BOARD_COM1 + UART_LSR) & UART_LSR_DR;
}

/* Of what was answered since `begin`. When the next period begins: now, whatever the console
 * takes. */
static uint64_t report(uint64_t begin)
{
	uint64_t now = rdtsc();
	uint32_t sum = 0, least = UINT32_MAX;

	for (unsigned i = 0; i < nqueues; i++) {
		sum += done[i];
		least = done[i] < least ? done[i] : least;
		done[i] = 0;
	}
	print("rate %u in %u ms, least %u of %u queues\n", sum,
	      (uint32_t)((now - begin) / tsc_khz()), least, nqueues);
	return now;
}

int main(void)
{
	uint32_t ms = cmdline_number("ms=", 2000);
	uint64_t begin;
	bool good = true;

	bytes = cmdline_number("bytes=", 4096);
	if (!check("disk", bytes <= MOST && blk_find(&b) && bring_up(), "none"))
		return finish();
	for (unsigned i = 0; i < nqueues; i++) {
		for (unsigned k = 0; k < SLOTS; k++)
			send(i, k);
		vq_kick(&q[i]);
	}
	begin = rdtsc();
	while (good && !typed()) {
		uint64_t end = deadline_ms(ms);
		bool over = false;

		/* A last look when it is over: what waits for one is of this period. */
		while (good && !over && !typed()) {
			over = rdtsc() >= end;
			for (unsigned i = 0; i < nqueues; i++)
				good = good && serve(i);
		}
		begin = report(begin);
	}
	check("answers", good, "no");
	return finish();
}
