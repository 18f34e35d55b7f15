/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A lane of the module nbd: one queue, its requests, its connection. See nbd.h.
 *
 * What libnbd sends and reads goes through a stream (modules/stream.h) while a connection is up: the
 * requests of a turn leave with one system call, when nbd_poll_for() is called, and answers that
 * have come together are read together. During a handshake libnbd has the socket to itself: TLS
 * waits for it inside.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "modules/handed.h"
#include "modules/queue.h"
#include "modules/stream.h"
#include "nbd.h"

#define BOUNCE (256u << 10) /* of one whose memory is in pieces */
#define BOUNCES 32u         /* such at once; the others wait for them */
#define STEPS 128           /* of one turn */

struct nbd_lane {
	struct nbd_disk *d;
	struct module_lane *l;
	struct nbd_handle *h; /* NULL: there is no connection */
	bool up;              /* the handshake is through */
	bool told;            /* that there is none */
	uint32_t piece;       /* bytes of one request, at most */
	int broken;           /* a negative errno of its stream; 0: none */
	char why[NBD_WHY];    /* what libnbd said last of it; "": nothing */
	uint64_t began_ns;    /* the handshake */
	uint64_t look_ns;     /* when to look for requests that have waited too long; 0: not yet */
	struct queue waiting, flying, answered;
	void *bounce[BOUNCES];     /* free ones */
	unsigned nbounce, bounces; /* of them; made at all */
	struct stream stream;      /* while it is up */
};

/* module_req.own[]: a buffer, if its memory is in pieces; the lane; the answer's errno. */
enum { REQ_BOUNCE, REQ_LANE, REQ_ERROR };

/* ---- memory in pieces ---- */

static bool in_pieces(const struct module_req *r)
{
	return r->niov > 1 && r->iov[0].iov_len < r->len;
}

/* Between the guest's memory and the buffer. */
static void copy(const struct module_req *r, bool out)
{
	uint8_t *at = r->own[REQ_BOUNCE];
	uint64_t left = r->len;

	for (unsigned i = 0; i < r->niov && left; i++) {
		size_t n = r->iov[i].iov_len < left ? r->iov[i].iov_len : (size_t)left;

		if (out)
			memcpy(at, r->iov[i].iov_base, n);
		else
			memcpy(r->iov[i].iov_base, at, n);
		at += n;
		left -= n;
	}
}

static void *buffer_of(const struct module_req *r)
{
	return r->own[REQ_BOUNCE] ? r->own[REQ_BOUNCE] : r->iov[0].iov_base;
}

/* False: there is none now. */
static bool get_bounce(struct nbd_lane *l, struct module_req *r)
{
	if (r->own[REQ_BOUNCE])
		return true;
	if (!l->nbounce && l->bounces < BOUNCES) {
		l->bounce[0] = malloc(BOUNCE);
		l->nbounce = l->bounce[0] != NULL;
		l->bounces += l->nbounce;
	}
	if (!l->nbounce)
		return false;
	r->own[REQ_BOUNCE] = l->bounce[--l->nbounce];
	return true;
}

static void answer(struct nbd_lane *l, struct module_req *r, int res)
{
	if (r->own[REQ_BOUNCE]) {
		if (r->op == MODULE_READ && !res)
			copy(r, false);
		l->bounce[l->nbounce++] = r->own[REQ_BOUNCE];
		r->own[REQ_BOUNCE] = NULL;
	}
	module_done(l->l, r, res);
}

/* ---- to libnbd ---- */

/* libnbd's lock is held: take it down, and no more. */
static int nbd_answered(void *user, int *error)
{
	struct module_req *r = user;
	struct nbd_lane *l = r->own[REQ_LANE];

	r->own[REQ_ERROR] = (void *)(uintptr_t)(unsigned)*error;
	(void)queue_take_out(&l->flying, r);
	queue_put(&l->answered, r);
	return 1;
}

