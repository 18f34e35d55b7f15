/* SPDX-License-Identifier: BSD-2-Clause */
/* The module nbd: nbd.c is the disk, its settings and how it is connected; lane.c the requests. */
#ifndef MODULES_NBD_H
#define MODULES_NBD_H

#include <libnbd.h>

#include <insula/module.h>
#include <insula/uri.h>

#define NS 1000000000ull
#define MS_NS 1000000ull
#define HANDSHAKE_NS (10 * NS)
#define NBD_WHY 160

struct nbd_disk {
	struct uri uri;
	uint64_t timeout_ns;
	bool ro, stable;
	bool tls, psk;            /* TLS; with a key that both know, else with certificates */
	const char *tls_host;     /* whose certificate it has to be; NULL: the URI's host */
	struct module_disk known; /* what the guest was told */
	uint32_t piece;           /* bytes of one request, at most: what lanes begin with */
	struct nbd_handle *first; /* of describe(), for lane 0 */
};

/* Begin a connection through `fd`, which is libnbd's then. Not 0: nbd_get_error(); the handle is
 * the caller's still. It does not block. */
int nbd_begin(const struct nbd_disk *d, struct nbd_handle *h, int fd);
/* It has ended, or did not come about. */
bool nbd_is_over(struct nbd_handle *h);
/* What the server has said of the disk, and how many bytes a request may have. NULL, or in `room` a
 * line why nothing can be made of it. */
const char *nbd_known(struct nbd_handle *h, struct module_disk *k, uint32_t *piece,
		      char room[NBD_WHY]);

/* module_ops of a lane. */
int nbd_lane_open(void *own, struct module_lane *ml, unsigned index, void **lane, struct err *e);
void nbd_submit(void *lane, struct module_req *r);
unsigned nbd_poll_for(void *lane, struct pollfd p[MODULE_MAX_POLL], int *timeout);
void nbd_ready(void *lane, const struct pollfd *p, unsigned n);
void nbd_lane_connection(void *lane, int fd);
bool nbd_look(void *lane);
void nbd_abort(void *lane);

#endif
