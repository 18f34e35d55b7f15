/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a back end holds besides the rings (of a file system: which files the guest knows, and has
 * open): taken from it for a snapshot, and given to its successor (DEVICE_STATE). See vhost.h.
 *
 * It is bytes that nobody of ours looks into. They go through a pipe, whose other end the back end
 * gets, and end with it; there is a limit to how many they may be, and to how long they may take.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

#include <insula/base.h>

#include "vhost.h"
#include "vhost_ring.h"

#define PIECE 4096u /* PIPE_BUF: what a pipe that is ready takes at once */
#define REST_MS 1

void vhost_place(const struct vhost *v, int fd, int number)
{
	if (dup3(fd < 0 ? v->err_fd : fd, number, O_CLOEXEC) < 0)
		panic("dup3: %d", errno);
	if (fd >= 0)
		close(fd);
}

/* The pipe of a transfer: our end, or the one that the back end wants to be used instead.
 * -EREMOTEIO: it refuses, and the connection is as good as before; so it is after -EMFILE. */
static int vhost_begin(struct vhost *v, uint32_t direction)
{
	const unsigned ours = direction == VHOST_TRANSFER_SAVE ? 0 : 1;
	int end[2], other, rc;

	if (pipe2(end, O_CLOEXEC))
		return -EMFILE;
	vhost_place(v, end[ours], v->pipe_fd);
	rc = vlink_transfer(&v->link, direction, end[!ours], &other);
	close(end[!ours]);
	if (!rc && other >= 0 && fcntl(other, F_GETPIPE_SZ) < 0) {
		close(other);
		other = -1;
		rc = -EPROTO;
	}
	if (rc || other >= 0)
		vhost_place(v, other, v->pipe_fd);
	return rc;
}

static int vhost_check(struct vhost *v, uint64_t *failed)
{
	*failed = 0;
	return vlink_get_u64(&v->link, VHOST_CHECK_DEVICE_STATE, failed);
}

/* ---- from it ---- */

/* Up to the end of the pipe. */
static int vhost_take(struct vhost *v, uint64_t *len, struct err *e)
{
	uint8_t piece[PIECE];
	ssize_t n = 1;
	int rc = 0;

	for (*len = 0; n && rc >= 0;) {
		rc = vlink_wait_fd(&v->link, v->pipe_fd, POLLIN);
		if (rc <= 0)
			continue;
		n = read(v->pipe_fd, piece, sizeof(piece));
		if (n < 0)
			rc = -errno;
		else if (*len + (uint64_t)n > VHOST_HELD_MAX)
			return err_set(e, -EFBIG,
				       "what the back end holds is more than %u MiB; expected less",
				       VHOST_HELD_MAX >> 20);
		else
			rc = shm_write(v->held_fd, piece, (size_t)n, *len);
		*len += rc < 0 ? 0 : (uint64_t)n;
	}
	if (rc == -ETIMEDOUT)
		return err_set(e, rc,
			       "what the back end holds has not come to an end in %u ms (%llu "
			       "bytes)",
			       v->held_ms, (unsigned long long)*len);
	return rc < 0 ? err_sys(e, rc, "what the back end holds") : 0;
}

/* What it has taken from a ring it has answered: it writes no more to the guest's memory. */
static int vhost_has_answered(struct vhost *v, unsigned i, struct err *e)
{
	const struct vq_state *q = &v->front.v.st->q[i];

	while (vring_used(q, &v->gm) != v->st->ring[i].base) {
		if (clock_ns() >= v->link.until_ns)
			return err_set(e, -EAGAIN,
				       "the back end has requests of ring %u still under way", i);
		(void)poll(NULL, 0, REST_MS);
	}
	return 0;
}

static int vhost_all_answered(struct vhost *v, struct err *e)
{
	int rc = 0;

	for (unsigned i = 0; i < v->conf.nqueues && !rc; i++) {
		if (v->st->ring[i].is == VHOST_RING_STOPPED)
			rc = vhost_has_answered(v, i, e);
	}
	return rc;
}

/* Take the rings back, and what it holds into held_fd. *lost: and the connection is of no use any
 * more. */
