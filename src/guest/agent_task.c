/* SPDX-License-Identifier: BSD-2-Clause */
/* insula-init's server: one stream of the host and the process behind it. See agent.h. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "agent.h"

#define MAX_READS 16 /* of one stream per wake-up */
#define MIN(a, b) ((a) < (b) ? (a) : (b))

enum { FD_SOCK, FD_EXEC, FD_IN, FD_OUT };

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static void close_streams(struct task *t)
{
	close_fd(&t->exec_fd);
	close_fd(&t->in);
	close_fd(&t->out[0]);
	close_fd(&t->out[1]);
}

/* How many processes this guest has lost to a lack of memory. */
static uint64_t oom_kills(void)
{
	char line[128];
	unsigned long long n = 0;
	FILE *f = fopen("/proc/vmstat", "re");

	if (!f)
		return 0;
	while (fgets(line, sizeof line, f))
		if (sscanf(line, "oom_kill %llu", &n) == 1)
			break;
	fclose(f);
	return n;
}

struct task *task_new(int sock, uint64_t deadline)
{
	struct task *t = calloc(1, sizeof *t);
	uint8_t *body = malloc(GP_START_MAX);

	if (!t || !body) {
		free(body);
		free(t);
		return NULL;
	}
	t->sock = sock;
	t->deadline = deadline;
	t->exec_fd = t->in = t->out[0] = t->out[1] = -1;
	t->credit[0] = t->credit[1] = GP_WINDOW_OUT;
	t->body = body;
	gp_out_init(&t->tx, 0);
	gp_in_init(&t->rx, body, GP_START_MAX);
	return t;
}

static void task_free(struct task *t)
{
	close_streams(t);
	close_fd(&t->sock);
	free(t->body);
	free(t);
}

/* The host has given it up, or broke the protocol: what it started ends as if a terminal had hung
 * up, and soon by force. */
static void lose(struct task *t)
{
	bool alive = t->pid && !t->reaped;

	if (t->state == TASK_LOST)
		return;
	close_fd(&t->sock);
	close_streams(t);
	if (alive) {
		kill(-t->pid, SIGHUP);
		kill(-t->pid, SIGCONT);
	}
	t->state = TASK_LOST;
	t->resume_by = 0;
	t->deadline = agent_now() + (alive ? AGENT_KILL_MS : 0);
}

/* The stream has ended. If the process that carries it has died on the host, another stream comes.
 * Until then the command runs on, as far as it can without a reader. */
static void hang_up(const struct agent *a, struct task *t)
{
	if (t->state == TASK_HELLO) {
		lose(t);
		return;
	}
	close_fd(&t->sock);
	gp_out_drop(&t->tx);
	if (t->state == TASK_CLOSING && t->tx.acked == t->tx.head)
		t->deadline = agent_now(); /* the host has all it wants */
	else
		t->resume_by = agent_now() + a->resume_ms;
}

/* A stream that takes no more has ended: that is seen when it is read. */
static void flush_stream(struct task *t)
{
	const uint8_t *at;
	size_t n;

	while (t->sock >= 0 && (n = gp_out_piece(&t->tx, &at)) > 0) {
		ssize_t done = send(t->sock, at, n, MSG_NOSIGNAL);

		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0)
			return;
		gp_out_sent(&t->tx, (size_t)done);
	}
}

/* What waited for room, and what the peer is told of now and then. */
static void pay(struct task *t)
{
	const struct gp_close m = {.stream = GP_STREAM_IN};

	if (t->owe_close && !gp_put(&t->tx, GP_CLOSE, &m, sizeof m))
		t->owe_close = false;
	if (t->owe_pong && !gp_put(&t->tx, GP_PONG, NULL, 0))
		t->owe_pong = false;
	if (t->owe_signaled && !gp_put(&t->tx, GP_SIGNALED, NULL, 0))
		t->owe_signaled = false;
	if (t->sock >= 0)
		gp_acknowledge(&t->rx, &t->tx, GP_ACK_EVERY);
}

