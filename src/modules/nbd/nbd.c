/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The module nbd: network block devices, by libnbd.
 *
 * Each lane has a connection of its own if the server says that its connections agree with each
 * other (multi-conn); otherwise there is one lane. libnbd's handle is a state machine with a
 * descriptor: requests go in, answers come as callbacks inside nbd_aio_notify_read().
 *
 *   connection   none -> asked for (module_need) -> handshake -> up -> dead: none
 *   request      waits (no connection) -> flies (in libnbd) -> answered; when its connection dies it
 *                waits again, and is sent again
 *
 * A request that has not been answered in `timeout` fails, whether it waits or flies. One that
 * flies takes its connection with it: nothing else would keep the server from writing into memory
 * that the guest uses for something else by then.
 *
 * What a server says is believed by libnbd as far as the protocol goes, and here if it agrees with
 * what the guest was told of the disk: a server that comes back smaller, read-only or without
 * flushes is not spoken to.
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <libnbd.h>

#include <insula/module.h>
#include <insula/uri.h>

#include "modules/handed.h"
#include "modules/queue.h"

#define NS 1000000000ull
#define MS_NS 1000000ull
#define PIECE (32u << 20)   /* bytes of one request, at most: what servers take */
#define BOUNCE (256u << 10) /* of one whose memory is in pieces */
#define BOUNCES 32u         /* such at once; the others wait for them */
#define HANDSHAKE_NS (10 * NS)
#define STEPS 128 /* of one turn */

struct nbd_disk {
	struct uri uri;
	uint64_t timeout_ns;
	bool ro, stable;
	bool tls, psk;            /* TLS; with a key that both know, else with certificates */
	const char *tls_host;     /* whose certificate it has to be; NULL: the URI's host */
	struct module_disk known; /* what the guest was told */
	uint32_t piece;           /* bytes of one request, at most */
	struct nbd_handle *first; /* of describe(), for lane 0 */
};

