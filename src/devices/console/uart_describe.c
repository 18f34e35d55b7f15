/* SPDX-License-Identifier: BSD-2-Clause */
/* The 16550 as a description. See describe.h. */
#include <linux/serial_reg.h>

#include <insula/base.h>
#include <insula/devpage.h>

#include "devices/describe.h"
#include "uart.h"

#define REG1(reg) (1ull << (reg))

enum { SLOT_PAGE, SLOT_CALL, SLOT_IRQ, SLOTS };

void describe_16550(struct device_desc *d, uint64_t port, unsigned pin)
{
	*d = (struct device_desc){
		.version = DEVICE_VERSION,
		.hid = "PNP0501",
		.nslots = SLOTS,
		.nwindows = 1,
		.nvectors = 1,
		.page_slot = SLOT_PAGE,
		.call_slot = SLOT_CALL,
		.answer_slot = DEVICE_NO_SLOT,
		.state_size = DP_STATE_SIZE,
		.probe_at = UART_SCR,
		.probe_size = 1,
		/* RBR and IIR change state when they are read; THR (or DLL) alone has nothing that
		 * reads it back without a call. */
		.window = {{.base = port,
			    .len = UART_PORTS,
			    .space = DEVICE_PIO,
			    .serve = DEVICE_EXITS,
			    .posted = REG1(UART_TX),
			    .call_reads = REG1(UART_RX) | REG1(UART_IIR),
			    .slot = DEVICE_NO_SLOT}},
		.vector = {{.kind = DEVICE_PIN,
			    .number = pin,
			    .slot = SLOT_IRQ,
			    .ack_slot = DEVICE_NO_SLOT}},
	};
	if (word_events())
		d->answer_slot = d->nslots++;
}