/* ---- the command's input ---- */

static void close_input(struct task *t)
{
	close_fd(&t->in);
	t->in_tail = t->in_head;
	t->owe_close |= !t->in_end;
	t->in_end = true;
}

static void put_eofs(struct task *t)
{
	static const char ctrl_d = 4;

	while (t->in >= 0 && t->eofs) {
		ssize_t r = write(t->in, &ctrl_d, 1);

		if (r == 1)
			t->eofs--;
		else if (errno == EAGAIN)
			break;
		else if (errno != EINTR)
			close_input(t);
	}
}

/* A terminal has no end of file: the character that its line discipline takes for the end is typed
 * instead. An unfinished line needs two: the first ends the line. */
static void end_input(struct task *t)
{
	uint8_t last = t->in_tail ? t->in_buf[(t->in_tail - 1) % GP_WINDOW_IN] : '\n';

	if (!t->tty) {
		close_fd(&t->in);
		return;
	}
	t->eofs = last == '\n' ? 1 : 2;
	put_eofs(t);
}

/* A quarter of the window at once: the host always has the rest. */
static void give_credit(struct task *t)
{
	const struct gp_credit m = {.stream = GP_STREAM_IN, .bytes = t->in_owed};

	if (!t->in_end && t->in_owed >= GP_WINDOW_IN / 4 &&
	    !gp_put(&t->tx, GP_CREDIT, &m, sizeof m))
		t->in_owed = 0;
}

static void pump_input(struct task *t)
{
	bool had = t->in_head != t->in_tail;

	while (t->in >= 0 && t->in_head != t->in_tail) {
		uint32_t at = t->in_tail % GP_WINDOW_IN;
		uint32_t n = MIN(t->in_head - t->in_tail, GP_WINDOW_IN - at);
		ssize_t r = write(t->in, t->in_buf + at, n);

		if (r < 0 && errno == EAGAIN)
			break;
		if (r < 0 && errno != EINTR)
			close_input(t);
		if (r > 0) {
			t->in_tail += (uint32_t)r;
			t->in_owed += (uint32_t)r;
		}
	}
	if (had && t->in >= 0 && t->in_end && t->in_head == t->in_tail)
		end_input(t);
	put_eofs(t);
	give_credit(t);
}

/* ---- its output ---- */

static void pump_output(struct task *t, unsigned i)
{
	static const enum gp_type type[] = {GP_STDOUT, GP_STDERR};
	uint32_t max = MIN(gp_data_max(&t->tx), t->credit[i]);
	ssize_t n;

	if (t->out[i] < 0 || !max)
		return;
	n = read(t->out[i], gp_data_at(&t->tx), max);
	if (n > 0) {
		gp_put_data(&t->tx, type[i], (uint32_t)n);
		t->credit[i] -= (uint32_t)n;
		t->left[i] -= MIN(t->left[i], (uint32_t)n);
		flush_stream(t);
	} else if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
		t->left[i] = 0;
	} else {
		close_fd(&t->out[i]);
		t->left[i] = 0;
	}
}

static void pump_outputs(struct task *t)
{
	unsigned first = t->turn;

	t->turn = !t->turn; /* neither of the two may always be the first */
	pump_output(t, first);
	pump_output(t, !first);
}

/* ---- start and end of the process ---- */

static void task_ended(struct agent *a, struct task *t)
{
	for (unsigned i = 0; i < 2; i++) {
		int n = 0;

		if (t->out[i] >= 0 && ioctl(t->out[i], FIONREAD, &n) == 0 && n > 0)
			t->left[i] = (uint32_t)n;
	}
	t->state = TASK_ENDED;
	if (t->only) {
		a->ops->kill_all();
		a->childless = false; /* until the next look */
		kill(getpid(), SIGCHLD);
	}
}

