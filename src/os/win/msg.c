/* SPDX-License-Identifier: BSD-2-Clause */
/* The channel on Windows: messages over a named pipe. See insula/proto.h and win.h. */
#include "os/win/win.h"

#include <errno.h>
#include <string.h>

#include <insula/base.h>

/* A peer that does not read in this time is of no use any more. */
#define SEND_DEADLINE_MS 5000

/* ---- receive ---- */

int channel_init(struct channel *c, HANDLE pipe)
{
	memset(c, 0, sizeof(*c));
	c->pipe = pipe;
	c->event = CreateEventW(NULL, TRUE, FALSE, NULL);
	return c->event ? 0 : win_errno(GetLastError());
}

void channel_free(struct channel *c)
{
	DWORD n;

	if (c->reading && CancelIoEx(c->pipe, &c->ov))
		GetOverlappedResult(c->pipe, &c->ov, &n, TRUE);
	if (c->event)
		CloseHandle(c->event);
	c->event = NULL;
	c->reading = false;
}

HANDLE channel_event(struct channel *c)
{
	if (c->reading)
		return c->event;
	c->ov = (OVERLAPPED){.hEvent = c->event};
	c->reading = true;
	/* A read that ends at once sets the event too. One that fails at once does not: the end of
	 * the channel is something to receive as well. */
	if (!ReadFile(c->pipe, c->buf, sizeof(c->buf), NULL, &c->ov) &&
	    GetLastError() != ERROR_IO_PENDING && GetLastError() != ERROR_MORE_DATA) {
		c->reading = false;
		SetEvent(c->event);
	}
	return c->event;
}

/* The bytes of the message, or a negative errno. */
static int msg_finish_read(struct channel *c)
{
	DWORD n = 0, error;

	if (channel_event(c) && !c->reading)
		return -EPIPE;
	c->reading = false;
	if (GetOverlappedResult(c->pipe, &c->ov, &n, TRUE))
		return (int)n;
	error = GetLastError();
	return error == ERROR_MORE_DATA ? -EPROTO : win_errno(error) == -EIO ? -EIO : -EPIPE;
}

static int msg_receive(struct channel *c, enum msg_type *type, void *body, size_t size, size_t *len,
		       int *fds, unsigned *nfds)
{
	struct msg_hdr h;
	int n = msg_finish_read(c);

	if (n < 0)
		return n;
	if ((size_t)n < sizeof(h))
		return -EPROTO;
	memcpy(&h, c->buf, sizeof(h));
	if (h.version != MSG_VERSION || h.len > MSG_MAX_BODY || h.len > size ||
	    h.nfds > MSG_MAX_FDS || (size_t)n != sizeof(h) + h.len + h.nfds * sizeof(int32_t))
		return -EPROTO;
	if (h.nfds && !fds)
		return -EPROTO;
	memcpy(body, c->buf + sizeof(h), h.len);
	if (h.nfds)
		memcpy(fds, c->buf + sizeof(h) + h.len, h.nfds * sizeof(int32_t));
	*type = (enum msg_type)h.type;
	*len = h.len;
	*nfds = h.nfds;
	return 0;
}

int channel_recv(struct channel *c, enum msg_type *type, void *body, size_t size, size_t *len)
{
	unsigned nfds;

	return msg_receive(c, type, body, size, len, NULL, &nfds);
}

struct channel *channel_own(void)
{
	/* The control thread's: no other one receives. */
	static struct channel own;

	if (!own.event && channel_init(&own, GetStdHandle(STD_INPUT_HANDLE)))
		panic("the channel: error %lu", GetLastError());
	return &own;
}

int msg_recv(int sock, enum msg_type *type, void *body, size_t size, size_t *len, int *fds,
	     unsigned *nfds)
{
	if (sock != MSG_CHANNEL_FD)
		return -EBADF;
	return msg_receive(channel_own(), type, body, size, len, fds, nfds);
}

/* ---- send ---- */

static int send_all(HANDLE pipe, const void *buf, DWORD len)
{
	OVERLAPPED ov = {.hEvent = CreateEventW(NULL, TRUE, FALSE, NULL)};
	DWORD n = 0;
	int rc = 0;

	if (!ov.hEvent)
		return win_errno(GetLastError());
	if (!WriteFile(pipe, buf, len, NULL, &ov) && GetLastError() != ERROR_IO_PENDING)
		rc = -EPIPE;
	if (!rc && WaitForSingleObject(ov.hEvent, SEND_DEADLINE_MS) != WAIT_OBJECT_0) {
		CancelIoEx(pipe, &ov);
		rc = -ETIMEDOUT;
	}
	if (rc != -EPIPE && !GetOverlappedResult(pipe, &ov, &n, TRUE) && !rc)
		rc = -EPIPE;
	CloseHandle(ov.hEvent);
	return rc;
}

int msg_send(int sock, enum msg_type type, const void *body, size_t len, const int *fds,
	     unsigned nfds)
{
	struct msg_hdr h = {MSG_VERSION, (uint32_t)type, (uint32_t)len, nfds};
	uint8_t buf[CHANNEL_MAX], *p = buf;

	if (len > MSG_MAX_BODY || nfds > MSG_MAX_FDS)
		return -EMSGSIZE;
	memcpy(p, &h, sizeof(h));
	p += sizeof(h);
	if (len)
		memcpy(p, body, len);
	p += len;
	if (nfds)
		memcpy(p, fds, nfds * sizeof(*fds));
	p += nfds * sizeof(*fds);
	return send_all(sock == MSG_CHANNEL_FD ? GetStdHandle(STD_INPUT_HANDLE) : fd_handle(sock),
			buf, (DWORD)(p - buf));
}
