/* SPDX-License-Identifier: BSD-2-Clause */
/* A command's streams on the host. See exec.h. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

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

static void sleep_until(int event)
{
	(void)events_wait(&event, 1, -1, -1);
}

static void write_some(struct exec_out *o)
{
	uint32_t at, n = ring_piece(&o->ring, &at);
	ssize_t r = exec_user_write(o->fd, o->ring.buf + at, n);

	if (r > 0) {
		ring_took(&o->ring, (uint32_t)r);
		o->unsaid += (uint32_t)r;
		if (o->unsaid < GP_WINDOW_OUT / 4 && ring_used(&o->ring))
			return;
		o->unsaid = 0; /* credit is due, or this may have been the last of it */
		event_signal(o->x->event);
	} else if (r < 0 && r != -EAGAIN) {
		atomic_store(&o->error, (int)-r);
		event_signal(o->x->event);
	}
}

static void *writer_main(void *arg)
{
	struct exec_out *o = arg;

	for (;;) {
		if (ring_used(&o->ring) && !atomic_load(&o->error))
			write_some(o);
		else
			sleep_until(o->wake);
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

	while (!(room = x->in.size - ring_used(&x->in)) && !x->escape)
		sleep_until(x->in_wake);
	return room && room < size ? room : size;
}

static void exec_take_input(struct exec *x, const uint8_t *buf, uint32_t n)
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
		ssize_t n = exec_user_read(x->in_fd, buf, want);

		if (n > 0)
			exec_take_input(x, buf, (uint32_t)n);
		else
			eof = n != -EAGAIN;
	}
	atomic_store(&x->in_eof, true);
	event_signal(x->event);
	for (;;)
		(void)events_wait(NULL, 0, -1,
				  -1); /* the end of a thread would make system calls of its own */
	return NULL;
}

/* ---- main thread: to the guest ---- */

