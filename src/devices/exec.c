/* SPDX-License-Identifier: BSD-2-Clause */
/* A command's streams on the host. See exec.h. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <insula/base.h>

#include "exec.h"

#define MAX_READS 16 /* of the stream per wake-up */
#define MIN(a, b) ((a) < (b) ? (a) : (b))

static const char *const out_name[] = {"standard output", "standard error"};

/* ---- rings ---- */

static uint32_t ring_used(const struct exec_ring *r)
{
	return atomic_load(&r->head) - atomic_load(&r->tail);
}

/* The producer's side; there must be room. */
static void ring_put(struct exec_ring *r, const uint8_t *buf, uint32_t n)
{
	uint32_t head = atomic_load_explicit(&r->head, memory_order_relaxed), at = head % r->size;
	uint32_t first = MIN(n, r->size - at);

	memcpy(r->buf + at, buf, first);
	memcpy(r->buf, buf + first, n - first);
	atomic_store(&r->head, head + n);
}

/* The longest piece that can be taken at once. */
static uint32_t ring_piece(const struct exec_ring *r, uint32_t *at)
{
	uint32_t used = ring_used(r);

	*at = atomic_load_explicit(&r->tail, memory_order_relaxed) % r->size;
	return MIN(used, r->size - *at);
}

static void ring_took(struct exec_ring *r, uint32_t n)
{
	atomic_store(&r->tail, atomic_load_explicit(&r->tail, memory_order_relaxed) + n);
}

/* ---- writer threads ---- */

static void wait_for(int fd, short events)
{
	struct pollfd p = {.fd = fd, .events = events};

	(void)poll(&p, 1, -1);
}

static void write_some(struct exec_out *o)
{
	uint32_t at, n = ring_piece(&o->ring, &at);
	ssize_t r = write(o->fd, o->ring.buf + at, n);

	if (r > 0) {
		ring_took(&o->ring, (uint32_t)r);
		o->unsaid += (uint32_t)r;
		if (o->unsaid < GP_WINDOW_OUT / 4 && ring_used(&o->ring))
			return;
		o->unsaid = 0; /* credit is due, or this may have been the last of it */
		event_signal(o->x->event);
	} else if (r < 0 && errno == EAGAIN) {
		wait_for(o->fd, POLLOUT);
	} else if (r < 0 && errno != EINTR) {
		atomic_store(&o->error, errno);
		event_signal(o->x->event);
	}
}

static void *writer_main(void *arg)
{
	struct exec_out *o = arg;

	for (;;) {
		if (ring_used(&o->ring) && !atomic_load(&o->error)) {
			write_some(o);
		} else {
			wait_for(o->wake, POLLIN);
			event_drain(o->wake);
		}
	}
	return NULL;
}

/* ---- reader thread ---- */

/* A guest that hangs must not keep the user: one key, three times in a second. It is passed on
 * all the same, so nothing else about the keyboard changes. */
static void look_for_escape(struct exec *x, const uint8_t *buf, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		uint64_t now = clock_ns();

		if (buf[i] != EXEC_ESCAPE_KEY) {
			x->escapes = 0;
			continue;
		}
		if (!x->escapes || now - x->escape_ns > EXEC_ESCAPE_NS) {
			x->escapes = 0;
			x->escape_ns = now;
		}
		if (++x->escapes == EXEC_ESCAPE_TIMES)
			atomic_store(&x->quit, true);
	}
}

/* How much may be read now. With an escape a full ring must not keep us from looking for it. */
static uint32_t in_want(struct exec *x, uint32_t size)
{
	uint32_t room;

	while (!(room = x->in.size - ring_used(&x->in)) && !x->escape) {
		wait_for(x->in_wake, POLLIN);
		event_drain(x->in_wake);
	}
	return room && room < size ? room : size;
}

static void take_input(struct exec *x, const uint8_t *buf, uint32_t n)
{
	uint32_t room = x->in.size - ring_used(&x->in);

	if (x->escape)
		look_for_escape(x, buf, n);
	ring_put(&x->in, buf, MIN(n, room)); /* less than n only if it is a person's typing */
	event_signal(x->event);
}

