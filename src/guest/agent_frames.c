/* SPDX-License-Identifier: BSD-2-Clause */
/* insula-init's server: what the host says on a stream, frame by frame. See agent.h. */
#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "agent.h"

#define MAX_READS 16 /* of one stream per wake-up */

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
	task_close_fd(&old->sock); /* its end may not have been seen yet */
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
		task_lose(old);
		return;
	}
	greet(old, 0);
	task_flush(old);
}

/* Refused, but told why: what it sent is read no more. */
static int turn_away(struct task *t, uint32_t id, uint32_t flags)
{
	t->id = id;
	greet(t, flags);
	task_flush(t);
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

/* Its process has been started, or cannot be: `rc`, a negative errno. */
static void begun(struct agent *a, struct task *t, const char *what, int rc)
{
	char text[GP_TEXT_LEN];

	t->state = TASK_STARTING;
	t->deadline = 0;
	a->childless = false;
	if (rc) {
		snprintf(text, sizeof text, "%s: %s", what, strerror(-rc));
		task_refused(a, t, STATUS_INTERNAL, text);
	}
	shrink_body(t);
}

static int on_start(struct agent *a, struct task *t)
{
	struct gp_start s;
	int rc = gp_start_check(t->body, t->rx.hdr.len, &s);

	if (rc)
		return rc;
	t->only = s.flags & GP_START_ONLY;
	t->in_end = !(s.flags & GP_START_STDIN);
	t->oom_kills = task_oom_kills();
	begun(a, t, "the command cannot be started", spawn_command(t, &s, t->body));
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
	char why[GP_TEXT_LEN] = "";
	struct gp_resumed m;
	int rc = gp_resumed_check(t->body, t->rx.hdr.len, &m);

	if (rc)
		return rc;
	a->ops->resumed(&m, why);
	/* Whoever sees this memory later must not know the numbers. */
	explicit_bzero(&m.seed, sizeof m.seed);
	explicit_bzero(t->body + offsetof(struct gp_resumed, seed), sizeof m.seed);
	t->in_end = true;
	begun(a, t, "no process", spawn_renew(t, a->ops->renew, t->body, why));
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
	(void)a;
	return task_input(t, t->body, t->rx.hdr.len);
}

static int on_stdin_end(struct agent *a, struct task *t)
{
	(void)a;
	if (t->in < 0 || t->in_end)
		return 0;
	t->in_end = true;
	if (t->in_head == t->in_tail)
		task_end_input(t);
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
	task_close_fd(&t->out[i]);
	t->left[i] = 0;
	if (t->tty)
		task_close_fd(&t->in);
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

void task_receive(struct agent *a, struct task *t)
{
	for (unsigned i = 0; i < MAX_READS && t->sock >= 0; i++) {
		uint8_t *at;
		size_t want = gp_in_want(&t->rx, &at);
		ssize_t n = read(t->sock, at, want);
		int rc;

		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n <= 0) {
			task_hang_up(a, t);
			return;
		}
		rc = gp_in_got(&t->rx, (size_t)n, GP_HOST);
		if (rc > 0)
			rc = on_frame(a, t);
		if (rc < 0)
			task_lose(t);
	}
}
