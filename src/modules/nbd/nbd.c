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

#include "modules/handed.h"
#include "nbd.h"

#define PIECE (32u << 20) /* bytes of one request, at most: what servers take */

/* ---- connections ---- */

/* One whose connection did not come about is as new. */
bool nbd_is_over(struct nbd_handle *h)
{
	return nbd_aio_is_dead(h) || nbd_aio_is_closed(h) || nbd_aio_is_created(h);
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

/* Structured replies spare the network what reads as zeros. Between processes of one host a reply in
 * two pieces instead of three is worth more: each piece is a system call of the server's, and wakes
 * us. */
int nbd_begin(const struct nbd_disk *d, struct nbd_handle *h, int fd)
{
	bool near = strstr(d->uri.scheme, "+unix");

	if (set_tls(d, h) || nbd_set_export_name(h, d->uri.path) ||
	    nbd_set_pread_initialize(h, false) || nbd_set_request_structured_replies(h, !near)) {
		close(fd);
		return -1;
	}
	return d->tls ? connect_tls(d, h, fd) : nbd_aio_connect_socket(h, fd);
}

/* ---- what the disk is ---- */

/* 0: what a server that says nothing of it takes. */
static const char *block_sizes(struct nbd_handle *h, struct module_disk *k, uint32_t *piece,
			       char room[NBD_WHY])
{
	int64_t least = nbd_get_block_size(h, LIBNBD_SIZE_MINIMUM);
	int64_t best = nbd_get_block_size(h, LIBNBD_SIZE_PREFERRED);
	int64_t most = nbd_get_block_size(h, LIBNBD_SIZE_MAXIMUM);

	if (least > 4096 || (least > 0 && (least & (least - 1)))) {
		snprintf(room, NBD_WHY,
			 "minimum block size %lld; expected a power of two, at most 4096",
			 (long long)least);
		return room;
	}
	if (least > 512)
		k->logical = (uint32_t)least;
	if (best >= 512 && best <= 65536 && !(best & (best - 1)) && best >= least)
		k->physical = (uint32_t)best;
	if (most > 0 && most < 4096) {
		snprintf(room, NBD_WHY, "maximum block size %lld; expected at least 4096",
			 (long long)most);
		return room;
	}
	*piece = most > 0 && most < PIECE ? (uint32_t)most & ~4095u : PIECE;
	return NULL;
}

const char *nbd_known(struct nbd_handle *h, struct module_disk *k, uint32_t *piece,
		      char room[NBD_WHY])
{
	int64_t size = nbd_get_size(h);

	*k = (struct module_disk){.size = size > 0 ? (uint64_t)size : 0,
				  .queues = nbd_can_multi_conn(h) == 1 ? 0 : 1};
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
	return block_sizes(h, k, piece, room);
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
	char room[NBD_WHY];
	const char *why;

	if (!h)
		return err_set(e, -ENOMEM, "out of memory");
	if (nbd_begin(d, h, fd))
		return say_error(e, d);
	while (!nbd_aio_is_ready(h)) {
		if (nbd_is_over(h))
			return say_error(e, d);
		if (module_now() > until)
			return err_set(e, -ETIMEDOUT,
				       "export '%.60s': the server has not greeted in %u s",
				       d->uri.path, (unsigned)(HANDSHAKE_NS / NS));
		if (nbd_poll(h, 100) < 0)
			return say_error(e, d);
	}
	why = nbd_known(h, k, &d->piece, room);
	if (why)
		return err_set(e, -EINVAL, "export '%.60s': %s", d->uri.path, why);
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
		.look = nbd_look,
	};

	return module_main(&ops);
}
