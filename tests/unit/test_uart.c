/* SPDX-License-Identifier: BSD-2-Clause */
/* The 16550 as a state machine. The console around it: test_console_linux.c. */
#include <check.h>
#include <linux/serial_reg.h>
#include <string.h>

#include <insula/base.h>

#include <devices/console/uart.h>

static struct {
	struct uart u;
	struct uart_state st;
	uint8_t shadow[UART_PORTS];
	size_t room;
	uint8_t out[4096];
	size_t nout;
	uint8_t back[64];
	size_t nback;
	unsigned irqs;
} x;

static size_t room(void *ctx)
{
	(void)ctx;
	return x.room;
}

static void tx(void *ctx, uint8_t byte)
{
	(void)ctx;
	x.out[x.nout++ % sizeof(x.out)] = byte;
	x.room--;
}

static void irq(void *ctx)
{
	(void)ctx;
	x.irqs++;
}

static void rx_back(void *ctx, const uint8_t *buf, size_t n)
{
	(void)ctx;
	ck_assert_uint_le(n, UART_FIFO);
	memcpy(x.back, buf, n);
	x.nback = n;
}

static const struct uart_ops ops = {room, tx, rx_back, irq};

static void setup(void)
{
	memset(&x, 0, sizeof(x));
	x.room = 1 << 20;
	uart_reset_state(&x.st);
	uart_init(&x.u, &x.st, x.shadow, &ops, NULL);
	uart_settle(&x.u);
}

/* An access as the core makes it: a write settles, a read of most registers is one of the shadow.
 */
static void out(uint32_t off, uint8_t v)
{
	uart_write(&x.u, off, v);
	uart_settle(&x.u);
}

static uint8_t in(uint32_t off)
{
	uint8_t v;

	if (off != UART_RX && off != UART_IIR)
		return x.shadow[off];
	v = uart_read(&x.u, off);
	uart_settle(&x.u);
	return v;
}

static void receive(const char *s)
{
	ck_assert_uint_eq(uart_rx(&x.u, (const uint8_t *)s, strlen(s)), strlen(s));
	uart_settle(&x.u);
}

START_TEST(after_reset)
{
	ck_assert_uint_eq(in(UART_IER), 0);
	ck_assert_uint_eq(in(UART_IIR), UART_IIR_NO_INT);
	ck_assert_uint_eq(in(UART_LSR), UART_LSR_THRE | UART_LSR_TEMT);
	ck_assert_uint_eq(in(UART_MSR), UART_MSR_CTS | UART_MSR_DSR | UART_MSR_DCD);
	ck_assert_uint_eq(x.irqs, 0);
}
END_TEST

/* What Linux writes and reads to tell an 8250 from a 16550A (drivers/tty/serial/8250/8250_port.c
 * does about this). */
START_TEST(looks_like_a_16550a)
{
	out(UART_IER, 0xff);
	ck_assert_uint_eq(in(UART_IER), 0x0f); /* no sleep mode, no UUE */
	out(UART_IER, 0);
	out(UART_MCR, UART_MCR_LOOP | UART_MCR_OUT2 | UART_MCR_RTS);
	ck_assert_uint_eq(in(UART_MSR)&0xf0, UART_MSR_DCD | UART_MSR_CTS);
	out(UART_MCR, UART_MCR_LOOP | UART_MCR_OUT1 | UART_MCR_DTR);
	ck_assert_uint_eq(in(UART_MSR)&0xf0, UART_MSR_RI | UART_MSR_DSR);
	out(UART_MCR, 0);
	out(UART_FCR, UART_FCR_ENABLE_FIFO);
	ck_assert_uint_eq(in(UART_IIR) >> 6, 3);
	out(UART_FCR, UART_FCR_ENABLE_FIFO | UART_FCR7_64BYTE);
	ck_assert_uint_eq(in(UART_IIR) >> 5, 6); /* not a 16750 */
	out(UART_FCR, 0);
	ck_assert_uint_eq(in(UART_IIR) >> 6, 0);
	out(UART_SCR, 0x5a);
	ck_assert_uint_eq(in(UART_SCR), 0x5a);
	/* LSR and MSR are read-only. */
	out(UART_LSR, 0xff);
	out(UART_MSR, 0xff);
	ck_assert_uint_eq(in(UART_LSR), UART_LSR_THRE | UART_LSR_TEMT);
}
END_TEST

