/* SPDX-License-Identifier: BSD-2-Clause */
/* Ctrl-C and the console window's size on Windows. See signals.h. */
#include "os/win/win.h"

#include <signal.h>

#include <insula/base.h>

#include "supervisor/signals.h"

#define LOOK_NS 1000000000ull

/* The handler runs on a thread of the system's and gets no argument. */
static HANDLE interrupted;

static BOOL WINAPI on_interrupt(DWORD which)
{
	(void)which;
	return SetEvent(interrupted);
}

static void signals_on_event(void *ctx, unsigned events)
{
	const struct signals *s = ctx;

	(void)events;
	ResetEvent(fd_handle(s->handle));
	s->fn(s->ctx, SIGINT);
}

/* A console window does not say that its size has changed. */
static void on_look(void *ctx)
{
	struct signals *s = ctx;
	uint16_t rows = s->rows, cols = s->cols;

	timer_set(&s->look, clock_ns() + LOOK_NS);
	(void)window_size(&rows, &cols);
	if (rows == s->rows && cols == s->cols)
		return;
	s->rows = rows;
	s->cols = cols;
	s->fn(s->ctx, SIGNALS_RESIZED);
}

int signals_catch(struct signals *s, struct loop *l, bool command, void (*fn)(void *ctx, int signo),
		  void *ctx)
{
	HANDLE h = CreateEventW(NULL, TRUE, FALSE, NULL);

	if (!h)
		return win_errno(GetLastError());
	interrupted = h;
	s->handle = handle_fd(h);
	s->fn = fn;
	s->ctx = ctx;
	watch_on(l, &s->watch, s->handle, WATCH_IN, signals_on_event, s);
	timer_init(l, &s->look, on_look, s);
	if (command && window_size(&s->rows, &s->cols))
		timer_set(&s->look, clock_ns() + LOOK_NS);
	return SetConsoleCtrlHandler(on_interrupt, TRUE) ? 0 : win_errno(GetLastError());
}

/* The event stays: the handler may be running. */
void signals_close(struct signals *s)
{
	watch_off(&s->watch);
	timer_set(&s->look, 0);
	s->handle = -1;
}
