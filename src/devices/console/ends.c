/* SPDX-License-Identifier: BSD-2-Clause */
/* The host's side of a console. See ends.h. */
#include <errno.h>
#include <string.h>

#include <insula/base.h>

#include "ends.h"

#define CTRL_A 0x01
#define CTRL_D 4
#define IN_KEPT 16u /* room that is kept for what a UART gives back; it may be in use */

static const char help_text[] =
	"\r\nCtrl-A x: end the VM   Ctrl-A Ctrl-A: one Ctrl-A   Ctrl-A h: this help\r\n";

static void wait_go(const struct ends *c, int event)
{
	while (!atomic_load(&c->go))
		events_wait(&event, 1, -1, -1);
}

/* ---- output: the device's thread ---- */

uint32_t ends_room(const struct ends *c)
{
	uint32_t used = c->out_head - atomic_load(&c->r->out_tail);

	/* More than the ring holds: another process's state was wrong; the output thread is about
	 * to mend it. */
	return used > CONSOLE_OUT_LEN ? 0 : CONSOLE_OUT_LEN - used;
}

uint8_t *ends_piece(struct ends *c, uint32_t *len)
{
	uint32_t at = c->out_head % CONSOLE_OUT_LEN, room = ends_room(c);

	*len = room < CONSOLE_OUT_LEN - at ? room : CONSOLE_OUT_LEN - at;
	return c->r->out + at;
}

void ends_put(struct ends *c, uint32_t n)
{
	c->out_head += n;
	atomic_store_explicit(&c->r->out_head, c->out_head, memory_order_release);
}

bool ends_batch(const struct ends *c)
{
	return c->out_head - atomic_load_explicit(&c->out_mark, memory_order_relaxed) >=
	       CONSOLE_BATCH;
}

void ends_flush(struct ends *c)
{
	if (atomic_load_explicit(&c->out_mark, memory_order_relaxed) == c->out_head)
		return;
	atomic_store(&c->out_mark, c->out_head);
	event_signal(c->out_event);
}

void ends_want_room(struct ends *c)
{
	atomic_store(&c->want_room, 1);
	ends_flush(c);
}

void ends_help(struct ends *c)
{
	uint32_t n = sizeof(help_text) - 1, len;

	if (!(atomic_fetch_and(&c->flags, ~(uint32_t)ENDS_HELP) & ENDS_HELP) || ends_room(c) < n)
		return;
	for (const char *p = help_text; n; p += len, n -= len) {
		uint8_t *to = ends_piece(c, &len);

		len = n < len ? n : len;
		memcpy(to, p, len);
		ends_put(c, len);
	}
	ends_flush(c);
}

/* ---- output thread ---- */

static void out_progress(struct ends *c, uint32_t tail)
{
	atomic_store(&c->r->out_tail, tail);
	if (!atomic_load(&c->want_room))
		return;
	/* Half of the ring at once, not one interrupt per byte, unless it is all there is. */
	if (atomic_load(&c->r->out_head) - tail <= CONSOLE_OUT_LEN / 2 ||
	    tail == atomic_load(&c->out_mark)) {
		atomic_store(&c->want_room, 0);
		event_signal(c->wake_fd);
	}
}

/* Once; how much it was is said at the end. That nobody reads from a pty is no error. */
void ends_lose(struct ends *c, uint32_t n, int error)
{
	struct err e = {0};

	c->out_lost += n;
	if (c->out_pty || atomic_exchange(&c->out_told, true))
		return;
	if (error == -EFBIG)
		log_warn("the console's file has reached its limit; more output is dropped");
	else if (error == -EAGAIN)
		log_warn("nobody reads the console's output: it is dropped");
	else
		log_warn("%s", (err_sys(&e, error, "output is dropped"), e.text));
}

