/* SPDX-License-Identifier: BSD-2-Clause */
/* insula-init's server: one stream of the host and the process behind it. See agent.h. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "agent.h"

#define MIN(a, b) ((a) < (b) ? (a) : (b))

enum { FD_SOCK, FD_EXEC, FD_IN, FD_OUT };

void task_close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static void close_streams(struct task *t)
{
	task_close_fd(&t->exec_fd);
	task_close_fd(&t->in);
	task_close_fd(&t->out[0]);
	task_close_fd(&t->out[1]);
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
	task_close_fd(&t->sock);
	free(t->body);
	free(t);
}

void task_lose(struct task *t)
{
	bool alive = t->pid && !t->reaped;

	if (t->state == TASK_LOST)
		return;
	task_close_fd(&t->sock);
	close_streams(t);
	if (alive) {
		kill(-t->pid, SIGHUP);
		kill(-t->pid, SIGCONT);
	}
	t->state = TASK_LOST;
	t->resume_by = 0;
	t->deadline = agent_now() + (alive ? AGENT_KILL_MS : 0);
}

void task_hang_up(const struct agent *a, struct task *t)
{
	if (t->state == TASK_HELLO) {
		task_lose(t);
		return;
	}
	task_close_fd(&t->sock);
	gp_out_drop(&t->tx);
	if (t->state == TASK_CLOSING && t->tx.acked == t->tx.head)
		t->deadline = agent_now(); /* the host has all it wants */
	else
		t->resume_by = agent_now() + a->resume_ms;
}

void task_flush(struct task *t)
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
	task_close_fd(&t->in);
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

void task_end_input(struct task *t)
{
	uint8_t last = t->in_tail ? t->in_buf[(t->in_tail - 1) % GP_WINDOW_IN] : '\n';

	if (!t->tty) {
		task_close_fd(&t->in);
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
		task_end_input(t);
	put_eofs(t);
	give_credit(t);
}

int task_input(struct task *t, const uint8_t *data, uint32_t len)
{
	uint32_t at = t->in_head % GP_WINDOW_IN, first = MIN(len, GP_WINDOW_IN - at);

	if (t->in < 0)
		return 0; /* it was under way when the input was closed */
	if (t->in_end || len > GP_WINDOW_IN - (t->in_head - t->in_tail) - t->in_owed)
		return -EPROTO;
	memcpy(t->in_buf + at, data, first);
	memcpy(t->in_buf, data + first, len - first);
	t->in_head += len;
	pump_input(t);
	return 0;
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
		task_flush(t);
	} else if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
		t->left[i] = 0;
	} else {
		task_close_fd(&t->out[i]);
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

uint64_t task_oom_kills(void)
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

void task_refused(struct agent *a, struct task *t, int status, const char *text)
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
	task_close_fd(&t->exec_fd);
	if (n == (ssize_t)sizeof f) {
		f.text[sizeof f.text - 1] = '\0';
		task_refused(a, t, f.status, f.text);
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
	    task_oom_kills() > t->oom_kills)
		t->exit.flags = GP_EXIT_OOM;
	if (t->state == TASK_RUNNING)
		task_ended(a, t);
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
		task_flush(t);
	if (p[FD_SOCK].revents & ~POLLOUT)
		task_receive(a, t);
	if (p[FD_OUT].revents || p[FD_OUT + 1].revents)
		pump_outputs(t);
	pay(t);
	task_flush(t);
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
	task_flush(t);
}

bool task_settle(struct agent *a, struct task *t, uint64_t now)
{
	bool mute = t->state == TASK_HELLO || t->state == TASK_REQUEST;

	if (t->state == TASK_STARTING || t->state == TASK_RUNNING)
		give_credit(t); /* what did not fit into the buffer earlier */
	if ((t->resume_by && now >= t->resume_by) || (mute && t->deadline && now >= t->deadline))
		task_lose(t);
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