/* One frame, if there is something, credit and room. */
static bool send_input(struct exec *x)
{
	uint32_t at, n = ring_piece(&x->in, &at);

	n = MIN(MIN(n, x->in_credit), gp_data_max(&x->tx));
	if (!n || x->in_ended)
		return false;
	memcpy(gp_data_at(&x->tx), x->in.buf + at, n);
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

/* Bytes into the stream: how many it took; 0: no more now. When it takes no more at all, the end
 * shows when it is read: what the guest has sent before that is still wanted. */
static size_t exec_put(struct exec *x, const uint8_t *p, size_t n)
{
	ssize_t r;

	if (x->stream < 0 || x->mute || !n)
		return 0;
	r = exec_stream_write(x, p, n);
	x->mute = r < 0 && r != -EAGAIN;
	return r < 0 ? 0 : (size_t)r;
}

static bool start_waits(const struct exec *x)
{
	return x->start_sent < x->start_len;
}

/* Of another stream the guest must say first where it goes on. And a time that waits for a guest
 * would be late. */
static bool held(const struct exec *x)
{
	return (x->again || x->tells_time) && !x->hello;
}

/* Nothing of the frame has been sent: what it says is the time at which it is. */
static void tell_time(struct exec *x)
{
	struct timespec t;
	uint64_t now;

	clock_gettime(CLOCK_REALTIME, &t);
	now = (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
	if (x->tells_time && x->start_sent == 0 && !held(x))
		memcpy(x->start + GP_HDR_LEN + offsetof(struct gp_resumed, clock_ns), &now,
		       sizeof(now));
}

static bool waits(const struct exec *x)
{
	return x->tx.own_n || (!held(x) && (start_waits(x) || gp_out_waits(&x->tx)));
}

/* The connection's own frames, GP_START from where it is (it is longer than the ring), the ring. */
static void flush(struct exec *x)
{
	const uint8_t *at;
	size_t n, done;

	tell_time(x);
	do {
		bool start = start_waits(x) && !held(x) && (x->start_sent || !x->tx.own_n);

		if (held(x) && !x->tx.own_n)
			return;
		if (start) {
			n = x->start_len - x->start_sent;
			done = exec_put(x, x->start + x->start_sent, n);
			x->start_sent += (uint32_t)done;
		} else {
			n = gp_out_piece(&x->tx, &at);
			done = exec_put(x, at, n);
			gp_out_sent(&x->tx, done);
		}
	} while (n && done == n);
}

static void to_guest(struct exec *x)
{
	for (unsigned i = 0; i < 2; i++) {
		give_credit(x, i);
		close_output(x, i);
	}
	if (x->hello)
		gp_acknowledge(&x->rx, &x->tx, GP_ACK_EVERY);
	flush(x);
	/* All that may go, which the window bounds: nobody wakes us for what is left. */
	while (send_input(x))
		flush(x);
	end_input(x);
	flush(x);
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

/* The guest has received so much of what we sent over earlier streams. */
static int exec_go_on(struct exec *x, uint64_t received)
{
	if (!x->again)
		return received ? -EPROTO : 0;
	if (received == 0)
		return gp_out_restart(&x->tx, x->start_len);
	x->start_sent = x->start_len;
	return gp_out_restart(&x->tx, received);
}

static int on_hello(struct exec *x)
{
	struct gp_hello m;
	char why[64];

	memcpy(&m, x->body, sizeof(m));
	if (m.magic != GP_MAGIC)
		return -EPROTO;
	x->hello = x->met = true;
	if (m.version != GP_VERSION) {
		snprintf(why, sizeof(why), "the guest speaks version %u of the protocol, not %u",
			 m.version, GP_VERSION);
		exec_lost(x, why);
		return 0;
	}
	if (m.flags & GP_HELLO_GONE) {
		exec_lost(x, "the guest has given the command up");
		return 0;
	}
	return m.id == x->id && !m.flags ? exec_go_on(x, m.received) : -EPROTO;
}

static int on_ack(struct exec *x)
{
	struct gp_ack m;

	memcpy(&m, x->body, sizeof(m));
	return gp_out_acked(&x->tx, m.received);
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
	{GP_EXIT, on_exit},         {GP_ACK, on_ack},
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

static void greet(struct exec *x)
{
	const struct gp_hello m = {
		.magic = GP_MAGIC, .version = GP_VERSION, .id = x->id, .received = x->rx.received};

	(void)gp_put_own(&x->tx, GP_HELLO, &m, sizeof(m)); /* the first frame: there is room */
}

static void stream_ended(struct exec *x)
{
	exec_stream_close(x);
	x->again = true;
	x->hello = x->mute = false;
	x->start_sent = 0;
	gp_in_restart(&x->rx);
	gp_out_drop(&x->tx);
	(void)msg_send(x->channel, MSG_EXEC_BROKEN, NULL, 0, NULL, 0);
}

static void exec_receive(struct exec *x)
{
	for (unsigned i = 0; i < MAX_READS && !x->done; i++) {
		uint8_t *at;
		size_t want = gp_in_want(&x->rx, &at);
		ssize_t n = exec_stream_read(x, at, want);
		int rc;

		if (n == -EAGAIN)
			return;
		if (n <= 0) {
			stream_ended(x);
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

/* Another stream, or the news that there will be none. */
static int on_stream(struct exec *x, const int *fds, unsigned nfds)
{
	int rc = x->stream >= 0 || !x->again || nfds > 1 ? -EPROTO : 0;

	if (!rc && nfds)
		rc = exec_stream_open(x, fds[0]);
	if (rc) {
		log_error("a stream that was not asked for, or in another place");
		return rc;
	}
	if (nfds)
		greet(x);
	else
		exec_lost(x, x->met ? "the stream ended" : "nobody answered");
	return 0;
}

/* The supervisor gives it up: the guest need not wait for another stream. */
static void hang_up(struct exec *x)
{
	if (!x->done && !gp_put_own(&x->tx, GP_HANGUP, NULL, 0))
		flush(x);
}

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
	} else if (len == 0 && type == MSG_EXEC_STREAM) {
		return on_stream(x, fds, nfds);
	} else if (nfds == 0 && len == 0 && type == MSG_STOP) {
		hang_up(x);
		return -ECANCELED;
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

/* The last frame was the last; the guest hears that it has arrived. */
static void close_stream(struct exec *x)
{
	gp_acknowledge(&x->rx, &x->tx, 1);
	flush(x);
	exec_stream_close(x);
}

int exec_loop(struct exec *x)
{
	int rc = 0;

	greet(x);
	while (!rc) {
		unsigned news = exec_wait(x, waits(x) && !x->mute);

		if (news & EXEC_ON_STREAM)
			exec_receive(x);
		if (news & EXEC_ON_CHANNEL)
			rc = on_message(x);
		if (!x->done)
			to_guest(x);
		else if (x->stream >= 0)
			close_stream(x);
		say_quit(x);
		report(x);
	}
	return rc == -ECANCELED ? 0 : rc;
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

int exec_open(struct exec *x, const struct msg_start_exec *m, int channel, int stream, int spec,
	      int out, int err_out, int in, struct err *e)
{
	const struct gp_hdr h = {.len = m->start_len,
				 .type = m->flags & EXEC_POWEROFF  ? GP_POWEROFF
					 : m->flags & EXEC_RESUMED ? GP_RESUMED
								   : GP_START};
	int rc = 0;

	x->channel = channel;
	x->stream = x->place = -1;
	x->id = m->id;
	x->in_fd = in;
	x->in.buf = x->in_buf;
	x->in.size = sizeof(x->in_buf);
	x->in_credit = GP_WINDOW_IN;
	x->escape = m->flags & EXEC_ESCAPE;
	x->tells_time = h.type == GP_RESUMED;
	gp_in_init(&x->rx, x->body, sizeof(x->body));
	if (gp_check(&h, GP_HOST))
		rc = -EMSGSIZE;
	memcpy(x->start, &h, sizeof(h));
	if (!rc)
		rc = exec_spec_read(spec, x->start + sizeof(h), m->start_len);
	fd_close(&spec);
	x->start_len = m->start_len + (uint32_t)sizeof(h);
	gp_out_init(&x->tx, x->start_len);
	if (rc)
		return err_sys(e, rc, "the command's description");
	x->event = event_create();
	x->in_wake = event_create();
	if (x->event < 0 || x->in_wake < 0 || open_out(x, 0, out) || open_out(x, 1, err_out))
		return err_set(e, -EMFILE, "eventfd");
	rc = exec_user_check(x, e);
	if (rc)
		return rc;
	rc = exec_stream_open(x, stream);
	return rc ? err_sys(e, rc, "stream") : 0;
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