START_TEST(divisor_latch)
{
	out(UART_IER, UART_IER_RDI);
	out(UART_LCR, UART_LCR_DLAB | UART_LCR_WLEN8);
	out(UART_DLL, 0x0c);
	out(UART_DLM, 0x34);
	ck_assert_uint_eq(in(UART_DLL), 0x0c);
	ck_assert_uint_eq(in(UART_DLM), 0x34);
	ck_assert_uint_eq(x.nout, 0);
	out(UART_LCR, UART_LCR_WLEN8);
	ck_assert_uint_eq(in(UART_IER), UART_IER_RDI);
	ck_assert_uint_eq(in(UART_LCR), UART_LCR_WLEN8);
	out(UART_TX, 'a');
	ck_assert_uint_eq(x.nout, 1);
	ck_assert_uint_eq(x.out[0], 'a');
}
END_TEST

START_TEST(transmit_interrupt)
{
	/* Enabling it with an empty transmitter raises it: once. */
	out(UART_IER, UART_IER_THRI);
	ck_assert_uint_eq(x.irqs, 1);
	ck_assert_uint_eq(in(UART_IIR), UART_IIR_THRI);
	ck_assert_uint_eq(in(UART_IIR), UART_IIR_NO_INT); /* reading it clears it */
	out(UART_IER, UART_IER_THRI);                     /* was enabled already */
	ck_assert_uint_eq(in(UART_IIR), UART_IIR_NO_INT);
	/* A burst of bytes gives one interrupt, when it has settled. */
	x.irqs = 0;
	for (int i = 0; i < 16; i++)
		uart_write(&x.u, UART_TX, (uint8_t)i);
	uart_settle(&x.u);
	ck_assert_uint_eq(x.irqs, 1);
	ck_assert_uint_eq(x.nout, 16);
	/* Each byte that a handler sends gives the next one an edge. */
	out(UART_TX, 'x');
	ck_assert_uint_eq(x.irqs, 2);
	out(UART_IER, 0);
	ck_assert_uint_eq(in(UART_IIR), UART_IIR_NO_INT);
	ck_assert_uint_eq(x.irqs, 2);
	out(UART_IER, UART_IER_THRI);
	ck_assert_uint_eq(x.irqs, 3);
}
END_TEST

START_TEST(receive_without_fifo)
{
	ck_assert_uint_eq(uart_rx_room(&x.u), 1);
	out(UART_IER, UART_IER_RDI);
	receive("a");
	ck_assert_uint_eq(x.irqs, 1);
	ck_assert_uint_eq(uart_rx(&x.u, (const uint8_t *)"b", 1), 0); /* it waits, no overrun */
	ck_assert_uint_eq(in(UART_LSR) & (UART_LSR_DR | UART_LSR_OE), UART_LSR_DR);
	ck_assert_uint_eq(in(UART_IIR), UART_IIR_RDI);
	ck_assert_uint_eq(in(UART_RX), 'a');
	ck_assert_uint_eq(in(UART_LSR)&UART_LSR_DR, 0);
	ck_assert_uint_eq(in(UART_IIR), UART_IIR_NO_INT);
	ck_assert_uint_eq(x.irqs, 1);
}
END_TEST