struct nbd_lane {
	struct nbd_disk *d;
	struct module_lane *l;
	struct nbd_handle *h; /* NULL: there is no connection */
	bool up;              /* the handshake is through */
	bool told;            /* that there is none */
	char why[160];        /* what libnbd said last of it; "": nothing */
	uint64_t began_ns;    /* the handshake */
	uint64_t look_ns;     /* when to look for requests that have waited too long; 0: not yet */
	struct queue waiting, flying, answered;
	void *bounce[BOUNCES];     /* free ones */
	unsigned nbounce, bounces; /* of them; made at all */
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

/* One whose connection did not come about is as new. */
static bool is_over(struct nbd_handle *h)
{
	return nbd_aio_is_dead(h) || nbd_aio_is_closed(h) || nbd_aio_is_created(h);
}

static bool is_dead(const struct nbd_lane *l)
{
	return l->h && is_over(l->h);
}

/* -EAGAIN: its time has not come. */
static int fly(struct nbd_lane *l, struct module_req *r)
{
	const nbd_completion_callback done = {.callback = nbd_answered, .user_data = r};

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
	nbd_close(l->h);
	l->h = NULL;
	answers(l, true);
	queue_land(&l->waiting, &l->flying);
	module_need(l->l);
}

static void known_from(struct nbd_disk *d, struct nbd_handle *h, struct module_disk *k)
{
	int64_t size = nbd_get_size(h), block = nbd_get_block_size(h, LIBNBD_SIZE_MINIMUM);
	int64_t best = nbd_get_block_size(h, LIBNBD_SIZE_PREFERRED);
	int64_t most = nbd_get_block_size(h, LIBNBD_SIZE_MAXIMUM);

	*k = (struct module_disk){.size = size > 0 ? (uint64_t)size : 0,
				  .queues = nbd_can_multi_conn(h) == 1 ? 0 : 1};
	if (block > 512 && block <= 4096 && !(block & (block - 1)))
		k->logical = (uint32_t)block;
	if (best >= 512 && best <= 65536 && !(best & (best - 1)) && best >= block)
		k->physical = (uint32_t)best;
	d->piece = most >= 4096 && most < PIECE ? (uint32_t)most & ~4095u : PIECE;
	if (nbd_is_read_only(h) == 1)
		k->flags |= MODULE_DISK_RO;
	if (nbd_can_flush(h) == 1)
		k->flags |= MODULE_DISK_FLUSH;
	if (nbd_can_fua(h) == 1)
		k->flags |= MODULE_DISK_FUA;
	if (nbd_can_trim(h) == 1)
		k->flags |= MODULE_DISK_DISCARD;
	if (nbd_can_zero(h) == 1)
		k->flags |= MODULE_DISK_ZEROES;
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
	return NULL;
}

static void arrived(struct nbd_lane *l)
{
	struct module_disk now;
	const char *why;

	known_from(l->d, l->h, &now);
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
	l->up = true;
	if (l->told)
		module_log("connected again");
	l->told = false;
}

static int set_tls(const struct nbd_disk *d, struct nbd_handle *h)
{
	if (!d->tls)
		return nbd_set_tls(h, LIBNBD_TLS_DISABLE);
	if (nbd_set_tls(h, LIBNBD_TLS_REQUIRE) || nbd_set_tls_verify_peer(h, true))
		return -1;
	if (!d->psk)
		return nbd_set_tls_certificates(h, HANDED_DIR);
	return nbd_set_tls_username(h, d->uri.user) || nbd_set_tls_psk_file(h, HANDED_DIR "/psk");
}

/* libnbd looks whether a certificate is the host's only of one to which it has connected itself. So
 * it does that, with the socket that is handed to it. */
static int connect_tls(const struct nbd_disk *d, struct nbd_handle *h, int fd)
{
	const char *host = d->tls_host ? d->tls_host : d->uri.host;
	int rc;

	handed_socket(fd);
	rc = nbd_aio_connect_tcp(h, *host ? host : "localhost", "0");
	fd = handed_back();
	if (fd >= 0)
		close(fd);
	return rc;
}

static int set_up(const struct nbd_disk *d, struct nbd_handle *h, int fd)
{
	if (set_tls(d, h) || nbd_set_export_name(h, d->uri.path) ||
	    nbd_set_pread_initialize(h, false)) {
		close(fd);
		return -1;
	}
	return d->tls ? connect_tls(d, h, fd) : nbd_aio_connect_socket(h, fd);
}

static void nbd_lane_connection(void *lane, int fd)
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
	if (set_up(l->d, l->h, fd))
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

static void nbd_submit(void *lane, struct module_req *r)
{
	struct nbd_lane *l = lane;

	if (r->len > l->d->piece && (r->op == MODULE_READ || r->op == MODULE_WRITE))
		r->len = l->d->piece;
	if (l->d->stable && (r->op == MODULE_WRITE || r->op == MODULE_ZEROES))
		r->fua = true;
	queue_put(&l->waiting, r);
	if (!l->h)
		module_need(l->l);
	fly_all(l);
}

static unsigned nbd_poll_for(void *lane, struct pollfd p[MODULE_MAX_POLL], int *timeout)
{
	struct nbd_lane *l = lane;
	unsigned dir;

	look(l);
	if (l->look_ns) {
		uint64_t now = module_now();

		*timeout = l->look_ns > now ? (int)((l->look_ns - now) / MS_NS + 1) : 0;
	}
	/* It may have died over what was sent. */
	if (is_dead(l) || l->answered.first)
		*timeout = 0;
	if (!l->h || is_dead(l))
		return 0;
	dir = nbd_aio_get_direction(l->h);
	p[0] = (struct pollfd){.fd = nbd_aio_get_fd(l->h)};
	if (dir & LIBNBD_AIO_DIRECTION_READ)
		p[0].events |= POLLIN;
	if (dir & LIBNBD_AIO_DIRECTION_WRITE)
		p[0].events |= POLLOUT;
	return p[0].fd >= 0;
}

/* What the socket is ready for. libnbd must not be told that it can read when it cannot: it takes
 * that for the beginning of an answer, and sends nothing until there is one. */
static short look_at_socket(const struct nbd_lane *l)
{
	struct pollfd p = {.fd = nbd_aio_get_fd(l->h), .events = POLLIN};

	if (nbd_aio_get_direction(l->h) & LIBNBD_AIO_DIRECTION_WRITE)
		p.events |= POLLOUT;
	return poll(&p, 1, 0) > 0 ? p.revents : 0;
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

static void nbd_ready(void *lane, const struct pollfd *p, unsigned n)
{
	struct nbd_lane *l = lane;
	short revents = n ? p->revents : 0;
	bool dead;

	for (unsigned tries = 0; l->h && tries < STEPS && !is_dead(l); tries++) {
		if (!revents && (!l->up || l->flying.first))
			revents = look_at_socket(l);
		if (!revents || !step(l, revents))
			break;
		revents = 0;
	}
	dead = is_dead(l);
	answers(l, dead);
	if (dead)
		drop(l, l->why);
	else if (l->h && !l->up && nbd_aio_is_ready(l->h))
		arrived(l);
	fly_all(l);
}

static void nbd_abort(void *lane)
{
	struct nbd_lane *l = lane;

	if (!l->up)
		fail_waiting(l);
}

/* ---- start ---- */

static int nbd_lane_open(void *own, struct module_lane *ml, unsigned index, void **lane,
			 struct err *e)
{
	struct nbd_disk *d = own;
	struct nbd_lane *l = calloc(1, sizeof(*l));

	if (!l)
		return err_set(e, -ENOMEM, "out of memory");
	l->d = d;
	l->l = ml;
	if (index == 0 && d->first) {
		l->h = d->first;
		l->up = true;
		d->first = NULL;
	}
	*lane = l;
	return 0;
}

static int say_error(struct err *e, const struct nbd_disk *d)
{
	const char *text = nbd_get_error();

	return err_set(e, -EIO, "export '%.60s': %s", d->uri.path, text ? text : "no connection");
}

static int nbd_describe(void *own, int fd, struct module_disk *k, struct err *e)
{
	struct nbd_disk *d = own;
	uint64_t until = module_now() + HANDSHAKE_NS;
	struct nbd_handle *h = nbd_create();

	if (!h)
		return err_set(e, -ENOMEM, "out of memory");
	if (set_up(d, h, fd))
		return say_error(e, d);
	while (!nbd_aio_is_ready(h)) {
		if (is_over(h))
			return say_error(e, d);
		if (module_now() > until)
			return err_set(e, -ETIMEDOUT,
				       "export '%.60s': the server has not greeted in %u s",
				       d->uri.path, (unsigned)(HANDSHAKE_NS / NS));
		if (nbd_poll(h, 100) < 0)
			return say_error(e, d);
	}
	known_from(d, h, k);
	if ((k->flags & MODULE_DISK_RO) && !d->ro)
		return err_set(e, -EROFS, "export '%.60s': can only be read; expected ro with it",
			       d->uri.path);
	if (k->size % 512 || !k->size)
		return err_set(e, -EINVAL,
			       "export '%.60s': %llu bytes; expected a multiple of 512, and not 0",
			       d->uri.path, (unsigned long long)k->size);
	if (d->stable && !(k->flags & MODULE_DISK_FUA) && (k->flags & MODULE_DISK_FLUSH))
		return err_set(e, -EOPNOTSUPP,
			       "export '%.60s': the server knows no stable writes (FUA); expected "
			       "writes=cached",
			       d->uri.path);
	d->known = *k;
	d->first = h;
	return 0;
}

static void nbd_resume(void *own, const struct module_disk *k)
{
	struct nbd_disk *d = own;

	d->known = *k;
	d->piece = PIECE;
}

/* ---- TLS ---- */

static void (*handshake_timeout)(void *session, unsigned ms);
void gnutls_handshake_set_timeout(void *session, unsigned ms);

/* GnuTLS's. While a handshake waits for the server, libnbd does not give control back: it calls
 * GnuTLS again and again, which waits in poll() until this time is over. libnbd says 40 s. */
void gnutls_handshake_set_timeout(void *session, unsigned ms)
{
	(void)ms;
	if (handshake_timeout)
		handshake_timeout(session, (unsigned)(HANDSHAKE_NS / MS_NS));
}

static int wrong_tls(struct err *e, const char *what, const char *expected)
{
	return err_set(e, -EINVAL, "%s: expected %s", what, expected);
}

static int check_tls(const struct nbd_disk *d, bool ca, bool cert, bool key, struct err *e)
{
	if (!d->tls && (d->psk || ca || cert || key || d->tls_host))
		return wrong_tls(e, "psk, ca, cert, key or tls-hostname",
				 "with nbds:// and nbds+unix:// only");
	if (!d->tls)
		return 0;
	if (d->psk == ca)
		return wrong_tls(e, "ca, psk", "one of them with TLS: whom to believe");
	if (d->psk && (cert || d->tls_host))
		return wrong_tls(e, "cert, tls-hostname", "with ca only");
	if (d->psk && !d->uri.user[0])
		return wrong_tls(e, "user", "one with psk: nbds://USER@HOST/...");
	if (cert != key)
		return wrong_tls(e, "cert, key", "both of them, or none");
	if (ca && !d->uri.host[0] && !d->tls_host)
		return wrong_tls(e, "tls-hostname", "it: whose certificate it has to be");
	return 0;
}

/* libnbd knows them by these names. */
static int take_tls(struct nbd_disk *d, const struct module_conf *c, struct err *e)
{
	static const struct {
		const char *key, *name;
	} files[] = {{"ca", "ca-cert.pem"},
		     {"cert", "client-cert.pem"},
		     {"key", "client-key.pem"},
		     {"psk", "psk"}};
	bool has[sizeof(files) / sizeof(files[0])];

	d->tls = !strncmp(d->uri.scheme, "nbds", 4);
	d->tls_host = c->setting(c, "tls-hostname");
	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		size_t len = 0;
		const char *text = c->file(c, files[i].key, &len);

		has[i] = text != NULL;
		if (text)
			handed_file(files[i].name, text, len);
	}
	d->psk = has[3];
	*(void **)&handshake_timeout = dlsym(RTLD_NEXT, "gnutls_handshake_set_timeout");
	/* What is said of the settings ends with open(). */
	if (d->tls_host) {
		d->tls_host = strdup(d->tls_host);
		if (!d->tls_host)
			return err_set(e, -ENOMEM, "out of memory");
	}
	return check_tls(d, has[0], has[1], has[2], e);
}

static int nbd_open(struct module *m, const struct module_conf *c, void **own, struct err *e)
{
	static struct nbd_disk disk;
	const char *writes = c->setting(c, "writes"), *timeout = c->setting(c, "timeout");
	int rc = uri_parse(&disk.uri, c->target, e);

	(void)m;
	if (!rc)
		rc = take_tls(&disk, c, e);
	if (rc)
		return rc;
	disk.ro = c->ro;
	disk.stable = writes && !strcmp(writes, "stable");
	disk.timeout_ns = (timeout ? strtoull(timeout, NULL, 10) : 30) * NS;
	*own = &disk;
	return 0;
}

int main(void)
{
	static const struct module_ops ops = {
		.name = "nbd",
		.open = nbd_open,
		.describe = nbd_describe,
		.resume = nbd_resume,
		.lane_open = nbd_lane_open,
		.submit = nbd_submit,
		.poll = nbd_poll_for,
		.ready = nbd_ready,
		.lane_connection = nbd_lane_connection,
		.abort = nbd_abort,
	};

	return module_main(&ops);
}