static void *output_main(void *arg)
{
	struct ends *c = arg;
	uint32_t tail = atomic_load(&c->r->out_tail);

	wait_go(c, c->out_event);
	for (;;) {
		uint32_t mark = atomic_load(&c->out_mark), at = tail % CONSOLE_OUT_LEN;
		uint32_t n = mark - tail;

		if (n == 0) {
			events_wait(&c->out_event, 1, -1, -1);
			continue;
		}
		if (n > CONSOLE_OUT_LEN - at)
			n = CONSOLE_OUT_LEN - at;
		if (n > CONSOLE_PIECE)
			n = CONSOLE_PIECE;
		tail += ends_write(c, c->r->out + at, n);
		out_progress(c, tail);
	}
	return NULL;
}

/* ---- input: the device's thread ---- */

static uint32_t in_room(const struct ends *c)
{
	uint32_t used = atomic_load(&c->r->in_head) - atomic_load(&c->r->in_tail);

	return used < CONSOLE_IN_LEN - IN_KEPT ? CONSOLE_IN_LEN - IN_KEPT - used : 0;
}

void ends_took(struct ends *c, uint32_t tail)
{
	atomic_store(&c->r->in_tail, tail);
	if (atomic_load(&c->in_waits) && in_room(c) >= CONSOLE_IN_LEN / 2)
		event_signal(c->in_event);
}

/* ---- input thread ---- */

static void in_put(struct ends *c, uint8_t byte)
{
	uint32_t head = atomic_load_explicit(&c->r->in_head, memory_order_relaxed);

	if (!in_room(c))
		return; /* only if in_stuck, see wait_room() */
	c->r->in[head % CONSOLE_IN_LEN] = byte;
	atomic_store(&c->r->in_head, head + 1);
}

static void ends_ask(struct ends *c, enum ends_flag f, int fd)
{
	atomic_fetch_or(&c->flags, (uint32_t)f);
	event_signal(fd);
}

static void after_ctrl_a(struct ends *c, uint8_t byte)
{
	switch (byte) {
	case 'x':
		ends_ask(c, ENDS_QUIT, c->quit_fd);
		break;
	case 'h':
		ends_ask(c, ENDS_HELP, c->wake_fd);
		break;
	case CTRL_A:
		in_put(c, byte);
		break;
	default:
		in_put(c, CTRL_A);
		in_put(c, byte);
	}
}

static void ends_take_input(struct ends *c, const uint8_t *buf, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (c->after_ctrl_a) {
			c->after_ctrl_a = false;
			after_ctrl_a(c, buf[i]);
		} else if (c->escape && buf[i] == CTRL_A) {
			c->after_ctrl_a = true;
		} else {
			in_put(c, buf[i]);
		}
	}
	c->in_bytes += n;
	atomic_store(&c->r->in_open, buf[n - 1] != '\n');
	event_signal(c->wake_fd);
}

/* A guest that does not read must not keep the user from leaving: a terminal is read on after a
 * while, for the escape alone. */
static void wait_room(struct ends *c)
{
	uint64_t start = clock_ns();

	while (in_room(c) < 2 && !c->in_stuck) {
		atomic_store(&c->in_waits, 1);
		if (in_room(c) < 2)
			events_wait(&c->in_event, 1, -1, c->escape ? CONSOLE_FULL_MS : -1);
		c->in_stuck = c->escape && clock_ns() - start >= CONSOLE_FULL_MS * 1000000ull;
	}
	atomic_store(&c->in_waits, 0);
	c->in_stuck = c->in_stuck && in_room(c) < 2;
}

/* How many bytes to ask for: with an escape one byte read can become two. */
static size_t in_want(const struct ends *c, size_t size)
{
	size_t n = in_room(c) / 2;

	if (c->in_stuck)
		return size;
	return n < 1 ? 1 : n < size ? n : size;
}

/* A console's line has no end: what the guest's terminal takes for one goes over it. After an
 * unfinished line it takes two, the first ends the line. */
static void end_of_stream(struct ends *c)
{
	if (atomic_load(&c->r->in_open))
		in_put(c, CTRL_D);
	atomic_store(&c->r->in_open, 0);
	in_put(c, CTRL_D);
	atomic_store(&c->r->in_ended, 1);
	event_signal(c->wake_fd);
}

