/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The 16550: every register that a driver probes, loopback, FIFOs, interrupt causes (read from IIR;
 * no line is unmasked), and a burst of output that the caller counts: BURST bytes between the lines
 * `burst begin` and `burst end`.
 *
 * Results are printed after the registers are back in their place: what is printed goes through the
 * device under test.
 */
#include "payload.h"

#define P(reg) ((uint16_t)(BOARD_COM1 + (reg)))
#define BURST 10000
#define LINE 100 /* with its newline */
#define IIR_FIFOS 0xc0
#define IIR_CAUSE 0x0f

static void normal(void)
{
	outb(P(UART_LCR), UART_LCR_WLEN8);
	outb(P(UART_IER), 0);
	outb(P(UART_MCR), UART_MCR_DTR | UART_MCR_RTS);
	outb(P(UART_FCR), UART_FCR_ENABLE_FIFO | UART_FCR_CLEAR_RCVR | UART_FCR_CLEAR_XMIT);
	inb(P(UART_IIR));
}

static bool wait_lsr(uint8_t bits)
{
	uint64_t end = deadline_ms(2000);

	while ((inb(P(UART_LSR)) & bits) != bits)
		if (rdtsc() > end)
			return false;
	return true;
}

static void scratch(void)
{
	uint8_t a, b;

	outb(P(UART_SCR), 0x5a);
	a = inb(P(UART_SCR));
	outb(P(UART_SCR), 0xa5);
	b = inb(P(UART_SCR));
	check("scratch", a == 0x5a && b == 0xa5, "reads 0x%x, 0x%x", a, b);
}

static void divisor(void)
{
	uint8_t ier, dll, dlm, lcr, after;

	outb(P(UART_IER), UART_IER_RLSI | UART_IER_MSI);
	outb(P(UART_LCR), UART_LCR_DLAB | UART_LCR_WLEN8);
	outb(P(UART_DLL), 0x34);
	outb(P(UART_DLM), 0x12);
	dll = inb(P(UART_DLL));
	dlm = inb(P(UART_DLM));
	lcr = inb(P(UART_LCR));
	outb(P(UART_LCR), UART_LCR_WLEN8);
	ier = inb(P(UART_IER));
	after = inb(P(UART_LCR));
	outb(P(UART_LCR), UART_LCR_DLAB);
	outb(P(UART_DLL), 1);
	outb(P(UART_DLM), 0);
	normal();
	check("divisor", dll == 0x34 && dlm == 0x12, "reads 0x%x, 0x%x", dll, dlm);
	check("line_control", lcr == (UART_LCR_DLAB | UART_LCR_WLEN8) && after == UART_LCR_WLEN8,
	      "reads 0x%x, 0x%x", lcr, after);
	check("divisor_latch_hides_ier", ier == (UART_IER_RLSI | UART_IER_MSI), "reads 0x%x", ier);
}

static void interrupt_enable(void)
{
	uint8_t ier;

	outb(P(UART_IER), 0xff);
	ier = inb(P(UART_IER));
	normal();
	check("interrupt_enable_has_4_bits", ier == 0x0f, "reads 0x%x", ier);
}

static void read_only(void)
{
	uint8_t lsr = inb(P(UART_LSR)), msr = inb(P(UART_MSR)), lsr2, msr2;

	outb(P(UART_LSR), 0);
	outb(P(UART_MSR), 0);
	lsr2 = inb(P(UART_LSR));
	msr2 = inb(P(UART_MSR));
	check("status_is_read_only", lsr == lsr2 && msr == msr2, "0x%x 0x%x, then 0x%x 0x%x", lsr,
	      msr, lsr2, msr2);
	check("modem_is_connected",
	      (msr & (UART_MSR_DCD | UART_MSR_DSR | UART_MSR_CTS)) ==
		      (UART_MSR_DCD | UART_MSR_DSR | UART_MSR_CTS),
	      "0x%x", msr);
}

static void loopback_modem(void)
{
	static const struct {
		uint8_t mcr, msr;
	} pair[] = {
		{0, 0},
		{UART_MCR_DTR, UART_MSR_DSR},
		{UART_MCR_RTS, UART_MSR_CTS},
		{UART_MCR_OUT1, UART_MSR_RI},
		{UART_MCR_OUT2, UART_MSR_DCD},
		{UART_MCR_RTS | UART_MCR_OUT2, UART_MSR_CTS | UART_MSR_DCD}, /* what Linux probes */
	};
	unsigned wrong = 0;
	uint8_t mcr;

	for (unsigned i = 0; i < sizeof(pair) / sizeof(pair[0]); i++) {
		outb(P(UART_MCR), UART_MCR_LOOP | pair[i].mcr);
		mcr = inb(P(UART_MCR));
		if ((inb(P(UART_MSR)) & 0xf0) != pair[i].msr ||
		    mcr != (UART_MCR_LOOP | pair[i].mcr))
			wrong++;
	}
	normal();
	check("loopback_modem", wrong == 0, "%u of 6 settings", wrong);
}