static void refused(struct agent *a, struct task *t, int status, const char *text)
{
	t->exit = (struct gp_exit){.kind = GP_EXIT_REFUSED, .value = (uint32_t)status};
	snprintf(t->exit.text, sizeof t->exit.text, "%s", text);
	close_streams(t);
	task_ended(a, t);
}

static void started(struct agent *a, struct task *t)
{
	const struct gp_started m = {.pid = (uint32_t)t->pid};
	struct spawn_failure f;
	ssize_t n = read(t->exec_fd, &f, sizeof f);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	close_fd(&t->exec_fd);
	if (n == (ssize_t)sizeof f) {
		f.text[sizeof f.text - 1] = '\0';
		refused(a, t, f.status, f.text);
		return;
	}
	(void)gp_put(&t->tx, GP_STARTED, &m, sizeof m);
	t->state = TASK_RUNNING;
	if (t->reaped)
		task_ended(a, t);
}

void task_reaped(struct agent *a, struct task *t, int status)
{
	bool signaled = WIFSIGNALED(status);
	uint32_t value = (uint32_t)(signaled ? WTERMSIG(status) : WEXITSTATUS(status));

	t->reaped = true;
	if (t->state != TASK_STARTING && t->state != TASK_RUNNING)
		return;
	t->exit =
		(struct gp_exit){.kind = signaled ? GP_EXIT_SIGNAL : GP_EXIT_CODE, .value = value};
	/* A shell whose command was killed says 128 + 9. */
	if ((signaled ? value == SIGKILL : value == STATUS_SIGNAL + SIGKILL) &&
	    oom_kills() > t->oom_kills)
		t->exit.flags = GP_EXIT_OOM;
	if (t->state == TASK_RUNNING)
		task_ended(a, t);
}

/* ---- frames ---- */

static void greet(struct task *t, uint32_t flags)
{
	const struct gp_hello m = {.magic = GP_MAGIC,
				   .version = GP_VERSION,
				   .id = t->id,
				   .flags = flags,
				   .received = t->rx.received};

	(void)gp_put_own(&t->tx, GP_HELLO, &m, sizeof m); /* the first frame: there is room */
}

static struct task *find_task(const struct agent *a, uint32_t id)
{
	for (unsigned i = 0; i < AGENT_TASKS; i++)
		if (a->task[i] && a->task[i]->id == id && a->task[i]->state != TASK_LOST)
			return a->task[i];
	return NULL;
}

/* `t` was accepted for a command that exists already: that command takes over the stream of `t`. */
static void agent_task_go_on(const struct agent *a, struct task *t, struct task *old,
			     uint64_t received)
{
	close_fd(&old->sock); /* its end may not have been seen yet */
	gp_out_drop(&old->tx);
	gp_in_restart(&old->rx);
	old->sock = t->sock;
	t->sock = -1;
	old->resume_by = 0;
	if (old->state == TASK_REQUEST)
		old->deadline = agent_now() + a->resume_ms;
	if (old->state == TASK_CLOSING)
		old->deadline = agent_now() + AGENT_LINGER_MS;
	if (gp_out_restart(&old->tx, received)) {
		lose(old);
		return;
	}
	greet(old, 0);
	flush_stream(old);
}

/* Refused, but told why: what it sent is read no more. */
static int turn_away(struct task *t, uint32_t id, uint32_t flags)
{
	t->id = id;
	greet(t, flags);
	flush_stream(t);
	return -EPROTO;
}

static int task_on_hello(struct agent *a, struct task *t)
{
	struct gp_hello m;
	struct task *old;

	memcpy(&m, t->body, sizeof m);
	/* Also to a host of another version, so that it can say what is wrong. */
	if (m.magic != GP_MAGIC || m.version != GP_VERSION || !m.id || m.flags)
		return turn_away(t, 0, 0);
	old = find_task(a, m.id);
	if (!old && m.received)
		return turn_away(t, m.id, GP_HELLO_GONE);
	if (old) {
		agent_task_go_on(a, t, old, m.received);
		return -EPIPE;
	}
	t->id = m.id;
	greet(t, 0);
	t->state = TASK_REQUEST;
	return 0;
}