static void *input_main(void *arg)
{
	struct ends *c = arg;
	uint8_t buf[512];

	wait_go(c, c->in_event);
	for (;;) {
		int n;

		wait_room(c);
		n = ends_read(c, buf, in_want(c, sizeof(buf)));
		if (n > 0)
			ends_take_input(c, buf, (size_t)n);
		else if (n == 0 && c->stream && !atomic_load(&c->r->in_ended))
			end_of_stream(c);
		else
			(void)events_wait(NULL, 0, -1, -1); /* the end of the input; of the thread
							       too, but for its stack */
	}
	return NULL;
}

/* ---- control thread ---- */

void ends_go(struct ends *c)
{
	atomic_store(&c->go, true);
	event_signal(c->out_event);
	if (c->in_fd >= 0)
		event_signal(c->in_event);
}

void ends_quit(struct ends *c, int channel)
{
	if (atomic_fetch_and(&c->flags, ~(uint32_t)ENDS_QUIT) & ENDS_QUIT)
		(void)msg_send(channel, MSG_QUIT, NULL, 0, NULL, 0);
}

/* The last words of a guest matter most. */
uint64_t ends_drain(struct ends *c)
{
	uint32_t tail = atomic_load(&c->r->out_tail);
	uint64_t since = clock_ns();

	ends_flush(c);
	while (tail != c->out_head && clock_ns() - since < CONSOLE_DRAIN_NS) {
		uint32_t now;

		atomic_store(&c->want_room, 1);
		events_wait(&c->wake_fd, 1, -1, 10);
		now = atomic_load(&c->r->out_tail);
		if (now != tail)
			since = clock_ns();
		tail = now;
	}
	c->out_lost += c->out_head - tail;
	if (c->out_lost && !c->out_pty)
		log_warn("%llu bytes of output were dropped", (unsigned long long)c->out_lost);
	return c->out_lost;
}

/* ---- start ---- */

/* Another process's indices: if they make no sense, nothing is pending. */
void ends_rings(struct ends *c, struct ends_rings *r, bool resumed)
{
	memset(c, 0, sizeof(*c));
	c->r = r;
	if (!resumed) {
		atomic_store(&r->out_head, 0);
		atomic_store(&r->out_tail, 0);
		atomic_store(&r->in_head, 0);
		atomic_store(&r->in_tail, 0);
		atomic_store(&r->in_open, 0);
		atomic_store(&r->in_ended, 0);
	}
	c->out_head = atomic_load(&r->out_head);
	if (c->out_head - atomic_load(&r->out_tail) > CONSOLE_OUT_LEN)
		atomic_store(&r->out_tail, c->out_head);
	if (atomic_load(&r->in_head) - atomic_load(&r->in_tail) > CONSOLE_IN_LEN)
		atomic_store(&r->in_tail, atomic_load(&r->in_head));
	atomic_store(&c->out_mark, c->out_head);
}

/* What the guest had written is the other VM's to print, and what was typed was for it. */
static void forget(struct ends *c)
{
	atomic_store(&c->r->out_tail, c->out_head);
	atomic_store(&c->r->in_tail, atomic_load(&c->r->in_head));
	atomic_store(&c->r->in_open, 0);
	atomic_store(&c->r->in_ended, 0);
}

int ends_open(struct ends *c, struct ends_rings *r, bool resumed, const struct ends_conf *conf,
	      struct err *e)
{
	pthread_t t;
	int rc;

	ends_rings(c, r, resumed);
	if (conf->flags & UART_RESTORED)
		forget(c);
	c->out_fd = conf->out_fd;
	c->in_fd = conf->in_fd;
	c->wake_fd = conf->wake_fd;
	c->quit_fd = conf->quit_fd;
	rc = ends_look(c, conf->limit, e);
	if (rc)
		return rc;
	c->escape = conf->flags & UART_ESCAPE;
	c->stream = conf->flags & UART_STREAM;
	c->out_event = event_create();
	c->in_event = event_create();
	if (c->out_event < 0 || c->in_event < 0)
		return err_set(e, -EMFILE, "eventfd");
	rc = helper_thread(&t, output_main, c);
	if (!rc && c->in_fd >= 0)
		rc = helper_thread(&t, input_main, c);
	return rc ? err_sys(e, rc, "thread") : 0;
}