static void loopback_data(void)
{
	static const char sent[UART_FIFO_DEPTH + 1] = "0123456789abcdef";
	unsigned same = 0, left;

	wait_lsr(UART_LSR_TEMT);
	outb(P(UART_MCR), UART_MCR_LOOP);
	for (unsigned i = 0; i < UART_FIFO_DEPTH; i++)
		outb(P(UART_TX), (uint8_t)sent[i]);
	for (unsigned i = 0; i < UART_FIFO_DEPTH && wait_lsr(UART_LSR_DR); i++)
		same += inb(P(UART_RX)) == (uint8_t)sent[i];
	left = inb(P(UART_LSR)) & UART_LSR_DR;
	normal();
	check("loopback_data", same == UART_FIFO_DEPTH && !left, "%u of %u bytes, more: %u", same,
	      UART_FIFO_DEPTH, left);
}

static void clear_receiver(void)
{
	uint8_t lsr;

	outb(P(UART_MCR), UART_MCR_LOOP);
	outb(P(UART_TX), 'x');
	wait_lsr(UART_LSR_DR);
	outb(P(UART_FCR), UART_FCR_ENABLE_FIFO | UART_FCR_CLEAR_RCVR);
	lsr = inb(P(UART_LSR));
	normal();
	check("clear_receive_fifo", !(lsr & UART_LSR_DR), "LSR 0x%x", lsr);
}

static void fifo_bits(void)
{
	uint8_t on, off;

	outb(P(UART_FCR), UART_FCR_ENABLE_FIFO);
	on = inb(P(UART_IIR));
	outb(P(UART_FCR), 0);
	off = inb(P(UART_IIR));
	normal();
	check("fifo_enable", (on & IIR_FIFOS) == IIR_FIFOS && !(off & IIR_FIFOS), "IIR 0x%x, 0x%x",
	      on, off);
}

static void interrupt_causes(void)
{
	uint8_t none, thri, again, rx, after;

	wait_lsr(UART_LSR_THRE | UART_LSR_TEMT);
	none = inb(P(UART_IIR)) & IIR_CAUSE;
	outb(P(UART_IER), UART_IER_THRI); /* an empty transmitter reports at once */
	thri = inb(P(UART_IIR)) & IIR_CAUSE;
	again = inb(P(UART_IIR)) & IIR_CAUSE; /* reading it has ended it */
	outb(P(UART_IER), 0);
	outb(P(UART_FCR), UART_FCR_ENABLE_FIFO | UART_FCR_CLEAR_RCVR); /* trigger level 1 */
	outb(P(UART_MCR), UART_MCR_LOOP);
	outb(P(UART_IER), UART_IER_RDI);
	outb(P(UART_TX), 'x');
	wait_lsr(UART_LSR_DR);
	rx = inb(P(UART_IIR)) & IIR_CAUSE;
	inb(P(UART_RX));
	after = inb(P(UART_IIR)) & IIR_CAUSE;
	normal();
	check("no_interrupt", none == UART_IIR_NO_INT, "IIR 0x%x", none);
	check("transmitter_empty", thri == UART_IIR_THRI && again == UART_IIR_NO_INT,
	      "IIR 0x%x, 0x%x", thri, again);
	check("data_received", rx == UART_IIR_RDI && after == UART_IIR_NO_INT, "IIR 0x%x, 0x%x", rx,
	      after);
}

/* FIFOs full at a time, half of them by string instructions. */
static void burst(void)
{
	static char line[LINE];
	bool ready = true;

	for (unsigned i = 0; i < LINE - 1; i++)
		line[i] = (char)('!' + i % 90);
	line[LINE - 1] = '\n';
	print("burst begin\n");
	for (unsigned sent = 0; sent < BURST && ready; sent += LINE) {
		for (unsigned i = 0; i < LINE && ready; i += UART_FIFO_DEPTH) {
			unsigned n = LINE - i < UART_FIFO_DEPTH ? LINE - i : UART_FIFO_DEPTH;

			ready = wait_lsr(UART_LSR_THRE);
			if (sent / LINE % 2)
				outsb(P(UART_TX), line + i, n);
			else
				for (unsigned k = 0; k < n; k++)
					outb(P(UART_TX), (uint8_t)line[i + k]);
		}
	}
	print("burst end\n");
	check("burst", ready, "the transmitter was busy for 2 s");
}

int main(void)
{
	normal();
	scratch();
	divisor();
	interrupt_enable();
	read_only();
	loopback_modem();
	loopback_data();
	clear_receiver();
	fifo_bits();
	interrupt_causes();
	burst();
	return finish();
}