static int64_t issue(struct nbd_handle *h, struct module_req *r, nbd_completion_callback done)
{
	uint32_t fua = r->fua ? LIBNBD_CMD_FLAG_FUA : 0;

	switch (r->op) {
	case MODULE_READ:
		return nbd_aio_pread(h, buffer_of(r), (size_t)r->len, r->off, done, 0);
	case MODULE_WRITE:
		return nbd_aio_pwrite(h, buffer_of(r), (size_t)r->len, r->off, done, fua);
	case MODULE_FLUSH:
		return nbd_aio_flush(h, done, 0);
	case MODULE_DISCARD:
		return nbd_aio_trim(h, r->len, r->off, done, 0);
	case MODULE_ZEROES:
		return nbd_aio_zero(h, r->len, r->off, done,
				    fua | (r->unmap ? 0 : LIBNBD_CMD_FLAG_NO_HOLE));
	}
	return -1;
}

static bool is_dead(const struct nbd_lane *l)
{
	return l->h && (l->broken || nbd_is_over(l->h));
}

/* -EAGAIN: its time has not come. */
static int fly(struct nbd_lane *l, struct module_req *r)
{
	const nbd_completion_callback done = {.callback = nbd_answered, .user_data = r};

	if (r->len > l->piece && (r->op == MODULE_READ || r->op == MODULE_WRITE))
		r->len = l->piece;
	if (in_pieces(r)) {
		if (r->len > BOUNCE)
			r->len = BOUNCE;
		if (!get_bounce(l, r))
			return -EAGAIN;
		if (r->op == MODULE_WRITE)
			copy(r, true);
	}
	r->own[REQ_LANE] = l;
	queue_put(&l->flying, r);
	/* If the connection dies over it, that is an answer too. */
	if (issue(l->h, r, done) >= 0 || !queue_take_out(&l->flying, r))
		return 0;
	return is_dead(l) ? -EAGAIN : -(nbd_get_errno() ? nbd_get_errno() : EIO);
}

static void fly_all(struct nbd_lane *l)
{
	if (l->up)
		handed_stream(&l->stream);
	while (l->up && l->waiting.first) {
		struct module_req *r = queue_take(&l->waiting);
		int rc = fly(l, r);

		if (rc == -EAGAIN) {
			queue_put_first(&l->waiting, r);
			return;
		}
		if (rc)
			answer(l, r, rc);
	}
}

/* ---- connections ---- */

static void fail_waiting(struct nbd_lane *l)
{
	struct module_req *r;

	while ((r = queue_take(&l->waiting)))
		answer(l, r, -EIO);
}

/* Its answers; those that it died with are none. */
static void answers(struct nbd_lane *l, bool dead)
{
	struct module_req *r;

	while ((r = queue_take(&l->answered))) {
		int error = (int)(uintptr_t)r->own[REQ_ERROR];

		if (error && dead)
			queue_put(&l->flying, r);
		else
			answer(l, r, -error);
	}
}

static void drop(struct nbd_lane *l, const char *why)
{
	if (l->up)
		module_lost(l->l);
	if (!l->told || l->up)
		module_log("the connection has ended%s%s: requests wait for the next one",
			   why && *why ? ": " : "", why ? why : "");
	l->told = true;
	l->up = false;
	l->broken = 0;
	handed_stream(NULL);
	nbd_close(l->h);
	l->h = NULL;
	answers(l, true);
	queue_land(&l->waiting, &l->flying);
	module_need(l->l);
}

/* NULL: it is the disk that the guest knows, or a larger one. */
static const char *changed(const struct nbd_lane *l, const struct module_disk *now)
{
	const struct module_disk *k = &l->d->known;
	const uint32_t need = k->flags & ~(uint32_t)(MODULE_DISK_RO);

	if (now->size < k->size)
		return "the disk is smaller than before";
	if (now->size % 512)
		return "its size is not a multiple of 512 any more";
	if ((now->flags & MODULE_DISK_RO) && !(k->flags & MODULE_DISK_RO))
		return "the disk can only be read now";
	if (need & ~now->flags)
		return "the server cannot do what it could before (flush, FUA, trim or zero)";
	if (now->queues == 1 && k->queues != 1)
		return "the server's connections do not agree with each other any more";
	if (now->logical > 512 && now->logical > k->logical)
		return "its minimum block size is larger than before";
	return NULL;
}