static void *reader_main(void *arg)
{
	struct exec *x = arg;
	uint8_t buf[4096];
	bool eof = false;

	while (!eof && !atomic_load(&x->in_stop)) {
		uint32_t want = in_want(x, sizeof(buf));
		ssize_t n = read(x->in_fd, buf, want);

		if (n > 0)
			take_input(x, buf, (uint32_t)n);
		else if (n < 0 && errno == EAGAIN)
			wait_for(x->in_fd, POLLIN);
		else
			eof = n == 0 || errno != EINTR;
	}
	atomic_store(&x->in_eof, true);
	event_signal(x->event);
	for (;;)
		(void)poll(NULL, 0,
			   -1); /* the end of a thread would make system calls of its own */
	return NULL;
}

/* ---- main thread: to the guest ---- */

/* One frame, if there is something, credit and room. */
static bool send_input(struct exec *x)
{
	uint32_t at, n = ring_piece(&x->in, &at);
	uint8_t *room = n && x->in_credit && !x->in_ended ? gp_data_room(&x->tx) : NULL;

	if (!room)
		return false;
	n = MIN(MIN(n, x->in_credit), GP_DATA_MAX);
	memcpy(room, x->in.buf + at, n);
	gp_put_data(&x->tx, GP_STDIN, n);
	ring_took(&x->in, n);
	x->in_credit -= n;
	event_signal(x->in_wake);
	return true;
}

static void end_input(struct exec *x)
{
	if (x->in_fd < 0 || x->in_ended || !atomic_load(&x->in_eof) || ring_used(&x->in))
		return;
	x->in_ended = !gp_put(&x->tx, GP_STDIN_END, NULL, 0);
}

/* A quarter of the window at once, not a frame for every write: the guest always has the rest. */
static void give_credit(struct exec *x, unsigned i)
{
	struct exec_out *o = &x->out[i];
	uint32_t tail = atomic_load(&o->ring.tail);
	struct gp_credit m = {.stream = GP_STREAM_OUT + i, .bytes = tail - o->credited};

	if (o->closed || m.bytes < GP_WINDOW_OUT / 4)
		return;
	if (!gp_put(&x->tx, GP_CREDIT, &m, sizeof(m)))
		o->credited = tail;
}

/* A reader that is gone is the command's business (SIGPIPE); any other error is the user's. */
static void close_output(struct exec *x, unsigned i)
{
	struct exec_out *o = &x->out[i];
	const struct gp_close m = {.stream = GP_STREAM_OUT + i};

	if (o->closed || !atomic_load(&o->error))
		return;
	o->closed = x->done || !gp_put(&x->tx, GP_CLOSE, &m, sizeof(m));
}

