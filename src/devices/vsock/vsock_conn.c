/* SPDX-License-Identifier: BSD-2-Clause */
/* The host's side of the connections: clients and their line, streams, answers, time. See
 * vsock_conn.h. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "vsock_table.h"

#define WORD "CONNECT "
#define LINE_MIN (sizeof(WORD "1\n") - 1) /* no shorter line can be right */

/* ---- connections that the host begins ---- */

/* A port of ours that this port of the guest is not connected to: there are more of them than
 * connections. */
static uint32_t choose_port(struct vconns *t, uint32_t guest_port)
{
	uint32_t port;

	do {
		port = t->next_port;
		t->next_port = port == VCONN_LAST_PORT ? VCONN_FIRST_PORT : port + 1;
	} while (vtab_find(t, guest_port, port));
	return port;
}

static void call_guest(struct vconns *t, struct vconn *c, uint32_t port)
{
	c->state = VCONN_CALLING;
	vtab_name(t, c, port, choose_port(t, port));
	vtab_deadline(t, c, VCONN_ANSWER_NS);
	c->owes = OWES_REQUEST;
	vtab_wake(t, c);
}

/* "CONNECT <port>\n", decimal, nothing else. */
static bool parse_line(const char *line, size_t len, uint32_t *port)
{
	uint64_t n = 0;

	if (len < LINE_MIN || line[len - 1] != '\n' || memcmp(line, WORD, sizeof(WORD) - 1) != 0)
		return false;
	for (size_t i = sizeof(WORD) - 1; i < len - 1; i++) {
		if (line[i] < '0' || line[i] > '9')
			return false;
		n = n * 10 + (uint64_t)(line[i] - '0');
	}
	*port = (uint32_t)n;
	return n <= UINT32_MAX;
}

/* Take the line and not a byte more: what follows is for the guest. */
static void read_line(struct vconns *t, struct vconn *c)
{
	uint32_t port;

	while (c->nline < sizeof(c->line)) {
		size_t want = c->nline < LINE_MIN ? LINE_MIN - c->nline : 1;
		struct iovec iov = {c->line + c->nline, want};
		ssize_t n = t->ops->read(t->ctx, c, &iov, 1);

		if (n == -EAGAIN)
			return;
		if (n <= 0)
			break;
		c->nline = (uint8_t)(c->nline + n);
		if (c->line[c->nline - 1] == '\n')
			break;
	}
	if (parse_line(c->line, c->nline, &port))
		call_guest(t, c, port);
	else
		vtab_release(t, c);
}

static struct vconn *adopt(struct vconns *t, enum vconn_state state, int fd)
{
	struct vconn *c = vtab_new(t, state, fd);

	if (t->ops->open(t->ctx, c) == 0)
		return c;
	vtab_release(t, c);
	return NULL;
}

void vconn_client(struct vconns *t, int fd)
{
	struct vconn *c = adopt(t, VCONN_HELLO, fd);

	if (!c)
		return;
	c->greets = true;
	vtab_deadline(t, c, VCONN_HELLO_NS);
	read_line(t, c);
}

void vconn_stream(struct vconns *t, int fd, uint32_t port)
{
	struct vconn *c = adopt(t, VCONN_HELLO, fd);

	if (c)
		call_guest(t, c, port);
}

/* ---- connections that the guest begins ---- */

bool vconn_connected(struct vconns *t, uint32_t id, int error, int fd)
{
	struct vconn *c = vconn_find_id(t, id);

	if (t->asked > 0)
		t->asked--;
	vtab_ask(t);
	if (!c || c->state != VCONN_ASKING || c->listed == VCONN_ASK)
		return false; /* gone, answered before, or not asked for yet */
	if (error) {
		vtab_reset(t, c);
		return false;
	}
	c->fd = fd;
	if (t->ops->open(t->ctx, c)) {
		vtab_reset(t, c);
		return true;
	}
	vtab_deadline(t, c, 0);
	c->state = VCONN_OPEN;
	c->owes = OWES_RESPONSE;
	t->stat.connections++;
	vtab_wake(t, c);
	return true;
}

/* ---- the host's end has news ---- */

void vconn_readable(struct vconns *t, struct vconn *c)
{
	c->readable = true;
	if (c->state == VCONN_HELLO)
		read_line(t, c);
	else if (c->state == VCONN_OPEN)
		vtab_wake(t, c);
}

/* The ring is empty: what was put off can be done. */
static void drained(struct vconns *t, struct vconn *c)
{
	vtab_watch(t, c);
	if (c->state == VCONN_LINGER)
		vtab_release(t, c);
	else if (c->guest_shut & VIRTIO_VSOCK_SHUTDOWN_SEND)
		t->ops->shut(t->ctx, c, VCONN_SHUT_WRITE);
}

void vconn_writable(struct vconns *t, struct vconn *c)
{
	struct iovec iov[2];
	ssize_t n;

	if (c->fd < 0 || c->fwd == c->received)
		return;
	n = t->ops->write(t->ctx, c, iov, vtab_ring_get(t, c, iov));
	if (n == -EAGAIN)
		return;
	if (n < 0) {
		if (c->state == VCONN_LINGER)
			vtab_release(t, c);
		else
			vtab_host_shut(t, c, VIRTIO_VSOCK_SHUTDOWN_RCV);
		return;
	}
	c->fwd += (uint32_t)n;
	t->stat.to_host += (uint64_t)n;
	if (c->state == VCONN_LINGER)
		vtab_deadline(t, c, VCONN_LINGER_NS);
	else
		vtab_owe_credit(t, c);
	if (c->fwd == c->received)
		drained(t, c);
}

void vconn_hangup(struct vconns *t, struct vconn *c)
{
	switch ((enum vconn_state)c->state) {
	case VCONN_OPEN:
		vtab_host_shut(t, c, VIRTIO_VSOCK_SHUTDOWN_RCV);
		break;
	case VCONN_CALLING:
		/* It has given up. A guest that has not heard of it yet, never will. */
		if (c->owes & OWES_REQUEST)
			vtab_release(t, c);
		else
			vtab_reset(t, c);
		break;
	case VCONN_LINGER:
		vtab_release(t, c);
		break;
	default:
		break; /* HELLO: read_line() has seen its end; the others have no host's end */
	}
}

/* ---- time ---- */

static void expired(struct vconns *t, struct vconn *c)
{
	if (c->state == VCONN_ASKING || (c->state == VCONN_CALLING && !(c->owes & OWES_REQUEST)))
		vtab_reset(t, c);
	else
		vtab_release(t, c);
}

bool vconn_tick(struct vconns *t)
{
	for (unsigned i = 0; i < t->nfresh && t->timed; i++) {
		struct vconn *c = &t->conn[i];

		if (c->state != VCONN_FREE && c->deadline && c->deadline <= t->now)
			expired(t, c);
	}
	return t->timed != 0;
}