START_TEST(receive_with_fifo)
{
	uint8_t many[32];

	memset(many, 'm', sizeof(many));
	out(UART_FCR, UART_FCR_ENABLE_FIFO | UART_FCR_TRIGGER_8);
	out(UART_IER, UART_IER_RDI);
	receive("abc");
	ck_assert_uint_eq(in(UART_IIR)&0x3f, UART_IIR_RX_TIMEOUT);
	ck_assert_uint_eq(uart_rx(&x.u, many, sizeof(many)), UART_FIFO - 3);
	uart_settle(&x.u);
	ck_assert_uint_eq(in(UART_IIR)&0x3f, UART_IIR_RDI);
	ck_assert_uint_eq(in(UART_RX), 'a');
	ck_assert_uint_eq(in(UART_RX), 'b');
	ck_assert_uint_eq(in(UART_RX), 'c');
	ck_assert_uint_eq(in(UART_RX), 'm');
	out(UART_FCR, UART_FCR_ENABLE_FIFO | UART_FCR_CLEAR_RCVR);
	ck_assert_uint_eq(in(UART_LSR)&UART_LSR_DR, 0);
	ck_assert_uint_eq(in(UART_IIR)&0x3f, UART_IIR_NO_INT);
	ck_assert_uint_eq(x.nback, UART_FIFO - 4); /* not lost: it comes again */
	receive("d");
	out(UART_FCR, 0); /* turning the FIFO off empties it */
	ck_assert_uint_eq(in(UART_LSR)&UART_LSR_DR, 0);
}
END_TEST

/* A driver that takes one byte per interrupt must get an edge for each of them. */
START_TEST(one_cause_per_interrupt)
{
	out(UART_FCR, UART_FCR_ENABLE_FIFO);
	out(UART_IER, UART_IER_RDI);
	receive("abcd");
	for (unsigned i = 0; i < 4; i++) {
		ck_assert_uint_eq(x.irqs, i + 1);
		in(UART_IIR);
		in(UART_RX);
	}
	ck_assert_uint_eq(x.irqs, 4);
}
END_TEST

START_TEST(priorities)
{
	out(UART_IER, UART_IER_RDI | UART_IER_THRI);
	x.irqs = 0;
	receive("a");
	ck_assert_uint_eq(in(UART_IIR), UART_IIR_RDI);
	in(UART_RX);
	ck_assert_uint_eq(x.irqs, 1); /* the transmitter is still pending: a new edge */
	ck_assert_uint_eq(in(UART_IIR), UART_IIR_THRI);
	ck_assert_uint_eq(in(UART_IIR), UART_IIR_NO_INT);
	/* Masked input becomes pending when it is unmasked. */
	out(UART_IER, 0);
	receive("b");
	ck_assert_uint_eq(x.irqs, 1);
	out(UART_IER, UART_IER_RDI);
	ck_assert_uint_eq(x.irqs, 2);
}
END_TEST

/* Nothing is fed to a kernel that is still probing: it would throw it away. */
START_TEST(input_waits_for_rts)
{
	out(UART_FCR, UART_FCR_ENABLE_FIFO);
	receive("abc"); /* a guest that never touches MCR gets everything */
	in(UART_RX);
	out(UART_MCR, 0);
	ck_assert_uint_eq(x.nback, 2);
	ck_assert_mem_eq(x.back, "bc", 2);
	ck_assert_uint_eq(in(UART_LSR)&UART_LSR_DR, 0);
	ck_assert_uint_eq(uart_rx_room(&x.u), 0);
	out(UART_MCR, UART_MCR_DTR);
	ck_assert_uint_eq(uart_rx_room(&x.u), 0);
	out(UART_MCR, UART_MCR_DTR | UART_MCR_RTS);
	receive("bc");
	out(UART_MCR, UART_MCR_RTS | UART_MCR_OUT2); /* RTS stays: nothing happens */
	ck_assert_uint_eq(in(UART_RX), 'b');
	x.nback = 0;
	out(UART_MCR, UART_MCR_RTS | UART_MCR_LOOP);
	ck_assert_uint_eq(x.nback, 1);
	out(UART_TX, 'l');
	x.nback = 0;
	out(UART_MCR, UART_MCR_RTS);
	ck_assert_uint_eq(x.nback, 0); /* what it sent to itself is gone */
	ck_assert_uint_eq(in(UART_LSR)&UART_LSR_DR, 0);
}
END_TEST