static int flush(struct exec *x)
{
	while (x->tx.at < x->tx.len) {
		ssize_t n = write(x->stream, x->tx.buf + x->tx.at, x->tx.len - x->tx.at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN ? 0 : -errno;
		gp_out_sent(&x->tx, (size_t)n);
	}
	return 0;
}

/* A failure shows as the end of the stream when it is read: what the guest has sent before that is
 * still wanted, and what we have for it is not. */
static void flush_or_drop(struct exec *x)
{
	if (flush(x))
		x->tx.at = x->tx.len = 0;
}

static void to_guest(struct exec *x)
{
	for (unsigned i = 0; i < 2; i++) {
		give_credit(x, i);
		close_output(x, i);
	}
	flush_or_drop(x);
	/* All that may go, which the window bounds: nobody wakes us for what is left. */
	while (send_input(x))
		flush_or_drop(x);
	end_input(x);
	flush_or_drop(x);
}

/* ---- main thread: from the guest ---- */

void exec_lost(struct exec *x, const char *why)
{
	if (x->done)
		return;
	x->done = true;
	x->exit = (struct msg_exec_exit){.end = EXEC_LOST};
	snprintf(x->exit.text, sizeof(x->exit.text), "%s", why);
}

static int on_hello(struct exec *x)
{
	struct gp_hello m;
	char why[64];

	memcpy(&m, x->body, sizeof(m));
	if (m.magic != GP_MAGIC)
		return -EPROTO;
	if (m.version != GP_VERSION) {
		snprintf(why, sizeof(why), "the guest speaks version %u of the protocol, not %u",
			 m.version, GP_VERSION);
		exec_lost(x, why);
	}
	x->hello = true;
	return 0;
}

static int on_started(struct exec *x)
{
	(void)msg_send(x->channel, MSG_EXEC_STARTED, NULL, 0, NULL, 0);
	return 0;
}

static int on_signaled(struct exec *x)
{
	(void)msg_send(x->channel, MSG_EXEC_SIGNALED, NULL, 0, NULL, 0);
	return 0;
}

static int on_output(struct exec *x)
{
	struct exec_out *o = &x->out[x->rx.hdr.type == GP_STDERR];
	uint32_t len = x->rx.hdr.len;

	if (atomic_load(&o->error))
		return 0; /* it was under way when the output was closed */
	/* Against what was given back as credit, not against what is free. */
	if (len > GP_WINDOW_OUT - (atomic_load(&o->ring.head) - o->credited))
		return -EPROTO;
	ring_put(&o->ring, x->body, len);
	event_signal(o->wake);
	return 0;
}

static int on_credit(struct exec *x)
{
	struct gp_credit m;

	memcpy(&m, x->body, sizeof(m));
	if (m.stream != GP_STREAM_IN || !m.bytes || m.bytes > GP_WINDOW_IN - x->in_credit)
		return -EPROTO;
	x->in_credit += m.bytes;
	return 0;
}

static int on_close(struct exec *x)
{
	struct gp_close m;

	memcpy(&m, x->body, sizeof(m));
	if (m.stream != GP_STREAM_IN)
		return -EPROTO;
	x->in_ended = true;
	atomic_store(&x->in_stop, true);
	ring_took(&x->in, ring_used(&x->in));
	event_signal(x->in_wake);
	return 0;
}

static int on_exit(struct exec *x)
{
	static const uint32_t end[] = {[GP_EXIT_CODE] = EXEC_CODE,
				       [GP_EXIT_SIGNAL] = EXEC_SIGNALED,
				       [GP_EXIT_REFUSED] = EXEC_REFUSED};
	struct gp_exit m;

	memcpy(&m, x->body, sizeof(m));
	if (m.kind < GP_EXIT_CODE || m.kind > GP_EXIT_REFUSED || m.value > 255 ||
	    (m.kind == GP_EXIT_SIGNAL && (m.value < 1 || m.value > 64)) ||
	    !memchr(m.text, 0, sizeof(m.text)))
		return -EPROTO;
	x->exit = (struct msg_exec_exit){.end = end[m.kind],
					 .value = m.value,
					 .flags = m.flags & GP_EXIT_OOM ? EXEC_OOM : 0};
	if (m.kind == GP_EXIT_REFUSED)
		snprintf(x->exit.text, sizeof(x->exit.text), "%s", m.text);
	x->done = true;
	return 0;
}

static const struct handler {
	enum gp_type type;
	int (*run)(struct exec *x);
} handlers[] = {
	{GP_STARTED, on_started},   {GP_STDOUT, on_output}, {GP_STDERR, on_output},
	{GP_SIGNALED, on_signaled}, {GP_CREDIT, on_credit}, {GP_CLOSE, on_close},
	{GP_EXIT, on_exit},
};

int exec_frame(struct exec *x)
{
	if (!x->hello)
		return x->rx.hdr.type == GP_HELLO ? on_hello(x) : -EPROTO;
	for (unsigned i = 0; i < ARRAY_LEN(handlers); i++) {
		if (handlers[i].type == x->rx.hdr.type)
			return handlers[i].run(x);
	}
	return -EPROTO;
}

static void receive(struct exec *x)
{
	for (unsigned i = 0; i < MAX_READS && !x->done && gp_out_ready(&x->tx); i++) {
		uint8_t *at;
		size_t want = gp_in_want(&x->rx, &at);
		ssize_t n = read(x->stream, at, want);
		int rc;

		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n <= 0) {
			exec_lost(x, x->hello ? "the stream ended" : "nobody answered");
			return;
		}
		rc = gp_in_got(&x->rx, (size_t)n, GP_GUEST);
		if (rc > 0)
			rc = exec_frame(x);
		if (rc < 0)
			exec_lost(x, "the guest broke the protocol");
	}
}