static void is_up(struct nbd_lane *l)
{
	stream_begin(&l->stream, nbd_aio_get_fd(l->h));
	l->up = true;
}

static void arrived(struct nbd_lane *l)
{
	struct module_disk now;
	char room[NBD_WHY];
	const char *why = nbd_known(l->h, &now, &l->piece, room);

	if (!why)
		why = changed(l, &now);
	if (why) {
		/* It refuses by being another one: nobody waits for that to pass. */
		module_log("refused: %s", why);
		l->told = true;
		drop(l, NULL);
		fail_waiting(l);
		return;
	}
	if (now.size > l->d->known.size)
		(void)module_resize(l->l, now.size);
	is_up(l);
	if (l->told)
		module_log("connected again");
	l->told = false;
}

void nbd_lane_connection(void *lane, int fd)
{
	struct nbd_lane *l = lane;

	if (l->h) {
		close(fd);
		return;
	}
	l->h = nbd_create();
	if (!l->h) {
		close(fd);
		module_need(l->l);
		return;
	}
	l->began_ns = module_now();
	l->why[0] = 0;
	if (nbd_begin(l->d, l->h, fd))
		drop(l, nbd_get_error());
}

/* ---- what is overdue ---- */

static void expire(struct nbd_lane *l, struct queue *q, uint64_t now)
{
	struct queue keep = {0};
	struct module_req *r;

	while ((r = queue_take(q))) {
		if (now - r->born_ns < l->d->timeout_ns)
			queue_put(&keep, r);
		else
			answer(l, r, -ETIMEDOUT);
	}
	*q = keep;
}

static void look(struct nbd_lane *l)
{
	uint64_t now = module_now(), step = l->d->timeout_ns / 8;

	if (!l->flying.first && !l->waiting.first && (!l->h || l->up)) {
		l->look_ns = 0;
		return;
	}
	if (l->look_ns && now < l->look_ns)
		return;
	if (l->look_ns && l->h && !l->up && now - l->began_ns > HANDSHAKE_NS)
		drop(l, "no greeting in time");
	if (l->look_ns && queue_has_older(&l->flying, now, l->d->timeout_ns))
		drop(l, "no answer in time");
	if (l->look_ns)
		expire(l, &l->waiting, now);
	l->look_ns = now + (step < NS ? step : NS);
}

/* ---- the lane's thread ---- */

void nbd_submit(void *lane, struct module_req *r)
{
	struct nbd_lane *l = lane;

	if (l->d->stable && (r->op == MODULE_WRITE || r->op == MODULE_ZEROES))
		r->fua = true;
	queue_put(&l->waiting, r);
	if (!l->h)
		module_need(l->l);
	fly_all(l);
}

unsigned nbd_poll_for(void *lane, struct pollfd p[MODULE_MAX_POLL], int *timeout)
{
	struct nbd_lane *l = lane;
	unsigned dir;
	int rc = 0;

	look(l);
	if (l->look_ns) {
		uint64_t now = module_now();

		*timeout = l->look_ns > now ? (int)((l->look_ns - now) / MS_NS + 1) : 0;
	}
	if (l->up && !is_dead(l)) /* libnbd has closed the descriptor of a dead one */
		rc = stream_flush(&l->stream);
	if (rc && rc != -EAGAIN)
		l->broken = rc;
	/* It may have died over what was sent. */
	if (is_dead(l) || l->answered.first)
		*timeout = 0;
	if (!l->h || is_dead(l))
		return 0;
	dir = nbd_aio_get_direction(l->h);
	p[0] = (struct pollfd){.fd = nbd_aio_get_fd(l->h)};
	if (dir & LIBNBD_AIO_DIRECTION_READ) {
		p[0].events |= POLLIN;
		/* What has been read of the socket already wakes nobody. */
		if (l->up && (l->stream.in_len || l->stream.over))
			*timeout = 0;
	}
	if (rc || (dir & LIBNBD_AIO_DIRECTION_WRITE))
		p[0].events |= POLLOUT;
	return p[0].fd >= 0;
}

