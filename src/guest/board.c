/* SPDX-License-Identifier: BSD-2-Clause */
/* insula-init: how it talks to the board, and how it ends. */
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/io.h>
#include <sys/reboot.h>
#include <termios.h>
#include <unistd.h>

#include <insula/board.h>

#include "guest.h"

void board_started(void)
{
	if (ioperm(BOARD_REG_EVENT, 1, 1) == 0)
		outb(BOARD_EVENT_INIT_STARTED, BOARD_REG_EVENT);
}

void board_agent_ready(void)
{
	if (ioperm(BOARD_REG_EVENT, 1, 1) == 0)
		outb(BOARD_EVENT_AGENT_READY, BOARD_REG_EVENT);
}

_Noreturn void board_poweroff(void)
{
	reboot(RB_POWER_OFF);
	for (;;) /* PID 1 must not return: that is a kernel panic */
		pause();
}

_Noreturn void board_leave(int signo)
{
	if (signo == SIGTERM)
		reboot(RB_AUTOBOOT);
	board_poweroff();
}

_Noreturn void board_exit(int status)
{
	tcdrain(STDERR_FILENO);
	if (ioperm(BOARD_REG_EXIT, sizeof(uint32_t), 1) == 0)
		outl((uint32_t)status & 0xff, BOARD_REG_EXIT);
	board_poweroff();
}

static void complain(const char *fmt, va_list ap, int code)
{
	dprintf(STDERR_FILENO, NAME ": ");
	vdprintf(STDERR_FILENO, fmt, ap);
	if (code)
		dprintf(STDERR_FILENO, ": %s", strerror(code));
	dprintf(STDERR_FILENO, "\n");
}

void die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	complain(fmt, ap, 0);
	va_end(ap);
	board_exit(STATUS_INTERNAL);
}

void die_errno(const char *fmt, ...)
{
	int code = errno;
	va_list ap;

	va_start(ap, fmt);
	complain(fmt, ap, code);
	va_end(ap);
	board_exit(STATUS_INTERNAL);
}