/* The frames that follow are small ones: the big buffer has done its work. */
static void shrink_body(struct task *t)
{
	uint8_t *small = malloc(GP_DATA_MAX);

	if (small) {
		free(t->body);
		t->body = t->rx.body = small;
		t->rx.room = GP_DATA_MAX;
	}
}

static int on_start(struct agent *a, struct task *t)
{
	struct gp_start s;
	char text[GP_TEXT_LEN];
	int rc = gp_start_check(t->body, t->rx.hdr.len, &s);

	if (rc)
		return rc;
	t->only = s.flags & GP_START_ONLY;
	t->in_end = !(s.flags & GP_START_STDIN);
	t->oom_kills = oom_kills();
	t->state = TASK_STARTING;
	t->deadline = 0;
	a->childless = false;
	rc = spawn_command(t, &s, t->body);
	if (rc) {
		snprintf(text, sizeof text, "the command cannot be started: %s", strerror(-rc));
		refused(a, t, STATUS_INTERNAL, text);
	}
	shrink_body(t);
	return 0;
}

static int on_poweroff(struct agent *a, struct task *t)
{
	struct gp_poweroff m = {0};

	memcpy(&m, t->body, t->rx.hdr.len);
	if ((m.how != GP_END_POWEROFF && m.how != GP_END_STATUS) || m.status > 255)
		return -EPROTO;
	t->deadline = 0;
	agent_end(a, &m);
	return 0;
}

static int on_resumed(struct agent *a, struct task *t)
{
	char why[GP_TEXT_LEN] = "", text[GP_TEXT_LEN];
	struct gp_resumed m;
	int rc = gp_resumed_check(t->body, t->rx.hdr.len, &m);

	if (rc)
		return rc;
	a->ops->resumed(&m, why);
	/* Whoever sees this memory later must not know the numbers. */
	explicit_bzero(&m.seed, sizeof m.seed);
	explicit_bzero(t->body + offsetof(struct gp_resumed, seed), sizeof m.seed);
	t->in_end = true;
	t->state = TASK_STARTING;
	t->deadline = 0;
	a->childless = false;
	rc = spawn_renew(t, a->ops->renew, t->body, why);
	if (rc) {
		snprintf(text, sizeof text, "no process: %s", strerror(-rc));
		refused(a, t, STATUS_INTERNAL, text);
	}
	shrink_body(t);
	return 0;
}

static int on_ping(struct agent *a, struct task *t)
{
	(void)a;
	t->owe_pong = true;
	return 0;
}

static int on_stdin(struct agent *a, struct task *t)
{
	uint32_t len = t->rx.hdr.len, at = t->in_head % GP_WINDOW_IN;
	uint32_t first = MIN(len, GP_WINDOW_IN - at);

	(void)a;
	if (t->in < 0)
		return 0; /* it was under way when the input was closed */
	if (t->in_end || len > GP_WINDOW_IN - (t->in_head - t->in_tail) - t->in_owed)
		return -EPROTO;
	memcpy(t->in_buf + at, t->body, first);
	memcpy(t->in_buf, t->body + first, len - first);
	t->in_head += len;
	pump_input(t);
	return 0;
}

static int on_stdin_end(struct agent *a, struct task *t)
{
	(void)a;
	if (t->in < 0 || t->in_end)
		return 0;
	t->in_end = true;
	if (t->in_head == t->in_tail)
		end_input(t);
	return 0;
}

static int task_on_signal(struct agent *a, struct task *t)
{
	struct gp_signal m;

	(void)a;
	memcpy(&m, t->body, sizeof m);
	if (m.signo < 1 || m.signo > 64)
		return -EPROTO;
	if (t->pid && !t->reaped) {
		/* Before exec it may not lead its group yet. */
		if (kill(-t->pid, (int)m.signo) < 0)
			kill(t->pid, (int)m.signo);
	}
	t->owe_signaled = true;
	return 0;
}

