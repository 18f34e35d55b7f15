/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * For snapshots: a nonce of this boot and memory full of it, and a console that answers. A guest
 * that goes on from a snapshot has the nonce and the count of the one that was saved; one that was
 * started anew has neither.
 *
 *   ?  "nonce N count C"
 *   +  counts, and writes the count into each page
 *   v  "ok memory", or where a page is wrong
 *   r  "random N N" from the virtio source of it, or "not ok random"
 *   t  "ticks N": the TSC, in milliseconds
 *   m  "reads N": how long 200,000 reads in random pages of it take, in microseconds
 *   c  writes to all pages, round after round, until another c: each page must have what the round
 *      before left there. "churn", and then "ok churn N", or where a page is wrong
 *      and the end, with status 1
 *   q  ends, with status 0
 */
#include "virtio.h"

#define FROM 0x2000000ull /* 32 MiB: behind the payload and its stack */
#define PAGES 4096u       /* 16 MiB */

static uint64_t nonce, count;

static volatile uint64_t *page(unsigned i)
{
	return (volatile uint64_t *)(uintptr_t)(FROM + (uint64_t)i * 4096);
}

static void fill(void)
{
	for (unsigned i = 0; i < PAGES; i++) {
		page(i)[0] = nonce + i;
		page(i)[511] = count;
	}
}

static void verify(void)
{
	for (unsigned i = 0; i < PAGES; i++) {
		if (page(i)[0] != nonce + i || page(i)[511] != count) {
			print("not ok memory - page %u\n", i);
			return;
		}
	}
	print("ok memory\n");
}

static bool has_key(void)
{
	return inb(BOARD_COM1 + UART_LSR) & UART_LSR_DR;
}

/* Whoever is restored from a snapshot goes on in the middle of a round: a page that was written
 * after that moment, and is in the snapshot nevertheless, is a round ahead. */
static bool churn(void)
{
	uint64_t round = 0;

	print("churn\n");
	for (unsigned i = 0; i < PAGES; i++)
		page(i)[256] = 0;
	for (;; round++) {
		for (unsigned i = 0; i < PAGES; i++) {
			if (page(i)[256] != round) {
				print("not ok churn - page %u is of round %u in round %u\n", i,
				      (unsigned)page(i)[256], (unsigned)round);
				return false;
			}
			page(i)[256] = round + 1;
			if (i % 64 == 0 && has_key() && inb(BOARD_COM1 + UART_RX) == 'c') {
				print("ok churn %u\n", (unsigned)round);
				return true;
			}
		}
	}
}

/* Each from where the last one says, so that they do not overlap. */
static void reads(void)
{
	uint32_t at = 1, sum = 0;
	uint64_t t = rdtsc();

	for (unsigned i = 0; i < 200000; i++) {
		sum += (uint32_t)page(at % PAGES)[0] & 1;
		at = at * 1664525u + 1013904223u + (sum & 1);
	}
	print("reads %u\n", (unsigned)((rdtsc() - t) * 1000 / tsc_khz()));
}

static uint64_t rng;
static struct vq q;
static _Alignas(8) uint8_t random[16];

/* Before the snapshot; whoever is restored finds it set up. */
static void rng_begin(void)
{
	rng = vdev_find(VIRTIO_ID_RNG);
	if (!rng)
		return;
	if (!vdev_negotiate(rng, VFEATURE(VIRTIO_F_VERSION_1)) || !vq_start(&q, rng, 0, 16)) {
		print("not ok rng\n");
		rng = 0;
		return;
	}
	vdev_add_status(rng, VIRTIO_CONFIG_S_DRIVER_OK);
}

static void rng_ask(void)
{
	struct vring_used_elem u;

	if (!rng) {
		print("not ok random - no device\n");
		return;
	}
	memset(random, 0, sizeof(random));
	vq_desc(&q, 0, (uintptr_t)random, sizeof(random), VRING_DESC_F_WRITE, 0);
	vq_push(&q, 0);
	vq_kick(&q);
	if (!vq_pop(&q, &u, VIRTIO_WAIT_MS) || u.id != 0 || u.len != sizeof(random))
		print("not ok random - no answer\n");
	else
		print("random %x %x\n", *(uint32_t *)random, *(uint32_t *)(random + 4));
}

int main(void)
{
	nonce = rdtsc();
	fill();
	rng_begin();
	print("nonce %x count %u\n", (unsigned)nonce, (unsigned)count);
	for (;;) {
		uint8_t c;

		while (!has_key())
			__asm__ volatile("pause");
		c = inb(BOARD_COM1 + UART_RX);
		if (c == '?')
			print("nonce %x count %u\n", (unsigned)nonce, (unsigned)count);
		else if (c == 'v')
			verify();
		else if (c == 'r')
			rng_ask();
		else if (c == 'c' && !churn())
			return 1;
		else if (c == 'm')
			reads();
		else if (c == 't')
			print("ticks %u\n", (unsigned)(rdtsc() / tsc_khz()));
		else if (c == 'q')
			return 0;
		else if (c == '+') {
			count++;
			fill();
		}
	}
}