/* ---- main thread: the supervisor ---- */

static int on_message(struct exec *x)
{
	union {
		struct msg_exec_signal signal;
		struct msg_exec_size size;
		uint8_t bytes[64];
	} b;
	int fds[MSG_MAX_FDS], rc;
	enum msg_type type;
	unsigned nfds;
	size_t len;

	rc = msg_recv(x->channel, &type, &b, sizeof(b), &len, fds, &nfds);
	if (rc)
		return rc;
	if (nfds == 0 && type == MSG_EXEC_SIGNAL && len == sizeof(b.signal)) {
		struct gp_signal m = {.signo = b.signal.signo};
		(void)gp_put(&x->tx, GP_SIGNAL, &m, sizeof(m));
	} else if (nfds == 0 && type == MSG_EXEC_RESIZE && len == sizeof(b.size)) {
		struct gp_size m = {.rows = b.size.rows, .cols = b.size.cols};
		(void)gp_put(&x->tx, GP_RESIZE, &m, sizeof(m));
	} else if (nfds == 0 && len == 0 && type == MSG_STOP) {
		return -ESHUTDOWN;
	} else {
		log_error("unexpected message %d on the channel", (int)type);
		return -EPROTO;
	}
	return 0;
}

/* Has everything that came been written, or become impossible to write? */
static bool written(struct exec *x)
{
	for (unsigned i = 0; i < 2; i++) {
		if (ring_used(&x->out[i].ring) && !atomic_load(&x->out[i].error))
			return false;
	}
	return true;
}

static void report(struct exec *x)
{
	if (x->reported || !x->done || !written(x))
		return;
	for (unsigned i = 0; i < 2; i++) {
		int error = atomic_load(&x->out[i].error);

		if (!error || error == EPIPE || (x->exit.flags & EXEC_OUTPUT_LOST))
			continue;
		x->exit.flags |= EXEC_OUTPUT_LOST;
		snprintf(x->exit.text, sizeof(x->exit.text), "%s: %s", out_name[i],
			 strerror(error));
	}
	x->reported = true;
	(void)msg_send(x->channel, MSG_EXEC_EXIT, &x->exit, sizeof(x->exit), NULL, 0);
}

static void say_quit(struct exec *x)
{
	if (atomic_exchange(&x->quit, false))
		(void)msg_send(x->channel, MSG_QUIT, NULL, 0, NULL, 0);
}

static void greet(struct exec *x)
{
	const struct gp_hello hello = {.magic = GP_MAGIC, .version = GP_VERSION};

	(void)gp_put(&x->tx, GP_HELLO, &hello, sizeof(hello));
}

/* Longer than the buffer for everything else, and the first thing that is sent: straight from
 * where it is. */
static int send_start(struct exec *x, uint32_t *sent)
{
	while (*sent < x->start_len) {
		ssize_t n = write(x->stream, x->start + *sent, x->start_len - *sent);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN ? 0 : -errno;
		*sent += (uint32_t)n;
	}
	return 0;
}