static int on_resize(struct agent *a, struct task *t)
{
	struct gp_size m;
	struct winsize w = {0};

	(void)a;
	memcpy(&m, t->body, sizeof m);
	w.ws_row = m.rows;
	w.ws_col = m.cols;
	if (t->tty && t->out[0] >= 0)
		ioctl(t->out[0], TIOCSWINSZ, &w);
	return 0;
}

static int on_credit(struct agent *a, struct task *t)
{
	struct gp_credit m;
	unsigned i;

	(void)a;
	memcpy(&m, t->body, sizeof m);
	i = m.stream - GP_STREAM_OUT;
	if (i > 1 || !m.bytes || m.bytes > GP_WINDOW_OUT - t->credit[i])
		return -EPROTO;
	t->credit[i] += m.bytes;
	return 0;
}

/* The host's reader is gone: so is the command's, and it gets SIGPIPE; a terminal hangs up. */
static int on_close(struct agent *a, struct task *t)
{
	struct gp_close m;
	unsigned i;

	(void)a;
	memcpy(&m, t->body, sizeof m);
	i = m.stream - GP_STREAM_OUT;
	if (i > 1)
		return -EPROTO;
	close_fd(&t->out[i]);
	t->left[i] = 0;
	if (t->tty)
		close_fd(&t->in);
	return 0;
}

static int on_ack(struct agent *a, struct task *t)
{
	struct gp_ack m;

	(void)a;
	memcpy(&m, t->body, sizeof m);
	return gp_out_acked(&t->tx, m.received);
}

static int on_hangup(struct agent *a, struct task *t)
{
	(void)a;
	(void)t;
	return -EPIPE;
}

#define IN(state) (1u << (state))
#define WITH_PROCESS (IN(TASK_STARTING) | IN(TASK_RUNNING) | IN(TASK_ENDED))

static const struct handler {
	enum gp_type type;
	unsigned states;
	int (*run)(struct agent *a, struct task *t);
} handlers[] = {
	{GP_HELLO, IN(TASK_HELLO), task_on_hello},
	{GP_START, IN(TASK_REQUEST), on_start},
	{GP_POWEROFF, IN(TASK_REQUEST), on_poweroff},
	{GP_RESUMED, IN(TASK_REQUEST), on_resumed},
	{GP_PING, IN(TASK_REQUEST) | WITH_PROCESS, on_ping},
	{GP_STDIN, WITH_PROCESS, on_stdin},
	{GP_STDIN_END, WITH_PROCESS, on_stdin_end},
	{GP_SIGNAL, WITH_PROCESS, task_on_signal},
	{GP_RESIZE, WITH_PROCESS, on_resize},
	{GP_CREDIT, WITH_PROCESS, on_credit},
	{GP_CLOSE, WITH_PROCESS, on_close},
	{GP_ACK, IN(TASK_REQUEST) | WITH_PROCESS | IN(TASK_CLOSING), on_ack},
	{GP_HANGUP, IN(TASK_REQUEST) | WITH_PROCESS | IN(TASK_CLOSING), on_hangup},
};

static int on_frame(struct agent *a, struct task *t)
{
	for (unsigned i = 0; i < sizeof handlers / sizeof handlers[0]; i++) {
		const struct handler *h = &handlers[i];

		if (h->type != t->rx.hdr.type)
			continue;
		if (h->states & IN(t->state))
			return h->run(a, t);
		/* It was under way when the last frame went out. */
		return t->state == TASK_CLOSING && (h->states & WITH_PROCESS) ? 0 : -EPROTO;
	}
	return -EPROTO;
}