/* What the socket is ready for, in a handshake. libnbd must not be told that it can read when it
 * cannot: it takes that for the beginning of an answer, and sends nothing until there is one. */
static short look_at_socket(const struct nbd_lane *l)
{
	struct pollfd p = {.fd = nbd_aio_get_fd(l->h), .events = POLLIN};

	if (nbd_aio_get_direction(l->h) & LIBNBD_AIO_DIRECTION_WRITE)
		p.events |= POLLOUT;
	return poll(&p, 1, 0) > 0 ? p.revents : 0;
}

/* The same while it is up, where `revents` is what poll() has said. It is worth a try to read then;
 * not for ever to write. */
static short look_at_stream(struct nbd_lane *l, short revents)
{
	short got = 0;

	if ((nbd_aio_get_direction(l->h) & LIBNBD_AIO_DIRECTION_READ) && stream_fill(&l->stream))
		got |= POLLIN;
	return (short)(got | (revents & POLLOUT));
}

/* One answer, or a part of one, or a part of what is to be sent. False: it made no difference. */
static bool step(struct nbd_lane *l, short revents)
{
	unsigned dir = nbd_aio_get_direction(l->h);
	int rc;

	if ((dir & LIBNBD_AIO_DIRECTION_READ) && (revents & (POLLIN | POLLHUP | POLLERR)))
		rc = nbd_aio_notify_read(l->h);
	else if ((dir & LIBNBD_AIO_DIRECTION_WRITE) && (revents & (POLLOUT | POLLHUP | POLLERR)))
		rc = nbd_aio_notify_write(l->h);
	else
		return false;
	if (rc)
		snprintf(l->why, sizeof(l->why), "%s", nbd_get_error() ? nbd_get_error() : "");
	return !rc;
}

static void shake_hands(struct nbd_lane *l, short revents)
{
	for (unsigned tries = 0; tries < STEPS && !is_dead(l); tries++) {
		if (!revents)
			revents = look_at_socket(l);
		if (!revents || !step(l, revents))
			break;
		revents = 0;
	}
}

static void talk(struct nbd_lane *l, short revents)
{
	handed_stream(&l->stream);
	for (unsigned tries = 0; tries < STEPS && !is_dead(l); tries++) {
		short now = look_at_stream(l, revents);

		if (!now || !step(l, now))
			break;
		if (!(now & POLLIN))
			revents = 0;
	}
	if (l->broken)
		snprintf(l->why, sizeof(l->why), "%s", strerror(-l->broken));
}

void nbd_ready(void *lane, const struct pollfd *p, unsigned n)
{
	struct nbd_lane *l = lane;
	short revents = n ? p->revents : 0;
	bool dead;

	if (l->h && l->up)
		talk(l, revents);
	else if (l->h)
		shake_hands(l, revents);
	dead = is_dead(l);
	answers(l, dead);
	if (dead)
		drop(l, l->why);
	else if (l->h && !l->up && nbd_aio_is_ready(l->h))
		arrived(l);
	fly_all(l);
}

bool nbd_look(void *lane)
{
	struct nbd_lane *l = lane;

	return l->answered.first || (l->up && l->flying.first && stream_fill(&l->stream));
}

void nbd_abort(void *lane)
{
	struct nbd_lane *l = lane;

	if (!l->up)
		fail_waiting(l);
}

/* ---- start ---- */

int nbd_lane_open(void *own, struct module_lane *ml, unsigned index, void **lane, struct err *e)
{
	struct nbd_disk *d = own;
	struct nbd_lane *l = calloc(1, sizeof(*l));

	if (!l)
		return err_set(e, -ENOMEM, "out of memory");
	l->d = d;
	l->l = ml;
	l->piece = d->piece;
	if (index == 0 && d->first) {
		l->h = d->first;
		is_up(l);
		d->first = NULL;
	}
	*lane = l;
	return 0;
}