START_TEST(loopback)
{
	out(UART_FCR, UART_FCR_ENABLE_FIFO);
	out(UART_MCR, UART_MCR_LOOP);
	out(UART_TX, 'l');
	ck_assert_uint_eq(x.nout, 0);
	ck_assert_uint_eq(uart_rx_room(&x.u), 0); /* the outside waits */
	ck_assert_uint_eq(in(UART_RX), 'l');
	for (int i = 0; i < 100; i++)
		out(UART_TX, (uint8_t)i);
	ck_assert_uint_eq(x.st.rx_count, UART_FIFO);
	out(UART_MCR, 0);
	out(UART_TX, 'o');
	ck_assert_uint_eq(x.nout, 1);
}
END_TEST

START_TEST(full_transmitter)
{
	x.room = UART_TX_SLACK;
	out(UART_IER, UART_IER_THRI);
	ck_assert_uint_eq(in(UART_IIR), UART_IIR_THRI);
	out(UART_TX, 'a');
	ck_assert_uint_eq(in(UART_LSR), 0);
	ck_assert_uint_eq(in(UART_IIR), UART_IIR_NO_INT);
	x.irqs = 0;
	/* What was under way still fits; what a careless driver sends after that is counted. */
	for (unsigned i = 0; i < UART_TX_SLACK + 9; i++)
		out(UART_TX, 'b');
	ck_assert_uint_eq(x.nout, UART_TX_SLACK);
	ck_assert_uint_eq(x.u.dropped, 10);
	ck_assert_uint_eq(x.irqs, 0);
	x.room = UART_TX_SLACK;
	uart_settle(&x.u);
	ck_assert_uint_eq(in(UART_LSR), UART_LSR_THRE | UART_LSR_TEMT);
	ck_assert_uint_eq(x.irqs, 1);
	ck_assert_uint_eq(in(UART_IIR), UART_IIR_THRI);
}
END_TEST

START_TEST(restart_keeps_registers)
{
	out(UART_FCR, UART_FCR_ENABLE_FIFO);
	out(UART_IER, UART_IER_RDI);
	out(UART_LCR, UART_LCR_WLEN8);
	receive("ab");
	x.irqs = 0;
	memset(x.shadow, 0, sizeof(x.shadow));
	uart_init(&x.u, &x.st, x.shadow, &ops, NULL);
	uart_settle(&x.u);
	ck_assert_uint_eq(x.irqs, 1); /* the other process's signal may be lost */
	ck_assert_uint_eq(in(UART_IER), UART_IER_RDI);
	ck_assert_uint_eq(in(UART_LCR), UART_LCR_WLEN8);
	ck_assert_uint_eq(in(UART_RX), 'a');
	ck_assert_uint_eq(in(UART_RX), 'b');
}
END_TEST

START_TEST(hostile_state_and_accesses)
{
	memset(&x.st, 0xff, sizeof(x.st));
	uart_init(&x.u, &x.st, x.shadow, &ops, NULL);
	for (uint32_t off = 0; off < 64; off++) {
		uart_write(&x.u, off * 0x01010101u, 0xff);
		(void)uart_read(&x.u, off * 0x01010101u);
		uart_settle(&x.u);
	}
	ck_assert_uint_eq(uart_read(&x.u, 8), 0xff);
	ck_assert_uint_eq(uart_read(&x.u, UINT32_MAX), 0xff);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("uart");
	TCase *tc = tcase_create("uart");
	SRunner *sr;
	int failures;

	tcase_add_checked_fixture(tc, setup, NULL);
	tcase_add_test(tc, after_reset);
	tcase_add_test(tc, looks_like_a_16550a);
	tcase_add_test(tc, divisor_latch);
	tcase_add_test(tc, transmit_interrupt);
	tcase_add_test(tc, receive_without_fifo);
	tcase_add_test(tc, receive_with_fifo);
	tcase_add_test(tc, one_cause_per_interrupt);
	tcase_add_test(tc, priorities);
	tcase_add_test(tc, input_waits_for_rts);
	tcase_add_test(tc, loopback);
	tcase_add_test(tc, full_transmitter);
	tcase_add_test(tc, restart_keeps_registers);
	tcase_add_test(tc, hostile_state_and_accesses);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failures = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failures != 0;
}