static void receive_frames(struct agent *a, struct task *t)
{
	for (unsigned i = 0; i < MAX_READS && t->sock >= 0; i++) {
		uint8_t *at;
		size_t want = gp_in_want(&t->rx, &at);
		ssize_t n = read(t->sock, at, want);
		int rc;

		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n <= 0) {
			hang_up(a, t);
			return;
		}
		rc = gp_in_got(&t->rx, (size_t)n, GP_HOST);
		if (rc > 0)
			rc = on_frame(a, t);
		if (rc < 0)
			lose(t);
	}
}

/* ---- for the loop ---- */

void task_poll(const struct task *t, struct pollfd p[TASK_FDS])
{
	bool waiting = t->in_head != t->in_tail || t->eofs;

	for (unsigned i = 0; i < TASK_FDS; i++)
		p[i] = (struct pollfd){.fd = -1, .events = POLLIN};
	p[FD_SOCK].fd = t->sock;
	p[FD_SOCK].events = (short)(POLLIN | (gp_out_waits(&t->tx) ? POLLOUT : 0));
	p[FD_EXEC].fd = t->exec_fd;
	/* Without something to write: only to hear that the reader is gone. A terminal's reader
	 * comes and goes. */
	if (!t->tty || waiting)
		p[FD_IN].fd = t->in;
	p[FD_IN].events = waiting ? POLLOUT : 0;
	for (unsigned i = 0; i < 2; i++)
		if (t->credit[i] && gp_data_max(&t->tx))
			p[FD_OUT + i].fd = t->out[i];
}

void task_serve(struct agent *a, struct task *t, const struct pollfd p[TASK_FDS])
{
	if (p[FD_EXEC].revents)
		started(a, t);
	if (p[FD_IN].revents & POLLOUT)
		pump_input(t);
	else if (p[FD_IN].revents && t->in >= 0)
		close_input(t);
	if (p[FD_SOCK].revents & POLLOUT)
		flush_stream(t);
	if (p[FD_SOCK].revents & ~POLLOUT)
		receive_frames(a, t);
	if (p[FD_OUT].revents || p[FD_OUT + 1].revents)
		pump_outputs(t);
	pay(t);
	flush_stream(t);
}

static bool drained(const struct agent *a, struct task *t, uint64_t now)
{
	bool closed = t->out[0] < 0 && t->out[1] < 0;

	if (closed && (!t->only || a->childless))
		return true;
	if (!closed && (t->left[0] || t->left[1]))
		return false; /* the host takes it when it can: no deadline of ours */
	if (!t->deadline)
		t->deadline = now + (t->only ? AGENT_KILL_MS : AGENT_GRACE_MS);
	return now >= t->deadline;
}

static void say_exit(struct agent *a, struct task *t, uint64_t now)
{
	if (!gp_out_ready(&t->tx))
		return;
	close_streams(t);
	if (t->only)
		a->ops->finish();
	t->owe_close = t->owe_pong = t->owe_signaled = false; /* nothing comes after it */
	(void)gp_put(&t->tx, GP_EXIT, &t->exit, sizeof t->exit);
	t->state = TASK_CLOSING;
	t->deadline = now + AGENT_LINGER_MS;
	flush_stream(t);
}

bool task_settle(struct agent *a, struct task *t, uint64_t now)
{
	bool mute = t->state == TASK_HELLO || t->state == TASK_REQUEST;

	if (t->state == TASK_STARTING || t->state == TASK_RUNNING)
		give_credit(t); /* what did not fit into the buffer earlier */
	if ((t->resume_by && now >= t->resume_by) || (mute && t->deadline && now >= t->deadline))
		lose(t);
	if (t->state == TASK_ENDED && drained(a, t, now))
		say_exit(a, t, now);
	if (t->state == TASK_LOST && (t->reaped || !t->pid || now >= t->deadline)) {
		if (t->pid)
			kill(-t->pid, SIGKILL);
		task_free(t);
		return false;
	}
	if (t->state == TASK_CLOSING && now >= t->deadline) {
		task_free(t);
		return false;
	}
	return true;
}
