/* SPDX-License-Identifier: BSD-2-Clause */
/* The devices of hvrun; see hvrun.h. */
#include <stdio.h>
#include <string.h>

#include <insula/board.h>

#include "hvrun.h"

/* 16550: what a driver needs to find a UART that is always ready to send. */
#define UART_LCR 3
#define UART_MCR 4
#define UART_LSR 5
#define UART_MSR 6
#define LCR_DLAB 0x80
#define MCR_LOOP 0x10
#define LSR_READY 0x60
#define MSR_CONNECTED 0xb0

static void remember(struct board *b, uint64_t where, bool write, const void *data, unsigned size)
{
	uint8_t head[10];
	uint64_t v = 0;

	memcpy(&v, data, size);
	if (b->trace)
		fprintf(stderr, "%s 0x%llx %u bytes 0x%llx\n", write ? "write" : "read",
			(unsigned long long)where, size, (unsigned long long)v);
	memcpy(head, &where, 8);
	head[8] = (uint8_t)size;
	head[9] = write;
	for (unsigned i = 0; i < sizeof(head) + size; i++) {
		uint8_t c = i < sizeof(head) ? head[i] : ((const uint8_t *)data)[i - sizeof(head)];

		b->sum = (b->sum ^ c) * 16777619u + 1; /* FNV-1a, with a step for zeros */
	}
}

static void uart_write(struct board *b, unsigned reg, uint8_t v)
{
	if (reg == 0 && !(b->uart[UART_LCR] & LCR_DLAB)) {
		putchar(v);
		if (v == '\n')
			fflush(stdout);
	} else if (reg != UART_LSR && reg != UART_MSR) {
		b->uart[reg] = v;
	}
}

static uint8_t uart_read(const struct board *b, unsigned reg)
{
	uint8_t mcr = b->uart[UART_MCR];

	if (reg == UART_LSR)
		return LSR_READY;
	if (reg == UART_MSR && (mcr & MCR_LOOP)) /* its own outputs: DTR, RTS, OUT1, OUT2 */
		return (uint8_t)((mcr & 1) << 5 | (mcr & 2) << 3 | (mcr & 4) << 4 | (mcr & 8) << 4);
	if (reg == UART_MSR)
		return MSR_CONNECTED;
	if (reg == 2)
		return 1; /* no interrupt is pending */
	return reg == 0 ? 0 : b->uart[reg];
}

static void end(struct board *b, const void *data)
{
	memcpy(&b->status, data, 4);
	b->ended = true;
}

void board_port(struct board *b, uint16_t port, bool out, void *data, unsigned size)
{
	uint8_t *p = data;

	if (port >= BOARD_COM1 && port < BOARD_COM1 + 8 && size == 1) {
		if (out)
			uart_write(b, port - BOARD_COM1, *p);
		else
			*p = uart_read(b, port - BOARD_COM1);
	} else if (port == BOARD_REG_EXIT && out && size == 4) {
		end(b, data);
	} else if (port == HVRUN_PORT_SUM && !out && size == 4) {
		memcpy(data, &b->sum, 4);
	} else if (port == HVRUN_PORT) {
		b->pattern = b->pattern * 1103515245u + 12345;
		if (!out)
			memcpy(data, &b->pattern, size);
		remember(b, port, out, data, size);
	} else if (!out) {
		memset(data, 0xff, size);
	}
}

static void ioapic_access(struct board *b, struct hv_exit *x)
{
	uint64_t off = x->u.mmio.gpa - BOARD_IOAPIC, v = 0;

	memcpy(&v, x->u.mmio.data, sizeof(v));
	if (x->u.mmio.write && ioapic_write(b->ioapic, off, x->u.mmio.size, v) < 0)
		fprintf(stderr, "hvrun: the hypervisor refuses an interrupt line\n");
	if (!x->u.mmio.write)
		v = ioapic_read(b->ioapic, off, x->u.mmio.size);
	memcpy(x->u.mmio.data, &v, sizeof(v));
}

void board_memory(struct board *b, struct hv_exit *x)
{
	uint64_t off = x->u.mmio.gpa - HVRUN_DEVICE;
	unsigned size = x->u.mmio.size;

	if (x->u.mmio.gpa - BOARD_IOAPIC < BOARD_PAGE) {
		ioapic_access(b, x);
		return;
	}

	if (off < sizeof(b->device) && size <= sizeof(b->device) - off) {
		if (x->u.mmio.write)
			memcpy(b->device + off, x->u.mmio.data, size);
		else
			memcpy(x->u.mmio.data, b->device + off, size);
	} else if (!x->u.mmio.write) {
		memset(x->u.mmio.data, 0xff, size);
	}
	if (x->u.mmio.gpa >> 20 == HVRUN_DEVICE >> 20)
		remember(b, x->u.mmio.gpa, x->u.mmio.write, x->u.mmio.data, size);
}
