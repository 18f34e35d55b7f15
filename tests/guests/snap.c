/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * For snapshots: a nonce of this boot and memory full of it, and a console that answers. A guest
 * that goes on from a snapshot has the nonce and the count of the one that was saved; one that was
 * started anew has neither.
 *
 *   ?  "nonce N count C"
 *   +  counts, and writes the count into each page
 *   v  "ok memory", or where a page is wrong
 *   q  ends, with status 0
 */
#include "payload.h"

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

int main(void)
{
	nonce = rdtsc();
	fill();
	print("nonce %x count %u\n", (unsigned)nonce, (unsigned)count);
	for (;;) {
		uint8_t c;

		while (!(inb(BOARD_COM1 + UART_LSR) & UART_LSR_DR))
			__asm__ volatile("pause");
		c = inb(BOARD_COM1 + UART_RX);
		if (c == '?')
			print("nonce %x count %u\n", (unsigned)nonce, (unsigned)count);
		else if (c == 'v')
			verify();
		else if (c == 'q')
			return 0;
		else if (c == '+') {
			count++;
			fill();
		}
	}
}
