/* SPDX-License-Identifier: BSD-2-Clause */
/* Sends back what it receives on COM1, byte by byte, until a 'q'; status 0. Without input for half
 * a minute: status 1. */
#include "payload.h"

#define PATIENCE_MS 30000

int main(void)
{
	uint64_t end = deadline_ms(PATIENCE_MS);

	outb(BOARD_COM1 + UART_FCR, UART_FCR_ENABLE_FIFO);
	outb(BOARD_COM1 + UART_MCR, UART_MCR_DTR | UART_MCR_RTS);
	print("echo ready\n");
	while (rdtsc() < end) {
		char ch;

		if (!(inb(BOARD_COM1 + UART_LSR) & UART_LSR_DR))
			continue;
		ch = (char)inb(BOARD_COM1 + UART_RX);
		if (ch == 'q') {
			print("\necho done\n");
			return 0;
		}
		uart_put(ch);
		end = deadline_ms(PATIENCE_MS);
	}
	return 1;
}