static int vhost_save(struct vhost *v, uint64_t *len, bool *lost, struct err *e)
{
	uint64_t failed;
	int rc;

	vhost_limit(v, v->rest_ms);
	rc = vhost_halt(v, e);
	*lost = rc;
	if (rc)
		return rc;
	vhost_limit(v, v->held_ms);
	rc = vhost_begin(v, VHOST_TRANSFER_SAVE);
	*lost = rc && rc != -EREMOTEIO && rc != -EMFILE;
	if (rc)
		return err_sys(e, rc, "SET_DEVICE_STATE_FD");
	rc = vhost_take(v, len, e);
	vhost_place(v, -1, v->pipe_fd);
	if (rc)
		return rc;
	vhost_limit(v, v->setup_ms);
	rc = vhost_check(v, &failed);
	*lost = rc;
	if (rc)
		return err_sys(e, rc, "CHECK_DEVICE_STATE");
	if (failed)
		return err_set(e, -EREMOTEIO, "the back end could not say all that it holds");
	return vhost_all_answered(v, e);
}

/* ---- a snapshot is made ---- */

/* Without a driver there is nothing that a back end could hold. */
static int vhost_save_now(struct vhost *v, uint64_t *len, bool *lost, struct err *e)
{
	*lost = false;
	if (!v->front.v.running)
		return 0;
	if (v->is != VHOST_UP)
		return err_set(e, -EAGAIN, "there is no back end at the moment");
	v->rests = true;
	return vhost_save(v, len, lost, e);
}

/* A snapshot is made. Without MSG_SAVE this device can only be part of it if no driver has it:
 * nothing is in flight then. */
void vhost_quiet(void *dev)
{
	struct vhost *v = dev;
	struct msg_saved m = {.no = v->h->quiet_order.no};
	struct err e = {0};
	bool lost = false;

	if (v->saves) {
		m.error = vhost_save_now(v, &m.len, &lost, &e);
		snprintf(m.text, sizeof(m.text), "%.*s", (int)sizeof(m.text) - 1, e.text);
		vhost_place(v, -1, v->held_fd);
		v->saves = false;
		/* If it cannot be said, the supervisor is gone, and the loop sees that. */
		(void)msg_send(v->channel, MSG_SAVED, &m, sizeof(m), NULL, 0);
	}
	if (lost)
		vhost_drop(v, &e);
	helper_is_quiet(v->h);
}

/* What is served after the moment that was saved belongs to a VM that goes on. */
void vhost_go_on(void *dev)
{
	struct vhost *v = dev;

	if (v->h->stops || !v->rests)
		return;
	v->rests = false;
	/* Who loses this connection loses its open files: all of the time that a vCPU may have to
	 * wait for its registers. */
	vhost_limit(v, v->setup_ms + v->call_ms);
	if (v->is == VHOST_UP)
		vhost_go(v);
	if (v->link.config_news)
		event_signal(v->h->event_fd);
}

/* ---- to it ---- */

static int vhost_give(struct vhost *v)
{
	uint8_t piece[PIECE];
	uint64_t at = 0;
	int rc = 0;

	while (at < v->conf.held && rc >= 0) {
		size_t n = v->conf.held - at < PIECE ? (size_t)(v->conf.held - at) : PIECE;

		rc = vlink_wait_fd(&v->link, v->pipe_fd, POLLOUT);
		if (rc <= 0)
			continue;
		rc = shm_read(v->held_fd, piece, n, at);
		if (!rc)
			rc = write_full(v->pipe_fd, piece, n);
		at += n;
	}
	return rc < 0 ? rc : 0;
}

int vhost_load(struct vhost *v, struct err *e)
{
	uint64_t failed;
	bool stopped;
	int rc;

	if (!vhost_speaks(v, VHOST_P_DEVICE_STATE))
		return err_set(e, -EOPNOTSUPP,
			       "it cannot take what the one of the snapshot held; expected one "
			       "that can (DEVICE_STATE)");
	rc = vhost_begin(v, VHOST_TRANSFER_LOAD);
	if (rc)
		return err_sys(e, rc, "SET_DEVICE_STATE_FD");
	rc = vhost_give(v);
	vhost_place(v, -1, v->pipe_fd);
	/* One that has stopped to read may say why in its log, before it answers. */
	if (rc && rc != -EPIPE)
		return err_sys(e, rc, "what the one of the snapshot held");
	stopped = rc;
	rc = vhost_check(v, &failed);
	if (rc)
		return err_sys(e, rc, "CHECK_DEVICE_STATE");
	return failed || stopped ? err_set(e, -EREMOTEIO,
					   "it has not taken what the one of the snapshot held")
				 : 0;
}