int exec_loop(struct exec *x)
{
	uint32_t sent = 0;
	int rc = 0;

	greet(x);
	while (!rc) {
		struct pollfd p[] = {
			{x->channel, POLLIN, 0}, {x->event, POLLIN, 0}, {x->stream, 0, 0}};
		bool pending = sent < x->start_len || x->tx.at < x->tx.len;

		p[2].events =
			(short)((gp_out_ready(&x->tx) ? POLLIN : 0) | (pending ? POLLOUT : 0));
		if (poll(p, ARRAY_LEN(p), -1) < 0)
			continue;
		if (p[1].revents)
			event_drain(x->event);
		if (p[2].revents & ~POLLOUT)
			receive(x);
		if (sent < x->start_len) {
			flush_or_drop(x);
			if (x->tx.at == x->tx.len && send_start(x, &sent))
				sent = x->start_len;
		}
		if (x->done)
			fd_close(&x->stream); /* the last frame was the last */
		else if (sent == x->start_len)
			to_guest(x);
		say_quit(x);
		report(x);
		if (p[0].revents)
			rc = on_message(x);
	}
	return rc == -ESHUTDOWN ? 0 : rc;
}

/* ---- set-up ---- */

static int open_out(struct exec *x, unsigned i, int fd)
{
	struct exec_out *o = &x->out[i];

	o->x = x;
	o->fd = fd;
	o->ring.buf = o->buf;
	o->ring.size = sizeof(o->buf);
	o->wake = event_create();
	return o->wake < 0 ? o->wake : 0;
}

int exec_open(struct exec *x, int channel, int stream, int spec, uint32_t start_len, int out,
	      int err_out, int in, uint32_t flags, struct err *e)
{
	const struct gp_hdr h = {.len = start_len,
				 .type = flags & EXEC_POWEROFF ? GP_POWEROFF : GP_START};
	int rc = 0;

	x->channel = channel;
	x->stream = stream;
	x->in_fd = in;
	x->in.buf = x->in_buf;
	x->in.size = sizeof(x->in_buf);
	x->in_credit = GP_WINDOW_IN;
	x->escape = flags & EXEC_ESCAPE;
	gp_in_init(&x->rx, x->body, sizeof(x->body));
	if (gp_check(&h, GP_HOST))
		rc = -EMSGSIZE;
	memcpy(x->start, &h, sizeof(h));
	if (!rc)
		rc = read_full(spec, x->start + sizeof(h), start_len, 0);
	close(spec);
	x->start_len = start_len + (uint32_t)sizeof(h);
	if (rc)
		return err_sys(e, rc, "the command's description");
	x->event = event_create();
	x->in_wake = event_create();
	if (x->event < 0 || x->in_wake < 0 || open_out(x, 0, out) || open_out(x, 1, err_out))
		return err_set(e, -EMFILE, "eventfd");
	/* Ours alone, unlike the user's descriptors. */
	if (fcntl(stream, F_SETFL, O_NONBLOCK))
		return err_sys(e, -errno, "stream");
	return 0;
}

int exec_threads(struct exec *x, struct err *e)
{
	pthread_t t;
	int rc = helper_thread(&t, writer_main, &x->out[0]);

	if (!rc)
		rc = helper_thread(&t, writer_main, &x->out[1]);
	if (!rc && x->in_fd >= 0)
		rc = helper_thread(&t, reader_main, x);
	return rc ? err_sys(e, rc, "thread") : 0;
}

void exec_rules(const struct exec *x, struct rule_list *l)
{
	rule_any(l, SYS_poll, "wait for the stream, the supervisor, the threads, the user");
	rule_fd(l, SYS_read, x->stream, "frames from the guest");
	rule_fd(l, SYS_write, x->stream, "frames to the guest");
	rule_fd(l, SYS_close, x->stream, "the command has ended");
	rule_fd(l, SYS_read, x->event, "wake-up by our own threads");
	rule_fd(l, SYS_write, x->event, "wake-up by our own threads");
	for (unsigned i = 0; i < 2; i++) {
		const struct exec_out *o = &x->out[i];

		rule_fd(l, SYS_write, o->fd, "what the command prints");
		rule_fd(l, SYS_read, o->wake, "writer thread: wake-up");
		rule_fd(l, SYS_write, o->wake, "wake the writer thread");
	}
	rule_fd(l, SYS_write, x->in_wake, "wake the reader thread");
	if (x->in_fd < 0)
		return;
	rule_fd(l, SYS_read, x->in_fd, "what the command reads");
	rule_fd(l, SYS_read, x->in_wake, "reader thread: wake-up");
}
